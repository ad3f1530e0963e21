//! What layers say of themselves.

use keystead_core::{Error, ErrorKind, KeyStore, Operation, StoreInfo};

/// The store beneath, with what the layer does to it.
pub(crate) fn annotated(beneath: &StoreInfo, note: &str) -> StoreInfo {
    let location = match beneath.location() {
        "" => note.to_owned(),
        location => format!("{location}, {note}"),
    };
    StoreInfo::new(beneath.scheme(), location)
}

/// A layer was set up wrongly: what is wrong, and what to do.
pub(crate) fn misconfigured(beneath: &dyn KeyStore, why: &'static str) -> Error {
    Error::new(ErrorKind::Config, Operation::Open, beneath.info().scheme()).with_source(why)
}
