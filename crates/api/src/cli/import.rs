//! `claviger import`: people and keys of another system, as it really holds them; or a whole tenant, as `claviger export`
//! wrote it. Each form is read into newcomers by a file of its own below; what is done with them is the same for all.

mod cat;
mod clustercockpit;
mod cta;
mod howler;
pub(super) mod people;
mod tenant;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use claviger_issuer::audit::Actor;
use claviger_issuer::newcomer::{Newcomer, Settled};
use claviger_issuer::{Failure, Issuer, TenantEntry};
use serde::de::{Deserialize, DeserializeOwned, MapAccess, Visitor};
use serde::{Deserializer, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::export::Passphrase;
use super::installation::with;
use super::output::Format as Output;
use crate::config::Config;

/// Largest file of people, in MiB.
pub(super) const MOST_PEOPLE: u64 = 256;
/// Largest file of a tenant, in MiB.
const LARGEST_TENANT: u64 = 1024;
/// Longest record, in bytes.
const LONGEST_RECORD: usize = 1024 * 1024;

/// Longest text of a file that is told, in characters.
const LONGEST_SHOWN: usize = 600;

/// What to import.
#[derive(Debug, clap::Args)]
pub(super) struct Order {
    /// The tenant's slug; with `claviger`, that of the tenant to be made
    #[arg(long)]
    tenant: String,
    /// Which system's form the file has
    #[arg(long, value_enum)]
    format: Format,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    passphrase: Passphrase,
    /// The file; `-` reads standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Forms of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Cheshire Cat's users, by id
    Cat,
    /// Rows of ClusterCockpit's table `user`
    Clustercockpit,
    /// Howler's user documents
    Howler,
    /// Rows of the CTA Aggregator's table `users`
    Cta,
    /// What `claviger export` wrote
    Claviger,
}

/// A record as a form's file reads it: whom it is about, somebody or why not, and what else there is to say.
struct Parsed {
    name: String,
    newcomer: Result<Newcomer, String>,
    notes: Vec<String>,
}

impl Parsed {
    /// A record that cannot be read. The parser's own words may quote a hash.
    fn unreadable(place: &str, what: &str, error: &serde_json::Error) -> Self {
        let field = match error.classify() {
            serde_json::error::Category::Data => "",
            _ => ", nor JSON",
        };
        let why = format!("is not {what}{field} (line {}, column {} of it)", error.line(), error.column());
        Self { name: place.to_owned(), newcomer: Err(why), notes: Vec::new() }
    }
}

/// What is said of one of the records.
#[derive(Debug, Serialize)]
struct Told {
    name: String,
    why: String,
}

/// What became of the records.
#[derive(Debug, Default, Serialize)]
struct Report {
    dry_run: bool,
    /// People, and keys as `person/key`, that are new here.
    made: Vec<String>,
    /// Those that were here already.
    unchanged: Vec<String>,
    /// What was left out, and why.
    skipped: Vec<Told>,
    /// What is as it should be and yet worth knowing.
    notes: Vec<Told>,
    /// Who of the file has a hand in the management of the tenant.
    admins: Vec<String>,
}

pub(super) async fn run(order: Order, config: &Config, output: Output) -> anyhow::Result<()> {
    let Order { tenant, format, dry_run, passphrase, file } = order;
    let Some(reader) = format.reader() else {
        let text = read(&file, LARGEST_TENANT)?;
        let passphrase = passphrase.for_import(&text)?;
        return with(config, async |installation| {
            tenant::run(installation, &tenant, &text, passphrase.as_ref(), dry_run, output).await
        })
        .await;
    };
    let text = read(&file, MOST_PEOPLE)?;
    let records = records(&text, format == Format::Cat)?;
    with(config, async |installation| {
        let tenant = installation.tenant(&tenant).await?;
        let report = carry_out(&installation.issuer, &tenant, reader, &records, dry_run).await?;
        if !dry_run && !report.made.is_empty() {
            let Report { made, unchanged, skipped, .. } = &report;
            let detail = json!({
                "format": format.to_string(), "made": made.len(), "unchanged": unchanged.len(), "skipped": skipped.len(),
            });
            installation.issuer.note_arrivals(tenant.tenant.id, &Actor::operator(), detail).await?;
        }
        output.print(&report, self::text)?;
        match report.skipped.len() {
            0 => Ok(()),
            count => bail!("left out: {count}; mend that and import again: what is there already is left as it is"),
        }
    })
    .await
}

async fn carry_out(
    issuer: &Issuer,
    tenant: &TenantEntry,
    reader: Reader,
    records: &[Record<'_>],
    dry_run: bool,
) -> anyhow::Result<Report> {
    let now = issuer.clock().now();
    let mut report = Report { dry_run, ..Report::default() };
    let mut seen = Seen::default();
    for (number, record) in (1..).zip(records) {
        let place = format!("record {number}");
        let Parsed { name, newcomer, notes } = match record.text.len() > LONGEST_RECORD {
            true => Parsed { name: place.clone(), newcomer: Err("is longer than 1 MiB".into()), notes: Vec::new() },
            false => reader(&place, record, now),
        };
        let name = shown(&name);
        let told = |why: String| Told { name: name.clone(), why: shown(&why) };
        report.notes.extend(notes.into_iter().map(told));
        let mut newcomer = match newcomer {
            Ok(newcomer) => newcomer,
            Err(why) => {
                report.skipped.push(told(why));
                continue;
            }
        };
        let unknown = newcomer.keep_known(tenant);
        let manages = newcomer.manages(tenant);
        match settle(issuer, tenant, newcomer, dry_run, &mut seen, &place).await? {
            Ok(Settled { made, keys_made, keys_there }) => {
                let list = if made { &mut report.made } else { &mut report.unchanged };
                list.push(name.clone());
                report.made.extend(keys_made.iter().map(|key| format!("{name}/{}", shown(key))));
                report.unchanged.extend(keys_there.iter().map(|key| format!("{name}/{}", shown(key))));
                report.skipped.extend(unknown.into_iter().map(|unknown| {
                    told(format!("without `{unknown}`, which this tenant does not know: make it, or apply the system's preset"))
                }));
                if manages {
                    report.admins.push(name);
                }
            }
            Err(why) => report.skipped.push(told(why)),
        }
    }
    Ok(report)
}

/// Reads a record of a form, under the place that it has in the file.
type Reader = fn(&str, &Record<'_>, DateTime<Utc>) -> Parsed;

impl Format {
    /// Reads people; `None` for the form of a whole tenant.
    fn reader(self) -> Option<Reader> {
        Some(match self {
            Self::Cat => |place, record, _| cat::parse(place, record),
            Self::Clustercockpit => |place, record, _| clustercockpit::parse(place, record),
            Self::Howler => howler::parse,
            Self::Cta => |place, record, _| cta::parse(place, record),
            Self::Claviger => return None,
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cat => "cat",
            Self::Clustercockpit => "clustercockpit",
            Self::Howler => "howler",
            Self::Cta => "cta",
            Self::Claviger => "claviger",
        })
    }
}

fn text(report: &Report) -> String {
    let Report { dry_run, made, unchanged, skipped, notes, admins } = report;
    let verb = if *dry_run { "would be made" } else { "made" };
    let counts = format!("{} {verb}, {} unchanged, {} skipped", made.len(), unchanged.len(), skipped.len());
    let named = |what: &'static str, names: &[String]| names.iter().map(|name| format!("\n{what}  {name}")).collect::<String>();
    let told = |what: &'static str, all: &[Told]| {
        all.iter().map(|Told { name, why }| format!("\n{what}  {name}: {why}")).collect::<String>()
    };
    [
        counts,
        named("made", made),
        named("unchanged", unchanged),
        told("note", notes),
        named("manages the tenant", admins),
        told("skipped", skipped),
    ]
    .concat()
}

/// Who and what was in the file before, and where: twins within it.
#[derive(Default)]
pub(super) struct Seen(BTreeMap<(&'static str, String), String>);

impl Seen {
    /// What nobody has besides, but for the name.
    fn own(newcomer: &Newcomer) -> Vec<(&'static str, String)> {
        let person = &newcomer.person;
        let id = person.id.map(|id| ("id", id.to_string()));
        let email = person.email.as_ref().map(|email| ("e-mail address", email.trim().to_lowercase()));
        let keys = newcomer.keys.iter().filter_map(|key| Some(("key", key.id.clone()?)));
        id.into_iter().chain(email).chain(keys).collect()
    }

    fn check(&self, own: &[(&'static str, String)]) -> Result<(), String> {
        match own.iter().find_map(|one| self.0.get(one).map(|before| (one.0, before))) {
            Some((what, before)) => Err(format!("has the {what} of {before}")),
            None => Ok(()),
        }
    }
}

/// Takes somebody in, or says why not.
pub(super) async fn settle(
    issuer: &Issuer,
    tenant: &TenantEntry,
    newcomer: Newcomer,
    dry_run: bool,
    seen: &mut Seen,
    place: &str,
) -> anyhow::Result<Result<Settled, String>> {
    let name = ("username", newcomer.person.username.to_lowercase());
    // Whoever is there already is taken for the same person: within one file, that is a mistake.
    if let Err(why) = seen.check(std::slice::from_ref(&name)) {
        return Ok(Err(why));
    }
    let own = Seen::own(&newcomer);
    let settled = match issuer.take_in(tenant, &Actor::operator(), newcomer, dry_run).await {
        Ok(settled) => settled,
        Err(Failure::Refusal(refusal)) => return Ok(Err(refusal.to_string())),
        Err(failure) => return Err(failure.into()),
    };
    // What the database has not seen in a dry run.
    if dry_run && let Err(why) = seen.check(&own) {
        return Ok(Err(why));
    }
    seen.0.extend(std::iter::once(name).chain(own).map(|one| (one, place.to_owned())));
    Ok(Ok(settled))
}

/// A record before it is read: under its name, if the file is a map.
struct Record<'a> {
    key: Option<String>,
    text: &'a str,
}

impl Record<'_> {
    fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.text)
    }
}

/// The records of a file: an array of objects, one object a line, or, as `map`, an object with the records as its members.
fn records(text: &str, map: bool) -> anyhow::Result<Vec<Record<'_>>> {
    let unreadable = |error: serde_json::Error| {
        anyhow::anyhow!("the file is not JSON in this form (line {}, column {}); nothing was done", error.line(), error.column())
    };
    if map {
        let members: Members<'_> = serde_json::from_str(text).map_err(unreadable)?;
        return Ok(members.0.into_iter().map(|(key, value)| Record { key: Some(key), text: value.get() }).collect());
    }
    if text.trim_start().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(text).map_err(unreadable)?;
        return Ok(items.into_iter().map(|item| Record { key: None, text: item.get() }).collect());
    }
    // One object over many lines is one record.
    if let Ok(item) = serde_json::from_str::<&RawValue>(text) {
        return Ok(vec![Record { key: None, text: item.get() }]);
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(|line| Record { key: None, text: line }).collect())
}

