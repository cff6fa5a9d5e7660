//! What the header may say (RFC 7515 §4). It is read before anything is verified, so it may only choose
//! among keys we already hold, never bring one along or change how the rest is read.

use crate::Rejection;
use crate::json::{Members, WrongType};

/// Members whose mere presence refuses the token: they carry or point to keys, change what is signed,
/// compress, encrypt, or wrap another token (RFC 7515 §4.1, RFC 7797, RFC 7516, RFC 7518 §4, RFC 7519 §5.2).
/// Any other unknown member is ignored, as RFC 7515 §4 demands.
const REFUSED: [&str; 18] = [
    "crit", "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256", "b64", "zip", "enc", "epk", "apu", "apv", "iv", "tag", "p2s", "p2c",
    "cty",
];

/// The three members that count.
pub(crate) struct Header {
    alg: Option<String>,
    kid: Option<String>,
    typ: Option<String>,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        let members = Members::parse(bytes).ok_or(Rejection::Malformed("header is not a JSON object"))?;
        if REFUSED.iter().any(|name| members.has(name)) {
            return Err(Rejection::Malformed("header has a refused member"));
        }
        let text = |name| members.text(name).map_err(|WrongType| Rejection::Malformed("header member is not a string"));
        Ok(Self { alg: text("alg")?, kid: text("kid")?, typ: text("typ")? })
    }

    pub(crate) fn algorithm(&self) -> Option<&str> {
        self.alg.as_deref()
    }

    pub(crate) fn key_id(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// `at+jwt` or `application/at+jwt` (RFC 9068 §4); media types compare without regard to case
    /// (RFC 7515 §4.1.9).
    pub(crate) fn is_access_token(&self) -> bool {
        self.is("at+jwt")
    }

    /// Whether `typ` is that media type, with or without `application/` (RFC 7515 §4.1.9).
    pub(crate) fn is(&self, media_type: &str) -> bool {
        let bare = |typ: &str| typ.get(..12).filter(|head| head.eq_ignore_ascii_case("application/")).map_or(0, str::len);
        self.typ.as_deref().is_some_and(|typ| typ.get(bare(typ)..).is_some_and(|typ| typ.eq_ignore_ascii_case(media_type)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;

    fn typed(typ: &str) -> bool {
        let json = format!(r#"{{"typ":{typ}}}"#);
        Header::parse(json.as_bytes()).unwrap().is_access_token()
    }

    #[test]
    fn the_type_is_exactly_one() {
        for typ in [r#""at+jwt""#, r#""AT+JWT""#, r#""application/at+jwt""#, r#""Application/At+Jwt""#] {
            assert!(typed(typ), "{typ}");
        }
        for typ in [
            r#""JWT""#,
            r#""""#,
            r#""at+jwt ""#,
            r#"" at+jwt""#,
            r#""at+jwt;v=1""#,
            r#""at jwt""#,
            r#""dpop+jwt""#,
            r#""logout+jwt""#,
            r#""text/at+jwt""#,
            r#""application/application/at+jwt""#,
            r#""at+jw\u0074s""#,
        ] {
            assert!(!typed(typ), "{typ}");
        }
        assert!(!Header::parse(b"{}").unwrap().is_access_token());
    }

    #[test]
    fn unknown_members_are_ignored_and_refused_ones_are_not() {
        assert!(Header::parse(br#"{"alg":"EdDSA","note":{"a":[1]}}"#).is_ok());
        for name in REFUSED {
            for value in ["null", "false", "\"\"", "[]", "{}"] {
                let json = format!(r#"{{"alg":"EdDSA","{name}":{value}}}"#);
                assert!(Header::parse(json.as_bytes()).is_err(), "{json}");
            }
        }
    }

    #[test]
    fn the_three_members_are_strings() {
        for name in ["alg", "kid", "typ"] {
            for value in ["null", "1", "true", "[]", "[\"at+jwt\"]", "{}"] {
                let json = format!(r#"{{"{name}":{value}}}"#);
                assert_eq!(
                    Header::parse(json.as_bytes()).err(),
                    Some(Rejection::Malformed("header member is not a string")),
                    "{json}"
                );
            }
        }
    }
}
