//! [`Fenced`]: erasure that stays erased.

mod receipt;
mod tombstone;

use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt};
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, Effect, Erasure, Error, ErrorKind, KeyId, KeyStore, KeyStoreExt,
    Operation, PutMode, Result, SecretKey, StoreIdentity, StoreInfo, async_trait,
};
use tokio::sync::OnceCell;

pub use self::receipt::ErasureReceipt;
use self::tombstone::{FENCE_KEY_LEN, Tombstone, fence_key_id, tombstone_id};
use crate::describe::misconfigured;

/// Of so many ids at once a listing asks whether they were erased.
const LISTED_AT_ONCE: usize = 100;

/// A fence around erased users: for when an erased key must not come back, whoever still tries to write it.
///
/// Deleting a key races with everybody who is about to create it: a request that was under way, a retry, a process that
/// stood still for a minute. `Fenced` keeps a *tombstone* of each erased user in a second store. Erasing writes the
/// tombstone first, then deletes the key and proves its absence.
///
/// # What it promises
/// To all who reach the store through a `Fenced` with the same tombstones, **in whatever process**:
///
/// - Once [`erase_key`](KeyStore::erase_key) or [`erase`](Self::erase) has returned, no read yields a key of this user, and
///   every attempt to write one fails with [`Erased`](ErrorKind::Erased), until [`allow_new_key`](Self::allow_new_key).
/// - A creator that began before the erasure and ended after it is told `Erased`, and what it wrote is deleted. If it died
///   between, or somebody wrote past the fence, what was left behind is never read, and is deleted by the next read, write
///   or listing that meets it.
/// - If erasing fails half-way, the user counts as erased as soon as the tombstone stands; erasing again finishes it.
/// - A plain [`delete_key`](KeyStore::delete_key) leaves no tombstone: the user may get a new key at any time.
///
/// It cannot promise what bypasses it: keys written or read without the fence. [`allow_new_key`](Self::allow_new_key) says
/// what else to mind.
///
/// # The tombstones
/// The second store must be [`Strong`](Consistency::Strong), be shared by all, hold nothing else, and be kept for as long as
/// the keys' own: without it the erased may come back. Everybody must be able to create keys in it, once, as the first use
/// makes a *fence key* there. A tombstone's name is a keyed hash of the id (HMAC-SHA-256 under the fence key) and its content
/// the time of the erasure: who cannot read the second store learns no id from it, who can may test a guess.
///
/// Each read asks both stores, tombstones first; each write asks for the tombstone before and after. A call ends when both have
/// answered: put a [`Resilient`](crate::Resilient) around the tombstones, too. Put a [`Cached`](crate::Cached) *inside* the
/// fence, around the keys' store, never around the tombstones.
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
    tombstones: T,
    fence_key: OnceCell<SecretKey>,
}

/// How a [`Fenced`] is set up.
#[derive(Clone, Debug)]
pub struct FencedBuilder<S, T> {
    keys: S,
    tombstones: T,
}

impl<S: KeyStore, T: KeyStore> FencedBuilder<S, T> {
    /// The fence. Neither store is asked yet.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the store of the tombstones is not [`Consistency::Strong`]: a tombstone that is not
    /// seen at once would let a key back in.
    pub fn build(self) -> Result<Fenced<S, T>> {
        if self.tombstones.capabilities().consistency != Consistency::Strong {
            let why = "the store of the tombstones is not strongly consistent: use one that is, such as the file store";
            return Err(misconfigured(&self.tombstones, why));
        }
        Ok(Fenced { keys: self.keys, tombstones: self.tombstones, fence_key: OnceCell::new() })
    }
}

impl<S: KeyStore, T: KeyStore> Fenced<S, T> {
    /// A fence around `keys`, with the tombstones in a second store.
    pub fn builder(keys: S, tombstones: T) -> FencedBuilder<S, T> {
        FencedBuilder { keys, tombstones }
    }

