#![doc = include_str!("../README.md")]

mod batch;
mod config;
mod count;
mod error;
mod format;
mod name;
mod store;

pub use crate::config::{InvalidSsmConfig, SsmConfig, Tier};
pub use crate::name::InvalidParameterTemplate;
pub use crate::store::{SsmStore, SsmStoreBuilder};
