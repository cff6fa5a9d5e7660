//! What the server does for itself now and then: room for the record of tokens, and no more of it than is
//! needed; signing keys that follow each other.

use chrono::TimeDelta;
use claviger_store::token_family::{EndedBy, Principal};
use serde_json::json;

use crate::audit::{Actor, append};
use crate::key::DORMANT;
use crate::{Failure, Issuer};

impl Issuer {
    /// Makes the partitions that tokens and logins of the next time can need: without them none can be issued.
    pub async fn make_room(&self) -> Result<(), Failure> {
        let made = self.store.ensure_token_partitions(self.clock.now()).await?;
        let for_logins = self.store.ensure_login_partitions(self.clock.now()).await?;
        tracing::debug!(partitions.made = made + for_logins, "room for tokens and logins");
        Ok(())
    }

    /// Attempts, tickets, app tokens, links, requests and status lists that are over.
    async fn prune_what_is_over(&self) -> Result<u64, Failure> {
        let now = self.clock.now();
        let mut pruned = 0;
        for tenant in self.store.all_tenants().await? {
            let mut tx = self.store.begin_in(tenant).await?;
            let mut scoped = tx.tenant(tenant).await?;
            pruned += scoped.prune_attempts(now).await? + scoped.prune_tickets(now).await?;
            pruned += scoped.prune_connections(now).await? + scoped.prune_app_tokens(now).await?;
            tx.commit().await?;
            pruned += self.prune_key_requests(tenant, now).await?;
            pruned += self.drop_ended_status_lists(tenant).await?;
        }
        Ok(pruned)
    }

    /// Tells of keys that end soon, once each 30, 7 and 1 days ahead, and disables those that nobody uses.
    async fn look_after_keys(&self) -> Result<(), Failure> {
        let now = self.clock.now();
        self.write_uses().await?;
        for tenant in self.store.all_tenants().await? {
            let Some(entry) = self.directory.tenant(tenant).await? else { continue };
            let mut tx = self.store.begin_in(tenant).await?;
            let mut scoped = tx.tenant(tenant).await?;
            let upkeep = |name: &str| Actor { name: name.to_owned(), ..Actor::operator() };
            let mut deeds = Vec::new();
            // The shortest first: a key that is told of as one day ahead is not told of as thirty.
            for days in [1, 7, 30] {
                for (key, ends) in scoped.mark_expiring_keys(days, now).await? {
                    let detail = json!({ "expires_at": ends, "days": days });
                    deeds.push(upkeep("system:upkeep").did("key.expiring", format!("key:{key}"), detail, now));
                }
            }
            let mut disabled = Vec::new();
            let mut families = Vec::new();
            if let Some(days) = entry.settings.keys().dormant_days {
                let by = upkeep(DORMANT);
                disabled = scoped.disable_dormant_keys(now - TimeDelta::days(days.into()), now, DORMANT).await?;
                for key in &disabled {
                    families.extend(scoped.end_families(&Principal::Key(key.clone()), now, DORMANT, EndedBy::Key).await?);
                    deeds.push(by.did("key.disable", format!("key:{key}"), json!({ "unused_days": days }), now));
                }
            }
            if deeds.is_empty() {
                continue;
            }
            append(&mut scoped, tenant, &self.chain_key, &self.random, deeds).await?;
            self.commit_logins(tx, tenant, None, &families).await?;
            for key in disabled {
                self.forget("api_keys", tenant, key);
            }
        }
        Ok(())
    }

    async fn prune_revocations(&self) -> Result<u64, Failure> {
        let mut pruned = 0;
        for tenant in self.store.all_tenants().await? {
            loop {
                let mut tx = self.store.begin_in(tenant).await?;
                let done = tx.tenant(tenant).await?.prune_revocations().await?;
                tx.commit().await?;
                pruned += done;
                if done == 0 {
                    break;
                }
            }
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
        match self.prune_what_is_over().await {
            Ok(pruned) => tracing::debug!(pruned, "what is over is forgotten"),
            Err(error) => tracing::warn!(error = %error, "what is over could not be forgotten"),
        }
        if let Err(error) = self.look_after_keys().await {
            tracing::warn!(error = %error, "keys that end soon, or that nobody uses, could not be looked after");
        }
        match self.prune_revocations().await {
            Ok(pruned) => tracing::debug!(revocations.pruned = pruned, "revocations of no use are forgotten"),
            Err(error) => tracing::warn!(error = %error, "revocations of no use could not be forgotten"),
        }
        match self.store.prune_changes().await {
            Ok(pruned) => tracing::debug!(changes.pruned = pruned, "old news is forgotten"),
            Err(error) => tracing::warn!(error = %error, "old news could not be forgotten"),
        }
    }
}
