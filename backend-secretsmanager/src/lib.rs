#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

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
