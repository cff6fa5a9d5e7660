//! What an admin's URL makes this server ask: public addresses, and nothing that only this machine can reach (attack P21).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

#[path = "support/provider.rs"]
mod provider;
mod support;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use claviger_issuer::outbound::{Names, OutboundSettings};
use provider::Provider;
use reqwest::{Method, StatusCode};
use serde_json::json;
use support::{Answer, Options, Server, Tenant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Something that listens on this machine, and counts who comes.
struct Listening {
    address: SocketAddr,
    came: Arc<AtomicU32>,
}

impl Listening {
    /// Answers each request with what `answer` writes.
    async fn with<F>(answer: impl Fn(TcpStream, String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let came = Arc::new(AtomicU32::new(0));
        let counted = came.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                tokio::spawn(answer(stream, head));
            }
        });
        Self { address, came }
    }

    /// What nobody may reach.
    async fn victim() -> Self {
        Self::with(|_, _| async {}).await
    }

    fn came(&self) -> u32 {
        self.came.load(Ordering::SeqCst)
    }

    fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    fn outbound(&self) -> OutboundSettings {
        OutboundSettings { allow: vec![self.address.to_string().parse().unwrap()], ..OutboundSettings::default() }
    }
}

fn told(names: &[(&str, &[&[&str]])]) -> Names {
    let read = |answers: &[&[&str]]| -> Vec<Vec<IpAddr>> {
        answers.iter().map(|answer| answer.iter().map(|address| address.parse().unwrap()).collect()).collect()
    };
    let table: HashMap<String, _> = names.iter().map(|(name, answers)| ((*name).to_owned(), read(answers))).collect();
    Names::Told(Arc::new(Mutex::new(table)))
}

async fn server_that_asks(outbound: OutboundSettings) -> Server {
    Server::start_with(Options { outbound, ..Options::default() }).await
}

/// Makes a connection to this issuer; the answer is whatever it is.
async fn connect(tenant: &Tenant<'_>, name: &str, issuer: &str) -> Answer {
    let admin = tenant.app_key(&format!("admin of {name}"), &["connections:write"]).await;
    let body = json!({ "name": name, "oidc": { "issuer": issuer, "client_id": "us" } });
    tenant.server.with(&admin.basic()).post(&tenant.path("/v1/connections"), body).await
}

async fn begin(tenant: &Tenant<'_>, name: &str) -> Answer {
    let path = tenant.path(&format!("/login/{name}"));
    let request = tenant.server.anonymous().request(Method::GET, &path).header("Accept", "application/json");
    Answer::of(request.send().await.unwrap()).await
}

const NO_USE: &str = "The identity provider or directory gave no answer that is of use. Try again in a moment, or ask an admin.";

fn assert_no_use(answer: &Answer, what: &str) {
    assert_eq!((answer.status, answer.error().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "upstream_unavailable"), "{what}");
    assert_eq!(answer.json()["detail"], NO_USE, "{what}");
}

#[actix_web::test]
async fn p21_addresses_of_this_machine_and_network_are_refused_however_they_are_written() {
    let victim = Listening::victim().await;
    let port = victim.address.port();
    let server = server_that_asks(OutboundSettings::default()).await;
    let tenant = server.tenant("acme").await;
    let hosts = [
        "127.0.0.1",
        "0177.1",
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "127.1",
        "127.0.0.1.",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[::127.0.0.1]",
        "169.254.169.254",
        "0xa9fea9fe",
        "10.0.0.1",
        "100.64.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[fe80::1]",
        "[fc00::1]",
        "[ff02::1]",
        "１２７.0.0.1",
        "127。0。0。1",
    ];
    for (n, host) in hosts.iter().enumerate() {
        for scheme in ["https", "http"] {
            let made = connect(&tenant, &format!("c{n}-{scheme}"), &format!("{scheme}://{host}:{port}")).await;
            assert_eq!(made.wrong_field(), "issuer", "{scheme}://{host}");
        }
    }
    let others =
        ["http://idp.test", "file:///etc/passwd", "gopher://127.0.0.1", "ftp://idp.test", "https://", "ldap://127.0.0.1"];
    for (n, other) in others.into_iter().enumerate() {
        assert_eq!(connect(&tenant, &format!("other{n}"), other).await.wrong_field(), "issuer", "{other}");
    }
    assert_eq!(victim.came(), 0);
}

