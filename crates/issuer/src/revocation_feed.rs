//! The revocation feed: what a service that verifies offline follows to learn what counts no more.
//!
//! A reader says how far it has read (a cursor) and gets what came after it, signed. Without a cursor it gets all that is
//! of use: the same list, from its beginning. Entries are numbered without gaps in the order of their commits, so a batch
//! that begins where the last one ended misses nothing.
//!
//! ```text
//! a row changes ─ trigger at the commit ─► revocations
//!               └ news of the row ─► Feeds::wake ─► waiting readers ask once for all of them
//! ```
//!
//! Who waits holds no connection. Readers of one tenant that are at the same place share one query and one signature. While
//! news is late (`directory.rs`), nothing is shared and nobody is told that nothing happened: the database is asked, or the
//! reader is sent away.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use claviger_store::id::TenantId;
use claviger_store::issued_token::UNENDING;
use claviger_store::revocation::{Revocation, RevocationPage};
use moka::sync::Cache;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, watch};

use crate::measure::FEED_DELAY;
use crate::mint::sign_as;
use crate::{Failure, Fault, Issuer};

/// `typ` of a batch.
pub const BATCH_TYPE: &str = "revocations+jwt";
/// Entries of one batch: some hundred kilobytes.
const BATCH: u16 = 5_000;
/// Readers that may wait, in this process.
const MOST_READERS: usize = 20_000;
/// Readers of one tenant that may wait: one tenant's readers leave room for others'.
const MOST_READERS_OF_TENANT: usize = 5_000;
/// Seconds for which a batch may be told again: it says when it was made.
const SHARED_FOR: i64 = 5;
/// Bytes of batches that are kept to be told again.
const KEPT_BYTES: u64 = 64 * 1024 * 1024;
/// Between looks at whether news still comes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A signed part of the list.
pub struct Batch {
    /// A compact JWS.
    pub jws: String,
    /// Where the next batch begins.
    pub cursor: i64,
    /// True when there is more to be read at once.
    pub more: bool,
    /// True when it says something new to whoever asked.
    pub news: bool,
}

/// The claims of a batch.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    /// When this was so, in whole seconds.
    iat: i64,
    tid: TenantId,
    /// The cursor that it begins after; `null` is the beginning: what was known before is to be forgotten.
    prev: Option<i64>,
    /// The cursor that it ends with.
    cursor: i64,
    /// True when there is more to be read at once.
    more: bool,
    /// `[claim, value, until, before]` each; `until` is `null` for what never ends, `before` is absent where all tokens are
    /// meant.
    entries: Vec<Value>,
}

/// What a page says to whoever has read as far as `since`.
fn compose<'a>(issuer: &'a str, tenant: TenantId, since: Option<i64>, page: &RevocationPage, now: DateTime<Utc>) -> Claims<'a> {
    let RevocationPage { entries, head } = page;
    let more = entries.len() >= usize::from(BATCH);
    let cursor = entries.last().filter(|_| more).map_or(*head, |last| last.seq);
    let entries = entries.iter().map(compact).collect();
    Claims { iss: issuer, iat: now.timestamp(), tid: tenant, prev: since, cursor, more, entries }
}

fn compact(entry: &Revocation) -> Value {
    let Revocation { seq: _, stops, id, before, until } = entry;
    // Up to the next whole second: an entry may live longer, never shorter.
    let until = Some(until.timestamp()).filter(|until| *until < UNENDING).map(|until| until + 1);
    match before {
        None => json!([stops.claim(), id, until]),
        Some(before) => json!([stops.claim(), id, until, before.timestamp()]),
    }
}

/// Tenant, cursor, news, and the time in steps of [`SHARED_FOR`].
type Place = (TenantId, Option<i64>, u64, i64);

/// Who waits, and what was told a moment ago.
pub(crate) struct Feeds {
    waiting: Mutex<Waiting>,
    seats: Arc<Semaphore>,
    made: Cache<Place, Arc<OnceCell<Arc<Batch>>>>,
}

struct Waiting {
    /// Counts news. Never goes back, so that nothing older is taken for what is now.
    news: u64,
    tenants: HashMap<TenantId, watch::Sender<News>>,
    closed: bool,
}

/// The newest news of a tenant.
#[derive(Debug, Clone, Copy)]
struct News {
    number: u64,
    heard: Instant,
}

impl Waiting {
    fn newest(&self) -> News {
        News { number: self.news, heard: Instant::now() }
    }
}

