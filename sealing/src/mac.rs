//! [`MacKey`]: HMAC under a key that stays at one place in memory.

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use crate::bytes::{SETUP_STACK_LEN, wiping_stack};

const INNER_PAD: u8 = 0x36;
const OUTER_PAD: u8 = 0x5c;

/// An HMAC key (RFC 2104) that is prepared for many messages. Wiped when dropped.
///
/// It consists of the two states of the hash function after the padded key, which are as secret as
/// the key. `aws_lc_rs::hmac::Key` contains these states by value, so each move and each use leaves
/// a copy behind. A [`digest::Context`] points to a state that aws-lc allocates once and wipes when
/// it is freed.
pub(crate) struct MacKey {
    inner: digest::Context,
    outer: digest::Context,
}

impl MacKey {
    /// Prepares a key for HMAC with a hash function whose blocks are at least as long as the key.
    pub(crate) fn new(algorithm: &'static digest::Algorithm, key: &[u8; 32]) -> Self {
        // The hash function leaves copies of the padded key on the stack.
        wiping_stack::<SETUP_STACK_LEN, _>(|| Self {
            inner: state_after_pad(algorithm, key, INNER_PAD),
            outer: state_after_pad(algorithm, key, OUTER_PAD),
        })
    }

    /// Writes the HMAC of `data` to `tag`, which must have the length of the hash.
    ///
    /// Copies of the tag remain on the stack. If the tag is secret, call this in [`wiping_stack`].
    pub(crate) fn sign(&self, data: &[u8], tag: &mut [u8]) {
        let mut inner = self.inner.clone();
        inner.update(data);
        let mut outer = self.outer.clone();
        outer.update(inner.finish().as_ref());
        tag.copy_from_slice(outer.finish().as_ref());
    }
}

fn state_after_pad(algorithm: &'static digest::Algorithm, key: &[u8; 32], pad: u8) -> digest::Context {
    let mut block = Zeroizing::new([pad; digest::MAX_BLOCK_LEN]);
    for (byte, key_byte) in block.iter_mut().zip(key) {
        *byte ^= key_byte;
    }
    let mut state = digest::Context::new(algorithm);
    state.update(&block[..algorithm.block_len()]);
    state
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hmac;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tags_are_those_of_aws_lc(key: [u8; 32], data in proptest::collection::vec(any::<u8>(), 0..300)) {
            for (hash, algorithm) in [(&digest::SHA256, hmac::HMAC_SHA256), (&digest::SHA512, hmac::HMAC_SHA512)] {
                let expected = hmac::sign(&hmac::Key::new(algorithm, &key), &data);
                let mac = MacKey::new(hash, &key);
                let mut tag = vec![0; hash.output_len()];
                for _ in 0..2 {
                    mac.sign(&data, &mut tag);
                    prop_assert_eq!(tag.as_slice(), expected.as_ref());
                }
            }
        }
    }
}
