//! A user asks to be forgotten: the key is erased for good, late writers are refused, and there is a receipt to show.
//!
//! `cargo run --example gdpr_erasure`
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use futures_executor::block_on;
use keystead::file::{FileStore, RootSecret};
use keystead::layers::{ErasureReceipt, Fenced};
use keystead::{BoxError, ErrorKind, KeyId, KeyStore, KeyStoreExt};

fn main() -> Result<(), BoxError> {
    let directory = tempfile::tempdir()?;
    block_on(async {
        // The tombstones are as lasting as the keys, and in a store of their own.
        let keys = FileStore::create(directory.path().join("keys/keys.db"), RootSecret::generate()).await?;
        let tombstones = FileStore::create(directory.path().join("erased/erased.db"), RootSecret::generate()).await?;
        let store = Fenced::builder(keys, tombstones).build()?;

        let alice = KeyId::new("alice@example.com")?;
        let backup_of_her_key = store.get_or_create_key(&alice).await?;
        println!("alice has a key of {} bytes", backup_of_her_key.expose_secret().len());

        let receipt = store.erase(&alice).await?;
        println!(
            "\nShe asked to be forgotten. The receipt, which names nobody:\n{}",
            serde_json::to_string_pretty(&receipt)?
        );

        // A request that was under way, a queue that repeats itself, a restored backup: nobody brings her back.
        for refused in [
            store.get_or_create_key(&alice).await.map(drop),
            store.put_key(&alice, &backup_of_her_key).await,
            store.get_key(&alice).await.map(drop),
        ] {
            let e = refused.err().ok_or("she came back")?;
            assert_eq!(e.kind(), ErrorKind::Erased);
            println!("{e}");
        }

        // Later, an auditor asks whether this receipt is hers.
        let shown: ErasureReceipt = serde_json::from_str(&serde_json::to_string(&receipt)?)?;
        let is_hers = shown.tombstone == store.tombstone_of(&alice).await?;
        println!("\nthe receipt is alice's: {is_hers}; verified: {}", shown.verified);

        // Years later she comes back by herself.
        store.allow_new_key(&alice).await?;
        let new = store.get_or_create_key(&alice).await?;
        println!("a new key, not the old one: {}", new != backup_of_her_key);
        Ok(())
    })
}
