//! [`NameTemplate`]: the mapping between ids and the names that an engine gives to its entries.

use std::fmt;
use std::str::FromStr;

use crate::KeyId;

const PLACEHOLDER: &str = "%s";
const ESCAPED: &str = "--";

/// A path with one `%s` in place of the user's id, such as `/app/user-keys/%s`.
///
/// A backend uses it to turn ids into the names of an engine's entries and back. The Clojure
/// library `dev.gethop/secret-storage.aws-ssm-ps` names its parameters with such a path, too.
///
/// An id that consists of `A-Z a-z 0-9 _ . -` and does not start with `--` becomes part of the name
/// unchanged. Any other id is written as `--` followed by its bytes, where each byte outside
/// `A-Z a-z 0-9 _ .` is written as `-XX` in upper-case hexadecimal. No two ids have the same name,
/// and the id can be read from the name:
///
/// ```
/// use keystead_core::{KeyId, NameTemplate};
///
/// let template = NameTemplate::new("/app/user-keys/%s")?;
/// let id = KeyId::new("alice@example.com")?;
/// assert_eq!(template.name(&id), "/app/user-keys/--alice-40example.com");
/// assert_eq!(template.id("/app/user-keys/--alice-40example.com"), Some(id));
/// assert_eq!(template.id("/app/other/alice"), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NameTemplate {
    prefix: String,
    suffix: String,
}

impl NameTemplate {
    /// Parses a template. The backend checks the limits of its engine (lengths, levels, reserved
    /// words).
    ///
    /// # Errors
    /// [`InvalidNameTemplate`] if there is not exactly one `%s`, if a segment between slashes is
    /// empty, if a character is not one of `A-Z a-z 0-9 / _ . + = @ -`, or if the `%s` is in the
    /// first segment, where an id could be equal to a word that the engine reserves
    /// ([`new_flat`](Self::new_flat) allows that).
    pub fn new(template: &str) -> Result<Self, InvalidNameTemplate> {
        let parsed = Self::new_flat(template)?;
        if !parsed.prefix.trim_start_matches('/').contains('/') {
            return Err(InvalidNameTemplate::FirstSegmentNotLiteral);
        }
        Ok(parsed)
    }

    /// Parses a template as [`new`](Self::new) does, but allows the `%s` in the first segment, as
    /// in `/%s` and `/app-%s`.
    ///
    /// A name can then be equal to a word that the engine reserves, so the backend must check each
    /// name.
    ///
    /// # Errors
    /// The errors of [`new`](Self::new), except for
    /// [`FirstSegmentNotLiteral`](InvalidNameTemplate::FirstSegmentNotLiteral).
    pub fn new_flat(template: &str) -> Result<Self, InvalidNameTemplate> {
        let Some((prefix, suffix)) = template.split_once(PLACEHOLDER) else {
            return Err(InvalidNameTemplate::NoPlaceholder);
        };
        if suffix.contains(PLACEHOLDER) {
            return Err(InvalidNameTemplate::ManyPlaceholders);
        }
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "/_.+=@-".contains(c);
        if !prefix.chars().chain(suffix.chars()).all(is_allowed) {
            return Err(InvalidNameTemplate::Character);
        }
        let relative = template.strip_prefix('/').unwrap_or(template);
        if relative.split('/').any(str::is_empty) {
            return Err(InvalidNameTemplate::EmptySegment);
        }
        Ok(Self { prefix: prefix.to_owned(), suffix: suffix.to_owned() })
    }

    /// Returns the name of `id`: at most [`max_name_len`](Self::max_name_len) bytes of ASCII.
    pub fn name(&self, id: &KeyId) -> String {
        format!("{}{}{}", self.prefix, encode_segment(id), self.suffix)
    }

    /// Returns the id whose [`name`](Self::name) this is, or `None` if no id has this name.
    pub fn id(&self, name: &str) -> Option<KeyId> {
        decode_segment(name.strip_prefix(&self.prefix)?.strip_suffix(&self.suffix)?)
    }

    /// Returns the part of the name before the id. All names of this template begin with it.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the part of the name after the id.
    pub fn suffix(&self) -> &str {
        &self.suffix
    }

    /// Returns the length in bytes of the longest possible name, which belongs to an id whose 128
    /// bytes must all be escaped.
    pub fn max_name_len(&self) -> usize {
        self.prefix.len() + ESCAPED.len() + 3 * KeyId::MAX_LEN + self.suffix.len()
    }
}

impl FromStr for NameTemplate {
    type Err = InvalidNameTemplate;

    /// Parses a template as [`NameTemplate::new`] does.
    fn from_str(template: &str) -> Result<Self, InvalidNameTemplate> {
        Self::new(template)
    }
}

impl fmt::Display for NameTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{PLACEHOLDER}{}", self.prefix, self.suffix)
    }
}

fn encode_segment(id: &KeyId) -> String {
    let id = id.as_str();
    if needs_no_escape(id) {
        return id.to_owned();
    }
    let mut segment = String::with_capacity(ESCAPED.len() + 3 * id.len());
    segment.push_str(ESCAPED);
    for &byte in id.as_bytes() {
        if is_plain(byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("-{byte:02X}"));
        }
    }
    segment
}

fn decode_segment(segment: &str) -> Option<KeyId> {
    let id = match segment.strip_prefix(ESCAPED) {
        None => KeyId::new(segment),
        Some(escaped) => KeyId::new(String::from_utf8(unescape(escaped)?).ok()?),
    };
    // A name that `encode_segment` would not write is rejected: otherwise two names would have the
    // same id.
    id.ok().filter(|id| encode_segment(id) == segment)
}

