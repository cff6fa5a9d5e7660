//! Howler's own rules: its keys, who somebody is to it, and where its logins through a provider come back.
//!
//! A Howler key is a key that a person owns, by its name. Its letters R, W and E stand for scopes, as the tenant's usual audience
//! says; I makes it one that lets others act for its owner, and is good for nothing else.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use claviger_store::api_key::ApiKey;
use claviger_store::id::{Owner, TenantId, UserId};
use claviger_store::token_family::{EndedBy, Principal};
use claviger_store::user::User;
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use crate::acting::ActingRule;
use crate::attribute::Attributes;
use crate::audit::{Actor, Authority, append};
use crate::directory::TenantEntry;
use crate::key::KeyOrder;
use crate::limits::{KeyLimits, KeyRule};
use crate::settings::RequestInfo;
use crate::username::Username;
use crate::verify::{Allowed, Finding};
use crate::{Failure, Issuer, Refusal};

/// The letter of keys that let others act for their owner.
pub const LENT_LETTER: &str = "I";
/// What whoever makes such a key holds.
pub const LENT_SCOPE: &str = "howler:impersonate";
/// The letter of what a whole login may.
const EXTENDED: &str = "E";
/// How the names of such keys begin.
const LENT_NAME: &str = "impersonate_";

/// Whether a dialect tells keys that are not there, or have ended, from wrong secrets.
pub(crate) fn tells_keys_apart(tenant: &TenantEntry) -> bool {
    tenant.settings.legacy_error_text && tenant.settings.dialects.howler.is_some()
}

/// A name that a key may have: 1 to 64 letters, digits, `_` and `-`.
#[must_use]
pub fn is_key_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// A key that somebody wants for themselves.
pub struct KeyWish {
    /// Its name.
    pub name: String,
    /// Its letters.
    pub letters: Vec<String>,
    /// Who may act for its owner with it, by login name.
    pub agents: Option<Vec<String>>,
    /// When it ends; `None` is as the tenant's rule says.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it ends at the latest, besides what the tenant's rule says.
    pub no_later_than: Option<DateTime<Utc>>,
}

impl KeyWish {
    /// Refuses what no key may be, in words for whoever wishes.
    fn check(&self, rule: &KeyRule, now: DateTime<Utc>) -> Result<(), String> {
        let Self { name, letters, agents, expires_at, no_later_than } = self;
        if !is_key_name(name) {
            return Err("The name of an API key is 1 to 64 letters, digits, `_` and `-`.".into());
        }
        let has = |letter: &str| letters.iter().any(|one| one == letter);
        match (has(LENT_LETTER), agents) {
            (true, _) if has(EXTENDED) => return Err("An impersonation key cannot have the privilege E.".into()),
            (true, None) => return Err("An impersonation key needs agents: the names of those who may use it.".into()),
            (false, Some(_)) => return Err("Only an impersonation key, which has the privilege I, has agents.".into()),
            _ => {}
        }
        if letters.iter().all(|letter| letter == LENT_LETTER) {
            return Err("An API key has at least one of the privileges R, W and E.".into());
        }
        let by_rule = rule.max_days.map(|days| now + TimeDelta::days(days.into()));
        let latest = by_rule.into_iter().chain(*no_later_than).min();
        match (expires_at, latest) {
            (None, Some(_)) => Err("API keys must have an expiry date.".into()),
            (Some(end), Some(latest)) if *end > latest => {
                Err(format!("Expiry date must be before {}.", latest.to_rfc3339_opts(SecondsFormat::Secs, true)))
            }
            (Some(end), _) if *end <= now => Err("Expiry date must be in the future.".into()),
            _ => Ok(()),
        }
    }

    /// As the key is called.
    fn full_name(&self) -> String {
        match self.agents {
            Some(_) => format!("{LENT_NAME}{}", self.name),
            None => self.name.clone(),
        }
    }
}

/// Somebody as Howler knows them.
pub struct Known {
    /// The person.
    pub user: User,
    /// What is known of them besides: what was set here, and else what a provider said last.
    pub attributes: Attributes,
    /// Their keys.
    pub keys: Vec<ApiKey>,
}

/// What a provider said of somebody, as attributes.
fn said(profile: &Value) -> Attributes {
    let mut all = profile.get("attributes").and_then(Value::as_object).cloned().unwrap_or_default();
    for name in ["name", "groups"] {
        if let Some(value) = profile.get(name).filter(|value| !value.is_null()) {
            all.insert(name.to_owned(), value.clone());
        }
    }
    all
}

