//! A tenant that `claviger export` wrote.

use std::collections::BTreeMap;

use anyhow::bail;
use claviger_issuer::audit::Actor;
use claviger_issuer::moving::Moved;
use secrecy::SecretString;
use serde::Serialize;

use super::super::installation::Installation;
use super::super::output::Format;

/// What became of a tenant.
#[derive(Serialize)]
struct Report {
    tenant: String,
    dry_run: bool,
    /// How many of each kind there are since, or would be.
    made: BTreeMap<&'static str, u64>,
    /// True when the tenant was here already, just as the file says.
    unchanged: bool,
    /// Keys that need a new secret.
    keys_without_secret: Vec<String>,
    /// Connections that need theirs.
    connections_without_secret: Vec<String>,
    /// Signing keys that verify and sign no more.
    signing_keys_replaced: Vec<String>,
}

pub(super) async fn run(
    installation: &Installation,
    slug: &str,
    text: &str,
    passphrase: Option<&SecretString>,
    dry_run: bool,
    output: Format,
) -> anyhow::Result<()> {
    let moved = installation.issuer.import_tenant(&Actor::operator(), slug, text, passphrase, dry_run).await?;
    let Moved { made, unchanged, keys_without_secret, connections_without_secret, signing_keys_replaced } = moved;
    let lacking = keys_without_secret.len() + connections_without_secret.len();
    let report = Report {
        tenant: slug.to_owned(),
        dry_run,
        made,
        unchanged,
        keys_without_secret,
        connections_without_secret,
        signing_keys_replaced,
    };
    output.print(&report, self::text)?;
    match lacking {
        0 => Ok(()),
        count => bail!("{count} secrets stayed behind: rotate those keys, and give those connections their secrets"),
    }
}

fn text(report: &Report) -> String {
    let Report { tenant, dry_run, made, unchanged, keys_without_secret, connections_without_secret, signing_keys_replaced } =
        report;
    if *unchanged {
        return format!("{tenant}  unchanged: it is here already, as the file says");
    }
    let verb = if *dry_run { "would be made" } else { "made" };
    let counts: Vec<String> = made.iter().map(|(kind, count)| format!("{count} {}", kind.replace('_', " "))).collect();
    let named = |what: &str, names: &[String]| names.iter().map(|name| format!("\n{what}  {name}")).collect::<String>();
    [
        format!("{tenant}  {verb}: {}", counts.join(", ")),
        named("signs no more", signing_keys_replaced),
        named("key needs a new secret", keys_without_secret),
        named("connection needs its secret", connections_without_secret),
    ]
    .concat()
}
