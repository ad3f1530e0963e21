//! The file store with 1,000 keys in one call, compared with 1,000 calls.

use std::hint::black_box;

use keystead_benches::measure::{take_turns, time};
use keystead_benches::table::{Bar, Row, Unit};
use keystead_benches::users;
use keystead_core::{BoxError, KeyId, KeyStore};

use crate::bench::Bench;
use crate::crowd::{delete_all, put_back};
use crate::file::{INITIAL_KEYS, filled_store};

/// The number of keys in a call.
const BATCH: usize = 1_000;

pub(crate) fn get(bench: &mut Bench) -> Result<(), BoxError> {
    let runtime = &bench.runtime;
    let store = filled_store(bench, &bench.directory("batch-get")?, INITIAL_KEYS)?;
    let ids: Vec<KeyId> = users::shuffled(INITIAL_KEYS).into_iter().map(users::id).collect();

    let mut batches = ids.chunks_exact(BATCH).cycle();
    let mut get_together = || {
        let batch = batches.next().ok_or("there is no batch")?;
        let gets = async {
            for key in store.get_keys(batch).await {
                black_box(key?);
            }
            Ok(())
        };
        time(BATCH, || runtime.block_on(gets))
    };
    let mut batches = ids.chunks_exact(BATCH).cycle();
    let mut get_each = || {
        let batch = batches.next().ok_or("there is no batch")?;
        let gets = async {
            for id in batch {
                black_box(store.get_key(id).await?);
            }
            Ok(())
        };
        time(BATCH, || runtime.block_on(gets))
    };
    let rounds = bench.options.size(101, 3);
    let [together, each] = take_turns(rounds, [&mut get_together, &mut get_each])?;

    bench.row(&Row {
        path: "file: get_keys of 1000, a key",
        against: "1000 calls of get_key",
        bar: Bar::Shown,
        stretch: None,
        unit: Unit::Time,
        ours: &together,
        reference: &each,
    });
    bench.discard("batch-get")
}

pub(crate) fn delete(bench: &mut Bench) -> Result<(), BoxError> {
    let runtime = &bench.runtime;
    let store = filled_store(bench, &bench.directory("batch-delete")?, INITIAL_KEYS)?;

    let order = users::shuffled(INITIAL_KEYS);
    let mut batches = order.chunks_exact(BATCH).cycle();
    let mut delete_together = || {
        let batch = batches.next().ok_or("there is no batch")?;
        let deletes = async {
            let ids: Vec<KeyId> = batch.iter().copied().map(users::id).collect();
            for deletion in store.delete_keys(&ids).await {
                black_box(deletion?);
            }
            Ok(())
        };
        let cost = time(BATCH, || runtime.block_on(deletes))?;
        runtime.block_on(put_back(&store, batch))?;
        Ok(cost)
    };
    let mut batches = order.chunks_exact(BATCH).cycle();
    let mut delete_at_once = || {
        let batch = batches.next().ok_or("there is no batch")?;
        let cost = time(BATCH, || runtime.block_on(delete_all(&store, BATCH, batch.iter().copied())))?;
        runtime.block_on(put_back(&store, batch))?;
        Ok(cost)
    };
    let rounds = bench.options.size(41, 3);
    let [together, at_once] = take_turns(rounds, [&mut delete_together, &mut delete_at_once])?;

    bench.row(&Row {
        path: "file: delete_keys of 1000, a key",
        against: "1000 concurrent calls of delete_key",
        bar: Bar::AtMost(1.2),
        stretch: None,
        unit: Unit::Time,
        ours: &together,
        reference: &at_once,
    });
    bench.discard("batch-delete")
}
