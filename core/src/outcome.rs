//! What a write asks for and what it reports.

use std::time::{Duration, SystemTime};

/// What [`put_key_with`](crate::KeyStore::put_key_with) does with a key that stands already.
///
/// A store that meets a mode it does not know answers [`Unsupported`](crate::ErrorKind::Unsupported) before any effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PutMode {
    /// Replace it.
    Overwrite,
    /// Leave it and answer [`AlreadyExists`](crate::ErrorKind::AlreadyExists).
    Create,
}

/// When the stored bytes of a deleted key are beyond the engine's own recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finality {
    /// They are now.
    Immediate,
    /// They will be, without anybody's help.
    Eventual {
        /// The longest that takes, or `None` where no bound is known.
        within: Option<Duration>,
    },
    /// Until this moment an operator can bring the key back.
    RecoverableUntil(SystemTime),
}

/// What [`delete_key`](crate::KeyStore::delete_key) did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deletion {
    /// When the stored bytes are beyond recovery.
    pub finality: Finality,
}

impl Deletion {
    /// A deletion of this finality.
    pub fn new(finality: Finality) -> Self {
        Self { finality }
    }
}

/// What [`erase_key`](crate::KeyStore::erase_key) did and proved.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Erasure {
    /// Whether there was a key; false only after an unambiguous "not found".
    pub existed: bool,
    /// When the stored bytes are beyond recovery.
    pub finality: Finality,
    /// Whether a read that began after the delete, and on an eventually consistent store one visibility bound later,
    /// answered "not found".
    pub verified: bool,
}

impl Erasure {
    /// An erasure with these findings.
    pub fn new(existed: bool, finality: Finality, verified: bool) -> Self {
        Self { existed, finality, verified }
    }
}
