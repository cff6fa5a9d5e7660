//! People's attributes, presets, the tenant's usual audience, and where dialects are served.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use claviger_issuer::audit::Actor;
use claviger_issuer::login::Login;
use claviger_issuer::scope::MANAGEMENT;
use claviger_issuer::settings::{RequestInfo, TenantSettings};
use claviger_issuer::tenant::NewTenant;
use claviger_issuer::user::UserChange;
use claviger_store::id::{Owner, UserId};
use reqwest::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use support::operations::dialect_operations;
use support::wire::send;
use support::{Answer, Options, Server, Tenant, claims, detail};

const PASSWORD: &str = "correct horse battery staple";

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A tenant of that preset, as the operator would make it.
async fn preset<'a>(server: &'a Server, slug: &str, preset: &str, settings: Value) -> Tenant<'a> {
    let settings: TenantSettings = serde_json::from_value(settings).unwrap();
    let new = NewTenant { slug: slug.into(), name: None, settings, preset: Some(preset.into()) };
    let id = server.issuer.create_tenant(&Actor::operator(), new).await.unwrap().id;
    Tenant { server, slug: slug.into(), id }
}

/// What `/v1/verify` answers about a token.
async fn verified(tenant: &Tenant<'_>, token: &str, require: Value) -> Value {
    let asker = tenant.app_key(&format!("asker {}", tenant.server.issuer.random().uuid()), &["verify"]).await;
    let body = json!({ "authorization": bearer(token), "require": require });
    let answer = tenant.server.with(&asker.basic()).post(&tenant.path("/v1/verify"), body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json()
}

/// An access token of a login, in the tenant's usual shape.
async fn usual_login(tenant: &Tenant<'_>, username: &str) -> String {
    let issuer = &tenant.server.issuer;
    let entry = issuer.tenant(&tenant.slug).await.unwrap().unwrap();
    let login = Login {
        tenant: &entry,
        username,
        password: SecretString::from(PASSWORD),
        scope: None,
        client: None,
        device: None,
        request: RequestInfo::new("000000000000000000000000".into(), None),
    };
    issuer.log_in_as_usual(login).await.unwrap().tokens.access_token
}

async fn give_roles(tenant: &Tenant<'_>, user: UserId, roles: &[&str]) {
    let roles = Some(roles.iter().map(|role| (*role).to_owned()).collect());
    let change = UserChange { roles, ..UserChange::default() };
    tenant.server.issuer.change_user(tenant.id, &Actor::operator(), user, change).await.unwrap();
}

#[actix_web::test]
async fn attributes_are_set_merged_listed_and_forgotten_and_the_trail_names_them_only() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let admin = tenant.admin().await;
    let caller = server.with(&admin.basic());
    let new = json!({ "username": "ada", "attributes": { "name": "Ada Lovelace", "projects": ["p1"], "old": 1 } });
    let made = caller.post(&tenant.path("/v1/users"), new).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.json()["attributes"], json!({ "name": "Ada Lovelace", "projects": ["p1"], "old": 1 }));
    let user = tenant.path(&format!("/v1/users/{}", made.json()["id"].as_str().unwrap()));

    let changed = caller.patch(&user, json!({ "attributes": { "projects": ["p2"], "old": null } })).await;
    assert_eq!(changed.json()["attributes"], json!({ "name": "Ada Lovelace", "projects": ["p2"] }), "{}", changed.text);
    assert_eq!(caller.patch(&user, json!({ "disabled": false })).await.json()["attributes"]["projects"], json!(["p2"]));
    let listed = caller.get(&tenant.path("/v1/users")).await.json();
    assert_eq!(listed["items"][0]["attributes"]["name"], "Ada Lovelace");

    for bad in [json!({ "a b": 1 }), json!({ "a": "x".repeat(5000) }), json!({ "a": [[[[[[[1]]]]]]] })] {
        let refused = caller.patch(&user, json!({ "attributes": bad })).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["field"]), (422, &json!("attributes")), "{}", refused.text);
    }
    assert_eq!(caller.patch(&user, json!({ "attributes": [] })).await.status, StatusCode::UNPROCESSABLE_ENTITY);

    let entries = tenant.audit("user.update").await;
    assert_eq!(detail(&entries[0]), json!({ "changed": ["attributes"], "attributes": ["old", "projects"] }));
    let trail = caller.get(&tenant.path("/v1/audit")).await.text;
    assert!(!trail.contains("Lovelace") && !trail.contains("p2"), "{trail}");

    assert_eq!(caller.delete(&user).await.status, StatusCode::NO_CONTENT);
    let mut database = server.database.superuser().await;
    let left: Value = sqlx::query_scalar("SELECT attributes FROM users").fetch_one(&mut database).await.unwrap();
    assert_eq!(left, json!({}));
}

