//! People.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::id::UserId;
use crate::standing::Status;
use crate::{StoreError, TenantTx};

/// A person of one tenant.
#[derive(Debug, Clone)]
pub struct User {
    /// The `sub` of this person's tokens.
    pub id: UserId,
    /// The login name, unique in the tenant whatever its case or look; never changes.
    pub username: String,
    /// In lower case.
    pub email: Option<String>,
    /// Names of roles, in order.
    pub roles: Vec<String>,
    /// Held beside those of the roles, in order.
    pub scopes: Vec<String>,
    /// What services want to know besides, by name.
    pub attributes: Map<String, Value>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Whether this person may act.
    pub status: Status,
}

/// A user to be kept.
pub struct NewUser<'a> {
    /// Random, or where the person comes from another system, the id there.
    pub id: UserId,
    /// The login name as it is shown.
    pub username: &'a str,
    /// Case-mapped, for lookups.
    pub folded: &'a str,
    /// What it looks like.
    pub skeleton: &'a str,
    /// In lower case.
    pub email: Option<&'a str>,
    /// Names of roles.
    pub roles: &'a [String],
    /// Held beside those of the roles.
    pub scopes: &'a [String],
    /// What services want to know besides: a JSON object; `None` is an empty one.
    pub attributes: Option<&'a Value>,
}

/// The unique indexes that can refuse a new user.
pub const USERNAME_TAKEN: &str = "users_username";
/// See [`USERNAME_TAKEN`].
pub const LOOK_TAKEN: &str = "users_look";
/// See [`USERNAME_TAKEN`].
pub const ID_TAKEN: &str = "users_pkey";
/// See [`USERNAME_TAKEN`].
pub const EMAIL_TAKEN: &str = "users_email";

struct Row {
    id: UserId,
    username: String,
    email: Option<String>,
    roles: Vec<String>,
    scopes: Vec<String>,
    attributes: Value,
    created_at: DateTime<Utc>,
    disabled_at: Option<DateTime<Utc>>,
    disabled_by: Option<String>,
    deleted_at: Option<DateTime<Utc>>,
    deleted_by: Option<String>,
}

impl TryFrom<Row> for User {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        let Row { id, username, email, roles, scopes, attributes, created_at, disabled_at, disabled_by, deleted_at, deleted_by } =
            row;
        let Value::Object(attributes) = attributes else {
            return Err(StoreError::ImpossibleRow { table: "users", what: "attributes that are no object".into() });
        };
        let status = Status::from_columns("users", (disabled_at, disabled_by), (deleted_at, deleted_by))?;
        Ok(Self { id, username, email, roles, scopes, attributes, created_at, status })
    }
}

