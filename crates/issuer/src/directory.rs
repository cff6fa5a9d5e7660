//! What the hot path knows without asking the database: tenants, owners and keys, as they are now.
//!
//! An entry is loaded when it is first needed and forgotten when its row changes (see [`crate::news`]). While news is
//! late, nothing is served from memory: a revoked key must not live on because a cable was pulled.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use claviger_store::Store;
use claviger_store::api_key::{ApiKey, StoredSecret};
use claviger_store::audience::Audience;
use claviger_store::change::Change;
use claviger_store::id::{ApplicationId, FamilyId, KeyId, Owner, TenantId, TokenId, UserId};
use claviger_store::issued_token::IssuedToken;
use claviger_store::signing_key::SigningKey;
use claviger_store::tenant::Tenant;
use claviger_store::token_family::TokenFamily;
use moka::sync::Cache;

use crate::audience::{AudienceEntry, Profile, profile};
use crate::clock::Clock;
use crate::key_pair::Signer;
use crate::limits::KeyLimits;
use crate::revocation_feed::Feeds;
use crate::rights::Catalogue;
use crate::scope::ScopeSet;
use crate::settings::{Settings, TenantSettings};
use crate::signing_key::{self, Opened, Published, Ring};
use crate::standing::OwnerNow;
use crate::tenant::is_slug;
use crate::vault::Vault;
use crate::{Failure, Fault};

/// How long memory is trusted after the last good sweep.
const TRUSTED: Duration = Duration::from_secs(5);
/// Entries of each kind.
const CAPACITY: u64 = 100_000;

/// A tenant with what its requests need.
pub struct TenantEntry {
    /// Its row.
    pub tenant: Tenant,
    /// Its settings.
    pub settings: TenantSettings,
    /// Its issuer identifier.
    pub issuer: String,
    /// Sign its tokens.
    pub(crate) ring: Ring,
    /// Its public keys.
    pub published: Published,
    /// Services with their own shape of token.
    pub(crate) audiences: Vec<AudienceEntry>,
    /// What its roles and scopes mean.
    pub catalogue: Catalogue,
}

impl TenantEntry {
    /// What signs the tokens of an audience: its own key, or the tenant's.
    pub(crate) fn signer_for<'a>(&'a self, audience: &'a AudienceEntry, clock: &Clock) -> Result<&'a Signer, Fault> {
        let absent = || Fault::Internal(format!("the audience {} has no active signing key", audience.row.name));
        match (audience.profile.own_key, &audience.ring) {
            (false, _) => self.signer(clock),
            (true, Some(ring)) => ring.signer(clock).map(Arc::as_ref).ok_or_else(absent),
            (true, None) => Err(absent()),
        }
    }

    /// What signs its tokens.
    pub(crate) fn signer(&self, clock: &Clock) -> Result<&Signer, Fault> {
        let slug = &self.tenant.slug;
        self.ring
            .signer(clock)
            .map(Arc::as_ref)
            .ok_or_else(|| Fault::Internal(format!("the tenant {slug} has no active signing key")))
    }
}

/// A key with its secrets.
pub struct KeyEntry {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its row.
    pub key: ApiKey,
    /// What it may do.
    pub(crate) scopes: Arc<ScopeSet>,
    /// Where, how and how often it may be used.
    pub(crate) limits: KeyLimits,
    pub(crate) secrets: Vec<StoredSecret>,
}

/// The memory.
pub(crate) struct Directory {
    store: Store,
    news: Store,
    vault: Vault,
    settings: Arc<Settings>,
    clock: Clock,
    tenants: Cache<TenantId, Arc<TenantEntry>>,
    slugs: Cache<String, TenantId>,
    owners: Cache<(TenantId, Owner), Arc<OwnerNow>>,
    keys: Cache<KeyId, Arc<KeyEntry>>,
    families: Cache<(TenantId, FamilyId), Arc<TokenFamily>>,
    tokens: Cache<(TenantId, TokenId), Arc<IssuedToken>>,
    /// Who waits for revocations.
    feeds: Arc<Feeds>,
    /// Since when, by the clock's steady time, this server publishes a signing key. Survives every forgetting.
    known_keys: Cache<(TenantId, String), Duration>,
    /// Counts forgettings. A load that began before one is not kept.
    forgettings: AtomicU64,
    born: Instant,
    /// Milliseconds after `born` until which memory is trusted.
    trusted_until: AtomicU64,
}

