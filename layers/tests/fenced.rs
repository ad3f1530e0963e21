//! The promises of the fence, in races and when a process dies in the middle of a call.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::slice;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{FutureExt, StreamExt, TryStreamExt};
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Durability, Effect, Error, ErrorKind, IdentityMatch,
    KeyId, KeyStore, KeyStoreExt, Operation, PutMode, Result, SecretKey, StoreInfo, async_trait,
};
use keystead_layers::{Cached, Fault, Faulty, Fenced};
use keystead_memory::MemoryStore;
use tokio::sync::Notify;

/// The stores beneath the fence, which the tests also use directly.
#[derive(Clone, Debug, Default)]
struct Fixture {
    keys: MemoryStore,
    tombstones: MemoryStore,
}

impl Fixture {
    fn fence(&self) -> Fenced<MemoryStore, MemoryStore> {
        Fenced::builder(self.keys.clone(), self.tombstones.clone()).build().unwrap()
    }

    async fn expect_no_key(&self) {
        assert!(self.keys.find_key(&alice()).await.unwrap().is_none(), "what was left behind is still there");
    }
}

fn alice() -> KeyId {
    KeyId::new("alice@example.com").unwrap()
}

fn key(byte: u8) -> SecretKey {
    SecretKey::new([byte; 32]).unwrap()
}

fn expect_erased<T>(answer: Result<T>) {
    assert_eq!(answer.err().unwrap().kind(), ErrorKind::Erased);
}

async fn expect_every_call_erased(store: &impl KeyStore) {
    expect_erased(store.get_key(&alice()).await);
    expect_erased(store.find_key(&alice()).await);
    expect_erased(store.get_keys(&[alice()]).await.remove(0));
    expect_erased(store.put_key(&alice(), &key(2)).await);
    expect_erased(store.create_key(&alice(), &key(2)).await);
    expect_erased(store.get_or_create(&alice(), &key(2)).await);
    expect_erased(store.get_or_create_key(&alice()).await);
    let listed: Vec<KeyId> = store.list_keys().try_collect().await.unwrap();
    assert!(listed.is_empty());
}

#[tokio::test]
async fn an_erased_user_stays_erased_for_every_handle() {
    let fixture = Fixture::default();
    let one = fixture.fence();
    let two = fixture.fence();
    one.put_key(&alice(), &key(1)).await.unwrap();
    let erasure = two.erase_key(&alice()).await.unwrap();
    assert!(erasure.existed && erasure.verified);
    expect_every_call_erased(&one).await;
    expect_every_call_erased(&two).await;
    expect_every_call_erased(&fixture.fence()).await;
    fixture.expect_no_key().await;
}

#[tokio::test]
async fn a_deleted_key_can_be_created_again() {
    let fence = Fixture::default().fence();
    fence.put_key(&alice(), &key(1)).await.unwrap();
    fence.delete_key(&alice()).await.unwrap();
    assert!(fence.find_key(&alice()).await.unwrap().is_none());
    fence.create_key(&alice(), &key(2)).await.unwrap();
}

#[tokio::test]
async fn a_new_key_can_be_allowed() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    fence.put_key(&alice(), &key(1)).await.unwrap();
    fence.allow_new_key(&alice()).await.unwrap();
    assert_eq!(fence.get_key(&alice()).await.unwrap(), key(1), "who was not erased is not touched");
    fence.erase(&alice()).await.unwrap();
    // Written without the fence. The old key must not come back as the new one.
    fixture.keys.put_key(&alice(), &key(1)).await.unwrap();
    fence.allow_new_key(&alice()).await.unwrap();
    assert!(fence.find_key(&alice()).await.unwrap().is_none());
    assert_eq!(fence.erased_at(&alice()).await.unwrap(), None);
    fence.create_key(&alice(), &key(2)).await.unwrap();
}

#[tokio::test]
async fn a_key_that_was_left_behind_is_deleted_by_the_next_call() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    fence.erase(&alice()).await.unwrap();
    macro_rules! meets {
        ($($call:expr),+) => {$(
            fixture.keys.put_key(&alice(), &key(1)).await.unwrap();
            drop($call.await);
            fixture.expect_no_key().await;
        )+};
    }
    let ids = [KeyId::new("bob").unwrap(), alice()];
    meets! {
        fence.get_key(&alice()), fence.get_keys(&ids), fence.put_key(&alice(), &key(2)),
        fence.create_key(&alice(), &key(2)), fence.get_or_create(&alice(), &key(2)),
        fence.list_keys().collect::<Vec<_>>(), fence.erase_key(&alice()), fence.delete_key(&alice())
    }
}

