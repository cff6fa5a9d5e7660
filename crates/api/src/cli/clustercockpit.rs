//! `add-user`, `jwt`, `del-user` and `gen-keypair`, as ClusterCockpit's own program has them. Each does what a command of ours
//! does.

use anyhow::{Context as _, bail};
use clap::Args;
use claviger_issuer::audit::Actor;
use claviger_issuer::clustercockpit::{API, PROJECTS, check_new, check_role};
use claviger_issuer::user::{NewPassword, NewUser};
use claviger_issuer::{Failure, Refusal};
use secrecy::SecretString;
use serde_json::{Map, json};

use super::installation::with;
use super::output::{Format, complain};
use super::{token, user};
use crate::config::Config;
use crate::v1::users::UserView;

/// Where, and what its scripts say besides.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The tenant's slug
    #[arg(long)]
    tenant: String,
    /// Taken and ignored: no command starts a server
    #[arg(long)]
    no_server: bool,
}

#[derive(Debug, Args)]
pub(super) struct AddUser {
    #[command(flatten)]
    place: Place,
    /// Login name, roles and password; the password may hold colons, and others on this machine may see it: `user add
    /// --password-stdin` hides it
    #[arg(value_name = "NAME:ROLE,ROLE:PASSWORD")]
    user: String,
    /// A project of somebody with the role `manager`; may be given again
    #[arg(long = "project", value_name = "PROJECT")]
    projects: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct OfUser {
    #[command(flatten)]
    place: Place,
    /// The login name
    #[arg(value_name = "NAME")]
    user: String,
}

/// What `NAME:ROLE,ROLE:PASSWORD` says.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    name: &'a str,
    roles: Vec<&'a str>,
    password: &'a str,
}

fn parts(text: &str) -> anyhow::Result<Parts<'_>> {
    let mut parts = text.splitn(3, ':');
    let (Some(name), Some(roles), Some(password)) = (parts.next(), parts.next(), parts.next()) else {
        bail!("a user is NAME:ROLE,ROLE:PASSWORD, and the password alone may hold colons");
    };
    let roles = roles.split(',').map(str::trim).filter(|role| !role.is_empty()).collect();
    Ok(Parts { name, roles, password })
}

pub(super) async fn add_user(order: AddUser, config: &Config, output: Format) -> anyhow::Result<()> {
    let AddUser { place: Place { tenant, no_server: _ }, user, projects } = order;
    let Parts { name, roles, password } = parts(&user)?;
    with(config, async |installation| {
        let tenant = installation.tenant(&tenant).await?;
        for role in &roles {
            check_role(&tenant, role)?;
        }
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        check_new(&roles, &projects, !password.is_empty())?;
        if !roles.iter().any(|role| role == API) {
            complain("note: without the role `api`, this user's tokens open nothing of the REST API.");
        }
        let attributes = (!projects.is_empty()).then(|| Map::from_iter([(PROJECTS.to_owned(), json!(projects))]));
        let password = (!password.is_empty()).then(|| NewPassword::Text(SecretString::from(password)));
        let new = NewUser {
            username: name.to_owned(),
            roles,
            attributes: attributes.unwrap_or_default(),
            password,
            ..NewUser::default()
        };
        let made = installation.issuer.create_user(&tenant, &Actor::operator(), new).await?;
        output.print(&UserView::from(made), user::text)
    })
    .await
}

pub(super) async fn jwt(order: OfUser, config: &Config, output: Format) -> anyhow::Result<()> {
    let OfUser { place: Place { tenant, no_server: _ }, user: name } = order;
    with(config, async |installation| {
        let tenant = installation.tenant(&tenant).await?;
        installation.issuer.make_room().await?;
        let person = user::find(&installation.issuer, tenant.tenant.id, &name).await?;
        if !person.roles.iter().any(|role| role == API) {
            complain("warning: this user has not the role `api`: the token opens nothing of the REST API.");
        }
        let (audience, lifetime) = (tenant.settings.usual_audience.as_deref(), tenant.lifetime_by_hand(None));
        token::print(&installation.issuer, &tenant, person.id, audience, None, lifetime, output).await
    })
    .await
}

pub(super) async fn del_user(order: OfUser, config: &Config, output: Format) -> anyhow::Result<()> {
    let OfUser { place: Place { tenant, no_server: _ }, user: name } = order;
    with(config, async |installation| {
        let tenant = installation.tenant(&tenant).await?.tenant.id;
        let issuer = &installation.issuer;
        let deleted = match issuer.find_user_by_name(tenant, &name).await {
            Ok(user) => {
                issuer.delete_user(tenant, &Actor::operator(), user.id).await.context("the user could not be deleted")?;
                true
            }
            // Their program does not call that an error either.
            Err(Failure::Refusal(Refusal::NotFound)) => false,
            Err(failure) => return Err(failure.into()),
        };
        output.print(&json!({ "username": name, "deleted": deleted }), |_| match deleted {
            true => format!("{name}  deleted"),
            false => format!("{name}  was not there"),
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_alone_holds_colons() {
        let expected = Parts { name: "bot", roles: vec!["api", "user"], password: "pa:ss" };
        assert_eq!(parts("bot:api,user:pa:ss").unwrap(), expected);
        assert_eq!(parts("bot::").unwrap(), Parts { name: "bot", roles: vec![], password: "" });
        for bad in ["", "bot", "bot:api"] {
            assert!(parts(bad).is_err(), "{bad}");
        }
    }
}
