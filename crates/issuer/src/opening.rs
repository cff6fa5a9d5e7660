//! The beginning of a login: what it stands on is locked, so that nothing begins on what was taken away a moment before.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use claviger_store::attempt::Bucket;
use claviger_store::id::{KeyId, SessionId, UserId};
use claviger_store::password::PasswordHash;
use claviger_store::session::NewSession;
use claviger_store::token_family::{EndedBy, NewFamily};
use claviger_store::{StoreError, TenantTx};

/// What a login stands on.
#[derive(Clone)]
pub(crate) enum StandsOn {
    /// A person with this password.
    Password(UserId, PasswordHash),
    /// A key that may be exchanged.
    Key(KeyId),
}

/// What a login begins.
pub(crate) struct Opening {
    pub(crate) stands_on: StandsOn,
    pub(crate) family: Option<NewFamily>,
    pub(crate) session: Option<NewSession>,
    /// The session of the same browser that ends with it, and by whom.
    pub(crate) replaces: Option<(SessionId, DateTime<Utc>, String)>,
    /// Counted attempts that are given back, and how many of each bucket.
    pub(crate) given_back: Vec<(Bucket, i32)>,
    /// The same password under a newer hash.
    pub(crate) upgrade: Option<PasswordHash>,
}

/// Begins what may still begin; says which did.
pub(crate) async fn open(tx: &mut TenantTx<'_>, openings: &[&Opening]) -> Result<Vec<bool>, StoreError> {
    if openings.is_empty() {
        return Ok(Vec::new());
    }
    if !tx.hold_tenant().await? {
        return Ok(vec![false; openings.len()]);
    }
    let mut users = Vec::new();
    let mut keys = Vec::new();
    for opening in openings {
        match &opening.stands_on {
            StandsOn::Password(user, _) => users.push(*user),
            StandsOn::Key(key) => keys.push(key.clone()),
        }
    }
    let passwords: BTreeMap<UserId, PasswordHash> = tx.hold_passwords(&users).await?.into_iter().collect();
    let keys: HashSet<KeyId> = tx.hold_keys(&keys).await?.into_iter().collect();
    let mut given_back: BTreeMap<Bucket, i32> = BTreeMap::new();
    let mut begun = Vec::with_capacity(openings.len());
    for opening in openings {
        let Opening { stands_on, family, session, replaces, given_back: mine, upgrade } = opening;
        let stands = match stands_on {
            StandsOn::Password(user, hash) => passwords.get(user) == Some(hash),
            StandsOn::Key(key) => keys.contains(key),
        };
        begun.push(stands);
        if !stands {
            continue;
        }
        for (bucket, count) in mine {
            let all = given_back.entry(*bucket).or_default();
            *all = all.saturating_add(*count);
        }
        if let Some(family) = family {
            tx.open_family(family).await?;
        }
        if let Some((session, now, by)) = replaces {
            tx.end_session(*session, *now, by, EndedBy::Login).await?;
        }
        if let Some(session) = session {
            tx.open_session(session).await?;
        }
        if let (StandsOn::Password(user, before), Some(after)) = (stands_on, upgrade) {
            tx.upgrade_password(*user, before, after).await?;
        }
    }
    // All at once and in order: two batches that give back to the same buckets must not wait for each other in a ring.
    let given_back: Vec<_> = given_back.into_iter().collect();
    tx.give_back_attempts(&given_back).await?;
    Ok(begun)
}