    /// Erases a user as [`erase_key`](KeyStore::erase_key) does, and gives a receipt for those who must prove it.
    ///
    /// # Errors
    /// Those of [`KeyStore::erase_key`], from either store. The user may count as erased already
    /// ([`Effect::Unknown`]): erase again to finish.
    pub async fn erase(&self, id: &KeyId) -> Result<ErasureReceipt> {
        let grave = self.grave(id, Operation::Erase).await?;
        let tombstone = self.raise(&grave).await?;
        let part_done = |e: Error| e.with_operation(Operation::Erase).with_effect(Effect::Unknown);
        let erasure = self.erase_what_stands(id).await.map_err(part_done)?;
        Ok(ErasureReceipt {
            store: self.keys.info().to_string(),
            tombstone: grave.as_str().to_owned(),
            erased_at: tombstone.raised,
            finished_at: SystemTime::now(),
            existed: erasure.existed,
            finality: erasure.finality,
            verified: erasure.verified,
        })
    }

    /// When the user was erased; `None` if not, or if a new key was allowed since.
    ///
    /// # Errors
    /// Those of [`KeyStore::get_key`] of the store of the tombstones.
    pub async fn erased_at(&self, id: &KeyId) -> Result<Option<SystemTime>> {
        let grave = self.grave(id, Operation::Get).await?;
        Ok(self.tombstone(&grave, Operation::Get).await?.map(|tombstone| tombstone.raised))
    }

    /// What stands for this user in receipts and in the store of the tombstones: 64 hexadecimal digits, a keyed hash of the
    /// id. Whether a receipt speaks of a user is seen by comparing the two.
    ///
    /// # Errors
    /// Those of [`KeyStore::get_key`] of the store of the tombstones, where the fence key is.
    pub async fn tombstone_of(&self, id: &KeyId) -> Result<String> {
        Ok(self.grave(id, Operation::Get).await?.as_str().to_owned())
    }

    /// Lets an erased user have a key again: a new one, as what was left behind of the old one is deleted first. Does
    /// nothing if the user is not erased.
    ///
    /// **Wait before you call it**, or the new key may be lost and the old one be read:
    ///
    /// - until the visibility bound of *every* stack around this store has passed since the last erasure, the time to live of
    ///   the caches in other processes included. Of this stack that is seen to;
    /// - until every call that began before the erasure has ended: the longest deadline of all that use the store. A write that
    ///   was delayed so long counts as the new key; and a read, a listing or a creator that has met an old key, and is about
    ///   to delete it, deletes the new one.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) with a [`retry_after`](Error::retry_after) if the visibility bound of this stack has not
    /// passed since the user was erased. Those of [`KeyStore::erase_key`] and [`KeyStore::delete_key`], from either store: the
    /// user still counts as erased, unless the effect is [`Effect::Unknown`].
    pub async fn allow_new_key(&self, id: &KeyId) -> Result<()> {
        let grave = self.grave(id, Operation::Erase).await?;
        let Some(tombstone) = self.tombstone(&grave, Operation::Erase).await? else { return Ok(()) };
        self.ensure_settled(&tombstone)?;
        self.erase_what_stands(id).await.map_err(|e| e.with_effect(Effect::NotApplied))?;
        match self.tombstones.delete_key(&grave).await {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(of_the_tombstones(e, Operation::Erase)),
            _ => Ok(()),
        }
    }

    /// Erases the key. A creator that began before the tombstone stood may write after that: it deletes its key itself, unless
    /// it dies.
    async fn erase_what_stands(&self, id: &KeyId) -> Result<Erasure> {
        let erasure = self.keys.erase_key(id).await?;
        if erasure.verified || self.keys.get_key(id).await.is_err() {
            return Ok(erasure);
        }
        let again = self.keys.erase_key(id).await?;
        Ok(Erasure::new(true, again.finality, again.verified))
    }

