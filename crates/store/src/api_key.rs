//! API keys and what is kept of their secrets.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::id::{ApplicationId, KeyId, Owner, TenantId, UserId};
use crate::password::PasswordHash;
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
    pub kept: KeptSecret,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends, if another has taken over.
    pub expires_at: Option<DateTime<Utc>>,
}

/// What is kept of a secret.
#[derive(Clone, PartialEq, Eq)]
pub enum KeptSecret {
    /// Its MAC under the pepper of that version.
    Mac(SecretMac, i16),
    /// The hash that another system made of it, until it is used for the first time.
    Hash(PasswordHash),
}

impl KeptSecret {
    /// As columns: MAC, version of the pepper, hash.
    fn columns(&self) -> (Option<&[u8]>, Option<i16>, Option<&str>) {
        match self {
            Self::Mac(mac, pepper_version) => (Some(&mac.0), Some(*pepper_version), None),
            Self::Hash(hash) => (None, None, Some(hash.as_str())),
        }
    }

    pub(crate) fn from_columns(
        mac: Option<Vec<u8>>,
        pepper_version: Option<i16>,
        hash: Option<String>,
    ) -> Result<Self, StoreError> {
        let impossible = |what: &str| StoreError::ImpossibleRow { table: "api_key_secrets", what: what.into() };
        match (mac, pepper_version, hash) {
            (Some(mac), Some(version), None) => {
                let mac = mac.try_into().map_err(|_| impossible("a MAC that is not 32 bytes long"))?;
                Ok(Self::Mac(SecretMac(mac), version))
            }
            (None, None, Some(hash)) => Ok(Self::Hash(PasswordHash::new(hash))),
            _ => Err(impossible("not exactly one form of a secret")),
        }
    }
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
    /// Names of roles whose scopes it has too.
    pub roles: Vec<String>,
    /// Whom it may say that it acts for.
    pub act_as: Option<Vec<String>>,
    /// Whom it acts for when nobody is named.
    pub act_as_default: Option<String>,
    /// Who may act for its owner with it; a key with this is good for nothing else.
    pub agents: Option<Vec<String>>,
    /// Where, how and how often it may be used, as the issuer wrote it.
    pub limits: serde_json::Value,
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
    /// When it was last used.
    pub last_used_at: Option<DateTime<Utc>>,
    /// The network that its last use came from.
    pub last_used_network: Option<String>,
    /// How the client of its last use called itself.
    pub last_used_agent: Option<String>,
}

