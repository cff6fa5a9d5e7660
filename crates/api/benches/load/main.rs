//! `make bench`: what a key-for-token exchange costs, against ceilings measured in the same run.
//!
//! Server, Postgres and driver share the machine's cores, so a figure says something only beside the others of its
//! run. Three ceilings: the same server answering a constant JSON; the same app framework doing lookup, MAC, claims
//! and signature without any record ("bare exchange"); and that work alone in a loop, without HTTP.
//!
//! `make bench ARGS="-- exchange"` measures only the operations that contain the word; `BENCH_QUICK=1` takes seconds
//! and is for trying it out.

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
mod report;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use driver::{Outcome, Plan, Target};
use report::{Cost, Machine, Measured, Report, Row, Usage};

const CONCURRENCIES: [usize; 3] = [1, 8, 64];

fn main() {
    // Cargo adds `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let is_wanted = |operation: &str| wanted.is_empty() || wanted.iter().any(|word| operation.contains(word.as_str()));
    let quick = std::env::var_os("BENCH_QUICK").is_some();
    let seconds = |full: u64| Duration::from_secs(if quick { 1 } else { full });
    let folder = tempfile::tempdir().unwrap();
    let mut notes = Vec::new();

    let fresh = Instant::now();
    let server = Server::start(folder.path());
    notes.push(format!("start to ready: {:.2} s with initdb, ", fresh.elapsed().as_secs_f64()));
    let key = server.make_key();
    let mut server = server.restarted(folder.path(), &mut notes);
    let idle = Usage::of(&[server.pid()]).unwrap();
    notes.push(format!("; idle RSS of the server: {:.1} MiB", mib(idle.rss_bytes)));

    let jwt = server.token(&key);
    let bare = bare::Bare::start();
    let address = server.address;
    let operations = [
        ("constant JSON", address, driver::request("GET", "/healthz", "bench", &[], None), 200),
        ("exchange", address, driver::request("POST", "/v1/authentications", "bench", &[("Authorization", &key)], None), 201),
        (
            "bare exchange",
            bare.address,
            driver::request("POST", "/v1/authentications", "bench", &[("Authorization", &bare.pair)], None),
            201,
        ),
        ("JWKS", address, driver::request("GET", "/t/bench/.well-known/jwks.json", "bench", &[], None), 200),
        ("/v1/me", address, driver::request("GET", "/v1/me", "bench", &[("Authorization", &format!("Bearer {jwt}"))], None), 200),
    ];
    let mut rows = Vec::new();
    for concurrency in CONCURRENCIES {
        for (operation, address, request, expect_status) in operations.iter().filter(|(operation, ..)| is_wanted(operation)) {
            let target = Target { address: *address, requests: vec![request.clone()], expect_status: *expect_status };
            let plan = Plan { concurrency, warm_up: seconds(2), measure: seconds(8) };
            let pids = report::family(server.pid()).unwrap();
            let before = Usage::of(&pids).unwrap();
            let outcome = driver::run_blocking(&target, &plan).unwrap();
            let after = Usage::of(&report::family(server.pid()).unwrap()).unwrap();
            let cost = (*address == server.address).then(|| Cost::between(&before, &after, outcome.answers));
            rows.push(row(operation, concurrency, outcome, cost));
        }
    }
    let in_process = bare::in_process(seconds(4));
    rows.push(Row {
        operation: "MAC + claims + signature, in process".into(),
        concurrency: 1,
        measured: Measured::Throughput { per_second: in_process },
        cost: None,
        ratios: Vec::new(),
        note: "one thread, no HTTP".into(),
    });
    add_ratios(&mut rows, in_process);
    server.stop();
    bare.stop();

    let date = Command::new("date").arg("-u").arg("+%Y-%m-%d").output().unwrap();
    let report = Report { date: String::from_utf8_lossy(&date.stdout).trim().to_owned(), machine: Machine::describe(), rows };
    println!("{}\n\n{}\n\n{}", report.table(), notes.concat(), report.json().unwrap());
}

fn row(operation: &str, concurrency: usize, outcome: Outcome, cost: Option<Cost>) -> Row {
    Row {
        operation: operation.into(),
        concurrency,
        measured: Measured::Load(outcome),
        cost,
        ratios: Vec::new(),
        note: String::new(),
    }
}

