//! The pages where people sign in and out and look after their account: forged forms (P24), open redirects (P06), markup
//! in names (P22, P23), and the headers of every page.

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
use claviger_issuer::tenant::TenantChange;
use people::{Browser, OTHER_PASSWORD, PASSWORD, WRONG_PASSWORD, form_token, refresh, refresh_token, set_cookies, try_login};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Answer, Options, Server, Tenant, claims};

const SAME_ORIGIN: [(&str, &str); 2] = [("Origin", "http://id.test"), ("Sec-Fetch-Site", "same-origin")];

/// What every page says about itself to the browser.
fn assert_page(answer: &Answer) {
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8", "{}", answer.text);
    let policy = answer.header("content-security-policy");
    for part in ["default-src 'none'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    // No script of any origin, and no inline style.
    assert!(!policy.contains("script-src") && !policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("referrer-policy"), "same-origin");
    assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin");
    assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
    let text = answer.text.to_lowercase();
    assert!(text.starts_with("<!doctype html>"));
    for forbidden in ["<script", "javascript:", " onclick", " onload", " onerror", "<iframe", "style=", "<style"] {
        assert!(!text.contains(forbidden), "{forbidden}: {}", answer.text);
    }
}

/// All that the database holds of logins, attempts and users: what may not change when nothing is done.
async fn state(server: &Server) -> String {
    let mut database = server.database.superuser().await;
    let query = "SELECT concat_ws(E'\\n',
        (SELECT string_agg(s::text, E'\\n' ORDER BY s::text) FROM sessions s),
        (SELECT string_agg(f::text, E'\\n' ORDER BY f::text) FROM token_families f),
        (SELECT string_agg(a::text, E'\\n' ORDER BY a::text) FROM attempts a),
        (SELECT string_agg(u::text, E'\\n' ORDER BY u::text) FROM users u),
        (SELECT string_agg(p::text, E'\\n' ORDER BY p::text) FROM passwords p),
        (SELECT count(*)::text FROM audit_entries))";
    sqlx::query_scalar(query).fetch_one(&mut database).await.unwrap()
}

async fn scene(server: &Server) -> Tenant<'_> {
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    tenant
}

