//! Verifies the tokens that come in, one a line, and says what it thinks of each:
//! `cargo run -p claviger-verifier --features client --example any_framework -- ISSUER AUDIENCE`.
use std::error::Error;
use std::io::{BufRead, Write};

use claviger_verifier::Verifier;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [issuer, audience] = std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "ISSUER AUDIENCE")?;
    let verifier = Verifier::builder(issuer).audience(audience).build()?;
    verifier.ready().await;
    for line in std::io::stdin().lock().lines() {
        let said = match verifier.verify(line?.trim()).await {
            Ok(token) => format!("good: {} {:?}", token.subject, token.scope),
            Err(refused) => format!("refused: {refused}; a server would answer {}", verifier.answer(&refused).status),
        };
        writeln!(std::io::stdout(), "{said}")?;
    }
    Ok(())
}
