//! `claviger audit`.

use std::io::{BufRead as _, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use clap::Subcommand;
use claviger_issuer::audit::{Actor, Anchor, ExportChecker};
use claviger_issuer::trail::TrailFilter;
use claviger_store::audit::{Entry, Order};
use claviger_store::id::TenantId;
use serde_json::json;

use super::installation::{not_found, with};
use super::output::Format;
use crate::config::Config;
use crate::hex::hex;
use crate::v1::audit::{AuditView, ExportedEntry, export_line};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List entries, newest first
    List {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        #[command(flatten)]
        which: WhichEntries,
        /// How many, 1 to 200
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=200))]
        limit: u16,
    },
    /// Write entries as JSON lines, oldest first
    Export {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        #[command(flatten)]
        which: WhichEntries,
        /// Into this file, which must not be there yet [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Explain why a request was refused
    Why {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// The X-Request-Id of its answer
        #[arg(value_name = "REQUEST_ID")]
        request_id: String,
    },
    /// Check the chain of one tenant, or of all; exit code 1 when it was tampered with
    Verify {
        /// The tenant's slug [default: all tenants]
        #[arg(long)]
        tenant: Option<String>,
        /// An end that an earlier check printed, kept elsewhere: the chain must contain it
        #[arg(long, value_name = "SEQ:HASH")]
        anchor: Option<String>,
        /// Check an export instead, without a database
        #[arg(long, value_name = "FILE", conflicts_with = "tenant")]
        file: Option<PathBuf>,
    },
}

/// Which entries.
#[derive(Debug, Default, clap::Args)]
pub(super) struct WhichEntries {
    /// Only this action, such as key.create, or those that begin so: 'key.*'
    #[arg(long)]
    action: Option<String>,
    /// Only what went well (ok) or was refused (refused)
    #[arg(long)]
    outcome: Option<String>,
    /// Only what this one did, such as user:ID
    #[arg(long)]
    actor: Option<String>,
    /// Only what was done in this one's name
    #[arg(long)]
    subject: Option<String>,
    /// Only what was done to this
    #[arg(long)]
    target: Option<String>,
    /// Only what this key did, and what was done to it
    #[arg(long)]
    key: Option<String>,
    /// Only what came with this request
    #[arg(long)]
    request_id: Option<String>,
    /// From then on, such as 2027-01-31T00:00:00Z
    #[arg(long)]
    since: Option<DateTime<Utc>>,
    /// Before then
    #[arg(long)]
    until: Option<DateTime<Utc>>,
    /// Exchanges and refreshes that went well too, where something narrower is asked for
    #[arg(long)]
    routine: bool,
}

impl From<WhichEntries> for TrailFilter {
    fn from(which: WhichEntries) -> Self {
        let WhichEntries { action, outcome, actor, subject, target, key, request_id, since, until, routine } = which;
        Self { action, outcome, actor, subject, target, key, request_id, since, until, routine: routine.then_some(true) }
    }
}

