//! A username and password become tokens (SEEDS scenarios 24 and 72), and nobody learns from a "no" who is there (P16).

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

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use claviger_issuer::audit::Actor;
use claviger_issuer::password::Cost;
use claviger_issuer::settings::{LoginThrottle, TenantSettings};
use claviger_issuer::user::{NewPassword, NewUser, UserChange};
use claviger_store::id::UserId;
use claviger_verifier::{Expected, KeySet, verify};
use futures_util::future::join_all;
use people::{
    Browser, PASSWORD, WRONG_PASSWORD, access_token, refresh, refresh_token, server_that_hashes, set_cookies, try_login,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::Row as _;
use support::wire::{raw, send};
use support::{Answer, Server, Tenant, claims, detail};
use uuid::Uuid;

async fn count(tenant: &Tenant<'_>, query: &'static str) -> i64 {
    let mut database = tenant.server.database.superuser().await;
    sqlx::query_scalar(query).bind(tenant.id).fetch_one(&mut database).await.unwrap()
}

async fn families(tenant: &Tenant<'_>) -> i64 {
    count(tenant, "SELECT count(*) FROM token_families WHERE tenant_id = $1").await
}

async fn attempts(tenant: &Tenant<'_>) -> i64 {
    count(tenant, "SELECT coalesce(sum(used), 0) FROM attempts WHERE tenant_id = $1").await
}

async fn kept_hash(tenant: &Tenant<'_>, user: UserId) -> Option<String> {
    let mut database = tenant.server.database.superuser().await;
    let query = sqlx::query_scalar("SELECT hash FROM passwords WHERE tenant_id = $1 AND user_id = $2");
    query.bind(tenant.id).bind(user).fetch_optional(&mut database).await.unwrap()
}

async fn change(tenant: &Tenant<'_>, user: UserId, change: UserChange) {
    tenant.server.issuer.change_user(tenant.id, &Actor::operator(), user, change).await.unwrap();
}

fn disabled(disabled: bool) -> UserChange {
    UserChange { disabled: Some(disabled), ..UserChange::default() }
}

/// Far more failures than a test makes.
fn patient() -> TenantSettings {
    let login_throttle = LoginThrottle { failures: 10_000, account: 10_000, address: 10_000, ..LoginThrottle::default() };
    TenantSettings { login_throttle: Some(login_throttle), ..TenantSettings::default() }
}

#[actix_web::test]
async fn scenario_24_a_good_login_answers_tokens_and_leaves_a_record() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let alice = tenant.user("alice", Some(PASSWORD)).await;
    change(&tenant, alice, UserChange { roles: Some(vec!["editor".into(), "admin".into()]), ..UserChange::default() }).await;
    let answer = try_login(&tenant, "alice", PASSWORD, &[("User-Agent", "curl/8.1 <b>\t\"x\"")]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    let body = answer.json();
    let members: BTreeSet<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, BTreeSet::from(["access_token", "expires_in", "refresh_token", "token_type"]));
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(900)));
    // A known device, and no session: programs have no use for one.
    let cookies = set_cookies(&answer);
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    assert_eq!(cookies[0].name, "__Host-device-acme");

    let jwks = server.anonymous().get(&tenant.path("/.well-known/jwks.json")).await;
    let keys = KeySet::from_jwks(&jwks.text).unwrap();
    let issuer = "http://id.test/t/acme";
    let jwt = access_token(&body);
    let now = claims(jwt)["iat"].as_i64().unwrap();
    let token = verify(jwt, &keys, &Expected { issuer, audience: Some(issuer), leeway_seconds: 0 }, now).unwrap();
    assert_eq!(token.subject, alice.to_string());
    assert_eq!(token.username.as_deref(), Some("alice"));
    assert_eq!(token.roles, ["admin", "editor"]);
    assert_eq!(token.client_id.as_deref(), Some("login"));
    assert_eq!(token.tenant, Some(tenant.id.to_string()));
    assert_eq!(token.audience, [issuer]);
    assert_eq!(token.expires_at.unwrap() - token.issued_at, 900);
    assert_eq!(token.key_id, None);
    assert!(token.scope.is_empty() && claims(jwt).get("scope").is_none());
    let sid: Uuid = token.session.as_deref().unwrap().parse().unwrap();

    let mut database = server.database.superuser().await;
    let row = sqlx::query(
        "SELECT id, user_id, key_id, client, generation, revoked_at, sealed_answer, user_agent, idle_seconds, ends_at
           FROM token_families WHERE tenant_id = $1",
    )
    .bind(tenant.id)
    .fetch_one(&mut database)
    .await
    .unwrap();
    assert_eq!(row.get::<Uuid, _>("id"), sid);
    assert_eq!(row.get::<Uuid, _>("user_id"), alice.0);
    assert_eq!(row.get::<Option<String>, _>("key_id"), None);
    assert_eq!(row.get::<Option<String>, _>("client"), None);
    assert_eq!(row.get::<i32, _>("generation"), 0);
    assert_eq!(row.get::<Option<DateTime<Utc>>, _>("revoked_at"), None);
    assert_eq!(row.get::<Option<Vec<u8>>, _>("sealed_answer"), None);
    assert_eq!(row.get::<i32, _>("idle_seconds"), 14 * 86_400);
    assert_eq!((row.get::<DateTime<Utc>, _>("ends_at") - server.clock.now()).num_days(), 30);
    assert_eq!(row.get::<Option<String>, _>("user_agent").unwrap(), "curl/8.1 <b>\"x\"");
    let tokens: (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM refresh_tokens WHERE tenant_id = $1),
                (SELECT count(*) FROM issued_tokens WHERE tenant_id = $1 AND jti = $2::uuid AND subject = $3)",
    )
    .bind(tenant.id)
    .bind(&token.token_id)
    .bind(alice.to_string())
    .fetch_one(&mut database)
    .await
    .unwrap();
    assert_eq!(tokens, (1, 1));

    let entries = tenant.audit("user.login").await;
    assert_eq!(entries.len(), 1);
    let entry = &entries[0];
    assert_eq!(entry.outcome, "ok");
    assert_eq!((entry.actor.as_str(), entry.subject.as_str()), (&*format!("user:{alice}"), &*format!("user:{alice}")));
    assert_eq!(entry.target, format!("family:{sid}"));
    assert_eq!(entry.request_id, answer.header("x-request-id"));
    assert!(entry.personal.as_deref().unwrap().contains("127.0.0.1"));
    assert_eq!(detail(entry), json!({ "how": "password" }));

    let me = server.with(&format!("Bearer {jwt}")).get(&tenant.path("/v1/me")).await;
    assert_eq!(me.status, StatusCode::OK, "{}", me.text);
    let me = me.json();
    assert_eq!((&me["sub"], &me["username"]), (&json!(alice), &json!("alice")));
    assert_eq!((&me["roles"], &me["sid"], &me["key_id"]), (&json!(["admin", "editor"]), &json!(sid), &Value::Null));
    // At the root too, where the token names its tenant.
    assert_eq!(server.with(&format!("Bearer {jwt}")).get("/v1/me").await.json()["tenant"], "acme");
    assert_eq!(refresh(&tenant, refresh_token(&body)).await.status, StatusCode::OK);
}

