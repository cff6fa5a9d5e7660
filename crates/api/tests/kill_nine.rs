//! `kill -9` under load, again and again: no token is out that the database does not know.
//!
//! `KILLS` says how often (default 20), `SEED` repeats the moments of an earlier run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod binary_support;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use binary_support::{Home, Pair, wait_until};
use claviger_issuer::random::Random;
use nix::sys::signal::{Signal, kill};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use sqlx::Row as _;

const CLIENTS: usize = 16;
/// Every so often the database is killed along with the server, and has to recover.
const DATABASE_TOO: usize = 5;

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    /// Which key received which tokens.
    received: Mutex<Vec<(String, String)>>,
    /// Answers by status; 0 is none at all.
    answers: Mutex<HashMap<u16, u64>>,
    sent: AtomicU64,
}

/// Exchanges until it is told to stop, whatever happens to the server.
async fn exchange_on_and_on(load: Arc<Load>, url: String, pair: Pair) {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
    while !load.stop.load(Ordering::Relaxed) {
        load.sent.fetch_add(1, Ordering::Relaxed);
        let answer = http.post(&url).header("Authorization", pair.text()).send().await;
        let status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
        *load.answers.lock().unwrap().entry(status).or_default() += 1;
        // A body that breaks off is a token that was not received.
        if let Ok(answer) = answer
            && status == 201
            && let Ok(body) = answer.json::<Value>().await
        {
            load.received.lock().unwrap().push((pair.key.clone(), body["jwt"].as_str().unwrap().to_owned()));
        } else if status == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn jti(jwt: &str) -> String {
    use base64::Engine as _;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["jti"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t01_t02_no_token_is_out_that_the_database_does_not_know_after_kill_minus_nine() {
    let kills = from_environment("KILLS").unwrap_or(20_usize);
    let seed = from_environment("SEED").unwrap_or_else(|| u64::from_le_bytes(Random::from_system().bytes()));
    println!("SEED={seed} KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);

    let home = Home::new();
    let mut serving = home.serve().await;
    wait_until("the admin key is printed", async || serving.out().contains("/docs")).await;
    let mut pairs = vec![serving.admin()];
    for tenant in ["acme", "other"] {
        home.ok(&["tenant", "create", tenant]);
        pairs.push(Pair::of(&home.json(&["create-key", "--tenant", tenant, "--email", "load@example.com"])));
    }
    let load = Arc::new(Load::default());
    let url = serving.url("/v1/authentications");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| tokio::spawn(exchange_on_and_on(load.clone(), url.clone(), pairs[client % pairs.len()].clone())))
        .collect();

    let port = serving.port;
    let mut ready_after = Vec::new();
    for round in 1..=kills {
        let before = load.received.lock().unwrap().len();
        let moment = Duration::from_millis(random.random_range(20..600));
        // A kill that finds nobody at work proves nothing.
        wait_until("tokens are issued again", async || load.received.lock().unwrap().len() > before).await;
        tokio::time::sleep(moment).await;
        let postmaster = home.postmaster();
        let ended = serving.kill();
        if round % DATABASE_TOO == 0
            && let Some(postmaster) = postmaster
        {
            let _ = kill(postmaster, Signal::SIGKILL);
        }
        assert!(!ended.err.contains("panicked"), "{}", ended.err);
        let began = Instant::now();
        serving = home.serve_on(port).await;
        ready_after.push(began.elapsed());
        let received = load.received.lock().unwrap().len();
        println!("kill {round}: {moment:?} into the load, {received} tokens so far, ready again after {:?}", began.elapsed());
    }
    let before = load.received.lock().unwrap().len();
    wait_until("tokens are issued again", async || load.received.lock().unwrap().len() > before).await;
    load.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    println!(
        "{} requests, answers by status {:?}, slowest restart {:?}",
        load.sent.load(Ordering::Relaxed),
        load.answers.lock().unwrap(),
        ready_after.iter().max()
    );
    assert!(load.answers.lock().unwrap().keys().all(|status| [0, 201, 503].contains(status)), "a valid pair was refused");

    let received = std::mem::take(&mut *load.received.lock().unwrap());
    let out: HashMap<String, String> = received.iter().map(|(key, jwt)| (jti(jwt), key.clone())).collect();
    assert_eq!(out.len(), received.len(), "a token id was given twice");
    assert!(out.len() > kills);
    let mut database = home.superuser().await;
    let rows = sqlx::query("SELECT jti::text, key_id FROM issued_tokens").fetch_all(&mut database).await.unwrap();
    let kept: HashMap<String, String> = rows.into_iter().map(|row| (row.get(0), row.get(1))).collect();
    let audit = "SELECT target, actor FROM audit_entries WHERE action = 'key.exchange' AND outcome = 'ok'";
    let rows = sqlx::query(audit).fetch_all(&mut database).await.unwrap();
    let audited: Vec<(String, String)> = rows.into_iter().map(|row| (row.get(0), row.get(1))).collect();
    drop(database);
    for (jti, key) in &out {
        assert_eq!(kept.get(jti), Some(key), "the token {jti} is out and has no row");
    }
    // Exactly one entry for each row: so each token that is out has its entry, and no deed is told twice.
    assert_eq!(audited.len(), kept.len());
    let audited: HashSet<(String, String)> = audited.into_iter().collect();
    for (jti, key) in &kept {
        assert!(audited.contains(&(format!("token:{jti}"), format!("key:{key}"))), "the token {jti} has no audit entry");
    }
    println!("{} tokens received, {} recorded: {} answers were lost by kills", out.len(), kept.len(), kept.len() - out.len());

    // Chains are whole: beside the server, and by themselves.
    let verified = home.json(&["audit", "verify"]);
    assert!(verified.as_array().unwrap().len() == 3 && verified.as_array().unwrap().iter().all(|one| one["sound"] == true));
    let ended = serving.stop().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    home.postgres_is_down().await;
    home.ok(&["audit", "verify"]);
}
