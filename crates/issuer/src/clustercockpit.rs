//! ClusterCockpit's own rules about people: its roles, projects and tokens.
//!
//! Projects are the attribute `projects`, and belong to managers.

use claviger_store::user::User;
use serde_json::json;

use crate::attribute::{Attributes, strings};
use crate::audit::Actor;
use crate::caller::Caller;
use crate::dialect::CrossLogin;
use crate::directory::TenantEntry;
use crate::grant::check_not_above;
use crate::user::UserChange;
use crate::username::Username;
use crate::{Failure, Issuer, Refusal};

/// The role that has projects.
pub const MANAGER: &str = "manager";
/// The role of scripts.
pub const API: &str = "api";
/// The attribute that holds them.
pub const PROJECTS: &str = "projects";
/// What an admin of people holds.
pub const ADMINISTERS: &str = "users:write";
/// Seconds that a token lives whose audience says nothing.
const USUAL_LIFETIME: i32 = 86_400;

/// One change of somebody's roles and projects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// A role more.
    AddRole(String),
    /// A role less.
    RemoveRole(String),
    /// A project more.
    AddProject(String),
    /// A project less.
    RemoveProject(String),
}

/// What is wrong with an edit: told to admins, in words that begin small.
fn invalid(field: &'static str, problem: impl Into<String>) -> Refusal {
    Refusal::invalid(field, problem)
}

/// Refuses what is no role of the tenant.
pub fn check_role(tenant: &TenantEntry, role: &str) -> Result<(), Refusal> {
    match tenant.catalogue.has_role(role) {
        true => Ok(()),
        false => Err(invalid(
            "role",
            format!("is no valid option: this tenant's roles are {}", tenant.catalogue.role_names().join(", ")),
        )),
    }
}

/// The rule of edits.
fn edited(edit: &Edit, roles: &[String], projects: &[String]) -> Result<(Vec<String>, Vec<String>), Refusal> {
    let has = |list: &[String], one: &String| list.contains(one);
    let with = |list: &[String], one: &String| list.iter().chain([one]).cloned().collect::<Vec<_>>();
    let without = |list: &[String], one: &String| list.iter().filter(|other| *other != one).cloned().collect::<Vec<_>>();
    let (roles, projects) = (roles.to_vec(), projects.to_vec());
    match edit {
        Edit::AddRole(role) if has(&roles, role) => Err(invalid("add-role", format!("is `{role}`, which the user has already"))),
        Edit::AddRole(role) => Ok((with(&roles, role), projects)),
        Edit::RemoveRole(role) if !has(&roles, role) => {
            Err(invalid("remove-role", format!("is `{role}`, which the user has not")))
        }
        Edit::RemoveRole(role) if role == MANAGER && !projects.is_empty() => {
            let problem = format!("is `{MANAGER}`, whose projects remain: remove {} first", projects.join(", "));
            Err(invalid("remove-role", problem))
        }
        Edit::RemoveRole(role) => Ok((without(&roles, role), projects)),
        Edit::AddProject(_) if !roles.iter().any(|role| role == MANAGER) => {
            Err(invalid("add-project", format!("is for those with the role `{MANAGER}`, which the user has not")))
        }
        Edit::AddProject(project) if has(&projects, project) => {
            Err(invalid("add-project", format!("is `{project}`, which the user has already")))
        }
        Edit::AddProject(project) => Ok((roles, with(&projects, project))),
        Edit::RemoveProject(project) if !has(&projects, project) => {
            Err(invalid("remove-project", format!("is `{project}`, which the user has not")))
        }
        Edit::RemoveProject(project) => Ok((roles, without(&projects, project))),
    }
}

/// The rule of new people: a manager has a project, nobody else has one, and only scripts have no password.
pub fn check_new(roles: &[String], projects: &[String], has_password: bool) -> Result<(), Refusal> {
    let is_manager = roles.iter().any(|role| role == MANAGER);
    match (is_manager, projects.is_empty()) {
        (true, true) => return Err(invalid("project", format!("can't be blank for the role `{MANAGER}`"))),
        (false, false) => return Err(invalid("project", format!("is for the role `{MANAGER}` alone"))),
        _ => {}
    }
    match has_password || roles.iter().all(|role| role == API) && !roles.is_empty() {
        true => Ok(()),
        false => Err(invalid("password", format!("can't be blank but for the role `{API}` alone"))),
    }
}

/// Somebody's projects.
#[must_use]
pub fn projects(user: &User) -> Vec<String> {
    strings(&user.attributes, PROJECTS)
}

impl TenantEntry {
    /// Seconds that a token lives which is made by hand for an audience, or for the usual one: as its profile says, and `None`
    /// for no end where it leaves `exp` out.
    #[must_use]
    pub fn lifetime_by_hand(&self, audience: Option<&str>) -> Option<i32> {
        let name = audience.or(self.settings.usual_audience.as_deref());
        match name.and_then(|name| self.audience(name)) {
            Some(audience) if audience.profile.lifetime.is_none() && audience.profile.omit_exp => None,
            Some(audience) => Some(audience.profile.lifetime.unwrap_or(USUAL_LIFETIME)),
            None => Some(USUAL_LIFETIME),
        }
    }
}

