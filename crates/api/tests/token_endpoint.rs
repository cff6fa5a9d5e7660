//! OAuth's token endpoint as an OAuth client meets it (RFC 6749, RFC 8707; SECURITY O1 to O11, P27, P42, P44).

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

use chrono::TimeDelta;
use claviger_issuer::audit::Actor;
use claviger_issuer::key::{ImportedPair, KeyChange, KeyOrder};
use claviger_issuer::settings::TenantSettings;
use claviger_issuer::tenant::TenantChange;
use claviger_store::id::Owner;
use refresh_support::{Parts, family, log_in, options};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use support::wire::{raw, send};
use support::{Answer, Client, Key, Options, Server, Tenant, UNTHROTTLED, basic, claims, detail};

const TOKEN: &str = "/v1/token";
const METADATA: &str = "/.well-known/oauth-authorization-server";
const SCOPES: [&str; 2] = ["events:read", "events:write"];
const API: &str = "https://api.example.com/v1";
const PASSWORD: &str = refresh_support::PASSWORD;

/// Posts this form to the token endpoint at this path.
async fn ask_at(client: &Client<'_>, path: &str, form: &[(&str, &str)]) -> Answer {
    send(client.request(Method::POST, path).form(form)).await
}

async fn ask(client: &Client<'_>, form: &[(&str, &str)]) -> Answer {
    ask_at(client, TOKEN, form).await
}

/// `grant_type=client_credentials` and these, as the key.
async fn credentials(server: &Server, key: &Key, more: &[(&str, &str)]) -> Answer {
    let form = [&[("grant_type", "client_credentials")], more].concat();
    ask(&server.with(&key.basic()), &form).await
}

/// `grant_type=refresh_token` with this token and these.
async fn refresh(client: &Client<'_>, token: &str, more: &[(&str, &str)]) -> Answer {
    let form = [&[("grant_type", "refresh_token"), ("refresh_token", token)], more].concat();
    ask(client, &form).await
}

/// A body as it is, whatever it is.
async fn ask_raw(client: &Client<'_>, body: &str) -> Answer {
    let request = client.request(Method::POST, TOKEN).header("Content-Type", "application/x-www-form-urlencoded");
    send(request.body(body.to_owned())).await
}

/// The tokens of an answer as RFC 6749 §5.1 wants it.
fn given(answer: &Answer) -> Value {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("pragma"), "no-cache");
    let body = answer.json();
    assert_eq!(body["token_type"], "Bearer");
    let claims = claims(body["access_token"].as_str().unwrap());
    assert_eq!(body["expires_in"].as_i64().unwrap(), claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap());
    assert_eq!(body.get("scope"), claims.get("scope"), "the answer says what the token says");
    body
}

fn access(answer: &Answer) -> String {
    given(answer)["access_token"].as_str().unwrap().to_owned()
}

fn refresh_token(answer: &Answer) -> String {
    given(answer)["refresh_token"].as_str().unwrap().to_owned()
}

/// A refusal as RFC 6749 §5.2 wants it: status, word, form, and nothing of what was sent.
fn assert_refused(what: &str, answer: &Answer, status: u16, error: &str) {
    assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text);
    assert_eq!(answer.header("content-type"), "application/json", "{what}");
    assert_eq!(answer.header("cache-control"), "no-store", "{what}");
    let body = answer.json();
    assert_eq!(body["error"], error, "{what}: {}", answer.text);
    let description = body["error_description"].as_str().unwrap();
    assert!(description.chars().all(|c| matches!(c, ' '..='~') && c != '"' && c != '\\'), "{what}: {description}");
    assert!(!answer.text.contains("cs_") && !answer.text.contains("cr_"), "{what}: a secret comes back");
    assert!(body.get("access_token").is_none(), "{what}");
    let challenge = if status == 401 { "Basic realm=\"claviger\"" } else { "" };
    assert_eq!(answer.header("www-authenticate"), challenge, "{what}");
}

async fn refreshing_key(tenant: &Tenant<'_>, name: &str) -> Key {
    let owner = Owner::Application(tenant.application(name).await);
    order_key(tenant, owner, true, None).await
}

async fn order_key(tenant: &Tenant<'_>, owner: Owner, refresh: bool, import: Option<&str>) -> Key {
    let order = KeyOrder {
        owner,
        name: "test".into(),
        scopes: SCOPES.map(str::to_owned).to_vec(),
        roles: Vec::new(),
        acting: Default::default(),
        token_lifetime: None,
        refresh,
        expires_at: None,
        limits: claviger_issuer::limits::KeyLimits::default(),
        import: import
            .and_then(|pair| pair.split_once(':'))
            .map(|(key, secret)| ImportedPair { key: key.to_owned(), secret: SecretString::from(secret) }),
    };
    let made = tenant.server.issuer.create_key(tenant.id, &Actor::operator(), order).await.unwrap();
    Key { id: made.key.id.to_string(), secret: made.secret.expose_secret().to_owned(), owner }
}

