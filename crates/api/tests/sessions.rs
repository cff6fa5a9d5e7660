//! Browser sessions: how they begin and end, and whose they are (SEEDS scenario 31; attacks P24, P25, P30).

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

use claviger_issuer::audit::Actor;
use claviger_issuer::clock::Clock;
use claviger_issuer::settings::{SessionRule, TenantSettings};
use claviger_issuer::tenant::TenantChange;
use claviger_issuer::user::UserChange;
use claviger_store::id::UserId;
use people::{Browser, OTHER_PASSWORD, PASSWORD, access_token, refresh, refresh_token, set_cookies};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use support::wire::send;
use support::{Answer, Client, Options, Server, Tenant, claims};
use uuid::Uuid;

/// Why each session of a person ended, oldest first; `None` for one that has not.
async fn ends(tenant: &Tenant<'_>, user: UserId) -> Vec<Option<String>> {
    let mut database = tenant.server.database.superuser().await;
    let query = "SELECT revoked_why FROM sessions WHERE tenant_id = $1 AND user_id = $2 ORDER BY created_at";
    sqlx::query_scalar(query).bind(tenant.id).bind(user).fetch_all(&mut database).await.unwrap()
}

/// Does this to all rows of sessions, behind the server's back.
async fn move_sessions(server: &Server, what: &str) {
    let mut database = server.database.superuser().await;
    let done = sqlx::query(AssertSqlSafe(format!("UPDATE sessions SET {what}"))).execute(&mut database).await.unwrap();
    assert!(done.rows_affected() > 0);
}

fn bearer<'a>(server: &'a Server, tokens: &Value) -> Client<'a> {
    server.with(&format!("Bearer {}", access_token(tokens)))
}

async fn assert_over(browser: &Browser<'_>) {
    let me = browser.me().await;
    assert_eq!((me.status, me.error().as_str()), (StatusCode::UNAUTHORIZED, "unauthenticated"), "{}", me.text);
}

async fn logins(client: &Client<'_>, path: &str) -> Vec<Value> {
    let answer = client.get(path).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json()["items"].as_array().unwrap().clone()
}

fn id(login: &Value) -> String {
    login["id"].as_str().unwrap().to_owned()
}

