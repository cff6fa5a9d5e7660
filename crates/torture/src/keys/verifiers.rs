//! Who issues, who verifies, and what they saw.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_verifier::{Expected, KeySet, Refused, Rejection, Verifier, verify};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::rig::Rig;
use super::{LEAST, TTL, UNHEARD};
use crate::history::lock;
use crate::http::{Reply, read_reply, request};

/// Between looks at the tokens that are new.
const TICK: Duration = Duration::from_millis(500);
/// Looks between two at tokens whose key is gone, for the library: each of them makes it ask again.
const RARELY: usize = 8;
/// A token that ends sooner may end while it is looked at.
const NEARLY_OVER: i64 = 2;
/// From when a key was found gone, until nobody may take it: the TTL, and what a look and its answer take.
const LATEST: Duration = TTL.saturating_add(Duration::from_secs(1));

/// What they saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) tokens: usize,
    pub(crate) verified: usize,
    /// Good tokens that were refused.
    pub(crate) refused: usize,
    /// The same, in the first moments of an emergency.
    pub(crate) unheard: usize,
    /// Tokens whose key was not in the JWK set of the server that gave them.
    pub(crate) unpublished: usize,
    /// Tokens under a key that was withdrawn longer than a TTL ago, and taken.
    pub(crate) withdrawn: usize,
    /// The same of a key that had retired and was gone.
    pub(crate) retired: usize,
    /// Tokens that we signed, taken while their key was published.
    pub(crate) forged_good: usize,
    /// Fetches of the plain verifier that fetched most, for each time that it may keep the JWK set.
    pub(crate) plain_fetches: f64,
    /// As many of the library's, on average, without those that we provoked.
    pub(crate) library_fetches: f64,
    /// Tokens under keys that were gone, shown to the library: each may make it ask again.
    pub(crate) provoked: usize,
    /// The first things that went wrong.
    pub(crate) what: Vec<String>,
}

struct Token {
    kid: String,
    jwt: String,
    ends: i64,
    /// Ours, not the servers'.
    forged: bool,
}

/// What all share.
struct Shared {
    issuer: String,
    tokens: Mutex<Vec<Arc<Token>>>,
    /// When a key was found gone, and whether by an emergency.
    gone: Mutex<BTreeMap<String, (Instant, bool)>>,
    /// Keys that signed from their first moment, and when.
    unheard: Mutex<Option<Instant>>,
    tally: Mutex<Tally>,
    began: Instant,
}

#[expect(clippy::disallowed_methods, reason = "the verifiers' clock is the machine's")]
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}

async fn ask(address: SocketAddr, request: &[u8]) -> anyhow::Result<Reply> {
    let exchange = async {
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(request).await?;
        read_reply(&mut connection).await
    };
    Ok(timeout(Duration::from_secs(5), exchange).await??)
}

