//! [`Digester`]: the keyed hashes that stand for ids and keys in the journal and in memory.

use hmac::{Hmac, KeyInit, Mac};
use keystead_core::{KeyId, SecretKey};
use sha2::Sha256;

/// The length of the key that digests are made with, in bytes.
pub(crate) const DIGEST_KEY_LEN: usize = 32;

/// A keyed hash: the first 16 bytes of an HMAC-SHA-256.
pub(crate) type Digest = [u8; 16];

/// The checksum of a record: the first 8 bytes of an HMAC-SHA-256.
pub(crate) type Checksum = [u8; 8];

/// Computes digests with one key.
#[derive(Clone)]
pub(crate) struct Digester(Hmac<Sha256>);

impl Digester {
    pub(crate) fn new(key: &[u8; DIGEST_KEY_LEN]) -> Self {
        Self(Hmac::new_from_slice(key).expect("a key may have any length"))
    }

    /// Returns the digest of an id.
    pub(crate) fn id(&self, id: &KeyId) -> Digest {
        self.mac(1, &[id.as_str().as_bytes()])
    }

    /// Returns the digest of a key. It depends on the id, so that a journal does not show which ids
    /// share a key. The bytes of the key that the hash buffers are wiped with it, because both
    /// crates have their feature `zeroize` on.
    pub(crate) fn key(&self, id: &Digest, key: &SecretKey) -> Digest {
        self.mac(2, &[id, key.expose_secret()])
    }

    /// Returns the digest in the id of a probe, which only the runs of this journal can compute.
    /// See `delete_source`.
    pub(crate) fn probe_id(&self, attempt: u8) -> Digest {
        self.mac(3, &[&[attempt]])
    }

    /// Returns the key of a probe.
    pub(crate) fn probe_key(&self, attempt: u8) -> Digest {
        self.mac(4, &[&[attempt]])
    }

    /// Returns the checksum of a record. It depends on the record's offset, so that a record is
    /// valid only where it was written.
    pub(crate) fn checksum(&self, at: u64, body: &[u8]) -> Checksum {
        self.mac(5, &[&at.to_le_bytes(), body])
    }

    fn mac<const LEN: usize>(&self, purpose: u8, parts: &[&[u8]]) -> [u8; LEN] {
        let mut mac = self.0.clone();
        mac.update(&[purpose]);
        parts.iter().for_each(|part| mac.update(part));
        let code = mac.finalize().into_bytes();
        std::array::from_fn(|index| code[index])
    }
}

/// Returns a random key for a [`Digester`].
pub(crate) fn random_digest_key() -> [u8; DIGEST_KEY_LEN] {
    let random = SecretKey::generate(DIGEST_KEY_LEN).expect("32 bytes are a valid key length");
    random.expose_secret().try_into().expect("a generated key has the requested length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_different_things_differ() {
        let digester = Digester::new(&[1; 32]);
        let others = Digester::new(&[2; 32]);
        let alice = KeyId::new("alice").unwrap();
        let bob = KeyId::new("bob").unwrap();
        let key = SecretKey::new(*b"alice").unwrap();
        let mut all = vec![digester.id(&alice), digester.id(&bob), others.id(&alice)];
        all.extend([digester.key(&all[0], &key), digester.key(&all[1], &key)]);
        all.extend([digester.probe_id(0), digester.probe_id(1), digester.probe_key(0)]);
        let distinct: std::collections::HashSet<Digest> = all.iter().copied().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
