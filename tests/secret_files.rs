//! Tests of files with a root secret or a passphrase: those that are read, and those that are
//! refused.
#![cfg(all(unix, feature = "file"))]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code")]

use std::error::Error as StdError;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use futures_executor::block_on;
use keystead::file::{FileUrl, RootSecret, SecretFile};
use keystead::{ErrorKind, KeyStore};
use tempfile::TempDir;

/// The user id that stands for another user.
const OTHER_USER: u32 = 4242;

/// A directory with secrets in it.
struct Fixture {
    directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file with this mode, whatever the umask is.
    fn write(&self, name: &str, contents: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    /// Creates a secret with links as Kubernetes does. Returns the file, and the link to use as its
    /// path.
    fn kubernetes_secret(&self, mode: u32) -> (PathBuf, PathBuf) {
        let version = self.path("..2026_11_25_17_00_00.123456789");
        fs::create_dir(&version).unwrap();
        let file = self.write("..2026_11_25_17_00_00.123456789/root", digits(), mode);
        symlink("..2026_11_25_17_00_00.123456789", self.path("..data")).unwrap();
        symlink("..data/root", self.path("root")).unwrap();
        (file, self.path("root"))
    }

    fn url(&self, parameter: &str, secret: &Path) -> String {
        format!("file://{}?create=true&{parameter}={}", self.path("keys.db").display(), secret.display())
    }

    /// Reads the secret that the parameter names.
    fn read(&self, parameter: &str, secret: &Path) -> keystead::Result<RootSecret> {
        FileUrl::parse(&self.url(parameter, secret)).unwrap().root_secret()
    }

    /// Asserts that the secret is refused, also when the store is opened, and returns the reason.
    #[track_caller]
    fn expect_refusal(&self, parameter: &str, secret: &Path) -> String {
        let error = self.read(parameter, secret).unwrap_err();
        assert_eq!((error.kind(), error.store()), (ErrorKind::Config, "file"));
        let reason = error.source().unwrap().to_string();
        assert!(reason.starts_with(&format!("{parameter}: ")), "{reason}");
        assert_eq!(block_on(keystead::open(&self.url(parameter, secret))).unwrap_err().kind(), ErrorKind::Config);
        assert!(!self.path("keys.db").exists());
        reason
    }

    /// Asserts that the store opens with this secret.
    #[track_caller]
    fn expect_opens(&self, parameter: &str, secret: &Path) {
        block_on(block_on(keystead::open(&self.url(parameter, secret))).unwrap().check()).unwrap();
    }
}

/// Returns a root secret as a file contains it.
fn digits() -> String {
    format!("{}\n", "5a".repeat(32))
}

/// Gives the file to another user. Returns false, and prints a line, if this user may not do that.
fn give_away(path: &Path) -> bool {
    match chown(path, Some(OTHER_USER), None) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            println!("skipped: only root can give a file to another user");
            false
        }
        Err(e) => panic!("{e}"),
    }
}

fn is_readable_by_others(path: &Path) -> Option<bool> {
    SecretFile::open(path).unwrap().is_readable_by_others()
}

#[test]
fn a_private_file_is_read() {
    let fixture = Fixture::new();
    for mode in [0o600, 0o400] {
        let secret = fixture.write(&format!("{mode:o}"), digits(), mode);
        assert_eq!(is_readable_by_others(&secret), Some(false));
        fixture.expect_opens("root_secret_file", &secret);
    }
}

#[test]
fn a_kubernetes_secret_of_ours_on_a_writable_mount_is_refused_until_chmod() {
    for mode in [0o644, 0o440, 0o444] {
        let fixture = Fixture::new();
        let (_, link) = fixture.kubernetes_secret(mode);
        let reason = fixture.expect_refusal("root_secret_file", &link);
        let chmod = format!("chmod 600 '{}'", link.display());
        assert!(reason.contains("others may read") && reason.ends_with(&format!("run {chmod}")), "{reason}");

        // The advice works as it is written.
        assert!(Command::new("sh").args(["-c", &chmod]).status().unwrap().success());
        fixture.expect_opens("root_secret_file", &link);
        assert!(link.is_symlink());
    }
}

