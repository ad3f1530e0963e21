//! Restores that are interrupted: the store is the one or the other, never a mixture, and the next
//! restore ends it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_executor::block_on;
use keystead_core::{Effect, ErrorKind};
use keystead_file::FileStore;

use crate::child::{Random, Worker, chain, id, open, root};
use crate::fixture::{Fixture, Keys, beside, close, keys, keys_at, snapshot};

/// The number of restores that are killed; set `KEYSTEAD_KILLS` for more.
const KILLS: usize = 16;

/// The steps of a restore before it is cut off, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    BeginCopy,
    EndCopy,
    BeginNote,
    EndNote,
    RenameLog,
    RenameFile,
    PutInPlace,
}

const STEPS: [Step; 7] = [
    Step::BeginCopy,
    Step::EndCopy,
    Step::BeginNote,
    Step::EndNote,
    Step::RenameLog,
    Step::RenameFile,
    Step::PutInPlace,
];

/// The files that are there when the restore begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Present {
    FileAndLog,
    File,
    Log,
    Nothing,
}

/// `BACKUP PATH`
pub(crate) fn restore_once(arguments: &[String]) {
    let [backup, path] = arguments else { panic!("BACKUP PATH") };
    close(&block_on(FileStore::restore(backup, path, root())).unwrap());
}

/// The last step that was done, built by hand as restore.rs lists them.
fn interrupt(fixture: &Fixture, present: Present, last: Step) {
    let path = fixture.path();
    let copy = beside(&path, ".restoring-copy");
    let kept = beside(&path, ".replaced-1");
    let note =
        if matches!(present, Present::FileAndLog | Present::File) { "file .replaced-1" } else { "no-file .replaced-1" };
    for step in STEPS.into_iter().filter(|step| *step <= last) {
        match step {
            Step::BeginCopy => {
                let whole = fs::read(fixture.backup()).unwrap();
                write(&copy, &whole[..whole.len() / 2]);
                write(&beside(&copy, "-wal"), &whole[..1000]);
                write(&beside(&copy, "-journal"), &whole[..1000]);
            }
            Step::EndCopy => {
                drop(fs::remove_file(&copy));
                drop(fs::remove_file(beside(&copy, "-wal")));
                drop(fs::remove_file(beside(&copy, "-journal")));
                let directory = fixture.directory.path().join("elsewhere");
                close(&block_on(FileStore::restore(fixture.backup(), directory.join("keys.db"), root())).unwrap());
                fs::rename(directory.join("keys.db"), &copy).unwrap();
                fs::remove_dir_all(directory).unwrap();
            }
            Step::BeginNote => write(&beside(&path, ".restoring"), &note.as_bytes()[..7]),
            Step::EndNote => write(&beside(&path, ".restoring"), format!("{note}\n").as_bytes()),
            Step::RenameLog => rename_if_there(&beside(&path, "-wal"), &beside(&kept, "-wal")),
            Step::RenameFile => rename_if_there(&path, &kept),
            Step::PutInPlace => fs::rename(&copy, &path).unwrap(),
        }
    }
}

