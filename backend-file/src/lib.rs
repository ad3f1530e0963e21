#![doc = include_str!("../README.md")]

mod backup;
mod config;
mod database;
mod error;
mod lock;
mod reader;
mod rotate;
mod store;
mod verify;
mod writer;

pub use keystead_sealing::{InvalidRootSecret, RootProvider, RootSecret, RowKey};

pub use crate::store::{FileStore, Progress};
pub use crate::verify::VerifyReport;
