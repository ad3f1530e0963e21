//! Text from others on a terminal, escaped so that it cannot move the cursor or change the reading
//! order.

use std::borrow::Cow;
use std::io::{self, IsTerminal};

use keystead::KeyId;

/// Returns the id as it is written to standard output: unchanged, or escaped on a terminal.
pub(crate) fn id(id: &KeyId) -> Cow<'_, str> {
    if io::stdout().is_terminal() { on_terminal(id.as_str()) } else { Cow::Borrowed(id.as_str()) }
}

/// Returns the text with control characters, line separators and bidirectional controls escaped as
/// `\uXXXX`, as in JSON.
pub(crate) fn on_terminal(text: &str) -> Cow<'_, str> {
    if !text.contains(misleads) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 5);
    for c in text.chars() {
        if misleads(c) {
            shown.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Reports whether a terminal does anything with this character other than show it in its place.
fn misleads(c: char) -> bool {
    // Control characters; line and paragraph separators; Unicode's bidirectional controls (UAX #9,
    // section 2).
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{61c}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_misleads_is_escaped_and_the_rest_is_as_it_was() {
        for text in ["alice@example.com", "ジョン", "عبد", "a\\b", "😀"] {
            assert!(matches!(on_terminal(text), Cow::Borrowed(same) if same == text), "{text}");
        }
        assert_eq!(
            on_terminal("a\u{202e}b\u{2028}c\u{85}d\n\u{1b}[2J\u{7f}"),
            r"a\u202eb\u2028c\u0085d\u000a\u001b[2J\u007f"
        );
        let marks = "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{2029}\u{2066}\u{2067}\u{2068}\u{2069}";
        assert_eq!(on_terminal(marks).len(), 6 * marks.chars().count());
    }

    #[test]
    fn what_is_escaped_in_json_is_the_same_json() {
        let id = "a\u{202e}b\u{85}c\n\"\\";
        let json = serde_json::json!({ "id": id });
        let shown = on_terminal(&json.to_string()).into_owned();
        assert!(!shown.contains('\u{202e}') && !shown.contains('\u{85}'));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), json);
    }
}
