//! What the claims must look like (RFC 7519 §4.1, RFC 9068 §2.2), whoever they are meant for.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::Rejection;
use crate::json::{Members, WrongType};

/// 9999-12-31T23:59:59Z in Unix seconds. Later times are nonsense and some calendars overflow on them.
const END_OF_YEAR_9999: f64 = 253_402_300_799.0;

/// A verified access token.
///
/// Only [`verify`](crate::verify) makes one from a token, so holding it means that signature, issuer,
/// audience and time were right. All times are Unix seconds, fractions rounded down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// `iss`, equal to the expected issuer.
    pub issuer: String,
    /// `sub`, never empty; unique only together with the issuer (RFC 7519 §4.1.2).
    pub subject: String,
    /// `aud`; a single string arrives as a list of one (RFC 7519 §4.1.3). Empty only from a token that was verified with
    /// [`Expiry::Optional`](crate::Expiry::Optional) and for no audience in particular.
    pub audience: Vec<String>,
    /// `exp`: from this second on the token is refused, leeway aside. Absent only from a token that was verified with
    /// [`Expiry::Optional`](crate::Expiry::Optional).
    pub expires_at: Option<i64>,
    /// `iat`.
    pub issued_at: i64,
    /// `nbf`, when given.
    pub not_before: Option<i64>,
    /// `jti`, never empty.
    pub token_id: String,
    /// `scope`, taken apart at its spaces in the order given; empty when the claim is absent
    /// (RFC 6749 §3.3).
    pub scope: Vec<String>,
    /// `roles`; empty when the claim is absent.
    pub roles: Vec<String>,
    /// `tid`: the tenant, a UUID in its lower-case hyphenated form.
    pub tenant: Option<String>,
    /// `client_id` (RFC 8693 §4.3).
    pub client_id: Option<String>,
    /// `username`, for display: unlike `sub` it may change hands.
    pub username: Option<String>,
    /// `key_id`: the API key that the token was issued for.
    pub key_id: Option<String>,
    /// `sid`: the login that the token came from; all its tokens end with it.
    pub session: Option<String>,
    /// `act`: who acts on behalf of the subject (RFC 8693 §4.1).
    pub actor: Option<Actor>,
    /// `narrowed`: less was asked for than the login behind it was granted.
    pub narrowed: bool,
    /// `allowed_ips`: networks that it may be used from; empty is everywhere. Ask [`AccessToken::may_come_from`].
    pub allowed_ips: Vec<IpNet>,
    /// `status.status_list`: where a status list says whether it counts still.
    pub status: Option<StatusPlace>,
}

/// A token's place in a status list (IETF OAuth Token Status List).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusPlace {
    /// `idx`: the bit, counted from 0.
    pub index: u64,
    /// `uri`: where the list is.
    pub uri: String,
}

/// The party acting on behalf of the subject (RFC 8693 §4.1).
///
/// Earlier actors nested inside are history and must not decide anything, so they are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// `act.sub`, never empty.
    pub subject: String,
    /// `act.key_id`: the key that the actor proved itself with.
    pub key_id: Option<String>,
    /// `act.sid`: the login that the actor's own token came from.
    pub session: Option<String>,
    /// `act.client_key_id`: the key of the client that asked for the token, where that is another.
    pub client_key_id: Option<String>,
    /// `act.right`: the scope by which the actor acts, where the subject did not let it.
    pub right: Option<String>,
}

impl AccessToken {
    /// Whether it may be used from that address: the client's own, as it stands behind whatever proxies the service trusts.
    /// An address that nobody knows is in no network.
    #[must_use]
    pub fn may_come_from(&self, address: Option<IpAddr>) -> bool {
        let address = address.map(|address| address.to_canonical());
        self.allowed_ips.is_empty()
            || address.is_some_and(|address| self.allowed_ips.iter().any(|network| network.contains(&address)))
    }

