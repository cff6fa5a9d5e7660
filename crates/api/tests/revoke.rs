//! Revocation (RFC 7009) and introspection (RFC 7662) of what logins gave (SECURITY P12, P31).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod refresh_support;
mod support;

use std::time::{Duration, Instant};

use claviger_issuer::audit::Actor;
use claviger_issuer::key::KeyChange;
use refresh_support::{
    Parts, Tokens, assert_refused, count, family, log_in, me, newcomer, next, options, refresh, refresh_as, tokens, trail,
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Answer, Key, Server, Tenant, claims, detail};

const SCOPES: [&str; 2] = ["events:read", "events:write"];

/// `POST /v1/token/revoke` at the root, by nobody in particular.
async fn revoke(server: &Server, token: &str) -> Answer {
    server.anonymous().introspect("/v1/token/revoke", token).await
}

fn assert_done(what: &str, answer: &Answer) {
    assert_eq!((answer.status, answer.text.as_str()), (StatusCode::OK, ""), "{what}");
    assert_eq!(answer.header("cache-control"), "no-store", "{what}");
}

async fn ask(server: &Server, key: &Key, token: &str) -> Value {
    let answer = server.with(&key.basic()).introspect("/v1/introspect", token).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json()
}

/// Returns when the token is inactive at this server: in a second, or three on a busy machine.
async fn assert_inactive_soon(server: &Server, asker: &Key, token: &str) {
    let began = Instant::now();
    loop {
        let answer = ask(server, asker, token).await;
        if answer == json!({ "active": false }) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(3), "still active: {answer}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(me(server, token).await.status, StatusCode::UNAUTHORIZED);
}

/// An application's key that gets refresh tokens.
async fn refreshing_key(tenant: &Tenant<'_>, name: &str) -> Key {
    let key = tenant.app_key(name, &SCOPES).await;
    let change = KeyChange { refresh: Some(true), ..KeyChange::default() };
    tenant.server.issuer.change_key(tenant.id, &Actor::operator(), &key.key_id(), change).await.unwrap();
    key
}

async fn exchanged(server: &Server, key: &Key) -> Tokens {
    Tokens::of(&server.with(&key.pair()).post_empty("/v1/authentications").await.json())
}

#[actix_web::test]
async fn a_refresh_token_takes_its_whole_login_along_on_every_server() {
    let a = Server::start_with(options()).await;
    let b = a.replica(options()).await;
    let tenant = a.tenant("acme").await;
    let asker = tenant.app_key("asker", &["tokens:introspect"]).await;
    let first = newcomer(&tenant, "alice").await;
    let second = next(&a, &first.refresh).await;
    let other = log_in(&tenant, "alice").await;
    for server in [&a, &b] {
        for one in [&first, &second, &other] {
            assert_eq!(ask(server, &asker, &one.access).await["active"], true);
        }
    }
    assert_done("revoke", &revoke(&b, &second.refresh).await);
    let mut database = a.database.superuser().await;
    let user = format!("user:{}", claims(&first.access)["sub"].as_str().unwrap());
    let row = family(&mut database, first.family()).await;
    row.assert_ended("revoked", &user);
    for server in [&b, &a] {
        for one in [&first, &second] {
            assert_refused("revoked", &refresh(server, &one.refresh).await);
            assert_inactive_soon(server, &asker, &one.access).await;
        }
        assert_eq!(ask(server, &asker, &other.access).await["active"], true, "another login of the same person");
    }
    let entries = trail(&tenant, "token.revoke", first.family()).await;
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].outcome.as_str(), &entries[0].actor), ("ok", &user));
    assert_eq!(detail(&entries[0])["kind"], "refresh_token");
    // Again is the same answer and no deed (RFC 7009 §2.2).
    for one in [&second, &first] {
        assert_done("again", &revoke(&a, &one.refresh).await);
        assert_done("again", &revoke(&a, &one.access).await);
    }
    assert_eq!(family(&mut database, first.family()).await, row);
    assert_eq!(tenant.audit("token.revoke").await.len(), 1);
    next(&a, &other.refresh).await;
}

#[actix_web::test]
async fn a_used_refresh_token_ends_its_login_too_when_it_is_called_back() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let first = newcomer(&tenant, "alice").await;
    let newest = next(&server, &next(&server, &first.refresh).await.refresh).await;
    assert_done("used", &revoke(&server, &first.refresh).await);
    assert_refused("revoked", &refresh(&server, &newest.refresh).await);
    assert!(trail(&tenant, "token.reuse_detected", first.family()).await.is_empty());
}

