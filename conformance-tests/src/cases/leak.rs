//! Cases about keys and ids that appear in texts.

use std::slice;

use futures_util::StreamExt;
use keystead_core::{KeyId, KeyStore, KeyStoreExt, PutMode, SecretKey};

use crate::canary::Canary;
use crate::capture::Capture;
use crate::case::case_list;
use crate::context::{Context, ENDLESS, Outcome, Store, list, ok};

case_list! {
    "leak.debug_store":
        "no text of the store, its info or its capabilities contains a key or an id"
        => debug_store;
    "leak.debug_key":
        "the Debug output of keys, ids and outcomes does not contain their bytes"
        => debug_key;
    "leak.error_chain":
        "no text of an error or of its causes contains a key or an id"
        => error_chain;
    "leak.tracing":
        "no trace at any level and on any thread contains a key or an id"
        => tracing;
    "leak.panic":
        "no panic message of any call contains a key or an id"
        => panic;
}

async fn debug_store(cx: Context) -> Outcome {
    for canary in [Canary::new(), Canary::of_text()] {
        let id = &canary.id;
        let key = &canary.key;
        for store in cx.two_handles().await? {
            let check = |after: &str| {
                canary.not_in(&format!("Debug of the store after {after}"), &format!("{store:?} {store:#?}"))?;
                canary.not_in("Debug and Display of info()", &format!("{0:?} {0:#?} {0}", store.info()))?;
                canary.not_in("Debug of capabilities()", &format!("{:?}", store.capabilities()))
            };
            // Other cases check the answers.
            drop(store.get_key(id).await);
            check("a get of a missing key")?;
            drop(store.get_or_create(id, key).await);
            check("get_or_create")?;
            drop(store.create_key(id, key).await);
            check("a refused create")?;
            drop(store.put_key(id, key).await);
            check("a put")?;
            drop(store.get_key(id).await);
            check("a get")?;
            drop(store.get_keys(slice::from_ref(id)).await);
            check("get_keys")?;
            drop(store.list_keys().take(ENDLESS).collect::<Vec<_>>().await);
            check("a listing")?;
            drop(store.delete_key(id).await);
            check("a delete")?;
            drop(store.erase_key(id).await);
            check("an erasure")?;
            drop(store.delete_keys(slice::from_ref(id)).await);
            check("delete_keys")?;
        }
    }
    Ok(())
}

async fn debug_key(cx: Context) -> Outcome {
    for canary in [Canary::new(), Canary::of_text()] {
        ok("put_key", cx.store.put_key(&canary.id, &canary.key).await)?;
        cx.bound_over().await;
        let key = ok("get_key of a key that was put before", cx.store.get_key(&canary.id).await)?;
        canary.key_not_in("Debug of a key", &format!("{key:?} {key:#?} {:?}", canary.key))?;
        canary.not_in("Debug of an id", &format!("{0:?} {0:#?}", canary.id))?;
        if cx.capabilities.listing.is_some() {
            let ids = list(&cx.store).await?;
            canary.not_in("Debug of listed ids", &format!("{ids:?}"))?;
        }
        let outcomes = cx.store.get_keys(slice::from_ref(&canary.id)).await;
        canary.not_in("Debug of the outcomes of get_keys", &format!("{outcomes:?} {outcomes:#?}"))?;
        let deletion = ok("delete_key", cx.store.delete_key(&canary.id).await)?;
        // A store without a clock cannot tell a stale read from an existing key.
        cx.bound_over().await;
        let erasure = ok("erase_key", cx.store.erase_key(&canary.id).await)?;
        canary.not_in("Debug of a deletion and an erasure", &format!("{deletion:?} {erasure:?}"))?;
    }
    Ok(())
}

async fn error_chain(cx: Context) -> Outcome {
    for canary in [Canary::new(), Canary::of_text()] {
        let id = &canary.id;
        let key = &canary.key;
        let missing = [
            cx.store.get_key(id).await.err(),
            cx.store.delete_key(id).await.err(),
            cx.store.get_keys(slice::from_ref(id)).await.pop().and_then(Result::err),
            cx.store.delete_keys(slice::from_ref(id)).await.pop().and_then(Result::err),
        ];
        ok("put_key", cx.store.put_key(id, key).await)?;
        cx.expect_key(&cx.store, id, key).await?;
        let existing = cx.store.put_key_with(id, key, PutMode::Create).await.err();
        // Other cases check that each of these calls fails.
        for error in missing.into_iter().chain([existing]) {
            error.map_or(Ok(()), |error| canary.not_in_error(&error))?;
        }
    }
    Ok(())
}

async fn tracing(cx: Context) -> Outcome {
    for canary in [Canary::new(), Canary::of_text()] {
        let capture = Capture::of_traces()?;
        every_call(cx.store.clone(), canary.id.clone(), canary.key.clone()).await;
        every_call(cx.reopen().await?, canary.id.clone(), canary.key.clone()).await;
        canary.not_in("the traces of every call", &capture.text()?)?;
    }
    Ok(())
}

async fn panic(cx: Context) -> Outcome {
    for canary in [Canary::new(), Canary::of_text()] {
        let capture = Capture::of_panics();
        for store in [cx.store.clone(), cx.reopen().await?] {
            // In a task of its own, so that a panic does not end the case. Other cases report it.
            drop(tokio::spawn(every_call(store, canary.id.clone(), canary.key.clone())).await);
        }
        canary.not_in("the panic messages of every call", &capture.text()?)?;
    }
    Ok(())
}

/// Makes every call, including some that are refused. Other cases check the answers.
async fn every_call(store: Store, id: KeyId, key: SecretKey) {
    let ids = slice::from_ref(&id);
    drop(store.get_key(&id).await);
    drop(store.delete_key(&id).await);
    drop(store.put_key(&id, &key).await);
    drop(store.create_key(&id, &key).await);
    drop(store.get_key(&id).await);
    drop(store.get_keys(ids).await);
    drop(store.get_or_create(&id, &key).await);
    drop(store.list_keys().take(ENDLESS).collect::<Vec<_>>().await);
    drop(store.check().await);
    drop(store.delete_keys(ids).await);
    drop(store.create_key(&id, &key).await);
    drop(store.erase_key(&id).await);
}
