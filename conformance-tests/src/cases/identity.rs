//! Cases about the identity of the data behind a store.

use keystead_core::{IdentityMatch, KeyId, KeyStoreExt, Operation, StoreIdentity};

use crate::canary::Canary;
use crate::case::case_list;
use crate::context::{Context, Outcome, Stop, Store, ensure, fail, ok};
use crate::harness::Fault;

case_list! {
    "identity.distinct_and_stable":
        "the identity of the data is the same for every client at every time, differs between stores, needs \
         no permission to list, and contains neither an id nor a key"
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
    canary.not_in("Display and Debug of an identity", &format!("{first} {first:?}"))?;
    let info = cx.store.info();
    canary.not_in("Display and Debug of info()", &format!("{info} {info:?}"))
}

/// Returns the identity of a newly opened store. If the harness can, it denies listing meanwhile.
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

/// Returns the identity when all of it is known, which may take one read of a key. Checks that the
/// store keeps it and that its text can be parsed.
async fn identified(store: &Store, id: &KeyId) -> Outcome<StoreIdentity> {
    let mut identity = ok("identify", store.identify().await)?;
    if !identity.is_fully_known() {
        ok("get_key", store.get_key(id).await)?;
        identity = ok("identify", store.identify().await)?;
    }
    let whole = "an identity with every attribute known";
    ensure(identity.is_fully_known(), "identify after a read", whole, identity.to_string())?;
    compared("info after identify", &identity, store.info().identity(), IdentityMatch::Same)?;
    match identity.to_string().parse::<StoreIdentity>() {
        Ok(parsed) if parsed == identity => Ok(identity),
        _ => fail("parsing the text of an identity", identity.to_string(), "another identity, or an error"),
    }
}

fn compared(call: &str, one: &StoreIdentity, two: &StoreIdentity, expected: IdentityMatch) -> Outcome {
    let answer = one.compare(two);
    let got = format!("{answer:?}: {one} and {two}");
    ensure(answer == expected && two.compare(one) == answer, call, format!("{expected:?}"), got)
}