#[tokio::test]
async fn a_damaged_key_that_was_left_behind_is_deleted_too() {
    let damaged =
        Faulty::builder(MemoryStore::new()).fault(Fault::error(ErrorKind::Corrupt).on(Operation::Get).times(9));
    let damaged = Arc::new(damaged.build().unwrap());
    let fence = Fenced::builder(damaged.clone(), MemoryStore::new()).build().unwrap();
    fence.erase(&alice()).await.unwrap();
    damaged.put_key(&alice(), &key(1)).await.unwrap();
    expect_erased(fence.get_key(&alice()).await);
    damaged.clear();
    assert!(damaged.find_key(&alice()).await.unwrap().is_none());
}

#[tokio::test]
async fn an_erasure_that_failed_half_way_is_effective_and_can_be_finished() {
    let keys = Faulty::builder(MemoryStore::new()).fault(Fault::error(ErrorKind::Unavailable).on(Operation::Erase));
    let keys = Arc::new(keys.build().unwrap());
    let fence = Fenced::builder(keys.clone(), MemoryStore::new()).build().unwrap();
    keys.put_key(&alice(), &key(1)).await.unwrap();

    let failed = fence.erase(&alice()).await.unwrap_err();
    assert_eq!((failed.kind(), failed.effect()), (ErrorKind::Unavailable, Effect::Unknown));
    assert_eq!(failed.operation(), Operation::Erase);
    let receipt = fence.erase(&alice()).await.unwrap();
    assert!(receipt.existed && receipt.verified);
    expect_every_call_erased(&fence).await;
}

#[tokio::test]
async fn an_erasure_that_died_after_its_tombstone_is_finished_by_the_next_read() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    fixture.keys.put_key(&alice(), &key(1)).await.unwrap();
    let silent = Faulty::builder(fixture.keys.clone()).fault(Fault::hang().on(Operation::Erase)).build().unwrap();
    let dying = Fenced::builder(silent, fixture.tombstones.clone()).build().unwrap();
    let alice = alice();
    let mut erasure = Box::pin(dying.erase(&alice));
    assert!((&mut erasure).now_or_never().is_none());
    drop(erasure);
    expect_erased(fence.get_key(&alice).await);
    fixture.expect_no_key().await;
}

#[tokio::test]
async fn without_its_tombstones_the_fence_refuses_every_call() {
    let tombstones = Arc::new(Faulty::builder(MemoryStore::new()).build().unwrap());
    let keys = MemoryStore::new();
    let fence = Fenced::builder(keys.clone(), tombstones.clone()).build().unwrap();
    fence.put_key(&alice(), &key(1)).await.unwrap();
    tombstones.inject(Fault::error(ErrorKind::Unavailable).times(100));
    for (operation, error) in [
        (Operation::Get, fence.get_key(&alice()).await.err()),
        (Operation::Get, fence.get_keys(&[alice()]).await.remove(0).err()),
        (Operation::Put, fence.put_key(&alice(), &key(2)).await.err()),
        (Operation::Create, fence.get_or_create(&alice(), &key(2)).await.err()),
        (Operation::Erase, fence.erase_key(&alice()).await.err()),
        (Operation::List, fence.list_keys().next().await.unwrap().err()),
    ] {
        let error = error.unwrap();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Unavailable, operation));
    }
    assert_eq!(keys.get_key(&alice()).await.unwrap(), key(1), "the key has not changed");
}

#[tokio::test]
async fn a_write_after_which_the_tombstone_cannot_be_read_has_an_unknown_effect() {
    let tombstones = Arc::new(Faulty::builder(MemoryStore::new()).build().unwrap());
    let fence = Fenced::builder(MemoryStore::new(), tombstones.clone()).build().unwrap();
    fence.check().await.unwrap();
    assert!(fence.find_key(&alice()).await.unwrap().is_none());
    tombstones.inject(Fault::latency(Duration::ZERO).on(Operation::Get));
    tombstones.inject(Fault::error(ErrorKind::Throttled).on(Operation::Get));
    let error = fence.put_key(&alice(), &key(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Throttled, Effect::Unknown));
}

