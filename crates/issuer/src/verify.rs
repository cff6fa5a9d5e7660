//! May this caller do this? A resource server asks, with what it was presented with.
//!
//! ```text
//! Bearer TOKEN                     a token of the tenant, good now
//! Bearer KEY:SECRET, KEY:SECRET    a key itself
//! Bearer USER:HEX                  an app token, where the tenant speaks Howler's dialect
//! Basic KEY:SECRET                 the same
//! Basic USER:KEY:SECRET            a key of that person, by its name or id
//! Basic USER:PASSWORD              a person
//! token=TICKET                     a WebSocket's one-time ticket
//! token=…                          any of the first two, where the tenant lets WebSockets send it
//!
//! and beside it
//! X-Impersonating: Basic USER:KEY:SECRET    a key that lets the caller act for USER
//! user_id                                   whom a key says that it acts for
//! ```
//!
//! What is told of a "no": to whoever presented a good secret, why; to anybody else, that it is not good.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use claviger_store::id::{KeyId, Owner};
use claviger_store::ticket::Holder;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::acting::{Acting, ActingRule, holds_more, is_acted_for, may_act_as, without_management};
use crate::app_token::AppToken;
use crate::audit::{Draft, Outcome};
use crate::caller::{Caller, For, Person, Principal, VerifiedToken};
use crate::denial::Why;
use crate::directory::TenantEntry;
use crate::exchange::{KEY_EXPIRED, Purpose, VerifiedKey};
use crate::howler::{is_key_name, tells_keys_apart};
use crate::login::{Asks, Login, Proven, REFUSED_AFTER};
use crate::measure::VERIFICATIONS;
use crate::record::Entry;
use crate::requirement::{Missing, Requirement, ScopesNeeded};
use crate::rights;
use crate::scope::ScopeSet;
use crate::secret::{AppKeyCredential, is_own_secret, is_ticket};
use crate::settings::RequestInfo;
use crate::standing::OwnerNow;
use crate::throttle::Attempt;
use crate::username::Username;
use crate::{Failure, Issuer, Refusal};

/// How the resource was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A request.
    Http,
    /// A WebSocket.
    Ws,
}

/// What a resource server was presented with, taken apart.
pub enum Shown {
    /// A token.
    Token(String),
    /// What Basic carries, decoded.
    Basic(SecretString),
    /// A key and its secret.
    Pair(AppKeyCredential),
    /// An app token, and as what else it can be read.
    AppToken(AppToken, Option<AppKeyCredential>),
    /// Something else.
    Unreadable,
}

/// What a resource server asks.
pub struct Question {
    /// `Authorization`.
    pub authorization: Option<Shown>,
    /// What `X-Impersonating` carries, decoded; `Some(None)` when it cannot be read.
    pub impersonating: Option<Option<SecretString>>,
    /// `?token=`.
    pub token: Option<SecretString>,
    /// Whom the caller says that it acts for.
    pub user_id: Option<String>,
    /// The `Origin` of a WebSocket.
    pub origin: Option<String>,
    /// Whom a token must be for, one of these; empty takes any token of the tenant.
    pub audiences: Vec<String>,
    /// What is asked for.
    pub require: Requirement,
    /// Letters of the tenant's usual audience, of which at least one is asked for; empty asks for nothing.
    pub privileges: Vec<String>,
    /// Policies of the tenant that are asked for, all of them.
    pub policies: Vec<String>,
    /// The caller's address and transport, as the resource server saw them, and the id of our own request.
    pub request: RequestInfo,
}

