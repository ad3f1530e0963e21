//! The shown part of a message does not depend on an id, a name or a value.

use keystead_core::{KeyId, NameTemplate};
use proptest::prelude::*;

use super::{REDACTED, redacted};

/// Messages of the kinds that AWS gives, and some that are worse.
const MESSAGES: [&str; 12] = [
    "User: arn:aws:iam::123456789012:user/{id} is not authorized to perform: ssm:GetParameter on resource: \
     arn:aws:ssm:us-east-1:123456789012:parameter{name} because no identity-based policy allows the action",
    "User: arn:aws:sts::123456789012:assumed-role/{id}/session is not authorized to perform: kms:Decrypt",
    "User: arn:aws:sts::123456789012:assumed-role/app-role/{id} is not authorized to perform: kms:Decrypt",
    "User: arn:aws:sts::123456789012:federated-user/{id} is not authorized, with an explicit deny",
    "1 validation error detected: Value '{value}' at 'value' failed to satisfy constraint: Member must not be null",
    "1 validation errors detected: Value '[{id}, {name}]' at 'names' failed to satisfy constraint",
    "Parameter {name} not found.",
    "The parameter \"{id}\" ({id}; {id}:{value}) can't be read: {id}'s key, {id}.",
    "Invalid keyId alias/{id} of arn:aws:kms:us-east-1:123456789012:alias/{id}",
    "no key for {id}",
    "{id}",
    "{{\"Name\":\"{name}\",\"Value\":\"{value}\"}}",
];

/// An id that has no word in common with any message.
const OTHER: &str = "zzqx7";

fn filled(message: &str, id: &str, template: &NameTemplate, value: &str) -> (String, String) {
    let name = template.name(&KeyId::new(id).unwrap());
    (message.replace("{id}", id).replace("{name}", &name).replace("{value}", value), name)
}

/// Returns the message as a caller sees it. It is redacted twice: without the id, and then with it.
fn shown(message: &str, id: &str, template: &NameTemplate, value: &str) -> String {
    let (message, name) = filled(message, id, template, value);
    redacted(&redacted(&message, &[]), &[id, &name, value])
}

fn ids() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]",
        "[a-zA-Z0-9]{1,3}",
        "[a-zA-Z0-9_.-]{1,24}",
        "[a-z]{1,8}[.][a-z]{1,8}@[a-z]{1,8}[.]com",
        "[a-z']{1,6}( [a-z,.:;()'!-]{1,6}){1,3}",
        "(arn:aws:iam::123456789012:user/|alias/|user/|/)[a-z/]{1,8}",
        "[ -~]{1,40}",
        "\\PC{1,20}",
    ]
    // If an id ends with a blank, the shown part may depend on that blank.
    .prop_filter("an id without blanks at its ends", |id| KeyId::new(id.as_str()).is_ok() && id.trim() == id)
}

fn templates() -> impl Strategy<Value = NameTemplate> {
    prop_oneof![Just("/app/user-keys/%s"), Just("/app/user-%s"), Just("/app/%s/key")]
        .prop_map(|path| NameTemplate::new(path).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn neither_an_id_nor_a_name_is_shown(
        id in ids(), template in templates(), message in prop::sample::select(&MESSAGES[..]),
    ) {
        // AWS gives no role, session or federated user such a name.
        let is_principal = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte));
        if message.contains("aws:sts:") && !is_principal {
            return Ok(());
        }
        let value = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        // An id that is an ordinary word of the message is recognizable because that word is
        // missing, but it is not shown.
        let words = message.replace("{id}", OTHER).replace("{name}", OTHER).replace("{value}", OTHER);
        let is_ordinary = redacted(&redacted(&words, &[]), &[&id]) != redacted(&words, &[]);
        let shown_of_it = shown(message, &id, &template, value);
        if is_ordinary {
            prop_assert!(!contains_id(&shown_of_it, &id), "{shown_of_it}");
        } else {
            prop_assert_eq!(shown_of_it, shown(message, OTHER, &template, value));
        }
    }

    #[test]
    fn no_value_is_shown(
        bytes in prop::collection::vec(any::<u8>(), 1..64), message in prop::sample::select(&MESSAGES[..]),
        template in templates(),
    ) {
        let value = aws_smithy_types::base64::encode(&bytes);
        prop_assert_eq!(shown(message, OTHER, &template, &value), shown(message, OTHER, &template, "/+=="));
    }
}

/// Reports whether a text contains an id of one word as a word.
fn contains_id(text: &str, id: &str) -> bool {
    let text = text.replace(REDACTED, " ");
    let is_edge = |c: char| c.is_whitespace() || ".,:;()'\"!?/".contains(c);
    id.contains(char::is_alphanumeric) && !id.contains(is_edge) && text.split(is_edge).any(|word| word == id)
}
