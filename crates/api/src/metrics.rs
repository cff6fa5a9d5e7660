//! Metrics in Prometheus' format, on a listener of their own.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::header;
use actix_web::web::{self, Data};
use actix_web::{App, HttpResponse, HttpServer};
use anyhow::Context as _;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Between rounds in which the exporter tidies what it keeps.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// Collects from now on, and serves at `/metrics` once the returned server is awaited.
pub(crate) fn start(listen: SocketAddr) -> anyhow::Result<Server> {
    let handle = PrometheusBuilder::new().install_recorder().context("metrics cannot be collected")?;
    metrics::describe_counter!(
        "claviger_refresh_total",
        "Refresh tokens presented, by what became of them: rotated, replayed_lost_answer, replayed_parallel, reuse, refused, failed"
    );
    let tidy = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(TIDY_EVERY).await;
            tidy.run_upkeep();
        }
    });
    let handle = Data::new(handle);
    let server = HttpServer::new(move || App::new().app_data(handle.clone()).route("/metrics", web::get().to(show)))
        .workers(1)
        .disable_signals()
        .bind(listen)
        .with_context(|| format!("cannot serve metrics on {listen}: choose another metrics_listen"))?;
    Ok(server.run())
}

async fn show(handle: Data<PrometheusHandle>) -> HttpResponse {
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    HttpResponse::Ok().insert_header(kind).body(handle.render())
}
