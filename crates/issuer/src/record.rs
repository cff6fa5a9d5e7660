//! The record of what left: many requests, one transaction.
//!
//! A request hands its deed over and waits. The writer takes all that is waiting and commits it in one transaction,
//! without waiting for the disk; the flusher then waits for the disk, once for all batches that were committed
//! meanwhile, and tells their requests. So no token leaves that the database could lose, the cost of a durable commit
//! is shared, and a tenant's chain is locked only while it is written.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use claviger_store::audit::{Batch, Head, TokenRow};
use claviger_store::id::{KeyId, TenantId};
use claviger_store::{Scribe, Store, StoreError};
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
        // One batch on its way to the disk and one that waits for it. A third would make batches smaller, not answers
        // sooner.
        let (committed, unflushed) = mpsc::channel(1);
        tokio::spawn(flush(store.over_one_connection([]), unflushed));
        let scribe = store.scribe();
        tokio::spawn(
            Writer { store, scribe, key, random, committed, heads: HashMap::new(), last_uses: HashMap::new() }.run(waiting),
        );
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

/// Who is to be told once it is durable.
type Committed = Vec<oneshot::Sender<bool>>;

/// Waits for the disk, and tells everybody whose batch was committed before it began to.
async fn flush(store: Store, mut unflushed: mpsc::Receiver<Committed>) {
    let mut batches = Vec::new();
    while unflushed.recv_many(&mut batches, 2).await > 0 {
        let flushed = store.flush().await;
        if let Err(error) = &flushed {
            tracing::error!(error = %error, "it is not known whether issued tokens are durable");
        }
        tell(batches.drain(..).flatten(), flushed.is_ok());
    }
}

struct Writer {
    store: Store,
    scribe: Scribe,
    key: Arc<ChainKey>,
    random: Random,
    committed: mpsc::Sender<Committed>,
    /// Where each chain was when we last wrote it: right unless somebody else wrote since.
    heads: HashMap<TenantId, Head>,
    last_uses: HashMap<KeyId, Instant>,
}

impl Writer {
    async fn run(mut self, mut waiting: mpsc::Receiver<Waiting>) {
        let mut batch = Vec::with_capacity(BATCH);
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            let mut tenants: HashMap<TenantId, Vec<Waiting>> = HashMap::new();
            for one in batch.drain(..) {
                tenants.entry(one.deed.tenant).or_default().push(one);
            }
            // Each tenant's part stands alone: a single bad chain stops nobody else.
            for (tenant, deeds) in tenants {
                let written = self.write(tenant, &deeds).await;
                self.pass_on(deeds, written).await;
            }
            if self.heads.len() > REMEMBERED {
                self.heads.clear();
            }
            if self.last_uses.len() > REMEMBERED {
                self.last_uses.clear();
            }
        }
    }

    /// What was committed goes to the flusher; what was not is told at once.
    async fn pass_on(&self, deeds: Vec<Waiting>, committed: bool) {
        let listening = deeds.into_iter().map(|one| one.done);
        if !committed {
            return tell(listening, false);
        }
        if let Err(mpsc::error::SendError(unflushed)) = self.committed.send(listening.collect()).await {
            tell(unflushed, false);
        }
    }

    async fn write(&mut self, tenant: TenantId, deeds: &[Waiting]) -> bool {
        match self.try_write(tenant, deeds).await {
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
    async fn try_write(&mut self, tenant: TenantId, deeds: &[Waiting]) -> Result<Head, StoreError> {
        let tokens: Vec<TokenRow> = deeds.iter().filter_map(|one| one.deed.token.clone()).collect();
        let used = self.uses(deeds);
        let drafts = || deeds.iter().map(|one| one.deed.draft.clone());
        if let Some(believed) = self.heads.get(&tenant) {
            let (entries, next) = self.key.extend(tenant, believed, drafts(), &self.random);
            let batch = Batch { expected_seq: believed.seq, head: &next, entries: &entries, tokens: &tokens, used: &used };
            if self.scribe.record(tenant, &batch).await? {
                return Ok(next);
            }
        }
        let mut tx = self.store.begin_unflushed(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        let head = scoped.lock_audit_head().await?.ok_or_else(|| impossible("a tenant without an audit chain"))?;
        if !self.key.holds(tenant, &head) {
            return Err(impossible(FORGED));
        }
        let (entries, next) = self.key.extend(tenant, &head, drafts(), &self.random);
        let batch = Batch { expected_seq: head.seq, head: &next, entries: &entries, tokens: &tokens, used: &used };
        if !scoped.record(&batch).await? {
            return Err(impossible("a locked audit head that moved"));
        }
        tx.commit().await?;
        Ok(next)
    }

    /// The last use of each key, unless it was kept a moment ago.
    fn uses(&mut self, deeds: &[Waiting]) -> Vec<(KeyId, DateTime<Utc>)> {
        let now = Instant::now();
        let mut uses: BTreeMap<&KeyId, DateTime<Utc>> = BTreeMap::new();
        for (key, at) in deeds.iter().filter_map(|one| one.deed.used.as_ref()) {
            let kept = self.last_uses.get(key).is_some_and(|kept| now.duration_since(*kept) < USE_KEPT_EVERY);
            if !kept {
                uses.insert(key, *at);
            }
        }
        self.last_uses.extend(uses.keys().map(|key| ((*key).clone(), now)));
        uses.into_iter().map(|(key, at)| (key.clone(), at)).collect()
    }
}

fn impossible(what: &str) -> StoreError {
    StoreError::ImpossibleRow { table: "audit_heads", what: what.to_owned() }
}

fn tell(listening: impl IntoIterator<Item = oneshot::Sender<bool>>, durable: bool) {
    for one in listening {
        // Nobody listens any more when the caller hung up: the record stands all the same.
        let _ = one.send(durable);
    }
}
