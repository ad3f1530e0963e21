//! [`FileStore::rotate`]: a new root secret and a new epoch, while the store is in use.
//!
//! The keyring gets an epoch more and is sealed under the new root secret; from then on every
//! writer seals in that epoch. The records are sealed again page by page. When none is left of an
//! earlier epoch, the keys of those are dropped. Each step is a transaction, so a rotation that is
//! cut off goes on where it was.

use std::sync::Arc;

use keystead_core::{ErrorKind, Operation, Result};
use keystead_sealing::{Keyring, KeyringError, RECORD_PREFIX_LEN, RootSecret, RowKey};

use crate::access::Held;
use crate::cells::{Cursor, Found, Place};
use crate::database::Database;
use crate::error::FileError;
use crate::reader::Shared;
use crate::request::{Reply, Request};
use crate::store::{FileStore, Progress, off_thread};

/// The number of times that all records are searched for an earlier epoch: after the first pass
/// there is none, unless a program that does not keep to FORMAT.md writes them.
const MAX_PASSES: usize = 3;

impl FileStore {
    /// Gives the store a new root secret, of any kind, and seals all records anew, while all
    /// processes go on reading and writing. The earlier root secret then opens nothing of the
    /// store. **A copy from before opens with the earlier root secret and with nothing else**:
    /// destroy that root secret, and the keys in such copies are gone.
    ///
    /// The new root secret opens the store from the first moment, so keep it before you call this.
    /// Handles of this store change over by themselves; other processes get
    /// [`KeyUnavailable`](keystead_core::ErrorKind::KeyUnavailable) and must open the store again
    /// with it. `progress` is called after each page of some hundred records, with how many records
    /// were looked at.
    ///
    /// If it is cut off, by an error, a crash or a dropped future, open the store with the new root
    /// secret and rotate to that again: it goes on where it was. With a root secret other than the
    /// present one a further rotation begins.
    ///
    /// After it has returned, no byte of the earlier keyring and of records sealed under it is in
    /// the store's files, unless a reader holds the log; [`scrub`](Self::scrub) tells.
    ///
    /// # Errors
    /// Before the new root secret is in force, with nothing changed:
    /// [`Config`](keystead_core::ErrorKind::Config) for an empty passphrase,
    /// [`KeyUnavailable`](keystead_core::ErrorKind::KeyUnavailable) if a provider gives no root
    /// secret or another process has given the store a new one,
    /// [`QuotaExceeded`](keystead_core::ErrorKind::QuotaExceeded) if 15 rotations were begun and
    /// not ended. After that, with [`Effect::Unknown`](keystead_core::Effect::Unknown):
    /// [`Corrupt`](keystead_core::ErrorKind::Corrupt) if records are damaged (the others are sealed
    /// anew, the earlier keys are kept). Besides, as any write:
    /// [`QuotaExceeded`](keystead_core::ErrorKind::QuotaExceeded) if the disk is full,
    /// [`Unavailable`](keystead_core::ErrorKind::Unavailable) if it fails or the file was replaced,
    /// [`Timeout`](keystead_core::ErrorKind::Timeout) if a foreign program keeps the file locked.
    pub async fn rotate(&self, new_root: RootSecret, progress: impl FnMut(Progress) + Send) -> Result<()> {
        let rotated = async {
            let epoch = self.begin_epoch(new_root).await?;
            self.end_epochs(epoch, progress).await
        };
        rotated.await.map_err(|failure: FileError| failure.during(Operation::Rotate))
    }

    /// Reports whether a rotation was begun and has not ended, here or in another process.
    ///
    /// # Errors
    /// [`KeyUnavailable`](keystead_core::ErrorKind::KeyUnavailable) if another process has given
    /// the store a new root secret; otherwise those of a read.
    pub async fn is_in_rotation(&self) -> Result<bool> {
        let shared = self.shared.clone();
        let held = off_thread(move || shared.catch_up().map(|(_, held)| held.keyring.has_old_epochs())).await;
        held.map_err(|failure: FileError| failure.during(Operation::Rotate))
    }

    async fn begin_epoch(&self, new_root: RootSecret) -> Result<Epoch, FileError> {
        loop {
            let shared = self.shared.clone();
            let root = new_root.clone();
            // A passphrase or a provider takes its time, which no other writer is to wait for.
            let new = match off_thread(move || NewEpoch::prepare(&shared, root)).await? {
                Prepared::Begun(epoch) => return Ok(epoch),
                Prepared::New(new) => new,
            };
            let epoch = new.held.keyring.current_prefix();
            if self.ask(|reply| Request::Rotate(Step::Begin(new, reply))).await? {
                return Ok(epoch);
            }
        }
    }

