//! `make bench`: what exchanges, logins, refreshes and questions about callers cost, against ceilings measured in the same run.
//!
//! Server, Postgres and driver share the machine's cores, so a figure says something only beside the others of its
//! run. The ceilings: the same server answering a constant JSON; the same app framework doing lookup, MAC, claims
//! and signature without any record ("bare exchange"), and that work alone in a loop, without HTTP; argon2id alone on
//! all cores; one durable statement of Postgres for each rotation; nginx that asks nobody.
//!
//! `make bench ARGS="-- exchange"` measures only the operations that contain the word; `login`, `refresh`, `verify`,
//! `forward-auth` and `storm` are such words too. `BENCH_QUICK=1` takes seconds and is for trying it out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a measurement that cannot be taken ends with the reason, and its result is its output"
)]

mod bare;
mod driver;
mod login;
mod nginx;
mod refresh;
mod report;
mod rotation;
mod server;
mod storm;
mod verify;

use std::process::Command;
use std::time::{Duration, Instant};

use driver::{Plan, Requests, Target};
use report::{Machine, Measured, Report, Row};
use server::Server;

const CONCURRENCIES: [usize; 3] = [1, 8, 64];
const IN_PROCESS: &str = "MAC + claims + signature, in process";

/// How long each measurement takes.
#[derive(Clone, Copy)]
struct Pace {
    quick: bool,
}

impl Pace {
    fn seconds(self, full: u64) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { full })
    }

    fn plan(self, concurrency: usize) -> Plan {
        Plan { concurrency, warm_up: self.seconds(2), measure: self.seconds(8), pause: Duration::ZERO }
    }
}

fn main() {
    // Cargo adds `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let is_wanted = |operation: &str| wanted.is_empty() || wanted.iter().any(|word| operation.contains(word.as_str()));
    let pace = Pace { quick: std::env::var_os("BENCH_QUICK").is_some() };
    let folder = tempfile::tempdir().unwrap();
    let mut notes = Vec::new();

    let fresh = Instant::now();
    let server = Server::start(folder.path());
    notes.push(format!("start to ready: {:.2} s with initdb, ", fresh.elapsed().as_secs_f64()));
    let key = server.furnish();
    let mut server = server.restarted(&mut notes);
    let idle = server.rss();
    notes.push(format!("; idle RSS of the server: {:.1} MiB", mib(idle)));

    let mut rows = answers(&server, &key, pace, &is_wanted);
    rows.extend(verify::measure(&server, &key, pace, &is_wanted, &mut notes));
    if is_wanted("login") {
        rows.extend(login::measure(&server, pace));
    }
    if is_wanted("refresh") {
        rows.extend(refresh::measure(&server, pace));
    }
    if is_wanted("storm") {
        rows.extend(storm::measure(&server, &key, idle, pace));
    }
    server.stop();

    let date = Command::new("date").arg("-u").arg("+%Y-%m-%d").output().unwrap();
    let report = Report { date: String::from_utf8_lossy(&date.stdout).trim().to_owned(), machine: Machine::describe(), rows };
    println!("{}\n\n{}\n\n{}", report.table(), notes.concat(), report.json().unwrap());
}

/// Exchanges and what only reads, against their ceilings.
fn answers(server: &Server, key: &str, pace: Pace, is_wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    let jwt = server.token(key);
    let bare = bare::Bare::start();
    let get = |path: &str, headers: &[(&str, &str)]| Target {
        requests: Requests::InTurn(vec![driver::request("GET", path, "bench", headers, None)]),
        ..server.constant()
    };
    let operations = [
        ("constant JSON", server.constant()),
        ("exchange", server.exchanges(key)),
        ("bare exchange", Target { address: bare.address, ..server.exchanges(&bare.pair) }),
        ("JWKS", get("/t/bench/.well-known/jwks.json", &[])),
        ("/v1/me", get("/v1/me", &[("Authorization", &format!("Bearer {jwt}"))])),
    ];
    let mut rows = Vec::new();
    for concurrency in CONCURRENCIES {
        for (operation, target) in operations.iter().filter(|(operation, _)| is_wanted(operation)) {
            rows.push(server.row(operation, target, &pace.plan(concurrency)));
        }
    }
    if is_wanted("exchange") {
        let in_process = bare::in_process(pace.seconds(4));
        rows.push(rate_row(IN_PROCESS, 1, in_process, "one thread, no HTTP"));
    }
    add_ratios(&mut rows);
    bare.stop();
    rows
}

/// Work that is not requests.
fn rate_row(operation: &str, concurrency: usize, per_second: f64, note: &str) -> Row {
    Row {
        operation: operation.into(),
        concurrency,
        measured: Measured::Throughput { per_second },
        cost: None,
        ratios: Vec::new(),
        note: note.into(),
    }
}

/// Good answers, or whatever else was counted, in a second.
fn rate(row: &Row) -> f64 {
    match &row.measured {
        Measured::Load(outcome) => outcome.per_second,
        Measured::Throughput { per_second } => *per_second,
    }
}

/// Every operation against the ceilings of its run.
fn add_ratios(rows: &mut [Row]) {
    let find = |rows: &[Row], operation: &str, concurrency: usize| {
        rows.iter().find(|row| row.operation == operation && row.concurrency == concurrency).map(rate)
    };
    for at in 0..rows.len() {
        if matches!(rows[at].measured, Measured::Throughput { .. }) {
            continue;
        }
        let (operation, concurrency, own) = (rows[at].operation.clone(), rows[at].concurrency, rate(&rows[at]));
        let mut ratios = Vec::new();
        if operation != "constant JSON" {
            ratios.extend(find(rows, "constant JSON", concurrency).map(|ceiling| ("constant JSON".to_owned(), own / ceiling)));
        }
        if operation == "exchange" {
            ratios.extend(find(rows, "bare exchange", concurrency).map(|ceiling| ("bare exchange".to_owned(), own / ceiling)));
            ratios.extend(find(rows, IN_PROCESS, 1).map(|ceiling| ("in process".to_owned(), own / ceiling)));
        }
        if operation.starts_with("nginx, ") {
            ratios.extend(find(rows, nginx::ALONE, concurrency).map(|ceiling| (nginx::ALONE.to_owned(), own / ceiling)));
        }
        rows[at].ratios = ratios;
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
