//! API keys: made, rotated with overlap, imported, disabled, revoked.

use chrono::{DateTime, TimeDelta, Utc};
use claviger_store::TenantTx;
use claviger_store::api_key::{ApiKey, KEY_ID_TAKEN, KeptSecret, KeyStatus, NewKey, StoredSecret};
use claviger_store::id::{KeyId, Owner, TenantId, UserId};
use claviger_store::token_family::{EndedBy, Principal};
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::acting::ActingRule;
use crate::audit::{Actor, Authority, Draft, append};
use crate::directory::TenantEntry;
use crate::exchange::Purpose;
use crate::grant::{KeyGrant, to_key};
use crate::limits::{KeyLimits, Quota, RateLimit};
use crate::password::imported;
use crate::role::checked_roles;
use crate::scope::ScopeSet;
use crate::secret::{AppKeyCredential, SHORTEST_IMPORTED_SECRET, is_own_key, new_key_id, new_secret};
use crate::settings::{RequestInfo, check_lifetime};
use crate::standing::{Fallen, standing};
use crate::tenant::check_name;
use crate::verify::Transport;
use crate::{Failure, Fault, Issuer, Refusal};

/// Longest overlap of two secrets, in seconds: 30 days.
const LONGEST_OVERLAP: u32 = 2_592_000;

/// What a key id is, for whoever sent something else.
const KEY_FORM: &str = "the key is 1 to 128 letters, digits, `.`, `_`, `~` and `-`";

/// Client ids of our own.
const RESERVED: [&str; 2] = [crate::refresh::OWN_CLIENT, crate::token_issue::OPERATOR_CLIENT];

/// A key to be made.
pub struct KeyOrder {
    /// Whom it acts for.
    pub owner: Owner,
    /// Its name for people.
    pub name: String,
    /// What it may do; empty is nothing.
    pub scopes: Vec<String>,
    /// Roles whose scopes it has too.
    pub roles: Vec<String>,
    /// What it says of acting for others.
    pub acting: ActingRule,
    /// Seconds that its tokens live; `None` takes the application's, then the tenant's.
    pub token_lifetime: Option<i32>,
    /// Whether an exchange gives a refresh token too.
    pub refresh: bool,
    /// When it ends; `None` is as the tenant's rule says, `Some(None)` never.
    pub expires_at: Option<Option<DateTime<Utc>>>,
    /// Where, how and how often it may be used.
    pub limits: KeyLimits,
    /// A pair made elsewhere; `None` makes a new one.
    pub import: Option<ImportedPair>,
}

/// A pair that another system made.
pub struct ImportedPair {
    /// Its public half.
    pub key: String,
    /// Its secret.
    pub secret: SecretString,
}

/// A pair that another system made, and of whose secret it kept a hash alone.
pub struct HashedPair {
    /// Its public half.
    pub key: String,
    /// The hash, in a form in which passwords are taken over too.
    pub hash: SecretString,
}

/// What to change of a key; `None` leaves as it is.
#[derive(Default)]
pub struct KeyChange {
    /// Its name.
    pub name: Option<String>,
    /// What it may do.
    pub scopes: Option<Vec<String>>,
    /// Roles whose scopes it has too.
    pub roles: Option<Vec<String>>,
    /// Whom it may say that it acts for; `Some(None)` is nobody.
    pub act_as: Option<Option<Vec<String>>>,
    /// Whom it acts for when nobody is named.
    pub act_as_default: Option<Option<String>>,
    /// Who may act for its owner with it. A key is one for that from its beginning, and stays one.
    pub agents: Option<Vec<String>>,
    /// Seconds; `Some(None)` takes the application's, then the tenant's.
    pub token_lifetime: Option<Option<i32>>,
    /// Whether an exchange gives a refresh token too.
    pub refresh: Option<bool>,
    /// When it ends; `Some(None)` is never.
    pub expires_at: Option<Option<DateTime<Utc>>>,
    /// Where, how and how often it may be used.
    pub limits: LimitsChange,
    /// Whether it may be exchanged.
    pub disabled: Option<bool>,
}

