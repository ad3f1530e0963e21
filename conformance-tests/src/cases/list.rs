//! Listing the ids.

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
        "an empty store lists nothing", needs Listing
        => empty;
    "list.all_once":
        "every id is listed, each once", needs Listing
        => all_once;
    "list.deleted_absent":
        "a deleted id is not listed, an overwritten one is listed once", needs Listing
        => deleted_absent;
    "list.foreign_entries_ignored":
        "an entry beside the keys that is none of ours is not listed", needs Listing, needs ForeignEntries
        => foreign_entries_ignored;
    "list.dropped_midway":
        "a listing can be dropped at any point, and the store works on", needs Listing
        => dropped_midway;
    "list.open_stream_blocks_no_writer":
        "a listing that somebody holds open keeps nobody from reading and writing", needs Listing
        => open_stream_blocks_no_writer;
    "list.stable_ids_during_writes":
        "while others are written and deleted, an id that stands throughout is listed once and none is listed twice",
        needs Listing
        => stable_ids_during_writes;
    "list.unsupported_is_said":
        "a store that cannot list says Unsupported, once, and works on", needs NoListing
        => unsupported_is_said;
}

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
    // A little over the round numbers that a forgotten second page would stop at; of all lengths, made in every way.
    let ids = sample::ids(cx.size(1_100, 105));
    let keys: Vec<SecretKey> = (0..ids.len()).map(|number| sample::random_key(1 + number * 97 % 3072)).collect();
    for (number, (id, key)) in ids.iter().zip(&keys).enumerate() {
        let store = &handles[number % 2];
        match number % 3 {
            0 => ok("put_key", store.put_key(id, key).await)?,
            1 => ok("create_key", store.create_key(id, key).await)?,
            _ => drop(ok("get_or_create", store.get_or_create(id, key).await)?),
        }
    }
    cx.expect_listing(&handles[0], &ids).await?;
    cx.expect_listing(&handles[1], &ids).await?;
    // Among so many a key is still its own.
    for (id, key) in ids.iter().zip(&keys).step_by(23) {
        cx.expect_key(&handles[0], id, key).await?;
    }
    // One client has listed; what another writes afterwards is seen.
    let (first, new) = (ids.first().cloned(), sample::id("new"));
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
    for (number, id) in deleted.iter().enumerate() {
        cx.removal(number).apply(&handles[number % 2], id).await?;
    }
    for (number, id) in kept.iter().enumerate() {
        ok("put_key", cx.store.put_key(id, &sample::random_key(1 + number * 50)).await)?;
    }
    cx.expect_listing(&handles[0], kept).await?;
    cx.expect_listing(&handles[1], kept).await?;
    if cx.is_recoverable() {
        return Ok(());
    }
    for (number, id) in deleted.iter().enumerate() {
        cx.put(&handles[number / 2 % 2], id, &sample::random_key(32)).await?;
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
    // At small scales some of these are the same.
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
        // A listing that is still behind may be empty; then there is nothing to hold open.
        return ensure(!strong, "list_keys", "a first id", "the end");
    };
    let mut listed = vec![ok("list_keys", first)?];
    // A second listing beside the first is one of its own.
    let (store, all) = (cx.store.clone(), ids.len());
    let second = async move {
        let count = list(&store).await?.len();
        let whole = count == all || !strong;
        ensure(whole, "list_keys beside an open listing", format!("{all} ids"), format!("{count}"))
    };
    cx.unblocked("list_keys while a listing is open", second).await?;
    let mut gone = HashSet::new();
    for (number, store) in cx.two_handles().await?.into_iter().enumerate() {
        let standing = ids[ids.len() - 1 - number].clone();
        gone.insert(standing.clone());
        let calls = async move { every_call(&store, &standing, number).await };
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
        "every id that stood",
        format!("{lost} lost"),
    )
}

async fn every_call(store: &Store, standing: &KeyId, number: usize) -> Outcome {
    let (new, key) = (sample::id(format!("new-{number}")), sample::random_key(32));
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
    let written = writer.await.unwrap_or_else(|_| fail("the writing task", "an end", "a panic in the store"));
    listings.and(written)
}

async fn listed_meanwhile(cx: &Context, stable: &[KeyId]) -> Outcome {
    for _ in 0..cx.size(20, 3) {
        let listed = list(&cx.store).await?;
        let distinct: HashSet<&KeyId> = listed.iter().collect();
        let repeated = listed.len() - distinct.len();
        ensure(repeated == 0, "list_keys during writes", "each id at most once", format!("{repeated} repeated"))?;
        let lost = stable.iter().filter(|id| !distinct.contains(id)).count();
        // A listing that may be behind may be behind at any time.
        let strong = cx.capabilities.listing == Some(Consistency::Strong);
        ensure(
            !strong || lost == 0,
            "list_keys during writes",
            "every id that stands throughout",
            format!("{lost} lost"),
        )?;
    }
    Ok(())
}

/// Creates and deletes ids, each used once, and overwrites the stable ones.
async fn write_beside(store: Store, stable: Vec<KeyId>, stop: Arc<AtomicBool>) -> Outcome {
    for number in 0_usize.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let passing = sample::id(format!("passing-{number}"));
        ok("put_key", store.put_key(&passing, &sample::random_key(32)).await)?;
        if let Some(id) = stable.get(number * 13 % stable.len()) {
            ok("put_key", store.put_key(id, &sample::random_key(1 + number % 600)).await)?;
        }
        ok("delete_key", store.delete_key(&passing).await)?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn unsupported_is_said(cx: Context) -> Outcome {
    let (id, key) = (sample::id("alice"), sample::random_key(32));
    ok("put_key", cx.store.put_key(&id, &key).await)?;
    let answers: Vec<_> = cx.store.list_keys().take(3).collect().await;
    let count = answers.len();
    ensure(count == 1, "list_keys of a store that cannot list", "one answer", format!("{count} answers"))?;
    for answer in answers {
        cx.expect_error("list_keys", answer.map(|_| "an id"), ErrorKind::Unsupported, Operation::List)?;
    }
    cx.expect_key(&cx.store, &id, &key).await
}
