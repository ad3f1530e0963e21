//! Reading a key, and the keys that can be.

use keystead_core::{ErrorKind, InvalidSecretKey, KeyStoreExt, Operation, SecretKey};

use crate::case::room;
use crate::context::{Context, Outcome, call, ensure, ok, same};
use crate::sample;

room! {
    "get.missing_is_not_found":
        "reading a key that is not there is NotFound, not retryable, and says the operation and the store"
        => missing_is_not_found;
    "get.roundtrip_bytes":
        "a key of any length and content comes back byte for byte, however it was written and read"
        => roundtrip_bytes;
    "find.absent_is_none":
        "find_key gives None for a key that is not there and the key for one that is"
        => absent_is_none;
    "key.empty_refused":
        "a key of no bytes cannot be constructed"
        => empty_refused;
    "key.too_long_refused":
        "a key of more than 3072 bytes cannot be constructed, one of 3072 can be stored"
        => too_long_refused;
}

async fn missing_is_not_found(cx: Context) -> Outcome {
    let id = sample::id("nobody");
    let call = call("get_key", &id);
    let answer = cx.store.get_key(&id).await;
    if let Err(e) = &answer {
        let got = format!("retryable {}, retry_after {:?}", e.is_retryable(), e.retry_after());
        ensure(!e.is_retryable() && e.retry_after().is_none(), call.as_str(), "an error that is not retryable", got)?;
    }
    cx.refused(&call, answer, ErrorKind::NotFound, Operation::Get)?;
    // A neighbour makes no difference.
    ok("put_key", cx.store.put_key(&sample::id("somebody"), &sample::random_key(32)).await)?;
    cx.refused(&call, cx.store.get_key(&id).await, ErrorKind::NotFound, Operation::Get)
}

async fn roundtrip_bytes(cx: Context) -> Outcome {
    let (created, put, overwritten) = ("created", "put", "overwritten");
    for (number, key) in sample::awkward_keys().iter().enumerate() {
        let id = |how: &str| sample::id(format!("{how}-{number}"));
        ok("create_key", cx.store.create_key(&id(created), key).await)?;
        cx.holds(&cx.store, &id(created), key).await?;
        ok("put_key", cx.store.put_key(&id(put), key).await)?;
        cx.holds(&cx.store, &id(put), key).await?;
        let found = ok("find_key", cx.store.find_key(&id(put)).await)?;
        ensure(found.as_ref() == Some(key), call("find_key", &id(put)), "the key that was put", format!("{found:?}"))?;
        for answer in cx.store.get_keys(&[id(put), id(created)]).await {
            same("get_keys", answer, key)?;
        }
        let candidate = sample::random_key(32);
        same("get_or_create", cx.store.get_or_create(&id(put), &candidate).await, key)?;
    }
    let keys = sample::awkward_keys();
    let id = sample::id(overwritten);
    for key in keys.iter().take(cx.size(keys.len(), 12)) {
        ok("put_key", cx.store.put_key(&id, key).await)?;
        cx.holds(&cx.store, &id, key).await?;
    }
    Ok(())
}

async fn absent_is_none(cx: Context) -> Outcome {
    let (absent, present) = (sample::id("absent"), sample::id("present"));
    let key = sample::random_key(32);
    ok("put_key", cx.store.put_key(&present, &key).await)?;
    cx.holds(&cx.store, &present, &key).await?;
    let found = ok("find_key", cx.store.find_key(&absent).await)?;
    ensure(found.is_none(), call("find_key", &absent), "None", format!("{found:?}"))?;
    let found = ok("find_key", cx.store.find_key(&present).await)?;
    ensure(found == Some(key), call("find_key", &present), "the key that was put", format!("{found:?}"))
}

async fn empty_refused(_cx: Context) -> Outcome {
    let (new, generated) = (SecretKey::new([]), SecretKey::generate(0));
    ensure(new == Err(InvalidSecretKey::Empty), "SecretKey::new([])", "InvalidSecretKey::Empty", format!("{new:?}"))?;
    let expected = "InvalidSecretKey::Empty";
    ensure(generated == Err(InvalidSecretKey::Empty), "SecretKey::generate(0)", expected, format!("{generated:?}"))
}

async fn too_long_refused(cx: Context) -> Outcome {
    let refusal = Err(InvalidSecretKey::TooLong { len: 3073 });
    let new = SecretKey::new(vec![1; 3073]);
    let expected = "InvalidSecretKey::TooLong";
    ensure(new == refusal, "SecretKey::new of 3073 bytes", expected, format!("{new:?}"))?;
    let generated = SecretKey::generate(3073);
    ensure(generated == refusal, "SecretKey::generate(3073)", expected, format!("{generated:?}"))?;
    let (id, longest) = (sample::id("longest"), sample::random_key(3072));
    ok("put_key", cx.store.put_key(&id, &longest).await)?;
    cx.holds(&cx.store, &id, &longest).await
}
