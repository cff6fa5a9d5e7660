//! Failed logins are counted before they are looked at (SEEDS scenario 49), nobody is locked out by somebody else (P13,
//! P17), and what is more than the machine can hash is refused at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

#[path = "support/people.rs"]
mod people;
mod support;

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use claviger_issuer::password::Cost;
use claviger_issuer::settings::{LoginThrottle, TenantSettings};
use claviger_store::id::Owner;
use futures_util::future::join_all;
use people::{
    Browser, PASSWORD, WRONG_PASSWORD, access_token, refresh, refresh_token, server_that_hashes, set_cookie, try_login,
    try_login_on,
};
use reqwest::StatusCode;
use serde_json::json;
use support::{Answer, Options, Server, Tenant};

const FORWARDED: &str = "X-Forwarded-For";
/// Where the attacker is.
const THERE: &str = "198.51.100.7";
/// Where nobody has failed.
const ELSEWHERE: &str = "203.0.113.9";

/// A server behind a proxy, which says where requests come from.
fn behind_a_proxy() -> Options {
    Options { trusted_proxies: vec!["127.0.0.1/32"], ..Options::default() }
}

/// A login from there, tried again for as long as the machine is too busy to say yes or no.
async fn from(tenant: &Tenant<'_>, address: &str, username: &str, password: &str) -> Answer {
    from_on(tenant.server, &tenant.slug, address, username, password).await
}

async fn from_on(server: &Server, slug: &str, address: &str, username: &str, password: &str) -> Answer {
    for _ in 0..20 {
        let answer = try_login_on(server, slug, username, password, &[(FORWARDED, address)]).await;
        if answer.status != StatusCode::SERVICE_UNAVAILABLE {
            return answer;
        }
        assert!(!answer.header("retry-after").is_empty());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("not looked at, twenty times");
}

/// So many wrong passwords from there, all at once; how many were looked at.
async fn fail(tenant: &Tenant<'_>, address: &str, username: &str, times: usize) -> usize {
    let answers = join_all((0..times).map(|_| from(tenant, address, username, WRONG_PASSWORD))).await;
    looked_at(&answers)
}

/// How many were looked at; the others were refused as too many.
fn looked_at(answers: &[Answer]) -> usize {
    let seen = answers.iter().filter(|answer| answer.status == StatusCode::UNAUTHORIZED).count();
    let unseen = answers.iter().filter(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS).count();
    let odd = answers.iter().find(|answer| ![401, 429].contains(&answer.status.as_u16()));
    assert_eq!(seen + unseen, answers.len(), "{}", odd.map_or("", |answer| &answer.text));
    seen
}

fn assert_throttled(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.text);
    assert_eq!(answer.error(), "too_many_requests");
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=86_401).contains(&seconds), "{seconds}");
}

/// What is counted in each bucket of the tenant, in order.
async fn counts(tenant: &Tenant<'_>) -> Vec<i32> {
    let mut database = tenant.server.database.superuser().await;
    let query = sqlx::query_scalar("SELECT used FROM attempts WHERE tenant_id = $1 ORDER BY used");
    query.bind(tenant.id).fetch_all(&mut database).await.unwrap()
}

async fn refused_in_the_audit_trail(tenant: &Tenant<'_>) -> usize {
    tenant.audit("user.login").await.iter().filter(|entry| entry.outcome == "refused").count()
}

fn throttle(login_throttle: LoginThrottle) -> TenantSettings {
    TenantSettings { login_throttle: Some(login_throttle), ..TenantSettings::default() }
}

