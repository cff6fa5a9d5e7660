//! What the server does for itself now and then: room for the record of tokens, and no more of it than is
//! needed; signing keys that follow each other.

use crate::{Failure, Issuer};

impl Issuer {
    /// Makes the partitions that tokens and logins of the next time can need: without them none can be issued.
    pub async fn make_room(&self) -> Result<(), Failure> {
        let made = self.store.ensure_token_partitions(self.clock.now()).await?;
        let for_logins = self.store.ensure_login_partitions(self.clock.now()).await?;
        tracing::debug!(partitions.made = made + for_logins, "room for tokens and logins");
        Ok(())
    }

    async fn prune_attempts(&self) -> Result<u64, Failure> {
        let now = self.clock.now();
        let mut pruned = 0;
        for tenant in self.store.all_tenants().await? {
            let mut tx = self.store.begin_in(tenant).await?;
            pruned += tx.tenant(tenant).await?.prune_attempts(now).await?;
            tx.commit().await?;
        }
        Ok(pruned)
    }

    /// Makes room, drops partitions whose tokens have all ended, moves signing keys on, and forgets news that everybody has heard. What does
    /// not succeed, as while a backup holds a lock, is logged and waits for the next time.
    pub async fn upkeep(&self) {
        if let Err(error) = self.make_room().await {
            tracing::error!(error = %error, "no room could be made for the record of tokens");
        }
        match self.store.drop_ended_token_partitions(self.clock.now()).await {
            Ok(dropped) => tracing::debug!(partitions.dropped = dropped, "ended tokens are dropped"),
            Err(error) => tracing::warn!(error = %error, "ended tokens could not be dropped"),
        }
        match self.store.drop_ended_login_partitions(self.clock.now()).await {
            Ok(dropped) => tracing::debug!(partitions.dropped = dropped, "ended logins are dropped"),
            Err(error) => tracing::warn!(error = %error, "ended logins could not be dropped"),
        }
        match self.prune_jwks_fetches().await {
            Ok(pruned) => tracing::debug!(fetches.pruned = pruned, "callers that do not come any more are forgotten"),
            Err(error) => tracing::warn!(error = %error, "callers that do not come any more could not be forgotten"),
        }
        match self.keep_signing_keys().await {
            Ok(moved) => tracing::debug!(signing_keys.moved = moved, "signing keys are where they should be"),
            Err(error) => tracing::error!(error = %error, "signing keys could not be moved on"),
        }
        match self.prune_attempts().await {
            Ok(pruned) => tracing::debug!(attempts.pruned = pruned, "old attempts are forgotten"),
            Err(error) => tracing::warn!(error = %error, "old attempts could not be forgotten"),
        }
        match self.store.prune_changes().await {
            Ok(pruned) => tracing::debug!(changes.pruned = pruned, "old news is forgotten"),
            Err(error) => tracing::warn!(error = %error, "old news could not be forgotten"),
        }
    }
}
