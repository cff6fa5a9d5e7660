//! The ceilings: the same work without the record.

use std::hint::black_box;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use actix_web::web::Data;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use claviger_issuer::bench::{BareExchange, BareHash};

/// A server that looks up, compares the MAC, builds the claims and signs, and records nothing.
pub(crate) struct Bare {
    pub(crate) address: SocketAddr,
    pub(crate) pair: String,
    handle: actix_web::dev::ServerHandle,
}

impl Bare {
    pub(crate) fn start() -> Self {
        let exchange = Arc::new(BareExchange::new().unwrap());
        let pair = exchange.pair().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let exchange = Data::from(exchange);
                let server = HttpServer::new(move || {
                    App::new().app_data(exchange.clone()).route("/v1/authentications", web::post().to(answer))
                })
                .disable_signals()
                .listen(listener)
                .unwrap()
                .run();
                tell.send(server.handle()).unwrap();
                server.await.unwrap();
            });
        });
        Self { address, pair, handle: told.recv().unwrap() }
    }

    pub(crate) fn stop(&self) {
        actix_web::rt::System::new().block_on(self.handle.stop(false));
    }
}

async fn answer(req: HttpRequest, exchange: Data<BareExchange>) -> HttpResponse {
    let pair = req.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    match exchange.exchange(pair) {
        Some(jwt) => HttpResponse::Created().json(serde_json::json!({ "jwt": jwt })),
        None => HttpResponse::NotFound().finish(),
    }
}

/// The same work in a loop on one thread, a second.
pub(crate) fn in_process(measure: Duration) -> f64 {
    let exchange = BareExchange::new().unwrap();
    in_a_loop(measure, || exchange.exchange(exchange.pair()).is_some())
}

/// Checks of a token in a loop on one thread, a second.
pub(crate) fn checking(measure: Duration) -> f64 {
    let exchange = BareExchange::new().unwrap();
    let jwt = exchange.exchange(exchange.pair()).unwrap();
    in_a_loop(measure, || exchange.check(&jwt))
}

fn in_a_loop(measure: Duration, mut succeeds: impl FnMut() -> bool) -> f64 {
    let started = Instant::now();
    let mut done = 0_u64;
    while started.elapsed() < measure {
        for _ in 0..256 {
            assert!(black_box(succeeds()));
        }
        done += 256;
    }
    done as f64 / started.elapsed().as_secs_f64()
}

/// Hashes of passwords on a thread for each core: how many threads, and how many in a second.
pub(crate) fn hashing(measure: Duration) -> (usize, f64) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let hash_on = || {
        let mut hash = BareHash::new().unwrap();
        // The first one gets the memory.
        hash.hash(b"a password").unwrap();
        let started = Instant::now();
        let mut done = 0_u64;
        while started.elapsed() < measure {
            black_box(hash.hash(b"a password")).unwrap();
            done += 1;
        }
        done as f64 / started.elapsed().as_secs_f64()
    };
    let per_second = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(hash_on)).collect();
        all.into_iter().map(|one| one.join().unwrap()).sum()
    });
    (threads, per_second)
}