/// The caller, who may.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// `sub`, or whom the caller acts for.
    pub subject: String,
    /// The login name, where there is one.
    pub username: Option<String>,
    /// Roles held now.
    pub roles: Vec<String>,
    /// What may be done now.
    pub scopes: ScopeSet,
    /// Who acts, where that is somebody else.
    pub actor: Option<Acting>,
    /// The key behind it.
    pub key: Option<KeyId>,
    /// Seconds since 1970 at which it ends.
    pub ends: Option<i64>,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// Two credentials, or one that is not readable where it must be.
    Malformed(&'static str),
    /// No credential.
    NoCredential,
    /// A credential that is not good. Which, nobody but the audit trail hears.
    Invalid,
    /// A token that is not good.
    Token(&'static str),
    /// The person has no key of that name. Told only where old clients are told so.
    NoSuchKey,
    /// The key has ended. Told only to who holds its secret, where old clients are told so.
    KeyExpired,
    /// Too many failures.
    Throttled {
        /// Seconds until the next attempt is looked at.
        retry_after: u64,
    },
    /// The key may not be used from there, or in that way. Which, as a word.
    KeyLimit(&'static str),
    /// The key's rate limit or quota is used up.
    UsedUp {
        /// `rate_limited` or `quota_exhausted`.
        reason: &'static str,
        /// Seconds until there is more.
        retry_after: u64,
    },
    /// A token in an address, where it does not belong.
    TokenInQuery,
    /// A ticket for another origin, or outside of a WebSocket.
    Ticket,
    /// A key that does not act for that name.
    ActAs,
    /// A key for acting for its owner, where a caller's own credential belongs.
    ImpersonationKeyAlone,
    /// A key that does not let this caller act for its owner.
    NotImpersonationKey,
    /// No key that lets anybody act for somebody.
    NoImpersonatedUser,
    /// Whoever acts for another lets nobody else act.
    Chained,
    /// The person holds more than the actor: this, for one.
    HoldsMore(String),
    /// What is asked for is not held.
    Missing(Missing),
    /// A policy is not fulfilled.
    Policy {
        /// Its name.
        name: String,
        /// What was missing.
        missing: Missing,
        /// 401 or 403.
        status: u16,
    },
}

impl Denied {
    /// As a word, for the trail and for programs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "invalid_request",
            Self::NoCredential => "no_credential",
            Self::Invalid => "invalid_credentials",
            Self::Token(_) => "invalid_token",
            Self::NoSuchKey => "unknown_key",
            Self::KeyExpired => KEY_EXPIRED,
            Self::Throttled { .. } => "too_many_requests",
            Self::KeyLimit(reason) | Self::UsedUp { reason, .. } => reason,
            Self::TokenInQuery => "token_in_query",
            Self::Ticket => "ticket_not_allowed",
            Self::ActAs => "act_as_not_allowed",
            Self::ImpersonationKeyAlone => "impersonation_key_alone",
            Self::NotImpersonationKey => "not_an_impersonation_key",
            Self::NoImpersonatedUser => "no_impersonated_user",
            Self::Chained => "acting_for_another",
            Self::HoldsMore(_) => "target_holds_more",
            Self::Missing(Missing::Scopes(_)) => "insufficient_scope",
            Self::Missing(Missing::Roles(_)) => "insufficient_role",
            Self::Policy { .. } => "policy",
        }
    }

    fn detail(&self) -> Value {
        let of = |missing: &Missing| match missing {
            Missing::Scopes(scopes) => json!({ "scopes": scopes }),
            Missing::Roles(roles) => json!({ "roles": roles }),
        };
        let missing = match self {
            Self::Missing(missing) => Some(of(missing)),
            Self::HoldsMore(scope) => Some(json!({ "scopes": [scope] })),
            Self::Policy { name, missing, .. } => Some(json!({ "policy": name, "of": of(missing) })),
            _ => None,
        };
        Why { reason: self.word(), missing }.detail()
    }
}

/// What was decided.
pub type Decision = Result<Allowed, Denied>;

/// Somebody who proved to be themselves.
pub(crate) struct Proved {
    pub(crate) principal: Principal,
    pub(crate) scopes: ScopeSet,
    pub(crate) acting: Option<Acting>,
    pub(crate) ends: Option<i64>,
    /// Whether a token said so, which was issued for whom it names.
    pub(crate) by_token: bool,
}

/// Keys of one name that are tried, those made last.
const MOST_OF_A_NAME: i64 = 5;

/// The outer error is "could not find out", the inner one is "no".
pub type Finding<T, No = Denied> = Result<Result<T, No>, Failure>;

impl Issuer {
    /// Decides. An error means that it could not be found out: never a "yes".
    pub async fn verify(&self, asks: &Caller, question: Question) -> Result<Decision, Failure> {
        self.verify_for_proxy(&asks.tenant().clone(), question).await
    }

    /// As [`Issuer::verify`], for a proxy, which asks about what it forwards and needs no key for that: whoever asks learns about
    /// their own credential only.
    pub async fn verify_for_proxy(&self, tenant: &Arc<TenantEntry>, question: Question) -> Result<Decision, Failure> {
        let word = |decision: &Decision| if decision.is_ok() { "allowed" } else { "denied" };
        VERIFICATIONS.of(word, self.decide(tenant, question, For::Anybody).await)
    }

