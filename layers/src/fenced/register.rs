//! [`Register`]: who is erased, as the store of the tombstones knows it.
//!
//! Records are only ever created, never overwritten and never deleted. So no update is lost, and a process that was
//! paused at any point can do no harm when it goes on: what it still creates is there already, or belongs to a generation
//! that is over.

use std::time::{Duration, Instant, SystemTime};

use keystead_core::{Effect, Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, Result, SecretKey};
use tokio::sync::OnceCell;

use super::record::{self, FENCE_KEY_LEN, RecordNames, Stamp};

/// How often a record is tried that other callers create first.
const ROUNDS: u32 = 100;

/// Erasures of one user that follow each other faster are recorded once, so what counts from the last one counts so much
/// longer.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// How long the holder of a claim has, besides the time that the keys' store needs for its visibility bound. After that
/// another caller may take its place.
const CLAIM_LIFETIME: Duration = Duration::from_secs(60);

/// The tombstones of all users.
#[derive(Debug)]
pub(crate) struct Register<T> {
    store: T,
    /// How long the stack around the keys may show a key after it was deleted.
    visible_for: Duration,
    fence_key: OnceCell<SecretKey>,
}

/// Whether a user is erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// The user is not erased. `generations` says how many tombstones there are, all of them lifted.
    Free {
        generations: u32,
    },
    Erased(Erased),
}

impl Status {
    /// Reports whether the user is erased and this is the generation that counts.
    pub(crate) fn is_generation(self, generation: u32) -> bool {
        matches!(self, Self::Erased(erased) if erased.generation == generation)
    }
}

/// The tombstone that counts: the user's last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Erased {
    pub(crate) generation: u32,
    /// When the user was first erased, of all erasures since a new key was last allowed.
    pub(crate) since: SystemTime,
    /// When the last erasure began.
    pub(crate) at: SystemTime,
}

/// The right to delete what is left of an erased user's key, and to lift the tombstone.
#[derive(Debug)]
pub(crate) struct Claim {
    generation: u32,
    index: u32,
    taken: Instant,
    lifetime: Duration,
}

impl Claim {
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// Reports whether the holder may still begin to delete. After half of the lifetime it must not, so that its last call
    /// has ended when another caller takes over.
    pub(crate) fn is_fresh(&self) -> bool {
        self.taken.elapsed() < self.lifetime / 2
    }
}

/// The outcome of asking for a claim.
pub(crate) enum Claiming {
    Granted(Claim),
    /// Another caller holds it, for at most this long.
    Held {
        remaining: Duration,
    },
}

impl<T: KeyStore> Register<T> {
    pub(crate) fn new(store: T, visible_for: Duration) -> Self {
        Self { store, visible_for, fence_key: OnceCell::new() }
    }

    pub(crate) fn store(&self) -> &T {
        &self.store
    }

    /// The names of the user's records. The first call makes the fence key if there is none, and records how long this stack
    /// may show a key after it was deleted, before anything is read through it.
    pub(crate) async fn names(&self, id: &KeyId, operation: Operation) -> Result<RecordNames> {
        let fence_key = self.fence_key.get_or_try_init(|| self.prepare(operation)).await;
        // Whether the preparations were made or not, nothing was done to the user's key.
        Ok(RecordNames::new(fence_key.map_err(|e| e.with_effect(Effect::NotApplied))?, id))
    }

    async fn prepare(&self, operation: Operation) -> Result<SecretKey> {
        if let Some(exponent) = record::age_exponent(self.visible_for).filter(|_| !self.visible_for.is_zero()) {
            let marker = record::age_marker(exponent);
            if self.read(&marker, operation).await?.is_none() {
                self.create(&marker, Stamp::now(), operation).await?;
            }
        }
        let new_key = || SecretKey::generate(FENCE_KEY_LEN).expect("it is a valid length of a key");
        let id = record::fence_key_id();
        self.store.get_or_create_key_with(&id, new_key).await.map_err(|e| e.with_operation(operation))
    }

    /// Whether the user is erased. One call for a user who never was.
    pub(crate) async fn status(&self, names: &RecordNames, operation: Operation) -> Result<Status> {
        match self.read(&names.tombstone(1), operation).await? {
            None => Ok(Status::Free { generations: 0 }),
            Some(first) => self.status_after(names, first, operation).await,
        }
    }

    /// The status of many users, in their order: one batch for those who were never erased.
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

