//! People and their passwords: what is accepted, who may change what, and what a change ends (SEEDS scenario 29).

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

use claviger_issuer::password::PasswordPolicy;
use claviger_issuer::settings::{LoginThrottle, TenantSettings};
use claviger_store::id::{Owner, UserId};
use futures_util::future::join_all;
use people::{Browser, OTHER_PASSWORD, PASSWORD, WRONG_PASSWORD, access_token, refresh, refresh_token, set_cookie, try_login};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::wire::send;
use support::{Answer, Key, Options, Server, Tenant, claims, detail};

async fn kept_hash(tenant: &Tenant<'_>, user: UserId) -> Option<String> {
    let mut database = tenant.server.database.superuser().await;
    let query = sqlx::query_scalar("SELECT hash FROM passwords WHERE tenant_id = $1 AND user_id = $2");
    query.bind(tenant.id).bind(user).fetch_optional(&mut database).await.unwrap()
}

/// Why each token family of a person ended; `None` for one that has not.
async fn family_ends(tenant: &Tenant<'_>, user: UserId) -> Vec<Option<String>> {
    let mut database = tenant.server.database.superuser().await;
    let query = "SELECT revoked_why FROM token_families WHERE tenant_id = $1 AND user_id = $2 ORDER BY created_at";
    sqlx::query_scalar(query).bind(tenant.id).bind(user).fetch_all(&mut database).await.unwrap()
}

async fn change_password(tenant: &Tenant<'_>, tokens: &Value, current: &str, new: &str) -> Answer {
    let body = json!({ "current_password": current, "new_password": new });
    tenant.server.with(&format!("Bearer {}", access_token(tokens))).post(&tenant.path("/v1/me/password"), body).await
}

