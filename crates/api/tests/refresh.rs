//! Refresh: each token once, a lost answer again, and a second use is noticed (SEEDS scenarios 25 to 27; SECURITY 4.2, P10).

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

use claviger_issuer::settings::{RefreshRule, TenantSettings};
use futures_util::future::join_all;
use refresh_support::{
    Parts, Tokens, assert_refused, assert_reused, count, family, log_in, me, newcomer, next, options, pass, refresh, tokens,
    trail,
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection};
use support::{Answer, Server, Tenant, claims, detail};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use uuid::Uuid;

fn with_window(window: u32) -> TenantSettings {
    TenantSettings { refresh: Some(RefreshRule { window, ..RefreshRule::default() }), ..TenantSettings::default() }
}

#[actix_web::test]
async fn scenario_25_a_refresh_token_becomes_the_next_one_and_an_access_token_with_it() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let user = tenant.user("alice", Some(refresh_support::PASSWORD)).await;
    let first = log_in(&tenant, "alice").await;
    let id = first.family();
    let mut database = server.database.superuser().await;
    family(&mut database, id).await.assert_lives_at(0);

    let answer = refresh(&server, &first.refresh).await;
    let second = tokens(&answer);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    let body = answer.json();
    let mut fields: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["access_token", "expires_in", "refresh_token", "token_type"]);
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(900)));
    assert_ne!(second.refresh, first.refresh);
    let (before, after) = (claims(&first.access), claims(&second.access));
    assert_ne!(before["jti"], after["jti"]);
    for same in ["iss", "aud", "sub", "sid", "client_id", "tid"] {
        assert_eq!(before[same], after[same], "{same}");
    }
    assert_eq!(after["sub"], user.to_string());
    assert_eq!(after["exp"].as_i64().unwrap() - after["iat"].as_i64().unwrap(), 900);
    // Until it ends, the access token before is good too.
    for token in [&first.access, &second.access] {
        let answer = me(&server, token).await;
        assert_eq!((answer.status, &answer.json()["sub"]), (StatusCode::OK, &json!(user.to_string())));
        assert_eq!(answer.json()["sid"], id.to_string());
    }

    let row = family(&mut database, id).await;
    row.assert_lives_at(1);
    // The answer is kept for whoever has the token, and for nobody who has the database.
    let kept: Vec<u8> = sqlx::query_scalar("SELECT sealed_answer FROM token_families").fetch_one(&mut database).await.unwrap();
    assert!(kept.len() > answer.text.len() / 2);
    for clear in [&second.access, &second.refresh] {
        assert!(!kept.windows(16).any(|window| clear.as_bytes().windows(16).any(|part| part == window)));
    }
    let recorded: Vec<(Uuid, Option<Uuid>, String)> =
        sqlx::query_as("SELECT jti, family_id, subject FROM issued_tokens ORDER BY issued_at")
            .fetch_all(&mut database)
            .await
            .unwrap();
    assert_eq!(recorded.len(), 2);
    for token in [&before, &after] {
        let jti: Uuid = token["jti"].as_str().unwrap().parse().unwrap();
        assert!(recorded.contains(&(jti, Some(id), user.to_string())));
    }

    let entries = trail(&tenant, "token.refresh", id).await;
    assert_eq!(entries.len(), 1);
    let entry = &entries[0];
    assert_eq!(
        (entry.outcome.as_str(), entry.actor.clone(), entry.subject.clone()),
        ("ok", format!("user:{user}"), format!("user:{user}"))
    );
    assert_eq!(detail(entry)["generation"], 0);
    assert_eq!(entry.request_id, answer.header("x-request-id"));

    // And so on, until the login ends.
    let mut newest = second;
    for generation in 2..=12 {
        newest = next(&server, &newest.refresh).await;
        family(&mut database, id).await.assert_lives_at(generation);
    }
    assert_eq!(trail(&tenant, "token.refresh", id).await.len(), 12);
    assert!(trail(&tenant, "token.reuse_detected", id).await.is_empty());
    assert!(server.issuer.verify_audit(tenant.id, None).await.unwrap().is_ok());
}

