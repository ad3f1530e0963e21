//! [`Keyring`]: the keys of a store. FORMAT.md, "Keyring", is the specification.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use keystead_core::KeyId;
use zeroize::Zeroizing;

use crate::bytes::{Fields, Key32, MESSAGE_STACK_LEN, fill_random, wiping_stack};
use crate::cobblestone::{self, ReadyKey, Unopened};
use crate::error::KeyringError;
use crate::mac::MacKey;
use crate::root::{Argon2Cost, REFERENCE_LEN, RootHint, RootKey, RootSecret, SALT_LEN};
use crate::row_key::RowKey;

/// The length in bytes of a sealed keyring.
pub const KEYRING_LEN: usize = HEADER_LEN + SEALED_LEN + CHECKSUM_LEN;

const FORMAT: &[u8] = b"keystead/keyring/v1";
const SUITE: u8 = 1;
const ROOT_BYTES: u8 = 0;
const ROOT_PASSPHRASE: u8 = 1;
const ROOT_PROVIDER: u8 = 2;

const HEADER_LEN: usize = 4 + 8 + 3 * 4 + SALT_LEN + 2 + REFERENCE_LEN;
const SEALED_LEN: usize = PLAINTEXT_LEN + cobblestone::OVERHEAD;
const CHECKSUM_LEN: usize = 32;

const STORE_ID_LEN: usize = 16;
const SLOTS: usize = 16;
const PLAINTEXT_LEN: usize = STORE_ID_LEN + 32 + 4 + SLOTS * (4 + 32);

/// The keys of one store: the name key, which hides ids, and a record key for each epoch.
///
/// An epoch is the time between two rotations, numbered from 1. Each record names the epoch in
/// which it was sealed, and new records are sealed in the latest epoch. The generation is the
/// number of times that the keyring was changed, counted from 1. By it a process notices that
/// another process has changed the keyring.
///
/// Clones and later generations share their keys. A key stays at one place in memory, and is wiped
/// when the last keyring that contains it is dropped. `Debug` shows the generation and the number
/// of epochs only.
#[derive(Clone)]
pub struct Keyring {
    generation: u64,
    store_id: [u8; STORE_ID_LEN],
    name_key: Arc<NameKey>,
    /// In ascending order; never empty.
    epochs: Vec<Arc<Epoch>>,
}

struct NameKey {
    key: Key32,
    /// The same key, prepared for use.
    mac: MacKey,
}

impl NameKey {
    fn new(key: Key32) -> Arc<Self> {
        let mac = MacKey::new(&digest::SHA256, key.expose());
        Arc::new(Self { key, mac })
    }
}

struct Epoch {
    number: u32,
    record_key: Key32,
    /// The same key, prepared for use.
    sealer: ReadyKey,
}

impl Epoch {
    fn new(number: u32, record_key: Key32) -> Arc<Self> {
        let sealer = ReadyKey::new(record_key.expose());
        Arc::new(Self { number, record_key, sealer })
    }
}

impl Keyring {
    /// Creates the keyring of a new store, with generation 1, epoch 1 and random keys.
    ///
    /// # Panics
    /// If the operating system's random generator fails.
    pub fn generate() -> Self {
        let mut store_id = [0; STORE_ID_LEN];
        fill_random(&mut store_id);
        let name_key = NameKey::new(Key32::random());
        Self { generation: 1, store_id, name_key, epochs: vec![Epoch::new(1, Key32::random())] }
    }

    /// Returns the next generation of the keyring, with one more epoch and a random key for it.
    /// Returns `None` if the keyring has 16 epochs already.
    ///
    /// # Panics
    /// If the operating system's random generator fails.
    pub fn next_epoch(&self) -> Option<Self> {
        self.epoch_after(0)
    }

