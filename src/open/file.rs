//! [`FileUrl`]: the contents of a `file:` URL.

use std::fmt;
use std::path::{Path, PathBuf};

use keystead_file::{FileOptions, FileStore, RootSecret};

use super::root_source::{RootSource, SOURCES, boolean, decoded, is_secret, secret_in_url};
use super::{refusal, url};
use crate::{BoxError, Result};

const SCHEME: &str = "file";

/// The checked contents of a `file:` URL. No secret has been read and nothing has been opened yet.
///
/// It is for programs that need more than the [`KeyStore`](crate::KeyStore) that
/// [`open`](crate::open) returns: that call `rotate`, `verify` or `backup`, or that get the root
/// secret from elsewhere, such as a prompt. The parameters are those of [`open`](crate::open),
/// except that the root secret may be left out. `Debug` does not show the path.
#[derive(Clone)]
pub struct FileUrl {
    path: PathBuf,
    create: bool,
    group_access: bool,
    root: Option<RootSource>,
}

impl FileUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if it is not a `file:` URL or is refused. No error
    /// quotes the URL.
    pub fn parse(url: &str) -> Result<Self> {
        match url::scheme(url) {
            Ok(scheme) if scheme == SCHEME => {}
            Ok(_) => return Err(refusal(SCHEME, "the URL does not name a file store; write file:///PATH")),
            Err(text) => return Err(refusal(SCHEME, text)),
        }
        let url = url::UrlParts::parse(url).map_err(|text| refusal(SCHEME, text))?;
        Self::from_parts(url).map_err(|e| refusal(SCHEME, e))
    }

    fn from_parts(url: url::UrlParts<'_>) -> Result<Self, BoxError> {
        let path = PathBuf::from(decoded(url.path)?);
        if !path.is_absolute() {
            return Err("a file URL needs an absolute path; write file:///PATH".into());
        }
        let mut root = None;
        let mut create = false;
        let mut group_access = false;
        for (name, value) in url.parameters {
            match name {
                _ if RootSource::is_parameter(name) => RootSource::set(&mut root, name, value)?,
                "create" => create = boolean(name, value)?,
                "group_access" => group_access = boolean(name, value)?,
                _ if is_secret(name) => return Err(secret_in_url().into()),
                _ => {
                    let text = "unknown parameter; a file URL takes create, group_access";
                    return Err(format!("{text} and one of {SOURCES}").into());
                }
            }
        }
        Ok(Self { path, create, group_access, root })
    }

    /// Returns the path of the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the options for opening, creating or restoring the store: the URL's `group_access`.
    pub fn options(&self) -> FileOptions {
        FileOptions::new().group_access(self.group_access)
    }

    /// Reports whether the URL names the root secret.
    pub fn names_root_secret(&self) -> bool {
        self.root.is_some()
    }

    /// Returns the file in `root_secret_file`, if the URL has this parameter.
    pub fn root_secret_file(&self) -> Option<&Path> {
        self.root.as_ref()?.file("root_secret_file")
    }

    /// Returns the file in `root_secret_file` or `passphrase_file`, if the URL has one of these.
    pub fn secret_file(&self) -> Option<&Path> {
        let root = self.root.as_ref()?;
        root.file("root_secret_file").or_else(|| root.file("passphrase_file"))
    }

    /// Reads the root secret from the file or the variable that the URL names. A file is checked as
    /// [`SecretFile`](crate::file::SecretFile) describes.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if the URL names no root secret, or if the file or
    /// variable is refused, cannot be read or contains something else. The error names the
    /// parameter.
    pub fn root_secret(&self) -> Result<RootSecret> {
        RootSource::required(self.root.as_ref()).and_then(RootSource::read).map_err(|e| refusal(SCHEME, e))
    }

    /// Opens the store with this root secret, or creates it if it does not exist and the URL has
    /// `create=true`.
    ///
    /// # Errors
    /// Those of [`FileStore::open`] and [`FileStore::open_or_create`].
    pub async fn open_with(&self, root: RootSecret) -> Result<FileStore> {
        match self.create {
            true => self.options().open_or_create(&self.path, root).await,
            false => self.options().open(&self.path, root).await,
        }
    }

    /// Returns the URL if it names a root secret.
    pub(super) fn with_root_secret(self) -> Result<Self> {
        RootSource::required(self.root.as_ref()).map_err(|e| refusal(SCHEME, e))?;
        Ok(self)
    }
}

impl fmt::Debug for FileUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileUrl")
            .field("create", &self.create)
            .field("group_access", &self.group_access)
            .finish_non_exhaustive()
    }
}
