//! A tenant's signing keys: sealed at rest, parsed once, published as a JWK set, and moved through their life.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use claviger_store::TenantTx;
use claviger_store::id::{AudienceId, TenantId};
use claviger_store::signing_key::{Algorithm, Ends, GoneWhy, KEY_KNOWN, NewSigningKey, SigningKey, SigningKeyState};
use claviger_verifier::KeySet;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::audience::{Profile, living, profile};
use crate::audit::{Actor, Draft, append};
use crate::clock::Clock;
use crate::key_life::{self, Step, Terms, due, is_published, may_sign_from, published_until};
use crate::key_pair::{self, Private, PublicKey, Signer};
use crate::settings::{SigningRule, TenantSettings};
use crate::vault::{DoesNotOpen, Vault};
use crate::verifier_watch::waiting_for;
use crate::{Failure, Fault, Issuer, Refusal};

/// Most keys that a tenant and its audiences publish, fewer than a verifier of ours takes.
const MOST_PUBLISHED: usize = 100;

/// Where a private half is sealed.
pub(crate) fn place(tenant: TenantId, kid: &str) -> String {
    format!("signing_keys:sealed_private:{tenant}:{kid}")
}

/// What a server knows of a tenant's keys.
pub(crate) struct Ring {
    keys: Vec<RingKey>,
    rule: SigningRule,
}

struct RingKey {
    key: SigningKey,
    /// When this server first published it, by its steady time.
    known_since: Duration,
    signer: Option<Arc<Signer>>,
}

impl Ring {
    /// What signs now, as far as this server knows its keys long enough.
    pub(crate) fn signer(&self, clock: &Clock) -> Option<&Arc<Signer>> {
        let now = clock.steady();
        key_life::signs(&self.keys, self.rule, |key| now.saturating_sub(key.known_since))?.signer.as_ref()
    }
}

impl AsRef<SigningKey> for RingKey {
    fn as_ref(&self) -> &SigningKey {
        &self.key
    }
}

/// What the world sees of a tenant's keys.
pub struct Published {
    /// The JWK set (RFC 7517 §5), serialised.
    pub jwks: String,
    /// Its strong entity tag, quoted.
    pub etag: String,
    /// The key that signs now.
    pub active: Option<PublicKey>,
    /// To check tokens with that open our own endpoints: the tenant's own.
    pub keys: KeySet,
    /// To check any token with: those of audiences too, also the private ones.
    pub(crate) all_keys: KeySet,
    rows: Vec<SigningKey>,
}

impl Published {
    /// The newest key of the tenant's own.
    pub(crate) fn newest(&self) -> Option<&SigningKey> {
        self.rows.iter().find(|key| is_published(key) && key.audience.is_none())
    }

    /// Seconds that a verifier may keep what it fetches at `now`.
    #[must_use]
    pub fn max_age(&self, now: DateTime<Utc>) -> u32 {
        key_life::max_age(&self.rows, now)
    }
}

/// A tenant's keys, opened.
pub(crate) struct Opened {
    pub(crate) ring: Ring,
    /// Of audiences that have their own.
    pub(crate) audience_rings: BTreeMap<AudienceId, Ring>,
    pub(crate) published: Published,
}

