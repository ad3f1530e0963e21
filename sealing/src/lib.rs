#![doc = include_str!("../README.md")]

mod bytes;
pub mod cobblestone;
mod keyring;
mod record;
mod root;

pub use crate::keyring::{KEYRING_LEN, Keyring, KeyringError};
pub use crate::record::{RECORD_PREFIX_LEN, RECORD_STEP, RecordError, RowKey, SealedRecord};
pub use crate::root::{InvalidRootSecret, RootKey, RootProvider, RootSecret};
