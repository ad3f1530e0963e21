//! Cases about reading a key, and about which keys can be constructed.

use keystead_core::{ErrorKind, InvalidSecretKey, KeyId, KeyStoreExt, Operation, SecretKey};

use crate::case::case_list;
use crate::context::{Context, Outcome, call, ensure, ok, same};
use crate::sample;

case_list! {
    "get.missing_is_not_found":
        "reading a missing key fails with NotFound, which is not retryable and names the operation and the \
         store"
        => missing_is_not_found;
    "get.roundtrip_bytes":
        "a key of any length and content is read back byte for byte, in whichever way it was written and is \
         read"
        => roundtrip_bytes;
    "find.absent_is_none":
        "find_key gives None for a missing key, and the key for one that exists"
        => absent_is_none;
    "key.empty_refused":
        "a key without bytes cannot be constructed"
        => empty_refused;
    "key.too_long_refused":
        "a key of more than 3072 bytes cannot be constructed, and one of 3072 bytes can be stored"
        => too_long_refused;
}

async fn missing_is_not_found(cx: Context) -> Outcome {
    let id = sample::id("nobody");
    let none = [sample::id("nobody"), sample::id("no one")];
    let check = async || {
        let answer = cx.store.get_key(&id).await;
        cx.expect_error(&call("get_key", &id), answer, ErrorKind::NotFound, Operation::Get)?;
        let answers = cx.store.get_keys(&none).await;
        ensure(answers.len() == 2, "get_keys of two ids", "two outcomes", format!("{} outcomes", answers.len()))?;
        let refused = |answer| cx.expect_error("get_keys", answer, ErrorKind::NotFound, Operation::Get);
        answers.into_iter().try_for_each(refused)
    };
    check().await?;
    // Another key makes no difference.
    cx.put(&cx.store, &sample::id("somebody"), &sample::random_key(32)).await?;
    check().await
}

async fn roundtrip_bytes(cx: Context) -> Outcome {
    let keys = sample::awkward_keys();
    let keys: Vec<&SecretKey> = keys.iter().take(cx.size(keys.len(), 40)).collect();
    let [one, two] = cx.two_handles().await?;
    let id = |how: &str, index: usize| sample::id(format!("{how}-{index}"));
    let label = |how: &str, index: usize| format!("get_key of awkward key {index}, {how}");
    for (index, key) in keys.iter().enumerate() {
        ok("create_key", one.create_key(&id("created", index), key).await)?;
        ok("put_key", two.put_key(&id("put", index), key).await)?;
        let given = one.get_or_create(&id("given", index), key).await;
        same(&format!("get_or_create with awkward key {index}"), given, key)?;
    }
    for how in ["created", "put", "given"] {
        let ids: Vec<KeyId> = (0..keys.len()).map(|index| id(how, index)).collect();
        for (index, (id, key)) in ids.iter().zip(&keys).enumerate() {
            let store = if index % 2 == 0 { &one } else { &two };
            cx.eventually(|| async { same(&label(how, index), store.get_key(id).await, key) }).await?;
        }
        cx.eventually(|| async {
            let answers = one.get_keys(&ids).await;
            let mut pairs = answers.into_iter().zip(&keys).enumerate();
            pairs.try_for_each(|(index, (answer, key))| same(&format!("get_keys of awkward key {index}"), answer, key))
        })
        .await?;
    }
    // Over an existing key, from one content to the next.
    let overwritten = sample::id("overwritten");
    for (index, key) in keys.iter().enumerate().take(cx.size(keys.len(), 12)) {
        ok("put_key", one.put_key(&overwritten, key).await)?;
        cx.eventually(|| async { same(&label("overwritten", index), two.get_key(&overwritten).await, key) }).await?;
        cx.eventually(|| async { same("get_or_create", one.get_or_create(&overwritten, keys[0]).await, key) }).await?;
    }
    Ok(())
}

async fn absent_is_none(cx: Context) -> Outcome {
    let absent = sample::id("absent");
    let present = sample::id("present");
    let key = sample::random_key(32);
    cx.put(&cx.store, &present, &key).await?;
    cx.expect_key(&cx.store, &present, &key).await?;
    let found = ok("find_key", cx.store.find_key(&absent).await)?;
    ensure(found.is_none(), call("find_key", &absent), "None", "a key")?;
    cx.eventually(|| async {
        match ok("find_key", cx.store.find_key(&present).await)? {
            Some(found) => same(&call("find_key", &present), Ok(found), &key),
            None => ensure(false, call("find_key", &present), "the key that was put", "None"),
        }
    })
    .await
}

async fn empty_refused(_cx: Context) -> Outcome {
    let new = SecretKey::new([]);
    let generated = SecretKey::generate(0);
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
    let id = sample::id("longest");
    let longest = sample::random_key(3072);
    cx.put(&cx.store, &id, &longest).await?;
    cx.expect_key(&cx.store, &id, &longest).await
}
