//! What may be kept of AWS's messages: they quote ARNs (so ids) and values.

/// No word that is kept is longer, in characters.
const LONGEST_WORD: usize = 24;

/// No number that is kept has more digits.
const LONGEST_NUMBER: usize = 4;

pub(crate) const REDACTED: &str = "<redacted>";

/// The message with its plain words, and everything else replaced: an allow-list, as no list of what a message might quote
/// is complete. Words that the caller knows to be sensitive, such as an id, are replaced too.
pub(crate) fn redacted(message: &str, sensitive: &[&str]) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in message.split_whitespace() {
        let is_known = sensitive.iter().any(|text| !text.is_empty() && word.contains(text));
        let kept = if is_known || !is_plain(word) { REDACTED } else { word };
        if kept != REDACTED || words.last() != Some(&REDACTED) {
            words.push(kept);
        }
    }
    words.join(" ")
}

/// A word of letters, a short number, or some of these joined as in `ssm:GetParameter` and `don't`.
fn is_plain(word: &str) -> bool {
    let word = word.trim_matches(['.', ',', ':', ';', '(', ')', '\'', '"', '!', '?']);
    word.split([':', '-', '\'', '(']).all(|part| {
        let letters = part.bytes().all(|byte| byte.is_ascii_alphabetic()) && part.len() <= LONGEST_WORD;
        let digits = part.bytes().all(|byte| byte.is_ascii_digit()) && part.len() <= LONGEST_NUMBER;
        letters || digits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_and_names_are_not() {
        let message = "User: arn:aws:iam::123456789012:user/x is not authorized to perform: ssm:GetParameter on resource: \
                       arn:aws:ssm:us-east-1:123456789012:parameter/app/alice because no identity-based policy allows it";
        let kept = redacted(message, &[]);
        assert_eq!(
            kept,
            "User: <redacted> is not authorized to perform: ssm:GetParameter on resource: <redacted> because no \
             identity-based policy allows it"
        );
    }

    #[test]
    fn an_id_that_reads_like_a_word_is_replaced_where_the_caller_knows_it() {
        assert_eq!(redacted("no key for alice.", &["alice"]), "no key for <redacted>");
    }

    #[test]
    fn values_are_replaced_in_any_spelling() {
        for value in
            ["aGVsbG8gd29ybGQ=", "68656c6c6f", "104,101,108", "a1b2", "abcdefghijklmnopqrstuvwxyz", "a_b", "\u{e9}"]
        {
            assert_eq!(redacted(&format!("value {value} is wrong"), &[]), "value <redacted> is wrong", "{value}");
        }
    }
}
