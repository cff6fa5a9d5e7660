//! What `/metrics` says: whatever operators ask, in Prometheus' format, and nothing about tenants, keys or persons.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod binary_support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use binary_support::{Home, Serving, wait_until};
use serde_json::json;

const PASSWORD: &str = "correct horse battery staple";

/// Every sample by its name and labels, after a check of the format.
async fn scrape(serving: &Serving, port: u16) -> BTreeMap<String, f64> {
    let answer = serving.http.get(format!("http://127.0.0.1:{port}/metrics")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text().await.unwrap();
    assert!(text.ends_with('\n'));
    let mut kinds = BTreeMap::new();
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<&str> = comment.splitn(3, ' ').collect();
            assert!(matches!(words[0], "HELP" | "TYPE") && words.len() == 3, "{line}");
            if words[0] == "TYPE" {
                assert!(matches!(words[2], "counter" | "gauge" | "histogram"), "not every Prometheus adds these up: {line}");
                assert!(kinds.insert(words[1].to_owned(), words[2].to_owned()).is_none(), "told twice: {line}");
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let family = name.split('{').next().unwrap();
        let ends = ["_bucket", "_sum", "_count"].iter().find_map(|end| family.strip_suffix(end));
        let known = kinds.get(family).or_else(|| kinds.get(ends.unwrap_or_default()));
        let kind = known.unwrap_or_else(|| panic!("a sample without a type: {line}"));
        assert_eq!(kind == "counter", family.ends_with("_total"), "{line}");
        assert!(family.starts_with("claviger_") || family.starts_with("process_"), "{line}");
        assert!(samples.insert(name.to_owned(), value.parse().unwrap()).is_none(), "told twice: {line}");
    }
    samples
}

/// The values that a label takes.
fn label<'a>(samples: &'a BTreeMap<String, f64>, of: &str, name: &str) -> BTreeSet<&'a str> {
    let begins = format!("{of}{{");
    let labelled = samples.keys().filter(|sample| sample.starts_with(&begins));
    labelled.filter_map(|sample| Some(sample.split_once(&format!("{name}=\""))?.1.split_once('"')?.0)).collect()
}

