//! `make torture`: proves that refresh-token rotation loses nothing under faults. See docs/torture.md.
//!
//! ```text
//!   clients ──► fault proxies ──► three servers ─────────────────────► Postgres
//!                             └─► one server ──► database proxy ──┘
//!      └──────────────► history ──► checker ◄── tables ◄──────────────┘
//! ```

mod account;
mod checker;
mod client;
mod cluster;
mod database_proxy;
mod history;
mod http;
mod keys;
mod load;
mod parts;
mod plan;
mod process;
mod proxy;
mod report;
mod revocations;
mod server;
mod tables;
mod wire;
mod world;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use serde_json::json;
use sqlx::Connection as _;
use tokio::signal::unix::{SignalKind, signal};

use history::History;
use parts::Done;
use plan::{Part, Sizes};
use report::Report;
use world::World;

/// Proves that refresh-token rotation loses nothing under faults
#[derive(Debug, Parser)]
struct Args {
    /// Repeats the plan of an earlier run
    #[arg(long)]
    seed: Option<u64>,
    /// A minute instead of ten
    #[arg(long)]
    short: bool,
    /// Signing keys follow each other under faults (T06), instead of refresh tokens
    #[arg(long, conflicts_with = "only")]
    keys: bool,
    /// With --keys: measures instead how long after a revocation 200 verifiers refuse (T24)
    #[arg(long, requires = "keys")]
    revocations: bool,
    /// This part alone; may be given again
    #[arg(long, value_enum, ignore_case = true, value_name = "PART")]
    only: Vec<Part>,
    /// The server under torture [default: the claviger beside this program]
    #[arg(long, value_name = "FILE")]
    claviger: Option<PathBuf>,
    /// Where histories and logs are kept [default: torture beside the folder of this program]
    #[arg(long, value_name = "FOLDER")]
    log: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("torture: {error:#}\nFAIL"));
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> anyhow::Result<bool> {
    let program = std::env::current_exe()?;
    let beside = program.parent().context("this program is nowhere")?;
    let claviger = args.claviger.clone().unwrap_or_else(|| beside.join("claviger"));
    if !claviger.is_file() {
        bail!("there is no {}: build it first (make torture does)", claviger.display());
    }
    let log = args.log.clone().unwrap_or_else(|| beside.with_file_name("torture"));
    let seed = args.seed.unwrap_or_else(any_seed);
    if args.keys {
        return torture_keys(args, &claviger, &log, seed);
    }
    let sizes = if args.short { Sizes::short() } else { Sizes::full() };
    say(&format!("seed {seed}; to repeat it: make torture ARGS=\"--seed {seed}{}\"", if args.short { " --short" } else { "" }));

    let kept = Kept { history: Arc::new(History::new()), path: log.join(format!("{seed}.jsonl")), seed, sizes: sizes.clone() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // Whichever comes first, all that was started ends with the future that started it.
        tokio::select! {
            report = torture(args, &claviger, &log, seed, &sizes, kept.history.clone()) => report,
            _ = terminate.recv() => bail!("terminated"),
            _ = interrupt.recv() => bail!("interrupted"),
            () = tokio::time::sleep(sizes.deadline) => bail!("not at an end after {:?}: something hangs", sizes.deadline),
        }
    })?;
    let verdict = if report.passed() { "PASS" } else { "FAIL" };
    say(&format!("\n{}\nseed {seed}, every call in {}\n{verdict}", report.text(), kept.path.display()));
    Ok(report.passed())
}

fn torture_keys(args: &Args, claviger: &Path, log: &Path, seed: u64) -> anyhow::Result<bool> {
    let sizes = keys::Sizes::new(args.short);
    let more = [(args.short, " --short"), (args.revocations, " --revocations")];
    let more: String = more.into_iter().filter_map(|(given, word)| given.then_some(word)).collect();
    say(&format!("seed {seed}; to repeat it: make torture-keys ARGS=\"--seed {seed}{more}\""));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (text, passed) = runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let work = async {
            match args.revocations {
                true => revocations::measure(claviger, log, seed, if args.short { 100 } else { 1_000 }).await,
                false => keys::torture(claviger, log, seed, sizes).await,
            }
        };
        tokio::select! {
            found = work => found,
            _ = terminate.recv() => bail!("terminated"),
            _ = interrupt.recv() => bail!("interrupted"),
            () = tokio::time::sleep(sizes.deadline()) => bail!("not at an end after {:?}: something hangs", sizes.deadline()),
        }
    })?;
    say(&format!("\n{text}seed {seed}\n{}", if passed { "PASS" } else { "FAIL" }));
    Ok(passed)
}

async fn torture(
    args: &Args,
    claviger: &Path,
    log: &Path,
    seed: u64,
    sizes: &Sizes,
    history: Arc<History>,
) -> anyhow::Result<Report> {
    let began = Instant::now();
    let mut world = World::start(claviger, log, seed, history.clone()).await?;
    say(&format!("Postgres, {} servers, tenants and people after {:.1?}", world.servers.len(), began.elapsed()));
    let mut done: BTreeMap<Part, Done> = BTreeMap::new();
    for part in Part::ALL.into_iter().filter(|part| args.only.is_empty() || args.only.contains(part)) {
        let began = Instant::now();
        match parts::run(part, &mut world, sizes, seed).await {
            Ok(outcome) => {
                say(&format!("{part} {}: {} faults in {:.1?}", part.title(), outcome.faults, began.elapsed()));
                done.insert(part, outcome);
            }
            Err(error) => {
                // Clients were stopped half-way: what they saw can be judged, how they stand cannot be compared.
                let (families, calls) = (history.families(), history.calls());
                let anomalies = checker::judge(&families, &calls);
                done.insert(part, Done::default());
                let problems = vec![format!("{part} was given up: {error:#}")];
                return Ok(Report { done, counts: checker::count(&families, &calls), anomalies, problems });
            }
        }
    }

    let mut problems: Vec<String> = world.servers.iter().flat_map(|server| server.confessions()).collect();
    if let Err(error) = world.program.run(&["audit", "verify"], "") {
        problems.push(format!("the audit trail is not whole: {error}"));
    }
    // What nobody waits for any more comes to its end before the tables are read.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut superuser = world.cluster.superuser("claviger").await?;
    let rows = tables::families(&mut superuser).await?;
    superuser.close().await?;
    let (families, calls) = (history.families(), history.calls());
    let mut anomalies = checker::judge(&families, &calls);
    anomalies.extend(checker::compare(&families, &calls, &rows));
    Ok(Report { done, counts: checker::count(&families, &calls), anomalies, problems })
}

/// The history, written to its file when the run ends, however it ends.
struct Kept {
    history: Arc<History>,
    path: PathBuf,
    seed: u64,
    sizes: Sizes,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let run = json!({ "seed": self.seed, "sizes": self.sizes });
        if let Err(error) = self.history.write(&self.path, &run) {
            say(&format!("torture: cannot write {}: {error}", self.path.display()));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "where no seed was given, any will do; it is printed")]
fn any_seed() -> u64 {
    u64::from(rand::random::<u32>())
}

/// A line for whoever watches. Nobody may.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}
