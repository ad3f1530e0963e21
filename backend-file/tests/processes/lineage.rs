//! A file and a log that belong together are accepted, and others are refused before anything is
//! changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use futures_executor::block_on;
use futures_util::future::join_all;
use keystead_core::{ErrorKind, KeyId, KeyStoreExt, SecretKey};
use keystead_file::{FileStore, RootSecret};
use rusqlite::Connection;

use crate::child::{Random, Worker, id, meet, open, root};
use crate::fixture::{Fixture, beside, close, keys, keys_at};

/// The number of processes of each kind that are killed; set `KEYSTEAD_KILLS` for more.
const KILLS: usize = 12;

fn kills() -> usize {
    std::env::var("KEYSTEAD_KILLS").map_or(KILLS, |count| count.parse().unwrap())
}

/// The mistake of an operator who does not know better.
pub(crate) fn backup_copied_over_a_dead_store() {
    let fixture = Fixture::new();
    let own = fixture.directory.path().join("own-file.db");
    fs::copy(fixture.path(), &own).unwrap();
    fs::copy(fixture.backup(), fixture.path()).unwrap();
    let text = fixture.expect_closed_to_all(ErrorKind::Corrupt);
    assert!(text.contains("keystead restore") && text.contains("keys.db-wal"), "{text}");

    // One way out: the store's own file again.
    let first = fixture.copy();
    fs::copy(&own, first.path()).unwrap();
    assert_eq!(keys_at(&first.path()), fixture.at_kill);

    // The other one: to restore the copy from elsewhere.
    let elsewhere = fixture.directory.path().join("elsewhere.db");
    fs::rename(fixture.path(), &elsewhere).unwrap();
    let store = block_on(FileStore::restore(&elsewhere, fixture.path(), root())).unwrap();
    assert_eq!(keys(&store), fixture.at_backup);
    let kept = store.replaced_store().unwrap().to_owned();
    fs::copy(&own, &kept).unwrap();
    assert_eq!(keys_at(&kept), fixture.at_kill);
}

/// A restore in place, too: the copy's own store is kept with the log that is not its own.
pub(crate) fn restored_over_a_foreign_log() {
    let fixture = Fixture::new();
    fs::copy(fixture.backup(), fixture.path()).unwrap();
    let store = block_on(FileStore::restore(fixture.backup(), fixture.path(), root())).unwrap();
    assert_eq!(keys(&store), fixture.at_backup);
    let kept = store.replaced_store().unwrap();
    let error = block_on(FileStore::open(kept, root())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(fs::metadata(beside(kept, "-wal")).unwrap().len() > 0);
}

/// A copy of the file alone, and the log that came later: refused if the log does not hold all that
/// came between.
pub(crate) fn raw_copies() {
    for logs_between in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.db");
        let raw = directory.path().join("raw");
        let mut worker = Worker::start("write_logs", &[path.to_str().unwrap()]);
        worker.expect("quiet");
        fs::copy(&path, &raw).unwrap();
        for _ in 0..logs_between {
            worker.say("on");
            worker.expect("quiet");
        }
        worker.say("last");
        worker.expect("written");
        drop(worker);
        fs::copy(&raw, &path).unwrap();
        match block_on(FileStore::open(&path, root())) {
            // The log follows the copy at once.
            Ok(store) => {
                assert_eq!(logs_between, 0);
                assert_eq!(keys(&store).len(), 20);
            }
            Err(error) => assert_eq!((error.kind(), logs_between > 0), (ErrorKind::Corrupt, true)),
        }
    }
}

/// `PATH`: writes ten keys, empties the log, says so and does it again until it is told that the
/// next log is the last.
pub(crate) fn write_logs(arguments: &[String]) {
    let [path] = arguments else { panic!("PATH") };
    let store = open(path);
    let mut users = 0..;
    loop {
        for user in users.by_ref().take(10) {
            block_on(store.put_key(&id(format!("user-{user}")), &SecretKey::generate(32).unwrap())).unwrap();
        }
        assert!(block_on(store.scrub()).unwrap());
        println!("quiet");
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).unwrap();
        if answer.trim() == "last" {
            break;
        }
    }
    for user in users.by_ref().take(10) {
        block_on(store.put_key(&id(format!("user-{user}")), &SecretKey::generate(32).unwrap())).unwrap();
    }
    meet("written");
}

