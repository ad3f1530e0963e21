//! Prints the metrics that the layer `Observed` records: the page that Prometheus would fetch after
//! some calls.
//!
//! `cargo run --example metrics`. The store is in memory; the layer `Faulty` makes some calls fail.

use std::sync::Arc;

use futures_executor::block_on;
use keystead::layers::{Fault, Faulty, Observed};
use keystead::memory::MemoryStore;
use keystead::{BoxError, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation};
use metrics_exporter_prometheus::PrometheusBuilder;

/// Upper bounds in seconds, from a read from memory to a call that has timed out.
const BUCKETS: [f64; 6] = [0.000_1, 0.001, 0.01, 0.1, 1.0, 10.0];

fn main() -> Result<(), BoxError> {
    // The recorder must be installed before the store is wrapped. A service would serve the page
    // over HTTP, for example with the exporter's own listener.
    let page = PrometheusBuilder::new().set_buckets(&BUCKETS)?.install_recorder()?;

    let store = Faulty::builder(MemoryStore::new())
        .fault(Fault::error(ErrorKind::Throttled).on(Operation::Get).times(3))
        .build()?;
    let store: Arc<dyn KeyStore> = Arc::new(Observed::new(store));
    block_on(work(&*store))?;

    show(&page.render());
    Ok(())
}

/// Makes the calls that a service makes for its users' keys.
async fn work(store: &dyn KeyStore) -> Result<(), BoxError> {
    let users = ["alice", "bob", "carol"].map(KeyId::new).into_iter().collect::<Result<Vec<_>, _>>()?;
    for user in &users {
        // The first three reads are throttled, so each is tried again.
        while store.get_or_create_key(user).await.is_err_and(|e| e.is_retryable()) {}
    }
    store.get_keys(&users).await;
    for user in &users {
        store.erase_key(user).await?;
        store.find_key(user).await?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a program for a terminal")]
fn show(page: &str) {
    print!("{page}");
}
