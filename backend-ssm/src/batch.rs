//! Reading and deleting many keys, ten names in each call.

use aws_sdk_ssm::operation::RequestId;
use aws_sdk_ssm::types::Parameter;
use keystead_aws::{AwsFailure, Batches, Outcomes};
use keystead_core::{Deletion, Finality, KeyId, KeyStore, Operation, Result, SecretKey};

use crate::error::{SERVICE, kind, missing_in_batch};
use crate::legacy;
use crate::store::{SsmStore, key_of};

/// The largest number of names in one call (`GetParameters` and `DeleteParameters`, `Names`).
pub(crate) const NAMES: usize = 10;

pub(crate) async fn get(store: &SsmStore, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
    let batches = Batches { service: SERVICE, operation: Operation::Get, names: NAMES };
    batches.run(ids, |id| store.name(id), |names| Box::pin(get_some(store, names)), |id| store.get_key(id)).await
}

async fn get_some(store: &SsmStore, names: Vec<String>) -> Result<Outcomes<SecretKey>, AwsFailure> {
    // A reserved name would make the call fail for all names. Left out, it is asked for alone.
    let names = legacy::without_reserved(store, names);
    if names.is_empty() {
        return Ok(Outcomes::new());
    }
    let call = store.identity.call();
    let request = store.client.get_parameters().set_names(Some(names)).with_decryption(true);
    let answer = call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send()).await?;
    store.identity.learn_from_arn(answer.parameters().iter().find_map(Parameter::arn));
    let request_id = answer.request_id().map(str::to_owned);
    let missing = |name| (name, Err(missing_in_batch(Operation::Get, request_id.as_deref())));
    let mut outcomes: Outcomes<_> = answer.invalid_parameters.unwrap_or_default().into_iter().map(missing).collect();
    for mut parameter in answer.parameters.unwrap_or_default() {
        if let Some(name) = parameter.name.take() {
            outcomes.insert(name, key_of(Some(parameter), request_id.as_deref()));
        }
    }
    Ok(outcomes)
}

pub(crate) async fn delete(store: &SsmStore, ids: &[KeyId]) -> Vec<Result<Deletion>> {
    if let Err(refusal) = legacy::refuse_write(store, Operation::Delete) {
        return ids.iter().map(|_| Err(refusal.clone())).collect();
    }
    let batches = Batches { service: SERVICE, operation: Operation::Delete, names: NAMES };
    batches.run(ids, |id| store.name(id), |names| Box::pin(delete_some(store, names)), |id| store.delete_key(id)).await
}

async fn delete_some(store: &SsmStore, names: Vec<String>) -> Result<Outcomes<Deletion>, AwsFailure> {
    let call = store.identity.call();
    let delete = || {
        let request = store.client.delete_parameters().set_names(Some(names.clone()));
        call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send())
    };
    let answer = store.writes.run(SERVICE, delete).await?;
    let request_id = answer.request_id().map(str::to_owned);
    let unsettled = call.attempts().earlier_attempt_may_have_applied();
    let gone = || Ok(Deletion::new(Finality::Immediate).with_unsettled(unsettled));
    let missing = |name| match unsettled {
        // An earlier attempt may have deleted this parameter. Whether it existed can no longer be
        // found out.
        true => (name, gone()),
        false => (name, Err(missing_in_batch(Operation::Delete, request_id.as_deref()))),
    };
    let mut outcomes: Outcomes<_> = answer.invalid_parameters.unwrap_or_default().into_iter().map(missing).collect();
    outcomes.extend(answer.deleted_parameters.unwrap_or_default().into_iter().map(|name| (name, gone())));
    Ok(outcomes)
}
