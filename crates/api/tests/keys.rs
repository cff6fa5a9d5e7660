//! API keys: made, shown, changed, rotated, imported, revoked (SEEDS scenarios 19 and 20), and asked about (RFC 7662).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use std::collections::BTreeSet;

use chrono::TimeDelta;
use claviger_store::id::Owner;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::wire::send;
use support::{Key, Options, Server, Tenant, UNTHROTTLED, claims, detail, hex, jose_header};

const EXCHANGE: &str = "/v1/authentications";

/// A tenant with an admin and an application.
struct Scene<'a> {
    server: &'a Server,
    tenant: Tenant<'a>,
    admin: Key,
    application: String,
}

impl<'a> Scene<'a> {
    async fn of(server: &'a Server) -> Self {
        let tenant = server.default_tenant().await;
        let admin = tenant.admin().await;
        let application = tenant.application("portal").await.to_string();
        Self { server, tenant, admin, application }
    }

    fn caller(&self) -> support::Client<'a> {
        self.server.with(&self.admin.basic())
    }

    /// An order for a key of the application, with these members besides.
    fn order(&self, members: Value) -> Value {
        let mut order = json!({ "application_id": self.application, "name": "production", "scopes": ["events:read"] });
        for (name, value) in members.as_object().unwrap() {
            order[name] = value.clone();
        }
        order
    }

    /// Makes a key by the API: its view, with the secret.
    async fn make(&self, members: Value) -> Value {
        let answer = self.caller().post("/v1/keys", self.order(members)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json()
    }

    async fn exchange(&self, pair: &str) -> StatusCode {
        self.server.with(pair).post_empty(EXCHANGE).await.status
    }
}

fn pair(made: &Value) -> String {
    format!("{}:{}", text(made, "api_key"), text(made, "api_secret"))
}

/// An order's member that takes over this pair.
fn import(pair: &str) -> Value {
    let (key, secret) = pair.split_once(':').unwrap();
    json!({ "api_key": key, "api_secret": secret })
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} in {value}"))
}

#[actix_web::test]
async fn a_new_key_shows_its_secret_once_and_the_database_never_holds_it() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let caller = scene.caller();
    let answer = caller.post("/v1/keys", scene.order(json!({}))).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    assert_eq!(answer.header("cache-control"), "no-store");
    let made = answer.json();
    let (id, secret) = (text(&made, "api_key"), text(&made, "api_secret"));
    assert!(secret.len() >= 32 && id.starts_with("ck_") && secret.starts_with("cs_"));
    let mut view = made.clone();
    view.as_object_mut().unwrap().remove("api_secret");
    let expected = json!({
        "api_key": id, "name": "production", "application_id": scene.application, "user_id": null, "scopes": ["events:read"], "roles": [],
        "token_lifetime": null, "refresh": false, "status": "active", "created_at": made["created_at"],
        "created_by": format!("key:{}", scene.admin.id), "expires_at": server.clock.now() + TimeDelta::days(365),
        "allowed_ips": [], "transports": [], "rate_limit": null, "quota": null,
        "last_used_at": null, "last_used_network": null, "last_used_agent": null,
    });
    assert_eq!(view, expected);
    view["verdict"] = json!("active");

    let shown = caller.get(&format!("/v1/keys/{id}")).await;
    assert_eq!(shown.json(), view);
    let listed = caller.get("/v1/keys").await;
    assert!(listed.json()["items"].as_array().unwrap().contains(&view));
    let changed = caller.patch(&format!("/v1/keys/{id}"), json!({ "name": "renamed" })).await;
    let audit = caller.get("/v1/audit").await;
    for answer in [&shown, &listed, &changed, &audit] {
        assert!(!answer.text.contains(secret) && !answer.text.contains("secret"), "{}", answer.text);
    }
    assert_eq!(scene.exchange(&pair(&made)).await, StatusCode::CREATED);

    // Neither as text nor in hexadecimal, in any column of any row.
    let mut database = server.database.superuser().await;
    let tables: Vec<(String,)> = sqlx::query_as("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
        .fetch_all(&mut database)
        .await
        .unwrap();
    assert!(tables.len() > 8);
    let needles = [secret.to_owned(), hex(secret.as_bytes()), secret.trim_start_matches("cs_").to_owned()];
    for (table,) in tables {
        let rows: Vec<(String,)> =
            sqlx::query_as(sqlx::AssertSqlSafe(format!("SELECT t::text FROM {table} t"))).fetch_all(&mut database).await.unwrap();
        for (row,) in rows {
            assert!(!needles.iter().any(|needle| row.contains(needle)), "{table} holds the secret");
        }
    }
    let entry = scene.tenant.audit("key.create").await.remove(0);
    assert_eq!(entry.target, format!("key:{id}"));
    assert_eq!(entry.actor, format!("key:{}", scene.admin.id));
    assert_eq!(detail(&entry)["scopes"], json!(["events:read"]));
}

