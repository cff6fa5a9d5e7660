//! Who fetched the JWK set, and who does not know the next key yet.
//!
//! Counted in memory, so that a fetch costs no write, and flushed now and then. A server that is killed forgets what it
//! counted in the last minute: then a rotation waits for a verifier until it comes again, or until the longest wait is over.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use claviger_store::id::TenantId;
use claviger_store::jwks_fetch::JwksFetch;
use claviger_store::signing_key::SigningKey;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::directory::TenantEntry;
use crate::key_life;
use crate::{Failure, Issuer, Refusal};

/// Most callers that wait to be flushed; whoever comes then is not counted.
const MOST_WAITING: usize = 10_000;
/// Longest user agent that is kept, in characters.
const LONGEST_AGENT: usize = 100;
/// Most verifiers that a tenant names.
const MOST_NAMED: usize = 50;
/// After that long without a fetch a caller is no verifier any more.
const FORGOTTEN_AFTER: TimeDelta = TimeDelta::days(30);
/// A caller that did not come for that long is not waited for, if another of the same name came.
const STALE_AFTER: TimeDelta = TimeDelta::days(1);

/// A verifier that rotations wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedVerifier {
    /// Its name, for people.
    pub name: String,
    /// Where it fetches from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<IpNet>,
    /// How what it calls itself begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

impl NamedVerifier {
    /// Refuses names that could be anybody, and too many.
    pub(crate) fn check(all: &[Self]) -> Result<(), Refusal> {
        let fits = |one: &Self| {
            let agent = one.user_agent.as_ref().map(|agent| (1..=LONGEST_AGENT).contains(&agent.chars().count()));
            (1..=100).contains(&one.name.chars().count()) && (one.network.is_some() || agent.is_some()) && agent != Some(false)
        };
        match all.len() <= MOST_NAMED && all.iter().all(fits) {
            true => Ok(()),
            false => Err(Refusal::invalid(
                "verifiers",
                format!("are at most {MOST_NAMED}, each with a name and a network or the beginning of a user agent"),
            )),
        }
    }

    fn is(&self, caller: &JwksFetch) -> bool {
        let from_there = self.network.is_none_or(|network| {
            caller.network.parse::<IpNet>().is_ok_and(|seen| network.contains(&seen) || seen.contains(&network))
        });
        from_there && self.user_agent.as_ref().is_none_or(|agent| caller.user_agent.starts_with(agent))
    }

    /// Whether all that go by this name, and there is one, have fetched the key.
    fn knows(&self, next: &SigningKey, callers: &[JwksFetch], now: DateTime<Utc>) -> bool {
        let mut known = false;
        for caller in callers.iter().filter(|caller| self.is(caller)) {
            let knows = has_fetched(caller, next);
            known |= knows;
            if !knows && now - caller.last_at < STALE_AFTER {
                return false;
            }
        }
        known
    }
}

fn has_fetched(caller: &JwksFetch, key: &SigningKey) -> bool {
    caller.newest_key_at >= key.created_at
}

/// The named verifiers that do not know the next key.
pub(crate) fn waiting_for<'a>(
    named: &'a [NamedVerifier],
    next: &SigningKey,
    callers: &[JwksFetch],
    now: DateTime<Utc>,
) -> Vec<&'a str> {
    named.iter().filter(|one| !one.knows(next, callers, now)).map(|one| one.name.as_str()).collect()
}

/// Fetches that were not flushed yet.
#[derive(Default)]
pub(crate) struct Fetches(Mutex<HashMap<(TenantId, String, String), JwksFetch>>);

/// The network that a caller is remembered by.
fn network(address: Option<IpAddr>) -> String {
    let net = address.map(|address| match address.to_canonical() {
        IpAddr::V4(v4) => Ipv4Net::new(v4, 24).map(|net| IpNet::V4(net.trunc())),
        IpAddr::V6(v6) => Ipv6Net::new(v6, 48).map(|net| IpNet::V6(net.trunc())),
    });
    net.and_then(Result::ok).map_or_else(String::new, |net| net.to_string())
}

impl Fetches {
    fn count(&self, tenant: TenantId, address: Option<IpAddr>, agent: &str, newest: &SigningKey, now: DateTime<Utc>) {
        let agent: String = agent.chars().filter(|c| !c.is_control()).take(LONGEST_AGENT).collect();
        let (network, kid) = (network(address), newest.kid.clone());
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (tenant, network.clone(), agent.clone());
        if let Some(kept) = waiting.get_mut(&key) {
            (kept.fetches, kept.last_at) = (kept.fetches + 1, now);
            (kept.newest_kid, kept.newest_key_at) = (kid, newest.created_at);
        } else if waiting.len() < MOST_WAITING {
            let fetch = JwksFetch {
                network,
                user_agent: agent,
                fetches: 1,
                first_at: now,
                last_at: now,
                newest_kid: kid,
                newest_key_at: newest.created_at,
            };
            waiting.insert(key, fetch);
        }
    }

    fn take(&self) -> HashMap<TenantId, Vec<JwksFetch>> {
        let taken = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut by_tenant: HashMap<_, Vec<_>> = HashMap::new();
        for ((tenant, ..), fetch) in taken {
            by_tenant.entry(tenant).or_default().push(fetch);
        }
        by_tenant
    }
}

