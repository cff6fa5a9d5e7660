//! `claviger role` and `claviger scope`.

use clap::Subcommand;
use claviger_issuer::audit::Actor;
use claviger_issuer::role::RoleChange;

use super::installation::{not_found, with};
use super::output::Format;
use crate::config::Config;
use crate::v1::roles::RoleView;
use crate::v1::scopes::ScopeView;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a role
    Create {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        /// A scope, or a pattern such as `memory:*`; may be given again
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Its name
        name: String,
    },
    /// Replace a role's scopes; whoever has it holds them from now on
    Set {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// What it is for
        #[arg(long)]
        description: Option<String>,
        /// A scope, or a pattern such as `memory:*`; may be given again
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Its name
        name: String,
    },
    /// List roles
    List {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
    },
    /// Remove a role that nobody has
    Delete {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// Its name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ScopeCommand {
    /// Add a scope to the catalogue, or say anew what it is for
    Add {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// What it lets somebody do
        #[arg(long, default_value = "")]
        description: String,
        /// `resource:action`
        name: String,
    },
    /// List the catalogue
    List {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
    },
    /// Remove a scope that nobody names
    Delete {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// `resource:action`
        name: String,
    },
}

pub(super) async fn run(command: Command, config: &Config, output: Format) -> anyhow::Result<()> {
    with(config, async |installation| {
        let issuer = &installation.issuer;
        let actor = Actor::operator();
        let missing = |name: &str| not_found(&format!("role `{name}` in this tenant"));
        let role = match command {
            Command::Create { tenant, description, scopes, name } => {
                let tenant = installation.tenant(&tenant).await?;
                issuer.create_role(&tenant, &actor, &name, &description, scopes).await?
            }
            Command::Set { tenant, description, scopes, name } => {
                let tenant = installation.tenant(&tenant).await?;
                let change = RoleChange { description, scopes: Some(scopes) };
                issuer.change_role(&tenant, &actor, &name, change).await.map_err(missing(&name))?
            }
            Command::List { tenant } => {
                let tenant = installation.tenant(&tenant).await?;
                let roles: Vec<_> = issuer.roles(&tenant).await?.into_iter().map(RoleView::from).collect();
                return output.print_list(&roles, text);
            }
            Command::Delete { tenant, name } => {
                let tenant = installation.tenant(&tenant).await?;
                issuer.delete_role(&tenant, &actor, &name).await.map_err(missing(&name))?;
                return output.print(&serde_json::json!({ "deleted": name }), |_| format!("{name}  deleted"));
            }
        };
        output.print(&RoleView::from(role), text)
    })
    .await
}

pub(super) async fn run_scope(command: ScopeCommand, config: &Config, output: Format) -> anyhow::Result<()> {
    let text = |scope: &ScopeView| format!("{}  {}", scope.name, scope.description);
    with(config, async |installation| {
        let issuer = &installation.issuer;
        let actor = Actor::operator();
        match command {
            ScopeCommand::Add { tenant, description, name } => {
                let tenant = installation.tenant(&tenant).await?;
                let (scope, _) = issuer.put_scope(&tenant, &actor, &name, &description).await?;
                output.print(&ScopeView::from(scope), text)
            }
            ScopeCommand::List { tenant } => {
                let tenant = installation.tenant(&tenant).await?.tenant.id;
                let scopes: Vec<_> = issuer.scopes(tenant).await?.into_iter().map(ScopeView::from).collect();
                output.print_list(&scopes, text)
            }
            ScopeCommand::Delete { tenant, name } => {
                let tenant = installation.tenant(&tenant).await?;
                let missing = not_found(&format!("scope `{name}` in this tenant's catalogue"));
                issuer.delete_scope(&tenant, &actor, &name).await.map_err(missing)?;
                output.print(&serde_json::json!({ "deleted": name }), |_| format!("{name}  deleted"))
            }
        }
    })
    .await
}

fn text(role: &RoleView) -> String {
    format!("{}  [{}]", role.name, role.scopes.join(" "))
}