#[actix_web::test]
async fn scopes_are_kept_as_a_set_and_an_empty_list_is_nothing() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let made = scene.make(json!({ "scopes": ["b:x", "a:x", "b:x"] })).await;
    assert_eq!(made["scopes"], json!(["a:x", "b:x"]));
    let bare = scene.make(json!({ "scopes": [] })).await;
    let token = server.with(&pair(&bare)).token().await;
    assert!(claims(&token).get("scope").is_none());
    for scopes in [
        json!(["*"]),
        json!(["a:*"]),
        json!(["a"]),
        json!([""]),
        json!(["a:b c:d"]),
        json!(["a:b\u{0}"]),
        json!(vec!["a:b"; 101]),
    ] {
        let answer = scene.caller().post("/v1/keys", scene.order(json!({ "scopes": scopes }))).await;
        assert_eq!(answer.wrong_field(), "scopes", "{scopes}");
    }
}

#[actix_web::test]
async fn keys_are_listed_in_pages_by_owner_and_without_revoked_ones() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let caller = scene.caller();
    let user = scene.tenant.user_key("alice", &[]).await;
    let mut expected = BTreeSet::from([scene.admin.id.clone(), user.id.clone()]);
    for _ in 0..5 {
        expected.insert(text(&scene.make(json!({})).await, "api_key").to_owned());
    }
    let revoked = scene.make(json!({})).await;
    assert_eq!(caller.delete(&format!("/v1/keys/{}", text(&revoked, "api_key"))).await.status, StatusCode::NO_CONTENT);

    let (mut seen, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = caller.get(&format!("/v1/keys?limit=3{after}")).await.json();
        pages += 1;
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| text(item, "api_key").to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert!(pages >= 3);
    assert!(seen.is_sorted());
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), expected);

    let ids = async |query: String| -> Vec<String> {
        let page = caller.get(&format!("/v1/keys?{query}")).await.json();
        page["items"].as_array().unwrap().iter().map(|item| text(item, "api_key").to_owned()).collect()
    };
    assert_eq!(ids(format!("user_id={}", user.subject())).await, std::slice::from_ref(&user.id));
    assert_eq!(ids(format!("application_id={}", scene.application)).await.len(), 5);
    assert!(ids(format!("application_id={}", user.subject())).await.is_empty());
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=-1", ""),
        ("limit=x", ""),
        ("limit=99999999999999999999", ""),
        ("after=%20", "after"),
        ("unknown=1", "unknown"),
        ("user_id=x", ""),
        ("limit=1&limit=2", "limit"),
    ] {
        assert_eq!(caller.get(&format!("/v1/keys?{query}")).await.wrong_field(), field, "{query}");
    }
    let both = format!("/v1/keys?user_id={}&application_id={}", user.subject(), scene.application);
    assert_eq!(caller.get(&both).await.wrong_field(), "user_id");
}

#[actix_web::test]
async fn a_keys_changes_count_at_once_and_are_written_down() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let caller = scene.caller();
    let made = scene.make(json!({})).await;
    let path = format!("/v1/keys/{}", text(&made, "api_key"));
    assert_eq!(scene.exchange(&pair(&made)).await, StatusCode::CREATED);

    let disabled = caller.patch(&path, json!({ "disabled": true })).await;
    assert_eq!((disabled.status, &disabled.json()["status"]), (StatusCode::OK, &json!("disabled")));
    server.settle().await;
    assert_eq!(scene.exchange(&pair(&made)).await, StatusCode::NOT_FOUND);
    // Once more changes nothing, and so writes nothing.
    assert_eq!(caller.patch(&path, json!({ "disabled": true })).await.status, StatusCode::OK);
    assert_eq!(scene.tenant.audit("key.disable").await.len(), 1);
    let enabled = caller.patch(&path, json!({ "disabled": false })).await;
    assert_eq!(enabled.json()["status"], "active");
    server.settle().await;
    assert_eq!(scene.exchange(&pair(&made)).await, StatusCode::CREATED);
    assert_eq!(scene.tenant.audit("key.enable").await.len(), 1);

    let expires_at = server.clock.now() + TimeDelta::seconds(3600);
    let change = json!({ "name": "n", "scopes": ["x:y"], "token_lifetime": 60, "expires_at": expires_at });
    let changed = caller.patch(&path, change).await.json();
    assert_eq!((&changed["name"], &changed["scopes"], &changed["token_lifetime"]), (&json!("n"), &json!(["x:y"]), &json!(60)));
    assert_eq!(changed["expires_at"], json!(expires_at));
    // Absent stays, null removes.
    let same = caller.patch(&path, json!({ "name": "m" })).await.json();
    assert_eq!((&same["token_lifetime"], &same["expires_at"]), (&json!(60), &json!(expires_at)));
    let removed = caller.patch(&path, json!({ "token_lifetime": null, "expires_at": null })).await.json();
    assert_eq!((&removed["token_lifetime"], &removed["expires_at"]), (&Value::Null, &Value::Null));
    let updates = scene.tenant.audit("key.update").await;
    assert_eq!(updates.len(), 3);
    assert!(updates.iter().all(|entry| entry.target == format!("key:{}", text(&made, "api_key"))));
    assert_eq!(caller.patch(&path, json!({})).await.status, StatusCode::OK);
    assert_eq!(scene.tenant.audit("key.update").await.len(), 3, "no change, no entry");
}

