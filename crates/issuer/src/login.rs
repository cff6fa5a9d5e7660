//! Login with a password, into tokens or into a browser session.
//!
//! Whatever is wrong, the caller hears one and the same "no", after the same work and no sooner than a fixed time: an
//! account that is not there, has no password, or may not act costs one hash like any other.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use claviger_store::audit::TokenRow;
use claviger_store::connection::ConnectionLogin;
use claviger_store::id::{ConnectionId, FamilyId, TenantId};
use claviger_store::password::{KeptPassword, LoginRow, PasswordHash};
use claviger_store::token_family::{NewFamily, Principal, TokenFamily};
use claviger_store::user::User;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use crate::attempt::{Attempts, Counted, GivenBack};
use crate::audit::{Draft, Outcome};
use crate::directory::TenantEntry;
use crate::exchange::VerifiedKey;
use crate::measure::LOGINS;
use crate::mint::Target;
use crate::opening::{Opening, StandsOn};
use crate::password::LONGEST_PRESENTED;
use crate::record::{Deed, Entry, Recorded, What};
use crate::refresh::{Standing, Tokens, token_row};
use crate::refresh_token::RefreshToken;
use crate::rights::{self, EVERYTHING};
use crate::settings::RequestInfo;
use crate::standing::{OwnerNow, standing};
use crate::username::Username;
use crate::{Failure, Fault, Issuer, Refusal};

/// No refusal is heard sooner after its request. Longer than any hash that we make, so that the few that others made
/// otherwise do not stand out either.
pub(crate) const REFUSED_AFTER: Duration = Duration::from_millis(300);
/// What is kept of how a client calls itself, in characters.
const LONGEST_AGENT: usize = 200;

/// Somebody who wants to log in.
pub struct Login<'a> {
    /// Where.
    pub tenant: &'a Arc<TenantEntry>,
    /// The login name, as it was typed.
    pub username: &'a str,
    /// The password, exactly as it was typed.
    pub password: SecretString,
    /// The scope asked for, space-separated; `None` for all that the person holds, now and later.
    pub scope: Option<&'a str>,
    /// The client that logs the person in and proved itself: its refresh tokens are worth nothing to others.
    pub client: Option<&'a VerifiedKey>,
    /// The known-device cookie, if the client sent one.
    pub device: Option<&'a str>,
    /// The request.
    pub request: RequestInfo,
}

/// A person who proved to know the password.
pub(crate) struct Proven {
    pub(crate) user: Arc<User>,
    pub(crate) by: ProvenBy,
    counted: Counted,
}

/// Who said that the password is the right one.
pub(crate) enum ProvenBy {
    /// We did. With another hash of it, where what is kept is not as it should be.
    Us { password: KeptPassword, upgrade: Option<PasswordHash> },
    /// A directory did.
    Directory(ConnectionId),
}

impl ProvenBy {
    /// The version of our password; 0 where there is none.
    pub(crate) fn version(&self) -> i64 {
        match self {
            Self::Us { password, .. } => password.version,
            Self::Directory(_) => 0,
        }
    }
}

/// A family that is about to begin.
pub(crate) struct BegunFamily {
    id: FamilyId,
    kept: NewFamily,
    row: TokenRow,
    tokens: Tokens,
}

/// A login into tokens.
pub struct LoggedIn {
    /// The tokens.
    pub tokens: Tokens,
    /// Makes this a known device, if the client keeps it.
    pub device: String,
}

/// Which characters of a client's own name are kept.
pub(crate) fn agent(text: Option<&str>) -> Option<String> {
    let kept: String = text?.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(LONGEST_AGENT).collect();
    Some(kept).filter(|kept| !kept.is_empty())
}

/// Who is asked about a password beside us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// The tenant's directories.
    Directories,
    /// Nobody: it is rather a key's secret, which is not theirs to see.
    Nobody,
}

impl Issuer {
    /// Logs somebody in and begins a token family.
    pub async fn log_in(&self, login: Login<'_>) -> Result<LoggedIn, Failure> {
        let target = Target::Ours(&login.tenant.issuer);
        self.log_in_to(login, target).await
    }

