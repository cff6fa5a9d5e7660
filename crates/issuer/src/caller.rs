//! Who is calling: a bearer token of the tenant, a key itself, or a person's browser.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use claviger_store::id::{FamilyId, KeyId, SessionId, TenantId, TokenId, UserId};
use claviger_store::issued_token::{IssuedToken, UNENDING};
use claviger_store::user::User;
use claviger_verifier::{AccessToken, Expected, Expiry, Rejection, unverified_issuer, verify_with};

use crate::audit::{Actor, Authority};
use crate::directory::TenantEntry;
use crate::exchange::VerifiedKey;
use crate::scope::ScopeSet;
use crate::secret::AppKeyCredential;
use crate::settings::RequestInfo;
use crate::standing::{LoginNow, OwnerNow, standing};
use crate::{Failure, Fault, Issuer, Refusal};

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
            Self::Person(_) => ScopeSet::default(),
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
        Actor { name, subject, authority: Authority::Scopes(self.scopes.clone()), request: self.request.clone() }
    }
}

/// A token of ours that is good now.
pub(crate) struct VerifiedToken {
    pub(crate) principal: Principal,
    pub(crate) token: AccessToken,
    pub(crate) id: TokenId,
    /// Its `exp`, or what stands for none.
    pub(crate) kept_until: DateTime<Utc>,
    pub(crate) family: Option<FamilyId>,
}

/// Which audience a token must be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// This issuer's own endpoints.
    Us,
    /// Anybody: who only asks about it.
    Anybody,
}

/// Whether a record is that of a token. One for an audience may leave claims out, and name its subject otherwise.
fn is_of(record: &IssuedToken, token: &AccessToken, whose: For) -> bool {
    let kept = record.key.as_ref().map(KeyId::as_str);
    match whose {
        For::Us => kept == token.key_id.as_deref() && record.subject == token.subject,
        For::Anybody => token.key_id.as_deref().is_none_or(|key| Some(key) == kept),
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
        let now = self.clock.now();
        match presented {
            Presented::Token(token) => {
                let VerifiedToken { principal, token, .. } = self.verify_token(tenant, &token, For::Us, now).await?;
                let scopes = ScopeSet::kept(&token.scope).intersection(&principal.scopes());
                Ok(Caller { principal, scopes, token_ends: token.expires_at, request })
            }
            Presented::Pair(credential) => match self.verify_pair(tenant, credential, &request, now).await {
                Ok(key) => {
                    let scopes = key.scopes().clone();
                    Ok(Caller { scopes, principal: Principal::Key(key), token_ends: None, request })
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
        // The issuer that the token claims only chooses the keys to check it with.
        let claimed = unverified_issuer(token).ok_or_else(|| invalid("it is malformed"))?;
        let slug = self.settings.slug_of_issuer(&claimed).ok_or_else(|| invalid("it is from another issuer"))?;
        if tenant.is_some_and(|tenant| tenant.tenant.slug != slug) {
            return Err(invalid("it is from another issuer"));
        }
        let entry = self.directory.tenant_by_slug(slug).await?.ok_or_else(|| invalid("it is from another issuer"))?;
        let audience = (whose == For::Us).then_some(entry.issuer.as_str());
        let expected = Expected { issuer: &entry.issuer, audience, leeway_seconds: 0 };
        // What an audience's own key signed opens nothing here.
        let keys = if whose == For::Us { &entry.published.keys } else { &entry.published.all_keys };
        let verified = verify_with(token, keys, &expected, Expiry::Optional, now.timestamp());
        let token = verified.map_err(|rejection| {
            invalid(match rejection {
                Rejection::Expired => "it has expired",
                Rejection::Audience => "it is for another audience",
                _ => "it does not verify",
            })
        })?;
        let malformed = || invalid("it does not verify");
        let id = TokenId(token.token_id.parse().map_err(|_| malformed())?);
        let kept_until = DateTime::from_timestamp(token.expires_at.unwrap_or(UNENDING), 0).ok_or_else(malformed)?;
        let family = token.session.as_deref().map(str::parse).transpose().map_err(|_| malformed())?;
        // Our signature alone does not do: the record must know it, and not as called back.
        let record = self.directory.issued_token(entry.tenant.id, id, kept_until).await?;
        let is_it = |record: &Arc<IssuedToken>| record.expires_at == kept_until && is_of(record, &token, whose);
        let record = record.filter(|record| is_it(record) && record.revoked.is_none() && record.family == family);
        let record = record.ok_or_else(|| invalid("it was called back"))?;
        let principal = self.principal_of(&entry, &record, now).await?;
        Ok(VerifiedToken { principal, token, id, kept_until, family })
    }

    /// Whom a token stands for, if they may still act.
    async fn principal_of(
        &self,
        entry: &Arc<TenantEntry>,
        record: &IssuedToken,
        now: DateTime<Utc>,
    ) -> Result<Principal, Failure> {
        let ended = |why| Failure::from(Refusal::InvalidToken(why));
        let tenant = entry.tenant.id;
        let login = match record.family {
            None => None,
            Some(id) => {
                let family = self.directory.family(tenant, id).await?.ok_or_else(|| ended("its login has ended"))?;
                if !self.client_stands(tenant, &family).await? {
                    return Err(ended("the client that it was given to may not act"));
                }
                Some((id, LoginNow::from(&*family)))
            }
        };
        let now_login = login.map(|(_, login)| login);
        if let Some(key) = &record.key {
            let gone = || ended("the key it was issued for may not act");
            let key = self.directory.key(key).await?.filter(|key| key.tenant == tenant).ok_or_else(gone)?;
            let owner = self.directory.owner(tenant, key.key.owner).await?;
            standing(entry, &owner, Some(&key.key), now_login, now).map_err(|_| gone())?;
            return Ok(Principal::Key(VerifiedKey { tenant: entry.clone(), entry: key, owner }));
        }
        let gone = || ended("its login has ended, or the person may not act");
        let user: UserId = record.subject.parse().map_err(|_| gone())?;
        let owner = self.directory.person(tenant, user).await?.ok_or_else(gone)?;
        standing(entry, &owner, None, now_login, now).map_err(|_| gone())?;
        let login = login.map(|(id, _)| Login::Family(id));
        Ok(Principal::Person(Person { tenant: entry.clone(), owner, login }))
    }
}
