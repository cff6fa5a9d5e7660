//! Login through a tenant's own OpenID Connect provider (SEEDS scenario 60; attacks P20, P36; drafts U2, U3, U5).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

#[path = "support/people.rs"]
mod people;
#[path = "support/provider.rs"]
mod provider;
mod support;

use claviger_issuer::audit::Actor;
use claviger_issuer::clock::Clock;
use claviger_issuer::refresh::Refresh;
use claviger_issuer::settings::RequestInfo;
use claviger_issuer::user::UserChange;
use people::{Browser, PASSWORD, WRONG_PASSWORD, access_token, form_token, refresh, refresh_token, set_cookie};
use provider::{Provider, Script};
use reqwest::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use support::{Answer, Client, Key, Options, Server, Tenant, claims, detail};

/// A server, and the one provider that it may ask.
async fn both() -> (Server, Provider) {
    let clock = Clock::manual(Clock::System.now());
    let provider = Provider::start(clock.clone()).await;
    let server = Server::start_with(Options { clock: Some(clock), outbound: provider.outbound(), ..Options::default() }).await;
    (server, provider)
}

struct Scene<'a> {
    tenant: Tenant<'a>,
    admin: Key,
    provider: &'a Provider,
    connection: String,
}

impl<'a> Scene<'a> {
    async fn of(server: &'a Server, provider: &'a Provider) -> Self {
        Self::with(server, provider, json!({ "auto_create": true })).await
    }

    /// A connection named `corp` that is as usual but for this.
    async fn with(server: &'a Server, provider: &'a Provider, more: Value) -> Self {
        let tenant = server.tenant("acme").await;
        let admin = tenant.admin().await;
        let mut scene = Self { tenant, admin, provider, connection: String::new() };
        scene.connection = scene.connect("corp", more).await;
        scene
    }

    fn caller(&self) -> Client<'a> {
        self.tenant.server.with(&self.admin.basic())
    }

    async fn connect(&self, name: &str, more: Value) -> String {
        let mut body = json!({
            "name": name, "title": "Corp & Sons", "secret": "client-canary",
            "oidc": { "issuer": self.provider.issuer, "client_id": "us" }
        });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let made = self.caller().post(&self.tenant.path("/v1/connections"), body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        made.json()["id"].as_str().unwrap().to_owned()
    }

    async fn change(&self, change: Value) {
        let done = self.caller().patch(&self.tenant.path(&format!("/v1/connections/{}", self.connection)), change).await;
        assert_eq!(done.status, StatusCode::OK, "{}", done.text);
    }

    /// Somebody goes to the provider, logs in there, and comes back.
    async fn come_back(&self, browser: &mut Browser<'_>, begin: &str) -> Answer {
        let query = self.go(browser, begin).await;
        browser.get(&format!("/login/corp/callback?{query}")).await
    }

    async fn go(&self, browser: &mut Browser<'_>, begin: &str) -> String {
        let sent = browser.get(begin).await;
        assert_eq!(sent.status, StatusCode::SEE_OTHER, "{}", sent.text);
        self.provider.log_in(sent.header("location"))
    }

    async fn tokens(&self) -> Value {
        let answer = self.come_back(&mut Browser::at(&self.tenant), "/login/corp?into=tokens").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()
    }

    async fn sign_in(&self) -> Browser<'a> {
        let mut browser = Browser::at(&self.tenant);
        let answer = self.come_back(&mut browser, "/login/corp").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        browser
    }

    async fn refused_logins(&self) -> Vec<Value> {
        let entries = self.tenant.audit("user.login").await;
        entries.iter().filter(|entry| entry.outcome == "refused").map(detail).collect()
    }
}

/// With JSON, as a program asks.
async fn as_json(browser: &mut Browser<'_>, path: &str) -> Answer {
    let request = browser.request(Method::GET, path).header("Accept", "application/json");
    browser.send(request).await
}

#[actix_web::test]
async fn somebody_comes_through_the_provider_into_a_session_and_is_the_same_person_next_time() {
    let (server, provider) = both().await;
    let scene = Scene::of(&server, &provider).await;
    let mut browser = Browser::at(&scene.tenant);
    let page = browser.get("/login?return_to=/t/acme/account").await;
    let link = "/t/acme/login/corp?return_to=%2Ft%2Facme%2Faccount";
    assert!(page.text.contains(link) && page.text.contains("Continue with <bdi>Corp &#38; Sons</bdi>"), "{}", page.text);

    let answer = scene.come_back(&mut browser, "/login/corp?return_to=/t/acme/account").await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/t/acme/account"), "{}", answer.text);
    let me = browser.me().await.json();
    assert_eq!(me["username"], "alice");
    let account = browser.get("/account").await;
    assert!(account.text.contains("Linked, as <bdi>alice</bdi>"), "{}", account.text);

    // The client proved itself, and the code was bound to the browser's challenge.
    let form = provider.script.lock().unwrap().forms[0].clone();
    assert!(form["code_verifier"].len() >= 43 && !form.contains_key("client_secret"));
    assert_eq!(form["redirect_uri"], "http://id.test/t/acme/login/corp/callback");
    assert_eq!(provider.script.lock().unwrap().authorizations[0], support::basic("us:client-canary"));

    let entry = &scene.tenant.audit("user.login").await[0];
    assert_eq!(detail(entry), json!({ "how": "upstream", "connection": scene.connection }));
    assert_eq!(
        (entry.outcome.as_str(), entry.target.as_str()),
        ("ok", format!("session:{}", me["sid"].as_str().unwrap()).as_str())
    );

    provider.person(json!({ "sub": "s-alice", "preferred_username": "renamed" }));
    let again = scene.sign_in().await.me().await.json();
    assert_eq!((&again["sub"], &again["username"]), (&me["sub"], &json!("alice")));
    // Metadata and keys were asked for once.
    assert_eq!((provider.asked("/.well-known/openid-configuration"), provider.asked("/jwks")), (1, 1));
}

