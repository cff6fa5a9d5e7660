//! Cheshire Cat's dialect: its tokens, login page, people and keys, and what its core hears of `/v1/verify` (SEEDS scenarios 22, 23,
//! 32, 33, 35, 37 and 39 to 41).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

#[path = "support/people.rs"]
mod people;
mod support;

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use claviger_issuer::audit::Actor;
use claviger_issuer::settings::TenantSettings;
use claviger_issuer::tenant::{NewTenant, TenantChange};
use claviger_issuer::user::{NewPassword, NewUser};
use claviger_store::id::UserId;
use futures_util::future::join_all;
use people::set_cookies;
use reqwest::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use support::operations::dialect_operations;
use support::wire::send;
use support::{Answer, Key, Options, Server, Tenant, UNTHROTTLED, basic, claims, detail, jose_header};

/// All that is told of whoever is not let in.
fn invalid() -> Value {
    json!({ "detail": { "error": "Invalid Credentials" } })
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[track_caller]
fn assert_refused(answer: &Answer, what: &str) {
    assert_eq!((answer.status, answer.json()), (StatusCode::FORBIDDEN, invalid()), "{what}: {}", answer.text);
    assert_eq!(answer.header("www-authenticate"), "", "{what}");
}

/// What a body or query is refused with.
#[track_caller]
fn assert_listed(answer: &Answer, what: &str) {
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{what}: {}", answer.text);
    let errors = answer.json()["error"].as_array().unwrap().clone();
    assert!(errors.len() == 1 && errors[0]["msg"].is_string() && errors[0]["loc"].is_array(), "{what}: {}", answer.text);
}

fn base() -> Value {
    json!({
        "STATUS": ["READ"], "MEMORY": ["LIST", "READ"], "CONVERSATION": ["DELETE", "EDIT", "LIST", "READ", "WRITE"],
        "STATIC": ["READ"]
    })
}

/// The tenant `cat` with its people admin and user, whose passwords are their names, its two keys, and that of its core.
struct Scene<'a> {
    tenant: Tenant<'a>,
    admin: UserId,
    user: UserId,
    /// For http, acting for anybody, and holding everything: what was `CCAT_API_KEY`.
    http_key: String,
    /// For WebSockets, with what everybody holds: what was `CCAT_API_KEY_WS`.
    ws_key: String,
    core: Key,
}

impl<'a> Scene<'a> {
    async fn with(server: &'a Server, slug: &str, settings: Value) -> Self {
        let mut all = json!({ "password": { "min_length": 4, "refuse_common": false, "refuse_context": false } });
        all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let settings: TenantSettings = serde_json::from_value(all).unwrap();
        let new = NewTenant { slug: slug.into(), name: None, settings, preset: Some("cheshire-cat".into()) };
        let id = server.issuer.create_tenant(&Actor::operator(), new).await.unwrap().id;
        let tenant = Tenant { server, slug: slug.into(), id };
        let admin = person(&tenant, "admin", &["admin"]).await;
        let user = person(&tenant, "user", &["user"]).await;
        let core = tenant.app_key("core", &["verify"]).await;
        let manager = tenant.admin().await;
        let application = tenant.application("cat").await;
        let key = async |name: &str, role: &str, scopes: Value| {
            let order = json!({
                "application_id": application, "name": name, "roles": [role], "scopes": scopes, "transports": [name],
                "act_as": ["*"], "act_as_default": "user"
            });
            let made = server.with(&manager.basic()).post(&tenant.path("/v1/keys"), order).await;
            assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
            let made = made.json();
            format!("{}:{}", made["api_key"].as_str().unwrap(), made["api_secret"].as_str().unwrap())
        };
        // Who gives the role gives the scopes of it that are patterns.
        let (http_key, ws_key) = (key("http", "admin", json!([])).await, key("ws", "user", json!([])).await);
        Self { tenant, admin, user, http_key, ws_key, core }
    }

    async fn of(server: &'a Server) -> Self {
        Self::with(server, "cat", json!({})).await
    }