    /// Who calls what a dialect serves: a token must be for us or for the tenant's usual audience.
    pub async fn verify_for_dialect(&self, tenant: &Arc<TenantEntry>, question: Question) -> Result<Decision, Failure> {
        self.decide(tenant, question, For::UsOrUsual).await
    }

    async fn decide(&self, tenant: &Arc<TenantEntry>, question: Question, whose: For) -> Result<Decision, Failure> {
        question.require.check("require")?;
        if let Some(unknown) = question.policies.iter().find(|name| !tenant.settings.policies.contains_key(*name)) {
            let shown: String = unknown.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
            return Err(Refusal::invalid("policies", format!("name `{shown}`, which this tenant has not")).into());
        }
        let now = self.clock.now();
        let Question { authorization, impersonating, token, user_id, origin, audiences, require, privileges, policies, request } =
            question;
        let any = tenant.scopes_of_privileges(&privileges)?;
        let require =
            [require, Requirement { scopes: ScopesNeeded { any, ..ScopesNeeded::default() }, ..Requirement::default() }];
        let asked = Asked { origin: origin.as_deref(), audiences: &audiences, whose, request: &request };
        let proved = match self.prove_shown(tenant, authorization, token, &asked, now).await? {
            Ok(proved) => proved,
            Err(denied) => return Ok(Err(denied)),
        };
        let proven = proved.principal.clone();
        let decided =
            self.decide_for(tenant, proved, impersonating, user_id.as_deref(), &require, &policies, &request, now).await?;
        if let Err(denied) = &decided {
            // Whoever proved themselves is told why in the trail.
            self.record_denial(tenant, &proven, denied, &request, now).await?;
        }
        Ok(decided)
    }

