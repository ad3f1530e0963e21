//! Erasing a key: a delete that proves itself.

use keystead_core::{Consistency, DeletionGrade, Erasure, ErrorKind, Finality, KeyStoreExt};

use crate::case::room;
use crate::context::{Context, Outcome, call, ensure, fail, ok};
use crate::sample;

room! {
    "erase.is_idempotent":
        "erasing a key succeeds as often as it is asked for, also for a key that never was"
        => is_idempotent;
    "erase.receipt_is_true":
        "the receipt says truly whether there was a key, how final its end is and whether that was verified"
        => receipt_is_true;
}

async fn is_idempotent(cx: Context) -> Outcome {
    let (alice, bob, key) = (sample::id("alice"), sample::id("bob"), sample::random_key(32));
    ok("erase_key of a key that never was", cx.store.erase_key(&alice).await)?;
    ok("put_key", cx.store.put_key(&alice, &key).await)?;
    ok("put_key", cx.store.put_key(&bob, &key).await)?;
    cx.holds(&cx.store, &alice, &key).await?;
    for _ in 0..3 {
        ok("erase_key", cx.store.erase_key(&alice).await)?;
        cx.absent(&cx.store, &alice).await?;
        cx.absent(&cx.reopen().await?, &alice).await?;
    }
    cx.holds(&cx.store, &bob, &key).await
}

async fn receipt_is_true(cx: Context) -> Outcome {
    let (id, key) = (sample::id("alice"), sample::random_key(32));
    let erase = call("erase_key", &id);
    let receipt = ok(&erase, cx.store.erase_key(&id).await)?;
    ensure(!receipt.existed, "erase_key of a key that never was", "existed: false", format!("{receipt:?}"))?;
    proof_is_possible(&cx, &receipt)?;

    ok("put_key", cx.store.put_key(&id, &key).await)?;
    cx.holds(&cx.store, &id, &key).await?;
    let receipt = ok(&erase, cx.store.erase_key(&id).await)?;
    ensure(receipt.existed, erase.as_str(), "existed: true", format!("{receipt:?}"))?;
    proof_is_possible(&cx, &receipt)?;
    let too_good = match cx.capabilities.deletion {
        DeletionGrade::Immediate => false,
        DeletionGrade::Eventual { .. } => receipt.finality == Finality::Immediate,
        _ => !matches!(receipt.finality, Finality::RecoverableUntil(_)),
    };
    let grade = cx.capabilities.deletion;
    ensure(!too_good, erase.as_str(), format!("at most the declared grade {grade:?}"), format!("{receipt:?}"))?;
    if receipt.verified {
        match cx.store.get_key(&id).await {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return fail("get_key after a verified erasure", "NotFound", format!("{:?}", e.kind())),
            Ok(_) => return fail("get_key after a verified erasure", "NotFound", "a key"),
        }
    }
    cx.absent(&cx.store, &id).await?;
    if !cx.is_recoverable() {
        let receipt = ok(&erase, cx.store.erase_key(&id).await)?;
        ensure(!receipt.existed, "erase_key for the second time", "existed: false", format!("{receipt:?}"))?;
    }
    Ok(())
}

/// Where a read tells the truth at once and nothing is recoverable, there is no excuse for an unverified erasure.
fn proof_is_possible(cx: &Context, receipt: &Erasure) -> Outcome {
    let excused = cx.capabilities.consistency != Consistency::Strong || cx.is_recoverable();
    let expected = "verified: true on a store that is Strong and not Recoverable";
    ensure(excused || receipt.verified, "erase_key", expected, format!("{receipt:?}"))
}
