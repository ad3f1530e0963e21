//! A run of the program: it runs the command, handles signals and `--timeout`, and cleans up at the
//! end.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use keystead::KeyStore;
use keystead::file::FileStore;
#[cfg(unix)]
use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
use tokio::time::timeout;

use crate::args::{Cli, Global};
use crate::exit::{Code, CommandError, Outcome};
use crate::output::Output;
use crate::{commands, output, terminal, verbose};

/// The longest wait for an interrupted command to stop.
const LET_GO: Duration = Duration::from_secs(1);

/// The longest wait for a store to finish its pending writes when it is closed.
const CLOSE: Duration = Duration::from_secs(10);

/// The longest time for deleting what a command wrote for its own use.
const CLEAN_UP: Duration = Duration::from_secs(120);

/// The number of attempts to remove a directory, and the pause between two of them. Threads may
/// still create files in it.
const REMOVALS: u32 = 40;
const BETWEEN_REMOVALS: Duration = Duration::from_millis(50);

/// The context of a command.
pub(crate) struct Session {
    pub(crate) global: Global,
    pub(crate) output: Output,
    at_end: Arc<Mutex<AtEnd>>,
}

/// The things to clean up at the end of the run, however it ends.
#[derive(Default)]
struct AtEnd {
    files: Vec<FileStore>,
    scratch: Vec<PathBuf>,
    clean_up: Option<CleanUp>,
    unfinished: Option<PathBuf>,
    /// The advice for an interruption, if the command has a more specific one than the general
    /// advice.
    advice: Option<String>,
}

/// The deletion of what a command wrote for its own use.
struct CleanUp {
    work: BoxFuture<'static, Outcome<()>>,
    /// The error if the work is not completed.
    cut_off: CommandError,
}

impl Session {
    /// Closes this store at the end of the run.
    pub(crate) fn close_later(&self, store: &FileStore) {
        self.at_end().files.push(store.clone());
    }

    /// Removes this directory at the end of the run.
    pub(crate) fn remove_later(&self, directory: PathBuf) {
        self.at_end().scratch.push(directory);
    }

    /// Does this work, which deletes what the command wrote for its own use, at the end of the run.
    /// `cut_off` is the error if the work takes too long or is interrupted, too.
    pub(crate) fn clean_up_later(
        &self,
        work: impl Future<Output = Outcome<()>> + Send + 'static,
        cut_off: CommandError,
    ) {
        self.at_end().clean_up = Some(CleanUp { work: work.boxed(), cut_off });
    }

    /// Removes this file, which the command creates, if the command is interrupted.
    pub(crate) fn remove_if_interrupted(&self, file: &Path) {
        self.at_end().unfinished = Some(file.to_owned());
    }

    fn at_end(&self) -> MutexGuard<'_, AtEnd> {
        self.at_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the advice for an interruption from now on.
    pub(crate) fn say_if_interrupted(&self, advice: String) {
        self.at_end().advice = Some(advice);
    }
}

/// Runs the command until it ends or is interrupted, and closes the stores that it opened. Also
/// returns the directories that must be removed last.
pub(crate) async fn run(cli: Cli) -> (Outcome, Vec<PathBuf>) {
    let at_end = Arc::new(Mutex::new(AtEnd::default()));
    let output = Output { json: cli.global.json };
    let advice = commands::when_interrupted(&cli.command);
    let limit = cli.global.timeout.map(Duration::from_secs);
    let session = Session { global: cli.global, output, at_end: at_end.clone() };
    let mut was_cut_off = false;
    // Before the command begins: a signal during a hidden question must not leave the terminal
    // hidden.
    let mut end_signals = match EndSignals::listen() {
        Ok(signals) => signals,
        Err(e) => return (Err(CommandError::other("cannot listen for signals").because(e)), Vec::new()),
    };
    let mut command = tokio::spawn(async move {
        let outcome = commands::run(session, cli.command).await;
        outcome.map_err(|error| error.of_command(&cli.command_name))
    });
    let outcome = tokio::select! {
        ended = &mut command => {
            ended.unwrap_or_else(|_| Err(CommandError::other("the command ended unexpectedly; see above")))
        }
        end = end_signals.recv_within(limit) => {
            // A write that waits is withdrawn when it is dropped; a write that runs is completed.
            command.abort();
            was_cut_off = true;
            terminal::restore();
            let known = at_end.lock().unwrap_or_else(PoisonError::into_inner).advice.take();
            let advice = known.unwrap_or(advice);
            match (timeout(LET_GO, command).await, end) {
                // The command had ended before the signal was handled.
                (Ok(Ok(outcome)), _) => outcome,
                (_, End::Signal) => Err(CommandError::new(Code::Interrupted, format!("interrupted: {advice}"))),
                (_, End::Timeout) => {
                    Err(CommandError::new(Code::Unavailable, format!("the time of --timeout is up: {advice}")))
                }
            }
        }
        never = terminal::follow_stops() => match never {},
    };
    let AtEnd { files, scratch, clean_up, unfinished, .. } =
        std::mem::take(&mut *at_end.lock().unwrap_or_else(PoisonError::into_inner));
    let cleaned = match clean_up {
        Some(clean_up) => clean_up.run(&mut end_signals).await,
        None => Ok(()),
    };
    let closed = close(files).await;
    let outcome = outcome.and_then(|code| closed.map(|()| code));
    let removed = match unfinished {
        Some(file) if was_cut_off && outcome.is_err() => remove_unfinished(&file),
        _ => Ok(()),
    };
    (with_leftovers(with_leftovers(outcome, cleaned, output), removed, output), scratch)
}

