//! Settings of a tenant, as they are sent.

use std::collections::BTreeMap;

use claviger_issuer::dialect::{CheshireCat, ClusterCockpit, CrossLogin, Dialects, Howler};
use claviger_issuer::key_request::{AutoApprove, KeyRequestRule};
use claviger_issuer::limits::KeyRule;
use claviger_issuer::password::PasswordPolicy;
use claviger_issuer::requirement::{Policy, Requirement, RolesNeeded, ScopesNeeded};
use claviger_issuer::settings::{LoginThrottle, RefreshRule, SessionRule, SigningRule, TenantSettings, Throttle};
use claviger_issuer::verifier_watch::NamedVerifier;
use ipnet::IpNet;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::body::{Object, present};
use crate::v1::verify::{RolesIn, ScopesIn};

/// Settings of a tenant; what is absent is taken from the installation.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettingsIn {
    /// Seconds that a token from a key lives.
    #[schema(minimum = 5, maximum = 8_640_000, example = 3600)]
    #[serde(default)]
    token_lifetime: Option<i32>,
    /// Failed exchanges of one key from one address.
    #[serde(default)]
    #[schema(value_type = Option<ThrottleIn>)]
    throttle: Option<Object<ThrottleIn>>,
    /// Seconds that a token from a login lives; 900 if absent.
    #[schema(minimum = 5, maximum = 8_640_000, example = 900)]
    #[serde(default)]
    login_token_lifetime: Option<i32>,
    /// Refresh tokens.
    #[serde(default)]
    #[schema(value_type = Option<RefreshRuleIn>)]
    refresh: Option<Object<RefreshRuleIn>>,
    /// Browser sessions.
    #[serde(default)]
    #[schema(value_type = Option<SessionRuleIn>)]
    session: Option<Object<SessionRuleIn>>,
    /// What passwords may be.
    #[serde(default)]
    #[schema(value_type = Option<PasswordPolicyIn>)]
    password: Option<Object<PasswordPolicyIn>>,
    /// Failed logins.
    #[serde(default)]
    #[schema(value_type = Option<LoginThrottleIn>)]
    login_throttle: Option<Object<LoginThrottleIn>>,
    /// How signing keys follow each other.
    #[serde(default)]
    #[schema(value_type = Option<SigningRuleIn>)]
    signing: Option<Object<SigningRuleIn>>,
    /// Verifiers that rotations wait for; at most 50.
    #[serde(default)]
    #[schema(value_type = Option<Vec<NamedVerifierIn>>)]
    verifiers: Option<Vec<Object<NamedVerifierIn>>>,
    /// What keys may hold at most, as scopes and patterns; no limit if absent.
    #[serde(default)]
    #[schema(example = json!(["events:*"]))]
    key_scopes: Option<Vec<String>>,
    /// How long keys live.
    #[serde(default)]
    #[schema(value_type = Option<KeyRuleIn>)]
    keys: Option<Object<KeyRuleIn>>,
    /// Requests for developer keys.
    #[serde(default)]
    #[schema(value_type = Option<KeyRequestRuleIn>)]
    key_requests: Option<Object<KeyRequestRuleIn>>,
    /// Requirements that resource servers ask for by name (`policy` of `POST /v1/verify`).
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, PolicyIn>)]
    policies: BTreeMap<String, Object<PolicyIn>>,
    /// Whether WebSockets may send a token, or a key and secret, in the address (`?token=`); false if absent.
    #[serde(default)]
    ws_query_token: bool,
    /// Whether somebody with the scope `users:impersonate` may act for people who did not let them; false if absent.
    #[serde(default)]
    impersonation: bool,
    /// Whether scopes can be given only if they are in the catalogue; false if absent.
    #[serde(default)]
    closed_catalogue: bool,
    /// Services that tokens may be asked for with `resource` at the token endpoint: up to 100 absolute URIs without fragment.
    #[schema(max_items = 100, example = json!(["https://api.example.com"]))]
    #[serde(default)]
    resources: Option<Vec<String>>,
    /// Whether the revocation feed takes the scope `revocations:read`; false if absent.
    #[serde(default)]
    revocations_private: Option<bool>,
    /// Which other systems' routes are served.
    #[serde(default)]
    #[schema(value_type = Option<DialectsIn>)]
    dialects: Option<Object<DialectsIn>>,
    /// The audience, by name, whose shape tokens from keys and from logins of the dialects have; absent is our own shape.
    #[serde(default)]
    #[schema(example = "cc-backend")]
    usual_audience: Option<String>,
    /// Whether `Authorization: Bearer: TOKEN`, and a token without a scheme, are taken too; false if absent.
    #[serde(default)]
    lenient_bearer: bool,
    /// Whether plain http is refused, though the installation does not refuse it; false if absent.
    #[serde(default)]
    require_https: bool,
    /// Whether a dialect tells apart what its system tells apart, such as keys that are not there; false if absent.
    #[serde(default)]
    legacy_error_text: bool,
}

