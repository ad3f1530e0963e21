//! [`FileStore::restore`]: puts a backup in the place of a store.
//!
//! A file and its log are two names, and no system renames two at once. So a note beside them,
//! `PATH.restoring`, says that a restore is under way, and nobody opens the store until it is ended
//! or run again:
//!
//! 1. copy the backup to `PATH.restoring-copy` and check it;
//! 2. write the note, with the name under which the present store is kept;
//! 3. rename the present log and then its file to that name: a file without its log must not be
//!    opened under it;
//! 4. rename `PATH.restoring-copy` to `PATH`;
//! 5. remove the note.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use keystead_core::{Effect, ErrorKind, Operation, Result};
use keystead_sealing::RootSecret;

use crate::access::Held;
use crate::cells::{Cursor, Found};
use crate::config::{Location, PathState};
use crate::database::{self, Database};
use crate::error::FileError;
use crate::format;
use crate::lock::{LOCK_LIMIT, WriterLock};
use crate::mark::Mark;
use crate::options::FileOptions;
use crate::store::{FileStore, off_thread};

/// The suffix of the copy that is checked before anything is renamed.
const COPY: &str = ".restoring-copy";

impl FileStore {
    /// Puts a backup in the place of the store at `path`, or of none, and opens it. The backup is
    /// only read.
    ///
    /// **Restoring brings back the users that were erased since the backup**: reconcile the store
    /// with your tombstones before it serves anybody.
    ///
    /// First the backup is copied beside the store and checked: it must open with this root secret
    /// and every record must be whole. What was at `path` is kept beside it, with its log:
    /// [`replaced_store`](Self::replaced_store) gives the name. It still holds the keys that were
    /// erased since, so remove it when you need it no longer. If a crash interrupts a restore, the
    /// store refuses to open until the restore is run again, or opens as one of the two.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if a process has the store open;
    /// [`Config`](ErrorKind::Config) if the backup is missing, is not a store, is the store at
    /// `path` itself or that of another one than was created there, or has a log beside it (a raw
    /// copy of a store in use); [`KeyUnavailable`](ErrorKind::KeyUnavailable) if the root secret is
    /// not that of the backup; [`Corrupt`](ErrorKind::Corrupt) if the backup is damaged;
    /// [`QuotaExceeded`](ErrorKind::QuotaExceeded) if the disk is full;
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) and
    /// [`Unavailable`](ErrorKind::Unavailable) as for [`open`](Self::open). Nothing at `path` was
    /// changed then. With [`Effect::Unknown`](keystead_core::Effect::Unknown) the restore was
    /// interrupted, or the backup is in place and could not be opened.
    pub async fn restore(
        backup: impl AsRef<Path> + Send,
        path: impl AsRef<Path> + Send,
        root: RootSecret,
    ) -> Result<Self> {
        FileOptions::new().restore(backup, path, root).await
    }

    /// The name under which [`restore`](Self::restore) kept the store that it replaced, or what was
    /// left of it; `None` if there was nothing.
    pub fn replaced_store(&self) -> Option<&Path> {
        self.replaced.as_deref()
    }
}

impl FileOptions {
    /// Restores a store; see [`FileStore::restore`].
    ///
    /// # Errors
    /// As [`FileStore::restore`].
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
        // The backup is in place already.
        let mut store = self.open(path, root).await.map_err(|error| error.with_effect(Effect::Unknown))?;
        store.replaced = replaced.map(Arc::from);
        Ok(store)
    }
}

/// Replaces the store by the backup, and returns the name of what was there.
fn replace(backup: &Path, location: &Location, root: RootSecret) -> Result<Option<PathBuf>, FileError> {
    // What stands at the path and cannot be replaced is refused before anything is made beside it.
    location.state()?;
    let copy = location.with_suffix(COPY)?;
    check_is_another_file(backup, &[&location.path, &copy.path])?;
    let mut mark = Mark::open_alone(location)?;
    let lock = WriterLock::open(location)?;
    let _locked = lock.lock_within(LOCK_LIMIT)?;
    // Left behind by a restore that was interrupted.
    remove_all(&copy)?;
    let prepare = || -> Result<(String, Note), FileError> {
        let store_id = copy_and_check(backup, &copy, root).map_err(|failure| failure.about_backup(backup))?;
        mark.is_of(location, &store_id)?;
        location.give_to_owner_of_mark(&copy.path)?;
        Ok((store_id, Note::read_or_write(location)?))
    };
    let (store_id, note) = prepare().inspect_err(|_| drop(remove_all(&copy)))?;
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

/// Removes the copy of a restore that was interrupted before it changed anything: it holds keys
/// that were erased since.
///
/// The caller holds the mark and has found no note.
pub(crate) fn remove_abandoned_copy(location: &Location) {
    if exists(&location.beside(COPY)).unwrap_or(false)
        && let Ok(copy) = location.with_suffix(COPY)
    {
        // The next opening or restore tries again.
        let _ = remove_all(&copy);
    }
}

/// Refuses to restore a file from itself, or from the name that the copy gets.
fn check_is_another_file(backup: &Path, others: &[&Path]) -> Result<(), FileError> {
    let canonical = fs::canonicalize(backup).map_err(|e| FileError::io("resolving", backup, e))?;
    if others.contains(&canonical.as_path()) {
        let text = format!(
            "{} is not a backup but a file of the store itself: give a backup, or rename it if it is one",
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
            "{} has a log beside it, so it is a store in use or a raw copy of one: close it, or copy it with \
             keystead backup",
            backup.display()
        );
        return Err(FileError::new(ErrorKind::Config, text));
    }
    Ok(())
}

/// Copies the backup, brings it up to date, reads all of it and makes it durable. Returns the
/// store's id.
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
    // SQLite has closed it, so this process may open it by itself.
    File::open(&new.path).and_then(|file| file.sync_all()).map_err(|e| FileError::io("syncing", &new.path, e))?;
    Ok(held.store_id())
}