impl Feeds {
    pub(crate) fn new() -> Self {
        let weigh = |_: &Place, made: &Arc<OnceCell<Arc<Batch>>>| {
            made.get().map_or(1024, |batch| u32::try_from(batch.jws.len()).unwrap_or(u32::MAX))
        };
        Self {
            waiting: Mutex::new(Waiting { news: 1, tenants: HashMap::new(), closed: false }),
            seats: Arc::new(Semaphore::new(MOST_READERS)),
            made: Cache::builder().max_capacity(KEPT_BYTES).weigher(weigh).time_to_live(Duration::from_secs(10)).build(),
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something may have been revoked in that tenant.
    pub(crate) fn wake(&self, tenant: TenantId) {
        let mut waiting = self.waiting();
        waiting.news += 1;
        let news = waiting.newest();
        if let Some(readers) = waiting.tenants.get(&tenant)
            && readers.send(news).is_err()
        {
            waiting.tenants.remove(&tenant);
        }
    }

    /// Something may have been revoked anywhere.
    pub(crate) fn wake_all(&self) {
        let mut waiting = self.waiting();
        waiting.news += 1;
        let news = waiting.newest();
        waiting.tenants.retain(|_, readers| readers.send(news).is_ok());
    }

    /// Readers that wait.
    pub(crate) fn readers(&self) -> usize {
        MOST_READERS - self.seats.available_permits()
    }

    /// Sends all readers away, and those who come: the server is about to stop.
    fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        waiting.tenants.clear();
    }

    /// The count of news now, for who does not wait.
    pub(crate) fn news(&self) -> u64 {
        self.waiting().news
    }

    /// `None` when the server is about to stop.
    fn sit_down(&self, tenant: TenantId) -> Result<Option<(OwnedSemaphorePermit, watch::Receiver<News>)>, Fault> {
        let full = Fault::Overloaded("the revocation feed");
        let Ok(seat) = self.seats.clone().try_acquire_owned() else { return Err(full) };
        let mut waiting = self.waiting();
        if waiting.closed {
            return Ok(None);
        }
        let news = waiting.newest();
        let readers = waiting.tenants.entry(tenant).or_insert_with(|| watch::Sender::new(news));
        if readers.receiver_count() >= MOST_READERS_OF_TENANT {
            return Err(full);
        }
        Ok(Some((seat, readers.subscribe())))
    }
}

/// Somebody who waits for what comes.
pub struct Reader {
    tenant: TenantId,
    since: Option<i64>,
    news: watch::Receiver<News>,
    _seat: OwnedSemaphorePermit,
}

impl Issuer {
    /// What was revoked in a tenant after that cursor; `None` is the beginning.
    pub async fn revocations(&self, tenant: TenantId, since: Option<i64>) -> Result<Arc<Batch>, Failure> {
        self.batch(tenant, since, self.feeds.news()).await
    }

    /// Waits for what is revoked in a tenant after that cursor. `Ok(None)` when the server is about to stop.
    pub fn follow_revocations(&self, tenant: TenantId, since: Option<i64>) -> Result<Option<Reader>, Failure> {
        Ok(self.feeds.sit_down(tenant)?.map(|(seat, news)| Reader { tenant, since, news, _seat: seat }))
    }

    /// The next batch: as soon as there is something new, else an empty one after `patience`. `None` when the server is
    /// about to stop.
    pub async fn next_revocations(&self, reader: &mut Reader, patience: Duration) -> Result<Option<Arc<Batch>>, Failure> {
        let began = Instant::now();
        loop {
            let news = *reader.news.borrow_and_update();
            let batch = self.batch(reader.tenant, reader.since, news.number).await?;
            let left = patience.saturating_sub(began.elapsed());
            // What was there before the reader asked took no time to arrive.
            if batch.news && news.heard > began {
                FEED_DELAY.record(news.heard.elapsed());
            }
            if batch.news || left.is_zero() {
                reader.since = Some(batch.cursor);
                return Ok(Some(batch));
            }
            // Looked at again now and then: when news is late, the database is asked.
            tokio::select! {
                changed = reader.news.changed() => if changed.is_err() { return Ok(None) },
                () = tokio::time::sleep(left.min(LOOK_EVERY)) => {}
            }
        }
    }

    /// Sends all readers of the feeds away: the server is about to stop.
    pub fn close_revocation_feeds(&self) {
        self.feeds.close();
    }

    async fn batch(&self, tenant: TenantId, since: Option<i64>, news: u64) -> Result<Arc<Batch>, Failure> {
        if !self.directory.is_trusted() {
            return self.make_batch(tenant, since).await;
        }
        let place = (tenant, since, news, self.clock.now().timestamp() / SHARED_FOR);
        let cell = self.feeds.made.get_with(place, || Arc::new(OnceCell::new()));
        let ours = AtomicBool::new(false);
        let make = || {
            ours.store(true, Ordering::Relaxed);
            self.make_batch(tenant, since)
        };
        let batch = cell.get_or_try_init(make).await?.clone();
        if ours.into_inner() {
            // Weighed again, now that it is there.
            self.feeds.made.insert(place, cell);
        }
        Ok(batch)
    }

