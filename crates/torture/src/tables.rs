//! What the tables say, seen from above all walls.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx::{PgConnection, Row as _};
use tokio::time::sleep;
use uuid::Uuid;

use crate::checker::FamilyRow;

/// Every family of every tenant.
///
/// # Errors
/// The database fails, or has other tables.
pub(crate) async fn families(database: &mut PgConnection) -> Result<Vec<FamilyRow>, sqlx::Error> {
    let rows = sqlx::query("SELECT id, generation, revoked_why FROM token_families").fetch_all(&mut *database).await?;
    let mut families = BTreeMap::new();
    for row in rows {
        let sid: Uuid = row.try_get("id")?;
        let family = FamilyRow {
            sid,
            generation: row.try_get("generation")?,
            generations: Vec::new(),
            revoked_why: row.try_get("revoked_why")?,
            reuses_audited: 0,
            rotations_audited: 0,
            issued: std::collections::BTreeSet::new(),
        };
        families.insert(sid, family);
    }
    for row in sqlx::query("SELECT family_id, generation FROM refresh_tokens").fetch_all(&mut *database).await? {
        if let Some(family) = families.get_mut(&row.try_get("family_id")?) {
            family.generations.push(row.try_get("generation")?);
        }
    }
    let issued = "SELECT family_id, jti FROM issued_tokens WHERE family_id IS NOT NULL";
    for row in sqlx::query(issued).fetch_all(&mut *database).await? {
        if let Some(family) = families.get_mut(&row.try_get("family_id")?) {
            family.issued.insert(row.try_get("jti")?);
        }
    }
    let audited = "SELECT action, replace(target, 'family:', '')::uuid AS family, count(*) AS entries
                     FROM audit_entries
                    WHERE (action = 'token.refresh' AND outcome = 'ok' OR action = 'token.reuse_detected') AND target LIKE 'family:%'
                    GROUP BY action, target";
    for row in sqlx::query(audited).fetch_all(&mut *database).await? {
        if let Some(family) = families.get_mut(&row.try_get("family")?) {
            let entries = row.try_get("entries")?;
            match row.try_get("action")? {
                "token.refresh" => family.rotations_audited = entries,
                _ => family.reuses_audited = entries,
            }
        }
    }
    Ok(families.into_values().collect())
}

/// Waits until the servers hold nothing in the database; otherwise says what they still hold.
///
/// # Errors
/// The database fails.
pub(crate) async fn leftovers(database: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    // A server that works on its own behalf holds something for a moment. What stays longer is a leftover, even if Postgres
    // would end it after a while.
    let began = Instant::now();
    loop {
        let held = held(database).await?;
        if held.is_empty() || began.elapsed() > Duration::from_secs(2) {
            return Ok(held);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn held(database: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let held = "SELECT format('session %s is %s: %s', a.pid, a.state, left(a.query, 80)) AS what
                  FROM pg_stat_activity a
                 WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
                   AND a.backend_type = 'client backend' AND a.state <> 'idle'
                 UNION ALL
                SELECT format('session %s holds a %s on %s', l.pid, l.mode, coalesce(l.relation::regclass::text, l.locktype))
                  FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                 WHERE a.datname = current_database() AND l.pid <> pg_backend_pid() AND a.backend_type = 'client backend'";
    sqlx::query(held).fetch_all(&mut *database).await?.iter().map(|row| row.try_get("what")).collect()
}
