//! Where a token may stand in a request.

use crate::client::Refused;

/// What a request shows, whatever the framework.
pub trait RequestParts {
    /// The values of all lines of that header; the name is in lower case. A value that is not text is left out.
    fn header(&self, name: &str) -> Vec<&str>;
    /// The query, undecoded.
    fn query(&self) -> &str;
    /// Whether the request asks to become a WebSocket (RFC 6455 §4.1): browsers cannot send headers of their own with it.
    fn is_websocket(&self) -> bool {
        self.header("upgrade").iter().any(|value| value.eq_ignore_ascii_case("websocket"))
    }
}

/// Which places are looked at.
#[derive(Debug, Clone)]
pub struct Presented {
    /// Header names in lower case.
    pub(crate) headers: Vec<String>,
    pub(crate) lenient_bearer: bool,
    /// The parameter that WebSockets may use.
    pub(crate) websocket_query: Option<String>,
}

impl Default for Presented {
    fn default() -> Self {
        Self { headers: vec!["authorization".to_owned()], lenient_bearer: false, websocket_query: None }
    }
}

impl Presented {
    /// The one token of a request. Two that differ are no token: whoever stands between might believe the other.
    pub(crate) fn find(&self, request: &impl RequestParts) -> Result<String, Refused> {
        let mut found: Option<String> = None;
        let mut take = |token: String| match &found {
            Some(other) if *other != token => Err(Refused::Ambiguous),
            _ => {
                found = Some(token);
                Ok(())
            }
        };
        for name in &self.headers {
            for value in request.header(name) {
                let token = match (name.as_str(), self.lenient_bearer) {
                    ("authorization", false) => bearer(value),
                    ("authorization", true) => lenient(value),
                    (_, false) => Some(value.trim()),
                    (_, true) => lenient(value),
                };
                if let Some(token) = token.filter(|token| !token.is_empty()) {
                    take(token.to_owned())?;
                }
            }
        }
        if let Some(name) = self.websocket_query.as_deref().filter(|_| request.is_websocket()) {
            // A token has no character that a query would encode.
            let pairs = request.query().split('&').filter_map(|pair| pair.split_once('='));
            for (_, token) in pairs.filter(|(key, token)| *key == name && !token.is_empty()) {
                take(token.to_owned())?;
            }
        }
        found.ok_or(Refused::Missing)
    }
}

/// `Bearer` 1*SP b64token (RFC 6750 §2.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

/// As [`bearer`], and `Bearer: token`, and the token alone.
fn lenient(value: &str) -> Option<&str> {
    let value = value.trim();
    match value.split_once([' ', ':']) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Some(token.trim_start_matches([' ', ':'])),
        Some(_) => None,
        None => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Request(Vec<(&'static str, &'static str)>, &'static str);

    impl RequestParts for Request {
        fn header(&self, name: &str) -> Vec<&str> {
            self.0.iter().filter(|(key, _)| *key == name).map(|(_, value)| *value).collect()
        }
        fn query(&self) -> &str {
            self.1
        }
    }

    fn places(headers: &[&str], lenient_bearer: bool) -> Presented {
        let headers = headers.iter().map(|name| (*name).to_owned()).collect();
        Presented { headers, lenient_bearer, websocket_query: Some("token".into()) }
    }

    #[test]
    fn strictly_a_scheme_and_a_token() {
        let strict = places(&["authorization"], false);
        let find = |value| strict.find(&Request(vec![("authorization", value)], "")).ok();
        for good in ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c", " Bearer a.b.c "] {
            assert_eq!(find(good).as_deref(), Some("a.b.c"), "{good}");
        }
        for bad in ["a.b.c", "Bearer: a.b.c", "Bearer", "Bearer ", "Basic a.b.c", "Bearera.b.c", ""] {
            assert_eq!(find(bad), None, "{bad}");
        }
    }

    #[test]
    fn leniently_without_a_scheme_or_with_a_colon() {
        let lenient = places(&["authorization", "x-auth-token"], true);
        for name in ["authorization", "x-auth-token"] {
            let find = |value| lenient.find(&Request(vec![(name, value)], "")).ok();
            for good in ["a.b.c", "Bearer a.b.c", "Bearer: a.b.c", "bearer:a.b.c", " a.b.c "] {
                assert_eq!(find(good).as_deref(), Some("a.b.c"), "{good}");
            }
            for bad in ["Basic a.b.c", "key:secret", "", "Bearer", "Token a.b.c"] {
                assert_ne!(find(bad).as_deref(), Some("a.b.c"), "{bad}");
            }
        }
    }

    #[test]
    fn other_headers_only_if_asked_for_and_never_two_tokens() {
        let two = vec![("authorization", "Bearer a.b.c"), ("x-auth-token", "d.e.f")];
        assert_eq!(places(&["authorization"], false).find(&Request(two.clone(), "")).unwrap(), "a.b.c");
        assert_eq!(places(&["authorization", "x-auth-token"], false).find(&Request(two, "")), Err(Refused::Ambiguous));
        let same = vec![("authorization", "Bearer a.b.c"), ("x-auth-token", "a.b.c")];
        assert_eq!(places(&["authorization", "x-auth-token"], false).find(&Request(same, "")).unwrap(), "a.b.c");
        let twice = vec![("authorization", "Bearer a.b.c"), ("authorization", "Bearer d.e.f")];
        assert_eq!(places(&["authorization"], false).find(&Request(twice, "")), Err(Refused::Ambiguous));
    }

    #[test]
    fn the_query_is_for_websockets_alone() {
        let upgrade = vec![("upgrade", "WebSocket")];
        let asked = places(&["authorization"], false);
        assert_eq!(asked.find(&Request(upgrade.clone(), "x=1&token=a.b.c")).unwrap(), "a.b.c");
        assert_eq!(asked.find(&Request(vec![], "token=a.b.c")), Err(Refused::Missing));
        assert_eq!(asked.find(&Request(upgrade.clone(), "token=a&token=b")), Err(Refused::Ambiguous));
        let never = Presented::default();
        assert_eq!(never.find(&Request(upgrade, "token=a.b.c")), Err(Refused::Missing));
    }
}