#[actix_web::test]
async fn scenario_49_five_failures_throttle_one_account_from_one_address_and_nobody_else() {
    let server = Server::start_with(behind_a_proxy()).await;
    let tenant = server.tenant("cc").await;
    tenant.user("demo", Some(PASSWORD)).await;
    tenant.user("adm", Some(PASSWORD)).await;
    let other = server.tenant("other").await;
    other.user("demo", Some(PASSWORD)).await;
    assert_eq!(fail(&tenant, THERE, "demo", 5).await, 5);

    let sixth = from(&tenant, THERE, "demo", PASSWORD).await;
    assert_throttled(&sixth);
    assert_eq!(sixth.header("retry-after"), "901");
    assert!(!sixth.headers.contains_key("set-cookie"));
    // The same name in another case is the same account.
    assert_throttled(&from(&tenant, THERE, "DEMO", PASSWORD).await);
    // An account that is not there is throttled in the same words.
    fail(&tenant, THERE, "nobody", 5).await;
    assert_eq!(from(&tenant, THERE, "nobody", PASSWORD).await.told(), sixth.told());
    // The page says it too.
    let mut browser = Browser::at(&tenant);
    let csrf = browser.token_of("/login").await;
    let form = [("csrf", csrf.as_str()), ("username", "demo"), ("password", PASSWORD)];
    let page = browser.submit_with("/login", &form, &[(FORWARDED, THERE)]).await;
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(page.header("retry-after"), "901");
    assert!(page.header("content-type").starts_with("text/html") && page.text.contains("role=\"alert\""));
    assert!(browser.cookie("session").is_none());

    assert_eq!(from(&tenant, THERE, "adm", PASSWORD).await.status, StatusCode::OK);
    assert_eq!(from(&tenant, ELSEWHERE, "demo", PASSWORD).await.status, StatusCode::OK);
    assert_eq!(from(&other, THERE, "demo", PASSWORD).await.status, StatusCode::OK);
    // Those that were not looked at are told in the log alone: nobody fills the audit trail with them.
    assert_eq!(refused_in_the_audit_trail(&tenant).await, 10);

    // Elsewhere's success does not open the door here; time does.
    assert_throttled(&from(&tenant, THERE, "demo", PASSWORD).await);
    server.clock.advance(TimeDelta::seconds(901));
    assert_eq!(from(&tenant, THERE, "demo", PASSWORD).await.status, StatusCode::OK);
}

#[actix_web::test]
async fn a_success_clears_the_failures_before_it() {
    let server = Server::start_with(behind_a_proxy()).await;
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    for _ in 0..3 {
        assert_eq!(fail(&tenant, THERE, "alice", 4).await, 4);
        assert_eq!(from(&tenant, THERE, "alice", PASSWORD).await.status, StatusCode::OK);
    }
    // Nothing left of the account from there; of the day, the address and the tenant, what failed and not what succeeded.
    assert_eq!(counts(&tenant).await, [0, 12, 12, 12]);
    assert_eq!(fail(&tenant, THERE, "alice", 6).await, 5);
}

#[actix_web::test]
async fn p14_of_two_hundred_guesses_at_once_five_are_looked_at() {
    let server = Server::start_with(behind_a_proxy()).await;
    let replica = server.replica(behind_a_proxy()).await;
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    let servers = [&server, &replica];
    let guesses = (0..200).map(|number| from_on(servers[number % 2], "acme", THERE, "alice", WRONG_PASSWORD));
    assert_eq!(looked_at(&join_all(guesses).await), 5);
    // Counted where they came from until that was full, which each server then remembers; what others have in common with
    // them, only by what was looked at.
    let counts = counts(&tenant).await;
    assert_eq!((&counts[..3], counts.len()), (&[5, 5, 5][..], 4));
    assert!(counts[3] > 5, "{counts:?}");
    assert_eq!(refused_in_the_audit_trail(&tenant).await, 5);
    assert_throttled(&from(&tenant, THERE, "alice", PASSWORD).await);
}

#[actix_web::test]
async fn p14_the_right_password_among_many_guesses_helps_nobody_who_comes_too_late() {
    let server = Server::start_with(behind_a_proxy()).await;
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    assert_eq!(fail(&tenant, THERE, "alice", 5).await, 5);
    let answers = join_all((0..50).map(|_| from(&tenant, THERE, "alice", PASSWORD))).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS));
    assert!(tenant.audit("user.login").await.iter().all(|entry| entry.outcome == "refused"));
}