impl CleanUp {
    /// Cleans up, unless that takes too long or is interrupted.
    async fn run(self, end_signals: &mut EndSignals) -> Outcome<()> {
        tokio::select! {
            cleaned = timeout(CLEAN_UP, self.work) => cleaned.unwrap_or(Err(self.cut_off)),
            () = end_signals.recv() => Err(self.cut_off),
        }
    }
}

/// Removes the directories that a command created for its own use.
pub(crate) fn remove(scratch: Vec<PathBuf>) -> Outcome<()> {
    let mut removed = Ok(());
    for directory in scratch {
        if let Err(e) = remove_directory(&directory) {
            let shown = directory.display();
            let text = format!("cannot remove the directory {shown}, which this command created: remove it");
            removed = Err(CommandError::new(Code::LeftBehind, text).because(e));
        }
    }
    removed
}

/// Removes a directory in which threads that are still running may create files.
fn remove_directory(directory: &Path) -> io::Result<()> {
    let mut last = Ok(());
    for _ in 0..REMOVALS {
        last = fs::remove_dir_all(directory);
        if last.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            return Ok(());
        }
        std::thread::sleep(BETWEEN_REMOVALS);
    }
    match last {
        Ok(()) if directory.exists() => Err(io::Error::other("files were created in it again and again")),
        last => last,
    }
}

/// Combines the outcome of a command with that of cleaning up. If something is left behind, it
/// decides the exit code, and the error of the command is reported first.
pub(crate) fn with_leftovers(outcome: Outcome, cleaned: Outcome<()>, output: Output) -> Outcome {
    let Err(left) = cleaned else { return outcome };
    if let Err(first) = outcome
        && first.code() != Code::Interrupted
    {
        first.report(output.json);
    }
    Err(left)
}

/// Removes the file that an interrupted command was creating.
fn remove_unfinished(file: &Path) -> Outcome<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            let text = format!("interrupted, and cannot remove the unfinished file {}: remove it", file.display());
            Err(CommandError::new(Code::LeftBehind, text).because(e))
        }
        _ => Ok(()),
    }
}

/// The reason why a command was ended early.
enum End {
    Signal,
    Timeout,
}

impl EndSignals {
    /// Waits for a signal or for the end of the time limit.
    async fn recv_within(&mut self, limit: Option<Duration>) -> End {
        let Some(limit) = limit else {
            self.recv().await;
            return End::Signal;
        };
        match timeout(limit, self.recv()).await {
            Ok(()) => End::Signal,
            Err(_) => End::Timeout,
        }
    }
}

/// The signals that ask the program to end: SIGINT (Ctrl-C) and SIGTERM.
#[cfg(unix)]
struct EndSignals {
    interrupt: UnixSignal,
    terminate: UnixSignal,
}

#[cfg(unix)]
impl EndSignals {
    /// Starts to catch these signals, which otherwise end the program.
    fn listen() -> io::Result<Self> {
        // Not SIGHUP, which `nohup` makes a program ignore.
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The signal that asks the program to end: Ctrl-C.
#[cfg(windows)]
struct EndSignals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl EndSignals {
    fn listen() -> io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn recv(&mut self) {
        self.0.recv().await;
    }
}

async fn close(files: Vec<FileStore>) -> Outcome<()> {
    for store in files {
        verbose::step(format!("closing {}", store.info()));
        match timeout(CLOSE, store.close()).await {
            Ok(closed) => closed?,
            Err(_) => output::note(
                "the store is still busy and was not closed cleanly: the next command that opens it finishes that",
            ),
        }
    }
    Ok(())
}
