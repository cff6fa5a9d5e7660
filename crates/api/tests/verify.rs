//! `POST /v1/verify`, tickets and forward-auth: what resource servers and proxies are told.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod support;

use chrono::TimeDelta;
use claviger_issuer::settings::TenantSettings;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Answer, Key, Server, Tenant, basic};

const PASSWORD: &str = "correct horse battery staple";

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A tenant with a resource server's key and an admin's.
struct Scene<'a> {
    tenant: Tenant<'a>,
    resource_server: Key,
    admin: Key,
}

impl<'a> Scene<'a> {
    async fn new(server: &'a Server, settings: Value) -> Scene<'a> {
        server.default_tenant().await;
        let settings: TenantSettings = serde_json::from_value(settings).unwrap();
        let tenant = server.tenant_with("acme", settings).await;
        let resource_server = tenant.app_key("resource server", &["verify"]).await;
        let admin = tenant.admin().await;
        Self { tenant, resource_server, admin }
    }

    async fn ask(&self, question: Value) -> Answer {
        self.tenant.server.with(&self.resource_server.basic()).post(&self.tenant.path("/v1/verify"), question).await
    }

    /// The decision.
    async fn decided(&self, question: Value) -> Value {
        let answer = self.ask(question.clone()).await;
        assert_eq!(answer.status, StatusCode::OK, "{question}: {}", answer.text);
        answer.json()
    }

    async fn allowed(&self, question: Value) -> Value {
        let decision = self.decided(question.clone()).await;
        assert_eq!(decision["allow"], true, "{question}: {decision}");
        decision
    }

    /// Refused with this status and reason.
    async fn denied(&self, question: Value, status: u16, reason: &str) -> Value {
        let decision = self.decided(question.clone()).await;
        assert_eq!(
            (&decision["allow"], &decision["status"], &decision["reason"]),
            (&json!(false), &json!(status), &json!(reason)),
            "{question}: {decision}"
        );
        for told in ["subject", "username", "roles", "scopes", "key_id", "actor"] {
            assert_eq!(decision.get(told), None, "{decision}");
        }
        decision
    }

    async fn manage(&self, method: Method, path: &str, body: Value) -> Value {
        let caller = self.tenant.server.with(&self.admin.basic());
        let request = caller.request(method, &self.tenant.path(path)).json(&body);
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert!(answer.status.is_success(), "{path} {body}: {}", answer.text);
        if answer.text.is_empty() { Value::Null } else { answer.json() }
    }

    /// Makes a key with this order and returns `KEY:SECRET`.
    async fn key(&self, order: Value) -> String {
        let made = self.manage(Method::POST, "/v1/keys", order).await;
        format!("{}:{}", made["api_key"].as_str().unwrap(), made["api_secret"].as_str().unwrap())
    }

    async fn person(&self, body: Value) -> Value {
        self.manage(Method::POST, "/v1/users", body).await
    }

    async fn login(&self, username: &str) -> String {
        bearer(self.tenant.log_in(username, PASSWORD).await["access_token"].as_str().unwrap())
    }
}

#[actix_web::test]
async fn only_a_resource_servers_key_may_ask() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    let path = scene.tenant.path("/v1/verify");
    let stranger = scene.tenant.app_key("stranger", &["events:read"]).await;
    assert_eq!(server.anonymous().post(&path, json!({})).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(server.with(&stranger.basic()).post(&path, json!({})).await.error(), "insufficient_scope");
    let other = server.tenant("other").await;
    let foreign = other.app_key("foreign", &["verify"]).await;
    assert_eq!(server.with(&foreign.basic()).post(&path, json!({})).await.status, StatusCode::UNAUTHORIZED);
    // What is good at another tenant is not good here.
    let key = other.app_key("theirs", &["events:read"]).await;
    let token = server.with(&key.pair()).token().await;
    scene.denied(json!({ "authorization": format!("Bearer {}", key.pair()) }), 401, "invalid_credentials").await;
    scene.denied(json!({ "authorization": bearer(&token) }), 401, "invalid_token").await;
}

#[actix_web::test]
async fn every_form_of_a_credential_is_read() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    scene.person(json!({ "username": "alice", "password": PASSWORD, "roles": ["staff"], "scopes": ["events:read"] })).await;
    let alice = scene.tenant.server.issuer.find_user_by_name(scene.tenant.id, "alice").await.unwrap().id;
    let pair = scene.key(json!({ "user_id": alice, "name": "devkey", "scopes": ["events:read"] })).await;
    let (id, secret) = pair.split_once(':').unwrap();
    let token = server.with(&pair).token().await;
    let login = scene.login("alice").await;
    let need = json!({ "scopes": { "all": ["events:read"] } });
    for authorization in [
        bearer(&token),
        login.clone(),
        format!("bearer {token}"),
        format!("Bearer {pair}"),
        pair.clone(),
        basic(&pair),
        basic(&format!("alice:{id}:{secret}")),
        basic(&format!("ALICE:devkey:{secret}")),
        basic(&format!("alice:{PASSWORD}")),
    ] {
        let decision = scene.allowed(json!({ "authorization": authorization, "require": need })).await;
        assert_eq!(decision["subject"], json!(alice));
        assert_eq!(decision["username"], "alice");
        assert_eq!(decision["scopes"], json!(["events:read"]));
        assert_eq!(decision.get("actor"), None);
        assert_eq!(decision["exp"].is_i64(), authorization.to_lowercase().starts_with("bearer ey"), "{decision}");
        assert_eq!(
            decision.get("key_id").is_some(),
            !authorization.contains(login.trim_start_matches("Bearer ")) && authorization != basic(&format!("alice:{PASSWORD}"))
        );
    }
    assert_eq!(scene.allowed(json!({ "authorization": login })).await["roles"], json!(["staff"]));
    for (authorization, reason) in [
        (Value::Null, "no_credential"),
        (json!(""), "invalid_credentials"),
        (json!("Bearer abcd.efgh"), "invalid_token"),
        (json!("Bearer "), "invalid_credentials"),
        (json!("Basic"), "invalid_credentials"),
        (json!("Basic !!!"), "invalid_credentials"),
        (json!(basic("alice")), "invalid_credentials"),
        (json!(basic("alice:wrong")), "invalid_credentials"),
        (json!(basic("nobody:wrong")), "invalid_credentials"),
        (json!(basic(&format!("alice:devkey:{}", "x".repeat(40)))), "invalid_credentials"),
        (json!(basic(&format!("{id}:wrong"))), "invalid_credentials"),
        (json!(format!("Bearer {id}:wrong")), "invalid_credentials"),
        (json!("Digest username=alice"), "invalid_credentials"),
    ] {
        scene.denied(json!({ "authorization": authorization }), 401, reason).await;
    }
    // Two credentials are none.
    let both = json!({ "authorization": bearer(&token), "token": token, "transport": "ws" });
    scene.denied(both, 400, "invalid_request").await;
    // A token is asked for by audience.
    let issuer = format!("http://id.test/t/{}", scene.tenant.slug);
    scene.allowed(json!({ "authorization": bearer(&token), "audience": issuer })).await;
    scene.denied(json!({ "authorization": bearer(&token), "audience": "https://other.example" }), 401, "invalid_token").await;
}

