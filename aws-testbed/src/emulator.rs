//! [`Emulator`]: a running moto server.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use keystead_core::BoxError;

use crate::isolated;

/// The variable that names an emulator that is already running, as `http://127.0.0.1:PORT`.
const RUNNING: &str = "KEYSTEAD_TEST_EMULATOR";

/// The variable that names the Python interpreter in whose environment the emulator is installed.
const PYTHON: &str = "KEYSTEAD_PYTHON";

const PROGRAM: &str = include_str!("emulator.py");

/// A running emulator. One that was started here ends when this value is dropped, or with the
/// process.
#[derive(Debug)]
pub(crate) struct Emulator {
    pub(crate) authority: String,
    child: Option<Child>,
}

impl Emulator {
    /// Uses the emulator that `KEYSTEAD_TEST_EMULATOR` names, or starts one.
    ///
    /// # Errors
    /// A text that says how to install what is missing.
    pub(crate) fn start() -> Result<Self, BoxError> {
        if let Some(url) = std::env::var_os(RUNNING) {
            let url = url.to_string_lossy().into_owned();
            let authority = url.strip_prefix("http://127.0.0.1:").map(|port| format!("127.0.0.1:{port}"));
            let authority = authority.ok_or_else(|| format!("{RUNNING} is not http://127.0.0.1:PORT: {url}"))?;
            return Ok(Self { authority: authority.trim_end_matches('/').to_owned(), child: None });
        }
        let python = python()?;
        let mut child = isolated(&python)
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|e| format!("{} cannot be started ({e}): {}", python.display(), how_to_install()))?;
        let mut port = String::new();
        if let Some(stdout) = child.stdout.as_mut() {
            BufReader::new(stdout).read_line(&mut port)?;
        }
        let port: u16 = port.trim().parse().map_err(|_| {
            format!("{} has no AWS emulator, or it does not start: {}", python.display(), how_to_install())
        })?;
        Ok(Self { authority: format!("127.0.0.1:{port}"), child: Some(child) })
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Returns the Python interpreter of the virtual environment that `scripts/test.sh` creates: the
/// one that `KEYSTEAD_PYTHON` names, or the one in the target directory that contains the running
/// program.
///
/// # Errors
/// A text that says how to install what is missing.
pub fn python() -> Result<PathBuf, BoxError> {
    if let Some(python) = std::env::var_os(PYTHON) {
        return Ok(python.into());
    }
    let program = std::env::current_exe()?;
    let python = program.ancestors().map(|folder| folder.join("venv/bin/python")).find(|python| python.exists());
    python.ok_or_else(|| format!("the AWS emulator is not installed: {}", how_to_install()).into())
}

fn how_to_install() -> String {
    "run scripts/test.sh, or python3 -m venv target/venv && target/venv/bin/pip install -r scripts/requirements.txt"
        .to_owned()
}
