//! Cases about calls with many keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keystead_core::{ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, SecretKey};

use crate::case::case_list;
use crate::context::{Context, Outcome, Store, ensure, fail, ok, same};
use crate::sample;

case_list! {
    "batch.get_order_and_duplicates":
        "get_keys gives one outcome per id, in the order of the ids, even if ids are missing or repeated"
        => get_order_and_duplicates;
    "batch.delete_partial":
        "delete_keys deletes the keys that exist, reports those that do not, gives a repeated id the same \
         outcome each time, and touches no other id"
        => delete_partial;
    "batch.create_refuses_existing":
        "create_keys creates the missing keys, refuses those that exist, and creates one of several keys for \
         one id"
        => create_refuses_existing;
}

/// Stores `count` keys and waits until two clients read them.
async fn stored(cx: &Context, count: usize) -> Outcome<Vec<(KeyId, SecretKey)>> {
    // Each of another length, so that a key in the place of another is noticed.
    let entries: Vec<_> =
        sample::ids(count).into_iter().enumerate().map(|(n, id)| (id, sample::random_key(20 + n))).collect();
    for (id, key) in &entries {
        ok("put_key", cx.store.put_key(id, key).await)?;
    }
    let other = cx.reopen().await?;
    for (id, key) in &entries {
        cx.expect_key(&cx.store, id, key).await?;
        cx.expect_key(&other, id, key).await?;
    }
    Ok(entries)
}

async fn get_order_and_duplicates(cx: Context) -> Outcome {
    let entries = stored(&cx, cx.size(101, 24)).await?;
    let missing = sample::id("nobody");
    for len in [0, 1, 9, 10, 11, 20, 21, 101] {
        // Each id once, backwards; every third id missing; each id twice, far apart and side by side.
        let once = (0..len).map(|n| entries.get(entries.len().wrapping_sub(1 + n)));
        let holes = (0..len).map(|n| entries.get(n * 7 % entries.len()).filter(|_| n % 3 != 1));
        let twice = (0..len).map(|n| entries.get(n % len.div_ceil(2) % entries.len()));
        let pairs = (0..len).map(|n| entries.get(n / 2 % entries.len()));
        for wanted in [once.collect::<Vec<_>>(), holes.collect(), twice.collect(), pairs.collect()] {
            let ids: Vec<KeyId> = wanted.iter().map(|entry| entry.map_or(&missing, |(id, _)| id).clone()).collect();
            let call = format!("get_keys of {len} ids");
            cx.eventually(|| async {
                let answers = cx.store.get_keys(&ids).await;
                let count = answers.len();
                ensure(count == len, call.as_str(), "one outcome per id", format!("{count} outcomes"))?;
                for (position, (answer, entry)) in answers.into_iter().zip(&wanted).enumerate() {
                    let call = format!("{call}, outcome {position}");
                    match entry {
                        Some((_, key)) => same(&call, answer, key)?,
                        None => cx.expect_error(&call, answer, ErrorKind::NotFound, Operation::Get)?,
                    }
                }
                Ok(())
            })
            .await?;
        }
    }
    duplicates_share_one_outcome(&cx).await
}

/// Checks that all outcomes of a repeated id are the same, even while the id is overwritten.
async fn duplicates_share_one_outcome(cx: &Context) -> Outcome {
    let id = sample::id("overwritten");
    ok("put_key", cx.store.put_key(&id, &sample::random_key(32)).await)?;
    cx.bound_over().await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let store = cx.store.clone();
        let id = id.clone();
        let stop = stop.clone();
        async move {
            while !stop.load(Ordering::SeqCst) {
                ok("put_key during get_keys", store.put_key(&id, &sample::random_key(32)).await)?;
                tokio::task::yield_now().await;
            }
            Ok(())
        }
    });
    let mut shared = Ok(());
    for _ in 0..cx.size(100, 5) {
        let answers = cx.store.get_keys(&vec![id.clone(); 20]).await;
        let keys: Vec<&SecretKey> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
        let one = keys.len() == 20 && keys.windows(2).all(|pair| pair[0] == pair[1]);
        let call = "get_keys of one id, repeated 20 times, during writes";
        shared = shared.and(ensure(one, call, "20 times the same key", "different outcomes"));
    }
    stop.store(true, Ordering::SeqCst);
    let written = writer.await.unwrap_or_else(|_| fail("put_key during get_keys", "an answer", "a panic in the store"));
    shared.and(written)
}

