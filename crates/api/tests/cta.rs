//! A tenant of the preset `cta`: what the CTA Aggregator's clients do with it (SEEDS scenarios 1 to 4, 7 to 13 and 21).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod binary_support;
mod support;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use binary_support::Home;
use chrono::TimeDelta;
use claviger_issuer::audit::Actor;
use claviger_issuer::key::KeyChange;
use claviger_issuer::settings::TenantSettings;
use claviger_issuer::tenant::NewTenant;
use claviger_issuer::user::UserChange;
use claviger_store::id::Owner;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::wire::send;
use support::{Answer, Key, Options, Server, Tenant, basic, claims, detail, jose_header};

/// The tenant, and the key of its developer foo@example.com.
struct Scene<'a> {
    tenant: Tenant<'a>,
    dev: Key,
}

impl<'a> Scene<'a> {
    async fn with(server: &'a Server, settings: Value) -> Self {
        let settings: TenantSettings = serde_json::from_value(settings).unwrap();
        let new = NewTenant { slug: "cta".into(), name: None, settings, preset: Some("cta".into()) };
        let id = server.issuer.create_tenant(&Actor::operator(), new).await.unwrap().id;
        let tenant = Tenant { server, slug: "cta".into(), id };
        let dev = tenant.user_key("foo@example.com", &["events:read", "events:write"]).await;
        Self { tenant, dev }
    }

    async fn of(server: &'a Server) -> Self {
        Self::with(server, json!({})).await
    }

    /// As their client sends it: no body, JSON:API as its type.
    async fn exchange(&self, authorization: &str) -> Answer {
        let request = self.tenant.server.with(authorization).request(Method::POST, "/t/cta/v1/authentications");
        send(request.header("Content-Type", "application/vnd.api+json")).await
    }

    async fn token(&self) -> String {
        let answer = self.exchange(&self.dev.pair()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json()["jwt"].as_str().unwrap().to_owned()
    }

    async fn me(&self, authorization: &str) -> Answer {
        self.tenant.server.with(authorization).get("/t/cta/v1/me").await
    }
}

#[actix_web::test]
async fn scenario_01_a_key_and_secret_become_a_token_of_a_day() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let answer = scene.exchange(&scene.dev.pair()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/json");
    let body = answer.json();
    let names: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(names, ["jwt"], "and nothing else");
    let jwt = body["jwt"].as_str().unwrap();
    let told = claims(jwt);
    assert_eq!((&told["sub"], &told["admin"]), (&json!(scene.dev.subject()), &json!(false)));
    assert_eq!(told["exp"].as_i64().unwrap() - told["iat"].as_i64().unwrap(), 86_400);
    let header = jose_header(jwt);
    assert_eq!(header["alg"], "EdDSA");
    let keys = server.anonymous().get("/t/cta/.well-known/jwks.json").await.json();
    assert!(keys["keys"].as_array().unwrap().iter().any(|key| key["kid"] == header["kid"]));
    let entry = &scene.tenant.audit("key.exchange").await[0];
    assert_eq!((entry.actor.as_str(), entry.outcome.as_str()), (format!("key:{}", scene.dev.id).as_str(), "ok"));
    let shown = server.issuer.find_key(scene.tenant.id, &scene.dev.key_id()).await.unwrap();
    assert!(shown.last_used_at.is_some(), "its last use is known");
}

#[actix_web::test]
async fn scenario_02_03_04_whatever_is_no_pair_is_404_and_one_is_like_the_other() {
    let server = Server::start_with(Options { throttle: support::UNTHROTTLED, ..Options::default() }).await;
    let scene = Scene::of(&server).await;
    let wrong = scene.exchange(&format!("{}:wrong", scene.dev.id)).await;
    assert_eq!(wrong.status, StatusCode::NOT_FOUND);
    let refused = &scene.tenant.audit("key.exchange").await[0];
    assert_eq!(detail(refused)["reason"], "wrong_secret");
    assert!(!wrong.text.contains("wrong"), "why is not told");
    let unknown = scene.exchange("nokey:S1").await;
    assert_eq!((unknown.status, &unknown.text), (StatusCode::NOT_FOUND, &wrong.text));
    for header in [&scene.dev.id, &format!("{}:", scene.dev.id), ":S1", "Bearer x", ""] {
        let answer = scene.exchange(header).await;
        assert_eq!((answer.status, &answer.text), (StatusCode::NOT_FOUND, &wrong.text), "{header}");
    }
    let absent = server.anonymous().post_empty("/t/cta/v1/authentications").await;
    assert_eq!((absent.status, &absent.text), (StatusCode::NOT_FOUND, &wrong.text));
}

#[actix_web::test]
async fn scenario_07_basic_works_too_and_at_the_root_the_key_names_its_tenant() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    assert_eq!(scene.exchange(&basic(&scene.dev.pair())).await.status, StatusCode::CREATED);
    let answer = server.with(&scene.dev.pair()).post_empty("/v1/authentications").await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let told = claims(answer.json()["jwt"].as_str().unwrap());
    assert_eq!((&told["iss"], told.get("aud")), (&json!("http://id.test/t/cta"), None));
}

