//! Tombstones: what they are called and what is written on them.

use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use keystead_core::{Error, ErrorKind, KeyId, Operation, Result, SecretKey};
use sha2::Sha256;

/// The length in bytes of the key that turns ids into names.
pub(crate) const FENCE_KEY_LEN: usize = 32;

/// Version 1: this byte, then the seconds since 1970-01-01 UTC as 8 bytes, the highest first.
const VERSION: u8 = 1;

/// When a user was erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    /// To the second.
    pub(crate) raised: SystemTime,
}

/// What the fence key is called in the store of the tombstones: no keyed hash looks so.
pub(crate) fn fence_key_id() -> KeyId {
    KeyId::new("fence-key").expect("it is a valid id")
}

/// HMAC-SHA-256 (RFC 2104, FIPS 180-4) of the id in lower-case hexadecimal digits.
pub(crate) fn tombstone_id(fence_key: &SecretKey, id: &KeyId) -> KeyId {
    let mut mac = Hmac::<Sha256>::new_from_slice(fence_key.expose_secret()).expect("a key may have any length");
    mac.update(id.as_str().as_bytes());
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    KeyId::new(digits).expect("64 digits are a valid id")
}

impl Tombstone {
    pub(crate) fn new(raised: SystemTime) -> Self {
        Self { raised: SystemTime::UNIX_EPOCH + Duration::from_secs(unix_seconds(raised)) }
    }

    /// As it is kept in a store of keys.
    pub(crate) fn to_key(self) -> SecretKey {
        let mut bytes = vec![VERSION];
        bytes.extend(unix_seconds(self.raised).to_be_bytes());
        SecretKey::new(bytes).expect("9 bytes are a valid key")
    }

    /// # Errors
    /// `Corrupt` if this is no tombstone: the user counts as neither erased nor not.
    pub(crate) fn read(key: &SecretKey, operation: Operation, store: &'static str) -> Result<Self> {
        let raised = match key.expose_secret() {
            [VERSION, seconds @ ..] => {
                let seconds = seconds.try_into().ok().map(|seconds| Duration::from_secs(u64::from_be_bytes(seconds)));
                seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(seconds))
            }
            _ => None,
        };
        let why =
            "a tombstone is damaged, or the store of the tombstones holds something else: give the fence its own store";
        raised
            .map(|raised| Self { raised })
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, operation, store).with_source(why))
    }
}

/// A moment before 1970 counts as 1970.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_hmac_of_the_id() {
        // RFC 4231, test case 2.
        let key = SecretKey::new(*b"Jefe").unwrap();
        let id = KeyId::new("what do ya want for nothing?").unwrap();
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(tombstone_id(&key, &id).as_str(), expected);
    }

    #[test]
    fn a_tombstone_is_read_as_it_was_written() {
        let raised = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let stone = Tombstone::new(raised + Duration::from_millis(1));
        assert_eq!(stone.to_key().expose_secret(), [1, 0, 0, 0, 0, 0x65, 0x53, 0xf1, 0]);
        assert_eq!(Tombstone::read(&stone.to_key(), Operation::Get, "memory").unwrap().raised, raised);
    }

    #[test]
    fn what_is_no_tombstone_is_corrupt() {
        for bytes in [&[1][..], &[2, 0, 0, 0, 0, 0, 0, 0, 0], &[1; 10], &[1, 255, 255, 255, 255, 255, 255, 255, 255]] {
            let key = SecretKey::new(bytes).unwrap();
            let refused = Tombstone::read(&key, Operation::Get, "memory").unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Corrupt);
        }
    }
}
