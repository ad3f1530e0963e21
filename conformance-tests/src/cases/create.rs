//! Cases about creating a key only if there is none.

use keystead_core::{ErrorKind, KeyStoreExt, Operation, PutMode};

use crate::case::case_list;
use crate::context::{Context, Outcome, call, ensure, fail, ok};
use crate::sample;

case_list! {
    "create.refuses_existing":
        "creating a key for an id that has one fails with AlreadyExists and leaves the old key unchanged"
        => refuses_existing;
    "create.after_delete":
        "after a delete a key can be created again, or the error says when; a refused create stores nothing"
        => after_delete;
}

async fn refuses_existing(cx: Context) -> Outcome {
    for (index, len) in [1, 32, 3072].into_iter().enumerate() {
        let id = sample::id(format!("alice-{index}"));
        let first = sample::random_key(len);
        let create = call("put_key_with(Create)", &id);
        ok(&create, cx.store.create_key(&id, &first).await)?;
        cx.expect_key(&cx.store, &id, &first).await?;
        // With another key or the same one, by this client or another.
        for (store, second) in [
            (cx.store.clone(), sample::random_key(32)),
            (cx.store.clone(), sample::random_key(3072)),
            (cx.store.clone(), first.clone()),
            (cx.reopen().await?, sample::random_key(32)),
        ] {
            let answer = store.put_key_with(&id, &second, PutMode::Create).await;
            cx.expect_error(&create, answer, ErrorKind::AlreadyExists, Operation::Create)?;
            cx.expect_key(&store, &id, &first).await?;
        }
        let put = sample::random_key(32);
        ok("put_key", cx.store.put_key(&id, &put).await)?;
        cx.expect_key(&cx.store, &id, &put).await?;
        let answer = cx.store.create_key(&id, &first).await;
        cx.expect_error(&create, answer, ErrorKind::AlreadyExists, Operation::Create)?;
        cx.expect_key(&cx.store, &id, &put).await?;
    }
    Ok(())
}

async fn after_delete(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    // Which of the two clients creates the key, which deletes it, and which creates it again.
    for (index, (creator, deleter, again)) in [(0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 1, 1)].into_iter().enumerate() {
        let id = sample::id(format!("alice-{index}"));
        let first = sample::random_key([32, 3072][index % 2]);
        let second = sample::random_key([3072, 33][index % 2]);
        ok("create_key", handles[creator].create_key(&id, &first).await)?;
        cx.expect_key(&handles[0], &id, &first).await?;
        cx.expect_key(&handles[1], &id, &first).await?;
        ok("delete_key", handles[deleter].delete_key(&id).await)?;
        cx.expect_absent(&handles[0], &id).await?;
        cx.expect_absent(&handles[1], &id).await?;
        match handles[again].create_key(&id, &second).await {
            Ok(()) => {
                cx.expect_key(&handles[0], &id, &second).await?;
                cx.expect_key(&handles[1], &id, &second).await?;
            }
            Err(e) => {
                let later = matches!(e.kind(), ErrorKind::Conflict | ErrorKind::PendingDeletion);
                let got = format!("kind {:?}, retry_after {:?}", e.kind(), e.retry_after());
                let expected = "Ok, or Conflict or PendingDeletion with retry_after";
                ensure(later && e.retry_after().is_some(), call("create_key", &id), expected, got)?;
                if handles[0].get_key(&id).await.is_ok() {
                    return fail(call("get_key", &id), "no key, because its creation was refused", "a key");
                }
            }
        }
    }
    Ok(())
}
