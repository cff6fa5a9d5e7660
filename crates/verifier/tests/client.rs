//! The verifier that looks after itself, against an issuer that can be made to lie, to fall silent and to be counted.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test stops at the first surprise, and lives in real time"
)]

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_verifier::{CutOff, Refused, Rejection, Unavailable, Verifier};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn jws(kid: &str, seed: u8, typ: &str, claims: &Value) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"typ":"{typ}","alg":"EdDSA","kid":"{kid}"}}"#));
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = SigningKey::from_bytes(&[seed; 32]).sign(signed.as_bytes()).to_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn jwk(kid: &str, seed: u8) -> Value {
    let x = URL_SAFE_NO_PAD.encode(SigningKey::from_bytes(&[seed; 32]).verifying_key().as_bytes());
    json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "alg": "EdDSA", "use": "sig" })
}

/// What the issuer says now.
struct Says {
    issuer: String,
    keys: Vec<Value>,
    /// Its feed: one batch for each cursor; what has none waits.
    batch: Box<dyn Fn(Option<u64>) -> Option<String> + Send>,
    away: bool,
}

struct Issuer {
    url: String,
    says: Arc<Mutex<Says>>,
    fetched: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/t/acme", listener.local_addr().unwrap());
        let says = Says { issuer: url.clone(), keys: vec![jwk("one", 1)], batch: Box::new(|_| None), away: false };
        let issuer = Self { url, says: Arc::new(Mutex::new(says)), fetched: Arc::default() };
        let (says, fetched, url) = (issuer.says.clone(), issuer.fetched.clone(), issuer.url.clone());
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let (says, fetched, url) = (says.clone(), fetched.clone(), url.clone());
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let request = String::from_utf8(request).unwrap();
                    let path = request.split(' ').nth(1).unwrap().to_owned();
                    let answer = loop {
                        let answer = answer(&says.lock().unwrap(), &url, &path, &fetched);
                        match answer {
                            Some(answer) => break answer,
                            None if says.lock().unwrap().away => return,
                            None => tokio::time::sleep(Duration::from_millis(20)).await,
                        }
                    };
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
                    let _ = socket.write_all((head + &answer).as_bytes()).await;
                });
            }
        });
        issuer
    }

    fn say(&self, change: impl FnOnce(&mut Says)) {
        change(&mut self.says.lock().unwrap());
    }

    /// A feed of these entries, one batch each.
    fn revoke(&self, entries: Vec<Value>) {
        let issuer = self.url.clone();
        self.say(|says| {
            says.batch = Box::new(move |since| {
                let all = u64::try_from(entries.len()).unwrap();
                let from = since.unwrap_or(0);
                let new = &entries[usize::try_from(from.min(all)).unwrap()..];
                (since.is_none() || from < all).then(|| {
                    let claims =
                        json!({ "iss": issuer, "iat": now(), "prev": since, "cursor": all, "more": false, "entries": new });
                    jws("one", 1, "revocations+jwt", &claims)
                })
            });
        });
    }

    fn token(&self, kid: &str, seed: u8, jti: &str) -> String {
        let claims = json!({ "iss": self.url, "sub": "s", "aud": "here", "exp": now() + 10_000_000, "iat": now(), "jti": jti });
        jws(kid, seed, "at+jwt", &claims)
    }

    fn builder(&self) -> claviger_verifier::Builder {
        Verifier::builder(&self.url).audience("here").long_poll()
    }
}

