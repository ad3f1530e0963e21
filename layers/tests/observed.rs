//! `Observed`: the spans, events and metrics of each operation, which contain no secret.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use futures_executor::block_on;
use futures_util::{FutureExt, StreamExt};
use keystead_core::{ErrorDetails, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, SecretKey};
use keystead_layers::{Fault, Faulty, Observed};
use keystead_memory::MemoryStore;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

/// A span or an event.
#[derive(Clone, Debug, PartialEq)]
struct Traced {
    target: String,
    level: Level,
    /// The index of the enclosing span.
    within: Option<usize>,
    fields: BTreeMap<String, String>,
}

impl Traced {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    fn is_event(&self) -> bool {
        self.fields.contains_key("message")
    }
}

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<Traced>>>);

struct SpanIndex(usize);

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let within = span.parent().map(|parent| parent.extensions().get::<SpanIndex>().unwrap().0);
        let mut traced = self.0.lock().unwrap();
        span.extensions_mut().insert(SpanIndex(traced.len()));
        let mut fields = BTreeMap::new();
        attributes.record(&mut Fields(&mut fields));
        let metadata = attributes.metadata();
        traced.push(Traced { target: metadata.target().to_owned(), level: *metadata.level(), within, fields });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let index = context.span(id).unwrap().extensions().get::<SpanIndex>().unwrap().0;
        values.record(&mut Fields(&mut self.0.lock().unwrap()[index].fields));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let within = context.event_span(event).map(|span| span.extensions().get::<SpanIndex>().unwrap().0);
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        let metadata = event.metadata();
        let event = Traced { target: metadata.target().to_owned(), level: *metadata.level(), within, fields };
        self.0.lock().unwrap().push(event);
    }
}

/// Returns all spans and events that `work` causes, at any level.
fn traced(work: impl Future<Output = ()>) -> Vec<Traced> {
    let capture = Capture::default();
    tracing::subscriber::with_default(Registry::default().with(capture.clone()), || block_on(work));
    capture.0.lock().unwrap().clone()
}

fn faulty(faults: impl IntoIterator<Item = Fault>) -> Observed<Faulty<MemoryStore>> {
    let faults = faults.into_iter().fold(Faulty::builder(MemoryStore::new()), |builder, fault| builder.fault(fault));
    Observed::new(faults.build().unwrap())
}

fn id(id: &str) -> KeyId {
    KeyId::new(id).unwrap()
}

fn key() -> SecretKey {
    SecretKey::generate(32).unwrap()
}

/// Calls every operation, with the answers `ok` and "not found", and a few failures.
async fn all_operations(store: &dyn KeyStore, a: &KeyId, key: &SecretKey) {
    store.check().await.unwrap();
    store.create_key(a, key).await.unwrap();
    store.create_key(a, key).await.unwrap_err();
    store.put_key(a, key).await.unwrap();
    store.get_key(a).await.unwrap();
    store.get_or_create(a, key).await.unwrap();
    assert_eq!(store.list_keys().count().await, 1);
    store.delete_key(a).await.unwrap();
    store.get_key(a).await.unwrap_err();
    store.erase_key(a).await.unwrap();
}

#[test]
fn each_operation_is_a_span_with_its_outcome() {
    let spans = traced(async { all_operations(&Observed::new(MemoryStore::new()), &id("a"), &key()).await });
    let told: Vec<_> = spans
        .iter()
        .map(|span| (span.field("db.operation.name").unwrap(), span.field("keystead.outcome").unwrap()))
        .collect();
    let expected = [
        ("check", "ok"),
        ("create", "ok"),
        ("create", "already_exists"),
        ("put", "ok"),
        ("get", "ok"),
        ("get_or_create", "ok"),
        ("list", "ok"),
        ("delete", "ok"),
        ("get", "not_found"),
        ("erase", "ok"),
    ];
    assert_eq!(told, expected);
    for span in spans {
        assert_eq!((span.target.as_str(), span.level, span.within), ("keystead", Level::DEBUG, None));
        // Answers such as "not found" are not failures, so there are no events.
        let fields: Vec<_> = span.fields.keys().map(String::as_str).collect();
        assert_eq!(fields, ["db.operation.name", "db.system.name", "keystead.outcome", "otel.kind", "otel.name"]);
        assert_eq!(span.field("db.system.name"), Some("memory"));
        assert_eq!(span.field("otel.kind"), Some("client"));
        assert_eq!(span.field("otel.name"), span.field("db.operation.name"));
    }
}