fn unescape(escaped: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.as_bytes();
    loop {
        rest = match rest {
            [] => return Some(bytes),
            [b'-', high, low, rest @ ..] => {
                bytes.push(16 * hex_digit(*high)? + hex_digit(*low)?);
                rest
            }
            [byte, rest @ ..] if is_plain(*byte) => {
                bytes.push(*byte);
                rest
            }
            _ => return None,
        };
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn needs_no_escape(id: &str) -> bool {
    !id.starts_with(ESCAPED) && id.bytes().all(|byte| is_plain(byte) || byte == b'-')
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.'
}

/// The reason why a string is not a valid [`NameTemplate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidNameTemplate {
    /// There is no `%s`, so all users would share one key.
    #[error("name template has no %s, so all users would share one key: put %s where the id goes")]
    NoPlaceholder,
    /// There is more than one `%s`.
    #[error("name template has more than one %s: leave one, where the id goes")]
    ManyPlaceholders,
    /// A character is not one of `A-Z a-z 0-9 / _ . + = @ -`.
    #[error("name template has a character outside A-Z a-z 0-9 / _ . + = @ -: remove it")]
    Character,
    /// There are two slashes in a row, or the template ends with a slash.
    #[error("name template has an empty segment: remove the double or trailing slash")]
    EmptySegment,
    /// The `%s` is in the first segment, where engines reserve words.
    #[error("name template has %s in its first segment: start with a literal one, as in /app/%s")]
    FirstSegmentNotLiteral,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(id: &str) -> String {
        NameTemplate::new("/k/%s").unwrap().name(&KeyId::new(id).unwrap())
    }

    #[test]
    fn ordinary_ids_are_not_escaped() {
        for id in ["67e55044-10b1-426f-9247-bb680e5fe0c8", "a", "..", "-40", "a-40b", "user_1.x", "-"] {
            assert_eq!(name(id), format!("/k/{id}"));
        }
    }

    #[test]
    fn other_ids_are_escaped() {
        assert_eq!(name("alice@example.com"), "/k/--alice-40example.com");
        assert_eq!(name("--"), "/k/---2D-2D");
        assert_eq!(name("--a"), "/k/---2D-2Da");
        assert_eq!(name("a/b"), "/k/--a-2Fb");
        assert_eq!(name("\u{e9}"), "/k/---C3-A9");
        assert_eq!(name("a:1"), "/k/--a-3A1");
    }

    #[test]
    fn names_that_no_id_has_are_rejected() {
        let template = NameTemplate::new("/k/%s/key").unwrap();
        for segment in
            ["", "--", "--abc", "--a-2fb", "--a-2", "--a-", "--a@b", "a b", "---FF", "---0A", "a/b", "--a-41"]
        {
            assert_eq!(template.id(&format!("/k/{segment}/key")), None, "{segment}");
        }
        assert_eq!(template.id("/k/key"), None);
        assert!(template.id("/k/a/key").is_some());
    }

    #[test]
    fn the_longest_name_has_the_maximum_length() {
        let template = NameTemplate::new("/k/%s").unwrap();
        assert_eq!(template.name(&KeyId::new("/".repeat(128)).unwrap()).len(), template.max_name_len());
    }

    #[test]
    fn unsafe_templates_are_refused() {
        let refusal = |template| NameTemplate::new(template).unwrap_err();
        assert_eq!(refusal("/app/keys"), InvalidNameTemplate::NoPlaceholder);
        assert_eq!(refusal(""), InvalidNameTemplate::NoPlaceholder);
        assert_eq!(refusal("/app/%s/%s"), InvalidNameTemplate::ManyPlaceholders);
        assert_eq!(refusal("/app/%s%s"), InvalidNameTemplate::ManyPlaceholders);
        assert_eq!(refusal("/app/%d/%s"), InvalidNameTemplate::Character);
        assert_eq!(refusal("/a b/%s"), InvalidNameTemplate::Character);
        assert_eq!(refusal("/app//%s"), InvalidNameTemplate::EmptySegment);
        assert_eq!(refusal("//app/%s"), InvalidNameTemplate::EmptySegment);
        assert_eq!(refusal("/app/%s/"), InvalidNameTemplate::EmptySegment);
        assert_eq!(refusal("/%s"), InvalidNameTemplate::FirstSegmentNotLiteral);
        assert_eq!(refusal("%s/x"), InvalidNameTemplate::FirstSegmentNotLiteral);
        assert_eq!(refusal("/a%s/x"), InvalidNameTemplate::FirstSegmentNotLiteral);
        assert_eq!("app/%s.key".parse::<NameTemplate>().unwrap().to_string(), "app/%s.key");
    }

    #[test]
    fn flat_templates_give_each_id_a_different_name() {
        for template in ["/%s", "%s", "/app-%s", "app-%s", "/%s.key", "/app/%s"] {
            let template = NameTemplate::new_flat(template).unwrap();
            let mut names = std::collections::HashSet::new();
            for id in ["a", "--", "--a", "-2D", "a/b", "a-2Fb", "--a-2Fb", "app-a", "a.key", "\u{e9}", "%s"] {
                let id = KeyId::new(id).unwrap();
                let name = template.name(&id);
                assert_eq!(template.id(&name), Some(id), "{template}");
                assert!(names.insert(name), "{template}");
            }
        }
        assert_eq!(NameTemplate::new_flat("/keys"), Err(InvalidNameTemplate::NoPlaceholder));
        assert_eq!(NameTemplate::new_flat("//%s"), Err(InvalidNameTemplate::EmptySegment));
    }
}
