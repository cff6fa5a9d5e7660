//! `cargo bench -p claviger-verifier --features client`: how fast tokens are verified on one core, against the bare check of
//! the same signatures in the same run; and what a million revoked entries cost.
use std::error::Error;
use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_verifier::{AccessToken, Expected, KeySet, Revocations, verify};
use ed25519_dalek::{Signer as _, SigningKey};

const TOKENS: usize = 64;
const PASSES: usize = 500;
const ENTRIES: u64 = 1_000_000;
const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://id.example/t/acme";

fn jws(key: &SigningKey, typ: &str, claims: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"typ":"{typ}","alg":"EdDSA","kid":"speed"}}"#));
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes());
    format!("{signed}.{signature}")
}

fn uuid(n: u64) -> String {
    // Spread over all bits, as ids are.
    let (high, low) = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n.wrapping_mul(0xc2b2_ae3d_27d4_eb4f));
    let hex = format!("{high:016x}{low:016x}");
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{a}-{b}-{c}-{d}-{e}")
}

/// A million logins that were ended, as the feed tells them.
fn a_million(key: &SigningKey, keys: &KeySet) -> Result<Revocations, Box<dyn Error>> {
    let mut revocations = Revocations::new();
    let (mut cursor, size) = (0, 5000);
    while cursor < ENTRIES {
        let entries: Vec<String> = (cursor..cursor + size).map(|n| format!(r#"["sid","{}",{}]"#, uuid(n), NOW + 900)).collect();
        let prev = if cursor == 0 { "null".to_owned() } else { cursor.to_string() };
        cursor += size;
        let claims = format!(
            r#"{{"iss":"{ISSUER}","iat":{NOW},"prev":{prev},"cursor":{cursor},"more":{},"entries":[{}]}}"#,
            cursor < ENTRIES,
            entries.join(",")
        );
        revocations.apply(&jws(key, "revocations+jwt", &claims), keys, ISSUER, NOW)?;
    }
    Ok(revocations)
}

/// What the process holds in memory, in KiB (`VmRSS` of proc(5)).
fn resident() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The least time of one pass over all tokens, for each of these: what else the machine does only ever adds to it. They
/// take turns, so that a machine that is busy or slow for a while is so for all of them.
fn least<const N: usize>(mut passes: [&mut dyn FnMut(); N]) -> [Duration; N] {
    let mut least = [Duration::MAX; N];
    for _ in 0..PASSES {
        for (pass, least) in passes.iter_mut().zip(&mut least) {
            let began = Instant::now();
            pass();
            *least = began.elapsed().min(*least);
        }
    }
    least
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout();
    let key = SigningKey::from_bytes(&[7; 32]);
    let mut keys = KeySet::new();
    keys.insert_ed25519("speed", key.verifying_key().as_bytes())?;
    let tokens: Vec<String> = (0..TOKENS)
        .map(|n| {
            let id = uuid(u64::MAX - n as u64);
            jws(
                &key,
                "at+jwt",
                &format!(
                    r#"{{"iss":"{ISSUER}","sub":"{id}","aud":"{ISSUER}","exp":{},"iat":{NOW},"jti":"{id}","tid":"{id}","client_id":"{id}","key_id":"ck_3bbuxO57LIJaAdeJ4kIYvC2IIsX7","sid":"{id}","scope":"events:read events:write"}}"#,
                    NOW + 900
                ),
            )
        })
        .collect();
    let before = resident()?;
    let revocations = a_million(&key, &keys)?;
    let grown = resident()?.saturating_sub(before);
    let expected = Expected { issuer: ISSUER, audience: Some(ISSUER), leeway_seconds: 5 };
    let raw = key.verifying_key().to_bytes();
    let bare: Vec<(&[u8], Vec<u8>)> = tokens
        .iter()
        .filter_map(|token| token.rsplit_once('.'))
        .map(|(signed, signature)| Ok((signed.as_bytes(), URL_SAFE_NO_PAD.decode(signature)?)))
        .collect::<Result<_, base64::DecodeError>>()?;
    let check = |token: &str| -> Result<AccessToken, Box<dyn Error>> {
        let token = verify(token, &keys, &expected, NOW)?;
        if revocations.stops(&token) { Err("revoked".into()) } else { Ok(token) }
    };
    // Each of them is good, or the numbers mean nothing.
    for token in &tokens {
        check(token)?;
    }
    let checked = bare.iter().all(|(signed, signature)| UnparsedPublicKey::new(&ED25519, &raw).verify(signed, signature).is_ok());
    if !checked {
        return Err("a signature does not hold".into());
    }

    let [signature_alone, offline, with_revocations] = least([
        &mut || {
            for (signed, signature) in &bare {
                let _ = black_box(UnparsedPublicKey::new(&ED25519, &raw).verify(black_box(signed), signature));
            }
        },
        &mut || {
            for token in &tokens {
                let _ = black_box(verify(black_box(token), &keys, &expected, NOW));
            }
        },
        &mut || {
            for token in &tokens {
                let _ = black_box(check(black_box(token)));
            }
        },
    ]);
    let per_second = |time: Duration| TOKENS as f64 / time.as_secs_f64();
    let share = |time: Duration| 100.0 * signature_alone.as_secs_f64() / time.as_secs_f64();
    writeln!(out, "one core, Ed25519, tokens of {} bytes:", tokens.iter().map(String::len).max().unwrap_or(0))?;
    writeln!(out, "  the signature alone            {:>9.0}/s", per_second(signature_alone))?;
    writeln!(out, "  a token                        {:>9.0}/s  {:.1} %", per_second(offline), share(offline))?;
    writeln!(
        out,
        "  a token, and not revoked       {:>9.0}/s  {:.1} %, among {} entries",
        per_second(with_revocations),
        share(with_revocations),
        revocations.len()
    )?;
    let each = revocations.memory_bytes() as f64 / revocations.len() as f64;
    writeln!(out, "{each:.1} bytes for each of {} revoked entries", revocations.len())?;
    writeln!(out, "the process grew by {:.1} MiB while it took them", grown as f64 / 1024.0)?;
    Ok(())
}
