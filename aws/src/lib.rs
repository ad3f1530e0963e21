#![doc = include_str!("../README.md")]

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
mod retry;
mod role;
mod session;
mod settings;
mod texts;

pub use crate::batch::{Batches, Outcomes};
pub use crate::builder::{AwsStore, StoreBuilder};
pub use crate::call::{Attempts, Call, quietly};
pub use crate::failure::{Failure, Service};
pub use crate::identity::AwsIdentity;
pub use crate::kms::is_kms_key;
pub use crate::listing::{Page, listing};
pub use crate::retry::{CodeRule, RetryRules};
pub use crate::settings::ClientSettings;