#[actix_web::test]
async fn scenario_24_and_p16_a_bad_login_is_one_401_whoever_it_is_and_why_is_in_the_audit_trail_alone() {
    let server = Server::start().await;
    let tenant = server.tenant_with("acme", patient()).await;
    let alice = tenant.user("alice", Some(PASSWORD)).await;
    let pat = tenant.user("pat", None).await;
    let dana = tenant.user("dana", Some(PASSWORD)).await;
    change(&tenant, dana, disabled(true)).await;
    let gone = tenant.user("gone", Some(PASSWORD)).await;
    server.issuer.delete_user(tenant.id, &Actor::operator(), gone).await.unwrap();
    // Somebody of that name elsewhere, whose password it is.
    let other = server.tenant("other").await;
    other.user("elsewhere", Some(PASSWORD)).await;

    let (alice, pat, dana) = (format!("user:{alice}"), format!("user:{pat}"), format!("user:{dana}"));
    let cases: [(&str, &str, &str, &str); 11] = [
        ("alice", WRONG_PASSWORD, "wrong_password", &alice),
        ("alice", "", "wrong_password", &alice),
        ("nobody", WRONG_PASSWORD, "unknown_user", ""),
        ("elsewhere", PASSWORD, "unknown_user", ""),
        ("pat", PASSWORD, "no_password", &pat),
        ("pat", "", "no_password", &pat),
        ("dana", PASSWORD, "owner_disabled", &dana),
        ("dana", WRONG_PASSWORD, "wrong_password", &dana),
        ("gone", PASSWORD, "unknown_user", ""),
        ("", PASSWORD, "unknown_user", ""),
        ("no such\nname \u{202e}' OR 1=1 --", PASSWORD, "unknown_user", ""),
    ];
    let answers = join_all(cases.iter().map(|(username, password, ..)| try_login(&tenant, username, password, &[]))).await;
    let first = &answers[0];
    assert_eq!(first.status, StatusCode::UNAUTHORIZED);
    assert_eq!(first.error(), "invalid_credentials");
    assert_eq!(first.header("cache-control"), "no-store");
    assert!(set_cookies(first).is_empty());
    for (answer, case) in answers.iter().zip(&cases) {
        assert_eq!(answer.told(), first.told(), "{case:?}");
    }

    assert_eq!(families(&tenant).await, 0);
    let entries = tenant.audit("user.login").await;
    assert_eq!(entries.len(), cases.len());
    for (answer, case) in answers.iter().zip(&cases) {
        let id = answer.header("x-request-id");
        let entry = entries.iter().find(|entry| entry.request_id == id).expect("every refusal is in the audit trail");
        let told = (entry.outcome.as_str(), entry.actor.as_str(), entry.subject.as_str(), entry.target.as_str());
        assert_eq!(told, ("refused", "anonymous", case.3, ""), "{case:?}");
        // The name that was typed is not there: it may be a password in the wrong field.
        assert_eq!(detail(entry), json!({ "reason": case.2 }), "{case:?}");
    }
}

