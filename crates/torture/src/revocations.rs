//! `make torture-keys ARGS=--revocations`: how long after a revocation the last of 200 verifiers refuses (T24), with three
//! real servers of which any revokes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use claviger_verifier::{CutOff, Refused, Verifier};
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::http::request;
use crate::keys::rig::Rig;
use crate::plan::stream;

/// Verifiers, each with a stream of its own.
const VERIFIERS: usize = 200;
/// Longest that anybody may take.
const WANTED: Duration = Duration::from_secs(1);
/// Between looks at whether it was heard.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// When a revocation is called lost.
const LOST: Duration = Duration::from_secs(10);

/// Measures that many revocations, one after the other. Returns what was found, as text, and whether it is what must be.
pub(crate) async fn measure(claviger: &Path, log: &Path, seed: u64, revocations: usize) -> anyhow::Result<(String, bool)> {
    let rig = Rig::start(claviger, log, seed).await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let closed = CutOff::FailClosed { after: Duration::from_secs(60) };
    let mut verifiers = Vec::new();
    for _ in 0..VERIFIERS {
        let builder = Verifier::builder(&rig.issuer).audience(&rig.issuer).http_client(http.clone());
        verifiers.push(builder.when_cut_off(closed).build()?);
    }
    for verifier in &verifiers {
        timeout(Duration::from_secs(60), verifier.ready()).await?;
    }
    let mut random = stream(seed, "revocations", 0);
    let exchange = request("POST", "/v1/authentications", Some(&rig.pair), Some(&json!({})));
    let mut took = Vec::with_capacity(revocations * VERIFIERS);
    for number in 0..revocations {
        let server = |at: usize| rig.servers.get(at).context("there is no such server");
        let reply = server(random.random_range(0..rig.servers.len()))?.ask(&exchange).await?;
        let reply = reply.json();
        let jwt = reply.get("jwt").and_then(Value::as_str).context("no token was given")?;
        let one = verifiers.get(random.random_range(0..verifiers.len())).context("there is no verifier")?;
        if let Err(refused) = one.verify(jwt).await {
            bail!("a good token was refused: {refused}");
        }
        let revoke = rig.revocation(jwt);
        let began = Instant::now();
        let reply = server(random.random_range(0..rig.servers.len()))?.ask(&revoke).await?;
        if reply.status != 200 {
            bail!("a revocation was answered {}", reply.status);
        }
        let mut deaf: Vec<&Verifier> = verifiers.iter().collect();
        while !deaf.is_empty() {
            deaf.retain(|verifier| {
                let heard = verifier.status().revoked > number;
                if heard {
                    took.push(began.elapsed());
                }
                !heard
            });
            if began.elapsed() > LOST {
                bail!("{} verifiers have not heard of revocation {number} after {LOST:?}", deaf.len());
            }
            if !deaf.is_empty() {
                sleep(LOOK_EVERY).await;
            }
        }
        for verifier in verifiers.iter().skip(number % 20).step_by(20) {
            if verifier.verify(jwt).await != Err(Refused::Revoked) {
                bail!("a verifier that has heard of revocation {number} takes its token");
            }
        }
    }
    took.sort_unstable();
    let at = |share: usize| took.get((took.len() * share / 100).min(took.len().saturating_sub(1))).copied().unwrap_or_default();
    let (median, late, last) = (at(50), at(99), at(100));
    let problems = rig.confessions();
    let mut text: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
    text.push_str(&format!(
        "T24: {revocations} revocations at 3 servers, each heard by {VERIFIERS} verifiers\n\
         from the request that revokes to the refusal: p50 {median:.1?}, p99 {late:.1?}, longest {last:.1?} (wanted: {WANTED:.0?})\n"
    ));
    Ok((text, problems.is_empty() && last <= WANTED))
}