fn answer(says: &Says, url: &str, path: &str, fetched: &AtomicUsize) -> Option<String> {
    if says.away {
        return None;
    }
    if path.contains("oauth-authorization-server") {
        let revocations = format!("{url}/v1/revocations");
        return Some(
            json!({ "issuer": says.issuer, "jwks_uri": format!("{url}/jwks"), "revocations_endpoint": revocations }).to_string(),
        );
    }
    if path.ends_with("/jwks") {
        fetched.fetch_add(1, Ordering::SeqCst);
        return Some(json!({ "keys": says.keys }).to_string());
    }
    let since = path.split(['?', '&']).find_map(|pair| pair.strip_prefix("since=")).map(|since| since.parse().unwrap());
    (says.batch)(since)
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(15), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const UNKNOWN: Refused = Refused::Token(Rejection::UnknownKey);

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let issuer = Issuer::start().await;
    let verifier = issuer.builder().when_cut_off(CutOff::NotFollowed).between_fetches(Duration::ZERO).build().unwrap();
    assert!(verifier.verify(&issuer.token("one", 1, "j")).await.is_ok());
    let new = issuer.token("two", 2, "j");
    assert_eq!(verifier.verify(&new).await, Err(UNKNOWN));
    issuer.say(|says| says.keys.push(jwk("two", 2)));
    assert!(verifier.verify(&new).await.is_ok());
    // A key that is taken back is gone with the next fetch.
    issuer.say(|says| says.keys = vec![jwk("two", 2)]);
    assert_eq!(verifier.verify(&issuer.token("three", 3, "j")).await, Err(UNKNOWN));
    assert_eq!(verifier.verify(&issuer.token("one", 1, "j")).await, Err(UNKNOWN));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p03_a_flood_of_unknown_key_ids_fetches_the_keys_once_more_and_stops_nobody() {
    let issuer = Issuer::start().await;
    let verifier = issuer.builder().when_cut_off(CutOff::NotFollowed).between_fetches(Duration::from_secs(60)).build().unwrap();
    let good = issuer.token("one", 1, "j");
    assert!(verifier.verify(&good).await.is_ok());
    let before = issuer.fetched.load(Ordering::SeqCst);
    let (_, rest) = good.split_once('.').unwrap();
    let floods = (0..8u32).map(|flood| {
        let (verifier, rest) = (verifier.clone(), rest.to_owned());
        tokio::spawn(async move {
            for n in 0..12_500u32 {
                let header = format!(r#"{{"typ":"at+jwt","alg":"EdDSA","kid":"{flood}-{n}"}}"#);
                let token = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
                assert_eq!(verifier.verify(&token).await, Err(UNKNOWN));
            }
        })
    });
    for flood in floods.collect::<Vec<_>>() {
        flood.await.unwrap();
        assert!(verifier.verify(&good).await.is_ok());
    }
    assert!(issuer.fetched.load(Ordering::SeqCst) <= before + 1);
}

#[tokio::test]
async fn keys_are_used_while_the_issuer_is_away_and_no_longer_than_was_said() {
    let issuer = Issuer::start().await;
    let shift = Arc::new(AtomicI64::new(0));
    let theirs = shift.clone();
    let verifier = issuer
        .builder()
        .when_cut_off(CutOff::NotFollowed)
        .stale_for(Duration::from_secs(3600))
        .clock(move || now() + theirs.load(Ordering::SeqCst))
        .build()
        .unwrap();
    let token = issuer.token("one", 1, "j");
    assert!(verifier.verify(&token).await.is_ok());
    issuer.say(|says| says.away = true);
    shift.store(3590, Ordering::SeqCst);
    assert!(verifier.verify(&token).await.is_ok());
    shift.store(3700, Ordering::SeqCst);
    assert_eq!(verifier.verify(&token).await, Err(Refused::Unavailable(Unavailable::Keys)));
    assert_eq!(verifier.answer(&Refused::Unavailable(Unavailable::Keys)).status, 503);
    issuer.say(|says| says.away = false);
    eventually("it comes back by itself", async || verifier.verify(&token).await.is_ok()).await;
}

#[tokio::test]
async fn metadata_of_another_issuer_are_not_believed() {
    let issuer = Issuer::start().await;
    for other in [format!("{}/", issuer.url), issuer.url.replace("acme", "other"), "https://id.example/t/acme".into()] {
        issuer.say(|says| says.issuer = other.clone());
        let verifier = issuer.builder().when_cut_off(CutOff::NotFollowed).build().unwrap();
        assert_eq!(verifier.verify(&issuer.token("one", 1, "j")).await, Err(Refused::Unavailable(Unavailable::Keys)), "{other}");
        assert!(verifier.status().last_error.unwrap().contains("another issuer"));
    }
    assert_eq!(issuer.fetched.load(Ordering::SeqCst), 0, "nor are keys asked for");
}

#[tokio::test]
async fn revocations_are_followed_and_what_is_missed_or_forged_begins_anew() {
    let issuer = Issuer::start().await;
    issuer.revoke(vec![json!(["jti", "a", null])]);
    let verifier = issuer.builder().when_cut_off(CutOff::FailClosed { after: Duration::from_secs(60) }).build().unwrap();
    verifier.ready().await;
    let verdict = async |jti| verifier.verify(&issuer.token("one", 1, jti)).await.map(|_| ());
    assert_eq!((verdict("a").await, verdict("b").await), (Err(Refused::Revoked), Ok(())));
    issuer.revoke(vec![json!(["jti", "a", null]), json!(["jti", "b", null])]);
    eventually("b is heard of", async || verdict("b").await == Err(Refused::Revoked)).await;
    // A batch that follows a cursor which nobody has, and one that another key signed: both are refused, and neither ends it.
    let url = issuer.url.clone();
    let claims = move |prev: Option<u64>, entries: Value| json!({ "iss": url, "iat": now(), "prev": prev, "cursor": 9, "more": false, "entries": entries });
    let gap = jws("one", 1, "revocations+jwt", &claims(Some(7), json!([])));
    let forged = jws("one", 2, "revocations+jwt", &claims(None, json!([])));
    for bad in [gap, forged] {
        issuer.say(|says| says.batch = Box::new(move |_| Some(bad.clone())));
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!((verdict("a").await, verdict("c").await), (Err(Refused::Revoked), Ok(())));
        assert!(verifier.status().last_error.is_some());
    }
    issuer.revoke(vec![json!(["jti", "c", null])]);
    eventually("it begins anew", async || verdict("c").await == Err(Refused::Revoked)).await;
}

#[tokio::test]
async fn who_is_cut_off_does_what_was_said() {
    let issuer = Issuer::start().await;
    issuer.revoke(vec![json!(["jti", "a", null])]);
    let shift = Arc::new(AtomicI64::new(0));
    let clock = || {
        let shift = shift.clone();
        move || now() + shift.load(Ordering::SeqCst)
    };
    let longest = Duration::from_secs(60);
    let closed = issuer.builder().when_cut_off(CutOff::FailClosed { after: longest }).clock(clock()).build().unwrap();
    let open = issuer.builder().when_cut_off(CutOff::FailOpen { at_most: longest }).clock(clock()).build().unwrap();
    closed.ready().await;
    open.ready().await;
    issuer.say(|says| says.away = true);
    let late =
        Verifier::builder("http://127.0.0.1:1/t/acme").audience("here").when_cut_off(CutOff::FailClosed { after: longest });
    let late = late.build().unwrap();
    let (good, revoked) = (issuer.token("one", 1, "b"), issuer.token("one", 1, "a"));
    let silent = Err(Refused::Unavailable(Unavailable::Revocations));
    for (seconds, expected) in [(0, Ok(())), (50, Ok(())), (75, silent)] {
        shift.store(seconds, Ordering::SeqCst);
        for verifier in [&closed, &open] {
            assert_eq!(verifier.verify(&good).await.map(|_| ()), expected, "after {seconds} seconds");
            assert_eq!(verifier.verify(&revoked).await, Err(Refused::Revoked), "what is known is known");
        }
    }
    assert!(late.verify(&good).await.is_err());
    shift.store(0, Ordering::SeqCst);
    issuer.say(|says| says.away = false);
    issuer.revoke(vec![json!(["jti", "a", null]), json!(["jti", "b", null])]);
    for verifier in [&closed, &open] {
        eventually("it is heard of", async || verifier.verify(&good).await == Err(Refused::Revoked)).await;
    }
}