#[actix_web::test]
async fn a_key_ends_when_it_says() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let at = |seconds| json!(server.clock.now() + TimeDelta::seconds(seconds));
    let made = scene.make(json!({ "expires_at": at(90) })).await;
    assert_eq!(scene.exchange(&pair(&made)).await, StatusCode::CREATED);
    server.clock.advance(TimeDelta::seconds(89));
    assert_eq!(scene.exchange(&pair(&made)).await, StatusCode::CREATED);
    server.clock.advance(TimeDelta::seconds(1));
    assert_eq!(scene.exchange(&pair(&made)).await, StatusCode::NOT_FOUND);
    // It can be given more time.
    let path = format!("/v1/keys/{}", text(&made, "api_key"));
    assert_eq!(scene.caller().patch(&path, json!({ "expires_at": at(60) })).await.status, StatusCode::OK);
    server.settle().await;
    assert_eq!(scene.exchange(&pair(&made)).await, StatusCode::CREATED);
    for past in [at(0), at(-1), json!("1970-01-01T00:00:00Z")] {
        assert_eq!(scene.caller().patch(&path, json!({ "expires_at": past })).await.wrong_field(), "expires_at");
        let answer = scene.caller().post("/v1/keys", scene.order(json!({ "expires_at": past }))).await;
        assert_eq!(answer.wrong_field(), "expires_at");
    }
    for nonsense in [json!("tomorrow"), json!(90), json!("2030-01-01"), json!("9999999-01-01T00:00:00Z")] {
        let answer = scene.caller().post("/v1/keys", scene.order(json!({ "expires_at": nonsense }))).await;
        assert_eq!(answer.wrong_field(), "expires_at", "{nonsense}");
    }
}

#[actix_web::test]
async fn the_last_use_is_kept() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let made = scene.make(json!({})).await;
    let path = format!("/v1/keys/{}", text(&made, "api_key"));
    assert_eq!(made["last_used_at"], Value::Null);
    server.clock.advance(TimeDelta::seconds(5));
    assert_eq!(scene.exchange(&format!("{}:cs_no", text(&made, "api_key"))).await, StatusCode::NOT_FOUND);
    assert_eq!(scene.caller().get(&path).await.json()["last_used_at"], Value::Null, "a refusal is no use");
    assert_eq!(scene.exchange(&pair(&made)).await, StatusCode::CREATED);
    assert_eq!(scene.caller().get(&path).await.json()["last_used_at"], json!(server.clock.now()));
}

#[actix_web::test]
async fn scenario_19_after_a_rotation_both_secrets_work_for_the_grace_and_then_the_new_one_alone() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let caller = scene.caller();
    let made = scene.make(json!({})).await;
    let rotate = format!("/v1/keys/{}/rotate", text(&made, "api_key"));
    assert_eq!(scene.exchange(&pair(&made)).await, StatusCode::CREATED);
    let answer = caller.post(&rotate, json!({ "grace_seconds": 2 })).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    assert_eq!(answer.header("cache-control"), "no-store");
    let second = answer.json();
    assert_eq!(second["api_key"], made["api_key"]);
    assert_ne!(second["api_secret"], made["api_secret"]);
    server.settle().await;
    for secret in [&made, &second] {
        assert_eq!(scene.exchange(&pair(secret)).await, StatusCode::CREATED);
    }
    server.clock.advance(TimeDelta::milliseconds(1999));
    assert_eq!(scene.exchange(&pair(&made)).await, StatusCode::CREATED);
    server.clock.advance(TimeDelta::milliseconds(1));
    assert_eq!(scene.exchange(&pair(&made)).await, StatusCode::NOT_FOUND);
    assert_eq!(scene.exchange(&pair(&second)).await, StatusCode::CREATED);
    let entries = scene.tenant.audit("key.rotate").await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].target, format!("key:{}", text(&made, "api_key")));
    assert_eq!(detail(&entries[0]), json!({ "grace_seconds": 2 }));
    let refused = scene.tenant.audit("key.exchange").await.into_iter().find(|entry| entry.outcome == "refused").unwrap();
    assert_eq!(detail(&refused), json!({ "reason": "wrong_secret" }));
}