    fn server(&self) -> &'a Server {
        self.tenant.server
    }

    async fn log_in(&self, body: Value) -> Answer {
        self.server().anonymous().post(&self.tenant.path("/auth/token"), body).await
    }

    /// A token of somebody whose password is their name.
    async fn token(&self, name: &str) -> String {
        let answer = self.log_in(json!({ "username": name, "password": name })).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    async fn ask(&self, authorization: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = self.server().with(authorization).request(method, &self.tenant.path(path));
        send(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    /// What the core hears.
    async fn decided(&self, question: Value) -> Value {
        let answer = self.server().with(&self.core.basic()).post(&self.tenant.path("/v1/verify"), question.clone()).await;
        assert_eq!(answer.status, StatusCode::OK, "{question}: {}", answer.text);
        answer.json()
    }

    async fn allowed(&self, question: Value) -> Value {
        let decision = self.decided(question.clone()).await;
        assert_eq!(decision["allow"], true, "{question}: {decision}");
        decision
    }

    /// Refused in the words that the core hands on.
    async fn denied(&self, question: Value, reason: &str) {
        let decision = self.decided(question.clone()).await;
        let told = (&decision["allow"], &decision["status"], &decision["error"], &decision["reason"]);
        let expected = (&json!(false), &json!(403), &json!("Invalid Credentials"), &json!(reason));
        assert_eq!(told, expected, "{question}: {decision}");
        for secret in ["subject", "username", "roles", "scopes", "permissions", "key_id", "actor"] {
            assert_eq!(decision.get(secret), None, "{decision}");
        }
    }

    /// Other settings of the tenant.
    async fn set(&self, change: impl FnOnce(&mut TenantSettings)) {
        let mut settings = self.server().issuer.tenant(&self.tenant.slug).await.unwrap().unwrap().settings.clone();
        change(&mut settings);
        let change = TenantChange { settings: Some(settings), ..TenantChange::default() };
        self.server().issuer.change_tenant(&Actor::operator(), &self.tenant.slug, change).await.unwrap();
    }

    async fn sign_in(&self, form: &[(&str, &str)], headers: &[(&str, &str)]) -> Answer {
        let request = self.server().anonymous().request(Method::POST, &self.tenant.path("/auth/login")).form(form);
        send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }
}

/// Somebody whose password is their name.
async fn person(tenant: &Tenant<'_>, name: &str, roles: &[&str]) -> UserId {
    let entry = tenant.server.issuer.tenant(&tenant.slug).await.unwrap().unwrap();
    let new = NewUser {
        username: name.into(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        password: Some(NewPassword::Text(SecretString::from(name))),
        ..NewUser::default()
    };
    tenant.server.issuer.create_user(&entry, &Actor::operator(), new).await.unwrap().id
}

/// Its people, and the routes for them: method and path, with a body where they take one.
fn routes_for_people(id: UserId) -> [(Method, String, Option<Value>); 6] {
    [
        (Method::GET, "/auth/available-permissions".into(), None),
        (Method::GET, "/users".into(), None),
        (Method::POST, "/users".into(), Some(json!({ "username": "Made", "password": "Made-1" }))),
        (Method::GET, format!("/users/{id}"), None),
        (Method::PUT, format!("/users/{id}"), Some(json!({ "password": "other" }))),
        (Method::DELETE, format!("/users/{id}"), None),
    ]
}

#[actix_web::test]
async fn scenario_22_a_name_and_password_become_a_token_that_says_who_it_is_and_what_they_may() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let answer = scene.log_in(json!({ "username": "admin", "password": "admin" })).await;
    assert_eq!((answer.status, answer.header("cache-control")), (StatusCode::OK, "no-store"), "{}", answer.text);
    let body = answer.json();
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["access_token", "token_type"], "and nothing else");
    assert_eq!(body["token_type"], "bearer");
    let token = body["access_token"].as_str().unwrap();
    let told = claims(token);
    assert_eq!((&told["sub"], &told["username"]), (&json!(scene.admin), &json!("admin")));
    assert_eq!((told["permissions"].as_object().unwrap().len(), told.get("aud")), (11, None));
    for actions in told["permissions"].as_object().unwrap().values() {
        assert_eq!(actions, &json!(["DELETE", "EDIT", "LIST", "READ", "WRITE"]));
    }
    let (now, exp, iat) = (server.clock.now().timestamp(), told["exp"].as_i64().unwrap(), told["iat"].as_i64().unwrap());
    assert!(exp - now <= 86_400 && exp - iat == 86_400 && iat < now, "{told}");
    assert_eq!(jose_header(token)["alg"], "EdDSA");
    assert_eq!(claims(&scene.token("user").await)["permissions"], base());
    let entry = &scene.tenant.audit("user.login").await[0];
    assert_eq!((&entry.actor, entry.outcome.as_str()), (&format!("user:{}", scene.user), "ok"));
    // What its clients send besides is not looked at.
    let more = scene.log_in(json!({ "username": "user", "password": "user", "extra": 1 })).await;
    assert_eq!(more.status, StatusCode::OK);
}

#[actix_web::test]
async fn scenario_23_p16_a_wrong_password_and_an_unknown_name_are_one_403_a_second_later() {
    let server = Server::start_with(Options { throttle: UNTHROTTLED, ..Options::default() }).await;
    let scene = Scene::of(&server).await;
    let mut heard: [Vec<Duration>; 2] = Default::default();
    let mut first = None;
    for _ in 0..4 {
        for (n, name) in ["admin", "nobody"].into_iter().enumerate() {
            let begun = Instant::now();
            let answer = scene.log_in(json!({ "username": name, "password": "wrong" })).await;
            heard[n].push(begun.elapsed());
            assert_refused(&answer, name);
            assert_eq!(&answer.told(), first.get_or_insert_with(|| answer.told()), "{name}");
        }
    }
    let [known, unknown] = heard.map(|mut all| {
        all.sort();
        assert!(all[0] >= Duration::from_secs(1) && all[3] < Duration::from_secs(3), "{all:?}");
        all[1]
    });
    assert!(known.abs_diff(unknown) < Duration::from_millis(100), "{known:?} {unknown:?}");
    // No thread is held meanwhile: forty wait as long as one, and others are served.
    let begun = Instant::now();
    let names: Vec<String> = (0..40).map(|n| format!("nobody-{n}")).collect();
    let wrong = join_all(names.iter().map(|name| scene.log_in(json!({ "username": name, "password": "wrong" }))));
    let (all, token) = tokio::join!(wrong, scene.token("user"));
    assert!(all.iter().all(|answer| answer.status == StatusCode::FORBIDDEN) && !token.is_empty());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());

    for body in [
        json!({}),
        json!({ "username": "admin" }),
        json!({ "password": "admin" }),
        json!({ "username": 1, "password": "admin" }),
        json!([]),
    ] {
        assert_listed(&scene.log_in(body.clone()).await, &body.to_string());
    }
    assert_listed(&server.anonymous().post_empty("/t/cat/auth/token").await, "no body");
    let text = server.anonymous().request(Method::POST, "/t/cat/auth/token").body(r#"{"username":"admin","password":"admin"}"#);
    assert_listed(&send(text.header("Content-Type", "text/plain")).await, "not said to be JSON");
    let twins = server.anonymous().request(Method::POST, "/t/cat/auth/token");
    let twins =
        twins.header("Content-Type", "application/json").body(r#"{"username":"x","username":"admin","password":"admin"}"#);
    assert_listed(&send(twins).await, "p42: twins");
    let long = scene.log_in(json!({ "username": "admin", "password": "x".repeat(2000) })).await;
    assert_listed(&long, "p37: longer than any password");
    assert!(!long.text.contains("xxxx"));
    let refused = &scene.tenant.audit("user.login").await;
    assert!(refused.iter().any(|entry| detail(entry)["reason"] == "wrong_password"));
}

#[actix_web::test]
async fn p14_whoever_failed_too_often_hears_the_same_403_and_when_to_try_again() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let wrong = json!({ "username": "admin", "password": "wrong" });
    let all = join_all((0..20).map(|_| scene.log_in(wrong.clone()))).await;
    for answer in &all {
        assert_refused(answer, "wrong");
    }
    let looked_at = all.iter().filter(|answer| answer.header("retry-after").is_empty()).count();
    assert_eq!(looked_at, 5, "all twenty were counted");
    let right = scene.log_in(json!({ "username": "admin", "password": "admin" })).await;
    assert_refused(&right, "the right one");
    assert!(right.header("retry-after").parse::<u64>().unwrap() > 0);
    let form = scene.sign_in(&[("username", "admin"), ("password", "admin")], &[]).await;
    assert_eq!((form.status, form.header("location")), (StatusCode::SEE_OTHER, "/t/cat/auth/login?retry=1"));
    assert!(form.header("retry-after").parse::<u64>().unwrap() > 0);
    // The keys go on.
    assert_eq!(scene.ask(&bearer(&scene.http_key), Method::GET, "/users", None).await.status, StatusCode::OK);
    server.clock.advance(TimeDelta::seconds(901));
    scene.token("admin").await;
}

#[actix_web::test]
async fn scenario_32_a_key_for_http_holds_everything_and_acts_for_whom_it_says() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let hk = bearer(&scene.http_key);
    let question = json!({
        "authorization": hk, "user_id": "Caterpillar", "transport": "http", "require": { "permission": "STATUS:READ" }
    });
    let decision = scene.allowed(question).await;
    assert_eq!((&decision["subject"], &decision["username"]), (&json!("Caterpillar"), &json!("Caterpillar")));
    assert_eq!(decision["permissions"].as_object().unwrap().len(), 11);
    assert_eq!(decision["permissions"]["AUTH_HANDLER"], json!(["DELETE", "EDIT", "LIST", "READ", "WRITE"]));
    assert_eq!(decision["permissions"]["USERS"], json!(["DELETE", "EDIT", "LIST", "READ", "WRITE"]));
    let key = scene.http_key.split(':').next().unwrap();
    assert_eq!((&decision["key_id"], &decision["actor"]["id"]), (&json!(key), &json!(format!("key:{key}"))));
    let entries = scene.tenant.audit("act_as").await;
    assert_eq!(entries.len(), 1);
    assert_eq!((&entries[0].actor, entries[0].subject.as_str()), (&format!("key:{key}"), "name:Caterpillar"));
    assert_eq!(entries[0].outcome, "ok");

    assert_eq!(scene.allowed(json!({ "authorization": hk })).await["subject"], "user", "when nobody is named");
    // Permissions are asked for as it writes them, or as we do.
    for permission in ["AUTH_HANDLER:DELETE", "auth_handler:delete", "USERS:WRITE", "users:write"] {
        scene.allowed(json!({ "authorization": hk, "require": { "permission": permission } })).await;
    }
    for permission in ["SOMETHING:42", "KEYS:WRITE", "keys:write", "VERIFY", "verify"] {
        let question = json!({ "authorization": hk, "require": { "permission": permission } });
        scene.denied(question, "insufficient_scope").await;
    }
}

