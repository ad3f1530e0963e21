//! The fence when its records are lost or late: a new key waits for deletes that were not recorded,
//! too.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, Effect, Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation,
    PutMode, Result, SecretKey, StoreInfo, async_trait,
};
use keystead_layers::{Fault, Faulty, Fenced, Resilient, Stack};
use keystead_memory::MemoryStore;

fn alice() -> KeyId {
    KeyId::new("alice@example.com").unwrap()
}
fn bob() -> KeyId {
    KeyId::new("bob@example.com").unwrap()
}
fn key(byte: u8) -> SecretKey {
    SecretKey::new([byte; 32]).unwrap()
}
async fn sleep_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// A memory store that can hold calls of an operation before it carries them out.
#[derive(Clone, Debug)]
struct Gate {
    memory: MemoryStore,
    /// For an operation and a substring of the id, the number of calls that still pass.
    closed: Arc<Mutex<HashMap<Operation, (String, usize)>>>,
    waiting: Arc<AtomicUsize>,
    consistency: Consistency,
    /// A key that reads return although it is deleted, like those of a lagging replica.
    stale: Arc<Mutex<Option<SecretKey>>>,
    /// The time after which the first delete is applied, whether or not its caller waits.
    late_delete: Arc<Mutex<Option<Duration>>>,
    /// True if a write fails with an unknown effect and is carried out later.
    late_write: Arc<Mutex<Option<Duration>>>,
    calls: Arc<AtomicUsize>,
    /// True if reads are held after the store has answered.
    holds_answers: bool,
}

impl Gate {
    fn over(memory: &MemoryStore) -> Self {
        Self {
            memory: memory.clone(),
            closed: Arc::default(),
            waiting: Arc::default(),
            consistency: Consistency::Strong,
            stale: Arc::default(),
            late_delete: Arc::default(),
            late_write: Arc::default(),
            calls: Arc::default(),
            holds_answers: false,
        }
    }
    fn close(&self, operation: Operation) {
        self.close_on(operation, "", 0);
    }
    fn close_on(&self, operation: Operation, part: &str, calls: usize) {
        self.closed.lock().unwrap().insert(operation, (part.to_owned(), calls));
    }
    fn open(&self) {
        self.closed.lock().unwrap().clear();
    }
    async fn pass(&self, operation: Operation, id: &KeyId) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let is_held = match self.closed.lock().unwrap().get_mut(&operation) {
            Some((part, left)) if id.as_str().contains(part.as_str()) => match left {
                0 => true,
                left => {
                    *left -= 1;
                    false
                }
            },
            _ => false,
        };
        if !is_held {
            return;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while self.closed.lock().unwrap().contains_key(&operation) {
            sleep_ms(2).await;
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
    async fn until_held(&self) {
        for _ in 0..20_000 {
            if self.waiting.load(Ordering::SeqCst) > 0 {
                return;
            }
            sleep_ms(1).await;
        }
        panic!("nothing came to the gate");
    }
}

#[async_trait]
impl KeyStore for Gate {
    fn info(&self) -> StoreInfo {
        self.memory.info()
    }
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.memory.capabilities();
        capabilities.consistency = self.consistency;
        capabilities
    }
    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        if self.holds_answers {
            let answer = self.memory.get_key(id).await;
            self.pass(Operation::Get, id).await;
            return answer;
        }
        self.pass(Operation::Get, id).await;
        if let Some(stale) = self.stale.lock().unwrap().clone() {
            return Ok(stale);
        }
        self.memory.get_key(id).await
    }
    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let operation = if mode == PutMode::Create { Operation::Create } else { Operation::Put };
        self.pass(operation, id).await;
        let late = self.late_write.lock().unwrap().take();
        if let Some(late) = late {
            let memory = self.memory.clone();
            let id = id.clone();
            let key = key.clone();
            tokio::spawn(async move {
                tokio::time::sleep(late).await;
                drop(memory.put_key_with(&id, &key, mode).await);
            });
            return Err(Error::new(ErrorKind::Timeout, operation, "memory"));
        }
        self.memory.put_key_with(id, key, mode).await
    }
    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.pass(Operation::Delete, id).await;
        let late = self.late_delete.lock().unwrap().take();
        if let Some(late) = late {
            let memory = self.memory.clone();
            let id = id.clone();
            let task = tokio::spawn(async move {
                tokio::time::sleep(late).await;
                memory.delete_key(&id).await
            });
            return task.await.unwrap();
        }
        self.memory.delete_key(id).await
    }
    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.memory.list_keys()
    }
    async fn check(&self) -> Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Fixture {
    keys: MemoryStore,
    tombstones: MemoryStore,
}