#[actix_web::test]
async fn p15_headers_of_unlisted_peers_count_for_nothing() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    let spoofed = |number: usize, password: &'static str| {
        let address = format!("203.0.113.{number}");
        let tenant = &tenant;
        async move {
            let forwarded = format!("for={address}");
            let headers = [
                (FORWARDED, address.as_str()),
                ("Forwarded", &forwarded),
                ("X-Real-IP", &address),
                ("CF-Connecting-IP", &address),
                ("X-Client-IP", &address),
            ];
            try_login(tenant, "alice", password, &headers).await
        }
    };
    let answers = join_all((1..=20).map(|number| spoofed(number, WRONG_PASSWORD))).await;
    assert_eq!(looked_at(&answers), 5);
    assert_throttled(&spoofed(99, PASSWORD).await);
    for entry in tenant.audit("user.login").await {
        assert!(entry.personal.unwrap().contains("127.0.0.1"));
    }
}

#[actix_web::test]
async fn p15_an_address_is_a_network_of_ipv6_and_the_hop_that_the_proxy_saw() {
    let server = Server::start_with(behind_a_proxy()).await;
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    // Whoever has one address of a /64 has all of them.
    let neighbours = join_all((1..=20).map(|number| {
        let address = format!("2001:db8:1:2:{number:x}::{number:x}");
        let tenant = &tenant;
        async move { from(tenant, &address, "alice", WRONG_PASSWORD).await }
    }));
    assert_eq!(looked_at(&neighbours.await), 5);
    assert_throttled(&from(&tenant, "2001:db8:1:2:ffff:ffff:ffff:ffff", "alice", PASSWORD).await);
    assert_eq!(from(&tenant, "2001:db8:1:3::1", "alice", PASSWORD).await.status, StatusCode::OK);
    // What stands before the hop that our proxy saw, the client wrote.
    let written = join_all((1..=20).map(|number| {
        let hops = format!("203.0.113.{number}, {THERE}");
        let tenant = &tenant;
        async move { from(tenant, &hops, "alice", WRONG_PASSWORD).await }
    }));
    assert_eq!(looked_at(&written.await), 5);
    for same in [THERE, "::ffff:198.51.100.7", "198.51.100.7:4711", "203.0.113.77,198.51.100.7"] {
        assert_throttled(&from(&tenant, same, "alice", PASSWORD).await);
    }
    assert_eq!(from(&tenant, ELSEWHERE, "alice", PASSWORD).await.status, StatusCode::OK);
}

