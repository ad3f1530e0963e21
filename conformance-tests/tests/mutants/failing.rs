//! A store over an engine that fails on demand, in process; and what such stores get wrong.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use keystead_conformance::{Fault, Faults, Harness, Namespace, Options, Report, async_trait, run};
use keystead_core::{
    BoxError, BoxStream, Capabilities, Deletion, Effect, Error, ErrorKind, Finality, KeyId, KeyStore, Operation,
    PutMode, Result, SecretKey, StoreInfo,
};
use keystead_memory::MemoryStore;

const SCHEME: &str = "memory";

/// The store's own patience with its engine, and the harness's word for it.
const TIMEOUT: Duration = Duration::from_millis(50);

/// The faults that the engine is still to make: the operation, if only one meets it, the fault, and
/// how many times.
type Script = Arc<Mutex<Vec<(Option<Operation>, Fault, u32)>>>;

/// A store's mapping from faults to errors. The default is correct, and a mutant overrides what it
/// gets wrong.
pub(crate) trait Mapping: Default + std::fmt::Debug + Send + Sync + 'static {
    /// The error for this fault. `value` is what the engine's answer or message quotes.
    fn error(fault: &Fault, operation: Operation, _id: &KeyId, _value: &[u8]) -> Error {
        let error = |kind| Error::new(kind, operation, SCHEME);
        match fault {
            Fault::Throttled { retry_after: Some(pause) } => error(ErrorKind::Throttled).with_retry_after(*pause),
            Fault::Throttled { retry_after: None } => error(ErrorKind::Throttled),
            Fault::Denied => error(ErrorKind::PermissionDenied),
            Fault::ExpiredCredentials => error(ErrorKind::Unauthenticated),
            Fault::KeyUnavailable => error(ErrorKind::KeyUnavailable),
            Fault::ServerError => error(ErrorKind::Unavailable),
            Fault::Garbage | Fault::Truncated => error(ErrorKind::Corrupt).with_effect(match operation {
                Operation::Get | Operation::List => Effect::NotApplied,
                _ => Effect::Unknown,
            }),
            Fault::ResetBeforeSend => error(ErrorKind::Unavailable).with_effect(Effect::NotApplied),
            Fault::ResetAfterApply => error(ErrorKind::Unavailable),
            Fault::Silent => error(ErrorKind::Timeout),
            other => panic!("the engine has no fault {other:?}"),
        }
    }

    /// True if the store waits for an engine that is silent instead of giving up in time.
    const IS_PATIENT: bool = false;

    /// True if the store repeats a write whose answer was lost, and returns the second answer as if
    /// it were the first.
    const BELIEVES_THE_SECOND_ANSWER: bool = false;
}

#[derive(Debug)]
pub(crate) struct Failing<M> {
    memory: MemoryStore,
    script: Script,
    mapping: PhantomData<M>,
}

impl<M: Mapping> Failing<M> {
    /// Meets the next fault of this operation: `Err` before any effect, `Ok(Some)` if the call goes on.
    async fn meet(&self, operation: Operation, id: &KeyId, value: &[u8]) -> Result<Option<Fault>> {
        let Some(fault) = self.next_fault(operation) else { return Ok(None) };
        match fault {
            Fault::ResetAfterApply | Fault::SlowBody => Ok(Some(fault)),
            Fault::Silent => {
                let patience = if M::IS_PATIENT { Duration::from_secs(3600) } else { TIMEOUT / 2 };
                tokio::time::sleep(patience).await;
                Err(M::error(&fault, operation, id, value))
            }
            _ => Err(M::error(&fault, operation, id, value)),
        }
    }

    fn next_fault(&self, operation: Operation) -> Option<Fault> {
        let mut script = self.script.lock().expect("no call panics");
        let at = script.iter().position(|(op, _, left)| *left > 0 && op.is_none_or(|op| op == operation))?;
        let (_, fault, left) = script.get_mut(at)?;
        *left -= 1;
        Some(fault.clone())
    }
}

#[async_trait]
impl<M: Mapping> KeyStore for Failing<M> {
    fn info(&self) -> StoreInfo {
        self.memory.info()
    }

    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let value = self.memory.get_key(id).await;
        let quoted = value.as_ref().map_or(&[][..], |key| key.expose_secret());
        self.meet(Operation::Get, id, quoted).await?;
        value
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let operation = if mode == PutMode::Create { Operation::Create } else { Operation::Put };
        let fault = self.meet(operation, id, key.expose_secret()).await?;
        let answer = self.memory.put_key_with(id, key, mode).await;
        match fault {
            Some(Fault::ResetAfterApply) if M::BELIEVES_THE_SECOND_ANSWER => {
                self.memory.put_key_with(id, key, mode).await
            }
            Some(fault) => Err(M::error(&fault, operation, id, key.expose_secret())),
            None => answer,
        }
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        let fault = self.meet(Operation::Delete, id, &[]).await?;
        let answer = self.memory.delete_key(id).await;
        match fault {
            Some(Fault::ResetAfterApply) if M::BELIEVES_THE_SECOND_ANSWER => self.memory.delete_key(id).await,
            // Tried again: that it is gone now is what was wanted.
            Some(_) => Ok(Deletion::new(Finality::Immediate)),
            None => answer,
        }
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        let nobody = KeyId::new("nobody").expect("an id");
        let fault = stream::once(async move { self.meet(Operation::List, &nobody, &[]).await });
        fault
            .flat_map(|fault| match fault {
                Ok(_) => self.memory.list_keys(),
                Err(e) => stream::iter([Err(e)]).boxed(),
            })
            .boxed()
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Engines<M> {
    engines: Mutex<HashMap<Namespace, (MemoryStore, Script)>>,
    mapping: PhantomData<M>,
}

impl<M> Engines<M> {
    fn of(&self, ns: &Namespace) -> (MemoryStore, Script) {
        self.engines.lock().expect("no harness call panics").entry(ns.clone()).or_default().clone()
    }
}

#[async_trait]
impl<M: Mapping> Harness for Engines<M> {
    fn name(&self) -> &str {
        std::any::type_name::<M>()
    }

