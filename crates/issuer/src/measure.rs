//! What operators measure: deeds by their outcome, and how much work is waiting.
//!
//! Counters are looked up once and kept, so that counting costs an addition. Collecting must have begun before the first
//! deed; without a collector nothing is counted.

use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use claviger_store::Connections;
use metrics::{Counter, Histogram};

use crate::{Failure, Issuer};

/// Pairs presented for a token.
pub(crate) static EXCHANGES: Tally<3> = Tally::new("claviger_exchanges_total", ["done", "refused", "failed"]);
/// Passwords presented by people.
pub(crate) static LOGINS: Tally<3> = Tally::new("claviger_logins_total", ["done", "refused", "failed"]);
/// Refresh tokens presented.
pub(crate) static REFRESHES: Tally<6> =
    Tally::new("claviger_refresh_total", ["rotated", "replayed_parallel", "replayed_lost_answer", "reuse", "refused", "failed"]);
/// Questions about callers.
pub(crate) static VERIFICATIONS: Tally<4> =
    Tally::new("claviger_verifications_total", ["allowed", "denied", "refused", "failed"]);
/// Entries handed over to the audit trail.
pub(crate) static AUDIT_ENTRIES: LazyLock<Counter> = LazyLock::new(|| metrics::counter!("claviger_audit_entries_total"));
/// Deeds written with one commit.
pub(crate) static RECORD_BATCH: LazyLock<Histogram> = LazyLock::new(|| metrics::histogram!("claviger_record_batch_deeds"));
/// From handing over a deed until it was durable.
pub(crate) static RECORD_WAIT: LazyLock<Histogram> = LazyLock::new(|| metrics::histogram!("claviger_record_wait_seconds"));
/// From hearing of a revocation until its readers were told.
pub(crate) static FEED_DELAY: LazyLock<Histogram> =
    LazyLock::new(|| metrics::histogram!("claviger_revocation_feed_delay_seconds"));

/// A counter for each of a few outcomes.
pub(crate) struct Tally<const N: usize> {
    name: &'static str,
    words: [&'static str; N],
    counters: [OnceLock<Counter>; N],
}

impl<const N: usize> Tally<N> {
    const fn new(name: &'static str, words: [&'static str; N]) -> Self {
        Self { name, words, counters: [const { OnceLock::new() }; N] }
    }

    /// Counts one. A word that is not in the list is not counted.
    pub(crate) fn count(&self, word: &'static str) {
        let found = self.words.iter().zip(&self.counters).find(|(known, _)| **known == word);
        debug_assert!(found.is_some(), "{word} is no outcome of {}", self.name);
        if let Some((word, counter)) = found {
            counter.get_or_init(|| metrics::counter!(self.name, "outcome" => *word)).increment(1);
        }
    }

    /// Counts what a flow came to, and hands it on.
    pub(crate) fn of<T>(&self, done: impl FnOnce(&T) -> &'static str, outcome: Result<T, Failure>) -> Result<T, Failure> {
        self.count(match &outcome {
            Ok(value) => done(value),
            Err(Failure::Refusal(_)) => "refused",
            Err(Failure::Fault(_)) => "failed",
        });
        outcome
    }
}

/// How much is waiting and in hand at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Connections for requests.
    pub connections: Connections,
    /// Deeds that wait for the writer.
    pub record_queue: usize,
    /// Readers of revocation feeds that wait.
    pub feed_readers: usize,
    /// Passwords that wait for a thread.
    pub password_queue: usize,
    /// Passwords that are being hashed.
    pub passwords_running: usize,
    /// Since when changes made elsewhere may have been missed. Past five seconds nothing is served from memory.
    pub news_age: Duration,
}

impl Issuer {
    /// How much is waiting and in hand now.
    #[must_use]
    pub fn load(&self) -> Load {
        let (password_queue, passwords_running) = self.hasher.load();
        Load {
            connections: self.store.connections(),
            record_queue: self.recorder.waiting(),
            feed_readers: self.feeds.readers(),
            password_queue,
            passwords_running,
            news_age: self.directory.news_age(),
        }
    }
}
