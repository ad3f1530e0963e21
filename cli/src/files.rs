//! New files for their owner only. Nothing that stands is ever overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::exit::{CommandError, Outcome};

/// Writes a new file of mode 0600, and returns when it is on the disk, name and all.
pub(crate) fn create_private(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let shown = path.display();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            CommandError::refused(format!("there is a file {shown} already, and it was left alone: give another one"))
        }
        io::ErrorKind::PermissionDenied => {
            CommandError::new(crate::exit::Code::Denied, format!("creating the file {shown} failed")).because(e)
        }
        _ => CommandError::other(format!("creating the file {shown} failed")).because(e),
    })?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| sync_name(path));
    written.map_err(|e| {
        // It was made a moment ago, by us; what is half a secret is of no use.
        let _ = fs::remove_file(path);
        CommandError::other(format!("writing the file {shown} failed")).because(e)
    })
}

/// Makes the file's name durable.
pub(crate) fn sync_name(path: &Path) -> io::Result<()> {
    match path.parent().filter(|_| cfg!(unix)) {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
