//! The person at the terminal: passphrases that are not shown, and questions.

use zeroize::Zeroizing;

use crate::exit::{Failure, Outcome};

/// No passphrase that is typed is longer, in bytes: the terminal itself takes no longer line.
#[cfg(unix)]
const MAX_LINE_LEN: usize = 4096;

/// Asks for a new passphrase, twice.
pub(crate) async fn new_passphrase() -> Outcome<Zeroizing<String>> {
    let first = passphrase("new passphrase: ").await?;
    if first.is_empty() {
        return Err(Failure::usage("the passphrase is empty: give one that is not"));
    }
    if passphrase("the same again: ").await? != first {
        return Err(Failure::usage("the two passphrases differ: nothing was done, try again"));
    }
    Ok(first)
}

/// Asks for a passphrase, which is not shown.
pub(crate) async fn passphrase(prompt: &str) -> Outcome<Zeroizing<String>> {
    line(prompt.to_owned(), true)
        .await?
        .ok_or_else(|| Failure::refused("there is no terminal to ask for the passphrase: give --passphrase-file FILE"))
}

/// Asks before something is done that cannot be undone; `nothing` says what was not done if the answer is not `yes`.
pub(crate) async fn confirm(question: &str, nothing: &str) -> Outcome<()> {
    match confirms(format!("{question} type yes: ")).await? {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::refused(format!("{nothing}: the answer was not yes"))),
        None => Err(Failure::refused(format!("{nothing}: there is no terminal to ask on, say --yes"))),
    }
}

/// Asks a question; whether the answer is `yes`. `None` without a terminal.
async fn confirms(question: String) -> Outcome<Option<bool>> {
    Ok(line(question, false).await?.map(|answer| answer.trim() == "yes"))
}

/// A line that is typed, on a thread of its own: nothing else stops for who types slowly.
async fn line(prompt: String, hidden: bool) -> Outcome<Option<Zeroizing<String>>> {
    match tokio::task::spawn_blocking(move || imp::line(&prompt, hidden)).await {
        Ok(line) => line.map_err(|e| Failure::other("asking on the terminal failed").because(e)),
        Err(_) => Err(Failure::other("asking on the terminal failed: the asking thread ended")),
    }
}

/// Shows again what is typed, if a question was cut off.
pub(crate) fn restore() {
    imp::restore();
}

#[cfg(unix)]
mod imp {
    use std::fs::{File, OpenOptions};
    use std::io::{self, IsTerminal, Read, Write};
    use std::sync::{Mutex, PoisonError};

    use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
    use zeroize::Zeroizing;

    use super::MAX_LINE_LEN;

    /// The terminal as it was before a question that hides what is typed.
    static BEFORE: Mutex<Option<(File, Termios)>> = Mutex::new(None);

    pub(super) fn restore() {
        if let Some((terminal, before)) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The terminal may be gone; then there is nothing to restore.
            let _ = tcsetattr(&terminal, OptionalActions::Flush, &before);
        }
    }

    /// `None` if nobody is there: no terminal, or standard error, where the question's reasons stand, leads elsewhere.
    pub(super) fn line(prompt: &str, hidden: bool) -> io::Result<Option<Zeroizing<String>>> {
        if !io::stderr().is_terminal() {
            return Ok(None);
        }
        let Ok(mut terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else { return Ok(None) };
        if hidden {
            hide(&terminal)?;
        }
        let line = terminal.write_all(prompt.as_bytes()).and_then(|()| read_line(&mut terminal));
        restore();
        line.map(Some)
    }

    fn hide(terminal: &File) -> io::Result<()> {
        let before = tcgetattr(terminal)?;
        let mut hiding = before.clone();
        hiding.local_modes.remove(LocalModes::ECHO);
        hiding.local_modes.insert(LocalModes::ECHONL);
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some((terminal.try_clone()?, before));
        // What was typed before the question is no answer to it.
        Ok(tcsetattr(terminal, OptionalActions::Flush, &hiding)?)
    }

    /// One line without its end. Read without a buffer that nobody wipes.
    fn read_line(terminal: &mut File) -> io::Result<Zeroizing<String>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LINE_LEN));
        let mut byte = Zeroizing::new([0]);
        while bytes.len() < MAX_LINE_LEN && terminal.read(&mut byte[..])? == 1 && byte[0] != b'\n' {
            bytes.push(byte[0]);
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| io::Error::other("what was typed is not UTF-8"))?;
        Ok(Zeroizing::new(text.to_owned()))
    }
}

/// Questions are asked on unix only; elsewhere files and `--yes` do.
#[cfg(not(unix))]
mod imp {
    use std::io;

    use zeroize::Zeroizing;

    pub(super) fn restore() {}

    pub(super) fn line(_: &str, _: bool) -> io::Result<Option<Zeroizing<String>>> {
        Ok(None)
    }
}