#[actix_web::test]
async fn scenario_60_code_login_ends_in_tokens_and_a_refresh_goes_through_the_provider() {
    let (server, provider) = both().await;
    let scene = Scene::with(&server, &provider, json!({ "auto_create": true, "mapping": { "default_roles": ["user"] } })).await;
    let tokens = scene.tokens().await;
    assert_eq!(claims(access_token(&tokens))["roles"], json!(["user"]));

    let entry = server.issuer.tenant("acme").await.unwrap().unwrap();
    let through = async |name: &str, token: &str| {
        let token = SecretString::from(token.to_owned());
        let request = RequestInfo::new("r".into(), None);
        let asked =
            Refresh { tenant: Some(&entry), token: &token, client: None, scope: None, resource: None, as_usual: false, request };
        server.issuer.refresh_upstream(name, asked).await
    };
    server.clock.advance(chrono::TimeDelta::seconds(60));
    let next = through("corp", refresh_token(&tokens)).await.unwrap();
    let next = serde_json::to_value(&next).unwrap();
    assert_ne!(refresh_token(&next), refresh_token(&tokens));
    let sent = provider.script.lock().unwrap().forms.last().unwrap().clone();
    assert_eq!(sent["grant_type"], "refresh_token");

    // Another connection's name, and one that there is not.
    scene.connect("other", json!({})).await;
    assert!(through("other", refresh_token(&next)).await.is_err());
    assert!(through("none", refresh_token(&next)).await.is_err());
    // What the provider gave last is used next.
    server.clock.advance(chrono::TimeDelta::seconds(60));
    let next = serde_json::to_value(through("corp", refresh_token(&next)).await.unwrap()).unwrap();

    provider.set(|script| script.refuse_refresh = true);
    server.clock.advance(chrono::TimeDelta::seconds(60));
    assert!(through("corp", refresh_token(&next)).await.is_err());
    // Refused there is ended here, for good.
    provider.set(|script| script.refuse_refresh = false);
    assert_eq!(refresh(&scene.tenant, refresh_token(&next)).await.status, StatusCode::UNAUTHORIZED);
    let me = server.with(&format!("Bearer {}", access_token(&next))).get("/t/acme/v1/me").await;
    assert_eq!(me.status, StatusCode::UNAUTHORIZED);
}

#[actix_web::test]
async fn scenario_60_tampered_states_missing_groups_and_accounts_that_are_not_made_are_told_apart() {
    let (server, provider) = both().await;
    let scene = Scene::with(&server, &provider, json!({ "mapping": { "required_groups": ["staff"] } })).await;
    let mut browser = Browser::at(&scene.tenant);
    let query = scene.go(&mut browser, "/login/corp").await;
    let tampered = format!("{}A", &query[..query.len() - 1]);
    let tampered = if tampered == query { format!("{}B", &query[..query.len() - 1]) } else { tampered };
    for wrong in [tampered.as_str(), "code=code-1", "", "state=x", &format!("{query}&state=x")] {
        let answer = as_json(&mut browser, &format!("/login/corp/callback?{wrong}")).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_state"), "{wrong}");
    }
    let page = browser.get("/login/corp/callback?state=x").await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    assert!(page.text.contains("Begin again") && page.header("content-type").starts_with("text/html"));
    assert_eq!(provider.asked("/token"), 0);

    let answer = as_json(&mut browser, &format!("/login/corp/callback?{query}")).await;
    assert_eq!((answer.status, answer.error().as_str()), (StatusCode::FORBIDDEN, "missing_group"));
    provider.person(json!({ "sub": "s-alice", "preferred_username": "alice", "groups": ["staff"] }));
    let query = scene.go(&mut browser, "/login/corp").await;
    let answer = as_json(&mut browser, &format!("/login/corp/callback?{query}")).await;
    assert_eq!((answer.status, answer.error().as_str()), (StatusCode::FORBIDDEN, "account_creation_disabled"));
    assert!(answer.text.contains("User auto-creation is disabled"));
    let reasons: Vec<_> = scene.refused_logins().await.into_iter().map(|detail| detail["reason"].clone()).collect();
    assert_eq!(reasons, [json!("account_creation_disabled"), json!("missing_group")]);
    // The provider says no, and says nothing.
    let query = scene.go(&mut browser, "/login/corp").await;
    let state = query.split("state=").nth(1).unwrap();
    let answer = as_json(&mut browser, &format!("/login/corp/callback?error=access_denied&state={state}")).await;
    assert_eq!((answer.status, answer.error().as_str()), (StatusCode::UNAUTHORIZED, "upstream_refused"));
    provider.set(|script| script.token_answer = Some((502, json!({ "why": "canary" }))));
    let query = scene.go(&mut browser, "/login/corp").await;
    let answer = as_json(&mut browser, &format!("/login/corp/callback?{query}")).await;
    assert_eq!((answer.status, answer.error().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "upstream_unavailable"));
    assert!(!answer.text.contains("canary") && !answer.text.contains("127.0.0.1"));
    let users: i64 =
        sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut server.database.superuser().await).await.unwrap();
    assert_eq!(users, 0);
}

#[actix_web::test]
async fn p20_a_state_is_good_once_in_its_browser_at_its_connection_and_tenant_for_ten_minutes() {
    let (server, provider) = both().await;
    let scene = Scene::of(&server, &provider).await;
    scene.connect("second", json!({ "auto_create": true })).await;
    let other = server.tenant("other").await;
    let others_admin = other.admin().await;
    let body = json!({ "name": "corp", "oidc": { "issuer": provider.issuer, "client_id": "us" }, "auto_create": true });
    let made = server.with(&others_admin.basic()).post(&other.path("/v1/connections"), body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);

    let mut browser = Browser::at(&scene.tenant);
    let query = scene.go(&mut browser, "/login/corp").await;
    let refused = async |browser: &mut Browser<'_>, path: &str| {
        let answer = as_json(browser, &format!("{path}?{query}")).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_state"), "{path}");
    };
    // Another browser, with a binding of its own and with none.
    let mut stranger = Browser::at(&scene.tenant);
    refused(&mut stranger, "/login/corp/callback").await;
    stranger.get("/login").await;
    refused(&mut stranger, "/login/corp/callback").await;
    // Another connection, to the same provider; and another tenant.
    refused(&mut browser.clone(), "/login/second/callback").await;
    let mut elsewhere = Browser::at(&other);
    elsewhere.plant("form", browser.cookie("form").unwrap());
    refused(&mut elsewhere, "/login/corp/callback").await;

    let first = browser.get(&format!("/login/corp/callback?{query}")).await;
    assert_eq!(first.status, StatusCode::SEE_OTHER, "{}", first.text);
    refused(&mut browser, "/login/corp/callback").await;
    // At once, twice: one of them.
    let query = scene.go(&mut browser, "/login/corp").await;
    let path = format!("/login/corp/callback?{query}");
    let (mut one, mut two) = (browser.clone(), browser.clone());
    let (one, two) = tokio::join!(one.get(&path), two.get(&path));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 400]);
    // Too late.
    let query = scene.go(&mut browser, "/login/corp").await;
    server.clock.advance(chrono::TimeDelta::seconds(600));
    let late = as_json(&mut browser, &format!("/login/corp/callback?{query}")).await;
    assert_eq!(late.error(), "invalid_state");
}