#[actix_web::test]
async fn what_is_asked_for_is_judged_by_what_holds_now() {
    let server = Server::start().await;
    let policies = json!({ "policies": {
        "cc-api": { "any_of": [{ "roles": { "equals": ["api"] } }, { "roles": { "all": ["admin", "api"] } }], "status": 401 },
        "cc-userapi": { "any_of": [
            { "roles": { "equals": ["api"] } },
            { "roles": { "all": ["api"], "any": ["user", "manager", "support", "admin"] } }
        ], "status": 401 }
    } });
    let scene = Scene::new(&server, policies).await;
    let scopes = json!(["m:read"]);
    for (name, roles) in [
        ("apiu", json!(["api"])),
        ("demo", json!(["user"])),
        ("adm", json!(["admin", "api"])),
        ("mgr", json!(["manager", "api"])),
    ] {
        scene.person(json!({ "username": name, "password": PASSWORD, "roles": roles, "scopes": scopes })).await;
    }
    let policy = |authorization: &str, policy: &str| json!({ "authorization": authorization, "require": { "policy": policy } });
    for (name, api, userapi) in [("apiu", true, true), ("demo", false, false), ("adm", true, true), ("mgr", false, true)] {
        let login = scene.login(name).await;
        for (which, expected) in [("cc-api", api), ("cc-userapi", userapi)] {
            let decision = scene.decided(policy(&login, which)).await;
            assert_eq!(decision["allow"], expected, "{name} {which} {decision}");
            if !expected {
                assert_eq!((&decision["status"], &decision["reason"]), (&json!(401), &json!("policy")));
            }
        }
    }
    assert_eq!(scene.ask(policy("Bearer x", "nope")).await.wrong_field(), "policies");
    assert_eq!(scene.ask(json!({ "require": { "scopes": { "all": ["*"] } } })).await.wrong_field(), "require");
    assert_eq!(scene.ask(json!({ "require": { "scope": [] } })).await.wrong_field(), "scope");

    // The same token, before and after.
    let login = scene.login("demo").await;
    let need = json!({ "authorization": login, "require": { "permission": "users:list" } });
    let refused = scene.denied(need.clone(), 403, "insufficient_scope").await;
    assert_eq!(refused["missing"], json!(["users:list"]));
    let demo = server.issuer.find_user_by_name(scene.tenant.id, "demo").await.unwrap().id;
    scene.manage(Method::PATCH, &format!("/v1/users/{demo}"), json!({ "scopes": ["m:read", "users:list"] })).await;
    scene.allowed(need.clone()).await;
    scene.manage(Method::PATCH, &format!("/v1/users/{demo}"), json!({ "disabled": true })).await;
    scene.denied(need, 401, "invalid_token").await;
    // Why, an admin can read.
    let entries = scene.tenant.audit("verify").await;
    let denied = entries.iter().find(|entry| entry.request_id == refused["request_id"].as_str().unwrap()).unwrap();
    assert_eq!(denied.outcome, "refused");
    assert!(denied.detail.contains("users:list"), "{}", denied.detail);
}

