//! Batches through time limits and retries, in virtual time: received answers are kept.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future;
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, Effect, Error, ErrorKind, KeyId, KeyStore, Operation, PutMode,
    Result, SecretKey, StoreInfo, async_trait,
};
use keystead_layers::{Limit, Limited, Resilient, ResilientBuilder};
use keystead_memory::MemoryStore;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// A memory store that counts its calls, answers with a delay, and never answers for some ids.
#[derive(Debug, Default)]
struct Remote {
    memory: MemoryStore,
    latency: Duration,
    bound: Duration,
    hanging: Mutex<HashSet<KeyId>>,
    /// True if a delete that hangs is applied.
    deletes_apply: bool,
    throttles: AtomicU64,
    calls: AtomicU64,
    ids: AtomicU64,
}

impl Remote {
    async fn with_users(users: usize, latency: Duration) -> Self {
        let remote = Self { latency, ..Self::default() };
        for id in ids(users) {
            remote.memory.put_key_with(&id, &key(), PutMode::Create).await.unwrap();
        }
        remote
    }

    fn hang(&self, ids: impl IntoIterator<Item = KeyId>) {
        self.hanging.lock().unwrap().extend(ids);
    }

    fn recover(&self) {
        self.hanging.lock().unwrap().clear();
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    async fn call(&self, ids: &[KeyId], operation: Operation) -> Result<()> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.ids.fetch_add(ids.len() as u64, Ordering::SeqCst);
        sleep(self.latency).await;
        let hangs = ids.iter().any(|id| self.hanging.lock().unwrap().contains(id));
        if hangs {
            if self.deletes_apply && operation == Operation::Delete {
                self.memory.delete_keys(ids).await;
            }
            future::pending::<()>().await;
        }
        let throttled = self.throttles.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match throttled {
            Ok(_) => Err(Error::new(ErrorKind::Throttled, operation, "remote").with_retry_after(SECOND)),
            Err(_) => Ok(()),
        }
    }
}

#[async_trait]
impl KeyStore for Remote {
    fn info(&self) -> StoreInfo {
        self.memory.info()
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.memory.capabilities();
        if !self.bound.is_zero() {
            capabilities.consistency = Consistency::Eventual { within: self.bound };
        }
        capabilities
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.get_keys(std::slice::from_ref(id)).await.remove(0)
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.memory.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.delete_keys(std::slice::from_ref(id)).await.remove(0)
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.memory.list_keys()
    }

    async fn check(&self) -> Result<()> {
        self.memory.check().await
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        match self.call(ids, Operation::Get).await {
            Ok(()) => self.memory.get_keys(ids).await,
            Err(e) => ids.iter().map(|_| Err(e.clone())).collect(),
        }
    }

    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        match self.call(ids, Operation::Delete).await {
            Ok(()) => self.memory.delete_keys(ids).await,
            Err(e) => ids.iter().map(|_| Err(e.clone())).collect(),
        }
    }
}

fn ids(users: usize) -> Vec<KeyId> {
    (0..users).map(id).collect()
}

fn id(index: usize) -> KeyId {
    KeyId::new(format!("user-{index}")).unwrap()
}

fn key() -> SecretKey {
    SecretKey::new([7; 32]).unwrap()
}

type Stack = Resilient<Limited<Arc<Remote>>>;

/// Returns the layers of a service, with default settings except for the limit.
fn limited(remote: &Arc<Remote>, rate: f64, batch_size: usize) -> ResilientBuilder<Limited<Arc<Remote>>> {
    let limit = Limit::builder().rate(rate).batch_size(batch_size).build().unwrap();
    Resilient::builder(Limited::new(remote.clone(), limit))
}

/// Reads and deletes a batch, expects each outcome to be `Ok`, and returns how long each step took.
async fn read_and_delete(stack: &Stack, ids: &[KeyId]) -> [Duration; 2] {
    let begin = Instant::now();
    assert!(stack.get_keys(ids).await.into_iter().all(|outcome| outcome.is_ok()));
    let read = begin.elapsed();
    assert!(stack.delete_keys(ids).await.into_iter().all(|outcome| outcome.is_ok()));
    [read, begin.elapsed() - read]
}

