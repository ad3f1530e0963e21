//! [`Tags`]: the tags of the parameters or secrets that a store creates.

/// The most tags that a parameter or a secret can have.
const MOST: usize = 50;

/// The longest key of a tag, in characters.
const LONGEST_KEY: usize = 128;

/// The longest value of a tag, in characters.
const LONGEST_VALUE: usize = 256;

/// The prefix of the tags that only AWS sets.
const RESERVED: &str = "aws:";

/// The tags of each parameter or secret that a store creates.
///
/// AWS accepts at most 50 tags, each key once. A key has 1 to 128 characters and a value 0 to 256.
/// Both consist of letters, digits, blanks and `_ . : / = + - @`, and neither begins with `aws:` in
/// any case, because AWS reserves that prefix (AWS General Reference, tag naming limits).
/// [`check`](Self::check) reports whether these tags are within the limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(Vec<(String, String)>);

impl Tags {
    /// Creates an empty list of tags.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tag. It is not checked yet.
    pub fn add(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.push((key.into(), value.into()));
    }

    /// Checks the tags against AWS's limits.
    ///
    /// # Errors
    /// The reason why AWS would refuse a tag, for the first such tag.
    pub fn check(&self) -> Result<(), InvalidTag> {
        self.0.iter().enumerate().try_for_each(|(index, tag)| check_tag(tag, self.0.get(..index).unwrap_or_default()))
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

/// Checks a tag that follows the tags in `before`.
fn check_tag((key, value): &(String, String), before: &[(String, String)]) -> Result<(), InvalidTag> {
    if key.is_empty() || key.chars().count() > LONGEST_KEY || !key.chars().all(is_allowed) {
        return Err(InvalidTag::Key);
    }
    if value.chars().count() > LONGEST_VALUE || !value.chars().all(is_allowed) {
        return Err(InvalidTag::Value);
    }
    if is_reserved(key) || is_reserved(value) {
        return Err(InvalidTag::Reserved);
    }
    if before.iter().any(|(present, _)| present == key) {
        return Err(InvalidTag::Repeated);
    }
    if before.len() == MOST { Err(InvalidTag::TooMany) } else { Ok(()) }
}

fn is_allowed(character: char) -> bool {
    let is_blank = character.is_whitespace() && !character.is_control();
    character.is_alphabetic() || character.is_numeric() || is_blank || "_.:/=+-@".contains(character)
}

fn is_reserved(text: &str) -> bool {
    text.get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED))
}

/// The reason why a tag is refused. It does not quote the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTag {
    /// The key is empty, has more than 128 characters, or contains a character that AWS refuses.
    #[error(
        "a tag's key is empty, too long or contains a character that AWS does not accept: use 1 to 128 letters, \
         digits, blanks or _ . : / = + - @"
    )]
    Key,
    /// The value has more than 256 characters, or contains a character that AWS refuses.
    #[error(
        "a tag's value is too long or contains a character that AWS does not accept: use at most 256 letters, digits, \
         blanks or _ . : / = + - @"
    )]
    Value,
    /// The key or the value begins with `aws:`.
    #[error("a tag begins with aws:, which AWS reserves: begin it with another word")]
    Reserved,
    /// Two tags have the same key.
    #[error("two tags have the same key: set each key once")]
    Repeated,
    /// There are more than 50 tags.
    #[error("there are more than 50 tags, which AWS does not accept: remove some")]
    TooMany,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, value: &str) -> Result<(), InvalidTag> {
        let mut tags = Tags::new();
        tags.add(key, value);
        tags.check()
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
            assert_eq!(check(key, value), Ok(()), "{key}");
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
            assert_eq!(check(key, value), Err(why), "{key}");
        }
    }

    #[test]
    fn each_key_is_given_once_and_there_are_at_most_50() {
        let mut tags = Tags::new();
        for index in 0..50 {
            tags.add(format!("key-{index}"), "v");
        }
        assert_eq!(tags.check(), Ok(()));
        assert_eq!(tags.iter().count(), 50);
        for (key, why) in [("key-0", InvalidTag::Repeated), ("key-50", InvalidTag::TooMany)] {
            let mut more = tags.clone();
            more.add(key, "v");
            assert_eq!(more.check(), Err(why), "{key}");
        }
    }
}
