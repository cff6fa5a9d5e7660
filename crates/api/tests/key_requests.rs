//! Developers ask for keys, admins decide, links show the secret once, and mail gets out.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

#[path = "support/people.rs"]
mod people;
mod support;

use std::sync::{Arc, Mutex};

use claviger_issuer::mail::{Mail, Post};
use claviger_issuer::settings::TenantSettings;
use people::{Browser, form_token};
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Answer, Key, Options, Server, Tenant};

struct Scene<'a> {
    tenant: Tenant<'a>,
    boss: Key,
}

impl<'a> Scene<'a> {
    async fn new(server: &'a Server, settings: Value) -> Scene<'a> {
        server.default_tenant().await;
        let tenant = server.tenant_with("cta", serde_json::from_value::<TenantSettings>(settings).unwrap()).await;
        let boss = tenant.admin().await;
        Self { tenant, boss }
    }

    async fn ask(&self, body: Value) -> Answer {
        self.tenant.server.anonymous().post(&self.tenant.path("/v1/key-requests"), body).await
    }

    async fn asked(&self, app: &str, email: &str) -> String {
        let answer = self.ask(json!({ "app_name": app, "email": email, "reason": "to try" })).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        assert_eq!(answer.json()["status"], "pending");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    async fn decide(&self, id: &str, what: &str, body: Value) -> Answer {
        self.tenant.server.with(&self.boss.basic()).post(&self.tenant.path(&format!("/v1/key-requests/{id}/{what}")), body).await
    }

    async fn show(&self, id: &str) -> Value {
        self.tenant.server.with(&self.boss.basic()).get(&self.tenant.path(&format!("/v1/key-requests/{id}"))).await.json()
    }

    async fn rows(&self) -> i64 {
        let mut database = self.tenant.server.database.superuser().await;
        sqlx::query_scalar("SELECT count(*) FROM key_requests").fetch_one(&mut database).await.unwrap()
    }
}

/// Keeps what it is given; or takes nothing.
#[derive(Default, Clone)]
struct Letterbox {
    mail: Arc<Mutex<Vec<(String, String, String)>>>,
    shut: Arc<Mutex<bool>>,
}

impl Post for Letterbox {
    async fn send(&self, mail: &Mail) -> Result<(), String> {
        if *self.shut.lock().unwrap() {
            return Err("shut".into());
        }
        self.mail.lock().unwrap().push((mail.to.clone(), mail.subject.clone(), mail.text.clone()));
        Ok(())
    }
}

impl Letterbox {
    /// The path of the link in the newest message.
    fn link(&self) -> String {
        let mail = self.mail.lock().unwrap();
        let text = &mail.last().expect("no mail").2;
        let at = text.find("http://id.test/t/cta/").unwrap();
        text[at + "http://id.test/t/cta".len()..].split_whitespace().next().unwrap().to_owned()
    }
}

#[actix_web::test]
async fn scenario_14_15_anybody_asks_and_asking_again_is_the_same_request() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    let id = scene.asked("MyApp", "Dev@Example.com").await;
    assert_eq!(scene.asked("MyApp", "dev@example.com").await, id);
    assert_eq!(scene.asked(" myapp ", "DEV@example.COM").await, id);
    assert_eq!(scene.rows().await, 1);
    assert_eq!(scene.show(&id).await["email"], "dev@example.com");
    assert_eq!(scene.tenant.audit("key_request.create").await.len(), 1);
    assert_ne!(scene.asked("Other", "dev@example.com").await, id);
    // Twenty at once are one.
    let all = futures_util::future::join_all((0..10).map(|_| scene.asked("Race", "race@example.com"))).await;
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    assert_eq!(scene.rows().await, 3);
    for (body, field) in [
        (json!({ "app_name": "MyApp" }), "email"),
        (json!({ "app_name": "MyApp", "email": "" }), "email"),
        (json!({ "app_name": "MyApp", "email": "dev" }), "email"),
        (json!({ "app_name": "MyApp", "email": "a@b.c\r\nBcc: d@e.f" }), "email"),
        (json!({ "app_name": "MyApp", "email": "a@b.c, d@e.f" }), "email"),
        (json!({ "email": "dev@example.com" }), "app_name"),
        (json!({ "app_name": " ", "email": "dev@example.com" }), "app_name"),
        (json!({ "app_name": "a\nb", "email": "dev@example.com" }), "app_name"),
        (json!({ "app_name": "a", "email": "dev@example.com", "reason": "x".repeat(1001) }), "reason"),
        (json!({ "app_name": "a", "email": "dev@example.com", "scopes": ["x:y"] }), "scopes"),
    ] {
        assert_eq!(scene.ask(body.clone()).await.wrong_field(), field, "{body}");
    }
    assert_eq!(server.anonymous().post("/t/nobody/v1/key-requests", json!({})).await.status, StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn requests_from_one_address_are_counted() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    for n in 0..20 {
        scene.asked(&format!("App {n}"), "dev@example.com").await;
    }
    let answer = scene.ask(json!({ "app_name": "More", "email": "dev@example.com" })).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.text);
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
    assert_eq!(scene.rows().await, 20);
    server.clock.advance(chrono::TimeDelta::seconds(3601));
    scene.asked("More", "dev@example.com").await;
}

#[actix_web::test]
async fn scenario_16_17_an_admin_approves_once_and_the_pair_works() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    let id = scene.asked("MyApp", "dev@example.com").await;
    // Not just anybody decides.
    let foo = scene.tenant.app_key("foo", &["events:write"]).await;
    let path = scene.tenant.path(&format!("/v1/key-requests/{id}/approve"));
    let order = json!({ "scopes": ["events:write"], "expires_in_days": 90 });
    assert_eq!(server.with(&foo.basic()).post(&path, order.clone()).await.error(), "insufficient_scope");
    let clerk = scene.tenant.app_key("clerk", &["keys:write"]).await;
    assert_eq!(server.with(&clerk.basic()).post(&path, order.clone()).await.error(), "insufficient_scope", "more than it holds");
    let other = server.tenant("other").await;
    let stranger = other.admin().await;
    let foreign = other.path(&format!("/v1/key-requests/{id}"));
    assert_eq!(server.with(&stranger.basic()).get(&foreign).await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        server.with(&stranger.basic()).post(&format!("{foreign}/approve"), order.clone()).await.status,
        StatusCode::NOT_FOUND
    );
    // For an application of nobody, or of another tenant: nothing is approved.
    for application in [json!("00000000-0000-4000-8000-000000000000"), json!(other.application("portal").await)] {
        for deliver in ["answer", "claim_link"] {
            let mut order = order.clone();
            order["application_id"] = application.clone();
            order["deliver"] = json!(deliver);
            assert_eq!(scene.decide(&id, "approve", order).await.wrong_field(), "application_id", "{deliver}");
        }
    }
    assert_eq!(scene.show(&id).await["status"], "pending");

