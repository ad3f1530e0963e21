//! The provided methods of the trait, over a store whose answers are scripted.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_executor::block_on;
use futures_util::stream::{self, StreamExt};
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Durability, Effect, Erasure, Error, ErrorKind,
    Finality, KeyId, KeyStore, KeyStoreExt, Operation, PutMode, Result, SecretKey, StoreInfo, async_trait,
};

const LAG: Duration = Duration::from_secs(5);

#[derive(Debug)]
enum Answer {
    Get(Result<SecretKey>),
    Create(Result<()>),
    Delete(Result<Deletion>),
}

/// A store that returns prepared answers in turn, and on which every one of them must be used.
#[derive(Debug)]
struct Scripted {
    answers: Mutex<VecDeque<Answer>>,
    consistency: Consistency,
    deletion: DeletionGrade,
}

impl Scripted {
    fn strong(answers: impl IntoIterator<Item = Answer>) -> Self {
        let answers = Mutex::new(answers.into_iter().collect());
        Self { answers, consistency: Consistency::Strong, deletion: DeletionGrade::Immediate }
    }

    fn eventual(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self { consistency: Consistency::Eventual { within: LAG }, ..Self::strong(answers) }
    }

    fn next(&self) -> Answer {
        self.answers.lock().unwrap().pop_front().expect("an answer is left for each call")
    }

    fn expect_all_calls_made(&self) {
        assert!(self.answers.lock().unwrap().is_empty(), "an expected call was not made");
    }
}

#[async_trait]
impl KeyStore for Scripted {
    fn info(&self) -> StoreInfo {
        StoreInfo::new("scripted", "")
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Durability::Process, self.consistency, self.deletion, None)
    }

    async fn get_key(&self, _: &KeyId) -> Result<SecretKey> {
        let Answer::Get(answer) = self.next() else { panic!("a get was not expected") };
        answer
    }

    async fn put_key_with(&self, _: &KeyId, _: &SecretKey, mode: PutMode) -> Result<()> {
        assert_eq!(mode, PutMode::Create);
        let Answer::Create(answer) = self.next() else { panic!("a create was not expected") };
        answer
    }

    async fn delete_key(&self, _: &KeyId) -> Result<Deletion> {
        let Answer::Delete(answer) = self.next() else { panic!("a delete was not expected") };
        answer
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        stream::empty().boxed()
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }
}

fn error(kind: ErrorKind, operation: Operation) -> Error {
    Error::new(kind, operation, "scripted")
}

fn read_finds(key: &SecretKey) -> Answer {
    Answer::Get(Ok(key.clone()))
}

fn read_not_found() -> Answer {
    Answer::Get(Err(error(ErrorKind::NotFound, Operation::Get)))
}

fn create_exists() -> Answer {
    Answer::Create(Err(error(ErrorKind::AlreadyExists, Operation::Create)))
}

fn create_times_out() -> Answer {
    Answer::Create(Err(error(ErrorKind::Timeout, Operation::Create)))
}

fn id() -> KeyId {
    KeyId::new("alice").unwrap()
}

fn key() -> SecretKey {
    SecretKey::generate(32).unwrap()
}

fn get_or_create(store: &Scripted, candidate: &SecretKey) -> Result<SecretKey> {
    let answer = block_on(store.get_or_create(&id(), candidate));
    store.expect_all_calls_made();
    answer
}

#[test]
fn a_created_candidate_is_returned() {
    let candidate = key();
    let store = Scripted::strong([Answer::Create(Ok(()))]);
    assert_eq!(get_or_create(&store, &candidate).unwrap(), candidate);
}

#[test]
fn a_loser_gets_the_key_that_it_reads() {
    let winner = key();
    for store in [
        Scripted::strong([create_exists(), read_finds(&winner)]),
        Scripted::eventual([create_exists(), read_finds(&winner)]),
    ] {
        assert_eq!(get_or_create(&store, &key()).unwrap(), winner);
    }
}

#[test]
fn an_invisible_winner_is_a_conflict_and_never_the_candidate() {
    let e = get_or_create(&Scripted::eventual([create_exists(), read_not_found()]), &key()).unwrap_err();
    assert_eq!((e.kind(), e.retry_after()), (ErrorKind::Conflict, Some(LAG)));
}

