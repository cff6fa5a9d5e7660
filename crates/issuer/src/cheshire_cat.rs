//! Cheshire Cat's own rules: permissions on resources in place of roles, and the pause after a wrong login.
//!
//! A permission is a scope in capitals, `MEMORY: [READ]`: one of the tenant's catalogue, or one of those for managing people.
//! What else somebody holds is not told by its routes, and stays when they change somebody.

use std::collections::BTreeMap;
use std::time::Duration;

use claviger_store::id::UserId;
use claviger_store::user::User;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::audience::permissions;
use crate::audit::Actor;
use crate::directory::TenantEntry;
use crate::rights::{Catalogue, of_person};
use crate::scope::{MANAGEMENT, ScopeSet};
use crate::user::{NewPassword, NewUser, UserChange};
use crate::{Failure, Issuer, Refusal};

/// The role of people of whom nobody says what they may do.
pub const BASE_ROLE: &str = "user";
/// Permissions that are scopes of our own management.
const OF_PEOPLE: [&str; 2] = ["users:read", "users:write"];
/// Shortest login name that its routes give, in characters.
const SHORTEST_NAME: usize = 2;
/// Shortest password that they take, in characters, however short the tenant lets them be.
const SHORTEST_PASSWORD: usize = 5;
/// No sooner than this a wrong login is heard there.
const PAUSE: Duration = Duration::from_secs(1);
/// Most requests that pause at once. Those beyond hear it as soon as any other route would say it.
static PAUSES: Semaphore = Semaphore::const_new(1000);

/// Actions by resource, in capitals.
pub type Asked = BTreeMap<String, Vec<String>>;

/// What to change of a person; `None` leaves as it is.
#[derive(Default)]
pub struct PersonChange {
    /// Never changes: refused if it is another.
    pub username: Option<String>,
    /// A new password.
    pub password: Option<SecretString>,
    /// All permissions.
    pub permissions: Option<Asked>,
}

/// Whether a scope is a permission: written in capitals, it is still known which one is meant.
fn is_permission(catalogue: &Catalogue, scope: &str) -> bool {
    let ours = MANAGEMENT.contains(&scope) && !OF_PEOPLE.contains(&scope);
    !ours && catalogue.knows(scope) && scope.contains(':') && scope == scope.to_ascii_lowercase()
}

/// Every permission.
fn all(catalogue: &Catalogue) -> ScopeSet {
    let every = catalogue.names().chain(OF_PEOPLE).filter(|scope| is_permission(catalogue, scope));
    every.map(str::to_owned).collect()
}

/// The scope that a permission is, which may also be written as our own scopes are.
#[must_use]
pub fn scope_of(tenant: &TenantEntry, permission: String) -> String {
    match tenant.catalogue.knows(&permission) {
        true => permission,
        false => permission.to_ascii_lowercase(),
    }
}

/// The permissions among scopes.
fn among(catalogue: &Catalogue, scopes: &ScopeSet) -> ScopeSet {
    scopes.iter().filter(|scope| is_permission(catalogue, scope)).map(str::to_owned).collect()
}

/// The same as it writes them: `{"MEMORY": ["LIST", "READ"]}`.
#[must_use]
pub fn written(tenant: &TenantEntry, scopes: &ScopeSet) -> Value {
    permissions(among(&tenant.catalogue, scopes).iter(), true)
}

/// Every permission that there is.
#[must_use]
pub fn available(tenant: &TenantEntry) -> Value {
    permissions(all(&tenant.catalogue).iter(), true)
}

/// The permissions that somebody holds now.
#[must_use]
pub fn held_by(tenant: &TenantEntry, user: &User) -> Value {
    written(tenant, &of_person(tenant, user))
}

/// What was asked for, as scopes.
fn asked(catalogue: &Catalogue, asked: &Asked) -> Result<ScopeSet, Refusal> {
    let known = all(catalogue);
    let pairs = asked.iter().flat_map(|(resource, actions)| actions.iter().map(move |action| (resource, action)));
    pairs
        .map(|(resource, action)| {
            let text = format!("{resource}:{action}");
            let scope = text.to_ascii_lowercase();
            match known.contains(&scope) && text == text.to_ascii_uppercase() {
                true => Ok(scope),
                false => Err(Refusal::invalid("permissions", "name what GET /auth/available-permissions does not list")),
            }
        })
        .collect()
}

/// Management beyond that of people, which its routes know nothing of.
fn beyond_people() -> impl Iterator<Item = &'static str> {
    MANAGEMENT.into_iter().filter(|scope| !OF_PEOPLE.contains(scope))
}

/// `users:edit` and `users:delete` are its own: whoever holds no more than these reaches nobody who manages the tenant.
fn check_manages_no_more(tenant: &TenantEntry, actor: &Actor, user: &User) -> Result<(), Refusal> {
    let held = of_person(tenant, user);
    actor.authority.check_gives(MANAGEMENT.into_iter().filter(|scope| held.contains(scope)))
}

