//! Cases about engines that fail.

use std::future::Future;
use std::time::Duration;

use keystead_core::{Effect, Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, SecretKey};

use crate::canary::Canary;
use crate::case::case_list;
use crate::context::{Context, Outcome, Store, ensure, fail, in_parallel, list, ok, same};
use crate::harness::Fault;
use crate::sample;

case_list! {
    "fault.throttled":
        "a throttled call fails with Throttled, which is retryable and carries the pause that the engine asks \
         for, and has no effect", needs Faults
        => throttled;
    "fault.denied":
        "a denied call fails with PermissionDenied, never NotFound, and the error contains neither the id nor \
         the key", needs Faults
        => denied;
    "fault.expired_credentials":
        "a call with expired credentials fails with Unauthenticated", needs Faults
        => expired_credentials;
    "fault.key_unavailable":
        "a call that needs an encryption key which cannot be used fails with KeyUnavailable", needs Faults
        => key_unavailable;
    "fault.5xx":
        "an error of the engine's own is Unavailable and retryable, and is never reported as absence", needs Faults
        => server_error;
    "fault.garbage_200":
        "a meaningless answer is an error unless a read settles the outcome, never a value or an absence, and \
         no part of it is shown", needs Faults
        => garbage;
    "fault.truncated_body":
        "an answer that ends halfway is an error unless a read settles the outcome, never a value or an \
         absence, and no part of it is shown", needs Faults
        => truncated;
    "fault.reset_before_send":
        "a connection that ends before the request is sent gives a retryable error", needs Faults
        => reset_before_send;
    "fault.reset_after_apply":
        "a write whose answer was lost returns Ok or an error of unknown effect, and is never refused because \
         of itself", needs Faults
        => reset_after_apply;
    "fault.silent_server":
        "a call to an engine that never answers ends in time with Timeout, and a write with Effect::Unknown",
        needs Faults
        => silent_server;
    "fault.slow_body":
        "an answer that comes a byte at a time gives the whole key, or Timeout in time", needs Faults
        => slow_body;
    "fault.storm":
        "callers that wait as long as the errors ask get through a storm of throttling", needs Faults
        => storm;
}

/// A number of requests that is larger than that of any client's own attempts.
const ALWAYS: u32 = 1_000;

/// The ids and keys that the operations of a case use: a key that exists, and an id without a key.
struct Scene {
    canary: Canary,
    free: KeyId,
    /// The key that is put and created.
    other: SecretKey,
}

impl Scene {
    async fn new(cx: &Context) -> Outcome<Self> {
        let canary = Canary::new();
        let free = Canary::new().id;
        let other = sample::random_key(32);
        ok("put_key", cx.store.put_key(&canary.id, &canary.key).await)?;
        cx.expect_key(&cx.store, &canary.id, &canary.key).await?;
        Ok(Self { canary, free, other })
    }

