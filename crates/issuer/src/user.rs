//! People: made, disabled, ended. Login stands elsewhere.

use chrono::{DateTime, Utc};
use claviger_store::TenantTx;
use claviger_store::id::{Owner, TenantId, UserId};
use claviger_store::password::PasswordHash;
use claviger_store::token_family::EndedBy;
use claviger_store::user::{EMAIL_TAKEN, ID_TAKEN, LOOK_TAKEN, USERNAME_TAKEN, User};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::account::{end_logins, end_what_a_password_began};
use crate::attribute::{Attributes, changed, name_attributes};
use crate::audit::{Actor, Draft, append};
use crate::directory::TenantEntry;
use crate::grant::{check_not_above, checked_scopes, to_person};
use crate::password::imported;
use crate::role::checked_roles;
use crate::username::Username;
use crate::{Failure, Fault, Issuer, Refusal};

/// A user to be made.
#[derive(Default)]
pub struct NewUser {
    /// 1 to 128 letters, digits and `. _ @ + -`; unique in the tenant whatever its case or look. Never changes.
    pub username: String,
    /// Kept in lower case.
    pub email: Option<String>,
    /// Names of roles; one that the tenant has not made is a word in tokens and grants nothing here.
    pub roles: Vec<String>,
    /// Held beside those of the roles.
    pub scopes: Vec<String>,
    /// What services want to know besides.
    pub attributes: Attributes,
    /// `None` for somebody who cannot log in with a password.
    pub password: Option<NewPassword>,
    /// The id in the system that the person comes from; `None` makes one.
    pub id: Option<UserId>,
    /// Whether the person may not act from the beginning.
    pub disabled: bool,
}

/// The password of a user to be made.
pub enum NewPassword {
    /// Its text, which the tenant's policy judges.
    Text(SecretString),
    /// What another system kept of it; becomes ours at the next login.
    Hash(String),
}

/// A user that can be made, as far as that can be told without the database.
pub(crate) struct CheckedUser {
    pub(crate) username: Username,
    email: Option<String>,
    roles: Vec<String>,
    scopes: Vec<String>,
    attributes: Attributes,
    hash: Option<PasswordHash>,
    pub(crate) id: Option<UserId>,
    disabled: bool,
}

/// What to change of a user; `None` leaves as it is.
#[derive(Default)]
pub struct UserChange {
    /// The address; `Some(None)` removes it.
    pub email: Option<Option<String>>,
    /// All of the roles.
    pub roles: Option<Vec<String>>,
    /// All of the scopes held beside those of the roles.
    pub scopes: Option<Vec<String>>,
    /// Attributes to be set, or removed by `null`; those that are not named stay.
    pub attributes: Option<Attributes>,
    /// Whether the person may act.
    pub disabled: Option<bool>,
    /// What is kept of a new password, which was judged. All of the person's logins end.
    pub password: Option<PasswordHash>,
}

/// In lower case, if it has the shape of an address. Whether it is one, only a message can tell.
pub(crate) fn normal_email(email: &str) -> Result<String, Refusal> {
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
        LOOK_TAKEN => Some(Refusal::Conflict(
            "the username looks like that of another user; choose one that cannot be mistaken for it".into(),
        )),
        ID_TAKEN => Some(Refusal::Conflict("the id belongs to another user".into())),
        EMAIL_TAKEN => Some(Refusal::Conflict("the e-mail address belongs to another user".into())),
        _ => None,
    }
}

impl Issuer {
    /// Makes a user.
    pub async fn create_user(&self, tenant: &TenantEntry, actor: &Actor, new: NewUser) -> Result<User, Failure> {
        let now = self.clock.now();
        let checked = self.checked(tenant, new).await?;
        let id = tenant.tenant.id;
        let mut tx = self.store.begin_in(id).await?;
        let mut scoped = tx.tenant(id).await?;
        let mut deeds = Vec::new();
        let user = self.keep_user(&mut scoped, tenant, actor, checked, now, &mut deeds).await?;
        append(&mut scoped, id, &self.chain_key, &self.random, deeds).await?;
        tx.commit().await?;
        Ok(user)
    }

