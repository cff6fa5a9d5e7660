//! Who fetched the JWK set.

use chrono::{DateTime, Utc};

use crate::{StoreError, TenantTx};

/// Most callers that are remembered for one tenant.
const MOST: i64 = 1000;

/// A caller, by network and user agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwksFetch {
    /// A network such as `192.0.2.0/24`; empty where no address is known.
    pub network: String,
    /// The beginning of what the caller calls itself.
    pub user_agent: String,
    /// How often it came.
    pub fetches: i64,
    /// When it came first.
    pub first_at: DateTime<Utc>,
    /// When it came last.
    pub last_at: DateTime<Utc>,
    /// The newest key of the set that it got then.
    pub newest_kid: String,
    /// When that key was made.
    pub newest_key_at: DateTime<Utc>,
}

impl TenantTx<'_> {
    /// Adds fetches to those of a caller. A new caller is left out where there are too many.
    pub async fn add_jwks_fetch(&mut self, fetch: &JwksFetch) -> Result<(), StoreError> {
        let JwksFetch { network, user_agent, fetches, first_at, last_at, newest_kid, newest_key_at } = fetch;
        sqlx::query!(
            "INSERT INTO jwks_fetches AS kept
                    (tenant_id, network, user_agent, fetches, first_at, last_at, newest_kid, newest_key_at)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8
              WHERE (SELECT count(*) FROM jwks_fetches WHERE tenant_id = $1) < $9
                 OR EXISTS (SELECT FROM jwks_fetches WHERE tenant_id = $1 AND network = $2 AND user_agent = $3)
             ON CONFLICT (tenant_id, network, user_agent) DO UPDATE
                SET fetches = kept.fetches + excluded.fetches,
                    last_at = greatest(kept.last_at, excluded.last_at),
                    newest_kid = CASE WHEN excluded.newest_key_at >= kept.newest_key_at
                                      THEN excluded.newest_kid ELSE kept.newest_kid END,
                    newest_key_at = greatest(kept.newest_key_at, excluded.newest_key_at)",
            self.tenant.0,
            network,
            user_agent,
            fetches,
            first_at,
            last_at,
            newest_kid,
            newest_key_at,
            MOST
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Every caller that is remembered, whoever came last first.
    pub async fn jwks_fetches(&mut self) -> Result<Vec<JwksFetch>, StoreError> {
        Ok(sqlx::query_as!(
            JwksFetch,
            "SELECT network, user_agent, fetches, first_at, last_at, newest_kid, newest_key_at
               FROM jwks_fetches
              WHERE tenant_id = $1
              ORDER BY last_at DESC, network, user_agent",
            self.tenant.0
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// Forgets who has not come since `before`. Returns how many.
    pub async fn forget_jwks_fetches(&mut self, before: DateTime<Utc>) -> Result<u64, StoreError> {
        let done = sqlx::query!("DELETE FROM jwks_fetches WHERE tenant_id = $1 AND last_at < $2", self.tenant.0, before)
            .execute(&mut *self.connection)
            .await?;
        Ok(done.rows_affected())
    }
}
