//! Who may do what now.
//!
//! ```text
//! a person holds    the scopes of their roles, and their own
//! a key holds       its scopes and those of its roles,
//!                   as far as its owner holds them now,          a person: what they hold
//!                                                                an application: what it was limited to, if it was
//!                   as far as the tenant lets keys hold them,
//!                   as far as they were asked for
//! ```
//!
//! Roles may name patterns: `memory:*`, `*:read`, `*:*`. A pattern never reaches the scopes of our own management
//! ([`MANAGEMENT`]): those are named, or held by the role [`TENANT_ADMIN`]. Nothing of this is kept: it is decided at each
//! exchange, refresh, verification and call.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use claviger_store::application::Application;
use claviger_store::role::{Role, Scope};
use claviger_store::user::User;

use crate::Refusal;
use crate::audit::Authority;
use crate::directory::{KeyEntry, TenantEntry};
use crate::scope::{MANAGEMENT, ScopeSet, is_scope, is_side};
use crate::standing::OwnerNow;

/// The role that every tenant has: all of its own management.
pub const TENANT_ADMIN: &str = "tenant-admin";
/// What a login was granted that was not asked for anything in particular: whatever the person holds.
pub const EVERYTHING: &str = "*";
/// Most scopes of a catalogue, and most roles of a tenant.
pub const MOST_NAMES: usize = 500;
/// Most scopes and patterns of one role.
pub(crate) const MOST_PATTERNS: usize = 200;

/// What a role grants: one scope, or all that fit.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    /// `resource:*`
    Resource(String),
    /// `*:action`
    Action(String),
    /// `*:*`
    All,
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            Some(("*", "*")) => Some(Self::All),
            Some((resource, "*")) if is_side(resource) => Some(Self::Resource(resource.to_owned())),
            Some(("*", action)) if is_side(action) => Some(Self::Action(action.to_owned())),
            _ => is_scope(text).then(|| Self::Exact(text.to_owned())),
        }
    }

    fn is_exact(&self) -> bool {
        matches!(self, Self::Exact(_))
    }

    fn covers(&self, scope: &str) -> bool {
        match self {
            Self::Exact(name) => name == scope,
            _ if MANAGEMENT.contains(&scope) => false,
            Self::Resource(wanted) => scope.split_once(':').is_some_and(|(resource, _)| resource == wanted),
            Self::Action(wanted) => scope.split_once(':').is_some_and(|(_, action)| action == wanted),
            Self::All => true,
        }
    }
}

/// A set of patterns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    /// Patterns that somebody writes into a role or a limit.
    pub(crate) fn granted(field: &'static str, texts: &[String]) -> Result<Self, Refusal> {
        if texts.len() > MOST_PATTERNS {
            return Err(Refusal::invalid(field, format!("are at most {MOST_PATTERNS} scopes and patterns")));
        }
        let parsed = texts.iter().map(|text| {
            Pattern::parse(text).ok_or_else(|| {
                Refusal::invalid(
                    field,
                    "are scopes, `resource:action` of letters, digits, `_`, `.` and `-`, or patterns with `*` on either side",
                )
            })
        });
        parsed.collect::<Result<_, _>>().map(Self)
    }

    /// What was kept. Already checked when it was granted; what cannot be read grants nothing.
    #[must_use]
    pub fn kept(texts: &[String]) -> Self {
        Self(texts.iter().filter_map(|text| Pattern::parse(text)).collect())
    }

    /// True when one of them grants the scope.
    #[must_use]
    pub fn covers(&self, scope: &str) -> bool {
        self.0.iter().any(|pattern| pattern.covers(scope))
    }

    fn exact(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|pattern| match pattern {
            Pattern::Exact(name) => Some(name.as_str()),
            _ => None,
        })
    }
}

/// What a tenant's names mean now.
#[derive(Debug, Default)]
pub struct Catalogue {
    scopes: BTreeSet<String>,
    roles: BTreeMap<String, Patterns>,
    /// Every management scope but those of the platform, for [`TENANT_ADMIN`].
    admin: Patterns,
    /// What keys may hold at most; `None` is no limit.
    ceiling: Option<Patterns>,
}

