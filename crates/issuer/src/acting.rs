//! Acting for another: a key that says whom it acts for, and a second key that lets somebody in.
//!
//! Whoever acts is never lost: token, audit entry and log name both. Nobody acts for somebody who holds more than they do, what
//! acts for another manages nothing, and nothing that acts for another lets a third act.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use claviger_store::id::{ApplicationId, KeyId, Owner, UserId};
use claviger_verifier::Actor;
use uuid::Uuid;

use crate::caller::Principal;
use crate::directory::TenantEntry;
use crate::rights;
use crate::scope::{MANAGEMENT, ScopeSet};
use crate::standing::{OwnerNow, standing};
use crate::token_exchange::USERS_IMPERSONATE;
use crate::username::Username;
use crate::{Failure, Issuer, Refusal};

/// Most names that a key lists.
const MOST_NAMES: usize = 200;

/// Who acts for a principal (RFC 8693 §4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acting {
    /// `act.sub`.
    pub subject: String,
    /// As the audit trail writes an actor.
    pub name: String,
    /// The login name, or the application's name.
    pub shown: String,
}

/// What a key says of acting for others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActingRule {
    /// Whom it may say that it acts for: `*`, a name, or the beginning of names with `*` behind it.
    pub act_as: Option<Vec<String>>,
    /// Whom it acts for when nobody is named.
    pub act_as_default: Option<String>,
    /// Who may act for its owner with it, by login name.
    pub agents: Option<Vec<String>>,
}

/// A name that a resource server may hand on: it ends up in logs and headers.
pub(crate) fn is_acted_for(name: &str) -> bool {
    (1..=128).contains(&name.chars().count()) && !name.chars().any(|c| c.is_control() || c.is_whitespace() || c == '*')
}

/// Whether a key's list lets it act for that name.
#[must_use]
pub fn may_act_as(list: &[String], name: &str) -> bool {
    list.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    })
}

/// What may be done in another's name: nothing of the tenant's management.
pub(crate) fn without_management(scopes: &ScopeSet) -> ScopeSet {
    scopes.iter().filter(|scope| !MANAGEMENT.contains(scope)).map(str::to_owned).collect()
}

/// Nobody acts for somebody who holds more: neither of what is lent, nor of the management that the person holds.
pub(crate) fn holds_more(actor: &ScopeSet, target: &ScopeSet, lent: &ScopeSet) -> Option<String> {
    let managed = target.iter().filter(|scope| MANAGEMENT.contains(scope));
    managed.chain(lent.iter()).find(|scope| !actor.contains(scope)).map(str::to_owned)
}

impl ActingRule {
    /// Refuses what cannot be kept.
    pub(crate) fn check(&self, owner: Owner, scopes: &[String], refresh: bool) -> Result<(), Refusal> {
        let Self { act_as, act_as_default, agents } = self;
        if let Some(list) = act_as {
            let fits = |pattern: &String| match pattern.strip_suffix('*') {
                Some("") => true,
                Some(prefix) => is_acted_for(prefix),
                None => is_acted_for(pattern),
            };
            if list.len() > MOST_NAMES || !list.iter().all(fits) {
                let problem = format!("lists at most {MOST_NAMES} names, beginnings of names such as `svc-*`, or `*`");
                return Err(Refusal::invalid("act_as", problem));
            }
        }
        if let Some(name) = act_as_default
            && !act_as.as_ref().is_some_and(|list| is_acted_for(name) && may_act_as(list, name))
        {
            return Err(Refusal::invalid("act_as_default", "is a name that `act_as` allows"));
        }
        let Some(agents) = agents else { return Ok(()) };
        if agents.is_empty() || agents.len() > MOST_NAMES || !agents.iter().all(|name| Username::fold(name).is_some()) {
            return Err(Refusal::invalid("agents", format!("lists 1 to {MOST_NAMES} login names")));
        }
        if !matches!(owner, Owner::User(_)) {
            return Err(Refusal::invalid("agents", "go with a key of a person, for whom they act"));
        }
        if act_as.is_some() || refresh {
            return Err(Refusal::invalid("agents", "go neither with `act_as` nor with `refresh`"));
        }
        if let Some(scope) = scopes.iter().find(|scope| MANAGEMENT.contains(&scope.as_str())) {
            return Err(Refusal::invalid("agents", format!("go with no scope of the tenant's management, such as `{scope}`")));
        }
        Ok(())
    }

    /// Whether that person may act with the key.
    pub(crate) fn admits(agents: &[String], username: &str) -> bool {
        let folded = Username::fold(username);
        folded.is_some() && agents.iter().any(|agent| Username::fold(agent) == folded)
    }
}

