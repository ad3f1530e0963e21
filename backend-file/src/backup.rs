//! [`FileStore::backup`]: a copy of one moment.

use std::fs;
use std::path::Path;

use keystead_core::{ErrorKind, Operation, Result};

use crate::config::Location;
use crate::database::Database;
use crate::error::FileError;
use crate::reader::Shared;
use crate::store::{FileStore, off_thread};

impl FileStore {
    /// Copies the store as it is at one moment to `path`, while it is in use. The copy is a store
    /// like this one, with the same root secret, whole on the disk when this returns; its file has
    /// mode 0600, and a missing directory is created for its owner only. A copy that is cut off
    /// leaves a file that opens as no store.
    ///
    /// **A copy keeps the keys that are in it**: a key that is deleted later can be read from it
    /// for as long as its root secret exists. While the copy is made, deletes say
    /// `Finality::Eventual`.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if something stands at `path`, which is never
    /// overwritten; [`Config`](ErrorKind::Config) if the path or its directory will not do;
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) if the directory cannot be written;
    /// [`QuotaExceeded`](ErrorKind::QuotaExceeded) if the disk is full;
    /// [`Corrupt`](ErrorKind::Corrupt) if the database is damaged so that it cannot be copied;
    /// [`Unavailable`](ErrorKind::Unavailable) if a disk fails or the store's file was removed or
    /// replaced; [`Timeout`](ErrorKind::Timeout) if a foreign program keeps it locked;
    /// [`Other`](ErrorKind::Other) if the store is closed. Nothing is left at `path` then.
    pub async fn backup(&self, path: impl AsRef<Path> + Send) -> Result<()> {
        let (shared, path) = (self.shared.clone(), path.as_ref().to_owned());
        let copied = off_thread(move || copy(&shared, &path)).await;
        copied.map_err(|failure| failure.during(Operation::Backup))
    }
}

fn copy(shared: &Shared, path: &Path) -> Result<(), FileError> {
    // Asked first: a store that is closed or replaced is to leave no directory behind.
    shared.with_reader(Database::keyring)?;
    let target = Location::find_or_create_directory(path, shared.location.group_access())?;
    if !target.create_file()? {
        let text = format!("something stands at {} already: give another path", path.display());
        return Err(FileError::new(ErrorKind::AlreadyExists, text));
    }
    let copied = shared.with_reader(|database| database.copy_to(&target)).and_then(|()| target.sync_directory());
    copied.map_err(|failure| {
        [&target.path, &target.journal, &target.wal, &target.beside("-shm")].into_iter().for_each(|path| remove(path));
        failure.about(path)
    })
}

/// Removes a file that a failed copy has left behind.
fn remove(path: &Path) {
    // If even this fails, the file opens as no store, and the failure is reported already.
    let _ = fs::remove_file(path);
}
