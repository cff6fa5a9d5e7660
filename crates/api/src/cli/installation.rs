//! Opens what commands work on: the database, private or given, and the issuer over it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use claviger_issuer::clock::Clock;
use claviger_issuer::random::Random;
use claviger_issuer::vault::MasterKey;
use claviger_issuer::{Issuer, Open, Refusal, TenantEntry};
use claviger_store::private_postgres::PrivatePostgres;
use claviger_store::{DatabaseUrls, Store, prepare_private_cluster};
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use crate::config::{Config, trial_master_key};

/// How long connections may take to close.
const CLOSING: Duration = Duration::from_secs(2);

/// An opened installation. Close it: a private database is stopped with its last user.
pub(super) struct Installation {
    pub(super) issuer: Arc<Issuer>,
    /// Our share in the private database, if it is that.
    private: Mutex<Option<PrivatePostgres>>,
}

/// Connections that a command needs.
const FEW: u32 = 2;
/// Between looks after a private database.
const LOOK_AFTER: Duration = Duration::from_secs(1);

impl Installation {
    /// For a command.
    pub(super) async fn open(config: &Config) -> anyhow::Result<Self> {
        let (urls, private) = database(config).await?;
        if private.is_some() {
            Store::migrate_if_behind(&urls).await?;
        }
        Self::over(config, &urls, private, FEW, None).await
    }

    /// For the server.
    pub(super) async fn open_to_serve(config: &Config, listening: SocketAddr) -> anyhow::Result<Self> {
        let (urls, private) = database(config).await?;
        Store::migrate_if_behind(&urls).await?;
        Self::over(config, &urls, private, config.database_connections, Some(listening)).await
    }

    async fn over(
        config: &Config,
        urls: &DatabaseUrls,
        private: Option<PrivatePostgres>,
        connections: u32,
        listening: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let random = Random::from_system();
        let store = Store::connect(urls, connections).await?;
        store.check().await?;
        let open = Open {
            master_key: master_key(config, &store, &random).await?,
            store,
            settings: config.issuer_settings(listening),
            clock: Clock::System,
            random,
        };
        Ok(Self { issuer: Arc::new(Issuer::open(open).await?), private: Mutex::new(private) })
    }

