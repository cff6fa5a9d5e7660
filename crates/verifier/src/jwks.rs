//! Reading a published key set (RFC 7517 §5, RFC 8037 §2).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::json::{Members, WrongType};
use crate::keys::{KeySet, KeySetError, MAX_KEYS};

/// Longest JWK set that is read, in bytes (128 KiB).
pub const MAX_JWKS_BYTES: usize = 128 * 1024;

/// Members that only a private or symmetric key has (RFC 7518 §6.2.2, §6.3.2, §6.4.1, RFC 8037 §2).
const SECRET: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Curves of the same key type that serve other purposes.
const OTHER_CURVES: [&str; 3] = ["Ed448", "X25519", "X448"];

impl KeySet {
    /// Reads a JWK set and keeps its Ed25519 verification keys.
    ///
    /// Entries of another key type or curve are skipped (RFC 7517 §5), as the publisher may serve other
    /// verifiers too. An entry that claims to be an Ed25519 key and is not exactly one refuses the whole
    /// set: `kid` and a 32-byte `x` are required; `use`, `key_ops` and `alg`, where given, must allow
    /// verifying with `EdDSA` or `Ed25519`. Secret members refuse the set in whatever entry they stand.
    /// A set without usable keys is not an error; ask [`is_empty`](Self::is_empty).
    ///
    /// # Errors
    /// Any [`KeySetError`].
    pub fn from_jwks(json: &str) -> Result<Self, KeySetError> {
        if json.len() > MAX_JWKS_BYTES {
            return Err(KeySetError::TooLarge);
        }
        let entries = Members::parse(json.as_bytes())
            .ok_or(KeySetError::Malformed("not a JSON object"))?
            .objects("keys")
            .map_err(|WrongType| NO_KEYS)?
            .ok_or(NO_KEYS)?;
        if entries.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let mut keys = Self::new();
        for entry in &entries {
            if SECRET.iter().any(|name| entry.has(name)) {
                return Err(KeySetError::PrivateMaterial);
            }
            if is_ed25519(entry)? {
                may_verify(entry)?;
                let kid = text(entry, "kid")?.ok_or(KeySetError::KeyId)?;
                keys.insert_ed25519(&kid, &public_key(entry)?)?;
            }
        }
        Ok(keys)
    }
}

const NO_KEYS: KeySetError = KeySetError::Malformed("`keys` is not an array of objects");

fn text(entry: &Members<'_>, name: &str) -> Result<Option<String>, KeySetError> {
    entry.text(name).map_err(|WrongType| KeySetError::Malformed("member is not a string"))
}

fn is_ed25519(entry: &Members<'_>) -> Result<bool, KeySetError> {
    match text(entry, "kty")?.as_deref() {
        Some("OKP") => {}
        Some(_) => return Ok(false),
        None => return Err(KeySetError::Malformed("entry without `kty`")),
    }
    match text(entry, "crv")?.as_deref() {
        Some("Ed25519") => Ok(true),
        Some(other) if OTHER_CURVES.contains(&other) => Ok(false),
        _ => Err(KeySetError::Malformed("key type and curve do not match")),
    }
}

/// `use`, `alg` and `key_ops` (RFC 7517 §4.2 to §4.4).
fn may_verify(entry: &Members<'_>) -> Result<(), KeySetError> {
    let for_signatures = matches!(text(entry, "use")?.as_deref(), None | Some("sig"));
    let for_eddsa = matches!(text(entry, "alg")?.as_deref(), None | Some("EdDSA" | "Ed25519"));
    let for_verifying = entry
        .texts("key_ops")
        .map_err(|WrongType| KeySetError::Malformed("`key_ops` is not an array of strings"))?
        .is_none_or(|operations| operations.iter().any(|op| op == "verify"));
    if for_signatures && for_eddsa && for_verifying { Ok(()) } else { Err(KeySetError::Use) }
}

