//! Log lines: readable on a terminal, JSON elsewhere, always on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Starts logging. Says what is wrong with the filter, if something is.
pub(crate) fn start(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("configuration: log: {error}"))?;
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start, as in tests that share a process, keeps the first.
    let _ = match json {
        true => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
        false => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    Ok(())
}