    async fn end_epochs(&self, epoch: Epoch, mut progress: impl FnMut(Progress) + Send) -> Result<(), FileError> {
        let counter = self.shared.clone();
        // Where the count meets damage, the progress has no end to tell.
        let total = off_thread(move || counter.count()).await.unwrap_or(0);
        let checker = self.shared.clone();
        let faults = off_thread(move || checker.count_structural_faults()).await;
        let care = if faults.map_err(FileError::in_rotation)? == 0 { Care::None } else { Care::ReadBack };
        for _ in 0..MAX_PASSES {
            let mut done = 0;
            let mut damaged = 0;
            let mut unreadable = 0;
            let mut next = Some(Cursor::Start);
            while let Some(cursor) = next {
                let resealed = self.ask(|reply| Request::Rotate(Step::Reseal(epoch, cursor, care, reply))).await;
                let page = resealed.map_err(FileError::in_rotation)?.ok_or_else(FileError::rotated_by_another)?;
                done += page.records;
                damaged += page.damaged;
                unreadable += page.unreadable;
                next = page.next;
                progress(Progress::new(done, total));
            }
            let ended = self.ask(|reply| Request::Rotate(Step::End(epoch, reply))).await;
            if ended.map_err(FileError::in_rotation)?.ok_or_else(FileError::rotated_by_another)? {
                return self.ask(Request::Scrub).await.map(drop).map_err(FileError::in_rotation);
            }
            if damaged + unreadable > 0 {
                return Err(FileError::damage_keeps_old_epochs(damaged, unreadable).in_rotation());
            }
        }
        Err(FileError::old_epochs_return().in_rotation())
    }
}

/// The beginning of all records of an epoch.
type Epoch = [u8; RECORD_PREFIX_LEN];

/// The care that is taken of a database whose pages are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    None,
    /// Read all records of a page again before it is committed: SQLite may move cells from one page
    /// to another, and lose some where the pages are damaged. Such a page is left as it is.
    ReadBack,
}

/// The beginning of a rotation.
enum Prepared {
    /// A rotation to this root secret was begun and has only to be ended.
    Begun(Epoch),
    New(Box<NewEpoch>),
}

/// A keyring with one epoch more, sealed under the new root secret and ready to be written.
pub(crate) struct NewEpoch {
    follows: u64,
    sealed: Vec<u8>,
    held: Held,
}