#[test]
fn a_failure_is_a_warning_in_the_span_with_the_details_of_the_service() {
    let details = ErrorDetails {
        error_code: Some("AccessDeniedException".into()),
        request_id: Some("79b9da39-b7ae-508a-a6bc-864b2829c622".into()),
        message: Some("a message that is not told".into()),
        ..ErrorDetails::default()
    };
    let fault = Fault::error(ErrorKind::PermissionDenied).details(details);
    let traced = traced(async {
        faulty([fault]).get_key(&id("a")).await.unwrap_err();
    });
    let [span, event] = traced.as_slice() else { panic!("{traced:?}") };

    assert_eq!(span.field("keystead.outcome"), Some("permission_denied"));
    assert_eq!(span.field("error.type"), Some("permission_denied"));
    assert_eq!(span.field("otel.status_code"), Some("ERROR"));
    assert_eq!(span.field("db.response.status_code"), Some("AccessDeniedException"));

    assert_eq!((event.target.as_str(), event.level, event.within), ("keystead", Level::WARN, Some(0)));
    let fields = [
        ("aws.request_id", "79b9da39-b7ae-508a-a6bc-864b2829c622"),
        ("db.operation.name", "get"),
        ("db.response.status_code", "AccessDeniedException"),
        ("db.system.name", "memory"),
        ("error.type", "permission_denied"),
        ("message", "get on memory failed: permission denied"),
    ];
    assert_eq!(event.fields, BTreeMap::from(fields.map(|(name, value)| (name.to_owned(), value.to_owned()))));
}

#[test]
fn an_operation_whose_future_is_dropped_is_cancelled() {
    let traced = traced(async {
        let store = faulty([Fault::hang()]);
        assert!(store.delete_key(&id("a")).now_or_never().is_none());
        // A future that is never polled is not an operation.
        drop(store.delete_key(&id("a")));
    });
    let [span] = traced.as_slice() else { panic!("{traced:?}") };
    assert_eq!((span.field("keystead.outcome"), span.field("error.type")), (Some("cancelled"), None));
}

#[test]
fn a_listing_is_one_span_that_is_not_entered_while_the_caller_uses_an_id() {
    let traced = traced(async {
        let store = Observed::new(MemoryStore::new());
        store.put_key(&id("a"), &key()).await.unwrap();
        store.put_key(&id("b"), &key()).await.unwrap();
        let mut ids = store.list_keys();
        while let Some(Ok(_)) = ids.next().await {
            tracing::info!("work");
        }
        assert!(ids.next().await.is_none());
    });
    let told: Vec<_> = traced.iter().skip(2).map(|traced| (traced.is_event(), traced.within)).collect();
    assert_eq!(told, [(false, None), (true, None), (true, None)]);
    assert_eq!(traced[2].field("db.operation.name"), Some("list"));
    assert_eq!(traced[2].field("keystead.outcome"), Some("ok"));
}

#[test]
fn a_listing_that_is_dropped_is_cancelled_unless_it_has_failed() {
    let outcome = |faults: Vec<Fault>| {
        let traced = traced(async {
            let store = faulty(faults);
            let _ = store.list_keys().next().now_or_never();
        });
        (traced[0].field("keystead.outcome").unwrap().to_owned(), traced.len())
    };
    assert_eq!(outcome(vec![Fault::hang()]), ("cancelled".to_owned(), 1));
    assert_eq!(outcome(vec![Fault::error(ErrorKind::Throttled)]), ("throttled".to_owned(), 2));
}

#[test]
fn a_batch_is_one_span_whose_outcome_is_the_first_failure() {
    let throttled = Fault::error(ErrorKind::Throttled).on(Operation::Get);
    let traced = traced(async {
        let store = faulty([]);
        let a = id("a");
        let b = id("b");
        store.put_key(&a, &key()).await.unwrap();

        store.get_keys(&[a.clone(), a.clone()]).await;
        store.get_keys(&[a.clone(), b.clone()]).await;
        store.get_keys(std::slice::from_ref(&b)).await;
        store.get_keys(&[]).await;
        store.delete_keys(&[b, a]).await;
    });
    let told: Vec<_> = traced
        .iter()
        .skip(1)
        .map(|span| ["db.operation.name", "db.operation.batch.size", "keystead.outcome"].map(|name| span.field(name)))
        .collect();
    let expected = [
        [Some("BATCH get"), Some("2"), Some("ok")],
        [Some("BATCH get"), Some("2"), Some("not_found")],
        [Some("get"), None, Some("not_found")],
        [Some("BATCH get"), Some("0"), Some("ok")],
        [Some("BATCH delete"), Some("2"), Some("not_found")],
    ];
    assert_eq!(told, expected);

    let traced = self::traced(async {
        // The first id is not found, and the second one fails. The failure is the outcome.
        let not_found = Fault::error(ErrorKind::NotFound).on(Operation::Get);
        faulty([not_found, throttled]).get_keys(&[id("a"), id("b"), id("c")]).await;
    });
    assert_eq!(traced[0].field("keystead.outcome"), Some("throttled"));
    assert_eq!(traced[1].field("message"), Some("get on memory failed: throttled"));
    assert_eq!(traced.len(), 2);
}