impl Directory {
    pub(crate) fn new(store: Store, vault: Vault, settings: Arc<Settings>, feeds: Arc<Feeds>, clock: Clock) -> Self {
        fn cache<K: Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static>() -> Cache<K, V> {
            Cache::builder().max_capacity(CAPACITY).build()
        }
        Self {
            news: store.aside(2, []),
            store,
            vault,
            settings,
            clock,
            tenants: cache(),
            slugs: cache(),
            owners: cache(),
            keys: cache(),
            families: cache(),
            tokens: cache(),
            feeds,
            known_keys: cache(),
            forgettings: AtomicU64::new(0),
            born: Instant::now(),
            trusted_until: AtomicU64::new(0),
        }
    }

    /// The tenant of that id; `None` if it never was.
    pub(crate) async fn tenant(&self, id: TenantId) -> Result<Option<Arc<TenantEntry>>, Failure> {
        self.remembered(&self.tenants, id, || self.load_tenant(id)).await
    }

    /// The tenant of that slug.
    pub(crate) async fn tenant_by_slug(&self, slug: &str) -> Result<Option<Arc<TenantEntry>>, Failure> {
        if !is_slug(slug) {
            return Ok(None);
        }
        // A slug never changes its tenant, so it is trusted whatever the news.
        let id = match self.slugs.get(slug) {
            Some(id) => id,
            None => match Box::pin(self.load_slug(slug)).await? {
                Some(id) => id,
                None => return Ok(None),
            },
        };
        self.tenant(id).await
    }

    /// The key of that id, in whatever tenant.
    pub(crate) async fn key(&self, id: &KeyId) -> Result<Option<Arc<KeyEntry>>, Failure> {
        self.remembered(&self.keys, id.clone(), || self.load_key(id)).await
    }

    /// The key as the database has it, when what is in memory did not fit: its secret may have been rotated a moment
    /// ago, on another server.
    pub(crate) async fn reloaded_key(&self, id: &KeyId) -> Result<Option<Arc<KeyEntry>>, Failure> {
        // Beside what is in memory, which others go on using meanwhile.
        let before = self.forgettings.load(Ordering::SeqCst);
        let loaded = Box::pin(self.load_key(id)).await?.map(Arc::new);
        if let Some(entry) = &loaded
            && self.is_trusted()
            && self.forgettings.load(Ordering::SeqCst) == before
        {
            self.keys.insert(id.clone(), entry.clone());
            if self.forgettings.load(Ordering::SeqCst) != before {
                self.keys.invalidate(id);
            }
        }
        Ok(loaded)
    }

    /// The tenant of that slug for what it publishes: while the database is away, as it was last known. Public keys do
    /// not become untrue.
    pub(crate) async fn publishing_tenant(&self, slug: &str) -> Result<Option<Arc<TenantEntry>>, Failure> {
        match self.tenant_by_slug(slug).await {
            Err(Failure::Fault(fault)) => match self.slugs.get(slug).and_then(|id| self.tenants.get(&id)) {
                Some(tenant) => Ok(Some(tenant)),
                None => Err(fault.into()),
            },
            found => found,
        }
    }

    /// The token family of that id.
    pub(crate) async fn family(&self, tenant: TenantId, id: FamilyId) -> Result<Option<Arc<TokenFamily>>, Failure> {
        self.remembered(&self.families, (tenant, id), || async move {
            let mut tx = self.store.begin_in(tenant).await?;
            Ok(tx.tenant(tenant).await?.family(id).await?)
        })
        .await
    }

    /// The record of a token.
    pub(crate) async fn issued_token(
        &self,
        tenant: TenantId,
        id: TokenId,
        expires_at: DateTime<Utc>,
    ) -> Result<Option<Arc<IssuedToken>>, Failure> {
        self.remembered(&self.tokens, (tenant, id), || async move {
            let mut tx = self.store.begin_in(tenant).await?;
            Ok(tx.tenant(tenant).await?.issued_token(id, expires_at).await?)
        })
        .await
    }

