//! The identity of the data behind a store.

use keystead_core::{IdentityMatch, KeyId, KeyStoreExt, Operation, StoreIdentity};

use crate::canary::Canary;
use crate::case::case_list;
use crate::context::{Context, Outcome, Stop, Store, ensure, fail, ok};
use crate::harness::Fault;

case_list! {
    "identity.distinct_and_stable":
        "what identifies the data is the same for every client at every time and differs between \
         stores, needs no right to list, and shows neither id nor key"
        => distinct_and_stable;
}

async fn distinct_and_stable(cx: Context) -> Outcome {
    let canary = Canary::new();
    let early = ok("identify of an empty store", cx.store.identify().await)?;
    let other = cx.open_another().await?;
    for store in [&cx.store, &other] {
        ok("put_key", store.put_key(&canary.id, &canary.key).await)?;
        cx.expect_key(store, &canary.id, &canary.key).await?;
    }
    let first = identified(&cx.store, &canary.id).await?;
    let grown = if early.is_fully_known() { IdentityMatch::Same } else { IdentityMatch::Unknown };
    compared("identify before and after a write", &early, &first, grown)?;
    let reopened = without_listing(&cx, &canary.id).await?;
    compared("identify of a reopened store", &first, &reopened, IdentityMatch::Same)?;
    let second = identified(&other, &canary.id).await?;
    compared("identify of another namespace's store", &first, &second, IdentityMatch::Different)?;
    canary.not_in("the text of an identity", &format!("{first} {first:?}"))?;
    let info = cx.store.info();
    canary.not_in("the text of a store's info", &format!("{info} {info:?}"))
}

/// The identity of a store that is opened now, by a caller who may not list if the harness can deny
/// that.
async fn without_listing(cx: &Context, id: &KeyId) -> Outcome<StoreIdentity> {
    let store = cx.reopen().await?;
    if cx.harness.faults().is_none() {
        return identified(&store, id).await;
    }
    match cx.inject(Some(Operation::List), Fault::Denied, u32::MAX).await {
        // Some engines have no permissions.
        Ok(()) | Err(Stop::Ignored(_)) => {}
        Err(stop) => return Err(stop),
    }
    let identity = identified(&store, id).await;
    cx.clear().await?;
    identity
}

/// Returns the identity after the store has learned everything, which may take one read of a key.
/// It keeps that, and its text is read as it was written.
async fn identified(store: &Store, id: &KeyId) -> Outcome<StoreIdentity> {
    let mut identity = ok("identify", store.identify().await)?;
    if !identity.is_fully_known() {
        ok("get_key", store.get_key(id).await)?;
        identity = ok("identify", store.identify().await)?;
    }
    let whole = "an identity of which every attribute is known";
    ensure(identity.is_fully_known(), "identify after a read", whole, identity.to_string())?;
    compared("info after identify", &identity, store.info().identity(), IdentityMatch::Same)?;
    match identity.to_string().parse::<StoreIdentity>() {
        Ok(parsed) if parsed == identity => Ok(identity),
        _ => fail("the text of an identity, parsed", identity.to_string(), "another identity, or an error"),
    }
}

fn compared(call: &str, one: &StoreIdentity, two: &StoreIdentity, expected: IdentityMatch) -> Outcome {
    let answer = one.compare(two);
    let got = format!("{answer:?}: {one} and {two}");
    ensure(answer == expected && two.compare(one) == answer, call, format!("{expected:?}"), got)
}
