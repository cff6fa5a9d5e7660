//! The issuer: everything that decisions need, put together once.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use claviger_store::change::Change;
use claviger_store::id::{FamilyId, TenantId, TokenId};
use claviger_store::{Store, StoreError, Tx};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::Failure;
use crate::attempt::Places;
use crate::audit::ChainKey;
use crate::budget::Budgets;
use crate::checked_token::CheckedTokens;
use crate::clock::Clock;
use crate::connection::CONNECTIONS;
use crate::denial::Floods;
use crate::directory::{Directory, TenantEntry};
use crate::mail::MAIL;
use crate::news;
use crate::outbound::Outbound;
use crate::password::Hasher;
use crate::pepper;
use crate::random::Random;
use crate::record::Recorder;
use crate::revocation_feed::Feeds;
use crate::secret::Peppers;
use crate::settings::Settings;
use crate::status_list::Lists;
use crate::throttle::Counter;
use crate::usage::Uses;
use crate::vault::{MasterKey, Vault};
use crate::verifier_watch::Fetches;

/// What an issuer is made of.
pub struct Open {
    /// The database.
    pub store: Store,
    /// Opens what is sealed there.
    pub master_key: MasterKey,
    /// Settings of the installation.
    pub settings: Settings,
    /// Where time comes from.
    pub clock: Clock,
    /// Where randomness comes from.
    pub random: Random,
}

/// What the installation's own secrets are sealed for.
pub(crate) const SECRETS: &str = "sealed_secrets";
/// What signing keys are sealed for.
pub(crate) const SIGNING_KEYS: &str = "signing_keys";

/// Where a secret of the installation is sealed.
pub(crate) fn place_of_secret(purpose: &str, version: i16) -> String {
    format!("sealed_secrets:sealed:{purpose}:{version}")
}

/// The purpose of the peppers among the sealed secrets.
pub(crate) const PEPPER: &str = "pepper";

/// Why an issuer cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The master key is not the one that this database was sealed under.
    #[error(
        "the master key does not open this installation's secrets: it is not the key that this database was set up \
         with. Give back the old key (CLAVIGER_MASTER_KEY or CLAVIGER_MASTER_KEY_FILE; in a trial run the file \
         master.key in the data directory)"
    )]
    WrongMasterKey,
    /// The machine gives no threads.
    #[error("the threads that check passwords could not be started: {0}")]
    Threads(#[from] std::io::Error),
    /// What asks providers cannot work.
    #[error("the client that asks providers could not be made: {0}")]
    Outbound(String),
}

/// Decides. One for each process; cheap to share.
pub struct Issuer {
    pub(crate) store: Store,
    pub(crate) settings: Arc<Settings>,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) signing_vault: Vault,
    pub(crate) secrets_vault: Vault,
    pub(crate) peppers: Peppers,
    pub(crate) chain_key: Arc<ChainKey>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) checked: CheckedTokens,
    pub(crate) recorder: Recorder,
    pub(crate) failures: Counter,
    pub(crate) floods: Floods,
    pub(crate) budgets: Budgets,
    pub(crate) uses: Uses,
    pub(crate) mail_vault: Vault,
    pub(crate) mail_written: broadcast::Sender<TenantId>,
    pub(crate) hasher: Hasher,
    pub(crate) places: Places,
    pub(crate) feeds: Arc<Feeds>,
    pub(crate) lists: Lists,
    pub(crate) fetches: Fetches,
    pub(crate) connection_vault: Vault,
    pub(crate) outbound: Outbound,
}

impl Issuer {
    /// Opens the installation's secrets, making them if this is the first start, and starts the recorder on the
    /// current runtime.
    pub async fn open(open: Open) -> Result<Self, OpenError> {
        let Open { store, master_key, settings, clock, random } = open;
        let settings = Arc::new(settings);
        let vault = |purpose| Vault::new(&master_key, purpose).map_err(|_| OpenError::WrongMasterKey);
        let secrets = vault(SECRETS)?;
        let peppers = installation_secret(&store, &secrets, PEPPER, &clock, &random).await?;
        let peppers = Peppers::new(&peppers, pepper::current(&peppers, clock.now()));
        let chain_keys = installation_secret(&store, &secrets, "audit", &clock, &random).await?;
        let chain_key = chain_keys.last().map(|key| Arc::new(ChainKey::new(&key.value))).ok_or(OpenError::WrongMasterKey)?;
        let feeds = Arc::new(Feeds::new());
        let keys = vault(SIGNING_KEYS)?;
        let directory = Arc::new(Directory::new(store.clone(), keys, settings.clone(), feeds.clone(), clock.clone()));
        let hasher = Hasher::start(settings.password_cost, settings.password_threads, random.clone())?;
        let recorder = Recorder::start(store.clone(), chain_key.clone(), random.clone());
        let outbound = Outbound::new(&settings.outbound).map_err(|error| OpenError::Outbound(error.to_string()))?;
        Ok(Self {
            signing_vault: vault(SIGNING_KEYS)?,
            secrets_vault: secrets,
            store,
            settings,
            clock,
            random,
            peppers,
            chain_key,
            directory,
            checked: CheckedTokens::new(),
            recorder,
            failures: Counter::new(),
            floods: Floods::new(),
            budgets: Budgets::new(),
            uses: Uses::default(),
            mail_vault: vault(MAIL)?,
            mail_written: broadcast::channel(256).0,
            hasher,
            places: Places::new(),
            feeds,
            lists: Lists::new(),
            fetches: Fetches::default(),
            connection_vault: vault(CONNECTIONS)?,
            outbound,
        })
    }