/// Everything that a login gave is worth nothing any more, on either server.
async fn assert_dead(tenant: &Tenant<'_>, replica: &Server, admin: &Key, tokens: &Value, browser: &Browser<'_>) {
    let server = tenant.server;
    let used = refresh(tenant, refresh_token(tokens)).await;
    assert_eq!((used.status, used.error().as_str()), (StatusCode::UNAUTHORIZED, "invalid_grant"), "{}", used.text);
    let body = json!({ "refresh_token": refresh_token(tokens) });
    let there = replica.anonymous().post(&tenant.path("/v1/token/refresh"), body).await;
    assert_eq!(there.status, StatusCode::UNAUTHORIZED, "{}", there.text);
    let bearer = format!("Bearer {}", access_token(tokens));
    assert_eq!(server.with(&bearer).get("/v1/me").await.error(), "invalid_token");
    let asked = server.with(&admin.basic()).introspect(&tenant.path("/v1/introspect"), access_token(tokens)).await;
    assert_eq!(asked.json(), json!({ "active": false }));
    assert_eq!(browser.me().await.status, StatusCode::UNAUTHORIZED);
    // A second at most: asserted with patience, for a machine that does much else.
    let mut told = StatusCode::OK;
    for _ in 0..100 {
        told = replica.with(&bearer).get("/v1/me").await.status;
        if told == StatusCode::UNAUTHORIZED {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(told, StatusCode::UNAUTHORIZED);
}

#[actix_web::test]
async fn scenario_29_a_changed_password_ends_every_login() {
    let server = Server::start().await;
    let replica = server.replica(Options::default()).await;
    let tenant = server.tenant("acme").await;
    let alice = tenant.user("alice", Some(PASSWORD)).await;
    let key = tenant.key_of(Owner::User(alice), &["events:read"]).await;
    tenant.user("bob", Some(PASSWORD)).await;
    let admin = tenant.admin().await;
    let bob = tenant.log_in("bob", PASSWORD).await;
    let (one, two) = (tenant.log_in("alice", PASSWORD).await, tenant.log_in("alice", PASSWORD).await);
    let two = refresh(&tenant, refresh_token(&two)).await.json();
    let browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let asked = server.with(&admin.basic()).introspect(&tenant.path("/v1/introspect"), access_token(&one)).await;
    assert_eq!(asked.json()["active"], true);
    assert_eq!(replica.with(&format!("Bearer {}", access_token(&one))).get("/v1/me").await.status, StatusCode::OK);

    // Not without the present one, and not to the present one.
    let before = kept_hash(&tenant, alice).await.unwrap();
    assert_eq!(change_password(&tenant, &one, WRONG_PASSWORD, OTHER_PASSWORD).await.wrong_field(), "current_password");
    assert_eq!(change_password(&tenant, &one, PASSWORD, PASSWORD).await.wrong_field(), "new_password");
    assert_eq!(change_password(&tenant, &one, PASSWORD, "too short").await.wrong_field(), "new_password");
    assert_eq!(kept_hash(&tenant, alice).await.unwrap(), before);
    assert_eq!(server.with(&format!("Bearer {}", access_token(&two))).get("/v1/me").await.status, StatusCode::OK);

    let changed = change_password(&tenant, &one, PASSWORD, OTHER_PASSWORD).await;
    assert_eq!((changed.status, changed.text.as_str()), (StatusCode::NO_CONTENT, ""));
    assert_dead(&tenant, &replica, &admin, &one, &browser).await;
    assert_dead(&tenant, &replica, &admin, &two, &browser).await;
    assert_eq!(family_ends(&tenant, alice).await, [Some("password".to_owned()), Some("password".to_owned())]);
    let after = kept_hash(&tenant, alice).await.unwrap();
    assert!(after != before && after.starts_with("$argon2id$"));
    let entries = tenant.audit("user.password_change").await;
    assert_eq!(entries.len(), 1);
    let entry = &entries[0];
    assert_eq!((entry.outcome.as_str(), &entry.actor, &entry.target), ("ok", &format!("user:{alice}"), &format!("user:{alice}")));
    assert_eq!((detail(entry), entry.request_id.as_str()), (json!({}), changed.header("x-request-id")));

    // Nobody else's login, and no key of alice's: keys are not passwords.
    assert_eq!(refresh(&tenant, refresh_token(&bob)).await.status, StatusCode::OK);
    assert_eq!(server.with(&key.pair()).post_empty(&tenant.path("/v1/authentications")).await.status, StatusCode::CREATED);
    assert_eq!(try_login(&tenant, "alice", PASSWORD, &[]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(try_login(&tenant, "alice", OTHER_PASSWORD, &[]).await.status, StatusCode::OK);
}

#[actix_web::test]
async fn scenario_29_a_disabled_person_loses_every_login_and_gets_none_back_when_enabled() {
    let server = Server::start().await;
    let replica = server.replica(Options::default()).await;
    let tenant = server.tenant("acme").await;
    let alice = tenant.user("alice", Some(PASSWORD)).await;
    let admin = tenant.admin().await;
    let path = tenant.path(&format!("/v1/users/{alice}"));
    let tokens = tenant.log_in("alice", PASSWORD).await;
    let browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let disabled = server.with(&admin.basic()).patch(&path, json!({ "disabled": true })).await;
    assert_eq!((disabled.status, &disabled.json()["status"]), (StatusCode::OK, &json!("disabled")));
    assert_dead(&tenant, &replica, &admin, &tokens, &browser).await;
    assert_eq!(try_login(&tenant, "alice", PASSWORD, &[]).await.status, StatusCode::UNAUTHORIZED);
    let enabled = server.with(&admin.basic()).patch(&path, json!({ "disabled": false })).await;
    assert_eq!((enabled.status, &enabled.json()["status"]), (StatusCode::OK, &json!("active")));
    assert_dead(&tenant, &replica, &admin, &tokens, &browser).await;
    assert_eq!(family_ends(&tenant, alice).await, [Some("disabled".to_owned())]);
    for action in ["user.disable", "user.enable"] {
        let entries = tenant.audit(action).await;
        assert_eq!(entries.len(), 1, "{action}");
        assert_eq!((&entries[0].actor, &entries[0].target), (&format!("key:{}", admin.id), &format!("user:{alice}")));
    }
    // Whoever knows the password may come back.
    assert_eq!(try_login(&tenant, "alice", PASSWORD, &[]).await.status, StatusCode::OK);
}

#[actix_web::test]
async fn a_deleted_person_is_gone_and_the_name_is_never_given_again() {
    let server = Server::start().await;
    let replica = server.replica(Options::default()).await;
    let tenant = server.tenant("acme").await;
    let alice = tenant.user("alice", Some(PASSWORD)).await;
    let admin = tenant.admin().await;
    let as_admin = server.with(&admin.basic());
    let tokens = tenant.log_in("alice", PASSWORD).await;
    let browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    assert_eq!(as_admin.delete(&tenant.path(&format!("/v1/users/{alice}"))).await.status, StatusCode::NO_CONTENT);
    assert_dead(&tenant, &replica, &admin, &tokens, &browser).await;
    assert_eq!(kept_hash(&tenant, alice).await, None, "nothing is kept of the password");
    assert_eq!(family_ends(&tenant, alice).await, [Some("deleted".to_owned())]);
    for name in ["alice", "ALICE", "Alice", "\u{ff41}lice"] {
        let answer = as_admin.post(&tenant.path("/v1/users"), json!({ "username": name, "password": PASSWORD })).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::CONFLICT, "conflict"), "{name}");
    }
    assert_eq!(try_login(&tenant, "alice", PASSWORD, &[]).await.status, StatusCode::UNAUTHORIZED);
    let path = tenant.path(&format!("/v1/users/{alice}/password"));
    let set = server.with(&admin.basic()).request(Method::PUT, &path).json(&json!({ "password": PASSWORD }));
    assert_eq!(send(set).await.status, StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn an_admin_makes_somebody_who_can_log_in_and_roles_reach_the_next_token() {
    let server = Server::start().await;
    server.default_tenant().await;
    let tenant = server.tenant("acme").await;
    let admin = tenant.admin().await;
    let as_admin = server.with(&admin.basic());
    let body = json!({ "username": "Carol", "email": "Carol@Example.com", "roles": ["writer", "reader", "writer"], "password": PASSWORD });
    let made = as_admin.post(&tenant.path("/v1/users"), body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert!(!made.text.contains("password") && !made.text.contains("argon2"), "{}", made.text);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let path = tenant.path(&format!("/v1/users/{id}"));
    for page in [&path, &tenant.path("/v1/users")] {
        let shown = as_admin.get(page).await;
        assert!(!shown.text.contains("argon2") && !shown.text.contains("password"), "{}", shown.text);
    }
    let created = tenant.audit("user.create").await;
    assert_eq!(detail(&created[0]), json!({ "roles": ["reader", "writer"], "scopes": [], "password": true, "imported": false }));

    let tokens = tenant.log_in("carol", PASSWORD).await;
    assert_eq!(claims(access_token(&tokens))["roles"], json!(["reader", "writer"]));
    assert_eq!(as_admin.patch(&path, json!({ "roles": ["auditor"] })).await.status, StatusCode::OK);
    // What is asked of us is answered as it is now; the token that is out keeps its own until it ends.
    let me = server.with(&format!("Bearer {}", access_token(&tokens))).get("/v1/me").await;
    assert_eq!(me.json()["roles"], json!(["auditor"]));
    let refreshed = refresh(&tenant, refresh_token(&tokens)).await;
    assert_eq!(refreshed.status, StatusCode::OK, "{}", refreshed.text);
    assert_eq!(claims(access_token(&refreshed.json()))["roles"], json!(["auditor"]));
    let cleared = as_admin.patch(&path, json!({ "roles": [] })).await;
    assert_eq!(cleared.json()["roles"], json!([]));
    let refreshed = refresh(&tenant, refresh_token(&refreshed.json())).await.json();
    assert_eq!(claims(access_token(&refreshed))["roles"], json!([]));
}

#[actix_web::test]
async fn an_admin_sets_a_password_and_every_login_ends() {
    let server = Server::start().await;
    let replica = server.replica(Options::default()).await;
    let tenant = server.tenant("acme").await;
    let alice = tenant.user("alice", Some(PASSWORD)).await;
    let pat = tenant.user("pat", None).await;
    let admin = tenant.admin().await;
    let reader = tenant.app_key("reader", &["users:read"]).await;
    let other = server.tenant("other").await;
    let stranger = other.admin().await;
    let put = async |key: &Key, tenant: &Tenant<'_>, user: UserId, body: Value| {
        let path = tenant.path(&format!("/v1/users/{user}/password"));
        send(server.with(&key.basic()).request(Method::PUT, &path).json(&body)).await
    };
    let new = json!({ "password": OTHER_PASSWORD });
    let tokens = tenant.log_in("alice", PASSWORD).await;
    let browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    assert_eq!(put(&reader, &tenant, alice, new.clone()).await.status, StatusCode::FORBIDDEN);
    assert_eq!(put(&stranger, &other, alice, new.clone()).await.status, StatusCode::NOT_FOUND);
    assert_eq!(put(&stranger, &tenant, alice, new.clone()).await.status, StatusCode::UNAUTHORIZED);
    for (body, field) in [
        (json!({ "password": "short" }), "password"),
        (json!({}), "password"),
        (json!({ "password": null }), "password"),
        (json!({ "password": OTHER_PASSWORD, "password_hash": "x" }), "password_hash"),
    ] {
        assert_eq!(put(&admin, &tenant, alice, body).await.wrong_field(), field);
    }
    // A person's own login is no admin's key.
    let path = tenant.path(&format!("/v1/users/{alice}/password"));
    let own = server.with(&format!("Bearer {}", access_token(&tokens))).request(Method::PUT, &path).json(&new);
    assert_eq!(send(own).await.status, StatusCode::FORBIDDEN);
    assert_eq!(browser.me().await.status, StatusCode::OK);

    assert_eq!(put(&admin, &tenant, alice, new.clone()).await.status, StatusCode::NO_CONTENT);
    assert_dead(&tenant, &replica, &admin, &tokens, &browser).await;
    let entries = tenant.audit("user.password_set").await;
    assert_eq!(entries.len(), 1);
    assert_eq!((&entries[0].actor, &entries[0].target), (&format!("key:{}", admin.id), &format!("user:{alice}")));
    assert_eq!(try_login(&tenant, "alice", PASSWORD, &[]).await.status, StatusCode::UNAUTHORIZED);
    tenant.log_in("alice", OTHER_PASSWORD).await;
    // Somebody who had none has one now.
    assert_eq!(put(&admin, &tenant, pat, new).await.status, StatusCode::NO_CONTENT);
    tenant.log_in("pat", OTHER_PASSWORD).await;
}

#[actix_web::test]
async fn the_policy_refuses_what_others_would_try_first_and_nothing_else() {
    let server = Server::start().await;
    let tenant = server.tenant("acme-rockets").await;
    let admin = tenant.admin().await;
    let as_admin = server.with(&admin.basic());
    let make = async |number: usize, password: &str| {
        let body = json!({
            "username": format!("wilhelmina{number}"), "email": format!("tauberbach{number}@example.com"), "password": password,
        });
        as_admin.post(&tenant.path("/v1/users"), body).await
    };
    let longest = "long enough ".repeat(20);
    let refused = [
        "",
        "elevenchars",
        "           ",
        // Everybody's.
        "password1234",
        "PASSWORD1234",
        "passwordpassword",
        "123456789012",
        "qwertyuiop123",
        "!!monkey2024!!",
        "aaaaaaaaaaaaaaaa",
        "abcabcabcabc",
        // The owner's, the tenant's and ours.
        "wilhelmina0-1",
        "WILHELMINA0WILHELMINA0",
        "tauberbach0!!",
        "acme-rockets!",
        "claviger-claviger",
        "acme claviger",
        &longest[..129],
    ];
    for password in refused {
        let answer = make(0, password).await;
        assert_eq!(answer.wrong_field(), "password", "{password:?}");
        assert!(password.len() < 5 || !answer.text.contains(password), "{}", answer.text);
    }
    let users = as_admin.get(&tenant.path("/v1/users")).await.json();
    assert_eq!(users["items"], json!([]), "a refused password makes nobody");
    let accepted = [
        "twelve chars",
        " leading and trailing ",
        "onlylowercaseletters",
        "\u{1f40e}\u{1f50b}\u{1f4ce} and nothing more",
        "\u{43f}\u{430}\u{440}\u{43e}\u{43b}\u{44c} \u{434}\u{43b}\u{438}\u{43d}\u{43d}\u{44b}\u{439}",
        "tab\tand\u{a0}odd\u{2003}spaces",
        // Longer than 64 (ASVS 6.2.9), and longer than what bcrypt looks at.
        "sixty four characters and a few more are as good as any, and better",
        &longest[..128],
        "\"quotes\" 'and' \\ <tags> & {braces} %00 $1",
    ];
    for (number, password) in (1..).zip(accepted) {
        let answer = make(number, password).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{password:?}: {}", answer.text);
        tenant.log_in(&format!("wilhelmina{number}"), password).await;
    }
    // All of it counts, to the last character.
    let cut = &longest[..127];
    assert_eq!(try_login(&tenant, "wilhelmina8", cut, &[]).await.status, StatusCode::UNAUTHORIZED);
}

#[actix_web::test]
async fn a_tenant_has_a_policy_of_its_own_by_the_api() {
    let server = Server::start().await;
    let platform = server.default_tenant().await;
    let operator = platform.admin().await;
    let tenant = server.tenant("cat").await;
    let strict = server.tenant("strict").await;
    let as_operator = server.with(&operator.basic());
    let lax = json!({ "settings": { "password": { "min_length": 5, "refuse_common": false, "refuse_context": false } } });
    let answer = as_operator.patch("/v1/tenants/cat", lax).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let create = async |tenant: &Tenant<'_>, username: &str, password: &str| {
        let admin = tenant.app_key(&format!("admin-{username}"), &["users:write"]).await;
        let body = json!({ "username": username, "password": password });
        server.with(&admin.basic()).post(&tenant.path("/v1/users"), body).await
    };
    server.settle().await;
    assert_eq!(create(&tenant, "admin", "admin").await.status, StatusCode::CREATED);
    tenant.log_in("admin", "admin").await;
    assert_eq!(create(&tenant, "user", "user").await.wrong_field(), "password", "still too short");
    assert_eq!(create(&strict, "admin", "admin").await.wrong_field(), "password", "another tenant's policy is its own");
    // Stricter again: those who are there stay, and have to follow it when they change.
    let answer = as_operator.patch("/v1/tenants/cat", json!({ "settings": { "password": { "min_length": 20 } } })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    server.settle().await;
    let tokens = tenant.log_in("admin", "admin").await;
    assert_eq!(change_password(&tenant, &tokens, "admin", "only nineteen chars").await.wrong_field(), "new_password");
    assert_eq!(change_password(&tenant, &tokens, "admin", "these are twenty five now").await.status, StatusCode::NO_CONTENT);
    for password in [
        json!({ "min_length": 3 }),
        json!({ "min_length": 65 }),
        json!({ "max_length": 63 }),
        json!({ "max_length": 513 }),
        json!({ "min_length": -1 }),
        json!({ "min_length": "12" }),
        json!({ "minimum": 12 }),
        json!([]),
    ] {
        let answer = as_operator.patch("/v1/tenants/cat", json!({ "settings": { "password": password } })).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{password}: {}", answer.text);
    }
}

#[actix_web::test]
async fn names_that_are_one_name_or_look_like_one_are_given_once() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let admin = tenant.admin().await;
    let make = async |name: &str| {
        server.with(&admin.basic()).post(&tenant.path("/v1/users"), json!({ "username": name, "password": PASSWORD })).await
    };
    for (first, others) in [
        ("alice", &["Alice", "ALICE", "\u{ff41}\u{ff4c}\u{ff49}\u{ff43}\u{ff45}", "\u{430}lice", "al\u{456}ce"][..]),
        ("paypal", &["\u{440}\u{430}\u{443}\u{440}\u{430}l", "paypa1"]),
        ("m\u{fc}ller", &["M\u{dc}LLER", "mu\u{308}ller"]),
        ("bob.smith@example.com", &["Bob.Smith@Example.COM"]),
    ] {
        assert_eq!(make(first).await.status, StatusCode::CREATED, "{first}");
        for other in others {
            let answer = make(other).await;
            assert_eq!(answer.status, StatusCode::CONFLICT, "{first}, {other}: {}", answer.text);
        }
    }
    let mut database = server.database.superuser().await;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut database).await.unwrap();
    assert_eq!(count, 4);
    // Elsewhere the same name is somebody else's.
    let other = server.tenant("other").await;
    other.user("alice", Some(OTHER_PASSWORD)).await;
    assert_eq!(try_login(&other, "alice", PASSWORD, &[]).await.status, StatusCode::UNAUTHORIZED);
    tenant.log_in("alice", PASSWORD).await;
    other.log_in("alice", OTHER_PASSWORD).await;
}

#[actix_web::test]
async fn a_password_that_is_changed_twice_at_once_is_changed_once() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let alice = tenant.user("alice", Some(PASSWORD)).await;
    let tokens = join_all((0..4).map(|_| tenant.log_in("alice", PASSWORD))).await;
    let news: Vec<String> = (0..4).map(|number| format!("new passphrase number {number}")).collect();
    let changes = tokens.iter().zip(&news).map(|(tokens, new)| change_password(&tenant, tokens, PASSWORD, new));
    let answers = join_all(changes).await;
    let done: Vec<usize> = (0..4).filter(|at| answers[*at].status == StatusCode::NO_CONTENT).collect();
    assert_eq!(done.len(), 1, "{:?}", answers.iter().map(|answer| answer.status).collect::<Vec<_>>());
    for answer in &answers {
        // Too late: its login has ended, its password was not the present one any more, or changed meanwhile.
        assert!([204, 401, 422, 503].contains(&answer.status.as_u16()), "{}", answer.text);
    }
    assert_eq!(tenant.audit("user.password_change").await.len(), 1);
    assert!(family_ends(&tenant, alice).await.iter().all(|why| why.as_deref() == Some("password")));
    tenant.log_in("alice", &news[done[0]]).await;
}

#[actix_web::test]
async fn a_login_that_runs_while_the_person_is_disabled_or_changed_leaves_nothing_alive() {
    let server = Server::start().await;
    // Attempts are counted before they are looked at: six at once are one too many by default.
    let login_throttle = Some(LoginThrottle { failures: 100, ..LoginThrottle::default() });
    let tenant = server.tenant_with("acme", TenantSettings { login_throttle, ..TenantSettings::default() }).await;
    let admin = tenant.admin().await;
    let as_admin = server.with(&admin.basic());
    for round in 0..6 {
        let name = format!("user{round}");
        let user = tenant.user(&name, Some(PASSWORD)).await;
        let path = tenant.path(&format!("/v1/users/{user}"));
        let logins = join_all((0..6).map(|_| try_login(&tenant, &name, PASSWORD, &[])));
        let ending = async {
            match round % 2 {
                0 => as_admin.patch(&path, json!({ "disabled": true })).await.status,
                _ => {
                    let body = json!({ "password": OTHER_PASSWORD });
                    send(as_admin.request(Method::PUT, &format!("{path}/password")).json(&body)).await.status
                }
            }
        };
        let (logins, ended) = tokio::join!(logins, ending);
        assert!(ended.is_success(), "{ended}");
        for answer in logins {
            // Unknown where it was overtaken: asked again, the answer is clear.
            assert!([200, 401, 503].contains(&answer.status.as_u16()), "{}", answer.text);
            if answer.status == StatusCode::OK {
                let used = refresh(&tenant, refresh_token(&answer.json())).await;
                assert_eq!(used.status, StatusCode::UNAUTHORIZED, "{name}: {}", used.text);
            }
        }
        let alive = family_ends(&tenant, user).await.iter().filter(|why| why.is_none()).count();
        assert_eq!(alive, 0, "{name}");
    }
}

#[actix_web::test]
async fn changing_a_password_through_a_session_needs_our_own_page_and_clears_the_cookie() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    let mut browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let body = json!({ "current_password": PASSWORD, "new_password": OTHER_PASSWORD });
    let request = browser.request(Method::POST, "/v1/me/password").json(&body).header("Sec-Fetch-Site", "cross-site");
    assert_eq!(browser.send(request).await.error(), "cross_site");
    let request = browser.request(Method::POST, "/v1/me/password").json(&body).header("Origin", "https://evil.test");
    assert_eq!(browser.send(request).await.error(), "cross_site");
    assert_eq!(browser.me().await.status, StatusCode::OK);
    let request = browser.request(Method::POST, "/v1/me/password").json(&body).header("Origin", "http://id.test");
    let answer = browser.send(request).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
    assert_eq!(set_cookie(&answer, "__Host-session-acme").as_deref(), Some(""));
    assert_eq!(browser.me().await.status, StatusCode::UNAUTHORIZED);
    // An application's key has no password to change.
    let key = tenant.app_key("app", &[]).await;
    let answer = server.with(&key.basic()).post(&tenant.path("/v1/me/password"), body).await;
    assert_eq!((answer.status, answer.error().as_str()), (StatusCode::FORBIDDEN, "not_a_person"));
    // The policy in force is what the page says.
    let policy = PasswordPolicy { min_length: 33, max_length: 77, ..PasswordPolicy::default() };
    let settings = TenantSettings { password: Some(policy), ..TenantSettings::default() };
    let other = server.tenant_with("other", settings).await;
    other.user("alice", Some("thirty-three characters are needed")).await;
    let mut browser = Browser::signed_in(&other, "alice", "thirty-three characters are needed").await;
    assert!(browser.get("/account").await.text.contains("33 to 77 characters"));
}
