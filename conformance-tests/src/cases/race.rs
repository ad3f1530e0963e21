//! Cases about concurrent calls on real threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use keystead_core::{Consistency, Effect, Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, Result, SecretKey};

use crate::case::case_list;
use crate::context::{Context, Outcome, Store, ensure, fail, in_parallel, ok};
use crate::linearize::{self, Linearizability, RecordedCall, TimedCall};
use crate::sample;

case_list! {
    "race.create_one_winner":
        "of many concurrent creates of one id at most one succeeds, exactly one if all others fail with \
         AlreadyExists, and its key remains"
        => create_one_winner;
    "race.get_or_create_one_key":
        "all concurrent callers of get_or_create for one id get the same key, and that key is stored"
        => get_or_create_one_key;
    "race.no_torn_value":
        "while a key is overwritten again and again, every read gives a whole key"
        => no_torn_value;
    "race.delete_vs_get_or_create":
        "while a key is deleted and created, every caller gets a key that some caller brought, and the store \
         is left with a key that was returned, or with none"
        => delete_vs_get_or_create;
    "race.delete_at_least_one_ok":
        "of many concurrent deletes of one key at least one succeeds, the others find no key, and no key is \
         left"
        => delete_at_least_one_ok;
    "race.linearizable":
        "the calls of many clients on one id answer as if made one after another; on an eventual store, no \
         read gives a key that nobody wrote"
        => linearizable;
}

/// Reports whether a store may fail with this error because of concurrent calls.
fn is_contention(e: &Error) -> bool {
    e.is_retryable()
}

async fn create_one_winner(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    for round in 0..cx.size(20, 3) {
        let id = sample::id(format!("alice-{round}"));
        let keys: Vec<SecretKey> = (0..cx.size(32, 16).max(2)).map(|_| sample::random_key(32)).collect();
        let racers = keys.iter().enumerate().map(|(index, key)| {
            let store = handles[index % 2].clone();
            let id = id.clone();
            let key = key.clone();
            async move { store.create_key(&id, &key).await }
        });
        let answers = in_parallel("create_key in a race", racers).await?;
        let mut winners = Vec::new();
        let mut refused = 0;
        for (answer, key) in answers.iter().zip(&keys) {
            match answer {
                Ok(()) => winners.push(key),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => refused += 1,
                Err(e) if is_contention(e) => {}
                Err(_) => ok("create_key in a race", answer.clone())?,
            }
        }
        let expected = format!("one Ok of {} calls, or at most one if some failed with a retryable error", keys.len());
        let right = winners.len() == 1 || (winners.is_empty() && refused < keys.len());
        ensure(right, "create_key in a race", expected, format!("{} Ok, {refused} AlreadyExists", winners.len()))?;
        if let [winner] = winners[..] {
            cx.expect_key(&handles[0], &id, winner).await?;
            cx.expect_key(&handles[1], &id, winner).await?;
        }
    }
    Ok(())
}

async fn get_or_create_one_key(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    for round in 0..cx.size(10, 1) {
        // On one task, so that calls that yield between a read and a write always interleave.
        let id = sample::id(format!("bob-{round}"));
        let candidates = sample::random_keys(12);
        let racers = candidates.iter().enumerate().map(|(index, key)| handles[index % 2].get_or_create(&id, key));
        let answers = futures_util::future::join_all(racers).await;
        one_key_for_all(&cx, &handles, &id, answers).await?;
    }
    for round in 0..cx.size(10, 2) {
        let id = sample::id(format!("alice-{round}"));
        let racers = (0..cx.size(64, 16).max(2)).map(|index| {
            let store = handles[index % 2].clone();
            let id = id.clone();
            async move { store.get_or_create_key(&id).await }
        });
        one_key_for_all(&cx, &handles, &id, in_parallel("get_or_create_key in a race", racers).await?).await?;
    }
    Ok(())
}

/// Checks that all callers got the same key and that it is the stored one.
async fn one_key_for_all(cx: &Context, handles: &[Store], id: &KeyId, answers: Vec<Result<SecretKey>>) -> Outcome {
    let mut given: Option<SecretKey> = None;
    for answer in answers {
        match answer {
            Ok(key) => {
                let first = given.get_or_insert_with(|| key.clone());
                ensure(*first == key, "get_or_create in a race", "one key for all callers", "two keys")?;
            }
            Err(e) if is_contention(&e) => {}
            Err(e) => ok("get_or_create in a race", Err(e))?,
        }
    }
    let Some(key) = given else {
        return fail("get_or_create in a race", "a key for at least one caller", "an error for each");
    };
    for store in handles {
        cx.expect_key(store, id, &key).await?;
    }
    Ok(())
}