fn with_resource() -> TenantSettings {
    TenantSettings { resources: vec![API.to_owned()], ..TenantSettings::default() }
}

async fn introspected(server: &Server, by: &Key, token: &str) -> Value {
    server.with(&by.basic()).introspect("/v1/introspect", token).await.json()
}

#[actix_web::test]
async fn a_key_gets_a_token_by_either_way_of_proving_itself_at_the_root_and_in_its_tenant() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let key = tenant.app_key("app", &SCOPES).await;
    let nobody = server.anonymous();
    let by_header = server.with(&key.basic());
    for path in [TOKEN.to_owned(), tenant.path(TOKEN)] {
        let header = ask_at(&by_header, &path, &[("grant_type", "client_credentials")]).await;
        let form = [("grant_type", "client_credentials"), ("client_id", &key.id), ("client_secret", &key.secret)];
        let post = ask_at(&nobody, &path, &form).await;
        let named_twice = ask_at(&by_header, &path, &form[..2]).await;
        for answer in [&header, &post, &named_twice] {
            let body = given(answer);
            assert_eq!(body["scope"], "events:read events:write");
            assert_eq!(body["expires_in"], 86_400);
            assert!(body.get("refresh_token").is_none(), "the key was made without refresh");
            let said = claims(body["access_token"].as_str().unwrap());
            assert_eq!((&said["iss"], &said["aud"]), (&json!("http://id.test/t/acme"), &json!("http://id.test/t/acme")));
            assert_eq!(said["sub"], json!(key.subject()));
            let me = server.with(&format!("Bearer {}", body["access_token"].as_str().unwrap())).get("/v1/me").await;
            assert_eq!((me.status, &me.json()["key_id"]), (StatusCode::OK, &json!(key.id)));
        }
    }
    let trail = tenant.audit("key.exchange").await;
    assert_eq!(trail.len(), 6, "each is written down, as at /v1/authentications");
    assert!(trail.iter().all(|entry| entry.outcome == "ok" && entry.actor == format!("key:{}", key.id)));
}

#[actix_web::test]
async fn p27_a_token_holds_what_was_asked_for_or_there_is_none() {
    let server = Server::start_with(Options { throttle: UNTHROTTLED, ..Options::default() }).await;
    let tenant = server.tenant("acme").await;
    let key = tenant.app_key("app", &SCOPES).await;
    for (asked, got) in [("events:read", "events:read"), ("events:write events:read", "events:read events:write")] {
        assert_eq!(given(&credentials(&server, &key, &[("scope", asked)]).await)["scope"], got);
    }
    // A parameter without a value is an omitted one (RFC 6749 §3.2).
    assert_eq!(given(&credentials(&server, &key, &[("scope", "")]).await)["scope"], "events:read events:write");
    for asked in [
        "users:write",
        "*",
        "events:*",
        "EVENTS:READ",
        "events",
        "events:read users:write",
        " ",
        " events:read",
        "events:read ",
        "events:read  events:write",
        "events:read\tevents:write",
        "events:read\nevents:write",
        "events:réad",
        "\"",
        "events:read,events:write",
    ] {
        assert_refused(asked, &credentials(&server, &key, &[("scope", asked)]).await, 400, "invalid_scope");
    }
    let refused = tenant.audit("key.exchange").await.into_iter().find(|entry| entry.outcome == "refused").unwrap();
    assert_eq!(detail(&refused)["reason"], "invalid_scope");
    // A key that holds nothing gets a token that says nothing: an empty `scope` is none (RFC 6749 §3.3).
    let bare = tenant.app_key("bare", &[]).await;
    assert!(given(&credentials(&server, &bare, &[]).await).get("scope").is_none());
}

