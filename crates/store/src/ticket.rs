//! One-time tickets for WebSockets.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::api_key::SecretMac;
use crate::id::{FamilyId, KeyId, UserId};
use crate::{StoreError, TenantTx};

/// Whose a ticket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A key's.
    Key(KeyId),
    /// A person's, with the login that it stands on, if it was one.
    User(UserId, Option<FamilyId>),
}

/// A ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Whose.
    pub holder: Holder,
    /// What was held when it was made.
    pub scope: Vec<String>,
    /// The origin that may use it.
    pub origin: Option<String>,
}

impl TenantTx<'_> {
    /// Keeps a ticket.
    pub async fn create_ticket(
        &mut self,
        mac: SecretMac,
        ticket: &Ticket,
        now: DateTime<Utc>,
        expires_at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let (key, user, family) = match &ticket.holder {
            Holder::Key(key) => (Some(key.as_str()), None, None),
            Holder::User(user, family) => (None, Some(user.0), family.map(|family| family.0)),
        };
        sqlx::query!(
            "INSERT INTO ws_tickets (tenant_id, mac, key_id, user_id, family_id, scope, origin, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            self.tenant.0,
            &mac.0[..],
            key,
            user,
            family,
            &ticket.scope,
            ticket.origin,
            now,
            expires_at
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Uses a ticket up. `None` when there is none of that MAC, or it is over.
    pub async fn consume_ticket(&mut self, macs: &[[u8; 32]], now: DateTime<Utc>) -> Result<Option<Ticket>, StoreError> {
        let row = sqlx::query!(
            r#"DELETE FROM ws_tickets
                WHERE tenant_id = $1 AND mac = ANY ($2) AND expires_at > $3
            RETURNING key_id AS "key: KeyId", user_id AS "user: Uuid", family_id AS "family: Uuid", scope, origin"#,
            self.tenant.0,
            &macs.iter().map(|mac| mac.to_vec()).collect::<Vec<_>>(),
            now
        )
        .fetch_optional(&mut *self.connection)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let holder = match (row.key, row.user) {
            (Some(key), None) => Holder::Key(key),
            (None, Some(user)) => Holder::User(UserId(user), row.family.map(FamilyId)),
            _ => return Err(StoreError::ImpossibleRow { table: "ws_tickets", what: "not exactly one holder".into() }),
        };
        Ok(Some(Ticket { holder, scope: row.scope, origin: row.origin }))
    }

    /// Forgets tickets that are over.
    pub async fn prune_tickets(&mut self, now: DateTime<Utc>) -> Result<u64, StoreError> {
        let done = sqlx::query!("DELETE FROM ws_tickets WHERE tenant_id = $1 AND expires_at <= $2", self.tenant.0, now)
            .execute(&mut *self.connection)
            .await?;
        Ok(done.rows_affected())
    }
}
