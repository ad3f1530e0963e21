//! [`MemoryStore`]: a key store in a hash table with several locks.

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

/// The number of separately locked parts of the table. It is much larger than the number of threads
/// that are likely to use the store at once, so that they rarely wait for each other.
const SHARDS: usize = 64;

/// A key store in the memory of the process, for unit tests and for keys that may be lost.
///
/// Clones are handles of one store. When the last clone is dropped, all keys are gone. A key is
/// wiped when it is overwritten, when it is deleted and when the store is dropped, unless a caller
/// still holds it. `Debug` shows the number of keys only.
#[derive(Clone, Default)]
pub struct MemoryStore {
    table: Arc<Table>,
}

impl MemoryStore {
    /// Creates an empty store.
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

    // Written without `async`, whose future is larger and keeps a state: that makes a read 5 %
    // slower.
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

    /// Copies the ids of one shard at a time. A key that exists during the whole listing is listed
    /// once, whatever is written meanwhile.
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

/// Returns a random id of 32 hexadecimal digits, which tells stores in memory apart.
fn random_store_id() -> String {
    let random = SecretKey::generate(16).expect("16 bytes are a valid length of a key");
    random.expose_secret().iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Table {
    /// Created by the first call to `info`, because most stores never get one.
    info: OnceLock<StoreInfo>,
    // Randomly keyed, because an attacker may choose the ids.
    hasher: RandomState,
    shards: [Shard; SHARDS],
}

/// One part of the table with its lock. The alignment gives it cache lines of its own, so that
/// threads on different shards do not slow each other down.
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
        // Unlike `Hash` for `str`, this adds no terminator: nothing else is hashed after the id.
        hasher.write(id.as_str().as_bytes());
        hasher.finish()
    }

    fn find(&self, id: &KeyId) -> (u64, &Shard) {
        let hash = self.hash(id);
        // Middle bits, because the table inside the shard uses the lowest and the highest ones.
        let index = (hash >> 32) as usize % SHARDS;
        (hash, &self.shards[index])
    }
}

impl Shard {
    // Poisoning is ignored: no code that holds the lock can panic in the middle of a change.
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
