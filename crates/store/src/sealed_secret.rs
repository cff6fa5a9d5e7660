//! Secrets of the installation itself, sealed under the master key. They belong to no tenant.

use chrono::{DateTime, Utc};

use crate::{AnyTenant, StoreError};

/// One version of a secret, sealed.
pub struct SealedSecret {
    /// 1, 2, 3, …
    pub version: i16,
    /// See the issuer's vault.
    pub sealed: Vec<u8>,
}

impl AnyTenant<'_> {
    /// All versions kept for a purpose, oldest first.
    pub async fn sealed_secrets(&mut self, purpose: &str) -> Result<Vec<SealedSecret>, StoreError> {
        Ok(sqlx::query_as!(
            SealedSecret,
            "SELECT version, sealed FROM sealed_secrets WHERE purpose = $1 ORDER BY version",
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