    /// As [`Issuer::log_in`], with an access token in the shape of the tenant's usual audience, if it has one.
    pub async fn log_in_as_usual(&self, login: Login<'_>) -> Result<LoggedIn, Failure> {
        let tenant = login.tenant;
        self.log_in_to(login, tenant.usual_target()?).await
    }

    async fn log_in_to(&self, login: Login<'_>, target: Target<'_>) -> Result<LoggedIn, Failure> {
        let now = self.clock.now();
        let tenant = login.tenant;
        let proven = self.prove(&login, now).await?;
        let draft = proven.draft(&login.request, now);
        let begun = match self.family_for(tenant, &proven.user, login.scope, login.client, &login.request, target).await {
            Ok(begun) => begun,
            Err(failure) => {
                self.succeeded(tenant.tenant.id, proven).await;
                return Err(failure);
            }
        };
        let device = self.device(tenant.tenant.id, &login, &proven).unwrap_or_default();
        let tokens = self.begin_family(tenant, begun, draft, proven.opening(now)).await?;
        self.succeeded(tenant.tenant.id, proven).await;
        Ok(LoggedIn { tokens, device })
    }

    /// A token family for somebody, with its first tokens; nothing is written yet.
    pub(crate) async fn family_for(
        &self,
        tenant: &Arc<TenantEntry>,
        user: &Arc<User>,
        asked: Option<&str>,
        client: Option<&VerifiedKey>,
        request: &RequestInfo,
        target: Target<'_>,
    ) -> Result<BegunFamily, Failure> {
        let now = self.clock.now();
        let scope = rights::of_person(tenant, user).narrow(asked)?.into_owned();
        let granted = asked.map_or_else(|| vec![EVERYTHING.to_owned()], |_| scope.to_vec());
        let rule = tenant.settings.refresh();
        let ends_at = now + TimeDelta::seconds(i64::from(rule.absolute));
        let id = FamilyId(self.random.uuid_at(ends_at));
        let token = RefreshToken::generate(tenant.tenant.id, id, 0, &self.random);
        let (pepper_version, mac) = token.mac(&self.peppers).ok_or_else(|| Fault::Internal("there is no pepper".into()))?;
        let family = TokenFamily {
            id,
            principal: Principal::User(user.id),
            client: client.map(VerifiedKey::client),
            scope: granted,
            user_agent: agent(request.agent.as_deref()),
            created_at: now,
            ends_at,
            idle_seconds: rule.idle,
            rotated_at: now,
            ended: None,
            connection: None,
        };
        let stands = Standing { owner: Arc::new(OwnerNow::User(user.clone())), key: None, scope: scope.clone() };
        let minted = self.mint_for_family(tenant, &family, &stands, (&scope, false), target, now).await?;
        let row = token_row(&minted, &family, &stands, &scope);
        let tokens = self.tokens(&minted, &scope, &token);
        Ok(BegunFamily { id, kept: new_family(family, mac, pepper_version), row, tokens })
    }

    /// Writes the beginning of a family, and gives its tokens.
    pub(crate) async fn begin_family(
        &self,
        tenant: &TenantEntry,
        begun: BegunFamily,
        draft: Draft,
        opening: Opening,
    ) -> Result<Tokens, Failure> {
        let BegunFamily { id, kept, row, tokens } = begun;
        let draft = Draft { target: format!("family:{id}"), ..draft };
        let came_from = opening.came_from.map(|login| ConnectionLogin { id: id.0, ..login });
        let opening = Opening { family: Some(kept), came_from, ..opening };
        self.open_login(tenant.tenant.id, Entry { draft, token: Some(row) }, opening).await?;
        Ok(tokens)
    }

    /// Writes the beginning of a login, if what it stands on still stands.
    pub(crate) async fn open_login(&self, tenant: TenantId, entry: Entry, opening: Opening) -> Result<(), Failure> {
        let deed = Deed { tenant, what: What::Opening(entry, Box::new(opening)) };
        match self.recorder.carry_out(deed).await? {
            Recorded::Written => Ok(()),
            // The password or the person's standing changed while we looked: asked again, the answer is clear.
            _ => Err(Fault::Unknown("a login").into()),
        }
    }