#[actix_web::test]
async fn scenario_33_whatever_is_no_key_for_that_door_is_403_and_without_bearer_too_unless_the_tenant_is_lenient() {
    let server = Server::start_with(Options { throttle: UNTHROTTLED, ..Options::default() }).await;
    let scene = Scene::of(&server).await;
    let (hk, wk) = (scene.http_key.as_str(), scene.ws_key.as_str());
    let key = hk.split(':').next().unwrap();
    // One door each.
    scene.allowed(json!({ "token": wk, "transport": "ws", "user_id": "Caterpillar" })).await;
    let decision = scene.allowed(json!({ "token": wk, "transport": "ws" })).await;
    assert_eq!((&decision["subject"], &decision["permissions"]), (&json!("user"), &base()));
    let more = json!({ "token": wk, "transport": "ws", "require": { "permission": "PLUGINS:LIST" } });
    scene.denied(more, "insufficient_scope").await;
    scene.denied(json!({ "authorization": bearer(wk) }), "transport_not_allowed").await;
    scene.denied(json!({ "token": hk, "transport": "ws" }), "transport_not_allowed").await;
    scene.denied(json!({ "token": hk }), "token_in_query").await;

    scene.denied(json!({}), "no_credential").await;
    scene.denied(json!({ "user_id": "Caterpillar" }), "no_credential").await;
    for (authorization, reason) in [
        (bearer(&format!("{key}:wrong")), "invalid_credentials"),
        (bearer("wrong"), "invalid_token"),
        (bearer("not_a_jwt.not_a_jwt.not_a_jwt"), "invalid_token"),
        (bearer(""), "invalid_credentials"),
        (String::new(), "invalid_credentials"),
        ("Bearer".into(), "invalid_credentials"),
        (format!("Token {hk}"), "invalid_credentials"),
        (basic("user:wrong"), "invalid_credentials"),
    ] {
        scene.denied(json!({ "authorization": authorization }), reason).await;
    }
    // Its clients of before sent a key without `Bearer`, or in a header of its own.
    let jwt = scene.token("user").await;
    let bare = [hk.to_owned(), jwt.clone()];
    for credential in &bare {
        scene.denied(json!({ "authorization": credential }), "invalid_credentials").await;
        scene.denied(json!({ "access_token": credential }), "no_credential").await;
    }
    scene.set(|settings| settings.lenient_bearer = true).await;
    for credential in &bare {
        scene.allowed(json!({ "authorization": credential })).await;
        scene.allowed(json!({ "access_token": credential })).await;
    }
    scene.allowed(json!({ "authorization": format!("Bearer: {jwt}") })).await;
    scene.denied(json!({ "access_token": "wrong" }), "invalid_credentials").await;
    // Where there are two, the newer header is read.
    scene.denied(json!({ "authorization": bearer("wrong"), "access_token": hk }), "invalid_token").await;
    // Elsewhere that header means nothing.
    let other = server.tenant("other").await;
    let (asker, theirs) = (other.app_key("asker", &["verify"]).await, other.app_key("theirs", &[]).await);
    let question = json!({ "access_token": theirs.pair() });
    let answer = server.with(&asker.basic()).post(&other.path("/v1/verify"), question).await.json();
    assert_eq!((&answer["allow"], &answer["status"], answer.get("permissions")), (&json!(false), &json!(401), None));
}

#[actix_web::test]
async fn p17_whoever_guesses_at_a_key_locks_out_nobody_though_the_core_cannot_say_from_where() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let key = scene.http_key.split(':').next().unwrap();
    for _ in 0..30 {
        scene.denied(json!({ "authorization": bearer(&format!("{key}:wrong")) }), "invalid_credentials").await;
    }
    scene.allowed(json!({ "authorization": bearer(&scene.http_key) })).await;
}

