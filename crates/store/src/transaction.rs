//! The transaction, and the two doors out of it: one tenant's tables, or the few questions that find the tenant.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use metrics::Histogram;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, SqlSafeStr, SqlStr, Transaction};
use tokio::sync::oneshot;
use tracing::Span;

use crate::id::TenantId;
use crate::{Store, StoreError};

/// How long a transaction may take to begin. Connections may take longer to open, and are waited for by whoever comes next.
const PATIENCE: Duration = Duration::from_secs(1);

/// The target of spans that make up a trace. They are at the level `TRACE`, so that they cost nothing where nobody collects
/// them, and say neither secrets nor anything about persons.
pub const TRACES: &str = "claviger::traces";

/// From asking for a connection until there was one, or none in time.
static WAIT: LazyLock<Histogram> = LazyLock::new(|| metrics::histogram!("claviger_database_wait_seconds"));

/// A database transaction. Dropped without [`Tx::commit`] it undoes everything.
pub struct Tx {
    inner: Transaction<'static, Postgres>,
    tenant: Option<TenantId>,
    /// Ends with the transaction.
    _span: Span,
}

/// One tenant's tables within a transaction. Row-level security is set to the same tenant.
pub struct TenantTx<'a> {
    pub(crate) tenant: TenantId,
    pub(crate) connection: &'a mut PgConnection,
}

/// The queries that discover a tenant, or that belong to none. Grep for `any_tenant` to list their callers.
pub struct AnyTenant<'a> {
    pub(crate) connection: &'a mut PgConnection,
}

impl Store {
    /// Begins a transaction that has no tenant yet.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        self.begin_aside("BEGIN".into_sql_str(), None).await
    }

    /// Begins a transaction within one tenant: one round trip instead of two.
    pub async fn begin_in(&self, tenant: TenantId) -> Result<Tx, StoreError> {
        self.begin_with("BEGIN", tenant).await
    }

    /// As [`Store::begin_in`], but reads see one state of the database throughout.
    pub async fn begin_frozen(&self, tenant: TenantId) -> Result<Tx, StoreError> {
        self.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", tenant).await
    }

    /// As [`Store::begin_in`], but the commit does not wait for the disk: for what may be lost in a crash of Postgres, up to
    /// a second of it, and must hold locks that many wait for as shortly as can be.
    pub async fn begin_brief(&self, tenant: TenantId) -> Result<Tx, StoreError> {
        self.begin_with("BEGIN; SET LOCAL synchronous_commit = off", tenant).await
    }

    async fn begin_with(&self, begin: &str, tenant: TenantId) -> Result<Tx, StoreError> {
        // Constants of this file, and a Uuid, whose Display cannot carry SQL.
        let begin = AssertSqlSafe(format!("{begin}; SET LOCAL app.tenant = '{tenant}'"));
        self.begin_aside(begin.into_sql_str(), Some(tenant)).await
    }

    /// Begins in a task of its own, which always runs to its end: whoever asked may hang up between `BEGIN` and its answer,
    /// and the connection would go back to the pool within a transaction that nobody knows of. A connection that is being
    /// opened when nobody waits any more is kept for the next: to give it up and begin anew would keep a busy database from
    /// ever coming back.
    async fn begin_aside(&self, begin: SqlStr, tenant: Option<TenantId>) -> Result<Tx, StoreError> {
        let span = tracing::trace_span!(
            target: TRACES,
            "transaction",
            otel.kind = "client",
            db.system.name = "postgresql",
            tenant.id = tenant.map(tracing::field::display)
        );
        let pool = self.pool().clone();
        let (give, taken) = oneshot::channel();
        tokio::spawn(async move {
            let asked = Instant::now();
            let acquired = pool.acquire().await;
            WAIT.record(asked.elapsed());
            let begun = match acquired {
                // It goes back to the pool as it came.
                Ok(_) if give.is_closed() => return,
                Ok(connection) => Transaction::begin(connection, Some(begin)).await,
                Err(error) => Err(error),
            };
            // Dropped, it is undone.
            let _ = give.send(begun);
        });
        match tokio::time::timeout(PATIENCE, taken).await {
            Ok(Ok(begun)) => Ok(Tx { inner: begun?, tenant, _span: span }),
            Ok(Err(_)) | Err(_) => Err(StoreError::TooSlow),
        }
    }
}

impl Tx {
    /// One tenant's tables. Moves the row-level wall when the transaction was elsewhere.
    pub async fn tenant(&mut self, tenant: TenantId) -> Result<TenantTx<'_>, StoreError> {
        if self.tenant != Some(tenant) {
            let scope = AssertSqlSafe(format!("SET LOCAL app.tenant = '{tenant}'"));
            sqlx::raw_sql(scope).execute(&mut *self.inner).await?;
            self.tenant = Some(tenant);
        }
        Ok(TenantTx { tenant, connection: &mut self.inner })
    }

    /// The questions that find a tenant.
    pub fn any_tenant(&mut self) -> AnyTenant<'_> {
        AnyTenant { connection: &mut self.inner }
    }

    /// Makes it so. An error means that the outcome is unknown.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.inner.commit().await?)
    }
}
