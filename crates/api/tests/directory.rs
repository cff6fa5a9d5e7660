//! Login with the password that a tenant's directory knows: what is a yes, what is a no, and what is neither (LDAP, RFC 4511).
//! A directory that others made is asked in `interop/cases/directory.py`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use claviger_issuer::outbound::OutboundSettings;
use reqwest::StatusCode;
use serde_json::json;
use support::{Answer, Options, Server, Tenant, claims};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// How a directory behaves.
#[derive(Clone)]
struct Manner {
    /// Its result of a bind.
    bind: u8,
    /// Bytes that it sends instead of an answer to a search.
    search: Option<Vec<u8>>,
    /// Bytes that it sends to whoever comes, again and again.
    flood: Option<Vec<u8>>,
}

const GOOD: Manner = Manner { bind: 0, search: None, flood: None };

/// A directory that knows one entry, and takes whatever password its manner says.
struct Directory {
    address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    /// Operations that it was asked for: 0x60 bind, 0x63 search.
    asked: Arc<Mutex<Vec<u8>>>,
}

/// A BER element (X.690 §8.1), of less than 64 KiB.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x82], length.as_slice(), content].concat()
}

fn text(text: &str) -> Vec<u8> {
    element(0x04, text.as_bytes())
}

fn message(id: u8, operation: &[u8]) -> Vec<u8> {
    element(0x30, &[&[0x02, 0x01, id], operation].concat())
}

fn result(id: u8, tag: u8, code: u8) -> Vec<u8> {
    message(id, &element(tag, &[element(0x0a, &[code]), text(""), text("")].concat()))
}

fn entry(id: u8) -> Vec<u8> {
    let attributes = [("entryUUID", "uuid-1"), ("uid", "dora"), ("cn", "Dora D."), ("mail", "dora@example.com")];
    let attributes = attributes.map(|(name, value)| element(0x30, &[text(name), element(0x31, &text(value))].concat()));
    message(id, &element(0x64, &[text("uid=dora,ou=people"), element(0x30, &attributes.concat())].concat()))
}

impl Directory {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (manner, asked) = (Arc::new(Mutex::new(GOOD)), Arc::new(Mutex::new(Vec::new())));
        let (its_manner, its_asked) = (manner.clone(), asked.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (manner, asked) = (its_manner.lock().unwrap().clone(), its_asked.clone());
                tokio::spawn(async move {
                    if let Some(flood) = manner.flood {
                        while stream.write_all(&flood).await.is_ok() {}
                        return;
                    }
                    let mut bytes = vec![0; 8192];
                    while let Ok(read @ 7..) = stream.read(&mut bytes).await {
                        let head = if bytes[1] < 0x80 { 2 } else { 2 + usize::from(bytes[1] & 0x7f) };
                        let (id, operation) = (bytes[head + 2], bytes[head + 3]);
                        assert!(head + 3 < read);
                        asked.lock().unwrap().push(operation);
                        let answer = match operation {
                            0x60 => result(id, 0x61, manner.bind),
                            0x63 => manner.search.clone().unwrap_or_else(|| [entry(id), result(id, 0x65, 0)].concat()),
                            _ => return,
                        };
                        stream.write_all(&answer).await.unwrap();
                    }
                });
            }
        });
        Self { address, manner, asked }
    }

    fn behaves(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
        self.asked.lock().unwrap().clear();
    }

    fn asked(&self) -> Vec<u8> {
        self.asked.lock().unwrap().clone()
    }
}

async fn scene(directory: &Directory) -> Server {
    let allow = vec![directory.address.to_string().parse().unwrap()];
    Server::start_with(Options { outbound: OutboundSettings { allow, ..OutboundSettings::default() }, ..Options::default() })
        .await
}