#[actix_web::test]
async fn scenario_35_a_tenant_without_keys_is_closed_on_both_transports() {
    let server = Server::start().await;
    let new =
        NewTenant { slug: "cat".into(), name: None, settings: TenantSettings::default(), preset: Some("cheshire-cat".into()) };
    let id = server.issuer.create_tenant(&Actor::operator(), new).await.unwrap().id;
    let tenant = Tenant { server: &server, slug: "cat".into(), id };
    // But for that of whoever asks.
    let core = tenant.app_key("core", &["verify"]).await;
    for question in [
        json!({}),
        json!({ "transport": "ws" }),
        json!({ "user_id": "admin" }),
        json!({ "user_id": "admin", "transport": "ws" }),
        json!({ "authorization": "Bearer meow" }),
        json!({ "authorization": "Bearer " }),
        json!({ "token": "meow_ws", "transport": "ws" }),
        json!({ "token": "", "transport": "ws" }),
        json!({ "authorization": bearer(&tenant.sign(&json!({ "alg": "HS256" }), &json!({ "sub": "admin" })).await) }),
    ] {
        let answer = server.with(&core.basic()).post("/t/cat/v1/verify", question.clone()).await.json();
        assert_eq!((&answer["allow"], &answer["status"]), (&json!(false), &json!(403)), "{question} {answer}");
    }
    for (method, path, body) in routes_for_people(UserId(uuid::Uuid::nil())) {
        let request = server.anonymous().request(method, &tenant.path(&path)).header("user_id", "admin");
        let answer = send(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await;
        assert_refused(&answer, &path);
    }
    assert_refused(
        &server.anonymous().post("/t/cat/auth/token", json!({ "username": "admin", "password": "admin" })).await,
        "nobody is there from the beginning",
    );
}

#[actix_web::test]
async fn scenario_37_what_an_admin_gives_counts_for_the_same_token_at_once_and_what_is_taken_too() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let (user, admin) = (scene.token("user").await, bearer(&scene.token("admin").await));
    let lists = json!({ "authorization": bearer(&user), "require": { "permission": "USERS:LIST" } });
    scene.denied(lists.clone(), "insufficient_scope").await;
    assert_refused(&scene.ask(&bearer(&user), Method::GET, "/users", None).await, "not yet");

    let mut permissions = base();
    permissions["USERS"] = json!(["LIST"]);
    let path = format!("/users/{}", scene.user);
    let changed = scene.ask(&admin, Method::PUT, &path, Some(json!({ "permissions": permissions }))).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.text);
    assert_eq!(changed.json(), json!({ "id": scene.user, "username": "user", "permissions": permissions }));
    assert_eq!(scene.allowed(lists.clone()).await["permissions"]["USERS"], json!(["LIST"]));
    assert_eq!(scene.ask(&bearer(&user), Method::GET, "/users", None).await.status, StatusCode::OK);
    assert!(claims(&user)["permissions"].get("USERS").is_none(), "the token does not say it");
    let deed = detail(&scene.tenant.audit("user.update").await[0]);
    assert_eq!((&deed["roles"], &deed["scopes"]), (&json!(["user"]), &json!(["users:list"])), "the role stays");

    // Sent again as it is, nothing is done; without one that the role holds, the role goes.
    let before = scene.tenant.audit("user.update").await.len();
    let same = scene.ask(&admin, Method::PUT, &path, Some(json!({ "permissions": permissions, "username": "user" }))).await;
    assert_eq!((same.status, scene.tenant.audit("user.update").await.len()), (StatusCode::OK, before));
    let less = json!({ "permissions": { "MEMORY": ["READ"] } });
    assert_eq!(scene.ask(&admin, Method::PUT, &path, Some(less)).await.json()["permissions"], json!({ "MEMORY": ["READ"] }));
    scene.denied(lists, "insufficient_scope").await;
    let reads = json!({ "authorization": bearer(&user), "require": { "permission": "MEMORY:READ" } });
    scene.allowed(reads.clone()).await;

    // A new password ends the token, and another is had with it alone.
    let changed = scene.ask(&admin, Method::PUT, &path, Some(json!({ "password": "other" }))).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.text);
    scene.denied(reads, "invalid_token").await;
    assert_refused(&scene.log_in(json!({ "username": "user", "password": "user" })).await, "the password of before");
    assert_eq!(scene.log_in(json!({ "username": "user", "password": "other" })).await.status, StatusCode::OK);
    assert_eq!(scene.tenant.audit("user.password_set").await.len(), 1);
}

