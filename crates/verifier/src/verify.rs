//! The order of the checks. Nothing in the claims is looked at before the signature holds.

use crate::claims::{self, AccessToken};
use crate::compact::Compact;
use crate::header::Header;
use crate::{KeySet, Rejection};

/// What a token must say to be accepted here.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// `iss`, compared byte for byte (RFC 9068 §4): a trailing slash makes another issuer.
    pub issuer: &'a str,
    /// One of the token's `aud` values must equal this. `None` accepts any audience and is for the issuer
    /// itself; another service that passes `None` accepts tokens meant for its neighbours.
    pub audience: Option<&'a str>,
    /// Tolerated clock difference in seconds, for `exp`, `nbf` and `iat` alike. A few seconds are plenty.
    pub leeway_seconds: u64,
}

/// Verifies an access token at the time `now_unix` (Unix seconds).
///
/// Checked in this order: size and form, header, `typ`, key by `kid`, `alg` against that key, signature, and
/// only then the claims: types, `iss`, `aud`, `exp`, `nbf`, `iat`. `keys` must be the keys of
/// `expected.issuer` and of nobody else, as the signature proves no more than that one of them signed
/// (RFC 8725 §3.8).
///
/// # Errors
/// The first [`Rejection`] in that order. No input panics.
pub fn verify(token: &str, keys: &KeySet, expected: &Expected<'_>, now_unix: i64) -> Result<AccessToken, Rejection> {
    verify_with(token, keys, expected, Expiry::Required, now_unix)
}

/// Whether a token must say when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// RFC 9068 §2.2.
    Required,
    /// A token without `exp` is accepted, and lives until it is revoked: for whoever asks the issuer about
    /// revocations. One with `exp` ends then all the same. Where no audience is expected, one without `aud` is accepted
    /// too: for the issuer itself, which leaves both out for services that ask for that.
    Optional,
}

/// As [`verify`], where tokens without an end may be accepted.
///
/// # Errors
/// As [`verify`].
pub fn verify_with(
    token: &str,
    keys: &KeySet,
    expected: &Expected<'_>,
    expiry: Expiry,
    now_unix: i64,
) -> Result<AccessToken, Rejection> {
    let token = AccessToken::from_claims(&open(Compact::split(token)?, keys, Header::is_access_token)?)?;
    if expiry == Expiry::Required && token.expires_at.is_none() {
        return Err(Rejection::Claims("exp"));
    }
    if token.audience.is_empty() && (expiry == Expiry::Required || expected.audience.is_some()) {
        return Err(Rejection::Claims("aud"));
    }
    judge(&token, expected, now_unix)?;
    Ok(token)
}

/// The payload of a JWS of the right type whose signature holds.
pub(crate) fn open(compact: Compact<'_>, keys: &KeySet, is_type: impl Fn(&Header) -> bool) -> Result<Vec<u8>, Rejection> {
    let header = Header::parse(&compact.header)?;
    if !is_type(&header) {
        return Err(Rejection::Type);
    }
    let key = header.key_id().and_then(|kid| keys.get(kid)).ok_or(Rejection::UnknownKey)?;
    if !header.algorithm().is_some_and(|alg| key.serves(alg)) {
        return Err(Rejection::Algorithm);
    }
    if !key.verifies(compact.signed, &compact.signature) {
        return Err(Rejection::Signature);
    }
    Ok(compact.payload)
}

/// `iss` as the token states it, **unverified**: anyone can write anything there.
///
/// Its one use is to choose which tenant's keys and which [`Expected`] to try, by looking it up among
/// issuers already known; [`verify`] then decides. Never fetch from it, log it as fact or show it.
/// `None` when the token has not the accepted form.
#[must_use]
pub fn unverified_issuer(token: &str) -> Option<String> {
    claims::issuer(&Compact::split(token).ok()?.payload)
}