async fn connect(tenant: &Tenant<'_>, directory: &Directory) {
    let admin = tenant.admin().await;
    let body = json!({
        "name": "ldap", "ldap": { "url": format!("ldap://{}", directory.address), "user_dn": "uid={username},ou=people" },
        "mapping": { "default_roles": ["user"], "trust_email": true }, "auto_create": true
    });
    let made = tenant.server.with(&admin.basic()).post(&tenant.path("/v1/connections"), body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
}

async fn log_in(tenant: &Tenant<'_>, username: &str, password: &str) -> Answer {
    let body = json!({ "username": username, "password": password });
    tenant.server.anonymous().post(&tenant.path("/v1/login"), body).await
}

#[actix_web::test]
async fn whom_the_directory_takes_is_in_and_is_the_same_person_next_time() {
    let directory = Directory::start().await;
    let server = scene(&directory).await;
    let tenant = server.tenant("acme").await;
    connect(&tenant, &directory).await;
    let first = log_in(&tenant, "dora", "whatever").await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.text);
    let first = claims(first.json()["access_token"].as_str().unwrap());
    assert_eq!((&first["username"], &first["roles"]), (&json!("dora"), &json!(["user"])));
    let next = log_in(&tenant, "Dora", "whatever").await.json();
    assert_eq!(claims(next["access_token"].as_str().unwrap())["sub"], first["sub"]);
    let entry = &tenant.audit("user.login").await[0];
    assert_eq!(support::detail(entry)["how"], "directory");
    // The directory does not judge whoever has a password of ours.
    tenant.user("emil", Some("correct horse battery staple")).await;
    directory.behaves(GOOD);
    assert_eq!(log_in(&tenant, "emil", "whatever").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(log_in(&tenant, "emil", "correct horse battery staple").await.status, StatusCode::OK);
    assert_eq!(directory.asked().len(), 0);
    // Without an account of that entry, a name that is taken is not its own.
    tenant.user("dorothea", None).await;
    assert_eq!(claims(log_in(&tenant, "dorothea", "w").await.json()["access_token"].as_str().unwrap())["sub"], first["sub"]);
}

#[actix_web::test]
async fn an_empty_password_is_refused_before_anybody_is_asked() {
    let directory = Directory::start().await;
    let server = scene(&directory).await;
    let tenant = server.tenant("acme").await;
    connect(&tenant, &directory).await;
    for (name, password) in [("dora", ""), ("dora", "\0"), ("", "whatever"), (" ", "whatever")] {
        let answer = log_in(&tenant, name, password).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::UNAUTHORIZED, "invalid_credentials"), "{name:?}");
    }
    assert_eq!(directory.asked().len(), 0);
}

#[actix_web::test]
async fn what_is_neither_yes_nor_no_is_503_and_lets_nobody_in() {
    let directory = Directory::start().await;
    let server = scene(&directory).await;
    let tenant = server.tenant("acme").await;
    connect(&tenant, &directory).await;
    let unavailable = async |what: &str| {
        let began = Instant::now();
        let answer = log_in(&tenant, "dora", "whatever").await;
        let told = (answer.status, answer.error());
        assert_eq!(told, (StatusCode::SERVICE_UNAVAILABLE, "upstream_unavailable".into()), "{what}: {}", answer.text);
        assert!(!answer.text.contains("127.0.0.1"), "{}", answer.text);
        assert!(began.elapsed() < Duration::from_secs(10), "{what} took {:?}", began.elapsed());
    };
    for code in [1, 2, 8, 10, 13, 14, 51, 52, 80] {
        directory.behaves(Manner { bind: code, ..GOOD });
        unavailable(&format!("result {code}")).await;
    }
    // What no library can read, and what it trips over.
    let bad_entry = [message(2, &element(0x64, &text("x"))), result(2, 0x65, 0)].concat();
    let not_text = message(2, &element(0x64, &[element(0x04, &[0xff, 0xfe]), element(0x30, &[])].concat()));
    for search in
        [bad_entry, [not_text, result(2, 0x65, 0)].concat(), b"\x30\x80".to_vec(), b"SSH-2.0".to_vec(), result(2, 0x65, 0)]
    {
        directory.behaves(Manner { search: Some(search.clone()), ..GOOD });
        unavailable(&format!("search {search:02x?}")).await;
    }
    // Without end: one message of two gigabytes, and garbage.
    for flood in [[b"\x30\x84\x7f\xff\xff\xff".to_vec(), vec![0; 8192]].concat(), vec![b'x'; 8192]] {
        directory.behaves(Manner { flood: Some(flood), ..GOOD });
        unavailable("a flood").await;
    }
    let users: i64 =
        sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut server.database.superuser().await).await.unwrap();
    assert_eq!(users, 0);
    // A no is a no; and nobody was counted as having guessed.
    directory.behaves(Manner { bind: 49, ..GOOD });
    let no = log_in(&tenant, "dora", "whatever").await;
    assert_eq!((no.status, no.error().as_str()), (StatusCode::UNAUTHORIZED, "invalid_credentials"));
    directory.behaves(GOOD);
    assert_eq!(log_in(&tenant, "dora", "whatever").await.status, StatusCode::OK);
    // Guesses at the directory's passwords count as those at ours.
    directory.behaves(Manner { bind: 49, ..GOOD });
    for _ in 0..5 {
        log_in(&tenant, "dora", "a guess").await;
    }
    let asked = directory.asked().len();
    assert_eq!(log_in(&tenant, "dora", "a guess").await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(directory.asked().len(), asked);
}
