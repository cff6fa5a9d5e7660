//! Who is calling: a bearer token of the tenant, a key itself, or a person's browser.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use claviger_store::id::{FamilyId, KeyId, SessionId, TenantId, TokenId, UserId};
use claviger_store::issued_token::{IssuedToken, UNENDING};
use claviger_store::user::User;
use claviger_verifier::{AccessToken, Expected, Expiry, Rejection, judge, unverified_issuer, verify_with};

use crate::acting::Acting;
use crate::audit::{Actor, Authority};
use crate::checked_token::TokenHash;
use crate::directory::TenantEntry;
use crate::exchange::VerifiedKey;
use crate::scope::ScopeSet;
use crate::secret::AppKeyCredential;
use crate::settings::RequestInfo;
use crate::standing::{LoginNow, OwnerNow, standing};
use crate::{Failure, Fault, Issuer, Refusal, rights};

/// What a caller presents.
pub enum Presented {
    /// `Authorization: Bearer` (RFC 6750).
    Token(String),
    /// `Authorization: Basic` with key and secret.
    Pair(Option<AppKeyCredential>),
}

/// What a person's call stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// A token family.
    Family(FamilyId),
    /// A browser session.
    Session(SessionId),
}

impl fmt::Display for Login {
    /// As the audit trail writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Family(id) => write!(f, "family:{id}"),
            Self::Session(id) => write!(f, "session:{id}"),
        }
    }
}

/// A person who may act now.
#[derive(Clone)]
pub struct Person {
    /// The tenant.
    pub tenant: Arc<TenantEntry>,
    /// The person.
    pub(crate) owner: Arc<OwnerNow>,
    /// The login behind the call; `None` for a token that an operator issued.
    pub login: Option<Login>,
}

impl Person {
    /// The person's row.
    pub fn user(&self) -> Result<&Arc<User>, Fault> {
        match &*self.owner {
            OwnerNow::User(user) => Ok(user),
            OwnerNow::Application(_) => Err(Fault::Internal("a person that is an application".into())),
        }
    }
}

/// Whom a call stands for.
#[derive(Clone)]
pub enum Principal {
    /// A key.
    Key(VerifiedKey),
    /// A person who logged in.
    Person(Person),
}

impl Principal {
    /// `sub`.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::Key(key) => key.subject(),
            Self::Person(person) => person.user().map(|user| user.id.to_string()).unwrap_or_default(),
        }
    }

    /// The login name, where there is one.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        match self {
            Self::Key(key) => key.username(),
            Self::Person(person) => person.user().ok().map(|user| user.username.as_str()),
        }
    }

    /// Its roles now.
    pub(crate) fn roles(&self) -> Vec<String> {
        match self {
            Self::Key(key) => key.roles(),
            Self::Person(person) => person.user().map(|user| user.roles.clone()).unwrap_or_default(),
        }
    }

    /// Its tenant.
    pub(crate) fn tenant_id(&self) -> TenantId {
        match self {
            Self::Key(key) => key.entry.tenant,
            Self::Person(person) => person.tenant.tenant.id,
        }
    }

    /// What is held now.
    pub(crate) fn scopes(&self) -> ScopeSet {
        match self {
            Self::Key(key) => key.scopes().clone(),
            Self::Person(person) => person.user().map(|user| rights::of_person(&person.tenant, user)).unwrap_or_default(),
        }
    }
}

/// A caller who may act now.
#[derive(Clone)]
pub struct Caller {
    /// Who calls.
    pub principal: Principal,
    /// What may be done: what was granted, as far as it is still held.
    pub scopes: ScopeSet,
    /// Who acts for the principal, where that is somebody else.
    pub acting: Option<Acting>,
    /// Seconds since 1970 at which the token ends; `None` for what does not end.
    pub token_ends: Option<i64>,
    /// The request.
    pub request: RequestInfo,
}

