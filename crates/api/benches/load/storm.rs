//! Exchanges and refreshes while many people try to log in at once, and what the server's memory does meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::driver::{self, Plan};
use crate::report::{Measured, Row};
use crate::server::{RETRY_AFTER, Server, pause};
use crate::{Pace, mib};

/// Exchanges and refreshes under way.
const CONCURRENCY: usize = 4;
/// Logins under way.
const ATTEMPTS: usize = 1000;
/// What a hash takes, at the usual cost.
const HASH_BYTES: u64 = 19 * 1024 * 1024;
/// What a storm may take besides.
const ROOM: u64 = 32 * 1024 * 1024;

/// `base` is the server's resident memory before anybody came.
pub(crate) fn measure(server: &Server, key: &str, base: u64, pace: Pace) -> Vec<Row> {
    server.allow_failures();
    let plan = pace.plan(CONCURRENCY);
    let mut rows = vec![
        server.row("exchange in the calm", &server.exchanges(key), &plan),
        server.row("refresh in the calm", &server.refreshes(CONCURRENCY), &plan),
    ];
    let calm: Vec<u64> = rows.iter().map(p99).collect();
    for (name, refused_wait) in [("in the storm", RETRY_AFTER), ("in the storm without mercy", Duration::ZERO)] {
        let mut stormy = under_storm(server, key, base, name, refused_wait, pace);
        for (row, calm) in stormy.iter_mut().zip(&calm) {
            row.ratios.push(("p99 of the calm".to_owned(), p99(row) as f64 / *calm as f64));
        }
        rows.extend(stormy);
    }
    rows
}

fn under_storm(server: &Server, key: &str, base: u64, name: &str, refused_wait: Duration, pace: Pace) -> Vec<Row> {
    // Those who refresh logged in before it began.
    let (exchanges, refreshes) = (server.exchanges(key), server.refreshes(CONCURRENCY));
    let calm_plan = pace.plan(CONCURRENCY);
    let each = calm_plan.warm_up + calm_plan.measure;
    let attempts = server.logins(true);
    let plan = Plan { concurrency: ATTEMPTS, warm_up: calm_plan.warm_up, measure: 2 * each, pause: refused_wait };
    let before = server.rss();
    let over = AtomicBool::new(false);
    let (mut rows, outcome, peak) = std::thread::scope(|scope| {
        let storm = scope.spawn(|| driver::run_blocking(&attempts, &plan).unwrap());
        let peak = scope.spawn(|| {
            let mut peak = before;
            while !over.load(Ordering::Relaxed) {
                peak = peak.max(server.rss());
                pause(Duration::from_millis(20));
            }
            peak
        });
        pause(plan.warm_up);
        let rows = vec![
            server.row(&format!("exchange {name}"), &exchanges, &calm_plan),
            server.row(&format!("refresh {name}"), &refreshes, &calm_plan),
        ];
        let outcome = storm.join().unwrap();
        over.store(true, Ordering::Relaxed);
        (rows, outcome, peak.join().unwrap())
    });
    let permits = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let allowed = base + permits * HASH_BYTES + ROOM;
    let retry = match refused_wait.as_secs() {
        0 => "refused clients come back at once".to_owned(),
        seconds => format!("refused clients come back after {seconds} s"),
    };
    let (before, peak, allowed) = (mib(before), mib(peak), mib(allowed));
    rows.push(Row {
        operation: format!("login {name}"),
        concurrency: ATTEMPTS,
        measured: Measured::Load(outcome),
        cost: None,
        ratios: Vec::new(),
        note: format!("{retry}; RSS of the server {before:.1} MiB before, {peak:.1} at most, {allowed:.1} allowed"),
    });
    rows
}

fn p99(row: &Row) -> u64 {
    match &row.measured {
        Measured::Load(outcome) => outcome.p99_us,
        Measured::Throughput { .. } => 0,
    }
}
