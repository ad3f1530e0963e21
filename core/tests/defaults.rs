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

/// Gives these answers in turn, and must be asked for all of them.
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
        self.answers.lock().unwrap().pop_front().expect("no further call is made")
    }

    fn is_over(&self) {
        assert!(self.answers.lock().unwrap().is_empty(), "a call was not made");
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
        let Answer::Get(answer) = self.next() else { panic!("a get was made") };
        answer
    }

    async fn put_key_with(&self, _: &KeyId, _: &SecretKey, mode: PutMode) -> Result<()> {
        assert_eq!(mode, PutMode::Create);
        let Answer::Create(answer) = self.next() else { panic!("a create was made") };
        answer
    }

    async fn delete_key(&self, _: &KeyId) -> Result<Deletion> {
        let Answer::Delete(answer) = self.next() else { panic!("a delete was made") };
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

fn found(key: &SecretKey) -> Answer {
    Answer::Get(Ok(key.clone()))
}

fn missing() -> Answer {
    Answer::Get(Err(error(ErrorKind::NotFound, Operation::Get)))
}

fn exists() -> Answer {
    Answer::Create(Err(error(ErrorKind::AlreadyExists, Operation::Create)))
}

fn unanswered() -> Answer {
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
    store.is_over();
    answer
}

#[test]
fn the_candidate_is_given_back_after_the_stores_ok() {
    let candidate = key();
    let store = Scripted::strong([Answer::Create(Ok(()))]);
    assert_eq!(get_or_create(&store, &candidate).unwrap(), candidate);
}

#[test]
fn a_loser_gets_the_key_that_it_reads() {
    let winner = key();
    for store in [Scripted::strong([exists(), found(&winner)]), Scripted::eventual([exists(), found(&winner)])] {
        assert_eq!(get_or_create(&store, &key()).unwrap(), winner);
    }
}

#[test]
fn an_invisible_winner_is_a_conflict_and_never_the_candidate() {
    let e = get_or_create(&Scripted::eventual([exists(), missing()]), &key()).unwrap_err();
    assert_eq!((e.kind(), e.retry_after()), (ErrorKind::Conflict, Some(LAG)));
}

#[test]
fn on_a_strong_store_a_winner_that_vanished_was_deleted_and_the_call_starts_again() {
    let (candidate, winner) = (key(), key());
    let store = Scripted::strong([exists(), missing(), Answer::Create(Ok(()))]);
    assert_eq!(get_or_create(&store, &candidate).unwrap(), candidate);
    let store = Scripted::strong([exists(), missing(), exists(), found(&winner)]);
    assert_eq!(get_or_create(&store, &candidate).unwrap(), winner);
}

#[test]
fn starting_again_ends_in_a_conflict() {
    let answers = (0..16).map(|number| if number % 2 == 0 { exists() } else { missing() });
    let e = get_or_create(&Scripted::strong(answers), &key()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict);
    assert!(e.retry_after().is_some());
}

#[test]
fn a_write_that_was_lost_hands_out_no_candidate() {
    for store in [Scripted::strong([unanswered(), missing()]), Scripted::eventual([unanswered(), missing()])] {
        let e = get_or_create(&store, &key()).unwrap_err();
        assert_eq!((e.kind(), e.effect()), (ErrorKind::Timeout, Effect::Unknown));
    }
}

#[test]
fn a_write_of_unknown_outcome_is_settled_by_what_is_read_back() {
    let (candidate, winner) = (key(), key());
    let store = Scripted::eventual([unanswered(), found(&candidate)]);
    assert_eq!(get_or_create(&store, &candidate).unwrap(), candidate);
    let store = Scripted::eventual([unanswered(), found(&winner)]);
    assert_eq!(get_or_create(&store, &candidate).unwrap(), winner);
}

#[test]
fn a_refused_create_is_not_followed_by_a_read() {
    let denied = error(ErrorKind::PermissionDenied, Operation::Create);
    let e = get_or_create(&Scripted::strong([Answer::Create(Err(denied))]), &key()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::PermissionDenied);
}

#[test]
fn a_failing_read_is_no_absence() {
    let throttled = || Answer::Get(Err(error(ErrorKind::Throttled, Operation::Get)));
    let e = get_or_create(&Scripted::strong([exists(), throttled()]), &key()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Throttled);
    let store = Scripted::strong([throttled()]);
    assert_eq!(block_on(store.find_key(&id())).unwrap_err().kind(), ErrorKind::Throttled);
    let store = Scripted::strong([throttled()]);
    assert_eq!(block_on(store.get_or_create_key(&id())).unwrap_err().kind(), ErrorKind::Throttled);
    store.is_over();
}

fn erase(store: &Scripted) -> Result<Erasure> {
    let answer = block_on(store.erase_key(&id()));
    store.is_over();
    answer
}

fn deleted() -> Answer {
    Answer::Delete(Ok(Deletion::new(Finality::Immediate)))
}

fn absent() -> Answer {
    refused(ErrorKind::NotFound)
}

fn unreadable() -> Answer {
    Answer::Get(Err(error(ErrorKind::PermissionDenied, Operation::Get)))
}

fn refused(kind: ErrorKind) -> Answer {
    Answer::Delete(Err(error(kind, Operation::Delete)))
}

#[test]
fn an_erasure_is_verified_by_a_read_that_finds_nothing() {
    let erasure = erase(&Scripted::strong([deleted(), missing()])).unwrap();
    assert_eq!(erasure, Erasure::new(true, Finality::Immediate, true));
    let erasure = erase(&Scripted::strong([refused(ErrorKind::NotFound), missing()])).unwrap();
    assert_eq!(erasure, Erasure::new(false, Finality::Immediate, true));
}

#[test]
fn an_erasure_that_no_read_can_confirm_is_not_verified() {
    let erasure = erase(&Scripted::strong([deleted(), unreadable()])).unwrap();
    assert_eq!(erasure, Erasure::new(true, Finality::Immediate, false));
}

#[test]
fn a_key_that_is_seen_after_the_delete_is_deleted_again() {
    for script in [[deleted(), found(&key()), deleted(), missing()], [absent(), found(&key()), deleted(), missing()]] {
        let erasure = erase(&Scripted::strong(script)).unwrap();
        assert_eq!(erasure, Erasure::new(true, Finality::Immediate, true));
    }
    let erasure = erase(&Scripted::strong([absent(), found(&key()), absent(), missing()])).unwrap();
    assert!(erasure.existed, "a key was seen");
}

#[test]
fn an_erasure_is_never_ok_while_reads_see_the_key() {
    let rounds = || (0..8).flat_map(|_| [absent(), found(&key())]);
    for store in [Scripted::strong(rounds()), Scripted::eventual(rounds())] {
        let e = erase(&store).unwrap_err();
        assert_eq!((e.kind(), e.operation(), e.effect()), (ErrorKind::Conflict, Operation::Erase, Effect::Unknown));
        assert!(e.retry_after().is_some_and(|pause| pause >= store.consistency.bound()));
    }
}

#[test]
fn a_key_that_was_seen_and_that_no_delete_has_found_is_not_erased_until_a_read_says_so() {
    let e = erase(&Scripted::strong([absent(), found(&key()), absent(), unreadable()])).unwrap_err();
    assert_eq!((e.kind(), e.operation()), (ErrorKind::PermissionDenied, Operation::Erase));
    assert_eq!(e.effect(), Effect::Unknown);
}

#[test]
fn what_a_read_shows_after_the_delete_is_believed() {
    let refusal = |kind| Answer::Get(Err(error(kind, Operation::Get).with_retry_after(Duration::from_secs(86_400))));
    for first in [absent(), deleted()] {
        let erasure = erase(&Scripted::strong([first, refusal(ErrorKind::PendingDeletion)])).unwrap();
        assert!(erasure.existed && !erasure.verified && matches!(erasure.finality, Finality::RecoverableUntil(_)));
    }
    let corrupt = [absent(), refusal(ErrorKind::Corrupt), deleted(), missing()];
    assert_eq!(erase(&Scripted::strong(corrupt)).unwrap(), Erasure::new(true, Finality::Immediate, true));
}

#[test]
fn a_delete_that_fails_after_another_one_may_have_had_an_effect() {
    let e = erase(&Scripted::strong([deleted(), found(&key()), refused(ErrorKind::Throttled)])).unwrap_err();
    assert_eq!((e.kind(), e.effect()), (ErrorKind::Throttled, Effect::Unknown));
}

#[test]
fn an_absence_that_a_lagging_replica_may_have_told_is_not_erased_until_a_read_says_so() {
    let e = erase(&Scripted::eventual([absent(), unreadable()])).unwrap_err();
    assert_eq!((e.kind(), e.operation(), e.effect()), (ErrorKind::PermissionDenied, Operation::Erase, Effect::Unknown));
    let erasure = erase(&Scripted::strong([absent(), unreadable()])).unwrap();
    assert_eq!(erasure, Erasure::new(false, Finality::Immediate, false));
}

#[test]
fn without_a_clock_an_eventual_store_verifies_nothing() {
    // A read at once might be stale: it would prove nothing, nor that the key is still there.
    for script in [vec![deleted()], vec![absent(), found(&key()), deleted()]] {
        let erasure = erase(&Scripted::eventual(script)).unwrap();
        assert_eq!(erasure, Erasure::new(true, Finality::Immediate, false));
    }
    let erasure = erase(&Scripted::eventual([absent(), missing()])).unwrap();
    assert_eq!(erasure, Erasure::new(false, Finality::Immediate, false));
}

fn until(erasure: &Erasure) -> SystemTime {
    let Finality::RecoverableUntil(until) = erasure.finality else { panic!("{erasure:?}") };
    assert!(erasure.existed && !erasure.verified);
    until
}

#[test]
fn erasing_what_is_scheduled_for_deletion_is_ok_and_says_until_when() {
    let day = Duration::from_secs(86_400);
    let recoverable = DeletionGrade::Recoverable { window: 7 * day };
    let pending = |remaining: Option<Duration>| {
        let e = error(ErrorKind::PendingDeletion, Operation::Delete);
        Answer::Delete(Err(remaining.into_iter().fold(e, Error::with_retry_after)))
    };
    for (deletion, remaining, expected) in [
        (recoverable, Some(3 * day), 3 * day),
        (recoverable, None, 7 * day),
        // A moment that has passed is no promise: the key is still there.
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
fn an_erasure_that_fails_says_erase() {
    let e = erase(&Scripted::strong([refused(ErrorKind::Throttled)])).unwrap_err();
    assert_eq!((e.kind(), e.operation()), (ErrorKind::Throttled, Operation::Erase));
}

/// Counts how many calls are under way at once.
#[derive(Debug, Default)]
struct Counting {
    under_way: AtomicUsize,
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
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        // Each call gives way a few times, the earlier ones more often.
        for _ in 0..(200 - id.as_str().len()) {
            let mut given_way = false;
            std::future::poll_fn(|cx| {
                if std::mem::replace(&mut given_way, true) {
                    return std::task::Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                std::task::Poll::Pending
            })
            .await;
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
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
fn a_batch_keeps_order_shares_outcomes_and_bounds_what_is_under_way() {
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
fn every_future_of_the_shorthands_is_send() {
    fn is_send<T: Send>(_: T) {}
    let (store, id, key): (Arc<dyn KeyStore>, _, _) = (Arc::new(Counting::default()), id(), key());
    is_send(store.put_key(&id, &key));
    is_send(store.create_key(&id, &key));
    is_send(store.find_key(&id));
    is_send(store.get_or_create_key(&id));
    is_send(store.get_or_create_key_with(&id, || SecretKey::generate(32).unwrap()));
    is_send(store.get_keys(&[]));
}