#[actix_web::test]
async fn p24_a_login_form_counts_only_from_our_page_in_the_browser_that_it_was_shown_in() {
    let server = Server::start().await;
    let tenant = scene(&server).await;
    let other = server.tenant("other").await;
    let mut browser = Browser::at(&tenant);
    let page = browser.get("/login").await;
    assert_eq!(page.status, StatusCode::OK);
    assert_page(&page);
    let csrf = form_token(&page.text);
    // A page that is open in another browser, or of another tenant.
    let mut foreign = Browser::at(&tenant);
    let foreign_csrf = foreign.token_of("/login").await;
    assert_ne!(csrf, foreign_csrf);
    let mut elsewhere = Browser::at(&other);
    elsewhere.get("/login").await;
    elsewhere.cookies.insert(elsewhere.name("form"), browser.cookie("form").unwrap().to_owned());
    let other_tenants_csrf = elsewhere.token_of("/login").await;
    assert_ne!(csrf, other_tenants_csrf);
    let before = state(&server).await;

    let flipped = format!("{}{}", if csrf.starts_with('A') { 'B' } else { 'A' }, &csrf[1..]);
    for token in ["", "x", &foreign_csrf, &other_tenants_csrf, &flipped, &csrf[..csrf.len() - 1], browser.cookie("form").unwrap()]
    {
        let form = [("csrf", token), ("username", "alice"), ("password", PASSWORD)];
        let answer = browser.clone().submit("/login", &form).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{token}");
        assert_page(&answer);
        assert!(set_cookies(&answer).is_empty(), "{token}");
    }
    let without = browser.clone().submit("/login", &[("username", "alice"), ("password", PASSWORD)]).await;
    assert_eq!(without.status, StatusCode::FORBIDDEN);
    // The right token without the cookie, or with the cookie of another browser.
    let good = [("csrf", csrf.as_str()), ("username", "alice"), ("password", PASSWORD)];
    assert_eq!(Browser::at(&tenant).submit("/login", &good).await.status, StatusCode::FORBIDDEN);
    assert_eq!(foreign.submit("/login", &good).await.status, StatusCode::FORBIDDEN);
    // From another site.
    for headers in [
        &[("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.test")][..],
        &[("Sec-Fetch-Site", "same-site"), ("Origin", "http://sub.id.test")],
        &[("Sec-Fetch-Site", "cross-site"), ("Origin", "http://id.test")],
        &[("Origin", "https://evil.test")],
        &[("Origin", "null")],
        &[("Origin", "https://id.test")],
        &[("Origin", "http://id.test:8080")],
    ] {
        let answer = browser.clone().submit_with("/login", &good, headers).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{headers:?}");
        assert!(set_cookies(&answer).is_empty());
    }
    assert_eq!(state(&server).await, before, "a forged form was counted, or did something");

    // And it does count, even from a browser that says nothing of where it comes from.
    assert_eq!(browser.clone().submit_with("/login", &good, &[]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.submit_with("/login", &good, &SAME_ORIGIN).await.status, StatusCode::SEE_OTHER);
}

#[actix_web::test]
async fn p24_the_forms_of_the_account_count_only_from_our_page_of_this_session() {
    let server = Server::start().await;
    let tenant = scene(&server).await;
    let mut browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let mut second = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let sid = second.me().await.json()["sid"].as_str().unwrap().to_owned();
    let page = browser.get("/account").await;
    assert_page(&page);
    let csrf = form_token(&page.text);
    let others = second.token_of("/account").await;
    let login_csrf = Browser::at(&tenant).token_of("/login").await;
    let before = state(&server).await;
    let forms: [(&str, Vec<(&str, &str)>); 4] = [
        ("/account/end", vec![("id", sid.as_str())]),
        ("/account/end-all", vec![]),
        ("/account/password", vec![("current_password", PASSWORD), ("new_password", OTHER_PASSWORD)]),
        ("/logout", vec![]),
    ];
    for (path, fields) in &forms {
        for token in ["", "x", &others, &login_csrf] {
            let mut form = fields.clone();
            form.push(("csrf", token));
            let answer = browser.clone().submit(path, &form).await;
            // The way out only asks: nobody is kept from leaving by an old page.
            let wanted = if *path == "/logout" { StatusCode::OK } else { StatusCode::FORBIDDEN };
            assert_eq!(answer.status, wanted, "{path}: {token}");
            assert_page(&answer);
        }
        let mut form = fields.clone();
        form.push(("csrf", &csrf));
        for headers in [&[("Sec-Fetch-Site", "cross-site")][..], &[("Origin", "https://evil.test")], &[("Origin", "null")]] {
            let answer = browser.clone().submit_with(path, &form, headers).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}: {headers:?}");
            assert_page(&answer);
            assert!(set_cookies(&answer).is_empty(), "{path}: a request that another site sent removes no cookie");
        }
        // Somebody who is not signed in is sent to the login page, whatever they send.
        if *path != "/logout" {
            let answer = Browser::at(&tenant).submit(path, &form).await;
            assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path}");
            assert_eq!(answer.header("location"), "/t/acme/login?return_to=/t/acme/account");
        }
        // A form only: no JSON, no plain text.
        let request = browser.request(Method::POST, path).header("Content-Type", "text/plain").body(format!("csrf={csrf}"));
        let answer = browser.clone().send(request).await;
        assert!(answer.status.is_client_error() || *path == "/logout" && answer.text.contains("Sign out of"), "{path}");
    }
    assert_eq!(state(&server).await, before, "a forged form did something");

    assert_eq!(browser.submit("/account/end", &[("id", &sid), ("csrf", &csrf)]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(second.me().await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(browser.me().await.status, StatusCode::OK);
}

#[actix_web::test]
async fn p06_signing_in_leads_to_no_other_place() {
    let server = Server::start().await;
    let tenant = scene(&server).await;
    let home = "/t/acme/account";
    for (target, wanted) in [
        ("/t/acme/account?tab=1", "/t/acme/account?tab=1"),
        ("/jobs", "/jobs"),
        ("//evil.test", home),
        ("///evil.test", home),
        ("/\\evil.test", home),
        ("\\/evil.test", home),
        ("/\t/evil.test", home),
        ("\t//evil.test", home),
        ("https://evil.test/", home),
        ("https:evil.test", home),
        ("http://id.test@evil.test/", home),
        ("javascript:alert(1)", home),
        ("data:text/html,x", home),
        ("/x\r\nSet-Cookie: a=b", home),
        ("evil.test", home),
        ("", home),
        ("/\u{2f}\u{2f}evil.test", home),
        ("/\u{ff0f}evil.test", home),
    ] {
        let mut browser = Browser::at(&tenant);
        let request = browser.request(Method::GET, "/login").query(&[("return_to", target)]);
        let page = browser.send(request).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(!page.text.contains("evil.test"), "{target}");
        let csrf = form_token(&page.text);
        let form = [("csrf", csrf.as_str()), ("username", "alice"), ("password", PASSWORD), ("return_to", target)];
        let answer = browser.submit("/login", &form).await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, wanted), "{target}");
        assert!(set_cookies(&answer).iter().all(|cookie| cookie.name.starts_with("__Host-")));
        // Whoever is signed in already is sent on in the same way.
        let request = browser.request(Method::GET, "/login").query(&[("return_to", target)]);
        let on = browser.send(request).await;
        assert_eq!((on.status, on.header("location")), (StatusCode::SEE_OTHER, wanted), "{target}");
    }
    // The target survives a typing error.
    let mut browser = Browser::at(&tenant);
    let csrf = browser.token_of("/login?return_to=/jobs").await;
    let form = [("csrf", csrf.as_str()), ("username", "alice"), ("password", WRONG_PASSWORD), ("return_to", "/jobs")];
    let again = browser.submit("/login", &form).await;
    assert!(again.text.contains("name=\"return_to\" value=\"/jobs\""));
}

