//! Failed logins: counted before they are looked at, by account and address, over all replicas and restarts.
//!
//! Whoever fails again and again from one place is not looked at for a while; the same account from elsewhere is. A known
//! device has counts of its own, so that nobody else's failures lock its user out. What is not looked at counts nowhere:
//! one place that goes on and on must not use up what others have in common with it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
pub(crate) use claviger_store::attempt::Bucket;
use claviger_store::attempt::Counted as Row;
use claviger_store::id::TenantId;
use claviger_store::{Store, StoreError};
use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::secret::Peppers;
use crate::settings::LoginThrottle;
use crate::throttle::network;
use crate::{Failure, Fault, Refusal};

/// The longest count.
const DAY: i32 = 86_400;
/// Places that something is remembered about.
const REMEMBERED: u64 = 100_000;
/// Attempts that are counted at the same time: the rest of the database's connections is for others.
const COUNTED_AT_ONCE: usize = 4;
/// How long an attempt waits for others of the same place that are being looked at.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where an attempt counts.
struct Count {
    bucket: Bucket,
    /// Attempts in a window.
    limit: i32,
    /// Seconds.
    window: i32,
}

impl Count {
    fn asked(&self) -> (Bucket, i32) {
        (self.bucket, self.window)
    }

    fn is_full(&self, row: &Row) -> bool {
        row.used > self.limit
    }
}

/// The counts of an attempt: the narrowest, and the wider ones.
pub(crate) struct Attempts {
    narrow: Count,
    wide: Vec<Count>,
}

/// An attempt that was counted, and is looked at.
pub(crate) struct Counted {
    narrow: Bucket,
    wide: Vec<Bucket>,
    /// Lets the next of the same place be looked at.
    turn: OwnedSemaphorePermit,
}

/// Why an attempt is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GivenBack {
    /// It succeeded: so is all that failed in the same place before.
    Succeeded,
    /// It was not looked at after all.
    NotLookedAt,
}

impl Attempts {
    /// `device` is a known one. What is counted is digested under a pepper: a name that was typed may be a password in the
    /// wrong field.
    pub(crate) fn of(
        peppers: &Peppers,
        rule: &LoginThrottle,
        account: &str,
        device: Option<&str>,
        address: Option<IpAddr>,
    ) -> Option<Self> {
        let digest = |parts: &[&str]| {
            // Lengths first, so that no two lists of parts are one text.
            let text: String = parts.iter().map(|part| format!("{}:{part},", part.len())).collect();
            peppers.digest("login attempt", &[text.as_bytes()]).map(|(_, digest)| digest)
        };
        let count = |parts: &[&str], limit, window| Some(Count { bucket: digest(parts)?, limit, window });
        let LoginThrottle { failures, window, account: in_a_day, address: from_address, tenant } = *rule;
        if let Some(device) = device {
            return Some(Self {
                narrow: count(&["device", device, account], failures, window)?,
                wide: vec![
                    count(&["device in a day", device, account], in_a_day, DAY)?,
                    // However many devices somebody collected while they knew the password.
                    count(&["all devices in a day", account], in_a_day.saturating_mul(2), DAY)?,
                ],
            });
        }
        let address = network(address).to_string();
        Some(Self {
            narrow: count(&["account and address", account, &address], failures, window)?,
            wide: vec![
                count(&["account", account], in_a_day, DAY)?,
                count(&["address", &address], from_address, window)?,
                count(&["tenant"], tenant, window)?,
            ],
        })
    }
}

/// What this server remembers of places that attempts come from.
pub(crate) struct Places {
    /// As many attempts of one place are looked at at once as may fail: who knows the password and comes often is not taken
    /// for who guesses.
    turns: Cache<(TenantId, Bucket), Arc<Semaphore>>,
    /// Places that used up their attempts, until when, and how many that were: asked again and again, the database would
    /// only say the same.
    full: Cache<(TenantId, Bucket), (DateTime<Utc>, i32)>,
    counting: Semaphore,
}

