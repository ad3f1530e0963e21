//! The real program, run as a person or a script runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code")]

#[cfg(all(feature = "ssm", feature = "secretsmanager"))]
mod aws;
mod config;
mod copy;
mod file_store;
mod help;
mod interrupt;
mod json;
mod keys;
mod pipes;
mod policy;
mod room;
mod secrecy;
mod suite;
mod terminal;