#[actix_web::test]
async fn u2_each_provider_hears_its_own_secret_and_no_other() {
    let (server, provider) = both().await;
    let second = Provider::start(server.clock.clone()).await;
    let mut outbound = provider.outbound();
    outbound.allow.extend(second.outbound().allow);
    let server = Server::start_with(Options { clock: Some(server.clock.clone()), outbound, ..Options::default() }).await;
    let scene = Scene::of(&server, &provider).await;
    let oidc = json!({ "issuer": second.issuer, "client_id": "us" });
    scene.connect("second", json!({ "oidc": oidc, "secret": "another-canary", "auto_create": true })).await;
    second.person(json!({ "sub": "s-bob", "preferred_username": "bob" }));
    scene.sign_in().await;
    let mut browser = Browser::at(&scene.tenant);
    let sent = browser.get("/login/second").await;
    let query = second.log_in(sent.header("location"));
    // One's answer is not taken at the other's address, not even by the browser that began both.
    let at_the_first = as_json(&mut browser.clone(), &format!("/login/corp/callback?{query}")).await;
    assert_eq!(at_the_first.error(), "invalid_state");
    assert_eq!(browser.get(&format!("/login/second/callback?{query}")).await.status, StatusCode::SEE_OTHER);
    let heard = |provider: &Provider| provider.script.lock().unwrap().authorizations.clone();
    assert_eq!(heard(&provider), [support::basic("us:client-canary")]);
    assert_eq!(heard(&second), [support::basic("us:another-canary")]);
}

#[actix_web::test]
async fn u3_each_connection_has_a_redirect_uri_of_its_own_and_comes_back_there_alone() {
    let (server, provider) = both().await;
    let scene = Scene::of(&server, &provider).await;
    scene.connect("second", json!({ "auto_create": true })).await;
    let mut seen = Vec::new();
    for name in ["corp", "second"] {
        let sent = Browser::at(&scene.tenant).get(&format!("/login/{name}")).await;
        let url = url::Url::parse(sent.header("location")).unwrap();
        let uri = url.query_pairs().find(|(key, _)| key == "redirect_uri").unwrap().1.into_owned();
        assert_eq!(uri, format!("http://id.test/t/acme/login/{name}/callback"));
        seen.push(uri);
    }
    assert_ne!(seen[0], seen[1]);
    // A row that says otherwise is not followed, whoever wrote it.
    let mut browser = Browser::at(&scene.tenant);
    let query = scene.go(&mut browser, "/login/corp").await;
    let moved = "UPDATE connection_states SET redirect_uri = 'http://id.test/t/acme/login/second/callback'";
    sqlx::query(moved).execute(&mut server.database.superuser().await).await.unwrap();
    let before = provider.asked("/token");
    assert_eq!(as_json(&mut browser, &format!("/login/corp/callback?{query}")).await.error(), "invalid_state");
    assert_eq!(provider.asked("/token"), before);
}

#[actix_web::test]
async fn u4_what_one_tenant_knows_of_somebody_another_does_not() {
    let (server, provider) = both().await;
    let scene = Scene::of(&server, &provider).await;
    scene.sign_in().await;
    let other = server.tenant("other").await;
    let admin = other.admin().await;
    let body = json!({ "name": "corp", "oidc": { "issuer": provider.issuer, "client_id": "us" } });
    server.with(&admin.basic()).post(&other.path("/v1/connections"), body).await;
    let mut browser = Browser::at(&other);
    let sent = browser.get("/login/corp").await;
    let query = provider.log_in(sent.header("location"));
    let answer = as_json(&mut browser, &format!("/login/corp/callback?{query}")).await;
    assert_eq!((answer.status, answer.error().as_str()), (StatusCode::FORBIDDEN, "account_creation_disabled"));
    // Not even what is public is remembered for both.
    assert_eq!(provider.asked("/.well-known/openid-configuration"), 2);
}

/// One way in which a provider's answer does not hold.
type Wrong = (&'static str, fn(&mut Script));

#[actix_web::test]
async fn p36_an_answer_that_does_not_hold_lets_nobody_in() {
    let (server, provider) = both().await;
    let scene = Scene::of(&server, &provider).await;
    let wrongs: [Wrong; 22] = [
        ("no nonce", |script| script.twist = Some(|_, claims| drop(claims.as_object_mut().unwrap().remove("nonce")))),
        ("another nonce", |script| script.twist = Some(|_, claims| claims["nonce"] = json!("x"))),
        ("another issuer", |script| script.twist = Some(|_, claims| claims["iss"] = json!("https://idp.test"))),
        ("another audience", |script| script.twist = Some(|_, claims| claims["aud"] = json!("them"))),
        ("two audiences", |script| script.twist = Some(|_, claims| claims["aud"] = json!(["us", "them"]))),
        ("another party", |script| script.twist = Some(|_, claims| claims["azp"] = json!("them"))),
        ("expired", |script| script.twist = Some(|_, claims| claims["exp"] = json!(1))),
        ("endless", |script| script.twist = Some(|_, claims| claims["exp"] = json!("never"))),
        ("old", |script| script.twist = Some(|_, claims| claims["iat"] = json!(claims["iat"].as_i64().unwrap() - 3600))),
        ("nobody", |script| script.twist = Some(|_, claims| claims["sub"] = json!(""))),
        ("no algorithm", |script| script.twist = Some(|header, _| header["alg"] = json!("none"))),
        ("none in capitals", |script| script.twist = Some(|header, _| header["alg"] = json!("NONE"))),
        ("a shared secret", |script| script.twist = Some(|header, _| *header = json!({ "alg": "HS256", "kid": "shared" }))),
        ("another kind of key", |script| script.twist = Some(|header, _| header["alg"] = json!("RS256"))),
        ("an unknown key", |script| script.twist = Some(|header, _| header["kid"] = json!("k2"))),
        ("a key for encryption", |script| script.twist = Some(|header, _| header["kid"] = json!("enc"))),
        ("a critical extension", |script| script.twist = Some(|header, _| header["crit"] = json!(["x"]))),
        ("an access token", |script| script.twist = Some(|header, _| header["typ"] = json!("at+jwt"))),
        ("no signature", |script| script.break_token = Some(|token| format!("{}.", token.rsplit_once('.').unwrap().0))),
        ("a damaged signature", |script| script.break_token = Some(|token| format!("{}AAAA", &token[..token.len() - 4]))),
        ("userinfo of another", |script| script.userinfo = Some(json!({ "sub": "s-boss", "groups": ["admin"] }))),
        ("no ID token", |script| script.token_answer = Some((200, json!({ "access_token": "at-1", "token_type": "Bearer" })))),
    ];
    for (what, wrong) in wrongs {
        let mut browser = Browser::at(&scene.tenant);
        let query = scene.go(&mut browser, "/login/corp").await;
        provider.set(wrong);
        let answer = as_json(&mut browser, &format!("/login/corp/callback?{query}")).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::UNAUTHORIZED, "upstream_refused"), "{what}");
        assert!(set_cookie(&answer, &browser.name("session")).is_none());
        provider.set(|script| {
            script.twist = None;
            script.break_token = None;
            script.userinfo = None;
            script.token_answer = None;
        });
    }
    let refused = scene.refused_logins().await;
    assert_eq!(refused.len(), 22);
    assert!(refused.iter().all(|detail| detail["reason"] == "upstream_refused"));
    scene.sign_in().await;
}

