//! [`SecretFile`]: a file with a root secret or a passphrase, opened and checked.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use keystead_sealing::{InvalidRootSecret, RootSecret};
use zeroize::Zeroizing;

/// The length in bytes of the longest file with a root secret or a passphrase.
const MAX_SECRET_LEN: usize = 4096;

/// A file that contains a root secret or a passphrase, opened and checked.
///
/// Symbolic links are followed, because Kubernetes mounts secrets as links. The checks apply to the
/// open file, so that nobody can replace it in between:
///
/// - It must be a regular file or a pipe, such as that of the shell's `<(...)`. A pipe without a
///   writer is an error; a pipe with a writer is read until the writer closes it.
/// - A file that its group or others may write is refused.
/// - A file that its group or others may read is refused if this user can change that, because the
///   file belongs to the user and the mount is writable. Otherwise it is accepted, as the secrets
///   of Kubernetes and Docker are, and [`is_readable_by_others`](Self::is_readable_by_others)
///   reports it.
///
/// On systems other than Unix nothing is checked. `Debug` shows the path.
///
/// ```no_run
/// use keystead::file::SecretFile;
///
/// let root = SecretFile::open("/run/secrets/root")?.read_root_secret()?;
/// # Ok::<(), keystead::file::SecretFileError>(())
/// ```
#[derive(Debug)]
pub struct SecretFile {
    file: File,
    path: PathBuf,
    is_pipe: bool,
    is_readable_by_others: Option<bool>,
}

impl SecretFile {
    /// Opens the file and checks it. Nothing is read yet.
    ///
    /// # Errors
    /// [`SecretFileError`] if the file cannot be opened or fails the checks of [`SecretFile`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SecretFileError> {
        Self::open_checked(path.as_ref()).map_err(SecretFileError)
    }

    /// Reports whether the file's group or others may read it, although only its owner should.
    /// Returns `None` if the system cannot tell.
    pub fn is_readable_by_others(&self) -> Option<bool> {
        self.is_readable_by_others
    }

    /// Reads a root secret, as [`RootSecret::parse`] does. May block on a pipe.
    ///
    /// # Errors
    /// [`SecretFileError`] if the file cannot be read, is longer than 4096 bytes, or contains
    /// something else.
    pub fn read_root_secret(self) -> Result<RootSecret, SecretFileError> {
        self.read(RootSecret::parse).map_err(SecretFileError)
    }

    /// Reads a passphrase, as [`RootSecret::parse_passphrase`] does. May block on a pipe.
    ///
    /// # Errors
    /// [`SecretFileError`] if the file cannot be read, is longer than 4096 bytes, or contains
    /// something else.
    pub fn read_passphrase(self) -> Result<RootSecret, SecretFileError> {
        self.read(RootSecret::parse_passphrase).map_err(SecretFileError)
    }

    /// Reads a secret of another kind: passes the bytes of the file to `parse`, and wipes them
    /// afterwards. May block on a pipe.
    ///
    /// # Errors
    /// [`SecretFileError`] if the file cannot be read or is longer than 4096 bytes.
    pub fn read_with<T>(self, parse: impl FnOnce(&[u8]) -> T) -> Result<T, SecretFileError> {
        Ok(parse(&self.read_contents().map_err(SecretFileError)?))
    }

    fn read(self, parse: fn(&[u8]) -> Result<RootSecret, InvalidRootSecret>) -> Result<RootSecret, Problem> {
        parse(&self.read_contents()?).map_err(Problem::Invalid)
    }

    fn read_contents(self) -> Result<Zeroizing<Vec<u8>>, Problem> {
        // The capacity is larger than needed, so that the buffer never grows and leaves a copy
        // behind.
        let mut contents = Zeroizing::new(Vec::with_capacity(2 * MAX_SECRET_LEN));
        self.file.take(MAX_SECRET_LEN as u64 + 1).read_to_end(&mut contents).map_err(Problem::Unreadable)?;
        if contents.len() > MAX_SECRET_LEN {
            return Err(Problem::TooLong { path: self.path });
        }
        if contents.is_empty() && self.is_pipe {
            return Err(Problem::EmptyPipe { path: self.path });
        }
        Ok(contents)
    }

    #[cfg(unix)]
    fn open_checked(path: &Path) -> Result<Self, Problem> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};

        use rustix::fs::{Mode, OFlags, StatVfsMountFlags, fcntl_getfl, fcntl_setfl, fstatvfs, open};

        let unreadable = |e: rustix::io::Errno| Problem::Unreadable(e.into());
        // Without NONBLOCK, opening waits for a pipe's writer, and there may never be one.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let file = File::from(open(path, flags, Mode::empty()).map_err(unreadable)?);
        let path = path.to_owned();

        let metadata = file.metadata().map_err(Problem::Unreadable)?;
        let is_pipe = metadata.file_type().is_fifo();
        if !metadata.is_file() && !is_pipe {
            return Err(Problem::NotAFile { path });
        }
        let mount = fstatvfs(&file).map_err(unreadable)?;
        let permissions = FilePermissions {
            mode: metadata.mode(),
            is_ours: metadata.uid() == rustix::process::geteuid().as_raw(),
            is_mount_writable: !mount.f_flag.contains(StatVfsMountFlags::RDONLY),
        };
        // A pipe without a name cannot be opened by others, whatever mode the system reports for
        // it.
        let is_inherited_pipe = is_pipe && path.starts_with("/dev/fd");
        let decision = if is_inherited_pipe { Decision::AcceptPrivate } else { permissions.decide() };
        let is_readable_by_others = match decision {
            Decision::AcceptPrivate => false,
            Decision::AcceptReadable => true,
            Decision::RefuseReadable => return Err(Problem::ReadableByOthers { path }),
            Decision::RefuseWritable => {
                return Err(Problem::WritableByOthers { path, is_ours: permissions.is_ours });
            }
        };
        if is_pipe {
            // From here on, reads wait for the writer.
            let flags = fcntl_getfl(&file).map_err(unreadable)?;
            fcntl_setfl(&file, flags - OFlags::NONBLOCK).map_err(unreadable)?;
        }
        Ok(Self { file, path, is_pipe, is_readable_by_others: Some(is_readable_by_others) })
    }

    #[cfg(not(unix))]
    fn open_checked(path: &Path) -> Result<Self, Problem> {
        let file = File::open(path).map_err(Problem::Unreadable)?;
        Ok(Self { file, path: path.to_owned(), is_pipe: false, is_readable_by_others: None })
    }
}

