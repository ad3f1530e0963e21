//! Cases about answers that a careless store would take for a success: from a lagging replica, or
//! about an entry that cannot be deleted, a name that is held back or an entry without a value.

use std::future::Future;
use std::time::Duration;

use keystead_core::{Effect, Error, ErrorKind, KeyStoreExt, Operation, SecretKey};

use crate::case::case_list;
use crate::context::{Context, Outcome, call, ensure, fail, ok, same};
use crate::harness::Fault;
use crate::sample;

case_list! {
    "erase.never_ok_while_the_key_stands":
        "an erasure whose delete or read is answered by a lagging replica never returns Ok if the key can be \
         read one bound later, and never says existed: false of a key that it has erased",
        needs Eventual, needs Faults
        => never_ok_while_the_key_stands;
    "erase.of_a_refused_delete_is_an_error":
        "deleting or erasing a key whose delete the engine refuses fails with an error that does not say that \
         the key is gone", needs Faults
        => of_a_refused_delete_is_an_error;
    "create.after_forced_delete":
        "while the engine holds back a deleted name, a write fails with Conflict and a pause, and \
         get_or_create waits for the name for up to the bound", needs Faults, needs HeldNames
        => after_forced_delete;
    "get.entry_without_a_value":
        "an entry without a value is Corrupt for every read and create, without a wait, and can be \
         overwritten and deleted", needs EntriesWithoutValue
        => entry_without_a_value;
}

/// A number of requests that is larger than that of any client's own attempts.
const ALWAYS: u32 = 1_000;

/// The time that a call may take in addition to the bounds that it may wait for.
const AT_ONCE: Duration = Duration::from_secs(10);

/// The entry of the id before its last write, which the replica still sees.
#[derive(Clone, Copy, Debug)]
enum Before {
    /// No key: the replica has not seen the create.
    Nothing,
    /// Another key: the replica has not seen the overwrite.
    AnotherKey,
    /// The key: the replica has not seen the delete.
    TheKey,
}

async fn never_ok_while_the_key_stands(cx: Context) -> Outcome {
    for (index, stale_calls) in [1, 2, 3, 5, ALWAYS].into_iter().enumerate() {
        for before in [Before::Nothing, Before::AnotherKey, Before::TheKey] {
            erased_beside_a_stale_replica(&cx, index, stale_calls, before).await?;
        }
    }
    Ok(())
}

async fn erased_beside_a_stale_replica(cx: &Context, index: usize, stale_calls: u32, before: Before) -> Outcome {
    let id = sample::id(format!("{before:?}-{index}"));
    let key = sample::random_key(32);
    ok("create_key", cx.store.create_key(&id, &sample::random_key(32)).await)?;
    match before {
        Before::Nothing => {}
        Before::AnotherKey => ok("put_key", cx.store.put_key(&id, &key).await)?,
        Before::TheKey => ok("delete_key", cx.store.delete_key(&id).await).map(drop)?,
    }
    cx.inject(None, Fault::Stale, stale_calls).await?;
    let answer = cx.store.erase_key(&id).await;
    cx.clear().await?;
    cx.bound_over().await;
    let write = match before {
        Before::Nothing => "create",
        Before::AnotherKey => "overwrite",
        Before::TheKey => "delete",
    };
    let call = format!("erase_key, {stale_calls} of its requests answered by a replica that has not seen the {write}");
    match answer {
        Ok(receipt) => {
            for store in cx.two_handles().await? {
                gone(cx, &call, store.get_key(&id).await)?;
            }
            // The key is gone, and only this call can have deleted it, unless it was deleted before.
            let erased_it = !matches!(before, Before::TheKey);
            ensure(receipt.existed || !erased_it, call, "existed: true", format!("{receipt:?}"))
        }
        Err(e) => {
            let told = e.effect() == Effect::Unknown && e.operation() == Operation::Erase;
            let expected = "Ok with the key gone, or an error with operation Erase and effect Unknown";
            let got = format!("kind {:?}, operation {:?}, effect {:?}", e.kind(), e.operation(), e.effect());
            ensure(told, call, expected, got)?;
            ok("erase_key when the bound is over", cx.store.erase_key(&id).await)?;
            cx.expect_absent(&cx.store, &id).await
        }
    }
}

fn gone(cx: &Context, call: &str, answer: Result<SecretKey, Error>) -> Outcome {
    match answer {
        Err(e) if e.kind() == ErrorKind::NotFound || cx.is_gone(e.kind()) => Ok(()),
        Err(e) => fail(call, "Ok only if the key is gone", format!("Ok, and a read fails with {:?}", e.kind())),
        Ok(_) => fail(call, "Ok only if the key is gone", "Ok, and a read one bound later gives the key"),
    }
}

async fn of_a_refused_delete_is_an_error(cx: Context) -> Outcome {
    let id = sample::id("alice");
    let key = sample::random_key(32);
    ok("put_key", cx.store.put_key(&id, &key).await)?;
    cx.expect_key(&cx.store, &id, &key).await?;
    for operation in [Operation::Delete, Operation::Erase] {
        cx.inject(Some(Operation::Delete), Fault::Refused, ALWAYS).await?;
        let answer = match operation {
            Operation::Delete => cx.store.delete_key(&id).await.map(|deletion| format!("{deletion:?}")),
            _ => cx.store.erase_key(&id).await.map(|receipt| format!("{receipt:?}")),
        };
        cx.clear().await?;
        let call = format!("{operation} of a key whose delete the engine refuses");
        match answer {
            Err(e) => {
                use ErrorKind::{Erased, NotFound, PendingDeletion};
                let is_true = e.operation() == operation && !matches!(e.kind(), Erased | NotFound | PendingDeletion);
                let expected = format!("an error, operation {operation:?}, that does not say the key is gone");
                ensure(is_true, call, expected, format!("kind {:?}, operation {:?}", e.kind(), e.operation()))?;
            }
            Ok(receipt) => return fail(call, "an error", format!("Ok: {receipt}")),
        }
    }
    if !cx.capabilities.fenced {
        cx.expect_key(&cx.store, &id, &key).await?;
    }
    ok("erase_key when the engine deletes again", cx.store.erase_key(&id).await)?;
    cx.expect_absent(&cx.store, &id).await
}

