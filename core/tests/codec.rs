//! The id codec: injective and reversible.
#![allow(clippy::unwrap_used, reason = "test code")]

use keystead_core::{KeyId, NameTemplate};
use proptest::prelude::*;

fn template() -> NameTemplate {
    NameTemplate::new("/app/user-keys/%s").unwrap()
}

/// The id comes back from its name, so no two ids can share one; and the name is made of what every engine takes.
fn comes_back(template: &NameTemplate, id: &KeyId) {
    let name = template.name(id);
    assert_eq!(template.id(&name).as_ref(), Some(id));
    assert!(name.len() <= template.max_name_len());
    assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_.-".contains(&byte)));
    assert_eq!(name.matches('/').count(), 3);
}

#[test]
fn a_million_random_ids_come_back_from_their_names() {
    let template = template();
    // Many that are alike: few characters, all that the escaping is made of among them.
    let alphabet = ["-", "-", "2", "D", "d", "4", "0", "a", "A", ".", "_", "/", "@", "%", " ", "\u{e9}", "\u{1F511}"];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % limit
    };
    for _ in 0..1_000_000 {
        let text: String = (0..1 + below(12)).map(|_| alphabet[below(alphabet.len())]).collect();
        comes_back(&template, &KeyId::new(text).unwrap());
    }
}

proptest! {
    #[test]
    fn any_id_comes_back_from_its_name(text in "[^\\p{Cc}]{1,32}") {
        comes_back(&template(), &KeyId::new(text).unwrap());
    }

    #[test]
    fn a_name_that_has_an_id_is_the_name_of_that_id(segment in "(--)?[-A-F0-9a-f_.@/%]{0,12}") {
        let template = template();
        let name = format!("/app/user-keys/{segment}");
        if let Some(id) = template.id(&name) {
            prop_assert_eq!(template.name(&id), name);
        }
    }
}