#[actix_web::test]
async fn scenario_08_09_10_the_token_is_taken_leniently_until_it_ends() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let jwt = scene.token().await;
    for header in
        [format!("Bearer {jwt}"), format!("bearer {jwt}"), format!("Bearer: {jwt}"), format!("bearer: {jwt}"), jwt.clone()]
    {
        let me = scene.me(&header).await;
        assert_eq!(me.status, StatusCode::OK, "{header}: {}", me.text);
        let me = me.json();
        assert_eq!((&me["sub"], &me["username"]), (&json!(scene.dev.subject()), &json!("foo@example.com")));
        assert_eq!((&me["scope"], &me["tenant"]), (&json!("events:read events:write"), &json!("cta")));
    }
    let nobody = server.anonymous().get("/t/cta/v1/me").await;
    assert_eq!((nobody.status, nobody.header("www-authenticate")), (StatusCode::UNAUTHORIZED, "Bearer"));
    let mut signature = URL_SAFE_NO_PAD.decode(jwt.rsplit('.').next().unwrap()).unwrap();
    signature[7] ^= 1;
    let tampered = format!("{}.{}", jwt.rsplit_once('.').unwrap().0, URL_SAFE_NO_PAD.encode(signature));
    for header in ["Bearer abcd.efgh".to_owned(), "Bearer: abcd.efgh".into(), "abcd.efgh".into(), format!("Bearer {tampered}")] {
        let refused = scene.me(&header).await;
        assert_eq!((refused.status, refused.error().as_str()), (StatusCode::UNAUTHORIZED, "invalid_token"), "{header}");
    }
    // A pair is no token, and is not taken for one.
    assert_eq!(scene.me(&scene.dev.pair()).await.error(), "unauthenticated");
    // What services send on is read as leniently.
    let asker = scene.tenant.app_key("asker", &["verify"]).await;
    let ask = async |header: String| {
        let body = json!({ "authorization": header, "require": { "permission": "events:write" } });
        server.with(&asker.basic()).post("/t/cta/v1/verify", body).await.json()["allow"].as_bool().unwrap()
    };
    assert!(ask(format!("Bearer: {jwt}")).await && ask(jwt.clone()).await);

    server.clock.advance(TimeDelta::seconds(86_399));
    assert_eq!(scene.me(&format!("Bearer {jwt}")).await.status, StatusCode::OK);
    server.clock.advance(TimeDelta::seconds(1));
    assert_eq!(scene.me(&format!("Bearer {jwt}")).await.error(), "invalid_token");
}

