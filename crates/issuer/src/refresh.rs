//! Refresh: a token is used once, its successor takes its place, and an answer that was lost is given again.
//!
//! ```text
//! newest token            ──► rotate: the next number, a new secret
//! the one before, unused successor, same client
//!     within the window   ──► replay: the same answer, byte for byte
//!     after it            ──► a client that proved itself: replace the successor's secret
//!                             anybody else: reuse
//! the one before, and its successor was used, or older
//!                         ──► reuse: the family ends
//! a family that has ended ──► refused, whatever the token
//! ```
//!
//! Decisions use rows and the database's time alone, under the family's lock; ending a family takes the same lock, and so
//! closes the window at once. What is decided is committed before anybody hears of it, a refusal too.

use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use claviger_store::api_key::{KeyStatus, SecretMac};
use claviger_store::audit::TokenRow;
use claviger_store::id::{FamilyId, KeyId, Owner, TenantId};
use claviger_store::token_family::{EndedBy, Locked, Principal, Successor, TokenFamily};
use claviger_store::{StoreError, TenantTx};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::audit::{Draft, Outcome};
use crate::directory::TenantEntry;
use crate::exchange::VerifiedKey;
use crate::measure::REFRESHES;
use crate::mint::{Grant, Minted, Target, mint};
use crate::record::{Deed, Entry, Recorded, What};
use crate::refresh_token::RefreshToken;
use crate::refusal::GrantRefused;
use crate::resource::audience;
use crate::scope::ScopeSet;
use crate::settings::RequestInfo;
use crate::standing::{LoginNow, OwnerNow, standing};
use crate::{Failure, Fault, Issuer, Refusal, rights};

/// A family as the rule sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyState {
    /// The number of the token that may be used next.
    pub generation: i32,
    /// When that token was made.
    pub rotated_at: DateTime<Utc>,
    /// When the family ends, whatever happens.
    pub ends_at: DateTime<Utc>,
    /// How long it lives without a refresh.
    pub idle: TimeDelta,
    /// Why it ended before.
    pub ended: Option<EndedBy>,
}

/// Who presents a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Whoever holds it, and nobody else was asked for.
    Bearer,
    /// The client that it was given to, with its secret.
    Proven,
    /// Not the client that it was given to.
    Other,
}

impl Client {
    /// Who presents a token of this family, with whatever key they proved to hold.
    pub(crate) fn of(tenant: TenantId, family: &TokenFamily, key: Option<&VerifiedKey>) -> Self {
        match (key, &family.client, &family.principal) {
            (None, None, _) => Self::Bearer,
            // Ids are a tenant's own, and what is one's application may be another's key.
            (Some(key), ..) if key.entry.tenant != tenant => Self::Other,
            (Some(key), Some(wanted), _) if key.client() == *wanted => Self::Proven,
            (Some(key), None, Principal::Key(wanted)) if key.entry.key.id == *wanted => Self::Proven,
            _ => Self::Other,
        }
    }
}

/// What becomes of a presented token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is used, and a successor takes its place.
    Rotate,
    /// The answer that it got is given again.
    Replay,
    /// Its unused successor gets another secret.
    Replace,
    /// It was used before by somebody: the family ends.
    Reuse,
    /// Nothing happens.
    Refuse(Why),
}

/// Why nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is not a token of this family.
    Unknown,
    /// It was given to another client.
    OtherClient,
    /// The family was ended.
    Ended(EndedBy),
    /// Its time is over.
    Over,
    /// Whoever it stands for may not act now.
    Fallen,
    /// While it waited here, another request used it and its successor.
    Overtaken,
}

