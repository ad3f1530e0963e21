//! Tests of the program as a whole, run as a person or a script would run it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code")]

#[cfg(all(feature = "ssm", feature = "secretsmanager"))]
mod aws;
#[cfg(all(feature = "ssm", feature = "secretsmanager"))]
mod aws_erase;
mod config;
mod copy;
mod erase;
mod file_store;
mod fixture;
mod help;
mod interrupt;
mod json;
mod keys;
mod list;
mod man;
mod passphrases;
mod pipes;
mod policy;
mod progress;
mod receipts;
mod secrecy;
mod store_path;
mod suite;
#[cfg(all(feature = "ssm", feature = "secretsmanager"))]
mod suite_aws;
mod terminal;
mod verbose;
