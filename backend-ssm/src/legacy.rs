//! The peculiarities of stores with a [legacy](crate::SsmConfig::legacy) configuration: they only
//! read, and the name of an id may be one that Parameter Store reserves.

use keystead_core::{Error, ErrorKind, KeyId, Operation, Result};

use crate::error::SCHEME;
use crate::name::is_reserved;
use crate::store::SsmStore;

/// Refuses a write to a store that only reads.
pub(crate) fn refuse_write(store: &SsmStore, operation: Operation) -> Result<()> {
    if !store.config.is_legacy() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, operation, SCHEME)
        .with_source("a legacy path is only read: copy its keys to a store with a path such as /app/user-keys/%s"))
}

/// Refuses to ask for a reserved name. No such parameter exists, but Parameter Store would refuse
/// the call in place of saying so.
pub(crate) fn refuse_reserved(store: &SsmStore, id: &KeyId) -> Result<()> {
    if !store.config.is_legacy() || !is_reserved(&store.name(id)) {
        return Ok(());
    }
    let text = "Parameter Store reserves names that begin with aws or ssm, so this id has no key under a flat path";
    Err(Error::new(ErrorKind::NotFound, Operation::Get, SCHEME).with_source(text))
}

/// Returns the names that Parameter Store does not reserve.
pub(crate) fn without_reserved(store: &SsmStore, mut names: Vec<String>) -> Vec<String> {
    if store.config.is_legacy() {
        names.retain(|name| !is_reserved(name));
    }
    names
}