#[actix_web::test]
async fn scenario_39_people_are_added_shown_changed_and_removed() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let admin = bearer(&scene.token("admin").await);
    let add = async |body: Value| scene.ask(&admin, Method::POST, "/users", Some(body)).await;
    let made = add(json!({ "username": "Alice", "password": "Alice" })).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    let alice = made.json();
    let id = alice["id"].as_str().unwrap().to_owned();
    assert_eq!(alice, json!({ "id": id, "username": "Alice", "permissions": base() }));
    assert_eq!(claims(&scene.token("Alice").await)["permissions"], base());

    for name in ["Alice", "alice", "ALICE"] {
        let twice = add(json!({ "username": name, "password": "Alice" })).await;
        let duplicate = json!({ "detail": { "error": "Cannot duplicate user" } });
        assert_eq!((twice.status, twice.json()), (StatusCode::FORBIDDEN, duplicate), "{name}");
    }
    for (body, field) in [
        (json!({ "username": "Bob", "password": "Bobby", "something": 42 }), "something"),
        (json!({ "username": "B", "password": "Bobby" }), "username"),
        (json!({ "username": "a b", "password": "Bobby" }), "username"),
        (json!({ "username": "Bob", "password": "Bobb" }), "password"),
        (json!({ "username": "Bob" }), "password"),
        (json!({ "username": "Bob", "password": "Bobby", "permissions": { "SOMETHING": ["READ"] } }), "permissions"),
        (json!({ "username": "Bob", "password": "Bobby", "permissions": { "MEMORY": ["BURN"] } }), "permissions"),
        (json!({ "username": "Bob", "password": "Bobby", "permissions": { "memory": ["read"] } }), "permissions"),
        // P29: what is not for this route to give.
        (json!({ "username": "Bob", "password": "Bobby", "roles": ["tenant-admin"] }), "roles"),
        (json!({ "username": "Bob", "password": "Bobby", "id": scene.admin }), "id"),
        (json!({ "username": "Bob", "password": "Bobby", "permissions": { "KEYS": ["WRITE"] } }), "permissions"),
    ] {
        let refused = add(body.clone()).await;
        assert_listed(&refused, &body.to_string());
        assert_eq!(refused.json()["error"][0]["loc"], json!([field]), "{body}");
    }
    let some = add(json!({ "username": "Dodo", "password": "Dodo-1", "permissions": { "STATUS": ["READ"], "USERS": ["READ"] } }));
    assert_eq!(some.await.json()["permissions"], json!({ "STATUS": ["READ"], "USERS": ["READ"] }));
    assert_eq!(
        add(json!({ "username": "Mouse", "password": "Mouse", "permissions": {} })).await.json()["permissions"],
        json!({})
    );

    let listed = async |query: &str| {
        let answer = scene.ask(&admin, Method::GET, &format!("/users{query}"), None).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let people: Vec<Value> = serde_json::from_str(&answer.text).unwrap();
        people.iter().map(|one| one["username"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = listed("").await;
    assert_eq!(all.len(), 5);
    server.clock.advance(TimeDelta::seconds(1));
    assert_eq!(add(json!({ "username": "Zoe", "password": "Zoe-1" })).await.status, StatusCode::OK);
    assert_eq!(listed("?skip=5").await, ["Zoe"], "oldest first");
    assert_eq!([listed("?limit=2").await, listed("?skip=2&limit=4").await].concat(), listed("?limit=1000").await);
    assert_eq!(listed("?limit=0").await.len() + listed("?skip=4000000000").await.len(), 0);
    for query in ["?skip=-1", "?limit=x", "?limit=1001", "?skip=1&skip=2"] {
        assert_listed(&scene.ask(&admin, Method::GET, &format!("/users{query}"), None).await, query);
    }

    let path = format!("/users/{id}");
    assert_eq!(scene.ask(&admin, Method::GET, &path, None).await.json(), alice);
    for (body, field) in [
        (json!({ "username": "Alice2" }), "username"),
        (json!({ "password": "1234" }), "password"),
        (json!({ "something": 42 }), "something"),
        (json!({ "permissions": { "MEMORY": "READ" } }), "permissions.MEMORY"),
    ] {
        let refused = scene.ask(&admin, Method::PUT, &path, Some(body.clone())).await;
        assert_listed(&refused, &body.to_string());
        assert_eq!(refused.json()["error"][0]["loc"], json!([field]), "{body}");
    }
    // All of a change, or nothing of it.
    let both = json!({ "password": "1234", "permissions": {} });
    assert_listed(&scene.ask(&admin, Method::PUT, &path, Some(both)).await, "a good part and a bad one");
    assert_eq!(scene.ask(&admin, Method::GET, &path, None).await.json(), alice);
    assert_eq!(scene.ask(&admin, Method::PUT, &path, Some(json!({}))).await.json(), alice);

    assert_eq!(scene.ask(&admin, Method::DELETE, &path, None).await.json(), alice, "who it was");
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let body = (method == Method::PUT).then(|| json!({}));
        for path in [path.as_str(), "/users/00000000-0000-4000-8000-000000000000", "/users/wrong_id"] {
            let gone = scene.ask(&admin, method.clone(), path, body.clone()).await;
            let unknown = json!({ "detail": { "error": "User not found" } });
            assert_eq!((gone.status, gone.json()), (StatusCode::NOT_FOUND, unknown), "{method} {path}");
        }
    }
    assert_refused(&scene.log_in(json!({ "username": "Alice", "password": "Alice" })).await, "removed");

    let available = scene.ask(&admin, Method::GET, "/auth/available-permissions", None).await.json();
    let names: Vec<&String> = available.as_object().unwrap().keys().collect();
    let resources = [
        "AUTH_HANDLER",
        "CONVERSATION",
        "EMBEDDER",
        "LLM",
        "MEMORY",
        "PLUGINS",
        "SETTINGS",
        "STATIC",
        "STATUS",
        "UPLOAD",
        "USERS",
    ];
    assert_eq!(names, resources);
    for actions in available.as_object().unwrap().values() {
        assert_eq!(actions, &json!(["DELETE", "EDIT", "LIST", "READ", "WRITE"]));
    }
}

#[actix_web::test]
async fn p28_a_user_does_nothing_with_people_an_admin_all_of_it_and_each_permission_opens_its_own_route() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let (user, admin) = (bearer(&scene.token("user").await), bearer(&scene.token("admin").await));
    let needs = ["users:list", "users:list", "users:write", "users:read", "users:edit", "users:delete"];
    let mut one_each = Vec::new();
    for scope in ["users:list", "users:write", "users:read", "users:edit", "users:delete"] {
        let key = scene.tenant.app_key(scope, &[scope]).await;
        one_each.push((scope, bearer(&key.pair())));
    }
    for (n, (method, path, body)) in routes_for_people(scene.user).into_iter().enumerate() {
        assert_refused(&scene.ask(&user, method.clone(), &path, body.clone()).await, &path);
        for (scope, caller) in one_each.iter().filter(|(scope, _)| *scope != needs[n]) {
            let refused = scene.ask(caller, method.clone(), &path, body.clone()).await;
            assert_refused(&refused, &format!("{method} {path} with {scope}"));
        }
        // A body is looked at after its caller.
        assert_refused(&scene.ask(&user, method.clone(), &path, Some(json!({ "nonsense": 1 }))).await, &path);
    }
    let refusals = scene.tenant.audit("access.refused").await;
    let of_user = refusals.iter().filter(|entry| entry.actor == format!("user:{}", scene.user));
    assert!(of_user.clone().count() >= 10, "each, until there are too many of them");
    assert!(of_user.into_iter().any(|entry| entry.target.ends_with("DELETE /t/{tenant}/users/{id}")));
    for (method, path, body) in routes_for_people(scene.user) {
        let done = scene.ask(&admin, method.clone(), &path, body).await;
        assert_eq!(done.status, StatusCode::OK, "{method} {path}: {}", done.text);
        let text = done.text.to_lowercase();
        assert!(!text.contains("password") && !text.contains("argon2") && !text.contains("made-1"), "{text}");
    }
    // The key for http does all of it too, in its own name.
    let made = json!({ "username": "Bill", "password": "Bill-1" });
    let request = server.with(&bearer(&scene.http_key)).request(Method::POST, "/t/cat/users").header("user_id", "user");
    let made = send(request.json(&made)).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    let key = format!("key:{}", scene.http_key.split(':').next().unwrap());
    assert_eq!(scene.tenant.audit("user.create").await[0].actor, key);
    assert_refused(&scene.ask(&bearer(&scene.ws_key), Method::GET, "/users", None).await, "the key for WebSockets");
}

