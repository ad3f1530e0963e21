//! Input: ids and keys from standard input or files, and passphrases from files. Buffers are wiped,
//! and never grow, because that would leave copies behind.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use keystead::file::{RootSecret, SecretFile};
use keystead::{KeyId, SecretKey};
use zeroize::Zeroizing;

use crate::args::IdArgs;
use crate::encoding::{Format, MAX_WRITTEN_LEN};
use crate::exit::{CommandError, Outcome};
use crate::verbose;

impl IdArgs {
    /// Reports whether the id comes from standard input.
    pub(crate) fn is_on_stdin(&self) -> bool {
        self.id.as_deref() == Some("-")
    }

    pub(crate) async fn read(self) -> Outcome<KeyId> {
        let text = match (self.id, self.id_file) {
            (Some(id), _) if id != "-" => Zeroizing::new(id),
            (_, file) => {
                // Room for the longest id and the longest line break after it.
                let contents = read(file.as_deref(), "the id", KeyId::MAX_LEN + 2).await?;
                let text = std::str::from_utf8(&contents).map_err(|_| CommandError::usage("the id is not UTF-8"))?;
                Zeroizing::new(without_line_break(text).to_owned())
            }
        };
        KeyId::new(text.as_str()).map_err(|e| CommandError::usage("the id is not valid").because(e))
    }
}

/// Reads a key in this format from the file or from standard input.
pub(crate) async fn key(file: Option<&Path>, format: Format) -> Outcome<SecretKey> {
    if file.is_none() && io::stdin().is_terminal() {
        return Err(CommandError::refused(
            "a key that is typed would remain visible on the terminal: pipe it in, or give --key-file FILE",
        ));
    }
    format.decode(&read(file, "the key", MAX_WRITTEN_LEN).await?)
}

/// Reads a passphrase from the file that this option names.
pub(crate) async fn passphrase(file: &Path, option: &'static str) -> Outcome<RootSecret> {
    verbose::step(format!("reading the passphrase from {}", file.display()));
    let file = file.to_owned();
    let read = waiting(move || SecretFile::open(file).and_then(SecretFile::read_passphrase)).await?;
    read.map_err(|e| CommandError::usage(format!("cannot read the passphrase from the file of {option}")).because(e))
}

/// Runs a read that may wait for the writer of a pipe on a thread of its own, so that Ctrl-C still
/// ends the program.
pub(crate) async fn waiting<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Outcome<T> {
    let reading = tokio::task::spawn_blocking(read).await;
    reading.map_err(|_| CommandError::other("the secret cannot be read: the thread that read it ended unexpectedly"))
}

pub(crate) fn without_line_break(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

/// Reads at most `max` bytes from the file or from standard input, on a thread of its own, because
/// a person may type slowly. `what` names the contents in messages.
pub(crate) async fn read(file: Option<&Path>, what: &'static str, max: usize) -> Outcome<Zeroizing<Vec<u8>>> {
    match file {
        Some(file) => verbose::step(format!("reading {what} from {}", file.display())),
        None => verbose::step(format!("reading {what} from standard input")),
    }
    let file = file.map(Path::to_owned);
    let reading = tokio::task::spawn_blocking(move || {
        let mut contents = Zeroizing::new(Vec::with_capacity(2 * max));
        let mut source = match &file {
            Some(path) => File::open(path)?,
            None => unbuffered_stdin()?,
        };
        (&mut source).take(max as u64 + 1).read_to_end(&mut contents)?;
        Ok::<_, io::Error>(contents)
    });
    let contents = match reading.await {
        Ok(contents) => contents.map_err(|e| CommandError::usage(format!("{what} cannot be read")).because(e))?,
        Err(_) => {
            return Err(CommandError::other(format!(
                "{what} cannot be read: the thread that read it ended unexpectedly"
            )));
        }
    };
    if contents.len() > max {
        return Err(CommandError::usage(format!("{what} is longer than {max} bytes: give nothing but {what}")));
    }
    Ok(contents)
}

/// Returns standard input without the buffer of the standard library, which is never wiped.
fn unbuffered_stdin() -> io::Result<File> {
    #[cfg(unix)]
    return Ok(File::from(std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned()?));
    #[cfg(windows)]
    return Ok(File::from(std::os::windows::io::AsHandle::as_handle(&io::stdin()).try_clone_to_owned()?));
}
