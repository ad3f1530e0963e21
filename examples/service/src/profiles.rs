//! [`ProfileTable`]: the service's own data.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use keystead::KeyId;

/// The encrypted profiles, in memory. It stands in for a table in the service's database.
///
/// It never sees a key or a plaintext, so its backups, replicas and logs need no care when a user
/// is forgotten.
#[derive(Debug, Default)]
pub struct ProfileTable(Mutex<HashMap<KeyId, Vec<u8>>>);

impl ProfileTable {
    /// Returns the encrypted profile of a user.
    pub fn get(&self, id: &KeyId) -> Option<Vec<u8>> {
        self.rows().get(id).cloned()
    }

    /// Inserts or replaces the encrypted profile of a user.
    pub fn insert(&self, id: &KeyId, encrypted: Vec<u8>) {
        self.rows().insert(id.clone(), encrypted);
    }

    /// Removes the profile of a user.
    pub fn remove(&self, id: &KeyId) {
        self.rows().remove(id);
    }

    /// Removes the profile of a user, unless another one has replaced it.
    pub fn remove_if_equal(&self, id: &KeyId, encrypted: &[u8]) {
        let mut rows = self.rows();
        if rows.get(id).is_some_and(|row| row == encrypted) {
            rows.remove(id);
        }
    }

    fn rows(&self) -> MutexGuard<'_, HashMap<KeyId, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