#[test]
fn on_a_strong_store_the_call_starts_again_if_the_winners_key_is_gone() {
    let candidate = key();
    let winner = key();
    let store = Scripted::strong([create_exists(), read_not_found(), Answer::Create(Ok(()))]);
    assert_eq!(get_or_create(&store, &candidate).unwrap(), candidate);
    let store = Scripted::strong([create_exists(), read_not_found(), create_exists(), read_finds(&winner)]);
    assert_eq!(get_or_create(&store, &candidate).unwrap(), winner);
}

#[test]
fn starting_again_ends_in_a_conflict() {
    let answers = (0..16).map(|index| if index % 2 == 0 { create_exists() } else { read_not_found() });
    let e = get_or_create(&Scripted::strong(answers), &key()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict);
    assert!(e.retry_after().is_some());
}

#[test]
fn a_candidate_that_cannot_be_read_back_is_not_returned() {
    for store in [
        Scripted::strong([create_times_out(), read_not_found()]),
        Scripted::eventual([create_times_out(), read_not_found()]),
    ] {
        let e = get_or_create(&store, &key()).unwrap_err();
        assert_eq!((e.kind(), e.effect()), (ErrorKind::Timeout, Effect::Unknown));
    }
}

#[test]
fn a_write_of_unknown_outcome_is_settled_by_reading_back() {
    let candidate = key();
    let winner = key();
    let store = Scripted::eventual([create_times_out(), read_finds(&candidate)]);
    assert_eq!(get_or_create(&store, &candidate).unwrap(), candidate);
    let store = Scripted::eventual([create_times_out(), read_finds(&winner)]);
    assert_eq!(get_or_create(&store, &candidate).unwrap(), winner);
}

#[test]
fn a_refused_create_is_not_followed_by_a_read() {
    let denied = error(ErrorKind::PermissionDenied, Operation::Create);
    let e = get_or_create(&Scripted::strong([Answer::Create(Err(denied))]), &key()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::PermissionDenied);
}

#[test]
fn a_failing_read_does_not_mean_absence() {
    let throttled = || Answer::Get(Err(error(ErrorKind::Throttled, Operation::Get)));
    let e = get_or_create(&Scripted::strong([create_exists(), throttled()]), &key()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Throttled);
    let store = Scripted::strong([throttled()]);
    assert_eq!(block_on(store.find_key(&id())).unwrap_err().kind(), ErrorKind::Throttled);
    let store = Scripted::strong([throttled()]);
    assert_eq!(block_on(store.get_or_create_key(&id())).unwrap_err().kind(), ErrorKind::Throttled);
    store.expect_all_calls_made();
}

fn erase(store: &Scripted) -> Result<Erasure> {
    let answer = block_on(store.erase_key(&id()));
    store.expect_all_calls_made();
    answer
}

fn delete_ok() -> Answer {
    Answer::Delete(Ok(Deletion::new(Finality::Immediate)))
}

fn delete_not_found() -> Answer {
    delete_fails(ErrorKind::NotFound)
}

fn read_denied() -> Answer {
    Answer::Get(Err(error(ErrorKind::PermissionDenied, Operation::Get)))
}

fn delete_fails(kind: ErrorKind) -> Answer {
    Answer::Delete(Err(error(kind, Operation::Delete)))
}

#[test]
fn an_erasure_is_verified_by_a_read_that_finds_nothing() {
    let erasure = erase(&Scripted::strong([delete_ok(), read_not_found()])).unwrap();
    assert_eq!(erasure, Erasure::new(true, Finality::Immediate, true));
    let erasure = erase(&Scripted::strong([delete_fails(ErrorKind::NotFound), read_not_found()])).unwrap();
    assert_eq!(erasure, Erasure::new(false, Finality::Immediate, true));
}

#[test]
fn an_erasure_that_no_read_can_confirm_is_not_verified() {
    let erasure = erase(&Scripted::strong([delete_ok(), read_denied()])).unwrap();
    assert_eq!(erasure, Erasure::new(true, Finality::Immediate, false));
}

#[test]
fn a_key_that_is_seen_after_the_delete_is_deleted_again() {
    for script in [
        [delete_ok(), read_finds(&key()), delete_ok(), read_not_found()],
        [delete_not_found(), read_finds(&key()), delete_ok(), read_not_found()],
    ] {
        let erasure = erase(&Scripted::strong(script)).unwrap();
        assert_eq!(erasure, Erasure::new(true, Finality::Immediate, true));
    }
    let erasure =
        erase(&Scripted::strong([delete_not_found(), read_finds(&key()), delete_not_found(), read_not_found()]))
            .unwrap();
    assert!(erasure.existed, "a key was seen");
}

