//! Token families: a login's chain of refresh tokens.
//!
//! A family keeps the number (generation) of the token that may be used next. A rotation moves the number on and adds the
//! token of that number; whatever has a lower number was used.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::api_key::SecretMac;
use crate::id::{ConnectionId, FamilyId, KeyId, Owner, TenantId, UserId};
use crate::{Store, StoreError, TenantTx};

/// The longest life of a family or session, in seconds: 366 days. Partitions are made that far ahead.
pub const LONGEST_LOGIN: i32 = 31_622_400;

/// Families of one principal that live at the same time: what ends all of them must not take long.
pub const MOST_FAMILIES: i64 = 500;

/// Whose tokens a family's are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Somebody who logged in.
    User(UserId),
    /// A key that was exchanged.
    Key(KeyId),
}

/// Why a family or session was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// A refresh token was used a second time.
    Reuse,
    /// The person logged out.
    Logout,
    /// Somebody called it back.
    Revoked,
    /// Another login took its place in the same browser.
    Login,
    /// The password was changed.
    Password,
    /// The person was disabled.
    Disabled,
    /// The person was deleted.
    Deleted,
    /// The key was disabled, revoked or given another secret, or its owner was disabled.
    Key,
    /// There were too many: the one that was used longest ago made room.
    Surplus,
}

impl EndedBy {
    /// As the database and the audit trail write it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Reuse => "reuse",
            Self::Logout => "logout",
            Self::Revoked => "revoked",
            Self::Login => "login",
            Self::Password => "password",
            Self::Disabled => "disabled",
            Self::Deleted => "deleted",
            Self::Key => "key",
            Self::Surplus => "surplus",
        }
    }

    pub(crate) fn parse(word: &str) -> Result<Self, StoreError> {
        let all = [
            Self::Reuse,
            Self::Logout,
            Self::Revoked,
            Self::Login,
            Self::Password,
            Self::Disabled,
            Self::Deleted,
            Self::Key,
            Self::Surplus,
        ];
        all.into_iter()
            .find(|why| why.word() == word)
            .ok_or_else(|| StoreError::ImpossibleRow { table: "token_families", what: "an unknown reason".into() })
    }
}

/// The end of a family or session before its time, with its evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: DateTime<Utc>,
    /// By whom, as the audit trail writes an actor.
    pub by: String,
    /// Why.
    pub why: EndedBy,
}

impl Ended {
    pub(crate) fn from_columns(
        table: &'static str,
        columns: (Option<DateTime<Utc>>, Option<String>, Option<String>),
    ) -> Result<Option<Self>, StoreError> {
        match columns {
            (None, None, None) => Ok(None),
            (Some(at), Some(by), Some(why)) => Ok(Some(Self { at, by, why: EndedBy::parse(&why)? })),
            _ => Err(StoreError::ImpossibleRow { table, what: "an end without its author, time or reason".into() }),
        }
    }
}

/// A family, without what moves with each rotation.
#[derive(Debug, Clone)]
pub struct TokenFamily {
    /// Its id, the `sid` of its access tokens.
    pub id: FamilyId,
    /// Whose tokens these are.
    pub principal: Principal,
    /// The client that must prove itself at each refresh, as `application:…` or `key:…`, if there is one.
    pub client: Option<String>,
    /// What was granted.
    pub scope: Vec<String>,
    /// What the login came from, as it called itself.
    pub user_agent: Option<String>,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// When it ends, whatever happens.
    pub ends_at: DateTime<Utc>,
    /// Seconds without a refresh after which it ends.
    pub idle_seconds: i32,
    /// When its newest token was made.
    pub rotated_at: DateTime<Utc>,
    /// Its end before that time.
    pub ended: Option<Ended>,
    /// The connection that the person came from, if it was one.
    pub connection: Option<ConnectionId>,
}

/// A family to be kept, with its first token.
pub struct NewFamily {
    /// An id whose time is `ends_at`.
    pub id: FamilyId,
    /// Whose tokens these are.
    pub principal: Principal,
    /// The client that must prove itself at each refresh.
    pub client: Option<String>,
    /// What is granted.
    pub scope: Vec<String>,
    /// What the login came from, as it called itself.
    pub user_agent: Option<String>,
    /// When it ends, whatever happens.
    pub ends_at: DateTime<Utc>,
    /// Seconds without a refresh after which it ends.
    pub idle_seconds: i32,
    /// What is kept of the first token's secret.
    pub mac: SecretMac,
    /// The pepper under which `mac` was made.
    pub pepper_version: i16,
}

