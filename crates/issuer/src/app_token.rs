//! App tokens: `USER:` and 64 hexadecimal digits, opaque, which a login of Howler's dialect gives and its clients send as `Bearer`.
//!
//! Behind each stands a token family, as behind any login, whose refresh token nobody is given. It may do what its login may, as far
//! as that is still held, and ends with it; what gave the key's limits to that login gives them to it.

use std::fmt::Write as _;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use claviger_store::api_key::SecretMac;
use claviger_store::app_token::NewAppToken;
use claviger_store::connection::ConnectionLogin;
use claviger_store::id::{FamilyId, TenantId, UserId};
use claviger_store::token_family::{EndedBy, NewFamily, Principal as Holder};
use secrecy::SecretString;
use serde_json::json;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::audit::{Draft, Outcome, append};
use crate::caller::{Caller, Principal};
use crate::directory::TenantEntry;
use crate::exchange::VerifiedKey;
use crate::login::{Asks, agent};
use crate::opening::{Opening, StandsOn};
use crate::random::Random;
use crate::record::Entry;
use crate::refresh_token::RefreshToken;
use crate::rights::{self, EVERYTHING};
use crate::scope::ScopeSet;
use crate::secret::Peppers;
use crate::settings::RequestInfo;
use crate::username::Username;
use crate::verify::{Denied, Finding, Proved, own_key};
use crate::{Failure, Fault, Issuer, Refusal};

/// Purpose of the digests of app tokens.
const KEPT: &str = "app token";
/// Purpose of what an app token ends in, by which we know our own without asking the database.
const OURS: &str = "app token's end";
/// Random bytes of an app token; as many of 32 as are left are its end.
const RANDOM: usize = 24;

/// An app token as it is presented.
pub struct AppToken {
    /// Whose it says that it is.
    username: String,
    bytes: Zeroizing<[u8; 32]>,
}

impl AppToken {
    /// Reads one, in the only form in which we write them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (username, digits) = text.split_once(':')?;
        if digits.len() != 64 || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let mut bytes = Zeroizing::new([0; 32]);
        for (at, to) in bytes.iter_mut().enumerate() {
            *to = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self { username: username.to_owned(), bytes })
    }

    fn reveal(&self) -> SecretString {
        let mut text = String::with_capacity(self.username.len() + 65);
        text.push_str(&self.username);
        text.push(':');
        for byte in self.bytes.iter() {
            // Writing into a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        SecretString::from(text)
    }

    fn parts<'a>(&'a self, tenant: &'a TenantId) -> [&'a [u8]; 2] {
        [tenant.0.as_bytes(), self.bytes.as_slice()]
    }

    /// Makes one.
    fn generate(username: &str, tenant: TenantId, peppers: &Peppers, random: &Random) -> Option<Self> {
        let mut bytes = Zeroizing::new(random.bytes::<32>());
        let (front, end) = bytes.split_at_mut(RANDOM);
        let (_, digest) = peppers.digest(OURS, &[tenant.0.as_bytes(), front])?;
        end.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Some(Self { username: username.to_owned(), bytes })
    }

    /// Whether we made it for that tenant: what anybody makes up never reaches the database.
    fn is_ours(&self, tenant: TenantId, peppers: &Peppers) -> bool {
        let (front, end) = self.bytes.split_at(RANDOM);
        let fits = |digest: [u8; 32]| digest.get(..end.len()).is_some_and(|own| own.ct_eq(end).into());
        peppers.digests(OURS, &[tenant.0.as_bytes(), front]).any(|(_, digest)| fits(digest))
    }
}

/// How somebody proves who they are.
pub enum AppProof {
    /// By the password.
    Password(SecretString),
    /// By a key of theirs.
    Key {
        /// Its name or id.
        name: String,
        /// Its secret.
        secret: SecretString,
    },
}

/// A login into an app token.
pub struct AppLogin {
    /// The token.
    pub token: SecretString,
    /// What it allows now.
    pub scopes: ScopeSet,
}

/// Whose login begins.
struct Beginning<'a> {
    holder: Holder,
    user: UserId,
    username: &'a str,
    granted: Vec<String>,
    /// When what it stands on ends.
    not_after: Option<DateTime<Utc>>,
    request: &'a RequestInfo,
}

