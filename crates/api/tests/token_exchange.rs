//! Token exchange (RFC 8693): who may act for whom, with what, and for how long.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod support;

use claviger_issuer::settings::TenantSettings;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Answer, Key, Options, Server, Tenant, claims};

const PASSWORD: &str = "correct horse battery staple";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const IMPERSONATION_KEY: &str = "urn:claviger:params:oauth:token-type:impersonation-key";
const USER: &str = "urn:claviger:params:oauth:token-type:user";

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

struct Scene<'a> {
    tenant: Tenant<'a>,
    admin: Key,
}

impl<'a> Scene<'a> {
    async fn new(server: &'a Server, settings: Value) -> Scene<'a> {
        server.default_tenant().await;
        let tenant = server.tenant_with("how", serde_json::from_value::<TenantSettings>(settings).unwrap()).await;
        let admin = tenant.admin().await;
        Self { tenant, admin }
    }

    async fn manage(&self, method: Method, path: &str, body: Value) -> Value {
        let caller = self.tenant.server.with(&self.admin.basic());
        let answer = Answer::of(caller.request(method, &self.tenant.path(path)).json(&body).send().await.unwrap()).await;
        assert!(answer.status.is_success(), "{path} {body}: {}", answer.text);
        if answer.text.is_empty() { Value::Null } else { answer.json() }
    }

    async fn person(&self, name: &str, scopes: &[&str]) -> String {
        let body = json!({ "username": name, "password": PASSWORD, "scopes": scopes });
        self.manage(Method::POST, "/v1/users", body).await["id"].as_str().unwrap().to_owned()
    }

    async fn login(&self, name: &str) -> String {
        self.tenant.log_in(name, PASSWORD).await["access_token"].as_str().unwrap().to_owned()
    }

    async fn key(&self, order: Value) -> (String, String) {
        let made = self.manage(Method::POST, "/v1/keys", order).await;
        (made["api_key"].as_str().unwrap().to_owned(), made["api_secret"].as_str().unwrap().to_owned())
    }

    /// Asks at the token endpoint, as this client if one is named.
    async fn exchange(&self, client: Option<&Key>, form: &[(&str, &str)]) -> Answer {
        let server = self.tenant.server;
        let caller = client.map_or_else(|| server.anonymous(), |key| server.with(&key.basic()));
        let form = [&[("grant_type", EXCHANGE)], form].concat();
        Answer::of(caller.request(Method::POST, &self.tenant.path("/v1/token")).form(&form).send().await.unwrap()).await
    }
}

fn lent(answer: &Answer) -> (String, Value) {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let body = answer.json();
    assert_eq!(body["issued_token_type"], ACCESS_TOKEN);
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body.get("refresh_token"), None);
    let token = body["access_token"].as_str().unwrap().to_owned();
    let claims = claims(&token);
    (token, claims)
}

fn refused(answer: &Answer, error: &str) {
    assert!(answer.status.is_client_error(), "{}", answer.text);
    assert_eq!(answer.json()["error"], error, "{}", answer.text);
    assert!(!answer.text.contains("access_token\":"));
}

#[actix_web::test]
async fn the_limits_of_a_lent_key_bind_whoever_acts_with_it() {
    let server = Server::start_with(Options { trusted_proxies: vec!["127.0.0.1/32"], ..Options::default() }).await;
    let scene = Scene::new(&server, json!({})).await;
    scene.person("admin", &["r:r"]).await;
    let user = scene.person("user", &["r:r"]).await;
    let order = json!({
        "user_id": user, "name": "lent", "scopes": ["r:r"], "agents": ["admin"],
        "allowed_ips": ["198.51.100.0/24"], "quota": { "requests": 1, "period": "day" },
    });
    let (_, secret) = scene.key(order).await;
    let actor = scene.login("admin").await;
    let key = format!("user:lent:{secret}");
    let ask = async |address: &str| {
        let form = [
            ("grant_type", EXCHANGE),
            ("actor_token", actor.as_str()),
            ("actor_token_type", ACCESS_TOKEN),
            ("subject_token", key.as_str()),
            ("subject_token_type", IMPERSONATION_KEY),
        ];
        let request = server.anonymous().request(Method::POST, &scene.tenant.path("/v1/token"));
        Answer::of(request.header("x-forwarded-for", address).form(&form).send().await.unwrap()).await
    };
    refused(&ask("203.0.113.1").await, "invalid_request");
    let (_, said) = lent(&ask("198.51.100.7").await);
    assert_eq!(said["allowed_ips"], json!(["198.51.100.0/24"]), "for whoever verifies offline");
    let used_up = ask("198.51.100.7").await;
    refused(&used_up, "quota_exhausted");
    assert_eq!(used_up.status, StatusCode::TOO_MANY_REQUESTS);
}

