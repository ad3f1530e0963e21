//! An example of a key store of your own, over a small engine.
//!
//! The engine is a `BTreeMap` from names to values. It stands for a database that knows nothing of ids
//! and keys and also contains entries of other programs. `tests/conformance.rs` runs the conformance
//! suite over the store.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream::{self, StreamExt};
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Durability, Error, ErrorKind, Finality, KeyId,
    KeyStore, NameTemplate, Operation, PutMode, Result, SecretKey, StoreInfo, async_trait,
};

const SCHEME: &str = "tree";

/// A key-value engine that other programs use, too.
pub type Engine = Arc<Mutex<BTreeMap<String, SecretKey>>>;

/// A store of keys in an [`Engine`], each under the name that a template makes of its id.
pub struct TreeStore {
    engine: Engine,
    names: NameTemplate,
}

impl TreeStore {
    /// Creates a store that uses the names of this template in the engine, and no other entries.
    pub fn new(engine: Engine, names: NameTemplate) -> Self {
        Self { engine, names }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, SecretKey>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the id of the first key whose name comes after this one, and its name.
    fn id_after(&self, last: &str) -> Option<(KeyId, String)> {
        let entries = self.entries();
        let mut names = entries.range::<str, _>((Bound::Excluded(last), Bound::Unbounded)).map(|(name, _)| name);
        names.find_map(|name| Some((self.names.id(name)?, name.clone())))
    }
}

#[async_trait]
impl KeyStore for TreeStore {
    fn info(&self) -> StoreInfo {
        StoreInfo::new(SCHEME, self.names.prefix())
    }

    fn capabilities(&self) -> Capabilities {
        let strong = Consistency::Strong;
        Capabilities::new(Durability::Process, strong, DeletionGrade::Immediate, Some(strong))
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let key = self.entries().get(&self.names.name(id)).cloned();
        key.ok_or_else(|| failed(ErrorKind::NotFound, Operation::Get))
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let name = self.names.name(id);
        let mut entries = self.entries();
        match mode {
            PutMode::Overwrite => {}
            PutMode::Create if !entries.contains_key(&name) => {}
            PutMode::Create => return Err(failed(ErrorKind::AlreadyExists, Operation::Create)),
            // Refuses a mode of a later version before any effect.
            _ => return Err(failed(ErrorKind::Unsupported, Operation::Put)),
        }
        entries.insert(name, key.clone());
        Ok(())
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        let deleted = self.entries().remove(&self.names.name(id));
        deleted.ok_or_else(|| failed(ErrorKind::NotFound, Operation::Delete))?;
        Ok(Deletion::new(Finality::Immediate))
    }

    /// Reads one id at a time, so that the lock is not held between two items.
    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        let next = move |last: String| async move {
            let (id, name) = self.id_after(&last)?;
            Some((Ok(id), name))
        };
        stream::unfold(String::new(), next).boxed()
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// Shows no entries, because their names contain the ids.
impl fmt::Debug for TreeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeStore").field("names", &self.names).finish_non_exhaustive()
    }
}

fn failed(kind: ErrorKind, operation: Operation) -> Error {
    Error::new(kind, operation, SCHEME)
}
