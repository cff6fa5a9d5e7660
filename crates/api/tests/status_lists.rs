//! Status lists: the bit of a token is set as soon as introspection refuses it, on every server, and tells nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use claviger_issuer::audit::Actor;
use claviger_issuer::clock::Clock;
use claviger_issuer::settings::TenantSettings;
use claviger_verifier::{CutOff, KeySet, Refused, Unavailable, Verifier};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::Connection as _;
use support::{Key, Options, Server, claims, jose_header};

fn real_time() -> Options {
    Options { clock: Some(Clock::System), ..Options::default() }
}

async fn register(server: &Server, admin: &Key, name: &str, profile: Value) -> String {
    let body = json!({ "name": name, "uri": format!("https://{name}.example"), "profile": profile });
    let answer = server.with(&admin.basic()).post("/t/acme/v1/audiences", body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn token(server: &Server, key: &Key, audience: &str) -> String {
    let answer = server.with(&key.pair()).post("/v1/authentications", json!({ "audience": audience })).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    answer.json()["jwt"].as_str().unwrap().to_owned()
}

/// Where a token's bit is: the list's path and the bit.
fn place(jwt: &str) -> (String, usize) {
    let list = &claims(jwt)["status"]["status_list"];
    let path = list["uri"].as_str().unwrap().strip_prefix("http://id.test").unwrap().to_owned();
    (path, usize::try_from(list["idx"].as_u64().unwrap()).unwrap())
}

/// The bits of a list, read with nothing of ours.
fn unpack(jws: &str) -> Vec<u8> {
    let lst = claims(jws)["status_list"]["lst"].as_str().unwrap().to_owned();
    let mut bits = Vec::new();
    flate2::read::ZlibDecoder::new(&URL_SAFE_NO_PAD.decode(lst).unwrap()[..]).read_to_end(&mut bits).unwrap();
    bits
}

fn is_set(bits: &[u8], place: usize) -> bool {
    bits[place / 8] >> (place % 8) & 1 == 1
}

async fn bit(server: &Server, jwt: &str) -> bool {
    let (path, place) = place(jwt);
    let answer = server.anonymous().get(&path).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    is_set(&unpack(&answer.text), place)
}

async fn is_active(server: &Server, admin: &Key, jwt: &str) -> bool {
    server.with(&admin.basic()).introspect("/t/acme/v1/introspect", jwt).await.json()["active"] == true
}

/// Both servers set the bit of a token that counts no more, within a second; those of others stay as they are.
async fn is_told(servers: [&Server; 2], admin: &Key, revoked: &str, others: &[&str], how: &str) {
    let began = Instant::now();
    for server in servers {
        while !bit(server, revoked).await {
            assert!(began.elapsed() < Duration::from_secs(1), "{how}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!is_active(server, admin, revoked).await, "{how}");
        for other in others {
            assert!(!bit(server, other).await && is_active(server, admin, other).await, "{how}: another");
        }
    }
}

#[actix_web::test]
async fn whatever_revokes_a_token_sets_its_bit_on_every_server_within_a_second() {
    let a = Server::start_with(real_time()).await;
    let b = a.replica(real_time()).await;
    let acme = a.tenant("acme").await;
    let admin = acme.admin().await;
    // Of the claims that the feed names, its tokens have none.
    register(&a, &admin, "metrics", json!({ "status_list": true, "subject": "username", "claims": [] })).await;
    let by_admin = a.with(&admin.basic());
    let (off, on) = (json!({ "disabled": true }), json!({ "disabled": false }));
    let (ann, bob) = (acme.user_key("ann", &["m:r"]).await, acme.user_key("bob", &["m:r"]).await);
    let other = token(&b, &bob, "metrics").await;
    let others = [other.as_str()];
    let told = async |revoked: &str, how: &str| is_told([&a, &b], &admin, revoked, &others, how).await;

    // The token alone: by its id, and by whoever holds it (RFC 7009).
    let entry = a.issuer.tenant("acme").await.unwrap().unwrap();
    let (one, two) = (token(&a, &ann, "metrics").await, token(&b, &ann, "metrics").await);
    a.issuer
        .revoke_token_by_id(&entry, &Actor::operator(), claims(&one)["jti"].as_str().unwrap().parse().unwrap())
        .await
        .unwrap();
    told(&one, "by its id").await;
    assert!(!bit(&a, &two).await, "another of the same key");
    let form = b.anonymous().request(Method::POST, "/t/acme/v1/token/revoke").form(&[("token", &two)]);
    assert_eq!(support::wire::send(form).await.status, StatusCode::OK);
    told(&two, "by its holder").await;

    // Its key: off and on again, and revoked.
    let key = format!("/t/acme/v1/keys/{}", ann.id);
    let before = token(&a, &ann, "metrics").await;
    by_admin.patch(&key, off.clone()).await;
    told(&before, "a key that is off").await;
    by_admin.patch(&key, on.clone()).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let after = token(&b, &ann, "metrics").await;
    assert!(bit(&a, &before).await && bit(&b, &before).await, "what was issued before stays revoked");
    assert!(!bit(&a, &after).await && !bit(&b, &after).await);
    by_admin.delete(&key).await;
    told(&after, "a revoked key").await;

    // The person, off; the application, deleted.
    let key = acme.user_key("carol", &["m:r"]).await;
    let jwt = token(&a, &key, "metrics").await;
    by_admin.patch(&format!("/t/acme/v1/users/{}", key.subject()), off.clone()).await;
    told(&jwt, "a person who is off").await;
    let key = acme.app_key("machine", &[]).await;
    let jwt = token(&a, &key, "metrics").await;
    by_admin.delete(&format!("/t/acme/v1/applications/{}", key.subject())).await;
    told(&jwt, "an application that is gone").await;
    // One that an operator issued by hand stands on a person alone.
    let person = acme.user("dora", None).await;
    let jwt = a.issuer.issue_token(&entry, &Actor::operator(), person, Some("metrics"), None, Some(3600)).await.unwrap();
    by_admin.delete(&format!("/t/acme/v1/users/{person}")).await;
    told(&jwt, "a person who is gone").await;

    // All of a tenant's.
    let platform = a.default_tenant().await.admin().await;
    a.with(&platform.basic()).patch("/v1/tenants/acme", off).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(bit(&a, &other).await && bit(&b, &other).await);
}

#[actix_web::test]
async fn a_list_is_signed_says_whose_it_is_and_how_long_it_may_be_kept() {
    let server = Server::start().await;
    let acme = server.tenant("acme").await;
    let admin = acme.admin().await;
    register(&server, &admin, "plain", json!({})).await;
    let id = register(&server, &admin, "own", json!({ "status_list": true, "own_key": true, "algorithm": "ES256" })).await;
    let key = acme.user_key("ann", &[]).await;
    assert_eq!(claims(&token(&server, &key, "plain").await).get("status"), None, "nobody asked for it");
    let jwt = token(&server, &key, "own").await;
    let (path, _) = place(&jwt);

    let answer = server.anonymous().get(&path).await;
    assert_eq!(answer.header("content-type"), "application/statuslist+jwt");
    assert_eq!(answer.header("cache-control"), "public, max-age=60");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let (header, list) = (jose_header(&answer.text), claims(&answer.text));
    assert_eq!((&header["typ"], &header["kid"]), (&json!("statuslist+jwt"), &jose_header(&jwt)["kid"]));
    let names: BTreeSet<&str> = list.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["exp", "iat", "iss", "status_list", "sub", "ttl"]));
    assert_eq!(list["sub"], claims(&jwt)["status"]["status_list"]["uri"]);
    assert_eq!((&list["ttl"], &list["status_list"]["bits"]), (&json!(60), &json!(1)));
    assert_eq!(list["exp"].as_i64().unwrap() - list["iat"].as_i64().unwrap(), 600);
    assert_eq!(unpack(&answer.text), vec![0; 4096]);
    // It is no access token, and no access token is a list.
    let jwks = server.anonymous().get("/t/acme/.well-known/jwks.json").await.text;
    let expected = claviger_verifier::Expected { issuer: "http://id.test/t/acme", audience: None, leeway_seconds: 0 };
    let taken =
        claviger_verifier::verify(&answer.text, &KeySet::from_jwks(&jwks).unwrap(), &expected, list["iat"].as_i64().unwrap());
    assert_eq!(taken, Err(claviger_verifier::Rejection::Type));

    let all = server.anonymous().get("/t/acme/v1/status-lists").await.json();
    assert_eq!(all, json!({ "status_lists": [list["sub"]] }));
    let metadata = server.anonymous().get("/t/acme/.well-known/oauth-authorization-server").await.json();
    assert_eq!(metadata["status_list_aggregation_endpoint"], "http://id.test/t/acme/v1/status-lists");

    let ask = |accept: &'static str| server.anonymous().request(Method::GET, &path).header("accept", accept);
    for (accept, status) in [
        ("application/statuslist+jwt", StatusCode::OK),
        ("text/html, */*;q=0.1", StatusCode::OK),
        ("application/statuslist+cwt", StatusCode::NOT_ACCEPTABLE),
    ] {
        assert_eq!(support::wire::send(ask(accept)).await.status, status, "{accept}");
    }
    for (query, status) in [("?time=1700000000", StatusCode::NOT_IMPLEMENTED), ("?x=1", StatusCode::UNPROCESSABLE_ENTITY)] {
        assert_eq!(server.anonymous().get(&format!("{path}{query}")).await.status, status, "{query}");
    }
    let other = server.tenant("other").await;
    let elsewhere = path.replace("/t/acme/", "/t/other/");
    for absent in
        [elsewhere.as_str(), "/t/acme/v1/status-lists/00000000-0000-4000-8000-000000000000", "/t/acme/v1/status-lists/x"]
    {
        assert_eq!(server.anonymous().get(absent).await.status, StatusCode::NOT_FOUND, "{absent}");
    }
    assert_eq!(server.anonymous().get(&other.path("/v1/status-lists")).await.json(), json!({ "status_lists": [] }));
    // What its own key signed counts no more; the list is still there, under a key that is.
    server.with(&admin.basic()).delete(&format!("/t/acme/v1/audiences/{id}")).await;
    server.clock.advance(TimeDelta::seconds(5));
    assert_ne!(jose_header(&server.anonymous().get(&path).await.text)["kid"], header["kid"]);
}

#[actix_web::test]
async fn where_revocations_are_private_so_are_the_lists() {
    let server = Server::start().await;
    let private = TenantSettings { revocations_private: Some(true), ..TenantSettings::default() };
    let acme = server.tenant_with("acme", private).await;
    let admin = acme.admin().await;
    register(&server, &admin, "metrics", json!({ "status_list": true })).await;
    let (reader, nobody) = (acme.app_key("reader", &["revocations:read"]).await, acme.app_key("nobody", &[]).await);
    let (path, _) = place(&token(&server, &nobody, "metrics").await);
    for path in [path.as_str(), "/t/acme/v1/status-lists"] {
        assert_eq!(server.anonymous().get(path).await.status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(server.with(&nobody.basic()).get(path).await.status, StatusCode::FORBIDDEN, "{path}");
        let answer = server.with(&reader.basic()).get(path).await;
        assert_eq!((answer.status, answer.header("cache-control")), (StatusCode::OK, "private, max-age=60"), "{path}");
    }
}

#[actix_web::test]
async fn every_token_has_a_place_of_its_own_on_whichever_server_and_a_full_list_is_followed_by_another() {
    let a = Server::start_with(real_time()).await;
    let b = a.replica(real_time()).await;
    let acme = a.tenant("acme").await;
    let admin = acme.admin().await;
    register(&a, &admin, "metrics", json!({ "status_list": true })).await;
    register(&a, &admin, "other", json!({ "status_list": true })).await;
    let key = acme.user_key("ann", &[]).await;
    let first = place(&token(&a, &key, "metrics").await).0;
    assert_ne!(place(&token(&a, &key, "other").await).0, first, "each audience has its own");
    let mut superuser = a.database.superuser().await;
    sqlx::query("UPDATE status_lists SET given = octet_length(places) / 2 - 10").execute(&mut superuser).await.unwrap();
    superuser.close().await.unwrap();

    let issue = |n: usize| {
        let (server, key) = (if n.is_multiple_of(2) { &a } else { &b }, &key);
        async move { place(&token(server, key, "metrics").await) }
    };
    let places = futures_util::future::join_all((0..60).map(issue)).await;
    assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), 60, "no two at one place");
    let mut lists: BTreeMap<&str, usize> = BTreeMap::new();
    for (list, _) in &places {
        *lists.entry(list).or_default() += 1;
    }
    assert_eq!((lists.len(), lists[first.as_str()]), (2, 10), "one after the other");
    let second: Vec<usize> = places.iter().filter(|(list, _)| *list != first).map(|(_, place)| *place).collect();
    assert!(!second.is_sorted() && second.iter().any(|place| *place > 1_000), "a place tells nothing: {second:?}");
}

#[actix_web::test]
async fn a_list_goes_when_all_of_its_tokens_have_ended() {
    let server = Server::start().await;
    let acme = server.tenant("acme").await;
    let admin = acme.admin().await;
    let id = register(&server, &admin, "metrics", json!({ "status_list": true, "lifetime": 3600 })).await;
    let key = acme.user_key("ann", &[]).await;
    let (path, _) = place(&token(&server, &key, "metrics").await);
    let status = async || server.anonymous().get(&path).await.status;
    server.clock.advance(TimeDelta::days(3));
    server.issuer.upkeep().await;
    assert_eq!(status().await, StatusCode::OK, "there is room in it");
    let later = token(&server, &key, "metrics").await;
    assert_eq!(place(&later).0, path);
    server.with(&admin.basic()).delete(&format!("/t/acme/v1/audiences/{id}")).await;
    server.clock.advance(TimeDelta::hours(24));
    server.issuer.upkeep().await;
    assert_eq!(status().await, StatusCode::OK, "its last token ended less than a day ago");
    server.clock.advance(TimeDelta::hours(2));
    server.issuer.upkeep().await;
    server.clock.advance(TimeDelta::seconds(5));
    assert_eq!(status().await, StatusCode::NOT_FOUND);
    let mut superuser = server.database.superuser().await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM listed_tokens").fetch_one(&mut superuser).await.unwrap();
    superuser.close().await.unwrap();
    assert_eq!(left, 0);
}

#[actix_web::test]
async fn a_verifier_refuses_by_the_list_alone_and_everything_when_it_is_too_old() {
    let server = Server::start_with(real_time()).await;
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let public = Options { public_url: Some(format!("http://{proxy}")), ..real_time() };
    let near = server.replica(public).await;
    // What the tokens name leads to the server, until it is switched off.
    let listener = tokio::net::TcpListener::bind(proxy).await.unwrap();
    let address = near.address;
    let pass = actix_web::rt::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            actix_web::rt::spawn(async move {
                let Ok(mut far) = tokio::net::TcpStream::connect(address).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut client, &mut far).await;
            });
        }
    });
    let acme = near.tenant("acme").await;
    let admin = acme.admin().await;
    register(&near, &admin, "metrics", json!({ "status_list": true, "claims": [] })).await;
    let key = acme.user_key("ann", &[]).await;
    let (good, bad) = (token(&near, &key, "metrics").await, token(&near, &key, "metrics").await);

    let ahead = Arc::new(AtomicI64::new(0));
    let clock = {
        let ahead = ahead.clone();
        move || Clock::System.now().timestamp() + ahead.load(Ordering::SeqCst)
    };
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let verifier = Verifier::builder(format!("http://{proxy}/t/acme"))
        .audience("https://metrics.example")
        .when_cut_off(CutOff::NotFollowed)
        .status_lists()
        .http_client(http)
        .clock(clock)
        .build()
        .unwrap();
    assert!(verifier.verify(&good).await.is_ok() && verifier.verify(&bad).await.is_ok());
    let entry = near.issuer.tenant("acme").await.unwrap().unwrap();
    near.issuer
        .revoke_token_by_id(&entry, &Actor::operator(), claims(&bad)["jti"].as_str().unwrap().parse().unwrap())
        .await
        .unwrap();
    assert!(verifier.verify(&bad).await.is_ok(), "the list that it has is fresh");
    // Nobody asks more often than each second, whatever its clock says.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    ahead.store(61, Ordering::SeqCst);
    assert_eq!(verifier.verify(&bad).await, Err(Refused::Revoked));
    assert!(verifier.verify(&good).await.is_ok());
    // While the list cannot be fetched, it counts until it ends.
    pass.abort();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    ahead.store(300, Ordering::SeqCst);
    assert!(verifier.verify(&good).await.is_ok());
    assert_eq!(verifier.verify(&bad).await, Err(Refused::Revoked));
    ahead.store(620, Ordering::SeqCst);
    assert_eq!(verifier.verify(&good).await, Err(Refused::Unavailable(Unavailable::StatusList)));
}