/// A log that was marked several times, and that readers let into the file in parts.
pub(crate) fn logs_moved_in_parts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    for round in 0..3 {
        let mut worker = Worker::start("write_before_readers", &[path.to_str().unwrap(), &round.to_string()]);
        worker.expect("written");
        drop(worker);
        assert!(fs::metadata(beside(&path, "-wal")).unwrap().len() > 0, "the log is empty");
        let store = block_on(FileStore::open(&path, root())).expect("its own log is accepted");
        assert_eq!(keys(&store).len(), READERS * (round + 1));
        close(&store);
    }
}

const READERS: usize = 3;

/// `PATH ROUND`: writes beside a reader that is always there and never the same, so that no
/// checkpoint ends.
pub(crate) fn write_before_readers(arguments: &[String]) {
    let [path, round] = arguments else { panic!("PATH ROUND") };
    let store = open(path);
    let mut reader = None;
    for number in 0..READERS {
        block_on(store.put_key(&id(format!("user-{round}-{number}")), &SecretKey::generate(32).unwrap())).unwrap();
        let next = Connection::open(path).unwrap();
        next.execute_batch("BEGIN").unwrap();
        let _: i64 = next.query_row("SELECT count(*) FROM cells", [], |row| row.get(0)).unwrap();
        drop(reader.replace(next));
        assert!(!block_on(store.scrub()).unwrap(), "the reader is in nobody's way");
    }
    meet("written");
}

/// Logs so long that they are begun again, by two processes that are killed.
pub(crate) fn long_logs_of_killed_processes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    close(&open(&path));
    let mut random = Random::new(5);
    let mut expected = 0;
    for round in 0..kills().div_ceil(4) {
        let start = |number: usize| Worker::start("grow", &[path.to_str().unwrap(), &format!("{round}-{number}")]);
        let workers = [start(0), start(1)];
        let moments = [0, 1].map(|_| Duration::from_millis(100 + random.below(500) as u64));
        let written = std::thread::scope(|scope| {
            let killed = workers.into_iter().zip(moments);
            let killed: Vec<_> =
                killed.map(|(worker, moment)| scope.spawn(move || worker.lines_until_killed(moment))).collect();
            killed.into_iter().map(|killed| killed.join().unwrap().len()).sum::<usize>()
        });
        expected += written * TOGETHER;
        let store = block_on(FileStore::open(&path, root())).expect("its own log is accepted");
        let report = block_on(store.verify(|_| {})).unwrap();
        assert!(report.is_intact() && report.intact >= expected as u64, "{report:?}, {expected} acknowledged");
        expected = usize::try_from(report.intact).unwrap();
        close(&store);
    }
    assert!(expected > 0);
}

const TOGETHER: usize = 60;

/// `PATH NAME`: creates long keys, many at a time, until it is killed.
pub(crate) fn grow(arguments: &[String]) {
    let [path, name] = arguments else { panic!("PATH NAME") };
    let store = open(path);
    let key = SecretKey::generate(3000).unwrap();
    for batch in 0.. {
        let ids: Vec<KeyId> = (0..TOGETHER).map(|number| id(format!("{name}-{batch}-{number}"))).collect();
        let outcomes = block_on(join_all(ids.iter().map(|id| store.create_key(id, &key))));
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
        println!("done");
    }
}

/// A store of format 1 whose first opening is killed.
pub(crate) fn upgrades_cut_off() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1/rotating.db");
    let expected = fs::read_to_string(golden.with_extension("keys")).unwrap().lines().count();
    let mut random = Random::new(3);
    for _ in 0..kills() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.db");
        fs::copy(&golden, &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let worker = Worker::start("upgrade_and_write", &[path.to_str().unwrap()]);
        let moment = Duration::from_micros(random.below(250_000) as u64);
        let written = worker.lines_until_killed(moment).len();
        let store = block_on(FileStore::open(&path, RootSecret::from_bytes([8; 32]))).unwrap();
        let found = keys(&store).len();
        assert!((expected + written..=expected + written + 1).contains(&found), "{found} of {expected} and {written}");
        close(&store);
    }
}

/// `PATH`: opens a store of format 1 and writes until it is killed.
pub(crate) fn upgrade_and_write(arguments: &[String]) {
    let [path] = arguments else { panic!("PATH") };
    let store = block_on(FileStore::open(path, RootSecret::from_bytes([8; 32]))).unwrap();
    for number in 0.. {
        block_on(store.put_key(&id(format!("new-{number}")), &SecretKey::generate(32).unwrap())).unwrap();
        println!("done");
    }
}
