//! [`Location`]: the paths of a store's files, and the checks of what is there.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use keystead_core::ErrorKind;

use crate::error::{FileError, Result};

/// The length in bytes of the longest path. SQLite accepts 511 bytes, including a journal's suffix.
const MAX_PATH_LEN: usize = 500;

/// The suffix of the copy of a backup, which a restore checks before it renames anything.
const RESTORING_COPY: &str = ".restoring-copy";

/// The path of a store and the paths of the files beside it. The directory exists and is safe.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    pub(crate) path: PathBuf,
    pub(crate) wal: PathBuf,
    pub(crate) journal: PathBuf,
    pub(crate) lock: PathBuf,
    pub(crate) mark: PathBuf,
    pub(crate) restoring: PathBuf,
    /// True if the group may read and write the files.
    group_access: bool,
}

/// The state of the store's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathState {
    Missing,
    /// An empty file, left behind by an interrupted creation or made by hand.
    EmptyFile,
    /// A file that is not empty.
    File,
}

/// The device and inode of a file. They differ if another file has taken its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity(u64, u64);

/// The metadata of a write-ahead log. It changes with every write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogState {
    pub(crate) identity: FileIdentity,
    pub(crate) len: u64,
    modified: Option<SystemTime>,
}

impl Location {
    /// Checks the directory of the path, without creating anything. Returns `None` if the directory
    /// is missing.
    pub(crate) fn find(path: &Path, group_access: bool) -> Result<Option<Self>> {
        let (directory, name) = split(path)?;
        let metadata = match fs::metadata(&directory) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(FileError::io("looking at the directory", &directory, e)),
        };
        check_directory(&directory, &metadata)?;
        // SQLite is told to follow no symbolic link. Links in the path of the directory are
        // allowed, so they are resolved here.
        let directory =
            fs::canonicalize(&directory).map_err(|e| FileError::io("resolving the directory", &directory, e))?;
        let path = directory.join(name);
        check_len(&path)?;
        Ok(Some(Self {
            wal: with_suffix(&path, "-wal"),
            journal: with_suffix(&path, "-journal"),
            lock: with_suffix(&path, ".lock"),
            mark: with_suffix(&path, ".id"),
            restoring: with_suffix(&path, ".restoring"),
            path,
            group_access,
        }))
    }

    /// Like [`find`](Self::find), but creates a missing directory, with access for its owner only.
    pub(crate) fn find_or_create_directory(path: &Path, group_access: bool) -> Result<Self> {
        if let Some(location) = Self::find(path, group_access)? {
            return Ok(location);
        }
        let (directory, _) = split(path)?;
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let missing: Vec<&Path> = directory.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
        builder.create(&directory).map_err(|e| FileError::io("creating the directory", &directory, e))?;
        missing.into_iter().try_for_each(sync_name)?;
        Self::find(path, group_access)?
            .ok_or_else(|| FileError::new(ErrorKind::Unavailable, "the directory was removed meanwhile: try again"))
    }

    pub(crate) fn group_access(&self) -> bool {
        self.group_access
    }

    /// Returns the location of another store beside this one.
    fn neighbor(&self, suffix: &str) -> Result<Self> {
        let location = Self::find(&self.beside(suffix), self.group_access)?;
        location.ok_or_else(|| FileError::new(ErrorKind::Unavailable, "the directory was removed meanwhile: try again"))
    }

    /// Returns the location of the copy of a backup that is being restored.
    pub(crate) fn restoring_copy(&self) -> Result<Self> {
        self.neighbor(RESTORING_COPY)
    }

    /// Removes the copy that an interrupted restore has left before it changed anything. The copy
    /// contains keys that have been erased since the backup.
    ///
    /// The caller holds the mark and has found no note of a restore. If this fails, the next
    /// process that opens or restores the store tries again.
    pub(crate) fn remove_abandoned_copy(&self) {
        if self.beside(RESTORING_COPY).try_exists().unwrap_or(false)
            && let Ok(copy) = self.restoring_copy()
        {
            let _ = copy.remove_files();
        }
    }

    /// Removes the store's file and the files that SQLite keeps beside it. If one of them cannot be
    /// removed, the others still are.
    pub(crate) fn remove_files(&self) -> Result<()> {
        let removed = [&self.path, &self.wal, &self.journal, &self.beside("-shm")].map(|path| remove(path));
        removed.into_iter().collect()
    }

    /// Returns the path of a file beside this store.
    pub(crate) fn beside(&self, suffix: &str) -> PathBuf {
        with_suffix(&self.path, suffix)
    }

    /// Returns the state of the path. Fails if what is there is not a regular file with a single
    /// name, or if other users may access it.
    pub(crate) fn state(&self) -> Result<PathState> {
        let Some(metadata) = metadata(&self.path)? else { return Ok(PathState::Missing) };
        check_file(&self.path, &metadata, self.group_access)?;
        check_names(&self.path, &metadata)?;
        Ok(if metadata.len() == 0 { PathState::EmptyFile } else { PathState::File })
    }

    /// Returns a suffix that begins with this one and that no file beside the store has yet, nor a
    /// log of such a file.
    pub(crate) fn free_suffix(&self, suffix: &str) -> Result<String> {
        let numbered = (0..).map(|number| if number == 0 { suffix.to_owned() } else { format!("{suffix}-{number}") });
        for suffix in numbered.take(1000) {
            if metadata(&self.beside(&suffix))?.is_none() && metadata(&self.beside(&format!("{suffix}-wal")))?.is_none()
            {
                return Ok(suffix);
            }
        }
        Err(FileError::new(
            ErrorKind::Config,
            "the directory is full of replaced stores: remove those that you no longer need",
        ))
    }

    /// Creates the store's file, empty and with access for its owner only. Returns false if there
    /// is a file already.
    pub(crate) fn create_file(&self) -> Result<bool> {
        let created = match private(OpenOptions::new().write(true).create_new(true)).open(&self.path) {
            Ok(file) => {
                self.share_with_group(&file, &self.path)?;
                true
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(FileError::io("creating", &self.path, e)),
        };
        self.sync_directory()?;
        Ok(created)
    }

    /// Makes the names of the files in the store's directory durable.
    pub(crate) fn sync_directory(&self) -> Result<()> {
        sync_name(&self.path)
    }

    /// Opens a file of keystead's beside the store, such as the lock. Creates a missing file, with
    /// access for the store's owner only.
    pub(crate) fn open_beside(&self, path: &Path) -> Result<File> {
        if let Some(metadata) = metadata(path)? {
            check_file(path, &metadata, self.group_access)?;
        }
        let file = private(OpenOptions::new().read(true).write(true).create(true).truncate(false))
            .open(path)
            .map_err(|e| FileError::io("opening", path, e))?;
        self.give_to_owner(&file).map_err(|e| FileError::io("giving to the store's owner", path, e))?;
        self.share_with_group(&file, path)?;
        Ok(file)
    }

    /// If this process runs as root, makes the owner of the store the owner of this file. Otherwise
    /// that user could not lock the file.
    #[cfg(unix)]
    fn give_to_owner(&self, file: &File) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        let Ok(store) = fs::symlink_metadata(&self.path) else { return Ok(()) };
        if rustix::process::geteuid().is_root() && file.metadata()?.uid() != store.uid() {
            std::os::unix::fs::fchown(file, Some(store.uid()), Some(store.gid()))?;
        }
        Ok(())
    }

    #[cfg(not(unix))]
    fn give_to_owner(&self, _: &File) -> io::Result<()> {
        Ok(())
    }

    /// If this process runs as root, makes the owner of the mark the owner of this file. The mark
    /// belongs to the owner of the store, and is there even if the store's file is lost.
    pub(crate) fn give_to_owner_of_mark(&self, path: &Path) -> Result<()> {
        #[cfg(unix)]
        if let Some(mark) = metadata(&self.mark)?
            && rustix::process::geteuid().is_root()
        {
            use std::os::unix::fs::MetadataExt;
            let given = std::os::unix::fs::chown(path, Some(mark.uid()), Some(mark.gid()));
            given.map_err(|e| FileError::io("giving to the store's owner", path, e))?;
        }
        let _ = path;
        Ok(())
    }

    /// Lets the group read and write a file of keystead's, if the options say so. The mode given at
    /// its creation would not suffice, because the umask restricts it.
    fn share_with_group(&self, file: &File, path: &Path) -> Result<()> {
        #[cfg(unix)]
        if self.group_access {
            use std::os::unix::fs::PermissionsExt;
            let is_shared = file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o060 == 0o060);
            // A file that another member of the group has created is shared already, and this user
            // could not change its mode.
            if !is_shared {
                let shared = file.set_permissions(fs::Permissions::from_mode(0o660));
                shared.map_err(|e| FileError::io("sharing with the group", path, e))?;
            }
        }
        let _ = (file, path);
        Ok(())
    }

    /// Returns the length of the write-ahead log in bytes; 0 if there is none.
    pub(crate) fn wal_len(&self) -> Result<u64> {
        Ok(metadata(&self.wal)?.map_or(0, |metadata| metadata.len()))
    }

    /// Makes the contents of the write-ahead log durable. SQLite has no lock on this file, so this
    /// process may open and close it by itself.
    pub(crate) fn sync_log(&self) -> Result<()> {
        let synced = File::open(&self.wal).and_then(|log| log.sync_data());
        synced.map_err(|e| FileError::io("syncing", &self.wal, e))
    }

    /// Returns the metadata of the write-ahead log; `None` if there is none.
    pub(crate) fn log_state(&self) -> Result<Option<LogState>> {
        let state = |metadata: Metadata| LogState {
            identity: identity(&metadata),
            len: metadata.len(),
            modified: metadata.modified().ok(),
        };
        Ok(metadata(&self.wal)?.map(state))
    }

    pub(crate) fn has_mark(&self) -> Result<bool> {
        Ok(metadata(&self.mark)?.is_some())
    }

    /// Reports whether a restore has begun and not ended.
    pub(crate) fn is_being_restored(&self) -> Result<bool> {
        Ok(metadata(&self.restoring)?.is_some())
    }

    pub(crate) fn has_journal(&self) -> Result<bool> {
        Ok(metadata(&self.journal)?.is_some())
    }

    /// Returns the identity of the file that is at the store's path now; `None` if there is none.
    pub(crate) fn identity(&self) -> Result<Option<FileIdentity>> {
        Ok(metadata(&self.path)?.map(|metadata| identity(&metadata)))
    }
}

