//! The memory store: a get against a plain map and other in-memory stores, and two threads against
//! one.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use foldhash::fast::RandomState;
use keystead_benches::measure::{Cost, take_turns, time};
use keystead_benches::people;
use keystead_benches::table::{Bar, Row, Unit};
use keystead_core::{BoxError, KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_memory::MemoryStore;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, path};
use opendal::Operator;

use crate::bench::{Bench, on_threads};

const PEOPLE: usize = 10_000;

pub(crate) fn get(bench: &mut Bench) -> Result<(), BoxError> {
    let runtime = &bench.runtime;
    let (ids, keys) = ids_and_keys();
    let names: Vec<String> = (0..PEOPLE).map(people::name).collect();
    let paths: Vec<path::Path> = names.iter().map(|name| path::Path::from(name.as_str())).collect();

    let ours = filled_store(bench, &ids, &keys)?;
    let map: HashMap<KeyId, SecretKey, RandomState> = ids.iter().cloned().zip(keys.iter().cloned()).collect();
    let (object_store, opendal) = (InMemory::new(), Operator::new(opendal::services::Memory::default())?);
    runtime.block_on(async {
        for person in 0..PEOPLE {
            let key = people::key_bytes(person).to_vec();
            object_store.put(&paths[person], key.clone().into()).await?;
            opendal.write(&names[person], key).await?;
        }
        Ok::<_, BoxError>(())
    })?;

    let visits = people::visits(PEOPLE, bench.options.size(200_000, 20_000));
    let mut get_ours = || {
        let gets = async {
            for person in &visits {
                black_box(ours.get_key(&ids[*person]).await?);
            }
            Ok(())
        };
        time(visits.len(), || runtime.block_on(gets))
    };
    let mut borrow = || {
        time(visits.len(), || {
            for person in &visits {
                black_box(map.get(&ids[*person]));
            }
            Ok(())
        })
    };
    let mut get_object = || {
        let gets = async {
            for person in &visits {
                black_box(object_store.get(&paths[*person]).await?.bytes().await?);
            }
            Ok(())
        };
        time(visits.len(), || runtime.block_on(gets))
    };
    let mut read_opendal = || {
        let reads = async {
            for person in &visits {
                black_box(opendal.read(&names[*person]).await?);
            }
            Ok(())
        };
        time(visits.len(), || runtime.block_on(reads))
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
    let visits = people::visits(PEOPLE, bench.options.size(500_000, 20_000));

    let load = |threads| {
        let took = on_threads(threads, |thread| {
            bench.runtime.handle().block_on(async {
                for (visit, person) in visits.iter().enumerate() {
                    // Each thread goes among other people than the others do at the time.
                    let person = (person + thread * PEOPLE / 2) % PEOPLE;
                    if visit % 20 == 0 {
                        store.put_key(&ids[person], &keys[person]).await?;
                    } else {
                        black_box(store.get_key(&ids[person]).await?);
                    }
                }
                Ok(())
            })
        })?;
        Ok(Cost::of(took, threads * visits.len()))
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
    ((0..PEOPLE).map(people::id).collect(), (0..PEOPLE).map(people::key).collect())
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
