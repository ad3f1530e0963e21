#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod cached;
mod describe;
mod distinct;
mod faulty;
mod fenced;
mod limited;
mod observed;
mod read_only;
mod resilient;
mod stack;
mod sync;

pub use crate::cached::{CacheStats, Cached, CachedBuilder};
pub use crate::faulty::{Fault, Faulty, FaultyBuilder};
pub use crate::fenced::{
    ErasureReceipt, Fenced, FencedBuilder, ReceiptCheck, ReconcileFailure, ReconcileReport, TombstoneMatch,
    is_fence_key,
};
pub use crate::limited::{Limit, LimitBuilder, LimitPermit, Limited};
pub use crate::observed::Observed;
pub use crate::read_only::ReadOnly;
pub use crate::resilient::{Resilient, ResilientBuilder};
pub use crate::stack::{Stack, StackBuilder};
