//! Dialects: other systems' routes and answers, which a tenant serves where its settings say so. They are for clients that
//! cannot be changed; what is decided is decided where it always is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::Refusal;

/// Most applications that a tenant logs people in to.
const MOST_CLIENTS: usize = 20;

/// Which dialects a tenant speaks, each with what it may be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Dialects {
    /// Cheshire Cat's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cheshire_cat: Option<CheshireCat>,
    /// ClusterCockpit's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clustercockpit: Option<ClusterCockpit>,
    /// Howler's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub howler: Option<Howler>,
}

/// Cheshire Cat's dialect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheshireCat {
    /// Whether its login page leaves the token in a cookie that scripts can read, as its admin panel wants; else it begins a
    /// browser session.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub panel_cookie: bool,
}

/// Howler's dialect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Howler {
    /// The page of Howler's web interface that providers send browsers back to, which hands what they brought to
    /// `/api/v1/auth/login`: an absolute address without a query. Absent is that route itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
    /// Whether a key that is made with a JWT ends no later than that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strict_apikeys: bool,
}

impl Howler {
    fn check(&self) -> Result<(), Refusal> {
        let fits = |text: &String| {
            Url::parse(text).is_ok_and(|url| {
                let secure = url.scheme() == "https"
                    || url.scheme() == "http" && matches!(url.host_str(), Some("localhost" | "127.0.0.1"));
                secure && url.username().is_empty() && url.query().is_none() && url.fragment().is_none()
            })
        };
        match self.callback.as_ref().is_none_or(fits) {
            true => Ok(()),
            false => Err(Refusal::invalid(
                "dialects",
                "has a howler whose callback is no https:// address (http:// on localhost) without query and fragment",
            )),
        }
    }

    /// Where a login through that connection comes back to: of this tenant and connection alone.
    #[must_use]
    pub fn redirect_uri(&self, issuer: &str, connection: &str) -> String {
        let usual = || format!("{issuer}/api/v1/auth/login");
        format!("{}?provider={connection}", self.callback.clone().unwrap_or_else(usual))
    }
}

/// ClusterCockpit's dialect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterCockpit {
    /// Applications that people are logged in to with a short token, by the name in `/cross-login/{client}`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cross_login: BTreeMap<String, CrossLogin>,
}

/// An application that people are logged in to with a short token in a cookie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossLogin {
    /// Where the browser is sent: an absolute address whose host the cookie reaches.
    pub url: String,
    /// The cookie's name.
    #[serde(default = "CrossLogin::usual_cookie")]
    pub cookie: String,
    /// The domain that this server and the application share; absent if they are on one host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The audience whose shape the token gets. It says how long the token lives: minutes.
    pub audience: String,
}

/// Longest life of a token in a cookie that other hosts see, in seconds.
const LONGEST_CROSS_LOGIN: i32 = 300;

impl CrossLogin {
    /// The cookie's name unless another is said.
    #[must_use]
    pub fn usual_cookie() -> String {
        "access_cc".to_owned()
    }

    /// Whether a token that lives so long may be handed over in a cookie.
    pub(crate) fn is_short(seconds: i32) -> bool {
        seconds <= LONGEST_CROSS_LOGIN
    }

    fn check(&self) -> Result<(), &'static str> {
        let url = Url::parse(&self.url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.username().is_empty());
        let Some(host) = url.as_ref().and_then(Url::host_str) else {
            return Err("url is an absolute http:// or https:// address");
        };
        let token = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        let name = &self.cookie;
        if !(1..=64).contains(&name.len()) || !name.bytes().all(token) || name.starts_with("__") {
            return Err("cookie is 1 to 64 letters, digits, `_` and `-`, and does not begin with `__`");
        }
        if let Some(domain) = &self.domain {
            let shaped = domain.contains('.') && domain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
            if !shaped || !(host == domain || host.ends_with(&format!(".{domain}"))) {
                return Err("domain is the host of url, or one above it");
            }
        }
        Ok(())
    }
}

impl Dialects {
    /// Refuses what cannot be served.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        self.howler.as_ref().map_or(Ok(()), Howler::check)?;
        let Some(ClusterCockpit { cross_login }) = &self.clustercockpit else { return Ok(()) };
        let name = |name: &String| {
            (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        if cross_login.len() > MOST_CLIENTS || !cross_login.keys().all(name) {
            let problem = format!("names at most {MOST_CLIENTS} clients of cross_login, by 1 to 64 letters, digits, `_` and `-`");
            return Err(Refusal::invalid("dialects", problem));
        }
        let bad = cross_login.iter().find_map(|(name, client)| client.check().err().map(|why| (name, why)));
        bad.map_or(Ok(()), |(name, why)| Err(Refusal::invalid("dialects", format!("has a cross_login `{name}` whose {why}"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(url: &str, cookie: &str, domain: Option<&str>) -> bool {
        let client = CrossLogin {
            url: url.into(),
            cookie: cookie.into(),
            domain: domain.map(str::to_owned),
            audience: "clustercockpit-login".into(),
        };
        let clustercockpit = ClusterCockpit { cross_login: BTreeMap::from([("cc".to_owned(), client)]) };
        Dialects { clustercockpit: Some(clustercockpit), ..Dialects::default() }.check().is_ok()
    }

    #[test]
    fn p06_a_cross_login_leads_where_its_cookie_reaches_and_nowhere_else() {
        assert!(fits("https://cc.example.org/jwt-login", "access_cc", Some("example.org")));
        assert!(fits("https://cc.example.org/jwt-login", "access_cc", Some("cc.example.org")));
        assert!(fits("http://localhost:8080/jwt-login", "access_cc", None));
        assert!(!fits("https://cc.example.org/", "access_cc", Some("evil.test")));
        assert!(!fits("https://ccexample.org/", "access_cc", Some("example.org")));
        assert!(!fits("https://cc.example.org/", "access_cc", Some("org")));
        assert!(!fits("/jwt-login", "access_cc", None) && !fits("javascript:alert(1)", "access_cc", None));
        assert!(!fits("https://u:p@cc.example.org/", "access_cc", None));
        for cookie in ["", "a b", "a;b", "__Host-session-cc"] {
            assert!(!fits("https://cc.example.org/", cookie, None), "{cookie}");
        }
    }

    #[test]
    fn u3_a_callback_of_howler_is_an_address_of_its_own_for_each_connection() {
        let howler = |callback: Option<&str>| Howler { callback: callback.map(str::to_owned), ..Howler::default() };
        for good in ["https://howler.example.org/login", "http://localhost:3000/login", "http://127.0.0.1/login"] {
            assert!(howler(Some(good)).check().is_ok(), "{good}");
        }
        for bad in [
            "/login",
            "http://howler.example.org/login",
            "https://a@b.example/",
            "https://a.example/?x=1",
            "https://a.example/#x",
            "javascript:alert(1)",
        ] {
            assert!(howler(Some(bad)).check().is_err(), "{bad}");
        }
        let there = howler(Some("https://howler.example.org/login"));
        assert_eq!(there.redirect_uri("https://id.example/t/how", "corp"), "https://howler.example.org/login?provider=corp");
        let here = "https://id.example/t/how/api/v1/auth/login?provider=corp";
        assert_eq!(howler(None).redirect_uri("https://id.example/t/how", "corp"), here);
    }

    #[test]
    fn only_a_short_token_is_handed_over() {
        assert!(CrossLogin::is_short(60) && !CrossLogin::is_short(86_400));
    }
}
