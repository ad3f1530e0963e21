//! Cases about ids of any form.

use keystead_core::{InvalidKeyId, KeyId, KeyStoreExt, SecretKey};

use crate::case::case_list;
use crate::context::{Context, Outcome, Removal, ensure, ok, same};
use crate::sample;

case_list! {
    "id.refused":
        "an id that is empty, is longer than 128 bytes or contains a control character cannot be constructed"
        => refused;
    "id.roundtrip_and_list":
        "a key is found under every id that can be constructed, and the listing gives exactly these ids"
        => roundtrip_and_list;
    "id.distinct_never_meet":
        "ids that differ in any byte have different keys at the same time"
        => distinct_never_meet;
}

async fn refused(_cx: Context) -> Outcome {
    let check = |what: &str, text: String, expected: fn(&InvalidKeyId) -> bool| {
        let answer = KeyId::new(text);
        let holds = answer.as_ref().is_err_and(expected);
        ensure(holds, format!("KeyId::new of {what}"), "InvalidKeyId for that reason", format!("{answer:?}"))
    };
    check("an empty text", String::new(), |e| matches!(e, InvalidKeyId::Empty))?;
    check("129 bytes", "a".repeat(129), |e| matches!(e, InvalidKeyId::TooLong { len: 129 }))?;
    check("33 four-byte characters", "\u{1F511}".repeat(33), |e| matches!(e, InvalidKeyId::TooLong { len: 132 }))?;
    for control in (0..=0x1f_u8).chain(0x7f..=0x9f).map(char::from) {
        for text in [format!("{control}"), format!("{control}a"), format!("a{control}"), format!("a{control}b")] {
            check("a text with a control character", text, |e| matches!(e, InvalidKeyId::ControlCharacter { .. }))?;
        }
    }
    Ok(())
}

/// Returns a call as failures quote it. They show these ids, which are not secret.
fn named(method: &str, id: &KeyId) -> String {
    format!("{method} of the id {:?}", id.as_str())
}

async fn roundtrip_and_list(cx: Context) -> Outcome {
    let ids = sample::hostile_ids();
    let keys: Vec<SecretKey> = ids.iter().map(|_| sample::random_key(32)).collect();
    for (index, (id, key)) in ids.iter().zip(&keys).enumerate() {
        match index % 2 {
            0 => ok(&named("create_key", id), cx.store.create_key(id, key).await)?,
            _ => same(&named("get_or_create", id), cx.store.get_or_create(id, key).await, key)?,
        }
    }
    for (id, key) in ids.iter().zip(&keys) {
        cx.eventually(|| async { same(&named("get_key", id), cx.store.get_key(id).await, key) }).await?;
    }
    if cx.capabilities.listing.is_some() {
        cx.expect_listing(&cx.store, &ids).await?;
    }
    for id in &ids {
        ok(&named("delete_key", id), cx.store.delete_key(id).await)?;
    }
    for id in &ids {
        cx.expect_absent(&cx.store, id).await?;
    }
    match cx.capabilities.listing {
        Some(_) => cx.expect_listing(&cx.store, &[]).await,
        None => Ok(()),
    }
}

async fn distinct_never_meet(cx: Context) -> Outcome {
    let ids = sample::hostile_ids();
    let keys: Vec<SecretKey> = ids.iter().map(|_| sample::random_key(32)).collect();
    for (id, key) in ids.iter().zip(&keys) {
        ok(&named("put_key", id), cx.store.put_key(id, &sample::random_key(16)).await)?;
        ok(&named("put_key", id), cx.store.put_key(id, key).await)?;
    }
    all_their_own(&cx, &ids, &keys).await?;
    // A removal changes no other id either.
    for (index, id) in ids.iter().enumerate() {
        if index % 4 < 3 {
            let removal = Removal::ALL[index % 4];
            removal.apply(&cx.store, id).await?;
        }
    }
    for (_, id) in ids.iter().enumerate().filter(|(index, _)| index % 4 < 3) {
        cx.expect_absent(&cx.store, id).await?;
    }
    let left = |index: &usize| index % 4 == 3;
    let ids: Vec<KeyId> = (0..ids.len()).filter(left).map(|index| ids[index].clone()).collect();
    let keys: Vec<SecretKey> = (0..keys.len()).filter(left).map(|index| keys[index].clone()).collect();
    all_their_own(&cx, &ids, &keys).await
}

/// Expects each id to have its own key, by itself and in one batch of all.
async fn all_their_own(cx: &Context, ids: &[KeyId], keys: &[SecretKey]) -> Outcome {
    for (id, key) in ids.iter().zip(keys) {
        cx.eventually(|| async { same(&named("get_key", id), cx.store.get_key(id).await, key) }).await?;
    }
    cx.eventually(|| async {
        let answers = cx.store.get_keys(ids).await;
        ensure(answers.len() == ids.len(), "get_keys", "one outcome per id", format!("{} outcomes", answers.len()))?;
        let mut outcomes = answers.into_iter().zip(ids).zip(keys);
        outcomes.try_for_each(|((answer, id), key)| same(&named("get_keys", id), answer, key))
    })
    .await
}
