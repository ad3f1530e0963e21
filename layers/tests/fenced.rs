//! Tests of the fence's promises, under races and when a process ends half-way.
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

/// The stores below the fence, looked at past it.
#[derive(Clone, Debug, Default)]
struct Below {
    keys: MemoryStore,
    tombstones: MemoryStore,
}

impl Below {
    fn fence(&self) -> Fenced<MemoryStore, MemoryStore> {
        Fenced::builder(self.keys.clone(), self.tombstones.clone()).build().unwrap()
    }

    async fn holds_no_key(&self) {
        assert!(self.keys.find_key(&alice()).await.unwrap().is_none(), "what was left behind is still there");
    }
}

fn alice() -> KeyId {
    KeyId::new("alice@example.com").unwrap()
}

fn key(byte: u8) -> SecretKey {
    SecretKey::new([byte; 32]).unwrap()
}

fn is_erased<T>(answer: Result<T>) {
    assert_eq!(answer.err().unwrap().kind(), ErrorKind::Erased);
}

async fn every_call_says_erased(store: &impl KeyStore) {
    is_erased(store.get_key(&alice()).await);
    is_erased(store.find_key(&alice()).await);
    is_erased(store.get_keys(&[alice()]).await.remove(0));
    is_erased(store.put_key(&alice(), &key(2)).await);
    is_erased(store.create_key(&alice(), &key(2)).await);
    is_erased(store.get_or_create(&alice(), &key(2)).await);
    is_erased(store.get_or_create_key(&alice()).await);
    let listed: Vec<KeyId> = store.list_keys().try_collect().await.unwrap();
    assert!(listed.is_empty());
}

#[tokio::test]
async fn the_erased_stay_erased_for_every_handle() {
    let below = Below::default();
    let (one, two) = (below.fence(), below.fence());
    one.put_key(&alice(), &key(1)).await.unwrap();
    let erasure = two.erase_key(&alice()).await.unwrap();
    assert!(erasure.existed && erasure.verified);
    every_call_says_erased(&one).await;
    every_call_says_erased(&two).await;
    every_call_says_erased(&below.fence()).await;
    below.holds_no_key().await;
}

#[tokio::test]
async fn a_deleted_key_may_be_made_again() {
    let fence = Below::default().fence();
    fence.put_key(&alice(), &key(1)).await.unwrap();
    fence.delete_key(&alice()).await.unwrap();
    assert!(fence.find_key(&alice()).await.unwrap().is_none());
    fence.create_key(&alice(), &key(2)).await.unwrap();
}

#[tokio::test]
async fn a_new_key_can_be_allowed() {
    let below = Below::default();
    let fence = below.fence();
    fence.put_key(&alice(), &key(1)).await.unwrap();
    fence.allow_new_key(&alice()).await.unwrap();
    assert_eq!(fence.get_key(&alice()).await.unwrap(), key(1), "who was not erased is not touched");
    fence.erase(&alice()).await.unwrap();
    // Written past the fence: the old key must not come back as the new one.
    below.keys.put_key(&alice(), &key(1)).await.unwrap();
    fence.allow_new_key(&alice()).await.unwrap();
    assert!(fence.find_key(&alice()).await.unwrap().is_none());
    assert_eq!(fence.erased_at(&alice()).await.unwrap(), None);
    fence.create_key(&alice(), &key(2)).await.unwrap();
}