#[actix_web::test]
async fn an_answer_that_was_lost_is_given_again_byte_for_byte_by_every_server_while_the_window_is_open() {
    let a = Server::start_with(options()).await;
    let b = a.replica(options()).await;
    let tenant = a.tenant("acme").await;
    let first = newcomer(&tenant, "alice").await;
    let id = first.family();
    let mut database = a.database.superuser().await;
    let lost = refresh(&a, &first.refresh).await;
    let second = tokens(&lost);
    let issued = count(&mut database, "SELECT count(*) FROM issued_tokens").await;
    for (again, server) in [&b, &a, &b, &a].into_iter().enumerate() {
        let answer = refresh(server, &first.refresh).await;
        assert_eq!(answer.told(), lost.told(), "{again}");
        family(&mut database, id).await.assert_lives_at(1);
    }
    // Nothing new was issued; that it was asked for again is on record.
    assert_eq!(count(&mut database, "SELECT count(*) FROM issued_tokens").await, issued);
    assert_eq!(trail(&tenant, "token.refresh", id).await.len(), 1);
    let again = trail(&tenant, "token.refresh_again", id).await;
    assert_eq!(again.len(), 4);
    assert!(again.iter().all(|entry| entry.outcome == "ok" && detail(entry)["generation"] == 0));

    // Nearly half a minute later it is the same still.
    pass(&mut database, id, 25).await;
    assert_eq!(refresh(&b, &first.refresh).await.told(), lost.told());
    // What it gave is good, once.
    assert_eq!(me(&b, &second.access).await.status, StatusCode::OK);
    let third = next(&b, &second.refresh).await;
    assert_eq!(refresh(&a, &second.refresh).await.text, refresh(&b, &second.refresh).await.text);
    assert_eq!(next(&a, &second.refresh).await, third);
    family(&mut database, id).await.assert_lives_at(2);
}

