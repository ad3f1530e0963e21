//! [`FileUrl`]: the contents of a `file:` URL.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use keystead_file::{FileOptions, FileStore, RootSecret};
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::secret_file::SecretFile;
use super::{refusal, url};
use crate::{BoxError, Result};

const SCHEME: &str = "file";

/// The parameters that name a root secret, for people.
const SOURCES: &str = "root_secret_file, root_secret_env, passphrase_file or passphrase_env";

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
    /// The parameter that names the root secret, and its value.
    source: Option<(String, OsString)>,
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
        let mut source = None;
        let mut create = false;
        let mut group_access = false;
        for (name, value) in url.parameters {
            match name {
                "root_secret_file" | "root_secret_env" | "passphrase_file" | "passphrase_env" => {
                    if source.replace((name.to_owned(), decoded(value)?)).is_some() {
                        return Err(format!("the root secret is given twice; give one of {SOURCES}").into());
                    }
                }
                "create" => create = boolean(name, value)?,
                "group_access" => group_access = boolean(name, value)?,
                "root_secret" | "passphrase" | "password" | "secret" | "key" => {
                    let text = "a secret must not stand in a URL, because URLs are logged and listed";
                    return Err(format!("{text}; give {SOURCES}").into());
                }
                _ => {
                    let text = "unknown parameter; a file URL takes create, group_access";
                    return Err(format!("{text} and one of {SOURCES}").into());
                }
            }
        }
        Ok(Self { path, create, group_access, source })
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
        self.source.is_some()
    }

    /// Returns the file in `root_secret_file`, if the URL has this parameter.
    pub fn root_secret_file(&self) -> Option<&Path> {
        let (parameter, source) = self.source.as_ref()?;
        (parameter == "root_secret_file").then_some(Path::new(source))
    }

    /// Returns the file in `root_secret_file` or `passphrase_file`, if the URL has one of these.
    pub fn secret_file(&self) -> Option<&Path> {
        let (parameter, source) = self.source.as_ref()?;
        parameter.ends_with("_file").then_some(Path::new(source))
    }

    /// Reads the root secret from the file or the variable that the URL names. A file is checked as
    /// [`SecretFile`] describes.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if the URL names no root secret, or if the file or
    /// variable is refused, cannot be read or contains something else. The error names the
    /// parameter.
    pub fn root_secret(&self) -> Result<RootSecret> {
        let read = || -> Result<RootSecret, BoxError> {
            let (parameter, source) = self.source()?;
            let is_passphrase = parameter.starts_with("passphrase");
            if parameter.ends_with("_env") {
                let contents = variable(parameter, source)?;
                let parse = if is_passphrase { RootSecret::parse_passphrase } else { RootSecret::parse };
                return parse(&contents).map_err(|e| format!("{parameter}: {e}").into());
            }
            let read = if is_passphrase { SecretFile::read_passphrase } else { SecretFile::read_root_secret };
            SecretFile::open(source).and_then(read).map_err(|e| format!("{parameter}: {e}").into())
        };
        read().map_err(|e| refusal(SCHEME, e))
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
        self.source().map_err(|e| refusal(SCHEME, e))?;
        Ok(self)
    }

    /// Returns the parameter that names the root secret, and its value.
    fn source(&self) -> Result<(&str, &OsStr), BoxError> {
        let missing = || format!("no root secret is given; give one of {SOURCES}");
        Ok(self
            .source
            .as_ref()
            .map(|(parameter, source)| (parameter.as_str(), source.as_os_str()))
            .ok_or_else(missing)?)
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

/// Returns the value of a parameter that is true or false.
fn boolean(name: &str, value: &str) -> Result<bool, BoxError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("the parameter {name} is neither true nor false; give one of these").into()),
    }
}

/// Decodes a part of a URL into the system's own string type.
fn decoded(text: &str) -> Result<OsString, BoxError> {
    let is_hex = |index: usize| text.as_bytes().get(index).is_some_and(u8::is_ascii_hexdigit);
    if text.match_indices('%').any(|(index, _)| !is_hex(index + 1) || !is_hex(index + 2)) {
        return Err("a % is not followed by two hexadecimal digits; write % itself as %25".into());
    }
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    if bytes.contains(&0) {
        return Err("a path or name contains a zero byte; remove %00".into());
    }
    #[cfg(unix)]
    return Ok(std::os::unix::ffi::OsStringExt::from_vec(bytes));
    #[cfg(not(unix))]
    return Ok(String::from_utf8(bytes).map_err(|_| "a path or name is not UTF-8; correct the %XX in it")?.into());
}

/// Returns the contents of the variable that a parameter names.
fn variable(parameter: &str, name: &OsStr) -> Result<Zeroizing<Vec<u8>>, BoxError> {
    let value = std::env::var_os(name);
    let value = value.ok_or_else(|| format!("the variable that {parameter} names is not set; set it"))?;
    Ok(Zeroizing::new(value.into_encoded_bytes()))
}