/// Which dialects are spoken: those that are there, each with what it may be told.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(example = json!({ "clustercockpit": {} }))]
pub(crate) struct DialectsIn {
    /// Cheshire Cat's.
    #[serde(default)]
    #[schema(value_type = Option<CheshireCatIn>)]
    cheshire_cat: Option<Object<CheshireCatIn>>,
    /// ClusterCockpit's.
    #[serde(default)]
    #[schema(value_type = Option<ClusterCockpitIn>)]
    clustercockpit: Option<Object<ClusterCockpitIn>>,
    /// Howler's.
    #[serde(default)]
    #[schema(value_type = Option<HowlerIn>)]
    howler: Option<Object<HowlerIn>>,
}

/// Cheshire Cat's dialect.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheshireCatIn {
    /// Whether its login page leaves the token in the cookie `ccat_user_token`, which scripts can read, as its admin panel
    /// wants; false if absent: then the login is a browser session.
    #[serde(default)]
    panel_cookie: bool,
}

/// Howler's dialect.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HowlerIn {
    /// The page of Howler's web interface that providers send browsers back to: an absolute address without a query. Absent is
    /// `/api/v1/auth/login` of this tenant.
    #[schema(example = "https://howler.example.org/login")]
    callback: Option<String>,
    /// Whether a key that is made with a JWT ends no later than that; false if absent.
    #[serde(default)]
    strict_apikeys: bool,
}

/// ClusterCockpit's dialect.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterCockpitIn {
    /// Applications that people are logged in to with a short token, by the name in `/cross-login/{client}`: up to 20.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, CrossLoginIn>)]
    cross_login: BTreeMap<String, Object<CrossLoginIn>>,
}

/// An application that people are logged in to with a short token in a cookie.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CrossLoginIn {
    /// Where the browser is sent: an absolute address whose host the cookie reaches.
    #[schema(example = "https://cc.example.org/jwt-login")]
    url: String,
    /// The cookie's name; `access_cc` if absent.
    #[schema(example = "access_cc")]
    cookie: Option<String>,
    /// The domain that this server and the application share; absent if they are on one host.
    #[schema(example = "example.org")]
    domain: Option<String>,
    /// The audience whose shape the token gets. Its tokens live 300 seconds at most.
    #[schema(example = "cc-cross-login")]
    audience: String,
}

impl From<Object<DialectsIn>> for Dialects {
    fn from(Object(dialects): Object<DialectsIn>) -> Self {
        let DialectsIn { cheshire_cat, clustercockpit, howler } = dialects;
        Self {
            cheshire_cat: cheshire_cat.map(|Object(CheshireCatIn { panel_cookie })| CheshireCat { panel_cookie }),
            clustercockpit: clustercockpit.map(|Object(ClusterCockpitIn { cross_login })| ClusterCockpit {
                cross_login: cross_login.into_iter().map(|(name, client)| (name, client.into())).collect(),
            }),
            howler: howler.map(|Object(HowlerIn { callback, strict_apikeys })| Howler { callback, strict_apikeys }),
        }
    }
}

