//! [`Register`]: the erased users, as recorded in the store of the tombstones.
//!
//! Records are only created, never overwritten and never deleted. So no update can be lost. The
//! tombstones of a user are numbered from 1; the number is the *generation*. A caller that was
//! paused at any point does no harm when it continues: the record that it then tries to create
//! exists already, or belongs to a generation that is over.

use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use keystead_core::{Effect, Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, Result, SecretKey};
use tokio::sync::OnceCell;

use super::claim::{Claim, Claiming, Lease};
use super::record::{self, FENCE_KEY_LEN, RecordNames, Stamp};

/// The number of attempts to create a record if other callers create it first each time.
const ROUNDS: u32 = 100;

/// The `retry_after` of the error when all those attempts have failed.
const CONTENTION_PAUSE: Duration = Duration::from_secs(1);

/// The largest number of recent erasures of one user that are examined.
const RECENT_ERASURES: u32 = 1000;

/// The records about all users.
#[derive(Debug)]
pub(crate) struct Register<T> {
    store: T,
    /// The time for which the stack around the keys may return a key after it was deleted.
    visible_for: Duration,
    fence_key: OnceCell<SecretKey>,
}

/// The status of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// The user is not erased. `generations` is the number of tombstones, all of them lifted.
    Free {
        generations: u32,
    },
    Erased(Erased),
}

/// The last tombstone of an erased user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Erased {
    pub(crate) generation: u32,
    /// The moment at which the user was first erased since a new key was last allowed.
    pub(crate) since: SystemTime,
    /// The moment at which the last erasure began.
    pub(crate) at: SystemTime,
}

/// The progress of a user's erasures.
pub(crate) enum ErasureProgress {
    /// An erasure is in progress, or was cut off. It counts as dead after `remaining`.
    Ongoing { remaining: Duration },
    /// All erasures have ended, the last one at this moment.
    EndedAt(SystemTime),
    /// The last erasure was cut off long ago, and nobody knows when it ended.
    CutOff,
}

impl<T: KeyStore> Register<T> {
    pub(crate) fn new(store: T, visible_for: Duration) -> Self {
        Self { store, visible_for, fence_key: OnceCell::new() }
    }

    pub(crate) fn store(&self) -> &T {
        &self.store
    }

    /// Returns the names of the user's records.
    ///
    /// The first call creates the fence key if there is none, and records how long this stack may
    /// return a key after it was deleted. This happens before anything is read through the stack.
    pub(crate) async fn names(&self, id: &KeyId, operation: Operation) -> Result<RecordNames> {
        let fence_key = self.fence_key.get_or_try_init(|| self.prepare(operation)).await;
        // Even if the preparations have an unknown effect, nothing was done to the user's key.
        Ok(RecordNames::new(fence_key.map_err(|e| e.with_effect(Effect::NotApplied))?, id))
    }

    async fn prepare(&self, operation: Operation) -> Result<SecretKey> {
        let fence_key = self.fence_key(operation).await?;
        if let Some(exponent) = record::age_exponent(self.visible_for).filter(|_| !self.visible_for.is_zero()) {
            let marker = record::age_marker(exponent);
            if self.read(&marker, operation).await?.is_none() {
                self.create(&marker, Stamp::now(), operation).await?;
            }
        }
        Ok(fence_key)
    }

    /// Returns the fence key, and creates it if the store is empty.
    async fn fence_key(&self, operation: Operation) -> Result<SecretKey> {
        let of_this_call = |e: Error| e.with_operation(operation);
        let id = record::fence_key_id();
        if let Some(key) = self.store.find_key(&id).await.map_err(of_this_call)? {
            return Ok(key);
        }
        // If the store contains entries but no fence key, they do not belong to a fence, or they
        // are records that could never be found again under a new fence key.
        let is_empty = match self.store.capabilities().listing {
            Some(_) => self.store.list_keys().next().await.transpose().map_err(of_this_call)?.is_none(),
            None => true,
        };
        if is_empty {
            let new = SecretKey::generate(FENCE_KEY_LEN).expect("it is a valid key length");
            return self.store.get_or_create(&id, &new).await.map_err(of_this_call);
        }
        // Another process may have created the fence key meanwhile.
        match self.store.find_key(&id).await.map_err(of_this_call)? {
            Some(key) => Ok(key),
            None => Err(self.no_fence_key(
                operation,
                "the store of the tombstones contains entries but no fence key: it holds something else, perhaps the \
                 keys themselves, or has lost its fence key; name the right store, or restore the fence key from a \
                 backup",
            )),
        }
    }

    /// Returns the fence key, and fails if there is none because no erasure was ever recorded.
    pub(crate) async fn fence_key_in_use(&self, operation: Operation) -> Result<SecretKey> {
        if let Some(fence_key) = self.fence_key.get() {
            return Ok(fence_key.clone());
        }
        match self.store.find_key(&record::fence_key_id()).await.map_err(|e| e.with_operation(operation))? {
            Some(fence_key) => Ok(fence_key),
            None => Err(self.no_fence_key(
                operation,
                "this store contains no tombstones: name the store in which the erasures were recorded",
            )),
        }
    }

