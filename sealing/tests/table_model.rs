//! Rotations beside writers, in random interleavings of the table's calls.
//!
//! Each call of the table is a step of its own, and any task may stop between two steps for as long
//! as the others take to end. A write may be late: its conditions are checked when it is sent, its
//! client gives up, and it is applied at a later moment, but no later than the table's bound. The
//! clock jumps. Whatever happens, the final keyring opens every record.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::{FutureExt, LocalBoxFuture, poll_fn};
use keystead_core::{
    DeletionGrade, Durability, Effect, Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, Result, SecretKey,
    StoreInfo, async_trait,
};
use keystead_sealing::table::{
    KeyringItem, MemoryTable, RecordTable, SealedOptions, SealedStore, StoreId, Timer, WriteOutcome,
};
use keystead_sealing::{RootSecret, RowKey};

const RUNS: u64 = 2_000;
const LEASE: Duration = Duration::from_secs(30);
const LATE: Duration = Duration::from_secs(60);
const WRITES: usize = 12;
const IDS: usize = 3;

/// A small generator of the model's choices (xorshift64*, <https://doi.org/10.1145/2845077>).
#[derive(Debug)]
struct Choices(u64);

impl Choices {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

/// The engine: its rows, its clock, and the writes that are still to be applied.
#[derive(Debug)]
struct Engine {
    rows: MemoryTable,
    now: AtomicU64,
    late: Mutex<Vec<Late>>,
    choices: Mutex<Choices>,
}

#[derive(Debug)]
struct Late {
    until: Duration,
    row: RowKey,
    record: Vec<u8>,
    creates: bool,
}

impl Engine {
    fn new(seed: u64) -> Arc<Self> {
        let choices = Mutex::new(Choices::new(seed));
        Arc::new(Self { rows: MemoryTable::new(), now: AtomicU64::new(0), late: Mutex::default(), choices })
    }

    fn choices(&self) -> MutexGuard<'_, Choices> {
        self.choices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn late(&self) -> MutexGuard<'_, Vec<Late>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.now.load(Ordering::SeqCst))
    }

    /// Moves the clock, after the writes that must be applied before that moment.
    async fn advance(&self, time: Duration) {
        let now = self.now() + time;
        self.apply_late(|late| late.until <= now).await;
        self.now.fetch_max(now.as_millis() as u64, Ordering::SeqCst);
    }

    async fn apply_late(&self, is_due: impl FnMut(&Late) -> bool) {
        let (due, waiting): (Vec<Late>, Vec<Late>) = self.late().drain(..).partition(is_due);
        self.late().extend(waiting);
        for Late { row, record, creates, .. } in due {
            // The conditions were checked when it was sent, except that a row is never inserted
            // twice, and never replaced by an older epoch.
            let stored = self.rows.read(&[row]).await.unwrap().pop().flatten();
            let is_older = stored.as_ref().is_some_and(|stored| record[1..5] < stored[1..5]);
            if (creates && stored.is_some()) || is_older {
                continue;
            }
            let epoch = self.rows.keyring().await.unwrap().unwrap().current_epoch;
            self.rows.upsert(&row, &record, epoch).await.unwrap();
        }
    }
}

#[derive(Clone, Debug)]
struct ModelTable(Arc<Engine>);

impl ModelTable {
    /// A write that may be late.
    async fn write(&self, row: &RowKey, record: &[u8], epoch: u32, creates: bool) -> Result<WriteOutcome> {
        step().await;
        let keyring = self.0.rows.keyring().await?.unwrap();
        let is_late = keyring.is_writable(epoch) && self.0.choices().one_in(6);
        if is_late {
            let until = self.0.now() + LATE;
            self.0.late().push(Late { until, row: *row, record: record.to_vec(), creates });
            return Err(Error::new(ErrorKind::Timeout, Operation::Put, "model").with_effect(Effect::Unknown));
        }
        if creates {
            self.0.rows.insert(row, record, epoch).await
        } else {
            self.0.rows.upsert(row, record, epoch).await
        }
    }
}

#[async_trait]
impl RecordTable for ModelTable {
    fn info(&self) -> StoreInfo {
        StoreInfo::new("model", "this test")
    }

    fn durability(&self) -> Durability {
        Durability::Process
    }

    fn deletion(&self) -> DeletionGrade {
        DeletionGrade::Immediate
    }