fn part(jwt: &str, number: usize) -> Value {
    let bytes = jwt.split('.').nth(number).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// A verifier that keeps the JWK set for as long as it may, and asks again for a key that it does not know, but not too often:
/// what most libraries do.
struct Plain {
    address: SocketAddr,
    path: String,
    keys: KeySet,
    fetched: Option<Instant>,
    fresh_for: Duration,
    /// Fetches because what it had was too old.
    fetches: u32,
}

impl Plain {
    async fn fetch(&mut self) {
        let Ok(reply) = ask(self.address, &request("GET", &self.path, None, None)).await else { return };
        let head = String::from_utf8_lossy(&reply.bytes).to_ascii_lowercase();
        let kept = head.split("max-age=").nth(1).and_then(|rest| rest.split(['\r', ',']).next()?.parse::<u32>().ok());
        let (Some(kept), 200) = (kept, reply.status) else { return };
        let Ok(keys) = KeySet::from_jwks(&String::from_utf8_lossy(&reply.body)) else { return };
        self.keys = keys;
        self.fetched = Some(Instant::now());
        self.fresh_for = (Duration::from_secs(kept.into()) / super::SCALE).max(LEAST);
    }

    async fn accepts(&mut self, issuer: &str, jwt: &str) -> Result<(), Rejection> {
        if self.fetched.is_none_or(|at| at.elapsed() >= self.fresh_for) {
            self.fetches += 1;
            self.fetch().await;
        }
        let expected = Expected { issuer, audience: Some(issuer), leeway_seconds: 1 };
        match verify(jwt, &self.keys, &expected, now()) {
            Err(Rejection::UnknownKey) if self.fetched.is_none_or(|at| at.elapsed() >= LEAST) => {
                self.fetch().await;
                verify(jwt, &self.keys, &expected, now()).map(|_| ())
            }
            verdict => verdict.map(|_| ()),
        }
    }
}

enum Kind {
    Plain(Box<Plain>),
    Library(Verifier),
}

/// All of them, at work.
pub(crate) struct Fleet {
    shared: Arc<Shared>,
    issuing: Vec<JoinHandle<()>>,
    verifying: Vec<JoinHandle<u32>>,
    libraries: usize,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Fleet {
    pub(crate) async fn start(rig: &Rig, verifiers: usize) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            issuer: rig.issuer.clone(),
            tokens: Mutex::default(),
            gone: Mutex::default(),
            unheard: Mutex::default(),
            tally: Mutex::default(),
            began: Instant::now(),
        });
        let (kid, jwt) = rig.forge(now());
        lock(&shared.tokens).push(Arc::new(Token { kid, jwt, ends: i64::MAX, forged: true }));
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let http = reqwest::Client::builder().no_proxy().build()?;
        let libraries = verifiers / 2;
        let mut all = Vec::new();
        for number in 0..verifiers {
            all.push(match number < libraries {
                true => Kind::Library(
                    Verifier::builder(&rig.issuer)
                        .audience(&rig.issuer)
                        .between_fetches(Duration::from_millis(10_000 / u64::from(super::SCALE)))
                        .http_client(http.clone())
                        .build()?,
                ),
                false => Kind::Plain(Box::new(Plain {
                    address: rig.plain.address,
                    path: "/t/rotating/.well-known/jwks.json".into(),
                    keys: KeySet::new(),
                    fetched: None,
                    fresh_for: TTL,
                    fetches: 0,
                })),
            });
        }
        for kind in &mut all {
            match kind {
                Kind::Library(verifier) => timeout(Duration::from_secs(60), verifier.ready()).await?,
                Kind::Plain(plain) => plain.fetch().await,
            }
        }
        let verifying = all
            .into_iter()
            .enumerate()
            .map(|(number, kind)| tokio::spawn(work(shared.clone(), number, kind, stopped.clone())))
            .collect();
        let issuing = rig
            .servers
            .iter()
            .map(|server| tokio::spawn(issue(shared.clone(), server.address, rig.pair.clone(), stopped.clone())))
            .collect();
        Ok(Self { shared, issuing, verifying, libraries, stop })
    }

    /// Looks at which keys are gone now.
    pub(crate) async fn look(&self, rig: &Rig) -> anyhow::Result<()> {
        for (kid, emergency) in rig.gone().await? {
            if let Entry::Vacant(unseen) = lock(&self.shared.gone).entry(kid) {
                unseen.insert((Instant::now(), emergency));
                if emergency {
                    *lock(&self.shared.unheard) = Some(Instant::now());
                }
            }
        }
        Ok(())
    }

    /// Ends the work and says what was seen. For `alarmed`, nobody might keep the JWK set.
    pub(crate) async fn stop(self, rig: &Rig, alarmed: Duration) -> anyhow::Result<Tally> {
        self.stop.send_replace(true);
        let took = self.shared.began.elapsed();
        for task in self.issuing {
            task.await?;
        }
        let mut most = 0;
        for task in self.verifying {
            most = most.max(task.await?);
        }
        let mut tally = lock(&self.shared.tally).clone();
        let calm = took.saturating_sub(alarmed).as_secs_f64() / TTL.as_secs_f64();
        tally.plain_fetches = f64::from(most) / (calm + alarmed.as_secs_f64() / LEAST.as_secs_f64());
        // The library keeps keys for 30 seconds at least, which nobody scales; each key that it does not know costs one fetch.
        let asked = rig.public.asked.load(Ordering::Relaxed).saturating_sub(tally.provoked);
        tally.library_fetches = asked as f64 / self.libraries.max(1) as f64 / (took.as_secs_f64() / TTL.as_secs_f64());
        Ok(tally)
    }
}

/// Exchanges the pair at one server, again and again, and looks whether that server publishes the key.
async fn issue(shared: Arc<Shared>, address: SocketAddr, pair: String, stopped: tokio::sync::watch::Receiver<bool>) {
    let exchange = request("POST", "/v1/authentications", Some(&pair), Some(&json!({})));
    let jwks = request("GET", "/t/rotating/.well-known/jwks.json", None, None);
    while !*stopped.borrow() {
        sleep(TICK).await;
        // It may be killed at any moment.
        let Ok(reply) = ask(address, &exchange).await else { continue };
        let Some(jwt) = reply.json().get("jwt").and_then(Value::as_str).map(str::to_owned) else { continue };
        let kid = part(&jwt, 0).get("kid").and_then(Value::as_str).unwrap_or_default().to_owned();
        let ends = part(&jwt, 1).get("exp").and_then(Value::as_i64).unwrap_or(0);
        let set = ask(address, &jwks).await.ok().filter(|reply| reply.status == 200).map(|reply| reply.json());
        lock(&shared.tally).tokens += 1;
        lock(&shared.tokens).push(Arc::new(Token { kid: kid.clone(), jwt, ends, forged: false }));
        let Some(set) = set else { continue };
        let kids: BTreeSet<&str> =
            set.get("keys").and_then(Value::as_array).into_iter().flatten().filter_map(|key| key.get("kid")?.as_str()).collect();
        if !kids.contains(kid.as_str()) {
            // An emergency may have come in between: known in a moment.
            sleep(Duration::from_secs(1)).await;
            if !lock(&shared.gone).contains_key(&kid) {
                note(&shared, |tally| &mut tally.unpublished, format!("{address} signed under {kid}, which it does not publish"));
            }
        }
    }
}

