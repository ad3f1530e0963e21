//! Encryption of a profile under its user's key: AES-256-GCM, with the nonce in front.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use keystead::{KeyId, SecretKey};

/// Encrypts a text under a user's key, with a random nonce. The user's id is the associated data,
/// so that a row which is copied to another user does not decrypt.
///
/// # Errors
/// If the key does not have 32 bytes.
pub(crate) fn encrypt(key: &SecretKey, id: &KeyId, plaintext: &[u8]) -> Result<Vec<u8>, Unspecified> {
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, key.expose_secret())?;
    let mut data = plaintext.to_vec();
    let nonce = cipher.seal_in_place_append_tag(Aad::from(id.as_str()), &mut data)?;
    Ok([nonce.as_ref().as_slice(), &data].concat())
}

/// Decrypts the result of [`encrypt`].
///
/// # Errors
/// If the data is damaged, belongs to another user or was encrypted under another key. AES-GCM
/// cannot tell these apart.
pub(crate) fn decrypt(key: &SecretKey, id: &KeyId, encrypted: &[u8]) -> Result<Vec<u8>, Unspecified> {
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, key.expose_secret())?;
    let (nonce, data) = encrypted.split_first_chunk::<NONCE_LEN>().ok_or(Unspecified)?;
    let mut data = data.to_vec();
    let plaintext = cipher.open_in_place(Nonce::from(nonce), Aad::from(id.as_str()), &mut data)?;
    Ok(plaintext.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> KeyId {
        KeyId::new(text).unwrap()
    }

    #[test]
    fn a_profile_decrypts_for_its_user_under_its_key_only() {
        let key = SecretKey::generate(32).unwrap();
        let encrypted = encrypt(&key, &id("alice"), b"12 Elm Street").unwrap();
        assert_eq!(decrypt(&key, &id("alice"), &encrypted).unwrap(), b"12 Elm Street");
        assert!(decrypt(&key, &id("bob"), &encrypted).is_err());
        assert!(decrypt(&SecretKey::generate(32).unwrap(), &id("alice"), &encrypted).is_err());
    }

    #[test]
    fn damaged_data_is_refused() {
        let key = SecretKey::generate(32).unwrap();
        let mut encrypted = encrypt(&key, &id("alice"), b"12 Elm Street").unwrap();
        assert!(decrypt(&key, &id("alice"), &encrypted[..NONCE_LEN - 1]).is_err());
        *encrypted.last_mut().unwrap() ^= 1;
        assert!(decrypt(&key, &id("alice"), &encrypted).is_err());
    }

    #[test]
    fn equal_profiles_give_different_ciphertexts() {
        let key = SecretKey::generate(32).unwrap();
        assert_ne!(encrypt(&key, &id("alice"), b"same").unwrap(), encrypt(&key, &id("alice"), b"same").unwrap());
    }
}
