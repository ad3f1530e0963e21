//! [`Worker`]: this program started again as a child process, which runs one job and answers with a
//! line of numbers.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use keystead_core::BoxError;
use tokio::runtime::Runtime;

use crate::{bulk, processes};

/// A child process and our ends of its pipes.
pub(crate) struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Runs this program again for a job of [`work`].
    pub(crate) fn start(job: &str, store: &Path, numbers: &[usize]) -> Result<Self, BoxError> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["worker", job])
            .arg(store)
            .args(numbers.iter().map(usize::to_string))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().ok_or("a process without pipes")?;
        let output = child.stdout.take().ok_or("a process without pipes")?;
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    /// Lets a worker that waits in [`rendezvous`] go on.
    pub(crate) fn go(&mut self) -> Result<(), BoxError> {
        Ok(self.input.write_all(b"go\n")?)
    }

    /// Waits for the next line of numbers and returns it.
    pub(crate) fn answer(&mut self) -> Result<Vec<f64>, BoxError> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(format!("a worker ended without an answer, {}", self.child.wait()?).into());
        }
        line.split_whitespace().map(|number| Ok(number.parse()?)).collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A worker that has answered ends by itself. Any other must not outlive this process.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs a job in a worker and returns its answer.
pub(crate) fn run(job: &str, store: &Path, numbers: &[usize]) -> Result<Vec<f64>, BoxError> {
    let mut worker = Worker::start(job, store, numbers)?;
    let answer = worker.answer()?;
    worker.child.wait()?;
    Ok(answer)
}

/// In the worker: says that it is ready, and waits to be told to go on.
pub(crate) fn rendezvous() -> Result<(), BoxError> {
    answer(&[])?;
    match io::stdin().lock().read_line(&mut String::new())? {
        0 => Err("the benchmark has ended".into()),
        _ => Ok(()),
    }
}

/// In the worker: sends a line of numbers.
pub(crate) fn answer(numbers: &[f64]) -> Result<(), BoxError> {
    let line: Vec<String> = numbers.iter().map(f64::to_string).collect();
    let mut output = io::stdout().lock();
    writeln!(output, "{}", line.join(" "))?;
    Ok(output.flush()?)
}

/// Runs the job of a program that was started as a worker.
pub(crate) fn work(mut arguments: impl Iterator<Item = String>) -> Result<ExitCode, BoxError> {
    let mut argument = || arguments.next().ok_or("a worker needs a job, a store and numbers");
    let job = argument()?;
    let store = argument()?;
    let numbers = arguments.map(|number| number.parse()).collect::<Result<Vec<usize>, _>>()?;
    let store = Path::new(&store);
    Runtime::new()?.block_on(async {
        match (job.as_str(), numbers.as_slice()) {
            ("put", &[index, milliseconds]) => processes::put_for(store, index, milliseconds, false).await,
            ("put-and-delete", &[index, milliseconds]) => processes::put_for(store, index, milliseconds, true).await,
            ("put-all", &[users]) => bulk::put_all(store, users).await,
            ("load", &[users]) => bulk::load_all(store, users).await,
            ("list", &[users]) => bulk::list(store, users).await,
            ("verify", &[users]) => bulk::verify(store, users).await,
            ("open", &[]) => bulk::open(store).await,
            _ => Err(format!("no job {job} with these numbers").into()),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}