#[actix_web::test]
async fn a_session_cookie_is_opaque_and_for_this_host_and_tenant_alone() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let alice = tenant.user("alice", Some(PASSWORD)).await;
    let mut browser = Browser::at(&tenant);
    let page = browser.get("/login").await;
    let form = set_cookies(&page);
    assert_eq!(form.len(), 1);
    assert_eq!(form[0].name, "__Host-form-acme");
    // Without Max-Age: gone when the browser is closed.
    assert_eq!(form[0].attributes, ["HttpOnly", "Path=/", "SameSite=Lax", "Secure"]);

    let answer = browser.sign_in("alice", PASSWORD).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/t/acme/account"));
    assert_eq!(answer.header("cache-control"), "no-store");
    let cookies = set_cookies(&answer);
    assert_eq!(
        cookies.iter().map(|cookie| cookie.name.as_str()).collect::<Vec<_>>(),
        ["__Host-session-acme", "__Host-device-acme"]
    );
    assert_eq!(cookies[0].attributes, ["HttpOnly", "Max-Age=604800", "Path=/", "SameSite=Lax", "Secure"]);
    assert_eq!(cookies[1].attributes, ["HttpOnly", "Max-Age=31536000", "Path=/", "SameSite=Lax", "Secure"]);
    assert!(cookies[0].value.len() >= 43 && !cookies[0].value.contains('.'), "{}", cookies[0].value);

    let me = browser.me().await;
    assert_eq!(me.status, StatusCode::OK, "{}", me.text);
    let me = me.json();
    assert_eq!((&me["sub"], &me["username"], &me["scope"]), (&json!(alice), &json!("alice"), &json!("")));
    assert_eq!((&me["exp"], &me["key_id"]), (&Value::Null, &Value::Null));
    let entries = tenant.audit("user.login").await;
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].outcome.as_str(), &entries[0].target), ("ok", &format!("session:{}", me["sid"].as_str().unwrap())));

    // What is kept of the cookie is not the cookie.
    let mut database = server.database.superuser().await;
    let row: String = sqlx::query_scalar("SELECT s::text FROM sessions s").fetch_one(&mut database).await.unwrap();
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&cookies[0].value).unwrap();
    assert!(!row.contains(&cookies[0].value) && !row.contains(&support::hex(&bytes[16..])));
    // No families and no tokens: a browser has no use for them.
    let tokens: i64 = sqlx::query_scalar("SELECT count(*) FROM token_families").fetch_one(&mut database).await.unwrap();
    assert_eq!(tokens, 0);

    // Under another tenant's name it is nothing, nor at the root; nor as a bearer token.
    let other = server.tenant("other").await;
    other.user("alice", Some(PASSWORD)).await;
    let session = browser.cookie("session").unwrap().to_owned();
    let mut stranger = Browser::at(&other);
    stranger.plant("session", &session);
    assert_over(&stranger).await;
    assert_eq!(stranger.get("/account").await.status, StatusCode::SEE_OTHER);
    let root = server.anonymous().request(Method::GET, "/v1/me").header("Cookie", format!("__Host-session-acme={session}"));
    assert_eq!(send(root).await.status, StatusCode::UNAUTHORIZED);
    let under =
        server.anonymous().request(Method::GET, "/t/other/v1/me").header("Cookie", format!("__Host-session-acme={session}"));
    assert_eq!(send(under).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(server.with(&format!("Bearer {session}")).get("/t/acme/v1/me").await.status, StatusCode::UNAUTHORIZED);
}

#[actix_web::test]
async fn a_cookie_that_was_changed_or_made_up_is_nobody() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    let browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let session = browser.cookie("session").unwrap().to_owned();
    let mut forged: Vec<String> = [0, 5, 21, 22, 40, session.len() - 1]
        .iter()
        .map(|at| {
            let mut letters: Vec<char> = session.chars().collect();
            letters[*at] = if letters[*at] == 'A' { 'B' } else { 'A' };
            letters.into_iter().collect()
        })
        .collect();
    forged.extend([
        String::new(),
        session[..session.len() - 1].to_owned(),
        format!("{session}A"),
        "A".repeat(session.len()),
        format!("{session}="),
        "x".repeat(3000),
        "'OR1=1--".to_owned(),
    ]);
    for cookie in forged {
        let mut other = Browser::at(&tenant);
        other.plant("session", &cookie);
        assert_over(&other).await;
        let page = other.get("/account").await;
        assert_eq!((page.status, page.header("location")), (StatusCode::SEE_OTHER, "/t/acme/login?return_to=/t/acme/account"));
    }
    assert_eq!(browser.me().await.status, StatusCode::OK);
}

