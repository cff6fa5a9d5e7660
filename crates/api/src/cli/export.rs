//! `claviger export`: a whole tenant in a file. What is secret in it is sealed under a passphrase, or stays behind.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use claviger_issuer::audit::Actor;
use claviger_issuer::moving::is_sealed;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::installation::{Installation, not_found, with};
use super::output::Format;
use crate::config::Config;

/// Where a passphrase is, if it is in the environment.
const VARIABLE: &str = "CLAVIGER_PASSPHRASE";

/// What to export.
#[derive(Debug, clap::Args)]
pub(super) struct Order {
    /// The tenant's slug
    #[arg(long)]
    tenant: String,
    /// Leave out private signing keys, peppers and connections' secrets
    #[arg(long, conflicts_with = "passphrase_file")]
    without_secrets: bool,
    #[command(flatten)]
    passphrase: Passphrase,
    /// The file, for its owner's eyes alone [default: standard output]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Where the passphrase is. It never stands on a command line.
#[derive(Debug, clap::Args)]
pub(super) struct Passphrase {
    /// The file whose first line is the passphrase (else CLAVIGER_PASSPHRASE, else it is asked for)
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

pub(super) async fn run(order: Order, config: &Config, output: Format) -> anyhow::Result<()> {
    let Order { tenant, without_secrets, passphrase, file } = order;
    let passphrase = match without_secrets {
        true => None,
        false => Some(passphrase.find(true)?),
    };
    with(config, async |installation| match &file {
        None => {
            let mut out = BufWriter::new(std::io::stdout().lock());
            write(installation, &tenant, passphrase.as_ref(), &mut out).await?;
            Ok(out.flush()?)
        }
        Some(file) => {
            // Beside it and then in its place: who reads the file reads a whole one.
            let beside = beside(file)?;
            let done = async {
                let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside);
                let mut out = BufWriter::new(new.with_context(|| format!("cannot make {}", beside.display()))?);
                let records = write(installation, &tenant, passphrase.as_ref(), &mut out).await?;
                out.into_inner().context("the file cannot be written")?.sync_all()?;
                std::fs::rename(&beside, file).with_context(|| format!("cannot make {}", file.display()))?;
                anyhow::Ok(records)
            };
            let records = done.await.inspect_err(|_| {
                let _ = std::fs::remove_file(&beside);
            })?;
            let told = serde_json::json!({ "tenant": tenant, "records": records, "secrets": passphrase.is_some() });
            output.print(&told, |_| format!("{tenant}  {records} records in {}", file.display()))
        }
    })
    .await
}

fn beside(file: &Path) -> anyhow::Result<PathBuf> {
    let mut name = file.file_name().with_context(|| format!("{} is no name of a file", file.display()))?.to_owned();
    name.push(format!(".new-{}", std::process::id()));
    Ok(file.with_file_name(name))
}

async fn write(
    installation: &Installation,
    tenant: &str,
    passphrase: Option<&SecretString>,
    out: &mut impl Write,
) -> anyhow::Result<u64> {
    let written = |line: &str| out.write_all(line.as_bytes());
    let exported = installation.issuer.export_tenant(&Actor::operator(), tenant, passphrase, written).await;
    Ok(exported.map_err(not_found(&format!("tenant `{tenant}`; `claviger tenant list` shows those that there are")))?.records)
}

impl Passphrase {
    /// For a file that may need one.
    pub(super) fn for_import(&self, text: &str) -> anyhow::Result<Option<SecretString>> {
        match is_sealed(text) {
            // Of one that is not sealed, it is told that the passphrase proves nothing.
            Some(false) if self.passphrase_file.is_none() => Ok(None),
            Some(_) => self.find(false).map(Some),
            None => Ok(None),
        }
    }

    /// From the file, the environment, or whoever sits there; a new one is asked for twice.
    fn find(&self, new: bool) -> anyhow::Result<SecretString> {
        if let Some(file) = &self.passphrase_file {
            let opened = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
            return line(&mut BufReader::new(opened))
                .with_context(|| format!("cannot read the passphrase in {}", file.display()));
        }
        if let Ok(text) = std::env::var(VARIABLE) {
            return Ok(SecretString::from(text));
        }
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
        let terminal = terminal.map_err(|_| anyhow::anyhow!("give the passphrase with --passphrase-file or {VARIABLE}"))?;
        let first = ask(&terminal, "Passphrase: ")?;
        if new && ask(&terminal, "The same again: ")?.expose_secret() != first.expose_secret() {
            bail!("the two passphrases differ");
        }
        Ok(first)
    }
}

/// A line without its end.
fn line(from: &mut impl std::io::BufRead) -> anyhow::Result<SecretString> {
    let mut text = Zeroizing::new(String::new());
    std::io::Read::take(from, 4096).read_line(&mut text)?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        bail!("it is empty");
    }
    Ok(SecretString::from(text.to_owned()))
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Silent<'a>(&'a File, Termios);

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0, OptionalActions::Now, &self.1);
    }
}

fn ask(mut terminal: &File, prompt: &str) -> anyhow::Result<SecretString> {
    terminal.write_all(prompt.as_bytes())?;
    let before = tcgetattr(terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(terminal, OptionalActions::Flush, &silent)?;
    let restored = Silent(terminal, before);
    let typed = line(&mut BufReader::new(terminal));
    drop(restored);
    terminal.write_all(b"\n")?;
    typed.context("no passphrase was typed")
}