impl Catalogue {
    pub(crate) fn new(scopes: Vec<Scope>, roles: Vec<Role>, ceiling: Option<&[String]>, platform: bool) -> Self {
        Self {
            scopes: scopes.into_iter().map(|scope| scope.name).collect(),
            roles: roles.into_iter().map(|role| (role.name, Patterns::kept(&role.scopes))).collect(),
            admin: Patterns(admin_scopes(platform).map(|scope| Pattern::Exact(scope.to_owned())).collect()),
            ceiling: ceiling.map(Patterns::kept),
        }
    }

    /// Whether the tenant lets keys hold the scope.
    pub(crate) fn lets_keys_hold(&self, scope: &str) -> bool {
        self.ceiling.as_ref().is_none_or(|ceiling| ceiling.covers(scope))
    }

    /// What a role grants; nothing if it says nothing.
    fn role(&self, name: &str) -> Option<&Patterns> {
        match name {
            TENANT_ADMIN => Some(&self.admin),
            _ => self.roles.get(name),
        }
    }

    /// Whether the tenant has made the role.
    pub(crate) fn has_role(&self, name: &str) -> bool {
        self.roles.contains_key(name)
    }

    /// The roles that the tenant has made, in order.
    /// Names of all roles, in order.
    #[must_use]
    pub fn role_names(&self) -> Vec<&str> {
        self.roles.keys().map(String::as_str).collect()
    }

    pub(crate) fn roles_cover(&self, roles: &[String], scope: &str) -> bool {
        roles.iter().filter_map(|role| self.role(role)).any(|patterns| patterns.covers(scope))
    }

    /// Every scope that these roles and scopes come to.
    fn spelt_out(&self, roles: &[String], scopes: &[String]) -> ScopeSet {
        let roles: Vec<&Patterns> = roles.iter().filter_map(|role| self.role(role)).collect();
        let named = roles.iter().flat_map(|patterns| patterns.exact()).map(str::to_owned);
        let mut all: BTreeSet<String> = named.chain(scopes.iter().cloned()).collect();
        if roles.iter().any(|patterns| !patterns.0.iter().all(Pattern::is_exact)) {
            let fitting = self.scopes.iter().filter(|scope| roles.iter().any(|patterns| patterns.covers(scope)));
            all.extend(fitting.cloned());
        }
        all.into_iter().collect()
    }

    /// Resources with their actions, in order.
    #[must_use]
    pub fn by_resource(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut resources: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (resource, action) in self.scopes.iter().filter_map(|scope| scope.split_once(':')) {
            resources.entry(resource).or_default().push(action);
        }
        resources
    }

    /// Every scope, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.scopes.iter().map(String::as_str)
    }

    /// Whether the name is in the catalogue, or is one of our own management.
    pub(crate) fn knows(&self, scope: &str) -> bool {
        self.scopes.contains(scope) || MANAGEMENT.contains(&scope)
    }

    /// How many scopes it has.
    pub(crate) fn len(&self) -> usize {
        self.scopes.len()
    }
}

/// What [`TENANT_ADMIN`] holds. Managing tenants belongs to the platform's tenant alone.
pub fn admin_scopes(platform: bool) -> impl Iterator<Item = &'static str> {
    MANAGEMENT.into_iter().filter(move |scope| platform || !scope.starts_with("tenants:"))
}

/// What a person holds now.
#[must_use]
pub fn of_person(tenant: &TenantEntry, user: &User) -> ScopeSet {
    tenant.catalogue.spelt_out(&user.roles, &user.scopes)
}

/// What a login may do now: what was granted to it, as far as the person still holds it.
#[must_use]
pub fn of_login(tenant: &TenantEntry, user: &User, granted: &[String]) -> ScopeSet {
    let held = of_person(tenant, user);
    match granted {
        [all] if all == EVERYTHING => held,
        _ => ScopeSet::kept(granted).intersection(&held),
    }
}

