//! Cases about stores whose reads or listings lag: the lag ends, and no call claims more than it knows.

use std::time::Instant;

use keystead_core::{ErrorKind, KeyId, KeyStoreExt, Operation, SecretKey};

use crate::case::case_list;
use crate::context::{Context, Outcome, Store, call, ensure, fail, ok, same};
use crate::sample;

case_list! {
    "eventual.reads_settle":
        "once the bound after a write is over, every read of every client sees the write, then and later",
        needs Eventual
        => reads_settle;
    "eventual.listing_settles":
        "once the listing's bound after a write is over, every listing of every client sees the write",
        needs EventualListing
        => listing_settles;
    "eventual.invisible_winner_is_a_conflict":
        "a get_or_create that loses to a key that is not visible yet gives that key, or a Conflict that says \
         when to try again", needs Eventual
        => invisible_winner_is_a_conflict;
    "eventual.verified_erasure_has_waited":
        "an erasure that says verified has read at least one bound after its delete", needs Eventual
        => verified_erasure_has_waited;
}

async fn reads_settle(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    let id = sample::id("alice");
    for round in 0..cx.size(3, 1) {
        let created = sample::random_key(32);
        let put = sample::random_key(100);
        let one = &handles[round % 2];
        let two = &handles[(round + 1) % 2];
        ok("create_key", one.create_key(&id, &created).await)?;
        settled(&cx, &handles, &id, Some(&created)).await?;
        ok("put_key", two.put_key(&id, &put).await)?;
        old_or_new(&cx, &handles, &id, &created, &put).await?;
        settled(&cx, &handles, &id, Some(&put)).await?;
        ok("delete_key", one.delete_key(&id).await)?;
        if cx.is_recoverable() {
            return cx.expect_absent(two, &id).await;
        }
        settled(&cx, &handles, &id, None).await?;
    }
    Ok(())
}

/// Checks that each read gives the old key or the new one while an overwrite becomes visible.
async fn old_or_new(cx: &Context, handles: &[Store], id: &KeyId, old: &SecretKey, new: &SecretKey) -> Outcome {
    for store in handles.iter().cycle().take(cx.size(20, 4)) {
        let key = ok("get_key right after an overwrite", store.get_key(id).await)?;
        let known = key == *old || key == *new;
        ensure(known, "get_key right after an overwrite", "the old key or the new one", "another key")?;
        tokio::time::sleep(cx.bound() / 20).await;
    }
    Ok(())
}

/// Checks that each of many reads sees this key, or none, once the bound is over.
async fn settled(cx: &Context, handles: &[Store], id: &KeyId, key: Option<&SecretKey>) -> Outcome {
    tokio::time::sleep(cx.bound()).await;
    for store in handles.iter().cycle().take(cx.size(20, 6)) {
        // Over several bounds, because an old key must not come back later either.
        tokio::time::sleep(cx.bound() / 4).await;
        let mut answers = vec![(call("get_key", id), store.get_key(id).await)];
        answers.extend(cx.batch_of_one(store, id).await?.into_iter().map(|answer| (call("get_keys", id), answer)));
        for (call, answer) in answers {
            let call = format!("{call} when the bound is over");
            match key {
                Some(key) => same(&call, answer, key)?,
                None => cx.expect_error(&call, answer, ErrorKind::NotFound, Operation::Get)?,
            }
        }
    }
    Ok(())
}

async fn listing_settles(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    let ids = sample::ids(cx.size(20, 5));
    for id in &ids {
        ok("put_key", cx.store.put_key(id, &sample::random_key(32)).await)?;
    }
    tokio::time::sleep(cx.bound() + cx.listing_bound()).await;
    for store in handles.iter().cycle().take(4) {
        cx.expect_listing_now(store, &ids).await?;
    }
    let (deleted, left) = ids.split_at(ids.len() / 2);
    for id in deleted {
        ok("delete_key", cx.store.delete_key(id).await)?;
    }
    tokio::time::sleep(cx.bound() + cx.listing_bound()).await;
    for store in handles.iter().cycle().take(4) {
        cx.expect_listing_now(store, left).await?;
    }
    Ok(())
}

async fn invisible_winner_is_a_conflict(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    for round in 0..cx.size(10, 2) {
        let id = sample::id(format!("alice-{round}"));
        let winner = sample::random_key(32);
        ok("create_key", handles[0].create_key(&id, &winner).await)?;
        // At once, while the winner's key may be invisible.
        for store in &handles {
            let call = "get_or_create right after another caller's create";
            match store.get_or_create(&id, &sample::random_key(32)).await {
                Err(e) if e.kind() == ErrorKind::Conflict => {
                    let expected = "a Conflict with retry_after, retryable";
                    let told = e.retry_after().is_some() && e.is_retryable();
                    ensure(
                        told,
                        call,
                        expected,
                        format!("a Conflict with retry_after {:?}, retryable: {}", e.retry_after(), e.is_retryable()),
                    )?;
                }
                answer => same(call, answer, &winner)?,
            }
        }
        cx.expect_key(&handles[0], &id, &winner).await?;
        cx.expect_key(&handles[1], &id, &winner).await?;
    }
    Ok(())
}

async fn verified_erasure_has_waited(cx: Context) -> Outcome {
    let alice = sample::id("alice");
    let key = sample::random_key(32);
    ok("put_key", cx.store.put_key(&alice, &key).await)?;
    cx.expect_key(&cx.store, &alice, &key).await?;
    for (id, what) in [(&alice, "erase_key"), (&sample::id("nobody"), "erase_key of a key that never was")] {
        let begin = Instant::now();
        let erasure = ok(what, cx.store.erase_key(id).await)?;
        let took = begin.elapsed();
        // Behind a fence the proof is read beneath the cache, because the fence refuses every read of the id.
        if cx.capabilities.fenced && cx.capabilities.cached {
            for store in [&cx.store, &cx.reopen().await?] {
                cx.expect_error("get_key of an erased id", store.get_key(id).await, ErrorKind::Erased, Operation::Get)?;
            }
            continue;
        }
        if erasure.verified && took < cx.bound() {
            let expected = format!("verified: false, or a call of at least {:?}", cx.bound());
            return fail(what, expected, format!("verified: true after {took:?}"));
        }
    }
    cx.expect_absent(&cx.store, &alice).await
}
