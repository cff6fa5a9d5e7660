//! Tenants: made with their signing key and audit chain, disabled, ended.

use chrono::{DateTime, Utc};
use claviger_store::Tx;
use claviger_store::api_key::NewKey;
use claviger_store::id::{ApplicationId, Owner, TenantId};
use claviger_store::tenant::Tenant;
use serde_json::json;

use crate::audit::{Actor, Draft, append};
use crate::key::MadeKey;
use crate::rights::TENANT_ADMIN;
use crate::secret::{new_key_id, new_secret};
use crate::settings::TenantSettings;
use crate::{Failure, Fault, Issuer, Refusal};

/// A tenant to be made.
pub struct NewTenant {
    /// Its name in URLs: 1 to 63 of `a-z 0-9 -`, neither first nor last a hyphen. Never changes.
    pub slug: String,
    /// Its name for people; the slug if absent.
    pub name: Option<String>,
    /// Its settings. What they say wins over the preset.
    pub settings: TenantSettings,
    /// What it starts from besides, by name.
    pub preset: Option<String>,
}

/// What to change of a tenant; `None` leaves as it is.
#[derive(Default)]
pub struct TenantChange {
    /// Its name for people.
    pub name: Option<String>,
    /// All of its settings.
    pub settings: Option<TenantSettings>,
    /// Whether it may act.
    pub disabled: Option<bool>,
}

/// Whether a tenant can have this slug. What none can have is not looked up.
pub(crate) fn is_slug(slug: &str) -> bool {
    let plain = slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    (1..=63).contains(&slug.len()) && plain && !slug.starts_with('-') && !slug.ends_with('-')
}

fn check_slug(slug: &str) -> Result<(), Refusal> {
    match is_slug(slug) {
        true => Ok(()),
        false => Err(Refusal::invalid("slug", "a slug is 1 to 63 of a-z, 0-9 and -, and neither begins nor ends with -")),
    }
}

/// A name for people: not empty, at most 200 characters, nothing that moves the cursor.
pub(crate) fn check_name(field: &'static str, name: &str) -> Result<(), Refusal> {
    if name.trim().is_empty() {
        return Err(Refusal::invalid(field, "can't be blank"));
    }
    if name.chars().count() > 200 || name.chars().any(char::is_control) {
        return Err(Refusal::invalid(field, "is at most 200 characters long, without control characters"));
    }
    Ok(())
}

fn as_json(settings: &TenantSettings) -> Result<serde_json::Value, Fault> {
    serde_json::to_value(settings).map_err(|error| Fault::Internal(error.to_string()))
}

impl Issuer {
    /// Makes a tenant.
    pub async fn create_tenant(&self, actor: &Actor, new: NewTenant) -> Result<Tenant, Failure> {
        let now = self.clock.now();
        let id = TenantId(self.random.uuid_at(now));
        let mut tx = self.store.begin_in(id).await?;
        let tenant = self.create_tenant_in(&mut tx, id, actor, new, now, Vec::new()).await?;
        tx.commit().await?;
        Ok(tenant)
    }

    /// Makes a tenant and its first key: of an application `admin`, with the role [`TENANT_ADMIN`].
    ///
    /// Nobody gives what they do not hold, and who manages tenants holds nothing within one. But here is nothing yet that
    /// anybody holds: the key is part of what is made, for whomever it is made for. Of a tenant that exists, no platform admin
    /// gets a key.
    pub async fn create_tenant_with_admin(&self, actor: &Actor, new: NewTenant) -> Result<(Tenant, MadeKey), Failure> {
        const NAME: &str = "admin";
        let now = self.clock.now();
        let id = TenantId(self.random.uuid_at(now));
        let application = ApplicationId(self.random.uuid_at(now));
        let owner = Owner::Application(application);
        let expires_at = new.settings.keys().end(None, now)?;
        let brand = &self.settings.brand;
        let key = new_key_id(brand, &self.random).ok_or_else(|| Fault::Internal("the brand makes no key id".into()))?;
        let secret = new_secret(brand, &self.random);
        let kept = self.peppers.keep(&key, &secret).ok_or_else(|| Fault::Internal("there is no pepper".into()))?;
        let detail = json!({ "owner": owner.to_string(), "scopes": [], "roles": [TENANT_ADMIN], "imported": false });
        let deeds = vec![
            actor.did("application.create", format!("application:{application}"), json!({ "name": NAME }), now),
            actor.did("key.create", format!("key:{key}"), detail, now),
        ];
        let mut tx = self.store.begin_in(id).await?;
        let tenant = self.create_tenant_in(&mut tx, id, actor, new, now, deeds).await?;
        let mut scoped = tx.tenant(id).await?;
        scoped.create_application(application, NAME, None, now).await?;
        let new = NewKey {
            id: &key,
            name: NAME,
            owner,
            scopes: &[],
            roles: &[TENANT_ADMIN.to_owned()],
            token_lifetime: None,
            refresh: false,
            expires_at,
            created_by: &actor.name,
        };
        scoped.create_key(&new, &kept, now).await?;
        let key = scoped.key(&key).await?.ok_or_else(|| Fault::Internal("a new key is not there".into()))?;
        tx.commit().await?;
        Ok((tenant, MadeKey { key, secret }))
    }