    /// A person; `None` if there never was one of that id.
    pub(crate) async fn person(&self, tenant: TenantId, id: UserId) -> Result<Option<Arc<OwnerNow>>, Failure> {
        self.find_owner(tenant, Owner::User(id)).await
    }

    /// A person or an application; `None` if there never was one of that id.
    pub(crate) async fn find_owner(&self, tenant: TenantId, owner: Owner) -> Result<Option<Arc<OwnerNow>>, Failure> {
        self.remembered(&self.owners, (tenant, owner), || self.load_owner(tenant, owner)).await
    }

    /// A key's owner.
    pub(crate) async fn owner(&self, tenant: TenantId, owner: Owner) -> Result<Arc<OwnerNow>, Failure> {
        self.find_owner(tenant, owner).await?.ok_or_else(|| Fault::Internal(format!("the owner {owner} of a key is gone")).into())
    }

    /// From memory if it may be trusted, else loaded; kept unless something was forgotten meanwhile.
    ///
    /// The load is boxed, and made only when it is needed: a query's future is kilobytes large, and every request would
    /// carry it along.
    async fn remembered<K, V, L>(
        &self,
        cache: &Cache<K, Arc<V>>,
        key: K,
        load: impl FnOnce() -> L,
    ) -> Result<Option<Arc<V>>, Failure>
    where
        K: Hash + Eq + Send + Sync + Clone + 'static,
        V: Send + Sync + 'static,
        L: Future<Output = Result<Option<V>, Failure>>,
    {
        let trusted = self.is_trusted();
        if trusted && let Some(value) = cache.get(&key) {
            return Ok(Some(value));
        }
        let before = self.forgettings.load(Ordering::SeqCst);
        let Some(value) = Box::pin(load()).await?.map(Arc::new) else { return Ok(None) };
        if trusted {
            cache.insert(key.clone(), value.clone());
            // Counted before it is carried out: either we see the count, or the forgetting sees our entry.
            if self.forgettings.load(Ordering::SeqCst) != before {
                cache.invalidate(&key);
            }
        }
        Ok(Some(value))
    }

    async fn load_slug(&self, slug: &str) -> Result<Option<TenantId>, Failure> {
        let id = self.store.begin().await?.any_tenant().tenant_id_by_slug(slug).await?;
        if let Some(id) = id {
            self.slugs.insert(slug.to_owned(), id);
        }
        Ok(id)
    }

    async fn load_tenant(&self, id: TenantId) -> Result<Option<TenantEntry>, Failure> {
        let mut tx = self.store.begin_in(id).await?;
        let Some(tenant) = tx.any_tenant().tenant_by_id(id).await? else { return Ok(None) };
        let mut scoped = tx.tenant(id).await?;
        let (kept, audiences) = (scoped.signing_keys().await?, scoped.audiences().await?);
        let platform = tenant.slug == self.settings.default_tenant;
        let settings: TenantSettings = serde_json::from_value(tenant.settings.clone())
            .map_err(|error| Fault::Internal(format!("the settings of tenant {}: {error}", tenant.slug)))?;
        let ceiling = settings.key_scopes.as_deref();
        let catalogue = Catalogue::new(scoped.scopes().await?, scoped.roles().await?, ceiling, platform);
        let now = self.clock.steady();
        let known_since = |key: &SigningKey| self.known_keys.get_with((id, key.kid.clone()), || now);
        let profiles = audiences.into_iter().map(|row| Ok((profile(&row)?, row))).collect::<Result<Vec<_>, Fault>>()?;
        let profile_of = |audience| profiles.iter().find(|(_, row)| row.id == audience).map(|(profile, _)| profile.clone());
        let opened = signing_key::open(id, kept, settings.signing(), &self.vault, known_since, profile_of)
            .map_err(|error| Fault::Internal(format!("the signing key of tenant {}: {error}", tenant.slug)))?;
        let Opened { ring, mut audience_rings, published } = opened;
        let with_ring = |(profile, row): (Profile, Audience)| {
            let ring = audience_rings.remove(&row.id);
            AudienceEntry { row, profile, ring }
        };
        let audiences = profiles.into_iter().map(with_ring).collect();
        let issuer = self.settings.issuer(&tenant.slug);
        Ok(Some(TenantEntry { tenant, settings, issuer, ring, published, audiences, catalogue }))
    }

