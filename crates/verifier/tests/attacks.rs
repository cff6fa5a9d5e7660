//! The attacks of the threat list, by their ids. Unless a test is about the signature, its tokens are
//! correctly signed, so that nothing but the rule in question can refuse them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

mod support;

use claviger_verifier::{Expected, MAX_TOKEN_BYTES, Rejection, unverified_issuer, verify};
use jsonwebtoken::{Algorithm, EncodingKey};
use support::*;

fn refused(token: &str, with: Rejection) {
    assert_eq!(check(token), Err(with), "{token:.300}");
}

fn malformed(token: &str) {
    assert!(matches!(check(token), Err(Rejection::Malformed(_))), "{:?} for {token:.300}", check(token));
}

#[test]
fn the_valid_token_passes_and_says_what_it_says() {
    let token = check(&token(HEADER, claims())).unwrap();
    assert_eq!(token.issuer, ISSUER);
    assert_eq!(token.subject, "018f3c1e-0000-7000-8000-00000000beef");
    assert_eq!(token.audience, [AUDIENCE]);
    assert_eq!(token.expires_at, Some(NOW + 600));
    assert_eq!(token.issued_at, NOW - 10);
    assert_eq!(token.not_before, Some(NOW - 10));
    assert_eq!(token.token_id, "018f3c1e-0000-7000-8000-00000000cafe");
    assert_eq!(token.scope, ["metrics:read", "metrics:write"]);
    assert_eq!(token.roles, ["analyst", "viewer"]);
    assert_eq!(token.tenant.as_deref(), Some("018f3c1e-0000-7000-8000-00000000f00d"));
    assert_eq!(token.client_id.as_deref(), Some("dashboard"));
    assert_eq!(token.username.as_deref(), Some("grace"));
    assert_eq!(token.actor.unwrap().subject, "018f3c1e-0000-7000-8000-00000000ad31");
}

#[test]
fn the_fully_specified_algorithm_name_passes() {
    assert!(check(&token(header_with("alg", "\"Ed25519\""), claims())).is_ok());
}

// P01: algorithm confusion.

#[test]
fn p01_none_in_every_case_is_refused_signed_or_not() {
    for bits in 0..16u32 {
        let none: String =
            "none".chars().enumerate().map(|(at, c)| if bits >> at & 1 == 1 { c.to_ascii_uppercase() } else { c }).collect();
        let signed = token(header_with("alg", &format!("\"{none}\"")), claims());
        refused(&signed, Rejection::Algorithm);
        let (unsigned, _) = signed.rsplit_once('.').unwrap();
        refused(&format!("{unsigned}."), Rejection::Algorithm);
        refused(&format!("{unsigned}.AA"), Rejection::Algorithm);
        malformed(unsigned);
    }
}

#[test]
fn p01_hmac_under_anything_public_is_refused() {
    let public = public_key();
    let x = b64(&public);
    let jwk = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    let full = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"{KID}","use":"sig","alg":"EdDSA"}}"#);
    let secrets: [&[u8]; 7] = [&public, x.as_bytes(), jwk.as_bytes(), full.as_bytes(), b"", KID.as_bytes(), &[0; 32]];
    for (alg, name) in [(Algorithm::HS256, "HS256"), (Algorithm::HS384, "HS384"), (Algorithm::HS512, "HS512")] {
        for secret in secrets {
            for (claimed, verdict) in
                [(name, Rejection::Algorithm), ("EdDSA", Rejection::Signature), ("Ed25519", Rejection::Signature)]
            {
                let header = header_with("alg", &format!("\"{claimed}\""));
                let signed = format!("{}.{}", b64(header.as_bytes()), b64(claims().as_bytes()));
                let key = EncodingKey::from_secret(secret);
                let mac = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, alg).unwrap();
                refused(&format!("{signed}.{mac}"), verdict);
            }
        }
    }
}

