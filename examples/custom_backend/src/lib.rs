//! A complete backend over the smallest possible engine.
//!
//! The engine is a `BTreeMap` from names to values. Like a real engine, for example a database, it
//! knows nothing of ids and keys, and may contain entries of other programs. `tests/conformance.rs`
//! runs the conformance suite over the backend.

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

/// A key-value engine that other programs may share.
pub type Engine = Arc<Mutex<BTreeMap<String, SecretKey>>>;

/// A store of keys in an [`Engine`], each under the name that the template makes of its id.
pub struct TreeStore {
    engine: Engine,
    names: NameTemplate,
}

impl TreeStore {
    /// Creates a store that uses the names of this template, and no other entries of the engine.
    pub fn new(engine: Engine, names: NameTemplate) -> Self {
        Self { engine, names }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, SecretKey>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the id of the first key whose name comes after this one, with that name.
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
            // A mode of a later version must be refused before any effect.
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

    /// Reads one id at a time, so that the engine is not locked while the caller works on one.
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

// Written by hand, because a derived implementation would show the names and so the ids.
impl fmt::Debug for TreeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeStore").field("names", &self.names).finish_non_exhaustive()
    }
}

fn failed(kind: ErrorKind, operation: Operation) -> Error {
    Error::new(kind, operation, SCHEME)
}
