//! The functions that the fuzz targets run. Each takes any bytes and panics if a promise is broken.
//!
//! The fuzzer calls them from `fuzz/fuzz_targets`, with a nightly compiler. `tests/bounded.rs`
//! calls them on stable, with everything in `fuzz/corpus` and with inputs that proptest generates,
//! and limits the memory that they take.

mod format;
mod keyring;
mod name;
mod record;
mod url;

pub use crate::keyring::{keyring, keyring_message};
pub use crate::name::name;
pub use crate::record::{record, record_message};
pub use crate::url::url;

/// Inputs to start from: file names and contents.
pub type Seeds = Vec<(&'static str, Vec<u8>)>;

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name, as in `fuzz/fuzz_targets` and `fuzz/corpus`.
    pub name: &'static str,
    /// The function, which panics if a promise is broken.
    pub run: fn(&[u8]),
    /// The inputs with which the corpus starts.
    pub seeds: fn() -> Seeds,
}

/// All fuzz targets.
pub const TARGETS: [Target; 6] = [
    Target { name: "keyring", run: keyring, seeds: keyring::seeds },
    Target { name: "keyring_message", run: keyring_message, seeds: keyring::message_seeds },
    Target { name: "name", run: name, seeds: name::seeds },
    Target { name: "record", run: record, seeds: record::seeds },
    Target { name: "record_message", run: record_message, seeds: record::message_seeds },
    Target { name: "url", run: url, seeds: url::seeds },
];
