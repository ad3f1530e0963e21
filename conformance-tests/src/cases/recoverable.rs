//! Cases about a store whose deletions can be undone for some time.

use std::slice;
use std::time::SystemTime;

use keystead_core::{DeletionGrade, Error, ErrorKind, Finality, KeyId, KeyStoreExt, Operation};

use crate::case::case_list;
use crate::context::{CLOCK_SKEW, Context, Outcome, Store, ensure, fail, ok};
use crate::sample;

case_list! {
    "recoverable.calls_agree":
        "while a deletion is pending, either every call says so and changes nothing, or every call finds no \
         key", needs Recoverable
        => calls_agree;
    "recoverable.erase_admits_it":
        "erasing a key whose deletion is pending returns Ok, recoverable until a time within the window, and \
         not verified", needs Recoverable
        => erase_admits_it;
}

/// Returns the error kind of a read of a deleted key after the visibility bound.
async fn after_delete(cx: &Context, store: &Store, id: &KeyId) -> Outcome<ErrorKind> {
    cx.expect_absent(store, id).await?;
    match store.get_key(id).await {
        Err(e) if matches!(e.kind(), ErrorKind::PendingDeletion | ErrorKind::NotFound) => Ok(e.kind()),
        Err(e) => fail("get_key of a deleted key", "PendingDeletion or NotFound", format!("{:?}", e.kind())),
        Ok(_) => fail("get_key of a deleted key", "PendingDeletion or NotFound", "a key"),
    }
}

async fn calls_agree(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    let alice = sample::id("alice");
    let bob = sample::id("bob");
    let key = sample::random_key(32);
    for id in [&alice, &bob] {
        ok("put_key", cx.store.put_key(id, &key).await)?;
        cx.expect_key(&cx.store, id, &key).await?;
    }
    ok("delete_key", cx.store.delete_key(&alice).await)?;
    for store in &handles {
        let kind = after_delete(&cx, store, &alice).await?;
        refused_alike(&cx, store, &alice, kind).await?;
    }
    cx.expect_key(&cx.store, &bob, &key).await
}

/// Expects every call to fail as the read did, and writes to have no effect while a deletion is pending.
async fn refused_alike(cx: &Context, store: &Store, id: &KeyId, kind: ErrorKind) -> Outcome {
    let other = sample::random_key(33);
    let ids = slice::from_ref(id);
    for answer in store.get_keys(ids).await {
        cx.expect_error("get_keys of a deleted key", answer, kind, Operation::Get)?;
    }
    cx.expect_error("delete_key of a deleted key", store.delete_key(id).await, kind, Operation::Delete)?;
    for answer in store.delete_keys(ids).await {
        cx.expect_error("delete_keys of a deleted key", answer, kind, Operation::Delete)?;
    }
    if kind == ErrorKind::NotFound {
        return Ok(());
    }
    cx.expect_error("put_key of a deleted key", store.put_key(id, &other).await, kind, Operation::Put)?;
    match store.create_key(id, &other).await {
        Err(e) if is_told_to_wait(&e) => {}
        answer => cx.expect_error("create_key of a deleted key", answer, kind, Operation::Create)?,
    }
    match store.get_or_create(id, &other).await {
        Err(e) if e.kind() == kind || is_told_to_wait(&e) => {}
        Err(e) => {
            return fail(
                "get_or_create of a deleted key",
                format!("an error of kind {kind:?}"),
                format!("kind {:?}", e.kind()),
            );
        }
        Ok(_) => return fail("get_or_create of a deleted key", format!("an error of kind {kind:?}"), "a key"),
    }
    let now = after_delete(cx, store, id).await?;
    ensure(now == kind, "get_key after refused writes", format!("still {kind:?}"), format!("{now:?}"))
}

/// Reports whether the error is a `Conflict` that says when to try again, which a create may also give.
fn is_told_to_wait(e: &Error) -> bool {
    e.kind() == ErrorKind::Conflict && e.retry_after().is_some()
}

async fn erase_admits_it(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    let id = sample::id("alice");
    let key = sample::random_key(32);
    ok("put_key", cx.store.put_key(&id, &key).await)?;
    cx.expect_key(&cx.store, &id, &key).await?;
    ok("delete_key", cx.store.delete_key(&id).await)?;
    for store in &handles {
        if after_delete(&cx, store, &id).await? == ErrorKind::NotFound {
            continue;
        }
        let erasure = ok("erase_key of a deleted key", store.erase_key(&id).await)?;
        let (DeletionGrade::Recoverable { window }, Finality::RecoverableUntil(until)) =
            (cx.capabilities.deletion, erasure.finality)
        else {
            return fail("erase_key of a deleted key", "RecoverableUntil", format!("{erasure:?}"));
        };
        let now = SystemTime::now();
        let plausible = until + CLOCK_SKEW > now && until <= now + window + CLOCK_SKEW;
        let expected = format!("existed: true, verified: false, recoverable for at most {window:?}");
        let holds = plausible && erasure.existed && !erasure.verified;
        ensure(holds, "erase_key of a deleted key", expected, format!("{erasure:?}"))?;
    }
    Ok(())
}
