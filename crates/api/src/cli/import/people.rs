//! `claviger user import`: people of another system, with their ids and what it kept of their passwords.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::bail;
use claviger_issuer::attribute::Attributes;
use claviger_issuer::audit::Actor;
use claviger_issuer::newcomer::{Newcomer, Settled};
use claviger_issuer::user::{NewPassword, NewUser};
use claviger_store::id::UserId;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::super::installation::Installation;
use super::super::output::Format;
use super::{LONGEST_RECORD, MOST_PEOPLE, Seen, read, settle};

/// What to import.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Order {
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

pub(in crate::cli) async fn run(order: Order, installation: &Installation, output: Format) -> anyhow::Result<()> {
    let Order { tenant, dry_run, file } = order;
    let tenant = installation.tenant(&tenant).await?;
    let text = read(&file, MOST_PEOPLE)?;
    let mut report = Report::default();
    let mut seen = Seen::default();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let outcome = match newcomer(line) {
            Ok(newcomer) => {
                settle(&installation.issuer, &tenant, newcomer, dry_run, &mut seen, &format!("line {number}")).await?
            }
            Err(why) => Err(why),
        };
        match outcome {
            Ok(Settled { made: true, .. }) => report.imported += 1,
            Ok(Settled { made: false, .. }) => report.present += 1,
            Err(why) => {
                report.skipped.insert(number, why);
            }
        }
    }
    if !dry_run && report.imported > 0 {
        let Report { imported, present, skipped } = &report;
        let detail = json!({ "made": imported, "unchanged": present, "skipped": skipped.len() });
        installation.issuer.note_arrivals(tenant.tenant.id, &Actor::operator(), detail).await?;
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

fn newcomer(line: &str) -> Result<Newcomer, String> {
    if line.len() > LONGEST_RECORD {
        return Err("is longer than 1 MiB".into());
    }
    // The parser's own words may quote a hash.
    let line = serde_json::from_str::<Line>(line).map_err(|error| format!("is not a person (column {})", error.column()))?;
    let Line { username, id, email, roles, attributes, password_hash, disabled } = line;
    let password = password_hash.map(NewPassword::Hash);
    let person = NewUser { username, email, roles, attributes, password, id, disabled, ..NewUser::default() };
    Ok(Newcomer { person, keys: Vec::new() })
}
