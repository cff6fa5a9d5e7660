//! Tests of the load driver and its report. A bench target without a harness runs no `#[test]`, so this is a
//! test target of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "in a test a panic is the report, and the measurement prints its figures"
)]

mod driver;
mod report;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use driver::{
    Answer, Buffer, Histogram, Outcome, Plan, Requests, Target, read_answer, request, run, run_blocking, run_with_grace,
};
use report::{Cost, Machine, Measured, Report, Row, Usage, family};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

// The histogram

/// Microseconds from 1 to about 100 s, many of each size; the same in every run.
fn spread_values() -> Vec<u64> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let values = (0..50_000).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 37) >> (state % 27)
    });
    values.collect()
}

fn histogram_of(values: &[u64]) -> Histogram {
    let mut histogram = Histogram::default();
    for value in values {
        histogram.record(Duration::from_micros(*value));
    }
    histogram
}

#[test]
fn percentiles_are_those_of_the_sorted_values_within_one_percent() {
    let mut values = spread_values();
    let histogram = histogram_of(&values);
    values.sort_unstable();
    for percent in 1..=100 {
        let exact = values[values.len() * percent / 100 - 1];
        let found = histogram.percentile(percent as u64);
        assert!(found >= exact, "p{percent}: {found} flatters {exact}");
        assert!((found - exact) as f64 <= exact as f64 * 0.01, "p{percent}: {found} instead of {exact}");
    }
    assert_eq!(histogram.max(), *values.last().unwrap());
}

#[test]
fn small_latencies_are_exact_and_few_values_use_the_nearest_rank() {
    let histogram = histogram_of(&[255, 1, 17]);
    assert_eq!(histogram.percentile(33), 1);
    assert_eq!(histogram.percentile(34), 17);
    assert_eq!(histogram.percentile(50), 17);
    assert_eq!(histogram.percentile(99), 255);
}

#[test]
fn an_empty_histogram_says_zero_and_an_endless_latency_still_counts() {
    assert_eq!(Histogram::default().percentile(99), 0);
    let mut histogram = Histogram::default();
    histogram.record(Duration::MAX);
    assert_eq!(histogram.percentile(50), u64::from(u32::MAX));
}

#[test]
fn added_histograms_equal_one_of_all_values() {
    let values = spread_values();
    let (left, right) = values.split_at(20_000);
    let mut sum = histogram_of(left);
    sum.add(&histogram_of(right));
    let whole = histogram_of(&values);
    for percent in 1..=100 {
        assert_eq!(sum.percentile(percent), whole.percentile(percent));
    }
    assert_eq!(sum.max(), whole.max());
}

// Requests and answers

