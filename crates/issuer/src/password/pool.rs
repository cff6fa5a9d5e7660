//! Threads of their own for work that takes a processor and memory for a long time, and the gate before them.
//!
//! Nobody waits here for longer than is bearable: a job that could not begin in time is refused at once, and one that did
//! not begin in time leaves the queue. A caller that hangs up takes its job along.

use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use claviger_store::id::TenantId;
use tokio::sync::oneshot;

use super::queue::{FairQueue, Place};
use crate::{Failure, Fault};

/// How long a job may wait until it begins.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Jobs that may wait.
const LONGEST_QUEUE: usize = 10_000;
/// How long a thread without a job keeps what is on its bench.
const REST: Duration = Duration::from_secs(60);
/// How much the last job weighs in the average: one part in so many.
const MEMORY_OF_THE_AVERAGE: u32 = 8;

/// Work on a thread's bench: what the thread keeps from job to job.
type Job<B> = Box<dyn FnOnce(&mut B) + Send>;

struct State<B> {
    queue: FairQueue<Job<B>>,
    running: usize,
    /// What a job takes, lately.
    average: Duration,
    closed: bool,
}

struct Shared<B> {
    state: Mutex<State<B>>,
    /// Told when there is a job, or when there will be none any more.
    news: Condvar,
    threads: usize,
}

impl<B> Shared<B> {
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        // Jobs run without the lock, and what is done under it leaves nothing half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> State<B> {
    fn expected_wait(&self, tenant: TenantId, threads: usize) -> Duration {
        // Until a thread is free when none is now, and then until it is this job's turn.
        let ahead = self.queue.ahead_of(tenant) + usize::from(self.running >= threads);
        let rounds = self.average.saturating_mul(u32::try_from(ahead).unwrap_or(u32::MAX));
        rounds / u32::try_from(threads).unwrap_or(u32::MAX)
    }
}

/// The threads. They end when this is dropped.
pub(super) struct Pool<B> {
    shared: Arc<Shared<B>>,
}

impl<B: 'static> Pool<B> {
    /// Starts so many threads, or as many as there are cores for 0. `average` is what a job is believed to take.
    pub(super) fn start(threads: usize, average: Duration, bench: impl Fn() -> B + Clone + Send + 'static) -> io::Result<Self> {
        Self::start_resting(threads, average, REST, bench)
    }

    fn start_resting(
        threads: usize,
        average: Duration,
        rest: Duration,
        bench: impl Fn() -> B + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let threads = match threads {
            0 => thread::available_parallelism().map_or(1, NonZeroUsize::get),
            some => some,
        };
        let state = State { queue: FairQueue::new(), running: 0, average, closed: false };
        let pool = Self { shared: Arc::new(Shared { state: Mutex::new(state), news: Condvar::new(), threads }) };
        for _ in 0..threads {
            let (shared, bench) = (pool.shared.clone(), bench.clone());
            thread::Builder::new().name("password".into()).spawn(move || serve(&shared, rest, bench))?;
        }
        Ok(pool)
    }

    /// How long a new job of this tenant would wait until it begins.
    pub(super) fn expected_wait(&self, tenant: TenantId) -> Duration {
        self.shared.lock().expected_wait(tenant, self.shared.threads)
    }

    /// How many jobs wait, and how many are being done.
    pub(super) fn load(&self) -> (usize, usize) {
        let state = self.shared.lock();
        (state.queue.length(), state.running)
    }

    /// Has a job done. Refused as overload when it would not begin in time, or did not.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        tenant: TenantId,
        work: impl FnOnce(&mut B) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (tell, mut answer) = oneshot::channel();
        let job = Box::new(move |bench: &mut B| {
            // Nobody listens any more when the caller hung up.
            let _ = tell.send(work(bench));
        });
        let waiting = self.enqueue(tenant, job)?;
        let answer = match tokio::time::timeout(PATIENCE, &mut answer).await {
            Ok(answer) => answer,
            Err(_) if waiting.leave() => return Err(overloaded().into()),
            // It began: it will also end.
            Err(_) => answer.await,
        };
        answer.map_err(|_| Fault::Internal("a password job ended without an answer".into()).into())
    }

    fn enqueue(&self, tenant: TenantId, job: Job<B>) -> Result<Waiting<'_, B>, Fault> {
        let mut state = self.shared.lock();
        if state.queue.length() >= LONGEST_QUEUE || state.expected_wait(tenant, self.shared.threads) > PATIENCE {
            return Err(overloaded());
        }
        let place = state.queue.push(tenant, job);
        self.shared.news.notify_one();
        Ok(Waiting { shared: &self.shared, place })
    }
}

impl<B> Drop for Pool<B> {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.news.notify_all();
    }
}

pub(super) fn overloaded() -> Fault {
    Fault::Overloaded("password checking")
}

