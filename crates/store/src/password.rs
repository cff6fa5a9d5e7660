//! What is kept of people's passwords.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::id::UserId;
use crate::user::User;
use crate::{StoreError, TenantTx};

/// A password's hash as a PHC string, or in the form in which another system kept it. The only form in which a password
/// can be bound to a query; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// From its text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Its text, for whoever compares with it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(REDACTED)")
    }
}

/// A person with what is kept of the password, for a login.
pub struct LoginRow {
    /// The person.
    pub user: User,
    /// The password; `None` for somebody who has none.
    pub password: Option<KeptPassword>,
}

/// What is kept of a password.
#[derive(Debug, Clone)]
pub struct KeptPassword {
    /// Its hash.
    pub hash: PasswordHash,
    /// Another with each change: another hash of the same password leaves this as it is.
    pub version: i64,
}

impl TenantTx<'_> {
    /// The living person of that case-mapped name, and the password.
    pub async fn login_row(&mut self, folded: &str) -> Result<Option<LoginRow>, StoreError> {
        let Some(user) = self.user_by_username(folded).await? else { return Ok(None) };
        let password = self.password(user.id).await?;
        Ok(Some(LoginRow { user, password }))
    }

    /// The versions of the passwords of those of these people who may act, held as they are until the transaction ends.
    pub async fn hold_passwords(&mut self, users: &[UserId]) -> Result<Vec<(UserId, i64)>, StoreError> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let rows = sqlx::query!(
            r#"SELECT u.id AS "id: UserId", p.version
                 FROM users u
                 JOIN passwords p ON (p.tenant_id, p.user_id) = (u.tenant_id, u.id)
                WHERE u.tenant_id = $1 AND u.id = ANY($2) AND u.disabled_at IS NULL AND u.deleted_at IS NULL
                ORDER BY u.id
                  FOR SHARE OF u
                  FOR NO KEY UPDATE OF p"#,
            self.tenant.0,
            &users.iter().map(|user| user.0).collect::<Vec<_>>()
        )
        .fetch_all(&mut *self.connection)
        .await?;
        Ok(rows.into_iter().map(|row| (row.id, row.version)).collect())
    }

    /// What is kept of a person's password.
    pub async fn password(&mut self, user: UserId) -> Result<Option<KeptPassword>, StoreError> {
        let row =
            sqlx::query!("SELECT hash, version FROM passwords WHERE tenant_id = $1 AND user_id = $2", self.tenant.0, user.0)
                .fetch_optional(&mut *self.connection)
                .await?;
        Ok(row.map(|row| KeptPassword { hash: PasswordHash(row.hash), version: row.version }))
    }

    /// Keeps a password's hash in place of any before it.
    pub async fn set_password(
        &mut self,
        user: UserId,
        hash: &PasswordHash,
        now: DateTime<Utc>,
        by: &str,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO passwords (tenant_id, user_id, hash, set_at, set_by) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (tenant_id, user_id) DO UPDATE
                SET hash = excluded.hash, version = passwords.version + 1, set_at = excluded.set_at, set_by = excluded.set_by",
            self.tenant.0,
            user.0,
            hash.0,
            now,
            by
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Keeps the same password under another hash, unless it was changed meanwhile.
    pub async fn upgrade_password(
        &mut self,
        user: UserId,
        before: &PasswordHash,
        after: &PasswordHash,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE passwords SET hash = $4 WHERE tenant_id = $1 AND user_id = $2 AND hash = $3",
            self.tenant.0,
            user.0,
            before.0,
            after.0
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Forgets the password of somebody who is gone.
    pub async fn forget_password(&mut self, user: UserId) -> Result<(), StoreError> {
        sqlx::query!("DELETE FROM passwords WHERE tenant_id = $1 AND user_id = $2", self.tenant.0, user.0)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }
}