/// The rule. `genuine` says that the secret is the one that was made for this number. `waited` is how long the request was
/// under way here before it was decided: it is judged by when it came.
#[must_use]
pub fn judge(
    family: &FamilyState,
    generation: i32,
    genuine: bool,
    client: Client,
    window: TimeDelta,
    now: DateTime<Utc>,
    waited: TimeDelta,
) -> Verdict {
    if !genuine || generation > family.generation {
        return Verdict::Refuse(Why::Unknown);
    }
    if client == Client::Other {
        return Verdict::Refuse(Why::OtherClient);
    }
    if let Some(why) = family.ended {
        return Verdict::Refuse(Why::Ended(why));
    }
    if family.ends_at <= now || family.rotated_at + family.idle <= now {
        return Verdict::Refuse(Why::Over);
    }
    let since = now - waited - family.rotated_at;
    match family.generation - generation {
        0 => Verdict::Rotate,
        1 if since < window && !window.is_zero() => Verdict::Replay,
        1 if client == Client::Proven => Verdict::Replace,
        // When it came, its successor had not been used: whoever sent it twice did no more than to be impatient.
        2 if since < TimeDelta::zero() => Verdict::Refuse(Why::Overtaken),
        _ => Verdict::Reuse,
    }
}

/// A presented token on its way to the lock.
pub(crate) struct Rotation {
    family: FamilyId,
    generation: i32,
    macs: Vec<(i16, SecretMac)>,
    client: Client,
    window: TimeDelta,
    came: Instant,
    /// What is written if it may be used; `None` when whoever it stands for may not act.
    prepared: Option<Prepared>,
    /// Who and what, for the audit trail.
    draft: Draft,
}

struct Prepared {
    successor: Successor,
    token: TokenRow,
}

/// What was decided, and is written.
pub(crate) enum Decided {
    Rotated,
    Replaced,
    Replayed { sealed: Vec<u8>, age: TimeDelta },
    Reuse,
    Refused(Why),
}

impl Rotation {
    /// What the audit trail and the record of tokens hear of it.
    pub(crate) fn entry(&self, decided: &Decided) -> Option<Entry> {
        let draft = |action, outcome, detail| Draft { action, outcome, detail, ..self.draft.clone() };
        let token = self.prepared.as_ref().map(|prepared| prepared.token.clone());
        let (draft, token) = match decided {
            Decided::Rotated => {
                let scope = token.as_ref().map(|token| token.scope.clone());
                (draft("token.refresh", Outcome::Ok, json!({ "generation": self.generation, "scope": scope })), token)
            }
            Decided::Replaced => {
                let detail = json!({ "generation": self.generation, "how": "replaced" });
                (draft("token.refresh_again", Outcome::Ok, detail), token)
            }
            Decided::Replayed { .. } => {
                let detail = json!({ "generation": self.generation, "how": "same answer" });
                (draft("token.refresh_again", Outcome::Ok, detail), None)
            }
            Decided::Reuse => (draft("token.reuse_detected", Outcome::Refused, json!({ "generation": self.generation })), None),
            Decided::Refused(Why::OtherClient) => {
                (draft("token.refresh", Outcome::Refused, json!({ "reason": "other_client" })), None)
            }
            Decided::Refused(_) => return None,
        };
        Some(Entry { draft, token })
    }
}

