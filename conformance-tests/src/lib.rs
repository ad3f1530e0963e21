#![doc = include_str!("../README.md")]

mod canary;
mod capture;
mod case;
mod cases;
mod context;
mod harness;
mod linearize;
mod main_fn;
mod report;
mod runner;
mod sample;

pub use async_trait::async_trait;

pub use crate::case::{Case, Need, cases};
pub use crate::harness::{Fault, Faults, Harness, Namespace};
pub use crate::main_fn::main;
pub use crate::report::Report;
pub use crate::runner::{Options, Progress, run, run_with_progress};
