//! Engines that fail.

use std::future::Future;
use std::time::Duration;

use keystead_core::{Effect, Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, SecretKey};

use crate::canary::Canary;
use crate::case::case_list;
use crate::context::{Context, Outcome, Store, call, ensure, fail, in_parallel, list, ok, same};
use crate::harness::Fault;
use crate::sample;

case_list! {
    "fault.throttled":
        "a throttled call says Throttled, retryable, with the pause that was asked for, and has no effect", needs Faults
        => throttled;
    "fault.denied":
        "a call that is denied says PermissionDenied, never NotFound, and quotes neither id nor key", needs Faults
        => denied;
    "fault.expired_credentials":
        "a call with expired credentials says Unauthenticated", needs Faults
        => expired_credentials;
    "fault.key_unavailable":
        "a call that needs an encryption key which cannot be used says KeyUnavailable", needs Faults
        => key_unavailable;
    "fault.5xx":
        "an engine that fails by itself is Unavailable, retryable, and never an absence", needs Faults
        => server_error;
    "fault.garbage_200":
        "an answer that means nothing is an error, unless reading back settles it, never a value or an absence, and no part of it is shown", needs Faults
        => garbage;
    "fault.truncated_body":
        "an answer that ends half-way is an error, unless reading back settles it, never a value or an absence, and no part of it is shown", needs Faults
        => truncated;
    "fault.reset_before_send":
        "a connection that ends before the request is an error that can be tried again, or is tried again at once",
        needs Faults
        => reset_before_send;
    "fault.reset_after_apply":
        "a write whose answer was lost is Ok or of unknown effect, never refused for what it did itself", needs Faults
        => reset_after_apply;
    "fault.silent_server":
        "a call to an engine that never answers ends in time, with Timeout, and a write with Effect::Unknown", needs Faults
        => silent_server;
    "fault.slow_body":
        "an answer that comes a byte at a time is whole or a Timeout in time", needs Faults
        => slow_body;
    "fault.storm":
        "callers that wait as long as they are told get through a storm of throttling", needs Faults
        => storm;
}

/// More than any client tries by itself.
const ALWAYS: u32 = 1_000;

/// The material for the operations of a case: a key that exists, and an id that is free.
struct Scene {
    canary: Canary,
    free: KeyId,
    /// The key that is put and created.
    other: SecretKey,
}

impl Scene {
    async fn new(cx: &Context) -> Outcome<Self> {
        let (canary, free, other) = (Canary::new(), Canary::new().id, sample::random_key(32));
        ok("put_key", cx.store.put_key(&canary.id, &canary.key).await)?;
        cx.expect_key(&cx.store, &canary.id, &canary.key).await?;
        Ok(Self { canary, free, other })
    }

    /// The answer to one call of this operation, which must come in time.
    async fn answer(&self, cx: &Context, operation: Operation) -> Outcome<keystead_core::Result<()>> {
        let (store, Self { canary, free, other }) = (&cx.store, self);
        in_time(cx, operation, async {
            match operation {
                Operation::Get => store.get_key(&canary.id).await.map(drop),
                Operation::Put => store.put_key(&canary.id, other).await,
                Operation::Create => store.create_key(free, other).await,
                Operation::Delete => store.delete_key(&canary.id).await.map(drop),
                Operation::List => first_of_listing(store).await,
                _ => store.check().await,
            }
        })
        .await
    }

    /// The error that this operation fails with.
    async fn refusal(&self, cx: &Context, operation: Operation) -> Outcome<Error> {
        match self.answer(cx, operation).await? {
            Err(e) => Ok(e),
            Ok(()) => fail(format!("{operation} on a failing engine"), "an error", "Ok"),
        }
    }

    /// A write that says Ok tells the truth.
    async fn is_done(&self, cx: &Context, operation: Operation) -> Outcome {
        match operation {
            Operation::Put => cx.expect_key(&cx.store, &self.canary.id, &self.other).await,
            Operation::Create => cx.expect_key(&cx.store, &self.free, &self.other).await,
            _ => cx.expect_absent(&cx.store, &self.canary.id).await,
        }
    }

    /// An error that says "not applied" tells the truth: the key stands, and the free id is free.
    async fn is_untouched(&self, cx: &Context) -> Outcome {
        cx.expect_key(&cx.store, &self.canary.id, &self.canary.key).await?;
        cx.expect_absent(&cx.store, &self.free).await
    }
}

async fn first_of_listing(store: &Store) -> keystead_core::Result<()> {
    use futures_util::StreamExt;
    store.list_keys().next().await.unwrap_or_else(|| Ok(sample::id("none"))).map(drop)
}

async fn in_time<T>(cx: &Context, operation: Operation, answer: impl Future<Output = T>) -> Outcome<T> {
    let bound = cx.faults().call_bound();
    match tokio::time::timeout(bound, answer).await {
        Ok(answer) => Ok(answer),
        Err(_) => fail(format!("{operation} on a failing engine"), format!("an answer within {bound:?}"), "none"),
    }
}