/// Somebody who waits for a job, and takes it out of the queue when leaving before it began.
struct Waiting<'a, B> {
    shared: &'a Shared<B>,
    place: Place,
}

impl<B> Waiting<'_, B> {
    /// False when the job began before.
    fn leave(&self) -> bool {
        let job = self.shared.lock().queue.take_out(self.place);
        job.is_some()
    }
}

impl<B> Drop for Waiting<'_, B> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A thread's life. Its bench is another after each long rest: what lay on the old one is needed by others meanwhile.
fn serve<B>(shared: &Shared<B>, rest: Duration, make: impl Fn() -> B) {
    give_way();
    let mut bench = make();
    let mut worn = false;
    let mut state = shared.lock();
    while !state.closed {
        let Some(job) = state.queue.pop() else {
            let rested = match worn {
                true => {
                    let waited = shared.news.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner);
                    state = waited.0;
                    waited.1.timed_out()
                }
                false => {
                    state = shared.news.wait(state).unwrap_or_else(PoisonError::into_inner);
                    false
                }
            };
            if rested && state.queue.length() == 0 {
                drop(state);
                (bench, worn) = (make(), false);
                state = shared.lock();
            }
            continue;
        };
        worn = true;
        state.running += 1;
        drop(state);
        let began = Instant::now();
        // A job that panics drops its half of the channel, which is its answer. What it leaves on the bench is memory
        // that the next job writes before it reads.
        let _ = catch_unwind(AssertUnwindSafe(|| job(&mut bench)));
        let took = began.elapsed();
        state = shared.lock();
        state.running -= 1;
        state.average = (state.average * (MEMORY_OF_THE_AVERAGE - 1) + took) / MEMORY_OF_THE_AVERAGE;
    }
}

