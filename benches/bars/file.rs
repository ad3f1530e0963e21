//! The file store with one caller: get, put, and what scrubs (delete and overwrite).

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use keystead_benches::measure::{Samples, take_turns, time};
use keystead_benches::people;
use keystead_benches::table::{Bar, Row, Unit};
use keystead_core::{BoxError, ErrorKind, KeyId, KeyStore, KeyStoreExt};
use keystead_file::{FileStore, RootSecret};
use object_store::local::LocalFileSystem;
use object_store::{ObjectStoreExt, path};
use opendal::Operator;

use crate::bench::Bench;
use crate::crowd;
use crate::peers::{ByHand, Log};

/// The number of keys that a store holds before a benchmark begins.
pub(crate) const HELD: usize = 10_000;

/// The root secret of all stores of a benchmark.
pub(crate) fn root() -> RootSecret {
    RootSecret::from_bytes([7; 32])
}

/// Returns the path of the store in a directory.
pub(crate) fn store_in(directory: &Path) -> PathBuf {
    directory.join("keys.db")
}

/// A new store that holds the keys of the first `people` people.
pub(crate) fn filled_store(bench: &Bench, directory: &Path, people: usize) -> Result<FileStore, BoxError> {
    bench.runtime.block_on(async {
        let store = FileStore::create(store_in(directory), root()).await?;
        crowd::put_all(&store, 256, 0..people).await?;
        store.scrub().await?;
        Ok(store)
    })
}

pub(crate) fn get(bench: &mut Bench) -> Result<(), BoxError> {
    let runtime = &bench.runtime;
    let people = bench.options.size(100_000, 5_000);
    let ids: Vec<KeyId> = (0..people).map(people::id).collect();
    let absent: Vec<KeyId> = (people..2 * people).map(people::id).collect();
    let names: Vec<String> = (0..people).map(people::name).collect();
    let paths: Vec<path::Path> = names.iter().map(|name| path::Path::from(name.as_str())).collect();

    let directory = bench.directory("get")?;
    let ours = filled_store(bench, &directory, people)?;
    let by_hand = ByHand::open(&store_in(&directory), &root())?;
    let mut select = by_hand.select()?;

    let plain = bench.directory("get-plain")?;
    let encrypted = bench.directory("get-age")?;
    let identity = age::x25519::Identity::generate();
    for (person, name) in names.iter().enumerate() {
        let key = people::key_bytes(person);
        fs::write(plain.join(name), key)?;
        fs::write(encrypted.join(name), age::encrypt(&identity.to_public(), &key)?)?;
    }
    let object_store = LocalFileSystem::new_with_prefix(&plain)?;
    let opendal = Operator::new(opendal::services::Fs::default().root(&plain.to_string_lossy()))?;

    let visits = people::visits(people, bench.options.size(20_000, 2_000));
    let few = &visits[..visits.len() / 10];
    let mut get_ours = || {
        let gets = async {
            for person in &visits {
                black_box(ours.get_key(&ids[*person]).await?);
            }
            Ok(())
        };
        time(visits.len(), || runtime.block_on(gets))
    };
    let mut get_by_hand = || {
        time(visits.len(), || {
            for person in &visits {
                black_box(by_hand.get(&mut select, &ids[*person])?);
            }
            Ok(())
        })
    };
    let mut get_absent = || {
        let gets = async {
            for person in &visits {
                match ours.get_key(&absent[*person]).await {
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    Err(e) => return Err(e.into()),
                    Ok(_) => return Err("a key that was never stored".into()),
                }
            }
            Ok(())
        };
        time(visits.len(), || runtime.block_on(gets))
    };
    let mut select_absent = by_hand.select()?;
    let mut miss_by_hand = || {
        time(visits.len(), || {
            for person in &visits {
                black_box(by_hand.find(&mut select_absent, &absent[*person])?);
            }
            Ok(())
        })
    };
    let mut get_object = || {
        let gets = async {
            for person in few {
                black_box(object_store.get(&paths[*person]).await?.bytes().await?);
            }
            Ok(())
        };
        time(few.len(), || runtime.block_on(gets))
    };
    let mut read_opendal = || {
        let reads = async {
            for person in few {
                black_box(opendal.read(&names[*person]).await?);
            }
            Ok(())
        };
        time(few.len(), || runtime.block_on(reads))
    };
    let mut decrypt_age = || {
        time(few.len(), || {
            for person in few {
                black_box(age::decrypt(&identity, &fs::read(encrypted.join(&names[*person]))?)?);
            }
            Ok(())
        })
    };
    let sides: [&mut dyn FnMut() -> _; 7] = [
        &mut get_ours,
        &mut get_by_hand,
        &mut get_absent,
        &mut miss_by_hand,
        &mut get_object,
        &mut read_opendal,
        &mut decrypt_age,
    ];
    let samples = take_turns(bench.options.size(15, 3), sides)?;
    let [ours, by_hand, absent, missed_by_hand, object_store, opendal, age] = samples;

    let path = format!("file: get_key, {people} keys");
    for (bar, against, reference) in [
        (Bar::AtMost(1.25), "SELECT + HMAC + open by hand", &by_hand),
        (Bar::AtLeast(8.0), "object_store LocalFileSystem", &object_store),
        (Bar::AtLeast(8.0), "age: read + decrypt (x25519)", &age),
        (Bar::AtLeast(8.0), "opendal Fs", &opendal),
    ] {
        bench.row(&Row { path: &path, against, bar, stretch: None, unit: Unit::Time, ours: &ours, reference });
    }
    let path = format!("file: get_key of an absent id, {people} keys");
    for (bar, against, reference) in [
        (Bar::AtMost(1.3), "a present one", &ours),
        (Bar::Shown, "SELECT + HMAC by hand, which proves nothing", &missed_by_hand),
    ] {
        bench.row(&Row { path: &path, against, bar, stretch: None, unit: Unit::Time, ours: &absent, reference });
    }
    ["get", "get-plain", "get-age"].into_iter().try_for_each(|name| bench.discard(name))
}

