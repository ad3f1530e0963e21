//! Reading many keys, twenty names in each call.

use std::collections::HashSet;

use aws_sdk_secretsmanager::operation::RequestId;
use aws_sdk_secretsmanager::types::SecretValueEntry;
use keystead_aws::{AwsFailure, Batches, Outcomes};
use keystead_core::{KeyId, KeyStore, Operation, Result, SecretKey};

use crate::error::{SERVICE, kind, missing_in_batch};
use crate::store::{SecretsManagerStore, key_of};

/// The largest number of names in one call (`BatchGetSecretValue`, `SecretIdList`).
pub(crate) const NAMES: usize = 20;

pub(crate) async fn get(store: &SecretsManagerStore, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
    let batches = Batches { service: SERVICE, operation: Operation::Get, names: NAMES };
    batches.run(ids, |id| store.name(id), |names| Box::pin(get_some(store, names)), |id| store.get_key(id)).await
}

async fn get_some(store: &SecretsManagerStore, names: Vec<String>) -> Result<Outcomes<SecretKey>, AwsFailure> {
    let mut outcomes = Outcomes::with_capacity(names.len());
    let mut token = None;
    let mut seen = HashSet::new();
    loop {
        let call = store.identity.call();
        let request = store.client.batch_get_secret_value().set_secret_id_list(Some(names.clone()));
        let request = request.set_next_token(token.take());
        let answer = call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send()).await?;
        store.identity.learn_from_arn(answer.secret_values().iter().find_map(SecretValueEntry::arn));
        let request_id = answer.request_id().map(str::to_owned);
        // A secret that failed for another reason is left out here, and is asked for alone.
        for error in answer.errors.unwrap_or_default() {
            let is_missing = error.error_code.as_deref() == Some("ResourceNotFoundException")
                && !may_exist_without_a_value(error.message.as_deref());
            if let Some(name) = error.secret_id.filter(|_| is_missing) {
                outcomes.insert(name, Err(missing_in_batch(request_id.as_deref())));
            }
        }
        for secret in answer.secret_values.unwrap_or_default() {
            let outcome = key_of(secret.secret_binary, secret.secret_string, request_id.as_deref());
            if let Some(name) = secret.name {
                outcomes.insert(name, outcome);
            }
        }
        match answer.next_token.filter(|token| !token.is_empty()) {
            Some(next) if seen.insert(next.clone()) => token = Some(next),
            _ => return Ok(outcomes),
        }
    }
}

/// Reports whether the message of a `ResourceNotFoundException` may say that the secret exists
/// without a value. The secret is then asked for alone, which tells the truth and takes two calls.
fn may_exist_without_a_value(message: Option<&str>) -> bool {
    message.is_none_or(|message| message.contains("value for"))
}
