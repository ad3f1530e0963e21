//! Users and their keys: ids like those of real applications, and keys of 32 bytes. They are the
//! same in every run.

use keystead_core::{KeyId, SecretKey};

/// Returns the name of a user: half of the users have an e-mail address, half a UUID.
pub fn name(index: usize) -> String {
    let [a, b] = [scramble(index as u64), scramble(!index as u64)];
    if index.is_multiple_of(2) {
        let first = ["maria", "jan", "fatima", "oluwaseun", "li", "anna-lena", "giovanni", "priya"][a as usize % 8];
        let host = ["example.com", "mail.example.org", "post.example.net", "students.example.edu"][b as usize % 4];
        format!("{first}.{index}@{host}")
    } else {
        let low = a & 0xFFFF_FFFF_FFFF;
        format!("{:08x}-{:04x}-4{:03x}-a{:03x}-{low:012x}", index, b >> 48, b & 0xFFF, b >> 12 & 0xFFF)
    }
}

/// Returns the id of a user.
pub fn id(index: usize) -> KeyId {
    KeyId::new(name(index)).expect("the name is a valid id")
}

/// Returns the key of a user.
pub fn key(index: usize) -> SecretKey {
    SecretKey::new(key_bytes(index)).expect("32 bytes are a valid key")
}

/// Returns the bytes of a user's key.
pub fn key_bytes(index: usize) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (word, chunk) in bytes.chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(&scramble((index * 4 + word) as u64).to_le_bytes());
    }
    bytes
}

/// Returns `count` of the first `users` users in random order, with repetitions.
pub fn random_accesses(users: usize, count: usize) -> Vec<usize> {
    (0..count).map(|access| (scramble(access as u64) % users as u64) as usize).collect()
}

/// Returns the first `users` users in random order, each once.
pub fn shuffled(users: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..users).collect();
    for end in (1..users).rev() {
        order.swap(end, (scramble(end as u64) % (end as u64 + 1)) as usize);
    }
    order
}

/// SplitMix64: a bijection that looks random.
fn scramble(value: u64) -> u64 {
    let mut word = value.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_users_share_an_id_or_a_key() {
        let ids: HashSet<KeyId> = (0..20_000).map(id).collect();
        let keys: HashSet<[u8; 32]> = (0..20_000).map(key_bytes).collect();
        assert_eq!((ids.len(), keys.len()), (20_000, 20_000));
    }

    #[test]
    fn names_look_like_addresses_and_uuids() {
        assert!(name(4).ends_with(|c: char| c.is_ascii_lowercase()) && name(4).contains('@'), "{}", name(4));
        let lengths: Vec<usize> = name(5).split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{}", name(5));
    }

    #[test]
    fn random_accesses_reach_most_users_and_nobody_else() {
        let reached: HashSet<usize> = random_accesses(100, 1000).into_iter().collect();
        assert!(reached.len() > 90 && reached.iter().all(|user| *user < 100));
    }

    #[test]
    fn shuffling_keeps_each_user_once() {
        let mut order = shuffled(1000);
        assert!(!order.is_sorted());
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
    }
}
