//! The keys of the worker, computed from its sealed keyring and the root secret as FORMAT.md says.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::hmac;
use keystead_sealing::cobblestone;
use sha2::block_api::{compress256, compress512};

const HEADER_LEN: usize = 554;
const CHECKSUM_LEN: usize = 32;
const SALT_LEN: usize = 24;
const NONCE_LEN: usize = 12;

/// The hash function of an HMAC key.
#[derive(Clone, Copy)]
pub(crate) enum Hash {
    Sha256,
    Sha512,
}

/// The keys of a keyring.
pub(crate) struct OpenedKeyring {
    store_id: Vec<u8>,
    pub(crate) name_key: [u8; 32],
    /// Numbers and record keys.
    pub(crate) epochs: Vec<(u32, [u8; 32])>,
    /// The key that the keyring itself is encrypted with.
    pub(crate) message_key: [u8; 32],
}

impl OpenedKeyring {
    pub(crate) fn new(root: &[u8; 32], sealed: &[u8]) -> Self {
        let (header, rest) = sealed.split_at(HEADER_LEN);
        let body = &rest[..rest.len() - CHECKSUM_LEN];
        let context = [field(b"keystead/keyring/v1"), field(header)].concat();
        let plaintext = cobblestone::open(root, &context, body).unwrap();
        let count = u32::from_be_bytes(plaintext[48..52].try_into().unwrap()) as usize;
        let epochs = plaintext[52..].chunks_exact(36).take(count);
        Self {
            store_id: plaintext[..16].to_vec(),
            name_key: plaintext[16..48].try_into().unwrap(),
            epochs: epochs
                .map(|epoch| (u32::from_be_bytes(epoch[..4].try_into().unwrap()), epoch[4..].try_into().unwrap()))
                .collect(),
            message_key: message_key(root, &context, body),
        }
    }
}

/// The keys of a record of the first epoch.
pub(crate) struct OpenedRecord {
    pub(crate) message_key: [u8; 32],
    pub(crate) user_key: Vec<u8>,
}

impl OpenedRecord {
    pub(crate) fn new(keyring: &OpenedKeyring, row: &[u8], record: &[u8]) -> Self {
        let (epoch, record_key) = keyring.epochs[0];
        let (prefix, sealed) = record.split_at(5);
        assert_eq!(prefix[1..], epoch.to_be_bytes());
        let context =
            [b"keystead/record/v1", keyring.store_id.as_slice(), &epoch.to_be_bytes(), row].map(field).concat();
        let message = cobblestone::open(&record_key, &context, sealed).unwrap();
        let user_key = &message[1 + usize::from(message[0]) + 2..][..32];
        Self { message_key: message_key(&record_key, &context, sealed), user_key: user_key.to_vec() }
    }
}

/// The key that a message sealed under `key` is encrypted with.
fn message_key(key: &[u8; 32], context: &[u8], sealed: &[u8]) -> [u8; 32] {
    let (salt, rest) = sealed.split_at(SALT_LEN);
    let label = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";
    let info = [label.as_slice(), salt, context, &[1]].concat();
    let block = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, key), &info);
    let (message_key, rest_of_block) = block.as_ref().split_at(32);
    let (_nonce, commitment) = rest_of_block.split_at(NONCE_LEN);
    assert!(rest.starts_with(commitment), "the message key is derived as FORMAT.md says");
    message_key.try_into().unwrap()
}

fn field(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// The key that a passphrase gives for a sealed keyring.
pub(crate) fn stretched_root(passphrase: &[u8], sealed: &[u8]) -> [u8; 32] {
    let number = |at: usize| u32::from_be_bytes(sealed[at..at + 4].try_into().unwrap());
    let params = Params::new(number(12), number(16), number(20), Some(32)).unwrap();
    let mut key = [0; 32];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(passphrase, &sealed[24..40], &mut key).unwrap();
    key
}

/// The root secret of the worker. Each byte is computed, so that no copy of it is in the program.
pub(crate) fn root_bytes() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    for at in 1..=32_u64 {
        let mixed = std::hint::black_box(at).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bytes.push(((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 56) as u8);
    }
    bytes
}

/// The state of the hash function after the first block of HMAC: the key XOR `pad`, as the words
/// lie in memory.
pub(crate) fn state_after_pad(hash: Hash, key: &[u8; 32], pad: u8) -> Vec<u8> {
    match hash {
        Hash::Sha256 => {
            let mut state = SHA256_INITIAL;
            compress256(&mut state, &[padded(key, pad)]);
            state.iter().flat_map(|word| word.to_ne_bytes()).collect()
        }
        Hash::Sha512 => {
            let mut state = SHA512_INITIAL;
            compress512(&mut state, &[padded(key, pad)]);
            state.iter().flat_map(|word| word.to_ne_bytes()).collect()
        }
    }
}

fn padded<const N: usize>(key: &[u8; 32], pad: u8) -> [u8; N] {
    std::array::from_fn(|at| key.get(at).unwrap_or(&0) ^ pad)
}

/// The bytes with the bytes of each word in reverse order, as a hash function loads its input.
pub(crate) fn reversed_words(hash: Hash, bytes: &[u8]) -> Vec<u8> {
    let word_len = match hash {
        Hash::Sha256 => 4,
        Hash::Sha512 => 8,
    };
    bytes.chunks(word_len).flat_map(|word| word.iter().rev().copied()).collect()
}

const SHA256_INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

const SHA512_INITIAL: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];
