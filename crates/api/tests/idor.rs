//! Another tenant's ids: whoever sends one is answered as if it were nobody's, and nothing happens (SECURITY P30, T20).
//!
//! Not asked here, because they are not secrets of a tenant: its slug, which stands in public addresses, and the id of a key that
//! somebody imports, which is unique over all tenants.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a failure here is a failed test, and what was counted is shown with --nocapture"
)]

#[path = "support/people.rs"]
mod people;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use claviger_issuer::settings::TenantSettings;
use people::{Browser, PASSWORD};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use support::operations::{Operation, operations};
use support::wire::send;
use support::{Answer, Options, Server, Tenant, UNTHROTTLED, basic, claims};

/// What an id can be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    User,
    Username,
    Application,
    Key,
    Role,
    Scope,
    Session,
    Family,
    TokenId,
    RequestId,
    /// Somebody's wish for a key.
    KeyRequest,
    Connection,
    /// `KEY:SECRET`.
    Pair,
    AccessToken,
    RefreshToken,
    Ticket,
}

use Kind::*;

const IDS: [Kind; 12] =
    [User, Username, Application, Key, Role, Scope, Session, Family, TokenId, RequestId, KeyRequest, Connection];
const SECRETS: [Kind; 4] = [Pair, AccessToken, RefreshToken, Ticket];

/// One of each kind of a tenant.
type Things = BTreeMap<Kind, String>;

/// Where an id goes that does not stand in the path: the method, the path and the body or query, with `{}` for it.
struct Place {
    /// The operation, by its name at the root.
    operation: &'static str,
    method: Method,
    path: &'static str,
    body: Sent,
    /// What is tried there.
    kinds: &'static [Kind],
    /// At the root a credential names its own tenant, and is none of another's.
    at_root: bool,
}