#[tokio::test(start_paused = true)]
async fn a_batch_through_a_rate_limit_is_as_fast_as_the_rate_allows_and_makes_no_extra_call() {
    for latency in [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(400)] {
        for (users, rate, batch_size) in
            [(2_000, 35.0, 1), (2_000, 35.0, 10), (2_000, 35.0, 20), (500, 3.0, 10), (60, 0.5, 1), (777, 100.0, 7)]
        {
            let remote = Arc::new(Remote::with_users(users, latency).await);
            let stack = limited(&remote, rate, batch_size).build().unwrap();
            let took = read_and_delete(&stack, &ids(users)).await;
            let least = users.div_ceil(batch_size) as u64;
            assert_eq!(remote.calls(), 2 * least, "{rate} {batch_size} {latency:?}");
            let expected = Duration::from_secs_f64(least as f64 / rate);
            for took in took {
                // At first each call waits for the one before, until as many are in flight as the
                // rate allows.
                let most = expected.mul_f64(1.1) + 8 * latency + SECOND / 10;
                assert!(took <= most, "{rate} {batch_size} {latency:?}: {took:?}, not {expected:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_batches_and_single_calls_share_a_rate_limit_without_failing() {
    let remote = Arc::new(Remote::with_users(600, SECOND / 20).await);
    let stack = limited(&remote, 10.0, 1).build().unwrap();
    let first = ids(300);
    let second: Vec<KeyId> = (300..600).map(id).collect();
    let (one, two) = tokio::join!(stack.get_keys(&first), stack.get_keys(&second));
    assert!(one.into_iter().chain(two).all(|outcome| outcome.is_ok()));
    assert!(remote.calls() <= 660, "{}", remote.calls());
}

#[tokio::test(start_paused = true)]
async fn an_id_that_hangs_does_not_affect_the_others() {
    for (users, hanging) in
        [(1, vec![0]), (10, vec![3]), (100, vec![99]), (2_000, vec![0]), (2_000, vec![5, 900, 1_999])]
    {
        for batch_size in [1, 10, 100] {
            let remote = Arc::new(Remote::with_users(users, SECOND / 100).await);
            remote.hang(hanging.iter().copied().map(id));
            let begin = Instant::now();
            let stack = limited(&remote, 1_000.0, batch_size).build().unwrap();
            let plain = Resilient::builder(remote.clone()).build().unwrap();
            for outcomes in [stack.get_keys(&ids(users)).await, plain.get_keys(&ids(users)).await] {
                for (index, outcome) in outcomes.into_iter().enumerate() {
                    match outcome {
                        Ok(_) => assert!(!hanging.contains(&index)),
                        Err(e) => assert!(hanging.contains(&index) && e.kind() == ErrorKind::Timeout, "{index}: {e:?}"),
                    }
                }
            }
            assert!(begin.elapsed() < 120 * SECOND, "{:?}", begin.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn many_ids_that_hang_do_not_affect_the_others() {
    // The order of the attempts depends on random pauses.
    fastrand::seed(7);
    for batch_size in [1, 10, 100] {
        let remote = Arc::new(Remote::with_users(500, SECOND / 100).await);
        let hangs = |index: usize| index % 10 == 3;
        remote.hang((0..500).filter(|index| hangs(*index)).map(id));
        let stack = limited(&remote, 1_000.0, batch_size).build().unwrap();
        let plain = Resilient::builder(remote.clone()).build().unwrap();
        let begin = Instant::now();
        for outcomes in [stack.get_keys(&ids(500)).await, plain.get_keys(&ids(500)).await] {
            let lost: Vec<usize> = (0..500).filter(|index| outcomes[*index].is_err() && !hangs(*index)).collect();
            assert!(lost.is_empty(), "{batch_size}: {lost:?}");
        }
        assert!(begin.elapsed() < 3_600 * SECOND, "{:?}", begin.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_that_hangs_fails_alone_even_if_one_call_is_allowed_at_a_time() {
    // The order of the attempts depends on random pauses.
    for _ in 0..20 {
        let remote = Arc::new(Remote::with_users(200, SECOND / 100).await);
        remote.hang([id(17), id(120)]);
        let limit = Limit::builder().concurrency(1).build().unwrap();
        let stack = Resilient::builder(Limited::new(remote.clone(), limit)).max_attempts(3).build().unwrap();
        let outcomes = stack.get_keys(&ids(200)).await;
        let failed: Vec<usize> = (0..200).filter(|index| outcomes[*index].is_err()).collect();
        assert_eq!(failed, [17, 120]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_ends_a_batch_of_any_size_at_the_deadline() {
    let remote = Arc::new(Remote::default());
    remote.hang(ids(2_000));
    let stack = limited(&remote, 35.0, 10).build().unwrap();
    let begin = Instant::now();
    let outcomes = stack.delete_keys(&ids(2_000)).await;
    assert!(begin.elapsed() <= 20 * SECOND + Duration::from_millis(5), "{:?}", begin.elapsed());
    let timed_out = |outcome: &Result<Deletion>| outcome.as_ref().is_err_and(|e| e.kind() == ErrorKind::Timeout);
    assert!(outcomes.iter().all(timed_out));
    // Deletes that were sent may have been applied. Those that were not sent have not.
    let sent = remote.ids.load(Ordering::SeqCst) as usize;
    let unknown =
        outcomes.iter().filter(|outcome| outcome.as_ref().is_err_and(|e| e.effect() == Effect::Unknown)).count();
    assert!((10..200).contains(&unknown) && unknown <= sent, "{unknown} of {sent}");
    assert_eq!(outcomes[0].as_ref().unwrap_err().effect(), Effect::Unknown);
    assert_eq!(outcomes[1_999].as_ref().unwrap_err().effect(), Effect::NotApplied);
}

#[tokio::test(start_paused = true)]
async fn the_answers_before_a_store_falls_silent_are_kept() {
    let remote = Arc::new(Remote::with_users(1_000, SECOND / 20).await);
    let stack = limited(&remote, 10.0, 1).build().unwrap();
    let all = ids(1_000);
    let silence = async {
        sleep(50 * SECOND).await;
        remote.hang(ids(1_000));
    };
    let begin = Instant::now();
    let (outcomes, ()) = tokio::join!(stack.get_keys(&all), silence);
    let answered = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!((480..=510).contains(&answered), "{answered}");
    assert!(begin.elapsed() <= 71 * SECOND, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_outage_within_the_deadline_costs_no_answer() {
    let remote = Arc::new(Remote::with_users(300, SECOND / 20).await);
    let stack = limited(&remote, 10.0, 1).build().unwrap();
    let all = ids(300);
    let outage = async {
        sleep(5 * SECOND).await;
        remote.hang(ids(300));
        sleep(8 * SECOND).await;
        remote.recover();
    };
    let (outcomes, ()) = tokio::join!(stack.get_keys(&all), outage);
    assert!(outcomes.iter().all(|outcome| outcome.is_ok()));
}

#[tokio::test(start_paused = true)]
async fn only_the_throttled_ids_of_a_batch_are_retried() {
    let remote = Arc::new(Remote::with_users(200, SECOND / 100).await);
    remote.throttles.store(3, Ordering::SeqCst);
    let stack = limited(&remote, 100.0, 10).build().unwrap();
    assert!(stack.get_keys(&ids(200)).await.into_iter().all(|outcome| outcome.is_ok()));
    assert_eq!(remote.calls(), 23);
}

#[tokio::test(start_paused = true)]
async fn a_throttling_store_is_not_called_for_as_long_as_it_asks() {
    let remote = Arc::new(Remote::with_users(2_000, SECOND / 100).await);
    remote.throttles.store(1, Ordering::SeqCst);
    let stack = Resilient::builder(remote.clone()).build().unwrap();
    let all = ids(2_000);
    let looking = async {
        sleep(SECOND).await;
        assert_eq!(remote.calls(), 1);
    };
    let (outcomes, ()) = tokio::join!(stack.get_keys(&all), looking);
    assert!(outcomes.iter().all(|outcome| outcome.is_ok()));
}

#[tokio::test(start_paused = true)]
async fn a_delete_without_an_answer_is_settled_for_each_id_separately() {
    for bound in [Duration::ZERO, 5 * SECOND] {
        let mut remote = Remote::with_users(30, SECOND / 100).await;
        remote.bound = bound;
        remote.deletes_apply = true;
        let remote = Arc::new(remote);
        remote.hang([id(4)]);
        let stack = limited(&remote, 100.0, 10).build().unwrap();
        let mut all = ids(30);
        all.push(KeyId::new("nobody").unwrap());
        let recovery = async {
            sleep(SECOND).await;
            remote.recover();
        };
        let (outcomes, ()) = tokio::join!(stack.delete_keys(&all), recovery);
        for (index, outcome) in outcomes.into_iter().enumerate() {
            match (index, bound.is_zero()) {
                // The keys of the chunk that hung are gone. On an eventually consistent store that
                // does not prove who deleted them.
                (0..10, false) => {
                    let e = outcome.unwrap_err();
                    assert_eq!((e.kind(), e.effect()), (ErrorKind::NotFound, Effect::Unknown), "{index}");
                }
                (30, _) => {
                    let e = outcome.unwrap_err();
                    assert_eq!((e.kind(), e.effect()), (ErrorKind::NotFound, Effect::NotApplied));
                }
                _ => drop(outcome.unwrap()),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeated_id_is_sent_once_and_an_empty_batch_not_at_all() {
    let remote = Arc::new(Remote::with_users(3, Duration::ZERO).await);
    let stack = limited(&remote, 100.0, 10).build().unwrap();
    let outcomes = stack.delete_keys(&[id(0), id(1), id(0), id(2), id(0)]).await;
    assert!(outcomes.len() == 5 && outcomes.into_iter().all(|outcome| outcome.is_ok()));
    assert_eq!(remote.ids.load(Ordering::SeqCst), 3);
    assert!(stack.get_keys(&[]).await.is_empty());
    assert_eq!(remote.calls(), 1);
}
