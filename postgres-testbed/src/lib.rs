//! A PostgreSQL server for tests, its backups and standbys, and a proxy in front of it that breaks
//! calls.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use keystead_core::BoxError;

mod proxy;

pub use proxy::{Break, Proxy};

/// The interpreter of the virtual environment that has PostgreSQL.
const PYTHON: &str = "KEYSTEAD_PYTHON";

const PROGRAM: &str = include_str!("cluster.py");

const HOW_TO_INSTALL: &str = "run scripts/test.sh, which installs it in target/venv from scripts/requirements.txt";

/// A running cluster, which ends with this value, or with the process.
#[derive(Debug)]
pub struct Cluster {
    socket: PathBuf,
    child: Child,
    orders: Mutex<Option<Orders>>,
}

/// The ends of the pipes of the program that runs the servers.
#[derive(Debug)]
struct Orders {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Orders {
    fn answer(&mut self) -> Result<PathBuf, BoxError> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let path = PathBuf::from(line.trim_end());
        // What failed was written to standard error.
        if path.is_absolute() { Ok(path) } else { Err("PostgreSQL for tests has ended".into()) }
    }
}

impl Cluster {
    /// Starts PostgreSQL in a temporary directory.
    ///
    /// # Errors
    /// A text that says how to install what is missing.
    pub fn start() -> Result<Self, BoxError> {
        let python = python()?;
        let mut child = Command::new(&python)
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{} cannot be started ({e}): {HOW_TO_INSTALL}", python.display()))?;
        let pipes = child.stdin.take().zip(child.stdout.take()).ok_or("a process without pipes")?;
        let mut orders = Orders { input: pipes.0, output: BufReader::new(pipes.1) };
        let socket = orders
            .answer()
            .map_err(|_| format!("{} has no PostgreSQL, or it does not start: {HOW_TO_INSTALL}", python.display()))?;
        Ok(Self { socket, child, orders: Mutex::new(Some(orders)) })
    }

    /// Returns the directory of the server's Unix socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns the connection string of a database, as a superuser without a password.
    pub fn url(&self, database: &str) -> String {
        url(&self.socket, database)
    }

    /// Copies the running cluster with pg_basebackup, and returns the copy's directory.
    ///
    /// # Errors
    /// A text, if the copy failed; the cluster has ended then.
    pub fn backup(&self, name: &str) -> Result<PathBuf, BoxError> {
        self.order(&format!("backup {name}"))
    }

    /// Starts a streaming standby, and returns the directory of its socket.
    ///
    /// # Errors
    /// A text, if that failed; the cluster has ended then.
    pub fn standby(&self, name: &str) -> Result<PathBuf, BoxError> {
        self.order(&format!("standby {name}"))
    }

    /// Starts a server over a backup, and returns the directory of its socket.
    ///
    /// # Errors
    /// A text, if that failed; the cluster has ended then.
    pub fn start_backup(&self, name: &str) -> Result<PathBuf, BoxError> {
        self.order(&format!("start {name}"))
    }

    /// Writes all pages to the cluster's files, and returns their directory.
    ///
    /// # Errors
    /// A text, if that failed; the cluster has ended then.
    pub fn checkpoint(&self) -> Result<PathBuf, BoxError> {
        self.order("checkpoint")
    }

    fn order(&self, text: &str) -> Result<PathBuf, BoxError> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let orders = orders.as_mut().ok_or("PostgreSQL for tests has ended")?;
        orders.input.write_all(format!("{text}\n").as_bytes())?;
        orders.input.flush()?;
        orders.answer()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.orders.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.child.wait());
    }
}

/// Returns the connection string of a database behind the socket in this directory.
pub fn url(socket: &Path, database: &str) -> String {
    format!("host={} user=keystead dbname={database}", socket.display())
}

fn python() -> Result<PathBuf, BoxError> {
    if let Some(python) = std::env::var_os(PYTHON) {
        return Ok(python.into());
    }
    let program = std::env::current_exe()?;
    let python = program.ancestors().map(|folder| folder.join("venv/bin/python")).find(|python| python.exists());
    python.ok_or_else(|| format!("PostgreSQL for tests is not installed: {HOW_TO_INSTALL}").into())
}
