//! People who log in, and the browsers that they sit at.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support: every test file uses its own part of it, and a failure here is a failed test"
)]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;

use claviger::config::ProxyHeader;
use claviger::server;
use claviger_issuer::clock::Clock;
use claviger_issuer::password::Cost;
use claviger_issuer::random::Random;
use claviger_issuer::settings::{Settings, Throttle};
use claviger_issuer::vault::MasterKey;
use claviger_issuer::{Issuer, Open};
use claviger_store::Store;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, Database, Server, Tenant};

pub const PASSWORD: &str = "correct horse battery staple";
pub const OTHER_PASSWORD: &str = "seven green lanterns drift";
/// What no account of these tests has.
pub const WRONG_PASSWORD: &str = "a wrong guess at midnight";

/// A server whose hashes cost so much, on so many threads; in all else as usual.
pub async fn server_that_hashes(password_cost: Cost, password_threads: usize) -> Server {
    let database = Arc::new(Database::create().await);
    let master_key = MasterKey::generate(&Random::from_system());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let clock = Clock::manual(Clock::System.now());
    let settings = Settings {
        public_url: "http://id.test".parse().unwrap(),
        brand: "c".into(),
        default_tenant: "default".into(),
        token_lifetime: 86_400,
        throttle: Throttle::default(),
        confirm_addresses: false,
        password_cost,
        password_threads,
        outbound: Default::default(),
    };
    let store = Store::connect(&database.urls(), 8).await.unwrap();
    let open = Open { store, master_key: master_key.clone(), settings, clock: clock.clone(), random: Random::from_system() };
    let issuer = Arc::new(Issuer::open(open).await.unwrap());
    issuer.make_room().await.unwrap();
    issuer.follow_changes(true);
    let settings = server::Settings {
        trusted_proxies: Vec::new(),
        proxy_header: ProxyHeader::XForwardedFor,
        require_https: false,
        hosts: Default::default(),
        workers: 1,
    };
    let running = server::start(issuer.clone(), &settings, listener).unwrap();
    let stopper = running.stopper();
    actix_web::rt::spawn(running.server);
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    Server { address, issuer, clock, http, stopper, master_key, database }
}

/// `POST /v1/login` with these headers, whatever comes of it.
pub async fn try_login(tenant: &Tenant<'_>, username: &str, password: &str, headers: &[(&str, &str)]) -> Answer {
    try_login_on(tenant.server, &tenant.slug, username, password, headers).await
}

/// The same on another server of the tenant.
pub async fn try_login_on(server: &Server, slug: &str, username: &str, password: &str, headers: &[(&str, &str)]) -> Answer {
    let request = server.anonymous().request(Method::POST, &format!("/t/{slug}/v1/login"));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Answer::of(request.json(&json!({ "username": username, "password": password })).send().await.unwrap()).await
}

/// An access token of a login.
pub fn access_token(tokens: &Value) -> &str {
    tokens["access_token"].as_str().unwrap()
}

/// The refresh token of a login.
pub fn refresh_token(tokens: &Value) -> &str {
    tokens["refresh_token"].as_str().unwrap()
}

/// `POST /v1/token/refresh`.
pub async fn refresh(tenant: &Tenant<'_>, token: &str) -> Answer {
    tenant.server.anonymous().post(&tenant.path("/v1/token/refresh"), json!({ "refresh_token": token })).await
}

/// A cookie as an answer sets it.
#[derive(Debug, Clone)]
pub struct SetCookie {
    pub name: String,
    pub value: String,
    /// What follows, in order of the alphabet.
    pub attributes: Vec<String>,
}

/// All cookies that an answer sets.
pub fn set_cookies(answer: &Answer) -> Vec<SetCookie> {
    let lines = answer.headers.get_all("set-cookie").iter().map(|line| line.to_str().unwrap());
    lines
        .map(|line| {
            let mut parts = line.split("; ").map(str::to_owned);
            let first = parts.next().unwrap();
            let (name, value) = first.split_once('=').unwrap();
            let mut attributes: Vec<String> = parts.collect();
            attributes.sort();
            SetCookie { name: name.to_owned(), value: value.to_owned(), attributes }
        })
        .collect()
}