/// All members of an object, in order, twins too.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a user for each id")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// What a file says, as it is told: nothing moves the cursor, and nothing goes on for ever.
fn shown(text: &str) -> String {
    text.chars().take(LONGEST_SHOWN).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A text that is not empty.
fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty())
}

/// The whole file, or standard input, if it is no larger than so many MiB.
pub(super) fn read(file: &Path, most: u64) -> anyhow::Result<String> {
    let largest = most * 1024 * 1024;
    let mut text = String::new();
    let length = match file.as_os_str() == "-" {
        true => std::io::stdin().take(largest + 1).read_to_string(&mut text).context("cannot read standard input")?,
        false => {
            let opened = std::fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
            opened.take(largest + 1).read_to_string(&mut text).with_context(|| format!("cannot read {}", file.display()))?
        }
    };
    if u64::try_from(length).unwrap_or(u64::MAX) > largest {
        bail!("the file is larger than {most} MiB: split it");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_from_an_array_from_lines_or_from_a_map() {
        let texts = |text: &str, map| -> Vec<(Option<String>, String)> {
            records(text, map).unwrap().into_iter().map(|record| (record.key, record.text.to_owned())).collect()
        };
        let plain = |texts: &[&str]| texts.iter().map(|text| (None, (*text).to_owned())).collect::<Vec<_>>();
        assert_eq!(texts(" [ {\"a\":1}, 2 ]\n", false), plain(&["{\"a\":1}", "2"]));
        assert_eq!(texts("{\"a\":1}\r\n\nnot JSON\n", false), plain(&["{\"a\":1}", "not JSON"]));
        assert_eq!(texts("", false), []);
        let twins = texts("{\"x\": {\"a\": 1}, \"\\u0078\": 2}", true);
        assert_eq!(twins, [(Some("x".into()), "{\"a\": 1}".into()), (Some("x".into()), "2".into())]);
        for (bad, map) in [("[1, 2", false), ("[1] 2", false), ("[]", true), ("{\"x\": 1", true), ("", true)] {
            assert!(records(bad, map).is_err(), "{bad}");
        }
    }
}
