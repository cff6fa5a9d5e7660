//! Tenants.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::id::TenantId;
use crate::standing::Status;
use crate::{AnyTenant, StoreError, TenantTx};

/// A tenant: an organisation with its own users, keys, signing keys and policies.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name in URLs; never changes, because it is part of the issuer.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// Its settings, as the issuer wrote them.
    pub settings: Value,
    /// What presets set, by the preset's name, as the issuer wrote it.
    pub presets: Value,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Whether it may act.
    pub status: Status,
    /// Sessions and token families that were begun until then are over.
    pub logins_ended_at: Option<DateTime<Utc>>,
}

struct Row {
    id: TenantId,
    slug: String,
    name: String,
    settings: Value,
    presets: Value,
    created_at: DateTime<Utc>,
    disabled_at: Option<DateTime<Utc>>,
    disabled_by: Option<String>,
    deleted_at: Option<DateTime<Utc>>,
    deleted_by: Option<String>,
    logins_ended_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for Tenant {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        let Row {
            id,
            slug,
            name,
            settings,
            presets,
            created_at,
            disabled_at,
            disabled_by,
            deleted_at,
            deleted_by,
            logins_ended_at,
        } = row;
        let status = Status::from_columns("tenants", (disabled_at, disabled_by), (deleted_at, deleted_by))?;
        Ok(Self { id, slug, name, settings, presets, created_at, status, logins_ended_at })
    }
}

impl AnyTenant<'_> {
    /// The tenant of that id, deleted ones too.
    pub async fn tenant_by_id(&mut self, id: TenantId) -> Result<Option<Tenant>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: TenantId", slug, name, settings, presets, created_at,
                      disabled_at, disabled_by, deleted_at, deleted_by, logins_ended_at
                 FROM tenants
                WHERE id = $1"#,
            id.0
        )
        .fetch_optional(&mut *self.connection)
        .await?
        .map(Tenant::try_from)
        .transpose()
    }

    /// The id behind a slug, of deleted tenants too: a slug is never given twice.
    pub async fn tenant_id_by_slug(&mut self, slug: &str) -> Result<Option<TenantId>, StoreError> {
        Ok(sqlx::query_scalar!(r#"SELECT id AS "id: TenantId" FROM tenants WHERE slug = $1"#, slug)
            .fetch_optional(&mut *self.connection)
            .await?)
    }

    /// Tenants that are not deleted, in order of slug, after the given one.
    pub async fn list_tenants(&mut self, after: Option<&str>, limit: u16) -> Result<Vec<Tenant>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: TenantId", slug, name, settings, presets, created_at,
                      disabled_at, disabled_by, deleted_at, deleted_by, logins_ended_at
                 FROM tenants
                WHERE deleted_at IS NULL AND ($1::text IS NULL OR slug > $1)
                ORDER BY slug
                LIMIT $2"#,
            after,
            i64::from(limit)
        )
        .fetch_all(&mut *self.connection)
        .await?
        .into_iter()
        .map(Tenant::try_from)
        .collect()
    }
}

impl TenantTx<'_> {
    /// Keeps a new tenant. The transaction is already within it.
    pub async fn create_tenant(
        &mut self,
        slug: &str,
        name: &str,
        settings: &Value,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO tenants (id, slug, name, settings, created_at) VALUES ($1, $2, $3, $4, $5)",
            self.tenant.0,
            slug,
            name,
            settings,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Holds the tenant as it is until the transaction ends. False when it may not act.
    pub async fn hold_tenant(&mut self) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar!(
            r#"SELECT 1 AS "one!" FROM tenants WHERE id = $1 AND disabled_at IS NULL AND deleted_at IS NULL FOR SHARE"#,
            self.tenant.0
        )
        .fetch_optional(&mut *self.connection)
        .await?;
        Ok(found.is_some())
    }

    /// Locks the tenant's row against other writers until the transaction ends.
    pub async fn lock_tenant(&mut self) -> Result<(), StoreError> {
        sqlx::query!("SELECT 1 AS one FROM tenants WHERE id = $1 FOR UPDATE", self.tenant.0)
            .fetch_optional(&mut *self.connection)
            .await?;
        Ok(())
    }

    /// Replaces name and settings.
    pub async fn update_tenant(&mut self, name: &str, settings: &Value) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE tenants SET name = $2, settings = $3 WHERE id = $1 AND deleted_at IS NULL",
            self.tenant.0,
            name,
            settings
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Keeps what presets set.
    pub async fn set_tenant_presets(&mut self, presets: &Value) -> Result<(), StoreError> {
        sqlx::query!("UPDATE tenants SET presets = $2 WHERE id = $1 AND deleted_at IS NULL", self.tenant.0, presets)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    /// Disables (`Some`) or enables (`None`) the tenant. False when it was so already. Logins end with the former and
    /// do not come back with the latter: by the database's time, which is theirs too. Lock the tenant before.
    pub async fn set_tenant_disabled(&mut self, disabled: Option<(DateTime<Utc>, &str)>) -> Result<bool, StoreError> {
        let (at, by) = disabled.unzip();
        let done = sqlx::query!(
            "UPDATE tenants SET disabled_at = $2, disabled_by = $3,
                                logins_ended_at = CASE WHEN $2::timestamptz IS NULL THEN logins_ended_at
                                                       ELSE clock_timestamp() END
              WHERE id = $1 AND deleted_at IS NULL AND (disabled_at IS NULL) <> ($2::timestamptz IS NULL)",
            self.tenant.0,
            at,
            by
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends the tenant for good. False when it was ended already.
    pub async fn delete_tenant(&mut self, now: DateTime<Utc>, by: &str) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE tenants SET deleted_at = $2, deleted_by = $3 WHERE id = $1 AND deleted_at IS NULL",
            self.tenant.0,
            now,
            by
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }
}