/// Decides rotations of one tenant under their families' locks, in the order in which they came, and writes what follows.
pub(crate) async fn decide(tx: &mut TenantTx<'_>, rotations: &[&Rotation]) -> Result<Vec<Decided>, StoreError> {
    if rotations.is_empty() {
        return Ok(Vec::new());
    }
    let asked: Vec<_> = rotations.iter().map(|one| (one.family, one.generation)).collect();
    let mut locked = tx.lock_families(&asked).await?;
    let now = locked.now;
    let mut decided = Vec::with_capacity(rotations.len());
    let mut moved = Vec::new();
    let mut replaced = Vec::new();
    let mut reused = Vec::new();
    for rotation in rotations {
        let verdict = judge_locked(rotation, &locked);
        let prepared = rotation.prepared.as_ref().map(|prepared| &prepared.successor);
        let family = locked.families.get_mut(&rotation.family);
        decided.push(match (verdict, family, prepared) {
            (Verdict::Rotate | Verdict::Replace, Some(family), Some(successor)) => {
                family.rotated_at = now;
                family.sealed_answer = Some(successor.sealed_answer.clone());
                family.generation = successor.generation;
                locked.macs.insert((successor.family, successor.generation), (successor.pepper_version, successor.mac));
                if verdict == Verdict::Rotate {
                    moved.push(successor);
                    Decided::Rotated
                } else {
                    replaced.push(successor);
                    Decided::Replaced
                }
            }
            (Verdict::Replay, Some(family), Some(_)) => match &family.sealed_answer {
                Some(sealed) => Decided::Replayed { sealed: sealed.clone(), age: now - family.rotated_at },
                None => return Err(impossible("a used token without its answer")),
            },
            (Verdict::Reuse, Some(family), _) => {
                family.ended =
                    Some(claviger_store::token_family::Ended { at: now, by: rotation.draft.actor.clone(), why: EndedBy::Reuse });
                reused.push(rotation);
                Decided::Reuse
            }
            (Verdict::Refuse(why), ..) => Decided::Refused(why),
            (Verdict::Rotate | Verdict::Replace | Verdict::Replay, _, None) => Decided::Refused(Why::Fallen),
            (_, None, _) => Decided::Refused(Why::Unknown),
        });
    }
    if !moved.is_empty() && tx.rotate_families(&moved, now).await? != moved.len() {
        return Err(impossible("a locked family that moved"));
    }
    for successor in replaced {
        if !tx.replace_newest(successor, now).await? {
            return Err(impossible("a locked family that moved"));
        }
    }
    for rotation in reused {
        tx.end_family(rotation.family, now, &rotation.draft.actor, EndedBy::Reuse).await?;
    }
    Ok(decided)
}

fn judge_locked(rotation: &Rotation, locked: &Locked) -> Verdict {
    let Some(family) = locked.families.get(&rotation.family) else { return Verdict::Refuse(Why::Unknown) };
    let genuine = locked.macs.get(&(rotation.family, rotation.generation)).is_some_and(|(version, kept)| {
        rotation.macs.iter().any(|(presented, mac)| presented == version && bool::from(mac.0.ct_eq(&kept.0)))
    });
    let state = FamilyState {
        generation: family.generation,
        rotated_at: family.rotated_at,
        ends_at: family.ends_at,
        idle: TimeDelta::seconds(i64::from(family.idle_seconds)),
        ended: family.ended.as_ref().map(|ended| ended.why),
    };
    let waited = TimeDelta::from_std(rotation.came.elapsed()).unwrap_or(TimeDelta::MAX);
    let verdict = judge(&state, rotation.generation, genuine, rotation.client, rotation.window, locked.now, waited);
    let begun_before = locked.logins_ended_at.is_some_and(|until| family.created_at <= until);
    match verdict {
        Verdict::Refuse(_) => verdict,
        _ if begun_before || !locked.tenant_active => Verdict::Refuse(Why::Fallen),
        _ => verdict,
    }
}

fn impossible(what: &str) -> StoreError {
    StoreError::ImpossibleRow { table: "token_families", what: what.to_owned() }
}

/// What a login or a refresh gives.
#[derive(Serialize, Deserialize)]
pub struct Tokens {
    /// The compact serialisation.
    pub access_token: String,
    /// Seconds that the access token lives.
    pub expires_in: i64,
    /// What it allows, space-separated; `None` for nothing.
    pub scope: Option<String>,
    #[serde(with = "revealed")]
    /// To be used once, for the next of these.
    pub refresh_token: SecretString,
}

/// A refresh token within the sealed answer that carries it.
mod revealed {
    use secrecy::{ExposeSecret as _, SecretString};
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose_secret())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
        String::deserialize(deserializer).map(SecretString::from)
    }
}

/// A refresh that is asked for.
pub struct Refresh<'a> {
    /// The tenant that the path names, if it names one.
    pub tenant: Option<&'a TenantEntry>,
    /// What was presented.
    pub token: &'a SecretString,
    /// The client that proved itself, if one did.
    pub client: Option<&'a VerifiedKey>,
    /// The scope asked for, space-separated; `None` for all that there is.
    pub scope: Option<&'a str>,
    /// Whom the access token is asked for (RFC 8707); `None` for the issuer itself.
    pub resource: Option<&'a str>,
    /// Whether the access token has the shape of the tenant's usual audience, if it has one. Not together with a resource.
    pub as_usual: bool,
    /// The request.
    pub request: RequestInfo,
}