/// Appends a suffix to the last name of a path.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::io("removing", path, e)),
        _ => Ok(()),
    }
}

/// Makes the name of a file or a directory durable.
fn sync_name(path: &Path) -> Result<()> {
    let Some(parent) = path.parent().filter(|_| cfg!(unix)) else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let synced = File::open(parent).and_then(|parent| parent.sync_all());
    synced.map_err(|e| FileError::io("syncing the directory", parent, e))
}

fn check_len(path: &Path) -> Result<()> {
    if path.as_os_str().len() > MAX_PATH_LEN {
        let text =
            format!("the path is longer than {MAX_PATH_LEN} bytes, which SQLite cannot open: give a shorter one");
        return Err(FileError::new(ErrorKind::Config, text));
    }
    Ok(())
}

fn split(path: &Path) -> Result<(PathBuf, PathBuf)> {
    check_len(path)?;
    let no_file =
        || FileError::new(ErrorKind::Config, "the path does not name a file: give one such as keys.db in a directory");
    let name = path.file_name().ok_or_else(no_file)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((directory.to_owned(), PathBuf::from(name)))
}

fn metadata(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FileError::io("looking at", path, e)),
    }
}

fn check_directory(path: &Path, metadata: &Metadata) -> Result<()> {
    let shown = path.display();
    if !metadata.is_dir() {
        return Err(FileError::new(
            ErrorKind::Config,
            format!("{shown} is not a directory: give a path inside a directory"),
        ));
    }
    if mode(metadata) & 0o002 != 0 {
        let sticky = mode(metadata) & 0o1000 != 0;
        // A sticky directory, such as the system's temporary one, must stay writable for everybody.
        let remedy = if sticky {
            "put the store into a directory of its own".into()
        } else {
            format!("run chmod o-w '{shown}'")
        };
        return Err(FileError::new(
            ErrorKind::Config,
            format!("everybody may write to the directory {shown}: {remedy}"),
        ));
    }
    check_writable(path, metadata)
}

