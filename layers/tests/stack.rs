//! `Stack`: all layers together, with several stacks in place of several processes.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, Durability, Effect, ErrorKind, IdentityMatch, KeyId, KeyStore,
    KeyStoreExt, PutMode, Result, SecretKey, StoreInfo, async_trait,
};
use keystead_layers::{Cached, Fault, Faulty, Fenced, Resilient, Stack, StackBuilder};
use keystead_memory::MemoryStore;

/// A power of two, so that it is not rounded up.
const TTL: Duration = Duration::from_secs(2);

/// The stores that all processes share.
#[derive(Default)]
struct Fixture {
    keys: MemoryStore,
    tombstones: MemoryStore,
}

impl Fixture {
    /// Returns the stack of one process.
    fn stack(&self) -> Stack {
        self.builder().cache_ttl(TTL).build().unwrap()
    }

    fn builder(&self) -> StackBuilder {
        Stack::builder(self.keys.clone()).tombstones(self.tombstones.clone())
    }
}

fn alice() -> KeyId {
    KeyId::new("alice@example.com").unwrap()
}

fn key(byte: u8) -> SecretKey {
    SecretKey::new([byte; 32]).unwrap()
}

fn kind<T>(answer: Result<T>) -> ErrorKind {
    answer.err().unwrap().kind()
}

#[tokio::test]
async fn an_erased_user_is_gone_for_every_process_and_a_new_key_waits_for_every_cache() {
    let shared = Fixture::default();
    let one = shared.stack();
    let two = shared.stack();
    one.put_key(&alice(), &key(1)).await.unwrap();
    assert_eq!(two.get_key(&alice()).await.unwrap(), key(1));
    assert_eq!(two.get_key(&alice()).await.unwrap(), key(1));
    assert_eq!(two.statistics().unwrap().hits, 1, "the key is cached by the other process");

    let receipt = one.erase(&alice()).await.unwrap();
    assert!(receipt.existed && receipt.verified, "{receipt:?}");
    assert_eq!(receipt.store.compare(shared.keys.info().identity()), IdentityMatch::Same);
    for stack in [&one, &two, &shared.stack()] {
        assert_eq!(kind(stack.get_key(&alice()).await), ErrorKind::Erased);
        assert_eq!(kind(stack.get_or_create_key(&alice()).await), ErrorKind::Erased);
    }

    // A process without a cache waits for the caches of the others.
    let uncached = shared.builder().build().unwrap();
    let error = uncached.allow_new_key(&alice()).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Conflict, Effect::NotApplied));
    let pause = error.retry_after().unwrap();
    assert!(pause > TTL - Duration::from_millis(500), "{pause:?}");
    tokio::time::sleep(pause).await;
    uncached.allow_new_key(&alice()).await.unwrap();
    for stack in [&two, &one, &uncached] {
        assert!(stack.find_key(&alice()).await.unwrap().is_none_or(|existing| existing == key(2)));
        drop(stack.create_key(&alice(), &key(2)).await);
        assert_eq!(stack.get_key(&alice()).await.unwrap(), key(2), "never the old key");
    }
}

#[tokio::test]
async fn the_time_to_live_of_a_process_that_has_ended_still_counts() {
    let shared = Fixture::default();
    shared.stack().get_or_create_key(&alice()).await.unwrap();
    let other = shared.builder().build().unwrap();
    other.erase(&alice()).await.unwrap();
    assert_eq!(kind(other.allow_new_key(&alice()).await), ErrorKind::Conflict);
    let strangers = Stack::builder(shared.keys.clone()).tombstones(MemoryStore::new()).build().unwrap();
    strangers.erase(&alice()).await.unwrap();
    strangers.allow_new_key(&alice()).await.unwrap();
}

