//! The file store with 64 callers at once: puts and deletes.

use std::cell::Cell;
use std::ops::Range;

use keystead_benches::measure::{Cost, Workload, take_turns, time};
use keystead_benches::table::{Bar, Row, Unit};
use keystead_benches::users;
use keystead_core::BoxError;
use keystead_file::FileStore;
use tokio::task::JoinSet;

use crate::bench::{Bench, on_threads};
use crate::file::{INITIAL_KEYS, delete_each, filled_store, put_each};
use crate::peers::{CellsByHand, FilePerKey};

const CALLERS: usize = 64;

pub(crate) fn put(bench: &mut Bench) -> Result<(), BoxError> {
    let runtime = &bench.runtime;
    let store = filled_store(bench, &bench.directory("crowd-put")?, INITIAL_KEYS)?;
    let mut cells = CellsByHand::create(&bench.directory("crowd-put-cells")?, INITIAL_KEYS)?;
    let files = FilePerKey(bench.directory("crowd-put-files")?);

    let (each, alone, each_file) = bench.options.size((64, 1_000, 16), (4, 50, 2));
    let new = NewUsers::after(INITIAL_KEYS);
    let new_cells = NewUsers::after(INITIAL_KEYS);
    let new_files = NewUsers::after(0);
    let mut put_together = || {
        let users = new.take(each * CALLERS);
        time(users.len(), || runtime.block_on(put_all(&store, CALLERS, users)))
    };
    let mut put_alone = || {
        let users = new.take(alone);
        time(users.len(), || runtime.block_on(put_each(&store, users)))
    };
    let mut insert = || {
        time(each * CALLERS, || {
            // Each transaction inserts one cell per caller.
            (0..each).try_for_each(|_| cells.insert(new_cells.take(CALLERS)))
        })
    };
    let mut put_files = || {
        let first = new_files.take(each_file * CALLERS).start;
        let took = on_threads(CALLERS, |caller| {
            let first = first + caller * each_file;
            (first..first + each_file).try_for_each(|user| files.put(user))
        })?;
        Ok(Cost::of(took, each_file * CALLERS))
    };
    let workloads: [Workload<'_>; 4] = [&mut put_together, &mut put_alone, &mut insert, &mut put_files];
    let [together, alone, insert, files] = take_turns(bench.options.size(15, 3), workloads)?;

    let path = "file: durable put_key of new keys, 64 callers";
    for (bar, stretch, against, reference) in [
        (Bar::AtLeast(3.5), Some(6.0), "one caller", &alone),
        (Bar::AtLeast(0.7), None, "transactions of 64 inserts by hand", &insert),
        (Bar::AtLeast(2.5), None, "one file a key with fsync, 64 callers", &files),
    ] {
        bench.row(&Row { path, against, bar, stretch, unit: Unit::Rate, ours: &together, reference });
    }
    ["crowd-put", "crowd-put-cells", "crowd-put-files"].into_iter().try_for_each(|name| bench.discard(name))
}

pub(crate) fn delete(bench: &mut Bench) -> Result<(), BoxError> {
    let runtime = &bench.runtime;
    let (together, alone) = bench.options.size((64 * CALLERS, 250), (4 * CALLERS, 25));
    let store = filled_store(bench, &bench.directory("crowd-delete")?, INITIAL_KEYS)?;

    let order = users::shuffled(INITIAL_KEYS);
    let mut batches = order.chunks_exact(together).cycle();
    let mut delete_together = || {
        let users = batches.next().ok_or("there is no batch")?;
        let cost = time(users.len(), || runtime.block_on(delete_all(&store, CALLERS, users.iter().copied())))?;
        runtime.block_on(put_back(&store, users))?;
        Ok(cost)
    };
    let mut batches = order.chunks_exact(alone).cycle();
    let mut delete_alone = || {
        let users = batches.next().ok_or("there is no batch")?;
        let cost = time(users.len(), || runtime.block_on(delete_each(&store, users.iter().copied())))?;
        runtime.block_on(put_back(&store, users))?;
        Ok(cost)
    };
    let rounds = bench.options.size(15, 3);
    let [together, alone] = take_turns(rounds, [&mut delete_together, &mut delete_alone])?;

    bench.row(&Row {
        path: "file: durable delete_key with scrub, 64 callers",
        against: "one caller",
        bar: Bar::AtLeast(3.5),
        stretch: None,
        unit: Unit::Rate,
        ours: &together,
        reference: &alone,
    });
    bench.discard("crowd-delete")
}

/// Stores the keys of some users with `callers` concurrent callers.
pub(crate) async fn put_all(
    store: &FileStore,
    callers: usize,
    users: impl IntoIterator<Item = usize>,
) -> Result<(), BoxError> {
    let mut running = JoinSet::new();
    for share in shares(users, callers) {
        let store = store.clone();
        running.spawn(async move { put_each(&store, share).await });
    }
    all_done(running).await
}

/// Stores deleted keys again and empties the log, so that each round begins with the same store.
pub(crate) async fn put_back(store: &FileStore, users: &[usize]) -> Result<(), BoxError> {
    put_all(store, CALLERS, users.iter().copied()).await?;
    store.scrub().await?;
    Ok(())
}

/// Deletes the keys of some users with `callers` concurrent callers.
pub(crate) async fn delete_all(
    store: &FileStore,
    callers: usize,
    users: impl IntoIterator<Item = usize>,
) -> Result<(), BoxError> {
    let mut running = JoinSet::new();
    for share in shares(users, callers) {
        let store = store.clone();
        running.spawn(async move { delete_each(&store, share).await });
    }
    all_done(running).await
}

fn shares(users: impl IntoIterator<Item = usize>, callers: usize) -> Vec<Vec<usize>> {
    let users: Vec<usize> = users.into_iter().collect();
    users.chunks(users.len().div_ceil(callers).max(1)).map(<[usize]>::to_vec).collect()
}

async fn all_done(mut running: JoinSet<Result<(), BoxError>>) -> Result<(), BoxError> {
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}

/// A source of users that have no key yet.
struct NewUsers(Cell<usize>);

impl NewUsers {
    fn after(users: usize) -> Self {
        Self(Cell::new(users))
    }

    fn take(&self, count: usize) -> Range<usize> {
        let first = self.0.get();
        self.0.set(first + count);
        first..first + count
    }
}