fn check_file(path: &Path, metadata: &Metadata, group_access: bool) -> Result<()> {
    let shown = path.display();
    let (others, remedy) = if group_access { (0o007, "chmod o-rwx") } else { (0o077, "chmod 600") };
    if metadata.is_symlink() {
        let text = format!("{shown} is a symbolic link: give the path that it points to");
        return Err(FileError::new(ErrorKind::Config, text));
    }
    if !metadata.is_file() {
        return Err(FileError::new(ErrorKind::Config, format!("{shown} is not a regular file: give another path")));
    }
    if mode(metadata) & others != 0 {
        let text = format!("others may read or write {shown}: run {remedy} '{shown}'");
        return Err(FileError::new(ErrorKind::Config, text));
    }
    check_writable(path, metadata)
}

/// Fails if a file has several names. Each name would have a log of its own, and writes under one
/// name would be lost under the others.
#[cfg(unix)]
fn check_names(path: &Path, metadata: &Metadata) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let shown = path.display();
    if metadata.nlink() > 1 {
        let names = metadata.nlink();
        let text = format!(
            "{shown} has {names} names (hard links), and each would have its own log: find the others with \
             find -samefile '{shown}' and remove them, or move the store to a copy made with keystead backup"
        );
        return Err(FileError::new(ErrorKind::Config, text));
    }
    if is_mount_point(path) {
        let text = format!("{shown} is mounted as a single file, without its log: mount its directory instead");
        return Err(FileError::new(ErrorKind::Config, text));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_names(_: &Path, _: &Metadata) -> Result<()> {
    Ok(())
}

/// Reports whether something is mounted at the path of a file.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let told = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    match told {
        Ok(told) if told.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            told.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
        }
        // Kernels before 5.8 do not report this attribute.
        _ => fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| {
            let mount_point = |line: &str| line.split(' ').nth(4).map(without_escapes);
            mounts.lines().filter_map(mount_point).any(|mounted| Path::new(&mounted) == path)
        }),
    }
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
fn is_mount_point(_: &Path) -> bool {
    false
}

