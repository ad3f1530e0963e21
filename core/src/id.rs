//! [`KeyId`]: whose key it is.

use std::error::Error as StdError;
use std::fmt;
use std::str::FromStr;

/// The name of one user's key: 1 to 128 bytes of UTF-8 without control characters.
///
/// Two ids are the same if their bytes are the same: no case folding, no Unicode normalisation, no trimming. Every id
/// that can be constructed works on every backend.
///
/// An id is personal data. There is no `Display`, and `Debug` tells the length only:
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
    /// The longest id, in bytes.
    pub const MAX_LEN: usize = 128;

    /// Checks an id.
    ///
    /// # Errors
    /// [`InvalidKeyId`] if it is empty, longer than [`KeyId::MAX_LEN`] bytes, or holds a control character (Unicode's
    /// category Cc: U+0000 to U+001F and U+007F to U+009F).
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

    /// The id as it was given. Keep it out of logs, metrics and error messages.
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

/// The lower-case hyphenated form (RFC 9562).
#[cfg(feature = "uuid")]
impl From<uuid::Uuid> for KeyId {
    fn from(id: uuid::Uuid) -> Self {
        Self(id.hyphenated().to_string())
    }
}

/// The reason why a text is not a valid [`KeyId`]. It never quotes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidKeyId {
    /// The text is empty.
    Empty,
    /// The text is longer than [`KeyId::MAX_LEN`].
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The text holds a control character.
    ControlCharacter {
        /// The byte offset of the first control character.
        position: usize,
    },
}

impl fmt::Display for InvalidKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "key id is empty: give 1 to {} bytes", KeyId::MAX_LEN),
            Self::TooLong { len } => {
                let max = KeyId::MAX_LEN;
                write!(f, "key id has {len} bytes: give at most {max}, for example a UUID or a hash of the longer name")
            }
            Self::ControlCharacter { position } => {
                write!(f, "key id has a control character at byte {position}: remove it")
            }
        }
    }
}

impl StdError for InvalidKeyId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_id_is_taken_and_one_byte_more_is_not() {
        assert!(KeyId::new("a".repeat(128)).is_ok());
        assert_eq!(KeyId::new("a".repeat(129)), Err(InvalidKeyId::TooLong { len: 129 }));
        assert!(KeyId::new("\u{1F511}".repeat(32)).is_ok());
        assert_eq!(KeyId::new("\u{1F511}".repeat(33)), Err(InvalidKeyId::TooLong { len: 132 }));
    }

    #[test]
    fn control_characters_are_refused_wherever_they_stand() {
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
    fn debug_tells_the_length_only() {
        assert_eq!(format!("{:?}", KeyId::new("alice").unwrap()), "KeyId(5 bytes)");
    }

    #[cfg(feature = "uuid")]
    #[test]
    fn a_uuid_becomes_its_hyphenated_form() {
        let uuid = uuid::Uuid::from_u128(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8);
        assert_eq!(KeyId::from(uuid).as_str(), "67e55044-10b1-426f-9247-bb680e5fe0c8");
    }

    #[cfg(feature = "serde")]
    #[test]
    fn serde_checks_what_it_reads() {
        let id: KeyId = serde_json::from_str("\"bob\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"bob\"");
        assert!(serde_json::from_str::<KeyId>("\"\"").is_err());
    }
}
