//! The record of what left: many requests, one transaction.
//!
//! A request hands its deed over and waits; the writer takes all that is waiting, makes it durable with one commit and
//! tells each. So no token leaves that the database does not know, and the cost of a durable commit is shared.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use claviger_store::audit::{Batch, Head, TokenRow};
use claviger_store::id::TenantId;
use claviger_store::{Scribe, Store, StoreError, TRACES, Tx};
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument as _;

use crate::audit::{ChainKey, Draft, FORGED};
use crate::measure::{AUDIT_ENTRIES, RECORD_BATCH, RECORD_WAIT};
use crate::opening::{Opening, open};
use crate::random::Random;
use crate::refresh::{Decided, Rotation, decide};
use crate::{Failure, Fault};

/// Deeds that may wait; beyond that, requests are told to come again.
const QUEUE: usize = 4096;
/// Deeds in one transaction.
const BATCH: usize = 512;
/// How long a request waits for its record.
const PATIENCE: Duration = Duration::from_secs(3);
/// Tenants that the writer remembers something about.
const REMEMBERED: usize = 10_000;

/// Something to be written before its answer leaves.
pub(crate) struct Deed {
    pub(crate) tenant: TenantId,
    pub(crate) what: What,
}

/// What is written.
pub(crate) enum What {
    /// An entry of the trail, and what goes with it.
    Entry(Entry),
    /// The beginning of a login, if it may still begin.
    Opening(Entry, Box<Opening>),
    /// A presented refresh token, to be decided under its family's lock.
    Rotation(Box<Rotation>),
}

/// An entry of the trail, and the token that was issued.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) draft: Draft,
    pub(crate) token: Option<TokenRow>,
}

/// What came of a deed, once it is durable.
pub(crate) enum Recorded {
    /// It is written.
    Written,
    /// What it stood on was taken away meanwhile: nothing is written.
    Overtaken,
    /// A refresh token was decided about.
    Decided(Decided),
}

struct Waiting {
    deed: Deed,
    done: oneshot::Sender<Recorded>,
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
        let (scribe, store) = (store.scribe(), store.aside_replanned(2));
        tokio::spawn(Writer { store, scribe, key, random, heads: HashMap::new() }.run(waiting));
        Self { queue }
    }

    /// Returns when an entry is durable. After an error it is unknown whether it was written.
    pub(crate) async fn record(&self, tenant: TenantId, entry: Entry) -> Result<(), Failure> {
        self.carry_out(Deed { tenant, what: What::Entry(entry) }).await.map(|_| ())
    }

    /// Returns when a deed is durable, with what came of it. After an error it is unknown whether it was written.
    pub(crate) async fn carry_out(&self, deed: Deed) -> Result<Recorded, Failure> {
        let (done, written) = oneshot::channel();
        let tenant = deed.tenant;
        self.queue.try_send(Waiting { deed, done }).map_err(|_| Fault::Overloaded("the record of issued tokens"))?;
        let asked = Instant::now();
        let span = tracing::trace_span!(target: TRACES, "record", tenant.id = %tenant);
        match tokio::time::timeout(PATIENCE, written).instrument(span).await {
            Ok(Ok(recorded)) => {
                RECORD_WAIT.record(asked.elapsed());
                Ok(recorded)
            }
            Ok(Err(_)) | Err(_) => Err(Fault::Unknown("the record of an issued token").into()),
        }
    }

    /// Deeds that wait for the writer.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

struct Writer {
    store: Store,
    scribe: Scribe,
    key: Arc<ChainKey>,
    random: Random,
    /// Where each chain was when we last wrote it: right unless somebody else wrote since.
    heads: HashMap<TenantId, Head>,
}

/// Deeds of one tenant, in the order in which they came.
type Deeds = Vec<Waiting>;

/// A transaction that did not end well.
enum Failed {
    /// Before its commit was asked for: nothing of it is written.
    Before(StoreError),
    /// At its commit: nobody knows.
    Unknown(StoreError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Before(error)
    }
}

