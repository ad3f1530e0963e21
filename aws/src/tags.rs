//! [`Tags`]: the tags of what a store creates, checked against the limits that AWS documents.

use std::error::Error as StdError;
use std::fmt;

/// The most tags that a parameter or a secret can have.
const MOST: usize = 50;

/// The longest key of a tag, in characters.
const LONGEST_KEY: usize = 128;

/// The longest value of a tag, in characters.
const LONGEST_VALUE: usize = 256;

/// The prefix of the tags that only AWS sets.
const RESERVED: &str = "aws:";

/// The tags of what a store creates: at most 50 pairs of a key and a value, each key once.
///
/// A key has 1 to 128 characters and a value 0 to 256. Both are made of letters, digits, blanks and
/// `_ . : / = + - @`, and neither begins with `aws:` in any case, because AWS reserves that (AWS
/// General Reference, tag naming limits).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(Vec<(String, String)>);

impl Tags {
    /// Returns no tags.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tag.
    ///
    /// # Errors
    /// [`InvalidTag`] if the key or the value is not one that AWS takes, if the key is there
    /// already, or if there are 50 tags already.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<String>) -> Result<(), InvalidTag> {
        let key = key.into();
        let value = value.into();
        if key.is_empty() || key.chars().count() > LONGEST_KEY || !key.chars().all(is_allowed) {
            return Err(InvalidTag::Key);
        }
        if value.chars().count() > LONGEST_VALUE || !value.chars().all(is_allowed) {
            return Err(InvalidTag::Value);
        }
        if is_reserved(&key) || is_reserved(&value) {
            return Err(InvalidTag::Reserved);
        }
        if self.0.iter().any(|(present, _)| *present == key) {
            return Err(InvalidTag::Repeated);
        }
        if self.0.len() == MOST {
            return Err(InvalidTag::TooMany);
        }
        self.0.push((key, value));
        Ok(())
    }

    /// Reports whether there are no tags.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the keys and values, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

fn is_allowed(character: char) -> bool {
    let is_blank = character.is_whitespace() && !character.is_control();
    character.is_alphabetic() || character.is_numeric() || is_blank || "_.:/=+-@".contains(character)
}

fn is_reserved(text: &str) -> bool {
    text.get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED))
}

/// The reason why a tag is refused. It does not quote the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidTag {
    /// The key is empty, has more than 128 characters, or one that AWS does not take.
    Key,
    /// The value has more than 256 characters, or one that AWS does not take.
    Value,
    /// The key or the value begins with `aws:`.
    Reserved,
    /// There is a tag with this key already.
    Repeated,
    /// There are 50 tags already.
    TooMany,
}

impl fmt::Display for InvalidTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => {
                "a tag's key is empty, too long or has a character that AWS does not take: give 1 to 128 letters, \
                 digits, blanks or _ . : / = + - @"
            }
            Self::Value => {
                "a tag's value is too long or has a character that AWS does not take: give at most 256 letters, \
                 digits, blanks or _ . : / = + - @"
            }
            Self::Reserved => "a tag begins with aws:, which AWS reserves: begin it with another word",
            Self::Repeated => "two tags have the same key: give each key once",
            Self::TooMany => "there are more than 50 tags, which AWS does not take: remove some",
        })
    }
}

impl StdError for InvalidTag {}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(key: &str, value: &str) -> Result<(), InvalidTag> {
        Tags::new().insert(key, value)
    }

    #[test]
    fn tags_within_the_limits_are_accepted() {
        for (key, value) in [
            ("owner", "privacy@example.com"),
            ("cost center", ""),
            ("k:/=+-@._", "v:/=+-@._"),
            ("B\u{fc}ro", "\u{6771}\u{4eac} 7"),
            (&"k".repeat(128), &"v".repeat(256)),
            ("aws", "awsome"),
        ] {
            assert_eq!(insert(key, value), Ok(()), "{key}");
        }
    }

    #[test]
    fn tags_beyond_the_limits_are_refused() {
        for (key, value, why) in [
            ("", "v", InvalidTag::Key),
            (&"k".repeat(129), "v", InvalidTag::Key),
            ("k\n", "v", InvalidTag::Key),
            ("k%", "v", InvalidTag::Key),
            ("k", &"v".repeat(257), InvalidTag::Value),
            ("k", "v\t", InvalidTag::Value),
            ("k", "a,b", InvalidTag::Value),
            ("aws:owner", "v", InvalidTag::Reserved),
            ("AWS:owner", "v", InvalidTag::Reserved),
            ("k", "aws:v", InvalidTag::Reserved),
        ] {
            assert_eq!(insert(key, value), Err(why), "{key}");
        }
    }

    #[test]
    fn each_key_is_given_once_and_there_are_at_most_50() {
        let mut tags = Tags::new();
        for index in 0..50 {
            tags.insert(format!("key-{index}"), "v").unwrap();
        }
        assert_eq!(tags.insert("key-0", "w"), Err(InvalidTag::Repeated));
        assert_eq!(tags.insert("key-50", "v"), Err(InvalidTag::TooMany));
        assert_eq!(tags.iter().count(), 50);
    }
}
