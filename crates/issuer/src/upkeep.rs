//! What the server does for itself now and then: room for the record of tokens, and no more of it than is needed.

use crate::{Failure, Issuer};

impl Issuer {
    /// Makes the partitions that tokens of the next week can need, drops those whose tokens have all ended, and
    /// forgets news that everybody has heard.
    pub async fn upkeep(&self) -> Result<(), Failure> {
        let now = self.clock.now();
        let made = self.store.ensure_token_partitions(now).await?;
        let dropped = self.store.drop_ended_token_partitions(now).await?;
        let pruned = self.store.prune_changes().await?;
        tracing::debug!(partitions.made = made, partitions.dropped = dropped, changes.pruned = pruned, "upkeep");
        Ok(())
    }
}
