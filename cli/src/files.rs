//! New files that only their owner can read. An existing file is never overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::exit::{CommandError, Outcome};

/// Creates a file of mode 0600, and syncs it and its name to the disk.
pub(crate) fn create_private(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let shown = path.display();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            CommandError::refused(format!("the file {shown} already exists and was left unchanged: name another file"))
        }
        io::ErrorKind::PermissionDenied => {
            CommandError::new(crate::exit::Code::Denied, format!("cannot create the file {shown}")).because(e)
        }
        _ => CommandError::other(format!("cannot create the file {shown}")).because(e),
    })?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| sync_name(path));
    written.map_err(|e| {
        // This call created the file, and half a secret is of no use.
        let _ = fs::remove_file(path);
        CommandError::other(format!("cannot write the file {shown}")).because(e)
    })
}

/// Syncs the directory of a file, so that the file's name is durable.
pub(crate) fn sync_name(path: &Path) -> io::Result<()> {
    match path.parent().filter(|_| cfg!(unix)) {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
