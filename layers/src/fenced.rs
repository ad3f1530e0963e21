//! [`Fenced`]: a store that refuses erased users.

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

/// The number of times that an erasure starts again because, during the call, a key was written or
/// a new key was allowed.
const ERASE_ROUNDS: u32 = 8;

/// The `retry_after` of the error when all those rounds have failed.
const CONTENTION_PAUSE: Duration = Duration::from_secs(1);

/// A key store that refuses erased users.
///
/// Use it when an erased key must not come back, even if another process still writes it. A
/// deletion alone does not ensure that, because it races with every caller that is about to create
/// the key: a request in flight, a retry, a process that was paused for a minute.
///
/// `Fenced` keeps a *tombstone* for each erased user in a second store. An erasure writes the
/// tombstone first, then deletes the key and verifies that it is gone. [`Stack`](crate::Stack)
/// combines a fence with a cache, limits and retries.
///
/// # What it promises
/// To every caller, in any process, that uses a `Fenced` with the same tombstones:
///
/// - Once [`erase_key`](KeyStore::erase_key) or [`erase`](Self::erase) has returned, no read that
///   begins afterwards returns a key of this user, and every attempt to write one fails with
///   [`Erased`](ErrorKind::Erased), until [`allow_new_key`](Self::allow_new_key) is called.
/// - If a write began before the erasure and ends after it, it fails with `Erased`, and the key
///   that it wrote is deleted. If the writer's process died in between, or if a key was written
///   without the fence, that key remains in the store but is never returned. The next read or write
///   for the user, or the next listing, deletes it.
/// - If an erasure fails half-way, the user is erased from the moment at which the tombstone was
///   written. Erase the user again to finish the erasure.
/// - A plain [`delete_key`](KeyStore::delete_key) writes no tombstone, so the user can get a new
///   key at any time.
///
/// It promises nothing about keys that are written or read without the fence. If the keys are
/// restored from a backup, the erased ones are in the store again until
/// [`reconcile`](Self::reconcile) has erased them. Reads through the fence refuse them meanwhile.
///
/// # The tombstones
/// The store of the tombstones must be [`Strong`](Consistency::Strong) and at least as durable as
/// the keys, all processes must share it, and it must contain nothing else. Keep it for as long as
/// the keys: if it is lost, new keys can be created for erased users. Every process needs the
/// permissions to create and to read entries in it.
///
/// The first process creates a *fence key* there. The names of all other entries are keyed hashes
/// of the ids (HMAC-SHA-256 under the fence key). Whoever can read the store learns no id from it,
/// but can test a guess. Entries are never overwritten or deleted, and each erasure adds two.
/// `src/fenced/FORMAT.md` in this crate describes them.
///
/// # Time limits
/// A call to the store of the keys must end within half a minute plus twice its visibility bound.
/// After that, other callers assume that it is dead, and a delete that it still makes could delete
/// a new key. Put a [`Resilient`](crate::Resilient) with a shorter deadline around a store without
/// such a limit.
///
/// # Where to put it
/// Each read checks the tombstones and then reads the key. Each write checks the tombstones before
/// and after it writes the key. Every such call waits for both stores, so put a
/// [`Resilient`](crate::Resilient) around the tombstones as well. A [`Cached`](crate::Cached)
/// belongs *inside* the fence, around the keys, and never around the tombstones.
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
    /// The store beneath the cache, where the fence looks for keys that have come back. If it is
    /// `None`, the fence looks in `keys`.
    beneath: Option<Arc<dyn KeyStore>>,
    register: Register<T>,
    has_identified: AtomicBool,
}

/// Reports whether this is the id under which a fence stores its fence key among the tombstones.
///
/// A program that copies tombstones needs it. Two stores of tombstones with different fence keys
/// cannot be merged, because the tombstones of one of them could no longer be found.
pub fn is_fence_key(id: &KeyId) -> bool {
    *id == record::fence_key_id()
}

/// A builder of a [`Fenced`]. The setters cannot fail; [`build`](Self::build) checks everything.
#[derive(Clone, Debug)]
#[must_use]
pub struct FencedBuilder<S, T> {
    keys: S,
    beneath: Option<Arc<dyn KeyStore>>,
    tombstones: T,
    accepted: Option<Durability>,
}