#[actix_web::test]
async fn scenario_19_what_the_secret_before_begins_in_its_grace_ends_with_the_grace() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let made = scene.make(json!({ "refresh": true })).await;
    let rotate = format!("/v1/keys/{}/rotate", text(&made, "api_key"));
    let second = scene.caller().post(&rotate, json!({ "grace_seconds": 60 })).await.json();
    server.settle().await;
    let begin = async |made: &Value| {
        let begun = server.with(&pair(made)).post_empty("/v1/authentications").await;
        assert_eq!(begun.status, StatusCode::CREATED, "{}", begun.text);
        begun.json()["refresh_token"].as_str().unwrap().to_owned()
    };
    let (stolen, own) = (begin(&made).await, begin(&second).await);
    let next = async |token: &str| {
        let body = json!({ "refresh_token": token });
        let answer = server.anonymous().post(&scene.tenant.path("/v1/token/refresh"), body).await;
        (answer.status, answer.json()["refresh_token"].as_str().map(str::to_owned))
    };
    server.clock.advance(TimeDelta::seconds(30));
    let (status, stolen) = next(&stolen).await;
    assert_eq!(status, StatusCode::OK);
    server.clock.advance(TimeDelta::seconds(31));
    assert_eq!(next(&stolen.unwrap()).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(next(&own).await.0, StatusCode::OK);
}

#[actix_web::test]
async fn scenario_19_the_third_secret_ends_the_first_at_once_and_grace_zero_ends_the_one_before() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let caller = scene.caller();
    let first = scene.make(json!({})).await;
    let rotate = format!("/v1/keys/{}/rotate", text(&first, "api_key"));
    let second = caller.post(&rotate, json!({ "grace_seconds": 2_592_000 })).await.json();
    server.clock.advance(TimeDelta::seconds(1));
    let third = caller.post(&rotate, json!({ "grace_seconds": 2_592_000 })).await.json();
    server.settle().await;
    let works = async |made: &Value| scene.exchange(&pair(made)).await == StatusCode::CREATED;
    assert_eq!((works(&first).await, works(&second).await, works(&third).await), (false, true, true));
    server.clock.advance(TimeDelta::seconds(1));
    let fourth = caller.post(&rotate, json!({ "grace_seconds": 0 })).await.json();
    server.settle().await;
    assert_eq!((works(&second).await, works(&third).await, works(&fourth).await), (false, false, true));
    // A grace is never lengthened by the rotation after it.
    server.clock.advance(TimeDelta::seconds(1));
    let fifth = caller.post(&rotate, json!({ "grace_seconds": 60 })).await.json();
    server.settle().await;
    assert!(works(&fourth).await);
    server.clock.advance(TimeDelta::seconds(60));
    assert_eq!((works(&fourth).await, works(&fifth).await), (false, true));

    let mut database = server.database.superuser().await;
    let (secrets,): (i64,) = sqlx::query_as("SELECT count(*) FROM api_key_secrets WHERE key_id = $1")
        .bind(text(&first, "api_key"))
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert_eq!(secrets, 2, "never more than two");
    for body in [
        json!({ "grace_seconds": 2_592_001 }),
        json!({ "grace_seconds": -1 }),
        json!({ "grace_seconds": "2" }),
        json!({ "grace_seconds": null }),
        json!({}),
    ] {
        assert_eq!(caller.post(&rotate, body.clone()).await.wrong_field(), "grace_seconds", "{body}");
    }
    assert_eq!(scene.tenant.audit("key.rotate").await.len(), 4);
}

#[actix_web::test]
async fn two_rotations_in_the_same_instant_leave_the_newest_secret_working() {
    let server = Server::start_with(Options { throttle: UNTHROTTLED, ..Options::default() }).await;
    let scene = Scene::of(&server).await;
    let first = scene.make(json!({})).await;
    let rotate = format!("/v1/keys/{}/rotate", text(&first, "api_key"));
    // The clock stands still: the order must not depend on it.
    let mut last = first.clone();
    for _ in 0..4 {
        last = scene.caller().post(&rotate, json!({ "grace_seconds": 60 })).await.json();
    }
    server.settle().await;
    assert_eq!(scene.exchange(&pair(&last)).await, StatusCode::CREATED);
    assert_eq!(scene.exchange(&pair(&first)).await, StatusCode::NOT_FOUND);
    // At the same time, too: each is answered with a secret, and two at most are good.
    let caller = scene.caller();
    let answers = futures_util::future::join_all((0..6).map(|_| caller.post(&rotate, json!({ "grace_seconds": 60 })))).await;
    server.settle().await;
    let mut working = 0;
    for answer in answers {
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        working += u32::from(scene.exchange(&pair(&answer.json())).await == StatusCode::CREATED);
        server.clock.advance(TimeDelta::milliseconds(1));
    }
    assert_eq!(working, 2);
}

