//! The audit trail, and the one statement that records a batch of deeds.

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;

use crate::id::{FamilyId, KeyId, TokenId};
use crate::{StoreError, TenantTx};

/// One entry of a tenant's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// 1, 2, 3, … without gaps.
    pub seq: i64,
    /// When, in whole microseconds.
    pub at: DateTime<Utc>,
    /// What was done, such as `key.exchange`.
    pub action: String,
    /// `ok` or `refused`.
    pub outcome: String,
    /// Who did it, as `kind:id`.
    pub actor: String,
    /// In whose name, as `kind:id`; may be empty.
    pub subject: String,
    /// To what, as `kind:id`; may be empty.
    pub target: String,
    /// The request it came with; may be empty.
    pub request_id: String,
    /// JSON text, exactly as hashed.
    pub detail: String,
    /// Personal fields as JSON text; `None` once erased.
    pub personal: Option<String>,
    /// Salt of `personal_digest`.
    pub personal_salt: Vec<u8>,
    /// Digest of salt and personal fields; covered by the chain.
    pub personal_digest: Vec<u8>,
    /// SHA-256 over the previous hash and this entry.
    pub hash: Vec<u8>,
}

/// The end of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its number of entries.
    pub seq: i64,
    /// The last entry's hash.
    pub hash: Vec<u8>,
    /// HMAC over tenant, seq and hash.
    pub mac: Vec<u8>,
}

/// The durable row of a token.
#[derive(Debug, Clone)]
pub struct TokenRow {
    /// Its `jti`.
    pub id: TokenId,
    /// The key it was issued for, if it was one.
    pub key: Option<KeyId>,
    /// The token family that it belongs to, if there is one.
    pub family: Option<FamilyId>,
    /// Its `sub`.
    pub subject: String,
    /// Its scope, space-separated.
    pub scope: String,
    /// Its `iat`.
    pub issued_at: DateTime<Utc>,
    /// Its `exp`.
    pub expires_at: DateTime<Utc>,
}

/// What one tenant's part of a transaction records.
pub struct Batch<'a> {
    /// Where the head must still be, by its MAC too: the same number of another history, or one that somebody moved
    /// back without our key, is not the same place.
    pub expected: &'a Head,
    /// Where the head will be.
    pub head: &'a Head,
    /// The entries between the two.
    pub entries: &'a [Entry],
    /// Tokens issued.
    pub tokens: &'a [TokenRow],
}

