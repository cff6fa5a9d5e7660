//! Browser sessions: opaque cookies, kept as digests, new at each login.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use claviger_store::api_key::SecretMac;
use claviger_store::connection::ConnectionLogin;
use claviger_store::id::{SessionId, TenantId};
use claviger_store::session::{NewSession, Session};
use claviger_store::token_family::EndedBy;
use claviger_store::user::User;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::audit::{Draft, append};
use crate::caller::{Caller, Login as Stood, Person, Principal};
use crate::directory::TenantEntry;
use crate::login::{Login, agent};
use crate::opening::Opening;
use crate::record::Entry;
use crate::scope::ScopeSet;
use crate::secret::Peppers;
use crate::settings::RequestInfo;
use crate::standing::{LoginNow, standing};
use crate::{Failure, Fault, Issuer, Refusal};

/// A session's last use is kept to the minute, or better where it ends soon.
const SEEN_KEPT_EVERY: TimeDelta = TimeDelta::seconds(60);
/// Purpose of the digests of cookies.
const KEPT: &str = "session cookie";

/// What a browser holds: id (16 bytes) and secret (32) in base64url.
struct Cookie {
    id: SessionId,
    bytes: Zeroizing<[u8; 48]>,
}

impl Cookie {
    fn parse(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; 48]);
        if URL_SAFE_NO_PAD.decode_slice(text, bytes.as_mut_slice()) != Ok(48) {
            return None;
        }
        let id = SessionId(Uuid::from_bytes(*bytes.first_chunk::<16>()?));
        Some(Self { id, bytes })
    }

    fn digest(&self, peppers: &Peppers, tenant: TenantId) -> Option<(i16, SecretMac)> {
        let (version, mac) = peppers.digest(KEPT, &[tenant.0.as_bytes(), self.bytes.as_slice()])?;
        Some((version, SecretMac(mac)))
    }

    fn fits(&self, peppers: &Peppers, tenant: TenantId, session: &Session) -> bool {
        peppers
            .digests(KEPT, &[tenant.0.as_bytes(), self.bytes.as_slice()])
            .any(|(version, mac)| version == session.pepper_version && bool::from(mac.ct_eq(&session.mac.0)))
    }
}

/// A session that began.
pub struct Begun {
    /// The cookie's value.
    pub cookie: SecretString,
    /// Makes this a known device.
    pub device: String,
    /// Seconds that the session lasts at most.
    pub lasts: i32,
}

impl Issuer {
    /// Logs somebody in and begins a browser session. `before` is the session cookie that the browser sent, if any: that
    /// session ends, whoever's it was.
    pub async fn begin_session(&self, login: Login<'_>, before: Option<&SecretString>) -> Result<Begun, Failure> {
        let now = self.clock.now();
        let proven = self.prove(&login, now).await?;
        let tenant = login.tenant.tenant.id;
        let draft = proven.draft(&login.request, now);
        let device = self.device(tenant, &login, &proven).unwrap_or_default();
        let opening = proven.opening(now);
        let (cookie, lasts) = self.open_browser(login.tenant, &proven.user, &login.request, draft, opening, before).await?;
        self.succeeded(tenant, proven).await;
        Ok(Begun { cookie, device, lasts })
    }

    /// Begins a session for somebody who proved who they are; ends the one that the browser had. Returns the cookie, and the
    /// seconds that it lasts.
    pub(crate) async fn open_browser(
        &self,
        entry: &TenantEntry,
        user: &User,
        request: &RequestInfo,
        draft: Draft,
        opening: Opening,
        before: Option<&SecretString>,
    ) -> Result<(SecretString, i32), Failure> {
        let now = self.clock.now();
        let tenant = entry.tenant.id;
        let rule = entry.settings.session();
        let ends_at = now + TimeDelta::seconds(i64::from(rule.absolute));
        let id = SessionId(self.random.uuid_at(ends_at));
        let mut bytes = Zeroizing::new([0; 48]);
        let secret = Zeroizing::new(self.random.bytes::<32>());
        for (to, from) in bytes.iter_mut().zip(id.0.as_bytes().iter().chain(secret.iter())) {
            *to = *from;
        }
        let cookie = Cookie { id, bytes };
        let (pepper_version, mac) =
            cookie.digest(&self.peppers, tenant).ok_or_else(|| Fault::Internal("there is no pepper".into()))?;
        let session = NewSession {
            id,
            user: user.id,
            mac,
            pepper_version,
            user_agent: agent(request.agent.as_deref()),
            ends_at,
            idle_seconds: rule.idle,
        };
        let replaces = match before {
            Some(before) => self.session_of(tenant, before).await?.map(|before| before.id),
            None => None,
        };
        let draft = Draft { target: format!("session:{id}"), ..draft };
        let opening = Opening {
            session: Some(session),
            replaces: replaces.map(|before| (before, now, draft.actor.clone())),
            came_from: opening.came_from.map(|login| ConnectionLogin { id: id.0, ..login }),
            ..opening
        };
        self.open_login(tenant, Entry { draft, token: None }, opening).await?;
        Ok((SecretString::from(URL_SAFE_NO_PAD.encode(cookie.bytes.as_slice())), rule.absolute))
    }

