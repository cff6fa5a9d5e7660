//! The record of issued tokens, in partitions by the week in which they end.

use chrono::{DateTime, Utc};

use crate::id::{KeyId, TokenId};
use crate::{Store, StoreError, TenantTx};

/// The longest life of a token, in seconds: 100 days. Partitions are made that far ahead.
pub const LONGEST_TOKEN_LIFETIME: i32 = 8_640_000;

impl TenantTx<'_> {
    /// The key that a token was issued for, if we issued it. `expires_at` is the token's `exp`, which names its partition.
    pub async fn issued_token_key(&mut self, id: TokenId, expires_at: DateTime<Utc>) -> Result<Option<KeyId>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT key_id AS "key: KeyId" FROM issued_tokens WHERE tenant_id = $1 AND jti = $2 AND expires_at = $3"#,
            self.tenant.0,
            id.0,
            expires_at
        )
        .fetch_optional(&mut *self.connection)
        .await?)
    }
}

impl Store {
    /// Makes the partitions that tokens issued in the next week can need. Returns how many were missing.
    pub async fn ensure_token_partitions(&self, now: DateTime<Utc>) -> Result<i32, StoreError> {
        let ahead = chrono::TimeDelta::seconds(i64::from(LONGEST_TOKEN_LIFETIME)) + chrono::TimeDelta::days(7);
        let mut connection = self.pool().acquire().await?;
        // Partitions belong to no tenant; the wall they are given does not look at rows.
        Ok(sqlx::query_scalar!(r#"SELECT ensure_token_partitions($1, $2) AS "made!""#, now, now + ahead)
            .fetch_one(&mut *connection)
            .await?)
    }

    /// Drops the partitions whose tokens have all ended. Returns how many.
    pub async fn drop_ended_token_partitions(&self, now: DateTime<Utc>) -> Result<i32, StoreError> {
        Ok(sqlx::query_scalar!(r#"SELECT drop_token_partitions($1) AS "dropped!""#, now).fetch_one(self.pool()).await?)
    }
}
