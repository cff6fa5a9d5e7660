//! Refresh tokens of keys, and of logins through a client that must prove itself (SECURITY P11).

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

use claviger_store::id::Owner;
use futures_util::future::join_all;
use refresh_support::{
    Parts, Tokens, assert_refused, assert_reused, count, family, me, newcomer, next, options, pass, refresh, refresh_as, tokens,
    trail,
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Answer, Key, Server, Tenant, claims, detail};

const SCOPES: [&str; 2] = ["events:read", "events:write"];

/// Makes a key over HTTP.
async fn order_key(server: &Server, admin: &str, owner: Owner, order: Value) -> Key {
    let mut order = order;
    let (field, id) = match owner {
        Owner::Application(id) => ("application_id", id.0),
        Owner::User(id) => ("user_id", id.0),
    };
    order[field] = json!(id);
    order["name"] = json!("test");
    let made = server.with(admin).post("/v1/keys", order).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let text = |name: &str| made.json()[name].as_str().unwrap().to_owned();
    Key { id: text("api_key"), secret: text("api_secret"), owner }
}

async fn refreshing_key(tenant: &Tenant<'_>, admin: &str, application: &str) -> Key {
    let owner = Owner::Application(tenant.application(application).await);
    order_key(tenant.server, admin, owner, json!({ "scopes": SCOPES, "refresh": true })).await
}

async fn exchange(server: &Server, key: &Key) -> Answer {
    let answer = server.with(&key.pair()).post_empty("/v1/authentications").await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    answer
}

async fn exchanged(server: &Server, key: &Key) -> Tokens {
    Tokens::of(&exchange(server, key).await.json())
}

fn fields(answer: &Answer) -> Vec<String> {
    let mut fields: Vec<_> = answer.json().as_object().unwrap().keys().cloned().collect();
    fields.sort_unstable();
    fields
}

fn scope_of(tokens: &Tokens) -> Value {
    claims(&tokens.access)["scope"].clone()
}

async fn change_key(server: &Server, admin: &str, key: &Key, change: Value) {
    let answer = server.with(admin).patch(&format!("/v1/keys/{}", key.id), change).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
}

#[actix_web::test]
async fn a_key_that_was_made_with_refresh_gets_a_refresh_token_and_others_get_exactly_a_jwt() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let admin = tenant.admin().await.basic();
    let plain = tenant.app_key("plain", &SCOPES).await;
    let key = refreshing_key(&tenant, &admin, "app").await;
    assert_eq!(fields(&exchange(&server, &plain).await), ["jwt"]);
    let mut database = server.database.superuser().await;
    assert_eq!(count(&mut database, "SELECT count(*) FROM token_families").await, 0);

    let answer = exchange(&server, &key).await;
    assert_eq!(fields(&answer), ["expires_in", "jwt", "refresh_token"]);
    assert_eq!(answer.header("cache-control"), "no-store");
    let first = Tokens::of(&answer.json());
    let said = claims(&first.access);
    assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), answer.json()["expires_in"].as_i64().unwrap());
    let id = first.family();
    family(&mut database, id).await.assert_lives_at(0);

    let answer = refresh(&server, &first.refresh).await;
    let second = tokens(&answer);
    assert_eq!(fields(&answer), ["access_token", "expires_in", "refresh_token", "scope", "token_type"]);
    assert_eq!(answer.json()["scope"], "events:read events:write");
    assert_eq!(answer.json()["expires_in"], 86_400, "a key's tokens live as long after a refresh as before");
    let (before, after) = (claims(&first.access), claims(&second.access));
    for same in ["iss", "aud", "sub", "sid", "client_id", "tid", "scope"] {
        assert_eq!(before[same], after[same], "{same}");
    }
    assert_eq!((&after["sub"], &after["client_id"]), (&json!(key.subject()), &json!(key.subject())));
    let shown = me(&server, &second.access).await;
    assert_eq!((shown.status, &shown.json()["key_id"]), (StatusCode::OK, &json!(key.id)));
    assert_eq!(refresh(&server, &first.refresh).await.text, answer.text);
    family(&mut database, id).await.assert_lives_at(1);
    let entries = trail(&tenant, "token.refresh", id).await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].actor, format!("key:{}", key.id));
    assert_eq!(detail(&entries[0])["scope"], "events:read events:write");

    // Its own pair is as good, and better: the key can prove itself.
    let third = tokens(&refresh_as(&server, &key.basic(), &second.refresh).await);
    pass(&mut database, id, 3600).await;
    let instead = tokens(&refresh_as(&server, &key.basic(), &second.refresh).await);
    assert_ne!(instead.refresh, third.refresh);
    family(&mut database, id).await.assert_lives_at(2);
    assert_refused("a token that was replaced", &refresh(&server, &third.refresh).await);
    // Another key's is not.
    assert_refused("by another key", &refresh_as(&server, &plain.basic(), &instead.refresh).await);
    family(&mut database, id).await.assert_lives_at(2);
    // Without it, what is used again after the window is stolen.
    pass(&mut database, id, 3600).await;
    assert_reused("by nobody in particular", &refresh(&server, &second.refresh).await);
    family(&mut database, id).await.assert_ended("reuse", &format!("key:{}", key.id));
    // That ends a login and not the key.
    let again = exchanged(&server, &key).await;
    assert_ne!(again.family(), id);
    next(&server, &again.refresh).await;

    change_key(&server, &admin, &key, json!({ "refresh": false })).await;
    assert_eq!(fields(&exchange(&server, &key).await), ["jwt"]);
    change_key(&server, &admin, &plain, json!({ "refresh": true })).await;
    assert_eq!(fields(&exchange(&server, &plain).await), ["expires_in", "jwt", "refresh_token"]);
}