/// The rule of change: roles and scopes that come to exactly these permissions. A role that holds another one goes, all else
/// stays. A role of the tenant's management is not its to take.
fn regranted(
    catalogue: &Catalogue,
    roles: &[String],
    scopes: &[String],
    wanted: &ScopeSet,
) -> Result<(Vec<String>, Vec<String>), Refusal> {
    let beyond: Vec<String> = all(catalogue).iter().filter(|one| !wanted.contains(one)).map(str::to_owned).collect();
    let covers = |role: &String, scope: &str| catalogue.roles_cover(std::slice::from_ref(role), scope);
    let goes = |role: &String| beyond.iter().any(|scope| covers(role, scope));
    let (gone, roles): (Vec<String>, Vec<String>) = roles.iter().cloned().partition(goes);
    if let Some(role) = gone.iter().find(|role| beyond_people().any(|scope| covers(role, scope))) {
        let problem = format!("come without what the role `{role}` of the tenant's management holds: change roles at /v1/users");
        return Err(Refusal::invalid("permissions", problem));
    }
    let other = scopes.iter().filter(|scope| !is_permission(catalogue, scope)).cloned();
    let lacking = wanted.iter().filter(|scope| !catalogue.roles_cover(&roles, scope)).map(str::to_owned);
    let scopes: ScopeSet = other.chain(lacking).collect();
    Ok((roles, scopes.to_vec()))
}

fn check_password(password: &SecretString) -> Result<(), Refusal> {
    match password.expose_secret().chars().count() < SHORTEST_PASSWORD {
        true => Err(Refusal::invalid("password", format!("is at least {SHORTEST_PASSWORD} characters long"))),
        false => Ok(()),
    }
}

/// Waits for a login, and a while longer if it was a wrong one. Nothing but the request waits, and not too many of those: what
/// keeps guesses few is their count.
pub async fn with_a_pause<T>(login: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let heard = Instant::now() + PAUSE;
    let outcome = login.await;
    if matches!(outcome, Err(Failure::Refusal(Refusal::WrongLogin | Refusal::Upstream(_))))
        && let Ok(_pause) = PAUSES.try_acquire()
    {
        tokio::time::sleep_until(heard).await;
    }
    outcome
}

impl Issuer {
    /// People, oldest first, without the first `skip` of them.
    pub async fn list_people(&self, tenant: &TenantEntry, skip: u32, limit: u16) -> Result<Vec<User>, Failure> {
        let mut tx = self.store.begin_in(tenant.tenant.id).await?;
        Ok(tx.tenant(tenant.tenant.id).await?.skip_users(skip, limit).await?)
    }

    /// Makes a person with these permissions, or with those of [`BASE_ROLE`].
    pub async fn create_person(
        &self,
        tenant: &TenantEntry,
        actor: &Actor,
        username: String,
        password: SecretString,
        permissions: Option<&Asked>,
    ) -> Result<User, Failure> {
        if username.chars().count() < SHORTEST_NAME {
            return Err(Refusal::invalid("username", format!("is at least {SHORTEST_NAME} characters long")).into());
        }
        check_password(&password)?;
        let (roles, scopes) = match permissions {
            None => (vec![BASE_ROLE.to_owned()], Vec::new()),
            Some(permissions) => regranted(&tenant.catalogue, &[], &[], &asked(&tenant.catalogue, permissions)?)?,
        };
        let password = Some(NewPassword::Text(password));
        self.create_user(tenant, actor, NewUser { username, roles, scopes, password, ..NewUser::default() }).await
    }

    /// Changes a person: all of it, or nothing.
    pub async fn change_person(
        &self,
        tenant: &TenantEntry,
        actor: &Actor,
        id: UserId,
        change: PersonChange,
    ) -> Result<User, Failure> {
        let PersonChange { username, password, permissions } = change;
        let user = self.find_user(tenant.tenant.id, id).await?;
        if username.is_some_and(|username| username != user.username) {
            return Err(Refusal::invalid("username", "never changes: make another person").into());
        }
        let wanted = permissions.map(|permissions| asked(&tenant.catalogue, &permissions)).transpose()?;
        let password = match password {
            None => None,
            Some(password) => {
                check_password(&password)?;
                Some(self.new_password(tenant, &user.username, user.email.as_deref(), password).await?)
            }
        };
        let rule = |before: &User| {
            let mut change = UserChange { password, ..UserChange::default() };
            if let Some(wanted) = wanted.filter(|wanted| *wanted != among(&tenant.catalogue, &of_person(tenant, before))) {
                check_manages_no_more(tenant, actor, before)?;
                let (roles, scopes) = regranted(&tenant.catalogue, &before.roles, &before.scopes, &wanted)?;
                (change.roles, change.scopes) = (Some(roles), Some(scopes));
            }
            Ok(change)
        };
        self.change_user_by(tenant.tenant.id, actor, id, rule).await
    }

