//! Whether the provider still lets somebody in, asked when their tokens are refreshed.
//!
//! The provider's refresh token may be good once. So one request at a time asks with it, and keeps the next one before
//! anybody else may ask; the others wait for what it heard.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use claviger_store::connection::ConnectionLogin;
use claviger_store::id::{ConnectionId, FamilyId, TenantId};
use claviger_store::token_family::EndedBy;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use crate::audit::{Draft, Outcome, append};
use crate::connection::{ConnectionEntry, Provider};
use crate::directory::TenantEntry;
use crate::identity::Identity;
use crate::oidc::{Said, UpstreamToken};
use crate::refresh::{Refresh, Tokens};
use crate::refresh_token::RefreshToken;
use crate::settings::RequestInfo;
use crate::upstream::{acting, refresh_place};
use crate::{Failure, Fault, Issuer, Refusal};

/// Seconds that one request may take to ask, before another may: five requests of five seconds, and a little.
const ASKING: f64 = 30.0;
/// How long others wait for it.
const PATIENCE: Duration = Duration::from_secs(6);
/// Between looks.
const LOOK: Duration = Duration::from_millis(100);
/// A refresh that goes through the provider does not ask again what was asked so many seconds ago.
const JUST_NOW: i32 = 2;

/// What a login stands on at its provider.
struct Stood<'a> {
    tenant: &'a TenantEntry,
    connection: &'a ConnectionEntry,
    family: FamilyId,
    request: &'a RequestInfo,
}

impl Issuer {
    /// Refreshes tokens through the provider: it is asked first, whatever the connection says of when. The connection is
    /// the one that the client names.
    pub async fn refresh_upstream(&self, connection: &str, refresh: Refresh<'_>) -> Result<Tokens, Failure> {
        let refused = || Failure::from(Refusal::InvalidGrant { why: None });
        let Some(tenant) = refresh.tenant else { return Err(refused()) };
        let connection = self.find_connection_by_name(tenant.tenant.id, connection).await?;
        let token = RefreshToken::parse(refresh.token.expose_secret(), &self.settings.brand).ok_or_else(refused)?;
        let family = self.directory.family(tenant.tenant.id, token.family).await?.filter(|_| token.tenant == tenant.tenant.id);
        if family.and_then(|family| family.connection) != Some(connection.row.id) {
            return Err(refused());
        }
        self.recheck(&refresh, Some(JUST_NOW)).await?;
        self.refresh_unasked(refresh).await
    }

    /// Asks the provider that a login came from, if it is time. `after` is in seconds; `None` takes the connection's.
    pub(crate) async fn recheck(&self, refresh: &Refresh<'_>, after: Option<i32>) -> Result<(), Failure> {
        let Some(token) = RefreshToken::parse(refresh.token.expose_secret(), &self.settings.brand) else { return Ok(()) };
        if refresh.tenant.is_some_and(|tenant| tenant.tenant.id != token.tenant) {
            return Ok(());
        }
        let Some(family) = self.directory.family(token.tenant, token.family).await? else { return Ok(()) };
        let (Some(connection), None) = (family.connection, &family.ended) else { return Ok(()) };
        let Some(tenant) = self.directory.tenant(token.tenant).await? else { return Ok(()) };
        let connection = self.find_connection(token.tenant, connection).await?;
        let Some(after) = after.or(connection.settings.recheck_after) else { return Ok(()) };
        let due = self.clock.now() - TimeDelta::seconds(i64::from(after));
        // Nobody makes us ask with what is no newest token of theirs.
        if !self.would_rotate(&token, &family, refresh).await? {
            return Ok(());
        }
        let stood = Stood { tenant: &tenant, connection: &connection, family: token.family, request: &refresh.request };
        let began = Instant::now();
        loop {
            let Some(login) = self.connection_login(token.tenant, token.family).await? else {
                return Err(Refusal::InvalidGrant { why: None }.into());
            };
            if login.checked_at > due {
                return Ok(());
            }
            if let Some(login) = self.claim(token.tenant, token.family, due).await? {
                return self.ask_provider(&stood, login).await.map(|_| ());
            }
            wait_a_little(began).await?;
        }
    }

    /// Asks the provider for an access token of its own, for somebody who came through it. All that a refresh through the
    /// provider does happens too: whom it refuses is logged out.
    pub(crate) async fn ask_for_upstream_token(
        &self,
        tenant: &TenantEntry,
        connection: &ConnectionEntry,
        family: FamilyId,
        request: &RequestInfo,
    ) -> Result<UpstreamToken, Failure> {
        let stood = Stood { tenant, connection, family, request };
        let id = tenant.tenant.id;
        let began = Instant::now();
        loop {
            if self.connection_login(id, family).await?.is_none() {
                return Err(Refusal::InvalidGrant { why: None }.into());
            }
            // What another request heard a moment ago, it keeps to itself: an access token is nowhere written down.
            if let Some(login) = self.claim(id, family, self.clock.now()).await? {
                let access = self.ask_provider(&stood, login).await?;
                return access.ok_or_else(|| Fault::Upstream("the provider gave no bearer token".into()).into());
            }
            wait_a_little(began).await?;
        }
    }