#[actix_web::test]
async fn scopes_shrink_with_the_key_and_never_grow() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let admin = tenant.admin().await.basic();
    let key = refreshing_key(&tenant, &admin, "app").await;
    let mut newest = exchanged(&server, &key).await;
    let ask = async |token: &str, scope: &str| {
        server.anonymous().post("/v1/token/refresh", json!({ "refresh_token": token, "scope": scope })).await
    };

    // Narrower for one token; the next may have all of it again (RFC 6749 §6).
    let answer = ask(&newest.refresh, "events:read").await;
    newest = tokens(&answer);
    assert_eq!((scope_of(&newest), answer.json()["scope"].clone()), (json!("events:read"), json!("events:read")));
    newest = next(&server, &newest.refresh).await;
    assert_eq!(scope_of(&newest), "events:read events:write");

    // More than was granted is refused, and the token is not used up by that.
    let mut database = server.database.superuser().await;
    let before = family(&mut database, newest.family()).await;
    change_key(&server, &admin, &key, json!({ "scopes": ["events:read", "events:write", "reports:read"] })).await;
    for more in ["events:read keys:write", "reports:read", "events:read reports:read", "nothing:known"] {
        let answer = ask(&newest.refresh, more).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_scope"), "{more}");
    }
    assert_eq!(family(&mut database, newest.family()).await, before);
    newest = next(&server, &newest.refresh).await;
    assert_eq!(scope_of(&newest), "events:read events:write", "what the key got later was not granted to this login");

    change_key(&server, &admin, &key, json!({ "scopes": ["events:write", "reports:read"] })).await;
    newest = next(&server, &newest.refresh).await;
    assert_eq!(scope_of(&newest), "events:write");
    assert_eq!(ask(&newest.refresh, "events:read").await.status, StatusCode::BAD_REQUEST);
    change_key(&server, &admin, &key, json!({ "scopes": [] })).await;
    let answer = refresh(&server, &newest.refresh).await;
    newest = tokens(&answer);
    assert!(answer.json().get("scope").is_none() && scope_of(&newest).is_null(), "{}", answer.text);

    // An exchange for less begins a login for less.
    change_key(&server, &admin, &key, json!({ "scopes": SCOPES })).await;
    let body = json!({ "scope": "events:read" });
    let first = Tokens::of(&server.with(&key.pair()).post("/v1/authentications", body).await.json());
    assert_eq!(scope_of(&next(&server, &first.refresh).await), "events:read");
}

/// What ends a key's logins, by name.
async fn end_key(server: &Server, admin: &str, key: &Key, how: &str) {
    let path = format!("/v1/keys/{}", key.id);
    let off = json!({ "disabled": true });
    let owner = match key.owner {
        Owner::Application(id) => format!("/v1/applications/{id}"),
        Owner::User(id) => format!("/v1/users/{id}"),
    };
    let admin = server.with(admin);
    let answer = match how {
        "revoked" => admin.delete(&path).await,
        "disabled" => admin.patch(&path, off).await,
        "owner disabled" => admin.patch(&owner, off).await,
        "owner deleted" => admin.delete(&owner).await,
        "expired" => {
            let soon = server.clock.now() + chrono::TimeDelta::milliseconds(600);
            let answer = admin.patch(&path, json!({ "expires_at": soon })).await;
            tokio::time::sleep(Duration::from_millis(700)).await;
            answer
        }
        other => panic!("{other}"),
    };
    assert!(answer.status.is_success(), "{how}: {}", answer.text);
}

