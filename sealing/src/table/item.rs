//! [`StoreId`] and [`KeyringItem`]: what a table holds besides records.

use std::fmt;
use std::time::Duration;

use crate::keyring::{KEYRING_LEN, Keyring};

const LEASE_LEN: usize = 4;

/// The shortest and the longest lease that a store may have.
pub(super) const LEASES: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

/// The random id of a store: 16 bytes, stored unencrypted. It tells two stores apart and never
/// changes; a restored copy has the same one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId([u8; 16]);

impl StoreId {
    /// Creates an id from the bytes that were read from a table.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the 16 bytes to store.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub(super) fn of(keyring: &Keyring) -> Option<Self> {
        keyring.store_id().try_into().ok().map(Self)
    }
}

/// Shows 32 hexadecimal digits.
impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

/// A sealed keyring as a table stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyringItem {
    /// The version of the keyring, which starts at 1 and grows by one with each change.
    pub generation: u64,
    /// The oldest epoch in which records may be written. It is the current epoch or, at the
    /// beginning of a rotation, the previous one.
    pub oldest_writable_epoch: u32,
    /// The current epoch.
    pub current_epoch: u32,
    /// The sealed keyring and the lease: 1,290 bytes that mean nothing to the table.
    pub bytes: Vec<u8>,
}

impl KeyringItem {
    /// Creates an item from the values that were read from a table.
    pub fn new(generation: u64, oldest_writable_epoch: u32, current_epoch: u32, bytes: impl Into<Vec<u8>>) -> Self {
        Self { generation, oldest_writable_epoch, current_epoch, bytes: bytes.into() }
    }

    /// Reports whether records of this epoch may be written: the condition of
    /// [`RecordTable::insert`](super::RecordTable::insert) and
    /// [`RecordTable::upsert`](super::RecordTable::upsert).
    ///
    /// An epoch between the two, or after them, is not writable. It belongs to another keyring with
    /// the same origin, which was in use before a backup was restored.
    pub fn is_writable(&self, epoch: u32) -> bool {
        epoch == self.oldest_writable_epoch || epoch == self.current_epoch
    }

    pub(super) fn of(sealed: &[u8], lease: Duration, oldest_writable_epoch: u32, current_epoch: u32) -> Self {
        let generation = Keyring::generation_of(sealed).expect("a keyring that was just sealed has a generation");
        let lease = u32::try_from(lease.as_millis()).expect("a lease is at most an hour");
        let bytes = [sealed, &lease.to_be_bytes()].concat();
        Self { generation, oldest_writable_epoch, current_epoch, bytes }
    }

    /// Returns the sealed keyring and the lease; `None` if the item is damaged.
    pub(super) fn parts(&self) -> Option<(&[u8], Duration)> {
        let (sealed, lease) = self.bytes.split_at_checked(KEYRING_LEN)?;
        let lease = u32::from_be_bytes(<[u8; LEASE_LEN]>::try_from(lease).ok()?);
        let lease = Duration::from_millis(lease.into());
        let is_whole = LEASES.contains(&lease) && Keyring::generation_of(sealed) == Some(self.generation);
        is_whole.then_some((sealed, lease))
    }
}