    /// Returns the same as [`next_epoch`](Self::next_epoch), but the number of the new epoch is not
    /// predictable.
    ///
    /// Two keyrings that were made from the same one, because a backup was restored in between, then
    /// have epochs of different numbers, so that a record of one is not mistaken for a record of the
    /// other.
    ///
    /// # Panics
    /// If the operating system's random generator fails.
    pub(crate) fn next_epoch_apart(&self) -> Option<Self> {
        let mut skipped = [0; 2];
        fill_random(&mut skipped);
        // Near the end of the numbers, the next one must do.
        self.epoch_after(u16::from_be_bytes(skipped).into()).or_else(|| self.next_epoch())
    }

    fn epoch_after(&self, skipped: u32) -> Option<Self> {
        if self.epochs.len() == SLOTS {
            return None;
        }
        let (latest, _) = self.current_epoch();
        let number = latest.checked_add(1)?.checked_add(skipped)?;
        let mut next = self.clone();
        next.generation = self.generation.checked_add(1)?;
        next.epochs.push(Epoch::new(number, Key32::random()));
        Some(next)
    }

    /// Returns the next generation of the keyring, with the key of the current epoch only: the end
    /// of a rotation. A record that is still sealed in an earlier epoch can never be opened again.
    pub fn without_old_epochs(&self) -> Self {
        let mut next = self.next_generation();
        next.epochs.drain(..self.epochs.len() - 1);
        next
    }

    /// The same keys with the next generation.
    pub(crate) fn next_generation(&self) -> Self {
        let mut next = self.clone();
        next.generation = self.generation.saturating_add(1);
        next
    }

    /// Reports whether the keyring also contains keys of earlier epochs, because a rotation is in
    /// progress or was interrupted.
    pub fn has_old_epochs(&self) -> bool {
        self.epochs.len() > 1
    }

    /// Returns the generation of the keyring, which starts at 1 and grows by one with each change.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the generation of a sealed keyring without opening it; `None` if the bytes do not
    /// have the length of a sealed keyring.
    ///
    /// The generation is not authenticated. Use it only to notice a change.
    pub fn generation_of(sealed: &[u8]) -> Option<u64> {
        if sealed.len() != KEYRING_LEN {
            return None;
        }
        sealed.get(4..).and_then(|rest| rest.first_chunk()).map(|generation| u64::from_be_bytes(*generation))
    }

    /// Returns the row key of an id: its HMAC-SHA-256 under the name key.
    pub fn row_key(&self, id: &KeyId) -> RowKey {
        let mut row = [0; RowKey::LEN];
        wiping_stack::<MESSAGE_STACK_LEN, _>(|| self.name_key.mac.sign(id.as_str().as_bytes(), &mut row));
        RowKey::from_bytes(row)
    }

    /// Returns the random id of the store, to which every record is bound. It never changes, and
    /// all copies of the store have it in common.
    pub fn store_id(&self) -> &[u8] {
        &self.store_id
    }

    pub(crate) fn epoch(&self, number: u32) -> Option<&ReadyKey> {
        self.epochs.iter().find(|epoch| epoch.number == number).map(|epoch| &epoch.sealer)
    }

    pub(crate) fn current_epoch(&self) -> (u32, &ReadyKey) {
        let epoch = self.epochs.last().expect("a keyring has an epoch");
        (epoch.number, &epoch.sealer)
    }

    /// Seals the keyring under a root secret and returns [`KEYRING_LEN`] bytes. With a passphrase,
    /// this takes the time and memory of Argon2id.
    ///
    /// # Errors
    /// [`KeyringError`] if the passphrase is empty or too long, if memory runs out or if the
    /// provider fails.
    pub fn seal_with(&self, root: &RootSecret) -> Result<Vec<u8>, KeyringError> {
        Ok(self.seal_under(&root.new_key()?))
    }

    /// Seals the keyring under the key of a root secret and returns [`KEYRING_LEN`] bytes.
    ///
    /// Unlike [`seal_with`](Self::seal_with), it is fast even with a passphrase or a provider.
    pub fn seal_under(&self, root: &RootKey) -> Vec<u8> {
        let mut bytes = header(self.generation, &root.hint);
        let sealed = cobblestone::seal(root.key.expose(), &context(&bytes), &self.plaintext());
        bytes.extend_from_slice(&sealed);
        let checksum = digest::digest(&digest::SHA256, &bytes);
        bytes.extend_from_slice(checksum.as_ref());
        bytes
    }