/// Opens the signing keys that can sign, and lists those that are published. `known_since` says since when this server
/// publishes a key.
pub(crate) fn open(
    tenant: TenantId,
    kept: Vec<SigningKey>,
    rule: SigningRule,
    vault: &Vault,
    known_since: impl Fn(&SigningKey) -> Duration,
    profile_of: impl Fn(AudienceId) -> Option<Profile>,
) -> Result<Opened, DoesNotOpen> {
    let mut rings = BTreeMap::from([(None, Vec::new())]);
    let mut active = None;
    let mut jwks = Vec::new();
    let (mut keys, mut all_keys) = (KeySet::new(), KeySet::new());
    for key in kept.iter().filter(|key| is_published(key)) {
        let mut public = PublicKey::new(key.algorithm, &key.public_key).map_err(|_| DoesNotOpen)?;
        let profile = key.audience.and_then(&profile_of);
        if let Some(profile) = &profile {
            public = public.named(profile.algorithm);
        }
        if !profile.is_some_and(|profile| profile.private_jwks) {
            jwks.push(public.jwk());
        }
        public.insert_into(&mut all_keys).map_err(|_| DoesNotOpen)?;
        if key.audience.is_none() {
            public.insert_into(&mut keys).map_err(|_| DoesNotOpen)?;
        }
        let signs = matches!(key.state, SigningKeyState::Active { .. } | SigningKeyState::Retired { erased_at: None, .. });
        let signer = match signs {
            true => Some(Arc::new(Signer::new(&public, &vault.open(&place(tenant, &key.kid), &key.sealed_private)?)?)),
            false => None,
        };
        if key.audience.is_none() && matches!(key.state, SigningKeyState::Active { .. }) {
            active = Some(public);
        }
        rings.entry(key.audience).or_default().push(RingKey { key: key.clone(), known_since: known_since(key), signer });
    }
    let jwks = json!({ "keys": jwks }).to_string();
    let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(Sha256::digest(&jwks)));
    let ring = Ring { keys: rings.remove(&None).unwrap_or_default(), rule };
    let audience_rings = rings.into_iter().filter_map(|(audience, keys)| Some((audience?, Ring { keys, rule }))).collect();
    Ok(Opened { ring, audience_rings, published: Published { jwks, etag, active, keys, all_keys, rows: kept } })
}

/// A signing key as an admin sees it.
#[derive(Debug, Clone)]
pub struct SigningKeyView {
    /// Its public half.
    pub public: PublicKey,
    /// `next`, `active`, `retired` or `gone`.
    pub state: &'static str,
    /// When it was made, and published.
    pub created_at: DateTime<Utc>,
    /// When it began to sign; of a next key, when it may at the earliest.
    pub signs_from: Option<DateTime<Utc>>,
    /// When it stopped to sign.
    pub retired_at: Option<DateTime<Utc>>,
    /// When it stops, or stopped, being published, as far as that is known.
    pub published_until: Option<DateTime<Utc>>,
    /// True while a token without an end may be under it, which keeps it published.
    pub unending: bool,
    /// Why it is gone.
    pub gone: Option<&'static str>,
    /// Whose tokens alone it signs.
    pub audience: Option<AudienceId>,
}

fn view(key: &SigningKey, rule: SigningRule) -> Result<SigningKeyView, Fault> {
    let public = PublicKey::new(key.algorithm, &key.public_key).map_err(|error| Fault::Internal(error.to_string()))?;
    let (state, retired_at, unending, gone) = match key.state {
        SigningKeyState::Next => ("next", None, false, None),
        SigningKeyState::Active { .. } => ("active", None, false, None),
        SigningKeyState::Retired { at, ends, .. } => ("retired", Some(at), ends == Some(Ends::Never), None),
        SigningKeyState::Gone { at, why } => ("gone", Some(at), false, Some(why.word())),
    };
    let signs_from = match key.state {
        SigningKeyState::Next => Some(may_sign_from(key, rule)),
        _ => key.activated_at,
    };
    Ok(SigningKeyView {
        public,
        state,
        created_at: key.created_at,
        signs_from,
        retired_at,
        published_until: published_until(key),
        unending,
        gone,
        audience: key.audience,
    })
}

/// A key to be brought along.
pub struct ImportedKey<'a> {
    /// Base64 of an Ed25519 pair or seed, or PEM of PKCS#8.
    pub private: &'a str,
    /// It signs from now on, though no verifier has seen it.
    pub at_once: bool,
    /// Takes pairs that were published as examples.
    pub samples: bool,
}

impl Issuer {
    /// The time by which keys go through their life: the database's, so that servers agree. A manual clock stands for it.
    async fn key_time(&self) -> Result<DateTime<Utc>, Failure> {
        match &self.clock {
            Clock::System => Ok(self.store.database_time().await?),
            manual @ Clock::Manual(_) => Ok(manual.now()),
        }
    }

    /// A new pair. RSA takes so long that it is made aside.
    pub(crate) async fn new_pair(&self, algorithm: Algorithm) -> Result<(PublicKey, Private), Fault> {
        let random = self.random.clone();
        let made = match algorithm {
            Algorithm::Rs256 => tokio::task::spawn_blocking(move || key_pair::generate(algorithm, &random)).await,
            Algorithm::EdDsa | Algorithm::Es256 => Ok(key_pair::generate(algorithm, &random)),
        };
        let made = made.map_err(|error| Fault::Internal(error.to_string()))?;
        made.map_err(|error| Fault::Internal(format!("a signing key could not be made: {error}")))
    }