#[actix_web::test]
async fn a_preset_makes_a_tenant_and_what_is_changed_by_hand_is_told_and_stays() {
    let server = Server::start().await;
    let platform = server.default_tenant().await;
    let admin = platform.admin().await;
    let caller = server.with(&admin.basic());
    let new = json!({ "slug": "cc", "preset": "clustercockpit", "settings": { "session": { "idle": 60, "absolute": 600 } } });
    let made = caller.post("/v1/tenants", new).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let made = made.json();
    assert_eq!(made["settings"]["usual_audience"], "cc-backend");
    assert_eq!(made["settings"]["session"]["absolute"], 600, "what was said wins");
    assert_eq!(made["presets"][0]["name"], "clustercockpit");
    assert_eq!(made["presets"][0]["differs"][0]["item"], "settings.session");
    assert_eq!(made["presets"][0]["differs"][0]["now"], json!({ "idle": 60, "absolute": 600 }));
    assert!(made["presets"][0]["set"].as_array().unwrap().contains(&json!("roles.manager")));

    let cc = Tenant {
        server: &server,
        slug: "cc".into(),
        id: made["id"].as_str().unwrap().parse().map(claviger_store::id::TenantId).unwrap(),
    };
    let theirs = cc.admin().await;
    let theirs = server.with(&theirs.basic());
    let roles = theirs.get(&cc.path("/v1/roles")).await.json();
    let names: Vec<&str> = roles["items"].as_array().unwrap().iter().map(|role| role["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["tenant-admin", "admin", "anonymous", "api", "manager", "support", "user"]);
    let audiences = theirs.get(&cc.path("/v1/audiences")).await.json();
    assert_eq!(audiences["items"].as_array().unwrap().len(), 3, "{audiences}");
    assert!(theirs.get(&cc.path("/v1/scopes")).await.text.contains("See the jobs that one has started"));

    // Again: nothing is done.
    let again = caller.post("/v1/tenants/cc/preset", json!({ "preset": "clustercockpit" })).await;
    assert_eq!((again.status, again.json()), (StatusCode::OK, json!({ "changed": [], "kept": ["settings.session"] })));

    // By hand: a role is changed, another removed, an audience ended.
    let change = json!({ "scopes": ["jobs:own"] });
    assert_eq!(theirs.patch(&cc.path("/v1/roles/manager"), change).await.status, StatusCode::OK);
    assert_eq!(theirs.delete(&cc.path("/v1/roles/anonymous")).await.status, StatusCode::NO_CONTENT);
    let shown = caller.get("/v1/tenants/cc").await.json();
    let differs: Vec<&str> =
        shown["presets"][0]["differs"].as_array().unwrap().iter().map(|one| one["item"].as_str().unwrap()).collect();
    assert_eq!(differs, ["roles.anonymous", "roles.manager", "settings.session"]);
    let again = caller.post("/v1/tenants/cc/preset", json!({ "preset": "clustercockpit" })).await.json();
    assert_eq!(again, json!({ "changed": [], "kept": ["roles.anonymous", "roles.manager", "settings.session"] }));
    let deed = &cc.audit("tenant.preset").await[0];
    assert_eq!(detail(deed)["preset"], "clustercockpit");

    // Into a tenant that is there, beside what it has.
    let before = json!({ "slug": "old", "settings": { "policies": { "own": { "any_of": [{}] } }, "token_lifetime": 60 } });
    assert_eq!(caller.post("/v1/tenants", before).await.status, StatusCode::CREATED);
    let applied = caller.post("/v1/tenants/old/preset", json!({ "preset": "cta" })).await.json();
    assert_eq!(applied["kept"], json!(["settings.token_lifetime"]));
    let applied = caller.post("/v1/tenants/old/preset", json!({ "preset": "clustercockpit" })).await.json();
    // The names that both presets use were there first.
    assert_eq!(applied["kept"], json!(["roles.admin", "settings.usual_audience"]));
    let shown = caller.get("/v1/tenants/old").await.json();
    assert!(shown["settings"]["policies"]["own"].is_object() && shown["settings"]["policies"]["cc-api"].is_object());
    assert_eq!(shown["presets"].as_array().unwrap().len(), 2);
    // In lists, the names alone.
    let listed = caller.get("/v1/tenants").await.json();
    let old = listed["items"].as_array().unwrap().iter().find(|tenant| tenant["slug"] == "old").unwrap();
    assert_eq!((&old["presets"][0]["name"], old["presets"][0].get("differs")), (&json!("clustercockpit"), None));

    for (body, field) in [(json!({ "preset": "unknown" }), "preset"), (json!({}), "preset")] {
        let refused = caller.post("/v1/tenants/old/preset", body).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["field"]), (422, &json!(field)), "{}", refused.text);
    }
    let refused = caller.post("/v1/tenants", json!({ "slug": "none", "preset": "unknown" })).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(caller.get("/v1/tenants/none").await.status, StatusCode::NOT_FOUND, "nothing was made");
    assert_eq!(caller.post("/v1/tenants/absent/preset", json!({ "preset": "cta" })).await.status, StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn every_preset_makes_a_tenant_whose_tokens_have_its_shape() {
    let server = Server::start().await;
    let shape = async |slug: &str| {
        let tenant = preset(&server, slug, slug, json!({})).await;
        let user = tenant.user("ada", Some(PASSWORD)).await;
        give_roles(&tenant, user, &["user", "admin"]).await;
        let attributes = json!({ "name": "Ada", "groups": ["g1"], "classification": "TLP:W", "projects": ["p1"] });
        let change = UserChange {
            attributes: attributes.as_object().cloned(),
            email: Some(Some("ada@example.com".into())),
            ..UserChange::default()
        };
        server.issuer.change_user(tenant.id, &Actor::operator(), user, change).await.unwrap();
        let token = usual_login(&tenant, "ada").await;
        (user.to_string(), claims(&token), token)
    };
    let names = |claims: &Value| claims.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");

    let (id, cat, _) = shape("cheshire-cat").await;
    assert_eq!(names(&cat), "exp iat iss jti permissions roles sid sub username");
    assert_eq!((&cat["sub"], &cat["username"]), (&json!(id), &json!("ada")));
    assert_eq!(cat["exp"].as_i64().unwrap() - cat["iat"].as_i64().unwrap(), 86_400);
    assert_eq!(cat["permissions"]["MEMORY"], json!(["DELETE", "EDIT", "LIST", "READ", "WRITE"]));
    assert_eq!(cat["permissions"]["USERS"], json!(["DELETE", "EDIT", "LIST", "READ", "WRITE"]));

    let (id, howler, _) = shape("howler").await;
    assert_eq!(
        names(&howler),
        "aud classification email exp groups iat iss jti name preferred_username priv roles scope sid sub uid"
    );
    assert_eq!((&howler["sub"], &howler["uid"], &howler["aud"]), (&json!("ada"), &json!(id), &json!("howler")));
    assert_eq!((&howler["priv"], &howler["email"]), (&json!(["R", "W", "E"]), &json!("ada@example.com")));
    assert_eq!((&howler["groups"], &howler["classification"]), (&json!(["g1"]), &json!("TLP:W")));

    let (_, cc, _) = shape("clustercockpit").await;
    assert_eq!(
        names(&cc),
        "exp iat roles sid sub iss jti"
            .split(' ')
            .map(str::to_owned)
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
            .join(" ")
    );
    assert_eq!((&cc["sub"], &cc["roles"]), (&json!("ada"), &json!(["admin", "user"])));
    let now = server.clock.now().timestamp();
    assert_eq!(cc["iat"].as_i64().unwrap(), now - 2, "for verifiers whose clock is a little late");

    let (id, cta, _) = shape("cta").await;
    assert_eq!(names(&cta), "admin exp iat iss jti scope sid sub");
    assert_eq!((&cta["sub"], &cta["admin"]), (&json!(id), &json!(true)));
}

#[actix_web::test]
async fn p27_a_token_of_the_usual_audience_opens_verify_and_me_and_nothing_of_our_management() {
    let server = Server::start_with(Options { throttle: support::UNTHROTTLED, ..Options::default() }).await;
    let tenant = preset(&server, "cta", "cta", json!({})).await;
    let key = tenant.user_key("boss", &MANAGEMENT).await;
    let answer = server.with(&key.pair()).post_empty(&tenant.path("/v1/authentications")).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let token = answer.json()["jwt"].as_str().unwrap().to_owned();
    assert_eq!(claims(&token)["admin"], json!(false), "the key was given no role");
    assert!(claims(&token).get("aud").is_none());

    let me = server.with(&bearer(&token)).get(&tenant.path("/v1/me")).await;
    assert_eq!((me.status, &me.json()["username"]), (StatusCode::OK, &json!("boss")), "{}", me.text);
    assert_eq!(server.with(&bearer(&token)).get("/v1/me").await.status, StatusCode::OK, "at the root too");
    assert_eq!(verified(&tenant, &token, json!({ "permission": "users:write" })).await["allow"], true);
    for path in ["/v1/users", "/v1/keys", "/v1/audit", "/v1/roles", "/v1/signing-keys", "/v1/audiences"] {
        let refused = server.with(&bearer(&token)).get(&tenant.path(path)).await;
        assert_eq!((refused.status, refused.error().as_str()), (StatusCode::UNAUTHORIZED, "invalid_token"), "{path}");
    }
    // Whoever wants a token for the issuer itself asks for it.
    let asked = json!({ "audience": "http://id.test/t/cta" });
    let own = server.with(&key.pair()).post(&tenant.path("/v1/authentications"), asked).await.json();
    let own = own["jwt"].as_str().unwrap();
    assert_eq!(server.with(&bearer(own)).get(&tenant.path("/v1/users")).await.status, StatusCode::OK);
    // A token for another audience, with an `aud` of its own, is not for us.
    let other = json!({ "name": "other", "uri": "urn:other", "profile": {} });
    assert_eq!(server.with(&bearer(own)).post(&tenant.path("/v1/audiences"), other).await.status, StatusCode::CREATED);
    let for_other = server.with(&key.pair()).post(&tenant.path("/v1/authentications"), json!({ "audience": "other" })).await;
    let for_other = for_other.json()["jwt"].as_str().unwrap().to_owned();
    assert_eq!(server.with(&bearer(&for_other)).get(&tenant.path("/v1/me")).await.status, StatusCode::UNAUTHORIZED);
    // Called back, it opens nothing any more.
    let form = [("token", token.as_str())];
    let revoked = send(server.with(&key.basic()).request(Method::POST, &tenant.path("/v1/token/revoke")).form(&form)).await;
    assert_eq!(revoked.status, StatusCode::OK);
    assert_eq!(server.with(&bearer(&token)).get(&tenant.path("/v1/me")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(verified(&tenant, &token, json!({})).await["allow"], false);
}

#[actix_web::test]
async fn p27_a_token_under_an_audiences_own_key_is_not_taken_for_the_usual_one() {
    let server = Server::start().await;
    let tenant = preset(&server, "cc", "clustercockpit", json!({})).await;
    let user = tenant.user("bot", None).await;
    give_roles(&tenant, user, &["api"]).await;
    let key = tenant.key_of(Owner::User(user), &["metrics:write"]).await;
    let exchange = async |body: Value| {
        let answer = server.with(&key.pair()).post(&tenant.path("/v1/authentications"), body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json()["jwt"].as_str().unwrap().to_owned()
    };
    let usual = exchange(json!({})).await;
    let store = exchange(json!({ "audience": "cc-metric-store" })).await;
    assert!(claims(&usual).get("aud").is_none() && claims(&store).get("aud").is_none());
    assert_eq!(server.with(&bearer(&usual)).get(&tenant.path("/v1/me")).await.status, StatusCode::OK);
    assert_eq!(server.with(&bearer(&store)).get(&tenant.path("/v1/me")).await.status, StatusCode::UNAUTHORIZED);
}

#[actix_web::test]
async fn scenario_37_a_role_that_is_given_counts_for_the_same_token_at_once() {
    let server = Server::start().await;
    let tenant = preset(&server, "cat", "cheshire-cat", json!({})).await;
    let user = tenant.user("user", Some(PASSWORD)).await;
    give_roles(&tenant, user, &["user"]).await;
    let token = usual_login(&tenant, "user").await;
    let may = async |permission: &str| {
        let answer = verified(&tenant, &token, json!({ "permission": permission })).await;
        (answer["allow"].as_bool().unwrap(), answer["status"].as_u64())
    };
    assert_eq!(may("memory:read").await, (true, None));
    assert_eq!(may("users:list").await, (false, Some(403)));
    give_roles(&tenant, user, &["admin"]).await;
    assert_eq!(may("users:list").await, (true, None), "the token does not say it, the person holds it");
    assert!(claims(&token)["permissions"].get("USERS").is_none());
    // The login behind it ends it.
    let entry = server.issuer.tenant("cat").await.unwrap().unwrap();
    server.issuer.set_password(&entry, &Actor::operator(), user, SecretString::from("another good one here")).await.unwrap();
    assert_eq!(verified(&tenant, &token, json!({})).await["allow"], false);
}

#[actix_web::test]
async fn a_host_that_is_configured_stands_for_its_tenant_and_no_header_but_host_counts() {
    let options = Options { hosts: vec![("auth.cta.example", "cta"), ("auth.gone.example", "gone")], ..Options::default() };
    let server = Server::start_with(options).await;
    let cta = preset(&server, "cta", "cta", json!({})).await;
    let other = server.tenant("other").await;
    let key = cta.user_key("foo", &["events:write"]).await;
    let foreign = other.user_key("foo", &[]).await;
    let ask = async |host: &str, method: Method, path: &str, authorization: &str| -> Answer {
        send(server.anonymous().request(method, path).header("Host", host).header("Authorization", authorization)).await
    };
    let host = "auth.cta.example";
    let made = ask(host, Method::POST, "/v1/authentications", &key.pair()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let token = made.json()["jwt"].as_str().unwrap().to_owned();
    assert_eq!(claims(&token)["iss"], "http://id.test/t/cta", "the issuer is what it always is");
    assert_eq!(ask(host, Method::GET, "/v1/me", &bearer(&token)).await.json()["tenant"], "cta");
    // Another tenant's key does not work there, as it does at the root.
    assert_eq!(ask(host, Method::POST, "/v1/authentications", &foreign.pair()).await.status, StatusCode::NOT_FOUND);
    assert_eq!(ask("id.test", Method::POST, "/v1/authentications", &foreign.pair()).await.status, StatusCode::CREATED);
    // A path that names a tenant wins.
    assert_eq!(ask(host, Method::POST, "/t/other/v1/authentications", &foreign.pair()).await.status, StatusCode::CREATED);
    // Pages and tenant-only routes are there; the installation's management is not.
    let page = ask(host, Method::GET, "/login?return_to=/x", "").await;
    assert_eq!((page.status, page.header("content-type")), (StatusCode::OK, "text/html; charset=utf-8"));
    assert_eq!(ask(host, Method::GET, "/v1/tenants", &key.basic()).await.status, StatusCode::NOT_FOUND);
    assert_eq!(ask(host, Method::GET, "/healthz", "").await.status, StatusCode::OK);
    assert_eq!(ask(host, Method::PUT, "/v1/me", "").await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(ask("auth.gone.example", Method::GET, "/v1/public-key", "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(ask("evil.test", Method::GET, "/login", "").await.status, StatusCode::NOT_FOUND);
    let forwarded = server.anonymous().request(Method::GET, "/login").header("X-Forwarded-Host", host);
    assert_eq!(send(forwarded).await.status, StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn a_dialect_that_is_not_spoken_is_not_there_for_anybody() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let admin = tenant.admin().await;
    let token = server.with(&admin.pair()).token().await;
    let user = tenant.user("ada", Some(PASSWORD)).await;
    let operations = dialect_operations();
    assert!(!operations.is_empty());
    for operation in operations {
        let path = operation.path("acme", &user.to_string()).replace("{client}", "cc");
        for caller in [server.anonymous(), server.with(&bearer(&token)), server.with(&admin.basic()), server.with("nonsense")] {
            let answer = operation.call(&caller, &path).await;
            assert_eq!((answer.status, answer.error().as_str()), (StatusCode::NOT_FOUND, "not_found"), "{}", operation.id);
        }
    }
}

#[actix_web::test]
async fn a_tenant_that_wants_https_gets_nothing_over_plain_http() {
    let server = Server::start_with(Options { trusted_proxies: vec!["127.0.0.1/32"], ..Options::default() }).await;
    let tenant = preset(&server, "cta", "cta", json!({ "require_https": true })).await;
    let key = tenant.user_key("foo", &["events:write"]).await;
    for path in [tenant.path("/v1/authentications"), "/v1/authentications".into()] {
        let plain = server.with(&key.pair()).post_empty(&path).await;
        assert_eq!((plain.status, plain.error().as_str()), (StatusCode::FORBIDDEN, "https-required"), "{path}");
        assert!(!plain.text.contains("jwt") && !plain.text.contains(&key.secret));
        let request = server.with(&key.pair()).request(Method::POST, &path).header("X-Forwarded-Proto", "https");
        let answer = send(request).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        assert!(answer.header("strict-transport-security").starts_with("max-age="));
    }
}

#[test]
fn every_test_that_docs_seeds_names_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("docs/seeds.md")).unwrap();
    let mut named = 0;
    for entry in text.lines().filter(|line| line.starts_with("| ")).flat_map(|line| line.split("; ")) {
        let Some((before, after)) = entry.split_once("`: `") else { continue };
        let (file, name) = (before.rsplit('`').next().unwrap(), after.split('`').next().unwrap());
        match file {
            "interop/cases" => assert!(root.join(file).join(name).exists(), "{name}"),
            _ => {
                let source = std::fs::read_to_string(root.join("crates/api/tests").join(file)).unwrap();
                assert!(source.contains(&format!("fn {name}(")), "{file}: {name}");
            }
        }
        named += 1;
    }
    assert!(named > 20, "{named}");
}
