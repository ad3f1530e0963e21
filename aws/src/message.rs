//! The redaction of AWS's messages, which quote ARNs, names (and therefore ids) and values.

mod arn;
#[cfg(test)]
mod properties;

use std::borrow::Cow;

/// The length of the longest word that is kept, in characters.
const LONGEST_WORD: usize = 24;

/// The number of digits of the longest number that is kept.
const LONGEST_NUMBER: usize = 4;

/// The punctuation marks that may surround a word.
const PUNCTUATION: [char; 10] = ['.', ',', ':', ';', '(', ')', '\'', '"', '!', '?'];

/// The largest number of marks before a word that is kept. More of them may be a text of their own.
const MOST_MARKS: usize = 1;

pub(crate) const REDACTED: &str = "<redacted>";

/// The sentences that AWS always gives word for word. They quote nothing, so they are kept even if
/// an id is one of their words.
const FIXED_SENTENCES: [&str; 8] = [
    "A resource with the ID you requested already exists.",
    "Rate exceeded",
    "Secrets Manager can't find the specified secret value for staging label: AWSCURRENT",
    "Secrets Manager can't find the specified secret.",
    "The security token included in the request is expired",
    "The security token included in the request is invalid.",
    "You can't create this secret because a secret with this name is already scheduled for deletion.",
    "You can't perform this operation on the secret because it was marked for deletion.",
];

/// Returns the message with everything but plain words replaced. This is an allow-list, because no
/// list of what a message might quote is complete. ARNs of principals and of KMS keys are kept as
/// [`arn::shown`] describes.
///
/// Texts that the caller knows to be sensitive, such as an id, are replaced even if they are plain
/// words. Only whole words count: the id `a` does not hide `can't`, but it hides `'a'`, `a's` and
/// `user/a`.
pub(crate) fn redacted(message: &str, sensitive: &[&str]) -> String {
    if FIXED_SENTENCES.contains(&message) {
        return message.to_owned();
    }
    let sensitive = words_of(sensitive);
    let mut words: Vec<Cow<'_, str>> = Vec::new();
    for word in message.split_whitespace() {
        let kept = kept(word, &sensitive);
        // A text with blanks is several words, and is replaced as one.
        if kept != REDACTED || words.last().is_none_or(|last| !last.ends_with(REDACTED)) {
            words.push(kept);
        }
    }
    words.join(" ")
}

/// Returns the word, the part of it that may be shown, or [`REDACTED`].
fn kept<'a>(word: &'a str, sensitive: &[&str]) -> Cow<'a, str> {
    let core = word.trim_matches(PUNCTUATION);
    if let Some(shown) = arn::shown(core) {
        return match sensitive.iter().any(|text| arn::contains(&shown, text)) {
            true => REDACTED.into(),
            false if shown == core => word.into(),
            false => shown.into(),
        };
    }
    let marks = word.len() - word.trim_start_matches(PUNCTUATION).len();
    let is_plain = is_plain(core) && marks <= MOST_MARKS;
    match is_plain && !sensitive.iter().any(|text| contains_word(word, text)) {
        true => word.into(),
        false => REDACTED.into(),
    }
}

/// Returns the words to look for. A message is examined word by word, so a text with blanks is
/// found by each of its words, with and without the marks around it. A word of a message that
/// contains neither a letter nor a digit is replaced in any case.
fn words_of<'a>(sensitive: &[&'a str]) -> Vec<&'a str> {
    let words = sensitive.iter().flat_map(|text| text.split_whitespace());
    let words = words.flat_map(|word| [word, word.trim_matches(PUNCTUATION)]);
    words.filter(|word| word.contains(char::is_alphanumeric)).collect()
}

/// Reports whether a text contains this word with a word boundary on either side. There is no
/// boundary between letters or digits, nor after the apostrophe of `can't`.
fn contains_word(text: &str, word: &str) -> bool {
    text.char_indices().any(|(at, _)| {
        let (Some(before), Some(rest)) = (text.get(..at), text.get(at..)) else { return false };
        rest.strip_prefix(word).is_some_and(|after| begins_after(before, word) && ends_before(word, after))
    })
}