#[actix_web::test]
async fn p18_no_page_and_no_redirect_believes_the_host_header() {
    let server = Server::start().await;
    let tenant = scene(&server).await;
    let mut browser = Browser::at(&tenant);
    let hosts = [("Host", "evil.test"), ("X-Forwarded-Host", "evil.test"), ("Forwarded", "host=evil.test")];
    let poisoned =
        |request: reqwest::RequestBuilder| hosts.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let page = browser.send(poisoned(browser.request(Method::GET, "/login"))).await;
    assert!(!page.text.contains("evil"));
    let csrf = form_token(&page.text);
    let form = [("csrf", csrf.as_str()), ("username", "alice"), ("password", PASSWORD)];
    // A forger's page is not ours because it says that its host is.
    let forged = poisoned(browser.request(Method::POST, "/login").form(&form)).header("Origin", "http://evil.test");
    assert_eq!(browser.clone().send(forged).await.status, StatusCode::FORBIDDEN);
    let request = poisoned(browser.request(Method::POST, "/login").form(&form)).header("Origin", "http://id.test");
    let answer = browser.send(request).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/t/acme/account"));
    let account = browser.send(poisoned(browser.request(Method::GET, "/account"))).await;
    assert!(!account.text.contains("evil"));
}

#[actix_web::test]
async fn a_wrong_login_shows_the_page_again_in_the_same_words_whoever_it_was() {
    let server = Server::start().await;
    let tenant = scene(&server).await;
    let mut seen = Vec::new();
    for name in ["alice", "carol"] {
        let mut browser = Browser::at(&tenant);
        let answer = browser.sign_in(name, WRONG_PASSWORD).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_page(&answer);
        assert!(browser.cookie("session").is_none());
        assert!(!answer.text.contains(WRONG_PASSWORD), "a password is never shown again");
        assert!(answer.text.contains(&format!("value=\"{name}\"")));
        seen.push(answer.text.replace(name, "NAME").replace(&form_token(&answer.text), "TOKEN"));
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].contains("role=\"alert\""));
}

