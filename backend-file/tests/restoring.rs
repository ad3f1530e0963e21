//! Restoring a backup: what it replaces, what it keeps, and what it refuses.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code")]

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_executor::block_on;
use futures_util::StreamExt;
use keystead_core::{Effect, Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, SecretKey};
use keystead_file::{FileStore, RootSecret};
use tempfile::TempDir;

type Keys = BTreeMap<String, SecretKey>;

/// A store with a backup in another directory, and the files as a process leaves them that is
/// killed later.
struct Fixture {
    directory: TempDir,
    at_backup: Keys,
    /// With those that are in the log only.
    at_kill: Keys,
}

fn root() -> RootSecret {
    RootSecret::from_bytes([7; 32])
}

impl Fixture {
    /// A store whose process died with a full log.
    fn killed() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let live = directory.path().join("live/keys.db");
        let store = block_on(FileStore::create(&live, root())).unwrap();
        let at_backup = put_all(&store, 0..40);
        block_on(store.backup(directory.path().join("backups/monday.db"))).unwrap();
        block_on(store.delete_key(&id(0))).unwrap();
        put_all(&store, 100..140);
        let at_kill = keys(&store);
        // By another process: this one would end SQLite's locks if it closed the file.
        copy_directory(live.parent().unwrap(), &directory.path().join("own"));
        block_on(store.close()).unwrap();
        fs::remove_dir_all(live.parent().unwrap()).unwrap();
        let fixture = Self { directory, at_backup, at_kill };
        assert!(len(&beside(&fixture.path(), "-wal")) > 0, "the log is empty");
        fixture
    }

    /// The same store, closed.
    fn closed() -> Self {
        let fixture = Self::killed();
        block_on(async { FileStore::open(fixture.path(), root()).await.unwrap().close().await.unwrap() });
        assert_eq!(fixture.names(), ["keys.db", "keys.db.id", "keys.db.lock"]);
        fixture
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("own/keys.db")
    }

    fn backup(&self) -> PathBuf {
        self.directory.path().join("backups/monday.db")
    }

    fn restore(&self) -> FileStore {
        block_on(FileStore::restore(self.backup(), self.path(), root())).unwrap()
    }

    fn names(&self) -> Vec<String> {
        snapshot(self.path().parent().unwrap()).into_keys().collect()
    }

    /// A restore that is refused with this kind and changes no byte.
    fn expect_refused(&self, backup: &Path, root: RootSecret, kind: ErrorKind) -> String {
        let before = snapshot(self.directory.path());
        let error = block_on(FileStore::restore(backup, self.path(), root)).unwrap_err();
        let text = chain(&error);
        assert_eq!(
            (error.kind(), error.operation(), error.effect()),
            (kind, Operation::Restore, Effect::NotApplied),
            "{text}"
        );
        assert_eq!(snapshot(self.directory.path()), before, "{text}");
        text
    }

    fn expect_unchanged(&self) {
        let store = block_on(FileStore::open(self.path(), root())).unwrap();
        assert_eq!(keys(&store), self.at_kill);
        block_on(store.close()).unwrap();
    }
}

fn id(user: usize) -> KeyId {
    KeyId::new(format!("user-{user}")).unwrap()
}

fn put_all(store: &FileStore, users: std::ops::Range<usize>) -> Keys {
    for user in users {
        block_on(store.put_key(&id(user), &SecretKey::generate(32 + user).unwrap())).unwrap();
    }
    keys(store)
}

