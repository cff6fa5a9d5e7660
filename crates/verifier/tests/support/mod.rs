//! A token maker that shares no code with the library: hand-written base64url, ed25519-dalek signatures,
//! header and claims as raw text so that they can be wrong in any way.
#![allow(dead_code, reason = "each test binary uses its share")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use claviger_verifier::{AccessToken, Expected, KeySet, Rejection, verify};
use ed25519_dalek::{Signer, SigningKey};

pub(crate) const ISSUER: &str = "https://id.example/t/acme";
pub(crate) const AUDIENCE: &str = "https://metrics.example";
pub(crate) const KID: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const LEEWAY: u64 = 5;

pub(crate) const HEADER: &str = r#"{"typ":"at+jwt","alg":"EdDSA","kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"}"#;

/// The claims of the valid token, name and JSON value.
pub(crate) const CLAIMS: [(&str, &str); 13] = [
    ("iss", r#""https://id.example/t/acme""#),
    ("sub", r#""018f3c1e-0000-7000-8000-00000000beef""#),
    ("aud", r#""https://metrics.example""#),
    ("exp", "1800000600"),
    ("iat", "1799999990"),
    ("nbf", "1799999990"),
    ("jti", r#""018f3c1e-0000-7000-8000-00000000cafe""#),
    ("scope", r#""metrics:read metrics:write""#),
    ("roles", r#"["analyst","viewer"]"#),
    ("tid", r#""018f3c1e-0000-7000-8000-00000000f00d""#),
    ("client_id", r#""dashboard""#),
    ("username", r#""grace""#),
    ("act", r#"{"sub":"018f3c1e-0000-7000-8000-00000000ad31"}"#),
];

/// The private key of RFC 8037 appendix A.1; [`KID`] is its thumbprint (A.3).
const SEED: [u8; 32] = [
    0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b,
    0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
];

pub(crate) fn signing_key() -> SigningKey {
    SigningKey::from_bytes(&SEED)
}

pub(crate) fn public_key() -> [u8; 32] {
    signing_key().verifying_key().to_bytes()
}

pub(crate) fn keys() -> KeySet {
    let mut keys = KeySet::new();
    keys.insert_ed25519(KID, &public_key()).unwrap();
    keys
}

pub(crate) fn expected() -> Expected<'static> {
    Expected { issuer: ISSUER, audience: Some(AUDIENCE), leeway_seconds: LEEWAY }
}

pub(crate) fn check(token: &str) -> Result<AccessToken, Rejection> {
    verify(token, &keys(), &expected(), NOW)
}

/// Base64url without padding (RFC 4648 §5).
pub(crate) fn b64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut three = [0; 4];
        three[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(three);
        for sextet in 0..=chunk.len() {
            let index = bits >> (18 - 6 * sextet) & 0x3f;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

/// Signs whatever stands before the second dot.
pub(crate) fn sign(signed: &str) -> String {
    let signature = signing_key().sign(signed.as_bytes()).to_bytes();
    format!("{signed}.{}", b64(&signature))
}

/// A correctly signed token with this header and these claims.
pub(crate) fn token(header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
    sign(&format!("{}.{}", b64(header.as_ref()), b64(claims.as_ref())))
}

/// The valid claims as JSON.
pub(crate) fn claims() -> String {
    object(CLAIMS.map(|(name, value)| (name, value.to_owned())))
}

/// The valid claims with one replaced.
pub(crate) fn claims_with(name: &str, value: &str) -> String {
    assert!(CLAIMS.iter().any(|(known, _)| *known == name));
    object(CLAIMS.map(|(known, valid)| (known, if known == name { value } else { valid }.to_owned())))
}

/// The valid claims without one.
pub(crate) fn claims_without(name: &str) -> String {
    object(CLAIMS.into_iter().filter(|(known, _)| *known != name).map(|(known, value)| (known, value.to_owned())))
}

/// The valid claims with more members before the others.
pub(crate) fn claims_and(more: &str) -> String {
    claims().replacen('{', &format!("{{{more},"), 1)
}

/// The valid header with more members before the others.
pub(crate) fn header_and(more: &str) -> String {
    HEADER.replacen('{', &format!("{{{more},"), 1)
}

/// The valid header with another JSON value for one of its members.
pub(crate) fn header_with(name: &str, value: &str) -> String {
    let kid = format!("\"{KID}\"");
    object(
        [("typ", "\"at+jwt\""), ("alg", "\"EdDSA\""), ("kid", &kid)]
            .map(|(known, valid)| (known, if known == name { value } else { valid }.to_owned())),
    )
}

/// The valid header without one of its members.
pub(crate) fn header_without(name: &str) -> String {
    let kid = format!("\"{KID}\"");
    object(
        [("typ", "\"at+jwt\""), ("alg", "\"EdDSA\""), ("kid", &kid)]
            .into_iter()
            .filter(|(known, _)| *known != name)
            .map(|(known, value)| (known, value.to_owned())),
    )
}

fn object<'a>(members: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let members: Vec<_> = members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}
