//! `claviger config`.

use clap::Subcommand;

use super::output;
use crate::config::{Config, DEFAULTS, Overrides};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the commented defaults, to be saved as a configuration file
    Print,
    /// Check the configuration as it is put together now; nothing is started
    Check,
}

pub(super) fn run(command: Command, overrides: &Overrides) -> anyhow::Result<()> {
    match command {
        Command::Print => output::line(DEFAULTS.trim_end()),
        Command::Check => {
            let config = Config::load(overrides)?;
            config.database_urls()?;
            let mode = if config.is_production() { "production" } else { "trial run" };
            let database =
                if config.database_url.is_some() { "the one of DATABASE_URL" } else { "private, in the data directory" };
            output::line(&format!(
                "The configuration is good.\n\nmode        {mode}\nlisten      {}\npublic URL  {}\nhttps only  {}\ndatabase    {database}",
                config.listen,
                config.issuer_settings(None).public_url,
                config.requires_https(),
            ))
        }
    }
}
