//! Roles and the catalogue of scopes: made, changed, removed. What they come to is in [`crate::rights`].

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use claviger_store::TenantTx;
use claviger_store::id::TenantId;
use claviger_store::role::{ROLE_TAKEN, Role, Scope};
use serde_json::json;

use crate::audit::{Actor, append};
use crate::directory::TenantEntry;
use crate::rights::{MOST_NAMES, Patterns, TENANT_ADMIN, admin_scopes};
use crate::scope::{MANAGEMENT, is_scope};
use crate::{Failure, Fault, Issuer, Refusal};

/// Most roles of one person, application or key.
const MOST_ROLES: usize = 50;
/// Longest description, in characters.
const LONGEST_DESCRIPTION: usize = 500;

/// What to change of a role; `None` leaves as it is.
#[derive(Default)]
pub struct RoleChange {
    /// For people.
    pub description: Option<String>,
    /// All of its scopes and patterns.
    pub scopes: Option<Vec<String>>,
}

/// A role name: letters, digits, `_`, `.`, `:` and `-`.
pub(crate) fn is_role(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-'))
}

/// Role names in order, each once.
pub(crate) fn checked_roles(roles: &[String]) -> Result<Vec<String>, Refusal> {
    if roles.len() > MOST_ROLES || !roles.iter().all(|role| is_role(role)) {
        let problem = format!("are at most {MOST_ROLES} names of 1 to 64 letters, digits, `_`, `.`, `:` and `-`");
        return Err(Refusal::invalid("roles", problem));
    }
    Ok(in_order(roles.to_vec()))
}

fn check_description(description: &str) -> Result<(), Refusal> {
    match description.chars().count() > LONGEST_DESCRIPTION || description.chars().any(char::is_control) {
        true => {
            let problem = format!("is at most {LONGEST_DESCRIPTION} characters long, without control characters");
            Err(Refusal::invalid("description", problem))
        }
        false => Ok(()),
    }
}

fn in_order(texts: Vec<String>) -> Vec<String> {
    texts.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

/// Names that are given to somebody enter the catalogue; a closed one refuses those that it does not have.
pub(crate) async fn enter<'a>(
    tx: &mut TenantTx<'_>,
    tenant: &TenantEntry,
    names: impl IntoIterator<Item = &'a str>,
    now: DateTime<Utc>,
) -> Result<bool, Failure> {
    let new = names.into_iter().filter(|name| is_scope(name) && !tenant.catalogue.knows(name));
    let new: Vec<String> = new.map(str::to_owned).collect();
    let Some(first) = new.first() else { return Ok(false) };
    if tenant.settings.closed_catalogue {
        let problem = format!("name `{first}`, which is not in this tenant's catalogue: add it with POST /v1/scopes first");
        return Err(Refusal::invalid("scopes", problem).into());
    }
    if tenant.catalogue.len() + new.len() > MOST_NAMES {
        return Err(Refusal::Conflict(format!("a tenant's catalogue has at most {MOST_NAMES} scopes")).into());
    }
    tx.enter_scopes(&new, now).await?;
    Ok(true)
}

impl Issuer {
    /// A tenant as it is now, by its id.
    pub(crate) async fn entry_of(&self, tenant: TenantId) -> Result<Arc<TenantEntry>, Failure> {
        Ok(self.directory.tenant(tenant).await?.ok_or(Refusal::NotFound)?)
    }

    /// All roles: the built-in one, then the others in order of name.
    pub async fn roles(&self, tenant: &TenantEntry) -> Result<Vec<Role>, Failure> {
        let mut tx = self.store.begin_in(tenant.tenant.id).await?;
        let kept = tx.tenant(tenant.tenant.id).await?.roles().await?;
        let built_in = Role {
            name: TENANT_ADMIN.into(),
            description: "Manages this tenant. Built in: it always holds all of the tenant's management.".into(),
            scopes: admin_scopes(self.is_platform(tenant)).map(str::to_owned).collect(),
            created_at: tenant.tenant.created_at,
            updated_at: tenant.tenant.created_at,
        };
        Ok(std::iter::once(built_in).chain(kept).collect())
    }

