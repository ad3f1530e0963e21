//! [`KeyStore`]: the contract.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;

use crate::{
    Capabilities, Consistency, Deletion, Effect, Erasure, Error, ErrorKind, Finality, KeyId, Operation, PutMode,
    Result, SecretKey, StoreIdentity, StoreInfo, batch,
};

/// The number of times [`KeyStore::get_or_create`] tries after losing to a creator whose key was
/// deleted at once.
const CREATE_ATTEMPTS: u32 = 8;

/// The number of times [`KeyStore::erase_key`] deletes while reads see a key after the delete.
const ERASE_ATTEMPTS: u32 = 8;

/// The pause to ask for after losing that often.
const CONTENTION_PAUSE: Duration = Duration::from_millis(100);

/// A place that keeps one secret key per user.
///
/// # Promises
/// Every store keeps these, and the conformance suite checks them. The *bound* is the visibility
/// bound of [`Capabilities::consistency`]: zero for [`Consistency::Strong`].
///
/// 1. A value is whole or an error: never torn, mixed, truncated, or somebody else's.
/// 2. [`PutMode::Create`] never overwrites. Of racing creators at most one gets `Ok`, and exactly
///    one if all others got [`AlreadyExists`](ErrorKind::AlreadyExists).
/// 3. [`get_or_create`](Self::get_or_create) gives back the candidate only after the store's `Ok`
///    to its creation, or after reading its bytes back; else the key that it read. As long as
///    nobody overwrites or deletes the id, all callers hold the same key.
/// 4. [`NotFound`](ErrorKind::NotFound) is the engine's own word for absence, and at most one bound
///    old. Denied, throttled, damaged, pending deletion, wrong key and timeout are never "not
///    found".
/// 5. After `Ok` of a delete and the bound, as long as no other write overlapped it or came later,
///    no get of any handle yields the key.
/// 6. A first answer is the truth. Only an answer that follows, within one call, an attempt of
///    unknown outcome is ambiguous; it is settled by reading back, or reported with
///    [`Effect::Unknown`]. Reading our own bytes back proves that a write was applied; absence
///    proves nothing on an eventually consistent store.
/// 7. Dropping a future half-way leaves the old value, the new value or (create) none; no lock and
///    no leak.
/// 8. **No false success.** A call returns `Ok` only for what it knows at its end.
///    [`erase_key`](Self::erase_key) never returns `Ok` after a read of its own has seen a key
///    since its last delete: it deletes again until the bound is over, then fails with
///    [`Conflict`](ErrorKind::Conflict). `existed: false` needs a "not found" that no earlier
///    attempt makes ambiguous, and `verified: true` a read that began one bound after the last
///    delete and said "not found".
/// 9. **Every operation ends**: within its deadline, or with progress that the size of the store
///    bounds, whatever the engine contains or does.
///
/// # Errors
/// Every method may fail with the kinds of the last three groups of [`ErrorKind`] (the operator's,
/// time's and nobody's), and with [`Config`](ErrorKind::Config) if the engine is not what the store
/// was set up for; each method names the others it gives. An
/// [`Unsupported`](ErrorKind::Unsupported), [`InvalidId`](ErrorKind::InvalidId) or
/// [`InvalidKey`](ErrorKind::InvalidKey) comes before any effect.
#[async_trait]
pub trait KeyStore: fmt::Debug + Send + Sync + 'static {
    /// Scheme and redacted location, for people. Never a credential, never an id.
    fn info(&self) -> StoreInfo;

    /// Returns the guarantees of this stack of store and layers. A layer adjusts those that it
    /// changes.
    fn capabilities(&self) -> Capabilities;

    /// Reads the key of `id`.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is none;
    /// [`PendingDeletion`](ErrorKind::PendingDeletion) if it is scheduled for deletion;
    /// [`Erased`](ErrorKind::Erased) if a fence keeps the id from coming back;
    /// [`Corrupt`](ErrorKind::Corrupt) if what is stored is not a key of ours.
    async fn get_key(&self, id: &KeyId) -> Result<SecretKey>;

    /// Stores `key` for `id`.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) with [`PutMode::Create`] if there is a key;
    /// [`PendingDeletion`](ErrorKind::PendingDeletion) if one is scheduled for deletion (with
    /// [`retry_after`](Error::retry_after) when it can be created again);
    /// [`Erased`](ErrorKind::Erased) if a fence keeps the id from coming back;
    /// [`Unsupported`](ErrorKind::Unsupported) for a mode that the store does not know.
    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()>;

    /// Deletes the key of `id` and says how final that is.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is none;
    /// [`PendingDeletion`](ErrorKind::PendingDeletion) if it is scheduled for deletion already.
    async fn delete_key(&self, id: &KeyId) -> Result<Deletion>;

    /// The ids of all keys, in any order, each once, in bounded memory. Entries that are not ours
    /// are left out.
    ///
    /// # Errors
    /// The stream yields [`Unsupported`](ErrorKind::Unsupported) once and ends if the store cannot
    /// list ([`Capabilities::listing`] is `None`), and [`Corrupt`](ErrorKind::Corrupt) for an entry
    /// whose id cannot be read, after which it goes on.
    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>>;

    /// The cheapest call that proves credentials and reachability; needs no right to list.
    ///
    /// # Errors
    /// Those common to all methods, and [`Config`](ErrorKind::Config) if what the store was built
    /// with keeps it from working.
    async fn check(&self) -> Result<()>;

    /// Returns what identifies the stored data, after learning what is not known yet with as few
    /// calls as possible.
    ///
    /// [`StoreInfo::identity`] returns what is known without a call. The default has nothing to
    /// learn.
    ///
    /// # Errors
    /// What keeps the store from learning the rest: those common to all methods. What is known is
    /// still in [`info`](Self::info).
    async fn identify(&self) -> Result<StoreIdentity> {
        Ok(self.info().identity().clone())
    }

    /// Reads many keys: one outcome per id, in the ids' order. One bad id never spoils its
    /// neighbors; a repeated id is sent once and shares one outcome.
    ///
    /// # Errors
    /// Each outcome is one of [`get_key`](Self::get_key).
    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        batch::each(ids, |id| self.get_key(id)).await
    }

    /// Deletes many keys: one outcome per id, in the ids' order. One bad id never spoils its
    /// neighbors; a repeated id is sent once and shares one outcome.
    ///
    /// # Errors
    /// Each outcome is one of [`delete_key`](Self::delete_key).
    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        batch::each(ids, |id| self.delete_key(id)).await
    }

    /// Creates many keys: one outcome per key, in the keys' order. One bad id never spoils its
    /// neighbors; of several keys for one id at most one is created.
    ///
    /// Use it to fill a store. It never overwrites, as [`PutMode::Create`].
    ///
    /// # Errors
    /// Each outcome is one of [`put_key_with`](Self::put_key_with).
    async fn create_keys(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        batch::create_each(self, keys).await
    }

    /// Stores the candidate, or gives back the key that stands: what
    /// [`get_or_create_key`](crate::KeyStoreExt::get_or_create_key) ends in.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) with a [`retry_after`](Error::retry_after) if another
    /// creator won and its key is not visible yet (the default knows no clock; stores with a timer
    /// wait for the bound first), or if keys were created and deleted under the call over and over;
    /// else one of [`get_key`](Self::get_key) or [`put_key_with`](Self::put_key_with).
    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        for _ in 0..CREATE_ATTEMPTS {
            let refusal = match self.put_key_with(id, candidate, PutMode::Create).await {
                Ok(()) => return Ok(candidate.clone()),
                Err(e) if e.kind() == ErrorKind::AlreadyExists || e.effect() == Effect::Unknown => e,
                Err(e) => return Err(e),
            };
            match self.get_key(id).await {
                Ok(standing) => return Ok(standing),
                Err(_) if refusal.effect() == Effect::Unknown => return Err(refusal),
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                Err(_) => {}
            }
            // The winner's key is not there: not visible yet, or, on a strong store, deleted
            // meanwhile.
            if let Consistency::Eventual { within } = self.capabilities().consistency {
                return Err(lost_to_an_invisible_winner(self.info().scheme(), within));
            }
        }
        Err(lost_to_an_invisible_winner(self.info().scheme(), CONTENTION_PAUSE))
    }

    /// Deletes the key if there is one, then proves the absence. Erasing a key that is not there is
    /// `Ok`, and so is erasing one whose deletion is pending (`RecoverableUntil`, not verified).
    ///
    /// [`delete_key`](Self::delete_key) reads nothing back and says `NotFound` where there is no
    /// key. The default has no clock, so on a store that is not [`Consistency::Strong`] it reads
    /// only where the delete has found nothing, and never says `verified`.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) with a [`retry_after`](Error::retry_after) if reads still
    /// see a key after the last of several deletes: because another caller keeps writing it, or
    /// because the deletes have not been applied. Else one of [`delete_key`](Self::delete_key),
    /// except for the two that say that the key is already gone, or of [`get_key`](Self::get_key)
    /// with [`Effect::Unknown`] if the proof cannot be read.
    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        let Capabilities { consistency, deletion: grade, .. } = self.capabilities();
        let mut existed = false;
        let mut finality = Finality::of_absence(grade);
        let mut unsettled = false;
        let pending = |e: &Error| Erasure::new(true, Finality::of_pending_deletion(grade, e.retry_after()), false);
        for attempt in 0..ERASE_ATTEMPTS {
            // A delete that does not find a key which a read has seen, or that a lagging replica
            // may have answered: perhaps nothing was deleted.
            let mut is_doubtful = false;
            match self.delete_key(id).await {
                // Only a clock could tell a read that still sees the key from a stale one.
                Ok(deletion) if consistency != Consistency::Strong => {
                    return Ok(Erasure::new(true, deletion.finality, false).with_unsettled(deletion.unsettled));
                }
                Ok(deletion) => {
                    existed = true;
                    finality = deletion.finality;
                    unsettled |= deletion.unsettled;
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    is_doubtful = existed || consistency != Consistency::Strong;
                }
                Err(e) if e.kind() == ErrorKind::PendingDeletion => return Ok(pending(&e)),
                Err(e) if attempt == 0 => return Err(e.with_operation(Operation::Erase)),
                // An earlier delete of this call may have been applied.
                Err(e) => return Err(e.with_operation(Operation::Erase).with_effect(Effect::Unknown)),
            }
            match self.get_key(id).await {
                Ok(_) => existed = true,
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    let is_verified = consistency == Consistency::Strong;
                    return Ok(Erasure::new(existed, finality, is_verified).with_unsettled(unsettled));
                }
                Err(e) if e.kind() == ErrorKind::PendingDeletion => return Ok(pending(&e)),
                // Something is there that is not a key of ours: it is deleted as well.
                Err(e) if e.kind() == ErrorKind::Corrupt => existed = true,
                Err(e) if is_doubtful => return Err(e.with_operation(Operation::Erase).with_effect(Effect::Unknown)),
                // It was deleted or not there, and no key was seen since.
                Err(_) => return Ok(Erasure::new(existed, finality, false).with_unsettled(unsettled)),
            }
        }
        Err(Error::new(ErrorKind::Conflict, Operation::Erase, self.info().scheme())
            .with_effect(Effect::Unknown)
            .with_retry_after(consistency.bound().max(CONTENTION_PAUSE))
            .with_source("the key can still be read after several deletes: stop what writes it, and erase again"))
    }
}

fn lost_to_an_invisible_winner(store: &'static str, retry_after: Duration) -> Error {
    Error::new(ErrorKind::Conflict, Operation::Create, store)
        .with_retry_after(retry_after)
        .with_source("another caller created a key that cannot be read yet: try again after the pause")
}