#[actix_web::test]
async fn whatever_is_wrong_with_a_client_it_hears_one_and_the_same_invalid_client() {
    let server = Server::start_with(Options { throttle: UNTHROTTLED, ..Options::default() }).await;
    let tenant = server.tenant("acme").await;
    let other = server.tenant("other").await;
    let key = tenant.app_key("app", &SCOPES).await;
    let pair = |id: &str, secret: &str| basic(&format!("{id}:{secret}"));
    let form = [("grant_type", "client_credentials")];
    let wrong = ask(&server.with(&pair(&key.id, "wrong")), &form).await;
    assert_refused("a wrong secret", &wrong, 401, "invalid_client");
    for (what, path, header) in [
        ("an unknown key", TOKEN.to_owned(), pair("nokey", "S1")),
        ("another tenant's path", other.path(TOKEN), key.basic()),
        ("a tenant that is not there", "/t/nowhere/v1/token".to_owned(), key.basic()),
        ("no secret", TOKEN.to_owned(), pair(&key.id, "")),
        ("no colon", TOKEN.to_owned(), basic(&key.id)),
        ("o5: no base64", TOKEN.to_owned(), "Basic !!!".to_owned()),
        ("o5: half an octet", TOKEN.to_owned(), pair(&key.id, &format!("{}%2", key.secret))),
        ("o5: not UTF-8", TOKEN.to_owned(), pair(&key.id, &format!("{}%ff", key.secret))),
        ("a space in the secret", TOKEN.to_owned(), pair(&key.id, &format!("{}+", key.secret))),
        ("nothing at all", TOKEN.to_owned(), "Basic ".to_owned()),
    ] {
        let answer = ask_at(&server.with(&header), &path, &form).await;
        // A header of nothing but a scheme is no attempt at Basic, and is told so.
        if what != "nothing at all" {
            assert_eq!(answer.told(), wrong.told(), "{what}");
        }
        assert_refused(what, &answer, 401, "invalid_client");
    }
    let nobody = server.anonymous();
    assert_eq!(ask(&nobody, &form).await.told(), wrong.told(), "no client");
    let named = [("grant_type", "client_credentials"), ("client_id", &key.id)];
    assert_eq!(ask(&nobody, &named).await.told(), wrong.told(), "a client without its secret");
    assert_eq!(ask(&nobody, &[&named[..], &[("client_secret", "wrong")]].concat()).await.told(), wrong.told());
    let reasons: Vec<_> = tenant.audit("key.exchange").await.iter().map(|entry| detail(entry)["reason"].clone()).collect();
    assert_eq!(reasons, ["wrong_secret", "wrong_secret"], "as at /v1/authentications, known keys' failures are written down");
}

#[actix_web::test]
async fn p44_one_client_proves_itself_in_one_way() {
    let server = Server::start_with(Options { throttle: UNTHROTTLED, ..Options::default() }).await;
    let tenant = server.tenant("acme").await;
    let key = tenant.app_key("app", &SCOPES).await;
    let other = tenant.app_key("other", &SCOPES).await;
    let grant = ("grant_type", "client_credentials");
    let mine = server.with(&key.basic());
    let nobody = server.anonymous();
    let secret = ("client_secret", key.secret.as_str());
    let id = ("client_id", key.id.as_str());
    assert_refused("both ways", &ask(&mine, &[grant, id, secret]).await, 400, "invalid_request");
    assert_refused("both ways, the id once", &ask(&mine, &[grant, secret]).await, 400, "invalid_request");
    let wrong = [grant, id, ("client_secret", "wrong")];
    assert_refused("both ways, one wrong", &ask(&mine, &wrong).await, 400, "invalid_request");
    let two = [grant, ("client_id", other.id.as_str())];
    assert_refused("two clients", &ask(&mine, &two).await, 400, "invalid_request");
    assert_refused("a secret of nobody", &ask(&nobody, &[grant, secret]).await, 400, "invalid_request");
    let others = [grant, ("client_id", other.id.as_str()), secret];
    assert_refused("another's secret", &ask(&nobody, &others).await, 401, "invalid_client");
    // Ways that the metadata does not list.
    let token = access(&ask(&mine, &[grant]).await);
    for header in [format!("Bearer {token}"), key.pair(), format!("Digest username={}", key.id), format!("Basic{}", key.id)] {
        assert_refused(&header, &ask(&server.with(&header), &[grant]).await, 401, "invalid_client");
        // No secret in the form makes up for it.
        assert_refused(&header, &ask(&server.with(&header), &[grant, id, secret]).await, 400, "invalid_request");
    }
    let kind = ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    for more in [vec![kind, ("client_assertion", token.as_str())], vec![("client_assertion", "x")], vec![kind]] {
        let form = [&[grant], &more[..]].concat();
        assert_refused("an assertion", &ask(&nobody, &form).await, 401, "invalid_client");
        assert_refused("an assertion and Basic", &ask(&mine, &form).await, 401, "invalid_client");
    }
}