impl Issuer {
    /// Logs somebody in for an app token, which lives as long as the tenant's tokens of logins do.
    pub async fn log_in_to_app(
        &self,
        tenant: &Arc<TenantEntry>,
        username: &str,
        proof: AppProof,
        request: &RequestInfo,
    ) -> Finding<AppLogin> {
        match proof {
            AppProof::Password(password) => self.app_login_by_password(tenant, username, password, request).await,
            AppProof::Key { name, secret } => self.app_login_by_key(tenant, username, &name, &secret, request).await,
        }
    }

    async fn app_login_by_password(
        &self,
        tenant: &Arc<TenantEntry>,
        username: &str,
        password: SecretString,
        request: &RequestInfo,
    ) -> Finding<AppLogin> {
        let now = self.clock.now();
        let proven = match self.password_of(tenant, username, password, Asks::Directories, request, now).await? {
            Ok(proven) => proven,
            Err(denied) => return Ok(Err(denied)),
        };
        let user = proven.user.clone();
        let beginning = Beginning {
            holder: Holder::User(user.id),
            user: user.id,
            username: &user.username,
            granted: vec![EVERYTHING.to_owned()],
            not_after: None,
            request,
        };
        let (draft, opening) = (proven.draft(request, now), proven.opening(now));
        let token = self.begin_app_login(tenant, beginning, draft, opening, now).await?;
        self.succeeded(tenant.tenant.id, proven).await;
        Ok(Ok(AppLogin { token, scopes: rights::of_person(tenant, &user) }))
    }

    async fn app_login_by_key(
        &self,
        tenant: &Arc<TenantEntry>,
        username: &str,
        name: &str,
        secret: &SecretString,
        request: &RequestInfo,
    ) -> Finding<AppLogin> {
        let now = self.clock.now();
        let key = match self.prove_key_of(tenant, username, name, secret, request, now).await? {
            Ok(key) => key,
            Err(denied) => return Ok(Err(denied)),
        };
        let scopes = key.scopes().clone();
        if let Err(denied) = own_key(key.clone()) {
            return Ok(Err(denied));
        }
        let Some(user) = key.person() else { return Ok(Err(Denied::Invalid)) };
        let id = &key.entry.key.id;
        let beginning = Beginning {
            holder: Holder::Key(id.clone()),
            user: user.id,
            username: &user.username,
            granted: scopes.to_vec(),
            not_after: key.logins_end(),
            request,
        };
        let opening = Opening {
            stands_on: StandsOn::Key(id.clone()),
            family: None,
            app_token: None,
            session: None,
            replaces: None,
            upgrade: None,
            came_from: None,
        };
        let token = self.begin_app_login(tenant, beginning, key_draft(&key, request, now), opening, now).await?;
        Ok(Ok(AppLogin { token, scopes }))
    }

    async fn begin_app_login(
        &self,
        tenant: &TenantEntry,
        beginning: Beginning<'_>,
        draft: Draft,
        opening: Opening,
        now: DateTime<Utc>,
    ) -> Result<SecretString, Failure> {
        let Beginning { holder, user, username, granted, not_after, request } = beginning;
        let no_pepper = || Failure::from(Fault::Internal("there is no pepper".into()));
        let id = tenant.tenant.id;
        let lifetime = tenant.settings.login_token_lifetime();
        let whole = now + TimeDelta::seconds(i64::from(lifetime));
        let ends_at = not_after.map_or(whole, |end| end.min(whole));
        let family = FamilyId(self.random.uuid_at(ends_at));
        let token = AppToken::generate(username, id, &self.peppers, &self.random).ok_or_else(no_pepper)?;
        let (_, mac) = self.peppers.digest(KEPT, &token.parts(&id)).ok_or_else(no_pepper)?;
        let unused = RefreshToken::generate(id, family, 0, &self.random);
        let (pepper_version, unused) = unused.mac(&self.peppers).ok_or_else(no_pepper)?;
        let opening = Opening {
            family: Some(NewFamily {
                id: family,
                principal: holder,
                client: None,
                scope: granted,
                user_agent: agent(request.agent.as_deref()),
                ends_at,
                idle_seconds: lifetime,
                mac: unused,
                pepper_version,
            }),
            app_token: Some(NewAppToken { mac: SecretMac(mac), family, user, ends_at }),
            came_from: opening.came_from.map(|login| ConnectionLogin { id: family.0, ..login }),
            ..opening
        };
        let draft = Draft { target: format!("family:{family}"), ..draft };
        self.open_login(id, Entry { draft, token: None }, opening).await?;
        Ok(token.reveal())
    }

