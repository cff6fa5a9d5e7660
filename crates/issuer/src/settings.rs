//! What may be set, for the installation and for each tenant.

use std::net::IpAddr;

use claviger_store::issued_token::LONGEST_TOKEN_LIFETIME;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::Refusal;

/// Shortest life of a token, in seconds.
pub const SHORTEST_TOKEN_LIFETIME: i32 = 5;

/// Settings of the installation that decisions depend on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the world reaches us; the beginning of every issuer. From configuration, never from a request.
    pub public_url: Url,
    /// The beginning of new key ids (`{brand}k_`) and secrets (`{brand}s_`).
    pub brand: String,
    /// The slug of the tenant whose keys and metadata the root paths serve, and whose admins manage tenants.
    pub default_tenant: String,
    /// Seconds that a token from a key lives, unless tenant, application or key say otherwise.
    pub token_lifetime: i32,
    /// Failures that a key id and address are allowed.
    pub throttle: Throttle,
}

/// How many failures are looked at before attempts are refused unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// Failures in a window.
    pub failures: u32,
    /// Seconds from the first failure until they are forgotten.
    pub window: u32,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { failures: 5, window: 900 }
    }
}

/// Settings of one tenant; what is absent is taken from the installation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantSettings {
    /// Seconds that a token from a key lives, 5 to 8,640,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_lifetime: Option<i32>,
    /// Failures that a key id and address are allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Throttle>,
}

impl TenantSettings {
    /// Refuses what cannot be served.
    pub fn check(&self) -> Result<(), Refusal> {
        check_lifetime(self.token_lifetime)?;
        match self.throttle {
            Some(rule) if !(1..=1000).contains(&rule.failures) || !(1..=86_400).contains(&rule.window) => {
                Err(Refusal::invalid("throttle", "failures is 1 to 1000, window 1 to 86400 seconds"))
            }
            _ => Ok(()),
        }
    }
}

/// A token lives 5 seconds to 100 days.
pub fn check_lifetime(seconds: Option<i32>) -> Result<(), Refusal> {
    match seconds {
        Some(seconds) if !(SHORTEST_TOKEN_LIFETIME..=LONGEST_TOKEN_LIFETIME).contains(&seconds) => Err(Refusal::invalid(
            "token_lifetime",
            format!("a token lives {SHORTEST_TOKEN_LIFETIME} to {LONGEST_TOKEN_LIFETIME} seconds"),
        )),
        _ => Ok(()),
    }
}

impl Settings {
    /// A tenant's issuer identifier (RFC 8414 §2).
    #[must_use]
    pub fn issuer(&self, slug: &str) -> String {
        format!("{}/t/{slug}", self.public_url.as_str().trim_end_matches('/'))
    }

    /// The slug that an issuer identifier of ours names.
    #[must_use]
    pub fn slug_of_issuer<'a>(&self, issuer: &'a str) -> Option<&'a str> {
        issuer.strip_prefix(self.public_url.as_str().trim_end_matches('/'))?.strip_prefix("/t/")
    }
}

/// What is known of a request besides what it asks.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    /// Its id, in the logs and in the audit trail.
    pub id: String,
    /// Whom it came from, proxies seen through; `None` for the command line.
    pub address: Option<IpAddr>,
}
