//! [`Location`]: where the store is, checked before anything is touched.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use keystead_core::ErrorKind;

use crate::error::{Failure, Result};

/// SQLite takes 511 bytes, with the suffix of a journal.
const MAX_PATH_LEN: usize = 500;

/// The path of a store whose directory exists and is safe, and the paths beside it.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    pub(crate) path: PathBuf,
    pub(crate) wal: PathBuf,
    pub(crate) journal: PathBuf,
    pub(crate) lock: PathBuf,
}

/// What stands at the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Nothing,
    /// Left behind by a creation that was cut off, or made by hand: there is nothing in it to lose.
    EmptyFile,
    File,
}

/// Tells a file from another one that has taken its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity(u64, u64);

impl Location {
    /// Checks the path's directory, without creating anything: `None` if the directory is missing.
    pub(crate) fn find(path: &Path) -> Result<Option<Self>> {
        let (directory, name) = split(path)?;
        let metadata = match fs::metadata(&directory) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Failure::io("looking at the directory", &directory, e)),
        };
        check_directory(&directory, &metadata)?;
        // SQLite is told to follow no symbolic link; those above the store's own directory are the system's business.
        let directory =
            fs::canonicalize(&directory).map_err(|e| Failure::io("resolving the directory", &directory, e))?;
        let path = directory.join(name);
        check_len(&path)?;
        let beside = |suffix| PathBuf::from([path.as_os_str(), suffix].iter().copied().collect::<std::ffi::OsString>());
        let (wal, journal, lock) = (beside("-wal".as_ref()), beside("-journal".as_ref()), beside(".lock".as_ref()));
        Ok(Some(Self { path, wal, journal, lock }))
    }

    /// Like [`find`](Self::find), and creates a missing directory, for its owner only.
    pub(crate) fn find_or_create_directory(path: &Path) -> Result<Self> {
        if let Some(location) = Self::find(path)? {
            return Ok(location);
        }
        let (directory, _) = split(path)?;
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let missing: Vec<&Path> = directory.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
        builder.create(&directory).map_err(|e| Failure::io("creating the directory", &directory, e))?;
        missing.into_iter().try_for_each(sync_name)?;
        Self::find(path)?.ok_or_else(|| Failure::new(ErrorKind::Unavailable, "the directory vanished: try again"))
    }

    /// What stands at the path; refuses what is no plain file or is open to others.
    pub(crate) fn standing(&self) -> Result<Standing> {
        match metadata(&self.path)? {
            None => Ok(Standing::Nothing),
            Some(metadata) => {
                check_file(&self.path, &metadata)?;
                Ok(if metadata.len() == 0 { Standing::EmptyFile } else { Standing::File })
            }
        }
    }

    /// Creates the store's file, empty and for its owner only; whether there was none.
    pub(crate) fn create_file(&self) -> Result<bool> {
        let created = match private(OpenOptions::new().write(true).create_new(true)).open(&self.path) {
            Ok(_) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(Failure::io("creating", &self.path, e)),
        };
        self.sync_directory()?;
        Ok(created)
    }

    /// Makes the names in the directory durable.
    pub(crate) fn sync_directory(&self) -> Result<()> {
        sync_name(&self.path)
    }

    /// Opens, or creates for its owner only, the file that writers lock.
    pub(crate) fn open_lock_file(&self) -> Result<File> {
        if let Some(metadata) = metadata(&self.lock)? {
            check_file(&self.lock, &metadata)?;
        }
        private(OpenOptions::new().write(true).create(true).truncate(false))
            .open(&self.lock)
            .map_err(|e| Failure::io("opening", &self.lock, e))
    }

    /// The length of the write-ahead log in bytes; 0 if there is none.
    pub(crate) fn wal_len(&self) -> Result<u64> {
        Ok(metadata(&self.wal)?.map_or(0, |metadata| metadata.len()))
    }

    pub(crate) fn has_journal(&self) -> Result<bool> {
        Ok(metadata(&self.journal)?.is_some())
    }

    /// The file that has the store's name now; `None` if there is none.
    pub(crate) fn identity(&self) -> Result<Option<FileIdentity>> {
        Ok(metadata(&self.path)?.map(|metadata| identity(&metadata)))
    }
}

