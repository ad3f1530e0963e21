//! [`Fenced`]: erasure that lasts.

mod allow;
mod check;
mod claim;
mod cleanup;
mod receipt;
mod reconcile;
mod record;
mod register;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt};
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, Durability, Effect, Erasure, Error, ErrorKind, IdentityMatch,
    KeyId, KeyStore, Operation, PutMode, Result, SecretKey, StoreIdentity, StoreInfo, async_trait, create_each,
};

pub use self::check::{ReceiptCheck, TombstoneMatch};
pub(crate) use self::claim::SETTLING;
use self::claim::{Lease, lifetime_of};
pub use self::receipt::ErasureReceipt;
pub use self::reconcile::{ReconcileFailure, ReconcileReport};
use self::record::RecordNames;
use self::register::{Erased, Register, Status};
use crate::describe::misconfigured;
use crate::distinct::Distinct;

/// The number of ids of a listing that are looked up among the tombstones at once.
const LISTED_AT_ONCE: usize = 100;

/// The number of times that an erasure starts again because a key was written, or a new key
/// allowed, under it.
const ERASE_ROUNDS: u32 = 8;

/// The pause to ask for after that many.
const CONTENTION_PAUSE: Duration = Duration::from_secs(1);

/// A key store that refuses erased users. Use it when an erased key must not come back, even if
/// another process still writes it.
///
/// A deletion races with every caller that is about to create the key: a request under way, a
/// retry, a process that was paused for a minute. `Fenced` keeps a *tombstone* of each erased user
/// in a second store. An erasure writes the tombstone first, then deletes the key and proves its
/// absence. Services compose it with a cache, limits and retries by [`Stack`](crate::Stack).
///
/// # What it promises
/// For every caller that uses a `Fenced` with the same tombstones, in any process:
///
/// - Once [`erase_key`](KeyStore::erase_key) or [`erase`](Self::erase) has returned, no read that
///   begins then yields a key of this user, and every attempt to write one fails with
///   [`Erased`](ErrorKind::Erased), until [`allow_new_key`](Self::allow_new_key).
/// - A creator that began before the erasure and ended after it is told `Erased`, and what it wrote
///   is deleted. If that creator died in between, or a key was written without the fence, the key
///   that remains is never returned. A later read, write or listing of the user deletes it.
/// - If erasing fails half-way, the user counts as erased as soon as the tombstone is written;
///   erasing again finishes it.
/// - A plain [`delete_key`](KeyStore::delete_key) leaves no tombstone: the user may get a new key
///   at any time.
///
/// It cannot promise anything about keys that are written or read without the fence. A restored
/// backup of the keys brings erased keys back until [`reconcile`](Self::reconcile) has erased them
/// again; reads through the fence refuse them meanwhile.
///
/// # The tombstones
/// The second store must be [`Strong`](Consistency::Strong), be shared by all, contain nothing
/// else, and be at least as durable as the keys. It must be kept for as long as the keys: if it is
/// lost, erased users can be created again. Every process needs permission to create and read
/// entries in it. The first process creates a *fence key* there. The names of the entries are keyed
/// hashes of the ids (HMAC-SHA-256 under the fence key): a reader of the store learns no id from
/// it, but can test a guess. Entries are never overwritten or deleted; each erasure adds two.
/// `src/fenced/FORMAT.md` in this crate describes them.
///
/// A call to the store of the keys must end within half a minute, plus twice its visibility bound:
/// after that, other callers take it for dead, and a delete of it may meet a new key. Put a
/// [`Resilient`](crate::Resilient) with a shorter deadline around a store that does not promise
/// that.
///
/// Each read asks both stores, the tombstones first; each write asks for the tombstone before and
/// after. Each call waits for both stores, so put a [`Resilient`](crate::Resilient) around the
/// tombstones as well. A [`Cached`](crate::Cached) belongs *inside* the fence, around the keys,
/// never around the tombstones.
///
/// ```
/// use keystead_core::{ErrorKind, KeyId, KeyStore, KeyStoreExt};
/// use keystead_layers::Fenced;
/// use keystead_memory::MemoryStore;
///
/// # futures_executor::block_on(async {
/// let store = Fenced::builder(MemoryStore::new(), MemoryStore::new()).build()?;
/// let alice = KeyId::new("alice")?;
/// store.get_or_create_key(&alice).await?;
///
/// let receipt = store.erase(&alice).await?;
/// assert!(receipt.existed && receipt.verified);
/// let refused = store.get_or_create_key(&alice).await.unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Erased);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Fenced<S, T> {
    keys: S,
    /// The store beneath the cache, where the fence looks for what is left of a key; without one it
    /// looks in `keys`.
    beneath: Option<Arc<dyn KeyStore>>,
    register: Register<T>,
    has_identified: AtomicBool,
}