#[actix_web::test]
async fn p25_a_planted_cookie_is_never_adopted_and_every_login_begins_a_new_session() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let alice = tenant.user("alice", Some(PASSWORD)).await;
    let mallory = tenant.user("mallory", Some(OTHER_PASSWORD)).await;
    // An attacker's own session, planted in the victim's browser.
    let attacker = Browser::signed_in(&tenant, "mallory", OTHER_PASSWORD).await;
    let planted = attacker.cookie("session").unwrap().to_owned();
    let mut victim = Browser::at(&tenant);
    victim.plant("session", &planted);
    let answer = victim.sign_in("alice", PASSWORD).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
    let first = victim.cookie("session").unwrap().to_owned();
    assert_ne!(first, planted);
    assert_eq!(victim.me().await.json()["sub"], json!(alice));
    // The planted session ended with that, so it can show the victim to nobody.
    assert_over(&attacker).await;
    assert_eq!(ends(&tenant, mallory).await, [Some("login".to_owned())]);

    // A made-up value of the right form is not adopted either.
    let made_up = "B".repeat(first.len());
    let mut fresh = Browser::at(&tenant);
    fresh.plant("session", &made_up);
    fresh.sign_in("alice", PASSWORD).await;
    assert_ne!(fresh.cookie("session").unwrap(), made_up);
    let mut thief = Browser::at(&tenant);
    thief.plant("session", &made_up);
    assert_over(&thief).await;

    // The same person again in the same browser: a new id, and the old one is over.
    let sid = victim.me().await.json()["sid"].clone();
    victim.sign_in("alice", PASSWORD).await;
    let second = victim.cookie("session").unwrap().to_owned();
    assert_ne!(second, first);
    assert_ne!(victim.me().await.json()["sid"], sid);
    let mut old = Browser::at(&tenant);
    old.plant("session", &first);
    assert_over(&old).await;
    // A failed login in that browser ends nothing.
    assert_eq!(victim.sign_in("alice", "not the password at all").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(victim.cookie("session").unwrap(), second);
    assert_eq!(victim.me().await.status, StatusCode::OK);
}

#[actix_web::test]
async fn p25_two_people_in_one_browser_are_never_mixed_up() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let alice = tenant.user("alice", Some(PASSWORD)).await;
    let bob = tenant.user("bob", Some(OTHER_PASSWORD)).await;
    let mut browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let stale = browser.token_of("/account").await;
    browser.sign_in("bob", OTHER_PASSWORD).await;
    assert_eq!(browser.me().await.json()["sub"], json!(bob));
    let page = browser.get("/account").await.text;
    assert!(page.contains("bob") && !page.contains("alice"));
    assert_eq!(ends(&tenant, alice).await, [Some("login".to_owned())]);
    // A form that alice left open is not sent in bob's name.
    let done = browser.submit("/account/end-all", &[("csrf", &stale)]).await;
    assert_eq!(done.status, StatusCode::FORBIDDEN);
    assert_eq!(browser.me().await.status, StatusCode::OK);
    // In two browsers, both are signed in.
    let other = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    assert_eq!(other.me().await.json()["sub"], json!(alice));
    assert_eq!(browser.me().await.json()["sub"], json!(bob));
}

#[actix_web::test]
async fn scenario_31_logging_out_ends_the_session_and_clears_the_cookie() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let alice = tenant.user("alice", Some(PASSWORD)).await;
    let mut browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let other = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let old = browser.cookie("session").unwrap().to_owned();
    let sid = browser.me().await.json()["sid"].as_str().unwrap().to_owned();

    for headers in [
        &[("Sec-Fetch-Site", "cross-site")][..],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Sec-Fetch-Site", "cross-site"), ("Origin", "http://id.test")],
        &[("Origin", "https://evil.test")],
        &[("Origin", "null")],
        &[("Origin", "http://id.test.evil.test")],
    ] {
        let request = browser.request(Method::POST, "/v1/logout");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let refused = browser.send(request).await;
        assert_eq!((refused.status, refused.error().as_str()), (StatusCode::FORBIDDEN, "cross_site"), "{headers:?}");
        assert!(set_cookies(&refused).is_empty());
    }
    assert_eq!(browser.me().await.status, StatusCode::OK);
    assert_eq!(tenant.audit("user.logout").await.len(), 0);

    let request = browser.request(Method::POST, "/v1/logout").header("Sec-Fetch-Site", "same-origin");
    let answer = browser.send(request).await;
    assert_eq!((answer.status, answer.text.as_str()), (StatusCode::NO_CONTENT, ""));
    let cleared = set_cookies(&answer);
    assert_eq!(cleared.len(), 1);
    assert_eq!((cleared[0].name.as_str(), cleared[0].value.as_str()), ("__Host-session-acme", ""));
    assert_eq!(cleared[0].attributes, ["HttpOnly", "Max-Age=0", "Path=/", "SameSite=Lax", "Secure"]);
    assert!(answer.header("clear-site-data").contains("\"cache\""));
    assert!(browser.cookie("session").is_none());

    let mut back = Browser::at(&tenant);
    back.plant("session", &old);
    assert_over(&back).await;
    let again = back.request(Method::POST, "/v1/logout");
    assert_eq!(back.send(again).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ends(&tenant, alice).await, [Some("logout".to_owned()), None]);
    assert_eq!(other.me().await.status, StatusCode::OK, "only this browser is logged out");
    let entries = tenant.audit("user.logout").await;
    assert_eq!(entries.len(), 1);
    assert_eq!((&entries[0].actor, &entries[0].target), (&format!("user:{alice}"), &format!("session:{sid}")));
}