    /// Makes a key, for the tenant or one of its audiences, and keeps it.
    pub(crate) async fn keep_new_signing_key(
        &self,
        scoped: &mut TenantTx<'_>,
        tenant: TenantId,
        audience: Option<AudienceId>,
        at_once: bool,
        now: DateTime<Utc>,
    ) -> Result<PublicKey, Failure> {
        let algorithm = match audience {
            Some(id) => living(scoped, id).await?.1.algorithm.algorithm(),
            None => Algorithm::EdDsa,
        };
        let (public, private) = self.new_pair(algorithm).await?;
        self.keep_signing_key(scoped, tenant, audience, &public, &private, at_once, now).await?;
        Ok(public)
    }

    #[expect(clippy::too_many_arguments, reason = "all of what makes a row")]
    pub(crate) async fn keep_signing_key(
        &self,
        scoped: &mut TenantTx<'_>,
        tenant: TenantId,
        audience: Option<AudienceId>,
        public: &PublicKey,
        private: &Private,
        at_once: bool,
        now: DateTime<Utc>,
    ) -> Result<(), Failure> {
        if is_full(&scoped.signing_keys().await?) {
            return Err(Refusal::Conflict(format!(
                "a tenant publishes at most {MOST_PUBLISHED} keys: retire some, or let tokens live shorter or keys longer"
            ))
            .into());
        }
        let sealed = self.signing_vault.seal(&place(tenant, public.kid()), private, &self.random);
        let sealed = sealed.map_err(|error| Fault::Internal(format!("a signing key could not be sealed: {error}")))?;
        let new = NewSigningKey {
            kid: public.kid(),
            algorithm: public.algorithm(),
            public_key: public.bytes(),
            sealed_private: &sealed,
            at_once,
            audience,
        };
        match scoped.create_signing_key(new, now).await {
            Err(error) if error.unique_violation() == Some(KEY_KNOWN) => {
                Err(Refusal::Conflict(format!("the key {} was here before; a key is used once", public.kid())).into())
            }
            kept => Ok(kept?),
        }
    }

    /// Moves the keys of every tenant on, as far as it is time. One server does it, whichever is first.
    pub async fn keep_signing_keys(&self) -> Result<u64, Failure> {
        let now = self.key_time().await?;
        self.flush_jwks_fetches().await?;
        let mut moved = 0;
        for tenant in self.store.all_tenants().await? {
            match self.keep_signing_keys_of(tenant, now).await {
                Ok(count) => moved += count,
                Err(error) => tracing::error!(tenant.id = %tenant, error = %error, "signing keys could not be moved on"),
            }
        }
        Ok(moved)
    }

