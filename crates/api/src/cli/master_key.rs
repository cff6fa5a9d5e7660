//! `claviger master-key`: what everything secret is sealed under.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use claviger_issuer::audit::Actor;
use claviger_issuer::master_key::SealedAgain;

use super::installation::{read_master_key, with};
use super::output::{Format, complain};
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Seal everything again under another master key, while servers run; can be cut off and done again
    Rotate {
        /// The file that holds the new key: 32 bytes in base64 (`openssl rand -base64 32`)
        #[arg(long, value_name = "FILE")]
        new_file: PathBuf,
    },
}

pub(super) async fn run(command: Command, config: &Config, output: Format) -> anyhow::Result<()> {
    let Command::Rotate { new_file } = command;
    let new = read_master_key(&new_file).context("nothing was changed")?;
    // What was sealed again before, in part, must open too.
    let config = config.with_other_master_key(&new_file);
    with(&config, async |installation| {
        let SealedAgain { changed, unchanged } = installation.issuer.seal_again(&Actor::operator(), &new).await?;
        if changed > 0 {
            complain(
                "note: give every server the new key now (master_key_file), with the old one among \
                 other_master_key_files; then run this again, until it changes nothing, and drop the old one.",
            );
        }
        output.print(&serde_json::json!({ "changed": changed, "unchanged": unchanged }), |_| {
            format!("{changed} sealed again under the new key, {unchanged} were already")
        })
    })
    .await
}