#[actix_web::test]
async fn a_bearer_logs_its_own_login_out_and_a_key_has_none() {
    let server = Server::start().await;
    server.default_tenant().await;
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    let key = tenant.app_key("app", &[]).await;
    let (one, two) = (tenant.log_in("alice", PASSWORD).await, tenant.log_in("alice", PASSWORD).await);
    let answer = bearer(&server, &one).post_empty(&tenant.path("/v1/logout")).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
    assert_eq!(bearer(&server, &one).get("/v1/me").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refresh(&tenant, refresh_token(&one)).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(bearer(&server, &two).get("/v1/me").await.status, StatusCode::OK);
    assert_eq!(refresh(&tenant, refresh_token(&two)).await.status, StatusCode::OK);
    let entries = tenant.audit("user.logout").await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].target, format!("family:{}", claims(access_token(&one))["sid"].as_str().unwrap()));

    for path in ["/v1/logout", "/v1/me/sessions"] {
        let request = match path {
            "/v1/logout" => server.with(&key.basic()).post_empty(&tenant.path(path)).await,
            _ => server.with(&key.basic()).delete(&tenant.path(path)).await,
        };
        assert_eq!(request.status, StatusCode::FORBIDDEN, "{path}: {}", request.text);
    }
    for path in ["/v1/logout", "/v1/me/password"] {
        let nobody = server.anonymous().post(&tenant.path(path), json!({})).await;
        assert_eq!(nobody.status, StatusCode::UNAUTHORIZED, "{path}: {}", nobody.text);
    }
}

#[actix_web::test]
async fn a_session_ends_when_it_idles_and_at_its_end_whatever_happens() {
    let server = Server::start().await;
    let rule = SessionRule { idle: 600, absolute: 3600 };
    let tenant = server.tenant_with("acme", TenantSettings { session: Some(rule), ..TenantSettings::default() }).await;
    tenant.user("alice", Some(PASSWORD)).await;
    let mut browser = Browser::at(&tenant);
    let answer = browser.sign_in("alice", PASSWORD).await;
    assert!(set_cookies(&answer)[0].attributes.contains(&"Max-Age=3600".to_owned()));
    move_sessions(&server, "seen_at = seen_at - interval '9 minutes'").await;
    assert_eq!(browser.me().await.status, StatusCode::OK);
    // That was a use: it counts from there.
    move_sessions(&server, "seen_at = seen_at - interval '9 minutes'").await;
    assert_eq!(browser.me().await.status, StatusCode::OK);
    move_sessions(&server, "seen_at = seen_at - interval '11 minutes'").await;
    assert_over(&browser).await;
    assert_eq!(browser.get("/account").await.status, StatusCode::SEE_OTHER);
    // Over is over: asking did not wake it.
    assert_over(&browser).await;

    let browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    move_sessions(&server, "ends_at = ends_at - interval '1 hour 1 minute'").await;
    assert_over(&browser).await;
    let listed = logins(&bearer(&server, &tenant.log_in("alice", PASSWORD).await), &tenant.path("/v1/me/sessions")).await;
    assert_eq!(listed.len(), 1, "a login that is over is not listed: {listed:?}");
}