/// Under this fault each of these operations fails with one of these kinds; afterwards all is as it was.
async fn fails(cx: &Context, fault: Fault, operations: &[Operation], kinds: &[ErrorKind]) -> Outcome<Vec<Error>> {
    let mut scene = Scene::new(cx).await?;
    let mut errors = Vec::new();
    for &operation in operations.iter().filter(|operation| **operation != Operation::List || cx.lists_at_all()) {
        cx.inject(Some(operation), fault.clone(), ALWAYS).await?;
        let error = scene.refusal(cx, operation).await?;
        cx.clear().await?;
        is_of(&scene, &error, operation, kinds, &fault)?;
        if error.effect() == Effect::NotApplied {
            scene.is_untouched(cx).await?;
        } else {
            // It may have landed: the next one is about other ids.
            scene = Scene::new(cx).await?;
        }
        errors.push(error);
    }
    Ok(errors)
}

/// The error is of one of these kinds, names its operation, and shows neither key nor id.
fn is_of(scene: &Scene, error: &Error, operation: Operation, kinds: &[ErrorKind], fault: &Fault) -> Outcome {
    let right = kinds.contains(&error.kind()) && error.operation() == operation;
    let expected = format!("one of {kinds:?}, operation {operation:?}");
    let got = format!("kind {:?}, operation {:?}", error.kind(), error.operation());
    ensure(right, format!("{operation} under {fault:?}"), expected, got)?;
    scene.canary.not_in_error(error)
}

const READS_AND_WRITES: [Operation; 4] = [Operation::Get, Operation::Put, Operation::Create, Operation::Delete];
const ALL: [Operation; 5] = [Operation::Get, Operation::Put, Operation::Create, Operation::Delete, Operation::List];

async fn throttled(cx: Context) -> Outcome {
    for retry_after in [None, Some(Duration::from_secs(7))] {
        for error in fails(&cx, Fault::Throttled { retry_after }, &READS_AND_WRITES, &[ErrorKind::Throttled]).await? {
            ensure(error.is_retryable(), "a throttled call", "a retryable error", "one that is not")?;
            let kept = retry_after.is_none() || error.retry_after() == retry_after;
            ensure(kept, "a throttled call", format!("{retry_after:?}"), format!("{:?}", error.retry_after()))?;
            let effect = error.effect();
            ensure(effect == Effect::NotApplied, "a throttled call", "Effect::NotApplied", format!("{effect:?}"))?;
        }
    }
    Ok(())
}

async fn denied(cx: Context) -> Outcome {
    let errors = fails(&cx, Fault::Denied, &ALL, &[ErrorKind::PermissionDenied]).await?;
    not_retryable(&errors)
}

async fn expired_credentials(cx: Context) -> Outcome {
    let errors = fails(&cx, Fault::ExpiredCredentials, &READS_AND_WRITES, &[ErrorKind::Unauthenticated]).await?;
    not_retryable(&errors)
}

async fn key_unavailable(cx: Context) -> Outcome {
    let operations = [Operation::Get, Operation::Put, Operation::Create];
    let errors = fails(&cx, Fault::KeyUnavailable, &operations, &[ErrorKind::KeyUnavailable]).await?;
    not_retryable(&errors)
}

fn not_retryable(errors: &[Error]) -> Outcome {
    let wrong = errors.iter().filter(|error| error.is_retryable()).count();
    ensure(wrong == 0, "calls that only an operator can help", "errors that are not retryable", format!("{wrong} are"))
}

async fn server_error(cx: Context) -> Outcome {
    let errors = fails(&cx, Fault::ServerError, &READS_AND_WRITES, &[ErrorKind::Unavailable]).await?;
    let wrong = errors.iter().filter(|error| !error.is_retryable()).count();
    ensure(wrong == 0, "calls to an engine that fails", "errors that are retryable", format!("{wrong} are not"))
}

/// The kinds of an error for an answer that cannot be read. Such an answer says nothing about what
/// was done.
const UNREADABLE: [ErrorKind; 3] = [ErrorKind::Corrupt, ErrorKind::Unavailable, ErrorKind::Other];

async fn garbage(cx: Context) -> Outcome {
    unreadable(&cx, Fault::Garbage).await
}

async fn truncated(cx: Context) -> Outcome {
    unreadable(&cx, Fault::Truncated).await
}