/// The signature of a token that was seen before is not checked again; all else is asked each time.
#[actix_web::test]
async fn a_token_that_was_seen_before_is_judged_by_what_holds_now() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    let person = json!({ "username": "alice", "password": PASSWORD, "scopes": ["events:read"] });
    let alice = scene.person(person).await["id"].as_str().unwrap().to_owned();
    let seen = async |token: String| {
        let question = json!({ "authorization": token });
        for _ in 0..3 {
            scene.allowed(question.clone()).await;
        }
        question
    };
    let new_token = async |caller: &str| {
        let key = scene.tenant.app_key(caller, &["events:read"]).await;
        (server.with(&key.pair()).token().await, key)
    };

    // Called back, and its key gone.
    let (token, key) = new_token("called back").await;
    let question = seen(bearer(&token)).await;
    let form = [("token", token.as_str())];
    let revoke = server.with(&key.basic()).request(Method::POST, &scene.tenant.path("/v1/token/revoke")).form(&form);
    assert_eq!(revoke.send().await.unwrap().status(), StatusCode::OK);
    scene.denied(question, 401, "invalid_token").await;
    let (token, key) = new_token("revoked").await;
    let question = seen(bearer(&token)).await;
    scene.manage(Method::DELETE, &format!("/v1/keys/{}", key.id), json!({})).await;
    scene.denied(question, 401, "invalid_token").await;

    // A person with less to do, disabled, back again, logged out everywhere.
    let question = seen(scene.login("alice").await).await;
    let path = format!("/v1/users/{alice}");
    scene.manage(Method::PATCH, &path, json!({ "scopes": [] })).await;
    assert_eq!(scene.allowed(question.clone()).await["scopes"], json!([]));
    scene.manage(Method::PATCH, &path, json!({ "disabled": true })).await;
    scene.denied(question, 401, "invalid_token").await;
    scene.manage(Method::PATCH, &path, json!({ "disabled": false })).await;
    let login = scene.login("alice").await;
    let question = seen(login.clone()).await;
    assert!(server.with(&login).post(&scene.tenant.path("/v1/logout"), json!({})).await.status.is_success());
    scene.denied(question, 401, "invalid_token").await;

    // For whom it is, and who may ask, is asked each time too.
    let (token, _) = new_token("good").await;
    let question = seen(bearer(&token)).await;
    let elsewhere = json!({ "authorization": bearer(&token), "audience": "https://elsewhere.example" });
    scene.denied(elsewhere, 401, "invalid_token").await;
    let other = server.tenant("other").await;
    let asker = other.app_key("asker", &["verify"]).await;
    let told = server.with(&asker.basic()).post(&other.path("/v1/verify"), question.clone()).await.json();
    assert_eq!((&told["allow"], &told["reason"]), (&json!(false), &json!("invalid_token")));
    let (mut forged, last) = (token.clone(), token.len() - 20);
    forged.replace_range(last..=last, if &token[last..=last] == "A" { "B" } else { "A" });
    scene.denied(json!({ "authorization": bearer(&forged) }), 401, "invalid_token").await;
    scene.allowed(question.clone()).await;

    // The tenant's row changes, and then the key that it was signed with is published no more.
    let mut superuser = server.database.superuser().await;
    let rename = "UPDATE tenants SET name = name || '!' WHERE slug = 'acme'";
    sqlx::raw_sql(rename).execute(&mut superuser).await.unwrap();
    server.settle().await;
    scene.allowed(question.clone()).await;
    sqlx::raw_sql("CREATE TABLE kept AS SELECT * FROM signing_keys").execute(&mut superuser).await.unwrap();
    sqlx::raw_sql("DELETE FROM signing_keys").execute(&mut superuser).await.unwrap();
    sqlx::raw_sql(rename).execute(&mut superuser).await.unwrap();
    server.settle().await;
    scene.denied(question.clone(), 401, "invalid_token").await;
    sqlx::raw_sql("INSERT INTO signing_keys SELECT * FROM kept").execute(&mut superuser).await.unwrap();
    server.settle().await;
    scene.allowed(question.clone()).await;

    // Time.
    let left = support::claims(&token)["exp"].as_i64().unwrap() - server.clock.now().timestamp();
    server.clock.advance(TimeDelta::seconds(left - 1));
    scene.allowed(question.clone()).await;
    server.clock.advance(TimeDelta::seconds(1));
    scene.denied(question, 401, "invalid_token").await;
}