#[actix_web::test]
async fn p36_an_answer_of_another_issuer_is_refused_where_the_provider_names_itself() {
    let (server, provider) = both().await;
    provider.set(|script| script.metadata = json!({ "authorization_response_iss_parameter_supported": true }));
    let scene = Scene::of(&server, &provider).await;
    let issuer = provider.issuer.clone();
    for (more, status) in [("", 401), ("&iss=https://evil.test", 401), (&format!("&iss={issuer}") as &str, 303)] {
        let mut browser = Browser::at(&scene.tenant);
        let query = scene.go(&mut browser, "/login/corp").await;
        let answer = browser.get(&format!("/login/corp/callback?{query}{more}")).await;
        assert_eq!(answer.status.as_u16(), status, "{more}: {}", answer.text);
    }
    // Metadata that are another issuer's are of no use at all.
    let clock = server.clock.clone();
    let liar = Provider::start(clock).await;
    liar.set(|script| script.metadata = json!({ "issuer": "https://idp.test" }));
    let server = Server::start_with(Options { outbound: liar.outbound(), ..Options::default() }).await;
    let scene = Scene::of(&server, &liar).await;
    let answer = Browser::at(&scene.tenant).get("/login/corp").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[actix_web::test]
async fn p36_neither_a_name_nor_an_address_links_two_accounts() {
    let (server, provider) = both().await;
    let scene = Scene::of(&server, &provider).await;
    let alice = scene.tenant.user("Alice", Some(PASSWORD)).await;
    let address = UserChange { email: Some(Some("alice@example.com".into())), ..UserChange::default() };
    server.issuer.change_user(scene.tenant.id, &Actor::operator(), alice, address).await.unwrap();

    let answer = scene.come_back(&mut Browser::at(&scene.tenant), "/login/corp").await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(answer.text.contains("link it at your account page"), "{}", answer.text);
    // A name that looks like hers is no other name.
    provider.person(json!({ "sub": "s-2", "preferred_username": "а1ice" }));
    let look = scene.come_back(&mut Browser::at(&scene.tenant), "/login/corp").await;
    assert!(look.status == StatusCode::CONFLICT || look.status == StatusCode::FORBIDDEN, "{}", look.text);
    // Her address makes another account, without it, verified or not.
    for (n, verified) in [json!(true), json!(false)].into_iter().enumerate() {
        provider.person(json!({
            "sub": format!("s-eve-{n}"), "preferred_username": format!("eve{n}"), "email": "alice@example.com", "email_verified": verified
        }));
        let me = scene.sign_in().await.me().await.json();
        assert_eq!(me["username"], format!("eve{n}"));
        assert_ne!(me["sub"], json!(alice));
        let shown = scene.caller().get(&scene.tenant.path(&format!("/v1/users/{}", me["sub"].as_str().unwrap()))).await;
        assert_eq!(shown.json()["email"], Value::Null);
    }
    // Nobody's verified address is kept; an unverified one is not.
    for (sub, verified) in [("s-ok", true), ("s-no", false)] {
        provider.person(
            json!({ "sub": sub, "preferred_username": sub, "email": format!("{sub}@example.com"), "email_verified": verified }),
        );
        let me = scene.sign_in().await.me().await.json();
        let shown = scene.caller().get(&scene.tenant.path(&format!("/v1/users/{}", me["sub"].as_str().unwrap()))).await;
        let expected = if verified { json!("s-ok@example.com") } else { Value::Null };
        assert_eq!(shown.json()["email"], expected);
    }
}

#[actix_web::test]
async fn u5_whoever_links_an_account_proves_the_password_and_is_who_began() {
    let (server, provider) = both().await;
    let scene = Scene::with(&server, &provider, json!({})).await;
    scene.tenant.user("alice", Some(PASSWORD)).await;
    scene.tenant.user("mallory", Some(PASSWORD)).await;
    let begin = async |browser: &mut Browser<'_>, password: &str| {
        let csrf = browser.token_of("/account").await;
        browser.submit("/account/link", &[("csrf", &csrf), ("current_password", password), ("connection", "corp")]).await
    };
    let mut alice = Browser::signed_in(&scene.tenant, "alice", PASSWORD).await;
    // Without proof, nothing.
    let wrong = begin(&mut alice, WRONG_PASSWORD).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(wrong.text.contains("role=\"alert\"") && !wrong.text.contains("state="));
    let forged = alice.submit("/account/link", &[("current_password", PASSWORD), ("connection", "corp")]).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);

    let way = async |browser: &mut Browser<'_>| {
        let page = begin(browser, PASSWORD).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        let href = page.text.split("<p><a href=\"").nth(1).unwrap().split('"').next().unwrap().replace("&#38;", "&");
        provider.log_in(&href)
    };
    // Mallory begins, and gets Alice to finish: in her browser, in his with her session, after he signed out.
    let mut mallory = Browser::signed_in(&scene.tenant, "mallory", PASSWORD).await;
    let query = way(&mut mallory).await;
    let path = format!("/login/corp/callback?{query}");
    assert_eq!(as_json(&mut alice.clone(), &path).await.error(), "invalid_state");
    let mut mixed = mallory.clone();
    mixed.plant("session", alice.cookie("session").unwrap());
    assert_eq!(as_json(&mut mixed, &path).await.error(), "not_who_began");
    let query = way(&mut mallory).await;
    mallory.forget("session");
    assert_eq!(as_json(&mut mallory, &format!("/login/corp/callback?{query}")).await.error(), "not_who_began");
    let none: i64 = sqlx::query_scalar("SELECT count(*) FROM connection_links")
        .fetch_one(&mut server.database.superuser().await)
        .await
        .unwrap();
    assert_eq!(none, 0);

    // Alice herself: then the provider is a way in.
    let query = way(&mut alice).await;
    let done = alice.get(&format!("/login/corp/callback?{query}")).await;
    assert_eq!((done.status, done.header("location")), (StatusCode::SEE_OTHER, "/t/acme/account"), "{}", done.text);
    assert_eq!(as_json(&mut alice, &format!("/login/corp/callback?{query}")).await.error(), "invalid_state");
    let through = scene.sign_in().await;
    assert_eq!(through.me().await.json()["username"], "alice");
    let mine = Answer::of(alice.request(Method::GET, "/v1/me/links").send().await.unwrap()).await.json();
    assert_eq!((&mine["items"][0]["subject"], &mine["items"][0]["connection_name"]), (&json!("s-alice"), &json!("corp")));
    // The same identity is nobody else's.
    let mut mallory = Browser::signed_in(&scene.tenant, "mallory", PASSWORD).await;
    let query = way(&mut mallory).await;
    assert_eq!(as_json(&mut mallory, &format!("/login/corp/callback?{query}")).await.error(), "linked_otherwise");

    // Unlinked, with the password: what came from there ends, the rest stays.
    let csrf = alice.token_of("/account").await;
    let form = [("csrf", csrf.as_str()), ("connection", "corp"), ("current_password", WRONG_PASSWORD)];
    assert_eq!(alice.submit("/account/unlink", &form).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(through.me().await.status, StatusCode::OK);
    let form = [("csrf", csrf.as_str()), ("connection", "corp"), ("current_password", PASSWORD)];
    assert_eq!(alice.submit("/account/unlink", &form).await.status, StatusCode::SEE_OTHER);
    assert_eq!(through.me().await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(alice.me().await.status, StatusCode::OK);
    let gone = scene.come_back(&mut Browser::at(&scene.tenant), "/login/corp").await;
    assert_eq!(gone.status, StatusCode::FORBIDDEN);
    for (action, count) in [("user.link", 1), ("user.unlink", 1)] {
        assert_eq!(scene.tenant.audit(action).await.len(), count, "{action}");
    }
}

#[actix_web::test]
async fn roles_follow_the_provider_where_the_map_names_them_and_nowhere_else() {
    let (server, provider) = both().await;
    let mapping = json!({
        "roles": ["realm_access.roles", "resource_access.*.roles"], "default_roles": ["user"],
        "role_map": { "hpc-admin": ["admin", "api"], "reader": ["reader"] },
        "attributes": [{ "attribute": "clearance", "claim": "level", "pattern": "level-(\\d)", "value": "L$1" }]
    });
    let scene = Scene::with(&server, &provider, json!({ "auto_create": true, "mapping": mapping })).await;
    provider.person(json!({
        "sub": "s-alice", "preferred_username": "alice", "level": "level-3", "groups": ["tenant-admin"],
        "realm_access": { "roles": ["hpc-admin", "admin", "tenant-admin"] }, "resource_access": { "x": { "roles": ["reader"] } }
    }));
    let me = scene.sign_in().await.me().await.json();
    let path = scene.tenant.path(&format!("/v1/users/{}", me["sub"].as_str().unwrap()));
    let roles = async || scene.caller().get(&path).await.json()["roles"].clone();
    assert_eq!(roles().await, json!(["admin", "api", "reader", "user"]));
    let links = scene.caller().get(&format!("{path}/links")).await.json();
    assert_eq!(links["items"][0]["profile"]["attributes"], json!({ "clearance": "L3" }));

    // What an admin gives by hand stays; what the map gave goes with the group.
    let done = scene.caller().patch(&path, json!({ "roles": ["admin", "api", "own", "reader", "user"] })).await;
    assert_eq!(done.status, StatusCode::OK);
    provider.person(json!({ "sub": "s-alice", "preferred_username": "alice" }));
    scene.sign_in().await;
    assert_eq!(roles().await, json!(["own", "user"]));
    let updated = scene.tenant.audit("user.update").await;
    assert_eq!(updated[0].actor, format!("connection:{}", scene.connection));

    scene.change(json!({ "sync": false })).await;
    provider.person(json!({ "sub": "s-alice", "preferred_username": "alice", "realm_access": { "roles": ["reader"] } }));
    scene.sign_in().await;
    assert_eq!(roles().await, json!(["own", "user"]));
}

#[actix_web::test]
async fn attributes_that_a_rule_names_become_the_persons_and_follow_the_provider() {
    let (server, provider) = both().await;
    let mapping = json!({ "attributes": [
        { "attribute": "clearance", "claim": "level", "pattern": "level-(\\d)", "value": "L$1" },
        { "attribute": "teams", "claim": "groups" }
    ] });
    let scene = Scene::with(&server, &provider, json!({ "auto_create": true, "mapping": mapping })).await;
    let person = |more: Value| {
        let mut claims = json!({ "sub": "s-alice", "preferred_username": "alice" });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        provider.person(claims);
    };
    person(json!({ "level": "level-3", "groups": ["red-canary", "blue-canary"] }));
    let me = scene.sign_in().await.me().await.json();
    let path = scene.tenant.path(&format!("/v1/users/{}", me["sub"].as_str().unwrap()));
    let attributes = async || scene.caller().get(&path).await.json()["attributes"].clone();
    assert_eq!(attributes().await, json!({ "clearance": "L3", "teams": ["red-canary", "blue-canary"] }));

    // An admin's own stay; what an admin does to those of the rules lasts until the next login.
    let by_hand = json!({ "attributes": { "room": "4.2", "clearance": "L9" } });
    assert_eq!(scene.caller().patch(&path, by_hand).await.status, StatusCode::OK);
    person(json!({ "level": "level-4" }));
    scene.sign_in().await;
    assert_eq!(attributes().await, json!({ "clearance": "L4", "room": "4.2" }), "teams are said no more");
    scene.sign_in().await;

    let made = scene.tenant.audit("user.create").await.into_iter().find(|entry| entry.actor.starts_with("connection:"));
    assert_eq!(detail(&made.unwrap())["attributes"], json!(["clearance", "teams"]));
    let updated = scene.tenant.audit("user.update").await;
    let updated: Vec<_> = updated.iter().filter(|entry| entry.actor.starts_with("connection:")).collect();
    assert_eq!(updated.len(), 1, "a login that changes nothing says nothing");
    assert_eq!(detail(updated[0])["attributes"], json!(["clearance", "teams"]));
    assert!(!updated[0].detail.contains("canary") && !updated[0].detail.contains("L4"), "names alone");

    scene.change(json!({ "sync": false })).await;
    person(json!({ "level": "level-1" }));
    scene.sign_in().await;
    assert_eq!(attributes().await, json!({ "clearance": "L4", "room": "4.2" }));
    let named = json!({ "mapping": { "username": ["sub"], "attributes": [{ "attribute": "no name", "claim": "level" }] } });
    let path = scene.tenant.path(&format!("/v1/connections/{}", scene.connection));
    assert_eq!(scene.caller().patch(&path, named).await.wrong_field(), "attributes");
}

#[actix_web::test]
async fn nobody_makes_a_connection_that_gives_more_than_they_hold() {
    let (server, provider) = both().await;
    let scene = Scene::of(&server, &provider).await;
    let clerk = scene.tenant.app_key("clerk", &["connections:write", "connections:read"]).await;
    let clerk = server.with(&clerk.basic());
    let path = scene.tenant.path("/v1/connections");
    let oidc = json!({ "issuer": provider.issuer, "client_id": "us" });
    for mapping in [json!({ "role_map": { "staff": ["tenant-admin"] } }), json!({ "default_roles": ["tenant-admin"] })] {
        let body = json!({ "name": "gift", "oidc": oidc, "mapping": mapping });
        let answer = clerk.post(&path, body.clone()).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::FORBIDDEN, "insufficient_scope"));
        let one = format!("{path}/{}", scene.connection);
        assert_eq!(clerk.patch(&one, json!({ "mapping": body["mapping"] })).await.status, StatusCode::FORBIDDEN);
    }
    // One that gives much, made by who may, is not for the clerk to turn: neither its claims, its secret nor its switch.
    let all = json!({ "name": "gift", "oidc": oidc, "mapping": { "role_map": { "staff": ["tenant-admin"] } } });
    let made = scene.caller().post(&path, all).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let one = format!("{path}/{}", made.json()["id"].as_str().unwrap());
    for change in [
        json!({ "mapping": { "groups": ["nickname"], "role_map": { "staff": ["tenant-admin"] } } }),
        json!({ "oidc": { "issuer": provider.issuer, "client_id": "them" } }),
        json!({ "secret": "mine" }),
        json!({ "auto_create": true }),
        json!({ "enabled": true }),
    ] {
        assert_eq!(clerk.patch(&one, change.clone()).await.status, StatusCode::FORBIDDEN, "{change}");
    }
    assert_eq!(clerk.patch(&one, json!({ "enabled": false })).await.status, StatusCode::OK);
    // Nor to link somebody above to an identity of the clerk's own.
    let boss =
        scene.caller().post(&scene.tenant.path("/v1/users"), json!({ "username": "boss", "roles": ["tenant-admin"] })).await;
    let hand = scene.tenant.app_key("hand", &["users:write"]).await;
    let link = json!({ "connection": scene.connection, "subject": "s-clerk" });
    let links = scene.tenant.path(&format!("/v1/users/{}/links", boss.json()["id"].as_str().unwrap()));
    assert_eq!(server.with(&hand.basic()).post(&links, link.clone()).await.status, StatusCode::FORBIDDEN);
    assert_eq!(scene.caller().post(&links, link).await.status, StatusCode::NO_CONTENT);
}