#[actix_web::test]
async fn scenario_42_a_token_without_an_end_says_none_and_ends_with_its_key_here_in_the_feed_and_in_its_list() {
    let server = Server::start().await;
    let acme = server.tenant("acme").await;
    let profile = json!({ "status_list": true, "omit_exp": true, "allow_non_expiring": true });
    register(&server, &acme.admin().await, "cc", profile).await;
    // As every key, this one ends a year from now.
    let key = acme.user_key("ann", &[]).await;
    let jwt = token(&server, &key, "cc").await;
    assert_eq!(claims(&jwt).get("exp"), None);
    let form = json!({ "audience": "cc" });
    let told = server.with(&key.pair()).post("/v1/authentications", form).await.json();
    assert_eq!(told.get("expires_in"), None);
    let feed = async || claims(&server.anonymous().get("/t/acme/v1/revocations").await.text);
    let bob = acme.user_key("bob", &[]).await;
    let other = token(&server, &bob, "cc").await;

    server.clock.advance(TimeDelta::days(364));
    server.issuer.make_room().await.unwrap();
    let admin = acme.app_key("asker", &["tokens:introspect", "keys:write"]).await;
    assert!(is_active(&server, &admin, &jwt).await && !bit(&server, &jwt).await);
    let later = json!({ "expires_at": (server.clock.now() + TimeDelta::days(300)).to_rfc3339() });
    let extended = server.with(&admin.basic()).patch(&format!("/t/acme/v1/keys/{}", bob.id), later).await;
    assert_eq!(extended.status, StatusCode::OK, "{}", extended.text);

    server.clock.advance(TimeDelta::days(2));
    assert!(!is_active(&server, &admin, &jwt).await, "its key has ended");
    assert!(bit(&server, &jwt).await);
    let of = |feed: &Value, key: &str| feed["entries"].as_array().unwrap().iter().find(|entry| entry[1] == key).cloned();
    assert_eq!(of(&feed().await, &key.id), Some(json!(["key_id", key.id, null])), "for ever: the token has no end");
    assert!(is_active(&server, &admin, &other).await && !bit(&server, &other).await, "its key was given longer");
    assert_eq!(of(&feed().await, &bob.id), None);
    let cursor = feed().await["cursor"].clone();
    assert_eq!(feed().await["cursor"], cursor, "noted once");
    server.clock.advance(TimeDelta::days(300));
    assert!(bit(&server, &other).await);
    assert_eq!(of(&feed().await, &bob.id), Some(json!(["key_id", bob.id, null])));
}