impl Caller {
    /// Refuses who does not hold the scope.
    pub fn require(&self, scope: &str) -> Result<(), Refusal> {
        match self.scopes.contains(scope) {
            true => Ok(()),
            false => Err(Refusal::InsufficientScope(scope.to_owned())),
        }
    }

    /// The tenant that everything happens in.
    #[must_use]
    pub fn tenant(&self) -> &Arc<TenantEntry> {
        match &self.principal {
            Principal::Key(key) => &key.tenant,
            Principal::Person(person) => &person.tenant,
        }
    }

    /// The key behind the call, if it is one.
    #[must_use]
    pub fn key(&self) -> Option<&VerifiedKey> {
        match &self.principal {
            Principal::Key(key) => Some(key),
            Principal::Person(_) => None,
        }
    }

    /// The person behind the call. Refuses keys: they have nothing of what persons have.
    pub fn person(&self) -> Result<&Person, Refusal> {
        match &self.principal {
            Principal::Person(person) => Ok(person),
            Principal::Key(_) => Err(Refusal::NotAPerson),
        }
    }

    /// As the audit trail names this caller.
    #[must_use]
    pub fn actor(&self) -> Actor {
        let (name, subject) = match &self.principal {
            Principal::Key(key) => (format!("key:{}", key.entry.key.id), key.entry.key.owner.to_string()),
            Principal::Person(_) => {
                let name = format!("user:{}", self.principal.subject());
                (name.clone(), name)
            }
        };
        let (name, subject) = match &self.acting {
            Some(acting) => (acting.name.clone(), subject),
            None => (name, subject),
        };
        Actor { name, subject, authority: Authority::Scopes(self.scopes.clone()), request: self.request.clone() }
    }
}

/// A token of ours that is good now.
pub(crate) struct VerifiedToken {
    pub(crate) principal: Principal,
    /// What it may do now: what was granted, as far as it is still held.
    pub(crate) scopes: ScopeSet,
    /// Who acts for it.
    pub(crate) acting: Option<Acting>,
    pub(crate) token: Arc<AccessToken>,
    pub(crate) id: TokenId,
    /// Its `exp`, or what stands for none.
    pub(crate) kept_until: DateTime<Utc>,
    pub(crate) family: Option<FamilyId>,
}

/// Which audience a token must be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum For {
    /// This issuer's own endpoints.
    Us,
    /// What the tenant's dialects serve: as well for its usual audience, under the tenant's own keys.
    UsOrUsual,
    /// Anybody: who only asks about it.
    Anybody,
    /// Whoever it was issued for, but signed by the tenant's own keys: nothing that only an audience's key vouches for.
    AnybodyByUs,
}

/// Whether a record is that of a token. One for an audience may leave claims out, and name its subject otherwise.
fn is_of(record: &IssuedToken, token: &AccessToken, whose: For) -> bool {
    let kept = record.key.as_ref().map(KeyId::as_str);
    match whose {
        For::Us => kept == token.key_id.as_deref() && record.subject == token.subject,
        For::UsOrUsual | For::Anybody | For::AnybodyByUs => token.key_id.as_deref().is_none_or(|key| Some(key) == kept),
    }
}

impl Issuer {
    /// Finds out who is calling. `tenant` is the one that the path names; without one the credential names its own.
    pub async fn authenticate(
        &self,
        tenant: Option<&TenantEntry>,
        presented: Presented,
        request: RequestInfo,
    ) -> Result<Caller, Failure> {
        self.authenticate_for(For::Us, tenant, presented, request).await
    }

    /// As [`Issuer::authenticate`], for what opens nothing of our management: a token of the tenant's usual audience does too.
    pub async fn authenticate_as_usual(
        &self,
        tenant: Option<&TenantEntry>,
        presented: Presented,
        request: RequestInfo,
    ) -> Result<Caller, Failure> {
        self.authenticate_for(For::UsOrUsual, tenant, presented, request).await
    }