async fn delete_partial(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    let entries = stored(&cx, cx.size(260, 40).max(8)).await?;
    let none = cx.store.delete_keys(&[]).await.len();
    ensure(none == 0, "delete_keys of no ids", "no outcomes", format!("{none} outcomes"))?;
    for (id, key) in entries.iter().take(3) {
        cx.expect_key(&cx.store, id, key).await?;
    }
    // More than any engine takes in one call; some deleted by another client, and one by itself.
    let (doomed, kept) = entries.split_at(entries.len() * 5 / 6);
    let (single, doomed) = doomed.split_at(1);
    let (others, own) = doomed.split_at(doomed.len() / 5);
    for (id, _) in own.iter().take(5) {
        // An older value must not come back.
        ok("put_key", cx.store.put_key(id, &sample::random_key(32)).await)?;
    }
    for (deleter, doomed) in [(&handles[0], own), (&handles[1], others), (&handles[1], single)] {
        delete_with_holes(&cx, deleter, doomed).await?;
        for store in &handles {
            for (id, _) in doomed {
                cx.expect_absent(store, id).await?;
            }
        }
    }
    for (id, key) in kept {
        cx.expect_key(&handles[0], id, key).await?;
        cx.expect_key(&handles[1], id, key).await?;
    }
    let missing = [sample::id("nobody"), sample::id("no one")];
    let answers = cx.store.delete_keys(&missing).await;
    let count = answers.len();
    ensure(count == 2, "delete_keys of two missing ids", "two outcomes", format!("{count} outcomes"))?;
    for answer in answers {
        cx.expect_error("delete_keys of a missing id", answer, ErrorKind::NotFound, Operation::Delete)?;
    }
    let none = cx.store.delete_keys(&[]).await;
    ensure(none.is_empty(), "delete_keys of no ids", "no outcomes", format!("{} outcomes", none.len()))
}

/// Deletes these ids. If there are several, a missing id is among them and one id is repeated.
async fn delete_with_holes(cx: &Context, store: &Store, doomed: &[(KeyId, SecretKey)]) -> Outcome {
    let missing = sample::id("nobody");
    let mut ids: Vec<KeyId> = doomed.iter().map(|(id, _)| id.clone()).collect();
    if let [first, _, ..] = doomed {
        ids.insert(1, missing.clone());
        ids.push(first.0.clone());
        ids.push(missing.clone());
    }
    let answers = store.delete_keys(&ids).await;
    let call = format!("delete_keys of {} ids", ids.len());
    ensure(answers.len() == ids.len(), call.as_str(), "one outcome per id", format!("{} outcomes", answers.len()))?;
    for (position, (answer, id)) in answers.into_iter().zip(&ids).enumerate() {
        let call = format!("{call}, outcome {position}");
        if *id == missing {
            cx.expect_error(&call, answer, ErrorKind::NotFound, Operation::Delete)?;
        } else {
            ok(&call, answer)?;
        }
    }
    Ok(())
}

async fn create_refuses_existing(cx: Context) -> Outcome {
    let none = cx.store.create_keys(&[]).await.len();
    ensure(none == 0, "create_keys of no keys", "no outcomes", format!("{none} outcomes"))?;
    let existing = stored(&cx, cx.size(40, 6)).await?;
    let missing = (0..cx.size(260, 20)).map(|n| (sample::id(format!("new-{n:05}")), sample::random_key(20 + n)));
    let missing: Vec<(KeyId, SecretKey)> = missing.collect();
    let twice: Vec<(KeyId, SecretKey)> =
        [64, 65].into_iter().map(|len| (sample::id("twice"), sample::random_key(len))).collect();
    // The existing ids are mixed with the missing ones, and the repeated id is at both ends.
    let mut keys = vec![twice[0].clone()];
    for (n, entry) in missing.iter().enumerate() {
        keys.push(entry.clone());
        if let Some((id, _)) = existing.get(n) {
            keys.push((id.clone(), sample::random_key(32)));
        }
    }
    keys.push(twice[1].clone());
    let answers = cx.store.create_keys(&keys).await;
    let call = format!("create_keys of {} keys", keys.len());
    ensure(answers.len() == keys.len(), call.as_str(), "one outcome per key", format!("{} outcomes", answers.len()))?;
    let mut created_twice = Vec::new();
    for (position, (answer, (id, key))) in answers.into_iter().zip(&keys).enumerate() {
        let call = format!("{call}, outcome {position}");
        if *id == twice[0].0 {
            match answer {
                Ok(()) => created_twice.push(key.clone()),
                refused => cx.expect_error(&call, refused, ErrorKind::AlreadyExists, Operation::Create)?,
            }
        } else if existing.iter().any(|(existing, _)| existing == id) {
            cx.expect_error(&call, answer, ErrorKind::AlreadyExists, Operation::Create)?;
        } else {
            ok(&call, answer)?;
        }
    }
    let [created] = created_twice.as_slice() else {
        return fail(&call, "Ok for one of two keys for one id", format!("Ok for {} of them", created_twice.len()));
    };
    let other = cx.reopen().await?;
    for store in [&cx.store, &other] {
        cx.expect_key(store, &twice[0].0, created).await?;
        for (id, key) in existing.iter().chain(&missing) {
            cx.expect_key(store, id, key).await?;
        }
    }
    Ok(())
}
