//! `claviger user import`: people of another system, with their ids and what it kept of their passwords.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use claviger_issuer::attribute::Attributes;
use claviger_issuer::audit::Actor;
use claviger_issuer::user::{NewPassword, NewUser};
use claviger_issuer::{Failure, Issuer, TenantEntry};
use claviger_store::id::UserId;
use serde::{Deserialize, Serialize};

use super::installation::Installation;
use super::output::Format;

/// Largest file, in bytes.
const LARGEST: u64 = 256 * 1024 * 1024;

/// What to import.
#[derive(Debug, clap::Args)]
pub(super) struct Order {
    /// The tenant's slug
    #[arg(long)]
    tenant: String,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// One JSON object a line: username, and as far as there are any: id, email, roles, attributes, password_hash, disabled.
    /// `-` reads standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// A person of another system.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    username: String,
    id: Option<UserId>,
    email: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    attributes: Attributes,
    password_hash: Option<String>,
    #[serde(default)]
    disabled: bool,
}

/// What became of the lines.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Users that were made, or would be.
    imported: usize,
    /// Users that were there already, with the same id.
    present: usize,
    /// Why others were left out, by line number.
    skipped: BTreeMap<usize, String>,
}

/// What became of one line.
enum Fate {
    Imported,
    Present,
    Skipped(String),
}

pub(super) async fn run(order: Order, installation: &Installation, output: Format) -> anyhow::Result<()> {
    let Order { tenant, dry_run, file } = order;
    let tenant = installation.tenant(&tenant).await?;
    let text = read(&file)?;
    let mut report = Report::default();
    let mut seen = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let fate = match serde_json::from_str::<Line>(line) {
            Ok(line) => {
                let name = line.username.to_lowercase();
                // Twins within the file, which a dry run would not find in the database.
                match seen.get(&name) {
                    Some(before) => Fate::Skipped(format!("has the username of line {before}")),
                    None => {
                        let fate = import(&installation.issuer, &tenant, line, dry_run).await?;
                        if !matches!(fate, Fate::Skipped(_)) {
                            seen.insert(name, number);
                        }
                        fate
                    }
                }
            }
            // The parser's own words may quote a hash.
            Err(error) => Fate::Skipped(format!("is not a person (column {})", error.column())),
        };
        match fate {
            Fate::Imported => report.imported += 1,
            Fate::Present => report.present += 1,
            Fate::Skipped(why) => {
                report.skipped.insert(number, why);
            }
        }
    }
    output.print(&report, |report| {
        let verb = if dry_run { "would be imported" } else { "imported" };
        let counts = format!("{} {verb}, {} there already, {} skipped", report.imported, report.present, report.skipped.len());
        let skipped = report.skipped.iter().map(|(line, why)| format!("\nline {line}: {why}"));
        std::iter::once(counts).chain(skipped).collect()
    })?;
    match report.skipped.len() {
        0 => Ok(()),
        count => bail!("{count} lines were skipped; mend them and import again: what is there already is left as it is"),
    }
}

async fn import(issuer: &Issuer, tenant: &TenantEntry, line: Line, dry_run: bool) -> anyhow::Result<Fate> {
    let Line { username, id, email, roles, attributes, password_hash, disabled } = line;
    let there = match issuer.find_user_by_name(tenant.tenant.id, &username).await {
        Ok(user) => Some(user.id),
        Err(Failure::Refusal(_)) => None,
        Err(failure) => return Err(failure.into()),
    };
    match (there, id) {
        (Some(there), Some(id)) if there == id => return Ok(Fate::Present),
        (Some(_), None) => return Ok(Fate::Present),
        (Some(_), Some(_)) => return Ok(Fate::Skipped("the username belongs to a user of another id".into())),
        (None, _) => {}
    }
    let password = password_hash.map(NewPassword::Hash);
    let new = NewUser { username, email, roles, attributes, password, id, disabled, ..NewUser::default() };
    let made = match dry_run {
        true => issuer.check_user(tenant, &new).await,
        false => issuer.create_user(tenant, &Actor::operator(), new).await.map(|_| ()),
    };
    match made {
        Ok(()) => Ok(Fate::Imported),
        Err(Failure::Refusal(refusal)) => Ok(Fate::Skipped(refusal.to_string())),
        Err(failure) => Err(failure.into()),
    }
}

fn read(file: &PathBuf) -> anyhow::Result<String> {
    let mut text = String::new();
    let length = match file.as_os_str() == "-" {
        true => std::io::stdin().take(LARGEST + 1).read_to_string(&mut text).context("cannot read standard input")?,
        false => {
            let opened = std::fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
            opened.take(LARGEST + 1).read_to_string(&mut text).with_context(|| format!("cannot read {}", file.display()))?
        }
    };
    if u64::try_from(length).unwrap_or(u64::MAX) > LARGEST {
        bail!("the file is larger than 256 MiB: split it");
    }
    Ok(text)
}
