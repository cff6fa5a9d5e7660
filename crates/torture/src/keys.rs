//! `make torture-keys`: proves that no verifier refuses a good token, and none takes a withdrawn key's, while signing keys
//! follow each other under faults (T06). See docs/torture.md.
//!
//! ```text
//!   issuing clients ──────────────────► three servers ──► Postgres
//!   200 verifiers ──► switchboards ──►  (killed again and again)
//! ```
//!
//! Time is scaled, and every part of it by the same factor: what is 300 seconds for a real installation is 4 here. The
//! servers are the real program; the lead is set beneath its settings' lower limit, in the table; what a retired key waits
//! for is told to Postgres as over by moving that key's times back.

pub(crate) mod rig;
mod switchboard;
mod verifiers;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::sleep;

use crate::plan::stream;
use rig::Rig;
use verifiers::{Fleet, Tally};

/// Real seconds for each second of the run.
pub(crate) const SCALE: u32 = 75;
/// How long verifiers keep the JWK set: 300 seconds.
pub(crate) const TTL: Duration = Duration::from_secs(300 / SCALE as u64);
/// The shortest time between fetches that a verifier makes because of an unknown key: 30 seconds.
pub(crate) const LEAST: Duration = Duration::from_millis(30_000 / SCALE as u64);
/// Seconds that a key is published before it signs: 375 seconds.
pub(crate) const LEAD: u64 = 5;
/// Seconds that tokens live. Not scaled: 5 is the least.
pub(crate) const TOKEN: u64 = 10;
/// For so long after an emergency nobody keeps the JWK set: an hour.
const ALARM: Duration = Duration::from_secs(3600 / SCALE as u64);
/// After an emergency, tokens are under a key that nobody has heard of. Every server publishes it within a second, which nobody
/// scales; who fetched before then may not ask again yet.
pub(crate) const UNHEARD: Duration = LEAST.saturating_add(Duration::from_secs(1));

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    rotations: u32,
    emergencies: u32,
    verifiers: usize,
}

impl Sizes {
    pub(crate) fn new(short: bool) -> Self {
        match short {
            true => Self { rotations: 6, emergencies: 1, verifiers: 200 },
            false => Self { rotations: 20, emergencies: 2, verifiers: 200 },
        }
    }

    /// When the run is called hung.
    pub(crate) fn deadline(self) -> Duration {
        Duration::from_secs(120) + Duration::from_secs(30) * self.rotations
    }

    /// Whether this rotation, counted from 1, is one of the emergencies: they are spread over the run, none at its ends.
    fn is_emergency(self, rotation: u32) -> bool {
        (1..=self.emergencies).any(|n| rotation == self.rotations * n / (self.emergencies + 1))
    }
}

/// Runs it; returns what it found, as text, and whether that is what must be.
pub(crate) async fn torture(claviger: &Path, log: &Path, seed: u64, sizes: Sizes) -> anyhow::Result<(String, bool)> {
    let mut rig = Rig::start(claviger, log, seed).await?;
    let mut random = stream(seed, "keys", 0);
    let began = Instant::now();
    let fleet = Fleet::start(&rig, sizes.verifiers).await?;
    let mut kills = 0;
    let (mut alarmed, mut alarms) = (None, Duration::ZERO);
    for rotation in 1..=sizes.rotations {
        if sizes.is_emergency(rotation) {
            rig.emergency().await?;
            alarmed = alarmed.or(Some(Instant::now()));
        } else {
            let next = rig.publish().await?;
            let published = Instant::now();
            kills += disturb(&mut rig, &mut random, published).await?;
            sleep((Duration::from_secs(LEAD) + Duration::from_millis(200)).saturating_sub(published.elapsed())).await;
            rig.activate(&next).await?;
        }
        if let Some(since) = alarmed.filter(|since| since.elapsed() > ALARM) {
            rig.end_alarm().await?;
            alarms += since.elapsed();
            alarmed = None;
        }
        sleep(random.random_range(Duration::from_millis(100)..Duration::from_secs(1))).await;
    }
    // The key that we know the private half of must go while somebody is there to be fooled with it.
    while !rig.forged_key_is_gone().await? {
        rig.age().await?;
        kills += disturb(&mut rig, &mut random, Instant::now()).await?;
    }
    // One more key, so that everybody has fetched since.
    rig.emergency().await?;
    alarmed = alarmed.or(Some(Instant::now()));
    sleep(TTL * 2).await;
    alarms += alarmed.map_or(Duration::ZERO, |since| since.elapsed());
    let tally = fleet.stop(&rig, alarms).await?;
    let mut problems = rig.confessions();
    problems.extend(rig.check_audit().err().map(|error| format!("the audit trail is not whole: {error}")));
    Ok(report(sizes, kills, began.elapsed(), &tally, &problems))
}

