//! [`FileStore::load`]: many new keys at the speed of the disk.
//!
//! Row keys are spread evenly, so keys that come in any other order than that of their row keys
//! write a page each. A load sorts what it seals first, and then writes each page a few times at
//! most.

use std::pin::pin;

use futures_util::future;
use futures_util::stream::{Stream, StreamExt};
use keystead_core::{Error, ErrorKind, KeyId, KeyStore, Operation, PutMode, Result, SecretKey};
use keystead_sealing::{Keyring, RowKey, SealedRecord};

use crate::cells::{Link, Part, Place};
use crate::database::Database;
use crate::error::{FileError, SCHEME};
use crate::reader::Shared;
use crate::request::Request;
use crate::store::{FileStore, off_thread};

/// The number of keys that are sealed and sorted together: some 90 MB of memory for keys of 32
/// bytes.
const MAX_SORTED: usize = 192 * 1024;

/// The same limit for long keys, in bytes of their secrets.
const MAX_SORTED_LEN: usize = 32 * 1024 * 1024;

/// The number of keys that are written in one transaction.
const CHUNK: usize = 4096;

/// The result of [`FileStore::load`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The number of keys that were created.
    pub created: u64,
    /// The number of keys that were left out, because their ids had a key already or came twice.
    pub existing: u64,
}

impl FileStore {
    /// Creates many keys, several times as fast as
    /// [`put_key_with`](keystead_core::KeyStore::put_key_with) would.
    ///
    /// Use it to fill a store, for example from another one. An id that has a key keeps it, and of
    /// several keys for one id the first is taken. The keys are written in transactions of 4,096,
    /// sorted in groups of up to 196,608; the memory used is that of two groups. Sealing runs on
    /// threads of its own.
    ///
    /// When it returns, all keys are on the disk. If it fails or is dropped, some of them are; run
    /// it again with all of them.
    ///
    /// # Errors
    /// As a put: [`QuotaExceeded`](keystead_core::ErrorKind::QuotaExceeded) if the disk is full,
    /// [`Corrupt`](keystead_core::ErrorKind::Corrupt) if the database is damaged,
    /// [`Unavailable`](keystead_core::ErrorKind::Unavailable) if the disk fails or the file was
    /// replaced, [`Timeout`](keystead_core::ErrorKind::Timeout) if another process keeps the store
    /// locked, and [`Conflict`](keystead_core::ErrorKind::Conflict) if another process gave the
    /// store a new root secret meanwhile.
    pub async fn load(&self, keys: impl Stream<Item = (KeyId, SecretKey)> + Send) -> Result<LoadReport> {
        self.load_all(keys).await.map_err(|failure| failure.during(Operation::Create))
    }

