//! `claviger audit`.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use claviger_issuer::audit::Anchor;
use serde_json::json;

use super::installation::with;
use super::output::Format;
use crate::config::Config;
use crate::hex::hex;
use crate::v1::audit::AuditView;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List entries, newest first
    List {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// Only this action, such as key.create
        #[arg(long)]
        action: Option<String>,
        /// How many, 1 to 200
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=200))]
        limit: u16,
    },
    /// Check the chain of one tenant, or of all; exit code 1 when it was tampered with
    Verify {
        /// The tenant's slug [default: all tenants]
        #[arg(long)]
        tenant: Option<String>,
        /// An end that an earlier check printed, kept elsewhere: the chain must contain it
        #[arg(long, value_name = "SEQ:HASH", requires = "tenant")]
        anchor: Option<String>,
    },
}

pub(super) async fn run(command: Command, config: &Config, output: Format) -> anyhow::Result<ExitCode> {
    with(config, async |installation| {
        let issuer = &installation.issuer;
        match command {
            Command::List { tenant, action, limit } => {
                let tenant = installation.tenant(&tenant).await?.tenant.id;
                let entries = issuer.list_audit(tenant, action.as_deref(), None, limit).await?;
                let entries: Vec<AuditView> = entries.into_iter().map(AuditView::from).collect();
                output.print_list(&entries, |entry| {
                    let AuditView { seq, at, action, outcome, actor, target, detail, .. } = entry;
                    format!("{seq}  {}  {action}  {outcome}  {actor}  {target}  {detail}", at.to_rfc3339())
                })?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Verify { tenant, anchor } => {
                let anchor = anchor.map(|text| parse_anchor(&text)).transpose()?;
                let tenants = match tenant {
                    Some(slug) => vec![installation.tenant(&slug).await?.tenant.clone()],
                    None => issuer.list_tenants(None, u16::MAX).await?,
                };
                let mut sound = true;
                let mut results = Vec::new();
                for tenant in tenants {
                    let result = issuer.verify_audit(tenant.id, anchor.clone()).await?;
                    sound &= result.is_ok();
                    results.push(match result {
                        Ok(end) => {
                            let anchor = format!("{}:{}", end.seq, hex(&end.hash));
                            json!({ "tenant": tenant.slug, "sound": true, "entries": end.seq, "anchor": anchor })
                        }
                        Err(broken) => json!({ "tenant": tenant.slug, "sound": false, "problem": broken.to_string() }),
                    });
                }
                output.print_list(&results, |result| {
                    let text = |name: &str| result.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
                    match result.get("entries") {
                        Some(entries) => format!("{}  sound  {entries} entries  anchor {}", text("tenant"), text("anchor")),
                        None => format!("{}  BROKEN  {}", text("tenant"), text("problem")),
                    }
                })?;
                Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
        }
    })
    .await
}

fn parse_anchor(text: &str) -> anyhow::Result<Anchor> {
    let (seq, hash) = text.split_once(':').context("an anchor is SEQ:HASH, as an earlier check printed it")?;
    if hash.len() != 64 || !hash.is_ascii() {
        bail!("the hash of an anchor is 64 hexadecimal digits");
    }
    let hash = (0..64)
        .step_by(2)
        .map(|at| u8::from_str_radix(hash.get(at..at + 2).unwrap_or_default(), 16))
        .collect::<Result<_, _>>()
        .context("the hash of an anchor is 64 hexadecimal digits")?;
    Ok(Anchor { seq: seq.parse().context("an anchor begins with the number of an entry")?, hash })
}
