//! [`Chunk`]: sealed keys that are created in one transaction, in the order of their rows.

use keystead_core::{KeyId, SecretKey};
use keystead_sealing::{Keyring, RowKey, SealedRecord};

use crate::cells::{Link, Part, Place};
use crate::database::Database;
use crate::error::{FileError, Result};
use crate::reader::Shared;

/// The number of keys that are created in one transaction.
const MAX_KEYS: usize = 4096;

/// A key that is sealed under the keyring of this generation.
pub(crate) struct Loaded {
    /// The position of the key in the group that was sealed.
    pub(crate) index: usize,
    id: KeyId,
    key: SecretKey,
    record: SealedRecord,
    generation: u64,
}

/// Sealed keys in the order of their rows.
pub(crate) struct Chunk(pub(crate) Vec<Loaded>);

/// Seals a group of keys and sorts it by row. Several keys for one id stay in their order.
pub(crate) fn seal(shared: &Shared, group: Vec<(KeyId, SecretKey)>) -> Vec<Loaded> {
    let held = shared.access.held();
    let generation = held.keyring.generation();
    let seal = |(index, (id, key))| Loaded { index, record: held.keyring.seal(&id, &key), id, key, generation };
    let mut sealed: Vec<Loaded> = group.into_iter().enumerate().map(seal).collect();
    sealed.sort_by_key(|loaded| loaded.record.row);
    sealed
}

/// Cuts a sealed group into chunks.
pub(crate) fn chunks_of(sealed: Vec<Loaded>) -> impl Iterator<Item = Chunk> {
    let mut sealed = sealed.into_iter();
    std::iter::from_fn(move || {
        let chunk: Vec<Loaded> = sealed.by_ref().take(MAX_KEYS).collect();
        (!chunk.is_empty()).then_some(Chunk(chunk))
    })
}

impl Chunk {
    /// Creates the keys and returns the indices of those whose ids have a key already.
    pub(crate) fn insert(mut self, shared: &Shared, database: &Database) -> Result<Vec<usize>> {
        shared.may_create()?;
        database.transaction(|| {
            let held = shared.access.current(&database.keyring()?)?.ok_or_else(FileError::rotated_by_another)?;
            self.seal_again(&held.keyring);
            self.insert_runs(database)
        })
    }

    /// Seals again the keys that were sealed before the keyring was changed: a record of a removed
    /// epoch could not be opened.
    fn seal_again(&mut self, keyring: &Keyring) {
        for loaded in self.0.iter_mut().filter(|loaded| loaded.generation != keyring.generation()) {
            loaded.record = keyring.seal(&loaded.id, &loaded.key);
            loaded.generation = keyring.generation();
        }
    }

    /// Inserts the keys run by run. A run is all keys that fit between the same two records of the
    /// store.
    fn insert_runs(&self, database: &Database) -> Result<Vec<usize>> {
        let mut existing = Vec::new();
        let mut rest = self.0.as_slice();
        let mut gap: Option<(Part, Link)> = None;
        while let Some(first) = rest.first() {
            let row = &first.record.row;
            let is_in_gap =
                |(previous, next): &(Part, Link)| previous[..RowKey::LEN] < row.as_bytes()[..] && next.is_after(row);
            let (previous, next) = match gap.filter(is_in_gap) {
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

/// Returns the first keys that come before this successor and whose rows begin differently. There
/// is at least one.
fn run_of(keys: &[Loaded], next: Link) -> &[Loaded] {
    let follows = |pair: &[Loaded]| {
        let [one, other] = pair else { return false };
        let row = &other.record.row;
        one.record.row.as_bytes()[..8] < row.as_bytes()[..8] && next.is_after(row)
    };
    let more = keys.windows(2).take_while(|pair| follows(pair)).count();
    keys.split_at(more + 1).0
}
