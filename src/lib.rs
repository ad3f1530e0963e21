// The README's programs need the backends, so it is the crate's documentation when all are there.
#![cfg_attr(
    all(feature = "memory", feature = "file", feature = "ssm", feature = "secretsmanager", feature = "layers"),
    doc = include_str!("../README.md")
)]
#![cfg_attr(
    not(all(feature = "memory", feature = "file", feature = "ssm", feature = "secretsmanager", feature = "layers")),
    doc = "One secret encryption key per user, in the store you trust. No backend is on by default: enable the features \
           of those you use, `memory`, `file`, `ssm`, `secretsmanager`, and `layers` for what goes around them."
)]
// The README shows a test of the reader's own.
#![allow(clippy::test_attr_in_doctest)]

#[cfg(feature = "layers")]
pub mod copy;
mod open;

pub use keystead_core::*;

pub use crate::open::open;

/// Keys in the process's memory (feature `memory`).
#[cfg(feature = "memory")]
pub mod memory {
    pub use keystead_memory::*;
}

/// Keys in one encrypted local file (feature `file`).
#[cfg(feature = "file")]
pub mod file {
    pub use keystead_file::*;

    pub use crate::open::{FileUrl, SecretFile, SecretFileError};
}

/// Keys in AWS SSM Parameter Store (feature `ssm`).
#[cfg(feature = "ssm")]
pub mod ssm {
    pub use keystead_ssm::*;

    pub use crate::open::open_ssm as open;
}

/// Keys in AWS Secrets Manager (feature `secretsmanager`).
#[cfg(feature = "secretsmanager")]
pub mod secretsmanager {
    pub use keystead_secretsmanager::*;
}

/// Keys that move to another KMS key, or to another tier (features `ssm` and `secretsmanager`).
#[cfg(any(feature = "ssm", feature = "secretsmanager"))]
pub mod reencrypt {
    pub use keystead_aws::{NeedsAttention, Reencrypt, ReencryptOptions, ReencryptReport, Reencryption, reencrypt};

    pub use crate::open::open_to_reencrypt as open;
}

/// Layers around any store: each adds one thing to it, and is a store again (feature `layers`).
#[cfg(feature = "layers")]
pub mod layers {
    pub use keystead_layers::*;
}

/// The entry points of the fuzzer (feature `fuzzing`). They may change in any release.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::open::check_url;
}

/// The programs in the documents, compiled as those of the README are.
#[cfg(all(
    doctest,
    feature = "memory",
    feature = "file",
    feature = "ssm",
    feature = "secretsmanager",
    feature = "layers"
))]
mod documents {
    #[doc = include_str!("../docs/choosing-a-store.md")]
    mod choosing_a_store {}
    #[doc = include_str!("../docs/erasure.md")]
    mod erasure {}
    #[doc = include_str!("../docs/migrating.md")]
    mod migrating {}
    #[doc = include_str!("../docs/testing.md")]
    mod testing {}
}
