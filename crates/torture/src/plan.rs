//! What will be done, derived from the seed alone.
//!
//! Each client and each fault source has a random stream of its own, so that what one of them draws never depends on how
//! the others are scheduled.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::proxy::Cut;

/// A part of the run, by its number in the list of tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Part {
    /// Servers are killed.
    T01,
    /// Postgres is killed.
    T02,
    /// The connection between server and Postgres is cut around COMMIT.
    T03,
    /// Clients hang up.
    T04,
}

impl Part {
    pub(crate) const ALL: [Self; 4] = [Self::T01, Self::T02, Self::T03, Self::T04];

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::T01 => "kill -9 a server",
            Self::T02 => "kill -9 Postgres",
            Self::T03 => "cut at COMMIT",
            Self::T04 => "clients hang up",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// How much is done.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sizes {
    /// Honest clients of T01 and T02.
    pub(crate) clients: u32,
    /// Clients of T01 and T02 that replay tokens whose successor was used.
    pub(crate) planters: u32,
    /// Clients of T01 and T02 that replay tokens after their window.
    pub(crate) late_planters: u32,
    /// Kills of a server.
    pub(crate) server_kills: u32,
    /// Kills of Postgres.
    pub(crate) postgres_kills: u32,
    /// Cuts after COMMIT; a quarter as many before it come on top.
    pub(crate) commit_cuts: u32,
    /// Clients that hang up.
    pub(crate) hang_ups: u32,
    /// Clients of T04 among which those are shared: at least as many as ask in parallel afterwards.
    pub(crate) hanging_clients: u32,
    /// The longest time between a server's first answer after a restart and the next kill.
    pub(crate) longest_calm: Duration,
    /// The longest time after Postgres accepts connections until every server serves again; `None` only tells it, on machines
    /// that may be busy with something else.
    pub(crate) longest_recovery: Option<Duration>,
    /// When the run is called hung.
    pub(crate) deadline: Duration,
}

impl Sizes {
    pub(crate) fn full() -> Self {
        Self {
            clients: 160,
            planters: 28,
            late_planters: 12,
            server_kills: 30,
            postgres_kills: 20,
            commit_cuts: 200,
            hang_ups: 2_000,
            hanging_clients: 50,
            longest_calm: Duration::from_secs(6),
            longest_recovery: Some(Duration::from_secs(5)),
            deadline: Duration::from_secs(30 * 60),
        }
    }

    pub(crate) fn short() -> Self {
        Self {
            server_kills: 6,
            postgres_kills: 4,
            commit_cuts: 40,
            hang_ups: 300,
            hanging_clients: 32,
            longest_calm: Duration::from_millis(1_500),
            longest_recovery: None,
            deadline: Duration::from_secs(10 * 60),
            ..Self::full()
        }
    }
}

/// A stream of random numbers that belongs to one thing in the run.
pub(crate) fn stream(seed: u64, what: &str, number: u32) -> StdRng {
    let hash = Sha256::new().chain_update(seed.to_be_bytes()).chain_update(number.to_be_bytes()).chain_update(what).finalize();
    StdRng::from_seed(hash.into())
}

/// What happens to a presentation under load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Pass,
    /// The server answers, the client never hears it.
    Swallow,
    /// The token is sent twice at the same time.
    Duplicate,
}

/// One answer in ten is lost, one request in twenty is sent twice.
pub(crate) fn fate(random: &mut StdRng) -> Fate {
    match random.random_range(0..100) {
        0..10 => Fate::Swallow,
        10..15 => Fate::Duplicate,
        _ => Fate::Pass,
    }
}

/// Where a client hangs up, for a request of that many bytes.
pub(crate) fn hang_up(random: &mut StdRng, request: usize) -> Cut {
    let abrupt = random.random_bool(0.5);
    match random.random_range(0..3) {
        0 => Cut::Request { bytes: random.random_range(0..=request), abrupt },
        // An answer is about this long; a cut behind its end is an answer that arrives.
        1 => Cut::Answer { bytes: random.random_range(1..1_200), abrupt },
        // Some within the work, some before it and some behind.
        _ => Cut::After { micros: random.random_range(0..30_000), abrupt },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_plan_again_and_each_thing_its_own() {
        let draw = |seed, what, number| {
            let mut random = stream(seed, what, number);
            (0..50).map(|_| hang_up(&mut random, 300)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7, "client", 1), draw(7, "client", 1));
        assert_ne!(draw(7, "client", 1), draw(8, "client", 1));
        assert_ne!(draw(7, "client", 1), draw(7, "client", 2));
        assert_ne!(draw(7, "client", 1), draw(7, "kills", 1));
    }

    #[test]
    fn faults_come_as_often_as_they_are_meant_to() {
        let mut random = stream(1, "fates", 0);
        let fates: Vec<_> = (0..100_000).map(|_| fate(&mut random)).collect();
        let share = |wanted| fates.iter().filter(|fate| **fate == wanted).count();
        assert!((9_500..10_500).contains(&share(Fate::Swallow)), "{}", share(Fate::Swallow));
        assert!((4_600..5_400).contains(&share(Fate::Duplicate)), "{}", share(Fate::Duplicate));
    }

    #[test]
    fn hang_ups_reach_every_byte_of_a_request() {
        let mut random = stream(1, "bytes", 0);
        let mut seen = [false; 11];
        for _ in 0..2_000 {
            if let Cut::Request { bytes, .. } = hang_up(&mut random, 10) {
                seen[bytes] = true;
            }
        }
        assert_eq!(seen, [true; 11]);
    }
}