    async fn keep_signing_keys_of(&self, tenant: TenantId, now: DateTime<Utc>) -> Result<u64, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        let Some(row) = tx.any_tenant().tenant_by_id(tenant).await? else { return Ok(0) };
        if row.status.word() == "deleted" {
            return Ok(0);
        }
        let settings = settings(&row.settings)?;
        let mut scoped = tx.tenant(tenant).await?;
        let unending = |key: &SigningKey| matches!(key.state, SigningKeyState::Retired { ends: Some(Ends::Never), .. });
        let keys = scoped.signing_keys().await?;
        let terms = terms_of(&mut scoped, &settings, &keys, now).await?;
        if next_step(&keys, &terms, now).is_none() && !keys.iter().any(unending) || !scoped.try_signing_turn().await? {
            return Ok(0);
        }
        let actor = Actor::schedule();
        let mut deeds = Vec::new();
        // Read again, now that it is our turn.
        let mut keys = scoped.signing_keys().await?;
        let terms = terms_of(&mut scoped, &settings, &keys, now).await?;
        for key in keys.iter().filter(|key| unending(key)) {
            self.count_tokens(&mut scoped, key.kid.as_str(), key.activated_at.unwrap_or(key.created_at), now).await?;
        }
        keys = scoped.signing_keys().await?;
        while let Some((audience, step)) = next_step(&keys, &terms, now) {
            deeds.extend(self.take_step(&mut scoped, tenant, &actor, (&of(&keys, audience), audience), step, now).await?);
            keys = scoped.signing_keys().await?;
        }
        let moved = u64::try_from(deeds.len()).unwrap_or(u64::MAX);
        append(&mut scoped, tenant, &self.chain_key, &self.random, deeds).await?;
        self.commit(tx, "signing_keys", tenant, "").await?;
        Ok(moved)
    }

    /// Does what is due, and says what the audit trail hears of it.
    async fn take_step(
        &self,
        scoped: &mut TenantTx<'_>,
        tenant: TenantId,
        actor: &Actor,
        (keys, audience): (&[SigningKey], Option<AudienceId>),
        step: Step,
        now: DateTime<Utc>,
    ) -> Result<Option<Draft>, Failure> {
        Ok(match step {
            Step::Publish => Some(self.publish(scoped, tenant, actor, audience, now).await?),
            Step::Activate(kid) => Some(self.activate(scoped, actor, keys, &kid, false, now).await?),
            Step::Erase(kid) => {
                scoped.erase_signing_key(&kid, now).await?;
                Some(actor.did("signing_key.erase", target(&kid), json!({}), now))
            }
            Step::Count(kid, from) => {
                self.count_tokens(scoped, &kid, from, now).await?;
                None
            }
            Step::Remove(kid) => {
                scoped.withdraw_signing_key(&kid, GoneWhy::Ended, now).await?;
                Some(actor.did("signing_key.remove", target(&kid), json!({ "why": GoneWhy::Ended.word() }), now))
            }
        })
    }

    /// Makes the next key.
    async fn publish(
        &self,
        scoped: &mut TenantTx<'_>,
        tenant: TenantId,
        actor: &Actor,
        audience: Option<AudienceId>,
        now: DateTime<Utc>,
    ) -> Result<Draft, Failure> {
        let public = self.keep_new_signing_key(scoped, tenant, audience, false, now).await?;
        let detail = json!({ "algorithm": public.algorithm().name(), "audience": audience, "state": "next" });
        Ok(actor.did("signing_key.create", target(public.kid()), detail, now))
    }

    /// The active key makes room for the next one, of keys that follow each other. `at_once` lets every server sign with it
    /// though it does not know it long.
    async fn activate(
        &self,
        scoped: &mut TenantTx<'_>,
        actor: &Actor,
        keys: &[SigningKey],
        kid: &str,
        at_once: bool,
        now: DateTime<Utc>,
    ) -> Result<Draft, Failure> {
        let before = self.retire_active(scoped, keys, now).await?;
        if !scoped.activate_signing_key(kid, at_once, now).await? {
            return Err(Fault::Internal("a next key was not there".into()).into());
        }
        Ok(actor.did("signing_key.rotate", target(kid), json!({ "before": before, "emergency": false }), now))
    }

    async fn retire_active(
        &self,
        scoped: &mut TenantTx<'_>,
        keys: &[SigningKey],
        now: DateTime<Utc>,
    ) -> Result<Option<String>, Failure> {
        let Some(active) = keys.iter().find(|key| matches!(key.state, SigningKeyState::Active { .. })) else { return Ok(None) };
        scoped.retire_signing_key(&active.kid, now).await?;
        Ok(Some(active.kid.clone()))
    }

    /// Finds out until when a key is needed that signs no more: at most until every token has ended that was issued since it
    /// began.
    async fn count_tokens(
        &self,
        scoped: &mut TenantTx<'_>,
        kid: &str,
        from: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<(), Failure> {
        // `iat` is in whole seconds, and the clock of whoever wrote it need not be ours.
        let from = from - chrono::TimeDelta::minutes(1);
        let end = scoped.last_token_end(from, now).await?.unwrap_or(now);
        let unending = scoped.has_unending_token(from, now).await?;
        scoped.set_signing_key_end(kid, end, unending).await?;
        Ok(())
    }

    /// All keys of a tenant, newest first, those that are gone too.
    pub async fn list_signing_keys(&self, tenant: TenantId) -> Result<Vec<SigningKeyView>, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        let row = tx.any_tenant().tenant_by_id(tenant).await?.ok_or(Refusal::NotFound)?;
        let rule = settings(&row.settings)?.signing();
        let keys = tx.tenant(tenant).await?.signing_keys().await?;
        Ok(keys.iter().map(|key| view(key, rule)).collect::<Result<_, _>>()?)
    }

    /// A tenant that publishes a key whose pair was published as an example: whoever reads it can sign.
    pub async fn tenant_with_sample_key(&self) -> Result<Option<String>, Failure> {
        for tenant in self.store.all_tenants().await? {
            let mut tx = self.store.begin_in(tenant).await?;
            let keys = tx.tenant(tenant).await?.signing_keys().await?;
            let is_sample = |key: &SigningKey| {
                let public = PublicKey::new(key.algorithm, &key.public_key);
                is_published(key) && public.is_ok_and(|public| public.is_published_sample())
            };
            if keys.iter().any(is_sample) {
                return Ok(tx.any_tenant().tenant_by_id(tenant).await?.map(|row| row.slug));
            }
        }
        Ok(None)
    }

    /// Rotates, the tenant's keys or those of one audience: publishes a next key, or, when there is one that was published
    /// long enough, lets it sign. In an emergency a new key signs at once, every key that could sign is withdrawn, and
    /// nothing that they signed counts any more.
    pub async fn rotate_signing_key(
        &self,
        tenant: TenantId,
        actor: &Actor,
        audience: Option<AudienceId>,
        emergency: bool,
    ) -> Result<Vec<SigningKeyView>, Failure> {
        self.change_signing_keys(tenant, async |scoped, keys, rule, now| {
            let pinned = match audience {
                Some(id) => has_own_key(scoped, id).await?.static_key,
                None => false,
            };
            let keys = of(keys, audience);
            if emergency {
                let mut withdrawn = Vec::new();
                for key in keys.iter().filter(|key| !key.sealed_private.is_empty()) {
                    if scoped.withdraw_signing_key(&key.kid, GoneWhy::Emergency, now).await? {
                        withdrawn.push(key.kid.clone());
                    }
                }
                let public = self.keep_new_signing_key(scoped, tenant, audience, true, now).await?;
                let detail = json!({ "withdrawn": withdrawn, "audience": audience, "emergency": true });
                return Ok(actor.did("signing_key.rotate", target(public.kid()), detail, now));
            }
            match key_life::next(&keys) {
                Some(_) if pinned => Err(waits_for_confirmation().into()),
                Some(next) => {
                    check_turn(next, rule, now)?;
                    self.activate(scoped, actor, &keys, &next.kid, false, now).await
                }
                None => self.publish(scoped, tenant, actor, audience, now).await,
            }
        })
        .await
    }

    /// Lets a next key sign, if it was published long enough.
    pub async fn activate_signing_key(&self, tenant: TenantId, actor: &Actor, kid: &str) -> Result<Vec<SigningKeyView>, Failure> {
        self.change_signing_keys(tenant, async |scoped, keys, rule, now| {
            let key = keys.iter().find(|key| key.kid == kid).ok_or(Refusal::NotFound)?;
            if key.state != SigningKeyState::Next {
                return Err(Refusal::Conflict("only a next key can be activated".into()).into());
            }
            if let Some(id) = key.audience
                && living(scoped, id).await?.1.static_key
            {
                return Err(waits_for_confirmation().into());
            }
            check_turn(key, rule, now)?;
            self.activate(scoped, actor, &of(keys, key.audience), kid, false, now).await
        })
        .await
    }

    /// The service of an audience with a static key has the next one from now on, of this `kid`: every server signs with it
    /// at once.
    pub async fn confirm_audience_key(
        &self,
        tenant: TenantId,
        actor: &Actor,
        audience: AudienceId,
        kid: &str,
    ) -> Result<Vec<SigningKeyView>, Failure> {
        self.change_signing_keys(tenant, async |scoped, keys, _, now| {
            if !has_own_key(scoped, audience).await?.static_key {
                let problem = "this audience has no static key: its keys follow each other by themselves";
                return Err(Refusal::Conflict(problem.into()).into());
            }
            let keys = of(keys, Some(audience));
            let next = key_life::next(&keys).ok_or_else(|| {
                Refusal::Conflict("there is no next key to be confirmed: rotate the audience's signing key first".into())
            })?;
            if next.kid != kid {
                return Err(Refusal::Conflict(format!("the next key is {}, and not this one", next.kid)).into());
            }
            self.activate(scoped, actor, &keys, kid, true, now).await
        })
        .await
    }

    /// Takes a key out: a next one before it ever signed, or a retired one with all that it signed.
    pub async fn retire_signing_key(&self, tenant: TenantId, actor: &Actor, kid: &str) -> Result<Vec<SigningKeyView>, Failure> {
        self.change_signing_keys(tenant, async |scoped, keys, _, now| {
            let key = keys.iter().find(|key| key.kid == kid).ok_or(Refusal::NotFound)?;
            match key.state {
                SigningKeyState::Active { .. } => {
                    Err(Refusal::Conflict("this key signs: rotate, and it retires when its successor signs".into()).into())
                }
                SigningKeyState::Gone { .. } => Err(Refusal::Conflict("this key is gone already".into()).into()),
                SigningKeyState::Next | SigningKeyState::Retired { .. } => {
                    scoped.withdraw_signing_key(kid, GoneWhy::Discarded, now).await?;
                    Ok(actor.did("signing_key.retire", target(kid), json!({}), now))
                }
            }
        })
        .await
    }

    /// Brings a key along, as the next one or to sign at once.
    pub async fn import_signing_key(
        &self,
        tenant: TenantId,
        actor: &Actor,
        imported: ImportedKey<'_>,
    ) -> Result<Vec<SigningKeyView>, Failure> {
        let ImportedKey { private, at_once, samples } = imported;
        let (public, private) = key_pair::read(private).map_err(|_| {
            Refusal::invalid("private_key", "is base64 of 64 bytes as `claviger keypair generate` prints it, or PEM of PKCS#8")
        })?;
        if public.is_published_sample() && !samples {
            return Err(Refusal::invalid("private_key", "was published as an example: everybody can sign with it").into());
        }
        if public.algorithm() != Algorithm::EdDsa {
            return Err(Refusal::invalid("private_key", "a tenant signs with Ed25519; other algorithms are for audiences").into());
        }
        self.change_signing_keys(tenant, async |scoped, keys, _, now| {
            let keys = of(keys, None);
            if at_once {
                self.retire_active(scoped, &keys, now).await?;
            } else if key_life::next(&keys).is_some() {
                let problem = "there is a next key already: retire it first, or let it have its turn";
                return Err(Refusal::Conflict(problem.into()).into());
            }
            self.keep_signing_key(scoped, tenant, None, &public, &private, at_once, now).await?;
            Ok(actor.did("signing_key.import", target(public.kid()), json!({ "at_once": at_once }), now))
        })
        .await
    }

    /// Waits for the turn, changes, writes it down, commits, and returns the keys as they are then.
    async fn change_signing_keys(
        &self,
        tenant: TenantId,
        change: impl AsyncFnOnce(&mut TenantTx<'_>, &[SigningKey], SigningRule, DateTime<Utc>) -> Result<Draft, Failure>,
    ) -> Result<Vec<SigningKeyView>, Failure> {
        let now = self.key_time().await?;
        let mut tx = self.store.begin_in(tenant).await?;
        let row = tx.any_tenant().tenant_by_id(tenant).await?.ok_or(Refusal::NotFound)?;
        let rule = settings(&row.settings)?.signing();
        let mut scoped = tx.tenant(tenant).await?;
        scoped.signing_turn().await?;
        let keys = scoped.signing_keys().await?;
        let deed = change(&mut scoped, &keys, rule, now).await?;
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        let keys = scoped.signing_keys().await?;
        self.commit(tx, "signing_keys", tenant, "").await?;
        Ok(keys.iter().map(|key| view(key, rule)).collect::<Result<_, _>>()?)
    }
}

