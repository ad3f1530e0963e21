#![doc = include_str!("../README.md")]

mod batch;
mod builder;
mod call;
mod codes;
pub mod eventual;
mod failure;
mod identity;
mod kms;
mod listing;
mod message;
mod reencrypt;
mod retry;
mod settings;
mod tags;

pub use crate::batch::{Batches, Outcomes};
pub use crate::builder::{AwsStore, StoreBuilder};
pub use crate::call::{Attempts, Call, quietly};
pub use crate::failure::{Failure, Service};
pub use crate::identity::AwsIdentity;
pub use crate::kms::{is_arn, is_kms_key, is_same_kms_key, kms_key_region};
pub use crate::listing::{Page, listing};
pub use crate::reencrypt::{Reencrypt, ReencryptOptions, ReencryptReport, Reencryption, reencrypt};
pub use crate::retry::{CodeRule, RetryRules};
pub use crate::settings::{ClientSettings, default_sdk_config};
pub use crate::tags::{InvalidTag, Tags};
