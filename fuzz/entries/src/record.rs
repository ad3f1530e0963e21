//! Records: only what FORMAT.md allows opens, bit for bit, and everything else is damaged.

use keystead::{KeyId, SecretKey};
use keystead_sealing::{RECORD_STEP, RecordError, RowKey};

use crate::Seeds;
use crate::format::{known_keyring, seal_record};

/// Opens a sealed record. The input is a row key (32 bytes), then the record as a store keeps it.
pub fn record(input: &[u8]) {
    let Some((row, sealed)) = input.split_first_chunk::<32>() else { return };
    let row = RowKey::from_bytes(*row);
    let keyring = known_keyring();
    let Ok((id, key)) = keyring.open(&row, sealed) else { return };
    let again = keyring.seal(&id, &key);
    assert!(again.row == row && again.bytes.len() == sealed.len(), "a record opened that we never write");
    assert!(keyring.open(&row, &again.bytes).is_ok_and(|opened| opened == (id, key)));
}

/// Checks the parser on the contents of a record, which only a holder of the store's keys can seal.
pub fn record_message(input: &[u8]) {
    let keyring = known_keyring();
    let expected = read(input);
    // The row is that of the record's user, so that no record is refused because of its row.
    let row = id_of(input).map_or(RowKey::from_bytes([0; 32]), |id| keyring.row_key(&id));
    let opened = keyring.open(&row, &seal_record(&row, input));
    assert!(opened == expected.ok_or(RecordError::Damaged), "the parser and FORMAT.md disagree");
    // Under another user's row the record is damaged, whatever it contains.
    let mut other = *row.as_bytes();
    other[31] ^= 1;
    let other = RowKey::from_bytes(other);
    assert!(keyring.open(&other, &seal_record(&other, input)).is_err());
}

/// Reads a message as FORMAT.md defines it: length of the id (1 byte), id, length of the key (2
/// bytes), key, and as few zeros as are needed.
fn read(message: &[u8]) -> Option<(KeyId, SecretKey)> {
    let id = id_of(message)?;
    let at = 1 + id.as_str().len();
    let key_len = usize::from(byte(message, at)) << 8 | usize::from(byte(message, at + 1));
    let used = at + 2 + key_len;
    let zeros = message.iter().skip(used).all(|byte| *byte == 0);
    let key: Vec<u8> = (at + 2..used).map(|at| byte(message, at)).collect();
    (zeros && filled(used) == filled(message.len())).then_some((id, SecretKey::new(key).ok()?))
}

fn id_of(message: &[u8]) -> Option<KeyId> {
    let id = (1..=usize::from(byte(message, 0))).map(|at| byte(message, at)).collect();
    KeyId::new(String::from_utf8(id).ok()?).ok()
}

/// Returns a byte of a message, or the zero that follows it.
fn byte(message: &[u8], at: usize) -> u8 {
    message.get(at).copied().unwrap_or_default()
}

/// Returns the length of the record around a message of this length.
fn filled(len: usize) -> usize {
    (77 + len).next_multiple_of(RECORD_STEP)
}

const SAMPLES: [(&str, &str, usize); 4] = [
    ("one_part", "alice@example.com", 32),
    ("shortest", "a", 1),
    ("fills_its_part", "abcd", 256 - 77 - 7),
    ("two_parts", "\u{1F511} \u{e9}", 300),
];

pub(crate) fn seeds() -> Seeds {
    let seed = |(name, id, len): (&'static str, &str, usize)| {
        let id = KeyId::new(id).ok()?;
        let key = SecretKey::new(vec![5; len]).ok()?;
        let record = known_keyring().seal(&id, &key);
        Some((name, [record.row.as_bytes().as_slice(), &record.bytes].concat()))
    };
    SAMPLES.into_iter().filter_map(seed).collect()
}

pub(crate) fn message_seeds() -> Seeds {
    let message = |id: &str, len: usize| {
        let lens = (u8::try_from(id.len()).unwrap_or(u8::MAX), u16::try_from(len).unwrap_or(u16::MAX));
        [&[lens.0], id.as_bytes(), &lens.1.to_be_bytes(), &vec![5; len]].concat()
    };
    let mut seeds: Seeds = SAMPLES.into_iter().map(|(name, id, len)| (name, message(id, len))).collect();
    let mut padded = message("alice", 32);
    padded.resize(2 * RECORD_STEP - 77, 0);
    seeds.push(("a_part_of_zeros_too_many", padded));
    seeds
}
