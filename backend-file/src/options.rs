//! [`FileOptions`], and the functions that open a store with the default options.

use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(doc)]
use keystead_core::ErrorKind;
use keystead_core::{Operation, Result};
use keystead_sealing::RootSecret;

use crate::config::Location;
use crate::error::FileError;
use crate::open::Opening;
use crate::periodic::{DAILY, PeriodicCheck};
use crate::store::FileStore;
use crate::writer;

/// Options for opening a [`FileStore`], for example a store that a group of users shares.
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
    /// Returns the default options: only the owner may use the store, and it is checked daily.
    pub fn new() -> Self {
        Self { group_access: false, check_interval: DAILY }
    }

    /// Sets whether the group of the store's files may read and write them. If so, files of mode
    /// 0660 are accepted, and new files get that mode.
    ///
    /// The `fsGroup` of Kubernetes sets such modes each time a pod starts. Files that users outside
    /// the group may access are refused in any case.
    pub fn group_access(mut self, group_access: bool) -> Self {
        self.group_access = group_access;
        self
    }

    /// Sets the interval at which the open store checks the structure of its file, as
    /// [`check_structure`](FileStore::check_structure) does. Zero turns the checks off. Default: 24
    /// hours.
    ///
    /// After a check has found damage, the process creates no more keys: each creation fails with
    /// [`Corrupt`](ErrorKind::Corrupt), because the new key might be lost. A check reads the whole
    /// file, which takes about 0.3 s for a million keys. A delete that ends during a check may
    /// report [`Finality::Eventual`](keystead_core::Finality::Eventual).
    pub fn check_interval(mut self, interval: Duration) -> Self {
        self.check_interval = interval;
        self
    }

    /// Creates a store; see [`FileStore::create`].
    ///
    /// # Errors
    /// Those of [`FileStore::create`].
    pub async fn create(&self, path: impl AsRef<Path> + Send, root: RootSecret) -> Result<FileStore> {
        self.start(path.as_ref().to_owned(), root, Opening::Create).await
    }

    /// Opens an existing store; see [`FileStore::open`].
    ///
    /// # Errors
    /// Those of [`FileStore::open`].
    pub async fn open(&self, path: impl AsRef<Path> + Send, root: RootSecret) -> Result<FileStore> {
        self.start(path.as_ref().to_owned(), root, Opening::Open).await
    }

    /// Opens a store, or creates it if it does not exist; see [`FileStore::open_or_create`].
    ///
    /// # Errors
    /// Those of [`FileStore::open_or_create`].
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

impl FileStore {
    /// Creates a store.
    ///
    /// A missing directory is created with access for its owner only, and the file with mode 0600.
    ///
    /// # Errors
    /// The message of each error says what to do.
    /// - [`AlreadyExists`](ErrorKind::AlreadyExists) if there is a store at `path`.
    /// - [`Config`](ErrorKind::Config) if the path, its directory or the file there cannot be used,
    ///   or if the passphrase is empty.
    /// - [`Corrupt`](ErrorKind::Corrupt) if a store was created at `path` earlier and its file is
    ///   missing or empty.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied) if the directory is not writable.
    /// - [`KeyUnavailable`](ErrorKind::KeyUnavailable) if a provider fails to create the root
    ///   secret.
    /// - [`Unsupported`](ErrorKind::Unsupported) if the file system does not support SQLite's log.
    /// - [`QuotaExceeded`](ErrorKind::QuotaExceeded) if the disk is full.
    /// - [`Unavailable`](ErrorKind::Unavailable) if the disk fails, or if memory, threads or file
    ///   descriptors run out.
    /// - [`Timeout`](ErrorKind::Timeout) if another process holds the store's lock for 10 seconds.
    ///
    /// An error with [`Effect::Unknown`](keystead_core::Effect::Unknown) means that the store was
    /// created but could not be opened. [`open_or_create`](Self::open_or_create) then opens it.
    pub async fn create(path: impl AsRef<Path> + Send, root: RootSecret) -> Result<Self> {
        FileOptions::new().create(path, root).await
    }

    /// Opens an existing store. A store of format 1 is upgraded; earlier versions of keystead can
    /// then no longer read it.
    ///
    /// # Errors
    /// The message of each error says what to do.
    /// - [`Config`](ErrorKind::Config) if there is no store at `path`; if the file is not a store,
    ///   or not the store that was created there; if it is a symbolic link, has several names (hard
    ///   links), is mounted as a single file or is accessible to other users; or if everybody may
    ///   write to its directory.
    /// - [`KeyUnavailable`](ErrorKind::KeyUnavailable) if the root secret is not that of the store,
    ///   or if a provider fails.
    /// - [`Corrupt`](ErrorKind::Corrupt) if the keyring or the database is damaged, if a store was
    ///   created at `path` earlier and its file is missing or empty, or if the log beside the file
    ///   belongs to another file.
    /// - [`Unsupported`](ErrorKind::Unsupported) if a newer version of keystead wrote the store, or
    ///   if the file system does not support SQLite's log.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied) if the file or its directory is not
    ///   writable.
    /// - [`QuotaExceeded`](ErrorKind::QuotaExceeded) if the disk is full.
    /// - [`Unavailable`](ErrorKind::Unavailable) if the disk fails; if memory, threads or file
    ///   descriptors run out; or if a restore is in progress or was interrupted.
    /// - [`Timeout`](ErrorKind::Timeout) if another program keeps the file locked.
    pub async fn open(path: impl AsRef<Path> + Send, root: RootSecret) -> Result<Self> {
        FileOptions::new().open(path, root).await
    }

    /// Opens a store, or creates it if it does not exist. If several processes call this at once,
    /// one of them creates the store and the others open it.
    ///
    /// # Errors
    /// Those of [`create`](Self::create) and [`open`](Self::open), except the errors about a store
    /// that exists already or does not exist.
    pub async fn open_or_create(path: impl AsRef<Path> + Send, root: RootSecret) -> Result<Self> {
        FileOptions::new().open_or_create(path, root).await
    }
}

impl Default for FileOptions {
    fn default() -> Self {
        Self::new()
    }
}