/// A login of a new key of an `application` or a `user`, refreshed once; then the key ends in this way.
async fn key_that_ends(tenant: &Tenant<'_>, admin: &str, owner: &str, how: &str) -> [Tokens; 2] {
    let server = tenant.server;
    let name = format!("{owner}-{}", how.replace(' ', "-"));
    let owner = match owner {
        "user" => Owner::User(tenant.user(&name, None).await),
        _ => Owner::Application(tenant.application(&name).await),
    };
    let key = order_key(server, admin, owner, json!({ "scopes": SCOPES, "refresh": true })).await;
    let first = exchanged(server, &key).await;
    let second = next(server, &first.refresh).await;
    assert_eq!(next(server, &first.refresh).await, second);
    end_key(server, admin, &key, how).await;
    let shown = me(server, &second.access).await;
    assert_eq!(shown.status, StatusCode::UNAUTHORIZED, "{name}: {}", shown.text);
    [first, second]
}

#[actix_web::test]
async fn a_key_that_may_not_act_gets_no_next_token() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let admin = tenant.admin().await.basic();
    let mut database = server.database.superuser().await;
    for (owner, how) in [
        ("application", "revoked"),
        ("application", "disabled"),
        ("application", "expired"),
        ("application", "owner disabled"),
        ("application", "owner deleted"),
        ("user", "owner disabled"),
        ("user", "owner deleted"),
    ] {
        let [_, second] = key_that_ends(&tenant, &admin, owner, how).await;
        let before = family(&mut database, second.family()).await;
        assert_refused(how, &refresh(&server, &second.refresh).await);
        assert_eq!(family(&mut database, second.family()).await, before);
    }
}

#[actix_web::test]
async fn a_key_that_was_revoked_or_disabled_gets_no_answer_again() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let admin = tenant.admin().await.basic();
    let mut database = server.database.superuser().await;
    for how in ["revoked", "disabled"] {
        let [first, second] = key_that_ends(&tenant, &admin, "application", how).await;
        assert_refused(how, &refresh(&server, &first.refresh).await);
        let row = family(&mut database, second.family()).await;
        assert_eq!(row.ended.as_ref().unwrap().0, "key");
        assert_eq!((row.generation, row.tokens), (1, vec![0, 1]));
    }
}

#[actix_web::test]
async fn a_key_that_has_expired_or_whose_owner_may_not_act_gets_no_answer_again() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let admin = tenant.admin().await.basic();
    let mut given = Vec::new();
    for (owner, how) in [
        ("application", "expired"),
        ("application", "owner disabled"),
        ("application", "owner deleted"),
        ("user", "owner disabled"),
        ("user", "owner deleted"),
    ] {
        let [first, _] = key_that_ends(&tenant, &admin, owner, how).await;
        let answer = refresh(&server, &first.refresh).await;
        if answer.status != StatusCode::UNAUTHORIZED {
            given.push(format!("{owner}, {how}: {}", answer.status));
        }
    }
    assert!(given.is_empty(), "within the window, an answer was given again: {given:?}");
}

#[actix_web::test]
async fn a_disabled_key_that_comes_back_does_not_bring_its_logins_back() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let admin = tenant.admin().await.basic();
    let key = refreshing_key(&tenant, &admin, "app").await;
    let first = exchanged(&server, &key).await;
    for disabled in [true, false] {
        change_key(&server, &admin, &key, json!({ "disabled": disabled })).await;
        assert_refused("its login has ended", &refresh(&server, &first.refresh).await);
    }
    assert_eq!(me(&server, &first.access).await.status, StatusCode::UNAUTHORIZED);
    next(&server, &exchanged(&server, &key).await.refresh).await;
}

#[actix_web::test]
async fn a_login_of_a_key_ends_no_later_than_the_key() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let admin = tenant.admin().await.basic();
    let owner = Owner::Application(tenant.application("app").await);
    let end = server.clock.now() + chrono::TimeDelta::seconds(100);
    let key = order_key(&server, &admin, owner, json!({ "scopes": SCOPES, "refresh": true, "expires_at": end })).await;
    let first = exchanged(&server, &key).await;
    let second = next(&server, &first.refresh).await;
    for one in [&first, &second] {
        let left = claims(&one.access)["exp"].as_i64().unwrap() - end.timestamp();
        assert!((-1..=0).contains(&left), "{left}");
    }
    let mut database = server.database.superuser().await;
    let kept: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("SELECT ends_at FROM token_families").fetch_one(&mut database).await.unwrap();
    assert_eq!(kept, end);
}

