//! Connections to others' providers and directories: what is kept of them, who is who there, and what is under way.

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::id::{ConnectionId, FamilyId, SessionId, UserId};
use crate::token_family::EndedBy;
use crate::{StoreError, TenantTx};

/// The unique constraint that refuses a second connection of a name.
pub const CONNECTION_TAKEN: &str = "connections_tenant_id_name_key";
/// The unique constraint that refuses to link a subject twice.
pub const SUBJECT_TAKEN: &str = "connection_links_pkey";
/// The unique index that refuses a person's second link at one connection.
pub const ALREADY_LINKED: &str = "connection_links_by_user";

/// A connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// In addresses; unique in the tenant, never changes.
    pub name: String,
    /// For people.
    pub title: String,
    /// `oidc` or `ldap`.
    pub kind: String,
    /// How it is used.
    pub settings: Value,
    /// Its secret, sealed.
    pub sealed_secret: Option<Vec<u8>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// Since when it may not be used.
    pub disabled_at: Option<DateTime<Utc>>,
}

/// Who somebody is at a connection.
#[derive(Debug, Clone)]
pub struct Link {
    /// Where.
    pub connection: ConnectionId,
    /// The connection's name.
    pub connection_name: String,
    /// The connection's title.
    pub connection_title: String,
    /// What they are called there.
    pub subject: String,
    /// Who they are here.
    pub user: UserId,
    /// What the other side said of them last.
    pub profile: Value,
    /// When they were linked.
    pub created_at: DateTime<Utc>,
    /// When they last came from there.
    pub used_at: Option<DateTime<Utc>>,
}

/// What a login that is under way becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// A browser session.
    Session,
    /// Tokens.
    Tokens,
    /// A link of the person who began it, in this session.
    Link(UserId, SessionId),
}

impl Purpose {
    fn columns(&self) -> (&'static str, Option<Uuid>, Option<Uuid>) {
        match self {
            Self::Session => ("session", None, None),
            Self::Tokens => ("tokens", None, None),
            Self::Link(user, session) => ("link", Some(user.0), Some(session.0)),
        }
    }
}

/// A login that is under way at a provider.
#[derive(Debug, Clone)]
pub struct State {
    /// A keyed digest of `state`.
    pub mac: [u8; 32],
    /// Where it is under way.
    pub connection: ConnectionId,
    /// A keyed digest of the browser's cookie.
    pub browser: [u8; 32],
    /// Nonce and PKCE verifier, sealed.
    pub sealed: Vec<u8>,
    /// Where the provider sends the browser.
    pub redirect_uri: String,
    /// Where to go on to.
    pub return_to: Option<String>,
    /// What it becomes.
    pub purpose: Purpose,
}

/// What came from a connection.
#[derive(Debug, Clone)]
pub struct ConnectionLogin {
    /// The session's or family's id.
    pub id: Uuid,
    /// Where it came from.
    pub connection: ConnectionId,
    /// Whose it is.
    pub user: UserId,
    /// The provider's refresh token, sealed.
    pub sealed_refresh: Option<Vec<u8>>,
    /// When the provider last said that this person may.
    pub checked_at: DateTime<Utc>,
}

fn digest(bytes: Vec<u8>) -> Result<[u8; 32], StoreError> {
    bytes
        .try_into()
        .map_err(|_| StoreError::ImpossibleRow { table: "connection_states", what: "a digest that is not 32 bytes long".into() })
}