#[actix_web::test]
async fn scenario_20_a_revoked_key_is_gone_everywhere_and_for_good() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let caller = scene.caller();
    let made = scene.make(json!({})).await;
    let path = format!("/v1/keys/{}", text(&made, "api_key"));
    let token = server.with(&pair(&made)).token().await;
    let bearer = server.with(&format!("Bearer {token}"));
    assert_eq!(bearer.get("/v1/me").await.status, StatusCode::OK);
    assert_eq!(caller.introspect("/v1/introspect", &token).await.json()["active"], true);

    let revoked = caller.delete(&path).await;
    assert_eq!((revoked.status, revoked.text.as_str()), (StatusCode::NO_CONTENT, ""));
    let again = caller.delete(&path).await;
    assert_eq!((again.status, again.error().as_str()), (StatusCode::NOT_FOUND, "not_found"));
    server.settle().await;
    assert_eq!(scene.exchange(&pair(&made)).await, StatusCode::NOT_FOUND);
    assert_eq!(caller.introspect("/v1/introspect", &token).await.json(), json!({ "active": false }));
    let me = bearer.get("/v1/me").await;
    assert_eq!((me.status, me.error().as_str()), (StatusCode::UNAUTHORIZED, "invalid_token"));

    // It is shown for the record, and nothing brings it back.
    assert_eq!(caller.get(&path).await.json()["status"], "revoked");
    let absent = caller.patch("/v1/keys/nokey", json!({ "disabled": false })).await.told();
    assert_eq!(caller.patch(&path, json!({ "disabled": false })).await.told(), absent);
    assert_eq!(caller.post(&format!("{path}/rotate"), json!({ "grace_seconds": 0 })).await.status, StatusCode::NOT_FOUND);
    let reuse = scene.order(json!({ "import": import(&pair(&made)) }));
    assert_eq!(caller.post("/v1/keys", reuse).await.status, StatusCode::CONFLICT);
    let entries = scene.tenant.audit("key.revoke").await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].target, format!("key:{}", text(&made, "api_key")));
    assert_eq!(entries[0].actor, format!("key:{}", scene.admin.id));
    let mut database = server.database.superuser().await;
    let (by,): (Option<String>,) = sqlx::query_as("SELECT revoked_by FROM api_keys WHERE id = $1 AND revoked_at IS NOT NULL")
        .bind(text(&made, "api_key"))
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert_eq!(by, Some(format!("key:{}", scene.admin.id)));
}

#[actix_web::test]
async fn what_an_admin_just_did_counts_in_the_very_next_request() {
    // The news travels by the slow way only; whoever has read "done" may rely on it at the same server all the same.
    let server = Server::start_with(Options { notifications: false, ..Options::default() }).await;
    let scene = Scene::of(&server).await;
    let caller = scene.caller();
    for round in 0..5 {
        let made = scene.make(json!({})).await;
        let path = format!("/v1/keys/{}", text(&made, "api_key"));
        let token = server.with(&pair(&made)).token().await;
        assert_eq!(caller.delete(&path).await.status, StatusCode::NO_CONTENT);
        assert_eq!(scene.exchange(&pair(&made)).await, StatusCode::NOT_FOUND, "exchange, round {round}");
        let me = server.with(&format!("Bearer {token}")).get("/v1/me").await;
        assert_eq!(me.status, StatusCode::UNAUTHORIZED, "token, round {round}");
    }
}