#[actix_web::test]
async fn o5_both_parts_of_basic_are_form_decoded() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let owner = Owner::Application(tenant.application("app").await);
    let odd = "100%+sure:it=is&a~secret!";
    let key = order_key(&tenant, owner, false, Some(&format!("odd~key-1.x:{odd}"))).await;
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let form = [("grant_type", "client_credentials")];
    given(&ask(&server.with(&basic(&format!("{}:{}", encoded(&key.id), encoded(odd)))), &form).await);
    let as_it_is = ask(&server.with(&basic(&format!("{}:{odd}", key.id))), &form).await;
    assert_refused("not encoded", &as_it_is, 401, "invalid_client");
    let post = [form[0], ("client_id", &key.id), ("client_secret", odd)];
    given(&ask(&server.anonymous(), &post).await);

    // Clients that encode every sign do so at introspection and revocation too; there, plain Basic is as good.
    let every_sign: String = key.id.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for header in [basic(&format!("{every_sign}:{}", encoded(odd))), basic(&format!("{}:{odd}", key.id))] {
        let answer = server.with(&header).introspect("/v1/introspect", "x").await;
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({ "active": false })));
    }
    let answer = server.with(&basic(&format!("{every_sign}:{odd}"))).introspect("/v1/introspect", "x").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "half of it encoded");
}

#[actix_web::test]
async fn p42_o1_a_parameter_comes_once_in_the_body_and_nowhere_else() {
    let server = Server::start_with(Options { throttle: UNTHROTTLED, ..Options::default() }).await;
    let tenant = server.tenant("acme").await;
    let key = tenant.app_key("app", &SCOPES).await;
    let mine = server.with(&key.basic());
    let grant = "grant_type=client_credentials";
    for twin in [
        "grant_type=client_credentials",
        "grant_type=refresh_token",
        "grant_type=",
        "grant%5Ftype=client_credentials",
        "scope=events:read&scope=events:read",
        "scope=events:read&scope=",
        "scope&scope=events:read",
        "client_id=a&client_id=b",
        "unknown=1&unknown=2",
    ] {
        assert_refused(twin, &ask_raw(&mine, &format!("{grant}&{twin}")).await, 400, "invalid_request");
    }
    for twin in [("resource", API), ("resource", "http://id.test/t/acme")] {
        let form = [("grant_type", "client_credentials"), ("resource", "http://id.test/t/acme"), twin];
        assert_refused("two resources", &ask(&mine, &form).await, 400, "invalid_target");
    }
    // Unknown ones, empty ones and empty pairs are ignored.
    given(
        &ask_raw(
            &mine,
            &format!("&{grant}&&audience=x&scope=&resource=&refresh_token&client_id=&client_secret=&client_assertion=&"),
        )
        .await,
    );

    for query in ["grant_type=client_credentials", "client_secret=x", "scope=", "refresh_token", "foo=1&client_id=x"] {
        let at = format!("{TOKEN}?{query}");
        assert_refused(query, &ask_at(&mine, &at, &[("grant_type", "client_credentials")]).await, 400, "invalid_request");
        assert_refused(query, &ask_at(&server.anonymous(), &at, &[]).await, 400, "invalid_request");
    }
    for body in [
        "grant_type=%",
        "grant_type=client_credentials&x=%zz",
        "%ff=1",
        "grant_type=client_credentials&scope=%ff",
        "grant_type=ü%80",
    ] {
        assert_refused(body, &ask_raw(&mine, body).await, 400, "invalid_request");
    }
    let twice = format!(
        "POST {TOKEN} HTTP/1.1\r\nHost: id.test\r\nConnection: close\r\nAuthorization: {0}\r\nAuthorization: {0}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {1}\r\n\r\n{grant}",
        key.basic(),
        grant.len()
    );
    let answer = raw(server.address, twice.as_bytes()).await;
    assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_request"));
}

#[actix_web::test]
async fn o3_the_endpoint_takes_posted_forms_alone_and_names_what_it_misses() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let key = tenant.app_key("app", &SCOPES).await;
    let mine = server.with(&key.basic());
    let json = mine.post(TOKEN, json!({ "grant_type": "client_credentials" })).await;
    assert_refused("JSON", &json, 400, "invalid_request");
    assert_refused("no body", &mine.post_empty(TOKEN).await, 400, "invalid_request");
    for kind in ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded2"] {
        let request = mine.request(Method::POST, TOKEN).header("Content-Type", kind).body("grant_type=client_credentials");
        assert_refused(kind, &send(request).await, 400, "invalid_request");
    }
    let kind = "Application/X-WWW-Form-Urlencoded; charset=UTF-8";
    let request = mine.request(Method::POST, TOKEN).header("Content-Type", kind).body("grant_type=client_credentials");
    given(&send(request).await);
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::HEAD] {
        let answer = send(mine.request(method.clone(), &format!("{TOKEN}?grant_type=client_credentials"))).await;
        assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST"), "{method}");
    }
    assert_refused("nothing", &ask(&mine, &[]).await, 400, "invalid_request");
    assert_refused("an empty grant", &ask(&mine, &[("grant_type", "")]).await, 400, "invalid_request");
    assert_refused("no refresh token", &ask(&mine, &[("grant_type", "refresh_token")]).await, 400, "invalid_request");
    for grant in ["password", "authorization_code", "implicit", "CLIENT_CREDENTIALS", "client_credentials ", "urn:x", "é"] {
        assert_refused(grant, &ask(&mine, &[("grant_type", grant)]).await, 400, "unsupported_grant_type");
    }
    let long = "x".repeat(70_000);
    assert_refused("too long", &ask(&mine, &[("grant_type", &long)]).await, 413, "invalid_request");
}

