//! Opening and creating: what is refused, with which error, and that nothing is touched on the way.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::error::Error as StdError;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_executor::block_on;
use keystead_core::{Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, SecretKey};
use keystead_file::{FileStore, RootSecret};
use tempfile::TempDir;

fn root() -> RootSecret {
    RootSecret::from_bytes([7; 32])
}

fn alice() -> KeyId {
    KeyId::new("alice").unwrap()
}

/// A directory of its own with a store of one key in it.
struct Fixture {
    directory: TempDir,
    key: SecretKey,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = SecretKey::generate(32).unwrap();
        let fixture = Self { directory, key };
        block_on(async {
            let store = FileStore::create(fixture.path(), root()).await.unwrap();
            store.put_key(&alice(), &fixture.key).await.unwrap();
            store.close().await.unwrap();
        });
        fixture
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("keys.db")
    }

    fn sql(&self, sql: &str) {
        rusqlite::Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }

    /// The store opens and has its key.
    fn is_whole(&self) {
        block_on(async {
            let store = FileStore::open(self.path(), root()).await.unwrap();
            assert_eq!(store.get_key(&alice()).await.unwrap(), self.key);
            store.close().await.unwrap();
        });
    }
}

fn refusal(path: &Path, root: RootSecret) -> (ErrorKind, String) {
    let error = block_on(FileStore::open_or_create(path, root)).expect_err("it must be refused");
    assert_eq!((error.operation(), error.store()), (Operation::Open, "file"));
    (error.kind(), chain(&error))
}

/// All levels of an error, as a person reads them.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(&format!(": {e}"));
        cause = e.source();
    }
    text
}

/// Names and contents of all files, to see that none has changed.
fn snapshot(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.map(|path| (path.clone(), fs::read(&path).unwrap_or_default())).collect();
    files.sort();
    files
}

#[test]
fn a_closed_store_leaves_no_log_behind() {
    let fixture = Fixture::new();
    let names: Vec<_> = snapshot(fixture.directory.path()).into_iter().map(|(path, _)| path).collect();
    let expected = ["keys.db", "keys.db.id", "keys.db.lock"].map(|name| fixture.directory.path().join(name));
    assert_eq!(names, expected);
}

#[test]
fn a_missing_store_is_told_and_not_created() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["keys.db", "missing/keys.db"] {
        let error = block_on(FileStore::open(directory.path().join(name), root())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(chain(&error).contains("there is no store at"), "{}", chain(&error));
    }
    assert!(snapshot(directory.path()).is_empty());
}

#[test]
fn an_existing_store_is_not_created_again() {
    let fixture = Fixture::new();
    let error = block_on(FileStore::create(fixture.path(), RootSecret::generate())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    fixture.is_whole();
}

#[test]
fn a_wrong_root_secret_is_told_as_that() {
    let fixture = Fixture::new();
    let before = snapshot(fixture.directory.path());
    let (kind, text) = refusal(&fixture.path(), RootSecret::generate());
    assert_eq!(kind, ErrorKind::KeyUnavailable);
    assert!(text.contains("root secret is not that of this store"), "{text}");
    let (kind, text) = refusal(&fixture.path(), RootSecret::passphrase("hunter2"));
    assert_eq!(kind, ErrorKind::KeyUnavailable);
    assert!(text.contains("needs a root secret of 32 bytes"), "{text}");
    assert_eq!(snapshot(fixture.directory.path()), before);
    fixture.is_whole();
}

#[test]
fn a_wrong_passphrase_is_told_as_that() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    block_on(async {
        let store = FileStore::create(&path, RootSecret::passphrase("right")).await.unwrap();
        store.close().await.unwrap();
        let error = FileStore::open(&path, RootSecret::passphrase("wrong")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::KeyUnavailable);
        assert!(!format!("{error:?}").contains("wrong"), "{error:?}");
        FileStore::open(&path, RootSecret::passphrase("right")).await.unwrap();
    });
}

#[test]
fn an_empty_passphrase_is_refused_before_anything_is_created() {
    let directory = tempfile::tempdir().unwrap();
    let (kind, text) = refusal(&directory.path().join("keys.db"), RootSecret::passphrase(""));
    assert_eq!(kind, ErrorKind::Config);
    assert!(text.contains("passphrase is empty"), "{text}");
    assert!(snapshot(directory.path()).is_empty());
}