#[actix_web::test]
async fn scenario_65_an_actor_exchanges_an_impersonation_key_for_a_token_of_both() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    let admin = scene.person("admin", &["r:r", "w:w", "e:e"]).await;
    let user = scene.person("user", &["r:r", "w:w", "x:x"]).await;
    scene.person("stranger", &["r:r", "w:w"]).await;
    let order = json!({ "user_id": user, "name": "impersonate_admin", "scopes": ["r:r", "w:w"], "agents": ["admin"] });
    let (id, secret) = scene.key(order).await;
    let actor = scene.login("admin").await;
    let key = format!("user:impersonate_admin:{secret}");
    let form = |actor: &str| {
        vec![
            ("actor_token", actor.to_owned()),
            ("actor_token_type", ACCESS_TOKEN.to_owned()),
            ("subject_token", key.clone()),
            ("subject_token_type", IMPERSONATION_KEY.to_owned()),
        ]
    };
    let ask = async |form: Vec<(&'static str, String)>| {
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        scene.exchange(None, &form).await
    };
    let answer = ask(form(&actor)).await;
    let (token, said) = lent(&answer);
    assert_eq!((&said["sub"], &said["act"]["sub"]), (&json!(user), &json!(admin)));
    assert_eq!(said["scope"], "r:r w:w", "what the key lends, and no more");
    assert!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap() <= 900);
    let me = server.with(&bearer(&token)).get("/v1/me").await.json();
    assert_eq!((&me["sub"], &me["username"]), (&json!(user), &json!("user")));
    assert_eq!(me["act"]["name"], "admin");
    // Narrower, never wider.
    let narrow = ask([form(&actor), vec![("scope", "r:r".into())]].concat()).await;
    assert_eq!(lent(&narrow).1["scope"], "r:r");
    refused(&ask([form(&actor), vec![("scope", "x:x".into())]].concat()).await, "invalid_scope");
    refused(&ask([form(&actor), vec![("scope", "e:e".into())]].concat()).await, "invalid_scope");
    // No chains: not as an actor, not as a subject.
    refused(&ask(form(&token)).await, "invalid_request");
    let gateway = scene.tenant.app_key("gateway", &["tokens:exchange"]).await;
    let again = [("subject_token", token.as_str()), ("subject_token_type", ACCESS_TOKEN)];
    refused(&scene.exchange(Some(&gateway), &again).await, "invalid_request");
    // Who is no agent, and who has no key.
    refused(&ask(form(&scene.login("stranger").await)).await, "invalid_request");
    let wrong = [
        ("actor_token", actor.as_str()),
        ("actor_token_type", ACCESS_TOKEN),
        ("subject_token", "user:impersonate_admin:0123456789012345678901"),
        ("subject_token_type", IMPERSONATION_KEY),
    ];
    refused(&scene.exchange(None, &wrong).await, "invalid_request");
    // Both are in the trail.
    let entries = scene.tenant.audit("impersonate").await;
    let done: Vec<_> = entries.iter().filter(|entry| entry.outcome == "ok").collect();
    assert_eq!(done.len(), 2);
    assert!(done.iter().all(|entry| entry.actor == format!("user:{admin}") && entry.subject == format!("user:{user}")));
    assert_eq!(entries.len() - done.len(), 5, "refusals of an actor who is known are written down");
    // What it stands on takes it along: the key, the actor, the person.
    let alive = async || server.with(&bearer(&token)).get("/v1/me").await.status;
    assert_eq!(alive().await, StatusCode::OK);
    for path in [format!("/v1/users/{user}"), format!("/v1/keys/{id}")] {
        scene.manage(Method::PATCH, &path, json!({ "disabled": true })).await;
        assert_eq!(alive().await, StatusCode::UNAUTHORIZED, "{path}");
        scene.manage(Method::PATCH, &path, json!({ "disabled": false })).await;
        assert_eq!(alive().await, StatusCode::OK, "{path}");
    }
    // The actor's login ends for good when the actor is disabled.
    for disabled in [true, false] {
        scene.manage(Method::PATCH, &format!("/v1/users/{admin}"), json!({ "disabled": disabled })).await;
        assert_eq!(alive().await, StatusCode::UNAUTHORIZED);
    }
    let (token, _) = lent(&ask(form(&scene.login("admin").await)).await);
    let alive = async || server.with(&bearer(&token)).get("/v1/me").await.status;
    assert_eq!(alive().await, StatusCode::OK);
    scene.manage(Method::DELETE, &format!("/v1/keys/{id}"), json!({})).await;
    assert_eq!(alive().await, StatusCode::UNAUTHORIZED);
}