/// All keys of a store, each found by its id and by listing.
fn keys(store: &FileStore) -> Keys {
    assert!(block_on(store.verify(|_| {})).unwrap().is_intact());
    let ids: Vec<KeyId> = block_on(store.list_keys().map(Result::unwrap).collect());
    ids.iter().map(|id| (id.as_str().to_owned(), block_on(store.get_key(id)).unwrap())).collect()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

fn len(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn copy_directory(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-Rp").args([from, to]).status().unwrap().success());
}

/// The contents of all files below a directory, but of locks and indexes, as another process reads
/// them.
fn snapshot(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let copies = tempfile::tempdir().unwrap();
    let top = copies.path().join("copy");
    copy_directory(directory, &top);
    let mut files = BTreeMap::new();
    let mut directories = vec![top.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let name = entry.path().strip_prefix(&top).unwrap().to_str().unwrap().to_owned();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else {
                // How many checkpoints there were is no content.
                let is_content = !name.ends_with(".lock") && !name.ends_with("-shm");
                files.insert(name, if is_content { fs::read(entry.path()).unwrap() } else { Vec::new() });
            }
        }
    }
    files
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

/// Restores, and finds the backup's keys at the path and the others at the name that it gives.
fn restores_and_keeps(fixture: &Fixture) {
    let backup = fs::read(fixture.backup()).unwrap();
    let store = fixture.restore();
    let kept = store.replaced_store().unwrap().to_owned();
    assert_eq!(keys(&store), fixture.at_backup);
    put_all(&store, 200..203);
    block_on(store.close()).unwrap();
    let reopened = block_on(FileStore::open(fixture.path(), root())).unwrap();
    assert_eq!(keys(&reopened).len(), fixture.at_backup.len() + 3);
    block_on(reopened.close()).unwrap();

    assert_eq!(kept.parent(), fs::canonicalize(fixture.path()).unwrap().parent());
    assert!(!beside(&kept, ".id").exists());
    let kept_store = block_on(FileStore::open(&kept, root())).unwrap();
    assert_eq!(keys(&kept_store), fixture.at_kill);
    assert!(kept_store.replaced_store().is_none());
    block_on(kept_store.close()).unwrap();
    assert_eq!(fs::read(fixture.backup()).unwrap(), backup, "the backup was changed");
    assert_eq!(fs::read_dir(fixture.backup().parent().unwrap()).unwrap().count(), 1, "something is beside the backup");
    let left_behind = fixture.names().into_iter().filter(|name| name.contains("restoring")).count();
    assert_eq!(left_behind, 0, "{:?}", fixture.names());
}

#[test]
fn a_store_that_was_closed_is_replaced_and_kept() {
    restores_and_keeps(&Fixture::closed());
}

#[test]
fn a_store_whose_process_was_killed_is_replaced_and_kept_with_its_log() {
    restores_and_keeps(&Fixture::killed());
}

#[test]
fn a_handle_of_a_closed_store_is_not_in_the_way() {
    let fixture = Fixture::closed();
    let store = block_on(FileStore::open(fixture.path(), root())).unwrap();
    keys(&store);
    block_on(store.close()).unwrap();
    restores_and_keeps(&fixture);
    drop(store);
}

#[test]
fn each_restore_keeps_the_store_under_another_name() {
    let fixture = Fixture::killed();
    let mut names = Vec::new();
    for _ in 0..3 {
        let store = fixture.restore();
        names.push(store.replaced_store().unwrap().to_owned());
        block_on(store.close()).unwrap();
    }
    let first = block_on(FileStore::open(&names[0], root())).unwrap();
    assert_eq!(keys(&first), fixture.at_kill);
    for name in &names[1..] {
        assert_eq!(keys(&block_on(FileStore::open(name, root())).unwrap()), fixture.at_backup);
    }
    names.dedup();
    assert_eq!(names.len(), 3);
}

#[test]
fn a_store_whose_file_is_lost_is_restored() {
    let fixture = Fixture::closed();
    fs::remove_file(fixture.path()).unwrap();
    let store = fixture.restore();
    assert_eq!((store.replaced_store(), keys(&store)), (None, fixture.at_backup.clone()));
}

#[test]
fn a_store_of_which_only_the_log_is_left_is_restored_and_the_log_kept() {
    let fixture = Fixture::killed();
    let log = fs::read(beside(&fixture.path(), "-wal")).unwrap();
    fs::remove_file(fixture.path()).unwrap();
    let store = fixture.restore();
    let kept = store.replaced_store().unwrap();
    assert_eq!(fs::read(beside(kept, "-wal")).unwrap(), log);
    assert_eq!(keys(&store), fixture.at_backup);
}

#[test]
fn an_empty_and_a_missing_directory_get_a_store() {
    let fixture = Fixture::closed();
    fs::create_dir(fixture.directory.path().join("empty")).unwrap();
    for directory in ["empty", "missing", "a/b"] {
        let path = fixture.directory.path().join(directory).join("keys.db");
        let store = block_on(FileStore::restore(fixture.backup(), &path, root())).unwrap();
        assert_eq!((store.replaced_store(), keys(&store)), (None, fixture.at_backup.clone()));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert!(["", ".id", ".lock"].iter().all(|suffix| mode(&beside(&path, suffix)) == 0o600));
    }
}

#[test]
fn a_wrong_root_secret_replaces_nothing() {
    let fixture = Fixture::killed();
    fixture.expect_refused(&fixture.backup(), RootSecret::generate(), ErrorKind::KeyUnavailable);
    fixture.expect_refused(&fixture.backup(), RootSecret::passphrase("other"), ErrorKind::KeyUnavailable);
    fixture.expect_unchanged();
}

#[test]
fn a_damaged_backup_replaces_nothing() {
    let fixture = Fixture::killed();
    let whole = fs::read(fixture.backup()).unwrap();
    // One bit in each page, at the places of its header, its pointers and its records.
    for (page, at) in (0..whole.len() / 4096).flat_map(|page| [4, 9, 2100, 4000].map(|at| (page, at))) {
        let mut damaged = whole.clone();
        damaged[page * 4096 + at] ^= 0x10;
        fs::write(fixture.backup(), &damaged).unwrap();
        match block_on(FileStore::restore(fixture.backup(), fixture.directory.path().join("probe/keys.db"), root())) {
            // A bit that nothing depends on, such as one of unused space.
            Ok(store) => {
                assert_eq!(keys(&store), fixture.at_backup, "page {page}, byte {at}");
                block_on(store.close()).unwrap();
                fs::remove_dir_all(fixture.directory.path().join("probe")).unwrap();
            }
            Err(error) => {
                let kinds = [ErrorKind::Corrupt, ErrorKind::Config, ErrorKind::Unsupported, ErrorKind::KeyUnavailable];
                assert!(kinds.contains(&error.kind()), "page {page}, byte {at}: {}", chain(&error));
                assert!(page == 0 || error.kind() == ErrorKind::Corrupt, "page {page}, byte {at}: {}", chain(&error));
                fixture.expect_refused(&fixture.backup(), root(), error.kind());
            }
        }
    }
    fs::write(fixture.backup(), &whole[..whole.len() - 4096]).unwrap();
    fixture.expect_refused(&fixture.backup(), root(), ErrorKind::Corrupt);
    fixture.expect_unchanged();
}

#[test]
fn the_backup_of_another_store_replaces_nothing() {
    let fixture = Fixture::killed();
    let other = Fixture::closed();
    let text = fixture.expect_refused(&other.backup(), root(), ErrorKind::Config);
    assert!(text.contains("keys.db.id"), "{text}");
    fixture.expect_unchanged();
    // As the error says.
    fs::remove_file(beside(&fixture.path(), ".id")).unwrap();
    let store = block_on(FileStore::restore(other.backup(), fixture.path(), root())).unwrap();
    assert_eq!(keys(&store), other.at_backup);
    assert_eq!(keys(&block_on(FileStore::open(store.replaced_store().unwrap(), root())).unwrap()), fixture.at_kill);
}

#[test]
fn what_is_no_backup_replaces_nothing() {
    let fixture = Fixture::killed();
    let directory = fixture.directory.path();
    fixture.expect_refused(&directory.join("backups/tuesday.db"), root(), ErrorKind::Config);
    fixture.expect_refused(&directory.join("backups"), root(), ErrorKind::Config);
    fs::write(directory.join("empty"), "").unwrap();
    fixture.expect_refused(&directory.join("empty"), root(), ErrorKind::Config);
    fs::write(directory.join("text"), "no backup\n".repeat(1000)).unwrap();
    fixture.expect_refused(&directory.join("text"), root(), ErrorKind::Config);

    // A raw copy of a store in use.
    fs::copy(fixture.path(), directory.join("raw.db")).unwrap();
    fs::copy(beside(&fixture.path(), "-wal"), directory.join("raw.db-wal")).unwrap();
    let text = fixture.expect_refused(&directory.join("raw.db"), root(), ErrorKind::Config);
    assert!(text.contains("keystead backup"), "{text}");
    fixture.expect_unchanged();
}

#[test]
fn a_missing_backup_creates_no_directory() {
    let fixture = Fixture::closed();
    let path = fixture.directory.path().join("new/keys.db");
    let missing = fixture.directory.path().join("tuesday.db");
    block_on(FileStore::restore(missing, &path, root())).unwrap_err();
    assert!(!path.parent().unwrap().exists());
}

#[test]
fn a_store_is_not_restored_from_itself() {
    let fixture = Fixture::closed();
    fixture.expect_refused(&fixture.path(), root(), ErrorKind::Config);
    std::os::unix::fs::symlink(fixture.path(), fixture.directory.path().join("link")).unwrap();
    fixture.expect_refused(&fixture.directory.path().join("link"), root(), ErrorKind::Config);
    fixture.expect_refused(&fixture.path().with_file_name("../own/keys.db"), root(), ErrorKind::Config);
    fixture.expect_unchanged();
}

#[test]
fn a_backup_beside_the_store_survives_under_any_name() {
    for name in ["keys.db.new", "keys.db.replaced-1", "keys.db.restoring-copy", "keys.db.bak"] {
        let fixture = Fixture::closed();
        let backup = fixture.path().with_file_name(name);
        fs::rename(fixture.backup(), &backup).unwrap();
        match block_on(FileStore::restore(&backup, fixture.path(), root())) {
            Ok(store) => assert_eq!(keys(&store), fixture.at_backup),
            Err(error) => assert_eq!((name, error.kind()), ("keys.db.restoring-copy", ErrorKind::Config)),
        }
        assert!(len(&backup) > 0, "{name} is gone");
    }
}

#[test]
fn an_open_store_is_not_replaced() {
    let fixture = Fixture::closed();
    let store = block_on(FileStore::open(fixture.path(), root())).unwrap();
    fixture.expect_refused(&fixture.backup(), root(), ErrorKind::Conflict);
    assert_eq!(put_all(&store, 300..301).len(), fixture.at_kill.len() + 1);
    block_on(store.close()).unwrap();
}

#[test]
fn what_stands_at_the_path_and_is_no_store_of_one_name_is_left_alone() {
    let fixture = Fixture::closed();
    let link = fixture.directory.path().join("link");
    fs::hard_link(fixture.path(), &link).unwrap();
    fixture.expect_refused(&fixture.backup(), root(), ErrorKind::Config);
    fs::remove_file(&link).unwrap();
    fs::set_permissions(fixture.path(), fs::Permissions::from_mode(0o644)).unwrap();
    fixture.expect_refused(&fixture.backup(), root(), ErrorKind::Config);
    fs::set_permissions(fixture.path(), fs::Permissions::from_mode(0o600)).unwrap();
    fixture.expect_unchanged();

    let other = fixture.directory.path().join("other");
    fs::create_dir_all(other.join("keys.db")).unwrap();
    let error = block_on(FileStore::restore(fixture.backup(), other.join("keys.db"), root())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(fs::read_dir(other).unwrap().count(), 1);
}

#[test]
fn a_backup_of_format_1_is_restored() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1");
    for (name, root) in [("bytes", RootSecret::from_bytes([7; 32])), ("rotating", RootSecret::from_bytes([8; 32]))] {
        let before = fs::read(golden.join(name).with_extension("db")).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.db");
        let backup = golden.join(name).with_extension("db");
        let store = block_on(FileStore::restore(&backup, &path, root.clone())).unwrap();
        let expected = fs::read_to_string(golden.join(name).with_extension("keys")).unwrap();
        assert_eq!(keys(&store).len(), expected.lines().count());
        // Over a store of format 1, too.
        block_on(store.close()).unwrap();
        fs::remove_file(&path).unwrap();
        fs::copy(&backup, &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let store = block_on(FileStore::restore(&backup, &path, root.clone())).unwrap();
        assert_eq!(keys(&store).len(), expected.lines().count());
        let kept = block_on(FileStore::open(store.replaced_store().unwrap(), root)).unwrap();
        assert_eq!(keys(&kept).len(), expected.lines().count());
        assert_eq!(fs::read(backup).unwrap(), before);
    }
}

#[test]
fn a_read_only_backup_in_a_read_only_directory_is_restored() {
    let fixture = Fixture::killed();
    let directory = fixture.backup().parent().unwrap().to_owned();
    fs::set_permissions(fixture.backup(), fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(directory.join("probe"), "").is_ok() {
        fs::remove_file(directory.join("probe")).unwrap();
        println!("not shown: this user writes to read-only directories");
    }
    let store = fixture.restore();
    assert_eq!(keys(&store), fixture.at_backup);
    let mode = fs::metadata(fixture.path()).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_damaged_mark_is_written_again() {
    for damaged in ["", "keystead store 0123", "\u{fffd}", &"x".repeat(500)] {
        let fixture = Fixture::closed();
        let mark = beside(&fixture.path(), ".id");
        let whole = fs::read(&mark).unwrap();
        for bytes in [damaged.as_bytes(), &[0xff; 40]] {
            fs::write(&mark, bytes).unwrap();
            fixture.expect_unchanged();
            assert_eq!(fs::read(&mark).unwrap(), whole);
        }
    }
}