#[actix_web::test]
async fn p27_nobody_gives_what_they_do_not_hold_nor_takes_the_place_of_who_holds_more() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let editor = person(&scene.tenant, "editor", &["user"]).await;
    let admin = bearer(&scene.token("admin").await);
    let mut permissions = base();
    permissions["USERS"] = json!(["WRITE", "EDIT"]);
    let made = scene.ask(&admin, Method::PUT, &format!("/users/{editor}"), Some(json!({ "permissions": permissions }))).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    let editor_token = bearer(&scene.token("editor").await);
    let change = async |caller: &str, whom: UserId, body: Value| {
        scene.ask(caller, Method::PUT, &format!("/users/{whom}"), Some(body)).await
    };
    let more = json!({ "PLUGINS": ["WRITE"] });
    let oneself = change(&editor_token, editor, json!({ "permissions": more })).await;
    let other = change(&editor_token, scene.user, json!({ "permissions": more })).await;
    let new = json!({ "username": "Puppet", "password": "Puppet", "permissions": more });
    let new = scene.ask(&editor_token, Method::POST, "/users", Some(new)).await;
    for refused in [oneself, other, new] {
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text);
        assert!(refused.json()["detail"]["error"].as_str().unwrap().contains("plugins:write"), "{}", refused.text);
    }
    // Nor gets there by a password.
    let above = change(&editor_token, scene.admin, json!({ "password": "mine!" })).await;
    assert_eq!(above.status, StatusCode::FORBIDDEN);
    scene.token("admin").await;
    let below = change(&editor_token, scene.user, json!({ "password": "theirs" })).await;
    assert_eq!(below.status, StatusCode::OK);
    // What its admins do not know of, they do not see and do not take away.
    let root = person(&scene.tenant, "root", &["admin", "tenant-admin"]).await;
    let shown = scene.ask(&admin, Method::GET, &format!("/users/{root}"), None).await.json();
    assert_eq!(shown["permissions"].as_object().unwrap().len(), 11, "{shown}");
    assert_eq!(change(&admin, root, json!({ "permissions": shown["permissions"] })).await.json(), shown);
    let taken = change(&admin, root, json!({ "password": "mine!" })).await;
    assert_eq!(taken.status, StatusCode::FORBIDDEN, "an admin of the cat is none of the tenant");
    assert_eq!(change(&admin, root, json!({ "permissions": {} })).await.status, StatusCode::FORBIDDEN);
    let removed = scene.ask(&admin, Method::DELETE, &format!("/users/{root}"), None).await;
    assert_eq!(removed.status, StatusCode::FORBIDDEN, "{}", removed.text);
    let other_root = person(&scene.tenant, "other", &["admin", "tenant-admin"]).await;
    let root_token = bearer(&scene.token("root").await);
    let stripped = change(&root_token, other_root, json!({ "permissions": {} })).await;
    assert_eq!(stripped.status, StatusCode::BAD_REQUEST, "{}", stripped.text);
    let still = scene.ask(&admin, Method::GET, &format!("/users/{other_root}"), None).await.json();
    assert_eq!(still["permissions"].as_object().unwrap().len(), 11, "{still}");
    // A token of the dialect opens nothing of our own management.
    for path in ["/v1/users", "/v1/keys", "/v1/audit"] {
        assert_eq!(scene.ask(&admin, Method::GET, path, None).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[actix_web::test]
async fn every_route_for_people_is_403_without_a_credential_that_holds_whatever_its_form() {
    let server = Server::start_with(Options { throttle: UNTHROTTLED, ..Options::default() }).await;
    let scene = Scene::of(&server).await;
    let jwt = scene.token("admin").await;
    let (head, rest) = jwt.split_once('.').unwrap();
    let flipped = format!("{head}.{}{rest}", if rest.starts_with('A') { "B" } else { "A" });
    let secret_of_before =
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZG1pbiIsInVzZXJuYW1lIjoiYWRtaW4iLCJleHAiOjQxMDI0NDQ4MDB9";
    let forms: [(&str, String); 13] = [
        ("authorization", "Bearer meow".into()),
        ("authorization", "Bearer not_a_jwt.not_a_jwt.not_a_jwt".into()),
        ("authorization", bearer(&flipped)),
        ("authorization", bearer(&format!("{secret_of_before}.c2VjcmV0"))),
        ("authorization", bearer(&format!("{}:wrong", scene.http_key.split(':').next().unwrap()))),
        ("authorization", scene.http_key.clone()),
        ("authorization", jwt.clone()),
        ("authorization", format!("Bearer: {jwt}")),
        ("authorization", String::new()),
        ("authorization", basic("admin:admin")),
        ("access_token", scene.http_key.clone()),
        ("access_token", jwt.clone()),
        ("user_id", "admin".into()),
    ];
    for (method, path, body) in routes_for_people(scene.user) {
        for (name, value) in &forms {
            let request = server.anonymous().request(method.clone(), &scene.tenant.path(&path)).header(*name, value);
            let request = if let Some(body) = &body { request.json(body) } else { request };
            assert_refused(&send(request).await, &format!("{method} {path} {name}: {value}"));
        }
        let by_query = scene.ask("", method.clone(), &format!("{path}?token={jwt}"), body).await;
        assert_refused(&by_query, "a token in the address");
    }
    // Where the tenant says so, as its clients of before send them.
    scene.set(|settings| settings.lenient_bearer = true).await;
    for (name, value) in [
        ("authorization", scene.http_key.clone()),
        ("authorization", jwt.clone()),
        ("authorization", format!("Bearer: {jwt}")),
        ("access_token", scene.http_key.clone()),
        ("access_token", jwt.clone()),
    ] {
        let answer = send(server.anonymous().request(Method::GET, "/t/cat/users").header(name, &value)).await;
        assert_eq!(answer.status, StatusCode::OK, "{name}: {value}: {}", answer.text);
    }
    for (name, value) in [("access_token", ""), ("access_token", "meow"), ("authorization", "meow")] {
        let answer = send(server.anonymous().request(Method::GET, "/t/cat/users").header(name, value)).await;
        assert_refused(&answer, &format!("{name}: {value}"));
    }
    // Two credentials: the newer header counts, whatever the older one holds.
    let both = server.with("Bearer meow").request(Method::GET, "/t/cat/users").header("access_token", &scene.http_key);
    assert_refused(&send(both).await, "both");
}

#[actix_web::test]
async fn identity_comes_from_the_token_whatever_user_id_says_and_a_token_of_three_seconds_ends() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let jwt = scene.token("user").await;
    for question in [
        json!({ "authorization": bearer(&jwt), "user_id": "admin" }),
        json!({ "token": jwt, "transport": "ws", "user_id": "admin" }),
        json!({ "authorization": bearer(&jwt), "transport": "ws" }),
    ] {
        let decision = scene.allowed(question).await;
        assert_eq!((&decision["subject"], &decision["username"]), (&json!(scene.user), &json!("user")));
        assert_eq!((&decision["permissions"], decision.get("actor")), (&base(), None));
    }
    let read = json!({ "token": jwt, "transport": "ws", "require": { "permission": "CONVERSATION:WRITE" } });
    scene.allowed(read).await;

    let manager = scene.tenant.app_key("manager", &["audiences:read", "audiences:write"]).await;
    let manager = server.with(&manager.basic());
    let audiences = manager.get("/t/cat/v1/audiences").await.json();
    let mut profile = audiences["items"][0]["profile"].clone();
    profile["lifetime"] = json!(5);
    let path = format!("/t/cat/v1/audiences/{}", audiences["items"][0]["id"].as_str().unwrap());
    let changed = manager.patch(&path, json!({ "profile": profile })).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.text);
    let jwt = scene.token("admin").await;
    let left = claims(&jwt)["exp"].as_i64().unwrap() - server.clock.now().timestamp();
    assert_eq!(left, 3, "its beginning lies two seconds back");
    let asked = async || scene.ask(&bearer(&jwt), Method::GET, "/users", None).await;
    server.clock.advance(TimeDelta::seconds(2));
    assert_eq!(asked().await.status, StatusCode::OK);
    scene.allowed(json!({ "token": jwt, "transport": "ws" })).await;
    server.clock.advance(TimeDelta::seconds(1));
    assert_refused(&asked().await, "over");
    scene.denied(json!({ "authorization": bearer(&jwt) }), "invalid_token").await;
    scene.denied(json!({ "token": jwt, "transport": "ws" }), "invalid_token").await;
}

