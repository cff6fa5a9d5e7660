//! What was revoked, in order: for services that verify tokens offline. Entries are written by a trigger
//! (`migrations/0018_revocations.sql`), in the transaction of whatever revokes.

use chrono::{DateTime, Utc};

use crate::{StoreError, TenantTx};

/// Which claim of a token names what is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stops {
    /// `sid`: a login.
    Login,
    /// `key_id`: a key.
    Key,
    /// `sub`: a person.
    Subject,
    /// `client_id`: an application.
    Client,
    /// `jti`: one token.
    Token,
    /// `tid`: the whole tenant.
    Tenant,
}

impl Stops {
    /// The claim's name, as the database keeps it.
    #[must_use]
    pub fn claim(self) -> &'static str {
        match self {
            Self::Login => "sid",
            Self::Key => "key_id",
            Self::Subject => "sub",
            Self::Client => "client_id",
            Self::Token => "jti",
            Self::Tenant => "tid",
        }
    }

    /// The kind that this claim names.
    pub fn parse(claim: &str) -> Result<Self, StoreError> {
        [Self::Login, Self::Key, Self::Subject, Self::Client, Self::Token, Self::Tenant]
            .into_iter()
            .find(|stops| stops.claim() == claim)
            .ok_or_else(|| StoreError::ImpossibleRow { table: "revocations", what: "an unknown kind".into() })
    }
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Its number.
    pub seq: i64,
    /// What it stops.
    pub stops: Stops,
    /// The claim's value.
    pub id: String,
    /// Tokens that were issued until then; `None` is all of them.
    pub before: Option<DateTime<Utc>>,
    /// Of no use after that. [`UNENDING`](crate::issued_token::UNENDING) is never.
    pub until: DateTime<Utc>,
}

/// A part of the list, all of one moment.
#[derive(Debug)]
pub struct RevocationPage {
    /// In order.
    pub entries: Vec<Revocation>,
    /// The number of the newest entry that there is; 0 if there never was one.
    pub head: i64,
}

impl TenantTx<'_> {
    /// Entries after that number that are of use now, at most `limit`.
    pub async fn revocations(&mut self, after: i64, limit: u16) -> Result<RevocationPage, StoreError> {
        // One statement, one snapshot: numbers become visible in their order, so nothing before `head` is still to come.
        let rows = sqlx::query!(
            r#"SELECT coalesce(h.seq, 0) AS "head!", r.seq AS "seq?", r.kind AS "kind?", r.id AS "id?",
                      r.before, r.until AS "until?"
                 FROM (SELECT) AS always
                 LEFT JOIN revocation_heads h ON h.tenant_id = $1
                 LEFT JOIN (SELECT seq, kind, id, before, until FROM revocations
                             WHERE tenant_id = $1 AND seq > $2 AND until > clock_timestamp()
                             ORDER BY seq
                             LIMIT $3) AS r ON true
                ORDER BY r.seq"#,
            self.tenant.0,
            after,
            i64::from(limit)
        )
        .fetch_all(&mut *self.connection)
        .await?;
        let head = rows.first().map_or(0, |row| row.head);
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            if let (Some(seq), Some(kind), Some(id), Some(until)) = (row.seq, row.kind, row.id, row.until) {
                entries.push(Revocation { seq, stops: Stops::parse(&kind)?, id, before: row.before, until });
            }
        }
        Ok(RevocationPage { entries, head })
    }

    /// Whether a key ended by itself and that is not written down yet.
    pub async fn has_unnoted_end(&mut self, now: DateTime<Utc>) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM api_keys
                               WHERE tenant_id = $1 AND expires_at <= $2
                                 AND (end_noted_at IS NULL OR end_noted_at < expires_at)) AS "there!""#,
            self.tenant.0,
            now
        )
        .fetch_one(&mut *self.connection)
        .await?)
    }

    /// Writes down which keys ended by themselves, 500 at most; at the commit, a trigger makes entries of those on which
    /// tokens without an end stand. Returns how many.
    pub async fn note_ends(&mut self, now: DateTime<Utc>) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "UPDATE api_keys SET end_noted_at = $2
              WHERE tenant_id = $1
                AND id IN (SELECT id FROM api_keys
                            WHERE tenant_id = $1 AND expires_at <= $2
                              AND (end_noted_at IS NULL OR end_noted_at < expires_at)
                            ORDER BY expires_at
                            LIMIT 500
                              FOR UPDATE SKIP LOCKED)",
            self.tenant.0,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected())
    }

    /// Forgets entries that are of no use any more.
    pub async fn prune_revocations(&mut self) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "DELETE FROM revocations
              WHERE tenant_id = $1
                AND (kind, id) IN (SELECT kind, id FROM revocations
                                    WHERE tenant_id = $1 AND until < clock_timestamp() LIMIT 5000)",
            self.tenant.0
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected())
    }
}
