//! The parts of the benchmark: rounds that take turns, a table of bars, and people to keep keys
//! for.
//!
//! The rows themselves are in `bars/`: see the README.

pub mod measure;
pub mod options;
pub mod people;
pub mod table;
pub mod visits;