pub(crate) fn put(bench: &mut Bench) -> Result<(), BoxError> {
    let runtime = &bench.runtime;
    let store = filled_store(bench, &bench.directory("put")?, HELD)?;
    let mut log = Log::create(&bench.directory("put-log")?)?;
    let objects = bench.directory("put-object-store")?;
    let object_store = LocalFileSystem::new_with_prefix(objects)?.with_fsync(true);

    // Many in a round, so that each round has its share of the log's truncations.
    let count = bench.options.size(1_000, 50);
    let mut next = HELD;
    let mut put_ours = || {
        let new = next..next + count;
        next += count;
        time(count, || runtime.block_on(put_each(&store, new)))
    };
    let mut append = || time(count, || (0..count).try_for_each(|_| log.append()));
    let mut next_object = 0;
    let mut put_object = || {
        let new = next_object..next_object + count;
        next_object += count;
        let puts = async {
            for person in new {
                let key = people::key_bytes(person).to_vec();
                object_store.put(&path::Path::from(people::name(person)), key.into()).await?;
            }
            Ok(())
        };
        time(count, || runtime.block_on(puts))
    };
    let rounds = bench.options.size(15, 3);
    let [ours, append, object_store] = take_turns(rounds, [&mut put_ours, &mut append, &mut put_object])?;

    let path = "file: durable put_key of a new key, one caller";
    for (bar, stretch, against, reference) in [
        (Bar::AtMost(2.0), Some(1.2), "append + fdatasync", &append),
        (Bar::AtLeast(1.0), None, "object_store LocalFileSystem with fsync", &object_store),
    ] {
        bench.row(&Row { path, against, bar, stretch, unit: Unit::Time, ours: &ours, reference });
    }
    ["put", "put-log", "put-object-store"].into_iter().try_for_each(|name| bench.discard(name))
}

pub(crate) fn scrub(bench: &mut Bench) -> Result<(), BoxError> {
    let runtime = &bench.runtime;
    let store = filled_store(bench, &bench.directory("scrub")?, HELD)?;
    let mut log = Log::create(&bench.directory("scrub-log")?)?;
    let order = people::shuffled(HELD);

    let count = bench.options.size(250, 25);
    let mut turns = order.chunks_exact(count).cycle();
    let mut delete = || {
        let leaving = turns.next().ok_or("there is nobody")?;
        let cost = time(count, || runtime.block_on(delete_each(&store, leaving.iter().copied())))?;
        // They come back, so that the store keeps its size.
        runtime.block_on(async {
            crowd::put_all(&store, 64, leaving.iter().copied()).await?;
            store.scrub().await?;
            Ok::<_, BoxError>(cost)
        })
    };
    let mut others = order.chunks_exact(count).rev().cycle();
    let mut overwrite = || {
        let people = others.next().ok_or("there is nobody")?;
        time(count, || runtime.block_on(put_each(&store, people.iter().copied())))
    };
    let mut append = || time(count, || (0..count).try_for_each(|_| log.append()));
    let rounds = bench.options.size(15, 3);
    let [delete, overwrite, append] = take_turns(rounds, [&mut delete, &mut overwrite, &mut append])?;

    let mut row = |path, ours: &Samples| {
        let (against, bar, stretch) = ("append + fdatasync", Bar::AtMost(4.0), Some(3.0));
        bench.row(&Row { path, against, bar, stretch, unit: Unit::Time, ours, reference: &append });
    };
    row("file: durable delete_key with scrub, one caller", &delete);
    row("file: durable overwrite with scrub, one caller", &overwrite);
    ["scrub", "scrub-log"].into_iter().try_for_each(|name| bench.discard(name))
}

/// One caller stores the keys of some people.
pub(crate) async fn put_each(store: &FileStore, people: impl IntoIterator<Item = usize>) -> Result<(), BoxError> {
    for person in people {
        store.put_key(&people::id(person), &people::key(person)).await?;
    }
    Ok(())
}

/// One caller deletes the keys of some people.
pub(crate) async fn delete_each(store: &FileStore, people: impl IntoIterator<Item = usize>) -> Result<(), BoxError> {
    for person in people {
        store.delete_key(&people::id(person)).await?;
    }
    Ok(())
}
