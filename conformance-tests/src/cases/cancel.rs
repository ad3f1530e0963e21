//! Cases about futures that are dropped before they end.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use keystead_core::{Consistency, KeyId, KeyStore, KeyStoreExt, SecretKey};

use crate::case::case_list;
use crate::context::{Context, Outcome, Removal, Store, ensure, list, ok};
use crate::sample;

case_list! {
    "cancel.put":
        "a put that is dropped after any number of polls leaves the old or the new key, and blocks no other \
         call"
        => put;
    "cancel.delete":
        "a delete that is dropped after any number of polls leaves the key or none, and blocks no other call"
        => delete;
    "cancel.get_or_create":
        "a get_or_create that is dropped after any number of polls leaves no key or the candidate, and blocks \
         no other call"
        => get_or_create;
    "cancel.get":
        "a get that is dropped after any number of polls changes nothing, and blocks no other call"
        => get;
    "cancel.erase":
        "an erasure that is dropped after any number of polls leaves the key or none, and blocks no other \
         call"
        => erase;
    "cancel.batch":
        "a get_keys or delete_keys that is dropped after any number of polls leaves each key or none, and \
         blocks no other call"
        => batch;
    "cancel.many":
        "hundreds of calls that are dropped soon after their start use up nothing that later calls need"
        => many;
}

/// A dropped call, and what it may leave.
struct Dropped {
    call: String,
    id: KeyId,
    /// The keys that the id may have afterwards.
    keys: Vec<SecretKey>,
    /// True if the id may have no key afterwards.
    or_none: bool,
    /// True if the call was an erasure, after which a fenced store refuses a new key.
    is_erasure: bool,
}

async fn put(cx: Context) -> Outcome {
    let mut dropped = Vec::new();
    for polls in 0..cx.size(40, 8) {
        let id = sample::id(format!("user-{polls}"));
        let old = sample::random_key(300);
        let new = sample::random_key(600);
        ok("put_key", cx.store.put_key(&id, &old).await)?;
        cx.expect_key(&cx.store, &id, &old).await?;
        drop_after(cx.store.put_key(&id, &new), polls).await;
        let call = dropped_call("put_key", polls);
        blocks_nothing(&cx, &call, polls).await?;
        dropped.push(Dropped { call, id, keys: vec![old, new], or_none: false, is_erasure: false });
    }
    left(&cx, &dropped).await
}

async fn delete(cx: Context) -> Outcome {
    let mut dropped = Vec::new();
    for polls in 0..cx.size(40, 8) {
        let (id, key) = stored(&cx, polls).await?;
        drop_after(cx.store.delete_key(&id), polls).await;
        let call = dropped_call("delete_key", polls);
        blocks_nothing(&cx, &call, polls).await?;
        dropped.push(Dropped { call, id, keys: vec![key], or_none: true, is_erasure: false });
    }
    left(&cx, &dropped).await
}

async fn get_or_create(cx: Context) -> Outcome {
    let mut dropped = Vec::new();
    for polls in 0..cx.size(40, 8) {
        let id = sample::id(format!("user-{polls}"));
        let candidate = sample::random_key(300);
        drop_after(cx.store.get_or_create(&id, &candidate), polls).await;
        let call = dropped_call("get_or_create", polls);
        blocks_nothing(&cx, &call, polls).await?;
        dropped.push(Dropped { call, id, keys: vec![candidate], or_none: true, is_erasure: false });
    }
    left(&cx, &dropped).await
}

async fn get(cx: Context) -> Outcome {
    let mut dropped = Vec::new();
    for polls in 0..cx.size(40, 8) {
        let (id, key) = stored(&cx, polls).await?;
        drop_after(cx.store.get_key(&id), polls).await;
        let call = dropped_call("get_key", polls);
        blocks_nothing(&cx, &call, polls).await?;
        dropped.push(Dropped { call, id, keys: vec![key], or_none: false, is_erasure: false });
    }
    left(&cx, &dropped).await
}

async fn erase(cx: Context) -> Outcome {
    let mut dropped = Vec::new();
    for polls in 0..cx.size(40, 8) {
        let (id, key) = stored(&cx, polls).await?;
        drop_after(cx.store.erase_key(&id), polls).await;
        let call = dropped_call("erase_key", polls);
        blocks_nothing(&cx, &call, polls).await?;
        dropped.push(Dropped { call, id, keys: vec![key], or_none: true, is_erasure: true });
    }
    left(&cx, &dropped).await
}

async fn batch(cx: Context) -> Outcome {
    let mut dropped = Vec::new();
    for polls in 0..cx.size(40, 8) {
        let (id, key) = stored(&cx, polls).await?;
        let ids = [id.clone(), sample::id("nobody")];
        drop_after(cx.store.get_keys(&ids), polls).await;
        blocks_nothing(&cx, &dropped_call("get_keys", polls), polls).await?;
        drop_after(cx.store.delete_keys(&ids), polls).await;
        let call = dropped_call("delete_keys", polls);
        blocks_nothing(&cx, &call, polls).await?;
        dropped.push(Dropped { call, id, keys: vec![key], or_none: true, is_erasure: false });
    }
    left(&cx, &dropped).await
}

