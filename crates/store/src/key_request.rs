//! Requests for developer keys, and their one-time links.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::api_key::SecretMac;
use crate::id::{ApplicationId, KeyId, KeyRequestId};
use crate::{StoreError, TenantTx};

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestStatus {
    /// Nobody has decided.
    Pending,
    /// Approved; the developer has not taken the key yet.
    Approved,
    /// Denied.
    Denied,
    /// Approved, and the key was made.
    Claimed,
}

impl RequestStatus {
    /// As it is kept.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Claimed => "claimed",
        }
    }

    /// From how it is kept.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Pending, Self::Approved, Self::Denied, Self::Claimed].into_iter().find(|status| status.word() == word)
    }
}

/// A request for a developer key.
#[derive(Debug, Clone)]
pub struct KeyRequest {
    /// Its id.
    pub id: KeyRequestId,
    /// What the key is for.
    pub app_name: String,
    /// Who asks, in lower case.
    pub email: String,
    /// Why.
    pub reason: String,
    /// Where it stands.
    pub status: RequestStatus,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When whoever reads that mailbox said that it is theirs.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// When it was decided.
    pub decided_at: Option<DateTime<Utc>>,
    /// By whom.
    pub decided_by: Option<String>,
    /// Why it was denied.
    pub decision_reason: Option<String>,
    /// The application that the key is to belong to; `None` is the person of that address.
    pub application: Option<ApplicationId>,
    /// What was approved.
    pub scopes: Option<Vec<String>>,
    /// When the key is to end.
    pub key_expires_at: Option<DateTime<Utc>>,
    /// The key that was made.
    pub key: Option<KeyId>,
}

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// Says that the request is theirs.
    Confirm,
    /// Takes the key.
    Claim,
}

impl LinkKind {
    fn word(self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Claim => "claim",
        }
    }
}

struct Row {
    id: KeyRequestId,
    app_name: String,
    email: String,
    reason: String,
    status: String,
    created_at: DateTime<Utc>,
    confirmed_at: Option<DateTime<Utc>>,
    decided_at: Option<DateTime<Utc>>,
    decided_by: Option<String>,
    decision_reason: Option<String>,
    application_id: Option<Uuid>,
    scopes: Option<Vec<String>>,
    key_expires_at: Option<DateTime<Utc>>,
    key_id: Option<KeyId>,
}

impl TryFrom<Row> for KeyRequest {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        let Row {
            id,
            app_name,
            email,
            reason,
            status,
            created_at,
            confirmed_at,
            decided_at,
            decided_by,
            decision_reason,
            application_id,
            scopes,
            key_expires_at,
            key_id,
        } = row;
        let status = RequestStatus::parse(&status)
            .ok_or_else(|| StoreError::ImpossibleRow { table: "key_requests", what: format!("the status {status}") })?;
        Ok(Self {
            id,
            app_name,
            email,
            reason,
            status,
            created_at,
            confirmed_at,
            decided_at,
            decided_by,
            decision_reason,
            application: application_id.map(ApplicationId),
            scopes,
            key_expires_at,
            key: key_id,
        })
    }
}

