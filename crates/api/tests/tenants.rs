//! Tenants: made, listed, shown, changed, disabled, deleted by the default tenant's admins.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use claviger_store::id::TenantId;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::wire::send;
use support::{Server, Tenant, claims};

const EXCHANGE: &str = "/v1/authentications";

/// A tenant that was made by the API.
fn tenant_of<'a>(server: &'a Server, view: &Value) -> Tenant<'a> {
    let id = TenantId(view["id"].as_str().unwrap().parse().unwrap());
    Tenant { server, slug: view["slug"].as_str().unwrap().to_owned(), id }
}

#[actix_web::test]
async fn a_new_tenant_has_its_own_signing_key_audit_trail_and_issuer() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let admin = default.admin().await;
    let caller = server.with(&admin.basic());
    let settings = json!({ "token_lifetime": 600, "throttle": { "failures": 2, "window": 60 } });
    let answer = caller.post("/v1/tenants", json!({ "slug": "acme", "name": "Acme Inc.", "settings": settings })).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let made = answer.json();
    let expected = json!({
        "id": made["id"], "slug": "acme", "name": "Acme Inc.", "status": "active", "settings": settings, "presets": [],
        "created_at": json!(server.clock.now()),
    });
    assert_eq!(made, expected);
    assert_eq!(caller.get("/v1/tenants/acme").await.json(), expected);

    let acme = tenant_of(&server, &made);
    let entries = server.issuer.list_audit(acme.id, None, None, 10).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.action.as_str()).collect::<Vec<_>>(), ["signing_key.create", "tenant.create"]);
    assert!(entries.iter().all(|entry| entry.actor == format!("key:{}", admin.id)));
    let kid = |jwks: Value| jwks["keys"][0]["kid"].clone();
    let own = kid(server.anonymous().get("/t/acme/.well-known/jwks.json").await.json());
    assert_ne!(own, kid(server.anonymous().get("/.well-known/jwks.json").await.json()));

    let key = acme.user_key("foo", &[]).await;
    let token = server.with(&key.pair()).token().await;
    let claims = claims(&token);
    assert_eq!((&claims["iss"], &claims["tid"]), (&json!("http://id.test/t/acme"), &made["id"]));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);

    // The name is the slug unless one is given.
    assert_eq!(caller.post("/v1/tenants", json!({ "slug": "b" })).await.json()["name"], "b");
    assert_eq!(default.audit("tenant.create").await.len(), 1, "another tenant's making is in its own trail");
}

#[actix_web::test]
async fn the_first_key_of_a_new_tenant_comes_with_it_and_administers_it_alone() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let platform = default.app_key("platform", &["tenants:write"]).await;
    let caller = server.with(&platform.basic());
    let settings = json!({ "keys": { "default_days": 30 } });
    let answer = caller.post("/v1/tenants", json!({ "slug": "acme", "admin_key": true, "settings": settings })).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    assert_eq!(answer.header("cache-control"), "no-store");
    let made = answer.json();
    let key = &made["admin_key"];
    assert_eq!((&key["name"], &key["roles"], &key["scopes"]), (&json!("admin"), &json!(["tenant-admin"]), &json!([])));
    assert_eq!(key["expires_at"], json!(server.clock.now() + chrono::TimeDelta::days(30)), "as the new tenant's settings say");
    let (id, secret) = (key["api_key"].as_str().unwrap(), key["api_secret"].as_str().unwrap());

    // It does what an admin does there, and nothing elsewhere.
    let admin = server.with(&support::basic(&format!("{id}:{secret}")));
    assert_eq!(admin.post("/t/acme/v1/users", json!({ "username": "alice" })).await.status, StatusCode::CREATED);
    assert_eq!(admin.get(&format!("/t/acme/v1/keys/{id}")).await.json()["verdict"], "active");
    assert_eq!(admin.get("/v1/tenants").await.status, StatusCode::FORBIDDEN);
    assert_eq!(admin.get("/t/default/v1/users").await.status, StatusCode::UNAUTHORIZED);
    let token = server.with(&format!("{id}:{secret}")).token().await;
    assert_eq!(claims(&token)["tid"], made["id"]);
    // Whoever made it sees no more of the tenant than before.
    assert_eq!(caller.get("/t/acme/v1/users").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(caller.get("/v1/tenants/acme").await.status, StatusCode::FORBIDDEN);

    let acme = tenant_of(&server, &made);
    for (action, target) in [("application.create", None), ("key.create", Some(format!("key:{id}")))] {
        let [entry] = acme.audit(action).await.try_into().unwrap();
        assert_eq!(entry.actor, format!("key:{}", platform.id), "{action}");
        assert!(target.is_none_or(|target| target == entry.target));
        assert!(!entry.detail.contains(secret));
    }

    // No such key of a tenant that is there, and none unless asked for.
    let again = caller.post("/v1/tenants", json!({ "slug": "acme", "admin_key": true })).await;
    assert_eq!((again.status, again.error().as_str()), (StatusCode::CONFLICT, "conflict"));
    assert_eq!(acme.audit("key.create").await.len(), 1);
    let without = caller.post("/v1/tenants", json!({ "slug": "b", "admin_key": false })).await.json();
    assert_eq!(without.get("admin_key"), None);
    let not_platform = admin.post("/v1/tenants", json!({ "slug": "c", "admin_key": true })).await;
    assert_eq!(not_platform.status, StatusCode::FORBIDDEN);
}

