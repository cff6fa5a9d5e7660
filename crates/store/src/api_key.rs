//! API keys and what is kept of their secrets.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::id::{ApplicationId, KeyId, Owner, TenantId, UserId};
use crate::standing::{Evidence, evidence};
use crate::{AnyTenant, StoreError, TenantTx};

/// HMAC-SHA-256 of a secret under a pepper. The only form in which a secret can be bound to a query.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretMac(pub [u8; 32]);

/// One of a key's at most two secrets.
#[derive(Clone)]
pub struct StoredSecret {
    /// 0 or 1.
    pub slot: i16,
    /// What a presented secret is compared with.
    pub mac: SecretMac,
    /// The pepper under which `mac` was made.
    pub pepper_version: i16,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends, if another has taken over.
    pub expires_at: Option<DateTime<Utc>>,
}

/// The life of a key: active ⇄ disabled → revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyStatus {
    /// May be exchanged.
    Active,
    /// May not be exchanged until enabled again.
    Disabled(Evidence),
    /// Will never be exchanged again, and neither do its tokens count.
    Revoked(Evidence),
}

impl KeyStatus {
    /// The word that the API and the CLI use.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled(_) => "disabled",
            Self::Revoked(_) => "revoked",
        }
    }
}

/// An API key, without its secrets.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Its public half.
    pub id: KeyId,
    /// Its name for people.
    pub name: String,
    /// Whom it acts for.
    pub owner: Owner,
    /// What it may do; empty is nothing.
    pub scopes: Vec<String>,
    /// Seconds; `None` takes the owner's, then the tenant's.
    pub token_lifetime: Option<i32>,
    /// Whether an exchange gives a refresh token too.
    pub refresh: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// By whom, as the audit trail writes an actor.
    pub created_by: String,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether it may be exchanged.
    pub status: KeyStatus,
    /// Within a minute of its last use.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A key to be kept.
pub struct NewKey<'a> {
    /// Its public half.
    pub id: &'a KeyId,
    /// Its name for people.
    pub name: &'a str,
    /// Whom it acts for.
    pub owner: Owner,
    /// What it may do.
    pub scopes: &'a [String],
    /// Seconds; `None` takes the owner's, then the tenant's.
    pub token_lifetime: Option<i32>,
    /// Whether an exchange gives a refresh token too.
    pub refresh: bool,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// By whom it is made.
    pub created_by: &'a str,
}

/// The unique index that refuses a key id that any tenant has.
pub const KEY_ID_TAKEN: &str = "api_key_routes_pkey";

struct Row {
    id: KeyId,
    name: String,
    application_id: Option<Uuid>,
    user_id: Option<Uuid>,
    scopes: Vec<String>,
    token_lifetime: Option<i32>,
    refresh: bool,
    created_at: DateTime<Utc>,
    created_by: String,
    expires_at: Option<DateTime<Utc>>,
    disabled_at: Option<DateTime<Utc>>,
    disabled_by: Option<String>,
    revoked_at: Option<DateTime<Utc>>,
    revoked_by: Option<String>,
    last_used_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for ApiKey {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        let Row {
            id,
            name,
            application_id,
            user_id,
            scopes,
            token_lifetime,
            refresh,
            created_at,
            created_by,
            expires_at,
            disabled_at,
            disabled_by,
            revoked_at,
            revoked_by,
            last_used_at,
        } = row;
        let owner = match (application_id, user_id) {
            (Some(id), None) => Owner::Application(ApplicationId(id)),
            (None, Some(id)) => Owner::User(UserId(id)),
            _ => return Err(StoreError::ImpossibleRow { table: "api_keys", what: "not exactly one owner".into() }),
        };
        let disabled = evidence("api_keys", (disabled_at, disabled_by))?;
        let revoked = evidence("api_keys", (revoked_at, revoked_by))?;
        let status = match (disabled, revoked) {
            (_, Some(evidence)) => KeyStatus::Revoked(evidence),
            (Some(evidence), None) => KeyStatus::Disabled(evidence),
            (None, None) => KeyStatus::Active,
        };
        Ok(Self { id, name, owner, scopes, token_lifetime, refresh, created_at, created_by, expires_at, status, last_used_at })
    }
}

