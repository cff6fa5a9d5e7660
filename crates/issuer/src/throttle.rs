//! Repeated failures: counted by what was tried and from where, so that the right secret from elsewhere gets in.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use moka::sync::Cache;

use crate::settings::Throttle;

/// Failures of one address at one key.
#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    forgotten_at: DateTime<Utc>,
}

/// A key id as presented, and where from; an IPv6 /64 is one place, since one customer holds it whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Attempt {
    key: String,
    network: IpAddr,
}

impl Attempt {
    pub(crate) fn new(key: &str, address: Option<IpAddr>) -> Self {
        Self { key: key.to_owned(), network: network(address) }
    }
}

/// Where an attempt comes from: an IPv4 address or an IPv6 /64; `::` for the command line.
pub(crate) fn network(address: Option<IpAddr>) -> IpAddr {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V6(v6)) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        Some(v4) => v4,
        None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Counts failures. Of 100,000 busiest attempts; one that is pushed out starts anew.
pub(crate) struct Counter {
    failures: Cache<Attempt, Arc<Mutex<Failures>>>,
}

impl Counter {
    pub(crate) fn new() -> Self {
        let failures = Cache::builder().max_capacity(100_000).time_to_live(Duration::from_secs(86_400)).build();
        Self { failures }
    }

    /// Seconds until attempts are looked at again, if they are not now.
    pub(crate) fn blocked(&self, attempt: &Attempt, rule: Throttle, now: DateTime<Utc>) -> Option<u64> {
        let failures = *self.failures.get(attempt)?.lock().unwrap_or_else(PoisonError::into_inner);
        (failures.count >= rule.failures && now < failures.forgotten_at).then(|| retry_after(failures, now))
    }

    /// Counts a failure. When the allowed number was used up before it: seconds until attempts are looked at again.
    pub(crate) fn fail(&self, attempt: &Attempt, rule: Throttle, now: DateTime<Utc>) -> Option<u64> {
        let fresh = Failures { count: 0, forgotten_at: now + Duration::from_secs(u64::from(rule.window)) };
        let entry = self.failures.get_with_by_ref(attempt, || Arc::new(Mutex::new(fresh)));
        let mut failures = entry.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= failures.forgotten_at {
            *failures = fresh;
        }
        if failures.count >= rule.failures {
            return Some(retry_after(*failures, now));
        }
        failures.count += 1;
        None
    }
}

fn retry_after(failures: Failures, now: DateTime<Utc>) -> u64 {
    u64::try_from((failures.forgotten_at - now).num_seconds()).unwrap_or(0) + 1
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    const RULE: Throttle = Throttle { failures: 5, window: 900 };

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn from(address: &str) -> Attempt {
        Attempt::new("ck_1", Some(address.parse().unwrap()))
    }

    #[test]
    fn the_sixth_failure_is_refused_unseen_until_the_window_ends() {
        let counter = Counter::new();
        let here = from("192.0.2.1");
        for _ in 0..5 {
            assert_eq!(counter.blocked(&here, RULE, start()), None);
            assert_eq!(counter.fail(&here, RULE, start()), None);
        }
        assert_eq!(counter.fail(&here, RULE, start()), Some(901));
        assert_eq!(counter.blocked(&here, RULE, start() + TimeDelta::seconds(600)), Some(301));
        assert_eq!(counter.blocked(&here, RULE, start() + TimeDelta::seconds(900)), None);
        assert_eq!(counter.fail(&here, RULE, start() + TimeDelta::seconds(900)), None);
    }

    #[test]
    fn elsewhere_is_not_refused() {
        let counter = Counter::new();
        for _ in 0..9 {
            counter.fail(&from("192.0.2.1"), RULE, start());
        }
        assert_eq!(counter.blocked(&from("192.0.2.2"), RULE, start()), None);
    }

    #[test]
    fn p15_an_ipv6_network_is_one_place_and_a_mapped_address_is_the_ipv4_one() {
        assert_eq!(from("2001:db8:1:2::1"), from("2001:db8:1:2:ffff::9"));
        assert_ne!(from("2001:db8:1:2::1"), from("2001:db8:1:3::1"));
        assert_eq!(from("::ffff:192.0.2.1"), from("192.0.2.1"));
    }

    #[test]
    fn p14_parallel_failures_are_all_counted() {
        let counter = Counter::new();
        let seen = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        if counter.fail(&from("192.0.2.1"), RULE, start()).is_none() {
                            seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert_eq!(seen.into_inner(), 5);
    }
}