#[actix_web::test]
async fn several_questions_are_decided_each_by_itself() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    let key = scene.tenant.app_key("caller", &["events:read"]).await;
    let ask = |scope: &str| json!({ "authorization": key.pair(), "require": { "permission": scope } });
    let caller = server.with(&scene.resource_server.basic());
    let path = scene.tenant.path("/v1/verify/batch");
    let answer = caller.post(&path, json!({ "items": [ask("events:read"), ask("events:write"), {}] })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let allows: Vec<Value> = answer.json()["items"].as_array().unwrap().iter().map(|item| item["allow"].clone()).collect();
    assert_eq!(allows, [json!(true), json!(false), json!(false)]);
    assert_eq!(caller.post(&path, json!({ "items": [] })).await.wrong_field(), "items");
    let many: Vec<Value> = (0..51).map(|_| json!({})).collect();
    assert_eq!(caller.post(&path, json!({ "items": many })).await.wrong_field(), "items");
}

#[actix_web::test]
async fn scenario_32_33_35_a_key_acts_for_whom_it_may_and_nothing_is_open() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    let application = scene.tenant.application("cat").await;
    // A tenant without keys for it is closed.
    scene.denied(json!({}), 401, "no_credential").await;
    scene.denied(json!({ "user_id": "Caterpillar" }), 401, "no_credential").await;
    let order = json!({
        "application_id": application, "name": "HK", "scopes": ["STATUS:READ", "MEMORY:READ"],
        "act_as": ["*"], "act_as_default": "user"
    });
    let any = scene.key(order).await;
    let need = json!({ "permission": "STATUS:READ" });
    let decision =
        scene.allowed(json!({ "authorization": format!("Bearer {any}"), "user_id": "Caterpillar", "require": need })).await;
    assert_eq!((&decision["subject"], &decision["username"]), (&json!("Caterpillar"), &json!("Caterpillar")));
    assert_eq!(decision["scopes"], json!(["MEMORY:READ", "STATUS:READ"]));
    assert_eq!(decision["actor"]["sub"], json!(application));
    let entries = scene.tenant.audit("act_as").await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].subject, "name:Caterpillar");
    assert_eq!(entries[0].actor, format!("key:{}", any.split(':').next().unwrap()));
    assert_eq!(scene.allowed(json!({ "authorization": any })).await["subject"], "user");
    // Some names, and none.
    let some = scene
        .key(json!({ "application_id": application, "name": "some", "scopes": ["STATUS:READ"], "act_as": ["alice", "svc-*"] }))
        .await;
    let none = scene.key(json!({ "application_id": application, "name": "none", "scopes": ["STATUS:READ"] })).await;
    for (pair, name, may) in
        [(&some, "alice", true), (&some, "svc-7", true), (&some, "bob", false), (&some, "Alice", false), (&none, "alice", false)]
    {
        let question = json!({ "authorization": pair, "user_id": name });
        match may {
            true => assert_eq!(scene.allowed(question).await["subject"], name),
            false => drop(scene.denied(question, 403, "act_as_not_allowed").await),
        }
    }
    assert_eq!(scene.allowed(json!({ "authorization": none })).await["subject"], json!(application));
    // A token says by itself whose it is.
    let token = server.with(&any).token().await;
    let decision = scene.allowed(json!({ "authorization": bearer(&token), "user_id": "Caterpillar" })).await;
    assert_eq!(decision["subject"], json!(application));
    for bad in ["", "a b", "*", "a\nb"] {
        scene.denied(json!({ "authorization": any, "user_id": bad }), 403, "act_as_not_allowed").await;
    }
}