    let answer = scene.decide(&id, "approve", order.clone()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let made = answer.json();
    let (key, secret) = (made["api_key"].as_str().unwrap(), made["api_secret"].as_str().unwrap());
    assert!(secret.len() >= 32);
    let days =
        (made["expires_at"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap() - server.clock.now()).num_days();
    assert_eq!(days, 90);
    let token = server.with(&format!("{key}:{secret}")).post_empty("/v1/authentications").await;
    assert_eq!(token.status, StatusCode::CREATED, "{}", token.text);
    assert_eq!(support::claims(token.json()["jwt"].as_str().unwrap())["scope"], "events:write");
    assert_eq!(scene.tenant.audit("key.create").await.iter().filter(|entry| entry.target == format!("key:{key}")).count(), 1);
    assert_eq!(scene.decide(&id, "approve", order.clone()).await.status, StatusCode::CONFLICT);
    assert_eq!(scene.decide(&id, "deny", json!({})).await.status, StatusCode::CONFLICT);
    let shown = scene.show(&id).await;
    assert_eq!((&shown["status"], &shown["api_key"]), (&json!("claimed"), &json!(key)));
    assert!(!shown.to_string().contains(secret));
    // Denied: no key.
    let id = scene.asked("Second", "second@example.com").await;
    let denied = scene.decide(&id, "deny", json!({ "reason": "We do not know this application" })).await;
    assert_eq!((denied.status, &denied.json()["status"]), (StatusCode::OK, &json!("denied")));
    assert_eq!(denied.json()["api_key"], Value::Null);
    // Asked again, it is a new one; two that decide at once: one wins.
    let id = scene.asked("Second", "second@example.com").await;
    let both = futures_util::future::join_all((0..6).map(|_| scene.decide(&id, "approve", order.clone()))).await;
    let won = both.iter().filter(|answer| answer.status == StatusCode::CREATED).count();
    assert_eq!(won, 1, "{:?}", both.iter().map(|answer| answer.text.clone()).collect::<Vec<_>>());
    // An application's.
    let application = scene.tenant.application("portal").await;
    let id = scene.asked("Third", "third@example.com").await;
    let made = scene.decide(&id, "approve", json!({ "scopes": [], "application_id": application })).await.json();
    assert_eq!(made["application_id"], json!(application));
    for (body, field) in [
        (json!({ "scopes": ["x"] }), "scopes"),
        (json!({ "scopes": [], "expires_in_days": 0 }), "expires_in_days"),
        (json!({ "scopes": [], "deliver": "pigeon" }), "deliver"),
    ] {
        assert_eq!(scene.decide(&id, "approve", body.clone()).await.wrong_field(), field, "{body}");
    }
}

#[actix_web::test]
async fn a_request_that_nobody_confirmed_never_leads_to_somebodys_key() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    let body = json!({ "username": "foo", "email": "foo@example.com", "roles": ["tenant-admin"] });
    server.with(&scene.boss.basic()).post(&scene.tenant.path("/v1/users"), body).await;
    let id = scene.asked("MyApp", "Foo@example.com").await;
    let answer = scene.decide(&id, "approve", json!({ "scopes": ["events:write"] })).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
    let application = scene.tenant.application("portal").await;
    let answer = scene.decide(&id, "approve", json!({ "scopes": ["events:write"], "application_id": application })).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
}

#[actix_web::test]
async fn a_claim_link_shows_the_pair_once_and_opening_it_changes_nothing() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    let post = Letterbox::default();
    let id = scene.asked("<b>MyApp</b>", "dev@example.com").await;
    let answer = scene.decide(&id, "approve", json!({ "scopes": ["events:read"], "deliver": "claim_link" })).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    assert_eq!(answer.json().get("api_secret"), None);
    assert_eq!(scene.show(&id).await["status"], "approved");
    *post.shut.lock().unwrap() = true;
    assert_eq!(server.issuer.send_mail(scene.tenant.id, &post).await.unwrap(), 0);
    // The server was down; a while later it is not.
    *post.shut.lock().unwrap() = false;
    assert_eq!(server.issuer.send_mail(scene.tenant.id, &post).await.unwrap(), 0, "not at once");
    server.clock.advance(chrono::TimeDelta::seconds(6));
    assert_eq!(server.issuer.send_mail(scene.tenant.id, &post).await.unwrap(), 1);
    assert_eq!(server.issuer.send_mail(scene.tenant.id, &post).await.unwrap(), 0, "and once");
    let link = post.link();
    assert!(answer.json()["claim_link"].as_str().unwrap().ends_with(&link));
    assert_eq!(post.mail.lock().unwrap()[0].0, "dev@example.com");

