//! The conformance suite over Secrets Manager with a recovery window of a week.

mod harness;

use std::process::ExitCode;

use harness::Secrets;
use keystead_core::BoxError;

fn main() -> Result<ExitCode, BoxError> {
    Ok(keystead_conformance::main(Secrets::new(Some(7))?))
}
