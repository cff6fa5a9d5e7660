//! The beginning of a login: what it stands on is locked, so that nothing begins on what was taken away a moment before.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chrono::{DateTime, Utc};
use claviger_store::id::{KeyId, SessionId, UserId};
use claviger_store::password::PasswordHash;
use claviger_store::session::NewSession;
use claviger_store::token_family::{EndedBy, NewFamily};
use claviger_store::{StoreError, TenantTx};

/// What a login stands on.
#[derive(Clone)]
pub(crate) enum StandsOn {
    /// A person whose password is of this version.
    Password(UserId, i64),
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
    /// What is kept of the same password, and a newer hash of it.
    pub(crate) upgrade: Option<(PasswordHash, PasswordHash)>,
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
    let passwords: BTreeMap<UserId, i64> = tx.hold_passwords(&users).await?.into_iter().collect();
    let keys: HashSet<KeyId> = tx.hold_keys(&keys).await?.into_iter().collect();
    let mut begun = Vec::with_capacity(openings.len());
    let mut replaced = BTreeSet::new();
    for opening in openings {
        let Opening { stands_on, family, session, replaces, upgrade } = opening;
        let stands = match stands_on {
            StandsOn::Password(user, version) => passwords.get(user) == Some(version),
            StandsOn::Key(key) => keys.contains(key),
        };
        begun.push(stands);
        if !stands {
            continue;
        }
        if let Some(family) = family {
            tx.open_family(family).await?;
            tx.end_surplus_families(&family.principal, "system:surplus").await?;
        }
        if let Some(session) = session {
            tx.open_session(session).await?;
        }
        replaced.extend(replaces.clone());
        if let (StandsOn::Password(user, _), Some((before, after))) = (stands_on, upgrade) {
            tx.upgrade_password(*user, before, after).await?;
        }
    }
    // In order: two batches that end the same sessions must not wait for each other in a ring.
    for (session, now, by) in replaced {
        tx.end_session(session, now, &by, EndedBy::Login).await?;
    }
    Ok(begun)
}
