//! A million keys in the file store: putting, loading, listing, verifying, opening, getting. All
//! but the gets run in a fresh process each, so that memory and first uses count.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use futures_util::{TryStreamExt, stream};
use keystead_benches::measure::{Cost, Samples, Side, take_turns, time};
use keystead_benches::people;
use keystead_benches::table::{Bar, Row, Unit};
use keystead_core::{BoxError, KeyId, KeyStore};
use keystead_file::FileStore;

use crate::bench::Bench;
use crate::crowd;
use crate::file::{root, store_in};
use crate::peers::ByHand;
use crate::worker;

/// Twice as many as share a transaction: while one half waits for the disk, the other one is ready.
const CALLERS: usize = 512;

const MICROSECOND: f64 = 1e3;
const MILLISECOND: f64 = 1e6;
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// The most that a key may cost when it is loaded.
const LOAD_LIMIT: f64 = 12.0 * MICROSECOND;

/// The numbers of keys in a small and in a large store.
fn sizes(bench: &Bench) -> (usize, usize) {
    bench.options.size((10_000, 1_000_000), (2_000, 20_000))
}

pub(crate) fn put(bench: &mut Bench) -> Result<(), BoxError> {
    let (few, many) = sizes(bench);
    let [put_many, put_few] = fill_in_turns(bench, "put-all", 1)?;
    let path = format!("file: {many} puts, {CALLERS} callers");
    let against = format!("a key of {few}");
    row(bench, &path, Bar::AtMost(2.0), &against, Unit::Time, [&put_many, &put_few]);
    Ok(())
}

pub(crate) fn load(bench: &mut Bench) -> Result<(), BoxError> {
    let (few, many) = sizes(bench);
    let rounds = bench.options.size(3, 1);
    let [load_many, load_few] = fill_in_turns(bench, "load", rounds)?;
    let path = format!("file: load, {many} keys");
    let against = format!("a key of {few}");
    row(bench, &path, Bar::AtMost(2.0), &against, Unit::Time, [&load_many, &load_few]);
    row(bench, &path, Bar::AtMost(1.0), "the limit", Unit::Time, [&load_many, &limit(LOAD_LIMIT, rounds)]);
    Ok(())
}

pub(crate) fn read(bench: &mut Bench) -> Result<(), BoxError> {
    let (few, many) = sizes(bench);
    let rounds = bench.options.size(5, 1);
    let large = store_in(&bench.directory("bulk-large")?);
    let small = store_in(&bench.directory("bulk-small")?);
    worker::run("load", &large, &[many])?;
    worker::run("load", &small, &[few])?;

    let mut growths = Vec::new();
    let mut list_many = || {
        let answer = worker::run("list", &large, &[many])?;
        growths.push(Cost(answer.get(1).copied().unwrap_or(f64::NAN)));
        first(&answer)
    };
    let sides: [Side<'_>; 4] = [
        &mut list_many,
        &mut || cost_of("list", &small, &[few]),
        &mut || cost_of("verify", &large, &[many]),
        &mut || cost_of("verify", &small, &[few]),
    ];
    let [list_many, list_few, verify_many, verify_few] = take_turns(rounds, sides)?;
    let [open] = take_turns(2 * rounds, [&mut || cost_of("open", &large, &[])])?;
    let growths = Samples::from(growths);

    let per_key = format!("a key of {few}");
    let (memory_limit, open_limit) = (limit(64.0 * MEBIBYTE, rounds + 1), limit(50.0 * MILLISECOND, 2 * rounds));
    let (at_most_twice, within) = (Bar::AtMost(2.0), Bar::AtMost(1.0));
    for (path, bar, against, unit, sides) in [
        ("list", at_most_twice, per_key.as_str(), Unit::Time, [&list_many, &list_few]),
        ("memory during list", within, "the limit", Unit::Bytes, [&growths, &memory_limit]),
        ("verify", at_most_twice, &per_key, Unit::Time, [&verify_many, &verify_few]),
        ("open", within, "the limit", Unit::Time, [&open, &open_limit]),
    ] {
        row(bench, &format!("file: {path}, {many} keys"), bar, against, unit, sides);
    }
    get(bench, &large, many)?;
    bench.discard("bulk-large")?;
    bench.discard("bulk-small")
}

/// Gets from a store of so many people, beside reading its file by hand.
fn get(bench: &mut Bench, path: &Path, people: usize) -> Result<(), BoxError> {
    let runtime = &bench.runtime;
    let ours = runtime.block_on(FileStore::open(path, root()))?;
    let by_hand = ByHand::open(path, &root())?;
    let mut select = by_hand.select()?;

    let (rounds, count) = bench.options.size((15, 20_000), (3, 1_000));
    // Each round gets other keys, so that no connection's cache holds their pages.
    let ids: Vec<KeyId> = people::visits(people, count * (rounds + 1)).into_iter().map(people::id).collect();
    let mut batches = ids.chunks_exact(count).cycle();
    let mut get_ours = || {
        let batch = batches.next().ok_or("there is nobody")?;
        let gets = async {
            for id in batch {
                black_box(ours.get_key(id).await?);
            }
            Ok(())
        };
        time(count, || runtime.block_on(gets))
    };
    let mut batches = ids.chunks_exact(count).cycle();
    let mut get_by_hand = || {
        let batch = batches.next().ok_or("there is nobody")?;
        time(count, || {
            for id in batch {
                black_box(by_hand.get(&mut select, id)?);
            }
            Ok(())
        })
    };
    let [get_ours, get_by_hand] = take_turns(rounds, [&mut get_ours, &mut get_by_hand])?;
    runtime.block_on(ours.close())?;

    let path = format!("file: get_key, {people} keys");
    row(bench, &path, Bar::AtMost(1.25), "SELECT + HMAC + open by hand", Unit::Time, [&get_ours, &get_by_hand]);
    Ok(())
}