/// A write may be settled by reading back: then its Ok must be true.
async fn unreadable(cx: &Context, fault: Fault) -> Outcome {
    for operation in READS_AND_WRITES {
        let scene = Scene::new(cx).await?;
        cx.inject(Some(operation), fault.clone(), ALWAYS).await?;
        let answer = scene.answer(cx, operation).await?;
        cx.clear().await?;
        let call = format!("{operation} with an unreadable answer");
        match answer {
            Ok(()) if operation == Operation::Get => return fail(call, "an error", "Ok"),
            Ok(()) => scene.is_done(cx, operation).await?,
            Err(e) => {
                is_of(&scene, &e, operation, &UNREADABLE, &fault)?;
                let told = operation == Operation::Get || e.effect() == Effect::Unknown;
                ensure(told, call, "Effect::Unknown", "NotApplied")?;
            }
        }
    }
    Ok(())
}

async fn reset_before_send(cx: Context) -> Outcome {
    for error in fails(&cx, Fault::ResetBeforeSend, &READS_AND_WRITES, &[ErrorKind::Unavailable]).await? {
        ensure(error.is_retryable(), "a call that was never sent", "a retryable error", "one that is not")?;
    }
    Ok(())
}

async fn reset_after_apply(cx: Context) -> Outcome {
    let (id, first, second) = (sample::id("alice"), sample::random_key(32), sample::random_key(33));
    cx.inject(Some(Operation::Create), Fault::ResetAfterApply, 1).await?;
    let answer = in_time(&cx, Operation::Create, cx.store.create_key(&id, &first)).await?;
    applied_or_unknown("create_key whose answer was lost", &answer)?;
    cx.clear().await?;
    cx.expect_key(&cx.store, &id, &first).await?;

    cx.inject(Some(Operation::Put), Fault::ResetAfterApply, 1).await?;
    let answer = in_time(&cx, Operation::Put, cx.store.put_key(&id, &second)).await?;
    applied_or_unknown("put_key whose answer was lost", &answer)?;
    cx.clear().await?;
    cx.expect_key(&cx.store, &id, &second).await?;

    cx.inject(Some(Operation::Delete), Fault::ResetAfterApply, 1).await?;
    let answer = in_time(&cx, Operation::Delete, cx.store.delete_key(&id)).await?;
    applied_or_unknown("delete_key whose answer was lost", &answer)?;
    cx.clear().await?;
    cx.expect_absent(&cx.store, &id).await
}

fn applied_or_unknown<T>(call: &str, answer: &keystead_core::Result<T>) -> Outcome {
    match answer {
        Ok(_) => Ok(()),
        Err(e) if e.effect() == Effect::Unknown => Ok(()),
        Err(e) => {
            fail(call, "Ok, or an error with Effect::Unknown", format!("kind {:?}, Effect::NotApplied", e.kind()))
        }
    }
}

async fn silent_server(cx: Context) -> Outcome {
    for error in fails(&cx, Fault::Silent, &READS_AND_WRITES, &[ErrorKind::Timeout]).await? {
        let told = error.operation() == Operation::Get || error.effect() == Effect::Unknown;
        ensure(told, format!("{} without an answer", error.operation()), "Effect::Unknown", "NotApplied")?;
    }
    Ok(())
}

async fn slow_body(cx: Context) -> Outcome {
    let scene = Scene::new(&cx).await?;
    cx.inject(Some(Operation::Get), Fault::SlowBody, ALWAYS).await?;
    let answer = in_time(&cx, Operation::Get, cx.store.get_key(&scene.canary.id)).await?;
    cx.clear().await?;
    match answer {
        Err(e) if e.kind() == ErrorKind::Timeout => scene.canary.not_in_error(&e),
        answer => same(&call("get_key", &scene.canary.id), answer, &scene.canary.key),
    }
}

async fn storm(cx: Context) -> Outcome {
    let retry_after = Some(Duration::from_millis(20));
    cx.inject(None, Fault::Throttled { retry_after }, 60).await?;
    let keys: Vec<(KeyId, SecretKey)> = sample::ids(8).into_iter().map(|id| (id, sample::random_key(32))).collect();
    let callers = keys.iter().cloned().map(|(id, key)| {
        let store = cx.store.clone();
        async move { patiently(&store, &id, &key).await }
    });
    in_parallel(callers).await?.into_iter().collect::<Outcome<()>>()?;
    cx.clear().await?;
    for (id, key) in &keys {
        cx.expect_key(&cx.store, id, key).await?;
    }
    match cx.capabilities.listing {
        Some(_) => list(&cx.store).await.map(drop),
        None => Ok(()),
    }
}

/// Puts a key, waiting as long as the store asks for.
async fn patiently(store: &Store, id: &KeyId, key: &SecretKey) -> Outcome {
    for _ in 0..200 {
        match store.put_key(id, key).await {
            Err(e) if e.kind() == ErrorKind::Throttled => {
                tokio::time::sleep(e.retry_after().unwrap_or(Duration::from_millis(20))).await;
            }
            answer => return ok("put_key in a storm of throttling", answer),
        }
    }
    fail("put_key in a storm of throttling, 200 times", "Ok in the end", "Throttled")
}