async fn many(cx: Context) -> Outcome {
    let (id, key) = stored(&cx, 0).await?;
    for round in 0..cx.size(600, 10) {
        let polls = 1 + round % 3;
        drop_after(cx.store.get_key(&id), polls).await;
        drop_after(cx.store.put_key(&id, &key), polls).await;
        drop_after(cx.store.create_key(&id, &key), polls).await;
        drop_after(cx.store.delete_key(&sample::id("nobody")), polls).await;
    }
    let call = "hundreds of dropped calls".to_owned();
    blocks_nothing(&cx, &call, 0).await?;
    left(&cx, &[Dropped { call, id, keys: vec![key], or_none: false, is_erasure: false }]).await
}

/// Names a dropped call in failures.
fn dropped_call(method: &str, polls: usize) -> String {
    format!("{method} was dropped after {polls} polls")
}

/// Stores a key for the id of this number of polls.
async fn stored(cx: &Context, polls: usize) -> Outcome<(KeyId, SecretKey)> {
    let id = sample::id(format!("user-{polls}"));
    let key = sample::random_key(300);
    ok("put_key", cx.store.put_key(&id, &key).await)?;
    cx.expect_key(&cx.store, &id, &key).await?;
    Ok((id, key))
}

/// Polls a future `polls` times, with pauses in between, and drops it.
async fn drop_after<F: Future>(future: F, polls: usize) {
    let mut future = pin!(future);
    for index in 0..polls {
        if poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await.is_ready() {
            return;
        }
        match (index + polls) % 3 {
            0 => tokio::time::sleep(Duration::from_millis(1)).await,
            _ => tokio::task::yield_now().await,
        }
    }
}

/// Checks that the dropped call blocks no other call, for the same id or another one.
async fn blocks_nothing(cx: &Context, dropped: &str, polls: usize) -> Outcome {
    let store = cx.store.clone();
    let same = sample::id(format!("user-{polls}"));
    let other = sample::id("other");
    let put = format!("put_key of another id after {dropped}");
    let calls = async move {
        // It must answer. The answer itself is checked at the end.
        drop(store.find_key(&same).await);
        ok(&put, store.put_key(&other, &sample::random_key(32)).await)
    };
    cx.unblocked(&format!("find_key and put_key after {dropped}"), calls).await
}

/// Checks that a client that is opened afterwards finds nothing but what the calls may leave.
async fn left(cx: &Context, dropped: &[Dropped]) -> Outcome {
    let store = cx.reopen().await?;
    // A request that was on its way to a remote engine may be applied late.
    cx.bound_over().await;
    listed_as_read(cx, &store, dropped).await?;
    for Dropped { call, id, keys, or_none, .. } in dropped {
        let find = format!("find_key of the id after {call}");
        cx.eventually(|| async {
            match ok_or_gone(cx, &find, store.find_key(id).await)? {
                Some(key) => {
                    let expected = format!("one of {} whole keys", keys.len());
                    ensure(keys.contains(&key), find.as_str(), expected, "another key")
                }
                None => ensure(*or_none, find.as_str(), "a key", "no key"),
            }
        })
        .await?;
    }
    // Each id can be used again.
    let free = |call: &&Dropped| cx.frees(if call.is_erasure { Removal::Erase } else { Removal::Delete });
    for Dropped { id, .. } in dropped.iter().filter(free) {
        let key = sample::random_key(32);
        cx.put(&store, id, &key).await?;
        cx.expect_key(&store, id, &key).await?;
    }
    Ok(())
}

/// Checks that the listing contains the id of a dropped call exactly if the id has a key.
async fn listed_as_read(cx: &Context, store: &Store, dropped: &[Dropped]) -> Outcome {
    // If reads or listings may lag, they may differ.
    if cx.capabilities.listing != Some(Consistency::Strong) || cx.capabilities.consistency != Consistency::Strong {
        return Ok(());
    }
    let listed = list(store).await?;
    for Dropped { call, id, .. } in dropped {
        let both = format!("list_keys and find_key of the id after {call}");
        let read = ok_or_gone(cx, &both, store.find_key(id).await)?.is_some();
        let got = if read { "read but not listed" } else { "listed but not read" };
        ensure(read == listed.contains(id), both, "the same from both", got)?;
    }
    Ok(())
}

fn ok_or_gone(
    cx: &Context,
    call: &str,
    answer: keystead_core::Result<Option<SecretKey>>,
) -> Outcome<Option<SecretKey>> {
    match answer {
        Err(e) if cx.is_gone(e.kind()) => Ok(None),
        answer => ok(call, answer),
    }
}
