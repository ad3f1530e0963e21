//! Futures that are dropped before they end.

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
        "a put that is dropped after any number of polls leaves the old key or the new one, and keeps nobody waiting"
        => put;
    "cancel.delete":
        "a delete that is dropped after any number of polls leaves the key or none, and keeps nobody waiting"
        => delete;
    "cancel.get_or_create":
        "a get_or_create that is dropped after any number of polls leaves none or the candidate, and keeps nobody waiting"
        => get_or_create;
    "cancel.get":
        "a get that is dropped after any number of polls changes nothing, and keeps nobody waiting"
        => get;
    "cancel.erase":
        "an erasure that is dropped after any number of polls leaves the key or none, and keeps nobody waiting"
        => erase;
    "cancel.batch":
        "get_keys and delete_keys that are dropped after any number of polls leave each key or none, and keep nobody waiting"
        => batch;
    "cancel.many":
        "hundreds of calls that are dropped at their beginning use up nothing that later calls need"
        => many;
}

/// One dropped call: its id, and the keys that may stand there afterwards; `or_none` if there may be none, for ever in
/// a fenced store if the call was an erasure.
struct Dropped {
    id: KeyId,
    keys: Vec<SecretKey>,
    or_none: bool,
    erased: bool,
}

async fn put(cx: Context) -> Outcome {
    let mut dropped = Vec::new();
    for polls in 0..cx.size(40, 8) {
        let (id, old, new) = (sample::id(format!("user-{polls}")), sample::random_key(300), sample::random_key(600));
        ok("put_key", cx.store.put_key(&id, &old).await)?;
        cx.expect_key(&cx.store, &id, &old).await?;
        drop_after(cx.store.put_key(&id, &new), polls).await;
        dropped.push(Dropped { id, keys: vec![old, new], or_none: false, erased: false });
        is_free(&cx, polls).await?;
    }
    left(&cx, &dropped).await
}

async fn delete(cx: Context) -> Outcome {
    let mut dropped = Vec::new();
    for polls in 0..cx.size(40, 8) {
        let (id, key) = stored(&cx, polls).await?;
        drop_after(cx.store.delete_key(&id), polls).await;
        dropped.push(Dropped { id, keys: vec![key], or_none: true, erased: false });
        is_free(&cx, polls).await?;
    }
    left(&cx, &dropped).await
}

async fn get_or_create(cx: Context) -> Outcome {
    let mut dropped = Vec::new();
    for polls in 0..cx.size(40, 8) {
        let (id, candidate) = (sample::id(format!("user-{polls}")), sample::random_key(300));
        drop_after(cx.store.get_or_create(&id, &candidate), polls).await;
        dropped.push(Dropped { id, keys: vec![candidate], or_none: true, erased: false });
        is_free(&cx, polls).await?;
    }
    left(&cx, &dropped).await
}

async fn get(cx: Context) -> Outcome {
    let mut dropped = Vec::new();
    for polls in 0..cx.size(40, 8) {
        let (id, key) = stored(&cx, polls).await?;
        drop_after(cx.store.get_key(&id), polls).await;
        dropped.push(Dropped { id, keys: vec![key], or_none: false, erased: false });
        is_free(&cx, polls).await?;
    }
    left(&cx, &dropped).await
}

async fn erase(cx: Context) -> Outcome {
    let mut dropped = Vec::new();
    for polls in 0..cx.size(40, 8) {
        let (id, key) = stored(&cx, polls).await?;
        drop_after(cx.store.erase_key(&id), polls).await;
        dropped.push(Dropped { id, keys: vec![key], or_none: true, erased: true });
        is_free(&cx, polls).await?;
    }
    left(&cx, &dropped).await
}

