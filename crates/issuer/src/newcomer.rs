//! People who come from another system with their ids, with what it kept of their passwords, and with the keys that they had
//! there. Each comes with all of that or not at all; to come twice changes nothing.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use claviger_store::id::{KeyId, Owner, TenantId};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::acting::ActingRule;
use crate::audit::{Actor, append};
use crate::directory::TenantEntry;
use crate::key::{HashedPair, KeyOrder};
use crate::limits::KeyLimits;
use crate::rights::TENANT_ADMIN;
use crate::scope::MANAGEMENT;
use crate::user::NewUser;
use crate::{Failure, Issuer, Refusal};

/// Somebody of another system.
#[derive(Default)]
pub struct Newcomer {
    /// The person. Without an id, whoever has the name here already is taken for the same person; keys are given to such a one
    /// only if some of them came before.
    pub person: NewUser,
    /// The keys that the person had there.
    pub keys: Vec<NewcomerKey>,
}

/// A key of somebody of another system.
pub struct NewcomerKey {
    /// Its name for people; there, perhaps, the only one.
    pub name: String,
    /// Its public half, where it had one that is unique beyond its owner.
    pub id: Option<String>,
    /// What the other system kept of its secret.
    pub hash: SecretString,
    /// What it may do. What its owner lacks of that, the owner is given.
    pub scopes: Vec<String>,
    /// Roles whose scopes it has too.
    pub roles: Vec<String>,
    /// Who may act for its owner with it.
    pub agents: Option<Vec<String>>,
    /// When it ends; `None` is never.
    pub expires_at: Option<DateTime<Utc>>,
}

/// What became of somebody.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Whether the person is new here.
    pub made: bool,
    /// Names of keys that are new here.
    pub keys_made: Vec<String>,
    /// Names of keys that were here already.
    pub keys_there: Vec<String>,
}

impl Newcomer {
    /// Takes from somebody what this tenant knows no meaning of: roles that it has not made, scopes that are not in its
    /// catalogue. Returns their names.
    pub fn keep_known(&mut self, tenant: &TenantEntry) -> Vec<String> {
        let mut unknown = Vec::new();
        let mut sift = |names: &mut Vec<String>, known: &dyn Fn(&str) -> bool| {
            let (kept, lost) = std::mem::take(names).into_iter().partition(|name| known(name));
            *names = kept;
            unknown.extend::<Vec<String>>(lost);
        };
        let has_role = |name: &str| name != TENANT_ADMIN && tenant.catalogue.has_role(name);
        let has_scope = |name: &str| tenant.catalogue.knows(name);
        sift(&mut self.person.roles, &has_role);
        sift(&mut self.person.scopes, &has_scope);
        for key in &mut self.keys {
            sift(&mut key.roles, &has_role);
            sift(&mut key.scopes, &has_scope);
        }
        unknown.sort();
        unknown.dedup();
        unknown
    }

    /// Whether somebody would have a hand in the management of the tenant.
    #[must_use]
    pub fn manages(&self, tenant: &TenantEntry) -> bool {
        let NewUser { roles, scopes, .. } = &self.person;
        MANAGEMENT.iter().any(|scope| scopes.iter().any(|held| held == scope) || tenant.catalogue.roles_cover(roles, scope))
    }
}

/// The public half of a key that had none beyond its owner's name and its own: the same for the same key, and nobody else's.
fn key_id(tenant: TenantId, username_folded: &str, name: &str) -> String {
    let told = format!("{tenant}\0{username_folded}\0{name}");
    let digest = digest::digest(&digest::SHA256, told.as_bytes());
    let short = digest.as_ref().first_chunk::<16>().copied().unwrap_or_default();
    format!("moved-{}", URL_SAFE_NO_PAD.encode(short))
}