    async fn authenticate_for(
        &self,
        whose: For,
        tenant: Option<&TenantEntry>,
        presented: Presented,
        request: RequestInfo,
    ) -> Result<Caller, Failure> {
        let now = self.clock.now();
        match presented {
            Presented::Token(token) => {
                let VerifiedToken { principal, scopes, acting, token, .. } =
                    self.verify_token(tenant, &token, whose, now).await?;
                if let Principal::Key(key) = &principal {
                    self.use_key(key, &request, now).await.map_err(|failure| match failure {
                        Failure::Refusal(Refusal::KeyLimit(_)) => KEY_GONE.into(),
                        failure => failure,
                    })?;
                }
                Ok(Caller { principal, scopes, acting, token_ends: token.expires_at, request })
            }
            Presented::Pair(credential) => match self.verify_pair(tenant, credential, &request, now).await {
                Ok(key) => {
                    let scopes = key.scopes().clone();
                    Ok(Caller { scopes, principal: Principal::Key(key), acting: None, token_ends: None, request })
                }
                Err(Failure::Refusal(Refusal::InvalidPair)) => Err(Refusal::Unauthenticated.into()),
                Err(failure) => Err(failure),
            },
        }
    }

    /// A token of ours that was not called back, and whose principal may still act.
    pub(crate) async fn verify_token(
        &self,
        tenant: Option<&TenantEntry>,
        token: &str,
        whose: For,
        now: DateTime<Utc>,
    ) -> Result<VerifiedToken, Failure> {
        let invalid = |why| Failure::from(Refusal::InvalidToken(why));
        let hash = TokenHash::of(token, whose);
        let before = self.checked.get(&hash);
        // The issuer that the token claims only chooses the keys to check it with.
        let claimed = match &before {
            Some(before) => Cow::Borrowed(before.issuer()),
            None => Cow::Owned(unverified_issuer(token).ok_or_else(|| invalid("it is malformed"))?),
        };
        let slug = self.settings.slug_of_issuer(&claimed).ok_or_else(|| invalid("it is from another issuer"))?;
        if tenant.is_some_and(|tenant| tenant.tenant.slug != slug) {
            return Err(invalid("it is from another issuer"));
        }
        let entry = self.directory.tenant_by_slug(slug).await?.ok_or_else(|| invalid("it is from another issuer"))?;
        let audience = (whose == For::Us).then_some(entry.issuer.as_str());
        let expected = Expected { issuer: &entry.issuer, audience, leeway_seconds: 0 };
        let now_unix = now.timestamp();
        // What an audience's own key signed opens nothing here.
        let keys = if whose == For::Anybody { &entry.published.all_keys } else { &entry.published.keys };
        let verified = match before.as_ref().and_then(|before| before.under(&entry)) {
            Some(token) => judge(token, &expected, now_unix).map(|()| token.clone()),
            None => verify_with(token, keys, &expected, Expiry::Optional, now_unix)
                .map(|token| self.checked.keep(hash, token, &entry)),
        };
        let token = verified.map_err(|rejection| {
            invalid(match rejection {
                Rejection::Expired => "it has expired",
                Rejection::Audience => "it is for another audience",
                _ => "it does not verify",
            })
        })?;
        if whose == For::UsOrUsual && !entry.is_for_us_or_usual(&token.audience) {
            return Err(invalid("it is for another audience"));
        }
        // One of our own shape is read as strictly here as elsewhere.
        let whose = match whose {
            For::UsOrUsual if token.audience.contains(&entry.issuer) => For::Us,
            whose => whose,
        };
        let malformed = || invalid("it does not verify");
        let id = TokenId(token.token_id.parse().map_err(|_| malformed())?);
        let kept_until = DateTime::from_timestamp(token.expires_at.unwrap_or(UNENDING), 0).ok_or_else(malformed)?;
        let family = token.session.as_deref().map(str::parse).transpose().map_err(|_| malformed())?;
        // Our signature alone does not do: the record must know it, and not as called back.
        let record = self.directory.issued_token(entry.tenant.id, id, kept_until).await?;
        let is_it = |record: &Arc<IssuedToken>| record.expires_at == kept_until && is_of(record, &token, whose);
        // A token in another shape may not name its login; the record does.
        let of_login = |record: &Arc<IssuedToken>| record.family == family || family.is_none() && whose != For::Us;
        let record = record.filter(|record| is_it(record) && record.revoked.is_none() && of_login(record));
        let record = record.ok_or_else(|| invalid("it was called back"))?;
        let family = record.family;
        let (principal, granted) = self.principal_of(&entry, &record, now).await?;
        let scopes = match (&principal, granted) {
            (Principal::Person(person), Some(granted)) if !token.narrowed => {
                rights::of_login(&person.tenant, person.user()?, &granted)
            }
            // In another shape, a token may not say what was granted either.
            _ if token.scope.is_empty() && whose != For::Us => {
                let granted: Vec<String> = record.scope.split_whitespace().map(str::to_owned).collect();
                ScopeSet::kept(&granted).intersection(&principal.scopes())
            }
            _ => ScopeSet::kept(&token.scope).intersection(&principal.scopes()),
        };
        let Some(actor) = &token.actor else {
            return Ok(VerifiedToken { principal, scopes, acting: None, token, id, kept_until, family });
        };
        let acting = self.acting_now(&entry, actor, &principal, &scopes, now).await?;
        let (acting, scopes) = acting.ok_or_else(|| invalid("whoever it lets act may not act"))?;
        Ok(VerifiedToken { principal, scopes, acting: Some(acting), token, id, kept_until, family })
    }

