//! Counting keys, by a call that lists five times as many names as a listing does.

use aws_sdk_ssm::operation::RequestId;
use aws_sdk_ssm::types::ParameterStringFilter;
use futures_util::TryStreamExt;
use keystead_aws::{Page, listing};
use keystead_core::{Error, ErrorKind, Operation, Result};

use crate::error::{SCHEME, SERVICE, kind};
use crate::store::SsmStore;

/// The number of parameters that a page has at most (`DescribeParameters`, `MaxResults`).
const PAGE: i32 = 50;

impl SsmStore {
    /// Counts the keys. Makes a call for 50 parameters, where
    /// [`list_keys`](keystead_core::KeyStore::list_keys) makes one for ten.
    ///
    /// Needs the permission `ssm:DescribeParameters`, which AWS grants for all parameters or for
    /// none, and which nothing else of a store needs.
    ///
    /// # Errors
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) without that permission, and those that are
    /// common to all methods of a store.
    pub async fn count_keys(&self) -> Result<u64> {
        let ids = listing(SERVICE, |token| Box::pin(self.described_page(token)));
        ids.try_fold(0, |count, _| async move { Ok(count + 1) }).await
    }

    async fn described_page(&self, token: Option<String>) -> Result<Page> {
        let names = self.config.names();
        let filter = ParameterStringFilter::builder().key("Name").option("BeginsWith").values(names.prefix()).build();
        let filter = filter.map_err(|_| Error::new(ErrorKind::Other, Operation::List, SCHEME))?;
        let call = self.identity.call();
        let request =
            self.client.describe_parameters().parameter_filters(filter).max_results(PAGE).set_next_token(token);
        let answer = call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send()).await;
        let answer = answer.map_err(|e| e.during(Operation::List, &[names.prefix()]))?;
        let request_id = answer.request_id().map(str::to_owned);
        let ids = answer.parameters().iter().filter_map(|parameter| names.id(parameter.name()?)).collect();
        Ok(Page { ids, next: answer.next_token, request_id })
    }
}