impl Issuer {
    /// Takes somebody in, with their keys; or says, in a dry run, what that would do. What is here already is left as it is.
    /// A crash of the database may undo the last second's; [`Issuer::note_arrivals`] makes all of it last.
    pub async fn take_in(
        &self,
        tenant: &TenantEntry,
        actor: &Actor,
        newcomer: Newcomer,
        dry_run: bool,
    ) -> Result<Settled, Failure> {
        let now = self.clock.now();
        let Newcomer { person, keys } = newcomer;
        let checked = self.checked(tenant, person).await?;
        let folded = checked.username.folded.clone();
        let known_by_id = checked.id.is_some();
        let id = tenant.tenant.id;
        let mut tx = self.store.begin_brief(id).await?;
        let mut scoped = tx.tenant(id).await?;
        let there = scoped.user_by_username(&folded).await?;
        let mut deeds = Vec::new();
        let mut settled = Settled::default();
        let user = match there {
            Some(user) if checked.id.is_some_and(|id| id != user.id) => {
                return Err(Refusal::Conflict("the username belongs to a user of another id".into()).into());
            }
            Some(user) => user,
            None => {
                settled.made = true;
                self.keep_user(&mut scoped, tenant, actor, checked, now, &mut deeds).await?
            }
        };
        let owner = Owner::User(user.id);
        if !settled.made && !known_by_id && !keys.is_empty() {
            let mut came_before = false;
            for key in &keys {
                let api_key = key.id.clone().unwrap_or_else(|| key_id(id, &folded, &key.name));
                if let Some(api_key) = KeyId::parse(&api_key) {
                    came_before |= scoped.key(&api_key).await?.is_some_and(|kept| kept.owner == owner);
                }
            }
            if !came_before {
                let problem = "the username belongs to somebody who was here before and is not known to be the same, so the keys \
                               are left: make them anew for that person, or give one of the two another name";
                return Err(Refusal::Conflict(problem.into()).into());
            }
        }
        for key in keys {
            let NewcomerKey { name, id: given, hash, scopes, roles, agents, expires_at } = key;
            let key = given.unwrap_or_else(|| key_id(id, &folded, &name));
            let kept = match KeyId::parse(&key) {
                Some(key) => scoped.key(&key).await?,
                None => None,
            };
            match kept {
                Some(kept) if kept.owner == owner => settled.keys_there.push(name),
                Some(_) => return Err(Refusal::Conflict(format!("the key `{name}` belongs to somebody else here")).into()),
                None => {
                    let order = KeyOrder {
                        owner,
                        name: name.clone(),
                        scopes,
                        roles,
                        acting: ActingRule { agents, ..ActingRule::default() },
                        token_lifetime: None,
                        refresh: false,
                        expires_at: Some(expires_at),
                        limits: KeyLimits::default(),
                        import: None,
                    };
                    let pair = HashedPair { key, hash };
                    let made = self.import_hashed_key_in(&mut scoped, tenant, actor, order, pair, now, &mut deeds).await;
                    made.map_err(|failure| match failure {
                        Failure::Refusal(refusal) => Refusal::Conflict(format!("the key `{name}`: {refusal}")).into(),
                        fault @ Failure::Fault(_) => fault,
                    })?;
                    settled.keys_made.push(name);
                }
            }
        }
        if dry_run || deeds.is_empty() {
            return Ok(settled);
        }
        append(&mut scoped, id, &self.chain_key, &self.random, deeds).await?;
        tx.commit().await?;
        if !settled.keys_made.is_empty() {
            self.forget_rights(id, owner);
        }
        Ok(settled)
    }

    /// Writes down that people of another system came, and how many, after the last of them: on the disk, and all that was
    /// written before with it.
    pub async fn note_arrivals(&self, tenant: TenantId, actor: &Actor, detail: Value) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut tx = self.store.begin_in(tenant).await?;
        let deed = actor.did("tenant.import", format!("tenant:{tenant}"), json!({ "people": detail }), now);
        append(&mut tx.tenant(tenant).await?, tenant, &self.chain_key, &self.random, [deed]).await?;
        Ok(tx.commit().await?)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_keys_public_half_is_the_same_each_time_and_nobody_elses() {
        let (one, two) = (TenantId(Uuid::from_u128(1)), TenantId(Uuid::from_u128(2)));
        let id = key_id(one, "anna", "devkey");
        assert_eq!(id, key_id(one, "anna", "devkey"));
        assert!(KeyId::parse(&id).is_some() && id.len() == 28, "{id}");
        for other in [key_id(two, "anna", "devkey"), key_id(one, "ben", "devkey"), key_id(one, "anna", "dev")] {
            assert_ne!(id, other);
        }
    }
}
