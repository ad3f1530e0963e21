#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod batch;
mod capabilities;
mod error;
mod ext;
mod forward;
mod id;
mod identity;
mod info;
mod key;
mod name;
mod outcome;
mod store;

pub use async_trait::async_trait;
pub use futures_core::stream::BoxStream;

pub use crate::batch::create_each;
pub use crate::capabilities::{Capabilities, Consistency, DeletionGrade, Durability};
pub use crate::error::{BoxError, Effect, Error, ErrorDetails, ErrorKind, ErrorType, Operation, Result};
pub use crate::ext::KeyStoreExt;
pub use crate::id::{InvalidKeyId, KeyId};
pub use crate::identity::{IdentityMatch, InvalidStoreIdentity, StoreIdentity};
pub use crate::info::StoreInfo;
pub use crate::key::{InvalidSecretKey, SecretKey};
pub use crate::name::{InvalidNameTemplate, NameTemplate};
pub use crate::outcome::{Deletion, Erasure, Finality, PutMode};
pub use crate::store::KeyStore;
