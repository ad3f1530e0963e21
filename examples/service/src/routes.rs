//! The routes of the service.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{delete, post, put};
use axum::{Json, Router};
use keystead::layers::{ErasureReceipt, Stack};
use keystead::{ErrorKind, Finality, KeyId, KeyStore, KeyStoreExt, SecretKey};
use serde::Serialize;
use serde_json::Value;

use crate::crypto::{decrypt, encrypt};
use crate::error::ApiError;
use crate::profiles::ProfileTable;

#[derive(Clone)]
struct Service {
    keys: Stack,
    profiles: Arc<ProfileTable>,
}

/// Returns the routes of the service, over these keys and this table.
///
/// They do not authenticate anybody: add the authentication of your application.
pub fn router(keys: Stack, profiles: Arc<ProfileTable>) -> Router {
    Router::new()
        .route("/users/{id}/profile", put(store_profile).get(read_profile))
        .route("/users/{id}", delete(forget_user))
        .route("/users/{id}/return", post(readmit_user))
        .with_state(Service { keys, profiles })
}

/// Encrypts a profile under the user's key, which is created at the first call, and stores it.
async fn store_profile(
    State(service): State<Service>,
    Path(id): Path<KeyId>,
    Json(profile): Json<Value>,
) -> Result<StatusCode, ApiError> {
    let key = service.keys.get_or_create_key(&id).await?;
    let encrypted = encrypt(&key, &id, profile.to_string().as_bytes())?;
    service.insert_profile(&id, &key, encrypted).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Decrypts the user's profile.
async fn read_profile(State(service): State<Service>, Path(id): Path<KeyId>) -> Result<impl IntoResponse, ApiError> {
    // The key is read first, because only the store of the keys can say that the user was erased.
    let key = service.keys.get_key(&id).await?;
    let encrypted = service.profiles.get(&id).ok_or(ApiError::NoProfile)?;
    let profile = decrypt(&key, &id, &encrypted)?;
    Ok(([(CONTENT_TYPE, "application/json")], profile))
}

/// Erases the user's key, then removes the profile, which nobody can decrypt anyway.
///
/// If the client goes away, the erasure may be cut off. Sending the request again finishes it.
async fn forget_user(State(service): State<Service>, Path(id): Path<KeyId>) -> Result<Forgotten, ApiError> {
    let receipt = service.keys.erase(&id).await?;
    service.profiles.remove(&id);
    Ok(Forgotten { state: ErasureState::of(&receipt), receipt })
}

/// Allows an erased user to have a new key. The old profile stays unreadable.
async fn readmit_user(State(service): State<Service>, Path(id): Path<KeyId>) -> Result<StatusCode, ApiError> {
    service.keys.allow_new_key(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Service {
    /// Stores a profile that was encrypted under this key, unless the user was erased meanwhile. In
    /// that case [`forget_user`] may have removed the old profile before this one was inserted.
    async fn insert_profile(&self, id: &KeyId, key: &SecretKey, encrypted: Vec<u8>) -> Result<(), ApiError> {
        self.profiles.insert(id, encrypted.clone());
        let is_current = match self.keys.get_key(id).await {
            Ok(current) => current == *key,
            Err(e) if matches!(e.kind(), ErrorKind::Erased | ErrorKind::NotFound) => false,
            // It is not known. The client repeats the request, which replaces this profile.
            Err(e) => return Err(e.into()),
        };
        if !is_current {
            self.profiles.remove_if_equal(id, &encrypted);
            return Err(ApiError::ErasedMeanwhile);
        }
        Ok(())
    }
}

/// The answer to a request to be forgotten.
#[derive(Serialize)]
struct Forgotten {
    state: ErasureState,
    receipt: ErasureReceipt,
}

/// The answer's claim about an erasure: never more than its receipt proves.
#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum ErasureState {
    /// A read has proved that the key is gone, and its bytes are beyond recovery.
    Erased,
    /// The key was deleted, but its bytes can be recovered for some time. The receipt says for how
    /// long, if that is known.
    NotFinal,
    /// The key was deleted, but no read has proved it. Another request may prove it.
    NotVerified,
}

impl ErasureState {
    fn of(receipt: &ErasureReceipt) -> Self {
        match receipt.finality {
            // No read can prove that a key is gone while it can be brought back.
            Finality::RecoverableUntil(_) => Self::NotFinal,
            _ if !receipt.verified => Self::NotVerified,
            Finality::Immediate => Self::Erased,
            _ => Self::NotFinal,
        }
    }
}

impl IntoResponse for Forgotten {
    fn into_response(self) -> axum::response::Response {
        let status = match self.state {
            ErasureState::Erased => StatusCode::OK,
            ErasureState::NotFinal | ErasureState::NotVerified => StatusCode::ACCEPTED,
        };
        (status, Json(self)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use keystead::memory::MemoryStore;

    use super::*;
    use crate::StackConfig;

    #[tokio::test(start_paused = true)]
    async fn a_profile_that_was_encrypted_before_an_erasure_is_not_stored_after_it() {
        let keys = StackConfig::default().build(MemoryStore::new(), MemoryStore::new()).unwrap();
        let service = Service { keys, profiles: Arc::default() };
        let alice = KeyId::new("alice").unwrap();
        let key = service.keys.get_or_create_key(&alice).await.unwrap();
        let encrypted = encrypt(&key, &alice, b"{}").unwrap();

        service.keys.erase(&alice).await.unwrap();
        let answer = service.insert_profile(&alice, &key, encrypted).await;
        assert!(matches!(answer, Err(ApiError::ErasedMeanwhile)));
        assert_eq!(service.profiles.get(&alice), None);
    }

    #[test]
    fn a_user_counts_as_erased_only_if_that_is_verified_and_final() {
        let state = |verified: bool, finality: &str| {
            let mut receipt = serde_json::json!({
                "store": "memory:; store=1", "tombstone": "ab".repeat(32), "erased_at": 1, "finished_at": 2,
                "existed": true, "verified": verified, "finality": finality,
            });
            if finality == "recoverable" {
                receipt["recoverable_until"] = 3.into();
            }
            ErasureState::of(&serde_json::from_value(receipt).unwrap())
        };
        assert!(state(true, "immediate") == ErasureState::Erased);
        assert!(state(true, "eventual") == ErasureState::NotFinal);
        assert!(state(false, "immediate") == ErasureState::NotVerified);
        assert!(state(false, "eventual") == ErasureState::NotVerified);
        assert!(state(false, "recoverable") == ErasureState::NotFinal);
    }
}
