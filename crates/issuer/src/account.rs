//! A person's own affairs, and an admin's care for them: passwords, sessions, token families.

use chrono::{DateTime, Utc};
use claviger_store::TenantTx;
use claviger_store::id::{FamilyId, SessionId, TenantId, UserId};
use claviger_store::password::PasswordHash;
use claviger_store::token_family::{EndedBy, Principal};
use claviger_store::user::User;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use uuid::Uuid;

use crate::audit::{Actor, append};
use crate::caller::Caller;
use crate::directory::TenantEntry;
use crate::grant::check_not_above;
use crate::login::{Login, Proven, ProvenBy};
use crate::{Failure, Fault, Issuer, Refusal};

/// A login that has not ended.
pub struct OpenLogin {
    /// The session's or family's id.
    pub id: Uuid,
    /// Whether a browser holds it, or a program.
    pub kind: LoginKind,
    /// How its client called itself.
    pub user_agent: Option<String>,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// When it was last used: a session to the minute, a family at its last refresh.
    pub last_used_at: DateTime<Utc>,
    /// When it ends, whatever happens.
    pub ends_at: DateTime<Utc>,
}

/// What holds a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginKind {
    /// A browser session.
    Session,
    /// A token family.
    Tokens,
}

/// What a password's text is checked against besides the common ones.
pub(crate) fn context<'a>(tenant: &'a TenantEntry, username: &'a str, email: Option<&'a str>) -> Vec<&'a str> {
    let local = email.and_then(|email| email.split('@').next());
    [username, &tenant.tenant.slug, &tenant.tenant.name, "claviger"].into_iter().chain(local).collect()
}

impl Issuer {
    /// A caller changes their own password, which they must know. All their logins end, this one too.
    pub async fn change_own_password(
        &self,
        caller: &Caller,
        current: SecretString,
        new: SecretString,
        device: Option<&str>,
    ) -> Result<(), Failure> {
        let person = caller.person()?;
        let user = person.user()?.clone();
        let now = self.clock.now();
        let policy = person.tenant.settings.password();
        policy.judge("new_password", new.expose_secret(), &context(&person.tenant, &user.username, user.email.as_deref()))?;
        if current.expose_secret() == new.expose_secret() {
            return Err(Refusal::invalid("new_password", "is the one that you have").into());
        }
        let tenant = person.tenant.tenant.id;
        let proven = self.reproven(caller, current, device, now).await?;
        // Where a directory knows the password, it is changed there.
        let ProvenBy::Us { password, .. } = &proven.by else {
            self.succeeded(tenant, proven).await;
            let problem = "is kept by your organisation's directory: change it there";
            return Err(Refusal::invalid("current_password", problem).into());
        };
        let before = Some(password.version);
        let hash = self.hasher.hash(tenant, new).await?;
        self.put_password(tenant, &caller.actor(), user.id, &hash, before, "user.password_change").await?;
        self.succeeded(tenant, proven).await;
        Ok(())
    }

