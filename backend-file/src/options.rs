//! [`FileOptions`]: opening a store otherwise than by default.

use std::path::{Path, PathBuf};

use keystead_core::{ErrorKind, Operation, Result};
use keystead_sealing::RootSecret;

use crate::config::Location;
use crate::error::Failure;
use crate::open::Opening;
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
#[derive(Clone, Debug, Default)]
pub struct FileOptions {
    group_access: bool,
}

impl FileOptions {
    /// Returns the default: the store is its owner's only.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether the group of the store's files may read and write them: modes of 0660 are
    /// accepted, and new files get that. Kubernetes' `fsGroup` sets such modes each time a pod
    /// starts. Others than owner and group are refused as ever.
    pub fn group_access(mut self, group_access: bool) -> Self {
        self.group_access = group_access;
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
            Opening::Open => Location::find(&path, group_access)?.ok_or_else(|| {
                let text = format!("there is no store at {}: create it, or give the path of one", path.display());
                Failure::new(ErrorKind::Config, text)
            }),
            Opening::Create | Opening::OpenOrCreate => Location::find_or_create_directory(&path, group_access),
        };
        let opened = async { writer::start(location, root, opening)?.await.map_err(|_| Failure::writer_is_gone())? };
        let (shared, handles) = opened.await.map_err(|failure| failure.during(Operation::Open))?;
        Ok(FileStore { shared, handles, replaced: None })
    }
}
