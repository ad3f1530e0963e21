//! [`FileStore::backup`]: copies a store while it is in use.

use std::path::Path;

use keystead_core::{ErrorKind, Operation, Result};

use crate::config::Location;
use crate::database::Database;
use crate::error::FileError;
use crate::reader::Shared;
use crate::store::FileStore;
use crate::threads::off_thread;

impl FileStore {
    /// Copies the store to `path`, in a consistent state, while it is in use.
    ///
    /// The copy is a store of its own with the same root secret, and is on the disk when the call
    /// returns. Its file has mode 0600. A missing directory is created with access for its owner
    /// only. If the process dies during the backup, the file that remains does not open as a store.
    ///
    /// **A copy keeps its keys**: a key that is deleted from the store later can be read from the
    /// copy as long as the copy's root secret exists. During the backup, deletes report
    /// `Finality::Eventual`.
    ///
    /// # Errors
    /// After an error, there is nothing new at `path`.
    /// - [`AlreadyExists`](ErrorKind::AlreadyExists) if there is a file at `path`. It is never
    ///   overwritten.
    /// - [`Config`](ErrorKind::Config) if the path or its directory cannot be used.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied) if the directory is not writable.
    /// - [`QuotaExceeded`](ErrorKind::QuotaExceeded) if the disk is full.
    /// - [`Corrupt`](ErrorKind::Corrupt) if the database is too damaged to be copied.
    /// - [`Unavailable`](ErrorKind::Unavailable) if a disk fails or the store's file was removed or
    ///   replaced.
    /// - [`Timeout`](ErrorKind::Timeout) if another program keeps the store's file locked.
    /// - [`Other`](ErrorKind::Other) if the store is closed.
    pub async fn backup(&self, path: impl AsRef<Path> + Send) -> Result<()> {
        let shared = self.shared.clone();
        let path = path.as_ref().to_owned();
        let copied = off_thread(move || copy(&shared, &path)).await;
        copied.map_err(|failure| failure.during(Operation::Backup))
    }
}

fn copy(shared: &Shared, path: &Path) -> Result<(), FileError> {
    // A store that is closed or replaced fails here, before a directory is created.
    shared.with_reader(Database::keyring)?;
    let target = Location::find_or_create_directory(path, shared.location.group_access())?;
    if !target.create_file()? {
        let text = format!("there is already a file at {}: give another path", path.display());
        return Err(FileError::new(ErrorKind::AlreadyExists, text));
    }
    let copied = shared.with_reader(|database| database.copy_to(&target)).and_then(|()| target.sync_directory());
    copied.map_err(|failure| {
        // If this fails, too, the file that remains does not open as a store.
        let _ = target.remove_files();
        failure.about(path)
    })
}