    /// Whose app token that is, if it is good now, and its login.
    pub(crate) async fn prove_app_token(
        &self,
        tenant: &Arc<TenantEntry>,
        token: &AppToken,
        now: DateTime<Utc>,
    ) -> Finding<(Proved, FamilyId)> {
        let ended = || Ok(Err(Denied::Token("it has ended, or never was one")));
        let id = tenant.tenant.id;
        if !token.is_ours(id, &self.peppers) {
            return ended();
        }
        let macs: Vec<[u8; 32]> = self.peppers.digests(KEPT, &token.parts(&id)).map(|(_, mac)| mac).collect();
        let mut tx = self.store.begin_in(id).await?;
        let family = tx.tenant(id).await?.family_of_app_token(&macs).await?;
        drop(tx);
        let Some(family_id) = family else { return ended() };
        let Some(family) = self.directory.family(id, family_id).await? else { return ended() };
        let (key, user) = match &family.principal {
            Holder::Key(key) => (Some(key), None),
            Holder::User(user) => (None, Some(*user)),
        };
        let principal = match self.principal_now(tenant, key, user, Some(family_id), now).await {
            Ok((principal, _)) => principal,
            Err(Failure::Refusal(_)) => return ended(),
            Err(failure) => return Err(failure),
        };
        if principal.username().and_then(Username::fold) != Username::fold(&token.username) {
            return ended();
        }
        let scopes = match &principal {
            Principal::Key(_) => ScopeSet::kept(&family.scope).intersection(&principal.scopes()),
            Principal::Person(person) => rights::of_login(tenant, person.user()?, &family.scope),
        };
        let ends = Some(family.ends_at.timestamp());
        Ok(Ok((Proved { principal, scopes, acting: None, ends, by_token: true }, family_id)))
    }

    /// Ends the login of an app token.
    pub async fn end_app_token(&self, tenant: &Arc<TenantEntry>, token: &AppToken, request: &RequestInfo) -> Result<(), Failure> {
        let now = self.clock.now();
        let (proved, family) = match self.prove_app_token(tenant, token, now).await? {
            Ok(proved) => proved,
            Err(_) => return Err(Refusal::InvalidToken("it has ended, or never was one").into()),
        };
        let Proved { principal, scopes, acting, ends, by_token: _ } = proved;
        let actor = Caller { principal, scopes, acting, token_ends: ends, request: request.clone() }.actor();
        let id = tenant.tenant.id;
        let mut tx = self.store.begin_in(id).await?;
        let mut scoped = tx.tenant(id).await?;
        if scoped.end_family(family, now, &actor.name, EndedBy::Logout).await? {
            let deed = actor.did("user.logout", format!("family:{family}"), json!({}), now);
            append(&mut scoped, id, &self.chain_key, &self.random, [deed]).await?;
        }
        self.commit_logins(tx, id, None, &[family]).await
    }
}

/// What the trail says of a login by a key.
fn key_draft(key: &VerifiedKey, request: &RequestInfo, now: DateTime<Utc>) -> Draft {
    Draft {
        at: now,
        action: "user.login",
        outcome: Outcome::Ok,
        actor: format!("key:{}", key.entry.key.id),
        subject: key.entry.key.owner.to_string(),
        target: String::new(),
        request_id: request.id.clone(),
        address: request.address,
        detail: json!({ "how": "api_key" }),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn an_app_token_has_one_form() {
        let digits = "5791a142067745c3af51d6596da7da8f86357a9fa92ad78d1ce118ea7d89d34e";
        let text = format!("user@example.org:{digits}");
        assert_eq!(AppToken::parse(&text).unwrap().reveal().expose_secret(), text);
        for other in [
            digits.to_owned(),
            format!("user:{}", digits.to_uppercase()),
            format!("user:{digits}0"),
            format!("user:{}", &digits[1..]),
            format!("user:devkey:{digits}"),
            format!("user:+{}", &digits[1..]),
        ] {
            assert!(AppToken::parse(&other).is_none(), "{other}");
        }
    }
}