    async fn load_key(&self, id: &KeyId) -> Result<Option<KeyEntry>, Failure> {
        let mut tx = self.store.begin().await?;
        let Some(tenant) = tx.any_tenant().tenant_of_key(id).await? else { return Ok(None) };
        let mut scoped = tx.tenant(tenant).await?;
        let Some(key) = scoped.key(id).await? else { return Ok(None) };
        let secrets = scoped.key_secrets(id).await?;
        let limits = KeyLimits::kept(&key.limits).ok_or_else(|| Fault::Internal(format!("the limits of key {id}")))?;
        Ok(Some(KeyEntry { tenant, scopes: Arc::new(ScopeSet::kept(&key.scopes)), limits, key, secrets }))
    }

    async fn load_owner(&self, tenant: TenantId, owner: Owner) -> Result<Option<OwnerNow>, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        Ok(match owner {
            Owner::Application(id) => scoped.application(id).await?.map(OwnerNow::Application),
            Owner::User(id) => scoped.user(id).await?.map(|user| OwnerNow::User(Arc::new(user))),
        })
    }

    pub(crate) fn is_trusted(&self) -> bool {
        self.since_birth(Instant::now()) < self.trusted_until.load(Ordering::SeqCst)
    }

    fn since_birth(&self, at: Instant) -> u64 {
        u64::try_from(at.duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }

    /// A sweep that began at `began` found all news: memory may be trusted for a while from then.
    pub(crate) fn trust_from(&self, began: Instant) {
        self.trusted_until.store(self.since_birth(began + TRUSTED), Ordering::SeqCst);
    }

    /// Since when changes made elsewhere may have been missed.
    pub(crate) fn news_age(&self) -> Duration {
        let known = Duration::from_millis(self.trusted_until.load(Ordering::SeqCst)).saturating_sub(TRUSTED);
        self.born.elapsed().saturating_sub(known)
    }

    /// Forgets what a change made untrue.
    pub(crate) fn forget(&self, change: &Change) {
        self.forgettings.fetch_add(1, Ordering::SeqCst);
        let Change { table, tenant, id } = change;
        match table.as_str() {
            "tenants" | "signing_keys" | "audiences" | "roles" | "scopes" => self.tenants.invalidate(tenant),
            "api_keys" | "api_key_secrets" => match KeyId::parse(id) {
                Some(key) => self.keys.invalidate(&key),
                None => self.keys.invalidate_all(),
            },
            "users" => match id.parse() {
                Ok(id) => self.owners.invalidate(&(*tenant, Owner::User(UserId(id)))),
                Err(_) => self.owners.invalidate_all(),
            },
            "applications" => match id.parse() {
                Ok(id) => self.owners.invalidate(&(*tenant, Owner::Application(ApplicationId(id)))),
                Err(_) => self.owners.invalidate_all(),
            },
            "token_families" => match id.parse() {
                Ok(id) => self.families.invalidate(&(*tenant, FamilyId(id))),
                Err(_) => self.families.invalidate_all(),
            },
            "issued_tokens" => match id.parse() {
                Ok(id) => self.tokens.invalidate(&(*tenant, TokenId(id))),
                Err(_) => self.tokens.invalidate_all(),
            },
            // Asked of the database each time.
            "sessions" => {}
            // A newer server's table: we cannot know what it means to us.
            _ => self.forget_everything(),
        }
        // Whatever changed may have revoked something.
        self.feeds.wake(*tenant);
    }

    /// Forgets what is known of a family.
    pub(crate) fn forget_family(&self, tenant: TenantId, id: FamilyId) {
        self.forgettings.fetch_add(1, Ordering::SeqCst);
        self.families.invalidate(&(tenant, id));
        self.feeds.wake(tenant);
    }

    /// News may have been missed.
    pub(crate) fn forget_everything(&self) {
        self.forgettings.fetch_add(1, Ordering::SeqCst);
        self.tenants.invalidate_all();
        self.owners.invalidate_all();
        self.keys.invalidate_all();
        self.families.invalidate_all();
        self.tokens.invalidate_all();
        self.feeds.wake_all();
    }

    /// For the news alone: it must not wait behind requests.
    pub(crate) fn news_store(&self) -> &Store {
        &self.news
    }
}
