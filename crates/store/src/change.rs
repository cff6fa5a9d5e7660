//! News of changed rows: by notification, and by a sweep that misses none.

use sqlx::postgres::PgListener;
use uuid::Uuid;

use crate::id::TenantId;
use crate::{Store, StoreError};

const CHANNEL: &str = "claviger_change";

/// A row that somebody changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its table.
    pub table: String,
    /// Its tenant.
    pub tenant: TenantId,
    /// Its id within the tenant.
    pub id: String,
}

/// What a sweep found.
pub struct Sweep {
    /// The changes since the last sweep; some may be told twice.
    pub changes: Vec<Change>,
    /// Where the next sweep begins.
    pub next: SweepFrom,
    /// True when there may be more than was read: forget everything.
    pub overflow: bool,
}

/// A place in the history of changes: the oldest transaction that was still running at the last sweep.
#[derive(Debug, Clone, Copy)]
pub struct SweepFrom(i64);

/// More changes than this in one sweep and memory is cheaper to empty than to mend.
const SWEEP_LIMIT: usize = 10_000;

/// Notifications of changes. One dedicated connection.
pub struct ChangeListener {
    listener: PgListener,
}

impl Store {
    /// Listens for changes.
    pub async fn listen(&self) -> Result<ChangeListener, StoreError> {
        let mut listener = PgListener::connect_with(self.pool()).await?;
        // The pool's connections give up a slow statement; waiting for news is not one.
        listener.ignore_pool_close_event(true);
        listener.listen(CHANNEL).await?;
        Ok(ChangeListener { listener })
    }

    /// Where a sweep that starts now begins.
    pub async fn sweep_start(&self) -> Result<SweepFrom, StoreError> {
        let oldest = sqlx::query_scalar!(r#"SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS "oldest!""#)
            .fetch_one(self.pool())
            .await?;
        Ok(SweepFrom(oldest))
    }

    /// The changes since `from`, and where the next sweep begins.
    pub async fn sweep(&self, from: SweepFrom) -> Result<Sweep, StoreError> {
        // One statement, one snapshot: what it does not see is in transactions at or after `oldest`.
        let rows = sqlx::query!(
            r#"SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS "oldest!",
                      c.kind AS "table?", c.tenant_id AS "tenant?", c.subject AS "id?"
                 FROM (SELECT) AS always
                 LEFT JOIN (SELECT kind, tenant_id, subject FROM changes WHERE xid >= $1::text::xid8 LIMIT $2) AS c ON true"#,
            from.0.to_string(),
            i64::try_from(SWEEP_LIMIT).unwrap_or(i64::MAX)
        )
        .fetch_all(self.pool())
        .await?;
        let next = SweepFrom(rows.first().map_or(from.0, |row| row.oldest));
        let changes: Vec<Change> = rows
            .into_iter()
            .filter_map(|row| Some(Change { table: row.table?, tenant: TenantId(row.tenant?), id: row.id? }))
            .collect();
        // Backwards goes only another server's history, as after a failover.
        let overflow = changes.len() >= SWEEP_LIMIT || next.0 < from.0;
        Ok(Sweep { changes, next, overflow })
    }

    /// Deletes notes that every replica has read or slept through.
    pub async fn prune_changes(&self) -> Result<u64, StoreError> {
        let mut pruned = 0;
        loop {
            // In small bites: a bulk import leaves more notes than one statement may delete in its time.
            let done = sqlx::query!(
                "DELETE FROM changes
                  WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM changes
                                             WHERE at < clock_timestamp() - interval '2 hours' LIMIT 5000)"
            )
            .execute(self.pool())
            .await?;
            pruned += done.rows_affected();
            if done.rows_affected() < 5000 {
                return Ok(pruned);
            }
        }
    }
}

impl ChangeListener {
    /// The next change. `None` means that the connection was lost for a while and news may have been missed.
    pub async fn next(&mut self) -> Result<Option<Change>, StoreError> {
        let Some(notification) = self.listener.try_recv().await? else { return Ok(None) };
        Ok(parse(notification.payload()))
    }
}

/// `table tenant id`; anything else is treated as missed news.
fn parse(payload: &str) -> Option<Change> {
    let mut parts = payload.splitn(3, ' ');
    Some(Change {
        table: parts.next()?.to_owned(),
        tenant: TenantId(Uuid::parse_str(parts.next()?).ok()?),
        id: parts.next()?.to_owned(),
    })
}
