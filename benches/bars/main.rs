//! Measures the bars that keystead holds, prints a row for each, and writes the table. See the
//! README.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod aws;
mod aws_server;
mod batch;
mod bench;
mod bulk;
mod cache;
mod cold_build;
mod crowd;
mod file;
mod memory;
mod peers;
mod processes;
mod worker;

use std::path::Path;
use std::process::ExitCode;

use keystead_benches::options::Options;
use keystead_core::BoxError;

use crate::bench::Bench;

type Measure = fn(&mut Bench) -> Result<(), BoxError>;

/// The measurements, in the order in which they are run.
const ROWS: &[(&str, Measure)] = &[
    ("memory.get", memory::get),
    ("memory.two_threads", memory::two_threads),
    ("cache.hit", cache::hit),
    ("cache.two_threads", cache::two_threads),
    ("cache.misses", cache::misses),
    ("cache.stampede", cache::stampede),
    ("file.get", file::get),
    ("file.put", file::put),
    ("file.scrub", file::scrub),
    ("file.crowd_put", crowd::put),
    ("file.crowd_delete", crowd::delete),
    ("file.processes", processes::write),
    ("file.get_keys", batch::get),
    ("file.delete_keys", batch::delete),
    ("file.bulk_put", bulk::put),
    ("file.bulk_load", bulk::load),
    ("file.bulk_read", bulk::read),
    ("ssm", aws::ssm),
    ("secretsmanager", aws::secrets_manager),
    ("build.cold", cold_build::build),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let outcome = if arguments.next_if_eq("worker").is_some() { worker::work(arguments) } else { measure(arguments) };
    match outcome {
        Ok(code) => code,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(2)
        }
    }
}

/// Measures the rows that the options select, and returns the exit code: success if no bar was
/// missed.
fn measure(arguments: impl Iterator<Item = String>) -> Result<ExitCode, BoxError> {
    let options = defaults().parse(arguments)?;
    let wanted: Vec<_> = ROWS.iter().filter(|(name, _)| options.wants(name)).collect();
    if wanted.is_empty() {
        return Err("no row has such a name: --list shows the names".into());
    }
    if options.list {
        wanted.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(ExitCode::SUCCESS);
    }
    let mut bench = Bench::new(options)?;
    for (name, measure) in wanted {
        if let Err(e) = measure(&mut bench) {
            bench.failed(name, &e);
        }
    }
    bench.finish()
}

/// Returns the default options: scratch files and the table are in Cargo's target directory.
fn defaults() -> Options {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let out = scratch.parent().unwrap_or(scratch).join("bench.md");
    Options { quick: false, list: false, filters: Vec::new(), dir: scratch.to_owned(), out }
}
