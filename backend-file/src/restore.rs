//! [`FileStore::restore`]: replaces a store with a backup.
//!
//! A store consists of a file and its log, and no system renames two files at once. So a note
//! beside them, `PATH.restoring`, says that a restore has begun. While the note is there, no
//! process opens the store. The steps are:
//!
//! 1. Copy the backup to `PATH.restoring-copy` and check the copy.
//! 2. Write the note, with the name under which the present store is kept.
//! 3. Rename the present log to that name, then the present file. In the other order, a process
//!    could open the kept file without its log.
//! 4. Rename `PATH.restoring-copy` to `PATH`.
//! 5. Remove the note.
//!
//! A restore that is interrupted after step 2 must be run again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use keystead_core::{Effect, ErrorKind, Operation, Result};
use keystead_sealing::RootSecret;

use crate::access::Held;
use crate::cells::{Cursor, Found};
use crate::config::{Location, PathState, remove, with_suffix};
use crate::database::{self, Database};
use crate::error::FileError;
use crate::format;
use crate::lock::{LOCK_LIMIT, WriterLock};
use crate::mark::Mark;
use crate::options::FileOptions;
use crate::store::FileStore;
use crate::threads::off_thread;

impl FileStore {
    /// Copies a backup to `path`, replacing the store there if there is one, and opens the copy.
    ///
    /// **A restore brings back the users that were erased after the backup**: reconcile the store
    /// with your tombstones before you use it.
    ///
    /// First the backup is copied beside the store, and the copy is checked: it must open with this
    /// root secret, and every record must be intact. The store that was at `path` is kept beside
    /// it, with its log; [`replaced_store`](Self::replaced_store) returns its path. It keeps all
    /// its keys, even those that you erase later, so remove it when you no longer need it. If a
    /// crash interrupts a restore, `path` then opens as the previous store or as the backup, or it
    /// does not open until the restore is run again.
    ///
    /// # Errors
    /// Nothing at `path` was changed, unless the error has
    /// [`Effect::Unknown`](keystead_core::Effect::Unknown): then the restore was interrupted, or
    /// the backup is in place but could not be opened.
    /// - [`Conflict`](ErrorKind::Conflict) if a process has the store open.
    /// - [`Config`](ErrorKind::Config) if the backup is missing, is not a store, is the store at
    ///   `path` itself, belongs to a different store from the one that was created at `path`, or
    ///   has a log beside it, as a raw copy of an open store has.
    /// - [`KeyUnavailable`](ErrorKind::KeyUnavailable) if the root secret is not that of the
    ///   backup.
    /// - [`Corrupt`](ErrorKind::Corrupt) if the backup is damaged.
    /// - [`QuotaExceeded`](ErrorKind::QuotaExceeded) if the disk is full.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied) and
    ///   [`Unavailable`](ErrorKind::Unavailable) as for [`open`](Self::open).
    pub async fn restore(
        backup: impl AsRef<Path> + Send,
        path: impl AsRef<Path> + Send,
        root: RootSecret,
    ) -> Result<Self> {
        FileOptions::new().restore(backup, path, root).await
    }

    /// Returns the path to which [`restore`](Self::restore) has moved the previous store, or what
    /// was left of it. Returns `None` if there was none, or if this store was opened in another
    /// way.
    pub fn replaced_store(&self) -> Option<&Path> {
        self.replaced.as_deref()
    }
}

impl FileOptions {
    /// Restores a store; see [`FileStore::restore`].
    ///
    /// # Errors
    /// Those of [`FileStore::restore`].
    pub async fn restore(
        &self,
        backup: impl AsRef<Path> + Send,
        path: impl AsRef<Path> + Send,
        root: RootSecret,
    ) -> Result<FileStore> {
        let backup = backup.as_ref().to_owned();
        let path = path.as_ref().to_owned();
        let group_access = self.group_access_is_on();
        let work = {
            let root = root.clone();
            let path = path.clone();
            move || {
                check_backup(&backup)?;
                let location = Location::find_or_create_directory(&path, group_access)?;
                replace(&backup, &location, root).map_err(|failure| failure.about(&location.path))
            }
        };
        let replaced = off_thread(work).await.map_err(|failure| failure.during(Operation::Restore))?;
        // If this fails, the backup is in place already.
        let mut store = self.open(path, root).await.map_err(|error| error.with_effect(Effect::Unknown))?;
        store.replaced = replaced.map(Arc::from);
        Ok(store)
    }
}

