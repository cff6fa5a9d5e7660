//! Services that verify offline, beside several servers on one database: what is revoked at one server is refused everywhere
//! within a second, whatever breaks on the way is caught up with, and nothing is missed (SECURITY T24, T25, D5).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a failure here is a failed test, and measured delays are shown with --nocapture"
)]

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::web::{self, Data};
use actix_web::{App, HttpServer};
use claviger_issuer::audit::Actor;
use claviger_issuer::clock::Clock;
use claviger_verifier::actix::{RequireScope, VerifiedToken};
use claviger_verifier::{Builder, CutOff, ErrorStyle, Refused, Verifier};
use futures_util::future::join_all;
use serde_json::json;
use support::{Answer, Key, Options, Server, Tenant};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const PASSWORD: &str = "a long enough passphrase";

/// What stands before the servers: passes connections on in turn, and can be cut.
struct Balancer {
    address: SocketAddr,
    ways: Arc<Mutex<Ways>>,
}

#[derive(Default)]
struct Ways {
    servers: Vec<SocketAddr>,
    next: usize,
    cut: bool,
    open: Vec<JoinHandle<()>>,
}

impl Balancer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let balancer = Self { address: listener.local_addr().unwrap(), ways: Arc::default() };
        let ways = balancer.ways.clone();
        actix_web::rt::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut ways = ways.lock().unwrap();
                if ways.cut || ways.servers.is_empty() {
                    continue;
                }
                ways.next += 1;
                let server = ways.servers[ways.next % ways.servers.len()];
                let pass = actix_web::rt::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(server).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
                ways.open.retain(|one| !one.is_finished());
                ways.open.push(pass);
            }
        });
        balancer
    }

    fn options(&self, notifications: bool) -> Options {
        let public_url = Some(format!("http://{}", self.address));
        Options { public_url, notifications, clock: Some(Clock::System), ..Options::default() }
    }

    fn before(&self, servers: &[&Server]) {
        self.ways.lock().unwrap().servers = servers.iter().map(|server| server.address).collect();
    }

    /// Ends every connection, in the middle of whatever it carries, and takes no other.
    fn cut(&self) {
        let mut ways = self.ways.lock().unwrap();
        ways.cut = true;
        ways.open.drain(..).for_each(|one| one.abort());
    }

    fn mend(&self) {
        self.ways.lock().unwrap().cut = false;
    }

    fn issuer(&self, tenant: &Tenant<'_>) -> String {
        format!("http://{}{}", self.address, tenant.path(""))
    }

    fn verifier(&self, tenant: &Tenant<'_>) -> Builder {
        Verifier::builder(self.issuer(tenant)).audience(self.issuer(tenant)).http_client(http())
    }
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn eventually(longest: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < longest, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn with_token(tenant: &Tenant<'_>, name: &str) -> (Key, String) {
    let key = tenant.app_key(name, &["events:read"]).await;
    let token = tenant.server.with(&key.pair()).token().await;
    (key, token)
}

async fn revoke(server: &Server, tenant: &Tenant<'_>, key: &Key) {
    server.issuer.revoke_key(tenant.id, &Actor::operator(), &key.key_id()).await.unwrap();
}

#[actix_web::test]
async fn t24_what_one_of_three_servers_revokes_two_hundred_verifiers_refuse_within_a_second() {
    let balancer = Balancer::start().await;
    let a = Server::start_with(balancer.options(true)).await;
    let (b, c) = (a.replica(balancer.options(true)).await, a.replica(balancer.options(true)).await);
    balancer.before(&[&a, &b, &c]);
    let acme = a.tenant("acme").await;
    let (key, token) = with_token(&acme, "one").await;
    let (_, other) = with_token(&acme, "two").await;
    // One client for all: what is fetched once is fetched over few connections, each stream has its own.
    let http = http();
    let closed = CutOff::FailClosed { after: Duration::from_secs(60) };
    let verifiers: Vec<Verifier> =
        (0..200).map(|_| balancer.verifier(&acme).http_client(http.clone()).when_cut_off(closed).build().unwrap()).collect();
    tokio::time::timeout(Duration::from_secs(30), join_all(verifiers.iter().map(Verifier::ready))).await.unwrap();
    for verifier in &verifiers {
        assert!(verifier.verify(&token).await.is_ok());
    }
    revoke(&b, &acme, &key).await;
    let revoked = Instant::now();
    let heard = |verifier: &Verifier| verifier.status().revoked > 0;
    eventually(Duration::from_secs(1), "a second is over", async || verifiers.iter().all(heard)).await;
    println!("200 verifiers heard of a revocation within {:?}", revoked.elapsed());
    for verifier in &verifiers {
        assert_eq!(verifier.verify(&token).await, Err(Refused::Revoked));
        assert!(verifier.verify(&other).await.is_ok());
    }
}

#[actix_web::test]
async fn t25_who_was_cut_off_misses_nothing() {
    let balancer = Balancer::start().await;
    let a = Server::start_with(balancer.options(true)).await;
    let b = a.replica(balancer.options(true)).await;
    balancer.before(&[&a, &b]);
    let acme = a.tenant("acme").await;
    acme.user("ann", Some(PASSWORD)).await;
    let stream = balancer.verifier(&acme).build().unwrap();
    let polling = balancer.verifier(&acme).long_poll().build().unwrap();
    stream.ready().await;
    polling.ready().await;
    for round in 0..4 {
        let login = acme.log_in("ann", PASSWORD).await;
        let access = login["access_token"].as_str().unwrap().to_owned();
        let (key, token) = with_token(&acme, &format!("key {round}")).await;
        for verifier in [&stream, &polling] {
            assert!(verifier.verify(&token).await.is_ok());
        }
        balancer.cut();
        revoke(&a, &acme, &key).await;
        let logout = a.with(&format!("Bearer {access}")).post_empty(&acme.path("/v1/logout")).await;
        assert!(logout.status.is_success(), "{}", logout.text);
        tokio::time::sleep(Duration::from_millis(200 * round)).await;
        for verifier in [&stream, &polling] {
            assert!(verifier.verify(&token).await.is_ok(), "nobody could tell them");
        }
        balancer.mend();
        for verifier in [&stream, &polling] {
            for token in [&token, &access] {
                eventually(Duration::from_secs(8), "it is caught up with", async || {
                    verifier.verify(token).await == Err(Refused::Revoked)
                })
                .await;
            }
        }
    }
    assert_eq!((stream.status().revoked, polling.status().revoked), (8, 8));
}

#[actix_web::test]
async fn without_notifications_the_sweep_finds_it() {
    let balancer = Balancer::start().await;
    let a = Server::start_with(balancer.options(true)).await;
    let deaf = a.replica(balancer.options(false)).await;
    balancer.before(&[&deaf]);
    let acme = a.tenant("acme").await;
    let (key, token) = with_token(&acme, "one").await;
    let verifier = balancer.verifier(&acme).build().unwrap();
    verifier.ready().await;
    assert!(verifier.verify(&token).await.is_ok());
    revoke(&a, &acme, &key).await;
    eventually(Duration::from_secs(5), "five seconds are over", async || verifier.verify(&token).await == Err(Refused::Revoked))
        .await;
}

#[actix_web::test]
async fn what_is_enabled_again_is_good_again_for_new_tokens_and_a_disabled_tenant_is_nobody() {
    let balancer = Balancer::start().await;
    let a = Server::start_with(balancer.options(true)).await;
    balancer.before(&[&a]);
    let platform = a.default_tenant().await.admin().await;
    let acme = a.tenant("acme").await;
    let admin = acme.admin().await;
    let (key, token) = with_token(&acme, "one").await;
    let verifier = balancer.verifier(&acme).build().unwrap();
    verifier.ready().await;
    let path = acme.path(&format!("/v1/keys/{}", key.id));
    for disabled in [true, false] {
        assert!(a.with(&admin.basic()).patch(&path, json!({ "disabled": disabled })).await.status.is_success());
    }
    eventually(Duration::from_secs(2), "it is refused", async || verifier.verify(&token).await == Err(Refused::Revoked)).await;
    // Whole seconds are all that a token tells.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let again = a.with(&key.pair()).token().await;
    assert!(verifier.verify(&again).await.is_ok());
    assert_eq!(verifier.verify(&token).await, Err(Refused::Revoked));
    let off = a.with(&platform.basic()).patch("/v1/tenants/acme", json!({ "disabled": true })).await;
    assert!(off.status.is_success(), "{}", off.text);
    eventually(Duration::from_secs(2), "so is it", async || verifier.verify(&again).await == Err(Refused::Revoked)).await;
}

#[actix_web::test]
async fn a_private_feed_is_followed_with_a_key() {
    let balancer = Balancer::start().await;
    let a = Server::start_with(balancer.options(true)).await;
    balancer.before(&[&a]);
    let settings = claviger_issuer::settings::TenantSettings { revocations_private: Some(true), ..Default::default() };
    let acme = a.tenant_with("acme", settings).await;
    let reader = acme.app_key("reader", &["revocations:read"]).await;
    let (key, token) = with_token(&acme, "one").await;
    let stranger = balancer.verifier(&acme).when_cut_off(CutOff::FailClosed { after: Duration::from_secs(60) }).build().unwrap();
    let verifier = balancer.verifier(&acme).feed_credential(reader.basic()).build().unwrap();
    verifier.ready().await;
    revoke(&a, &acme, &key).await;
    eventually(Duration::from_secs(2), "it is refused", async || verifier.verify(&token).await == Err(Refused::Revoked)).await;
    assert!(matches!(stranger.verify(&token).await, Err(Refused::Unavailable(_))));
    assert!(stranger.status().last_error.unwrap().contains("401"));
}

#[actix_web::test]
async fn a_service_behind_the_guard_lets_in_who_may_and_tells_others_why() {
    let balancer = Balancer::start().await;
    let a = Server::start_with(balancer.options(true)).await;
    balancer.before(&[&a]);
    let acme = a.tenant("acme").await;
    let (key, token) = with_token(&acme, "one").await;
    let poor = acme.app_key("poor", &["events:write"]).await;
    let poor = a.with(&poor.pair()).token().await;
    let serve = async |builder: Builder| {
        let verifier = builder.build().unwrap();
        verifier.ready().await;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let app = move || {
            let me = async |token: VerifiedToken| token.subject.clone();
            App::new()
                .app_data(Data::new(verifier.clone()))
                .route("/me", web::get().to(me))
                .service(web::scope("/events").wrap(RequireScope::new("events:read")).route("", web::get().to(me)))
        };
        actix_web::rt::spawn(HttpServer::new(app).workers(1).listen(listener).unwrap().run());
        address
    };
    let strict = serve(balancer.verifier(&acme)).await;
    let ask = async |address: SocketAddr, path: &str, header: Option<(&str, &str)>| {
        let mut request = a.http.get(format!("http://{address}{path}"));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        Answer::of(request.send().await.unwrap()).await
    };
    let bearer = |token: &str| format!("Bearer {token}");
    let answer = ask(strict, "/me", Some(("Authorization", &bearer(&token)))).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, key.subject().as_str()));
    assert_eq!(ask(strict, "/events", Some(("Authorization", &bearer(&token)))).await.status.as_u16(), 200);
    let nobody = ask(strict, "/me", None).await;
    assert_eq!((nobody.status.as_u16(), nobody.header("www-authenticate")), (401, "Bearer"));
    for path in ["/me", "/events"] {
        let garbled = ask(strict, path, Some(("Authorization", "Bearer a.b.c"))).await;
        assert!(garbled.header("www-authenticate").starts_with("Bearer error=\"invalid_token\""));
        assert_eq!((garbled.status.as_u16(), &garbled.json()["error"]), (401, &json!("invalid_token")));
        for (name, value) in [("X-Auth-Token", token.clone()), ("Authorization", token.clone())] {
            assert_eq!(ask(strict, path, Some((name, &value))).await.status.as_u16(), 401, "not where a token stands: {name}");
        }
        assert_eq!(ask(strict, &format!("{path}?token={token}"), None).await.status.as_u16(), 401);
    }
    let refused = ask(strict, "/events", Some(("Authorization", &bearer(&poor)))).await;
    let challenge = "Bearer error=\"insufficient_scope\", scope=\"events:read\"";
    assert_eq!((refused.status.as_u16(), refused.header("www-authenticate")), (403, challenge));

    let lenient = balancer.verifier(&acme).headers(["Authorization", "X-Auth-Token"]).lenient_bearer().websocket_query("token");
    let style = ErrorStyle::Forbidden { content_type: "text/plain".into(), body: "go away".into() };
    let lenient = serve(lenient.error_style(style)).await;
    for (name, value) in
        [("X-Auth-Token", token.clone()), ("Authorization", token.clone()), ("Authorization", format!("Bearer: {token}"))]
    {
        assert_eq!(ask(lenient, "/events", Some((name, &value))).await.status.as_u16(), 200, "{name}: {value}");
    }
    let by_query = format!("/me?token={token}");
    assert_eq!(ask(lenient, &by_query, Some(("Upgrade", "websocket"))).await.status.as_u16(), 200);
    let refused = ask(lenient, &by_query, None).await;
    assert_eq!((refused.status.as_u16(), refused.text.as_str()), (403, "go away"));

    revoke(&a, &acme, &key).await;
    eventually(Duration::from_secs(1), "it is refused", async || {
        ask(strict, "/me", Some(("Authorization", &bearer(&token)))).await.status.as_u16() == 401
    })
    .await;
}
