//! The fence when calls overlap, stores lag and answers are lost: no erased key comes back, no new
//! key is lost, and no error hides that a call may have been applied.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Effect, Error, ErrorKind, Finality, KeyId, KeyStore,
    KeyStoreExt, Operation, PutMode, Result, SecretKey, StoreInfo, async_trait,
};
use keystead_layers::{Fault, Faulty, Fenced, Stack};
use keystead_memory::MemoryStore;

fn alice() -> KeyId {
    KeyId::new("alice@example.com").unwrap()
}
fn alice_static() -> &'static KeyId {
    Box::leak(Box::new(alice()))
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
    closed: Arc<Mutex<HashMap<Operation, usize>>>,
    consistency: Consistency,
    /// The number of reads that fail with `NotFound`, like those of a lagging replica.
    blind: Arc<AtomicUsize>,
    refuse_deletes: Arc<AtomicBool>,
}

impl Gate {
    fn over(memory: &MemoryStore) -> Self {
        Self {
            memory: memory.clone(),
            closed: Arc::default(),
            consistency: Consistency::Strong,
            blind: Arc::default(),
            refuse_deletes: Arc::default(),
        }
    }
    fn lagging(memory: &MemoryStore, within: Duration) -> Self {
        Self { consistency: Consistency::Eventual { within }, ..Self::over(memory) }
    }
    /// Closes the gate after this many further calls of the operation.
    fn close_after(&self, operation: Operation, calls: usize) {
        self.closed.lock().unwrap().insert(operation, calls);
    }
    fn close(&self, operation: Operation) {
        self.close_after(operation, 0);
    }
    fn open(&self) {
        self.closed.lock().unwrap().clear();
    }
    async fn pass(&self, operation: Operation) {
        poll_fn(|context| match self.closed.lock().unwrap().get_mut(&operation) {
            None => Poll::Ready(()),
            Some(0) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Some(left) => {
                *left -= 1;
                Poll::Ready(())
            }
        })
        .await;
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
        self.pass(Operation::Get).await;
        if self.blind.load(Ordering::SeqCst) > 0 {
            self.blind.fetch_sub(1, Ordering::SeqCst);
            return MemoryStore::new().get_key(id).await;
        }
        self.memory.get_key(id).await
    }
    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.pass(if mode == PutMode::Create { Operation::Create } else { Operation::Put }).await;
        self.memory.put_key_with(id, key, mode).await
    }
    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.pass(Operation::Delete).await;
        if self.refuse_deletes.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::PermissionDenied, Operation::Delete, "memory"));
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

fn advance<F: Future>(call: &mut Pin<Box<F>>) -> Option<F::Output> {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..2_000 {
        if let Poll::Ready(answer) = call.as_mut().poll(&mut context) {
            return Some(answer);
        }
    }
    None
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
    fn stack(&self, ttl: Duration) -> Stack {
        Stack::builder(self.keys.clone()).tombstones(self.tombstones.clone()).cache_ttl(ttl).build().unwrap()
    }
    async fn records(&self) -> usize {
        self.tombstones.list_keys().try_collect::<Vec<_>>().await.unwrap().len()
    }
}

#[tokio::test]
async fn a_reader_paused_over_two_erasures_deletes_no_new_key() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    fence.put_key(&alice(), &key(1)).await.unwrap();
    fence.erase(&alice()).await.unwrap();
    fixture.keys.put_key(&alice(), &key(1)).await.unwrap();
    let gate = Gate::over(&fixture.keys);
    gate.close(Operation::Delete);
    let slow = Fenced::builder(gate.clone(), fixture.tombstones.clone()).build().unwrap();
    let mut reader = Box::pin(async move { slow.get_key(&alice()).await });
    assert!(advance(&mut reader).is_none());
    sleep_ms(1100).await;
    fence.erase(&alice()).await.unwrap();
    assert_eq!(fence.allow_new_key(&alice()).await.unwrap_err().kind(), ErrorKind::Conflict);
    gate.open();
    drop(reader.await);
    fence.allow_new_key(&alice()).await.unwrap();
    fence.create_key(&alice(), &key(2)).await.unwrap();
    assert_eq!(fence.get_key(&alice()).await.unwrap(), key(2));
}