impl Places {
    pub(crate) fn new() -> Self {
        Self {
            turns: Cache::builder().max_capacity(REMEMBERED).time_to_idle(Duration::from_secs(60)).build(),
            // Briefly: somebody may succeed at another server.
            full: Cache::builder().max_capacity(REMEMBERED).time_to_live(Duration::from_secs(5)).build(),
            counting: Semaphore::new(COUNTED_AT_ONCE),
        }
    }

    /// Counts an attempt.
    pub(crate) async fn count(
        &self,
        store: &Store,
        tenant: TenantId,
        attempts: &Attempts,
        now: DateTime<Utc>,
    ) -> Result<Counted, Failure> {
        let Attempts { narrow, wide } = attempts;
        let place = (tenant, narrow.bucket);
        let turns = self.turns.get_with(place, || Arc::new(Semaphore::new(usize::try_from(narrow.limit).unwrap_or(1))));
        let turn = tokio::time::timeout(PATIENCE, turns.acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(Fault::Overloaded("logins of one account from one place").into()) };
        if let Some((until, limit)) = self.full.get(&place)
            && limit == narrow.limit
            && now < until
        {
            return Err(throttled(until, now));
        }
        let counting = tokio::time::timeout(PATIENCE, self.counting.acquire()).await;
        let Ok(Ok(_counting)) = counting else { return Err(Fault::Overloaded("the counting of logins").into()) };
        let mut tx = store.begin_brief(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        let row = scoped.count_attempt(&[narrow.asked()], now).await?.into_iter().next().ok_or_else(gone)?;
        if narrow.is_full(&row) {
            tx.commit().await?;
            self.full.insert(place, (row.forgotten_at, narrow.limit));
            return Err(throttled(row.forgotten_at, now));
        }
        // Last, and committed at once: these are what many have in common.
        let asked: Vec<_> = wide.iter().map(Count::asked).collect();
        let rows = scoped.count_attempt(&asked, now).await?;
        let full = wide.iter().zip(&rows).filter(|(count, row)| count.is_full(row));
        if let Some(until) = full.map(|(_, row)| row.forgotten_at).max() {
            // Undone, so that it counts nowhere.
            drop(tx);
            return Err(throttled(until, now));
        }
        tx.commit().await?;
        let wide = wide.iter().map(|count| count.bucket).collect();
        Ok(Counted { narrow: narrow.bucket, wide, turn })
    }
}

impl Places {
    /// Gives a counted attempt back, in a transaction of its own: nothing else waits for these rows. If that cannot be
    /// written, it stays counted.
    pub(crate) async fn give_back(&self, store: &Store, tenant: TenantId, counted: Counted, why: GivenBack) {
        let Counted { narrow, wide, turn } = counted;
        if why == GivenBack::Succeeded {
            self.full.invalidate(&(tenant, narrow));
        }
        let store = store.clone();
        let given_back = async move {
            let mut tx = store.begin_brief(tenant).await?;
            let mut scoped = tx.tenant(tenant).await?;
            let all = if why == GivenBack::Succeeded { i32::MAX } else { 1 };
            // In the order in which they are counted: the narrow one, then those that many have in common.
            scoped.give_back_attempts(&[(narrow, all)]).await?;
            let wide: Vec<_> = wide.into_iter().map(|bucket| (bucket, 1)).collect();
            scoped.give_back_attempts(&wide).await?;
            tx.commit().await
        };
        // To its end, also when the caller hangs up.
        match tokio::spawn(given_back).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(tenant.id = %tenant, error = %error, "an attempt stays counted"),
            Err(error) => tracing::warn!(tenant.id = %tenant, error = %error, "an attempt stays counted"),
        }
        // Now the next of the same place may be counted.
        drop(turn);
    }
}

fn throttled(until: DateTime<Utc>, now: DateTime<Utc>) -> Failure {
    Refusal::Throttled { retry_after: u64::try_from((until - now).num_seconds()).unwrap_or(0) + 1 }.into()
}

fn gone() -> StoreError {
    StoreError::ImpossibleRow { table: "attempts", what: "a count that is not there".into() }
}
