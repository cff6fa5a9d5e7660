//! Keeps a fixed number of HTTP/1.1 connections busy for a while and says how fast the answers came.
//!
//! The loop is closed: every connection sends its next request as soon as it has read the last answer.
//! Server, database and driver share the same cores, so a request must cost the driver next to nothing:
//! its bytes are built beforehand, its answer is read into a buffer that lives as long as the
//! connection, and the clock is read once per request (the end of one is the beginning of the next).

mod histogram;
mod response;

pub(crate) use histogram::Histogram;
pub(crate) use response::{Answer, Buffer, read_answer};

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout_at};

/// How long a request that is under way when the measurement ends may still take.
const GRACE: Duration = Duration::from_secs(10);

/// Pause after a refused connection, so that a dead server is not hammered.
const RECONNECT_PAUSE: Duration = Duration::from_millis(10);

/// Where to send what, and the answer that counts.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The listening socket.
    pub(crate) address: SocketAddr,
    /// What to send.
    pub(crate) requests: Requests,
    /// The status of a good answer. Only good answers count: a quick refusal must not look like speed.
    pub(crate) expect_status: u16,
}

/// Whole requests, see [`request`].
#[derive(Debug, Clone)]
pub(crate) enum Requests {
    /// All connections together take them in order and begin anew after the last: none is sent twice before each was
    /// sent once.
    InTurn(Vec<Vec<u8>>),
    /// Each connection has a chain of its own.
    Chained {
        /// What each begins with. A connection without a beginning sends nothing.
        first: Vec<Vec<u8>>,
        /// Makes the next request of a good answer's body. After any other answer the same request is sent again.
        next: fn(&[u8]) -> Option<Vec<u8>>,
    },
}

/// How hard and how long to press.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Connections, each with one request under way.
    pub(crate) concurrency: usize,
    /// Load before the measurement begins.
    pub(crate) warm_up: Duration,
    /// Length of the measurement.
    pub(crate) measure: Duration,
    /// How long a connection waits after an answer that was not good.
    pub(crate) pause: Duration,
}

/// What one run showed.
///
/// Throughput counts the good answers that arrived within the measurement. Latencies also include the
/// good answers still awaited at its end: leaving them out would hide the slowest. The time of a request
/// begins with the end of the one before, so a reconnection is part of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    /// Good answers within the measurement.
    pub(crate) requests: u64,
    /// All answers, good or not, the warm-up's too: what resources used around the run are divided by.
    pub(crate) answers: u64,
    /// Connections refused, broken or left without an answer, the warm-up's too.
    pub(crate) errors: u64,
    /// Answers with another status than the expected one, by status, the warm-up's too.
    pub(crate) unexpected: BTreeMap<u16, u64>,
    /// Length of the measurement, seconds.
    pub(crate) seconds: f64,
    /// Good answers per second.
    pub(crate) per_second: f64,
    /// Median latency, microseconds.
    pub(crate) p50_us: u64,
    /// 90th percentile of the latency, microseconds.
    pub(crate) p90_us: u64,
    /// 99th percentile of the latency, microseconds.
    pub(crate) p99_us: u64,
    /// Longest latency, microseconds.
    pub(crate) max_us: u64,
}

/// One request as bytes. A body brings its `content-length`; a method that usually carries one says 0
/// without (RFC 9110 §8.6). Values are written as they are given.
pub(crate) fn request(method: &str, path: &str, host: &str, headers: &[(&str, &str)], body: Option<&str>) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if body.is_some() || matches!(method, "POST" | "PUT" | "PATCH") {
        let length = body.map_or(0, str::len);
        text.push_str(&format!("content-length: {length}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body.unwrap_or_default());
    text.into_bytes()
}

/// [`run`] on a thread and a single-threaded runtime of its own; blocks until the run is over.
///
/// # Errors
/// The thread or its runtime cannot be had.
pub(crate) fn run_blocking(target: &Target, plan: &Plan) -> io::Result<Outcome> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("load".to_owned())
            .spawn_scoped(scope, || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
                Ok(runtime.block_on(run(target, plan)))
            })?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the load thread panicked")))
    })
}

/// Drives the load on the current runtime. Without requests there is nothing to do and nothing is counted.
///
/// Ends at the latest ten seconds after the measurement; a request unanswered by then is an error.
pub(crate) async fn run(target: &Target, plan: &Plan) -> Outcome {
    run_with_grace(target, plan, GRACE).await
}

/// [`run`] with another wait for the last answers than ten seconds.
pub(crate) async fn run_with_grace(target: &Target, plan: &Plan, grace: Duration) -> Outcome {
    // Connections live in tasks, so the requests are shared; copied once, before the clock starts.
    let shared = Arc::new(Shared { target: target.clone(), pause: plan.pause, next: AtomicUsize::new(0) });
    let from = Instant::now() + plan.warm_up;
    let until = from + plan.measure;
    let window = Window { from, until, latest: until + grace };
    let mut connections = JoinSet::new();
    for number in 0..plan.concurrency {
        connections.spawn(keep_busy(Arc::clone(&shared), number, window));
    }
    let mut total = Tally::default();
    while let Some(ended) = connections.join_next().await {
        match ended {
            Ok(tally) => total.add(&tally),
            Err(_) => total.errors += 1,
        }
    }
    total.outcome(plan.measure)
}

