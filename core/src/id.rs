//! [`KeyId`]: the name under which a user's key is stored.

use std::fmt;
use std::str::FromStr;

/// The id of one user's key: 1 to 128 bytes of UTF-8 without control characters.
///
/// Ids are compared byte by byte, without case folding, Unicode normalization or trimming. Every
/// `KeyId` works on every backend.
///
/// An id is personal data, so it has no `Display`, and `Debug` shows the length only:
///
/// ```
/// use keystead_core::KeyId;
///
/// let id = KeyId::new("alice@example.com")?;
/// assert_eq!(id.as_str(), "alice@example.com");
/// assert_eq!(format!("{id:?}"), "KeyId(17 bytes)");
/// # Ok::<(), keystead_core::InvalidKeyId>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(into = "String", try_from = "String")
)]
pub struct KeyId(String);

impl KeyId {
    /// The length of the longest id, in bytes.
    pub const MAX_LEN: usize = 128;

    /// Creates an id from a string.
    ///
    /// # Errors
    /// [`InvalidKeyId`] if the string is empty, is longer than [`KeyId::MAX_LEN`] bytes, or
    /// contains a control character (Unicode category Cc: U+0000 to U+001F and U+007F to U+009F).
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidKeyId> {
        let id = id.into();
        if id.is_empty() {
            return Err(InvalidKeyId::Empty);
        }
        if id.len() > Self::MAX_LEN {
            return Err(InvalidKeyId::TooLong { len: id.len() });
        }
        if let Some((position, _)) = id.char_indices().find(|(_, c)| c.is_control()) {
            return Err(InvalidKeyId::ControlCharacter { position });
        }
        Ok(Self(id))
    }

    /// Returns the text of the id. Keep it out of logs, metrics and error messages.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({} bytes)", self.0.len())
    }
}

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(id: &str) -> Result<Self, InvalidKeyId> {
        Self::new(id)
    }
}

impl TryFrom<&str> for KeyId {
    type Error = InvalidKeyId;

    fn try_from(id: &str) -> Result<Self, InvalidKeyId> {
        Self::new(id)
    }
}

impl TryFrom<String> for KeyId {
    type Error = InvalidKeyId;

    fn try_from(id: String) -> Result<Self, InvalidKeyId> {
        Self::new(id)
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

#[cfg(feature = "uuid")]
impl From<uuid::Uuid> for KeyId {
    /// Returns the lower-case hyphenated form of the UUID (RFC 9562).
    fn from(id: uuid::Uuid) -> Self {
        Self(id.hyphenated().to_string())
    }
}

/// The reason why a string is not a valid [`KeyId`]. It never quotes the string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKeyId {
    /// The text is empty.
    #[error("key id is empty: give 1 to {} bytes", KeyId::MAX_LEN)]
    Empty,
    /// The text is longer than [`KeyId::MAX_LEN`] bytes.
    #[error("key id has {len} bytes: give at most {}, for example a UUID or a hash of the long name", KeyId::MAX_LEN)]
    TooLong {
        /// The length of the text in bytes.
        len: usize,
    },
    /// The text contains a control character.
    #[error("key id has a control character at byte {position}: remove it")]
    ControlCharacter {
        /// The byte offset of the first control character.
        position: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_id_is_accepted_and_a_longer_one_is_refused() {
        assert!(KeyId::new("a".repeat(128)).is_ok());
        assert_eq!(KeyId::new("a".repeat(129)), Err(InvalidKeyId::TooLong { len: 129 }));
        assert!(KeyId::new("\u{1F511}".repeat(32)).is_ok());
        assert_eq!(KeyId::new("\u{1F511}".repeat(33)), Err(InvalidKeyId::TooLong { len: 132 }));
    }

    #[test]
    fn control_characters_are_refused_at_any_position() {
        for bad in ["\0", "a\n", "\u{7f}a", "a\u{85}b", "a\u{9f}", "\t"] {
            assert!(matches!(KeyId::new(bad), Err(InvalidKeyId::ControlCharacter { .. })), "{bad:?}");
        }
        assert!(KeyId::new("a\u{a0}b").is_ok());
    }

    #[test]
    fn case_and_composition_matter() {
        assert_ne!(KeyId::new("A").unwrap(), KeyId::new("a").unwrap());
        assert_ne!(KeyId::new("\u{e9}").unwrap(), KeyId::new("e\u{301}").unwrap());
    }

    #[test]
    fn debug_shows_the_length_only() {
        assert_eq!(format!("{:?}", KeyId::new("alice").unwrap()), "KeyId(5 bytes)");
    }

    #[test]
    fn errors_say_what_to_do() {
        let text = |id: &str| KeyId::new(id).unwrap_err().to_string();
        assert_eq!(text(""), "key id is empty: give 1 to 128 bytes");
        assert_eq!(
            text(&"a".repeat(129)),
            "key id has 129 bytes: give at most 128, for example a UUID or a hash of the long name"
        );
        assert_eq!(text("a\n"), "key id has a control character at byte 1: remove it");
    }

    #[cfg(feature = "uuid")]
    #[test]
    fn a_uuid_becomes_its_hyphenated_form() {
        let uuid = uuid::Uuid::from_u128(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8);
        assert_eq!(KeyId::from(uuid).as_str(), "67e55044-10b1-426f-9247-bb680e5fe0c8");
    }

    #[cfg(feature = "serde")]
    #[test]
    fn deserializing_checks_the_id() {
        let id: KeyId = serde_json::from_str("\"bob\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"bob\"");
        assert!(serde_json::from_str::<KeyId>("\"\"").is_err());
    }
}