#[actix_web::test]
async fn a_session_is_over_at_once_on_every_replica_when_its_person_may_not_act() {
    // When a tenant was suspended is compared with when a session began, which the database says.
    let server = Server::start_with(Options { clock: Some(Clock::System), ..Options::default() }).await;
    let tenant = server.tenant("acme").await;
    let alice = tenant.user("alice", Some(PASSWORD)).await;
    let replica = server.replica(Options { clock: Some(Clock::System), ..Options::default() }).await;
    let browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let elsewhere = async || {
        let cookie = format!("{}={}", browser.name("session"), browser.cookie("session").unwrap());
        let request = replica.anonymous().request(Method::GET, &tenant.path("/v1/me")).header("Cookie", cookie);
        Answer::of(request.send().await.unwrap()).await.status
    };
    assert_eq!(elsewhere().await, StatusCode::OK);
    let actor = Actor::operator();
    let change = |disabled| UserChange { disabled: Some(disabled), ..UserChange::default() };
    server.issuer.change_user(tenant.id, &actor, alice, change(true)).await.unwrap();
    assert_over(&browser).await;
    assert_eq!(elsewhere().await, StatusCode::UNAUTHORIZED);
    server.issuer.change_user(tenant.id, &actor, alice, change(false)).await.unwrap();
    // It does not rise again.
    assert_over(&browser).await;
    assert_eq!(elsewhere().await, StatusCode::UNAUTHORIZED);
    assert_eq!(ends(&tenant, alice).await, [Some("disabled".to_owned())]);

    // A tenant that is suspended and let in again: nothing from before lives.
    let browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    for disabled in [true, false] {
        let change = TenantChange { disabled: Some(disabled), ..TenantChange::default() };
        server.issuer.change_tenant(&actor, "acme", change).await.unwrap();
        assert!([401, 404].contains(&browser.me().await.status.as_u16()));
    }
    let browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    server.issuer.delete_user(tenant.id, &actor, alice).await.unwrap();
    assert_over(&browser).await;
}

