//! Services with their own shape of token (SEEDS 1.5, scenario 67; SECURITY J1 to J17).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use chrono::TimeDelta;
use claviger_issuer::audit::Actor;
use claviger_issuer::limits::KeyRule;
use claviger_issuer::settings::{SigningRule, TenantSettings};
use claviger_verifier::{Expected, KeySet, verify};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Answer, Key, Server, Tenant, claims, detail, jose_header};

const URI: &str = "https://metrics.example";

/// A tenant with an admin, and a person's key.
async fn set(server: &Server) -> (Tenant<'_>, Key, Key) {
    let signing = Some(SigningRule { lead: 3600, ..SigningRule::default() });
    let keys = Some(KeyRule { default_days: None, ..KeyRule::default() });
    let settings = TenantSettings { signing, keys, ..TenantSettings::default() };
    let tenant = server.tenant_with("acme", settings).await;
    let (admin, key) = (tenant.admin().await, tenant.user_key("grace", &["metrics:read", "metrics:write"]).await);
    (tenant, admin, key)
}

async fn register(server: &Server, admin: &Key, name: &str, profile: Value) -> Answer {
    let uri = if name == "metrics" { URI.to_owned() } else { format!("https://{name}.example") };
    server.with(&admin.basic()).post("/t/acme/v1/audiences", json!({ "name": name, "uri": uri, "profile": profile })).await
}