    /// Reads claims whose signature has been verified. A claim that is present must be well formed,
    /// also an optional one; `null` is not absence.
    pub(crate) fn from_claims(payload: &[u8]) -> Result<Self, Rejection> {
        let claims = Members::parse(payload).ok_or(Rejection::Malformed("claims are not a JSON object"))?;
        Ok(Self {
            issuer: required("iss", text(&claims, "iss"))?,
            subject: required("sub", text(&claims, "sub"))?,
            audience: audience(&claims)?,
            expires_at: time(&claims, "exp")?,
            issued_at: required("iat", time(&claims, "iat"))?,
            not_before: time(&claims, "nbf")?,
            token_id: required("jti", text(&claims, "jti"))?,
            scope: scope(&claims)?,
            roles: claims.texts("roles").map_err(|WrongType| Rejection::Claims("roles"))?.unwrap_or_default(),
            tenant: tenant(&claims)?,
            client_id: text(&claims, "client_id")?,
            username: text(&claims, "username")?,
            key_id: text(&claims, "key_id")?,
            session: text(&claims, "sid")?,
            actor: actor(&claims)?,
            narrowed: claims.flag("narrowed").map_err(|WrongType| Rejection::Claims("narrowed"))?.unwrap_or(false),
            allowed_ips: networks(&claims)?,
            status: status(&claims)?,
        })
    }
}

/// `iss` alone, from claims nobody vouches for.
pub(crate) fn issuer(payload: &[u8]) -> Option<String> {
    text(&Members::parse(payload)?, "iss").ok().flatten()
}

fn required<T>(name: &'static str, found: Result<Option<T>, Rejection>) -> Result<T, Rejection> {
    found?.ok_or(Rejection::Claims(name))
}

/// A string that says something.
fn text(claims: &Members<'_>, name: &'static str) -> Result<Option<String>, Rejection> {
    match claims.text(name) {
        Ok(Some(text)) if text.is_empty() => Err(Rejection::Claims(name)),
        Ok(text) => Ok(text),
        Err(WrongType) => Err(Rejection::Claims(name)),
    }
}

/// A NumericDate (RFC 7519 §2): a number of seconds, fractions allowed. Zero and negative times are refused:
/// an issuer that sends them means something else than a date.
fn time(claims: &Members<'_>, name: &'static str) -> Result<Option<i64>, Rejection> {
    match claims.number(name) {
        Ok(None) => Ok(None),
        Ok(Some(seconds)) if (1.0..=END_OF_YEAR_9999).contains(&seconds.floor()) => {
            // In that range every whole f64 is exactly one i64.
            Ok(Some(seconds.floor() as i64))
        }
        Ok(Some(_)) | Err(WrongType) => Err(Rejection::Claims(name)),
    }
}

/// `aud`: one string or an array of at least one (RFC 7519 §4.1.3). Whether it may be absent, `verify` asks.
fn audience(claims: &Members<'_>) -> Result<Vec<String>, Rejection> {
    let refused = Rejection::Claims("aud");
    let audience = match claims.text("aud") {
        Ok(None) => return Ok(Vec::new()),
        Ok(Some(one)) => vec![one],
        Err(WrongType) => claims.texts("aud").map_err(|WrongType| refused)?.unwrap_or_default(),
    };
    if audience.is_empty() || audience.iter().any(String::is_empty) {
        return Err(refused);
    }
    Ok(audience)
}

/// `scope = scope-token *( SP scope-token )`: no empty value, no doubled, leading or trailing space
/// (RFC 6749 §3.3).
fn scope(claims: &Members<'_>) -> Result<Vec<String>, Rejection> {
    let Some(scope) = text(claims, "scope")? else {
        return Ok(Vec::new());
    };
    scope
        .split(' ')
        .map(|token| is_scope_token(token).then(|| token.to_owned()))
        .collect::<Option<_>>()
        .ok_or(Rejection::Claims("scope"))
}

/// `1*( %x21 / %x23-5B / %x5D-7E )`: printable ASCII without space, quote and backslash.
fn is_scope_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
}

