//! May this principal act now? Every way to obtain or to use a token passes through this one rule.

use chrono::{DateTime, Utc};
use claviger_store::api_key::{ApiKey, KeyStatus};
use claviger_store::application::Application;
use claviger_store::standing::Status;
use claviger_store::user::User;

use crate::directory::TenantEntry;

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
            Self::KeyExpired => "key_expired",
        }
    }
}

/// A key's owner as it is now.
#[derive(Debug, Clone)]
pub enum OwnerNow {
    /// An application.
    Application(Application),
    /// A person.
    User(User),
}

impl OwnerNow {
    fn status(&self) -> &Status {
        match self {
            Self::Application(application) => &application.status,
            Self::User(user) => &user.status,
        }
    }
}

/// The rule.
pub fn standing(tenant: &TenantEntry, owner: &OwnerNow, key: &ApiKey, now: DateTime<Utc>) -> Result<(), Fallen> {
    if !tenant.tenant.status.is_active() {
        return Err(Fallen::Tenant);
    }
    if !owner.status().is_active() {
        return Err(Fallen::Owner);
    }
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
