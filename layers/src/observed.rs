//! [`Observed`]: traces and metrics for every operation.

#[cfg(feature = "metrics")]
mod meter;

use std::task::Poll;

use futures_util::stream::{self, StreamExt};
use keystead_core::{
    BoxStream, Capabilities, Deletion, Erasure, Error, ErrorKind, KeyId, KeyStore, PutMode, Result, SecretKey,
    StoreIdentity, StoreInfo, async_trait,
};
use tracing::field::Empty;
use tracing::{Instrument, Span};

const OK: &str = "ok";
const CANCELLED: &str = "cancelled";

/// A store whose operations are traced, and with the feature `metrics` counted and timed.
///
/// Use it for every store in production. Put it outermost, so that it sees what the application
/// sees, or next to the store, so that it sees each attempt of [`Resilient`](crate::Resilient). Use
/// it only once in a stack, because two would count into the same metrics.
///
/// # What it promises
/// **Nothing secret.** No span, event or metric contains an id, a key, or anything that depends on
/// them, such as their lengths. Of an error, neither the causes nor the service's message appear.
///
/// **Traces.** Each operation is a span with the level `DEBUG` and the target `keystead`. Traces of
/// the layers and the store beneath are inside it. A listing is one span from its first poll to its
/// end, which is not entered while the caller works on an id. The fields follow OpenTelemetry's
/// conventions for database clients, in the form that `tracing-opentelemetry` reads, except for
/// `keystead.outcome`:
///
/// - `otel.name` and `db.operation.name`: `get`, `put`, `create`, `get_or_create`, `delete`,
///   `erase`, `list`, `check`, `identify`, `BATCH get`, `BATCH delete` or `BATCH create`.
/// - `otel.kind`: `client`.
/// - `db.system.name`: the scheme of the store, such as `ssm`.
/// - `db.operation.batch.size`: the number of ids in a batch. A batch of one id is a plain `get`,
///   `delete` or `create`.
/// - `keystead.outcome`: `ok`, or the [`ErrorKind`] in the form `permission_denied`, or `cancelled`
///   if the future was dropped, for example by a timeout.
/// - `error.type` and `otel.status_code`, for a failure: the [`ErrorKind`] again, and `ERROR`.
/// - `db.response.status_code`, for a failure: the service's error code, if it sent one.
///
/// An error is a **failure** unless it only tells the state of a key:
/// [`NotFound`](ErrorKind::NotFound), [`AlreadyExists`](ErrorKind::AlreadyExists),
/// [`Erased`](ErrorKind::Erased) and [`PendingDeletion`](ErrorKind::PendingDeletion) are not
/// failures. A failure also causes an event with the level `WARN` inside the span. The event has
/// the fields `error.type`, `db.system.name` and `db.operation.name`, and, if the service sent
/// them, `db.response.status_code` and `aws.request_id`.
///
/// **Metrics.** Each operation increments the counter `keystead_operations_total`, and records its
/// duration in the histogram `keystead_operation_duration_seconds`. Both have the labels `store`,
/// `operation` and `outcome`, with the values of the fields above. Each id of a batch increments
/// the counter `keystead_batch_ids_total`, labeled with its own outcome. The metrics are described
/// when an `Observed` is created, so install the recorder before that.
///
/// **Batches and listings.** A batch is one operation. Its outcome is the first failure of its ids,
/// or else the first other error, or else `ok`. The outcome of a listing is the first error that it
/// returned, or else `ok` if it reached its end, or else `cancelled`.
///
/// ```
/// use keystead_core::{KeyId, KeyStoreExt};
/// use keystead_layers::Observed;
/// use keystead_memory::MemoryStore;
///
/// # futures_executor::block_on(async {
/// let store = Observed::new(MemoryStore::new());
/// store.get_or_create_key(&KeyId::new("alice")?).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Observed<S> {
    store: S,
    scheme: &'static str,
}

impl<S: KeyStore> Observed<S> {
    /// Traces and counts the operations of this store.
    pub fn new(store: S) -> Self {
        #[cfg(feature = "metrics")]
        meter::describe();
        let scheme = store.info().scheme();
        Self { store, scheme }
    }

