//! [`isolated`]: programs that do not see this machine's AWS configuration.

use std::ffi::OsStr;
use std::process::Command;

/// Creates a command that does not find this machine's AWS files, profiles and metadata, and that
/// reaches the loopback interface without a proxy.
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
