//! `claviger doctor`: what is wrong with this installation, and the way out of each.

use std::os::unix::fs::PermissionsExt as _;
use std::process::ExitCode;

use claviger_issuer::clock::Clock;
use claviger_issuer::random::Random;
use claviger_issuer::readiness::CLOCK_SKEW;
use claviger_issuer::{Issuer, Open};
use claviger_store::Store;
use serde::Serialize;

use super::installation::{database, master_key};
use super::output::{Format, chain};
use crate::config::{Config, Overrides, trial_master_key};

/// One thing looked at.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    ok: bool,
    /// What was found, and if it is wrong, the way out.
    text: String,
}

/// What was looked at so far.
struct Findings(Vec<Finding>);

impl Findings {
    fn good(&mut self, check: &'static str, text: impl Into<String>) {
        self.0.push(Finding { check, ok: true, text: text.into() });
    }

    fn bad(&mut self, check: &'static str, text: impl Into<String>) {
        self.0.push(Finding { check, ok: false, text: text.into() });
    }

    /// Notes a result; `None` if what follows cannot be looked at.
    fn note<T, E: Into<anyhow::Error>>(&mut self, check: &'static str, result: Result<T, E>, good: &str) -> Option<T> {
        match result {
            Ok(value) => {
                self.good(check, good);
                Some(value)
            }
            Err(error) => {
                self.bad(check, chain(&error.into()));
                None
            }
        }
    }
}

/// Exit code 1 when something is wrong.
pub(super) async fn run(overrides: &Overrides, output: Format) -> anyhow::Result<ExitCode> {
    crate::log::start("error", crate::config::LogFormat::Auto, None)?;
    let mut findings = Findings(Vec::new());
    if let Some(config) = findings.note("configuration", Config::load(overrides), "it can be read and is complete") {
        examine(&config, &mut findings).await;
    }
    let findings = findings.0;
    output.print_list(&findings, |finding| {
        format!("{}  {}: {}", if finding.ok { "ok   " } else { "WRONG" }, finding.check, finding.text)
    })?;
    Ok(if findings.iter().all(|finding| finding.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn examine(config: &Config, findings: &mut Findings) {
    examine_master_key_file(config, findings);
    let opened = database(config).await;
    let Some((urls, private)) = findings.note("database", opened, "it answers") else { return };
    if private.is_some() {
        findings.note("schema", Store::migrate(&urls).await, "it is up to date");
    }
    let connected = Store::connect(&urls, 2).await;
    if let Some(store) = findings.note("database role", connected, "it owns nothing and cannot step over the tenant wall") {
        if private.is_none() {
            findings.note("schema", store.check().await, "it is up to date");
        }
        examine_installation(config, &store, findings).await;
        store.close().await;
    }
    if let Some(private) = private {
        let _ = tokio::task::spawn_blocking(move || private.close()).await;
    }
}

fn examine_master_key_file(config: &Config, findings: &mut Findings) {
    let file = match (&config.master_key, &config.master_key_file) {
        (Some(_), _) => return,
        (None, Some(file)) => file.clone(),
        (None, None) => trial_master_key(&config.data_dir),
    };
    let Ok(found) = std::fs::metadata(&file) else { return };
    let mode = found.permissions().mode() & 0o777;
    match mode & 0o077 {
        0 => findings.good("master key file", "only its owner may read it"),
        _ => findings.bad("master key file", format!("{} may be read by others (mode {mode:o}): chmod 600 it", file.display())),
    }
}

async fn examine_installation(config: &Config, store: &Store, findings: &mut Findings) {
    let random = Random::from_system();
    match store.database_time().await {
        Ok(theirs) => {
            let skew = (theirs - Clock::System.now()).abs();
            let text = format!("the database's and ours are {} ms apart", skew.num_milliseconds());
            match skew <= CLOCK_SKEW {
                true => findings.good("clock", text),
                false => findings.bad("clock", format!("{text}: set both by NTP; the server is not ready while they differ")),
            }
        }
        Err(error) => findings.bad("clock", error.to_string()),
    }
    let Some(master_key) = findings.note("master key", master_key(config, store, &random).await, "it can be read") else {
        return;
    };
    let open = Open { store: store.clone(), master_key, settings: config.issuer_settings(None), clock: Clock::System, random };
    let opened = Issuer::open(open).await;
    let Some(issuer) = findings.note("sealed secrets", opened, "they open under the master key") else { return };
    findings.note("token partitions", issuer.make_room().await, "they are there for every token that can be issued");
    match issuer.default_tenant().await {
        Ok(Some(tenant)) => match tenant.published.active {
            Some(_) => findings.good("default tenant", format!("`{}` has an active signing key", tenant.tenant.slug)),
            None => findings.bad("default tenant", "it has no active signing key: restore the database from a backup"),
        },
        Ok(None) => findings.bad(
            "default tenant",
            format!(
                "there is no tenant `{0}`: the first `claviger serve` of a trial run makes it; in production run \
                 `claviger tenant create {0}`",
                config.default_tenant
            ),
        ),
        Err(error) => findings.bad("default tenant", error.to_string()),
    }
}
