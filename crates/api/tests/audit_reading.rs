//! The audit trail, read: filters, pages, exports, and refusals explained to admins.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod support;

use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Answer, Key, Server, Tenant, basic};

async fn scene(server: &Server) -> (Tenant<'_>, Key) {
    let tenant = server.default_tenant().await;
    let admin = tenant.admin().await;
    (tenant, admin)
}

fn actions(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json()["items"].as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap().to_owned()).collect()
}

fn seqs(page: &Value) -> Vec<i64> {
    page["items"].as_array().unwrap().iter().map(|entry| entry["seq"].as_i64().unwrap()).collect()
}

#[actix_web::test]
async fn each_filter_finds_what_it_says_and_nothing_else() {
    let server = Server::start().await;
    let (tenant, admin) = scene(&server).await;
    let caller = server.with(&admin.basic());
    let user = caller.post("/v1/users", json!({ "username": "alice" })).await.json();
    let alice = user["id"].as_str().unwrap();
    let key = tenant.app_key("client", &["events:read"]).await;
    let answer = server.with(&key.pair()).post_empty("/v1/authentications").await;
    let exchanged = answer.header("x-request-id").to_owned();
    let refused = server.with(&format!("{}:wrong", key.id)).post_empty("/v1/authentications").await;
    let refused = refused.header("x-request-id").to_owned();
    let get = async |query: &str| caller.get(&format!("/v1/audit?{query}")).await;

    assert!(actions(&get("action=user.create").await).iter().all(|action| action == "user.create"));
    let keys = actions(&get("action=key.*").await);
    assert!(keys.contains(&"key.create".into()) && keys.contains(&"key.exchange".into()), "{keys:?}");
    assert!(keys.iter().all(|action| action.starts_with("key.")));
    assert_eq!(actions(&get("outcome=refused").await), ["key.exchange"]);
    assert_eq!(actions(&get(&format!("actor=key:{}", admin.id)).await), ["user.create"]);
    assert_eq!(actions(&get(&format!("target=user:{alice}")).await), ["user.create"]);
    let owner = format!("application:{}", key.subject());
    assert_eq!(actions(&get(&format!("subject={owner}")).await), ["key.exchange"], "the refused one");
    assert_eq!(actions(&get(&format!("subject={owner}&routine=true")).await), ["key.exchange", "key.exchange"]);
    assert_eq!(actions(&get(&format!("key={}", key.id)).await), ["key.exchange", "key.create"]);
    assert_eq!(actions(&get(&format!("key={}&action=key.exchange", key.id)).await), ["key.exchange", "key.exchange"]);
    assert_eq!(actions(&get(&format!("request_id={refused}")).await), ["key.exchange"]);
    assert_eq!(actions(&get(&format!("request_id={exchanged}")).await), [""; 0]);
    assert_eq!(actions(&get(&format!("request_id={exchanged}&routine=true")).await), ["key.exchange"]);
    let now = server.clock.now().format("%Y-%m-%dT%H:%M:%S%.6fZ");
    assert_eq!(actions(&get(&format!("until={now}")).await), [""; 0]);
    server.clock.advance(chrono::TimeDelta::seconds(10));
    let later = server.clock.now().format("%Y-%m-%dT%H:%M:%S%.6fZ");
    caller.patch(&format!("/v1/users/{alice}"), json!({ "disabled": true })).await;
    assert_eq!(actions(&get(&format!("since={later}")).await), ["user.disable"]);
    let oldest = actions(&get("order=oldest&limit=1").await);
    assert_eq!(oldest, ["tenant.create"]);
    for (query, field) in [
        ("action=Key", "action"),
        ("action=*key", "action"),
        ("outcome=maybe", "outcome"),
        ("actor=", "actor"),
        ("limit=0", "limit"),
        ("after=x", "after"),
        ("since=yesterday", "query"),
        ("order=random", "newest"),
        ("colour=red", "colour"),
        ("since=2027-01-01T00:00:00Z&until=2026-01-01T00:00:00Z", "until"),
    ] {
        let answer = get(query).await;
        assert!(
            answer.status == StatusCode::UNPROCESSABLE_ENTITY || answer.status == StatusCode::BAD_REQUEST,
            "{query}: {}",
            answer.text
        );
        assert!(answer.text.contains(field), "{query}: {}", answer.text);
    }
}

