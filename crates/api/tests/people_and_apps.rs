//! Users and applications of a tenant: made, listed, shown, changed, disabled, deleted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use std::collections::BTreeSet;

use claviger_store::id::{ApplicationId, Owner, UserId};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::operations::ABSENT_UUID;
use support::wire::send;
use support::{Client, Key, Server, Tenant};

/// A tenant and its admin.
async fn scene(server: &Server) -> (Tenant<'_>, Key) {
    let tenant = server.default_tenant().await;
    let admin = tenant.admin().await;
    (tenant, admin)
}

async fn make(caller: &Client<'_>, path: &str, body: Value) -> Value {
    let answer = caller.post(path, body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    assert_eq!(answer.header("cache-control"), "no-store");
    answer.json()
}

fn id(view: &Value) -> &str {
    view["id"].as_str().unwrap()
}

/// All items of a list, in pages of this size.
async fn pages(caller: &Client<'_>, path: &str, limit: usize) -> Vec<Value> {
    let (mut items, mut after) = (Vec::new(), String::new());
    loop {
        let answer = caller.get(&format!("{path}?limit={limit}{after}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let page = answer.json();
        let found = page["items"].as_array().unwrap().clone();
        assert!(found.len() <= limit);
        items.extend(found);
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return items,
        }
    }
}

#[actix_web::test]
async fn a_user_is_made_shown_changed_and_deleted() {
    let server = Server::start().await;
    let (tenant, admin) = scene(&server).await;
    let caller = server.with(&admin.basic());
    let made = make(&caller, "/v1/users", json!({ "username": "Alice", "email": " Dev@Example.COM " })).await;
    let path = format!("/v1/users/{}", id(&made));
    let expected = json!({
        "id": id(&made), "username": "Alice", "email": "dev@example.com", "roles": [], "scopes": [], "attributes": {}, "status": "active", "created_at": json!(server.clock.now()),
    });
    assert_eq!(made, expected);
    assert_eq!(caller.get(&path).await.json(), expected);
    let entry = tenant.audit("user.create").await.remove(0);
    assert_eq!((entry.target.as_str(), entry.outcome.as_str()), (format!("user:{}", id(&made)).as_str(), "ok"));
    assert_eq!(entry.actor, format!("key:{}", admin.id));
    assert!(!entry.detail.contains("dev@example.com"), "what is personal is not in the chain");

    // The address: changed, removed, left alone.
    let changed = caller.patch(&path, json!({ "email": "New@Example.com" })).await;
    assert_eq!((changed.status, &changed.json()["email"]), (StatusCode::OK, &json!("new@example.com")));
    assert_eq!(caller.patch(&path, json!({ "disabled": true })).await.json()["email"], "new@example.com");
    assert_eq!(caller.patch(&path, json!({ "email": null })).await.json()["email"], Value::Null);
    assert_eq!(tenant.audit("user.update").await.len(), 2);
    assert_eq!(caller.get(&path).await.json()["status"], "disabled");
    assert_eq!(caller.patch(&path, json!({ "disabled": true })).await.status, StatusCode::OK);
    assert_eq!(tenant.audit("user.disable").await.len(), 1, "a switch that was thrown is not thrown again");
    assert_eq!(caller.patch(&path, json!({ "disabled": false })).await.json()["status"], "active");
    assert_eq!(tenant.audit("user.enable").await.len(), 1);

    let with_email = make(&caller, "/v1/users", json!({ "username": "bob", "email": "bob@example.com" })).await;
    let bob = format!("/v1/users/{}", id(&with_email));
    let deleted = caller.delete(&bob).await;
    assert_eq!((deleted.status, deleted.text.as_str()), (StatusCode::NO_CONTENT, ""));
    let absent = caller.get(&format!("/v1/users/{ABSENT_UUID}")).await.told();
    assert_eq!(caller.get(&bob).await.told(), absent);
    assert_eq!(caller.delete(&bob).await.told(), absent);
    assert_eq!(caller.patch(&bob, json!({ "disabled": false })).await.told(), absent);
    assert_eq!(caller.patch(&bob, json!({ "email": "bob@example.com" })).await.told(), absent);
    assert_eq!(tenant.audit("user.delete").await.len(), 1);
    let mut database = server.database.superuser().await;
    let (email, by): (Option<String>, Option<String>) =
        sqlx::query_as("SELECT email, deleted_by FROM users WHERE username = 'bob'").fetch_one(&mut database).await.unwrap();
    assert_eq!((email, by), (None, Some(format!("key:{}", admin.id))), "the address is forgotten");
    // Her address is free again, his name is not: a name names one person for ever.
    make(&caller, "/v1/users", json!({ "username": "bob2", "email": "bob@example.com" })).await;
    assert_eq!(caller.post("/v1/users", json!({ "username": "BOB" })).await.error(), "conflict");
}

#[actix_web::test]
async fn names_and_addresses_are_unique_whatever_their_case() {
    let server = Server::start().await;
    let (tenant, admin) = scene(&server).await;
    let caller = server.with(&admin.basic());
    make(&caller, "/v1/users", json!({ "username": "alice", "email": "a@example.com" })).await;
    let bob = make(&caller, "/v1/users", json!({ "username": "bob" })).await;
    for body in
        [json!({ "username": "alice" }), json!({ "username": "ALICE" }), json!({ "username": "carol", "email": "A@EXAMPLE.com" })]
    {
        let answer = caller.post("/v1/users", body.clone()).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::CONFLICT, "conflict"), "{body}");
    }
    let path = format!("/v1/users/{}", id(&bob));
    assert_eq!(caller.patch(&path, json!({ "email": "a@example.com" })).await.error(), "conflict");
    assert_eq!(caller.get(&path).await.json()["email"], Value::Null);
    assert_eq!(tenant.audit("user.create").await.len(), 2);
    // Names are letters of any script, so "whatever its case" must hold for any script.
    make(&caller, "/v1/users", json!({ "username": "\u{e4}rger" })).await;
    let answer = caller.post("/v1/users", json!({ "username": "\u{c4}rger" })).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
}

