//! [`KeyringError`]: the reasons why a keyring cannot be opened or sealed.

use keystead_core::BoxError;
use thiserror::Error;

/// The reason why a keyring could not be opened or sealed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// The bytes are not those of a sealed keyring, or they have changed since it was sealed.
    #[error("the keyring is damaged: restore the store from a backup")]
    Damaged,
    /// The keyring is intact but was sealed under another root secret.
    #[error(
        "the root secret is not that of this store: give the store's present one; a root secret from before a \
         rotation opens only copies from that time"
    )]
    WrongRoot,
    /// The keyring was sealed under another kind of root secret.
    #[error("this store needs {needed}: give that")]
    OtherKindOfRoot {
        /// The kind of root secret that the keyring needs, in words.
        needed: &'static str,
    },
    /// The Argon2id parameters of the keyring are higher than keystead accepts.
    #[error(
        "the keyring requires more than 1 GiB, 16 passes or 16 lanes of Argon2id, so it was not written by keystead: \
         restore the store from a backup"
    )]
    CostOutOfBounds,
    /// The passphrase is empty.
    #[error("the passphrase is empty: give one")]
    EmptyPassphrase,
    /// The passphrase is longer than Argon2 accepts (4 GiB).
    #[error("the passphrase is too long: give a shorter one")]
    PassphraseTooLong,
    /// There is not enough memory for Argon2id.
    #[error("there is not enough memory for Argon2id: free as much as the store's parameters require")]
    OutOfMemory,
    /// The provider of the root secret failed.
    #[error("the provider of the root secret failed")]
    Provider(#[source] BoxError),
}