    fn late_write_bound(&self) -> Duration {
        LATE
    }

    async fn store_id(&self) -> Result<Option<StoreId>> {
        self.0.rows.store_id().await
    }

    async fn keyring(&self) -> Result<Option<KeyringItem>> {
        step().await;
        self.0.rows.keyring().await
    }

    async fn create(&self, store_id: &StoreId, keyring: &KeyringItem) -> Result<bool> {
        self.0.rows.create(store_id, keyring).await
    }

    async fn replace_keyring(&self, expected: &KeyringItem, new: &KeyringItem) -> Result<bool> {
        step().await;
        self.0.rows.replace_keyring(expected, new).await
    }

    async fn read(&self, rows: &[RowKey]) -> Result<Vec<Option<Vec<u8>>>> {
        step().await;
        self.0.rows.read(rows).await
    }

    async fn insert(&self, row: &RowKey, record: &[u8], epoch: u32) -> Result<WriteOutcome> {
        self.write(row, record, epoch, true).await
    }

    async fn upsert(&self, row: &RowKey, record: &[u8], epoch: u32) -> Result<WriteOutcome> {
        self.write(row, record, epoch, false).await
    }

    async fn replace_if(&self, row: &RowKey, expected: &[u8], new: &[u8]) -> Result<bool> {
        step().await;
        self.0.rows.replace_if(row, expected, new).await
    }

    async fn delete_if(&self, row: &RowKey, expected: &[u8]) -> Result<bool> {
        step().await;
        self.0.rows.delete_if(row, expected).await
    }

    async fn delete(&self, rows: &[RowKey]) -> Result<Vec<bool>> {
        step().await;
        self.0.rows.delete(rows).await
    }

    async fn page(&self, after: Option<&RowKey>, _limit: usize) -> Result<Vec<(RowKey, Vec<u8>)>> {
        step().await;
        self.0.rows.page(after, 2).await
    }
}

#[derive(Debug)]
struct ModelTimer(Arc<Engine>);

#[async_trait]
impl Timer for ModelTimer {
    fn now(&self) -> Duration {
        self.0.now()
    }

    async fn sleep(&self, time: Duration) {
        let end = self.0.now() + time;
        while self.0.now() < end {
            step().await;
            self.0.advance(time / 4).await;
        }
    }
}