#[test]
fn p01_another_algorithm_or_spelling_is_refused_even_with_a_good_signature() {
    for alg in [
        "HS256",
        "HS384",
        "HS512",
        "RS256",
        "RS384",
        "RS512",
        "ES256",
        "ES384",
        "ES512",
        "ES256K",
        "PS256",
        "PS384",
        "PS512",
        "Ed448",
        "ML-DSA-44",
        "dir",
        "RSA1_5",
        "A128KW",
        "PBES2-HS256+A128KW",
        "eddsa",
        "EDDSA",
        "Eddsa",
        "EdDsa",
        "ed25519",
        "ED25519",
        "EdDSA ",
        " EdDSA",
        "EdDSA\\t",
        "EdDSA\\n",
        "EdDSA\\u0000",
        "EdDSA,none",
        "EdDSA\\u200b",
        "\\u0415dDSA",
        "",
        " ",
        "null",
    ] {
        refused(&token(header_with("alg", &format!("\"{alg}\"")), claims()), Rejection::Algorithm);
    }
    refused(&token(header_without("alg"), claims()), Rejection::Algorithm);
    for value in ["null", "true", "0", "[\"EdDSA\"]", "{\"EdDSA\":1}", "[]"] {
        malformed(&token(header_with("alg", value), claims()));
    }
}

#[test]
fn p01_a_missing_short_long_or_foreign_signature_is_refused() {
    let valid = token(HEADER, claims());
    let (signed, signature) = valid.rsplit_once('.').unwrap();
    refused(&format!("{signed}."), Rejection::Signature);
    for length in [1, 31, 32, 63, 65, 96, 128, 512] {
        refused(&format!("{signed}.{}", b64(&vec![0; length])), Rejection::Signature);
    }
    for byte in [0, 1, 0xff] {
        refused(&format!("{signed}.{}", b64(&[byte; 64])), Rejection::Signature);
    }
    let other = token(HEADER, claims_with("sub", "\"root\""));
    let (foreign, _) = other.rsplit_once('.').unwrap();
    refused(&format!("{foreign}.{signature}"), Rejection::Signature);
}

#[test]
fn p01_another_key_under_our_key_id_is_refused() {
    use ed25519_dalek::{Signer, SigningKey};
    let signed = format!("{}.{}", b64(HEADER.as_bytes()), b64(claims().as_bytes()));
    let signature = SigningKey::from_bytes(&[9; 32]).sign(signed.as_bytes());
    refused(&format!("{signed}.{}", b64(&signature.to_bytes())), Rejection::Signature);
}

#[test]
fn p01_a_token_of_one_key_does_not_pass_as_anothers() {
    use ed25519_dalek::SigningKey;
    let mut both = keys();
    let second = SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes();
    both.insert_ed25519("second", &second).unwrap();
    let ours = token(header_with("kid", "\"second\""), claims());
    assert_eq!(verify(&ours, &both, &expected(), NOW), Err(Rejection::Signature));
}

#[test]
fn j02_nothing_in_the_claims_is_judged_before_the_signature() {
    for wrong in
        [claims_with("exp", "1"), claims_with("iss", "\"https://evil.example\""), claims_without("sub"), "not json".to_owned()]
    {
        let signed = token(HEADER, wrong);
        let (signed, _) = signed.rsplit_once('.').unwrap();
        refused(&format!("{signed}.{}", b64(&[1; 64])), Rejection::Signature);
    }
}

// P02: claim type confusion.

#[test]
fn p02_a_time_of_the_wrong_type_or_range_is_refused() {
    for claim in ["exp", "nbf", "iat"] {
        for value in [
            "\"1800000600\"",
            "\"\"",
            "\"never\"",
            "null",
            "true",
            "false",
            "[]",
            "[1800000600]",
            "{}",
            "{\"$numberLong\":\"1800000600\"}",
            "{\"$serde_json::private::Number\":\"1800000600\"}",
            "0",
            "-0",
            "0.0",
            "0.5",
            "-1",
            "-1800000600",
            "-0.1",
            "-1e308",
            "253402300800",
            "1e12",
            "1e18",
            "1e308",
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            "340282366920938463463374607431768211456",
        ] {
            refused(&token(HEADER, claims_with(claim, value)), Rejection::Claims(claim));
        }
        for value in [
            "NaN",
            "Infinity",
            "-Infinity",
            "01800000600",
            "+1800000600",
            "0x6b49d200",
            "1800000600.",
            ".5",
            "1_800_000_600",
            "1e",
            "--1",
            "",
        ] {
            malformed(&token(HEADER, claims_with(claim, value)));
        }
    }
}