impl Issuer {
    /// Whoever a token of this principal says acts, if they may still act, and what of these scopes is still theirs to use: asked
    /// of all that the token stands on, each time. With a key that was lent, these are its agents of now, as far as they hold it
    /// themselves.
    pub(crate) async fn acting_now(
        &self,
        tenant: &Arc<TenantEntry>,
        actor: &Actor,
        principal: &Principal,
        scopes: &ScopeSet,
        now: DateTime<Utc>,
    ) -> Result<Option<(Acting, ScopeSet)>, Failure> {
        let Ok(id) = actor.subject.parse() else { return Ok(None) };
        let tenant_id = tenant.tenant.id;
        let owner = match self.directory.person(tenant_id, UserId(id)).await? {
            Some(owner) => Some(owner),
            None => self.directory.find_owner(tenant_id, Owner::Application(ApplicationId(id))).await?,
        };
        let Some(owner) = owner else { return Ok(None) };
        if standing(tenant, &owner, None, None, now).is_err() {
            return Ok(None);
        }
        let Some(ground) = Box::pin(self.ground_now(tenant, actor, id, now)).await? else { return Ok(None) };
        let mut scopes = without_management(scopes);
        match actor.right.as_deref() {
            None => {}
            Some(USERS_IMPERSONATE) if !tenant.settings.impersonation => return Ok(None),
            Some(right) if !ground.right.contains(right) => return Ok(None),
            // Nobody acts for somebody who holds more, now neither.
            Some(USERS_IMPERSONATE) => scopes = scopes.intersection(&ground.actor),
            Some(_) => {}
        }
        if let Principal::Key(key) = principal
            && let Some(agents) = &key.entry.key.agents
        {
            match &*owner {
                OwnerNow::User(user) if ActingRule::admits(agents, &user.username) => {
                    scopes = scopes.intersection(&rights::of_person(tenant, user));
                }
                _ => return Ok(None),
            }
        }
        let (name, shown) = match &*owner {
            OwnerNow::User(user) => (format!("user:{}", user.id), user.username.clone()),
            OwnerNow::Application(application) => (format!("application:{}", application.id), application.name.clone()),
        };
        Ok(Some((Acting { subject: actor.subject.clone(), name, shown }, scopes)))
    }

    /// What the actor holds now, and whoever has the right by which it acts; `None` when a key or login that the token stands on
    /// counts no more.
    async fn ground_now(
        &self,
        tenant: &Arc<TenantEntry>,
        actor: &Actor,
        id: Uuid,
        now: DateTime<Utc>,
    ) -> Result<Option<Ground>, Failure> {
        let Actor { subject: _, key_id, session, client_key_id, right } = actor;
        let (Ok(key), Ok(client)) = (key_of(key_id.as_deref()), key_of(client_key_id.as_deref())) else { return Ok(None) };
        let Ok(family) = session.as_deref().map(str::parse).transpose() else { return Ok(None) };
        let held = |found: Result<_, Failure>| match found {
            Ok((principal, _)) => Ok(Some(Principal::scopes(&principal))),
            Err(Failure::Refusal(_)) => Ok(None),
            Err(failure) => Err(failure),
        };
        // An application proves itself with a key: without one, there is nothing to ask about.
        if key.is_none() && client.is_none() && family.is_none() && right.is_none() {
            return Ok(Some(Ground::default()));
        }
        let found = self.principal_now(tenant, key.as_ref(), Some(UserId(id)), family, now).await;
        let Some(of_actor) = held(found)? else { return Ok(None) };
        let of_right = match client {
            Some(client) => match held(self.principal_now(tenant, Some(&client), None, None, now).await)? {
                // A client exchanges by a right of its own; whoever acts for people does it by theirs.
                Some(of_client) if right.as_deref() != Some(USERS_IMPERSONATE) => of_client,
                Some(_) => of_actor.clone(),
                None => return Ok(None),
            },
            None => of_actor.clone(),
        };
        Ok(Some(Ground { actor: of_actor, right: of_right }))
    }
}

/// What whoever acts holds now, and whoever has the right by which they act.
#[derive(Default)]
struct Ground {
    actor: ScopeSet,
    right: ScopeSet,
}

/// A key's id in a token, if there is one. Fails on what is none.
fn key_of(text: Option<&str>) -> Result<Option<KeyId>, ()> {
    text.map(|text| KeyId::parse(text).ok_or(())).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_key_acts_for_whom_its_list_names() {
        assert!(may_act_as(&list(&["*"]), "Caterpillar"));
        assert!(may_act_as(&list(&["alice", "svc-*"]), "svc-7"));
        assert!(may_act_as(&list(&["alice"]), "alice"));
        assert!(!may_act_as(&list(&["alice", "svc-*"]), "alice2"));
        assert!(!may_act_as(&list(&["alice"]), "Alice"));
        assert!(!may_act_as(&[], "alice"));
    }

    #[test]
    fn p33_nobody_acts_for_somebody_who_holds_more() {
        let set = |scopes: &[&str]| ScopeSet::granted(scopes).unwrap();
        let actor = set(&["a:b", "users:impersonate"]);
        assert_eq!(holds_more(&actor, &set(&["a:b", "c:d"]), &set(&["a:b"])), None, "what is not lent is not used");
        assert_eq!(holds_more(&actor, &set(&["a:b", "c:d"]), &set(&["c:d"])), Some("c:d".into()));
        assert_eq!(holds_more(&actor, &set(&["a:b", "keys:write"]), &set(&["a:b"])), Some("keys:write".into()));
    }

    #[test]
    fn rules_that_cannot_be_kept_are_refused() {
        let user = Owner::User(UserId(uuid::Uuid::nil()));
        let application = Owner::Application(ApplicationId(uuid::Uuid::nil()));
        let agents = |names: &[&str]| ActingRule { agents: Some(list(names)), ..ActingRule::default() };
        assert!(agents(&["admin"]).check(user, &list(&["a:b"]), false).is_ok());
        assert!(agents(&[]).check(user, &[], false).is_err());
        assert!(agents(&["admin"]).check(application, &[], false).is_err());
        assert!(agents(&["admin"]).check(user, &[], true).is_err());
        assert!(agents(&["admin"]).check(user, &list(&["keys:write"]), false).is_err());
        let acts = |names: &[&str], default: Option<&str>| ActingRule {
            act_as: Some(list(names)),
            act_as_default: default.map(str::to_owned),
            agents: None,
        };
        assert!(acts(&["*"], Some("user")).check(application, &[], false).is_ok());
        assert!(acts(&["alice"], Some("user")).check(application, &[], false).is_err());
        assert!(acts(&["a b"], None).check(application, &[], false).is_err());
        assert!(acts(&["a*b"], None).check(application, &[], false).is_err());
    }
}
