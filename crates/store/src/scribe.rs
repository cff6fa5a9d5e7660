//! The busiest writer: one connection, one statement a batch, no transaction around it.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Postgres};

use crate::audit::Batch;
use crate::id::TenantId;
use crate::{Store, StoreError, TenantTx};

/// How long a batch may take. The server's own time-outs do not help when its host is gone.
const PATIENCE: Duration = Duration::from_secs(3);

/// Writes batches of deeds, each in a statement that stands alone and is durable when it returns.
///
/// Its connection is nobody else's, so the tenant wall is set on it for longer than a transaction, and moved when the
/// next batch is another tenant's.
pub struct Scribe {
    store: Store,
    connection: Option<(PoolConnection<Postgres>, Option<TenantId>)>,
}

impl Store {
    /// A scribe with a connection of its own, opened when it is first needed. Its few statements are planned once:
    /// planning them anew each time would cost more than carrying them out.
    #[must_use]
    pub fn scribe(&self) -> Scribe {
        Scribe { store: self.aside(1, [("plan_cache_mode", "force_generic_plan")]), connection: None }
    }
}

impl Scribe {
    /// As [`TenantTx::record`], committed and durable. After an error it is unknown whether it was written.
    pub async fn record(&mut self, tenant: TenantId, batch: &Batch<'_>) -> Result<bool, StoreError> {
        let outcome = tokio::time::timeout(PATIENCE, self.try_record(tenant, batch)).await;
        let outcome = outcome.unwrap_or(Err(StoreError::TooSlow));
        if outcome.is_err()
            && let Some((connection, _)) = self.connection.take()
        {
            // In whatever state it is, and without a word to a server that may be gone: the next batch gets a new one.
            drop(connection.detach());
        }
        outcome
    }

    async fn try_record(&mut self, tenant: TenantId, batch: &Batch<'_>) -> Result<bool, StoreError> {
        let (connection, within) = match &mut self.connection {
            Some(open) => open,
            none => none.insert((self.store.pool().acquire().await?, None)),
        };
        if *within != Some(tenant) {
            // A Uuid's Display cannot carry SQL.
            let scope = AssertSqlSafe(format!("SET app.tenant = '{tenant}'"));
            sqlx::raw_sql(scope).execute(&mut **connection).await?;
            *within = Some(tenant);
        }
        TenantTx { tenant, connection }.record(batch).await
    }
}