#[actix_web::test]
async fn p33_whoever_acts_for_another_manages_nothing_and_changes_no_credential() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({ "impersonation": true })).await;
    let boss = scene.person("boss", &["events:read"]).await;
    scene.manage(Method::PATCH, &format!("/v1/users/{boss}"), json!({ "roles": ["tenant-admin"] })).await;
    let user = scene.person("user", &["events:read"]).await;
    let other = scene.person("other", &["events:write"]).await;
    let clerk = scene.person("clerk", &["events:read", "users:impersonate", "users:read"]).await;
    let act = async |actor: &str, subject: &str, more: &[(&str, &str)]| {
        let actor = scene.login(actor).await;
        let form = [
            &[
                ("actor_token", actor.as_str()),
                ("actor_token_type", ACCESS_TOKEN),
                ("subject_token", subject),
                ("subject_token_type", USER),
            ],
            more,
        ]
        .concat();
        scene.exchange(None, &form).await
    };
    let reason = [("reason", "ticket 4711")];
    refused(&act("clerk", &user, &[]).await, "invalid_request");
    let (token, said) = lent(&act("clerk", "user", &reason).await);
    assert_eq!((&said["sub"], &said["act"]["sub"], &said["scope"]), (&json!(user), &json!(clerk), &json!("events:read")));
    // Somebody who holds more, or manages more; somebody who may not at all; nobody.
    refused(&act("clerk", &other, &reason).await, "insufficient_scope");
    refused(&act("clerk", &boss, &reason).await, "insufficient_scope");
    refused(&act("user", &clerk, &reason).await, "insufficient_scope");
    refused(&act("clerk", "nobody", &reason).await, "invalid_request");
    // A boss acts for a clerk, and still manages nothing as that clerk.
    scene.manage(Method::PATCH, &format!("/v1/users/{boss}"), json!({ "scopes": ["events:read", "users:impersonate"] })).await;
    let (as_clerk, said) = lent(&act("boss", &clerk, &reason).await);
    assert_eq!(said["scope"], "events:read");
    for token in [&token, &as_clerk] {
        let caller = server.with(&bearer(token));
        assert_eq!(caller.get("/v1/users").await.error(), "insufficient_scope");
        let change = json!({ "current_password": PASSWORD, "new_password": "another long passphrase" });
        assert_eq!(caller.post("/v1/me/password", change).await.error(), "acting_for_another");
        assert_eq!(caller.get("/v1/me/sessions").await.error(), "acting_for_another");
        assert_eq!(caller.post("/v1/ws-tickets", json!({})).await.error(), "acting_for_another");
        assert_eq!(caller.get("/v1/me").await.status, StatusCode::OK);
    }
    let entry = &scene.tenant.audit("impersonate").await.into_iter().find(|entry| entry.outcome == "ok").unwrap();
    assert!(entry.detail.contains("ticket 4711"), "{}", entry.detail);
    // Off by default.
    let settings = claviger_issuer::tenant::TenantChange { settings: Some(TenantSettings::default()), ..Default::default() };
    server.issuer.change_tenant(&claviger_issuer::audit::Actor::operator(), "how", settings).await.unwrap();
    refused(&act("clerk", &user, &reason).await, "invalid_request");
}

