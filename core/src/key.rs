//! [`SecretKey`]: the bytes that must not leak.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret of 1 to 3072 bytes, wiped from memory when its last clone is dropped.
///
/// Every key that can be constructed works on every backend (3072 bytes are what base64 leaves of the 4096 characters
/// of an SSM parameter). Clones share one allocation. Comparison takes the same time whichever byte differs; lengths
/// are not secret. There is no `Display` and no `Serialize`, and `Debug` tells the length only:
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
    /// The longest key, in bytes.
    pub const MAX_LEN: usize = 3072;

    /// Takes the buffer as it is: a `Vec<u8>` is not copied, and wiped with its spare capacity in the end. What is
    /// given as a slice or an array stays where it was, for its owner to wipe.
    ///
    /// # Errors
    /// [`InvalidSecretKey`] if the buffer is empty or longer than [`SecretKey::MAX_LEN`] bytes; the buffer is wiped.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, InvalidSecretKey> {
        let bytes = Zeroizing::new(bytes.into());
        check_len(bytes.len())?;
        Ok(Self(Arc::new(bytes)))
    }

    /// `len` bytes from the operating system's generator.
    ///
    /// # Errors
    /// [`InvalidSecretKey`] if `len` is 0 or above [`SecretKey::MAX_LEN`].
    ///
    /// # Panics
    /// If the operating system's generator fails: no key is better than a weak one.
    pub fn generate(len: usize) -> Result<Self, InvalidSecretKey> {
        check_len(len)?;
        let mut bytes = Zeroizing::new(vec![0; len]);
        getrandom::fill(&mut bytes).expect("the operating system has a working random generator");
        Ok(Self(Arc::new(bytes)))
    }

    /// The bytes. Whoever copies them must wipe the copy.
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

/// The trait of the `secrecy` crate, for code that is written against it.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidSecretKey {
    /// There are no bytes.
    Empty,
    /// There are more than [`SecretKey::MAX_LEN`] bytes.
    TooLong {
        /// The number of bytes.
        len: usize,
    },
}

impl fmt::Display for InvalidSecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let max = SecretKey::MAX_LEN;
        match self {
            Self::Empty => write!(f, "secret key is empty: give 1 to {max} bytes"),
            Self::TooLong { len } => write!(f, "secret key has {len} bytes: give at most {max}"),
        }
    }
}

impl StdError for InvalidSecretKey {}

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
    }

    #[test]
    fn a_vector_is_taken_not_copied() {
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
    fn equality_is_of_all_bytes_and_the_length() {
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
