//! Cookies of the browser surface, and where a request that carries them came from.
//!
//! Every cookie has the `__Host-` prefix (RFC 6265bis §4.1.3.2): https or this machine only, this host only. The tenant is
//! part of the name, so that tenants on one host do not sign each other out.

use actix_web::cookie::time::Duration;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::http::header;
use actix_web::{HttpMessage as _, HttpRequest};
use claviger_issuer::session::DEVICE_KNOWN;
use secrecy::{ExposeSecret as _, SecretString};

use crate::border::MappedHost;

/// The cookies of one tenant.
pub(crate) struct Cookies<'a> {
    slug: &'a str,
}

impl<'a> Cookies<'a> {
    /// Of the tenant with this slug.
    pub(crate) fn of(slug: &'a str) -> Self {
        Self { slug }
    }

    /// The session cookie that a request carries.
    pub(crate) fn session(&self, req: &HttpRequest) -> Option<SecretString> {
        req.cookie(&self.name("session")).map(|cookie| SecretString::from(cookie.value().to_owned()))
    }

    /// The known-device cookie that a request carries.
    pub(crate) fn device(&self, req: &HttpRequest) -> Option<String> {
        req.cookie(&self.name("device")).map(|cookie| cookie.value().to_owned())
    }

    /// What a request's forms are bound to, before anybody is signed in.
    pub(crate) fn form(&self, req: &HttpRequest) -> Option<String> {
        req.cookie(&self.name("form")).map(|cookie| cookie.value().to_owned())
    }

    pub(crate) fn set_session(&self, value: &SecretString, lasts: i32) -> Cookie<'static> {
        self.make("session", value.expose_secret(), Some(Duration::seconds(i64::from(lasts))))
    }

    pub(crate) fn clear_session(&self) -> Cookie<'static> {
        self.make("session", "", Some(Duration::ZERO))
    }

    pub(crate) fn set_device(&self, value: &str) -> Cookie<'static> {
        self.make("device", value, Some(Duration::seconds(DEVICE_KNOWN)))
    }

    /// Gone when the browser is closed.
    pub(crate) fn set_form(&self, value: &str) -> Cookie<'static> {
        self.make("form", value, None)
    }

    fn name(&self, what: &str) -> String {
        format!("__Host-{what}-{}", self.slug)
    }

    fn make(&self, what: &str, value: &str, lasts: Option<Duration>) -> Cookie<'static> {
        let cookie = Cookie::build(self.name(what), value.to_owned()).path("/").secure(true).http_only(true);
        let cookie = cookie.same_site(SameSite::Lax);
        match lasts {
            Some(lasts) => cookie.max_age(lasts).finish(),
            None => cookie.finish(),
        }
    }
}

/// True unless the browser says that the request came from somewhere else. What says nothing is no browser that sends
/// cookies across sites: those all say where from.
pub(crate) fn from_here(req: &HttpRequest, public_origin: &str) -> bool {
    let text = |name| req.headers().get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or("unreadable"));
    match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => origin == public_origin || is_mapped(req, origin),
        (None, None) => true,
    }
}

/// Whether that is the host, one that stands for a tenant, that the request itself was sent to.
fn is_mapped(req: &HttpRequest, origin: &str) -> bool {
    let extensions = req.extensions();
    let Some(MappedHost(host)) = extensions.get::<MappedHost>() else { return false };
    origin.split_once("://").is_some_and(|(_, authority)| authority == host)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn asked(headers: &[(&'static str, &'static str)]) -> bool {
        let request = headers.iter().fold(TestRequest::post(), |request, header| request.insert_header(*header));
        from_here(&request.to_http_request(), "https://id.example")
    }

    #[test]
    fn p24_what_a_browser_sends_from_elsewhere_is_known_for_it() {
        assert!(asked(&[("sec-fetch-site", "same-origin"), ("origin", "https://id.example")]));
        assert!(asked(&[("origin", "https://id.example")]));
        assert!(asked(&[]));
        for site in ["cross-site", "same-site", "Same-Origin", ""] {
            assert!(!asked(&[("sec-fetch-site", site), ("origin", "https://id.example")]), "{site}");
        }
        for origin in ["null", "https://id.example.evil.test", "http://id.example", "https://id.example:8443", ""] {
            assert!(!asked(&[("origin", origin)]), "{origin}");
        }
    }

    #[test]
    fn every_cookie_is_for_this_host_and_no_script() {
        let cookies = Cookies::of("acme");
        let session = cookies.set_session(&SecretString::from("v"), 60).to_string();
        assert_eq!(session, "__Host-session-acme=v; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=60");
        assert!(cookies.clear_session().to_string().contains("Max-Age=0"));
    }
}
