//! Cobblestone-256: chunked encryption with a key commitment, as specified by C2SP
//! (<https://c2sp.org/chunked-encryption>), with HKDF-Expand-SHA-512 and AES-256-GCM.
//!
//! ```text
//! message key (32) || base nonce (12) || commitment (32)
//!     = HKDF-Expand-SHA-512(input key, label || 0x00 || salt || context)
//! label = "c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM"
//! sealed = salt (24) || commitment (32) || chunks
//! ```
//!
//! A chunk is 16,384 bytes of the message; the last chunk has fewer, possibly none. Each chunk is
//! sealed with AES-256-GCM under the message key, without associated data. Its nonce is the base
//! nonce XOR the chunk's number, big-endian. The commitment is compared in constant time before
//! anything is decrypted, so a sealed message opens under one key only.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::SHA512;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::bytes::{MESSAGE_STACK_LEN, fill_random, wiping_stack};
use crate::mac::MacKey;

/// The number of bytes by which a sealed message of fewer than 16,384 bytes is longer than its
/// plaintext: salt, commitment and one tag.
pub const OVERHEAD: usize = SALT_LEN + COMMITMENT_LEN + TAG_LEN;

const LABEL: &[u8] = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";
const SALT_LEN: usize = 24;
const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 12;
const COMMITMENT_LEN: usize = 32;
const DERIVED_LEN: usize = KEY_LEN + NONCE_LEN + COMMITMENT_LEN;
const TAG_LEN: usize = 16;

/// The length in bytes of the output of SHA-512.
const BLOCK_LEN: usize = 64;
const CHUNK_LEN: usize = 16 * 1024;
const SEALED_CHUNK_LEN: usize = CHUNK_LEN + TAG_LEN;

/// Seals a message under a 32-byte key, with a random salt. [`open`] needs the same context.
///
/// # Panics
/// If the operating system's random generator fails.
pub fn seal(key: &[u8; KEY_LEN], context: &[u8], message: &[u8]) -> Vec<u8> {
    ReadyKey::new(key).seal(context, message)
}

/// Opens a message that [`seal`] has sealed.
///
/// # Errors
/// - [`Unopened::WrongKey`] if the commitment does not match: the key or the context is another
///   one, or the salt or the commitment is damaged.
/// - [`Unopened::Damaged`] if the commitment matches and the rest is not what was sealed.
pub fn open(key: &[u8; KEY_LEN], context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unopened> {
    ReadyKey::new(key).open(context, sealed)
}

/// A key that is prepared for sealing and opening many messages.
pub(crate) struct ReadyKey(MacKey);

impl ReadyKey {
    pub(crate) fn new(key: &[u8; KEY_LEN]) -> Self {
        Self(MacKey::new(&SHA512, key))
    }

    pub(crate) fn seal(&self, context: &[u8], message: &[u8]) -> Vec<u8> {
        let mut salt = [0; SALT_LEN];
        fill_random(&mut salt);
        wiping_stack::<MESSAGE_STACK_LEN, _>(|| self.seal_with_salt(context, &salt, message))
    }

    /// Seals a message. Leaves copies of the message key on the stack. A salt must never be used
    /// twice with the same key.
    fn seal_with_salt(&self, context: &[u8], salt: &[u8; SALT_LEN], message: &[u8]) -> Vec<u8> {
        let derived = Derived::new(self, context, salt);
        let chunks = message.len() / CHUNK_LEN + 1;
        // The buffer has its final capacity, because growing it would leave copies of the message
        // behind.
        let mut sealed = Vec::with_capacity(SALT_LEN + COMMITMENT_LEN + message.len() + chunks * TAG_LEN);
        sealed.extend_from_slice(salt);
        sealed.extend_from_slice(derived.commitment());
        for number in 0..chunks {
            let rest = &message[number * CHUNK_LEN..];
            let chunk = &rest[..rest.len().min(CHUNK_LEN)];
            let start = sealed.len();
            sealed.extend_from_slice(chunk);
            let tag = derived
                .cipher()
                .seal_in_place_separate_tag(derived.nonce(number), Aad::empty(), &mut sealed[start..])
                .expect("a chunk is far below the limits of AES-GCM");
            sealed.extend_from_slice(tag.as_ref());
        }
        sealed
    }

    pub(crate) fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        wiping_stack::<MESSAGE_STACK_LEN, _>(|| self.open_unwiped(context, sealed))
    }

    /// Opens a message. Leaves copies of the message key on the stack.
    fn open_unwiped(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        let (salt, rest) = sealed.split_first_chunk::<SALT_LEN>().ok_or(Unopened::Damaged)?;
        let (commitment, mut chunks) = rest.split_first_chunk::<COMMITMENT_LEN>().ok_or(Unopened::Damaged)?;
        let derived = Derived::new(self, context, salt);
        verify_slices_are_equal(derived.commitment(), commitment).map_err(|_| Unopened::WrongKey)?;
        let cipher = derived.cipher();
        let mut message = Zeroizing::new(Vec::with_capacity(chunks.len()));
        for number in 0.. {
            let (chunk, rest) = chunks.split_at(chunks.len().min(SEALED_CHUNK_LEN));
            let start = message.len();
            message.extend_from_slice(chunk);
            let opened = cipher
                .open_in_place(derived.nonce(number), Aad::empty(), &mut message[start..])
                .map_err(|_| Unopened::Damaged)?
                .len();
            message.truncate(start + opened);
            if chunk.len() < SEALED_CHUNK_LEN {
                break;
            }
            chunks = rest;
        }
        Ok(message)
    }
}