    async fn open(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        let (memory, script) = self.of(ns);
        Ok(Arc::new(Failing::<M> { memory, script, mapping: PhantomData }))
    }

    async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        self.open(ns).await
    }

    fn faults(&self) -> Option<&dyn Faults> {
        Some(self)
    }
}

#[async_trait]
impl<M: Mapping> Faults for Engines<M> {
    async fn inject(
        &self,
        ns: &Namespace,
        op: Option<Operation>,
        fault: Fault,
        requests: u32,
    ) -> Result<bool, BoxError> {
        // They invite a false success, which the stores over another engine are about.
        if matches!(fault, Fault::Stale | Fault::Refused | Fault::NameHeld) {
            return Ok(false);
        }
        self.of(ns).1.lock().expect("no harness call panics").push((op, fault, requests));
        Ok(true)
    }

    async fn clear(&self, ns: &Namespace) -> Result<(), BoxError> {
        self.of(ns).1.lock().expect("no harness call panics").clear();
        Ok(())
    }

    fn call_bound(&self) -> Duration {
        20 * TIMEOUT
    }
}

/// Runs the fault cases, or all of them, over a store with this mapping.
pub(crate) fn suite_over<M: Mapping>(filter: &[&str]) -> Report {
    let options = Options { filter: filter.iter().map(|text| (*text).to_owned()).collect(), ..Options::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("the system gives the threads of a runtime");
    let report = runtime.block_on(run(Engines::<M> { engines: Mutex::default(), mapping: PhantomData }, options));
    runtime.shutdown_background();
    report
}

/// Runs the fault cases over a store with this mapping.
pub(crate) fn faults_over<M: Mapping>() -> Report {
    suite_over::<M>(&["fault."])
}

#[derive(Debug, Default)]
pub(crate) struct Honest;

impl Mapping for Honest {}

/// A mapping that is honest but for one fault.
macro_rules! wrong {
    ($name:ident, $fault:pat, |$operation:ident, $id:ident, $value:ident| $error:expr) => {
        #[derive(Debug, Default)]
        pub(crate) struct $name;

        impl Mapping for $name {
            fn error(fault: &Fault, $operation: Operation, $id: &KeyId, $value: &[u8]) -> Error {
                if matches!(fault, $fault) { $error } else { Honest::error(fault, $operation, $id, $value) }
            }
        }
    };
}

fn failed(kind: ErrorKind, operation: Operation) -> Error {
    Error::new(kind, operation, SCHEME)
}

wrong!(DeniedIsNotFound, Fault::Denied, |operation, _id, _value| failed(ErrorKind::NotFound, operation));
wrong!(DenialQuotesTheName, Fault::Denied, |operation, id, _value| {
    failed(ErrorKind::PermissionDenied, operation).with_source(format!("not authorized on arn:.../{}", id.as_str()))
});
wrong!(PauseIsForgotten, Fault::Throttled { .. }, |operation, _id, _value| failed(ErrorKind::Throttled, operation));
wrong!(ThrottlingIsFinal, Fault::Throttled { .. }, |operation, _id, _value| {
    failed(ErrorKind::QuotaExceeded, operation)
});
wrong!(ExpiryIsRetried, Fault::ExpiredCredentials, |operation, _id, _value| {
    failed(ErrorKind::Unavailable, operation)
});
wrong!(DisabledKeyIsDamage, Fault::KeyUnavailable, |operation, _id, _value| failed(ErrorKind::Corrupt, operation));
wrong!(ServerErrorIsAbsence, Fault::ServerError, |operation, _id, _value| failed(ErrorKind::NotFound, operation));
wrong!(GarbageIsShown, Fault::Garbage, |operation, _id, value| {
    let body = format!("cannot parse {:?}", value);
    failed(ErrorKind::Corrupt, operation).with_effect(Effect::Unknown).with_source(body)
});
wrong!(TruncationIsNoEffect, Fault::Truncated, |operation, _id, _value| failed(ErrorKind::Corrupt, operation));
wrong!(ResetIsFinal, Fault::ResetBeforeSend, |operation, _id, _value| failed(ErrorKind::Config, operation));
wrong!(SilenceIsNoEffect, Fault::Silent, |operation, _id, _value| {
    failed(ErrorKind::Timeout, operation).with_effect(Effect::NotApplied)
});

#[derive(Debug, Default)]
pub(crate) struct WaitsForEver;

impl Mapping for WaitsForEver {
    const IS_PATIENT: bool = true;
}

#[derive(Debug, Default)]
pub(crate) struct BelievesTheSecondAnswer;

impl Mapping for BelievesTheSecondAnswer {
    const BELIEVES_THE_SECOND_ANSWER: bool = true;
}
