//! Runs the functions of the fuzz targets on stable: with the corpus, with random bytes and with
//! changed seeds. None panics, and the memory that each takes is bounded by the size of its input.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::PathBuf;

use keystead_fuzz_entries::{TARGETS, Target};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

/// The most bytes that a function may have allocated at once, apart from those for its input.
const MEMORY: u64 = 64 * 1024;

/// The most bytes that it may have allocated for each byte of its input.
const MEMORY_PER_BYTE: u64 = 16;

/// The number of inputs that proptest generates for each target. Set `KEYSTEAD_FUZZ_CASES` for
/// more.
const CASES: u32 = 500;

fn corpus(target: &Target) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target.name)
}

fn run(target: &Target, input: &[u8]) {
    let memory = allocation_counter::measure(|| (target.run)(input));
    let allowed = MEMORY + MEMORY_PER_BYTE * input.len() as u64;
    let name = target.name;
    let len = input.len();
    assert!(memory.bytes_max <= allowed, "{name} took {} bytes for an input of {len}", memory.bytes_max);
    assert_eq!(memory.bytes_current, 0, "{name} left memory behind");
}

/// Runs the seeds once, because memory that a process allocates only once does not count against
/// the bound.
fn warm_up(target: &Target) {
    (target.seeds)().iter().for_each(|(_, seed)| (target.run)(seed));
}

#[test]
fn the_corpus_is_run() {
    for target in &TARGETS {
        warm_up(target);
        let directory = corpus(target);
        if std::env::var_os("KEYSTEAD_BLESS").is_some() {
            fs::create_dir_all(&directory).unwrap();
            (target.seeds)().iter().for_each(|(name, seed)| fs::write(directory.join(name), seed).unwrap());
        }
        for (name, _) in (target.seeds)() {
            assert!(directory.join(name).exists(), "{}/{name} is missing: run with KEYSTEAD_BLESS=1", target.name);
        }
        for file in fs::read_dir(&directory).unwrap() {
            run(target, &fs::read(file.unwrap().path()).unwrap());
        }
    }
}

#[test]
fn random_bytes_are_run() {
    for target in &TARGETS {
        warm_up(target);
        check(&proptest::collection::vec(any::<u8>(), 0..2048), |input| run(target, &input));
    }
}

#[test]
fn changed_seeds_are_run() {
    for target in &TARGETS {
        warm_up(target);
        let seeds: Vec<Vec<u8>> = (target.seeds)().into_iter().map(|(_, seed)| seed).collect();
        let changes = proptest::collection::vec(any::<Change>(), 1..5);
        check(&(proptest::sample::select(seeds), changes), |(mut input, changes)| {
            changes.into_iter().for_each(|change| change.apply(&mut input));
            run(target, &input);
        });
    }
}

fn check<S: Strategy>(inputs: &S, run: impl Fn(S::Value)) {
    let cases = std::env::var("KEYSTEAD_FUZZ_CASES").map_or(CASES, |cases| cases.parse().unwrap());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let checked = TestRunner::new(config).run(inputs, |input| {
        run(input);
        Ok(())
    });
    checked.unwrap();
}

/// A change that a fuzzer makes to an input.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Set(Index, u8),
    Cut(Index),
    Repeat(Index, Index),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
}

impl Arbitrary for Change {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        let at = any::<Index>;
        let byte = any::<u8>;
        prop_oneof![
            (at(), 0..8_u8).prop_map(|(at, bit)| Self::Flip(at, bit)),
            (at(), prop_oneof![byte(), Just(0), Just(0xff), Just(b'%'), Just(b'-')])
                .prop_map(|(at, to)| Self::Set(at, to)),
            at().prop_map(Self::Cut),
            (at(), at()).prop_map(|(from, to)| Self::Repeat(from, to)),
            (at(), proptest::collection::vec(byte(), 1..64)).prop_map(|(at, bytes)| Self::Insert(at, bytes)),
            (at(), at()).prop_map(|(from, to)| Self::Remove(from, to)),
        ]
        .boxed()
    }
}

impl Change {
    fn apply(self, input: &mut Vec<u8>) {
        let len = input.len();
        let place = |index: Index| index.index(len + 1);
        let span = |one: Index, other: Index| place(one).min(place(other))..place(one).max(place(other));
        match self {
            Self::Flip(at, bit) if place(at) < len => input[place(at)] ^= 1 << bit,
            Self::Set(at, to) if place(at) < len => input[place(at)] = to,
            Self::Flip(..) | Self::Set(..) => {}
            Self::Cut(at) => input.truncate(place(at)),
            Self::Repeat(from, to) => input.extend_from_within(span(from, to)),
            Self::Insert(at, bytes) => drop(input.splice(place(at)..place(at), bytes)),
            Self::Remove(from, to) => drop(input.drain(span(from, to))),
        }
    }
}