#[actix_web::test]
async fn the_name_is_found_in_any_case_and_the_password_counts_exactly_as_it_was_typed() {
    let server = Server::start().await;
    let tenant = server.tenant_with("acme", patient()).await;
    // Two spaces at the ends, two in the middle, one letter with its accent in one piece and one in two.
    let password = "  P\u{e4}sse  wo\u{308}rd of Crete ";
    tenant.user("Alice.M\u{fc}ller", Some(password)).await;
    for name in ["alice.m\u{fc}ller", "ALICE.M\u{dc}LLER", "Alice.Mu\u{308}ller", "\u{ff21}lice.m\u{fc}ller"] {
        let answer = try_login(&tenant, name, password, &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{name}: {}", answer.text);
        assert_eq!(claims(access_token(&answer.json()))["username"], "Alice.M\u{fc}ller");
    }
    let wrong = [
        password.trim().to_owned(),
        password.trim_end().to_owned(),
        password.trim_start().to_owned(),
        password.to_lowercase(),
        password.to_uppercase(),
        password.replace("  ", " "),
        password.replace('\u{e4}', "a\u{308}"),
        password.replace("o\u{308}", "\u{f6}"),
        password.replace(' ', "\u{a0}"),
        format!("{password}\0"),
        format!("{password}\n"),
        password.chars().take(20).collect(),
    ];
    let answers = join_all(wrong.iter().map(|wrong| try_login(&tenant, "alice.m\u{fc}ller", wrong, &[]))).await;
    for (answer, wrong) in answers.iter().zip(&wrong) {
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{wrong:?}");
    }
    assert_eq!(families(&tenant).await, 4);
}

#[actix_web::test]
async fn p16_every_no_takes_the_same_time_at_the_cost_of_production() {
    const SAMPLES: usize = 15;
    let server = server_that_hashes(Cost::default(), 0).await;
    let tenant = server.tenant_with("acme", patient()).await;
    tenant.user("alice", Some(PASSWORD)).await;
    let dana = tenant.user("dana", Some(PASSWORD)).await;
    change(&tenant, dana, disabled(true)).await;
    let classes = [("nobody", WRONG_PASSWORD), ("alice", WRONG_PASSWORD), ("dana", PASSWORD)];
    let mut took = [const { Vec::new() }; 3];
    // In turns, so that whatever else the machine does slows all of them.
    for _ in 0..SAMPLES {
        for (class, took) in classes.iter().zip(&mut took) {
            let began = Instant::now();
            let answer = try_login(&tenant, class.0, class.1, &[]).await;
            took.push(began.elapsed());
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        }
    }
    let medians = took.map(|mut took| {
        took.sort_unstable();
        assert!(took[0] >= Duration::from_millis(300), "{took:?}");
        took[SAMPLES / 2]
    });
    let (least, most) = (medians.iter().min().unwrap(), medians.iter().max().unwrap());
    assert!(*most - *least < Duration::from_millis(30), "{medians:?}");
}

/// What others kept of [`OLD_PASSWORD`]: made with bcrypt 4, argon2-cffi, hashlib and passlib of Python.
const IMPORTED: [&str; 11] = [
    "$2b$04$/n77vMBFK1/pIsMdkmiMy.PHslL/JdvMO3ghgAYA1aQaB2/TdYxWa",
    "$2a$04$q2C.JijYvAnCgh0wZ6VgS.4gsIRhT88Mih6LQD6LWguJYc0rupjVG",
    "$argon2i$v=19$m=128,t=3,p=2$MDEyMzQ1Njc4OWFiY2RlZg$ucscvjXxxpsNm44dKpYIHHW7JEZkwp4l",
    "$argon2d$v=19$m=128,t=3,p=2$MDEyMzQ1Njc4OWFiY2RlZg$4ss7Gs5b6zHu02IYKb05BjOAFIje3mFC",
    "$argon2id$v=19$m=128,t=3,p=2$MDEyMzQ1Njc4OWFiY2RlZg$ND5FmLXPFBoaSZ/inNL8j+6aodJsJMR3",
    "$pbkdf2-sha256$i=1200,l=32$MDEyMzQ1Njc4OWFiY2RlZg$ek/vUfg+qY60bLhws0mPsXZTMZcsHQk/TcaCtKY82k0",
    "$pbkdf2-sha512$i=1200,l=64$MDEyMzQ1Njc4OWFiY2RlZg$\
     PAWixS3D57KlN0AXpsZSFJhUq1wV1kE7EUVBRwOvNAQcr+ybllNTZO3glX0TBRxJQhC9M7On6M680bRowmx/Cg",
    "$pbkdf2-sha256$1200$D8EY41wrBSCE0Hrv/V/rXQ$kiVYq6a01gANyGtgRZ.uPN5IkczC1jOhtevikQ4lWHE",
    "$pbkdf2$1200$MoYwptQ6ZywlxHjPea815g$hL2Vk4sN8Q3qYY/lH0T6xJmR9.k",
    "pbkdf2_sha256$1200$qFGd1SVBozFN$NuwUr+DcBvFcvG4xMYAp30zssdv4uWR/dIYQsJGz8ss=",
    "$scrypt$ln=8,r=8,p=1$+5+zNgbgfG8tJeTc+38v5Q$0iMq2/HyCXsVji80PkHWK/68cgHz/r/2TbF3tLWQiXM",
];
const OLD_PASSWORD: &str = "brass lantern 7 P\u{e4}ter ";

#[actix_web::test]
async fn scenario_72_imported_people_log_in_with_the_old_password_and_the_hash_becomes_ours() {
    let server = Server::start().await;
    let tenant = server.tenant_with("acme", patient()).await;
    let entry = server.issuer.tenant("acme").await.unwrap().unwrap();
    let mut people = Vec::new();
    for (number, hash) in IMPORTED.iter().enumerate() {
        let id = UserId(Uuid::from_u128(0x7d9f_0000_0000_4000_8000_0000_0000_0000 + number as u128));
        let username = format!("user{number}");
        let password = Some(NewPassword::Hash((*hash).to_owned()));
        let new = NewUser { username: username.clone(), password, id: Some(id), ..NewUser::default() };
        let made = server.issuer.create_user(&entry, &Actor::operator(), new).await.unwrap();
        assert_eq!(made.id, id);
        people.push((id, username, *hash));
    }
    // A wrong password fits none, and changes nothing.
    let wrong = OLD_PASSWORD.trim();
    let refused = join_all(people.iter().map(|(_, username, _)| try_login(&tenant, username, wrong, &[]))).await;
    assert!(refused.iter().all(|answer| answer.told() == refused[0].told()));
    for ((id, _, hash), answer) in people.iter().zip(&refused) {
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{hash}");
        assert_eq!(kept_hash(&tenant, *id).await.as_deref(), Some(*hash));
    }
    for (id, username, old) in &people {
        let body = tenant.log_in(username, OLD_PASSWORD).await;
        assert_eq!(claims(access_token(&body))["sub"], json!(id), "{old}");
        let new = kept_hash(&tenant, *id).await.unwrap();
        assert!(new.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{old} became {new}");
        // Once, and the login that did it lives on.
        let again = tenant.log_in(username, OLD_PASSWORD).await;
        assert_eq!(kept_hash(&tenant, *id).await.unwrap(), new);
        for body in [&body, &again] {
            assert_eq!(refresh(&tenant, refresh_token(body)).await.status, StatusCode::OK, "{old}");
        }
    }
    let refused = join_all(people.iter().map(|(_, username, _)| try_login(&tenant, username, wrong, &[]))).await;
    assert!(refused.iter().all(|answer| answer.status == StatusCode::UNAUTHORIZED));
}

#[actix_web::test]
async fn a_browser_login_takes_over_an_old_hash_too() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let entry = server.issuer.tenant("acme").await.unwrap().unwrap();
    let password = Some(NewPassword::Hash(IMPORTED[0].to_owned()));
    let new = NewUser { username: "bert".into(), password, ..NewUser::default() };
    let bert = server.issuer.create_user(&entry, &Actor::operator(), new).await.unwrap().id;
    let browser = Browser::signed_in(&tenant, "bert", OLD_PASSWORD).await;
    assert_eq!(browser.me().await.json()["sub"], json!(bert));
    assert!(kept_hash(&tenant, bert).await.unwrap().starts_with("$argon2id$v=19$m=64,t=1,p=1$"));
}

#[actix_web::test]
async fn roles_and_standing_are_those_of_the_moment_of_the_login() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let alice = tenant.user("alice", Some(PASSWORD)).await;
    let roles = async |tenant: &Tenant<'_>| claims(access_token(&tenant.log_in("alice", PASSWORD).await))["roles"].clone();
    assert_eq!(roles(&tenant).await, json!([]));
    change(&tenant, alice, UserChange { roles: Some(vec!["viewer".into()]), ..UserChange::default() }).await;
    assert_eq!(roles(&tenant).await, json!(["viewer"]));
    change(&tenant, alice, disabled(true)).await;
    assert_eq!(try_login(&tenant, "alice", PASSWORD, &[]).await.status, StatusCode::UNAUTHORIZED);
    change(&tenant, alice, disabled(false)).await;
    assert_eq!(roles(&tenant).await, json!(["viewer"]));
}