    /// True when the database is our own.
    pub(super) fn is_private(&self) -> bool {
        self.private.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Starts a private database again whenever it has ended by itself. A given one is its operator's to mend.
    pub(super) async fn keep_database(&self, config: &Config) {
        while self.is_private() {
            tokio::time::sleep(LOOK_AFTER).await;
            if self.issuer.store().check().await.is_ok() {
                continue;
            }
            // Joins the one that runs, or starts it.
            match open_private(config).await {
                Ok(share) => {
                    let before = self.private.lock().unwrap_or_else(PoisonError::into_inner).replace(share);
                    close_private(before).await;
                }
                Err(error) => tracing::error!(error = %error, "the private Postgres cannot be started again"),
            }
        }
    }

    /// Lets go of the database.
    pub(super) async fn close(self) {
        // Requests that were cut off may still hold connections.
        let _ = tokio::time::timeout(CLOSING, self.issuer.store().close()).await;
        close_private(self.private.into_inner().unwrap_or_else(PoisonError::into_inner)).await;
    }

    /// A tenant by its slug.
    pub(super) async fn tenant(&self, slug: &str) -> anyhow::Result<Arc<TenantEntry>> {
        match self.issuer.tenant(slug).await? {
            Some(tenant) => Ok(tenant),
            None => bail!("there is no tenant `{slug}`; `claviger tenant list` shows those that there are"),
        }
    }
}

/// Runs a command's work and closes the installation whatever came of it.
pub(super) async fn with<T>(config: &Config, work: impl AsyncFnOnce(&Installation) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let installation = Installation::open(config).await?;
    let outcome = work(&installation).await;
    installation.close().await;
    outcome
}

/// Brings the schema up to date, and nothing else.
pub(super) async fn migrate(config: &Config) -> anyhow::Result<()> {
    let (urls, private) = database(config).await?;
    let outcome = Store::migrate(&urls).await;
    close_private(private).await;
    Ok(outcome?)
}

async fn close_private(private: Option<PrivatePostgres>) {
    if let Some(private) = private {
        // Waits for the postmaster to end. A failed join means that it was ended by a panic: nothing is left to do.
        let _ = tokio::task::spawn_blocking(move || private.close()).await;
    }
}

/// The given database, or the private one, started if nobody has.
pub(super) async fn database(config: &Config) -> anyhow::Result<(DatabaseUrls, Option<PrivatePostgres>)> {
    if let Some(urls) = config.database_urls()? {
        return Ok((urls, None));
    }
    let private = open_private(config).await?;
    let urls = prepare_private_cluster(&private).await?;
    Ok((urls, Some(private)))
}

async fn open_private(config: &Config) -> anyhow::Result<PrivatePostgres> {
    let data_dir = config.data_dir.clone();
    let binaries = config.postgres_bin.clone();
    Ok(tokio::task::spawn_blocking(move || PrivatePostgres::open(&data_dir, binaries.as_deref())).await??)
}

/// The configured key, with those that open what is sealed too while it changes.
pub(super) async fn master_key(config: &Config, store: &Store, random: &Random) -> anyhow::Result<MasterKey> {
    let mut key = first_master_key(config, store, random).await?;
    for file in &config.other_master_key_files {
        key = key.or(&read_master_key(file)?);
    }
    Ok(key)
}

const NOT_A_KEY: &str = "is not 32 bytes in base64; `openssl rand -base64 32` makes a key";

/// The one that seals; in a trial run that of the data directory, made on first need.
async fn first_master_key(config: &Config, store: &Store, random: &Random) -> anyhow::Result<MasterKey> {
    if let Some(key) = &config.master_key {
        return MasterKey::parse(key.expose_secret()).with_context(|| format!("master_key {NOT_A_KEY}"));
    }
    if let Some(command) = &config.master_key_command {
        return told_master_key(command).await;
    }
    let file = config.master_key_file.clone().unwrap_or_else(|| trial_master_key(&config.data_dir));
    if config.master_key_file.is_none() && !file.exists() {
        if Issuer::has_secrets(store).await? {
            bail!(
                "the master key {} is gone, and nothing that this database holds sealed opens without it: put it back \
                 from a copy, or remove the data directory to begin anew",
                file.display()
            );
        }
        return make_trial_key(&file, random);
    }
    read_master_key(&file)
}

/// The key in a file.
pub(super) fn read_master_key(file: &Path) -> anyhow::Result<MasterKey> {
    let text = std::fs::read_to_string(file)
        .map(Zeroizing::new)
        .with_context(|| format!("cannot read the master key {}", file.display()))?;
    MasterKey::parse(&text).with_context(|| format!("the master key in {} {NOT_A_KEY}", file.display()))
}

/// How long the command may take that prints the master key.
const COMMAND_PATIENCE: Duration = Duration::from_secs(10);

/// The key that a command prints. What it complains of goes to our own standard error; what it prints is told to nobody.
async fn told_master_key(command: &str) -> anyhow::Result<MasterKey> {
    let mut shell = tokio::process::Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let ended = tokio::time::timeout(COMMAND_PATIENCE, shell.output()).await;
    let ended = ended.context("master_key_command did not end within 10 seconds")?.context("master_key_command cannot be run")?;
    if !ended.status.success() {
        bail!("master_key_command failed ({})", ended.status);
    }
    let text = Zeroizing::new(ended.stdout);
    let key = std::str::from_utf8(&text).ok().and_then(MasterKey::parse);
    key.with_context(|| format!("what master_key_command prints {NOT_A_KEY}"))
}

/// Written beside and linked into place, so that two commands that start at once agree on one key, and a crash leaves
/// a whole key or none.
fn make_trial_key(file: &Path, random: &Random) -> anyhow::Result<MasterKey> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let beside = file.with_extension(format!("new-{}", random.uuid()));
    let write = || -> std::io::Result<()> {
        let mut new = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        new.write_all(MasterKey::generate(random).to_base64().as_bytes())?;
        new.write_all(b"\n")?;
        new.sync_all()?;
        match std::fs::hard_link(&beside, file) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
            _ => std::fs::remove_file(&beside),
        }
    };
    write().with_context(|| format!("cannot make the master key {}", file.display()))?;
    let text = std::fs::read_to_string(file).map(Zeroizing::new)?;
    MasterKey::parse(&text).with_context(|| format!("the master key in {} is damaged", file.display()))
}

/// A refusal in the words of the command line.
pub(super) fn not_found(what: &str) -> impl Fn(claviger_issuer::Failure) -> anyhow::Error + use<> {
    let what = what.to_owned();
    move |failure| match failure {
        claviger_issuer::Failure::Refusal(Refusal::NotFound) => anyhow::anyhow!("there is no {what}"),
        other => other.into(),
    }
}