/// Reports whether this is the id under which a fence keeps its key among the tombstones. Two
/// stores of tombstones with different fence keys cannot be merged: the tombstones of one could not
/// be found any more.
pub fn is_fence_key(id: &KeyId) -> bool {
    *id == record::fence_key_id()
}

/// A builder of a [`Fenced`].
#[derive(Clone, Debug)]
pub struct FencedBuilder<S, T> {
    keys: S,
    beneath: Option<Arc<dyn KeyStore>>,
    tombstones: T,
    accepted: Option<Durability>,
}

impl<S: KeyStore, T: KeyStore> FencedBuilder<S, T> {
    /// Accepts tombstones that are less durable than the keys, down to this durability. If the
    /// tombstones are lost but the keys survive, erased users can be created again.
    ///
    /// For keys in AWS and tombstones in a file store, accept [`Durability::Host`]: the fence then
    /// serves one host, and lasts as long as its disk. [`Durability::Process`] is never accepted
    /// for keys that outlive the process.
    pub fn accept_tombstone_durability(mut self, durability: Durability) -> Self {
        self.accepted = Some(durability);
        self
    }

    /// Lets the fence look for what is left of a key in the store beneath the cache.
    pub(crate) fn beneath(mut self, store: Arc<dyn KeyStore>) -> Self {
        self.beneath = Some(store);
        self
    }

    /// Builds the fence. Neither store is called yet.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the store of the tombstones is not [`Consistency::Strong`],
    /// since a tombstone that is not visible at once lets a key back in; if it is the keys' own
    /// store; if it is less durable than the keys and that was not accepted; or if the visibility
    /// bound of the keys exceeds 68 years.
    pub fn build(self) -> Result<Fenced<S, T>> {
        let tombstones = self.tombstones.capabilities();
        let keys = self.keys.capabilities();
        let is_same = self.keys.info().identity().compare(self.tombstones.info().identity()) == IdentityMatch::Same;
        let lost_with_the_process =
            tombstones.durability == Durability::Process && keys.durability > Durability::Process;
        let accepted = self.accepted.unwrap_or(keys.durability).min(keys.durability);
        let visible_for = keys.consistency.bound();
        let wrong = if tombstones.consistency != Consistency::Strong {
            "the store of the tombstones is not strongly consistent: use one that is, such as the file store"
        } else if is_same {
            "the tombstones are to be kept in the store of the keys itself: give them a store of their own"
        } else if lost_with_the_process {
            "the tombstones would be lost with the process and the keys would not: give them a store that lasts"
        } else if tombstones.durability < accepted {
            "the tombstones are less durable than the keys, so erased users could come back: use a more durable store, \
             or accept that with accept_tombstone_durability"
        } else if record::age_exponent(visible_for).is_none() {
            "the keys can stay visible for longer than 68 years: set a shorter visibility bound or time to live"
        } else {
            let register = Register::new(self.tombstones, visible_for);
            let has_identified = AtomicBool::new(false);
            return Ok(Fenced { keys: self.keys, beneath: self.beneath, register, has_identified });
        };
        Err(misconfigured(&self.tombstones, wrong))
    }
}

impl<S: KeyStore, T: KeyStore> Fenced<S, T> {
    /// Begins to build a fence around `keys`, with the tombstones in a second store.
    pub fn builder(keys: S, tombstones: T) -> FencedBuilder<S, T> {
        FencedBuilder { keys, beneath: None, tombstones, accepted: None }
    }

    /// Erases a user as [`erase_key`](KeyStore::erase_key) does, and returns a receipt as a proof.
    ///
    /// # Errors
    /// Those of [`KeyStore::erase_key`], from either store, and [`Conflict`](ErrorKind::Conflict)
    /// if others keep writing the key or allow new ones. The user may count as erased already
    /// ([`Effect::Unknown`]): erase again to finish.
    pub async fn erase(&self, id: &KeyId) -> Result<ErasureReceipt> {
        let names = self.register.names(id, Operation::Erase).await?;
        self.learn_identity().await;
        let part_done = |e: Error| e.with_operation(Operation::Erase).with_effect(Effect::Unknown);
        let mut raised = self.register.raise(&names, self.claim_lifetime()).await?;
        let mut existed = false;
        let mut has_unsettled = false;
        for _ in 0..ERASE_ROUNDS {
            let (tombstone, lease) = raised;
            if lease.is_fresh() {
                let erasure = match self.erase_standing_key(id, &lease).await {
                    Ok(erasure) => erasure,
                    Err(e) => {
                        // No delete of this call is under way any more, so nobody need wait for
                        // one.
                        if e.effect() == Effect::NotApplied && !has_unsettled {
                            drop(self.register.record_end(&names, tombstone.generation).await);
                        }
                        return Err(part_done(e));
                    }
                };
                existed |= erasure.existed;
                has_unsettled |= erasure.unsettled;
                // If the user is no longer erased by this tombstone, another caller has allowed a
                // new key during this call.
                let is_erased = self.stands(&names, tombstone.generation).await.map_err(part_done)?;
                // Without this record, the next `allow_new_key` waits until this call is taken for dead:
                // as it must where a delete may still be applied.
                if !has_unsettled {
                    drop(self.register.record_end(&names, tombstone.generation).await);
                }
                if is_erased {
                    let erasure = Erasure::new(existed, erasure.finality, erasure.verified);
                    return Ok(self.receipt(&names, &tombstone, &erasure));
                }
            }
            // A call that was paused for long is taken for dead: it begins again.
            raised = self.register.raise(&names, self.claim_lifetime()).await.map_err(part_done)?;
        }
        let why = "others allow new keys for this user again and again: stop them, and erase again";
        Err(part_done(self.contention(why)))
    }