impl Fixture {
    fn fence(&self) -> Fenced<MemoryStore, MemoryStore> {
        Fenced::builder(self.keys.clone(), self.tombstones.clone()).build().unwrap()
    }
    fn gated(&self, keys: &Gate) -> Fenced<Gate, MemoryStore> {
        Fenced::builder(keys.clone(), self.tombstones.clone()).build().unwrap()
    }
    /// Returns a stack with a cache, and the gate that holds the answers of its tombstones.
    async fn slow_stack(&self, ttl: u64) -> (Stack, Gate) {
        let mut gate = Gate::over(&self.tombstones);
        gate.holds_answers = true;
        let builder = Stack::builder(self.keys.clone()).tombstones(gate.clone());
        let stack = builder.cache_ttl(Duration::from_secs(ttl)).build().unwrap();
        drop(stack.get_key(&bob()).await);
        gate.close(Operation::Get);
        (stack, gate)
    }
    async fn records(&self) -> usize {
        self.tombstones.list_keys().try_collect::<Vec<_>>().await.unwrap().len()
    }
}

#[tokio::test]
async fn a_cleanup_overtaken_by_an_erasure_counts_for_the_wait() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    fence.put_key(&alice(), &key(1)).await.unwrap();
    // A reader in a process with a cache is held between the fence and the key.
    let (stack, late) = fixture.slow_stack(2).await;
    let reader = tokio::spawn({
        let stack = stack.clone();
        async move { stack.get_key(&alice()).await }
    });
    late.until_held().await;
    fence.erase(&alice()).await.unwrap();
    // The key comes back, and a caller that cleans it up sees generation 1.
    fixture.keys.put_key(&alice(), &key(1)).await.unwrap();
    let gate = Gate::over(&fixture.keys);
    gate.close(Operation::Delete);
    let cleaning = fixture.gated(&gate);
    let cleaner = tokio::spawn(async move { cleaning.get_key(&alice()).await.map(drop) });
    gate.until_held().await;
    // The user is erased as generation 2, and the key comes back once more.
    fence.erase(&alice()).await.unwrap();
    fixture.keys.put_key(&alice(), &key(1)).await.unwrap();
    sleep_ms(2800).await;
    late.open();
    assert_eq!(reader.await.unwrap().unwrap(), key(1), "it began before the erasure");
    gate.open();
    drop(cleaner.await);
    assert!(fixture.keys.find_key(&alice()).await.unwrap().is_none());
    sleep_ms(300).await;
    let allowed = fence.allow_new_key(&alice()).await;
    drop(fence.create_key(&alice(), &key(2)).await);
    let read = stack.get_key(&alice()).await;
    assert!(read.map_or(true, |read| read != key(1)), "allowed: {allowed:?}, and the erased key is returned");
}