#[tokio::test]
async fn a_call_of_allow_new_key_paused_over_two_erasures_deletes_no_new_key() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    fence.erase(&alice()).await.unwrap();
    fixture.keys.put_key(&alice(), &key(1)).await.unwrap();
    let gate = Gate::over(&fixture.keys);
    gate.close(Operation::Delete);
    let slow = Fenced::builder(gate.clone(), fixture.tombstones.clone()).build().unwrap();
    let mut allowing = Box::pin(async move { slow.allow_new_key(&alice()).await });
    assert!(advance(&mut allowing).is_none());
    sleep_ms(1100).await;
    fence.erase(&alice()).await.unwrap();
    assert_eq!(fence.allow_new_key(&alice()).await.unwrap_err().kind(), ErrorKind::Conflict);
    gate.open();
    // The call concerns an erasure that has been lifted.
    assert_eq!(allowing.await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(fence.get_key(&alice()).await.unwrap_err().kind(), ErrorKind::Erased);
    fence.allow_new_key(&alice()).await.unwrap();
}

#[tokio::test]
async fn a_process_without_a_cache_respects_a_wait_that_begins_again() {
    let fixture = Fixture::default();
    let operator = fixture.fence();
    drop(fixture.stack(Duration::from_secs(2)).get_key(&bob()).await); // some process has a cache
    operator.erase(&alice()).await.unwrap();
    sleep_ms(3100).await;
    fixture.keys.put_key(&alice(), &key(1)).await.unwrap();
    let first = operator.allow_new_key(&alice()).await.unwrap_err();
    assert_eq!(first.kind(), ErrorKind::Conflict);
    let second = operator.allow_new_key(&alice()).await.map_err(|e| e.kind());
    assert_eq!(second, Err(ErrorKind::Conflict), "told to wait 3 s, and let through at once");
}

#[tokio::test]
async fn a_stale_absence_lifts_no_tombstone() {
    let fixture = Fixture::default();
    let lagging = Gate::lagging(&fixture.keys, Duration::from_secs(1));
    let fence = Fenced::builder(lagging.clone(), fixture.tombstones.clone()).build().unwrap();
    fence.put_key(&alice(), &key(1)).await.unwrap();
    fence.erase(&alice()).await.unwrap();
    sleep_ms(2100).await;
    // A late writer or a restore has written a key before the call begins, but within the bound, so
    // that one read does not see it.
    fixture.keys.put_key(&alice(), &key(1)).await.unwrap();
    lagging.blind.store(1, Ordering::SeqCst);
    let allowed = fence.allow_new_key(&alice()).await.map_err(|e| e.kind());
    sleep_ms(1100).await;
    let read = fence.find_key(&alice()).await.map_err(|e| e.kind());
    assert!(read != Ok(Some(key(1))), "allowed: {allowed:?}, and the erased key is returned");
}

#[tokio::test]
async fn reconciling_erases_no_new_key() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    fence.erase(&alice()).await.unwrap();
    fixture.keys.put_key(&alice(), &key(1)).await.unwrap();
    sleep_ms(1100).await;
    let gate = Gate::over(&fixture.tombstones);
    let reconciler = Fenced::builder(fixture.keys.clone(), gate.clone()).build().unwrap();
    drop(reconciler.get_key(&bob()).await);
    gate.close(Operation::Create);
    let mut reconciling = Box::pin(reconciler.reconcile(|_| {}));
    assert!(advance(&mut reconciling).is_none());
    fence.allow_new_key(&alice()).await.unwrap();
    fence.create_key(&alice(), &key(2)).await.unwrap();
    gate.open();
    let report = reconciling.await.unwrap();
    assert_eq!(fence.get_key(&alice()).await.map_err(|e| e.kind()), Ok(key(2)), "the new key is erased: {report:?}");
}

#[tokio::test]
async fn a_creator_from_before_an_erasure_fails_with_erased_even_after_a_new_key_was_allowed() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    let gate = Gate::over(&fixture.tombstones);
    let creator = Fenced::builder(fixture.keys.clone(), gate.clone()).build().unwrap();
    drop(creator.get_key(&bob()).await);
    gate.close_after(Operation::Get, 1);
    let one = key(1);
    let mut creating = Box::pin(creator.create_key(alice_static(), &one));
    assert!(advance(&mut creating).is_none());
    assert!(fence.erase(&alice()).await.unwrap().existed);
    fence.allow_new_key(&alice()).await.unwrap();
    gate.open();
    let answer = creating.await.map_err(|e| e.kind());
    assert_eq!(answer, Err(ErrorKind::Erased), "and its key is gone");
}

