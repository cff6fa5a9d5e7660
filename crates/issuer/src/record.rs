//! The record of what left: many requests, one transaction.
//!
//! A request hands its deed over and waits; the writer takes all that is waiting, makes it durable with one commit and
//! tells each. So no token leaves that the database does not know, and the cost of a durable commit is shared.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use claviger_store::audit::{Batch, Head, TokenRow};
use claviger_store::id::{KeyId, TenantId};
use claviger_store::{Scribe, Store, StoreError, Tx};
use tokio::sync::{mpsc, oneshot};

use crate::audit::{ChainKey, Draft, FORGED};
use crate::random::Random;
use crate::{Failure, Fault};

/// Deeds that may wait; beyond that, requests are told to come again.
const QUEUE: usize = 4096;
/// Deeds in one transaction.
const BATCH: usize = 512;
/// How long a request waits for its record.
const PATIENCE: Duration = Duration::from_secs(3);
/// A key's last use is kept to the minute.
const USE_KEPT_EVERY: Duration = Duration::from_secs(60);
/// Tenants and keys that the writer remembers something about.
const REMEMBERED: usize = 10_000;

/// Something to be written before its answer leaves.
pub(crate) struct Deed {
    pub(crate) tenant: TenantId,
    pub(crate) draft: Draft,
    pub(crate) token: Option<TokenRow>,
    pub(crate) used: Option<(KeyId, DateTime<Utc>)>,
}

struct Waiting {
    deed: Deed,
    done: oneshot::Sender<bool>,
}

/// Hands deeds to the writer.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Waiting>,
}

impl Recorder {
    /// Starts the writer on the current runtime. It ends when the last `Recorder` is gone and its queue is empty.
    pub(crate) fn start(store: Store, key: Arc<ChainKey>, random: Random) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (scribe, store) = (store.scribe(), store.aside(2, []));
        tokio::spawn(Writer { store, scribe, key, random, heads: HashMap::new(), last_uses: HashMap::new() }.run(waiting));
        Self { queue }
    }

    /// Returns when the deed is durable. After an error it is unknown whether it was written.
    pub(crate) async fn record(&self, deed: Deed) -> Result<(), Failure> {
        let (done, written) = oneshot::channel();
        self.queue.try_send(Waiting { deed, done }).map_err(|_| Fault::Overloaded("the record of issued tokens"))?;
        match tokio::time::timeout(PATIENCE, written).await {
            Ok(Ok(true)) => Ok(()),
            Ok(_) | Err(_) => Err(Fault::Unknown("the record of an issued token").into()),
        }
    }
}

struct Writer {
    store: Store,
    scribe: Scribe,
    key: Arc<ChainKey>,
    random: Random,
    /// Where each chain was when we last wrote it: right unless somebody else wrote since.
    heads: HashMap<TenantId, Head>,
    last_uses: HashMap<KeyId, Instant>,
}

