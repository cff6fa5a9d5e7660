//! The beginning of a login: what it stands on is locked, so that nothing begins on what was taken away a moment before.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chrono::{DateTime, Utc};
use claviger_store::app_token::NewAppToken;
use claviger_store::connection::ConnectionLogin;
use claviger_store::id::{ConnectionId, KeyId, SessionId, UserId};
use claviger_store::password::PasswordHash;
use claviger_store::session::NewSession;
use claviger_store::token_family::{EndedBy, NewFamily};
use claviger_store::{StoreError, TenantTx};
use uuid::Uuid;

/// What a login stands on.
#[derive(Clone)]
pub(crate) enum StandsOn {
    /// A person whose password is of this version.
    Password(UserId, i64),
    /// A key that may be exchanged.
    Key(KeyId),
    /// A person who is linked at a connection that may be used.
    Link(UserId, ConnectionId),
}

/// What a login begins.
pub(crate) struct Opening {
    pub(crate) stands_on: StandsOn,
    pub(crate) family: Option<NewFamily>,
    /// What leads to the family, where that is not its refresh token.
    pub(crate) app_token: Option<NewAppToken>,
    pub(crate) session: Option<NewSession>,
    /// The session of the same browser that ends with it, and by whom.
    pub(crate) replaces: Option<(SessionId, DateTime<Utc>, String)>,
    /// What is kept of the same password, and a newer hash of it.
    pub(crate) upgrade: Option<(PasswordHash, PasswordHash)>,
    /// The connection that the person came through, with which it ends.
    pub(crate) came_from: Option<ConnectionLogin>,
}

impl Opening {
    /// Of somebody who came through a connection. The id of what begins is added when there is one.
    pub(crate) fn through(connection: ConnectionId, user: UserId, sealed_refresh: Option<Vec<u8>>, now: DateTime<Utc>) -> Self {
        let came_from = ConnectionLogin { id: Uuid::nil(), connection, user, sealed_refresh, checked_at: now };
        Self {
            stands_on: StandsOn::Link(user, connection),
            family: None,
            app_token: None,
            session: None,
            replaces: None,
            upgrade: None,
            came_from: Some(came_from),
        }
    }
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
    let mut links = Vec::new();
    for opening in openings {
        match &opening.stands_on {
            StandsOn::Password(user, _) => users.push(*user),
            StandsOn::Key(key) => keys.push(key.clone()),
            StandsOn::Link(user, connection) => links.push((*user, *connection)),
        }
    }
    let passwords: BTreeMap<UserId, i64> = tx.hold_passwords(&users).await?.into_iter().collect();
    let links: HashSet<(UserId, ConnectionId)> = tx.hold_connection_links(&links).await?.into_iter().collect();
    let keys: HashSet<KeyId> = tx.hold_keys(&keys).await?.into_iter().collect();
    let mut begun = Vec::with_capacity(openings.len());
    let mut replaced = BTreeSet::new();
    for opening in openings {
        let Opening { stands_on, family, app_token, session, replaces, upgrade, came_from } = opening;
        let stands = match stands_on {
            StandsOn::Password(user, version) => passwords.get(user) == Some(version),
            StandsOn::Key(key) => keys.contains(key),
            StandsOn::Link(user, connection) => links.contains(&(*user, *connection)),
        };
        begun.push(stands);
        if !stands {
            continue;
        }
        if let Some(family) = family {
            tx.open_family(family).await?;
            tx.end_surplus_families(&family.principal, "system:surplus").await?;
        }
        if let Some(app_token) = app_token {
            tx.create_app_token(app_token).await?;
        }
        if let Some(session) = session {
            tx.open_session(session).await?;
        }
        if let Some(came_from) = came_from {
            tx.create_connection_login(came_from).await?;
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