    fn no_fence_key(&self, operation: Operation, why: &'static str) -> Error {
        Error::new(ErrorKind::Config, operation, self.store.info().scheme())
            .with_effect(Effect::NotApplied)
            .with_source(why)
    }

    /// Returns the status of a user. If the user was never erased, this takes a single call to the
    /// store.
    pub(crate) async fn status(&self, names: &RecordNames, operation: Operation) -> Result<Status> {
        match self.read(&names.tombstone(1), operation).await? {
            None => Ok(Status::Free { generations: 0 }),
            Some(first) => self.status_after(names, first, operation).await,
        }
    }

    /// Returns the statuses of many users, in the order of `names`. For the users who were never
    /// erased, a single batch is enough.
    pub(crate) async fn statuses(&self, names: &[RecordNames], operation: Operation) -> Vec<Result<Status>> {
        let firsts: Vec<KeyId> = names.iter().map(|names| names.tombstone(1)).collect();
        let mut statuses = Vec::with_capacity(names.len());
        for (names, first) in names.iter().zip(self.store.get_keys(&firsts).await) {
            statuses.push(match self.parsed(first, operation) {
                Ok(None) => Ok(Status::Free { generations: 0 }),
                Ok(Some(first)) => self.status_after(names, first, operation).await,
                Err(e) => Err(e),
            });
        }
        statuses
    }

    /// Returns the status of a user with this first tombstone.
    async fn status_after(&self, names: &RecordNames, first: Stamp, operation: Operation) -> Result<Status> {
        let (generation, last) = self.last(first, |index| names.tombstone(index), operation).await?;
        Ok(match self.read(&names.lifted(generation), operation).await? {
            Some(_) => Status::Free { generations: generation },
            None => Status::Erased(Erased { generation, since: last.other, at: last.at }),
        })
    }

    /// Returns the last record of a series whose indexes start at 1, and its index. As the indexes
    /// have no gaps, an exponential search followed by a binary search finds it.
    async fn last(&self, first: Stamp, name: impl Fn(u32) -> KeyId, operation: Operation) -> Result<(u32, Stamp)> {
        let mut last = (1, first);
        let mut missing = 2;
        while let Some(found) = self.read(&name(missing), operation).await? {
            last = (missing, found);
            missing = missing.saturating_mul(2);
        }
        while missing - last.0 > 1 {
            let middle = last.0 + (missing - last.0) / 2;
            match self.read(&name(middle), operation).await? {
                Some(found) => last = (middle, found),
                None => missing = middle,
            }
        }
        Ok(last)
    }

    /// Writes the tombstone of an erasure that begins now, as a new generation, and returns the
    /// lease within which the erasure may delete.
    pub(crate) async fn raise(&self, names: &RecordNames, lifetime: Duration) -> Result<(Erased, Lease)> {
        let first = Stamp::now();
        for _ in 0..ROUNDS {
            let (generation, since) = match self.status(names, Operation::Erase).await? {
                Status::Free { generations } => (generations + 1, first.at),
                Status::Erased(erased) => (erased.generation + 1, erased.since),
            };
            // The lease and the stamp begin after the lookup, which may take a long time: others
            // judge by the stamp whether this call is dead.
            let lease = Lease::new(lifetime);
            let stamp = Stamp { other: since, ..Stamp::now() };
            if self.create(&names.tombstone(generation), stamp, Operation::Erase).await? {
                return Ok((Erased { generation, since, at: stamp.at }, lease));
            }
        }
        Err(self.contention(Operation::Erase))
    }

    /// Returns the moment from which the user had been erased, as recorded in the tombstone of this
    /// generation, or `None` if there is no such tombstone.
    pub(crate) async fn erased_since(&self, names: &RecordNames, generation: u32) -> Result<Option<SystemTime>> {
        Ok(self.read(&names.tombstone(generation), Operation::Get).await?.map(|stamp| stamp.other))
    }

    /// Records that the call which wrote the tombstone of this generation has ended.
    pub(crate) async fn record_end(&self, names: &RecordNames, generation: u32) -> Result<()> {
        self.create(&names.ended(generation), Stamp::now(), Operation::Erase).await.map(drop)
    }

    /// Records that a key which had come back has been deleted. A cache may have read it until now.
    pub(crate) async fn record_cleaned(&self, names: &RecordNames, generation: u32) -> Result<()> {
        let name = |index| names.cleaned(generation, index);
        for _ in 0..ROUNDS {
            let index = match self.read(&name(1), Operation::Erase).await? {
                None => 1,
                Some(first) => self.last(first, name, Operation::Erase).await?.0 + 1,
            };
            if self.create(&name(index), Stamp::now(), Operation::Erase).await? {
                return Ok(());
            }
        }
        Err(self.contention(Operation::Erase))
    }

