//! A run: the command, what ends it early, and what is closed behind it.

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

/// How long a command that was interrupted may take to let go.
const LET_GO: Duration = Duration::from_secs(1);

/// How long the writes that are under way may take.
const CLOSE: Duration = Duration::from_secs(10);

/// The time that the deletion of what a command has written for itself may take.
const CLEAN_UP: Duration = Duration::from_secs(120);

/// The number of times that a directory is removed until it stays away, and the pause between.
const REMOVALS: u32 = 40;
const BETWEEN_REMOVALS: Duration = Duration::from_millis(50);

/// What a command has at hand.
pub(crate) struct Session {
    pub(crate) global: Global,
    pub(crate) output: Output,
    left: Arc<Mutex<Left>>,
}

/// What is to be tidied up at the end, however that comes.
#[derive(Default)]
struct Left {
    files: Vec<FileStore>,
    scratch: Vec<PathBuf>,
    clean_up: Option<CleanUp>,
    unfinished: Option<PathBuf>,
    /// The advice for an interruption, where the command knows better than the general one.
    advice: Option<String>,
}

/// The deletion of what a command has written for itself.
struct CleanUp {
    work: BoxFuture<'static, Outcome<()>>,
    /// The failure if the work does not come to its end.
    cut_off: CommandError,
}

impl Session {
    /// Has this store closed at the end.
    pub(crate) fn close_later(&self, store: &FileStore) {
        self.left().files.push(store.clone());
    }

    /// Has this directory removed at the end.
    pub(crate) fn remove_later(&self, directory: PathBuf) {
        self.left().scratch.push(directory);
    }

    /// Has this work done at the end, which deletes what the command has written for itself.
    /// `cut_off` is the failure if the work takes too long or is interrupted, too.
    pub(crate) fn clean_up_later(
        &self,
        work: impl Future<Output = Outcome<()>> + Send + 'static,
        cut_off: CommandError,
    ) {
        self.left().clean_up = Some(CleanUp { work: work.boxed(), cut_off });
    }

    /// Has this file, which this command makes, removed if it is interrupted.
    pub(crate) fn remove_if_interrupted(&self, file: &Path) {
        self.left().unfinished = Some(file.to_owned());
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has this said if the command is interrupted from now on.
    pub(crate) fn say_if_interrupted(&self, advice: String) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).advice = Some(advice);
    }
}

/// Runs the command to its end or to Ctrl-C, and closes what it has opened. Also gives the
/// directories that are to be removed last.
pub(crate) async fn run(cli: Cli) -> (Outcome, Vec<PathBuf>) {
    let left = Arc::new(Mutex::new(Left::default()));
    let output = Output { json: cli.global.json };
    let advice = commands::when_interrupted(&cli.command);
    let limit = cli.global.timeout.map(Duration::from_secs);
    let session = Session { global: cli.global, output, left: left.clone() };
    let mut was_cut_off = false;
    // Before the command begins: a question that hides what is typed is not to be ended without a word.
    let mut end_signals = match EndSignals::listen() {
        Ok(signals) => signals,
        Err(e) => return (Err(CommandError::other("listening for signals failed").because(e)), Vec::new()),
    };
    let mut command = tokio::spawn(commands::run(session, cli.command));
    let outcome = tokio::select! {
        ended = &mut command => ended.unwrap_or_else(|_| Err(CommandError::other("the command ended unexpectedly, see above"))),
        end = end_signals.recv_within(limit) => {
            // Dropped, a write that waits is withdrawn, and one that runs is finished whole.
            command.abort();
            was_cut_off = true;
            terminal::restore();
            let known = left.lock().unwrap_or_else(PoisonError::into_inner).advice.take();
            let advice = known.unwrap_or(advice);
            match (timeout(LET_GO, command).await, end) {
                // It had ended before it could be interrupted.
                (Ok(Ok(outcome)), _) => outcome,
                (_, End::Signal) => Err(CommandError::new(Code::Interrupted, format!("interrupted: {advice}"))),
                (_, End::Timeout) => {
                    Err(CommandError::new(Code::Unavailable, format!("the time of --timeout is up: {advice}")))
                }
            }
        }
        never = terminal::follow_stops() => match never {},
    };
    let Left { files, scratch, clean_up, unfinished, .. } =
        std::mem::take(&mut *left.lock().unwrap_or_else(PoisonError::into_inner));
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
    /// Cleans up, until it is done, takes too long, or is interrupted.
    async fn run(self, end_signals: &mut EndSignals) -> Outcome<()> {
        tokio::select! {
            cleaned = timeout(CLEAN_UP, self.work) => cleaned.unwrap_or(Err(self.cut_off)),
            () = end_signals.recv() => Err(self.cut_off),
        }
    }
}

/// Removes directories that a command has written for itself.
pub(crate) fn remove(scratch: Vec<PathBuf>) -> Outcome<()> {
    let mut removed = Ok(());
    for directory in scratch {
        if let Err(e) = remove_directory(&directory) {
            let shown = directory.display();
            let text = format!("removing the directory {shown} failed, which this command has made: remove it");
            removed = Err(CommandError::new(Code::LeftBehind, text).because(e));
        }
    }
    removed
}

/// Removes a directory, in which threads that have not noticed the end yet may still make files.
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
        Ok(()) if directory.exists() => Err(io::Error::other("it was made again and again")),
        last => last,
    }
}

/// Returns the outcome of a command and of what was done after it. Something that is left behind
/// decides the exit code, and another failure is told before it.
pub(crate) fn with_leftovers(outcome: Outcome, cleaned: Outcome<()>, output: Output) -> Outcome {
    let Err(left) = cleaned else { return outcome };
    if let Err(first) = outcome
        && first.code() != Code::Interrupted
    {
        first.report(output.json);
    }
    Err(left)
}

/// Removes the file of a command that was interrupted while it made it.
fn remove_unfinished(file: &Path) -> Outcome<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            let text = format!("interrupted, and the unfinished file {} cannot be removed: remove it", file.display());
            Err(CommandError::new(Code::LeftBehind, text).because(e))
        }
        _ => Ok(()),
    }
}

/// The reason why a command was cut off.
enum End {
    Signal,
    Timeout,
}

impl EndSignals {
    /// Waits for a signal, but not for longer than the limit.
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

/// The signals that ask the program to end: Ctrl-C, or the system's.
#[cfg(unix)]
struct EndSignals {
    interrupt: UnixSignal,
    terminate: UnixSignal,
}

#[cfg(unix)]
impl EndSignals {
    /// Has the program notice these signals from now on, instead of being ended by them.
    fn listen() -> io::Result<Self> {
        // Not for the end of the terminal, which whoever says nohup means to outlive.
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
            Err(_) => output::note("the store is still busy: the next open tidies up what this one could not"),
        }
    }
    Ok(())
}