fn public_key(entry: &Members<'_>) -> Result<[u8; 32], KeySetError> {
    let x = text(entry, "x")?.ok_or(KeySetError::PublicKey)?;
    URL_SAFE_NO_PAD.decode(x).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(KeySetError::PublicKey)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;

    /// The public key of RFC 8037 appendix A.2.
    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn key(kid: &str, more: &str) -> String {
        format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{X}","kid":"{kid}"{more}}}"#)
    }

    fn set(entries: &[&str]) -> Result<Vec<String>, KeySetError> {
        let json = format!(r#"{{"keys":[{}]}}"#, entries.join(","));
        let keys = KeySet::from_jwks(&json)?;
        let mut kids: Vec<_> = keys.kids().map(str::to_owned).collect();
        kids.sort();
        Ok(kids)
    }

    #[test]
    fn keeps_what_it_can_use_and_skips_other_kinds() {
        let kids = set(&[
            &key("a", ""),
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"a","use":"enc"}"#,
            r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA","kid":"ec"}"#,
            r#"{"kty":"OKP","crv":"X25519","x":"AA","kid":"dh"}"#,
            r#"{"kty":"AKP","alg":"ML-DSA-44","pub":"AA","kid":"pq"}"#,
            &key("b", r#","use":"sig","alg":"EdDSA","x5t":"whatever""#),
            &key("c", r#","alg":"Ed25519","key_ops":["verify"]"#),
        ]);
        assert_eq!(kids.unwrap(), ["a", "b", "c"]);
        assert!(set(&[]).unwrap().is_empty());
    }

    #[test]
    fn secret_members_refuse_the_set_wherever_they_stand() {
        for name in SECRET {
            for value in ["\"AA\"", "null"] {
                let member = format!(r#","{name}":{value}"#);
                assert_eq!(set(&[&key("ok", ""), &key("a", &member)]), Err(KeySetError::PrivateMaterial));
                let rsa = format!(r#"{{"kty":"RSA","n":"AQAB","e":"AQAB"{member}}}"#);
                assert_eq!(set(&[&rsa]), Err(KeySetError::PrivateMaterial));
            }
        }
        let oct = r#"{"kty":"oct","k":"c2VjcmV0","kid":"s","alg":"HS256"}"#;
        assert_eq!(set(&[oct]), Err(KeySetError::PrivateMaterial));
    }

    #[test]
    fn a_key_for_something_else_is_refused() {
        for member in [
            r#","use":"enc""#,
            r#","use":"""#,
            r#","use":"SIG""#,
            r#","alg":"none""#,
            r#","alg":"HS256""#,
            r#","alg":"RS256""#,
            r#","alg":"eddsa""#,
            r#","alg":"EdDSA ""#,
            r#","key_ops":["sign"]"#,
            r#","key_ops":[]"#,
        ] {
            assert_eq!(set(&[&key("a", member)]), Err(KeySetError::Use), "{member}");
        }
        for member in [r#","use":null"#, r#","alg":1"#, r#","key_ops":"verify""#] {
            assert!(matches!(set(&[&key("a", member)]), Err(KeySetError::Malformed(_))), "{member}");
        }
    }

    #[test]
    fn the_point_is_exactly_32_bytes_in_one_spelling() {
        let a = "A".repeat(43);
        let short = "A".repeat(42);
        let long = "A".repeat(44);
        let spki = "A".repeat(59);
        let padded = format!("{X}=");
        let spare = X.replace("Ro", "Rp");
        for x in ["", &a, &short, &long, &spki, &padded, &spare, "+/+/", " ", "é"] {
            let entry = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"a"}}"#);
            assert_eq!(set(&[&entry]), Err(KeySetError::PublicKey), "{x}");
        }
        let absent = r#"{"kty":"OKP","crv":"Ed25519","kid":"a"}"#;
        assert_eq!(set(&[absent]), Err(KeySetError::PublicKey));
    }

    #[test]
    fn type_and_curve_must_agree() {
        for entry in [
            r#"{}"#,
            r#"{"kty":null}"#,
            r#"{"kty":"OKP"}"#,
            r#"{"kty":"OKP","crv":"P-256","x":"AA","kid":"a"}"#,
            r#"{"kty":"OKP","crv":"ed25519","x":"AA","kid":"a"}"#,
            r#"{"kty":"OKP","crv":["Ed25519"],"x":"AA","kid":"a"}"#,
        ] {
            assert!(matches!(set(&[entry]), Err(KeySetError::Malformed(_))), "{entry}");
        }
    }

    #[test]
    fn key_ids_are_required_and_unique() {
        assert_eq!(set(&[&key("a", ""), &key("\\u0061", "")]), Err(KeySetError::DuplicateKeyId));
        assert_eq!(set(&[&key("", "")]), Err(KeySetError::KeyId));
        assert_eq!(set(&[&key(&"k".repeat(129), "")]), Err(KeySetError::KeyId));
        let absent = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{X}"}}"#);
        assert_eq!(set(&[&absent]), Err(KeySetError::KeyId));
    }

    #[test]
    fn the_document_is_strict_and_bounded() {
        for json in [
            "",
            "[]",
            "{}",
            r#"{"keys":null}"#,
            r#"{"keys":{}}"#,
            r#"{"keys":[1]}"#,
            r#"{"keys":[null]}"#,
            r#"{"keys":[[]]}"#,
            r#"{"keys":[],"keys":[]}"#,
            r#"{"keys":[{"kty":"RSA","kty":"OKP"}]}"#,
            "\u{feff}{\"keys\":[]}",
            r#"{"keys":[]}x"#,
        ] {
            assert!(matches!(KeySet::from_jwks(json), Err(KeySetError::Malformed(_))), "{json}");
        }
        let entry = r#"{"kty":"RSA"}"#;
        assert!(set(&vec![entry; MAX_KEYS]).is_ok());
        assert_eq!(set(&vec![entry; MAX_KEYS + 1]), Err(KeySetError::TooMany));
        let large = format!("{{\"keys\":[]{}}}", " ".repeat(MAX_JWKS_BYTES));
        assert_eq!(KeySet::from_jwks(&large).err(), Some(KeySetError::TooLarge));
    }
}
