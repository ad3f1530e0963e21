//! Cases about overwriting a key.

use keystead_core::KeyStoreExt;

use crate::case::case_list;
use crate::context::{Context, Outcome, Removal, ok};
use crate::sample;

case_list! {
    "put.overwrites":
        "every client reads the key that was put last"
        => overwrites;
    "put.grows_and_shrinks":
        "a longer or a shorter key can overwrite a key, and nothing of the old key remains in it"
        => grows_and_shrinks;
    "put.other_ids_untouched":
        "a write to one id changes no other id, even if the ids are similar or the keys equal"
        => other_ids_untouched;
    "put.idempotent_same_value":
        "putting the same key again succeeds, and restores the key if it was replaced or deleted meanwhile"
        => idempotent_same_value;
}

async fn overwrites(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    let id = sample::id("alice");
    for round in 0..cx.size(130, 6) {
        let mut key = sample::random_key(32);
        if round % 3 == 0 {
            // A key that differs from the next such key in the middle only.
            let mut bytes = [7; 32];
            bytes[16] = u8::try_from(round % 256).unwrap_or_default();
            key = sample::key(bytes);
        } else if round % 3 == 1 {
            // A key that begins as the one before.
            key = sample::key([&[7], key.expose_secret()].concat());
        }
        ok("put_key", handles[round / 2 % 2].put_key(&id, &key).await)?;
        cx.expect_key(&handles[0], &id, &key).await?;
        cx.expect_key(&handles[1], &id, &key).await?;
    }
    Ok(())
}

async fn grows_and_shrinks(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    let id = sample::id("alice");
    for (round, len) in [1, 3072, 33, 255, 256, 1024, 1, 2048, 32].into_iter().enumerate() {
        let key = sample::random_key(len);
        ok("put_key", handles[round % 2].put_key(&id, &key).await)?;
        cx.expect_key(&handles[(round + 1) % 2], &id, &key).await?;
        // The beginning of the key, and then the key again.
        let beginning = sample::key(key.expose_secret()[..len.div_ceil(2)].to_vec());
        for key in [beginning, key] {
            ok("put_key", handles[round % 2].put_key(&id, &key).await)?;
            cx.expect_key(&handles[(round + 1) % 2], &id, &key).await?;
        }
    }
    Ok(())
}

async fn other_ids_untouched(cx: Context) -> Outcome {
    let others = ["alic", "alice2", "alice ", "Alice", "alice/x", "al", "bob", "alice@example.com"].map(sample::id);
    let keys: Vec<_> = others.iter().map(|_| sample::random_key(32)).collect();
    for (id, key) in others.iter().zip(&keys) {
        ok("put_key", cx.store.put_key(id, key).await)?;
    }
    let alice = sample::id("alice");
    ok("create_key", cx.store.create_key(&alice, &sample::random_key(3072)).await)?;
    // First equal to another id's key, then different.
    ok("put_key", cx.store.put_key(&alice, &keys[0]).await)?;
    let last = sample::random_key(16);
    ok("put_key", cx.store.put_key(&alice, &last).await)?;
    cx.expect_key(&cx.store, &alice, &last).await?;
    for (id, key) in others.iter().zip(&keys) {
        cx.expect_key(&cx.store, id, key).await?;
    }
    Ok(())
}

async fn idempotent_same_value(cx: Context) -> Outcome {
    let [one, two] = cx.two_handles().await?;
    let id = sample::id("alice");
    let key = sample::random_key(32);
    let other = sample::random_key(32);
    for _ in 0..3 {
        ok("put_key", one.put_key(&id, &key).await)?;
        cx.expect_key(&one, &id, &key).await?;
    }
    ok("put_key by another client", two.put_key(&id, &other).await)?;
    cx.expect_key(&one, &id, &other).await?;
    ok("put_key of the first key again", one.put_key(&id, &key).await)?;
    cx.expect_key(&two, &id, &key).await?;
    if cx.capabilities.listing.is_some() {
        cx.expect_listing(&one, std::slice::from_ref(&id)).await?;
    }
    if !cx.is_recoverable() {
        Removal::Delete.apply(&one, &id).await?;
        cx.expect_absent(&one, &id).await?;
        cx.put(&one, &id, &key).await?;
        cx.expect_key(&one, &id, &key).await?;
        cx.expect_key(&two, &id, &key).await?;
    }
    Ok(())
}
