#![doc = include_str!("../README.md")]

mod config;
mod database;
mod error;
mod lock;
mod reader;
mod store;
mod writer;

pub use keystead_sealing::{InvalidRootSecret, RootProvider, RootSecret};

pub use crate::store::FileStore;
