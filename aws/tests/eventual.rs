//! `get_or_create` and `erase_key` for stores whose reads lag, over an engine with a stale replica,
//! under paused time.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use keystead_aws::eventual;
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Durability, Effect, Erasure, Error, ErrorKind,
    Finality, KeyId, KeyStore, KeyStoreExt, Operation, PutMode, Result, SecretKey, StoreInfo,
};
use keystead_memory::MemoryStore;
use tokio::time::Instant;

const BOUND: Duration = Duration::from_secs(5);

/// The answer of a stale replica to reads.
#[derive(Clone, Copy, Debug, PartialEq)]
enum StaleAnswer {
    Absent,
    Present,
    /// A pending deletion of a key that has been restored since.
    Pending,
}

/// A store with a stale replica. Until the replica has caught up, deletes are answered with
/// `NotFound` and not applied.
#[derive(Debug)]
struct Engine {
    memory: MemoryStore,
    grade: DeletionGrade,
    stale: Option<(Instant, StaleAnswer)>,
    /// The number of reads that succeed, and the error of all later ones.
    reads_fail: Option<(usize, ErrorKind)>,
    /// The time until which a create is answered that the name is held back.
    held: Option<Instant>,
    /// True if somebody else writes the key again after each delete.
    rewritten: bool,
    calls: Mutex<Vec<(&'static str, Instant)>>,
}

impl Engine {
    async fn with_key() -> Self {
        let engine = Self::empty();
        engine.memory.put_key(&id(), &key(1)).await.unwrap();
        engine
    }

    fn empty() -> Self {
        Self {
            memory: MemoryStore::new(),
            grade: DeletionGrade::Immediate,
            stale: None,
            reads_fail: None,
            held: None,
            rewritten: false,
            calls: Mutex::default(),
        }
    }

    fn stale(mut self, lag: Duration, before: StaleAnswer) -> Self {
        self.stale = Some((Instant::now() + lag, before));
        self
    }

    fn stale_now(&self) -> Option<StaleAnswer> {
        self.stale.filter(|(until, _)| Instant::now() < *until).map(|(_, before)| before)
    }

    fn log(&self, call: &'static str) -> usize {
        let mut calls = self.calls.lock().unwrap();
        calls.push((call, Instant::now()));
        calls.iter().filter(|(logged, _)| *logged == call).count()
    }

    fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().iter().map(|(call, _)| *call).collect()
    }

    async fn erase(&self) -> Result<Erasure> {
        eventual::erase_key(self, &id()).await
    }

    async fn has_key(&self) -> bool {
        self.memory.get_key(&id()).await.is_ok()
    }
}

fn id() -> KeyId {
    KeyId::new("alice").unwrap()
}

fn key(byte: u8) -> SecretKey {
    SecretKey::new([byte; 32]).unwrap()
}

fn fails_with<T>(kind: ErrorKind, operation: Operation) -> Result<T> {
    Err(Error::new(kind, operation, "memory"))
}

#[async_trait]
impl KeyStore for Engine {
    fn info(&self) -> StoreInfo {
        self.memory.info()
    }