    /// Checks a password: counted before it is looked at, hashed whoever it is, refused after one time for all.
    pub(crate) async fn prove(&self, login: &Login<'_>, now: DateTime<Utc>) -> Result<Proven, Failure> {
        self.prove_here_or(login, Asks::Directories, now).await
    }

    /// As [`Issuer::prove`], but directories are asked only if that is said.
    pub(crate) async fn prove_here_or(&self, login: &Login<'_>, asks: Asks, now: DateTime<Utc>) -> Result<Proven, Failure> {
        if login.password.expose_secret().len() > LONGEST_PRESENTED {
            return Err(Refusal::invalid("password", format!("is longer than {LONGEST_PRESENTED} bytes")).into());
        }
        let heard = Instant::now() + REFUSED_AFTER;
        let outcome = self.prove_at_once(login, asks, now).await;
        if matches!(outcome, Err(Failure::Refusal(Refusal::WrongLogin))) {
            tokio::time::sleep_until(heard).await;
        }
        LOGINS.of(|_| "done", outcome)
    }

    async fn prove_at_once(&self, login: &Login<'_>, asks: Asks, now: DateTime<Utc>) -> Result<Proven, Failure> {
        let Login { tenant, username, password: presented, device, request, .. } = login;
        let id = tenant.tenant.id;
        // Before anything is counted: whoever would wait too long is told so at once.
        self.hasher.admit(id)?;
        let folded = Username::fold(username).unwrap_or_default();
        let mut tx = self.store.begin_in(id).await?;
        let (user, password) = match tx.tenant(id).await?.login_row(&folded).await? {
            Some(LoginRow { user, password }) => (Some(Arc::new(user)), password),
            None => (None, None),
        };
        drop(tx);
        // Where a directory knows the password, there is no version of it.
        let version = Some(password.as_ref().map_or(0, |password| password.version));
        let known = device.zip(version).is_some_and(|(device, version)| self.is_known_device(id, &folded, version, device));
        let device = device.filter(|_| known);
        let attempts = Attempts::of(&self.peppers, &tenant.settings.login_throttle(), &folded, device, request.address)
            .ok_or_else(|| Fault::Internal("there is no pepper".into()))?;
        let counted = match self.places.count(&self.store, id, &attempts, now).await {
            Err(Failure::Refusal(refusal)) => {
                tracing::info!(tenant.id = %id, request.id = %request.id, "a login was not looked at: too many failed");
                return Err(refusal.into());
            }
            outcome => outcome?,
        };
        let hash = password.as_ref().map(|password| password.hash.clone());
        let verified = match self.hasher.verify(id, presented.clone(), hash).await {
            Ok(verified) => verified,
            Err(failure) => {
                self.places.give_back(&self.store, id, counted, GivenBack::NotLookedAt).await;
                return Err(failure);
            }
        };
        if password.is_none() && asks == Asks::Directories {
            match self.ask_directories(tenant, username, presented, request).await {
                Ok(Some((user, connection))) => {
                    return Ok(Proven { user, by: ProvenBy::Directory(connection.row.id), counted });
                }
                Ok(None) => {}
                Err(failure) => {
                    // A refusal here is told to whoever proved to know the password.
                    let why = match failure {
                        Failure::Refusal(_) => GivenBack::Succeeded,
                        Failure::Fault(_) => GivenBack::NotLookedAt,
                    };
                    self.places.give_back(&self.store, id, counted, why).await;
                    return Err(failure);
                }
            }
        }
        let reason = match (&user, password) {
            (None, _) => "unknown_user",
            (Some(_), None) => "no_password",
            (Some(_), Some(_)) if !verified.fits => "wrong_password",
            (Some(user), Some(password)) => {
                let owner = OwnerNow::User(user.clone());
                match standing(tenant, &owner, None, None, now) {
                    Ok(()) => {
                        let upgrade = verified.rehashed;
                        return Ok(Proven { user: user.clone(), by: ProvenBy::Us { password, upgrade }, counted });
                    }
                    Err(fallen) => fallen.reason(),
                }
            }
        };
        let subject = user.map(|user| format!("user:{}", user.id)).unwrap_or_default();
        tracing::info!(tenant.id = %id, request.id = %request.id, reason, "a login was refused");
        let draft = Draft {
            at: now,
            action: "user.login",
            outcome: Outcome::Refused,
            actor: "anonymous".into(),
            subject,
            target: String::new(),
            request_id: request.id.clone(),
            address: request.address,
            detail: json!({ "reason": reason }),
        };
        self.recorder.record(id, Entry { draft, token: None }).await?;
        Err(Refusal::WrongLogin.into())
    }

