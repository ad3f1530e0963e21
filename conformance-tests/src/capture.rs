//! [`Capture`]: all that the process traces, and all that it says when it panics, while a case looks.
//!
//! Both are caught for the whole process: a subscriber or a hook of one thread would miss what a store does on its own.

use std::fmt::{self, Write};
use std::panic;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_core::dispatcher::{self, Dispatch};
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Current, Id, Record};
use tracing_core::{Event, Metadata, Subscriber};

use crate::context::{Outcome, fail};

/// What has been caught, and how many captures are open; nothing is kept while there is none.
#[derive(Default)]
struct Caught {
    open: usize,
    text: String,
}

static TRACES: Mutex<Caught> = Mutex::new(Caught { open: 0, text: String::new() });
static PANICS: Mutex<Caught> = Mutex::new(Caught { open: 0, text: String::new() });

/// Catches texts until it is dropped.
pub(crate) struct Capture(&'static Mutex<Caught>);

impl Capture {
    /// Catches every span and event at every level.
    pub(crate) fn of_traces() -> Outcome<Self> {
        static INSTALLED: OnceLock<bool> = OnceLock::new();
        if !INSTALLED.get_or_init(|| dispatcher::set_global_default(Dispatch::new(CatchAll)).is_ok()) {
            let expected = "no global tracing subscriber but the suite's own";
            return fail("tracing", expected, "another one: run the suite in a program of its own");
        }
        Ok(Self::open(&TRACES))
    }

    /// Catches the messages of panics, which are shown as well.
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

    fn open(caught: &'static Mutex<Caught>) -> Self {
        lock(caught).open += 1;
        Self(caught)
    }

    /// What has been caught so far, by this capture and all that are open.
    pub(crate) fn text(&self) -> String {
        lock(self.0).text.clone()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let mut caught = lock(self.0);
        caught.open -= 1;
        if caught.open == 0 {
            caught.text = String::new();
        }
    }
}

fn lock(caught: &'static Mutex<Caught>) -> std::sync::MutexGuard<'static, Caught> {
    caught.lock().unwrap_or_else(PoisonError::into_inner)
}

fn catch(caught: &'static Mutex<Caught>, write: impl FnOnce(&mut String) -> fmt::Result) {
    // Formatted before the lock is taken: what is formatted may trace as well.
    let mut line = String::new();
    if write(&mut line).is_ok() {
        let mut caught = lock(caught);
        if caught.open > 0 {
            caught.text.push_str(&line);
            caught.text.push('\n');
        }
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
        // As it is as well: Debug escapes.
        write!(self.0, " {field}={value} {value:?}").expect("writing to a string does not fail");
    }
}
