//! Cases about listing the ids.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use keystead_core::{Consistency, ErrorKind, KeyId, KeyStoreExt, Operation, SecretKey};

use crate::case::{Need, case_list};
use crate::context::{Context, Outcome, Removal, Stop, Store, ensure, fail, list, ok};
use crate::sample;

case_list! {
    "list.empty":
        "an empty store lists no ids", needs Listing
        => empty;
    "list.all_once":
        "every id is listed exactly once", needs Listing
        => all_once;
    "list.deleted_absent":
        "a deleted id is not listed, and an overwritten id is listed once", needs Listing
        => deleted_absent;
    "list.foreign_entries_ignored":
        "an entry beside the keys that the store did not make is not listed", needs Listing, needs ForeignEntries
        => foreign_entries_ignored;
    "list.dropped_midway":
        "a listing can be dropped at any point, and the store goes on working", needs Listing
        => dropped_midway;
    "list.open_stream_blocks_no_writer":
        "an open listing blocks no reads and no writes", needs Listing
        => open_stream_blocks_no_writer;
    "list.stable_ids_during_writes":
        "while other ids are written and deleted, an id that exists throughout is listed once, and no id is \
         listed twice", needs Listing
        => stable_ids_during_writes;
    "list.unsupported_is_said":
        "a store that cannot list says Unsupported once, and goes on working", needs NoListing
        => unsupported_is_said;
}

/// Stores `count` keys and returns their ids.
async fn filled(cx: &Context, count: usize) -> Outcome<Vec<KeyId>> {
    let ids = sample::ids(count);
    for id in &ids {
        ok("put_key", cx.store.put_key(id, &sample::random_key(32)).await)?;
    }
    Ok(ids)
}

async fn empty(cx: Context) -> Outcome {
    cx.expect_listing(&cx.store, &[]).await?;
    let id = sample::id("alice");
    ok("put_key", cx.store.put_key(&id, &sample::random_key(32)).await)?;
    cx.expect_listing(&cx.store, std::slice::from_ref(&id)).await?;
    ok("delete_key", cx.store.delete_key(&id).await)?;
    cx.expect_listing(&cx.store, &[]).await
}

async fn all_once(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    // A little more than round numbers, at which pages end; keys of all lengths, written in every way.
    let ids = sample::ids(cx.size(1_100, 105));
    let keys: Vec<SecretKey> = (0..ids.len()).map(|index| sample::random_key(1 + index * 97 % 3072)).collect();
    for (index, (id, key)) in ids.iter().zip(&keys).enumerate() {
        let store = &handles[index % 2];
        match index % 3 {
            0 => ok("put_key", store.put_key(id, key).await)?,
            1 => ok("create_key", store.create_key(id, key).await)?,
            _ => drop(ok("get_or_create", store.get_or_create(id, key).await)?),
        }
    }
    cx.expect_listing(&handles[0], &ids).await?;
    cx.expect_listing(&handles[1], &ids).await?;
    // Each id still has its own key.
    for (id, key) in ids.iter().zip(&keys).step_by(23) {
        cx.expect_key(&handles[0], id, key).await?;
    }
    // A client that has listed sees what another client writes afterwards.
    let first = ids.first().cloned();
    let new = sample::id("new");
    ok("put_key", handles[1].put_key(&new, &sample::random_key(32)).await)?;
    let mut now: Vec<KeyId> = ids.iter().skip(1).cloned().collect();
    now.push(new);
    if let Some(id) = first {
        Removal::Erase.apply(&handles[1], &id).await?;
    }
    cx.expect_listing(&handles[0], &now).await
}

async fn deleted_absent(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    let ids = filled(&cx, cx.size(60, 24).max(4)).await?;
    cx.expect_listing(&handles[0], &ids).await?;
    cx.expect_listing(&handles[1], &ids).await?;
    let (kept, deleted) = ids.split_at(ids.len() / 2);
    for (index, id) in deleted.iter().enumerate() {
        cx.removal(index).apply(&handles[index % 2], id).await?;
    }
    for (index, id) in kept.iter().enumerate() {
        ok("put_key", cx.store.put_key(id, &sample::random_key(1 + index * 50)).await)?;
    }
    cx.expect_listing(&handles[0], kept).await?;
    cx.expect_listing(&handles[1], kept).await?;
    if cx.is_recoverable() {
        return Ok(());
    }
    for (index, id) in deleted.iter().enumerate() {
        cx.put(&handles[index / 2 % 2], id, &sample::random_key(32)).await?;
    }
    cx.expect_listing(&handles[0], &ids).await
}

async fn foreign_entries_ignored(cx: Context) -> Outcome {
    let ids = filled(&cx, 5).await?;
    if !cx.plant_foreign().await? {
        return Err(Stop::Ignored(Need::ForeignEntries.reason()));
    }
    cx.expect_listing(&cx.store, &ids).await
}

async fn dropped_midway(cx: Context) -> Outcome {
    let mut ids = filled(&cx, cx.size(300, 25).max(4)).await?;
    // At small scales some of these numbers are equal.
    for (round, taken) in [0, 1, 2, 10, ids.len() - 1].into_iter().enumerate() {
        let begun: Vec<_> = cx.store.list_keys().take(taken).collect().await;
        for id in begun {
            ok("list_keys", id)?;
        }
        let id = sample::id(format!("after-{round}"));
        ok("put_key after a dropped listing", cx.store.put_key(&id, &sample::random_key(32)).await)?;
        ids.push(id);
    }
    for _ in 0..cx.size(200, 3) {
        drop(cx.store.list_keys().next().await);
    }
    let store = cx.store.clone();
    cx.unblocked("list_keys after many dropped listings", async move { list(&store).await.map(drop) }).await?;
    cx.expect_listing(&cx.store, &ids).await
}