#[actix_web::test]
async fn people_list_and_end_their_own_logins_and_nobody_elses() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    tenant.user("bob", Some(OTHER_PASSWORD)).await;
    let other = server.tenant("other").await;
    other.user("alice", Some(PASSWORD)).await;
    let mine = tenant.path("/v1/me/sessions");

    let browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let (one, two) = (tenant.log_in("alice", PASSWORD).await, tenant.log_in("alice", PASSWORD).await);
    let bob = tenant.log_in("bob", OTHER_PASSWORD).await;
    let bobs_browser = Browser::signed_in(&tenant, "bob", OTHER_PASSWORD).await;
    let foreign = other.log_in("alice", PASSWORD).await;

    let listed = logins(&bearer(&server, &one), &mine).await;
    assert_eq!(listed.len(), 3);
    let mut kinds: Vec<&str> = listed.iter().map(|login| login["kind"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["session", "tokens", "tokens"]);
    let current: Vec<&Value> = listed.iter().filter(|login| login["current"] == true).collect();
    assert_eq!(current.len(), 1);
    assert_eq!(current[0]["id"], claims(access_token(&one))["sid"]);
    for login in &listed {
        let members: Vec<&str> = login.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members.len(), 7, "{members:?}");
    }
    // By cookie the same, but for which is the present one.
    let by_cookie = Answer::of(browser.request(Method::GET, "/v1/me/sessions").send().await.unwrap()).await.json();
    let current: Vec<&Value> = by_cookie["items"].as_array().unwrap().iter().filter(|login| login["current"] == true).collect();
    assert_eq!((current.len(), &current[0]["kind"]), (1, &json!("session")));

    // Somebody else's is not there, in this tenant or another: as one that never was.
    let absent = bearer(&server, &one).delete(&format!("{mine}/{}", Uuid::from_u128(7))).await;
    assert_eq!(absent.status, StatusCode::NOT_FOUND);
    let bobs = [
        claims(access_token(&bob))["sid"].as_str().unwrap().to_owned(),
        bobs_browser.me().await.json()["sid"].as_str().unwrap().to_owned(),
        claims(access_token(&foreign))["sid"].as_str().unwrap().to_owned(),
        "not-an-id".to_owned(),
    ];
    for id in &bobs {
        let answer = bearer(&server, &one).delete(&format!("{mine}/{id}")).await;
        assert_eq!(answer.told(), absent.told(), "{id}");
    }
    assert_eq!(bearer(&server, &bob).get("/v1/me").await.status, StatusCode::OK);
    assert_eq!(bobs_browser.me().await.status, StatusCode::OK);
    assert_eq!(bearer(&server, &foreign).get("/v1/me").await.status, StatusCode::OK);
    assert_eq!(tenant.audit("user.end_login").await.len(), 0);

    // Another of one's own ends, a program's as well as a browser's; and once only.
    let session = listed.iter().find(|login| login["kind"] == "session").map(id).unwrap();
    let second = claims(access_token(&two))["sid"].as_str().unwrap().to_owned();
    for id in [&session, &second] {
        assert_eq!(bearer(&server, &one).delete(&format!("{mine}/{id}")).await.status, StatusCode::NO_CONTENT);
        assert_eq!(bearer(&server, &one).delete(&format!("{mine}/{id}")).await.told(), absent.told());
    }
    assert_over(&browser).await;
    assert_eq!(bearer(&server, &two).get("/v1/me").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refresh(&tenant, refresh_token(&two)).await.status, StatusCode::UNAUTHORIZED);
    let targets: Vec<String> = tenant.audit("user.end_login").await.into_iter().map(|entry| entry.target).collect();
    assert_eq!(targets, [format!("family:{second}"), format!("session:{session}")]);
    assert_eq!(logins(&bearer(&server, &one), &mine).await.len(), 1);
}

#[actix_web::test]
async fn logging_out_everywhere_ends_all_of_ones_own_and_no_others() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let alice = tenant.user("alice", Some(PASSWORD)).await;
    tenant.user("bob", Some(OTHER_PASSWORD)).await;
    let bob = tenant.log_in("bob", OTHER_PASSWORD).await;
    let mut browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let second = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let tokens = tenant.log_in("alice", PASSWORD).await;
    let cross = browser.request(Method::DELETE, "/v1/me/sessions").header("Sec-Fetch-Site", "cross-site");
    assert_eq!(browser.send(cross).await.error(), "cross_site");
    assert_eq!(second.me().await.status, StatusCode::OK);

    let request = browser.request(Method::DELETE, "/v1/me/sessions").header("Sec-Fetch-Site", "same-origin");
    let answer = browser.send(request).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
    assert!(browser.cookie("session").is_none(), "the cookie is cleared");
    assert_over(&second).await;
    assert_eq!(bearer(&server, &tokens).get("/v1/me").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refresh(&tenant, refresh_token(&tokens)).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(bearer(&server, &bob).get("/v1/me").await.status, StatusCode::OK);
    assert_eq!(ends(&tenant, alice).await, [Some("logout".to_owned()), Some("logout".to_owned())]);
    let entries = tenant.audit("user.logout_everywhere").await;
    assert_eq!(entries.len(), 1);
    assert_eq!((&entries[0].actor, &entries[0].target), (&format!("user:{alice}"), &format!("user:{alice}")));
    // And one can come back.
    Browser::signed_in(&tenant, "alice", PASSWORD).await;
}