#[actix_web::test]
async fn a_foreign_pair_can_be_taken_over_as_it_is() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let other = server.tenant("other").await;
    let caller = scene.caller();
    let foreign = "legacy.App~1:0123456789abcdef:with:colons!";
    let made = scene.make(json!({ "import": import(foreign) })).await;
    assert_eq!((text(&made, "api_key"), text(&made, "api_secret")), ("legacy.App~1", "0123456789abcdef:with:colons!"));
    assert_eq!(scene.exchange(foreign).await, StatusCode::CREATED);
    assert_eq!(scene.exchange("legacy.App~1:0123456789abcdef").await, StatusCode::NOT_FOUND);
    let entry = scene.tenant.audit("key.create").await.into_iter().find(|entry| entry.target == "key:legacy.App~1").unwrap();
    assert_eq!(detail(&entry)["imported"], true);
    assert!(!entry.detail.contains("0123456789abcdef"));
    // Rotated, it gets a secret of our own.
    let rotated = caller.post("/v1/keys/legacy.App~1/rotate", json!({ "grace_seconds": 0 })).await.json();
    assert!(text(&rotated, "api_secret").starts_with("cs_"));

    // A key id names its tenant: it exists once in the world.
    let taken_here = scene.order(json!({ "import": import("legacy.App~1:another-secret-of-good-length") }));
    assert_eq!(caller.post("/v1/keys", taken_here).await.error(), "conflict");
    let other_admin = other.admin().await;
    let other_app = other.application("portal").await;
    let order = json!({ "application_id": other_app, "name": "n", "scopes": [], "import": import("legacy.App~1:another-secret-of-good-length") });
    let taken = server.with(&other_admin.basic()).post("/v1/keys", order).await;
    assert_eq!((taken.status, taken.error().as_str()), (StatusCode::CONFLICT, "conflict"));
    assert!(!taken.text.contains("default"), "whose it is stays untold");
    assert_eq!(other.audit("key.create").await.len(), 1, "only the admin's own");

    let own = scene.make(json!({})).await;
    let typo = format!("{}x", pair(&own));
    for (made_elsewhere, why) in [
        ("short:012345678901234567890", "21 characters could be guessed"),
        (":0123456789012345678901", "no key"),
        ("key:", "no secret"),
        ("bad key:0123456789012345678901", "a blank in the key"),
        ("key:01234567890123456789 1", "a blank in the secret"),
        ("k\u{e9}y:0123456789012345678901", "not ASCII"),
        ("key/../x:0123456789012345678901", "a slash"),
        ("ck_abc:0123456789012345678901", "our form without our checksum"),
        (typo.as_str(), "a typo in a pair of ours"),
        (":", "empty"),
    ] {
        let answer = caller.post("/v1/keys", scene.order(json!({ "import": import(made_elsewhere) }))).await;
        assert_eq!(answer.wrong_field(), "import", "{why}");
        let secret = made_elsewhere.rsplit(':').next().unwrap();
        assert!(secret.is_empty() || !answer.text.contains(secret), "{why}: the secret came back");
    }
    let colon = json!({ "api_key": "a:b", "api_secret": "0123456789012345678901" });
    assert_eq!(caller.post("/v1/keys", scene.order(json!({ "import": colon }))).await.wrong_field(), "import");
    let long = format!("{}:0123456789012345678901", "k".repeat(129));
    assert_eq!(caller.post("/v1/keys", scene.order(json!({ "import": import(&long) }))).await.wrong_field(), "import");
    let fits = format!("{}:{}", "k".repeat(128), "s".repeat(256));
    scene.make(json!({ "import": import(&fits) })).await;
    assert_eq!(scene.exchange(&fits).await, StatusCode::CREATED);
}

#[actix_web::test]
async fn a_wrong_field_is_422_and_named_and_nothing_is_made() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let caller = scene.caller();
    let user = scene.tenant.user_key("alice", &[]).await;
    let gone = scene.tenant.app_key("gone", &[]).await;
    let Owner::Application(gone) = gone.owner else { panic!("an application") };
    assert_eq!(caller.delete(&format!("/v1/applications/{gone}")).await.status, StatusCode::NO_CONTENT);
    let count = async || scene.tenant.audit("key.create").await.len();
    let before = count().await;
    for (members, field) in [
        (json!({ "user_id": user.subject() }), "user_id"),
        (json!({ "application_id": null }), "application_id"),
        (json!({ "application_id": user.subject() }), "application_id"),
        (json!({ "application_id": gone }), "application_id"),
        (json!({ "application_id": "x" }), "application_id"),
        (json!({ "name": "" }), "name"),
        (json!({ "name": "  " }), "name"),
        (json!({ "name": "a\nb" }), "name"),
        (json!({ "name": "a".repeat(201) }), "name"),
        (json!({ "name": 1 }), "name"),
        (json!({ "name": null }), "name"),
        (json!({ "scopes": "events:read" }), "scopes"),
        (json!({ "scopes": [1] }), "scopes[0]"),
        (json!({ "token_lifetime": "60" }), "token_lifetime"),
        (json!({ "token_lifetime": 60.5 }), "token_lifetime"),
    ] {
        let answer = caller.post("/v1/keys", scene.order(members.clone())).await;
        assert_eq!(answer.wrong_field(), field, "{members}");
    }
    for missing in ["name", "scopes"] {
        let mut order = scene.order(json!({}));
        order.as_object_mut().unwrap().remove(missing);
        assert_eq!(caller.post("/v1/keys", order).await.wrong_field(), missing);
    }
    let order = scene.order(json!({})).to_string();
    for (text, field) in [
        (order.replacen('{', "{\"name\":\"twin\",", 1), "name"),
        (order.replacen('{', "{\"n\\u0061me\":\"twin\",", 1), "name"),
        (order.replacen('{', "{\"scopes\":[],", 1), "scopes"),
    ] {
        let request = caller.request(Method::POST, "/v1/keys").header("Content-Type", "application/json").body(text);
        assert_eq!(send(request).await.wrong_field(), field, "p42: twins are refused");
    }
    assert_eq!(count().await, before);
}