/// A refresh on its way to the writer.
struct Asked {
    token: RefreshToken,
    rotation: Rotation,
    /// What it answers if it is the first.
    answer: Option<Tokens>,
    /// What is wrong with the scope or the resource that was asked for.
    wish_refused: Option<Refusal>,
    family: Arc<TokenFamily>,
}

/// A token family with whom it stands for, as they are now.
pub(crate) struct Standing {
    pub(crate) owner: Arc<OwnerNow>,
    pub(crate) key: Option<VerifiedKey>,
    /// What may be granted now: what was granted, as far as it is still held.
    pub(crate) scope: ScopeSet,
}

impl Issuer {
    /// Uses a refresh token. What was decided is in the database before it is returned.
    pub async fn refresh(&self, refresh: Refresh<'_>) -> Result<Tokens, Failure> {
        if let Err(failure) = self.recheck(&refresh, None).await {
            REFRESHES.count(if matches!(failure, Failure::Refusal(_)) { "refused" } else { "failed" });
            return Err(failure);
        }
        self.refresh_unasked(refresh).await
    }

    /// Whether this token is one that would be used now. Nothing is decided by it.
    pub(crate) async fn would_rotate(
        &self,
        token: &RefreshToken,
        family: &TokenFamily,
        refresh: &Refresh<'_>,
    ) -> Result<bool, Failure> {
        let mut tx = self.store.begin_in(token.tenant).await?;
        let locked = tx.tenant(token.tenant).await?.lock_families(&[(token.family, token.generation)]).await?;
        let rotation = Rotation {
            family: token.family,
            generation: token.generation,
            macs: token.macs(&self.peppers),
            client: Client::of(token.tenant, family, refresh.client),
            window: TimeDelta::zero(),
            came: Instant::now(),
            prepared: None,
            draft: self.family_draft(family, &refresh.request, locked.now),
        };
        Ok(matches!(judge_locked(&rotation, &locked), Verdict::Rotate | Verdict::Replace))
    }

    /// As [`Issuer::refresh`], without a word to the provider that the login came from.
    pub(crate) async fn refresh_unasked(&self, refresh: Refresh<'_>) -> Result<Tokens, Failure> {
        let request = refresh.request.clone();
        let Asked { token, rotation, answer, wish_refused, family } = match self.ask(refresh).await {
            Ok(asked) => asked,
            Err(failure) => {
                REFRESHES.count(if matches!(failure, Failure::Refusal(_)) { "refused" } else { "failed" });
                return Err(failure);
            }
        };
        let deed = Deed { tenant: token.tenant, what: What::Rotation(Box::new(rotation)) };
        match self.recorder.carry_out(deed).await {
            Ok(Recorded::Decided(Decided::Refused(Why::Fallen))) if wish_refused.is_some() => {
                REFRESHES.count("refused");
                Err(wish_refused.map_or_else(|| Refusal::InvalidGrant { why: None }.into(), Failure::from))
            }
            Ok(Recorded::Decided(decided)) => self.answer_refresh(decided, &token, answer, &family, &request),
            Ok(_) => Err(Fault::Internal("a rotation was not decided".into()).into()),
            Err(failure) => {
                REFRESHES.count("failed");
                Err(failure)
            }
        }
    }