    fn receipt(&self, names: &RecordNames, erased: &Erased, erasure: &Erasure) -> ErasureReceipt {
        ErasureReceipt {
            store: self.keys.info().identity().clone(),
            tombstone: names.as_str().to_owned(),
            erased_at: erased.since,
            finished_at: SystemTime::now(),
            existed: erasure.existed,
            finality: erasure.finality,
            verified: erasure.verified,
        }
    }

    /// Reports whether the user is erased, and was all the time since this generation.
    async fn stands(&self, names: &RecordNames, generation: u32) -> Result<bool> {
        let is_erased = matches!(self.register.status(names, Operation::Erase).await?, Status::Erased(_));
        Ok(is_erased && !self.register.is_lifted(names, generation).await?)
    }

    /// Asks once for what is not known yet of the store's identity, which a receipt names as far as
    /// it is known. An unknown account does not prevent the erasure.
    async fn learn_identity(&self) {
        if !self.keys.info().identity().is_fully_known() && !self.has_identified.swap(true, Ordering::Relaxed) {
            drop(self.keys.identify().await);
        }
    }

    /// Returns the moment at which the user was first erased since a new key was last allowed;
    /// `None` for a user who is not erased.
    ///
    /// # Errors
    /// Those of [`KeyStore::get_key`] of the store of the tombstones.
    pub async fn erased_at(&self, id: &KeyId) -> Result<Option<SystemTime>> {
        let names = self.register.names(id, Operation::Get).await?;
        Ok(match self.register.status(&names, Operation::Get).await? {
            Status::Erased(erased) => Some(erased.since),
            Status::Free { .. } => None,
        })
    }

    /// Returns the user's pseudonym in receipts and in the store of the tombstones: 64 hexadecimal
    /// digits, a keyed hash of the id. A receipt is about this user if it contains the same digits.
    ///
    /// # Errors
    /// Those of [`KeyStore::get_key`] of the store of the tombstones, where the fence key is.
    pub async fn tombstone_of(&self, id: &KeyId) -> Result<String> {
        Ok(self.register.names(id, Operation::Get).await?.as_str().to_owned())
    }

    /// Erases the key that stands, as long as the lease is fresh. A creator that began before the
    /// tombstone was written may write after that; it deletes its key itself, unless it dies.
    async fn erase_standing_key(&self, id: &KeyId, lease: &Lease) -> Result<Erasure> {
        let mut existed = false;
        let mut unsettled = false;
        for _ in 0..ERASE_ROUNDS {
            if !lease.is_fresh() {
                let paused = self.contention("this call was paused for too long to go on: try again");
                return Err(with_doubt(paused, unsettled));
            }
            let erasure = self.keys.erase_key(id).await.map_err(|e| with_doubt(e, unsettled))?;
            existed |= erasure.existed;
            unsettled |= erasure.unsettled;
            let proven = Erasure::new(existed, erasure.finality, erasure.verified).with_unsettled(unsettled);
            if erasure.verified || self.look_beneath(id).await.is_err() {
                return Ok(proven);
            }
            existed = true;
        }
        let why = "the key can still be read after several deletes: stop what writes it, and erase again";
        Err(with_doubt(self.contention(why), unsettled))
    }

    /// Reads what stands for an erased user, past the cache if that is known.
    async fn look_beneath(&self, id: &KeyId) -> Result<SecretKey> {
        match &self.beneath {
            Some(store) => store.get_key(id).await,
            None => self.keys.get_key(id).await,
        }
    }

    /// The time for which a claim is needed: a delete and the proof of it may wait for the bound of
    /// the store several times.
    fn claim_lifetime(&self) -> Duration {
        let capabilities = match &self.beneath {
            Some(store) => store.capabilities(),
            None => self.keys.capabilities(),
        };
        lifetime_of(capabilities.consistency.bound())
    }

