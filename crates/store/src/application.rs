//! Applications.

use chrono::{DateTime, Utc};

use crate::id::ApplicationId;
use crate::standing::Status;
use crate::{StoreError, TenantTx};

/// An application of one tenant: it owns API keys.
#[derive(Debug, Clone)]
pub struct Application {
    /// Its id; the `client_id` of its tokens.
    pub id: ApplicationId,
    /// Unique among the tenant's living applications.
    pub name: String,
    /// Seconds; `None` takes the tenant's.
    pub token_lifetime: Option<i32>,
    /// What its keys may hold at most, beside its roles; `None` with no roles is no limit.
    pub scopes: Option<Vec<String>>,
    /// Names of roles that limit its keys.
    pub roles: Vec<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Whether it may act.
    pub status: Status,
}

/// The unique index that can refuse a new application.
pub const NAME_TAKEN: &str = "applications_name";

struct Row {
    id: ApplicationId,
    name: String,
    token_lifetime: Option<i32>,
    scopes: Option<Vec<String>>,
    roles: Vec<String>,
    created_at: DateTime<Utc>,
    disabled_at: Option<DateTime<Utc>>,
    disabled_by: Option<String>,
    deleted_at: Option<DateTime<Utc>>,
    deleted_by: Option<String>,
}

impl TryFrom<Row> for Application {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        let Row { id, name, token_lifetime, scopes, roles, created_at, disabled_at, disabled_by, deleted_at, deleted_by } = row;
        let status = Status::from_columns("applications", (disabled_at, disabled_by), (deleted_at, deleted_by))?;
        Ok(Self { id, name, token_lifetime, scopes, roles, created_at, status })
    }
}

impl TenantTx<'_> {
    /// Keeps a new application.
    pub async fn create_application(
        &mut self,
        id: ApplicationId,
        name: &str,
        token_lifetime: Option<i32>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO applications (tenant_id, id, name, token_lifetime, created_at) VALUES ($1, $2, $3, $4, $5)",
            self.tenant.0,
            id.0,
            name,
            token_lifetime,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// The application of that id, deleted ones too.
    pub async fn application(&mut self, id: ApplicationId) -> Result<Option<Application>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: ApplicationId", name, token_lifetime, scopes, roles, created_at,
                      disabled_at, disabled_by, deleted_at, deleted_by
                 FROM applications
                WHERE tenant_id = $1 AND id = $2"#,
            self.tenant.0,
            id.0
        )
        .fetch_optional(&mut *self.connection)
        .await?
        .map(Application::try_from)
        .transpose()
    }

    /// The living application of that name.
    pub async fn application_by_name(&mut self, name: &str) -> Result<Option<Application>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: ApplicationId", name, token_lifetime, scopes, roles, created_at,
                      disabled_at, disabled_by, deleted_at, deleted_by
                 FROM applications
                WHERE tenant_id = $1 AND name = $2 AND deleted_at IS NULL"#,
            self.tenant.0,
            name
        )
        .fetch_optional(&mut *self.connection)
        .await?
        .map(Application::try_from)
        .transpose()
    }

    /// Applications that are not deleted, oldest first, after the given one.
    pub async fn list_applications(&mut self, after: Option<ApplicationId>, limit: u16) -> Result<Vec<Application>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: ApplicationId", name, token_lifetime, scopes, roles, created_at,
                      disabled_at, disabled_by, deleted_at, deleted_by
                 FROM applications
                WHERE tenant_id = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR id > $2)
                ORDER BY id
                LIMIT $3"#,
            self.tenant.0,
            after.map(|id| id.0),
            i64::from(limit)
        )
        .fetch_all(&mut *self.connection)
        .await?
        .into_iter()
        .map(Application::try_from)
        .collect()
    }

    /// Locks an application against other writers until the transaction ends.
    pub async fn lock_application(&mut self, id: ApplicationId) -> Result<(), StoreError> {
        sqlx::query!("SELECT 1 AS one FROM applications WHERE tenant_id = $1 AND id = $2 FOR UPDATE", self.tenant.0, id.0)
            .fetch_optional(&mut *self.connection)
            .await?;
        Ok(())
    }

    /// Replaces name and token lifetime.
    pub async fn update_application(
        &mut self,
        id: ApplicationId,
        name: &str,
        token_lifetime: Option<i32>,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE applications SET name = $3, token_lifetime = $4
              WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
            self.tenant.0,
            id.0,
            name,
            token_lifetime
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Replaces what its keys may hold at most.
    pub async fn set_application_rights(
        &mut self,
        id: ApplicationId,
        scopes: Option<&[String]>,
        roles: &[String],
    ) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE applications SET scopes = $3, roles = $4 WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
            self.tenant.0,
            id.0,
            scopes,
            roles
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Disables (`Some`) or enables (`None`) an application. False when it was so already, or is not there.
    pub async fn set_application_disabled(
        &mut self,
        id: ApplicationId,
        disabled: Option<(DateTime<Utc>, &str)>,
    ) -> Result<bool, StoreError> {
        let (at, by) = disabled.unzip();
        let done = sqlx::query!(
            "UPDATE applications SET disabled_at = $3, disabled_by = $4
              WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL
                AND (disabled_at IS NULL) <> ($3::timestamptz IS NULL)",
            self.tenant.0,
            id.0,
            at,
            by
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends an application for good. False when it was ended already, or is not there.
    pub async fn delete_application(&mut self, id: ApplicationId, now: DateTime<Utc>, by: &str) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE applications SET deleted_at = $3, deleted_by = $4
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