async fn after_forced_delete(cx: Context) -> Outcome {
    let id = sample::id("alice");
    let key = sample::random_key(32);
    if !cx.is_recoverable() {
        ok("create_key", cx.store.create_key(&id, &key).await)?;
        cx.expect_key(&cx.store, &id, &key).await?;
        ok("delete_key", cx.store.delete_key(&id).await)?;
        cx.expect_absent(&cx.store, &id).await?;
        cx.bound_over().await;
    }
    // Twice each, because an engine may refuse in several ways.
    for _ in 0..2 {
        for operation in [Operation::Create, Operation::Put] {
            cx.inject(None, Fault::NameHeld, ALWAYS).await?;
            let answer = match operation {
                Operation::Create => cx.store.create_key(&id, &key).await,
                _ => cx.store.put_key(&id, &key).await,
            };
            cx.clear().await?;
            is_held(&format!("{operation} of a name that is held back"), answer)?;
        }
        cx.inject(None, Fault::NameHeld, ALWAYS).await?;
        let waited = in_time(&cx, "get_or_create of a name that is held back", cx.store.get_or_create(&id, &key)).await;
        cx.clear().await?;
        is_held("get_or_create of a name that is held back", waited?)?;
        cx.expect_absent(&cx.store, &id).await?;
    }
    // For one request only: even if the bound is over after a slow request, one more must follow.
    cx.inject(None, Fault::NameHeld, 1).await?;
    let call = "get_or_create of a name that is held back for one call";
    let waited = cx.store.get_or_create(&id, &key).await;
    cx.clear().await?;
    match waited {
        // A store without a bound need not wait.
        Err(e) if cx.bound().is_zero() => return is_held::<()>(call, Err(e)),
        answer => same(call, answer, &key)?,
    }
    cx.expect_key(&cx.store, &id, &key).await
}

fn is_held<T>(call: &str, answer: Result<T, Error>) -> Outcome {
    let expected = "Conflict with retry_after, retryable, effect NotApplied";
    match answer {
        Err(e) => {
            let is_told = e.kind() == ErrorKind::Conflict && e.retry_after().is_some() && e.is_retryable();
            let got = format!("kind {:?}, retry_after {:?}, effect {:?}", e.kind(), e.retry_after(), e.effect());
            ensure(is_told && e.effect() == Effect::NotApplied, call, expected, got)
        }
        Ok(_) => fail(call, expected, "Ok"),
    }
}

async fn in_time<T>(cx: &Context, call: &str, answer: impl Future<Output = T>) -> Outcome<T> {
    let limit = 2 * cx.bound() + AT_ONCE;
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => Ok(answer),
        Err(_) => fail(call, format!("an answer within {limit:?}"), "no answer"),
    }
}

async fn entry_without_a_value(cx: Context) -> Outcome {
    let ids = [sample::id("alice"), sample::id("bob")];
    for id in &ids {
        cx.plant_without_value(id).await?;
    }
    cx.bound_over().await;
    let [put, deleted] = &ids;
    let key = sample::random_key(32);
    for store in cx.two_handles().await? {
        let of_batch = in_time(&cx, "get_keys", store.get_keys(&ids)).await?;
        for answer in of_batch {
            is_corrupt("get_keys", answer, Operation::Get)?;
        }
        is_corrupt("get_key", in_time(&cx, "get_key", store.get_key(put)).await?, Operation::Get)?;
        is_corrupt("create_key", in_time(&cx, "create_key", store.create_key(put, &key)).await?, Operation::Create)?;
        let answer = in_time(&cx, "get_or_create", store.get_or_create(put, &key)).await?;
        is_corrupt("get_or_create", answer.map_err(|e| e.with_operation(Operation::Get)), Operation::Get)?;
    }
    ok(&call("put_key", put), cx.store.put_key(put, &key).await)?;
    cx.expect_key(&cx.store, put, &key).await?;
    ok(&call("delete_key", deleted), cx.store.delete_key(deleted).await)?;
    cx.expect_absent(&cx.store, deleted).await
}

/// Expects `Corrupt`: neither a key nor an absence, which a create would contradict.
fn is_corrupt<T>(method: &str, answer: Result<T, Error>, operation: Operation) -> Outcome {
    let call = format!("{method} of an entry without a value");
    let expected = format!("an error of kind Corrupt, operation {operation:?}, effect NotApplied");
    match answer {
        Err(e) => {
            let right = e.kind() == ErrorKind::Corrupt && e.operation() == operation;
            let got = format!("kind {:?}, operation {:?}, effect {:?}", e.kind(), e.operation(), e.effect());
            ensure(right && e.effect() == Effect::NotApplied, call, expected, got)
        }
        Ok(_) => fail(call, expected, "Ok"),
    }
}