#[actix_web::test]
async fn scenario_40_a_ticket_opens_one_websocket() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    scene.person(json!({ "username": "alice", "password": PASSWORD, "scopes": ["chat:read"] })).await;
    let alice = server.with(&scene.login("alice").await).request(Method::POST, &scene.tenant.path("/v1/ws-tickets"));
    let made = Answer::of(alice.send().await.unwrap()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.json()["expires_in"], 60);
    let ticket = made.json()["ticket"].as_str().unwrap().to_owned();
    assert!(ticket.starts_with("ct_"), "{ticket}");
    let ws = |ticket: &str| json!({ "token": ticket, "transport": "ws", "require": { "permission": "chat:read" } });
    // Not over http, and not used up by that.
    scene.denied(json!({ "token": ticket }), 403, "ticket_not_allowed").await;
    let decision = scene.allowed(ws(&ticket)).await;
    assert_eq!(decision["username"], "alice");
    scene.denied(ws(&ticket), 401, "invalid_credentials").await;

    let caller = server.with(&scene.login("alice").await);
    let path = scene.tenant.path("/v1/ws-tickets");
    let ticket = async |body: Value| caller.post(&path, body).await.json()["ticket"].as_str().unwrap().to_owned();
    // Of twenty at once, one.
    let contested = ticket(json!({})).await;
    let all = futures_util::future::join_all((0..20).map(|_| scene.decided(ws(&contested)))).await;
    assert_eq!(all.iter().filter(|decision| decision["allow"] == true).count(), 1);
    // For its origin alone.
    let bound = ticket(json!({ "origin": "https://app.example.com" })).await;
    let mut from = ws(&bound);
    from["origin"] = json!("https://evil.example");
    scene.denied(from, 403, "ticket_not_allowed").await;
    let bound = ticket(json!({ "origin": "https://app.example.com" })).await;
    let mut from = ws(&bound);
    from["origin"] = json!("https://app.example.com");
    scene.allowed(from).await;
    // For its time alone, and only as long as its holder may.
    let late = ticket(json!({ "expires_in": 30 })).await;
    server.clock.advance(chrono::TimeDelta::seconds(31));
    scene.denied(ws(&late), 401, "invalid_credentials").await;
    let orphaned = ticket(json!({})).await;
    let id = server.issuer.find_user_by_name(scene.tenant.id, "alice").await.unwrap().id;
    scene.manage(Method::PATCH, &format!("/v1/users/{id}"), json!({ "disabled": true })).await;
    scene.denied(ws(&orphaned), 401, "invalid_credentials").await;
    for body in [json!({ "expires_in": 4 }), json!({ "expires_in": 61 })] {
        let key = scene.tenant.app_key(&format!("{body}"), &[]).await;
        assert_eq!(server.with(&key.basic()).post(&path, body).await.wrong_field(), "expires_in");
    }
    let key = scene.tenant.app_key("k", &[]).await;
    assert_eq!(server.with(&key.basic()).post(&path, json!({ "origin": "app.example.com/x" })).await.wrong_field(), "origin");
    // Nothing but a digest is kept.
    let mut database = server.database.superuser().await;
    let kept: Vec<(String,)> =
        sqlx::query_as("SELECT to_jsonb(t)::text FROM ws_tickets t").fetch_all(&mut database).await.unwrap();
    assert!(!kept.is_empty() && kept.iter().all(|(row,)| !row.contains("ct_")));
}