/// Returns a key that consists of one byte value, which determines its length. Half of these keys have
/// the same length, as keys usually do.
fn uniform(byte: u8) -> SecretKey {
    let len = if byte % 2 == 0 { 32 } else { 1 + usize::from(byte) * 12 };
    sample::key(vec![byte; len])
}

async fn no_torn_value(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    let id = sample::id("alice");
    ok("put_key", cx.store.put_key(&id, &uniform(0)).await)?;
    cx.expect_key(&cx.store, &id, &uniform(0)).await?;
    cx.bound_over().await;
    let rounds = cx.size(10_000, 300);
    let writers = 2;
    let readers = 2;
    let written = Arc::new(AtomicBool::new(false));
    let racer = |index: usize| {
        let store = handles[index % 2].clone();
        let id = id.clone();
        let written = written.clone();
        async move {
            if index < writers {
                let outcome = overwrite(&store, &id, rounds / writers).await;
                written.store(true, Ordering::SeqCst);
                return outcome;
            }
            while !written.load(Ordering::SeqCst) {
                whole(ok("get_key during overwrites", store.get_key(&id).await)?)?;
            }
            Ok(())
        }
    };
    in_parallel("put_key and get_key in a race", (0..writers + readers).map(racer)).await?.into_iter().collect()
}

/// Overwrites the key `rounds` times.
async fn overwrite(store: &Store, id: &KeyId, rounds: usize) -> Outcome {
    for round in 0..rounds {
        // Two keys of the same length, then two of very different lengths.
        let step = if round / 2 % 2 == 0 { 2 * round } else { 2 * round + 1 };
        let byte = u8::try_from(step * 101 % 256).unwrap_or_default();
        ok("put_key", store.put_key(id, &uniform(byte)).await)?;
    }
    Ok(())
}

/// Expects a key that was written, not a mixture.
fn whole(key: SecretKey) -> Outcome {
    let bytes = key.expose_secret();
    let is_whole = bytes.first().is_some_and(|byte| uniform(*byte) == key);
    let got = format!("{} bytes that were never one key", bytes.len());
    ensure(is_whole, "get_key during overwrites", "one of the keys that were written", got)
}

async fn delete_vs_get_or_create(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    for round in 0..cx.size(40, 3) {
        let id = sample::id(format!("alice-{round}"));
        let first = sample::random_key(32);
        ok("put_key", cx.store.put_key(&id, &first).await)?;
        cx.expect_key(&cx.store, &id, &first).await?;
        let candidates: Vec<SecretKey> = (0..12).map(|_| sample::random_key(32)).collect();
        let racers = candidates.iter().enumerate().map(|(index, candidate)| {
            let store = handles[index % 2].clone();
            let id = id.clone();
            let candidate = candidate.clone();
            async move {
                match index % 3 {
                    0 => store.delete_key(&id).await.map(|_| None),
                    _ => store.get_or_create(&id, &candidate).await.map(Some),
                }
            }
        });
        let call = "get_or_create while others delete";
        let mut given = vec![first];
        for answer in in_parallel(call, racers).await? {
            match answer {
                Ok(Some(key)) => given.push(key),
                Ok(None) => {}
                Err(e) if is_contention(&e) => {}
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PendingDeletion) => {}
                Err(e) => return ok(call, Err(e)),
            }
        }
        let known = |key: &SecretKey| *key == given[0] || candidates.contains(key);
        ensure(given.iter().all(known), call, "a key that some caller brought", "another key")?;
        cx.eventually(|| async {
            match cx.store.find_key(&id).await {
                Ok(Some(key)) => {
                    ensure(given.contains(&key), "get_key after the race", "a key that was returned", "another key")
                }
                Ok(None) => Ok(()),
                Err(e) if e.kind() == ErrorKind::PendingDeletion && cx.is_recoverable() => Ok(()),
                Err(e) => ok("get_key after the race", Err(e)),
            }
        })
        .await?;
    }
    Ok(())
}