impl Allowed {
    /// The person who calls, or for whom somebody does.
    fn user(&self) -> Result<UserId, Refusal> {
        self.username.as_ref().and_then(|_| self.subject.parse().ok()).ok_or(Refusal::NotAPerson)
    }

    /// The person who calls, for what nobody does in another's name.
    fn themselves(&self, request: &RequestInfo) -> Result<(UserId, Actor), Refusal> {
        if self.actor.is_some() {
            return Err(Refusal::ActingForAnother);
        }
        let user = self.user()?;
        let subject = Owner::User(user).to_string();
        let name = self.key.as_ref().map_or_else(|| subject.clone(), |key| format!("key:{key}"));
        let authority = Authority::Scopes(self.scopes.clone());
        Ok((user, Actor { name, subject, authority, request: request.clone() }))
    }
}

impl Issuer {
    /// Who somebody is.
    pub async fn known(&self, tenant: TenantId, allowed: &Allowed) -> Result<Known, Failure> {
        let id = allowed.user()?;
        let user = self.find_user(tenant, id).await?;
        let mut attributes = Map::new();
        for link in self.links_of(tenant, id).await? {
            attributes.extend(said(&link.profile));
        }
        attributes.extend(user.attributes.clone());
        let keys = self.list_keys(tenant, Some(Owner::User(id)), None, 200).await?;
        Ok(Known { user, attributes, keys })
    }

    /// Makes a key for whoever asks, no more than they hold: a key makes one that may be used no more freely, and ends with it.
    /// Its full name and its secret, or why not.
    pub async fn make_named_key(
        &self,
        tenant: &TenantEntry,
        allowed: &Allowed,
        mut wish: KeyWish,
        request: &RequestInfo,
    ) -> Finding<(String, SecretString), String> {
        let now = self.clock.now();
        let (user, actor) = allowed.themselves(request)?;
        let mut limits = KeyLimits::default();
        if let Some(id) = &allowed.key {
            let maker = self.directory.key(id).await?.ok_or(Refusal::NotFound)?;
            limits = maker.limits.clone();
            if let Some(end) = maker.key.expires_at {
                wish.no_later_than = Some(wish.no_later_than.map_or(end, |other| other.min(end)));
                wish.expires_at = wish.expires_at.or(wish.no_later_than);
            }
        }
        let Ok(mut scopes) = tenant.scopes_of_privileges(&wish.letters) else {
            return Ok(Err("There is no such privilege: a key has some of R, W, E and I.".into()));
        };
        if let Err(why) = wish.check(&tenant.settings.keys(), now) {
            return Ok(Err(why));
        }
        if scopes.iter().any(|scope| scope == LENT_SCOPE) && !allowed.scopes.contains(LENT_SCOPE) {
            return Err(Refusal::InsufficientScope(LENT_SCOPE.into()).into());
        }
        // That others may act is said by who may.
        scopes.retain(|scope| scope != LENT_SCOPE);
        if scopes.iter().any(|scope| !tenant.catalogue.lets_keys_hold(scope)) {
            return Ok(Err("One of these privileges is disabled for API keys.".into()));
        }
        let name = wish.full_name();
        let KeyWish { name: short, letters: _, agents, expires_at, no_later_than: _ } = wish;
        let order = KeyOrder {
            owner: Owner::User(user),
            name: name.clone(),
            scopes,
            roles: Vec::new(),
            acting: ActingRule { agents, ..ActingRule::default() },
            token_lifetime: None,
            refresh: false,
            expires_at: expires_at.map(Some),
            limits,
            import: None,
        };
        let folded = allowed.username.as_deref().and_then(Username::fold).ok_or(Refusal::NotAPerson)?;
        let id = tenant.tenant.id;
        let mut tx = self.store.begin_in(id).await?;
        let mut scoped = tx.tenant(id).await?;
        // Of two at the same time, the second sees the first one's name.
        if !scoped.lock_user(user).await? {
            return Err(Refusal::NotFound.into());
        }
        for taken in [&short, &name] {
            if !scoped.keys_named(&folded, taken, 1).await?.is_empty() {
                return Ok(Err("There is an API key of this name already.".into()));
            }
        }
        let mut deeds = Vec::new();
        let made = match self.create_key_in(&mut scoped, tenant, &actor, order, now, &mut deeds).await {
            Ok(made) => made,
            Err(Failure::Refusal(Refusal::Invalid { field, problem })) => return Ok(Err(format!("`{field}` {problem}."))),
            Err(failure) => return Err(failure),
        };
        append(&mut scoped, id, &self.chain_key, &self.random, deeds).await?;
        tx.commit().await?;
        self.forget_rights(id, Owner::User(user));
        Ok(Ok((name, made.secret)))
    }

