//! Where time comes from: read once per request and passed on.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

/// What the system's steady time is counted from.
static BEGINNING: OnceLock<Instant> = OnceLock::new();

/// A clock: the system's, or one that a test advances.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The system's.
    #[default]
    System,
    /// Stands still until advanced. Microseconds since 1970.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `now`.
    #[must_use]
    pub fn manual(now: DateTime<Utc>) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(now.timestamp_micros())))
    }

    /// The time, in whole microseconds: what Postgres can keep.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        let micros = match self {
            #[expect(clippy::disallowed_methods, reason = "the one place where ambient time comes in")]
            Self::System => Utc::now().timestamp_micros(),
            Self::Manual(micros) => micros.load(Ordering::SeqCst),
        };
        DateTime::from_timestamp_micros(micros).unwrap_or_default()
    }

    /// Time since some moment, for durations that are remembered: it never steps. That of a manual clock is its time.
    #[must_use]
    pub fn steady(&self) -> Duration {
        match self {
            Self::System => BEGINNING.get_or_init(Instant::now).elapsed(),
            Self::Manual(micros) => Duration::from_micros(u64::try_from(micros.load(Ordering::SeqCst)).unwrap_or(0)),
        }
    }

    /// Moves a manual clock; the system's goes its own way.
    pub fn advance(&self, by: TimeDelta) {
        if let Self::Manual(micros) = self {
            micros.fetch_add(by.num_microseconds().unwrap_or(0), Ordering::SeqCst);
        }
    }
}