/// What to change of a key's limits; `None` leaves as it is.
#[derive(Default)]
pub struct LimitsChange {
    /// Networks that it may be used from; empty is everywhere.
    pub allowed_ips: Option<Vec<IpNet>>,
    /// How it may be used; empty is every way.
    pub transports: Option<Vec<Transport>>,
    /// How often in a short time; `Some(None)` sets no limit.
    pub rate_limit: Option<Option<RateLimit>>,
    /// How often in a day or month; `Some(None)` sets no limit.
    pub quota: Option<Option<Quota>>,
}

impl LimitsChange {
    /// What they are then; `None` when nothing changes.
    fn apply(self, before: &KeyLimits) -> Option<KeyLimits> {
        let Self { allowed_ips, transports, rate_limit, quota } = self;
        let after = KeyLimits {
            allowed_ips: allowed_ips.unwrap_or_else(|| before.allowed_ips.clone()),
            transports: transports.unwrap_or_else(|| before.transports.clone()),
            rate_limit: rate_limit.unwrap_or(before.rate_limit),
            quota: quota.unwrap_or(before.quota),
        };
        (after != *before).then_some(after)
    }
}

/// Whose keys are revoked together, and which of them.
pub struct BulkRevocation {
    /// The owner.
    pub owner: Owner,
    /// A key that is kept.
    pub except: Option<KeyId>,
}

/// A key with the secret that is shown this once.
pub struct MadeKey {
    /// The key.
    pub key: ApiKey,
    /// The secret.
    pub secret: SecretString,
}

/// The pair of a key that is made.
struct Taken {
    id: KeyId,
    kept: KeptSecret,
    /// Whether it was made elsewhere.
    imported: bool,
}

/// A key that can do what an actor cannot must not be handed to that actor by a new secret.
fn check_not_above(tenant: &TenantEntry, actor: &Actor, key: &ApiKey) -> Result<(), Refusal> {
    actor.authority.check_gives(key.scopes.iter().map(String::as_str))?;
    actor.authority.check_gives_roles(&tenant.catalogue, &key.roles)
}

/// Who may let a key act for others: whoever may act for others themselves; and everybody may let others act for them, who could
/// give them a key of theirs as well.
fn check_acting_given(actor: &Actor, owner: Owner, acting: &ActingRule) -> Result<(), Refusal> {
    match acting.act_as.is_none() && matches!(owner, Owner::User(_)) && actor.subject == owner.to_string() {
        true => Ok(()),
        false => actor.authority.check_gives(["users:impersonate"]),
    }
}

/// Limits as they are kept.
fn limits_value(limits: &KeyLimits) -> Result<serde_json::Value, Fault> {
    serde_json::to_value(limits).map_err(|error| Fault::Internal(error.to_string()))
}

/// The slot for the next secret: a free one or one that has ended, else the one that was superseded already. By state
/// and not by time: two rotations may read the same time.
fn next_slot(secrets: &[StoredSecret], now: DateTime<Utc>) -> i16 {
    [0, 1]
        .into_iter()
        .find(|slot| !secrets.iter().any(|secret| secret.slot == *slot && secret.expires_at.is_none_or(|end| now < end)))
        .or_else(|| secrets.iter().find(|secret| secret.expires_at.is_some()).map(|secret| secret.slot))
        .unwrap_or(0)
}

impl Issuer {
    /// Makes a key. Its secret is returned this once and kept nowhere.
    pub async fn create_key(&self, tenant: TenantId, actor: &Actor, order: KeyOrder) -> Result<MadeKey, Failure> {
        let now = self.clock.now();
        let entry = self.entry_of(tenant).await?;
        let owner = order.owner;
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        let mut deeds = Vec::new();
        let made = self.create_key_in(&mut scoped, &entry, actor, order, now, &mut deeds).await?;
        append(&mut scoped, tenant, &self.chain_key, &self.random, deeds).await?;
        tx.commit().await?;
        self.forget_rights(tenant, owner);
        Ok(made)
    }