    /// What can be told of a new user without the database; a password is hashed here, which takes its time.
    pub(crate) async fn checked(&self, tenant: &TenantEntry, new: NewUser) -> Result<CheckedUser, Failure> {
        let NewUser { username, email, roles, scopes, attributes, password, id, disabled } = new;
        let username = Username::parse(&username)?;
        let attributes = changed(&Attributes::new(), &attributes)?;
        let email = email.as_deref().map(normal_email).transpose()?;
        let roles = checked_roles(&roles)?;
        let scopes = checked_scopes(&scopes)?;
        let hash = match password {
            None => None,
            Some(NewPassword::Text(text)) => Some(self.new_password(tenant, &username.shown, email.as_deref(), text).await?),
            Some(NewPassword::Hash(text)) => Some(imported("password_hash", &text)?),
        };
        Ok(CheckedUser { username, email, roles, scopes, attributes, hash, id, disabled })
    }

    /// Keeps a new user in a transaction; what is to be written down of it is added to the deeds.
    pub(crate) async fn keep_user(
        &self,
        scoped: &mut TenantTx<'_>,
        tenant: &TenantEntry,
        actor: &Actor,
        checked: CheckedUser,
        now: DateTime<Utc>,
        deeds: &mut Vec<Draft>,
    ) -> Result<User, Failure> {
        let CheckedUser { username, email, roles, scopes, attributes, hash, id, disabled } = checked;
        let names: Vec<String> = attributes.keys().cloned().collect();
        let attributes = Value::Object(attributes);
        let kept = claviger_store::user::NewUser {
            id: id.unwrap_or_else(|| UserId(self.random.uuid())),
            username: &username.shown,
            folded: &username.folded,
            skeleton: &username.skeleton,
            email: email.as_deref(),
            roles: &roles,
            scopes: &scopes,
            attributes: Some(&attributes),
        };
        to_person(scoped, tenant, actor, (&[], &[]), &roles, &scopes, now).await?;
        if let Err(error) = scoped.create_user(&kept, now).await {
            return Err(taken(&error).map_or_else(|| error.into(), Failure::from));
        }
        if let Some(hash) = &hash {
            scoped.set_password(kept.id, hash, now, &actor.name).await?;
        }
        let target = format!("user:{}", kept.id);
        let mut detail = json!({ "roles": roles, "scopes": scopes, "password": hash.is_some(), "imported": id.is_some() });
        name_attributes(&mut detail, &names);
        deeds.push(actor.did("user.create", &target, detail, now));
        if disabled {
            scoped.set_user_disabled(kept.id, Some((now, actor.name.as_str()))).await?;
            deeds.push(actor.did("user.disable", &target, json!({}), now));
        }
        let user = scoped.user(kept.id).await?;
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
        let folded = Username::fold(username).ok_or(Refusal::NotFound)?;
        let mut tx = self.store.begin_in(tenant).await?;
        Ok(tx.tenant(tenant).await?.user_by_username(&folded).await?.ok_or(Refusal::NotFound)?)
    }

    /// The user of that address, made if there is none; the address is then the username.
    pub async fn user_of_email(&self, tenant: &TenantEntry, actor: &Actor, email: &str) -> Result<User, Failure> {
        let email = normal_email(email)?;
        let mut tx = self.store.begin_in(tenant.tenant.id).await?;
        if let Some(user) = tx.tenant(tenant.tenant.id).await?.user_by_email(&email).await? {
            return Ok(user);
        }
        drop(tx);
        self.create_user(tenant, actor, NewUser { username: email.clone(), email: Some(email), ..NewUser::default() }).await
    }