/// Which of the two depends on how serde_json was built.
#[test]
fn p02_a_time_beyond_every_number_is_refused() {
    for claim in ["exp", "nbf", "iat"] {
        for value in ["1e999", "-1e999"] {
            let verdict = check(&token(HEADER, claims_with(claim, value)));
            assert!(matches!(verdict, Err(Rejection::Malformed(_) | Rejection::Claims(_))), "{verdict:?}");
        }
    }
}

#[test]
fn p02_a_missing_time_is_refused_where_it_is_required() {
    for claim in ["exp", "iat"] {
        refused(&token(HEADER, claims_without(claim)), Rejection::Claims(claim));
    }
    assert!(check(&token(HEADER, claims_without("nbf"))).is_ok());
}

#[test]
fn p02_fractions_and_exponents_are_dates_too() {
    for (value, seconds) in [("1800000600.75", 1_800_000_600), ("18000006e2", 1_800_000_600), ("253402300799", 253_402_300_799)] {
        let token = check(&token(HEADER, claims_with("exp", value))).unwrap();
        assert_eq!(token.expires_at, Some(seconds));
    }
}

#[test]
fn p02_expired_early_and_future_tokens_are_refused() {
    let at = |claim: &str, seconds: i64| check(&token(HEADER, claims_with(claim, &seconds.to_string())));
    let leeway = i64::try_from(LEEWAY).unwrap();
    assert_eq!(at("exp", NOW - leeway), Err(Rejection::Expired));
    assert_eq!(at("exp", 1), Err(Rejection::Expired));
    assert!(at("exp", NOW - leeway + 1).is_ok());
    for claim in ["nbf", "iat"] {
        assert_eq!(at(claim, NOW + leeway + 1), Err(Rejection::NotYetValid));
        assert!(at(claim, NOW + leeway).is_ok());
    }
}

#[test]
fn p02_other_claims_of_the_wrong_type_are_refused() {
    for claim in ["iss", "sub", "jti", "scope", "tid", "client_id", "username"] {
        for value in ["\"\"", "null", "7", "true", "[\"x\"]", "[]", "{}", "{\"sub\":\"x\"}"] {
            refused(&token(HEADER, claims_with(claim, value)), Rejection::Claims(claim));
        }
    }
    for value in ["\"admin\"", "\"\"", "null", "{\"0\":\"admin\"}", "[null]", "[[\"admin\"]]", "[1]"] {
        refused(&token(HEADER, claims_with("roles", value)), Rejection::Claims("roles"));
    }
    for value in ["null", "\"x\"", "[]", "{}", "{\"sub\":\"\"}", "{\"sub\":[\"x\"]}"] {
        refused(&token(HEADER, claims_with("act", value)), Rejection::Claims("act"));
    }
}

#[test]
fn j15_every_required_claim_is_required() {
    for claim in ["iss", "sub", "aud", "exp", "iat", "jti"] {
        refused(&token(HEADER, claims_without(claim)), Rejection::Claims(claim));
    }
    for claim in ["nbf", "scope", "roles", "tid", "client_id", "username", "act"] {
        assert!(check(&token(HEADER, claims_without(claim))).is_ok(), "{claim}");
    }
}

// P03: attacker keys and lookups in headers.