#[actix_web::test]
async fn settings_are_replaced_whole_and_counted_at_once() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let admin = default.admin().await;
    let caller = server.with(&admin.basic());
    let acme = server.tenant("acme").await;
    let key = acme.user_key("foo", &[]).await;
    let life = async || {
        server.settle().await;
        let claims = claims(&server.with(&key.pair()).token().await);
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap()
    };
    assert_eq!(life().await, 86_400);
    let changed = caller.patch("/v1/tenants/acme", json!({ "settings": { "token_lifetime": 60 } })).await;
    assert_eq!((changed.status, &changed.json()["settings"]), (StatusCode::OK, &json!({ "token_lifetime": 60 })));
    assert_eq!(life().await, 60);
    assert_eq!(
        caller.patch("/v1/tenants/acme", json!({ "name": "Acme" })).await.json()["settings"],
        json!({ "token_lifetime": 60 })
    );
    let throttle = json!({ "settings": { "throttle": { "failures": 1, "window": 10 } } });
    assert_eq!(caller.patch("/v1/tenants/acme", throttle.clone()).await.json()["settings"], throttle["settings"]);
    assert_eq!(life().await, 86_400);
    assert_eq!(acme.audit("tenant.update").await.len(), 3);
    for (settings, field) in [
        (json!({ "throttle": { "failures": 0, "window": 10 } }), "throttle"),
        (json!({ "throttle": { "failures": 1001, "window": 10 } }), "throttle"),
        (json!({ "throttle": { "failures": 1, "window": 0 } }), "throttle"),
        (json!({ "throttle": { "failures": 1, "window": 86_401 } }), "throttle"),
        (json!({ "throttle": { "failures": -1, "window": 1 } }), "settings.throttle.failures"),
        (json!({ "throttle": { "failures": 1 } }), "window"),
        (json!({ "throttle": { "failures": 1, "window": 1, "burst": 1 } }), "burst"),
        (json!({ "token_lifetime": 4 }), "token_lifetime"),
        (json!({ "no_such_setting": true }), "no_such_setting"),
        (json!("all"), "settings"),
    ] {
        let answer = caller.patch("/v1/tenants/acme", json!({ "settings": settings })).await;
        assert_eq!(answer.wrong_field(), field, "{settings}");
    }
    assert_eq!(caller.get("/v1/tenants/acme").await.json()["settings"], throttle["settings"]);
}

#[actix_web::test]
async fn lists_stand_for_objects_nowhere() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let admin = default.admin().await;
    let caller = server.with(&admin.basic());
    server.tenant("acme").await;
    let settings = json!({ "settings": { "token_lifetime": 60 } });
    assert_eq!(caller.patch("/v1/tenants/acme", settings).await.status, StatusCode::OK);
    for body in [
        json!([]),
        json!(["n", null, null]),
        json!({ "settings": [] }),
        json!({ "settings": [700] }),
        json!({ "settings": { "throttle": [1, 1] } }),
    ] {
        let answer = caller.patch("/v1/tenants/acme", body.clone()).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {}", answer.text);
    }
    let answer = caller.post("/v1/tenants", json!(["listed", null, {}])).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.text);
    assert_eq!(caller.get("/v1/tenants/acme").await.json()["settings"], json!({ "token_lifetime": 60 }));
}