impl From<Object<CrossLoginIn>> for CrossLogin {
    fn from(Object(CrossLoginIn { url, cookie, domain, audience }): Object<CrossLoginIn>) -> Self {
        Self { url, cookie: cookie.unwrap_or_else(Self::usual_cookie), domain, audience }
    }
}

/// How many failures are looked at before attempts are refused unseen.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ThrottleIn {
    /// Failures in a window, 1 to 1000.
    #[schema(example = 5)]
    failures: u32,
    /// Seconds from the first failure until they are forgotten, 1 to 86400.
    #[schema(example = 900)]
    window: u32,
}

/// How long refresh tokens may be used.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefreshRuleIn {
    /// Seconds, 0 to 60, in which a token that was just used gets the same answer again; 30 if absent.
    #[schema(maximum = 60, example = 30)]
    window: Option<u32>,
    /// Seconds without a refresh after which a login ends; 1209600 (14 days) if absent.
    #[schema(minimum = 5, maximum = 31_622_400)]
    idle: Option<i32>,
    /// Seconds after which a login ends whatever happens; 2592000 (30 days) if absent.
    #[schema(minimum = 5, maximum = 31_622_400)]
    absolute: Option<i32>,
}

/// How long browser sessions last.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionRuleIn {
    /// Seconds without a use after which a session ends; 86400 (a day) if absent.
    #[schema(minimum = 5, maximum = 31_622_400)]
    idle: Option<i32>,
    /// Seconds after which it ends whatever happens; 604800 (a week) if absent.
    #[schema(minimum = 5, maximum = 31_622_400)]
    absolute: Option<i32>,
}

/// What passwords may be. Those that people have stay good.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordPolicyIn {
    /// Characters, 4 to 64; 12 if absent.
    #[schema(minimum = 4, maximum = 64)]
    min_length: Option<usize>,
    /// Characters, 64 to 512; 128 if absent.
    #[schema(minimum = 64, maximum = 512)]
    max_length: Option<usize>,
    /// Refuse passwords that everybody tries first; true if absent.
    refuse_common: Option<bool>,
    /// Refuse what is little more than the person's or the tenant's name; true if absent.
    refuse_context: Option<bool>,
}

/// How many failed logins are looked at. Someone on a known device has counts of their own.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginThrottleIn {
    /// Failures of one account from one address in a window; 5 if absent.
    #[schema(minimum = 1, maximum = 1_000_000)]
    failures: Option<i32>,
    /// Seconds from the first failure until they are forgotten, 1 to 86400; 900 if absent.
    #[schema(minimum = 1, maximum = 86_400)]
    window: Option<i32>,
    /// Failures of one account in a day, from wherever; 100 if absent.
    #[schema(minimum = 1, maximum = 1_000_000)]
    account: Option<i32>,
    /// Failures from one address in a window, whatever the account; 100 if absent.
    #[schema(minimum = 1, maximum = 1_000_000)]
    address: Option<i32>,
    /// Failures in the tenant in a window; 10000 if absent.
    #[schema(minimum = 1, maximum = 1_000_000)]
    tenant: Option<i32>,
}

/// How signing keys follow each other.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SigningRuleIn {
    /// Seconds that a key is published before it signs; 86400 (a day) if absent.
    #[schema(minimum = 300, maximum = 2_592_000, example = 86_400)]
    lead: Option<i32>,
    /// Days that a key signs; 30 if absent, `null` for ever.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i32>, minimum = 1, maximum = 3650, example = 30)]
    rotate_days: Option<Option<i32>>,
    /// Seconds after which a next key signs though a verifier of the setting `verifiers` has not fetched it; 604800 (a week)
    /// if absent.
    #[schema(minimum = 0, maximum = 7_776_000)]
    longest_wait: Option<i32>,
}

/// A verifier that rotations wait for. A network or a user agent is needed; with both, both must fit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedVerifierIn {
    #[schema(example = "metric store")]
    name: String,
    /// Where it fetches from.
    #[schema(value_type = Option<String>, example = "192.0.2.0/24")]
    network: Option<IpNet>,
    /// How its `User-Agent` begins.
    #[schema(example = "metric-store/")]
    user_agent: Option<String>,
}

