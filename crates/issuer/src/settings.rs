//! What may be set, for the installation and for each tenant.

use std::collections::BTreeMap;
use std::net::IpAddr;

use chrono::TimeDelta;
use claviger_store::issued_token::LONGEST_TOKEN_LIFETIME;
use claviger_store::token_family::LONGEST_LOGIN;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::Refusal;
use crate::budget::Told;
use crate::dialect::Dialects;
use crate::key_life::JWKS_MAX_AGE;
use crate::key_request::KeyRequestRule;
use crate::limits::KeyRule;
use crate::outbound::OutboundSettings;
use crate::password::{Cost, PasswordPolicy};
use crate::requirement::{Policy, check_policies};
use crate::resource::check_resources;
use crate::rights::Patterns;
use crate::tenant::check_name;
use crate::verifier_watch::NamedVerifier;
use crate::verify::Transport;

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
    /// Whether mail reaches people, so that they can confirm their addresses.
    pub confirm_addresses: bool,
    /// What a password's hash costs.
    pub password_cost: Cost,
    /// Threads that hash passwords; 0 is one for each core.
    pub password_threads: usize,
    /// What may be asked of others.
    pub outbound: OutboundSettings,
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
    /// Seconds that a token from a login lives, 5 to 8,640,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_token_lifetime: Option<i32>,
    /// Refresh tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh: Option<RefreshRule>,
    /// Browser sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionRule>,
    /// What passwords may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordPolicy>,
    /// Failed logins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_throttle: Option<LoginThrottle>,
    /// How signing keys follow each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing: Option<SigningRule>,
    /// Verifiers that rotations wait for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verifiers: Option<Vec<NamedVerifier>>,
    /// What keys may hold at most, as scopes and patterns; `None` is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_scopes: Option<Vec<String>>,
    /// How long keys live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<KeyRule>,
    /// Requests for developer keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_requests: Option<KeyRequestRule>,
    /// Requirements that resource servers ask for by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<String, Policy>,
    /// Whether WebSockets may send a token, or a key and secret, in the address (`?token=`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ws_query_token: bool,
    /// Whether somebody with the scope `users:impersonate` may act for people who did not let them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub impersonation: bool,
    /// Whether scopes can be given only if they are in the catalogue.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub closed_catalogue: bool,
    /// Services that tokens may be asked for besides the issuer itself: absolute URIs (RFC 8707).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Whether the revocation feed takes the scope `revocations:read`; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocations_private: Option<bool>,
    /// Which other systems' routes are served.
    #[serde(skip_serializing_if = "is_default")]
    pub dialects: Dialects,
    /// The audience whose shape tokens have that are asked for nobody in particular, by name: from keys, and from logins of
    /// the dialects. The dialects' routes take its tokens; our management never does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usual_audience: Option<String>,
    /// Whether `Authorization: Bearer: TOKEN`, and a token without a scheme, are taken too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lenient_bearer: bool,
    /// Whether plain http is refused, though the installation does not refuse it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub require_https: bool,
    /// Whether a dialect tells apart what its system tells apart, such as keys that are not there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub legacy_error_text: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Seconds that a token from a login lives, unless the tenant says otherwise.
const LOGIN_TOKEN_LIFETIME: i32 = 900;

/// How long refresh tokens may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RefreshRule {
    /// Seconds, 0 to 60, in which a token that was just used gets the same answer again, as long as nobody used that answer.
    pub window: u32,
    /// Seconds without a refresh after which a family ends.
    pub idle: i32,
    /// Seconds after which a family ends whatever happens.
    pub absolute: i32,
}

impl Default for RefreshRule {
    fn default() -> Self {
        Self { window: 30, idle: 1_209_600, absolute: 2_592_000 }
    }
}

/// How long browser sessions last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionRule {
    /// Seconds without a use after which a session ends.
    pub idle: i32,
    /// Seconds after which it ends whatever happens.
    pub absolute: i32,
}

impl Default for SessionRule {
    fn default() -> Self {
        Self { idle: 86_400, absolute: 604_800 }
    }
}

/// How many failed logins are looked at. Each is counted in several places; whoever comes back on a known device has a
/// count of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoginThrottle {
    /// Failures of one account from one address in a window.
    pub failures: i32,
    /// Seconds from the first failure until they are forgotten.
    pub window: i32,
    /// Failures of one account in a day, wherever they come from.
    pub account: i32,
    /// Failures from one address in a window, whatever the account.
    pub address: i32,
    /// Failures in the tenant in a window.
    pub tenant: i32,
}

impl Default for LoginThrottle {
    fn default() -> Self {
        Self { failures: 5, window: 900, account: 100, address: 100, tenant: 10_000 }
    }
}

/// How signing keys follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SigningRule {
    /// Seconds that a key is published before it signs: 300, which is how long a verifier may keep the JWK set, to 2592000.
    pub lead: i32,
    /// Days that a key signs, 1 to 3650 and longer than the lead; `None` for ever.
    pub rotate_days: Option<i32>,
    /// Seconds after which a next key signs though a verifier that the tenant named has not fetched it, up to 7776000.
    pub longest_wait: i32,
}

impl Default for SigningRule {
    fn default() -> Self {
        Self { lead: 86_400, rotate_days: Some(30), longest_wait: 604_800 }
    }
}