#[tokio::test]
async fn a_reconciliation_that_cannot_record_leaves_its_claim_to_expire() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    fence.put_key(&alice(), &key(1)).await.unwrap();
    let (stack, late) = fixture.slow_stack(2).await;
    let reader = tokio::spawn({
        let stack = stack.clone();
        async move { stack.get_key(&alice()).await }
    });
    late.until_held().await;
    fence.erase(&alice()).await.unwrap();
    fixture.keys.put_key(&alice(), &key(1)).await.unwrap();
    sleep_ms(2800).await;
    late.open();
    assert_eq!(reader.await.unwrap().unwrap(), key(1), "it began before the erasure");
    // The reconciler creates its claim, then the record of the deletion fails.
    let faulty = Faulty::builder(fixture.tombstones.clone())
        .fault(Fault::latency(Duration::ZERO).on(Operation::Create).times(1))
        .fault(Fault::error(ErrorKind::PermissionDenied).on(Operation::Create))
        .build()
        .unwrap();
    let reconciler = Fenced::builder(fixture.keys.clone(), faulty).build().unwrap();
    let report = reconciler.reconcile(|_| {}).await.unwrap();
    assert!(fixture.keys.find_key(&alice()).await.unwrap().is_none());
    sleep_ms(300).await;
    let allowed = fence.allow_new_key(&alice()).await;
    drop(fence.create_key(&alice(), &key(2)).await);
    let read = stack.get_key(&alice()).await;
    assert!(read.map_or(true, |read| read != key(1)), "{report:?}, allowed: {allowed:?}, the erased key is returned");
}

#[tokio::test]
async fn a_call_of_allow_new_key_that_cannot_record_leaves_its_claim_to_expire() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    fence.put_key(&alice(), &key(1)).await.unwrap();
    let (stack, late) = fixture.slow_stack(2).await;
    let reader = tokio::spawn({
        let stack = stack.clone();
        async move { stack.get_key(&alice()).await }
    });
    late.until_held().await;
    fence.erase(&alice()).await.unwrap();
    fixture.keys.put_key(&alice(), &key(1)).await.unwrap();
    sleep_ms(3050).await;
    late.open();
    assert_eq!(reader.await.unwrap().unwrap(), key(1), "it began before the erasure");
    // The call creates its claim, then the record of the deletion fails.
    let faulty = Faulty::builder(fixture.tombstones.clone())
        .fault(Fault::latency(Duration::ZERO).on(Operation::Create).times(1))
        .fault(Fault::error(ErrorKind::PermissionDenied).on(Operation::Create))
        .build()
        .unwrap();
    let allowing = Fenced::builder(fixture.keys.clone(), faulty).build().unwrap();
    let report = allowing.allow_new_key(&alice()).await.unwrap_err();
    assert!(fixture.keys.find_key(&alice()).await.unwrap().is_none());
    sleep_ms(10).await;
    let allowed = fence.allow_new_key(&alice()).await;
    drop(fence.create_key(&alice(), &key(2)).await);
    let read = stack.get_key(&alice()).await;
    assert!(read.map_or(true, |read| read != key(1)), "{report:?}, allowed: {allowed:?}, the erased key is returned");
}

#[tokio::test]
async fn a_write_of_unknown_effect_is_reported_as_such() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    let gate = Gate::over(&fixture.keys);
    gate.close(Operation::Create);
    let writer = fixture.gated(&gate);
    let writing = tokio::spawn(async move { writer.create_key(&alice(), &key(1)).await });
    gate.until_held().await;
    fence.erase(&alice()).await.unwrap();
    *gate.late_write.lock().unwrap() = Some(Duration::from_millis(100));
    gate.open();
    let e = writing.await.unwrap().unwrap_err();
    sleep_ms(300).await;
    let stands = fixture.keys.find_key(&alice()).await.unwrap().is_some();
    assert!(!(stands && e.effect() == Effect::NotApplied), "{:?} NotApplied, but it was applied", e.kind());
}

