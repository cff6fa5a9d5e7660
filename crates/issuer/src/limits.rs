//! Where and how a key may be used: from which addresses, over what, how often.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::Refusal;
use crate::verify::Transport;

/// Longest time that can be set, in days.
const LONGEST: i32 = 36_500;

/// How long keys of a tenant live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyRule {
    /// Days that a key lives when whoever makes it says nothing; `None` is for ever.
    pub default_days: Option<i32>,
    /// Most days that a key may live; `None` is for ever.
    pub max_days: Option<i32>,
    /// Days without a use after which a key is disabled; `None` is never.
    pub dormant_days: Option<i32>,
}

impl Default for KeyRule {
    fn default() -> Self {
        Self { default_days: Some(365), max_days: None, dormant_days: None }
    }
}

impl KeyRule {
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let fits = |days: Option<i32>| days.is_none_or(|days| (1..=LONGEST).contains(&days));
        match fits(self.default_days) && fits(self.max_days) && fits(self.dormant_days) {
            true => Ok(()),
            false => Err(Refusal::invalid("keys", format!("days are 1 to {LONGEST}, or null"))),
        }
    }

    /// When a key ends. `wished` is what its order says: nothing, never, or then.
    pub(crate) fn end(
        &self,
        wished: Option<Option<DateTime<Utc>>>,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, Refusal> {
        let after = |days: i32| now + TimeDelta::days(days.into());
        let latest = self.max_days.map(after);
        let Some(end) = wished else {
            let end = self.default_days.map(after);
            return Ok(end.into_iter().chain(latest).min());
        };
        if end.is_some_and(|end| end <= now) {
            return Err(Refusal::invalid("expires_at", "is in the past"));
        }
        match latest {
            Some(latest) if end.is_none_or(|end| end > latest) => {
                let days = self.max_days.unwrap_or_default();
                Err(Refusal::invalid("expires_at", format!("is later than this tenant lets keys live, which is {days} days")))
            }
            _ => Ok(end),
        }
    }
}

/// Most networks of one key.
const MOST_NETWORKS: usize = 50;

/// Limits of one key; what is absent sets none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyLimits {
    /// Networks that it may be used from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_ips: Vec<IpNet>,
    /// How it may be used; empty is every way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transports: Vec<Transport>,
    /// How often in a short time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// How often in a day or month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
}

/// How often in a short time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Uses in a window.
    pub requests: i64,
    /// Seconds of a window.
    pub seconds: i64,
}

/// How often in a day or month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Uses in a period.
    pub requests: i64,
    /// The period, in UTC.
    pub period: Period,
}

/// A period, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// A day.
    Day,
    /// A month.
    Month,
}

impl KeyLimits {
    /// Networks as somebody wrote them; an address alone is a network of one.
    pub fn networks(texts: &[String]) -> Result<Vec<IpNet>, Refusal> {
        let read = |text: &String| {
            let text = text.trim();
            let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            network.map(|network: IpNet| network.trunc())
        };
        let networks: Result<Vec<IpNet>, _> = texts.iter().map(read).collect();
        networks.map_err(|_| Refusal::invalid("allowed_ips", "are addresses and networks such as 192.0.2.7 and 2001:db8::/32"))
    }

    /// What was kept. Limits that cannot be read let nothing through.
    #[must_use]
    pub fn kept(value: &serde_json::Value) -> Option<Self> {
        serde_json::from_value(value.clone()).ok()
    }

    /// Refuses what cannot be kept.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if self.allowed_ips.len() > MOST_NETWORKS {
            return Err(Refusal::invalid("allowed_ips", format!("are at most {MOST_NETWORKS} networks")));
        }
        if let Some(RateLimit { requests, seconds }) = self.rate_limit
            && !((1..=1_000_000_000).contains(&requests) && (1..=86_400).contains(&seconds))
        {
            return Err(Refusal::invalid("rate_limit", "is 1 to 1000000000 requests in 1 to 86400 seconds"));
        }
        if let Some(Quota { requests, .. }) = self.quota
            && !(1..=1_000_000_000_000).contains(&requests)
        {
            return Err(Refusal::invalid("quota", "is 1 to 1000000000000 requests"));
        }
        Ok(())
    }

    /// The rule: whether it may be used from there and so. The error is the reason as a word. Where nobody knows the address, a
    /// list of addresses lets nobody in.
    pub fn admits(&self, address: Option<IpAddr>, transport: Transport) -> Result<(), &'static str> {
        let from = address.map(|address| address.to_canonical());
        if !self.allowed_ips.is_empty()
            && !from.is_some_and(|from| self.allowed_ips.iter().any(|network| network.contains(&from)))
        {
            return Err("ip_not_allowed");
        }
        match self.transports.is_empty() || self.transports.contains(&transport) {
            true => Ok(()),
            false => Err("transport_not_allowed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_as_its_order_says_else_as_its_tenant_says() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let after = |days| Some(now + TimeDelta::days(days));
        let rule = |default_days, max_days| KeyRule { default_days, max_days, dormant_days: None };
        assert_eq!(KeyRule::default().end(None, now), Ok(after(365)));
        assert_eq!(KeyRule::default().end(Some(None), now), Ok(None));
        assert_eq!(rule(Some(365), Some(30)).end(None, now), Ok(after(30)));
        assert_eq!(rule(None, Some(30)).end(None, now), Ok(after(30)));
        assert_eq!(rule(Some(7), Some(30)).end(None, now), Ok(after(7)));
        assert_eq!(rule(None, None).end(None, now), Ok(None));
        assert_eq!(rule(None, Some(30)).end(Some(after(30)), now), Ok(after(30)));
        for refused in [None, after(31), after(0)] {
            assert!(rule(None, Some(30)).end(Some(refused), now).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn a_list_of_addresses_lets_in_whom_it_names() {
        let limits = KeyLimits {
            allowed_ips: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            ..KeyLimits::default()
        };
        let admits = |address: &str| limits.admits(Some(address.parse().unwrap()), Transport::Http);
        assert_eq!(admits("10.1.2.3"), Ok(()));
        assert_eq!(admits("::ffff:10.1.2.3"), Ok(()));
        assert_eq!(admits("2001:db8::1"), Ok(()));
        assert_eq!(admits("11.1.2.3"), Err("ip_not_allowed"));
        assert_eq!(limits.admits(None, Transport::Http), Err("ip_not_allowed"));
        let limits = KeyLimits { transports: vec![Transport::Ws], ..KeyLimits::default() };
        assert_eq!(limits.admits(None, Transport::Ws), Ok(()));
        assert_eq!(limits.admits(None, Transport::Http), Err("transport_not_allowed"));
    }
}
