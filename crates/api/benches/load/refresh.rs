//! Refreshes, against what the same Postgres can do of the same.

use crate::rotation::Rotations;
use crate::server::Server;
use crate::{Pace, rate, rate_row, report::Row};

const CONCURRENCIES: [usize; 3] = [1, 8, 32];
const CEILING: &str = "rotation statement";

pub(crate) fn measure(server: &Server, pace: Pace) -> Vec<Row> {
    let rotations = Rotations::prepare(server.data_dir());
    let mut rows = Vec::new();
    for concurrency in CONCURRENCIES {
        let ceiling = rotations.per_second(concurrency, pace.seconds(1), pace.seconds(8));
        rows.push(rate_row(CEILING, concurrency, ceiling, "one durable statement each, no HTTP"));
        let mut row = server.row("refresh", &server.refreshes(concurrency), &pace.plan(concurrency));
        row.ratios.push((CEILING.to_owned(), rate(&row) / ceiling));
        rows.push(row);
    }
    rows
}
