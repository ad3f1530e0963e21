//! [`MemoryStore`]: a lock-striped hash table.

use std::fmt;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::Poll;

use foldhash::fast::RandomState;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Durability, Error, ErrorKind, Finality, KeyId,
    KeyStore, Operation, PutMode, Result, SecretKey, StoreInfo, async_trait,
};

const SCHEME: &str = "memory";

/// A power of two, and many more than the threads that are likely to meet.
const SHARDS: usize = 64;

/// Keys in the process's memory, gone when the last clone of the store is.
///
/// Clones are handles of one store. Keys are wiped when they are overwritten, deleted or dropped with the store, unless
/// a caller still holds them. `Debug` prints the number of keys only.
#[derive(Clone, Default)]
pub struct MemoryStore {
    table: Arc<Table>,
}

impl MemoryStore {
    /// An empty store, which shares nothing with any other.
    pub fn new() -> Self {
        Self::default()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: usize = self.table.shards.iter().map(|shard| shard.read().len()).sum();
        f.debug_struct("MemoryStore").field("keys", &keys).finish()
    }
}

#[async_trait]
impl KeyStore for MemoryStore {
    fn info(&self) -> StoreInfo {
        self.table.info.get_or_init(|| StoreInfo::new(SCHEME, "").with_store_id(random_store_id())).clone()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Durability::Process, Consistency::Strong, DeletionGrade::Immediate, Some(Consistency::Strong))
    }

    /// Written by hand: what `async` makes of it is larger and keeps a state, which costs a read a twentieth more.
    fn get_key<'s, 'i, 'f>(&'s self, id: &'i KeyId) -> BoxFuture<'f, Result<SecretKey>>
    where
        's: 'f,
        'i: 'f,
        Self: 'f,
    {
        Box::pin(poll_fn(move |_| Poll::Ready(self.table.get(id))))
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let create = match mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            _ => return Err(failed(ErrorKind::Unsupported, Operation::Put)),
        };
        let (hash, shard) = self.table.find(id);
        match shard.write().entry(hash, |entry| entry.id == *id, |entry| self.table.hash(&entry.id)) {
            Entry::Occupied(_) if create => return Err(failed(ErrorKind::AlreadyExists, Operation::Create)),
            Entry::Occupied(mut entry) => entry.get_mut().key = key.clone(),
            Entry::Vacant(entry) => {
                entry.insert(KeyEntry { id: id.clone(), key: key.clone() });
            }
        }
        Ok(())
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        let (hash, shard) = self.table.find(id);
        match shard.write().find_entry(hash, |entry| entry.id == *id) {
            Ok(entry) => drop(entry.remove()),
            Err(_) => return Err(failed(ErrorKind::NotFound, Operation::Delete)),
        }
        Ok(Deletion::new(Finality::Immediate))
    }

    /// One shard's ids at a time are copied: a key that stands throughout is listed once, whatever else is written.
    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        let shards = stream::iter(&self.table.shards);
        shards.flat_map(|shard| stream::iter(shard.ids()).map(Ok)).boxed()
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }
}

fn failed(kind: ErrorKind, operation: Operation) -> Error {
    Error::new(kind, operation, SCHEME)
}

/// A random id, in 32 hexadecimal digits: two stores in memory are never the same.
fn random_store_id() -> String {
    let random = SecretKey::generate(16).expect("16 bytes are a valid length of a key");
    random.expose_secret().iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Table {
    /// Made when it is first asked for, because most stores never are.
    info: OnceLock<StoreInfo>,
    // Ids may be chosen by an attacker, so the hash is keyed with the process's own random state.
    hasher: RandomState,
    shards: [Shard; SHARDS],
}

/// On cache lines of its own, so that threads on different shards don't slow each other down.
#[derive(Default)]
#[repr(align(128))]
struct Shard(RwLock<HashTable<KeyEntry>>);

struct KeyEntry {
    id: KeyId,
    key: SecretKey,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            info: OnceLock::new(),
            hasher: RandomState::default(),
            shards: std::array::from_fn(|_| Shard::default()),
        }
    }
}

impl Table {
    fn get(&self, id: &KeyId) -> Result<SecretKey> {
        let (hash, shard) = self.find(id);
        let entries = shard.read();
        let entry = entries.find(hash, |entry| entry.id == *id);
        entry.map(|entry| entry.key.clone()).ok_or_else(|| failed(ErrorKind::NotFound, Operation::Get))
    }

    fn hash(&self, id: &KeyId) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        // Without the end mark of a text: nothing comes after an id.
        hasher.write(id.as_str().as_bytes());
        hasher.finish()
    }

    fn find(&self, id: &KeyId) -> (u64, &Shard) {
        let hash = self.hash(id);
        // The table inside the shard uses the lowest and the highest bits.
        let number = (hash >> 32) as usize % SHARDS;
        (hash, &self.shards[number])
    }
}

impl Shard {
    // A poisoned lock is used on: no code of ours can panic while it holds one half-way through a change.
    fn read(&self) -> RwLockReadGuard<'_, HashTable<KeyEntry>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashTable<KeyEntry>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn ids(&self) -> Vec<KeyId> {
        self.read().iter().map(|entry| entry.id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use futures_executor::block_on;
    use keystead_core::{IdentityMatch, KeyStoreExt};

    use super::*;

    #[test]
    fn debug_prints_the_number_of_keys_only() {
        let store = MemoryStore::new();
        let id = KeyId::new("alice").unwrap();
        block_on(store.put_key(&id, &SecretKey::new(*b"secret").unwrap())).unwrap();
        assert_eq!(format!("{store:?}"), "MemoryStore { keys: 1 }");
    }

    #[test]
    fn two_stores_are_never_the_same() {
        let one = MemoryStore::new();
        let two = MemoryStore::new();
        let compare = |other: &MemoryStore| one.info().identity().compare(other.info().identity());
        assert_eq!(compare(&one.clone()), IdentityMatch::Same);
        assert_eq!(compare(&two), IdentityMatch::Different);
    }

    #[test]
    fn clones_are_handles_of_one_store() {
        let store = MemoryStore::new();
        let id = KeyId::new("alice").unwrap();
        let key = block_on(store.clone().get_or_create_key(&id)).unwrap();
        assert_eq!(block_on(store.get_key(&id)).unwrap(), key);
    }
}