    /// Makes one call of this operation, which must answer in time.
    async fn answer(&self, cx: &Context, operation: Operation) -> Outcome<keystead_core::Result<()>> {
        let store = &cx.store;
        let Self { canary, free, other } = self;
        in_time(cx, &format!("{operation} on a failing engine"), async {
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

    /// Makes one call of this operation, which must fail in time, and returns its error.
    async fn refusal(&self, cx: &Context, operation: Operation) -> Outcome<Error> {
        match self.answer(cx, operation).await? {
            Err(e) => Ok(e),
            Ok(()) => fail(format!("{operation} on a failing engine"), "an error", "Ok"),
        }
    }

    /// Expects a write that has returned Ok to be applied.
    async fn is_done(&self, cx: &Context, operation: Operation) -> Outcome {
        match operation {
            Operation::Put => cx.expect_key(&cx.store, &self.canary.id, &self.other).await,
            Operation::Create => cx.expect_key(&cx.store, &self.free, &self.other).await,
            _ => cx.expect_absent(&cx.store, &self.canary.id).await,
        }
    }

    /// Expects the key to be unchanged and the free id to have no key.
    async fn is_untouched(&self, cx: &Context) -> Outcome {
        cx.expect_key(&cx.store, &self.canary.id, &self.canary.key).await?;
        cx.expect_absent(&cx.store, &self.free).await
    }
}

/// Reads the first id of a listing, or none.
async fn first_of_listing(store: &Store) -> keystead_core::Result<()> {
    use futures_util::StreamExt;
    store.list_keys().next().await.unwrap_or_else(|| Ok(sample::id("none"))).map(drop)
}

async fn in_time<T>(cx: &Context, call: &str, answer: impl Future<Output = T>) -> Outcome<T> {
    let bound = cx.faults().call_bound();
    match tokio::time::timeout(bound, answer).await {
        Ok(answer) => Ok(answer),
        Err(_) => fail(call, format!("an answer within {bound:?}"), "no answer"),
    }
}

/// Returns a call under a fault as failures quote it.
fn under(fault: &Fault, operation: Operation) -> String {
    format!("{operation} under {fault:?}")
}

/// Expects each of these operations to fail under this fault with one of these kinds, and to have no
/// effect if the error says so. Returns the errors.
async fn fails(cx: &Context, fault: &Fault, operations: &[Operation], kinds: &[ErrorKind]) -> Outcome<Vec<Error>> {
    let mut scene = Scene::new(cx).await?;
    let mut errors = Vec::new();
    for &operation in operations.iter().filter(|operation| **operation != Operation::List || cx.can_list()) {
        cx.inject(Some(operation), fault.clone(), ALWAYS).await?;
        let error = scene.refusal(cx, operation).await?;
        cx.clear().await?;
        is_of(&scene, &error, operation, kinds, fault)?;
        if error.effect() == Effect::NotApplied {
            scene.is_untouched(cx).await?;
        } else {
            // It may have been applied, so the next operation uses other ids.
            scene = Scene::new(cx).await?;
        }
        errors.push(error);
    }
    Ok(errors)
}

/// Expects an error of one of these kinds that names its operation and contains neither key nor id.
fn is_of(scene: &Scene, error: &Error, operation: Operation, kinds: &[ErrorKind], fault: &Fault) -> Outcome {
    let right = kinds.contains(&error.kind()) && error.operation() == operation;
    let expected = format!("an error of one of the kinds {kinds:?}, operation {operation:?}");
    let got = format!("kind {:?}, operation {:?}", error.kind(), error.operation());
    ensure(right, under(fault, operation), expected, got)?;
    scene.canary.not_in_error(error)
}

const READS_AND_WRITES: [Operation; 4] = [Operation::Get, Operation::Put, Operation::Create, Operation::Delete];
const ALL: [Operation; 5] = [Operation::Get, Operation::Put, Operation::Create, Operation::Delete, Operation::List];

async fn throttled(cx: Context) -> Outcome {
    for retry_after in [None, Some(Duration::from_secs(7))] {
        let fault = Fault::Throttled { retry_after };
        let errors = fails(&cx, &fault, &READS_AND_WRITES, &[ErrorKind::Throttled]).await?;
        are_retryable(&errors, &fault, true)?;
        for error in errors {
            let call = under(&fault, error.operation());
            let kept = retry_after.is_none() || error.retry_after() == retry_after;
            let expected = format!("an error with retry_after {retry_after:?}");
            ensure(kept, call.as_str(), expected, format!("retry_after {:?}", error.retry_after()))?;
            let effect = error.effect();
            ensure(effect == Effect::NotApplied, call, "effect NotApplied", format!("effect {effect:?}"))?;
        }
    }
    Ok(())
}

async fn denied(cx: Context) -> Outcome {
    let errors = fails(&cx, &Fault::Denied, &ALL, &[ErrorKind::PermissionDenied]).await?;
    are_retryable(&errors, &Fault::Denied, false)
}

async fn expired_credentials(cx: Context) -> Outcome {
    let fault = Fault::ExpiredCredentials;
    let errors = fails(&cx, &fault, &READS_AND_WRITES, &[ErrorKind::Unauthenticated]).await?;
    are_retryable(&errors, &fault, false)
}

async fn key_unavailable(cx: Context) -> Outcome {
    let operations = [Operation::Get, Operation::Put, Operation::Create];
    let errors = fails(&cx, &Fault::KeyUnavailable, &operations, &[ErrorKind::KeyUnavailable]).await?;
    are_retryable(&errors, &Fault::KeyUnavailable, false)
}

/// Expects each of these errors under this fault to be retryable, or each not to be.
fn are_retryable(errors: &[Error], fault: &Fault, expected: bool) -> Outcome {
    errors.iter().try_for_each(|error| {
        let is_retryable = error.is_retryable();
        let call = under(fault, error.operation());
        let got = format!("kind {:?}, is_retryable {is_retryable}", error.kind());
        ensure(is_retryable == expected, call, format!("an error with is_retryable {expected}"), got)
    })
}

async fn server_error(cx: Context) -> Outcome {
    let errors = fails(&cx, &Fault::ServerError, &READS_AND_WRITES, &[ErrorKind::Unavailable]).await?;
    are_retryable(&errors, &Fault::ServerError, true)
}

/// The kinds of an error about an unreadable answer, which says nothing about the outcome.
const UNREADABLE: [ErrorKind; 3] = [ErrorKind::Corrupt, ErrorKind::Unavailable, ErrorKind::Other];

async fn garbage(cx: Context) -> Outcome {
    unreadable(&cx, Fault::Garbage).await
}

async fn truncated(cx: Context) -> Outcome {
    unreadable(&cx, Fault::Truncated).await
}

/// Expects an error for each unreadable answer. A write may also return Ok, which must then be true.
async fn unreadable(cx: &Context, fault: Fault) -> Outcome {
    for operation in READS_AND_WRITES {
        let scene = Scene::new(cx).await?;
        cx.inject(Some(operation), fault.clone(), ALWAYS).await?;
        let answer = scene.answer(cx, operation).await?;
        cx.clear().await?;
        let call = under(&fault, operation);
        match answer {
            Ok(()) if operation == Operation::Get => return fail(call, "an error", "Ok"),
            Ok(()) => scene.is_done(cx, operation).await?,
            Err(e) => {
                is_of(&scene, &e, operation, &UNREADABLE, &fault)?;
                let told = operation == Operation::Get || e.effect() == Effect::Unknown;
                ensure(told, call, "an error with effect Unknown", "effect NotApplied")?;
            }
        }
    }
    Ok(())
}

async fn reset_before_send(cx: Context) -> Outcome {
    let errors = fails(&cx, &Fault::ResetBeforeSend, &READS_AND_WRITES, &[ErrorKind::Unavailable]).await?;
    are_retryable(&errors, &Fault::ResetBeforeSend, true)
}

async fn reset_after_apply(cx: Context) -> Outcome {
    let id = sample::id("alice");
    let first = sample::random_key(32);
    let second = sample::random_key(33);
    cx.inject(Some(Operation::Create), Fault::ResetAfterApply, 1).await?;
    let call = "create_key whose answer was lost";
    applied_or_unknown(call, &in_time(&cx, call, cx.store.create_key(&id, &first)).await?)?;
    cx.clear().await?;
    cx.expect_key(&cx.store, &id, &first).await?;

    cx.inject(Some(Operation::Put), Fault::ResetAfterApply, 1).await?;
    let call = "put_key whose answer was lost";
    applied_or_unknown(call, &in_time(&cx, call, cx.store.put_key(&id, &second)).await?)?;
    cx.clear().await?;
    cx.expect_key(&cx.store, &id, &second).await?;

    cx.inject(Some(Operation::Delete), Fault::ResetAfterApply, 1).await?;
    let call = "delete_key whose answer was lost";
    applied_or_unknown(call, &in_time(&cx, call, cx.store.delete_key(&id)).await?)?;
    cx.clear().await?;
    cx.expect_absent(&cx.store, &id).await
}

fn applied_or_unknown<T>(call: &str, answer: &keystead_core::Result<T>) -> Outcome {
    match answer {
        Ok(_) => Ok(()),
        Err(e) if e.effect() == Effect::Unknown => Ok(()),
        Err(e) => fail(call, "Ok, or an error with effect Unknown", format!("kind {:?}, effect NotApplied", e.kind())),
    }
}

async fn silent_server(cx: Context) -> Outcome {
    for error in fails(&cx, &Fault::Silent, &READS_AND_WRITES, &[ErrorKind::Timeout]).await? {
        let told = error.operation() == Operation::Get || error.effect() == Effect::Unknown;
        let call = under(&Fault::Silent, error.operation());
        ensure(told, call, "an error with effect Unknown", "effect NotApplied")?;
    }
    Ok(())
}

async fn slow_body(cx: Context) -> Outcome {
    let scene = Scene::new(&cx).await?;
    cx.inject(Some(Operation::Get), Fault::SlowBody, ALWAYS).await?;
    let call = under(&Fault::SlowBody, Operation::Get);
    let answer = in_time(&cx, &call, cx.store.get_key(&scene.canary.id)).await?;
    cx.clear().await?;
    match answer {
        Err(e) if e.kind() == ErrorKind::Timeout => scene.canary.not_in_error(&e),
        answer => same(&call, answer, &scene.canary.key),
    }
}

async fn storm(cx: Context) -> Outcome {
    let retry_after = Some(Duration::from_millis(20));
    cx.inject(None, Fault::Throttled { retry_after }, 60).await?;
    let keys: Vec<(KeyId, SecretKey)> = sample::ids(8).into_iter().map(|id| (id, sample::random_key(32))).collect();
    let callers = keys.iter().cloned().map(|(id, key)| {
        let store = cx.store.clone();
        async move { put_patiently(&store, &id, &key).await }
    });
    in_parallel("put_key of 8 callers in a storm of throttling", callers)
        .await?
        .into_iter()
        .collect::<Outcome<()>>()?;
    cx.clear().await?;
    for (id, key) in &keys {
        cx.expect_key(&cx.store, id, key).await?;
    }
    match cx.capabilities.listing {
        Some(_) => list(&cx.store).await.map(drop),
        None => Ok(()),
    }
}

/// Puts a key, waiting for as long as the store asks.
async fn put_patiently(store: &Store, id: &KeyId, key: &SecretKey) -> Outcome {
    for _ in 0..200 {
        match store.put_key(id, key).await {
            Err(e) if e.kind() == ErrorKind::Throttled => {
                tokio::time::sleep(e.retry_after().unwrap_or(Duration::from_millis(20))).await;
            }
            answer => return ok("put_key in a storm of throttling", answer),
        }
    }
    fail("put_key in a storm of throttling", "Ok within 200 attempts with the pauses asked for", "Throttled each time")
}