#[actix_web::test]
async fn scenario_40_a_ticket_for_the_token_opens_one_websocket() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let jwt = scene.token("user").await;
    let made = server.with(&bearer(&jwt)).post_empty("/t/cat/v1/ws-tickets").await;
    assert_eq!((made.status, &made.json()["expires_in"]), (StatusCode::CREATED, &json!(60)), "{}", made.text);
    let ticket = made.json()["ticket"].as_str().unwrap().to_owned();
    scene.denied(json!({ "token": ticket }), "ticket_not_allowed").await;
    let ws = json!({ "token": ticket, "transport": "ws", "require": { "permission": "CONVERSATION:WRITE" } });
    let decision = scene.allowed(ws.clone()).await;
    assert_eq!((&decision["username"], &decision["permissions"]), (&json!("user"), &base()));
    scene.denied(ws, "invalid_credentials").await;
    let made = server.with(&bearer(&jwt)).post_empty("/t/cat/v1/ws-tickets").await.json();
    server.clock.advance(TimeDelta::seconds(61));
    scene.denied(json!({ "token": made["ticket"], "transport": "ws" }), "invalid_credentials").await;
}

#[actix_web::test]
async fn scenario_41_p06_p24_a_form_leads_where_it_may_with_a_session_and_back_when_it_is_wrong() {
    let server = Server::start_with(Options { throttle: UNTHROTTLED, ..Options::default() }).await;
    let scene = Scene::of(&server).await;
    let page = server.anonymous().get("/t/cat/auth/login?referer=/admin/").await;
    assert_eq!((page.status, page.header("content-type")), (StatusCode::OK, "text/html; charset=utf-8"));
    assert!(page.text.contains("action=\"/t/cat/auth/login\"") && page.text.contains("name=\"referer\" value=\"/admin/\""));
    assert!(!page.text.contains("role=\"alert\"") && !page.text.contains("csrf"));
    assert!(server.anonymous().get("/t/cat/auth/login?retry=1").await.text.contains("role=\"alert\""));

    let good = scene.sign_in(&[("username", "admin"), ("password", "admin"), ("referer", "/admin/")], &[]).await;
    assert_eq!((good.status, good.header("location")), (StatusCode::SEE_OTHER, "/admin/"), "{}", good.text);
    let cookies = set_cookies(&good);
    let session = cookies.iter().find(|cookie| cookie.name == "__Host-session-cat").unwrap();
    assert!(["HttpOnly", "SameSite=Lax", "Secure", "Path=/"].iter().all(|one| session.attributes.contains(&(*one).into())));
    assert!(cookies.iter().all(|cookie| !cookie.value.starts_with("eyJ")), "no token is left where scripts are");
    let header = format!("{}={}", session.name, session.value);
    let me = send(server.anonymous().request(Method::GET, "/t/cat/v1/me").header("Cookie", &header)).await;
    assert_eq!(me.json()["username"], "admin");
    // The routes for people take no cookie, so nobody can be made to send one there.
    assert_refused(&send(server.anonymous().request(Method::GET, "/t/cat/users").header("Cookie", &header)).await, "a cookie");

    let begun = Instant::now();
    let bad = scene.sign_in(&[("username", "admin"), ("password", "wrong"), ("referer", "/admin/?a=1&b")], &[]).await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(bad.status, StatusCode::SEE_OTHER);
    assert_eq!(bad.header("location"), "/t/cat/auth/login?referer=%2Fadmin%2F%3Fa%3D1%26b&retry=1");
    assert!(set_cookies(&bad).is_empty());
    let unknown = scene.sign_in(&[("username", "nobody"), ("password", "wrong"), ("referer", "/admin/?a=1&b")], &[]).await;
    assert_eq!(unknown.told(), bad.told());

    let leads_away = [
        "https://evil.test/",
        "//evil.test",
        "/\\evil.test",
        "\\\\evil.test",
        "/\t/evil.test",
        "javascript:alert(1)",
        "http:evil.test",
        "admin",
        "",
        "/a\r\nSet-Cookie: b=c",
    ];
    for referer in leads_away {
        let form = [("username", "user"), ("password", "user"), ("referer", referer)];
        let answer = scene.sign_in(&form, &[]).await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/t/cat/account"), "{referer}");
        let encoded: String = url::form_urlencoded::byte_serialize(referer.as_bytes()).collect();
        let page = server.anonymous().get(&format!("/t/cat/auth/login?referer={encoded}")).await;
        assert!(!page.text.contains("name=\"referer\""), "{referer}");
    }
    // Nobody is signed in by a form of another site.
    let form = [("username", "user"), ("password", "user")];
    for headers in [
        [("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.test")],
        [("Sec-Fetch-Site", "same-site"), ("Origin", "http://id.test")],
        [("Accept", "*/*"), ("Origin", "https://evil.test")],
        [("Accept", "*/*"), ("Origin", "null")],
    ] {
        let answer = scene.sign_in(&form, &headers).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{headers:?}");
        assert!(set_cookies(&answer).is_empty());
    }
    let ours = scene.sign_in(&form, &[("Sec-Fetch-Site", "same-origin"), ("Origin", "http://id.test")]).await;
    assert_eq!(ours.status, StatusCode::SEE_OTHER);
    assert_listed(&scene.sign_in(&[("username", "user")], &[]).await, "no password");
}