#[test]
fn p03_headers_that_bring_or_point_to_keys_are_refused() {
    let x = b64(&public_key());
    for member in [
        format!(r#""jwk":{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#),
        r#""jku":"https://id.example/t/acme/jwks""#.to_owned(),
        r#""jku":"http://169.254.169.254/""#.to_owned(),
        r#""x5u":"https://evil.example/cert""#.to_owned(),
        r#""x5c":["MIIB"]"#.to_owned(),
        r#""x5t":"AA""#.to_owned(),
        r#""x5t#S256":"AA""#.to_owned(),
        r#""crit":["exp"]"#.to_owned(),
        r#""crit":["b64"],"b64":false"#.to_owned(),
        r#""b64":true"#.to_owned(),
        r#""zip":"DEF""#.to_owned(),
        r#""enc":"A128GCM""#.to_owned(),
        r#""p2c":2147483647"#.to_owned(),
        r#""cty":"JWT""#.to_owned(),
        r#""j\u0077k":null"#.to_owned(),
    ] {
        malformed(&token(header_and(&member), claims()));
    }
    for name in ["jwk", "jku", "x5u", "x5c", "crit", "b64", "zip"] {
        for value in ["null", "\"\"", "[]", "{}", "false"] {
            malformed(&token(header_and(&format!(r#""{name}":{value}"#)), claims()));
        }
    }
}

#[test]
fn p03_a_harmless_unknown_header_is_ignored() {
    assert!(check(&token(header_and(r#""note":["x",{"y":null}]"#), claims())).is_ok());
}

#[test]
fn p03_a_key_id_is_only_a_map_key() {
    for kid in [
        "",
        " ",
        "*",
        "%",
        "../../../../dev/null",
        "/proc/self/environ",
        "file:///etc/passwd",
        "C:\\\\keys",
        "' OR '1'='1",
        "x'; DROP TABLE signing_keys; --",
        "' UNION SELECT 'secret",
        "$(id)",
        "`id`",
        "https://evil.example/key",
        "{{7*7}}",
        "\\u0000",
        "__proto__",
        "kid\\u0000",
        "default",
        "é\\ud83d\\ude00",
    ] {
        refused(&token(header_with("kid", &format!("\"{kid}\"")), claims()), Rejection::UnknownKey);
    }
    for kid in [
        KID.to_lowercase(),
        format!("{KID} "),
        format!(" {KID}"),
        format!("{KID}\\u0000"),
        KID[1..].to_owned(),
        format!("./{KID}"),
    ] {
        refused(&token(header_with("kid", &format!("\"{kid}\"")), claims()), Rejection::UnknownKey);
    }
    refused(&token(header_without("kid"), claims()), Rejection::UnknownKey);
    for value in ["null", "0", "true", "[]", "{}"] {
        malformed(&token(header_with("kid", value), claims()));
    }
}

#[test]
fn p03_a_huge_key_id_is_refused_by_its_size() {
    let long = token(header_with("kid", &format!("\"{}\"", "k".repeat(1000))), claims());
    refused(&long, Rejection::UnknownKey);
    for size in [4_000, 10_000, 1 << 20] {
        malformed(&token(header_with("kid", &format!("\"{}\"", "k".repeat(size))), claims()));
    }
}

#[test]
fn p03_many_unknown_key_ids_leave_the_key_set_as_it_was() {
    let keys = keys();
    let valid = token(HEADER, claims());
    for n in 0..10_000 {
        let header = header_with("kid", &format!("\"unknown-{n}\""));
        let (_, rest) = valid.split_once('.').unwrap();
        let token = format!("{}.{rest}", b64(header.as_bytes()));
        assert_eq!(verify(&token, &keys, &expected(), NOW), Err(Rejection::UnknownKey));
    }
    assert_eq!(keys.kids().collect::<Vec<_>>(), [KID]);
    assert!(verify(&valid, &keys, &expected(), NOW).is_ok());
}

// J8, J6: issuer and audience.

#[test]
fn j06_the_issuer_is_compared_exactly() {
    for issuer in [
        "https://id.example/t/acme/",
        "https://id.example/t/acme ",
        " https://id.example/t/acme",
        "https://id.example/t/acm",
        "https://id.example/t/acme2",
        "https://id.example/t/ACME",
        "https://ID.example/t/acme",
        "HTTPS://id.example/t/acme",
        "http://id.example/t/acme",
        "https://id.example:443/t/acme",
        "https://id.example/t/./acme",
        "https://id.example/t/%61cme",
        "https://id.example/t/acme?",
        "https://id.example/t/acme#",
        "https://id.example.evil.example/t/acme",
        "https://id.example@evil.example/t/acme",
        "id.example/t/acme",
        "https://id.example/t/acme\\u0000",
    ] {
        refused(&token(HEADER, claims_with("iss", &format!("\"{issuer}\""))), Rejection::Issuer);
    }
    refused(&token(HEADER, claims_with("iss", "[\"https://id.example/t/acme\"]")), Rejection::Claims("iss"));
}

#[test]
fn j08_the_audience_is_one_of_the_list_and_exact() {
    for aud in [
        format!("[\"{AUDIENCE}\"]"),
        format!("[\"https://other.example\",\"{AUDIENCE}\"]"),
        format!("[\"{AUDIENCE}\",\"{AUDIENCE}\"]"),
    ] {
        assert!(check(&token(HEADER, claims_with("aud", &aud))).is_ok(), "{aud}");
    }
    for aud in [
        "\"https://metrics.example/\"",
        "\"https://metrics.exampl\"",
        "\"https://metrics.example.evil\"",
        "\"metrics.example\"",
        "\"https://METRICS.example\"",
        "\"*\"",
        "\" \"",
        "\"https://other.example https://metrics.example\"",
        "\"https://other.example,https://metrics.example\"",
        "[\"https://other.example\"]",
        "[\"https://metrics.example/\",\"https\"]",
        "\"[\\\"https://metrics.example\\\"]\"",
    ] {
        refused(&token(HEADER, claims_with("aud", aud)), Rejection::Audience);
    }
    for aud in [
        "\"\"",
        "[]",
        "[\"\"]",
        "null",
        "[null]",
        "true",
        "1",
        "{}",
        "[[\"https://metrics.example\"]]",
        "[\"https://metrics.example\",1]",
        "[\"https://metrics.example\",null]",
        "{\"https://metrics.example\":true}",
    ] {
        refused(&token(HEADER, claims_with("aud", aud)), Rejection::Claims("aud"));
    }
}

#[test]
fn j08_without_an_expected_audience_the_claim_is_still_required() {
    let any = Expected { audience: None, ..expected() };
    let other = token(HEADER, claims_with("aud", "\"https://other.example\""));
    assert!(verify(&other, &keys(), &any, NOW).is_ok());
    for claims in [claims_without("aud"), claims_with("aud", "[]")] {
        assert_eq!(verify(&token(HEADER, claims), &keys(), &any, NOW), Err(Rejection::Claims("aud")));
    }
}

// J11: explicit typing.

#[test]
fn j11_only_access_tokens_are_access_tokens() {
    for typ in ["at+jwt", "AT+JWT", "At+Jwt", "application/at+jwt", "APPLICATION/AT+JWT", "at\\u002bjwt"] {
        assert!(check(&token(header_with("typ", &format!("\"{typ}\"")), claims())).is_ok(), "{typ}");
    }
    for typ in [
        "JWT",
        "jwt",
        "",
        " ",
        "at+jwt ",
        " at+jwt",
        "at+jwt;",
        "at+jwt; charset=utf-8",
        "at+jwt,JWT",
        "at jwt",
        "atjwt",
        "at-jwt",
        "at+jwt+x",
        "x-at+jwt",
        "logout+jwt",
        "dpop+jwt",
        "client-authentication+jwt",
        "secevent+jwt",
        "JOSE",
        "application/jwt",
        "application/",
        "text/at+jwt",
        "application/application/at+jwt",
        "application/ at+jwt",
        "at+jwt\\u0000",
        "\\u0430t+jwt",
    ] {
        refused(&token(header_with("typ", &format!("\"{typ}\"")), claims()), Rejection::Type);
    }
    refused(&token(header_without("typ"), claims()), Rejection::Type);
    for value in ["null", "[\"at+jwt\"]", "true", "{}"] {
        malformed(&token(header_with("typ", value), claims()));
    }
}

// J13: strict format.

#[test]
fn j13_padding_other_alphabets_and_spare_bits_are_refused() {
    // Claims and signature of lengths that would be padded.
    let valid = token(HEADER, claims());
    let parts: Vec<&str> = valid.split('.').collect();
    for at in 0..3 {
        let with = |changed: String| {
            let mut parts = parts.clone();
            parts[at] = &changed;
            parts.join(".")
        };
        for tail in ["=", "==", "===", "\n", "\r\n", " ", "\t", "\0", "%3D", "A=", "é"] {
            malformed(&with(format!("{}{tail}", parts[at])));
        }
        for front in [" ", "\n", "=", "\u{feff}"] {
            malformed(&with(format!("{front}{}", parts[at])));
        }
        let (left, right) = parts[at].split_at(10);
        for middle in ["\n", " ", "=", "+", "/", "\\"] {
            malformed(&with(format!("{left}{middle}{right}")));
        }
    }
    // 64 bytes leave four spare bits in the last character; all but zero are another spelling.
    let (signed, signature) = valid.rsplit_once('.').unwrap();
    let (body, last) = signature.split_at(signature.len() - 1);
    let spellings = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let index = spellings.find(last).unwrap();
    for spare in 1..16 {
        let other = &spellings[index + spare..=index + spare];
        malformed(&format!("{signed}.{body}{other}"));
    }
}

#[test]
fn j13_spare_bits_under_the_signature_are_refused_too() {
    for filler in 0..3 {
        let claims = claims_and(&format!("\"filler\":\"{}\"", "x".repeat(filler)));
        let payload = b64(claims.as_bytes());
        let spare_bits = match payload.len() % 4 {
            0 => continue,
            2 => 4,
            _ => 2,
        };
        let spellings = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let (body, last) = payload.split_at(payload.len() - 1);
        let index = spellings.find(last).unwrap();
        assert_eq!(index % (1 << spare_bits), 0);
        let other = &spellings[index + 1..=index + 1];
        malformed(&sign(&format!("{}.{body}{other}", b64(HEADER.as_bytes()))));
    }
}

#[test]
fn j13_exactly_three_segments() {
    let valid = token(HEADER, claims());
    let (signed, signature) = valid.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    for other in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        header.to_owned(),
        signed.to_owned(),
        format!("{valid}."),
        format!(".{valid}"),
        format!("{valid}.{signature}"),
        format!("{header}..{payload}.{signature}"),
        format!("{header}.{payload}.AA.AA.{signature}"),
        sign(&format!("{header}.")),
        format!(".{payload}.{signature}"),
        format!("Bearer {valid}"),
        format!(" {valid}"),
        format!("{valid} "),
        format!("{valid}\n"),
        format!("\"{valid}\""),
        valid.replace('.', ","),
        valid.replace('.', "\u{ff0e}"),
        sign(header),
        sign(&format!("{header}.{payload}.")),
        sign(&format!("{header}.{payload}.{payload}")),
        "not_a_jwt.not_a_jwt.not_a_jwt".to_owned(),
    ] {
        malformed(&other);
    }
}

#[test]
fn j13_json_serialization_is_not_accepted() {
    let valid = token(HEADER, claims());
    let parts: Vec<&str> = valid.split('.').collect();
    malformed(&format!(r#"{{"protected":"{}","payload":"{}","signature":"{}"}}"#, parts[0], parts[1], parts[2]));
}

#[test]
fn j13_header_and_claims_are_each_one_json_object() {
    for text in [
        "",
        " ",
        "null",
        "true",
        "1",
        "\"at+jwt\"",
        "[]",
        "[{}]",
        "{",
        "}",
        "{}}",
        "{}{}",
        "{},",
        "{}x",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "/**/{}",
        "{}//",
        "{\"a\":\"\u{1}\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":tru}",
        "\0{}",
    ] {
        malformed(&token(text, claims()));
        malformed(&token(HEADER, text));
    }
    let nested = format!("\"{}\"", b64(claims().as_bytes()));
    malformed(&token(HEADER, nested));
    malformed(&token(HEADER, format!("[{}]", claims())));
    malformed(&token(format!("[{HEADER}]"), claims()));
    malformed(&token(HEADER, format!("{}{}", claims(), claims())));
}

#[test]
fn j13_byte_order_marks_and_other_encodings_are_refused() {
    let utf16: Vec<u8> = claims().encode_utf16().flat_map(u16::to_le_bytes).collect();
    malformed(&token(HEADER, utf16));
    malformed(&token(HEADER, format!("\u{feff}{}", claims())));
    malformed(&token(format!("\u{feff}{HEADER}"), claims()));
    for bytes in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe9"] {
        let member = [b"\"note\":\"", bytes, b"\","].concat();
        for (valid, is_header) in [(HEADER.to_owned(), true), (claims(), false)] {
            let json = [b"{", &member[..], &valid.as_bytes()[1..]].concat();
            if is_header {
                malformed(&token(json, claims()));
            } else {
                malformed(&token(HEADER, json));
            }
        }
    }
}

#[test]
fn j13_duplicate_members_are_refused() {
    for (name, value) in CLAIMS {
        let escaped = format!("\\u{:04x}{}", u32::from(name.as_bytes()[0]), &name[1..]);
        for twin in [name, &escaped] {
            malformed(&token(HEADER, claims_and(&format!("\"{twin}\":{value}"))));
            malformed(&token(HEADER, claims_and(&format!("\"{twin}\":null"))));
        }
    }
    assert!(claims_and("\"\\u0065xp\":1").contains("\\u0065xp"));
    malformed(&token(HEADER, claims_and("\"\\u0065xp\":9999999999")));
    for twin in ["typ", "\\u0074yp", "alg", "\\u0061lg", "a\\u006Cg", "kid", "\\u006bid"] {
        malformed(&token(header_and(&format!("\"{twin}\":\"EdDSA\"")), claims()));
    }
    // Members nobody reads count as well, at any depth.
    malformed(&token(HEADER, claims_and(r#""x":1,"x":1"#)));
    malformed(&token(HEADER, claims_and(r#""x":[{"y":1,"\u0079":1}]"#)));
    malformed(&token(header_and(r#""x":1,"x":1"#), claims()));
    malformed(&token(header_and(r#""x":{"y":1,"y":1}"#), claims()));
    malformed(&token(HEADER, claims_with("act", r#"{"sub":"a","sub":"b"}"#)));
    malformed(&token(HEADER, claims_with("act", r#"{"sub":"a","\u0073ub":"b"}"#)));
}

#[test]
fn j13_names_are_case_sensitive() {
    refused(&token(HEADER, claims().replace("\"exp\"", "\"EXP\"")), Rejection::Claims("exp"));
    assert!(check(&token(HEADER, claims_and("\"Exp\":1"))).is_ok());
    refused(&token(HEADER.replace("\"alg\"", "\"Alg\""), claims()), Rejection::Algorithm);
}

#[test]
fn j13_deep_nesting_is_refused() {
    for depth in [8, 100, 127, 200, 1000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let value = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            malformed(&token(HEADER, claims_and(&format!("\"deep\":{value}"))));
            malformed(&token(header_and(&format!("\"deep\":{value}")), claims()));
        }
        malformed(&token(HEADER, "[".repeat(depth)));
        malformed(&token("[".repeat(depth), claims()));
    }
}

#[test]
fn j13_an_oversized_token_is_refused() {
    let filled = |size: usize| token(HEADER, claims_and(&format!("\"pad\":\"{}\"", "x".repeat(size))));
    assert!(check(&filled(8_000)).is_ok());
    for size in [MAX_TOKEN_BYTES, 1 << 20] {
        refused(&filled(size), Rejection::Malformed("too large"));
    }
    refused(&".".repeat(1 << 20), Rejection::Malformed("too large"));
}

#[test]
fn the_unverified_issuer_is_read_strictly_and_believed_by_nobody() {
    let valid = token(HEADER, claims());
    assert_eq!(unverified_issuer(&valid).as_deref(), Some(ISSUER));
    let (signed, _) = valid.rsplit_once('.').unwrap();
    assert_eq!(unverified_issuer(&format!("{signed}.AA")).as_deref(), Some(ISSUER));
    for token in [
        token(HEADER, claims_without("iss")),
        token(HEADER, claims_with("iss", "\"\"")),
        token(HEADER, claims_with("iss", "null")),
        token(HEADER, claims_with("iss", "[\"https://id.example/t/acme\"]")),
        token(HEADER, claims_and(&format!("\"\\u0069ss\":\"{ISSUER}\""))),
        token(HEADER, claims_and(&format!("\"pad\":\"{}\"", "x".repeat(MAX_TOKEN_BYTES)))),
        token(HEADER, "[]"),
        signed.to_owned(),
        format!("{valid}="),
        String::new(),
    ] {
        assert_eq!(unverified_issuer(&token), None);
    }
}