/// `allowed_ips`: an array of at least one network in CIDR notation. What cannot be read must not be everywhere.
fn networks(claims: &Members<'_>) -> Result<Vec<IpNet>, Rejection> {
    let refused = Rejection::Claims("allowed_ips");
    let Some(texts) = claims.texts("allowed_ips").map_err(|WrongType| refused)? else { return Ok(Vec::new()) };
    let networks: Option<Vec<IpNet>> = texts.iter().map(|text| text.parse().ok()).collect();
    networks.filter(|networks| !networks.is_empty()).ok_or(refused)
}

/// One spelling only, so that comparing tenants as strings is safe.
fn tenant(claims: &Members<'_>) -> Result<Option<String>, Rejection> {
    match text(claims, "tid")? {
        Some(tenant) if !is_uuid(&tenant) => Err(Rejection::Claims("tid")),
        tenant => Ok(tenant),
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == b'-',
            _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
        })
}

/// `status`: of its members, the one that names a list.
fn status(claims: &Members<'_>) -> Result<Option<StatusPlace>, Rejection> {
    let refused = Rejection::Claims("status");
    let Some(status) = claims.object("status").map_err(|WrongType| refused)? else { return Ok(None) };
    let Some(list) = status.object("status_list").map_err(|WrongType| refused)? else { return Ok(None) };
    match (list.number("idx"), text(&list, "uri")) {
        // In that range every whole f64 is exactly one u64.
        (Ok(Some(index)), Ok(Some(uri))) if index.fract() == 0.0 && (0.0..1e15).contains(&index) => {
            Ok(Some(StatusPlace { index: index as u64, uri }))
        }
        _ => Err(refused),
    }
}