    fn capabilities(&self) -> Capabilities {
        let consistency = Consistency::Eventual { within: BOUND };
        Capabilities::new(Durability::Replicated, consistency, self.grade, None)
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let number = self.log("get");
        if let Some((spared, kind)) = self.reads_fail
            && number > spared
        {
            return fails_with(kind, Operation::Get);
        }
        match self.stale_now() {
            Some(StaleAnswer::Absent) => fails_with(ErrorKind::NotFound, Operation::Get),
            Some(StaleAnswer::Present) => Ok(key(1)),
            Some(StaleAnswer::Pending) => fails_with(ErrorKind::PendingDeletion, Operation::Get),
            None => self.memory.get_key(id).await,
        }
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.log("put");
        if self.held.is_some_and(|until| Instant::now() < until) {
            let held = Error::new(ErrorKind::Conflict, Operation::Create, "memory");
            return Err(held.with_retry_after(Duration::from_secs(30)));
        }
        self.memory.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.log("delete");
        match self.stale_now() {
            Some(StaleAnswer::Pending) => return fails_with(ErrorKind::PendingDeletion, Operation::Delete),
            Some(_) => return fails_with(ErrorKind::NotFound, Operation::Delete),
            None => {}
        }
        let answer = self.memory.delete_key(id).await;
        if self.rewritten {
            self.memory.put_key(id, &key(2)).await?;
        }
        answer
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.memory.list_keys()
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_erasure_is_one_delete_and_one_read_a_bound_later() {
    let engine = Engine::with_key().await;
    let begin = Instant::now();
    assert_eq!(engine.erase().await.unwrap(), Erasure::new(true, Finality::Immediate, true));
    assert_eq!(engine.calls(), ["delete", "get"]);
    assert!(begin.elapsed() >= BOUND && begin.elapsed() < BOUND + Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn erasing_nothing_reads_at_once_and_a_bound_later() {
    let engine = Engine::empty();
    assert_eq!(engine.erase().await.unwrap(), Erasure::new(false, Finality::Immediate, true));
    assert_eq!(engine.calls(), ["delete", "get", "get"]);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_a_stale_delete_did_not_find_is_deleted_again() {
    for before in [StaleAnswer::Absent, StaleAnswer::Present] {
        for lag in [1, 999, 3000, 4999] {
            let engine = Engine::with_key().await.stale(Duration::from_millis(lag), before);
            let erasure = engine.erase().await.unwrap();
            assert!(!engine.has_key().await, "{before:?} {lag} {:?}", engine.calls());
            assert_eq!(erasure, Erasure::new(true, Finality::Immediate, true), "{before:?} {lag}");
            assert!(engine.calls().len() <= 24, "{:?}", engine.calls());
            let calls = engine.calls.lock().unwrap().clone();
            let last_delete = calls.iter().rfind(|(call, _)| *call == "delete").unwrap().1;
            assert!(calls.last().unwrap().1 - last_delete >= BOUND, "verified before the bound was over");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_stays_readable_is_a_conflict_and_ends() {
    let mut engine = Engine::with_key().await;
    engine.rewritten = true;
    let error = engine.erase().await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Conflict, Effect::Unknown));
    assert_eq!((error.operation(), error.retry_after()), (Operation::Erase, Some(BOUND)));
    assert_eq!(engine.calls(), ["delete", "get", "delete", "get", "delete", "get"]);
    // A replica that is stale for longer than declared must not lead to Ok either.
    let engine = Engine::with_key().await.stale(Duration::from_secs(3600), StaleAnswer::Present);
    let begin = Instant::now();
    assert_eq!(engine.erase().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(begin.elapsed() <= 5 * BOUND, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_a_delete_that_found_the_key_an_unreadable_proof_is_an_error() {
    for spared in [0, 1] {
        let mut engine = Engine::with_key().await.stale(BOUND / 2, StaleAnswer::Absent);
        engine.reads_fail = Some((spared, ErrorKind::PermissionDenied));
        let error = engine.erase().await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::Unknown));
        assert_eq!(error.operation(), Operation::Erase);
    }
    let mut engine = Engine::with_key().await;
    engine.reads_fail = Some((0, ErrorKind::PermissionDenied));
    assert_eq!(engine.erase().await.unwrap(), Erasure::new(true, Finality::Immediate, false));
}

#[tokio::test(start_paused = true)]
async fn a_pending_deletion_that_only_a_read_sees_is_reported() {
    let mut engine = Engine::empty();
    let window = Duration::from_secs(7 * 86_400);
    engine.grade = DeletionGrade::Recoverable { window };
    engine.reads_fail = Some((0, ErrorKind::PendingDeletion));
    let erasure = engine.erase().await.unwrap();
    assert!(erasure.existed && !erasure.verified && matches!(erasure.finality, Finality::RecoverableUntil(_)));
}

#[tokio::test(start_paused = true)]
async fn polls_back_off_and_the_last_one_begins_when_the_bound_is_over() {
    let engine = Engine::empty();
    let begin = Instant::now();
    assert_eq!(eventual::visible_within(&engine, &id(), BOUND).await.unwrap(), None);
    assert_eq!(engine.calls().len(), 10);
    assert_eq!(engine.calls.lock().unwrap().last().unwrap().1 - begin, BOUND);
    assert_eq!(eventual::visible_within(&engine, &id(), Duration::ZERO).await.unwrap(), None);
    assert_eq!(engine.calls().len(), 11);
}

#[tokio::test(start_paused = true)]
async fn get_or_create_waits_for_a_name_that_is_held_back() {
    let pause = Duration::from_secs(30);
    let mut engine = Engine::empty();
    engine.held = Some(Instant::now() + Duration::from_secs(4));
    assert_eq!(eventual::get_or_create(&engine, &id(), &key(1), BOUND, pause).await.unwrap(), key(1));
    assert!(engine.has_key().await);

    let mut engine = Engine::empty();
    engine.held = Some(Instant::now() + Duration::from_secs(60));
    let begin = Instant::now();
    let error = eventual::get_or_create(&engine, &id(), &key(1), BOUND, pause).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after(), begin.elapsed()), (ErrorKind::Conflict, Some(pause), BOUND));
    assert_eq!(engine.calls().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_pending_deletion_from_a_stale_replica_is_not_an_erasure() {
    let engine = Engine::with_key().await.stale(BOUND / 2, StaleAnswer::Pending);
    assert_eq!(engine.erase().await.unwrap(), Erasure::new(true, Finality::Immediate, true));
    assert!(!engine.has_key().await);

    let pending = Engine::empty().stale(10 * BOUND, StaleAnswer::Pending).erase().await.unwrap();
    assert!(pending.existed && !pending.verified && matches!(pending.finality, Finality::RecoverableUntil(_)));
}
