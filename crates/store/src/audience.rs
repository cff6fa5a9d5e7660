//! Audiences: downstream services with their own shape of token.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::id::AudienceId;
use crate::{StoreError, TenantTx};

/// An audience of one tenant.
#[derive(Debug, Clone)]
pub struct Audience {
    /// Its id.
    pub id: AudienceId,
    /// How it is asked for; unique among the tenant's living audiences.
    pub name: String,
    /// The `aud` of its tokens; unique likewise.
    pub uri: String,
    /// The shape of its tokens, as the issuer wrote it.
    pub profile: Value,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// The unique indexes that can refuse an audience.
pub const AUDIENCE_NAME_TAKEN: &str = "audiences_name";
/// See [`AUDIENCE_NAME_TAKEN`].
pub const AUDIENCE_URI_TAKEN: &str = "audiences_uri";

impl TenantTx<'_> {
    /// Keeps a new audience.
    pub async fn create_audience(&mut self, audience: &Audience) -> Result<(), StoreError> {
        let Audience { id, name, uri, profile, created_at } = audience;
        sqlx::query!(
            "INSERT INTO audiences (tenant_id, id, name, uri, profile, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
            self.tenant.0,
            id.0,
            name,
            uri,
            profile,
            created_at
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Every living audience of the tenant, oldest first. There are few.
    pub async fn audiences(&mut self) -> Result<Vec<Audience>, StoreError> {
        Ok(sqlx::query_as!(
            Audience,
            r#"SELECT id AS "id: AudienceId", name, uri, profile, created_at
                 FROM audiences
                WHERE tenant_id = $1 AND deleted_at IS NULL
                ORDER BY id"#,
            self.tenant.0
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// The living audience of that id.
    pub async fn audience(&mut self, id: AudienceId) -> Result<Option<Audience>, StoreError> {
        Ok(sqlx::query_as!(
            Audience,
            r#"SELECT id AS "id: AudienceId", name, uri, profile, created_at
                 FROM audiences
                WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL"#,
            self.tenant.0,
            id.0
        )
        .fetch_optional(&mut *self.connection)
        .await?)
    }

    /// Replaces name, `aud` and shape. False when it is not there.
    pub async fn update_audience(&mut self, id: AudienceId, name: &str, uri: &str, profile: &Value) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE audiences SET name = $3, uri = $4, profile = $5
              WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
            self.tenant.0,
            id.0,
            name,
            uri,
            profile
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends an audience for good. False when it was ended already, or is not there.
    pub async fn delete_audience(&mut self, id: AudienceId, now: DateTime<Utc>, by: &str) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE audiences SET deleted_at = $3, deleted_by = $4
              WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
            self.tenant.0,
            id.0,
            now,
            by
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }
}
