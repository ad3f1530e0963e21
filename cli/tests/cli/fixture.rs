//! [`Fixture`]: a directory with a file store, in which the program runs.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use keystead::KeyId;
use keystead_aws_testbed::isolated;
use tempfile::TempDir;

/// A key in the default format.
pub(crate) const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A temporary directory for one test.
pub(crate) struct Fixture {
    directory: TempDir,
}

/// The result of a run of the program.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Fixture {
    /// Creates a fixture without a store.
    pub(crate) fn empty() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// Creates a fixture with a store and its root secret.
    pub(crate) fn new() -> Self {
        let fixture = Self::empty();
        fixture.run(&["init"]).done();
        fixture
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn write_secret(&self, name: &str, contents: &str) {
        fs::write(self.path(name), contents).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn url(&self) -> String {
        let directory = self.directory().display();
        format!("file://{directory}/keys.db?root_secret_file={directory}/root.secret")
    }

    /// Returns the program with the store of this fixture and without the configuration of this
    /// machine. It has no terminal, even if the tests run in one.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = isolated("setsid");
        command
            .arg(env!("CARGO_BIN_EXE_keystead"))
            .args(args)
            .current_dir(self.directory())
            .env("KEYSTEAD_STORE", self.url())
            .env("HOME", self.directory())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// Runs the program without a store in the environment.
    pub(crate) fn run_storeless(&self, args: &[&str]) -> Ran {
        self.command(args).env_remove("KEYSTEAD_STORE").output().unwrap().into()
    }

    pub(crate) fn run_with(&self, args: &[&str], stdin: impl AsRef<[u8]>) -> Ran {
        let mut child = self.spawn(args);
        // This fails if the program ends without reading its input.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_ref());
        child.wait_with_output().unwrap().into()
    }

    /// Starts the program with pipes for standard input, output and error.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Stores keys with the library, many at once.
    pub(crate) fn fill(&self, ids: impl IntoIterator<Item = String>) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = keystead::open(&self.url()).await.unwrap();
            let key = keystead::SecretKey::generate(32).unwrap();
            let puts = ids.into_iter().map(|id| {
                let store = store.clone();
                let key = key.clone();
                tokio::spawn(async move {
                    store.put_key_with(&KeyId::new(id).unwrap(), &key, keystead::PutMode::Overwrite).await.unwrap();
                })
            });
            for put in puts.collect::<Vec<_>>() {
                put.await.unwrap();
            }
        });
    }

    /// Damages one record of this store, as a failing disk would.
    pub(crate) fn damage(&self, name: &str) {
        let database = rusqlite::Connection::open(self.path(name)).unwrap();
        // The first cell does not belong to a record.
        let first = "UPDATE cells SET bytes = zeroblob(256) \
                     WHERE part = (SELECT min(part) FROM cells WHERE part > zeroblob(33))";
        assert_eq!(database.execute(first, []).unwrap(), 1);
    }
}

impl Ran {
    /// Checks that the run succeeded, and returns its standard output.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// Checks that the run ended with this code and without standard output, and returns its standard
    /// error.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (code, ""), "{self:?}");
        self.stderr
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Returns the lines of a text, sorted.
pub(crate) fn sorted_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