/// A family as it is under its lock.
pub struct LockedFamily {
    /// Its id.
    pub id: FamilyId,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// When it ends, whatever happens.
    pub ends_at: DateTime<Utc>,
    /// Seconds without a refresh after which it ends.
    pub idle_seconds: i32,
    /// The number of the token that may be used next.
    pub generation: i32,
    /// When that token was made.
    pub rotated_at: DateTime<Utc>,
    /// The answer that carried it.
    pub sealed_answer: Option<Vec<u8>>,
    /// Its end before its time.
    pub ended: Option<Ended>,
}

/// What a rotation decides by, all of one moment.
pub struct Locked {
    /// The database's time, after the locks were taken.
    pub now: DateTime<Utc>,
    /// Whether the tenant may act.
    pub tenant_active: bool,
    /// What was begun until then is over.
    pub logins_ended_at: Option<DateTime<Utc>>,
    /// The families.
    pub families: HashMap<FamilyId, LockedFamily>,
    /// What is kept of the tokens that were asked about.
    pub macs: HashMap<(FamilyId, i32), (i16, SecretMac)>,
}

/// A token that follows another.
pub struct Successor {
    /// Its family.
    pub family: FamilyId,
    /// Its number.
    pub generation: i32,
    /// What is kept of its secret.
    pub mac: SecretMac,
    /// The pepper under which `mac` was made.
    pub pepper_version: i16,
    /// The answer that carries it.
    pub sealed_answer: Vec<u8>,
}

struct Row {
    id: FamilyId,
    user_id: Option<Uuid>,
    key_id: Option<KeyId>,
    client: Option<String>,
    scope: Vec<String>,
    user_agent: Option<String>,
    created_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
    idle_seconds: i32,
    rotated_at: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
    revoked_by: Option<String>,
    revoked_why: Option<String>,
    connection: Option<ConnectionId>,
}

impl TryFrom<Row> for TokenFamily {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        let Row {
            id,
            user_id,
            key_id,
            client,
            scope,
            user_agent,
            created_at,
            ends_at,
            idle_seconds,
            rotated_at,
            revoked_at,
            revoked_by,
            revoked_why,
            connection,
        } = row;
        let principal = match (user_id, key_id) {
            (Some(user), None) => Principal::User(UserId(user)),
            (None, Some(key)) => Principal::Key(key),
            _ => return Err(StoreError::ImpossibleRow { table: "token_families", what: "not exactly one principal".into() }),
        };
        let ended = Ended::from_columns("token_families", (revoked_at, revoked_by, revoked_why))?;
        Ok(Self { id, principal, client, scope, user_agent, created_at, ends_at, idle_seconds, rotated_at, ended, connection })
    }
}

fn mac_of(bytes: Vec<u8>) -> Result<SecretMac, StoreError> {
    let mac = bytes
        .try_into()
        .map_err(|_| StoreError::ImpossibleRow { table: "refresh_tokens", what: "a MAC that is not 32 bytes long".into() })?;
    Ok(SecretMac(mac))
}

