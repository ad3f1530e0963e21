//! Sealed records, which each contain one user's id and key. FORMAT.md, "Record", is the
//! specification.

use keystead_core::{KeyId, SecretKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::bytes::Fields;
use crate::cobblestone;
use crate::keyring::Keyring;
use crate::row_key::RowKey;

/// The unit of length of sealed records: the length in bytes of each is a multiple of it.
pub const RECORD_STEP: usize = 256;

const FORMAT: &[u8] = b"keystead/record/v1";
const SUITE: u8 = 1;

/// The length in bytes of the unencrypted prefix of a record: the suite and the epoch.
pub const RECORD_PREFIX_LEN: usize = 1 + 4;

/// A sealed record, which contains the id and the key of one user.
#[derive(Clone, Debug)]
pub struct SealedRecord {
    /// The row key under which to store the record.
    pub row: RowKey,
    /// The bytes to store. Their number is a multiple of [`RECORD_STEP`], at most 13 times that.
    pub bytes: Vec<u8>,
}

impl Keyring {
    /// Seals a user's key in the current epoch. Two calls never return the same bytes.
    ///
    /// # Panics
    /// If the operating system's random generator fails.
    pub fn seal(&self, id: &KeyId, key: &SecretKey) -> SealedRecord {
        let row = self.row_key(id);
        let (epoch, record_key) = self.current_epoch();
        let message = plaintext(id.as_str().as_bytes(), key.expose_secret());
        let sealed = record_key.seal(&self.context(epoch, &row), &message);
        let mut bytes = Vec::with_capacity(RECORD_PREFIX_LEN + sealed.len());
        bytes.extend_from_slice(&self.current_prefix());
        bytes.extend_from_slice(&sealed);
        SealedRecord { row, bytes }
    }

    /// Returns the bytes with which every record of the current epoch begins, and no other record.
    pub fn current_prefix(&self) -> [u8; RECORD_PREFIX_LEN] {
        let mut prefix = [SUITE; RECORD_PREFIX_LEN];
        prefix[1..].copy_from_slice(&self.current_epoch().0.to_be_bytes());
        prefix
    }

    /// Opens the record that was found under `row`.
    ///
    /// # Errors
    /// - [`RecordError::UnknownEpoch`] if the record was sealed in an epoch that this keyring does
    ///   not contain. An older or newer keyring of the store may contain it.
    /// - [`RecordError::Damaged`] if it is not, bit for bit, a record that was sealed for this row
    ///   of this store.
    pub fn open(&self, row: &RowKey, sealed: &[u8]) -> Result<(KeyId, SecretKey), RecordError> {
        let (id, key) = self.open_any(row, sealed)?;
        if self.row_key(&id) != *row { Err(RecordError::Damaged) } else { Ok((id, key)) }
    }

    /// Opens the record of `id`, which was found under `row`, the row key of `id`.
    ///
    /// Unlike [`open`](Self::open), it compares the ids and does not compute the row key again.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_as(&self, id: &KeyId, row: &RowKey, sealed: &[u8]) -> Result<SecretKey, RecordError> {
        let (found, key) = self.open_any(row, sealed)?;
        if found != *id { Err(RecordError::Damaged) } else { Ok(key) }
    }

    fn open_any(&self, row: &RowKey, sealed: &[u8]) -> Result<(KeyId, SecretKey), RecordError> {
        let mut fields = Fields(sealed);
        let suite = fields.array::<1>().ok_or(RecordError::Damaged)?;
        let epoch = u32::from_be_bytes(*fields.array().ok_or(RecordError::Damaged)?);
        if *suite != [SUITE] || sealed.len() % RECORD_STEP != 0 {
            return Err(RecordError::Damaged);
        }
        let record_key = self.epoch(epoch).ok_or(RecordError::UnknownEpoch)?;
        let message = record_key.open(&self.context(epoch, row), fields.0).map_err(|_| RecordError::Damaged)?;
        parse(&message).ok_or(RecordError::Damaged)
    }

    /// Returns the context of a record: format, store id, epoch and row key, each after its length.
    fn context(&self, epoch: u32, row: &RowKey) -> Vec<u8> {
        let mut context = Vec::with_capacity(128);
        for field in [FORMAT, self.store_id(), &epoch.to_be_bytes(), row.as_bytes()] {
            let len = u16::try_from(field.len()).expect("the fields of a context are short");
            context.extend_from_slice(&len.to_be_bytes());
            context.extend_from_slice(field);
        }
        context
    }
}

