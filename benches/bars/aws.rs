//! The AWS stores: the time that they add to a call of the SDK.

use std::hint::black_box;

use keystead_aws_testbed::sdk_config;
use keystead_benches::measure::{Samples, take_turns, time};
use keystead_benches::table::{Bar, Row, Unit};
use keystead_benches::users;
use keystead_core::{BoxError, KeyStore, KeyStoreExt};
use keystead_secretsmanager::{SecretsManagerConfig, SecretsManagerStore};
use keystead_ssm::{SsmConfig, SsmStore};

use crate::aws_server;
use crate::bench::Bench;

const KMS_KEY: &str = "alias/app";

/// The name that a parameter or secret of ours has.
const NAME: &str = "/app/user-keys/maria.0-40example.com";

pub(crate) fn ssm(bench: &mut Bench) -> Result<(), BoxError> {
    let config = sdk_config(&aws_server::start()?);
    let store = SsmStore::builder(SsmConfig::new(KMS_KEY, "/app/user-keys/%s")?).sdk_config(&config).build()?;
    let client = aws_sdk_ssm::Client::new(&config);
    let get = || async {
        black_box(client.get_parameter().name(NAME).with_decryption(true).send().await.map_err(|_| "no answer")?);
        Ok(())
    };
    let put = || async {
        use aws_sdk_ssm::types::{ParameterTier, ParameterType};
        let parameter = client.put_parameter().name(NAME).value("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
        let parameter = parameter.r#type(ParameterType::SecureString).key_id(KMS_KEY).overwrite(true);
        parameter.tier(ParameterTier::Standard).send().await.map_err(|_| "no answer")?;
        Ok(())
    };
    compare(bench, &store, ["ssm: get_key", "ssm: put_key"], get, put)
}

pub(crate) fn secrets_manager(bench: &mut Bench) -> Result<(), BoxError> {
    let config = sdk_config(&aws_server::start()?);
    let names = SecretsManagerConfig::new(KMS_KEY, "/app/user-keys/%s")?;
    let store = SecretsManagerStore::builder(names).sdk_config(&config).build()?;
    let client = aws_sdk_secretsmanager::Client::new(&config);
    let get = || async {
        black_box(client.get_secret_value().secret_id(NAME).send().await.map_err(|_| "no answer")?);
        Ok(())
    };
    let put = || async {
        let secret = client.put_secret_value().secret_id(NAME);
        let secret = secret.secret_binary(aws_sdk_secretsmanager::primitives::Blob::new([7; 32]));
        secret.send().await.map_err(|_| "no answer")?;
        Ok(())
    };
    compare(bench, &store, ["secretsmanager: get_key", "secretsmanager: put_key"], get, put)
}

/// Compares a get and a put with the same calls of the SDK.
fn compare(
    bench: &mut Bench,
    store: &dyn KeyStore,
    paths: [&str; 2],
    get: impl AsyncFn() -> Result<(), BoxError>,
    put: impl AsyncFn() -> Result<(), BoxError>,
) -> Result<(), BoxError> {
    let runtime = &bench.runtime;
    let calls = bench.options.size(1_000, 20);
    let id = users::id(0);
    let key = users::key(0);
    let read = async || {
        black_box(store.get_key(&id).await?);
        Ok(())
    };
    let write = async || {
        store.put_key(&id, &key).await?;
        Ok(())
    };
    let mut get_ours = || time(calls, || runtime.block_on(repeated(calls, read)));
    let mut get_sdk = || time(calls, || runtime.block_on(repeated(calls, &get)));
    let mut put_ours = || time(calls, || runtime.block_on(repeated(calls, write)));
    let mut put_sdk = || time(calls, || runtime.block_on(repeated(calls, &put)));
    let rounds = bench.options.size(21, 2);
    let gets: [Samples; 2] = take_turns(rounds, [&mut get_ours, &mut get_sdk])?;
    let puts: [Samples; 2] = take_turns(rounds, [&mut put_ours, &mut put_sdk])?;
    for (path, [ours, reference]) in paths.into_iter().zip([&gets, &puts]) {
        let bar = Bar::AtMost(1.05);
        let against = "the same call of the SDK";
        bench.row(&Row { path, against, bar, stretch: None, unit: Unit::Time, ours, reference });
    }
    Ok(())
}

async fn repeated(calls: usize, call: impl AsyncFn() -> Result<(), BoxError>) -> Result<(), BoxError> {
    for _ in 0..calls {
        call().await?;
    }
    Ok(())
}