impl TenantTx<'_> {
    /// Keeps a new connection.
    pub async fn create_connection(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let Connection { id, name, title, kind, settings, sealed_secret, created_at, updated_at, disabled_at: _ } = connection;
        sqlx::query!(
            "INSERT INTO connections (tenant_id, id, name, title, kind, settings, sealed_secret, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            self.tenant.0,
            id.0,
            name,
            title,
            kind,
            settings,
            sealed_secret.as_deref(),
            created_at,
            updated_at
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// All connections, in order of name.
    pub async fn connections(&mut self) -> Result<Vec<Connection>, StoreError> {
        Ok(sqlx::query_as!(
            Connection,
            r#"SELECT id AS "id: ConnectionId", name, title, kind, settings, sealed_secret, created_at, updated_at, disabled_at
                 FROM connections
                WHERE tenant_id = $1
                ORDER BY name"#,
            self.tenant.0
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// The connection of that id.
    pub async fn connection(&mut self, id: ConnectionId) -> Result<Option<Connection>, StoreError> {
        Ok(sqlx::query_as!(
            Connection,
            r#"SELECT id AS "id: ConnectionId", name, title, kind, settings, sealed_secret, created_at, updated_at, disabled_at
                 FROM connections
                WHERE tenant_id = $1 AND id = $2"#,
            self.tenant.0,
            id.0
        )
        .fetch_optional(&mut *self.connection)
        .await?)
    }

    /// The connection of that name.
    pub async fn connection_by_name(&mut self, name: &str) -> Result<Option<Connection>, StoreError> {
        Ok(sqlx::query_as!(
            Connection,
            r#"SELECT id AS "id: ConnectionId", name, title, kind, settings, sealed_secret, created_at, updated_at, disabled_at
                 FROM connections
                WHERE tenant_id = $1 AND name = $2"#,
            self.tenant.0,
            name
        )
        .fetch_optional(&mut *self.connection)
        .await?)
    }

    /// Replaces the sealed form of a connection's secret. False when it is not what it was any more.
    pub async fn seal_connection_again(&mut self, before: &Connection, sealed: &[u8]) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE connections SET sealed_secret = $4 WHERE tenant_id = $1 AND id = $2 AND sealed_secret = $3",
            self.tenant.0,
            before.id.0,
            before.sealed_secret.as_deref(),
            sealed
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Logins for which a provider's refresh token is kept.
    pub async fn connection_logins_with_secret(&mut self) -> Result<Vec<ConnectionLogin>, StoreError> {
        Ok(sqlx::query_as!(
            ConnectionLogin,
            r#"SELECT id, connection_id AS "connection: ConnectionId", user_id AS "user: UserId", sealed_refresh, checked_at
                 FROM connection_logins
                WHERE tenant_id = $1 AND sealed_refresh IS NOT NULL"#,
            self.tenant.0
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// Replaces the sealed form of a provider's refresh token. False when it is gone, or not what it was any more.
    pub async fn seal_connection_login_again(&mut self, before: &ConnectionLogin, sealed: &[u8]) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE connection_logins SET sealed_refresh = $4 WHERE tenant_id = $1 AND id = $2 AND sealed_refresh = $3",
            self.tenant.0,
            before.id,
            before.sealed_refresh.as_deref(),
            sealed
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Locks a connection against use and change until the transaction ends. False when it is not there.
    pub async fn lock_connection(&mut self, id: ConnectionId) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar!(
            r#"SELECT 1 AS "one!" FROM connections WHERE tenant_id = $1 AND id = $2 FOR UPDATE"#,
            self.tenant.0,
            id.0
        )
        .fetch_optional(&mut *self.connection)
        .await?;
        Ok(found.is_some())
    }

    /// Replaces what a connection says.
    pub async fn update_connection(
        &mut self,
        id: ConnectionId,
        title: &str,
        settings: &Value,
        sealed_secret: Option<&[u8]>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE connections SET title = $3, settings = $4, sealed_secret = $5, updated_at = $6
              WHERE tenant_id = $1 AND id = $2",
            self.tenant.0,
            id.0,
            title,
            settings,
            sealed_secret,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Disables (`Some`) or enables (`None`) a connection. False when it was so already.
    pub async fn set_connection_disabled(
        &mut self,
        id: ConnectionId,
        disabled: Option<(DateTime<Utc>, &str)>,
    ) -> Result<bool, StoreError> {
        let (at, by) = disabled.unzip();
        let done = sqlx::query!(
            "UPDATE connections SET disabled_at = $3, disabled_by = $4
              WHERE tenant_id = $1 AND id = $2 AND (disabled_at IS NULL) <> ($3::timestamptz IS NULL)",
            self.tenant.0,
            id.0,
            at,
            by
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Removes a connection, with its links and all that is under way there. False when it is not there.
    pub async fn delete_connection(&mut self, id: ConnectionId) -> Result<bool, StoreError> {
        let done = sqlx::query!("DELETE FROM connections WHERE tenant_id = $1 AND id = $2", self.tenant.0, id.0)
            .execute(&mut *self.connection)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Who somebody is at connections, by the person or by what they are called there.
    pub async fn connection_links(
        &mut self,
        user: Option<UserId>,
        at: Option<(ConnectionId, &str)>,
    ) -> Result<Vec<Link>, StoreError> {
        let (connection, subject) = at.unzip();
        Ok(sqlx::query_as!(
            Link,
            r#"SELECT l.connection_id AS "connection: ConnectionId", c.name AS connection_name, c.title AS connection_title,
                      l.subject, l.user_id AS "user: UserId", l.profile, l.created_at, l.used_at
                 FROM connection_links l
                 JOIN connections c ON (c.tenant_id, c.id) = (l.tenant_id, l.connection_id)
                WHERE l.tenant_id = $1 AND ($2::uuid IS NULL OR l.user_id = $2)
                  AND ($3::uuid IS NULL OR (l.connection_id = $3 AND l.subject = $4))
                  AND num_nonnulls($2::uuid, $3::uuid) > 0
                ORDER BY c.name"#,
            self.tenant.0,
            user.map(|user| user.0),
            connection.map(|id| id.0),
            subject
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// Links a person.
    pub async fn create_connection_link(
        &mut self,
        connection: ConnectionId,
        subject: &str,
        user: UserId,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO connection_links (tenant_id, connection_id, subject, user_id, created_at) VALUES ($1, $2, $3, $4, $5)",
            self.tenant.0,
            connection.0,
            subject,
            user.0,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Keeps what the other side said of somebody, and that they came.
    pub async fn use_connection_link(
        &mut self,
        connection: ConnectionId,
        subject: &str,
        profile: &Value,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE connection_links SET profile = $4, used_at = $5
              WHERE tenant_id = $1 AND connection_id = $2 AND subject = $3",
            self.tenant.0,
            connection.0,
            subject,
            profile,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Unlinks a person from one connection, or from all; returns how many links there were.
    pub async fn delete_connection_links(&mut self, user: UserId, connection: Option<ConnectionId>) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "DELETE FROM connection_links
              WHERE tenant_id = $1 AND user_id = $2 AND ($3::uuid IS NULL OR connection_id = $3)",
            self.tenant.0,
            user.0,
            connection.map(|id| id.0)
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected())
    }

    /// Those of these people and connections whose link stands and who may act, held as they are until the transaction ends.
    pub async fn hold_connection_links(
        &mut self,
        links: &[(UserId, ConnectionId)],
    ) -> Result<Vec<(UserId, ConnectionId)>, StoreError> {
        if links.is_empty() {
            return Ok(Vec::new());
        }
        let rows = sqlx::query!(
            r#"SELECT u.id AS "user: UserId", c.id AS "connection: ConnectionId"
                 FROM unnest($2::uuid[], $3::uuid[]) AS a (user_id, connection_id)
                 JOIN users u ON u.tenant_id = $1 AND u.id = a.user_id
                 JOIN connections c ON c.tenant_id = $1 AND c.id = a.connection_id
                 JOIN connection_links l ON l.tenant_id = $1 AND l.user_id = u.id AND l.connection_id = c.id
                WHERE u.disabled_at IS NULL AND u.deleted_at IS NULL AND c.disabled_at IS NULL
                ORDER BY u.id, c.id
                  FOR SHARE OF u, c, l"#,
            self.tenant.0,
            &links.iter().map(|(user, _)| user.0).collect::<Vec<_>>(),
            &links.iter().map(|(_, connection)| connection.0).collect::<Vec<_>>()
        )
        .fetch_all(&mut *self.connection)
        .await?;
        Ok(rows.into_iter().map(|row| (row.user, row.connection)).collect())
    }

    /// Keeps a login that goes to a provider.
    pub async fn create_connection_state(
        &mut self,
        state: &State,
        now: DateTime<Utc>,
        expires_at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let (purpose, user, session) = state.purpose.columns();
        sqlx::query!(
            "INSERT INTO connection_states (tenant_id, mac, connection_id, browser, sealed, redirect_uri, return_to, purpose,
                                            user_id, session_id, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            self.tenant.0,
            &state.mac[..],
            state.connection.0,
            &state.browser[..],
            &state.sealed,
            state.redirect_uri,
            state.return_to,
            purpose,
            user,
            session,
            now,
            expires_at
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Uses a state up, where that browser began it at that connection. `None` when there is none that is good.
    pub async fn consume_connection_state(
        &mut self,
        connection: ConnectionId,
        macs: &[[u8; 32]],
        browsers: &[[u8; 32]],
        now: DateTime<Utc>,
    ) -> Result<Option<State>, StoreError> {
        let row = sqlx::query!(
            r#"UPDATE connection_states SET consumed_at = $5
                WHERE tenant_id = $1 AND mac = ANY ($2) AND browser = ANY ($3) AND connection_id = $4
                  AND consumed_at IS NULL AND expires_at > $5
            RETURNING mac, browser, sealed, redirect_uri, return_to, purpose, user_id AS "user: UserId",
                      session_id AS "session: SessionId""#,
            self.tenant.0,
            &macs.iter().map(|mac| mac.to_vec()).collect::<Vec<_>>(),
            &browsers.iter().map(|mac| mac.to_vec()).collect::<Vec<_>>(),
            connection.0,
            now
        )
        .fetch_optional(&mut *self.connection)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let purpose = match (row.purpose.as_str(), row.user, row.session) {
            ("session", None, None) => Purpose::Session,
            ("tokens", None, None) => Purpose::Tokens,
            ("link", Some(user), Some(session)) => Purpose::Link(user, session),
            _ => return Err(StoreError::ImpossibleRow { table: "connection_states", what: "an unknown purpose".into() }),
        };
        Ok(Some(State {
            mac: digest(row.mac)?,
            connection,
            browser: digest(row.browser)?,
            sealed: row.sealed,
            redirect_uri: row.redirect_uri,
            return_to: row.return_to,
            purpose,
        }))
    }

    /// Forgets logins that never came back, and what came from connections and has ended.
    pub async fn prune_connections(&mut self, now: DateTime<Utc>) -> Result<u64, StoreError> {
        let states = sqlx::query!("DELETE FROM connection_states WHERE tenant_id = $1 AND expires_at <= $2", self.tenant.0, now)
            .execute(&mut *self.connection)
            .await?;
        let logins =
            sqlx::query!("DELETE FROM connection_logins WHERE tenant_id = $1 AND id < first_uuid_of($2)", self.tenant.0, now)
                .execute(&mut *self.connection)
                .await?;
        Ok(states.rows_affected() + logins.rows_affected())
    }

    /// Keeps that a session or family came from a connection, by the database's time.
    pub async fn create_connection_login(&mut self, login: &ConnectionLogin) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO connection_logins (tenant_id, id, connection_id, user_id, sealed_refresh, checked_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
            self.tenant.0,
            login.id,
            login.connection.0,
            login.user.0,
            login.sealed_refresh.as_deref(),
            login.checked_at
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Ends the sessions and families that came from a connection, of everybody or of one person; returns the families.
    pub async fn end_connection_logins(
        &mut self,
        connection: ConnectionId,
        user: Option<UserId>,
        now: DateTime<Utc>,
        by: &str,
    ) -> Result<Vec<FamilyId>, StoreError> {
        sqlx::query!(
            "WITH living AS (
                 SELECT s.id FROM sessions s
                   JOIN connection_logins l ON (l.tenant_id, l.id) = (s.tenant_id, s.id)
                  WHERE s.tenant_id = $1 AND l.connection_id = $2 AND ($3::uuid IS NULL OR l.user_id = $3)
                    AND s.revoked_at IS NULL
                  ORDER BY s.id
                    FOR NO KEY UPDATE OF s
             )
             UPDATE sessions s SET revoked_at = $4, revoked_by = $5, revoked_why = $6
               FROM living
              WHERE s.tenant_id = $1 AND s.id = living.id",
            self.tenant.0,
            connection.0,
            user.map(|user| user.0),
            now,
            by,
            EndedBy::Revoked.word()
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(sqlx::query_scalar!(
            r#"WITH living AS (
                   SELECT f.id FROM token_families f
                     JOIN connection_logins l ON (l.tenant_id, l.id) = (f.tenant_id, f.id)
                    WHERE f.tenant_id = $1 AND l.connection_id = $2 AND ($3::uuid IS NULL OR l.user_id = $3)
                      AND f.revoked_at IS NULL
                    ORDER BY f.id
                      FOR NO KEY UPDATE OF f
               )
               UPDATE token_families f SET revoked_at = $4, revoked_by = $5, revoked_why = $6
                 FROM living
                WHERE f.tenant_id = $1 AND f.id = living.id
            RETURNING f.id AS "id: FamilyId""#,
            self.tenant.0,
            connection.0,
            user.map(|user| user.0),
            now,
            by,
            EndedBy::Revoked.word()
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// Takes the right to ask the provider about a login until then, if it was not asked since `unasked_since` and nobody is
    /// asking. By the database's time.
    pub async fn claim_connection_login(
        &mut self,
        id: FamilyId,
        unasked_since: DateTime<Utc>,
        seconds: f64,
    ) -> Result<Option<ConnectionLogin>, StoreError> {
        Ok(sqlx::query_as!(
            ConnectionLogin,
            r#"UPDATE connection_logins SET asking_until = clock_timestamp() + make_interval(secs => $4)
                WHERE tenant_id = $1 AND id = $2 AND checked_at <= $3
                  AND (asking_until IS NULL OR asking_until <= clock_timestamp())
            RETURNING id, connection_id AS "connection: ConnectionId", user_id AS "user: UserId", sealed_refresh, checked_at"#,
            self.tenant.0,
            id.0,
            unasked_since,
            seconds
        )
        .fetch_optional(&mut *self.connection)
        .await?)
    }

    /// What came from a connection, by the session's or family's id.
    pub async fn connection_login(&mut self, id: FamilyId) -> Result<Option<ConnectionLogin>, StoreError> {
        Ok(sqlx::query_as!(
            ConnectionLogin,
            r#"SELECT id, connection_id AS "connection: ConnectionId", user_id AS "user: UserId", sealed_refresh, checked_at
                 FROM connection_logins
                WHERE tenant_id = $1 AND id = $2"#,
            self.tenant.0,
            id.0
        )
        .fetch_optional(&mut *self.connection)
        .await?)
    }

    /// Keeps the provider's next refresh token.
    pub async fn keep_provider_refresh(&mut self, id: FamilyId, sealed: &[u8]) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE connection_logins SET sealed_refresh = $3 WHERE tenant_id = $1 AND id = $2",
            self.tenant.0,
            id.0,
            sealed
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Lets others ask; keeps when the provider said yes, if it did.
    pub async fn release_connection_login(&mut self, id: FamilyId, checked_at: Option<DateTime<Utc>>) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE connection_logins SET asking_until = NULL, checked_at = coalesce($3, checked_at)
              WHERE tenant_id = $1 AND id = $2",
            self.tenant.0,
            id.0,
            checked_at
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }
}