#[actix_web::test]
async fn an_application_is_made_shown_changed_and_deleted() {
    let server = Server::start().await;
    let (tenant, admin) = scene(&server).await;
    let caller = server.with(&admin.basic());
    let made = make(&caller, "/v1/applications", json!({ "name": "Portal", "token_lifetime": 60 })).await;
    let path = format!("/v1/applications/{}", id(&made));
    let expected = json!({
        "id": id(&made), "name": "Portal", "token_lifetime": 60, "scopes": null, "roles": [], "status": "active", "created_at": json!(server.clock.now()),
    });
    assert_eq!(made, expected);
    assert_eq!(caller.get(&path).await.json(), expected);
    assert_eq!(tenant.audit("application.create").await[0].target, format!("application:{}", id(&made)));

    assert_eq!(caller.patch(&path, json!({ "name": "Renamed" })).await.json()["token_lifetime"], 60);
    let changed = caller.patch(&path, json!({ "token_lifetime": null })).await.json();
    assert_eq!((&changed["name"], &changed["token_lifetime"]), (&json!("Renamed"), &Value::Null));
    assert_eq!(tenant.audit("application.update").await.len(), 2);
    assert_eq!(caller.patch(&path, json!({ "disabled": true })).await.json()["status"], "disabled");
    assert_eq!(caller.patch(&path, json!({ "disabled": false })).await.json()["status"], "active");
    assert_eq!((tenant.audit("application.disable").await.len(), tenant.audit("application.enable").await.len()), (1, 1));

    let taken = caller.post("/v1/applications", json!({ "name": "Renamed" })).await;
    assert_eq!((taken.status, taken.error().as_str()), (StatusCode::CONFLICT, "conflict"));
    let other = make(&caller, "/v1/applications", json!({ "name": "Other" })).await;
    let other_path = format!("/v1/applications/{}", id(&other));
    assert_eq!(caller.patch(&other_path, json!({ "name": "Renamed" })).await.error(), "conflict");
    assert_eq!(caller.get(&other_path).await.json()["name"], "Other");

    let key = tenant.key_of(Owner::Application(ApplicationId(id(&made).parse().unwrap())), &["events:read"]).await;
    let token = server.with(&key.pair()).token().await;
    assert_eq!(caller.delete(&path).await.status, StatusCode::NO_CONTENT);
    server.settle().await;
    assert_eq!(server.with(&key.pair()).post_empty("/v1/authentications").await.status, StatusCode::NOT_FOUND);
    assert_eq!(caller.introspect("/v1/introspect", &token).await.json(), json!({ "active": false }));
    let absent = caller.get(&format!("/v1/applications/{ABSENT_UUID}")).await.told();
    assert_eq!(caller.get(&path).await.told(), absent);
    assert_eq!(caller.delete(&path).await.told(), absent);
    assert_eq!(caller.patch(&path, json!({ "name": "back" })).await.told(), absent);
    assert_eq!(tenant.audit("application.delete").await.len(), 1);
    // An application is no person: its name is free again.
    make(&caller, "/v1/applications", json!({ "name": "Renamed" })).await;
}

