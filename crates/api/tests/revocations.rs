//! The revocation feed: what is revoked is in it, once, in order, signed, and within a second.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use claviger_issuer::audit::Actor;
use claviger_issuer::clock::Clock;
use claviger_issuer::key::KeyOrder;
use claviger_issuer::settings::TenantSettings;
use claviger_store::id::{Owner, TokenId};
use futures_util::StreamExt as _;
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sqlx::Connection as _;
use support::{Answer, Key, Options, Server, Tenant, claims, jose_header};

const PASSWORD: &str = "a long enough passphrase";

fn real_time() -> Options {
    Options { clock: Some(Clock::System), ..Options::default() }
}

/// The claims of a batch whose signature holds.
async fn checked(tenant: &Tenant<'_>, jws: &str) -> Value {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};
    let jwk = tenant.server.anonymous().get(&tenant.path("/v1/public-key?format=jwk")).await.json();
    let header = jose_header(jws);
    assert_eq!((&header["typ"], &header["kid"]), (&json!("revocations+jwt"), &jwk["kid"]));
    let raw: [u8; 32] = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap()).unwrap().try_into().unwrap();
    let (signed, signature) = jws.rsplit_once('.').unwrap();
    let signature = Signature::from_slice(&URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    VerifyingKey::from_bytes(&raw).unwrap().verify(signed.as_bytes(), &signature).unwrap();
    let batch = claims(jws);
    assert_eq!((&batch["iss"], &batch["tid"]), (&json!(format!("http://id.test/t/{}", tenant.slug)), &json!(tenant.id)));
    batch
}

async fn read(tenant: &Tenant<'_>, query: &str) -> Value {
    let answer = tenant.server.anonymous().get(&tenant.path(&format!("/v1/revocations{query}"))).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/revocations+jwt");
    checked(tenant, &answer.text).await
}