#[actix_web::test]
async fn pages_stay_right_while_entries_are_written() {
    let server = Server::start().await;
    let (tenant, admin) = scene(&server).await;
    let caller = server.with(&admin.basic());
    for n in 0..30 {
        tenant.application(&format!("app {n}")).await;
    }
    for order in ["newest", "oldest"] {
        let mut seen = Vec::new();
        let mut after = String::new();
        let end = seqs(&caller.get("/v1/audit?limit=1").await.json())[0];
        loop {
            let page = caller.get(&format!("/v1/audit?order={order}&limit=7{after}")).await.json();
            let page_seqs = seqs(&page);
            seen.extend(page_seqs.iter().copied().filter(|seq| *seq <= end));
            if seen.len() as i64 >= end || page["next"].is_null() {
                break;
            }
            after = format!("&after={}", page["next"].as_str().unwrap());
            tenant.application(&format!("meanwhile {order} {}", seen.len())).await;
        }
        let mut expected: Vec<i64> = (1..=end).collect();
        if order == "newest" {
            expected.reverse();
        }
        assert_eq!(seen, expected, "{order}");
    }
}

#[actix_web::test]
async fn an_export_is_the_trail_and_is_in_the_trail() {
    let server = Server::start().await;
    let (tenant, admin) = scene(&server).await;
    let caller = server.with(&admin.basic());
    for n in 0..11 {
        tenant.application(&format!("app {n}")).await;
    }
    let listed = caller.get("/v1/audit?order=oldest&limit=200").await.json();
    let export = caller.get("/v1/audit/export").await;
    assert_eq!(export.status, StatusCode::OK);
    assert_eq!(export.header("content-type"), "application/x-ndjson");
    let lines: Vec<Value> = export.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), listed["items"].as_array().unwrap().len());
    for (line, entry) in lines.iter().zip(listed["items"].as_array().unwrap()) {
        for field in ["seq", "at", "action", "outcome", "actor", "subject", "target", "request_id", "detail", "hash"] {
            assert_eq!(line[field], entry[field]);
        }
    }
    assert_eq!(tenant.audit("audit.export").await.len(), 1);
    let some = caller.get("/v1/audit/export?action=application.create").await;
    assert_eq!(some.text.lines().count(), 12);
    assert_eq!(caller.get("/v1/audit/export?outcome=maybe").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let reader = tenant.app_key("reader", &["keys:read"]).await;
    for path in ["/v1/audit", "/v1/audit/export", "/v1/decisions/000000000000000000000000"] {
        assert_eq!(server.with(&reader.basic()).get(path).await.error(), "insufficient_scope");
    }
}

