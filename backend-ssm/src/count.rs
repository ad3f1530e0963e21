//! Counting keys, by a call that lists five times as many names as a listing does.

use futures_util::TryStreamExt;
use keystead_aws::listing;
use keystead_core::Result;

use crate::describe;
use crate::error::SERVICE;
use crate::store::SsmStore;

impl SsmStore {
    /// Counts the keys. Makes a call for 50 parameters, where
    /// [`list_keys`](keystead_core::KeyStore::list_keys) makes one for ten.
    ///
    /// Needs the permission `ssm:DescribeParameters`, which AWS grants for all parameters or for
    /// none.
    ///
    /// # Errors
    /// [`PermissionDenied`](keystead_core::ErrorKind::PermissionDenied) without that permission, and
    /// those that are common to all methods of a store.
    pub async fn count_keys(&self) -> Result<u64> {
        let ids = listing(SERVICE, |token| Box::pin(describe::ids(self, token)));
        ids.try_fold(0, |count, _| async move { Ok(count + 1) }).await
    }
}
