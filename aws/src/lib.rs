#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod account;
mod answer;
mod batch;
mod builder;
mod call;
mod checks;
mod codes;
mod connection;
mod credentials;
mod default_chain;
pub mod eventual;
mod failure;
mod identity;
mod kms;
mod listing;
mod message;
mod pace;
mod probe;
mod reencrypt;
mod retry;
mod role;
mod session;
mod settings;
mod tags;
mod texts;
mod trace;

pub use crate::batch::{Batches, Outcomes};
pub use crate::builder::{AwsStore, StoreBuilder};
pub use crate::call::{Attempts, AwsCall, quietly};
pub use crate::codes::is_throttling;
pub use crate::failure::{AwsFailure, Service};
pub use crate::identity::AwsIdentity;
pub use crate::kms::{is_arn, is_kms_key, is_same_kms_key, kms_key_region};
pub use crate::listing::{Page, listing};
pub use crate::pace::WritePace;
pub use crate::probe::probe_name;
pub use crate::reencrypt::{NeedsAttention, Reencrypt, ReencryptOptions, ReencryptReport, Reencryption, reencrypt};
pub use crate::retry::{CodeRule, RetryRules};
pub use crate::settings::ClientSettings;
pub use crate::tags::{InvalidTag, Tags};