#[actix_web::test]
async fn a_token_in_the_address_is_for_websockets_where_the_tenant_lets_it() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    let key = scene.tenant.app_key("ws", &["chat:read"]).await;
    let token = server.with(&key.pair()).token().await;
    for credential in [&token, &key.pair()] {
        scene.denied(json!({ "token": credential, "transport": "ws" }), 403, "token_in_query").await;
    }
    let settings = TenantSettings { ws_query_token: true, ..TenantSettings::default() };
    let change = claviger_issuer::tenant::TenantChange { settings: Some(settings), ..Default::default() };
    server.issuer.change_tenant(&claviger_issuer::audit::Actor::operator(), "acme", change).await.unwrap();
    for credential in [&token, &key.pair()] {
        scene.allowed(json!({ "token": credential, "transport": "ws" })).await;
        scene.denied(json!({ "token": credential, "transport": "http" }), 403, "token_in_query").await;
    }
}

#[actix_web::test]
async fn scenario_61_63_an_impersonation_key_lets_its_agents_act_for_its_owner() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    let person = async |name: &str, scopes: Value| {
        scene.person(json!({ "username": name, "password": PASSWORD, "scopes": scopes })).await["id"].as_str().unwrap().to_owned()
    };
    let admin = person("admin", json!(["r:r", "w:w", "e:e"])).await;
    let user = person("user", json!(["r:r", "w:w"])).await;
    let goose = person("goose", json!(["r:r"])).await;
    let devkey = scene.key(json!({ "user_id": admin, "name": "devkey", "scopes": ["r:r", "w:w", "e:e"] })).await;
    let order = json!({ "user_id": user, "name": "impersonate_admin", "scopes": ["r:r", "w:w"], "agents": ["admin", "goose"] });
    let lent = scene.key(order).await;
    let potato =
        scene.key(json!({ "user_id": user, "name": "impersonate_potato", "scopes": ["r:r"], "agents": ["potato"] })).await;
    let ordinary = scene.key(json!({ "user_id": user, "name": "devkey", "scopes": ["r:r"] })).await;
    let secret = |pair: &str| pair.split_once(':').unwrap().1.to_owned();
    let pair_of = |name: &str, pair: &str| basic(&format!("user:{name}:{}", secret(pair)));
    let impersonating = pair_of("impersonate_admin", &lent);
    let ways =
        [basic(&format!("admin:devkey:{}", secret(&devkey))), basic(&format!("admin:{PASSWORD}")), scene.login("admin").await];
    for authorization in &ways {
        let question =
            json!({ "authorization": authorization, "x_impersonating": impersonating, "require": { "permission": "w:w" } });
        let decision = scene.allowed(question).await;
        assert_eq!((&decision["username"], &decision["subject"]), (&json!("user"), &json!(user)));
        assert_eq!(decision["scopes"], json!(["r:r", "w:w"]));
        assert_eq!((&decision["actor"]["sub"], &decision["actor"]["name"]), (&json!(admin), &json!("admin")));
        // The key's limits hold.
        let question =
            json!({ "authorization": authorization, "x_impersonating": impersonating, "require": { "permission": "e:e" } });
        scene.denied(question, 403, "insufficient_scope").await;
        let foreign = json!({ "authorization": authorization, "x_impersonating": pair_of("impersonate_potato", &potato) });
        let refused = scene.denied(foreign, 403, "not_an_impersonation_key").await;
        assert_eq!(refused["error"], "Not a valid impersonation api key");
        let normal = json!({ "authorization": authorization, "x_impersonating": pair_of("devkey", &ordinary) });
        scene.denied(normal, 403, "not_an_impersonation_key").await;
        let password = json!({ "authorization": authorization, "x_impersonating": basic(&format!("user:{PASSWORD}")) });
        assert_eq!(scene.denied(password, 401, "no_impersonated_user").await["error"], "No impersonated user found");
        let absent = json!({ "authorization": authorization, "x_impersonating": basic("user:nokey:0123456789") });
        scene.denied(absent, 401, "no_impersonated_user").await;
        let scheme = json!({ "authorization": authorization, "x_impersonating": "Bearer abc" });
        scene.denied(scheme, 400, "invalid_request").await;
    }
    let entries = scene.tenant.audit("impersonate").await;
    assert_eq!(entries.len(), 3, "the requests that were let in, and no others");
    assert!(entries.iter().all(|entry| entry.actor == format!("user:{admin}") && entry.subject == format!("user:{user}")));
    // The secret is looked at before the list of agents: a wrong one tells nothing of the list.
    let wrong = json!({ "authorization": ways[1], "x_impersonating": basic("user:impersonate_potato:0123456789012345678901") });
    scene.denied(wrong, 401, "no_impersonated_user").await;
    // P33: goose is an agent too, and holds less than the key lends.
    let goose_asks = json!({ "authorization": scene.login("goose").await, "x_impersonating": impersonating });
    scene.denied(goose_asks, 403, "target_holds_more").await;
    scene.manage(Method::PATCH, &format!("/v1/users/{goose}"), json!({ "scopes": ["r:r", "w:w"] })).await;
    let goose_login = scene.login("goose").await;
    scene.allowed(json!({ "authorization": goose_login, "x_impersonating": impersonating })).await;
    // Nobody acts for somebody who manages what they do not.
    scene.manage(Method::PATCH, &format!("/v1/users/{user}"), json!({ "roles": ["tenant-admin"] })).await;
    scene.denied(json!({ "authorization": goose_login, "x_impersonating": impersonating }), 403, "target_holds_more").await;
    scene.manage(Method::PATCH, &format!("/v1/users/{user}"), json!({ "roles": [] })).await;

    // Such a key is good for nothing else.
    let alone = json!({ "authorization": pair_of("impersonate_admin", &lent) });
    let refused = scene.denied(alone, 403, "impersonation_key_alone").await;
    assert!(refused["error"].as_str().unwrap().starts_with("Cannot use impersonation key in normal Authorization Header!"));
    assert_eq!(server.with(&lent).post_empty("/v1/authentications").await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.with(&basic(&lent)).get("/v1/me").await.status, StatusCode::UNAUTHORIZED);
    // A revoked one lets nobody in.
    scene.manage(Method::DELETE, &format!("/v1/keys/{}", lent.split(':').next().unwrap()), json!({})).await;
    scene.denied(json!({ "authorization": ways[2], "x_impersonating": impersonating }), 401, "no_impersonated_user").await;
    // It never lends management, has agents, and belongs to a person.
    let caller = server.with(&scene.admin.basic());
    for (order, field) in [
        (json!({ "user_id": user, "name": "x", "scopes": ["keys:read"], "agents": ["admin"] }), "agents"),
        (json!({ "user_id": user, "name": "x", "scopes": [], "agents": [] }), "agents"),
        (json!({ "user_id": user, "name": "x", "scopes": [], "agents": ["admin"], "act_as": ["*"] }), "agents"),
        (json!({ "user_id": user, "name": "x", "scopes": [], "act_as_default": "x" }), "act_as_default"),
    ] {
        assert_eq!(caller.post(&scene.tenant.path("/v1/keys"), order.clone()).await.wrong_field(), field, "{order}");
    }
}