impl Writer {
    async fn run(mut self, mut waiting: mpsc::Receiver<Waiting>) {
        let mut batch = Vec::with_capacity(BATCH);
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            // In order of tenant, so that two replicas lock heads in the same order.
            let mut tenants: BTreeMap<TenantId, Vec<Waiting>> = BTreeMap::new();
            for one in batch.drain(..) {
                tenants.entry(one.deed.tenant).or_default().push(one);
            }
            self.write(tenants).await;
            if self.heads.len() > REMEMBERED {
                self.heads.clear();
            }
            if self.last_uses.len() > REMEMBERED {
                self.last_uses.clear();
            }
        }
    }

    /// One commit for all tenants; if that fails, one for each, so that a single bad chain stops nobody else.
    async fn write(&mut self, tenants: BTreeMap<TenantId, Vec<Waiting>>) {
        if tenants.len() > 1 && self.write_together(&tenants).await {
            return tell(tenants.into_values().flatten(), true);
        }
        for (tenant, deeds) in tenants {
            let durable = self.write_alone(tenant, &deeds).await;
            tell(deeds, durable);
        }
    }

    async fn write_together(&mut self, tenants: &BTreeMap<TenantId, Vec<Waiting>>) -> bool {
        let attempt = async {
            let mut tx = self.store.begin().await?;
            let mut moved = Vec::new();
            for (tenant, deeds) in tenants {
                let tokens = tokens(deeds);
                let used = uses(&mut self.last_uses, deeds);
                moved.push((*tenant, write_locked(&self.key, &self.random, &mut tx, *tenant, deeds, &tokens, &used).await?));
            }
            tx.commit().await?;
            Ok::<_, StoreError>(moved)
        };
        match in_time(attempt).await {
            Ok(moved) => {
                self.heads.extend(moved);
                true
            }
            Err(error) => {
                tracing::warn!(error = %error, "a batch of several tenants could not be recorded; each is tried alone");
                false
            }
        }
    }

    async fn write_alone(&mut self, tenant: TenantId, deeds: &[Waiting]) -> bool {
        match self.try_alone(tenant, deeds).await {
            Ok(head) => {
                self.heads.insert(tenant, head);
                true
            }
            Err(error) => {
                tracing::error!(tenant.id = %tenant, error = %error, "issued tokens could not be recorded");
                self.heads.remove(&tenant);
                false
            }
        }
    }

    /// Tries where we believe the head to be; if somebody moved it, looks, with a lock, and writes there.
    async fn try_alone(&mut self, tenant: TenantId, deeds: &[Waiting]) -> Result<Head, StoreError> {
        let tokens = tokens(deeds);
        let used = uses(&mut self.last_uses, deeds);
        if let Some(believed) = self.heads.get(&tenant) {
            let (entries, next) = self.key.extend(tenant, believed, drafts(deeds), &self.random);
            let batch = Batch { expected: believed, head: &next, entries: &entries, tokens: &tokens, used: &used };
            if self.scribe.record(tenant, &batch).await? {
                return Ok(next);
            }
        }
        in_time(async {
            let mut tx = self.store.begin_in(tenant).await?;
            let next = write_locked(&self.key, &self.random, &mut tx, tenant, deeds, &tokens, &used).await?;
            tx.commit().await?;
            Ok(next)
        })
        .await
    }
}

/// The server's own time-outs do not help when its host is gone.
async fn in_time<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or(Err(StoreError::TooSlow))
}

/// Writes behind the head as it is, locked.
async fn write_locked(
    key: &ChainKey,
    random: &Random,
    tx: &mut Tx,
    tenant: TenantId,
    deeds: &[Waiting],
    tokens: &[TokenRow],
    used: &[(KeyId, DateTime<Utc>)],
) -> Result<Head, StoreError> {
    let mut tx = tx.tenant(tenant).await?;
    let head = tx.lock_audit_head().await?.ok_or_else(|| impossible("a tenant without an audit chain"))?;
    if !key.holds(tenant, &head) {
        return Err(impossible(FORGED));
    }
    let (entries, next) = key.extend(tenant, &head, drafts(deeds), random);
    let batch = Batch { expected: &head, head: &next, entries: &entries, tokens, used };
    match tx.record(&batch).await? {
        true => Ok(next),
        false => Err(impossible("a locked audit head that moved")),
    }
}

fn tokens(deeds: &[Waiting]) -> Vec<TokenRow> {
    deeds.iter().filter_map(|one| one.deed.token.clone()).collect()
}

fn drafts(deeds: &[Waiting]) -> impl Iterator<Item = Draft> {
    deeds.iter().map(|one| one.deed.draft.clone())
}

/// The last use of each key, unless one was kept a moment ago.
fn uses(last_uses: &mut HashMap<KeyId, Instant>, deeds: &[Waiting]) -> Vec<(KeyId, DateTime<Utc>)> {
    let now = Instant::now();
    let mut uses: BTreeMap<&KeyId, DateTime<Utc>> = BTreeMap::new();
    for (key, at) in deeds.iter().filter_map(|one| one.deed.used.as_ref()) {
        let kept = last_uses.get(key).is_some_and(|kept| now.duration_since(*kept) < USE_KEPT_EVERY);
        if !kept {
            uses.insert(key, *at);
        }
    }
    last_uses.extend(uses.keys().map(|key| ((*key).clone(), now)));
    uses.into_iter().map(|(key, at)| (key.clone(), at)).collect()
}

fn impossible(what: &str) -> StoreError {
    StoreError::ImpossibleRow { table: "audit_heads", what: what.to_owned() }
}

fn tell(deeds: impl IntoIterator<Item = Waiting>, durable: bool) {
    for one in deeds {
        // Nobody listens any more when the caller hung up: the record stands all the same.
        let _ = one.done.send(durable);
    }
}
