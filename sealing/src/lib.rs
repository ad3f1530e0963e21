#![doc = include_str!("../README.md")]

mod bytes;
pub mod cobblestone;
mod error;
mod keyring;
mod mac;
mod record;
mod root;
mod row_key;
pub mod table;

pub use crate::error::KeyringError;
pub use crate::keyring::{KEYRING_LEN, Keyring};
pub use crate::record::{RECORD_PREFIX_LEN, RECORD_STEP, RecordError, SealedRecord};
pub use crate::root::{InvalidRootSecret, RootKey, RootProvider, RootSecret};
pub use crate::row_key::RowKey;