    /// The status of a user with this first tombstone.
    async fn status_after(&self, names: &RecordNames, first: Stamp, operation: Operation) -> Result<Status> {
        let (generation, last) = self.last(first, |index| names.tombstone(index), operation).await?;
        let Stamp { at, since } = last;
        Ok(match self.read(&names.lifted(generation), operation).await? {
            Some(_) => Status::Free { generations: generation },
            None => Status::Erased(Erased { generation, since, at }),
        })
    }

    /// The last of the records that are numbered from 1, and its index. As the numbers have no gaps, it is found by doubling
    /// and then by halving.
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

    /// Records an erasure that begins now.
    pub(crate) async fn raise(&self, names: &RecordNames) -> Result<Erased> {
        for _ in 0..ROUNDS {
            let now = Stamp::now();
            let (generation, stamp) = match self.status(names, Operation::Erase).await? {
                Status::Free { generations } => (generations + 1, now),
                Status::Erased(erased) => {
                    // A moment in the future is another host's clock, and the wait that counts from it is longer.
                    let is_recent = now.at.duration_since(erased.at).map_or(true, |age| age < TICK);
                    if is_recent {
                        return Ok(erased);
                    }
                    (erased.generation + 1, Stamp { since: erased.since, ..now })
                }
            };
            if self.create(&names.tombstone(generation), stamp, Operation::Erase).await? {
                return Ok(Erased { generation, since: stamp.since, at: stamp.at });
            }
        }
        Err(self.contention(Operation::Erase))
    }

    /// Records that the key is gone by now: until then a cache may have read it.
    pub(crate) async fn record_end(&self, names: &RecordNames, generation: u32) -> Result<()> {
        self.create(&names.erased(generation), Stamp::now(), Operation::Erase).await.map(drop)
    }

    /// When the erasure of this generation had ended; `None` if that was not recorded, because its caller died perhaps.
    pub(crate) async fn ended_at(&self, names: &RecordNames, generation: u32) -> Result<Option<SystemTime>> {
        let end = self.read(&names.erased(generation), Operation::Erase).await?;
        Ok(end.map(|end| end.at))
    }

    /// Ends this generation: the user may have a new key, unless erased again.
    pub(crate) async fn lift(&self, names: &RecordNames, generation: u32) -> Result<()> {
        self.create(&names.lifted(generation), Stamp::now(), Operation::Erase).await.map(drop)
    }

    /// Asks for the right to clean up after this generation.
    pub(crate) async fn claim(&self, names: &RecordNames, generation: u32, operation: Operation) -> Result<Claiming> {
        let lifetime = self.claim_lifetime();
        let name = |index| names.claim(generation, index);
        for _ in 0..ROUNDS {
            let index = match self.read(&name(1), operation).await? {
                None => 1,
                Some(first) => {
                    let (last, held) = self.last(first, name, operation).await?;
                    let age = SystemTime::now().duration_since(held.at).unwrap_or_default();
                    if age < lifetime && self.read(&names.finished(generation, last), operation).await?.is_none() {
                        return Ok(Claiming::Held { remaining: lifetime - age });
                    }
                    last + 1
                }
            };
            // Before the record is written, so that the holder's time ends first.
            let taken = Instant::now();
            if self.create(&name(index), Stamp::now(), operation).await? {
                return Ok(Claiming::Granted(Claim { generation, index, taken, lifetime }));
            }
        }
        Err(self.contention(operation))
    }

    /// Gives the claim back.
    pub(crate) async fn finish(&self, names: &RecordNames, claim: Claim, operation: Operation) -> Result<()> {
        self.create(&names.finished(claim.generation, claim.index), Stamp::now(), operation).await.map(drop)
    }

    /// How long after an erasure some stack with these tombstones may still show the key. Ages are recorded as powers of two
    /// and never removed, so this can be up to twice the longest age in use, or in use earlier.
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

    /// An erasure may wait for the bound three times: see `KeyStore::erase_key`.
    fn claim_lifetime(&self) -> Duration {
        CLAIM_LIFETIME.saturating_add(self.visible_for.saturating_mul(3).min(CLAIM_LIFETIME * 10))
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

    /// Creates a record and returns whether it is ours, rather than one that was there already.
    async fn create(&self, name: &KeyId, stamp: Stamp, operation: Operation) -> Result<bool> {
        let record = stamp.to_key();
        match self.store.get_or_create(name, &record).await {
            Ok(standing) => Ok(standing == record),
            Err(e) => Err(e.with_operation(operation)),
        }
    }

    fn contention(&self, operation: Operation) -> Error {
        Error::new(ErrorKind::Conflict, operation, self.store.info().scheme())
            .with_retry_after(TICK)
            .with_source("other callers erase this user or allow a new key at the same time: try again after the pause")
    }
}