    /// Users in order of id, after the given one.
    pub async fn list_users(&self, tenant: TenantId, after: Option<UserId>, limit: u16) -> Result<Vec<User>, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        Ok(tx.tenant(tenant).await?.list_users(after, limit).await?)
    }

    /// Changes a user.
    pub async fn change_user(&self, tenant: TenantId, actor: &Actor, id: UserId, change: UserChange) -> Result<User, Failure> {
        self.change_user_by(tenant, actor, id, |_| Ok(change)).await
    }

    /// Changes a user as a rule says that sees the person as they are now, while nobody else can change them.
    pub async fn change_user_by(
        &self,
        tenant: TenantId,
        actor: &Actor,
        id: UserId,
        rule: impl FnOnce(&User) -> Result<UserChange, Refusal> + Send,
    ) -> Result<User, Failure> {
        let now = self.clock.now();
        let entry = self.entry_of(tenant).await?;
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        if !scoped.lock_user(id).await? {
            return Err(Refusal::NotFound.into());
        }
        let before = scoped.user(id).await?.ok_or(Refusal::NotFound)?;
        let UserChange { email, roles, scopes, attributes, disabled, password } = rule(&before)?;
        let roles = roles.as_deref().map(checked_roles).transpose()?;
        let scopes = scopes.as_deref().map(checked_scopes).transpose()?;
        let email = email.map(|email| email.as_deref().map(normal_email).transpose()).transpose()?;
        let mut deeds = Vec::new();
        let mut families = Vec::new();
        let target = format!("user:{id}");
        if let Some(email) = email {
            match scoped.set_user_email(id, email.as_deref()).await {
                Ok(true) => deeds.push(actor.did("user.update", &target, json!({ "changed": ["email"] }), now)),
                Ok(false) => return Err(Refusal::NotFound.into()),
                Err(error) => return Err(taken(&error).map_or_else(|| error.into(), Failure::from)),
            }
        }
        if let Some(change) = attributes {
            let after = changed(&before.attributes, &change)?;
            scoped.set_user_attributes(id, &Value::Object(after)).await?;
            // What they say may be personal; which there are is not.
            let detail = json!({ "changed": ["attributes"], "attributes": change.keys().collect::<Vec<_>>() });
            deeds.push(actor.did("user.update", &target, detail, now));
        }
        if roles.is_some() || scopes.is_some() {
            let held = (before.roles.as_slice(), before.scopes.as_slice());
            let (roles, scopes) = (roles.as_deref().unwrap_or(held.0), scopes.as_deref().unwrap_or(held.1));
            to_person(&mut scoped, &entry, actor, held, roles, scopes, now).await?;
            scoped.set_user_roles(id, roles).await?;
            scoped.set_user_scopes(id, scopes).await?;
            let changed: Vec<&str> = [("roles", roles != held.0), ("scopes", scopes != held.1)]
                .into_iter()
                .filter_map(|(what, changed)| changed.then_some(what))
                .collect();
            deeds.push(actor.did("user.update", &target, json!({ "changed": changed, "roles": roles, "scopes": scopes }), now));
        }
        if let Some(hash) = password {
            check_not_above(&entry, actor, &before)?;
            scoped.set_password(id, &hash, now, &actor.name).await?;
            families.extend(end_what_a_password_began(&mut scoped, id, now, &actor.name).await?);
            deeds.push(actor.did("user.password_set", &target, json!({}), now));
        }
        if let Some(disabled) = disabled
            && scoped.set_user_disabled(id, disabled.then_some((now, actor.name.as_str()))).await?
        {
            deeds.push(actor.did(if disabled { "user.disable" } else { "user.enable" }, &target, json!({}), now));
            if disabled {
                families.extend(end_logins(&mut scoped, id, now, &actor.name, EndedBy::Disabled).await?);
                families.extend(scoped.end_families_of_keys(Owner::User(id), now, &actor.name).await?);
            }
        }
        append(&mut scoped, tenant, &self.chain_key, &self.random, deeds).await?;
        let user = scoped.user(id).await?;
        self.commit_logins(tx, tenant, None, &families).await?;
        self.forget("users", tenant, id);
        self.forget("scopes", tenant, "");
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
        scoped.forget_password(id).await?;
        scoped.delete_connection_links(id, None).await?;
        let families = end_logins(&mut scoped, id, now, &actor.name, EndedBy::Deleted).await?;
        let deed = actor.did("user.delete", format!("user:{id}"), json!({}), now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        self.commit_logins(tx, tenant, None, &families).await?;
        self.forget("users", tenant, id);
        Ok(())
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