    /// Returns the progress of this user's erasures. One that began longer ago than `lifetime` no
    /// longer deletes anything.
    pub(crate) async fn progress(
        &self,
        names: &RecordNames,
        erased: &Erased,
        lifetime: Duration,
    ) -> Result<ErasureProgress> {
        let operation = Operation::Erase;
        let name = |index| names.cleaned(erased.generation, index);
        let mut ended_at = match self.read(&name(1), operation).await? {
            None => None,
            Some(first) => Some(self.last(first, name, operation).await?.1.at),
        };
        // From the last generation back to one that is too old to be in progress.
        for generation in (1..=erased.generation).rev() {
            if erased.generation - generation >= RECENT_ERASURES {
                return Ok(ErasureProgress::Ongoing { remaining: lifetime });
            }
            let began = self.read(&names.tombstone(generation), operation).await?.map_or(erased.at, |stamp| stamp.at);
            // If another host's clock is ahead, the erasure may seem to begin in the future.
            let remaining = (began + lifetime).duration_since(SystemTime::now()).unwrap_or_default();
            match self.read(&names.ended(generation), operation).await? {
                Some(ended) => ended_at = ended_at.max(Some(ended.at)),
                None if !remaining.is_zero() => return Ok(ErasureProgress::Ongoing { remaining }),
                None => {}
            }
            if remaining.is_zero() {
                break;
            }
        }
        Ok(ended_at.map_or(ErasureProgress::CutOff, ErasureProgress::EndedAt))
    }

    /// Lifts the tombstone of this generation: the user may have a new key, unless there is a later
    /// tombstone.
    pub(crate) async fn lift(&self, names: &RecordNames, generation: u32) -> Result<()> {
        self.create(&names.lifted(generation), Stamp::now(), Operation::Erase).await.map(drop)
    }

    /// Reports whether a new key was allowed after this generation.
    pub(crate) async fn is_lifted(&self, names: &RecordNames, generation: u32) -> Result<bool> {
        Ok(self.read(&names.lifted(generation), Operation::Erase).await?.is_some())
    }

    /// Claims the right to delete the key of an erased user and to lift tombstones. The claim
    /// expires after `lifetime`.
    pub(crate) async fn claim(
        &self,
        names: &RecordNames,
        lifetime: Duration,
        operation: Operation,
    ) -> Result<Claiming> {
        let name = |index| names.claim(index);
        for _ in 0..ROUNDS {
            let mut took_over = false;
            let index = match self.read(&name(1), operation).await? {
                None => 1,
                Some(first) => {
                    let (last, held) = self.last(first, name, operation).await?;
                    if self.read(&names.finished(last), operation).await?.is_none() {
                        let remaining = held.other.duration_since(SystemTime::now()).unwrap_or_default();
                        if !remaining.is_zero() {
                            return Ok(Claiming::Held { remaining });
                        }
                        took_over = true;
                    }
                    last + 1
                }
            };
            // The lease begins before the record is written, so that it ends before another caller
            // can take over.
            let lease = Lease::new(lifetime);
            let now = Stamp::now();
            let stamp = Stamp { other: now.at + lifetime, ..now };
            if self.create(&name(index), stamp, operation).await? {
                return Ok(Claiming::Granted(Claim::new(index, lease, took_over)));
            }
        }
        Err(self.contention(operation))
    }

    /// Finishes the claim, so that another caller can have it at once, unless it must be left to
    /// expire.
    pub(crate) async fn finish(&self, names: &RecordNames, claim: Claim, operation: Operation) -> Result<()> {
        match claim.index_to_finish() {
            Some(index) => self.create(&names.finished(index), Stamp::now(), operation).await.map(drop),
            None => Ok(()),
        }
    }

    /// Returns how long after an erasure any stack with these tombstones may still return the key.
    ///
    /// The stacks record this as powers of two and never remove a record. So the result can be up
    /// to twice the longest time that any stack needs or has ever needed.
    pub(crate) async fn longest_visibility(&self) -> Result<Duration> {
        let markers: Vec<KeyId> = record::age_exponents().map(record::age_marker).collect();
        let mut longest = self.visible_for;
        for (exponent, marker) in record::age_exponents().zip(self.store.get_keys(&markers).await) {
            if self.parsed(marker, Operation::Erase)?.is_some() {
                longest = longest.max(record::age_of(exponent));
            }
        }
        Ok(longest)
    }

    async fn read(&self, name: &KeyId, operation: Operation) -> Result<Option<Stamp>> {
        self.parsed(self.store.get_key(name).await, operation)
    }

    fn parsed(&self, record: Result<SecretKey>, operation: Operation) -> Result<Option<Stamp>> {
        match record {
            Ok(record) => Stamp::read(&record, operation, self.store.info().scheme()).map(Some),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.with_operation(operation)),
        }
    }

    /// Creates a record, and returns false if there already was one with this name.
    async fn create(&self, name: &KeyId, stamp: Stamp, operation: Operation) -> Result<bool> {
        let record = stamp.to_key();
        match self.store.get_or_create(name, &record).await {
            Ok(stored) => Ok(stored == record),
            Err(e) => Err(e.with_operation(operation)),
        }
    }

    fn contention(&self, operation: Operation) -> Error {
        Error::new(ErrorKind::Conflict, operation, self.store.info().scheme())
            .with_retry_after(CONTENTION_PAUSE)
            .with_source("other callers are erasing this user or allowing a new key: try again after retry_after")
    }
}