#[actix_web::test]
async fn p29_what_is_not_the_callers_to_set_is_refused_and_never_applied() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let other = server.tenant("other").await;
    let caller = scene.caller();
    let made = scene.make(json!({})).await;
    let path = format!("/v1/keys/{}", text(&made, "api_key"));
    for (name, value) in [
        ("tenant_id", json!(other.id)),
        ("tenant", json!("other")),
        ("id", json!("mine")),
        ("api_key", json!("mine")),
        ("api_secret", json!("s".repeat(40))),
        ("secret", json!("s".repeat(40))),
        ("created_by", json!("operator:cli")),
        ("created_at", json!("2020-01-01T00:00:00Z")),
        ("status", json!("active")),
        ("last_used_at", json!("2020-01-01T00:00:00Z")),
        ("revoked_at", Value::Null),
        ("owner", json!("user:root")),
        ("Scopes", json!(["users:write"])),
        ("__proto__", json!({ "scopes": ["users:write"] })),
    ] {
        let answer = caller.post("/v1/keys", scene.order(json!({ name: value }))).await;
        assert_eq!(answer.wrong_field(), name);
        let answer = caller.patch(&path, json!({ name: value })).await;
        assert_eq!(answer.wrong_field(), name);
        let answer = caller.post(&format!("{path}/rotate"), json!({ "grace_seconds": 0, name: value })).await;
        assert_eq!(answer.wrong_field(), name);
    }
    // An owner is for life, and a pair is imported when the key is made.
    for (name, value) in [("application_id", json!(scene.application)), ("user_id", json!(null)), ("import", json!("a:b"))] {
        assert_eq!(caller.patch(&path, json!({ name: value })).await.wrong_field(), name);
    }
    let mut expected = made.clone();
    expected.as_object_mut().unwrap().remove("api_secret");
    expected["verdict"] = json!("active");
    assert_eq!(caller.get(&path).await.json(), expected);
    assert_eq!(scene.exchange(&pair(&made)).await, StatusCode::CREATED);
    assert!(scene.tenant.audit("key.update").await.is_empty() && scene.tenant.audit("key.rotate").await.is_empty());
    assert!(other.audit("key.create").await.is_empty());
}

