//! Roles, and the catalogue of scopes that they are made of.

use chrono::{DateTime, Utc};

use crate::{StoreError, TenantTx};

/// A named set of scopes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Unique in the tenant.
    pub name: String,
    /// For people.
    pub description: String,
    /// Scopes, and patterns of them.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// A scope of the tenant's catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// `resource:action`.
    pub name: String,
    /// For people.
    pub description: String,
    /// When it entered the catalogue.
    pub created_at: DateTime<Utc>,
}

/// The unique index that refuses a second role of a name.
pub const ROLE_TAKEN: &str = "roles_pkey";

impl TenantTx<'_> {
    /// All roles, in order of name.
    pub async fn roles(&mut self) -> Result<Vec<Role>, StoreError> {
        Ok(sqlx::query_as!(
            Role,
            "SELECT name, description, scopes, created_at, updated_at FROM roles WHERE tenant_id = $1 ORDER BY name",
            self.tenant.0
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// The role of that name, locked against other writers until the transaction ends.
    pub async fn lock_role(&mut self, name: &str) -> Result<Option<Role>, StoreError> {
        Ok(sqlx::query_as!(
            Role,
            "SELECT name, description, scopes, created_at, updated_at
               FROM roles
              WHERE tenant_id = $1 AND name = $2
                FOR UPDATE",
            self.tenant.0,
            name
        )
        .fetch_optional(&mut *self.connection)
        .await?)
    }

    /// Keeps a new role.
    pub async fn create_role(
        &mut self,
        name: &str,
        description: &str,
        scopes: &[String],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO roles (tenant_id, name, description, scopes, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5)",
            self.tenant.0,
            name,
            description,
            scopes,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Replaces what a role says.
    pub async fn update_role(
        &mut self,
        name: &str,
        description: &str,
        scopes: &[String],
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE roles SET description = $3, scopes = $4, updated_at = $5 WHERE tenant_id = $1 AND name = $2",
            self.tenant.0,
            name,
            description,
            scopes,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Removes a role. False when it is not there.
    pub async fn delete_role(&mut self, name: &str) -> Result<bool, StoreError> {
        let done = sqlx::query!("DELETE FROM roles WHERE tenant_id = $1 AND name = $2", self.tenant.0, name)
            .execute(&mut *self.connection)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Whether a living user, application or key has the role.
    pub async fn role_is_held(&mut self, name: &str) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT 1 FROM users WHERE tenant_id = $1 AND deleted_at IS NULL AND $2 = ANY (roles))
                   OR EXISTS (SELECT 1 FROM applications WHERE tenant_id = $1 AND deleted_at IS NULL AND $2 = ANY (roles))
                   OR EXISTS (SELECT 1 FROM api_keys WHERE tenant_id = $1 AND revoked_at IS NULL AND $2 = ANY (roles)) AS "held!""#,
            self.tenant.0,
            name
        )
        .fetch_one(&mut *self.connection)
        .await?)
    }

    /// The catalogue, in order of name.
    pub async fn scopes(&mut self) -> Result<Vec<Scope>, StoreError> {
        Ok(sqlx::query_as!(
            Scope,
            "SELECT name, description, created_at FROM scopes WHERE tenant_id = $1 ORDER BY name",
            self.tenant.0
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// Adds names to the catalogue; those that are there stay as they are. Returns how many were new.
    pub async fn enter_scopes(&mut self, names: &[String], now: DateTime<Utc>) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "INSERT INTO scopes (tenant_id, name, created_at)
             SELECT $1, name, $3 FROM unnest($2::text[]) AS name
             ON CONFLICT (tenant_id, name) DO NOTHING",
            self.tenant.0,
            names,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected())
    }

    /// Says what a scope of the catalogue is for. False when it is not there.
    pub async fn describe_scope(&mut self, name: &str, description: &str) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE scopes SET description = $3 WHERE tenant_id = $1 AND name = $2",
            self.tenant.0,
            name,
            description
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Removes a scope from the catalogue. False when it is not there.
    pub async fn delete_scope(&mut self, name: &str) -> Result<bool, StoreError> {
        let done = sqlx::query!("DELETE FROM scopes WHERE tenant_id = $1 AND name = $2", self.tenant.0, name)
            .execute(&mut *self.connection)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Whether a role, or a living user, application or key names the scope.
    pub async fn scope_is_named(&mut self, name: &str) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT 1 FROM roles WHERE tenant_id = $1 AND $2 = ANY (scopes))
                   OR EXISTS (SELECT 1 FROM users WHERE tenant_id = $1 AND deleted_at IS NULL AND $2 = ANY (scopes))
                   OR EXISTS (SELECT 1 FROM applications WHERE tenant_id = $1 AND deleted_at IS NULL AND $2 = ANY (scopes))
                   OR EXISTS (SELECT 1 FROM api_keys WHERE tenant_id = $1 AND revoked_at IS NULL AND $2 = ANY (scopes)) AS "named!""#,
            self.tenant.0,
            name
        )
        .fetch_one(&mut *self.connection)
        .await?)
    }
}