#[actix_web::test]
async fn failures_are_throttled_together_with_those_of_the_exchange() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let key = tenant.app_key("app", &SCOPES).await;
    let wrong = format!("{}:wrong", key.id);
    for _ in 0..2 {
        assert_eq!(server.with(&wrong).post_empty("/v1/authentications").await.status, StatusCode::NOT_FOUND);
        let answer = ask(&server.with(&basic(&wrong)), &[("grant_type", "client_credentials")]).await;
        assert_refused("a wrong secret", &answer, 401, "invalid_client");
    }
    let form = [("grant_type", "client_credentials"), ("client_id", &key.id), ("client_secret", "wrong")];
    assert_refused("the fifth", &ask(&server.anonymous(), &form).await, 401, "invalid_client");
    for answer in [credentials(&server, &key, &[]).await, refresh(&server.with(&key.basic()), "cr_x", &[]).await] {
        assert_refused("throttled", &answer, 429, "too_many_requests");
        assert_eq!(answer.header("retry-after"), "901");
    }
    server.clock.advance(TimeDelta::seconds(901));
    given(&credentials(&server, &key, &[]).await);
}

#[actix_web::test]
async fn every_switch_that_stops_a_key_stops_it_here() {
    let server = Server::start_with(Options { throttle: UNTHROTTLED, ..Options::default() }).await;
    server.default_tenant().await;
    let tenant = server.tenant("acme").await;
    let operator = Actor::operator();
    let issuer = &server.issuer;
    let disabled = tenant.app_key("disabled", &SCOPES).await;
    let revoked = tenant.app_key("revoked", &SCOPES).await;
    let expiring = tenant.app_key("expiring", &SCOPES).await;
    let ownerless = tenant.app_key("ownerless", &SCOPES).await;
    let person = tenant.user_key("alice", &SCOPES).await;
    let last = tenant.app_key("last", &SCOPES).await;
    for key in [&disabled, &revoked, &expiring, &ownerless, &person, &last] {
        given(&credentials(&server, key, &[]).await);
    }
    let change = KeyChange { disabled: Some(true), ..KeyChange::default() };
    issuer.change_key(tenant.id, &operator, &disabled.key_id(), change).await.unwrap();
    issuer.revoke_key(tenant.id, &operator, &revoked.key_id()).await.unwrap();
    let ends = server.clock.now() + TimeDelta::seconds(10);
    let change = KeyChange { expires_at: Some(Some(ends)), ..KeyChange::default() };
    issuer.change_key(tenant.id, &operator, &expiring.key_id(), change).await.unwrap();
    let Owner::Application(application) = ownerless.owner else { panic!("an application's") };
    issuer.delete_application(tenant.id, &operator, application).await.unwrap();
    let Owner::User(user) = person.owner else { panic!("a user's") };
    issuer.delete_user(tenant.id, &operator, user).await.unwrap();
    server.settle().await;
    assert!(given(&credentials(&server, &expiring, &[]).await)["expires_in"].as_i64().unwrap() <= 10, "no longer than the key");
    server.clock.advance(TimeDelta::seconds(10));
    for (what, key) in
        [("disabled", &disabled), ("revoked", &revoked), ("expired", &expiring), ("ownerless", &ownerless), ("person", &person)]
    {
        assert_refused(what, &credentials(&server, key, &[]).await, 401, "invalid_client");
    }
    let change = TenantChange { disabled: Some(true), ..TenantChange::default() };
    issuer.change_tenant(&operator, "acme", change).await.unwrap();
    server.settle().await;
    assert_refused("its tenant", &credentials(&server, &last, &[]).await, 401, "invalid_client");
}

