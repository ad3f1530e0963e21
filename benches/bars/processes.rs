//! The file store with four writing processes, compared with one.

use std::path::Path;
use std::time::{Duration, Instant};

use keystead_benches::measure::{Cost, Samples, take_turns};
use keystead_benches::table::{Bar, Row, Unit};
use keystead_benches::users;
use keystead_core::{BoxError, KeyStore, KeyStoreExt};
use keystead_file::FileStore;

use crate::bench::Bench;
use crate::file::{INITIAL_KEYS, filled_store, root, store_in};
use crate::worker::{self, Worker};

const PROCESSES: usize = 4;

/// The number of users of each process: more than it can write.
const USERS_PER_PROCESS: usize = 1_000_000;

pub(crate) fn write(bench: &mut Bench) -> Result<(), BoxError> {
    compare(bench, "put", "file: four processes, each one caller's puts")?;
    compare(bench, "put-and-delete", "file: four processes, each one caller's puts and 20 % deletes")
}

fn compare(bench: &mut Bench, job: &str, path: &str) -> Result<(), BoxError> {
    let directory = bench.directory("processes")?;
    let store = filled_store(bench, &directory, INITIAL_KEYS)?;
    bench.runtime.block_on(store.close())?;

    let store = store_in(&directory);
    let milliseconds = bench.options.size(2_000, 200);
    let mut started = 0;
    let mut costs_of_four = Vec::new();
    let mut run = |processes| {
        started += processes;
        let workers = started - processes + 1..=started;
        let costs = costs_of_writes(&store, job, workers, milliseconds)?;
        let together = Cost(1.0 / costs.iter().map(|cost| 1.0 / cost.0).sum::<f64>());
        if processes == PROCESSES {
            costs_of_four.push(costs);
        }
        Ok(together)
    };
    let run = std::cell::RefCell::new(&mut run);
    let mut four = || run.borrow_mut()(PROCESSES);
    let mut one = || run.borrow_mut()(1);
    let [four, one] = take_turns(bench.options.size(7, 1), [&mut four, &mut one])?;

    let unit = Unit::Rate;
    let stretch = None;
    let bar = Bar::AtLeast(1.0);
    let against = "one such process alone";
    bench.row(&Row { path, against, bar, stretch, unit, ours: &four, reference: &one });
    // The process that wrote least has the highest cost. The first round warms up.
    let least = |costs: &Vec<Cost>| costs.iter().copied().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or(Cost(f64::NAN));
    let most = |costs: &Vec<Cost>| costs.iter().copied().min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or(Cost(f64::NAN));
    let [least, most] = [least, most].map(|pick| costs_of_four.iter().skip(1).map(pick).collect::<Vec<_>>());
    let bar = Bar::AtMost(3.0);
    let against = "a write of the quickest of them, for the slowest";
    bench.row(&Row { path, against, bar, stretch, unit, ours: &Samples::from(least), reference: &Samples::from(most) });
    bench.discard("processes")
}

/// Returns the cost of a write in each process while all of them write at once.
fn costs_of_writes(
    store: &Path,
    job: &str,
    workers: impl Iterator<Item = usize>,
    milliseconds: usize,
) -> Result<Vec<Cost>, BoxError> {
    let start = |worker| Worker::start(job, store, &[worker, milliseconds]);
    let mut workers = workers.map(start).collect::<Result<Vec<_>, _>>()?;
    // No worker begins before all of them have opened the store.
    workers.iter_mut().try_for_each(|worker| worker.answer().map(drop))?;
    workers.iter_mut().try_for_each(Worker::go)?;
    let cost = |worker: &mut Worker| worker.answer()?.first().map(|cost| Cost(*cost)).ok_or_else(|| "no number".into());
    workers.iter_mut().map(cost).collect()
}

/// In the worker: puts keys for the given time, with `delete` also one delete after every four
/// puts, and answers with the cost of a write.
pub(crate) async fn put_for(store: &Path, index: usize, milliseconds: usize, delete: bool) -> Result<(), BoxError> {
    let store = FileStore::open(store, root()).await?;
    worker::rendezvous()?;
    let mut writes = 0;
    let mut user = index * USERS_PER_PROCESS;
    let time = Duration::from_millis(milliseconds as u64);
    let start = Instant::now();
    while start.elapsed() < time {
        if delete && writes % 5 == 4 {
            store.delete_key(&users::id(user - 1)).await?;
        } else {
            store.put_key(&users::id(user), &users::key(user)).await?;
            user += 1;
        }
        writes += 1;
    }
    let cost = Cost::of(start.elapsed(), writes);
    store.close().await?;
    worker::answer(&[cost.0])
}
