//! The record of issued tokens, in partitions by the week in which they end.

use chrono::{DateTime, Utc};

use crate::id::{FamilyId, KeyId, TokenId};
use crate::standing::{Evidence, evidence};
use crate::{Store, StoreError, TenantTx};

/// The longest life of a token, in seconds: 100 days. Partitions are made that far ahead.
pub const LONGEST_TOKEN_LIFETIME: i32 = 8_640_000;

/// What a token without an end is kept as ending on, in seconds since 1970: the last second of the year 9999.
pub const UNENDING: i64 = 253_402_300_799;

/// A token as it was issued.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// The key it was issued for, if it was one.
    pub key: Option<KeyId>,
    /// The token family it belongs to, if there is one.
    pub family: Option<FamilyId>,
    /// Whom it is about: a person's or an application's id, also where the token names them otherwise.
    pub subject: String,
    /// What was granted, space-separated, also where the token does not say it.
    pub scope: String,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
    /// When it was called back, and by whom.
    pub revoked: Option<Evidence>,
}

impl TenantTx<'_> {
    /// A token, if we issued it. `expires_at` is its `exp` (or [`UNENDING`]), which names its partition.
    pub async fn issued_token(&mut self, id: TokenId, expires_at: DateTime<Utc>) -> Result<Option<IssuedToken>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT key_id AS "key: KeyId", family_id AS "family: FamilyId", subject, scope, revoked_at, revoked_by
                 FROM issued_tokens
                WHERE tenant_id = $1 AND jti = $2 AND expires_at = $3"#,
            self.tenant.0,
            id.0,
            expires_at
        )
        .fetch_optional(&mut *self.connection)
        .await?;
        row.map(|row| {
            let revoked = evidence("issued_tokens", (row.revoked_at, row.revoked_by))?;
            let (key, family) = (row.key, row.family);
            Ok(IssuedToken { key, family, subject: row.subject, scope: row.scope, expires_at, revoked })
        })
        .transpose()
    }

    /// When a token ends, if we issued it: for whoever knows no more of it than its id.
    pub async fn issued_token_end(&mut self, id: TokenId) -> Result<Option<DateTime<Utc>>, StoreError> {
        Ok(sqlx::query_scalar!("SELECT expires_at FROM issued_tokens WHERE tenant_id = $1 AND jti = $2", self.tenant.0, id.0)
            .fetch_optional(&mut *self.connection)
            .await?)
    }

    /// Calls a token back. False when it was already, or was never issued.
    pub async fn revoke_token(
        &mut self,
        id: TokenId,
        expires_at: DateTime<Utc>,
        now: DateTime<Utc>,
        by: &str,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE issued_tokens SET revoked_at = $4, revoked_by = $5
              WHERE tenant_id = $1 AND jti = $2 AND expires_at = $3 AND revoked_at IS NULL",
            self.tenant.0,
            id.0,
            expires_at,
            now,
            by
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
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