    async fn connection_login(&self, tenant: TenantId, family: FamilyId) -> Result<Option<ConnectionLogin>, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        Ok(tx.tenant(tenant).await?.connection_login(family).await?)
    }

    async fn claim(&self, tenant: TenantId, family: FamilyId, due: DateTime<Utc>) -> Result<Option<ConnectionLogin>, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        let claimed = tx.tenant(tenant).await?.claim_connection_login(family, due, ASKING).await?;
        tx.commit().await?;
        Ok(claimed)
    }

    async fn release(&self, tenant: TenantId, family: FamilyId, checked_at: Option<DateTime<Utc>>) -> Result<(), Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        tx.tenant(tenant).await?.release_connection_login(family, checked_at).await?;
        Ok(tx.commit().await?)
    }

    async fn ask_provider(&self, stood: &Stood<'_>, login: ConnectionLogin) -> Result<Option<UpstreamToken>, Failure> {
        let tenant = stood.tenant.tenant.id;
        match self.ask_with(stood, &login).await {
            Ok(mut said) => {
                let access = said.access.take();
                self.release(tenant, stood.family, Some(self.clock.now())).await?;
                self.follow_claims(stood, &login, said).await?;
                Ok(access)
            }
            Err(Failure::Refusal(Refusal::Upstream(declined))) => Err(self.end_refused(stood, declined.reason()).await),
            Err(failure) => {
                self.release(tenant, stood.family, None).await?;
                Err(failure)
            }
        }
    }

    async fn ask_with(&self, stood: &Stood<'_>, login: &ConnectionLogin) -> Result<Said, Failure> {
        let tenant = stood.tenant.tenant.id;
        let no = || crate::oidc::declined("there is no refresh token of the provider's, or the link is gone");
        let Provider::Oidc(oidc) = &stood.connection.settings.provider else { return Err(no()) };
        if !stood.connection.is_enabled() {
            return Err(no());
        }
        let place = refresh_place(tenant, login.connection, login.user);
        let sealed = login.sealed_refresh.as_ref().ok_or_else(no)?;
        let opened = self.connection_vault.open(&place, sealed);
        let opened = opened.ok().and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        let token =
            opened.map(SecretString::from).ok_or_else(|| Fault::Internal("a provider's refresh token does not open".into()))?;
        let subject = self.subject_of(tenant, login).await?.ok_or_else(no)?;
        let secret = self.connection_secret(tenant, &stood.connection.row)?;
        let way = self.way(tenant, oidc, secret.as_ref());
        let metadata = way.metadata().await?;
        let given = way.refresh(&metadata, &token).await?;
        // First of all: theirs that we had may be good no more, whatever becomes of the rest.
        if let Some(token) = &given.refresh_token {
            let sealed = self.connection_vault.seal(&place, token.expose_secret().as_bytes(), &self.random);
            let sealed = sealed.map_err(|_| Fault::Internal("a provider's refresh token could not be sealed".into()))?;
            let mut tx = self.store.begin_in(tenant).await?;
            tx.tenant(tenant).await?.keep_provider_refresh(stood.family, &sealed).await?;
            tx.commit().await?;
        }
        way.read_refreshed(&metadata, given, &subject).await
    }

    async fn subject_of(&self, tenant: TenantId, login: &ConnectionLogin) -> Result<Option<String>, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        let links = tx.tenant(tenant).await?.connection_links(Some(login.user), None).await?;
        let here = |connection: ConnectionId| connection == login.connection;
        Ok(links.into_iter().find(|link| here(link.connection)).map(|link| link.subject))
    }

    /// What the provider says of somebody now counts now, if it said anything.
    async fn follow_claims(&self, stood: &Stood<'_>, login: &ConnectionLogin, said: Said) -> Result<(), Failure> {
        if said.claims.is_empty() {
            return Ok(());
        }
        let mapping = &stood.connection.settings.mapping;
        let identity = Identity::of(said.subject, &said.claims, mapping);
        if let Err(declined) = identity.check_groups(mapping) {
            return Err(self.end_refused(stood, declined.reason()).await);
        }
        let back = self.come_back(stood.tenant, stood.connection, &identity, login.user, stood.request, self.clock.now()).await;
        match back {
            Ok(_) => Ok(()),
            Err(Failure::Refusal(Refusal::Upstream(declined))) => Err(self.end_refused(stood, declined.reason()).await),
            Err(failure) => Err(failure),
        }
    }

    /// The provider said no: the login is over, and that is written before it is told, as what is returned.
    async fn end_refused(&self, stood: &Stood<'_>, reason: &str) -> Failure {
        self.write_end(stood, reason).await.err().unwrap_or_else(|| Refusal::InvalidGrant { why: None }.into())
    }

    async fn write_end(&self, stood: &Stood<'_>, reason: &str) -> Result<(), Failure> {
        let (tenant, now) = (stood.tenant.tenant.id, self.clock.now());
        let actor = acting(stood.connection, stood.request);
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        if scoped.end_family(stood.family, now, &actor.name, EndedBy::Revoked).await? {
            let target = format!("family:{}", stood.family);
            let deed = actor.did("token.refresh", target, json!({ "reason": reason }), now);
            let deed = Draft { outcome: Outcome::Refused, ..deed };
            append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        }
        self.commit_logins(tx, tenant, None, &[stood.family]).await
    }
}

/// Before the next look, while another request asks.
async fn wait_a_little(began: Instant) -> Result<(), Failure> {
    if began.elapsed() > PATIENCE {
        return Err(Fault::Overloaded("the asking of a provider about one login").into());
    }
    tokio::time::sleep(LOOK).await;
    Ok(())
}
