//! Presets: what a system's tenants usually start from, as documents of data (`presets/*.json`). Applying one makes what is not
//! there and leaves what somebody changed by hand; everything can be changed afterwards.
//!
//! ```text
//! a preset and a tenant are compared item by item
//!     settings.NAME        settings.policies.NAME        settings.dialects.NAME
//!     scopes.NAME          roles.NAME                    audiences.NAME
//!
//! now as the preset wants it                            same
//! not there, and this preset never set it               set
//! now as this preset left it the last time              set (the preset has become another)
//! anything else                                         kept, and told
//! ```

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use claviger_store::TenantTx;
use claviger_store::audience::Audience;
use claviger_store::role::{Role, Scope};
use claviger_store::tenant::Tenant;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::audience::{NewAudience, Profile, profile, taken};
use crate::audit::{Actor, Draft, append};
use crate::rights::MOST_NAMES;
use crate::settings::TenantSettings;
use crate::{Failure, Fault, Issuer, Refusal};

/// The presets, by name.
const PRESETS: [(&str, &str); 4] = [
    ("cheshire-cat", include_str!("presets/cheshire-cat.json")),
    ("clustercockpit", include_str!("presets/clustercockpit.json")),
    ("cta", include_str!("presets/cta.json")),
    ("howler", include_str!("presets/howler.json")),
];

/// Settings whose members are items of their own, so that a tenant's own stand beside those of a preset.
const MAPS: [&str; 2] = ["dialects", "policies"];

/// A preset, as its document has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Preset {
    #[serde(rename = "description")]
    _description: String,
    settings: TenantSettings,
    scopes: BTreeMap<String, String>,
    roles: BTreeMap<String, PresetRole>,
    audiences: BTreeMap<String, PresetAudience>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PresetRole {
    description: String,
    scopes: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PresetAudience {
    uri: String,
    profile: Profile,
}

/// What a preset sets, or what a tenant has now: values by item.
type Items = BTreeMap<String, Value>;

/// What is kept of a preset that was applied.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    applied_at: DateTime<Utc>,
    /// What it set, or found as it wanted it.
    set: Items,
}

/// What became of a preset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Items that were made or changed.
    pub changed: Vec<String>,
    /// Items that differ, because somebody made or changed them by hand, and were left so.
    pub kept: Vec<String>,
}

/// A preset that a tenant was given.
#[derive(Debug, Clone, PartialEq)]
pub struct PresetView {
    /// Its name.
    pub name: String,
    /// When it was last applied.
    pub applied_at: DateTime<Utc>,
    /// Items that it set and that are so still.
    pub set: Vec<String>,
    /// Items that are otherwise now.
    pub differs: Vec<Difference>,
}

/// An item that is not as a preset has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// `settings.token_lifetime`, `roles.admin`.
    pub item: String,
    /// As the preset has it.
    pub preset: Value,
    /// As it is; `null` if it is not there.
    pub now: Value,
}

/// What to do about one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Same,
    Set,
    Keep,
}

/// The rule.
fn judge(wanted: &Value, now: Option<&Value>, before: Option<&Value>) -> Step {
    match now {
        Some(now) if now == wanted => Step::Same,
        now if now == before => Step::Set,
        _ => Step::Keep,
    }
}

/// The names of all presets.
#[must_use]
pub fn names() -> Vec<&'static str> {
    PRESETS.iter().map(|(name, _)| *name).collect()
}

fn as_json(value: &impl Serialize) -> Result<Value, Fault> {
    serde_json::to_value(value).map_err(|error| Fault::Internal(error.to_string()))
}

impl Preset {
    fn named(name: &str) -> Result<Self, Failure> {
        let Some((_, text)) = PRESETS.iter().find(|(known, _)| *known == name) else {
            return Err(Refusal::invalid("preset", format!("is one of {}", names().join(", "))).into());
        };
        let preset: Self = serde_json::from_str(text).map_err(|error| Fault::Internal(format!("the preset {name}: {error}")))?;
        Ok(preset)
    }

    fn items(&self) -> Result<Items, Fault> {
        let Self { _description, settings, scopes, roles, audiences } = self;
        let mut items = setting_items(&as_json(settings)?);
        items.extend(scopes.iter().map(|(name, description)| (format!("scopes.{name}"), json!(description))));
        for (name, role) in roles {
            let mut scopes = role.scopes.clone();
            scopes.sort();
            items.insert(format!("roles.{name}"), as_json(&PresetRole { scopes, ..role.clone() })?);
        }
        for (name, audience) in audiences {
            items.insert(format!("audiences.{name}"), as_json(audience)?);
        }
        Ok(items)
    }
}