#[actix_web::test]
async fn a_refusal_is_explained_to_admins_of_the_tenant_alone() {
    let server = Server::start().await;
    let (tenant, admin) = scene(&server).await;
    let other = server.tenant("other").await;
    let stranger = other.admin().await;
    let caller = server.with(&admin.basic());
    let id_of = |answer: &Answer| answer.header("x-request-id").to_owned();
    let explained = async |id: &str, rule: &str| {
        let answer = caller.get(&format!("/v1/decisions/{id}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{rule}: {}", answer.text);
        let decision = answer.json()["decisions"][0].clone();
        assert_eq!(decision["rule"], rule, "{decision}");
        assert!(decision["explanation"].as_str().unwrap().len() > 20, "{decision}");
        assert_eq!(
            server.with(&stranger.basic()).get(&format!("/t/other/v1/decisions/{id}")).await.status,
            StatusCode::NOT_FOUND
        );
        decision
    };
    let key = tenant.app_key("client", &["events:read"]).await;
    let exchange = async |pair: &str, body: Value| server.with(pair).post("/v1/authentications", body).await;

    let answer = server.with(&key.basic()).get("/v1/users").await;
    let decision = explained(&id_of(&answer), "insufficient_scope").await;
    assert_eq!(decision["missing"]["scopes"], json!(["users:read"]));
    assert!(decision["explanation"].as_str().unwrap().contains("users:read"));
    assert_eq!(decision["entry"]["target"], "operation:GET /v1/users");
    let answer = exchange(&format!("{}:wrong", key.id), json!({})).await;
    explained(&id_of(&answer), "wrong_secret").await;
    let answer = exchange(&key.pair(), json!({ "scope": "events:write" })).await;
    explained(&id_of(&answer), "invalid_scope").await;
    let ends = server.clock.now() + chrono::TimeDelta::seconds(60);
    caller.patch(&format!("/v1/keys/{}", key.id), json!({ "expires_at": ends })).await;
    server.clock.advance(chrono::TimeDelta::seconds(61));
    let answer = exchange(&key.pair(), json!({})).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let entry = tenant.audit("key.exchange").await.remove(0);
    let reason: Value = serde_json::from_str(&entry.detail).unwrap();
    explained(&id_of(&answer), reason["reason"].as_str().unwrap()).await;
    let key = tenant.app_key("second", &["events:read"]).await;
    caller.patch(&format!("/v1/applications/{}", key.subject()), json!({ "disabled": true })).await;
    let answer = exchange(&key.pair(), json!({})).await;
    explained(&id_of(&answer), "owner_disabled").await;
    // What went well, and what never was.
    let answer = caller.get("/v1/users").await;
    for id in [id_of(&answer), "000000000000000000000000".into(), "x".into()] {
        assert_eq!(caller.get(&format!("/v1/decisions/{id}")).await.status, StatusCode::NOT_FOUND, "{id}");
    }
}

#[actix_web::test]
async fn a_flood_of_refused_calls_does_not_fill_the_trail() {
    let server = Server::start().await;
    let (tenant, _) = scene(&server).await;
    let key = tenant.app_key("client", &[]).await;
    for _ in 0..60 {
        assert_eq!(server.with(&key.basic()).get("/v1/users").await.error(), "insufficient_scope");
    }
    assert_eq!(tenant.audit("access.refused").await.len(), 10);
    server.clock.advance(chrono::TimeDelta::seconds(61));
    server.with(&key.basic()).get("/v1/users").await;
    let entries = tenant.audit("access.refused").await;
    assert_eq!(entries.len(), 11);
    assert!(entries[0].detail.contains("\"not_written_before\":50"), "{}", entries[0].detail);
    assert_eq!(server.issuer.verify_audit(tenant.id, None).await.unwrap().map(|_| ()), Ok(()));
}

#[actix_web::test]
async fn scenario_71_what_was_done_for_another_names_both_and_is_seen_by_whom_it_was_done_for() {
    let server = Server::start().await;
    let (tenant, admin) = scene(&server).await;
    let caller = server.with(&admin.basic());
    let password = "correct horse battery staple";
    let make = async |name: &str| {
        let body = json!({ "username": name, "password": password, "scopes": ["r:r"] });
        caller.post("/v1/users", body).await.json()["id"].as_str().unwrap().to_owned()
    };
    let (boss, user) = (make("admin").await, make("user").await);
    let order = json!({ "user_id": user, "name": "lent", "scopes": ["r:r"], "agents": ["admin"] });
    let lent = caller.post("/v1/keys", order).await.json();
    let resource_server = tenant.app_key("rs", &["verify"]).await;
    let pair = format!("user:lent:{}", lent["api_secret"].as_str().unwrap());
    let question = json!({
        "authorization": basic(&format!("admin:{password}")), "x_impersonating": basic(&pair), "ip": "198.51.100.7"
    });
    let answer = server.with(&resource_server.basic()).post("/v1/verify", question).await;
    assert_eq!(answer.json()["allow"], true, "{}", answer.text);
    let entries = caller.get("/v1/audit?action=impersonate").await.json();
    let entry = &entries["items"][0];
    assert_eq!(entry["actor"], format!("user:{boss}"));
    assert_eq!(entry["subject"], format!("user:{user}"));
    assert_eq!(entry["on_behalf"], "admin on behalf of user");
    assert_eq!((&entry["ip"], &entry["outcome"]), (&json!("198.51.100.7"), &json!("ok")));
    let mine = async |name: &str| {
        let login = tenant.log_in(name, password).await;
        let header = format!("Bearer {}", login["access_token"].as_str().unwrap());
        server.with(&header).get("/v1/me/impersonations").await.json()["items"].as_array().unwrap().clone()
    };
    assert_eq!(mine("user").await.len(), 1);
    assert_eq!(mine("user").await[0]["on_behalf"], "admin on behalf of user");
    assert_eq!(mine("admin").await.len(), 0);
}