    /// Reads what is presented, and makes ready what is written if it may be used.
    async fn ask(&self, refresh: Refresh<'_>) -> Result<Asked, Failure> {
        let came = Instant::now();
        let now = self.clock.now();
        let Refresh { tenant, token, client, scope, resource, as_usual, request } = refresh;
        let narrowed = scope.is_some();
        let refused = Failure::from(Refusal::InvalidGrant { why: None });
        let Some(token) = RefreshToken::parse(token.expose_secret(), &self.settings.brand) else { return Err(refused) };
        // A token of another tenant does not exist here.
        if tenant.is_some_and(|tenant| tenant.tenant.id != token.tenant) {
            return Err(refused);
        }
        let Some(entry) = self.directory.tenant(token.tenant).await? else { return Err(refused) };
        let Some(family) = self.directory.family(token.tenant, token.family).await? else { return Err(refused) };
        let stands = self.family_standing(&entry, &family, now).await?;
        let client = Client::of(token.tenant, &family, client);
        let mut draft = self.family_draft(&family, &request, now);
        let mut prepared = None;
        let mut answer = None;
        // Told only to who turns out to hold a good token.
        let mut wish_refused = None;
        let audience = audience(&entry.issuer, &entry.settings.resources, resource);
        let stands = stands.filter(|stands| {
            let key = stands.key.as_ref();
            key.is_none_or(|key| key.entry.limits.admits(request.address, request.transport).is_ok())
        });
        let granted = stands.filter(|_| client != Client::Other).and_then(|stands| {
            let wish = stands.scope.narrow(scope).and_then(|narrowed| Ok((narrowed.into_owned(), audience?)));
            match wish {
                Ok((narrowed, audience)) => Some((stands, narrowed, audience)),
                Err(refusal) => {
                    wish_refused = Some(refusal);
                    None
                }
            }
        });
        if let Some((stands, scope, audience)) = granted {
            let successor = RefreshToken::generate(token.tenant, token.family, token.generation + 1, &self.random);
            let target = if as_usual { entry.usual_target()? } else { Target::Ours(audience) };
            let minted = self.mint_for_family(&entry, &family, &stands, (&scope, narrowed), target, now).await?;
            let tokens = self.tokens(&minted, &scope, &successor);
            let sealed = serde_json::to_vec(&tokens).map(Zeroizing::new).ok();
            let sealed = sealed.and_then(|plain| token.seal_answer(&plain, &self.peppers, &self.random).ok());
            let (sealed_answer, (pepper_version, mac)) = sealed
                .zip(successor.mac(&self.peppers))
                .ok_or_else(|| Fault::Internal("an answer could not be sealed".into()))?;
            let successor =
                Successor { family: token.family, generation: successor.generation, mac, pepper_version, sealed_answer };
            draft.subject = subject_of(&stands.owner, stands.key.as_ref());
            prepared = Some(Prepared { successor, token: token_row(&minted, &family, &stands, &scope) });
            answer = Some(tokens);
        }
        let rotation = Rotation {
            family: token.family,
            generation: token.generation,
            macs: token.macs(&self.peppers),
            client,
            window: TimeDelta::seconds(i64::from(entry.settings.refresh().window)),
            came,
            prepared,
            draft,
        };
        Ok(Asked { token, rotation, answer, wish_refused, family })
    }

    fn answer_refresh(
        &self,
        decided: Decided,
        token: &RefreshToken,
        answer: Option<Tokens>,
        family: &TokenFamily,
        request: &RequestInfo,
    ) -> Result<Tokens, Failure> {
        let refused = |why: &str, told| {
            REFRESHES.count("refused");
            tracing::info!(family.id = %family.id, request.id = %request.id, reason = why, "a refresh token was refused");
            Err(Refusal::InvalidGrant { why: told }.into())
        };
        match decided {
            Decided::Rotated | Decided::Replaced => {
                REFRESHES.count("rotated");
                answer.ok_or_else(|| Fault::Internal("a rotation without an answer".into()).into())
            }
            Decided::Replayed { sealed, age } => {
                // Whoever comes within a second had not heard the first answer; later, it was lost.
                REFRESHES.count(if age < TimeDelta::seconds(1) { "replayed_parallel" } else { "replayed_lost_answer" });
                let opened = token.open_answer(&sealed, &self.peppers).ok();
                let tokens = opened.and_then(|plain| serde_json::from_slice(&plain).ok());
                tokens.ok_or_else(|| Fault::Internal("a sealed answer does not open".into()).into())
            }
            Decided::Reuse => {
                REFRESHES.count("reuse");
                // The news would tell us too, a moment later.
                self.directory.forget_family(token.tenant, token.family);
                tracing::warn!(
                    tenant.id = %token.tenant, family.id = %family.id, request.id = %request.id,
                    "a refresh token was used a second time; its family is ended"
                );
                Err(Refusal::InvalidGrant { why: Some(GrantRefused::Reused) }.into())
            }
            Decided::Refused(why) => match why {
                Why::Ended(EndedBy::Reuse) => refused("reuse", Some(GrantRefused::Reused)),
                Why::Ended(why) => refused(why.word(), None),
                Why::Unknown => refused("unknown", None),
                Why::OtherClient => refused("other_client", None),
                Why::Over => refused("over", None),
                Why::Fallen => refused("fallen", None),
                Why::Overtaken => refused("superseded", Some(GrantRefused::Superseded)),
            },
        }
    }