/// Lets another task run.
async fn step() {
    let mut has_yielded = false;
    poll_fn(|_| if std::mem::replace(&mut has_yielded, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

fn root() -> RootSecret {
    RootSecret::from_bytes([1; 32])
}

fn options(engine: &Arc<Engine>) -> SealedOptions {
    SealedOptions::new().lease(LEASE).timer(Arc::new(ModelTimer(engine.clone())))
}

/// What a writer knows of its ids: the key that a read must give, or nothing certain.
type Known = HashMap<usize, Option<Option<u8>>>;

/// Writes to ids of its own, and checks each one that no late write can change any longer.
async fn write(engine: Arc<Engine>, store: SealedStore<ModelTable>, writer: usize, known: Arc<Mutex<Known>>) {
    for write in 0..WRITES {
        let (number, choice) = {
            let mut choices = engine.choices();
            (choices.below(IDS), choices.below(8))
        };
        let id = id_of(writer, number);
        let byte = (writer * WRITES + write) as u8;
        let key = SecretKey::new([byte; 32]).unwrap();
        let is_certain = |known: &Known| known.get(&number) != Some(&None);
        let before = lock(&known).get(&number).copied().unwrap_or(Some(None));
        let after = match choice {
            0 => match store.delete_key(&id).await {
                Ok(_) => Some(None),
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    assert!(before.is_none_or(|key| key.is_none()), "a key was lost");
                    Some(None)
                }
                Err(e) => panic!("a delete failed: {e:?}"),
            },
            1..=3 => match store.put_key(&id, &key).await {
                Ok(()) => Some(Some(byte)),
                Err(e) if e.effect() == Effect::Unknown => None,
                Err(e) => panic!("a put failed: {e:?}"),
            },
            4 | 5 => match store.create_key(&id, &key).await {
                Ok(()) => {
                    assert!(before.is_none_or(|key| key.is_none()), "a key was overwritten by a creation");
                    Some(Some(byte))
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => before,
                Err(e) if e.effect() == Effect::Unknown => None,
                Err(e) => panic!("a creation failed: {e:?}"),
            },
            _ => {
                match store.get_key(&id).await {
                    Ok(found) if before.is_some() => {
                        let found = found.expose_secret().first().copied();
                        assert_eq!(Some(found), before, "another key than was written");
                    }
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::NotFound => {
                        assert!(before.is_none_or(|key| key.is_none()), "a key was lost");
                    }
                    Err(e) => panic!("a get failed: {e:?}"),
                }
                before
            }
        };
        // After a write of unknown outcome a late one may still come, so nothing is certain again.
        let mut known = lock(&known);
        let after = if is_certain(&known) { after } else { None };
        known.insert(number, after);
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

fn id_of(writer: usize, number: usize) -> KeyId {
    KeyId::new(format!("writer {writer}, user {number}")).unwrap()
}

/// Moves the clock now and then, by up to two leases.
async fn jump(engine: Arc<Engine>) {
    for _ in 0..10 {
        step().await;
        let quarters = engine.choices().below(8) as u32;
        engine.advance(LEASE / 4 * quarters).await;
    }
}

async fn rotate(store: SealedStore<ModelTable>) {
    for _ in 0..2 {
        match store.rotate(None, |_| {}).await {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::Conflict => {}
            Err(e) => panic!("a rotation failed: {e:?}"),
        }
    }
}

/// Polls the tasks in a random order until all have ended. A task is sometimes left alone for long.
fn run(engine: &Engine, mut tasks: Vec<LocalBoxFuture<'_, ()>>) {
    let mut context = Context::from_waker(Waker::noop());
    let mut stopped = 0;
    let mut steps = 0_u64;
    while !tasks.is_empty() {
        steps += 1;
        assert!(steps < 1_000_000, "the tasks do not end");
        let index = {
            let mut choices = engine.choices();
            if choices.one_in(40) {
                stopped = choices.below(tasks.len());
            }
            choices.below(tasks.len())
        };
        // The stopped task runs once in a while only, so that it is overtaken by whole rotations.
        if index == stopped && tasks.len() > 1 && !engine.choices().one_in(30) {
            continue;
        }
        if Pin::new(&mut tasks[index]).poll(&mut context).is_ready() {
            drop(tasks.swap_remove(index));
        }
    }
}

fn block_on<T>(mut future: LocalBoxFuture<'_, T>) -> T {
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
}

#[test]
fn every_record_opens_after_rotations_beside_late_and_stopped_writers() {
    let mut rotations = 0;
    for seed in 0..RUNS {
        let engine = Engine::new(seed);
        let table = ModelTable(engine.clone());
        let rotator = block_on(options(&engine).create(table.clone(), root()).boxed_local()).unwrap();
        let open = || block_on(options(&engine).open(table.clone(), root()).boxed_local()).unwrap();
        let writers: Vec<Arc<Mutex<Known>>> = (0..3).map(|_| Arc::default()).collect();
        let mut tasks: Vec<LocalBoxFuture<'_, ()>> = Vec::new();
        for (writer, known) in writers.iter().enumerate() {
            tasks.push(write(engine.clone(), open(), writer, known.clone()).boxed_local());
        }
        tasks.push(rotate(rotator).boxed_local());
        tasks.push(rotate(open()).boxed_local());
        tasks.push(jump(engine.clone()).boxed_local());
        run(&engine, tasks);

        block_on(engine.apply_late(|_| true).boxed_local());
        let store = open();
        let report = block_on(store.verify(|_| {}).boxed_local()).unwrap();
        assert!(report.is_intact(), "seed {seed}: {} records that nobody can open", report.damaged.len());
        for (writer, known) in writers.iter().enumerate() {
            for (number, key) in lock(known).iter().filter_map(|(number, key)| Some((number, (*key)?))) {
                let found = block_on(store.get_key(&id_of(writer, *number)).boxed_local());
                let found = found.ok().and_then(|found| found.expose_secret().first().copied());
                assert_eq!(found, key, "seed {seed}");
            }
        }
        // A rotation changes the keyring three times.
        rotations += (block_on(table.keyring().boxed_local()).unwrap().unwrap().generation - 1) / 3;
    }
    assert!(rotations > RUNS, "most rotations must have ended beside the writers, not only {rotations}");
}