impl SigningRule {
    /// How long a key is published before it signs.
    #[must_use]
    pub fn lead(&self) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.lead))
    }

    fn check(&self) -> Result<(), Refusal> {
        let shortest = i32::try_from(JWKS_MAX_AGE).unwrap_or(i32::MAX);
        if !(shortest..=2_592_000).contains(&self.lead) {
            let problem = format!("lead is {shortest} (as long as verifiers keep the JWK set) to 2592000 seconds");
            return Err(Refusal::invalid("signing", problem));
        }
        if !(0..=7_776_000).contains(&self.longest_wait) {
            return Err(Refusal::invalid("signing", "longest_wait is 0 to 7776000 seconds"));
        }
        match self.rotate_days {
            Some(days) if !(1..=3650).contains(&days) || TimeDelta::days(i64::from(days)) <= self.lead() => {
                Err(Refusal::invalid("signing", "rotate_days is 1 to 3650 and longer than lead, or null for never"))
            }
            _ => Ok(()),
        }
    }
}

fn check_login_times(field: &'static str, idle: i32, absolute: i32) -> Result<(), Refusal> {
    let fits = |seconds| (SHORTEST_TOKEN_LIFETIME..=LONGEST_LOGIN).contains(&seconds);
    match fits(idle) && fits(absolute) {
        true => Ok(()),
        false => {
            Err(Refusal::invalid(field, format!("idle and absolute are {SHORTEST_TOKEN_LIFETIME} to {LONGEST_LOGIN} seconds")))
        }
    }
}

impl TenantSettings {
    /// Refuses what cannot be served.
    pub fn check(&self) -> Result<(), Refusal> {
        check_lifetime(self.token_lifetime)?;
        check_lifetime(self.login_token_lifetime)?;
        check_resources(&self.resources)?;
        if let Some(RefreshRule { window, idle, absolute }) = self.refresh {
            check_login_times("refresh", idle, absolute)?;
            if window > 60 {
                return Err(Refusal::invalid("refresh", "window is 0 to 60 seconds"));
            }
        }
        if let Some(SessionRule { idle, absolute }) = self.session {
            check_login_times("session", idle, absolute)?;
        }
        check_policies(&self.policies)?;
        self.dialects.check()?;
        if let Some(name) = &self.usual_audience {
            check_name("usual_audience", name)?;
        }
        if let Some(rule) = &self.keys {
            rule.check()?;
        }
        if let Some(rule) = &self.key_requests {
            rule.check()?;
        }
        Patterns::granted("key_scopes", self.key_scopes.as_deref().unwrap_or_default())?;
        if let Some(policy) = &self.password {
            policy.check()?;
        }
        if let Some(LoginThrottle { failures, window, account, address, tenant }) = self.login_throttle {
            let counts = [failures, account, address, tenant].iter().all(|count| (1..=1_000_000).contains(count));
            if !counts || !(1..=86_400).contains(&window) {
                return Err(Refusal::invalid("login_throttle", "counts are 1 to 1000000, window 1 to 86400 seconds"));
            }
        }
        if let Some(rule) = &self.signing {
            rule.check()?;
        }
        NamedVerifier::check(self.verifiers())?;
        match self.throttle {
            Some(rule) if !(1..=1000).contains(&rule.failures) || !(1..=86_400).contains(&rule.window) => {
                Err(Refusal::invalid("throttle", "failures is 1 to 1000, window 1 to 86400 seconds"))
            }
            _ => Ok(()),
        }
    }

    /// Seconds that a token from a login lives.
    #[must_use]
    pub fn login_token_lifetime(&self) -> i32 {
        self.login_token_lifetime.unwrap_or(LOGIN_TOKEN_LIFETIME)
    }

    /// How long refresh tokens may be used.
    #[must_use]
    pub fn refresh(&self) -> RefreshRule {
        self.refresh.unwrap_or_default()
    }

    /// How long browser sessions last.
    #[must_use]
    pub fn session(&self) -> SessionRule {
        self.session.unwrap_or_default()
    }

    /// What passwords may be.
    #[must_use]
    pub fn password(&self) -> PasswordPolicy {
        self.password.unwrap_or_default()
    }

    /// Verifiers that rotations wait for.
    #[must_use]
    pub fn verifiers(&self) -> &[NamedVerifier] {
        self.verifiers.as_deref().unwrap_or_default()
    }

    /// How signing keys follow each other.
    #[must_use]
    pub fn signing(&self) -> SigningRule {
        self.signing.unwrap_or_default()
    }

    /// How long keys live.
    #[must_use]
    pub fn keys(&self) -> KeyRule {
        self.keys.unwrap_or_default()
    }

    /// Requests for developer keys.
    #[must_use]
    pub fn key_requests(&self) -> KeyRequestRule {
        self.key_requests.clone().unwrap_or_default()
    }

    /// How many failed logins are looked at.
    #[must_use]
    pub fn login_throttle(&self) -> LoginThrottle {
        self.login_throttle.unwrap_or_default()
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
    /// Where our own pages come from (RFC 6454 §6.2).
    #[must_use]
    pub fn origin(&self) -> String {
        self.public_url.origin().ascii_serialization()
    }

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
    /// Whether it came over https, as far as the server can tell.
    pub https: bool,
    /// How its client calls itself.
    pub agent: Option<String>,
    /// How the resource was asked for.
    pub transport: Transport,
    /// What the answer is to tell of a key's limits.
    pub told: Told,
}

impl RequestInfo {
    /// A plain request.
    #[must_use]
    pub fn new(id: String, address: Option<IpAddr>) -> Self {
        Self { id, address, https: false, agent: None, transport: Transport::Http, told: Told::default() }
    }
}
