//! A run: the command, what ends it early, and what is closed behind it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io};

use keystead::file::FileStore;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::args::{Cli, Global};
use crate::exit::{Code, Failure, Outcome};
use crate::output::Output;
use crate::{commands, output, terminal};

/// How long a command that was interrupted may take to let go.
const LET_GO: Duration = Duration::from_secs(1);

/// How long the writes that are under way may take.
const CLOSE: Duration = Duration::from_secs(10);

/// What a command has at hand.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) global: Global,
    pub(crate) output: Output,
    left: Arc<Mutex<Left>>,
}

/// What is to be tidied up at the end, however that comes.
#[derive(Debug, Default)]
struct Left {
    files: Vec<FileStore>,
    scratch: Vec<TempDir>,
    unfinished: Option<PathBuf>,
    /// The advice for an interruption, where the command knows better than the general one.
    advice: Option<String>,
}

impl Session {
    /// Has this store closed at the end.
    pub(crate) fn close_later(&self, store: &FileStore) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).files.push(store.clone());
    }

    /// Has this directory removed at the end.
    pub(crate) fn remove_later(&self, directory: TempDir) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).scratch.push(directory);
    }

    /// Has this file, which this command makes, removed if it is interrupted.
    pub(crate) fn remove_if_interrupted(&self, file: &Path) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).unfinished = Some(file.to_owned());
    }

    /// Has this said if the command is interrupted from now on.
    pub(crate) fn say_if_interrupted(&self, advice: String) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).advice = Some(advice);
    }
}

/// Runs the command to its end or to Ctrl-C, and closes what it has opened. Also gives what is to be removed last.
pub(crate) async fn run(cli: Cli) -> (Outcome, Vec<TempDir>) {
    let left = Arc::new(Mutex::new(Left::default()));
    let output = Output { json: cli.global.json };
    let advice = commands::when_interrupted(&cli.command);
    let session = Session { global: cli.global, output, left: left.clone() };
    let mut command = tokio::spawn(commands::run(session, cli.command));
    let outcome = tokio::select! {
        ended = &mut command => ended.unwrap_or_else(|_| Err(Failure::other("the command ended unexpectedly, see above"))),
        signal = asked_to_end() => {
            // Dropped, a write that waits is withdrawn, and one that runs is finished whole.
            command.abort();
            terminal::restore();
            let _ = timeout(LET_GO, command).await;
            let known = left.lock().unwrap_or_else(PoisonError::into_inner).advice.take();
            let advice = known.as_deref().unwrap_or(advice);
            match signal {
                Ok(()) => Err(Failure::new(Code::Interrupted, format!("interrupted: {advice}"))),
                Err(e) => Err(Failure::other("listening for signals failed").because(e)),
            }
        }
    };
    let Left { files, scratch, unfinished, .. } =
        std::mem::take(&mut *left.lock().unwrap_or_else(PoisonError::into_inner));
    let closed = close(files).await;
    if let (Some(file), Err(failure)) = (unfinished, &outcome)
        && failure.code() == Code::Interrupted
    {
        // If even this fails, the file opens as no store.
        let _ = fs::remove_file(file);
    }
    (outcome.and_then(|code| closed.map(|()| code)), scratch)
}

/// Waits for Ctrl-C, or for the system to say that it is time to go.
#[cfg(unix)]
async fn asked_to_end() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    // Not for the end of the terminal, which whoever says nohup means to outlive.
    let mut end = signal(SignalKind::terminate())?;
    tokio::select! {
        ctrl_c = tokio::signal::ctrl_c() => ctrl_c,
        _ = end.recv() => Ok(()),
    }
}

/// Waits for Ctrl-C.
#[cfg(not(unix))]
async fn asked_to_end() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}

async fn close(files: Vec<FileStore>) -> Outcome<()> {
    for store in files {
        match timeout(CLOSE, store.close()).await {
            Ok(closed) => closed?,
            Err(_) => output::note("the store is still busy: the next open tidies up what this one could not"),
        }
    }
    Ok(())
}
