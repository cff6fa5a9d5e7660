//! Why a token was refused.

use thiserror::Error;

/// Why a token was refused.
///
/// Every text inside is written in this crate, so a message can be logged: it never repeats anything
/// the token said. To the caller of an API all of these are one answer, `401` with
/// `error="invalid_token"` (RFC 6750 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Rejection {
    /// Not a compact JWS of the accepted form (RFC 7515 §7.1); the text says which rule.
    #[error("malformed token: {0}")]
    Malformed(&'static str),
    /// No verification key has the token's `kid`, or it names none.
    #[error("no verification key for this key id")]
    UnknownKey,
    /// `alg` is missing or is not the algorithm of the key (RFC 8725 §3.1).
    #[error("algorithm does not belong to the key")]
    Algorithm,
    /// The signature does not hold.
    #[error("signature does not hold")]
    Signature,
    /// `typ` is not `at+jwt` (RFC 9068 §4).
    #[error("not an access token")]
    Type,
    /// `iss` is not the expected issuer.
    #[error("issued by someone else")]
    Issuer,
    /// `aud` does not contain the expected audience.
    #[error("meant for another audience")]
    Audience,
    /// `exp` has passed.
    #[error("expired")]
    Expired,
    /// `nbf` or `iat` lies in the future.
    #[error("not yet valid")]
    NotYetValid,
    /// The named claim is missing, of the wrong type or outside its range.
    #[error("claim `{0}` is missing or not of the required form")]
    Claims(&'static str),
}
