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
    /// Reads a JWK set and keeps its verification keys of Ed25519, P-256 and RSA.
    ///
    /// Entries of another key type or curve are skipped (RFC 7517 §5), as the publisher may serve other verifiers too; so
    /// are keys of P-256 and RSA without an `alg` of `ES256` and `RS256`, which may be for anything. An entry that claims to be one of ours and is not exactly that refuses the whole
    /// set: `kid` and the key's members are required; `use`, `key_ops` and `alg`, where given, must allow verifying with
    /// `EdDSA` or `Ed25519`, `ES256`, `RS256`. Secret members refuse the set in whatever entry they stand.
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
            let Some(kind) = kind(entry)? else { continue };
            may_verify(entry, kind)?;
            let kid = text(entry, "kid")?.ok_or(KeySetError::KeyId)?;
            match kind {
                Kind::Ed25519 => keys.insert_ed25519(&kid, &exactly(entry, "x")?)?,
                Kind::P256 => keys.insert_es256(&kid, &point(&exactly(entry, "x")?, &exactly(entry, "y")?)?)?,
                Kind::Rsa => keys.insert_rs256(&kid, &bytes(entry, "n")?, &bytes(entry, "e")?)?,
            }
        }
        Ok(keys)
    }
}

const NO_KEYS: KeySetError = KeySetError::Malformed("`keys` is not an array of objects");

fn text(entry: &Members<'_>, name: &str) -> Result<Option<String>, KeySetError> {
    entry.text(name).map_err(|WrongType| KeySetError::Malformed("member is not a string"))
}

/// Keys that we verify with.
#[derive(Clone, Copy)]
enum Kind {
    Ed25519,
    P256,
    Rsa,
}

impl Kind {
    /// Values of `alg` that it serves.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Ed25519 => &["EdDSA", "Ed25519"],
            Self::P256 => &["ES256"],
            Self::Rsa => &["RS256"],
        }
    }
}

/// `None` for what serves others.
fn kind(entry: &Members<'_>) -> Result<Option<Kind>, KeySetError> {
    let Some(key_type) = text(entry, "kty")? else { return Err(KeySetError::Malformed("entry without `kty`")) };
    let curve = text(entry, "crv")?;
    match key_type.as_str() {
        "OKP" => match curve.as_deref() {
            Some("Ed25519") => Ok(Some(Kind::Ed25519)),
            Some(other) if OTHER_CURVES.contains(&other) => Ok(None),
            _ => Err(KeySetError::Malformed("key type and curve do not match")),
        },
        // Of these, `alg` alone tells what a key is for: encryption and the other signatures are not ours.
        "EC" | "RSA" => match (key_type.as_str(), text(entry, "alg")?.as_deref(), curve.as_deref()) {
            ("EC", Some("ES256"), Some("P-256")) => Ok(Some(Kind::P256)),
            ("EC", Some("ES256"), _) => Err(KeySetError::Malformed("algorithm and curve do not match")),
            ("RSA", Some("RS256"), _) => Ok(Some(Kind::Rsa)),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

/// `use`, `alg` and `key_ops` (RFC 7517 §4.2 to §4.4).
fn may_verify(entry: &Members<'_>, kind: Kind) -> Result<(), KeySetError> {
    let for_signatures = matches!(text(entry, "use")?.as_deref(), None | Some("sig"));
    let for_its_kind = text(entry, "alg")?.is_none_or(|alg| kind.names().contains(&alg.as_str()));
    let for_verifying = entry
        .texts("key_ops")
        .map_err(|WrongType| KeySetError::Malformed("`key_ops` is not an array of strings"))?
        .is_none_or(|operations| operations.iter().any(|op| op == "verify"));
    if for_signatures && for_its_kind && for_verifying { Ok(()) } else { Err(KeySetError::Use) }
}

/// A member in base64url.
fn bytes(entry: &Members<'_>, name: &str) -> Result<Vec<u8>, KeySetError> {
    let member = text(entry, name)?.ok_or(KeySetError::PublicKey)?;
    URL_SAFE_NO_PAD.decode(member).map_err(|_| KeySetError::PublicKey)
}

/// A member of 32 bytes.
fn exactly(entry: &Members<'_>, name: &str) -> Result<[u8; 32], KeySetError> {
    bytes(entry, name)?.try_into().map_err(|_| KeySetError::PublicKey)
}

fn point(x: &[u8; 32], y: &[u8; 32]) -> Result<[u8; 65], KeySetError> {
    [[4].as_slice(), x, y].concat().try_into().map_err(|_| KeySetError::PublicKey)
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
    fn p_256_and_rsa_are_taken_for_their_algorithm_alone() {
        let (x, y) = ("WKn-ZIGevcwGIyyrzFoZNBdaq9_TsqzGl96oc0CWuis", "y77t-RvAHRKTsSGdIYUfweuOvwrvDD-Q3Hv5J0fSKbE");
        let ec = |alg: &str, crv: &str, x: &str, y: &str| {
            format!(r#"{{"kty":"EC","crv":"{crv}","x":"{x}","y":"{y}","kid":"ec","use":"sig","alg":"{alg}"}}"#)
        };
        assert_eq!(set(&[&ec("ES256", "P-256", x, y)]).unwrap(), ["ec"]);
        assert!(set(&[&ec("ECDH-ES", "P-256", x, y), &ec("ES384", "P-384", x, y)]).unwrap().is_empty());
        assert!(matches!(set(&[&ec("ES256", "P-384", x, y)]), Err(KeySetError::Malformed(_))));
        for (x, y) in [("AA", y), (x, ""), (y, "AA"), (&format!("{x}="), y)] {
            assert_eq!(set(&[&ec("ES256", "P-256", x, y)]), Err(KeySetError::PublicKey));
        }
        let rsa = |alg: &str, n: &[u8], e: &str| {
            let n = URL_SAFE_NO_PAD.encode(n);
            format!(r#"{{"kty":"RSA","n":"{n}","e":"{e}","kid":"rsa","alg":"{alg}"}}"#)
        };
        let modulus = |bytes: usize| [vec![0xc0], vec![0x55; bytes - 1]].concat();
        assert_eq!(set(&[&rsa("RS256", &modulus(256), "AQAB")]).unwrap(), ["rsa"]);
        assert!(set(&[&rsa("RSA-OAEP-256", &modulus(256), "AQAB"), &rsa("PS256", &modulus(256), "AQAB")]).unwrap().is_empty());
        for (n, e) in [
            (modulus(128), "AQAB"),
            (modulus(1024), "AQAB"),
            (modulus(256), "Aw"),
            (modulus(256), ""),
            ([vec![0], modulus(256)].concat(), "AQAB"),
            ([modulus(255), vec![0x54]].concat(), "AQAB"),
            (vec![], "AQAB"),
        ] {
            assert_eq!(set(&[&rsa("RS256", &n, e)]), Err(KeySetError::PublicKey));
        }
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
