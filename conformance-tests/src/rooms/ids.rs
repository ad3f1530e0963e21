//! Ids of any shape.

use keystead_core::{InvalidKeyId, KeyId, KeyStoreExt};

use crate::case::room;
use crate::context::{Context, Outcome, ensure, ok};
use crate::sample;

room! {
    "id.refused":
        "an id that is empty, longer than 128 bytes or holds a control character cannot be constructed"
        => refused;
    "id.roundtrip_and_list":
        "a key is found under every id that can be constructed, and the listing gives back the very ids"
        => roundtrip_and_list;
    "id.distinct_never_meet":
        "ids that differ in any byte hold different keys at the same time"
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

async fn roundtrip_and_list(cx: Context) -> Outcome {
    let ids = sample::hostile_ids();
    for id in &ids {
        let key = sample::random_key(32);
        ok(&format!("create_key of the id {:?}", id.as_str()), cx.store.create_key(id, &key).await)?;
        cx.holds(&cx.store, id, &key).await?;
    }
    if cx.capabilities.listing.is_some() {
        cx.lists(&cx.store, &ids).await?;
    }
    for id in &ids {
        ok(&format!("delete_key of the id {:?}", id.as_str()), cx.store.delete_key(id).await)?;
        cx.absent(&cx.store, id).await?;
    }
    match cx.capabilities.listing {
        Some(_) => cx.lists(&cx.store, &[]).await,
        None => Ok(()),
    }
}

async fn distinct_never_meet(cx: Context) -> Outcome {
    let ids = sample::hostile_ids();
    let keys: Vec<_> = ids.iter().map(|_| sample::random_key(32)).collect();
    for (id, key) in ids.iter().zip(&keys) {
        ok(&format!("put_key of the id {:?}", id.as_str()), cx.store.put_key(id, key).await)?;
    }
    for (id, key) in ids.iter().zip(&keys) {
        cx.holds(&cx.store, id, key).await?;
    }
    // Deleting every other one shows an id that two names lead to.
    for (id, _) in ids.iter().zip(&keys).step_by(2) {
        ok("delete_key", cx.store.delete_key(id).await)?;
    }
    for (id, key) in ids.iter().zip(&keys).skip(1).step_by(2) {
        cx.holds(&cx.store, id, key).await?;
    }
    Ok(())
}
