//! Listing the ids.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use keystead_core::{ErrorKind, KeyId, KeyStoreExt, Operation};

use crate::case::{Need, room};
use crate::context::{Context, Outcome, Stop, Store, ensure, fail, list, ok};
use crate::sample;

room! {
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
    cx.lists(&cx.store, &[]).await?;
    let id = sample::id("alice");
    ok("put_key", cx.store.put_key(&id, &sample::random_key(32)).await)?;
    cx.lists(&cx.store, std::slice::from_ref(&id)).await?;
    ok("delete_key", cx.store.delete_key(&id).await)?;
    cx.lists(&cx.store, &[]).await
}

async fn all_once(cx: Context) -> Outcome {
    // A little over the round number that a forgotten second page would stop at.
    let ids = filled(&cx, cx.size(1_025, 105)).await?;
    cx.lists(&cx.store, &ids).await?;
    cx.lists(&cx.reopen().await?, &ids).await
}

async fn deleted_absent(cx: Context) -> Outcome {
    let ids = filled(&cx, cx.size(60, 24)).await?;
    let (kept, deleted) = ids.split_at(ids.len() / 2);
    for id in deleted {
        ok("delete_key", cx.store.delete_key(id).await)?;
    }
    for (number, id) in kept.iter().enumerate() {
        ok("put_key", cx.store.put_key(id, &sample::random_key(1 + number * 50)).await)?;
    }
    cx.lists(&cx.store, kept).await
}

async fn foreign_entries_ignored(cx: Context) -> Outcome {
    let ids = filled(&cx, 5).await?;
    if !cx.plant_foreign().await? {
        return Err(Stop::Ignored(Need::ForeignEntries.reason()));
    }
    cx.lists(&cx.store, &ids).await
}

async fn dropped_midway(cx: Context) -> Outcome {
    let mut ids = filled(&cx, cx.size(300, 25)).await?;
    for taken in [0, 1, 2, 10, ids.len() - 1] {
        let begun: Vec<_> = cx.store.list_keys().take(taken).collect().await;
        for id in begun {
            ok("list_keys", id)?;
        }
        let id = sample::id(format!("after-{taken}"));
        ok("put_key after a dropped listing", cx.store.put_key(&id, &sample::random_key(32)).await)?;
        ids.push(id);
    }
    cx.lists(&cx.store, &ids).await
}

async fn open_stream_blocks_no_writer(cx: Context) -> Outcome {
    let ids = filled(&cx, cx.size(300, 25)).await?;
    cx.lists(&cx.store, &ids).await?;
    let mut listing = cx.store.list_keys();
    let first = listing.next().await;
    ensure(first.is_some(), "list_keys", "a first id", "the end")?;
    for (number, store) in [cx.store.clone(), cx.reopen().await?].into_iter().enumerate() {
        let standing = ids.get(number).cloned().unwrap_or_else(|| sample::id("nobody"));
        let calls = async move { every_call(&store, &standing, number).await };
        cx.unblocked("put, create, get and delete while a listing is open", calls).await?;
    }
    while let Some(id) = listing.next().await {
        ok("list_keys, continued after other calls", id)?;
    }
    Ok(())
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
    let stable = filled(&cx, cx.size(300, 25)).await?;
    cx.lists(&cx.store, &stable).await?;
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
        ensure(lost == 0, "list_keys during writes", "every id that stands throughout", format!("{lost} lost"))?;
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
        cx.refused("list_keys", answer.map(|_| "an id"), ErrorKind::Unsupported, Operation::List)?;
    }
    cx.holds(&cx.store, &id, &key).await
}
