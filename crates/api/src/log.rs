//! Log lines: readable on a terminal, JSON elsewhere, always on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::config::LogFormat;
use crate::traces::Traces;

/// Says what is wrong with a filter, if something is.
pub(crate) fn check(filter: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("configuration: log: {error}"))
}

/// Starts logging, and collecting traces where there are to be any.
pub(crate) fn start(filter: &str, format: LogFormat, traces: Option<&Traces>) -> anyhow::Result<()> {
    let filter = check(filter)?;
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match json {
        true => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        false => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    let registry = tracing_subscriber::registry();
    // A second start, as in tests that share a process, keeps the first.
    let _ = match traces {
        None => registry.with(lines).with(filter).try_init(),
        Some(traces) => registry.with(lines.with_filter(filter)).with(traces.layer()).try_init(),
    };
    Ok(())
}