fn settings(row: &serde_json::Value) -> Result<TenantSettings, Fault> {
    serde_json::from_value(row.clone()).map_err(|error| Fault::Internal(error.to_string()))
}

/// The keys that follow each other: the tenant's, or those of one audience.
fn of(keys: &[SigningKey], audience: Option<AudienceId>) -> Vec<SigningKey> {
    keys.iter().filter(|key| key.audience == audience).cloned().collect()
}

/// Whether there is room for another key among the published ones.
fn is_full(keys: &[SigningKey]) -> bool {
    keys.iter().filter(|key| is_published(key)).count() >= MOST_PUBLISHED
}

struct TenantTerms {
    rule: SigningRule,
    /// Audiences whose next key waits for an admin.
    pinned: BTreeSet<AudienceId>,
    /// Next keys that a named verifier does not know.
    awaited: BTreeSet<String>,
}

/// What a tenant's keys, and those of its audiences, follow each other by.
async fn terms_of(
    scoped: &mut TenantTx<'_>,
    settings: &TenantSettings,
    keys: &[SigningKey],
    now: DateTime<Utc>,
) -> Result<TenantTerms, Failure> {
    let mut pinned = BTreeSet::new();
    for row in scoped.audiences().await? {
        if profile(&row)?.static_key {
            pinned.insert(row.id);
        }
    }
    let callers = match settings.verifiers() {
        [] => Vec::new(),
        _ => scoped.jwks_fetches().await?,
    };
    let is_awaited = |key: &&SigningKey| !waiting_for(settings.verifiers(), key, &callers, now).is_empty();
    // Who verifies an audience's tokens is not among those who are named for the tenant.
    let next = keys.iter().filter(|key| key.state == SigningKeyState::Next && key.audience.is_none());
    let awaited = next.filter(is_awaited).map(|key| key.kid.clone()).collect();
    Ok(TenantTerms { rule: settings.signing(), pinned, awaited })
}