#[tokio::test]
async fn a_tombstone_from_a_clock_that_is_ahead_has_a_correct_pause() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    let name = fence.tombstone_of(&alice()).await.unwrap();
    let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 3600;
    let mut bytes = vec![1];
    bytes.extend(at.to_be_bytes());
    fixture.tombstones.put_key(&KeyId::new(name).unwrap(), &SecretKey::new(bytes).unwrap()).await.unwrap();
    let error = fence.allow_new_key(&alice()).await.unwrap_err();
    let pause = error.retry_after().unwrap();
    assert!(pause > Duration::from_secs(3000), "{pause:?}, and that again and again for an hour");
}

#[tokio::test]
async fn reads_of_a_key_that_a_lagging_replica_shows_add_few_records() {
    let fixture = Fixture::default();
    let mut gate = Gate::over(&fixture.keys);
    gate.consistency = Consistency::Eventual { within: Duration::from_secs(5) };
    let fence = fixture.gated(&gate);
    fence.put_key(&alice(), &key(1)).await.unwrap();
    fence.erase(&alice()).await.unwrap();
    *gate.stale.lock().unwrap() = Some(key(1)); // within the bound
    let before = fixture.records().await;
    for _ in 0..20 {
        assert_eq!(fence.get_key(&alice()).await.unwrap_err().kind(), ErrorKind::Erased);
    }
    let added = fixture.records().await - before;
    assert!(added <= 20, "20 reads added {added} records that stay for ever");
}

#[tokio::test]
async fn a_store_that_contains_no_tombstones_is_refused() {
    let fixture = Fixture::default();
    fixture.keys.put_key(&alice(), &key(1)).await.unwrap();
    // The two stores are swapped.
    let swapped = Fenced::builder(fixture.tombstones.clone(), fixture.keys.clone()).build().unwrap();
    for error in [swapped.erase(&bob()).await.map(drop), swapped.get_key(&bob()).await.map(drop)] {
        let e = error.unwrap_err();
        assert_eq!((e.kind(), e.effect()), (ErrorKind::Config, Effect::NotApplied));
    }
    let listed: Vec<KeyId> = fixture.keys.list_keys().try_collect().await.unwrap();
    assert_eq!(listed, [alice()], "nothing was written among the keys");
    // Nobody was ever erased with these tombstones.
    let e = fixture.fence().reconcile(|_| {}).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
    assert_eq!(fixture.records().await, 0);
    // The fence key is gone. Under a new one, the tombstones could not be found.
    fixture.fence().erase(&alice()).await.unwrap();
    fixture.tombstones.delete_key(&KeyId::new("fence-key").unwrap()).await.unwrap();
    assert_eq!(fixture.fence().create_key(&alice(), &key(2)).await.unwrap_err().kind(), ErrorKind::Config);
}

#[test]
fn a_deadline_after_which_a_call_counts_as_dead_is_refused() {
    let builder = || Stack::builder(MemoryStore::new()).deadline(Duration::from_secs(31));
    assert!(builder().build().is_ok());
    assert_eq!(builder().tombstones(MemoryStore::new()).build().unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn a_delete_that_may_still_be_applied_is_waited_for() {
    let fixture = Fixture::default();
    let gate = Gate::over(&fixture.keys);
    let retrying = Resilient::builder(gate.clone()).attempt_timeout(Duration::from_millis(200)).build().unwrap();
    let fence = Fenced::builder(retrying, fixture.tombstones.clone()).build().unwrap();
    fence.put_key(&alice(), &key(1)).await.unwrap();
    // The first delete times out, and the second one succeeds. Then the first is applied.
    *gate.late_delete.lock().unwrap() = Some(Duration::from_secs(2));
    let erasure = fence.erase_key(&alice()).await.unwrap();
    assert!(erasure.existed && erasure.verified);
    let error = fence.allow_new_key(&alice()).await;
    let created = fence.create_key(&alice(), &key(2)).await;
    sleep_ms(2500).await;
    let stands = fixture.keys.find_key(&alice()).await.unwrap().is_some();
    assert!(created.is_err() || stands, "allowed: {error:?}, and the late delete has deleted the new key");
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Conflict);
}
