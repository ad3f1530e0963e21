//! The errors of a copy: those that it makes itself, and those of a store that end it.

use keystead_core::{BoxError, Effect, Error, ErrorKind, Operation, Result};

/// Returns an error that occurs before any effect and belongs to neither store.
pub(crate) fn refusal(kind: ErrorKind, reason: impl Into<BoxError>) -> Error {
    Error::new(kind, Operation::Copy, "keystead").with_effect(Effect::NotApplied).with_source(reason)
}

/// Reports whether a failure of this kind concerns the whole store, so that every other key would
/// meet it, too.
pub(crate) fn is_store_wide(kind: ErrorKind) -> bool {
    use ErrorKind::{QuotaExceeded, Throttled, Timeout, Unauthenticated, Unavailable};
    matches!(kind, QuotaExceeded | Throttled | Timeout | Unauthenticated | Unavailable)
}

/// Returns the first error if every outcome is an error that is fatal. To go on would then fail for
/// every other key in the same way.
pub(crate) fn stop_if_all_failed<T>(outcomes: &[Result<T>], is_fatal: impl Fn(&Error) -> bool) -> Result<()> {
    let is_failed = |outcome: &Result<T>| outcome.as_ref().is_err_and(&is_fatal);
    match outcomes.first() {
        Some(Err(first)) if outcomes.iter().all(is_failed) => Err(first.clone()),
        _ => Ok(()),
    }
}

/// Returns an error and its causes on one line.
pub(crate) fn chain(e: &Error) -> String {
    let mut text = e.to_string();
    let mut cause = std::error::Error::source(e);
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}