async fn delete_at_least_one_ok(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    for round in 0..cx.size(20, 3) {
        let id = sample::id(format!("alice-{round}"));
        let key = sample::random_key(32);
        ok("put_key", cx.store.put_key(&id, &key).await)?;
        cx.expect_key(&handles[0], &id, &key).await?;
        cx.expect_key(&handles[1], &id, &key).await?;
        let racers = (0..16).map(|index| {
            let store = handles[index % 2].clone();
            let id = id.clone();
            async move { store.delete_key(&id).await }
        });
        let mut deleted = 0;
        for answer in in_parallel("delete_key, 16 times at once", racers).await? {
            match answer {
                Ok(_) => deleted += 1,
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PendingDeletion) => {}
                Err(e) if is_contention(&e) => {}
                Err(e) => ok("delete_key in a race", Err(e))?,
            }
        }
        ensure(deleted > 0, "delete_key, 16 times at once", "at least one Ok", "no Ok")?;
        let strong = cx.capabilities.consistency == Consistency::Strong;
        ensure(
            !strong || deleted == 1,
            "delete_key, 16 times at once",
            "one Ok on a strong store",
            format!("{deleted} Ok"),
        )?;
        cx.expect_absent(&handles[0], &id).await?;
        cx.expect_absent(&handles[1], &id).await?;
    }
    Ok(())
}

/// The number of clients of a recorded history.
const CLIENTS: usize = 8;

/// The largest number of calls that a failure shows of a history, counted from its end.
const SHOWN: usize = 24;

async fn linearizable(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    for round in 0..cx.size(30, 2) {
        let ids: Vec<KeyId> = (0..3).map(|index| sample::id(format!("user-{round}-{index}"))).collect();
        let history = recorded(&handles, &ids, cx.size(36, 12)).await?;
        for (index, id) in ids.iter().enumerate() {
            let events: Vec<TimedCall> =
                history.iter().filter(|(of, _)| *of == index).map(|(_, event)| *event).collect();
            if cx.capabilities.consistency == Consistency::Strong {
                is_linearizable(&events)?;
            } else {
                invents_nothing(&cx, id, &events).await?;
            }
        }
    }
    Ok(())
}

/// Runs the clients on these ids and returns each call with the index of its id.
async fn recorded(handles: &[Store; 2], ids: &[KeyId], calls: usize) -> Outcome<Vec<(usize, TimedCall)>> {
    let clock = Arc::new(AtomicU64::new(0));
    let clients = (0..CLIENTS).map(|client| {
        let store = handles[client % 2].clone();
        let ids = ids.to_vec();
        let clock = clock.clone();
        async move {
            let mut events = Vec::new();
            for index in 0..calls {
                let mixed = (client * 7919 + index * 104_729) ^ (index >> 2);
                let of = mixed % ids.len();
                let value = u32::try_from(client * calls + index).unwrap_or_default();
                let begin = clock.fetch_add(1, Ordering::SeqCst);
                let answer = one_call(&store, &ids[of], value, mixed / 3 % 10).await;
                let end = clock.fetch_add(1, Ordering::SeqCst);
                match answer {
                    Ok(Some((call, known))) => events.push((of, TimedCall { call, begin, end: known.then_some(end) })),
                    // The call was refused without an effect.
                    Ok(None) => {}
                    Err(stop) => return Err(stop),
                }
            }
            Ok(events)
        }
    });
    let histories: Vec<_> =
        in_parallel("calls of 8 clients in a race", clients).await?.into_iter().collect::<Outcome<_>>()?;
    Ok(histories.into_iter().flatten().collect())
}

/// Returns the key for a value. Its length and its content depend on the value.
fn key_of(value: u32) -> SecretKey {
    let bytes = value.to_be_bytes();
    sample::key(bytes.repeat(1 + value as usize % 90))
}

/// Returns the value of a key.
fn value_of(key: &SecretKey) -> Outcome<u32> {
    let bytes = key.expose_secret().first_chunk().copied();
    let value = bytes.map(u32::from_be_bytes).filter(|value| key_of(*value) == *key);
    value.map_or_else(|| fail("get_key in a race", "a key that a client wrote", "another key"), Ok)
}

