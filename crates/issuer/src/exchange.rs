//! A key and its secret become a token: `POST /v1/authentications`.
//!
//! Whatever is wrong with a pair, the caller hears one and the same "no", after one and the same time. The audit
//! trail hears why.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use claviger_store::api_key::{KeptSecret, StoredSecret};
use claviger_store::audit::TokenRow;
use claviger_store::id::{FamilyId, Owner};
use claviger_store::password::PasswordHash;
use claviger_store::token_family::{Principal, TokenFamily};
use claviger_store::user::User;
use secrecy::SecretString;
use serde_json::json;
use tokio::time::Instant;

use crate::audience::AudienceEntry;
use crate::audit::{Draft, Outcome};
use crate::directory::{KeyEntry, TenantEntry};
use crate::login::{self, new_family};
use crate::measure::EXCHANGES;
use crate::mint::{Grant, mint};
use crate::opening::{Opening, StandsOn};
use crate::record::Entry;
use crate::refresh_token::RefreshToken;
use crate::resource::audience;
use crate::scope::ScopeSet;
use crate::secret::{AppKeyCredential, is_own_key};
use crate::settings::{RequestInfo, Throttle};
use crate::standing::{OwnerNow, standing};
use crate::throttle::Attempt;
use crate::{Failure, Fault, Issuer, Refusal, rights};

/// No refusal of a pair is heard sooner after its request: unknown keys, which cost a look into the database, and
/// known ones, which do not, take the same time. Where the key's id is of a form that others made, it is as late as that of a
/// password: of such a key there may be a hash, and nobody shall hear that there is.
const REFUSED_AFTER: Duration = Duration::from_millis(20);

/// Why a key that has ended is refused.
pub(crate) const KEY_EXPIRED: &str = "key_expired";

/// What is exchanged.
pub struct Exchange<'a> {
    /// The tenant that the path names, if it names one.
    pub tenant: Option<&'a TenantEntry>,
    /// The pair; `None` when none could be read.
    pub credential: Option<AppKeyCredential>,
    /// The scope asked for, space-separated; `None` for all that the key holds.
    pub scope: Option<&'a str>,
    /// Whom the token is asked for (RFC 8707); `None` for the issuer itself.
    pub resource: Option<&'a str>,
    /// The audience asked for, by name or `aud`, whose shape the token gets; `None` for the tenant's usual one, if it has one
    /// and the key gives no refresh tokens; the issuer's identifier for none. Not together with a resource.
    pub audience: Option<&'a str>,
    /// The request.
    pub request: RequestInfo,
}

/// A token, recorded.
pub struct Granted {
    /// The compact serialisation.
    pub jwt: String,
    /// Seconds that it lives; `None` for one without an end.
    pub expires_in: Option<i64>,
    /// What it allows, space-separated; `None` for nothing.
    pub scope: Option<String>,
    /// A refresh token, where the key's setting gives one.
    pub refresh_token: Option<SecretString>,
}

/// A key that proved itself, and what stands behind it.
#[derive(Clone)]
pub struct VerifiedKey {
    /// Its tenant.
    pub tenant: Arc<TenantEntry>,
    /// The key.
    pub entry: Arc<KeyEntry>,
    /// Its owner.
    pub owner: Arc<OwnerNow>,
    /// What it holds now.
    scopes: Arc<ScopeSet>,
    /// When the secret that proved it ends, if another has taken over.
    secret_ends: Option<DateTime<Utc>>,
}

impl VerifiedKey {
    /// A key whose standing was asked about.
    pub(crate) fn new(tenant: Arc<TenantEntry>, entry: Arc<KeyEntry>, owner: Arc<OwnerNow>) -> Self {
        let scopes = rights::of_key(&tenant, &owner, &entry);
        Self { tenant, entry, owner, scopes, secret_ends: None }
    }

    /// `sub`: the person, or the application where no person stands behind the key.
    #[must_use]
    pub fn subject(&self) -> String {
        match self.entry.key.owner {
            Owner::User(id) => id.to_string(),
            Owner::Application(id) => id.to_string(),
        }
    }

    /// `client_id`: the application, or the key itself where it belongs to a person.
    #[must_use]
    pub fn client_id(&self) -> String {
        match self.entry.key.owner {
            Owner::User(_) => self.entry.key.id.to_string(),
            Owner::Application(id) => id.to_string(),
        }
    }