/// Kills two servers, one after the other, at moments before a next key's turn, and starts them again.
async fn disturb(rig: &mut Rig, random: &mut StdRng, published: Instant) -> anyhow::Result<u32> {
    for _ in 0..2 {
        sleep(random.random_range(Duration::from_millis(50)..Duration::from_millis(900))).await;
        // What a retired key waits for is over: the server that comes back moves it on.
        rig.age().await?;
        let victim = random.random_range(0..rig.servers.len());
        let server = rig.servers.get_mut(victim).context("there is no such server")?;
        server.kill()?;
        sleep(random.random_range(Duration::from_millis(0)..Duration::from_millis(400))).await;
        server.run()?;
        server.wait_until_ready().await?;
        if published.elapsed() > Duration::from_secs(LEAD) {
            return Ok(1);
        }
    }
    Ok(2)
}

fn report(sizes: Sizes, kills: u32, took: Duration, tally: &Tally, problems: &[String]) -> (String, bool) {
    let Tally {
        tokens,
        verified,
        refused,
        unheard,
        unpublished,
        withdrawn,
        retired,
        forged_good,
        plain_fetches,
        library_fetches,
        provoked: _,
        what,
    } = tally;
    let must = [
        ("valid tokens refused", *refused),
        ("tokens under an unpublished key", *unpublished),
        ("withdrawn key accepted after the TTL", *withdrawn),
        ("retired key accepted after its window", *retired),
    ];
    let mut text = String::new();
    for problem in problems.iter().chain(what).take(50) {
        text.push_str(&format!("{problem}\n"));
    }
    text.push_str(&format!(
        "T06: {} rotations, {} of them emergencies, {kills} kills of one of 3 servers, {} verifiers, in {took:.1?}\n\
         {tokens} tokens, {verified} verifications; times are a {SCALE}th of real ones\n",
        sizes.rotations + 1,
        sizes.emergencies + 1,
        sizes.verifiers,
    ));
    for (label, count) in must {
        text.push_str(&format!("{label:<45}{count:>8}\n"));
    }
    let (plain, library) = (*plain_fetches, *library_fetches);
    text.push_str(&format!(
        "{:<45}{plain:>8.2}\n{:<45}{library:>8.2}\n{:<45}{unheard:>8}\n{:<45}{forged_good:>8}\n",
        "JWKS fetches per plain verifier and TTL, most",
        "JWKS fetches per library verifier and TTL",
        "refused within 1.4 s of an emergency",
        "a known key's tokens taken in its window",
    ));
    let passed = problems.is_empty()
        && must.iter().all(|(_, count)| *count == 0)
        && *tokens > 0
        && *verified > 0
        // Who was never fooled proves nothing.
        && *forged_good > 0
        && plain <= 1.0
        // It fetches ahead, at four fifths of the time.
        && library <= 1.25;
    (text, passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emergencies_are_spread_and_as_many_as_were_asked_for() {
        for short in [true, false] {
            let sizes = Sizes::new(short);
            let at: Vec<u32> = (1..=sizes.rotations).filter(|rotation| sizes.is_emergency(*rotation)).collect();
            assert_eq!(at.len(), usize::try_from(sizes.emergencies).unwrap());
            assert!(!at.contains(&1) && !at.contains(&sizes.rotations));
        }
    }

    #[test]
    fn one_wrong_count_fails_the_run() {
        let good = Tally { tokens: 1, verified: 1, forged_good: 1, plain_fetches: 1.0, library_fetches: 0.1, ..Tally::default() };
        let passed = |tally: &Tally, problems: &[String]| report(Sizes::new(true), 1, TTL, tally, problems).1;
        assert!(passed(&good, &[]));
        assert!(!passed(&good, &["a panic".to_owned()]));
        for bad in [
            Tally { refused: 1, ..good.clone() },
            Tally { unpublished: 1, ..good.clone() },
            Tally { withdrawn: 1, ..good.clone() },
            Tally { retired: 1, ..good.clone() },
            Tally { plain_fetches: 1.01, ..good.clone() },
            Tally { library_fetches: 1.26, ..good.clone() },
            Tally { forged_good: 0, ..good.clone() },
            Tally { tokens: 0, ..good.clone() },
        ] {
            assert!(!passed(&bad, &[]), "{bad:?}");
        }
    }
}
