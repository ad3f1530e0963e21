//! The errors of layers that are set up wrongly.

use keystead_core::{Error, ErrorKind, KeyStore, Operation};

/// A layer was set up wrongly: what is wrong, and what to do.
pub(crate) fn misconfigured(beneath: &dyn KeyStore, why: &'static str) -> Error {
    Error::new(ErrorKind::Config, Operation::Open, beneath.info().scheme()).with_source(why)
}
