//! May this principal act now? Every way to obtain or to use a token passes through this one rule.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use claviger_store::api_key::{ApiKey, KeyStatus};
use claviger_store::application::Application;
use claviger_store::standing::Status;
use claviger_store::token_family::TokenFamily;
use claviger_store::user::User;

use crate::directory::TenantEntry;
use crate::exchange::KEY_EXPIRED;

/// The switch that forbids a principal to act. Told to nobody but the audit trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallen {
    /// The tenant is disabled or deleted.
    Tenant,
    /// The key's owner is disabled or deleted.
    Owner,
    /// The key is disabled.
    KeyDisabled,
    /// The key is revoked.
    KeyRevoked,
    /// The key has ended.
    KeyExpired,
    /// The login that it stands on was ended, or has ended by itself.
    Login,
}

impl Fallen {
    /// The reason as the audit trail writes it.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Tenant => "tenant_disabled",
            Self::Owner => "owner_disabled",
            Self::KeyDisabled => "key_disabled",
            Self::KeyRevoked => "key_revoked",
            Self::KeyExpired => KEY_EXPIRED,
            Self::Login => "login_ended",
        }
    }
}

/// A key's owner as it is now.
#[derive(Debug, Clone)]
pub enum OwnerNow {
    /// An application.
    Application(Application),
    /// A person.
    User(Arc<User>),
}

/// What a login began, as it is now.
#[derive(Debug, Clone, Copy)]
pub struct LoginNow {
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// When it ends, whatever happens.
    pub ends_at: DateTime<Utc>,
    /// Whether it was ended before.
    pub ended: bool,
}

impl From<&TokenFamily> for LoginNow {
    fn from(family: &TokenFamily) -> Self {
        Self { created_at: family.created_at, ends_at: family.ends_at, ended: family.ended.is_some() }
    }
}

impl OwnerNow {
    /// True when it may act.
    pub(crate) fn is_active(&self) -> bool {
        self.status().is_active()
    }

    fn status(&self) -> &Status {
        match self {
            Self::Application(application) => &application.status,
            Self::User(user) => &user.status,
        }
    }
}

/// The rule: for a key, for what a login began, or for a key's own refresh tokens, which are both.
pub fn standing(
    tenant: &TenantEntry,
    owner: &OwnerNow,
    key: Option<&ApiKey>,
    login: Option<LoginNow>,
    now: DateTime<Utc>,
) -> Result<(), Fallen> {
    if !tenant.tenant.status.is_active() {
        return Err(Fallen::Tenant);
    }
    if !owner.status().is_active() {
        return Err(Fallen::Owner);
    }
    if let Some(LoginNow { created_at, ends_at, ended }) = login
        && (ended || ends_at <= now || tenant.tenant.logins_ended_at.is_some_and(|until| created_at <= until))
    {
        return Err(Fallen::Login);
    }
    let Some(key) = key else { return Ok(()) };
    match key.status {
        KeyStatus::Revoked(_) => return Err(Fallen::KeyRevoked),
        KeyStatus::Disabled(_) => return Err(Fallen::KeyDisabled),
        KeyStatus::Active => {}
    }
    if key.expires_at.is_some_and(|end| end <= now) {
        return Err(Fallen::KeyExpired);
    }
    Ok(())
}
