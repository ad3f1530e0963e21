#![doc = include_str!("../README.md")]

mod access;
mod backup;
mod cells;
mod chunk;
mod config;
mod database;
mod error;
mod format;
mod instance;
mod load;
mod lock;
mod mark;
mod open;
mod options;
mod periodic;
mod queue;
mod reader;
mod reply;
mod request;
mod reseal;
mod restore;
mod rotate;
mod store;
mod threads;
mod transaction;
mod verify;
mod writer;

pub use keystead_sealing::{InvalidRootSecret, RootProvider, RootSecret, RowKey};

pub use crate::load::LoadReport;
pub use crate::options::FileOptions;
pub use crate::store::{FileStore, Progress};
pub use crate::verify::VerifyReport;
