//! [`FileStore::restore`]: puts a backup in the place of a store.
//!
//! A file and its log are two names, and no system renames two at once. So a note beside them, `PATH.restoring`, says that
//! a restore is under way, and nobody opens the store until it is ended or run again:
//!
//! 1. copy the backup to `PATH.new` and check it;
//! 2. write the note, with the name under which the present store is kept;
//! 3. rename the present file, its log and the journal of a creation that was cut off to that name;
//! 4. rename `PATH.new` to `PATH`;
//! 5. remove the note.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use keystead_core::{ErrorKind, Operation, Result};
use keystead_sealing::RootSecret;

use crate::access::Held;
use crate::cells::{Cursor, Found};
use crate::config::{Location, PathState};
use crate::database::{self, Database};
use crate::error::Failure;
use crate::format;
use crate::lock::{LOCK_LIMIT, WriterLock};
use crate::mark::Mark;
use crate::options::FileOptions;
use crate::store::{FileStore, off_thread};

/// What the name of a file's log has after the file's own name.
const LOG_SUFFIX: &str = "-wal";

impl FileStore {
    /// Puts a backup in the place of the store at `path`, or of none, and opens it. The backup is only read.
    ///
    /// **Restoring brings back the users that were erased since the backup**: reconcile the store with your tombstones
    /// before it serves anybody.
    ///
    /// First the backup is copied beside the store and checked: it must open with this root secret and every record must
    /// be whole. What was at `path` is kept beside it, with its log: [`replaced_store`](Self::replaced_store) gives the
    /// name. It keeps the keys of users who are erased from now on, so remove it when you no longer need it. If a crash
    /// interrupts a restore, the store refuses to open until the restore is run again, or opens as one of the two.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if a process has the store open; [`Config`](ErrorKind::Config) if the backup is
    /// missing, is not a store, is that of another store than the one that was created at `path`, or has a log beside it
    /// (a raw copy of a store in use); [`KeyUnavailable`](ErrorKind::KeyUnavailable) if the root secret is not that of the
    /// backup; [`Corrupt`](ErrorKind::Corrupt) if the backup is damaged; [`QuotaExceeded`](ErrorKind::QuotaExceeded) if the
    /// disk is full; [`PermissionDenied`](ErrorKind::PermissionDenied) and [`Unavailable`](ErrorKind::Unavailable) as for
    /// [`open`](Self::open). Nothing at `path` was changed then, unless the error says that the restore was interrupted.
    pub async fn restore(
        backup: impl AsRef<Path> + Send,
        path: impl AsRef<Path> + Send,
        root: RootSecret,
    ) -> Result<Self> {
        FileOptions::new().restore(backup, path, root).await
    }

    /// The name under which [`restore`](Self::restore) kept the store that it replaced; `None` if there was none.
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
                let location = Location::find_or_create_directory(&path, group_access)?;
                replace(&backup, &location, root).map_err(|failure| failure.about(&location.path))
            }
        };
        let replaced = off_thread(work).await.map_err(|failure| failure.during(Operation::Restore))?;
        let mut store = self.open(path, root).await?;
        store.replaced = replaced.map(Arc::from);
        Ok(store)
    }
}

/// Replaces the store by the backup, and returns the name of what was there.
fn replace(backup: &Path, location: &Location, root: RootSecret) -> Result<Option<PathBuf>, Failure> {
    check_backup(backup)?;
    let mut mark = Mark::open_alone(location)?;
    let lock = WriterLock::open(location)?;
    let _locked = lock.lock_within(LOCK_LIMIT)?;
    let new = location.with_suffix(".new")?;
    // Left behind by a restore that was interrupted.
    remove_all(&new)?;
    let store_id = copy_and_check(backup, &new, root).inspect_err(|_| drop(remove_all(&new)))?;
    if let Err(failure) = mark.is_of(location, &store_id) {
        remove_all(&new)?;
        return Err(failure);
    }
    let kept = keep_present(location)?;
    rename(&new.path, &location.path)?;
    location.sync_directory()?;
    mark.replace(location, &store_id)?;
    remove(&location.restoring)?;
    location.sync_directory()?;
    Ok(kept)
}

