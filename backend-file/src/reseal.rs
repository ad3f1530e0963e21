//! The transactions of a rotation, which the writer thread runs as [`Step`]s.

use std::ops::AddAssign;
use std::sync::Arc;

use keystead_core::ErrorKind;
use keystead_sealing::{Keyring, KeyringError, RECORD_PREFIX_LEN, RootSecret, RowKey};

use crate::access::Held;
use crate::cells::{Cursor, Found, Place};
use crate::database::{Database, Ending};
use crate::error::{FileError, Result};
use crate::reader::Shared;
use crate::reply::Reply;

/// The bytes at the beginning of every record of an epoch.
pub(crate) type Epoch = [u8; RECORD_PREFIX_LEN];

/// The precautions for a database whose pages may be damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    None,
    /// Read all records of a page of the listing again before they are committed. SQLite may move
    /// cells between pages, and lose some of them where pages are damaged. If a record does not
    /// read back, the whole page is left as it was.
    ReadBack,
}

/// The outcome of preparing a rotation.
pub(crate) enum Prepared {
    /// A rotation to this root secret has begun earlier and only has to be finished.
    Begun(Epoch),
    New(Box<NewEpoch>),
}

/// A keyring with one more epoch, sealed under the new root secret and ready to be written.
pub(crate) struct NewEpoch {
    /// The generation of the keyring that this one replaces.
    follows: u64,
    sealed: Vec<u8>,
    held: Held,
}

impl NewEpoch {
    /// Prepares a rotation. May block while a passphrase is stretched or a provider is asked.
    pub(crate) fn prepare(shared: &Shared, root: RootSecret) -> Result<Prepared> {
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

    pub(crate) fn epoch(&self) -> Epoch {
        self.held.keyring.current_prefix()
    }
}

/// The numbers of records that a rotation has processed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// All records, damaged or not.
    pub(crate) records: u64,
    pub(crate) damaged: u64,
    /// The number of stretches of the file that cannot be read.
    pub(crate) unreadable: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.damaged += other.damaged;
        self.unreadable += other.unreadable;
    }
}

/// The outcome of resealing one page of records.
pub(crate) enum Resealed {
    Page {
        counts: Counts,
        /// The beginning of the next page; `None` after the last one.
        next: Option<Cursor>,
    },
    /// Another rotation has begun a later epoch.
    Superseded,
}

/// The outcome of trying to end a rotation.
pub(crate) enum Ended {
    /// The keys of earlier epochs have been removed, now or by another process.
    Done,
    /// Nothing was changed, because a record needs a key of an earlier epoch, or may need one.
    OldRecordsRemain,
    /// Another rotation has begun a later epoch.
    Superseded,
}

/// A part of a rotation that the writer runs as one transaction.
pub(crate) enum Step {
    /// Writes the new keyring. The answer is false if another process has changed the keyring since
    /// the new one was prepared.
    Begin(Box<NewEpoch>, Reply<bool>),
    /// Reseals the page of records that begins here.
    Reseal(Epoch, Cursor, Care, Reply<Resealed>),
    /// Removes the keys of earlier epochs.
    End(Epoch, Reply<Ended>),
}

impl Step {
    /// Runs the step, unless its caller has stopped waiting and so needs no further steps.
    pub(crate) fn run(self, shared: &Shared, database: &Database) {
        match self {
            Self::Begin(new, reply) if !reply.is_canceled() => reply.send(begin(shared, database, *new)),
            Self::Reseal(epoch, cursor, care, reply) if !reply.is_canceled() => {
                reply.send(reseal(shared, database, epoch, &cursor, care));
            }
            Self::End(epoch, reply) if !reply.is_canceled() => reply.send(end(shared, database, epoch)),
            _ => {}
        }
    }

    /// Answers with a failure.
    pub(crate) fn refuse(self, failure: &FileError) {
        match self {
            Self::Begin(_, reply) => reply.refuse(failure),
            Self::Reseal(_, _, _, reply) => reply.refuse(failure),
            Self::End(_, reply) => reply.refuse(failure),
        }
    }
}

fn begin(shared: &Shared, database: &Database, new: NewEpoch) -> Result<bool> {
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

fn reseal(shared: &Shared, database: &Database, epoch: Epoch, cursor: &Cursor, care: Care) -> Result<Resealed> {
    database.transaction_with_ending(|| {
        let Some(held) = held_in(shared, database, epoch)? else { return Ok(Ending::Commit(Resealed::Superseded)) };
        let page = database.read_page(cursor)?;
        let next = page.next;
        let mut counts = Counts { unreadable: u64::from(page.damage.is_some()), ..Counts::default() };
        let mut intact = Vec::new();
        for (row, found) in page.records {
            counts.records += 1;
            if reseal_record(database, &held.keyring, &row, found)? {
                intact.push(row);
            } else {
                counts.damaged += 1;
            }
        }
        if care == Care::ReadBack && !intact.iter().all(|row| opens(database, &held.keyring, row)) {
            counts.damaged = counts.records;
            return Ok(Ending::RollBack(Resealed::Page { counts, next }));
        }
        Ok(Ending::Commit(Resealed::Page { counts, next }))
    })
}

fn opens(database: &Database, keyring: &Keyring, row: &RowKey) -> bool {
    matches!(database.record(row), Ok(Found::Record(sealed)) if keyring.open(row, &sealed).is_ok())
}

/// Reseals a record and returns whether it is intact. A damaged record is left as it is.
fn reseal_record(database: &Database, keyring: &Keyring, row: &RowKey, found: Found) -> Result<bool> {
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
        // In a damaged page, for example, a listing finds the record, but a search for its row does
        // not.
        Err(failure) if failure.kind() == ErrorKind::Corrupt => Ok(false),
        replaced => replaced.map(|()| true),
    }
}

fn end(shared: &Shared, database: &Database, epoch: Epoch) -> Result<Ended> {
    let ended = database.transaction(|| {
        let Some(held) = held_in(shared, database, epoch)? else { return Ok(Ended::Superseded) };
        if !held.keyring.has_old_epochs() {
            return Ok(Ended::Done);
        }
        if !database.proves_all_begin_with(&epoch)? {
            return Ok(Ended::OldRecordsRemain);
        }
        let keyring = held.keyring.without_old_epochs();
        let sealed = keyring.seal_under(&held.root_key);
        let new = Held { root: held.root.clone(), root_key: held.root_key.clone(), keyring };
        shared.access.announce(sealed.clone(), new);
        database.write_keyring(&sealed)?;
        Ok(Ended::Done)
    });
    // Without an announcement this does nothing.
    shared.access.end_announcement(matches!(ended, Ok(Ended::Done)));
    ended
}

/// Returns the store's keyring if this epoch is its latest.
fn held_in(shared: &Shared, database: &Database, epoch: Epoch) -> Result<Option<Arc<Held>>> {
    let held = shared.access.current(&database.keyring()?)?;
    Ok(held.filter(|held| held.keyring.current_prefix() == epoch))
}