/// Settings by item, the maps among them member by member.
fn setting_items(settings: &Value) -> Items {
    let mut items = Items::new();
    for (name, value) in settings.as_object().into_iter().flatten() {
        match value {
            Value::Object(members) if MAPS.contains(&name.as_str()) => {
                items.extend(members.iter().map(|(member, value)| (format!("settings.{name}.{member}"), value.clone())));
            }
            value => {
                items.insert(format!("settings.{name}"), value.clone());
            }
        }
    }
    items
}

/// What a tenant has now.
struct Holdings {
    settings: Value,
    scopes: Vec<Scope>,
    roles: Vec<Role>,
    audiences: Vec<Audience>,
}

impl Holdings {
    async fn of(tenant: &Tenant, scoped: &mut TenantTx<'_>) -> Result<Self, Failure> {
        let (scopes, roles) = (scoped.scopes().await?, scoped.roles().await?);
        Ok(Self { settings: tenant.settings.clone(), scopes, roles, audiences: scoped.audiences().await? })
    }

    fn items(&self) -> Result<Items, Fault> {
        let Self { settings, scopes, roles, audiences } = self;
        let mut items = setting_items(settings);
        // One that nobody described entered the catalogue by itself.
        let described = scopes.iter().filter(|scope| !scope.description.is_empty());
        items.extend(described.map(|scope| (format!("scopes.{}", scope.name), json!(scope.description))));
        for Role { name, description, scopes, created_at: _, updated_at: _ } in roles {
            let role = PresetRole { description: description.clone(), scopes: scopes.clone() };
            items.insert(format!("roles.{name}"), as_json(&role)?);
        }
        for audience in audiences {
            let shape = PresetAudience { uri: audience.uri.clone(), profile: profile(audience)? };
            items.insert(format!("audiences.{}", audience.name), as_json(&shape)?);
        }
        Ok(items)
    }
}

fn records(tenant: &Tenant) -> Result<BTreeMap<String, Record>, Fault> {
    serde_json::from_value(tenant.presets.clone())
        .map_err(|error| Fault::Internal(format!("the presets of tenant {}: {error}", tenant.slug)))
}

/// Names and times of the presets that a tenant was given, as far as they can be read.
#[must_use]
pub fn given(tenant: &Tenant) -> Vec<(String, DateTime<Utc>)> {
    records(tenant).unwrap_or_default().into_iter().map(|(name, record)| (name, record.applied_at)).collect()
}

impl Issuer {
    /// Applies a preset to a tenant. What was made or changed by hand stays, and is told.
    pub async fn apply_preset(&self, actor: &Actor, slug: &str, name: &str) -> Result<Applied, Failure> {
        let id = self.find_tenant(slug).await?.id;
        let mut tx = self.store.begin_in(id).await?;
        let mut scoped = tx.tenant(id).await?;
        scoped.signing_turn().await?;
        scoped.lock_tenant().await?;
        let tenant = tx.any_tenant().tenant_by_id(id).await?.ok_or(Refusal::NotFound)?;
        let mut scoped = tx.tenant(id).await?;
        let (applied, deeds) = self.apply_preset_in(&mut scoped, &tenant, actor, name).await?;
        append(&mut scoped, id, &self.chain_key, &self.random, deeds).await?;
        self.commit(tx, "tenants", id, id).await?;
        Ok(applied)
    }