#[actix_web::test]
async fn an_access_token_of_a_login_ends_it_and_one_of_a_key_ends_alone() {
    let a = Server::start_with(options()).await;
    let b = a.replica(options()).await;
    let tenant = a.tenant("acme").await;
    let asker = tenant.app_key("asker", &["tokens:introspect"]).await;
    let mut database = a.database.superuser().await;

    let first = newcomer(&tenant, "alice").await;
    let second = next(&a, &first.refresh).await;
    assert_done("of a login", &revoke(&a, &first.access).await);
    let user = format!("user:{}", claims(&first.access)["sub"].as_str().unwrap());
    family(&mut database, first.family()).await.assert_ended("revoked", &user);
    for server in [&a, &b] {
        for one in [&first, &second] {
            assert_refused("revoked", &refresh(server, &one.refresh).await);
            assert_inactive_soon(server, &asker, &one.access).await;
        }
    }
    assert_eq!(tenant.audit("token.revoke").await.len(), 1);

    let plain = tenant.app_key("plain", &SCOPES).await;
    let (gone, stays) = (a.with(&plain.pair()).token().await, a.with(&plain.pair()).token().await);
    assert_done("of a key", &revoke(&a, &gone).await);
    for server in [&a, &b] {
        assert_inactive_soon(server, &asker, &gone).await;
        assert_eq!(ask(server, &asker, &stays).await["active"], true);
    }
    a.with(&plain.pair()).token().await;

    // A key's own login: its access token is one of a key.
    let key = refreshing_key(&tenant, "refreshing").await;
    let first = exchanged(&a, &key).await;
    let second = next(&a, &first.refresh).await;
    assert_done("of a key that refreshes", &revoke(&b, &first.access).await);
    assert_inactive_soon(&b, &asker, &first.access).await;
    assert_inactive_soon(&a, &asker, &first.access).await;
    family(&mut database, first.family()).await.assert_lives_at(1);
    assert_eq!(me(&b, &second.access).await.status, StatusCode::OK);
    let third = next(&b, &second.refresh).await;
    assert_done("its refresh token", &revoke(&b, &third.refresh).await);
    family(&mut database, first.family()).await.assert_ended("revoked", &format!("key:{}", key.id));
    for server in [&b, &a] {
        assert_refused("revoked", &refresh(server, &third.refresh).await);
        assert_inactive_soon(server, &asker, &third.access).await;
    }
    exchanged(&a, &key).await;
}

#[actix_web::test]
async fn what_is_not_good_is_answered_alike_and_nothing_is_revoked() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let other = server.tenant("other").await;
    let key = tenant.app_key("app", &SCOPES).await;
    let first = newcomer(&tenant, "alice").await;
    let stranger = newcomer(&other, "alice").await;
    let jwt = server.with(&key.pair()).token().await;
    let mut database = server.database.superuser().await;
    let before = family(&mut database, first.family()).await;

    let parts = Parts::of(&first.refresh);
    let mut wrong = parts.clone();
    wrong.secret[31] ^= 1;
    let later = Parts { generation: 1, ..parts.clone() };
    let foreign = Parts { tenant: other.id.0, ..parts.clone() };
    let mixed = Parts { family: stranger.family(), ..parts };
    let mut signature = first.access.clone().into_bytes();
    let at = signature.len() - 10;
    signature[at] = if signature[at] == b'A' { b'B' } else { b'A' };
    for token in [
        wrong.text(),
        later.text(),
        foreign.text(),
        mixed.text(),
        first.refresh[..98].to_owned(),
        format!("{} ", first.refresh),
        String::from_utf8(signature).unwrap(),
        first.access.rsplit_once('.').unwrap().0.to_owned(),
        "garbage".into(),
        String::new(),
        "x".repeat(30_000),
    ] {
        assert_done(&token, &revoke(&server, &token).await);
    }
    // What is good elsewhere is nothing here.
    for token in [&first.refresh, &first.access, &jwt] {
        assert_done("at another tenant", &server.anonymous().introspect(&other.path("/v1/token/revoke"), token).await);
    }
    let nowhere = server.anonymous().introspect("/t/nobody/v1/token/revoke", &first.refresh).await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND, "{}", nowhere.text);
    let json = server.anonymous().post("/v1/token/revoke", json!({ "token": first.refresh })).await;
    assert_eq!(json.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{}", json.text);
    let request = server.anonymous().request(reqwest::Method::POST, "/v1/token/revoke");
    let empty = Answer::of(request.form(&[("tokens", &first.refresh)]).send().await.unwrap()).await;
    assert_eq!(empty.status, StatusCode::BAD_REQUEST, "{}", empty.text);

    assert_eq!(family(&mut database, first.family()).await, before);
    family(&mut database, stranger.family()).await.assert_lives_at(0);
    for tenant in [&tenant, &other] {
        assert!(tenant.audit("token.revoke").await.is_empty());
    }
    for token in [&first.access, &jwt, &stranger.access] {
        assert_eq!(me(&server, token).await.status, StatusCode::OK);
    }
    // The hint is only that, and other parameters are none of our business (RFC 7009 §2.1).
    let request = server.anonymous().request(reqwest::Method::POST, &tenant.path("/v1/token/revoke"));
    let hinted = request.form(&[("token", first.refresh.as_str()), ("token_type_hint", "access_token")]);
    assert_done("a wrong hint", &Answer::of(hinted.send().await.unwrap()).await);
    assert_refused("revoked", &refresh(&server, &first.refresh).await);
}