/// Replaces the store with the backup and returns the path to which the previous store was moved.
fn replace(backup: &Path, location: &Location, root: RootSecret) -> Result<Option<PathBuf>, FileError> {
    // Something at the path that is not a store's file is refused before anything is created.
    location.state()?;
    let copy = location.restoring_copy()?;
    check_is_another_file(backup, &[&location.path, &copy.path])?;
    let mut mark = Mark::open_alone(location)?;
    let lock = WriterLock::open(location)?;
    let _locked = lock.lock_within(LOCK_LIMIT)?;
    // An interrupted restore may have left its copy.
    copy.remove_files()?;
    let prepare = || -> Result<(String, Note), FileError> {
        let store_id = copy_and_check(backup, &copy, root).map_err(|failure| failure.about_backup(backup))?;
        mark.expect_store(location, &store_id)?;
        location.give_to_owner_of_mark(&copy.path)?;
        Ok((store_id, Note::read_or_write(location)?))
    };
    let (store_id, note) = prepare().inspect_err(|_| drop(copy.remove_files()))?;
    let mut put_in_place = || -> Result<Option<PathBuf>, FileError> {
        let kept = note.keep_present(location)?;
        rename(&copy.path, &location.path)?;
        location.sync_directory()?;
        mark.replace(location, &store_id)?;
        remove(&location.restoring)?;
        location.sync_directory()?;
        Ok(kept)
    };
    put_in_place().map_err(FileError::in_restore)
}

/// Fails if the backup is one of these files, to which the restore itself writes.
fn check_is_another_file(backup: &Path, others: &[&Path]) -> Result<(), FileError> {
    let canonical = fs::canonicalize(backup).map_err(|e| FileError::io("resolving", backup, e))?;
    if others.contains(&canonical.as_path()) {
        let text = format!(
            "{} is a file of the store itself: give a backup, or rename this file if it is one",
            backup.display()
        );
        return Err(FileError::new(ErrorKind::Config, text));
    }
    Ok(())
}

fn check_backup(backup: &Path) -> Result<(), FileError> {
    let metadata = fs::metadata(backup).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => FileError::new(
            ErrorKind::Config,
            format!("there is no backup at {}: give the path of one", backup.display()),
        ),
        _ => FileError::io("looking at", backup, e),
    })?;
    if !metadata.is_file() {
        return Err(FileError::new(ErrorKind::Config, format!("{} is not a file: give a backup", backup.display())));
    }
    if fs::metadata(log_of(backup)).is_ok_and(|log| log.len() > 0) {
        let text = format!(
            "{} has a log beside it, so it is an open store or a raw copy of one: close the store, or copy it with \
             keystead backup",
            backup.display()
        );
        return Err(FileError::new(ErrorKind::Config, text));
    }
    Ok(())
}

/// Copies the backup, upgrades the copy to the current format, reads all its records and makes it
/// durable. Returns the store's id.
fn copy_and_check(backup: &Path, new: &Location, root: RootSecret) -> Result<String, FileError> {
    let source = format::open_alone(backup)?;
    format::check_is_store(&source)?;
    new.create_file()?;
    database::copy(&source, new)?;
    let database = Database::open(new)?;
    let held = Held::open(root, &database.keyring()?)?;
    check_records(&database, &held)?;
    if !database.truncate_log(std::time::Duration::from_secs(2))? {
        return Err(FileError::locked_by_foreign_program());
    }
    drop(database);
    // SQLite has closed the file, so this process may open and close it without SQLite.
    File::open(&new.path).and_then(|file| file.sync_all()).map_err(|e| FileError::io("syncing", &new.path, e))?;
    Ok(held.store_id())
}

