//! Time limits and retries, in virtual time.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, Effect, Erasure, Error, ErrorKind, Finality, KeyId, KeyStore,
    KeyStoreExt, Operation, PutMode, Result, SecretKey, StoreInfo, async_trait,
};
use keystead_layers::{Cached, Fault, Faulty, Fenced, Limit, Limited, Resilient, ResilientBuilder};
use keystead_memory::MemoryStore;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

type Unsteady = Arc<Faulty<MemoryStore>>;

fn unsteady(faults: impl IntoIterator<Item = Fault>) -> Unsteady {
    let faulty = faults.into_iter().fold(Faulty::builder(MemoryStore::new()), |builder, fault| builder.fault(fault));
    Arc::new(faulty.build().unwrap())
}

/// Returns a builder with one second for each attempt, and five seconds for the call.
fn around(store: &Unsteady) -> ResilientBuilder<Unsteady> {
    Resilient::builder(store.clone()).attempt_timeout(SECOND).deadline(5 * SECOND)
}

fn id(name: &str) -> KeyId {
    KeyId::new(name).unwrap()
}

fn alice() -> KeyId {
    id("alice")
}

fn key(byte: u8) -> SecretKey {
    SecretKey::new([byte; 32]).unwrap()
}

fn kind<T>(answer: Result<T>) -> ErrorKind {
    answer.err().unwrap().kind()
}

