//! The file store with one caller: get, put, and the operations that scrub (delete and overwrite).

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use keystead_benches::measure::{Samples, Workload, take_turns, time};
use keystead_benches::table::{Bar, Row, Unit};
use keystead_benches::users;
use keystead_core::{BoxError, ErrorKind, KeyId, KeyStore, KeyStoreExt};
use keystead_file::{FileStore, RootSecret};
use object_store::local::LocalFileSystem;
use object_store::{ObjectStoreExt, path};
use opendal::Operator;

use crate::bench::Bench;
use crate::crowd;
use crate::peers::{ByHand, Log};

/// The number of keys that a store holds before a benchmark begins.
pub(crate) const INITIAL_KEYS: usize = 10_000;

/// The root secret of all stores of a benchmark.
pub(crate) fn root() -> RootSecret {
    RootSecret::from_bytes([7; 32])
}

/// Returns the path of the store in a directory.
pub(crate) fn store_in(directory: &Path) -> PathBuf {
    directory.join("keys.db")
}

/// Creates a store with the keys of the first `users` users.
pub(crate) fn filled_store(bench: &Bench, directory: &Path, users: usize) -> Result<FileStore, BoxError> {
    bench.runtime.block_on(async {
        let store = FileStore::create(store_in(directory), root()).await?;
        crowd::put_all(&store, 256, 0..users).await?;
        store.scrub().await?;
        Ok(store)
    })
}