    pub(crate) async fn watch<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let watched = Watched::begin(self.scheme, operation, None);
        let outcome = call.instrument(watched.span.clone()).await;
        watched.end(outcome.as_ref().err());
        outcome
    }

    async fn watch_batch<T>(
        &self,
        operation: &'static str,
        len: usize,
        call: impl Future<Output = Vec<Result<T>>> + Send,
    ) -> Vec<Result<T>> {
        let watched = Watched::begin(self.scheme, operation, Some(len));
        let outcomes = call.instrument(watched.span.clone()).await;
        #[cfg(feature = "metrics")]
        for outcome in &outcomes {
            meter::batch_id(self.scheme, operation, outcome.as_ref().map_or_else(|e| name_of(e.kind()), |_| OK));
        }
        let mut errors = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        let first = errors.clone().find(|e| is_failure(e.kind())).or_else(|| errors.next());
        watched.end(first);
        outcomes
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: KeyStore> KeyStore for Observed<S> {
    fn info(&self) -> StoreInfo {
        self.store.info().with_note("observed")
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.watch("get", self.store.get_key(id)).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let operation = match mode {
            PutMode::Create => "create",
            _ => "put",
        };
        self.watch(operation, self.store.put_key_with(id, key, mode)).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.watch("delete", self.store.delete_key(id)).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        let mut ids = self.store.list_keys();
        let mut watched = None;
        let mut ended = false;
        let watching = stream::poll_fn(move |cx| {
            if ended {
                return Poll::Ready(None);
            }
            let listing: &mut Watched = watched.get_or_insert_with(|| Watched::begin(self.scheme, "list", None));
            let polled = listing.span.in_scope(|| ids.poll_next_unpin(cx));
            match &polled {
                Poll::Ready(Some(Err(e))) => listing.failed(e),
                Poll::Ready(None) => {
                    ended = true;
                    if let Some(listing) = watched.take() {
                        listing.end(None);
                    }
                }
                Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
            }
            polled
        });
        watching.boxed()
    }

    async fn check(&self) -> Result<()> {
        self.watch("check", self.store.check()).await
    }

    async fn identify(&self) -> Result<StoreIdentity> {
        self.watch("identify", self.store.identify()).await
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        match ids {
            [id] => vec![self.get_key(id).await],
            _ => self.watch_batch("BATCH get", ids.len(), self.store.get_keys(ids)).await,
        }
    }

    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        match ids {
            [id] => vec![self.delete_key(id).await],
            _ => self.watch_batch("BATCH delete", ids.len(), self.store.delete_keys(ids)).await,
        }
    }

    async fn create_keys(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        match keys {
            [(id, key)] => vec![self.put_key_with(id, key, PutMode::Create).await],
            _ => self.watch_batch("BATCH create", keys.len(), self.store.create_keys(keys)).await,
        }
    }

    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        self.watch("get_or_create", self.store.get_or_create(id, candidate)).await
    }

    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        self.watch("erase", self.store.erase_key(id)).await
    }
}

/// An operation in progress, which ends when this is dropped. If it has no outcome by then, it was
/// cancelled.
struct Watched {
    span: Span,
    store: &'static str,
    operation: &'static str,
    outcome: Option<&'static str>,
    #[cfg(feature = "metrics")]
    started: std::time::Instant,
}

impl Watched {
    fn begin(store: &'static str, operation: &'static str, batch_size: Option<usize>) -> Self {
        let span = tracing::debug_span!(
            target: "keystead",
            "keystead",
            otel.name = operation,
            otel.kind = "client",
            otel.status_code = Empty,
            db.system.name = store,
            db.operation.name = operation,
            db.operation.batch.size = batch_size,
            db.response.status_code = Empty,
            "error.type" = Empty,
            keystead.outcome = Empty,
        );
        Self {
            span,
            store,
            operation,
            outcome: None,
            #[cfg(feature = "metrics")]
            started: std::time::Instant::now(),
        }
    }

    /// Records an error as the outcome, unless an earlier one has been recorded.
    fn failed(&mut self, error: &Error) {
        if self.outcome.is_some() {
            return;
        }
        let kind = name_of(error.kind());
        self.outcome = Some(kind);
        if is_failure(error.kind()) {
            let code = error.details().and_then(|details| details.error_code.as_deref());
            let request = error.details().and_then(|details| details.request_id.as_deref());
            self.span.record("otel.status_code", "ERROR");
            self.span.record("error.type", kind);
            self.span.record("db.response.status_code", code);
            self.span.in_scope(|| {
                tracing::warn!(
                    target: "keystead",
                    {
                        db.system.name = self.store,
                        db.operation.name = self.operation,
                        db.response.status_code = code,
                        "error.type" = kind,
                        aws.request_id = request,
                    },
                    "{error}"
                );
            });
        }
    }

    fn end(mut self, error: Option<&Error>) {
        if let Some(error) = error {
            self.failed(error);
        }
        self.outcome.get_or_insert(OK);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let outcome = self.outcome.unwrap_or(CANCELLED);
        self.span.record("keystead.outcome", outcome);
        #[cfg(feature = "metrics")]
        meter::operation(self.store, self.operation, outcome, self.started.elapsed());
    }
}

/// Reports whether an error is a failure, and not just an answer about the state of a key.
fn is_failure(kind: ErrorKind) -> bool {
    use ErrorKind::{AlreadyExists, Erased, NotFound, PendingDeletion};
    !matches!(kind, NotFound | AlreadyExists | Erased | PendingDeletion)
}

/// Returns the name of the kind in fields and labels.
fn name_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "not_found",
        ErrorKind::AlreadyExists => "already_exists",
        ErrorKind::Erased => "erased",
        ErrorKind::PendingDeletion => "pending_deletion",
        ErrorKind::InvalidId => "invalid_id",
        ErrorKind::InvalidKey => "invalid_key",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Config => "config",
        ErrorKind::PermissionDenied => "permission_denied",
        ErrorKind::Unauthenticated => "unauthenticated",
        ErrorKind::KeyUnavailable => "key_unavailable",
        ErrorKind::QuotaExceeded => "quota_exceeded",
        ErrorKind::Conflict => "conflict",
        ErrorKind::Throttled => "throttled",
        ErrorKind::Unavailable => "unavailable",
        ErrorKind::Timeout => "timeout",
        ErrorKind::Corrupt => "corrupt",
        _ => "other",
    }
}