/// What a server says of a token, at every place where it can be used: `/v1/me`, introspection, `verify`, forward-auth.
async fn said_of(server: &Server, tenant: &Tenant<'_>, asks: &Key, token: &str) -> [bool; 4] {
    let bearer = bearer(token);
    let asking = server.with(&asks.basic());
    let me = server.with(&bearer).get(&tenant.path("/v1/me")).await;
    let introspected = asking.introspect(&tenant.path("/v1/introspect"), token).await;
    let verified = asking.post(&tenant.path("/v1/verify"), json!({ "authorization": bearer })).await;
    let forward = server.with(&bearer).request(Method::GET, &tenant.path("/v1/forward-auth"));
    let forward = forward.header("X-Original-Method", "GET").header("X-Original-URL", "https://app.example.com/");
    let forwarded = Answer::of(forward.send().await.unwrap()).await;
    [
        me.status == StatusCode::OK,
        introspected.json()["active"] == true,
        verified.json()["allow"] == true,
        forwarded.status == StatusCode::OK,
    ]
}

#[actix_web::test]
async fn p33_acting_for_a_person_ends_with_every_ground_that_it_stands_on_at_every_server() {
    let server = Server::start().await;
    let other = server.replica(Options { clock: Some(server.clock.clone()), ..Options::default() }).await;
    let scene = Scene::new(&server, json!({ "impersonation": true })).await;
    let user = scene.person("user", &["events:read", "events:write"]).await;
    let scopes = ["events:read", "events:write", "users:impersonate"];
    let clerk = scene.person("clerk", &scopes).await;
    let set_scopes = async |scopes: &[&str]| {
        scene.manage(Method::PATCH, &format!("/v1/users/{clerk}"), json!({ "scopes": scopes })).await;
    };
    let set_key = async |key: &Key, change: Value| {
        scene.manage(Method::PATCH, &format!("/v1/keys/{}", key.id), change).await;
    };
    let set_impersonation = async |on: bool| {
        let settings = serde_json::from_value(json!({ "impersonation": on })).unwrap();
        let change = claviger_issuer::tenant::TenantChange { settings: Some(settings), ..Default::default() };
        server.issuer.change_tenant(&claviger_issuer::audit::Actor::operator(), "how", change).await.unwrap();
    };
    for ground in ["right", "setting", "key disabled", "key revoked", "client disabled", "client revoked", "logout", "actor"] {
        let name = ground.replace(' ', "-");
        let desk = scene.tenant.app_key(&format!("desk {name}"), &["events:read", "events:write", "users:impersonate"]).await;
        let login = scene.tenant.log_in("clerk", PASSWORD).await;
        let actor = login["access_token"].as_str().unwrap();
        let subject = [("subject_token", user.as_str()), ("subject_token_type", USER), ("reason", "ticket 4711")];
        let by_login = [&[("actor_token", actor), ("actor_token_type", ACCESS_TOKEN)], &subject[..]].concat();
        // A key by its own right; a person by theirs, at a client.
        let answer = match ground.starts_with("key") {
            true => scene.exchange(Some(&desk), &subject).await,
            false => scene.exchange(Some(&desk), &by_login).await,
        };
        let (token, claims) = lent(&answer);
        assert_eq!(claims["act"]["right"], "users:impersonate");
        for server in [&server, &other] {
            assert_eq!(said_of(server, &scene.tenant, &scene.admin, &token).await, [true; 4], "before: {ground}");
        }
        match ground {
            "right" => set_scopes(&scopes[..2]).await,
            "setting" => set_impersonation(false).await,
            "key disabled" | "client disabled" => set_key(&desk, json!({ "disabled": true })).await,
            "key revoked" | "client revoked" => {
                scene.manage(Method::DELETE, &format!("/v1/keys/{}", desk.id), json!({})).await;
            }
            "logout" => {
                let out = server.with(&bearer(actor)).post_empty(&scene.tenant.path("/v1/logout")).await;
                assert!(out.status.is_success(), "{}", out.text);
            }
            _ => {
                scene.manage(Method::PATCH, &format!("/v1/users/{clerk}"), json!({ "disabled": true })).await;
            }
        }
        for server in [&server, &other] {
            server.settle().await;
            assert_eq!(said_of(server, &scene.tenant, &scene.admin, &token).await, [false; 4], "after: {ground}");
        }
        match ground {
            "right" => set_scopes(&scopes).await,
            "setting" => set_impersonation(true).await,
            _ => {}
        }
    }
}

