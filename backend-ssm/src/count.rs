//! Counting keys with a call that returns five times as many names as the listing's.

use futures_util::TryStreamExt;
use keystead_aws::listing;
use keystead_core::Result;

use crate::describe;
use crate::error::SERVICE;
use crate::store::SsmStore;

impl SsmStore {
    /// Counts the keys. It makes one call for 50 parameters, where
    /// [`list_keys`](keystead_core::KeyStore::list_keys) makes one for ten.
    ///
    /// It needs the permission `ssm:DescribeParameters`, which AWS grants for all parameters or for
    /// none.
    ///
    /// # Errors
    /// [`PermissionDenied`](keystead_core::ErrorKind::PermissionDenied) without that permission,
    /// and the errors that are common to all methods of a store.
    pub async fn count_keys(&self) -> Result<u64> {
        let ids = listing(SERVICE, |token| Box::pin(describe::ids(self, token)));
        ids.try_fold(0, |count, _| async move { Ok(count + 1) }).await
    }
}