/// The one entry that a deed left behind.
async fn entry_of(tenant: &Tenant<'_>, cursor: &mut i64) -> Value {
    let batch = read(tenant, &format!("?since={cursor}")).await;
    assert_eq!(batch["prev"], *cursor);
    let entries = batch["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 1, "{batch}");
    assert_eq!(batch["cursor"], *cursor + 1, "without gaps");
    *cursor += 1;
    entries[0].clone()
}

async fn refreshing_key(tenant: &Tenant<'_>, owner: Owner) -> Key {
    let order = KeyOrder {
        owner,
        name: "refreshing".into(),
        scopes: vec![],
        roles: vec![],
        acting: claviger_issuer::acting::ActingRule::default(),
        token_lifetime: None,
        refresh: true,
        expires_at: Some(None),
        limits: claviger_issuer::limits::KeyLimits::default(),
        import: None,
    };
    let made = tenant.server.issuer.create_key(tenant.id, &Actor::operator(), order).await.unwrap();
    Key { id: made.key.id.to_string(), secret: made.secret.expose_secret().to_owned(), owner }
}

fn ok(answer: &Answer) {
    assert!(answer.status.is_success(), "{}", answer.text);
}

#[actix_web::test]
async fn every_way_of_revoking_leaves_an_entry() {
    let server = Server::start_with(real_time()).await;
    let platform = server.default_tenant().await;
    let platform = platform.admin().await;
    let acme = server.tenant("acme").await;
    let admin = acme.admin().await;
    let admin = server.with(&admin.basic());
    let (off, on) = (json!({ "disabled": true }), json!({ "disabled": false }));
    let now = || Clock::System.now().timestamp();
    let lives = |entry: &Value, seconds: i64| {
        let until = entry[2].as_i64().unwrap() - now();
        assert!((seconds..=seconds + 70).contains(&until), "{entry} ends in {until} seconds, not {seconds}");
    };
    let hundred_days = 8_640_000;

    let empty = read(&acme, "").await;
    assert_eq!((&empty["prev"], &empty["cursor"], &empty["entries"]), (&Value::Null, &json!(0), &json!([])));
    let mut cursor = 0;

    // A key: off, on again, off for good.
    let key = acme.app_key("one", &[]).await;
    let path = acme.path(&format!("/v1/keys/{}", key.id));
    ok(&admin.patch(&path, off.clone()).await);
    let entry = entry_of(&acme, &mut cursor).await;
    assert_eq!((&entry[0], &entry[1], entry.as_array().unwrap().len()), (&json!("key_id"), &json!(key.id), 3));
    lives(&entry, hundred_days - 5);
    ok(&admin.patch(&path, on.clone()).await);
    let entry = entry_of(&acme, &mut cursor).await;
    assert_eq!((&entry[0], &entry[1]), (&json!("key_id"), &json!(key.id)));
    assert!((now() - 5..=now()).contains(&entry[3].as_i64().unwrap()), "what was issued until now stays revoked: {entry}");
    ok(&admin.delete(&path).await);
    let entry = entry_of(&acme, &mut cursor).await;
    assert_eq!((&entry[1], entry.as_array().unwrap().len()), (&json!(key.id), 3));
    // What is changed otherwise revokes nothing.
    let key = acme.app_key("changed", &[]).await;
    let path = acme.path(&format!("/v1/keys/{}", key.id));
    let later = Clock::System.now() + TimeDelta::days(1);
    ok(&admin.patch(&path, json!({ "name": "other", "scopes": ["a:b"], "expires_at": later.to_rfc3339() })).await);
    assert_eq!(read(&acme, &format!("?since={cursor}")).await["entries"], json!([]));

    // An application and its key's tokens.
    let key = acme.app_key("two", &[]).await;
    let path = acme.path(&format!("/v1/applications/{}", key.subject()));
    for (body, length) in [(&off, 3), (&on, 4)] {
        ok(&admin.patch(&path, body.clone()).await);
        let entry = entry_of(&acme, &mut cursor).await;
        assert_eq!((&entry[0], &entry[1]), (&json!("client_id"), &json!(key.subject())));
        assert_eq!(entry.as_array().unwrap().len(), length, "{entry}");
    }
    ok(&admin.delete(&path).await);
    assert_eq!(entry_of(&acme, &mut cursor).await[1], key.subject());

    // A login's end, in all its ways. Its entry lives as long as its last token: 15 minutes.
    let ann = acme.user("ann", Some(PASSWORD)).await;
    let sid = |login: &Value| claims(login["access_token"].as_str().unwrap())["sid"].clone();
    let ended = async |login: &Value, cursor: &mut i64| {
        let entry = entry_of(&acme, cursor).await;
        assert_eq!((&entry[0], &entry[1], entry.as_array().unwrap().len()), (&json!("sid"), &sid(login), 3));
        lives(&entry, 895);
    };
    let bearer = |login: &Value| format!("Bearer {}", login["access_token"].as_str().unwrap());
    let refresh =
        async |token: &Value| server.anonymous().post(&acme.path("/v1/token/refresh"), json!({ "refresh_token": token })).await;
    let login = acme.log_in("ann", PASSWORD).await;
    ok(&server.with(&bearer(&login)).post_empty(&acme.path("/v1/logout")).await);
    ended(&login, &mut cursor).await;
    let login = acme.log_in("ann", PASSWORD).await;
    let form = [("token", login["refresh_token"].as_str().unwrap())];
    let request = server.anonymous().request(Method::POST, &acme.path("/v1/token/revoke")).form(&form);
    ok(&support::wire::send(request).await);
    ended(&login, &mut cursor).await;
    // Used twice: the chain is ended, though the request is refused.
    let login = acme.log_in("ann", PASSWORD).await;
    let next = refresh(&login["refresh_token"]).await;
    ok(&next);
    ok(&refresh(&next.json()["refresh_token"]).await);
    assert_eq!(refresh(&login["refresh_token"]).await.status, StatusCode::UNAUTHORIZED);
    ended(&login, &mut cursor).await;
    // By an admin, one and all; and by the person.
    let login = acme.log_in("ann", PASSWORD).await;
    let id = sid(&login);
    ok(&admin.delete(&acme.path(&format!("/v1/users/{ann}/sessions/{}", id.as_str().unwrap()))).await);
    ended(&login, &mut cursor).await;
    let login = acme.log_in("ann", PASSWORD).await;
    ok(&admin.delete(&acme.path(&format!("/v1/users/{ann}/sessions"))).await);
    ended(&login, &mut cursor).await;
    let login = acme.log_in("ann", PASSWORD).await;
    ok(&server.with(&bearer(&login)).delete(&acme.path("/v1/me/sessions")).await);
    ended(&login, &mut cursor).await;
    // A new password, from an admin and by oneself.
    let login = acme.log_in("ann", PASSWORD).await;
    let other = "another long passphrase";
    let request = admin.request(Method::PUT, &acme.path(&format!("/v1/users/{ann}/password")));
    ok(&support::wire::send(request.json(&json!({ "password": other }))).await);
    ended(&login, &mut cursor).await;
    let login = acme.log_in("ann", other).await;
    let change = json!({ "current_password": other, "new_password": PASSWORD });
    ok(&server.with(&bearer(&login)).post(&acme.path("/v1/me/password"), change).await);
    ended(&login, &mut cursor).await;

    // A person, and the login that ends with them.
    let login = acme.log_in("ann", PASSWORD).await;
    let path = acme.path(&format!("/v1/users/{ann}"));
    ok(&admin.patch(&path, off.clone()).await);
    let batch = read(&acme, &format!("?since={cursor}")).await;
    let mut entries: Vec<_> =
        batch["entries"].as_array().unwrap().iter().map(|entry| (entry[0].clone(), entry[1].clone())).collect();
    entries.sort_by_key(|(kind, _)| kind.to_string());
    assert_eq!(entries, [(json!("sid"), sid(&login)), (json!("sub"), json!(ann))]);
    cursor += 2;
    ok(&admin.patch(&path, on.clone()).await);
    assert!(entry_of(&acme, &mut cursor).await[3].is_i64());
    ok(&admin.delete(&path).await);
    assert_eq!(entry_of(&acme, &mut cursor).await[0], "sub");

    // One token, alone.
    let key = acme.app_key("three", &[]).await;
    let token = server.with(&key.pair()).token().await;
    let request = server.with(&key.basic()).request(Method::POST, &acme.path("/v1/token/revoke")).form(&[("token", &token)]);
    ok(&support::wire::send(request).await);
    let entry = entry_of(&acme, &mut cursor).await;
    assert_eq!((&entry[0], &entry[1]), (&json!("jti"), &claims(&token)["jti"]));
    assert!((60..=61).contains(&(entry[2].as_i64().unwrap() - claims(&token)["exp"].as_i64().unwrap())));
    // One without an end is never forgotten, nor is whoever holds one.
    let bob = acme.user("bob", None).await;
    let tenant = server.issuer.tenant("acme").await.unwrap().unwrap();
    let token = server.issuer.issue_token(&tenant, &Actor::operator(), bob, None, None, None).await.unwrap();
    let id = TokenId(claims(&token)["jti"].as_str().unwrap().parse().unwrap());
    server.issuer.revoke_token_by_id(&tenant, &Actor::operator(), id).await.unwrap();
    assert_eq!(entry_of(&acme, &mut cursor).await, json!(["jti", id, null]));
    ok(&admin.patch(&acme.path(&format!("/v1/users/{bob}")), off.clone()).await);
    assert_eq!(entry_of(&acme, &mut cursor).await, json!(["sub", bob, null]));

    // A secret that is replaced at once ends what it began.
    let key = refreshing_key(&acme, Owner::Application(acme.application("four").await)).await;
    let answer = server.with(&key.pair()).post_empty("/v1/authentications").await;
    ok(&answer);
    ok(&admin.post(&acme.path(&format!("/v1/keys/{}/rotate", key.id)), json!({ "grace_seconds": 0 })).await);
    let entry = entry_of(&acme, &mut cursor).await;
    assert_eq!((&entry[0], &entry[1]), (&json!("sid"), &claims(answer.json()["jwt"].as_str().unwrap())["sid"]));

    // The tenant.
    let platform = server.with(&platform.basic());
    ok(&platform.patch("/v1/tenants/acme", off).await);
    let entry = entry_of(&acme, &mut cursor).await;
    assert_eq!((&entry[0], &entry[1], entry.as_array().unwrap().len()), (&json!("tid"), &json!(acme.id), 3));
    ok(&platform.patch("/v1/tenants/acme", on).await);
    assert!(entry_of(&acme, &mut cursor).await[3].is_i64());

    // All of it, from the beginning: what was written twice is there once.
    let all = read(&acme, "").await;
    assert_eq!(all["cursor"], cursor);
    let entries = all["entries"].as_array().unwrap();
    let mut named: Vec<String> = entries.iter().map(|entry| format!("{} {}", entry[0], entry[1])).collect();
    named.sort();
    let before = named.len();
    named.dedup();
    assert_eq!(named.len(), before);
}

async fn revoke_a_key(tenant: &Tenant<'_>, name: &str) -> Key {
    let key = tenant.app_key(name, &[]).await;
    tenant.server.issuer.revoke_key(tenant.id, &Actor::operator(), &key.key_id()).await.unwrap();
    key
}

#[actix_web::test]
async fn who_waits_hears_within_a_second_on_every_server_and_holds_no_connection() {
    let a = Server::start_with(real_time()).await;
    let b = a.replica(real_time()).await;
    let c = a.replica(Options { notifications: false, ..real_time() }).await;
    let (acme, other) = (a.tenant("acme").await, a.tenant("other").await);
    revoke_a_key(&acme, "first").await;
    let path = acme.path("/v1/revocations?since=1&wait=20");
    // Far more than a server has connections.
    let wait = |server: &Server, path: &str| {
        let request = server.http.get(server.url(path));
        actix_web::rt::spawn(async move {
            let text = request.send().await.unwrap().text().await.unwrap();
            (Instant::now(), text)
        })
    };
    let fast: Vec<_> = [&a, &b].into_iter().flat_map(|server| (0..50).map(|_| wait(server, &path))).collect();
    let slow: Vec<_> = (0..10).map(|_| wait(&c, &path)).collect();
    let elsewhere = wait(&b, &other.path("/v1/revocations?since=0&wait=4"));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(a.anonymous().get("/readyz").await.status, StatusCode::OK);
    let key = revoke_a_key(&acme, "second").await;
    let revoked = Instant::now();
    for (readers, longest) in [(fast, 1000), (slow, 5000)] {
        for reader in readers {
            let (at, text) = reader.await.unwrap();
            assert!(at.duration_since(revoked) < Duration::from_millis(longest), "{:?}", at.duration_since(revoked));
            let batch = checked(&acme, &text).await;
            assert_eq!((&batch["prev"], &batch["cursor"]), (&json!(1), &json!(2)));
            assert_eq!(batch["entries"][0][1], key.id);
        }
    }
    // Another tenant's reader hears of nothing, and of the time.
    let (_, text) = elsewhere.await.unwrap();
    let batch = checked(&other, &text).await;
    assert_eq!((&batch["entries"], &batch["cursor"]), (&json!([]), &json!(0)));
    assert!(Clock::System.now().timestamp() - batch["iat"].as_i64().unwrap() <= 6);
}

/// The next event of a stream: its id, and its data.
async fn event(
    stream: &mut (impl futures_util::Stream<Item = reqwest::Result<actix_web::web::Bytes>> + Unpin),
) -> Option<(String, String)> {
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        text.push_str(std::str::from_utf8(&stream.next().await?.unwrap()).unwrap());
    }
    let field = |name: &str| {
        let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(&format!("{name}: "))).collect();
        assert_eq!(lines.len(), 1, "{text}");
        lines[0].to_owned()
    };
    assert_eq!(field("event"), "revocations");
    Some((field("id"), field("data")))
}

