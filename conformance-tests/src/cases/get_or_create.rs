//! Cases about getting a key or creating it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keystead_core::{Consistency, KeyStoreExt};

use crate::case::case_list;
use crate::context::{Context, Outcome, Store, ensure, ok, same};
use crate::sample;

case_list! {
    "get_or_create.creates_once":
        "the first call creates a key of 32 bytes, and every later call gives that key"
        => creates_once;
    "get_or_create.returns_existing":
        "an existing key is returned and not changed"
        => returns_existing;
    "get_or_create.loser_gets_the_winners_key":
        "a caller whose candidate comes too late gets the existing key, and the candidate is not stored"
        => loser_gets_the_winners_key;
    "get_or_create.custom_generator_called_at_most_once":
        "the caller's generator is called once if there is no key, and not at all if there is one"
        => custom_generator_called_at_most_once;
}

async fn creates_once(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    let mut others = Vec::new();
    for (index, creator) in handles.iter().enumerate() {
        let id = sample::id(format!("alice-{index}"));
        let key = ok("get_or_create_key", creator.get_or_create_key(&id).await)?;
        let len = key.expose_secret().len();
        ensure(len == 32, "get_or_create_key", "a key of 32 bytes", format!("{len} bytes"))?;
        for store in &handles {
            cx.expect_key(store, &id, &key).await?;
            cx.eventually(|| async { same("get_or_create_key", store.get_or_create_key(&id).await, &key) }).await?;
        }
        ensure(!others.contains(&key), "get_or_create_key of another id", "another key", "the same key")?;
        others.push(key);
    }
    if !cx.is_recoverable() {
        created_again(&cx, &handles).await?;
    }
    match cx.capabilities.listing {
        Some(_) => cx.expect_listing(&cx.store, &[sample::id("alice-0"), sample::id("alice-1")]).await,
        None => Ok(()),
    }
}

/// Checks that the next call after a delete, by whichever client, creates and stores a new key.
async fn created_again(cx: &Context, handles: &[Store; 2]) -> Outcome {
    for (deleter, creator) in [(0, 0), (0, 1), (1, 0)] {
        let id = sample::id("alice-0");
        let old = ok("get_or_create_key", handles[deleter].get_or_create_key(&id).await)?;
        ok("delete_key", handles[deleter].delete_key(&id).await)?;
        cx.expect_absent(&handles[0], &id).await?;
        cx.expect_absent(&handles[1], &id).await?;
        cx.bound_over().await;
        let call = "get_or_create_key after a delete";
        let key = cx.patiently(call, || handles[creator].get_or_create_key(&id)).await?;
        ensure(key != old, "get_or_create_key after a delete", "a new key", "the deleted one")?;
        cx.expect_key(&handles[0], &id, &key).await?;
        cx.expect_key(&handles[1], &id, &key).await?;
    }
    Ok(())
}

async fn returns_existing(cx: Context) -> Outcome {
    for (index, len) in [1, 32, 3072].into_iter().enumerate() {
        let id = sample::id(format!("alice-{index}"));
        let key = sample::random_key(len);
        cx.put(&cx.store, &id, &key).await?;
        cx.expect_key(&cx.store, &id, &key).await?;
        cx.eventually(|| async { same("get_or_create_key", cx.store.get_or_create_key(&id).await, &key) }).await?;
        cx.expect_key(&cx.store, &id, &key).await?;
    }
    Ok(())
}

async fn loser_gets_the_winners_key(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    for (index, len) in [32, 3072, 1].into_iter().enumerate() {
        let id = sample::id(format!("alice-{index}"));
        let winner = sample::random_key(len);
        same("get_or_create", handles[index % 2].get_or_create(&id, &winner).await, &winner)?;
        for store in &handles {
            cx.expect_key(store, &id, &winner).await?;
            let loser = sample::random_key(32);
            let call = "get_or_create with another candidate";
            cx.eventually(|| async { same(call, store.get_or_create(&id, &loser).await, &winner) }).await?;
            cx.expect_key(store, &id, &winner).await?;
        }
        let put = sample::random_key(64);
        ok("put_key", cx.store.put_key(&id, &put).await)?;
        cx.expect_key(&cx.store, &id, &put).await?;
        cx.eventually(|| async { same("get_or_create after a put", cx.store.get_or_create(&id, &winner).await, &put) })
            .await?;
    }
    Ok(())
}

async fn custom_generator_called_at_most_once(cx: Context) -> Outcome {
    let id = sample::id("alice");
    let candidate = sample::random_key(48);
    let calls = Arc::new(AtomicUsize::new(0));
    let generator = || {
        let calls = calls.clone();
        let candidate = candidate.clone();
        move || {
            calls.fetch_add(1, Ordering::SeqCst);
            candidate
        }
    };
    let call = "get_or_create_key_with";
    same(call, cx.store.get_or_create_key_with(&id, generator()).await, &candidate)?;
    let count = calls.load(Ordering::SeqCst);
    ensure(count == 1, call, "one call of the generator", format!("{count} calls"))?;
    cx.expect_key(&cx.store, &id, &candidate).await?;
    // A stale read would justify another call of the generator.
    if cx.capabilities.consistency != Consistency::Strong {
        return Ok(());
    }
    same(call, cx.store.get_or_create_key_with(&id, generator()).await, &candidate)?;
    let count = calls.load(Ordering::SeqCst);
    ensure(
        count == 1,
        "get_or_create_key_with of an existing key",
        "no call of the generator",
        format!("{} calls", count - 1),
    )
}
