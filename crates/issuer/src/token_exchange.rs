//! One token for another (RFC 8693): somebody acts for somebody else, with less, for a quarter of an hour.
//!
//! ```text
//! subject_token                          who may                                        what it gives
//! an impersonation key USER:KEY:SECRET   a person among the key's agents                what the key lends
//! an access token                        a client with `tokens:exchange`                what the token allows
//! a person's id or name                  somebody with `users:impersonate`, where the   what the person holds and the
//!                                        tenant lets them, and who says why             actor holds too
//! ```
//!
//! The token names both (`sub`, `act.sub`) and what it stands on (`act.key_id`, `act.sid`, `act.right`), ends with any of these,
//! manages nothing and is no ground for another.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use claviger_store::audit::TokenRow;
use claviger_store::id::{FamilyId, KeyId, UserId};
use secrecy::SecretString;
use serde_json::json;

use crate::acting::{Acting, holds_more, without_management};
use crate::audit::{Draft, Outcome};
use crate::caller::{For, Person, Principal, VerifiedToken};
use crate::denial::Why;
use crate::directory::TenantEntry;
use crate::exchange::VerifiedKey;
use crate::mint::{Act, Grant, mint};
use crate::record::Entry;
use crate::resource::audience;
use crate::rights;
use crate::scope::ScopeSet;
use crate::settings::RequestInfo;
use crate::standing::{OwnerNow, standing};
use crate::username::Username;
use crate::verify::{Denied, acting_of, may_impersonate};
use crate::{Failure, Issuer, Refusal};

/// Seconds that such a token lives at most.
pub const LONGEST: i32 = 900;
/// Longest reason, in characters.
const LONGEST_REASON: usize = 200;

/// For whom somebody wants to act.
pub enum Subject {
    /// Whose access token this is.
    AccessToken(SecretString),
    /// Who gave out this key for it: `USER:KEY:SECRET`, or `KEY:SECRET`.
    ImpersonationKey(SecretString),
    /// The person of this id or login name.
    Person(String),
}

/// What is asked for.
pub struct TokenExchange<'a> {
    /// The tenant.
    pub tenant: &'a Arc<TenantEntry>,
    /// The client that proved itself, if one did.
    pub client: Option<VerifiedKey>,
    /// Whose token acts; the client where there is none.
    pub actor_token: Option<SecretString>,
    /// For whom.
    pub subject: Subject,
    /// The scope asked for, space-separated; `None` for all that can be lent.
    pub scope: Option<&'a str>,
    /// Whom the token is asked for (RFC 8707); `None` for the issuer itself.
    pub resource: Option<&'a str>,
    /// Why.
    pub reason: Option<&'a str>,
    /// The request.
    pub request: RequestInfo,
}

/// A token for acting, recorded.
pub struct Lent {
    /// The compact serialisation.
    pub jwt: String,
    /// Seconds that it lives.
    pub expires_in: i64,
    /// What it allows, space-separated; `None` for nothing.
    pub scope: Option<String>,
}

/// Who acts.
struct ActingNow {
    principal: Principal,
    scopes: ScopeSet,
    ends: Option<i64>,
    /// The login that its token came from.
    family: Option<FamilyId>,
    /// The client that asked in its place.
    client: Option<KeyId>,
}

/// What is lent.
struct Loan {
    subject: Principal,
    scopes: ScopeSet,
    /// What it stands on.
    key: Option<KeyId>,
    family: Option<FamilyId>,
    ends: Option<i64>,
    action: &'static str,
    /// By which scope, where the subject did not let it.
    right: Option<&'static str>,
}