#[actix_web::test]
async fn the_cookie_that_the_admin_panel_reads_is_set_only_where_the_tenant_says_so() {
    let options =
        Options { hosts: vec![("cat.example.org", "cat")], trusted_proxies: vec!["127.0.0.1/32"], ..Options::default() };
    let server = Server::start_with(options).await;
    let dialects = json!({ "dialects": { "cheshire-cat": { "panel_cookie": true } } });
    let scene = Scene::with(&server, "cat", dialects).await;
    let form = [("username", "admin"), ("password", "admin"), ("referer", "https://evil.test/")];
    let answer = scene.sign_in(&form, &[("X-Forwarded-Proto", "https")]).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/admin/"), "{}", answer.text);
    let panel = set_cookies(&answer).into_iter().find(|cookie| cookie.name == "ccat_user_token").unwrap();
    assert_eq!(panel.attributes, ["Max-Age=86400", "Path=/t/cat", "SameSite=Lax", "Secure"], "and no HttpOnly");
    let told = claims(&panel.value);
    assert_eq!((&told["username"], told["permissions"].as_object().unwrap().len()), (&json!("admin"), 11));
    assert_eq!(scene.ask(&bearer(&panel.value), Method::GET, "/users", None).await.status, StatusCode::OK);
    let plain = scene.sign_in(&form, &[]).await;
    let panel = set_cookies(&plain).into_iter().find(|cookie| cookie.name == "ccat_user_token").unwrap();
    assert_eq!(panel.attributes, ["Max-Age=86400", "Path=/t/cat", "SameSite=Lax"]);

    // On the cat's own host, the page and its cookie are where its panel looks for them.
    let at_host = |method: Method, path: &str| {
        let request = server.anonymous().request(method, path).header("Host", "cat.example.org");
        request.header("X-Forwarded-Proto", "https")
    };
    let page = send(at_host(Method::GET, "/auth/login?referer=/admin/")).await;
    assert!(page.text.contains("action=\"/auth/login\""), "{}", page.text);
    let post =
        |form: &[(&str, &str)], origin: &'static str| at_host(Method::POST, "/auth/login").form(form).header("Origin", origin);
    let good = send(post(&form, "https://cat.example.org")).await;
    assert_eq!((good.status, good.header("location")), (StatusCode::SEE_OTHER, "/admin/"));
    let panel = set_cookies(&good).into_iter().find(|cookie| cookie.name == "ccat_user_token").unwrap();
    assert!(panel.attributes.contains(&"Path=/".to_owned()), "{panel:?}");
    let bad = send(post(&[("username", "admin"), ("password", "wrong")], "https://cat.example.org")).await;
    assert_eq!(bad.header("location"), "/auth/login?retry=1");
    assert_eq!(send(post(&form, "https://evil.test")).await.status, StatusCode::FORBIDDEN);
    let token = at_host(Method::POST, "/auth/token").json(&json!({ "username": "user", "password": "user" }));
    let token = send(token).await.json();
    let me = at_host(Method::GET, &format!("/users/{}", scene.admin));
    assert_refused(&send(me.header("Authorization", bearer(token["access_token"].as_str().unwrap()))).await, "a user");
}

#[actix_web::test]
async fn scenario_70_whatever_these_routes_answer_is_in_the_document_and_nothing_else_is() {
    let server = Server::start_with(Options { throttle: UNTHROTTLED, ..Options::default() }).await;
    let scene = Scene::with(&server, "cat", json!({ "login_throttle": { "failures": 1000 } })).await;
    let admin = bearer(&scene.token("admin").await);
    let operations: Vec<_> = dialect_operations().into_iter().filter(|one| one.id.starts_with("cheshireCat")).collect();
    assert_eq!(operations.len(), 9);
    for operation in operations {
        let described = operation.document["responses"].as_object().unwrap();
        assert!(["401", "415", "422", "429"].iter().all(|status| !described.contains_key(*status)), "{}", operation.id);
        let paths = ["cat", "nowhere"].map(|slug| operation.path_of_nothing(slug));
        let wrong_query = format!("{}?limit=x&skip=x", paths[0]);
        for path in paths.iter().chain([&wrong_query]) {
            for header in ["Bearer abcd.efgh", admin.as_str()] {
                let caller = server.with(header);
                let request = || caller.request(operation.method.clone(), path);
                let with_body = |kind: &'static str, body: String| request().header("Content-Type", kind).body(body);
                let mut requests = vec![operation.request(&caller, path)];
                if operation.body.is_some() {
                    requests.extend([
                        request(),
                        with_body("text/plain", "{}".into()),
                        with_body("application/json", "{".into()),
                        with_body("application/json", "x".repeat(70_000)),
                        with_body("application/json", r#"{"username":"nobody","password":"wrong"}"#.into()),
                        with_body("application/x-www-form-urlencoded", "username=nobody&password=wrong".into()),
                        with_body("application/x-www-form-urlencoded", "password=a&password=b".into()),
                    ]);
                }
                for answer in join_all(requests.into_iter().map(send)).await {
                    let at = format!("{} {}: {}", operation.id, answer.status, answer.text);
                    assert!(!answer.status.is_server_error(), "{at}");
                    let said = described.get(answer.status.as_str()).unwrap_or_else(|| panic!("{at}"));
                    let kind = answer.header("content-type").split(';').next().unwrap().to_owned();
                    assert!(answer.text.is_empty() || said["content"].get(&kind).is_some(), "{kind} {at}");
                }
            }
        }
    }
}

#[actix_web::test]
async fn p30_what_is_good_in_one_tenant_is_nothing_in_another_that_speaks_the_same() {
    let server = Server::start().await;
    let (ours, theirs) = (Scene::of(&server).await, Scene::with(&server, "theirs", json!({})).await);
    let admin = bearer(&ours.token("admin").await);
    for credential in [&admin, &bearer(&ours.http_key)] {
        for (method, path, body) in routes_for_people(theirs.user) {
            assert_refused(&theirs.ask(credential, method, &path, body).await, &path);
        }
        theirs
            .denied(
                json!({ "authorization": credential }),
                if credential == &admin { "invalid_token" } else { "invalid_credentials" },
            )
            .await;
    }
    theirs.denied(json!({ "token": ours.ws_key, "transport": "ws" }), "invalid_credentials").await;
    // Their people are not there for ours.
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let body = (method == Method::PUT).then(|| json!({ "password": "other" }));
        let answer = ours.ask(&admin, method.clone(), &format!("/users/{}", theirs.user), body).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method}");
    }
    let listed = ours.ask(&admin, Method::GET, "/users", None).await.text;
    assert!(!listed.contains(&theirs.user.to_string()));
}