/// Decodes the octal escapes of /proc/self/mountinfo (proc(5)).
#[cfg(any(target_os = "linux", target_os = "android"))]
fn without_escapes(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

fn check_writable(path: &Path, metadata: &Metadata) -> Result<()> {
    let shown = path.display();
    // The mode is checked first, so that root, whom no mode restricts, gets the same answer.
    if metadata.permissions().readonly() {
        let text =
            format!("nobody may write to {shown}, and even a reader of a store must write: run chmod u+w '{shown}'");
        return Err(FileError::new(ErrorKind::PermissionDenied, text));
    }
    may_write(path).map_err(|e| {
        if e.kind() == io::ErrorKind::NotFound {
            // A restore in another process does this.
            let text = format!("{shown} was moved or removed while it was opened: try again");
            return FileError::new(ErrorKind::Unavailable, text);
        }
        let text =
            format!("this user may not read and write {shown} ({e}): give the user that right, or give another path");
        FileError::new(ErrorKind::PermissionDenied, text)
    })
}

/// Checks the user's rights without opening the file, because a process must not open and close the
/// database's file by itself while it is connected.
#[cfg(unix)]
fn may_write(path: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    Ok(access(path, Access::READ_OK | Access::WRITE_OK)?)
}

#[cfg(not(unix))]
fn may_write(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Makes new files accessible for their owner only.
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