    /// Opens a sealed keyring. With a passphrase, this takes the time and memory of Argon2id.
    ///
    /// # Errors
    /// [`KeyringError`]. A checksum distinguishes a damaged keyring from a wrong root secret,
    /// before any secret is used.
    pub fn open_with(root: &RootSecret, sealed: &[u8]) -> Result<Self, KeyringError> {
        Self::open_keeping_key(root, None, sealed).map(|(keyring, _)| keyring)
    }

    /// Reports whether a keyring was sealed with the same salt or reference as this key, so that
    /// [`open_keeping_key`](Self::open_keeping_key) is fast with it.
    pub fn is_sealed_under(sealed: &[u8], root_key: &RootKey) -> bool {
        let header = sealed.get(..HEADER_LEN).and_then(|header| parse_header(header).ok());
        header.is_some_and(|(_, hint)| hint == root_key.hint)
    }

    /// Opens a sealed keyring and also returns the key that the root secret has for it.
    ///
    /// `known` is such a key from an earlier call. If it has the same salt or reference as the
    /// keyring, it is used again, and neither Argon2id nor the provider is called.
    ///
    /// # Errors
    /// Those of [`open_with`](Self::open_with).
    pub fn open_keeping_key(
        root: &RootSecret,
        known: Option<&RootKey>,
        sealed: &[u8],
    ) -> Result<(Self, RootKey), KeyringError> {
        let (body, checksum) = sealed.split_last_chunk::<CHECKSUM_LEN>().ok_or(KeyringError::Damaged)?;
        let intact = digest::digest(&digest::SHA256, body).as_ref() == checksum;
        if sealed.len() != KEYRING_LEN || !intact {
            return Err(KeyringError::Damaged);
        }
        let (header, sealed) = body.split_at(HEADER_LEN);
        let (generation, hint) = parse_header(header)?;
        let root_key = match known {
            Some(known) if known.hint == hint => known.clone(),
            _ => root.key_for(hint)?,
        };
        let plaintext = cobblestone::open(root_key.key.expose(), &context(header), sealed).map_err(|e| match e {
            Unopened::WrongKey => KeyringError::WrongRoot,
            Unopened::Damaged => KeyringError::Damaged,
        })?;
        let keyring = parse_plaintext(generation, &plaintext).ok_or(KeyringError::Damaged)?;
        Ok((keyring, root_key))
    }

    fn plaintext(&self) -> Zeroizing<Vec<u8>> {
        let mut plaintext = Zeroizing::new(Vec::with_capacity(PLAINTEXT_LEN));
        plaintext.extend_from_slice(&self.store_id);
        plaintext.extend_from_slice(self.name_key.key.expose());
        let count = u32::try_from(self.epochs.len()).expect("there are at most 16 epochs");
        plaintext.extend_from_slice(&count.to_be_bytes());
        for epoch in &self.epochs {
            plaintext.extend_from_slice(&epoch.number.to_be_bytes());
            plaintext.extend_from_slice(epoch.record_key.expose());
        }
        plaintext.resize(PLAINTEXT_LEN, 0);
        plaintext
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, epochs, .. } = self;
        f.debug_struct("Keyring").field("generation", generation).field("epochs", &epochs.len()).finish_non_exhaustive()
    }
}

