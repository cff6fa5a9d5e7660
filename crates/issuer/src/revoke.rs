//! Tokens called back by whoever holds them (RFC 7009), or by an operator's key.

use claviger_store::id::FamilyId;
use claviger_store::token_family::EndedBy;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use subtle::ConstantTimeEq as _;

use crate::audit::{Actor, Authority, append};
use crate::caller::{Caller, For, Principal, VerifiedToken};
use crate::directory::TenantEntry;
use crate::introspect::is_own;
use crate::refresh::{Client, named};
use crate::refresh_token::RefreshToken;
use crate::scope::ScopeSet;
use crate::settings::RequestInfo;
use crate::{Failure, Issuer, Refusal};

impl Issuer {
    /// Calls a token back: a refresh token with its whole family, an access token of a login with its login, any other
    /// access token alone. A token that is not good, or not the caller's, is none of our business (RFC 7009 §2.2): then
    /// nothing happens. A refresh token is proof enough for itself, unless it was given to a client: then that client must
    /// have proved itself.
    pub async fn revoke(
        &self,
        tenant: Option<&TenantEntry>,
        caller: Option<&Caller>,
        token: &SecretString,
        request: &RequestInfo,
    ) -> Result<(), Failure> {
        match RefreshToken::parse(token.expose_secret(), &self.settings.brand) {
            Some(refresh) => self.revoke_family_of(tenant, caller, &refresh, request).await,
            None => self.revoke_access_token(tenant, caller, token, request).await,
        }
    }

    async fn revoke_family_of(
        &self,
        tenant: Option<&TenantEntry>,
        caller: Option<&Caller>,
        token: &RefreshToken,
        request: &RequestInfo,
    ) -> Result<(), Failure> {
        if tenant.is_some_and(|tenant| tenant.tenant.id != token.tenant) {
            return Ok(());
        }
        let Some(entry) = self.directory.tenant(token.tenant).await? else { return Ok(()) };
        let Some(family) = self.directory.family(token.tenant, token.family).await? else { return Ok(()) };
        let client = Client::of(token.tenant, &family, caller.and_then(Caller::key));
        let now = self.clock.now();
        let mut tx = self.store.begin_in(entry.tenant.id).await?;
        let mut scoped = tx.tenant(entry.tenant.id).await?;
        let locked = scoped.lock_families(&[(token.family, token.generation)]).await?;
        let genuine = locked.macs.get(&(token.family, token.generation)).is_some_and(|(version, kept)| {
            token.macs(&self.peppers).iter().any(|(presented, mac)| presented == version && bool::from(mac.0.ct_eq(&kept.0)))
        });
        let name = named(&family.principal);
        if !genuine {
            return Ok(());
        }
        match client {
            Client::Other if family.client.is_some() => return Err(Refusal::Unauthenticated.into()),
            // Of another key, or nobody's but its holder's: none of theirs.
            Client::Other => return Ok(()),
            Client::Bearer | Client::Proven => {}
        }
        if !scoped.end_family(token.family, now, &name, EndedBy::Revoked).await? {
            return Ok(());
        }
        let actor =
            Actor { subject: name.clone(), name, authority: Authority::Scopes(ScopeSet::default()), request: request.clone() };
        let deed = actor.did("token.revoke", format!("family:{}", token.family), json!({ "kind": "refresh_token" }), now);
        append(&mut scoped, entry.tenant.id, &self.chain_key, &self.random, [deed]).await?;
        self.commit_logins(tx, entry.tenant.id, None, &[token.family]).await
    }

    async fn revoke_access_token(
        &self,
        tenant: Option<&TenantEntry>,
        caller: Option<&Caller>,
        token: &SecretString,
        request: &RequestInfo,
    ) -> Result<(), Failure> {
        let now = self.clock.now();
        let verified = match self.verify_token(tenant, token.expose_secret(), For::Anybody, now).await {
            Ok(verified) => verified,
            Err(Failure::Refusal(Refusal::InvalidToken(_))) => return Ok(()),
            Err(failure) => return Err(failure),
        };
        let VerifiedToken { principal, id, kept_until, family, .. } = verified;
        // Whoever holds a bearer token may end it, unless it was given to a client: then that client must have proved
        // itself. A caller who proved to be somebody else may not.
        let of_client = match family {
            Some(id) => self.directory.family(principal.tenant_id(), id).await?.filter(|family| family.client.is_some()),
            None => None,
        };
        match (of_client, caller) {
            (Some(family), caller) => match Client::of(principal.tenant_id(), &family, caller.and_then(Caller::key)) {
                Client::Proven | Client::Bearer => {}
                Client::Other => return Err(Refusal::Unauthenticated.into()),
            },
            (None, Some(caller)) if !is_own(caller, &principal) => return Ok(()),
            (None, _) => {}
        }
        let scopes = ScopeSet::default();
        let bearer = Caller { principal, scopes, acting: None, token_ends: None, request: request.clone() };
        let actor = bearer.actor();
        let tenant = bearer.tenant().tenant.id;
        let of_a_login = matches!(bearer.principal, Principal::Person(_));
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        let ended: Option<FamilyId> = match family.filter(|_| of_a_login) {
            Some(family) if scoped.end_family(family, now, &actor.name, EndedBy::Revoked).await? => Some(family),
            _ => None,
        };
        let revoked = scoped.revoke_token(id, kept_until, now, &actor.name).await?;
        if revoked || ended.is_some() {
            let deed = actor.did("token.revoke", format!("token:{id}"), json!({ "kind": "access_token" }), now);
            append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        }
        self.commit_logins(tx, tenant, Some(id), ended.as_slice()).await
    }
}