impl TenantTx<'_> {
    /// Keeps a request, unless the same one is open: then its id, and false.
    pub async fn open_key_request(
        &mut self,
        id: KeyRequestId,
        app_name: &str,
        email: &str,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<(KeyRequestId, bool), StoreError> {
        let made = sqlx::query_scalar!(
            r#"INSERT INTO key_requests (tenant_id, id, app_name, email, reason, status, created_at)
               VALUES ($1, $2, $3, $4, $5, 'pending', $6)
               ON CONFLICT (tenant_id, email, lower(app_name)) WHERE status = 'pending' DO NOTHING
               RETURNING id AS "id: KeyRequestId""#,
            self.tenant.0,
            id.0,
            app_name,
            email,
            reason,
            now
        )
        .fetch_optional(&mut *self.connection)
        .await?;
        if let Some(id) = made {
            return Ok((id, true));
        }
        let open = sqlx::query_scalar!(
            r#"SELECT id AS "id: KeyRequestId" FROM key_requests
                WHERE tenant_id = $1 AND email = $2 AND lower(app_name) = lower($3) AND status = 'pending'"#,
            self.tenant.0,
            email,
            app_name
        )
        .fetch_optional(&mut *self.connection)
        .await?;
        // Decided a moment ago: whoever asks again in a moment is told the same or gets a new one.
        Ok((open.unwrap_or(id), false))
    }

    /// How many are open.
    pub async fn open_key_requests(&mut self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM key_requests WHERE tenant_id = $1 AND status = 'pending'"#,
            self.tenant.0
        )
        .fetch_one(&mut *self.connection)
        .await?)
    }

    /// The request of that id.
    pub async fn key_request(&mut self, id: KeyRequestId) -> Result<Option<KeyRequest>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: KeyRequestId", app_name, email, reason, status, created_at, confirmed_at, decided_at,
                      decided_by, decision_reason, application_id, scopes, key_expires_at, key_id AS "key_id: KeyId"
                 FROM key_requests
                WHERE tenant_id = $1 AND id = $2"#,
            self.tenant.0,
            id.0
        )
        .fetch_optional(&mut *self.connection)
        .await?
        .map(KeyRequest::try_from)
        .transpose()
    }

    /// Requests in order of id, after the given one; of one status if asked.
    pub async fn list_key_requests(
        &mut self,
        status: Option<RequestStatus>,
        after: Option<KeyRequestId>,
        limit: u16,
    ) -> Result<Vec<KeyRequest>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: KeyRequestId", app_name, email, reason, status, created_at, confirmed_at, decided_at,
                      decided_by, decision_reason, application_id, scopes, key_expires_at, key_id AS "key_id: KeyId"
                 FROM key_requests
                WHERE tenant_id = $1 AND ($2::text IS NULL OR status = $2) AND ($3::uuid IS NULL OR id > $3)
                ORDER BY id
                LIMIT $4"#,
            self.tenant.0,
            status.map(RequestStatus::word),
            after.map(|id| id.0),
            i64::from(limit)
        )
        .fetch_all(&mut *self.connection)
        .await?
        .into_iter()
        .map(KeyRequest::try_from)
        .collect()
    }

    /// Says that whoever reads the mailbox confirmed. False when it was so before, or is not open.
    pub async fn confirm_key_request(&mut self, id: KeyRequestId, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE key_requests SET confirmed_at = $3
              WHERE tenant_id = $1 AND id = $2 AND status = 'pending' AND confirmed_at IS NULL",
            self.tenant.0,
            id.0,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Approves an open request. False when somebody decided before.
    pub async fn approve_key_request(
        &mut self,
        id: KeyRequestId,
        approval: &Approval<'_>,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let Approval { by, application, scopes, key_expires_at } = approval;
        let done = sqlx::query!(
            "UPDATE key_requests
                SET status = 'approved', decided_at = $3, decided_by = $4, application_id = $5, scopes = $6, key_expires_at = $7
              WHERE tenant_id = $1 AND id = $2 AND status = 'pending'",
            self.tenant.0,
            id.0,
            now,
            by,
            application.map(|id| id.0),
            *scopes,
            *key_expires_at
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Says which key was made. False when one was made before.
    pub async fn claim_key_request(&mut self, id: KeyRequestId, key: &KeyId) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE key_requests SET status = 'claimed', key_id = $3 WHERE tenant_id = $1 AND id = $2 AND status = 'approved'",
            self.tenant.0,
            id.0,
            key.as_str()
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Denies an open request. False when somebody decided before.
    pub async fn deny_key_request(
        &mut self,
        id: KeyRequestId,
        by: &str,
        reason: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE key_requests SET status = 'denied', decided_at = $3, decided_by = $4, decision_reason = $5
              WHERE tenant_id = $1 AND id = $2 AND status = 'pending'",
            self.tenant.0,
            id.0,
            now,
            by,
            reason
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Keeps a one-time link of a request.
    pub async fn create_link(
        &mut self,
        mac: SecretMac,
        kind: LinkKind,
        request: KeyRequestId,
        expires_at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO key_request_links (tenant_id, mac, kind, request_id, expires_at) VALUES ($1, $2, $3, $4, $5)",
            self.tenant.0,
            &mac.0[..],
            kind.word(),
            request.0,
            expires_at
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// The request of a link that is good now, without using it up.
    pub async fn link_of(
        &mut self,
        macs: &[[u8; 32]],
        kind: LinkKind,
        now: DateTime<Utc>,
    ) -> Result<Option<KeyRequestId>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT request_id AS "id: KeyRequestId" FROM key_request_links
                WHERE tenant_id = $1 AND mac = ANY ($2) AND kind = $3 AND expires_at > $4"#,
            self.tenant.0,
            &macs.iter().map(|mac| mac.to_vec()).collect::<Vec<_>>(),
            kind.word(),
            now
        )
        .fetch_optional(&mut *self.connection)
        .await?)
    }

    /// Uses a link up. `None` when there is none of that MAC and kind, or it is over.
    pub async fn consume_link(
        &mut self,
        macs: &[[u8; 32]],
        kind: LinkKind,
        now: DateTime<Utc>,
    ) -> Result<Option<KeyRequestId>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"DELETE FROM key_request_links
                WHERE tenant_id = $1 AND mac = ANY ($2) AND kind = $3 AND expires_at > $4
            RETURNING request_id AS "id: KeyRequestId""#,
            self.tenant.0,
            &macs.iter().map(|mac| mac.to_vec()).collect::<Vec<_>>(),
            kind.word(),
            now
        )
        .fetch_optional(&mut *self.connection)
        .await?)
    }

    /// Forgets requests that nobody decided and that were made before, and all links that are over.
    pub async fn prune_key_requests(
        &mut self,
        unconfirmed_before: DateTime<Utc>,
        open_before: DateTime<Utc>,
        decided_before: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        let links = sqlx::query!("DELETE FROM key_request_links WHERE tenant_id = $1 AND expires_at <= $2", self.tenant.0, now)
            .execute(&mut *self.connection)
            .await?;
        let requests = sqlx::query!(
            "DELETE FROM key_requests
              WHERE tenant_id = $1
                AND (status = 'pending' AND (created_at < $3 OR (confirmed_at IS NULL AND created_at < $2))
                     OR status <> 'pending' AND decided_at < $4)",
            self.tenant.0,
            unconfirmed_before,
            open_before,
            decided_before
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(links.rows_affected() + requests.rows_affected())
    }
}

/// What was approved.
pub struct Approval<'a> {
    /// By whom.
    pub by: &'a str,
    /// The application that the key is to belong to.
    pub application: Option<ApplicationId>,
    /// What the key may do.
    pub scopes: &'a [String],
    /// When the key is to end.
    pub key_expires_at: Option<DateTime<Utc>>,
}
