//! `claviger keypair`: Ed25519 key pairs in the raw form that some verifiers take.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use claviger_issuer::key_pair::raw_pair;
use claviger_issuer::random::Random;
use zeroize::Zeroizing;

use super::output::Format;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key pair and print both halves in base64; it is kept nowhere
    Generate,
}

pub(super) fn run(command: &Command, output: Format) -> anyhow::Result<()> {
    let Command::Generate = command;
    let (public, private) = raw_pair(&Random::from_system());
    let (public, private) = (STANDARD.encode(public), Zeroizing::new(STANDARD.encode(private.as_slice())));
    let pair = serde_json::json!({ "public_key": public, "private_key": *private });
    output.print(&pair, |_| format!("ED25519 PUBLIC_KEY=\"{public}\"\nED25519 PRIVATE_KEY=\"{}\"", *private))
}
