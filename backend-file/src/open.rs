//! Opening and creating a store. Everything that prevents it is reported before anything is
//! changed.

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
use crate::lock::{LOCK_LIMIT, Locked, WriterLock};
use crate::mark::{self, Mark};
use crate::reader::Shared;

/// The way in which a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Create,
    Open,
    OpenOrCreate,
}

/// An open store: what its handles share, and what its writer needs.
pub(crate) type OpenStore = (Arc<Shared>, Database, Arc<WriterLock>);

pub(crate) fn open(location: Location, root: RootSecret, opening: Opening) -> Result<OpenStore> {
    match check_not_lost(&location, location.state()?)? {
        // An interrupted creation has left its journal. SQLite undoes it when it opens the
        // database.
        PathState::File if location.has_journal()? => create(location, root, opening),
        PathState::File => {
            format::probe(&location)?;
            match opening {
                Opening::Create => Err(exists(&location)),
                Opening::Open | Opening::OpenOrCreate => open_existing(location, root),
            }
        }
        PathState::Missing | PathState::EmptyFile => match opening {
            Opening::Open => Err(FileError::missing_store(&location.path)),
            Opening::Create | Opening::OpenOrCreate => create(location, root, opening),
        },
    }
}

/// Opens the store or, if no other process has created it meanwhile, creates it under the lock and
/// opens it.
fn create(location: Location, root: RootSecret, opening: Opening) -> Result<OpenStore> {
    // This fails with a root secret that cannot be used, before anything is created.
    let keyring = match opening {
        Opening::Open => None,
        Opening::Create | Opening::OpenOrCreate => Some(Keyring::generate().seal_with(&root)?),
    };
    let lock = WriterLock::open(&location)?;
    let locked = lock.lock_within(LOCK_LIMIT)?;
    if is_created(&location)? {
        if opening == Opening::Create {
            return Err(exists(&location));
        }
        drop(locked);
        return open_existing(location, root);
    }
    let keyring = keyring.ok_or_else(|| FileError::missing_store(&location.path))?;
    location.create_file()?;
    Database::create(&location, &keyring)?;
    // The first connection turns on the log, which it can do only while it is the only one.
    let opened = Database::open(&location).map(drop);
    let synced = opened.and_then(|()| location.sync_directory());
    drop(locked);
    // A failure from here on leaves a store behind.
    synced.and_then(|()| open_existing(location, root)).map_err(FileError::of_unknown_effect)
}

/// Reports whether there is a store at the path. An interrupted creation is undone first. The
/// caller holds the lock.
fn is_created(location: &Location) -> Result<bool> {
    let state = match location.state()? {
        PathState::File if location.has_journal()? && Database::is_blank(location)? => PathState::EmptyFile,
        state => state,
    };
    Ok(check_not_lost(location, state)? == PathState::File)
}

fn open_existing(location: Location, root: RootSecret) -> Result<OpenStore> {
    // While this process holds the mark, no restore replaces the files.
    let mut mark = Mark::open(&location)?;
    if location.is_being_restored()? {
        return Err(interrupted_restore(&location));
    }
    location.remove_abandoned_copy();
    let lock = WriterLock::open(&location)?;
    let is_current = check_log(&location, &lock)?;
    let (database, sealed, locked) = open_database(&location, &lock, is_current)?;
    let file = location.identity()?.ok_or_else(|| FileError::missing_store(&location.path))?;
    let log = location.log_state()?.ok_or_else(FileError::replaced)?.identity;
    // Opening the keyring can take long, so the lock is released first.
    drop(locked);
    let held = Held::open(root, &sealed)?;
    mark.settle(&location, &held.store_id())?;
    let shared = Arc::new(Shared::new(location, file, log, mark, held));
    Ok((shared, database, Arc::new(lock)))
}

/// Opens the writer's connection and reads the sealed keyring. Returns the lock, too, if it was
/// needed.
fn open_database<'a>(
    location: &Location,
    lock: &'a WriterLock,
    is_current: bool,
) -> Result<(Database, Vec<u8>, Option<Locked<'a>>)> {
    let open = || -> Result<(Database, Vec<u8>)> {
        let database = Database::open(location)?;
        let sealed = database.keyring()?;
        Ok((database, sealed))
    };
    // Only an upgrade of the format needs the lock. So a store can be opened for reading while a
    // stopped process holds the lock.
    if is_current {
        match open() {
            // Many processes are opening or closing the store. Under the lock they take turns.
            Err(failure) if failure.kind() == ErrorKind::Timeout => {}
            opened => return opened.map(|(database, sealed)| (database, sealed, None)),
        }
    }
    let locked = lock.lock_within(LOCK_LIMIT)?;
    let (database, sealed) = open()?;
    Ok((database, sealed, Some(locked)))
}

/// The store's file and its log, before SQLite has seen them.
struct FileAndLog {
    /// True if the file has the current format.
    is_current: bool,
    /// True if the log belongs to the file, or cannot change it.
    log_is_owned: bool,
}

impl FileAndLog {
    fn look(location: &Location) -> Result<Self> {
        let owner = match location.wal_len()? {
            0 => LogOwner::Nobody,
            _ => owner_of_log(location)?,
        };
        Ok(match format::probe(location)? {
            None => Self { is_current: false, log_is_owned: true },
            Some(Probed { is_current, instance: Some(instance) }) => {
                Self { is_current, log_is_owned: instance.owns(owner) }
            }
            Some(Probed { is_current, instance: None }) => {
                Self { is_current, log_is_owned: is_current || owner.may_follow_format_1() }
            }
        })
    }
}

/// Fails if the log belongs to another file, because SQLite would replay it over this one. Returns
/// whether the file has the current format.
fn check_log(location: &Location, lock: &WriterLock) -> Result<bool> {
    let seen = FileAndLog::look(location)?;
    if seen.log_is_owned {
        return Ok(seen.is_current);
    }
    // Another process may have emptied the log after its owner was read and before the file was
    // read. Under the lock no process does that.
    let _locked = lock.lock_within(LOCK_LIMIT)?;
    let seen = FileAndLog::look(location)?;
    if seen.log_is_owned { Ok(seen.is_current) } else { Err(foreign_log(location)) }
}

fn owner_of_log(location: &Location) -> Result<LogOwner> {
    match File::open(&location.wal).and_then(instance::log_owner) {
        // The last process that had the store open has closed it, which removes the log.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(LogOwner::Nobody),
        owner => owner.map_err(|e| FileError::io("reading", &location.wal, e)),
    }
}

/// Returns the state of the path, unless the store has lost its file: a lost store must not be
/// taken for one that never existed.
fn check_not_lost(location: &Location, state: PathState) -> Result<PathState> {
    if state == PathState::File {
        return Ok(state);
    }
    // While this process holds the mark, no restore renames the file.
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
        "{path} is missing or empty, but the log {wal} beside it is not, and may contain keys: put the file back, \
         or restore a backup with keystead restore, which keeps the log"
    );
    FileError::new(ErrorKind::Corrupt, text)
}

fn exists(location: &Location) -> FileError {
    let text = format!("there is already a store at {}: open it, or give another path", location.path.display());
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
        "the log {wal} is not the log of {path}: a copy has replaced the file of a store that was not closed, and \
         the log of that store would overwrite the copy; nothing was changed; put the store's own file back, or \
         move this copy elsewhere and restore it from there with keystead restore, which keeps the log"
    );
    FileError::new(ErrorKind::Corrupt, text)
}