#[actix_web::test]
async fn a_list_instead_of_an_object_is_422() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let made = scene.make(json!({})).await;
    let path = format!("/v1/keys/{}", text(&made, "api_key"));
    // The members of an object in their order are not the object.
    let order = json!([scene.application, null, "production", ["events:read"], null, null, null]);
    assert_eq!(scene.caller().post("/v1/keys", order).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(scene.caller().post(&format!("{path}/rotate"), json!([0])).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let change = json!(["renamed", null, null, null, true]);
    assert_eq!(scene.caller().patch(&path, change).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(scene.tenant.audit("key.create").await.len(), 2);
    assert!(scene.tenant.audit("key.rotate").await.is_empty());
    assert_eq!(scene.caller().get(&path).await.json()["name"], "production");
}

#[actix_web::test]
async fn introspection_tells_what_the_token_says_and_what_the_record_knows() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let person = scene.tenant.user_key("alice", &["events:write", "events:read"]).await;
    let machine = scene.tenant.app_key("importer", &[]).await;
    let caller = scene.caller();
    for (key, username) in [(&person, json!("alice")), (&machine, Value::Null)] {
        let token = server.with(&key.pair()).token().await;
        let claims = claims(&token);
        for path in ["/v1/introspect".to_owned(), scene.tenant.path("/v1/introspect")] {
            let answer = caller.introspect(&path, &token).await;
            assert_eq!(answer.header("cache-control"), "no-store");
            let mut expected = json!({
                "active": true, "client_id": claims["client_id"],
                "token_type": "Bearer", "exp": claims["exp"], "iat": claims["iat"], "sub": key.subject(),
                "aud": [claims["aud"]], "iss": claims["iss"], "jti": claims["jti"],
            });
            if let Some(scope) = claims.get("scope") {
                expected["scope"] = scope.clone();
            }
            if !username.is_null() {
                expected["username"] = username.clone();
            }
            assert_eq!(answer.json(), expected);
        }
        // Its own token, any caller may ask about.
        let own = server.with(&key.basic()).introspect("/v1/introspect", &token).await;
        assert_eq!(own.json()["active"], true);
        let by_itself = server.with(&format!("Bearer {token}")).introspect("/v1/introspect", &token).await;
        assert_eq!(by_itself.json()["active"], true);
    }
    let token = server.with(&person.pair()).token().await;
    let hinted =
        caller.request(Method::POST, "/v1/introspect").form(&[("token", token.as_str()), ("token_type_hint", "refresh_token")]);
    assert_eq!(send(hinted).await.json()["active"], true);
    server.clock.advance(TimeDelta::seconds(86_400));
    assert_eq!(caller.introspect("/v1/introspect", &token).await.json(), json!({ "active": false }));
}

#[actix_web::test]
async fn p31_whoever_may_not_ask_and_whatever_is_no_token_hears_inactive() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let other = server.tenant("other").await;
    let key = scene.tenant.user_key("alice", &["events:read"]).await;
    let nosy = scene.tenant.user_key("nosy", &["events:read", "keys:write", "users:write"]).await;
    let asker = scene.tenant.user_key("asker", &["tokens:introspect"]).await;
    let stranger = other.admin().await;
    let token = server.with(&key.pair()).token().await;
    let foreign = server.with(&stranger.pair()).token().await;
    let inactive = server.with(&asker.basic()).introspect("/v1/introspect", "garbage").await;
    assert_eq!((inactive.status, inactive.text.as_str()), (StatusCode::OK, r#"{"active":false}"#));
    let told = inactive.told();
    assert_eq!(server.with(&asker.basic()).introspect("/v1/introspect", &token).await.json()["active"], true);

    // Signed by our own key, and yet never issued: the record decides.
    let mut unrecorded = claims(&token);
    unrecorded["jti"] = json!("01890000-0000-7000-8000-000000000000");
    let unrecorded = scene.tenant.sign(&jose_header(&token), &unrecorded).await;
    let mut longer = claims(&token);
    longer["exp"] = json!(longer["exp"].as_i64().unwrap() + 1);
    let longer = scene.tenant.sign(&jose_header(&token), &longer).await;
    let mut of_another_key = claims(&token);
    of_another_key["key_id"] = json!(nosy.id);
    let of_another_key = scene.tenant.sign(&jose_header(&token), &of_another_key).await;
    let mut tampered = token.clone();
    tampered.replace_range(token.len() - 9..token.len() - 8, if token.as_bytes()[token.len() - 9] == b'A' { "B" } else { "A" });
    for (who, what, asked) in [
        (&nosy, "another key's token", &token),
        (&stranger, "another tenant's token", &token),
        (&asker, "another tenant's token", &foreign),
        (&nosy, "another tenant's token", &foreign),
        (&asker, "tampered", &tampered),
        (&asker, "unrecorded", &unrecorded),
        (&asker, "longer than recorded", &longer),
        (&asker, "recorded for another key", &of_another_key),
        (&asker, "nothing", &String::new()),
        (&asker, "a secret", &asker.secret),
        (&asker, "a very long text", &"x".repeat(60_000)),
    ] {
        let answer = server.with(&who.basic()).introspect("/v1/introspect", asked).await;
        assert_eq!(answer.told(), told, "{what}");
    }
    // Asking revokes nothing.
    assert_eq!(server.with(&format!("Bearer {token}")).get("/v1/me").await.status, StatusCode::OK);
    // Without a caller nothing is told, and without a token nothing was asked.
    assert_eq!(server.anonymous().introspect("/v1/introspect", &token).await.status, StatusCode::UNAUTHORIZED);
    let caller = server.with(&asker.basic());
    for request in [
        caller.request(Method::POST, "/v1/introspect").form(&[("tokens", "x")]),
        caller.request(Method::POST, "/v1/introspect").json(&json!({ "token": token })),
        caller.request(Method::POST, "/v1/introspect"),
        caller.request(Method::POST, &format!("/v1/introspect?token={token}")),
        caller.request(Method::POST, "/v1/introspect").form(&[("token", token.as_str()), ("token", token.as_str())]),
    ] {
        let answer = send(request).await;
        let not_a_form = [StatusCode::BAD_REQUEST, StatusCode::UNSUPPORTED_MEDIA_TYPE].contains(&answer.status);
        assert!(not_a_form, "{}: {}", answer.status, answer.text);
        assert_eq!(answer.error(), "invalid_request");
    }
    // A scope that its key has lost helps no longer.
    let asker_token = server.with(&asker.pair()).token().await;
    let path = format!("/v1/keys/{}", asker.id);
    assert_eq!(scene.caller().patch(&path, json!({ "scopes": [] })).await.status, StatusCode::OK);
    server.settle().await;
    let answer = server.with(&format!("Bearer {asker_token}")).introspect("/v1/introspect", &token).await;
    assert_eq!(answer.told(), told);
}
