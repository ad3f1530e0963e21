//! Overwriting a key.

use keystead_core::KeyStoreExt;

use crate::case::room;
use crate::context::{Context, Outcome, ok};
use crate::sample;

room! {
    "put.overwrites":
        "the key that was put last is the one that is read"
        => overwrites;
    "put.grows_and_shrinks":
        "a key can be overwritten by a longer or a shorter one, and nothing of the old one is left in it"
        => grows_and_shrinks;
    "put.other_ids_untouched":
        "writing one id changes no other, of similar names neither"
        => other_ids_untouched;
    "put.idempotent_same_value":
        "putting the same key again succeeds and changes nothing"
        => idempotent_same_value;
}

async fn overwrites(cx: Context) -> Outcome {
    let id = sample::id("alice");
    for _ in 0..cx.size(20, 4) {
        let key = sample::random_key(32);
        ok("put_key", cx.store.put_key(&id, &key).await)?;
        cx.holds(&cx.store, &id, &key).await?;
    }
    cx.holds(&cx.reopen().await?, &id, &{
        let last = sample::random_key(48);
        ok("put_key", cx.store.put_key(&id, &last).await)?;
        last
    })
    .await
}

async fn grows_and_shrinks(cx: Context) -> Outcome {
    let id = sample::id("alice");
    for len in [1, 3072, 33, 255, 256, 1024, 1] {
        let key = sample::random_key(len);
        ok("put_key", cx.store.put_key(&id, &key).await)?;
        cx.holds(&cx.store, &id, &key).await?;
    }
    let after = sample::random_key(32);
    ok("put_key", cx.store.put_key(&id, &after).await)?;
    cx.holds(&cx.reopen().await?, &id, &after).await
}

async fn other_ids_untouched(cx: Context) -> Outcome {
    let others = ["alic", "alice2", "alice ", "Alice", "alice/x", "al", "bob", "alice@example.com"].map(sample::id);
    let keys: Vec<_> = others.iter().map(|_| sample::random_key(32)).collect();
    for (id, key) in others.iter().zip(&keys) {
        ok("put_key", cx.store.put_key(id, key).await)?;
    }
    let alice = sample::id("alice");
    ok("create_key", cx.store.create_key(&alice, &sample::random_key(3072)).await)?;
    let last = sample::random_key(16);
    ok("put_key", cx.store.put_key(&alice, &last).await)?;
    cx.holds(&cx.store, &alice, &last).await?;
    for (id, key) in others.iter().zip(&keys) {
        cx.holds(&cx.store, id, key).await?;
    }
    Ok(())
}

async fn idempotent_same_value(cx: Context) -> Outcome {
    let (id, key) = (sample::id("alice"), sample::random_key(32));
    for _ in 0..3 {
        ok("put_key", cx.store.put_key(&id, &key).await)?;
        cx.holds(&cx.store, &id, &key).await?;
    }
    match cx.capabilities.listing {
        Some(_) => cx.lists(&cx.store, &[id]).await,
        None => Ok(()),
    }
}
