//! Damage to the bytes of a store's files. It is reported, it is never read as the absence of a
//! key, and it causes neither a panic nor an endless loop.
//!
//! Each trial writes the files of a store to a fresh directory, damages one place, and uses the
//! store as programs do. These variables control the trials:
//!
//! - `KEYSTEAD_DAMAGE_TRIALS` is the number of trials of each kind of damage.
//! - `KEYSTEAD_DAMAGE_SEED=KIND` runs the trials of one kind only.
//! - `KEYSTEAD_DAMAGE_SEED=KIND:NUMBER` repeats one trial. A test that fails prints this.
//!
//! Row keys differ from store to store. Therefore a test that fails keeps its store, and a repeated
//! trial uses the store that was kept last.
//!
//! Older versions are out of scope, because nothing in the file distinguishes them from the current
//! version: a page, some sectors of a page, or a whole file that was not overwritten by the last
//! write and that still fits the rest. SECURITY.md describes this for records.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "test code")]

mod fixture;
mod kinds;
mod pages;
mod random;
mod trial;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use fixture::{Fixture, STORE_NAME, private_directory, write_files};
use kinds::{Bytes, Kind};
use random::Random;
use trial::{Outcome, Promise, Trial};

/// The number of trials of each kind, unless `KEYSTEAD_DAMAGE_TRIALS` gives another.
const TRIALS: u64 = 4;

/// The longest time that a trial may take. It usually takes less than a second.
const DEADLINE: Duration = Duration::from_secs(10);

/// The number of endless trials after which a test stops, because their threads continue to run.
const MAX_ENDLESS: usize = 3;

/// The file that a test damages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The file of a store that was closed.
    Closed,
    /// The main file of a store that has a log.
    BesideLog,
    /// The log. SQLite ends the log at the first damaged frame and keeps the transactions before
    /// it. Therefore a key that is in the main file must be found. A key that is only in the log
    /// may be absent.
    Log,
    /// The log of another store, put beside the file of a store that was closed. SQLite applies
    /// every log whose checksums are right.
    ForeignLog,
}

fn fixture(place: Place) -> Arc<Fixture> {
    static CLOSED: OnceLock<Arc<Fixture>> = OnceLock::new();
    static WITH_LOG: OnceLock<Arc<Fixture>> = OnceLock::new();
    let kept = kept(place);
    let make = |make: fn() -> Fixture| {
        let repeats = selection().is_some_and(|selection| selection.number.is_some()) && kept.is_dir();
        Arc::new(if repeats { Fixture::kept(&kept) } else { make() })
    };
    match place {
        Place::Closed | Place::ForeignLog => CLOSED.get_or_init(|| make(Fixture::closed)).clone(),
        Place::BesideLog | Place::Log => WITH_LOG.get_or_init(|| make(Fixture::with_log)).clone(),
    }
}

/// The directory where a failing test keeps its store.
fn kept(place: Place) -> PathBuf {
    let name = match place {
        Place::Closed | Place::ForeignLog => "raw-bits-closed",
        Place::BesideLog | Place::Log => "raw-bits-with-log",
    };
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Keeps the stores of this place. Another test may do so at the same time.
fn keep(place: Place) {
    static LOCK: Mutex<()> = Mutex::new(());
    let _locked = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    fixture(place).keep(&kept(place));
    if place == Place::ForeignLog {
        fixture(Place::Log).keep(&kept(Place::Log));
    }
}

/// The trials to which the environment restricts the tests.
struct Selection {
    kind: String,
    /// The one trial that is to be repeated.
    number: Option<u64>,
}

fn selection() -> Option<Selection> {
    let seed = std::env::var("KEYSTEAD_DAMAGE_SEED").ok()?;
    let (kind, number) = seed.split_once(':').map_or((seed.as_str(), None), |(kind, number)| (kind, Some(number)));
    assert!(kinds::ALL.iter().flat_map(|kinds| *kinds).any(|known| known.name == kind), "there is no kind {kind}");
    Some(Selection { kind: kind.to_owned(), number: number.map(|number| number.parse().unwrap()) })
}

/// Returns the numbers of the trials of this kind.
fn trials_of(kind: &Kind) -> Vec<u64> {
    let count = std::env::var("KEYSTEAD_DAMAGE_TRIALS").map_or(TRIALS, |count| count.parse().unwrap());
    match selection() {
        Some(selection) if selection.kind != kind.name => Vec::new(),
        Some(Selection { number: Some(number), .. }) => vec![number],
        _ => (0..count).collect(),
    }
}

/// Damages a store and uses it on a thread of its own. Returns a description of the damage.
///
/// A thread that does not end is left alone.
fn try_one(fixture: &Fixture, place: Place, kind: Kind, number: u64) -> (String, Outcome) {
    let mut random = Random::of_trial(kind.name, number);
    let mut files = fixture.files.clone();
    let mut main = files.remove("").unwrap();
    let mut log = match place {
        Place::ForeignLog => crate::fixture(Place::Log).files["-wal"].clone(),
        _ => files.remove("-wal").unwrap_or_default(),
    };
    let bytes = Bytes { main: &mut main, log: &mut log, pages: &fixture.pages };
    let what = (kind.damage)(bytes, &mut random);
    files.insert(String::new(), main);
    if place != Place::Closed {
        files.insert("-wal".to_owned(), log);
    }
    // This function removes the directory, even if the thread does not end.
    let directory = private_directory();
    write_files(&files, directory.path());

    let path = directory.path().join(STORE_NAME);
    let step = Arc::new(Mutex::new("start"));
    let trial = Trial::new(&fixture.stored, place == Place::Log, random, step.clone());
    let (sender, answer) = channel();
    let worker = thread::spawn(move || {
        let outcome = trial.run(&path);
        let _ = sender.send(outcome);
    });
    let failed = |promise, text: &str| {
        let step = *step.lock().unwrap_or_else(PoisonError::into_inner);
        Outcome { broken: BTreeMap::from([(promise, format!("{text} in {step}"))]), ..Outcome::default() }
    };
    let outcome = match answer.recv_timeout(DEADLINE) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => failed(Promise::Ends, "the deadline has passed"),
        Err(RecvTimeoutError::Disconnected) => {
            let panic = worker.join().unwrap_err();
            let text = panic.downcast_ref::<String>().map_or("a panic", String::as_str);
            failed(Promise::NoPanic, text)
        }
    };
    (what, outcome)
}