#[actix_web::test]
async fn a_token_of_a_client_is_revoked_by_that_client_alone() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let other_tenant = server.tenant("other").await;
    let client = tenant.app_key("client", &[]).await;
    let (other, foreign) = (tenant.app_key("other", &SCOPES).await, other_tenant.app_key("client", &SCOPES).await);
    tenant.user("alice", Some(refresh_support::PASSWORD)).await;
    let body = json!({ "username": "alice", "password": refresh_support::PASSWORD });
    let first = tokens(&server.with(&client.basic()).post(&tenant.path("/v1/login"), body).await);
    let second = tokens(&refresh_as(&server, &client.basic(), &first.refresh).await);
    let mut database = server.database.superuser().await;
    let before = family(&mut database, first.family()).await;
    for token in [&first.refresh, &second.refresh] {
        for authorization in [None, Some(other.basic()), Some(foreign.basic()), Some(first.bearer())] {
            let caller = authorization.map_or_else(|| server.anonymous(), |one| server.with(&one));
            for path in ["/v1/token/revoke".to_owned(), tenant.path("/v1/token/revoke")] {
                let answer = caller.introspect(&path, token).await;
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text);
                assert_eq!(answer.error(), "unauthenticated");
            }
        }
    }
    assert_eq!(family(&mut database, first.family()).await, before);
    assert_eq!(me(&server, &second.access).await.status, StatusCode::OK);
    assert_done("by the client", &server.with(&client.basic()).introspect("/v1/token/revoke", &second.refresh).await);
    family(&mut database, first.family())
        .await
        .assert_ended("revoked", &format!("user:{}", claims(&first.access)["sub"].as_str().unwrap()));
    assert_refused("revoked", &refresh_as(&server, &client.basic(), &second.refresh).await);
}

/// Calls another's token back as a key that proved itself; says whether it lives on.
async fn lives_after(server: &Server, caller: &Key, path: &str, token: &str, access: &str) -> bool {
    let answer = server.with(&caller.basic()).introspect(path, token).await;
    assert!(matches!(answer.status.as_u16(), 200 | 401), "{}", answer.text);
    me(server, access).await.status == StatusCode::OK
}

#[actix_web::test]
async fn p31_nobody_revokes_an_access_token_of_another_client_or_tenant() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let other_tenant = server.tenant("other").await;
    // Whatever it may do otherwise.
    let (other, foreign) = (tenant.admin().await, other_tenant.admin().await);
    let key = tenant.app_key("app", &SCOPES).await;
    let jwt = server.with(&key.pair()).token().await;
    let refreshing = exchanged(&server, &refreshing_key(&tenant, "refreshing").await).await;
    let person = newcomer(&tenant, "alice").await;
    let mut database = server.database.superuser().await;
    for caller in [&other, &foreign] {
        for path in ["/v1/token/revoke".to_owned(), tenant.path("/v1/token/revoke"), other_tenant.path("/v1/token/revoke")] {
            for access in [&jwt, &refreshing.access, &person.access] {
                assert!(lives_after(&server, caller, &path, access, access).await, "{path}");
            }
        }
    }
    family(&mut database, refreshing.family()).await.assert_lives_at(0);
    family(&mut database, person.family()).await.assert_lives_at(0);
    for tenant in [&tenant, &other_tenant] {
        assert!(tenant.audit("token.revoke").await.is_empty());
    }
    // Its own it may.
    assert!(!lives_after(&server, &key, "/v1/token/revoke", &jwt, &jwt).await);
}

