//! [`FileOptions`]: opening a store otherwise than by default.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keystead_core::{Operation, Result};
use keystead_sealing::RootSecret;

use crate::config::Location;
use crate::error::FileError;
use crate::open::Opening;
use crate::periodic::{DAILY, PeriodicCheck};
use crate::store::FileStore;
use crate::writer;

/// Options for opening a [`FileStore`], for example one that a group shares.
///
/// ```no_run
/// # async fn example(root: keystead_file::RootSecret) -> keystead_core::Result<()> {
/// use keystead_file::FileOptions;
///
/// let store = FileOptions::new().group_access(true).open("/data/keys.db", root).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct FileOptions {
    group_access: bool,
    check_interval: Duration,
}

impl FileOptions {
    /// Returns the default: the store is its owner's only, and is checked daily.
    pub fn new() -> Self {
        Self { group_access: false, check_interval: DAILY }
    }

    /// Sets whether the group of the store's files may read and write them: modes of 0660 are
    /// accepted, and new files get that. Kubernetes' `fsGroup` sets such modes each time a pod
    /// starts. Others than owner and group are refused as ever.
    pub fn group_access(mut self, group_access: bool) -> Self {
        self.group_access = group_access;
        self
    }

    /// Sets the interval at which the open store looks for damage in the structure of its file, as
    /// [`check_structure`](FileStore::check_structure) does; zero for never. Default: 24 hours.
    ///
    /// A process that has found such damage creates no new keys: each one fails with
    /// [`Corrupt`](keystead_core::ErrorKind::Corrupt), because it might be lost. A check reads the
    /// whole file, which takes some 0.3 s for a million keys. A delete that ends meanwhile may report
    /// [`Finality::Eventual`](keystead_core::Finality::Eventual).
    pub fn check_interval(mut self, interval: Duration) -> Self {
        self.check_interval = interval;
        self
    }

    /// Creates a store; see [`FileStore::create`].
    ///
    /// # Errors
    /// As [`FileStore::create`].
    pub async fn create(&self, path: impl AsRef<Path> + Send, root: RootSecret) -> Result<FileStore> {
        self.start(path.as_ref().to_owned(), root, Opening::Create).await
    }

    /// Opens a store that exists; see [`FileStore::open`].
    ///
    /// # Errors
    /// As [`FileStore::open`].
    pub async fn open(&self, path: impl AsRef<Path> + Send, root: RootSecret) -> Result<FileStore> {
        self.start(path.as_ref().to_owned(), root, Opening::Open).await
    }

    /// Opens a store, or creates it if there is none; see [`FileStore::open_or_create`].
    ///
    /// # Errors
    /// As [`FileStore::open_or_create`].
    pub async fn open_or_create(&self, path: impl AsRef<Path> + Send, root: RootSecret) -> Result<FileStore> {
        self.start(path.as_ref().to_owned(), root, Opening::OpenOrCreate).await
    }

    pub(crate) fn group_access_is_on(&self) -> bool {
        self.group_access
    }

    async fn start(&self, path: PathBuf, root: RootSecret, opening: Opening) -> Result<FileStore> {
        let group_access = self.group_access;
        let location = move || match opening {
            Opening::Open => Location::find(&path, group_access)?.ok_or_else(|| FileError::missing_store(&path)),
            Opening::Create | Opening::OpenOrCreate => Location::find_or_create_directory(&path, group_access),
        };
        let check = PeriodicCheck::new(self.check_interval);
        let opened =
            async { writer::start(location, root, opening, check)?.await.map_err(|_| FileError::writer_is_gone())? };
        let (shared, handles) = opened.await.map_err(|failure| failure.during(Operation::Open))?;
        Ok(FileStore { shared, handles, replaced: None })
    }
}

impl Default for FileOptions {
    fn default() -> Self {
        Self::new()
    }
}
