//! Mail that waits to be sent.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{StoreError, TenantTx};

/// A message that waits.
#[derive(Debug, Clone)]
pub struct WaitingMail {
    /// Its id; bound into the seal.
    pub id: Uuid,
    /// The message, sealed.
    pub sealed: Vec<u8>,
    /// When it was written.
    pub created_at: DateTime<Utc>,
    /// How often it was tried.
    pub tries: i32,
}

impl TenantTx<'_> {
    /// Keeps a message until it is sent.
    pub async fn queue_mail(&mut self, id: Uuid, sealed: &[u8], now: DateTime<Utc>) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO mail_outbox (tenant_id, id, sealed, created_at, next_try_at) VALUES ($1, $2, $3, $4, $4)",
            self.tenant.0,
            id,
            sealed,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// The next message that is due, held until the transaction ends: nobody else sends it meanwhile.
    pub async fn due_mail(&mut self, now: DateTime<Utc>) -> Result<Option<WaitingMail>, StoreError> {
        Ok(sqlx::query_as!(
            WaitingMail,
            "SELECT id, sealed, created_at, tries
               FROM mail_outbox
              WHERE tenant_id = $1 AND next_try_at <= $2
              ORDER BY next_try_at
              LIMIT 1
                FOR UPDATE SKIP LOCKED",
            self.tenant.0,
            now
        )
        .fetch_optional(&mut *self.connection)
        .await?)
    }

    /// Everything that waits, due or not.
    pub async fn all_mail(&mut self) -> Result<Vec<WaitingMail>, StoreError> {
        Ok(sqlx::query_as!(
            WaitingMail,
            "SELECT id, sealed, created_at, tries FROM mail_outbox WHERE tenant_id = $1 ORDER BY id",
            self.tenant.0
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// Replaces the sealed form of a message. False when it is gone, or not what it was any more.
    pub async fn seal_mail_again(&mut self, before: &WaitingMail, sealed: &[u8]) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE mail_outbox SET sealed = $4 WHERE tenant_id = $1 AND id = $2 AND sealed = $3",
            self.tenant.0,
            before.id,
            before.sealed,
            sealed
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Forgets a message: it was sent, or is too old.
    pub async fn forget_mail(&mut self, id: Uuid) -> Result<(), StoreError> {
        sqlx::query!("DELETE FROM mail_outbox WHERE tenant_id = $1 AND id = $2", self.tenant.0, id)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    /// Tries a message again later.
    pub async fn postpone_mail(&mut self, id: Uuid, until: DateTime<Utc>) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE mail_outbox SET tries = tries + 1, next_try_at = $3 WHERE tenant_id = $1 AND id = $2",
            self.tenant.0,
            id,
            until
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }
}