#[tokio::test]
async fn deeds_requests_queues_and_the_process_are_measured_and_nobody_is_named() {
    let home = Home::new();
    let (serving, metrics) = home.serve_measured().await;
    let admin = serving.admin();
    home.ok(&["tenant", "create", "acme"]);

    let user = json!({ "username": "alice", "password": PASSWORD });
    let made = serving.http.post(serving.url("/v1/users")).header("Authorization", admin.basic()).json(&user);
    assert_eq!(made.send().await.unwrap().status(), 201);
    for _ in 0..3 {
        serving.token(&admin).await;
    }
    let wrong = serving.http.post(serving.url("/v1/authentications")).header("Authorization", "ck_nobody:cs_nothing");
    assert_eq!(wrong.send().await.unwrap().status(), 404);
    for (password, status) in [(PASSWORD, 200), ("a wrong one, also long", 401)] {
        let login =
            serving.http.post(serving.url("/t/default/v1/login")).json(&json!({ "username": "alice", "password": password }));
        assert_eq!(login.send().await.unwrap().status(), status);
    }
    for require in [json!({}), json!({ "scopes": { "all": ["nobody:holds"] } })] {
        let body = json!({ "authorization": format!("Bearer {}", serving.token(&admin).await), "require": require });
        let asked = serving.http.post(serving.url("/v1/verify")).header("Authorization", admin.basic()).json(&body);
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }
    assert_eq!(serving.http.get(serving.url("/t/acme/.well-known/jwks.json")).send().await.unwrap().status(), 200);
    for path in ["/no/such/route", "/another-that-is-not-there"] {
        assert_eq!(serving.http.get(serving.url(path)).send().await.unwrap().status(), 404);
    }
    let odd = reqwest::Method::from_bytes(b"BREW").unwrap();
    serving.http.request(odd, serving.url("/healthz")).send().await.unwrap();
    // Somebody waits for a revocation, and hears of it.
    let waiting = tokio::spawn(serving.http.get(serving.url("/t/default/v1/revocations?wait=20")).send());
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    let head = serving.http.get(serving.url("/t/default/v1/revocations?since=0&wait=20")).send();
    let reader = tokio::spawn(head);
    wait_until("a reader waits", async || scrape(&serving, metrics).await["claviger_revocation_feed_readers"] == 1.0).await;
    let extra = binary_support::Pair::of(&home.json(&["create-key", "--tenant", "default", "--email", "eve@example.com"]));
    home.ok(&["key", "revoke", "--tenant", "default", &extra.key]);
    assert_eq!(reader.await.unwrap().unwrap().status(), 200);

    let samples = scrape(&serving, metrics).await;
    let is = |name: &str, value: f64| assert_eq!(samples.get(name), Some(&value), "{name} in {samples:#?}");
    let some = |name: &str| assert!(samples.get(name).is_some_and(|value| *value > 0.0), "{name} in {samples:#?}");
    is("claviger_exchanges_total{outcome=\"done\"}", 5.0);
    is("claviger_exchanges_total{outcome=\"refused\"}", 1.0);
    is("claviger_logins_total{outcome=\"done\"}", 1.0);
    is("claviger_logins_total{outcome=\"refused\"}", 1.0);
    is("claviger_verifications_total{outcome=\"allowed\"}", 1.0);
    is("claviger_verifications_total{outcome=\"denied\"}", 1.0);
    is("claviger_http_requests_total{route=\"/v1/authentications\",method=\"POST\",status=\"2xx\"}", 5.0);
    is("claviger_http_requests_total{route=\"/v1/authentications\",method=\"POST\",status=\"4xx\"}", 1.0);
    is("claviger_http_request_duration_seconds_count{route=\"/v1/authentications\",method=\"POST\"}", 6.0);
    is("claviger_http_requests_total{route=\"/t/{tenant}/.well-known/jwks.json\",method=\"GET\",status=\"2xx\"}", 1.0);
    is("claviger_http_requests_total{route=\"-\",method=\"GET\",status=\"4xx\"}", 2.0);
    is("claviger_http_requests_in_flight", 0.0);
    is("claviger_refusals_total{reason=\"invalid_credentials\"}", 1.0);
    is("claviger_revocation_feed_readers", 0.0);
    is("claviger_revocation_feed_delay_seconds_count", 1.0);
    is("claviger_record_queue_deeds", 0.0);
    is("claviger_password_queue", 0.0);
    is("claviger_passwords_running", 0.0);
    is(&format!("claviger_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0);
    is("claviger_database_connections_max", 16.0);
    for name in [
        "claviger_audit_entries_total",
        "claviger_record_wait_seconds_count",
        "claviger_record_batch_deeds_count",
        "claviger_database_wait_seconds_count",
        "claviger_changes_age_seconds",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        some(name);
    }
    assert!(samples.contains_key("process_cpu_seconds_total"));
    assert!(samples["claviger_changes_age_seconds"] < 5.0);
    let open = ["idle", "in_use"].map(|state| samples[&format!("claviger_database_connections{{state=\"{state}\"}}")]);
    assert!((1.0..=16.0).contains(&open.iter().sum::<f64>()), "{open:?}");

    let document = home.json(&["openapi"]);
    let routes = document["paths"].as_object().unwrap();
    for route in label(&samples, "claviger_http_requests_total", "route") {
        assert!(route == "-" || routes.contains_key(route), "no route: {route}");
    }
    let methods = label(&samples, "claviger_http_requests_total", "method");
    assert!(methods.contains("other") && methods.iter().all(|method| ["GET", "POST", "other"].contains(method)), "{methods:?}");
    let all = format!("{samples:?}");
    for secret in
        ["acme", "alice", "eve@", "127.0.0.1", "no/such", "BREW", admin.key.as_str(), admin.secret.as_str(), extra.key.as_str()]
    {
        assert!(!all.contains(secret), "{secret} is in the metrics");
    }
    // Nothing of this is on the port that the world sees.
    assert_eq!(serving.http.get(serving.url("/metrics")).send().await.unwrap().status(), 404);
    tokio::time::timeout(Duration::from_secs(30), serving.stop()).await.unwrap();
    home.postgres_is_down().await;
}