fn note(shared: &Shared, count: impl Fn(&mut Tally) -> &mut usize, what: String) {
    let mut tally = lock(&shared.tally);
    *count(&mut tally) += 1;
    if tally.what.len() < 20 {
        tally.what.push(what);
    }
}

/// Verifies what is new, and what is old and lives, until it is told to stop. Returns the fetches of a plain verifier.
async fn work(shared: Arc<Shared>, number: usize, mut kind: Kind, stopped: tokio::sync::watch::Receiver<bool>) -> u32 {
    let mut seen = 0;
    let mut round = number;
    // Not all at once.
    sleep(TICK.mul_f64(number as f64 % 50.0 / 50.0)).await;
    loop {
        let last = *stopped.borrow();
        let chosen: Vec<Arc<Token>> = {
            let tokens = lock(&shared.tokens);
            let new = tokens.iter().skip(seen.max(1)).cloned();
            // The forged one each time, and one that was seen before.
            let old = tokens.len().saturating_sub(1 + round % 40);
            let chosen = tokens.first().into_iter().chain(tokens.get(old)).cloned().chain(new).collect();
            seen = tokens.len();
            chosen
        };
        let spared = matches!(kind, Kind::Library(_)) && !last && !round.is_multiple_of(RARELY);
        round += 7;
        for token in chosen {
            if spared && lock(&shared.gone).contains_key(&token.kid) {
                continue;
            }
            look_at(&shared, &mut kind, &token, last).await;
        }
        if last {
            break;
        }
        sleep(TICK).await;
    }
    match kind {
        Kind::Plain(plain) => plain.fetches,
        Kind::Library(_) => 0,
    }
}

async fn look_at(shared: &Shared, kind: &mut Kind, token: &Token, last: bool) {
    let gone = |kid: &str| lock(&shared.gone).get(kid).copied();
    let before = gone(&token.kid);
    if !token.forged && token.ends - now() < NEARLY_OVER {
        return;
    }
    let began = Instant::now();
    let (verdict, is_plain) = match kind {
        Kind::Plain(plain) => (plain.accepts(&shared.issuer, &token.jwt).await.map_err(|why| why.to_string()), true),
        Kind::Library(verifier) => (
            match verifier.verify(&token.jwt).await {
                Ok(_) => Ok(()),
                Err(Refused::Token(why)) => Err(why.to_string()),
                Err(other) => Err(other.to_string()),
            },
            false,
        ),
    };
    {
        let mut tally = lock(&shared.tally);
        tally.verified += 1;
        // Also one whose key went while it was looked at.
        tally.provoked += usize::from(!is_plain && gone(&token.kid).is_some());
    }
    match (verdict, before) {
        (Ok(()), None) if token.forged => lock(&shared.tally).forged_good += 1,
        (Ok(()), None) => {}
        // The library looks again after its own 240 seconds, which nobody scales, or when it meets a key that it does not
        // know: the last of all, for one that went quietly.
        (Ok(()), Some((_, false))) if !is_plain && !last => {}
        (Ok(()), Some((since, emergency))) if began.saturating_duration_since(since) > LATEST => {
            let what = format!("{} was taken {:.1?} after it was gone", token.kid, began - since);
            match emergency {
                true => note(shared, |tally| &mut tally.withdrawn, what),
                false => note(shared, |tally| &mut tally.retired, what),
            }
        }
        (Ok(()), Some(_)) => {}
        (Err(_), Some(_)) => {}
        (Err(why), None) => {
            if !token.forged && token.ends - now() < NEARLY_OVER {
                return;
            }
            // An emergency may have come a moment ago, and not be known to us.
            sleep(Duration::from_secs(1)).await;
            if gone(&token.kid).is_some() {
                return;
            }
            let unheard = lock(&shared.unheard).is_some_and(|since| {
                since.saturating_duration_since(began) < Duration::from_secs(1)
                    && began.saturating_duration_since(since) < UNHEARD
            });
            match unheard {
                true => lock(&shared.tally).unheard += 1,
                false => {
                    let who = if is_plain { "a plain verifier" } else { "the library" };
                    note(shared, |tally| &mut tally.refused, format!("{who} refused a token under {}: {why}", token.kid));
                }
            }
        }
    }
}
