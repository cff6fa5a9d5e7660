//! The table at the end.

use std::collections::{BTreeMap, BTreeSet};

use crate::checker::{Anomaly, Count, Kind};
use crate::parts::Done;
use crate::plan::Part;

const HEADINGS: [&str; 11] = [
    "test",
    "what",
    "faults",
    "calls",
    "acknowledged",
    "replayed",
    "lost",
    "double",
    "wrongly revoked",
    "planted/caught",
    "recovery",
];

/// All that a run found.
pub(crate) struct Report {
    pub(crate) done: BTreeMap<Part, Done>,
    pub(crate) counts: BTreeMap<Part, Count>,
    pub(crate) anomalies: Vec<Anomaly>,
    /// Of the run as a whole.
    pub(crate) problems: Vec<String>,
}

impl Report {
    /// Whether rotation lost nothing.
    pub(crate) fn passed(&self) -> bool {
        self.anomalies.is_empty() && self.problems.is_empty() && self.done.values().all(|done| done.problems.is_empty())
    }

    /// Everything that is wrong, and the table.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for anomaly in self.anomalies.iter().take(100) {
            text.push_str(&format!("{anomaly}\n"));
        }
        if self.anomalies.len() > 100 {
            text.push_str(&format!("… and {} more\n", self.anomalies.len() - 100));
        }
        for (part, done) in &self.done {
            for problem in &done.problems {
                text.push_str(&format!("{part}: {problem}\n"));
            }
        }
        for problem in &self.problems {
            text.push_str(&format!("{problem}\n"));
        }
        if !text.is_empty() {
            text.push('\n');
        }
        let mut lines = vec![HEADINGS.map(str::to_owned)];
        lines.extend(self.done.iter().map(|(part, done)| self.cells(*part, done)));
        text.push_str(&aligned(&lines));
        for (part, count) in &self.counts {
            let statuses: Vec<String> = count.statuses.iter().map(|(status, calls)| format!("{status}: {calls}")).collect();
            text.push_str(&format!("{part} answers by status (0 is none): {}\n", statuses.join(", ")));
        }
        text
    }

    fn cells(&self, part: Part, done: &Done) -> [String; HEADINGS.len()] {
        let count = self.counts.get(&part).cloned().unwrap_or_default();
        let found = |kinds: &[Kind]| {
            // Several things may be wrong with one family.
            let found = self.anomalies.iter().filter(|anomaly| anomaly.part == part && kinds.contains(&anomaly.kind));
            found.map(|anomaly| anomaly.family).collect::<BTreeSet<u32>>().len().to_string()
        };
        [
            part.to_string(),
            part.title().to_owned(),
            done.faults.to_string(),
            count.calls.to_string(),
            count.acknowledged.to_string(),
            count.replayed.to_string(),
            found(&[Kind::Lost]),
            found(&[Kind::Double]),
            found(&[Kind::WronglyRevoked, Kind::Late]),
            format!("{}/{}", count.planted, count.caught),
            done.longest_recovery.map_or_else(|| "-".into(), |longest| format!("{:.2} s", longest.as_secs_f64())),
        ]
    }
}

/// Columns of equal width.
fn aligned(lines: &[[String; HEADINGS.len()]]) -> String {
    let mut widths = [0; HEADINGS.len()];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in lines {
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            // Words stand left, numbers right.
            text.push_str(&if column < 2 { format!("{cell:<width$}  ") } else { format!("{cell:>width$}  ") });
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report() -> Report {
        let done = Done { faults: 30, longest_recovery: Some(Duration::from_millis(1_234)), problems: Vec::new() };
        let count = Count { calls: 5_000, acknowledged: 4_000, replayed: 300, planted: 20, caught: 20, ..Count::default() };
        Report {
            done: BTreeMap::from([(Part::T01, done)]),
            counts: BTreeMap::from([(Part::T01, count)]),
            anomalies: Vec::new(),
            problems: Vec::new(),
        }
    }

    #[test]
    fn the_table_says_what_was_done_and_found() {
        let report = report();
        assert!(report.passed());
        let text = report.text();
        let line = text.lines().find(|line| line.starts_with("T01  ")).unwrap();
        let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells, ["T01", "kill -9 a server", "30", "5000", "4000", "300", "0", "0", "0", "20/20", "1.23 s"]);
    }

    #[test]
    fn anything_that_is_wrong_is_told_and_fails_the_run() {
        let mut lost = report();
        lost.anomalies.push(Anomaly { kind: Kind::Lost, part: Part::T01, family: 7, what: "gone".into() });
        assert!(!lost.passed() && lost.text().starts_with("T01 Lost: family 7: gone\n"));
        let mut slow = report();
        slow.problems.push("a server panicked".into());
        assert!(!slow.passed() && slow.text().contains("a server panicked"));
        let mut held = report();
        held.done.get_mut(&Part::T01).unwrap().problems.push("held".into());
        assert!(!held.passed() && held.text().contains("T01: held"));
    }
}
