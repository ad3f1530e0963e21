//! The people whose keys are kept: ids as applications have them, and keys of 32 bytes. The same in every run.

use keystead_core::{KeyId, SecretKey};

/// Half of the people are known by an e-mail address, half by a UUID.
pub fn name(number: usize) -> String {
    let [a, b] = [scramble(number as u64), scramble(!number as u64)];
    if number.is_multiple_of(2) {
        let first = ["maria", "jan", "fatima", "oluwaseun", "li", "anna-lena", "giovanni", "priya"][a as usize % 8];
        let host = ["example.com", "mail.example.org", "post.example.net", "students.example.edu"][b as usize % 4];
        format!("{first}.{number}@{host}")
    } else {
        let (low, high) = (a & 0xFFFF_FFFF_FFFF, b);
        format!("{:08x}-{:04x}-4{:03x}-a{:03x}-{low:012x}", number, high >> 48, high & 0xFFF, high >> 12 & 0xFFF)
    }
}

/// The id of a person.
pub fn id(number: usize) -> KeyId {
    KeyId::new(name(number)).expect("the name is a valid id")
}

/// A person's key.
pub fn key(number: usize) -> SecretKey {
    SecretKey::new(key_bytes(number)).expect("32 bytes are a valid key")
}

/// The bytes of a person's key.
pub fn key_bytes(number: usize) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (word, place) in bytes.chunks_exact_mut(8).enumerate() {
        place.copy_from_slice(&scramble((number * 4 + word) as u64).to_le_bytes());
    }
    bytes
}

/// Returns `count` of the first `people` people in no particular order, with repetitions.
pub fn visits(people: usize, count: usize) -> Vec<usize> {
    (0..count).map(|visit| (scramble(visit as u64) % people as u64) as usize).collect()
}

/// The first `people` people in no order, each once.
pub fn shuffled(people: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..people).collect();
    for end in (1..people).rev() {
        order.swap(end, (scramble(end as u64) % (end as u64 + 1)) as usize);
    }
    order
}

/// SplitMix64: a bijection that looks random.
fn scramble(number: u64) -> u64 {
    let mut word = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_people_share_an_id_or_a_key() {
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
    fn visits_stay_among_the_people_and_reach_most_of_them() {
        let visited: HashSet<usize> = visits(100, 1000).into_iter().collect();
        assert!(visited.len() > 90 && visited.iter().all(|person| *person < 100));
    }

    #[test]
    fn shuffling_keeps_everybody_once() {
        let mut order = shuffled(1000);
        assert!(!order.is_sorted());
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
    }
}