    /// Whom a family stands for, if they may act now.
    pub(crate) async fn family_standing(
        &self,
        tenant: &Arc<TenantEntry>,
        family: &TokenFamily,
        now: DateTime<Utc>,
    ) -> Result<Option<Standing>, Failure> {
        if !self.client_stands(tenant.tenant.id, family).await? {
            return Ok(None);
        }
        let login = Some(LoginNow::from(family));
        match &family.principal {
            Principal::User(user) => {
                let Some(owner) = self.directory.person(tenant.tenant.id, *user).await? else { return Ok(None) };
                if standing(tenant, &owner, None, login, now).is_err() {
                    return Ok(None);
                }
                let OwnerNow::User(person) = &*owner else { return Ok(None) };
                let scope = rights::of_login(tenant, person, &family.scope);
                Ok(Some(Standing { owner, key: None, scope }))
            }
            Principal::Key(key) => {
                let Some(entry) = self.directory.key(key).await? else { return Ok(None) };
                if entry.tenant != tenant.tenant.id {
                    return Ok(None);
                }
                let owner = self.directory.owner(entry.tenant, entry.key.owner).await?;
                if standing(tenant, &owner, Some(&entry.key), login, now).is_err() {
                    return Ok(None);
                }
                let key = VerifiedKey::new(tenant.clone(), entry, owner.clone());
                let scope = ScopeSet::kept(&family.scope).intersection(key.scopes());
                Ok(Some(Standing { owner, key: Some(key), scope }))
            }
        }
    }

    /// Whether the client that a family was given to may still act; true where there is none.
    pub(crate) async fn client_stands(&self, tenant: TenantId, family: &TokenFamily) -> Result<bool, Failure> {
        match family.client.as_deref().and_then(|client| client.split_once(':')) {
            None => Ok(family.client.is_none()),
            Some(("application", id)) => {
                let Ok(id) = id.parse() else { return Ok(false) };
                Ok(self.directory.owner(tenant, Owner::Application(id)).await?.is_active())
            }
            Some((_, id)) => {
                let Some(key) = KeyId::parse(id) else { return Ok(false) };
                let key = self.directory.key(&key).await?.filter(|key| key.tenant == tenant);
                Ok(key.is_some_and(|key| key.key.status == KeyStatus::Active))
            }
        }
    }