fn header(generation: u64, hint: &RootHint) -> Vec<u8> {
    let none = Argon2Cost { memory_kib: 0, passes: 0, lanes: 0 };
    let (kind, cost, salt, reference) = match hint {
        RootHint::Bytes => (ROOT_BYTES, none, [0; SALT_LEN], [].as_slice()),
        RootHint::Passphrase { cost, salt } => (ROOT_PASSPHRASE, *cost, *salt, [].as_slice()),
        RootHint::Provider { reference } => (ROOT_PROVIDER, none, [0; SALT_LEN], reference.as_slice()),
    };
    let reference_len = u16::try_from(reference.len()).expect("a reference has at most 512 bytes");
    let mut header = Vec::with_capacity(KEYRING_LEN);
    header.extend_from_slice(&[SUITE, kind, 0, 0]);
    header.extend_from_slice(&generation.to_be_bytes());
    header.extend_from_slice(&cost.memory_kib.to_be_bytes());
    header.extend_from_slice(&cost.passes.to_be_bytes());
    header.extend_from_slice(&cost.lanes.to_be_bytes());
    header.extend_from_slice(&salt);
    header.extend_from_slice(&reference_len.to_be_bytes());
    header.extend_from_slice(reference);
    header.resize(HEADER_LEN, 0);
    header
}

fn parse_header(header: &[u8]) -> Result<(u64, RootHint), KeyringError> {
    let (generation, hint) = read_header(header).ok_or(KeyringError::Damaged)?;
    match hint {
        RootHint::Passphrase { cost, .. } if !cost.is_within_bounds() => Err(KeyringError::CostOutOfBounds),
        // Each header has only one encoding, so the fields that a kind does not use must be zero.
        _ if self::header(generation, &hint) != header => Err(KeyringError::Damaged),
        _ => Ok((generation, hint)),
    }
}

fn read_header(header: &[u8]) -> Option<(u64, RootHint)> {
    let mut fields = Fields(header);
    let [suite, kind, ..] = *fields.array::<4>()?;
    let generation = u64::from_be_bytes(*fields.array()?);
    if suite != SUITE || generation == 0 {
        return None;
    }
    let cost = Argon2Cost {
        memory_kib: u32::from_be_bytes(*fields.array()?),
        passes: u32::from_be_bytes(*fields.array()?),
        lanes: u32::from_be_bytes(*fields.array()?),
    };
    let salt = *fields.array()?;
    let reference_len = u16::from_be_bytes(*fields.array()?);
    let reference = fields.slice(usize::from(reference_len))?.to_vec();
    let hint = match kind {
        ROOT_BYTES => RootHint::Bytes,
        ROOT_PASSPHRASE => RootHint::Passphrase { cost, salt },
        ROOT_PROVIDER => RootHint::Provider { reference },
        _ => return None,
    };
    Some((generation, hint))
}

fn parse_plaintext(generation: u64, plaintext: &[u8]) -> Option<Keyring> {
    let mut fields = Fields(plaintext);
    let store_id = *fields.array()?;
    let name_key = Key32::copy_of(fields.array()?);
    let count = usize::try_from(u32::from_be_bytes(*fields.array()?)).ok()?;
    if plaintext.len() != PLAINTEXT_LEN || !(1..=SLOTS).contains(&count) {
        return None;
    }
    let mut epochs = Vec::with_capacity(count);
    for _ in 0..count {
        let number = u32::from_be_bytes(*fields.array()?);
        epochs.push(Epoch::new(number, Key32::copy_of(fields.array()?)));
    }
    let ascending = epochs.is_sorted_by(|earlier, later| earlier.number < later.number);
    let from_1 = epochs.first().is_some_and(|first| first.number > 0);
    if !from_1 || !ascending || !fields.is_padding() {
        return None;
    }
    Some(Keyring { generation, store_id, name_key: NameKey::new(name_key), epochs })
}

/// Returns the context of a sealed keyring: the format and the whole header, each after its length.
fn context(header: &[u8]) -> Vec<u8> {
    let mut context = Vec::with_capacity(FORMAT.len() + header.len() + 4);
    for field in [FORMAT, header] {
        let len = u16::try_from(field.len()).expect("the fields of a context are short");
        context.extend_from_slice(&len.to_be_bytes());
        context.extend_from_slice(field);
    }
    context
}

#[cfg(test)]
mod tests {
    use keystead_core::{BoxError, SecretKey};

    use super::*;
    use crate::root::RootProvider;

    fn root() -> RootSecret {
        RootSecret::from_bytes([7; 32])
    }

