//! Keyrings: only what FORMAT.md allows opens, and Argon2 never runs with parameters out of bounds.

use std::sync::Arc;

use keystead::file::RootSecret;
use keystead::{BoxError, KeyId, SecretKey};
use keystead_sealing::{KEYRING_LEN, Keyring, KeyringError, RootProvider};

use crate::Seeds;
use crate::format::{HEADER_LEN, MESSAGE_LEN, header, known_message, root, seal_keyring, with_checksum};

/// Opens the input as a sealed keyring, first as it is, then with the right length and checksum, so
/// that its header is read.
pub fn keyring(input: &[u8]) {
    if let Ok(opened) = Keyring::open_with(&root(), input) {
        opens_again(&opened);
    }
    let forged = with_checksum(input);
    if let Ok(opened) = Keyring::open_with(&root(), &forged) {
        assert_eq!(Keyring::generation_of(&forged), Some(opened.generation()));
        opens_again(&opened);
    }
    let provided = Keyring::open_with(&RootSecret::provider(Arc::new(Provider)), &forged);
    assert!(
        !matches!(provided, Err(KeyringError::Provider(_))),
        "a provider was given a reference that no provider made"
    );
    // With parameters in bounds Argon2 would run, which may take up to 1 GiB.
    if !is_in_bounds(&forged) {
        let refusal = Keyring::open_with(&RootSecret::passphrase("correct horse"), &forged).err();
        let expected = match forged[..2] {
            [1, 0 | 2] => matches!(refusal, Some(KeyringError::Damaged | KeyringError::OtherKindOfRoot { .. })),
            [1, 1] => matches!(refusal, Some(KeyringError::Damaged | KeyringError::CostOutOfBounds)),
            _ => matches!(refusal, Some(KeyringError::Damaged)),
        };
        assert!(expected, "{refusal:?}");
    }
}

/// Checks the parser of the message inside a keyring's seal, which only a holder of the root secret
/// can write. The input is a generation (8 bytes), then the message.
pub fn keyring_message(input: &[u8]) {
    let Some((generation, message)) = input.split_first_chunk::<8>() else { return };
    let generation = u64::from_be_bytes(*generation);
    let mut filled = message.to_vec();
    filled.resize(MESSAGE_LEN, 0);
    let expected = epochs(&filled).filter(|_| generation > 0);
    let opened = Keyring::open_with(&root(), &seal_keyring(&header(generation), &filled));
    match (opened, expected) {
        (Ok(opened), Some(epochs)) => {
            assert_eq!(opened.generation(), generation);
            assert!(format!("{opened:?}").contains(&format!("epochs: {epochs}")));
            opens_again(&opened);
        }
        (opened, expected) => {
            assert!(matches!(opened, Err(KeyringError::Damaged)) && expected.is_none(), "{opened:?} {expected:?}");
        }
    }
    if message.len() != MESSAGE_LEN {
        let sealed = seal_keyring(&header(generation), message);
        assert!(matches!(Keyring::open_with(&root(), &sealed), Err(KeyringError::Damaged)));
    }
}

fn opens_again(opened: &Keyring) {
    let sealed = opened.seal_with(&root()).expect("a root secret of bytes seals");
    assert_eq!(sealed.len(), KEYRING_LEN);
    let again = Keyring::open_with(&root(), &sealed).expect("what we seal opens");
    let (id, key) = sample();
    let record = opened.seal(&id, &key);
    assert_eq!(again.generation(), opened.generation());
    assert!(again.open(&record.row, &record.bytes).is_ok_and(|opened| opened == (id, key)));
}

fn sample() -> (KeyId, SecretKey) {
    (KeyId::new("alice").expect("an id"), SecretKey::new([5; 32]).expect("a key"))
}

/// Returns the number of epochs of a message, or `None` if FORMAT.md does not allow the message.
fn epochs(message: &[u8]) -> Option<usize> {
    let number = |at: usize| message[at..at + 4].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let count = usize::try_from(number(48)).ok().filter(|count| (1..=16).contains(count))?;
    let numbers: Vec<u64> = (0..count).map(|slot| number(52 + 36 * slot)).collect();
    let ascending = numbers[0] > 0 && numbers.windows(2).all(|pair| pair[0] < pair[1]);
    (ascending && message[52 + 36 * count..].iter().all(|byte| *byte == 0)).then_some(count)
}

/// Reports whether the header names a passphrase with costs within the bounds, so that opening
/// would stretch it.
fn is_in_bounds(keyring: &[u8]) -> bool {
    let number = |at: usize| keyring[at..at + 4].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let memory = number(12);
    let passes = number(16);
    let lanes = number(20);
    let lanes_fit = (1..=16).contains(&lanes) && (8 * lanes..=1 << 20).contains(&memory);
    keyring[..2] == [1, 1] && lanes_fit && (1..=16).contains(&passes)
}

/// A provider that returns its secret for any reference that a provider may have made.
#[derive(Debug)]
struct Provider;

impl RootProvider for Provider {
    fn create(&self) -> Result<(SecretKey, Vec<u8>), BoxError> {
        Err("this provider creates nothing".into())
    }

    fn recover(&self, reference: &[u8]) -> Result<SecretKey, BoxError> {
        if reference.len() > 512 {
            return Err("the reference is too long".into());
        }
        Ok(SecretKey::new([7; 32])?)
    }
}

pub(crate) fn seeds() -> Seeds {
    let bytes = seal_keyring(&header(1), &known_message());
    let mut passphrase = header(1);
    passphrase[1] = 1;
    passphrase[12..24].copy_from_slice(&[0, 0x10, 0, 1, 0, 0, 0, 3, 0, 0, 0, 4]);
    passphrase[24..40].fill(9);
    let mut provider = header(1);
    provider[1] = 2;
    provider[40..42].copy_from_slice(&[0, 11]);
    provider[42..53].copy_from_slice(b"vault/key/1");
    let newer = Keyring::open_with(&root(), &bytes).ok().and_then(|keyring| keyring.next_epoch());
    let newer = newer.and_then(|keyring| keyring.seal_with(&root()).ok());
    vec![
        ("root_of_bytes", bytes),
        ("two_epochs", newer.unwrap_or_default()),
        ("passphrase_with_a_cost_out_of_bounds", seal_keyring(&passphrase, &known_message())),
        ("provider", seal_keyring(&provider, &known_message())),
        ("header_only", header(u64::MAX)[..HEADER_LEN].to_vec()),
    ]
}

pub(crate) fn message_seeds() -> Seeds {
    let input = |message: &[u8]| [&1_u64.to_be_bytes(), message].concat();
    let mut full = known_message();
    full[51] = 16;
    for slot in 0..16_u8 {
        let at = 52 + 36 * usize::from(slot);
        full[at..at + 36].fill(slot + 1);
    }
    let mut backwards = full.clone();
    backwards[52] = 0xff;
    vec![
        ("one_epoch", input(&known_message())),
        ("sixteen_epochs", input(&full)),
        ("epochs_that_do_not_ascend", input(&backwards)),
        ("one_byte_too_many", input(&[known_message(), vec![0]].concat())),
    ]
}
