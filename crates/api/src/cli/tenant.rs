//! `claviger tenant`.

use anyhow::Context as _;
use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use claviger_issuer::audit::Actor;
use claviger_issuer::preset::names;
use claviger_issuer::settings::TenantSettings;
use claviger_issuer::tenant::{NewTenant, TenantChange};

use super::installation::{not_found, with};
use super::key::made_text;
use super::output::Format;
use crate::config::Config;
use crate::v1::tenants::{AppliedOut, MadeTenantView, TenantView};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a tenant, with its signing key
    Create {
        /// Its name in URLs: a-z, 0-9 and -; never changes
        slug: String,
        /// Its name for people
        #[arg(long)]
        name: Option<String>,
        /// Seconds that tokens from its keys live [default: 86400]
        #[arg(long, value_name = "SECONDS")]
        token_lifetime: Option<i32>,
        /// Settings as JSON, as the API takes them: '{"refresh":{"window":10}}'
        #[arg(long, value_name = "JSON")]
        settings: Option<String>,
        /// Make its first key too, of an application `admin`, and print its secret, this once
        #[arg(long)]
        admin_key: bool,
        /// What it starts from: cheshire-cat, clustercockpit, cta or howler; what --settings say wins
        #[arg(long, value_name = "PRESET", value_parser = preset_names())]
        preset: Option<String>,
    },
    /// Apply a preset to a tenant: make what is not there, and say what differs because it was changed by hand
    ApplyPreset {
        /// The tenant's slug
        slug: String,
        /// cheshire-cat, clustercockpit, cta or howler
        #[arg(value_name = "PRESET", value_parser = preset_names())]
        preset: String,
    },
    /// Change a tenant's name or settings
    Set {
        /// Its slug
        slug: String,
        /// Its name for people
        #[arg(long)]
        name: Option<String>,
        /// All of its settings as JSON, as the API takes them
        #[arg(long, value_name = "JSON")]
        settings: Option<String>,
    },
    /// List tenants
    List,
    /// Show a tenant
    Show {
        /// Its slug
        slug: String,
    },
    /// Let a tenant act no more: its keys and tokens are refused
    Disable {
        /// Its slug
        slug: String,
    },
    /// Let a tenant act again
    Enable {
        /// Its slug
        slug: String,
    },
    /// End a tenant for good
    Delete {
        /// Its slug
        slug: String,
    },
}

pub(super) async fn run(command: Command, config: &Config, output: Format) -> anyhow::Result<()> {
    with(config, async |installation| {
        let issuer = &installation.issuer;
        let actor = Actor::operator();
        let disable = async |slug: &str, disabled| {
            let change = TenantChange { disabled: Some(disabled), ..TenantChange::default() };
            issuer.change_tenant(&actor, slug, change).await.map_err(not_found(&format!("tenant `{slug}`")))
        };
        let tenant = match command {
            Command::Create { slug, name, token_lifetime, settings, admin_key, preset } => {
                let mut settings = parse(settings.as_deref())?.unwrap_or_default();
                settings.token_lifetime = token_lifetime.or(settings.token_lifetime);
                let made = MadeTenantView::make(issuer, &actor, NewTenant { slug, name, settings, preset }, admin_key).await?;
                return output.print(&made, |made| match &made.admin_key {
                    Some(key) => format!("{}\n\n{}", text(&made.tenant), made_text(key)),
                    None => text(&made.tenant),
                });
            }
            Command::ApplyPreset { slug, preset } => {
                let applied = issuer.apply_preset(&actor, &slug, &preset).await;
                let applied = AppliedOut::from(applied.map_err(not_found(&format!("tenant `{slug}`")))?);
                return output.print(&applied, |applied| {
                    let changed = applied.changed.iter().map(|item| format!("set   {item}"));
                    let kept = applied.kept.iter().map(|item| format!("kept  {item}, which was changed by hand"));
                    match changed.chain(kept).collect::<Vec<_>>() {
                        lines if lines.is_empty() => format!("{slug} is as the preset {preset} has it"),
                        lines => lines.join("\n"),
                    }
                });
            }
            Command::Set { slug, name, settings } => {
                let change = TenantChange { name, settings: parse(settings.as_deref())?, disabled: None };
                issuer.change_tenant(&actor, &slug, change).await.map_err(not_found(&format!("tenant `{slug}`")))?
            }
            Command::List => {
                let mut all = Vec::new();
                loop {
                    let after = all.last().map(|tenant: &TenantView| tenant.slug.clone());
                    let page = issuer.list_tenants(after.as_deref(), 200).await?;
                    if page.is_empty() {
                        return output.print_list(&all, text);
                    }
                    all.extend(page.into_iter().map(TenantView::from));
                }
            }
            Command::Show { slug } => issuer.find_tenant(&slug).await.map_err(not_found(&format!("tenant `{slug}`")))?,
            Command::Disable { slug } => disable(&slug, true).await?,
            Command::Enable { slug } => disable(&slug, false).await?,
            Command::Delete { slug } => {
                issuer.delete_tenant(&actor, &slug).await.map_err(not_found(&format!("tenant `{slug}`")))?;
                return output.print(&serde_json::json!({ "deleted": slug }), |_| format!("{slug}  deleted"));
            }
        };
        output.print(&TenantView::whole(issuer, tenant).await?, |tenant| {
            std::iter::once(text(tenant)).chain(tenant.preset_lines()).collect::<Vec<_>>().join("\n")
        })
    })
    .await
}

fn preset_names() -> PossibleValuesParser {
    PossibleValuesParser::new(names())
}

fn parse(settings: Option<&str>) -> anyhow::Result<Option<TenantSettings>> {
    settings.map(serde_json::from_str).transpose().context("--settings does not fit; see PATCH /v1/tenants/{slug} in /docs")
}

fn text(tenant: &TenantView) -> String {
    format!("{}  {}", tenant.slug, tenant.status)
}
