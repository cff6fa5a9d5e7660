//! How a login ends, and that whatever ends it ends it at once, everywhere and for good (SEEDS scenario 29; SECURITY P12).

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

use chrono::{DateTime, TimeDelta, Utc};
use claviger_issuer::clock::Clock;
use claviger_issuer::settings::{RefreshRule, TenantSettings};
use futures_util::future::join_all;
use refresh_support::{
    Tokens, assert_refused, assert_reused, family, log_in, me, newcomer, next, options, pass, refresh, refresh_as, tokens, trail,
};
use reqwest::StatusCode;
use serde_json::json;
use support::{Answer, Options, Server, Tenant, claims, detail};

const OTHER_PASSWORD: &str = "a wholly different sentence";

/// Ways to end a login, with the action in the trail and the reason in the row; the last are an admin's.
const WAYS: [(&str, &str, &str); 13] = [
    ("log out", "user.logout", "logout"),
    ("log out everywhere", "user.logout_everywhere", "logout"),
    ("end it from another login", "user.end_login", "revoked"),
    ("change the password", "user.password_change", "password"),
    ("revoke the newest refresh token", "token.revoke", "revoked"),
    ("revoke the used refresh token", "token.revoke", "revoked"),
    ("revoke the access token", "token.revoke", "revoked"),
    ("revoke the access token before", "token.revoke", "revoked"),
    ("an admin ends it", "user.end_login", "revoked"),
    ("an admin ends all", "user.logout_everywhere", "logout"),
    ("an admin sets the password", "user.password_set", "password"),
    ("an admin disables the user", "user.disable", "disabled"),
    ("an admin deletes the user", "user.delete", "deleted"),
];

async fn end(tenant: &Tenant<'_>, admin: &str, [first, second]: &[Tokens; 2], way: &str) -> Answer {
    let server = tenant.server;
    let me = server.with(&second.bearer());
    let admin = server.with(admin);
    let user = format!("/v1/users/{}", claims(&second.access)["sub"].as_str().unwrap());
    let revoke = async |token: &str| server.anonymous().introspect("/v1/token/revoke", token).await;
    match way {
        "log out" => me.post_empty("/v1/logout").await,
        "log out everywhere" => me.delete("/v1/me/sessions").await,
        "end it from another login" => {
            let username = me.get("/v1/me").await.json()["username"].as_str().unwrap().to_owned();
            let another = log_in(tenant, &username).await;
            server.with(&another.bearer()).delete(&format!("/v1/me/sessions/{}", second.family())).await
        }
        "change the password" => {
            let body = json!({ "current_password": refresh_support::PASSWORD, "new_password": OTHER_PASSWORD });
            me.post("/v1/me/password", body).await
        }
        "revoke the newest refresh token" => revoke(&second.refresh).await,
        "revoke the used refresh token" => revoke(&first.refresh).await,
        "revoke the access token" => revoke(&second.access).await,
        "revoke the access token before" => revoke(&first.access).await,
        "an admin ends it" => admin.delete(&format!("{user}/sessions/{}", second.family())).await,
        "an admin ends all" => admin.delete(&format!("{user}/sessions")).await,
        "an admin sets the password" => {
            let body = json!({ "password": OTHER_PASSWORD });
            Answer::of(admin.request(reqwest::Method::PUT, &format!("{user}/password")).json(&body).send().await.unwrap()).await
        }
        "an admin disables the user" => admin.patch(&user, json!({ "disabled": true })).await,
        "an admin deletes the user" => admin.delete(&user).await,
        other => panic!("{other}"),
    }
}

