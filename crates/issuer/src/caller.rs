//! Who is calling: a bearer token of the tenant, or the key itself.

use chrono::{DateTime, Utc};
use claviger_store::id::KeyId;
use claviger_verifier::{AccessToken, Expected, Rejection, unverified_issuer, verify};

use crate::audit::{Actor, Authority};
use crate::directory::TenantEntry;
use crate::exchange::VerifiedKey;
use crate::scope::ScopeSet;
use crate::secret::AppKeyCredential;
use crate::settings::RequestInfo;
use crate::standing::standing;
use crate::{Failure, Issuer, Refusal};

/// What a caller presents.
pub enum Presented {
    /// `Authorization: Bearer` (RFC 6750).
    Token(String),
    /// `Authorization: Basic` with key and secret.
    Pair(Option<AppKeyCredential>),
}

/// A caller who may act now.
#[derive(Clone)]
pub struct Caller {
    /// The key behind the call, its owner and its tenant.
    pub key: VerifiedKey,
    /// What may be done: what the token was granted, as far as the key still holds it.
    pub scopes: ScopeSet,
    /// Seconds since 1970 at which the token ends; `None` for a key.
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

    /// As the audit trail names this caller.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor {
            name: format!("key:{}", self.key.entry.key.id),
            subject: self.key.entry.key.owner.to_string(),
            authority: Authority::Scopes(self.scopes.clone()),
            request: self.request.clone(),
        }
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
                let (key, token) = self.verify_token(tenant, &token, now).await?;
                let granted = ScopeSet::kept(&token.scope);
                let scopes = granted.intersection(key.scopes());
                Ok(Caller { key, scopes, token_ends: Some(token.expires_at), request })
            }
            Presented::Pair(credential) => match self.verify_pair(tenant, credential, &request, now).await {
                Ok(key) => Ok(Caller { scopes: key.scopes().clone(), key, token_ends: None, request }),
                Err(Failure::Refusal(Refusal::InvalidPair)) => Err(Refusal::Unauthenticated.into()),
                Err(failure) => Err(failure),
            },
        }
    }

    /// A token of ours, whose key may still act.
    pub(crate) async fn verify_token(
        &self,
        tenant: Option<&TenantEntry>,
        token: &str,
        now: DateTime<Utc>,
    ) -> Result<(VerifiedKey, AccessToken), Failure> {
        let invalid = |why| Failure::from(Refusal::InvalidToken(why));
        // The issuer that the token claims only chooses the keys to check it with.
        let claimed = unverified_issuer(token).ok_or_else(|| invalid("it is malformed"))?;
        let slug = self.settings.slug_of_issuer(&claimed).ok_or_else(|| invalid("it is from another issuer"))?;
        if tenant.is_some_and(|tenant| tenant.tenant.slug != slug) {
            return Err(invalid("it is from another issuer"));
        }
        let entry = self.directory.tenant_by_slug(slug).await?.ok_or_else(|| invalid("it is from another issuer"))?;
        let expected = Expected { issuer: &entry.issuer, audience: Some(&entry.issuer), leeway_seconds: 0 };
        let token = verify(token, &entry.published.keys, &expected, now.timestamp()).map_err(|rejection| {
            invalid(match rejection {
                Rejection::Expired => "it has expired",
                Rejection::Audience => "it is for another audience",
                _ => "it does not verify",
            })
        })?;
        let ended = "the key it was issued for may not act";
        let key = token.key_id.as_deref().and_then(KeyId::parse).ok_or_else(|| invalid(ended))?;
        let key = self.directory.key(&key).await?.filter(|key| key.tenant == entry.tenant.id).ok_or_else(|| invalid(ended))?;
        let owner = self.directory.owner(key.tenant, key.key.owner).await?;
        standing(&entry, &owner, &key.key, now).map_err(|_| invalid(ended))?;
        Ok((VerifiedKey { tenant: entry, entry: key, owner }, token))
    }
}
