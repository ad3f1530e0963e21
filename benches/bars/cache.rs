//! The cache: a hit, two threads, one hot key, what it keeps, and a stampede.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_secretsmanager_caching::SecretsManagerCachingClient;
use keystead_aws_testbed::sdk_config;
use keystead_benches::measure::{Cost, Samples, take_turns, time};
use keystead_benches::people;
use keystead_benches::table::{Bar, Row, Unit};
use keystead_benches::visits::{Visits, zipf};
use keystead_core::{
    BoxError, BoxStream, Capabilities, Deletion, KeyId, KeyStore, KeyStoreExt, PutMode, Result, SecretKey, StoreInfo,
    async_trait,
};
use keystead_layers::Cached;
use keystead_memory::MemoryStore;

use crate::aws_server;
use crate::bench::{Bench, on_threads};

const PEOPLE: usize = 10_000;

const TTL: Duration = Duration::from_secs(3600);

pub(crate) fn hit(bench: &mut Bench) -> Result<(), BoxError> {
    let runtime = &bench.runtime;
    let ids: Vec<KeyId> = (0..PEOPLE).map(people::id).collect();
    let names: Vec<String> = (0..PEOPLE).map(|person| format!("user-{person}")).collect();
    let ours = warm(bench, &ids)?;
    let moka = moka::future::Cache::builder().max_capacity(2 * PEOPLE as u64).time_to_live(TTL).build();
    let client = aws_sdk_secretsmanager::Client::new(&sdk_config(&aws_server::start()?));
    let room = NonZeroUsize::new(2 * PEOPLE).ok_or("there are people")?;
    let aws = SecretsManagerCachingClient::new(client, room, TTL, false)?;
    runtime.block_on(async {
        for (person, id) in ids.iter().enumerate() {
            moka.insert(id.clone(), people::key(person)).await;
            aws.get_secret_value(&names[person], None, None, false).await.map_err(|e| e.to_string())?;
        }
        Ok::<_, BoxError>(())
    })?;

    let visits = people::visits(PEOPLE, bench.options.size(200_000, 5_000));
    let mut get_ours = || {
        let gets = async {
            for person in &visits {
                black_box(ours.get_key(&ids[*person]).await?);
            }
            Ok(())
        };
        time(visits.len(), || runtime.block_on(gets))
    };
    let mut get_aws = || {
        let gets = async {
            for person in &visits {
                let secret = aws.get_secret_value(&names[*person], None, None, false).await;
                black_box(secret.map_err(|e| e.to_string())?);
            }
            Ok(())
        };
        time(visits.len(), || runtime.block_on(gets))
    };
    let mut get_moka = || {
        let gets = async {
            for person in &visits {
                black_box(moka.get(&ids[*person]).await.ok_or("a key was given up")?);
            }
            Ok(())
        };
        time(visits.len(), || runtime.block_on(gets))
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
        let ids: Vec<KeyId> = (0..readers_of).map(people::id).collect();
        let cached = warm(bench, &ids)?;
        let visits = people::visits(readers_of, bench.options.size(500_000, 5_000));
        let load = |threads| {
            let took = on_threads(threads, |thread| {
                bench.runtime.handle().block_on(async {
                    for person in &visits {
                        // Each thread goes among other people than the others do at the time.
                        black_box(cached.get_key(&ids[(person + thread * readers_of / 2) % readers_of]).await?);
                    }
                    Ok(())
                })
            })?;
            Ok(Cost::of(took, threads * visits.len()))
        };
        let [two, one] = take_turns(bench.options.size(21, 3), [&mut || load(2), &mut || load(1)])?;
        let bar = Bar::AtLeast(least);
        let row = Row { path, against: "one thread", bar, stretch, unit: Unit::Rate, ours: &two, reference: &one };
        bench.row(&row);
    }
    Ok(())
}

/// A cache that holds these people's keys.
fn warm(bench: &Bench, ids: &[KeyId]) -> Result<Arc<dyn KeyStore>, BoxError> {
    let store: Arc<dyn KeyStore> = Arc::new(MemoryStore::new());
    let cached = Arc::new(Cached::builder(store).ttl(TTL).max_keys(2 * ids.len()).build()?);
    bench.runtime.block_on(async {
        for (person, id) in ids.iter().enumerate() {
            cached.put_key(id, &people::key(person)).await?;
            cached.get_key(id).await?;
        }
        Ok::<_, BoxError>(())
    })?;
    Ok(cached)
}