    fn with_checksum(mut sealed: Vec<u8>) -> Vec<u8> {
        let body = sealed.len() - CHECKSUM_LEN;
        let checksum = digest::digest(&digest::SHA256, &sealed[..body]);
        sealed[body..].copy_from_slice(checksum.as_ref());
        sealed
    }

    #[test]
    fn a_sealed_keyring_opens_again() {
        let keyring = Keyring::generate().next_epoch().unwrap();
        let sealed = keyring.seal_with(&root()).unwrap();
        assert_eq!(sealed.len(), 1286, "as FORMAT.md says");
        assert_eq!(Keyring::generation_of(&sealed), Some(2));
        let opened = Keyring::open_with(&root(), &sealed).unwrap();
        assert_eq!(opened.generation(), 2);
        let id = KeyId::new("alice").unwrap();
        assert_eq!(opened.row_key(&id), keyring.row_key(&id));
        assert_eq!(opened.current_epoch().0, 2);
    }

    #[test]
    fn clones_and_later_generations_share_their_keys() {
        let first = Keyring::generate();
        let second = first.next_epoch().unwrap();
        let third = second.clone().without_old_epochs();
        assert!(Arc::ptr_eq(&first.name_key, &third.name_key));
        assert!(Arc::ptr_eq(&first.epochs[0], &second.epochs[0]));
        assert!(Arc::ptr_eq(&second.epochs[1], &third.epochs[0]));
    }

