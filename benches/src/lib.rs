//! The parts that all benchmarks share: interleaved rounds, a table of bars, and users with their
//! keys.
//!
//! The rows themselves are in `bars/`: see the README.

pub mod access_pattern;
pub mod measure;
pub mod options;
pub mod table;
pub mod users;