#[actix_web::test]
async fn p21_a_name_is_worth_its_addresses_at_the_moment_of_the_connection() {
    let victim = Listening::victim().await;
    let port = victim.address.port();
    let names = told(&[
        ("inside.test", &[&["127.0.0.1"]]),
        ("mapped.test", &[&["::ffff:127.0.0.1"]]),
        ("meta.test", &[&["169.254.169.254", "10.0.0.1", "fe80::1", "64:ff9b::7f00:1"]]),
        // Public when it is looked at, and then not.
        ("rebind.test", &[&["1.1.1.1"], &["127.0.0.1"]]),
        ("rebind6.test", &[&["2606:4700::1111"], &["::1", "::ffff:127.0.0.1"]]),
        ("nothing.test", &[&[]]),
    ]);
    let server = server_that_asks(OutboundSettings { names, ..OutboundSettings::default() }).await;
    let tenant = server.tenant("acme").await;
    let mut answers = BTreeSet::new();
    for name in ["inside", "mapped", "meta", "rebind", "rebind6", "nothing", "unknown"] {
        let made = connect(&tenant, name, &format!("https://{name}.test:{port}")).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        let answer = begin(&tenant, name).await;
        assert_no_use(&answer, name);
        answers.insert(answer.told());
    }
    assert_eq!(victim.came(), 0);
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[actix_web::test]
async fn p21_what_a_provider_publishes_leads_nowhere_else() {
    let victim = Listening::victim().await;
    let clock = claviger_issuer::clock::Clock::manual(claviger_issuer::clock::Clock::System.now());
    for (n, target) in [
        format!("http://{}", victim.address),
        format!("https://{}", victim.address),
        format!("https://localhost:{}", victim.address.port()),
        format!("http://localhost:{}", victim.address.port()),
    ]
    .iter()
    .enumerate()
    {
        for endpoint in ["token_endpoint", "jwks_uri", "userinfo_endpoint"] {
            let provider = Provider::start(clock.clone()).await;
            provider.set(|script| script.metadata = json!({ endpoint: format!("{target}/x") }));
            let options = Options { clock: Some(clock.clone()), outbound: provider.outbound(), ..Options::default() };
            let server = Server::start_with(options).await;
            let tenant = server.tenant("acme").await;
            let admin = tenant.admin().await;
            let body = json!({ "name": "corp", "auto_create": true, "oidc": { "issuer": provider.issuer, "client_id": "us" } });
            server.with(&admin.basic()).post(&tenant.path("/v1/connections"), body).await;
            let begun = begin(&tenant, "corp").await;
            assert_eq!(begun.status, StatusCode::SEE_OTHER, "{}", begun.text);
            let query = provider.log_in(begun.header("location"));
            let cookie = begun.header("set-cookie").split(';').next().unwrap().to_owned();
            let request = server.anonymous().request(Method::GET, &tenant.path(&format!("/login/corp/callback?{query}")));
            let request = request.header("Cookie", cookie).header("Accept", "application/json");
            assert_no_use(&Answer::of(request.send().await.unwrap()).await, &format!("{n} {endpoint}"));
        }
    }
    assert_eq!(victim.came(), 0);
}

#[actix_web::test]
async fn p21_redirects_other_types_and_endless_or_slow_answers_are_of_no_use() {
    let victim = Listening::victim().await;
    let away = victim.issuer();
    let listening = Listening::with(move |mut stream, head| {
        let away = away.clone();
        async move {
            let ok = "HTTP/1.1 200 OK\r\nConnection: close\r\n";
            let path = head.split(' ').nth(1).unwrap_or_default().split('/').nth(1).unwrap_or_default().to_owned();
            let answer = match path.as_str() {
                "redirect" => format!("HTTP/1.1 302 Found\r\nLocation: {away}/secret\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"),
                "temporary" => format!("HTTP/1.1 307 X\r\nLocation: {away}/secret\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"),
                "html" => format!("{ok}Content-Type: text/html\r\nContent-Length: 2\r\n\r\n{{}}"),
                "untyped" => format!("{ok}Content-Length: 2\r\n\r\n{{}}"),
                "nonsense" => format!("{ok}Content-Type: application/json\r\nContent-Length: 8\r\n\r\n{{\"a\": 1,"),
                "empty" => format!("{ok}Content-Type: application/json\r\nContent-Length: 0\r\n\r\n"),
                "error" => "HTTP/1.1 500 X\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
                "large" => format!("{ok}Content-Type: application/json\r\nContent-Length: 999999999\r\n\r\n"),
                "endless" => format!("{ok}Content-Type: application/json\r\n\r\n"),
                "slow" => format!("{ok}Content-Type: application/json\r\nContent-Length: 9999\r\n\r\n"),
                "packed" => format!("{ok}Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{{}}"),
                _ => "SSH-2.0-OpenSSH_9.6\r\n".to_owned(),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
            match path.as_str() {
                "endless" | "large" => while stream.write_all(&[b' '; 4096]).await.is_ok() {},
                "slow" => {
                    for _ in 0..100 {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        if stream.write_all(b" ").await.is_err() {
                            break;
                        }
                    }
                }
                _ => {}
            }
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let server = server_that_asks(listening.outbound()).await;
    let tenant = server.tenant("acme").await;
    let mut answers = BTreeSet::new();
    let kinds =
        ["redirect", "temporary", "html", "untyped", "nonsense", "empty", "error", "large", "endless", "slow", "packed", "other"];
    for kind in kinds {
        let made = connect(&tenant, kind, &format!("{}/{kind}", listening.issuer())).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        let began = Instant::now();
        let answer = begin(&tenant, kind).await;
        assert_no_use(&answer, kind);
        let took = began.elapsed();
        let longest = if kind == "slow" { 7 } else { 3 };
        assert!(took < Duration::from_secs(longest), "{kind} took {took:?}");
        answers.insert(answer.told());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(victim.came(), 0);
    assert_eq!(listening.came(), u32::try_from(kinds.len()).unwrap(), "nothing was asked twice");
}

#[actix_web::test]
async fn p21_one_tenants_questions_are_bounded_and_asked_once_for_many() {
    let listening = Listening::with(|mut stream, head| async move {
        // Slowly, so that many ask while one is answered.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let path = head.split(' ').nth(1).unwrap_or_default().split('/').nth(1).unwrap_or_default();
        let host = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("host: ").map(str::to_owned)).unwrap();
        let issuer = format!("http://{host}/{path}");
        let body = json!({
            "issuer": issuer, "authorization_endpoint": format!("{issuer}/a"), "token_endpoint": format!("{issuer}/t"),
            "jwks_uri": format!("{issuer}/k"), "id_token_signing_alg_values_supported": ["EdDSA"]
        })
        .to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
    })
    .await;
    let server = server_that_asks(listening.outbound()).await;
    let tenant = server.tenant("acme").await;
    let made = connect(&tenant, "one", &format!("{}/one", listening.issuer())).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let all = futures_util::future::join_all((0..20).map(|_| begin(&tenant, "one"))).await;
    assert!(all.iter().all(|answer| answer.status == StatusCode::SEE_OTHER));
    assert_eq!(listening.came(), 1);
    // Twenty different ones at once: sixteen are asked, the others are told to come again.
    for n in 0..20 {
        connect(&tenant, &format!("c{n}"), &format!("{}/c{n}", listening.issuer())).await;
    }
    let names: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
    let all = futures_util::future::join_all(names.iter().map(|name| begin(&tenant, name))).await;
    let busy = all.iter().filter(|answer| answer.status == StatusCode::SERVICE_UNAVAILABLE).count();
    assert!((1..=4).contains(&busy), "{busy}");
    // Which is nothing to another tenant.
    let other = server.tenant("other").await;
    connect(&other, "one", &format!("{}/one", listening.issuer())).await;
    assert_eq!(begin(&other, "one").await.status, StatusCode::SEE_OTHER);
}
