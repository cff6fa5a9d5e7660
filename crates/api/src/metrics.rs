//! Metrics in Prometheus' format, on a listener of their own.
//!
//! Labels take few values, all of them written in this program: no tenant, key or person, and no text of a client's.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::{StatusCode, header};
use actix_web::web::{self, Data};
use actix_web::{App, HttpResponse, HttpServer};
use anyhow::Context as _;
use claviger_issuer::Issuer;
use claviger_issuer::measure::Load;
use metrics::{Counter, Gauge, Histogram, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

use crate::problem::Answer;

/// Between rounds in which the exporter tidies what it keeps.
const TIDY_EVERY: Duration = Duration::from_secs(10);
/// Upper ends of the classes into which durations fall, in seconds.
const SECONDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// The same for counts.
const COUNTS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 512.0];
/// Classes of statuses, 1xx first.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

const REQUESTS: &str = "claviger_http_requests_total";
const DURATION: &str = "claviger_http_request_duration_seconds";
const IN_HAND: &str = "claviger_http_requests_in_flight";
const REFUSALS: &str = "claviger_refusals_total";
const PANICS: &str = "claviger_panics_total";
const BUILD: &str = "claviger_build_info";
const CONNECTIONS: &str = "claviger_database_connections";
const MOST_CONNECTIONS: &str = "claviger_database_connections_max";
const RECORD_QUEUE: &str = "claviger_record_queue_deeds";
const READERS: &str = "claviger_revocation_feed_readers";
const PASSWORDS_WAITING: &str = "claviger_password_queue";
const PASSWORDS_RUNNING: &str = "claviger_passwords_running";
const NEWS_AGE: &str = "claviger_changes_age_seconds";

/// Requests as they are counted; empty while nobody collects.
static WATCHED: OnceLock<Requests> = OnceLock::new();

/// What is collected, and where it will be served.
pub(crate) struct Metrics {
    listen: SocketAddr,
    handle: PrometheusHandle,
}

/// Collects from now on.
pub(crate) fn collect(listen: SocketAddr) -> anyhow::Result<Metrics> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_deeds".into()), &COUNTS))
        .and_then(PrometheusBuilder::install_recorder)
        .context("metrics cannot be collected")?;
    describe();
    Collector::default().describe();
    metrics::gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    WATCHED.get_or_init(|| Requests { routes: RwLock::default(), in_hand: metrics::gauge!(IN_HAND) });
    Ok(Metrics { listen, handle })
}

impl Metrics {
    /// Serves at `/metrics` once the returned server is awaited.
    pub(crate) fn serve(self, issuer: Arc<Issuer>) -> anyhow::Result<Server> {
        let Self { listen, handle } = self;
        let tidy = handle.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(TIDY_EVERY).await;
                tidy.run_upkeep();
            }
        });
        let (handle, issuer) = (Data::new(handle), Data::from(issuer));
        let app = move || App::new().app_data(handle.clone()).app_data(issuer.clone()).route("/metrics", web::get().to(show));
        let server = HttpServer::new(app)
            .workers(1)
            .disable_signals()
            .bind(listen)
            .with_context(|| format!("cannot serve metrics on {listen}: choose another metrics_listen"))?;
        Ok(server.run())
    }
}

async fn show(handle: Data<PrometheusHandle>, issuer: Data<Issuer>) -> HttpResponse {
    gauge(&issuer.load());
    Collector::default().collect();
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    HttpResponse::Ok().insert_header(kind).body(handle.render())
}

/// What is so at the moment of asking.
fn gauge(load: &Load) {
    let Load { connections, record_queue, feed_readers, password_queue, passwords_running, news_age } = load;
    metrics::gauge!(CONNECTIONS, "state" => "idle").set(connections.idle);
    metrics::gauge!(CONNECTIONS, "state" => "in_use").set(connections.in_use);
    metrics::gauge!(MOST_CONNECTIONS).set(connections.most);
    for (name, count) in [
        (RECORD_QUEUE, record_queue),
        (READERS, feed_readers),
        (PASSWORDS_WAITING, password_queue),
        (PASSWORDS_RUNNING, passwords_running),
    ] {
        metrics::gauge!(name).set(u32::try_from(*count).unwrap_or(u32::MAX));
    }
    metrics::gauge!(NEWS_AGE).set(*news_age);
}