impl Issuer {
    /// Exchanges. Both are in the audit trail before the token is returned.
    pub async fn exchange_token(&self, asked: TokenExchange<'_>) -> Result<Lent, Failure> {
        let now = self.clock.now();
        let TokenExchange { tenant, client, actor_token, subject, scope, resource, reason, request } = asked;
        check_reason(reason)?;
        let client_scopes = client.as_ref().map(|key| key.scopes().clone()).unwrap_or_default();
        let actor = self.actor(tenant, client, actor_token, now).await?;
        let loan = match subject {
            Subject::AccessToken(token) => self.lend_token(tenant, &client_scopes, &token, now).await,
            Subject::ImpersonationKey(key) => self.lend_key(tenant, &actor, &key, &request, now).await,
            Subject::Person(name) => self.lend_person(tenant, &actor, &name, reason, now).await,
        };
        let acting = acting_of(&actor.principal);
        let wish = loan.and_then(|loan| {
            let audience = audience(&tenant.issuer, &tenant.settings.resources, resource)?;
            let scopes = loan.scopes.narrow(scope)?.into_owned();
            Ok((loan, scopes, audience))
        });
        let (loan, scopes, audience) = match wish {
            Ok(wish) => wish,
            Err(Failure::Refusal(refusal)) => {
                self.record_refusal(tenant, &acting, &refusal, &request, now).await?;
                return Err(refusal.into());
            }
            Err(failure) => return Err(failure),
        };
        self.lend(tenant, &actor, &acting, loan, scopes, audience, reason, &request, now).await
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a decision, put together by its one caller")]
    async fn lend(
        &self,
        tenant: &Arc<TenantEntry>,
        actor: &ActingNow,
        acting: &Acting,
        loan: Loan,
        scopes: ScopeSet,
        audience: &str,
        reason: Option<&str>,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Result<Lent, Failure> {
        let Loan { subject, key, family, ends, action, right, scopes: _ } = loan;
        let client_id = match &actor.principal {
            Principal::Key(key) => key.client_id(),
            Principal::Person(_) => crate::refresh::OWN_CLIENT.to_owned(),
        };
        let sub = subject.subject();
        let (roles, allowed_ips): (_, &[_]) = match &subject {
            Principal::Key(key) => (key.owner_roles().to_vec(), &key.entry.limits.allowed_ips),
            Principal::Person(person) => (person.user()?.roles.clone(), &[]),
        };
        let ends = [ends, actor.ends].into_iter().flatten().min().and_then(|end| DateTime::from_timestamp(end, 0));
        let grant = Grant {
            issuer: &tenant.issuer,
            audience,
            tenant: tenant.tenant.id,
            subject: &sub,
            client_id: &client_id,
            key: key.as_ref(),
            family,
            username: subject.username(),
            roles: Some(roles.as_slice()).filter(|roles| !roles.is_empty()),
            person: None,
            actor: Some(Act {
                sub: &acting.subject,
                key_id: match &actor.principal {
                    Principal::Key(key) => Some(&key.entry.key.id),
                    Principal::Person(_) => None,
                },
                sid: actor.family,
                client_key_id: actor.client.as_ref(),
                right,
            }),
            scope: &scopes,
            allowed_ips,
            narrowed: true,
            lifetime: Some(LONGEST),
            not_after: ends,
        };
        let minted = mint(tenant.signer(&self.clock)?, &grant, now, &self.random)?;
        let row = TokenRow {
            id: minted.id,
            key,
            family,
            subject: sub.clone(),
            scope: scopes.to_string(),
            issued_at: minted.issued_at,
            expires_at: minted.expires_at,
        };
        let subject_name = match &subject {
            Principal::Key(key) => key.entry.key.owner.to_string(),
            Principal::Person(_) => format!("user:{sub}"),
        };
        tracing::warn!(
            tenant.id = %tenant.tenant.id, actor = %acting.name, subject = %subject_name, request.id = %request.id,
            "{} is impersonating {}", acting.shown, subject.username().unwrap_or_default()
        );
        let draft = Draft {
            at: now,
            action,
            outcome: Outcome::Ok,
            actor: acting.name.clone(),
            subject: subject_name,
            target: format!("token:{}", minted.id),
            request_id: request.id.clone(),
            address: request.address,
            detail: json!({ "how": "token", "scope": scopes.to_string(), "why": reason }),
        };
        self.recorder.record(tenant.tenant.id, Entry { draft, token: Some(row) }).await?;
        // The client has proved itself, and so has a key that is lent: that was a use. Here it is a token of theirs.
        for principal in [&actor.principal, &subject] {
            if let Principal::Key(key) = principal {
                self.note_use(tenant.tenant.id, &key.entry.key.id, request, now);
            }
        }
        let scope = Some(scopes.to_string()).filter(|scope| !scope.is_empty());
        Ok(Lent { expires_in: minted.expires_in().unwrap_or_default(), jwt: minted.jwt, scope })
    }

    /// Who acts: whose token that is, or the client itself.
    async fn actor(
        &self,
        tenant: &Arc<TenantEntry>,
        client: Option<VerifiedKey>,
        token: Option<SecretString>,
        now: DateTime<Utc>,
    ) -> Result<ActingNow, Failure> {
        match (token, client) {
            (Some(token), client) => {
                let VerifiedToken { principal, scopes, acting, token, family, .. } =
                    self.exchanged(tenant, &token, For::Us, now).await?;
                let client = client.map(|key| key.entry.key.id.clone());
                match acting {
                    // Nobody who acts for another lets a third act.
                    Some(_) => Err(Refusal::NotExchangeable("the actor acts for another already").into()),
                    None => Ok(ActingNow { principal, scopes, ends: token.expires_at, family, client }),
                }
            }
            (None, Some(key)) => {
                let ends = key.entry.key.expires_at.map(|end| end.timestamp());
                let scopes = key.scopes().clone();
                Ok(ActingNow { scopes, principal: Principal::Key(key), ends, family: None, client: None })
            }
            (None, None) => Err(Refusal::Unauthenticated.into()),
        }
    }

    /// A token that is exchanged: one that is not good is a grant that is not.
    pub(crate) async fn exchanged(
        &self,
        tenant: &Arc<TenantEntry>,
        token: &SecretString,
        whose: For,
        now: DateTime<Utc>,
    ) -> Result<VerifiedToken, Failure> {
        use secrecy::ExposeSecret as _;
        match self.verify_token(Some(tenant), token.expose_secret(), whose, now).await {
            Err(Failure::Refusal(Refusal::InvalidToken(why))) => Err(Refusal::NotExchangeable(why).into()),
            outcome => outcome,
        }
    }

    async fn lend_token(
        &self,
        tenant: &Arc<TenantEntry>,
        client: &ScopeSet,
        token: &SecretString,
        now: DateTime<Utc>,
    ) -> Result<Loan, Failure> {
        if !client.contains(TOKENS_EXCHANGE) {
            return Err(Refusal::InsufficientScope(TOKENS_EXCHANGE.into()).into());
        }
        let VerifiedToken { principal, scopes, acting, token, family, .. } =
            self.exchanged(tenant, token, For::AnybodyByUs, now).await?;
        if acting.is_some() {
            return Err(Refusal::NotExchangeable("it lets somebody act for another already").into());
        }
        let key = match &principal {
            Principal::Key(key) => Some(key.entry.key.id.clone()),
            Principal::Person(_) => None,
        };
        // As the token says, and as it still holds.
        let scopes = without_management(&scopes.intersection(&ScopeSet::kept(&token.scope)));
        Ok(Loan {
            subject: principal,
            scopes,
            key,
            family,
            ends: token.expires_at,
            action: "token.exchange",
            right: Some(TOKENS_EXCHANGE),
        })
    }

    async fn lend_key(
        &self,
        tenant: &Arc<TenantEntry>,
        actor: &ActingNow,
        key: &SecretString,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Result<Loan, Failure> {
        let refused = |denied| match denied {
            Denied::Throttled { retry_after } => Refusal::Throttled { retry_after },
            Denied::UsedUp { reason, retry_after } => Refusal::UsedUp { reason, retry_after },
            Denied::HoldsMore(scope) => Refusal::InsufficientScope(scope),
            _ => Refusal::NotExchangeable("it is no key that lets this actor act for somebody"),
        };
        let key = self.impersonation_key(tenant, key, request, now).await?.map_err(refused)?;
        let scopes = may_impersonate(tenant, &actor.principal, &actor.scopes, &key).map_err(refused)?;
        let id = key.entry.key.id.clone();
        let ends = key.entry.key.expires_at.map(|end| end.timestamp());
        Ok(Loan { subject: Principal::Key(key), scopes, key: Some(id), family: None, ends, action: "impersonate", right: None })
    }

    async fn lend_person(
        &self,
        tenant: &Arc<TenantEntry>,
        actor: &ActingNow,
        name: &str,
        reason: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Loan, Failure> {
        if !actor.scopes.contains(USERS_IMPERSONATE) {
            return Err(Refusal::InsufficientScope(USERS_IMPERSONATE.into()).into());
        }
        if !tenant.settings.impersonation {
            return Err(Refusal::NotExchangeable("the tenant's setting `impersonation` is off").into());
        }
        if reason.is_none_or(|reason| reason.trim().is_empty()) {
            return Err(Refusal::invalid("reason", "is missing: say why you act for this person").into());
        }
        let nobody = || Failure::from(Refusal::NotExchangeable("there is no such person, or they may not act"));
        let id = match name.parse() {
            Ok(id) => UserId(id),
            Err(_) => {
                let folded = Username::fold(name).ok_or_else(nobody)?;
                let mut tx = self.store.begin_in(tenant.tenant.id).await?;
                tx.tenant(tenant.tenant.id).await?.user_by_username(&folded).await?.ok_or_else(nobody)?.id
            }
        };
        let owner = self.directory.person(tenant.tenant.id, id).await?.ok_or_else(nobody)?;
        standing(tenant, &owner, None, None, now).map_err(|_| nobody())?;
        let OwnerNow::User(user) = &*owner else { return Err(nobody()) };
        let held = rights::of_person(tenant, user);
        let scopes = without_management(&held);
        if let Some(more) = holds_more(&actor.scopes, &held, &scopes) {
            return Err(Refusal::InsufficientScope(more).into());
        }
        let subject = Principal::Person(Person { tenant: tenant.clone(), owner, login: None });
        Ok(Loan { subject, scopes, key: None, family: None, ends: None, action: "impersonate", right: Some(USERS_IMPERSONATE) })
    }

    async fn record_refusal(
        &self,
        tenant: &TenantEntry,
        acting: &Acting,
        refusal: &Refusal,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Result<(), Failure> {
        let (rule, missing) = match refusal {
            Refusal::InsufficientScope(scope) => ("insufficient_scope", Some(scope.clone())),
            Refusal::InvalidScope(scope) => ("invalid_scope", Some(scope.clone())),
            Refusal::InvalidTarget => ("invalid_target", None),
            Refusal::Throttled { .. } => ("too_many_requests", None),
            Refusal::UsedUp { reason, .. } => (*reason, None),
            _ => ("not_exchangeable", None),
        };
        let draft = Draft {
            at: now,
            action: "impersonate",
            outcome: Outcome::Refused,
            actor: acting.name.clone(),
            subject: String::new(),
            target: String::new(),
            request_id: request.id.clone(),
            address: request.address,
            detail: Why { reason: rule, missing: missing.map(|scope| json!({ "scopes": [scope] })) }.detail(),
        };
        self.write_refusal(tenant.tenant.id, draft).await
    }
}

/// Refuses what the audit trail does not keep.
pub(crate) fn check_reason(reason: Option<&str>) -> Result<(), Refusal> {
    if reason.is_some_and(|reason| reason.chars().count() > LONGEST_REASON || reason.chars().any(char::is_control)) {
        let problem = format!("is at most {LONGEST_REASON} characters long, without control characters");
        return Err(Refusal::invalid("reason", problem));
    }
    Ok(())
}

/// Lets a client exchange the tokens that it is sent.
pub(crate) const TOKENS_EXCHANGE: &str = "tokens:exchange";
/// Lets somebody act for people who did not let them, where the tenant does.
pub(crate) const USERS_IMPERSONATE: &str = "users:impersonate";
