//! [`FileStore::load`]: creates many keys at the speed of the disk.
//!
//! Row keys are spread evenly over the file, so keys that are inserted in any other order write
//! about one page each. A load sorts the sealed keys by row first, so that each page is written
//! only a few times.

use std::pin::pin;

use futures_util::future;
use futures_util::stream::{Stream, StreamExt};
use keystead_core::{Error, ErrorKind, KeyId, KeyStore, Operation, PutMode, Result, SecretKey};

use crate::chunk::{self, Loaded};
use crate::error::{FileError, SCHEME};
use crate::request::Request;
use crate::store::FileStore;
use crate::threads::off_thread;

/// The largest number of keys that are sealed and sorted together. For keys of 32 bytes, such a
/// group takes about 90 MB of memory.
const MAX_SORTED: usize = 192 * 1024;

/// The total length in bytes of the keys in a group, above which no key is added. It limits groups
/// of long keys.
const MAX_SORTED_LEN: usize = 32 * 1024 * 1024;

/// The result of [`FileStore::load`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The number of keys that were created.
    pub created: u64,
    /// The number of keys that were skipped, because the store or an earlier item had a key for the
    /// same id.
    pub existing: u64,
}

impl FileStore {
    /// Creates many keys, several times as fast as
    /// [`put_key_with`](keystead_core::KeyStore::put_key_with) does.
    ///
    /// Use it to fill a store, for example from another one. An id that already has a key keeps it.
    /// If the stream has several keys for one id, the first one is created. The keys are sorted in
    /// groups of up to 196,608 and written in transactions of 4,096 keys. At most two groups are in
    /// memory at once. Sealing runs on a separate thread.
    ///
    /// When the call returns, all keys are on the disk. If it fails or is dropped, some of the keys
    /// may have been created: call it again with all of them.
    ///
    /// # Errors
    /// - [`QuotaExceeded`](ErrorKind::QuotaExceeded) if the disk is full.
    /// - [`Corrupt`](ErrorKind::Corrupt) if the database is damaged.
    /// - [`Unavailable`](ErrorKind::Unavailable) if the disk fails or the file was replaced.
    /// - [`Timeout`](ErrorKind::Timeout) if another process keeps the store locked.
    /// - [`Conflict`](ErrorKind::Conflict) if another process gave the store a new root secret
    ///   during the load.
    pub async fn load(&self, keys: impl Stream<Item = (KeyId, SecretKey)> + Send) -> Result<LoadReport> {
        self.load_all(keys).await.map_err(|failure| failure.during(Operation::Create))
    }

    async fn load_all(&self, keys: impl Stream<Item = (KeyId, SecretKey)> + Send) -> Result<LoadReport, FileError> {
        // Another handle may have rotated the store. This makes sure that the keys are sealed under
        // the current keyring.
        self.shared.check().await?;
        let mut keys = pin!(keys);
        let mut report = LoadReport::default();
        let mut sealed = Vec::new();
        loop {
            let group = next_group(keys.as_mut()).await;
            let is_last = group.is_empty();
            let sealing = async {
                if is_last {
                    return Ok(Vec::new());
                }
                let shared = self.shared.clone();
                off_thread(move || Ok(chunk::seal(&shared, group))).await
            };
            // One group is written while the next one is sealed.
            let (inserted, next) = future::try_join(self.insert(sealed), sealing).await?;
            report.created += inserted.created;
            report.existing += inserted.existing;
            if is_last {
                return Ok(report);
            }
            sealed = next;
        }
    }

    async fn insert(&self, sealed: Vec<Loaded>) -> Result<LoadReport, FileError> {
        let mut report = LoadReport::default();
        for chunk in chunk::chunks_of(sealed) {
            let len = chunk.0.len() as u64;
            let existing = self.ask(|reply| Request::Load(chunk, reply)).await?.len() as u64;
            report.created += len - existing;
            report.existing += existing;
        }
        Ok(report)
    }

    /// Creates these keys as [`load`](Self::load) does and returns one outcome for each of them.
    pub(crate) async fn load_each(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        let group = keys.to_vec();
        let shared = self.shared.clone();
        let sealed = match self.shared.check().await {
            Ok(()) => off_thread(move || Ok(chunk::seal(&shared, group))).await,
            Err(failure) => Err(failure),
        };
        let sealed = match sealed {
            Ok(sealed) => sealed,
            Err(failure) => return vec![Err(failure.during(Operation::Create)); keys.len()],
        };
        let mut outcomes = vec![Ok(()); keys.len()];
        for chunk in chunk::chunks_of(sealed) {
            let indices: Vec<usize> = chunk.0.iter().map(|loaded| loaded.index).collect();
            match self.ask(|reply| Request::Load(chunk, reply)).await {
                Ok(existing) => {
                    for index in existing {
                        outcomes[index] = Err(Error::new(ErrorKind::AlreadyExists, Operation::Create, SCHEME));
                    }
                }
                // One damaged page, or a nearly full disk, must not fail all keys of the chunk.
                Err(failure) if failure.may_be_one_writes_own() => {
                    for index in indices {
                        let (id, key) = &keys[index];
                        outcomes[index] = self.put_key_with(id, key, PutMode::Create).await;
                    }
                }
                Err(failure) => {
                    for index in indices {
                        outcomes[index] = Err(failure.clone().during(Operation::Create));
                    }
                }
            }
        }
        outcomes
    }
}

async fn next_group(mut keys: std::pin::Pin<&mut impl Stream<Item = (KeyId, SecretKey)>>) -> Vec<(KeyId, SecretKey)> {
    let mut group = Vec::new();
    let mut len = 0;
    while group.len() < MAX_SORTED && len < MAX_SORTED_LEN {
        let Some((id, key)) = keys.next().await else { break };
        len += key.expose_secret().len();
        group.push((id, key));
    }
    group
}