#[actix_web::test]
async fn admins_list_and_end_the_logins_of_their_own_people() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let alice = tenant.user("alice", Some(PASSWORD)).await;
    let bob = tenant.user("bob", Some(OTHER_PASSWORD)).await;
    let admin_key = tenant.admin().await;
    let admin = server.with(&admin_key.basic());
    let reader_key = tenant.app_key("reader", &["users:read"]).await;
    let reader = server.with(&reader_key.basic());
    let other = server.tenant("other").await;
    let stranger_key = other.admin().await;
    let stranger = server.with(&stranger_key.basic());
    let browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let (one, bobs) = (tenant.log_in("alice", PASSWORD).await, tenant.log_in("bob", OTHER_PASSWORD).await);
    let sid = claims(access_token(&one))["sid"].as_str().unwrap().to_owned();
    let path = tenant.path(&format!("/v1/users/{alice}/sessions"));

    let listed = logins(&reader, &path).await;
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|login| login["current"] == false));
    // Reading is not writing; a person without scopes is no admin, not even of their own path.
    assert_eq!(reader.delete(&path).await.status, StatusCode::FORBIDDEN);
    assert_eq!(reader.delete(&format!("{path}/{sid}")).await.status, StatusCode::FORBIDDEN);
    assert_eq!(bearer(&server, &one).get(&path).await.status, StatusCode::FORBIDDEN);
    // The admin of another tenant finds nobody.
    let foreign = other.path(&format!("/v1/users/{alice}/sessions"));
    assert_eq!(stranger.get(&foreign).await.status, StatusCode::NOT_FOUND);
    assert_eq!(stranger.delete(&foreign).await.status, StatusCode::NOT_FOUND);
    assert_eq!(stranger.delete(&format!("{foreign}/{sid}")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(stranger.delete(&path).await.status, StatusCode::UNAUTHORIZED);
    // A login under the wrong person is not there.
    let wrong = tenant.path(&format!("/v1/users/{bob}/sessions/{sid}"));
    assert_eq!(admin.delete(&wrong).await.status, StatusCode::NOT_FOUND);
    assert_eq!(bearer(&server, &one).get("/v1/me").await.status, StatusCode::OK);

    assert_eq!(admin.delete(&format!("{path}/{sid}")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(bearer(&server, &one).get("/v1/me").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(browser.me().await.status, StatusCode::OK);
    assert_eq!(admin.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_over(&browser).await;
    assert_eq!(logins(&reader, &path).await.len(), 0);
    assert_eq!(bearer(&server, &bobs).get("/v1/me").await.status, StatusCode::OK);
    let actor = format!("key:{}", admin_key.id);
    for action in ["user.end_login", "user.logout_everywhere"] {
        let entries = tenant.audit(action).await;
        assert_eq!(entries.len(), 1, "{action}");
        assert_eq!(entries[0].actor, actor, "{action}");
    }
    assert_eq!(
        admin.get(&tenant.path(&format!("/v1/users/{}/sessions", Uuid::from_u128(9)))).await.status,
        StatusCode::NOT_FOUND
    );
}

#[actix_web::test]
async fn a_session_is_a_person_and_not_an_admin() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    let browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    for path in ["/v1/users", "/v1/keys", "/v1/applications", "/v1/audit"] {
        let answer = Answer::of(browser.request(Method::GET, path).send().await.unwrap()).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::UNAUTHORIZED, "unauthenticated"), "{path}");
    }
    // Nor does it ask about tokens, or have tickets made that would outlive it.
    for path in ["/v1/introspect", "/v1/ws-tickets"] {
        let answer = Answer::of(browser.request(Method::POST, path).form(&[("token", "x")]).send().await.unwrap()).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::UNAUTHORIZED, "unauthenticated"), "{path}");
    }
    // A header counts before a cookie: a bad one is not made good by it.
    let request = browser.request(Method::GET, "/v1/me").header("Authorization", "Bearer nonsense");
    assert_eq!(Answer::of(request.send().await.unwrap()).await.status, StatusCode::UNAUTHORIZED);
}
