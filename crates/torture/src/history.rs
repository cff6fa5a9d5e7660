//! What was seen: every call with its times, what went in and what came out.
//!
//! All verdicts are computed from this afterwards, and from the tables. Tokens are kept as the beginning of their SHA-256:
//! enough to tell them apart, nothing to be used.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::plan::Part;

/// The first 64 bits of a SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Digest(pub(crate) u64);

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let hash = Sha256::digest(bytes);
        Self(hash.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

/// What a call was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    /// Begins a family.
    Login,
    /// An honest client presents the newest token that it has.
    Refresh,
    /// A planted replay: a token that must not work any more.
    Replay,
    /// The newest token of a family after a planted replay: it must have died with it.
    Afterwards,
}

/// What the rig did to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The answer was swallowed after the server had sent it.
    Swallowed,
    /// One of two presentations of the same token at the same time.
    Duplicated,
    /// The client hung up in the middle of request or answer.
    HungUp,
    /// The database connection was cut after COMMIT was carried out and before its answer.
    CutAfterCommit,
    /// The database connection was cut before COMMIT arrived.
    CutBeforeCommit,
}

/// One call.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Call {
    pub(crate) id: u64,
    pub(crate) part: Part,
    pub(crate) client: u32,
    /// The rig's own number of the family; 0 for a login without a usable answer.
    pub(crate) family: u32,
    /// Which server.
    pub(crate) server: usize,
    /// Microseconds since the run began.
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) ask: Ask,
    pub(crate) fault: Fault,
    pub(crate) token_in: Option<Digest>,
    /// 0 where there was no answer, or not all of it.
    pub(crate) status: u16,
    /// Whether the client got the answer. One that was swallowed was seen by the rig alone.
    pub(crate) received: bool,
    pub(crate) token_out: Option<Digest>,
    /// Of the whole body.
    pub(crate) body: Option<Digest>,
    /// The access token's id.
    pub(crate) jti: Option<Uuid>,
    /// `error` of the problem document.
    pub(crate) error: Option<String>,
    /// `reason` of the problem document.
    pub(crate) reason: Option<String>,
    /// Whether there was a `Retry-After`.
    pub(crate) retry_after: bool,
}

impl Call {
    /// A new answer to a refresh, whoever saw it.
    pub(crate) fn rotated(&self) -> bool {
        self.status == 200 && self.ask != Ask::Login
    }
}

/// A login's chain of refresh tokens, as its client knows it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Family {
    pub(crate) number: u32,
    pub(crate) part: Part,
    /// The `sid` of its access tokens: the id in the tables.
    pub(crate) sid: Option<Uuid>,
    /// The token that the login gave.
    pub(crate) first_token: Digest,
    /// How long a lost answer can be had again.
    pub(crate) window: Duration,
    /// Somebody replayed a token on purpose.
    pub(crate) planted: bool,
    /// Its client could go on at the end, undisturbed.
    pub(crate) finished: bool,
    /// Its client gave it up with an answer outstanding: nothing is known of its newest token.
    pub(crate) abandoned: bool,
}

/// Everything that was seen.
pub(crate) struct History {
    began: Instant,
    next: AtomicU64,
    calls: Mutex<Vec<Call>>,
    families: Mutex<BTreeMap<u32, Family>>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), next: AtomicU64::new(1), calls: Mutex::default(), families: Mutex::default() }
    }

    /// Microseconds since the run began.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The number of the next call or family.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn saw(&self, call: Call) {
        lock(&self.calls).push(call);
    }

    pub(crate) fn begin(&self, family: Family) {
        lock(&self.families).insert(family.number, family);
    }

    pub(crate) fn change(&self, number: u32, change: impl FnOnce(&mut Family)) {
        if let Some(family) = lock(&self.families).get_mut(&number) {
            change(family);
        }
    }

    pub(crate) fn families(&self) -> Vec<Family> {
        lock(&self.families).values().cloned().collect()
    }

    /// In order of their start.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let mut calls = lock(&self.calls).clone();
        calls.sort_by_key(|call| (call.start, call.id));
        calls
    }

    /// Writes one JSON object a line: how the run was asked for, the families, the calls.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(&self, path: &Path, run: &serde_json::Value) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(file, "{run}")?;
        for family in self.families() {
            writeln!(file, "{}", serde_json::to_string(&family)?)?;
        }
        for call in self.calls() {
            writeln!(file, "{}", serde_json::to_string(&call)?)?;
        }
        file.flush()
    }
}

/// What is behind these locks is whole at every moment, even when a task panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