#[test]
fn a_request_is_written_as_http_1_1() {
    let headers = [("authorization", "key:secret")];
    assert_eq!(
        request("POST", "/v1/x", "localhost", &headers, Some("{\"é\":1}")),
        "POST /v1/x HTTP/1.1\r\nhost: localhost\r\nauthorization: key:secret\r\n\
         content-length: 8\r\n\r\n{\"é\":1}"
            .as_bytes()
    );
    assert_eq!(request("GET", "/", "localhost", &[], None), b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert!(request("POST", "/", "localhost", &[], None).ends_with(b"content-length: 0\r\n\r\n"));
}

/// Reads `count` answers from a stream that hands over at most `step` bytes at a time, then its end.
async fn read_in_steps(bytes: &[u8], step: usize, count: usize) -> io::Result<Vec<Answer>> {
    let (mut near, mut far) = tokio::io::duplex(step);
    let bytes = bytes.to_vec();
    let writer = tokio::spawn(async move {
        // The reader may give up early.
        let _ = far.write_all(&bytes).await;
    });
    let mut buffer = Buffer::new();
    let mut answers = Vec::new();
    for _ in 0..count {
        answers.push(read_answer(&mut near, &mut buffer, false).await?);
    }
    assert!(buffer.is_empty() || step > 1);
    drop(near);
    writer.await.unwrap();
    Ok(answers)
}

const KEPT: fn(u16) -> Answer = |status| Answer { status, close: false };
const CLOSED: fn(u16) -> Answer = |status| Answer { status, close: true };

#[tokio::test]
async fn answers_are_told_apart_however_the_reads_split() {
    let bytes = b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello\
        HTTP/1.1 100 Continue\r\n\r\n\
        HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5;note=1\r\nhe\r\no\r\nA\r\n0123456789\r\n\
        0\r\nTrailer: x\r\n\r\n\
        HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n\
        HTTP/1.1 204 No Content\r\n\r\n\
        HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n\
        HTTP/1.1 401 Unauthorized\r\nconnection: x, Close\r\ncontent-length: 0\r\n\r\n";
    let expected = [KEPT(201), KEPT(200), KEPT(200), KEPT(204), KEPT(304), CLOSED(401)];
    for step in [1, 2, 3, 7, 50, 4096] {
        let answers = read_in_steps(bytes, step, expected.len()).await.unwrap();
        assert_eq!(answers, expected, "{step} bytes at a time");
    }
}

#[tokio::test]
async fn bodies_may_exceed_the_buffer() {
    let body = "x".repeat(100_000);
    let sized = format!("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{body}");
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n186a0\r\n{body}\r\n0\r\n\r\n");
    let bytes = sized + &chunked;
    for step in [1, 1000, 300_000] {
        let answers = read_in_steps(bytes.as_bytes(), step, 2).await.unwrap();
        assert_eq!(answers, [KEPT(200), KEPT(200)]);
    }
}

#[tokio::test]
async fn a_body_without_a_length_ends_with_the_connection() {
    let bytes = b"HTTP/1.0 200 OK\r\n\r\nas much as there is";
    for step in [1, 4096] {
        assert_eq!(read_in_steps(bytes, step, 1).await.unwrap(), [CLOSED(200)]);
    }
}

#[tokio::test]
async fn the_answer_to_head_has_no_body() {
    let mut stream: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
    let mut buffer = Buffer::new();
    let answer = read_answer(&mut stream, &mut buffer, true).await.unwrap();
    assert_eq!(answer, KEPT(200));
    assert!(buffer.is_empty());
}

#[tokio::test]
async fn a_body_that_is_wanted_is_kept_whole_until_the_next_answer() {
    let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello\
        HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nbo\r\n3\r\ndy!\r\n0\r\n\r\n\
        HTTP/1.1 204 No Content\r\n\r\n\
        HTTP/1.1 200 OK\r\n\r\nuntil the end";
    for step in [1, 3, 4096] {
        let (mut near, mut far) = tokio::io::duplex(step);
        let writer = tokio::spawn(async move { far.write_all(bytes).await.unwrap() });
        let mut buffer = Buffer::keeping_bodies();
        for body in ["hello", "body!", "", "until the end"] {
            read_answer(&mut near, &mut buffer, false).await.unwrap();
            assert_eq!(buffer.body(), body.as_bytes(), "{step} bytes at a time");
        }
        writer.await.unwrap();
    }
    let mut buffer = Buffer::new();
    read_answer(&mut &bytes[..], &mut buffer, false).await.unwrap();
    assert_eq!(buffer.body(), b"");
}

#[tokio::test]
async fn broken_answers_are_errors() {
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(20_000));
    let broken: [&[u8]; 7] = [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nlonger\r\n0\r\n\r\n",
        endless.as_bytes(),
    ];
    for bytes in broken {
        for step in [1, 4096] {
            let answer = read_in_steps(bytes, step, 1).await;
            assert!(answer.is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }
}

// Runs against a small server

/// What the server does with the request of this number.
enum Reply {
    Say(&'static str),
    SayAndClose(&'static str),
    Hang,
    HangUp,
}

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
const BYE: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// A keep-alive server on a thread of its own, which ends with the test process.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    paths: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(reply: fn(usize) -> Reply) -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let server = Server {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            requests: Arc::default(),
            paths: Arc::default(),
        };
        let (connections, requests, paths) = (server.connections.clone(), server.requests.clone(), server.paths.clone());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    connections.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(serve(stream, requests.clone(), paths.clone(), reply));
                }
            });
        });
        server
    }

    fn target(&self) -> Target {
        Target {
            address: self.address,
            requests: Requests::InTurn(vec![request("GET", "/", "localhost", &[], None)]),
            expect_status: 200,
        }
    }
}

async fn serve(mut stream: TcpStream, requests: Arc<AtomicUsize>, paths: Arc<Mutex<Vec<String>>>, reply: fn(usize) -> Reply) {
    stream.set_nodelay(true).unwrap();
    let mut bytes = [0; 1024];
    let mut filled = 0;
    loop {
        match stream.read(&mut bytes[filled..]).await {
            Ok(count) if count > 0 => filled += count,
            _ => return,
        }
        if !bytes[..filled].ends_with(b"\r\n\r\n") {
            continue;
        }
        let path = String::from_utf8_lossy(&bytes[..filled]).split(' ').nth(1).unwrap_or_default().to_owned();
        paths.lock().unwrap().push(path);
        filled = 0;
        let number = requests.fetch_add(1, Ordering::Relaxed);
        let (text, close) = match reply(number) {
            Reply::Say(text) => (text, false),
            Reply::SayAndClose(text) => (text, true),
            Reply::Hang => std::future::pending().await,
            Reply::HangUp => return,
        };
        if stream.write_all(text.as_bytes()).await.is_err() || close {
            return;
        }
    }
}