pub(crate) fn get(bench: &mut Bench) -> Result<(), BoxError> {
    let runtime = &bench.runtime;
    let users = bench.options.size(100_000, 5_000);
    let ids: Vec<KeyId> = (0..users).map(users::id).collect();
    let absent: Vec<KeyId> = (users..2 * users).map(users::id).collect();
    let names: Vec<String> = (0..users).map(users::name).collect();
    let paths: Vec<path::Path> = names.iter().map(|name| path::Path::from(name.as_str())).collect();

    let directory = bench.directory("get")?;
    let ours = filled_store(bench, &directory, users)?;
    let by_hand = ByHand::open(&store_in(&directory), &root())?;
    let mut select = by_hand.select()?;

    let plain = bench.directory("get-plain")?;
    let encrypted = bench.directory("get-age")?;
    let identity = age::x25519::Identity::generate();
    for (user, name) in names.iter().enumerate() {
        let key = users::key_bytes(user);
        fs::write(plain.join(name), key)?;
        fs::write(encrypted.join(name), age::encrypt(&identity.to_public(), &key)?)?;
    }
    let object_store = LocalFileSystem::new_with_prefix(&plain)?;
    let opendal = Operator::new(opendal::services::Fs::default().root(&plain.to_string_lossy()))?;

    let accesses = users::random_accesses(users, bench.options.size(20_000, 2_000));
    let few = &accesses[..accesses.len() / 10];
    let mut get_ours = || {
        let gets = async {
            for user in &accesses {
                black_box(ours.get_key(&ids[*user]).await?);
            }
            Ok(())
        };
        time(accesses.len(), || runtime.block_on(gets))
    };
    let mut get_by_hand = || {
        time(accesses.len(), || {
            for user in &accesses {
                black_box(by_hand.get(&mut select, &ids[*user])?);
            }
            Ok(())
        })
    };
    let mut get_absent = || {
        let gets = async {
            for user in &accesses {
                match ours.get_key(&absent[*user]).await {
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    Err(e) => return Err(e.into()),
                    Ok(_) => return Err("a key that was never stored".into()),
                }
            }
            Ok(())
        };
        time(accesses.len(), || runtime.block_on(gets))
    };
    let mut select_absent = by_hand.select()?;
    let mut miss_by_hand = || {
        time(accesses.len(), || {
            for user in &accesses {
                black_box(by_hand.find(&mut select_absent, &absent[*user])?);
            }
            Ok(())
        })
    };
    let mut get_object = || {
        let gets = async {
            for user in few {
                black_box(object_store.get(&paths[*user]).await?.bytes().await?);
            }
            Ok(())
        };
        time(few.len(), || runtime.block_on(gets))
    };
    let mut read_opendal = || {
        let reads = async {
            for user in few {
                black_box(opendal.read(&names[*user]).await?);
            }
            Ok(())
        };
        time(few.len(), || runtime.block_on(reads))
    };
    let mut decrypt_age = || {
        time(few.len(), || {
            for user in few {
                black_box(age::decrypt(&identity, &fs::read(encrypted.join(&names[*user]))?)?);
            }
            Ok(())
        })
    };
    let workloads: [Workload<'_>; 7] = [
        &mut get_ours,
        &mut get_by_hand,
        &mut get_absent,
        &mut miss_by_hand,
        &mut get_object,
        &mut read_opendal,
        &mut decrypt_age,
    ];
    let samples = take_turns(bench.options.size(15, 3), workloads)?;
    let [ours, by_hand, absent, missed_by_hand, object_store, opendal, age] = samples;

    let path = format!("file: get_key, {users} keys");
    for (bar, against, reference) in [
        (Bar::AtMost(1.25), "SELECT + HMAC + open by hand", &by_hand),
        (Bar::AtLeast(8.0), "object_store LocalFileSystem", &object_store),
        (Bar::AtLeast(8.0), "age: read + decrypt (x25519)", &age),
        (Bar::AtLeast(8.0), "opendal Fs", &opendal),
    ] {
        bench.row(&Row { path: &path, against, bar, stretch: None, unit: Unit::Time, ours: &ours, reference });
    }
    let path = format!("file: get_key of an absent id, {users} keys");
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
    let store = filled_store(bench, &bench.directory("put")?, INITIAL_KEYS)?;
    let mut log = Log::create(&bench.directory("put-log")?)?;
    let objects = bench.directory("put-object-store")?;
    let object_store = LocalFileSystem::new_with_prefix(objects)?.with_fsync(true);

    // A round has many puts, so that each round contains its share of truncations of the log.
    let count = bench.options.size(1_000, 50);
    let mut next = INITIAL_KEYS;
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
            for user in new {
                let key = users::key_bytes(user).to_vec();
                object_store.put(&path::Path::from(users::name(user)), key.into()).await?;
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
    let store = filled_store(bench, &bench.directory("scrub")?, INITIAL_KEYS)?;
    let mut log = Log::create(&bench.directory("scrub-log")?)?;
    let order = users::shuffled(INITIAL_KEYS);

    let count = bench.options.size(250, 25);
    let mut batches = order.chunks_exact(count).cycle();
    let mut delete = || {
        let deleted = batches.next().ok_or("there is no batch")?;
        let cost = time(count, || runtime.block_on(delete_each(&store, deleted.iter().copied())))?;
        // The keys are put back, so that the store keeps its size.
        runtime.block_on(async {
            crowd::put_all(&store, 64, deleted.iter().copied()).await?;
            store.scrub().await?;
            Ok::<_, BoxError>(cost)
        })
    };
    let mut reversed = order.chunks_exact(count).rev().cycle();
    let mut overwrite = || {
        let users = reversed.next().ok_or("there is no batch")?;
        time(count, || runtime.block_on(put_each(&store, users.iter().copied())))
    };
    let mut append = || time(count, || (0..count).try_for_each(|_| log.append()));
    let rounds = bench.options.size(15, 3);
    let [delete, overwrite, append] = take_turns(rounds, [&mut delete, &mut overwrite, &mut append])?;

    let mut row = |path, ours: &Samples| {
        let against = "append + fdatasync";
        let bar = Bar::AtMost(4.0);
        let stretch = Some(3.0);
        bench.row(&Row { path, against, bar, stretch, unit: Unit::Time, ours, reference: &append });
    };
    row("file: durable delete_key with scrub, one caller", &delete);
    row("file: durable overwrite with scrub, one caller", &overwrite);
    ["scrub", "scrub-log"].into_iter().try_for_each(|name| bench.discard(name))
}

/// Stores the keys of some users, one after the other.
pub(crate) async fn put_each(store: &FileStore, users: impl IntoIterator<Item = usize>) -> Result<(), BoxError> {
    for user in users {
        store.put_key(&users::id(user), &users::key(user)).await?;
    }
    Ok(())
}

/// Deletes the keys of some users, one after the other.
pub(crate) async fn delete_each(store: &FileStore, users: impl IntoIterator<Item = usize>) -> Result<(), BoxError> {
    for user in users {
        store.delete_key(&users::id(user)).await?;
    }
    Ok(())
}
