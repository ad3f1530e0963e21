//! [`KeyStoreExt`]: the calls an application makes.

use std::future::Future;

use crate::{ErrorKind, KeyId, KeyStore, PutMode, Result, SecretKey};

/// The length in bytes of the keys that [`KeyStoreExt::get_or_create_key`] makes.
const NEW_KEY_LEN: usize = 32;

/// Shorthands over [`KeyStore`], for every store. Nothing that a layer must change lives here.
pub trait KeyStoreExt: KeyStore {
    /// Creates or overwrites the key of `id`.
    ///
    /// # Errors
    /// As [`KeyStore::put_key_with`] with [`PutMode::Overwrite`].
    fn put_key(&self, id: &KeyId, key: &SecretKey) -> impl Future<Output = Result<()>> + Send {
        async move { self.put_key_with(id, key, PutMode::Overwrite).await }
    }

    /// Creates the key of `id`.
    ///
    /// # Errors
    /// As [`KeyStore::put_key_with`] with [`PutMode::Create`]: [`AlreadyExists`](ErrorKind::AlreadyExists) if there is one.
    fn create_key(&self, id: &KeyId, key: &SecretKey) -> impl Future<Output = Result<()>> + Send {
        async move { self.put_key_with(id, key, PutMode::Create).await }
    }

    /// Reads the key of `id`; `None` if there is none.
    ///
    /// # Errors
    /// As [`KeyStore::get_key`], but for [`NotFound`](ErrorKind::NotFound).
    fn find_key(&self, id: &KeyId) -> impl Future<Output = Result<Option<SecretKey>>> + Send {
        async move {
            match self.get_key(id).await {
                Ok(key) => Ok(Some(key)),
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e),
            }
        }
    }

    /// Reads the key of `id`, or creates one of 32 random bytes.
    ///
    /// # Errors
    /// As [`KeyStore::get_key`], but for [`NotFound`](ErrorKind::NotFound), and [`KeyStore::get_or_create`].
    fn get_or_create_key(&self, id: &KeyId) -> impl Future<Output = Result<SecretKey>> + Send {
        self.get_or_create_key_with(id, || {
            SecretKey::generate(NEW_KEY_LEN).expect("32 bytes are a valid length of a key")
        })
    }

    /// Reads the key of `id`, or creates the one that `generate` makes, which is called at most once and only if there
    /// is none.
    ///
    /// # Errors
    /// As [`KeyStore::get_key`], but for [`NotFound`](ErrorKind::NotFound), and [`KeyStore::get_or_create`].
    fn get_or_create_key_with<F>(&self, id: &KeyId, generate: F) -> impl Future<Output = Result<SecretKey>> + Send
    where
        F: FnOnce() -> SecretKey + Send,
    {
        async move {
            match self.find_key(id).await? {
                Some(key) => Ok(key),
                None => self.get_or_create(id, &generate()).await,
            }
        }
    }
}

impl<T: KeyStore + ?Sized> KeyStoreExt for T {}