/// The measurement, and when to stop waiting for what it left under way.
#[derive(Clone, Copy)]
struct Window {
    from: Instant,
    until: Instant,
    latest: Instant,
}

/// What the connections of one run have in common.
struct Shared {
    target: Target,
    pause: Duration,
    next: AtomicUsize,
}

impl Shared {
    /// What a connection sends first, if that is its own business.
    fn first_request(&self, number: usize) -> Option<Vec<u8>> {
        match &self.target.requests {
            Requests::InTurn(_) => None,
            Requests::Chained { first, .. } => first.get(number).cloned(),
        }
    }

    fn next_request(&self) -> Option<&[u8]> {
        let Requests::InTurn(requests) = &self.target.requests else { return None };
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let position = turn.checked_rem(requests.len())?;
        requests.get(position).map(Vec::as_slice)
    }
}

async fn keep_busy(shared: Arc<Shared>, number: usize, window: Window) -> Tally {
    let mut tally = Tally::default();
    // One timer for the whole life of the connection instead of one per request.
    if timeout_at(window.latest.into(), exchange_until_end(&shared, number, window, &mut tally)).await.is_err() {
        tally.errors += 1;
    }
    tally
}

async fn exchange_until_end(shared: &Shared, number: usize, window: Window, tally: &mut Tally) {
    let Target { address, requests, expect_status } = &shared.target;
    let next = match requests {
        Requests::InTurn(_) => None,
        Requests::Chained { next, .. } => Some(next),
    };
    let mut buffer = next.map_or_else(Buffer::new, |_| Buffer::keeping_bodies());
    let mut own = shared.first_request(number);
    let mut connection = None;
    let mut started = Instant::now();
    while started < window.until {
        let Some(request) = own.as_deref().or_else(|| shared.next_request()) else {
            return;
        };
        let answer = exchange(&mut connection, *address, &mut buffer, request).await;
        let mut now = Instant::now();
        match answer {
            Ok(answer) => {
                tally.note(answer, *expect_status, started, now, window);
                if answer.close {
                    connection = None;
                }
                if answer.status != *expect_status {
                    if !shared.pause.is_zero() {
                        sleep(shared.pause).await;
                        now = Instant::now();
                    }
                } else if let Some(next) = next {
                    own = next(buffer.body());
                    if own.is_none() {
                        // A good answer that leads nowhere.
                        tally.errors += 1;
                        return;
                    }
                }
            }
            Err(_) => {
                tally.errors += 1;
                let refused = connection.take().is_none();
                if refused {
                    sleep(RECONNECT_PAUSE).await;
                }
            }
        }
        started = now;
    }
}

/// One request and its answer, on the open connection or, where there is none, on a new one.
async fn exchange(
    connection: &mut Option<TcpStream>,
    address: SocketAddr,
    buffer: &mut Buffer,
    request: &[u8],
) -> io::Result<Answer> {
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            buffer.clear();
            connection.insert(stream)
        }
    };
    stream.write_all(request).await?;
    let answer = read_answer(stream, buffer, request.starts_with(b"HEAD ")).await?;
    if buffer.is_empty() {
        Ok(answer)
    } else {
        // One request is under way at a time: more bytes mean that the two sides disagree.
        Err(io::Error::new(io::ErrorKind::InvalidData, "bytes after the answer"))
    }
}

/// The counts of one connection, then of all.
#[derive(Default)]
struct Tally {
    requests: u64,
    answers: u64,
    errors: u64,
    unexpected: BTreeMap<u16, u64>,
    latencies: Histogram,
}

impl Tally {
    fn note(&mut self, answer: Answer, expected: u16, started: Instant, now: Instant, window: Window) {
        self.answers += 1;
        if answer.status != expected {
            *self.unexpected.entry(answer.status).or_default() += 1;
        } else if now >= window.from {
            self.latencies.record(now - started);
            if now < window.until {
                self.requests += 1;
            }
        }
    }

    fn add(&mut self, other: &Tally) {
        let Tally { requests, answers, errors, unexpected, latencies } = other;
        self.requests += requests;
        self.answers += answers;
        self.errors += errors;
        for (status, count) in unexpected {
            *self.unexpected.entry(*status).or_default() += count;
        }
        self.latencies.add(latencies);
    }

    fn outcome(self, measured: Duration) -> Outcome {
        let seconds = measured.as_secs_f64();
        let per_second = if seconds > 0.0 { self.requests as f64 / seconds } else { 0.0 };
        Outcome {
            requests: self.requests,
            answers: self.answers,
            errors: self.errors,
            unexpected: self.unexpected,
            seconds,
            per_second,
            p50_us: self.latencies.percentile(50),
            p90_us: self.latencies.percentile(90),
            p99_us: self.latencies.percentile(99),
            max_us: self.latencies.max(),
        }
    }
}