#[actix_web::test]
async fn a_stream_tells_what_comes_goes_on_where_it_broke_off_and_ends_with_the_server() {
    let server = Server::start_with(real_time()).await;
    let acme = server.tenant("acme").await;
    let first = revoke_a_key(&acme, "first").await;
    let open = async |last: Option<&str>| {
        let mut request = server.http.get(server.url(&acme.path("/v1/revocations"))).header("Accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        answer.bytes_stream()
    };
    let mut stream = open(None).await;
    let (id, data) = event(&mut stream).await.unwrap();
    let batch = checked(&acme, &data).await;
    assert_eq!((id.as_str(), &batch["prev"], &batch["entries"][0][1]), ("1", &Value::Null, &json!(first.id)));
    let second = revoke_a_key(&acme, "second").await;
    let (id, data) = event(&mut stream).await.unwrap();
    let batch = checked(&acme, &data).await;
    assert_eq!((id.as_str(), &batch["prev"], &batch["entries"][0][1]), ("2", &json!(1), &json!(second.id)));
    drop(stream);
    let third = revoke_a_key(&acme, "third").await;
    let mut stream = open(Some("2")).await;
    let batch = checked(&acme, &event(&mut stream).await.unwrap().1).await;
    assert_eq!(
        (&batch["prev"], &batch["entries"].as_array().unwrap().len(), &batch["entries"][0][1]),
        (&json!(2), &1, &json!(third.id))
    );
    // Nothing happens for a while: signs of life.
    let quiet = Instant::now();
    let batch = checked(&acme, &event(&mut stream).await.unwrap().1).await;
    assert_eq!((&batch["prev"], &batch["cursor"], &batch["entries"]), (&json!(3), &json!(3), &json!([])));
    assert!((9..15).contains(&quiet.elapsed().as_secs()));
    // A cursor that was never given: all is told anew.
    let mut astray = open(Some("77")).await;
    let batch = checked(&acme, &event(&mut astray).await.unwrap().1).await;
    assert_eq!((&batch["prev"], batch["entries"].as_array().unwrap().len()), (&Value::Null, 3));
    let answer = server.http.get(server.url(&acme.path("/v1/revocations"))).header("Accept", "text/event-stream");
    assert_eq!(Answer::of(answer.header("Last-Event-ID", "x").send().await.unwrap()).await.status, StatusCode::BAD_REQUEST);

    let began = Instant::now();
    server.stopper.stop(Duration::ZERO).await;
    assert!(event(&mut stream).await.is_none());
    assert!(began.elapsed() < Duration::from_secs(3), "nobody is waited for: {:?}", began.elapsed());
}

#[actix_web::test]
async fn a_private_feed_takes_the_scope_and_a_public_one_nothing() {
    let server = Server::start_with(real_time()).await;
    let settings = TenantSettings { revocations_private: Some(true), ..TenantSettings::default() };
    let (closed, open) = (server.tenant_with("closed", settings).await, server.tenant("open").await);
    let path = closed.path("/v1/revocations");
    let (reader, writer) =
        (closed.app_key("reader", &["revocations:read"]).await, closed.app_key("writer", &["keys:write"]).await);
    let nobody = server.anonymous().get(&path).await;
    assert_eq!((nobody.status, nobody.error().as_str()), (StatusCode::UNAUTHORIZED, "unauthenticated"));
    let other = server.with(&writer.basic()).get(&path).await;
    assert_eq!((other.status, other.error().as_str()), (StatusCode::FORBIDDEN, "insufficient_scope"));
    let allowed = server.with(&reader.basic()).get(&path).await;
    assert_eq!((allowed.status, allowed.header("cache-control")), (StatusCode::OK, "no-store"));
    assert_eq!(server.with(&reader.basic()).get(&open.path("/v1/revocations")).await.status, StatusCode::OK);
    let public = server.anonymous().get(&open.path("/v1/revocations")).await;
    assert_eq!((public.header("cache-control"), public.header("access-control-allow-origin")), ("public, max-age=1", "*"));
    for query in ["?wait=31", "?wait=-1", "?since=-1", "?since=x", "?other=1"] {
        let refused = server.anonymous().get(&open.path(&format!("/v1/revocations{query}"))).await;
        assert_eq!((refused.status, refused.error().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request"), "{query}");
    }
    assert_eq!(server.anonymous().get("/t/nowhere/v1/revocations").await.status, StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn a_long_list_comes_in_parts_and_what_is_of_no_use_is_forgotten() {
    let server = Server::start_with(real_time()).await;
    let acme = server.tenant("acme").await;
    let mut database = server.database.superuser().await;
    let insert = "INSERT INTO revocations (tenant_id, kind, id, seq, until)
                  SELECT $1, 'sid', gen_random_uuid()::text, n, now() + CASE WHEN n % 2 = 0 THEN interval '1 hour' ELSE - interval '1 hour' END
                    FROM generate_series(1, 12000) AS n";
    sqlx::query(insert).bind(acme.id).execute(&mut database).await.unwrap();
    sqlx::query("INSERT INTO revocation_heads VALUES ($1, 12000)").bind(acme.id).execute(&mut database).await.unwrap();
    let first = read(&acme, "").await;
    assert_eq!((&first["prev"], &first["cursor"], &first["more"]), (&Value::Null, &json!(10_000), &json!(true)));
    assert_eq!(first["entries"].as_array().unwrap().len(), 5_000);
    // Waits for nothing, since there is more.
    let began = Instant::now();
    let rest = read(&acme, "?since=10000&wait=20").await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!((&rest["prev"], &rest["cursor"], &rest["more"]), (&json!(10_000), &json!(12_000), &json!(false)));
    assert_eq!(rest["entries"].as_array().unwrap().len(), 1_000);
    server.issuer.upkeep().await;
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM revocations").fetch_one(&mut database).await.unwrap();
    assert_eq!(kept, 6_000);
}

#[actix_web::test]
async fn t25_without_its_database_a_server_does_not_say_that_nothing_was_revoked() {
    let server = Server::start_with(real_time()).await;
    let acme = server.tenant("acme").await;
    revoke_a_key(&acme, "first").await;
    let path = acme.path("/v1/revocations");
    let request = server.http.get(server.url(&path)).header("Accept", "text/event-stream");
    let mut stream = request.send().await.unwrap().bytes_stream();
    assert!(event(&mut stream).await.is_some());
    let waiting = server.http.get(server.url(&format!("{path}?since=1&wait=30"))).send();
    let waiting = actix_web::rt::spawn(async move { Answer::of(waiting.await.unwrap()).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut elsewhere = sqlx::PgConnection::connect(&std::env::var("DATABASE_URL").unwrap()).await.unwrap();
    let name = server.database.url().rsplit('/').next().unwrap().to_owned();
    let cut = format!(
        "ALTER DATABASE {name} ALLOW_CONNECTIONS false;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(cut)).execute(&mut elsewhere).await.unwrap();
    let cut_off = Instant::now();
    // One sign of life may still be told, of the time before.
    let last = event(&mut stream).await;
    if let Some((_, data)) = &last {
        assert!(claims(data)["iat"].as_i64().unwrap() <= Clock::System.now().timestamp());
        assert!(event(&mut stream).await.is_none());
    }
    assert!(cut_off.elapsed() < Duration::from_secs(20), "{:?}", cut_off.elapsed());
    assert_eq!(waiting.await.unwrap().status, StatusCode::SERVICE_UNAVAILABLE);
    for query in ["", "?since=1", "?since=1&wait=5"] {
        let answer = server.anonymous().get(&format!("{path}{query}")).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"));
    }
    let mend = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true");
    sqlx::raw_sql(sqlx::AssertSqlSafe(mend)).execute(&mut elsewhere).await.unwrap();
    let began = Instant::now();
    while server.anonymous().get(&path).await.status != StatusCode::OK {
        assert!(began.elapsed() < Duration::from_secs(20), "it comes back by itself");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
