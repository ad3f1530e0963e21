//! [`SecretKey`]: the bytes of a key, which must not leak.

use std::fmt;
use std::sync::Arc;

use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret key of 1 to 3072 bytes, which is wiped from memory when its last clone is dropped.
///
/// Every `SecretKey` works on every backend: 3072 bytes in base64 fill the 4096 characters of an
/// SSM parameter. Clones share one allocation. A comparison takes the same time whichever byte
/// differs; the length of a key is not secret. There is no `Display` and no `Serialize`, and
/// `Debug` shows the length only:
///
/// ```
/// use keystead_core::SecretKey;
///
/// let key = SecretKey::generate(32)?;
/// assert_eq!(key.expose_secret().len(), 32);
/// assert_eq!(format!("{key:?}"), "SecretKey(32 bytes)");
/// # Ok::<(), keystead_core::InvalidSecretKey>(())
/// ```
#[derive(Clone)]
pub struct SecretKey(Arc<Zeroizing<Vec<u8>>>);

impl SecretKey {
    /// The length of the longest key, in bytes.
    pub const MAX_LEN: usize = 3072;

    /// Creates a key from a buffer, and takes ownership of the buffer.
    ///
    /// A `Vec<u8>` is not copied. It is wiped, with its spare capacity, when the last clone of the
    /// key is dropped. A slice or an array is copied, and the caller must wipe the original.
    ///
    /// # Errors
    /// [`InvalidSecretKey`] if the buffer is empty or longer than [`SecretKey::MAX_LEN`] bytes. The
    /// buffer is then wiped, too.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, InvalidSecretKey> {
        let bytes = Zeroizing::new(bytes.into());
        check_len(bytes.len())?;
        Ok(Self(Arc::new(bytes)))
    }

    /// Creates a key of `len` bytes from the operating system's random number generator.
    ///
    /// # Errors
    /// [`InvalidSecretKey`] if `len` is zero or greater than [`SecretKey::MAX_LEN`].
    ///
    /// # Panics
    /// Panics if the operating system's generator fails.
    pub fn generate(len: usize) -> Result<Self, InvalidSecretKey> {
        check_len(len)?;
        let mut bytes = Zeroizing::new(vec![0; len]);
        getrandom::fill(&mut bytes).expect("the operating system has a working random generator");
        Ok(Self(Arc::new(bytes)))
    }

    /// Returns the bytes of the key. If you copy them, wipe the copy.
    pub fn expose_secret(&self) -> &[u8] {
        &self.0
    }
}

fn check_len(len: usize) -> Result<(), InvalidSecretKey> {
    match len {
        0 => Err(InvalidSecretKey::Empty),
        1..=SecretKey::MAX_LEN => Ok(()),
        _ => Err(InvalidSecretKey::TooLong { len }),
    }
}

// For code that is generic over the `secrecy` crate's trait.
impl ExposeSecret<[u8]> for SecretKey {
    fn expose_secret(&self) -> &[u8] {
        Self::expose_secret(self)
    }
}

impl PartialEq for SecretKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for SecretKey {}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({} bytes)", self.0.len())
    }
}

/// The reason why some bytes are not a valid [`SecretKey`]. It never quotes the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSecretKey {
    /// There are no bytes.
    #[error("secret key is empty: give 1 to {} bytes", SecretKey::MAX_LEN)]
    Empty,
    /// There are more than [`SecretKey::MAX_LEN`] bytes.
    #[error("secret key has {len} bytes: give at most {}", SecretKey::MAX_LEN)]
    TooLong {
        /// The number of bytes.
        len: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_and_too_long_keys_are_refused() {
        assert_eq!(SecretKey::new([]), Err(InvalidSecretKey::Empty));
        assert_eq!(SecretKey::new(vec![7; 3073]), Err(InvalidSecretKey::TooLong { len: 3073 }));
        assert_eq!(SecretKey::generate(0), Err(InvalidSecretKey::Empty));
        assert_eq!(SecretKey::generate(3073), Err(InvalidSecretKey::TooLong { len: 3073 }));
        assert!(SecretKey::new(vec![7; 3072]).is_ok());
        assert_eq!(InvalidSecretKey::Empty.to_string(), "secret key is empty: give 1 to 3072 bytes");
        assert_eq!(InvalidSecretKey::TooLong { len: 3073 }.to_string(), "secret key has 3073 bytes: give at most 3072");
    }

    #[test]
    fn a_vector_is_not_copied() {
        let bytes = vec![1, 2, 3];
        let address = bytes.as_ptr();
        assert_eq!(SecretKey::new(bytes).unwrap().expose_secret().as_ptr(), address);
    }

    #[test]
    fn clones_share_one_allocation() {
        let key = SecretKey::generate(32).unwrap();
        assert_eq!(key.clone().expose_secret().as_ptr(), key.expose_secret().as_ptr());
    }

    #[test]
    fn keys_are_equal_if_all_bytes_and_the_length_are() {
        let key = SecretKey::new([1, 2, 3]).unwrap();
        assert_eq!(key, SecretKey::new([1, 2, 3]).unwrap());
        assert_ne!(key, SecretKey::new([1, 2, 4]).unwrap());
        assert_ne!(key, SecretKey::new([1, 2]).unwrap());
    }

    #[test]
    fn generated_keys_differ() {
        assert_ne!(SecretKey::generate(16).unwrap(), SecretKey::generate(16).unwrap());
    }
}