pub(super) async fn run(command: Command, config: &Config, output: Format) -> anyhow::Result<ExitCode> {
    if let Command::Verify { file: Some(file), anchor, .. } = &command {
        let anchor = anchor.as_deref().map(parse_anchor).transpose()?;
        return verify_file(file, anchor, output);
    }
    with(config, async |installation| {
        let issuer = &installation.issuer;
        match command {
            Command::List { tenant, which, limit } => {
                let tenant = installation.tenant(&tenant).await?.tenant.id;
                let entries = issuer.list_trail(tenant, &which.into(), Order::Newest(None), limit).await?;
                let names = issuer.names_in(tenant, &entries).await?;
                let entries: Vec<AuditView> = entries.into_iter().map(|entry| AuditView::named(entry, &names)).collect();
                output.print_list(&entries, |entry| {
                    let AuditView { seq, at, action, outcome, actor, target, detail, .. } = entry;
                    format!("{seq}  {}  {action}  {outcome}  {actor}  {target}  {detail}", at.to_rfc3339())
                })?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Export { tenant, which, out } => {
                let tenant = installation.tenant(&tenant).await?.tenant.id;
                let filter = TrailFilter::from(which);
                let end = issuer.begin_export(tenant, &Actor::operator(), &filter).await?;
                let mut into: Box<dyn Write> = match out {
                    None => Box::new(std::io::stdout().lock()),
                    Some(path) => {
                        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
                        Box::new(BufWriter::new(file.with_context(|| format!("cannot make {}", path.display()))?))
                    }
                };
                let mut after = 0;
                loop {
                    let entries = issuer.export_some(tenant, &filter, after, end).await?;
                    let Some(last) = entries.last() else { break };
                    after = last.seq;
                    for entry in &entries {
                        into.write_all(&export_line(tenant, entry)).context("the export cannot be written")?;
                    }
                }
                into.flush().context("the export cannot be written")?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Why { tenant, request_id } => {
                let tenant = installation.tenant(&tenant).await?.tenant.id;
                let missing = not_found(&format!("refused request `{request_id}` of this tenant"));
                let explained = issuer.explain(tenant, &request_id).await.map_err(missing)?;
                let rows: Vec<_> = explained
                    .iter()
                    .map(|one| {
                        json!({
                            "rule": one.rule, "missing": one.missing, "explanation": one.explanation,
                            "at": one.entry.at, "action": one.entry.action, "actor": one.entry.actor,
                        })
                    })
                    .collect();
                output.print_list(&rows, |row| {
                    let text = |name: &str| row.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
                    format!("{}  {}  {}  {}: {}", text("at"), text("action"), text("actor"), text("rule"), text("explanation"))
                })?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Verify { tenant, anchor, file: _ } => {
                if anchor.is_some() && tenant.is_none() {
                    bail!("an anchor is one tenant's: name it with --tenant");
                }
                let anchor = anchor.as_deref().map(parse_anchor).transpose()?;
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

/// Whether an export is one unbroken part of a chain, and holds the anchor.
fn verify_file(file: &std::path::Path, anchor: Option<Anchor>, output: Format) -> anyhow::Result<ExitCode> {
    let reader = BufReader::new(std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?);
    let mut checker: Option<ExportChecker> = None;
    for (number, line) in reader.lines().enumerate() {
        let line = line.with_context(|| format!("cannot read {}", file.display()))?;
        let number = number + 1;
        let exported: ExportedEntry =
            serde_json::from_str(&line).with_context(|| format!("line {number} is not one of an export"))?;
        let (tenant, entry) = read_export(exported).with_context(|| format!("line {number} is not one of an export"))?;
        let checker = checker.get_or_insert_with(|| ExportChecker::new(tenant, anchor.clone()));
        if let Err(broken) = checker.step(tenant, &entry) {
            output.print(&json!({ "sound": false, "line": number, "problem": broken.to_string() }), |_| {
                format!("BROKEN  line {number}: {broken}")
            })?;
            return Ok(ExitCode::FAILURE);
        }
    }
    let Some(checker) = checker else { bail!("{} holds no entry", file.display()) };
    match checker.end() {
        Ok(end) => {
            let anchor = format!("{}:{}", end.seq, hex(&end.hash));
            output.print(&json!({ "sound": true, "anchor": anchor }), |_| format!("sound  anchor {anchor}"))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(broken) => {
            output.print(&json!({ "sound": false, "problem": broken.to_string() }), |_| format!("BROKEN  {broken}"))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn read_export(exported: ExportedEntry) -> anyhow::Result<(TenantId, Entry)> {
    let ExportedEntry {
        tenant_id,
        seq,
        at,
        action,
        outcome,
        actor,
        subject,
        target,
        request_id,
        detail,
        personal,
        personal_salt,
        personal_digest,
        hash,
    } = exported;
    let entry = Entry {
        seq,
        at,
        action,
        outcome,
        actor,
        subject,
        target,
        request_id,
        detail: detail.get().to_owned(),
        personal,
        personal_salt: unhex(&personal_salt)?,
        personal_digest: unhex(&personal_digest)?,
        hash: unhex(&hash)?,
    };
    Ok((TenantId(tenant_id), entry))
}

fn unhex(text: &str) -> anyhow::Result<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        bail!("`{text}` is not hexadecimal");
    }
    let digits = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2).unwrap_or_default(), 16));
    digits.collect::<Result<_, _>>().with_context(|| format!("`{text}` is not hexadecimal"))
}

fn parse_anchor(text: &str) -> anyhow::Result<Anchor> {
    let (seq, hash) = text.split_once(':').context("an anchor is SEQ:HASH, as an earlier check printed it")?;
    let hash = unhex(hash).ok().filter(|hash| hash.len() == 32).context("the hash of an anchor is 64 hexadecimal digits")?;
    Ok(Anchor { seq: seq.parse().context("an anchor begins with the number of an entry")?, hash })
}
