//! The threads of a store.

use std::thread::Builder;

use keystead_core::ErrorKind;

use crate::error::{FileError, Result};

/// Starts a thread that nobody waits for.
pub(crate) fn spawn(work: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = Builder::new().name("keystead-file".to_owned()).spawn(work);
    let failure = |e| FileError::new(ErrorKind::Unavailable, format!("no thread can be started for the store: {e}"));
    started.map(drop).map_err(failure)
}