    /// The session of a cookie, whatever its state.
    async fn session_of(&self, tenant: TenantId, cookie: &SecretString) -> Result<Option<Session>, Failure> {
        let Some(cookie) = Cookie::parse(cookie.expose_secret()) else { return Ok(None) };
        let mut tx = self.store.begin_in(tenant).await?;
        let session = tx.tenant(tenant).await?.session(cookie.id).await?;
        Ok(session.filter(|session| cookie.fits(&self.peppers, tenant, session)))
    }

    /// Who is signed in, by a cookie. Asked of the database each time: an ended session is over at once, everywhere.
    pub async fn signed_in(
        &self,
        tenant: &Arc<TenantEntry>,
        cookie: &SecretString,
        request: RequestInfo,
    ) -> Result<Caller, Failure> {
        let now = self.clock.now();
        let id = tenant.tenant.id;
        let Some(session) = self.session_of(id, cookie).await? else { return Err(Refusal::NoSession.into()) };
        let over = session.seen_at + TimeDelta::seconds(i64::from(session.idle_seconds)) <= now;
        let login = LoginNow { created_at: session.created_at, ends_at: session.ends_at, ended: session.ended.is_some() || over };
        let Some(user) = self.directory.person(id, session.user).await? else { return Err(Refusal::NoSession.into()) };
        if standing(tenant, &user, None, Some(login), now).is_err() {
            return Err(Refusal::NoSession.into());
        }
        let kept_every = SEEN_KEPT_EVERY.min(TimeDelta::seconds(i64::from(session.idle_seconds)) / 4);
        if session.seen_at + kept_every <= now {
            let mut tx = self.store.begin_in(id).await?;
            tx.tenant(id).await?.touch_session(session.id, now).await?;
            tx.commit().await?;
        }
        let person = Person { tenant: tenant.clone(), owner: user, login: Some(Stood::Session(session.id)) };
        Ok(Caller { principal: Principal::Person(person), scopes: ScopeSet::default(), acting: None, token_ends: None, request })
    }

    /// As [`Issuer::signed_in`], with all that the person holds now: for dialects, whose pages are where people are managed.
    pub async fn signed_in_as_usual(
        &self,
        tenant: &Arc<TenantEntry>,
        cookie: &SecretString,
        request: RequestInfo,
    ) -> Result<Caller, Failure> {
        let caller = self.signed_in(tenant, cookie, request).await?;
        Ok(Caller { scopes: caller.principal.scopes(), ..caller })
    }

    /// Ends the caller's own session or token family.
    pub async fn log_out(&self, caller: &Caller) -> Result<(), Failure> {
        let Principal::Person(Person { login: Some(login), .. }) = &caller.principal else {
            return Err(Refusal::NoSession.into());
        };
        let tenant = caller.tenant().tenant.id;
        let now = self.clock.now();
        let actor = caller.actor();
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        let ended = match login {
            Stood::Session(id) => scoped.end_session(*id, now, &actor.name, EndedBy::Logout).await?,
            Stood::Family(id) => scoped.end_family(*id, now, &actor.name, EndedBy::Logout).await?,
        };
        if ended {
            let deed = actor.did("user.logout", login.to_string(), json!({}), now);
            append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        }
        let families: Vec<_> = match login {
            Stood::Family(id) => vec![*id],
            Stood::Session(_) => Vec::new(),
        };
        self.commit_logins(tx, tenant, None, &families).await
    }
}

/// How long a known device stays known, in seconds: a year.
pub const DEVICE_KNOWN: i64 = 31_536_000;