/// How long keys live.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRuleIn {
    /// Days that a key lives when whoever makes it says nothing; 365 if absent, `null` is for ever.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i32>, minimum = 1, maximum = 36_500, example = 90)]
    default_days: Option<Option<i32>>,
    /// Most days that a key may live; for ever if absent.
    #[schema(minimum = 1, maximum = 36_500, example = 365)]
    max_days: Option<i32>,
    /// Days without a use after which a key is disabled; never if absent.
    #[schema(minimum = 1, maximum = 36_500, example = 90)]
    dormant_days: Option<i32>,
}

impl From<Object<KeyRuleIn>> for KeyRule {
    fn from(Object(KeyRuleIn { default_days, max_days, dormant_days }): Object<KeyRuleIn>) -> Self {
        Self { default_days: default_days.unwrap_or(Self::default().default_days), max_days, dormant_days }
    }
}

/// What a tenant makes of requests for keys.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRequestRuleIn {
    /// Whether anybody may ask; true if absent.
    enabled: Option<bool>,
    /// Whose requests are approved without an admin, once the address is confirmed; nobody's if absent.
    #[serde(default)]
    #[schema(value_type = Option<AutoApproveIn>)]
    auto_approve: Option<Object<AutoApproveIn>>,
}

/// Whose requests are approved without an admin.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AutoApproveIn {
    /// Domains of addresses, whole, in lower case: 1 to 100.
    #[schema(example = json!(["example.com"]))]
    email_domains: Vec<String>,
    /// What their keys may do: nothing of the tenant's management.
    #[schema(example = json!(["events:read"]))]
    scopes: Vec<String>,
    /// Days that their keys live, 1 to 3650.
    #[schema(minimum = 1, maximum = 3650, example = 90)]
    expires_in_days: i64,
}

impl From<Object<KeyRequestRuleIn>> for KeyRequestRule {
    fn from(Object(KeyRequestRuleIn { enabled, auto_approve }): Object<KeyRequestRuleIn>) -> Self {
        let auto_approve = auto_approve.map(|Object(AutoApproveIn { email_domains, scopes, expires_in_days })| AutoApprove {
            email_domains,
            scopes,
            expires_in_days,
        });
        Self { enabled: enabled.unwrap_or(true), auto_approve }
    }
}

/// A requirement that the tenant has named: at least one of its alternatives.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "any_of": [{ "roles": { "equals": ["api"] } }, { "roles": { "all": ["admin", "api"] } }] }))]
pub(crate) struct PolicyIn {
    /// The alternatives, 1 to 20.
    #[schema(value_type = Vec<RequirementIn>)]
    any_of: Vec<Object<RequirementIn>>,
    /// The status that a resource server is told to answer with: 401 or 403; 403 if absent.
    status: Option<u16>,
}

/// One alternative: all of it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequirementIn {
    /// Scopes.
    #[serde(default)]
    #[schema(value_type = Option<ScopesIn>)]
    scopes: Option<Object<ScopesIn>>,
    /// Roles.
    #[serde(default)]
    #[schema(value_type = Option<RolesIn>)]
    roles: Option<Object<RolesIn>>,
}

impl From<Object<PolicyIn>> for Policy {
    fn from(Object(PolicyIn { any_of, status }): Object<PolicyIn>) -> Self {
        let any_of = any_of.into_iter().map(|Object(RequirementIn { scopes, roles })| Requirement {
            scopes: scopes.map(ScopesNeeded::from).unwrap_or_default(),
            roles: roles.map(RolesNeeded::from).unwrap_or_default(),
        });
        Self { any_of: any_of.collect(), status }
    }
}

