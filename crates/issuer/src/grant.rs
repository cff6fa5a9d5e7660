//! Scopes and roles are given: to people, to applications, to keys. Nobody gives what they do not hold.

use chrono::{DateTime, Utc};
use claviger_store::TenantTx;
use claviger_store::id::Owner;
use claviger_store::user::User;
use serde_json::json;

use crate::audit::{Actor, Authority, Draft};
use crate::directory::TenantEntry;
use crate::rights::{Patterns, limit_of, of_person};
use crate::role::{checked_roles, enter};
use crate::scope::ScopeSet;
use crate::{Failure, Refusal};

/// What a key is to hold.
pub(crate) struct KeyGrant<'a> {
    pub(crate) owner: Owner,
    pub(crate) scopes: &'a ScopeSet,
    pub(crate) roles: &'a [String],
}

/// What a person is to hold beside what they hold already.
pub(crate) async fn to_person(
    tx: &mut TenantTx<'_>,
    tenant: &TenantEntry,
    actor: &Actor,
    before: (&[String], &[String]),
    roles: &[String],
    scopes: &[String],
    now: DateTime<Utc>,
) -> Result<(), Failure> {
    let (roles_before, scopes_before) = before;
    let new_roles: Vec<&String> = roles.iter().filter(|role| !roles_before.contains(role)).collect();
    let new_scopes = || scopes.iter().filter(|scope| !scopes_before.contains(scope)).map(String::as_str);
    actor.authority.check_gives_roles(&tenant.catalogue, &new_roles)?;
    actor.authority.check_gives(new_scopes())?;
    enter(tx, tenant, new_scopes(), now).await?;
    Ok(())
}

/// Scopes that a person is to hold beside those of their roles, in order.
pub(crate) fn checked_scopes(scopes: &[String]) -> Result<Vec<String>, Refusal> {
    ScopeSet::granted(scopes).map(|scopes| scopes.to_vec())
}

/// What an application's keys are to hold at most.
pub(crate) async fn to_application(
    tx: &mut TenantTx<'_>,
    tenant: &TenantEntry,
    actor: &Actor,
    scopes: Option<&[String]>,
    roles: &[String],
    now: DateTime<Utc>,
) -> Result<Vec<String>, Failure> {
    let roles = checked_roles(roles)?;
    let limit = Patterns::granted("scopes", scopes.unwrap_or_default())?;
    if let Authority::Scopes(held) = &actor.authority
        && !held.contains("roles:write")
    {
        return Err(Refusal::InsufficientScope("roles:write".into()).into());
    }
    actor.authority.check_gives_patterns(&limit)?;
    actor.authority.check_gives_roles(&tenant.catalogue, &roles)?;
    enter(tx, tenant, scopes.unwrap_or_default().iter().map(String::as_str), now).await?;
    Ok(roles)
}

/// A key is given scopes and roles. What its owner lacks is a mistake, or, where the owner is a person and the actor cares for
/// people, is given to that person too: a key never does what its owner may not.
pub(crate) async fn to_key(
    tx: &mut TenantTx<'_>,
    tenant: &TenantEntry,
    actor: &Actor,
    grant: &KeyGrant<'_>,
    now: DateTime<Utc>,
) -> Result<Vec<Draft>, Failure> {
    let KeyGrant { owner, scopes, roles } = grant;
    actor.authority.check_gives(scopes.iter())?;
    actor.authority.check_gives_roles(&tenant.catalogue, roles)?;
    if let Some(ceiling) = tenant.settings.key_scopes.as_deref().map(Patterns::kept)
        && let Some(beyond) = scopes.iter().find(|scope| !ceiling.covers(scope))
    {
        let problem = format!("name `{beyond}`, which this tenant lets no key hold (its setting `key_scopes`)");
        return Err(Refusal::invalid("scopes", problem).into());
    }
    let mut deeds = Vec::new();
    match *owner {
        Owner::Application(id) => {
            let application = tx.application(id).await?.ok_or(Refusal::NotFound)?;
            if let Some(limit) = limit_of(&application).map(Patterns::kept)
                && let Some(beyond) =
                    scopes.iter().find(|scope| !limit.covers(scope) && !tenant.catalogue.roles_cover(&application.roles, scope))
            {
                let problem = format!("name `{beyond}`, which is more than its application may hold: give it to the application");
                return Err(Refusal::invalid("scopes", problem).into());
            }
        }
        Owner::User(id) => {
            tx.lock_user(id).await?;
            let user = tx.user(id).await?.ok_or(Refusal::NotFound)?;
            let held = of_person(tenant, &user);
            let lacking: Vec<&str> = scopes.iter().filter(|scope| !held.contains(scope)).collect();
            if let Some(first) = lacking.first() {
                let may_give_people = match &actor.authority {
                    Authority::Operator => true,
                    Authority::Scopes(held) => held.contains("users:write"),
                };
                if !may_give_people {
                    let problem = format!("name `{first}`, which the key's owner does not hold: give it to that person first");
                    return Err(Refusal::invalid("scopes", problem).into());
                }
                let all: ScopeSet = user.scopes.iter().cloned().chain(lacking.iter().map(|s| (*s).to_owned())).collect();
                tx.set_user_scopes(id, &all.to_vec()).await?;
                let detail = json!({ "changed": ["scopes"], "scopes": all.to_vec(), "for": "key" });
                deeds.push(actor.did("user.update", format!("user:{id}"), detail, now));
            }
        }
    }
    enter(tx, tenant, scopes.iter(), now).await?;
    Ok(deeds)
}

/// Refuses to let an actor into somebody's place who holds more: by a new password, say.
pub(crate) fn check_not_above(tenant: &TenantEntry, actor: &Actor, user: &User) -> Result<(), Refusal> {
    actor.authority.check_gives(of_person(tenant, user).iter())
}