/// Returns the message of a record: id and key, each after its length, then zeros up to the next
/// step.
fn plaintext(id: &[u8], key: &[u8]) -> Zeroizing<Vec<u8>> {
    let id_len = u8::try_from(id.len()).expect("an id has at most 128 bytes");
    let key_len = u16::try_from(key.len()).expect("a key has at most 3072 bytes");
    let used = 1 + id.len() + 2 + key.len();
    let around = RECORD_PREFIX_LEN + cobblestone::OVERHEAD;
    let len = (around + used).next_multiple_of(RECORD_STEP) - around;
    let mut message = Zeroizing::new(Vec::with_capacity(len));
    message.push(id_len);
    message.extend_from_slice(id);
    message.extend_from_slice(&key_len.to_be_bytes());
    message.extend_from_slice(key);
    message.resize(len, 0);
    message
}

fn parse(message: &[u8]) -> Option<(KeyId, SecretKey)> {
    let mut fields = Fields(message);
    let [id_len] = *fields.array()?;
    let id = fields.slice(usize::from(id_len))?;
    let key_len = u16::from_be_bytes(*fields.array()?);
    let key = fields.slice(usize::from(key_len))?;
    // Each record has only one encoding, so there must not be more steps than needed.
    if !fields.is_padding() || fields.0.len() >= RECORD_STEP {
        return None;
    }
    let id = KeyId::new(std::str::from_utf8(id).ok()?).ok()?;
    Some((id, SecretKey::new(key).ok()?))
}

/// The reason why a record did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The record was sealed in an epoch that the keyring does not contain.
    #[error("the record was sealed in an epoch that the keyring does not contain")]
    UnknownEpoch,
    /// The record is not one that was sealed for this row of this store, or it has changed since.
    #[error("the record is damaged, or was written for another id or store")]
    Damaged,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealed(keyring: &Keyring, id: &str, key: &[u8]) -> SealedRecord {
        keyring.seal(&KeyId::new(id).unwrap(), &SecretKey::new(key).unwrap())
    }

    #[test]
    fn every_key_of_32_bytes_fits_one_step() {
        let keyring = Keyring::generate();
        assert_eq!(sealed(&keyring, "a", &[7; 32]).bytes.len(), 256);
        assert_eq!(sealed(&keyring, &"a".repeat(128), &[7; 32]).bytes.len(), 256);
        assert_eq!(sealed(&keyring, &"a".repeat(128), &[7; 3072]).bytes.len(), 13 * 256);
    }

    #[test]
    fn a_record_opens_in_its_own_place_only() {
        let keyring = Keyring::generate();
        let alice = sealed(&keyring, "alice", b"1");
        let bob = sealed(&keyring, "bob", b"2");
        assert_eq!(keyring.open(&alice.row, &alice.bytes).unwrap().0.as_str(), "alice");
        assert_eq!(keyring.open(&bob.row, &alice.bytes), Err(RecordError::Damaged));
        let other = Keyring::generate();
        assert_eq!(other.open(&alice.row, &alice.bytes), Err(RecordError::Damaged));
    }

    #[test]
    fn a_step_more_than_needed_is_damage() {
        let keyring = Keyring::generate();
        let row = keyring.row_key(&KeyId::new("alice").unwrap());
        let mut message = plaintext(b"alice", b"secret");
        let longer = message.len() + RECORD_STEP;
        message.resize(longer, 0);
        let (epoch, key) = keyring.current_epoch();
        let sealed = key.seal(&keyring.context(epoch, &row), &message);
        let bytes = [keyring.current_prefix().as_slice(), &sealed].concat();
        assert_eq!(bytes.len(), 2 * RECORD_STEP);
        assert_eq!(keyring.open(&row, &bytes), Err(RecordError::Damaged));
    }

    #[test]
    fn an_epoch_that_is_not_held_is_told_apart() {
        let old = Keyring::generate();
        let new = old.next_epoch().unwrap();
        let record = sealed(&new, "alice", b"secret");
        assert_eq!(old.open(&record.row, &record.bytes), Err(RecordError::UnknownEpoch));
        assert!(new.open(&record.row, &record.bytes).is_ok());
        let record = sealed(&old, "alice", b"secret");
        assert!(new.open(&record.row, &record.bytes).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_nothing_else_does(
            id in "[^\\p{Cc}]{1,32}", key in proptest::collection::vec(any::<u8>(), 1..3072),
            at in any::<proptest::sample::Index>(), bit in 0..8_u8,
        ) {
            let keyring = Keyring::generate();
            let record = sealed(&keyring, &id, &key);
            let (opened_id, opened_key) = keyring.open(&record.row, &record.bytes).unwrap();
            prop_assert_eq!(opened_id.as_str(), id);
            prop_assert_eq!(opened_key.expose_secret(), key);
            let mut flipped = record.bytes.clone();
            flipped[at.index(record.bytes.len())] ^= 1 << bit;
            prop_assert!(keyring.open(&record.row, &flipped).is_err());
            prop_assert!(keyring.open(&record.row, &record.bytes[..at.index(record.bytes.len())]).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_no_record(bytes in proptest::collection::vec(any::<u8>(), 0..1024)) {
            prop_assert!(Keyring::generate().open(&RowKey::from_bytes([0; 32]), &bytes).is_err());
        }
    }
}
