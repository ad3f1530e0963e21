//! The cache: hits, two threads, one hot key, misses under pressure, and a stampede.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_secretsmanager_caching::SecretsManagerCachingClient;
use keystead_aws_testbed::sdk_config;
use keystead_benches::access_pattern::{AccessPattern, zipf};
use keystead_benches::measure::{Cost, Samples, take_turns, time};
use keystead_benches::table::{Bar, Row, Unit};
use keystead_benches::users;
use keystead_core::{
    BoxError, BoxStream, Capabilities, Deletion, KeyId, KeyStore, KeyStoreExt, PutMode, Result, SecretKey, StoreInfo,
    async_trait,
};
use keystead_layers::Cached;
use keystead_memory::MemoryStore;

use crate::aws_server;
use crate::bench::{Bench, on_threads};

const USERS: usize = 10_000;

const TTL: Duration = Duration::from_secs(3600);

pub(crate) fn hit(bench: &mut Bench) -> Result<(), BoxError> {
    let runtime = &bench.runtime;
    let ids: Vec<KeyId> = (0..USERS).map(users::id).collect();
    let names: Vec<String> = (0..USERS).map(|user| format!("user-{user}")).collect();
    let ours = warm(bench, &ids)?;
    let moka = moka::future::Cache::builder().max_capacity(2 * USERS as u64).time_to_live(TTL).build();
    let client = aws_sdk_secretsmanager::Client::new(&sdk_config(&aws_server::start()?));
    let room = NonZeroUsize::new(2 * USERS).ok_or("there are no users")?;
    let aws = SecretsManagerCachingClient::new(client, room, TTL, false)?;
    runtime.block_on(async {
        for (user, id) in ids.iter().enumerate() {
            moka.insert(id.clone(), users::key(user)).await;
            aws.get_secret_value(&names[user], None, None, false).await.map_err(|e| e.to_string())?;
        }
        Ok::<_, BoxError>(())
    })?;

    let accesses = users::random_accesses(USERS, bench.options.size(200_000, 5_000));
    let mut get_ours = || {
        let gets = async {
            for user in &accesses {
                black_box(ours.get_key(&ids[*user]).await?);
            }
            Ok(())
        };
        time(accesses.len(), || runtime.block_on(gets))
    };
    let mut get_aws = || {
        let gets = async {
            for user in &accesses {
                let secret = aws.get_secret_value(&names[*user], None, None, false).await;
                black_box(secret.map_err(|e| e.to_string())?);
            }
            Ok(())
        };
        time(accesses.len(), || runtime.block_on(gets))
    };
    let mut get_moka = || {
        let gets = async {
            for user in &accesses {
                black_box(moka.get(&ids[*user]).await.ok_or("a key was evicted")?);
            }
            Ok(())
        };
        time(accesses.len(), || runtime.block_on(gets))
    };
    let rounds = bench.options.size(21, 3);
    let [ours, aws, moka] = take_turns(rounds, [&mut get_ours, &mut get_aws, &mut get_moka])?;
    let path = "cache: hit through `Cached<Arc<dyn KeyStore>>`";
    for (most, against, reference) in [(0.5, "aws_secretsmanager_caching", &aws), (0.25, "moka::future", &moka)] {
        let bar = Bar::AtMost(most);
        bench.row(&Row { path, against, bar, stretch: None, unit: Unit::Time, ours: &ours, reference });
    }
    Ok(())
}

pub(crate) fn two_threads(bench: &mut Bench) -> Result<(), BoxError> {
    for (path, readers_of, least, stretch) in
        [("cache: hits, two threads", 10_000, 1.7, None), ("cache: hits of one hot id, two threads", 1, 1.0, Some(1.8))]
    {
        let ids: Vec<KeyId> = (0..readers_of).map(users::id).collect();
        let cached = warm(bench, &ids)?;
        let accesses = users::random_accesses(readers_of, bench.options.size(500_000, 5_000));
        let load = |threads| {
            let took = on_threads(threads, |thread| {
                bench.runtime.handle().block_on(async {
                    for user in &accesses {
                        // At any moment the threads read the keys of different users.
                        black_box(cached.get_key(&ids[(user + thread * readers_of / 2) % readers_of]).await?);
                    }
                    Ok(())
                })
            })?;
            Ok(Cost::of(took, threads * accesses.len()))
        };
        let [two, one] = take_turns(bench.options.size(21, 3), [&mut || load(2), &mut || load(1)])?;
        let bar = Bar::AtLeast(least);
        let row = Row { path, against: "one thread", bar, stretch, unit: Unit::Rate, ours: &two, reference: &one };
        bench.row(&row);
    }
    Ok(())
}

/// Returns a cache that holds the keys of these users.
fn warm(bench: &Bench, ids: &[KeyId]) -> Result<Arc<dyn KeyStore>, BoxError> {
    let store: Arc<dyn KeyStore> = Arc::new(MemoryStore::new());
    let cached = Arc::new(Cached::builder(store).ttl(TTL).max_keys(2 * ids.len()).build()?);
    bench.runtime.block_on(async {
        for (user, id) in ids.iter().enumerate() {
            cached.put_key(id, &users::key(user)).await?;
            cached.get_key(id).await?;
        }
        Ok::<_, BoxError>(())
    })?;
    Ok(cached)
}

