//! The metrics of [`Observed`](super::Observed).

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

const OPERATIONS: &str = "keystead_operations_total";
const DURATION: &str = "keystead_operation_duration_seconds";
const BATCH_IDS: &str = "keystead_batch_ids_total";

pub(super) fn describe() {
    describe_counter!(OPERATIONS, Unit::Count, "Operations on key stores, by outcome.");
    describe_histogram!(DURATION, Unit::Seconds, "How long operations on key stores took.");
    describe_counter!(BATCH_IDS, Unit::Count, "Ids in batch operations on key stores, by outcome.");
}

pub(super) fn operation(store: &'static str, operation: &'static str, outcome: &'static str, took: Duration) {
    counter!(OPERATIONS, "store" => store, "operation" => operation, "outcome" => outcome).increment(1);
    histogram!(DURATION, "store" => store, "operation" => operation, "outcome" => outcome).record(took);
}

pub(super) fn batch_id(store: &'static str, operation: &'static str, outcome: &'static str) {
    counter!(BATCH_IDS, "store" => store, "operation" => operation, "outcome" => outcome).increment(1);
}