#[tokio::test]
async fn what_was_left_behind_is_deleted_by_whatever_meets_it() {
    let below = Below::default();
    let fence = below.fence();
    fence.erase(&alice()).await.unwrap();
    macro_rules! meets {
        ($($call:expr),+) => {$(
            below.keys.put_key(&alice(), &key(1)).await.unwrap();
            drop($call.await);
            below.holds_no_key().await;
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
async fn damage_that_an_erasure_left_behind_is_deleted_too() {
    let damaged =
        Faulty::builder(MemoryStore::new()).fault(Fault::error(ErrorKind::Corrupt).on(Operation::Get).times(9));
    let damaged = Arc::new(damaged.build().unwrap());
    let fence = Fenced::builder(damaged.clone(), MemoryStore::new()).build().unwrap();
    fence.erase(&alice()).await.unwrap();
    damaged.put_key(&alice(), &key(1)).await.unwrap();
    is_erased(fence.get_key(&alice()).await);
    damaged.clear();
    assert!(damaged.find_key(&alice()).await.unwrap().is_none());
}

#[tokio::test]
async fn an_erasure_that_failed_half_way_counts_and_can_be_finished() {
    let keys = Faulty::builder(MemoryStore::new()).fault(Fault::error(ErrorKind::Unavailable).on(Operation::Erase));
    let keys = Arc::new(keys.build().unwrap());
    let fence = Fenced::builder(keys.clone(), MemoryStore::new()).build().unwrap();
    keys.put_key(&alice(), &key(1)).await.unwrap();

    let failed = fence.erase(&alice()).await.unwrap_err();
    assert_eq!((failed.kind(), failed.effect()), (ErrorKind::Unavailable, Effect::Unknown));
    assert_eq!(failed.operation(), Operation::Erase);
    let receipt = fence.erase(&alice()).await.unwrap();
    assert!(receipt.existed && receipt.verified);
    every_call_says_erased(&fence).await;
}

#[tokio::test]
async fn an_erasure_that_died_after_its_tombstone_is_finished_by_the_next_read() {
    let below = Below::default();
    let fence = below.fence();
    below.keys.put_key(&alice(), &key(1)).await.unwrap();
    let silent = Faulty::builder(below.keys.clone()).fault(Fault::hang().on(Operation::Erase)).build().unwrap();
    let dying = Fenced::builder(silent, below.tombstones.clone()).build().unwrap();
    let alice = alice();
    let mut erasure = Box::pin(dying.erase(&alice));
    assert!((&mut erasure).now_or_never().is_none());
    drop(erasure);
    is_erased(fence.get_key(&alice).await);
    below.holds_no_key().await;
}

#[tokio::test]
async fn without_its_tombstones_the_fence_lets_nobody_through() {
    let tombstones = Arc::new(Faulty::builder(MemoryStore::new()).build().unwrap());
    let keys = MemoryStore::new();
    let fence = Fenced::builder(keys.clone(), tombstones.clone()).build().unwrap();
    fence.put_key(&alice(), &key(1)).await.unwrap();
    tombstones.inject(Fault::error(ErrorKind::Unavailable).times(100));
    for (operation, refused) in [
        (Operation::Get, fence.get_key(&alice()).await.err()),
        (Operation::Get, fence.get_keys(&[alice()]).await.remove(0).err()),
        (Operation::Put, fence.put_key(&alice(), &key(2)).await.err()),
        (Operation::Create, fence.get_or_create(&alice(), &key(2)).await.err()),
        (Operation::Erase, fence.erase_key(&alice()).await.err()),
        (Operation::List, fence.list_keys().next().await.unwrap().err()),
    ] {
        let refused = refused.unwrap();
        assert_eq!((refused.kind(), refused.operation()), (ErrorKind::Unavailable, operation));
    }
    assert_eq!(keys.get_key(&alice()).await.unwrap(), key(1), "nothing has happened");
}

#[tokio::test]
async fn a_write_whose_tombstone_cannot_be_looked_for_afterwards_may_have_happened() {
    let tombstones = Arc::new(Faulty::builder(MemoryStore::new()).build().unwrap());
    let fence = Fenced::builder(MemoryStore::new(), tombstones.clone()).build().unwrap();
    fence.check().await.unwrap();
    assert!(fence.find_key(&alice()).await.unwrap().is_none());
    tombstones.inject(Fault::latency(Duration::ZERO).on(Operation::Get));
    tombstones.inject(Fault::error(ErrorKind::Throttled).on(Operation::Get));
    let refused = fence.put_key(&alice(), &key(1)).await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Throttled, Effect::Unknown));
}

#[tokio::test]
async fn a_damaged_tombstone_is_neither_a_tombstone_nor_none() {
    let below = Below::default();
    let fence = below.fence();
    let grave = KeyId::new(fence.tombstone_of(&alice()).await.unwrap()).unwrap();
    below.keys.put_key(&alice(), &key(1)).await.unwrap();
    below.tombstones.put_key(&grave, &key(7)).await.unwrap();
    assert_eq!(fence.get_key(&alice()).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(fence.get_keys(&[alice()]).await.remove(0).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(below.keys.get_key(&alice()).await.unwrap(), key(1), "nothing is deleted on a guess");
}

#[tokio::test]
async fn a_store_whose_reads_lag_can_hold_no_tombstones() {
    let lagging = Cached::builder(MemoryStore::new()).build().unwrap();
    let refused = Fenced::builder(MemoryStore::new(), lagging).build().unwrap_err();
    assert_eq!((refused.kind(), refused.operation()), (ErrorKind::Config, Operation::Open));
}

#[tokio::test]
async fn the_second_store_tells_no_id() {
    let below = Below::default();
    below.fence().erase(&alice()).await.unwrap();
    let names: Vec<KeyId> = below.tombstones.list_keys().try_collect().await.unwrap();
    let mut names: Vec<&str> = names.iter().map(KeyId::as_str).collect();
    names.sort_unstable_by_key(|name| name.len());
    assert_eq!(names[0], "fence-key");
    assert!(names[1].len() == 64 && names[1].bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(names[2..], [format!("{}-1-ended", names[1])]);
    let key = below.tombstones.get_key(&KeyId::new(names[1]).unwrap()).await.unwrap();
    assert_eq!(key.expose_secret().len(), 25, "FORMAT.md says what a tombstone contains");
}

#[tokio::test]
async fn a_receipt_says_where_when_and_of_whom_without_the_id() {
    let below = Below::default();
    let fence = below.fence();
    let before = SystemTime::now() - Duration::from_secs(1);
    let receipt = fence.erase(&alice()).await.unwrap();
    assert_eq!(receipt.store.compare(below.keys.info().identity()), IdentityMatch::Same);
    assert_eq!(receipt.tombstone, below.fence().tombstone_of(&alice()).await.unwrap());
    assert_ne!(receipt.tombstone, fence.tombstone_of(&KeyId::new("bob").unwrap()).await.unwrap());
    assert!(receipt.erased_at >= before && receipt.finished_at >= receipt.erased_at);
    assert!(!receipt.existed && receipt.verified);
    assert!(!format!("{receipt:?}").contains("alice"));
    assert_eq!(fence.erased_at(&alice()).await.unwrap(), Some(receipt.erased_at));

    let again = fence.erase(&alice()).await.unwrap();
    assert_eq!(again.erased_at, receipt.erased_at, "the first time counts");
}

#[tokio::test]
async fn the_fence_says_what_it_is() {
    let below = Below::default();
    let fence = below.fence();
    assert_eq!(fence.info().to_string(), format!("{}, fenced by {}", below.keys.info(), below.tombstones.info()));
    assert!(fence.capabilities().fenced);
}

/// A store that writes late: a put waits until it is let go.
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
async fn a_creator_that_an_erasure_has_overtaken_is_told_and_leaves_no_key() {
    let (late, below) = (Arc::new(Late::default()), Below::default());
    let fence = Arc::new(Fenced::builder(late.clone(), below.tombstones.clone()).build().unwrap());
    let creator = tokio::spawn({
        let fence = fence.clone();
        async move { fence.get_or_create_key(&alice()).await }
    });
    late.begun.notified().await;
    assert!(!fence.erase(&alice()).await.unwrap().existed);
    late.let_go.notify_one();
    let refused: Error = creator.await.unwrap().unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Erased, Effect::NotApplied));
    assert!(late.memory.find_key(&alice()).await.unwrap().is_none());
}

#[tokio::test]
async fn what_a_creator_that_died_left_behind_is_never_read_and_deleted_when_met() {
    let (late, below) = (Arc::new(Late::default()), Below::default());
    let fence = Arc::new(Fenced::builder(late.clone(), below.tombstones.clone()).build().unwrap());
    let creator = tokio::spawn({
        let fence = fence.clone();
        async move { fence.put_key(&alice(), &key(1)).await }
    });
    late.begun.notified().await;
    fence.erase(&alice()).await.unwrap();
    creator.abort();
    drop(creator.await);
    // The write was on its way to the store, and lands.
    late.memory.put_key(&alice(), &key(1)).await.unwrap();
    is_erased(fence.get_key(&alice()).await);
    assert!(late.memory.find_key(&alice()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_fence_around_a_store_that_lags_waits_for_no_bound_of_its_own() {
    // What the keys' store promises of itself is kept as it is.
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
    every_call_says_erased(&fence).await;
}

/// Creators race an erasure: once it has returned no read yields a key, and once all have ended none is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_creator_outlives_an_erasure_in_ten_thousand_rounds() {
    let below = Below::default();
    let (one, two) = (Arc::new(below.fence()), Arc::new(below.fence()));
    for round in 0..10_000 {
        let id = KeyId::new(format!("user-{round}")).unwrap();
        let creator = |number: u8, fence: &Arc<Fenced<MemoryStore, MemoryStore>>| {
            let (fence, id) = (fence.clone(), id.clone());
            tokio::spawn(async move {
                match number {
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
            is_erased(fence.get_key(&id).await);
            is_erased(fence.get_keys(slice::from_ref(&id)).await.remove(0));
        }
        for creator in creators {
            let refused = creator.await.unwrap();
            assert!(refused.is_none_or(|e| matches!(e.kind(), ErrorKind::Erased | ErrorKind::AlreadyExists)));
        }
        assert!(below.keys.find_key(&id).await.unwrap().is_none(), "round {round} left a key behind");
    }
}

#[tokio::test]
async fn a_write_without_an_answer_that_an_erasure_has_overtaken_leaves_no_key() {
    let (late, below) = (Arc::new(Late::default()), Below::default());
    let lost = Fault::error(ErrorKind::Timeout).applied().on(Operation::Put);
    let unsteady = Faulty::builder(late.clone()).fault(lost).build().unwrap();
    let fence = Arc::new(Fenced::builder(unsteady, below.tombstones.clone()).build().unwrap());
    let writer = tokio::spawn({
        let fence = fence.clone();
        async move { fence.put_key(&alice(), &key(1)).await }
    });
    late.begun.notified().await;
    fence.erase(&alice()).await.unwrap();
    late.let_go.notify_one();
    is_erased(writer.await.unwrap());
    assert!(late.memory.find_key(&alice()).await.unwrap().is_none());
}

#[tokio::test]
async fn no_new_key_is_allowed_while_the_erased_one_may_be_visible() {
    let lagging = Cached::builder(MemoryStore::new()).ttl(Duration::from_secs(60)).build().unwrap();
    let fence = Fenced::builder(lagging, MemoryStore::new()).build().unwrap();
    fence.erase(&alice()).await.unwrap();
    let refused = fence.allow_new_key(&alice()).await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Conflict, Effect::NotApplied));
    // A minute is recorded as the next power of two, and erasures of one second count as one.
    let pause = refused.retry_after().unwrap();
    assert!((Duration::from_secs(63)..=Duration::from_secs(65)).contains(&pause), "{pause:?}");
    is_erased(fence.get_key(&alice()).await);
}

#[tokio::test]
async fn a_read_never_says_that_it_may_have_had_an_effect() {
    let tombstones =
        Faulty::builder(MemoryStore::new()).fault(Fault::error(ErrorKind::Timeout).applied().on(Operation::Create));
    let fence = Fenced::builder(MemoryStore::new(), tombstones.build().unwrap()).build().unwrap();
    let refused = fence.get_key(&alice()).await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Timeout, Effect::NotApplied));
}
