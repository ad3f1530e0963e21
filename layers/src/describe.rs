//! The error of a layer whose configuration is wrong.

use keystead_core::{Error, ErrorKind, KeyStore, Operation};

/// Returns the error of a layer whose configuration is wrong. `why` says what is wrong and what to
/// do.
pub(crate) fn misconfigured(beneath: &dyn KeyStore, why: &'static str) -> Error {
    Error::new(ErrorKind::Config, Operation::Open, beneath.info().scheme()).with_source(why)
}
