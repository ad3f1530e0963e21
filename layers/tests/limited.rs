//! `Limited`: the rate and the concurrency of calls, in virtual time.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use keystead_core::{
    BoxStream, Capabilities, Deletion, ErrorKind, KeyId, KeyStore, KeyStoreExt, PutMode, Result, SecretKey, StoreInfo,
    async_trait,
};
use keystead_layers::{Limit, LimitBuilder, Limited};
use keystead_memory::MemoryStore;
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

/// A memory store that answers with a delay and logs its calls.
#[derive(Clone, Debug, Default)]
struct Slow {
    keys: MemoryStore,
    latency: Duration,
    log: Arc<Mutex<CallLog>>,
}

#[derive(Debug, Default)]
struct CallLog {
    in_flight: usize,
    most_in_flight: usize,
    starts: Vec<Instant>,
    batches: Vec<usize>,
}

impl Slow {
    fn new(latency: Duration) -> Self {
        Self { latency, ..Self::default() }
    }

    async fn call<T>(&self, call: impl Future<Output = T>) -> T {
        {
            let mut log = self.log.lock().unwrap();
            log.starts.push(Instant::now());
            log.in_flight += 1;
            log.most_in_flight = log.most_in_flight.max(log.in_flight);
        }
        if !self.latency.is_zero() {
            sleep(self.latency).await;
        }
        self.log.lock().unwrap().in_flight -= 1;
        call.await
    }

    /// Returns the times at which the calls started, counted from the first.
    fn starts(&self) -> Vec<Duration> {
        let starts = &self.log.lock().unwrap().starts;
        starts.iter().map(|start| *start - starts[0]).collect()
    }
}

#[async_trait]
impl KeyStore for Slow {
    fn info(&self) -> StoreInfo {
        self.keys.info()
    }

    fn capabilities(&self) -> Capabilities {
        self.keys.capabilities()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.call(self.keys.get_key(id)).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.call(self.keys.put_key_with(id, key, mode)).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.call(self.keys.delete_key(id)).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.keys.list_keys()
    }

    async fn check(&self) -> Result<()> {
        self.call(self.keys.check()).await
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        self.log.lock().unwrap().batches.push(ids.len());
        self.call(self.keys.get_keys(ids)).await
    }

    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        self.log.lock().unwrap().batches.push(ids.len());
        self.call(self.keys.delete_keys(ids)).await
    }
}

fn limited(store: &Slow, limit: LimitBuilder) -> Limited<Slow> {
    Limited::new(store.clone(), limit.build().unwrap())
}

fn id(index: usize) -> KeyId {
    KeyId::new(format!("user-{index}")).unwrap()
}

fn key() -> SecretKey {
    SecretKey::generate(32).unwrap()
}