#[actix_web::test]
async fn p17_a_thousand_hostile_failures_do_not_lock_out_who_comes_back_on_a_known_device() {
    let server = Server::start_with(behind_a_proxy()).await;
    let tenant = server.tenant("acme").await;
    tenant.user("victim", Some(PASSWORD)).await;
    tenant.user("mallory", Some(PASSWORD)).await;
    let other = server.tenant("other").await;
    other.user("victim", Some(PASSWORD)).await;
    let cookie_of = |answer: &Answer, slug: &str| set_cookie(answer, &format!("__Host-device-{slug}")).unwrap();
    let first = from(&tenant, THERE, "victim", PASSWORD).await;
    let device = cookie_of(&first, "acme");
    let mallorys = cookie_of(&from(&tenant, ELSEWHERE, "mallory", PASSWORD).await, "acme");
    let elsewheres = cookie_of(&from(&other, ELSEWHERE, "victim", PASSWORD).await, "other");

    // A thousand, from the victim's own address and from a hundred others.
    let mut seen = 0;
    for round in 0..10 {
        let answers = join_all((0..100).map(|number| {
            let address = if number % 2 == 0 { THERE.to_owned() } else { format!("192.0.2.{number}") };
            let username = if round % 2 == 0 { "victim" } else { "VICTIM" };
            let tenant = &tenant;
            async move { from(tenant, &address, username, WRONG_PASSWORD).await }
        }));
        seen += looked_at(&answers.await);
    }
    assert!((50..=100).contains(&seen), "NIST SP 800-63B allows an account a hundred failures: {seen} were looked at");
    for address in [THERE, ELSEWHERE, "192.0.2.200"] {
        let unknown = from(&tenant, address, "victim", PASSWORD).await;
        assert_throttled(&unknown);
    }

    let with = async |address: &str, cookie: &str, password: &str| {
        let cookie = format!("__Host-device-acme={cookie}");
        try_login(&tenant, "victim", password, &[(FORWARDED, address), ("Cookie", &cookie)]).await
    };
    for address in [THERE, ELSEWHERE] {
        let known = with(address, &device, PASSWORD).await;
        assert_eq!(known.status, StatusCode::OK, "{}", known.text);
    }
    // In a browser, too.
    let mut browser = Browser::at(&tenant);
    let csrf = browser.token_of("/login").await;
    browser.plant("device", &device);
    let form = [("csrf", csrf.as_str()), ("username", "victim"), ("password", PASSWORD)];
    let page = browser.submit_with("/login", &form, &[(FORWARDED, THERE)]).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.text);

    // Nobody else's cookie, and nothing that merely resembles one.
    let mut worthless =
        vec![mallorys, elsewheres, String::new(), "A".repeat(device.len()), device[..device.len() - 4].to_owned()];
    for at in [0, 10, 22, 40, device.len() - 1] {
        let mut letters: Vec<char> = device.chars().collect();
        letters[at] = if letters[at] == 'A' { 'B' } else { 'A' };
        worthless.push(letters.into_iter().collect());
    }
    worthless.push(format!("{device}AAAA"));
    for cookie in &worthless {
        assert_throttled(&with(THERE, cookie, PASSWORD).await);
    }
    // The cookie of another tenant under its own name, neither.
    let cookie = format!("__Host-device-other={device}");
    assert_throttled(&try_login(&tenant, "victim", PASSWORD, &[(FORWARDED, THERE), ("Cookie", &cookie)]).await);

    // A known device has a limit of its own.
    let answers = join_all((0..8).map(|_| with(ELSEWHERE, &device, WRONG_PASSWORD))).await;
    assert_eq!(looked_at(&answers), 5);
    assert_throttled(&with("192.0.2.250", &device, PASSWORD).await);
}

#[actix_web::test]
async fn p13_a_throttled_login_blocks_no_key_no_token_and_no_session() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let alice = tenant.user("alice", Some(PASSWORD)).await;
    let key = tenant.key_of(Owner::User(alice), &["events:read"]).await;
    let body = tenant.log_in("alice", PASSWORD).await;
    let browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    // From the very same address.
    let answers = join_all((0..8).map(|_| try_login(&tenant, "alice", WRONG_PASSWORD, &[]))).await;
    assert_eq!(looked_at(&answers), 5);
    assert_throttled(&try_login(&tenant, "alice", PASSWORD, &[]).await);

    let exchanged = server.with(&key.pair()).post_empty(&tenant.path("/v1/authentications")).await;
    assert_eq!(exchanged.status, StatusCode::CREATED, "{}", exchanged.text);
    assert_eq!(refresh(&tenant, refresh_token(&body)).await.status, StatusCode::OK);
    let bearer = format!("Bearer {}", access_token(&body));
    assert_eq!(server.with(&bearer).get("/v1/me").await.status, StatusCode::OK);
    assert_eq!(browser.me().await.status, StatusCode::OK);
}

