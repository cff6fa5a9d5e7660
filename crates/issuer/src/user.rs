//! People: made, disabled, ended. Login stands elsewhere.

use claviger_store::id::{TenantId, UserId};
use claviger_store::user::{EMAIL_TAKEN, USERNAME_TAKEN, User};
use serde_json::json;

use crate::audit::{Actor, append};
use crate::{Failure, Fault, Issuer, Refusal};

/// A user to be made.
pub struct NewUser {
    /// 1 to 128 letters, digits and `. _ @ + -`; unique in the tenant whatever its case. Never changes.
    pub username: String,
    /// Kept in lower case.
    pub email: Option<String>,
}

/// What to change of a user; `None` leaves as it is.
#[derive(Default)]
pub struct UserChange {
    /// The address; `Some(None)` removes it.
    pub email: Option<Option<String>>,
    /// Whether the person may act.
    pub disabled: Option<bool>,
}

fn check_username(username: &str) -> Result<(), Refusal> {
    if username.is_empty() {
        return Err(Refusal::invalid("username", "can't be blank"));
    }
    let fits = username.chars().count() <= 128
        && username.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '@' | '+' | '-'));
    match fits {
        true => Ok(()),
        false => Err(Refusal::invalid("username", "is at most 128 letters, digits, `.`, `_`, `@`, `+` and `-`")),
    }
}

/// In lower case, if it has the shape of an address. Whether it is one, only a message can tell.
fn normal_email(email: &str) -> Result<String, Refusal> {
    let email = email.trim();
    if email.is_empty() {
        return Err(Refusal::invalid("email", "can't be blank"));
    }
    let shaped = email.len() <= 254
        && !email.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | ',' | ';' | '"'))
        && email.rsplit_once('@').is_some_and(|(local, domain)| {
            !local.is_empty() && !local.contains('@') && domain.split('.').all(|label| !label.is_empty())
        });
    match shaped {
        true => Ok(email.to_lowercase()),
        false => Err(Refusal::invalid("email", "is not an e-mail address")),
    }
}

fn taken(error: &claviger_store::StoreError) -> Option<Refusal> {
    match error.unique_violation()? {
        USERNAME_TAKEN => Some(Refusal::Conflict("the username is taken; usernames are never given twice".into())),
        EMAIL_TAKEN => Some(Refusal::Conflict("the e-mail address belongs to another user".into())),
        _ => None,
    }
}

impl Issuer {
    /// Makes a user.
    pub async fn create_user(&self, tenant: TenantId, actor: &Actor, new: NewUser) -> Result<User, Failure> {
        let now = self.clock.now();
        let NewUser { username, email } = new;
        check_username(&username)?;
        let email = email.as_deref().map(normal_email).transpose()?;
        let id = UserId(self.random.uuid());
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        if let Err(error) = scoped.create_user(id, &username, email.as_deref(), now).await {
            return Err(taken(&error).map_or_else(|| error.into(), Failure::from));
        }
        let deed = actor.did("user.create", format!("user:{id}"), json!({}), now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        let user = scoped.user(id).await?;
        tx.commit().await?;
        user.ok_or_else(|| Fault::Internal("a new user is not there".into()).into())
    }

    /// A user that is not deleted.
    pub async fn find_user(&self, tenant: TenantId, id: UserId) -> Result<User, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        match tx.tenant(tenant).await?.user(id).await? {
            Some(user) if user.status.word() != "deleted" => Ok(user),
            _ => Err(Refusal::NotFound.into()),
        }
    }

    /// A user that is not deleted, by name.
    pub async fn find_user_by_name(&self, tenant: TenantId, username: &str) -> Result<User, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        Ok(tx.tenant(tenant).await?.user_by_username(username).await?.ok_or(Refusal::NotFound)?)
    }

    /// The user of that address, made if there is none; the address is then the username.
    pub async fn user_of_email(&self, tenant: TenantId, actor: &Actor, email: &str) -> Result<User, Failure> {
        let email = normal_email(email)?;
        let mut tx = self.store.begin_in(tenant).await?;
        if let Some(user) = tx.tenant(tenant).await?.user_by_email(&email).await? {
            return Ok(user);
        }
        drop(tx);
        self.create_user(tenant, actor, NewUser { username: email.clone(), email: Some(email) }).await
    }

    /// Users in order of id, after the given one.
    pub async fn list_users(&self, tenant: TenantId, after: Option<UserId>, limit: u16) -> Result<Vec<User>, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        Ok(tx.tenant(tenant).await?.list_users(after, limit).await?)
    }

    /// Changes a user.
    pub async fn change_user(&self, tenant: TenantId, actor: &Actor, id: UserId, change: UserChange) -> Result<User, Failure> {
        let now = self.clock.now();
        let UserChange { email, disabled } = change;
        let email = email.map(|email| email.as_deref().map(normal_email).transpose()).transpose()?;
        self.find_user(tenant, id).await?;
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        let mut deeds = Vec::new();
        let target = format!("user:{id}");
        if let Some(email) = email {
            match scoped.set_user_email(id, email.as_deref()).await {
                Ok(true) => deeds.push(actor.did("user.update", &target, json!({ "changed": ["email"] }), now)),
                Ok(false) => return Err(Refusal::NotFound.into()),
                Err(error) => return Err(taken(&error).map_or_else(|| error.into(), Failure::from)),
            }
        }
        if let Some(disabled) = disabled
            && scoped.set_user_disabled(id, disabled.then_some((now, actor.name.as_str()))).await?
        {
            deeds.push(actor.did(if disabled { "user.disable" } else { "user.enable" }, &target, json!({}), now));
        }
        append(&mut scoped, tenant, &self.chain_key, &self.random, deeds).await?;
        let user = scoped.user(id).await?;
        self.commit(tx, "users", tenant, id).await?;
        Ok(user.ok_or(Refusal::NotFound)?)
    }

    /// Ends a user for good: the person's keys and tokens die, the id is never reused, the address is forgotten.
    pub async fn delete_user(&self, tenant: TenantId, actor: &Actor, id: UserId) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        if !scoped.delete_user(id, now, &actor.name).await? {
            return Err(Refusal::NotFound.into());
        }
        let deed = actor.did("user.delete", format!("user:{id}"), json!({}), now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        self.commit(tx, "users", tenant, id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(normal_email(" Dev@Example.com ").unwrap(), "dev@example.com");
        for bad in ["", "a", "@b", "a@", "a@b@c", "a b@c", "a@b..c", "a@b\nBcc: c@d", "\"a\"@b"] {
            assert!(normal_email(bad).is_err(), "{bad}");
        }
    }
}