fn write(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn rename_if_there(from: &Path, to: &Path) {
    if from.exists() {
        fs::rename(from, to).unwrap();
    }
}

/// The stores that restores have kept.
fn kept_stores(fixture: &Fixture) -> Vec<PathBuf> {
    let is_kept = |name: &String| {
        let number = name.strip_prefix("keys.db.replaced-");
        number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'))
    };
    fixture.names().into_iter().filter(is_kept).map(|name| fixture.path().with_file_name(name)).collect()
}

pub(crate) fn interrupted_at_each_step() {
    let original = Fixture::new();
    for present in [Present::FileAndLog, Present::File, Present::Log, Present::Nothing] {
        let is_whole = present == Present::FileAndLog;
        for step in STEPS.into_iter().filter(|step| is_whole || *step >= Step::EndNote) {
            let fixture = original.copy();
            match present {
                Present::FileAndLog => {}
                Present::File => close(&open(fixture.path())),
                Present::Log => fs::remove_file(fixture.path()).unwrap(),
                Present::Nothing => {
                    fs::remove_file(fixture.path()).unwrap();
                    fs::remove_file(beside(&fixture.path(), "-wal")).unwrap();
                }
            }
            interrupt(&fixture, present, step);
            ends_well(&fixture, present, step);
        }
    }
}

fn ends_well(fixture: &Fixture, present: Present, step: Step) {
    let has_file = matches!(present, Present::FileAndLog | Present::File);
    if step >= Step::BeginNote {
        let text = fixture.expect_closed_to_all(ErrorKind::Unavailable);
        assert!(text.contains("restore again"), "{present:?}, {step:?}: {text}");
    } else if has_file {
        // Opened as a copy, so that the log stays.
        let copy = fixture.copy();
        assert_eq!(keys_at(&copy.path()), fixture.at_kill, "{present:?}, {step:?}");
        // What the restore has left there holds users that were erased since the backup.
        assert_eq!(copy.names(), ["keys.db", "keys.db.id", "keys.db.lock"], "{present:?}, {step:?}");
    } else {
        fixture.expect_closed_to_all(ErrorKind::Corrupt);
    }
    if step == Step::RenameLog && present == Present::FileAndLog {
        // The log without its file is not taken for a store.
        let error = block_on(FileStore::open(beside(&fixture.path(), ".replaced-1"), root())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", chain(&error));
    }
    let store = block_on(FileStore::restore(fixture.backup(), fixture.path(), root())).unwrap();
    assert_eq!(keys(&store), fixture.at_backup, "{present:?}, {step:?}");
    let kept = store.replaced_store().map(Path::to_owned);
    close(&store);
    assert_eq!(kept.is_some(), present != Present::Nothing, "{present:?}, {step:?}");
    match (present, kept) {
        (Present::FileAndLog | Present::File, Some(kept)) => {
            assert_eq!(keys_at(&kept), fixture.at_kill, "{present:?}, {step:?}");
        }
        (Present::Log, Some(kept)) => {
            assert!(fs::metadata(beside(&kept, "-wal")).unwrap().len() > 0 && !kept.exists(), "{step:?}");
        }
        _ => {}
    }
    let names = fixture.names();
    assert!(!names.iter().any(|name| name.contains("restoring")), "{present:?}, {step:?}: {names:?}");
}

pub(crate) fn killed_at_random_moments() {
    let kills = std::env::var("KEYSTEAD_KILLS").map_or(KILLS, |count| count.parse().unwrap());
    let original = Fixture::new();
    let mut random = Random::new(12);
    let mut before = 0;
    let mut refused = 0;
    let mut after = 0;
    for number in 0..kills {
        let fixture = original.copy();
        let worker = Worker::start("restore_once", &[fixture.backup().to_str().unwrap(), &fixture.text_path()]);
        // A quick machine is through in some 20 ms, a slow one takes several times as long.
        let limit = if number % 4 < 2 { 20_000 } else { 70_000 };
        worker.lines_until_killed(Duration::from_micros(random.below(limit) as u64));
        // Every other time the log stays for the next restore.
        if number % 2 == 0 {
            match block_on(FileStore::open(fixture.path(), root())) {
                Ok(store) => {
                    let found = keys(&store);
                    before += usize::from(found == fixture.at_kill);
                    after += usize::from(found == fixture.at_backup);
                    assert!(found == fixture.at_kill || found == fixture.at_backup, "a mixture of two stores");
                    close(&store);
                }
                Err(error) => {
                    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
                    assert!(chain(&error).contains("keystead restore again"), "{}", chain(&error));
                    refused += 1;
                }
            }
        }
        let store = block_on(FileStore::restore(fixture.backup(), fixture.path(), root())).unwrap();
        assert_eq!(keys(&store), fixture.at_backup);
        close(&store);
        let kept: Vec<Keys> = kept_stores(&fixture).iter().map(|kept| keys_at(kept)).collect();
        let is_original = |keys: &&Keys| **keys == fixture.at_kill;
        assert_eq!(kept.iter().filter(is_original).count(), 1, "{:?}", fixture.names());
        assert!(kept.iter().all(|keys| *keys == fixture.at_kill || *keys == fixture.at_backup));
    }
    println!("{kills} restores killed; opened before {before}, in the middle {refused}, after {after}");
}

pub(crate) fn beside_an_open_store() {
    let fixture = Fixture::new();
    let mut worker = Worker::start("hold_open", &[&fixture.text_path()]);
    worker.expect("open");
    let before = snapshot(fixture.directory.path());
    let error = block_on(FileStore::restore(fixture.backup(), fixture.path(), root())).unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Conflict, Effect::NotApplied), "{}", chain(&error));
    assert_eq!(snapshot(fixture.directory.path()), before);
    // Not even a stopped one is taken for dead.
    worker.signal("STOP");
    let error = block_on(FileStore::restore(fixture.backup(), fixture.path(), root())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", chain(&error));
    worker.signal("CONT");
    worker.say("on");
    worker.finish();
    let store = block_on(FileStore::restore(fixture.backup(), fixture.path(), root())).unwrap();
    assert_eq!(keys(&store), fixture.at_backup);
    assert_eq!(keys_at(store.replaced_store().unwrap()), fixture.at_kill);
}

/// Processes that open a store while another one restores it find one of the two stores, or are
/// told to try again.
pub(crate) fn opened_while_restored() {
    let fixture = Fixture::new();
    let mut openers: Vec<Worker> = (0..3).map(|_| Worker::start("open_on", &[&fixture.text_path()])).collect();
    openers.iter_mut().for_each(|opener| opener.expect("ready"));
    openers.iter_mut().for_each(|opener| opener.say("go"));
    let mut restored = 0;
    for _ in 0..400 {
        match block_on(FileStore::restore(fixture.backup(), fixture.path(), root())) {
            Ok(store) => {
                assert_eq!(keys(&store), fixture.at_backup);
                close(&store);
                restored += 1;
            }
            Err(error) => {
                let kinds = [ErrorKind::Conflict, ErrorKind::Unavailable];
                assert!(kinds.contains(&error.kind()), "{}", chain(&error));
            }
        }
        if restored == 10 {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    openers.iter_mut().for_each(|opener| opener.say("enough"));
    for opener in openers {
        for line in opener.finish() {
            let expected = [fixture.at_backup.len().to_string(), fixture.at_kill.len().to_string()];
            assert!(expected.contains(&line) || line == "Unavailable", "{line}");
        }
    }
    println!("restored {restored} times between openings");
    assert!(kept_stores(&fixture).len() >= restored);
}

/// `PATH`: opens the store in each way again and again until it is told that that is enough, and
/// says how many keys it has.
pub(crate) fn open_on(arguments: &[String]) {
    let [path] = arguments else { panic!("PATH") };
    crate::child::meet("ready");
    let enough = std::thread::spawn(|| std::io::stdin().read_line(&mut String::new()).unwrap());
    for number in 0.. {
        if enough.is_finished() {
            break;
        }
        let opened = match number % 2 {
            0 => block_on(FileStore::open(path, root())),
            _ => block_on(FileStore::open_or_create(path, root())),
        };
        match opened {
            Ok(store) => {
                println!("{}", keys(&store).len());
                close(&store);
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => println!("Unavailable"),
            Err(error) => println!("{:?}: {}", error.kind(), chain(&error)),
        }
        // Restores need a moment in which nobody has the store open.
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn restores_at_once() {
    let fixture = Fixture::new();
    let start = || Worker::start("restore_if_free", &[fixture.backup().to_str().unwrap(), &fixture.text_path()]);
    let mut workers: Vec<Worker> = (0..4).map(|_| start()).collect();
    workers.iter_mut().for_each(|worker| worker.expect("ready"));
    workers.iter_mut().for_each(|worker| worker.say("go"));
    let outcomes: Vec<String> = workers.into_iter().map(|worker| worker.finish().remove(0)).collect();
    assert!(outcomes.iter().all(|outcome| ["restored", "Conflict"].contains(&outcome.as_str())), "{outcomes:?}");
    let restored = outcomes.iter().filter(|outcome| *outcome == "restored").count();
    assert!(restored > 0);
    let kept: Vec<Keys> = kept_stores(&fixture).iter().map(|kept| keys_at(kept)).collect();
    assert_eq!((kept.len(), kept.iter().filter(|keys| **keys == fixture.at_kill).count()), (restored, 1));
    assert_eq!(keys_at(&fixture.path()), fixture.at_backup);
}

/// `BACKUP PATH`
pub(crate) fn restore_if_free(arguments: &[String]) {
    let [backup, path] = arguments else { panic!("BACKUP PATH") };
    crate::child::meet("ready");
    match block_on(FileStore::restore(backup, path, root())) {
        Ok(store) => {
            close(&store);
            println!("restored");
        }
        Err(error) => println!("{:?}", error.kind()),
    }
}

/// `PATH`: has the store open until it is told to close it.
pub(crate) fn hold_open(arguments: &[String]) {
    let [path] = arguments else { panic!("PATH") };
    let store = open(path);
    crate::child::meet("open");
    close(&store);
}

/// The journal of a creation that was cut off would undo the backup.
pub(crate) fn over_a_creation_cut_off() {
    let fixture = Fixture::new();
    fs::remove_dir_all(fixture.path().parent().unwrap()).unwrap();
    fs::create_dir(fixture.path().parent().unwrap()).unwrap();
    Worker::start("begin_creation", &[&fixture.text_path()]).finish();
    assert!(fs::metadata(beside(&fixture.path(), "-journal")).unwrap().len() > 0);
    let store = block_on(FileStore::restore(fixture.backup(), fixture.path(), root())).unwrap();
    assert_eq!(keys(&store), fixture.at_backup);
    close(&store);
    let store = open(fixture.path());
    assert_eq!(keys(&store), fixture.at_backup);
    assert!(block_on(keystead_core::KeyStoreExt::find_key(&store, &id("late-1"))).unwrap().is_none());
}