#[actix_web::test]
async fn limits_hold_over_replicas_and_restarts() {
    let server = Server::start_with(behind_a_proxy()).await;
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    assert_eq!(fail(&tenant, THERE, "alice", 3).await, 3);
    let replica = server.replica(behind_a_proxy()).await;
    let answers = join_all((0..5).map(|_| try_login_on(&replica, "acme", "alice", WRONG_PASSWORD, &[(FORWARDED, THERE)]))).await;
    assert_eq!(looked_at(&answers), 2);
    assert_throttled(&from(&tenant, THERE, "alice", PASSWORD).await);
    server.stopper.stop(Duration::ZERO).await;
    replica.stopper.stop(Duration::ZERO).await;
    let restarted = server.replica(behind_a_proxy()).await;
    assert_throttled(&try_login_on(&restarted, "acme", "alice", PASSWORD, &[(FORWARDED, THERE)]).await);
    let elsewhere = try_login_on(&restarted, "acme", "alice", PASSWORD, &[(FORWARDED, ELSEWHERE)]).await;
    assert_eq!(elsewhere.status, StatusCode::OK, "{}", elsewhere.text);
}

/// Wrong passwords for so many accounts that are not there. `N` in the addresses is the number of each.
async fn spray(tenant: &Tenant<'_>, addresses: &str, count: usize) -> usize {
    let guesses = (0..count).map(|number| {
        let address = addresses.replace('N', &number.to_string());
        async move { from(tenant, &address, &format!("user{number}"), WRONG_PASSWORD).await }
    });
    looked_at(&join_all(guesses).await)
}

#[actix_web::test]
async fn one_address_and_one_tenant_have_limits_too_whatever_the_account() {
    let server = Server::start_with(behind_a_proxy()).await;
    let rule = LoginThrottle { address: 12, tenant: 30, ..LoginThrottle::default() };
    let tenant = server.tenant_with("acme", throttle(rule)).await;
    tenant.user("alice", Some(PASSWORD)).await;
    let known = set_cookie(&from(&tenant, ELSEWHERE, "alice", PASSWORD).await, "__Host-device-acme").unwrap();
    assert_eq!(spray(&tenant, THERE, 13).await, 12);
    assert_throttled(&from(&tenant, THERE, "alice", PASSWORD).await);
    assert_eq!(from(&tenant, ELSEWHERE, "alice", PASSWORD).await.status, StatusCode::OK);
    // From everywhere: the tenant's own limit. Who comes back on a known device is not of that crowd.
    spray(&tenant, "192.0.2.N", 60).await;
    assert_throttled(&from(&tenant, ELSEWHERE, "alice", PASSWORD).await);
    let cookie = format!("__Host-device-acme={known}");
    for address in [THERE, ELSEWHERE] {
        let back = try_login(&tenant, "alice", PASSWORD, &[(FORWARDED, address), ("Cookie", &cookie)]).await;
        assert_eq!(back.status, StatusCode::OK, "{}", back.text);
    }
    // And nobody but this tenant hears of it.
    let other = server.tenant("other").await;
    other.user("alice", Some(PASSWORD)).await;
    assert_eq!(from(&other, THERE, "alice", PASSWORD).await.status, StatusCode::OK);
}

#[actix_web::test]
async fn p17_an_address_that_is_not_looked_at_any_more_uses_up_no_limit_of_the_tenant() {
    let server = Server::start_with(behind_a_proxy()).await;
    let rule = LoginThrottle { address: 12, tenant: 30, ..LoginThrottle::default() };
    let tenant = server.tenant_with("acme", throttle(rule)).await;
    tenant.user("alice", Some(PASSWORD)).await;
    assert_eq!(spray(&tenant, THERE, 60).await, 12);
    let elsewhere = from(&tenant, ELSEWHERE, "alice", PASSWORD).await;
    assert_eq!(elsewhere.status, StatusCode::OK, "one address shut everybody out: {}", elsewhere.text);
    // What was looked at is all that counts.
    assert_eq!(spray(&tenant, "192.0.2.N", 60).await, 18);
}