fn check_records(database: &Database, held: &Held) -> Result<(), FileError> {
    let mut damaged = database.count_structural_faults()?;
    let mut next = Some(Cursor::Start);
    while let Some(cursor) = next {
        let page = database.page(&cursor)?;
        damaged += u64::from(page.damage.is_some());
        let is_whole = |(row, found): &(_, Found)| match found {
            Found::Record(sealed) => held.keyring.open(row, sealed).is_ok(),
            Found::Nothing | Found::Damaged => false,
        };
        damaged += page.records.iter().filter(|record| !is_whole(record)).count() as u64;
        next = page.next;
    }
    if damaged > 0 {
        let text = format!("the backup is damaged in {damaged} places: restore another one; nothing was replaced");
        return Err(FileError::new(ErrorKind::Corrupt, text));
    }
    Ok(())
}

/// The file `PATH.restoring`.
struct Note {
    /// The name under which the present store is kept.
    kept: PathBuf,
    /// False if there was at most a log when the restore began. A file at the path is then the
    /// backup's copy.
    had_file: bool,
}

impl Note {
    const HAD_FILE: &str = "file";
    const HAD_NO_FILE: &str = "no-file";

    /// Reads the note of a restore that was interrupted, which may have renamed some of the files;
    /// else writes one.
    fn read_or_write(location: &Location) -> Result<Self, FileError> {
        if let Some(note) = Self::read(location)? {
            return Ok(note);
        }
        let had_file = location.state()? != PathState::Missing;
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let suffix = location.free_suffix(&format!(".replaced-{seconds}"))?;
        let state = if had_file { Self::HAD_FILE } else { Self::HAD_NO_FILE };
        // Nothing was renamed yet, so a note that cannot be written is to stop nobody.
        write_durably(location, &format!("{state} {suffix}\n")).inspect_err(|_| drop(remove(&location.restoring)))?;
        Ok(Self { kept: location.beside(&suffix), had_file })
    }

    /// `None` if there is no note, or one that was cut off, before anything was renamed.
    fn read(location: &Location) -> Result<Option<Self>, FileError> {
        let text = match fs::read(&location.restoring) {
            Ok(text) => String::from_utf8(text).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(FileError::io("reading", &location.restoring, e)),
        };
        let fields = text.strip_suffix('\n').and_then(|line| line.split_once(' '));
        Ok(fields.map(|(state, suffix)| Self { kept: location.beside(suffix), had_file: state == Self::HAD_FILE }))
    }

    /// Renames what is at the path and has not been renamed yet, and returns its new name.
    fn keep_present(&self, location: &Location) -> Result<Option<PathBuf>, FileError> {
        let kept_log = log_of(&self.kept);
        rename_once(&location.wal, &kept_log)?;
        // Of a creation that was cut off: SQLite would undo the backup with it.
        rename_once(&location.journal, &with_suffix(&self.kept, "-journal"))?;
        if self.had_file {
            rename_once(&location.path, &self.kept)?;
        }
        // The index of the log, which SQLite makes anew.
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

/// The name of a file's log.
fn log_of(path: &Path) -> PathBuf {
    with_suffix(path, "-wal")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn exists(path: &Path) -> Result<bool, FileError> {
    path.try_exists().map_err(|e| FileError::io("looking at", path, e))
}

fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(|e| FileError::io("renaming", from, e))
}

/// Renames a file, unless there is none or an earlier attempt has renamed it.
fn rename_once(from: &Path, to: &Path) -> Result<(), FileError> {
    if exists(from)? && !exists(to)? { rename(from, to) } else { Ok(()) }
}

fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::io("removing", path, e)),
        _ => Ok(()),
    }
}

fn remove_all(copy: &Location) -> Result<(), FileError> {
    [&copy.path, &copy.wal, &copy.journal, &copy.beside("-shm")].into_iter().try_for_each(|path| remove(path))
}