#[actix_web::test]
async fn p22_markup_in_names_and_fields_is_shown_as_the_text_that_it_is() {
    let server = Server::start().await;
    let tenant = scene(&server).await;
    const MARKUP: &str = "<img src=x onerror=alert(1)>\"'><script>alert(2)</script>{{7*7}}";
    let change = TenantChange { name: Some(MARKUP.into()), ..TenantChange::default() };
    let named = server.issuer.change_tenant(&Actor::operator(), "acme", change).await.is_ok();
    assert!(named, "a name for people may hold any printable text");
    let mut browser = Browser::at(&tenant);
    let request = browser.request(Method::GET, "/login").query(&[("return_to", "/\"><script>alert(3)</script>")]);
    let login = browser.send(request).await;
    let csrf = form_token(&login.text);
    let form = [("csrf", csrf.as_str()), ("username", MARKUP), ("password", MARKUP), ("return_to", MARKUP)];
    let wrong = browser.submit("/login", &form).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert!(wrong.text.contains("&#60;img") || wrong.text.contains("&lt;img"), "what was typed is shown again, as text");
    let request = browser.request(Method::GET, "/login").header("User-Agent", MARKUP);
    browser.send(request).await;
    let csrf = browser.token_of("/login").await;
    let form = [("csrf", csrf.as_str()), ("username", "alice"), ("password", PASSWORD)];
    let request = browser.request(Method::POST, "/login").form(&form).header("User-Agent", MARKUP);
    assert_eq!(browser.send(request).await.status, StatusCode::SEE_OTHER);
    let account = browser.get("/account").await;
    let logout = browser.get("/logout").await;
    let stale = browser.clone().submit("/account/end-all", &[("csrf", MARKUP)]).await;
    for page in [&login, &wrong, &account, &logout, &stale] {
        let text = page.text.replace("&#60;", "").replace("&lt;", "");
        for tag in ["<img", "<script", "<svg"] {
            assert!(!text.contains(tag), "{}", page.text);
        }
        assert!(!page.text.contains("\"'>"), "a quote ended an attribute: {}", page.text);
        assert!(!page.text.contains("49}}") && !page.text.contains(">49<"));
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    }
    assert!(account.text.contains("alert(1)"), "the browser's own name is shown");
    assert!(account.text.contains("Where you are signed in"));
}

#[actix_web::test]
async fn getting_a_page_changes_nothing() {
    let server = Server::start().await;
    let tenant = scene(&server).await;
    let mut browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let sid = browser.me().await.json()["sid"].as_str().unwrap().to_owned();
    let csrf = browser.token_of("/account").await;
    let before = state(&server).await;
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        for path in [
            "/login".to_owned(),
            format!("/login?username=alice&password={}&csrf={csrf}", PASSWORD.replace(' ', "+")),
            "/logout".to_owned(),
            format!("/logout?csrf={csrf}"),
            "/account".to_owned(),
            format!("/account/end?id={sid}&csrf={csrf}"),
            format!("/account/end-all?csrf={csrf}"),
            format!("/account/password?csrf={csrf}&current_password=a&new_password=b"),
            "/v1/logout".to_owned(),
            "/v1/login".to_owned(),
            "/v1/me/sessions".to_owned(),
            format!("/v1/me/sessions/{sid}"),
            "/v1/me/password".to_owned(),
        ] {
            let request = browser.request(method.clone(), &path).header("Sec-Fetch-Site", "same-origin");
            let answer = Answer::of(request.send().await.unwrap()).await;
            assert!(!answer.status.is_server_error(), "{method} {path}");
        }
    }
    assert_eq!(state(&server).await, before);
    assert_eq!(browser.me().await.status, StatusCode::OK);
    // What a form takes, a link does not.
    for path in ["/account/end", "/account/end-all", "/account/password"] {
        let answer = browser.get(path).await;
        assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST"), "{path}");
    }
}