async fn registered(server: &Server, admin: &Key, name: &str, profile: Value) -> String {
    let answer = register(server, admin, name, profile).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn exchange(server: &Server, key: &Key, audience: &str) -> Answer {
    server.with(&key.pair()).post("/v1/authentications", json!({ "audience": audience })).await
}

async fn token(server: &Server, key: &Key, audience: &str) -> String {
    let answer = exchange(server, key, audience).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    answer.json()["jwt"].as_str().unwrap().to_owned()
}

async fn jwks(server: &Server) -> String {
    server.anonymous().get("/t/acme/.well-known/jwks.json").await.text
}

async fn introspect(server: &Server, admin: &Key, token: &str) -> Value {
    server.with(&admin.basic()).introspect("/t/acme/v1/introspect", token).await.json()
}

#[actix_web::test]
async fn each_algorithm_is_read_by_our_verifier_and_by_an_independent_one() {
    let server = Server::start().await;
    let (_, admin, key) = set(&server).await;
    for (name, own_key, theirs) in [
        ("EdDSA", false, Algorithm::EdDSA),
        ("Ed25519", true, Algorithm::EdDSA),
        ("ES256", true, Algorithm::ES256),
        ("RS256", true, Algorithm::RS256),
    ] {
        let service = name.to_lowercase();
        let id = registered(&server, &admin, &service, json!({ "algorithm": name, "own_key": own_key })).await;
        let jwt = token(&server, &key, &service).await;
        assert_eq!(jose_header(&jwt)["alg"], name);
        let kid = jose_header(&jwt)["kid"].as_str().unwrap().to_owned();
        let uri = format!("https://{service}.example");

        let set = jwks(&server).await;
        let now = server.clock.now().timestamp();
        let expected = Expected { issuer: "http://id.test/t/acme", audience: Some(&uri), leeway_seconds: 0 };
        let read = verify(&jwt, &KeySet::from_jwks(&set).unwrap(), &expected, now).unwrap();
        assert_eq!((read.subject, read.username.as_deref()), (key.subject(), Some("grace")));
        assert_eq!(read.scope, ["metrics:read", "metrics:write"]);

        let set: JwkSet = serde_json::from_str(&set).unwrap();
        let public = |format| {
            let path = format!("/t/acme/v1/audiences/{id}/public-key?format={format}");
            let admin = admin.basic();
            let server = &server;
            async move { server.with(&admin).get(&path).await.text }
        };
        let jwk: Value = serde_json::from_str(&public("jwk").await).unwrap();
        assert_eq!((&jwk["kid"], &jwk["alg"]), (&json!(kid), &json!(name)), "a strict reader compares");
        if name == "Ed25519" {
            // The independent reader knows the older name of the same algorithm alone.
            continue;
        }
        let pem = public("pem").await;
        let from_pem = match theirs {
            Algorithm::ES256 => DecodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::RS256 => DecodingKey::from_rsa_pem(pem.as_bytes()),
            _ => DecodingKey::from_ed_pem(pem.as_bytes()),
        };
        let mut validation = Validation::new(theirs);
        validation.set_audience(&[&uri]);
        for key in [DecodingKey::from_jwk(set.find(&kid).unwrap()).unwrap(), from_pem.unwrap()] {
            assert_eq!(decode::<Value>(&jwt, &key, &validation).unwrap().claims["iss"], "http://id.test/t/acme");
        }
    }
}

#[actix_web::test]
async fn a_token_for_an_audience_opens_nothing_here_but_can_be_asked_about_and_called_back() {
    let server = Server::start().await;
    let (tenant, admin, key) = set(&server).await;
    registered(&server, &admin, "metrics", json!({ "subject": "username", "claims": ["roles"], "own_key": true })).await;
    registered(&server, &admin, "shared", json!({ "omit_aud": true })).await;
    for audience in ["metrics", "shared", URI] {
        let jwt = token(&server, &key, audience).await;
        for path in ["/v1/me", "/t/acme/v1/me", "/t/acme/v1/audiences"] {
            let answer = server.with(&format!("Bearer {jwt}")).get(path).await;
            assert_eq!((answer.status, answer.error().as_str()), (StatusCode::UNAUTHORIZED, "invalid_token"), "{audience}");
        }
        let told = introspect(&server, &admin, &jwt).await;
        assert_eq!((&told["active"], &told["sub"]), (&json!(true), &claims(&jwt)["sub"]), "{audience}");
        assert_eq!(told.get("aud").is_some(), audience != "shared");
        let id = claims(&jwt)["jti"].as_str().unwrap().parse().unwrap();
        let entry = server.issuer.tenant("acme").await.unwrap().unwrap();
        server.issuer.revoke_token_by_id(&entry, &Actor::operator(), id).await.unwrap();
        assert_eq!(introspect(&server, &admin, &jwt).await, json!({ "active": false }));
    }
    // It ends with its key, as any token does.
    let jwt = token(&server, &key, "metrics").await;
    server.issuer.revoke_key(tenant.id, &Actor::operator(), &key.key_id()).await.unwrap();
    assert_eq!(introspect(&server, &admin, &jwt).await, json!({ "active": false }));
}

#[actix_web::test]
async fn the_profile_says_which_claims_there_are() {
    let server = Server::start().await;
    let (tenant, admin, key) = set(&server).await;
    let names = |jwt: &str| claims(jwt).as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
    let expect = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<std::collections::BTreeSet<_>>();

    registered(&server, &admin, "usual", json!({})).await;
    let jwt = token(&server, &key, "usual").await;
    let all = ["iss", "sub", "aud", "exp", "iat", "jti", "client_id", "key_id", "tid", "username", "roles", "scope"];
    assert_eq!(names(&jwt), expect(&all));
    assert_eq!(claims(&jwt)["sub"], key.subject());

    let cat = json!({ "claims": ["username", "permissions_upper"], "extra": { "classification": "TLP:A" }, "omit_aud": true, "lifetime": 60 });
    registered(&server, &admin, "cat", cat).await;
    let jwt = token(&server, &key, "cat").await;
    assert_eq!(names(&jwt), expect(&["iss", "sub", "exp", "iat", "jti", "username", "permissions", "classification"]));
    let read = claims(&jwt);
    assert_eq!(read["permissions"], json!({ "METRICS": ["READ", "WRITE"] }));
    assert_eq!(read["exp"].as_i64().unwrap() - read["iat"].as_i64().unwrap(), 60);

    let unending = json!({ "subject": "username", "claims": ["roles"], "omit_exp": true, "allow_non_expiring": true });
    registered(&server, &admin, "cc", unending).await;
    let jwt = token(&server, &key, "cc").await;
    assert_eq!(names(&jwt), expect(&["iss", "sub", "aud", "iat", "jti", "roles"]));
    assert_eq!(claims(&jwt)["sub"], "grace");
    assert_eq!(introspect(&server, &admin, &jwt).await["active"], true);

    // By hand, for a person, in the same shape; without an end only where that is allowed.
    let entry = server.issuer.tenant("acme").await.unwrap().unwrap();
    let user = key.subject().parse().unwrap();
    let by_hand = server.issuer.issue_token(&entry, &Actor::operator(), user, Some("cc"), None, None).await.unwrap();
    assert_eq!((claims(&by_hand)["sub"].clone(), names(&by_hand).contains("exp")), (json!("grace"), false));
    assert!(server.issuer.issue_token(&entry, &Actor::operator(), user, Some("cat"), None, None).await.is_err());
    assert_eq!(tenant.audit("token.issue").await.len(), 1);

    // An application is nobody with a name.
    let machine = tenant.app_key("machine", &[]).await;
    assert_eq!(claims(&token(&server, &machine, "cc").await)["sub"], machine.subject());
}

#[actix_web::test]
async fn scenario_67_a_static_key_stays_until_an_admin_confirms_that_the_service_has_the_next() {
    let server = Server::start().await;
    let (tenant, admin, key) = set(&server).await;
    let id = registered(&server, &admin, "metrics", json!({ "own_key": true, "static_key": true })).await;
    let path = |rest: &str| format!("/t/acme/v1/audiences/{id}/{rest}");
    let kid = |jwt: &str| jose_header(jwt)["kid"].as_str().unwrap().to_owned();
    let old = kid(&token(&server, &key, "metrics").await);
    let tenants = kid(&server.with(&key.pair()).token().await);
    assert_ne!(old, tenants);
    let none = server.with(&admin.basic()).get(&path("public-key?next=true")).await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
    // Months go by: the tenant's keys follow each other, this one's next key waits.
    for _ in 0..60 {
        server.clock.advance(TimeDelta::days(1));
        server.issuer.make_room().await.unwrap();
        server.issuer.keep_signing_keys().await.unwrap();
    }
    assert_ne!(kid(&server.with(&key.pair()).token().await), tenants);
    assert_eq!(kid(&token(&server, &key, "metrics").await), old);
    let next = server.with(&admin.basic()).get(&path("public-key?format=jwk&next=true")).await.json();
    let next = next["kid"].as_str().unwrap();
    let again = server.with(&admin.basic()).post("/t/acme/v1/signing-keys/rotate", json!({ "audience": "metrics" })).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "it waits for a confirmation: {}", again.text);

    let confirm = async |kid: &str| server.with(&admin.basic()).post(&path("confirm-key"), json!({ "kid": kid })).await;
    assert_eq!(confirm(&old).await.status, StatusCode::CONFLICT);
    assert_eq!(confirm(next).await.status, StatusCode::OK);
    assert_eq!(kid(&token(&server, &key, "metrics").await), next);
    assert_eq!(confirm(next).await.status, StatusCode::CONFLICT, "once");
    let rotated = &tenant.audit("signing_key.rotate").await[0];
    assert_eq!(
        (detail(rotated)["before"].as_str().unwrap(), rotated.target.as_str()),
        (old.as_str(), format!("signing_key:{next}").as_str())
    );

    // In an emergency there is no waiting.
    let body = json!({ "audience": "metrics", "emergency": true });
    let stolen = token(&server, &key, "metrics").await;
    assert_eq!(server.with(&admin.basic()).post("/t/acme/v1/signing-keys/rotate", body).await.status, StatusCode::OK);
    assert_ne!(kid(&token(&server, &key, "metrics").await), next);
    assert_eq!(introspect(&server, &admin, &stolen).await, json!({ "active": false }));
    server.with(&key.pair()).token().await;
}