/// What is due first, and for whom.
fn next_step(keys: &[SigningKey], terms: &TenantTerms, now: DateTime<Utc>) -> Option<(Option<AudienceId>, Step)> {
    let full = is_full(keys);
    let whose: BTreeSet<_> = keys.iter().map(|key| key.audience).collect();
    whose.into_iter().find_map(|audience| {
        let keys = of(keys, audience);
        let pinned = audience.is_some_and(|id| terms.pinned.contains(&id));
        let awaited = key_life::next(&keys).is_some_and(|next| terms.awaited.contains(&next.kid));
        due(&keys, Terms { rule: terms.rule, pinned, full, awaited }, now).map(|step| (audience, step))
    })
}

async fn has_own_key(scoped: &mut TenantTx<'_>, audience: AudienceId) -> Result<Profile, Failure> {
    let (_, profile) = living(scoped, audience).await?;
    match profile.own_key {
        true => Ok(profile),
        false => Err(Refusal::Conflict("this audience has no key of its own: the tenant's signs its tokens".into()).into()),
    }
}

fn waits_for_confirmation() -> Refusal {
    Refusal::Conflict("the next key of this audience signs when an admin confirms that the service has it".into())
}

fn target(kid: &str) -> String {
    format!("signing_key:{kid}")
}

