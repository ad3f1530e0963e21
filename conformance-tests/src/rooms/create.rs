//! Creating a key only if there is none.

use keystead_core::{ErrorKind, KeyStoreExt, Operation, PutMode};

use crate::case::room;
use crate::context::{Context, Outcome, call, ensure, fail, ok};
use crate::sample;

room! {
    "create.refuses_existing":
        "creating a key where one stands is AlreadyExists and leaves the old one as it was"
        => refuses_existing;
    "create.after_delete":
        "after a delete a key can be created again, or the store says when; it never claims a create that did not happen"
        => after_delete;
}

async fn refuses_existing(cx: Context) -> Outcome {
    for (number, len) in [1, 32, 3072].into_iter().enumerate() {
        let (id, first) = (sample::id(format!("alice-{number}")), sample::random_key(len));
        let create = call("put_key_with(Create)", &id);
        ok(&create, cx.store.create_key(&id, &first).await)?;
        cx.holds(&cx.store, &id, &first).await?;
        // Neither another key nor the very same one, from this handle or another.
        for (store, second) in [
            (cx.store.clone(), sample::random_key(32)),
            (cx.store.clone(), sample::random_key(3072)),
            (cx.store.clone(), first.clone()),
            (cx.reopen().await?, sample::random_key(32)),
        ] {
            let answer = store.put_key_with(&id, &second, PutMode::Create).await;
            cx.refused(&create, answer, ErrorKind::AlreadyExists, Operation::Create)?;
            cx.holds(&store, &id, &first).await?;
        }
        let put = sample::random_key(32);
        ok("put_key", cx.store.put_key(&id, &put).await)?;
        cx.holds(&cx.store, &id, &put).await?;
        let answer = cx.store.create_key(&id, &first).await;
        cx.refused(&create, answer, ErrorKind::AlreadyExists, Operation::Create)?;
        cx.holds(&cx.store, &id, &put).await?;
    }
    Ok(())
}

async fn after_delete(cx: Context) -> Outcome {
    let (id, first, second) = (sample::id("alice"), sample::random_key(32), sample::random_key(33));
    ok("create_key", cx.store.create_key(&id, &first).await)?;
    cx.holds(&cx.store, &id, &first).await?;
    ok("delete_key", cx.store.delete_key(&id).await)?;
    cx.absent(&cx.store, &id).await?;
    match cx.store.create_key(&id, &second).await {
        Ok(()) => cx.holds(&cx.store, &id, &second).await,
        Err(e) => {
            let later = matches!(e.kind(), ErrorKind::Conflict | ErrorKind::PendingDeletion);
            let got = format!("kind {:?}, retry_after {:?}", e.kind(), e.retry_after());
            let expected = "Ok, or Conflict or PendingDeletion with retry_after";
            ensure(later && e.retry_after().is_some(), call("create_key", &id), expected, got)?;
            match cx.store.get_key(&id).await {
                Ok(_) => fail(call("get_key", &id), "no key: its creation was refused", "a key"),
                Err(_) => Ok(()),
            }
        }
    }
}