impl TenantTx<'_> {
    /// Starts the tenant's chain at zero entries.
    pub async fn start_audit_chain(&mut self, head: &Head) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO audit_heads (tenant_id, seq, hash, mac) VALUES ($1, $2, $3, $4)",
            self.tenant.0,
            head.seq,
            head.hash,
            head.mac
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// The head, without a lock.
    pub async fn audit_head(&mut self) -> Result<Option<Head>, StoreError> {
        Ok(sqlx::query_as!(Head, "SELECT seq, hash, mac FROM audit_heads WHERE tenant_id = $1", self.tenant.0)
            .fetch_optional(&mut *self.connection)
            .await?)
    }

    /// The head, locked until the transaction ends.
    pub async fn lock_audit_head(&mut self) -> Result<Option<Head>, StoreError> {
        Ok(sqlx::query_as!(Head, "SELECT seq, hash, mac FROM audit_heads WHERE tenant_id = $1 FOR UPDATE", self.tenant.0)
            .fetch_optional(&mut *self.connection)
            .await?)
    }

    /// Records a batch if the head is where it is expected, in one statement. False, with nothing written, when
    /// somebody else moved the head.
    pub async fn record(&mut self, batch: &Batch<'_>) -> Result<bool, StoreError> {
        let Batch { expected, head, entries, tokens } = batch;
        let column = |of: fn(&Entry) -> &str| entries.iter().map(of).collect::<Vec<_>>();
        let bytes = |of: fn(&Entry) -> &[u8]| entries.iter().map(of).collect::<Vec<_>>();
        let moved = sqlx::query_scalar!(
            r#"WITH head AS (
                   UPDATE audit_heads SET seq = $3, hash = $4, mac = $5
                    WHERE tenant_id = $1 AND seq = $2 AND mac = $25
                RETURNING seq
               ), entries AS (
                   INSERT INTO audit_entries (tenant_id, seq, at, action, outcome, actor, subject, target, request_id,
                                              detail, personal, personal_salt, personal_digest, hash)
                   SELECT $1, e.*
                     FROM head,
                          unnest($6::bigint[], $7::timestamptz[], $8::text[], $9::text[], $10::text[], $11::text[],
                                 $12::text[], $13::text[], $14::text[], $15::text[], $16::bytea[], $17::bytea[],
                                 $18::bytea[]) AS e
               ), tokens AS (
                   INSERT INTO issued_tokens (tenant_id, jti, key_id, subject, scope, issued_at, expires_at, family_id)
                   SELECT $1, t.*
                     FROM head,
                          unnest($19::uuid[], $20::text[], $21::text[], $22::text[], $23::timestamptz[],
                                 $24::timestamptz[], $26::uuid[]) AS t
               )
               SELECT count(*) AS "moved!" FROM head"#,
            self.tenant.0,
            expected.seq,
            head.seq,
            head.hash,
            head.mac,
            &entries.iter().map(|e| e.seq).collect::<Vec<_>>(),
            &entries.iter().map(|e| e.at).collect::<Vec<_>>(),
            column(|e| &e.action) as _,
            column(|e| &e.outcome) as _,
            column(|e| &e.actor) as _,
            column(|e| &e.subject) as _,
            column(|e| &e.target) as _,
            column(|e| &e.request_id) as _,
            column(|e| &e.detail) as _,
            entries.iter().map(|e| e.personal.as_deref()).collect::<Vec<_>>() as _,
            bytes(|e| &e.personal_salt) as _,
            bytes(|e| &e.personal_digest) as _,
            bytes(|e| &e.hash) as _,
            &tokens.iter().map(|t| t.id.0).collect::<Vec<_>>(),
            tokens.iter().map(|t| t.key.as_ref().map(KeyId::as_str)).collect::<Vec<_>>() as _,
            tokens.iter().map(|t| t.subject.as_str()).collect::<Vec<_>>() as _,
            tokens.iter().map(|t| t.scope.as_str()).collect::<Vec<_>>() as _,
            &tokens.iter().map(|t| t.issued_at).collect::<Vec<_>>(),
            &tokens.iter().map(|t| t.expires_at).collect::<Vec<_>>(),
            expected.mac,
            tokens.iter().map(|t| t.family.map(|family| family.0)).collect::<Vec<_>>() as _,
        )
        .fetch_one(&mut *self.connection)
        .await?;
        Ok(moved == 1)
    }

    /// Walks the chain from the given number on, without keeping it in memory. Stops when `visit` says so.
    pub async fn walk_audit(&mut self, from_seq: i64, mut visit: impl FnMut(Entry) -> bool) -> Result<(), StoreError> {
        // A million entries take longer than a request may.
        self.take_time().await?;
        let mut entries = sqlx::query_as!(
            Entry,
            "SELECT seq, at, action, outcome, actor, subject, target, request_id, detail,
                    personal, personal_salt, personal_digest, hash
               FROM audit_entries
              WHERE tenant_id = $1 AND seq >= $2
              ORDER BY seq",
            self.tenant.0,
            from_seq
        )
        .fetch(&mut *self.connection);
        while let Some(entry) = entries.try_next().await? {
            if !visit(entry) {
                break;
            }
        }
        Ok(())
    }

    /// One page of the trail.
    pub async fn list_audit(&mut self, filter: &Filter<'_>, page: Page) -> Result<Vec<Entry>, StoreError> {
        // Each combination of filters wants a plan of its own.
        sqlx::raw_sql("SET LOCAL plan_cache_mode = force_custom_plan").execute(&mut *self.connection).await?;
        let Filter { actions, prefix, outcome, actor, subject, target, either, request_id, since, until, notable } = filter;
        // `$extra` is worded so that the partial indexes serve it.
        macro_rules! entries {
            ($extra:literal, $beyond:literal, $order:literal, $edge:expr) => {
                sqlx::query_as!(
                    Entry,
                    "SELECT seq, at, action, outcome, actor, subject, target, request_id, detail,
                            personal, personal_salt, personal_digest, hash
                       FROM audit_entries
                      WHERE tenant_id = $1 AND "
                        + $extra
                        + " AND ($2::text[] IS NULL OR action = ANY ($2))
                            AND ($3::text IS NULL OR starts_with(action, $3))
                            AND ($4::text IS NULL OR outcome = $4)
                            AND ($5::text IS NULL OR actor = $5)
                            AND ($6::text IS NULL OR subject = $6)
                            AND ($7::text IS NULL OR target = $7)
                            AND ($8::text IS NULL OR actor = $8 OR target = $8)
                            AND ($9::text IS NULL OR request_id = $9)
                            AND ($10::timestamptz IS NULL OR at >= $10)
                            AND ($11::timestamptz IS NULL OR at < $11)
                            AND seq "
                        + $beyond
                        + " $12 ORDER BY seq "
                        + $order
                        + " LIMIT $13",
                    self.tenant.0,
                    *actions,
                    *prefix,
                    *outcome,
                    *actor,
                    *subject,
                    *target,
                    *either,
                    *request_id,
                    *since,
                    *until,
                    $edge,
                    i64::from(page.limit)
                )
                .fetch_all(&mut *self.connection)
                .await
            };
        }
        Ok(match (*notable, page.order) {
            (true, Order::Newest(before)) => entries!("NOT is_routine(action, outcome)", "<", "DESC", before.unwrap_or(i64::MAX)),
            (true, Order::Oldest(after)) => entries!("NOT is_routine(action, outcome)", ">", "ASC", after.unwrap_or(0)),
            (false, Order::Newest(before)) => entries!("TRUE", "<", "DESC", before.unwrap_or(i64::MAX)),
            (false, Order::Oldest(after)) => entries!("TRUE", ">", "ASC", after.unwrap_or(0)),
        }?)
    }
}

/// Which entries; what is `None` is not asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// One of these actions.
    pub actions: Option<&'a [String]>,
    /// Actions that begin so.
    pub prefix: Option<&'a str>,
    /// `ok` or `refused`.
    pub outcome: Option<&'a str>,
    /// Who did it.
    pub actor: Option<&'a str>,
    /// In whose name.
    pub subject: Option<&'a str>,
    /// To what.
    pub target: Option<&'a str>,
    /// Who did it, or to what.
    pub either: Option<&'a str>,
    /// With which request.
    pub request_id: Option<&'a str>,
    /// From then on.
    pub since: Option<DateTime<Utc>>,
    /// Before then.
    pub until: Option<DateTime<Utc>>,
    /// Leaves out exchanges and refreshes that went well.
    pub notable: bool,
}

/// Which part of them.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// In which order, from where.
    pub order: Order,
    /// At most so many.
    pub limit: u16,
}

/// In which order, from where.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// Newest first, before that number.
    Newest(Option<i64>),
    /// Oldest first, after that number.
    Oldest(Option<i64>),
}