    /// Removes a person, and tells who it was.
    pub async fn remove_person(&self, tenant: &TenantEntry, actor: &Actor, id: UserId) -> Result<User, Failure> {
        let user = self.find_user(tenant.tenant.id, id).await?;
        check_manages_no_more(tenant, actor, &user)?;
        self.delete_user(tenant.tenant.id, actor, id).await?;
        Ok(user)
    }
}

#[cfg(test)]
mod tests {
    use claviger_store::role::{Role, Scope};
    use serde_json::json;

    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn catalogue() -> Catalogue {
        let now = chrono::DateTime::UNIX_EPOCH;
        let scope = |name: &&str| Scope { name: (*name).to_owned(), description: String::new(), created_at: now };
        let role = |name: &str, scopes: &[&str]| Role {
            name: name.to_owned(),
            description: String::new(),
            scopes: texts(scopes),
            created_at: now,
            updated_at: now,
        };
        let scopes = ["memory:read", "memory:write", "users:list", "STATUS:read"].iter().map(scope).collect();
        let roles = vec![
            role("user", &["memory:read"]),
            role("admin", &["*:read", "*:write", "*:list", "users:read", "users:write"]),
            role("clerk", &["keys:read"]),
            role("root", &["users:write", "keys:write"]),
        ];
        Catalogue::new(scopes, roles, None, false)
    }

    fn set(scopes: &[&str]) -> ScopeSet {
        scopes.iter().map(|scope| (*scope).to_owned()).collect()
    }

    #[test]
    fn permissions_are_the_catalogue_and_the_management_of_people_alone() {
        let every = permissions(all(&catalogue()).iter(), true);
        assert_eq!(every, json!({ "MEMORY": ["READ", "WRITE"], "USERS": ["LIST", "READ", "WRITE"] }));
    }

    #[test]
    fn p27_only_permissions_in_capitals_are_asked_for() {
        let ask = |resource: &str, actions: &[&str]| {
            asked(&catalogue(), &BTreeMap::from([(resource.to_owned(), texts(actions))])).map(|scopes| scopes.to_string())
        };
        assert_eq!(ask("MEMORY", &["READ", "READ", "WRITE"]), Ok("memory:read memory:write".into()));
        assert_eq!(ask("USERS", &["WRITE"]), Ok("users:write".into()));
        assert_eq!(ask("MEMORY", &[]), Ok(String::new()));
        for (resource, action) in [
            ("MEMORY", "*"),
            ("*", "READ"),
            ("memory", "read"),
            ("KEYS", "READ"),
            ("STATUS", "READ"),
            ("VERIFY", ""),
            ("MEMORY:READ", "READ"),
            ("SOMETHING", "42"),
        ] {
            assert!(ask(resource, &[action]).is_err(), "{resource} {action}");
        }
    }

    #[test]
    fn a_change_comes_to_what_was_asked_and_leaves_what_it_is_not_about() {
        let grant = |roles: &[&str], scopes: &[&str], wanted: &[&str]| {
            regranted(&catalogue(), &texts(roles), &texts(scopes), &set(wanted)).unwrap()
        };
        let both = |roles: &[&str], scopes: &[&str]| (texts(roles), texts(scopes));
        assert_eq!(grant(&[], &[], &["memory:read"]), both(&[], &["memory:read"]));
        assert_eq!(grant(&["user"], &[], &["memory:read", "users:list"]), both(&["user"], &["users:list"]));
        assert_eq!(grant(&["user"], &["users:list"], &["users:list"]), both(&[], &["users:list"]));
        assert_eq!(grant(&["admin"], &[], &["memory:read", "memory:write"]), both(&[], &["memory:read", "memory:write"]));
        assert_eq!(grant(&["admin", "a-word", "clerk"], &["keys:write"], &[]), both(&["a-word", "clerk"], &["keys:write"]));
        let root = regranted(&catalogue(), &texts(&["root"]), &[], &set(&[]));
        assert!(root.unwrap_err().to_string().contains("`root` of the tenant's management"));
    }

    #[tokio::test]
    async fn a_wrong_login_is_heard_a_second_later_unless_too_many_wait() {
        let heard = async |outcome: Result<(), Failure>| {
            let begun = Instant::now();
            let _ = with_a_pause(async { outcome }).await;
            begun.elapsed()
        };
        let wrong = || Err(Refusal::WrongLogin.into());
        assert!(heard(wrong()).await >= PAUSE);
        assert!(heard(Ok(())).await < PAUSE / 2);
        assert!(heard(Err(Refusal::Throttled { retry_after: 7 }.into())).await < PAUSE / 2);
        let all = PAUSES.acquire_many(1000).await.unwrap();
        assert!(heard(wrong()).await < PAUSE / 2);
        drop(all);
        assert!(heard(wrong()).await >= PAUSE);
    }
}