    /// Makes a key in a transaction; what is to be written down of it is added to the deeds.
    pub(crate) async fn create_key_in(
        &self,
        tx: &mut TenantTx<'_>,
        tenant: &TenantEntry,
        actor: &Actor,
        order: KeyOrder,
        now: DateTime<Utc>,
        deeds: &mut Vec<Draft>,
    ) -> Result<MadeKey, Failure> {
        let imported = order.import.is_some();
        let (id, secret) = self.pair(order.import.as_ref())?;
        let kept = self.keep(&id, &secret)?;
        let key = self.keep_key(tx, tenant, actor, order, Taken { id, kept, imported }, now, deeds).await?;
        Ok(MadeKey { key, secret })
    }

    /// Takes over a key of whose secret only the hash is known. Once the secret is used, its MAC is kept instead.
    pub async fn import_hashed_key(
        &self,
        tenant: TenantId,
        actor: &Actor,
        order: KeyOrder,
        pair: HashedPair,
    ) -> Result<ApiKey, Failure> {
        let now = self.clock.now();
        let entry = self.entry_of(tenant).await?;
        let owner = order.owner;
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        let mut deeds = Vec::new();
        let key = self.import_hashed_key_in(&mut scoped, &entry, actor, order, pair, now, &mut deeds).await?;
        append(&mut scoped, tenant, &self.chain_key, &self.random, deeds).await?;
        tx.commit().await?;
        self.forget_rights(tenant, owner);
        Ok(key)
    }

    /// As [`Issuer::import_hashed_key`], in a transaction; what is to be written down of it is added to the deeds.
    #[expect(clippy::too_many_arguments, reason = "who makes what, where, when, and of what")]
    pub(crate) async fn import_hashed_key_in(
        &self,
        tx: &mut TenantTx<'_>,
        tenant: &TenantEntry,
        actor: &Actor,
        order: KeyOrder,
        pair: HashedPair,
        now: DateTime<Utc>,
        deeds: &mut Vec<Draft>,
    ) -> Result<ApiKey, Failure> {
        let HashedPair { key, hash } = pair;
        // What begins as ours was made by us, and we have kept no hash of it: any other may have one, and is refused so late
        // that nobody can tell.
        let id = KeyId::parse(&key).filter(|id| !is_own_key(id, &self.settings.brand));
        let id =
            id.ok_or_else(|| Refusal::invalid("import", format!("{KEY_FORM}; with a hash, it does not begin as ours do")))?;
        let kept = KeptSecret::Hash(imported("import.hash", hash.expose_secret())?);
        self.keep_key(tx, tenant, actor, order, Taken { id, kept, imported: true }, now, deeds).await
    }

    #[expect(clippy::too_many_arguments, reason = "who makes what, where, when, and of what")]
    async fn keep_key(
        &self,
        tx: &mut TenantTx<'_>,
        tenant: &TenantEntry,
        actor: &Actor,
        order: KeyOrder,
        taken: Taken,
        now: DateTime<Utc>,
        deeds: &mut Vec<Draft>,
    ) -> Result<ApiKey, Failure> {
        let KeyOrder { owner, name, scopes, roles, acting, token_lifetime, refresh, expires_at, limits, import: _ } = order;
        let Taken { id, kept, imported } = taken;
        check_name("name", &name)?;
        check_lifetime(token_lifetime)?;
        let expires_at = tenant.settings.keys().end(expires_at, now)?;
        limits.check()?;
        let scopes = ScopeSet::granted(&scopes)?;
        let roles = checked_roles(&roles)?;
        if RESERVED.contains(&id.as_str()) {
            return Err(Refusal::invalid("import", "the key's id is one that our own tokens use as a client id").into());
        }
        check_owner(tx, owner).await?;
        deeds.extend(to_key(tx, tenant, actor, &KeyGrant { owner, scopes: &scopes, roles: &roles }, now).await?);
        let scopes = scopes.to_vec();
        acting.check(owner, &scopes, refresh)?;
        let created_by = &actor.name;
        let new = NewKey {
            id: &id,
            name: &name,
            owner,
            scopes: &scopes,
            roles: &roles,
            token_lifetime,
            refresh,
            expires_at,
            created_by,
        };
        if let Err(error) = tx.create_key(&new, &kept, now).await {
            return Err(match error.unique_violation() {
                Some(KEY_ID_TAKEN | "api_keys_pkey") => {
                    Refusal::Conflict("the key id is taken; key ids are unique over all tenants".into()).into()
                }
                _ => error.into(),
            });
        }
        let mut detail = json!({ "owner": owner.to_string(), "scopes": scopes, "roles": roles, "imported": imported });
        if acting != ActingRule::default() {
            check_acting_given(actor, owner, &acting)?;
            let ActingRule { act_as, act_as_default, agents } = &acting;
            tx.set_key_acting(&id, act_as.as_deref(), act_as_default.as_deref(), agents.as_deref()).await?;
            if let Some(detail) = detail.as_object_mut() {
                detail.insert("act_as".into(), json!(act_as));
                detail.insert("agents".into(), json!(agents));
            }
        }
        if limits != KeyLimits::default() {
            let kept = limits_value(&limits)?;
            tx.set_key_limits(&id, &kept).await?;
            if let Some(detail) = detail.as_object_mut() {
                detail.insert("limits".into(), kept);
            }
        }
        deeds.push(actor.did("key.create", format!("key:{id}"), detail, now));
        let key = tx.key(&id).await?;
        key.ok_or_else(|| Fault::Internal("a new key is not there".into()).into())
    }