impl From<Object<SettingsIn>> for TenantSettings {
    fn from(Object(settings): Object<SettingsIn>) -> Self {
        let SettingsIn {
            token_lifetime,
            throttle,
            login_token_lifetime,
            refresh,
            session,
            password,
            login_throttle,
            signing,
            verifiers,
            key_scopes,
            keys,
            key_requests,
            policies,
            ws_query_token,
            impersonation,
            closed_catalogue,
            resources,
            revocations_private,
            dialects,
            usual_audience,
            lenient_bearer,
            require_https,
            legacy_error_text,
        } = settings;
        Self {
            token_lifetime,
            throttle: throttle.map(|Object(ThrottleIn { failures, window })| Throttle { failures, window }),
            login_token_lifetime,
            refresh: refresh.map(RefreshRule::from),
            session: session.map(SessionRule::from),
            password: password.map(PasswordPolicy::from),
            login_throttle: login_throttle.map(LoginThrottle::from),
            signing: signing.map(SigningRule::from),
            verifiers: verifiers.map(|all| all.into_iter().map(NamedVerifier::from).collect()),
            key_scopes,
            keys: keys.map(KeyRule::from),
            key_requests: key_requests.map(KeyRequestRule::from),
            policies: policies.into_iter().map(|(name, policy)| (name, Policy::from(policy))).collect(),
            ws_query_token,
            impersonation,
            closed_catalogue,
            resources: resources.unwrap_or_default(),
            revocations_private,
            dialects: dialects.map(Dialects::from).unwrap_or_default(),
            usual_audience,
            lenient_bearer,
            require_https,
            legacy_error_text,
        }
    }
}

impl From<Object<RefreshRuleIn>> for RefreshRule {
    fn from(Object(RefreshRuleIn { window, idle, absolute }): Object<RefreshRuleIn>) -> Self {
        let usual = Self::default();
        Self {
            window: window.unwrap_or(usual.window),
            idle: idle.unwrap_or(usual.idle),
            absolute: absolute.unwrap_or(usual.absolute),
        }
    }
}

impl From<Object<SessionRuleIn>> for SessionRule {
    fn from(Object(SessionRuleIn { idle, absolute }): Object<SessionRuleIn>) -> Self {
        let usual = Self::default();
        Self { idle: idle.unwrap_or(usual.idle), absolute: absolute.unwrap_or(usual.absolute) }
    }
}

impl From<Object<PasswordPolicyIn>> for PasswordPolicy {
    fn from(Object(policy): Object<PasswordPolicyIn>) -> Self {
        let PasswordPolicyIn { min_length, max_length, refuse_common, refuse_context } = policy;
        let usual = Self::default();
        Self {
            min_length: min_length.unwrap_or(usual.min_length),
            max_length: max_length.unwrap_or(usual.max_length),
            refuse_common: refuse_common.unwrap_or(usual.refuse_common),
            refuse_context: refuse_context.unwrap_or(usual.refuse_context),
        }
    }
}

impl From<Object<SigningRuleIn>> for SigningRule {
    fn from(Object(SigningRuleIn { lead, rotate_days, longest_wait }): Object<SigningRuleIn>) -> Self {
        let usual = Self::default();
        Self {
            lead: lead.unwrap_or(usual.lead),
            rotate_days: rotate_days.unwrap_or(usual.rotate_days),
            longest_wait: longest_wait.unwrap_or(usual.longest_wait),
        }
    }
}

impl From<Object<NamedVerifierIn>> for NamedVerifier {
    fn from(Object(NamedVerifierIn { name, network, user_agent }): Object<NamedVerifierIn>) -> Self {
        Self { name, network, user_agent }
    }
}

impl From<Object<LoginThrottleIn>> for LoginThrottle {
    fn from(Object(throttle): Object<LoginThrottleIn>) -> Self {
        let LoginThrottleIn { failures, window, account, address, tenant } = throttle;
        let usual = Self::default();
        Self {
            failures: failures.unwrap_or(usual.failures),
            window: window.unwrap_or(usual.window),
            account: account.unwrap_or(usual.account),
            address: address.unwrap_or(usual.address),
            tenant: tenant.unwrap_or(usual.tenant),
        }
    }
}