impl Issuer {
    /// Makes an API token for the caller, or, as an admin, for somebody else who holds no more than the admin does.
    pub async fn issue_api_token(&self, caller: &Caller, username: &str) -> Result<String, Failure> {
        let user = self.person_managed(caller, username).await?;
        let tenant = caller.tenant();
        let lifetime = tenant.lifetime_by_hand(None);
        let audience = tenant.settings.usual_audience.as_deref();
        self.issue_token(tenant, &caller.actor(), user.id, audience, None, lifetime).await
    }

    /// A short token with which whoever sits at the browser is logged in to an application, and what is known of that.
    pub async fn cross_login(&self, caller: &Caller, client: &str) -> Result<(CrossLogin, String, i32), Failure> {
        if caller.acting.is_some() {
            return Err(Refusal::ActingForAnother.into());
        }
        let tenant = caller.tenant();
        let dialect = tenant.settings.dialects.clustercockpit.as_ref();
        let client = dialect.and_then(|dialect| dialect.cross_login.get(client)).ok_or(Refusal::NotFound)?;
        let lifetime = tenant.audience_lifetime(&client.audience);
        let Some(lifetime) = lifetime.filter(|seconds| CrossLogin::is_short(*seconds)) else {
            let problem = "the audience of this client is not one whose tokens live so shortly that they may be handed over: an \
                           admin gives its profile a `lifetime` of 300 seconds or less";
            return Err(Refusal::Conflict(problem.into()).into());
        };
        let user = caller.person()?.user()?.id;
        // It says who somebody is; what they may do there is not ours to say.
        let jwt = self.issue_token(tenant, &caller.actor(), user, Some(&client.audience), Some(""), Some(lifetime)).await?;
        Ok((client.clone(), jwt, lifetime))
    }

    /// The caller, or whom an admin names.
    async fn person_managed(&self, caller: &Caller, username: &str) -> Result<User, Failure> {
        if caller.acting.is_some() {
            return Err(Refusal::ActingForAnother.into());
        }
        let own = caller.person()?.user()?;
        if Username::fold(username) == Username::fold(&own.username) {
            return Ok((**own).clone());
        }
        // Before anything is looked up: whoever is no admin does not learn who is here.
        caller.require(ADMINISTERS)?;
        let tenant = caller.tenant();
        let user = self.find_user_by_name(tenant.tenant.id, username).await?;
        check_not_above(tenant, &caller.actor(), &user)?;
        Ok(user)
    }

    /// Changes somebody's roles or projects, as the rules above allow.
    pub async fn edit_person(&self, tenant: &TenantEntry, actor: &Actor, username: &str, edit: &Edit) -> Result<User, Failure> {
        if let Edit::AddRole(role) | Edit::RemoveRole(role) = edit {
            check_role(tenant, role)?;
        }
        let user = self.find_user_by_name(tenant.tenant.id, username).await?;
        let rule = |before: &User| {
            let (roles, projects) = edited(edit, &before.roles, &strings(&before.attributes, PROJECTS))?;
            let (mut change, mut attributes) = (UserChange::default(), Attributes::new());
            match edit {
                Edit::AddRole(_) | Edit::RemoveRole(_) => change.roles = Some(roles),
                Edit::AddProject(_) | Edit::RemoveProject(_) => {
                    attributes.insert(PROJECTS.to_owned(), json!(projects));
                    change.attributes = Some(attributes);
                }
            }
            Ok(change)
        };
        self.change_user_by(tenant.tenant.id, actor, user.id, rule).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn roles_and_projects_go_together() {
        let edit = |edit: Edit, roles: &[&str], projects: &[&str]| edited(&edit, &list(roles), &list(projects)).ok();
        let both = |roles: &[&str], projects: &[&str]| Some((list(roles), list(projects)));
        assert_eq!(edit(Edit::AddRole("api".into()), &["user"], &[]), both(&["user", "api"], &[]));
        assert_eq!(edit(Edit::AddRole("user".into()), &["user"], &[]), None);
        assert_eq!(edit(Edit::RemoveRole("api".into()), &["user"], &[]), None);
        assert_eq!(edit(Edit::RemoveRole("manager".into()), &["manager"], &["p1"]), None);
        assert_eq!(edit(Edit::RemoveRole("manager".into()), &["manager"], &[]), both(&[], &[]));
        assert_eq!(edit(Edit::RemoveRole("user".into()), &["manager", "user"], &["p1"]), both(&["manager"], &["p1"]));
        assert_eq!(edit(Edit::AddProject("p2".into()), &["user"], &[]), None);
        assert_eq!(edit(Edit::AddProject("p2".into()), &["manager"], &["p1"]), both(&["manager"], &["p1", "p2"]));
        assert_eq!(edit(Edit::AddProject("p1".into()), &["manager"], &["p1"]), None);
        assert_eq!(edit(Edit::RemoveProject("p1".into()), &["user"], &["p1"]), both(&["user"], &[]));
        assert_eq!(edit(Edit::RemoveProject("p1".into()), &["manager"], &[]), None);
    }

    #[test]
    fn new_people_have_what_their_role_needs() {
        assert!(check_new(&list(&["user"]), &[], true).is_ok());
        assert!(check_new(&list(&["user"]), &[], false).is_err());
        assert!(check_new(&list(&["api"]), &[], false).is_ok());
        assert!(check_new(&list(&["api", "user"]), &[], false).is_err());
        assert!(check_new(&[], &[], false).is_err());
        assert!(check_new(&list(&["manager"]), &[], true).is_err());
        assert!(check_new(&list(&["manager"]), &list(&["p1"]), true).is_ok());
        assert!(check_new(&list(&["user"]), &list(&["p1"]), true).is_err());
    }
}
