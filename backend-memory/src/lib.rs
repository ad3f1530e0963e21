#![doc = include_str!("../README.md")]

mod store;

pub use crate::store::MemoryStore;