fn short_plan(concurrency: usize) -> Plan {
    Plan { concurrency, warm_up: Duration::from_millis(20), measure: Duration::from_millis(200), pause: Duration::ZERO }
}

#[test]
fn every_answer_of_a_run_is_counted() {
    let server = Server::start(|_| Reply::Say(HELLO));
    let outcome = run_blocking(&server.target(), &short_plan(4)).unwrap();
    assert_eq!(outcome.errors, 0);
    assert_eq!(outcome.unexpected, BTreeMap::new());
    assert!(outcome.requests > 0);
    assert_eq!(outcome.answers, server.requests.load(Ordering::Relaxed) as u64);
    // Each connection's last answer comes when the measurement is over.
    assert!(outcome.answers >= outcome.requests + 4);
    assert_eq!(server.connections.load(Ordering::Relaxed), 4);
    assert_eq!(outcome.seconds, 0.2);
    assert_eq!(outcome.per_second, outcome.requests as f64 / 0.2);
    assert!(outcome.p50_us <= outcome.p90_us);
    assert!(outcome.p90_us <= outcome.p99_us);
    assert!(outcome.p99_us <= outcome.max_us);
}

#[tokio::test]
async fn a_closed_connection_is_replaced_without_an_error() {
    let server = Server::start(|number| match number % 3 {
        2 => Reply::SayAndClose(BYE),
        _ => Reply::Say(HELLO),
    });
    let outcome = run(&server.target(), &short_plan(1)).await;
    assert_eq!(outcome.errors, 0);
    assert_eq!(outcome.unexpected, BTreeMap::new());
    assert!(outcome.answers > 3);
    assert_eq!(server.connections.load(Ordering::Relaxed) as u64, outcome.answers.div_ceil(3));
}

#[test]
fn other_statuses_are_reported_and_not_counted_as_speed() {
    let server = Server::start(|_| Reply::Say(BUSY));
    let outcome = run_blocking(&server.target(), &short_plan(2)).unwrap();
    assert_eq!(outcome.requests, 0);
    assert_eq!(outcome.max_us, 0);
    assert_eq!(outcome.errors, 0);
    assert_eq!(outcome.unexpected, BTreeMap::from([(503, outcome.answers)]));
}

