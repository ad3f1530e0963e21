//! One secret encryption key per user, in the store you trust.
//!
//! An application encrypts each user's personal data under that user's key. When the key is
//! deleted, the data is unreadable in every copy of it, backups and logs included
//! (crypto-shredding). This crate re-exports the contract ([`KeyStore`], [`KeyStoreExt`],
//! [`KeyId`], [`SecretKey`], [`Error`]) and, by feature, the stores and the tools around them.
//!
#![cfg_attr(feature = "file", doc = "```no_run")]
#![cfg_attr(not(feature = "file"), doc = "```ignore")]
//! use keystead::file::{FileStore, SecretFile};
//! use keystead::{BoxError, KeyId, KeyStoreExt, KeyStore};
//!
//! # async fn example() -> Result<(), BoxError> {
//! let root = SecretFile::open("/home/app/secrets/root.hex")?.read_root_secret()?;
//! let store = FileStore::open_or_create("data/keys.db", root).await?;
//! let alice = KeyId::new("alice@example.com")?;
//!
//! // The key to encrypt this user's data with: 32 bytes, created by the first call.
//! let key = store.get_or_create_key(&alice).await?;
//! assert_eq!(key.expose_secret().len(), 32);
//!
//! // The user asks to be forgotten.
//! let erasure = store.erase_key(&alice).await?;
//! assert!(erasure.existed && erasure.verified);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `memory` | `memory::MemoryStore`: keys in the process's memory, for unit tests |
//! | `file` | `file::FileStore`: keys in one encrypted local file |
//! | `postgres` | `postgres::PostgresStore`: keys in PostgreSQL, sealed, for any number of hosts |
//! | `sealing` | `sealing::table::SealedStore`: a store over any table of rows; part of `file` and `postgres` |
//! | `ssm` | `ssm::SsmStore`: keys in AWS SSM Parameter Store |
//! | `secretsmanager` | `secretsmanager::SecretsManagerStore`: keys in AWS Secrets Manager |
//! | `layers` | cache, erasure fence, retries, limits, traces; `layers::Stack` composes them; turns on `copy` |
//! | `copy` | `copy::copy_keys`: verified copy from one store to another |
//! | `metrics` | counters and timers for `layers::Observed`; turns on `layers` |
//! | `serde` | serialization of ids, error details, receipts and `SsmConfig` |
//! | `uuid` | `From<Uuid>` for [`KeyId`] |
//! | `sso`, `credentials-process` | AWS profiles of these kinds; part of `ssm` and `secretsmanager` |
//! | `credentials-login` | AWS profiles of `aws login` |
//!
//! No feature is on by default, and there is no fallback to memory: a key that was only in memory
//! is lost data.
//!
//! [`open`] opens the store that a URL names, so that a configuration chooses it. [`Opener`] adds
//! the URLs of stores that are not in this crate.
#![cfg_attr(docsrs, feature(doc_cfg))]
// The documents show tests of the reader's own.
#![cfg_attr(doctest, allow(clippy::test_attr_in_doctest))]

mod open;

pub use keystead_core::*;

#[cfg(any(feature = "ssm", feature = "secretsmanager"))]
pub use crate::open::AwsUrl;
pub use crate::open::{Opener, open};

/// Keys in the process's memory.
#[cfg(feature = "memory")]
pub mod memory {
    pub use keystead_memory::*;
}

/// Keys in one encrypted local file.
#[cfg(feature = "file")]
pub mod file {
    pub use keystead_file::*;

    pub use crate::open::{FileUrl, SecretFile, SecretFileError};
}

/// Keys in PostgreSQL, sealed, for any number of hosts.
#[cfg(feature = "postgres")]
pub mod postgres {
    pub use keystead_postgres::*;

    pub use crate::open::{PostgresUrl, SecretFile, SecretFileError};
}

/// Sealed records and keyrings, and [`table`](sealing::table): a store over any table of rows.
#[cfg(feature = "sealing")]
pub mod sealing {
    pub use keystead_sealing::*;

    pub use crate::open::{SecretFile, SecretFileError};
}

/// Keys in AWS SSM Parameter Store.
#[cfg(feature = "ssm")]
pub mod ssm {
    pub use keystead_ssm::*;

    pub use crate::open::open_ssm as open;
}

/// Keys in AWS Secrets Manager.
#[cfg(feature = "secretsmanager")]
pub mod secretsmanager {
    pub use keystead_secretsmanager::*;
}

/// Re-encryption of keys in AWS under another KMS key, or in another tier.
#[cfg(any(feature = "ssm", feature = "secretsmanager"))]
pub mod reencrypt {
    pub use keystead_aws::{NeedsAttention, Reencrypt, ReencryptOptions, ReencryptReport, Reencryption, reencrypt};

    pub use crate::open::open_to_reencrypt as open;
}

/// Layers around any store. Each adds one property and is a store again.
#[cfg(feature = "layers")]
pub mod layers {
    pub use keystead_layers::*;
}

/// Verified, resumable copy of keys from one store to another.
///
/// [`copy_keys`](copy::copy_keys) copies every key and reads each one back;
/// [`compare`](copy::compare) reports whether two stores have the same keys. The documentation of
/// the crate [`keystead_copy`] describes the steps, the journal, and what happens to keys that
/// change during a copy.
#[cfg(feature = "copy")]
pub mod copy {
    pub use keystead_copy::*;
}

/// The entry points of the fuzzer. They may change in any release.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::open::check_url;
}

/// The programs in the README and in the documents, which are compiled with the tests.
#[cfg(all(
    doctest,
    feature = "memory",
    feature = "file",
    feature = "ssm",
    feature = "secretsmanager",
    feature = "layers"
))]
mod documents {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../docs/choosing-a-store.md")]
    mod choosing_a_store {}
    #[doc = include_str!("../docs/erasure.md")]
    mod erasure {}
    #[doc = include_str!("../docs/migrating.md")]
    mod migrating {}
    #[doc = include_str!("../docs/testing.md")]
    mod testing {}
}