#[test]
fn a_kubernetes_secret_of_another_user_is_accepted() {
    for mode in [0o644, 0o440, 0o444] {
        let fixture = Fixture::new();
        let (file, link) = fixture.kubernetes_secret(mode);
        if !give_away(&file) {
            // Every system has this file, of root and of mode 0644.
            assert_eq!(is_readable_by_others(Path::new("/etc/passwd")), Some(true));
            return;
        }
        assert_eq!(is_readable_by_others(&link), Some(true));
        fixture.expect_opens("root_secret_file", &link);
    }
}

#[test]
fn a_docker_secret_is_refused_or_accepted_like_one_of_kubernetes() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path("secrets")).unwrap();
    let secret = fixture.write("secrets/phrase", "correct horse\n", 0o444);
    let reason = fixture.expect_refusal("passphrase_file", &secret);
    assert!(reason.ends_with(&format!("run chmod 600 '{}'", secret.display())), "{reason}");
    if give_away(&secret) {
        assert_eq!(is_readable_by_others(&secret), Some(true));
        fixture.expect_opens("passphrase_file", &secret);
    }
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    for mode in [0o620, 0o602, 0o660, 0o666, 0o777] {
        let fixture = Fixture::new();
        let secret = fixture.write("root", digits(), mode);
        let reason = fixture.expect_refusal("root_secret_file", &secret);
        assert!(reason.contains("others may write") && reason.contains("run chmod 600"), "{reason}");
        if give_away(&secret) {
            let reason = fixture.expect_refusal("root_secret_file", &secret);
            let shown = secret.display();
            assert!(reason.ends_with(&format!("have its owner run chmod go-w '{shown}'")), "{reason}");
        }
    }
}

#[test]
fn a_link_to_a_file_that_others_may_write_is_refused() {
    let fixture = Fixture::new();
    fixture.write("file", digits(), 0o666);
    symlink("file", fixture.path("root")).unwrap();
    assert!(fixture.expect_refusal("root_secret_file", &fixture.path("root")).contains("others may write"));
}

#[test]
fn directories_and_devices_are_refused() {
    let fixture = Fixture::new();
    for path in [fixture.directory.path(), Path::new("/dev/null"), Path::new("/dev/zero")] {
        let reason = fixture.expect_refusal("root_secret_file", path);
        assert!(reason.contains("neither a regular file nor a pipe"), "{reason}");
    }
}

#[test]
fn a_pipe_without_a_writer_is_an_error_and_not_a_hang() {
    let fixture = Fixture::new();
    let pipe = fixture.path("pipe");
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status().unwrap().success());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(fixture.expect_refusal("passphrase_file", &fixture.path("pipe"))));
    let reason = receiver.recv_timeout(Duration::from_secs(10)).expect("opening waits for a writer");
    assert!(reason.contains("nothing was written to the pipe"), "{reason}");
}

#[test]
fn a_pipe_is_read_until_its_writer_closes_it() {
    let fixture = Fixture::new();
    let (reader, mut writer) = io::pipe().unwrap();
    let slow = thread::spawn(move || {
        for part in ["correct", " horse\n"] {
            thread::sleep(Duration::from_millis(50));
            writer.write_all(part.as_bytes()).unwrap();
        }
    });
    // The shell passes <(...) as such a path.
    fixture.expect_opens("passphrase_file", Path::new(&format!("/dev/fd/{}", reader.as_raw_fd())));
    slow.join().unwrap();
    fixture.expect_opens("passphrase_file", &fixture.write("phrase", "correct horse", 0o600));
}

#[test]
fn a_named_pipe_that_others_may_write_is_refused() {
    let fixture = Fixture::new();
    let pipe = fixture.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::set_permissions(&pipe, Permissions::from_mode(0o622)).unwrap();
    assert!(SecretFile::open(&pipe).unwrap_err().to_string().contains("others may write"));
}