    /// A login succeeded: it counts no more.
    pub(crate) async fn succeeded(&self, tenant: TenantId, proven: Proven) {
        self.places.give_back(&self.store, tenant, proven.counted, GivenBack::Succeeded).await;
    }

    /// A cookie that makes its holder known for this person, as long as the password is the same: a random number and our
    /// tag over it.
    pub(crate) fn device(&self, tenant: TenantId, login: &Login<'_>, proven: &Proven) -> Option<String> {
        let nonce = self.random.bytes::<16>();
        let folded = Username::fold(login.username)?;
        let version = proven.by.version().to_be_bytes();
        let (_, tag) = self.peppers.digest(DEVICE, &[tenant.0.as_bytes(), &nonce, &version, folded.as_bytes()])?;
        Some(URL_SAFE_NO_PAD.encode([nonce.as_slice(), &tag].concat()))
    }

    fn is_known_device(&self, tenant: TenantId, folded: &str, version: i64, cookie: &str) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(cookie) else { return false };
        let Some((nonce, tag)) = bytes.split_first_chunk::<16>() else { return false };
        let version = version.to_be_bytes();
        let parts: [&[u8]; 4] = [tenant.0.as_bytes(), nonce, &version, folded.as_bytes()];
        self.peppers.digests(DEVICE, &parts).any(|(_, expected)| bool::from(expected.ct_eq(tag)))
    }
}

/// Purpose of the tags of known devices.
const DEVICE: &str = "known device";

impl Proven {
    /// What begins with it.
    pub(crate) fn opening(&self, now: DateTime<Utc>) -> Opening {
        let user = self.user.id;
        match &self.by {
            ProvenBy::Us { password, upgrade } => Opening {
                stands_on: StandsOn::Password(user, password.version),
                family: None,
                app_token: None,
                session: None,
                replaces: None,
                upgrade: upgrade.clone().map(|after| (password.hash.clone(), after)),
                came_from: None,
            },
            ProvenBy::Directory(connection) => Opening::through(*connection, user, None, now),
        }
    }

    /// What the trail says of it.
    pub(crate) fn draft(&self, request: &RequestInfo, now: DateTime<Utc>) -> Draft {
        let how = match &self.by {
            ProvenBy::Us { .. } => json!({ "how": "password" }),
            ProvenBy::Directory(connection) => json!({ "how": "directory", "connection": connection }),
        };
        login_draft(&self.user, request, how, now)
    }
}

pub(crate) fn new_family(family: TokenFamily, mac: claviger_store::api_key::SecretMac, pepper_version: i16) -> NewFamily {
    let TokenFamily { id, principal, client, scope, user_agent, ends_at, idle_seconds, .. } = family;
    NewFamily { id, principal, client, scope, user_agent, ends_at, idle_seconds, mac, pepper_version }
}

/// What the trail says of a login; its target is added when it begins.
pub(crate) fn login_draft(user: &User, request: &RequestInfo, detail: Value, now: DateTime<Utc>) -> Draft {
    let actor = format!("user:{}", user.id);
    Draft {
        at: now,
        action: "user.login",
        outcome: Outcome::Ok,
        subject: actor.clone(),
        actor,
        target: String::new(),
        request_id: request.id.clone(),
        address: request.address,
        detail,
    }
}