#[actix_web::test]
async fn a_deleted_persons_keys_and_tokens_die_and_no_new_key_can_be_made() {
    let server = Server::start().await;
    let (tenant, admin) = scene(&server).await;
    let caller = server.with(&admin.basic());
    let key = tenant.user_key("alice", &["users:read"]).await;
    let token = server.with(&key.pair()).token().await;
    assert_eq!(caller.delete(&format!("/v1/users/{}", key.subject())).await.status, StatusCode::NO_CONTENT);
    server.settle().await;
    assert_eq!(server.with(&key.pair()).post_empty("/v1/authentications").await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.with(&key.basic()).get("/v1/users").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(server.with(&format!("Bearer {token}")).get("/v1/users").await.error(), "invalid_token");
    assert_eq!(caller.introspect("/v1/introspect", &token).await.json(), json!({ "active": false }));
    let order = json!({ "user_id": key.subject(), "name": "again", "scopes": [] });
    assert_eq!(caller.post("/v1/keys", order).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[actix_web::test]
async fn lists_come_in_pages_without_gaps_and_without_the_deleted() {
    let server = Server::start().await;
    let (_tenant, admin) = scene(&server).await;
    let caller = server.with(&admin.basic());
    for (path, field) in [("/v1/users", "username"), ("/v1/applications", "name")] {
        let before: BTreeSet<String> = pages(&caller, path, 200).await.iter().map(|item| id(item).to_owned()).collect();
        let mut expected = before.clone();
        for n in 0..7 {
            expected.insert(id(&make(&caller, path, json!({ field: format!("n{n}") })).await).to_owned());
        }
        let gone = make(&caller, path, json!({ field: "gone" })).await;
        assert_eq!(caller.delete(&format!("{path}/{}", id(&gone))).await.status, StatusCode::NO_CONTENT);
        for limit in [1, 3, 7, 200] {
            let items = pages(&caller, path, limit).await;
            let ids: Vec<&str> = items.iter().map(id).collect();
            assert!(ids.is_sorted(), "{path} in pages of {limit}");
            assert_eq!(ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>(), expected, "{path} in pages of {limit}");
            assert_eq!(ids.len(), expected.len());
        }
        for (query, named) in [
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit=x", ""),
            ("after=x", "after"),
            ("admin=1", "admin"),
            ("after=", "after"),
        ] {
            assert_eq!(caller.get(&format!("{path}?{query}")).await.wrong_field(), named, "{path}?{query}");
        }
    }
}

#[actix_web::test]
async fn a_wrong_field_is_422_and_named() {
    let server = Server::start().await;
    let (tenant, admin) = scene(&server).await;
    let caller = server.with(&admin.basic());
    let user = make(&caller, "/v1/users", json!({ "username": "alice", "email": "a@example.com" })).await;
    let user = format!("/v1/users/{}", id(&user));
    for username in ["", " ", "a b", "a/b", "a\n", "a\u{0}b", "<b>", "a'b", "\u{202e}evil", "a:b", &"a".repeat(129)] {
        let answer = caller.post("/v1/users", json!({ "username": username })).await;
        assert_eq!(answer.wrong_field(), "username", "{username:?}");
    }
    for email in [
        "",
        "a",
        "@b.c",
        "a@",
        "a@b@c",
        "a b@c.d",
        "a@b..c",
        "a@b\nBcc: x@y",
        "\"a\"@b.c",
        "a@b>,<c@d",
        &format!("{}@b.c", "a".repeat(260)),
    ] {
        let answer = caller.post("/v1/users", json!({ "username": "x", "email": email })).await;
        assert_eq!(answer.wrong_field(), "email", "{email:?}");
        assert_eq!(caller.patch(&user, json!({ "email": email })).await.wrong_field(), "email", "{email:?}");
    }
    for name in ["", "  ", "a\tb", "a\u{0}b", "\u{1b}[31m", &"a".repeat(201)] {
        assert_eq!(caller.post("/v1/applications", json!({ "name": name })).await.wrong_field(), "name", "{name:?}");
    }
    for (path, body, field) in [
        ("/v1/users", json!({}), "username"),
        ("/v1/users", json!({ "username": null }), "username"),
        ("/v1/users", json!({ "username": ["a"] }), "username"),
        ("/v1/users", json!({ "username": "x", "email": 1 }), "email"),
        ("/v1/applications", json!({}), "name"),
        ("/v1/applications", json!({ "name": {} }), "name"),
        ("/v1/applications", json!({ "name": "x", "token_lifetime": 4 }), "token_lifetime"),
    ] {
        assert_eq!(caller.post(path, body.clone()).await.wrong_field(), field, "{body}");
    }
    for body in [json!({ "disabled": "true" }), json!({ "disabled": 1 })] {
        assert_eq!(caller.patch(&user, body).await.wrong_field(), "disabled");
    }
    for (path, text) in
        [("/v1/users", r#"{"username":"x","username":"y"}"#), ("/v1/users", r#"{"username":"x","user\u006eame":"y"}"#)]
    {
        let request = caller.request(Method::POST, path).header("Content-Type", "application/json").body(text);
        assert_eq!(send(request).await.wrong_field(), "username", "p42: twins are refused");
    }
    assert_eq!(tenant.audit("user.create").await.len(), 1);
    assert_eq!(tenant.audit("application.create").await.len(), 1, "the admin's own");
    // Ids that are none are the ids of nobody.
    let absent = caller.get(&format!("/v1/users/{ABSENT_UUID}")).await.told();
    for odd in ["x", "1", "%00", "..%2F..", "'--", &"9".repeat(500), "00000000-0000-4000-8000-00000000000g"] {
        assert_eq!(caller.get(&format!("/v1/users/{odd}")).await.told(), absent, "{odd}");
    }
}

#[actix_web::test]
async fn p29_what_is_not_the_callers_to_set_is_refused_and_never_applied() {
    let server = Server::start().await;
    let (tenant, admin) = scene(&server).await;
    let other = server.tenant("other").await;
    let caller = server.with(&admin.basic());
    let user = make(&caller, "/v1/users", json!({ "username": "alice" })).await;
    let application = make(&caller, "/v1/applications", json!({ "name": "Portal" })).await;
    for (path, valid, made) in
        [("/v1/users", json!({ "username": "x" }), &user), ("/v1/applications", json!({ "name": "x" }), &application)]
    {
        let one = format!("{path}/{}", id(made));
        for (name, value) in [
            ("tenant_id", json!(other.id)),
            ("tenant", json!("other")),
            ("id", json!(ABSENT_UUID)),
            ("status", json!("active")),
            ("created_at", json!("2020-01-01T00:00:00Z")),
            ("created_by", json!("operator:cli")),
            ("deleted_at", Value::Null),
            ("roles", json!(["admin"])),
            ("is_admin", json!(true)),
            ("scopes", json!(["tenants:write"])),
        ] {
            if ["roles", "scopes"].contains(&name) {
                // Those are its admins' to set, as far as they hold them themselves.
                let admin = if name == "roles" { json!(["tenant-admin"]) } else { value.clone() };
                let clerk = tenant.app_key(&format!("clerk {path} {name}"), &["users:write", "applications:write"]).await;
                let caller = server.with(&clerk.basic());
                let mut body = valid.clone();
                body[name] = admin.clone();
                assert_eq!(caller.post(path, body).await.error(), "insufficient_scope", "{path} {name}");
                assert_eq!(caller.patch(&one, json!({ name: admin })).await.error(), "insufficient_scope", "{path} {name}");
                continue;
            }
            let mut body = valid.clone();
            body[name] = value.clone();
            assert_eq!(caller.post(path, body).await.wrong_field(), name, "{path}");
            assert_eq!(caller.patch(&one, json!({ name: value })).await.wrong_field(), name, "{path}");
        }
        assert_eq!(caller.get(&one).await.json(), *made);
    }
    // A name never changes: tokens and audit entries are read by it.
    assert_eq!(caller.patch(&format!("/v1/users/{}", id(&user)), json!({ "username": "root" })).await.wrong_field(), "username");
    // Nobody is born disabled.
    assert_eq!(caller.post("/v1/users", json!({ "username": "x", "disabled": true })).await.wrong_field(), "disabled");
    assert!(server.issuer.list_users(other.id, None, 10).await.unwrap().is_empty());
    assert_eq!(tenant.audit("user.create").await.len(), 1);
    assert!(tenant.audit("user.update").await.is_empty());
    assert!(server.issuer.find_user(tenant.id, UserId(ABSENT_UUID.parse().unwrap())).await.is_err());
}

#[actix_web::test]
async fn a_list_instead_of_an_object_is_422() {
    let server = Server::start().await;
    let (tenant, admin) = scene(&server).await;
    let caller = server.with(&admin.basic());
    for (path, body) in [("/v1/users", json!(["mallory", null])), ("/v1/applications", json!(["mallory", null]))] {
        let answer = caller.post(path, body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.text);
    }
    assert!(tenant.audit("user.create").await.is_empty());
}