#[actix_web::test]
async fn a_refresh_here_and_at_the_other_door_is_the_same_rotation() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let key = refreshing_key(&tenant, "app").await;
    let nobody = server.anonymous();
    let first = credentials(&server, &key, &[]).await;
    let second = refresh(&server.with(&key.basic()), &refresh_token(&first), &[]).await;
    assert_eq!(given(&second)["scope"], "events:read events:write");
    assert_eq!(given(&second)["expires_in"], 86_400);
    // The same answer once more, whichever door is asked and however the client proves itself.
    let post = [("client_id", key.id.as_str()), ("client_secret", key.secret.as_str())];
    let again = refresh(&nobody, &refresh_token(&first), &post).await;
    assert_eq!(given(&again), given(&second));
    let other_door = refresh_support::refresh(&server, &refresh_token(&first)).await;
    assert_eq!(other_door.json(), given(&second));
    let third = refresh_support::refresh(&server, &refresh_token(&second)).await.json();
    let narrowed = refresh(&nobody, third["refresh_token"].as_str().unwrap(), &[("scope", "events:read")]).await;
    assert_eq!(given(&narrowed)["scope"], "events:read");
    // More than was granted is refused and does not use the token.
    let more = refresh(&nobody, &refresh_token(&narrowed), &[("scope", "users:write")]).await;
    assert_refused("more", &more, 400, "invalid_scope");
    given(&refresh(&nobody, &refresh_token(&narrowed), &[]).await);

    // What was used long before is a sign of theft: the login ends, and that is told.
    let reused = refresh(&nobody, &refresh_token(&first), &[]).await;
    assert_refused("reused", &reused, 400, "invalid_grant");
    assert_eq!(reused.json()["reason"], "refresh_token_reused");
    assert_eq!(tenant.audit("token.reuse_detected").await.len(), 1);

    for garbage in ["x", "cr_x", "é", &access(&first)] {
        assert_refused("garbage", &refresh(&nobody, garbage, &[]).await, 400, "invalid_grant");
    }
    let fresh = refresh_token(&credentials(&server, &key, &[]).await);
    let other = server.tenant("other").await;
    for path in [other.path(TOKEN), "/t/nowhere/v1/token".to_owned()] {
        let form = [("grant_type", "refresh_token"), ("refresh_token", fresh.as_str())];
        assert_refused(&path, &ask_at(&nobody, &path, &form).await, 400, "invalid_grant");
    }
    given(&refresh(&nobody, &fresh, &[]).await);
}

#[actix_web::test]
async fn p11_p44_a_refresh_by_the_wrong_client_leaves_the_login_as_it_is() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let elsewhere = server.tenant("elsewhere").await;
    let client = tenant.app_key("client", &[]).await;
    let other = tenant.app_key("other", &[]).await;
    let foreign = elsewhere.app_key("client", &[]).await;
    tenant.user("alice", Some(PASSWORD)).await;
    let body = json!({ "username": "alice", "password": PASSWORD });
    let login = server.with(&client.basic()).post(&tenant.path("/v1/login"), body).await;
    assert_eq!(login.status, StatusCode::OK, "{}", login.text);
    let token = login.json()["refresh_token"].as_str().unwrap().to_owned();
    let id = Parts::of(&token).family;
    let mut database = server.database.superuser().await;
    let nobody = server.anonymous();
    let name = ("client_id", client.id.as_str());
    for (what, answer) in [
        ("nobody", refresh(&nobody, &token, &[]).await),
        ("a name alone", refresh(&nobody, &token, &[name]).await),
        ("another client", refresh(&server.with(&other.basic()), &token, &[]).await),
        ("another tenant's", refresh(&server.with(&foreign.basic()), &token, &[]).await),
    ] {
        assert_refused(what, &answer, 400, "invalid_grant");
        assert!(answer.json().get("reason").is_none(), "{what}");
        family(&mut database, id).await.assert_lives_at(0);
    }
    let wrong = basic(&format!("{}:wrong", client.id));
    let named_wrong = [name, ("client_secret", other.secret.as_str())];
    for (what, answer) in [
        ("its own, with a wrong secret", refresh(&server.with(&wrong), &token, &[]).await),
        ("its name with another's secret", refresh(&nobody, &token, &named_wrong).await),
        ("an old bearer", refresh(&server.with("Bearer a.b.c"), &token, &[]).await),
    ] {
        assert_refused(what, &answer, 401, "invalid_client");
        family(&mut database, id).await.assert_lives_at(0);
    }
    let next = refresh(&server.with(&client.basic()), &token, &[]).await;
    given(&next);
    family(&mut database, id).await.assert_lives_at(1);
    let post = [name, ("client_secret", client.secret.as_str())];
    given(&refresh(&nobody, &refresh_token(&next), &post).await);
    family(&mut database, id).await.assert_lives_at(2);
}

#[actix_web::test]
async fn a_login_without_a_client_is_refreshed_by_whoever_holds_its_token() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    let first = log_in(&tenant, "alice").await;
    let nobody = server.anonymous();
    // Public clients send their name along; it proves nothing and is not looked at.
    let second = refresh(&nobody, &first.refresh, &[("client_id", "my-app")]).await;
    assert_eq!(given(&second)["expires_in"], 900);
    assert!(given(&second).get("scope").is_none());
    let stranger = tenant.app_key("stranger", &[]).await;
    let answer = refresh(&server.with(&stranger.basic()), &refresh_token(&second), &[]).await;
    assert_refused("a client that it was not given to", &answer, 400, "invalid_grant");
    given(&refresh(&nobody, &refresh_token(&second), &[]).await);
}

