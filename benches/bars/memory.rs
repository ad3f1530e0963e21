//! The memory store: a get compared with a plain map and other stores in memory, and two threads
//! compared with one.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use foldhash::fast::RandomState;
use keystead_benches::measure::{Cost, take_turns, time};
use keystead_benches::table::{Bar, Row, Unit};
use keystead_benches::users;
use keystead_core::{BoxError, KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_memory::MemoryStore;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, path};
use opendal::Operator;

use crate::bench::{Bench, on_threads};

const USERS: usize = 10_000;

pub(crate) fn get(bench: &mut Bench) -> Result<(), BoxError> {
    let runtime = &bench.runtime;
    let (ids, keys) = ids_and_keys();
    let names: Vec<String> = (0..USERS).map(users::name).collect();
    let paths: Vec<path::Path> = names.iter().map(|name| path::Path::from(name.as_str())).collect();

    let ours = filled_store(bench, &ids, &keys)?;
    let map: HashMap<KeyId, SecretKey, RandomState> = ids.iter().cloned().zip(keys.iter().cloned()).collect();
    let object_store = InMemory::new();
    let opendal = Operator::new(opendal::services::Memory::default())?;
    runtime.block_on(async {
        for user in 0..USERS {
            let key = users::key_bytes(user).to_vec();
            object_store.put(&paths[user], key.clone().into()).await?;
            opendal.write(&names[user], key).await?;
        }
        Ok::<_, BoxError>(())
    })?;

    let accesses = users::random_accesses(USERS, bench.options.size(200_000, 20_000));
    let mut get_ours = || {
        let gets = async {
            for user in &accesses {
                black_box(ours.get_key(&ids[*user]).await?);
            }
            Ok(())
        };
        time(accesses.len(), || runtime.block_on(gets))
    };
    let mut borrow = || {
        time(accesses.len(), || {
            for user in &accesses {
                black_box(map.get(&ids[*user]));
            }
            Ok(())
        })
    };
    let mut get_object = || {
        let gets = async {
            for user in &accesses {
                black_box(object_store.get(&paths[*user]).await?.bytes().await?);
            }
            Ok(())
        };
        time(accesses.len(), || runtime.block_on(gets))
    };
    let mut read_opendal = || {
        let reads = async {
            for user in &accesses {
                black_box(opendal.read(&names[*user]).await?);
            }
            Ok(())
        };
        time(accesses.len(), || runtime.block_on(reads))
    };
    let rounds = bench.options.size(21, 3);
    let [ours, floor, object_store, opendal] =
        take_turns(rounds, [&mut get_ours, &mut borrow, &mut get_object, &mut read_opendal])?;

    let path = "memory: get_key through `Arc<dyn KeyStore>`";
    for (bar, against, reference) in [
        (Bar::AtMost(3.0), "a plain map's borrow", &floor),
        (Bar::AtLeast(8.0), "object_store InMemory", &object_store),
        (Bar::AtLeast(20.0), "opendal Memory", &opendal),
    ] {
        bench.row(&Row { path, against, bar, stretch: None, unit: Unit::Time, ours: &ours, reference });
    }
    Ok(())
}

pub(crate) fn two_threads(bench: &mut Bench) -> Result<(), BoxError> {
    let (ids, keys) = ids_and_keys();
    let store = filled_store(bench, &ids, &keys)?;
    let accesses = users::random_accesses(USERS, bench.options.size(500_000, 20_000));

    let load = |threads| {
        let took = on_threads(threads, |thread| {
            bench.runtime.handle().block_on(async {
                for (access, user) in accesses.iter().enumerate() {
                    // At any moment the threads use the keys of different users.
                    let user = (user + thread * USERS / 2) % USERS;
                    if access % 20 == 0 {
                        store.put_key(&ids[user], &keys[user]).await?;
                    } else {
                        black_box(store.get_key(&ids[user]).await?);
                    }
                }
                Ok(())
            })
        })?;
        Ok(Cost::of(took, threads * accesses.len()))
    };
    let [two, one] = take_turns(bench.options.size(21, 3), [&mut || load(2), &mut || load(1)])?;
    bench.row(&Row {
        path: "memory: two threads, 95/5 get/put",
        against: "one thread",
        bar: Bar::AtLeast(1.7),
        stretch: None,
        unit: Unit::Rate,
        ours: &two,
        reference: &one,
    });
    Ok(())
}

fn ids_and_keys() -> (Vec<KeyId>, Vec<SecretKey>) {
    ((0..USERS).map(users::id).collect(), (0..USERS).map(users::key).collect())
}

fn filled_store(bench: &Bench, ids: &[KeyId], keys: &[SecretKey]) -> Result<Arc<dyn KeyStore>, BoxError> {
    let store: Arc<dyn KeyStore> = Arc::new(MemoryStore::new());
    bench.runtime.block_on(async {
        for (id, key) in ids.iter().zip(keys) {
            store.put_key(id, key).await?;
        }
        Ok::<_, BoxError>(())
    })?;
    Ok(store)
}
