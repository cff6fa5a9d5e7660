//! What the server does for itself now and then: room for the record of tokens, and no more of it than is needed.

use crate::{Failure, Issuer};

impl Issuer {
    /// Makes the partitions that tokens of the next week can need: without them no token can be issued.
    pub async fn make_room(&self) -> Result<(), Failure> {
        let made = self.store.ensure_token_partitions(self.clock.now()).await?;
        tracing::debug!(partitions.made = made, "room for tokens");
        Ok(())
    }

    /// Makes room, drops partitions whose tokens have all ended, and forgets news that everybody has heard. What does
    /// not succeed, as while a backup holds a lock, is logged and waits for the next time.
    pub async fn upkeep(&self) {
        if let Err(error) = self.make_room().await {
            tracing::error!(error = %error, "no room could be made for the record of tokens");
        }
        match self.store.drop_ended_token_partitions(self.clock.now()).await {
            Ok(dropped) => tracing::debug!(partitions.dropped = dropped, "ended tokens are dropped"),
            Err(error) => tracing::warn!(error = %error, "ended tokens could not be dropped"),
        }
        match self.store.prune_changes().await {
            Ok(pruned) => tracing::debug!(changes.pruned = pruned, "old news is forgotten"),
            Err(error) => tracing::warn!(error = %error, "old news could not be forgotten"),
        }
    }
}
