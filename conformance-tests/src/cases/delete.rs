//! Cases about deleting a key.

use std::time::SystemTime;

use keystead_core::{Deletion, DeletionGrade, ErrorKind, Finality, KeyId, KeyStoreExt, Operation};

use crate::case::case_list;
use crate::context::{CLOCK_SKEW, Context, Outcome, Removal, call, ensure, ok};
use crate::sample;

case_list! {
    "delete.removes":
        "after a delete has returned Ok, no read gives the key, whatever its length and however it was \
         written"
        => removes;
    "delete.missing_is_not_found":
        "deleting a key that does not exist, or no longer exists, fails with NotFound"
        => missing_is_not_found;
    "delete.other_ids_untouched":
        "a delete of one id changes no other id, even if one begins with the other"
        => other_ids_untouched;
    "delete.survives_reopen":
        "a deleted key stays deleted for a client that is opened later"
        => survives_reopen;
    "delete.visible_to_other_handle":
        "a client that has read a key sees that another client has deleted it"
        => visible_to_other_handle;
    "delete.grade_matches_capability":
        "a deletion is as final as the capabilities declare, or its result says that it is not"
        => grade_matches_capability;
}

async fn removes(cx: Context) -> Outcome {
    let handles = cx.two_handles().await?;
    let lens = [1, 32, 257, 2049, 3072];
    let mut kinds: Vec<(usize, Removal, bool)> = Vec::new();
    for (index, len) in lens.into_iter().enumerate() {
        // On a remote store, each length is removed in only one way, but every way occurs.
        let ways = Removal::ALL.into_iter().cycle().skip(index).take(cx.size(3, 1).min(3));
        kinds.extend(ways.flat_map(|way| [(len, way, false), (len, way, true)]));
    }
    for (index, (len, way, overwritten)) in kinds.into_iter().enumerate() {
        let id = sample::id(format!("alice-{index}"));
        let first = sample::random_key(len);
        let writer = &handles[index % 2];
        let remover = &handles[index / 2 % 2];
        if overwritten {
            // An older value must not come back.
            ok("create_key", writer.create_key(&id, &sample::random_key(40)).await)?;
            for older in sample::random_keys(cx.size(3, 1)) {
                ok("put_key", writer.put_key(&id, &older).await)?;
            }
            ok("put_key", writer.put_key(&id, &first).await)?;
        } else {
            ok("create_key", writer.create_key(&id, &first).await)?;
        }
        cx.expect_key(&handles[0], &id, &first).await?;
        cx.expect_key(&handles[1], &id, &first).await?;
        way.apply(remover, &id).await?;
        cx.expect_absent(&handles[0], &id).await?;
        cx.expect_absent(&handles[1], &id).await?;
        if cx.frees(way) {
            let again = sample::random_key(33);
            cx.put(writer, &id, &again).await?;
            cx.expect_key(&handles[0], &id, &again).await?;
            cx.expect_key(&handles[1], &id, &again).await?;
            way.apply(writer, &id).await?;
            cx.expect_absent(&handles[0], &id).await?;
        }
    }
    match cx.capabilities.listing {
        Some(_) => cx.expect_listing(&cx.store, &[]).await,
        None => Ok(()),
    }
}

async fn missing_is_not_found(cx: Context) -> Outcome {
    let [one, two] = cx.two_handles().await?;
    let nobody = sample::id("nobody");
    let expect_not_found =
        |id: &KeyId, answer| cx.expect_error(&call("delete_key", id), answer, ErrorKind::NotFound, Operation::Delete);
    expect_not_found(&nobody, one.delete_key(&nobody).await)?;
    for (index, (deleter, second)) in [(&one, &one), (&one, &two), (&two, &one)].into_iter().enumerate() {
        let id = sample::id(format!("alice-{index}"));
        let key = sample::random_key(32);
        cx.put(&one, &id, &key).await?;
        cx.expect_key(&one, &id, &key).await?;
        cx.expect_key(&two, &id, &key).await?;
        expect_not_found(&nobody, one.delete_key(&nobody).await)?;
        ok(&call("delete_key", &id), deleter.delete_key(&id).await)?;
        cx.expect_absent(&one, &id).await?;
        cx.expect_absent(&two, &id).await?;
        match second.delete_key(&id).await {
            // A store that could still recover the key may say so instead.
            Err(e) if e.kind() == ErrorKind::PendingDeletion && cx.is_recoverable() => {}
            answer => expect_not_found(&id, answer)?,
        }
    }
    Ok(())
}

