//! Applications: what owns API keys.

use claviger_store::application::{Application, NAME_TAKEN};
use claviger_store::id::{ApplicationId, TenantId};
use serde_json::json;

use crate::audit::{Actor, append};
use crate::grant::to_application;
use crate::settings::check_lifetime;
use crate::tenant::check_name;
use crate::{Failure, Fault, Issuer, Refusal};

/// An application to be made.
#[derive(Default)]
pub struct NewApplication {
    /// Unique among the tenant's applications.
    pub name: String,
    /// Seconds that tokens of its keys live; `None` takes the tenant's.
    pub token_lifetime: Option<i32>,
    /// What its keys may hold at most, as scopes and patterns; `None`, with no roles, is no limit.
    pub scopes: Option<Vec<String>>,
    /// Roles whose scopes its keys may hold.
    pub roles: Vec<String>,
}

/// What to change of an application; `None` leaves as it is.
#[derive(Default)]
pub struct ApplicationChange {
    /// Its name.
    pub name: Option<String>,
    /// Seconds; `Some(None)` takes the tenant's.
    pub token_lifetime: Option<Option<i32>>,
    /// What its keys may hold at most; `Some(None)` is no limit but the roles.
    pub scopes: Option<Option<Vec<String>>>,
    /// All of the roles whose scopes its keys may hold.
    pub roles: Option<Vec<String>>,
    /// Whether it may act.
    pub disabled: Option<bool>,
}

fn taken(error: claviger_store::StoreError, name: &str) -> Failure {
    match error.unique_violation() {
        Some(NAME_TAKEN) => Refusal::Conflict(format!("there is an application `{name}` already")).into(),
        _ => error.into(),
    }
}

impl Issuer {
    /// Makes an application.
    pub async fn create_application(&self, tenant: TenantId, actor: &Actor, new: NewApplication) -> Result<Application, Failure> {
        let now = self.clock.now();
        let NewApplication { name, token_lifetime, scopes, roles } = new;
        let entry = self.entry_of(tenant).await?;
        check_name("name", &name)?;
        check_lifetime(token_lifetime)?;
        let id = ApplicationId(self.random.uuid_at(now));
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        scoped.create_application(id, &name, token_lifetime, now).await.map_err(|error| taken(error, &name))?;
        let mut detail = json!({ "name": name });
        if scopes.is_some() || !roles.is_empty() {
            let roles = to_application(&mut scoped, &entry, actor, scopes.as_deref(), &roles, now).await?;
            scoped.set_application_rights(id, scopes.as_deref(), &roles).await?;
            detail = json!({ "name": name, "scopes": scopes, "roles": roles });
        }
        let deed = actor.did("application.create", format!("application:{id}"), detail, now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        let application = scoped.application(id).await?;
        tx.commit().await?;
        application.ok_or_else(|| Fault::Internal("a new application is not there".into()).into())
    }

    /// An application that is not deleted.
    pub async fn find_application(&self, tenant: TenantId, id: ApplicationId) -> Result<Application, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        match tx.tenant(tenant).await?.application(id).await? {
            Some(application) if application.status.word() != "deleted" => Ok(application),
            _ => Err(Refusal::NotFound.into()),
        }
    }

    /// An application that is not deleted, by name.
    pub async fn find_application_by_name(&self, tenant: TenantId, name: &str) -> Result<Application, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        Ok(tx.tenant(tenant).await?.application_by_name(name).await?.ok_or(Refusal::NotFound)?)
    }

    /// Applications, oldest first, after the given one.
    pub async fn list_applications(
        &self,
        tenant: TenantId,
        after: Option<ApplicationId>,
        limit: u16,
    ) -> Result<Vec<Application>, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        Ok(tx.tenant(tenant).await?.list_applications(after, limit).await?)
    }

    /// Changes an application.
    pub async fn change_application(
        &self,
        tenant: TenantId,
        actor: &Actor,
        id: ApplicationId,
        change: ApplicationChange,
    ) -> Result<Application, Failure> {
        let now = self.clock.now();
        let ApplicationChange { name, token_lifetime, scopes, roles, disabled } = change;
        let entry = self.entry_of(tenant).await?;
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        scoped.lock_application(id).await?;
        let before = match scoped.application(id).await? {
            Some(application) if application.status.word() != "deleted" => application,
            _ => return Err(Refusal::NotFound.into()),
        };
        let mut deeds = Vec::new();
        let target = format!("application:{id}");
        if name.is_some() || token_lifetime.is_some() {
            let name = name.unwrap_or(before.name);
            let token_lifetime = token_lifetime.unwrap_or(before.token_lifetime);
            check_name("name", &name)?;
            check_lifetime(token_lifetime)?;
            scoped.update_application(id, &name, token_lifetime).await.map_err(|error| taken(error, &name))?;
            deeds.push(actor.did("application.update", &target, json!({ "name": name, "token_lifetime": token_lifetime }), now));
        }
        if scopes.is_some() || roles.is_some() {
            let scopes = scopes.unwrap_or(before.scopes);
            let roles = roles.unwrap_or(before.roles);
            let roles = to_application(&mut scoped, &entry, actor, scopes.as_deref(), &roles, now).await?;
            scoped.set_application_rights(id, scopes.as_deref(), &roles).await?;
            deeds.push(actor.did("application.update", &target, json!({ "scopes": scopes, "roles": roles }), now));
        }
        if let Some(disabled) = disabled
            && scoped.set_application_disabled(id, disabled.then_some((now, actor.name.as_str()))).await?
        {
            let action = if disabled { "application.disable" } else { "application.enable" };
            deeds.push(actor.did(action, &target, json!({}), now));
        }
        append(&mut scoped, tenant, &self.chain_key, &self.random, deeds).await?;
        let application = scoped.application(id).await?;
        self.commit(tx, "applications", tenant, id).await?;
        self.forget("scopes", tenant, "");
        Ok(application.ok_or(Refusal::NotFound)?)
    }

    /// Ends an application for good: its keys and their tokens die.
    pub async fn delete_application(&self, tenant: TenantId, actor: &Actor, id: ApplicationId) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        if !scoped.delete_application(id, now, &actor.name).await? {
            return Err(Refusal::NotFound.into());
        }
        let deed = actor.did("application.delete", format!("application:{id}"), json!({}), now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        self.commit(tx, "applications", tenant, id).await
    }
}
