//! Cases about erasing a key, which deletes it and proves that it is gone.

use keystead_core::{Consistency, DeletionGrade, Erasure, ErrorKind, Finality};

use crate::case::case_list;
use crate::context::{Context, Outcome, call, ensure, fail, ok};
use crate::sample;

case_list! {
    "erase.is_idempotent":
        "erasing an id succeeds any number of times, even if it never had a key, and touches no other id"
        => is_idempotent;
    "erase.receipt_is_true":
        "the result of an erasure says truly whether there was a key, how final its deletion is and whether \
         that was verified"
        => receipt_is_true;
}

async fn is_idempotent(cx: Context) -> Outcome {
    let [one, two] = cx.two_handles().await?;
    let alice = sample::id("alice");
    let bob = sample::id("bob");
    let key = sample::random_key(32);
    let nobody = sample::id("nobody");
    ok("erase_key of a key that never was", one.erase_key(&nobody).await)?;
    cx.expect_absent(&two, &nobody).await?;
    cx.put(&one, &alice, &key).await?;
    cx.put(&one, &bob, &key).await?;
    cx.expect_key(&one, &alice, &key).await?;
    for store in [&one, &one, &two, &two] {
        ok("erase_key", store.erase_key(&alice).await)?;
        cx.expect_absent(&one, &alice).await?;
        cx.expect_absent(&two, &alice).await?;
    }
    cx.expect_key(&one, &bob, &key).await
}

async fn receipt_is_true(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    let nobody = sample::id("nobody");
    let receipt = ok(&call("erase_key", &nobody), cx.store.erase_key(&nobody).await)?;
    ensure(!receipt.existed, "erase_key of a key that never was", "existed: false", format!("{receipt:?}"))?;
    expect_proof(&cx, &receipt)?;
    let eventual = matches!(cx.capabilities.deletion, DeletionGrade::Eventual { .. });
    let too_good = eventual && receipt.finality == Finality::Immediate;
    let expected = "at most the declared grade, because an earlier deletion may not be final yet";
    ensure(!too_good, "erase_key of a key that never was", expected, format!("{receipt:?}"))?;

    let mut usual = false;
    for (index, len) in [1, 32, 257, 3072, 3072, 32].into_iter().enumerate() {
        let id = sample::id(format!("alice-{index}"));
        let writer = &handles[index % 2];
        let eraser = &handles[index / 2 % 2];
        if index % 3 == 0 {
            // An older value must not come back.
            for older in sample::random_keys(4) {
                cx.put(writer, &id, &older).await?;
            }
        }
        let key = sample::random_key(len);
        cx.put(writer, &id, &key).await?;
        cx.expect_key(&handles[0], &id, &key).await?;
        cx.expect_key(&handles[1], &id, &key).await?;
        let receipt = ok(&call("erase_key", &id), eraser.erase_key(&id).await)?;
        ensure(receipt.existed, call("erase_key", &id), "existed: true", format!("{receipt:?}"))?;
        expect_proof(&cx, &receipt)?;
        expect_possible_finality(&cx, &receipt)?;
        usual |= receipt.finality == Finality::Immediate || cx.capabilities.deletion != DeletionGrade::Immediate;
        for store in handles.iter().filter(|_| receipt.verified) {
            // At once and for every client, because the erasure has waited for the bound.
            match store.get_key(&id).await {
                Err(e) if e.kind() == ErrorKind::NotFound || cx.is_gone(e.kind()) => {}
                Err(e) => return fail("get_key after a verified erasure", "NotFound", format!("{:?}", e.kind())),
                Ok(_) => return fail("get_key after a verified erasure", "NotFound", "a key"),
            }
        }
        cx.expect_absent(&handles[0], &id).await?;
        cx.expect_absent(&handles[1], &id).await?;
        if !cx.is_recoverable() {
            let receipt = ok(&call("erase_key", &id), writer.erase_key(&id).await)?;
            ensure(!receipt.existed, "erase_key for the second time", "existed: false", format!("{receipt:?}"))?;
        }
    }
    let expected = "the declared grade, Immediate, for at least one of six erasures";
    ensure(usual, "erase_key, six times", expected, "only weaker finalities")
}

/// Expects a verified erasure if reads never lag and no deletion is recoverable.
fn expect_proof(cx: &Context, receipt: &Erasure) -> Outcome {
    let excused = cx.capabilities.consistency != Consistency::Strong || cx.is_recoverable();
    let expected = "verified: true on a store that is Strong and not Recoverable";
    ensure(excused || receipt.verified, "erase_key", expected, format!("{receipt:?}"))
}

/// Expects a finality that is not stronger than the declared grade.
fn expect_possible_finality(cx: &Context, receipt: &Erasure) -> Outcome {
    let grade = cx.capabilities.deletion;
    let too_good = match grade {
        DeletionGrade::Immediate => false,
        DeletionGrade::Eventual { .. } => receipt.finality == Finality::Immediate,
        _ => !matches!(receipt.finality, Finality::RecoverableUntil(_)),
    };
    ensure(!too_good, "erase_key", format!("at most the declared grade {grade:?}"), format!("{receipt:?}"))
}