#[actix_web::test]
async fn scenario_10_without_the_setting_a_colon_is_no_scheme() {
    let server = Server::start().await;
    let scene = Scene::with(&server, json!({})).await;
    let mut settings = server.issuer.find_tenant("cta").await.unwrap().settings;
    settings["lenient_bearer"] = json!(false);
    let change =
        claviger_issuer::tenant::TenantChange { settings: Some(serde_json::from_value(settings).unwrap()), ..Default::default() };
    server.issuer.change_tenant(&Actor::operator(), "cta", change).await.unwrap();
    let jwt = scene.token().await;
    assert_eq!(scene.me(&format!("Bearer: {jwt}")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(scene.me(&jwt).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(scene.me(&format!("BEARER {jwt}")).await.status, StatusCode::OK);
}

#[actix_web::test]
async fn scenario_11_the_sixth_attempt_is_429_and_from_elsewhere_the_key_works() {
    let server = Server::start_with(Options { trusted_proxies: vec!["127.0.0.1/32"], ..Options::default() }).await;
    let scene = Scene::of(&server).await;
    let from = async |pair: &str, address: &str| {
        let request = server.with(pair).request(Method::POST, "/t/cta/v1/authentications");
        send(request.header("X-Forwarded-For", address)).await
    };
    let wrong = format!("{}:wrong", scene.dev.id);
    for _ in 0..5 {
        assert_eq!(from(&wrong, "198.51.100.1").await.status, StatusCode::NOT_FOUND);
    }
    let sixth = from(&wrong, "198.51.100.1").await;
    assert_eq!(sixth.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(sixth.header("retry-after").parse::<u64>().unwrap() > 0);
    assert_eq!(from(&scene.dev.pair(), "198.51.100.2").await.status, StatusCode::CREATED);
}

#[actix_web::test]
async fn scenario_12_plain_http_is_403_where_https_is_wanted() {
    let server = Server::start_with(Options { trusted_proxies: vec!["127.0.0.1/32"], ..Options::default() }).await;
    let scene = Scene::with(&server, json!({ "require_https": true })).await;
    let plain = scene.exchange(&scene.dev.pair()).await;
    assert_eq!((plain.status, plain.error().as_str()), (StatusCode::FORBIDDEN, "https-required"));
    let request = server.with(&scene.dev.pair()).request(Method::POST, "/t/cta/v1/authentications");
    let https = send(request.header("X-Forwarded-Proto", "https")).await;
    assert_eq!(https.status, StatusCode::CREATED);
    assert!(https.header("strict-transport-security").starts_with("max-age="));
}

#[actix_web::test]
async fn scenario_13_a_token_holds_what_was_asked_for_or_there_is_none() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let ask =
        async |scope: &str| server.with(&scene.dev.pair()).post("/t/cta/v1/authentications", json!({ "scope": scope })).await;
    let less = ask("events:read").await;
    assert_eq!(less.status, StatusCode::CREATED, "{}", less.text);
    let jwt = less.json()["jwt"].as_str().unwrap().to_owned();
    assert_eq!(claims(&jwt)["scope"], "events:read");
    assert_eq!(scene.me(&format!("Bearer {jwt}")).await.json()["scope"], "events:read");
    let more = ask("users:admin").await;
    assert_eq!((more.status, more.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_scope"));
    assert!(!more.text.contains("jwt"));
}

#[actix_web::test]
async fn the_claim_admin_is_true_for_a_key_that_was_given_the_role_as_long_as_its_owner_has_it() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let user = match scene.dev.owner {
        Owner::User(user) => user,
        Owner::Application(_) => panic!("a person's"),
    };
    let roles = async |roles: &[&str]| {
        let roles = Some(roles.iter().map(|role| (*role).to_owned()).collect());
        let change = UserChange { roles, ..UserChange::default() };
        server.issuer.change_user(scene.tenant.id, &Actor::operator(), user, change).await.unwrap();
    };
    roles(&["admin"]).await;
    assert_eq!(claims(&scene.token().await)["admin"], false, "a key does no more than it was given");
    let change = KeyChange { roles: Some(vec!["admin".into()]), ..KeyChange::default() };
    server.issuer.change_key(scene.tenant.id, &Actor::operator(), &scene.dev.key_id(), change).await.unwrap();
    assert_eq!(claims(&scene.token().await)["admin"], true);
    roles(&[]).await;
    assert_eq!(claims(&scene.token().await)["admin"], false);
}

#[actix_web::test]
async fn a_developer_asks_an_admin_approves_and_the_pair_is_good_for_a_token() {
    let server = Server::start().await;
    server.default_tenant().await;
    let scene = Scene::of(&server).await;
    let boss = scene.tenant.admin().await;
    let wish = json!({ "app_name": "MyApp", "email": "Dev@Example.com", "reason": "to create events" });
    let asked = server.anonymous().post("/t/cta/v1/key-requests", wish).await;
    assert_eq!(asked.status, StatusCode::ACCEPTED, "{}", asked.text);
    let path = format!("/t/cta/v1/key-requests/{}/approve", asked.json()["id"].as_str().unwrap());
    let made = server.with(&boss.basic()).post(&path, json!({ "scopes": ["events:write"], "expires_in_days": 90 })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let made = made.json();
    let pair = format!("{}:{}", made["api_key"].as_str().unwrap(), made["api_secret"].as_str().unwrap());
    let jwt = scene.exchange(&pair).await.json()["jwt"].as_str().unwrap().to_owned();
    assert_eq!(claims(&jwt)["scope"], "events:write");
}

#[test]
fn scenario_21_create_key_prints_a_pair_once_and_a_blank_address_is_an_error() {
    let home = Home::new();
    home.ok(&["tenant", "create", "cta", "--preset", "cta"]);
    let out = home.ok(&["create-key", "--tenant", "cta", "--email", "New@example.com", "--scope", "events:write"]);
    let line = |name: &str| out.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert!(!line("api_key").is_empty() && line("api_secret").len() >= 32);
    assert_eq!(line("expires"), "never", "as the preset says");
    assert!(out.contains("kept nowhere"));
    let listed = home.ok(&["key", "list", "--tenant", "cta"]);
    assert!(listed.contains(&line("api_key")) && !listed.contains(&line("api_secret")));
    assert!(home.fails(&["create-key", "--tenant", "cta", "--email", ""]).contains("can't be blank"));
    // An admin's.
    home.ok(&["user", "set-roles", "--tenant", "cta", "new@example.com", "--role", "admin"]);
    home.json(&["create-key", "--tenant", "cta", "--email", "new@example.com", "--role", "admin"]);
}
