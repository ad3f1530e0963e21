//! The names and the contents of a fence's records in the store of the tombstones, as FORMAT.md
//! describes them.

use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use keystead_core::{Error, ErrorKind, KeyId, Operation, Result, SecretKey};
use sha2::Sha256;

/// The length in bytes of the fence key, which turns ids into names.
pub(crate) const FENCE_KEY_LEN: usize = 32;

/// The exponent of the longest age that can be recorded. The age is 2 to this power, in seconds.
const LONGEST_AGE_EXPONENT: u32 = 31;

/// The first byte of a tombstone of version 1. The seconds since 1970-01-01 UTC follow as 8 bytes,
/// big-endian.
const VERSION_1: u8 = 1;

/// The first byte of a record of version 2. Two moments follow, each as the milliseconds since
/// 1970-01-01 UTC in 8 bytes, big-endian, and then 8 random bytes.
const VERSION_2: u8 = 2;

/// Returns the id of the fence key. It cannot be a keyed hash.
pub(crate) fn fence_key_id() -> KeyId {
    KeyId::new("fence-key").expect("it is a valid id")
}

/// The names of one user's records. They begin with a keyed hash of the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordNames(String);

impl RecordNames {
    /// Computes the keyed hash of an id: HMAC-SHA-256 (RFC 2104, FIPS 180-4) in lower-case
    /// hexadecimal digits.
    pub(crate) fn new(fence_key: &SecretKey, id: &KeyId) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(fence_key.expose_secret()).expect("a key may have any length");
        mac.update(id.as_str().as_bytes());
        Self(mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Returns the names that begin with this keyed hash, or `None` if the text does not consist of
    /// 64 lower-case hexadecimal digits.
    pub(crate) fn of_digits(digits: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (digits.len() == 64 && digits.bytes().all(is_digit)).then(|| Self(digits.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of the tombstone of this generation. A user's first tombstone is generation
    /// 1, and each further one begins the next generation.
    pub(crate) fn tombstone(&self, generation: u32) -> KeyId {
        match generation {
            1 => valid(self.0.clone()),
            _ => valid(format!("{}-{generation}", self.0)),
        }
    }

    /// Returns the name of the record which says that the call that wrote this generation's
    /// tombstone has ended, so that none of that call's deletes can still be applied.
    pub(crate) fn ended(&self, generation: u32) -> KeyId {
        valid(format!("{}-{generation}-ended", self.0))
    }

    /// Returns the name of a record which says that a key had come back after this generation and
    /// was deleted. `index` counts these records from 1.
    pub(crate) fn cleaned(&self, generation: u32, index: u32) -> KeyId {
        valid(format!("{}-{generation}-cleaned-{index}", self.0))
    }

    /// Returns the name of the record which says that a new key was allowed after this generation.
    pub(crate) fn lifted(&self, generation: u32) -> KeyId {
        valid(format!("{}-{generation}-lifted", self.0))
    }

    /// Returns the name of a claim to delete the user's key or to lift a tombstone. `index` counts
    /// the claims from 1.
    pub(crate) fn claim(&self, index: u32) -> KeyId {
        valid(format!("{}-claim-{index}", self.0))
    }

    /// Returns the name of the record which says that the holder of this claim has finished.
    pub(crate) fn finished(&self, index: u32) -> KeyId {
        valid(format!("{}-claim-{index}-finished", self.0))
    }
}

fn valid(name: String) -> KeyId {
    KeyId::new(name).expect("the name consists of at most 95 letters, digits and hyphens")
}

/// Returns the name of the marker for this age: some stack may return a key for up to 2 to the
/// power of `exponent` seconds after it was deleted.
pub(crate) fn age_marker(exponent: u32) -> KeyId {
    valid(format!("visible-for-{}s", age_of(exponent).as_secs()))
}

/// Returns the age for which the marker with this exponent stands.
pub(crate) fn age_of(exponent: u32) -> Duration {
    Duration::from_secs(1 << exponent)
}

/// Returns the exponents of all markers.
pub(crate) fn age_exponents() -> impl Iterator<Item = u32> {
    0..=LONGEST_AGE_EXPONENT
}

/// Returns the exponent of the smallest marker that covers this age, or `None` if no marker does.
pub(crate) fn age_exponent(age: Duration) -> Option<u32> {
    age_exponents().find(|exponent| age_of(*exponent) >= age)
}

/// The content of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The moment at which the record was written, in whole milliseconds.
    pub(crate) at: SystemTime,
    /// In a tombstone, the moment at which the user was first erased since a new key was last
    /// allowed. In a claim, the moment at which the claim expires. In other records it equals `at`.
    pub(crate) other: SystemTime,
}

impl Stamp {
    pub(crate) fn now() -> Self {
        let now = from_unix_millis(unix_millis(SystemTime::now())).unwrap_or(SystemTime::UNIX_EPOCH);
        Self { at: now, other: now }
    }

    /// Returns the record in the form of a key. It contains random bytes, so that a caller that
    /// reads a record back can tell whether that record is its own.
    pub(crate) fn to_key(self) -> SecretKey {
        let random = SecretKey::generate(8).expect("8 bytes is a valid key length");
        let mut bytes = vec![VERSION_2];
        bytes.extend(unix_millis(self.at).to_be_bytes());
        bytes.extend(unix_millis(self.other).to_be_bytes());
        bytes.extend(random.expose_secret());
        SecretKey::new(bytes).expect("25 bytes are a valid key")
    }

    /// Parses a record.
    ///
    /// # Errors
    /// `Corrupt` if the bytes are not a record. It is then unknown whether the user is erased.
    pub(crate) fn read(key: &SecretKey, operation: Operation, store: &'static str) -> Result<Self> {
        let why = "a tombstone is damaged, or the store of the tombstones contains something else: restore it from a \
                   backup, and give the fence a store of its own";
        Self::parse(key.expose_secret())
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, operation, store).with_source(why))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (version, fields) = bytes.split_first()?;
        match *version {
            VERSION_1 => {
                let seconds = u64::from_be_bytes(fields.try_into().ok()?);
                let at = from_unix_millis(seconds.checked_mul(1000)?)?;
                Some(Self { at, other: at })
            }
            VERSION_2 => {
                let (at, fields) = fields.split_first_chunk()?;
                let (other, random) = fields.split_first_chunk()?;
                let at = from_unix_millis(u64::from_be_bytes(*at))?;
                let other = from_unix_millis(u64::from_be_bytes(*other))?;
                (random.len() == 8).then_some(Self { at, other })
            }
            _ => None,
        }
    }
}

fn from_unix_millis(millis: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

/// Returns the milliseconds since 1970-01-01 UTC, or zero for an earlier moment.
fn unix_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> RecordNames {
        // RFC 4231, test case 2.
        let key = SecretKey::new(*b"Jefe").unwrap();
        RecordNames::new(&key, &KeyId::new("what do ya want for nothing?").unwrap())
    }

    #[test]
    fn names_begin_with_the_hmac_of_the_id() {
        let hash = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let names = names();
        assert_eq!(names.tombstone(1).as_str(), hash);
        assert_eq!(names.tombstone(2).as_str(), format!("{hash}-2"));
        assert_eq!(names.ended(2).as_str(), format!("{hash}-2-ended"));
        assert_eq!(names.lifted(1).as_str(), format!("{hash}-1-lifted"));
        assert_eq!(names.claim(2).as_str(), format!("{hash}-claim-2"));
        assert_eq!(names.finished(u32::MAX).as_str(), format!("{hash}-claim-4294967295-finished"));
        assert_eq!(names.cleaned(u32::MAX, u32::MAX).as_str(), format!("{hash}-4294967295-cleaned-4294967295"));
    }

    #[test]
    fn a_record_can_be_read_back() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let stamp = Stamp { at: at(1_700_000_000_123), other: at(1_700_000_000_001) };
        let key = stamp.to_key();
        assert_eq!(key.expose_secret()[..9], [2, 0, 0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0x7b]);
        assert_eq!(Stamp::read(&key, Operation::Get, "memory").unwrap(), stamp);
        assert_ne!(stamp.to_key(), key);
        let now = Stamp::now();
        assert_eq!(Stamp::read(&now.to_key(), Operation::Get, "memory").unwrap(), now);
    }

    #[test]
    fn a_tombstone_of_version_1_is_read() {
        let key = SecretKey::new([1, 0, 0, 0, 0, 0x65, 0x53, 0xf1, 0]).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(Stamp::read(&key, Operation::Get, "memory").unwrap(), Stamp { at, other: at });
    }

    #[test]
    fn anything_else_is_corrupt() {
        for bytes in [&[1][..], &[2, 0], &[1; 10], &[1, 255, 255, 255, 255, 255, 255, 255, 255], &[2; 26], &[3; 25]] {
            let key = SecretKey::new(bytes).unwrap();
            let e = Stamp::read(&key, Operation::Get, "memory").unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Corrupt, "{bytes:?}");
        }
    }

    #[test]
    fn each_age_has_a_marker_that_covers_it() {
        let exponent = |millis| age_exponent(Duration::from_millis(millis));
        assert_eq!([1, 1000, 1001, 64_000, 64_001].map(exponent), [0, 0, 1, 6, 7].map(Some));
        assert_eq!(age_exponent(Duration::MAX), None);
        assert_eq!(age_marker(6).as_str(), "visible-for-64s");
    }
}