fn millis<const N: usize>(times: [u64; N]) -> [Duration; N] {
    times.map(Duration::from_millis)
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_ten_thousand_keys_keeps_within_the_rate_and_the_concurrency() {
    let slow = Slow::new(Duration::from_millis(60));
    let store = limited(&slow, Limit::builder().rate(100.0).burst(5).concurrency(8));
    let key = key();

    let began = Instant::now();
    let copied = stream::iter(0..10_000).map(Ok).try_for_each_concurrent(64, |index| {
        let store = &store;
        let key = &key;
        async move { store.put_key(&id(index), key).await }
    });
    copied.await.unwrap();
    let took = began.elapsed();

    assert_eq!(slow.keys.list_keys().count().await, 10_000);
    // Five slots were saved, so the last call starts after 99.95 seconds.
    assert!(took >= Duration::from_millis(99_950) && took < Duration::from_millis(100_100), "{took:?}");
    for window in slow.starts().windows(101) {
        let span = window[100] - window[0];
        assert!(span >= Duration::from_millis(960), "101 calls within {span:?}");
    }
    assert_eq!(slow.log.lock().unwrap().most_in_flight, 8);
}

#[tokio::test(start_paused = true)]
async fn simultaneous_calls_start_one_by_one_in_order() {
    let slow = Slow::new(SECOND);
    let store = limited(&slow, Limit::builder().rate(10.0));
    let ended = Mutex::new(Vec::new());
    let calls = (0..4).map(|index| {
        let store = &store;
        let ended = &ended;
        async move {
            store.put_key(&id(index), &key()).await.unwrap();
            ended.lock().unwrap().push(index);
        }
    });
    join_all(calls).await;
    assert_eq!(slow.starts(), millis([0, 100, 200, 300]));
    assert_eq!(ended.into_inner().unwrap(), [0, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn unused_slots_are_saved_up_to_the_burst() {
    let slow = Slow::default();
    let store = limited(&slow, Limit::builder().rate(10.0).burst(3));
    sleep(60 * SECOND).await;
    for _ in 0..5 {
        store.check().await.unwrap();
    }
    assert_eq!(slow.starts(), millis([0, 0, 0, 100, 200]));
    sleep(Duration::from_millis(250)).await;
    for _ in 0..4 {
        store.check().await.unwrap();
    }
    assert_eq!(slow.starts()[5..], millis([450, 450, 500, 600]));
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_while_it_waits_leaves_its_slot_to_the_next() {
    let slow = Slow::default();
    let store = limited(&slow, Limit::builder().rate(1.0));
    store.check().await.unwrap();
    let as_many_as_fill_the_next_hour = (0..3_600).map(|_| timeout(SECOND / 2, store.check()));
    assert!(join_all(as_many_as_fill_the_next_hour).await.iter().all(|outcome| outcome.is_err()));
    store.check().await.unwrap();
    store.check().await.unwrap();
    assert_eq!(slow.starts(), millis([0, 1_000, 2_000]));
}

#[tokio::test(start_paused = true)]
async fn impatient_callers_are_served_at_the_full_rate_under_ten_times_the_load() {
    let slow = Slow::default();
    let store = limited(&slow, Limit::builder().rate(10.0));
    // 100 calls per second for a minute, each of which is dropped after two seconds.
    let calls = (0..6_000).map(|index| {
        let store = &store;
        async move {
            sleep(Duration::from_millis(10) * index).await;
            timeout(2 * SECOND, store.check()).await.is_ok()
        }
    });
    let served = join_all(calls).await.into_iter().filter(|served| *served).count();
    assert!((590..=621).contains(&served), "{served}");
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_while_it_waits_or_runs_gives_its_permit_back() {
    let slow = Slow::new(SECOND);
    let store = limited(&slow, Limit::builder().concurrency(1));
    let (running, waiting) = tokio::join!(timeout(SECOND / 4, store.check()), timeout(SECOND / 8, store.check()));
    assert!(running.is_err() && waiting.is_err());
    timeout(2 * SECOND, store.check()).await.expect("the permit is free").unwrap();
}

#[tokio::test(start_paused = true)]
async fn batches_are_sent_in_chunks_that_count_as_one_call_each() {
    let slow = Slow::new(SECOND / 2);
    let store = limited(&slow, Limit::builder().rate(10.0).concurrency(2).batch_size(4));
    for index in (0..10).filter(|index| index % 3 != 0) {
        slow.keys.put_key(&id(index), &SecretKey::new(vec![index as u8 + 1]).unwrap()).await.unwrap();
    }
    let forwards_and_backwards = (0..10).chain((0..10).rev());
    let ids: Vec<KeyId> = forwards_and_backwards.clone().map(id).collect();

    let outcomes = store.get_keys(&ids).await;
    assert_eq!(outcomes.len(), 20);
    for (index, outcome) in forwards_and_backwards.zip(outcomes) {
        match outcome {
            Ok(key) => assert_eq!(key.expose_secret(), [index as u8 + 1]),
            Err(e) => assert_eq!((e.kind(), index % 3), (ErrorKind::NotFound, 0)),
        }
    }
    assert_eq!(slow.log.lock().unwrap().batches, [4, 4, 2]);
    assert_eq!(slow.log.lock().unwrap().most_in_flight, 2);
    assert_eq!(slow.starts(), millis([0, 100, 500]));

    let outcomes = store.delete_keys(&ids).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 12);
    assert_eq!(slow.log.lock().unwrap().batches, [4, 4, 2, 4, 4, 2]);
    assert!(store.get_keys(&[]).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_listing_takes_a_slot_for_each_page_and_no_permit() {
    let slow = Slow::default();
    let store = limited(&slow, Limit::builder().rate(10.0).concurrency(1).batch_size(10));
    for index in 0..25 {
        slow.keys.put_key(&id(index), &key()).await.unwrap();
    }

    let began = Instant::now();
    assert_eq!(store.list_keys().count().await, 25);
    assert_eq!(began.elapsed(), Duration::from_millis(200));

    // The calls for each id are made while the listing is open. As only one call is allowed at a
    // time, the listing must not hold the permit.
    let worked_on = store.list_keys().try_for_each(|id| {
        let store = &store;
        async move { store.delete_key(&id).await.map(drop) }
    });
    timeout(60 * SECOND, worked_on).await.expect("nobody waits for himself").unwrap();
    assert_eq!(slow.keys.list_keys().count().await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_erasure_takes_two_slots_and_a_get_or_create_one() {
    let slow = Slow::default();
    let store = limited(&slow, Limit::builder().rate(10.0));
    store.get_or_create(&id(1), &key()).await.unwrap();
    let erasure = store.erase_key(&id(1)).await.unwrap();
    assert!(erasure.existed && erasure.verified);
    store.check().await.unwrap();
    // The slots of the creation, of the delete and its read, and of the check.
    assert_eq!(slow.starts(), millis([0, 100, 100, 300]));
}

#[tokio::test(start_paused = true)]
async fn stores_with_clones_of_a_limit_share_it() {
    let slow = Slow::new(SECOND);
    let limit = Limit::builder().concurrency(3).build().unwrap();
    let stores: Vec<_> = (0..5).map(|_| Limited::new(slow.clone(), limit.clone())).collect();
    join_all(stores.iter().flat_map(|store| [store.check(), store.check(), store.check(), store.check()])).await;
    assert_eq!(slow.log.lock().unwrap().most_in_flight, 3);
    assert_eq!(slow.starts().last(), Some(&(6 * SECOND)));
}

#[test]
fn invalid_settings_are_refused_with_advice() {
    let rates = [0.0, -0.0, -1.0, 1e-9, 1e7, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let wrong = rates.map(|rate| Limit::builder().rate(rate)).into_iter().chain([
        Limit::builder(),
        Limit::builder().concurrency(0),
        Limit::builder().rate(1.0).burst(0),
        Limit::builder().rate(1.0).batch_size(0),
    ]);
    for settings in wrong {
        let error = settings.clone().build().expect_err(&format!("{settings:?}"));
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.source().unwrap().to_string().contains(": set "));
    }
    for rate in [1.0 / 86_400.0, 3.0, 1e6] {
        Limit::builder().rate(rate).burst(u32::MAX).concurrency(usize::MAX).build().unwrap();
    }
}

#[test]
fn its_description_names_the_layer() {
    let store = Limited::new(MemoryStore::new(), Limit::builder().rate(2.5).build().unwrap());
    assert!(store.info().to_string().ends_with(", limited"), "{}", store.info());
    assert_eq!(store.capabilities(), MemoryStore::new().capabilities().with_batch_size(10).with_delete_batch_size(10));
    let limit = "Limit(LimitBuilder { concurrency: None, rate: Some(2.5), burst: 1, batch_size: 10 })";
    let said = format!("Limited {{ store: MemoryStore {{ keys: 0 }}, reads: {limit}, writes: {limit} }}");
    assert_eq!(format!("{store:?}"), said);
}

#[tokio::test(start_paused = true)]
async fn reads_and_writes_can_have_separate_limits() {
    let rate = |calls| Limit::builder().rate(calls).build().unwrap();
    let store = Limited::with_limits(Slow::new(Duration::ZERO), rate(40.0), rate(3.0));
    let begun = Instant::now();
    let key = key();
    let writes = join_all((0..7).map(|index| {
        let store = &store;
        let key = &key;
        async move { store.put_key(&id(index), key).await.unwrap() }
    }));
    let reads = async {
        for index in 0..41 {
            store.find_key(&id(index)).await.unwrap();
        }
        begun.elapsed()
    };
    let (_, reads_took) = futures_util::future::join(writes, reads).await;
    assert!((SECOND..SECOND * 11 / 10).contains(&reads_took), "{reads_took:?}");
    assert!((SECOND * 2..SECOND * 21 / 10).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_acquired_directly_counts_as_a_call() {
    let store = Slow::new(Duration::ZERO);
    let limit = Limit::builder().rate(10.0).concurrency(1).build().unwrap();
    let limited = Limited::new(store.clone(), limit.clone());
    let begun = Instant::now();
    let permit = limit.acquire().await;
    let id = KeyId::new("alice").unwrap();
    assert!(timeout(SECOND, limited.find_key(&id)).await.is_err());
    drop(permit);
    limited.find_key(&id).await.unwrap();
    drop(limit.acquire().await);
    assert_eq!(store.starts().len(), 1);
    assert!(begun.elapsed() >= SECOND + Duration::from_millis(100), "{:?}", begun.elapsed());
}

/// The documentation gives this advice: make all calls for one item in one future.
#[tokio::test(start_paused = true)]
async fn reads_and_writes_of_one_item_in_one_future_do_not_wait_for_each_other() {
    for concurrency in [1, 4] {
        let slow = Slow::new(SECOND / 100);
        let store = limited(&slow, Limit::builder().concurrency(concurrency));
        let created = stream::iter(0..100).map(Ok).try_for_each_concurrent(16, |index| {
            let store = &store;
            async move {
                match store.find_key(&id(index)).await? {
                    Some(_) => Ok(()),
                    None => store.put_key(&id(index), &key()).await,
                }
            }
        });
        timeout(60 * SECOND, created).await.expect("no call waits for itself").unwrap();
        assert_eq!(slow.keys.list_keys().count().await, 100);
    }
}