/// A person's login through a client.
async fn log_in_through(tenant: &Tenant<'_>, client: &Key, username: &str) -> Tokens {
    let body = json!({ "username": username, "password": refresh_support::PASSWORD });
    tokens(&tenant.server.with(&client.basic()).post(&tenant.path("/v1/login"), body).await)
}

#[actix_web::test]
async fn p11_tokens_of_a_client_are_worth_nothing_without_it() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let other_tenant = server.tenant("other").await;
    let admin = tenant.admin().await.basic();
    let client = tenant.app_key("client", &[]).await;
    let other = tenant.app_key("other", &SCOPES).await;
    let foreign = other_tenant.app_key("client", &SCOPES).await;
    let public = newcomer(&tenant, "alice").await;
    let first = log_in_through(&tenant, &client, "alice").await;
    let id = first.family();
    assert_eq!(claims(&first.access)["client_id"], client.subject());
    let mut database = server.database.superuser().await;
    let before = family(&mut database, id).await;

    let mut refused = 0;
    for (who, authorization) in [
        ("nobody", None),
        ("an access token", Some(first.bearer())),
        ("another client", Some(other.basic())),
        ("a client of another tenant", Some(foreign.basic())),
    ] {
        let caller = authorization.map_or_else(|| server.anonymous(), |one| server.with(&one));
        for path in ["/v1/token/refresh".to_owned(), tenant.path("/v1/token/refresh")] {
            let answer = caller.post(&path, json!({ "refresh_token": first.refresh })).await;
            if who.ends_with("tenant") && path.starts_with("/t/") {
                // It is no key here at all.
                assert_eq!((answer.status, answer.error().as_str()), (StatusCode::UNAUTHORIZED, "unauthenticated"), "{who}");
            } else {
                assert_refused(who, &answer);
                refused += 1;
            }
        }
    }
    for pair in [format!("{}:{}", client.id, other.secret), format!("{}:{}", other.id, client.secret), "a:b".into()] {
        let answer = refresh_as(&server, &support::basic(&pair), &first.refresh).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::UNAUTHORIZED, "unauthenticated"), "{}", answer.text);
    }
    assert_eq!(family(&mut database, id).await, before);
    let entries = trail(&tenant, "token.refresh", id).await;
    assert_eq!(entries.len(), refused);
    for entry in &entries {
        assert_eq!((entry.outcome.as_str(), &detail(entry)["reason"]), ("refused", &json!("other_client")));
    }

    // A client has no use for a token that was given to nobody in particular.
    assert_refused("a public login", &refresh_as(&server, &client.basic(), &public.refresh).await);
    family(&mut database, public.family()).await.assert_lives_at(0);
    next(&server, &public.refresh).await;

    let second = tokens(&refresh_as(&server, &client.basic(), &first.refresh).await);
    assert_eq!(claims(&second.access)["client_id"], client.subject());
    family(&mut database, id).await.assert_lives_at(1);
    // Used or not, it is not for others; that ends nothing, however late and however often.
    pass(&mut database, id, 3600).await;
    for token in [&first.refresh, &second.refresh] {
        assert_refused("by another client", &refresh_as(&server, &other.basic(), token).await);
        assert_refused("without a client", &refresh(&server, token).await);
    }
    family(&mut database, id).await.assert_lives_at(1);

    // The client is the application, by whichever of its keys, and whatever the secret is now.
    let sibling = tenant.key_of(client.owner, &[]).await;
    let third = tokens(&refresh_as(&server, &sibling.basic(), &second.refresh).await);
    let rotated = server.with(&admin).post(&format!("/v1/keys/{}/rotate", client.id), json!({ "grace_seconds": 0 })).await;
    let fresh = Key { secret: rotated.json()["api_secret"].as_str().unwrap().to_owned(), ..client.clone() };
    assert_eq!(refresh_as(&server, &client.basic(), &third.refresh).await.error(), "unauthenticated");
    let fourth = tokens(&refresh_as(&server, &fresh.basic(), &third.refresh).await);
    family(&mut database, id).await.assert_lives_at(3);

    // A client that may not act cannot prove itself; the login waits for it.
    for key in [&fresh, &sibling] {
        change_key(&server, &admin, key, json!({ "disabled": true })).await;
        assert_eq!(refresh_as(&server, &key.basic(), &fourth.refresh).await.error(), "unauthenticated");
        assert_eq!(refresh_as(&server, &key.basic(), &third.refresh).await.error(), "unauthenticated");
    }
    family(&mut database, id).await.assert_lives_at(3);
    change_key(&server, &admin, &sibling, json!({ "disabled": false })).await;
    tokens(&refresh_as(&server, &sibling.basic(), &fourth.refresh).await);
}

