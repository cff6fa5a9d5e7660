//! Can this server work? What must hold before requests are sent to it.

use chrono::{DateTime, TimeDelta, Utc};
use claviger_store::StoreError;

use crate::{Failure, Fault, Issuer};

/// How far our clock and the database's may be apart: tokens say times, and others' clocks are only forgiven so much.
pub const CLOCK_SKEW: TimeDelta = TimeDelta::seconds(30);

/// Why this server must not be sent requests, with the way out. Nothing in it is secret: causes are in the sources.
#[derive(Debug, thiserror::Error)]
pub enum Unready {
    /// It does not answer, or with an error.
    #[error("the database does not answer: see whether it runs, and whether this server reaches it")]
    Database(#[source] StoreError),
    /// It answers, and its tables are not ours.
    #[error("{0}")]
    Schema(#[source] StoreError),
    /// Its clock and ours differ.
    #[error("the database's clock and ours are {seconds} seconds apart, and more than 30 is too much: set both by NTP")]
    Clock {
        /// How much, in seconds.
        seconds: i64,
    },
    /// Nothing can be signed for the default tenant.
    #[error("the default tenant's signing key is missing or cannot be opened: `claviger doctor` says more")]
    SigningKeys(#[source] Fault),
}

impl Unready {
    /// The check that failed, as a word for programs.
    #[must_use]
    pub fn check(&self) -> &'static str {
        match self {
            Self::Database(_) => "database",
            Self::Schema(_) => "schema",
            Self::Clock { .. } => "clock",
            Self::SigningKeys(_) => "signing_keys",
        }
    }
}

/// Whether two clocks agree well enough.
fn judge_clocks(ours: DateTime<Utc>, theirs: DateTime<Utc>) -> Result<(), Unready> {
    let skew = (theirs - ours).abs();
    match skew > CLOCK_SKEW {
        true => Err(Unready::Clock { seconds: skew.num_seconds() }),
        false => Ok(()),
    }
}

impl Issuer {
    /// Looks whether this server can work: at the database, its schema, its clock, and the default tenant's signing key.
    pub async fn readiness(&self) -> Result<(), Unready> {
        self.store.check().await.map_err(|error| match error {
            StoreError::SchemaVersion { .. } | StoreError::SchemaContracted { .. } => Unready::Schema(error),
            error => Unready::Database(error),
        })?;
        let theirs = self.store.database_time().await.map_err(Unready::Database)?;
        judge_clocks(self.clock.now(), theirs)?;
        match self.default_tenant().await {
            Ok(Some(tenant)) => tenant.signer(&self.clock).map(|_| ()).map_err(Unready::SigningKeys),
            // A new installation: the tenant is made while this server runs.
            Ok(None) => Ok(()),
            Err(Failure::Fault(Fault::Store(error))) => Err(Unready::Database(error)),
            Err(Failure::Fault(fault)) => Err(Unready::SigningKeys(fault)),
            Err(Failure::Refusal(refusal)) => Err(Unready::SigningKeys(Fault::Internal(refusal.to_string()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_be_thirty_seconds_apart_either_way() {
        let ours = DateTime::from_timestamp(1_000_000, 0).unwrap();
        for seconds in [-30, 0, 30] {
            assert!(judge_clocks(ours, ours + TimeDelta::seconds(seconds)).is_ok());
        }
        for seconds in [-31, 31] {
            let unready = judge_clocks(ours, ours + TimeDelta::seconds(seconds)).unwrap_err();
            assert!(matches!(unready, Unready::Clock { seconds: 31 }) && unready.to_string().contains("NTP"));
        }
    }
}
