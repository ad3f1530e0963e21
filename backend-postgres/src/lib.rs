#![doc = include_str!("../README.md")]

mod config;
mod error;
mod pool;
mod sql;
mod store;
mod table;

pub use keystead_sealing::RootSecret;
pub use keystead_sealing::table::{RotateProgress, VerifyProgress, VerifyReport};

pub use crate::config::{InvalidPostgresConfig, PostgresConfig};
pub use crate::store::{PostgresBuilder, PostgresStore};
pub use crate::table::PostgresTable;

/// The statements that create the tables of a store, in the schema `keystead`: for operators who give
/// the service no right to create tables.
pub const CREATE_SQL: &str = include_str!("create.sql");
