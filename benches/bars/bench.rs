//! [`Bench`]: the options, runtime, scratch directory and table that all rows share.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use keystead_benches::options::Options;
use keystead_benches::table::{Row, Table};
use keystead_core::BoxError;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The options, a runtime, a scratch directory and the table.
pub(crate) struct Bench {
    pub(crate) options: Options,
    /// Everything that is async runs on it, keystead and its references alike.
    pub(crate) runtime: Runtime,
    scratch: TempDir,
    table: Table,
}

impl Bench {
    pub(crate) fn new(options: Options) -> Result<Self, BoxError> {
        fs::create_dir_all(&options.dir)?;
        let scratch = tempfile::Builder::new().prefix("bench-").tempdir_in(&options.dir)?;
        let table = Table::new(!options.quick);
        Ok(Self { options, runtime: Runtime::new()?, scratch, table })
    }

    /// Creates a directory on the disk that is measured, for its owner only.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf, BoxError> {
        let path = self.scratch.path().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }

    /// Deletes a directory that is no longer needed, so that the disk does not fill up.
    pub(crate) fn discard(&self, name: &str) -> Result<(), BoxError> {
        Ok(fs::remove_dir_all(self.scratch.path().join(name))?)
    }

    /// Adds a row to the table and prints it.
    pub(crate) fn row(&mut self, row: &Row<'_>) {
        print!("{}", self.table.add(row));
    }

    /// Adds a measurement that failed to the table and prints it.
    pub(crate) fn failed(&mut self, name: &str, error: &BoxError) {
        let mut why = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            why = format!("{why}, because {error}");
            cause = error.source();
        }
        print!("{}", self.table.add_failure(name, &why));
    }

    /// Writes the table and returns the exit code: success if no bar was missed.
    pub(crate) fn finish(self) -> Result<ExitCode, BoxError> {
        fs::write(&self.options.out, self.table.text())?;
        println!("\nThe table is in {}.", self.options.out.display());
        match self.table.missed() {
            0 => Ok(ExitCode::SUCCESS),
            missed => {
                println!("{missed} of its bars were missed.");
                Ok(ExitCode::FAILURE)
            }
        }
    }
}

/// Runs the same work on several threads that begin together, and returns the time until the last
/// one has ended.
pub(crate) fn on_threads(
    threads: usize,
    work: impl Fn(usize) -> Result<(), BoxError> + Sync,
) -> Result<Duration, BoxError> {
    let work = &work;
    let start = &Barrier::new(threads + 1);
    thread::scope(|scope| {
        let run = |thread| {
            move || {
                start.wait();
                work(thread)
            }
        };
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(run(thread))).collect();
        start.wait();
        let began = Instant::now();
        for thread in running {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(began.elapsed())
    })
}
