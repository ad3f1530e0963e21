//! A key store of a user's own: what a backend needs, over the smallest engine there is.
//!
//! The engine is a `BTreeMap` from names to values, as a real one would be a database of somebody
//! else's: it knows nothing of ids and keys, and has room for entries that are none of ours.
//! `tests/conformance.rs` runs the suite over it.

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

/// Somebody else's key-value engine.
pub type Engine = Arc<Mutex<BTreeMap<String, SecretKey>>>;

/// Keys in an [`Engine`], each under a name that the template makes of its id.
pub struct TreeStore {
    engine: Engine,
    names: NameTemplate,
}

impl TreeStore {
    /// Uses the names of this template in the engine; what else is in it is left alone.
    pub fn new(engine: Engine, names: NameTemplate) -> Self {
        Self { engine, names }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, SecretKey>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of the first key whose name comes after this one, and that name.
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
        let (name, mut entries) = (self.names.name(id), self.entries());
        match mode {
            PutMode::Overwrite => {}
            PutMode::Create if !entries.contains_key(&name) => {}
            PutMode::Create => return Err(failed(ErrorKind::AlreadyExists, Operation::Create)),
            // A mode of a later version: refused before any effect.
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

    /// One id at a time, so that nothing is locked while the caller thinks.
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

/// Written by hand: a derived one would show the names, and so the ids.
impl fmt::Debug for TreeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeStore").field("names", &self.names).finish_non_exhaustive()
    }
}

fn failed(kind: ErrorKind, operation: Operation) -> Error {
    Error::new(kind, operation, SCHEME)
}