/// Fails if a record of the copy, or the structure of its pages, is damaged.
fn check_records(database: &Database, held: &Held) -> Result<(), FileError> {
    let mut damaged = database.count_structural_faults()?;
    let mut next = Some(Cursor::Start);
    while let Some(cursor) = next {
        let page = database.page(&cursor)?;
        damaged += u64::from(page.damage.is_some());
        let is_intact = |(row, found): &(_, Found)| match found {
            Found::Record(sealed) => held.keyring.open(row, sealed).is_ok(),
            Found::Nothing | Found::Damaged => false,
        };
        damaged += page.records.iter().filter(|record| !is_intact(record)).count() as u64;
        next = page.next;
    }
    if damaged > 0 {
        let text = format!("the backup is damaged in {damaged} places: restore another one; nothing was changed");
        return Err(FileError::new(ErrorKind::Corrupt, text));
    }
    Ok(())
}

/// The contents of the file `PATH.restoring`.
struct Note {
    /// The path to which the previous store is moved.
    kept: PathBuf,
    /// True if there was a file at the path when the restore began. Otherwise a file that is there
    /// now is the copy of the backup.
    had_file: bool,
}

impl Note {
    const HAD_FILE: &str = "file";
    const HAD_NO_FILE: &str = "no-file";

    /// Reads the note of an interrupted restore, which may have renamed some of the files. If there
    /// is none, writes a new note.
    fn read_or_write(location: &Location) -> Result<Self, FileError> {
        if let Some(note) = Self::read(location)? {
            return Ok(note);
        }
        let had_file = location.state()? != PathState::Missing;
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let suffix = location.free_suffix(&format!(".replaced-{seconds}"))?;
        let state = if had_file { Self::HAD_FILE } else { Self::HAD_NO_FILE };
        // Nothing has been renamed yet. So if the note cannot be written, it is removed, because
        // the store must not stay closed.
        write_durably(location, &format!("{state} {suffix}\n")).inspect_err(|_| drop(remove(&location.restoring)))?;
        Ok(Self { kept: location.beside(&suffix), had_file })
    }

    /// Reads the note. Returns `None` if there is none, or if it is incomplete: then nothing has
    /// been renamed.
    fn read(location: &Location) -> Result<Option<Self>, FileError> {
        let text = match fs::read(&location.restoring) {
            Ok(text) => String::from_utf8(text).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(FileError::io("reading", &location.restoring, e)),
        };
        let fields = text.strip_suffix('\n').and_then(|line| line.split_once(' '));
        Ok(fields.map(|(state, suffix)| Self { kept: location.beside(suffix), had_file: state == Self::HAD_FILE }))
    }

    /// Renames the files at the path that have not been renamed yet. Returns their new path; `None`
    /// if there were none.
    fn keep_present(&self, location: &Location) -> Result<Option<PathBuf>, FileError> {
        let kept_log = log_of(&self.kept);
        rename_once(&location.wal, &kept_log)?;
        // An interrupted creation may have left a journal. SQLite would apply it to the backup.
        rename_once(&location.journal, &with_suffix(&self.kept, "-journal"))?;
        if self.had_file {
            rename_once(&location.path, &self.kept)?;
        }
        // SQLite creates a new index of the log.
        remove(&location.beside("-shm"))?;
        location.sync_directory()?;
        Ok((exists(&self.kept)? || exists(&kept_log)?).then(|| self.kept.clone()))
    }
}

fn write_durably(location: &Location, text: &str) -> Result<(), FileError> {
    let mut file = location.open_beside(&location.restoring)?;
    let mut write = || {
        file.set_len(0)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|e| FileError::io("writing", &location.restoring, e))?;
    location.sync_directory()
}

/// Returns the path of a file's log.
fn log_of(path: &Path) -> PathBuf {
    with_suffix(path, "-wal")
}

fn exists(path: &Path) -> Result<bool, FileError> {
    path.try_exists().map_err(|e| FileError::io("looking at", path, e))
}

fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(|e| FileError::io("renaming", from, e))
}

/// Renames a file, unless it does not exist or an earlier attempt has renamed it.
fn rename_once(from: &Path, to: &Path) -> Result<(), FileError> {
    if exists(from)? && !exists(to)? { rename(from, to) } else { Ok(()) }
}
