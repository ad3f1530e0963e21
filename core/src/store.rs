//! [`KeyStore`]: the contract of every key store.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;

use crate::{
    Capabilities, Consistency, Deletion, Effect, Erasure, Error, ErrorKind, Finality, KeyId, Operation, PutMode,
    Result, SecretKey, StoreIdentity, StoreInfo, batch,
};

/// The number of times that [`KeyStore::get_or_create`] tries to create the key before it gives up. It tries
/// again if another caller has created the key, but that key is deleted before it can be read.
const CREATE_ATTEMPTS: u32 = 8;

/// The number of times that [`KeyStore::erase_key`] deletes the key before it gives up. It deletes again if a
/// read still sees a key.
const ERASE_ATTEMPTS: u32 = 8;

/// The `retry_after` of the error when all those attempts have failed.
const CONTENTION_PAUSE: Duration = Duration::from_millis(100);

/// A store of secret keys, one for each user.
///
/// The *engine* of a store is what holds the keys: the memory of the process, a file or a cloud
/// service, for example.
///
/// # Promises
/// Every store keeps these, and the conformance suite checks them. The *bound* is the visibility
/// bound of [`Capabilities::consistency`]: zero for [`Consistency::Strong`].
///
/// 1. A read returns a whole key or an error. It never returns a torn, mixed or truncated key, or
///    that of another user.
/// 2. [`PutMode::Create`] never overwrites. Of several racing creators, at most one gets `Ok`. If
///    all the others get [`AlreadyExists`](ErrorKind::AlreadyExists), exactly one gets `Ok`.
/// 3. [`get_or_create`](Self::get_or_create) returns the candidate only after the engine has
///    acknowledged its creation, or after reading the candidate's bytes back. Otherwise it returns
///    the key that it has read. As long as nobody overwrites or deletes the key, all callers get
///    the same one.
/// 4. [`NotFound`](ErrorKind::NotFound) is the engine's own statement of absence, at most one bound
///    old. A call that is denied, throttled or timed out, or a key that is damaged, pending
///    deletion or encrypted under another root, is never reported as "not found".
/// 5. When a delete has returned `Ok` and the bound has passed, no read through any handle returns
///    the key, unless another write overlapped the delete or followed it.
/// 6. A call may send its request to the engine several times; each time is an *attempt*. The
///    answer to the first attempt is reliable. A later answer is ambiguous only if an earlier
///    attempt of the same call had an unknown outcome. The ambiguity is then settled by reading the
///    key back, or reported with [`Effect::Unknown`]. A writer that reads its own bytes back knows
///    that its write was applied; on an eventually consistent store, absence proves nothing.
/// 7. If a future is dropped before it completes, the store holds the old key, the new key or (when
///    creating) no key. No lock stays held, and nothing leaks.
/// 8. **No false success.** A call returns `Ok` only if it knows, when it ends, that what it
///    reports is true.
///    [`erase_key`](Self::erase_key) never returns `Ok` if one of its own reads has seen a key
///    since its last delete. It deletes again until the bound has passed, then fails with
///    [`Conflict`](ErrorKind::Conflict). It returns `existed: false` only after a "not found" that
///    no earlier attempt makes ambiguous, and `verified: true` only after a "not found" from a read
///    that began one bound after the last delete.
/// 9. **Every operation ends**, whatever the engine contains or does: within its deadline, or after
///    an amount of work that is bounded by the size of the store.
///
/// # Errors
/// Every method can fail with an [`ErrorKind`] on which the operator must act
/// ([`PermissionDenied`](ErrorKind::PermissionDenied) to
/// [`QuotaExceeded`](ErrorKind::QuotaExceeded)), with one that time may cure
/// ([`Conflict`](ErrorKind::Conflict) to [`Timeout`](ErrorKind::Timeout)), with
/// [`Corrupt`](ErrorKind::Corrupt) and [`Other`](ErrorKind::Other), and with
/// [`Config`](ErrorKind::Config) if the engine does not match the store's configuration. The
/// documentation of each method lists further kinds. A call that fails with
/// [`Unsupported`](ErrorKind::Unsupported), [`InvalidId`](ErrorKind::InvalidId) or
/// [`InvalidKey`](ErrorKind::InvalidKey) has changed nothing.
#[async_trait]
pub trait KeyStore: fmt::Debug + Send + Sync + 'static {
    /// Returns a human-readable description of the store. It contains no credential and no id.
    fn info(&self) -> StoreInfo;

    /// Returns the guarantees of this store and of the layers around it. A layer adjusts those
    /// that it changes.
    fn capabilities(&self) -> Capabilities;

    /// Reads the key of `id`.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound) if there is no such key.
    /// - [`PendingDeletion`](ErrorKind::PendingDeletion) if the key is scheduled for deletion.
    /// - [`Erased`](ErrorKind::Erased) if the user was erased and a fence guards the store.
    /// - [`Corrupt`](ErrorKind::Corrupt) if the stored bytes are not a valid key.
    async fn get_key(&self, id: &KeyId) -> Result<SecretKey>;

    /// Stores `key` as the key of `id`. `mode` decides what happens if there is a key already.
    ///
    /// [`get_or_create`](Self::get_or_create) creates a key or returns the existing one.
    ///
    /// # Errors
    /// - [`AlreadyExists`](ErrorKind::AlreadyExists) with [`PutMode::Create`] if there is a key.
    /// - [`PendingDeletion`](ErrorKind::PendingDeletion) if a key is scheduled for deletion. Its
    ///   [`retry_after`](Error::retry_after) says when a new one can be created, if that is known.
    /// - [`Erased`](ErrorKind::Erased) if the user was erased and a fence guards the store.
    /// - [`Unsupported`](ErrorKind::Unsupported) for a mode that the store does not know.
    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()>;

    /// Deletes the key of `id`, and returns when its bytes are beyond recovery.
    ///
    /// It does not verify that the key is gone; [`erase_key`](Self::erase_key) does.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound) if there is no such key.
    /// - [`PendingDeletion`](ErrorKind::PendingDeletion) if the key is already scheduled for
    ///   deletion.
    async fn delete_key(&self, id: &KeyId) -> Result<Deletion>;

    /// Lists the ids of all keys, each once, in any order.
    ///
    /// The memory that this takes does not grow with the number of keys. Entries of the engine that
    /// do not belong to the store are left out.
    ///
    /// # Errors
    /// - [`Unsupported`](ErrorKind::Unsupported) as the only item if the store cannot list
    ///   ([`Capabilities::listing`] is `None`).
    /// - [`Corrupt`](ErrorKind::Corrupt) for an entry whose id cannot be read. The listing goes on
    ///   after it.
    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>>;

    /// Checks that the store can be reached and accepts the credentials, by the cheapest call that
    /// proves it. It needs no permission to list.
    ///
    /// # Errors
    /// The errors common to all methods, such as [`Config`](ErrorKind::Config) if the store cannot
    /// work with its configuration.
    async fn check(&self) -> Result<()>;

    /// Returns the identity of the stored data, and asks the engine for what is not known yet.
    ///
    /// It makes as few calls as possible. [`StoreInfo::identity`] returns what is known without a
    /// call, and so does the default implementation of this method.
    ///
    /// # Errors
    /// The errors common to all methods, if the engine cannot be asked. [`info`](Self::info) then
    /// still returns what is known.
    async fn identify(&self) -> Result<StoreIdentity> {
        Ok(self.info().identity().clone())
    }

    /// Reads the keys of many ids, and returns one outcome for each id, in the order of `ids`.
    ///
    /// The failure of one id does not affect the others. An id that occurs several times is read
    /// once, and all its places get the same outcome.
    ///
    /// # Errors
    /// Each outcome can be an error of [`get_key`](Self::get_key).
    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        batch::each(ids, |id| self.get_key(id)).await
    }

    /// Deletes the keys of many ids, and returns one outcome for each id, in the order of `ids`.
    ///
    /// The failure of one id does not affect the others. An id that occurs several times is deleted
    /// once, and all its places get the same outcome.
    ///
    /// # Errors
    /// Each outcome can be an error of [`delete_key`](Self::delete_key).
    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        batch::each(ids, |id| self.delete_key(id)).await
    }

    /// Creates many keys, and returns one outcome for each, in the order of `keys`.
    ///
    /// Use it to fill a store. Like [`PutMode::Create`], it never overwrites a key. The failure of
    /// one key does not affect the others. If an id occurs several times, at most one of its keys
    /// is created.
    ///
    /// # Errors
    /// Each outcome can be an error of [`put_key_with`](Self::put_key_with).
    async fn create_keys(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        batch::create_each(self, keys).await
    }

    /// Stores `candidate` if `id` has no key, and returns the key that `id` then has.
    ///
    /// It tries to create the key before it reads anything, so use it if there is probably no key
    /// yet. Applications mostly call
    /// [`get_or_create_key`](crate::KeyStoreExt::get_or_create_key), which reads first and needs no
    /// candidate.
    ///
    /// # Errors
    /// - [`Conflict`](ErrorKind::Conflict) with a [`retry_after`](Error::retry_after) if another
    ///   caller has created a key that is not visible yet, or if keys are created and deleted again
    ///   and again during the call. The default implementation has no timer, so it does not wait
    ///   for the key to become visible; a store with a timer first waits for the bound to pass.
    /// - Otherwise an error of [`get_key`](Self::get_key) or [`put_key_with`](Self::put_key_with).
    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        for _ in 0..CREATE_ATTEMPTS {
            let refusal = match self.put_key_with(id, candidate, PutMode::Create).await {
                Ok(()) => return Ok(candidate.clone()),
                Err(e) if e.kind() == ErrorKind::AlreadyExists || e.effect() == Effect::Unknown => e,
                Err(e) => return Err(e),
            };
            match self.get_key(id).await {
                Ok(existing) => return Ok(existing),
                Err(_) if refusal.effect() == Effect::Unknown => return Err(refusal),
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                Err(_) => {}
            }
            // The winner's key is not visible yet, or, on a strong store, was deleted meanwhile.
            if let Consistency::Eventual { within } = self.capabilities().consistency {
                return Err(lost_to_an_invisible_winner(self.info().scheme(), within));
            }
        }
        Err(lost_to_an_invisible_winner(self.info().scheme(), CONTENTION_PAUSE))
    }

    /// Deletes the key if there is one, then verifies by a read that it is gone.
    ///
    /// It can be called again at any time: erasing a key that does not exist returns `Ok`, and so
    /// does erasing a key whose deletion is pending (with
    /// [`RecoverableUntil`](Finality::RecoverableUntil) and `verified: false`).
    /// [`delete_key`](Self::delete_key), in contrast, verifies nothing and fails with `NotFound` if
    /// there is no key.
    ///
    /// The default implementation has no timer. On a store that is not [`Consistency::Strong`], it
    /// therefore never returns `verified: true`, and reads only if the delete has found no key.
    ///
    /// # Errors
    /// - [`Conflict`](ErrorKind::Conflict) with a [`retry_after`](Error::retry_after) if reads
    ///   still see a key after several deletes, because another caller keeps writing it or because
    ///   the deletes have not been applied.
    /// - An error of [`delete_key`](Self::delete_key), other than `NotFound` and `PendingDeletion`.
    /// - An error of [`get_key`](Self::get_key), with [`Effect::Unknown`], if the delete leaves it
    ///   uncertain whether the key is gone, and the read that should settle this fails.
    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        let Capabilities { consistency, deletion: grade, .. } = self.capabilities();
        let mut existed = false;
        let mut finality = Finality::of_absence(grade);
        let mut unsettled = false;
        let pending = |e: &Error| Erasure::new(true, Finality::of_pending_deletion(grade, e.retry_after()), false);
        for attempt in 0..ERASE_ATTEMPTS {
            // True if perhaps nothing was deleted: the delete found no key although a read had seen
            // one, or its answer may have come from a lagging replica.
            let mut is_doubtful = false;
            match self.delete_key(id).await {
                // A read could be stale, and without a timer this call cannot wait out the bound.
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
                // What is stored there is not a valid key. It is deleted as well.
                Err(e) if e.kind() == ErrorKind::Corrupt => existed = true,
                Err(e) if is_doubtful => return Err(e.with_operation(Operation::Erase).with_effect(Effect::Unknown)),
                // The key was deleted or was not there, and no read has seen one since.
                Err(_) => return Ok(Erasure::new(existed, finality, false).with_unsettled(unsettled)),
            }
        }
        Err(Error::new(ErrorKind::Conflict, Operation::Erase, self.info().scheme())
            .with_effect(Effect::Unknown)
            .with_retry_after(consistency.bound().max(CONTENTION_PAUSE))
            .with_source("the key can still be read after several deletes: stop whatever writes it, and erase again"))
    }
}

fn lost_to_an_invisible_winner(store: &'static str, retry_after: Duration) -> Error {
    Error::new(ErrorKind::Conflict, Operation::Create, store)
        .with_retry_after(retry_after)
        .with_source("another caller created a key that cannot be read yet: try again after retry_after")
}
