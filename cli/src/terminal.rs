//! The person at the terminal: passphrases that are not shown, and questions. Both are asked on
//! `/dev/tty`, wherever standard input, output and error lead.

#[cfg(unix)]
#[path = "terminal/unix.rs"]
mod imp;
#[cfg(not(unix))]
#[path = "terminal/other.rs"]
mod imp;

use std::convert::Infallible;
use std::path::Path;

use zeroize::Zeroizing;

use crate::exit::{CommandError, Outcome};
use crate::verbose;

/// Asks for a new passphrase, twice.
pub(crate) async fn new_passphrase(store: &Path) -> Outcome<Zeroizing<String>> {
    let prompt = format!("new passphrase of {}: ", store.display());
    let first = passphrase(&prompt, "--passphrase-file").await?;
    if first.is_empty() {
        return Err(CommandError::usage("the passphrase is empty: give one that is not"));
    }
    if passphrase("the same again: ", "--passphrase-file").await? != first {
        return Err(CommandError::usage("the two passphrases differ: nothing was done, try again"));
    }
    Ok(first)
}

/// Asks for a passphrase, which is not shown. `option` is the one that names a file with it.
pub(crate) async fn passphrase(prompt: &str, option: &str) -> Outcome<Zeroizing<String>> {
    line(prompt.to_owned(), true).await?.ok_or_else(|| {
        CommandError::refused(format!("there is no terminal to ask for the passphrase: give {option} FILE"))
    })
}

/// Asks before something is done that cannot be undone; `nothing` says what was not done if the answer is not `yes`.
pub(crate) async fn confirm(question: &str, nothing: &str) -> Outcome<()> {
    match confirms(format!("{question} type yes: ")).await? {
        Some(true) => Ok(()),
        Some(false) => Err(CommandError::refused(format!("{nothing}: the answer was not yes"))),
        None => Err(CommandError::refused(format!("{nothing}: there is no terminal to ask on, say --yes"))),
    }
}

/// Asks a question; whether the answer is `yes`. `None` without a terminal.
async fn confirms(question: String) -> Outcome<Option<bool>> {
    Ok(line(question, false).await?.map(|answer| answer.trim() == "yes"))
}

/// A line that is typed, on a thread of its own: nothing else stops for who types slowly.
async fn line(prompt: String, hidden: bool) -> Outcome<Option<Zeroizing<String>>> {
    let failed = |e| CommandError::other("asking on the terminal failed").because(e);
    imp::listen_for_stops().map_err(failed)?;
    verbose::step("asking on the terminal");
    match tokio::task::spawn_blocking(move || imp::line(prompt, hidden)).await {
        Ok(line) => line.map_err(failed),
        Err(_) => Err(CommandError::other("asking on the terminal failed: the asking thread ended")),
    }
}

/// Shows again what is typed, if a question was cut off, and asks no other.
pub(crate) fn restore() {
    imp::end();
}

/// Never returns. From the first question on, Ctrl-Z stops the program with the terminal as it was
/// before the question, and `fg` hides what is typed again and repeats the question. Must be polled
/// on the main thread.
pub(crate) async fn follow_stops() -> Infallible {
    imp::follow_stops().await
}