    /// What this stack may show of a key is over. A tombstone's time is a second early at most.
    fn ensure_settled(&self, tombstone: &Tombstone) -> Result<()> {
        let bound = self.keys.capabilities().consistency.bound();
        if bound.is_zero() {
            return Ok(());
        }
        let passed = SystemTime::now().duration_since(tombstone.raised).unwrap_or_default();
        match bound.saturating_add(Duration::from_secs(1)).checked_sub(passed) {
            Some(left) if !left.is_zero() => {
                let why = "the erased key may be visible still: allow a new one after the pause";
                let e = Error::new(ErrorKind::Conflict, Operation::Erase, self.keys.info().scheme());
                Err(e.with_retry_after(left).with_source(why))
            }
            _ => Ok(()),
        }
    }

    /// Where the user's tombstone stands, if one does.
    async fn grave(&self, id: &KeyId, operation: Operation) -> Result<KeyId> {
        let made = || SecretKey::generate(FENCE_KEY_LEN).expect("it is a valid length of a key");
        let id_of_key = fence_key_id();
        let key = self.fence_key.get_or_try_init(|| self.tombstones.get_or_create_key_with(&id_of_key, made));
        // Whether there is a fence key by now or not, nothing was done to the user's.
        let key = key.await.map_err(|e| of_the_tombstones(e, operation).with_effect(Effect::NotApplied))?;
        Ok(tombstone_id(key, id))
    }

    async fn tombstone(&self, grave: &KeyId, operation: Operation) -> Result<Option<Tombstone>> {
        let stone = self.tombstones.find_key(grave).await.map_err(|e| of_the_tombstones(e, operation))?;
        stone.map(|stone| Tombstone::read(&stone, operation, self.tombstones.info().scheme())).transpose()
    }

    /// Raises a tombstone, or finds the one that stands.
    async fn raise(&self, grave: &KeyId) -> Result<Tombstone> {
        let new = Tombstone::new(SystemTime::now()).to_key();
        let standing = self.tombstones.get_or_create(grave, &new).await;
        let standing = standing.map_err(|e| of_the_tombstones(e, Operation::Erase))?;
        Tombstone::read(&standing, Operation::Erase, self.tombstones.info().scheme())
    }

    /// Refuses what is done to an erased user, and deletes what was left behind.
    async fn ensure_not_erased(&self, id: &KeyId, grave: &KeyId, operation: Operation) -> Result<()> {
        if self.tombstone(grave, operation).await?.is_none() {
            return Ok(());
        }
        self.clear_away(id, grave).await;
        Err(self.erased(operation))
    }

    /// The answer to a write of ours, unless an erasure came meanwhile, which may have missed what we wrote.
    async fn unless_erased_since<A>(
        &self,
        answer: Result<A>,
        id: &KeyId,
        grave: &KeyId,
        operation: Operation,
    ) -> Result<A> {
        if answer.as_ref().is_err_and(|e| e.effect() == Effect::NotApplied) {
            return answer;
        }
        match self.tombstone(grave, operation).await {
            Ok(None) => answer,
            Err(e) => answer.and(Err(e.with_effect(Effect::Unknown))),
            Ok(Some(_)) => match self.keys.delete_key(id).await {
                Err(e) if !is_gone(&e) => Err(self.erased(operation).with_effect(Effect::Unknown)),
                _ => Err(self.erased(operation)),
            },
        }
    }

    /// Deletes what stands for an erased user. If that fails, the next call tries again: nobody reads it meanwhile.
    async fn clear_away(&self, id: &KeyId, grave: &KeyId) {
        let left_behind = match self.keys.get_key(id).await {
            Ok(_) => true,
            Err(e) => e.kind() == ErrorKind::Corrupt,
        };
        // Looked at again, as a new key may have been allowed meanwhile.
        if left_behind && matches!(self.tombstone(grave, Operation::Delete).await, Ok(Some(_))) {
            drop(self.keys.delete_key(id).await);
        }
    }