    /// The client as a family keeps it: its id alone could be another kind's.
    #[must_use]
    pub(crate) fn client(&self) -> String {
        match self.entry.key.owner {
            Owner::User(_) => format!("key:{}", self.entry.key.id),
            Owner::Application(id) => format!("application:{id}"),
        }
    }

    /// The login name, where a person stands behind it.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        self.person().map(|user| user.username.as_str())
    }

    /// When a login that it begins ends at the latest: with the key, and with the secret that proved it.
    pub(crate) fn logins_end(&self) -> Option<DateTime<Utc>> {
        [self.entry.key.expires_at, self.secret_ends].into_iter().flatten().min()
    }

    /// The person behind it, if there is one.
    pub(crate) fn person(&self) -> Option<&User> {
        match &*self.owner {
            OwnerNow::User(user) => Some(user),
            OwnerNow::Application(_) => None,
        }
    }

    /// What the key holds now.
    #[must_use]
    pub fn scopes(&self) -> &ScopeSet {
        &self.scopes
    }

    /// Its roles, as far as its owner has them.
    #[must_use]
    pub fn roles(&self) -> Vec<String> {
        let has: &[String] = match &*self.owner {
            OwnerNow::User(user) => &user.roles,
            OwnerNow::Application(application) if rights::limit_of(application).is_none() => &self.entry.key.roles,
            OwnerNow::Application(application) => &application.roles,
        };
        self.entry.key.roles.iter().filter(|role| has.contains(role)).cloned().collect()
    }

    /// The roles of the person behind it.
    pub(crate) fn owner_roles(&self) -> &[String] {
        match &*self.owner {
            OwnerNow::User(user) => &user.roles,
            OwnerNow::Application(_) => &[],
        }
    }

    /// Seconds that its tokens live: the key's setting, else its application's, else the tenant's, else the default.
    pub(crate) fn lifetime(&self, default: i32) -> i32 {
        let application = match &*self.owner {
            OwnerNow::Application(application) => application.token_lifetime,
            OwnerNow::User(_) => None,
        };
        self.entry.key.token_lifetime.or(application).or(self.tenant.settings.token_lifetime).unwrap_or(default)
    }
}

/// What a pair is presented for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To act for its owner. A key that lets others act for its owner is no such key.
    Own,
    /// Whatever it is good for.
    Any,
    /// Nothing but to prove that it is held: it is not used, so where and how often it may be does not matter.
    Proof,
}

/// How a presented secret compares with what is kept of a key's.
enum Comparison {
    Differs,
    /// With one of our own, which ends then.
    FitsMac(Option<DateTime<Utc>>),
    /// With the hash that another system kept, which ends then.
    FitsHash(PasswordHash, Option<DateTime<Utc>>),
}

/// A pair that holds, and by what its secret was known.
struct Proven {
    key: VerifiedKey,
    by: Comparison,
}

/// Why a pair was refused.
struct NotThisPair {
    reason: &'static str,
    /// The key and tenant whose trail hears of it, if there are any.
    of: Option<Arc<KeyEntry>>,
}

impl Issuer {
    /// Exchanges a pair for a token. The token is in the database before it is returned.
    pub async fn exchange(&self, exchange: Exchange<'_>) -> Result<Granted, Failure> {
        EXCHANGES.of(|_| "done", self.exchange_uncounted(exchange).await)
    }

    async fn exchange_uncounted(&self, exchange: Exchange<'_>) -> Result<Granted, Failure> {
        let now = self.clock.now();
        let Exchange { tenant, credential, scope, resource, audience: wanted, request } = exchange;
        let verified = self.verify_pair(tenant, credential, &request, now).await?;
        let of = &verified.tenant;
        if of.settings.require_https && !request.https {
            return Err(self.refuse_wish(&verified, "https_required", Refusal::HttpsRequired, &request, now).await);
        }
        if wanted.is_some() && resource.is_some() {
            let refusal = Refusal::invalid("audience", "cannot be asked for together with a resource");
            return Err(self.refuse_wish(&verified, "invalid_target", refusal, &request, now).await);
        }
        // A refresh token leads to tokens of our own shape, so that its first companion has it too.
        let usual = of.settings.usual_audience.as_deref().filter(|_| resource.is_none() && !verified.entry.key.refresh);
        let wanted = wanted.or(usual);
        let for_audience = match wanted.filter(|name| *name != of.issuer).map(|name| of.audience(name)) {
            Some(None) => {
                let refusal = Refusal::invalid("audience", "is none that is registered in this tenant");
                return Err(self.refuse_wish(&verified, "invalid_target", refusal, &request, now).await);
            }
            found => found.flatten(),
        };
        if let Some(needed) = for_audience.and_then(|audience| audience.profile.required_scope.as_ref())
            && !verified.scopes().contains(needed)
        {
            let refusal = Refusal::InvalidScope(needed.clone());
            return Err(self.refuse_wish(&verified, "invalid_scope", refusal, &request, now).await);
        }
        let audience = audience(&of.issuer, &of.settings.resources, resource);
        let (scope, audience) = match (verified.scopes().narrow(scope), audience) {
            (Ok(scope), Ok(audience)) => (scope, audience),
            (Err(refusal), _) => return Err(self.refuse_wish(&verified, "invalid_scope", refusal, &request, now).await),
            (_, Err(refusal)) => return Err(self.refuse_wish(&verified, "invalid_target", refusal, &request, now).await),
        };
        match for_audience {
            Some(registered) => self.issue_for(&verified, registered, &scope, &request, now).await,
            None => self.issue(&verified, &scope, audience, &request, now).await,
        }
    }