#[actix_web::test]
async fn a_slug_is_plain_and_never_given_twice() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let admin = default.admin().await;
    let caller = server.with(&admin.basic());
    for slug in ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", "\u{e9}", "a b", "a\u{0}", &"a".repeat(64)] {
        assert_eq!(caller.post("/v1/tenants", json!({ "slug": slug })).await.wrong_field(), "slug", "{slug:?}");
    }
    let longest = "a".repeat(63);
    for slug in ["a", "0", "a-1", longest.as_str()] {
        assert_eq!(caller.post("/v1/tenants", json!({ "slug": slug })).await.status, StatusCode::CREATED, "{slug}");
    }
    for slug in ["a", "default"] {
        let answer = caller.post("/v1/tenants", json!({ "slug": slug })).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::CONFLICT, "conflict"));
    }
    assert_eq!(caller.delete("/v1/tenants/a").await.status, StatusCode::NO_CONTENT);
    assert_eq!(caller.post("/v1/tenants", json!({ "slug": "a" })).await.error(), "conflict", "tokens may still name it");
    let mut database = server.database.superuser().await;
    let (rows,): (i64,) = sqlx::query_as("SELECT count(*) FROM tenants").fetch_one(&mut database).await.unwrap();
    assert_eq!(rows, 5, "what was refused left nothing");
}