/// Makes the name of a file or a directory durable.
fn sync_name(path: &Path) -> Result<()> {
    let Some(parent) = path.parent().filter(|_| cfg!(unix)) else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let synced = File::open(parent).and_then(|parent| parent.sync_all());
    synced.map_err(|e| Failure::io("syncing the directory", parent, e))
}

fn check_len(path: &Path) -> Result<()> {
    if path.as_os_str().len() > MAX_PATH_LEN {
        let text = format!("the path has more than {MAX_PATH_LEN} bytes, which SQLite cannot open: give a shorter one");
        return Err(Failure::new(ErrorKind::Config, text));
    }
    Ok(())
}

fn split(path: &Path) -> Result<(PathBuf, PathBuf)> {
    check_len(path)?;
    let no_file = || Failure::new(ErrorKind::Config, "the path names no file: give one such as keys.db in a directory");
    let name = path.file_name().ok_or_else(no_file)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((directory.to_owned(), PathBuf::from(name)))
}

fn metadata(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::io("looking at", path, e)),
    }
}

fn check_directory(path: &Path, metadata: &Metadata) -> Result<()> {
    let shown = path.display();
    if !metadata.is_dir() {
        return Err(Failure::new(ErrorKind::Config, format!("{shown} is no directory: give a path inside of one")));
    }
    if mode(metadata) & 0o002 != 0 {
        let sticky = mode(metadata) & 0o1000 != 0;
        // A directory such as the system's temporary one is meant to be so.
        let mend = if sticky {
            "put the store into a directory of its own".into()
        } else {
            format!("run chmod o-w '{shown}'")
        };
        return Err(Failure::new(ErrorKind::Config, format!("everybody may write to the directory {shown}: {mend}")));
    }
    check_writable(path, metadata)
}

fn check_file(path: &Path, metadata: &Metadata) -> Result<()> {
    let shown = path.display();
    if metadata.is_symlink() {
        let text = format!("{shown} is a symbolic link: give the path that it leads to");
        return Err(Failure::new(ErrorKind::Config, text));
    }
    if !metadata.is_file() {
        return Err(Failure::new(ErrorKind::Config, format!("{shown} is no regular file: give another path")));
    }
    if mode(metadata) & 0o077 != 0 {
        let text = format!("others may read or write {shown}: run chmod 600 '{shown}'");
        return Err(Failure::new(ErrorKind::Config, text));
    }
    check_writable(path, metadata)
}

fn check_writable(path: &Path, metadata: &Metadata) -> Result<()> {
    let shown = path.display();
    // Told from the mode first, so that it is the same for root, whom no mode stops.
    if metadata.permissions().readonly() {
        let text =
            format!("nobody may write to {shown}, and a store writes even when it is read: run chmod u+w '{shown}'");
        return Err(Failure::new(ErrorKind::PermissionDenied, text));
    }
    may_write(path).map_err(|e| {
        let text = format!("this user may not read and write {shown} ({e}): give it the right to, or another path");
        Failure::new(ErrorKind::PermissionDenied, text)
    })
}

/// Asks without opening: our process must not open or close the database's file by itself.
#[cfg(unix)]
fn may_write(path: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    Ok(access(path, Access::READ_OK | Access::WRITE_OK)?)
}

#[cfg(not(unix))]
fn may_write(_: &Path) -> io::Result<()> {
    Ok(())
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(unix)]
fn mode(metadata: &Metadata) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions())
}

#[cfg(not(unix))]
fn mode(_: &Metadata) -> u32 {
    0
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> FileIdentity {
    use std::os::unix::fs::MetadataExt;
    FileIdentity(metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> FileIdentity {
    FileIdentity(0, 0)
}
