//! Cases about several clients, runtimes and namespaces, and about what a store says of itself.

use keystead_core::{ErrorKind, KeyId, KeyStoreExt, Operation, SecretKey};

use crate::case::case_list;
use crate::context::{Context, Outcome, ensure, fail, ok};
use crate::sample;

case_list! {
    "check.ok":
        "check succeeds on a working store, empty or not, and changes nothing; info names the scheme"
        => check_ok;
    "reopen.sees_everything":
        "a client that is opened later sees every key"
        => sees_everything;
    "two_handles.see_each_other":
        "two clients see each other's writes"
        => see_each_other;
    "isolation.namespaces_do_not_meet":
        "one id has separate keys in two namespaces"
        => namespaces_do_not_meet;
    "runtime.used_from_a_second_runtime":
        "a store that was opened on one runtime works on another, and still works on the first after the \
         other has ended"
        => used_from_a_second_runtime;
}

async fn check_ok(cx: Context) -> Outcome {
    ok("check of an empty store", cx.store.check().await)?;
    let keys: Vec<(KeyId, SecretKey)> = sample::ids(3).into_iter().map(|id| (id, sample::random_key(32))).collect();
    for (id, key) in &keys {
        ok("put_key", cx.store.put_key(id, key).await)?;
    }
    for store in cx.two_handles().await? {
        ok("check", store.check().await)?;
    }
    let before = format!("{:?}", cx.capabilities);
    let now = format!("{:?}", cx.store.capabilities());
    ensure(before == now, "capabilities after some writes", before, now)?;
    // The check has changed nothing and stored nothing.
    for (id, key) in &keys {
        cx.expect_key(&cx.store, id, key).await?;
    }
    if cx.capabilities.listing.is_some() {
        let ids: Vec<KeyId> = keys.into_iter().map(|(id, _)| id).collect();
        cx.expect_listing(&cx.store, &ids).await?;
    }
    let info = cx.store.info();
    let named = !info.scheme().is_empty() && info.to_string().starts_with(info.scheme());
    ensure(named, "info", "a scheme, and a Display that starts with it", format!("{info:?}"))
}

async fn sees_everything(cx: Context) -> Outcome {
    let keys = sample::awkward_keys();
    let keys: Vec<_> = keys.iter().take(cx.size(keys.len(), 20)).collect();
    let ids = sample::ids(keys.len());
    for (id, key) in ids.iter().zip(&keys) {
        ok("create_key", cx.store.create_key(id, key).await)?;
    }
    let reopened = cx.reopen().await?;
    for (id, key) in ids.iter().zip(&keys) {
        cx.expect_key(&reopened, id, key).await?;
    }
    for (index, key) in keys.iter().enumerate().take(cx.size(keys.len(), 5)) {
        let id = sample::id(format!("second-{index}"));
        ok("create_key by a second client", reopened.create_key(&id, key).await)?;
        cx.expect_key(&cx.store, &id, key).await?;
    }
    let first = format!("{:?}", cx.capabilities);
    let second = format!("{:?}", reopened.capabilities());
    ensure(first == second, "capabilities of a second client", first, second)?;
    let first = cx.store.info().scheme();
    let second = reopened.info().scheme();
    ensure(first == second, "info of a second client", first, second)
}

async fn see_each_other(cx: Context) -> Outcome {
    let one = cx.store.clone();
    let two = cx.reopen().await?;
    let id = sample::id("alice");
    let keys = sample::awkward_keys();
    let lens = keys.len();
    for round in 0..cx.size(20, 3) {
        for (index, (writer, reader)) in [(&one, &two), (&two, &one)].into_iter().enumerate() {
            // Twice, so that the reader has already read a key when the second one is written.
            for key in [&keys[(2 * round + index) % lens], &sample::random_key(32)] {
                cx.put(writer, &id, key).await?;
                cx.expect_key(reader, &id, key).await?;
            }
            let again = reader.create_key(&id, &sample::random_key(32)).await;
            cx.expect_error("create_key by the other client", again, ErrorKind::AlreadyExists, Operation::Create)?;
            ok("put_key by the other client", reader.put_key(&id, &keys[0]).await)?;
            cx.expect_key(writer, &id, &keys[0]).await?;
            let removal = cx.removal(round);
            removal.apply(reader, &id).await?;
            cx.expect_absent(writer, &id).await?;
            cx.expect_absent(reader, &id).await?;
            if !cx.frees(removal) {
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn namespaces_do_not_meet(cx: Context) -> Outcome {
    let other = cx.open_another().await?;
    let id = sample::id("alice");
    let here = sample::random_key(32);
    let there = sample::random_key(32);
    ok("put_key", cx.store.put_key(&id, &here).await)?;
    cx.expect_key(&cx.store, &id, &here).await?;
    cx.expect_absent(&other, &id).await?;
    ok("create_key in another namespace", other.create_key(&id, &there).await)?;
    cx.expect_key(&other, &id, &there).await?;
    cx.expect_key(&cx.store, &id, &here).await?;
    ok("delete_key", cx.store.delete_key(&id).await)?;
    cx.expect_absent(&cx.store, &id).await?;
    cx.expect_key(&other, &id, &there).await?;
    match cx.capabilities.listing {
        Some(_) => cx.expect_listing(&other, &[id]).await,
        None => Ok(()),
    }
}

async fn used_from_a_second_runtime(cx: Context) -> Outcome {
    let id = sample::id("alice");
    let key = sample::random_key(32);
    ok("put_key", cx.store.put_key(&id, &key).await)?;
    cx.expect_key(&cx.store, &id, &key).await?;
    // One client that has been used, and one whose first call is on the second runtime.
    let store = cx.store.clone();
    let fresh = cx.reopen().await?;
    let last_user = fresh.clone();
    let second_id = sample::id("bob");
    let second_key = sample::random_key(33);
    let written = {
        let id = second_id.clone();
        let key = second_key.clone();
        move || -> Outcome {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(e) => return fail("building a second tokio runtime", "Ok", e.to_string()),
            };
            runtime.block_on(async {
                ok("find_key on a second runtime", store.find_key(&sample::id("alice")).await)?;
                ok("put_key on a second runtime", fresh.put_key(&id, &key).await)?;
                ok("put_key on a second runtime", store.put_key(&id, &key).await)?;
                ok("check on a second runtime", store.check().await)
            })
        }
    };
    cx.unblocked("calls on a second runtime", async move {
        // The second runtime starts and ends on a thread that belongs to no other runtime.
        let ended = tokio::task::spawn_blocking(|| std::thread::spawn(written).join()).await;
        match ended {
            Ok(Ok(outcome)) => outcome,
            _ => fail("calls on a second runtime", "an answer", "a panic in the store"),
        }
    })
    .await?;
    cx.expect_key(&cx.store, &second_id, &second_key).await?;
    let last = sample::random_key(34);
    ok("put_key on the first runtime, after the second has ended", last_user.put_key(&id, &last).await)?;
    cx.expect_key(&cx.store, &id, &last).await?;
    ok("put_key on the first runtime, after the second has ended", cx.store.put_key(&id, &last).await)?;
    cx.expect_key(&last_user, &id, &last).await
}
