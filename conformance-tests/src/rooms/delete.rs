//! Deleting a key.

use std::time::{Duration, SystemTime};

use keystead_core::{Deletion, DeletionGrade, ErrorKind, Finality, KeyId, KeyStoreExt, Operation};

use crate::case::room;
use crate::context::{Context, Outcome, call, ensure, fail, ok};
use crate::sample;

/// How far the store's clock may be off.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

room! {
    "delete.removes":
        "after Ok of a delete no read yields the key, whatever its length and however it was written"
        => removes;
    "delete.missing_is_not_found":
        "deleting a key that is not there, or not any more, is NotFound"
        => missing_is_not_found;
    "delete.other_ids_untouched":
        "deleting one id changes no other, not even one whose name starts with it or with which it starts"
        => other_ids_untouched;
    "delete.survives_reopen":
        "a deleted key stays deleted for a client that is opened afterwards"
        => survives_reopen;
    "delete.visible_to_other_handle":
        "a client that has read the key sees that another one has deleted it"
        => visible_to_other_handle;
    "delete.grade_matches_capability":
        "a deletion is as final as the capabilities say, or says itself that it is not"
        => grade_matches_capability;
}

async fn removes(cx: Context) -> Outcome {
    for (number, len) in [1, 32, 256, 3072].into_iter().enumerate() {
        let (id, first) = (sample::id(format!("alice-{number}")), sample::random_key(len));
        ok("create_key", cx.store.create_key(&id, &first).await)?;
        cx.holds(&cx.store, &id, &first).await?;
        if number % 2 == 1 {
            // An older value must not come back either.
            let second = sample::random_key(32);
            ok("put_key", cx.store.put_key(&id, &second).await)?;
            cx.holds(&cx.store, &id, &second).await?;
        }
        ok(&call("delete_key", &id), cx.store.delete_key(&id).await)?;
        cx.absent(&cx.store, &id).await?;
        let [answer] = <[_; 1]>::try_from(cx.store.get_keys(std::slice::from_ref(&id)).await)
            .or_else(|answers| fail("get_keys of one id", "one outcome", format!("{}", answers.len())))?;
        if let Ok(key) = answer {
            return fail("get_keys of the deleted id", "no key", format!("{key:?}"));
        }
    }
    Ok(())
}

async fn missing_is_not_found(cx: Context) -> Outcome {
    let (nobody, alice, key) = (sample::id("nobody"), sample::id("alice"), sample::random_key(32));
    let delete = |id| call("delete_key", id);
    let answer = cx.store.delete_key(&nobody).await;
    cx.refused(&delete(&nobody), answer, ErrorKind::NotFound, Operation::Delete)?;
    ok("put_key", cx.store.put_key(&alice, &key).await)?;
    cx.holds(&cx.store, &alice, &key).await?;
    let answer = cx.store.delete_key(&nobody).await;
    cx.refused(&delete(&nobody), answer, ErrorKind::NotFound, Operation::Delete)?;
    ok(&delete(&alice), cx.store.delete_key(&alice).await)?;
    cx.absent(&cx.store, &alice).await?;
    let kind = if cx.is_recoverable() { ErrorKind::PendingDeletion } else { ErrorKind::NotFound };
    cx.refused("delete_key for the second time", cx.store.delete_key(&alice).await, kind, Operation::Delete)
}

async fn other_ids_untouched(cx: Context) -> Outcome {
    let names =
        ["a", "al", "alice", "alice ", "alice/", "alice/x", "alice-x", "alice.x", "alice%", "Alice", "bob", "%"];
    let ids: Vec<KeyId> = names.map(sample::id).into();
    let keys: Vec<_> = ids.iter().map(|_| sample::random_key(32)).collect();
    for (id, key) in ids.iter().zip(&keys) {
        ok("put_key", cx.store.put_key(id, key).await)?;
        cx.holds(&cx.store, id, key).await?;
    }
    for (number, deleted) in ids.iter().enumerate() {
        ok(&call("delete_key", deleted), cx.store.delete_key(deleted).await)?;
        cx.absent(&cx.store, deleted).await?;
        for (id, key) in ids.iter().zip(&keys).skip(number + 1) {
            cx.holds(&cx.store, id, key).await?;
        }
    }
    Ok(())
}

async fn survives_reopen(cx: Context) -> Outcome {
    let ids = [sample::id("alice"), sample::id("bob")];
    for id in &ids {
        let key = sample::random_key(32);
        ok("put_key", cx.store.put_key(id, &key).await)?;
        cx.holds(&cx.store, id, &key).await?;
    }
    let [alice, bob] = &ids;
    ok("delete_key", cx.store.delete_key(alice).await)?;
    cx.absent(&cx.store, alice).await?;
    let reopened = cx.reopen().await?;
    cx.absent(&reopened, alice).await?;
    ok("delete_key of the new client", reopened.delete_key(bob).await)?;
    cx.absent(&cx.reopen().await?, bob).await
}

async fn visible_to_other_handle(cx: Context) -> Outcome {
    let (id, key) = (sample::id("alice"), sample::random_key(32));
    let other = cx.reopen().await?;
    ok("put_key", cx.store.put_key(&id, &key).await)?;
    cx.holds(&cx.store, &id, &key).await?;
    cx.holds(&other, &id, &key).await?;
    ok("delete_key", cx.store.delete_key(&id).await)?;
    cx.absent(&other, &id).await?;
    cx.absent(&cx.store, &id).await
}

async fn grade_matches_capability(cx: Context) -> Outcome {
    let grade = cx.capabilities.deletion;
    let expected =
        format!("a finality of the declared grade {grade:?}, in one of five deletions at least, and none above");
    let mut usual = 0;
    for number in 0..5 {
        let (id, key) = (sample::id(format!("alice-{number}")), sample::random_key(32));
        ok("put_key", cx.store.put_key(&id, &key).await)?;
        cx.holds(&cx.store, &id, &key).await?;
        let before = SystemTime::now();
        let Deletion { finality, .. } = ok(&call("delete_key", &id), cx.store.delete_key(&id).await)?;
        ensure(strength(finality) <= declared(grade), "delete_key", expected.as_str(), format!("{finality:?}"))?;
        if let (DeletionGrade::Recoverable { window }, Finality::RecoverableUntil(until)) = (grade, finality) {
            let plausible = until > before && until <= SystemTime::now() + window + CLOCK_SKEW;
            ensure(plausible, "delete_key", format!("recoverable for at most {window:?}"), format!("{finality:?}"))?;
        }
        usual += usize::from(strength(finality) == declared(grade));
    }
    ensure(usual > 0, "delete_key, five times", expected, "only weaker ones")
}

fn declared(grade: DeletionGrade) -> u8 {
    match grade {
        DeletionGrade::Immediate => 2,
        DeletionGrade::Eventual { .. } => 1,
        _ => 0,
    }
}

fn strength(finality: Finality) -> u8 {
    match finality {
        Finality::Immediate => 2,
        Finality::Eventual { .. } => 1,
        _ => 0,
    }
}