    /// Makes a tenant in a transaction, and writes down what else is made with it.
    async fn create_tenant_in(
        &self,
        tx: &mut Tx,
        id: TenantId,
        actor: &Actor,
        new: NewTenant,
        now: DateTime<Utc>,
        more: Vec<Draft>,
    ) -> Result<Tenant, Failure> {
        let NewTenant { slug, name, settings, preset } = new;
        let name = name.unwrap_or_else(|| slug.clone());
        check_slug(&slug)?;
        check_name("name", &name)?;
        settings.check()?;
        let mut scoped = tx.tenant(id).await?;
        match scoped.create_tenant(&slug, &name, &as_json(&settings)?, now).await {
            Err(error) if error.unique_violation().is_some() => {
                return Err(Refusal::Conflict(format!("the slug `{slug}` is taken; slugs are never given twice")).into());
            }
            outcome => outcome?,
        }
        scoped.start_audit_chain(&self.chain_key.empty(id)).await?;
        let key = self.keep_new_signing_key(&mut scoped, id, None, true, now).await?;
        let made = actor.did("tenant.create", format!("tenant:{id}"), json!({ "slug": slug }), now);
        let first_key =
            actor.did("signing_key.create", format!("signing_key:{}", key.kid()), json!({ "algorithm": "EdDSA" }), now);
        let mut deeds = vec![made, first_key];
        deeds.extend(more);
        if let Some(preset) = preset {
            let tenant = tx.any_tenant().tenant_by_id(id).await?.ok_or(Refusal::NotFound)?;
            let mut scoped = tx.tenant(id).await?;
            deeds.extend(self.apply_preset_in(&mut scoped, &tenant, actor, &preset).await?.1);
        }
        append(&mut tx.tenant(id).await?, id, &self.chain_key, &self.random, deeds).await?;
        let tenant = tx.any_tenant().tenant_by_id(id).await?;
        tenant.ok_or_else(|| Fault::Internal("a new tenant is not there".into()).into())
    }

    /// A tenant that is not deleted, from the database.
    pub async fn find_tenant(&self, slug: &str) -> Result<Tenant, Failure> {
        if !is_slug(slug) {
            return Err(Refusal::NotFound.into());
        }
        let mut tx = self.store.begin().await?;
        let mut any = tx.any_tenant();
        let Some(id) = any.tenant_id_by_slug(slug).await? else { return Err(Refusal::NotFound.into()) };
        match any.tenant_by_id(id).await? {
            Some(tenant) if tenant.status.word() != "deleted" => Ok(tenant),
            _ => Err(Refusal::NotFound.into()),
        }
    }

    /// Tenants in order of slug, after the given one.
    pub async fn list_tenants(&self, after: Option<&str>, limit: u16) -> Result<Vec<Tenant>, Failure> {
        if after.is_some_and(|after| !is_slug(after)) {
            return Err(Refusal::invalid("after", "send `next` of the page before, as it was").into());
        }
        Ok(self.store.begin().await?.any_tenant().list_tenants(after, limit).await?)
    }

    /// Changes a tenant.
    pub async fn change_tenant(&self, actor: &Actor, slug: &str, change: TenantChange) -> Result<Tenant, Failure> {
        let now = self.clock.now();
        let tenant = self.find_tenant(slug).await?;
        let TenantChange { name, settings, disabled } = change;
        if disabled == Some(true) && slug == self.settings.default_tenant {
            return Err(Refusal::Conflict("the default tenant manages the others and cannot be disabled".into()).into());
        }
        let mut tx = self.store.begin_in(tenant.id).await?;
        tx.tenant(tenant.id).await?.lock_tenant().await?;
        // Read again, now that nobody else can change it.
        let tenant = tx.any_tenant().tenant_by_id(tenant.id).await?.ok_or(Refusal::NotFound)?;
        let mut scoped = tx.tenant(tenant.id).await?;
        let mut deeds = Vec::new();
        let target = format!("tenant:{}", tenant.id);
        if name.is_some() || settings.is_some() {
            let name = name.unwrap_or(tenant.name);
            check_name("name", &name)?;
            let settings = match &settings {
                Some(settings) => {
                    settings.check()?;
                    as_json(settings)?
                }
                None => tenant.settings,
            };
            scoped.update_tenant(&name, &settings).await?;
            deeds.push(actor.did("tenant.update", &target, json!({ "settings": settings }), now));
        }
        if let Some(disabled) = disabled
            && scoped.set_tenant_disabled(disabled.then_some((now, actor.name.as_str()))).await?
        {
            deeds.push(actor.did(if disabled { "tenant.disable" } else { "tenant.enable" }, &target, json!({}), now));
        }
        append(&mut scoped, tenant.id, &self.chain_key, &self.random, deeds).await?;
        self.commit(tx, "tenants", tenant.id, tenant.id).await?;
        self.find_tenant(slug).await
    }

    /// Ends a tenant for good: its keys and tokens die, its rows and its trail stay.
    pub async fn delete_tenant(&self, actor: &Actor, slug: &str) -> Result<(), Failure> {
        let now = self.clock.now();
        let tenant = self.find_tenant(slug).await?;
        if slug == self.settings.default_tenant {
            return Err(Refusal::Conflict("the default tenant manages the others and cannot be deleted".into()).into());
        }
        let mut tx = self.store.begin_in(tenant.id).await?;
        let mut scoped = tx.tenant(tenant.id).await?;
        if !scoped.delete_tenant(now, &actor.name).await? {
            return Err(Refusal::NotFound.into());
        }
        let deed = actor.did("tenant.delete", format!("tenant:{}", tenant.id), json!({ "slug": slug }), now);
        append(&mut scoped, tenant.id, &self.chain_key, &self.random, [deed]).await?;
        self.commit(tx, "tenants", tenant.id, tenant.id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs() {
        for good in ["a", "acme", "a-1", "0", &"a".repeat(63)] {
            assert!(check_slug(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "é", "a b", &"a".repeat(64)] {
            assert!(check_slug(bad).is_err(), "{bad}");
        }
    }
}
