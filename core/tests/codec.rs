//! The mapping between ids and names: no two ids share a name, and each name leads back to its id.
#![allow(clippy::unwrap_used, reason = "test code")]

use keystead_core::{KeyId, NameTemplate};
use proptest::prelude::*;

fn template() -> NameTemplate {
    NameTemplate::new("/app/user-keys/%s").unwrap()
}

/// Asserts that the id can be read from its name, so that no two ids share one, and that the name
/// contains only characters that every engine accepts.
fn expect_reversible(template: &NameTemplate, id: &KeyId) {
    let name = template.name(id);
    assert_eq!(template.id(&name).as_ref(), Some(id));
    assert!(name.len() <= template.max_name_len());
    assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_.-".contains(&byte)));
    assert_eq!(name.matches('/').count(), 3);
}

#[test]
fn a_million_random_ids_can_be_read_from_their_names() {
    let template = template();
    // Few characters, including all those that the escaping uses, so that many ids are alike.
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
        expect_reversible(&template, &KeyId::new(text).unwrap());
    }
}

proptest! {
    #[test]
    fn any_id_can_be_read_from_its_name(text in "[^\\p{Cc}]{1,32}") {
        expect_reversible(&template(), &KeyId::new(text).unwrap());
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
