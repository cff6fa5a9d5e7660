//! Traces for OpenTelemetry collectors, by OTLP over HTTP. Without `otlp_endpoint` nobody collects and no span is made.
//!
//! Spans are of the target [`TRACES`] alone, so what is logged never gets into a trace. They say routes, statuses, tenants and
//! request ids: neither secrets nor anything about persons.

use std::thread;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use anyhow::Context as _;
use claviger_store::TRACES;
use claviger_store::id::TenantId;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;
use url::Url;

/// How long the collector may take to answer, and at the end to take what is left.
const PATIENCE: Duration = Duration::from_secs(3);

/// Sends spans until it is ended. What a slow collector does not take in time is dropped.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// `endpoint` is the collector's address, to which OTLP's own path is added; `share` is the part of traces that are begun
    /// here and collected, 0 to 1.
    pub(crate) fn start(endpoint: &Url, share: f64) -> anyhow::Result<Self> {
        let url = format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'));
        // Its client blocks, on a thread of its own: it may not even be made on one of ours.
        let made = thread::spawn(move || {
            let client = reqwest::blocking::Client::builder()
                .timeout(PATIENCE)
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .context("there can be no HTTP client")?;
            let exporter = SpanExporter::builder().with_http().with_http_client(client);
            let exporter = exporter.with_protocol(Protocol::HttpBinary).with_endpoint(url).with_timeout(PATIENCE);
            exporter.build().context("configuration: otlp_endpoint")
        });
        let exporter = made.join().map_err(|_| anyhow::anyhow!("traces cannot be sent"))??;
        let resource = Resource::builder().with_service_name("claviger");
        let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share))))
            .with_resource(resource.with_attribute(version).build())
            .build();
        Ok(Self { provider })
    }

    /// What makes spans of `tracing` into spans of OpenTelemetry.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("claviger"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_filter(Targets::new().with_target(TRACES, LevelFilter::TRACE))
    }

    /// Sends what is left.
    pub(crate) async fn end(self) {
        let end = move || self.provider.shutdown_with_timeout(PATIENCE);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(end).await {
            tracing::warn!(error = %error, "the last traces could not be sent");
        }
    }
}

/// The span of a request. A caller's `traceparent` (W3C Trace Context) makes it part of their trace, if they may say so.
pub(crate) fn begin(request_id: &str, headers: &HeaderMap, believed: bool) -> Span {
    let span = tracing::trace_span!(
        target: TRACES,
        "request",
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        http.request.method = tracing::field::Empty,
        http.route = tracing::field::Empty,
        http.response.status_code = tracing::field::Empty,
        request.id = request_id,
        tenant.id = tracing::field::Empty,
    );
    if believed && !span.is_disabled() {
        // Refused only by a span that nobody collects.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&Lines(headers)));
    }
    span
}

/// The request within whose span we are is about that tenant.
pub(crate) fn is_about(tenant: TenantId) {
    let span = Span::current();
    if !span.is_disabled() {
        span.record("tenant.id", tracing::field::display(tenant));
    }
}

/// The request's answer.
pub(crate) fn end(span: &Span, method: &str, route: &str, status: StatusCode) {
    if span.is_disabled() {
        return;
    }
    // The span began without it, since no route was known.
    span.context().span().update_name(format!("{method} {route}"));
    span.record("http.request.method", method);
    span.record("http.route", route);
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

struct Lines<'a>(&'a HeaderMap);

impl Extractor for Lines<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}