/// After a second use was noticed: the family is over, everywhere, and that is on record once.
async fn assert_family_is_over(servers: [&Server; 2], tenant: &Tenant<'_>, chain: &[Tokens], used_again: i32) {
    let id = chain[0].family();
    let mut database = tenant.server.database.superuser().await;
    let user = format!("user:{}", claims(&chain[0].access)["sub"].as_str().unwrap());
    // Written before the refusal was heard.
    let row = family(&mut database, id).await;
    row.assert_ended("reuse", &user);
    let entries = trail(tenant, "token.reuse_detected", id).await;
    assert_eq!(entries.len(), 1);
    let entry = &entries[0];
    assert_eq!((entry.outcome.as_str(), &entry.actor, &entry.subject), ("refused", &user, &user));
    assert_eq!(detail(entry)["generation"], used_again);
    for server in servers {
        for (generation, one) in chain.iter().enumerate().rev() {
            assert_reused(&format!("token {generation} of an ended family"), &refresh(server, &one.refresh).await);
        }
    }
    assert_eq!(family(&mut database, id).await, row, "an ended family does not change");
    assert_eq!(trail(tenant, "token.reuse_detected", id).await.len(), 1, "and is ended once");
    for server in servers {
        let began = Instant::now();
        for one in chain {
            while me(server, &one.access).await.status != StatusCode::UNAUTHORIZED {
                assert!(began.elapsed() < Duration::from_secs(3), "its access tokens live on");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// A login and so many refreshes of it, the newest last.
async fn chain(tenant: &Tenant<'_>, username: &str, refreshes: usize) -> Vec<Tokens> {
    let mut chain = vec![newcomer(tenant, username).await];
    for _ in 0..refreshes {
        let newest = next(tenant.server, &chain.last().unwrap().refresh).await;
        chain.push(newest);
    }
    chain
}

#[actix_web::test]
async fn scenario_26_a_used_token_ends_the_family_after_the_window() {
    let a = Server::start_with(options()).await;
    let b = a.replica(options()).await;
    let tenant = a.tenant("acme").await;
    let mut database = a.database.superuser().await;
    let chain = chain(&tenant, "alice", 1).await;
    // Another login of the same person, which nobody stole.
    let other = log_in(&tenant, "alice").await;
    pass(&mut database, chain[0].family(), 31).await;
    assert_reused("after the window", &refresh(&b, &chain[0].refresh).await);
    assert_family_is_over([&a, &b], &tenant, &chain, 0).await;
    assert_eq!(me(&a, &other.access).await.status, StatusCode::OK);
    let other = next(&b, &other.refresh).await;
    family(&mut database, other.family()).await.assert_lives_at(1);
    assert!(a.issuer.verify_audit(tenant.id, None).await.unwrap().is_ok());
}

#[actix_web::test]
async fn scenario_26_a_used_token_ends_the_family_once_its_successor_was_used() {
    let a = Server::start_with(options()).await;
    let b = a.replica(options()).await;
    let tenant = a.tenant("acme").await;
    for (username, refreshes, again) in [("alice", 2, 0), ("bob", 3, 0), ("carol", 3, 1), ("dora", 9, 4)] {
        let chain = chain(&tenant, username, refreshes).await;
        // All of this within the window of the last.
        assert_reused(username, &refresh(&b, &chain[again].refresh).await);
        assert_family_is_over([&a, &b], &tenant, &chain, i32::try_from(again).unwrap()).await;
    }
}

#[actix_web::test]
async fn scenario_27_without_a_window_the_second_of_ten_parallel_uses_ends_the_family() {
    let a = Server::start_with(options()).await;
    let b = a.replica(options()).await;
    let tenant = a.tenant_with("strict", with_window(0)).await;
    let first = newcomer(&tenant, "alice").await;
    let answers = join_all((0..10).map(|one| refresh([&a, &b][one % 2], &first.refresh))).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == StatusCode::OK);
    assert_eq!((won.len(), lost.len()), (1, 9));
    for answer in lost {
        assert_reused("one of the others", answer);
    }
    assert_family_is_over([&a, &b], &tenant, &[first, tokens(won[0])], 0).await;
}

#[actix_web::test]
async fn scenario_27_p10_sixty_four_parallel_uses_at_two_servers_have_one_successor_and_one_answer() {
    let a = Server::start_with(options()).await;
    let b = a.replica(options()).await;
    let tenant = a.tenant("acme").await;
    let mut newest = newcomer(&tenant, "alice").await;
    let id = newest.family();
    let mut database = a.database.superuser().await;
    for round in 1..=20 {
        let answers = join_all((0..64).map(|one| refresh([&a, &b][one % 2], &newest.refresh))).await;
        let said = answers[0].told();
        newest = tokens(&answers[0]);
        assert!(answers.iter().all(|answer| answer.told() == said), "round {round}: two different answers");
        let row = family(&mut database, id).await;
        row.assert_lives_at(round);
        assert_eq!(me([&a, &b][round as usize % 2], &newest.access).await.status, StatusCode::OK);
    }
    assert_eq!(count(&mut database, "SELECT count(*) FROM audit_entries WHERE action = 'token.refresh'").await, 20);
    assert_eq!(count(&mut database, "SELECT count(*) FROM audit_entries WHERE action = 'token.refresh_again'").await, 20 * 63);
    assert_eq!(count(&mut database, "SELECT count(*) FROM issued_tokens").await, 21);
    assert!(trail(&tenant, "token.reuse_detected", id).await.is_empty());
    assert!(a.issuer.verify_audit(tenant.id, None).await.unwrap().is_ok());
}

#[actix_web::test]
async fn many_families_at_two_servers_do_not_mix() {
    let a = Server::start_with(options()).await;
    let b = a.replica(options()).await;
    let tenant = a.tenant("acme").await;
    tenant.user("alice", Some(refresh_support::PASSWORD)).await;
    let mut logins = Vec::new();
    for _ in 0..24 {
        logins.push(log_in(&tenant, "alice").await);
    }
    let mut database = a.database.superuser().await;
    for round in 1..=4 {
        // Each twice, in opposite orders at the two servers.
        let there = join_all(logins.iter().map(|one| next(&a, &one.refresh)));
        let here = join_all(logins.iter().rev().map(|one| next(&b, &one.refresh)));
        let (there, mut here) = tokio::join!(there, here);
        here.reverse();
        assert_eq!(there, here);
        for (before, after) in logins.iter().zip(&there) {
            assert_eq!(before.family(), after.family());
            family(&mut database, after.family()).await.assert_lives_at(round);
        }
        logins = there;
    }
}

#[actix_web::test]
async fn what_was_not_made_by_us_is_refused_and_changes_nothing() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let other = server.tenant("other").await;
    let chain = chain(&tenant, "alice", 3).await;
    let id = chain[0].family();
    let stranger = newcomer(&other, "alice").await;
    let mut database = server.database.superuser().await;
    // Long after the window: whatever is taken for one of the old ones would end the family.
    pass(&mut database, id, 3600).await;
    let before = family(&mut database, id).await;
    let entries = "SELECT count(*) FROM audit_entries";
    let written = count(&mut database, entries).await;

    for (generation, one) in chain.iter().enumerate() {
        let parts = Parts::of(&one.refresh);
        assert_eq!((parts.family, parts.generation as usize), (id, generation));
        assert_eq!(parts.tenant.to_string(), tenant.id.to_string());
        for bit in [0, 7, 100, 128, 254, 255] {
            let mut forged = parts.clone();
            forged.secret[bit / 8] ^= 1 << (bit % 8);
            assert_refused("a secret that is nearly right", &refresh(&server, &forged.text()).await);
        }
        // The secret of one number under another.
        for number in [0, 1, 2, 3, 4, 5, 2_147_483_646, 2_147_483_647, 2_147_483_648, u32::MAX] {
            if number as usize != generation {
                let forged = Parts { generation: number, ..parts.clone() };
                assert_refused("another number", &refresh(&server, &forged.text()).await);
            }
        }
        let foreign = Parts { tenant: other.id.0, ..parts.clone() };
        assert_refused("another tenant", &refresh(&server, &foreign.text()).await);
        let foreign = Parts { family: stranger.family(), ..parts.clone() };
        assert_refused("another family", &refresh(&server, &foreign.text()).await);
        let both = Parts { family: stranger.family(), tenant: other.id.0, ..parts.clone() };
        assert_refused("another family of another tenant", &refresh(&server, &both.text()).await);
        let nowhere = Parts { tenant: Uuid::nil(), family: Uuid::max(), ..parts };
        assert_refused("a tenant and a family that are not there", &refresh(&server, &nowhere.text()).await);
    }
    let token = &chain[3].refresh;
    for length in [0, 1, 2, 3, 4, 50, 97, 98] {
        assert_refused("a token cut off", &refresh(&server, &token[..length]).await);
    }
    for garbage in [
        format!("{token} "),
        format!(" {token}"),
        format!("{token}="),
        format!("{token}{token}"),
        token.replacen("cr_", "dr_", 1),
        token.replacen("cr_", "CR_", 1),
        token.replacen("cr_", "", 1),
        chain[3].access.clone(),
        "\0".repeat(99),
        "cr_🦀".into(),
        "a".repeat(60_000),
    ] {
        assert_refused("garbage", &refresh(&server, &garbage).await);
    }
    let huge = refresh(&server, &"a".repeat(1 << 20)).await;
    assert_eq!(huge.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", huge.text);
    for body in [
        json!({}),
        json!({ "refresh_token": null }),
        json!({ "refresh_token": 7 }),
        json!({ "refresh_token": [token] }),
        json!({ "refresh_token": token, "grant_type": "refresh_token" }),
        json!({ "refresh_token": token, "scope": 7 }),
    ] {
        let answer = server.anonymous().post("/v1/token/refresh", body.clone()).await;
        assert!(matches!(answer.status.as_u16(), 400 | 422), "{body}: {} {}", answer.status, answer.text);
    }

    assert_eq!(family(&mut database, id).await, before);
    family(&mut database, stranger.family()).await.assert_lives_at(0);
    assert_eq!(count(&mut database, entries).await, written);
    assert_eq!(next(&server, token).await.family(), id);
    next(&server, &stranger.refresh).await;
}

#[actix_web::test]
async fn a_token_is_known_at_the_root_and_at_its_tenant_alone() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let other = server.tenant("other").await;
    let first = newcomer(&tenant, "alice").await;
    let id = first.family();
    let mut database = server.database.superuser().await;
    let before = family(&mut database, id).await;
    let body = json!({ "refresh_token": first.refresh });
    assert_refused("at another tenant", &server.anonymous().post(&other.path("/v1/token/refresh"), body.clone()).await);
    let nowhere = server.anonymous().post("/t/nobody/v1/token/refresh", body.clone()).await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND, "{}", nowhere.text);
    assert_eq!(family(&mut database, id).await, before);
    assert!(other.audit("token.refresh").await.is_empty());
    let answer = server.anonymous().post(&tenant.path("/v1/token/refresh"), body.clone()).await;
    let second = tokens(&answer);
    // The same request by another path: one answer.
    assert_eq!(refresh(&server, &first.refresh).await.text, answer.text);
    assert_refused("at another tenant, used", &server.anonymous().post(&other.path("/v1/token/refresh"), body).await);
    assert_eq!(next(&server, &second.refresh).await.family(), id);
}

#[actix_web::test]
async fn the_next_token_carries_what_the_person_is_now() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let admin = tenant.admin().await.basic();
    let user = tenant.user("alice", Some(refresh_support::PASSWORD)).await;
    let first = log_in(&tenant, "alice").await;
    let roles = |tokens: &Tokens| claims(&tokens.access).get("roles").cloned().unwrap_or_else(|| json!([]));
    assert_eq!(roles(&first), json!([]));
    let path = format!("/v1/users/{user}");
    let mut newest = first;
    for now in [json!(["editor"]), json!(["editor", "owner"]), json!(["owner"]), json!([])] {
        let done = server.with(&admin).patch(&path, json!({ "roles": now })).await;
        assert_eq!(done.status, StatusCode::OK, "{}", done.text);
        newest = next(&server, &newest.refresh).await;
        assert_eq!(roles(&newest), now);
    }
    // A person's tokens carry no scopes, so more than nothing cannot be asked for.
    let body = json!({ "refresh_token": newest.refresh, "scope": "users:write" });
    let answer = server.anonymous().post("/v1/token/refresh", body).await;
    assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_scope"));
    let mut database = server.database.superuser().await;
    family(&mut database, newest.family()).await.assert_lives_at(4);
    next(&server, &newest.refresh).await;
}

