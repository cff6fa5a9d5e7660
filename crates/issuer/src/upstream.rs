//! Login through a tenant's own OpenID Connect provider.
//!
//! ```text
//! begin    a state row: nonce, PKCE verifier, this browser, what it becomes      ──► to the provider
//! finish   the row is used up by the browser that began it ──► the code is exchanged, its ID token judged
//!          ──► an identity ──► the person who is linked to it, or a new account, or a link
//! ```
//!
//! An identity is a connection and what the provider calls somebody there. Nothing else says who somebody is: a name or an
//! address that is the same here and there is a coincidence, or an attack.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
pub use claviger_store::connection::Purpose;
use claviger_store::connection::{ALREADY_LINKED, Link, SUBJECT_TAKEN, State};
use claviger_store::id::{ConnectionId, TenantId, UserId};
use claviger_store::user::{EMAIL_TAKEN, LOOK_TAKEN, NewUser, USERNAME_TAKEN, User};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::attribute::{Attributes, differing, name_attributes};
use crate::audit::{Actor, Authority, Draft, Outcome, append};
use crate::caller::{Caller, Login as Stood};
use crate::connection::{ConnectionEntry, Oidc, Provider};
use crate::directory::TenantEntry;
use crate::identity::Identity;
use crate::login::login_draft;
use crate::mint::Target;
use crate::oidc::{Asked, Declined, Way};
use crate::opening::Opening;
use crate::record::Entry;
use crate::refresh::Tokens;
use crate::scope::ScopeSet;
use crate::settings::{RequestInfo, Throttle};
use crate::standing::{OwnerNow, standing};
use crate::throttle::Attempt;
use crate::username::Username;
use crate::vault::DoesNotOpen;
use crate::{Failure, Fault, Issuer, Refusal};

/// Seconds that somebody may take at the provider.
const PATIENCE: i64 = 600;
/// Logins that may be begun from one address in fifteen minutes: a whole office may be behind one.
const BEGUN: Throttle = Throttle { failures: 1000, window: 900 };
/// Longest `state`, code and the like that are looked at, in bytes.
const LONGEST_ANSWER: usize = 4096;
/// Purpose of the digests of `state`.
const STATE: &str = "upstream state";
/// Purpose of the digests of browsers' cookies.
const BROWSER: &str = "upstream browser";

/// A login that goes to a provider.
pub struct Beginning<'a> {
    /// Where.
    pub tenant: &'a Arc<TenantEntry>,
    /// The connection's name.
    pub connection: &'a str,
    /// Where the provider sends the browser back to, of this connection alone.
    pub redirect_uri: String,
    /// A cookie of this browser that nobody else knows.
    pub browser: &'a str,
    /// What it becomes.
    pub purpose: Purpose,
    /// A path of ours to go on to.
    pub return_to: Option<&'a str>,
    /// The request.
    pub request: &'a RequestInfo,
}

/// What a browser brings back from a provider (RFC 6749 §4.1.2, RFC 9207 §2).
pub struct Returned<'a> {
    /// Where.
    pub tenant: &'a Arc<TenantEntry>,
    /// The connection's name.
    pub connection: &'a str,
    /// Where it came back to.
    pub redirect_uri: String,
    /// The cookie that the login was begun with.
    pub browser: Option<&'a str>,
    /// `state`.
    pub state: Option<&'a str>,
    /// `code`.
    pub code: Option<&'a str>,
    /// `error`.
    pub error: Option<&'a str>,
    /// `iss`.
    pub iss: Option<&'a str>,
    /// Who is signed in in this browser.
    pub signed_in: Option<&'a Caller>,
    /// The request.
    pub request: &'a RequestInfo,
}

/// Somebody who came back and is known.
pub struct Arrived {
    /// What was begun.
    pub purpose: Purpose,
    /// A path of ours to go on to.
    pub return_to: Option<String>,
    user: Arc<User>,
    connection: ConnectionId,
    sealed_refresh: Option<Vec<u8>>,
}

/// Where a provider's refresh token is sealed.
pub(crate) fn refresh_place(tenant: TenantId, connection: ConnectionId, user: UserId) -> String {
    format!("connection_logins:sealed_refresh:{tenant}:{connection}:{user}")
}

