//! Refusals of callers who are known are written down with why, and no flood of them fills the trail.
//!
//! What a refusal's entry says is one convention: `reason`, a word, and `missing`, what would have been needed.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use claviger_store::id::TenantId;
use moka::sync::Cache;
use serde_json::{Value, json};

use crate::audit::{Draft, Outcome};
use crate::caller::Caller;
use crate::record::Entry;
use crate::{Failure, Issuer};

/// Alike refusals of one caller that are written down in a minute.
const WRITTEN: u32 = 10;
/// The minute.
const WINDOW: TimeDelta = TimeDelta::seconds(60);

/// What the entry of a refusal says of why.
pub(crate) struct Why<'a> {
    /// A word.
    pub(crate) reason: &'a str,
    /// What would have been needed, by kind: `scopes`, `roles`, `policy`.
    pub(crate) missing: Option<Value>,
}

impl Why<'_> {
    pub(crate) fn detail(&self) -> Value {
        match &self.missing {
            Some(missing) => json!({ "reason": self.reason, "missing": missing }),
            None => json!({ "reason": self.reason }),
        }
    }
}

/// How often somebody was refused alike.
struct Alike {
    began: DateTime<Utc>,
    count: u32,
}

/// Counts refusals that are alike. Of the 10,000 that were refused last.
pub(crate) struct Floods(Cache<u64, Arc<Mutex<Alike>>>);

impl Floods {
    pub(crate) fn new() -> Self {
        Self(Cache::builder().max_capacity(10_000).time_to_idle(Duration::from_secs(300)).build())
    }

    /// Whether one more is written down: with how many that were not, since the last that was. `None` when it is not.
    fn admit(&self, alike: u64, now: DateTime<Utc>) -> Option<u32> {
        let alike = self.0.get_with(alike, || Arc::new(Mutex::new(Alike { began: now, count: 0 })));
        let mut alike = alike.lock().unwrap_or_else(PoisonError::into_inner);
        let unwritten = alike.count.saturating_sub(WRITTEN);
        if now - alike.began >= WINDOW {
            *alike = Alike { began: now, count: 1 };
            return Some(unwritten);
        }
        alike.count = alike.count.saturating_add(1);
        (alike.count <= WRITTEN).then_some(0)
    }
}

impl Issuer {
    /// Writes a refusal down, unless this caller was refused alike too often just now.
    pub(crate) async fn write_refusal(&self, tenant: TenantId, mut draft: Draft) -> Result<(), Failure> {
        let mut alike = DefaultHasher::new();
        (tenant, draft.action, &draft.actor, &draft.subject, &draft.target, draft.detail.to_string()).hash(&mut alike);
        match self.floods.admit(alike.finish(), draft.at) {
            None => Ok(()),
            Some(unwritten) => {
                if unwritten > 0
                    && let Some(detail) = draft.detail.as_object_mut()
                {
                    detail.insert("not_written_before".into(), json!(unwritten));
                }
                self.recorder.record(tenant, Entry { draft, token: None }).await
            }
        }
    }

    /// A caller who is known lacks the scope that an operation needs.
    pub async fn refuse_access(&self, caller: &Caller, scope: &str, operation: &str) -> Result<(), Failure> {
        let actor = caller.actor();
        let why = Why { reason: "insufficient_scope", missing: Some(json!({ "scopes": [scope] })) };
        tracing::info!(actor = %actor.name, request.id = %caller.request.id, scope, "a caller lacks a scope");
        let mut draft = actor.did("access.refused", operation, why.detail(), self.clock.now());
        draft.outcome = Outcome::Refused;
        self.write_refusal(caller.tenant().tenant.id, draft).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_counted_and_not_written() {
        let floods = Floods::new();
        let at = |seconds: i64| DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap();
        let written = (0..1000).filter(|_| floods.admit(1, at(0)).is_some()).count();
        assert_eq!(written, 10);
        assert_eq!(floods.admit(2, at(0)), Some(0), "another caller is another count");
        assert_eq!(floods.admit(1, at(60)), Some(990));
        assert_eq!(floods.admit(1, at(61)), Some(0));
    }
}
