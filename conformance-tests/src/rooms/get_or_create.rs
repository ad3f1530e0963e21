//! Reading a key or making it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keystead_core::KeyStoreExt;

use crate::case::room;
use crate::context::{Context, Outcome, ensure, ok, same};
use crate::sample;

room! {
    "get_or_create.creates_once":
        "the first call makes a key of 32 bytes and stores it, every later one gives that key"
        => creates_once;
    "get_or_create.returns_existing":
        "where a key stands it is given back and not changed"
        => returns_existing;
    "get_or_create.loser_gets_the_winners_key":
        "a caller whose candidate came too late gets the key that stands, and the candidate is stored nowhere"
        => loser_gets_the_winners_key;
    "get_or_create.custom_generator_called_at_most_once":
        "the caller's own generator is called once if there is no key, and not at all if there is one"
        => custom_generator_called_at_most_once;
}

async fn creates_once(cx: Context) -> Outcome {
    let (alice, bob) = (sample::id("alice"), sample::id("bob"));
    let key = ok("get_or_create_key", cx.store.get_or_create_key(&alice).await)?;
    let len = key.expose_secret().len();
    ensure(len == 32, "get_or_create_key", "a key of 32 bytes", format!("{len} bytes"))?;
    cx.holds(&cx.store, &alice, &key).await?;
    for store in [cx.store.clone(), cx.reopen().await?] {
        cx.holds(&store, &alice, &key).await?;
        same("get_or_create_key", store.get_or_create_key(&alice).await, &key)?;
    }
    let other = ok("get_or_create_key", cx.store.get_or_create_key(&bob).await)?;
    ensure(other != key, "get_or_create_key of another id", "another key", "the same key")
}

async fn returns_existing(cx: Context) -> Outcome {
    for (number, len) in [1, 32, 3072].into_iter().enumerate() {
        let (id, key) = (sample::id(format!("alice-{number}")), sample::random_key(len));
        ok("put_key", cx.store.put_key(&id, &key).await)?;
        cx.holds(&cx.store, &id, &key).await?;
        same("get_or_create_key", cx.store.get_or_create_key(&id).await, &key)?;
        cx.holds(&cx.store, &id, &key).await?;
    }
    Ok(())
}

async fn loser_gets_the_winners_key(cx: Context) -> Outcome {
    let (id, winner) = (sample::id("alice"), sample::random_key(32));
    same("get_or_create", cx.store.get_or_create(&id, &winner).await, &winner)?;
    cx.holds(&cx.store, &id, &winner).await?;
    for store in [cx.store.clone(), cx.reopen().await?] {
        let loser = sample::random_key(32);
        same("get_or_create with another candidate", store.get_or_create(&id, &loser).await, &winner)?;
        cx.holds(&cx.store, &id, &winner).await?;
    }
    let put = sample::random_key(64);
    ok("put_key", cx.store.put_key(&id, &put).await)?;
    cx.holds(&cx.store, &id, &put).await?;
    same("get_or_create after a put", cx.store.get_or_create(&id, &winner).await, &put)
}

async fn custom_generator_called_at_most_once(cx: Context) -> Outcome {
    let (id, candidate) = (sample::id("alice"), sample::random_key(48));
    let calls = Arc::new(AtomicUsize::new(0));
    let generator = || {
        let (calls, candidate) = (calls.clone(), candidate.clone());
        move || {
            calls.fetch_add(1, Ordering::SeqCst);
            candidate
        }
    };
    let call = "get_or_create_key_with";
    same(call, cx.store.get_or_create_key_with(&id, generator()).await, &candidate)?;
    let count = calls.load(Ordering::SeqCst);
    ensure(count == 1, call, "one call of the generator", format!("{count}"))?;
    cx.holds(&cx.store, &id, &candidate).await?;
    same(call, cx.store.get_or_create_key_with(&id, generator()).await, &candidate)?;
    let count = calls.load(Ordering::SeqCst);
    ensure(count == 1, "get_or_create_key_with of a standing key", "no call of the generator", format!("{}", count - 1))
}
