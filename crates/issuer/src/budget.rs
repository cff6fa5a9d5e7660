//! How often a key may still be used, over all servers.
//!
//! A server takes a slice of what is left of a window from the database, and gives it out by itself: a generous limit costs a
//! write now and then, a small one a write each time. What was taken and not given out is lost with the window, so never more is
//! given out than there is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Datelike as _, TimeDelta, TimeZone as _, Utc};
use claviger_store::id::{KeyId, TenantId};
use moka::sync::Cache;

use crate::exchange::VerifiedKey;
use crate::limits::{KeyLimits, Period, Quota, RateLimit};
use crate::settings::RequestInfo;
use crate::{Failure, Issuer, Refusal};

/// Slices of a window.
const SLICES: i64 = 50;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The rate limit.
    Rate,
    /// The quota.
    Quota,
}

impl Kind {
    /// As policies and rows name it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Quota => "quota",
        }
    }
}

/// A limit, and the window of it that is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    kind: Kind,
    limit: i64,
    begins: DateTime<Utc>,
    ends: DateTime<Utc>,
}

/// What is left of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// Which.
    pub kind: Kind,
    /// Uses in a window.
    pub limit: i64,
    /// Seconds of a window.
    pub window: i64,
    /// Uses that are left of it, as far as this server knows.
    pub left: i64,
    /// Seconds until it ends.
    pub ends_in: i64,
}

fn windows(limits: &KeyLimits, now: DateTime<Utc>) -> Vec<Window> {
    let mut windows = Vec::new();
    if let Some(RateLimit { requests, seconds }) = limits.rate_limit {
        let begins = now.timestamp().div_euclid(seconds) * seconds;
        let at = |seconds| DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        windows.push(Window { kind: Kind::Rate, limit: requests, begins: at(begins), ends: at(begins + seconds) });
    }
    if let Some(Quota { requests, period }) = limits.quota {
        let (begins, ends) = match period {
            Period::Day => {
                let day = now.timestamp().div_euclid(86_400) * 86_400;
                (DateTime::UNIX_EPOCH + TimeDelta::seconds(day), DateTime::UNIX_EPOCH + TimeDelta::seconds(day + 86_400))
            }
            Period::Month => {
                let (year, month) = (now.year(), now.month());
                let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                let first = |(year, month)| Utc.with_ymd_and_hms(year, month, 1, 0, 0, 0).single().unwrap_or(now);
                (first((year, month)), first(next))
            }
        };
        windows.push(Window { kind: Kind::Quota, limit: requests, begins, ends });
    }
    windows
}

/// How much a server takes at once.
fn slice(limit: i64) -> i64 {
    (limit / SLICES).max(1)
}

/// What a server has of a window.
#[derive(Debug, Clone, Copy)]
struct Share {
    begins: DateTime<Utc>,
    limit: i64,
    left: i64,
    /// Used by everybody, as far as was heard.
    used: i64,
    exhausted: bool,
}

/// What this server has.
pub(crate) struct Budgets(Cache<(TenantId, KeyId, Kind), Arc<tokio::sync::Mutex<Option<Share>>>>);

impl Budgets {
    pub(crate) fn new() -> Self {
        Self(Cache::builder().max_capacity(100_000).time_to_idle(Duration::from_secs(3600)).build())
    }
}

/// What is told of a key's limits with an answer.
#[derive(Debug, Clone, Default)]
pub struct Told(Arc<Mutex<Vec<Remaining>>>);

impl Told {
    fn tell(&self, remaining: Vec<Remaining>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = remaining;
    }

    /// What was said.
    #[must_use]
    pub fn heard(&self) -> Vec<Remaining> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Issuer {
    /// Takes one use of a key from its limits. Keys without limits pay nothing.
    pub async fn take(&self, key: &VerifiedKey, request: &RequestInfo, now: DateTime<Utc>) -> Result<(), Failure> {
        let windows = windows(&key.entry.limits, now);
        if windows.is_empty() {
            return Ok(());
        }
        let mut all = Vec::with_capacity(windows.len());
        let mut exhausted = None;
        for window in windows {
            let (left, given) = self.take_of(key, window, now).await?;
            let ends_in = (window.ends - now).num_seconds().max(0);
            let length = (window.ends - window.begins).num_seconds();
            all.push(Remaining { kind: window.kind, limit: window.limit, window: length, left, ends_in });
            if !given {
                exhausted = Some((window.kind, ends_in));
                break;
            }
        }
        request.told.tell(all);
        match exhausted {
            None => Ok(()),
            Some((kind, ends_in)) => {
                let reason = match kind {
                    Kind::Rate => "rate_limited",
                    Kind::Quota => "quota_exhausted",
                };
                Err(Refusal::UsedUp { reason, retry_after: u64::try_from(ends_in).unwrap_or(0) + 1 }.into())
            }
        }
    }

    /// What is left afterwards, and whether one was given.
    async fn take_of(&self, key: &VerifiedKey, window: Window, now: DateTime<Utc>) -> Result<(i64, bool), Failure> {
        let tenant = key.entry.tenant;
        let id = &key.entry.key.id;
        let place = self.budgets.0.get_with((tenant, id.clone(), window.kind), Arc::default);
        let mut share = place.lock().await;
        let current = share.filter(|share| share.begins == window.begins && share.limit == window.limit);
        let mut held =
            current.unwrap_or(Share { begins: window.begins, limit: window.limit, left: 0, used: 0, exhausted: false });
        if held.left == 0 && !held.exhausted {
            let mut tx = self.store.begin_brief(tenant).await?;
            let mut scoped = tx.tenant(tenant).await?;
            for wanted in [slice(window.limit), 1] {
                let kind = window.kind.word();
                if let Some(used) = scoped.take_budget(id, kind, window.begins, wanted, window.limit).await? {
                    (held.left, held.used) = (wanted, used);
                    break;
                }
            }
            tx.commit().await?;
            held.exhausted = held.left == 0;
        }
        let given = held.left > 0;
        if given {
            held.left -= 1;
        }
        *share = Some(held);
        // A clock that was set back must not make a window of its own.
        let left = if now < window.ends { (held.limit - held.used + held.left).max(0) } else { 0 };
        Ok((if held.exhausted { 0 } else { left }, given))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_follow_the_clock() {
        let limits = KeyLimits {
            rate_limit: Some(RateLimit { requests: 100, seconds: 60 }),
            quota: Some(Quota { requests: 1000, period: Period::Month }),
            ..KeyLimits::default()
        };
        let now = Utc.with_ymd_and_hms(2026, 12, 31, 23, 59, 30).unwrap();
        let both = windows(&limits, now);
        assert_eq!(both[0].begins, Utc.with_ymd_and_hms(2026, 12, 31, 23, 59, 0).unwrap());
        assert_eq!(both[0].ends, Utc.with_ymd_and_hms(2027, 1, 1, 0, 0, 0).unwrap());
        assert_eq!(both[1].begins, Utc.with_ymd_and_hms(2026, 12, 1, 0, 0, 0).unwrap());
        assert_eq!(both[1].ends, Utc.with_ymd_and_hms(2027, 1, 1, 0, 0, 0).unwrap());
        assert!(windows(&KeyLimits::default(), now).is_empty());
    }

    #[test]
    fn slices_are_small_parts_of_a_limit() {
        assert_eq!(slice(1), 1);
        assert_eq!(slice(49), 1);
        assert_eq!(slice(1000), 20);
    }
}