impl<S: KeyStore, T: KeyStore> FencedBuilder<S, T> {
    /// Accepts tombstones that are less durable than the keys, down to this durability. If the
    /// tombstones are lost but the keys survive, new keys can be created for erased users.
    ///
    /// Accept [`Durability::Host`] for keys in AWS and tombstones in a file store. The fence then
    /// serves one host, and lasts as long as the host's disk. [`Durability::Process`] is never
    /// accepted for keys that outlive the process.
    pub fn accept_tombstone_durability(mut self, durability: Durability) -> Self {
        self.accepted = Some(durability);
        self
    }

    /// Sets the store beneath the cache, where the fence then looks for keys that have come back.
    pub(crate) fn beneath(mut self, store: Arc<dyn KeyStore>) -> Self {
        self.beneath = Some(store);
        self
    }

    /// Builds the fence. It makes no call to either engine.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) in these cases:
    /// - The store of the tombstones is not [`Consistency::Strong`]. A tombstone that is not
    ///   visible at once would let a key come back.
    /// - The tombstones would be in the same store as the keys.
    /// - The tombstones are less durable than the keys, and that was not accepted.
    /// - The visibility bound of the keys is longer than 68 years.
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
            "the tombstones are in the same store as the keys: give them a store of their own"
        } else if lost_with_the_process {
            "the tombstones would be lost with the process and the keys would not: give them a durable store"
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
    /// Returns a builder of a fence around `keys`, with its tombstones in the store `tombstones`.
    pub fn builder(keys: S, tombstones: T) -> FencedBuilder<S, T> {
        FencedBuilder { keys, beneath: None, tombstones, accepted: None }
    }

    /// Erases a user as [`erase_key`](KeyStore::erase_key) does, and returns a receipt as proof.
    ///
    /// # Errors
    /// The errors of [`KeyStore::erase_key`], from either store, and
    /// [`Conflict`](ErrorKind::Conflict) if other callers keep writing the key or allowing a new
    /// one. If the effect of the error is [`Effect::Unknown`], the user may be erased already;
    /// erase the user again to finish.
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
                let erasure = match self.erase_stored_key(id, &lease).await {
                    Ok(erasure) => erasure,
                    Err(e) => {
                        // No delete of this call can still be applied, so nobody needs to wait for
                        // one.
                        if e.effect() == Effect::NotApplied && !has_unsettled {
                            drop(self.register.record_end(&names, tombstone.generation).await);
                        }
                        return Err(part_done(e));
                    }
                };
                existed |= erasure.existed;
                has_unsettled |= erasure.unsettled;
                // If this tombstone has been lifted, another caller has allowed a new key during
                // this call.
                let is_erased = self.is_still_erased(&names, tombstone.generation).await.map_err(part_done)?;
                // Without this record, the next `allow_new_key` waits until this call counts as
                // dead. That is necessary if a delete of this call may still be applied.
                if !has_unsettled {
                    drop(self.register.record_end(&names, tombstone.generation).await);
                }
                if is_erased {
                    let erasure = Erasure::new(existed, erasure.finality, erasure.verified);
                    return Ok(self.receipt(&names, &tombstone, &erasure));
                }
            }
            // Others may assume by now that this call is dead, so it starts again with a new
            // tombstone.
            raised = self.register.raise(&names, self.claim_lifetime()).await.map_err(part_done)?;
        }
        let why = "other callers keep allowing new keys for this user: stop them, and erase again";
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

    /// Reports whether the user has stayed erased since the tombstone of this generation was
    /// written.
    async fn is_still_erased(&self, names: &RecordNames, generation: u32) -> Result<bool> {
        let is_erased = matches!(self.register.status(names, Operation::Erase).await?, Status::Erased(_));
        Ok(is_erased && !self.register.is_lifted(names, generation).await?)
    }

    /// Asks the store for the unknown part of its identity, once, because receipts contain it. If
    /// that fails, the erasure goes on.
    async fn learn_identity(&self) {
        if !self.keys.info().identity().is_fully_known() && !self.has_identified.swap(true, Ordering::Relaxed) {
            drop(self.keys.identify().await);
        }
    }

    /// Returns the moment at which an erased user was erased, or `None` if the user is not erased.
    ///
    /// If the user was erased several times since a new key was last allowed, it is the moment of
    /// the first of these erasures.
    ///
    /// # Errors
    /// The errors of [`KeyStore::get_key`], from the store of the tombstones.
    pub async fn erased_at(&self, id: &KeyId) -> Result<Option<SystemTime>> {
        let names = self.register.names(id, Operation::Get).await?;
        Ok(match self.register.status(&names, Operation::Get).await? {
            Status::Erased(erased) => Some(erased.since),
            Status::Free { .. } => None,
        })
    }

    /// Returns the user's pseudonym in receipts and in the store of the tombstones: a keyed hash of
    /// the id, in 64 hexadecimal digits.
    ///
    /// A receipt is about this user if it contains the same digits; [`is_about`](Self::is_about)
    /// compares them.
    ///
    /// # Errors
    /// The errors of [`KeyStore::get_key`], from the store of the tombstones.
    pub async fn tombstone_of(&self, id: &KeyId) -> Result<String> {
        Ok(self.register.names(id, Operation::Get).await?.as_str().to_owned())
    }

    /// Erases the key in the store, as long as the lease is fresh. A creator that began before the
    /// tombstone was written may still write a key later. It then deletes that key itself, unless
    /// its process dies.
    async fn erase_stored_key(&self, id: &KeyId, lease: &Lease) -> Result<Erasure> {
        let mut existed = false;
        let mut unsettled = false;
        for _ in 0..ERASE_ROUNDS {
            if !lease.is_fresh() {
                let paused = self.contention("this call was paused for too long to go on: try again");
                return Err(with_unknown_effect_if(unsettled, paused));
            }
            let erasure = self.keys.erase_key(id).await.map_err(|e| with_unknown_effect_if(unsettled, e))?;
            existed |= erasure.existed;
            unsettled |= erasure.unsettled;
            let proven = Erasure::new(existed, erasure.finality, erasure.verified).with_unsettled(unsettled);
            if erasure.verified || self.look_beneath(id).await.is_err() {
                return Ok(proven);
            }
            existed = true;
        }
        let why = "the key can still be read after several deletes: stop whatever writes it, and erase again";
        Err(with_unknown_effect_if(unsettled, self.contention(why)))
    }

    /// Reads the key of an erased user from the store, beneath the cache if there is one.
    async fn look_beneath(&self, id: &KeyId) -> Result<SecretKey> {
        match &self.beneath {
            Some(store) => store.get_key(id).await,
            None => self.keys.get_key(id).await,
        }
    }

    /// Returns the lifetime of a claim (the right to delete a user's key), which depends on the
    /// visibility bound of the keys.
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

    /// Refuses the ids of erased users, and deletes their keys if those have come back. It returns
    /// one outcome for each id, in order.
    async fn refuse_erased(&self, ids: &[KeyId], operation: Operation) -> Vec<Result<()>> {
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

    /// Returns the capabilities of the key store, marked as fenced. Keys are created one by one,
    /// because the tombstone is read before and after each.
    fn capabilities(&self) -> Capabilities {
        self.keys.capabilities().with_fence().without_create_batch_size()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let names = self.register.names(id, Operation::Get).await?;
        // The tombstone is read first. So a read that begins after an erasure has returned finds
        // either the tombstone or a newly allowed key.
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

    /// Leaves out keys that have come back although their users were erased, and deletes them.
    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        let chunks = self.keys.list_keys().chunks(LISTED_AT_ONCE);
        let fenced = chunks.then(async |listed: Vec<Result<KeyId>>| {
            let ids: Vec<KeyId> = listed.iter().filter_map(|id| id.as_ref().ok().cloned()).collect();
            let mut outcomes = self.refuse_erased(&ids, Operation::List).await.into_iter();
            let shown = listed.into_iter().filter_map(|listed| {
                let id = match listed {
                    Ok(id) => id,
                    unreadable => return Some(unreadable),
                };
                match outcomes.next().expect("there is one outcome for each id") {
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
        let checks = self.refuse_erased(&batch.ids, Operation::Get).await;
        let allowed = batch.ids.iter().zip(&checks).filter(|(_, check)| check.is_ok());
        let allowed: Vec<KeyId> = allowed.map(|(id, _)| id.clone()).collect();
        let mut keys = self.keys.get_keys(&allowed).await.into_iter();
        let key = |check: Result<()>| check.and_then(|()| keys.next().expect("there is one outcome for each id"));
        let outcomes: Vec<Result<SecretKey>> = checks.into_iter().map(key).collect();
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

    /// Erases as [`Fenced::erase`] does, without a receipt. It never returns `unsettled: true`,
    /// because no new key is allowed as long as a delete of this call may still be applied.
    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        let receipt = self.erase(id).await?;
        Ok(Erasure::new(receipt.existed, receipt.finality, receipt.verified))
    }
}

/// Marks the error's effect as unknown if a delete of the same call may still be applied.
fn with_unknown_effect_if(unsettled: bool, e: Error) -> Error {
    if unsettled { e.with_effect(Effect::Unknown) } else { e }
}