impl Writer {
    async fn run(mut self, mut waiting: mpsc::Receiver<Waiting>) {
        let mut batch = Vec::with_capacity(BATCH);
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            RECORD_BATCH.record(f64::from(u32::try_from(batch.len()).unwrap_or(u32::MAX)));
            // In order of tenant, so that two replicas lock heads in the same order.
            let mut tenants: BTreeMap<TenantId, Deeds> = BTreeMap::new();
            for one in batch.drain(..) {
                // A token whose holder hung up was not used yet: they will present it again, here or at another server, and
                // to use it up only then would look like a second use.
                if one.done.is_closed() && matches!(one.deed.what, What::Rotation(_)) {
                    continue;
                }
                tenants.entry(one.deed.tenant).or_default().push(one);
            }
            self.write(tenants).await;
            if self.heads.len() > REMEMBERED {
                self.heads.clear();
            }
        }
    }

    /// One commit for all tenants; if it is known that nothing came of that, one for each, so that a single bad chain stops
    /// nobody else.
    async fn write(&mut self, mut tenants: BTreeMap<TenantId, Deeds>) {
        if tenants.len() > 1 && self.write_together(&mut tenants).await {
            return;
        }
        for (tenant, deeds) in tenants {
            self.write_alone(tenant, deeds).await;
        }
    }

    /// True when there is nothing left to do.
    async fn write_together(&mut self, tenants: &mut BTreeMap<TenantId, Deeds>) -> bool {
        let attempt = async {
            let mut tx = self.store.begin().await?;
            let mut moved = Vec::new();
            for (tenant, deeds) in &*tenants {
                let written = write_locked(&self.key, &self.random, &mut tx, *tenant, deeds).await?;
                moved.push((*tenant, written));
            }
            tx.commit().await.map_err(Failed::Unknown)?;
            Ok(moved)
        };
        match in_time(attempt).await {
            Ok(moved) => {
                for (tenant, (head, outcomes)) in moved {
                    self.heads.extend(head.map(|head| (tenant, head)));
                    tell(tenants.remove(&tenant).unwrap_or_default(), outcomes);
                }
                true
            }
            Err(Failed::Before(error)) => {
                tracing::warn!(error = %error, "a batch of several tenants could not be recorded; each is tried alone");
                false
            }
            Err(Failed::Unknown(error)) => {
                tracing::error!(error = %error, "it is not known whether a batch of several tenants was recorded");
                self.heads.clear();
                // Their requests hear that nobody knows.
                tenants.clear();
                true
            }
        }
    }

    async fn write_alone(&mut self, tenant: TenantId, deeds: Deeds) {
        match self.try_alone(tenant, &deeds).await {
            Ok((head, outcomes)) => {
                self.heads.extend(head.map(|head| (tenant, head)));
                tell(deeds, outcomes);
            }
            Err(Failed::Before(error) | Failed::Unknown(error)) => {
                tracing::error!(tenant.id = %tenant, error = %error, "issued tokens could not be recorded");
                self.heads.remove(&tenant);
            }
        }
    }

    /// Tries where we believe the head to be; if somebody moved it, looks, with a lock, and writes there.
    async fn try_alone(&mut self, tenant: TenantId, deeds: &Deeds) -> Result<(Option<Head>, Vec<Recorded>), Failed> {
        if let Some(believed) = self.heads.get(&tenant)
            && let Some(entries) = plain(deeds)
        {
            let tokens = tokens_of(entries.iter().copied());
            let drafts = entries.iter().map(|entry| entry.draft.clone());
            let (chained, next) = self.key.extend(tenant, believed, drafts, &self.random);
            let batch = Batch { expected: believed, head: &next, entries: &chained, tokens: &tokens };
            if self.scribe.record(tenant, &batch).await? {
                AUDIT_ENTRIES.increment(u64::try_from(chained.len()).unwrap_or(u64::MAX));
                return Ok((Some(next), deeds.iter().map(|_| Recorded::Written).collect()));
            }
        }
        in_time(async {
            let mut tx = self.store.begin_in(tenant).await?;
            let written = write_locked(&self.key, &self.random, &mut tx, tenant, deeds).await?;
            tx.commit().await.map_err(Failed::Unknown)?;
            Ok(written)
        })
        .await
    }
}