#[tokio::test]
async fn get_or_create_from_before_an_erasure_never_returns_the_erased_key() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    let gate = Gate::over(&fixture.tombstones);
    let creator = Fenced::builder(fixture.keys.clone(), gate.clone()).build().unwrap();
    drop(creator.get_key(&bob()).await);
    gate.close_after(Operation::Get, 1);
    let one = key(1);
    let mut creating = Box::pin(creator.get_or_create(alice_static(), &one));
    assert!(advance(&mut creating).is_none());
    assert!(fence.erase(&alice()).await.unwrap().existed);
    fence.allow_new_key(&alice()).await.unwrap();
    fence.create_key(&alice(), &key(2)).await.unwrap();
    gate.open();
    let answer = creating.await.map_err(|e| e.kind());
    assert!(answer != Ok(key(1)), "the erased key is returned, and nothing keeps it");
}

#[tokio::test]
async fn an_error_after_the_tombstone_was_lifted_has_an_unknown_effect() {
    for passed in 0..100 {
        let fixture = Fixture::default();
        let fence = fixture.fence();
        fence.erase(&alice()).await.unwrap();
        let faulty = Faulty::builder(fixture.tombstones.clone())
            .fault(Fault::latency(Duration::ZERO).on(Operation::Get).times(passed + 1))
            .fault(Fault::error(ErrorKind::Unavailable).on(Operation::Get))
            .build()
            .unwrap();
        let allowing = Fenced::builder(fixture.keys.clone(), faulty).build().unwrap();
        if let Err(e) = allowing.allow_new_key(&alice()).await
            && e.effect() == Effect::NotApplied
        {
            assert!(fence.erased_at(&alice()).await.unwrap().is_some(), "after {passed} reads: NotApplied, but lifted");
        }
    }
}

#[tokio::test]
async fn reads_that_cannot_delete_do_not_fill_the_store_of_the_tombstones() {
    let fixture = Fixture::default();
    let gate = Gate::over(&fixture.keys);
    gate.refuse_deletes.store(true, Ordering::SeqCst);
    let fence = Fenced::builder(gate, fixture.tombstones.clone()).build().unwrap();
    fixture.fence().erase(&alice()).await.unwrap();
    fixture.keys.put_key(&alice(), &key(1)).await.unwrap();
    let before = fixture.records().await;
    for _ in 0..100 {
        assert_eq!(fence.get_key(&alice()).await.unwrap_err().kind(), ErrorKind::Erased);
    }
    let added = fixture.records().await - before;
    assert!(added < 100, "100 reads that could not delete have added {added} records, which are never removed");
}

#[test]
fn a_store_is_dropped_with_its_stack() {
    #[derive(Debug)]
    struct Dropped(MemoryStore, Arc<AtomicBool>, Arc<Mutex<Option<String>>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            *self.2.lock().unwrap() = std::thread::current().name().map(str::to_owned);
            self.1.store(true, Ordering::SeqCst);
        }
    }
    #[async_trait]
    impl KeyStore for Dropped {
        fn info(&self) -> StoreInfo {
            self.0.info()
        }
        fn capabilities(&self) -> Capabilities {
            self.0.capabilities()
        }
        async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
            self.0.get_key(id).await
        }
        async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
            self.0.put_key_with(id, key, mode).await
        }
        async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
            self.0.delete_key(id).await
        }
        fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
            self.0.list_keys()
        }
        async fn check(&self) -> Result<()> {
            Ok(())
        }
    }
    let mut late = 0;
    let mut threads = Vec::new();
    for _ in 0..50 {
        let is_dropped = Arc::new(AtomicBool::new(false));
        let thread = Arc::new(Mutex::new(None));
        let store = Dropped(MemoryStore::new(), is_dropped.clone(), thread.clone());
        let stack = Stack::builder(store).cache_ttl(Duration::from_secs(60)).build().unwrap();
        std::thread::sleep(Duration::from_millis(2));
        drop(stack);
        late += u32::from(!is_dropped.load(Ordering::SeqCst));
        std::thread::sleep(Duration::from_millis(20));
        threads.push(thread.lock().unwrap().clone());
    }
    assert_eq!(late, 0, "of 50 stores were still open after their stack was dropped; dropped on {:?}", threads[0]);
}