#[actix_web::test]
async fn p33_whoever_acts_can_do_no_more_than_they_still_can_themselves() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({ "impersonation": true })).await;
    let user = scene.person("user", &["events:read", "events:write"]).await;
    let clerk = scene.person("clerk", &["events:read", "events:write", "users:impersonate"]).await;
    let actor = scene.login("clerk").await;
    let form = [
        ("actor_token", actor.as_str()),
        ("actor_token_type", ACCESS_TOKEN),
        ("subject_token", user.as_str()),
        ("subject_token_type", USER),
        ("reason", "ticket 4711"),
    ];
    let (token, claims) = lent(&scene.exchange(None, &form).await);
    assert_eq!((&claims["scope"], claims["act"]["sid"].is_string()), (&json!("events:read events:write"), true));
    let scope = async || server.with(&bearer(&token)).get("/v1/me").await.json()["scope"].clone();
    assert_eq!(scope().await, "events:read events:write");
    let less = json!({ "scopes": ["events:read", "users:impersonate"] });
    scene.manage(Method::PATCH, &format!("/v1/users/{clerk}"), less).await;
    assert_eq!(scope().await, "events:read");
}

#[actix_web::test]
async fn an_exchanged_token_ends_with_the_client_that_exchanged_it_and_is_a_use_of_its_keys() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    let user = scene.person("user", &["events:read"]).await;
    let own = scene
        .tenant
        .key_of(claviger_store::id::Owner::User(user.parse().map(claviger_store::id::UserId).unwrap()), &["events:read"])
        .await;
    let gateway = scene.tenant.app_key("gateway", &["tokens:exchange"]).await;
    let agent = scene.tenant.app_key("agent", &["events:read"]).await;
    let subject = server.with(&own.pair()).token().await;
    let actor = server.with(&agent.pair()).token().await;
    server.clock.advance(chrono::TimeDelta::seconds(5));
    let form = [
        ("actor_token", actor.as_str()),
        ("actor_token_type", ACCESS_TOKEN),
        ("subject_token", subject.as_str()),
        ("subject_token_type", ACCESS_TOKEN),
    ];
    let (token, claims) = lent(&scene.exchange(Some(&gateway), &form).await);
    assert_eq!(claims["act"]["key_id"], json!(agent.id));
    assert_eq!(claims["act"]["client_key_id"], json!(gateway.id));
    for key in [&own, &agent, &gateway] {
        let shown = scene.manage(Method::GET, &format!("/v1/keys/{}", key.id), json!({})).await;
        assert_eq!(shown["last_used_at"], json!(server.clock.now()), "{}", key.id);
    }
    let me = async || server.with(&bearer(&token)).get("/v1/me").await.status;
    assert_eq!(me().await, StatusCode::OK);
    // The right is the client's, whoever acts.
    let path = format!("/v1/keys/{}", gateway.id);
    scene.manage(Method::PATCH, &path, json!({ "scopes": [] })).await;
    assert_eq!(me().await, StatusCode::UNAUTHORIZED);
    scene.manage(Method::PATCH, &path, json!({ "scopes": ["tokens:exchange"] })).await;
    assert_eq!(me().await, StatusCode::OK);
    scene.manage(Method::DELETE, &path, json!({})).await;
    assert_eq!(me().await, StatusCode::UNAUTHORIZED);
}