    /// As [`Issuer::apply_preset`], within a transaction that holds the tenant.
    pub(crate) async fn apply_preset_in(
        &self,
        scoped: &mut TenantTx<'_>,
        tenant: &Tenant,
        actor: &Actor,
        name: &str,
    ) -> Result<(Applied, Vec<Draft>), Failure> {
        let now = self.clock.now();
        let preset = Preset::named(name)?;
        let holdings = Holdings::of(tenant, scoped).await?;
        let (wanted, has) = (preset.items()?, holdings.items()?);
        let mut records = records(tenant)?;
        let mut set = records.remove(name).map(|record| record.set).unwrap_or_default();
        let mut applied = Applied::default();
        for (item, wanted) in &wanted {
            let step = match judge(wanted, has.get(item), set.get(item)) {
                Step::Set if !fits(item, wanted, has.get(item)) => Step::Keep,
                step => step,
            };
            match step {
                Step::Keep => applied.kept.push(item.clone()),
                Step::Same => {
                    set.insert(item.clone(), wanted.clone());
                }
                Step::Set => {
                    applied.changed.push(item.clone());
                    set.insert(item.clone(), wanted.clone());
                }
            }
        }
        let change = |item: String| applied.changed.contains(&item);
        let mut deeds = Vec::new();

        let mut settings = holdings.settings.clone();
        for (item, wanted) in wanted.iter().filter(|(item, _)| change((*item).clone())) {
            if let Some(path) = item.strip_prefix("settings.") {
                put(&mut settings, path, wanted.clone());
            }
        }
        if settings != holdings.settings {
            let parsed: TenantSettings = serde_json::from_value(settings.clone())
                .map_err(|error| Fault::Internal(format!("the preset {name}: {error}")))?;
            parsed.check()?;
            scoped.update_tenant(&tenant.name, &settings).await?;
        }

        let scopes: Vec<String> = preset.scopes.keys().filter(|scope| change(format!("scopes.{scope}"))).cloned().collect();
        let known = |scope: &String| holdings.scopes.iter().any(|kept| kept.name == *scope);
        if holdings.scopes.len() + scopes.iter().filter(|scope| !known(scope)).count() > MOST_NAMES {
            return Err(Refusal::Conflict(format!("a tenant's catalogue has at most {MOST_NAMES} scopes")).into());
        }
        scoped.enter_scopes(&scopes, now).await?;
        for (scope, description) in preset.scopes.iter().filter(|(scope, _)| scopes.contains(scope)) {
            scoped.describe_scope(scope, description).await?;
        }

        for (role, PresetRole { description, scopes }) in preset.roles.iter().filter(|(role, _)| change(format!("roles.{role}")))
        {
            let mut scopes = scopes.clone();
            scopes.sort();
            if !scoped.update_role(role, description, &scopes, now).await? {
                scoped.create_role(role, description, &scopes, now).await?;
            }
        }
        if scoped.roles().await?.len() > MOST_NAMES {
            return Err(Refusal::Conflict(format!("a tenant has at most {MOST_NAMES} roles")).into());
        }

        for (audience, PresetAudience { uri, profile }) in
            preset.audiences.iter().filter(|(audience, _)| change(format!("audiences.{audience}")))
        {
            match holdings.audiences.iter().find(|kept| kept.name == *audience) {
                Some(kept) => {
                    self.check_audience(audience, uri, profile)?;
                    scoped.update_audience(kept.id, audience, uri, &as_json(profile)?).await.map_err(taken)?;
                }
                None => {
                    let new = NewAudience { name: audience.clone(), uri: uri.clone(), profile: profile.clone() };
                    deeds.extend(self.keep_audience(scoped, tenant.id, actor, new, now).await?.1);
                }
            }
        }

        records.insert(name.to_owned(), Record { applied_at: now, set });
        scoped.set_tenant_presets(&as_json(&records)?).await?;
        let detail = json!({ "preset": name, "changed": applied.changed, "kept": applied.kept });
        deeds.push(actor.did("tenant.preset", format!("tenant:{}", tenant.id), detail, now));
        Ok((applied, deeds))
    }

    /// What presets set in a tenant, and what is otherwise now.
    pub async fn presets_of(&self, tenant: &Tenant) -> Result<Vec<PresetView>, Failure> {
        let records = records(tenant)?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.store.begin_in(tenant.id).await?;
        let has = Holdings::of(tenant, &mut tx.tenant(tenant.id).await?).await?.items()?;
        let mut views = Vec::new();
        for (name, Record { applied_at, set }) in records {
            // One that a newer server knew is told as it was applied.
            let wanted = match Preset::named(&name) {
                Ok(preset) => preset.items()?,
                Err(Failure::Refusal(_)) => set.clone(),
                Err(failure) => return Err(failure),
            };
            let differs = wanted.iter().filter(|(item, wanted)| has.get(*item) != Some(*wanted)).map(|(item, wanted)| {
                Difference { item: item.clone(), preset: wanted.clone(), now: has.get(item).cloned().unwrap_or_default() }
            });
            let differs: Vec<Difference> = differs.collect();
            let set = set.keys().filter(|item| has.get(*item) == wanted.get(*item)).cloned().collect();
            views.push(PresetView { name, applied_at, set, differs });
        }
        Ok(views)
    }
}