    /// An access token of a family.
    pub(crate) async fn mint_for_family(
        &self,
        tenant: &TenantEntry,
        family: &TokenFamily,
        stands: &Standing,
        (scope, narrowed): (&ScopeSet, bool),
        target: Target<'_>,
        now: DateTime<Utc>,
    ) -> Result<Minted, Failure> {
        let audience = match target {
            Target::Ours(audience) => audience,
            Target::Registered(registered) => &registered.row.uri,
        };
        let mut grant = Grant {
            issuer: &tenant.issuer,
            audience,
            tenant: tenant.tenant.id,
            subject: "",
            // Without its kind, which a claim does not have.
            client_id: family.client.as_deref().and_then(|client| client.split_once(':')).map_or(OWN_CLIENT, |(_, id)| id),
            key: None,
            family: Some(family.id),
            username: None,
            roles: None,
            person: None,
            actor: None,
            scope,
            allowed_ips: stands.key.as_ref().map_or(&[], |key| &key.entry.limits.allowed_ips),
            narrowed,
            lifetime: Some(tenant.settings.login_token_lifetime()),
            not_after: Some(family.ends_at),
        };
        let (subject, client_id, roles);
        if let Some(key) = &stands.key {
            roles = key.roles();
            grant.roles = Some(roles.as_slice()).filter(|roles| !roles.is_empty());
            (subject, client_id) = (key.subject(), key.client_id());
            grant.client_id = &client_id;
            grant.key = Some(&key.entry.key.id);
            grant.username = key.username();
            grant.lifetime = Some(key.lifetime(self.settings.token_lifetime));
            grant.not_after = grant.not_after.min(key.entry.key.expires_at).or(grant.not_after);
        } else if let OwnerNow::User(user) = &*stands.owner {
            subject = user.id.to_string();
            grant.username = Some(&user.username);
            grant.roles = Some(&user.roles);
            grant.person = Some(user);
        } else {
            return Err(Fault::Internal("a login that is nobody's".into()).into());
        }
        grant.subject = &subject;
        match target {
            Target::Ours(_) => Ok(mint(tenant.signer(&self.clock)?, &grant, now, &self.random)?),
            Target::Registered(registered) => {
                grant.lifetime = registered.profile.lifetime.or(grant.lifetime);
                self.mint_for_audience(tenant, registered, &grant, now).await
            }
        }
    }

    /// What a login or refresh answers.
    pub(crate) fn tokens(&self, minted: &Minted, scope: &ScopeSet, refresh: &RefreshToken) -> Tokens {
        Tokens {
            access_token: minted.jwt.clone(),
            expires_in: minted.expires_in().unwrap_or(0),
            scope: (!scope.is_empty()).then(|| scope.to_string()),
            refresh_token: refresh.reveal(&self.settings.brand),
        }
    }

    pub(crate) fn family_draft(&self, family: &TokenFamily, request: &RequestInfo, now: DateTime<Utc>) -> Draft {
        let actor = named(&family.principal);
        Draft {
            at: now,
            action: "token.refresh",
            outcome: Outcome::Ok,
            subject: actor.clone(),
            actor,
            target: format!("family:{}", family.id),
            request_id: request.id.clone(),
            address: request.address,
            detail: json!({}),
        }
    }
}

/// As the audit trail writes whoever a family stands for.
pub(crate) fn named(principal: &Principal) -> String {
    match principal {
        Principal::User(user) => format!("user:{user}"),
        Principal::Key(key) => format!("key:{key}"),
    }
}

/// `client_id` of tokens that the tenant's own login gave (RFC 9068 §2.2 wants one). No key can be called that.
pub(crate) const OWN_CLIENT: &str = "login";

fn subject_of(owner: &OwnerNow, key: Option<&VerifiedKey>) -> String {
    match (key, owner) {
        (Some(key), _) => key.entry.key.owner.to_string(),
        (None, OwnerNow::User(user)) => format!("user:{}", user.id),
        (None, OwnerNow::Application(application)) => format!("application:{}", application.id),
    }
}

/// The durable row of a family's access token.
pub(crate) fn token_row(minted: &Minted, family: &TokenFamily, stands: &Standing, scope: &ScopeSet) -> TokenRow {
    let key: Option<KeyId> = stands.key.as_ref().map(|key| key.entry.key.id.clone());
    let subject = match (&stands.key, &*stands.owner) {
        (Some(key), _) => key.subject(),
        (None, OwnerNow::User(user)) => user.id.to_string(),
        (None, OwnerNow::Application(application)) => application.id.to_string(),
    };
    TokenRow {
        id: minted.id,
        key,
        family: Some(family.id),
        subject,
        scope: scope.to_string(),
        issued_at: minted.issued_at,
        expires_at: minted.expires_at,
    }
}
