//! The conformance suite over the fence.

mod over_memory;

use std::process::ExitCode;
use std::sync::Arc;

use keystead_layers::Fenced;

fn main() -> ExitCode {
    over_memory::suite("fenced", |beneath| Ok(Arc::new(Fenced::builder(beneath.keys, beneath.tombstones).build()?)))
}