/// Measures the percentage of reads that miss in a cache with room for one person in a hundred.
pub(crate) fn misses(bench: &mut Bench) -> Result<(), BoxError> {
    let everybody = bench.options.size(100_000, 10_000);
    let room = everybody / 100;
    let count = bench.options.size(1_000_000, 50_000);
    for (path, scans) in
        [("cache: misses, zipf 0.9, room for 1 %", false), ("cache: misses, zipf 0.9 and scans, room for 1 %", true)]
    {
        let visits = zipf(everybody, count, 0.9, scans);
        let ours = bench.runtime.block_on(misses_of_ours(&visits, room))?;
        let (moka, quick) = (misses_of_moka(&visits, room), misses_of_quick_cache(&visits, room));
        let reference = moka.min(quick) + 1.0;
        let [ours, reference] = [ours, reference].map(|percent| Samples::fixed(Cost(percent)));
        let against = "the better of moka and quick_cache plus one point";
        let (bar, unit) = (Bar::AtMost(1.0), Unit::Percent);
        bench.row(&Row { path, against, bar, stretch: None, unit, ours: &ours, reference: &reference });
    }
    Ok(())
}

async fn misses_of_ours(visits: &Visits, room: usize) -> Result<f64, BoxError> {
    let store = MemoryStore::new();
    let ids: Vec<KeyId> = (0..visits.people).map(people::id).collect();
    let key = people::key(0);
    for id in &ids {
        store.put_key(id, &key).await?;
    }
    let cached = Cached::builder(store).ttl(TTL).max_keys(room).build()?;
    for person in &visits.order {
        cached.get_key(&ids[*person]).await?;
    }
    Ok(percent(cached.statistics().misses as usize, visits))
}

fn misses_of_moka(visits: &Visits, room: usize) -> f64 {
    let cache = moka::sync::Cache::new(room as u64);
    let mut misses = 0;
    for person in &visits.order {
        if cache.get(person).is_none() {
            misses += 1;
            cache.insert(*person, ());
        }
        // Its bookkeeping is done in batches: without this, what it should give up is found a while
        // longer.
        cache.run_pending_tasks();
    }
    percent(misses, visits)
}

fn misses_of_quick_cache(visits: &Visits, room: usize) -> f64 {
    let cache = quick_cache::sync::Cache::new(room);
    let mut misses = 0;
    for person in &visits.order {
        if cache.get(person).is_none() {
            misses += 1;
            cache.insert(*person, ());
        }
    }
    percent(misses, visits)
}

fn percent(misses: usize, visits: &Visits) -> f64 {
    misses as f64 * 100.0 / visits.order.len() as f64
}

const CROWD: usize = 1_000;

/// Counts the calls that reach the store when a crowd asks for one key at once: when the key is not
/// cached, when it has expired, and when the first reader gives up.
pub(crate) fn stampede(bench: &mut Bench) -> Result<(), BoxError> {
    let [cold, expired, given_up] = bench.runtime.block_on(async {
        let (store, cached) = slow_and_cached()?;
        let cold = calls_of_a_crowd(&store, &cached, false).await?;
        tokio::time::sleep(SHORT_TTL).await;
        let expired = calls_of_a_crowd(&store, &cached, false).await?;
        let (store, cached) = slow_and_cached()?;
        Ok::<_, BoxError>([cold, expired, calls_of_a_crowd(&store, &cached, true).await?])
    })?;
    for (path, calls, most) in [
        ("cache: calls of 1,000 readers of one cold id", cold, 1.0),
        ("cache: calls of 1,000 readers of one expired id", expired, 1.0),
        ("cache: calls of 1,000 readers whose first is given up", given_up, 2.0),
    ] {
        let [ours, reference] = [calls, most].map(|calls| Samples::fixed(Cost(calls)));
        let (bar, unit, against) = (Bar::AtMost(1.0), Unit::Count, "the least that there can be");
        bench.row(&Row { path, against, bar, stretch: None, unit, ours: &ours, reference: &reference });
    }
    Ok(())
}

const SHORT_TTL: Duration = Duration::from_millis(500);

fn slow_and_cached() -> Result<(Arc<Slow>, Cached<Arc<Slow>>), BoxError> {
    let store = Arc::new(Slow::default());
    let cached = Cached::builder(store.clone()).ttl(SHORT_TTL).build()?;
    Ok((store, cached))
}

async fn calls_of_a_crowd(
    store: &Arc<Slow>,
    cached: &Cached<Arc<Slow>>,
    first_is_given_up: bool,
) -> Result<f64, BoxError> {
    let alice = people::id(0);
    store.memory.put_key(&alice, &people::key(0)).await?;
    let before = store.calls.load(Ordering::SeqCst);
    let read = || {
        let (cached, alice) = (cached.clone(), alice.clone());
        tokio::spawn(async move { cached.get_key(&alice).await })
    };
    let first = read();
    while first_is_given_up && store.calls.load(Ordering::SeqCst) == before {
        tokio::task::yield_now().await;
    }
    let others: Vec<_> = (1..CROWD).map(|_| read()).collect();
    if first_is_given_up {
        first.abort();
    }
    for other in others {
        other.await??;
    }
    drop(first.await);
    Ok((store.calls.load(Ordering::SeqCst) - before) as f64)
}

/// A store as far away as a service in the same region.
#[derive(Debug, Default)]
struct Slow {
    memory: MemoryStore,
    calls: AtomicU64,
}

#[async_trait]
impl KeyStore for Slow {
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
