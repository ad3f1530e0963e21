//! Questions to the person at the terminal: hidden passphrases and confirmations. They are asked on
//! `/dev/tty`, even if standard input, output or error is redirected.

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
        return Err(CommandError::usage("the passphrase is empty: type at least one character"));
    }
    if passphrase("the same again: ", "--passphrase-file").await? != first {
        return Err(CommandError::usage("nothing was done: the two passphrases differ; try again"));
    }
    Ok(first)
}

/// Asks for a passphrase, which is not shown. `option` names the option for a passphrase file.
pub(crate) async fn passphrase(prompt: &str, option: &str) -> Outcome<Zeroizing<String>> {
    line(prompt.to_owned(), true).await?.ok_or_else(|| {
        CommandError::refused(format!("there is no terminal to ask for the passphrase: give {option} FILE"))
    })
}

/// Asks for confirmation of something that cannot be undone. `nothing` says what was not done if
/// the answer is not `yes`.
pub(crate) async fn confirm(question: &str, nothing: &str) -> Outcome<()> {
    match confirms(format!("{question} type yes to confirm: ")).await? {
        Some(true) => Ok(()),
        Some(false) => Err(CommandError::refused(format!("{nothing}: the answer was not yes"))),
        None => Err(CommandError::refused(format!(
            "{nothing}: there is no terminal to ask for confirmation: give --yes to confirm"
        ))),
    }
}

/// Asks a question, and returns whether the answer is `yes`; `None` if there is no terminal.
async fn confirms(question: String) -> Outcome<Option<bool>> {
    Ok(line(question, false).await?.map(|answer| answer.trim() == "yes"))
}

/// Reads a line from the terminal, on a thread of its own, because a person may type slowly.
/// Returns `None` if there is no terminal.
async fn line(prompt: String, hidden: bool) -> Outcome<Option<Zeroizing<String>>> {
    let failed = |e| CommandError::other("cannot ask on the terminal").because(e);
    imp::listen_for_stops().map_err(failed)?;
    verbose::step("asking on the terminal");
    match tokio::task::spawn_blocking(move || imp::line(prompt, hidden)).await {
        Ok(line) => line.map_err(failed),
        Err(_) => Err(CommandError::other("cannot ask on the terminal: the thread that asks ended unexpectedly")),
    }
}

/// Ends a question that was interrupted, restores the terminal, and prevents further questions.
pub(crate) fn restore() {
    imp::end();
}

/// Handles Ctrl-Z and `fg` from the first question on, and never returns. Ctrl-Z restores the
/// terminal and stops the program; `fg` hides the input again and repeats the question. Must be
/// polled on the main thread.
pub(crate) async fn follow_stops() -> Infallible {
    imp::follow_stops().await
}