    #[test]
    fn every_flipped_bit_is_damage_and_not_a_wrong_secret() {
        let sealed = Keyring::generate().seal_with(&root()).unwrap();
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1 << bit;
                assert!(matches!(Keyring::open_with(&root(), &flipped), Err(KeyringError::Damaged)), "{at} {bit}");
            }
        }
    }

    #[test]
    fn other_lengths_are_damage() {
        let sealed = Keyring::generate().seal_with(&root()).unwrap();
        for len in [0, 31, 32, HEADER_LEN, sealed.len() - 1] {
            assert!(matches!(Keyring::open_with(&root(), &sealed[..len]), Err(KeyringError::Damaged)), "{len}");
            assert_eq!(Keyring::generation_of(&sealed[..len]), None);
        }
        let longer = with_checksum([sealed, vec![0; 64]].concat());
        assert!(matches!(Keyring::open_with(&root(), &longer), Err(KeyringError::Damaged)));
    }

    #[test]
    fn a_wrong_root_secret_is_told_from_damage() {
        let sealed = Keyring::generate().seal_with(&root()).unwrap();
        let wrong = RootSecret::from_bytes([8; 32]);
        assert!(matches!(Keyring::open_with(&wrong, &sealed), Err(KeyringError::WrongRoot)));
        let passphrase = RootSecret::passphrase("hunter2");
        assert!(matches!(Keyring::open_with(&passphrase, &sealed), Err(KeyringError::OtherKindOfRoot { .. })));
    }

    #[test]
    fn a_passphrase_opens_what_it_sealed_and_another_does_not() {
        let right = RootSecret::passphrase("correct horse");
        let sealed = Keyring::generate().seal_with(&right).unwrap();
        assert!(Keyring::open_with(&right, &sealed).is_ok());
        let wrong = RootSecret::passphrase("correct horse ");
        assert!(matches!(Keyring::open_with(&wrong, &sealed), Err(KeyringError::WrongRoot)));
        let empty = RootSecret::passphrase("");
        assert!(matches!(Keyring::generate().seal_with(&empty), Err(KeyringError::EmptyPassphrase)));
    }

    #[test]
    fn argon2_parameters_out_of_bounds_are_refused_before_they_are_run() {
        let right = RootSecret::passphrase("correct horse");
        let mut sealed = Keyring::generate().seal_with(&right).unwrap();
        sealed[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
        let forged = with_checksum(sealed);
        assert!(matches!(Keyring::open_with(&right, &forged), Err(KeyringError::CostOutOfBounds)));
    }

    #[test]
    fn an_unused_field_that_is_not_zero_is_damage() {
        let mut sealed = Keyring::generate().seal_with(&root()).unwrap();
        sealed[13] = 1;
        assert!(matches!(Keyring::open_with(&root(), &with_checksum(sealed)), Err(KeyringError::Damaged)));
    }

    #[derive(Debug)]
    struct Vault;

    impl RootProvider for Vault {
        fn create(&self) -> Result<(SecretKey, Vec<u8>), BoxError> {
            Ok((SecretKey::new([9; 32])?, b"vault/key/1".to_vec()))
        }

        fn recover(&self, reference: &[u8]) -> Result<SecretKey, BoxError> {
            if reference != b"vault/key/1" {
                return Err("no such key".into());
            }
            Ok(SecretKey::new([9; 32])?)
        }
    }

    #[test]
    fn a_provider_gets_its_reference_back() {
        let root = RootSecret::provider(Arc::new(Vault));
        let sealed = Keyring::generate().seal_with(&root).unwrap();
        assert!(Keyring::open_with(&root, &sealed).is_ok());
    }

    #[test]
    fn a_known_key_is_used_again_only_for_its_own_salt_or_reference() {
        let root = RootSecret::passphrase("correct horse");
        let first = Keyring::generate();
        let root_key = root.new_key().unwrap();
        let sealed = first.seal_under(&root_key);
        let second = first.next_epoch().unwrap().seal_under(&root_key);
        // Another passphrase would do: it is not asked.
        let other = RootSecret::passphrase("battery staple");
        let (opened, kept) = Keyring::open_keeping_key(&other, Some(&root_key), &second).unwrap();
        assert_eq!(opened.generation(), 2);
        assert!(Keyring::open_keeping_key(&other, Some(&kept), &sealed).is_ok());
        let elsewhere = first.seal_with(&root).unwrap();
        let refused = Keyring::open_keeping_key(&other, Some(&root_key), &elsewhere);
        assert!(matches!(refused, Err(KeyringError::WrongRoot)));
        assert!(Keyring::open_keeping_key(&root, Some(&root_key), &elsewhere).is_ok());
        assert_eq!(format!("{root_key:?}"), "RootKey(a passphrase)");
    }

    #[test]
    fn dropping_old_epochs_leaves_the_current_one_alone() {
        let keyring = Keyring::generate().next_epoch().unwrap().next_epoch().unwrap();
        assert!(keyring.has_old_epochs());
        let ended = keyring.without_old_epochs();
        assert!(!ended.has_old_epochs());
        assert_eq!((ended.generation(), ended.current_epoch().0), (4, 3));
        assert_eq!(ended.current_prefix(), [1, 0, 0, 0, 3]);
        assert!(ended.epoch(1).is_none() && ended.epoch(2).is_none());
        let id = KeyId::new("alice").unwrap();
        let key = SecretKey::new([7; 32]).unwrap();
        let record = keyring.seal(&id, &key);
        assert_eq!(ended.open(&record.row, &record.bytes).unwrap(), (id, key));
    }

    #[test]
    fn generations_and_epochs_count_from_1() {
        let mut keyring = Keyring::generate();
        keyring.generation = 0;
        let sealed = keyring.seal_with(&root()).unwrap();
        assert!(matches!(Keyring::open_with(&root(), &sealed), Err(KeyringError::Damaged)));
        let mut keyring = Keyring::generate();
        keyring.epochs[0] = Epoch::new(0, Key32::random());
        let sealed = keyring.seal_with(&root()).unwrap();
        assert!(matches!(Keyring::open_with(&root(), &sealed), Err(KeyringError::Damaged)));
    }

    #[test]
    fn there_are_at_most_16_epochs() {
        let mut keyring = Keyring::generate();
        for _ in 1..SLOTS {
            keyring = keyring.next_epoch().unwrap();
        }
        assert!(keyring.next_epoch().is_none());
        let sealed = keyring.seal_with(&root()).unwrap();
        assert_eq!(Keyring::open_with(&root(), &sealed).unwrap().epochs.len(), SLOTS);
    }
}
