//! Listing parameters without their values, by `DescribeParameters`.

use aws_sdk_ssm::operation::RequestId;
use aws_sdk_ssm::types::{ParameterMetadata, ParameterStringFilter};
use keystead_aws::Page;
use keystead_core::{Operation, Result};

use crate::error::{SERVICE, kind};
use crate::store::SsmStore;

/// The largest number of parameters on a page (`DescribeParameters`, `MaxResults`).
const PAGE: i32 = 50;

/// Returns one page of the parameters whose names begin with the store's prefix. Parameters that
/// are not the store's may be among them.
pub(crate) async fn page(store: &SsmStore, token: Option<String>) -> Result<Page<ParameterMetadata>> {
    let call = store.identity.call();
    let prefix = store.config.names().prefix();
    let request = store.client.describe_parameters().max_results(PAGE).set_next_token(token);
    let request = request.set_parameter_filters(begins_with(prefix).map(|filter| vec![filter]));
    let answer = request.customize().interceptor(call.attempts()).send();
    let answer = call.run(SERVICE, kind, answer).await.map_err(|e| e.during(Operation::List, &[prefix]))?;
    store.identity.learn_from_arn(answer.parameters().iter().find_map(ParameterMetadata::arn));
    let request_id = answer.request_id().map(str::to_owned);
    Ok(Page { entries: answer.parameters.unwrap_or_default(), next: answer.next_token, request_id })
}

/// Returns one page of the ids of the store's parameters.
pub(crate) async fn ids(store: &SsmStore, token: Option<String>) -> Result<Page> {
    let parameters = page(store, token).await?;
    Ok(parameters.filter_map(|parameter| store.config.names().id(parameter.name()?)))
}

/// Returns the filter for a prefix; `None` if the prefix consists of slashes and does not
/// distinguish names.
fn begins_with(prefix: &str) -> Option<ParameterStringFilter> {
    if prefix.trim_start_matches('/').is_empty() {
        return None;
    }
    let filter = ParameterStringFilter::builder().key("Name").option("BeginsWith").values(prefix);
    Some(filter.build().expect("the filter has a key"))
}