/// Whether an item can become as it is wanted: an audience keeps its kind of key.
fn fits(item: &str, wanted: &Value, now: Option<&Value>) -> bool {
    let Some(now) = now.filter(|_| item.starts_with("audiences.")) else { return true };
    ["/profile/own_key", "/profile/algorithm"].iter().all(|path| wanted.pointer(path) == now.pointer(path))
}

/// Puts a value at `name` or `name.member`.
fn put(settings: &mut Value, path: &str, value: Value) {
    let Some(all) = settings.as_object_mut() else { return };
    match path.split_once('.') {
        Some((name, member)) => {
            if let Some(members) = all.entry(name).or_insert_with(|| Map::new().into()).as_object_mut() {
                members.insert(member.to_owned(), value);
            }
        }
        None => {
            all.insert(path.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::Patterns;
    use crate::role::is_role;
    use crate::scope::{MANAGEMENT, is_scope};

    #[test]
    fn what_was_changed_by_hand_is_kept() {
        let (a, b, c) = (&json!("a"), &json!("b"), &json!("c"));
        assert_eq!(judge(a, None, None), Step::Set);
        assert_eq!(judge(a, Some(a), None), Step::Same);
        assert_eq!(judge(a, Some(b), None), Step::Keep);
        assert_eq!(judge(b, Some(a), Some(a)), Step::Set, "the preset became another, nobody else did anything");
        assert_eq!(judge(b, Some(c), Some(a)), Step::Keep);
        assert_eq!(judge(a, None, Some(a)), Step::Keep, "somebody removed it");
    }

    #[test]
    fn every_preset_is_one_that_can_be_served() {
        for name in names() {
            let preset = Preset::named(name).unwrap();
            preset.settings.check().unwrap();
            let usual = preset.settings.usual_audience.as_ref().unwrap();
            assert!(preset.audiences.contains_key(usual), "{name}: its usual audience is its own");
            // The CTA Aggregator's routes are our own.
            let speaks = preset.items().unwrap().contains_key(&format!("settings.dialects.{name}"));
            assert_eq!(speaks, name != "cta", "{name} speaks its dialect");
            for (scope, description) in &preset.scopes {
                assert!(is_scope(scope) && !MANAGEMENT.contains(&scope.as_str()), "{name}: {scope}");
                assert!(!description.is_empty(), "{name}: {scope}");
            }
            for (role, PresetRole { description, scopes }) in &preset.roles {
                assert!(is_role(role) && !description.is_empty(), "{name}: {role}");
                Patterns::granted("scopes", scopes).unwrap();
                let named = scopes.iter().filter(|scope| is_scope(scope) && !MANAGEMENT.contains(&scope.as_str()));
                for scope in named {
                    assert!(preset.scopes.contains_key(scope), "{name}: {role} names {scope}, which is in no catalogue");
                }
            }
        }
    }

    #[test]
    fn a_value_is_put_beside_others() {
        let mut settings = json!({ "token_lifetime": 60, "policies": { "own": 1 } });
        put(&mut settings, "policies.cc-api", json!(2));
        put(&mut settings, "dialects.howler", json!({}));
        put(&mut settings, "lenient_bearer", json!(true));
        let expected = json!({
            "token_lifetime": 60, "policies": { "own": 1, "cc-api": 2 }, "dialects": { "howler": {} }, "lenient_bearer": true
        });
        assert_eq!(settings, expected);
        let items: Vec<String> = setting_items(&settings).into_keys().collect();
        assert_eq!(
            items,
            [
                "settings.dialects.howler",
                "settings.lenient_bearer",
                "settings.policies.cc-api",
                "settings.policies.own",
                "settings.token_lifetime"
            ]
        );
    }

    #[test]
    fn an_audience_keeps_its_kind_of_key() {
        let with = |own: bool| json!({ "uri": "u", "profile": { "own_key": own, "algorithm": "EdDSA" } });
        assert!(fits("audiences.a", &with(true), Some(&with(true))) && fits("audiences.a", &with(true), None));
        assert!(!fits("audiences.a", &with(true), Some(&with(false))));
    }
}