/// The message key, the base nonce and the commitment, in this order.
struct Derived(Zeroizing<[u8; DERIVED_LEN]>);

impl Derived {
    /// Derives the bytes with HKDF-Expand (RFC 5869): T(1) and the beginning of T(2). It is
    /// implemented here, because a library would hash the padded key again for each message.
    fn new(key: &ReadyKey, context: &[u8], salt: &[u8; SALT_LEN]) -> Self {
        let info_len = LABEL.len() + SALT_LEN + context.len();
        // The layout is T(1), then the info, then the number of the block. T(1) is not part of the
        // input of the first block.
        let mut input = Zeroizing::new(vec![0; BLOCK_LEN + info_len + 1]);
        input[BLOCK_LEN..][..LABEL.len()].copy_from_slice(LABEL);
        input[BLOCK_LEN + LABEL.len()..][..SALT_LEN].copy_from_slice(salt);
        input[BLOCK_LEN + LABEL.len() + SALT_LEN..][..context.len()].copy_from_slice(context);
        let mut blocks = Zeroizing::new([[0; BLOCK_LEN]; 2]);
        let [first, second] = &mut *blocks;
        input[BLOCK_LEN + info_len] = 1;
        key.0.sign(&input[BLOCK_LEN..], first);
        input[..BLOCK_LEN].copy_from_slice(first);
        input[BLOCK_LEN + info_len] = 2;
        key.0.sign(&input, second);
        let mut derived = Self(Zeroizing::new([0; DERIVED_LEN]));
        derived.0.copy_from_slice(&blocks.as_flattened()[..DERIVED_LEN]);
        derived
    }

    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.0[..KEY_LEN]).expect("an AES-256 key has 32 bytes"))
    }

    fn nonce(&self, chunk: usize) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&self.0[KEY_LEN..KEY_LEN + NONCE_LEN]);
        for (byte, number) in nonce.iter_mut().rev().zip(chunk.to_be_bytes().iter().rev()) {
            *byte ^= number;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    fn commitment(&self) -> &[u8] {
        &self.0[KEY_LEN + NONCE_LEN..]
    }
}

/// The reason why a sealed message did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unopened {
    /// The commitment does not match. The message was sealed under another key or context, or its
    /// salt or commitment is damaged.
    #[error("the message was sealed under another key or context")]
    WrongKey,
    /// The commitment matches, but the rest of the message is not what was sealed.
    #[error("the sealed message is damaged")]
    Damaged,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    #[test]
    fn a_known_message_seals_to_known_bytes() {
        // Computed with Python's `cryptography` from the specification.
        let key: [u8; 32] = std::array::from_fn(|i| i as u8);
        let salt: [u8; 24] = std::array::from_fn(|i| 0x40 + i as u8);
        let sealed = ReadyKey::new(&key).seal_with_salt(b"context", &salt, b"hello, cobblestone");
        assert_eq!(hex::encode(sealed), KNOWN);
    }

    const KNOWN: &str = concat!(
        "404142434445464748494a4b4c4d4e4f505152535455565776cd36f130dd711a453ffbd5e54ec503700d909c9861040c",
        "c641514017ca400a34e22e7a4f6f142aec8c5f8c4a451a5eb9b8d7cffb227d0133bb2f70157b2d73d5a2",
    );

    #[test]
    fn messages_around_the_chunk_length_open_again() {
        for len in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 2 * CHUNK_LEN, 3 * CHUNK_LEN + 5] {
            let message: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let sealed = seal(&KEY, b"c", &message);
            assert_eq!(sealed.len(), 56 + len + 16 * (len / CHUNK_LEN + 1));
            assert_eq!(*open(&KEY, b"c", &sealed).unwrap(), message, "{len}");
        }
    }

    #[test]
    fn another_key_or_context_is_told_by_the_commitment() {
        let sealed = seal(&KEY, b"c", b"message");
        assert_eq!(open(&[8; 32], b"c", &sealed), Err(Unopened::WrongKey));
        assert_eq!(open(&KEY, b"d", &sealed), Err(Unopened::WrongKey));
    }

    proptest! {
        #[test]
        fn no_flipped_bit_and_no_other_length_opens(
            message in proptest::collection::vec(any::<u8>(), 0..300), at in any::<proptest::sample::Index>(),
            bit in 0..8_u8, more in 1..64_usize,
        ) {
            let sealed = seal(&KEY, b"c", &message);
            let mut flipped = sealed.clone();
            flipped[at.index(sealed.len())] ^= 1 << bit;
            prop_assert!(open(&KEY, b"c", &flipped).is_err());
            prop_assert!(open(&KEY, b"c", &sealed[..at.index(sealed.len())]).is_err());
            let longer = [sealed.as_slice(), &vec![0; more]].concat();
            prop_assert!(open(&KEY, b"c", &longer).is_err());
        }
    }
}