/// Lowers this thread's priority, so that a flood of logins takes no time from tokens.
fn give_way() {
    // A system that forbids it runs these threads like all others: slower answers elsewhere, none that is wrong.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 10);
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::mpsc;

    use futures_util::future::poll_immediate;
    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId(Uuid::from_u128(number))
    }

    fn pool(threads: usize, average: Duration) -> Arc<Pool<()>> {
        Arc::new(Pool::start(threads, average, || ()).unwrap())
    }

    fn is_overload<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> bool {
        matches!(outcome.unwrap_err(), Failure::Fault(Fault::Overloaded("password checking")))
    }

    /// Keeps a pool's only thread busy until the sender is dropped.
    async fn occupy(pool: &Arc<Pool<()>>) -> (mpsc::Sender<()>, tokio::task::JoinHandle<()>) {
        let (release, released) = mpsc::channel::<()>();
        let (began, has_begun) = oneshot::channel();
        let pool = pool.clone();
        let task = tokio::spawn(async move {
            let work = move |(): &mut ()| {
                began.send(()).unwrap();
                let _ = released.recv();
            };
            pool.run(tenant(0), work).await.unwrap();
        });
        has_begun.await.unwrap();
        (release, task)
    }

    #[tokio::test]
    async fn a_tenant_with_a_full_row_delays_another_by_one_job() {
        let pool = pool(1, Duration::ZERO);
        let (release, first) = occupy(&pool).await;
        let (done, order) = mpsc::channel();
        let mut tasks = Vec::new();
        for who in std::iter::repeat_n(1, 200).chain([2]) {
            let (pool, done) = (pool.clone(), done.clone());
            tasks.push(tokio::spawn(async move { pool.run(tenant(who), move |()| done.send(who).unwrap()).await }));
        }
        while pool.shared.lock().queue.length() < 201 {
            tokio::task::yield_now().await;
        }
        drop(release);
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        first.await.unwrap();
        assert_eq!(order.try_iter().position(|who| who == 2), Some(1));
    }

    #[tokio::test]
    async fn a_job_that_was_abandoned_is_never_done() {
        let pool = pool(1, Duration::ZERO);
        let (release, first) = occupy(&pool).await;
        let (done, jobs_done) = mpsc::channel();
        {
            let mut abandoned = pin!(pool.run(tenant(1), {
                let done = done.clone();
                move |()| done.send("abandoned").unwrap()
            }));
            assert!(poll_immediate(&mut abandoned).await.is_none());
            assert_eq!(pool.shared.lock().queue.length(), 1);
        }
        assert_eq!(pool.shared.lock().queue.length(), 0);
        let kept = pool.run(tenant(1), move |()| done.send("kept").unwrap());
        let mut kept = pin!(kept);
        assert!(poll_immediate(&mut kept).await.is_none());
        drop(release);
        kept.await.unwrap();
        first.await.unwrap();
        assert_eq!(jobs_done.iter().collect::<Vec<_>>(), ["kept"]);
    }

    #[tokio::test]
    async fn what_would_wait_too_long_is_refused_at_once_and_admitted_again_later() {
        let pool = pool(1, Duration::from_secs(3600));
        assert_eq!(pool.expected_wait(tenant(1)), Duration::ZERO);
        let (release, first) = occupy(&pool).await;
        assert_eq!(pool.expected_wait(tenant(1)), Duration::from_secs(3600));
        // At once: the first poll answers.
        assert!(is_overload(poll_immediate(pool.run(tenant(1), |()| ())).await.unwrap()));
        drop(release);
        first.await.unwrap();
        while pool.shared.lock().running > 0 {
            tokio::task::yield_now().await;
        }
        // One long estimate is no verdict for ever: an idle thread takes any job.
        pool.run(tenant(1), |()| ()).await.unwrap();
    }

    #[tokio::test]
    async fn the_expected_wait_counts_turns_and_threads() {
        let pool = pool(1, Duration::ZERO);
        let (release, first) = occupy(&pool).await;
        let mut rows = Vec::new();
        for who in [1, 1, 1, 1, 2] {
            let mut row = Box::pin(pool.run(tenant(who), |()| ()));
            assert!(poll_immediate(&mut row).await.is_none());
            rows.push(row);
        }
        {
            let mut state = pool.shared.lock();
            state.average = Duration::from_millis(100);
            assert_eq!(state.expected_wait(tenant(1), 1), Duration::from_millis(600));
            assert_eq!(state.expected_wait(tenant(2), 1), Duration::from_millis(400));
            assert_eq!(state.expected_wait(tenant(3), 1), Duration::from_millis(300));
            // With two threads, of which one is idle.
            assert_eq!(state.expected_wait(tenant(3), 2), Duration::from_millis(100));
        }
        drop(release);
        first.await.unwrap();
    }

    #[tokio::test]
    async fn what_did_not_begin_in_time_leaves_the_queue() {
        let pool = pool(1, Duration::ZERO);
        let (release, first) = occupy(&pool).await;
        assert!(is_overload(pool.run(tenant(1), |()| ()).await));
        assert_eq!(pool.shared.lock().queue.length(), 0);
        // The one that began was not given up, although it took longer.
        drop(release);
        first.await.unwrap();
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let pool = pool(1, Duration::ZERO);
        let (release, first) = occupy(&pool).await;
        for number in 0..LONGEST_QUEUE {
            pool.shared.lock().queue.push(tenant(number as u128), Box::new(|()| ()));
        }
        assert!(is_overload(poll_immediate(pool.run(tenant(1), |()| ())).await.unwrap()));
        drop(release);
        first.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_ends_its_job_alone() {
        let pool = pool(1, Duration::ZERO);
        for _ in 0..3 {
            let outcome = pool.run(tenant(1), |()| panic!("a job that fails")).await;
            let outcome: Result<(), Failure> = outcome;
            assert!(matches!(outcome, Err(Failure::Fault(Fault::Internal(_)))));
        }
        assert_eq!(pool.run(tenant(1), |()| 7).await.unwrap(), 7);
        while pool.shared.lock().running > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_average_follows_what_jobs_take() {
        let pool = pool(1, Duration::from_secs(1));
        for _ in 0..100 {
            pool.run(tenant(1), |()| ()).await.unwrap();
        }
        // 100 jobs later, the wrong estimate weighs a millionth.
        assert!(pool.shared.lock().average < Duration::from_millis(500));
    }

    #[tokio::test]
    async fn threads_end_with_their_pool() {
        struct Bench(mpsc::Sender<()>);
        let (alive, ended) = mpsc::channel();
        let pool = Pool::start(3, Duration::ZERO, move || Bench(alive.clone())).unwrap();
        pool.run(tenant(1), |bench: &mut Bench| bench.0.send(()).unwrap()).await.unwrap();
        assert_eq!(ended.try_iter().count(), 1);
        drop(pool);
        // Ends when the last bench is gone.
        assert_eq!(ended.iter().count(), 0);
    }

    #[tokio::test]
    async fn a_thread_that_rests_clears_its_bench_and_works_on() {
        struct Bench(mpsc::Sender<()>);
        impl Drop for Bench {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let (cleared, clearings) = mpsc::channel();
        let bench = move || Bench(cleared.clone());
        let pool = Pool::start_resting(1, Duration::ZERO, Duration::from_millis(20), bench).unwrap();
        let patience = Duration::from_secs(30);
        for _ in 0..2 {
            pool.run(tenant(1), |_: &mut Bench| ()).await.unwrap();
            clearings.recv_timeout(patience).unwrap();
        }
        // Once for each rest: nothing was done since.
        assert!(clearings.recv_timeout(Duration::from_millis(200)).is_err());
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn threads_give_way_to_all_others() {
        let pool = pool(1, Duration::ZERO);
        let priority = |(): &mut ()| rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
        let before = rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
        assert_eq!(pool.run(tenant(1), priority).await.unwrap(), 10);
        assert_eq!(rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap(), before);
    }
}