async fn other_ids_untouched(cx: Context) -> Outcome {
    let names = [
        "alice_x", "a", "al", "alice", "alice ", "alice/", "alice/x", "alice-x", "alice.x", "alice%", "Alice", "bob",
        "%",
    ];
    let ids: Vec<KeyId> = names.map(sample::id).into();
    // Some keys are equal, because only the ids should matter.
    let equal = sample::random_key(32);
    let key = |index: usize| if index % 4 == 1 { equal.clone() } else { sample::random_key(32) };
    let keys: Vec<_> = (0..ids.len()).map(key).collect();
    for (id, key) in ids.iter().zip(&keys) {
        ok("put_key", cx.store.put_key(id, key).await)?;
        cx.expect_key(&cx.store, id, key).await?;
    }
    for (index, deleted) in ids.iter().enumerate() {
        Removal::ALL[index % 3].apply(&cx.store, deleted).await?;
        cx.expect_absent(&cx.store, deleted).await?;
        for (id, key) in ids.iter().zip(&keys).skip(index + 1) {
            cx.expect_key(&cx.store, id, key).await?;
        }
    }
    Ok(())
}

async fn survives_reopen(cx: Context) -> Outcome {
    let ids = [sample::id("alice"), sample::id("bob")];
    for id in &ids {
        let key = sample::random_key(32);
        ok("put_key", cx.store.put_key(id, &key).await)?;
        cx.expect_key(&cx.store, id, &key).await?;
    }
    let [alice, bob] = &ids;
    ok("delete_key", cx.store.delete_key(alice).await)?;
    cx.expect_absent(&cx.store, alice).await?;
    let reopened = cx.reopen().await?;
    cx.expect_absent(&reopened, alice).await?;
    ok("delete_key of the new client", reopened.delete_key(bob).await)?;
    cx.expect_absent(&cx.reopen().await?, bob).await
}

async fn visible_to_other_handle(cx: Context) -> Outcome {
    let id = sample::id("alice");
    let key = sample::random_key(32);
    let other = cx.reopen().await?;
    ok("put_key", cx.store.put_key(&id, &key).await)?;
    cx.expect_key(&cx.store, &id, &key).await?;
    cx.expect_key(&other, &id, &key).await?;
    ok("delete_key", cx.store.delete_key(&id).await)?;
    cx.expect_absent(&other, &id).await?;
    cx.expect_absent(&cx.store, &id).await
}

async fn grade_matches_capability(cx: Context) -> Outcome {
    let grade = cx.capabilities.deletion;
    let expected =
        format!("the finality of the declared grade {grade:?} for at least one of five deletions, and no stronger one");
    let mut usual = 0;
    for index in 0..5 {
        let id = sample::id(format!("alice-{index}"));
        let key = sample::random_key(32);
        ok("put_key", cx.store.put_key(&id, &key).await)?;
        cx.expect_key(&cx.store, &id, &key).await?;
        let before = SystemTime::now();
        let Deletion { finality, .. } = ok(&call("delete_key", &id), cx.store.delete_key(&id).await)?;
        ensure(strength(finality) <= declared(grade), "delete_key", expected.as_str(), format!("{finality:?}"))?;
        if let (DeletionGrade::Recoverable { window }, Finality::RecoverableUntil(until)) = (grade, finality) {
            let plausible = until > before && until <= SystemTime::now() + window + CLOCK_SKEW;
            ensure(plausible, "delete_key", format!("recoverable for at most {window:?}"), format!("{finality:?}"))?;
        }
        usual += usize::from(is_usual(finality, grade, before));
    }
    let id = sample::id("batch");
    let key = sample::random_key(32);
    ok("put_key", cx.store.put_key(&id, &key).await)?;
    cx.expect_key(&cx.store, &id, &key).await?;
    let finality = Removal::DeleteMany.apply(&cx.store, &id).await?;
    ensure(strength(finality) <= declared(grade), "delete_keys", expected.as_str(), format!("{finality:?}"))?;
    ensure(usual > 0, "delete_key, five times", expected, "only weaker finalities")
}

/// Reports whether a deletion has the declared grade. A recoverable one must last for the declared
/// window.
fn is_usual(finality: Finality, grade: DeletionGrade, begun: SystemTime) -> bool {
    match (finality, grade) {
        (Finality::RecoverableUntil(until), DeletionGrade::Recoverable { window }) => {
            until + CLOCK_SKEW >= begun + window
        }
        (Finality::Eventual { within }, DeletionGrade::Eventual { within: declared }) => {
            declared.is_none_or(|declared| within.is_some_and(|within| within <= declared))
        }
        _ => strength(finality) == declared(grade),
    }
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