    /// True when an installation was set up in this database: its secrets are sealed under some master key.
    pub async fn has_secrets(store: &Store) -> Result<bool, StoreError> {
        Ok(!store.begin().await?.any_tenant().sealed_secrets(PEPPER).await?.is_empty())
    }

    /// Serves tenants, owners and keys from memory from now on, until the returned task is aborted. `notifications`
    /// is off only to show what a sweep alone does.
    pub fn follow_changes(&self, notifications: bool) -> JoinHandle<()> {
        tokio::spawn(news::follow(self.directory.clone(), notifications))
    }

    /// Commits a change, and forgets here at once what it made untrue: who changed it and asks again must not be
    /// answered from before. Other servers hear of it.
    pub(crate) async fn commit(&self, tx: Tx, table: &str, tenant: TenantId, id: impl ToString) -> Result<(), Failure> {
        tx.commit().await?;
        self.forget(table, tenant, id);
        Ok(())
    }

    /// Forgets here what a committed change made untrue.
    pub(crate) fn forget(&self, table: &str, tenant: TenantId, id: impl ToString) {
        self.directory.forget(&Change { table: table.to_owned(), tenant, id: id.to_string() });
    }

    /// As [`Issuer::commit`], for logins that were ended and a token that was called back.
    pub(crate) async fn commit_logins(
        &self,
        tx: Tx,
        tenant: TenantId,
        token: Option<TokenId>,
        families: &[FamilyId],
    ) -> Result<(), Failure> {
        tx.commit().await?;
        for family in families {
            self.directory.forget_family(tenant, *family);
        }
        if let Some(token) = token {
            self.forget("issued_tokens", tenant, token);
        }
        Ok(())
    }

    /// Settings of the installation.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The source of randomness.
    #[must_use]
    pub fn random(&self) -> &Random {
        &self.random
    }

    /// The database.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// A tenant that is not deleted, for what it publishes: answered also while the database is away.
    pub async fn publishing_tenant(&self, slug: &str) -> Result<Option<Arc<TenantEntry>>, Failure> {
        let tenant = self.directory.publishing_tenant(slug).await?;
        Ok(tenant.filter(|entry| entry.tenant.status.word() != "deleted"))
    }

    /// A tenant that is not deleted.
    pub async fn tenant(&self, slug: &str) -> Result<Option<Arc<TenantEntry>>, Failure> {
        let tenant = self.directory.tenant_by_slug(slug).await?;
        Ok(tenant.filter(|entry| entry.tenant.status.word() != "deleted"))
    }

    /// The tenant that the root paths serve.
    pub async fn default_tenant(&self) -> Result<Option<Arc<TenantEntry>>, Failure> {
        self.tenant(&self.settings.default_tenant).await
    }

    /// True for the tenant whose admins manage tenants.
    #[must_use]
    pub fn is_platform(&self, tenant: &TenantEntry) -> bool {
        tenant.tenant.slug == self.settings.default_tenant
    }
}

/// One version of a secret of the installation.
pub(crate) struct InstallationSecret {
    /// 1, 2, 3, …
    pub(crate) version: i16,
    /// Opened.
    pub(crate) value: Zeroizing<Vec<u8>>,
    /// When it was made.
    pub(crate) created_at: DateTime<Utc>,
}

/// All versions of a secret of the installation, opened. The first is made when there is none.
pub(crate) async fn installation_secret(
    store: &Store,
    vault: &Vault,
    purpose: &str,
    clock: &Clock,
    random: &Random,
) -> Result<Vec<InstallationSecret>, OpenError> {
    let place = |version: i16| place_of_secret(purpose, version);
    let mut tx = store.begin().await?;
    let mut kept = tx.any_tenant().sealed_secrets(purpose).await?;
    if kept.is_empty() {
        let secret = Zeroizing::new(random.bytes::<32>());
        let sealed = vault.seal(&place(1), secret.as_slice(), random).map_err(|_| OpenError::WrongMasterKey)?;
        tx.any_tenant().add_sealed_secret(purpose, 1, &sealed, clock.now()).await?;
        // Another replica may have been first: what is kept counts, not what we made.
        kept = tx.any_tenant().sealed_secrets(purpose).await?;
        tx.commit().await?;
    }
    kept.iter()
        .map(|secret| {
            let value = vault.open(&place(secret.version), &secret.sealed).map_err(|_| OpenError::WrongMasterKey)?;
            Ok(InstallationSecret { version: secret.version, value, created_at: secret.created_at })
        })
        .collect()
}