/// Whether a token that [`verify`] accepted before is for us still, at the time `now` (Unix seconds): its `iss`, `aud`, `exp`,
/// `nbf` and `iat`. For whoever keeps what they verified instead of checking the signature each time; they must forget it
/// when a key is no longer in the set.
///
/// # Errors
/// The first [`Rejection`] in that order.
pub fn judge(token: &AccessToken, expected: &Expected<'_>, now: i64) -> Result<(), Rejection> {
    if token.issuer != expected.issuer {
        return Err(Rejection::Issuer);
    }
    if let Some(audience) = expected.audience
        && !token.audience.iter().any(|one| one == audience)
    {
        return Err(Rejection::Audience);
    }
    let leeway = i64::try_from(expected.leeway_seconds).unwrap_or(i64::MAX);
    // "On or after" exp is too late (RFC 7519 §4.1.4).
    if token.expires_at.is_some_and(|end| now >= end.saturating_add(leeway)) {
        return Err(Rejection::Expired);
    }
    let latest_start = now.saturating_add(leeway);
    if token.not_before.is_some_and(|nbf| nbf > latest_start) || token.issued_at > latest_start {
        return Err(Rejection::NotYetValid);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> AccessToken {
        AccessToken {
            issuer: "https://id.example/t/acme".to_owned(),
            subject: "s".to_owned(),
            audience: vec!["one".to_owned(), "two".to_owned()],
            expires_at: Some(2000),
            issued_at: 1000,
            not_before: Some(1100),
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
    }

    fn expected(leeway_seconds: u64) -> Expected<'static> {
        Expected { issuer: "https://id.example/t/acme", audience: Some("two"), leeway_seconds }
    }

    fn at(now: i64, leeway: u64) -> Result<(), Rejection> {
        judge(&token(), &expected(leeway), now)
    }

    #[test]
    fn valid_from_its_first_to_its_last_second() {
        assert_eq!(at(1099, 0), Err(Rejection::NotYetValid));
        assert_eq!(at(1100, 0), Ok(()));
        assert_eq!(at(1999, 0), Ok(()));
        assert_eq!(at(2000, 0), Err(Rejection::Expired));
    }

    #[test]
    fn leeway_widens_both_ends() {
        assert_eq!(at(1089, 10), Err(Rejection::NotYetValid));
        assert_eq!(at(1090, 10), Ok(()));
        assert_eq!(at(2009, 10), Ok(()));
        assert_eq!(at(2010, 10), Err(Rejection::Expired));
    }

    #[test]
    fn issued_in_the_future_is_refused() {
        let token = AccessToken { not_before: None, ..token() };
        assert_eq!(judge(&token, &expected(10), 989), Err(Rejection::NotYetValid));
        assert_eq!(judge(&token, &expected(10), 990), Ok(()));
    }

    #[test]
    fn extreme_clocks_do_not_overflow() {
        assert_eq!(at(i64::MAX, 0), Err(Rejection::Expired));
        assert_eq!(at(i64::MIN, 0), Err(Rejection::NotYetValid));
        assert_eq!(at(i64::MIN, u64::MAX), Err(Rejection::NotYetValid));
        assert_eq!(at(1500, u64::MAX), Ok(()));
        assert_eq!(at(i64::MAX, u64::MAX), Err(Rejection::Expired));
    }

    #[test]
    fn issuer_and_audience_are_exact() {
        for issuer in [
            "",
            "https://id.example/t/acme/",
            "https://id.example/t/acm",
            "https://id.example/t/acme2",
            "https://ID.example/t/acme",
        ] {
            let expected = Expected { issuer, ..expected(0) };
            assert_eq!(judge(&token(), &expected, 1500), Err(Rejection::Issuer));
        }
        for (audience, verdict) in [
            (None, Ok(())),
            (Some("one"), Ok(())),
            (Some("two"), Ok(())),
            (Some("on"), Err(Rejection::Audience)),
            (Some("one two"), Err(Rejection::Audience)),
            (Some("Two"), Err(Rejection::Audience)),
            (Some(""), Err(Rejection::Audience)),
        ] {
            let expected = Expected { audience, ..expected(0) };
            assert_eq!(judge(&token(), &expected, 1500), verdict, "{audience:?}");
        }
    }
}