fn state_place(tenant: TenantId, mac: &[u8; 32]) -> String {
    format!("connection_states:sealed:{tenant}:{}", URL_SAFE_NO_PAD.encode(mac))
}

fn sealing(_: DoesNotOpen) -> Failure {
    Fault::Internal("what belongs to a login through a connection cannot be sealed or opened".into()).into()
}

fn no_pepper() -> Failure {
    Fault::Internal("there is no pepper".into()).into()
}

/// Whoever comes through a connection acts by it, as the audit trail names it.
pub(crate) fn acting(connection: &ConnectionEntry, request: &RequestInfo) -> Actor {
    Actor {
        name: connection.audit_name(),
        subject: String::new(),
        authority: Authority::Scopes(ScopeSet::default()),
        request: request.clone(),
    }
}

impl Issuer {
    /// Where the provider sends browsers back to: of this tenant and connection alone, so that one provider's answer is
    /// never taken for another's.
    #[must_use]
    pub fn redirect_uri(tenant: &TenantEntry, connection: &str) -> String {
        format!("{}/login/{connection}/callback", tenant.issuer)
    }

    /// The connection of that name, if it is one to a provider and may be used.
    async fn provider(&self, tenant: &TenantEntry, name: &str) -> Result<(ConnectionEntry, Oidc), Failure> {
        let connection = self.find_connection_by_name(tenant.tenant.id, name).await?;
        match &connection.settings.provider {
            Provider::Oidc(oidc) if connection.is_enabled() && tenant.tenant.status.is_active() => {
                let oidc = oidc.clone();
                Ok((connection, oidc))
            }
            _ => Err(Refusal::NotFound.into()),
        }
    }

