//! The implementations of [`KeyStore`] for `Arc<T>` and `Box<T>`.
//!
//! They are written without `#[async_trait]`, because it would box each future a second time, which
//! costs as much as a read from memory.

use std::sync::Arc;

use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;

use crate::{Capabilities, Deletion, Erasure, KeyId, KeyStore, PutMode, Result, SecretKey, StoreIdentity, StoreInfo};

macro_rules! forward {
    ($pointer:ident) => {
        #[deny(clippy::missing_trait_methods)]
        impl<T: KeyStore + ?Sized> KeyStore for $pointer<T> {
            fn info(&self) -> StoreInfo {
                (**self).info()
            }

            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }

            fn get_key<'s, 'i, 'f>(&'s self, id: &'i KeyId) -> BoxFuture<'f, Result<SecretKey>>
            where
                's: 'f,
                'i: 'f,
                Self: 'f,
            {
                (**self).get_key(id)
            }

            fn put_key_with<'s, 'i, 'k, 'f>(
                &'s self,
                id: &'i KeyId,
                key: &'k SecretKey,
                mode: PutMode,
            ) -> BoxFuture<'f, Result<()>>
            where
                's: 'f,
                'i: 'f,
                'k: 'f,
                Self: 'f,
            {
                (**self).put_key_with(id, key, mode)
            }

            fn delete_key<'s, 'i, 'f>(&'s self, id: &'i KeyId) -> BoxFuture<'f, Result<Deletion>>
            where
                's: 'f,
                'i: 'f,
                Self: 'f,
            {
                (**self).delete_key(id)
            }

            fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
                (**self).list_keys()
            }

            fn check<'s, 'f>(&'s self) -> BoxFuture<'f, Result<()>>
            where
                's: 'f,
                Self: 'f,
            {
                (**self).check()
            }

            fn identify<'s, 'f>(&'s self) -> BoxFuture<'f, Result<StoreIdentity>>
            where
                's: 'f,
                Self: 'f,
            {
                (**self).identify()
            }

            fn get_keys<'s, 'i, 'f>(&'s self, ids: &'i [KeyId]) -> BoxFuture<'f, Vec<Result<SecretKey>>>
            where
                's: 'f,
                'i: 'f,
                Self: 'f,
            {
                (**self).get_keys(ids)
            }

            fn delete_keys<'s, 'i, 'f>(&'s self, ids: &'i [KeyId]) -> BoxFuture<'f, Vec<Result<Deletion>>>
            where
                's: 'f,
                'i: 'f,
                Self: 'f,
            {
                (**self).delete_keys(ids)
            }

            fn create_keys<'s, 'k, 'f>(&'s self, keys: &'k [(KeyId, SecretKey)]) -> BoxFuture<'f, Vec<Result<()>>>
            where
                's: 'f,
                'k: 'f,
                Self: 'f,
            {
                (**self).create_keys(keys)
            }

            fn get_or_create<'s, 'i, 'k, 'f>(
                &'s self,
                id: &'i KeyId,
                candidate: &'k SecretKey,
            ) -> BoxFuture<'f, Result<SecretKey>>
            where
                's: 'f,
                'i: 'f,
                'k: 'f,
                Self: 'f,
            {
                (**self).get_or_create(id, candidate)
            }

            fn erase_key<'s, 'i, 'f>(&'s self, id: &'i KeyId) -> BoxFuture<'f, Result<Erasure>>
            where
                's: 'f,
                'i: 'f,
                Self: 'f,
            {
                (**self).erase_key(id)
            }
        }
    };
}

forward!(Arc);
forward!(Box);
