//! How long one verification takes: `cargo run --release -p claviger-verifier --example verify_speed`.
use std::error::Error;
use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use claviger_verifier::{Expected, KeySet, verify};
use ed25519_dalek::{Signer, SigningKey};

const ROUNDS: u32 = 20_000;

fn main() -> Result<(), Box<dyn Error>> {
    let key = SigningKey::from_bytes(&[7; 32]);
    let mut keys = KeySet::new();
    keys.insert_ed25519("speed", key.verifying_key().as_bytes())?;
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"typ":"at+jwt","alg":"EdDSA","kid":"speed"}"#),
        URL_SAFE_NO_PAD.encode(
            r#"{"iss":"https://id.example","sub":"018f3c1e-0000-7000-8000-00000000beef","aud":"metrics",
                "exp":2000,"iat":1000,"jti":"018f3c1e-0000-7000-8000-00000000cafe","scope":"a:read a:write",
                "roles":["analyst"],"tid":"018f3c1e-0000-7000-8000-00000000f00d"}"#
        ),
    );
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes());
    let token = format!("{signed}.{signature}");
    let expected = Expected { issuer: "https://id.example", audience: Some("metrics"), leeway_seconds: 0 };

    let start = Instant::now();
    for _ in 0..ROUNDS {
        black_box(verify(black_box(&token), &keys, &expected, 1500)?);
    }
    let each = start.elapsed() / ROUNDS;
    writeln!(std::io::stdout(), "{each:?} per token of {} bytes", token.len())?;
    Ok(())
}
