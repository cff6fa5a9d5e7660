//! Failed logins: counted before they are looked at, by account and address, over all replicas and restarts.
//!
//! Whoever fails again and again from one place is not looked at for a while; the same account from elsewhere is. A known
//! device has counts of its own, so that nobody else's failures lock its user out.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use claviger_store::attempt::Bucket;
use claviger_store::{StoreError, TenantTx};

use crate::secret::Peppers;
use crate::settings::LoginThrottle;
use crate::throttle::network;

/// The longest count.
const DAY: i32 = 86_400;

/// Where an attempt counts.
struct Count {
    bucket: Bucket,
    /// Attempts in a window.
    limit: i32,
    /// Seconds.
    window: i32,
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
}

impl Counted {
    /// What is given back when it succeeds: all of the narrowest count, and this one of each other.
    pub(crate) fn succeeded(&self) -> Vec<(Bucket, i32)> {
        std::iter::once((self.narrow, i32::MAX)).chain(self.wide.iter().map(|bucket| (*bucket, 1))).collect()
    }

    /// What is given back when it was not looked at after all.
    pub(crate) fn not_looked_at(&self) -> Vec<(Bucket, i32)> {
        std::iter::once(self.narrow).chain(self.wide.iter().copied()).map(|bucket| (bucket, 1)).collect()
    }
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
                wide: vec![count(&["device in a day", device, account], in_a_day, DAY)?],
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

    /// Counts it. `Err` holds the seconds until attempts are looked at again, if this one is not.
    pub(crate) async fn count(&self, tx: &mut TenantTx<'_>, now: DateTime<Utc>) -> Result<Result<Counted, u64>, StoreError> {
        let all: Vec<&Count> = std::iter::once(&self.narrow).chain(&self.wide).collect();
        let asked: Vec<_> = all.iter().map(|count| (count.bucket, count.window)).collect();
        let counted = tx.count_attempt(&asked, now).await?;
        let full = all.iter().zip(&counted).filter(|(count, counted)| counted.used > count.limit);
        let until = full.map(|(_, counted)| counted.forgotten_at).max();
        let Some(until) = until else {
            let wide = self.wide.iter().map(|count| count.bucket).collect();
            return Ok(Ok(Counted { narrow: self.narrow.bucket, wide }));
        };
        if counted.first().is_some_and(|counted| counted.used > self.narrow.limit) {
            // One place that goes on and on must not use up what others have in common with it.
            let wide: Vec<_> = self.wide.iter().map(|count| (count.bucket, 1)).collect();
            tx.give_back_attempts(&wide).await?;
        }
        Ok(Err(u64::try_from((until - now).num_seconds()).unwrap_or(0) + 1))
    }
}