/// Fills new stores with many and with few keys, and returns the costs of a key. A large store
/// takes its time, so there are few rounds; a small one is filled before and after each.
fn fill_in_turns(bench: &Bench, job: &str, rounds: usize) -> Result<[Samples; 2], BoxError> {
    let (few, many) = sizes(bench);
    let mut number = 0;
    let mut fill = |people| {
        number += 1;
        let name = format!("{job}-{number}");
        let cost = cost_of(job, &store_in(&bench.directory(&name)?), &[people])?;
        bench.discard(&name)?;
        Ok::<_, BoxError>(cost)
    };
    let mut costs_of_many = Vec::new();
    let mut costs_of_few = Vec::new();
    fill(few)?;
    for _ in 0..rounds {
        let before = fill(few)?;
        costs_of_many.push(fill(many)?);
        let after = fill(few)?;
        costs_of_few.push(Cost(f64::midpoint(before.0, after.0)));
    }
    Ok([costs_of_many.into(), costs_of_few.into()])
}

/// A cost that must not be exceeded, in each of so many rounds.
fn limit(cost: f64, rounds: usize) -> Samples {
    Samples::from(vec![Cost(cost); rounds])
}

fn row(bench: &mut Bench, path: &str, bar: Bar, against: &str, unit: Unit, [ours, reference]: [&Samples; 2]) {
    bench.row(&Row { path, against, bar, stretch: None, unit, ours, reference });
}

fn cost_of(job: &str, store: &Path, numbers: &[usize]) -> Result<Cost, BoxError> {
    first(&worker::run(job, store, numbers)?)
}

fn first(answer: &[f64]) -> Result<Cost, BoxError> {
    answer.first().map(|cost| Cost(*cost)).ok_or_else(|| "a worker answered nothing".into())
}

/// In the worker: makes a store by putting the keys of so many people, and answers with the cost of
/// a key.
pub(crate) async fn put_all(path: &Path, people: usize) -> Result<(), BoxError> {
    let store = FileStore::create(path, root()).await?;
    let start = Instant::now();
    crowd::put_all(&store, CALLERS, 0..people).await?;
    let cost = Cost::of(start.elapsed(), people);
    store.close().await?;
    worker::answer(&[cost.0])
}

/// In the worker: makes a store by loading the keys of so many people, and answers with the cost of
/// a key.
pub(crate) async fn load_all(path: &Path, people: usize) -> Result<(), BoxError> {
    let store = FileStore::create(path, root()).await?;
    let start = Instant::now();
    let keys = stream::iter((0..people).map(|person| (people::id(person), people::key(person))));
    let report = store.load(keys).await?;
    let cost = Cost::of(start.elapsed(), people);
    if report.created != people as u64 {
        return Err(format!("{} keys were created of {people}", report.created).into());
    }
    store.close().await?;
    worker::answer(&[cost.0])
}

/// In the worker: verifies a store of so many people, and answers with the cost of a key.
pub(crate) async fn verify(path: &Path, people: usize) -> Result<(), BoxError> {
    let store = FileStore::open(path, root()).await?;
    let start = Instant::now();
    let report = store.verify(|_| {}).await?;
    let cost = Cost::of(start.elapsed(), people);
    if !report.is_intact() || report.intact != people as u64 {
        return Err(format!("{} keys are intact of {people}", report.intact).into());
    }
    store.close().await?;
    worker::answer(&[cost.0])
}

/// In the worker: lists a store of so many people, and answers with what an id cost and how much
/// the memory grew, in bytes.
pub(crate) async fn list(path: &Path, people: usize) -> Result<(), BoxError> {
    let store = FileStore::open(path, root()).await?;
    let (before, start) = (memory("VmRSS:")?, Instant::now());
    let listed = store.list_keys().try_fold(0, |count, _| async move { Ok(count + 1) }).await?;
    let cost = Cost::of(start.elapsed(), people);
    let growth = memory("VmHWM:")? - before;
    if listed != people {
        return Err(format!("{listed} ids were listed of {people}").into());
    }
    store.close().await?;
    worker::answer(&[cost.0, growth])
}

/// In the worker: answers with the nanoseconds that opening takes.
pub(crate) async fn open(path: &Path) -> Result<(), BoxError> {
    let start = Instant::now();
    let store = FileStore::open(path, root()).await?;
    let cost = Cost::of(start.elapsed(), 1);
    store.close().await?;
    worker::answer(&[cost.0])
}

/// A figure of this process's memory in bytes, as Linux tells it.
fn memory(name: &str) -> Result<f64, BoxError> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such figure")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024.0)
}