/// Measures the percentage of reads that miss in a cache with room for one key in a hundred.
pub(crate) fn misses(bench: &mut Bench) -> Result<(), BoxError> {
    let users = bench.options.size(100_000, 10_000);
    let room = users / 100;
    let count = bench.options.size(1_000_000, 50_000);
    for (path, scans) in
        [("cache: misses, zipf 0.9, room for 1 %", false), ("cache: misses, zipf 0.9 and scans, room for 1 %", true)]
    {
        let pattern = zipf(users, count, 0.9, scans);
        let ours = bench.runtime.block_on(misses_of_ours(&pattern, room))?;
        let moka = misses_of_moka(&pattern, room);
        let quick = misses_of_quick_cache(&pattern, room);
        let reference = moka.min(quick) + 1.0;
        let [ours, reference] = [ours, reference].map(|percent| Samples::fixed(Cost(percent)));
        let against = "the better of moka and quick_cache plus one point";
        let bar = Bar::AtMost(1.0);
        let unit = Unit::Percent;
        bench.row(&Row { path, against, bar, stretch: None, unit, ours: &ours, reference: &reference });
    }
    Ok(())
}

async fn misses_of_ours(pattern: &AccessPattern, room: usize) -> Result<f64, BoxError> {
    let store = MemoryStore::new();
    let ids: Vec<KeyId> = (0..pattern.users).map(users::id).collect();
    let key = users::key(0);
    for id in &ids {
        store.put_key(id, &key).await?;
    }
    let cached = Cached::builder(store).ttl(TTL).max_keys(room).build()?;
    for user in &pattern.order {
        cached.get_key(&ids[*user]).await?;
    }
    Ok(percent(cached.statistics().misses as usize, pattern))
}

fn misses_of_moka(pattern: &AccessPattern, room: usize) -> f64 {
    let cache = moka::sync::Cache::new(room as u64);
    let mut misses = 0;
    for user in &pattern.order {
        if cache.get(user).is_none() {
            misses += 1;
            cache.insert(*user, ());
        }
        // moka evicts in batches: without this, keys that it should have evicted could still be
        // found.
        cache.run_pending_tasks();
    }
    percent(misses, pattern)
}

fn misses_of_quick_cache(pattern: &AccessPattern, room: usize) -> f64 {
    let cache = quick_cache::sync::Cache::new(room);
    let mut misses = 0;
    for user in &pattern.order {
        if cache.get(user).is_none() {
            misses += 1;
            cache.insert(*user, ());
        }
    }
    percent(misses, pattern)
}

fn percent(misses: usize, pattern: &AccessPattern) -> f64 {
    misses as f64 * 100.0 / pattern.order.len() as f64
}

const READERS: usize = 1_000;

/// Counts the calls that reach the store when many readers ask for one key at once: when the key is
/// not cached, when it has expired, and when the first reader is cancelled.
pub(crate) fn stampede(bench: &mut Bench) -> Result<(), BoxError> {
    let [cold, expired, cancelled] = bench.runtime.block_on(async {
        let (store, cached) = slow_and_cached()?;
        let cold = count_calls(&store, &cached, false).await?;
        tokio::time::sleep(SHORT_TTL).await;
        let expired = count_calls(&store, &cached, false).await?;
        let (store, cached) = slow_and_cached()?;
        Ok::<_, BoxError>([cold, expired, count_calls(&store, &cached, true).await?])
    })?;
    for (path, calls, most) in [
        ("cache: calls of 1,000 readers of one cold id", cold, 1.0),
        ("cache: calls of 1,000 readers of one expired id", expired, 1.0),
        ("cache: calls of 1,000 readers whose first is given up", cancelled, 2.0),
    ] {
        let [ours, reference] = [calls, most].map(|calls| Samples::fixed(Cost(calls)));
        let bar = Bar::AtMost(1.0);
        let unit = Unit::Count;
        let against = "the least that there can be";
        bench.row(&Row { path, against, bar, stretch: None, unit, ours: &ours, reference: &reference });
    }
    Ok(())
}

const SHORT_TTL: Duration = Duration::from_millis(500);

fn slow_and_cached() -> Result<(Arc<SlowStore>, Cached<Arc<SlowStore>>), BoxError> {
    let store = Arc::new(SlowStore::default());
    let cached = Cached::builder(store.clone()).ttl(SHORT_TTL).build()?;
    Ok((store, cached))
}

async fn count_calls(
    store: &Arc<SlowStore>,
    cached: &Cached<Arc<SlowStore>>,
    cancel_first: bool,
) -> Result<f64, BoxError> {
    let alice = users::id(0);
    store.memory.put_key(&alice, &users::key(0)).await?;
    let before = store.calls.load(Ordering::SeqCst);
    let read = || {
        let cached = cached.clone();
        let alice = alice.clone();
        tokio::spawn(async move { cached.get_key(&alice).await })
    };
    let first = read();
    while cancel_first && store.calls.load(Ordering::SeqCst) == before {
        tokio::task::yield_now().await;
    }
    let others: Vec<_> = (1..READERS).map(|_| read()).collect();
    if cancel_first {
        first.abort();
    }
    for other in others {
        other.await??;
    }
    drop(first.await);
    Ok((store.calls.load(Ordering::SeqCst) - before) as f64)
}

/// A store in memory whose reads take as long as those of a slow service over the network.
#[derive(Debug, Default)]
struct SlowStore {
    memory: MemoryStore,
    calls: AtomicU64,
}

#[async_trait]
impl KeyStore for SlowStore {
    fn info(&self) -> StoreInfo {
        self.memory.info()
    }

    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.memory.get_key(id).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.memory.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.memory.delete_key(id).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.memory.list_keys()
    }

    async fn check(&self) -> Result<()> {
        self.memory.check().await
    }
}