/// Sends a refresh and hangs up after so many bytes, or right after the last.
async fn send_and_hang_up(server: &Server, token: &str, wait: Duration) {
    let body = json!({ "refresh_token": token }).to_string();
    let request = format!(
        "POST /v1/token/refresh HTTP/1.1\r\nHost: id.test\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(wait).await;
    // Without a goodbye.
    stream.set_zero_linger().unwrap();
    drop(stream);
}

#[actix_web::test]
async fn t04_whoever_hangs_up_finds_the_token_fresh_or_its_answer_again() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let mut newest = newcomer(&tenant, "alice").await;
    let id = newest.family();
    let mut database = server.database.superuser().await;
    for round in 0..50_u64 {
        send_and_hang_up(&server, &newest.refresh, Duration::from_micros(round % 10 * 400)).await;
        let answer = refresh(&server, &newest.refresh).await;
        assert_eq!(answer.status, StatusCode::OK, "round {round}: {}", answer.text);
        newest = tokens(&answer);
        family(&mut database, id).await.assert_lives_at(i32::try_from(round).unwrap() + 1);
    }
    assert_eq!(trail(&tenant, "token.refresh", id).await.len(), 50);
    assert!(trail(&tenant, "token.reuse_detected", id).await.is_empty());
    // Both happened, or this shows nothing.
    assert!(!trail(&tenant, "token.refresh_again", id).await.is_empty());
}