fn check_backup(backup: &Path) -> Result<(), Failure> {
    let metadata = fs::metadata(backup).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            Failure::new(ErrorKind::Config, format!("there is no backup at {}: give the path of one", backup.display()))
        }
        _ => Failure::io("looking at", backup, e),
    })?;
    if !metadata.is_file() {
        return Err(Failure::new(ErrorKind::Config, format!("{} is not a file: give a backup", backup.display())));
    }
    if fs::metadata(with_suffix(backup, LOG_SUFFIX)).is_ok_and(|log| log.len() > 0) {
        let text = format!(
            "{} has a log beside it, so it is a store in use or a raw copy of one: close it, or copy it with keystead backup",
            backup.display()
        );
        return Err(Failure::new(ErrorKind::Config, text));
    }
    Ok(())
}

/// Copies the backup, brings it up to date, reads all of it and makes it durable. Returns the store's id.
fn copy_and_check(backup: &Path, new: &Location, root: RootSecret) -> Result<String, Failure> {
    let source = format::open_alone(backup)?;
    format::check_is_store(&source)?;
    new.create_file()?;
    database::copy(&source, new)?;
    let database = Database::open(new)?;
    let held = Held::open(root, &database.keyring()?)?;
    check_records(&database, &held)?;
    if !database.truncate_log(std::time::Duration::from_secs(2))? {
        return Err(Failure::locked_by_foreign_program());
    }
    drop(database);
    // SQLite has closed it, so this process may open it by itself.
    File::open(&new.path).and_then(|file| file.sync_all()).map_err(|e| Failure::io("syncing", &new.path, e))?;
    Ok(held.store_id())
}

fn check_records(database: &Database, held: &Held) -> Result<(), Failure> {
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
        return Err(Failure::new(ErrorKind::Corrupt, text));
    }
    Ok(())
}

/// Renames the present file and what is beside it to one name, and leaves a note until the new file is in place.
fn keep_present(location: &Location) -> Result<Option<PathBuf>, Failure> {
    let name = match read_note(location)? {
        // An earlier restore was interrupted, and may have renamed one of the two.
        Some(name) => name,
        None => {
            let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let name = location.free_name(&format!(".replaced-{seconds}"))?;
            write_note(location, &name)?;
            name
        }
    };
    let kept = PathBuf::from(&name);
    // If the earlier restore came as far as that, the file at the path is its copy.
    if !exists(&kept)? && location.state()? != PathState::Missing {
        rename(&location.path, &kept)?;
    }
    // SQLite would apply each of them to the file that takes the name.
    for (present, suffix) in [(&location.wal, LOG_SUFFIX), (&location.journal, "-journal")] {
        let kept = with_suffix(&kept, suffix);
        if !exists(&kept)? && exists(present)? {
            rename(present, &kept)?;
        }
    }
    // The index of the log, which SQLite makes anew.
    remove(&location.beside("-shm"))?;
    location.sync_directory()?;
    Ok(exists(&kept)?.then_some(kept))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn read_note(location: &Location) -> Result<Option<PathBuf>, Failure> {
    let text = match fs::read(&location.restoring) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Failure::io("reading", &location.restoring, e)),
    };
    // The note holds what follows the store's own name. One that was cut off was written before anything was renamed.
    let suffix = String::from_utf8(text).ok().and_then(|text| text.strip_suffix('\n').map(str::to_owned));
    Ok(suffix.map(|suffix| location.beside(&suffix)))
}

fn write_note(location: &Location, kept: &Path) -> Result<(), Failure> {
    let name = kept.as_os_str().as_encoded_bytes();
    let suffix = name.strip_prefix(location.path.as_os_str().as_encoded_bytes()).unwrap_or_default();
    let file = location.open_beside(&location.restoring)?;
    let write = || {
        file.set_len(0)?;
        (&file).write_all(&[suffix, b"\n"].concat())?;
        file.sync_all()
    };
    write().map_err(|e| Failure::io("writing", &location.restoring, e))?;
    location.sync_directory()
}

fn exists(path: &Path) -> Result<bool, Failure> {
    path.try_exists().map_err(|e| Failure::io("looking at", path, e))
}

fn rename(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::rename(from, to).map_err(|e| Failure::io("renaming", from, e))
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::io("removing", path, e)),
        _ => Ok(()),
    }
}

fn remove_all(copy: &Location) -> Result<(), Failure> {
    [&copy.path, &copy.wal, &copy.journal, &copy.beside("-shm")].into_iter().try_for_each(|path| remove(path))
}
