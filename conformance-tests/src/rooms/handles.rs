//! Several clients, several runtimes, several namespaces; and the store's word about itself.

use keystead_core::{ErrorKind, KeyStoreExt, Operation};

use crate::case::room;
use crate::context::{Context, Outcome, ensure, fail, ok};
use crate::sample;

room! {
    "check.ok":
        "check succeeds on a store that works, empty or not, and the store says what it is"
        => check_ok;
    "reopen.sees_everything":
        "a client that is opened later sees every key"
        => sees_everything;
    "two_handles.see_each_other":
        "two clients see each other's writes"
        => see_each_other;
    "isolation.namespaces_do_not_meet":
        "the same id in two namespaces is two keys"
        => namespaces_do_not_meet;
    "runtime.used_from_a_second_runtime":
        "a store that was opened on one runtime works on another, and still on the first after that has ended"
        => used_from_a_second_runtime;
}

async fn check_ok(cx: Context) -> Outcome {
    ok("check of an empty store", cx.store.check().await)?;
    ok("put_key", cx.store.put_key(&sample::id("alice"), &sample::random_key(32)).await)?;
    ok("check", cx.store.check().await)?;
    ok("check of a second client", cx.reopen().await?.check().await)?;
    let info = cx.store.info();
    let named = !info.scheme().is_empty() && info.to_string().starts_with(info.scheme());
    ensure(named, "info", "a scheme, with which Display starts", format!("{info:?}"))
}

async fn sees_everything(cx: Context) -> Outcome {
    let keys = sample::awkward_keys();
    let keys: Vec<_> = keys.iter().take(cx.size(keys.len(), 16)).collect();
    let ids = sample::ids(keys.len());
    for (id, key) in ids.iter().zip(&keys) {
        ok("create_key", cx.store.create_key(id, key).await)?;
    }
    let reopened = cx.reopen().await?;
    for (id, key) in ids.iter().zip(&keys) {
        cx.holds(&reopened, id, key).await?;
    }
    ensure(reopened.capabilities() == cx.capabilities, "capabilities of a second client", "the same", "others")
}

async fn see_each_other(cx: Context) -> Outcome {
    let (one, two) = (cx.store.clone(), cx.reopen().await?);
    let id = sample::id("alice");
    for _ in 0..cx.size(10, 3) {
        for (writer, reader) in [(&one, &two), (&two, &one)] {
            let key = sample::random_key(32);
            ok("put_key", writer.put_key(&id, &key).await)?;
            cx.holds(reader, &id, &key).await?;
            let again = reader.create_key(&id, &key).await;
            cx.refused("create_key by the other client", again, ErrorKind::AlreadyExists, Operation::Create)?;
            ok("delete_key by the other client", reader.delete_key(&id).await)?;
            cx.absent(writer, &id).await?;
            if cx.is_recoverable() {
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn namespaces_do_not_meet(cx: Context) -> Outcome {
    let other = cx.open_another().await?;
    let (id, here, there) = (sample::id("alice"), sample::random_key(32), sample::random_key(32));
    ok("put_key", cx.store.put_key(&id, &here).await)?;
    cx.holds(&cx.store, &id, &here).await?;
    cx.absent(&other, &id).await?;
    ok("create_key in another namespace", other.create_key(&id, &there).await)?;
    cx.holds(&other, &id, &there).await?;
    cx.holds(&cx.store, &id, &here).await?;
    ok("delete_key", cx.store.delete_key(&id).await)?;
    cx.absent(&cx.store, &id).await?;
    cx.holds(&other, &id, &there).await?;
    match cx.capabilities.listing {
        Some(_) => cx.lists(&other, &[id]).await,
        None => Ok(()),
    }
}

async fn used_from_a_second_runtime(cx: Context) -> Outcome {
    let (id, key) = (sample::id("alice"), sample::random_key(32));
    ok("put_key", cx.store.put_key(&id, &key).await)?;
    cx.holds(&cx.store, &id, &key).await?;
    let (store, second_id, second_key) = (cx.store.clone(), sample::id("bob"), sample::random_key(33));
    let written = {
        let (id, key) = (second_id.clone(), second_key.clone());
        move || -> Outcome {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(e) => return fail("a second tokio runtime", "one", e.to_string()),
            };
            runtime.block_on(async {
                ok("find_key on a second runtime", store.find_key(&sample::id("alice")).await)?;
                ok("put_key on a second runtime", store.put_key(&id, &key).await)?;
                ok("check on a second runtime", store.check().await)
            })
        }
    };
    cx.unblocked("put_key on a second runtime", async move {
        // The second runtime lives and ends on a thread that knows no first one.
        let ended = tokio::task::spawn_blocking(|| std::thread::spawn(written).join()).await;
        match ended {
            Ok(Ok(outcome)) => outcome,
            _ => fail("calls on a second runtime", "an answer", "a panic in the store"),
        }
    })
    .await?;
    cx.holds(&cx.store, &second_id, &second_key).await?;
    let last = sample::random_key(34);
    ok("put_key on the first runtime", cx.store.put_key(&id, &last).await)?;
    cx.holds(&cx.store, &id, &last).await
}