impl TenantTx<'_> {
    /// Keeps a new user.
    pub async fn create_user(&mut self, user: &NewUser<'_>, now: DateTime<Utc>) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO users (tenant_id, id, username, username_folded, username_skeleton, email, roles, created_at, scopes,
                                attributes)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, coalesce($10, '{}'::jsonb))",
            self.tenant.0,
            user.id.0,
            user.username,
            user.folded,
            user.skeleton,
            user.email,
            user.roles,
            now,
            user.scopes,
            user.attributes
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// The user of that id, deleted ones too.
    pub async fn user(&mut self, id: UserId) -> Result<Option<User>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: UserId", username, email, roles, scopes, attributes, created_at,
                      disabled_at, disabled_by, deleted_at, deleted_by
                 FROM users
                WHERE tenant_id = $1 AND id = $2"#,
            self.tenant.0,
            id.0
        )
        .fetch_optional(&mut *self.connection)
        .await?
        .map(User::try_from)
        .transpose()
    }

    /// The living user of that case-mapped name.
    pub async fn user_by_username(&mut self, folded: &str) -> Result<Option<User>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: UserId", username, email, roles, scopes, attributes, created_at,
                      disabled_at, disabled_by, deleted_at, deleted_by
                 FROM users
                WHERE tenant_id = $1 AND username_folded = $2 AND deleted_at IS NULL"#,
            self.tenant.0,
            folded
        )
        .fetch_optional(&mut *self.connection)
        .await?
        .map(User::try_from)
        .transpose()
    }

    /// The living user of that address (lower case).
    pub async fn user_by_email(&mut self, email: &str) -> Result<Option<User>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: UserId", username, email, roles, scopes, attributes, created_at,
                      disabled_at, disabled_by, deleted_at, deleted_by
                 FROM users
                WHERE tenant_id = $1 AND email = $2 AND deleted_at IS NULL"#,
            self.tenant.0,
            email
        )
        .fetch_optional(&mut *self.connection)
        .await?
        .map(User::try_from)
        .transpose()
    }

    /// Users that are not deleted, oldest first, after the given one.
    pub async fn list_users(&mut self, after: Option<UserId>, limit: u16) -> Result<Vec<User>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: UserId", username, email, roles, scopes, attributes, created_at,
                      disabled_at, disabled_by, deleted_at, deleted_by
                 FROM users
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
        .map(User::try_from)
        .collect()
    }

    /// Users that are not deleted, oldest first, without the first `skip` of them.
    pub async fn skip_users(&mut self, skip: u32, limit: u16) -> Result<Vec<User>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: UserId", username, email, roles, scopes, attributes, created_at,
                      disabled_at, disabled_by, deleted_at, deleted_by
                 FROM users
                WHERE tenant_id = $1 AND deleted_at IS NULL
                ORDER BY created_at, id
                LIMIT $2 OFFSET $3"#,
            self.tenant.0,
            i64::from(limit),
            i64::from(skip)
        )
        .fetch_all(&mut *self.connection)
        .await?
        .into_iter()
        .map(User::try_from)
        .collect()
    }

    /// Everybody in order of id, after the given one; deleted people too.
    pub async fn everybody(&mut self, after: Option<UserId>, limit: u16) -> Result<Vec<User>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: UserId", username, email, roles, scopes, attributes, created_at,
                      disabled_at, disabled_by, deleted_at, deleted_by
                 FROM users
                WHERE tenant_id = $1 AND ($2::uuid IS NULL OR id > $2)
                ORDER BY id
                LIMIT $3"#,
            self.tenant.0,
            after.map(|id| id.0),
            i64::from(limit)
        )
        .fetch_all(&mut *self.connection)
        .await?
        .into_iter()
        .map(User::try_from)
        .collect()
    }

    /// The login names of these people, deleted ones too.
    pub async fn usernames(&mut self, ids: &[UserId]) -> Result<Vec<(UserId, String)>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT id AS "id: UserId", username FROM users WHERE tenant_id = $1 AND id = ANY ($2)"#,
            self.tenant.0,
            &ids.iter().map(|id| id.0).collect::<Vec<_>>()
        )
        .fetch_all(&mut *self.connection)
        .await?;
        Ok(rows.into_iter().map(|row| (row.id, row.username)).collect())
    }

    /// Replaces the roles.
    pub async fn set_user_roles(&mut self, id: UserId, roles: &[String]) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE users SET roles = $3 WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
            self.tenant.0,
            id.0,
            roles
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Replaces the scopes held beside those of the roles.
    pub async fn set_user_scopes(&mut self, id: UserId, scopes: &[String]) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE users SET scopes = $3 WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
            self.tenant.0,
            id.0,
            scopes
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Replaces the attributes, a JSON object.
    pub async fn set_user_attributes(&mut self, id: UserId, attributes: &Value) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE users SET attributes = $3 WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
            self.tenant.0,
            id.0,
            attributes
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Locks a user against other writers until the transaction ends. False when it is not there.
    pub async fn lock_user(&mut self, id: UserId) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar!(
            r#"SELECT 1 AS "one!" FROM users WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL FOR UPDATE"#,
            self.tenant.0,
            id.0
        )
        .fetch_optional(&mut *self.connection)
        .await?;
        Ok(found.is_some())
    }

    /// Replaces the e-mail address.
    pub async fn set_user_email(&mut self, id: UserId, email: Option<&str>) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE users SET email = $3 WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
            self.tenant.0,
            id.0,
            email
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Disables (`Some`) or enables (`None`) a user. False when it was so already, or is not there.
    pub async fn set_user_disabled(&mut self, id: UserId, disabled: Option<(DateTime<Utc>, &str)>) -> Result<bool, StoreError> {
        let (at, by) = disabled.unzip();
        let done = sqlx::query!(
            "UPDATE users SET disabled_at = $3, disabled_by = $4
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

    /// Ends a user for good and forgets address and attributes. False when it was ended already, or is not there.
    pub async fn delete_user(&mut self, id: UserId, now: DateTime<Utc>, by: &str) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE users SET deleted_at = $3, deleted_by = $4, email = NULL, attributes = '{}'
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