#[actix_web::test]
async fn a_token_for_a_resource_is_good_there_and_not_at_our_own_endpoints() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant_with("acme", with_resource()).await;
    let bare = server.tenant("bare").await;
    let key = refreshing_key(&tenant, "app").await;
    let asker = tenant.app_key("asker", &["tokens:introspect"]).await;
    let first = credentials(&server, &key, &[("resource", API)]).await;
    let token = access(&first);
    assert_eq!(claims(&token)["aud"], API);
    let me = server.with(&format!("Bearer {token}")).get("/v1/me").await;
    assert_eq!((me.status, me.error().as_str()), (StatusCode::UNAUTHORIZED, "invalid_token"));
    for by in [&asker, &key] {
        let known = introspected(&server, by, &token).await;
        assert_eq!((&known["active"], &known["aud"]), (&json!(true), &json!([API])));
    }
    let written = &tenant.audit("key.exchange").await[0];
    assert_eq!(detail(written)["audience"], API);

    // A refresh asks anew; without a wish it is for us.
    let second = refresh(&server.anonymous(), &refresh_token(&first), &[]).await;
    assert_eq!(claims(&access(&second))["aud"], "http://id.test/t/acme");
    let third = refresh(&server.anonymous(), &refresh_token(&second), &[("resource", API)]).await;
    assert_eq!(claims(&access(&third))["aud"], API);
    let issuer = refresh(&server.anonymous(), &refresh_token(&third), &[("resource", "http://id.test/t/acme")]).await;
    assert_eq!(claims(&access(&issuer))["aud"], "http://id.test/t/acme");

    let refusals = [
        "https://api.example.com",
        "https://api.example.com/v1/",
        "https://API.example.com/v1",
        "https://api.example.com/v1#x",
        "http://id.test/t/bare",
        "http://id.test",
        "api",
        "*",
        " ",
    ];
    for resource in refusals {
        assert_refused(resource, &credentials(&server, &key, &[("resource", resource)]).await, 400, "invalid_target");
        let answer = refresh(&server.anonymous(), &refresh_token(&issuer), &[("resource", resource)]).await;
        assert_refused(resource, &answer, 400, "invalid_target");
    }
    assert_eq!(detail(&tenant.audit("key.exchange").await[0])["reason"], "invalid_target");
    given(&refresh(&server.anonymous(), &refresh_token(&issuer), &[]).await);
    // What one tenant lists is nothing to another.
    let foreign = bare.app_key("app", &[]).await;
    assert_refused("another tenant's", &credentials(&server, &foreign, &[("resource", API)]).await, 400, "invalid_target");

    // Whoever is not let in does not hear which resources there are.
    let wrong = server.with(&basic(&format!("{}:wrong", key.id)));
    for resource in [API, "https://unknown.example"] {
        let answer = ask(&wrong, &[("grant_type", "client_credentials"), ("resource", resource)]).await;
        assert_refused(resource, &answer, 401, "invalid_client");
    }
    let ended = refresh(&server.anonymous(), &refresh_token(&first), &[("resource", "https://unknown.example")]).await;
    assert_refused("a used token", &ended, 400, "invalid_grant");
}