#[test]
fn a_connection_lost_before_its_answer_is_an_error() {
    let server = Server::start(|number| match number {
        5 => Reply::HangUp,
        _ => Reply::Say(HELLO),
    });
    let outcome = run_blocking(&server.target(), &short_plan(1)).unwrap();
    assert_eq!(outcome.errors, 1);
    assert!(outcome.requests > 0);
    assert_eq!(server.connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_server_that_never_answers_does_not_hold_up_the_run() {
    let server = Server::start(|_| Reply::Hang);
    let outcome = run_with_grace(&server.target(), &short_plan(3), Duration::ZERO).await;
    assert_eq!((outcome.answers, outcome.errors), (0, 3));
}

#[test]
fn a_refused_connection_is_an_error() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target {
        address: free.local_addr().unwrap(),
        requests: Requests::InTurn(vec![request("GET", "/", "localhost", &[], None)]),
        expect_status: 200,
    };
    drop(free);
    let outcome = run_blocking(&target, &short_plan(1)).unwrap();
    assert_eq!(outcome.answers, 0);
    assert!(outcome.errors > 0);
}

#[test]
fn bytes_after_the_answer_are_an_error() {
    let server = Server::start(|_| Reply::Say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nand more"));
    let outcome = run_blocking(&server.target(), &short_plan(1)).unwrap();
    assert_eq!(outcome.answers, 0);
    assert!(outcome.errors > 0);
}

#[test]
fn requests_are_sent_in_turn() {
    // Every second answer announces a body that never comes, which only a HEAD survives.
    let server = Server::start(|number| match number % 2 {
        0 => Reply::Say(HELLO),
        _ => Reply::Say("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"),
    });
    let target = Target {
        requests: Requests::InTurn(vec![
            request("GET", "/", "localhost", &[], None),
            request("HEAD", "/", "localhost", &[], None),
        ]),
        ..server.target()
    };
    let outcome = run_blocking(&target, &short_plan(1)).unwrap();
    assert_eq!(outcome.errors, 0);
    assert!(outcome.answers > 1);
}

/// The request for the path that the answer names.
fn follow(body: &[u8]) -> Option<Vec<u8>> {
    let path = std::str::from_utf8(body).ok()?.strip_prefix("go to ")?;
    Some(request("GET", path, "localhost", &[], None))
}

#[test]
fn a_chain_follows_its_own_answers() {
    let server = Server::start(|number| match number {
        // Asked again after an answer that is not good.
        3 => Reply::Say(BUSY),
        _ => Reply::Say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\ngo to /abc"),
    });
    let first = vec![request("GET", "/", "localhost", &[], None)];
    let target = Target { requests: Requests::Chained { first, next: follow }, ..server.target() };
    // The second connection has no beginning.
    let outcome = run_blocking(&target, &short_plan(2)).unwrap();
    assert_eq!(outcome.errors, 0);
    assert_eq!(outcome.unexpected, BTreeMap::from([(503, 1)]));
    assert!(outcome.requests > 4);
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    let paths = server.paths.lock().unwrap();
    assert_eq!(paths[0], "/");
    assert!(paths.len() > 4 && paths[1..].iter().all(|path| path == "/abc"), "{:?}", &paths[..5]);
}

#[test]
fn a_good_answer_that_leads_nowhere_ends_its_chain() {
    let server = Server::start(|_| Reply::Say(HELLO));
    let first = vec![request("GET", "/", "localhost", &[], None); 2];
    let target = Target { requests: Requests::Chained { first, next: follow }, ..server.target() };
    let outcome = run_blocking(&target, &short_plan(2)).unwrap();
    assert_eq!((outcome.answers, outcome.errors), (2, 2));
}

#[test]
fn whoever_was_refused_may_be_told_to_wait() {
    let server = Server::start(|_| Reply::Say(BUSY));
    let plan = Plan { pause: Duration::from_millis(50), ..short_plan(1) };
    let outcome = run_blocking(&server.target(), &plan).unwrap();
    assert_eq!(outcome.errors, 0);
    assert!((2..=5).contains(&outcome.answers), "{}", outcome.answers);
}

#[tokio::test]
async fn without_requests_nothing_happens() {
    let server = Server::start(|_| Reply::Say(HELLO));
    let target = Target { requests: Requests::InTurn(Vec::new()), ..server.target() };
    let outcome = run(&target, &short_plan(2)).await;
    assert_eq!((outcome.answers, outcome.errors), (0, 0));
    assert_eq!(outcome.per_second, 0.0);
}

fn measure_and_print(concurrency: usize) {
    let server = Server::start(|_| Reply::Say(HELLO));
    let plan = Plan { concurrency, warm_up: Duration::from_secs(1), measure: Duration::from_secs(4), pause: Duration::ZERO };
    let before = own_thread_cpu();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(run(&server.target(), &plan));
    let spent = own_thread_cpu() - before;
    println!(
        "concurrency {concurrency}: {:.0} requests/s, p50 {} us, p99 {} us, max {} us, {} errors; \
         the driver used {:.2} us of CPU per request",
        outcome.per_second,
        outcome.p50_us,
        outcome.p99_us,
        outcome.max_us,
        outcome.errors,
        spent.as_secs_f64() * 1e6 / outcome.answers as f64,
    );
    assert_eq!(outcome.errors, 0);
}

/// CPU time of this thread: the first number of schedstat, nanoseconds.
fn own_thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

#[test]
#[ignore = "a measurement of the driver itself: run it alone, with --release and --nocapture"]
fn the_driver_alone() {
    for concurrency in [1, 8, 64] {
        measure_and_print(concurrency);
    }
}

// The report

fn outcome() -> Outcome {
    Outcome {
        requests: 24_690,
        answers: 30_000,
        errors: 3,
        unexpected: BTreeMap::from([(429, 12), (503, 1)]),
        seconds: 2.0,
        per_second: 12_345.0,
        p50_us: 640,
        p90_us: 900,
        p99_us: 12_340,
        max_us: 250_000,
    }
}

fn report() -> Report {
    Report {
        date: "2031-02-03".to_owned(),
        machine: Machine { cpu: "Some CPU".to_owned(), cores: 2, kernel: "6.1.0".to_owned() },
        rows: vec![
            Row {
                operation: "exchange a key".to_owned(),
                concurrency: 64,
                measured: Measured::Load(outcome()),
                cost: Some(Cost { cpu_us_per_request: 81.25, rss_mib: 123.4 }),
                ratios: vec![("an empty route".to_owned(), 0.5), ("signing".to_owned(), 1.256)],
                note: "a|b".to_owned(),
            },
            Row {
                operation: "sign".to_owned(),
                concurrency: 1,
                measured: Measured::Throughput { per_second: 42.0 },
                cost: None,
                ratios: Vec::new(),
                note: String::new(),
            },
        ],
    }
}

#[test]
fn the_table_is_aligned_markdown() {
    let table = report().table();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines,
        [
            "2031-02-03: Some CPU, 2 cores, Linux 6.1.0",
            "",
            "| operation      | concurrency | per second | p50 ms | p99 ms | CPU µs/request | RSS MiB | ratios                              | unexpected                | note |",
            "| -------------- | ----------: | ---------: | -----: | -----: | -------------: | ------: | ----------------------------------- | ------------------------- | ---- |",
            "| exchange a key |          64 |      12345 |  0.640 |  12.34 |           81.2 |     123 | 0.50x an empty route, 1.26x signing | 12x 429, 1x 503, 3 errors | a\\|b |",
            "| sign           |           1 |       42.0 |        |        |                |         |                                     |                           |      |",
        ]
    );
}

#[test]
fn a_run_without_a_good_answer_shows_no_latency() {
    let mut report = report();
    report.rows.truncate(1);
    report.rows[0].measured =
        Measured::Load(Outcome { requests: 0, per_second: 0.0, p50_us: 0, p90_us: 0, p99_us: 0, max_us: 0, ..outcome() });
    let table = report.table();
    assert!(table.contains("|          64 |        0.0 |        |        |"), "{table}");
}

#[test]
fn the_json_holds_everything() {
    let json: serde_json::Value = serde_json::from_str(&report().json().unwrap()).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "date": "2031-02-03",
            "machine": { "cpu": "Some CPU", "cores": 2, "kernel": "6.1.0" },
            "rows": [
                {
                    "operation": "exchange a key",
                    "concurrency": 64,
                    "measured": { "load": {
                        "requests": 24_690,
                        "answers": 30_000,
                        "errors": 3,
                        "unexpected": { "429": 12, "503": 1 },
                        "seconds": 2.0,
                        "per_second": 12_345.0,
                        "p50_us": 640,
                        "p90_us": 900,
                        "p99_us": 12_340,
                        "max_us": 250_000,
                    } },
                    "cost": { "cpu_us_per_request": 81.25, "rss_mib": 123.4 },
                    "ratios": { "an empty route": 0.5, "signing": 1.256 },
                    "note": "a|b",
                },
                {
                    "operation": "sign",
                    "concurrency": 1,
                    "measured": { "throughput": { "per_second": 42.0 } },
                    "cost": null,
                    "ratios": {},
                    "note": "",
                },
            ],
        })
    );
}

