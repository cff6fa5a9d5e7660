//! Another master key: everything that is sealed is sealed again, while servers run.
//!
//! Servers must open both keys meanwhile (setting `other_master_key_files`). Each row is changed alone and only if nobody
//! else changed it, so that the work can be cut off anywhere and done again: what is sealed under the new key is left as it
//! is.

use claviger_store::id::TenantId;

use crate::audit::{Actor, append};
use crate::connection::{CONNECTIONS, secret_place};
use crate::installation::{SECRETS, SIGNING_KEYS, place_of_secret};
use crate::mail::{self, MAIL};
use crate::signing_key::place;
use crate::upstream::refresh_place;
use crate::vault::{DoesNotOpen, MasterKey, Vault};
use crate::{Failure, Fault, Issuer};

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SealedAgain {
    /// Rows that are sealed under the new key since now.
    pub changed: u64,
    /// Rows that were already.
    pub unchanged: u64,
}

impl SealedAgain {
    /// One row. What was changed or removed by others meanwhile is theirs.
    fn count(&mut self, changed: bool) {
        match changed {
            true => self.changed += 1,
            false => self.unchanged += 1,
        }
    }
}

/// The value sealed under the new key; `None` if it is already.
fn again(new: &Vault, all: &Vault, place: &str, sealed: &[u8], issuer: &Issuer) -> Result<Option<Vec<u8>>, Fault> {
    if new.open(place, sealed).is_ok() {
        return Ok(None);
    }
    let broken = |error: DoesNotOpen| Fault::Internal(format!("{place}: {error}"));
    let value = all.open(place, sealed).map_err(broken)?;
    Ok(Some(new.seal(place, &value, &issuer.random).map_err(broken)?))
}

impl Issuer {
    /// Seals everything again under `new`. The issuer must have been opened with the key that it is sealed under now.
    pub async fn seal_again(&self, actor: &Actor, new: &MasterKey) -> Result<SealedAgain, Failure> {
        let vault = |purpose| Vault::new(new, purpose).map_err(|error| Fault::Internal(error.to_string()));
        let mut done = SealedAgain::default();
        let (new_vault, all) = (vault(SIGNING_KEYS)?, &self.signing_vault);
        let (new_mail, new_connections) = (vault(MAIL)?, vault(CONNECTIONS)?);
        for tenant in self.store.all_tenants().await? {
            self.seal_tenant_again(tenant, actor, &new_vault, all, &mut done).await?;
            self.seal_mail_again(tenant, &new_mail, &mut done).await?;
            self.seal_connections_again(tenant, &new_connections, &mut done).await?;
        }
        let new_vault = vault(SECRETS)?;
        for secret in self.store.begin().await?.any_tenant().all_sealed_secrets().await? {
            let place = place_of_secret(&secret.purpose, secret.version);
            match again(&new_vault, &self.secrets_vault, &place, &secret.sealed, self)? {
                Some(sealed) => {
                    let mut tx = self.store.begin().await?;
                    tx.any_tenant().seal_secret_again(&secret, &sealed).await?;
                    tx.commit().await?;
                    done.changed += 1;
                }
                None => done.unchanged += 1,
            }
        }
        Ok(done)
    }

    /// Messages that wait to be sent: each in its own transaction, because a sender may hold one for as long as it sends.
    async fn seal_mail_again(&self, tenant: TenantId, new: &Vault, done: &mut SealedAgain) -> Result<(), Failure> {
        let waiting = self.store.begin_in(tenant).await?.tenant(tenant).await?.all_mail().await?;
        for mail in waiting {
            let Some(sealed) = again(new, &self.mail_vault, &mail::place(tenant, mail.id), &mail.sealed, self)? else {
                done.unchanged += 1;
                continue;
            };
            let mut tx = self.store.begin_in(tenant).await?;
            let changed = tx.tenant(tenant).await?.seal_mail_again(&mail, &sealed).await?;
            tx.commit().await?;
            done.count(changed);
        }
        Ok(())
    }

    /// Secrets of connections, and the refresh tokens that providers gave. What a login under way has sealed lives for
    /// minutes and is left: servers open it under the old key meanwhile.
    async fn seal_connections_again(&self, tenant: TenantId, new: &Vault, done: &mut SealedAgain) -> Result<(), Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        let (connections, logins) = (scoped.connections().await?, scoped.connection_logins_with_secret().await?);
        drop(tx);
        for connection in connections {
            let Some(sealed) = &connection.sealed_secret else { continue };
            let place = secret_place(tenant, connection.id);
            let changed = match again(new, &self.connection_vault, &place, sealed, self)? {
                Some(sealed) => {
                    let mut tx = self.store.begin_in(tenant).await?;
                    let changed = tx.tenant(tenant).await?.seal_connection_again(&connection, &sealed).await?;
                    tx.commit().await?;
                    changed
                }
                None => false,
            };
            done.count(changed);
        }
        for login in logins {
            let Some(sealed) = &login.sealed_refresh else { continue };
            let place = refresh_place(tenant, login.connection, login.user);
            let changed = match again(new, &self.connection_vault, &place, sealed, self)? {
                Some(sealed) => {
                    let mut tx = self.store.begin_in(tenant).await?;
                    let changed = tx.tenant(tenant).await?.seal_connection_login_again(&login, &sealed).await?;
                    tx.commit().await?;
                    changed
                }
                None => false,
            };
            done.count(changed);
        }
        Ok(())
    }

    async fn seal_tenant_again(
        &self,
        tenant: TenantId,
        actor: &Actor,
        new: &Vault,
        all: &Vault,
        done: &mut SealedAgain,
    ) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        let mut changed = 0_u64;
        for key in scoped.signing_keys().await?.iter().filter(|key| !key.sealed_private.is_empty()) {
            match again(new, all, &place(tenant, &key.kid), &key.sealed_private, self)? {
                // One that was erased meanwhile stays erased.
                Some(sealed) if scoped.seal_signing_key_again(&key.kid, &key.sealed_private, &sealed).await? => changed += 1,
                Some(_) | None => done.unchanged += 1,
            }
        }
        if changed == 0 {
            return Ok(());
        }
        let detail = serde_json::json!({ "signing_keys": changed });
        let deed = actor.did("master_key.rotate", format!("tenant:{tenant}"), detail, now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        self.commit(tx, "signing_keys", tenant, "").await?;
        done.changed += changed;
        Ok(())
    }
}
