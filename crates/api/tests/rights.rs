//! Who may do what: catalogue, roles, what a key may do of what its owner may, and who gives what to whom.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod support;

use claviger_issuer::application::NewApplication;
use claviger_issuer::audit::Actor;
use claviger_issuer::scope::MANAGEMENT;
use claviger_issuer::settings::TenantSettings;
use claviger_store::id::Owner;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Client, Key, Server, Tenant, claims};

const PASSWORD: &str = "correct horse battery staple";

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// The scopes of a token, in order.
fn scope_of(token: &str) -> String {
    claims(token)["scope"].as_str().unwrap_or_default().to_owned()
}

async fn exchanged(server: &Server, key: &Key) -> String {
    server.with(&key.pair()).token().await
}

/// What `GET /v1/me` says that this credential may do now.
async fn may(server: &Server, authorization: &str) -> String {
    server.with(authorization).get("/v1/me").await.json()["scope"].as_str().unwrap().to_owned()
}

async fn role(caller: &Client<'_>, name: &str, scopes: &[&str]) {
    let answer = caller.post("/v1/roles", json!({ "name": name, "scopes": scopes })).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
}

#[actix_web::test]
async fn a_role_is_made_shown_changed_and_removed() {
    let server = Server::start().await;
    let tenant = server.default_tenant().await;
    let admin = tenant.admin().await;
    let caller = server.with(&admin.basic());
    let body = json!({ "name": "editor", "description": "Writes events", "scopes": ["events:*", "memory:read", "memory:read"] });
    let made = caller.post("/v1/roles", body.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.json()["scopes"], json!(["events:*", "memory:read"]));
    assert_eq!(made.json()["built_in"], false);
    assert_eq!(caller.post("/v1/roles", body).await.status, StatusCode::CONFLICT);
    assert_eq!(caller.get("/v1/roles/editor").await.json(), made.json());
    let listed = caller.get("/v1/roles").await.json();
    assert_eq!(listed["items"][0]["name"], "tenant-admin");
    assert_eq!(listed["items"][0]["built_in"], true);
    assert_eq!(listed["items"][1], made.json());
    // What a role names has entered the catalogue; a pattern is no scope.
    let catalogue = caller.get("/v1/scopes").await.json();
    let names: Vec<&str> = catalogue["items"].as_array().unwrap().iter().map(|scope| scope["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["memory:read"]);
    assert_eq!(caller.get("/v1/available-permissions").await.json(), json!({ "memory": ["read"] }));

    let changed = caller.patch("/v1/roles/editor", json!({ "scopes": [] })).await;
    assert_eq!((changed.status, &changed.json()["scopes"]), (StatusCode::OK, &json!([])));
    assert_eq!(changed.json()["description"], "Writes events");
    assert_eq!(tenant.audit("role.update").await.len(), 1);

    let user = tenant.user("alice", None).await;
    let user = format!("/v1/users/{user}");
    assert_eq!(caller.patch(&user, json!({ "roles": ["editor"] })).await.status, StatusCode::OK);
    assert_eq!(caller.delete("/v1/roles/editor").await.status, StatusCode::CONFLICT, "somebody has it");
    assert_eq!(caller.patch(&user, json!({ "roles": [] })).await.status, StatusCode::OK);
    assert_eq!(caller.delete("/v1/roles/editor").await.status, StatusCode::NO_CONTENT);
    assert_eq!(caller.get("/v1/roles/editor").await.status, StatusCode::NOT_FOUND);
    assert_eq!(caller.delete("/v1/roles/editor").await.status, StatusCode::NOT_FOUND);
    for (method, path) in [("patch", "/v1/roles/tenant-admin"), ("delete", "/v1/roles/tenant-admin")] {
        let answer =
            if method == "patch" { caller.patch(path, json!({ "scopes": [] })).await } else { caller.delete(path).await };
        assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
    }
    for bad in ["", "a b", "ä", &"x".repeat(65)] {
        assert_eq!(caller.post("/v1/roles", json!({ "name": bad, "scopes": [] })).await.wrong_field(), "name");
    }
    for bad in ["events", "events:", "*", "ev*:read", "a:b:c"] {
        assert_eq!(caller.post("/v1/roles", json!({ "name": "r", "scopes": [bad] })).await.wrong_field(), "scopes");
    }
}

#[actix_web::test]
async fn changing_a_role_bites_at_once_for_a_persons_key_its_tokens_and_the_person() {
    let server = Server::start().await;
    let tenant = server.default_tenant().await;
    let admin = tenant.admin().await;
    let caller = server.with(&admin.basic());
    role(&caller, "editor", &["events:*"]).await;
    caller.post("/v1/scopes", json!({ "name": "events:read" })).await;
    caller.post("/v1/scopes", json!({ "name": "events:write" })).await;
    let body = json!({ "username": "alice", "password": PASSWORD, "roles": ["editor"] });
    let alice = caller.post("/v1/users", body).await.json();
    let order = json!({ "user_id": alice["id"], "name": "laptop", "scopes": ["events:read", "events:write"] });
    let made = caller.post("/v1/keys", order).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(caller.get(&format!("/v1/users/{}", alice["id"].as_str().unwrap())).await.json()["scopes"], json!([]));
    let pair = format!("{}:{}", made.json()["api_key"].as_str().unwrap(), made.json()["api_secret"].as_str().unwrap());
    let login = tenant.log_in("alice", PASSWORD).await;
    assert_eq!(login["scope"], "events:read events:write");
    let token = server.with(&pair).token().await;
    assert_eq!(scope_of(&token), "events:read events:write");

    assert_eq!(caller.patch("/v1/roles/editor", json!({ "scopes": ["*:read"] })).await.status, StatusCode::OK);
    assert_eq!(scope_of(&server.with(&pair).token().await), "events:read");
    assert_eq!(may(&server, &bearer(&token)).await, "events:read");
    assert_eq!(may(&server, &bearer(login["access_token"].as_str().unwrap())).await, "events:read");
    let refresh = json!({ "refresh_token": login["refresh_token"] });
    let refreshed = server.anonymous().post(&tenant.path("/v1/token/refresh"), refresh).await.json();
    assert_eq!(refreshed["scope"], "events:read");
    // Back again, and so is what stands on it: a login that asked for nothing in particular holds what its person holds.
    assert_eq!(caller.patch("/v1/roles/editor", json!({ "scopes": ["events:*"] })).await.status, StatusCode::OK);
    assert_eq!(may(&server, &bearer(refreshed["access_token"].as_str().unwrap())).await, "events:read events:write");
    // A key's token never grows beyond what it was made with.
    let narrow = server.with(&pair).post("/v1/authentications", json!({ "scope": "events:read" })).await.json();
    assert_eq!(may(&server, &bearer(narrow["jwt"].as_str().unwrap())).await, "events:read");
}

#[actix_web::test]
async fn d2_a_key_never_does_what_its_owner_may_not() {
    let server = Server::start().await;
    let tenant = server.default_tenant().await;
    let admin = tenant.admin().await;
    let caller = server.with(&admin.basic());
    // A person.
    let key = tenant.user_key("alice", &["events:read", "keys:read"]).await;
    let alice = format!("/v1/users/{}", key.subject());
    assert_eq!(caller.get(&alice).await.json()["scopes"], json!(["events:read", "keys:read"]), "given with the key");
    let token = exchanged(&server, &key).await;
    assert_eq!(server.with(&key.basic()).get("/v1/keys").await.status, StatusCode::OK);
    assert_eq!(caller.patch(&alice, json!({ "scopes": ["events:read"] })).await.status, StatusCode::OK);
    for header in [key.basic(), bearer(&token)] {
        assert_eq!(server.with(&header).get("/v1/keys").await.error(), "insufficient_scope");
        assert_eq!(may(&server, &header).await, "events:read");
    }
    let asked = server.with(&key.pair()).post("/v1/authentications", json!({ "scope": "keys:read" })).await;
    assert_eq!((asked.status, asked.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_scope"));

    // An application that is limited.
    let new = NewApplication { name: "portal".into(), scopes: Some(vec!["events:*".into()]), ..NewApplication::default() };
    let application = server.issuer.create_application(tenant.id, &Actor::operator(), new).await.unwrap().id;
    let key = tenant.key_of(Owner::Application(application), &["events:read", "events:write"]).await;
    let order = json!({ "application_id": application, "name": "more", "scopes": ["memory:read"] });
    let refused = caller.post("/v1/keys", order).await;
    assert_eq!(refused.wrong_field(), "scopes");
    assert!(refused.text.contains("memory:read"), "{}", refused.text);
    let path = format!("/v1/applications/{application}");
    assert_eq!(caller.patch(&path, json!({ "scopes": ["*:read"] })).await.status, StatusCode::OK);
    assert_eq!(scope_of(&exchanged(&server, &key).await), "events:read");
    assert_eq!(caller.patch(&path, json!({ "scopes": [] })).await.status, StatusCode::OK);
    assert_eq!(scope_of(&exchanged(&server, &key).await), "");
    assert_eq!(caller.patch(&path, json!({ "scopes": null })).await.status, StatusCode::OK);
    assert_eq!(scope_of(&exchanged(&server, &key).await), "events:read events:write");
}

#[actix_web::test]
async fn the_tenants_policy_is_a_ceiling_over_every_key() {
    let server = Server::start().await;
    server.default_tenant().await;
    let settings = TenantSettings { key_scopes: Some(vec!["events:*".into()]), ..TenantSettings::default() };
    let tenant = server.tenant_with("acme", settings).await;
    let application = tenant.application("portal").await;
    let actor = Actor::operator();
    let order = |scopes: &[&str]| claviger_issuer::key::KeyOrder {
        owner: Owner::Application(application),
        name: "key".into(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        roles: Vec::new(),
        acting: Default::default(),
        token_lifetime: None,
        refresh: false,
        expires_at: None,
        limits: claviger_issuer::limits::KeyLimits::default(),
        import: None,
    };
    assert!(server.issuer.create_key(tenant.id, &actor, order(&["memory:read"])).await.is_err());
    assert!(server.issuer.create_key(tenant.id, &actor, order(&["keys:write"])).await.is_err());
    let key = tenant.key_of(Owner::Application(application), &["events:read", "events:write"]).await;
    assert_eq!(scope_of(&exchanged(&server, &key).await), "events:read events:write");
    let settings = TenantSettings { key_scopes: Some(vec!["events:read".into()]), ..TenantSettings::default() };
    let change = claviger_issuer::tenant::TenantChange { settings: Some(settings), ..Default::default() };
    server.issuer.change_tenant(&actor, "acme", change).await.unwrap();
    assert_eq!(scope_of(&exchanged(&server, &key).await), "events:read");
}

#[actix_web::test]
async fn a_closed_catalogue_takes_no_new_names() {
    let server = Server::start().await;
    server.default_tenant().await;
    let settings = TenantSettings { closed_catalogue: true, ..TenantSettings::default() };
    let tenant = server.tenant_with("acme", settings).await;
    let admin = tenant.admin().await;
    let caller = server.with(&admin.basic());
    let application = tenant.application("portal").await;
    let order = json!({ "application_id": application, "name": "k", "scopes": ["events:raed"] });
    let refused = caller.post("/v1/keys", order).await;
    assert_eq!(refused.wrong_field(), "scopes");
    assert!(refused.text.contains("events:raed"), "{}", refused.text);
    assert_eq!(caller.post("/v1/scopes", json!({ "name": "events:read" })).await.status, StatusCode::CREATED);
    assert_eq!(caller.post("/v1/scopes", json!({ "name": "events:read", "description": "x" })).await.status, StatusCode::OK);
    let order = json!({ "application_id": application, "name": "k", "scopes": ["events:read"] });
    assert_eq!(caller.post("/v1/keys", order).await.status, StatusCode::CREATED);
    assert_eq!(caller.delete("/v1/scopes/events:read").await.status, StatusCode::CONFLICT, "a key names it");
    assert_eq!(caller.post("/v1/scopes", json!({ "name": "keys:write" })).await.status, StatusCode::CONFLICT);
    assert_eq!(caller.post("/v1/scopes", json!({ "name": "events:*" })).await.wrong_field(), "name");
}

/// Logs in, and returns the `Authorization` that it gives.
async fn signed_in(tenant: &Tenant<'_>, username: &str) -> String {
    bearer(tenant.log_in(username, PASSWORD).await["access_token"].as_str().unwrap())
}

#[actix_web::test]
async fn a_person_with_the_role_tenant_admin_manages_their_tenant_alone() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let acme = server.tenant("acme").await;
    for tenant in [&default, &acme] {
        let admin = tenant.admin().await;
        let body = json!({ "username": "boss", "password": PASSWORD, "roles": ["tenant-admin"] });
        let path = tenant.path("/v1/users");
        // Its admin key holds all of the tenant's management, so it may give the role.
        assert_eq!(server.with(&admin.basic()).post(&path, body).await.status, StatusCode::CREATED);
    }
    let boss = signed_in(&acme, "boss").await;
    assert!(!may(&server, &boss).await.contains("tenants:"));
    assert_eq!(server.with(&boss).get("/v1/users").await.json()["items"].as_array().unwrap().len(), 1);
    assert_eq!(server.with(&boss).get("/v1/audit").await.status, StatusCode::OK);
    assert_eq!(server.with(&boss).get("/t/default/v1/users").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(server.with(&boss).get("/v1/tenants").await.error(), "insufficient_scope");
    let platform = signed_in(&default, "boss").await;
    assert_eq!(server.with(&platform).get("/v1/tenants").await.status, StatusCode::OK);
    // A narrowed login is no admin, and never becomes one.
    let body = json!({ "username": "boss", "password": PASSWORD, "scope": "users:read" });
    let narrow = server.anonymous().post(&acme.path("/v1/login"), body).await.json();
    assert_eq!(narrow["scope"], "users:read");
    let narrow = bearer(narrow["access_token"].as_str().unwrap());
    assert_eq!(server.with(&narrow).get("/v1/audit").await.error(), "insufficient_scope");
    assert_eq!(server.with(&narrow).get("/v1/users").await.status, StatusCode::OK);
    let body = json!({ "username": "boss", "password": PASSWORD, "scope": "tenants:write" });
    assert_eq!(server.anonymous().post(&acme.path("/v1/login"), body).await.error(), "invalid_scope");
}

#[actix_web::test]
async fn p33_nobody_gives_more_than_they_hold_by_any_way() {
    let server = Server::start().await;
    let tenant = server.default_tenant().await;
    let admin = tenant.admin().await;
    let boss = server.with(&admin.basic());
    role(&boss, "boss", &["users:write", "keys:write"]).await;
    role(&boss, "wide", &["*:*"]).await;
    let clerk = tenant.app_key("clerk", &["users:write", "users:read", "keys:write", "applications:write", "events:read"]).await;
    let clerk = server.with(&clerk.basic());
    let powerful = tenant.user("powerful", Some(PASSWORD)).await;
    let powerful = format!("/v1/users/{powerful}");
    assert_eq!(boss.patch(&powerful, json!({ "scopes": ["audit:read"] })).await.status, StatusCode::OK);
    let alice = tenant.user("alice", Some(PASSWORD)).await;
    let application = tenant.application("portal").await;
    let open = tenant.key_of(Owner::Application(application), &["memory:read"]).await;
    let alice_path = format!("/v1/users/{alice}");
    let refused: Vec<(&str, String, Value)> = vec![
        ("post", "/v1/users".into(), json!({ "username": "eve", "roles": ["tenant-admin"] })),
        ("post", "/v1/users".into(), json!({ "username": "eve", "roles": ["wide"] })),
        ("post", "/v1/users".into(), json!({ "username": "eve", "scopes": ["audit:read"] })),
        ("post", "/v1/users".into(), json!({ "username": "eve", "scopes": ["memory:read"] })),
        ("patch", alice_path.clone(), json!({ "roles": ["tenant-admin"] })),
        ("patch", alice_path.clone(), json!({ "scopes": ["roles:write"] })),
        ("post", "/v1/keys".into(), json!({ "application_id": application, "name": "x", "scopes": ["memory:read"] })),
        ("post", "/v1/keys".into(), json!({ "application_id": application, "name": "x", "scopes": [], "roles": ["wide"] })),
        ("patch", format!("/v1/keys/{}", open.id), json!({ "roles": ["tenant-admin"] })),
        ("patch", format!("/v1/keys/{}", open.id), json!({ "scopes": ["memory:read", "memory:write"] })),
        ("post", format!("/v1/keys/{}/rotate", open.id), json!({ "grace_seconds": 0 })),
        ("patch", format!("/v1/applications/{application}"), json!({ "scopes": ["events:read"] })),
        ("post", "/v1/roles".into(), json!({ "name": "mine", "scopes": ["events:read"] })),
        // Whose password is known can be logged in as.
        ("put", format!("{powerful}/password"), json!({ "password": "a brand new passphrase" })),
    ];
    for (method, path, body) in refused {
        let answer = match method {
            "post" => clerk.post(&path, body.clone()).await,
            "put" => support::Answer::of(clerk.request(Method::PUT, &path).json(&body).send().await.unwrap()).await,
            _ => clerk.patch(&path, body.clone()).await,
        };
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::FORBIDDEN, "insufficient_scope"), "{path} {body}");
    }
    // What they hold they may give, and a word that no role has is only a word.
    assert_eq!(clerk.patch(&alice_path, json!({ "roles": ["boss", "staff"] })).await.status, StatusCode::OK);
    assert_eq!(clerk.patch(&alice_path, json!({ "scopes": ["events:read"] })).await.status, StatusCode::OK);
    // What somebody has already stays theirs when others change the rest.
    assert_eq!(clerk.patch(&powerful, json!({ "roles": ["staff"] })).await.status, StatusCode::OK);
    assert_eq!(boss.get(&powerful).await.json()["scopes"], json!(["audit:read"]));
    // With roles:write, whatever the tenant's services understand, and of the management only what they hold.
    let writer = tenant.app_key("writer", &["roles:write"]).await;
    let writer = server.with(&writer.basic());
    role(&writer, "anything", &["memory:*", "x:y"]).await;
    for scope in MANAGEMENT.into_iter().filter(|scope| *scope != "roles:write") {
        let answer = writer.post("/v1/roles", json!({ "name": "up", "scopes": [scope] })).await;
        assert_eq!(answer.error(), "insufficient_scope", "{scope}");
        let answer = writer.patch("/v1/roles/anything", json!({ "scopes": ["memory:*", scope] })).await;
        assert_eq!(answer.error(), "insufficient_scope", "{scope}");
    }
    // Giving a key to a person who lacks its scopes takes the right to give them to people.
    let keys = tenant.app_key("keys", &["keys:write", "events:read", "memory:read"]).await;
    let order = json!({ "user_id": alice, "name": "x", "scopes": ["memory:read"] });
    assert_eq!(server.with(&keys.basic()).post("/v1/keys", order).await.wrong_field(), "scopes");
}

#[actix_web::test]
async fn p30_roles_and_scopes_of_another_tenant_are_not_there() {
    let server = Server::start().await;
    server.default_tenant().await;
    let (acme, other) = (server.tenant("acme").await, server.tenant("other").await);
    let (acme_admin, other_admin) = (acme.admin().await, other.admin().await);
    role(&server.with(&acme_admin.basic()), "editor", &["events:read"]).await;
    let stranger = server.with(&other_admin.basic());
    assert_eq!(stranger.get("/v1/roles/editor").await.status, StatusCode::NOT_FOUND);
    assert_eq!(stranger.delete("/v1/roles/editor").await.status, StatusCode::NOT_FOUND);
    assert_eq!(stranger.delete("/v1/scopes/events:read").await.status, StatusCode::NOT_FOUND);
    assert_eq!(stranger.get("/v1/available-permissions").await.json(), json!({}));
    // The same name grants nothing there.
    let body = json!({ "username": "alice", "password": PASSWORD, "roles": ["editor"] });
    assert_eq!(stranger.post("/v1/users", body).await.status, StatusCode::CREATED);
    assert_eq!(other.log_in("alice", PASSWORD).await.get("scope"), None);
}
