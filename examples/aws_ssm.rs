//! Keys in AWS SSM Parameter Store: opens the store, checks it, then creates, reads and erases a
//! key.
//!
//! `cargo run --example aws_ssm -- alias/app /app/user-keys/%s`. Region and credentials are found
//! as in any AWS program. It writes and deletes one parameter, that of the user `keystead-example`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::error::Error;
use std::process::ExitCode;

use keystead::ssm::{SsmConfig, SsmStore};
use keystead::{BoxError, KeyId, KeyStore, KeyStoreExt};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            show(&*error);
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), BoxError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kms_key, path] = arguments.as_slice() else {
        return Err("usage: aws_ssm KMS_KEY PATH, such as alias/app /app/user-keys/%s".into());
    };
    let store = SsmStore::builder(SsmConfig::new(kms_key, path)?).connect().await?;
    store.check().await?;
    println!("{} answers", store.info());

    let user = KeyId::new("keystead-example")?;
    let key = store.get_or_create_key(&user).await?;
    println!("the user has a key of {} bytes", key.expose_secret().len());
    assert_eq!(store.get_or_create_key(&user).await?, key);

    println!("erasing it, and waiting until no read can be stale ...");
    let erasure = store.erase_key(&user).await?;
    println!("existed: {}, verified: {}, bytes gone: {:?}", erasure.existed, erasure.verified, erasure.finality);
    Ok(())
}

fn show(error: &(dyn Error + 'static)) {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because {error}");
        cause = error.source();
    }
}
