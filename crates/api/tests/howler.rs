//! Howler's dialect: its logins, app tokens, keys, impersonation and providers, in its words (SEEDS scenarios 52 to 56, 58 to 61,
//! 63 and 65; attacks P20, P21, P29, P30, P33, P36, P39; drafts U3, U4, U5).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod binary_support;
#[path = "support/people.rs"]
mod people;
#[path = "support/provider.rs"]
mod provider;
mod support;

use std::time::Duration;

use binary_support::{Home, Serving, free_port, wait_until};
use chrono::TimeDelta;
use claviger_issuer::acting::ActingRule;
use claviger_issuer::audit::Actor;
use claviger_issuer::clock::Clock;
use claviger_issuer::key::{HashedPair, KeyOrder};
use claviger_issuer::limits::KeyLimits;
use claviger_issuer::settings::TenantSettings;
use claviger_issuer::tenant::NewTenant;
use claviger_issuer::user::{NewPassword, NewUser, UserChange};
use claviger_store::id::{KeyId, Owner, UserId};
use people::{Browser, set_cookies};
use provider::Provider;
use reqwest::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use support::operations::dialect_operations;
use support::wire::send;
use support::{Answer, Key, Options, Server, Tenant, basic, claims, detail};

/// Howler's own fixtures have the owner's name for every secret. A hash of `user`, and one of `admin`.
const HASHES: [(&str, &str); 2] = [
    ("user", "$2b$04$abcdefghijklmnopqrstuuNAQExucr2LsqaD9NvAY5wVk.CUu2Mve"),
    ("admin", "$2b$04$abcdefghijklmnopqrstuuQe66hACgXZ.ImKMvPGdqru0gQrWJ8Ju"),
];
const LOCKED: &str = "Maximum password retry of 5 was reached. This account is locked for the next 60 seconds...";
const NO_ACCESS: &str = "You do not have access to this API.";

fn hash_for(name: &str) -> &'static str {
    HASHES.iter().find(|(owner, _)| *owner == name).map_or(HASHES[0].1, |(_, hash)| hash)
}

/// What stands in the envelope of an answer of 200.
fn response(answer: &Answer) -> Value {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let envelope = answer.json();
    let names: Vec<&str> = envelope.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["api_error_message", "api_response", "api_server_version", "api_status_code"]);
    assert_eq!((&envelope["api_error_message"], &envelope["api_status_code"]), (&json!(""), &json!(200)));
    envelope["api_response"].clone()
}

/// Status and message of a refusal, in its envelope.
fn said(answer: &Answer) -> (u16, String) {
    let envelope = answer.json();
    assert_eq!(answer.header("content-type"), "application/json", "{}", answer.text);
    assert_eq!(envelope["api_status_code"], answer.status.as_u16());
    assert!(envelope["api_response"].is_null() && envelope["api_server_version"].is_string(), "{}", answer.text);
    (answer.status.as_u16(), envelope["api_error_message"].as_str().unwrap().to_owned())
}

fn no(status: u16, message: &str) -> (u16, String) {
    (status, message.to_owned())
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// The tenant `how`: admin [admin,user] with devkey RWE, readonly R and one that has ended; user [user] with devkey RW and the keys
/// impersonate_admin for admin and goose and impersonate_potato for potato.
struct Scene<'a> {
    tenant: Tenant<'a>,
    asker: Key,
}

impl<'a> Scene<'a> {
    async fn of(server: &'a Server) -> Self {
        Self::with(server, json!({})).await
    }

    async fn with(server: &'a Server, settings: Value) -> Self {
        let settings: TenantSettings = serde_json::from_value(settings).unwrap();
        let new = NewTenant { slug: "how".into(), name: None, settings, preset: Some("howler".into()) };
        let id = server.issuer.create_tenant(&Actor::operator(), new).await.unwrap().id;
        let tenant = Tenant { server, slug: "how".into(), id };
        let asker = tenant.app_key("howler-api", &["verify"]).await;
        let scene = Self { tenant, asker };
        let admin = scene.person("admin", &["admin", "user"], json!({})).await;
        let attributes = json!({ "name": "User", "groups": ["USERS"], "classification": "TLP:W" });
        let user = scene.person("user", &["user"], attributes).await;
        scene.person("goose", &["user"], json!({})).await;
        scene.key("admin", admin, "devkey", "RWE", &[], None).await;
        scene.key("admin", admin, "readonly", "R", &[], None).await;
        scene.key("admin", admin, "expired", "RW", &[], Some(TimeDelta::seconds(5))).await;
        scene.key("user", user, "devkey", "RW", &[], None).await;
        scene.key("user", user, "impersonate_admin", "RW", &["admin", "goose"], None).await;
        scene.key("user", user, "impersonate_potato", "RW", &["potato"], None).await;
        server.clock.advance(TimeDelta::seconds(6));
        scene
    }

