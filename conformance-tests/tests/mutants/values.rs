//! Mutants that get keys and ids wrong.

use std::time::Duration;

use futures_util::future::BoxFuture;
use keystead_conformance::async_trait;
use keystead_core::{
    BoxStream, Capabilities, Deletion, Error, ErrorKind, KeyId, KeyStore, Operation, PutMode, Result, SecretKey,
    StoreInfo,
};
use keystead_memory::MemoryStore;

use crate::over_memory::{OverMemory, keep, over_memory};

/// A store that changes each key on its way in.
macro_rules! changes_keys {
    ($name:ident, |$bytes:ident| $changed:expr) => {
        over_memory!($name);

        #[async_trait]
        impl KeyStore for $name {
            keep!(info, capabilities, get_key, delete_key, list_keys, check);

            async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
                let $bytes = key.expose_secret();
                let changed: &[u8] = $changed;
                let key = SecretKey::new(changed).unwrap_or_else(|_| key.clone());
                self.memory.put_key_with(id, &key, mode).await
            }
        }
    };
}

changes_keys!(TrailingNewlineTrimmed, |bytes| bytes.strip_suffix(b"\n").unwrap_or(bytes));
changes_keys!(WhitespaceTrimmed, |bytes| bytes.trim_ascii());
changes_keys!(CutAtAZeroByte, |bytes| bytes.split(|byte| *byte == 0).next().unwrap_or(bytes));
changes_keys!(TrailingZerosDropped, |bytes| bytes.strip_suffix(&[0]).unwrap_or(bytes));
changes_keys!(CutAt2048Bytes, |bytes| &bytes[..bytes.len().min(2048)]);
changes_keys!(ReadAsUtf8, |bytes| String::from_utf8_lossy(bytes).into_owned().leak().as_bytes());
changes_keys!(TemplatesExpanded, |bytes| if bytes.starts_with(b"{{ssm:") { b"expanded" } else { bytes });

/// A store that changes each id.
macro_rules! changes_ids {
    ($name:ident, |$id:ident| $changed:expr) => {
        over_memory!($name);

        impl $name {
            fn changed($id: &KeyId) -> KeyId {
                let $id = $id.as_str();
                KeyId::new($changed).unwrap_or_else(|_| KeyId::new("x").expect("x is an id"))
            }
        }

        #[async_trait]
        impl KeyStore for $name {
            keep!(info, capabilities, list_keys, check);

            async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
                self.memory.get_key(&Self::changed(id)).await
            }

            async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
                self.memory.put_key_with(&Self::changed(id), key, mode).await
            }

            async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
                self.memory.delete_key(&Self::changed(id)).await
            }
        }
    };
}

changes_ids!(IdsCaseFolded, |id| id.to_lowercase());
changes_ids!(IdsTrimmed, |id| id.trim());
changes_ids!(IdsComposed, |id| id.replace("e\u{301}", "\u{e9}"));
changes_ids!(IdsPercentDecoded, |id| id.replace("%2e", "."));
changes_ids!(IdsAsPaths, |id| id.replace("/./", "/").replace("//", "/"));
changes_ids!(IdsCutAt127Bytes, |id| id
    .char_indices()
    .take_while(|(at, _)| *at < 127)
    .map(|(_, c)| c)
    .collect::<String>());
changes_ids!(SelectorsSplitOff, |id| id.split_once(':').map_or(id, |(name, _)| name));

over_memory!(LongTailLeftBehind);

#[async_trait]
impl KeyStore for LongTailLeftBehind {
    keep!(info, capabilities, get_key, delete_key, list_keys, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let mut bytes = key.expose_secret().to_vec();
        if let (Ok(old), PutMode::Overwrite) = (self.memory.get_key(id).await, mode) {
            bytes.extend(old.expose_secret().iter().skip(bytes.len()));
        }
        let key = SecretKey::new(bytes).expect("no longer than the longer one");
        self.memory.put_key_with(id, &key, mode).await
    }
}

over_memory!(FirstPutWins);