#[actix_web::test]
async fn a_private_key_set_is_not_published_and_a_required_scope_is_required() {
    let server = Server::start().await;
    let (_, admin, key) = set(&server).await;
    let id = registered(
        &server,
        &admin,
        "metrics",
        json!({ "own_key": true, "private_jwks": true, "required_scope": "metrics:admin" }),
    )
    .await;
    let refused = exchange(&server, &key, "metrics").await;
    assert_eq!((refused.status, refused.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_scope"));
    let profile = json!({ "profile": { "own_key": true, "private_jwks": true, "required_scope": "metrics:write" } });
    let changed = server.with(&admin.basic()).patch(&format!("/t/acme/v1/audiences/{id}"), profile).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.text);
    let jwt = token(&server, &key, "metrics").await;
    let kid = jose_header(&jwt)["kid"].as_str().unwrap().to_owned();
    assert!(!jwks(&server).await.contains(&kid));
    assert_eq!(introspect(&server, &admin, &jwt).await["active"], true);
    let nobody = exchange(&server, &key, "nobody").await;
    assert_eq!((nobody.status, nobody.json()["field"].as_str()), (StatusCode::UNPROCESSABLE_ENTITY, Some("audience")));
}

#[actix_web::test]
async fn audiences_are_made_changed_and_ended_within_their_tenant() {
    let server = Server::start().await;
    let (tenant, admin, key) = set(&server).await;
    let other = server.tenant("other").await.admin().await;
    let id = registered(&server, &admin, "metrics", json!({ "own_key": true })).await;
    assert_eq!(register(&server, &admin, "metrics", json!({})).await.status, StatusCode::CONFLICT);
    for wrong in [
        json!({ "algorithm": "ES256" }),
        json!({ "algorithm": "HS256" }),
        json!({ "algorithm": "none" }),
        json!({ "static_key": true }),
        json!({ "omit_exp": true }),
        json!({ "extra": { "sub": "root" } }),
        json!({ "extra": { "aud": "http://id.test/t/acme" } }),
        json!({ "claims": ["everything"] }),
        json!({ "lifetime": 4 }),
        json!({ "kind": "x" }),
    ] {
        assert_eq!(register(&server, &admin, "wrong", wrong.clone()).await.status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
    }
    let ours = json!({ "name": "us", "uri": "http://id.test/t/other" });
    let ours = server.with(&admin.basic()).post("/t/acme/v1/audiences", ours).await;
    assert_eq!(ours.status, StatusCode::UNPROCESSABLE_ENTITY, "its tokens would open our own endpoints");
    let path = format!("/t/acme/v1/audiences/{id}");
    let kind = server.with(&admin.basic()).patch(&path, json!({ "profile": { "own_key": true, "algorithm": "ES256" } })).await;
    assert_eq!(kind.status, StatusCode::CONFLICT);
    assert_eq!(server.with(&other.basic()).get(&format!("/t/other/v1/audiences/{id}")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(exchange(&server, &other, "metrics").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(server.with(&admin.basic()).patch(&path, json!({ "name": "renamed" })).await.json()["name"], "renamed");
    let jwt = token(&server, &key, "renamed").await;

    assert_eq!(server.with(&admin.basic()).delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(server.with(&admin.basic()).delete(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.with(&admin.basic()).get("/t/acme/v1/audiences").await.json(), json!({ "items": [] }));
    assert_eq!(exchange(&server, &key, "renamed").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(introspect(&server, &admin, &jwt).await, json!({ "active": false }), "what its own key signed counts no more");
    registered(&server, &admin, "metrics", json!({})).await;
    for (action, times) in [("audience.create", 2), ("audience.update", 1), ("audience.delete", 1)] {
        assert_eq!(tenant.audit(action).await.len(), times, "{action}");
    }
}
