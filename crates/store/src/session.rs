//! Browser sessions.

use chrono::{DateTime, Utc};

use crate::api_key::SecretMac;
use crate::id::{SessionId, UserId};
use crate::token_family::{Ended, EndedBy};
use crate::{StoreError, TenantTx};

/// A browser session.
#[derive(Clone)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserId,
    /// What is kept of the cookie's secret.
    pub mac: SecretMac,
    /// The pepper under which `mac` was made.
    pub pepper_version: i16,
    /// What the login came from, as it called itself.
    pub user_agent: Option<String>,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// Within a minute of its last use.
    pub seen_at: DateTime<Utc>,
    /// When it ends, whatever happens.
    pub ends_at: DateTime<Utc>,
    /// Seconds without a use after which it ends.
    pub idle_seconds: i32,
    /// Its end before that time.
    pub ended: Option<Ended>,
}

/// A session to be kept.
pub struct NewSession {
    /// An id whose time is `ends_at`.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserId,
    /// What is kept of the cookie's secret.
    pub mac: SecretMac,
    /// The pepper under which `mac` was made.
    pub pepper_version: i16,
    /// What the login came from, as it called itself.
    pub user_agent: Option<String>,
    /// When it ends, whatever happens.
    pub ends_at: DateTime<Utc>,
    /// Seconds without a use after which it ends.
    pub idle_seconds: i32,
}

struct Row {
    id: SessionId,
    user_id: UserId,
    mac: Vec<u8>,
    pepper_version: i16,
    user_agent: Option<String>,
    created_at: DateTime<Utc>,
    seen_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
    idle_seconds: i32,
    revoked_at: Option<DateTime<Utc>>,
    revoked_by: Option<String>,
    revoked_why: Option<String>,
}

impl TryFrom<Row> for Session {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        let Row {
            id,
            user_id,
            mac,
            pepper_version,
            user_agent,
            created_at,
            seen_at,
            ends_at,
            idle_seconds,
            revoked_at,
            revoked_by,
            revoked_why,
        } = row;
        let mac = mac
            .try_into()
            .map_err(|_| StoreError::ImpossibleRow { table: "sessions", what: "a MAC that is not 32 bytes long".into() })?;
        let ended = Ended::from_columns("sessions", (revoked_at, revoked_by, revoked_why))?;
        Ok(Self {
            id,
            user: user_id,
            mac: SecretMac(mac),
            pepper_version,
            user_agent,
            created_at,
            seen_at,
            ends_at,
            idle_seconds,
            ended,
        })
    }
}

impl TenantTx<'_> {
    /// Keeps a new session, by the database's time.
    pub async fn open_session(&mut self, session: &NewSession) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO sessions (tenant_id, id, user_id, mac, pepper_version, user_agent, created_at, seen_at, ends_at,
                                   idle_seconds)
             VALUES ($1, $2, $3, $4, $5, $6, statement_timestamp(), statement_timestamp(), $7, $8)",
            self.tenant.0,
            session.id.0,
            session.user.0,
            &session.mac.0,
            session.pepper_version,
            session.user_agent,
            session.ends_at,
            session.idle_seconds
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// The session of that id.
    pub async fn session(&mut self, id: SessionId) -> Result<Option<Session>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: SessionId", user_id AS "user_id: UserId", mac, pepper_version, user_agent, created_at,
                      seen_at, ends_at, idle_seconds, revoked_at, revoked_by, revoked_why
                 FROM sessions
                WHERE tenant_id = $1 AND id = $2"#,
            self.tenant.0,
            id.0
        )
        .fetch_optional(&mut *self.connection)
        .await?
        .map(Session::try_from)
        .transpose()
    }

    /// A person's sessions that were not ended, newest first, at most 500.
    pub async fn sessions_of(&mut self, user: UserId, now: DateTime<Utc>) -> Result<Vec<Session>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: SessionId", user_id AS "user_id: UserId", mac, pepper_version, user_agent, created_at,
                      seen_at, ends_at, idle_seconds, revoked_at, revoked_by, revoked_why
                 FROM sessions
                WHERE tenant_id = $1 AND user_id = $2 AND revoked_at IS NULL
                  AND ends_at > $3 AND seen_at + make_interval(secs => idle_seconds) > $3
                ORDER BY seen_at DESC
                LIMIT 500"#,
            self.tenant.0,
            user.0,
            now
        )
        .fetch_all(&mut *self.connection)
        .await?
        .into_iter()
        .map(Session::try_from)
        .collect()
    }

    /// Keeps that a session was used.
    pub async fn touch_session(&mut self, id: SessionId, now: DateTime<Utc>) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE sessions SET seen_at = greatest(seen_at, $3) WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL",
            self.tenant.0,
            id.0,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Ends a session. False when it was ended already, or is not there.
    pub async fn end_session(&mut self, id: SessionId, now: DateTime<Utc>, by: &str, why: EndedBy) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE sessions SET revoked_at = $3, revoked_by = $4, revoked_why = $5
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

    /// Ends all sessions of a person; returns how many.
    pub async fn end_sessions(&mut self, user: UserId, now: DateTime<Utc>, by: &str, why: EndedBy) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "WITH living AS (
                 SELECT id FROM sessions WHERE tenant_id = $1 AND user_id = $2 AND revoked_at IS NULL ORDER BY id FOR NO KEY UPDATE
             )
             UPDATE sessions s SET revoked_at = $3, revoked_by = $4, revoked_why = $5
               FROM living
              WHERE s.tenant_id = $1 AND s.id = living.id",
            self.tenant.0,
            user.0,
            now,
            by,
            why.word()
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected())
    }
}
