//! `keystead`, the command-line tool for operators. README.md describes each command.

mod args;
mod commands;
mod config;
mod encoding;
mod examples;
mod exit;
mod files;
mod finality;
mod ids_file;
mod input;
mod output;
mod progress;
mod receipts;
mod session;
mod shown;
mod store_path;
mod stores;
mod terminal;
mod verbose;

use std::process::ExitCode;
use std::time::Duration;

use crate::exit::CommandError;
use crate::output::Output;

/// The longest wait at the end of a run for threads that still write to the scratch directories.
const SHUTDOWN: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = match args::parse() {
        Ok(cli) => cli,
        Err(e) => return args::report(e),
    };
    let output = Output { json: cli.global.json };
    verbose::listen(cli.global.verbose);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return CommandError::other("cannot start the program's threads").because(e).report(output.json),
    };
    let (outcome, scratch) = runtime.block_on(session::run(cli));
    match scratch.is_empty() {
        // A thread may still wait for input from the terminal.
        true => runtime.shutdown_background(),
        // Threads that write to the directories must end before these are removed.
        false => runtime.shutdown_timeout(SHUTDOWN),
    }
    match session::with_leftovers(outcome, session::remove(scratch), output) {
        Ok(code) => code.into(),
        Err(failure) => failure.report(output.json),
    }
}