    fn pair(&self, import: Option<&ImportedPair>) -> Result<(KeyId, SecretString), Failure> {
        let brand = &self.settings.brand;
        let Some(pair) = import else {
            let id = new_key_id(brand, &self.random).ok_or_else(|| Fault::Internal("the brand makes no key id".into()))?;
            return Ok((id, new_secret(brand, &self.random)));
        };
        let pair = AppKeyCredential::of(&pair.key, pair.secret.expose_secret(), brand).filter(|pair| pair.plausible);
        let Some(pair) = pair else {
            let problem =
                format!("{KEY_FORM}, and a secret of visible ASCII; what begins as our own pairs do must have their checksum");
            return Err(Refusal::invalid("import", problem).into());
        };
        if pair.secret.expose_secret().len() < SHORTEST_IMPORTED_SECRET {
            let problem = format!("the secret is shorter than {SHORTEST_IMPORTED_SECRET} characters and could be guessed");
            return Err(Refusal::invalid("import", problem).into());
        }
        Ok((pair.key, pair.secret))
    }

    pub(crate) fn keep(&self, id: &KeyId, secret: &SecretString) -> Result<KeptSecret, Fault> {
        self.peppers.keep(id, secret).ok_or_else(|| Fault::Internal("there is no pepper".into()))
    }

    /// A key, revoked ones too.
    pub async fn find_key(&self, tenant: TenantId, id: &KeyId) -> Result<ApiKey, Failure> {
        self.write_uses().await?;
        let mut tx = self.store.begin_in(tenant).await?;
        Ok(tx.tenant(tenant).await?.key(id).await?.ok_or(Refusal::NotFound)?)
    }

    /// Keys that are not revoked, in order of id, after the given one; all owners', or one's.
    pub async fn list_keys(
        &self,
        tenant: TenantId,
        owner: Option<Owner>,
        after: Option<&KeyId>,
        limit: u16,
    ) -> Result<Vec<ApiKey>, Failure> {
        self.write_uses().await?;
        let mut tx = self.store.begin_in(tenant).await?;
        Ok(tx.tenant(tenant).await?.list_keys(owner, after, limit).await?)
    }

