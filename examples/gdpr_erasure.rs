//! A user asks to be forgotten: the key is erased for good, later writes are refused, and a receipt
//! proves it.
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
        // The tombstones are in a store of their own, which is as durable as that of the keys.
        let keys = FileStore::create(directory.path().join("keys/keys.db"), RootSecret::generate()).await?;
        let tombstones = FileStore::create(directory.path().join("erased/erased.db"), RootSecret::generate()).await?;
        let store = Fenced::builder(keys, tombstones).build()?;

        let alice = KeyId::new("alice@example.com")?;
        let backup_of_her_key = store.get_or_create_key(&alice).await?;
        println!("alice has a key of {} bytes", backup_of_her_key.expose_secret().len());

        let receipt = store.erase(&alice).await?;
        println!(
            "\nShe asked to be forgotten. The receipt, which does not contain her id:\n{}",
            serde_json::to_string_pretty(&receipt)?
        );

        // No late request, no message that is delivered again and no restored backup brings her
        // back.
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

        // Years later she registers again.
        store.allow_new_key(&alice).await?;
        let new = store.get_or_create_key(&alice).await?;
        println!("she has a new key, which is not the old one: {}", new != backup_of_her_key);
        Ok(())
    })
}