#[test]
fn an_erasure_is_never_ok_while_reads_see_the_key() {
    let rounds = || (0..8).flat_map(|_| [delete_not_found(), read_finds(&key())]);
    for store in [Scripted::strong(rounds()), Scripted::eventual(rounds())] {
        let e = erase(&store).unwrap_err();
        assert_eq!((e.kind(), e.operation(), e.effect()), (ErrorKind::Conflict, Operation::Erase, Effect::Unknown));
        assert!(e.retry_after().is_some_and(|pause| pause >= store.consistency.bound()));
    }
}

#[test]
fn a_key_that_was_seen_but_not_found_by_a_delete_is_erased_only_if_a_read_proves_it() {
    let e = erase(&Scripted::strong([delete_not_found(), read_finds(&key()), delete_not_found(), read_denied()]))
        .unwrap_err();
    assert_eq!((e.kind(), e.operation()), (ErrorKind::PermissionDenied, Operation::Erase));
    assert_eq!(e.effect(), Effect::Unknown);
}

#[test]
fn a_read_after_the_delete_decides() {
    let refusal = |kind| Answer::Get(Err(error(kind, Operation::Get).with_retry_after(Duration::from_secs(86_400))));
    for first in [delete_not_found(), delete_ok()] {
        let erasure = erase(&Scripted::strong([first, refusal(ErrorKind::PendingDeletion)])).unwrap();
        assert!(erasure.existed && !erasure.verified && matches!(erasure.finality, Finality::RecoverableUntil(_)));
    }
    let corrupt = [delete_not_found(), refusal(ErrorKind::Corrupt), delete_ok(), read_not_found()];
    assert_eq!(erase(&Scripted::strong(corrupt)).unwrap(), Erasure::new(true, Finality::Immediate, true));
}

#[test]
fn a_delete_that_fails_after_another_one_may_have_had_an_effect() {
    let e =
        erase(&Scripted::strong([delete_ok(), read_finds(&key()), delete_fails(ErrorKind::Throttled)])).unwrap_err();
    assert_eq!((e.kind(), e.effect()), (ErrorKind::Throttled, Effect::Unknown));
}

#[test]
fn an_absence_that_may_come_from_a_lagging_replica_must_be_confirmed_by_a_read() {
    let e = erase(&Scripted::eventual([delete_not_found(), read_denied()])).unwrap_err();
    assert_eq!((e.kind(), e.operation(), e.effect()), (ErrorKind::PermissionDenied, Operation::Erase, Effect::Unknown));
    let erasure = erase(&Scripted::strong([delete_not_found(), read_denied()])).unwrap();
    assert_eq!(erasure, Erasure::new(false, Finality::Immediate, false));
}

#[test]
fn the_default_erasure_verifies_nothing_on_an_eventual_store() {
    // An immediate read could be stale. It would prove neither the absence nor the presence of the
    // key.
    for script in [vec![delete_ok()], vec![delete_not_found(), read_finds(&key()), delete_ok()]] {
        let erasure = erase(&Scripted::eventual(script)).unwrap();
        assert_eq!(erasure, Erasure::new(true, Finality::Immediate, false));
    }
    let erasure = erase(&Scripted::eventual([delete_not_found(), read_not_found()])).unwrap();
    assert_eq!(erasure, Erasure::new(false, Finality::Immediate, false));
}

fn until(erasure: &Erasure) -> SystemTime {
    let Finality::RecoverableUntil(until) = erasure.finality else { panic!("{erasure:?}") };
    assert!(erasure.existed && !erasure.verified);
    until
}

