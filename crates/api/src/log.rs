//! Log lines: readable on a terminal, JSON elsewhere, always on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Says what is wrong with a filter, if something is.
pub(crate) fn check(filter: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("configuration: log: {error}"))
}

/// Starts logging.
pub(crate) fn start(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = check(filter)?;
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
