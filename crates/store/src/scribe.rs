//! The busiest writer: one connection, one statement a batch, no transaction around it.

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Postgres};

use crate::audit::Batch;
use crate::id::TenantId;
use crate::{Store, StoreError, TenantTx};

/// Writes batches of deeds, each in a statement that stands alone. Its commits do not wait for the disk: call
/// [`Store::flush`] before anybody hears of them.
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
        let settings = [("plan_cache_mode", "force_generic_plan"), ("synchronous_commit", "off")];
        Scribe { store: self.over_one_connection(settings), connection: None }
    }
}

impl Scribe {
    /// As [`TenantTx::record`], committed. After an error it is unknown whether it was written.
    pub async fn record(&mut self, tenant: TenantId, batch: &Batch<'_>) -> Result<bool, StoreError> {
        let outcome = self.try_record(tenant, batch).await;
        if outcome.is_err()
            && let Some((connection, _)) = self.connection.take()
        {
            // In whatever state it is: the next batch gets a new one.
            let _ = connection.close().await;
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
