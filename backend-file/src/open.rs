//! Opening and creating a store: what stands in the way is told before anything is changed.

use std::fs::File;
use std::io;
use std::sync::Arc;

use keystead_core::ErrorKind;
use keystead_sealing::{Keyring, RootSecret};

use crate::access::Held;
use crate::config::{Location, PathState};
use crate::database::Database;
use crate::error::{FileError, Result};
use crate::format::{self, Probed};
use crate::instance::{self, LogOwner};
use crate::lock::{LOCK_LIMIT, WriterLock};
use crate::mark::{self, Mark};
use crate::reader::Shared;
use crate::restore;

/// The way in which a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Create,
    Open,
    OpenOrCreate,
}

/// A store that is open, and what its writer needs.
pub(crate) type OpenStore = (Arc<Shared>, Database, Arc<WriterLock>);

pub(crate) fn open(location: Location, root: RootSecret, opening: Opening) -> Result<OpenStore> {
    let state = check_not_lost(&location, location.state()?)?;
    // A creation that was cut off leaves its journal; what it journals is undone when the database
    // is opened.
    let cut_off = state == PathState::File && location.has_journal()?;
    if state == PathState::File && !cut_off {
        format::probe(&location)?;
    }
    match (state, opening) {
        (PathState::File, Opening::Create) if !cut_off => Err(exists(&location)),
        (PathState::Missing | PathState::EmptyFile, Opening::Open) => Err(FileError::missing_store(&location.path)),
        (PathState::File, _) if !cut_off => open_existing(location, root),
        (_, opening) => create(location, root, opening),
    }
}

/// Creates the store under the lock, unless another process was quicker, and opens it.
fn create(location: Location, root: RootSecret, opening: Opening) -> Result<OpenStore> {
    // A root secret that cannot be used is found out before anything is created.
    let keyring = match opening {
        Opening::Open => None,
        Opening::Create | Opening::OpenOrCreate => Some(Keyring::generate().seal_with(&root)?),
    };
    let lock = WriterLock::open(&location)?;
    let locked = lock.lock_within(LOCK_LIMIT)?;
    let mut state = location.state()?;
    if state == PathState::File && location.has_journal()? && Database::is_blank(&location)? {
        state = PathState::EmptyFile;
    }
    let state = check_not_lost(&location, state)?;
    match (state, keyring) {
        (PathState::File, _) if opening == Opening::Create => Err(exists(&location)),
        (PathState::File, _) => {
            drop(locked);
            open_existing(location, root)
        }
        (_, None) => Err(FileError::missing_store(&location.path)),
        (_, Some(keyring)) => {
            location.create_file()?;
            Database::create(&location, &keyring)?;
            // The first connection turns the log on, for which it must be alone.
            let opened = Database::open(&location).map(drop);
            let synced = opened.and_then(|()| location.sync_directory());
            drop(locked);
            // What fails now leaves a store behind.
            synced.and_then(|()| open_existing(location, root)).map_err(FileError::of_unknown_effect)
        }
    }
}

fn open_existing(location: Location, root: RootSecret) -> Result<OpenStore> {
    // From here on no restore replaces the files.
    let mut mark = Mark::open(&location)?;
    if location.is_being_restored()? {
        return Err(interrupted_restore(&location));
    }
    restore::remove_abandoned_copy(&location);
    let lock = WriterLock::open(&location)?;
    let is_current = check_log(&location, &lock)?;
    // Only a change of format needs the lock, so that a store opens for readers while a stopped
    // process holds it.
    let mut locked = if is_current { None } else { Some(lock.lock_within(LOCK_LIMIT)?) };
    let open = || -> Result<(Database, Vec<u8>)> {
        let database = Database::open(&location)?;
        let sealed = database.keyring()?;
        Ok((database, sealed))
    };
    let opened = match open() {
        // Many processes open or close the store at this moment. Under the lock they take turns.
        Err(failure) if failure.kind() == ErrorKind::Timeout && locked.is_none() => {
            locked = Some(lock.lock_within(LOCK_LIMIT)?);
            open()
        }
        opened => opened,
    };
    let (database, sealed) = opened?;
    let file = location.identity()?.ok_or_else(|| FileError::missing_store(&location.path))?;
    let log = location.log_state()?.ok_or_else(FileError::replaced)?.identity;
    drop(locked);
    // Without the lock: a passphrase takes its time.
    let held = Held::open(root, &sealed)?;
    mark.settle(&location, &held.store_id())?;
    let shared = Arc::new(Shared::new(location, file, log, mark, held));
    Ok((shared, database, Arc::new(lock)))
}

