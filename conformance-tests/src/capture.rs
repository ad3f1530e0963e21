//! [`Capture`], which records the traces or the panic messages of the process during a case.
//!
//! It records those of the whole process, because a subscriber or a hook of one thread would miss the
//! threads that a store starts.

use std::fmt::{self, Write};
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tracing_core::dispatcher::{self, Dispatch};
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Current, Id, Record};
use tracing_core::{Event, Metadata, Subscriber};

use crate::context::{Outcome, fail};

/// The largest size of a capture in bytes. It also contains the texts of cases that run at the same
/// time.
const LIMIT: usize = 1 << 20;

/// The open captures, each with its number.
type Open = Mutex<Vec<(u64, String)>>;

static TRACES: Open = Mutex::new(Vec::new());
static PANICS: Open = Mutex::new(Vec::new());

/// A recorder of texts, which stops when it is dropped.
pub(crate) struct Capture {
    open: &'static Open,
    number: u64,
}

impl Capture {
    /// Records every span and event at every level.
    pub(crate) fn of_traces() -> Outcome<Self> {
        static INSTALLED: OnceLock<bool> = OnceLock::new();
        if !INSTALLED.get_or_init(|| dispatcher::set_global_default(Dispatch::new(CatchAll)).is_ok()) {
            let expected = "no global subscriber except that of the suite";
            return fail("tracing", expected, "another global subscriber: run the suite in a program of its own");
        }
        Ok(Self::open(&TRACES))
    }

    /// Records the messages of panics, which are still shown.
    pub(crate) fn of_panics() -> Self {
        static INSTALLED: OnceLock<()> = OnceLock::new();
        INSTALLED.get_or_init(|| {
            let shown = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                catch(&PANICS, |text| write!(text, "{info}"));
                shown(info);
            }));
        });
        Self::open(&PANICS)
    }

    fn open(open: &'static Open) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        lock(open).push((number, String::new()));
        Self { open, number }
    }

    /// Returns the text that was recorded since the capture was opened.
    ///
    /// Fails if the text has reached the limit, so that it may be incomplete.
    pub(crate) fn text(&self) -> Outcome<String> {
        let text = lock(self.open).iter().find(|(number, _)| *number == self.number).map(|(_, text)| text.clone());
        let text = text.unwrap_or_default();
        if text.len() >= LIMIT {
            let got = "more, perhaps from cases that run at the same time: run this case by itself";
            return fail("traces or panic messages", format!("less than {LIMIT} bytes"), got);
        }
        Ok(text)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        lock(self.open).retain(|(number, _)| *number != self.number);
    }
}

fn lock(open: &'static Open) -> MutexGuard<'static, Vec<(u64, String)>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

fn catch(open: &'static Open, write: impl FnOnce(&mut String) -> fmt::Result) {
    if lock(open).is_empty() {
        return;
    }
    // Formatted without the lock, because formatting a value may trace, too.
    let mut line = String::new();
    if write(&mut line).is_err() {
        return;
    }
    for (_, text) in lock(open).iter_mut().filter(|(_, text)| text.len() < LIMIT) {
        text.push_str(&line);
        text.push('\n');
    }
}

struct CatchAll;

impl Subscriber for CatchAll {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        catch(&TRACES, |text| {
            write!(text, "{}", span.metadata().name())?;
            span.record(&mut Fields(text));
            Ok(())
        });
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        catch(&TRACES, |text| {
            values.record(&mut Fields(text));
            Ok(())
        });
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        catch(&TRACES, |text| {
            event.record(&mut Fields(text));
            Ok(())
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}

    fn current_span(&self) -> Current {
        Current::none()
    }
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {field}={value:?}").expect("writing to a string does not fail");
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // In its raw form, too, because Debug escapes.
        write!(self.0, " {field}={value} {value:?}").expect("writing to a string does not fail");
    }
}