#[test]
fn files_of_others_are_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let text_file = directory.path().join("notes.txt");
    fs::write(&text_file, "not a store, but long enough to be looked at\n".repeat(100)).unwrap();
    let short = directory.path().join("short");
    fs::write(&short, "x").unwrap();
    let database = directory.path().join("other.db");
    rusqlite::Connection::open(&database)
        .unwrap()
        .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        .unwrap();
    for path in [&text_file, &short, &database] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let before = snapshot(directory.path());
    for path in [&text_file, &short, &database] {
        let (kind, text) = refusal(path, root());
        assert_eq!(kind, ErrorKind::Config, "{text}");
        assert!(text.contains("not a keystead store") && text.contains(path.to_str().unwrap()), "{text}");
        let error = block_on(FileStore::create(path, root())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
    assert_eq!(snapshot(directory.path()), before);
}

#[test]
fn a_newer_format_is_refused_with_advice_and_left_alone() {
    let fixture = Fixture::new();
    fixture.sql("PRAGMA user_version = 3");
    let before = snapshot(fixture.directory.path());
    let (kind, text) = refusal(&fixture.path(), root());
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(text.contains("format 3") && text.contains("update"), "{text}");
    assert_eq!(snapshot(fixture.directory.path()), before);
    fixture.sql("PRAGMA user_version = 2");
    fixture.is_whole();
}

#[test]
fn a_damaged_keyring_is_told_from_a_wrong_secret() {
    type Damage = fn(&[u8]) -> Vec<u8>;
    let damages: [Damage; 5] = [
        |_| vec![0; 1286],
        |_| Vec::new(),
        |sealed| sealed[..1285].to_vec(),
        |sealed| [sealed, &[0]].concat(),
        |sealed| [&[0xff], &sealed[1..]].concat(),
    ];
    for damage in damages {
        let fixture = Fixture::new();
        let tool = rusqlite::Connection::open(fixture.path()).unwrap();
        let sealed: Vec<u8> =
            tool.query_row("SELECT bytes FROM keyring WHERE number = 1", [], |row| row.get(0)).unwrap();
        tool.execute("UPDATE keyring SET bytes = ?1 WHERE number = 1", [damage(&sealed)]).unwrap();
        drop(tool);
        is_a_damaged_keyring(&fixture);
    }
    for damage in [
        "UPDATE keyring SET bytes = 7 WHERE number = 1",
        "UPDATE keyring SET number = 3 WHERE number = 1",
        "DELETE FROM keyring",
    ] {
        let fixture = Fixture::new();
        fixture.sql(damage);
        is_a_damaged_keyring(&fixture);
    }
}

fn is_a_damaged_keyring(fixture: &Fixture) {
    let (kind, text) = refusal(&fixture.path(), root());
    assert_eq!(kind, ErrorKind::Corrupt, "{text}");
    assert!(text.contains("keyring is damaged: restore"), "{text}");
}

#[test]
fn strange_tables_are_refused() {
    let fixture = Fixture::new();
    fixture.sql("CREATE INDEX leak ON cells (bytes)");
    let (kind, text) = refusal(&fixture.path(), root());
    assert_eq!(kind, ErrorKind::Corrupt);
    assert!(text.contains("tables are not those that keystead creates"), "{text}");
    fixture.sql("DROP INDEX leak");
    fixture.is_whole();
}

#[test]
fn a_symbolic_link_is_refused() {
    let fixture = Fixture::new();
    let link = fixture.directory.path().join("link.db");
    symlink(fixture.path(), &link).unwrap();
    let (kind, text) = refusal(&link, root());
    assert_eq!(kind, ErrorKind::Config);
    assert!(text.contains("symbolic link"), "{text}");
}

#[test]
fn a_directory_that_is_reached_through_a_link_is_fine() {
    let fixture = Fixture::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link");
    symlink(fixture.directory.path(), &link).unwrap();
    let store = block_on(FileStore::open(link.join("keys.db"), root())).unwrap();
    assert_eq!(block_on(store.get_key(&alice())).unwrap(), fixture.key);
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let inner = directory.path().join("inner");
    fs::create_dir(&inner).unwrap();
    for path in [&fifo, &inner] {
        let (kind, text) = refusal(path, root());
        assert_eq!(kind, ErrorKind::Config);
        assert!(text.contains("not a regular file"), "{text}");
    }
    let (kind, text) = refusal(&directory.path().join("..").join(".."), root());
    assert_eq!(kind, ErrorKind::Config);
    assert!(text.contains("does not name a file"), "{text}");
}

#[test]
fn a_file_or_directory_that_is_open_to_others_is_refused_with_the_command_that_mends_it() {
    let fixture = Fixture::new();
    for mode in [0o640, 0o604, 0o620, 0o666] {
        fs::set_permissions(fixture.path(), fs::Permissions::from_mode(mode)).unwrap();
        let (kind, text) = refusal(&fixture.path(), root());
        assert_eq!(kind, ErrorKind::Config);
        assert!(text.contains(&format!("chmod 600 '{}'", fixture.path().display())), "{text}");
    }
    fs::set_permissions(fixture.path(), fs::Permissions::from_mode(0o600)).unwrap();
    for (mode, mend) in [(0o777, "chmod o-w"), (0o1777, "directory of its own")] {
        fs::set_permissions(fixture.directory.path(), fs::Permissions::from_mode(mode)).unwrap();
        let (kind, text) = refusal(&fixture.path(), root());
        assert_eq!(kind, ErrorKind::Config);
        assert!(text.contains(mend), "{text}");
    }
    fs::set_permissions(fixture.directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    fixture.is_whole();
}

#[test]
fn a_read_only_directory_or_file_is_refused_and_works_again_when_it_is_mended() {
    let fixture = Fixture::new();
    let before = snapshot(fixture.directory.path());
    fs::set_permissions(fixture.directory.path(), fs::Permissions::from_mode(0o500)).unwrap();
    for path in [fixture.path(), fixture.directory.path().join("new.db")] {
        let (kind, text) = refusal(&path, root());
        assert_eq!(kind, ErrorKind::PermissionDenied);
        assert!(text.contains("chmod u+w"), "{text}");
    }
    fs::set_permissions(fixture.directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(fixture.path(), fs::Permissions::from_mode(0o400)).unwrap();
    let (kind, text) = refusal(&fixture.path(), root());
    assert_eq!(kind, ErrorKind::PermissionDenied);
    assert!(text.contains("chmod u+w"), "{text}");
    fs::set_permissions(fixture.path(), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(snapshot(fixture.directory.path()), before);
    fixture.is_whole();
}

#[test]
fn an_empty_file_becomes_a_store_when_it_may_be_created() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(block_on(FileStore::open(&path, root())).unwrap_err().kind(), ErrorKind::Config);
    let store = block_on(FileStore::open_or_create(&path, root())).unwrap();
    block_on(store.check()).unwrap();
}

#[test]
fn a_creation_that_was_cut_off_is_begun_again() {
    // A journal that is not hot, as a killed creator leaves it beside its empty file.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    for file in [path.clone(), directory.path().join("keys.db-journal")] {
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let store = block_on(FileStore::open_or_create(&path, root())).unwrap();
    block_on(store.put_key(&alice(), &SecretKey::generate(32).unwrap())).unwrap();
}

#[test]
fn a_store_whose_file_is_removed_or_replaced_says_so_and_works_again_when_it_is_back() {
    let fixture = Fixture::new();
    let store = block_on(FileStore::open(fixture.path(), root())).unwrap();
    assert_eq!(block_on(store.get_key(&alice())).unwrap(), fixture.key);
    let moved = fixture.directory.path().join("moved.db");
    fs::rename(fixture.path(), &moved).unwrap();
    let says_so = || {
        // A reader trusts for 10 ms that the file is in place.
        std::thread::sleep(std::time::Duration::from_millis(15));
        for error in [
            block_on(store.get_key(&alice())).unwrap_err(),
            block_on(store.put_key(&alice(), &SecretKey::generate(32).unwrap())).unwrap_err(),
            block_on(store.erase_key(&alice())).unwrap_err(),
            block_on(store.scrub()).unwrap_err(),
            block_on(store.check()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(chain(&error).contains("removed or replaced"), "{}", chain(&error));
        }
    };
    says_so();
    fs::write(fixture.path(), "another file").unwrap();
    says_so();
    fs::rename(&moved, fixture.path()).unwrap();
    assert_eq!(block_on(store.get_key(&alice())).unwrap(), fixture.key);
    block_on(store.close()).unwrap();
    fixture.is_whole();
}

#[test]
fn a_path_that_cannot_be_one_is_refused() {
    let fixture = Fixture::new();
    let before = snapshot(fixture.directory.path());
    for (path, reason) in [
        (
            fixture.directory.path().join("x".repeat(200)).join("y".repeat(200)).join("z".repeat(200)),
            "longer than 500 bytes",
        ),
        (fixture.directory.path().join("x".repeat(300)), "cannot be the path"),
        (fixture.path().join("below/a/file.db"), "cannot be the path"),
    ] {
        let error = block_on(FileStore::open_or_create(&path, root())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{}", chain(&error));
        assert!(chain(&error).contains(reason), "{}", chain(&error));
        assert!(!error.is_retryable());
    }
    assert_eq!(snapshot(fixture.directory.path()), before);
}

#[test]
fn a_closed_store_says_so_and_closing_again_does_nothing() {
    let fixture = Fixture::new();
    let store = block_on(FileStore::open(fixture.path(), root())).unwrap();
    let handle = store.clone();
    block_on(store.close()).unwrap();
    block_on(handle.close()).unwrap();
    for error in [
        block_on(handle.get_key(&alice())).unwrap_err(),
        block_on(handle.put_key(&alice(), &SecretKey::generate(32).unwrap())).unwrap_err(),
        block_on(handle.delete_key(&alice())).unwrap_err(),
        block_on(handle.check()).unwrap_err(),
    ] {
        assert!(chain(&error).contains("has been closed: open it again"), "{}", chain(&error));
        assert!(!error.is_retryable());
    }
    fixture.is_whole();
}

#[test]
fn two_stores_over_one_path_in_one_process_see_each_other() {
    let fixture = Fixture::new();
    let one = block_on(FileStore::open(fixture.path(), root())).unwrap();
    let two = block_on(FileStore::open_or_create(fixture.path(), root())).unwrap();
    let key = SecretKey::generate(64).unwrap();
    block_on(one.put_key(&alice(), &key)).unwrap();
    assert_eq!(block_on(two.get_key(&alice())).unwrap(), key);
    block_on(two.close()).unwrap();
    block_on(one.delete_key(&alice())).unwrap();
    assert_eq!(block_on(one.find_key(&alice())).unwrap(), None);
}