    /// Writes down which keys of a tenant ended by themselves: then no row changes, so whoever asks what is revoked looks
    /// first. Other servers hear of it.
    pub(crate) async fn note_ended_keys(&self, tenant: TenantId, now: DateTime<Utc>) -> Result<(), Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        if scoped.has_unnoted_end(now).await? {
            scoped.note_ends(now).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    async fn make_batch(&self, tenant: TenantId, since: Option<i64>) -> Result<Arc<Batch>, Failure> {
        let now = self.clock.now();
        let entry = self.directory.tenant(tenant).await?.ok_or_else(|| Fault::Internal("a tenant that is gone".into()))?;
        self.note_ended_keys(tenant, now).await?;
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        let mut since = since;
        let mut page = scoped.revocations(since.unwrap_or(0), BATCH).await?;
        if since.is_some_and(|since| page.head < since) {
            // A cursor that we never gave, as after the database was put back to an earlier state.
            since = None;
            page = scoped.revocations(0, BATCH).await?;
        }
        drop(tx);
        let claims = compose(&entry.issuer, tenant, since, &page, now);
        let (cursor, more, news) = (claims.cursor, claims.more, since != Some(claims.cursor));
        let claims = serde_json::to_vec(&claims).map_err(|error| Fault::Internal(error.to_string()))?;
        let jws = sign_as(BATCH_TYPE, entry.signer(&self.clock)?, &claims)?;
        Ok(Arc::new(Batch { jws, cursor, more, news }))
    }
}

#[cfg(test)]
mod tests {
    use claviger_store::revocation::Stops;
    use uuid::Uuid;

    use super::*;

    fn entry(seq: i64) -> Revocation {
        let until = DateTime::from_timestamp(2000, 500_000_000).unwrap();
        Revocation { seq, stops: Stops::Login, id: "s".into(), before: None, until }
    }

    #[test]
    fn an_entry_says_no_more_than_it_must() {
        assert_eq!(compact(&entry(1)), json!(["sid", "s", 2001]));
        let before = DateTime::from_timestamp(1000, 999_000_000);
        assert_eq!(compact(&Revocation { before, ..entry(1) }), json!(["sid", "s", 2001, 1000]));
        let until = DateTime::from_timestamp(UNENDING, 0).unwrap();
        assert_eq!(compact(&Revocation { until, ..entry(1) }), json!(["sid", "s", null]));
    }

    #[test]
    fn a_full_batch_ends_with_its_last_entry_and_others_with_the_head() {
        let tenant = TenantId(Uuid::nil());
        let page = |entries| RevocationPage { entries, head: 90_000 };
        let now = DateTime::from_timestamp(1000, 0).unwrap();
        let full = page((1..=i64::from(BATCH)).map(entry).collect());
        let claims = compose("i", tenant, None, &full, now);
        assert_eq!((claims.prev, claims.cursor, claims.more), (None, i64::from(BATCH), true));
        // Numbers that are missing belong to entries of no use any more.
        let rest = page(vec![entry(5_007)]);
        let claims = compose("i", tenant, Some(5_000), &rest, now);
        assert_eq!((claims.prev, claims.cursor, claims.more), (Some(5_000), 90_000, false));
    }

    #[test]
    fn readers_hear_of_their_tenant_alone_and_old_news_is_never_taken_for_new() {
        let (one, other) = (TenantId(Uuid::from_u128(1)), TenantId(Uuid::from_u128(2)));
        let feeds = Feeds::new();
        let (_seat, mut reader) = feeds.sit_down(one).unwrap().unwrap();
        reader.mark_unchanged();
        feeds.wake(other);
        assert!(!reader.has_changed().unwrap());
        let before = reader.borrow().number;
        feeds.wake(one);
        assert!(reader.has_changed().unwrap());
        assert!(reader.borrow_and_update().number > before);
        feeds.wake_all();
        assert!(reader.has_changed().unwrap());
        // Somebody who comes after all others have left.
        let last = reader.borrow_and_update().number;
        drop(reader);
        feeds.wake(one);
        let (_seat, late) = feeds.sit_down(one).unwrap().unwrap();
        assert!(late.borrow().number > last);
        feeds.close();
        assert!(feeds.sit_down(one).unwrap().is_none());
    }
}