fn actor(claims: &Members<'_>) -> Result<Option<Actor>, Rejection> {
    let refused = Rejection::Claims("act");
    let Some(act) = claims.object("act").map_err(|WrongType| refused)? else {
        return Ok(None);
    };
    let member = |name| text(&act, name).map_err(|_| refused);
    Ok(Some(Actor {
        subject: member("sub")?.ok_or(refused)?,
        key_id: member("key_id")?,
        session: member("sid")?,
        client_key_id: member("client_key_id")?,
        right: member("right")?,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;

    const REQUIRED: &str = r#""iss":"https://id.example","sub":"s","aud":"a","exp":200,"iat":100,"jti":"j""#;

    fn read(json: &str) -> Result<AccessToken, Rejection> {
        AccessToken::from_claims(json.as_bytes())
    }

    /// The required claims and one more member.
    fn with(member: &str) -> Result<AccessToken, Rejection> {
        read(&format!("{{{REQUIRED},{member}}}"))
    }

    #[test]
    fn a_token_for_some_networks_comes_from_there_alone() {
        let from = |token: &AccessToken, address: &str| token.may_come_from(Some(address.parse().unwrap()));
        let anywhere = with(r#""x":1"#).unwrap();
        assert!(from(&anywhere, "203.0.113.9") && anywhere.may_come_from(None));
        let token = with(r#""allowed_ips":["198.51.100.0/24","2001:db8::5/128"]"#).unwrap();
        for (address, fits) in [
            ("198.51.100.9", true),
            ("::ffff:198.51.100.9", true),
            ("2001:db8::5", true),
            ("2001:db8::6", false),
            ("203.0.113.9", false),
        ] {
            assert_eq!(from(&token, address), fits, "{address}");
        }
        assert!(!token.may_come_from(None));
        for wrong in [r#"[]"#, r#"["x"]"#, r#""198.51.100.0/24""#, r#"[1]"#, "null", r#"["198.51.100.0/24","x"]"#] {
            assert_eq!(with(&format!("\"allowed_ips\":{wrong}")), Err(Rejection::Claims("allowed_ips")), "{wrong}");
        }
    }

    #[test]
    fn the_required_claims_are_enough() {
        assert_eq!(
            read(&format!("{{{REQUIRED}}}")).unwrap(),
            AccessToken {
                issuer: "https://id.example".to_owned(),
                subject: "s".to_owned(),
                audience: vec!["a".to_owned()],
                expires_at: Some(200),
                issued_at: 100,
                not_before: None,
                token_id: "j".to_owned(),
                scope: vec![],
                roles: vec![],
                tenant: None,
                client_id: None,
                username: None,
                key_id: None,
                session: None,
                actor: None,
                narrowed: false,
                allowed_ips: Vec::new(),
                status: None,
            }
        );
    }

    #[test]
    fn a_place_in_a_status_list_is_whole_or_the_token_is_refused() {
        let place = with(r#""status":{"status_list":{"idx":7,"uri":"https://id.example/1"},"other":{"a":1}}"#).unwrap().status;
        assert_eq!(place, Some(StatusPlace { index: 7, uri: "https://id.example/1".to_owned() }));
        assert_eq!(with(r#""status":{"other":{"a":1}}"#).unwrap().status, None);
        for wrong in [
            "null",
            "1",
            r#"{"status_list":null}"#,
            r#"{"status_list":{"idx":7}}"#,
            r#"{"status_list":{"uri":"u"}}"#,
            r#"{"status_list":{"idx":-1,"uri":"u"}}"#,
            r#"{"status_list":{"idx":0.5,"uri":"u"}}"#,
            r#"{"status_list":{"idx":"7","uri":"u"}}"#,
            r#"{"status_list":{"idx":1e16,"uri":"u"}}"#,
            r#"{"status_list":{"idx":7,"uri":""}}"#,
        ] {
            assert_eq!(with(&format!("\"status\":{wrong}")), Err(Rejection::Claims("status")), "{wrong}");
        }
    }

    #[test]
    fn each_required_claim_is_missed_by_name() {
        let all = [("iss", r#""i""#), ("sub", r#""s""#), ("aud", r#""a""#), ("exp", "200"), ("iat", "100"), ("jti", r#""j""#)];
        for (missing, _) in all {
            let members: Vec<_> =
                all.iter().filter(|(name, _)| *name != missing).map(|(name, value)| format!(r#""{name}":{value}"#)).collect();
            let read = read(&format!("{{{}}}", members.join(",")));
            match missing {
                // Whether a token must end, and be for somebody, `verify` asks.
                "exp" => assert_eq!(read.map(|token| token.expires_at), Ok(None)),
                "aud" => assert_eq!(read.map(|token| token.audience), Ok(vec![])),
                _ => assert_eq!(read, Err(Rejection::Claims(missing))),
            }
        }
    }

    #[test]
    fn strings_are_non_empty_strings() {
        for name in ["client_id", "username", "key_id"] {
            for value in ["\"\"", "null", "1", "true", "[\"x\"]", "{}"] {
                assert_eq!(with(&format!(r#""{name}":{value}"#)), Err(Rejection::Claims(name)));
            }
        }
        for name in ["iss", "sub", "jti"] {
            for value in ["\"\"", "null", "1", "true", "[\"x\"]", "{}"] {
                let json = format!("{{{REQUIRED}}}");
                let from = json.find(&format!("\"{name}\"")).unwrap();
                let upto = json[from..].find([',', '}']).unwrap() + from;
                let json = format!("{}\"{name}\":{value}{}", &json[..from], &json[upto..]);
                assert_eq!(read(&json), Err(Rejection::Claims(name)), "{json}");
            }
        }
    }

    #[test]
    fn times_are_floored_and_ranged() {
        let nbf = |value: &str| with(&format!(r#""nbf":{value}"#)).map(|t| t.not_before);
        for (value, seconds) in
            [("1", 1), ("1.999", 1), ("15e2", 1500), ("253402300799", 253_402_300_799), ("253402300799.5", 253_402_300_799)]
        {
            assert_eq!(nbf(value), Ok(Some(seconds)), "{value}");
        }
        for value in [
            "0",
            "-0",
            "0.0",
            "0.99",
            "-1",
            "-0.5",
            "253402300800",
            "1e18",
            "1e308",
            "9223372036854775807",
            "18446744073709551615",
            "18446744073709551616",
            "\"1\"",
            "null",
            "true",
            "[1]",
            "{}",
        ] {
            assert_eq!(nbf(value), Err(Rejection::Claims("nbf")), "{value}");
        }
        assert!(nbf("1e999").is_err());
    }

    #[test]
    fn audience_is_a_string_or_a_filled_array() {
        let aud = |value: &str| {
            read(&format!("{{{REQUIRED}}}").replace(r#""aud":"a""#, &format!(r#""aud":{value}"#))).map(|t| t.audience)
        };
        assert_eq!(aud(r#"["a","b"]"#).unwrap(), ["a", "b"]);
        for value in
            ["[]", "\"\"", "[\"\"]", "[\"a\",\"\"]", "[\"a\",1]", "[[\"a\"]]", "null", "[null]", "1", "true", "{\"a\":\"a\"}"]
        {
            assert_eq!(aud(value), Err(Rejection::Claims("aud")), "{value}");
        }
    }

    #[test]
    fn scope_follows_its_grammar() {
        let scope = |value: &str| with(&format!(r#""scope":"{value}""#)).map(|t| t.scope);
        assert_eq!(scope("keys:read").unwrap(), ["keys:read"]);
        assert_eq!(scope("a b !#[]~").unwrap(), ["a", "b", "!#[]~"]);
        for value in ["", " ", " a", "a ", "a  b", "a\\tb", "a\\nb", "a\\\"b", "a\\\\b", "é", "a\\u0000", "a\\u007f", "a\u{a0}b"]
        {
            assert_eq!(scope(value), Err(Rejection::Claims("scope")), "{value:?}");
        }
        for member in [r#""scope":["a"]"#, r#""scope":null"#, r#""scope":1"#] {
            assert_eq!(with(member), Err(Rejection::Claims("scope")));
        }
    }

    #[test]
    fn roles_are_an_array_of_strings() {
        assert_eq!(with(r#""roles":["admin","x"]"#).unwrap().roles, ["admin", "x"]);
        assert!(with(r#""roles":[]"#).unwrap().roles.is_empty());
        for value in ["\"admin\"", "null", "[1]", "[\"a\",null]", "{\"a\":true}", "[[\"a\"]]"] {
            assert_eq!(with(&format!(r#""roles":{value}"#)), Err(Rejection::Claims("roles")));
        }
    }

    #[test]
    fn the_tenant_has_one_spelling() {
        let uuid = "01890a5d-ac96-774b-bcce-b302099a8057";
        let tid = |value: &str| with(&format!(r#""tid":"{value}""#)).map(|t| t.tenant);
        assert_eq!(tid(uuid), Ok(Some(uuid.to_owned())));
        for value in [
            "",
            "acme",
            &uuid.to_uppercase(),
            &uuid.replace('-', ""),
            &format!("{{{uuid}}}"),
            &uuid.replace('a', "g"),
            &format!("{uuid} "),
            &uuid.replacen('-', "0", 1),
            "01890a5d-ac96-774b-bcce-b302099a80\u{e9}",
        ] {
            assert_eq!(tid(value), Err(Rejection::Claims("tid")), "{value}");
        }
    }

    #[test]
    fn the_actor_is_an_object_with_a_subject() {
        let act = with(r#""act":{"sub":"admin","act":{"sub":"earlier"}}"#).unwrap();
        assert_eq!(act.actor.unwrap().subject, "admin");
        for value in ["null", "\"admin\"", "{}", "[]", "{\"sub\":\"\"}", "{\"sub\":1}", "{\"sub\":null}"] {
            assert_eq!(with(&format!(r#""act":{value}"#)), Err(Rejection::Claims("act")));
        }
    }
}
