//! Parameters without their values, by `DescribeParameters`.

use aws_sdk_ssm::types::{ParameterMetadata, ParameterStringFilter};
use keystead_aws::{Call, Page};
use keystead_core::{Operation, Result};

use crate::error::{SERVICE, kind};
use crate::store::SsmStore;

/// The most parameters on a page (`DescribeParameters`, `MaxResults`).
const PAGE: i32 = 50;

/// Returns one page of the parameters whose names begin as the store's do, and the token of the
/// next one. Other parameters may be among them.
pub(crate) async fn page(store: &SsmStore, token: Option<String>) -> Result<Page<ParameterMetadata>> {
    let call = Call::new();
    let prefix = store.config.names().prefix();
    let request = store.client.describe_parameters().max_results(PAGE).set_next_token(token);
    let request = request.set_parameter_filters(begins_with(prefix).map(|filter| vec![filter]));
    let answer = request.customize().interceptor(call.attempts()).send();
    let answer = call.run(SERVICE, kind, answer).await.map_err(|e| e.during(Operation::List, &[prefix]))?;
    store.identity.learn_from_arn(answer.parameters().iter().find_map(ParameterMetadata::arn));
    Ok((answer.parameters.unwrap_or_default(), answer.next_token))
}

/// Returns the filter for a prefix; `None` if it has no letter by which to tell names apart.
fn begins_with(prefix: &str) -> Option<ParameterStringFilter> {
    if prefix.trim_start_matches('/').is_empty() {
        return None;
    }
    let filter = ParameterStringFilter::builder().key("Name").option("BeginsWith").values(prefix);
    Some(filter.build().expect("the filter has a key"))
}
