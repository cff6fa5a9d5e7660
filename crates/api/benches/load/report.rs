//! Shows what the runs measured: a Markdown table for people, a JSON document for programs.

mod machine;
mod process;

pub(crate) use machine::Machine;
pub(crate) use process::{Usage, family};

use serde::{Serialize, Serializer};

use crate::driver::Outcome;

/// Everything that one `make bench` found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// When it ran, as the caller wrote it.
    pub(crate) date: String,
    /// What it ran on.
    pub(crate) machine: Machine,
    /// In the order of the table.
    pub(crate) rows: Vec<Row>,
}

/// One operation under one load.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// What was asked of the server, in a few words.
    pub(crate) operation: String,
    /// Requests under way at a time.
    pub(crate) concurrency: usize,
    /// How fast it was.
    pub(crate) measured: Measured,
    /// What it took; `None` when nobody looked.
    pub(crate) cost: Option<Cost>,
    /// "This many times the throughput of ..", as (what, how many times).
    #[serde(serialize_with = "as_map")]
    pub(crate) ratios: Vec<(String, f64)>,
    /// A remark for the reader; empty when there is none.
    pub(crate) note: String,
}

/// What is known of the speed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measured {
    /// A run of the load driver.
    Load(Outcome),
    /// Only a rate: work without requests, such as signing in a loop.
    Throughput {
        /// Operations per second.
        per_second: f64,
    },
}

/// What the measured processes spent.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Cost {
    /// CPU time per request over all cores, microseconds.
    pub(crate) cpu_us_per_request: f64,
    /// Resident memory after the run, MiB.
    pub(crate) rss_mib: f64,
}

impl Cost {
    /// The cost of a run from what was used before and after it. `answers` is [`Outcome::answers`]: the
    /// warm-up burns CPU time too.
    pub(crate) fn between(before: &Usage, after: &Usage, answers: u64) -> Cost {
        let spent = after.cpu.saturating_sub(before.cpu);
        Cost {
            cpu_us_per_request: spent.as_secs_f64() * 1e6 / answers.max(1) as f64,
            rss_mib: after.rss_bytes as f64 / (1024.0 * 1024.0),
        }
    }
}

const HEADINGS: [&str; 10] =
    ["operation", "concurrency", "per second", "p50 ms", "p99 ms", "CPU µs/request", "RSS MiB", "ratios", "unexpected", "note"];

/// Columns that hold numbers stand flush right.
const NUMBERS: std::ops::RangeInclusive<usize> = 1..=6;

impl Report {
    /// The machine and the rows as aligned Markdown.
    pub(crate) fn table(&self) -> String {
        let Machine { cpu, cores, kernel } = &self.machine;
        let mut lines = vec![HEADINGS.map(str::to_owned)];
        lines.extend(self.rows.iter().map(Row::cells));

        let mut widths = [3; HEADINGS.len()];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.chars().count().max(*width);
            }
        }

        let mut text = format!("{}: {cpu}, {cores} cores, Linux {kernel}\n\n", self.date);
        for (number, line) in lines.iter().enumerate() {
            let aligned = line.iter().zip(widths).enumerate();
            let cells =
                aligned.map(
                    |(column, (cell, width))| {
                        if NUMBERS.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
                    },
                );
            push_line(&mut text, cells);
            if number == 0 {
                let rule = widths.iter().enumerate().map(|(column, width)| {
                    let end = if NUMBERS.contains(&column) { ":" } else { "-" };
                    "-".repeat(width - 1) + end
                });
                push_line(&mut text, rule);
            }
        }
        text
    }

    /// The whole report as indented JSON.
    ///
    /// # Errors
    /// As `serde_json`: none for these types.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

impl Row {
    fn cells(&self) -> [String; HEADINGS.len()] {
        let Row { operation, concurrency, measured, cost, ratios, note } = self;
        let (per_second, p50, p99, unexpected) = match measured {
            Measured::Load(outcome) if outcome.max_us == 0 => {
                // No good answer: a latency of zero would look splendid.
                let none = String::new();
                (outcome.per_second, none.clone(), none, unexpected(outcome))
            }
            Measured::Load(outcome) => (outcome.per_second, millis(outcome.p50_us), millis(outcome.p99_us), unexpected(outcome)),
            Measured::Throughput { per_second } => (*per_second, String::new(), String::new(), String::new()),
        };
        let ratios: Vec<String> = ratios.iter().map(|(what, times)| format!("{times:.2}x {what}")).collect();
        [
            escaped(operation),
            concurrency.to_string(),
            short(per_second),
            p50,
            p99,
            cost.map_or_else(String::new, |cost| short(cost.cpu_us_per_request)),
            cost.map_or_else(String::new, |cost| short(cost.rss_mib)),
            escaped(&ratios.join(", ")),
            unexpected,
            escaped(note),
        ]
    }
}

fn push_line(text: &mut String, cells: impl Iterator<Item = String>) {
    for cell in cells {
        text.push_str("| ");
        text.push_str(&cell);
        text.push(' ');
    }
    text.push_str("|\n");
}

/// "none", or "12x 429, 3 errors".
fn unexpected(outcome: &Outcome) -> String {
    let mut parts: Vec<String> = outcome.unexpected.iter().map(|(status, count)| format!("{count}x {status}")).collect();
    if outcome.errors > 0 {
        parts.push(format!("{} errors", outcome.errors));
    }
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// Three digits or more that mean something.
fn short(number: f64) -> String {
    if number < 100.0 { format!("{number:.1}") } else { format!("{number:.0}") }
}

fn millis(micros: u64) -> String {
    let millis = micros as f64 / 1000.0;
    if millis < 1.0 {
        format!("{millis:.3}")
    } else if millis < 100.0 {
        format!("{millis:.2}")
    } else {
        format!("{millis:.0}")
    }
}

/// A bar would end the cell.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
}

fn as_map<S: Serializer>(ratios: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(ratios.iter().map(|(what, times)| (what, times)))
}
