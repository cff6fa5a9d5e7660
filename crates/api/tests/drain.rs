//! A server that is told to stop says so, finishes what it has in hand and ends; nobody notices who asks where it is said to
//! ask (SECURITY T30).
//!
//! `TERMS` says how often (default 20).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a failure here is a failed test, and measured times are shown with --nocapture"
)]

mod binary_support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use binary_support::{Home, Pair, Serving, free_port, wait_until};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const CLIENTS: usize = 8;
const PASSWORD: &str = "correct horse battery staple";

/// A balancer's view of two servers, and what became of the requests that it sent there.
struct Fleet {
    ports: [u16; 2],
    ready: [AtomicBool; 2],
    over: AtomicBool,
    answers: Mutex<BTreeMap<(&'static str, u16), u64>>,
    failures: Mutex<Vec<String>>,
}

impl Fleet {
    /// Asks after the servers, as balancers do.
    async fn look_after(self: Arc<Self>) {
        let http = client();
        while !self.over.load(Ordering::Relaxed) {
            for (port, ready) in self.ports.iter().zip(&self.ready) {
                let answer = http.get(format!("http://127.0.0.1:{port}/readyz")).send().await;
                ready.store(answer.is_ok_and(|answer| answer.status() == 200), Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Where the next request goes.
    async fn next(&self, turn: usize) -> String {
        loop {
            for offset in 0..2 {
                let at = (turn + offset) % 2;
                if self.ready[at].load(Ordering::Relaxed) {
                    return format!("http://127.0.0.1:{}", self.ports[at]);
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn note(&self, what: &'static str, outcome: Result<u16, reqwest::Error>) {
        match outcome {
            Ok(status) => *self.answers.lock().unwrap().entry((what, status)).or_default() += 1,
            Err(error) => self.failures.lock().unwrap().push(format!("{what}: {error:?}")),
        }
    }

    fn answered(&self) -> u64 {
        self.answers.lock().unwrap().values().sum()
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap()
}

/// The status of an answer that was read to its end.
async fn whole(request: reqwest::RequestBuilder) -> Result<(u16, Value), reqwest::Error> {
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    let text = answer.text().await?;
    Ok((status, serde_json::from_str(&text).unwrap_or_default()))
}

/// Exchanges, asks who it is, and logs in now and then, which takes long.
async fn use_it(fleet: Arc<Fleet>, pair: Pair, number: usize) {
    let http = client();
    let mut token = Value::Null;
    for turn in number.. {
        if fleet.over.load(Ordering::Relaxed) {
            return;
        }
        let at = fleet.next(turn).await;
        let (what, request) = match turn % 8 {
            0 => ("exchange", http.post(format!("{at}/v1/authentications")).header("Authorization", pair.text())),
            1 => {
                // Each their own: logins of one person wait for each other.
                let login = json!({ "username": format!("user-{number}"), "password": PASSWORD });
                ("login", http.post(format!("{at}/t/default/v1/login")).json(&login))
            }
            _ if token.is_null() => continue,
            _ => ("me", http.get(format!("{at}/v1/me")).bearer_auth(token.as_str().unwrap())),
        };
        let outcome = whole(request).await;
        if let Ok((201, body)) = &outcome {
            token = body["jwt"].clone();
        }
        fleet.note(what, outcome.map(|(status, _)| status));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Follows revocations: by waiting for each answer, or by a stream.
async fn follow(fleet: Arc<Fleet>, streams: bool, number: usize) {
    let http = client();
    for turn in number.. {
        if fleet.over.load(Ordering::Relaxed) {
            return;
        }
        let at = fleet.next(turn).await;
        if streams {
            let request = http.get(format!("{at}/t/quiet/v1/revocations?since=0")).header("Accept", "text/event-stream");
            let read = async {
                let mut answer = request.send().await?;
                while answer.chunk().await?.is_some() {
                    if fleet.over.load(Ordering::Relaxed) {
                        break;
                    }
                }
                Ok(answer.status().as_u16())
            };
            fleet.note("stream", read.await);
        } else {
            let outcome = whole(http.get(format!("{at}/t/quiet/v1/revocations?since=0&wait=5"))).await;
            fleet.note("wait", outcome.map(|(status, _)| status));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn start(home: &Home, port: u16, drain_wait: &str) -> Serving {
    let mut command = home.command(&["serve", "--listen", &format!("127.0.0.1:{port}")]);
    command.env("CLAVIGER_PUBLIC_URL", "http://id.test").env("CLAVIGER_DRAIN_WAIT", drain_wait);
    Serving::start(command, port).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t30_twenty_sigterms_under_load_lose_no_request_and_none_takes_ten_seconds() {
    let terms: usize = std::env::var("TERMS").map_or(20, |text| text.parse().unwrap());
    let home = Home::new();
    let ports = [free_port(), free_port()];
    let first = start(&home, ports[0], "1").await;
    wait_until("the admin key is printed", async || first.out().contains("/docs")).await;
    let pair = first.admin();
    for number in 0..CLIENTS {
        let user = json!({ "username": format!("user-{number}"), "password": PASSWORD });
        let made = first.http.post(first.url("/v1/users")).header("Authorization", pair.basic()).json(&user).send().await;
        assert_eq!(made.unwrap().status(), 201);
    }
    // Nothing is revoked there: readers wait.
    home.ok(&["tenant", "create", "quiet"]);
    let second = start(&home, ports[1], "1").await;
    let mut servers = [Some(first), Some(second)];
    let fleet = Arc::new(Fleet {
        ports,
        ready: [AtomicBool::new(true), AtomicBool::new(true)],
        over: AtomicBool::new(false),
        answers: Mutex::default(),
        failures: Mutex::default(),
    });
    let watch = tokio::spawn(fleet.clone().look_after());
    let mut tasks: Vec<_> = (0..CLIENTS).map(|number| tokio::spawn(use_it(fleet.clone(), pair.clone(), number))).collect();
    tasks.extend((0..4).map(|number| tokio::spawn(follow(fleet.clone(), number % 2 == 0, number / 2))));

    let mut drains = Vec::new();
    for term in 0..terms {
        let before = fleet.answered();
        wait_until("both serve under load", async || {
            fleet.answered() > before + 20 && fleet.ready.iter().all(|ready| ready.load(Ordering::Relaxed))
        })
        .await;
        // Connections that nobody uses do not hold it up.
        let _idle = TcpStream::connect(("127.0.0.1", ports[term % 2])).await.unwrap();
        let began = Instant::now();
        let ended = servers[term % 2].take().unwrap().stop().await;
        let drained = began.elapsed();
        drains.push(drained);
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(!ended.err.contains("panicked"), "{}", ended.err);
        assert!(drained <= Duration::from_secs(10), "SIGTERM {term} took {drained:?}");
        assert!(drained >= Duration::from_secs(1), "it did not wait for balancers: {drained:?}");
        servers[term % 2] = Some(start(&home, ports[term % 2], "1").await);
    }
    fleet.over.store(true, Ordering::Relaxed);
    let [first, second] = servers.map(Option::unwrap);
    assert_eq!(first.stop().await.status.code(), Some(0));
    assert_eq!(second.stop().await.status.code(), Some(0));
    for task in tasks {
        task.await.unwrap();
    }
    watch.await.unwrap();
    drains.sort();
    let answers = fleet.answers.lock().unwrap().clone();
    println!("{terms} SIGTERMs: slowest end {:?}, median {:?}; answers {answers:?}", drains.last(), drains.get(terms / 2));
    assert_eq!(*fleet.failures.lock().unwrap(), Vec::<String>::new(), "requests that were sent had no answer");
    for seen in [("exchange", 201), ("login", 200), ("me", 200), ("wait", 503), ("stream", 200)] {
        assert!(answers.contains_key(&seen), "{seen:?} was not seen: {answers:?}");
    }
    for (what, status) in answers.keys() {
        // A reader who waits is told that the server stops: an answer, and the way out.
        assert!(
            matches!((*what, *status), ("exchange", 201) | ("login" | "me" | "wait" | "stream", 200) | ("wait", 503)),
            "{what} {status}"
        );
    }
    home.postgres_is_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_ends_first_and_what_is_still_asked_is_answered_on_connections_that_then_close() {
    let home = Home::new();
    let serving = start(&home, free_port(), "2").await;
    let mut kept = TcpStream::connect(serving.address()).await.unwrap();
    let mut ask = async |path: &str| {
        kept.write_all(format!("GET {path} HTTP/1.1\r\nHost: id.test\r\n\r\n").as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"}") {
            assert!(kept.read_buf(&mut head).await.unwrap() > 0, "no answer to {path}");
        }
        String::from_utf8(head).unwrap()
    };
    assert!(ask("/healthz").await.starts_with("HTTP/1.1 200 "));
    kill(serving.pid(), Signal::SIGTERM).unwrap();
    let mut last = String::new();
    wait_until("readiness ends", async || {
        let answer = serving.http.get(serving.url("/readyz")).send().await.unwrap();
        last = format!("{} {}", answer.status(), answer.text().await.unwrap());
        last.starts_with("503")
    })
    .await;
    assert!(last.contains("\"reason\":\"stopping\""), "{last}");
    let answer = ask("/healthz").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    assert_eq!(kept.read(&mut [0; 1]).await.unwrap(), 0, "the connection stays open");
    assert_eq!(serving.end().await.status.code(), Some(0));
    home.postgres_is_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let home = Home::new();
    let serving = start(&home, free_port(), "60").await;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        kill(serving.pid(), signal).unwrap();
        if signal == Signal::SIGTERM {
            wait_until("it is stopping", async || serving.err().contains("stopping:")).await;
        }
    }
    let began = Instant::now();
    let ended = serving.end().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.err.contains("error: ended at once by a second signal"), "{}", ended.err);
    home.postgres_is_down().await;
}
