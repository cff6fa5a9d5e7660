//! A key and secret become a token (SEEDS scenarios 1 to 13).

mod support;

use reqwest::StatusCode;
use support::{Server, claims, jose_header};

#[actix_web::test]
async fn scenario_01_a_valid_pair_becomes_a_token_that_is_recorded() {
    let server = Server::start().await;
    let tenant = server.tenant("cta").await;
    let key = tenant.user_key("foo", &["events:read"]).await;
    let caller = server.with(&key.pair());
    let answer = caller.post_empty(&tenant.path("/v1/authentications")).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    assert_eq!(answer.header("cache-control"), "no-store");
    let jwt = answer.json()["jwt"].as_str().unwrap().to_owned();
    let claims = claims(&jwt);
    assert_eq!(claims["sub"], key.subject());
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 86_400);
    let header = jose_header(&jwt);
    assert_eq!(header["alg"], "EdDSA");
    let jwks = server.anonymous().get(&tenant.path("/.well-known/jwks.json")).await.json();
    assert!(jwks["keys"].as_array().unwrap().iter().any(|published| published["kid"] == header["kid"]));
    let entries = tenant.audit("key.exchange").await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].outcome, "ok");
    let shown = server.issuer.find_key(tenant.id, &claviger_store::id::KeyId::parse(&key.id).unwrap()).await.unwrap();
    assert!(shown.last_used_at.is_some());
}