    #[expect(clippy::too_many_arguments, reason = "a question's parts, taken apart by its one caller")]
    async fn decide_for(
        &self,
        tenant: &Arc<TenantEntry>,
        proved: Proved,
        impersonating: Option<Option<SecretString>>,
        user_id: Option<&str>,
        require: &[Requirement],
        policies: &[String],
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Finding<Allowed> {
        let allowed = match impersonating {
            Some(pair) => match self.impersonate(tenant, proved, pair, request, now).await? {
                Ok(allowed) => allowed,
                Err(denied) => return Ok(Err(denied)),
            },
            None => match act_as(proved, user_id) {
                Ok(allowed) => allowed,
                Err(denied) => return Ok(Err(denied)),
            },
        };
        if let Err(denied) = fulfils(tenant, &allowed, require, policies) {
            return Ok(Err(denied));
        }
        // What is done in another's name is written down before anybody hears that it may be done.
        if let Some(acting) = &allowed.actor {
            let key = allowed.key.as_ref().map(ToString::to_string);
            let draft = Draft {
                at: now,
                action: if user_id.is_some() || acting.name.starts_with("key:") { "act_as" } else { "impersonate" },
                outcome: Outcome::Ok,
                actor: acting.name.clone(),
                subject: named(&allowed),
                target: key.map(|key| format!("key:{key}")).unwrap_or_default(),
                request_id: request.id.clone(),
                address: request.address,
                detail: json!({ "how": "verify", "scope": allowed.scopes.to_string() }),
            };
            self.recorder.record(tenant.tenant.id, Entry { draft, token: None }).await?;
        }
        Ok(Ok(allowed))
    }

    async fn prove_shown(
        &self,
        tenant: &Arc<TenantEntry>,
        authorization: Option<Shown>,
        token: Option<SecretString>,
        asked: &Asked<'_>,
        now: DateTime<Utc>,
    ) -> Finding<Proved> {
        match (authorization, token) {
            (Some(_), Some(_)) => Ok(Err(Denied::Malformed("a credential in Authorization and another in the address"))),
            (None, None) => Ok(Err(Denied::NoCredential)),
            (Some(Shown::Unreadable), None) => Ok(Err(Denied::Invalid)),
            (Some(Shown::Token(token)), None) => self.prove_token(tenant, &token, asked, now).await,
            (Some(Shown::Pair(pair)), None) => self.prove_pair(tenant, pair, asked, now).await,
            (Some(Shown::AppToken(token, pair)), None) => self.prove_app_or_pair(tenant, &token, pair, asked, now).await,
            (Some(Shown::Basic(text)), None) => self.prove_basic(tenant, &text, asked, now).await,
            (None, Some(token)) => self.prove_query(tenant, &token, asked, now).await,
        }
    }

    /// A ticket, or, where the tenant lets WebSockets send them in the address, a token or a pair.
    async fn prove_query(
        &self,
        tenant: &Arc<TenantEntry>,
        token: &SecretString,
        asked: &Asked<'_>,
        now: DateTime<Utc>,
    ) -> Finding<Proved> {
        let text = token.expose_secret();
        if is_ticket(text, &self.settings.brand) {
            // Not used up where it does not belong.
            if asked.request.transport != Transport::Ws {
                return Ok(Err(Denied::Ticket));
            }
            return self.prove_ticket(tenant, text, asked, now).await;
        }
        if asked.request.transport != Transport::Ws || !tenant.settings.ws_query_token {
            return Ok(Err(Denied::TokenInQuery));
        }
        match AppKeyCredential::parse(text, &self.settings.brand) {
            Some(pair) => self.prove_pair(tenant, pair, asked, now).await,
            None => self.prove_token(tenant, text, asked, now).await,
        }
    }

    async fn prove_ticket(
        &self,
        tenant: &Arc<TenantEntry>,
        ticket: &str,
        asked: &Asked<'_>,
        now: DateTime<Utc>,
    ) -> Finding<Proved> {
        let Some(ticket) = self.consume_ticket(tenant, ticket).await? else { return Ok(Err(Denied::Invalid)) };
        if ticket.origin.is_some() && ticket.origin.as_deref() != asked.origin {
            return Ok(Err(Denied::Ticket));
        }
        let (key, user, family) = match &ticket.holder {
            Holder::Key(key) => (Some(key), None, None),
            Holder::User(user, family) => (None, Some(*user), *family),
        };
        let principal = match self.principal_now(tenant, key, user, family, now).await {
            Ok((principal, _)) => principal,
            Err(Failure::Refusal(_)) => return Ok(Err(Denied::Invalid)),
            Err(failure) => return Err(failure),
        };
        if let Err(denied) = self.use_of(&principal, asked.request, now).await? {
            return Ok(Err(denied));
        }
        let scopes = ScopeSet::kept(&ticket.scope).intersection(&principal.scopes());
        Ok(Ok(Proved { principal, scopes, acting: None, ends: None, by_token: false }))
    }

    async fn prove_token(
        &self,
        tenant: &Arc<TenantEntry>,
        token: &str,
        asked: &Asked<'_>,
        now: DateTime<Utc>,
    ) -> Finding<Proved> {
        let verified = match self.verify_token(Some(tenant), token, asked.whose, now).await {
            Ok(verified) => verified,
            Err(Failure::Refusal(Refusal::InvalidToken(why))) => return Ok(Err(Denied::Token(why))),
            Err(failure) => return Err(failure),
        };
        let VerifiedToken { principal, scopes, token, acting, .. } = verified;
        if !asked.audiences.is_empty() && !token.audience.iter().any(|one| asked.audiences.contains(one)) {
            return Ok(Err(Denied::Token("it is for another audience")));
        }
        if let Err(denied) = self.use_of(&principal, asked.request, now).await? {
            return Ok(Err(denied));
        }
        Ok(Ok(Proved { principal, scopes, acting, ends: token.expires_at, by_token: true }))
    }

    /// An app token, or a pair that looks like one.
    async fn prove_app_or_pair(
        &self,
        tenant: &Arc<TenantEntry>,
        token: &AppToken,
        pair: Option<AppKeyCredential>,
        asked: &Asked<'_>,
        now: DateTime<Utc>,
    ) -> Finding<Proved> {
        if tenant.settings.dialects.howler.is_none() {
            return match pair {
                Some(pair) => self.prove_pair(tenant, pair, asked, now).await,
                None => Ok(Err(Denied::Invalid)),
            };
        }
        match self.prove_app_token(tenant, token, now).await? {
            Ok((proved, _)) => Ok(self.use_of(&proved.principal, asked.request, now).await?.map(|()| proved)),
            // One that has ended is no wrong secret of a key that is not there.
            Err(denied) => match pair {
                Some(pair) if self.is_key_of(tenant, &pair.key).await? => self.prove_pair(tenant, pair, asked, now).await,
                _ => Ok(Err(denied)),
            },
        }
    }

    /// Whether the tenant has a key of that id.
    async fn is_key_of(&self, tenant: &TenantEntry, key: &KeyId) -> Result<bool, Failure> {
        Ok(self.directory.key(key).await?.is_some_and(|entry| entry.tenant == tenant.tenant.id))
    }

    async fn prove_pair(
        &self,
        tenant: &Arc<TenantEntry>,
        pair: AppKeyCredential,
        asked: &Asked<'_>,
        now: DateTime<Utc>,
    ) -> Finding<Proved> {
        Ok(self.try_pair(tenant, pair, asked.request, now).await?.and_then(own_key))
    }

    /// A key by its secret, with why not.
    async fn try_pair(
        &self,
        tenant: &Arc<TenantEntry>,
        pair: AppKeyCredential,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Finding<VerifiedKey> {
        let tried = found(self.verify_pair_for(Purpose::Any, Some(tenant), Some(pair), request, now).await)?;
        Ok(tried.map_err(|denied| match denied {
            Denied::KeyLimit(KEY_EXPIRED) if tells_keys_apart(tenant) => Denied::KeyExpired,
            Denied::KeyLimit(KEY_EXPIRED) => Denied::Invalid,
            denied => denied,
        }))
    }

    /// A use of the key behind a principal, if there is one.
    async fn use_of(&self, principal: &Principal, request: &RequestInfo, now: DateTime<Utc>) -> Finding<()> {
        match principal {
            Principal::Key(key) => found(self.use_key(key, request, now).await),
            Principal::Person(_) => Ok(Ok(())),
        }
    }

    /// `KEY:SECRET`, `USER:KEY:SECRET` or `USER:PASSWORD`: the first that there is.
    async fn prove_basic(
        &self,
        tenant: &Arc<TenantEntry>,
        text: &SecretString,
        asked: &Asked<'_>,
        now: DateTime<Utc>,
    ) -> Finding<Proved> {
        let brand = &self.settings.brand;
        let Some((first, rest)) = text.expose_secret().split_once(':') else { return Ok(Err(Denied::Invalid)) };
        if let Some(key) = KeyId::parse(first)
            && self.is_key_of(tenant, &key).await?
        {
            return match AppKeyCredential::parse(text.expose_secret(), brand) {
                Some(pair) => self.prove_pair(tenant, pair, asked, now).await,
                None => Ok(Err(Denied::Invalid)),
            };
        }
        if let Some((name, secret)) = rest.split_once(':')
            && let Some(keys) = self.named_keys(tenant, first, name).await?
        {
            return Ok(self.prove_named(tenant, &keys, secret, asked.request, now).await?.and_then(own_key));
        }
        let pair = rest.split_once(':');
        let asks = match pair.is_some_and(|(_, secret)| is_own_secret(secret, brand)) {
            true => Asks::Nobody,
            false => Asks::Directories,
        };
        let proved = self.prove_password(tenant, first, SecretString::from(rest), asks, asked.request, now).await?;
        let named = pair.is_some_and(|(name, _)| is_key_name(name));
        Ok(proved.map_err(|denied| no_such_key(tenant, denied, named)))
    }

    /// A key of that person by its name or id. To ask for one that there is not costs and counts as a wrong password does.
    pub(crate) async fn prove_key_of(
        &self,
        tenant: &Arc<TenantEntry>,
        username: &str,
        name: &str,
        secret: &SecretString,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Finding<VerifiedKey> {
        let secret = secret.expose_secret();
        if let Some(keys) = self.named_keys(tenant, username, name).await? {
            return self.prove_named(tenant, &keys, secret, request, now).await;
        }
        let password = SecretString::from(format!("{name}:{secret}"));
        Ok(Err(match self.prove_password(tenant, username, password, Asks::Nobody, request, now).await? {
            Ok(_) => Denied::Invalid,
            Err(denied) => no_such_key(tenant, denied, true),
        }))
    }

    /// The living keys of that person that have the name, or the id. `None` when there is none.
    async fn named_keys(&self, tenant: &TenantEntry, username: &str, name: &str) -> Result<Option<Vec<KeyId>>, Failure> {
        let Some(folded) = Username::fold(username) else { return Ok(None) };
        let mut tx = self.store.begin_in(tenant.tenant.id).await?;
        let keys = tx.tenant(tenant.tenant.id).await?.keys_named(&folded, name, MOST_OF_A_NAME).await?;
        Ok((!keys.is_empty()).then_some(keys))
    }

    /// The key among these that the secret belongs to. A wrong one is heard no sooner than a wrong password: whether there is a
    /// key of the name is not told by the time that it takes.
    async fn prove_named(
        &self,
        tenant: &Arc<TenantEntry>,
        keys: &[KeyId],
        secret: &str,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Finding<VerifiedKey> {
        let heard = Instant::now() + REFUSED_AFTER;
        let rule = self.key_throttle(Some(tenant));
        let mut denied = Denied::Invalid;
        for key in keys {
            let Some(pair) = AppKeyCredential::of(key.as_str(), secret, &self.settings.brand) else {
                if let Some(retry_after) = self.failures.fail(&Attempt::new(key.as_str(), request.address), rule, now) {
                    denied = Denied::Throttled { retry_after };
                }
                continue;
            };
            match self.try_pair(tenant, pair, request, now).await? {
                // Another of these may be the right one.
                Err(Denied::Invalid) => {}
                Err(throttled @ Denied::Throttled { .. }) => denied = throttled,
                settled => return Ok(settled),
            }
        }
        tokio::time::sleep_until(heard).await;
        Ok(Err(denied))
    }

    /// A person by the password. Whoever proved it is [succeeded](Issuer::succeeded) afterwards.
    pub(crate) async fn password_of(
        &self,
        tenant: &Arc<TenantEntry>,
        username: &str,
        password: SecretString,
        asks: Asks,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Finding<Proven> {
        let request = request.clone();
        let login = Login { tenant, username, password, scope: None, client: None, device: None, request };
        match self.prove_here_or(&login, asks, now).await {
            Ok(proven) => Ok(Ok(proven)),
            Err(Failure::Refusal(Refusal::Throttled { retry_after })) => Ok(Err(Denied::Throttled { retry_after })),
            Err(Failure::Refusal(_)) => Ok(Err(Denied::Invalid)),
            Err(failure) => Err(failure),
        }
    }

    async fn prove_password(
        &self,
        tenant: &Arc<TenantEntry>,
        username: &str,
        password: SecretString,
        asks: Asks,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Finding<Proved> {
        let proven = match self.password_of(tenant, username, password, asks, request, now).await? {
            Ok(proven) => proven,
            Err(denied) => return Ok(Err(denied)),
        };
        let owner = Arc::new(OwnerNow::User(proven.user.clone()));
        self.succeeded(tenant.tenant.id, proven).await;
        let principal = Principal::Person(Person { tenant: tenant.clone(), owner, login: None });
        Ok(Ok(Proved { scopes: principal.scopes(), principal, acting: None, ends: None, by_token: false }))
    }

    /// The caller acts for the owner of a second key. Its secret is looked at before its list of agents.
    async fn impersonate(
        &self,
        tenant: &Arc<TenantEntry>,
        caller: Proved,
        pair: Option<SecretString>,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Finding<Allowed> {
        let Some(pair) = pair else { return Ok(Err(Denied::Malformed("X-Impersonating is not Basic USER:KEY:SECRET"))) };
        if caller.acting.is_some() {
            return Ok(Err(Denied::Chained));
        }
        let key = match self.impersonation_key(tenant, &pair, request, now).await? {
            Ok(key) => key,
            Err(denied) => return Ok(Err(denied)),
        };
        let lent = match may_impersonate(tenant, &caller.principal, &caller.scopes, &key) {
            Ok(lent) => lent,
            Err(denied) => return Ok(Err(denied)),
        };
        let acting = acting_of(&caller.principal);
        tracing::warn!(
            tenant.id = %tenant.tenant.id, actor = %acting.name, subject = %key.entry.key.owner, request.id = %request.id,
            "{} is impersonating {}", acting.shown, key.username().unwrap_or_default()
        );
        Ok(Ok(Allowed {
            subject: key.subject(),
            username: key.username().map(str::to_owned),
            roles: key.owner_roles().to_vec(),
            scopes: lent,
            actor: Some(acting),
            key: Some(key.entry.key.id.clone()),
            ends: caller.ends,
        }))
    }

    /// `USER:KEY:SECRET` of a key that somebody may act with, or `KEY:SECRET`. A name that is not there counts, and is heard of,
    /// as a wrong secret is.
    pub(crate) async fn impersonation_key(
        &self,
        tenant: &Arc<TenantEntry>,
        text: &SecretString,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Finding<VerifiedKey> {
        let heard = Instant::now() + REFUSED_AFTER;
        let mut parts = text.expose_secret().splitn(3, ':').map(str::to_lowercase);
        let (first, second) = (parts.next().unwrap_or_default(), parts.next().filter(|_| parts.next().is_some()));
        let named = format!("lent {} {first}:{}", tenant.tenant.id, second.unwrap_or_default());
        let attempt = Attempt::new(&named, request.address);
        let rule = self.key_throttle(Some(tenant));
        if let Some(retry_after) = self.failures.blocked(&attempt, rule, now) {
            return Ok(Err(Denied::Throttled { retry_after }));
        }
        let found = self.find_impersonation_key(tenant, text, request, now).await?;
        if !matches!(found, Err(Denied::NoImpersonatedUser)) {
            return Ok(found);
        }
        let used_up = self.failures.fail(&attempt, rule, now);
        tokio::time::sleep_until(heard).await;
        Ok(used_up.map_or(found, |retry_after| Err(Denied::Throttled { retry_after })))
    }

    async fn find_impersonation_key(
        &self,
        tenant: &Arc<TenantEntry>,
        text: &SecretString,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Finding<VerifiedKey> {
        let text = text.expose_secret();
        let nobody = || Ok(Err(Denied::NoImpersonatedUser));
        let Some((first, rest)) = text.split_once(':') else { return nobody() };
        let key = match rest.split_once(':') {
            Some((name, secret)) => {
                let Some(keys) = self.named_keys(tenant, first, name).await? else { return nobody() };
                self.prove_named(tenant, &keys, secret, request, now).await?
            }
            None => {
                let Some(id) = KeyId::parse(first) else { return nobody() };
                self.prove_named(tenant, &[id], rest, request, now).await?
            }
        };
        match key {
            Ok(key) if key.entry.key.agents.is_none() => Ok(Err(Denied::NotImpersonationKey)),
            Ok(key) => Ok(Ok(key)),
            Err(Denied::Invalid | Denied::KeyExpired) => nobody(),
            Err(denied) => Ok(Err(denied)),
        }
    }

    async fn record_denial(
        &self,
        tenant: &TenantEntry,
        who: &Principal,
        denied: &Denied,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Result<(), Failure> {
        let (actor, subject) = match who {
            Principal::Key(key) => (format!("key:{}", key.entry.key.id), key.entry.key.owner.to_string()),
            Principal::Person(_) => (format!("user:{}", who.subject()), format!("user:{}", who.subject())),
        };
        let draft = Draft {
            at: now,
            action: "verify",
            outcome: Outcome::Refused,
            actor,
            subject,
            target: String::new(),
            request_id: request.id.clone(),
            address: request.address,
            detail: denied.detail(),
        };
        self.write_refusal(tenant.tenant.id, draft).await
    }
}

/// Where and how was asked.
struct Asked<'a> {
    origin: Option<&'a str>,
    audiences: &'a [String],
    /// Which tokens count.
    whose: For,
    request: &'a RequestInfo,
}

/// What is told of a key that may not be used. Whoever proved to hold it hears which of its limits stands in the way.
fn found<T>(outcome: Result<T, Failure>) -> Finding<T> {
    match outcome {
        Ok(good) => Ok(Ok(good)),
        Err(Failure::Refusal(Refusal::InvalidPair)) => Ok(Err(Denied::Invalid)),
        Err(Failure::Refusal(Refusal::Throttled { retry_after })) => Ok(Err(Denied::Throttled { retry_after })),
        Err(Failure::Refusal(Refusal::KeyLimit(reason))) => Ok(Err(Denied::KeyLimit(reason))),
        Err(Failure::Refusal(Refusal::UsedUp { reason, retry_after })) => Ok(Err(Denied::UsedUp { reason, retry_after })),
        Err(failure) => Err(failure),
    }
}

/// A "no" to what could have been the name and secret of a key.
fn no_such_key(tenant: &TenantEntry, denied: Denied, named: bool) -> Denied {
    match denied {
        Denied::Invalid if named && tells_keys_apart(tenant) => Denied::NoSuchKey,
        denied => denied,
    }
}

/// A key that its holder uses for itself.
pub(crate) fn own_key(key: VerifiedKey) -> Result<Proved, Denied> {
    match key.entry.key.agents {
        Some(_) => Err(Denied::ImpersonationKeyAlone),
        None => {
            let scopes = key.scopes().clone();
            Ok(Proved { scopes, principal: Principal::Key(key), acting: None, ends: None, by_token: false })
        }
    }
}

/// Who acts.
pub(crate) fn acting_of(principal: &Principal) -> Acting {
    let subject = principal.subject();
    match principal {
        Principal::Person(_) => {
            Acting { name: format!("user:{subject}"), shown: principal.username().unwrap_or_default().to_owned(), subject }
        }
        Principal::Key(key) => match (&key.entry.key.owner, key.username()) {
            (Owner::User(_), Some(username)) => Acting { name: format!("user:{subject}"), shown: username.to_owned(), subject },
            _ => Acting { name: format!("key:{}", key.entry.key.id), shown: key.entry.key.name.clone(), subject },
        },
    }
}

/// Whether the caller may act with that key, and what it lends then: of what its owner holds now, what the caller holds too.
pub(crate) fn may_impersonate(
    tenant: &TenantEntry,
    caller: &Principal,
    held: &ScopeSet,
    key: &VerifiedKey,
) -> Result<ScopeSet, Denied> {
    let agents = key.entry.key.agents.as_deref().unwrap_or_default();
    if !caller.username().is_some_and(|name| ActingRule::admits(agents, name)) {
        return Err(Denied::NotImpersonationKey);
    }
    let OwnerNow::User(target) = &*key.owner else { return Err(Denied::NoImpersonatedUser) };
    let lent = without_management(key.scopes());
    match holds_more(held, &rights::of_person(tenant, target), &lent) {
        Some(scope) => Err(Denied::HoldsMore(scope)),
        None => Ok(lent),
    }
}

/// The caller itself, or whom its key says that it acts for. A token says by itself whose it is.
fn act_as(proved: Proved, user_id: Option<&str>) -> Result<Allowed, Denied> {
    let Proved { principal, scopes, acting, ends, by_token } = proved;
    let mut allowed = Allowed {
        subject: principal.subject(),
        username: principal.username().map(str::to_owned),
        roles: match &principal {
            // Types of people, there: a key limits privileges alone.
            Principal::Key(key) if key.tenant.settings.dialects.howler.is_some() => key.owner_roles().to_vec(),
            principal => principal.roles(),
        },
        scopes,
        actor: acting,
        key: None,
        ends,
    };
    let Principal::Key(key) = &principal else { return Ok(allowed) };
    allowed.key = Some(key.entry.key.id.clone());
    if by_token || allowed.actor.is_some() {
        return Ok(allowed);
    }
    let list = key.entry.key.act_as.as_deref();
    let Some(name) = user_id.or(key.entry.key.act_as_default.as_deref()) else { return Ok(allowed) };
    if !list.is_some_and(|list| is_acted_for(name) && may_act_as(list, name)) {
        return Err(Denied::ActAs);
    }
    allowed.actor =
        Some(Acting { subject: key.subject(), name: format!("key:{}", key.entry.key.id), shown: key.entry.key.name.clone() });
    name.clone_into(&mut allowed.subject);
    allowed.username = Some(name.to_owned());
    Ok(allowed)
}

fn fulfils(tenant: &TenantEntry, allowed: &Allowed, require: &[Requirement], policies: &[String]) -> Result<(), Denied> {
    for requirement in require {
        requirement.judge(&allowed.scopes, &allowed.roles).map_err(Denied::Missing)?;
    }
    for name in policies {
        // Asked for by name: one that is gone meanwhile is fulfilled by nobody.
        let Some(policy) = tenant.settings.policies.get(name) else {
            return Err(Denied::Policy { name: name.clone(), missing: Missing::Roles(Vec::new()), status: 403 });
        };
        if let Err(missing) = policy.judge(&allowed.scopes, &allowed.roles) {
            return Err(Denied::Policy { name: name.clone(), missing, status: policy.status.unwrap_or(403) });
        }
    }
    Ok(())
}

/// As the audit trail writes whom somebody acts for.
fn named(allowed: &Allowed) -> String {
    match uuid::Uuid::parse_str(&allowed.subject) {
        Ok(id) => format!("user:{id}"),
        Err(_) => format!("name:{}", allowed.subject),
    }
}