impl AnyTenant<'_> {
    /// The tenant that a key id belongs to.
    pub async fn tenant_of_key(&mut self, id: &KeyId) -> Result<Option<TenantId>, StoreError> {
        Ok(sqlx::query_scalar!(r#"SELECT tenant_id AS "tenant: TenantId" FROM api_key_routes WHERE key_id = $1"#, id.as_str())
            .fetch_optional(&mut *self.connection)
            .await?)
    }
}

impl TenantTx<'_> {
    /// Keeps a new key and its first secret.
    pub async fn create_key(
        &mut self,
        key: &NewKey<'_>,
        mac: SecretMac,
        pepper_version: i16,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let (application, user) = match key.owner {
            Owner::Application(id) => (Some(id.0), None),
            Owner::User(id) => (None, Some(id.0)),
        };
        sqlx::query!(
            "INSERT INTO api_keys (tenant_id, id, name, application_id, user_id, scopes, token_lifetime,
                                   created_at, created_by, expires_at, refresh)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            self.tenant.0,
            key.id.as_str(),
            key.name,
            application,
            user,
            key.scopes,
            key.token_lifetime,
            now,
            key.created_by,
            key.expires_at,
            key.refresh
        )
        .execute(&mut *self.connection)
        .await?;
        sqlx::query!("INSERT INTO api_key_routes (key_id, tenant_id) VALUES ($1, $2)", key.id.as_str(), self.tenant.0)
            .execute(&mut *self.connection)
            .await?;
        self.put_secret(key.id, 0, mac, pepper_version, now).await
    }

    /// The key of that id.
    pub async fn key(&mut self, id: &KeyId) -> Result<Option<ApiKey>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT k.id AS "id: KeyId", k.name, k.application_id, k.user_id, k.scopes, k.token_lifetime, k.refresh,
                      k.created_at, k.created_by, k.expires_at, k.disabled_at, k.disabled_by,
                      k.revoked_at, k.revoked_by, u.last_used_at AS "last_used_at?"
                 FROM api_keys k
                 LEFT JOIN api_key_usage u ON (u.tenant_id, u.key_id) = (k.tenant_id, k.id)
                WHERE k.tenant_id = $1 AND k.id = $2"#,
            self.tenant.0,
            id.as_str()
        )
        .fetch_optional(&mut *self.connection)
        .await?
        .map(ApiKey::try_from)
        .transpose()
    }

    /// Locks a key against other writers until the transaction ends. False when it is not there.
    pub async fn lock_key(&mut self, id: &KeyId) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar!(
            r#"SELECT 1 AS "one!" FROM api_keys WHERE tenant_id = $1 AND id = $2 FOR UPDATE"#,
            self.tenant.0,
            id.as_str()
        )
        .fetch_optional(&mut *self.connection)
        .await?;
        Ok(found.is_some())
    }

    /// Those of these keys that may be exchanged, held as they are until the transaction ends.
    pub async fn hold_keys(&mut self, keys: &[KeyId]) -> Result<Vec<KeyId>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        Ok(sqlx::query_scalar!(
            r#"SELECT id AS "id: KeyId" FROM api_keys
                WHERE tenant_id = $1 AND id = ANY($2) AND disabled_at IS NULL AND revoked_at IS NULL
                ORDER BY id
                  FOR SHARE"#,
            self.tenant.0,
            keys.iter().map(KeyId::as_str).collect::<Vec<_>>() as _
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// A key's secrets, ended ones too.
    pub async fn key_secrets(&mut self, id: &KeyId) -> Result<Vec<StoredSecret>, StoreError> {
        let rows = sqlx::query!(
            "SELECT slot, mac, pepper_version, created_at, expires_at
               FROM api_key_secrets
              WHERE tenant_id = $1 AND key_id = $2
              ORDER BY created_at",
            self.tenant.0,
            id.as_str()
        )
        .fetch_all(&mut *self.connection)
        .await?;
        rows.into_iter()
            .map(|row| {
                let mac = row.mac.try_into().map_err(|_| StoreError::ImpossibleRow {
                    table: "api_key_secrets",
                    what: "a MAC that is not 32 bytes long".into(),
                })?;
                Ok(StoredSecret {
                    slot: row.slot,
                    mac: SecretMac(mac),
                    pepper_version: row.pepper_version,
                    created_at: row.created_at,
                    expires_at: row.expires_at,
                })
            })
            .collect()
    }

    /// Replaces the hash of a secret by that of the same secret under another pepper. False when it is not what it was any
    /// more.
    pub async fn hash_secret_again(
        &mut self,
        id: &KeyId,
        slot: i16,
        before: &SecretMac,
        mac: &SecretMac,
        pepper_version: i16,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE api_key_secrets SET mac = $5, pepper_version = $6
              WHERE tenant_id = $1 AND key_id = $2 AND slot = $3 AND mac = $4",
            self.tenant.0,
            id.as_str(),
            slot,
            &before.0,
            &mac.0,
            pepper_version
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Puts a secret into one of the two slots; what was there ends at once.
    pub async fn put_secret(
        &mut self,
        id: &KeyId,
        slot: i16,
        mac: SecretMac,
        pepper_version: i16,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO api_key_secrets (tenant_id, key_id, slot, mac, pepper_version, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (tenant_id, key_id, slot) DO UPDATE
                SET mac = excluded.mac, pepper_version = excluded.pepper_version,
                    created_at = excluded.created_at, expires_at = NULL",
            self.tenant.0,
            id.as_str(),
            slot,
            &mac.0,
            pepper_version,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Lets a secret end at the given time, or when it already would, whichever comes first.
    pub async fn end_secret(&mut self, id: &KeyId, slot: i16, at: DateTime<Utc>) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE api_key_secrets SET expires_at = least(expires_at, $4)
              WHERE tenant_id = $1 AND key_id = $2 AND slot = $3",
            self.tenant.0,
            id.as_str(),
            slot,
            at
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Keys in order of id, after the given one; all owners', or one's. Revoked ones are left out.
    pub async fn list_keys(
        &mut self,
        owner: Option<Owner>,
        after: Option<&KeyId>,
        limit: u16,
    ) -> Result<Vec<ApiKey>, StoreError> {
        let (application, user) = match owner {
            Some(Owner::Application(id)) => (Some(id.0), None),
            Some(Owner::User(id)) => (None, Some(id.0)),
            None => (None, None),
        };
        sqlx::query_as!(
            Row,
            r#"SELECT k.id AS "id: KeyId", k.name, k.application_id, k.user_id, k.scopes, k.token_lifetime, k.refresh,
                      k.created_at, k.created_by, k.expires_at, k.disabled_at, k.disabled_by,
                      k.revoked_at, k.revoked_by, u.last_used_at AS "last_used_at?"
                 FROM api_keys k
                 LEFT JOIN api_key_usage u ON (u.tenant_id, u.key_id) = (k.tenant_id, k.id)
                WHERE k.tenant_id = $1 AND k.revoked_at IS NULL
                  AND ($2::uuid IS NULL OR k.application_id = $2)
                  AND ($3::uuid IS NULL OR k.user_id = $3)
                  AND ($4::text IS NULL OR k.id > $4)
                ORDER BY k.id
                LIMIT $5"#,
            self.tenant.0,
            application,
            user,
            after.map(KeyId::as_str),
            i64::from(limit)
        )
        .fetch_all(&mut *self.connection)
        .await?
        .into_iter()
        .map(ApiKey::try_from)
        .collect()
    }

    /// Replaces what may change of a key.
    pub async fn update_key(
        &mut self,
        id: &KeyId,
        name: &str,
        scopes: &[String],
        token_lifetime: Option<i32>,
        refresh: bool,
        expires_at: Option<DateTime<Utc>>,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE api_keys SET name = $3, scopes = $4, token_lifetime = $5, refresh = $7, expires_at = $6
              WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL",
            self.tenant.0,
            id.as_str(),
            name,
            scopes,
            token_lifetime,
            expires_at,
            refresh
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Disables (`Some`) or enables (`None`) a key. False when it was so already, is revoked, or is not there.
    pub async fn set_key_disabled(&mut self, id: &KeyId, disabled: Option<(DateTime<Utc>, &str)>) -> Result<bool, StoreError> {
        let (at, by) = disabled.unzip();
        let done = sqlx::query!(
            "UPDATE api_keys SET disabled_at = $3, disabled_by = $4
              WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL
                AND (disabled_at IS NULL) <> ($3::timestamptz IS NULL)",
            self.tenant.0,
            id.as_str(),
            at,
            by
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Revokes a key for good. False when it was revoked already, or is not there.
    pub async fn revoke_key(&mut self, id: &KeyId, now: DateTime<Utc>, by: &str) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE api_keys SET revoked_at = $3, revoked_by = $4
              WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL",
            self.tenant.0,
            id.as_str(),
            now,
            by
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }
}