/// The permissions of an open file, and whether this user can change them.
#[cfg(unix)]
#[derive(Clone, Copy, Debug)]
struct FilePermissions {
    mode: u32,
    is_ours: bool,
    is_mount_writable: bool,
}

/// A decision about an open file, made from its permissions.
#[cfg(unix)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    AcceptPrivate,
    AcceptReadable,
    RefuseReadable,
    RefuseWritable,
}

#[cfg(unix)]
impl FilePermissions {
    fn decide(self) -> Decision {
        if self.mode & 0o022 != 0 {
            Decision::RefuseWritable
        } else if self.mode & 0o044 == 0 {
            Decision::AcceptPrivate
        } else if self.is_ours && self.is_mount_writable {
            Decision::RefuseReadable
        } else {
            Decision::AcceptReadable
        }
    }
}

/// The error of a [`SecretFile`]: the fault of the file, and what to do.
///
/// It never contains the contents of the file. It shows the path only of a file that exists,
/// because a secret may be given by mistake where a path is expected.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SecretFileError(Problem);

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("the secret's file cannot be read: {0}; give a file that this user can read")]
    Unreadable(io::Error),
    #[cfg(unix)]
    #[error("{path} is neither a regular file nor a pipe; give one of these")]
    NotAFile { path: PathBuf },
    #[cfg(unix)]
    #[error("others may read the secret in {path}; run chmod 600 '{path}'")]
    ReadableByOthers { path: PathBuf },
    #[cfg(unix)]
    #[error("others may write to the secret's file {path}; {} '{path}'", if *.is_ours {
        "run chmod 600"
    } else {
        "have its owner run chmod go-w"
    })]
    WritableByOthers { path: PathBuf, is_ours: bool },
    #[error("{path} has more than {MAX_SECRET_LEN} bytes; give a file that contains nothing but the secret")]
    TooLong { path: PathBuf },
    #[error("nothing was written to the pipe {path}; start its writer first")]
    EmptyPipe { path: PathBuf },
    #[error("{0}")]
    Invalid(InvalidRootSecret),
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_decision_depends_on_mode_owner_and_mount() {
        use Decision::{AcceptPrivate, AcceptReadable, RefuseReadable, RefuseWritable};

        // The decisions for our file on a writable mount, and for any other file.
        for (mode, ours, others) in [
            (0o600, AcceptPrivate, AcceptPrivate),
            (0o400, AcceptPrivate, AcceptPrivate),
            (0o711, AcceptPrivate, AcceptPrivate),
            (0o640, RefuseReadable, AcceptReadable),
            (0o604, RefuseReadable, AcceptReadable),
            (0o440, RefuseReadable, AcceptReadable),
            (0o444, RefuseReadable, AcceptReadable),
            (0o644, RefuseReadable, AcceptReadable),
            (0o620, RefuseWritable, RefuseWritable),
            (0o602, RefuseWritable, RefuseWritable),
            (0o660, RefuseWritable, RefuseWritable),
            (0o666, RefuseWritable, RefuseWritable),
        ] {
            for (is_ours, is_mount_writable) in [(true, true), (true, false), (false, true), (false, false)] {
                let expected = if is_ours && is_mount_writable { ours } else { others };
                // With the bits of a regular file, which are not permissions.
                let permissions = FilePermissions { mode: 0o100_000 | mode, is_ours, is_mount_writable };
                assert_eq!(permissions.decide(), expected, "{permissions:?}");
            }
        }
    }
}
