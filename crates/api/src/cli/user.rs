//! `claviger user`.

use std::io::Read as _;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use claviger_issuer::audit::Actor;
use claviger_issuer::user::{NewPassword, NewUser, UserChange};
use claviger_issuer::{Issuer, TenantEntry};
use claviger_store::id::TenantId;
use claviger_store::user::User;
use secrecy::SecretString;
use serde_json::Value;
use zeroize::Zeroizing;

use super::import::people;
use super::installation::{not_found, with};
use super::output::Format;
use crate::config::Config;
use crate::v1::users::UserView;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a user
    Add {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// The login name; never changes
        #[arg(long)]
        username: String,
        /// The e-mail address
        #[arg(long)]
        email: Option<String>,
        /// A role; may be given again
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// A scope held beside those of the roles; may be given again
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// An attribute, as NAME=VALUE: JSON, or else text; may be given again
        #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
        attributes: Vec<(String, Value)>,
        /// Read the password from standard input; without it, the person cannot log in with one
        #[arg(long)]
        password_stdin: bool,
    },
    /// Give somebody a password, read from standard input; all that person's logins end
    SetPassword {
        #[command(flatten)]
        which: Which,
        /// Said so that no password ever stands on a command line
        #[arg(long, required = true)]
        password_stdin: bool,
    },
    /// Replace somebody's roles
    SetRoles {
        #[command(flatten)]
        which: Which,
        /// A role; may be given again. Without any, the person has none
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
    },
    /// Replace the scopes that somebody holds beside those of the roles
    SetScopes {
        #[command(flatten)]
        which: Which,
        /// A scope; may be given again. Without any, the person holds those of the roles alone
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
    },
    /// Set attributes of somebody, and leave the others
    SetAttributes {
        #[command(flatten)]
        which: Which,
        /// NAME=VALUE: JSON, or else text; `null` removes the attribute
        #[arg(value_name = "NAME=VALUE", value_parser = attribute, required = true)]
        attributes: Vec<(String, Value)>,
    },
    /// Take over people from another system, with their ids and hashed passwords
    Import(people::Order),
    /// List users
    List {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
    },
    /// Let a person act no more: the keys and tokens are refused, all logins end
    Disable(Which),
    /// Let a person act again
    Enable(Which),
    /// End all of a person's logins
    LogOut(Which),
    /// End a user for good
    Delete(Which),
}

/// A user.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The tenant's slug
    #[arg(long)]
    tenant: String,
    /// The login name or id
    #[arg(value_name = "USERNAME")]
    user: String,
}

pub(super) async fn run(command: Command, config: &Config, output: Format) -> anyhow::Result<()> {
    with(config, async |installation| {
        let issuer = &installation.issuer;
        let actor = Actor::operator();
        let change = async |which: Which, change: UserChange| -> anyhow::Result<User> {
            let tenant = installation.tenant(&which.tenant).await?.tenant.id;
            let user = find(issuer, tenant, &which.user).await?;
            Ok(issuer.change_user(tenant, &actor, user.id, change).await?)
        };
        let disabled = |disabled| UserChange { disabled: Some(disabled), ..UserChange::default() };
        let user = match command {
            Command::Add { tenant, username, email, roles, scopes, attributes, password_stdin } => {
                let tenant = installation.tenant(&tenant).await?;
                let password = if password_stdin { Some(NewPassword::Text(password()?)) } else { None };
                let attributes = attributes.into_iter().collect();
                let new = NewUser { username, email, roles, scopes, attributes, password, ..NewUser::default() };
                issuer.create_user(&tenant, &actor, new).await?
            }
            Command::SetPassword { which, password_stdin: _ } => {
                let (tenant, user) = both(installation, &which).await?;
                issuer.set_password(&tenant, &actor, user.id, password()?).await?;
                user
            }
            Command::SetRoles { which, roles } => {
                change(which, UserChange { roles: Some(roles), ..UserChange::default() }).await?
            }
            Command::SetScopes { which, scopes } => {
                change(which, UserChange { scopes: Some(scopes), ..UserChange::default() }).await?
            }
            Command::SetAttributes { which, attributes } => {
                let attributes = Some(attributes.into_iter().collect());
                change(which, UserChange { attributes, ..UserChange::default() }).await?
            }
            Command::Import(order) => return people::run(order, installation, output).await,
            Command::List { tenant } => {
                let tenant = installation.tenant(&tenant).await?.tenant.id;
                let mut all = Vec::new();
                let mut after = None;
                loop {
                    let page = issuer.list_users(tenant, after, 200).await?;
                    let Some(last) = page.last() else { return output.print_list(&all, text) };
                    after = Some(last.id);
                    all.extend(page.into_iter().map(UserView::from));
                }
            }
            Command::Disable(which) => change(which, disabled(true)).await?,
            Command::Enable(which) => change(which, disabled(false)).await?,
            Command::LogOut(which) => {
                let (tenant, user) = both(installation, &which).await?;
                issuer.end_all_logins(tenant.tenant.id, &actor, user.id).await?;
                user
            }
            Command::Delete(which) => {
                let (tenant, user) = both(installation, &which).await?;
                issuer.delete_user(tenant.tenant.id, &actor, user.id).await?;
                return output.print(&serde_json::json!({ "deleted": user.id }), |_| format!("{}  deleted", user.username));
            }
        };
        output.print(&UserView::from(user), text)
    })
    .await
}

async fn both(
    installation: &super::installation::Installation,
    which: &Which,
) -> anyhow::Result<(std::sync::Arc<TenantEntry>, User)> {
    let tenant = installation.tenant(&which.tenant).await?;
    let user = find(&installation.issuer, tenant.tenant.id, &which.user).await?;
    Ok((tenant, user))
}

/// `NAME=VALUE`: what is not JSON is text.
fn attribute(text: &str) -> Result<(String, Value), &'static str> {
    let (name, value) = text.split_once('=').ok_or("is NAME=VALUE")?;
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::from(value))))
}

/// A password, from standard input.
fn password() -> anyhow::Result<SecretString> {
    secret_from_stdin("password")
}

/// A line of standard input that never stood on a command line.
pub(super) fn secret_from_stdin(what: &str) -> anyhow::Result<SecretString> {
    let mut text = Zeroizing::new(String::new());
    std::io::stdin()
        .take(4096)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read the {what} from standard input"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        bail!("there is no {what} on standard input: printf '%s' \"${}\" | claviger …", what.to_uppercase());
    }
    Ok(SecretString::from(line.to_owned()))
}

/// A user by login name or id.
pub(super) async fn find(issuer: &Issuer, tenant: TenantId, name: &str) -> anyhow::Result<User> {
    let missing = not_found(&format!("user `{name}` in this tenant"));
    match name.parse() {
        Ok(id) => issuer.find_user(tenant, id).await.map_err(missing),
        Err(_) => issuer.find_user_by_name(tenant, name).await.map_err(missing),
    }
}

pub(super) fn text(user: &UserView) -> String {
    format!("{}  {}  {}", user.id, user.username, user.status)
}
