//! `Fenced::allow_new_key`: the old key never comes back, and no new key is lost, at whatever point
//! the callers are paused.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::TryStreamExt;
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, Durability, Effect, ErrorKind, KeyId, KeyStore, KeyStoreExt,
    PutMode, Result, SecretKey, StoreInfo, async_trait,
};
use keystead_layers::Fenced;
use keystead_memory::MemoryStore;

/// More than the number of awaits in any of the tested calls.
const PAUSES: usize = 200;

fn alice() -> KeyId {
    KeyId::new("alice@example.com").unwrap()
}

fn key(byte: u8) -> SecretKey {
    SecretKey::new([byte; 32]).unwrap()
}

/// Returns `Pending` once.
async fn pause() {
    let mut has_paused = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_paused, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A store that pauses before and after each call of the store beneath, so that a caller can be
/// stopped at every await.
#[derive(Clone, Debug)]
struct Pausing {
    memory: MemoryStore,
    visible_for: Duration,
}

impl Pausing {
    fn over(memory: &MemoryStore) -> Self {
        Self { memory: memory.clone(), visible_for: Duration::ZERO }
    }
}

#[async_trait]
impl KeyStore for Pausing {
    fn info(&self) -> StoreInfo {
        self.memory.info()
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.memory.capabilities();
        if !self.visible_for.is_zero() {
            capabilities.consistency = Consistency::Eventual { within: self.visible_for };
        }
        capabilities
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        pause().await;
        let answer = self.memory.get_key(id).await;
        pause().await;
        answer
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        pause().await;
        let answer = self.memory.put_key_with(id, key, mode).await;
        pause().await;
        answer
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        pause().await;
        let answer = self.memory.delete_key(id).await;
        pause().await;
        answer
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.memory.list_keys()
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// The stores beneath the fence.
#[derive(Default)]
struct Fixture {
    keys: MemoryStore,
    tombstones: MemoryStore,
}

impl Fixture {
    fn fence(&self) -> Fenced<MemoryStore, MemoryStore> {
        Fenced::builder(self.keys.clone(), self.tombstones.clone()).build().unwrap()
    }

    /// A fence whose callers can be stopped at every await.
    fn pausing(&self) -> Fenced<Pausing, Pausing> {
        Fenced::builder(Pausing::over(&self.keys), Pausing::over(&self.tombstones)).build().unwrap()
    }
}

/// Polls a call so many times, and returns its output if it has ended.
fn advance<F: Future>(call: &mut Pin<Box<F>>, polls: usize) -> Option<F::Output> {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..polls {
        if let Poll::Ready(answer) = call.as_mut().poll(&mut context) {
            return Some(answer);
        }
    }
    None
}

/// Pauses `paused` at each of its awaits in turn, while another caller allows a new key and creates
/// one, and asserts that no new key is lost. With `leftover`, a key was written without the fence
/// before.
async fn expect_no_new_key_lost<F, A>(leftover: bool, paused: F)
where
    F: Fn(Fenced<Pausing, Pausing>) -> A,
    A: Future,
{
    let mut made = 0;
    for pause in 0..PAUSES {
        let fixture = Fixture::default();
        let fence = fixture.fence();
        fence.put_key(&alice(), &key(1)).await.unwrap();
        fence.erase(&alice()).await.unwrap();
        if leftover {
            fixture.keys.put_key(&alice(), &key(1)).await.unwrap();
        }
        let mut call = Box::pin(paused(fixture.pausing()));
        let has_ended = advance(&mut call, pause).is_some();

        let allowed = fence.allow_new_key(&alice()).await;
        if let Err(e) = &allowed {
            assert_eq!((e.kind(), e.effect()), (ErrorKind::Conflict, Effect::NotApplied), "paused at {pause}");
            assert!(e.retry_after().is_some());
        }
        let new = fence.create_key(&alice(), &key(2)).await;
        assert_eq!(allowed.is_ok(), new.is_ok(), "paused at {pause}");
        made += u32::from(new.is_ok());
        if !has_ended {
            call.await;
        }
        if new.is_ok() {
            assert_eq!(fence.get_key(&alice()).await.unwrap(), key(2), "paused at {pause}: the new key is lost");
        } else {
            let left = fixture.keys.find_key(&alice()).await.unwrap();
            assert!(left.is_none_or(|left| left != key(2)), "paused at {pause}: a key was made for an erased user");
        }
        if has_ended {
            assert!(made > 0, "a new key was never allowed, so nothing was tried");
            return;
        }
    }
    panic!("the call has more than {PAUSES} awaits");
}

#[tokio::test]
async fn two_calls_at_once_lose_no_new_key() {
    for leftover in [false, true] {
        expect_no_new_key_lost(leftover, |fence| async move { fence.allow_new_key(&alice()).await }).await;
    }
}

#[tokio::test]
async fn a_reader_that_cleans_up_loses_no_new_key() {
    expect_no_new_key_lost(true, |fence| async move { fence.get_key(&alice()).await }).await;
    expect_no_new_key_lost(true, |fence| async move { fence.get_keys(&[alice()]).await }).await;
    expect_no_new_key_lost(true, |fence| async move { fence.list_keys().try_collect::<Vec<_>>().await }).await;
}

#[tokio::test]
async fn a_writer_that_is_refused_loses_no_new_key() {
    expect_no_new_key_lost(true, |fence| async move { fence.create_key(&alice(), &key(3)).await }).await;
}

/// A creator that began before the erasure, and is paused at each of its awaits.
#[tokio::test]
async fn a_creator_overtaken_by_an_erasure_loses_no_new_key() {
    let mut was_lifted = false;
    for pause in 0..PAUSES {
        let fixture = Fixture::default();
        let fence = fixture.fence();
        let creator = fixture.pausing();
        let mut call = Box::pin(async move { creator.create_key(&alice(), &key(1)).await });
        let answer = advance(&mut call, pause);
        fence.erase(&alice()).await.unwrap();
        let allowed = fence.allow_new_key(&alice()).await.is_ok();
        let new = fence.create_key(&alice(), &key(2)).await;
        was_lifted |= allowed;
        let has_ended = answer.is_some();
        if !has_ended {
            drop(call.await);
        }
        if new.is_ok() {
            assert_eq!(fence.get_key(&alice()).await.unwrap(), key(2), "paused at {pause}: the new key is lost");
        }
        if has_ended {
            assert!(was_lifted);
            return;
        }
    }
    panic!("the call has more than {PAUSES} awaits");
}

/// Writes a tombstone of version 1 from 1970 and the record that this erasure ended then, so that
/// the wait is over.
async fn erased_long_ago(fence: &Fenced<Pausing, MemoryStore>, tombstones: &MemoryStore) {
    let name = fence.tombstone_of(&alice()).await.unwrap();
    for name in [name.clone(), format!("{name}-1-ended")] {
        let record = SecretKey::new([1, 0, 0, 0, 0, 0, 0, 0, 9]).unwrap();
        tombstones.put_key(&KeyId::new(name).unwrap(), &record).await.unwrap();
    }
}

/// A call of `allow_new_key` is paused at each of its awaits in turn, while another caller allows a
/// new key, creates it and erases the user again. The paused call must not lift that later erasure,
/// whose wait is not over.
#[tokio::test]
async fn a_late_call_lifts_no_later_erasure() {
    for pause in 0..PAUSES {
        let fixture = Fixture::default();
        let lagging = Pausing { visible_for: Duration::from_secs(60), ..Pausing::over(&fixture.keys) };
        let fence = Fenced::builder(lagging.clone(), fixture.tombstones.clone()).build().unwrap();
        erased_long_ago(&fence, &fixture.tombstones).await;
        let late = Fenced::builder(lagging, Pausing::over(&fixture.tombstones)).build().unwrap();
        let mut call = Box::pin(async move { late.allow_new_key(&alice()).await });
        if advance(&mut call, pause).is_some() {
            return;
        }
        if fence.allow_new_key(&alice()).await.is_ok() {
            fence.create_key(&alice(), &key(2)).await.unwrap();
        }
        fence.erase(&alice()).await.unwrap();
        drop(call.await);
        let error = fence.get_key(&alice()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Erased, "paused at {pause}: the erasure is undone");
        assert!(fixture.keys.find_key(&alice()).await.unwrap().is_none(), "paused at {pause}: an erased key stands");
    }
    panic!("the call has more than {PAUSES} awaits");
}

/// An erasure is paused at each of its awaits in turn, while another caller allows a new key and
/// creates it. Either the erasure came first and the new key exists, or it came last and the user
/// is erased.
#[tokio::test]
async fn an_erasure_that_races_with_a_new_key_comes_first_or_last() {
    let mut first = 0;
    let mut last = 0;
    for pause in 0..PAUSES {
        let fixture = Fixture::default();
        let fence = fixture.fence();
        fence.erase(&alice()).await.unwrap();
        let eraser = fixture.pausing();
        let mut call = Box::pin(async move { eraser.erase(&alice()).await });
        if advance(&mut call, pause).is_some() {
            assert!(first > 0 && last > 0, "{first} and {last}");
            return;
        }
        let new = match fence.allow_new_key(&alice()).await {
            Ok(()) => fence.create_key(&alice(), &key(2)).await,
            Err(e) => Err(e),
        };
        call.await.unwrap();
        match fence.get_key(&alice()).await {
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Erased, "paused at {pause}");
                assert!(fixture.keys.find_key(&alice()).await.unwrap().is_none(), "paused at {pause}");
                last += 1;
            }
            Ok(existing) => {
                assert!(new.is_ok() && existing == key(2), "paused at {pause}");
                first += 1;
            }
        }
    }
    panic!("the call has more than {PAUSES} awaits");
}

/// Another process has a cache. Its time to live counts for this process, too, which has no cache.
#[tokio::test]
async fn the_longest_visibility_of_any_stack_with_these_tombstones_counts() {
    let fixture = Fixture::default();
    let slow = Pausing { visible_for: Duration::from_secs(100), ..Pausing::over(&fixture.keys) };
    let front = Fenced::builder(slow, fixture.tombstones.clone()).build().unwrap();
    let fence = fixture.fence();
    fence.put_key(&alice(), &key(1)).await.unwrap();
    front.get_key(&alice()).await.unwrap();
    fence.erase(&alice()).await.unwrap();
    let error = fence.allow_new_key(&alice()).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Conflict, Effect::NotApplied));
    let left = error.retry_after().unwrap();
    assert!((Duration::from_secs(120)..=Duration::from_secs(129)).contains(&left), "{left:?}");
    assert_eq!(fence.get_key(&alice()).await.unwrap_err().kind(), ErrorKind::Erased);
}