    let mut browser = Browser::at(&scene.tenant);
    for _ in 0..3 {
        let page = browser.get(&link).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.text.contains("&#60;b&#62;MyApp") && !page.text.contains("cs_"), "{}", page.text);
        assert_eq!(page.header("cache-control"), "no-store");
    }
    let csrf = form_token(&browser.get(&link).await.text);
    // P24: another site cannot press the button.
    let forged = browser
        .submit_with(&link, &[("csrf", &csrf)], &[("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")])
        .await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    let forged = browser.submit(&link, &[("csrf", "x")]).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    // Of ten at once, one sees the pair.
    let all = futures_util::future::join_all((0..10).map(|_| {
        let mut browser = browser.clone();
        let (link, csrf) = (link.clone(), csrf.clone());
        async move { browser.submit(&link, &[("csrf", &csrf)]).await }
    }))
    .await;
    let seen: Vec<&Answer> = all.iter().filter(|answer| answer.status == StatusCode::OK).collect();
    assert_eq!(seen.len(), 1);
    assert!(all.iter().filter(|answer| answer.status == StatusCode::NOT_FOUND).count() == 9);
    let code = |n: usize| seen[0].text.split("<code>").nth(n).unwrap().split('<').next().unwrap().to_owned();
    let pair = format!("{}:{}", code(1), code(2));
    assert_eq!(server.with(&pair).post_empty("/v1/authentications").await.status, StatusCode::CREATED);
    assert_eq!(browser.get(&link).await.status, StatusCode::NOT_FOUND);
    assert_eq!(scene.show(&id).await["status"], "claimed");
    // Too late is too late, and no other link is good.
    let id = scene.asked("Late", "late@example.com").await;
    let answer = scene.decide(&id, "approve", json!({ "scopes": [], "deliver": "claim_link" })).await.json();
    let late = answer["claim_link"].as_str().unwrap().strip_prefix("http://id.test/t/cta").unwrap().to_owned();
    server.clock.advance(chrono::TimeDelta::days(8));
    assert_eq!(browser.get(&late).await.status, StatusCode::NOT_FOUND);
    assert_eq!(browser.get("/claim/x").await.status, StatusCode::NOT_FOUND);
    assert_eq!(browser.get(&late.replace("/claim/", "/confirm/")).await.status, StatusCode::NOT_FOUND);
    // What waits is sealed, and links are kept as digests.
    let mut database = server.database.superuser().await;
    for table in ["key_request_links", "mail_outbox", "audit_entries"] {
        let query = sqlx::AssertSqlSafe(format!("SELECT coalesce(string_agg(to_jsonb(t)::text, ''), '') FROM {table} t"));
        let rows: String = sqlx::query_scalar(query).fetch_one(&mut database).await.unwrap();
        assert!(!rows.contains("cl_") && !rows.contains("example.com"), "{table}: {rows}");
    }
}

