//! A million keys in the file store: loading, listing, opening. Each in a fresh process, so that memory and first uses count.

use std::fs;
use std::path::Path;
use std::time::Instant;

use futures_util::TryStreamExt;
use keystead_benches::measure::{Cost, Samples, Side, take_turns};
use keystead_benches::table::{Bar, Row, Unit};
use keystead_core::{BoxError, KeyStore};
use keystead_file::FileStore;

use crate::bench::Bench;
use crate::crowd;
use crate::file::{root, store_in};
use crate::worker;

/// Twice as many as share a transaction: while one half waits for the disk, the other one is ready.
const CALLERS: usize = 512;

const MILLISECOND: f64 = 1e6;
const MEBIBYTE: f64 = 1024.0 * 1024.0;

pub(crate) fn load_list_and_open(bench: &mut Bench) -> Result<(), BoxError> {
    let (few, many) = bench.options.size((10_000, 1_000_000), (2_000, 20_000));
    let rounds = bench.options.size(5, 1);

    // Of the large load there is one only, it takes its time; the small ones are done before, after and on either side.
    let large = store_in(&bench.directory("bulk-large")?);
    let (mut loads_of_few, mut load_of_many) = (Vec::new(), Cost(f64::NAN));
    for round in 0..rounds {
        if round == rounds / 2 {
            load_of_many = cost_of("load", &large, &[many])?;
        }
        let directory = bench.directory(&format!("bulk-small-{round}"))?;
        loads_of_few.push(cost_of("load", &store_in(&directory), &[few])?);
    }
    let small = store_in(&bench.directory("bulk-small")?);
    worker::run("load", &small, &[few])?;

    let mut growths = Vec::new();
    let mut list_many = || {
        let answer = worker::run("list", &large, &[many])?;
        growths.push(Cost(answer.get(1).copied().unwrap_or(f64::NAN)));
        first(&answer)
    };
    let mut list_few = || cost_of("list", &small, &[few]);
    let lists: [Side<'_>; 2] = [&mut list_many, &mut list_few];
    let [list_of_many, list_of_few] = take_turns(rounds, lists)?;
    let [open] = take_turns(2 * rounds, [&mut || cost_of("open", &large, &[])])?;

    let limit = |cost| Samples::from(vec![Cost(cost); 2 * rounds]);
    let (load_of_many, loads_of_few) =
        (Samples::fixed(load_of_many), Samples::fixed(Samples::from(loads_of_few).median()));
    let per_key = format!("a key of {few}");
    let (memory, time) = (Unit::Bytes, Unit::Time);
    for (path, bar, against, unit, ours, reference) in [
        ("load", Bar::AtMost(2.0), per_key.as_str(), time, &load_of_many, &loads_of_few),
        ("list", Bar::AtMost(2.0), &per_key, time, &list_of_many, &list_of_few),
        ("memory during list", Bar::AtMost(1.0), "the limit", memory, &Samples::from(growths), &limit(64.0 * MEBIBYTE)),
        ("open", Bar::AtMost(1.0), "the limit", time, &open, &limit(50.0 * MILLISECOND)),
    ] {
        let path = format!("file: {path}, {many} keys");
        bench.row(&Row { path: &path, against, bar, stretch: None, unit, ours, reference });
    }
    bench.discard("bulk-large")
}

fn cost_of(job: &str, store: &Path, numbers: &[usize]) -> Result<Cost, BoxError> {
    first(&worker::run(job, store, numbers)?)
}

fn first(answer: &[f64]) -> Result<Cost, BoxError> {
    answer.first().map(|cost| Cost(*cost)).ok_or_else(|| "a worker answered nothing".into())
}

/// In the worker: makes a store with the keys of so many people, and answers with what a key cost.
pub(crate) async fn load(path: &Path, people: usize) -> Result<(), BoxError> {
    let store = FileStore::create(path, root()).await?;
    let start = Instant::now();
    crowd::put_all(&store, CALLERS, 0..people).await?;
    let cost = Cost::of(start.elapsed(), people);
    store.close().await?;
    worker::answer(&[cost.0])
}

/// In the worker: lists a store of so many people, and answers with what an id cost and how much the memory grew, in bytes.
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
