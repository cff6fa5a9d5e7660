//! `claviger user`.

use clap::Subcommand;
use claviger_issuer::Issuer;
use claviger_issuer::audit::Actor;
use claviger_issuer::user::{NewUser, UserChange};
use claviger_store::id::TenantId;
use claviger_store::user::User;

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
    },
    /// List users
    List {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
    },
    /// Let a person act no more: the keys and tokens are refused
    Disable(Which),
    /// Let a person act again
    Enable(Which),
    /// End a user for good
    Delete(Which),
}

/// A user.
#[derive(Debug, clap::Args)]
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
        let disable = async |which: Which, disabled| -> anyhow::Result<User> {
            let tenant = installation.tenant(&which.tenant).await?.tenant.id;
            let user = find(issuer, tenant, &which.user).await?;
            Ok(issuer.change_user(tenant, &actor, user.id, UserChange { disabled: Some(disabled), email: None }).await?)
        };
        let user = match command {
            Command::Add { tenant, username, email } => {
                let tenant = installation.tenant(&tenant).await?.tenant.id;
                issuer.create_user(tenant, &actor, NewUser { username, email }).await?
            }
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
            Command::Disable(which) => disable(which, true).await?,
            Command::Enable(which) => disable(which, false).await?,
            Command::Delete(which) => {
                let tenant = installation.tenant(&which.tenant).await?.tenant.id;
                let user = find(issuer, tenant, &which.user).await?;
                issuer.delete_user(tenant, &actor, user.id).await?;
                return output.print(&serde_json::json!({ "deleted": user.id }), |_| format!("{}  deleted", user.username));
            }
        };
        output.print(&UserView::from(user), text)
    })
    .await
}

/// A user by login name or id.
pub(super) async fn find(issuer: &Issuer, tenant: TenantId, name: &str) -> anyhow::Result<User> {
    let missing = not_found(&format!("user `{name}` in this tenant"));
    match name.parse() {
        Ok(id) => issuer.find_user(tenant, id).await.map_err(missing),
        Err(_) => issuer.find_user_by_name(tenant, name).await.map_err(missing),
    }
}

fn text(user: &UserView) -> String {
    format!("{}  {}  {}", user.id, user.username, user.status)
}
