//! Whole tenants, read to be moved elsewhere and kept as they were: with the times and deeds of where they come from.

use chrono::{DateTime, Utc};

use crate::api_key::{ApiKey, KeptSecret, KeyStatus, StoredSecret};
use crate::application::Application;
use crate::audit::TokenRow;
use crate::connection::Link;
use crate::id::{ConnectionId, FamilyId, KeyId, Owner, TokenId, UserId};
use crate::issued_token::UNENDING;
use crate::password::PasswordHash;
use crate::revocation::{Revocation, Stops};
use crate::signing_key::{Ends, SigningKey, SigningKeyState};
use crate::standing::{Evidence, Status};
use crate::tenant::Tenant;
use crate::user::User;
use crate::{StoreError, TenantTx};

/// The key that refuses a second tenant of an id.
pub const TENANT_ID_TAKEN: &str = "tenants_pkey";
/// The constraint that refuses a slug that was given before.
pub const SLUG_TAKEN: &str = "tenants_slug_key";

/// A token whose record moves.
#[derive(Debug, Clone)]
pub struct MovedToken {
    /// As it was issued.
    pub row: TokenRow,
    /// When it was called back, and by whom.
    pub revoked: Option<Evidence>,
}

struct TokenColumns {
    id: TokenId,
    key: Option<KeyId>,
    family: Option<FamilyId>,
    subject: String,
    scope: String,
    issued_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
    revoked_by: Option<String>,
}

impl TryFrom<TokenColumns> for MovedToken {
    type Error = StoreError;
    fn try_from(row: TokenColumns) -> Result<Self, StoreError> {
        let TokenColumns { id, key, family, subject, scope, issued_at, expires_at, revoked_at, revoked_by } = row;
        let revoked = crate::standing::evidence("issued_tokens", (revoked_at, revoked_by))?;
        Ok(Self { row: TokenRow { id, key, family, subject, scope, issued_at, expires_at }, revoked })
    }
}