    fn contention(&self, why: &'static str) -> Error {
        Error::new(ErrorKind::Conflict, Operation::Erase, self.keys.info().scheme())
            .with_effect(Effect::NotApplied)
            .with_retry_after(CONTENTION_PAUSE)
            .with_source(why)
    }

    /// Refuses those of these ids, in their order, that are erased, and deletes what has come back
    /// of them.
    async fn erased_among(&self, ids: &[KeyId], operation: Operation) -> Vec<Result<()>> {
        let mut names = Vec::with_capacity(ids.len());
        for id in ids {
            match self.register.names(id, operation).await {
                Ok(one) => names.push(one),
                Err(e) => return vec![Err(e); ids.len()],
            }
        }
        let statuses = self.register.statuses(&names, operation).await;
        let mut outcomes = Vec::with_capacity(ids.len());
        for ((id, names), status) in ids.iter().zip(&names).zip(statuses) {
            outcomes.push(match status {
                Ok(status) => self.refuse_if_erased(status, id, names, operation).await.map(drop),
                Err(e) => Err(e),
            });
        }
        outcomes
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: KeyStore, T: KeyStore> KeyStore for Fenced<S, T> {
    fn info(&self) -> StoreInfo {
        self.keys.info().with_note(format!("fenced by {}", self.register.store().info()))
    }

    /// Returns the capabilities of the key store, marked as fenced. Each key is created by itself,
    /// because its tombstone is looked for before and after.
    fn capabilities(&self) -> Capabilities {
        self.keys.capabilities().with_fence().without_create_batch_size()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let names = self.register.names(id, Operation::Get).await?;
        // The tombstone is read first, so a read that begins after an erasure returned can find
        // only a newly allowed key.
        self.ensure_not_erased(id, &names, Operation::Get).await?;
        self.keys.get_key(id).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let operation = if mode == PutMode::Create { Operation::Create } else { Operation::Put };
        let names = self.register.names(id, operation).await?;
        let begun = self.ensure_not_erased(id, &names, operation).await?;
        let answer = self.keys.put_key_with(id, key, mode).await;
        self.unless_erased_since(answer, id, &names, begun, operation).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.keys.delete_key(id).await
    }

    /// Leaves out keys of erased users that have come back, and deletes them.
    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        let chunks = self.keys.list_keys().chunks(LISTED_AT_ONCE);
        let fenced = chunks.then(async |listed: Vec<Result<KeyId>>| {
            let ids: Vec<KeyId> = listed.iter().filter_map(|id| id.as_ref().ok().cloned()).collect();
            let mut outcomes = self.erased_among(&ids, Operation::List).await.into_iter();
            let shown = listed.into_iter().filter_map(|listed| {
                let id = match listed {
                    Ok(id) => id,
                    unreadable => return Some(unreadable),
                };
                match outcomes.next().expect("one outcome was given for each id") {
                    Ok(()) => Some(Ok(id)),
                    Err(e) if e.kind() == ErrorKind::Erased => None,
                    Err(e) => Some(Err(e)),
                }
            });
            stream::iter(shown.collect::<Vec<_>>())
        });
        fenced.flatten().boxed()
    }

    async fn check(&self) -> Result<()> {
        self.register.store().check().await?;
        self.keys.check().await
    }

    async fn identify(&self) -> Result<StoreIdentity> {
        self.keys.identify().await
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let batch = Distinct::of(ids);
        let fences = self.erased_among(&batch.ids, Operation::Get).await;
        let free = batch.ids.iter().zip(&fences).filter(|(_, fence)| fence.is_ok());
        let free: Vec<KeyId> = free.map(|(id, _)| id.clone()).collect();
        let mut keys = self.keys.get_keys(&free).await.into_iter();
        let key = |fence: Result<()>| fence.and_then(|()| keys.next().expect("one outcome was given for each id"));
        let outcomes: Vec<Result<SecretKey>> = fences.into_iter().map(key).collect();
        batch.spread(&outcomes)
    }

    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        self.keys.delete_keys(ids).await
    }

    async fn create_keys(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        create_each(self, keys).await
    }

    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        let names = self.register.names(id, Operation::Create).await?;
        let begun = self.ensure_not_erased(id, &names, Operation::Create).await?;
        let answer = self.keys.get_or_create(id, candidate).await;
        self.unless_erased_since(answer, id, &names, begun, Operation::Create).await
    }

    /// Erases as [`Fenced::erase`] does, without a receipt. Never says `unsettled`: no new key is
    /// allowed before what is still to come has had its time.
    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        let receipt = self.erase(id).await?;
        Ok(Erasure::new(receipt.existed, receipt.finality, receipt.verified))
    }
}

/// An error after which, if `unsettled`, a delete of the same call may still be applied.
fn with_doubt(e: Error, unsettled: bool) -> Error {
    if unsettled { e.with_effect(Effect::Unknown) } else { e }
}
