//! `claviger pepper`: what keys' secrets are hashed under.

use clap::Subcommand;
use claviger_issuer::audit::Actor;

use super::installation::with;
use super::output::Format;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a pepper, while servers run: secrets are hashed under it when they are made, or used next
    Rotate,
}

pub(super) async fn run(command: &Command, config: &Config, output: Format) -> anyhow::Result<()> {
    let Command::Rotate = command;
    with(config, async |installation| {
        let (version, used_from) = installation.issuer.rotate_pepper(&Actor::operator()).await?;
        output.print(&serde_json::json!({ "version": version, "used_from": used_from }), |_| {
            format!("pepper {version}  used from {} on, when every server knows it", used_from.to_rfc3339())
        })
    })
    .await
}
