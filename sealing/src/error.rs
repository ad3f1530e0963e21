//! [`KeyringError`]: what a store that opens or seals its keyring meets.

use std::error::Error as StdError;
use std::fmt;

use keystead_core::BoxError;

/// The reason why a keyring could not be opened or sealed.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeyringError {
    /// It is not what was sealed.
    Damaged,
    /// It is whole, and was sealed under another root secret.
    WrongRoot,
    /// It was sealed under another kind of root secret.
    OtherKindOfRoot {
        /// The kind, in words.
        needed: &'static str,
    },
    /// It asks for more time or memory for its passphrase than any store of ours would.
    CostOutOfBounds,
    /// The passphrase is empty.
    EmptyPassphrase,
    /// The passphrase is longer than Argon2 takes (4 GiB).
    PassphraseTooLong,
    /// There is not enough memory to stretch the passphrase.
    OutOfMemory,
    /// The provider of the root secret failed.
    Provider(BoxError),
}

impl fmt::Display for KeyringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged => f.write_str("the keyring is damaged: restore the store from a backup"),
            Self::WrongRoot => {
                f.write_str("the root secret is not the one of this store: give its present one; after a rotation, an earlier one opens only copies of that time")
            }
            Self::OtherKindOfRoot { needed } => write!(f, "the store was made with {needed}: give that"),
            Self::CostOutOfBounds => f.write_str(
                "the keyring asks for more than 1 GiB, 16 passes or 16 lanes of Argon2id: \
                 it was not written by keystead, restore the store from a backup",
            ),
            Self::EmptyPassphrase => f.write_str("the passphrase is empty: give one"),
            Self::PassphraseTooLong => f.write_str("the passphrase is too long: give a shorter one"),
            Self::OutOfMemory => {
                f.write_str("not enough memory for Argon2id: free as much as the store's parameters ask for")
            }
            Self::Provider(_) => f.write_str("the provider of the root secret failed"),
        }
    }
}

impl StdError for KeyringError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Provider(e) => Some(e.as_ref()),
            _ => None,
        }
    }
}