#[actix_web::test]
async fn a_tenant_that_is_not_there_or_may_not_act_has_no_login() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    let body = json!({ "username": "alice", "password": PASSWORD });
    let nowhere = server.anonymous().post("/t/nowhere/v1/login", body.clone()).await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND);
    // Nothing but the path names the tenant of a login.
    let root = server.anonymous().post("/v1/login", body.clone()).await;
    assert_eq!(root.status, StatusCode::NOT_FOUND);
    let change = claviger_issuer::tenant::TenantChange { disabled: Some(true), ..Default::default() };
    server.issuer.change_tenant(&Actor::operator(), "acme", change).await.unwrap();
    let disabled = server.anonymous().post(&tenant.path("/v1/login"), body).await;
    assert!([401, 404].contains(&disabled.status.as_u16()), "{}", disabled.text);
    assert_eq!(families(&tenant).await, 0);
}

#[actix_web::test]
async fn p37_a_password_that_is_too_long_is_refused_before_anybody_looks_at_it() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    let admin = tenant.admin().await;
    let alice = tenant.log_in("alice", PASSWORD).await;
    let bearer = format!("Bearer {}", access_token(&alice));
    let before = attempts(&tenant).await;
    // The second is as long in characters as it may be, and longer in bytes.
    let lengths =
        [("x".repeat(1025), 422), ("\u{1f40e}".repeat(257), 422), ("x".repeat(60_000), 422), ("x".repeat(1_000_000), 413)];
    for (long, status) in &lengths {
        let began = Instant::now();
        let path = |path: &str| tenant.path(path);
        let answers = [
            try_login(&tenant, "alice", long, &[]).await,
            try_login(&tenant, "nobody", long, &[]).await,
            server.with(&admin.basic()).post(&path("/v1/users"), json!({ "username": "bo", "password": long })).await,
            server
                .with(&bearer)
                .post(&path("/v1/me/password"), json!({ "current_password": PASSWORD, "new_password": long }))
                .await,
            server
                .with(&bearer)
                .post(&path("/v1/me/password"), json!({ "current_password": long, "new_password": "another good one, at last" }))
                .await,
        ];
        let took = began.elapsed();
        for answer in &answers {
            assert_eq!(answer.status.as_u16(), *status, "{}", answer.text);
            assert!(!answer.text.contains("xxxx"));
        }
        let mut browser = Browser::at(&tenant);
        let page = browser.sign_in("alice", long).await;
        assert_eq!(page.status.as_u16(), *status, "{}", page.text);
        // A hash is never made: promised are 100 ms each, on an idle machine.
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    assert_eq!(attempts(&tenant).await, before);
    // As long as can be is looked at.
    assert_eq!(try_login(&tenant, "alice", &"x".repeat(1024), &[]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(families(&tenant).await, 1);
}

#[actix_web::test]
async fn p42_twins_and_other_sources_of_a_credential_are_refused_and_not_counted() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    let key = tenant.app_key("demo", &[]).await;
    let url = tenant.path("/v1/login");
    let json_body = async |body: String| {
        let request = server.anonymous().request(Method::POST, &url).header("Content-Type", "application/json");
        send(request.body(body)).await
    };
    let good = format!(r#"{{"username":"alice","password":"{PASSWORD}"}}"#);
    for (body, status) in [
        (format!(r#"{{"username":"bob","username":"alice","password":"{PASSWORD}"}}"#), 422),
        (format!(r#"{{"username":"alice","password":"x","password":"{PASSWORD}"}}"#), 422),
        (format!(r#"{{"username":"alice","password":"x","p\u0061ssword":"{PASSWORD}"}}"#), 422),
        (format!(r#"{{"username":"alice","password":"{PASSWORD}","tenant":"other"}}"#), 422),
        (format!(r#"{{"username":["alice"],"password":"{PASSWORD}"}}"#), 422),
        (format!(r#"{{"username":"alice","password":["{PASSWORD}"]}}"#), 422),
        (format!(r#"{{"username":null,"password":"{PASSWORD}"}}"#), 422),
        (r#"{"username":"alice"}"#.to_owned(), 422),
        (format!(r#"["alice","{PASSWORD}"]"#), 422),
        (format!("{good}{good}"), 400),
        (good[..good.len() - 1].to_owned(), 400),
        (String::new(), 400),
    ] {
        let answer = json_body(body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.text);
        answer.error();
        assert!(!answer.text.contains(PASSWORD), "{}", answer.text);
    }
    // No way in that a page of somebody else could take without being asked first (ASVS 3.5.2).
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
        let request = server.anonymous().request(Method::POST, &url).header("Content-Type", kind).body(good.clone());
        assert_eq!(send(request).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
    }
    // A query is no body.
    for method in [Method::GET, Method::POST] {
        let request = server.anonymous().request(method, &format!("{url}?username=alice&password={PASSWORD}"));
        assert!(send(request).await.status.is_client_error());
    }
    let mut twice = format!("POST {url} HTTP/1.1\r\nHost: id.test\r\nConnection: close\r\nContent-Type: application/json\r\n");
    twice.push_str(&format!("Authorization: {}\r\nAuthorization: {}\r\n", key.basic(), key.basic()));
    twice.push_str(&format!("Content-Length: {}\r\n\r\n{good}", good.len()));
    let twice: Answer = raw(server.address, twice.as_bytes()).await;
    assert_eq!(twice.status, StatusCode::BAD_REQUEST);
    assert_eq!((attempts(&tenant).await, families(&tenant).await), (0, 0));

    // The form of the page likewise.
    let mut browser = Browser::at(&tenant);
    let csrf = browser.token_of("/login").await;
    for form in [
        &[("csrf", &*csrf), ("username", "bob"), ("username", "alice"), ("password", PASSWORD)][..],
        &[("csrf", &csrf), ("username", "alice"), ("password", "x"), ("password", PASSWORD)],
        &[("csrf", "x"), ("csrf", &csrf), ("username", "alice"), ("password", PASSWORD)],
        &[("csrf", &csrf), ("username", "alice")],
    ] {
        let answer = browser.submit("/login", form).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{form:?}: {}", answer.text);
        assert!(!answer.text.contains(PASSWORD));
    }
    assert!(browser.cookie("session").is_none());
    assert_eq!(attempts(&tenant).await, 0);
}

#[actix_web::test]
async fn a_client_that_cannot_prove_itself_gets_no_login() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    let other = server.tenant("other").await;
    let key = tenant.app_key("web", &[]).await;
    let foreign = other.app_key("web", &[]).await;
    let wrong = support::basic(&format!("{}:cs_wrong", key.id));
    for client in [wrong, foreign.basic()] {
        let answer = try_login(&tenant, "alice", PASSWORD, &[("Authorization", &client)]).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text);
        assert_eq!(answer.error(), "unauthenticated");
    }
    assert_eq!((families(&tenant).await, attempts(&tenant).await), (0, 0));
    let answer = try_login(&tenant, "alice", PASSWORD, &[("Authorization", &key.basic())]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(claims(access_token(&answer.json()))["client_id"], json!(key.subject()));
    // An old token that a client sends along is no client, good or bad.
    let answer = try_login(&tenant, "alice", PASSWORD, &[("Authorization", "Bearer a.b.c")]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
}
