//! Whether a row may act: the state that tenants, users and applications share, with its evidence.

use chrono::{DateTime, Utc};

use crate::StoreError;

/// What a deed was done by and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// When.
    pub at: DateTime<Utc>,
    /// By whom, as the audit trail writes an actor.
    pub by: String,
}

/// The life of a tenant, user or application: active ⇄ disabled → deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// May act.
    Active,
    /// May not act until enabled again.
    Disabled(Evidence),
    /// Will never act again; the row stays so that its id is not reused.
    Deleted(Evidence),
}

impl Status {
    /// The word that the API and the CLI use.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled(_) => "disabled",
            Self::Deleted(_) => "deleted",
        }
    }

    /// True when it may act.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Active)
    }

    pub(crate) fn from_columns(
        table: &'static str,
        disabled: (Option<DateTime<Utc>>, Option<String>),
        deleted: (Option<DateTime<Utc>>, Option<String>),
    ) -> Result<Self, StoreError> {
        let disabled = evidence(table, disabled)?;
        let deleted = evidence(table, deleted)?;
        Ok(match (disabled, deleted) {
            (_, Some(evidence)) => Self::Deleted(evidence),
            (Some(evidence), None) => Self::Disabled(evidence),
            (None, None) => Self::Active,
        })
    }
}

pub(crate) fn evidence(
    table: &'static str,
    columns: (Option<DateTime<Utc>>, Option<String>),
) -> Result<Option<Evidence>, StoreError> {
    match columns {
        (None, None) => Ok(None),
        (Some(at), Some(by)) => Ok(Some(Evidence { at, by })),
        _ => Err(StoreError::ImpossibleRow { table, what: "a deed without its author or its time".into() }),
    }
}