#[async_trait]
impl KeyStore for FirstPutWins {
    keep!(info, capabilities, get_key, delete_key, list_keys, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        match self.memory.put_key_with(id, key, PutMode::Create).await {
            Err(_) if mode == PutMode::Overwrite => Ok(()),
            answer => answer,
        }
    }
}

over_memory!(CreateOverwrites);

#[async_trait]
impl KeyStore for CreateOverwrites {
    keep!(info, capabilities, get_key, delete_key, list_keys, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, _: PutMode) -> Result<()> {
        self.memory.put_key_with(id, key, PutMode::Overwrite).await
    }
}

over_memory!(CreateSaysExistsAndOverwrites);

#[async_trait]
impl KeyStore for CreateSaysExistsAndOverwrites {
    keep!(info, capabilities, get_key, delete_key, list_keys, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let answer = self.memory.put_key_with(id, key, mode).await;
        self.memory.put_key_with(id, key, PutMode::Overwrite).await?;
        answer
    }
}

over_memory!(MissingIsDenied);

#[async_trait]
impl KeyStore for MissingIsDenied {
    keep!(info, capabilities, put_key_with, delete_key, list_keys, check);

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let denied = |_| Error::new(ErrorKind::PermissionDenied, Operation::Get, "memory");
        self.memory.get_key(id).await.map_err(denied)
    }
}

over_memory!(MissingIsRetryable);

#[async_trait]
impl KeyStore for MissingIsRetryable {
    keep!(info, capabilities, put_key_with, delete_key, list_keys, check);

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.memory.get_key(id).await.map_err(|e| e.with_retry_after(Duration::from_secs(1)))
    }
}

over_memory!(BatchOutOfOrder);

#[async_trait]
impl KeyStore for BatchOutOfOrder {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let mut sorted = ids.to_vec();
        sorted.sort();
        self.memory.get_keys(&sorted).await
    }
}

over_memory!(BatchDropsRepeatedIds);

#[async_trait]
impl KeyStore for BatchDropsRepeatedIds {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let mut once = ids.to_vec();
        once.dedup();
        self.memory.get_keys(&once).await
    }
}

over_memory!(BatchStopsAtTheFirstMissing);

#[async_trait]
impl KeyStore for BatchStopsAtTheFirstMissing {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);

    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        let mut outcomes: Vec<Result<Deletion>> = Vec::new();
        for id in ids {
            outcomes.push(match outcomes.iter().find_map(|outcome| outcome.as_ref().err()) {
                Some(e) => Err(e.clone()),
                None => self.memory.delete_key(id).await,
            });
        }
        outcomes
    }
}

over_memory!(CreatesManyOverExisting);

#[async_trait]
impl KeyStore for CreatesManyOverExisting {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);

    async fn create_keys(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        let mut outcomes = Vec::new();
        for (id, key) in keys {
            outcomes.push(self.memory.put_key_with(id, key, PutMode::Overwrite).await);
        }
        outcomes
    }
}

over_memory!(CreatesManyInSortedOrder);

/// Sorts the keys, and forgets that their outcomes are to be in the caller's order.
#[async_trait]
impl KeyStore for CreatesManyInSortedOrder {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);

    async fn create_keys(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        let mut keys = keys.to_vec();
        keys.sort_by(|one, other| one.0.cmp(&other.0));
        self.memory.create_keys(&keys).await
    }
}

over_memory!(CreatesManyAllOrNone);

/// Puts all in one transaction, which one key that exists rolls back.
#[async_trait]
impl KeyStore for CreatesManyAllOrNone {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);

    async fn create_keys(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        for (id, _) in keys {
            if self.memory.get_key(id).await.is_ok() {
                let e = Error::new(ErrorKind::AlreadyExists, Operation::Create, self.info().scheme());
                return vec![Err(e); keys.len()];
            }
        }
        self.memory.create_keys(keys).await
    }
}

over_memory!(LoserGetsItsCandidate);

#[async_trait]
impl KeyStore for LoserGetsItsCandidate {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);

    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        // Somebody has it already: fine.
        let _ = self.memory.put_key_with(id, candidate, PutMode::Create).await;
        Ok(candidate.clone())
    }
}
