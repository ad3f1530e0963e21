#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod batch;
mod config;
mod count;
mod describe;
mod error;
mod format;
mod legacy;
mod name;
mod put;
mod reencrypt;
mod store;

pub use keystead_aws::InvalidTag;

pub use crate::config::{InvalidSsmConfig, SsmConfig, Tier};
pub use crate::name::InvalidParameterTemplate;
pub use crate::store::{SsmStore, SsmStoreBuilder};