#[test]
fn erasing_a_key_that_is_scheduled_for_deletion_returns_until_when_it_can_be_restored() {
    let day = Duration::from_secs(86_400);
    let recoverable = DeletionGrade::Recoverable { window: 7 * day };
    let pending = |remaining: Option<Duration>| {
        let e = error(ErrorKind::PendingDeletion, Operation::Delete);
        Answer::Delete(Err(remaining.into_iter().fold(e, Error::with_retry_after)))
    };
    for (deletion, remaining, expected) in [
        (recoverable, Some(3 * day), 3 * day),
        (recoverable, None, 7 * day),
        // The store says that the time is over, but the key is still there.
        (recoverable, Some(Duration::ZERO), 30 * day),
        (DeletionGrade::Immediate, None, 30 * day),
        (DeletionGrade::Eventual { within: None }, Some(Duration::ZERO), 30 * day),
    ] {
        let before = SystemTime::now();
        let erasure = erase(&Scripted { deletion, ..Scripted::strong([pending(remaining)]) }).unwrap();
        let until = until(&erasure);
        assert!(until >= before + expected && until <= SystemTime::now() + expected, "{deletion:?}, {remaining:?}");
    }
}

#[test]
fn a_failed_erasure_names_the_operation_erase() {
    let e = erase(&Scripted::strong([delete_fails(ErrorKind::Throttled)])).unwrap_err();
    assert_eq!((e.kind(), e.operation()), (ErrorKind::Throttled, Operation::Erase));
}

/// A store that counts how many calls are in flight at once.
#[derive(Debug, Default)]
struct Counting {
    in_flight: AtomicUsize,
    most: AtomicUsize,
    calls: AtomicUsize,
}

#[async_trait]
impl KeyStore for Counting {
    fn info(&self) -> StoreInfo {
        StoreInfo::new("counting", "")
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Durability::Process, Consistency::Strong, DeletionGrade::Immediate, None)
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        // Each call yields a number of times, and later calls yield less often.
        for _ in 0..(200 - id.as_str().len()) {
            let mut has_yielded = false;
            std::future::poll_fn(|cx| {
                if std::mem::replace(&mut has_yielded, true) {
                    return std::task::Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                std::task::Poll::Pending
            })
            .await;
        }
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        match id.as_str().len() % 3 {
            0 => Err(error(ErrorKind::NotFound, Operation::Get)),
            _ => Ok(SecretKey::new(id.as_str()).unwrap()),
        }
    }

    async fn put_key_with(&self, _: &KeyId, _: &SecretKey, _: PutMode) -> Result<()> {
        Ok(())
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.get_key(id).await.map(|_| Deletion::new(Finality::Immediate))
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        stream::empty().boxed()
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn erase_key(&self, _: &KeyId) -> Result<Erasure> {
        Ok(Erasure::new(true, Finality::Eventual { within: None }, false))
    }
}

#[test]
fn a_batch_keeps_the_order_shares_outcomes_and_limits_the_calls_in_flight() {
    let store = Counting::default();
    let mut ids: Vec<KeyId> = (1..=100).map(|len| KeyId::new("x".repeat(len)).unwrap()).collect();
    ids.extend(ids.clone());
    let outcomes = block_on(store.get_keys(&ids));
    assert_eq!(outcomes.len(), 200);
    for (id, outcome) in ids.iter().zip(&outcomes) {
        match outcome {
            Ok(key) => assert_eq!(key.expose_secret(), id.as_str().as_bytes()),
            Err(e) => assert_eq!((e.kind(), id.as_str().len() % 3), (ErrorKind::NotFound, 0)),
        }
    }
    assert_eq!(store.calls.load(Ordering::SeqCst), 100);
    assert_eq!(store.most.load(Ordering::SeqCst), 16);
    assert_eq!(block_on(store.delete_keys(&ids[..3])).len(), 3);
    assert!(block_on(store.get_keys(&[])).is_empty());
}

#[test]
fn pointers_forward_what_a_store_overrides() {
    let store: Arc<dyn KeyStore> = Arc::new(Box::new(Arc::new(Counting::default())));
    let erasure = block_on(store.erase_key(&id())).unwrap();
    assert_eq!(erasure.finality, Finality::Eventual { within: None });
    assert_eq!(store.info().scheme(), "counting");
}

#[test]
fn every_future_of_the_convenience_methods_is_send() {
    fn assert_send<T: Send>(_: T) {}
    let store: Arc<dyn KeyStore> = Arc::new(Counting::default());
    let id = id();
    let key = key();
    assert_send(store.put_key(&id, &key));
    assert_send(store.create_key(&id, &key));
    assert_send(store.find_key(&id));
    assert_send(store.get_or_create_key(&id));
    assert_send(store.get_or_create_key_with(&id, || SecretKey::generate(32).unwrap()));
    assert_send(store.get_keys(&[]));
}
