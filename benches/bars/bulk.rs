//! A million keys in the file store: put, load, list, verify, open and get. Each operation but get
//! runs in a process of its own, so that memory and first uses count.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use futures_util::{TryStreamExt, stream};
use keystead_benches::measure::{Cost, Samples, Workload, take_turns, time};
use keystead_benches::table::{Bar, Row, Unit};
use keystead_benches::users;
use keystead_core::{BoxError, KeyId, KeyStore};
use keystead_file::FileStore;

use crate::bench::Bench;
use crate::crowd;
use crate::file::{root, store_in};
use crate::peers::ByHand;
use crate::worker;

/// The number of concurrent callers: twice as many as share a transaction, so that one half is
/// ready while the other half waits for the disk.
const CALLERS: usize = 512;

const MICROSECOND: f64 = 1e3;
const MILLISECOND: f64 = 1e6;
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// The longest time that loading a key may take.
const LOAD_LIMIT: f64 = 12.0 * MICROSECOND;

/// Returns the numbers of keys in a small store and in a large one.
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
    let workloads: [Workload<'_>; 4] = [
        &mut list_many,
        &mut || cost_of("list", &small, &[few]),
        &mut || cost_of("verify", &large, &[many]),
        &mut || cost_of("verify", &small, &[few]),
    ];
    let [list_many, list_few, verify_many, verify_few] = take_turns(rounds, workloads)?;
    let [open] = take_turns(2 * rounds, [&mut || cost_of("open", &large, &[])])?;
    let growths = Samples::from(growths);

    let per_key = format!("a key of {few}");
    let memory_limit = limit(64.0 * MEBIBYTE, rounds + 1);
    let open_limit = limit(50.0 * MILLISECOND, 2 * rounds);
    let at_most_twice = Bar::AtMost(2.0);
    let within = Bar::AtMost(1.0);
    for (path, bar, against, unit, samples) in [
        ("list", at_most_twice, per_key.as_str(), Unit::Time, [&list_many, &list_few]),
        ("memory during list", within, "the limit", Unit::Bytes, [&growths, &memory_limit]),
        ("verify", at_most_twice, &per_key, Unit::Time, [&verify_many, &verify_few]),
        ("open", within, "the limit", Unit::Time, [&open, &open_limit]),
    ] {
        row(bench, &format!("file: {path}, {many} keys"), bar, against, unit, samples);
    }
    get(bench, &large, many)?;
    bench.discard("bulk-large")?;
    bench.discard("bulk-small")
}

/// Compares gets from a store of `users` users with reading its file by hand.
fn get(bench: &mut Bench, path: &Path, users: usize) -> Result<(), BoxError> {
    let runtime = &bench.runtime;
    let ours = runtime.block_on(FileStore::open(path, root()))?;
    let by_hand = ByHand::open(path, &root())?;
    let mut select = by_hand.select()?;

    let (rounds, count) = bench.options.size((15, 20_000), (3, 1_000));
    // Each round gets other keys, because a connection's cache may hold the pages of earlier ones.
    let ids: Vec<KeyId> = users::random_accesses(users, count * (rounds + 1)).into_iter().map(users::id).collect();
    let mut batches = ids.chunks_exact(count).cycle();
    let mut get_ours = || {
        let batch = batches.next().ok_or("there is no batch")?;
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
        let batch = batches.next().ok_or("there is no batch")?;
        time(count, || {
            for id in batch {
                black_box(by_hand.get(&mut select, id)?);
            }
            Ok(())
        })
    };
    let [get_ours, get_by_hand] = take_turns(rounds, [&mut get_ours, &mut get_by_hand])?;
    runtime.block_on(ours.close())?;

    let path = format!("file: get_key, {users} keys");
    row(bench, &path, Bar::AtMost(1.25), "SELECT + HMAC + open by hand", Unit::Time, [&get_ours, &get_by_hand]);
    Ok(())
}

/// Fills new stores with many and with few keys, and returns the costs of a key. Filling a large
/// store takes long, so there are few rounds. In each, a small store is filled before and after the
/// large one.
fn fill_in_turns(bench: &Bench, job: &str, rounds: usize) -> Result<[Samples; 2], BoxError> {
    let (few, many) = sizes(bench);
    let mut stores = 0;
    let mut fill = |users| {
        stores += 1;
        let name = format!("{job}-{stores}");
        let cost = cost_of(job, &store_in(&bench.directory(&name)?), &[users])?;
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

/// Returns a cost that must not be exceeded in any of `rounds` rounds.
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
    answer.first().map(|cost| Cost(*cost)).ok_or_else(|| "a worker gave no answer".into())
}

/// In the worker: creates a store, puts the keys of `users` users, and answers with the cost of a
/// key.
pub(crate) async fn put_all(path: &Path, users: usize) -> Result<(), BoxError> {
    let store = FileStore::create(path, root()).await?;
    let start = Instant::now();
    crowd::put_all(&store, CALLERS, 0..users).await?;
    let cost = Cost::of(start.elapsed(), users);
    store.close().await?;
    worker::answer(&[cost.0])
}

/// In the worker: creates a store, loads the keys of `users` users, and answers with the cost of a
/// key.
pub(crate) async fn load_all(path: &Path, users: usize) -> Result<(), BoxError> {
    let store = FileStore::create(path, root()).await?;
    let start = Instant::now();
    let keys = stream::iter((0..users).map(|user| (users::id(user), users::key(user))));
    let report = store.load(keys).await?;
    let cost = Cost::of(start.elapsed(), users);
    if report.created != users as u64 {
        return Err(format!("{} keys were created of {users}", report.created).into());
    }
    store.close().await?;
    worker::answer(&[cost.0])
}

/// In the worker: verifies a store of `users` users, and answers with the cost of a key.
pub(crate) async fn verify(path: &Path, users: usize) -> Result<(), BoxError> {
    let store = FileStore::open(path, root()).await?;
    let start = Instant::now();
    let report = store.verify(|_| {}).await?;
    let cost = Cost::of(start.elapsed(), users);
    if !report.is_intact() || report.intact != users as u64 {
        return Err(format!("{} keys are intact of {users}", report.intact).into());
    }
    store.close().await?;
    worker::answer(&[cost.0])
}

/// In the worker: lists a store of `users` users, and answers with the cost of an id and the growth
/// of the process's memory in bytes.
pub(crate) async fn list(path: &Path, users: usize) -> Result<(), BoxError> {
    let store = FileStore::open(path, root()).await?;
    let before = memory("VmRSS:")?;
    let start = Instant::now();
    let listed = store.list_keys().try_fold(0, |count, _| async move { Ok(count + 1) }).await?;
    let cost = Cost::of(start.elapsed(), users);
    let growth = memory("VmHWM:")? - before;
    if listed != users {
        return Err(format!("{listed} ids were listed of {users}").into());
    }
    store.close().await?;
    worker::answer(&[cost.0, growth])
}

/// In the worker: opens a store, and answers with the time in nanoseconds.
pub(crate) async fn open(path: &Path) -> Result<(), BoxError> {
    let start = Instant::now();
    let store = FileStore::open(path, root()).await?;
    let cost = Cost::of(start.elapsed(), 1);
    store.close().await?;
    worker::answer(&[cost.0])
}

/// Returns a figure about this process's memory in bytes, from Linux's `/proc/self/status`.
fn memory(name: &str) -> Result<f64, BoxError> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such figure")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024.0)
}
