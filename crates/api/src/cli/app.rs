//! `claviger app`.

use clap::Subcommand;
use claviger_issuer::Issuer;
use claviger_issuer::application::{ApplicationChange, NewApplication};
use claviger_issuer::audit::Actor;
use claviger_store::application::Application;
use claviger_store::id::TenantId;

use super::installation::{not_found, with};
use super::output::Format;
use crate::config::Config;
use crate::v1::applications::ApplicationView;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make an application
    Create {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// Its name, unique in the tenant
        #[arg(long)]
        name: String,
        /// Seconds that tokens of its keys live
        #[arg(long, value_name = "SECONDS")]
        token_lifetime: Option<i32>,
        /// What its keys may hold at most, as a scope or a pattern such as `memory:*`; may be given again. Without any, and
        /// without roles, there is no limit
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// A role whose scopes its keys may hold; may be given again
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
    },
    /// List applications
    List {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
    },
    /// Let an application act no more: its keys and their tokens are refused
    Disable(Which),
    /// Let an application act again
    Enable(Which),
    /// End an application for good
    Delete(Which),
}

/// An application.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// The tenant's slug
    #[arg(long)]
    tenant: String,
    /// Its name or id
    #[arg(value_name = "NAME")]
    app: String,
}

pub(super) async fn run(command: Command, config: &Config, output: Format) -> anyhow::Result<()> {
    with(config, async |installation| {
        let issuer = &installation.issuer;
        let actor = Actor::operator();
        let disable = async |which: Which, disabled| -> anyhow::Result<Application> {
            let tenant = installation.tenant(&which.tenant).await?.tenant.id;
            let application = find(issuer, tenant, &which.app).await?;
            let change = ApplicationChange { disabled: Some(disabled), ..ApplicationChange::default() };
            Ok(issuer.change_application(tenant, &actor, application.id, change).await?)
        };
        let application = match command {
            Command::Create { tenant, name, token_lifetime, scopes, roles } => {
                let tenant = installation.tenant(&tenant).await?.tenant.id;
                let scopes = Some(scopes).filter(|scopes| !scopes.is_empty());
                issuer.create_application(tenant, &actor, NewApplication { name, token_lifetime, scopes, roles }).await?
            }
            Command::List { tenant } => {
                let tenant = installation.tenant(&tenant).await?.tenant.id;
                let mut all = Vec::new();
                let mut after = None;
                loop {
                    let page = issuer.list_applications(tenant, after, 200).await?;
                    let Some(last) = page.last() else { return output.print_list(&all, text) };
                    after = Some(last.id);
                    all.extend(page.into_iter().map(ApplicationView::from));
                }
            }
            Command::Disable(which) => disable(which, true).await?,
            Command::Enable(which) => disable(which, false).await?,
            Command::Delete(which) => {
                let tenant = installation.tenant(&which.tenant).await?.tenant.id;
                let application = find(issuer, tenant, &which.app).await?;
                issuer.delete_application(tenant, &actor, application.id).await?;
                let deleted = serde_json::json!({ "deleted": application.id });
                return output.print(&deleted, |_| format!("{}  deleted", application.name));
            }
        };
        output.print(&ApplicationView::from(application), text)
    })
    .await
}

/// An application by name or id.
pub(super) async fn find(issuer: &Issuer, tenant: TenantId, name: &str) -> anyhow::Result<Application> {
    let missing = not_found(&format!("application `{name}` in this tenant"));
    match name.parse() {
        Ok(id) => issuer.find_application(tenant, id).await.map_err(missing),
        Err(_) => issuer.find_application_by_name(tenant, name).await.map_err(missing),
    }
}

fn text(application: &ApplicationView) -> String {
    format!("{}  {}  {}", application.id, application.name, application.status)
}