#[tokio::test]
async fn without_a_fence_an_erasure_through_a_cache_is_not_verified() {
    let stack = Stack::builder(MemoryStore::new()).cache_ttl(TTL).build().unwrap();
    stack.get_or_create_key(&alice()).await.unwrap();
    let erasure = stack.erase_key(&alice()).await.unwrap();
    assert!(erasure.existed && !erasure.verified);
    assert!(!stack.capabilities().fenced);
    let error = stack.erase(&alice()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(kind(stack.allow_new_key(&alice()).await), ErrorKind::Unsupported);
}

#[tokio::test]
async fn its_capabilities_are_those_of_all_layers() {
    let shared = Fixture::default();
    let capabilities = shared.stack().capabilities();
    assert!(capabilities.fenced && capabilities.cached);
    assert_eq!(capabilities.consistency, Consistency::Eventual { within: TTL });
    let capabilities = shared.builder().build().unwrap().capabilities();
    assert!(capabilities.fenced && !capabilities.cached);
    assert_eq!(capabilities.consistency, Consistency::Strong);
    let info = shared.stack().info();
    assert_eq!(info.identity().compare(shared.keys.info().identity()), IdentityMatch::Same);
}

#[tokio::test]
async fn a_wrong_order_of_layers_is_refused() {
    let memory = MemoryStore::new;
    let fenced = || Fenced::builder(memory(), memory()).build().unwrap();
    let cached = || Cached::builder(memory()).build().unwrap();
    assert_eq!(kind(Cached::builder(fenced()).build()), ErrorKind::Config);
    assert_eq!(kind(Resilient::builder(cached()).build()), ErrorKind::Config);
    assert_eq!(kind(Fenced::builder(memory(), cached()).build()), ErrorKind::Config);
    assert_eq!(kind(Stack::builder(fenced()).build()), ErrorKind::Config);
    assert_eq!(kind(Stack::builder(cached()).build()), ErrorKind::Config);
    assert_eq!(kind(Stack::builder(memory()).tombstones(cached()).build()), ErrorKind::Config);
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_refused() {
    let shared = Fixture::default();
    let builder = || shared.builder();
    assert_eq!(kind(builder().cache_max_keys(5).build()), ErrorKind::Config);
    assert_eq!(kind(builder().cache_ttl(Duration::ZERO).build()), ErrorKind::Config);
    assert_eq!(kind(builder().deadline(Duration::ZERO).build()), ErrorKind::Config);
    assert_eq!(kind(builder().read_rate(-1.0).build()), ErrorKind::Config);
    assert_eq!(kind(builder().concurrency(0).build()), ErrorKind::Config);
    let accepted = Stack::builder(MemoryStore::new()).accept_tombstone_durability(Durability::Host);
    assert_eq!(kind(accepted.build()), ErrorKind::Config);
    let own = Stack::builder(shared.keys.clone()).tombstones(shared.keys.clone());
    assert_eq!(kind(own.build()), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn reads_and_writes_have_separate_rates() {
    let stack = Stack::builder(MemoryStore::new()).read_rate(40.0).write_rate(3.0).build().unwrap();
    let ids: Vec<KeyId> = (0..10).map(|index| KeyId::new(format!("user-{index}")).unwrap()).collect();
    let one = key(1);
    let begun = tokio::time::Instant::now();
    join_all(ids.iter().map(|id| stack.create_key(id, &one))).await;
    let writing = begun.elapsed();
    assert!(writing >= Duration::from_secs(3) && writing < Duration::from_secs(4), "{writing:?}");
    let begun = tokio::time::Instant::now();
    for id in &ids {
        stack.get_key(id).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn expired_keys_are_wiped_without_a_call() {
    let stack = Fixture::default().builder().cache_ttl(Duration::from_millis(200)).build().unwrap();
    stack.get_or_create_key(&alice()).await.unwrap();
    stack.get_key(&alice()).await.unwrap();
    assert_eq!(stack.statistics().unwrap().keys, 1);
    let begun = Instant::now();
    while stack.statistics().unwrap().keys > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the key is still in memory");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn calls_to_a_silent_store_end_at_the_deadline() {
    for (keys, tombstones) in [(true, false), (false, true)] {
        let store = |silent: bool| {
            let faults = if silent { Fault::hang().times(u32::MAX) } else { Fault::latency(Duration::ZERO) };
            Faulty::builder(MemoryStore::new()).fault(faults).build().unwrap()
        };
        let stack = Stack::builder(store(keys)).tombstones(store(tombstones)).deadline(Duration::from_secs(10));
        let stack = stack.build().unwrap();
        let begun = tokio::time::Instant::now();
        assert_eq!(kind(stack.get_key(&alice()).await), ErrorKind::Timeout);
        assert!(begun.elapsed() <= Duration::from_secs(31), "{:?}", begun.elapsed());
        assert_eq!(kind(stack.erase(&alice()).await), ErrorKind::Timeout);
    }
}

/// A store whose keys can be read for a while after they were deleted, and whose delete is answered
/// by a lagging replica that does not find the key.
#[derive(Clone, Debug)]
struct Lagging {
    memory: MemoryStore,
    within: Duration,
}

#[async_trait]
impl KeyStore for Lagging {
    fn info(&self) -> StoreInfo {
        self.memory.info()
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.memory.capabilities();
        capabilities.consistency = Consistency::Eventual { within: self.within };
        capabilities
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.memory.get_key(id).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.memory.put_key_with(id, key, mode).await
    }

    /// Answers like a replica that does not know the key yet.
    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        MemoryStore::new().delete_key(id).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.memory.list_keys()
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn no_receipt_is_returned_while_the_key_exists() {
    let shared = Fixture::default();
    let lagging = Lagging { memory: shared.keys.clone(), within: Duration::from_secs(1) };
    let stack = Stack::builder(lagging).tombstones(shared.tombstones.clone()).cache_ttl(TTL).build().unwrap();
    stack.put_key(&alice(), &key(1)).await.unwrap();
    let error = stack.erase(&alice()).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Conflict, Effect::Unknown));
    assert!(error.retry_after().is_some());
    assert_eq!(kind(stack.get_key(&alice()).await), ErrorKind::Erased);
}

/// A cached absence does not hide a key that a restore has brought back.
#[tokio::test]
async fn a_restored_key_does_not_become_the_new_one() {
    let ttl = Duration::from_secs(1);
    for by_hand in [false, true] {
        let shared = Fixture::default();
        let stack = shared.builder().cache_ttl(ttl).cache_negative_ttl(ttl).build().unwrap();
        let cached = Cached::builder(shared.keys.clone()).ttl(ttl).negative_ttl(ttl).build().unwrap();
        let fence = Fenced::builder(cached, shared.tombstones.clone()).build().unwrap();
        stack.put_key(&alice(), &key(1)).await.unwrap();
        stack.erase(&alice()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2100)).await;
        assert_eq!(kind(stack.get_key(&alice()).await), ErrorKind::Erased);
        assert_eq!(kind(fence.get_key(&alice()).await), ErrorKind::Erased);
        shared.keys.put_key(&alice(), &key(1)).await.unwrap();
        let answer = if by_hand { fence.allow_new_key(&alice()).await } else { stack.allow_new_key(&alice()).await };
        assert_eq!(kind(answer), ErrorKind::Conflict);
        assert!(shared.keys.find_key(&alice()).await.unwrap().is_none());
    }
}

/// A process without a cache deletes a key that a process with a cache has read. The wait takes
/// that cache into account.
#[tokio::test]
async fn a_new_key_waits_for_a_cache_that_has_read_a_key_left_behind() {
    let shared = Fixture::default();
    let cached = shared.stack();
    let uncached = shared.builder().build().unwrap();
    cached.put_key(&alice(), &key(1)).await.unwrap();
    uncached.erase(&alice()).await.unwrap();
    tokio::time::sleep(TTL + Duration::from_millis(1100)).await;
    shared.keys.put_key(&alice(), &key(1)).await.unwrap();
    assert_eq!(kind(uncached.get_key(&alice()).await), ErrorKind::Erased);
    assert!(shared.keys.find_key(&alice()).await.unwrap().is_none());
    assert_eq!(kind(uncached.allow_new_key(&alice()).await), ErrorKind::Conflict, "a cache may have read it");
}