#[actix_web::test]
async fn p31_nobody_revokes_a_refresh_token_of_another_key_or_tenant() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let other_tenant = server.tenant("other").await;
    let (other, foreign) = (tenant.app_key("other", &SCOPES).await, other_tenant.app_key("app", &SCOPES).await);
    let key = refreshing_key(&tenant, "app").await;
    let mut revoked = Vec::new();
    for (who, caller) in [("another key", &other), ("a key of another tenant", &foreign)] {
        for path in ["/v1/token/revoke".to_owned(), tenant.path("/v1/token/revoke"), other_tenant.path("/v1/token/revoke")] {
            let login = exchanged(&server, &key).await;
            if !lives_after(&server, caller, &path, &login.refresh, &login.access).await {
                revoked.push(format!("{who} at {path}"));
            }
        }
    }
    assert!(revoked.is_empty(), "a key's login was ended by who is not that key: {revoked:?}");
    let login = exchanged(&server, &key).await;
    assert!(!lives_after(&server, &key, "/v1/token/revoke", &login.refresh, &login.access).await);
}

#[actix_web::test]
async fn introspection_tells_of_a_login_to_who_may_ask() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let other_tenant = server.tenant("other").await;
    let asker = tenant.app_key("asker", &["tokens:introspect"]).await;
    let admin = tenant.admin().await.basic();
    let user = tenant.user("alice", Some(refresh_support::PASSWORD)).await;
    let path = format!("/v1/users/{user}");
    let done = server.with(&admin).patch(&path, json!({ "roles": ["editor", "owner"] })).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text);
    let first = log_in(&tenant, "alice").await;
    let said = ask(&server, &asker, &first.access).await;
    let carried = claims(&first.access);
    assert_eq!(
        said,
        json!({
            "active": true,
            "client_id": "login",
            "username": "alice",
            "token_type": "Bearer",
            "exp": carried["exp"],
            "iat": carried["iat"],
            "sub": user.to_string(),
            "aud": said["aud"],
            "iss": "http://id.test/t/acme",
            "jti": carried["jti"],
            "sid": first.family().to_string(),
            "roles": ["editor", "owner"],
        })
    );
    assert!(said["aud"] == carried["aud"] || said["aud"] == json!([carried["aud"]]), "{said}");
    // At the tenant's own path, and after a refresh.
    let second = next(&server, &first.refresh).await;
    for one in [&first, &second] {
        let answer = server.with(&asker.basic()).introspect(&tenant.path("/v1/introspect"), &one.access).await;
        assert_eq!((&answer.json()["active"], &answer.json()["sid"]), (&json!(true), &json!(first.family().to_string())));
    }
    // A person asks about their own tokens.
    let other_login = log_in(&tenant, "alice").await;
    let own = server.with(&other_login.bearer()).introspect("/v1/introspect", &second.access).await;
    assert_eq!(own.json()["active"], true, "{}", own.text);

    // Nobody else learns that there is such a token.
    let (plain, foreign) = (tenant.app_key("plain", &SCOPES).await, other_tenant.app_key("asker", &["tokens:introspect"]).await);
    let bob = newcomer(&tenant, "bob").await;
    let inactive = json!({ "active": false });
    for authorization in [plain.basic(), foreign.basic(), bob.bearer()] {
        let answer = server.with(&authorization).introspect("/v1/introspect", &second.access).await;
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, inactive.clone()));
    }
    let answer = server.with(&foreign.basic()).introspect(&tenant.path("/v1/introspect"), &second.access).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text);
    let answer = server.anonymous().introspect("/v1/introspect", &second.access).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text);
    // Refresh tokens are for refreshing: asking about one neither tells nor uses it.
    for token in [&first.refresh, &second.refresh] {
        assert_eq!(ask(&server, &asker, token).await, inactive);
    }
    let mut database = server.database.superuser().await;
    family(&mut database, first.family()).await.assert_lives_at(1);

    // A key's login is told of as the key's.
    let key = refreshing_key(&tenant, "refreshing").await;
    let login = exchanged(&server, &key).await;
    let said = ask(&server, &asker, &next(&server, &login.refresh).await.access).await;
    assert_eq!((&said["active"], &said["sid"]), (&json!(true), &json!(login.family().to_string())));
    assert_eq!((&said["client_id"], &said["scope"]), (&json!(key.subject()), &json!("events:read events:write")));
    assert!(said.get("roles").is_none() && said.get("username").is_none(), "{said}");
    assert_eq!(ask(&server, &key, &login.access).await["active"], true, "its own");

    // It ends with the login.
    assert_eq!(server.with(&second.bearer()).post_empty("/v1/logout").await.status, StatusCode::NO_CONTENT);
    for one in [&first, &second] {
        assert_eq!(ask(&server, &asker, &one.access).await, inactive);
    }
    assert_eq!(ask(&server, &asker, &other_login.access).await["active"], true);
    assert_eq!(count(&mut database, "SELECT count(*) FROM token_families WHERE revoked_at IS NOT NULL").await, 1);
}