    /// Whether each of these, in their order, is erased; what was left behind of those that are is deleted.
    async fn erased_among(&self, ids: &[KeyId], operation: Operation) -> Vec<Result<()>> {
        let mut graves = Vec::with_capacity(ids.len());
        for id in ids {
            match self.grave(id, operation).await {
                Ok(grave) => graves.push(grave),
                Err(e) => return vec![Err(e); ids.len()],
            }
        }
        let mut verdicts = Vec::with_capacity(ids.len());
        for (stone, (id, grave)) in self.tombstones.get_keys(&graves).await.into_iter().zip(ids.iter().zip(&graves)) {
            verdicts.push(match stone {
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
                Err(e) => Err(of_the_tombstones(e, operation)),
                Ok(stone) => match Tombstone::read(&stone, operation, self.tombstones.info().scheme()) {
                    Err(e) => Err(e),
                    Ok(_) => {
                        self.clear_away(id, grave).await;
                        Err(self.erased(operation))
                    }
                },
            });
        }
        verdicts
    }

    fn erased(&self, operation: Operation) -> Error {
        Error::new(ErrorKind::Erased, operation, self.keys.info().scheme())
            .with_source("this user was erased: allow_new_key lets a new key be made")
    }
}

/// The second store failed: whatever it was asked to do, the caller asked for this.
fn of_the_tombstones(e: Error, operation: Operation) -> Error {
    e.with_operation(operation)
}

fn is_gone(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PendingDeletion)
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: KeyStore, T: KeyStore> KeyStore for Fenced<S, T> {
    fn info(&self) -> StoreInfo {
        self.keys.info().with_note(format!("fenced by {}", self.tombstones.info()))
    }

    /// Those of the store of the keys, and that the erased stay erased.
    fn capabilities(&self) -> Capabilities {
        self.keys.capabilities().with_fence()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let grave = self.grave(id, Operation::Get).await?;
        // In this order: what a read finds that began after an erasure returned is then a key that was allowed anew.
        self.ensure_not_erased(id, &grave, Operation::Get).await?;
        self.keys.get_key(id).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let operation = if mode == PutMode::Create { Operation::Create } else { Operation::Put };
        let grave = self.grave(id, operation).await?;
        self.ensure_not_erased(id, &grave, operation).await?;
        let answer = self.keys.put_key_with(id, key, mode).await;
        self.unless_erased_since(answer, id, &grave, operation).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.keys.delete_key(id).await
    }

    /// Leaves out what was left behind of the erased, and deletes it.
    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        let chunks = self.keys.list_keys().chunks(LISTED_AT_ONCE);
        let fenced = chunks.then(async |listed: Vec<Result<KeyId>>| {
            let ids: Vec<KeyId> = listed.iter().filter_map(|id| id.as_ref().ok().cloned()).collect();
            let mut verdicts = self.erased_among(&ids, Operation::List).await.into_iter();
            let shown = listed.into_iter().filter_map(|listed| {
                let id = match listed {
                    Ok(id) => id,
                    unreadable => return Some(unreadable),
                };
                match verdicts.next().expect("one verdict per id") {
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
        self.tombstones.check().await?;
        self.keys.check().await
    }

    async fn identify(&self) -> Result<StoreIdentity> {
        self.keys.identify().await
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let verdicts = self.erased_among(ids, Operation::Get).await;
        let free: Vec<KeyId> =
            ids.iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_ok()).map(|(id, _)| id.clone()).collect();
        let mut keys = self.keys.get_keys(&free).await.into_iter();
        let key = |verdict: Result<()>| verdict.and_then(|()| keys.next().expect("one outcome per id"));
        verdicts.into_iter().map(key).collect()
    }

    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        self.keys.delete_keys(ids).await
    }

    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        let grave = self.grave(id, Operation::Create).await?;
        self.ensure_not_erased(id, &grave, Operation::Create).await?;
        let answer = self.keys.get_or_create(id, candidate).await;
        self.unless_erased_since(answer, id, &grave, Operation::Create).await
    }

    /// As [`Fenced::erase`], without the receipt.
    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        let receipt = self.erase(id).await?;
        Ok(Erasure::new(receipt.existed, receipt.finality, receipt.verified))
    }
}
