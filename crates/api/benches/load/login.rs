//! Logins, against what the processor can do of their dearest part.

use crate::driver::Plan;
use crate::server::{RETRY_AFTER, Server};
use crate::{Pace, bare, rate, rate_row, report::Row};

const CONCURRENCIES: [usize; 3] = [1, 8, 32];
const CEILING: &str = "argon2id in process";

pub(crate) fn measure(server: &Server, pace: Pace) -> Vec<Row> {
    let (threads, per_second) = bare::hashing(pace.seconds(8));
    let mut rows = vec![rate_row(CEILING, threads, per_second, "a thread for each core, its memory kept")];
    for concurrency in CONCURRENCIES {
        // On a machine with other work, some may be refused: they must not come back at once and keep it from hashing.
        let plan = Plan { pause: RETRY_AFTER, ..pace.plan(concurrency) };
        let mut row = server.row("login", &server.logins(false), &plan);
        row.ratios.push((CEILING.to_owned(), rate(&row) / per_second));
        rows.push(row);
    }
    rows
}