fn check_turn(next: &SigningKey, rule: SigningRule, now: DateTime<Utc>) -> Result<(), Refusal> {
    let from = may_sign_from(next, rule);
    match now < from {
        true => Err(Refusal::Conflict(format!(
            "the next key {} signs from {} on, when verifiers have had the time to fetch it; an emergency does not wait",
            next.kid,
            from.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::vault::MasterKey;

    #[test]
    fn a_sealed_key_opens_for_its_own_tenant_only() {
        let random = Random::from_system();
        let vault = Vault::new(&MasterKey::generate(&random), "signing").unwrap();
        let tenant = TenantId(random.uuid());
        let now = DateTime::UNIX_EPOCH;
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256] {
            let (public, private) = key_pair::generate(algorithm, &random).unwrap();
            let kept = SigningKey {
                kid: public.kid().into(),
                algorithm,
                public_key: public.bytes().to_vec(),
                sealed_private: vault.seal(&place(tenant, public.kid()), &private, &random).unwrap(),
                created_at: now,
                activated_at: Some(now),
                at_once: true,
                audience: None,
                state: SigningKeyState::Active { since: now },
            };
            let open = |tenant| open(tenant, vec![kept.clone()], SigningRule::default(), &vault, |_| Duration::ZERO, |_| None);
            let Opened { ring, published, .. } = open(tenant).unwrap();
            assert_eq!(ring.signer(&Clock::System).unwrap().kid(), public.kid());
            assert!(!published.jwks.contains("\"d\""));
            assert_eq!(published.keys.kids().collect::<Vec<_>>(), [public.kid()]);
            assert!(open(TenantId(random.uuid())).is_err());
        }
    }
}
