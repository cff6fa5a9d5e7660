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
use claviger_store::{Store, StoreError, Tx};
use tokio::sync::{mpsc, oneshot};

use crate::audit::{ChainKey, Draft, FORGED, chain};
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
        tokio::spawn(flush(store.over_one_connection(), unflushed));
        let store = store.over_one_connection();
        tokio::spawn(Writer { store, key, random, committed, heads: HashMap::new(), last_uses: HashMap::new() }.run(waiting));
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
            // In order of tenant, so that two replicas lock heads in the same order.
            let mut tenants: BTreeMap<TenantId, Vec<Waiting>> = BTreeMap::new();
            for one in batch.drain(..) {
                tenants.entry(one.deed.tenant).or_default().push(one);
            }
            self.write_all(tenants).await;
        }
    }

    /// One transaction for all tenants; if that fails, one for each, so that a single bad chain stops nobody else.
    async fn write_all(&mut self, tenants: BTreeMap<TenantId, Vec<Waiting>>) {
        let together = self.write(tenants.iter()).await.is_ok();
        if together || tenants.len() == 1 {
            return self.pass_on(tenants.into_values().flatten(), together).await;
        }
        for (tenant, deeds) in tenants {
            let alone = self.write([(&tenant, &deeds)].into_iter()).await.is_ok();
            self.pass_on(deeds, alone).await;
        }
    }

    /// What was committed goes to the flusher; what was not is told at once.
    async fn pass_on(&self, deeds: impl IntoIterator<Item = Waiting>, committed: bool) {
        let listening = deeds.into_iter().map(|one| one.done);
        if !committed {
            return tell(listening, false);
        }
        if let Err(mpsc::error::SendError(unflushed)) = self.committed.send(listening.collect()).await {
            tell(unflushed, false);
        }
    }

    async fn write<'a>(&mut self, tenants: impl Iterator<Item = (&'a TenantId, &'a Vec<Waiting>)>) -> Result<(), StoreError> {
        let outcome = self.try_write(tenants).await;
        if let Err(error) = &outcome {
            tracing::error!(error = %error, "issued tokens could not be recorded");
            self.heads.clear();
        }
        if self.heads.len() > REMEMBERED {
            self.heads.clear();
        }
        if self.last_uses.len() > REMEMBERED {
            self.last_uses.clear();
        }
        outcome
    }

    async fn try_write<'a>(&mut self, tenants: impl Iterator<Item = (&'a TenantId, &'a Vec<Waiting>)>) -> Result<(), StoreError> {
        let mut tx: Option<Tx> = None;
        let mut moved = Vec::new();
        for (tenant, deeds) in tenants {
            let tx = match &mut tx {
                Some(tx) => tx,
                none => none.insert(self.store.begin_unflushed(*tenant).await?),
            };
            moved.push((*tenant, self.write_tenant(tx, *tenant, deeds).await?));
        }
        if let Some(tx) = tx {
            tx.commit().await?;
        }
        self.heads.extend(moved);
        Ok(())
    }

    /// Tries where we believe the head to be; if somebody moved it, looks, with a lock, and writes there.
    async fn write_tenant(&mut self, tx: &mut Tx, tenant: TenantId, deeds: &[Waiting]) -> Result<Head, StoreError> {
        let mut tx = tx.tenant(tenant).await?;
        let tokens: Vec<TokenRow> = deeds.iter().filter_map(|one| one.deed.token.clone()).collect();
        let used = self.uses(deeds);
        let mut believed = self.heads.get(&tenant).cloned();
        loop {
            let sure = believed.is_none();
            let head = match believed.take() {
                Some(head) => head,
                None => tx
                    .lock_audit_head()
                    .await?
                    .ok_or_else(|| impossible("a tenant without an audit chain"))
                    .and_then(|head| if self.key.holds(tenant, &head) { Ok(head) } else { Err(impossible(FORGED)) })?,
            };
            let (entries, seq, hash) = chain(&head, deeds.iter().map(|one| one.deed.draft.clone()), &self.random);
            let next = self.key.head(tenant, seq, hash);
            let batch = Batch { expected_seq: head.seq, head: &next, entries: &entries, tokens: &tokens, used: &used };
            if tx.record(&batch).await? {
                return Ok(next);
            }
            if sure {
                return Err(impossible("a locked audit head that moved"));
            }
        }
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
