//! [`isolated`]: programs that know nothing of this machine's AWS set-up.

use std::ffi::OsStr;
use std::process::Command;

/// A program that finds none of AWS's files, profiles and metadata here, and reaches the loopback
/// interface by no proxy.
pub fn isolated(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_remove("AWS_PROFILE")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("NO_PROXY", "127.0.0.1,localhost");
    command
}