fn describe() {
    let counters = [
        (REQUESTS, "Requests answered, by the route's pattern (- where none matched), method and class of status"),
        (REFUSALS, "Requests refused or failed, by the reason that the caller was told"),
        (PANICS, "Handlers that panicked: each is a bug"),
        ("claviger_exchanges_total", "Pairs presented for a token: done, refused, failed"),
        ("claviger_logins_total", "Passwords presented by people: done, refused, failed"),
        ("claviger_verifications_total", "Questions about callers: allowed, denied, refused, failed"),
        (
            "claviger_refresh_total",
            "Refresh tokens presented, by what became of them: rotated, replayed_lost_answer, replayed_parallel, reuse, refused, failed",
        ),
        ("claviger_audit_entries_total", "Entries handed over to the audit trail"),
    ];
    for (name, text) in counters {
        metrics::describe_counter!(name, text);
    }
    let gauges = [
        (IN_HAND, Unit::Count, "Requests whose answer has not begun"),
        (BUILD, Unit::Count, "1, with the version"),
        (CONNECTIONS, Unit::Count, "Connections to the database for requests, by state"),
        (MOST_CONNECTIONS, Unit::Count, "Connections to the database that requests may open"),
        (RECORD_QUEUE, Unit::Count, "Deeds that wait for the record's writer, at most 4096"),
        (READERS, Unit::Count, "Readers of revocation feeds that wait"),
        (PASSWORDS_WAITING, Unit::Count, "Passwords that wait for a thread"),
        (PASSWORDS_RUNNING, Unit::Count, "Passwords that are being hashed"),
        (NEWS_AGE, Unit::Seconds, "Since when changes made elsewhere may have been missed; past 5, memory serves nothing"),
    ];
    for (name, unit, text) in gauges {
        metrics::describe_gauge!(name, unit, text);
    }
    let histograms = [
        (DURATION, Unit::Seconds, "From a request's head until its answer's, by route and method"),
        ("claviger_database_wait_seconds", Unit::Seconds, "From asking for a connection to the database until there was one"),
        ("claviger_record_wait_seconds", Unit::Seconds, "From handing a deed to the record's writer until it was durable"),
        ("claviger_record_batch_deeds", Unit::Count, "Deeds that were written with one commit"),
        ("claviger_revocation_feed_delay_seconds", Unit::Seconds, "From hearing of a revocation until a waiting reader was told"),
    ];
    for (name, unit, text) in histograms {
        metrics::describe_histogram!(name, unit, text);
    }
}

/// Requests by route and method. Each pair is looked up by a name that exists anyway, and known after its first request.
struct Requests {
    routes: RwLock<HashMap<String, HashMap<&'static str, Route>>>,
    in_hand: Gauge,
}

struct Route {
    took: Histogram,
    answers: [Counter; CLASSES.len()],
}

impl Route {
    fn new(method: &'static str, route: &str) -> Self {
        let answers =
            CLASSES.map(|class| metrics::counter!(REQUESTS, "route" => route.to_owned(), "method" => method, "status" => class));
        Self { took: metrics::histogram!(DURATION, "route" => route.to_owned(), "method" => method), answers }
    }

    fn note(&self, status: StatusCode, took: Duration) {
        self.took.record(took);
        if let Some(counter) = self.answers.get(usize::from(status.as_u16() / 100).wrapping_sub(1)) {
            counter.increment(1);
        }
    }
}

/// Counts a request that was answered. The route is a pattern of the route table, or `-`.
pub(crate) fn count(method: &'static str, route: &str, status: StatusCode, error: Option<&actix_web::Error>, took: Duration) {
    let Some(requests) = WATCHED.get() else { return };
    let known = requests.routes.read().unwrap_or_else(PoisonError::into_inner);
    match known.get(route).and_then(|methods| methods.get(method)) {
        Some(known) => known.note(status, took),
        None => {
            drop(known);
            let mut routes = requests.routes.write().unwrap_or_else(PoisonError::into_inner);
            let methods = routes.entry(route.to_owned()).or_default();
            methods.entry(method).or_insert_with(|| Route::new(method, route)).note(status, took);
        }
    }
    if let Some(answer) = error.and_then(|error| error.as_error::<Answer>()) {
        metrics::counter!(REFUSALS, "reason" => answer.reason()).increment(1);
    }
}

/// A handler panicked.
pub(crate) fn count_panic() {
    metrics::counter!(PANICS).increment(1);
}

/// Counts a request as being in hand until this is dropped.
pub(crate) fn in_hand() -> InHand {
    let gauge = WATCHED.get().map(|requests| &requests.in_hand);
    if let Some(gauge) = gauge {
        gauge.increment(1);
    }
    InHand(gauge)
}

/// A request in hand.
pub(crate) struct InHand(Option<&'static Gauge>);

impl Drop for InHand {
    fn drop(&mut self) {
        if let Some(gauge) = self.0 {
            gauge.decrement(1);
        }
    }
}