    /// A token for an audience, in its shape. No refresh token comes with it.
    async fn issue_for(
        &self,
        verified: &VerifiedKey,
        audience: &AudienceEntry,
        scope: &ScopeSet,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Result<Granted, Failure> {
        let VerifiedKey { tenant, entry, .. } = verified;
        let (subject, client_id) = (verified.subject(), verified.client_id());
        let roles = verified.roles();
        // A service that asks for roles hears of a person's even where there are none.
        let told = Some(roles.as_slice()).filter(|roles| verified.username().is_some() || !roles.is_empty());
        let usual = (!audience.profile.omit_exp).then(|| verified.lifetime(self.settings.token_lifetime));
        let lifetime = audience.profile.lifetime.or(usual);
        let grant = Grant {
            issuer: &tenant.issuer,
            audience: &audience.row.uri,
            tenant: entry.tenant,
            subject: &subject,
            client_id: &client_id,
            key: Some(&entry.key.id),
            family: None,
            username: verified.username(),
            roles: told,
            person: verified.person(),
            actor: None,
            scope,
            allowed_ips: &entry.limits.allowed_ips,
            narrowed: false,
            lifetime,
            // One without an end says none, also where its key has one: when that comes, it is told as a revocation.
            not_after: entry.key.expires_at.filter(|_| lifetime.is_some()),
        };
        let minted = self.mint_for_audience(tenant, audience, &grant, now).await?;
        let scope = scope.to_string();
        let detail = json!({ "scope": scope, "audience": audience.row.id });
        let mut draft = self.exchange_draft(entry, Outcome::Ok, request, detail, now);
        draft.target = format!("token:{}", minted.id);
        let token = TokenRow {
            id: minted.id,
            key: Some(entry.key.id.clone()),
            family: None,
            subject,
            scope: scope.clone(),
            issued_at: minted.issued_at,
            expires_at: minted.expires_at,
        };
        let written = Entry { draft, token: Some(token) };
        self.recorder.record(entry.tenant, written).await?;
        let expires_in = minted.expires_in();
        let scope = Some(scope).filter(|scope| !scope.is_empty());
        Ok(Granted { jwt: minted.jwt, expires_in, scope, refresh_token: None })
    }

    /// Writes down that a valid key asked for what it does not get.
    async fn refuse_wish(
        &self,
        verified: &VerifiedKey,
        reason: &'static str,
        refusal: Refusal,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Failure {
        let draft = self.exchange_draft(&verified.entry, Outcome::Refused, request, json!({ "reason": reason }), now);
        match self.recorder.record(verified.entry.tenant, Entry { draft, token: None }).await {
            Ok(_) => refusal.into(),
            Err(failure) => failure,
        }
    }

    async fn issue(
        &self,
        verified: &VerifiedKey,
        scope: &ScopeSet,
        audience: &str,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Result<Granted, Failure> {
        let VerifiedKey { tenant, entry, .. } = verified;
        let opening = match entry.key.refresh {
            true => Some(self.open_for_key(verified, scope, now)?),
            false => None,
        };
        let subject = verified.subject();
        let roles = verified.roles();
        let grant = Grant {
            issuer: &tenant.issuer,
            audience,
            tenant: entry.tenant,
            subject: &subject,
            client_id: &verified.client_id(),
            key: Some(&entry.key.id),
            family: opening.as_ref().map(|(token, _)| token.family),
            username: verified.username(),
            roles: Some(roles.as_slice()).filter(|roles| !roles.is_empty()),
            person: None,
            actor: None,
            scope,
            narrowed: false,
            allowed_ips: &entry.limits.allowed_ips,
            lifetime: Some(verified.lifetime(self.settings.token_lifetime)),
            not_after: match &opening {
                Some((_, opening)) => opening.family.as_ref().map(|family| family.ends_at),
                None => entry.key.expires_at,
            },
        };
        let minted = mint(tenant.signer(&self.clock)?, &grant, now, &self.random)?;
        let scope = scope.to_string();
        let detail = match audience == tenant.issuer {
            true => json!({ "scope": scope }),
            false => json!({ "scope": scope, "audience": audience }),
        };
        let mut draft = self.exchange_draft(entry, Outcome::Ok, request, detail, now);
        draft.target = format!("token:{}", minted.id);
        let token = TokenRow {
            id: minted.id,
            key: Some(entry.key.id.clone()),
            family: grant.family,
            subject: subject.clone(),
            scope: scope.clone(),
            issued_at: minted.issued_at,
            expires_at: minted.expires_at,
        };
        let expires_in = minted.expires_in();
        let written = Entry { draft, token: Some(token) };
        let refresh_token = match opening {
            Some((token, opening)) => {
                self.open_login(entry.tenant, written, opening).await?;
                Some(token.reveal(&self.settings.brand))
            }
            None => {
                self.recorder.record(entry.tenant, written).await?;
                None
            }
        };
        Ok(Granted { jwt: minted.jwt, expires_in, scope: Some(scope).filter(|scope| !scope.is_empty()), refresh_token })
    }

    /// A token family for a key whose setting asks for one. It ends no later than the key, and the secret that asks for it.
    fn open_for_key(
        &self,
        verified: &VerifiedKey,
        scope: &ScopeSet,
        now: DateTime<Utc>,
    ) -> Result<(RefreshToken, Opening), Failure> {
        let VerifiedKey { tenant, entry, .. } = verified;
        let rule = tenant.settings.refresh();
        let whole = now + TimeDelta::seconds(i64::from(rule.absolute));
        let ends_at = verified.logins_end().map_or(whole, |end| end.min(whole));
        let id = FamilyId(self.random.uuid_at(ends_at));
        let token = RefreshToken::generate(entry.tenant, id, 0, &self.random);
        let (pepper_version, mac) = token.mac(&self.peppers).ok_or_else(|| Fault::Internal("there is no pepper".into()))?;
        let family = TokenFamily {
            id,
            principal: Principal::Key(entry.key.id.clone()),
            client: None,
            scope: scope.to_vec(),
            user_agent: None,
            created_at: now,
            ends_at,
            idle_seconds: rule.idle,
            rotated_at: now,
            ended: None,
            connection: None,
        };
        let opening = Opening {
            stands_on: StandsOn::Key(entry.key.id.clone()),
            family: Some(new_family(family, mac, pepper_version)),
            app_token: None,
            session: None,
            replaces: None,
            upgrade: None,
            came_from: None,
        };
        Ok((token, opening))
    }

    /// How often a key may be tried in vain.
    pub(crate) fn key_throttle(&self, tenant: Option<&TenantEntry>) -> Throttle {
        tenant.and_then(|entry| entry.settings.throttle).unwrap_or(self.settings.throttle)
    }

    /// Checks a pair, its key's standing, and how often it was tried from here.
    pub async fn verify_pair(
        &self,
        tenant: Option<&TenantEntry>,
        credential: Option<AppKeyCredential>,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Result<VerifiedKey, Failure> {
        self.verify_pair_for(Purpose::Own, tenant, credential, request, now).await
    }

    /// As [`Issuer::verify_pair`], for that purpose.
    pub(crate) async fn verify_pair_for(
        &self,
        purpose: Purpose,
        tenant: Option<&TenantEntry>,
        credential: Option<AppKeyCredential>,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Result<VerifiedKey, Failure> {
        let foreign = credential.as_ref().is_some_and(|pair| !is_own_key(&pair.key, &self.settings.brand));
        let heard = Instant::now() + if foreign { login::REFUSED_AFTER } else { REFUSED_AFTER };
        let outcome = self.verify_pair_at_once(purpose, tenant, credential, request, now).await;
        if matches!(outcome, Err(Failure::Refusal(_))) {
            tokio::time::sleep_until(heard).await;
        }
        outcome
    }

    async fn verify_pair_at_once(
        &self,
        purpose: Purpose,
        tenant: Option<&TenantEntry>,
        credential: Option<AppKeyCredential>,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Result<VerifiedKey, Failure> {
        let Some(credential) = credential else { return Err(Refusal::InvalidPair.into()) };
        let attempt = Attempt::new(credential.key.as_str(), request.address);
        // The path's tenant, else the installation: the key's own tenant is not known yet, and whether it exists
        // must not be told by when attempts are refused.
        let rule = self.key_throttle(tenant);
        if let Some(retry_after) = self.failures.blocked(&attempt, rule, now) {
            return Err(Refusal::Throttled { retry_after }.into());
        }
        let Proven { key, by } = match self.judge_pair(purpose, tenant, &credential, now).await? {
            Ok(proven) => proven,
            Err(refused) => {
                let ended = refused.reason == KEY_EXPIRED && purpose == Purpose::Any;
                return Err(match self.refuse_pair(refused, &attempt, rule, request, now).await? {
                    // Whoever asks what it is good for holds its secret.
                    Refusal::InvalidPair if ended => Refusal::KeyLimit(KEY_EXPIRED).into(),
                    refusal => refusal.into(),
                });
            }
        };
        // Asked again, because others may have failed while we looked: then even the right secret is not told.
        if let Some(retry_after) = self.failures.blocked(&attempt, rule, now) {
            return Err(Refusal::Throttled { retry_after }.into());
        }
        if let Comparison::FitsHash(hash, _) = by {
            self.upgrade_secret(&key.entry, &credential.secret, &hash).await?;
        }
        if purpose == Purpose::Proof {
            return Ok(key);
        }
        match self.use_key(&key, request, now).await {
            Ok(()) => Ok(key),
            // From elsewhere it is no better than a wrong one, but for whoever asks what it is good for.
            Err(Failure::Refusal(Refusal::KeyLimit(_))) if purpose == Purpose::Own => Err(Refusal::InvalidPair.into()),
            Err(failure) => Err(failure),
        }
    }

    /// Keeps the MAC of a secret in place of the hash that it has just fitted. Whoever else does the same at the same time has
    /// done it: then this changes nothing.
    async fn upgrade_secret(&self, entry: &KeyEntry, secret: &SecretString, hash: &PasswordHash) -> Result<(), Failure> {
        let id = &entry.key.id;
        let (version, mac) = self.peppers.hash(id, secret).ok_or_else(|| Fault::Internal("there is no pepper".into()))?;
        let mut tx = self.store.begin_in(entry.tenant).await?;
        tx.tenant(entry.tenant).await?.upgrade_secret(id, hash, mac, version).await?;
        tx.commit().await?;
        self.forget("api_keys", entry.tenant, id);
        Ok(())
    }

    /// Every use of a key, itself or by a token of it, passes here: whether it may be used from there and so, and how often.
    pub(crate) async fn use_key(&self, key: &VerifiedKey, request: &RequestInfo, now: DateTime<Utc>) -> Result<(), Failure> {
        let entry = &key.entry;
        let admitted = match entry.limits.admits(request.address, request.transport) {
            Ok(()) => self.take(key, request, now).await,
            Err(reason) => Err(Refusal::KeyLimit(reason).into()),
        };
        match &admitted {
            Ok(()) => self.note_use(entry.tenant, &entry.key.id, request, now),
            Err(Failure::Refusal(Refusal::KeyLimit(reason) | Refusal::UsedUp { reason, .. })) => {
                let mut draft = self.exchange_draft(entry, Outcome::Refused, request, json!({ "reason": reason }), now);
                draft.action = "key.use";
                self.write_refusal(entry.tenant, draft).await?;
            }
            Err(_) => {}
        }
        admitted
    }

    /// Counts a failure and writes it down.
    async fn refuse_pair(
        &self,
        refused: NotThisPair,
        attempt: &Attempt,
        rule: Throttle,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Result<Refusal, Failure> {
        let NotThisPair { reason, of } = refused;
        // A key id that nobody has may be a secret in the wrong place.
        let key = of.as_ref().map(|entry| tracing::field::display(&entry.key.id));
        tracing::info!(key.id = key, request.id = %request.id, reason, "a key and secret were refused");
        if let Some(retry_after) = self.failures.fail(attempt, rule, now) {
            return Ok(Refusal::Throttled { retry_after });
        }
        if let Some(entry) = of {
            let draft = self.exchange_draft(&entry, Outcome::Refused, request, json!({ "reason": reason }), now);
            self.recorder.record(entry.tenant, Entry { draft, token: None }).await?;
        }
        Ok(Refusal::InvalidPair)
    }

    /// The outer result is "could we find out", the inner one "is it a valid pair".
    async fn judge_pair(
        &self,
        purpose: Purpose,
        tenant: Option<&TenantEntry>,
        credential: &AppKeyCredential,
        now: DateTime<Utc>,
    ) -> Result<Result<Proven, NotThisPair>, Failure> {
        let AppKeyCredential { key, secret, plausible } = credential;
        let not = |reason, of| Ok(Err(NotThisPair { reason, of }));
        if !plausible {
            return not("mistyped", None);
        }
        let entry = self.directory.key(key).await?;
        // A key of another tenant does not exist here.
        let Some(mut entry) = entry.filter(|entry| tenant.is_none_or(|tenant| tenant.tenant.id == entry.tenant)) else {
            self.peppers.decoy(key, secret);
            return not("unknown_key", None);
        };
        let is_foreign = |kept: &StoredSecret| matches!(kept.kept, KeptSecret::Mac(_, version) if !self.peppers.has(version));
        if entry.secrets.iter().any(is_foreign) {
            // Another server knows a newer one.
            self.reload_peppers().await?;
        }
        let mut by = self.compare(&entry, &[], secret, now).await?;
        if matches!(by, Comparison::Differs)
            && let Some(reloaded) = self.directory.reloaded_key(key).await?
        {
            by = self.compare(&reloaded, &entry.secrets, secret, now).await?;
            entry = reloaded;
        }
        let secret_ends = match &by {
            Comparison::Differs => return not("wrong_secret", Some(entry)),
            Comparison::FitsMac(ends) | Comparison::FitsHash(_, ends) => *ends,
        };
        if purpose == Purpose::Own && entry.key.agents.is_some() {
            return not("impersonation_key", Some(entry));
        }
        let tenant =
            self.directory.tenant(entry.tenant).await?.ok_or_else(|| Fault::Internal("a key's tenant is gone".into()))?;
        let owner = self.directory.owner(entry.tenant, entry.key.owner).await?;
        match standing(&tenant, &owner, Some(&entry.key), None, now) {
            Ok(()) => {
                self.hash_again(&entry, secret);
                Ok(Ok(Proven { key: VerifiedKey { secret_ends, ..VerifiedKey::new(tenant, entry, owner) }, by }))
            }
            Err(fallen) => not(fallen.reason(), Some(entry)),
        }
    }

    /// Compares with every secret that has not ended: with MACs always, with hashes where no MAC fits, and with none that was
    /// compared with before.
    async fn compare(
        &self,
        entry: &KeyEntry,
        before: &[StoredSecret],
        secret: &SecretString,
        now: DateTime<Utc>,
    ) -> Result<Comparison, Failure> {
        let living = || entry.secrets.iter().filter(|kept| kept.expires_at.is_none_or(|end| now < end));
        let fits_mac = living().fold(None, |fits, kept| match &kept.kept {
            KeptSecret::Mac(mac, version) if self.peppers.verify(*version, &entry.key.id, secret, mac) => Some(kept.expires_at),
            KeptSecret::Mac(..) | KeptSecret::Hash(_) => fits,
        });
        if let Some(ends) = fits_mac {
            return Ok(Comparison::FitsMac(ends));
        }
        for kept in living() {
            if let KeptSecret::Hash(hash) = &kept.kept
                && !before.iter().any(|one| one.kept == kept.kept)
                && self.hasher.fits(entry.tenant, secret.clone(), hash.clone()).await?
            {
                return Ok(Comparison::FitsHash(hash.clone(), kept.expires_at));
            }
        }
        Ok(Comparison::Differs)
    }

    fn exchange_draft(
        &self,
        entry: &KeyEntry,
        outcome: Outcome,
        request: &RequestInfo,
        detail: serde_json::Value,
        now: DateTime<Utc>,
    ) -> Draft {
        Draft {
            at: now,
            action: "key.exchange",
            outcome,
            actor: format!("key:{}", entry.key.id),
            subject: entry.key.owner.to_string(),
            target: String::new(),
            request_id: request.id.clone(),
            address: request.address,
            detail,
        }
    }
}