#[tokio::test(start_paused = true)]
async fn an_error_that_time_may_cure_is_retried() {
    for failure in [ErrorKind::Throttled, ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Conflict] {
        let store = unsteady([Fault::error(failure).times(3)]);
        let resilient = around(&store).build().unwrap();
        assert_eq!(kind(resilient.get_key(&alice()).await), ErrorKind::NotFound);
        assert_eq!(store.calls(Operation::Get), 4, "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_definite_answer_is_not_retried() {
    for answer in [
        ErrorKind::NotFound,
        ErrorKind::PermissionDenied,
        ErrorKind::Unauthenticated,
        ErrorKind::QuotaExceeded,
        ErrorKind::Corrupt,
        ErrorKind::Other,
    ] {
        let store = unsteady([Fault::error(answer)]);
        assert_eq!(kind(around(&store).build().unwrap().get_key(&alice()).await), answer);
        assert_eq!(store.calls(Operation::Get), 1, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_number_of_attempts_is_limited() {
    for max_attempts in [1, 2, 7] {
        let store = unsteady([Fault::error(ErrorKind::Throttled).times(100)]);
        let resilient =
            around(&store).max_attempts(max_attempts).pauses(Duration::ZERO, Duration::ZERO).build().unwrap();
        assert_eq!(kind(resilient.get_key(&alice()).await), ErrorKind::Throttled);
        assert_eq!(store.calls(Operation::Get), u64::from(max_attempts));
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_to_a_silent_store_ends_at_the_deadline() {
    let store = unsteady([Fault::hang().times(1_000)]);
    let resilient = around(&store).max_attempts(100).pauses(Duration::ZERO, Duration::ZERO).build().unwrap();
    macro_rules! times_out {
        ($($call:expr),+) => {$(
            let begin = Instant::now();
            let e = $call.await.err().unwrap();
            assert_eq!(e.kind(), ErrorKind::Timeout);
            let is_write = e.operation() != Operation::Get && e.operation() != Operation::List;
            assert_eq!(e.effect() == Effect::Unknown, is_write && e.operation() != Operation::Check);
            assert!((4 * SECOND..=5 * SECOND).contains(&begin.elapsed()), "{:?} {:?}", e.operation(), begin.elapsed());
        )+};
    }
    let ids = [alice()];
    times_out! {
        resilient.get_key(&alice()), resilient.put_key(&alice(), &key(1)), resilient.create_key(&alice(), &key(1)),
        resilient.delete_key(&alice()), resilient.erase_key(&alice()), resilient.get_or_create(&alice(), &key(1)),
        resilient.check(), resilient.list_keys().try_next(),
        async { resilient.get_keys(&ids).await.remove(0) }, async { resilient.delete_keys(&ids).await.remove(0) }
    }
}

#[tokio::test(start_paused = true)]
async fn the_pause_is_as_long_as_the_store_asks_for() {
    let store = unsteady([Fault::error(ErrorKind::Throttled).retry_after(3 * SECOND)]);
    let begin = Instant::now();
    assert_eq!(kind(around(&store).build().unwrap().get_key(&alice()).await), ErrorKind::NotFound);
    assert!((3 * SECOND..4 * SECOND).contains(&begin.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_would_exceed_the_deadline_is_not_made() {
    let store = unsteady([Fault::error(ErrorKind::Throttled).retry_after(6 * SECOND)]);
    let begin = Instant::now();
    let e = around(&store).build().unwrap().get_key(&alice()).await.unwrap_err();
    assert_eq!((e.kind(), e.retry_after()), (ErrorKind::Throttled, Some(6 * SECOND)));
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn pauses_are_random_and_grow_to_a_limit() {
    let mut waited = Vec::new();
    for _ in 0..50 {
        let store = unsteady([Fault::error(ErrorKind::Throttled).times(3)]);
        let resilient = around(&store).pauses(SECOND / 10, SECOND / 5).build().unwrap();
        let begin = Instant::now();
        drop(resilient.get_key(&alice()).await);
        waited.push(begin.elapsed());
    }
    // At most 100, 200 and again 200 ms. The paused clock adds a millisecond to each.
    assert!(waited.iter().all(|waited| *waited <= SECOND / 2 + Duration::from_millis(3)), "{waited:?}");
    waited.sort_unstable();
    waited.dedup();
    assert!(waited.len() > 25, "clients that failed together come back together: {waited:?}");
    assert!(waited[waited.len() - 1] > SECOND / 5, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_put_that_was_applied_without_an_answer_is_ok() {
    let store = unsteady([Fault::error(ErrorKind::Timeout).applied().on(Operation::Put)]);
    around(&store).build().unwrap().put_key(&alice(), &key(1)).await.unwrap();
    assert_eq!(store.calls(Operation::Put), 1, "settled by reading, not by writing again");
}

#[tokio::test(start_paused = true)]
async fn a_put_that_was_not_applied_is_retried() {
    let store = unsteady([Fault::error(ErrorKind::Throttled).on(Operation::Put).times(2)]);
    around(&store).build().unwrap().put_key(&alice(), &key(1)).await.unwrap();
    assert_eq!(store.get_key(&alice()).await.unwrap(), key(1));
    assert_eq!(store.calls(Operation::Put), 3);
}

#[tokio::test(start_paused = true)]
async fn a_create_that_was_applied_without_an_answer_is_ok() {
    let store = unsteady([Fault::error(ErrorKind::Unavailable).applied().on(Operation::Create)]);
    around(&store).build().unwrap().create_key(&alice(), &key(1)).await.unwrap();
    assert_eq!(store.calls(Operation::Create), 1);
}

#[tokio::test(start_paused = true)]
async fn a_create_refused_after_an_attempt_of_its_own_is_settled_by_reading() {
    // The read that would settle it fails as well, so the create is retried and meets its own key.
    let store = unsteady([
        Fault::error(ErrorKind::Unavailable).applied().on(Operation::Create),
        Fault::error(ErrorKind::Unavailable).on(Operation::Get),
    ]);
    around(&store).build().unwrap().create_key(&alice(), &key(1)).await.unwrap();
    assert_eq!(store.calls(Operation::Create), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_first_attempt_is_reported() {
    let store = unsteady([]);
    store.put_key(&alice(), &key(1)).await.unwrap();
    let error = around(&store).build().unwrap().create_key(&alice(), &key(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::AlreadyExists, Effect::NotApplied));
}

#[tokio::test(start_paused = true)]
async fn another_key_after_an_attempt_without_an_answer_has_an_unknown_effect() {
    let store = unsteady([Fault::hang().on(Operation::Create)]);
    store.put_key(&alice(), &key(1)).await.unwrap();
    let error = around(&store).build().unwrap().create_key(&alice(), &key(2)).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::AlreadyExists, Effect::Unknown));
    assert_eq!(store.get_key(&alice()).await.unwrap(), key(1));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_cannot_be_settled_has_an_unknown_effect() {
    let store = unsteady([Fault::error(ErrorKind::Timeout).applied().times(100)]);
    let e = around(&store).build().unwrap().put_key(&alice(), &key(1)).await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (ErrorKind::Timeout, Effect::Unknown));
}

#[tokio::test(start_paused = true)]
async fn a_later_refusal_does_not_hide_that_an_attempt_may_have_been_applied() {
    let store =
        unsteady([Fault::hang().on(Operation::Put), Fault::error(ErrorKind::PermissionDenied).on(Operation::Put)]);
    let e = around(&store).build().unwrap().put_key(&alice(), &key(1)).await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (ErrorKind::PermissionDenied, Effect::Unknown));
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_was_applied_without_an_answer_is_ok() {
    let store = unsteady([Fault::error(ErrorKind::Timeout).applied().on(Operation::Delete).times(2)]);
    let resilient = around(&store).build().unwrap();
    store.put_key(&alice(), &key(1)).await.unwrap();
    let expected = Deletion::new(Finality::Immediate).with_unsettled(true);
    assert_eq!(resilient.delete_key(&alice()).await.unwrap(), expected);
    store.put_key(&id("bob"), &key(1)).await.unwrap();
    store.inject(Fault::error(ErrorKind::Timeout).applied().on(Operation::Delete));
    let outcomes = resilient.delete_keys(&[id("bob"), id("nobody")]).await;
    assert_eq!(*outcomes[0].as_ref().unwrap(), expected);
    assert_eq!(outcomes[1].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_delete_after_an_attempt_without_an_answer_is_unsettled() {
    let store = unsteady([Fault::latency(2 * SECOND).on(Operation::Delete)]);
    let resilient = around(&store).build().unwrap();
    store.put_key(&alice(), &key(1)).await.unwrap();
    assert!(resilient.delete_key(&alice()).await.unwrap().unsettled);
    store.put_key(&alice(), &key(1)).await.unwrap();
    assert!(!resilient.delete_key(&alice()).await.unwrap().unsettled);
}

#[tokio::test(start_paused = true)]
async fn an_erasure_after_an_attempt_without_an_answer_reports_that_the_key_existed() {
    let store = unsteady([Fault::error(ErrorKind::Timeout).applied().on(Operation::Erase)]);
    store.put_key(&alice(), &key(1)).await.unwrap();
    let erasure = around(&store).build().unwrap().erase_key(&alice()).await.unwrap();
    assert!(erasure.existed && erasure.verified && erasure.unsettled);
    let erasure = around(&store).build().unwrap().erase_key(&alice()).await.unwrap();
    assert!(!erasure.existed && !erasure.unsettled);
}

#[tokio::test(start_paused = true)]
async fn a_key_created_without_an_answer_is_returned() {
    let store = unsteady([Fault::error(ErrorKind::Timeout).applied().on(Operation::Create)]);
    let made = around(&store).build().unwrap().get_or_create_key(&alice()).await.unwrap();
    assert_eq!(store.get_key(&alice()).await.unwrap(), made);
}

#[tokio::test(start_paused = true)]
async fn only_the_failed_ids_of_a_batch_are_retried() {
    let store = unsteady([]);
    for name in ["a", "b", "c"] {
        store.put_key(&id(name), &key(1)).await.unwrap();
    }
    store.inject(Fault::latency(Duration::ZERO).on(Operation::Get));
    store.inject(Fault::error(ErrorKind::Throttled).on(Operation::Get));
    let before = store.calls(Operation::Get);
    let outcomes = around(&store).build().unwrap().get_keys(&[id("a"), id("b"), id("c"), id("nobody")]).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 3);
    assert_eq!(outcomes[3].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.calls(Operation::Get) - before, 5, "four, and one again");
}

#[tokio::test(start_paused = true)]
async fn a_listing_is_retried_until_it_has_returned_an_id() {
    let store = unsteady([]);
    for name in ["a", "b"] {
        store.put_key(&id(name), &key(1)).await.unwrap();
    }
    store.inject(Fault::error(ErrorKind::Throttled).on(Operation::List).times(2));
    let ids: Vec<KeyId> = around(&store).build().unwrap().list_keys().try_collect().await.unwrap();
    assert_eq!(ids.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn invalid_settings_are_refused() {
    let store = unsteady([]);
    for wrong in [
        around(&store).max_attempts(0),
        around(&store).attempt_timeout(Duration::ZERO),
        around(&store).attempt_timeout(6 * SECOND),
        around(&store).pauses(2 * SECOND, SECOND),
    ] {
        assert_eq!(kind(wrong.build()), ErrorKind::Config);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_found_pending_after_an_attempt_without_an_answer_is_recoverable() {
    let store = unsteady([
        Fault::error(ErrorKind::Timeout).applied().on(Operation::Delete),
        Fault::error(ErrorKind::PendingDeletion).on(Operation::Delete),
    ]);
    store.put_key(&alice(), &key(1)).await.unwrap();
    let finality = around(&store).build().unwrap().delete_key(&alice()).await.unwrap().finality;
    // The store has not said how long, so the longest window is assumed.
    let long = SystemTime::now() + 29 * 86_400 * SECOND;
    assert!(matches!(finality, Finality::RecoverableUntil(until) if until > long), "{finality:?}");
}

#[tokio::test(start_paused = true)]
async fn absence_does_not_settle_a_delete_on_an_eventual_store() {
    let lagging = Lagging { store: MemoryStore::new(), bound: 60 * SECOND };
    let lost = || Fault::error(ErrorKind::Timeout).applied().on(Operation::Delete);
    let store = Arc::new(Faulty::builder(lagging).fault(lost()).build().unwrap());
    store.put_key(&alice(), &key(1)).await.unwrap();
    let resilient = Resilient::builder(store.clone()).build().unwrap();
    let error = resilient.delete_key(&alice()).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::NotFound, Effect::Unknown));
    store.inject(lost());
    let error = resilient.delete_keys(&[alice()]).await.remove(0).unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::NotFound, Effect::Unknown));
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_of_a_listing_starts_at_its_first_poll() {
    let store = unsteady([Fault::latency(SECOND / 100).on(Operation::List)]);
    store.put_key(&alice(), &key(1)).await.unwrap();
    let resilient = around(&store).build().unwrap();
    let listing = resilient.list_keys();
    tokio::time::sleep(6 * SECOND).await;
    assert_eq!(listing.try_collect::<Vec<KeyId>>().await.unwrap(), [alice()]);
}

#[tokio::test(start_paused = true)]
async fn settling_a_write_keeps_the_deadline_even_if_the_store_lags_for_longer() {
    let lagging = Lagging { store: MemoryStore::new(), bound: 3600 * SECOND };
    let store = Faulty::builder(lagging)
        .fault(Fault::hang().on(Operation::Create))
        .fault(Fault::error(ErrorKind::AlreadyExists).on(Operation::Create))
        .build()
        .unwrap();
    let resilient = Resilient::builder(store).attempt_timeout(SECOND).deadline(3 * SECOND / 2).build().unwrap();
    let begin = Instant::now();
    let error = resilient.create_key(&alice(), &key(1)).await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    assert!(begin.elapsed() <= 3 * SECOND / 2 + Duration::from_millis(2), "{:?}", begin.elapsed());
}

/// A store that declares itself eventually consistent.
#[derive(Debug)]
struct Lagging {
    store: MemoryStore,
    bound: Duration,
}

#[async_trait]
impl KeyStore for Lagging {
    fn info(&self) -> StoreInfo {
        self.store.info()
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.store.capabilities();
        capabilities.consistency = Consistency::Eventual { within: self.bound };
        capabilities
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.store.get_key(id).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.store.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.store.delete_key(id).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.store.list_keys()
    }

    async fn check(&self) -> Result<()> {
        self.store.check().await
    }
}

/// A store in which each erasure takes three bounds, and the first one fails because the key can
/// still be read.
#[derive(Debug)]
struct SlowToErase {
    store: Lagging,
    erasures: AtomicU32,
}

#[async_trait]
impl KeyStore for SlowToErase {
    fn info(&self) -> StoreInfo {
        self.store.info()
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.store.get_key(id).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.store.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.store.delete_key(id).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.store.list_keys()
    }

    async fn check(&self) -> Result<()> {
        self.store.check().await
    }

    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        tokio::time::sleep(3 * self.store.bound).await;
        if self.erasures.fetch_add(1, Ordering::SeqCst) == 0 {
            let seen = Error::new(ErrorKind::Conflict, Operation::Erase, "memory").with_effect(Effect::Unknown);
            return Err(seen.with_retry_after(SECOND));
        }
        self.store.store.delete_key(id).await.map(|deletion| Erasure::new(false, deletion.finality, true))
    }
}

#[tokio::test(start_paused = true)]
async fn an_erasure_that_still_sees_the_key_is_retried_and_has_enough_time() {
    let store = Lagging { store: MemoryStore::new(), bound: 5 * SECOND };
    let slow = SlowToErase { store, erasures: AtomicU32::new(0) };
    slow.put_key(&alice(), &key(1)).await.unwrap();
    let resilient = Resilient::builder(slow).attempt_timeout(SECOND).deadline(20 * SECOND).build().unwrap();
    let erasure = resilient.erase_key(&alice()).await.unwrap();
    // The second attempt reports that there was no key. After the first one that proves nothing.
    assert!(erasure.existed && erasure.verified);
    assert_eq!(resilient.find_key(&alice()).await.unwrap(), None);
}

#[tokio::test]
async fn a_layer_around_a_cache_is_refused() {
    let cached = || Cached::builder(MemoryStore::new()).build().unwrap();
    let limit = Limit::builder().rate(10.0).build().unwrap();
    let wrong: [Arc<dyn KeyStore>; 3] = [
        Arc::new(cached()),
        Arc::new(Limited::new(cached(), limit)),
        Arc::new(Fenced::builder(cached(), MemoryStore::new()).build().unwrap()),
    ];
    for store in wrong {
        let error = Resilient::builder(store).build().unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, Operation::Open));
        assert!(error.source().unwrap().to_string().contains("put the cache around it"));
    }
}