async fn batch(cx: Context) -> Outcome {
    let mut dropped = Vec::new();
    for polls in 0..cx.size(40, 8) {
        let (id, key) = stored(&cx, polls).await?;
        let ids = [id.clone(), sample::id("nobody")];
        drop_after(cx.store.get_keys(&ids), polls).await;
        is_free(&cx, polls).await?;
        drop_after(cx.store.delete_keys(&ids), polls).await;
        dropped.push(Dropped { id, keys: vec![key], or_none: true, erased: false });
        is_free(&cx, polls).await?;
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
    is_free(&cx, 0).await?;
    left(&cx, &[Dropped { id, keys: vec![key], or_none: false, erased: false }]).await
}

async fn stored(cx: &Context, polls: usize) -> Outcome<(KeyId, SecretKey)> {
    let (id, key) = (sample::id(format!("user-{polls}")), sample::random_key(300));
    ok("put_key", cx.store.put_key(&id, &key).await)?;
    cx.expect_key(&cx.store, &id, &key).await?;
    Ok((id, key))
}

/// Polls a future so often, sometimes with a pause in which it can get on, and drops it.
async fn drop_after<F: Future>(future: F, polls: usize) {
    let mut future = pin!(future);
    for number in 0..polls {
        if poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await.is_ready() {
            return;
        }
        match (number + polls) % 3 {
            0 => tokio::time::sleep(Duration::from_millis(1)).await,
            _ => tokio::task::yield_now().await,
        }
    }
}

/// Other calls go through at once, for the same id and for another one.
async fn is_free(cx: &Context, polls: usize) -> Outcome {
    let (store, same, other) = (cx.store.clone(), sample::id(format!("user-{polls}")), sample::id("other"));
    cx.unblocked("calls after a dropped one", async move {
        // What it answers is looked at in the end; that it answers, here.
        drop(store.find_key(&same).await);
        ok("put_key after a dropped call", store.put_key(&other, &sample::random_key(32)).await)
    })
    .await
}

/// A client that is opened afterwards finds what may be left and nothing else.
async fn left(cx: &Context, dropped: &[Dropped]) -> Outcome {
    let store = cx.reopen().await?;
    // What was dropped on its way to a remote engine may land late.
    cx.bound_over().await;
    listed_as_read(cx, &store, dropped).await?;
    for Dropped { id, keys, or_none, .. } in dropped {
        cx.eventually(|| async {
            match ok_or_gone(cx, store.find_key(id).await)? {
                Some(key) => {
                    let expected = format!("one of {} whole keys", keys.len());
                    ensure(keys.contains(&key), "find_key of a dropped call's id", expected, "another key")
                }
                None => ensure(*or_none, "find_key of a dropped call's id", "a key", "none"),
            }
        })
        .await?;
    }
    // And each id is usable.
    let free = |call: &&Dropped| cx.frees(if call.erased { Removal::Erase } else { Removal::Delete });
    for Dropped { id, .. } in dropped.iter().filter(free) {
        let key = sample::random_key(32);
        cx.put(&store, id, &key).await?;
        cx.expect_key(&store, id, &key).await?;
    }
    Ok(())
}

/// Checks that the listing contains exactly the ids that can be read.
async fn listed_as_read(cx: &Context, store: &Store, dropped: &[Dropped]) -> Outcome {
    // Where either may lag, they may differ.
    if cx.capabilities.listing != Some(Consistency::Strong) || cx.capabilities.consistency != Consistency::Strong {
        return Ok(());
    }
    let listed = list(store).await?;
    for Dropped { id, .. } in dropped {
        let read = ok_or_gone(cx, store.find_key(id).await)?.is_some();
        let got = if read { "read but not listed" } else { "listed but not read" };
        ensure(read == listed.contains(id), "list_keys and find_key of a dropped call's id", "the same of both", got)?;
    }
    Ok(())
}

fn ok_or_gone(cx: &Context, answer: keystead_core::Result<Option<SecretKey>>) -> Outcome<Option<SecretKey>> {
    match answer {
        Err(e) if cx.is_gone(e.kind()) => Ok(None),
        answer => ok("find_key of a dropped call's id", answer),
    }
}