impl TenantTx<'_> {
    /// Keeps a new family and its first token, by the database's time.
    pub async fn open_family(&mut self, family: &NewFamily) -> Result<(), StoreError> {
        let (user, key) = match &family.principal {
            Principal::User(user) => (Some(user.0), None),
            Principal::Key(key) => (None, Some(key.as_str())),
        };
        sqlx::query!(
            "WITH family AS (
                 INSERT INTO token_families (tenant_id, id, user_id, key_id, client, scope, user_agent, created_at, ends_at,
                                             idle_seconds, rotated_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, statement_timestamp(), $8, $9, statement_timestamp())
             )
             INSERT INTO refresh_tokens (tenant_id, family_id, generation, mac, pepper_version) VALUES ($1, $2, 0, $10, $11)",
            self.tenant.0,
            family.id.0,
            user,
            key,
            family.client,
            &family.scope,
            family.user_agent,
            family.ends_at,
            family.idle_seconds,
            &family.mac.0,
            family.pepper_version
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Ends the families of a principal that are too many, those used longest ago; returns which.
    /// What has ended by itself counts no more.
    pub async fn end_surplus_families(&mut self, principal: &Principal, by: &str) -> Result<Vec<FamilyId>, StoreError> {
        let (user, key) = match principal {
            Principal::User(user) => (Some(user.0), None),
            Principal::Key(key) => (None, Some(key.as_str())),
        };
        Ok(sqlx::query_scalar!(
            r#"UPDATE token_families SET revoked_at = statement_timestamp(), revoked_by = $4, revoked_why = $5
                WHERE tenant_id = $1 AND revoked_at IS NULL
                  AND id = ANY(ARRAY(SELECT id FROM token_families
                                      WHERE tenant_id = $1 AND revoked_at IS NULL AND ends_at > statement_timestamp()
                                        AND (user_id = $2 AND user_id IS NOT NULL OR key_id = $3 AND key_id IS NOT NULL)
                                      ORDER BY rotated_at DESC
                                     OFFSET $6))
            RETURNING id AS "id: FamilyId""#,
            self.tenant.0,
            user,
            key,
            by,
            EndedBy::Surplus.word(),
            MOST_FAMILIES
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// Ends all families of the keys of an owner; returns which.
    pub async fn end_families_of_keys(
        &mut self,
        owner: Owner,
        now: DateTime<Utc>,
        by: &str,
    ) -> Result<Vec<FamilyId>, StoreError> {
        let (application, user) = match owner {
            Owner::Application(id) => (Some(id.0), None),
            Owner::User(id) => (None, Some(id.0)),
        };
        Ok(sqlx::query_scalar!(
            r#"WITH living AS (
                   SELECT id FROM token_families
                    WHERE tenant_id = $1 AND revoked_at IS NULL AND key_id IS NOT NULL
                      AND key_id IN (SELECT k.id FROM api_keys k
                                      WHERE k.tenant_id = $1 AND (k.application_id = $2 OR k.user_id = $3))
                    ORDER BY id
                      FOR NO KEY UPDATE
               )
               UPDATE token_families f SET revoked_at = $4, revoked_by = $5, revoked_why = $6
                 FROM living
                WHERE f.tenant_id = $1 AND f.id = living.id
            RETURNING f.id AS "id: FamilyId""#,
            self.tenant.0,
            application,
            user,
            now,
            by,
            EndedBy::Key.word()
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// Lets the families of a key end at the given time, or when they already would; returns which.
    pub async fn cap_families(&mut self, key: &KeyId, at: DateTime<Utc>) -> Result<Vec<FamilyId>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"WITH living AS (
                   SELECT id FROM token_families
                    WHERE tenant_id = $1 AND key_id = $2 AND key_id IS NOT NULL AND revoked_at IS NULL AND ends_at > $3
                    ORDER BY id
                      FOR NO KEY UPDATE
               )
               UPDATE token_families f SET ends_at = $3
                 FROM living
                WHERE f.tenant_id = $1 AND f.id = living.id
            RETURNING f.id AS "id: FamilyId""#,
            self.tenant.0,
            key.as_str(),
            at
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// The family of that id.
    pub async fn family(&mut self, id: FamilyId) -> Result<Option<TokenFamily>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: FamilyId", user_id, key_id AS "key_id: KeyId", client, scope, user_agent, created_at,
                      ends_at, idle_seconds, rotated_at, revoked_at, revoked_by, revoked_why,
                      (SELECT l.connection_id FROM connection_logins l
                        WHERE l.tenant_id = $1 AND l.id = $2) AS "connection: ConnectionId"
                 FROM token_families
                WHERE tenant_id = $1 AND id = $2"#,
            self.tenant.0,
            id.0
        )
        .fetch_optional(&mut *self.connection)
        .await?
        .map(TokenFamily::try_from)
        .transpose()
    }

    /// A person's families that were not ended, newest first, at most 500.
    pub async fn families_of(&mut self, user: UserId, now: DateTime<Utc>) -> Result<Vec<TokenFamily>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: FamilyId", user_id, key_id AS "key_id: KeyId", client, scope, user_agent, created_at,
                      ends_at, idle_seconds, rotated_at, revoked_at, revoked_by, revoked_why,
                      (SELECT l.connection_id FROM connection_logins l
                        WHERE l.tenant_id = $1 AND l.id = token_families.id) AS "connection: ConnectionId"
                 FROM token_families
                WHERE tenant_id = $1 AND user_id = $2 AND revoked_at IS NULL
                  AND ends_at > $3 AND rotated_at + make_interval(secs => idle_seconds) > $3
                ORDER BY rotated_at DESC
                LIMIT 500"#,
            self.tenant.0,
            user.0,
            now
        )
        .fetch_all(&mut *self.connection)
        .await?
        .into_iter()
        .map(TokenFamily::try_from)
        .collect()
    }

    /// Locks families, in order, until the transaction ends, and reads what a rotation decides by. In two statements: what
    /// the second sees was committed before the locks were ours.
    pub async fn lock_families(&mut self, asked: &[(FamilyId, i32)]) -> Result<Locked, StoreError> {
        // In order, each once. Each is looked up by its key, whatever the planner believes of a partition that was empty when
        // it planned: hence the sub-selects that it cannot turn into joins.
        let families: Vec<Uuid> = asked.iter().map(|(family, _)| family.0).collect::<BTreeSet<_>>().into_iter().collect();
        let rows = sqlx::query!(
            r#"SELECT f.id AS "id: FamilyId", f.created_at, f.ends_at, f.idle_seconds, f.generation, f.rotated_at,
                      f.sealed_answer, f.revoked_at, f.revoked_by, f.revoked_why
                 FROM unnest($2::uuid[]) AS a (id)
                CROSS JOIN LATERAL (SELECT * FROM token_families f
                                     WHERE f.tenant_id = $1 AND f.id = a.id
                                    OFFSET 0 FOR NO KEY UPDATE) AS f"#,
            self.tenant.0,
            &families
        )
        .fetch_all(&mut *self.connection)
        .await?;
        let families_locked = rows
            .into_iter()
            .map(|row| {
                let ended = Ended::from_columns("token_families", (row.revoked_at, row.revoked_by, row.revoked_why))?;
                let family = LockedFamily {
                    id: row.id,
                    created_at: row.created_at,
                    ends_at: row.ends_at,
                    idle_seconds: row.idle_seconds,
                    generation: row.generation,
                    rotated_at: row.rotated_at,
                    sealed_answer: row.sealed_answer,
                    ended,
                };
                Ok((row.id, family))
            })
            .collect::<Result<_, StoreError>>()?;
        let rows = sqlx::query!(
            r#"SELECT clock_timestamp() AS "now!", n.disabled_at, n.deleted_at, n.logins_ended_at,
                      t.family_id AS "family?: FamilyId", t.generation AS "generation?", t.mac AS "mac?",
                      t.pepper_version AS "pepper_version?"
                 FROM tenants n
                 LEFT JOIN (SELECT r.family_id, r.generation, r.mac, r.pepper_version
                              FROM unnest($2::uuid[], $3::int[]) AS a (family_id, generation)
                             CROSS JOIN LATERAL (SELECT * FROM refresh_tokens r
                                                  WHERE r.tenant_id = $1 AND r.family_id = a.family_id
                                                    AND r.generation = a.generation
                                                 OFFSET 0) AS r) AS t ON true
                WHERE n.id = $1"#,
            self.tenant.0,
            &asked.iter().map(|(family, _)| family.0).collect::<Vec<_>>(),
            &asked.iter().map(|(_, generation)| *generation).collect::<Vec<_>>()
        )
        .fetch_all(&mut *self.connection)
        .await?;
        let Some(first) = rows.first() else {
            return Err(StoreError::ImpossibleRow { table: "tenants", what: "a tenant that is not there".into() });
        };
        let (now, logins_ended_at) = (first.now, first.logins_ended_at);
        let tenant_active = first.disabled_at.is_none() && first.deleted_at.is_none();
        let mut macs = HashMap::new();
        for row in rows {
            if let (Some(family), Some(generation), Some(mac), Some(version)) =
                (row.family, row.generation, row.mac, row.pepper_version)
            {
                macs.insert((family, generation), (version, mac_of(mac)?));
            }
        }
        Ok(Locked { now, tenant_active, logins_ended_at, families: families_locked, macs })
    }

    /// Moves locked families on to their next token, at most one step each. Returns how many moved: fewer than asked only
    /// if a family was not as it was when it was locked.
    pub async fn rotate_families(&mut self, successors: &[&Successor], now: DateTime<Utc>) -> Result<usize, StoreError> {
        let moved = sqlx::query_scalar!(
            r#"WITH asked AS (
                   SELECT * FROM unnest($2::uuid[], $3::int[], $4::bytea[], $5::smallint[], $6::bytea[])
                              AS a (family_id, generation, mac, pepper_version, sealed_answer)
               ), moved AS (
                   UPDATE token_families f SET generation = a.generation, rotated_at = $7, sealed_answer = a.sealed_answer
                     FROM asked a
                    WHERE f.tenant_id = $1 AND f.id = a.family_id AND f.generation = a.generation - 1 AND f.revoked_at IS NULL
                RETURNING f.id, f.generation
               ), born AS (
                   INSERT INTO refresh_tokens (tenant_id, family_id, generation, mac, pepper_version)
                   SELECT $1, a.family_id, a.generation, a.mac, a.pepper_version FROM asked a JOIN moved m ON m.id = a.family_id AND m.generation = a.generation
               )
               SELECT count(*) AS "moved!" FROM moved"#,
            self.tenant.0,
            &successors.iter().map(|one| one.family.0).collect::<Vec<_>>(),
            &successors.iter().map(|one| one.generation).collect::<Vec<_>>(),
            successors.iter().map(|one| one.mac.0.as_slice()).collect::<Vec<_>>() as _,
            &successors.iter().map(|one| one.pepper_version).collect::<Vec<_>>(),
            successors.iter().map(|one| one.sealed_answer.as_slice()).collect::<Vec<_>>() as _,
            now
        )
        .fetch_one(&mut *self.connection)
        .await?;
        Ok(usize::try_from(moved).unwrap_or(0))
    }

    /// Gives the newest, unused token of a locked family another secret: the one before dies.
    pub async fn replace_newest(&mut self, successor: &Successor, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "WITH family AS (
                 UPDATE token_families SET rotated_at = $4, sealed_answer = $5
                  WHERE tenant_id = $1 AND id = $2 AND generation = $3 AND revoked_at IS NULL
              RETURNING id
             )
             UPDATE refresh_tokens SET mac = $6, pepper_version = $7
               FROM family
              WHERE tenant_id = $1 AND family_id = family.id AND generation = $3",
            self.tenant.0,
            successor.family.0,
            successor.generation,
            now,
            successor.sealed_answer,
            &successor.mac.0,
            successor.pepper_version
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends a family. False when it was ended already, or is not there.
    pub async fn end_family(&mut self, id: FamilyId, now: DateTime<Utc>, by: &str, why: EndedBy) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE token_families SET revoked_at = $3, revoked_by = $4, revoked_why = $5
              WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL",
            self.tenant.0,
            id.0,
            now,
            by,
            why.word()
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends all families of a principal; returns which, so that they can be forgotten.
    pub async fn end_families(
        &mut self,
        principal: &Principal,
        now: DateTime<Utc>,
        by: &str,
        why: EndedBy,
    ) -> Result<Vec<FamilyId>, StoreError> {
        let (user, key) = match principal {
            Principal::User(user) => (Some(user.0), None),
            Principal::Key(key) => (None, Some(key.as_str())),
        };
        // Locked in the order in which rotations lock them.
        Ok(sqlx::query_scalar!(
            r#"WITH living AS (
                   SELECT id FROM token_families
                    WHERE tenant_id = $1 AND revoked_at IS NULL
                      AND (user_id = $2 AND user_id IS NOT NULL OR key_id = $3 AND key_id IS NOT NULL)
                    ORDER BY id
                      FOR NO KEY UPDATE
               )
               UPDATE token_families f SET revoked_at = $4, revoked_by = $5, revoked_why = $6
                 FROM living
                WHERE f.tenant_id = $1 AND f.id = living.id
            RETURNING f.id AS "id: FamilyId""#,
            self.tenant.0,
            user,
            key,
            now,
            by,
            why.word()
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }
}

impl Store {
    /// Makes the partitions that logins of the next month can need. Returns how many were missing.
    pub async fn ensure_login_partitions(&self, now: DateTime<Utc>) -> Result<i32, StoreError> {
        let ahead = chrono::TimeDelta::seconds(i64::from(LONGEST_LOGIN)) + chrono::TimeDelta::days(31);
        Ok(sqlx::query_scalar!(r#"SELECT ensure_login_partitions($1, $2) AS "made!""#, now, now + ahead)
            .fetch_one(self.pool())
            .await?)
    }

    /// Drops the partitions whose logins have all ended. Returns how many.
    pub async fn drop_ended_login_partitions(&self, now: DateTime<Utc>) -> Result<i32, StoreError> {
        Ok(sqlx::query_scalar!(r#"SELECT drop_login_partitions($1) AS "dropped!""#, now).fetch_one(self.pool()).await?)
    }

    /// The tenants that there are, for work that goes through all of them.
    pub async fn all_tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        Ok(sqlx::query_scalar!(r#"SELECT id AS "id: TenantId" FROM tenants"#).fetch_all(self.pool()).await?)
    }
}