#[actix_web::test]
async fn p17_an_address_that_is_not_looked_at_any_more_uses_up_no_limit_of_an_account() {
    let server = Server::start_with(behind_a_proxy()).await;
    let rule = LoginThrottle { address: 3, account: 5, ..LoginThrottle::default() };
    let tenant = server.tenant_with("acme", throttle(rule)).await;
    tenant.user("alice", Some(PASSWORD)).await;
    assert_eq!(spray(&tenant, THERE, 3).await, 3);
    assert_eq!(fail(&tenant, THERE, "alice", 5).await, 0);
    let elsewhere = from(&tenant, ELSEWHERE, "alice", PASSWORD).await;
    assert_eq!(elsewhere.status, StatusCode::OK, "five guesses that nobody looked at lock an account: {}", elsewhere.text);
}

#[actix_web::test]
async fn more_logins_than_can_be_hashed_are_told_so_at_once_and_not_held_against_the_account() {
    // About a quarter of a second a hash, on one thread: eight begin within the two seconds that one may wait.
    let server = server_that_hashes(Cost { memory_kib: 19_456, iterations: 14 }, 1).await;
    let rule = LoginThrottle { failures: 1000, account: 1000, address: 1000, ..LoginThrottle::default() };
    let tenant = server.tenant_with("flooded", throttle(rule)).await;
    let quiet = server.tenant("quiet").await;
    quiet.user("alice", Some(PASSWORD)).await;
    let one = |number: usize| {
        let tenant = &tenant;
        async move {
            let began = Instant::now();
            let answer = try_login(tenant, &format!("user{}", number % 7), WRONG_PASSWORD, &[]).await;
            (answer, began.elapsed())
        }
    };
    let flood = join_all((0..80).map(one));
    // In the middle of it, somebody of another tenant: the queue is fair.
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        try_login(&quiet, "alice", PASSWORD, &[]).await
    };
    let (flood, meanwhile) = tokio::join!(flood, meanwhile);
    assert_eq!(meanwhile.status, StatusCode::OK, "{}", meanwhile.text);
    let mut seen = 0;
    for (answer, took) in &flood {
        match answer.status {
            StatusCode::UNAUTHORIZED => seen += 1,
            StatusCode::SERVICE_UNAVAILABLE => {
                assert_eq!(answer.error(), "temporarily_unavailable");
                assert_eq!(answer.header("retry-after"), "2");
            }
            other => panic!("{other}: {}", answer.text),
        }
        // Two seconds in the queue, and one hash; twice that for a machine that does much else.
        assert!(*took < Duration::from_secs(6), "{took:?}: {}", answer.status);
    }
    assert!((1..80).contains(&seen), "{seen} of 80 were looked at");
    // The address and the tenant are each counted once for every guess that was looked at, and for no other.
    let counts = counts(&tenant).await;
    assert_eq!(counts.iter().rev().take(2).collect::<Vec<_>>(), [&seen, &seen], "{counts:?}");
    assert_eq!(counts.iter().sum::<i32>(), 4 * seen, "{counts:?}");
    assert_eq!(refused_in_the_audit_trail(&tenant).await, usize::try_from(seen).unwrap());
    // It is over when the flood is.
    let after = try_login(&quiet, "alice", PASSWORD, &[]).await;
    assert_eq!(after.status, StatusCode::OK, "{}", after.text);
}

#[actix_web::test]
async fn wrong_current_passwords_count_like_logins() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    let body = tenant.log_in("alice", PASSWORD).await;
    let bearer = format!("Bearer {}", access_token(&body));
    let guess = async |current: &str| {
        let body = json!({ "current_password": current, "new_password": "quite another passphrase" });
        server.with(&bearer).post(&tenant.path("/v1/me/password"), body).await
    };
    let answers = join_all((0..5).map(|_| guess(WRONG_PASSWORD))).await;
    for answer in &answers {
        assert_eq!(answer.wrong_field(), "current_password");
    }
    // Not even the right one, here or at the login.
    assert_throttled(&guess(PASSWORD).await);
    assert_throttled(&try_login(&tenant, "alice", PASSWORD, &[]).await);
    assert_eq!(tenant.audit("user.password_change").await.len(), 0);
}