impl TenantTx<'_> {
    /// Lets statements of this transaction take longer than a request may.
    pub async fn take_time(&mut self) -> Result<(), StoreError> {
        // Whoever reads what is written may be slow too.
        let both = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";
        sqlx::raw_sql(both).execute(&mut *self.connection).await?;
        Ok(())
    }

    /// What is kept of these people's passwords, in order of id.
    pub async fn passwords(&mut self, users: &[UserId]) -> Result<Vec<(UserId, PasswordHash)>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT user_id AS "user: UserId", hash FROM passwords WHERE tenant_id = $1 AND user_id = ANY ($2) ORDER BY user_id"#,
            self.tenant.0,
            &users.iter().map(|id| id.0).collect::<Vec<_>>()
        )
        .fetch_all(&mut *self.connection)
        .await?;
        Ok(rows.into_iter().map(|row| (row.user, PasswordHash::new(row.hash))).collect())
    }

    /// Who these people are at connections, in order of person and connection.
    pub async fn links_of(&mut self, users: &[UserId]) -> Result<Vec<Link>, StoreError> {
        Ok(sqlx::query_as!(
            Link,
            r#"SELECT l.connection_id AS "connection: ConnectionId", c.name AS connection_name, c.title AS connection_title,
                      l.subject, l.user_id AS "user: UserId", l.profile, l.created_at, l.used_at
                 FROM connection_links l
                 JOIN connections c ON (c.tenant_id, c.id) = (l.tenant_id, l.connection_id)
                WHERE l.tenant_id = $1 AND l.user_id = ANY ($2)
                ORDER BY l.user_id, c.name"#,
            self.tenant.0,
            &users.iter().map(|id| id.0).collect::<Vec<_>>()
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// What is kept of these keys' secrets, in order of key and slot.
    pub async fn secrets_of(&mut self, keys: &[KeyId]) -> Result<Vec<(KeyId, StoredSecret)>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT key_id AS "key: KeyId", slot, mac, pepper_version, hash, created_at, expires_at
                 FROM api_key_secrets
                WHERE tenant_id = $1 AND key_id = ANY ($2)
                ORDER BY key_id, slot"#,
            self.tenant.0,
            keys.iter().map(KeyId::as_str).collect::<Vec<_>>() as _
        )
        .fetch_all(&mut *self.connection)
        .await?;
        rows.into_iter()
            .map(|row| {
                let kept = KeptSecret::from_columns(row.mac, row.pepper_version, row.hash)?;
                let secret = StoredSecret { slot: row.slot, kept, created_at: row.created_at, expires_at: row.expires_at };
                Ok((row.key, secret))
            })
            .collect()
    }

    /// Versions of the peppers that secrets are hashed under of keys that somebody here may still use, in order.
    pub async fn peppers_in_use(&mut self) -> Result<Vec<i16>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT DISTINCT s.pepper_version AS "version!"
                 FROM api_key_secrets s
                 JOIN api_keys k ON (k.tenant_id, k.id) = (s.tenant_id, s.key_id)
                 LEFT JOIN users u ON (u.tenant_id, u.id) = (k.tenant_id, k.user_id)
                 LEFT JOIN applications a ON (a.tenant_id, a.id) = (k.tenant_id, k.application_id)
                WHERE s.tenant_id = $1 AND s.pepper_version IS NOT NULL
                  AND coalesce(k.revoked_at, u.deleted_at, a.deleted_at) IS NULL
                ORDER BY 1"#,
            self.tenant.0
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// Tokens that must stay known wherever their keys are published: those without an end, those that were called back and
    /// have not ended for long, and of each of these times the one that ends last of those issued since, which says how long
    /// a signing key is needed. In order of id.
    pub async fn tokens_that_matter(&mut self, since: &[DateTime<Utc>]) -> Result<Vec<MovedToken>, StoreError> {
        sqlx::query_as!(
            TokenColumns,
            r#"WITH wanted AS (
                   SELECT t.jti, t.expires_at FROM issued_tokens t
                    WHERE t.tenant_id = $1 AND t.expires_at = to_timestamp($2)
                    UNION
                   SELECT t.jti, t.expires_at
                     FROM revocations r
                     JOIN issued_tokens t ON t.tenant_id = r.tenant_id AND t.jti = r.id::uuid
                    WHERE r.tenant_id = $1 AND r.kind = 'jti'
                    UNION
                   SELECT last.jti, last.expires_at
                     FROM unnest($3::timestamptz[]) AS began
                    CROSS JOIN LATERAL (SELECT t.jti, t.expires_at FROM issued_tokens t
                                         WHERE t.tenant_id = $1 AND t.expires_at < '9999-01-01'
                                           -- Clocks differ, and `iat` is whole seconds, or lies back.
                                           AND t.issued_at >= began - interval '1 minute'
                                         ORDER BY t.expires_at DESC, t.jti
                                         LIMIT 1) AS last
               )
               SELECT t.jti AS "id: TokenId", t.key_id AS "key: KeyId", t.family_id AS "family: FamilyId", t.subject, t.scope,
                      t.issued_at, t.expires_at, t.revoked_at, t.revoked_by
                 FROM issued_tokens t
                 JOIN wanted w ON (w.jti, w.expires_at) = (t.jti, t.expires_at)
                WHERE t.tenant_id = $1
                ORDER BY t.jti"#,
            self.tenant.0,
            UNENDING as f64,
            since
        )
        .fetch_all(&mut *self.connection)
        .await?
        .into_iter()
        .map(MovedToken::try_from)
        .collect()
    }

    /// Every revocation that is written down, in order.
    pub async fn all_revocations(&mut self) -> Result<Vec<Revocation>, StoreError> {
        let rows =
            sqlx::query!("SELECT seq, kind, id, before, until FROM revocations WHERE tenant_id = $1 ORDER BY seq", self.tenant.0)
                .fetch_all(&mut *self.connection)
                .await?;
        rows.into_iter()
            .map(|row| {
                let stops = Stops::parse(&row.kind)?;
                Ok(Revocation { seq: row.seq, stops, id: row.id, before: row.before, until: row.until })
            })
            .collect()
    }

    /// Plans anew what is asked again, in a transaction that fills tables: what was planned while they were small, such as the
    /// checks of foreign keys, would read more and more of them.
    pub async fn plan_anew(&mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("DISCARD PLANS").execute(&mut *self.connection).await?;
        Ok(())
    }

    /// Keeps a tenant as it was. The transaction is already within it.
    pub async fn keep_tenant(&mut self, tenant: &Tenant) -> Result<(), StoreError> {
        let Tenant { id, slug, name, settings, presets, created_at, status, logins_ended_at } = tenant;
        let [disabled, _] = status.columns();
        sqlx::query!(
            "INSERT INTO tenants (id, slug, name, settings, presets, created_at, disabled_at, disabled_by, logins_ended_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            id.0,
            slug,
            name,
            settings,
            presets,
            created_at,
            disabled.0,
            disabled.1,
            *logins_ended_at
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Keeps a signing key as it was. One that may sign no more has no private half.
    pub async fn keep_signing_key(&mut self, key: &SigningKey) -> Result<(), StoreError> {
        let SigningKey { kid, algorithm, public_key, sealed_private, created_at, activated_at, at_once, audience, state } = key;
        let (word, retired_at, erased_at, ends, gone) = match state {
            SigningKeyState::Next => ("next", None, None, None, None),
            SigningKeyState::Active { .. } => ("active", None, None, None, None),
            SigningKeyState::Retired { at, erased_at, ends } => ("retired", Some(*at), *erased_at, *ends, None),
            SigningKeyState::Gone { at, why } => ("retired", Some(*at), Some(*at), None, Some((*at, why.word()))),
        };
        let ends_at = ends.map(|ends| match ends {
            Ends::At(end) => end,
            Ends::Never => *created_at,
        });
        let (gone_at, gone_why) = gone.unzip();
        sqlx::query!(
            "INSERT INTO signing_keys (tenant_id, kid, algorithm, public_key, sealed_private, state, created_at, activated_at,
                                       retired_at, at_once, erased_at, ends_at, unending, gone_at, gone_why, audience_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
            self.tenant.0,
            kid,
            algorithm.name(),
            public_key,
            sealed_private,
            word,
            created_at,
            *activated_at,
            retired_at,
            at_once,
            erased_at,
            ends_at,
            matches!(ends, Some(Ends::Never)),
            gone_at,
            gone_why,
            audience.map(|id| id.0)
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Keeps a person as they were, deleted ones too. `folded` and `skeleton` are those of a new user.
    pub async fn keep_user(&mut self, user: &User, folded: &str, skeleton: &str) -> Result<(), StoreError> {
        let User { id, username, email, roles, scopes, attributes, created_at, status } = user;
        let [disabled, deleted] = status.columns();
        sqlx::query!(
            "INSERT INTO users (tenant_id, id, username, username_folded, username_skeleton, email, roles, scopes, attributes,
                                created_at, disabled_at, disabled_by, deleted_at, deleted_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            self.tenant.0,
            id.0,
            username,
            folded,
            skeleton,
            email.as_deref(),
            roles,
            scopes,
            serde_json::Value::Object(attributes.clone()),
            created_at,
            disabled.0,
            disabled.1,
            deleted.0,
            deleted.1
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Keeps an application as it was.
    pub async fn keep_application(&mut self, application: &Application) -> Result<(), StoreError> {
        let Application { id, name, token_lifetime, scopes, roles, created_at, status } = application;
        let [disabled, deleted] = status.columns();
        sqlx::query!(
            "INSERT INTO applications (tenant_id, id, name, token_lifetime, scopes, roles, created_at,
                                       disabled_at, disabled_by, deleted_at, deleted_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            self.tenant.0,
            id.0,
            name,
            *token_lifetime,
            scopes.as_deref(),
            roles,
            created_at,
            disabled.0,
            disabled.1,
            deleted.0,
            deleted.1
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Keeps a key as it was, with what is kept of its secrets. Where nobody uses it, its time begins anew at `now`.
    pub async fn keep_key(&mut self, key: &ApiKey, secrets: &[StoredSecret], now: DateTime<Utc>) -> Result<(), StoreError> {
        let ApiKey {
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
            last_used_network: _,
            last_used_agent: _,
        } = key;
        let (application, user) = match owner {
            Owner::Application(id) => (Some(id.0), None),
            Owner::User(id) => (None, Some(id.0)),
        };
        let (disabled, revoked) = match status {
            KeyStatus::Active => (None, None),
            KeyStatus::Disabled(evidence) => (Some(evidence), None),
            KeyStatus::Revoked(evidence) => (None, Some(evidence)),
        };
        sqlx::query!(
            "INSERT INTO api_keys (tenant_id, id, name, application_id, user_id, scopes, roles, act_as, act_as_default, agents,
                                   limits, token_lifetime, refresh, created_at, created_by, expires_at,
                                   disabled_at, disabled_by, revoked_at, revoked_by, enabled_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)",
            self.tenant.0,
            id.as_str(),
            name,
            application,
            user,
            scopes,
            roles,
            act_as.as_deref(),
            act_as_default.as_deref(),
            agents.as_deref(),
            limits,
            *token_lifetime,
            refresh,
            created_at,
            created_by,
            *expires_at,
            disabled.map(|evidence| evidence.at),
            disabled.map(|evidence| evidence.by.as_str()),
            revoked.map(|evidence| evidence.at),
            revoked.map(|evidence| evidence.by.as_str()),
            now
        )
        .execute(&mut *self.connection)
        .await?;
        sqlx::query!("INSERT INTO api_key_routes (key_id, tenant_id) VALUES ($1, $2)", id.as_str(), self.tenant.0)
            .execute(&mut *self.connection)
            .await?;
        for StoredSecret { slot, kept, created_at, expires_at } in secrets {
            self.put_secret(id, *slot, kept, *created_at).await?;
            if let Some(end) = expires_at {
                self.end_secret(id, *slot, *end).await?;
            }
        }
        if let Some(at) = last_used_at {
            let last = crate::api_key::KeyUse { at: *at, network: None, agent: None };
            self.write_key_uses(&[(id.clone(), last)]).await?;
        }
        Ok(())
    }

    /// Keeps the record of a token.
    pub async fn keep_token(&mut self, token: &MovedToken) -> Result<(), StoreError> {
        let MovedToken { row, revoked } = token;
        let TokenRow { id, key, family, subject, scope, issued_at, expires_at } = row;
        sqlx::query!(
            "INSERT INTO issued_tokens (tenant_id, jti, expires_at, issued_at, key_id, family_id, subject, scope,
                                        revoked_at, revoked_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            self.tenant.0,
            id.0,
            expires_at,
            issued_at,
            key.as_ref().map(KeyId::as_str),
            family.map(|id| id.0),
            subject,
            scope,
            revoked.as_ref().map(|evidence| evidence.at),
            revoked.as_ref().map(|evidence| evidence.by.as_str())
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Keeps what was revoked under the numbers that it had, so that who read it elsewhere goes on from there. The tenant must
    /// have no revocations yet.
    pub async fn keep_revocations(&mut self, head: i64, revocations: &[Revocation]) -> Result<(), StoreError> {
        if head == 0 {
            return Ok(());
        }
        sqlx::query!("INSERT INTO revocation_heads (tenant_id, seq) VALUES ($1, $2)", self.tenant.0, head)
            .execute(&mut *self.connection)
            .await?;
        sqlx::query!(
            "INSERT INTO revocations (tenant_id, kind, id, seq, before, until)
             SELECT $1, r.*
               FROM unnest($2::text[], $3::text[], $4::bigint[], $5::timestamptz[], $6::timestamptz[])
                    AS r (kind, id, seq, before, until)",
            self.tenant.0,
            revocations.iter().map(|one| one.stops.claim()).collect::<Vec<_>>() as _,
            revocations.iter().map(|one| one.id.as_str()).collect::<Vec<_>>() as _,
            &revocations.iter().map(|one| one.seq).collect::<Vec<_>>(),
            revocations.iter().map(|one| one.before).collect::<Vec<_>>() as _,
            &revocations.iter().map(|one| one.until).collect::<Vec<_>>()
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }
}

type Columns<'a> = (Option<DateTime<Utc>>, Option<&'a str>);

impl Status {
    /// As columns: disabled, deleted.
    fn columns(&self) -> [Columns<'_>; 2] {
        match self {
            Self::Active => [(None, None), (None, None)],
            Self::Disabled(Evidence { at, by }) => [(Some(*at), Some(by)), (None, None)],
            Self::Deleted(Evidence { at, by }) => [(None, None), (Some(*at), Some(by))],
        }
    }
}