#[tokio::test]
async fn a_damaged_tombstone_is_an_error() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    let tombstone_id = KeyId::new(fence.tombstone_of(&alice()).await.unwrap()).unwrap();
    fixture.keys.put_key(&alice(), &key(1)).await.unwrap();
    fixture.tombstones.put_key(&tombstone_id, &key(7)).await.unwrap();
    assert_eq!(fence.get_key(&alice()).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(fence.get_keys(&[alice()]).await.remove(0).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(fixture.keys.get_key(&alice()).await.unwrap(), key(1), "nothing is deleted on a guess");
}

#[tokio::test]
async fn an_eventually_consistent_store_is_refused_for_tombstones() {
    let lagging = Cached::builder(MemoryStore::new()).build().unwrap();
    let error = Fenced::builder(MemoryStore::new(), lagging).build().unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, Operation::Open));
}

#[tokio::test]
async fn the_store_of_the_tombstones_contains_no_id() {
    let fixture = Fixture::default();
    fixture.fence().erase(&alice()).await.unwrap();
    let names: Vec<KeyId> = fixture.tombstones.list_keys().try_collect().await.unwrap();
    let mut names: Vec<&str> = names.iter().map(KeyId::as_str).collect();
    names.sort_unstable_by_key(|name| name.len());
    assert_eq!(names[0], "fence-key");
    assert!(names[1].len() == 64 && names[1].bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(names[2..], [format!("{}-1-ended", names[1])]);
    let key = fixture.tombstones.get_key(&KeyId::new(names[1]).unwrap()).await.unwrap();
    assert_eq!(key.expose_secret().len(), 25, "FORMAT.md says what a tombstone contains");
}

#[tokio::test]
async fn a_receipt_names_the_store_the_time_and_the_user_without_the_id() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    let before = SystemTime::now() - Duration::from_secs(1);
    let receipt = fence.erase(&alice()).await.unwrap();
    assert_eq!(receipt.store.compare(fixture.keys.info().identity()), IdentityMatch::Same);
    assert_eq!(receipt.tombstone, fixture.fence().tombstone_of(&alice()).await.unwrap());
    assert_ne!(receipt.tombstone, fence.tombstone_of(&KeyId::new("bob").unwrap()).await.unwrap());
    assert!(receipt.erased_at >= before && receipt.finished_at >= receipt.erased_at);
    assert!(!receipt.existed && receipt.verified);
    assert!(!format!("{receipt:?}").contains("alice"));
    assert_eq!(fence.erased_at(&alice()).await.unwrap(), Some(receipt.erased_at));

    let again = fence.erase(&alice()).await.unwrap();
    assert_eq!(again.erased_at, receipt.erased_at, "the first time counts");
}

#[tokio::test]
async fn the_description_names_the_fence() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    assert_eq!(fence.info().to_string(), format!("{}, fenced by {}", fixture.keys.info(), fixture.tombstones.info()));
    assert!(fence.capabilities().fenced);
}

/// A store whose puts wait until the test releases them.
#[derive(Debug, Default)]
struct Late {
    memory: MemoryStore,
    begun: Notify,
    let_go: Notify,
}