#[actix_web::test]
async fn scenario_31_signing_out_asks_when_it_was_not_our_page_that_asked_for_it() {
    let server = Server::start().await;
    let tenant = scene(&server).await;
    let mut browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let cross = [("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.test")];
    for form in [&[][..], &[("csrf", "x"), ("post_logout_redirect_uri", "https://evil.test/")]] {
        let answer = browser.submit_with("/logout", form, &cross).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert_page(&answer);
        // The way to the question, and to nowhere else.
        assert!(answer.text.contains("href=\"/t/acme/logout\"") && !answer.text.contains("evil"));
        assert!(!answer.headers.contains_key("location") && set_cookies(&answer).is_empty());
        assert_eq!(browser.me().await.status, StatusCode::OK, "nobody is signed out by another site");
    }
    // Without the token of a page of ours, it is asked.
    let unsure = browser.submit("/logout", &[("csrf", "x")]).await;
    let asked = browser.get("/logout").await;
    for page in [&unsure, &asked] {
        assert_eq!(page.status, StatusCode::OK);
        assert_page(page);
        assert!(page.text.contains("action=\"/t/acme/logout\""));
    }
    // A forged request comes without the cookie (SameSite=Lax), and is not answered in a way that removes it.
    let forged = Browser::at(&tenant).submit_with("/logout", &[], &[]).await;
    assert!(set_cookies(&forged).is_empty());
    assert_eq!(tenant.audit("user.logout").await.len(), 0);
    let old = browser.clone();
    let done = browser.submit("/logout", &[("csrf", &form_token(&asked.text))]).await;
    assert_eq!(done.status, StatusCode::OK);
    assert_page(&done);
    assert!(done.header("clear-site-data").contains("storage"));
    assert!(browser.cookie("session").is_none());
    assert_eq!(old.me().await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(tenant.audit("user.logout").await.len(), 1);
    // Again, and without a session at all: the same page, and no error.
    for mut browser in [old, Browser::at(&tenant)] {
        let again = browser.submit("/logout", &[("csrf", "x")]).await;
        assert_eq!(again.status, StatusCode::OK);
        assert_page(&again);
        assert!(again.text.contains("You are signed out"));
    }
    assert_eq!(tenant.audit("user.logout").await.len(), 1);
}

#[actix_web::test]
async fn the_account_page_lists_and_ends_ones_own_logins_and_nobody_elses() {
    let server = Server::start().await;
    let tenant = scene(&server).await;
    tenant.user("bob", Some(OTHER_PASSWORD)).await;
    let bob = Browser::signed_in(&tenant, "bob", OTHER_PASSWORD).await;
    let bobs = bob.me().await.json()["sid"].as_str().unwrap().to_owned();
    let mut browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let tokens = tenant.log_in("alice", PASSWORD).await;
    let family = claims(people::access_token(&tokens))["sid"].as_str().unwrap().to_owned();
    let page = browser.get("/account").await;
    assert!(page.text.contains(&family) && !page.text.contains(&bobs));
    assert_eq!(page.text.matches("aria-current=\"true\"").count(), 1);
    assert_eq!(page.text.matches("name=\"id\"").count(), 2);
    let csrf = form_token(&page.text);
    // Somebody else's ends for nobody: as little as one that is not there.
    for id in [bobs.as_str(), "nonsense", "", "00000000-0000-0000-0000-000000000000"] {
        let answer = browser.submit("/account/end", &[("id", id), ("csrf", &csrf)]).await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/t/acme/account"), "{id}");
    }
    assert_eq!(bob.me().await.status, StatusCode::OK);
    assert_eq!(tenant.audit("user.end_login").await.len(), 0);
    let ended = browser.submit("/account/end", &[("id", &family), ("csrf", &csrf)]).await;
    assert_eq!(ended.status, StatusCode::SEE_OTHER);
    assert_eq!(refresh(&tenant, refresh_token(&tokens)).await.status, StatusCode::UNAUTHORIZED);
    assert!(!browser.get("/account").await.text.contains(&family));
    assert_eq!(tenant.audit("user.end_login").await[0].target, format!("family:{family}"));
    // One's own present session, too.
    let own = browser.me().await.json()["sid"].as_str().unwrap().to_owned();
    browser.submit("/account/end", &[("id", &own), ("csrf", &csrf)]).await;
    assert_eq!(browser.get("/account").await.status, StatusCode::SEE_OTHER);

    let mut browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let second = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let csrf = browser.token_of("/account").await;
    let everywhere = browser.submit("/account/end-all", &[("csrf", &csrf)]).await;
    assert_eq!(everywhere.status, StatusCode::OK);
    assert_page(&everywhere);
    assert!(browser.cookie("session").is_none());
    assert_eq!(second.me().await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(bob.me().await.status, StatusCode::OK);
}

#[actix_web::test]
async fn the_password_is_changed_from_the_page_by_whoever_knows_it() {
    let server = Server::start().await;
    let tenant = scene(&server).await;
    let mut browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    let tokens = tenant.log_in("alice", PASSWORD).await;
    let csrf = browser.token_of("/account").await;
    let hash = async || {
        let mut database = server.database.superuser().await;
        sqlx::query_scalar::<_, String>("SELECT hash FROM passwords").fetch_one(&mut database).await.unwrap()
    };
    let before = hash().await;
    for (current, new) in
        [(WRONG_PASSWORD, OTHER_PASSWORD), (PASSWORD, "short"), (PASSWORD, PASSWORD), (PASSWORD, "alice-acme-alice")]
    {
        let form = [("csrf", csrf.as_str()), ("current_password", current), ("new_password", new)];
        let answer = browser.submit("/account/password", &form).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{new}: {}", answer.text);
        assert_page(&answer);
        assert!(answer.text.contains("role=\"alert\""));
        for secret in [WRONG_PASSWORD, OTHER_PASSWORD, PASSWORD] {
            assert!(!answer.text.contains(secret), "a password is never shown again");
        }
        assert!(!answer.text.contains('`'), "field names are for programs: {}", answer.text);
    }
    assert_eq!(hash().await, before);
    assert_eq!(browser.me().await.status, StatusCode::OK);
    let old = browser.clone();
    let form = [("csrf", csrf.as_str()), ("current_password", PASSWORD), ("new_password", OTHER_PASSWORD)];
    let answer = browser.submit("/account/password", &form).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_page(&answer);
    assert!(browser.cookie("session").is_none());
    assert_ne!(hash().await, before);
    assert_eq!(old.me().await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refresh(&tenant, refresh_token(&tokens)).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(tenant.audit("user.password_change").await.len(), 1);
    assert_eq!(try_login(&tenant, "alice", PASSWORD, &[]).await.status, StatusCode::UNAUTHORIZED);
    Browser::signed_in(&tenant, "alice", OTHER_PASSWORD).await;
}

#[actix_web::test]
async fn pages_of_no_tenant_are_not_there_and_over_http_nothing_is_taken_where_https_is_required() {
    let options = Options { require_https: true, trusted_proxies: vec!["127.0.0.1/32"], ..Options::default() };
    let server = Server::start_with(options).await;
    let tenant = scene(&server).await;
    let plain = server.anonymous().get(&tenant.path("/login")).await;
    assert_eq!((plain.status, plain.error().as_str()), (StatusCode::FORBIDDEN, "https-required"));
    let body: Value = json!({ "username": "alice", "password": PASSWORD });
    let refused = server.anonymous().post(&tenant.path("/v1/login"), body).await;
    assert_eq!(refused.error(), "https-required");
    let mut database = server.database.superuser().await;
    let counted: i64 = sqlx::query_scalar("SELECT count(*) FROM attempts").fetch_one(&mut database).await.unwrap();
    assert_eq!(counted, 0);
    let secure = server.anonymous().request(Method::GET, &tenant.path("/login")).header("X-Forwarded-Proto", "https");
    let page = Answer::of(secure.send().await.unwrap()).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.header("strict-transport-security").contains("max-age=63072000"));
    for path in ["/t/nowhere/login", "/t/nowhere/logout", "/t/nowhere/account", "/login", "/account"] {
        let request = server.anonymous().request(Method::GET, path).header("X-Forwarded-Proto", "https");
        assert_eq!(Answer::of(request.send().await.unwrap()).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}
