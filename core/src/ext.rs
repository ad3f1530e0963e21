//! [`KeyStoreExt`]: the methods that most applications call.

use std::future::Future;

use crate::{ErrorKind, KeyId, KeyStore, PutMode, Result, SecretKey};

/// The length in bytes of the keys that [`KeyStoreExt::get_or_create_key`] creates.
const NEW_KEY_LEN: usize = 32;

/// Convenience methods for every [`KeyStore`].
///
/// The trait is implemented for all stores, so a store cannot override its methods. Each calls a
/// method of `KeyStore`, which layers do override.
///
/// ```
/// use keystead_core::{KeyId, KeyStore, KeyStoreExt, Result, SecretKey};
///
/// /// Returns the key that encrypts a user's data, if the user has one.
/// async fn existing_key(store: &dyn KeyStore, user: &KeyId) -> Result<Option<SecretKey>> {
///     store.find_key(user).await
/// }
/// ```
pub trait KeyStoreExt: KeyStore {
    /// Creates or overwrites the key of `id`. [`create_key`](Self::create_key) never overwrites.
    ///
    /// # Errors
    /// The errors of [`KeyStore::put_key_with`] with [`PutMode::Overwrite`].
    fn put_key(&self, id: &KeyId, key: &SecretKey) -> impl Future<Output = Result<()>> + Send {
        async move { self.put_key_with(id, key, PutMode::Overwrite).await }
    }

    /// Creates the key of `id`, and fails if there is one already.
    ///
    /// Use [`get_or_create_key`](Self::get_or_create_key) if the existing key should be returned in
    /// that case.
    ///
    /// # Errors
    /// The errors of [`KeyStore::put_key_with`] with [`PutMode::Create`], such as
    /// [`AlreadyExists`](ErrorKind::AlreadyExists).
    fn create_key(&self, id: &KeyId, key: &SecretKey) -> impl Future<Output = Result<()>> + Send {
        async move { self.put_key_with(id, key, PutMode::Create).await }
    }

    /// Reads the key of `id`, and returns `None` if there is no such key.
    ///
    /// # Errors
    /// The errors of [`KeyStore::get_key`], except for [`NotFound`](ErrorKind::NotFound).
    fn find_key(&self, id: &KeyId) -> impl Future<Output = Result<Option<SecretKey>>> + Send {
        async move {
            match self.get_key(id).await {
                Ok(key) => Ok(Some(key)),
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e),
            }
        }
    }

    /// Reads the key of `id`, or creates one of 32 random bytes if there is none.
    ///
    /// All callers that race to create the key get the same one.
    /// [`get_or_create_key_with`](Self::get_or_create_key_with) creates a key of your choice, and
    /// [`KeyStore::get_or_create`] tries to create it without reading first.
    ///
    /// # Errors
    /// The errors of [`KeyStore::get_key`], except for [`NotFound`](ErrorKind::NotFound), and those
    /// of [`KeyStore::get_or_create`].
    fn get_or_create_key(&self, id: &KeyId) -> impl Future<Output = Result<SecretKey>> + Send {
        self.get_or_create_key_with(id, || SecretKey::generate(NEW_KEY_LEN).expect("32 bytes is a valid key length"))
    }

    /// Reads the key of `id`, or creates the one that `generate` returns if there is none.
    ///
    /// `generate` is called at most once, and only if no key was found. If another caller creates a
    /// key first, that key is returned and the generated one is dropped. Unlike
    /// [`KeyStore::put_key_with`], this never overwrites a key.
    ///
    /// # Errors
    /// The errors of [`KeyStore::get_key`], except for [`NotFound`](ErrorKind::NotFound), and those
    /// of [`KeyStore::get_or_create`].
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
