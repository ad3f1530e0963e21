//! Cases about a fenced store and the ids that it has erased.

use std::slice;

use keystead_core::{ErrorKind, KeyId, KeyStoreExt, Operation};

use crate::case::case_list;
use crate::context::{Context, Outcome, Store, ensure, list, ok};
use crate::sample;

case_list! {
    "fence.erased_stays_erased":
        "once an id is erased, every read and write of it by every client fails with Erased and changes \
         nothing", needs Fence
        => erased_stays_erased;
}

async fn erased_stays_erased(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    let bob = sample::id("bob");
    let key = sample::random_key(32);
    cx.put(&cx.store, &bob, &key).await?;
    // The first id has a key, the second one never had any.
    for (index, alice) in [sample::id("alice"), sample::id("nobody")].into_iter().enumerate() {
        if index == 0 {
            cx.put(&handles[0], &alice, &key).await?;
            cx.expect_key(&handles[1], &alice, &key).await?;
        }
        ok("erase_key", handles[index].erase_key(&alice).await)?;
        for store in handles.iter().chain([&cx.reopen().await?]) {
            expect_erased(&cx, store, &alice).await?;
        }
        ok("erase_key of an erased id", handles[0].erase_key(&alice).await)?;
        expect_erased(&cx, &handles[1], &alice).await?;
    }
    cx.expect_key(&handles[0], &bob, &key).await?;
    // A delete does not erase.
    ok("delete_key", handles[0].delete_key(&bob).await)?;
    if !cx.is_recoverable() {
        cx.expect_absent(&handles[0], &bob).await?;
        cx.put(&handles[1], &bob, &key).await?;
        cx.expect_key(&handles[0], &bob, &key).await?;
    }
    Ok(())
}

/// Expects every call to fail with `Erased`, and the id not to be listed.
async fn expect_erased(cx: &Context, store: &Store, id: &KeyId) -> Outcome {
    let new = sample::random_key(33);
    let kind = ErrorKind::Erased;
    cx.expect_error("get_key of an erased id", store.get_key(id).await, kind, Operation::Get)?;
    for answer in store.get_keys(slice::from_ref(id)).await {
        cx.expect_error("get_keys of an erased id", answer, kind, Operation::Get)?;
    }
    cx.expect_error("put_key of an erased id", store.put_key(id, &new).await, kind, Operation::Put)?;
    cx.expect_error("create_key of an erased id", store.create_key(id, &new).await, kind, Operation::Create)?;
    cx.expect_error("get_or_create of an erased id", store.get_or_create(id, &new).await, kind, Operation::Create)?;
    cx.expect_error("get_or_create_key of an erased id", store.get_or_create_key(id).await, kind, Operation::Get)?;
    cx.expect_error("get_key of an erased id", store.get_key(id).await, kind, Operation::Get)?;
    if cx.capabilities.listing.is_some() {
        let listed = list(store).await?.contains(id);
        ensure(!listed, "list_keys", "no erased id", "an erased id")?;
    }
    Ok(())
}