#[test]
fn traces_of_the_store_beneath_are_inside_the_span() {
    let traced = traced(async {
        let store = Observed::new(Observed::new(MemoryStore::new()));
        store.check().await.unwrap();
        assert_eq!(store.list_keys().count().await, 0);
    });
    let told: Vec<_> = traced.iter().map(|span| (span.field("otel.name").unwrap(), span.within)).collect();
    assert_eq!(told, [("check", None), ("check", Some(0)), ("list", None), ("list", Some(2))]);
}

#[test]
fn traces_do_not_depend_on_the_id_or_the_key() {
    let run = |a: KeyId, key: SecretKey| {
        traced(async move {
            let failures = [Fault::error(ErrorKind::Corrupt).on(Operation::Erase)];
            let store = faulty(failures);
            store.erase_key(&a).await.unwrap_err();
            all_operations(&store, &a, &key).await;
            store.get_keys(&[a.clone(), a.clone()]).await;
            store.delete_keys(&[a.clone(), a]).await;
        })
    };
    let canary = "canary-5f7c8e@example.com";
    let told = run(id(canary), SecretKey::new(canary).unwrap());
    assert!(!format!("{told:?}").contains("canary"));
    assert_eq!(told, run(id("a"), key()));
}

#[test]
fn its_description_names_the_layer() {
    let store = Observed::new(MemoryStore::new());
    assert!(store.info().to_string().ends_with(", observed"), "{}", store.info());
    assert_eq!(store.capabilities(), MemoryStore::new().capabilities());
}

#[cfg(feature = "metrics")]
mod metrics {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    /// Returns the counters by name and labels, and the number of values in each histogram. It
    /// checks the descriptions as well.
    fn measured(work: impl Future<Output = ()>) -> BTreeMap<String, u64> {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        // The work is traced, too, because a thread without a subscriber could disable the spans of
        // tests that run at the same time.
        ::metrics::with_local_recorder(&recorder, || traced(work));
        let mut measured = BTreeMap::new();
        for (key, unit, description, value) in snapshotter.snapshot().into_vec() {
            assert!(unit.is_some() && description.is_some(), "{key:?}");
            let labels: Vec<_> = key.key().labels().map(|label| label.value()).collect();
            let value = match value {
                DebugValue::Counter(count) => count,
                DebugValue::Histogram(values) => {
                    assert!(values.iter().all(|seconds| (0.0..60.0).contains(&seconds.0)));
                    values.len() as u64
                }
                DebugValue::Gauge(_) => panic!("no gauge"),
            };
            measured.insert(format!("{} {}", key.key().name(), labels.join(" ")), value);
        }
        measured
    }

    #[test]
    fn operations_are_counted_and_timed_by_outcome() {
        let measured = measured(async {
            let faults = [Fault::error(ErrorKind::Throttled).on(Operation::Get), Fault::hang().on(Operation::Check)];
            let store = faulty(faults);
            let a = id("a");
            store.get_key(&a).await.unwrap_err();
            store.get_or_create_key(&a).await.unwrap();
            store.get_key(&a).await.unwrap();
            store.get_key(&a).await.unwrap();
            assert_eq!(store.list_keys().count().await, 1);
            assert!(store.check().now_or_never().is_none());
        });
        let expected = [
            ("memory check cancelled", 1),
            ("memory get not_found", 1),
            ("memory get ok", 2),
            ("memory get throttled", 1),
            ("memory get_or_create ok", 1),
            ("memory list ok", 1),
        ];
        let of = |name: &str| expected.map(|(labels, count)| (format!("{name} {labels}"), count));
        let expected =
            [of("keystead_operations_total"), of("keystead_operation_duration_seconds")].into_iter().flatten();
        assert_eq!(measured, expected.collect::<BTreeMap<_, _>>());
    }

    #[test]
    fn the_ids_of_a_batch_are_counted_by_their_own_outcomes() {
        let measured = measured(async {
            let store = Observed::new(MemoryStore::new());
            store.put_key(&id("a"), &key()).await.unwrap();
            store.get_keys(&[id("a"), id("b"), id("c")]).await;
        });
        assert_eq!(measured["keystead_operations_total memory BATCH get not_found"], 1);
        assert_eq!(measured["keystead_batch_ids_total memory BATCH get ok"], 1);
        assert_eq!(measured["keystead_batch_ids_total memory BATCH get not_found"], 2);
    }
}
