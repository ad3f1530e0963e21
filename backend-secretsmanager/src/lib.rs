#![doc = include_str!("../README.md")]

mod batch;
mod config;
mod description;
mod error;
mod reencrypt;
mod replica;
mod store;

pub use keystead_aws::InvalidTag;

pub use crate::config::{InvalidSecretsManagerConfig, SecretsManagerConfig};
pub use crate::store::{SecretsManagerStore, SecretsManagerStoreBuilder};