async fn run(connection: &mut PgConnection, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await.unwrap();
}

/// Unknown is not yes, and it is not no either.
fn assert_unknown(what: &str, answer: &Answer) {
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{what}: {}", answer.text);
    assert_eq!(answer.error(), "temporarily_unavailable", "{what}");
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{what}: when to try again");
    assert!(answer.json().get("refresh_token").is_none() && answer.json().get("reason").is_none(), "{what}");
}

/// Asks until it is known.
async fn once_known(server: &Server, token: &str) -> Answer {
    let began = Instant::now();
    loop {
        let answer = refresh(server, token).await;
        if answer.status != StatusCode::SERVICE_UNAVAILABLE {
            return answer;
        }
        assert_unknown("not yet", &answer);
        assert!(began.elapsed() < Duration::from_secs(20), "it does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[actix_web::test]
async fn without_the_database_a_refresh_is_a_503_and_the_retry_is_right() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let fresh = newcomer(&tenant, "alice").await;
    let used = newcomer(&tenant, "bob").await;
    let stolen = chain(&tenant, "carol", 2).await;
    let lost = refresh(&server, &used.refresh).await;
    let mut database = server.database.superuser().await;
    let name = server.database.url().rsplit('/').next().unwrap().to_owned();
    let elsewhere: PgConnectOptions = std::env::var("DATABASE_URL").unwrap().parse().unwrap();
    let mut elsewhere = elsewhere.connect().await.unwrap();
    run(&mut elsewhere, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await;
    let others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
    while count(&mut database, others).await > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for one in [&fresh, &used, &stolen[0], &stolen[2]] {
        assert_unknown("away", &refresh(&server, &one.refresh).await);
    }
    run(&mut elsewhere, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await;
    tokens(&once_known(&server, &fresh.refresh).await);
    assert_eq!(once_known(&server, &used.refresh).await.text, lost.text);
    assert_reused("used twice before", &once_known(&server, &stolen[0].refresh).await);
    family(&mut database, fresh.family()).await.assert_lives_at(1);
    family(&mut database, used.family()).await.assert_lives_at(1);
}

#[actix_web::test]
async fn a_refresh_whose_record_is_blocked_is_a_503_and_the_retry_is_right() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let fresh = newcomer(&tenant, "alice").await;
    let stolen = chain(&tenant, "carol", 2).await;
    let mut database = server.database.superuser().await;
    run(&mut database, "BEGIN; LOCK TABLE audit_heads IN ACCESS EXCLUSIVE MODE").await;
    let began = Instant::now();
    let (one, other, theft) =
        tokio::join!(refresh(&server, &fresh.refresh), refresh(&server, &fresh.refresh), refresh(&server, &stolen[0].refresh));
    assert!(began.elapsed() < Duration::from_secs(10));
    for answer in [one, other, theft] {
        assert_unknown("blocked", &answer);
    }
    // Nothing is half done: neither the rotation nor the end of the stolen family.
    family(&mut database, fresh.family()).await.assert_lives_at(0);
    family(&mut database, stolen[0].family()).await.assert_lives_at(2);
    run(&mut database, "COMMIT").await;
    let second = tokens(&once_known(&server, &fresh.refresh).await);
    assert_eq!(next(&server, &fresh.refresh).await, second);
    family(&mut database, fresh.family()).await.assert_lives_at(1);
    assert_reused("used twice", &once_known(&server, &stolen[0].refresh).await);
    assert_family_is_over([&server, &server], &tenant, &stolen, 0).await;
}

#[actix_web::test]
async fn a_window_is_as_long_as_the_tenant_says() {
    let server = Server::start_with(options()).await;
    let mut database = server.database.superuser().await;
    for (slug, window) in [("short", 5), ("usual", 30), ("long", 60)] {
        let tenant = server.tenant_with(slug, with_window(window)).await;
        let seconds = i32::try_from(window).unwrap();
        let chain = chain(&tenant, "alice", 1).await;
        // Two seconds for a slow machine.
        pass(&mut database, chain[0].family(), seconds - 2).await;
        assert_eq!(next(&server, &chain[0].refresh).await, chain[1], "{slug}");
        pass(&mut database, chain[0].family(), 2).await;
        assert_reused(slug, &refresh(&server, &chain[0].refresh).await);
    }
    let admin = server.default_tenant().await.admin().await.basic();
    for (window, fits) in [(json!(0), true), (json!(60), true), (json!(61), false), (json!(-1), false), (Value::Null, true)] {
        let settings = json!({ "settings": { "refresh": { "window": window } } });
        let answer = server.with(&admin).patch("/v1/tenants/short", settings).await;
        assert_eq!(answer.status == StatusCode::OK, fits, "{window}: {}", answer.text);
    }
}