#[async_trait]
impl KeyStore for Late {
    fn info(&self) -> StoreInfo {
        self.memory.info()
    }

    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.memory.get_key(id).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.begun.notify_one();
        self.let_go.notified().await;
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

#[tokio::test]
async fn a_creator_overtaken_by_an_erasure_fails_and_leaves_no_key() {
    let late = Arc::new(Late::default());
    let fixture = Fixture::default();
    let fence = Arc::new(Fenced::builder(late.clone(), fixture.tombstones.clone()).build().unwrap());
    let creator = tokio::spawn({
        let fence = fence.clone();
        async move { fence.get_or_create_key(&alice()).await }
    });
    late.begun.notified().await;
    assert!(!fence.erase(&alice()).await.unwrap().existed);
    late.let_go.notify_one();
    let error: Error = creator.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Erased, Effect::NotApplied));
    assert!(late.memory.find_key(&alice()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_key_that_a_dead_creator_left_behind_is_never_returned_and_is_deleted_later() {
    let late = Arc::new(Late::default());
    let fixture = Fixture::default();
    let fence = Arc::new(Fenced::builder(late.clone(), fixture.tombstones.clone()).build().unwrap());
    let creator = tokio::spawn({
        let fence = fence.clone();
        async move { fence.put_key(&alice(), &key(1)).await }
    });
    late.begun.notified().await;
    fence.erase(&alice()).await.unwrap();
    creator.abort();
    drop(creator.await);
    // The write was in flight, and now reaches the store.
    late.memory.put_key(&alice(), &key(1)).await.unwrap();
    expect_erased(fence.get_key(&alice()).await);
    assert!(late.memory.find_key(&alice()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_fence_around_an_eventual_store_adds_no_bound() {
    // The guarantees of the store of the keys do not change.
    let lagging = Cached::builder(MemoryStore::new()).ttl(Duration::from_secs(5)).build().unwrap();
    let fence = Fenced::builder(lagging, MemoryStore::new()).build().unwrap();
    let within = Duration::from_secs(5);
    let expected = Capabilities::new(
        Durability::Process,
        Consistency::Eventual { within },
        DeletionGrade::Immediate,
        Some(Consistency::Strong),
    );
    assert_eq!(fence.capabilities(), expected.with_fence().with_cache());
    fence.put_key(&alice(), &key(1)).await.unwrap();
    fence.get_key(&alice()).await.unwrap();
    fence.erase_key(&alice()).await.unwrap();
    expect_every_call_erased(&fence).await;
}

/// Creators race with an erasure. Once it has returned, no read returns a key. Once all have ended,
/// no key is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_creator_outlives_an_erasure_in_ten_thousand_rounds() {
    let fixture = Fixture::default();
    let one = Arc::new(fixture.fence());
    let two = Arc::new(fixture.fence());
    for round in 0..10_000 {
        let id = KeyId::new(format!("user-{round}")).unwrap();
        let creator = |index: u8, fence: &Arc<Fenced<MemoryStore, MemoryStore>>| {
            let fence = fence.clone();
            let id = id.clone();
            tokio::spawn(async move {
                match index {
                    0 => fence.put_key(&id, &key(1)).await.err(),
                    1 => fence.create_key(&id, &key(2)).await.err(),
                    _ => fence.get_or_create_key(&id).await.err(),
                }
            })
        };
        let creators = [creator(0, &one), creator(1, &two), creator(2, &one)];
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        two.erase_key(&id).await.unwrap();
        for fence in [&one, &two] {
            expect_erased(fence.get_key(&id).await);
            expect_erased(fence.get_keys(slice::from_ref(&id)).await.remove(0));
        }
        for creator in creators {
            let error = creator.await.unwrap();
            assert!(error.is_none_or(|e| matches!(e.kind(), ErrorKind::Erased | ErrorKind::AlreadyExists)));
        }
        assert!(fixture.keys.find_key(&id).await.unwrap().is_none(), "round {round} left a key behind");
    }
}

#[tokio::test]
async fn a_write_without_an_answer_that_was_overtaken_by_an_erasure_leaves_no_key() {
    let late = Arc::new(Late::default());
    let fixture = Fixture::default();
    let lost = Fault::error(ErrorKind::Timeout).applied().on(Operation::Put);
    let unsteady = Faulty::builder(late.clone()).fault(lost).build().unwrap();
    let fence = Arc::new(Fenced::builder(unsteady, fixture.tombstones.clone()).build().unwrap());
    let writer = tokio::spawn({
        let fence = fence.clone();
        async move { fence.put_key(&alice(), &key(1)).await }
    });
    late.begun.notified().await;
    fence.erase(&alice()).await.unwrap();
    late.let_go.notify_one();
    expect_erased(writer.await.unwrap());
    assert!(late.memory.find_key(&alice()).await.unwrap().is_none());
}

#[tokio::test]
async fn no_new_key_is_allowed_while_the_erased_one_may_be_visible() {
    let lagging = Cached::builder(MemoryStore::new()).ttl(Duration::from_secs(60)).build().unwrap();
    let fence = Fenced::builder(lagging, MemoryStore::new()).build().unwrap();
    fence.erase(&alice()).await.unwrap();
    let error = fence.allow_new_key(&alice()).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Conflict, Effect::NotApplied));
    // The minute is recorded as the next power of two, and one second is added for differing
    // clocks.
    let pause = error.retry_after().unwrap();
    assert!((Duration::from_secs(63)..=Duration::from_secs(65)).contains(&pause), "{pause:?}");
    expect_erased(fence.get_key(&alice()).await);
}

#[tokio::test]
async fn a_read_never_has_an_unknown_effect() {
    let tombstones =
        Faulty::builder(MemoryStore::new()).fault(Fault::error(ErrorKind::Timeout).applied().on(Operation::Create));
    let fence = Fenced::builder(MemoryStore::new(), tombstones.build().unwrap()).build().unwrap();
    let error = fence.get_key(&alice()).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::NotApplied));
}