    /// The role of that name.
    pub async fn find_role(&self, tenant: &TenantEntry, name: &str) -> Result<Role, Failure> {
        Ok(self.roles(tenant).await?.into_iter().find(|role| role.name == name).ok_or(Refusal::NotFound)?)
    }

    /// Makes a role.
    pub async fn create_role(
        &self,
        tenant: &TenantEntry,
        actor: &Actor,
        name: &str,
        description: &str,
        scopes: Vec<String>,
    ) -> Result<Role, Failure> {
        let now = self.clock.now();
        if !is_role(name) {
            return Err(Refusal::invalid("name", "is 1 to 64 letters, digits, `_`, `.`, `:` and `-`").into());
        }
        let taken = || Failure::from(Refusal::Conflict(format!("there is a role `{name}` already")));
        if name == TENANT_ADMIN {
            return Err(taken());
        }
        check_description(description)?;
        let scopes = in_order(scopes);
        actor.authority.check_gives_patterns(&Patterns::granted("scopes", &scopes)?)?;
        let id = tenant.tenant.id;
        let mut tx = self.store.begin_in(id).await?;
        let mut scoped = tx.tenant(id).await?;
        // One after the other, so that the number of roles holds.
        scoped.lock_tenant().await?;
        if scoped.roles().await?.len() >= MOST_NAMES {
            return Err(Refusal::Conflict(format!("a tenant has at most {MOST_NAMES} roles")).into());
        }
        if let Err(error) = scoped.create_role(name, description, &scopes, now).await {
            return Err(if error.unique_violation() == Some(ROLE_TAKEN) { taken() } else { error.into() });
        }
        enter(&mut scoped, tenant, scopes.iter().map(String::as_str), now).await?;
        let deed = actor.did("role.create", format!("role:{name}"), json!({ "scopes": scopes }), now);
        append(&mut scoped, id, &self.chain_key, &self.random, [deed]).await?;
        self.commit(tx, "roles", id, name).await?;
        Ok(Role { name: name.into(), description: description.into(), scopes, created_at: now, updated_at: now })
    }

    /// Changes a role. Whoever has it holds what it says from now on.
    pub async fn change_role(
        &self,
        tenant: &TenantEntry,
        actor: &Actor,
        name: &str,
        change: RoleChange,
    ) -> Result<Role, Failure> {
        let now = self.clock.now();
        let RoleChange { description, scopes } = change;
        check_changeable(name)?;
        let id = tenant.tenant.id;
        let mut tx = self.store.begin_in(id).await?;
        let mut scoped = tx.tenant(id).await?;
        let before = scoped.lock_role(name).await?.ok_or(Refusal::NotFound)?;
        let description = description.unwrap_or(before.description);
        check_description(&description)?;
        let scopes = match scopes {
            None => before.scopes,
            Some(scopes) => {
                let scopes = in_order(scopes);
                Patterns::granted("scopes", &scopes)?;
                // What it held before, somebody gave who could.
                let added: Vec<String> = scopes.iter().filter(|scope| !before.scopes.contains(scope)).cloned().collect();
                actor.authority.check_gives_patterns(&Patterns::kept(&added))?;
                enter(&mut scoped, tenant, scopes.iter().map(String::as_str), now).await?;
                scopes
            }
        };
        scoped.update_role(name, &description, &scopes, now).await?;
        let deed = actor.did("role.update", format!("role:{name}"), json!({ "scopes": scopes }), now);
        append(&mut scoped, id, &self.chain_key, &self.random, [deed]).await?;
        self.commit(tx, "roles", id, name).await?;
        Ok(Role { name: before.name, description, scopes, created_at: before.created_at, updated_at: now })
    }