#[actix_web::test]
async fn a_connection_that_is_disabled_or_removed_ends_what_came_through_it() {
    let (server, provider) = both().await;
    let scene = Scene::of(&server, &provider).await;
    scene.tenant.user("bob", Some(PASSWORD)).await;
    let (bob, bobs) = (Browser::signed_in(&scene.tenant, "bob", PASSWORD).await, scene.tenant.log_in("bob", PASSWORD).await);
    for removed in [false, true] {
        let (browser, tokens) = (scene.sign_in().await, scene.tokens().await);
        assert_eq!(browser.me().await.status, StatusCode::OK);
        if removed {
            let path = scene.tenant.path(&format!("/v1/connections/{}", scene.connection));
            assert_eq!(scene.caller().delete(&path).await.status, StatusCode::NO_CONTENT);
        } else {
            scene.change(json!({ "enabled": false })).await;
        }
        assert_eq!(browser.me().await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(refresh(&scene.tenant, refresh_token(&tokens)).await.status, StatusCode::UNAUTHORIZED);
        let me = server.with(&format!("Bearer {}", access_token(&tokens))).get("/t/acme/v1/me").await;
        assert_eq!(me.status, StatusCode::UNAUTHORIZED);
        let mut fresh = Browser::at(&scene.tenant);
        assert_eq!(as_json(&mut fresh, "/login/corp").await.status, StatusCode::NOT_FOUND);
        assert!(!fresh.get("/login").await.text.contains("Continue with"));
        if !removed {
            scene.change(json!({ "enabled": true })).await;
            // What has ended does not come back.
            assert_eq!(browser.me().await.status, StatusCode::UNAUTHORIZED);
        }
    }
    assert_eq!(bob.me().await.status, StatusCode::OK);
    assert_eq!(refresh(&scene.tenant, refresh_token(&bobs)).await.status, StatusCode::OK);
}

#[actix_web::test]
async fn p12_a_person_who_may_not_act_does_not_come_in_through_a_connection() {
    let (server, provider) = both().await;
    let scene = Scene::of(&server, &provider).await;
    let browser = scene.sign_in().await;
    let alice = browser.me().await.json()["sub"].as_str().unwrap().to_owned();
    let path = scene.tenant.path(&format!("/v1/users/{alice}"));
    let mut waiting = Browser::at(&scene.tenant);
    let query = scene.go(&mut waiting, "/login/corp").await;
    assert_eq!(scene.caller().patch(&path, json!({ "disabled": true })).await.status, StatusCode::OK);
    let answer = as_json(&mut waiting, &format!("/login/corp/callback?{query}")).await;
    assert_eq!((answer.status, answer.error().as_str()), (StatusCode::FORBIDDEN, "account_disabled"));
    // Deleted, the link is gone; the name stays taken.
    assert_eq!(scene.caller().delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(scene.come_back(&mut Browser::at(&scene.tenant), "/login/corp").await.status, StatusCode::CONFLICT);
}

#[actix_web::test]
async fn a_login_is_asked_about_again_when_its_time_is_over() {
    let (server, provider) = both().await;
    let scene = Scene::with(&server, &provider, json!({
        "auto_create": true, "recheck_after": 600, "mapping": { "required_groups": ["staff"], "role_map": { "staff": ["staff"] } }
    }))
    .await;
    provider.person(json!({ "sub": "s-alice", "preferred_username": "alice", "groups": ["staff"] }));
    let asked = || provider.asked("/token");
    let next = async |tokens: &Value| {
        let answer = refresh(&scene.tenant, refresh_token(tokens)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()
    };
    let mut tokens = scene.tokens().await;
    tokens = next(&tokens).await;
    assert_eq!(asked(), 1);
    // What is no newest token of the login makes nobody ask.
    server.clock.advance(chrono::TimeDelta::seconds(601));
    let forged = format!("{}x", refresh_token(&tokens));
    refresh(&scene.tenant, &forged).await;
    assert_eq!(asked(), 1);
    // Many at once: asked once, and the one refresh token of the provider's is used once.
    let (one, two) = tokio::join!(refresh(&scene.tenant, refresh_token(&tokens)), refresh(&scene.tenant, refresh_token(&tokens)));
    assert_eq!((one.status, two.status), (StatusCode::OK, StatusCode::OK), "{} {}", one.text, two.text);
    assert_eq!((one.text.clone(), asked()), (two.text, 2));
    tokens = one.json();

    // Away: unknown, so asked again, and nothing is lost.
    server.clock.advance(chrono::TimeDelta::seconds(601));
    provider.set(|script| script.token_answer = Some((500, json!({}))));
    assert_eq!(refresh(&scene.tenant, refresh_token(&tokens)).await.status, StatusCode::SERVICE_UNAVAILABLE);
    provider.set(|script| script.token_answer = None);
    tokens = next(&tokens).await;

    // No longer in the group: the login ends.
    server.clock.advance(chrono::TimeDelta::seconds(601));
    provider.person(json!({ "sub": "s-alice", "preferred_username": "alice", "groups": [] }));
    let answer = refresh(&scene.tenant, refresh_token(&tokens)).await;
    assert_eq!((answer.status, answer.error().as_str()), (StatusCode::UNAUTHORIZED, "invalid_grant"));
    let entry = &scene.tenant.audit("token.refresh").await[0];
    assert_eq!((entry.outcome.as_str(), detail(entry)), ("refused", json!({ "reason": "missing_group" })));
    // Somebody else's ID token at a refresh ends it too.
    provider.person(json!({ "sub": "s-alice", "preferred_username": "alice", "groups": ["staff"] }));
    let tokens = scene.tokens().await;
    server.clock.advance(chrono::TimeDelta::seconds(601));
    provider.person(json!({ "sub": "s-boss", "preferred_username": "boss", "groups": ["staff"] }));
    assert_eq!(refresh(&scene.tenant, refresh_token(&tokens)).await.status, StatusCode::UNAUTHORIZED);
}

#[actix_web::test]
async fn a_refresh_token_of_the_providers_is_kept_though_what_comes_after_it_cannot_be_read() {
    let (server, provider) = both().await;
    let scene = Scene::with(&server, &provider, json!({ "auto_create": true, "recheck_after": 0 })).await;
    let tokens = scene.tokens().await;
    // Userinfo breaks after the token endpoint has answered: nobody knows, and nothing is lost.
    provider.set(|script| script.userinfo_fails = true);
    let unknown = refresh(&scene.tenant, refresh_token(&tokens)).await;
    assert_eq!(unknown.status, StatusCode::SERVICE_UNAVAILABLE, "{}", unknown.text);
    provider.set(|script| script.userinfo_fails = false);
    let again = refresh(&scene.tenant, refresh_token(&tokens)).await;
    assert_eq!(again.status, StatusCode::OK, "{}", again.text);
}

/// The form with which a service asks for the provider's token.
fn on_behalf_of(token: &str) -> Vec<(&'static str, String)> {
    vec![
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange".to_owned()),
        ("subject_token", token.to_owned()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token".to_owned()),
        ("requested_token_type", "urn:claviger:params:oauth:token-type:upstream-access-token".to_owned()),
        ("reason", "mail of the case".to_owned()),
    ]
}

#[actix_web::test]
async fn on_behalf_of_a_person_a_service_gets_a_token_of_the_provider_and_nobody_else_does() {
    let (server, provider) = both().await;
    let scene = Scene::with(&server, &provider, json!({ "auto_create": true, "hand_out_tokens": true })).await;
    let tokens = scene.tokens().await;
    let service = scene.tenant.app_key("mailer", &["tokens:upstream"]).await;
    let ask = async |by: &Key, form: &[(&str, String)]| {
        let request = server.with(&by.basic()).request(Method::POST, &scene.tenant.path("/v1/token"));
        support::wire::send(request.form(form)).await
    };
    let form = on_behalf_of(access_token(&tokens));

    let (one, two) = (ask(&service, &form).await, ask(&service, &form).await);
    for answer in [&one, &two] {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let told = answer.json();
        assert!(told["access_token"].as_str().unwrap().starts_with("at-"), "{told}");
        assert_eq!((&told["token_type"], &told["expires_in"]), (&json!("Bearer"), &json!(300)));
        assert_eq!(told["scope"], "openid mail.read");
        assert_eq!(told["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    assert_ne!(one.json()["access_token"], two.json()["access_token"], "none is kept");
    // Many at once do not use a refresh token of the provider's twice: that would end the login there.
    let (one, two) = tokio::join!(ask(&service, &form), ask(&service, &form));
    assert_eq!((one.status, two.status), (StatusCode::OK, StatusCode::OK), "{} {}", one.text, two.text);
    let entries = scene.tenant.audit("token.upstream").await;
    let sub = claims(access_token(&tokens))["sub"].as_str().unwrap().to_owned();
    assert_eq!(entries.len(), 4);
    assert_eq!((&entries[0].actor, &entries[0].subject), (&format!("key:{}", service.id), &format!("user:{sub}")));
    assert_eq!(detail(&entries[0]), json!({ "why": "mail of the case", "scope": "openid mail.read" }));
    assert!(!entries.iter().any(|entry| format!("{entry:?}").contains("-canary")));

    // Not without the scope, and not for what is no such login.
    let plain = scene.tenant.app_key("plain", &["tokens:exchange"]).await;
    let refused = async |by: &Key, form: &[(&str, String)], status: u16, error: &str| {
        let answer = ask(by, form).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (status, &json!(error)), "{}", answer.text);
        assert!(!answer.text.contains("canary"), "{}", answer.text);
    };
    refused(&plain, &form, 403, "insufficient_scope").await;
    scene.tenant.user("grace", Some(PASSWORD)).await;
    let own = scene.tenant.log_in("grace", PASSWORD).await;
    refused(&service, &on_behalf_of(access_token(&own)), 400, "invalid_request").await;
    let of_key = server.with(&service.pair()).token().await;
    refused(&service, &on_behalf_of(&of_key), 400, "invalid_request").await;
    refused(&service, &on_behalf_of("abcd.efgh"), 400, "invalid_request").await;
    for (name, value) in [("scope", "mail.read"), ("resource", "https://api.example.com"), ("actor_token", access_token(&own))] {
        let mut more = form.clone();
        more.push((name, value.to_owned()));
        if name == "actor_token" {
            more.push(("actor_token_type", "urn:ietf:params:oauth:token-type:access_token".to_owned()));
        }
        refused(&service, &more, 400, "invalid_request").await;
    }
    // Of another tenant, neither the token nor the key is known.
    let foreign = server.tenant("other").await.app_key("mailer", &["tokens:upstream"]).await;
    refused(&foreign, &form, 401, "invalid_client").await;
    // The admin takes it back.
    scene.change(json!({ "hand_out_tokens": false })).await;
    refused(&service, &form, 400, "invalid_request").await;
    scene.change(json!({ "hand_out_tokens": true })).await;

    // Away, nothing is lost; refused, the login has ended.
    provider.set(|script| script.token_answer = Some((500, json!({}))));
    assert_eq!(ask(&service, &form).await.status, StatusCode::SERVICE_UNAVAILABLE);
    provider.set(|script| script.token_answer = None);
    assert_eq!(ask(&service, &form).await.status, StatusCode::OK);
    provider.set(|script| script.refuse_refresh = true);
    refused(&service, &form, 400, "invalid_grant").await;
    refused(&service, &form, 400, "invalid_request").await;
    assert_eq!(refresh(&scene.tenant, refresh_token(&tokens)).await.status, StatusCode::UNAUTHORIZED);
}

#[actix_web::test]
async fn p39_what_a_connection_keeps_secret_is_sealed_and_never_told() {
    let (server, provider) = both().await;
    let scene = Scene::of(&server, &provider).await;
    let tokens = scene.tokens().await;
    let shown = scene.caller().get(&scene.tenant.path(&format!("/v1/connections/{}", scene.connection))).await;
    assert_eq!(shown.json()["has_secret"], true);
    assert_eq!(shown.json()["redirect_uri"], "http://id.test/t/acme/login/corp/callback");
    let trail = scene.caller().get(&scene.tenant.path("/v1/audit?limit=200")).await.text;
    let mut database = server.database.superuser().await;
    let kept: String = sqlx::query_scalar(
        "SELECT concat((SELECT string_agg(c::text, ' ') FROM connections c), (SELECT string_agg(s::text, ' ') FROM connection_states s),
                       (SELECT string_agg(l::text, ' ') FROM connection_logins l), (SELECT string_agg(encode(sealed_refresh, 'escape'), ' ') FROM connection_logins))",
    )
    .fetch_one(&mut database)
    .await
    .unwrap();
    for canary in ["client-canary", "-canary", "636c69656e742d63616e617279"] {
        for text in [&shown.text, &trail, &kept, &tokens.to_string()] {
            assert!(!text.contains(canary), "{canary}: {text}");
        }
    }
    assert!(form_token(&Browser::at(&scene.tenant).get("/login").await.text).len() > 30);
}

#[actix_web::test]
async fn what_cannot_be_used_is_refused_field_by_field() {
    let (server, provider) = both().await;
    let scene = Scene::of(&server, &provider).await;
    let path = scene.tenant.path("/v1/connections");
    let good = || json!({ "issuer": provider.issuer, "client_id": "us" });
    for (field, body) in [
        ("name", json!({ "name": "No Good", "oidc": good() })),
        ("oidc", json!({ "name": "x" })),
        ("oidc", json!({ "name": "x", "oidc": good(), "ldap": { "url": "ldaps://x.test", "user_dn": "uid={username}" } })),
        ("issuer", json!({ "name": "x", "oidc": { "issuer": "nonsense", "client_id": "us" } })),
        ("issuer", json!({ "name": "x", "oidc": { "issuer": "http://idp.test", "client_id": "us" } })),
        ("issuer", json!({ "name": "x", "oidc": { "issuer": "https://127.0.0.1", "client_id": "us" } })),
        ("issuer", json!({ "name": "x", "oidc": { "issuer": "https://u:p@idp.test", "client_id": "us" } })),
        ("issuer", json!({ "name": "x", "oidc": { "issuer": "https://idp.test/?x=1", "client_id": "us" } })),
        ("scopes", json!({ "name": "x", "oidc": { "issuer": provider.issuer, "client_id": "us", "scopes": ["a b"] } })),
        ("username", json!({ "name": "x", "oidc": good(), "mapping": { "username": [] } })),
        ("username_pattern", json!({ "name": "x", "oidc": good(), "mapping": { "username_pattern": "(" } })),
        ("username_pattern", json!({ "name": "x", "oidc": good(), "mapping": { "username_pattern": "a)|(b" } })),
        ("username_format", json!({ "name": "x", "oidc": good(), "mapping": { "username_format": "$1" } })),
        ("role_map", json!({ "name": "x", "oidc": good(), "mapping": { "role_map": { "a": ["no role"] } } })),
        ("recheck_after", json!({ "name": "x", "oidc": good(), "recheck_after": -1 })),
        ("user_dn", json!({ "name": "x", "ldap": { "url": "ldaps://ldap.test", "user_dn": "uid=alice" } })),
        ("url", json!({ "name": "x", "ldap": { "url": "ldap://ldap.test", "user_dn": "uid={username}" } })),
        (
            "starttls",
            json!({ "name": "x", "ldap": { "url": "ldaps://ldap.test", "starttls": true, "user_dn": "uid={username}" } }),
        ),
        (
            "group_base",
            json!({ "name": "x", "ldap": { "url": "ldaps://ldap.test", "user_dn": "uid={username}", "group_base": "x" } }),
        ),
    ] {
        assert_eq!(scene.caller().post(&path, body.clone()).await.wrong_field(), field, "{body}");
    }
    let one = format!("{path}/{}", scene.connection);
    let moved = json!({ "oidc": { "issuer": "https://idp.test", "client_id": "us" } });
    assert_eq!(scene.caller().patch(&one, moved).await.wrong_field(), "issuer");
    let taken = json!({ "name": "corp", "oidc": good() });
    assert_eq!(scene.caller().post(&path, taken).await.status, StatusCode::CONFLICT);
    let twins = json!({ "connection": support::operations::ABSENT_UUID, "subject": "x" });
    let alice = scene.tenant.user("alice", None).await;
    let links = scene.tenant.path(&format!("/v1/users/{alice}/links"));
    assert_eq!(scene.caller().post(&links, twins).await.wrong_field(), "connection");
}