    pub(crate) fn way<'a>(&'a self, tenant: TenantId, oidc: &'a Oidc, secret: Option<&'a SecretString>) -> Way<'a> {
        Way { outbound: &self.outbound, tenant, oidc, secret, now: self.clock.now().timestamp() }
    }

    /// Connections that a login page offers: name and title.
    pub async fn offered_connections(&self, tenant: TenantId) -> Result<Vec<(String, String)>, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        let all = tx.tenant(tenant).await?.connections().await?;
        let offered = all.into_iter().filter(|row| row.kind == "oidc" && row.disabled_at.is_none());
        Ok(offered.map(|row| (row.name, row.title)).collect())
    }

    /// What is found when a connection is tried, line by line. For the operator, who may read why it does not work.
    pub async fn try_connection(&self, tenant: TenantId, connection: &ConnectionEntry) -> Result<Vec<String>, Failure> {
        match &connection.settings.provider {
            Provider::Oidc(oidc) => {
                let way = self.way(tenant, oidc, None);
                let metadata = way.metadata().await?;
                let keys = way.keys(&metadata).await?;
                Ok(vec![format!("{} publishes its metadata and {keys} keys", oidc.issuer)])
            }
            Provider::Ldap(ldap) => Ok(vec![self.try_directory(tenant, connection, ldap).await?]),
        }
    }

    /// Begins a login, and says where to send the browser.
    pub async fn begin_upstream(&self, beginning: Beginning<'_>) -> Result<Url, Failure> {
        let Beginning { tenant, connection: name, redirect_uri, browser, purpose, return_to, request } = beginning;
        let now = self.clock.now();
        let id = tenant.tenant.id;
        if let Some(retry_after) = self.failures.fail(&Attempt::new(&format!("upstream {id}"), request.address), BEGUN, now) {
            return Err(Refusal::Throttled { retry_after }.into());
        }
        let (connection, oidc) = self.provider(tenant, name).await?;
        let metadata = self.way(id, &oidc, None).metadata().await?;
        let [state, nonce, verifier] = std::array::from_fn(|_| URL_SAFE_NO_PAD.encode(self.random.bytes::<32>()));
        let (_, mac) = self.peppers.digest(STATE, &[id.0.as_bytes(), state.as_bytes()]).ok_or_else(no_pepper)?;
        let (_, kept_browser) = self.peppers.digest(BROWSER, &[id.0.as_bytes(), browser.as_bytes()]).ok_or_else(no_pepper)?;
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        // Both are 43 characters long.
        let sealed = self.connection_vault.seal(&state_place(id, &mac), format!("{nonce}{verifier}").as_bytes(), &self.random);
        let url = metadata.authorization_url(&Asked {
            oidc: &oidc,
            redirect_uri: &redirect_uri,
            state: &state,
            nonce: &nonce,
            challenge: &challenge,
        });
        let kept = State {
            mac,
            connection: connection.row.id,
            browser: kept_browser,
            sealed: sealed.map_err(sealing)?,
            redirect_uri,
            return_to: return_to.map(str::to_owned),
            purpose,
        };
        let mut tx = self.store.begin_in(id).await?;
        tx.tenant(id).await?.create_connection_state(&kept, now, now + TimeDelta::seconds(PATIENCE)).await?;
        tx.commit().await?;
        Ok(url)
    }

    /// Takes what a browser brings back. A link is made here; a session or tokens the caller begins.
    pub async fn finish_upstream(&self, returned: Returned<'_>) -> Result<Arrived, Failure> {
        let (connection, oidc) = self.provider(returned.tenant, returned.connection).await?;
        let outcome = self.finish(&returned, &connection, &oidc).await;
        if let Err(Failure::Refusal(Refusal::Upstream(declined))) = &outcome {
            tracing::info!(
                tenant.id = %returned.tenant.tenant.id, request.id = %returned.request.id, connection = returned.connection,
                reason = declined.reason(), "a login through a connection was refused"
            );
            // What belongs to no login that was begun anybody can make up, again and again.
            if *declined != Declined::State {
                self.refused_through(returned.tenant.tenant.id, &connection, returned.request, declined.reason()).await?;
            }
        }
        outcome
    }

    /// Writes that somebody did not get in.
    async fn refused_through(
        &self,
        tenant: TenantId,
        connection: &ConnectionEntry,
        request: &RequestInfo,
        reason: &str,
    ) -> Result<(), Failure> {
        let draft = Draft {
            at: self.clock.now(),
            action: "user.login",
            outcome: Outcome::Refused,
            actor: "anonymous".into(),
            subject: String::new(),
            target: connection.audit_name(),
            request_id: request.id.clone(),
            address: request.address,
            detail: json!({ "reason": reason, "how": "upstream", "connection": connection.row.id }),
        };
        self.recorder.record(tenant, Entry { draft, token: None }).await
    }

    async fn finish(&self, returned: &Returned<'_>, connection: &ConnectionEntry, oidc: &Oidc) -> Result<Arrived, Failure> {
        let Returned { tenant, connection: _, redirect_uri: here, browser, state, code, error, iss, signed_in, request } =
            returned;
        let id = tenant.tenant.id;
        let refused = |declined| Failure::from(Refusal::Upstream(declined));
        let (Some(state), Some(browser)) = (state, browser) else { return Err(refused(Declined::State)) };
        if [Some(*state), *code, *iss].into_iter().flatten().any(|text| text.len() > LONGEST_ANSWER) {
            return Err(refused(Declined::State));
        }
        let kept = self.use_state(id, connection.row.id, state, browser).await?.ok_or_else(|| refused(Declined::State))?;
        let State { mac, sealed, redirect_uri, return_to, purpose, .. } = kept;
        // Where we sent it to must be where it came back to.
        if redirect_uri != *here {
            return Err(refused(Declined::State));
        }
        let opened = self.connection_vault.open(&state_place(id, &mac), &sealed).map_err(sealing)?;
        let opened = std::str::from_utf8(&opened).ok().and_then(|text| text.split_at_checked(43));
        let (nonce, verifier) = opened.ok_or_else(|| sealing(DoesNotOpen))?;
        let secret = self.connection_secret(id, &connection.row)?;
        let way = self.way(id, oidc, secret.as_ref());
        let metadata = way.metadata().await?;
        if !metadata.sent(*iss) {
            return Err(crate::oidc::declined("an answer from another issuer, or from none"));
        }
        let Some(code) = code.filter(|_| error.is_none()) else {
            return Err(crate::oidc::declined("the provider answered with an error, or without a code"));
        };
        let said = way.exchange(&metadata, code, &redirect_uri, &SecretString::from(verifier.to_owned()), nonce).await?;
        let identity = Identity::of(said.subject, &said.claims, &connection.settings.mapping);
        identity.check_groups(&connection.settings.mapping).map_err(refused)?;
        let user = match &purpose {
            Purpose::Link(user, session) => {
                // Whoever finishes is whoever began: by their session, not by anything that the address says.
                let same = signed_in.is_some_and(|caller| {
                    caller.person().is_ok_and(|person| {
                        person.login == Some(Stood::Session(*session)) && person.user().is_ok_and(|own| own.id == *user)
                    })
                });
                let caller = signed_in.filter(|_| same).ok_or_else(|| refused(Declined::NotWhoBegan))?;
                self.link_identity(id, &caller.actor(), connection, *user, &identity.subject, &identity.profile()).await?;
                Arc::new(self.find_user(id, *user).await?)
            }
            Purpose::Session | Purpose::Tokens => self.person_of(tenant, connection, &identity, request).await?,
        };
        let sealed_refresh = said.refresh_token.filter(|_| purpose == Purpose::Tokens).map(|token| {
            let place = refresh_place(id, connection.row.id, user.id);
            self.connection_vault.seal(&place, token.expose_secret().as_bytes(), &self.random).map_err(sealing)
        });
        Ok(Arrived { purpose, return_to, user, connection: connection.row.id, sealed_refresh: sealed_refresh.transpose()? })
    }

    /// Uses a state up, before anything else is done with it.
    async fn use_state(
        &self,
        tenant: TenantId,
        connection: ConnectionId,
        state: &str,
        browser: &str,
    ) -> Result<Option<State>, Failure> {
        let all = |purpose, text: &str| -> Vec<[u8; 32]> {
            self.peppers.digests(purpose, &[tenant.0.as_bytes(), text.as_bytes()]).map(|(_, mac)| mac).collect()
        };
        let (states, browsers) = (all(STATE, state), all(BROWSER, browser));
        let mut tx = self.store.begin_in(tenant).await?;
        let used = tx.tenant(tenant).await?.consume_connection_state(connection, &states, &browsers, self.clock.now()).await?;
        tx.commit().await?;
        Ok(used)
    }

    /// The person who is linked to an identity; where there is none, a new account if the connection makes them.
    pub(crate) async fn person_of(
        &self,
        tenant: &Arc<TenantEntry>,
        connection: &ConnectionEntry,
        identity: &Identity,
        request: &RequestInfo,
    ) -> Result<Arc<User>, Failure> {
        let id = tenant.tenant.id;
        let mut again = true;
        loop {
            let now = self.clock.now();
            let mut tx = self.store.begin_in(id).await?;
            let link = tx.tenant(id).await?.connection_links(None, Some((connection.row.id, &identity.subject))).await?;
            drop(tx);
            let outcome = match link.first() {
                Some(link) => self.come_back(tenant, connection, identity, link.user, request, now).await,
                None => self.create_arrived(id, connection, identity, request, now).await,
            };
            match outcome {
                // The same person may have come twice at once: then the other is linked by now.
                Err(Failure::Refusal(Refusal::Upstream(Declined::NameTaken | Declined::LinkedOtherwise))) if again => {
                    again = false
                }
                Err(Failure::Fault(Fault::Store(error))) if again && error.unique_violation() == Some(EMAIL_TAKEN) => {
                    again = false
                }
                settled => return settled.map(Arc::new),
            }
        }
    }

    /// Somebody who was here before.
    pub(crate) async fn come_back(
        &self,
        tenant: &TenantEntry,
        connection: &ConnectionEntry,
        identity: &Identity,
        user: UserId,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Result<User, Failure> {
        let id = tenant.tenant.id;
        let refused = |declined| Failure::from(Refusal::Upstream(declined));
        let mut tx = self.store.begin_in(id).await?;
        let mut scoped = tx.tenant(id).await?;
        if !scoped.lock_user(user).await? {
            return Err(refused(Declined::MayNot));
        }
        let before = scoped.user(user).await?.ok_or_else(|| refused(Declined::MayNot))?;
        let owner = OwnerNow::User(Arc::new(before.clone()));
        if standing(tenant, &owner, None, None, now).is_err() {
            return Err(refused(Declined::MayNot));
        }
        let mut after = before.clone();
        if connection.settings.sync {
            after.roles = identity.synced(&before.roles, &connection.settings.mapping);
            after.attributes = identity.told(&before.attributes, &connection.settings.mapping);
            if let Some(email) = &identity.email
                && before.email.as_ref() != Some(email)
                && scoped.user_by_email(email).await?.is_none()
            {
                after.email = Some(email.clone());
            }
        }
        let mut changed = Vec::new();
        if after.roles != before.roles {
            scoped.set_user_roles(user, &after.roles).await?;
            changed.push("roles");
        }
        if after.email != before.email {
            scoped.set_user_email(user, after.email.as_deref()).await?;
            changed.push("email");
        }
        if after.attributes != before.attributes {
            scoped.set_user_attributes(user, &Value::Object(after.attributes.clone())).await?;
            changed.push("attributes");
        }
        scoped.use_connection_link(connection.row.id, &identity.subject, &identity.profile(), now).await?;
        if !changed.is_empty() {
            let mut detail = json!({ "changed": changed, "roles": after.roles, "for": "connection" });
            name_attributes(&mut detail, &differing(&before.attributes, &after.attributes));
            let deed = acting(connection, request).did("user.update", format!("user:{user}"), detail, now);
            append(&mut scoped, id, &self.chain_key, &self.random, [deed]).await?;
        }
        self.commit(tx, "users", id, user).await?;
        Ok(after)
    }

    /// Somebody who is new here.
    async fn create_arrived(
        &self,
        tenant: TenantId,
        connection: &ConnectionEntry,
        identity: &Identity,
        request: &RequestInfo,
        now: DateTime<Utc>,
    ) -> Result<User, Failure> {
        let refused = |declined| Failure::from(Refusal::Upstream(declined));
        if !connection.settings.auto_create {
            return Err(refused(Declined::NoAccount));
        }
        let username = identity.username.as_deref().and_then(|name| Username::parse(name).ok());
        let username = username.ok_or_else(|| refused(Declined::NoName))?;
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        // An address of somebody here is theirs, whoever else claims it.
        let email = match &identity.email {
            Some(email) if scoped.user_by_email(email).await?.is_none() => Some(email.as_str()),
            _ => None,
        };
        let told = identity.told(&Attributes::new(), &connection.settings.mapping);
        let names: Vec<String> = told.keys().cloned().collect();
        let attributes = Value::Object(told);
        let new = NewUser {
            id: UserId(self.random.uuid()),
            username: &username.shown,
            folded: &username.folded,
            skeleton: &username.skeleton,
            email,
            roles: &identity.roles,
            scopes: &[],
            attributes: Some(&attributes),
        };
        let taken = |error: claviger_store::StoreError| match error.unique_violation() {
            Some(USERNAME_TAKEN | LOOK_TAKEN) => refused(Declined::NameTaken),
            Some(SUBJECT_TAKEN | ALREADY_LINKED) => refused(Declined::LinkedOtherwise),
            _ => error.into(),
        };
        scoped.create_user(&new, now).await.map_err(taken)?;
        scoped.create_connection_link(connection.row.id, &identity.subject, new.id, now).await.map_err(taken)?;
        scoped.use_connection_link(connection.row.id, &identity.subject, &identity.profile(), now).await?;
        let target = format!("user:{}", new.id);
        let actor = acting(connection, request);
        let mut made = json!({ "roles": identity.roles, "scopes": [], "password": false, "imported": false });
        name_attributes(&mut made, &names);
        let deeds = [
            actor.did("user.create", &target, made, now),
            actor.did("user.link", &target, json!({ "connection": connection.row.id }), now),
        ];
        append(&mut scoped, tenant, &self.chain_key, &self.random, deeds).await?;
        let user = scoped.user(new.id).await?;
        tx.commit().await?;
        user.ok_or_else(|| Fault::Internal("a new user is not there".into()).into())
    }

    /// Links a person to an identity.
    async fn link_identity(
        &self,
        tenant: TenantId,
        actor: &Actor,
        connection: &ConnectionEntry,
        user: UserId,
        subject: &str,
        profile: &Value,
    ) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        if !scoped.lock_user(user).await? {
            return Err(Refusal::NotFound.into());
        }
        scoped.create_connection_link(connection.row.id, subject, user, now).await.map_err(|error| {
            match error.unique_violation() {
                Some(SUBJECT_TAKEN | ALREADY_LINKED) => Refusal::Upstream(Declined::LinkedOtherwise).into(),
                _ => Failure::from(error),
            }
        })?;
        scoped.use_connection_link(connection.row.id, subject, profile, now).await?;
        let deed = actor.did("user.link", format!("user:{user}"), json!({ "connection": connection.row.id }), now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        Ok(tx.commit().await?)
    }

    /// An admin links a person to an identity.
    pub async fn link_user(
        &self,
        tenant: &TenantEntry,
        actor: &Actor,
        user: UserId,
        connection: ConnectionId,
        subject: &str,
    ) -> Result<(), Failure> {
        let id = tenant.tenant.id;
        if !(1..=255).contains(&subject.len()) || subject.chars().any(char::is_control) {
            return Err(Refusal::invalid("subject", "is 1 to 255 bytes, without control characters").into());
        }
        let person = self.find_user(id, user).await?;
        crate::grant::check_not_above(tenant, actor, &person)?;
        let missing = Refusal::invalid("connection", "is the id of no connection of this tenant");
        let connection = self.find_connection(id, connection).await.map_err(|failure| match failure {
            Failure::Refusal(Refusal::NotFound) => missing.into(),
            other => other,
        })?;
        self.link_identity(id, actor, &connection, user, subject, &json!({})).await
    }

    /// Who a person is at connections.
    pub async fn links_of(&self, tenant: TenantId, user: UserId) -> Result<Vec<Link>, Failure> {
        self.find_user(tenant, user).await?;
        let mut tx = self.store.begin_in(tenant).await?;
        Ok(tx.tenant(tenant).await?.connection_links(Some(user), None).await?)
    }

    /// Unlinks a person; what came from there ends.
    pub async fn unlink(&self, tenant: TenantId, actor: &Actor, user: UserId, connection: ConnectionId) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        if !scoped.lock_user(user).await? || scoped.delete_connection_links(user, Some(connection)).await? == 0 {
            return Err(Refusal::NotFound.into());
        }
        let families = scoped.end_connection_logins(connection, Some(user), now, &actor.name).await?;
        let deed = actor.did("user.unlink", format!("user:{user}"), json!({ "connection": connection }), now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        self.commit_logins(tx, tenant, None, &families).await
    }

    /// Begins a browser session for somebody who came back. Returns the cookie, and the seconds that it lasts.
    pub async fn open_arrived_session(
        &self,
        tenant: &TenantEntry,
        arrived: Arrived,
        before: Option<&SecretString>,
        request: &RequestInfo,
    ) -> Result<(SecretString, i32), Failure> {
        let (user, draft, opening) = self.arrived(arrived, request);
        self.open_browser(tenant, &user, request, draft, opening, before).await
    }

    /// Begins a token family for somebody who came back.
    pub async fn open_arrived_tokens(
        &self,
        tenant: &Arc<TenantEntry>,
        arrived: Arrived,
        scope: Option<&str>,
        request: &RequestInfo,
    ) -> Result<Tokens, Failure> {
        self.open_arrived_to(tenant, arrived, scope, request, Target::Ours(&tenant.issuer)).await
    }

    /// As [`Issuer::open_arrived_tokens`], with an access token in the shape of the tenant's usual audience, if it has one.
    pub async fn open_arrived_as_usual(
        &self,
        tenant: &Arc<TenantEntry>,
        arrived: Arrived,
        request: &RequestInfo,
    ) -> Result<Tokens, Failure> {
        self.open_arrived_to(tenant, arrived, None, request, tenant.usual_target()?).await
    }

    async fn open_arrived_to(
        &self,
        tenant: &Arc<TenantEntry>,
        arrived: Arrived,
        scope: Option<&str>,
        request: &RequestInfo,
        target: Target<'_>,
    ) -> Result<Tokens, Failure> {
        let (user, draft, opening) = self.arrived(arrived, request);
        let begun = self.family_for(tenant, &user, scope, None, request, target).await?;
        self.begin_family(tenant, begun, draft, opening).await
    }

    fn arrived(&self, arrived: Arrived, request: &RequestInfo) -> (Arc<User>, Draft, Opening) {
        let now = self.clock.now();
        let Arrived { user, connection, sealed_refresh, .. } = arrived;
        let draft = login_draft(&user, request, json!({ "how": "upstream", "connection": connection }), now);
        let opening = Opening::through(connection, user.id, sealed_refresh, now);
        (user, draft, opening)
    }
}
