//! Counted attempts: how often something was tried, over all replicas.

use chrono::{DateTime, Utc};

use crate::{StoreError, TenantTx};

/// A keyed digest of what is counted.
pub type Bucket = [u8; 32];

/// A bucket after an attempt was counted in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Attempts in the window, this one too.
    pub used: i32,
    /// When the window ends.
    pub forgotten_at: DateTime<Utc>,
}

impl TenantTx<'_> {
    /// Counts an attempt in each bucket; `window` is the length of a new one in seconds. The answers are in the order of
    /// the buckets.
    pub async fn count_attempt(&mut self, buckets: &[(Bucket, i32)], now: DateTime<Utc>) -> Result<Vec<Counted>, StoreError> {
        // In order of bucket, so that two attempts lock theirs in the same order.
        let rows = sqlx::query!(
            r#"INSERT INTO attempts AS a (tenant_id, bucket, used, forgotten_at)
               SELECT $1, b.bucket, 1, $4::timestamptz + make_interval(secs => b.seconds)
                 FROM unnest($2::bytea[], $3::int[]) AS b (bucket, seconds)
                ORDER BY b.bucket
               ON CONFLICT (tenant_id, bucket) DO UPDATE
                  SET used = CASE WHEN a.forgotten_at <= $4 THEN 1 ELSE a.used + 1 END,
                      forgotten_at = CASE WHEN a.forgotten_at <= $4 THEN excluded.forgotten_at ELSE a.forgotten_at END
               RETURNING bucket, used, forgotten_at"#,
            self.tenant.0,
            buckets.iter().map(|(bucket, _)| bucket.as_slice()).collect::<Vec<_>>() as _,
            &buckets.iter().map(|(_, seconds)| *seconds).collect::<Vec<_>>(),
            now
        )
        .fetch_all(&mut *self.connection)
        .await?;
        buckets
            .iter()
            .map(|(bucket, _)| {
                let row = rows.iter().find(|row| row.bucket == bucket);
                row.map(|row| Counted { used: row.used, forgotten_at: row.forgotten_at })
                    .ok_or_else(|| StoreError::ImpossibleRow { table: "attempts", what: "a count that is not there".into() })
            })
            .collect()
    }

    /// Gives attempts back, so many of each bucket.
    pub async fn give_back_attempts(&mut self, buckets: &[(Bucket, i32)]) -> Result<(), StoreError> {
        if buckets.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "WITH locked AS (
                 SELECT bucket FROM attempts WHERE tenant_id = $1 AND bucket = ANY($2::bytea[]) ORDER BY bucket FOR UPDATE
             )
             UPDATE attempts a SET used = greatest(a.used - g.count, 0)
               FROM unnest($2::bytea[], $3::int[]) AS g (bucket, count), locked l
              WHERE a.tenant_id = $1 AND a.bucket = g.bucket AND l.bucket = g.bucket",
            self.tenant.0,
            buckets.iter().map(|(bucket, _)| bucket.as_slice()).collect::<Vec<_>>() as _,
            &buckets.iter().map(|(_, count)| *count).collect::<Vec<_>>()
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Deletes counts whose window is over, at most 5000, leaving those that somebody is counting in.
    pub async fn prune_attempts(&mut self, now: DateTime<Utc>) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "DELETE FROM attempts
              WHERE tenant_id = $1
                AND bucket = ANY(ARRAY(SELECT bucket FROM attempts
                                        WHERE tenant_id = $1 AND forgotten_at < $2
                                        ORDER BY bucket
                                        LIMIT 5000 FOR UPDATE SKIP LOCKED))",
            self.tenant.0,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected())
    }
}