#[test]
fn this_machine_is_described() {
    let machine = Machine::describe();
    assert!(machine.cores >= 1);
    assert!(!machine.cpu.is_empty());
    assert_ne!(machine.kernel, "unknown");
    assert!(!machine.kernel.contains('\n'));
}

#[test]
fn cost_is_the_difference_spread_over_the_answers() {
    let usage = |millis, rss_bytes| Usage { cpu: Duration::from_millis(millis), rss_bytes };
    let cost = Cost::between(&usage(1_000, 0), &usage(3_000, 64 * 1024 * 1024), 10_000);
    assert_eq!(cost.cpu_us_per_request, 200.0);
    assert_eq!(cost.rss_mib, 64.0);
}

#[test]
fn this_process_is_measured_with_its_children() {
    let own = std::process::id();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let members = family(own).unwrap();
    let both = Usage::of(&[own, child.id()]).unwrap();
    child.kill().unwrap();
    // Dead but not reaped, then gone: neither disturbs the sum.
    let with_dead = Usage::of(&[own, child.id()]);
    child.wait().unwrap();
    let alone = Usage::of(&[own, child.id()]).unwrap();

    assert_eq!(members[0], own);
    assert!(members.contains(&child.id()));
    assert!(!members.contains(&1));
    assert!(both.rss_bytes > 0 && alone.rss_bytes > 0);
    assert!(with_dead.is_ok());
    assert!(alone.cpu >= both.cpu);
    assert!(Usage::of(&[child.id()]).is_err());
}