/// Refuses a log that is another file's, which SQLite would replay over this one. Returns whether
/// the file is of the current format.
fn check_log(location: &Location, lock: &WriterLock) -> Result<bool> {
    let look = || -> Result<(bool, bool)> {
        let owner = match location.wal_len()? {
            0 => LogOwner::Nobody,
            _ => owner_of_log(location)?,
        };
        Ok(match format::probe(location)? {
            None => (false, true),
            Some(Probed { is_current, instance: Some(instance) }) => (is_current, instance.owns(owner)),
            Some(Probed { is_current, instance: None }) => (is_current, is_current || owner.may_follow_format_1()),
        })
    };
    let (is_current, is_owned) = look()?;
    if is_owned {
        return Ok(is_current);
    }
    // A process may have emptied the log between the two looks. Under the lock nobody does.
    let _locked = lock.lock_within(LOCK_LIMIT)?;
    let (is_current, is_owned) = look()?;
    if is_owned { Ok(is_current) } else { Err(foreign_log(location)) }
}

fn owner_of_log(location: &Location) -> Result<LogOwner> {
    match File::open(&location.wal).and_then(instance::log_owner) {
        // The last process that had the store open has closed it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(LogOwner::Nobody),
        owner => owner.map_err(|e| FileError::io("reading", &location.wal, e)),
    }
}

/// Refuses to take a store that has lost its file for none at all. Returns what is at the path.
fn check_not_lost(location: &Location, state: PathState) -> Result<PathState> {
    if state == PathState::File {
        return Ok(state);
    }
    // For as long as we hold the mark no restore renames the file.
    let mark = if location.has_mark()? { Some(Mark::open(location)?) } else { None };
    if state == PathState::Missing && location.state()? == PathState::File {
        return Ok(PathState::File);
    }
    if location.is_being_restored()? {
        return Err(interrupted_restore(location));
    }
    if location.wal_len()? > 0 {
        return Err(lost_file(location));
    }
    match mark {
        Some(mark) if mark.is_set() => Err(mark::lost_store(location)),
        _ => Ok(state),
    }
}

fn lost_file(location: &Location) -> FileError {
    let path = location.path.display();
    let wal = location.wal.display();
    let text = format!(
        "{path} is missing or empty, and the log {wal} beside it is not: keys may be in that; put the file back, or \
         restore a backup with keystead restore, which keeps the log"
    );
    FileError::new(ErrorKind::Corrupt, text)
}

fn exists(location: &Location) -> FileError {
    let text = format!("there is a store at {} already: open it, or give another path", location.path.display());
    FileError::new(ErrorKind::AlreadyExists, text)
}

fn interrupted_restore(location: &Location) -> FileError {
    let path = location.path.display();
    let text = format!("a restore of {path} was interrupted: run keystead restore again with the same backup");
    FileError::new(ErrorKind::Unavailable, text)
}

fn foreign_log(location: &Location) -> FileError {
    let path = location.path.display();
    let wal = location.wal.display();
    let text = format!(
        "the log {wal} is not the log of {path}: a copy was put in the place of a store that had not been \
         closed, and its \
         log would undo that; nothing was changed; put the store's own file back, or copy this one elsewhere \
         and restore \
         it from there with keystead restore, which keeps the log"
    );
    FileError::new(ErrorKind::Corrupt, text)
}