    /// Changes a key.
    pub async fn change_key(&self, tenant: TenantId, actor: &Actor, id: &KeyId, change: KeyChange) -> Result<ApiKey, Failure> {
        let now = self.clock.now();
        let KeyChange {
            name,
            scopes,
            roles,
            act_as,
            act_as_default,
            agents,
            token_lifetime,
            refresh,
            expires_at,
            limits,
            disabled,
        } = change;
        let entry = self.entry_of(tenant).await?;
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        let before = living_key(&mut scoped, id).await?;
        let stops_refreshing = before.refresh && refresh == Some(false);
        let owner = before.owner;
        let mut deeds = Vec::new();
        let mut families = Vec::new();
        let target = format!("key:{id}");
        if act_as.is_some() || act_as_default.is_some() || agents.is_some() {
            if before.agents.is_some() != agents.as_ref().or(before.agents.as_ref()).is_some() {
                let why = "is set when a key is made: make another key for that";
                return Err(Refusal::invalid("agents", why).into());
            }
            let acting = ActingRule {
                act_as: act_as.unwrap_or(before.act_as.clone()),
                act_as_default: act_as_default.unwrap_or(before.act_as_default.clone()),
                agents: agents.or(before.agents.clone()),
            };
            check_acting_given(actor, owner, &acting)?;
            acting.check(owner, scopes.as_deref().unwrap_or(&before.scopes), refresh.unwrap_or(before.refresh))?;
            let ActingRule { act_as, act_as_default, agents } = &acting;
            scoped.set_key_acting(id, act_as.as_deref(), act_as_default.as_deref(), agents.as_deref()).await?;
            deeds.push(actor.did("key.update", &target, json!({ "act_as": act_as, "agents": agents }), now));
        }
        if scopes.is_some() || roles.is_some() {
            // What it holds already, somebody gave who could.
            let added = |new: &[String], old: &[String]| new.iter().filter(|one| !old.contains(one)).cloned().collect::<Vec<_>>();
            let new_scopes = ScopeSet::granted(scopes.as_deref().unwrap_or(&before.scopes))?;
            let new_roles = checked_roles(roles.as_deref().unwrap_or(&before.roles))?;
            let grant = KeyGrant {
                owner,
                scopes: &ScopeSet::kept(&added(&new_scopes.to_vec(), &before.scopes)),
                roles: &added(&new_roles, &before.roles),
            };
            deeds.extend(to_key(&mut scoped, &entry, actor, &grant, now).await?);
            let acting = ActingRule { act_as: before.act_as.clone(), act_as_default: None, agents: before.agents.clone() };
            acting.check(owner, &new_scopes.to_vec(), false)?;
            if new_roles != before.roles {
                scoped.set_key_roles(id, &new_roles).await?;
                deeds.push(actor.did("key.update", &target, json!({ "roles": new_roles }), now));
            }
        }
        if name.is_some() || scopes.is_some() || token_lifetime.is_some() || refresh.is_some() || expires_at.is_some() {
            let name = name.unwrap_or(before.name);
            let scopes = match scopes {
                Some(scopes) => ScopeSet::granted(&scopes)?.to_vec(),
                None => before.scopes,
            };
            let token_lifetime = token_lifetime.unwrap_or(before.token_lifetime);
            let refresh = refresh.unwrap_or(before.refresh);
            let expires_at = match expires_at {
                Some(wished) => entry.settings.keys().end(Some(wished), now)?,
                None => before.expires_at,
            };
            check_name("name", &name)?;
            check_lifetime(token_lifetime)?;
            scoped.update_key(id, &name, &scopes, token_lifetime, refresh, expires_at).await?;
            let detail = json!({
                "scopes": scopes, "token_lifetime": token_lifetime, "refresh": refresh, "expires_at": expires_at,
            });
            deeds.push(actor.did("key.update", &target, detail, now));
        }
        let kept = KeyLimits::kept(&before.limits).ok_or_else(|| Fault::Internal(format!("the limits of key {id}")))?;
        if let Some(limits) = limits.apply(&kept) {
            limits.check()?;
            let value = limits_value(&limits)?;
            scoped.set_key_limits(id, &value).await?;
            deeds.push(actor.did("key.update", &target, json!({ "limits": value }), now));
        }
        if let Some(disabled) = disabled
            && scoped.set_key_disabled(id, disabled.then_some(actor.name.as_str()), now).await?
        {
            deeds.push(actor.did(if disabled { "key.disable" } else { "key.enable" }, &target, json!({}), now));
        }
        if disabled == Some(true) || stops_refreshing {
            families = scoped.end_families(&Principal::Key(id.clone()), now, &actor.name, EndedBy::Key).await?;
        }
        append(&mut scoped, tenant, &self.chain_key, &self.random, deeds).await?;
        let key = scoped.key(id).await?;
        self.commit_logins(tx, tenant, None, &families).await?;
        self.forget("api_keys", tenant, id);
        self.forget_rights(tenant, owner);
        Ok(key.ok_or(Refusal::NotFound)?)
    }