#[actix_web::test]
async fn a_person_s_key_is_a_client_too_and_itself_alone() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let owner = Owner::User(tenant.user("owner", None).await);
    let (client, sibling) = (tenant.key_of(owner, &[]).await, tenant.key_of(owner, &[]).await);
    tenant.user("alice", Some(refresh_support::PASSWORD)).await;
    let first = log_in_through(&tenant, &client, "alice").await;
    assert_eq!(claims(&first.access)["client_id"], client.id);
    assert_refused("the owner's other key", &refresh_as(&server, &sibling.basic(), &first.refresh).await);
    tokens(&refresh_as(&server, &client.basic(), &first.refresh).await);
}

#[actix_web::test]
async fn a_client_that_lost_an_answer_gets_another_in_its_place_however_late() {
    let a = Server::start_with(options()).await;
    let b = a.replica(options()).await;
    let tenant = a.tenant("acme").await;
    let client = tenant.app_key("client", &[]).await;
    let basic = client.basic();
    tenant.user("alice", Some(refresh_support::PASSWORD)).await;
    let first = log_in_through(&tenant, &client, "alice").await;
    let id = first.family();
    let mut database = a.database.superuser().await;
    let lost = tokens(&refresh_as(&a, &basic, &first.refresh).await);
    assert_eq!(tokens(&refresh_as(&b, &basic, &first.refresh).await), lost, "within the window it is the same answer");

    let mut gone = vec![lost];
    for round in 1..=3 {
        pass(&mut database, id, 3600 * round).await;
        // Many at once, and still there is one.
        let answers = join_all((0..16).map(|one| refresh_as([&a, &b][one % 2], &basic, &first.refresh))).await;
        let instead = tokens(&answers[0]);
        assert!(answers.iter().all(|answer| answer.text == answers[0].text), "round {round}: two different answers");
        assert_eq!(Parts::of(&instead.refresh).generation, 1);
        family(&mut database, id).await.assert_lives_at(1);
        // The new answer is given again in its own window.
        pass(&mut database, id, 25).await;
        assert_eq!(tokens(&refresh_as(&b, &basic, &first.refresh).await), instead);
        for old in &gone {
            assert!(old.refresh != instead.refresh);
            assert_refused("a token that was replaced", &refresh_as(&b, &basic, &old.refresh).await);
        }
        family(&mut database, id).await.assert_lives_at(1);
        gone.push(instead);
    }
    let replaced = trail(&tenant, "token.refresh_again", id).await;
    assert_eq!(replaced.iter().filter(|entry| detail(entry)["how"] == "replaced").count(), 3);
    assert!(trail(&tenant, "token.reuse_detected", id).await.is_empty());

    let newest = gone.pop().unwrap();
    let second = tokens(&refresh_as(&a, &basic, &newest.refresh).await);
    family(&mut database, id).await.assert_lives_at(2);
    // Those that were replaced are dead, and no sign of theft.
    for old in &gone {
        assert_refused("a token that was replaced", &refresh_as(&a, &basic, &old.refresh).await);
    }
    family(&mut database, id).await.assert_lives_at(2);
    // A client or not: once the successor was used, a second use is.
    assert_reused("used twice", &refresh_as(&b, &basic, &first.refresh).await);
    family(&mut database, id).await.assert_ended("reuse", &format!("user:{}", claims(&second.access)["sub"].as_str().unwrap()));
    for token in [&first.refresh, &newest.refresh, &second.refresh] {
        assert_reused("of an ended family", &refresh_as(&a, &basic, token).await);
    }
    // Another client does not even learn that.
    let other = tenant.app_key("other", &[]).await;
    assert_refused("by another client", &refresh_as(&a, &other.basic(), &second.refresh).await);
    let began = Instant::now();
    while me(&b, &second.access).await.status == StatusCode::OK {
        assert!(began.elapsed() < Duration::from_secs(3), "its access tokens live on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
