//! Another pepper while servers run (SECURITY D3, T29).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use std::cell::Cell;
use std::time::Duration;

use chrono::TimeDelta;
use claviger_issuer::audit::Actor;
use reqwest::StatusCode;
use serde_json::json;
use support::{Options, Server};

async fn versions(server: &Server, key: &str) -> Vec<i16> {
    let mut database = server.database.superuser().await;
    let of_key = "SELECT pepper_version FROM api_key_secrets WHERE key_id = $1";
    sqlx::query_scalar(of_key).bind(key).fetch_all(&mut database).await.unwrap()
}

#[actix_web::test]
async fn t29_a_new_pepper_is_used_when_every_server_knows_it_and_old_secrets_go_over_at_their_next_use() {
    let server = Server::start().await;
    // Asks the database for everything, and never looked for new peppers.
    let other = server.replica(Options { clock: Some(server.clock.clone()), memory: false, ..Options::default() }).await;
    server.default_tenant().await;
    let tenant = server.tenant("acme").await;
    let (used, unused) = (tenant.app_key("used", &[]).await, tenant.app_key("unused", &[]).await);
    tenant.user("grace", Some("correct horse battery staple")).await;
    let login = tenant.log_in("grace", "correct horse battery staple").await;

    // The first pepper was made a moment ago.
    let early = server.issuer.rotate_pepper(&Actor::operator()).await.unwrap_err();
    assert!(early.to_string().contains("wait until"), "{early}");
    server.clock.advance(TimeDelta::minutes(11));
    let (version, used_from) = server.issuer.rotate_pepper(&Actor::operator()).await.unwrap();
    assert_eq!((version, used_from), (2, server.clock.now() + TimeDelta::minutes(10)));
    let between = tenant.app_key("between", &[]).await;
    assert_eq!(versions(&server, &between.id).await, [1], "nobody else need know the new one yet");

    server.clock.advance(TimeDelta::minutes(10));
    server.issuer.reload_peppers().await.unwrap();
    let after = tenant.app_key("after", &[]).await;
    assert_eq!(versions(&server, &after.id).await, [2]);
    for at in [&server, &other] {
        for key in [&used, &between, &after] {
            at.with(&key.pair()).token().await;
            let wrong = format!("{}:{}", key.id, unused.secret);
            assert_eq!(at.with(&wrong).post_empty("/v1/authentications").await.status, StatusCode::NOT_FOUND);
        }
    }
    for _ in 0..500 {
        if versions(&server, &used.id).await == [2] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((versions(&server, &used.id).await, versions(&server, &unused.id).await), (vec![2], vec![1]));
    for at in [&server, &other] {
        at.with(&used.pair()).token().await;
        at.with(&unused.pair()).token().await;
    }
    // A login of before goes on.
    let refresh = json!({ "refresh_token": login["refresh_token"] });
    let refreshed = other.anonymous().post("/t/acme/v1/token/refresh", refresh).await;
    assert_eq!(refreshed.status, StatusCode::OK, "{}", refreshed.text);
    let trail = server.issuer.tenant("default").await.unwrap().unwrap().tenant.id;
    assert_eq!(server.issuer.list_audit(trail, Some("pepper.rotate"), None, 10).await.unwrap().len(), 1);
}

#[actix_web::test]
async fn t29_while_the_pepper_changes_no_exchange_fails_at_any_server_and_what_is_used_goes_over() {
    const KEYS: usize = 200;
    let server = Server::start().await;
    let other = server.replica(Options { clock: Some(server.clock.clone()), ..Options::default() }).await;
    server.default_tenant().await;
    let tenant = server.tenant("acme").await;
    let mut keys = Vec::new();
    for number in 0..KEYS {
        keys.push(tenant.app_key(&format!("key {number}"), &[]).await);
    }
    server.clock.advance(TimeDelta::minutes(11));

    let done = Cell::new(false);
    let exchanges = Cell::new(0);
    let load = |at: usize| {
        let (done, exchanges, keys) = (&done, &exchanges, &keys);
        let server = [&server, &other][at % 2];
        async move {
            for key in keys.iter().cycle().skip(at * KEYS / 8) {
                if done.get() {
                    return;
                }
                server.with(&key.pair()).token().await;
                exchanges.set(exchanges.get() + 1);
            }
        }
    };
    let change = async {
        let until = async |more: usize| {
            let wanted = exchanges.get() + more;
            while exchanges.get() < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        until(KEYS).await;
        server.issuer.rotate_pepper(&Actor::operator()).await.unwrap();
        until(KEYS).await;
        // Now it is used, and the other server has yet to hear of it.
        server.clock.advance(TimeDelta::minutes(10));
        server.issuer.reload_peppers().await.unwrap();
        // Every loop comes by every key.
        until(9 * KEYS).await;
        done.set(true);
    };
    let all = futures_util::future::join_all((0..8).map(load));
    tokio::join!(all, change);

    let mut database = server.database.superuser().await;
    let of_first = "SELECT count(*) FROM api_key_secrets WHERE pepper_version = 1";
    for _ in 0..1000 {
        let left: i64 = sqlx::query_scalar(of_first).fetch_one(&mut database).await.unwrap();
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("some that were used are kept under the old pepper still");
}