    /// Gives a key a new secret. The one before it works for `grace` seconds more; an older one ends at once.
    pub async fn rotate_key(&self, tenant: TenantId, actor: &Actor, id: &KeyId, grace: u32) -> Result<MadeKey, Failure> {
        let now = self.clock.now();
        if grace > LONGEST_OVERLAP {
            return Err(Refusal::invalid("grace_seconds", format!("is 0 to {LONGEST_OVERLAP}")).into());
        }
        let secret = new_secret(&self.settings.brand, &self.random);
        let kept = self.keep(id, &secret)?;
        let entry = self.entry_of(tenant).await?;
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        let key = living_key(&mut scoped, id).await?;
        check_not_above(&entry, actor, &key)?;
        let secrets = scoped.key_secrets(id).await?;
        let slot = next_slot(&secrets, now);
        for other in secrets.iter().filter(|secret| secret.slot != slot) {
            scoped.end_secret(id, other.slot, now + TimeDelta::seconds(i64::from(grace))).await?;
        }
        scoped.put_secret(id, slot, &kept, now).await?;
        // What the secret before began ends with it.
        let families = match grace {
            0 => scoped.end_families(&Principal::Key(id.clone()), now, &actor.name, EndedBy::Key).await?,
            _ => scoped.cap_families(id, now + TimeDelta::seconds(i64::from(grace))).await?,
        };
        let deed = actor.did("key.rotate", format!("key:{id}"), json!({ "grace_seconds": grace }), now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        self.commit_logins(tx, tenant, None, &families).await?;
        self.forget("api_keys", tenant, id);
        Ok(MadeKey { key, secret })
    }

    /// A grant may have changed what the owner holds, and what is in the catalogue.
    pub(crate) fn forget_rights(&self, tenant: TenantId, owner: Owner) {
        self.forget("scopes", tenant, "");
        match owner {
            Owner::User(id) => self.forget("users", tenant, id),
            Owner::Application(id) => self.forget("applications", tenant, id),
        }
    }

    /// Revokes a key for good. Its tokens count no more at our own endpoints.
    pub async fn revoke_key(&self, tenant: TenantId, actor: &Actor, id: &KeyId) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        if !scoped.revoke_key(id, now, &actor.name).await? {
            return Err(Refusal::NotFound.into());
        }
        let families = scoped.end_families(&Principal::Key(id.clone()), now, &actor.name, EndedBy::Key).await?;
        let deed = actor.did("key.revoke", format!("key:{id}"), json!({}), now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        self.commit_logins(tx, tenant, None, &families).await?;
        self.forget("api_keys", tenant, id);
        Ok(())
    }

    /// Revokes a key for whoever holds its secret, from wherever that is: who finds a pair in the open can end it.
    pub async fn revoke_by_possession(
        &self,
        tenant: Option<&TenantEntry>,
        credential: Option<AppKeyCredential>,
        request: &RequestInfo,
    ) -> Result<(), Failure> {
        let now = self.clock.now();
        let entry = match self.verify_pair_for(Purpose::Proof, tenant, credential, request, now).await {
            Ok(key) => key.entry,
            Err(Failure::Refusal(Refusal::InvalidPair)) => return Err(Refusal::Unauthenticated.into()),
            Err(failure) => return Err(failure),
        };
        let id = &entry.key.id;
        let actor = Actor {
            name: format!("key:{id}"),
            subject: entry.key.owner.to_string(),
            authority: Authority::Scopes(ScopeSet::default()),
            request: request.clone(),
        };
        self.revoke_key(entry.tenant, &actor, id).await
    }

    /// A key of this person; anybody else's is none.
    pub async fn key_of(&self, tenant: TenantId, user: UserId, id: &KeyId) -> Result<ApiKey, Failure> {
        let key = self.find_key(tenant, id).await?;
        match key.owner == Owner::User(user) && !matches!(key.status, KeyStatus::Revoked(_)) {
            true => Ok(key),
            false => Err(Refusal::NotFound.into()),
        }
    }

    /// Revokes every key of an owner for good, at once or not at all. Returns them.
    pub async fn revoke_keys(&self, tenant: TenantId, actor: &Actor, which: &BulkRevocation) -> Result<Vec<KeyId>, Failure> {
        let now = self.clock.now();
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        check_owner(&mut scoped, which.owner).await?;
        let revoked = scoped.revoke_keys_of(which.owner, which.except.as_ref(), now, &actor.name).await?;
        let mut families = Vec::new();
        for id in &revoked {
            families.extend(scoped.end_families(&Principal::Key(id.clone()), now, &actor.name, EndedBy::Key).await?);
        }
        let deeds = revoked.iter().map(|id| {
            let detail = json!({ "bulk": which.owner.to_string() });
            actor.did("key.revoke", format!("key:{id}"), detail, now)
        });
        append(&mut scoped, tenant, &self.chain_key, &self.random, deeds.collect::<Vec<_>>()).await?;
        self.commit_logins(tx, tenant, None, &families).await?;
        for id in &revoked {
            self.forget("api_keys", tenant, id);
        }
        Ok(revoked)
    }

    /// What whoever manages a key hears of it: `active`, or why it cannot be used.
    pub async fn verdict(&self, tenant: TenantId, key: &ApiKey) -> Result<&'static str, Failure> {
        let entry = self.entry_of(tenant).await?;
        let owner = self.directory.owner(tenant, key.owner).await?;
        Ok(match standing(&entry, &owner, Some(key), None, self.clock.now()) {
            Ok(()) => "active",
            Err(Fallen::KeyDisabled) if matches!(&key.status, KeyStatus::Disabled(by) if by.by == DORMANT) => "dormant",
            Err(fallen) => fallen.reason(),
        })
    }
}

