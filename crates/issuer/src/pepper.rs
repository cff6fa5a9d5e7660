//! Another pepper: new secrets are hashed under it, old ones verify under theirs and are hashed anew when they are used next.
//!
//! Servers learn of a new pepper within a minute or two, and use it only when it is ten minutes old: by then all of them can
//! verify what one of them hashed.
//!
//! Versions below zero came with a tenant from another installation: they verify what was hashed there, and nothing is hashed
//! under them.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use claviger_store::Tx;
use claviger_store::api_key::{KeptSecret, StoredSecret};
use secrecy::SecretString;
use serde_json::json;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::audit::{Actor, append};
use crate::directory::KeyEntry;
use crate::installation::{InstallationSecret, PEPPER, installation_secret, place_of_secret};
use crate::secret::pepper_name;
use crate::{Failure, Fault, Issuer, Refusal};

/// How old a pepper is before anything is hashed under it.
const LEAD: TimeDelta = TimeDelta::minutes(10);

/// The version under which secrets are hashed at `now`: the newest that every server knows, or the first of all.
pub(crate) fn current(versions: &[InstallationSecret], now: DateTime<Utc>) -> i16 {
    let own = || versions.iter().filter(|one| one.version > 0);
    let known = own().filter(|one| one.created_at + LEAD <= now).map(|one| one.version).max();
    known.or_else(|| own().map(|one| one.version).min()).unwrap_or_default()
}

impl Issuer {
    /// Adds a pepper. Returns its version, and when it is used.
    pub async fn rotate_pepper(&self, actor: &Actor) -> Result<(i16, DateTime<Utc>), Failure> {
        let now = self.clock.now();
        let default = self.default_tenant().await?.map(|tenant| tenant.tenant.id);
        let mut tx = self.store.begin().await?;
        let kept = tx.any_tenant().sealed_secrets(PEPPER).await?;
        let newest = kept.last().ok_or_else(|| Fault::Internal("there is no pepper".into()))?;
        if now < newest.created_at + LEAD {
            let problem = format!("the pepper {} is not used yet; wait until {}", newest.version, newest.created_at + LEAD);
            return Err(Refusal::Conflict(problem).into());
        }
        let version = newest.version.checked_add(1).ok_or_else(|| Fault::Internal("no more peppers can be numbered".into()))?;
        let pepper = Zeroizing::new(self.random.bytes::<32>());
        let sealed = self.secrets_vault.seal(&place_of_secret(PEPPER, version), pepper.as_slice(), &self.random);
        let sealed = sealed.map_err(|error| Fault::Internal(error.to_string()))?;
        tx.any_tenant().add_sealed_secret(PEPPER, version, &sealed, now).await?;
        // The installation has no trail of its own: that of the tenant whose admins manage the others hears of it.
        if let Some(tenant) = default {
            let deed = actor.did("pepper.rotate", format!("pepper:{version}"), json!({}), now);
            append(&mut tx.tenant(tenant).await?, tenant, &self.chain_key, &self.random, [deed]).await?;
        }
        tx.commit().await?;
        self.reload_peppers().await?;
        Ok((version, now + LEAD))
    }

    /// Keeps a pepper of another installation, unless it is here already. Returns its version here.
    pub(crate) async fn adopt_pepper(&self, tx: &mut Tx, pepper: &[u8], now: DateTime<Utc>) -> Result<i16, Failure> {
        let mut lowest = 0;
        for kept in tx.any_tenant().sealed_secrets(PEPPER).await? {
            let value = self.secrets_vault.open(&place_of_secret(PEPPER, kept.version), &kept.sealed);
            if value.map_err(|error| Fault::Internal(error.to_string()))?.ct_eq(pepper).into() {
                return Ok(kept.version);
            }
            lowest = lowest.min(kept.version);
        }
        let version = lowest.checked_sub(1).ok_or_else(|| Fault::Internal("no more peppers can be numbered".into()))?;
        let sealed = self.secrets_vault.seal(&place_of_secret(PEPPER, version), pepper, &self.random);
        let sealed = sealed.map_err(|error| Fault::Internal(error.to_string()))?;
        tx.any_tenant().add_sealed_secret(PEPPER, version, &sealed, now).await?;
        // Somebody else may have taken the number in the same moment.
        let kept = tx.any_tenant().sealed_secrets(PEPPER).await?;
        match kept.iter().any(|kept| kept.version == version && kept.sealed == sealed) {
            true => Ok(version),
            false => Err(Refusal::Conflict("another tenant was imported at the same time: do it again".into()).into()),
        }
    }

    /// Versions of all peppers, by the name that they have everywhere.
    pub(crate) async fn pepper_names(&self) -> Result<BTreeMap<String, i16>, Failure> {
        let all = installation_secret(&self.store, &self.secrets_vault, PEPPER, &self.clock, &self.random).await;
        let all = all.map_err(|error| Fault::Internal(error.to_string()))?;
        Ok(all.iter().map(|pepper| (pepper_name(&pepper.value), pepper.version)).collect())
    }

    /// Learns of new peppers, and whether it is time to use one.
    pub async fn reload_peppers(&self) -> Result<(), Failure> {
        let opened = installation_secret(&self.store, &self.secrets_vault, PEPPER, &self.clock, &self.random).await;
        let opened = opened.map_err(|error| Fault::Internal(error.to_string()))?;
        self.peppers.replace(&opened, current(&opened, self.clock.now()));
        Ok(())
    }

    /// Hashes a secret that was just verified under the pepper of today, if it is under another. Goes on by itself: what
    /// fails is done at the next use.
    pub(crate) fn hash_again(&self, entry: &KeyEntry, secret: &SecretString) {
        let key = entry.key.id.clone();
        let current = self.peppers.current();
        let older = |one: &StoredSecret| match one.kept {
            KeptSecret::Mac(mac, version) if version != current && self.peppers.verify(version, &key, secret, &mac) => {
                Some((one.slot, mac))
            }
            _ => None,
        };
        let Some(((slot, before), (version, mac))) = entry.secrets.iter().find_map(older).zip(self.peppers.hash(&key, secret))
        else {
            return;
        };
        let (store, tenant) = (self.store.clone(), entry.tenant);
        tokio::spawn(async move {
            let change = async {
                let mut tx = store.begin_brief(tenant).await?;
                tx.tenant(tenant).await?.hash_secret_again(&key, slot, &before, &mac, version).await?;
                tx.commit().await
            };
            if let Err(error) = change.await {
                tracing::warn!(key.id = %key, error = %error, "a secret could not be hashed under the new pepper yet");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pepper_is_used_when_every_server_knows_it() {
        let at = |minutes| DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes);
        let pepper = |version, made| InstallationSecret { version, value: Zeroizing::new(vec![]), created_at: at(made) };
        let first = [pepper(1, 0)];
        assert_eq!(current(&first, at(0)), 1, "there is no other");
        let two = [pepper(1, 0), pepper(2, 100)];
        assert_eq!(current(&two, at(109)), 1);
        assert_eq!(current(&two, at(110)), 2);
        let with_anothers = [pepper(-2, 0), pepper(-1, 0), pepper(1, 0)];
        assert_eq!(current(&with_anothers, at(0)), 1, "nothing is hashed under another installation's");
        assert_eq!(current(&with_anothers, at(100)), 1);
    }
}