#[tokio::test]
async fn no_new_key_is_allowed_while_the_old_one_can_be_restored() {
    #[derive(Clone, Debug, Default)]
    struct Bin {
        live: MemoryStore,
        pending: MemoryStore,
    }
    const WINDOW: Duration = Duration::from_secs(7 * 86_400);
    impl Bin {
        async fn refusal(&self, id: &KeyId, operation: Operation) -> ErrorKind {
            let _ = operation;
            match self.pending.find_key(id).await.unwrap() {
                Some(_) => ErrorKind::PendingDeletion,
                None => ErrorKind::NotFound,
            }
        }
    }
    #[async_trait]
    impl KeyStore for Bin {
        fn info(&self) -> StoreInfo {
            self.live.info()
        }
        fn capabilities(&self) -> Capabilities {
            let mut capabilities = self.live.capabilities();
            capabilities.deletion = DeletionGrade::Recoverable { window: WINDOW };
            capabilities
        }
        async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
            match self.live.find_key(id).await? {
                Some(key) => Ok(key),
                None => Err(Error::new(self.refusal(id, Operation::Get).await, Operation::Get, "bin")),
            }
        }
        async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
            self.live.put_key_with(id, key, mode).await
        }
        async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
            match self.live.find_key(id).await? {
                Some(key) => {
                    self.pending.put_key(id, &key).await?;
                    self.live.delete_key(id).await?;
                    Ok(Deletion::new(Finality::RecoverableUntil(SystemTime::now() + WINDOW)))
                }
                None => Err(Error::new(self.refusal(id, Operation::Delete).await, Operation::Delete, "bin")),
            }
        }
        fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
            self.live.list_keys()
        }
        async fn check(&self) -> Result<()> {
            Ok(())
        }
    }
    let bin = Bin::default();
    let fence = Fenced::builder(bin.clone(), MemoryStore::new()).build().unwrap();
    fence.erase(&alice()).await.unwrap();
    bin.live.put_key(&alice(), &key(1)).await.unwrap(); // a late writer that died
    let allowed = fence.allow_new_key(&alice()).await.map_err(|e| e.kind());
    assert_eq!(bin.get_key(&alice()).await.unwrap_err().kind(), ErrorKind::PendingDeletion);
    assert_eq!(allowed, Err(ErrorKind::PendingDeletion), "the documented answer");
}

#[tokio::test]
async fn a_repeated_id_has_one_outcome() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    fence.erase(&alice()).await.unwrap();
    fence.allow_new_key(&alice()).await.unwrap();
    fence.create_key(&alice(), &key(2)).await.unwrap();
    let gate = Gate::over(&fixture.tombstones);
    let reader = Fenced::builder(fixture.keys.clone(), gate.clone()).build().unwrap();
    drop(reader.erased_at(&bob()).await);
    gate.close_after(Operation::Get, 2);
    let ids = [alice(), alice()];
    let mut reading = Box::pin(reader.get_keys(&ids));
    assert!(advance(&mut reading).is_none());
    fence.erase(&alice()).await.unwrap();
    gate.open();
    let kinds: Vec<_> = reading.await.into_iter().map(|answer| answer.map_err(|e| e.kind())).collect();
    assert_eq!(kinds[0], kinds[1]);
}

#[tokio::test]
async fn a_creator_on_a_lagging_store_that_was_overtaken_by_an_erasure_reports_an_unknown_effect() {
    let fixture = Fixture::default();
    let keys = Gate::lagging(&fixture.keys, Duration::from_secs(1));
    let fence = Fenced::builder(fixture.keys.clone(), fixture.tombstones.clone()).build().unwrap();
    let creator = Fenced::builder(keys.clone(), fixture.tombstones.clone()).build().unwrap();
    drop(creator.erased_at(&bob()).await);
    keys.close(Operation::Create);
    let one = key(1);
    let mut creating = Box::pin(creator.create_key(alice_static(), &one));
    assert!(advance(&mut creating).is_none());
    assert!(fence.erase(&alice()).await.unwrap().verified);
    keys.blind.store(1, Ordering::SeqCst);
    keys.open();
    let e = creating.await.unwrap_err();
    let left = fixture.keys.find_key(&alice()).await.unwrap().is_some();
    assert!(!(left && e.effect() == Effect::NotApplied), "{:?}, NotApplied, and the key stands", e.kind());
}

#[tokio::test]
async fn a_failed_read_leaves_no_claim_behind() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    fence.erase(&alice()).await.unwrap();
    let faulty = Faulty::builder(fixture.tombstones.clone())
        .fault(Fault::latency(Duration::ZERO).on(Operation::Get).times(38))
        .fault(Fault::error(ErrorKind::Unavailable).on(Operation::Get))
        .build()
        .unwrap();
    let failing = Fenced::builder(fixture.keys.clone(), faulty).build().unwrap();
    let e = failing.allow_new_key(&alice()).await.unwrap_err();
    assert_eq!((e.kind(), e.retry_after()), (ErrorKind::Unavailable, None));
    let again = fence.allow_new_key(&alice()).await.map_err(|e| (e.kind(), e.retry_after()));
    assert_eq!(again, Ok(()));
}