#[test]
fn what_an_editor_or_a_person_gets_wrong_is_told() {
    for (parameter, contents, reason) in [
        ("passphrase_file", "\u{feff}hunter2", "byte order mark"),
        ("passphrase_file", "\n", "is empty"),
        ("root_secret_file", &format!("\u{feff}{}", digits()), "byte order mark"),
        ("root_secret_file", "hunter2 hunter2 hunter2 hunter2 ", "32 printable characters"),
        ("root_secret_file", "hunter2 hunter2 hunter2 hunter2\n", "32 printable characters"),
        ("root_secret_file", &"5a".repeat(16), "32 printable characters"),
    ] {
        let fixture = Fixture::new();
        let text = fixture.expect_refusal(parameter, &fixture.write("secret", contents, 0o600));
        assert!(text.contains(reason) && !text.contains("hunter2") && !text.contains("5a5a"), "{text}");
    }
    let fixture = Fixture::new();
    let utf16: Vec<u8> = "\u{feff}hunter2".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let text = fixture.expect_refusal("passphrase_file", &fixture.write("secret", utf16, 0o600));
    assert!(text.contains("byte order mark"), "{text}");
}

#[test]
fn a_secret_in_the_place_of_a_path_is_not_shown() {
    let fixture = Fixture::new();
    let reason = fixture.expect_refusal("passphrase_file", Path::new("hunter2"));
    assert!(reason.contains("cannot be read") && !reason.contains("hunter2"), "{reason}");
    let error = SecretFile::open("hunter2").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[test]
fn a_url_tells_the_file_of_its_secret() {
    for (parameters, file) in [
        ("?root_secret_file=/a", Some(Path::new("/a"))),
        ("?passphrase_file=/b%20c", Some(Path::new("/b c"))),
        ("?passphrase_env=A", None),
        ("", None),
    ] {
        assert_eq!(FileUrl::parse(&format!("file:///keys.db{parameters}")).unwrap().secret_file(), file);
    }
}

#[test]
fn the_file_that_was_opened_is_the_file_that_is_read() {
    let fixture = Fixture::new();
    let secret = fixture.write("root", digits(), 0o600);
    let opened = SecretFile::open(&secret).unwrap();
    fixture.write("other", "something else", 0o666);
    fs::rename(fixture.path("other"), &secret).unwrap();
    let root = opened.read_root_secret().unwrap();
    assert_eq!(root.to_hex().unwrap().as_str(), digits().trim_end());
    assert!(File::open(&secret).is_ok() && SecretFile::open(&secret).is_err());
}

/// The variable with the secret on a read-only mount that the test below opens in a child process.
const ON_READ_ONLY_MOUNT: &str = "KEYSTEAD_TEST_ON_READ_ONLY_MOUNT";

/// The case of a container that runs as root: the secret is ours, but its mount is read-only.
#[test]
fn a_secret_of_ours_on_a_read_only_mount_is_accepted() {
    if let Some(secret) = std::env::var_os(ON_READ_ONLY_MOUNT) {
        assert_eq!(is_readable_by_others(Path::new(&secret)), Some(true));
        SecretFile::open(&secret).unwrap().read_root_secret().unwrap();
        return;
    }
    let fixture = Fixture::new();
    fs::create_dir(fixture.path("secrets")).unwrap();
    let secret = fixture.write("secrets/root", digits(), 0o444);
    assert!(SecretFile::open(&secret).is_err());
    // In a separate namespace, nobody else sees the mount, and it ends with the process.
    let mount = r#"mount --bind "$1" "$1" && mount -o remount,ro,bind "$1""#;
    let run = |then: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &format!("{mount} && {then}"), "sh"]);
        command.arg(fixture.path("secrets")).arg(std::env::current_exe().unwrap());
        command.env(ON_READ_ONLY_MOUNT, &secret).output()
    };
    if !run("true").is_ok_and(|output| output.status.success()) {
        println!("skipped: this user cannot mount a directory read-only in a namespace");
        return;
    }
    let output = run(r#"exec "$2" --exact a_secret_of_ours_on_a_read_only_mount_is_accepted"#).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}