/// Returns when these access tokens are over at this server; in a second, or three on a busy machine.
async fn assert_over(server: &Server, what: &str, chain: &[Tokens]) {
    let began = Instant::now();
    for one in chain {
        loop {
            let answer = me(server, &one.access).await;
            match answer.status {
                StatusCode::UNAUTHORIZED => break assert_eq!(answer.error(), "invalid_token", "{what}"),
                StatusCode::OK => assert!(began.elapsed() < Duration::from_secs(3), "{what}: its access tokens live on"),
                other => panic!("{what}: {other} {}", answer.text),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[actix_web::test]
async fn scenario_29_whatever_ends_a_login_closes_the_window_at_once_on_every_server() {
    let a = Server::start_with(options()).await;
    let b = a.replica(options()).await;
    let tenant = a.tenant("acme").await;
    let admin_key = tenant.admin().await;
    let admin = admin_key.basic();
    let mut database = a.database.superuser().await;
    for (number, (way, action, why)) in WAYS.into_iter().enumerate() {
        let username = format!("user-{number}");
        let first = newcomer(&tenant, &username).await;
        let chain = [first.clone(), next(&a, &first.refresh).await];
        let id = first.family();
        let user = format!("user:{}", claims(&first.access)["sub"].as_str().unwrap());
        // Both servers know all of it by heart, and the window is open.
        for server in [&a, &b] {
            assert_eq!(next(server, &first.refresh).await, chain[1], "{way}");
            assert!(chain.iter().all(|one| one.family() == id));
            for one in &chain {
                assert_eq!(me(server, &one.access).await.status, StatusCode::OK, "{way}");
            }
        }
        let before = tenant.audit(action).await.len();
        let answer = end(&tenant, &admin, &chain, way).await;
        assert!(answer.status.is_success(), "{way}: {} {}", answer.status, answer.text);

        let by = if way.starts_with("an admin") { format!("key:{}", admin_key.id) } else { user };
        let row = family(&mut database, id).await;
        row.assert_ended(why, &by);
        assert_eq!(row.tokens, [0, 1]);
        let entries = tenant.audit(action).await;
        assert_eq!(entries.len(), before + 1, "{way}");
        assert_eq!((entries[0].outcome.as_str(), &entries[0].actor), ("ok", &by), "{way}");
        for server in [&b, &a] {
            for one in &chain {
                assert_refused(way, &refresh(server, &one.refresh).await);
            }
        }
        // Nor is it taken for theft later.
        pass(&mut database, id, 31).await;
        let row = family(&mut database, id).await;
        for one in &chain {
            assert_refused(way, &refresh(&b, &one.refresh).await);
        }
        assert_eq!(family(&mut database, id).await, row, "{way}");
        assert!(trail(&tenant, "token.reuse_detected", id).await.is_empty(), "{way}");
        assert_over(&a, way, &chain).await;
        assert_over(&b, way, &chain).await;
    }
    assert!(a.issuer.verify_audit(tenant.id, None).await.unwrap().is_ok());
}

#[actix_web::test]
async fn scenario_29_a_person_who_is_disabled_and_enabled_again_logs_in_anew() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let admin = tenant.admin().await.basic();
    let first = newcomer(&tenant, "alice").await;
    let path = format!("/v1/users/{}", claims(&first.access)["sub"].as_str().unwrap());
    for disabled in [true, false] {
        let answer = server.with(&admin).patch(&path, json!({ "disabled": disabled })).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        assert_refused("the login before", &refresh(&server, &first.refresh).await);
        assert_eq!(me(&server, &first.access).await.status, StatusCode::UNAUTHORIZED);
    }
    next(&server, &log_in(&tenant, "alice").await.refresh).await;
}

/// Suspends (or wakes) a tenant, or ends it.
async fn switch_tenant(server: &Server, platform: &str, slug: &str, how: &str) {
    let path = format!("/v1/tenants/{slug}");
    let platform = server.with(platform);
    let answer = match how {
        "delete" => platform.delete(&path).await,
        _ => platform.patch(&path, json!({ "disabled": how == "suspend" })).await,
    };
    assert!(answer.status.is_success(), "{how}: {}", answer.text);
}

#[actix_web::test]
async fn logins_of_a_suspended_tenant_end_at_once_and_do_not_come_back_with_it() {
    let a = Server::start_with(options()).await;
    let b = a.replica(options()).await;
    let platform = a.default_tenant().await.admin().await.basic();
    let mut database = a.database.superuser().await;
    for how in ["suspend", "delete"] {
        let tenant = a.tenant(&format!("to-{how}")).await;
        let client = tenant.app_key("client", &[]).await;
        let first = newcomer(&tenant, "alice").await;
        let chain = [first.clone(), next(&a, &first.refresh).await];
        let body = json!({ "username": "alice", "password": refresh_support::PASSWORD });
        let bound = tokens(&a.with(&client.basic()).post(&tenant.path("/v1/login"), body).await);
        // Used twice, unnoticed so far: a tenant that may not act is not told.
        let stolen = log_in(&tenant, "alice").await;
        let newest = next(&b, &next(&b, &stolen.refresh).await.refresh).await;
        for server in [&a, &b] {
            assert_eq!(next(server, &first.refresh).await, chain[1]);
            assert_eq!(me(server, &chain[1].access).await.status, StatusCode::OK);
        }
        let before = family(&mut database, first.family()).await;
        switch_tenant(&a, &platform, &tenant.slug, how).await;
        for server in [&b, &a] {
            for token in [&chain[0].refresh, &chain[1].refresh, &bound.refresh, &stolen.refresh, &newest.refresh] {
                assert_refused(how, &refresh(server, token).await);
            }
            let answer = refresh_as(server, &client.basic(), &bound.refresh).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text);
            assert_over(server, how, &chain).await;
        }
        assert_eq!(family(&mut database, first.family()).await, before);
        if how == "suspend" {
            switch_tenant(&a, &platform, &tenant.slug, "wake").await;
            a.settle().await;
            b.settle().await;
            for server in [&b, &a] {
                for token in [&chain[0].refresh, &chain[1].refresh, &stolen.refresh, &newest.refresh] {
                    assert_refused("a login from before", &refresh(server, token).await);
                }
                assert_refused("a client's", &refresh_as(server, &client.basic(), &bound.refresh).await);
                assert_over(server, "a login from before", &chain).await;
            }
            let anew = log_in(&tenant, "alice").await;
            assert_eq!(me(&b, &next(&b, &anew.refresh).await.access).await.status, StatusCode::OK);
        }
    }
}

#[actix_web::test]
async fn logins_of_a_suspended_tenant_do_not_come_back_where_the_server_s_clock_is_slow() {
    // A minute behind the database, which says when a login began.
    let clock = Clock::manual(Clock::System.now() - TimeDelta::minutes(1));
    let server = Server::start_with(Options { clock: Some(clock), ..options() }).await;
    let platform = server.default_tenant().await.admin().await.basic();
    let tenant = server.tenant("acme").await;
    let first = newcomer(&tenant, "alice").await;
    let second = next(&server, &first.refresh).await;
    for how in ["suspend", "wake"] {
        switch_tenant(&server, &platform, "acme", how).await;
        for one in [&first, &second] {
            assert_refused(how, &refresh(&server, &one.refresh).await);
        }
    }
    assert_over(&server, "a login from before", &[first, second]).await;
}

#[actix_web::test]
async fn a_new_login_counts_at_once_where_the_server_s_clock_is_fast() {
    let clock = Clock::manual(Clock::System.now() + TimeDelta::minutes(1));
    let server = Server::start_with(Options { clock: Some(clock), ..options() }).await;
    let platform = server.default_tenant().await.admin().await.basic();
    let tenant = server.tenant("acme").await;
    let before = newcomer(&tenant, "alice").await;
    for how in ["suspend", "wake"] {
        switch_tenant(&server, &platform, "acme", how).await;
    }
    assert_refused("a login from before", &refresh(&server, &before.refresh).await);
    let anew = log_in(&tenant, "alice").await;
    assert_eq!(me(&server, &anew.access).await.status, StatusCode::OK);
    next(&server, &anew.refresh).await;
}

#[actix_web::test]
async fn a_login_that_nobody_refreshes_ends_by_itself() {
    let server = Server::start_with(options()).await;
    let rule = RefreshRule { idle: 600, absolute: 3600, ..RefreshRule::default() };
    let tenant = server.tenant_with("acme", TenantSettings { refresh: Some(rule), ..TenantSettings::default() }).await;
    let mut database = server.database.superuser().await;
    let first = newcomer(&tenant, "alice").await;
    let id = first.family();
    // Each refresh keeps it for as long again.
    let mut newest = first.clone();
    for _ in 0..3 {
        pass(&mut database, id, 597).await;
        newest = next(&server, &newest.refresh).await;
    }
    pass(&mut database, id, 600).await;
    let before = family(&mut database, id).await;
    for _ in 0..2 {
        assert_refused("too late", &refresh(&server, &newest.refresh).await);
        // Neither is the first one a theft any more.
        assert_refused("used, and too late", &refresh(&server, &first.refresh).await);
    }
    assert_eq!(family(&mut database, id).await, before);
    assert!(trail(&tenant, "token.reuse_detected", id).await.is_empty());
}

#[actix_web::test]
async fn a_login_ends_after_its_whole_time_whatever_happens() {
    let server = Server::start_with(options()).await;
    let rule = RefreshRule { idle: 600, absolute: 5, ..RefreshRule::default() };
    let tenant = server.tenant_with("acme", TenantSettings { refresh: Some(rule), ..TenantSettings::default() }).await;
    let mut database = server.database.superuser().await;
    let began = Instant::now();
    let first = newcomer(&tenant, "alice").await;
    let id = first.family();
    let (created_at, ends_at): (DateTime<Utc>, DateTime<Utc>) =
        sqlx::query_as("SELECT created_at, ends_at FROM token_families").fetch_one(&mut database).await.unwrap();
    let whole = ends_at - created_at;
    assert!((TimeDelta::milliseconds(4_000)..=TimeDelta::seconds(5)).contains(&whole), "{whole}");
    let second = next(&server, &first.refresh).await;
    for one in [&first, &second] {
        assert!(claims(&one.access)["exp"].as_i64().unwrap() <= ends_at.timestamp(), "an access token outlives its login");
    }
    assert_eq!(me(&server, &second.access).await.status, StatusCode::OK);
    tokio::time::sleep(Duration::from_millis(5_100).saturating_sub(began.elapsed())).await;
    let before = family(&mut database, id).await;
    for one in [&first, &second] {
        assert_refused("over", &refresh(&server, &one.refresh).await);
        assert_eq!(me(&server, &one.access).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(family(&mut database, id).await, before);
}

#[actix_web::test]
async fn a_refresh_and_an_end_at_the_same_time_leave_nothing_alive() {
    let a = Server::start_with(options()).await;
    let b = a.replica(options()).await;
    let tenant = a.tenant("acme").await;
    tenant.user("alice", Some(refresh_support::PASSWORD)).await;
    let mut database = a.database.superuser().await;
    for round in 0..12 {
        let first = log_in(&tenant, "alice").await;
        let id = first.family();
        let refreshes = join_all((0..6).map(|one| refresh([&a, &b][one % 2], &first.refresh)));
        let logout = async {
            tokio::time::sleep(Duration::from_millis(round)).await;
            a.with(&first.bearer()).post_empty("/v1/logout").await
        };
        let (answers, logout) = tokio::join!(refreshes, logout);
        assert_eq!(logout.status, StatusCode::NO_CONTENT, "{}", logout.text);
        let row = family(&mut database, id).await;
        assert_eq!(row.ended.as_ref().unwrap().0, "logout");
        assert!(row.generation <= 1);
        let mut given = vec![first];
        for answer in answers {
            match answer.status {
                StatusCode::OK => given.push(tokens(&answer)),
                _ => assert_refused("after the end", &answer),
            }
        }
        for one in &given {
            assert_refused("after the end", &refresh(&b, &one.refresh).await);
        }
        assert_over(&b, "after the end", &given).await;
    }
}

#[actix_web::test]
async fn a_theft_that_is_noticed_at_the_same_time_everywhere_is_noticed_once() {
    let a = Server::start_with(options()).await;
    let b = a.replica(options()).await;
    let tenant = a.tenant("acme").await;
    tenant.user("alice", Some(refresh_support::PASSWORD)).await;
    for _ in 0..5 {
        let first = log_in(&tenant, "alice").await;
        let second = next(&a, &first.refresh).await;
        let third = next(&b, &second.refresh).await;
        let old = join_all((0..12).map(|one| refresh([&a, &b][one % 2], &first.refresh)));
        let (old, newest) = tokio::join!(old, refresh(&b, &third.refresh));
        for answer in &old {
            assert_reused("used before", answer);
        }
        // Whoever holds the newest was in time, or hears the same.
        if newest.status == StatusCode::OK {
            assert_reused("of an ended family", &refresh(&b, &tokens(&newest).refresh).await);
        } else {
            assert_reused("of an ended family", &newest);
        }
        let entries = trail(&tenant, "token.reuse_detected", first.family()).await;
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].outcome.as_str(), &detail(&entries[0])["generation"]), ("refused", &json!(0)));
    }
}