/// What nginx sends along.
fn nginx(url: &str) -> Vec<(&'static str, String)> {
    vec![("x-original-method", "GET".into()), ("x-original-url", url.into())]
}

#[actix_web::test]
async fn d16_forward_auth_says_who_it_is_and_refuses_what_is_odd() {
    let server = Server::start().await;
    let policies = json!({ "policies": { "staff": { "any_of": [{ "roles": { "any": ["staff"] } }] } } });
    let scene = Scene::new(&server, policies).await;
    scene.person(json!({ "username": "alice", "password": PASSWORD, "roles": ["staff"], "scopes": ["events:read"] })).await;
    scene.person(json!({ "username": "bob", "password": PASSWORD })).await;
    let (alice, bob) = (scene.login("alice").await, scene.login("bob").await);
    let ask = async |authorization: Option<&str>, query: &str, headers: &[(&'static str, String)]| {
        let client = authorization.map_or_else(|| server.anonymous(), |header| server.with(header));
        let request = client.request(Method::GET, &scene.tenant.path(&format!("/v1/forward-auth{query}")));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        Answer::of(request.send().await.unwrap()).await
    };
    let url = nginx("https://app.example.com/reports?x=1");
    let answer = ask(Some(&alice), "?kind=nginx&policy=staff", &url).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.header("remote-user"), "alice");
    assert_eq!(answer.header("x-claviger-roles"), "staff");
    assert_eq!(answer.header("x-claviger-scope"), "events:read");
    assert_eq!(answer.header("x-claviger-tenant"), "acme");
    assert_eq!(answer.header("x-claviger-actor"), "");
    let names = [
        "remote-user",
        "x-claviger-subject",
        "x-claviger-username",
        "x-claviger-roles",
        "x-claviger-scope",
        "x-claviger-tenant",
        "x-claviger-actor",
        "x-claviger-key-id",
    ];
    assert_eq!(ask(Some(&bob), "?policy=staff", &url).await.status, StatusCode::FORBIDDEN);
    assert_eq!(ask(Some(&bob), "", &url).await.status, StatusCode::OK);
    for (authorization, query, headers, status) in [
        (None, "", url.clone(), 401),
        (Some("Bearer abcd.efgh"), "", url.clone(), 401),
        (Some(alice.as_str()), "?policy=nope", url.clone(), 403),
        (Some(&alice), "?audience=https://elsewhere.example", url.clone(), 401),
        (Some(&alice), "?kind=caddy", url.clone(), 403),
        (Some(&alice), "?kind=nginx&kind=nginx", url.clone(), 403),
        (Some(&alice), "?polcy=staff", url.clone(), 403),
        (Some(&alice), "", vec![], 403),
        (Some(&alice), "?kind=traefik", url.clone(), 403),
        (Some(&alice), "", nginx("https://APP.example.com/"), 403),
        (Some(&alice), "", nginx("https://app.example.com/a/..%2fb"), 403),
        (Some(&alice), "", [url.clone(), vec![("x_original_url", "https://app.example.com/".into())]].concat(), 403),
        (Some(&alice), "", [url.clone(), vec![("remote_user", "admin".into())]].concat(), 403),
        (Some(&alice), "", [url.clone(), vec![("x-original-url", "https://app.example.com/".into())]].concat(), 403),
    ] {
        let answer = ask(authorization, query, &headers).await;
        assert_eq!(answer.status.as_u16(), status, "{query} {headers:?}: {}", answer.text);
        for name in names {
            assert_eq!(answer.headers.get(name).map(|value| value.as_bytes()), Some(&b""[..]), "{name}");
        }
    }
    // Envoy asks with the request itself, whatever its method.
    let envoy = async |path: &str, method: Method| {
        let request = server.with(&alice).request(method, &scene.tenant.path(path)).header("host", "app.example.com");
        Answer::of(request.send().await.unwrap()).await
    };
    for method in [Method::GET, Method::POST, Method::DELETE] {
        assert_eq!(envoy("/v1/forward-auth/envoy/staff/reports/7?kind=x&policy=-", method).await.status, StatusCode::OK);
    }
    assert_eq!(envoy("/v1/forward-auth/envoy/-/", Method::GET).await.header("remote-user"), "alice");
    assert_eq!(envoy("/v1/forward-auth/envoy/nope/", Method::GET).await.status, StatusCode::FORBIDDEN);
    assert_eq!(envoy("/v1/forward-auth/envoy/staff/a%2fb", Method::GET).await.status, StatusCode::FORBIDDEN);
    assert_eq!(envoy("/v1/forward-auth/envoy/staff/a//b", Method::GET).await.status, StatusCode::FORBIDDEN);
}
