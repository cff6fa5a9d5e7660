//! Signing keys that follow each other and break nobody (SEEDS scenarios 44, 66 and 67; SECURITY D4, T06).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use claviger_issuer::audit::Actor;
use claviger_issuer::clock::Clock;
use claviger_issuer::settings::{SigningRule, TenantSettings};
use claviger_issuer::signing_key::ImportedKey;
use claviger_issuer::verifier_watch::NamedVerifier;
use claviger_verifier::{Expected, KeySet, verify};
use futures_util::future::join_all;
use reqwest::StatusCode;
use secrecy::SecretString;
use serde_json::{Value, json};
use support::{Answer, Key, Options, Server, Tenant, claims, detail, jose_header};

const HOUR: TimeDelta = TimeDelta::hours(1);
const DAY: TimeDelta = TimeDelta::days(1);

fn rule(lead: i32, rotate_days: Option<i32>) -> TenantSettings {
    TenantSettings {
        signing: Some(SigningRule { lead, rotate_days, ..SigningRule::default() }),
        token_lifetime: Some(7200),
        ..TenantSettings::default()
    }
}

async fn jwks(server: &Server) -> Answer {
    server.anonymous().get("/t/acme/.well-known/jwks.json").await
}

async fn published(server: &Server) -> Vec<String> {
    let set = jwks(server).await.json();
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// Keys as an admin sees them, newest first.
async fn keys(server: &Server, admin: &Key) -> Vec<Value> {
    server.with(&admin.basic()).get("/t/acme/v1/signing-keys").await.json()["items"].as_array().unwrap().clone()
}

fn states(keys: &[Value]) -> Vec<&str> {
    keys.iter().map(|key| key["state"].as_str().unwrap()).collect()
}

async fn token(server: &Server, key: &Key) -> String {
    server.with(&key.pair()).token().await
}

fn kid(token: &str) -> String {
    jose_header(token)["kid"].as_str().unwrap().to_owned()
}

async fn me(server: &Server, token: &str) -> StatusCode {
    server.with(&format!("Bearer {token}")).get("/v1/me").await.status
}

/// Waits until every server publishes the same.
async fn agree(servers: &[&Server]) {
    for _ in 0..500 {
        let sets = join_all(servers.iter().map(|server| published(server))).await;
        if sets.windows(2).all(|two| two[0] == two[1]) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the servers do not agree within 5 seconds");
}

/// Rotates, and asks for what is published then: from now on this server knows it.
async fn rotate(server: &Server, admin: &Key, emergency: bool) -> Answer {
    let answer = server.with(&admin.basic()).post("/t/acme/v1/signing-keys/rotate", json!({ "emergency": emergency })).await;
    jwks(server).await;
    answer
}

/// Keeps what it fetched as long as it may, and never fetches because of a key that it does not know.
struct Verifier<'a> {
    from: &'a Server,
    keys: KeySet,
    good_until: DateTime<Utc>,
}

impl<'a> Verifier<'a> {
    fn of(from: &'a Server) -> Self {
        Self { from, keys: KeySet::new(), good_until: DateTime::UNIX_EPOCH }
    }

    async fn accepts(&mut self, token: &str) -> bool {
        let now = self.from.clock.now();
        if now >= self.good_until {
            let answer = jwks(self.from).await;
            let max_age: i64 = answer.header("cache-control").split("max-age=").nth(1).unwrap().parse().unwrap();
            self.good_until = now + TimeDelta::seconds(max_age);
            self.keys = KeySet::from_jwks(&answer.text).unwrap();
        }
        let issuer = "http://id.test/t/acme";
        let expected = Expected { issuer, audience: Some(issuer), leeway_seconds: 0 };
        verify(token, &self.keys, &expected, now.timestamp()).is_ok()
    }
}

#[actix_web::test]
async fn t06_three_servers_rotate_by_themselves_and_no_verifier_refuses_a_token_that_has_not_ended() {
    let clock = Clock::manual(Clock::System.now());
    let options = || Options { clock: Some(clock.clone()), ..Options::default() };
    let a = Server::start_with(options()).await;
    let (b, c) = (a.replica(options()).await, a.replica(options()).await);
    let servers = [&a, &b, &c];
    let tenant = a.tenant_with("acme", rule(3600, Some(1))).await;
    let key = tenant.app_key("demo", &[]).await;
    let mut verifiers = servers.map(Verifier::of);
    let mut tokens: Vec<(String, DateTime<Utc>)> = Vec::new();
    let mut kids = std::collections::BTreeSet::new();
    // Six days, in steps that are shorter and longer than anything that matters.
    for step in [7, 290, 600, 1800, 3600, 5000].into_iter().cycle().take(270) {
        clock.advance(TimeDelta::seconds(step));
        join_all(servers.map(|server| server.issuer.keep_signing_keys())).await.into_iter().for_each(|moved| {
            moved.unwrap();
        });
        agree(&servers).await;
        let now = clock.now();
        tokens.retain(|(_, ends)| now < *ends);
        for server in servers {
            let token = token(server, &key).await;
            let set = published(server).await;
            assert!(set.contains(&kid(&token)), "a token under a key that is not published");
            kids.insert(kid(&token));
            tokens.push((token.clone(), DateTime::from_timestamp(claims(&token)["exp"].as_i64().unwrap(), 0).unwrap()));
        }
        for (token, _) in &tokens {
            for verifier in &mut verifiers {
                assert!(verifier.accepts(token).await, "a token that has not ended was refused");
            }
        }
        assert!(published(&a).await.len() <= 3, "keys pile up");
    }
    assert!(kids.len() >= 5, "only {} keys signed in six days", kids.len());
    let rotations = tenant.audit("signing_key.rotate").await;
    assert_eq!(rotations.len(), kids.len() - 1, "each rotation was done once");
    assert!(rotations.iter().all(|entry| entry.actor == "system:schedule"));
    // Of every key but the last three the private half is gone, and nothing but a row is left.
    let gone = tenant.audit("signing_key.remove").await.len();
    assert!(gone >= kids.len() - 3, "{gone} of {} are gone", kids.len());
    let mut database = a.database.superuser().await;
    let kept: i64 =
        sqlx::query_scalar("SELECT count(*) FROM signing_keys WHERE gone_at IS NOT NULL AND octet_length(sealed_private) > 0")
            .fetch_one(&mut database)
            .await
            .unwrap();
    assert_eq!(kept, 0);
}

/// A server with a tenant whose keys follow each other by hand alone.
async fn by_hand(server: &Server) -> (Tenant<'_>, Key, Key) {
    let tenant = server.tenant_with("acme", rule(3600, None)).await;
    let (admin, key) = (tenant.admin().await, tenant.app_key("demo", &[]).await);
    // What is made from now on is newer than the first key.
    server.clock.advance(TimeDelta::seconds(1));
    (tenant, admin, key)
}

#[actix_web::test]
async fn scenario_67_after_a_rotation_old_tokens_verify_until_they_end_and_then_their_key_goes() {
    let server = Server::start().await;
    let (tenant, admin, key) = by_hand(&server).await;
    let old = token(&server, &key).await;
    let begun = rotate(&server, &admin, false).await;
    assert_eq!(begun.status, StatusCode::OK, "{}", begun.text);
    assert_eq!(states(&keys(&server, &admin).await), ["next", "active"]);
    assert_eq!(published(&server).await.len(), 2, "published before it signs");
    assert_eq!(kid(&token(&server, &key).await), kid(&old));
    let early = rotate(&server, &admin, false).await;
    assert_eq!((early.status, early.error().as_str()), (StatusCode::CONFLICT, "conflict"));
    assert!(early.text.contains("signs from"), "{}", early.text);

    server.clock.advance(HOUR);
    let turned = rotate(&server, &admin, false).await;
    assert_eq!(turned.status, StatusCode::OK, "{}", turned.text);
    let new = token(&server, &key).await;
    assert_ne!(kid(&new), kid(&old));
    assert_eq!([me(&server, &old).await, me(&server, &new).await], [StatusCode::OK; 2]);
    let raw = server.anonymous().get("/t/acme/v1/public-key?format=jwk").await.json();
    assert_eq!(raw["kid"], kid(&new), "the public key follows");
    let entry = &tenant.audit("signing_key.rotate").await[0];
    assert_eq!(detail(entry), json!({ "before": kid(&old), "emergency": false }));

    // The hand-over is done: the private half goes; the old tokens have ended by then, ten minutes before their key goes.
    server.clock.advance(HOUR);
    server.issuer.keep_signing_keys().await.unwrap();
    server.clock.advance(TimeDelta::minutes(2));
    server.issuer.keep_signing_keys().await.unwrap();
    let rows = keys(&server, &admin).await;
    assert_eq!(states(&rows), ["active", "retired"]);
    let until: DateTime<Utc> = rows[1]["published_until"].as_str().unwrap().parse().unwrap();
    assert_eq!(until.timestamp(), claims(&new)["exp"].as_i64().unwrap() + 600, "until the last of all tokens has ended");
    server.clock.advance(until - server.clock.now() - TimeDelta::seconds(1));
    server.issuer.keep_signing_keys().await.unwrap();
    assert!(published(&server).await.contains(&kid(&old)));
    server.clock.advance(TimeDelta::seconds(1));
    server.issuer.keep_signing_keys().await.unwrap();
    assert_eq!(published(&server).await, [kid(&new)]);
    assert_eq!(states(&keys(&server, &admin).await), ["active", "gone"]);
}

#[actix_web::test]
async fn an_emergency_withdraws_every_key_that_could_sign_on_every_server_at_once() {
    let server = Server::start().await;
    let other = server.replica(Options { clock: Some(server.clock.clone()), ..Options::default() }).await;
    let (tenant, admin, key) = by_hand(&server).await;
    rotate(&server, &admin, false).await;
    let old = token(&server, &key).await;
    assert_eq!([me(&server, &old).await, me(&other, &old).await], [StatusCode::OK; 2]);
    assert_eq!(jwks(&server).await.header("cache-control"), "public, max-age=300");

    server.clock.advance(TimeDelta::seconds(1));
    assert_eq!(rotate(&server, &admin, true).await.status, StatusCode::OK);
    assert_eq!(me(&server, &old).await, StatusCode::UNAUTHORIZED, "at once");
    agree(&[&server, &other]).await;
    assert_eq!(me(&other, &old).await, StatusCode::UNAUTHORIZED);
    let introspected = server.with(&admin.basic()).introspect("/t/acme/v1/introspect", &old).await.json();
    assert_eq!(introspected, json!({ "active": false }));
    let new = token(&other, &key).await;
    assert_eq!([me(&server, &new).await, me(&other, &new).await], [StatusCode::OK; 2]);
    assert_eq!(published(&server).await, [kid(&new)], "the next key was as near to the thief");
    assert_eq!(states(&keys(&server, &admin).await), ["active", "gone", "gone"]);
    for at in [&server, &other] {
        assert_eq!(jwks(at).await.header("cache-control"), "public, max-age=0");
    }
    let entry = &tenant.audit("signing_key.rotate").await[0];
    assert_eq!(detail(entry)["emergency"], true);
    assert_eq!(detail(entry)["withdrawn"].as_array().unwrap().len(), 2);
    server.clock.advance(HOUR);
    assert_eq!(jwks(&server).await.header("cache-control"), "public, max-age=300");
    let mut database = server.database.superuser().await;
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM signing_keys WHERE octet_length(sealed_private) > 0 AND gone_at IS NOT NULL")
            .fetch_one(&mut database)
            .await
            .unwrap();
    assert_eq!(left, 0, "the private halves are destroyed");
}

#[actix_web::test]
async fn a_server_that_started_a_moment_ago_signs_with_the_key_that_verifiers_know() {
    let server = Server::start().await;
    let (_, admin, key) = by_hand(&server).await;
    let old = kid(&token(&server, &key).await);
    rotate(&server, &admin, false).await;
    server.clock.advance(HOUR);
    let late = server.replica(Options { clock: Some(server.clock.clone()), ..Options::default() }).await;
    rotate(&server, &admin, false).await;
    let new = kid(&token(&server, &key).await);
    assert_ne!(new, old);
    agree(&[&server, &late]).await;
    assert_eq!(kid(&token(&late, &key).await), old, "it has not itself published the new one for the lead");
    server.clock.advance(HOUR - TimeDelta::seconds(1));
    assert_eq!(kid(&token(&late, &key).await), old);
    server.clock.advance(TimeDelta::seconds(1));
    assert_eq!(kid(&token(&late, &key).await), new);
}

#[actix_web::test]
async fn a_key_that_moved_to_another_installation_stays_published_as_long_as_tokens_of_before_need_it() {
    let there = Server::start().await;
    let tenant = there.tenant_with("acme", rule(600, None)).await;
    let (admin, key) = (tenant.admin().await, tenant.app_key("demo", &[]).await);
    there.clock.advance(TimeDelta::seconds(1));
    let old = token(&there, &key).await;
    let passphrase = SecretString::from("nine copper kettles sing");
    let mut file = String::new();
    let write = |line: &str| {
        file.push_str(line);
        Ok(())
    };
    there.issuer.export_tenant(&Actor::operator(), "acme", Some(&passphrase), write).await.unwrap();

    let here = Server::start_with(Options { clock: Some(there.clock.clone()), ..Options::default() }).await;
    let moved = here.issuer.import_tenant(&Actor::operator(), "acme", &file, Some(&passphrase), false).await.unwrap();
    assert_eq!((moved.made["keys"], moved.made["tokens"], moved.keys_without_secret.len()), (2, 1, 0));
    assert_eq!(rotate(&here, &admin, false).await.status, StatusCode::OK, "the admin's key is the admin's key");
    here.clock.advance(TimeDelta::minutes(10));
    assert_eq!(rotate(&here, &admin, false).await.status, StatusCode::OK);
    for minutes in [10, 2] {
        here.clock.advance(TimeDelta::minutes(minutes));
        here.issuer.keep_signing_keys().await.unwrap();
    }
    let rows = keys(&here, &admin).await;
    assert_eq!(states(&rows), ["active", "retired"]);
    let until: DateTime<Utc> = rows[1]["published_until"].as_str().unwrap().parse().unwrap();
    assert_eq!(until.timestamp(), claims(&old)["exp"].as_i64().unwrap() + 600, "nobody here has issued a token yet");
    here.clock.advance(until - here.clock.now() - TimeDelta::seconds(1));
    here.issuer.keep_signing_keys().await.unwrap();
    assert!(published(&here).await.contains(&kid(&old)));
    here.clock.advance(TimeDelta::seconds(1));
    here.issuer.keep_signing_keys().await.unwrap();
    assert!(!published(&here).await.contains(&kid(&old)));
}

#[actix_web::test]
async fn a_token_without_an_end_keeps_its_key_published_until_it_is_called_back() {
    let server = Server::start().await;
    let (tenant, admin, _) = by_hand(&server).await;
    let user = tenant.user("ada", None).await;
    let entry = server.issuer.tenant("acme").await.unwrap().unwrap();
    let unending = server.issuer.issue_token(&entry, &Actor::operator(), user, None, None, None).await.unwrap();
    rotate(&server, &admin, false).await;
    server.clock.advance(HOUR);
    rotate(&server, &admin, false).await;
    for _ in 0..4 {
        server.clock.advance(DAY);
        server.issuer.keep_signing_keys().await.unwrap();
    }
    let rows = keys(&server, &admin).await;
    assert_eq!(
        (states(&rows), &rows[1]["unending"], &rows[1]["published_until"]),
        (vec!["active", "retired"], &json!(true), &Value::Null)
    );
    assert_eq!(me(&server, &unending).await, StatusCode::OK);
    let id = claims(&unending)["jti"].as_str().unwrap().parse().unwrap();
    server.issuer.revoke_token_by_id(&entry, &Actor::operator(), id).await.unwrap();
    for _ in 0..2 {
        server.clock.advance(HOUR);
        server.issuer.keep_signing_keys().await.unwrap();
    }
    assert_eq!(states(&keys(&server, &admin).await), ["active", "gone"]);
}

#[actix_web::test]
async fn keys_are_activated_and_retired_one_by_one_and_never_those_of_another_tenant() {
    let server = Server::start().await;
    let (tenant, admin, key) = by_hand(&server).await;
    let foreign = server.tenant("other").await.admin().await;
    let change = async |who: &Key, at: &str, kid: &str, deed: &str| {
        server.with(&who.basic()).post_empty(&format!("/t/{at}/v1/signing-keys/{kid}/{deed}")).await
    };
    rotate(&server, &admin, false).await;
    let rows = keys(&server, &admin).await;
    let (next, active) = (rows[0]["kid"].as_str().unwrap(), rows[1]["kid"].as_str().unwrap());
    for deed in ["activate", "retire"] {
        assert_eq!(change(&foreign, "other", next, deed).await.status, StatusCode::NOT_FOUND);
        assert_eq!(change(&admin, "acme", "nobody", deed).await.status, StatusCode::NOT_FOUND);
        assert_eq!(change(&admin, "acme", active, deed).await.status, StatusCode::CONFLICT);
    }
    assert_eq!(change(&admin, "acme", next, "activate").await.status, StatusCode::CONFLICT, "too early");
    assert_eq!(change(&admin, "acme", next, "retire").await.status, StatusCode::OK);
    assert_eq!(change(&admin, "acme", next, "retire").await.status, StatusCode::CONFLICT, "once");
    assert_eq!(states(&keys(&server, &admin).await), ["gone", "active"]);
    assert_eq!(tenant.audit("signing_key.retire").await.len(), 1);

    server.clock.advance(HOUR);
    rotate(&server, &admin, false).await;
    let old = token(&server, &key).await;
    server.clock.advance(HOUR);
    let next = keys(&server, &admin).await[0]["kid"].as_str().unwrap().to_owned();
    assert_eq!(change(&admin, "acme", &next, "activate").await.status, StatusCode::OK);
    assert_eq!(me(&server, &old).await, StatusCode::OK);
    assert_eq!(change(&admin, "acme", active, "retire").await.status, StatusCode::OK);
    assert_eq!(me(&server, &old).await, StatusCode::UNAUTHORIZED, "a retired key that is taken out counts no more");
}

#[actix_web::test]
async fn scenario_44_a_pair_is_imported_but_in_production_none_that_everybody_can_read() {
    let server = Server::start().await;
    let (tenant, admin, key) = by_hand(&server).await;
    let sample = "dtPC/6dWJFKZK7KZ78CvWuynylOmjBFyMsUWArwmodOTN9itjL5POlqdZkcnmpJ0yPm4pRaCrvgFaFAbpyik/Q==";
    let import = |private, at_once, samples| {
        server.issuer.import_signing_key(tenant.id, &ACTOR, ImportedKey { private, at_once, samples })
    };
    static ACTOR: std::sync::LazyLock<Actor> = std::sync::LazyLock::new(Actor::operator);
    let refused = import(sample, true, false).await.unwrap_err();
    assert!(refused.to_string().contains("published as an example"), "{refused}");
    assert!(import("nonsense", true, true).await.is_err());
    import(sample, true, true).await.unwrap();
    let raw = server.anonymous().get("/t/acme/v1/public-key?format=raw").await;
    assert_eq!(raw.text, "kzfYrYy+TzpanWZHJ5qSdMj5uKUWgq74BWhQG6copP0=");
    assert_eq!(me(&server, &token(&server, &key).await).await, StatusCode::OK);
    assert_eq!(states(&keys(&server, &admin).await), ["active", "retired"]);
    assert!(import(sample, true, true).await.unwrap_err().to_string().contains("once"));
    let mut database = server.database.superuser().await;
    let clear: i64 = sqlx::query_scalar("SELECT count(*) FROM signing_keys WHERE position($1 in sealed_private) > 0")
        .bind(&[0x76_u8, 0xd3, 0xc2, 0xff, 0xa7, 0x56][..])
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert_eq!(clear, 0);
}

#[actix_web::test]
async fn a_lead_is_never_shorter_than_what_verifiers_may_keep() {
    let server = Server::start().await;
    let platform = server.default_tenant().await.admin().await;
    server.tenant("acme").await;
    let change = async |signing: Value| {
        server.with(&platform.basic()).patch("/v1/tenants/acme", json!({ "settings": { "signing": signing } })).await
    };
    for wrong in [json!({ "lead": 299 }), json!({ "rotate_days": 0 }), json!({ "rotate_days": 1 }), json!({ "lead": 2_592_001 })]
    {
        assert_eq!(change(wrong.clone()).await.status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
    }
    for right in [json!({ "lead": 300 }), json!({ "rotate_days": null }), json!({ "lead": 300, "rotate_days": 1 }), json!({})] {
        assert_eq!(change(right.clone()).await.status, StatusCode::OK, "{right}");
    }
}

#[actix_web::test]
async fn a_rotation_waits_for_the_verifiers_that_are_named_and_no_longer_than_was_said() {
    let server = Server::start().await;
    let named = NamedVerifier { name: "metric store".into(), network: None, user_agent: Some("metric-store/".into()) };
    let signing = SigningRule { lead: 3600, rotate_days: None, longest_wait: 10 * 3600 };
    let settings = TenantSettings { signing: Some(signing), verifiers: Some(vec![named]), ..TenantSettings::default() };
    let admin = server.tenant_with("acme", settings).await.admin().await;
    let fetch = async |agent: &str| {
        let request = server.anonymous().request(reqwest::Method::GET, "/t/acme/.well-known/jwks.json");
        assert_eq!(request.header("user-agent", agent).send().await.unwrap().status(), StatusCode::OK);
    };
    let verifiers = async || server.with(&admin.basic()).get("/t/acme/v1/signing-keys/verifiers").await.json();
    let state = async || {
        server.issuer.keep_signing_keys().await.unwrap();
        states(&keys(&server, &admin).await)[0].to_owned()
    };
    fetch("metric-store/1.0").await;
    fetch("metric-store/1.0").await;
    fetch("curl/8").await;
    let seen = verifiers().await;
    assert_eq!((seen["items"].as_array().unwrap().len(), &seen["waits_until"]), (2, &Value::Null));
    let store = seen["items"].as_array().unwrap().iter().find(|one| one["user_agent"] == "metric-store/1.0").unwrap();
    assert_eq!((&store["network"], &store["fetches"], &store["knows_next"]), (&json!("127.0.0.0/24"), &json!(2), &Value::Null));

    for fetches in [true, false] {
        server.clock.advance(TimeDelta::seconds(1));
        server.with(&admin.basic()).post("/t/acme/v1/signing-keys/rotate", json!({})).await;
        server.clock.advance(HOUR * 2);
        fetch("curl/8").await;
        assert_eq!(state().await, "next", "the lead is over, but it has not come");
        let seen = verifiers().await;
        assert_eq!(seen["waiting_for"], json!(["metric store"]));
        let knows: Vec<_> = seen["items"].as_array().unwrap().iter().map(|one| &one["knows_next"]).collect();
        assert_eq!(knows, [true, false], "whoever came last first");
        if fetches {
            fetch("metric-store/1.0").await;
            assert_eq!(verifiers().await["waiting_for"], json!([]));
        } else {
            server.clock.advance(HOUR * 8 - TimeDelta::seconds(1));
            assert_eq!(state().await, "next");
            server.clock.advance(TimeDelta::seconds(1));
        }
        assert_eq!(state().await, "active");
    }
    server.clock.advance(DAY * 31);
    server.issuer.upkeep().await;
    assert_eq!(verifiers().await["items"], json!([]), "forgotten after a month");
}

#[actix_web::test]
async fn who_fetches_is_counted_without_bounds_being_broken() {
    let server = Server::start().await;
    let admin = server.tenant("acme").await.admin().await;
    let entry = server.issuer.tenant("acme").await.unwrap().unwrap();
    for n in 0..1_500_u32 {
        let address = std::net::IpAddr::from((0x0a00_0000 + n * 256).to_be_bytes());
        server.issuer.jwks_fetched(&entry, Some(address), &"long\n".repeat(1000));
    }
    let seen = server.with(&admin.basic()).get("/t/acme/v1/signing-keys/verifiers").await.json();
    let items = seen["items"].as_array().unwrap();
    assert_eq!(items.len(), 1000);
    assert!(items.iter().all(|one| one["user_agent"].as_str().unwrap().chars().all(|c| !c.is_control())));
    assert!(items.iter().all(|one| one["user_agent"].as_str().unwrap().len() == 100));
}