/// Every exchange against the three ceilings of its run.
fn add_ratios(rows: &mut [Row], in_process: f64) {
    let rate = |rows: &[Row], operation: &str, concurrency: usize| {
        rows.iter().find_map(|row| match &row.measured {
            Measured::Load(outcome) if row.operation == operation && row.concurrency == concurrency => Some(outcome.per_second),
            _ => None,
        })
    };
    for at in 0..rows.len() {
        let (operation, concurrency) = (rows[at].operation.clone(), rows[at].concurrency);
        let Some(own) = rate(rows, &operation, concurrency) else { continue };
        let mut ratios = Vec::new();
        if operation != "constant JSON" {
            ratios.extend(rate(rows, "constant JSON", concurrency).map(|ceiling| ("constant JSON".to_owned(), own / ceiling)));
        }
        if operation == "exchange" {
            ratios.extend(rate(rows, "bare exchange", concurrency).map(|ceiling| ("bare exchange".to_owned(), own / ceiling)));
            ratios.push(("in process".to_owned(), own / in_process));
        }
        rows[at].ratios = ratios;
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

/// The binary itself, with its private Postgres.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(data_dir: &std::path::Path) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = claviger(data_dir).args(["serve", "--listen", &address.to_string()]).stdout(Stdio::null()).spawn().unwrap();
        let server = Self { child, address };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !server.is_ready() {
            assert!(Instant::now() < deadline, "the server is not ready after a minute");
            pause();
        }
        server
    }

    fn is_ready(&self) -> bool {
        TcpStream::connect(self.address).is_ok() && self.get("/readyz", &[]).is_some_and(|(status, _)| status == 200)
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Option<(u16, String)> {
        self.send("GET", path, headers)
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Option<(u16, String)> {
        use std::io::{Read as _, Write as _};
        let mut stream = TcpStream::connect(self.address).ok()?;
        let headers: Vec<_> = headers.iter().copied().chain([("Connection", "close")]).collect();
        stream.write_all(&driver::request(method, path, "bench", &headers, None)).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let status = text.split(' ').nth(1)?.parse().ok()?;
        Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
    }

    /// A tenant with a key, made by the command line while the server runs; as `key:secret`.
    fn make_key(&self) -> String {
        let run = |data_dir: &str, args: &[&str]| {
            let output = claviger(std::path::Path::new(data_dir)).args(args).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        let data_dir = self.data_dir();
        run(&data_dir, &["tenant", "create", "bench"]);
        run(&data_dir, &["app", "create", "--tenant", "bench", "--name", "demo"]);
        let create = ["key", "create", "--tenant", "bench", "--app", "demo", "--scope", "events:read", "--output", "json"];
        let made: serde_json::Value = serde_json::from_slice(&run(&data_dir, &create)).unwrap();
        format!("{}:{}", made["api_key"].as_str().unwrap(), made["api_secret"].as_str().unwrap())
    }

    fn data_dir(&self) -> String {
        let line = std::fs::read(format!("/proc/{}/cmdline", self.pid())).unwrap();
        let words: Vec<_> = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let at = words.iter().position(|word| word == "--data-dir").unwrap();
        words[at + 1].clone()
    }

    /// Stopped and started again on the data it has, to time that.
    fn restarted(mut self, data_dir: &std::path::Path, notes: &mut Vec<String>) -> Self {
        self.stop();
        let again = Instant::now();
        let server = Self::start(data_dir);
        notes.push(format!("{:.2} s on an existing cluster", again.elapsed().as_secs_f64()));
        server
    }

    fn token(&self, key: &str) -> String {
        let (status, body) = self.send("POST", "/v1/authentications", &[("Authorization", key)]).unwrap();
        assert_eq!(status, 201, "{body}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        body["jwt"].as_str().unwrap().to_owned()
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn claviger(data_dir: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    command.env_remove("DATABASE_URL").env("CLAVIGER_LOG", "warn").arg("--data-dir").arg(data_dir);
    command
}

#[expect(clippy::disallowed_methods, reason = "this process waits for another and serves nobody meanwhile")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}
