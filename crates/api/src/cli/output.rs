//! What commands print: text for people, JSON for programs.

use std::io::{ErrorKind, Write as _, stderr, stdout};

use serde::Serialize;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// For programs: one document.
    Json,
}

impl Format {
    /// Prints a value: as JSON, or as its text.
    pub(super) fn print<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        match self {
            Self::Text => line(&text(value)),
            Self::Json => line(&serde_json::to_string(value)?),
        }
    }

    /// Prints a list: as a JSON array, or with a line for each.
    pub(super) fn print_list<T: Serialize>(self, values: &[T], text: impl Fn(&T) -> String) -> anyhow::Result<()> {
        match self {
            Self::Text => values.iter().try_for_each(|value| line(&text(value))),
            Self::Json => line(&serde_json::to_string(values)?),
        }
    }
}

/// A line on standard output.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    match writeln!(stdout(), "{text}") {
        // Whoever reads has enough, as `head` does.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// A JSON document for people, on standard output.
pub(super) fn pretty(value: &serde_json::Value) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// A line on standard error. If even that is closed, there is nobody left to tell.
pub(super) fn complain(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}

/// An error with its causes. One that already tells its cause is not told twice.
pub(super) fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.contains(&cause) {
        true => told,
        false if told.is_empty() => cause,
        false => format!("{told}: {cause}"),
    })
}