#[tokio::test]
async fn the_wait_counts_from_the_last_erasure() {
    let fixture = Fixture::default();
    let keys = Pausing { visible_for: Duration::from_secs(2), ..Pausing::over(&fixture.keys) };
    let fence = Fenced::builder(keys, fixture.tombstones.clone()).build().unwrap();
    let first = fence.erase(&alice()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let second = fence.erase(&alice()).await.unwrap();
    assert_eq!(first.erased_at, second.erased_at);
    let left = fence.allow_new_key(&alice()).await.unwrap_err().retry_after().unwrap();
    assert!(left > Duration::from_millis(2500), "{left:?} counts from the first erasure");
    tokio::time::sleep(left).await;
    fence.allow_new_key(&alice()).await.unwrap();
    fence.create_key(&alice(), &key(2)).await.unwrap();
}

#[tokio::test]
async fn a_key_that_is_found_meanwhile_makes_the_wait_begin_again() {
    let fixture = Fixture::default();
    let keys = Pausing { visible_for: Duration::from_secs(1), ..Pausing::over(&fixture.keys) };
    let fence = Fenced::builder(keys, fixture.tombstones.clone()).build().unwrap();
    fence.erase(&alice()).await.unwrap();
    fixture.keys.put_key(&alice(), &key(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let error = fence.allow_new_key(&alice()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(fixture.keys.find_key(&alice()).await.unwrap().is_none());
    tokio::time::sleep(error.retry_after().unwrap()).await;
    fence.allow_new_key(&alice()).await.unwrap();
}

/// A delete of an eraser that died after writing its tombstone may still be applied. So a new key
/// waits until the erasure is too old for that.
#[tokio::test]
async fn a_new_key_waits_for_an_erasure_that_may_be_in_progress() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    fence.put_key(&alice(), &key(1)).await.unwrap();
    let dying = fixture.pausing();
    let mut call = Box::pin(async move { dying.erase(&alice()).await });
    while !matches!(fence.erased_at(&alice()).await, Ok(Some(_))) {
        assert!(advance(&mut call, 1).is_none());
    }
    drop(call);
    fence.erase(&alice()).await.unwrap();
    let error = fence.allow_new_key(&alice()).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Conflict, Effect::NotApplied));
    let left = error.retry_after().unwrap();
    assert!((Duration::from_secs(55)..=Duration::from_secs(60)).contains(&left), "{left:?}");
}

#[tokio::test]
async fn a_user_can_be_erased_and_allowed_many_times() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    for round in 1..=40 {
        fence.create_key(&alice(), &key(round)).await.unwrap();
        assert_eq!(fixture.fence().get_key(&alice()).await.unwrap(), key(round));
        assert!(fence.erase(&alice()).await.unwrap().existed);
        assert!(fixture.fence().erased_at(&alice()).await.unwrap().is_some());
        fence.allow_new_key(&alice()).await.unwrap();
        assert_eq!(fixture.fence().erased_at(&alice()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_key_that_comes_back_again_and_again_is_deleted_each_time() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    fence.erase(&alice()).await.unwrap();
    for round in 0..300 {
        fixture.keys.put_key(&alice(), &key(1)).await.unwrap();
        assert_eq!(fence.get_key(&alice()).await.unwrap_err().kind(), ErrorKind::Erased);
        assert!(fixture.keys.find_key(&alice()).await.unwrap().is_none(), "round {round}");
    }
    fence.allow_new_key(&alice()).await.unwrap();
    fence.create_key(&alice(), &key(2)).await.unwrap();
}

#[tokio::test]
async fn tombstones_must_be_in_another_store_that_is_as_durable() {
    let keys = MemoryStore::new();
    let error = Fenced::builder(keys.clone(), keys.clone()).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);

    #[derive(Debug)]
    struct Durable(MemoryStore, Durability);
    #[async_trait]
    impl KeyStore for Durable {
        fn info(&self) -> StoreInfo {
            self.0.info()
        }
        fn capabilities(&self) -> Capabilities {
            let mut capabilities = self.0.capabilities();
            capabilities.durability = self.1;
            capabilities
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
    use Durability::{Host, Process, Replicated};
    let store = |durability| Durable(MemoryStore::new(), durability);
    for (of_keys, of_tombstones, accepted, is_built) in [
        (Process, Process, None, true),
        (Host, Process, None, false),
        (Host, Process, Some(Process), false),
        (Host, Host, None, true),
        (Host, Replicated, None, true),
        (Replicated, Host, None, false),
        (Replicated, Host, Some(Replicated), false),
        (Replicated, Host, Some(Host), true),
        (Replicated, Process, Some(Process), false),
        (Replicated, Replicated, None, true),
    ] {
        let mut builder = Fenced::builder(store(of_keys), store(of_tombstones));
        if let Some(accepted) = accepted {
            builder = builder.accept_tombstone_durability(accepted);
        }
        let answer = builder.build();
        assert_eq!(answer.is_ok(), is_built, "keys {of_keys:?}, tombstones {of_tombstones:?}, accepted {accepted:?}");
        assert!(answer.err().is_none_or(|e| e.kind() == ErrorKind::Config));
    }
}

#[tokio::test]
async fn reconciling_erases_the_keys_that_a_restore_has_brought_back() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    let ids: Vec<KeyId> = (0..250).map(|index| KeyId::new(format!("user-{index}")).unwrap()).collect();
    for id in &ids {
        fence.put_key(id, &key(1)).await.unwrap();
    }
    for id in &ids[..120] {
        fence.erase(id).await.unwrap();
    }
    // The backup was made before the erasures.
    for id in &ids[..110] {
        fixture.keys.put_key(id, &key(1)).await.unwrap();
    }
    let mut receipts = Vec::new();
    let report = fixture.fence().reconcile(|outcome| receipts.push(outcome.unwrap())).await.unwrap();
    assert_eq!((report.listed, report.erased, report.failed), (240, 110, 0));
    assert!(report.is_complete());
    assert!(receipts.len() == 110 && receipts.iter().all(|receipt| receipt.existed && receipt.verified));
    let left: Vec<KeyId> = fixture.keys.list_keys().try_collect().await.unwrap();
    assert_eq!(left.len(), 130);
    let report = fence.reconcile(|_| panic!("nothing is left to erase")).await.unwrap();
    assert_eq!((report.listed, report.erased), (130, 0));
}