/// Who disables keys that nobody uses.
pub(crate) const DORMANT: &str = "system:dormant";

/// A key that is not revoked, locked.
async fn living_key(tx: &mut TenantTx<'_>, id: &KeyId) -> Result<ApiKey, Failure> {
    if !tx.lock_key(id).await? {
        return Err(Refusal::NotFound.into());
    }
    match tx.key(id).await? {
        Some(key) if !matches!(key.status, KeyStatus::Revoked(_)) => Ok(key),
        _ => Err(Refusal::NotFound.into()),
    }
}

/// The owner of a new key is of this tenant, and not deleted.
pub(crate) async fn check_owner(tx: &mut TenantTx<'_>, owner: Owner) -> Result<(), Failure> {
    let (field, status) = match owner {
        Owner::Application(id) => ("application_id", tx.application(id).await?.map(|application| application.status)),
        Owner::User(id) => ("user_id", tx.user(id).await?.map(|user| user.status)),
    };
    match status {
        Some(status) if status.word() != "deleted" => Ok(()),
        _ => Err(Refusal::invalid(field, "there is none of that id in this tenant").into()),
    }
}

#[cfg(test)]
mod tests {
    use claviger_store::api_key::SecretMac;

    use super::*;

    fn secret(slot: i16, created: i64, ends: Option<i64>) -> StoredSecret {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        StoredSecret { slot, kept: KeptSecret::Mac(SecretMac([0; 32]), 1), created_at: at(created), expires_at: ends.map(at) }
    }

    #[test]
    fn a_rotation_takes_a_free_slot_then_an_ended_one_then_the_superseded() {
        let now = DateTime::from_timestamp(100, 0).unwrap();
        assert_eq!(next_slot(&[secret(0, 1, None)], now), 1);
        assert_eq!(next_slot(&[secret(0, 1, Some(99)), secret(1, 2, None)], now), 0);
        assert_eq!(next_slot(&[secret(0, 2, None), secret(1, 2, Some(200))], now), 1);
        assert_eq!(next_slot(&[secret(0, 2, Some(200)), secret(1, 2, None)], now), 0);
    }
}