/// A use of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// When.
    pub at: DateTime<Utc>,
    /// The network that it came from.
    pub network: Option<String>,
    /// How its client called itself.
    pub agent: Option<String>,
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
    /// Names of roles whose scopes it has too.
    pub roles: &'a [String],
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
    roles: Vec<String>,
    act_as: Option<Vec<String>>,
    act_as_default: Option<String>,
    agents: Option<Vec<String>>,
    limits: serde_json::Value,
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
    network: Option<String>,
    agent: Option<String>,
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
            roles,
            act_as,
            act_as_default,
            agents,
            limits,
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
            network,
            agent,
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
        Ok(Self {
            id,
            name,
            owner,
            scopes,
            roles,
            act_as,
            act_as_default,
            agents,
            limits,
            token_lifetime,
            refresh,
            created_at,
            created_by,
            expires_at,
            status,
            last_used_at,
            last_used_network: network,
            last_used_agent: agent,
        })
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
    pub async fn create_key(&mut self, key: &NewKey<'_>, secret: &KeptSecret, now: DateTime<Utc>) -> Result<(), StoreError> {
        let (application, user) = match key.owner {
            Owner::Application(id) => (Some(id.0), None),
            Owner::User(id) => (None, Some(id.0)),
        };
        sqlx::query!(
            "INSERT INTO api_keys (tenant_id, id, name, application_id, user_id, scopes, token_lifetime,
                                   created_at, created_by, expires_at, refresh, roles)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
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
            key.refresh,
            key.roles
        )
        .execute(&mut *self.connection)
        .await?;
        sqlx::query!("INSERT INTO api_key_routes (key_id, tenant_id) VALUES ($1, $2)", key.id.as_str(), self.tenant.0)
            .execute(&mut *self.connection)
            .await?;
        self.put_secret(key.id, 0, secret, now).await
    }

    /// The key of that id.
    pub async fn key(&mut self, id: &KeyId) -> Result<Option<ApiKey>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT k.id AS "id: KeyId", k.name, k.application_id, k.user_id, k.scopes, k.roles,
                      k.act_as, k.act_as_default, k.agents, k.limits, k.token_lifetime, k.refresh,
                      k.created_at, k.created_by, k.expires_at, k.disabled_at, k.disabled_by,
                      k.revoked_at, k.revoked_by, u.last_used_at AS "last_used_at?",
                      u.network AS "network?", u.agent AS "agent?"
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
            "SELECT slot, mac, pepper_version, hash, created_at, expires_at
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
                Ok(StoredSecret {
                    slot: row.slot,
                    kept: KeptSecret::from_columns(row.mac, row.pepper_version, row.hash)?,
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
    pub async fn put_secret(&mut self, id: &KeyId, slot: i16, secret: &KeptSecret, now: DateTime<Utc>) -> Result<(), StoreError> {
        let (mac, pepper_version, hash) = secret.columns();
        sqlx::query!(
            "INSERT INTO api_key_secrets (tenant_id, key_id, slot, mac, pepper_version, hash, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (tenant_id, key_id, slot) DO UPDATE
                SET mac = excluded.mac, pepper_version = excluded.pepper_version, hash = excluded.hash,
                    created_at = excluded.created_at, expires_at = NULL",
            self.tenant.0,
            id.as_str(),
            slot,
            mac,
            pepper_version,
            hash,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Keeps the same secret as a MAC in place of this hash. False when the hash is not there any more.
    pub async fn upgrade_secret(
        &mut self,
        id: &KeyId,
        before: &PasswordHash,
        mac: SecretMac,
        pepper_version: i16,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE api_key_secrets SET hash = NULL, mac = $4, pepper_version = $5
              WHERE tenant_id = $1 AND key_id = $2 AND hash = $3",
            self.tenant.0,
            id.as_str(),
            before.as_str(),
            &mac.0,
            pepper_version
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() > 0)
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
            r#"SELECT k.id AS "id: KeyId", k.name, k.application_id, k.user_id, k.scopes, k.roles,
                      k.act_as, k.act_as_default, k.agents, k.limits, k.token_lifetime, k.refresh,
                      k.created_at, k.created_by, k.expires_at, k.disabled_at, k.disabled_by,
                      k.revoked_at, k.revoked_by, u.last_used_at AS "last_used_at?",
                      u.network AS "network?", u.agent AS "agent?"
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

    /// All keys, revoked ones too, in no order.
    pub async fn all_keys(&mut self) -> Result<Vec<ApiKey>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT k.id AS "id: KeyId", k.name, k.application_id, k.user_id, k.scopes, k.roles,
                      k.act_as, k.act_as_default, k.agents, k.limits, k.token_lifetime, k.refresh,
                      k.created_at, k.created_by, k.expires_at, k.disabled_at, k.disabled_by,
                      k.revoked_at, k.revoked_by, u.last_used_at AS "last_used_at?",
                      u.network AS "network?", u.agent AS "agent?"
                 FROM api_keys k
                 LEFT JOIN api_key_usage u ON (u.tenant_id, u.key_id) = (k.tenant_id, k.id)
                WHERE k.tenant_id = $1"#,
            self.tenant.0
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
            "UPDATE api_keys SET name = $3, scopes = $4, token_lifetime = $5, refresh = $7, expires_at = $6,
                    reminded = CASE WHEN expires_at IS DISTINCT FROM $6 THEN NULL ELSE reminded END
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

    /// Replaces where, how and how often a key may be used.
    pub async fn set_key_limits(&mut self, id: &KeyId, limits: &serde_json::Value) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE api_keys SET limits = $3 WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL",
            self.tenant.0,
            id.as_str(),
            limits
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Takes so much of a key's budget in this window, if there is as much. Returns how much of it is used then.
    pub async fn take_budget(
        &mut self,
        id: &KeyId,
        kind: &str,
        window_start: DateTime<Utc>,
        wanted: i64,
        limit: i64,
    ) -> Result<Option<i64>, StoreError> {
        Ok(sqlx::query_scalar!(
            "INSERT INTO key_budgets AS b (tenant_id, key_id, kind, window_start, used) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (tenant_id, key_id, kind) DO UPDATE
                SET used = CASE WHEN b.window_start = $4 THEN b.used + $5 ELSE $5 END, window_start = $4
              WHERE b.window_start < $4 OR (b.window_start = $4 AND b.used + $5 <= $6)
             RETURNING used",
            self.tenant.0,
            id.as_str(),
            kind,
            window_start,
            wanted,
            limit
        )
        .fetch_optional(&mut *self.connection)
        .await?)
    }

    /// Writes when keys were last used; an older use never takes a newer one's place.
    pub async fn write_key_uses(&mut self, uses: &[(KeyId, KeyUse)]) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO api_key_usage (tenant_id, key_id, last_used_at, network, agent)
             SELECT $1, u.*
               FROM unnest($2::text[], $3::timestamptz[], $4::text[], $5::text[]) AS u (key_id, at, network, agent)
             ON CONFLICT (tenant_id, key_id) DO UPDATE
                SET last_used_at = excluded.last_used_at, network = excluded.network, agent = excluded.agent
              WHERE api_key_usage.last_used_at <= excluded.last_used_at",
            self.tenant.0,
            uses.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>() as _,
            &uses.iter().map(|(_, used)| used.at).collect::<Vec<_>>(),
            uses.iter().map(|(_, used)| used.network.as_deref()).collect::<Vec<_>>() as _,
            uses.iter().map(|(_, used)| used.agent.as_deref()).collect::<Vec<_>>() as _
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Revokes every key of an owner but one. Returns them.
    pub async fn revoke_keys_of(
        &mut self,
        owner: Owner,
        except: Option<&KeyId>,
        now: DateTime<Utc>,
        by: &str,
    ) -> Result<Vec<KeyId>, StoreError> {
        let (application, user) = match owner {
            Owner::Application(id) => (Some(id.0), None),
            Owner::User(id) => (None, Some(id.0)),
        };
        Ok(sqlx::query_scalar!(
            r#"UPDATE api_keys SET revoked_at = $4, revoked_by = $5
                WHERE tenant_id = $1 AND (application_id = $2 OR user_id = $3) AND revoked_at IS NULL
                  AND id IS DISTINCT FROM $6
            RETURNING id AS "id: KeyId""#,
            self.tenant.0,
            application,
            user,
            now,
            by,
            except.map(KeyId::as_str)
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// Disables active keys that nobody used since then. Returns them.
    pub async fn disable_dormant_keys(
        &mut self,
        unused_since: DateTime<Utc>,
        now: DateTime<Utc>,
        by: &str,
    ) -> Result<Vec<KeyId>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"UPDATE api_keys k SET disabled_at = $3, disabled_by = $4
                WHERE k.tenant_id = $1 AND k.revoked_at IS NULL AND k.disabled_at IS NULL
                  AND (k.expires_at IS NULL OR k.expires_at > $3)
                  AND greatest(k.created_at, k.enabled_at) < $2
                  AND NOT EXISTS (SELECT 1 FROM api_key_usage u
                                   WHERE u.tenant_id = k.tenant_id AND u.key_id = k.id AND u.last_used_at >= $2)
            RETURNING k.id AS "id: KeyId""#,
            self.tenant.0,
            unused_since,
            now,
            by
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// Living keys that end within so many days, of which nobody was told yet that few ahead; marked as told. Returns them with
    /// their ends.
    pub async fn mark_expiring_keys(&mut self, days: i32, now: DateTime<Utc>) -> Result<Vec<(KeyId, DateTime<Utc>)>, StoreError> {
        let rows = sqlx::query!(
            r#"UPDATE api_keys SET reminded = $2::int
                WHERE tenant_id = $1 AND revoked_at IS NULL AND disabled_at IS NULL
                  AND expires_at > $3 AND expires_at <= $3::timestamptz + make_interval(days => $2)
                  AND (reminded IS NULL OR reminded > $2)
            RETURNING id AS "id: KeyId", expires_at AS "expires_at!""#,
            self.tenant.0,
            days,
            now
        )
        .fetch_all(&mut *self.connection)
        .await?;
        Ok(rows.into_iter().map(|row| (row.id, row.expires_at)).collect())
    }

    /// Replaces what a key says of acting for others.
    pub async fn set_key_acting(
        &mut self,
        id: &KeyId,
        act_as: Option<&[String]>,
        act_as_default: Option<&str>,
        agents: Option<&[String]>,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE api_keys SET act_as = $3, act_as_default = $4, agents = $5
              WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL",
            self.tenant.0,
            id.as_str(),
            act_as,
            act_as_default,
            agents
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The keys that are not revoked of the living person of that case-mapped name, by the key's name or id: those that were
    /// made last first, and not more than `most`.
    pub async fn keys_named(&mut self, username_folded: &str, name: &str, most: i64) -> Result<Vec<KeyId>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT k.id AS "id: KeyId"
                 FROM users u
                 JOIN api_keys k ON (k.tenant_id, k.user_id) = (u.tenant_id, u.id)
                WHERE u.tenant_id = $1 AND u.username_folded = $2 AND u.deleted_at IS NULL
                  AND k.revoked_at IS NULL AND (k.name = $3 OR k.id = $3)
                ORDER BY k.created_at DESC
                LIMIT $4"#,
            self.tenant.0,
            username_folded,
            name,
            most
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// Replaces a key's roles.
    pub async fn set_key_roles(&mut self, id: &KeyId, roles: &[String]) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE api_keys SET roles = $3 WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL",
            self.tenant.0,
            id.as_str(),
            roles
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Disables (`Some`) or enables (`None`) a key. False when it was so already, is revoked, or is not there.
    pub async fn set_key_disabled(&mut self, id: &KeyId, by: Option<&str>, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE api_keys SET disabled_at = CASE WHEN $4::text IS NOT NULL THEN $3::timestamptz END, disabled_by = $4,
                    enabled_at = CASE WHEN $4::text IS NULL THEN $3 ELSE enabled_at END
              WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL
                AND (disabled_at IS NULL) <> ($4::text IS NULL)",
            self.tenant.0,
            id.as_str(),
            now,
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