/// The value of the cookie of this name that an answer sets.
pub fn set_cookie(answer: &Answer, name: &str) -> Option<String> {
    set_cookies(answer).into_iter().find(|cookie| cookie.name == name).map(|cookie| cookie.value)
}

/// The token of a page's forms. A page has one.
pub fn form_token(page: &str) -> String {
    let tokens: Vec<&str> = page.split("name=\"csrf\" value=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(!tokens.is_empty(), "no form: {page}");
    assert!(tokens.iter().all(|token| *token == tokens[0] && token.len() >= 32), "{tokens:?}");
    tokens[0].to_owned()
}

/// A browser at one tenant's pages: it keeps cookies, and says where its forms come from.
#[derive(Clone)]
pub struct Browser<'a> {
    server: &'a Server,
    slug: String,
    pub cookies: BTreeMap<String, String>,
}

impl<'a> Browser<'a> {
    pub fn at(tenant: &Tenant<'a>) -> Self {
        Self { server: tenant.server, slug: tenant.slug.clone(), cookies: BTreeMap::new() }
    }

    /// One that is signed in.
    pub async fn signed_in(tenant: &Tenant<'a>, username: &str, password: &str) -> Self {
        let mut browser = Self::at(tenant);
        let answer = browser.sign_in(username, password).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        browser
    }

    /// The same browser, sent to another server of the tenant.
    pub fn sent_to(&self, server: &'a Server) -> Self {
        Self { server, ..self.clone() }
    }

    pub fn path(&self, path: &str) -> String {
        format!("/t/{}{path}", self.slug)
    }

    /// Its name of a cookie: `session`, `device` or `form`.
    pub fn name(&self, what: &str) -> String {
        format!("__Host-{what}-{}", self.slug)
    }

    pub fn cookie(&self, what: &str) -> Option<&str> {
        self.cookies.get(&self.name(what)).map(String::as_str)
    }

    pub fn plant(&mut self, what: &str, value: &str) {
        self.cookies.insert(self.name(what), value.to_owned());
    }

    pub fn forget(&mut self, what: &str) {
        self.cookies.remove(&self.name(what));
    }

    /// A request with the cookies of this browser, and nothing else.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.server.http.request(method, self.server.url(&self.path(path)));
        if self.cookies.is_empty() {
            return request;
        }
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        request.header("Cookie", cookies.join("; "))
    }

    /// Sends it, and keeps the cookies that come with the answer.
    pub async fn send(&mut self, request: RequestBuilder) -> Answer {
        let answer = Answer::of(request.send().await.unwrap()).await;
        for SetCookie { name, value, attributes } in set_cookies(&answer) {
            if attributes.iter().any(|attribute| attribute == "Max-Age=0") {
                self.cookies.remove(&name);
            } else {
                self.cookies.insert(name, value);
            }
        }
        answer
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        let request = self.request(Method::GET, path);
        self.send(request).await
    }

    /// Sends a form as a page of ours does.
    pub async fn submit(&mut self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.submit_with(path, form, &[("Origin", "http://id.test"), ("Sec-Fetch-Site", "same-origin")]).await
    }

    /// Sends a form with these headers.
    pub async fn submit_with(&mut self, path: &str, form: &[(&str, &str)], headers: &[(&str, &str)]) -> Answer {
        let request = self.request(Method::POST, path).form(form);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.send(request).await
    }

    /// The token of the forms on one of our pages.
    pub async fn token_of(&mut self, path: &str) -> String {
        form_token(&self.get(path).await.text)
    }

    /// Opens the login page and sends its form. Whoever is signed in already is sent past the page: then what an earlier
    /// page bound is used.
    pub async fn sign_in(&mut self, username: &str, password: &str) -> Answer {
        let session = self.cookies.remove(&self.name("session"));
        let csrf = self.token_of("/login").await;
        if let Some(session) = session {
            self.plant("session", &session);
        }
        self.submit("/login", &[("csrf", &csrf), ("username", username), ("password", password)]).await
    }

    /// `GET /v1/me` with the cookies.
    pub async fn me(&self) -> Answer {
        Answer::of(self.request(Method::GET, "/v1/me").send().await.unwrap()).await
    }
}