    /// Whoever is signed in proves once more that they know the password, as a login does: counted, and hashed in turn.
    async fn reproven(
        &self,
        caller: &Caller,
        current: SecretString,
        device: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Proven, Failure> {
        let person = caller.person()?;
        let login = Login {
            tenant: &person.tenant,
            username: &person.user()?.username,
            password: current,
            scope: None,
            client: None,
            device,
            request: caller.request.clone(),
        };
        match self.prove(&login, now).await {
            Err(Failure::Refusal(Refusal::WrongLogin)) => {
                Err(Refusal::invalid("current_password", "is not the one that you have").into())
            }
            outcome => outcome,
        }
    }

    /// A fresh proof that whoever is signed in knows their password, for what a stolen session must not do.
    pub async fn prove_own_password(&self, caller: &Caller, current: SecretString, device: Option<&str>) -> Result<(), Failure> {
        let proven = self.reproven(caller, current, device, self.clock.now()).await?;
        self.succeeded(caller.tenant().tenant.id, proven).await;
        Ok(())
    }

    /// An admin gives somebody a password. All that person's logins end.
    pub async fn set_password(&self, tenant: &TenantEntry, actor: &Actor, id: UserId, new: SecretString) -> Result<(), Failure> {
        let user = self.find_user(tenant.tenant.id, id).await?;
        check_not_above(tenant, actor, &user)?;
        let hash = self.new_password(tenant, &user.username, user.email.as_deref(), new).await?;
        self.put_password(tenant.tenant.id, actor, id, &hash, None, "user.password_set").await
    }

    /// Judges and hashes a password for somebody.
    pub(crate) async fn new_password(
        &self,
        tenant: &TenantEntry,
        username: &str,
        email: Option<&str>,
        new: SecretString,
    ) -> Result<PasswordHash, Failure> {
        tenant.settings.password().judge("password", new.expose_secret(), &context(tenant, username, email))?;
        self.hasher.hash(tenant.tenant.id, new).await
    }

    /// Keeps a password and ends what stood on the one before, in one transaction. `before` is the version of that one.
    async fn put_password(
        &self,
        tenant: TenantId,
        actor: &Actor,
        id: UserId,
        hash: &PasswordHash,
        before: Option<i64>,
        action: &'static str,
    ) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        if !scoped.lock_user(id).await? {
            return Err(Refusal::NotFound.into());
        }
        if before.is_some() && scoped.password(id).await?.map(|password| password.version) != before {
            return Err(Fault::Unknown("a password that was changed meanwhile").into());
        }
        scoped.set_password(id, hash, now, &actor.name).await?;
        let families = end_what_a_password_began(&mut scoped, id, now, &actor.name).await?;
        let deed = actor.did(action, format!("user:{id}"), json!({}), now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        self.commit_logins(tx, tenant, None, &families).await
    }

    /// A person's logins, those last used first.
    pub async fn logins(&self, tenant: TenantId, id: UserId) -> Result<Vec<OpenLogin>, Failure> {
        let now = self.clock.now();
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        let user = scoped.user(id).await?.filter(|user| user.status.word() != "deleted").ok_or(Refusal::NotFound)?;
        let sessions = scoped.sessions_of(user.id, now).await?.into_iter().map(|session| OpenLogin {
            id: session.id.0,
            kind: LoginKind::Session,
            user_agent: session.user_agent,
            created_at: session.created_at,
            last_used_at: session.seen_at,
            ends_at: session.ends_at,
        });
        let families = scoped.families_of(user.id, now).await?.into_iter().map(|family| OpenLogin {
            id: family.id.0,
            kind: LoginKind::Tokens,
            user_agent: family.user_agent,
            created_at: family.created_at,
            last_used_at: family.rotated_at,
            ends_at: family.ends_at,
        });
        let mut all: Vec<_> = sessions.chain(families).collect();
        let ended = tx.any_tenant().tenant_by_id(tenant).await?.and_then(|tenant| tenant.logins_ended_at);
        all.retain(|login| ended.is_none_or(|until| login.created_at > until));
        all.sort_by_key(|login| std::cmp::Reverse(login.last_used_at));
        Ok(all)
    }

    /// Ends one login of a person. A login of somebody else is not there.
    pub async fn end_login(&self, tenant: TenantId, actor: &Actor, user: UserId, id: Uuid) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        let (family, session) = (FamilyId(id), SessionId(id));
        let mut families = Vec::new();
        let target = if scoped.family(family).await?.is_some_and(|family| family.principal == Principal::User(user)) {
            if !scoped.end_family(family, now, &actor.name, EndedBy::Revoked).await? {
                return Err(Refusal::NotFound.into());
            }
            families.push(family);
            format!("family:{id}")
        } else if scoped.session(session).await?.is_some_and(|session| session.user == user) {
            if !scoped.end_session(session, now, &actor.name, EndedBy::Revoked).await? {
                return Err(Refusal::NotFound.into());
            }
            format!("session:{id}")
        } else {
            return Err(Refusal::NotFound.into());
        };
        let deed = actor.did("user.end_login", target, json!({ "user": user }), now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        self.commit_logins(tx, tenant, None, &families).await
    }

    /// Ends all logins of a person.
    pub async fn end_all_logins(&self, tenant: TenantId, actor: &Actor, id: UserId) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        if !scoped.lock_user(id).await? {
            return Err(Refusal::NotFound.into());
        }
        let families = end_logins(&mut scoped, id, now, &actor.name, EndedBy::Logout).await?;
        let deed = actor.did("user.logout_everywhere", format!("user:{id}"), json!({}), now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        self.commit_logins(tx, tenant, None, &families).await
    }

    /// The person behind a caller, as the database has it now.
    pub async fn own_user(&self, caller: &Caller) -> Result<User, Failure> {
        let person = caller.person()?;
        self.find_user(person.tenant.tenant.id, person.user()?.id).await
    }
}

/// Ends what stands on the password of a person whose row is locked: all logins, and app tokens of the person's keys, which stay
/// and log in again. Returns the families.
pub(crate) async fn end_what_a_password_began(
    tx: &mut TenantTx<'_>,
    user: UserId,
    now: DateTime<Utc>,
    by: &str,
) -> Result<Vec<FamilyId>, Failure> {
    let mut families = end_logins(tx, user, now, by, EndedBy::Password).await?;
    families.extend(tx.end_app_tokens(user, now, by, EndedBy::Password).await?);
    Ok(families)
}

/// Ends all sessions and families of a person whose row is locked; returns the families.
pub(crate) async fn end_logins(
    tx: &mut TenantTx<'_>,
    user: UserId,
    now: DateTime<Utc>,
    by: &str,
    why: EndedBy,
) -> Result<Vec<FamilyId>, Failure> {
    tx.end_sessions(user, now, by, why).await?;
    Ok(tx.end_families(&Principal::User(user), now, by, why).await?)
}
