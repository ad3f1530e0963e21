//! Many keys in one call.

use keystead_core::{ErrorKind, KeyId, KeyStoreExt, Operation, SecretKey};

use crate::case::room;
use crate::context::{Context, Outcome, ensure, fail, ok, same};
use crate::sample;

room! {
    "batch.get_order_and_duplicates":
        "get_keys gives one outcome per id, in the ids' order, whatever is missing or asked for twice"
        => get_order_and_duplicates;
    "batch.delete_partial":
        "delete_keys deletes what is there, says what is not, gives a repeated id one outcome, and touches nothing else"
        => delete_partial;
}

async fn stored(cx: &Context, count: usize) -> Outcome<Vec<(KeyId, SecretKey)>> {
    // Of many lengths, so that one key in another's place is seen.
    let entries: Vec<_> =
        sample::ids(count).into_iter().enumerate().map(|(n, id)| (id, sample::random_key(20 + n))).collect();
    for (id, key) in &entries {
        ok("put_key", cx.store.put_key(id, key).await)?;
    }
    for (id, key) in &entries {
        cx.holds(&cx.store, id, key).await?;
    }
    Ok(entries)
}

async fn get_order_and_duplicates(cx: Context) -> Outcome {
    let entries = stored(&cx, cx.size(101, 24)).await?;
    let missing = sample::id("nobody");
    for len in [0, 1, 9, 10, 11, 20, 21, 101] {
        // Every id once and backwards; every third one missing; each one twice, far apart and side by side.
        let once = (0..len).map(|n| entries.get(entries.len().wrapping_sub(1 + n)));
        let holes = (0..len).map(|n| entries.get(n * 7 % entries.len()).filter(|_| n % 3 != 1));
        let twice = (0..len).map(|n| entries.get(n % len.div_ceil(2) % entries.len()));
        let pairs = (0..len).map(|n| entries.get(n / 2 % entries.len()));
        for wanted in [once.collect::<Vec<_>>(), holes.collect(), twice.collect(), pairs.collect()] {
            let ids: Vec<KeyId> = wanted.iter().map(|entry| entry.map_or(&missing, |(id, _)| id).clone()).collect();
            let answers = cx.store.get_keys(&ids).await;
            let call = format!("get_keys of {len} ids");
            ensure(answers.len() == len, call.as_str(), "one outcome per id", format!("{} outcomes", answers.len()))?;
            for (position, (answer, entry)) in answers.into_iter().zip(wanted).enumerate() {
                let call = format!("{call}, outcome {position}");
                match entry {
                    Some((_, key)) => same(&call, answer, key)?,
                    None => cx.refused(&call, answer, ErrorKind::NotFound, Operation::Get)?,
                }
            }
        }
    }
    Ok(())
}

async fn delete_partial(cx: Context) -> Outcome {
    let entries = stored(&cx, cx.size(60, 24)).await?;
    let (doomed, kept) = entries.split_at(entries.len() / 2);
    let missing = sample::id("nobody");
    let mut ids: Vec<KeyId> = doomed.iter().map(|(id, _)| id.clone()).collect();
    ids.insert(1, missing.clone());
    ids.extend(doomed.first().map(|(id, _)| id.clone()));
    ids.push(missing.clone());
    let answers = cx.store.delete_keys(&ids).await;
    let call = format!("delete_keys of {} ids", ids.len());
    ensure(answers.len() == ids.len(), call.as_str(), "one outcome per id", format!("{} outcomes", answers.len()))?;
    for (position, (answer, id)) in answers.into_iter().zip(&ids).enumerate() {
        let call = format!("{call}, outcome {position}");
        if *id == missing {
            cx.refused(&call, answer, ErrorKind::NotFound, Operation::Delete)?;
        } else {
            ok(&call, answer)?;
        }
    }
    for (id, _) in doomed {
        cx.absent(&cx.store, id).await?;
    }
    for (id, key) in kept {
        cx.holds(&cx.store, id, key).await?;
    }
    let none = cx.store.delete_keys(&[]).await;
    if none.is_empty() { Ok(()) } else { fail("delete_keys of no ids", "no outcomes", format!("{}", none.len())) }
}