/// What a key may hold at most because of its owner.
pub(crate) enum Limit<'a> {
    /// What the person holds.
    Person(&'a User),
    /// What the application was limited to.
    Application { own: Patterns, roles: &'a [String] },
}

impl<'a> Limit<'a> {
    /// `None` where the owner sets no limit.
    fn of(owner: &'a OwnerNow) -> Option<Self> {
        match owner {
            OwnerNow::User(user) => Some(Self::Person(user)),
            OwnerNow::Application(application) => Self::of_application(application),
        }
    }

    /// `None` where the application sets no limit.
    pub(crate) fn of_application(application: &'a Application) -> Option<Self> {
        limit_of(application).map(|own| Self::Application { own: Patterns::kept(own), roles: &application.roles })
    }

    pub(crate) fn allows(&self, catalogue: &Catalogue, scope: &str) -> bool {
        match self {
            Self::Person(user) => user.scopes.iter().any(|held| held == scope) || catalogue.roles_cover(&user.roles, scope),
            Self::Application { own, roles } => own.covers(scope) || catalogue.roles_cover(roles, scope),
        }
    }
}

/// What an application's keys may hold by its own scopes; `None` where it sets no limit.
pub(crate) fn limit_of(application: &Application) -> Option<&[String]> {
    match &application.scopes {
        Some(scopes) => Some(scopes),
        None if application.roles.is_empty() => None,
        None => Some(&[]),
    }
}

/// What a key holds now.
#[must_use]
pub fn of_key(tenant: &TenantEntry, owner: &OwnerNow, key: &KeyEntry) -> Arc<ScopeSet> {
    let limit = Limit::of(owner);
    let catalogue = &tenant.catalogue;
    if limit.is_none() && catalogue.ceiling.is_none() && key.key.roles.is_empty() {
        return key.scopes.clone();
    }
    let given = match key.key.roles.is_empty() {
        true => Cow::Borrowed(&*key.scopes),
        false => Cow::Owned(catalogue.spelt_out(&key.key.roles, &key.key.scopes)),
    };
    let allowed =
        |scope: &&str| limit.as_ref().is_none_or(|limit| limit.allows(catalogue, scope)) && catalogue.lets_keys_hold(scope);
    Arc::new(given.iter().filter(allowed).map(str::to_owned).collect())
}

impl Authority {
    /// Whether this actor may give the scope to somebody. Nobody gives what they do not hold; but who may write roles may
    /// give whatever the tenant's own services understand, since they say what that is.
    fn may_give(&self, scope: &str) -> bool {
        match self {
            Self::Operator => true,
            Self::Scopes(held) => held.contains(scope) || (!MANAGEMENT.contains(&scope) && held.contains("roles:write")),
        }
    }

    /// Refuses to give scopes that the actor may not give.
    pub(crate) fn check_gives<'a>(&self, scopes: impl IntoIterator<Item = &'a str>) -> Result<(), Refusal> {
        match scopes.into_iter().find(|scope| !self.may_give(scope)) {
            Some(missing) => Err(Refusal::InsufficientScope(missing.to_owned())),
            None => Ok(()),
        }
    }

    /// Refuses to give patterns that the actor may not give: those reach whatever will be in the catalogue.
    pub(crate) fn check_gives_patterns(&self, patterns: &Patterns) -> Result<(), Refusal> {
        self.check_gives(patterns.exact())?;
        match (self, patterns.0.iter().all(Pattern::is_exact)) {
            (Self::Scopes(held), false) if !held.contains("roles:write") => Err(Refusal::InsufficientScope("roles:write".into())),
            _ => Ok(()),
        }
    }

    /// Refuses to give roles that hold what the actor may not give. A name that no role of the tenant has grants nothing
    /// here: it is a word in tokens.
    pub(crate) fn check_gives_roles<S: AsRef<str>>(&self, catalogue: &Catalogue, roles: &[S]) -> Result<(), Refusal> {
        roles.iter().filter_map(|role| catalogue.role(role.as_ref())).try_for_each(|patterns| self.check_gives_patterns(patterns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn patterns(list: &[&str]) -> Patterns {
        Patterns::granted("scopes", &texts(list)).unwrap()
    }

    fn catalogue(scopes: &[&str], roles: &[(&str, &[&str])]) -> Catalogue {
        Catalogue {
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            roles: roles.iter().map(|(name, list)| ((*name).to_owned(), patterns(list))).collect(),
            admin: Patterns(admin_scopes(false).map(|scope| Pattern::Exact(scope.to_owned())).collect()),
            ceiling: None,
        }
    }

    #[test]
    fn patterns_cover_what_they_say() {
        assert!(patterns(&["memory:*"]).covers("memory:read"));
        assert!(!patterns(&["memory:*"]).covers("memory.x:read"));
        assert!(patterns(&["*:read"]).covers("memory:read"));
        assert!(!patterns(&["*:read"]).covers("memory:READ"));
        assert!(patterns(&["*:*"]).covers("a:b"));
        assert!(!patterns(&["memory:read"]).covers("memory:write"));
        assert!(!patterns(&[]).covers("a:b"));
    }

    #[test]
    fn p27_a_pattern_never_reaches_management() {
        for scope in MANAGEMENT {
            for pattern in ["*:*", "*:read", "*:write", "keys:*", "users:*", "tenants:*"] {
                assert!(!patterns(&[pattern]).covers(scope), "{pattern} {scope}");
            }
            assert!(patterns(&[scope]).covers(scope));
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["*", "a", "a:", ":a", "a*:b", "a:b*", "**:a", "a:b:c", "a:*:c", "", " a:b", "ä:b"] {
            assert!(Patterns::granted("scopes", &texts(&[bad])).is_err(), "{bad}");
        }
        assert_eq!(Patterns::kept(&texts(&["*", "a:b"])), patterns(&["a:b"]));
    }

    #[test]
    fn roles_are_spelt_out_by_the_catalogue() {
        let catalogue = catalogue(&["m:read", "m:write", "n:read"], &[("reader", &["*:read"]), ("one", &["x:y"])]);
        let all = |roles: &[&str], scopes: &[&str]| catalogue.spelt_out(&texts(roles), &texts(scopes)).to_string();
        assert_eq!(all(&["reader"], &[]), "m:read n:read");
        assert_eq!(all(&["one"], &["z:z"]), "x:y z:z");
        assert_eq!(all(&["nobody-said-what"], &[]), "");
        assert_eq!(
            all(&[TENANT_ADMIN], &[]),
            admin_scopes(false).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
        );
        assert!(!all(&[TENANT_ADMIN], &[]).contains("tenants:"));
    }

    #[test]
    fn nobody_gives_what_they_do_not_hold() {
        let held = |scopes: &[&str]| Authority::Scopes(ScopeSet::granted(scopes).unwrap());
        let catalogue = catalogue(&[], &[("boss", &["users:write"]), ("wide", &["*:*"]), ("small", &["a:b"])]);
        assert!(held(&["keys:write", "a:b"]).check_gives(["a:b"]).is_ok());
        assert!(held(&["keys:write"]).check_gives(["a:b"]).is_err());
        assert!(held(&["keys:write", "roles:write"]).check_gives(["a:b"]).is_ok());
        assert!(held(&["keys:write", "roles:write"]).check_gives(["users:write"]).is_err());
        assert!(held(&["a:b"]).check_gives_roles(&catalogue, &["small", "a-plain-word"]).is_ok());
        assert!(held(&["a:b"]).check_gives_roles(&catalogue, &["wide"]).is_err());
        assert!(held(&["roles:write"]).check_gives_roles(&catalogue, &["wide"]).is_ok());
        assert!(held(&["roles:write"]).check_gives_roles(&catalogue, &["boss"]).is_err());
        assert!(held(&["roles:write"]).check_gives_roles(&catalogue, &[TENANT_ADMIN]).is_err());
        assert!(Authority::Operator.check_gives_roles(&catalogue, &[TENANT_ADMIN]).is_ok());
    }
}