fn begins_after(before: &str, word: &str) -> bool {
    let ends_with_letter = |text: &str| text.ends_with(char::is_alphanumeric);
    let is_in_a_word = ends_with_letter(before) || before.strip_suffix('\'').is_some_and(ends_with_letter);
    !(word.starts_with(char::is_alphanumeric) && is_in_a_word)
}

fn ends_before(word: &str, after: &str) -> bool {
    !(word.ends_with(char::is_alphanumeric) && after.starts_with(char::is_alphanumeric))
}

/// Reports whether this is a word of letters, a short number, or several of these joined as in
/// `ssm:GetParameter` and `don't`.
fn is_plain(core: &str) -> bool {
    core.split([':', '-', '\'', '(']).all(|part| {
        let letters = part.bytes().all(|byte| byte.is_ascii_alphabetic()) && part.len() <= LONGEST_WORD;
        let digits = part.bytes().all(|byte| byte.is_ascii_digit()) && part.len() <= LONGEST_NUMBER;
        !part.is_empty() && (letters || digits)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENIED: &str = "User: arn:aws:sts::123456789012:assumed-role/app-role/i-0abc is not authorized to perform: \
                          ssm:GetParameter on resource: arn:aws:ssm:us-east-1:123456789012:parameter/app/alice \
                          because no identity-based policy allows the ssm:GetParameter action";

    #[test]
    fn words_and_the_principal_are_kept_and_names_are_not() {
        assert_eq!(
            redacted(DENIED, &["alice", "/app/alice"]),
            "User: arn:aws:sts::123456789012:assumed-role/app-role/<redacted> is not authorized to perform: \
             ssm:GetParameter on resource: <redacted> because no identity-based policy allows the ssm:GetParameter \
             action"
        );
    }

    #[test]
    fn what_was_redacted_once_stays_as_it_is() {
        let once = redacted(DENIED, &[]);
        assert_eq!(redacted(&once, &["alice"]), once);
    }

    #[test]
    fn an_id_that_reads_like_a_word_is_replaced_where_the_caller_knows_it() {
        for (message, kept) in [
            ("no key for alice.", "no key for <redacted>"),
            ("no key for 'alice' here", "no key for <redacted> here"),
            ("alice's key is gone", "<redacted> key is gone"),
            ("no key for user-alice", "no key for <redacted>"),
            ("no key for user:alice", "no key for <redacted>"),
        ] {
            assert_eq!(redacted(message, &["alice"]), kept);
        }
    }

    #[test]
    fn an_id_with_blanks_is_replaced_word_by_word() {
        assert_eq!(redacted("no key for 'Alice Smith' here", &["Alice Smith"]), "no key for <redacted> here");
        assert_eq!(redacted("no key for Alice / Smith.", &["Alice / Smith"]), "no key for <redacted>");
    }

    #[test]
    fn a_short_id_hides_no_part_of_a_word() {
        let message = "You can't do that: the policy of the role doesn't allow it";
        for letter in 'a'..='z' {
            assert_eq!(redacted(message, &[&letter.to_string()]), message, "{letter}");
        }
        assert_eq!(redacted("no key for t, which can't be", &["t"]), "no key for <redacted> which can't be");
    }

    #[test]
    fn a_sentence_that_quotes_nothing_is_kept_whatever_the_id_is() {
        let message = "Secrets Manager can't find the specified secret.";
        for id in ["a", "find", "the", "can't find"] {
            assert_eq!(redacted(message, &[id]), message, "{id}");
        }
    }

    #[test]
    fn values_are_replaced_in_any_spelling() {
        for value in [
            "aGVsbG8gd29ybGQ=",
            "68656c6c6f",
            "104,101,108",
            "a1b2",
            "abcdefghijklmnopqrstuvwxyz",
            "a_b",
            "\u{e9}",
            "--",
            "!",
            "''s",
        ] {
            assert_eq!(redacted(&format!("value {value} is wrong"), &[]), "value <redacted> is wrong", "{value}");
        }
        assert_eq!(redacted("value QUJD is wrong", &["alice", "QUJD"]), "value <redacted> is wrong");
    }
}