    /// Revokes a key of whoever asks, by its name.
    pub async fn revoke_named_key(
        &self,
        tenant: &TenantEntry,
        allowed: &Allowed,
        name: &str,
        request: &RequestInfo,
    ) -> Result<(), Failure> {
        let (_, actor) = allowed.themselves(request)?;
        let folded = allowed.username.as_deref().and_then(Username::fold).ok_or(Refusal::NotAPerson)?;
        let id = tenant.tenant.id;
        let now = self.clock.now();
        let mut tx = self.store.begin_in(id).await?;
        let mut scoped = tx.tenant(id).await?;
        // Made elsewhere, several may have one name.
        let (mut revoked, mut families, mut deeds) = (Vec::new(), Vec::new(), Vec::new());
        for key in scoped.keys_named(&folded, name, i64::MAX).await? {
            if scoped.revoke_key(&key, now, &actor.name).await? {
                families.extend(scoped.end_families(&Principal::Key(key.clone()), now, &actor.name, EndedBy::Key).await?);
                deeds.push(actor.did("key.revoke", format!("key:{key}"), json!({ "name": name }), now));
                revoked.push(key);
            }
        }
        if revoked.is_empty() {
            return Err(Refusal::NotFound.into());
        }
        append(&mut scoped, id, &self.chain_key, &self.random, deeds).await?;
        self.commit_logins(tx, id, None, &families).await?;
        for key in &revoked {
            self.forget("api_keys", id, key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(letters: &[&str]) -> KeyWish {
        let letters = letters.iter().map(|letter| (*letter).to_owned()).collect();
        KeyWish { name: "ci".into(), letters, agents: None, expires_at: None, no_later_than: None }
    }

    #[test]
    fn letters_and_agents_go_together() {
        let now = DateTime::UNIX_EPOCH;
        let fits = |letters: &[&str], agents: Option<&[&str]>| {
            let agents = agents.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            KeyWish { agents, ..wish(letters) }.check(&KeyRule::default(), now).is_ok()
        };
        assert!(fits(&["R"], None) && fits(&["R", "W", "E"], None) && fits(&["R", "I"], Some(&["admin"])));
        assert!(!fits(&[], None) && !fits(&["I"], Some(&["admin"])), "it could do nothing");
        assert!(!fits(&["R", "I"], None), "nobody could use it");
        assert!(!fits(&["E", "I"], Some(&["admin"])) && !fits(&["R"], Some(&["admin"])));
    }

    #[test]
    fn names_and_ends() {
        let now = DateTime::UNIX_EPOCH;
        for name in ["", "a:b", "a b", "a/b", &"x".repeat(65)] {
            assert!(KeyWish { name: name.into(), ..wish(&["R"]) }.check(&KeyRule::default(), now).is_err(), "{name}");
        }
        let rule = KeyRule { max_days: Some(180), ..KeyRule::default() };
        let ending = |days: Option<i64>| {
            KeyWish { expires_at: days.map(|days| now + TimeDelta::days(days)), ..wish(&["R"]) }.check(&rule, now)
        };
        assert_eq!(ending(Some(1)), Ok(()));
        assert_eq!(ending(None), Err("API keys must have an expiry date.".into()));
        assert_eq!(ending(Some(190)), Err("Expiry date must be before 1970-06-30T00:00:00Z.".into()));
        assert_eq!(ending(Some(-1)), Err("Expiry date must be in the future.".into()));
        let hour = KeyWish { no_later_than: Some(now + TimeDelta::hours(1)), ..wish(&["R"]) };
        assert_eq!(hour.check(&KeyRule::default(), now), Err("API keys must have an expiry date.".into()));
        let day = KeyWish { expires_at: Some(now + TimeDelta::days(1)), ..hour };
        assert_eq!(day.check(&rule, now), Err("Expiry date must be before 1970-01-01T01:00:00Z.".into()));
        assert_eq!(KeyWish { agents: Some(vec![]), ..wish(&["R"]) }.full_name(), "impersonate_ci");
    }

    #[test]
    fn what_a_provider_said_is_read_as_attributes() {
        let profile = serde_json::json!({
            "name": "Ada", "username": "ada", "email": null, "groups": ["staff"], "attributes": { "classification": "TLP:W" }
        });
        let read = serde_json::json!({ "name": "Ada", "groups": ["staff"], "classification": "TLP:W" });
        assert_eq!(Value::Object(said(&profile)), read);
    }
}