    async fn load_all(&self, keys: impl Stream<Item = (KeyId, SecretKey)> + Send) -> Result<LoadReport, FileError> {
        // Another handle may have rotated the store. What is sealed is to be sealed under its
        // present keyring.
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
                off_thread(move || Ok(seal(&shared, group))).await
            };
            // The last group is written while the next one is sealed.
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
        for chunk in chunks_of(sealed) {
            let len = chunk.0.len() as u64;
            let existing = self.ask(|reply| Request::Load(chunk, reply)).await?.len() as u64;
            report.created += len - existing;
            report.existing += existing;
        }
        Ok(report)
    }

    /// Creates these keys as [`load`](Self::load) does, and returns one outcome for each.
    pub(crate) async fn load_each(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        let group = keys.to_vec();
        let shared = self.shared.clone();
        let sealed = match self.shared.check().await {
            Ok(()) => off_thread(move || Ok(seal(&shared, group))).await,
            Err(failure) => Err(failure),
        };
        let sealed = match sealed {
            Ok(sealed) => sealed,
            Err(failure) => return vec![Err(failure.during(Operation::Create)); keys.len()],
        };
        let mut outcomes = vec![Ok(()); keys.len()];
        for chunk in chunks_of(sealed) {
            let indices: Vec<usize> = chunk.0.iter().map(|loaded| loaded.index).collect();
            match self.ask(|reply| Request::Load(chunk, reply)).await {
                Ok(existing) => {
                    for index in existing {
                        outcomes[index] = Err(Error::new(ErrorKind::AlreadyExists, Operation::Create, SCHEME));
                    }
                }
                // One damaged page, or a disk that is nearly full, must not spoil all of them.
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

/// The keys of one transaction each.
fn chunks_of(sealed: Vec<Loaded>) -> impl Iterator<Item = Chunk> {
    let mut sealed = sealed.into_iter();
    std::iter::from_fn(move || {
        let chunk: Vec<Loaded> = sealed.by_ref().take(CHUNK).collect();
        (!chunk.is_empty()).then_some(Chunk(chunk))
    })
}

/// A key that is sealed under the keyring of this generation.
struct Loaded {
    /// The place of the key among those that are sealed together.
    index: usize,
    id: KeyId,
    key: SecretKey,
    record: SealedRecord,
    generation: u64,
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

/// Seals the keys and sorts them by their rows. Of several keys for one id the first stays the
/// first.
fn seal(shared: &Shared, group: Vec<(KeyId, SecretKey)>) -> Vec<Loaded> {
    let held = shared.access.held();
    let generation = held.keyring.generation();
    let seal = |(index, (id, key))| Loaded { index, record: held.keyring.seal(&id, &key), id, key, generation };
    let mut sealed: Vec<Loaded> = group.into_iter().enumerate().map(seal).collect();
    sealed.sort_by_key(|loaded| loaded.record.row);
    sealed
}

/// Sealed keys in the order of their rows, for one transaction.
pub(crate) struct Chunk(Vec<Loaded>);

impl Chunk {
    /// Creates the keys, and returns the indices of those whose ids have a key already.
    pub(crate) fn insert(mut self, shared: &Shared, database: &Database) -> Result<Vec<usize>, FileError> {
        shared.may_create()?;
        database.transaction(|| {
            let held = shared.access.current(&database.keyring()?)?.ok_or_else(FileError::rotated_by_another)?;
            self.seal_again(&held.keyring);
            self.insert_runs(database)
        })
    }

    /// Seals what was sealed before the keyring was changed: a retired epoch's record could not be
    /// opened.
    fn seal_again(&mut self, keyring: &Keyring) {
        for loaded in self.0.iter_mut().filter(|loaded| loaded.generation != keyring.generation()) {
            loaded.record = keyring.seal(&loaded.id, &loaded.key);
            loaded.generation = keyring.generation();
        }
    }

    /// Inserts all keys that fit between the same two records of the store at once.
    fn insert_runs(&self, database: &Database) -> Result<Vec<usize>, FileError> {
        let mut existing = Vec::new();
        let mut rest = self.0.as_slice();
        let mut gap: Option<(Part, Link)> = None;
        while let Some(first) = rest.first() {
            let row = &first.record.row;
            let (previous, next) = match gap
                .filter(|(previous, next)| previous[..RowKey::LEN] < row.as_bytes()[..] && next.is_after(row))
            {
                Some(gap) => gap,
                None => match database.place(row)? {
                    Place::Vacant { previous, next } => (previous, next),
                    Place::Occupied { .. } => {
                        existing.push(first.index);
                        rest = &rest[1..];
                        continue;
                    }
                },
            };
            let run = run_of(rest, next);
            let last = database.insert_run(run.iter().map(|loaded| &loaded.record), &previous, next)?;
            rest = &rest[run.len()..];
            gap = Some((last, next));
        }
        Ok(existing)
    }
}

/// The first keys, as many as come before this successor and differ in the beginnings of their
/// rows. There is one at least.
fn run_of(keys: &[Loaded], next: Link) -> &[Loaded] {
    let follows = |pair: &[Loaded]| {
        let [one, other] = pair else { return false };
        one.record.row.as_bytes()[..8] < other.record.row.as_bytes()[..8] && next.is_after(&other.record.row)
    };
    let more = keys.windows(2).take_while(|pair| follows(pair)).count();
    keys.split_at(more + 1).0
}
