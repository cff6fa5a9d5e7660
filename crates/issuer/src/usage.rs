//! When, from where and by what a key was last used: gathered here, written now and then.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use claviger_store::api_key::KeyUse;
use claviger_store::id::{KeyId, TenantId};

use crate::login::agent;
use crate::settings::RequestInfo;
use crate::{Failure, Issuer};

/// Uses that were not written yet.
#[derive(Default)]
pub(crate) struct Uses(Mutex<HashMap<(TenantId, KeyId), KeyUse>>);

/// What is kept of an address: the network that it is in.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => format!("{}/24", Ipv4Addr::from_bits(v4.to_bits() & 0xFFFF_FF00)),
        IpAddr::V6(v6) => format!("{}/48", Ipv6Addr::from_bits(v6.to_bits() & !(u128::MAX >> 48))),
    }
}

impl Issuer {
    /// Notes a use of a key.
    pub(crate) fn note_use(&self, tenant: TenantId, key: &KeyId, request: &RequestInfo, now: DateTime<Utc>) {
        let used = KeyUse { at: now, network: request.address.map(network), agent: agent(request.agent.as_deref()) };
        self.uses.0.lock().unwrap_or_else(PoisonError::into_inner).insert((tenant, key.clone()), used);
    }

    /// Writes what was gathered. What cannot be written is forgotten: a later use says the same.
    pub async fn write_uses(&self) -> Result<(), Failure> {
        let gathered = std::mem::take(&mut *self.uses.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut tenants: HashMap<TenantId, Vec<(KeyId, KeyUse)>> = HashMap::new();
        for ((tenant, key), used) in gathered {
            tenants.entry(tenant).or_default().push((key, used));
        }
        for (tenant, mut uses) in tenants {
            // Two servers lock rows in one order.
            uses.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
            let mut tx = self.store.begin_brief(tenant).await?;
            tx.tenant(tenant).await?.write_key_uses(&uses).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_address_the_network_is_kept() {
        assert_eq!(network("198.51.100.77".parse().unwrap()), "198.51.100.0/24");
        assert_eq!(network("::ffff:198.51.100.77".parse().unwrap()), "198.51.100.0/24");
        assert_eq!(network("2001:db8:1:2::3".parse().unwrap()), "2001:db8:1::/48");
    }
}