impl NewEpoch {
    fn prepare(shared: &Shared, root: RootSecret) -> Result<Prepared, FileError> {
        let (sealed, held) = shared.catch_up()?;
        if held.keyring.has_old_epochs() {
            match Keyring::open_with(&root, &sealed) {
                Ok(_) => return Ok(Prepared::Begun(held.keyring.current_prefix())),
                Err(KeyringError::WrongRoot | KeyringError::OtherKindOfRoot { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let keyring = held.keyring.next_epoch().ok_or_else(FileError::no_epoch_left)?;
        let root_key = root.new_key()?;
        let sealed = keyring.seal_under(&root_key);
        let follows = held.keyring.generation();
        Ok(Prepared::New(Box::new(Self { follows, sealed, held: Held { root, root_key, keyring } })))
    }
}

/// The outcome of sealing a page of records again.
pub(crate) struct Resealed {
    records: u64,
    damaged: u64,
    unreadable: u64,
    next: Option<Cursor>,
}

/// A part of a rotation that is one transaction of the writer's. The answer is `None` if another
/// rotation has begun a later epoch.
pub(crate) enum Step {
    /// Puts the new keyring in place; false if another process has changed it since it was
    /// prepared.
    Begin(Box<NewEpoch>, Reply<bool>),
    /// Seals the records from here on again, as far as a page goes.
    Reseal(Epoch, Cursor, Care, Reply<Option<Resealed>>),
    /// Drops the keys of earlier epochs; false if a record still needs one, or may.
    End(Epoch, Reply<Option<bool>>),
}

impl Step {
    pub(crate) fn run(self, shared: &Shared, database: &Database) {
        // A caller that has stopped waiting wants no further step, and needs no answer.
        match self {
            Self::Begin(new, reply) if !reply.is_canceled() => drop(reply.send(begin(shared, database, *new))),
            Self::Reseal(epoch, cursor, care, reply) if !reply.is_canceled() => {
                drop(reply.send(reseal(shared, database, epoch, &cursor, care)));
            }
            Self::End(epoch, reply) if !reply.is_canceled() => drop(reply.send(end(shared, database, epoch))),
            _ => {}
        }
    }

    pub(crate) fn refuse(self, failure: FileError) {
        match self {
            Self::Begin(_, reply) => drop(reply.send(Err(failure))),
            Self::Reseal(_, _, _, reply) => drop(reply.send(Err(failure))),
            Self::End(_, reply) => drop(reply.send(Err(failure))),
        }
    }
}

fn begin(shared: &Shared, database: &Database, new: NewEpoch) -> Result<bool, FileError> {
    let NewEpoch { follows, sealed, held } = new;
    shared.access.announce(sealed.clone(), held);
    let begun = database.transaction(|| {
        let is_next = Keyring::generation_of(&database.keyring()?) == Some(follows);
        if is_next {
            database.write_keyring(&sealed)?;
        }
        Ok(is_next)
    });
    shared.access.end_announcement(matches!(begun, Ok(true)));
    begun
}

fn reseal(
    shared: &Shared,
    database: &Database,
    epoch: Epoch,
    cursor: &Cursor,
    care: Care,
) -> Result<Option<Resealed>, FileError> {
    let mut left = None;
    let resealed = database.transaction(|| {
        let Some(held) = held_in(shared, database, epoch)? else { return Ok(None) };
        let page = database.read_page(cursor)?;
        let unreadable = u64::from(page.damage.is_some());
        let mut resealed = Resealed { records: 0, damaged: 0, unreadable, next: page.next };
        let mut whole = Vec::new();
        for (row, found) in page.records {
            resealed.records += 1;
            if reseal_record(database, &held.keyring, &row, found)? {
                whole.push(row);
            } else {
                resealed.damaged += 1;
            }
        }
        if care == Care::ReadBack && !whole.iter().all(|row| opens(database, &held.keyring, row)) {
            // Undoes the transaction.
            resealed.damaged = resealed.records;
            left = Some(resealed);
            return Err(FileError::lost_cells());
        }
        Ok(Some(resealed))
    });
    match left {
        Some(left) => Ok(Some(left)),
        None => resealed,
    }
}

fn opens(database: &Database, keyring: &Keyring, row: &RowKey) -> bool {
    matches!(database.record(row), Ok(Found::Record(sealed)) if keyring.open(row, &sealed).is_ok())
}

/// Returns false if the record is damaged, which is left as it is.
fn reseal_record(database: &Database, keyring: &Keyring, row: &RowKey, found: Found) -> Result<bool, FileError> {
    let Found::Record(sealed) = found else { return Ok(false) };
    if sealed.starts_with(&keyring.current_prefix()) {
        return Ok(true);
    }
    let Ok((id, key)) = keyring.open(row, &sealed) else { return Ok(false) };
    let replaced = match database.place(row) {
        Ok(Place::Occupied { next: Some(next), parts }) => {
            database.replace_record(row, &keyring.seal(&id, &key).bytes, parts, next)
        }
        Ok(_) => return Ok(false),
        Err(failure) => Err(failure),
    };
    match replaced {
        // It can be read in order and not be found by its row, for example.
        Err(failure) if failure.kind() == ErrorKind::Corrupt => Ok(false),
        replaced => replaced.map(|()| true),
    }
}

fn end(shared: &Shared, database: &Database, epoch: Epoch) -> Result<Option<bool>, FileError> {
    let mut is_announced = false;
    let ended = database.transaction(|| {
        let Some(held) = held_in(shared, database, epoch)? else { return Ok(None) };
        if !held.keyring.has_old_epochs() {
            return Ok(Some(true));
        }
        if !database.proves_all_begin_with(&epoch)? {
            return Ok(Some(false));
        }
        let keyring = held.keyring.without_old_epochs();
        let sealed = keyring.seal_under(&held.root_key);
        let new = Held { root: held.root.clone(), root_key: held.root_key.clone(), keyring };
        shared.access.announce(sealed.clone(), new);
        is_announced = true;
        database.write_keyring(&sealed)?;
        Ok(Some(true))
    });
    if is_announced {
        shared.access.end_announcement(matches!(ended, Ok(Some(true))));
    }
    ended
}

/// The keyring of the store, if this epoch is still its latest.
fn held_in(shared: &Shared, database: &Database, epoch: Epoch) -> Result<Option<Arc<Held>>, FileError> {
    let held = shared.access.current(&database.keyring()?)?;
    Ok(held.filter(|held| held.keyring.current_prefix() == epoch))
}
