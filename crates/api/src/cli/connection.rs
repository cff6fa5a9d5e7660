//! `claviger connection`.

use anyhow::{Context as _, anyhow, bail};
use clap::Subcommand;
use claviger_issuer::audit::Actor;
use claviger_issuer::connection::{ConnectionChange, NewConnection};
use serde_json::{Value, json};

use super::installation::{not_found, with};
use super::output::Format;
use super::user::secret_from_stdin;
use crate::config::Config;
use crate::problem::Answer;
use crate::v1::connections::{ConnectionChangeIn, ConnectionIn, ConnectionView};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a connection: to an OpenID Connect provider with --issuer and --client-id, or to anything with --settings
    Create {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// Its name for people, on the login page
        #[arg(long)]
        title: Option<String>,
        /// The provider's issuer identifier, exactly as it says it
        #[arg(
            long,
            value_name = "URL",
            requires = "client_id",
            conflicts_with = "settings",
            required_unless_present = "settings"
        )]
        issuer: Option<String>,
        /// Who we are there
        #[arg(long, value_name = "ID")]
        client_id: Option<String>,
        /// Give an account to whoever comes
        #[arg(long)]
        auto_create: bool,
        /// All about it as JSON, as POST /v1/connections takes it, without the name
        #[arg(long, value_name = "JSON")]
        settings: Option<String>,
        /// Read the client's secret, or the password of who searches, from standard input
        #[arg(long)]
        secret_stdin: bool,
        /// Its name in addresses: a-z, 0-9 and -; never changes
        name: String,
    },
    /// List connections
    List {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
    },
    /// Show a connection
    Show {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// Its name
        name: String,
    },
    /// Change a connection
    Set {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// What to change as JSON, as PATCH /v1/connections/{id} takes it: '{"enabled":false}'
        #[arg(long, value_name = "JSON", default_value = "{}")]
        settings: String,
        /// Read a new secret from standard input
        #[arg(long)]
        secret_stdin: bool,
        /// Its name
        name: String,
    },
    /// Remove a connection: its links go, and all logins that came through it end
    Delete {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// Its name
        name: String,
    },
    /// Ask the provider or directory, and say what is found, or why nothing is
    Test {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// Its name
        name: String,
    },
}

/// A refusal of what was asked, in the words of the API.
fn told(answer: &Answer) -> anyhow::Error {
    anyhow!("{}", answer.detail())
}

fn order(settings: &str, name: &str) -> anyhow::Result<NewConnection> {
    let mut all: Value = serde_json::from_str(settings).context("--settings is not JSON")?;
    let Some(fields) = all.as_object_mut() else { bail!("--settings is a JSON object") };
    fields.insert("name".into(), json!(name));
    let all: ConnectionIn = serde_json::from_value(all).context("--settings does not fit; see POST /v1/connections in /docs")?;
    all.read().map_err(|answer| told(&answer))
}

pub(super) async fn run(command: Command, config: &Config, output: Format) -> anyhow::Result<()> {
    with(config, async |installation| {
        let issuer = &installation.issuer;
        let actor = Actor::operator();
        let find = async |tenant, name: &str| {
            let missing = not_found(&format!("connection `{name}` in this tenant"));
            issuer.find_connection_by_name(tenant, name).await.map_err(missing)
        };
        let (tenant, connection) = match command {
            Command::Create { tenant, title, issuer: url, client_id, auto_create, settings, secret_stdin, name } => {
                let tenant = installation.tenant(&tenant).await?;
                let mut new = match (settings, url, client_id) {
                    (None, Some(url), Some(client_id)) => {
                        let plain = ConnectionIn::plain(name, title.clone(), url, client_id, auto_create);
                        plain.read().map_err(|answer| told(&answer))?
                    }
                    (settings, ..) => order(&settings.unwrap_or_default(), &name)?,
                };
                new.settings.auto_create |= auto_create;
                new.title = title.or(new.title);
                if secret_stdin {
                    new.secret = Some(secret_from_stdin("secret")?);
                }
                let made = issuer.create_connection(&tenant, &actor, new).await?;
                (tenant, made)
            }
            Command::List { tenant } => {
                let tenant = installation.tenant(&tenant).await?;
                let all = issuer.list_connections(tenant.tenant.id).await?;
                let all: Vec<_> = all.iter().map(|connection| ConnectionView::of(&tenant, connection)).collect();
                return output.print_list(&all, text);
            }
            Command::Show { tenant, name } => {
                let tenant = installation.tenant(&tenant).await?;
                let found = find(tenant.tenant.id, &name).await?;
                (tenant, found)
            }
            Command::Set { tenant, settings, secret_stdin, name } => {
                let tenant = installation.tenant(&tenant).await?;
                let before = find(tenant.tenant.id, &name).await?;
                let change: ConnectionChangeIn = serde_json::from_str(&settings)
                    .context("--settings does not fit; see PATCH /v1/connections/{id} in /docs")?;
                let change = change.read(before.settings.kind()).map_err(|answer| told(&answer))?;
                let secret = if secret_stdin { Some(Some(secret_from_stdin("secret")?)) } else { change.secret };
                let change = ConnectionChange { secret, ..change };
                let changed = issuer.change_connection(&tenant, &actor, before.row.id, change).await?;
                (tenant, changed)
            }
            Command::Delete { tenant, name } => {
                let tenant = installation.tenant(&tenant).await?.tenant.id;
                let found = find(tenant, &name).await?;
                issuer.delete_connection(tenant, &actor, found.row.id).await?;
                return output.print(&json!({ "deleted": name }), |_| format!("{name}  deleted"));
            }
            Command::Test { tenant, name } => {
                let tenant = installation.tenant(&tenant).await?.tenant.id;
                let found = find(tenant, &name).await?;
                let lines = issuer.try_connection(tenant, &found).await?;
                return output.print(&json!({ "found": lines }), |_| lines.join("\n"));
            }
        };
        output.print(&ConnectionView::of(&tenant, &connection), text)
    })
    .await
}

fn text(connection: &ConnectionView) -> String {
    let state = if connection.enabled { "enabled" } else { "disabled" };
    let first = format!("{}  {}  {state}", connection.name, connection.kind);
    let uris = [&connection.redirect_uri, &connection.howler_redirect_uri].into_iter().flatten();
    uris.fold(first, |text, uri| format!("{text}  redirect URI: {uri}"))
}