#[actix_web::test]
async fn p29_what_is_not_the_callers_to_set_is_refused_and_never_applied() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let admin = default.admin().await;
    let caller = server.with(&admin.basic());
    server.tenant("acme").await;
    let before = caller.get("/v1/tenants/acme").await.json();
    for (name, value) in [
        ("id", json!("00000000-0000-4000-8000-000000000000")),
        ("status", json!("active")),
        ("created_at", json!("2020-01-01T00:00:00Z")),
        ("created_by", json!("operator:cli")),
        ("deleted_at", Value::Null),
        ("issuer", json!("https://evil.example")),
        ("signing_key", json!("x")),
        ("is_default", json!(true)),
    ] {
        assert_eq!(caller.post("/v1/tenants", json!({ "slug": "new", name: value })).await.wrong_field(), name);
        assert_eq!(caller.patch("/v1/tenants/acme", json!({ name: value })).await.wrong_field(), name);
    }
    assert_eq!(caller.patch("/v1/tenants/acme", json!({ "slug": "renamed" })).await.wrong_field(), "slug");
    assert_eq!(caller.post("/v1/tenants", json!({})).await.wrong_field(), "slug");
    for name in ["", " ", "a\nb", &"a".repeat(201)] {
        assert_eq!(caller.patch("/v1/tenants/acme", json!({ "name": name })).await.wrong_field(), "name");
    }
    let twins = caller.request(Method::POST, "/v1/tenants").header("Content-Type", "application/json");
    assert_eq!(send(twins.body(r#"{"slug":"new","slug":"newer"}"#)).await.wrong_field(), "slug");
    assert_eq!(caller.get("/v1/tenants/acme").await.json(), before);
    assert_eq!(caller.get("/v1/tenants").await.json()["items"].as_array().unwrap().len(), 2);
}

#[actix_web::test]
async fn tenants_are_listed_in_pages_without_the_deleted() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let admin = default.admin().await;
    let caller = server.with(&admin.basic());
    for n in 0..6 {
        server.tenant(&format!("t{n}")).await;
    }
    assert_eq!(caller.delete("/v1/tenants/t3").await.status, StatusCode::NO_CONTENT);
    for limit in [1, 2, 6, 200] {
        let (mut slugs, mut after) = (Vec::new(), String::new());
        loop {
            let page = caller.get(&format!("/v1/tenants?limit={limit}{after}")).await.json();
            slugs.extend(page["items"].as_array().unwrap().iter().map(|item| item["slug"].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        assert_eq!(slugs, ["default", "t0", "t1", "t2", "t4", "t5"], "pages of {limit}");
    }
    for (query, field) in [("limit=0", "limit"), ("limit=201", "limit"), ("after=No%20slug", "after"), ("x=1", "x")] {
        assert_eq!(caller.get(&format!("/v1/tenants?{query}")).await.wrong_field(), field, "{query}");
    }
}

#[actix_web::test]
async fn a_disabled_tenant_acts_no_more_but_its_keys_stay_published() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let admin = default.admin().await;
    let caller = server.with(&admin.basic());
    let acme = server.tenant("acme").await;
    let key = acme.admin().await;
    let token = server.with(&key.pair()).token().await;
    let jwks = server.anonymous().get("/t/acme/.well-known/jwks.json").await.json();
    let disabled = caller.patch("/v1/tenants/acme", json!({ "disabled": true })).await;
    assert_eq!((disabled.status, &disabled.json()["status"]), (StatusCode::OK, &json!("disabled")));
    server.settle().await;
    assert_eq!(server.with(&key.pair()).post_empty(EXCHANGE).await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.with(&key.basic()).get("/v1/users").await.error(), "unauthenticated");
    assert_eq!(server.with(&format!("Bearer {token}")).get("/v1/users").await.error(), "invalid_token");
    assert_eq!(server.anonymous().get("/t/acme/.well-known/jwks.json").await.json(), jwks);
    assert_eq!(caller.get("/v1/tenants/acme").await.json()["status"], "disabled");

    let enabled = caller.patch("/v1/tenants/acme", json!({ "disabled": false })).await;
    assert_eq!(enabled.json()["status"], "active");
    server.settle().await;
    assert_eq!(server.with(&format!("Bearer {token}")).get("/v1/users").await.status, StatusCode::OK);
    assert_eq!((acme.audit("tenant.disable").await.len(), acme.audit("tenant.enable").await.len()), (1, 1));
    assert_eq!(acme.audit("tenant.disable").await[0].actor, format!("key:{}", admin.id));
}

#[actix_web::test]
async fn a_deleted_tenant_is_gone_for_good_and_its_trail_stays() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let admin = default.admin().await;
    let caller = server.with(&admin.basic());
    let acme = server.tenant("acme").await;
    let key = acme.admin().await;
    let token = server.with(&key.pair()).token().await;
    let deleted = caller.delete("/v1/tenants/acme").await;
    assert_eq!((deleted.status, deleted.text.as_str()), (StatusCode::NO_CONTENT, ""));
    server.settle().await;
    let absent = caller.get("/v1/tenants/nowhere").await.told();
    assert!(absent.starts_with("404"));
    assert_eq!(caller.get("/v1/tenants/acme").await.told(), absent);
    assert_eq!(caller.delete("/v1/tenants/acme").await.told(), absent);
    assert_eq!(caller.patch("/v1/tenants/acme", json!({ "disabled": false })).await.told(), absent);
    assert_eq!(caller.get("/v1/tenants/No%20slug%00").await.told(), absent);
    for path in ["/.well-known/jwks.json", "/.well-known/oauth-authorization-server", "/v1/public-key"] {
        let nowhere = server.anonymous().get(&format!("/t/nowhere{path}")).await;
        assert_eq!(server.anonymous().get(&format!("/t/acme{path}")).await.told(), nowhere.told(), "{path}");
    }
    assert_eq!(server.with(&key.pair()).post_empty(EXCHANGE).await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.with(&format!("Bearer {token}")).get("/v1/me").await.error(), "invalid_token");
    assert_eq!(acme.audit("tenant.delete").await.len(), 1);
}

#[actix_web::test]
async fn the_default_tenant_cannot_be_locked_out() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let admin = default.admin().await;
    let caller = server.with(&admin.basic());
    for answer in [
        caller.patch("/v1/tenants/default", json!({ "disabled": true })).await,
        caller.patch("/v1/tenants/default", json!({ "name": "n", "disabled": true })).await,
        caller.delete("/v1/tenants/default").await,
    ] {
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::CONFLICT, "conflict"));
    }
    assert_eq!(caller.get("/v1/tenants/default").await.json()["name"], "default", "nothing of a refused change is done");
    assert_eq!(caller.patch("/v1/tenants/default", json!({ "disabled": false })).await.status, StatusCode::OK);
    assert!(default.audit("tenant.disable").await.is_empty());
}
