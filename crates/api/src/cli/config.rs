//! `claviger config`.

use clap::Subcommand;

use serde_json::json;

use super::output::{self, Format};
use crate::config::{Config, DEFAULTS, Overrides};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the commented defaults, to be saved as a configuration file
    Print,
    /// Check the configuration as it is put together now; nothing is started
    Check,
}

pub(super) fn run(command: Command, overrides: &Overrides, output: Format) -> anyhow::Result<()> {
    match command {
        Command::Print => output::line(DEFAULTS.trim_end()),
        Command::Check => {
            let config = Config::load(overrides)?;
            config.database_urls()?;
            let mode = if config.is_production() { "production" } else { "trial run" };
            let database =
                if config.database_url.is_some() { "the one of DATABASE_URL" } else { "private, in the data directory" };
            let found = json!({
                "mode": mode,
                "listen": config.listen,
                "public_url": config.issuer_settings(None).public_url,
                "https_only": config.requires_https(),
                "database": database,
            });
            output.print(&found, |found| {
                let lines = found.as_object().into_iter().flatten().map(|(name, value)| {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    format!("\n{:<12}{value}", name.replace('_', " "))
                });
                format!("The configuration is good.\n{}", lines.collect::<String>())
            })
        }
    }
}