#[actix_web::test]
async fn what_cannot_be_written_down_is_a_503_in_the_same_form_and_no_token() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let key = refreshing_key(&tenant, "app").await;
    let token = refresh_token(&credentials(&server, &key, &[]).await);
    let mut database = server.database.superuser().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE audit_heads IN ACCESS EXCLUSIVE MODE").execute(&mut database).await.unwrap();
    let (nobody, wrong) = (server.anonymous(), server.with(&basic(&format!("{}:wrong", key.id))));
    let form = [("grant_type", "client_credentials")];
    let (exchanged, refreshed, refused) =
        tokio::join!(credentials(&server, &key, &[]), refresh(&nobody, &token, &[]), ask(&wrong, &form));
    for (what, answer) in [("an exchange", exchanged), ("a refresh", refreshed), ("a refusal", refused)] {
        assert_refused(what, &answer, 503, "temporarily_unavailable");
        assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{what}");
    }
    sqlx::raw_sql("COMMIT").execute(&mut database).await.unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    let again = loop {
        let answer = refresh(&nobody, &token, &[]).await;
        if answer.status != StatusCode::SERVICE_UNAVAILABLE || Instant::now() > until {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    given(&again);
    family(&mut database, Parts::of(&token).family).await.assert_lives_at(1);
}

#[actix_web::test]
async fn a_refusal_of_a_client_is_heard_no_sooner_than_at_the_other_door() {
    let server = Server::start_with(Options { throttle: UNTHROTTLED, ..Options::default() }).await;
    let tenant = server.tenant("acme").await;
    let key = tenant.app_key("app", &SCOPES).await;
    let form = [("grant_type", "client_credentials")];
    for header in [format!("{}:wrong", key.id), "nokey:S1".into(), "nonsense".into()] {
        for path in [TOKEN, "/t/nowhere/v1/token"] {
            let began = Instant::now();
            assert_refused(&header, &ask_at(&server.with(&basic(&header)), path, &form).await, 401, "invalid_client");
            assert!(began.elapsed() >= Duration::from_millis(20), "{header} at {path}");
        }
    }
}

#[actix_web::test]
async fn resources_are_a_setting_of_the_tenant_that_is_checked_and_shown() {
    let server = Server::start().await;
    let admin = server.default_tenant().await.admin().await.basic();
    let client = server.with(&admin);
    let made = client.post("/v1/tenants", json!({ "slug": "acme", "settings": { "resources": [API, "urn:example:api"] } })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.json()["settings"]["resources"], json!([API, "urn:example:api"]));
    for wrong in [json!(["api"]), json!(["https://a#b"]), json!([API, API]), json!(["https://a b"]), json!([""])] {
        let answer = client.patch("/v1/tenants/acme", json!({ "settings": { "resources": wrong } })).await;
        assert_eq!(answer.wrong_field(), "resources", "{wrong}");
    }
    let cleared = client.patch("/v1/tenants/acme", json!({ "settings": {} })).await;
    assert_eq!(cleared.json()["settings"], json!({}));
}

#[actix_web::test]
async fn the_metadata_say_what_the_endpoint_does() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let key = refreshing_key(&tenant, "app").await;
    let metadata = server.anonymous().get(&tenant.path(METADATA)).await.json();
    let path_of = |link: &str| metadata[link].as_str().unwrap().strip_prefix("http://id.test").unwrap().to_owned();
    let endpoint = path_of("token_endpoint");
    assert_eq!(endpoint, "/t/acme/v1/token");
    let listed = |name: &str| -> Vec<String> { serde_json::from_value(metadata[name].clone()).unwrap() };

    // Every grant that is listed gives a token, and no other is known.
    let token = refresh_token(&credentials(&server, &key, &[]).await);
    let mine = server.with(&key.basic());
    for grant in listed("grant_types_supported").iter().filter(|grant| !grant.contains("token-exchange")) {
        given(&ask_at(&mine, &endpoint, &[("grant_type", grant), ("refresh_token", &token)]).await);
    }
    for grant in ["authorization_code", "password", "urn:ietf:params:oauth:grant-type:token-exchange"] {
        let answer = ask_at(&mine, &endpoint, &[("grant_type", grant)]).await;
        let known = listed("grant_types_supported").iter().any(|listed| listed == grant);
        assert_eq!(answer.json()["error"] != "unsupported_grant_type", known, "{grant}");
    }

    // Every way to prove oneself that is listed works, and no other does.
    let ways = listed("token_endpoint_auth_methods_supported");
    assert_eq!(ways, ["client_secret_basic", "client_secret_post", "none"]);
    let refreshed = |form: &[(&'static str, String)]| {
        let mut form: Vec<(&'static str, String)> = form.to_vec();
        form.push(("grant_type", "refresh_token".into()));
        form
    };
    let mut token = refresh_token(&credentials(&server, &key, &[]).await);
    for way in &ways {
        let (client, more) = match way.as_str() {
            "client_secret_basic" => (server.with(&key.basic()), vec![]),
            "client_secret_post" => {
                (server.anonymous(), vec![("client_id", key.id.clone()), ("client_secret", key.secret.clone())])
            }
            _ => (server.anonymous(), vec![]),
        };
        let form = refreshed(&[&more[..], &[("refresh_token", token.clone())]].concat());
        token = refresh_token(&send(client.request(Method::POST, &endpoint).form(&form)).await);
    }

    // Revocation and introspection: as listed, and without where that is listed.
    let revocation = path_of("revocation_endpoint");
    let introspection = path_of("introspection_endpoint");
    for (endpoint, name, without) in [
        (&revocation, "revocation_endpoint_auth_methods_supported", StatusCode::OK),
        (&introspection, "introspection_endpoint_auth_methods_supported", StatusCode::UNAUTHORIZED),
    ] {
        assert!(listed(name).contains(&"client_secret_basic".to_owned()));
        assert_eq!(mine.introspect(endpoint, "x").await.status, StatusCode::OK);
        assert_eq!(listed(name).contains(&"none".to_owned()), without == StatusCode::OK, "{name}");
        assert_eq!(server.anonymous().introspect(endpoint, "x").await.status, without, "{name}");
    }
}
