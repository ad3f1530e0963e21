//! A question on the terminal of the session, `/dev/tty`, which outlives Ctrl-Z and `fg`.

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

/// No line that is typed is longer, in bytes: the terminal itself takes no longer one.
const MAX_LINE_LEN: usize = 4096;

/// The question that waits for its answer.
static QUESTION: Mutex<Option<Question>> = Mutex::new(None);

/// True once no question is asked any longer, because the program ends.
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// True once a question was asked.
static HAS_ASKED: AtomicBool = AtomicBool::new(false);

/// The signals of Ctrl-Z and `fg`, from the first question until they are followed.
static LISTENING: Mutex<Option<Listening>> = Mutex::new(None);

/// Wakes what follows these signals.
static LISTENS: Notify = Notify::const_new();

struct Listening {
    stops: UnixSignal,
    continuations: UnixSignal,
}

struct Question {
    terminal: File,
    prompt: String,
    hides: bool,
    /// The terminal as it was; `Some` while what is typed is hidden.
    before: Option<Termios>,
}

impl Question {
    /// Hides what is typed from now on, if that is wanted.
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
        // What was typed before the question is no answer to it.
        Ok(tcsetattr(&self.terminal, OptionalActions::Flush, &hiding)?)
    }

    /// Leaves the terminal as it was.
    fn show(&mut self) {
        if let Some(before) = self.before.take() {
            // The terminal may be gone; then there is nothing to restore.
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

/// Asks, and reads one line without its end. `None` if there is no terminal.
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

/// Ends the question that is asked, leaves the terminal as it was, and has no other question asked.
pub(super) fn end() {
    // Read under the lock that is taken next.
    IS_OVER.store(true, Ordering::Relaxed);
    if let Some(mut question) = end_question() {
        // What is said next stands on a line of its own.
        let _ = question.terminal.write_all(b"\n");
    }
}

fn end_question() -> Option<Question> {
    let mut ended = question().take();
    ended.iter_mut().for_each(Question::show);
    ended
}

/// Read without a buffer that nobody wipes.
fn read_line(terminal: &mut File) -> io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LINE_LEN));
    let mut byte = Zeroizing::new([0]);
    while bytes.len() < MAX_LINE_LEN && terminal.read(&mut byte[..])? == 1 && byte[0] != b'\n' {
        bytes.push(byte[0]);
    }
    if byte[0] != b'\n' {
        // Ctrl-D ends what is typed, but not the line.
        terminal.write_all(b"\n")?;
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| io::Error::other("what was typed is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Has the program notice Ctrl-Z and `fg` from now on, before the first question hides anything.
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
        // Taken already: two do not follow.
        return pending().await;
    };
    loop {
        tokio::select! {
            _ = stops.recv() => stop(),
            _ = continuations.recv() => go_on(),
        }
    }
}

/// Stops the program, as Ctrl-Z does by itself, but for the terminal.
fn stop() {
    if let Some(question) = question().as_mut() {
        question.show();
    }
    // Not SIGSTOP: where no shell waits that could continue the program, the system must not stop
    // it. That is so for this signal, as for the one of Ctrl-Z. On the main thread, which takes it
    // before it goes on here.
    let _ = kill_process(getpid(), Signal::TTIN);
    if let Some(question) = question().as_mut() {
        let _ = question.hide();
    }
}

/// After a stop, whatever the reason: the shell may have set up the terminal anew, and others have written to it.
fn go_on() {
    if let Some(question) = question().as_mut() {
        // If the terminal is gone, whoever reads from it is told.
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