#[actix_web::test]
async fn where_mail_reaches_people_they_confirm_and_a_rule_may_approve() {
    let options = Options { confirm_addresses: true, ..Options::default() };
    let server = Server::start_with(options).await;
    let rule = json!({ "key_requests": { "auto_approve": {
        "email_domains": ["example.com"], "scopes": ["events:read"], "expires_in_days": 30
    } } });
    let scene = Scene::new(&server, rule).await;
    let post = Letterbox::default();
    let mut browser = Browser::at(&scene.tenant);
    let mut confirmed = async |app: &str, email: &str| {
        let id = scene.asked(app, email).await;
        assert_eq!(scene.show(&id).await["confirmed"], false);
        server.issuer.send_mail(scene.tenant.id, &post).await.unwrap();
        let link = post.link();
        assert!(link.starts_with("/confirm/cl_"), "{link}");
        let page = browser.get(&link).await;
        assert_eq!(scene.show(&id).await["confirmed"], false, "opening confirms nothing");
        let done = browser.submit(&link, &[("csrf", &form_token(&page.text))]).await;
        assert_eq!(done.status, StatusCode::OK, "{}", done.text);
        assert_eq!(browser.get(&link).await.status, StatusCode::NOT_FOUND);
        id
    };
    let id = confirmed("Theirs", "dev@elsewhere.example").await;
    let shown = scene.show(&id).await;
    assert_eq!((&shown["status"], &shown["confirmed"]), (&json!("pending"), &json!(true)));
    let id = confirmed("Ours", "dev@example.com").await;
    let shown = scene.show(&id).await;
    assert_eq!((&shown["status"], &shown["decided_by"]), (&json!("approved"), &json!("rule:auto_approve")));
    server.issuer.send_mail(scene.tenant.id, &post).await.unwrap();
    let link = post.link();
    assert!(link.starts_with("/claim/"));
    let page = browser.get(&link).await;
    let claimed = browser.submit(&link, &[("csrf", &form_token(&page.text))]).await;
    assert!(claimed.text.contains("events:read") && claimed.text.contains("cs_"), "{}", claimed.text);
}

#[actix_web::test]
async fn the_page_asks_as_the_endpoint_does() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    let mut browser = Browser::at(&scene.tenant);
    let csrf = browser.token_of("/request-key").await;
    let form = |email: &'static str| {
        [
            ("csrf", csrf.clone()),
            ("app_name", "Page \"app\"".to_owned()),
            ("email", email.to_owned()),
            ("reason", "a\r\nb".to_owned()),
        ]
    };
    let send = async |browser: &mut Browser<'_>, email: &'static str| {
        let form = form(email);
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        browser.submit("/request-key", &form).await
    };
    let wrong = send(&mut browser, "nonsense").await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(wrong.text.contains("role=\"alert\"") && wrong.text.contains("Page &#34;app&#34;"), "{}", wrong.text);
    let taken = send(&mut browser, "page@example.com").await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{}", taken.text);
    assert_eq!(scene.rows().await, 1);
    let forged =
        browser.submit_with("/request-key", &[("csrf", "x"), ("email", "a@b.c")], &[("Sec-Fetch-Site", "cross-site")]).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    // Where no requests are taken.
    let closed = TenantSettings {
        key_requests: Some(serde_json::from_value(json!({ "enabled": false })).unwrap()),
        ..TenantSettings::default()
    };
    let tenant = server.tenant_with("closed", closed).await;
    assert_eq!(Browser::at(&tenant).get("/request-key").await.status, StatusCode::NOT_FOUND);
    let answer = server.anonymous().post(&tenant.path("/v1/key-requests"), json!({ "app_name": "a", "email": "a@b.c" })).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}