    /// Removes a role that nobody has.
    pub async fn delete_role(&self, tenant: &TenantEntry, actor: &Actor, name: &str) -> Result<(), Failure> {
        let now = self.clock.now();
        check_changeable(name)?;
        let id = tenant.tenant.id;
        let mut tx = self.store.begin_in(id).await?;
        let mut scoped = tx.tenant(id).await?;
        scoped.lock_role(name).await?.ok_or(Refusal::NotFound)?;
        if scoped.role_is_held(name).await? {
            let why = "somebody has this role: take it from the people, applications and keys that have it, or empty its scopes";
            return Err(Refusal::Conflict(why.into()).into());
        }
        scoped.delete_role(name).await?;
        let deed = actor.did("role.delete", format!("role:{name}"), json!({}), now);
        append(&mut scoped, id, &self.chain_key, &self.random, [deed]).await?;
        self.commit(tx, "roles", id, name).await
    }

    /// The catalogue, in order of name.
    pub async fn scopes(&self, tenant: TenantId) -> Result<Vec<Scope>, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        Ok(tx.tenant(tenant).await?.scopes().await?)
    }

    /// Adds a scope to the catalogue, or says anew what it is for. True when it is new.
    pub async fn put_scope(
        &self,
        tenant: &TenantEntry,
        actor: &Actor,
        name: &str,
        description: &str,
    ) -> Result<(Scope, bool), Failure> {
        let now = self.clock.now();
        if !is_scope(name) {
            let problem = "is `resource:action`, of letters, digits, `_`, `.` and `-`; patterns belong into roles";
            return Err(Refusal::invalid("name", problem).into());
        }
        if MANAGEMENT.contains(&name) {
            return Err(Refusal::Conflict(format!("`{name}` belongs to the management of the tenant and is always there")).into());
        }
        check_description(description)?;
        let id = tenant.tenant.id;
        let mut tx = self.store.begin_in(id).await?;
        let mut scoped = tx.tenant(id).await?;
        scoped.lock_tenant().await?;
        if scoped.scopes().await?.len() >= MOST_NAMES && !tenant.catalogue.knows(name) {
            return Err(Refusal::Conflict(format!("a tenant's catalogue has at most {MOST_NAMES} scopes")).into());
        }
        let new = scoped.enter_scopes(&[name.to_owned()], now).await? == 1;
        scoped.describe_scope(name, description).await?;
        let action = if new { "scope.create" } else { "scope.update" };
        append(&mut scoped, id, &self.chain_key, &self.random, [actor.did(action, format!("scope:{name}"), json!({}), now)])
            .await?;
        let kept = scoped.scopes().await?.into_iter().find(|scope| scope.name == name);
        self.commit(tx, "scopes", id, name).await?;
        Ok((kept.ok_or_else(|| Fault::Internal("a new scope is not there".into()))?, new))
    }

    /// Removes a scope that nobody names from the catalogue.
    pub async fn delete_scope(&self, tenant: &TenantEntry, actor: &Actor, name: &str) -> Result<(), Failure> {
        let now = self.clock.now();
        let id = tenant.tenant.id;
        let mut tx = self.store.begin_in(id).await?;
        let mut scoped = tx.tenant(id).await?;
        if scoped.scope_is_named(name).await? {
            let why = "a role, person, application or key names this scope: take it from them first";
            return Err(Refusal::Conflict(why.into()).into());
        }
        if !scoped.delete_scope(name).await? {
            return Err(Refusal::NotFound.into());
        }
        let deed = actor.did("scope.delete", format!("scope:{name}"), json!({}), now);
        append(&mut scoped, id, &self.chain_key, &self.random, [deed]).await?;
        self.commit(tx, "scopes", id, name).await
    }
}

fn check_changeable(name: &str) -> Result<(), Refusal> {
    match name {
        TENANT_ADMIN => Err(Refusal::Conflict("this role is built in, and cannot be changed or removed".into())),
        _ => Ok(()),
    }
}
