//! The outer layers of the sealing format, written by hand from its FORMAT.md with fixed keys, so
//! that the fuzzer's inputs get past the seals and the checksum.

use std::sync::OnceLock;

use aws_lc_rs::digest;
use keystead::file::RootSecret;
use keystead_sealing::{KEYRING_LEN, Keyring, RECORD_STEP, RowKey, cobblestone};

const ROOT: [u8; 32] = [7; 32];
const STORE_ID: [u8; 16] = [1; 16];
const NAME_KEY: [u8; 32] = [2; 32];
const RECORD_KEY: [u8; 32] = [3; 32];
const EPOCH: [u8; 4] = [0, 0, 0, 1];

pub(crate) const HEADER_LEN: usize = 554;
pub(crate) const MESSAGE_LEN: usize = 628;
const CHECKSUM_LEN: usize = 32;

pub(crate) fn root() -> RootSecret {
    RootSecret::from_bytes(ROOT)
}

/// Returns the keyring that contains the fixed keys.
pub(crate) fn known_keyring() -> &'static Keyring {
    static KEYRING: OnceLock<Keyring> = OnceLock::new();
    KEYRING.get_or_init(|| {
        let sealed = seal_keyring(&header(1), &known_message());
        Keyring::open_with(&root(), &sealed).expect("a keyring that is written as FORMAT.md says opens")
    })
}

pub(crate) fn known_message() -> Vec<u8> {
    let mut message = [&STORE_ID[..], &NAME_KEY, &[0, 0, 0, 1], &EPOCH, &RECORD_KEY].concat();
    message.resize(MESSAGE_LEN, 0);
    message
}

/// Returns the header of a keyring with a root secret of 32 bytes.
pub(crate) fn header(generation: u64) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[0] = 1;
    header[4..12].copy_from_slice(&generation.to_be_bytes());
    header
}

pub(crate) fn seal_keyring(header: &[u8; HEADER_LEN], message: &[u8]) -> Vec<u8> {
    let context = fields(&[b"keystead/keyring/v1", header]);
    let mut sealed = [header, cobblestone::seal(&ROOT, &context, message).as_slice()].concat();
    add_checksum(&mut sealed);
    sealed
}

/// Turns any bytes into a keyring of the right length with the right checksum.
pub(crate) fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    let mut keyring = bytes.to_vec();
    keyring.resize(KEYRING_LEN - CHECKSUM_LEN, 0);
    add_checksum(&mut keyring);
    keyring
}

fn add_checksum(keyring: &mut Vec<u8>) {
    let checksum = digest::digest(&digest::SHA256, keyring);
    keyring.extend_from_slice(checksum.as_ref());
}

/// Seals a message in a record of the known keyring. Zeros are added to the message, so that the
/// length of the record is a multiple of 256 bytes.
pub(crate) fn seal_record(row: &RowKey, message: &[u8]) -> Vec<u8> {
    let around = 1 + EPOCH.len() + cobblestone::OVERHEAD;
    let mut message = message.to_vec();
    message.resize((around + message.len()).next_multiple_of(RECORD_STEP) - around, 0);
    let context = fields(&[b"keystead/record/v1", &STORE_ID, &EPOCH, row.as_bytes()]);
    [&[1], &EPOCH[..], &cobblestone::seal(&RECORD_KEY, &context, &message)].concat()
}

fn fields(fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        let len = u16::try_from(field.len()).expect("fields are short");
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}