#[actix_web::test]
async fn p32_a_token_is_exchanged_for_less_and_never_for_more() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({ "resources": ["https://api.example.com"] })).await;
    let user = scene.person("user", &["events:read", "events:write", "keys:read"]).await;
    let gateway = scene.tenant.app_key("gateway", &["tokens:exchange"]).await;
    let plain = scene.tenant.app_key("plain", &["events:read"]).await;
    let login = scene.tenant.log_in("user", PASSWORD).await;
    let token = login["access_token"].as_str().unwrap();
    let subject = [("subject_token", token), ("subject_token_type", ACCESS_TOKEN)];
    let (lent_token, said) = lent(&scene.exchange(Some(&gateway), &subject).await);
    assert_eq!(said["sub"], json!(user));
    assert_eq!(said["act"]["sub"], json!(gateway.subject()));
    assert_eq!(said["scope"], "events:read events:write", "nothing of the management");
    assert!(said["exp"].as_i64() <= claims(token)["exp"].as_i64());
    let with = |more: &[(&'static str, &'static str)]| [&subject[..], more].concat();
    assert_eq!(lent(&scene.exchange(Some(&gateway), &with(&[("scope", "events:read")])).await).1["scope"], "events:read");
    let aimed = scene.exchange(Some(&gateway), &with(&[("resource", "https://api.example.com")])).await;
    assert_eq!(lent(&aimed).1["aud"], "https://api.example.com");
    refused(&scene.exchange(Some(&gateway), &with(&[("scope", "keys:read")])).await, "invalid_scope");
    refused(&scene.exchange(Some(&gateway), &with(&[("scope", "other:scope")])).await, "invalid_scope");
    refused(&scene.exchange(Some(&gateway), &with(&[("resource", "https://evil.example")])).await, "invalid_target");
    refused(&scene.exchange(Some(&plain), &subject).await, "insufficient_scope");
    refused(&scene.exchange(None, &subject).await, "invalid_client");
    // What is not whole is refused.
    for form in [
        vec![("subject_token", token)],
        vec![("subject_token_type", ACCESS_TOKEN)],
        vec![("subject_token", token), ("subject_token_type", "urn:ietf:params:oauth:token-type:saml2")],
        vec![("subject_token", "abcd.efgh"), ("subject_token_type", ACCESS_TOKEN)],
        with(&[("actor_token", "abcd.efgh")]),
        with(&[("actor_token_type", ACCESS_TOKEN)]),
        with(&[("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token")]),
    ] {
        refused(&scene.exchange(Some(&gateway), &form).await, "invalid_request");
    }
    // A token of another tenant.
    let other = server.tenant("other").await;
    let foreign = other.app_key("foreign", &["events:read"]).await;
    let foreign = server.with(&foreign.pair()).token().await;
    let form = [("subject_token", foreign.as_str()), ("subject_token_type", ACCESS_TOKEN)];
    refused(&scene.exchange(Some(&gateway), &form).await, "invalid_request");
    // It ends with the login that it stands on.
    assert_eq!(server.with(&bearer(&lent_token)).get("/v1/me").await.status, StatusCode::OK);
    server.with(&bearer(token)).post_empty("/v1/logout").await;
    assert_eq!(server.with(&bearer(&lent_token)).get("/v1/me").await.status, StatusCode::UNAUTHORIZED);
}