    /// Whom a token stands for, if they may still act, and what was granted to the login that it stands on.
    async fn principal_of(
        &self,
        entry: &Arc<TenantEntry>,
        record: &IssuedToken,
        now: DateTime<Utc>,
    ) -> Result<(Principal, Option<Vec<String>>), Failure> {
        self.principal_now(entry, record.key.as_ref(), record.subject.parse().ok(), record.family, now).await
    }

    /// The key, or else the person, that something was given to, if they may still act, and what was granted to the login that
    /// it stands on.
    pub(crate) async fn principal_now(
        &self,
        entry: &Arc<TenantEntry>,
        key: Option<&KeyId>,
        user: Option<UserId>,
        family: Option<FamilyId>,
        now: DateTime<Utc>,
    ) -> Result<(Principal, Option<Vec<String>>), Failure> {
        let tenant = entry.tenant.id;
        let login = match family {
            None => None,
            Some(id) => {
                let ended = Refusal::InvalidToken("its login has ended");
                let family = self.directory.family(tenant, id).await?.ok_or(ended)?;
                if !self.client_stands(tenant, &family).await? {
                    return Err(Refusal::InvalidToken("the client that it was given to may not act").into());
                }
                Some((id, LoginNow::from(&*family), family.scope.clone()))
            }
        };
        let now_login = login.as_ref().map(|(_, login, _)| *login);
        if let Some(key) = key {
            let key = self.directory.key(key).await?.filter(|key| key.tenant == tenant).ok_or(KEY_GONE)?;
            let owner = self.directory.owner(tenant, key.key.owner).await?;
            standing(entry, &owner, Some(&key.key), now_login, now).map_err(|_| KEY_GONE)?;
            return Ok((Principal::Key(VerifiedKey::new(entry.clone(), key, owner)), None));
        }
        let gone = Refusal::InvalidToken("its login has ended, or the person may not act");
        let Some(user) = user else { return Err(gone.into()) };
        let Some(owner) = self.directory.person(tenant, user).await? else { return Err(gone.into()) };
        if standing(entry, &owner, None, now_login, now).is_err() {
            return Err(gone.into());
        }
        let (login, granted) = login.map(|(id, _, granted)| (Login::Family(id), granted)).unzip();
        Ok((Principal::Person(Person { tenant: entry.clone(), owner, login }), granted))
    }
}

const KEY_GONE: Refusal = Refusal::InvalidToken("the key it was issued for may not act");