/// A caller as an admin sees it.
pub struct VerifierView {
    /// Its row.
    pub caller: JwksFetch,
    /// Whether it has the next key; `None` if there is no next key.
    pub knows_next: Option<bool>,
}

/// Who fetches a tenant's keys.
pub struct VerifiersView {
    /// Everybody who came within a month, whoever came last first.
    pub callers: Vec<VerifierView>,
    /// The named verifiers that the next key waits for.
    pub waiting_for: Vec<String>,
    /// When it waits no longer.
    pub waits_until: Option<DateTime<Utc>>,
}

impl Issuer {
    /// Notes that somebody fetched the JWK set.
    pub fn jwks_fetched(&self, tenant: &TenantEntry, address: Option<IpAddr>, user_agent: &str) {
        if let Some(newest) = tenant.published.newest() {
            self.fetches.count(tenant.tenant.id, address, user_agent, newest, self.clock.now());
        }
    }

    /// Writes down who fetched since the last time. What cannot be written is forgotten.
    pub async fn flush_jwks_fetches(&self) -> Result<(), Failure> {
        for (tenant, fetches) in self.fetches.take() {
            let mut tx = self.store.begin_brief(tenant).await?;
            let mut scoped = tx.tenant(tenant).await?;
            for fetch in &fetches {
                scoped.add_jwks_fetch(fetch).await?;
            }
            tx.commit().await?;
        }
        Ok(())
    }

    /// Forgets callers that do not come any more.
    pub(crate) async fn prune_jwks_fetches(&self) -> Result<u64, Failure> {
        let before = self.clock.now() - FORGOTTEN_AFTER;
        let mut pruned = 0;
        for tenant in self.store.all_tenants().await? {
            let mut tx = self.store.begin_in(tenant).await?;
            pruned += tx.tenant(tenant).await?.forget_jwks_fetches(before).await?;
            tx.commit().await?;
        }
        Ok(pruned)
    }

    /// Who fetches a tenant's keys, and who does not know the next one.
    pub async fn list_verifiers(&self, tenant: &TenantEntry) -> Result<VerifiersView, Failure> {
        self.flush_jwks_fetches().await?;
        let now = self.clock.now();
        let rule = tenant.settings.signing();
        let id = tenant.tenant.id;
        let mut tx = self.store.begin_in(id).await?;
        let mut scoped = tx.tenant(id).await?;
        let keys: Vec<_> = scoped.signing_keys().await?.into_iter().filter(|key| key.audience.is_none()).collect();
        let callers = scoped.jwks_fetches().await?;
        let next = key_life::next(&keys);
        let waiting_for = next.map_or_else(Vec::new, |next| waiting_for(tenant.settings.verifiers(), next, &callers, now));
        Ok(VerifiersView {
            waiting_for: waiting_for.into_iter().map(str::to_owned).collect(),
            waits_until: next.map(|next| key_life::waits_until(next, rule)),
            callers: callers
                .into_iter()
                .map(|caller| VerifierView { knows_next: next.map(|next| has_fetched(&caller, next)), caller })
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use claviger_store::signing_key::{Algorithm, SigningKeyState};

    use super::*;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hours)
    }

    fn key(made: i64) -> SigningKey {
        SigningKey {
            kid: "next".into(),
            algorithm: Algorithm::EdDsa,
            public_key: vec![],
            sealed_private: vec![],
            created_at: at(made),
            activated_at: None,
            at_once: false,
            audience: None,
            state: SigningKeyState::Next,
        }
    }

    fn caller(network: &str, agent: &str, last: i64, newest: i64) -> JwksFetch {
        JwksFetch {
            network: network.into(),
            user_agent: agent.into(),
            fetches: 1,
            first_at: at(0),
            last_at: at(last),
            newest_kid: "k".into(),
            newest_key_at: at(newest),
        }
    }

    #[test]
    fn a_name_waits_for_all_that_go_by_it_and_came_within_a_day() {
        let store =
            NamedVerifier { name: "store".into(), network: "192.0.2.7/32".parse().ok(), user_agent: Some("store/".into()) };
        let waits =
            |callers: &[JwksFetch], now| !waiting_for(std::slice::from_ref(&store), &key(100), callers, at(now)).is_empty();
        assert!(waits(&[], 101), "nobody came");
        assert!(waits(&[caller("192.0.3.0/24", "store/1", 100, 100), caller("192.0.2.0/24", "curl", 100, 100)], 101));
        assert!(!waits(&[caller("192.0.2.0/24", "store/1", 100, 100)], 101));
        let two = [caller("192.0.2.0/24", "store/1", 100, 100), caller("192.0.2.0/24", "store/2", 90, 0)];
        assert!(waits(&two, 101), "one of two does not know it");
        assert!(!waits(&two, 90 + 24), "and is gone, as it seems");
    }

    #[test]
    fn callers_are_remembered_by_their_network() {
        assert_eq!(network("192.0.2.77".parse().ok()), "192.0.2.0/24");
        assert_eq!(network("::ffff:192.0.2.77".parse().ok()), "192.0.2.0/24");
        assert_eq!(network("2001:db8:1:2::3".parse().ok()), "2001:db8:1::/48");
        assert_eq!(network(None), "");
    }
}