/// The entries, if there is nothing else to be written.
fn plain(deeds: &[Waiting]) -> Option<Vec<&Entry>> {
    deeds
        .iter()
        .map(|one| match &one.deed.what {
            What::Entry(entry) => Some(entry),
            What::Opening(..) | What::Rotation(_) => None,
        })
        .collect()
}

/// The server's own time-outs do not help when its host is gone.
async fn in_time<T>(work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or(Err(Failed::Unknown(StoreError::TooSlow)))
}

/// Decides what must be decided under locks, and writes all of it behind the head as it is, locked. Locks are taken in one
/// order everywhere: the tenant, persons and keys, then families, then the head. Returns where the head is then, if it moved.
async fn write_locked(
    key: &ChainKey,
    random: &Random,
    tx: &mut Tx,
    tenant: TenantId,
    deeds: &[Waiting],
) -> Result<(Option<Head>, Vec<Recorded>), StoreError> {
    let mut tx = tx.tenant(tenant).await?;
    let mut openings = Vec::new();
    let mut rotations = Vec::new();
    for one in deeds {
        match &one.deed.what {
            What::Entry(_) => {}
            What::Opening(_, opening) => openings.push(opening.as_ref()),
            What::Rotation(rotation) => rotations.push(rotation.as_ref()),
        }
    }
    let mut opened = open(&mut tx, &openings).await?.into_iter();
    let mut decided = decide(&mut tx, &rotations).await?.into_iter();
    let mut entries = Vec::new();
    let mut outcomes = Vec::new();
    for one in deeds {
        outcomes.push(match &one.deed.what {
            What::Entry(entry) => {
                entries.push(entry.clone());
                Recorded::Written
            }
            What::Opening(entry, _) => match opened.next() {
                Some(true) => {
                    entries.push(entry.clone());
                    Recorded::Written
                }
                _ => Recorded::Overtaken,
            },
            What::Rotation(rotation) => {
                let outcome = decided.next().ok_or_else(|| impossible("a rotation without a decision"))?;
                entries.extend(rotation.entry(&outcome));
                Recorded::Decided(outcome)
            }
        });
    }
    if entries.is_empty() {
        return Ok((None, outcomes));
    }
    let head = tx.lock_audit_head().await?.ok_or_else(|| impossible("a tenant without an audit chain"))?;
    if !key.holds(tenant, &head) {
        return Err(impossible(FORGED));
    }
    let tokens = tokens_of(&entries);
    let (chained, next) = key.extend(tenant, &head, entries.iter().map(|entry| entry.draft.clone()), random);
    let batch = Batch { expected: &head, head: &next, entries: &chained, tokens: &tokens };
    match tx.record(&batch).await? {
        true => {
            AUDIT_ENTRIES.increment(u64::try_from(chained.len()).unwrap_or(u64::MAX));
            Ok((Some(next), outcomes))
        }
        false => Err(impossible("a locked audit head that moved")),
    }
}

/// The tokens that go with the entries.
fn tokens_of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<TokenRow> {
    entries.into_iter().filter_map(|entry| entry.token.clone()).collect()
}

fn impossible(what: &str) -> StoreError {
    StoreError::ImpossibleRow { table: "audit_heads", what: what.to_owned() }
}

fn tell(deeds: Deeds, outcomes: Vec<Recorded>) {
    for (one, outcome) in deeds.into_iter().zip(outcomes) {
        // Nobody listens any more when the caller hung up: the record stands all the same.
        let _ = one.done.send(outcome);
    }
}