/// The counts of the trials of one kind of damage.
#[derive(Default)]
struct Tally {
    trials: usize,
    opened: usize,
    intact: usize,
    rotated: usize,
    writes_lost_keys: usize,
    broken: BTreeMap<Promise, usize>,
}

fn try_all(place: Place, kinds: &[Kind]) {
    let kinds: Vec<&Kind> = kinds.iter().filter(|kind| !trials_of(kind).is_empty()).collect();
    if kinds.is_empty() {
        return;
    }
    let fixture = fixture(place);
    let mut table = String::new();
    let mut examples = String::new();
    let mut endless = 0;
    for kind in kinds {
        let mut tally = Tally::default();
        for number in trials_of(kind) {
            if endless == MAX_ENDLESS {
                break;
            }
            let (what, outcome) = try_one(&fixture, place, *kind, number);
            tally.trials += 1;
            tally.opened += usize::from(outcome.opened);
            tally.intact += usize::from(outcome.intact);
            tally.rotated += usize::from(outcome.rotated);
            tally.writes_lost_keys += usize::from(outcome.write_lost_keys);
            endless += usize::from(outcome.broken.contains_key(&Promise::Ends));
            for (promise, breach) in outcome.broken {
                let count = tally.broken.entry(promise).or_default();
                if *count == 0 {
                    let seed = format!("KEYSTEAD_DAMAGE_SEED={}:{number}", kind.name);
                    writeln!(examples, "{promise:?}: {breach}; {what}; {seed}").unwrap();
                }
                *count += 1;
            }
        }
        let Tally { trials, opened, intact, rotated, writes_lost_keys: lost, broken } = tally;
        writeln!(table, "{:28} {trials:6} {opened:6} {intact:6} {rotated:7} {lost:4}  {broken:?}", kind.name).unwrap();
    }
    eprintln!("{:28} trials opened intact rotated lost  broken promises\n{table}", format!("{place:?}"));
    if !examples.is_empty() {
        keep(place);
        panic!("promises are broken; the store is kept in {}\n{examples}", kept(place).display());
    }
}

#[test]
fn a_store_without_damage_keeps_every_promise() {
    for place in [Place::Closed, Place::BesideLog] {
        let nothing = Kind { name: "nothing", damage: |_, _| "nothing damaged".to_owned() };
        let fixture = fixture(place);
        let mut rotations = 0;
        // In some of these trials the store is rotated.
        for number in 0..6 {
            let (_, outcome) = try_one(&fixture, place, nothing, number);
            assert_eq!(outcome.broken, BTreeMap::new(), "{place:?}");
            assert!(outcome.opened && outcome.intact);
            rotations += usize::from(outcome.rotated);
        }
        assert!(rotations > 0);
    }
}

#[test]
fn a_bit_that_is_flipped_is_told() {
    try_all(Place::Closed, kinds::BITS);
}

#[test]
fn a_page_that_is_lost_or_misplaced_is_told() {
    try_all(Place::Closed, kinds::PAGES);
}

#[test]
fn a_number_that_leads_sqlite_astray_is_told() {
    try_all(Place::Closed, kinds::STRUCTURE);
}

#[test]
fn damage_to_the_log_loses_at_most_what_was_only_in_the_log() {
    try_all(Place::Log, kinds::LOG);
}

#[test]
fn damage_to_the_main_file_beside_a_log_is_told() {
    try_all(Place::BesideLog, kinds::BESIDE_LOG);
}

#[test]
fn the_log_of_another_store_is_told() {
    try_all(Place::ForeignLog, kinds::FOREIGN_LOG);
}
