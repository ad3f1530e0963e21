//! Questions on the terminal of the session, `/dev/tty`, which survive Ctrl-Z and `fg`.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::future::pending;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
use tokio::sync::Notify;
use zeroize::Zeroizing;

/// The length in bytes of the longest line that can be typed, which is also the terminal's own
/// limit.
const MAX_LINE_LEN: usize = 4096;

/// The question that waits for an answer.
static QUESTION: Mutex<Option<Question>> = Mutex::new(None);

/// True once no further question is asked, because the program is ending.
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// True once a question has been asked.
static HAS_ASKED: AtomicBool = AtomicBool::new(false);

/// The streams of the signals of Ctrl-Z and `fg`, from the first question until [`follow_stops`]
/// takes them.
static LISTENING: Mutex<Option<Listening>> = Mutex::new(None);

/// Wakes [`follow_stops`] when the streams are set.
static LISTENS: Notify = Notify::const_new();

struct Listening {
    stops: UnixSignal,
    continuations: UnixSignal,
}

struct Question {
    terminal: File,
    prompt: String,
    hides: bool,
    /// The original settings of the terminal; `Some` while the input is hidden.
    before: Option<Termios>,
}

impl Question {
    /// Hides the input from now on, if the question asks for that.
    fn hide(&mut self) -> io::Result<()> {
        if !self.hides {
            return Ok(());
        }
        let before = match self.before.take() {
            Some(before) => before,
            None => tcgetattr(&self.terminal)?,
        };
        let mut hiding = before.clone();
        hiding.local_modes.remove(LocalModes::ECHO);
        hiding.local_modes.insert(LocalModes::ECHONL);
        self.before = Some(before);
        // Discards input that was typed before the question.
        Ok(tcsetattr(&self.terminal, OptionalActions::Flush, &hiding)?)
    }

    /// Restores the settings of the terminal.
    fn show(&mut self) {
        if let Some(before) = self.before.take() {
            // If the terminal is gone, there is nothing to restore.
            let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &before);
        }
    }

    fn ask(&mut self) -> io::Result<()> {
        self.terminal.write_all(self.prompt.as_bytes())
    }
}

fn question() -> MutexGuard<'static, Option<Question>> {
    QUESTION.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks a question and reads one line, without its line break. Returns `None` if there is no
/// terminal.
pub(super) fn line(prompt: String, hides: bool) -> io::Result<Option<Zeroizing<String>>> {
    let Ok(terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else { return Ok(None) };
    let mut answers = terminal.try_clone()?;
    let asked = {
        let mut question = question();
        if IS_OVER.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let question = question.insert(Question { terminal, prompt, hides, before: None });
        question.hide().and_then(|()| question.ask())
    };
    let line = asked.and_then(|()| read_line(&mut answers));
    end_question();
    line.map(Some)
}

/// Ends the current question, restores the terminal, and prevents further questions.
pub(super) fn end() {
    // `line` reads this under the lock that is taken next.
    IS_OVER.store(true, Ordering::Relaxed);
    if let Some(mut question) = end_question() {
        // The next output begins on a new line.
        let _ = question.terminal.write_all(b"\n");
    }
}

fn end_question() -> Option<Question> {
    let mut ended = question().take();
    ended.iter_mut().for_each(Question::show);
    ended
}

/// Reads one line, without a buffer that is never wiped.
fn read_line(terminal: &mut File) -> io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LINE_LEN));
    let mut byte = Zeroizing::new([0]);
    while bytes.len() < MAX_LINE_LEN && terminal.read(&mut byte[..])? == 1 && byte[0] != b'\n' {
        bytes.push(byte[0]);
    }
    if byte[0] != b'\n' {
        // Ctrl-D ends the input without a line break.
        terminal.write_all(b"\n")?;
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| io::Error::other("the input is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Starts to catch the signals of Ctrl-Z and `fg`. Must be called before the first question hides
/// the input.
pub(super) fn listen_for_stops() -> io::Result<()> {
    if HAS_ASKED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let listening = Listening { stops: signal(stop_key())?, continuations: signal(continued())? };
    *LISTENING.lock().unwrap_or_else(PoisonError::into_inner) = Some(listening);
    LISTENS.notify_one();
    Ok(())
}

pub(super) async fn follow_stops() -> Infallible {
    LISTENS.notified().await;
    let listening = LISTENING.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(Listening { mut stops, mut continuations }) = listening else {
        // Another call has taken them.
        return pending().await;
    };
    loop {
        tokio::select! {
            _ = stops.recv() => stop(),
            _ = continuations.recv() => go_on(),
        }
    }
}

/// Stops the program, as Ctrl-Z does by default, but restores the terminal first.
fn stop() {
    if let Some(question) = question().as_mut() {
        question.show();
    }
    // Not SIGSTOP, which also stops a program that no shell can continue. The system ignores
    // SIGTTIN in that case, like the signal of Ctrl-Z. The main thread receives the signal before
    // `kill_process` returns.
    let _ = kill_process(getpid(), Signal::TTIN);
    if let Some(question) = question().as_mut() {
        let _ = question.hide();
    }
}

/// Hides the input and asks again after a stop, for whatever reason: the shell may have reset the
/// terminal, and other programs may have written to it.
fn go_on() {
    if let Some(question) = question().as_mut() {
        // If the terminal is gone, the read of the answer fails, too.
        let _ = question.hide().and_then(|()| question.ask());
    }
}

/// The signal of Ctrl-Z.
fn stop_key() -> SignalKind {
    SignalKind::from_raw(Signal::TSTP.as_raw())
}

/// The signal of `fg`.
fn continued() -> SignalKind {
    SignalKind::from_raw(Signal::CONT.as_raw())
}
