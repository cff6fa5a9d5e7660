//! Secrets of the installation itself, sealed under the master key. They belong to no tenant.

use chrono::{DateTime, Utc};

use crate::{AnyTenant, StoreError};

/// One version of a secret, sealed.
pub struct SealedSecret {
    /// 1, 2, 3, …
    pub version: i16,
    /// See the issuer's vault.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// One version of a secret with what it is for.
pub struct KeptSecret {
    /// What it is for.
    pub purpose: String,
    /// 1, 2, 3, …
    pub version: i16,
    /// See the issuer's vault.
    pub sealed: Vec<u8>,
}

impl AnyTenant<'_> {
    /// All versions of all secrets.
    pub async fn all_sealed_secrets(&mut self) -> Result<Vec<KeptSecret>, StoreError> {
        Ok(sqlx::query_as!(KeptSecret, "SELECT purpose, version, sealed FROM sealed_secrets ORDER BY purpose, version")
            .fetch_all(&mut *self.connection)
            .await?)
    }

    /// Replaces the sealed form of a secret. False when it is not what it was any more.
    pub async fn seal_secret_again(&mut self, before: &KeptSecret, sealed: &[u8]) -> Result<bool, StoreError> {
        sqlx::query!("SELECT set_config('app.seal_again', 'on', true)").fetch_one(&mut *self.connection).await?;
        let done = sqlx::query!(
            "UPDATE sealed_secrets SET sealed = $4 WHERE purpose = $1 AND version = $2 AND sealed = $3",
            before.purpose,
            before.version,
            before.sealed,
            sealed
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// All versions kept for a purpose, oldest first.
    pub async fn sealed_secrets(&mut self, purpose: &str) -> Result<Vec<SealedSecret>, StoreError> {
        Ok(sqlx::query_as!(
            SealedSecret,
            "SELECT version, sealed, created_at FROM sealed_secrets WHERE purpose = $1 ORDER BY version",
            purpose
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// Keeps a version unless it exists. Two replicas that start at once agree on the first.
    pub async fn add_sealed_secret(
        &mut self,
        purpose: &str,
        version: i16,
        sealed: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO sealed_secrets (purpose, version, sealed, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING",
            purpose,
            version,
            sealed,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }
}