async fn open_stream_blocks_no_writer(cx: Context) -> Outcome {
    let ids = filled(&cx, cx.size(300, 25).max(4)).await?;
    cx.expect_listing(&cx.store, &ids).await?;
    let strong = cx.capabilities.listing == Some(Consistency::Strong);
    let mut listing = cx.store.list_keys();
    let Some(first) = listing.next().await else {
        // A lagging listing may be empty, and then there is nothing to hold open.
        return ensure(!strong, "list_keys", "an id", "the end of the listing");
    };
    let mut listed = vec![ok("list_keys", first)?];
    // A second listing is independent of the first one.
    let store = cx.store.clone();
    let all = ids.len();
    let second = async move {
        let count = list(&store).await?.len();
        let whole = count == all || !strong;
        ensure(whole, "list_keys beside an open listing", format!("{all} ids"), format!("{count} ids"))
    };
    cx.unblocked("list_keys while a listing is open", second).await?;
    let mut gone = HashSet::new();
    for (index, store) in cx.two_handles().await?.into_iter().enumerate() {
        let standing = ids[ids.len() - 1 - index].clone();
        gone.insert(standing.clone());
        let calls = async move { every_call(&store, &standing, index).await };
        cx.unblocked("put, create, get and delete while a listing is open", calls).await?;
    }
    while let Some(id) = listing.next().await {
        listed.push(ok("list_keys, continued after other calls", id)?);
    }
    let distinct: HashSet<&KeyId> = listed.iter().collect();
    let repeated = listed.len() - distinct.len();
    ensure(repeated == 0, "list_keys, continued after other calls", "each id once", format!("{repeated} repeated"))?;
    let lost = ids.iter().filter(|id| !gone.contains(*id) && !distinct.contains(id)).count();
    ensure(
        !strong || lost == 0,
        "list_keys, continued after other calls",
        "every id that existed throughout",
        format!("{lost} missing"),
    )
}

/// Makes a call of each kind beside an open listing.
async fn every_call(store: &Store, standing: &KeyId, index: usize) -> Outcome {
    let new = sample::id(format!("new-{index}"));
    let key = sample::random_key(32);
    ok("create_key", store.create_key(&new, &key).await)?;
    ok("put_key", store.put_key(&new, &key).await)?;
    ok("put_key", store.put_key(standing, &key).await)?;
    ok("find_key", store.find_key(&new).await)?;
    ok("delete_key", store.delete_key(standing).await)?;
    Ok(())
}

async fn stable_ids_during_writes(cx: Context) -> Outcome {
    let stable = filled(&cx, cx.size(300, 25).max(4)).await?;
    cx.expect_listing(&cx.store, &stable).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write_beside(cx.store.clone(), stable.clone(), stop.clone()));
    let listings = listed_meanwhile(&cx, &stable).await;
    stop.store(true, Ordering::SeqCst);
    let written = writer.await.unwrap_or_else(|_| fail("writes during list_keys", "an answer", "a panic in the store"));
    listings.and(written)
}

async fn listed_meanwhile(cx: &Context, stable: &[KeyId]) -> Outcome {
    for _ in 0..cx.size(20, 3) {
        let listed = list(&cx.store).await?;
        let distinct: HashSet<&KeyId> = listed.iter().collect();
        let repeated = listed.len() - distinct.len();
        ensure(repeated == 0, "list_keys during writes", "each id at most once", format!("{repeated} repeated"))?;
        let lost = stable.iter().filter(|id| !distinct.contains(id)).count();
        // A listing that may lag may lag at any time.
        let strong = cx.capabilities.listing == Some(Consistency::Strong);
        ensure(
            !strong || lost == 0,
            "list_keys during writes",
            "every id that exists throughout",
            format!("{lost} missing"),
        )?;
    }
    Ok(())
}

/// Creates and deletes ids, using each once, and overwrites the stable ids, until it is stopped.
async fn write_beside(store: Store, stable: Vec<KeyId>, stop: Arc<AtomicBool>) -> Outcome {
    for index in 0_usize.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let passing = sample::id(format!("passing-{index}"));
        ok("put_key", store.put_key(&passing, &sample::random_key(32)).await)?;
        if let Some(id) = stable.get(index * 13 % stable.len()) {
            ok("put_key", store.put_key(id, &sample::random_key(1 + index % 600)).await)?;
        }
        ok("delete_key", store.delete_key(&passing).await)?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn unsupported_is_said(cx: Context) -> Outcome {
    let id = sample::id("alice");
    let key = sample::random_key(32);
    ok("put_key", cx.store.put_key(&id, &key).await)?;
    let answers: Vec<_> = cx.store.list_keys().take(3).collect().await;
    let count = answers.len();
    ensure(count == 1, "list_keys of a store that cannot list", "one answer", format!("{count} answers"))?;
    for answer in answers {
        cx.expect_error("list_keys", answer.map(|_| "an id"), ErrorKind::Unsupported, Operation::List)?;
    }
    cx.expect_key(&cx.store, &id, &key).await
}
