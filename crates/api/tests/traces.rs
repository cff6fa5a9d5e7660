//! Traces as a collector receives them: the very bytes, decoded.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod binary_support;

use std::sync::{Arc, Mutex};

use binary_support::{Home, Serving, free_port, wait_until};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const PASSWORD: &str = "correct horse battery staple";

/// The head of a request, and its body.
type Export = (String, Vec<u8>);

/// A collector that keeps what it receives.
#[derive(Clone, Default)]
struct Collector {
    received: Arc<Mutex<Vec<Export>>>,
}

impl Collector {
    async fn start() -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let collector = Self::default();
        let received = collector.received.clone();
        tokio::spawn(async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                let received = received.clone();
                tokio::spawn(async move {
                    let mut bytes = Vec::new();
                    loop {
                        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                            if caller.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                                return;
                            }
                            continue;
                        };
                        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
                        let length = head.split_once("content-length: ").unwrap().1;
                        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
                        while bytes.len() < end + 4 + length {
                            assert!(caller.read_buf(&mut bytes).await.unwrap() > 0);
                        }
                        received.lock().unwrap().push((head, bytes[end + 4..end + 4 + length].to_vec()));
                        bytes.drain(..end + 4 + length);
                        caller.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                    }
                });
            }
        });
        (collector, port)
    }

    /// Every span, and all that came as text.
    fn take(&self) -> (Vec<Span>, String) {
        let received = std::mem::take(&mut *self.received.lock().unwrap());
        let mut spans = Vec::new();
        let mut all = String::new();
        for (head, body) in received {
            assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
            assert!(head.contains("content-type: application/x-protobuf"), "{head}");
            let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
            all.push_str(&format!("{request:?}"));
            for resource in request.resource_spans {
                assert_eq!(word(&resource.resource.unwrap().attributes, "service.name"), "claviger");
                spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        (spans, all)
    }
}

fn word(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|one| one.key == key).and_then(|one| one.value.as_ref()?.value.as_ref());
    match found {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn serve(home: &Home, collector: u16, settings: &[(&str, &str)]) -> Serving {
    let port = free_port();
    let mut command = home.command(&["serve", "--listen", &format!("127.0.0.1:{port}")]);
    command.env("CLAVIGER_OTLP_ENDPOINT", format!("http://127.0.0.1:{collector}/")).env("NO_PROXY", "*").env("no_proxy", "*");
    Serving::start(
        {
            command.envs(settings.iter().copied());
            command
        },
        port,
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_span_within_its_callers_trace_if_the_caller_is_believed() {
    let home = Home::new();
    let (collector, port) = Collector::start().await;
    let serving = serve(&home, port, &[("CLAVIGER_TRUSTED_PROXIES", "127.0.0.1")]).await;
    wait_until("the admin key is printed", async || serving.out().contains("/docs")).await;
    let admin = serving.admin();
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let exchange = serving.http.post(serving.url("/v1/authentications")).header("Authorization", admin.text());
    let answer = exchange.header("traceparent", &parent).header("X-Forwarded-For", "198.51.100.7").send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let request_id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let jwt = answer.json::<serde_json::Value>().await.unwrap()["jwt"].as_str().unwrap().to_owned();
    let user = json!({ "username": "alice", "email": "alice@example.com", "password": PASSWORD });
    let made = serving.http.post(serving.url("/t/default/v1/users")).bearer_auth(&jwt).json(&user).send().await.unwrap();
    assert_eq!(made.status(), 201);
    let login = json!({ "username": "alice", "password": PASSWORD });
    let login = serving.http.post(serving.url("/t/default/v1/login")).json(&login).send().await.unwrap();
    assert_eq!(login.status(), 200);
    let ended = serving.stop().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");

    let (spans, all) = collector.take();
    let of = |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name}"));
    let exchange = of("POST /v1/authentications");
    assert_eq!((hex(&exchange.trace_id), hex(&exchange.parent_span_id)), (TRACE.to_owned(), CALLER.to_owned()));
    assert_eq!(exchange.kind, 2, "a server's span");
    assert_eq!(word(&exchange.attributes, "http.route"), "/v1/authentications");
    assert_eq!(word(&exchange.attributes, "http.response.status_code"), "201");
    assert_eq!(word(&exchange.attributes, "request.id"), request_id);
    let record = spans.iter().find(|span| span.name == "record" && span.parent_span_id == exchange.span_id);
    let tenant = word(&record.expect("the record of the token is no part of the trace").attributes, "tenant.id");
    assert_eq!(hex(&record.unwrap().trace_id), TRACE);
    // One that came without a parent begins a trace of its own.
    let made = of("POST /t/{tenant}/v1/users");
    assert!(made.parent_span_id.is_empty() && hex(&made.trace_id) != TRACE);
    assert_eq!(word(&made.attributes, "tenant.id"), tenant);
    let transaction = spans.iter().find(|span| span.name == "transaction" && span.parent_span_id == made.span_id);
    let transaction = transaction.expect("the transaction is no part of the trace");
    assert_eq!((transaction.kind, word(&transaction.attributes, "db.system.name")), (3, "postgresql".to_owned()));
    assert_eq!(word(&transaction.attributes, "tenant.id"), tenant);
    assert!(
        transaction.start_time_unix_nano >= made.start_time_unix_nano
            && transaction.end_time_unix_nano <= made.end_time_unix_nano
    );
    for secret in ["alice", PASSWORD, "198.51.100.7", "127.0.0.1", &admin.secret, &admin.key, &jwt[..40], "serving"] {
        assert!(!all.contains(secret), "{secret} is in the traces");
    }
    assert!(!ended.err.contains("\"span\""), "spans got into the log: {}", ended.err);

    // Without the proxy in the list, a stranger decides neither the trace nor whether it is collected.
    let serving = serve(&home, port, &[("CLAVIGER_OTLP_SHARE", "1.0")]).await;
    for flags in ["01", "00"] {
        let parent = format!("00-{TRACE}-{CALLER}-{flags}");
        let health = serving.http.get(serving.url("/t/default/.well-known/jwks.json")).header("traceparent", parent);
        assert_eq!(health.send().await.unwrap().status(), 200);
    }
    assert_eq!(serving.stop().await.status.code(), Some(0));
    let (spans, all) = collector.take();
    let fetched: Vec<&Span> = spans.iter().filter(|span| span.name == "GET /t/{tenant}/.well-known/jwks.json").collect();
    assert_eq!(fetched.len(), 2);
    assert!(!all.contains(CALLER) && fetched.iter().all(|span| hex(&span.trace_id) != TRACE && span.parent_span_id.is_empty()));
    home.postgres_is_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_delays_nothing_and_an_address_that_is_none_is_refused() {
    let home = Home::new();
    let serving = serve(&home, free_port(), &[]).await;
    wait_until("the admin key is printed", async || serving.out().contains("/docs")).await;
    serving.token(&serving.admin()).await;
    let ended = serving.stop().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    for (name, value, about) in
        [("CLAVIGER_OTLP_ENDPOINT", "ftp://collector", "otlp_endpoint"), ("CLAVIGER_OTLP_SHARE", "1.5", "otlp_share is 0 to 1")]
    {
        let said = home.run_with(&["config", "check"], &[(name, value)]);
        assert!(said.code == Some(1) && said.err.contains(about), "{said:?}");
    }
    home.postgres_is_down().await;
}