    fn server(&self) -> &'a Server {
        self.tenant.server
    }

    async fn person(&self, name: &str, roles: &[&str], attributes: Value) -> UserId {
        let entry = self.server().issuer.tenant("how").await.unwrap().unwrap();
        let new = NewUser {
            username: name.into(),
            email: Some(format!("{name}@howler.cyber.gc.ca")),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            attributes: attributes.as_object().cloned().unwrap(),
            password: Some(NewPassword::Hash(hash_for(name).into())),
            ..NewUser::default()
        };
        self.server().issuer.create_user(&entry, &Actor::operator(), new).await.unwrap().id
    }

    /// A key as it comes from Howler: its secret is its owner's name.
    async fn key(&self, owner: &str, id: UserId, name: &str, letters: &str, agents: &[&str], ends: Option<TimeDelta>) {
        let scope = |letter| match letter {
            'R' => "howler:read",
            'W' => "howler:write",
            _ => "howler:extended",
        };
        let agents: Vec<String> = agents.iter().map(|name| (*name).to_owned()).collect();
        let order = KeyOrder {
            owner: Owner::User(id),
            name: name.into(),
            scopes: letters.chars().map(|letter| scope(letter).to_owned()).collect(),
            roles: Vec::new(),
            acting: ActingRule { agents: (!agents.is_empty()).then_some(agents), ..ActingRule::default() },
            token_lifetime: None,
            refresh: false,
            expires_at: ends.map(|ends| Some(self.server().clock.now() + ends)),
            limits: KeyLimits::default(),
            import: None,
        };
        let pair = HashedPair { key: format!("how-{owner}-{name}"), hash: SecretString::from(hash_for(owner)) };
        self.server().issuer.import_hashed_key(self.tenant.id, &Actor::operator(), order, pair).await.unwrap();
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
        let request = self.server().anonymous().request(method, &format!("/t/how/api/v1{path}"));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        send(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    async fn login(&self, body: Value) -> Answer {
        self.ask(Method::POST, "/auth/login/", &[], Some(body)).await
    }

    /// An app token.
    async fn app_token(&self, body: Value) -> String {
        response(&self.login(body).await)["app_token"].as_str().unwrap().to_owned()
    }

    async fn whoami(&self, authorization: &str) -> Answer {
        self.ask(Method::GET, "/user/whoami", &[("Authorization", authorization)], None).await
    }

    async fn whoami_as(&self, authorization: &str, impersonating: &str) -> Answer {
        let headers = [("Authorization", authorization), ("X-Impersonating", impersonating)];
        self.ask(Method::GET, "/user/whoami", &headers, None).await
    }

    async fn make_key(&self, authorization: &str, wish: Value) -> Answer {
        self.ask(Method::POST, "/auth/apikey", &[("Authorization", authorization)], Some(wish)).await
    }

    async fn remove_key(&self, authorization: &str, name: &str) -> Answer {
        self.ask(Method::DELETE, &format!("/auth/apikey/{name}"), &[("Authorization", authorization)], None).await
    }

    async fn verify(&self, body: Value) -> Value {
        let answer = self.server().with(&self.asker.basic()).post("/t/how/v1/verify", body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()
    }

    /// Whether a bearer may do one of these at `/v1/verify`; else, the status it hears.
    async fn may(&self, token: &str, letters: &[&str]) -> Result<(), u64> {
        let answer = self.verify(json!({ "authorization": bearer(token), "require": { "priv": letters } })).await;
        match answer["allow"] == true {
            true => Ok(()),
            false => Err(answer["status"].as_u64().unwrap()),
        }
    }

    /// Changes a setting, as an admin of the platform does.
    async fn try_set(&self, name: &str, value: Value) -> Answer {
        let platform = self.server().default_tenant().await.admin().await;
        let caller = self.server().with(&platform.basic());
        let mut settings = caller.get("/v1/tenants/how").await.json()["settings"].clone();
        settings[name] = value;
        caller.patch("/v1/tenants/how", json!({ "settings": settings })).await
    }

    async fn set(&self, name: &str, value: Value) {
        let changed = self.try_set(name, value).await;
        assert_eq!(changed.status, StatusCode::OK, "{}", changed.text);
    }

    async fn id(&self, name: &str) -> UserId {
        self.server().issuer.find_user_by_name(self.tenant.id, name).await.unwrap().id
    }
}

async fn scene_on(server: &Server) -> Scene<'_> {
    Scene::of(server).await
}

#[actix_web::test]
async fn scenario_52_a_password_becomes_an_app_token_that_says_who_one_is() {
    let server = Server::start().await;
    let scene = scene_on(&server).await;
    let answer = scene.login(json!({ "user": "user", "password": "user" })).await;
    let login = response(&answer);
    let token = login["app_token"].as_str().unwrap();
    let digits = token.strip_prefix("user:").unwrap();
    assert!(digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{token}");
    assert_eq!((&login["provider"], &login["refresh_token"]), (&Value::Null, &Value::Null));
    assert_eq!(login["privileges"], json!(["R", "W", "E"]));
    assert_eq!(answer.header("cache-control"), "no-store");

    let user = response(&scene.whoami(&bearer(token)).await);
    assert_eq!(
        user,
        json!({
            "avatar": null, "classification": "TLP:W", "email": "user@howler.cyber.gc.ca", "groups": ["USERS"],
            "is_active": true, "is_admin": false, "name": "User", "roles": ["user"], "username": "user",
            "apikeys": user["apikeys"],
        })
    );
    let mut keys: Vec<Value> = user["apikeys"].as_array().unwrap().clone();
    keys.sort_by_key(|key| key[0].as_str().unwrap().to_owned());
    let shown: Vec<(&Value, &Value)> = keys.iter().map(|key| (&key[0], &key[1])).collect();
    assert_eq!(
        shown,
        [
            (&json!("devkey"), &json!(["R", "W"])),
            (&json!("impersonate_admin"), &json!(["R", "W", "I"])),
            (&json!("impersonate_potato"), &json!(["R", "W", "I"])),
        ]
    );
    assert!(keys[0][2].is_string(), "a year, as the tenant's rule says");
    assert_eq!(response(&scene.whoami(&basic("admin:admin")).await)["is_admin"], true);
    let entry = &scene.tenant.audit("user.login").await[0];
    assert_eq!((entry.outcome.as_str(), detail(entry)), ("ok", json!({ "how": "password" })));
}

#[actix_web::test]
async fn scenario_53_the_limits_of_a_key_stay_with_its_app_token() {
    let server = Server::start().await;
    let scene = scene_on(&server).await;
    let login = response(&scene.login(json!({ "user": "admin", "apikey": "readonly:admin" })).await);
    assert_eq!(login["privileges"], json!(["R"]));
    let token = login["app_token"].as_str().unwrap();
    assert!(token.starts_with("admin:"));
    assert_eq!(scene.may(token, &["W"]).await, Err(403));
    assert_eq!(scene.may(token, &["W", "R"]).await, Ok(()), "one of them does");
    let answer = scene.verify(json!({ "authorization": bearer(token), "require": { "priv": ["R"] }, "transport": "ws" })).await;
    assert_eq!((&answer["allow"], &answer["priv"], &answer["username"]), (&json!(true), &json!(["R"]), &json!("admin")));
    assert_eq!(said(&scene.make_key(&bearer(token), json!({ "name": "ci", "priv": "R" })).await), no(403, NO_ACCESS));
    // In Howler's order, whatever the key's.
    let login = response(&scene.login(json!({ "user": "user", "apikey": "devkey:user" })).await);
    assert_eq!(login["privileges"], json!(["R", "W"]));
    let entry = &scene.tenant.audit("user.login").await[0];
    let user = scene.id("user").await;
    let (actor, subject) = ("key:how-user-devkey".to_owned(), format!("user:{user}"));
    assert_eq!((&entry.actor, &entry.subject, detail(entry)), (&actor, &subject, json!({ "how": "api_key" })));
    // What the person loses, the token loses.
    let change = UserChange { roles: Some(vec![]), ..UserChange::default() };
    server.issuer.change_user(scene.tenant.id, &Actor::operator(), scene.id("admin").await, change).await.unwrap();
    assert_eq!(scene.may(token, &["R"]).await, Err(403));
}

#[actix_web::test]
async fn scenario_54_basic_takes_a_password_and_a_named_key_and_a_slash_changes_nothing() {
    let server = Server::start().await;
    let scene = scene_on(&server).await;
    for pair in ["user:user", "user:devkey:user", "how-user-devkey:user"] {
        for path in ["/user/whoami", "/user/whoami/"] {
            let answer = scene.ask(Method::GET, path, &[("Authorization", &basic(pair))], None).await;
            assert_eq!(response(&answer)["username"], "user", "{pair} {path}");
        }
    }
    for path in ["/auth/login", "/auth/login/"] {
        let answer = scene.ask(Method::POST, path, &[], Some(json!({ "user": "user", "password": "user" }))).await;
        response(&answer);
    }
    let application = scene.tenant.app_key("service", &["howler:read"]).await;
    assert_eq!(said(&scene.whoami(&application.basic()).await), no(403, NO_ACCESS), "an application is nobody here");
}

#[actix_web::test]
async fn scenario_55_what_is_wrong_is_told_in_howlers_words() {
    let server = Server::start().await;
    let scene = scene_on(&server).await;
    let digits = "0".repeat(64);
    for (authorization, expected) in [
        (basic("admin:nokey:admin"), no(401, "API Key does not exist")),
        (basic("nobody:nokey:admin"), no(401, "API Key does not exist")),
        (basic("admin:expired:admin"), no(401, "Key is expired")),
        (basic("admin:expired:wrong"), no(401, "Invalid login information")),
        (basic("admin:devkey:wrong"), no(401, "Invalid login information")),
        (basic("admin:wrong"), no(401, "Invalid login information")),
        (basic("nobody:wrong"), no(401, "Invalid login information")),
        ("Bearer garbage".to_owned(), no(401, "Invalid token")),
        ("Bearer abcd.efgh.ijkl".to_owned(), no(401, "Invalid token")),
        (format!("Bearer user:{digits}"), no(401, "Invalid token")),
    ] {
        let answer = scene.whoami(&authorization).await;
        assert_eq!(said(&answer), expected, "{authorization}");
        assert!(answer.headers.contains_key("www-authenticate"));
    }
    assert_eq!(said(&scene.ask(Method::GET, "/user/whoami", &[], None).await), no(401, "No Authorization header present"));
    for malformed in ["Basic", "Basic ", "Basic %%%", "Token abc", "user:user", ""] {
        assert_eq!(said(&scene.whoami(malformed).await).0, 400, "{malformed}");
    }
    // The same words for a service that asks, and one for all where the tenant does not want to tell keys apart.
    let asked = async |pair: &str| scene.verify(json!({ "authorization": basic(pair), "ip": "198.51.100.9" })).await;
    let answer = asked("admin:nokey:admin").await;
    assert_eq!((&answer["reason"], &answer["error"]), (&json!("unknown_key"), &json!("API Key does not exist")));
    assert_eq!(asked("admin:expired:admin").await["error"], "Key is expired");
    scene.set("legacy_error_text", json!(false)).await;
    for pair in ["goose:nokey:admin", "admin:expired:admin", "goose:wrong"] {
        assert_eq!(asked(pair).await["error"], "Invalid credentials", "{pair}");
        assert_eq!(said(&scene.whoami(&basic(pair)).await), no(401, "Invalid login information"), "{pair}");
    }
}

#[actix_web::test]
async fn scenario_56_two_ways_at_once_none_and_credentials_in_an_address() {
    let server = Server::start().await;
    let scene = scene_on(&server).await;
    let both = json!({ "user": "user", "password": "user", "apikey": "devkey:user" });
    assert_eq!(said(&scene.login(both).await), no(400, "Cannot specify password and API key."));
    let not_enough = no(401, "Not enough information to proceed with authentication");
    for body in [
        json!({}),
        json!({ "user": "user" }),
        json!({ "password": "user" }),
        json!({ "apikey": "devkey:user" }),
        json!({ "refresh_token": "cr_x" }),
    ] {
        assert_eq!(said(&scene.login(body.clone()).await), not_enough, "{body}");
    }
    for (body, message) in [
        (json!({ "user": "user", "password": "wrong" }), "Invalid login information"),
        (json!({ "user": "user", "apikey": "user" }), "Invalid login information"),
        (json!({ "user": "user", "apikey": "devkey:wrong" }), "Invalid login information"),
        (json!({ "user": "user", "apikey": "nokey:user" }), "API Key does not exist"),
        (json!({ "user": "admin", "apikey": "expired:admin" }), "Key is expired"),
    ] {
        assert_eq!(said(&scene.login(body.clone()).await), no(401, message), "{body}");
    }
    for query in ["user=user&password=user", "user=user&apikey=devkey:user", "provider=x&refresh_token=cr_x"] {
        let answer = scene.ask(Method::GET, &format!("/auth/login?{query}"), &[], None).await;
        let (status, message) = said(&answer);
        assert!(status == 400 && message.contains("POST") && !message.contains("devkey"), "{query}: {message}");
    }
    // What is no JSON, or does not fit.
    for body in ["{", "[]", r#"{"user": 1}"#, r#"{"user": "a", "user": "b"}"#] {
        let request = server.anonymous().request(Method::POST, "/t/how/api/v1/auth/login").body(body);
        let answer = send(request.header("Content-Type", "application/json")).await;
        assert_eq!(said(&answer).0, 400, "{body}");
    }
    let form = server.anonymous().request(Method::POST, "/t/how/api/v1/auth/login").form(&[("user", "user")]);
    assert_eq!(said(&send(form).await).0, 400);
}

#[actix_web::test]
async fn exactly_five_failures_are_followed_by_the_lock_and_a_key_works_all_the_same() {
    let server = Server::start().await;
    let scene = scene_on(&server).await;
    let wrong = json!({ "user": "user", "password": "wrong" });
    for n in 0..5 {
        assert_eq!(said(&scene.login(wrong.clone()).await), no(401, "Invalid login information"), "{n}");
    }
    let locked = scene.login(json!({ "user": "user", "password": "user" })).await;
    assert_eq!(said(&locked), no(401, LOCKED));
    let seconds: u64 = locked.header("retry-after").parse().unwrap();
    assert!((1..=61).contains(&seconds), "{seconds}");
    assert_eq!(said(&scene.whoami(&basic("user:user")).await), no(401, LOCKED));
    response(&scene.whoami(&basic("user:devkey:user")).await);
    response(&scene.login(json!({ "user": "user", "apikey": "devkey:user" })).await);
    response(&scene.login(json!({ "user": "admin", "password": "admin" })).await);
    server.clock.advance(TimeDelta::seconds(61));
    // What the server remembers of a full place, it remembers for five seconds.
    tokio::time::sleep(Duration::from_millis(5_100)).await;
    response(&scene.login(json!({ "user": "user", "password": "user" })).await);
    // Names of keys that are not there count as passwords do.
    for _ in 0..5 {
        assert_eq!(said(&scene.whoami(&basic("user:guess:user")).await), no(401, "API Key does not exist"));
    }
    assert_eq!(said(&scene.whoami(&basic("user:guess:user")).await), no(401, LOCKED));
}

#[actix_web::test]
async fn app_tokens_end_with_their_hour_logout_password_key_and_person_and_none_lengthens_another() {
    let server = Server::start().await;
    let scene = scene_on(&server).await;
    let by_password = json!({ "user": "user", "password": "user" });
    let by_key = json!({ "user": "user", "apikey": "devkey:user" });
    let first = scene.app_token(by_password.clone()).await;
    server.clock.advance(TimeDelta::minutes(40));
    let second = scene.app_token(by_password.clone()).await;
    assert_eq!((scene.may(&first, &["R"]).await, scene.may(&second, &["R"]).await), (Ok(()), Ok(())));
    server.clock.advance(TimeDelta::minutes(20));
    assert_eq!((scene.may(&first, &["R"]).await, scene.may(&second, &["R"]).await), (Err(401), Ok(())));
    assert_eq!(said(&scene.whoami(&bearer(&first)).await), no(401, "Invalid token"));

    // Logout ends one login alone.
    let third = scene.app_token(by_password.clone()).await;
    let out = async |token: &str| scene.ask(Method::POST, "/auth/logout", &[("Authorization", &bearer(token))], None).await;
    assert!(response(&out(&second).await).is_null());
    assert_eq!((scene.may(&second, &["R"]).await, scene.may(&third, &["R"]).await), (Err(401), Ok(())));
    assert_eq!(said(&out(&second).await), no(401, "Invalid token"));
    assert_eq!(scene.tenant.audit("user.logout").await.len(), 1);
    assert_eq!(said(&out("abc.def.ghi").await), no(401, "Invalid token"));
    let by_basic = scene.ask(Method::POST, "/auth/logout", &[("Authorization", &basic("user:user"))], None).await;
    assert_eq!(said(&by_basic).0, 400);

    // A new password ends those of keys too; a key that is revoked ends its own.
    let of_key = scene.app_token(by_key.clone()).await;
    let entry = server.issuer.tenant("how").await.unwrap().unwrap();
    let user = scene.id("user").await;
    server.issuer.set_password(&entry, &Actor::operator(), user, SecretString::from("seven green lanterns")).await.unwrap();
    assert_eq!((scene.may(&third, &["R"]).await, scene.may(&of_key, &["R"]).await), (Err(401), Err(401)));
    let of_key = scene.app_token(by_key.clone()).await;
    let of_password = scene.app_token(json!({ "user": "user", "password": "seven green lanterns" })).await;
    server.issuer.revoke_key(scene.tenant.id, &Actor::operator(), &KeyId::parse("how-user-devkey").unwrap()).await.unwrap();
    assert_eq!((scene.may(&of_key, &["R"]).await, scene.may(&of_password, &["R"]).await), (Err(401), Ok(())));

    // Somebody who is disabled, and enabled again, logs in again.
    let disabled = async |disabled: bool| {
        let change = UserChange { disabled: Some(disabled), ..UserChange::default() };
        server.issuer.change_user(scene.tenant.id, &Actor::operator(), user, change).await.unwrap();
    };
    disabled(true).await;
    assert_eq!(scene.may(&of_password, &["R"]).await, Err(401));
    disabled(false).await;
    assert_eq!(scene.may(&of_password, &["R"]).await, Err(401));
    let last = scene.app_token(json!({ "user": "user", "password": "seven green lanterns" })).await;
    assert_eq!(scene.may(&last, &["R"]).await, Ok(()));

    // What is kept is a digest, and what is over is forgotten.
    let mut database = server.database.superuser().await;
    let count = "SELECT count(*) FROM app_tokens";
    let before: i64 = sqlx::query_scalar(count).fetch_one(&mut database).await.unwrap();
    server.issuer.upkeep().await;
    let after: i64 = sqlx::query_scalar(count).fetch_one(&mut database).await.unwrap();
    assert_eq!((before, after), (7, 1));
    let kept: String = sqlx::query_scalar("SELECT encode(mac, 'hex') FROM app_tokens").fetch_one(&mut database).await.unwrap();
    assert!(!last.contains(&kept));
    assert!(server.issuer.delete_user(scene.tenant.id, &Actor::operator(), user).await.is_ok());
    assert_eq!(scene.may(&last, &["R"]).await, Err(401));
}

#[actix_web::test]
async fn an_app_token_ends_with_the_tenants_logins_and_is_among_ones_own() {
    let server = Server::start().await;
    let scene = scene_on(&server).await;
    let token = scene.app_token(json!({ "user": "user", "password": "user" })).await;
    let own = scene.tenant.log_in("user", "user").await;
    let own = bearer(own["access_token"].as_str().unwrap());
    let logins = server.with(&own).get("/t/how/v1/me/sessions").await.json();
    assert_eq!(logins["items"].as_array().map_or(0, Vec::len), 2, "{logins}");
    let other = scene.app_token(json!({ "user": "admin", "apikey": "devkey:admin" })).await;
    let platform = server.default_tenant().await.admin().await;
    let disabled = async |disabled: bool| {
        let answer = server.with(&platform.basic()).patch("/v1/tenants/how", json!({ "disabled": disabled })).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    };
    disabled(true).await;
    disabled(false).await;
    assert_eq!((scene.may(&token, &["R"]).await, scene.may(&other, &["R"]).await), (Err(401), Err(401)));
}

#[actix_web::test]
async fn an_app_token_opens_this_tenants_dialect_and_verification_and_nothing_else() {
    let server = Server::start().await;
    let scene = scene_on(&server).await;
    let token = scene.app_token(json!({ "user": "admin", "password": "admin" })).await;
    response(&scene.whoami(&bearer(&token)).await);
    let forward = |slug: &str| {
        let request = server.with(&bearer(&token)).request(Method::GET, &format!("/t/{slug}/v1/forward-auth?kind=nginx"));
        request.header("X-Original-Method", "GET").header("X-Original-URL", "https://howler.example.org/")
    };
    let through = send(forward("how")).await;
    assert_eq!((through.status, through.header("remote-user")), (StatusCode::OK, "admin"));
    for path in ["/v1/me", "/t/how/v1/me", "/t/how/v1/users", "/t/how/v1/keys", "/v1/users"] {
        assert_eq!(server.with(&bearer(&token)).get(path).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(server.with(&bearer(&token)).post_empty("/t/how/v1/authentications").await.status, StatusCode::NOT_FOUND);
    let asker = scene.asker.basic();
    let asked = server.with(&asker).introspect("/t/how/v1/introspect", &token).await.json();
    assert_eq!(asked, json!({ "active": false }));
    // Somebody else's name before it makes it nobody's.
    let digits = token.strip_prefix("admin:").unwrap();
    for other in [format!("user:{digits}"), format!("nobody:{digits}"), digits.to_owned(), format!(":{digits}")] {
        assert_eq!(said(&scene.whoami(&bearer(&other)).await), no(401, "Invalid token"), "{other}");
        assert_eq!(scene.may(&other, &["R"]).await, Err(401), "{other}");
    }
    response(&scene.whoami(&bearer(&format!("ADMIN:{digits}"))).await);
    // Another tenant that speaks so, and one that does not.
    let new = NewTenant { slug: "other".into(), name: None, settings: TenantSettings::default(), preset: Some("howler".into()) };
    server.issuer.create_tenant(&Actor::operator(), new).await.unwrap();
    server.tenant("silent").await;
    let elsewhere = server.with(&bearer(&token)).get("/t/other/api/v1/user/whoami").await;
    assert_eq!(said(&elsewhere), no(401, "Invalid token"));
    for slug in ["other", "silent"] {
        assert_eq!(send(forward(slug)).await.status, StatusCode::UNAUTHORIZED, "{slug}");
    }
    // A key whose secret only looks like one is a key.
    let user = scene.id("user").await;
    let hex = "ab".repeat(32);
    let import = Some(claviger_issuer::key::ImportedPair { key: "lookalike".into(), secret: SecretString::from(hex.clone()) });
    let order = KeyOrder {
        owner: Owner::User(user),
        name: "lookalike".into(),
        scopes: vec!["howler:read".into()],
        roles: Vec::new(),
        acting: ActingRule::default(),
        token_lifetime: None,
        refresh: false,
        expires_at: None,
        limits: KeyLimits::default(),
        import,
    };
    server.issuer.create_key(scene.tenant.id, &Actor::operator(), order).await.unwrap();
    assert_eq!(scene.may(&format!("lookalike:{hex}"), &["R"]).await, Ok(()));
    // Ended, it is no failure of anybody's: again and again it is what it was the first time.
    let out = scene.ask(Method::POST, "/auth/logout", &[("Authorization", &bearer(&token))], None).await;
    assert_eq!(out.status, StatusCode::OK);
    for _ in 0..10 {
        assert_eq!(said(&scene.whoami(&bearer(&token)).await), no(401, "Invalid token"));
    }
}

#[actix_web::test]
async fn scenario_58_keys_are_made_by_howlers_rules() {
    let server = Server::start().await;
    let scene = Scene::with(&server, json!({ "keys": { "max_days": 180 } })).await;
    let login = basic("user:user");
    let after = |days| (server.clock.now() + TimeDelta::days(days)).to_rfc3339();
    let make = async |wish: Value| scene.make_key(&login, wish).await;
    let made = response(&make(json!({ "name": "ci", "priv": "RW", "expiry_date": after(1) })).await);
    let pair = made["apikey"].as_str().unwrap();
    let secret = pair.strip_prefix("ci:").unwrap();
    assert!(secret.len() >= 32 && made.as_object().unwrap().len() == 1);
    assert_eq!(response(&scene.whoami(&basic(&format!("user:{pair}"))).await)["username"], "user", "at once");
    assert_eq!(scene.verify(json!({ "authorization": basic(&format!("user:{pair}")) })).await["priv"], json!(["R", "W"]));
    let entry = &scene.tenant.audit("key.create").await[0];
    let me = format!("user:{}", scene.id("user").await);
    assert_eq!((&entry.actor, &entry.subject), (&me, &me));

    let end = after(1);
    let wish = |change: Value| {
        let mut wish = json!({ "name": "other", "priv": "R", "expiry_date": end });
        for (name, value) in change.as_object().unwrap() {
            match value.is_null() {
                true => wish.as_object_mut().unwrap().remove(name),
                false => wish.as_object_mut().unwrap().insert(name.clone(), value.clone()),
            };
        }
        wish
    };
    for (change, message) in [
        (json!({ "name": "ci" }), "There is an API key of this name already."),
        (json!({ "priv": "RX" }), "There is no such privilege"),
        (json!({ "priv": "EI", "agents": ["admin"] }), "An impersonation key cannot have the privilege E."),
        (json!({ "priv": "" }), "An API key has at least one"),
        (json!({ "priv": "RI" }), "An impersonation key needs agents"),
        (json!({ "priv": "RI", "agents": [] }), "`agents`"),
        (json!({ "agents": ["admin"] }), "Only an impersonation key"),
        (json!({ "expiry_date": null }), "API keys must have an expiry date."),
        (json!({ "expiry_date": after(190) }), "Expiry date must be before"),
        (json!({ "expiry_date": after(-1) }), "Expiry date must be in the future."),
        (json!({ "expiry_date": "2023/09/10" }), "Invalid expiry date format"),
        (json!({ "name": "a:b" }), "The name of an API key"),
        (json!({ "name": "x".repeat(65) }), "The name of an API key"),
        (json!({ "name": null }), "The body does not fit"),
    ] {
        let (status, said) = said(&make(wish(change.clone())).await);
        assert!(status == 400 && said.starts_with(message), "{change}: {status} {said}");
    }
    // Lists, and times without a zone.
    let naive = (server.clock.now() + TimeDelta::days(2)).format("%Y-%m-%dT%H:%M:%S").to_string();
    response(&make(wish(json!({ "name": "list", "priv": ["W", "R"], "expiry_date": naive }))).await);
    let keys = response(&scene.whoami(&login).await)["apikeys"].clone();
    let listed = keys.as_array().unwrap().iter().find(|key| key[0] == "list").unwrap().clone();
    assert_eq!(listed, json!(["list", ["R", "W"], format!("{naive}Z")]));
    // One that others act with has a name that says so, which is taken then.
    let lent = response(&make(wish(json!({ "name": "goose", "priv": "RWI", "agents": ["goose"] }))).await);
    let lent = lent["apikey"].as_str().unwrap().to_owned();
    assert!(lent.starts_with("impersonate_goose:"));
    for name in ["goose", "list"] {
        let again = make(wish(json!({ "name": name, "priv": "RI", "agents": ["goose"] }))).await;
        assert_eq!(said(&again), no(400, "There is an API key of this name already."), "{name}");
    }
    assert_eq!(response(&scene.whoami_as(&basic("goose:user"), &basic(&format!("user:{lent}"))).await)["username"], "user");

    // Whatever one proves oneself with, that has E.
    let token = scene.app_token(json!({ "user": "user", "password": "user" })).await;
    response(&scene.make_key(&bearer(&token), wish(json!({ "name": "by-app-token" }))).await);
    response(&scene.make_key(&bearer(&jwt_of(&scene, "user").await), wish(json!({ "name": "by-jwt" }))).await);
    // Who lacks E makes none, whatever it is.
    for caller in ["admin:readonly:admin", "user:devkey:user"] {
        let refused = scene.make_key(&basic(caller), wish(json!({ "name": "more" }))).await;
        assert_eq!(said(&refused), no(403, NO_ACCESS), "{caller}");
    }
    // A key that has E gives what it has, and lets nobody else act for its owner.
    response(&scene.make_key(&basic("admin:devkey:admin"), wish(json!({ "name": "child", "priv": "RWE" }))).await);
    let lend = wish(json!({ "name": "lent", "priv": "RI", "agents": ["goose"] }));
    assert_eq!(said(&scene.make_key(&basic("admin:devkey:admin"), lend).await), no(403, NO_ACCESS));
    // A secret is in no later answer, and in no row.
    let mut database = server.database.superuser().await;
    let rows: Vec<String> = sqlx::query_scalar("SELECT s::text FROM api_key_secrets s").fetch_all(&mut database).await.unwrap();
    assert!(!rows.concat().contains(secret) && !keys.to_string().contains(secret));
}

#[actix_web::test]
async fn a_key_gives_no_more_than_its_maker_holds_and_letters_can_be_kept_from_keys() {
    let server = Server::start().await;
    let scene = scene_on(&server).await;
    scene.set("key_scopes", json!(["howler:read", "howler:extended", "verify"])).await;
    scene.person("reader", &[], json!({})).await;
    let scopes = Some(vec!["howler:read".to_owned(), "howler:extended".to_owned()]);
    let change = UserChange { scopes, ..UserChange::default() };
    server.issuer.change_user(scene.tenant.id, &Actor::operator(), scene.id("reader").await, change).await.unwrap();
    let login = basic("reader:user");
    response(&scene.make_key(&login, json!({ "name": "a", "priv": "RE" })).await);
    let disabled = scene.make_key(&basic("user:user"), json!({ "name": "a", "priv": "RW" })).await;
    assert_eq!(said(&disabled), no(400, "One of these privileges is disabled for API keys."));
    let lent = json!({ "name": "b", "priv": "RI", "agents": ["admin"] });
    assert_eq!(said(&scene.make_key(&login, lent).await), no(403, NO_ACCESS), "who may not be acted for lets nobody");
}

#[actix_web::test]
async fn a_key_that_a_jwt_made_ends_with_it_where_the_tenant_is_strict() {
    let server = Server::start().await;
    let scene = Scene::with(&server, json!({ "dialects": { "howler": { "strict_apikeys": true } } })).await;
    let jwt = bearer(&jwt_of(&scene, "user").await);
    let ends = |seconds| (server.clock.now() + TimeDelta::seconds(seconds)).to_rfc3339();
    let wish = |name: &str, seconds| json!({ "name": name, "priv": "R", "expiry_date": ends(seconds) });
    let (status, message) = said(&scene.make_key(&jwt, wish("long", 700)).await);
    assert!(status == 400 && message.starts_with("Expiry date must be before"), "{message}");
    let endless = scene.make_key(&jwt, json!({ "name": "endless", "priv": "R" })).await;
    assert_eq!(said(&endless), no(400, "API keys must have an expiry date."));
    response(&scene.make_key(&jwt, wish("short", 500)).await);
    let token = scene.app_token(json!({ "user": "user", "password": "user" })).await;
    response(&scene.make_key(&bearer(&token), wish("by-password", 86_400)).await);
}

#[actix_web::test]
async fn p29_what_a_key_is_to_be_beyond_its_name_privileges_end_and_agents_is_refused() {
    let server = Server::start().await;
    let scene = scene_on(&server).await;
    let login = basic("user:user");
    for (name, value) in [
        ("user", json!("admin")),
        ("user_id", json!(scene.id("admin").await)),
        ("owner", json!("admin")),
        ("tenant_id", json!(scene.tenant.id)),
        ("scopes", json!(["users:write"])),
        ("roles", json!(["admin"])),
        ("act_as", json!(["*"])),
        ("limits", json!({})),
        ("secret", json!("chosen")),
    ] {
        let mut wish = json!({ "name": "mine", "priv": "R" });
        wish[name] = value;
        assert_eq!(said(&scene.make_key(&login, wish).await).0, 400, "{name}");
    }
    for letters in [json!("users:write"), json!(["users:write"]), json!(["howler:read"]), json!("r")] {
        assert_eq!(said(&scene.make_key(&login, json!({ "name": "mine", "priv": letters })).await).0, 400, "{letters}");
    }
    assert_eq!(said(&scene.whoami(&basic("user:mine:x")).await), no(401, "API Key does not exist"));
    // What comes with a login beyond what it reads is not applied.
    let body = json!({ "user": "user", "password": "user", "roles": ["admin"], "privileges": ["I"], "scope": "users:write" });
    assert_eq!(response(&scene.login(body).await)["privileges"], json!(["R", "W", "E"]));
}

#[actix_web::test]
async fn p29_of_two_keys_of_one_name_at_the_same_time_one_is_made() {
    let server = Server::start().await;
    let scene = scene_on(&server).await;
    let login = basic("user:devkey2:x");
    response(&scene.make_key(&basic("user:user"), json!({ "name": "devkey2", "priv": "RWE" })).await);
    assert_eq!(said(&scene.whoami(&login).await).0, 401);
    let make = async || scene.make_key(&basic("user:user"), json!({ "name": "twin", "priv": "R" })).await.status.as_u16();
    let (one, two, three) = tokio::join!(make(), make(), make());
    let mut statuses = [one, two, three];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400, 400]);
}

#[actix_web::test]
async fn scenario_59_a_removed_key_is_gone_at_once() {
    let server = Server::start().await;
    let scene = scene_on(&server).await;
    let login = basic("user:user");
    let made = response(&scene.make_key(&login, json!({ "name": "ci", "priv": "RW" })).await);
    let pair = basic(&format!("user:{}", made["apikey"].as_str().unwrap()));
    response(&scene.whoami(&pair).await);
    let token = scene.app_token(json!({ "user": "user", "apikey": made["apikey"] })).await;
    assert_eq!(said(&scene.remove_key(&pair, "ci").await), no(403, NO_ACCESS), "it has no E");
    let gone = scene.remove_key(&login, "ci/").await;
    assert_eq!((gone.status, gone.text.as_str()), (StatusCode::NO_CONTENT, ""));
    assert_eq!(said(&scene.whoami(&pair).await), no(401, "API Key does not exist"));
    assert_eq!(scene.may(&token, &["R"]).await, Err(401), "nor what was got with it");
    assert_eq!(said(&scene.remove_key(&login, "ci").await), no(404, "Api key does not exist"));
    assert_eq!(scene.tenant.audit("key.revoke").await.len(), 1);
    // Somebody else's is none.
    assert_eq!(said(&scene.remove_key(&login, "readonly").await), no(404, "Api key does not exist"));
    assert_eq!(said(&scene.remove_key(&login, "how-admin-devkey").await), no(404, "Api key does not exist"));
    // The name is free again.
    response(&scene.make_key(&login, json!({ "name": "ci", "priv": "R" })).await);
    let lent = scene.remove_key(&login, "impersonate_admin").await;
    assert_eq!(lent.status, StatusCode::NO_CONTENT);
    let as_user = scene.whoami_as(&basic("admin:admin"), &basic("user:impersonate_admin:user")).await;
    assert_eq!(said(&as_user), no(401, "No impersonated user found"));
}

/// A JWT of a login, in the tenant's usual shape.
async fn jwt_of(scene: &Scene<'_>, name: &str) -> String {
    let entry = scene.server().issuer.tenant("how").await.unwrap().unwrap();
    let user = scene.id(name).await;
    let audience = entry.settings.usual_audience.as_deref();
    scene.server().issuer.issue_token(&entry, &Actor::operator(), user, audience, None, Some(600)).await.unwrap()
}

#[actix_web::test]
async fn scenario_61_with_a_second_key_one_acts_for_its_owner_whatever_one_proves_oneself_with() {
    let server = Server::start().await;
    let scene = scene_on(&server).await;
    let app_token = scene.app_token(json!({ "user": "admin", "password": "admin" })).await;
    let own = scene.tenant.log_in("admin", "admin").await["access_token"].as_str().unwrap().to_owned();
    let callers = [
        basic("admin:devkey:admin"),
        basic("admin:admin"),
        bearer(&app_token),
        bearer(&jwt_of(&scene, "admin").await),
        bearer(&own),
    ];
    let lent = basic("user:impersonate_admin:user");
    for (n, caller) in callers.iter().enumerate() {
        let user = response(&scene.whoami_as(caller, &lent).await);
        assert_eq!((&user["username"], &user["is_admin"]), (&json!("user"), &json!(false)), "{n}");
        let answer =
            scene.verify(json!({ "authorization": caller, "x_impersonating": lent, "require": { "priv": ["W"] } })).await;
        assert_eq!((&answer["allow"], &answer["username"]), (&json!(true), &json!("user")), "{n}: {answer}");
        assert_eq!((&answer["priv"], &answer["actor"]["name"]), (&json!(["R", "W"]), &json!("admin")), "{n}");
        assert_eq!(
            scene.verify(json!({ "authorization": caller, "x_impersonating": lent, "require": { "priv": ["E"] } })).await["status"],
            403
        );

        // Somebody whom the key does not name.
        let foreign = scene.whoami_as(caller, &basic("user:impersonate_potato:user")).await;
        assert_eq!(said(&foreign), no(403, "Not a valid impersonation api key"), "{n}");
        let plain = scene.whoami_as(caller, &basic("user:devkey:user")).await;
        assert_eq!(said(&plain), no(403, "Not a valid impersonation api key"), "{n}: a key for oneself");
        for nobody in ["user:user", "user:nokey:user", "nobody:impersonate_admin:user"] {
            let answer = scene.whoami_as(caller, &basic(nobody)).await;
            assert_eq!(said(&answer), no(401, "No impersonated user found"), "{n}: {nobody}");
        }
        for malformed in [bearer(&app_token), "user:impersonate_admin:user".into(), "Basic %%%".into()] {
            let no = (400, "Not a valid authentication type for impersonation.".to_owned());
            assert_eq!(said(&scene.whoami_as(caller, &malformed).await), no, "{n}: {malformed}");
        }
    }
    // The secret is looked at before the list of agents: a stranger learns nothing of it.
    for name in ["impersonate_admin", "impersonate_potato"] {
        let wrong = scene.whoami_as(&basic("admin:admin"), &basic(&format!("user:{name}:wrong"))).await;
        assert_eq!(said(&wrong), no(401, "No impersonated user found"), "{name}");
    }
    let entries = scene.tenant.audit("impersonate").await;
    let (admin, user) = (format!("user:{}", scene.id("admin").await), format!("user:{}", scene.id("user").await));
    let done: Vec<_> = entries.iter().filter(|entry| entry.outcome == "ok").collect();
    assert_eq!(done.len(), 2 * callers.len());
    assert!(
        done.iter()
            .all(|entry| entry.actor == admin && entry.subject == user && entry.target == "key:how-user-impersonate_admin")
    );
    // Of those who act in another's name, the trail says so.
    let auditor = scene.tenant.admin().await;
    let shown = server.with(&auditor.basic()).get("/t/how/v1/audit?action=impersonate&limit=1").await.json();
    assert_eq!(shown["items"][0]["on_behalf"], "admin on behalf of user");
}

#[actix_web::test]
async fn p33_nobody_acts_for_somebody_who_holds_more_nor_makes_keys_in_their_name() {
    let server = Server::start().await;
    let scene = scene_on(&server).await;
    let admin = scene.id("admin").await;
    scene.key("admin", admin, "impersonate_user", "RW", &["user"], None).await;
    let refused = scene.whoami_as(&basic("user:user"), &basic("admin:impersonate_user:admin")).await;
    assert_eq!(said(&refused).0, 403);
    // A caller who may only read lends itself nothing by acting.
    let less = scene.whoami_as(&basic("admin:readonly:admin"), &basic("user:impersonate_admin:user")).await;
    assert_eq!(said(&less).0, 403);
    // Even a key that lends E makes no keys for others.
    let user = scene.id("user").await;
    scene.key("user", user, "impersonate_all", "RWE", &["admin"], None).await;
    let headers = [("Authorization", basic("admin:admin")), ("X-Impersonating", basic("user:impersonate_all:user"))];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(response(&scene.ask(Method::GET, "/user/whoami", &headers, None).await)["username"], "user");
    let made = scene.ask(Method::POST, "/auth/apikey", &headers, Some(json!({ "name": "stolen", "priv": "RW" }))).await;
    assert_eq!(said(&made), no(403, NO_ACCESS));
    let removed = scene.ask(Method::DELETE, "/auth/apikey/devkey", &headers, None).await;
    assert_eq!(said(&removed), no(403, NO_ACCESS));
    response(&scene.whoami(&basic("user:devkey:user")).await);
}

#[actix_web::test]
async fn scenario_63_an_impersonation_key_is_nobodys_own_credential() {
    let server = Server::start().await;
    let scene = scene_on(&server).await;
    let alone = scene.whoami(&basic("user:impersonate_admin:user")).await;
    let (status, message) = said(&alone);
    assert_eq!(status, 403);
    assert!(message.starts_with("Cannot use impersonation key in normal Authorization Header!"), "{message}");
    let login = scene.login(json!({ "user": "user", "apikey": "impersonate_admin:user" })).await;
    assert_eq!(said(&login).0, 403, "{}", login.text);
    let both = scene.whoami_as(&basic("user:impersonate_admin:user"), &basic("user:impersonate_admin:user")).await;
    assert_eq!(said(&both).0, 403);
    // With a wrong secret it is what any key is.
    assert_eq!(said(&scene.whoami(&basic("user:impersonate_admin:wrong")).await), no(401, "Invalid login information"));
}

#[actix_web::test]
async fn scenario_65_a_token_in_which_one_acts_for_another_and_no_chain() {
    let server = Server::start().await;
    let scene = scene_on(&server).await;
    let own = scene.tenant.log_in("admin", "admin").await["access_token"].as_str().unwrap().to_owned();
    let exchange = async |actor: &str| {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("actor_token", actor),
            ("actor_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token", "user:impersonate_admin:user"),
            ("subject_token_type", "urn:claviger:params:oauth:token-type:impersonation-key"),
        ];
        send(server.anonymous().request(Method::POST, "/t/how/v1/token").form(&form)).await
    };
    let answer = exchange(&own).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert!(answer.json().get("refresh_token").is_none());
    let lent = answer.json()["access_token"].as_str().unwrap().to_owned();
    let told = claims(&lent);
    assert_eq!((&told["sub"], &told["act"]["sub"]), (&json!(scene.id("user").await), &json!(scene.id("admin").await)));
    let verified = scene.verify(json!({ "authorization": bearer(&lent), "require": { "priv": ["W"] } })).await;
    assert_eq!((&verified["priv"], &verified["actor"]["name"]), (&json!(["R", "W"]), &json!("admin")), "{verified}");
    assert_eq!(response(&scene.whoami(&bearer(&lent)).await)["username"], "user");
    // Whoever acts already lets nobody act, neither so nor so.
    assert_eq!(exchange(&lent).await.status, StatusCode::BAD_REQUEST);
    let chained = scene.whoami_as(&bearer(&lent), &basic("user:impersonate_admin:user")).await;
    assert_eq!(said(&chained).0, 400, "{}", chained.text);
}

#[actix_web::test]
async fn letters_are_those_of_the_usual_audience_and_others_are_a_mistake_of_who_asks() {
    let server = Server::start().await;
    let scene = scene_on(&server).await;
    let token = scene.app_token(json!({ "user": "user", "password": "user" })).await;
    let ask = async |tenant: &str, asker: &Key, letters: Value| {
        let body = json!({ "authorization": bearer(&token), "require": { "priv": letters } });
        server.with(&asker.basic()).post(&format!("/t/{tenant}/v1/verify"), body).await
    };
    assert_eq!(ask("how", &scene.asker, json!(["I"])).await.json()["allow"], true, "a login may be acted for");
    assert_eq!(ask("how", &scene.asker, json!([])).await.json()["allow"], true);
    for unknown in [json!(["X"]), json!(["R", "r"]), json!([""])] {
        assert_eq!(ask("how", &scene.asker, unknown).await.wrong_field(), "priv");
    }
    let refused = ask("how", &scene.asker, json!(["E"])).await.json();
    assert_eq!(refused["allow"], true);
    let key = basic("user:devkey:user");
    let refused = scene.verify(json!({ "authorization": key, "require": { "priv": ["E"] } })).await;
    assert_eq!((&refused["status"], &refused["missing"]), (&json!(403), &json!(["howler:extended"])));
    let plain = server.tenant("acme").await;
    let asker = plain.app_key("asker", &["verify"]).await;
    assert_eq!(ask("acme", &asker, json!(["R"])).await.wrong_field(), "priv");
    let person = plain.user_key("ada", &["events:read"]).await;
    let body = json!({ "authorization": person.basic() });
    let allowed = server.with(&asker.basic()).post("/t/acme/v1/verify", body).await.json();
    assert_eq!((&allowed["allow"], allowed.get("priv")), (&json!(true), None), "where there are no letters");
}

/// A server and a provider that it may ask, with people who come through the connection `keycloak`.
async fn with_provider(hosts: Vec<(&'static str, &'static str)>) -> (Server, Provider) {
    let clock = Clock::manual(Clock::System.now());
    let provider = Provider::start(clock.clone()).await;
    let options = Options { clock: Some(clock), outbound: provider.outbound(), hosts, ..Options::default() };
    (Server::start_with(options).await, provider)
}

async fn connect(scene: &Scene<'_>, provider: &Provider, name: &str, more: Value) -> String {
    let admin = scene.tenant.app_key(&format!("admin of {name}"), &["connections:write", "roles:write"]).await;
    let mut body = json!({
        "name": name, "secret": "client-canary", "oidc": { "issuer": provider.issuer, "client_id": "us" }, "auto_create": true,
        "mapping": {
            "default_roles": ["user"],
            "attributes": [{ "attribute": "classification", "claim": "clearance", "pattern": "level-(\\d)", "value": "TLP:$1" }],
        },
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let made = scene.server().with(&admin.basic()).post("/t/how/v1/connections", body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    made.json()["id"].as_str().unwrap().to_owned()
}

/// To the provider; the query that comes back.
async fn go(browser: &mut Browser<'_>, provider: &Provider, name: &str) -> String {
    let sent = browser.get(&format!("/api/v1/auth/login/?provider={name}")).await;
    assert_eq!(sent.status, StatusCode::FOUND, "{}", sent.text);
    provider.log_in(sent.header("location"))
}

fn back(name: &str, query: &str) -> String {
    format!("/api/v1/auth/login?provider={name}&{query}")
}

#[actix_web::test]
async fn scenario_60_a_login_through_a_provider_and_its_refresh() {
    let (server, provider) = with_provider(vec![]).await;
    let scene = scene_on(&server).await;
    let disabled = scene.ask(Method::GET, "/auth/login?provider=keycloak", &[], None).await;
    assert_eq!(said(&disabled), no(400, "OAuth is disabled."));
    let disabled = scene.login(json!({ "oauth_provider": "keycloak", "refresh_token": "cr_x" })).await;
    assert_eq!(said(&disabled), no(400, "OAuth is disabled."));
    connect(&scene, &provider, "keycloak", json!({})).await;
    provider.person(json!({
        "sub": "s-ada", "preferred_username": "ada", "name": "Ada L.", "groups": ["staff"], "clearance": "level-3"
    }));

    let mut browser = Browser::at(&scene.tenant);
    let sent = browser.get("/api/v1/auth/login/?provider=keycloak").await;
    let location = sent.header("location").to_owned();
    let pairs: std::collections::HashMap<_, _> = url::Url::parse(&location).unwrap().query_pairs().into_owned().collect();
    assert_eq!((sent.status, pairs["code_challenge_method"].as_str()), (StatusCode::FOUND, "S256"));
    assert!(pairs["state"].len() >= 43 && pairs["nonce"].len() >= 43);
    assert_eq!(pairs["redirect_uri"], "http://id.test/t/how/api/v1/auth/login?provider=keycloak");
    let cookies = set_cookies(&sent);
    assert!(cookies[0].attributes.contains(&"HttpOnly".to_owned()) && cookies[0].attributes.contains(&"SameSite=Lax".to_owned()));

    let query = provider.log_in(&location);
    let login = response(&browser.get(&back("keycloak", &query)).await);
    let jwt = login["app_token"].as_str().unwrap();
    let told = claims(jwt);
    assert_eq!((&told["aud"], &told["sub"], &told["priv"]), (&json!("howler"), &json!("ada"), &json!(["R", "W", "E"])));
    assert_eq!((&login["provider"], &login["privileges"]), (&json!("keycloak"), &json!(["R", "W", "E"])));
    let user = response(&scene.whoami(&bearer(jwt)).await);
    assert_eq!((&user["username"], &user["name"], &user["groups"]), (&json!("ada"), &json!("Ada L."), &json!(["staff"])));
    assert_eq!(user["classification"], "TLP:3");

    // The next pair, through the provider, under either name of the field.
    let mut refresh_token = login["refresh_token"].as_str().unwrap().to_owned();
    for field in ["oauth_provider", "provider"] {
        server.clock.advance(TimeDelta::seconds(60));
        let next = response(&scene.login(json!({ field: "keycloak", "refresh_token": refresh_token })).await);
        assert_eq!(
            (&next["provider"], &claims(next["app_token"].as_str().unwrap())["aud"]),
            (&json!("keycloak"), &json!("howler"))
        );
        assert_ne!(next["refresh_token"], json!(refresh_token));
        assert_ne!(next["app_token"], json!(jwt));
        refresh_token = next["refresh_token"].as_str().unwrap().to_owned();
        response(&scene.whoami(&bearer(next["app_token"].as_str().unwrap())).await);
    }
    assert_eq!(provider.script.lock().unwrap().forms.last().unwrap()["grant_type"], "refresh_token");
    let unknown = scene.login(json!({ "oauth_provider": "azure", "refresh_token": refresh_token })).await;
    assert_eq!(said(&unknown), no(400, "There is no OAuth provider of this name."));
    let unknown = scene.ask(Method::GET, "/auth/login?provider=azure", &[], None).await;
    assert_eq!(said(&unknown).0, 400);
    assert_eq!(said(&scene.login(json!({ "provider": "keycloak", "refresh_token": "cr_made-up" })).await).0, 401);
    // The JWT of a login can be logged out.
    let out = scene.ask(Method::POST, "/auth/logout/", &[("Authorization", &bearer(jwt))], None).await;
    assert!(response(&out).is_null());
    assert_eq!(said(&scene.whoami(&bearer(jwt)).await), no(401, "Invalid token"));
    let over = scene.login(json!({ "provider": "keycloak", "refresh_token": refresh_token })).await;
    assert_eq!(said(&over).0, 401);

    // The provider says no.
    let query = go(&mut browser, &provider, "keycloak").await;
    let login = response(&browser.get(&back("keycloak", &query)).await);
    provider.set(|script| script.refuse_refresh = true);
    server.clock.advance(TimeDelta::seconds(60));
    let refused = scene.login(json!({ "provider": "keycloak", "refresh_token": login["refresh_token"] })).await;
    assert_eq!(said(&refused).0, 401);
    assert_eq!(said(&scene.whoami(&bearer(login["app_token"].as_str().unwrap())).await), no(401, "Invalid token"));
}

#[actix_web::test]
async fn scenario_60_tampered_states_missing_groups_and_accounts_that_are_not_made() {
    let (server, provider) = with_provider(vec![]).await;
    let scene = scene_on(&server).await;
    connect(&scene, &provider, "keycloak", json!({ "auto_create": false, "mapping": { "required_groups": ["staff"] } })).await;
    let mut browser = Browser::at(&scene.tenant);
    let query = go(&mut browser, &provider, "keycloak").await;
    for wrong in [format!("{query}x"), "code=code-1".into(), "state=x".into(), "error=access_denied".into()] {
        assert_eq!(said(&browser.get(&back("keycloak", &wrong)).await).0, 401, "{wrong}");
    }
    assert_eq!(provider.asked("/token"), 0);
    assert_eq!(said(&browser.get(&back("keycloak", &query)).await).0, 403, "a group is missing");
    provider.person(json!({ "sub": "s-ada", "preferred_username": "ada", "groups": ["staff"] }));
    let query = go(&mut browser, &provider, "keycloak").await;
    assert_eq!(said(&browser.get(&back("keycloak", &query)).await), no(403, "User auto-creation is disabled."));
    let query = go(&mut browser, &provider, "keycloak").await;
    let state = query.split("state=").nth(1).unwrap();
    let refused = browser.get(&back("keycloak", &format!("error=access_denied&state={state}"))).await;
    assert_eq!(said(&refused).0, 401);
    provider.set(|script| script.token_answer = Some((502, json!({ "why": "canary" }))));
    let query = go(&mut browser, &provider, "keycloak").await;
    let away = browser.get(&back("keycloak", &query)).await;
    assert!(said(&away).0 == 503 && !away.text.contains("canary") && !away.text.contains("127.0.0.1"), "{}", away.text);
}

#[actix_web::test]
async fn p20_u3_u5_a_state_is_good_once_in_its_browser_at_its_provider_and_at_the_address_it_was_begun_at() {
    let (server, provider) = with_provider(vec![]).await;
    let scene = scene_on(&server).await;
    connect(&scene, &provider, "keycloak", json!({})).await;
    connect(&scene, &provider, "azure", json!({})).await;
    let mut browser = Browser::at(&scene.tenant);
    let query = go(&mut browser, &provider, "keycloak").await;
    // Another browser, with a binding of its own and with none.
    let mut stranger = Browser::at(&scene.tenant);
    assert_eq!(said(&stranger.get(&back("keycloak", &query)).await).0, 401);
    go(&mut stranger, &provider, "keycloak").await;
    assert_eq!(said(&stranger.get(&back("keycloak", &query)).await).0, 401);
    // Another provider, and another route of ours.
    assert_eq!(said(&browser.clone().get(&back("azure", &query)).await).0, 401);
    let login = response(&browser.get(&back("keycloak", &query)).await);
    assert!(login["app_token"].is_string());
    assert_eq!(said(&browser.get(&back("keycloak", &query)).await).0, 401, "a second time");
    let query = go(&mut browser, &provider, "keycloak").await;
    let page = browser.get(&format!("/login/keycloak/callback?{query}")).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST, "begun here, it does not end at the pages");
    let sent = browser.get("/login/keycloak?into=tokens").await;
    let query = provider.log_in(sent.header("location"));
    assert_eq!(said(&browser.get(&back("keycloak", &query)).await).0, 401, "nor the other way round");
    let query = go(&mut browser, &provider, "keycloak").await;
    server.clock.advance(TimeDelta::seconds(600));
    assert_eq!(said(&browser.get(&back("keycloak", &query)).await).0, 401, "too late");
}

#[actix_web::test]
async fn u4_a_login_that_was_begun_in_one_tenant_ends_in_no_other() {
    let (server, provider) = with_provider(vec![]).await;
    let scene = scene_on(&server).await;
    connect(&scene, &provider, "keycloak", json!({})).await;
    let new = NewTenant { slug: "other".into(), name: None, settings: TenantSettings::default(), preset: Some("howler".into()) };
    let id = server.issuer.create_tenant(&Actor::operator(), new).await.unwrap().id;
    let other = Tenant { server: &server, slug: "other".into(), id };
    let admin = other.app_key("admin", &["connections:write", "roles:write"]).await;
    let body = json!({ "name": "keycloak", "oidc": { "issuer": provider.issuer, "client_id": "us" }, "auto_create": true });
    let made = server.with(&admin.basic()).post("/t/other/v1/connections", body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let uri = "http://id.test/t/other/api/v1/auth/login?provider=keycloak";
    assert_eq!(made.json()["howler_redirect_uri"], uri);

    let mut browser = Browser::at(&scene.tenant);
    let query = go(&mut browser, &provider, "keycloak").await;
    let mut elsewhere = Browser::at(&other);
    elsewhere.plant("form", browser.cookie("form").unwrap());
    assert_eq!(said(&elsewhere.get(&back("keycloak", &query)).await).0, 401);
    let login = response(&browser.get(&back("keycloak", &query)).await);
    let body = json!({ "oauth_provider": "keycloak", "refresh_token": login["refresh_token"] });
    let there = server.anonymous().post("/t/other/api/v1/auth/login", body).await;
    assert_eq!(said(&there).0, 401);
    let header = bearer(login["app_token"].as_str().unwrap());
    assert_eq!(said(&server.with(&header).get("/t/other/api/v1/user/whoami").await), no(401, "Invalid token"));
}

#[actix_web::test]
async fn p21_a_provider_is_the_name_of_a_connection_and_no_address_of_a_request_is_asked() {
    let (server, provider) = with_provider(vec![]).await;
    let scene = scene_on(&server).await;
    connect(&scene, &provider, "keycloak", json!({})).await;
    for name in [provider.issuer.as_str(), "../keycloak", "keycloak/", "KEYCLOAK", "", "keycloak%00", "http://169.254.169.254/"] {
        let encoded: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
        for query in [format!("provider={encoded}"), format!("provider={encoded}&code=c&state=s")] {
            let answer = scene.ask(Method::GET, &format!("/auth/login?{query}"), &[], None).await;
            assert_eq!(said(&answer).0, 400, "{name}: {}", answer.text);
        }
        let refresh = scene.login(json!({ "oauth_provider": name, "refresh_token": "cr_x" })).await;
        assert_eq!(said(&refresh).0, 400, "{name}");
    }
    // Where a browser is to come back to, no header and no parameter says.
    let headers = [("Referer", "https://evil.test/"), ("X-Forwarded-Host", "evil.test"), ("Origin", "https://evil.test")];
    let sent = scene.ask(Method::GET, "/auth/login?provider=keycloak&redirect_uri=https://evil.test/", &headers, None).await;
    assert_eq!(sent.status, StatusCode::FOUND, "{}", sent.text);
    assert!(sent.header("location").starts_with(&provider.issuer) && !sent.header("location").contains("evil"));
    assert_eq!((provider.asked("/token"), provider.asked("/userinfo")), (0, 0));
}

#[actix_web::test]
async fn p36_an_answer_without_our_nonce_and_somebody_of_the_same_name_get_in_nowhere() {
    let (server, provider) = with_provider(vec![]).await;
    let scene = scene_on(&server).await;
    connect(&scene, &provider, "keycloak", json!({})).await;
    let mut browser = Browser::at(&scene.tenant);
    provider.set(|script| {
        script.twist = Some(|_, claims| {
            claims.as_object_mut().unwrap().remove("nonce");
        });
    });
    let query = go(&mut browser, &provider, "keycloak").await;
    assert_eq!(said(&browser.get(&back("keycloak", &query)).await).0, 401);
    provider.set(|script| script.twist = None);
    // The name and address of somebody who is here already.
    provider.person(json!({
        "sub": "s-mallory", "preferred_username": "admin", "email": "admin@howler.cyber.gc.ca", "email_verified": true
    }));
    let query = go(&mut browser, &provider, "keycloak").await;
    let taken = browser.get(&back("keycloak", &query)).await;
    assert_eq!(said(&taken).0, 400, "{}", taken.text);
}

#[actix_web::test]
async fn a_page_of_howlers_own_can_be_where_providers_send_browsers_back_to() {
    let (server, provider) = with_provider(vec![("howler.example.org", "how")]).await;
    let callback = json!({ "dialects": { "howler": { "callback": "https://howler.example.org/login" } } });
    let scene = Scene::with(&server, callback).await;
    connect(&scene, &provider, "keycloak", json!({})).await;
    // As its web interface does, on its own host: to the provider, back to its page, and from there to the route.
    let ask = async |path: &str, cookie: &str| {
        let request = server.anonymous().request(Method::GET, path).header("Host", "howler.example.org");
        send(request.header("Cookie", cookie)).await
    };
    let sent = ask("/api/v1/auth/login?provider=keycloak", "").await;
    assert_eq!(sent.status, StatusCode::FOUND, "{}", sent.text);
    let location = sent.header("location").to_owned();
    let uri = url::Url::parse(&location).unwrap().query_pairs().find(|(name, _)| name == "redirect_uri").unwrap().1.into_owned();
    assert_eq!(uri, "https://howler.example.org/login?provider=keycloak");
    let cookie = set_cookies(&sent).remove(0);
    let query = provider.log_in(&location);
    let login = ask(
        &format!("/api/v1/auth/login/?provider=keycloak&{query}&session_state=x"),
        &format!("{}={}", cookie.name, cookie.value),
    )
    .await;
    assert_eq!(response(&login)["provider"], "keycloak");
    // What is no address of that kind is no setting.
    let refused = scene.try_set("dialects", json!({ "howler": { "callback": "http://evil.test/login" } })).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.text);
}

#[actix_web::test]
async fn p30_where_it_is_not_spoken_nothing_of_it_is_there() {
    let server = Server::start().await;
    scene_on(&server).await;
    let cc =
        NewTenant { slug: "cc".into(), name: None, settings: TenantSettings::default(), preset: Some("clustercockpit".into()) };
    server.issuer.create_tenant(&Actor::operator(), cc).await.unwrap();
    let howlers: Vec<_> = dialect_operations().into_iter().filter(|operation| operation.id.starts_with("howler")).collect();
    assert_eq!(howlers.len(), 6);
    for operation in howlers {
        let path = operation.path("cc", "ci");
        let answer = operation.call(&server.with(&basic("user:user")), &path).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::NOT_FOUND, "not_found"), "{}", operation.id);
        let here = operation.call(&server.anonymous(), &operation.path("how", "ci")).await;
        assert_ne!(here.status, StatusCode::NOT_FOUND, "{}", operation.id);
        assert!(here.json()["api_status_code"].is_number(), "{}: {}", operation.id, here.text);
    }
}

/// Credentials in an address are in no log line, and who acts for whom is a warning.
#[tokio::test(flavor = "multi_thread")]
async fn p39_what_stood_in_an_address_is_not_logged_and_impersonation_is() {
    let home = Home::new();
    home.ok(&["tenant", "create", "how", "--preset", "howler"]);
    let people = [("admin", "admin"), ("user", "user")]
        .map(|(name, role)| json!({ "username": name, "roles": [role, "user"], "password_hash": hash_for(name) }).to_string());
    let file = home.file("people.jsonl");
    std::fs::write(&file, people.join("\n")).unwrap();
    home.ok(&["user", "import", "--tenant", "how", file.to_str().unwrap()]);
    let lent = home.json(&[
        "key",
        "create",
        "--tenant",
        "how",
        "--user",
        "user",
        "--name",
        "impersonate_admin",
        "--scope",
        "howler:read",
        "--agent",
        "admin",
    ]);
    let port = free_port();
    let mut command = home.command(&["serve", "--listen", &format!("127.0.0.1:{port}")]);
    command.env("CLAVIGER_LOG", "trace");
    let serving = Serving::start(command, port).await;
    wait_until("it serves", async || {
        serving.http.get(serving.url("/readyz")).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let canary = "canary-in-an-address-Qz7";
    let url = serving.url(&format!("/t/how/api/v1/auth/login?user=user&password={canary}"));
    assert_eq!(serving.http.get(url).send().await.unwrap().status(), 400);
    let secret = lent["api_secret"].as_str().unwrap();
    let answer = serving
        .http
        .get(serving.url("/t/how/api/v1/user/whoami"))
        .header("Authorization", basic("admin:admin"))
        .header("X-Impersonating", basic(&format!("user:impersonate_admin:{secret}")))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let ended = serving.stop().await;
    assert!(!ended.err.contains(canary) && !ended.out.contains(canary) && !ended.err.contains(secret));
    let line = ended.err.lines().find(|line| line.contains("admin is impersonating user")).unwrap();
    assert!(line.contains("WARN"), "{line}");
}

#[actix_web::test]
async fn p29_a_key_makes_no_key_that_may_more_or_lives_longer_and_a_rotated_secret_begins_nothing_that_stays() {
    let server = Server::start().await;
    server.default_tenant().await;
    let scene = Scene::of(&server).await;
    let admin = scene.tenant.admin().await;
    let caller = server.with(&admin.basic());
    let keys = scene.tenant.path("/v1/keys");
    let listed = caller.get(&format!("{keys}?limit=200")).await.json();
    let id = |name: &str| {
        let items = listed["items"].as_array().unwrap();
        items.iter().find(|key| key["name"] == name && key["scopes"].as_array().unwrap().len() == 3).unwrap()["api_key"].clone()
    };
    let path = format!("{keys}/{}", id("devkey").as_str().unwrap());
    let end = (server.clock.now() + TimeDelta::days(1)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let limits = json!({ "allowed_ips": ["127.0.0.0/8"], "rate_limit": { "requests": 100, "seconds": 60 }, "expires_at": end });
    assert_eq!(caller.patch(&path, limits).await.status, StatusCode::OK);
    server.settle().await;
    let by_key = basic("admin:devkey:admin");
    response(&scene.make_key(&by_key, json!({ "name": "child", "priv": "RW" })).await);
    let child = caller.get(&format!("{keys}?limit=200")).await.json();
    let child = child["items"].as_array().unwrap().iter().find(|key| key["name"] == "child").unwrap().clone();
    assert_eq!((&child["allowed_ips"], &child["rate_limit"]["requests"]), (&json!(["127.0.0.0/8"]), &json!(100)));
    assert!(child["expires_at"].as_str().unwrap().starts_with(&end[..19]), "{child}");
    let later = (server.clock.now() + TimeDelta::days(2)).to_rfc3339();
    let longer = scene.make_key(&by_key, json!({ "name": "longer", "priv": "R", "expiry_date": later })).await;
    assert!(said(&longer).1.starts_with("Expiry date must be before"), "{}", longer.text);

    // The old secret logs in while its grace lasts, and no longer than that.
    let rotated = caller.post(&format!("{path}/rotate"), json!({ "grace_seconds": 60 })).await;
    assert_eq!(rotated.status, StatusCode::CREATED, "{}", rotated.text);
    server.settle().await;
    let token = scene.app_token(json!({ "user": "admin", "apikey": "devkey:admin" })).await;
    assert_eq!(scene.whoami(&bearer(&token)).await.status, StatusCode::OK);
    server.clock.advance(TimeDelta::seconds(61));
    assert_eq!(scene.whoami(&bearer(&token)).await.status, StatusCode::UNAUTHORIZED);
}

#[actix_web::test]
async fn p16_names_of_keys_that_let_others_act_are_not_guessed_for_ever() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    for name in ["user:impersonate_admin", "user:nothing", "nobody:nothing"] {
        let guess = |n: usize| basic(&format!("{name}:wrong{n}"));
        let mut texts = Vec::new();
        for n in 0..7 {
            let begun = std::time::Instant::now();
            texts.push(said(&scene.whoami_as(&basic("admin:admin"), &guess(n)).await).1);
            assert!(n > 4 || begun.elapsed() >= Duration::from_millis(300), "{name} {n}: {:?}", begun.elapsed());
        }
        assert_eq!(texts[0], "No impersonated user found", "{name}");
        assert!(texts[6].starts_with("Maximum password retry"), "{name}: {texts:?}");
    }
}