/// Makes one call. Returns it with true if its outcome is known, or `None` if it was refused without an
/// effect.
async fn one_call(store: &Store, id: &KeyId, value: u32, kind: usize) -> Outcome<Option<(RecordedCall, bool)>> {
    let call = match kind {
        0..=3 => match store.get_key(id).await {
            Ok(key) => Ok(RecordedCall::Get(Some(value_of(&key)?))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(RecordedCall::Get(None)),
            Err(e) => Err((e, RecordedCall::Get(None))),
        },
        4..=5 => store
            .put_key(id, &key_of(value))
            .await
            .map(|()| RecordedCall::Put(value))
            .map_err(|e| (e, RecordedCall::Put(value))),
        6..=7 => match store.create_key(id, &key_of(value)).await {
            Ok(()) => Ok(RecordedCall::Create(value, true)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists && e.effect() == Effect::NotApplied => {
                Ok(RecordedCall::Create(value, false))
            }
            Err(e) => Err((e, RecordedCall::Create(value, true))),
        },
        _ => match store.delete_key(id).await {
            Ok(_) => Ok(RecordedCall::Delete(true)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(RecordedCall::Delete(false)),
            Err(e) => Err((e, RecordedCall::Delete(true))),
        },
    };
    match call {
        Ok(call) => Ok(Some((call, true))),
        Err((e, call)) if e.effect() == Effect::Unknown => Ok(Some((call, false))),
        Err((e, _)) if is_contention(&e) || e.kind() == ErrorKind::PendingDeletion => Ok(None),
        Err((e, _)) => ok("a call in a race", Err(e)),
    }
}

fn is_linearizable(events: &[TimedCall]) -> Outcome {
    match linearize::check(events) {
        Linearizability::Linearizable => Ok(()),
        // A search that was cut off proves nothing.
        Linearizability::Undecided => Ok(()),
        Linearizability::NotLinearizable => {
            let unexplained = shortest_unexplained(events);
            let lines: Vec<String> = unexplained.iter().map(show).collect();
            let expected = "answers that a plain map gives in some order of the calls";
            let got = format!(
                "no such order; the last calls, with begin and end times:\n          {}",
                lines.join("\n          ")
            );
            fail(format!("{} calls of {CLIENTS} clients on one id", events.len()), expected, got)
        }
    }
}

/// Returns the last calls of the history up to the first answer that no order explains.
fn shortest_unexplained(events: &[TimedCall]) -> Vec<TimedCall> {
    let mut ends: Vec<u64> = events.iter().filter_map(|event| event.end).collect();
    ends.sort_unstable();
    // A call that has not ended at that time has an unknown outcome.
    let until = |end: u64| -> Vec<TimedCall> {
        let begun = events.iter().filter(|event| event.begin < end);
        begun.map(|event| TimedCall { end: event.end.filter(|at| *at <= end), ..*event }).collect()
    };
    let fails = |end: &u64| linearize::check(&until(*end)) == Linearizability::NotLinearizable;
    let first = ends.partition_point(|end| !fails(end));
    let mut history = ends.get(first).map_or_else(|| events.to_vec(), |end| until(*end));
    history.sort_by_key(|event| event.begin);
    history.split_off(history.len().saturating_sub(SHOWN))
}

fn show(event: &TimedCall) -> String {
    let end = event.end.map_or("?".to_owned(), |end| end.to_string());
    format!("{:>4} to {end:>4}: {:?}", event.begin, event.call)
}

/// Checks, on an eventual store, that reads give only keys that were written, and that in the end both
/// clients read the same one of them, or none.
async fn invents_nothing(cx: &Context, id: &KeyId, events: &[TimedCall]) -> Outcome {
    let written = |value: u32| {
        let writes = |call| matches!(call, RecordedCall::Put(v) | RecordedCall::Create(v, true) if v == value);
        events.iter().any(|event| writes(event.call))
    };
    for event in events {
        if let RecordedCall::Get(Some(value)) = event.call {
            ensure(written(value), "get_key in a race", "a key that a client wrote to this id", "another key")?;
        }
    }
    let other = cx.reopen().await?;
    cx.eventually(|| async {
        let read = |answer: Result<Option<SecretKey>>| match answer {
            Err(e) if e.kind() == ErrorKind::PendingDeletion => Ok(None),
            answer => ok("find_key after the race", answer),
        };
        let here = read(cx.store.find_key(id).await)?;
        let there = read(other.find_key(id).await)?;
        ensure(here == there, "find_key of two clients after the race", "the same answer", "two answers")?;
        match here {
            Some(key) => {
                ensure(written(value_of(&key)?), "find_key after the race", "a key that was written", "another key")
            }
            None => Ok(()),
        }
    })
    .await
}