#[derive(Clone)]
enum Sent {
    Query(&'static str),
    Json(Value),
    Form(Vec<(&'static str, &'static str)>),
}

/// Every operation that takes an id in its body or query. `{user}`, `{key}`, `{role}` and `{application}` are the caller's own.
fn places() -> Vec<Place> {
    let place = |operation, method, path, body| Place { operation, method, path, body, kinds: &IDS, at_root: true };
    let json = |operation, method, path, body| place(operation, method, path, Sent::Json(body));
    let query = |operation, path, query| place(operation, Method::GET, path, Sent::Query(query));
    let shown = |operation, path, body| Place { kinds: &SECRETS, at_root: false, ..place(operation, Method::POST, path, body) };
    let named = |operation, path, body| Place { kinds: &[User, Username], ..shown(operation, path, body) };
    let (post, patch) = (Method::POST, Method::PATCH);
    let exchange = "urn:ietf:params:oauth:grant-type:token-exchange";
    let access = "urn:ietf:params:oauth:token-type:access_token";
    let person = "urn:claviger:params:oauth:token-type:user";
    let lent = "urn:claviger:params:oauth:token-type:impersonation-key";
    vec![
        json("createKey", post.clone(), "/v1/keys", json!({ "name": "probe", "scopes": [], "user_id": "{}" })),
        json("createKey", post.clone(), "/v1/keys", json!({ "name": "probe", "scopes": [], "application_id": "{}" })),
        json("createKey", post.clone(), "/v1/keys", json!({ "name": "probe", "scopes": ["{}"], "user_id": "{user}" })),
        json(
            "createKey",
            post.clone(),
            "/v1/keys",
            json!({ "name": "probe", "scopes": [], "roles": ["{}"], "application_id": "{application}" }),
        ),
        json("revokeKeys", post.clone(), "/v1/keys/bulk-revoke", json!({ "user_id": "{}" })),
        json("revokeKeys", post.clone(), "/v1/keys/bulk-revoke", json!({ "application_id": "{}" })),
        query("listMyKeys", "/v1/me/keys", "after={}"),
        json("changeKey", patch.clone(), "/v1/keys/{key}", json!({ "scopes": ["{}"] })),
        json("changeKey", patch.clone(), "/v1/keys/{key}", json!({ "roles": ["{}"] })),
        json("changeKey", patch.clone(), "/v1/keys/{key}", json!({ "act_as": ["{}"] })),
        json("linkUser", post.clone(), "/v1/users/{user}/links", json!({ "connection": "{}", "subject": "x" })),
        json("changeUser", patch.clone(), "/v1/users/{user}", json!({ "roles": ["{}"] })),
        json("changeUser", patch.clone(), "/v1/users/{user}", json!({ "scopes": ["{}"] })),
        json("changeApplication", patch.clone(), "/v1/applications/{application}", json!({ "roles": ["{}"] })),
        json("changeRole", patch, "/v1/roles/{role}", json!({ "scopes": ["{}"] })),
        query("listKeys", "/v1/keys", "user_id={}"),
        query("listKeys", "/v1/keys", "application_id={}"),
        query("listKeys", "/v1/keys", "after={}"),
        query("listUsers", "/v1/users", "after={}"),
        query("listApplications", "/v1/applications", "after={}"),
        query("listAudit", "/v1/audit", "action={}"),
        query("listAudit", "/v1/audit", "key={}"),
        query("listAudit", "/v1/audit", "request_id={}"),
        query("listAudit", "/v1/audit", "actor=user:{}"),
        query("listAudit", "/v1/audit", "subject=user:{}"),
        query("listAudit", "/v1/audit", "target=token:{}"),
        query("exportAudit", "/v1/audit/export", "key={}"),
        query("exportAudit", "/v1/audit/export", "request_id={}"),
        query("listKeyRequests", "/v1/key-requests", "after={}"),
        query("listDoneInMyName", "/v1/me/impersonations", "after={}"),
        json("approveKeyRequest", post, "/v1/key-requests/{wish}/approve", json!({ "application_id": "{}", "scopes": [] })),
        json("rotateSigningKey", Method::POST, "/v1/signing-keys/rotate", json!({ "audience": "{}" })),
        query("listTenants", "/v1/tenants", "after={}"),
        shown("introspectToken", "/v1/introspect", Sent::Form(vec![("token", "{}")])),
        shown("revokeToken", "/v1/token/revoke", Sent::Form(vec![("token", "{}")])),
        shown("refreshToken", "/v1/token/refresh", Sent::Json(json!({ "refresh_token": "{}" }))),
        shown("requestToken", "/v1/token", Sent::Form(vec![("grant_type", "refresh_token"), ("refresh_token", "{}")])),
        shown(
            "requestToken",
            "/v1/token",
            Sent::Form(vec![("grant_type", exchange), ("subject_token", "{}"), ("subject_token_type", access)]),
        ),
        shown(
            "requestToken",
            "/v1/token",
            Sent::Form(vec![("grant_type", exchange), ("subject_token", "{}"), ("subject_token_type", lent)]),
        ),
        named(
            "requestToken",
            "/v1/token",
            Sent::Form(vec![("grant_type", exchange), ("subject_token", "{}"), ("subject_token_type", person), ("reason", "r")]),
        ),
        shown("verify", "/v1/verify", Sent::Json(json!({ "authorization": "{}" }))),
        shown("verify", "/v1/verify", Sent::Json(json!({ "authorization": "Bearer {}" }))),
        shown("verify", "/v1/verify", Sent::Json(json!({ "token": "{}", "transport": "ws" }))),
        named("verify", "/v1/verify", Sent::Json(json!({ "authorization": "{pair}", "user_id": "{}" }))),
        shown("verifyBatch", "/v1/verify/batch", Sent::Json(json!({ "items": [{ "authorization": "Bearer {}" }] }))),
    ]
}

/// Operations with a body or a query, and no id of anything there.
const WITHOUT_IDS: [&str; 44] = [
    // What is made has no id yet; names are the tenant's own, and its own alone are taken.
    "createApplication",
    "createUser",
    "createRole",
    "createConnection",
    "changeConnection",
    "putScope",
    "createAudience",
    "changeAudience",
    // Of the installation: see the sentence on slugs.
    "createTenant",
    "changeTenant",
    "applyPreset",
    // The caller's own.
    "createAuthentication",
    "createWsTicket",
    "changeMyPassword",
    "logIn",
    "setPasswordOfUser",
    "rotateKey",
    "rotateMyKey",
    "createMyKey",
    // A number of the tenant's own list.
    "followRevocations",
    // A time, which is never taken.
    "showStatusList",
    // Of the public.
    "requestKey",
    // A word about what the path names.
    "denyKeyRequest",
    "confirmAudienceKey",
    "forwardAuth",
    "showPublicKey",
    "showAudienceKey",
    "showLoginPage",
    // A state that this browser began.
    "signInThroughConnection",
    "comeBackFromConnection",
    // Pages: with their own form's token alone.
    "signIn",
    "signOut",
    "endLoginFromPage",
    "endAllLoginsFromPage",
    "changePasswordFromPage",
    "linkFromPage",
    "unlinkFromPage",
    "requestKeyFromPage",
    "confirmFromPage",
    "claimFromPage",
    // Questions without one.
    "showOpenApi",
    "showHealth",
    "showReadiness",
    "showJwks",
];

#[test]
fn p30_every_operation_that_takes_a_body_or_a_query_is_asked_or_listed() {
    let asked: BTreeSet<&str> = places().iter().map(|place| place.operation).collect();
    for operation in operations() {
        let query = operation.document["parameters"].as_array().into_iter().flatten().any(|one| one["in"] == "query");
        let id = operation.root_id();
        if operation.body.is_some() || query {
            assert!(asked.contains(id) || WITHOUT_IDS.contains(&id), "{id}: does it take an id?");
        }
    }
}

/// A tenant with one of everything.
async fn furnish(tenant: &Tenant<'_>, name: &str) -> (Things, BTreeMap<&'static str, String>) {
    let server = tenant.server;
    let admin = tenant.admin().await;
    let make = async |path: &str, body: Value| {
        let answer = server.with(&admin.basic()).post(path, body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{path}: {}", answer.text);
        answer
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let scope = format!("{name}:secret");
    make("/v1/roles", json!({ "name": format!("{name}.role"), "scopes": [scope] })).await;
    let person = json!({ "username": name, "password": PASSWORD, "roles": [format!("{name}.role")] });
    let user = make("/v1/users", person).await;
    let user = text(&user.json()["id"]);
    let application = tenant.application(&format!("{name} app")).await.to_string();
    let order = json!({ "user_id": user, "name": "laptop", "scopes": [scope], "refresh": true });
    let made = make("/v1/keys", order).await;
    let (key, pair) =
        (text(&made.json()["api_key"]), format!("{}:{}", text(&made.json()["api_key"]), text(&made.json()["api_secret"])));
    let login = tenant.log_in(name, PASSWORD).await;
    let browser = Browser::signed_in(tenant, name, PASSWORD).await;
    let access = text(&login["access_token"]);
    let logins = Answer::of(browser.request(Method::GET, "/v1/me/sessions").send().await.unwrap()).await.json();
    let session = logins["items"].as_array().unwrap().iter().find(|one| one["current"] == true).unwrap();
    let ticket = server.with(&format!("Bearer {access}")).post("/v1/ws-tickets", json!({})).await.json();
    let nosy = tenant.app_key("nosy", &[]).await;
    let refused = server.with(&nosy.basic()).get("/v1/users").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let wish = json!({ "app_name": "portal", "email": format!("dev@{name}.example"), "reason": "to try" });
    let wish = text(&server.anonymous().post(&tenant.path("/v1/key-requests"), wish).await.json()["id"]);
    let connection = json!({ "name": "corp", "oidc": { "issuer": "https://idp.test", "client_id": name } });
    let connection = text(&make("/v1/connections", connection).await.json()["id"]);
    let things = BTreeMap::from([
        (Connection, connection),
        (User, user.clone()),
        (Username, name.to_owned()),
        (Application, application.clone()),
        (Key, key.clone()),
        (Role, format!("{name}.role")),
        (Scope, scope),
        (Session, text(&session["id"])),
        (Family, text(&claims(&access)["sid"])),
        (TokenId, text(&claims(&access)["jti"])),
        (RequestId, refused.header("x-request-id").to_owned()),
        (KeyRequest, wish.clone()),
        (Pair, pair.clone()),
        (AccessToken, access),
        (RefreshToken, text(&login["refresh_token"])),
        (Ticket, text(&ticket["ticket"])),
    ]);
    let role = format!("{name}.role");
    let own = BTreeMap::from([
        ("{user}", user),
        ("{application}", application),
        ("{key}", key),
        ("{role}", role),
        ("{pair}", pair),
        ("{wish}", wish),
        ("{admin}", admin.pair()),
    ]);
    (things, own)
}

/// An id that looks the same, sorts the same, and is nobody's.
fn neighbour(id: &str) -> String {
    let (rest, last) = id.split_at(id.len() - 1);
    let other = match last {
        "0" => "1",
        "a" => "b",
        last if last.chars().all(|c| c.is_ascii_digit()) => "0",
        _ => "a",
    };
    format!("{rest}{other}")
}

/// All rows of a tenant.
async fn dump(tenant: &Tenant<'_>) -> BTreeMap<String, Option<String>> {
    let mut database = tenant.server.database.superuser().await;
    let tables = "SELECT c.table_name::text FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
                   WHERE c.table_schema = 'public' AND c.column_name = 'tenant_id' AND t.table_type = 'BASE TABLE'";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut database).await.unwrap();
    assert!(tables.len() > 10, "{tables:?}");
    let mut rows = BTreeMap::new();
    for (table, column) in tables.into_iter().map(|table| (table, "tenant_id")).chain([("tenants".to_owned(), "id")]) {
        let all =
            format!("SELECT string_agg(to_jsonb(t)::text, E'\n' ORDER BY to_jsonb(t)::text) FROM {table} t WHERE {column} = $1");
        let all: Option<String> = sqlx::query_scalar(AssertSqlSafe(all)).bind(tenant.id).fetch_one(&mut database).await.unwrap();
        rows.insert(table, all);
    }
    rows
}

/// The ids of the other tenant and of nobody, and what stands for them in what is compared: longest first, as some begin others.
struct Mask(Vec<(String, String)>);

impl Mask {
    fn of(things: &Things, nobodys: &Things) -> Self {
        let both = things.iter().chain(nobodys);
        let mut ids: Vec<_> = both.map(|(kind, id)| (id.clone(), format!("<{kind:?}>"))).collect();
        ids.sort_by_key(|(id, _)| std::cmp::Reverse(id.len()));
        Self(ids)
    }

    fn over(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (id, kind)| text.replace(id, kind))
    }
}

/// A body without what differs from answer to answer.
fn masked(answer: &Answer, ids: &Mask) -> String {
    fn mask(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (name, value) in members.iter_mut() {
                    let varies = ["id", "api_key", "api_secret", "request_id", "exp", "iat"].contains(&name.as_str());
                    match varies || name.ends_with("_at") {
                        true if value.is_string() => *value = json!("…"),
                        _ => mask(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(mask),
            _ => {}
        }
    }
    let body = ids.over(&answer.text);
    match serde_json::from_str::<Value>(&body) {
        Ok(mut value) => {
            mask(&mut value);
            value.to_string()
        }
        Err(_) => body,
    }
}

/// Status, names of headers, what the headers say that programs read, and the body.
fn told(answer: &Answer, ids: &Mask) -> String {
    let mut names: Vec<&str> = answer.headers.keys().map(|name| name.as_str()).filter(|name| *name != "connection").collect();
    names.sort_unstable();
    let said = ["content-type", "www-authenticate", "cache-control", "location"].map(|name| ids.over(answer.header(name)));
    format!("{} {names:?} {said:?} {}", answer.status, masked(answer, ids))
}

/// A request in which ids stand, still without them: `{0}`, `{1}`.
#[derive(Debug)]
struct Probe {
    operation: String,
    method: Method,
    path: String,
    body: Option<(Value, bool)>,
    /// Of what kind each of them is.
    kinds: Vec<Kind>,
}

impl Probe {
    async fn send(&self, caller: &Who, server: &Server, ids: &[&str]) -> (Answer, Duration) {
        let fill =
            |text: &str| ids.iter().enumerate().fold(text.to_owned(), |text, (n, id)| text.replace(&format!("{{{n}}}"), id));
        let request = match caller {
            Who::Header(header) => server.with(header).request(self.method.clone(), &fill(&self.path)),
            Who::Cookie(cookie) => server.anonymous().request(self.method.clone(), &fill(&self.path)).header("Cookie", cookie),
            Who::Nobody => server.anonymous().request(self.method.clone(), &fill(&self.path)),
        };
        let request = match &self.body {
            None => request,
            Some((body, true)) => request.form(&serde_json::from_str::<Value>(&fill(&body.to_string())).unwrap()),
            Some((body, false)) => request.json(&serde_json::from_str::<Value>(&fill(&body.to_string())).unwrap()),
        };
        let began = Instant::now();
        let answer = send(request).await;
        (answer, began.elapsed())
    }
}

/// Who sends it.
enum Who {
    Header(String),
    Cookie(String),
    Nobody,
}

/// What makes an operation do something, if it finds what it was asked for.
fn body_of(operation: &Operation) -> Option<(Value, bool)> {
    let body = match operation.root_id() {
        "changeUser" | "changeKey" | "changeApplication" => json!({ "disabled": true }),
        "changeConnection" => json!({ "enabled": false }),
        "linkUser" => json!({ "connection": support::operations::ABSENT_UUID, "subject": "x" }),
        "setPasswordOfUser" => json!({ "password": "seven green lanterns drift" }),
        "changeAudience" => json!({ "name": "taken-over" }),
        "confirmAudienceKey" => json!({ "kid": "no-such-kid" }),
        "changeRole" => json!({ "scopes": [] }),
        "rotateKey" | "rotateMyKey" => json!({ "grace_seconds": 0 }),
        "approveKeyRequest" => json!({ "scopes": [] }),
        "denyKeyRequest" => json!({ "reason": "no" }),
        "confirmFromPage" | "claimFromPage" => return Some((json!({ "csrf": "x" }), true)),
        id => {
            assert!(operation.body.is_none(), "{id} needs a body");
            return None;
        }
    };
    Some((body, false))
}

struct Dice(StdRng);

impl Dice {
    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.0.random_range(0..all.len())]
    }
}

/// Where ids stand in paths.
const SLOTS: [&str; 7] = ["{id}", "{kid}", "{name}", "{login}", "{request_id}", "{link}", "{connection}"];

/// An operation with ids in its path, which has at least one of another tenant.
fn in_path(dice: &mut Dice, operation: &Operation, own: &BTreeMap<&'static str, String>) -> Probe {
    let slots: Vec<&str> = SLOTS.into_iter().filter(|slot| operation.template.contains(slot)).collect();
    let foreign = dice.0.random_range(0..slots.len());
    let (mut path, mut kinds) = (operation.template.replace("{tenant}", "ours"), Vec::new());
    for (n, slot) in slots.iter().enumerate() {
        if n != foreign && dice.0.random_bool(0.5) {
            path = path.replace(slot, if *slot == "{id}" { &own["{user}"] } else { &own["{login}"] });
            continue;
        }
        path = path.replace(slot, &format!("{{{}}}", kinds.len()));
        kinds.push(*dice.pick(&IDS));
    }
    Probe { operation: operation.id.clone(), method: operation.method.clone(), path, body: body_of(operation), kinds }
}

fn in_body(dice: &mut Dice, place: &Place, own: &BTreeMap<&'static str, String>) -> Probe {
    let fill = |text: &str| own.iter().fold(text.to_owned(), |text, (name, id)| text.replace(name, id)).replace("{}", "{0}");
    let at_root = place.at_root && dice.0.random_bool(0.5);
    // Tenants are at the root alone.
    let path = if at_root || place.path == "/v1/tenants" { place.path.to_owned() } else { format!("/t/ours{}", place.path) };
    let (path, body) = match &place.body {
        Sent::Query(query) => (format!("{path}?{query}"), None),
        Sent::Json(body) => (path, Some((serde_json::from_str(&fill(&body.to_string())).unwrap(), false))),
        Sent::Form(fields) => {
            (path, Some((fields.iter().map(|(name, value)| ((*name).to_owned(), json!(fill(value)))).collect(), true)))
        }
    };
    let kinds = vec![*dice.pick(place.kinds)];
    Probe { operation: place.operation.to_owned(), method: place.method.clone(), path: fill(&path), body, kinds }
}

/// Leaves our own tenant as it was: names that were written into it would be found in later answers.
async fn undo(ours: &Tenant<'_>, own: &BTreeMap<&'static str, String>, operation: &str, answers: [&Answer; 2]) {
    if !answers.iter().all(|answer| answer.status.is_success()) {
        return;
    }
    let admin = ours.server.with(&basic(&own["{admin}"]));
    let mut changes = Vec::new();
    match operation {
        "createKey" => {
            for answer in answers {
                let key = answer.json()["api_key"].as_str().unwrap().to_owned();
                assert_eq!(admin.delete(&format!("/v1/keys/{key}")).await.status, StatusCode::NO_CONTENT);
            }
        }
        "changeKey" => changes.push(("keys", "{key}", json!({ "scopes": ["mine:secret"], "roles": [], "act_as": null }))),
        "changeApplication" => changes.push(("applications", "{application}", json!({ "roles": [] }))),
        "changeRole" => changes.push(("roles", "{role}", json!({ "scopes": ["mine:secret"] }))),
        "changeUser" => {}
        _ => return,
    }
    // Whoever gives a person's key a scope gives it to the person.
    changes.push(("users", "{user}", json!({ "scopes": [], "roles": ["mine.role"] })));
    for (things, whose, change) in changes {
        let answer = admin.patch(&format!("/v1/{things}/{}", own[whose]), change).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[actix_web::test]
async fn p30_t20_another_tenants_id_is_answered_like_nobodys_whoever_asks() {
    let probes = from_environment("PROBES").unwrap_or(5_000);
    let seed = from_environment("SEED").unwrap_or(20);
    println!("SEED={seed} PROBES={probes}");
    let mut dice = Dice(StdRng::seed_from_u64(seed));
    let server = Server::start_with(Options { throttle: UNTHROTTLED, ..Options::default() }).await;
    let platform = server.default_tenant().await.admin().await;
    let settings = TenantSettings { impersonation: true, ws_query_token: true, ..TenantSettings::default() };
    let ours = server.tenant_with("ours", settings).await;
    let theirs = server.tenant("theirs").await;
    let (_, mut own) = furnish(&ours, "mine").await;
    let (things, their_own) = furnish(&theirs, "theirs").await;
    let (gone, _) = furnish(&server.tenant("nobody").await, "nobody").await;
    let deleted = server.with(&platform.basic()).delete("/v1/tenants/nobody").await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    server.settle().await;

    // Who asks: an admin's key and its token, a person who is an admin, their browser, a key that may do nothing, nobody.
    let admin = own["{admin}"].clone();
    let boss = json!({ "username": "boss", "password": PASSWORD, "roles": ["tenant-admin"] });
    assert_eq!(server.with(&basic(&admin)).post("/v1/users", boss).await.status, StatusCode::CREATED);
    let person = ours.log_in("boss", PASSWORD).await;
    own.insert("{login}", claims(person["access_token"].as_str().unwrap())["sid"].as_str().unwrap().to_owned());
    let browser = Browser::signed_in(&ours, "boss", PASSWORD).await;
    let cookies: Vec<String> = browser.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let callers = [
        ("admin's key", Who::Header(basic(&admin))),
        ("admin's token", Who::Header(format!("Bearer {}", server.with(&admin).token().await))),
        ("admin in person", Who::Header(format!("Bearer {}", person["access_token"].as_str().unwrap()))),
        ("browser", Who::Cookie(cookies.join("; "))),
        ("weak key", Who::Header(ours.app_key("weak", &[]).await.basic())),
        ("nobody", Who::Nobody),
    ];

    // The ids are good, for whom they belong to.
    let their_admin = server.with(&basic(&their_own["{admin}"]));
    let user = &things[&User];
    for path in [
        format!("/v1/users/{user}"),
        format!("/v1/users/{user}/sessions"),
        format!("/v1/applications/{}", things[&Application]),
        format!("/v1/keys/{}", things[&Key]),
        format!("/v1/keys?user_id={user}"),
        format!("/v1/roles/{}", things[&Role]),
        format!("/v1/key-requests/{}", things[&KeyRequest]),
        format!("/v1/decisions/{}", things[&RequestId]),
    ] {
        assert_eq!(their_admin.get(&path).await.status, StatusCode::OK, "{path}");
    }
    // Secrets are told by their form, checksums and all: nobody's are those of a tenant that is no more.
    let mut nobodys = gone;
    nobodys.extend(IDS.map(|kind| (kind, neighbour(&things[&kind]))));
    assert!(nobodys.iter().all(|(kind, id)| *id != things[kind]), "{nobodys:?}");

    let ids = Mask::of(&things, &nobodys);
    let before = dump(&theirs).await;
    let places = places();
    // Tenants themselves are public.
    let with_ids = |operation: &Operation| SLOTS.iter().any(|slot| operation.template.contains(slot));
    let operations: Vec<Operation> = operations().into_iter().filter(with_ids).collect();
    let (mut leaks, mut asked, mut statuses) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
    let (mut found, mut lost) = (Vec::new(), Vec::new());
    for number in 0..probes {
        let (who, caller) = dice.pick(&callers);
        let probe = match dice.0.random_bool(0.6) {
            true => {
                let operation = dice.pick(&operations).clone();
                in_path(&mut dice, &operation, &own)
            }
            false => {
                let at = dice.0.random_range(0..places.len());
                in_body(&mut dice, &places[at], &own)
            }
        };
        let theirs: Vec<&str> = probe.kinds.iter().map(|kind| things[kind].as_str()).collect();
        let nobodys: Vec<&str> = probe.kinds.iter().map(|kind| nobodys[kind].as_str()).collect();
        let ((foreign, took), (absent, took_absent)) = match dice.0.random_bool(0.5) {
            true => (probe.send(caller, &server, &theirs).await, probe.send(caller, &server, &nobodys).await),
            false => {
                let absent = probe.send(caller, &server, &nobodys).await;
                (probe.send(caller, &server, &theirs).await, absent)
            }
        };
        let (a, b) = (told(&foreign, &ids), told(&absent, &ids));
        // Nothing of theirs is told that was not sent, even if nobody's is answered with it too.
        let unsent = things.values().any(|id| foreign.text.contains(id) && !theirs.iter().any(|sent| sent.contains(id)));
        if a != b || unsent || foreign.status.is_server_error() {
            let shown = |text: String| text.chars().take(1_500).collect::<String>();
            leaks.push(format!("{number}, {who}: {probe:?}\n  theirs:  {}\n  nobody's: {}", shown(a), shown(b)));
        }
        undo(&ours, &own, &probe.operation, [&foreign, &absent]).await;
        if foreign.status == StatusCode::NOT_FOUND {
            found.push(took);
            lost.push(took_absent);
        }
        // A scope that we gave out ourselves under the same name is ours.
        assert!(foreign.status != StatusCode::NO_CONTENT || probe.operation.starts_with("deleteScope"), "{who}: {probe:?}");
        *statuses.entry(foreign.status.as_u16()).or_insert(0) += 1;
        asked.insert(probe.operation);
    }
    println!(
        "{probes} probes of {} operations, answered {statuses:?}; 404 after {:?} for theirs, {:?} for nobody's (median)",
        asked.len(),
        median(&mut found),
        median(&mut lost)
    );
    println!("{} leaks", leaks.len());
    assert!(leaks.is_empty(), "SEED={seed}\n{}", leaks[..leaks.len().min(5)].join("\n"));
    let after = dump(&theirs).await;
    for (table, rows) in &before {
        assert_eq!(rows, &after[table], "{table} of the other tenant changed");
    }
    if probes >= 1_000 {
        assert!(operations.iter().all(|one| asked.contains(&one.id)) && places.iter().all(|one| asked.contains(one.operation)));
    }
}
