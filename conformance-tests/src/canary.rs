//! [`Canary`]: a key and an id that must not turn up in any text, and the search for them in every usual spelling.

use std::error::Error as StdError;

use keystead_core::{Error, KeyId, SecretKey};

use crate::context::{Outcome, ensure};
use crate::harness::random_text;
use crate::sample;

/// So many bytes of a key in a row are a leak; by chance they are found once in 2^48 places.
const WINDOW: usize = 6;

/// A random key, and an id with a random part that no escaping changes.
pub(crate) struct Canary {
    pub(crate) id: KeyId,
    pub(crate) key: SecretKey,
    id_text: String,
}

impl Canary {
    pub(crate) fn new() -> Self {
        let id_text = random_text(20);
        Self { id: sample::id(format!("{id_text}@example.com")), key: sample::random_key(32), id_text }
    }

    /// A key of letters, as a careless text rendering would show it.
    pub(crate) fn of_text() -> Self {
        Self { key: sample::key(random_text(32).into_bytes()), ..Self::new() }
    }

    /// Neither the key nor the id is in this text.
    pub(crate) fn not_in(&self, what: &str, text: &str) -> Outcome {
        self.key_not_in(what, text)?;
        let found = spelling_of(self.id_text.as_bytes(), text);
        ensure(found.is_none(), what, "a text without the id", format!("the id as {}", found.unwrap_or_default()))
    }

    /// Neither the key nor the id is in any rendering of this error or of its causes.
    pub(crate) fn not_in_error(&self, error: &Error) -> Outcome {
        self.not_in("Debug and Display of an error", &format!("{error} {error:?} {error:#?}"))?;
        self.not_in("Debug of an error's details", &format!("{:?}", error.details()))?;
        let mut cause = error.source();
        while let Some(e) = cause {
            self.not_in("Debug and Display of an error's cause", &format!("{e} {e:?} {e:#?}"))?;
            cause = e.source();
        }
        Ok(())
    }

    /// The key is not in this text.
    pub(crate) fn key_not_in(&self, what: &str, text: &str) -> Outcome {
        let found = spelling_of(self.key.expose_secret(), text);
        ensure(found.is_none(), what, "a text without key bytes", format!("key bytes as {}", found.unwrap_or_default()))
    }
}

/// The spelling in which a part of the secret stands in a text, if any does. Separators and letter case don't hide it.
fn spelling_of(secret: &[u8], text: &str) -> Option<&'static str> {
    let any_part = |text: &str, spell: &dyn Fn(&[u8]) -> String| {
        secret.windows(WINDOW).any(|part| contains(text.as_bytes(), spell(part).as_bytes()))
    };
    let lower = text.to_lowercase();
    let digits: String = lower.replace("0x", "").chars().filter(char::is_ascii_hexdigit).collect();
    let numbers: Vec<&str> = text.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty()).collect();
    let numbers = format!(",{},", numbers.join(","));
    // Base64 and base32 spell a run of bytes in one of several ways, by where it starts.
    let groups = |size: usize, spell: &dyn Fn(&[u8]) -> String| {
        secret.windows(size).any(|part| contains(text.as_bytes(), spell(part).as_bytes()))
    };
    match () {
        () if secret.windows(WINDOW).any(|part| contains(text.as_bytes(), part)) => Some("raw bytes"),
        () if secret.is_ascii() && any_part(&lower, &|part| String::from_utf8_lossy(part).to_lowercase()) => {
            Some("text")
        }
        () if any_part(text, &|part| part.escape_ascii().to_string()) => Some("escaped bytes"),
        () if any_part(&digits, &|part| join(part, "", |byte| format!("{byte:02x}"))) => Some("hexadecimal"),
        () if any_part(&numbers, &|part| format!(",{},", join(part, ",", |byte| byte.to_string()))) => Some("numbers"),
        () if groups(9, &|part| base64(part, BASE64)) => Some("base64"),
        () if groups(9, &|part| base64(part, BASE64_URL)) => Some("base64url"),
        () if groups(5, &base32) => Some("base32"),
        () => None,
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn join(bytes: &[u8], separator: &str, spell: fn(u8) -> String) -> String {
    bytes.iter().map(|byte| spell(*byte)).collect::<Vec<_>>().join(separator)
}

/// Base32 (RFC 4648) of five bytes.
fn base32(bytes: &[u8]) -> String {
    let bits = bytes.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
    let digit = |shift: usize| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[bits >> shift & 31]);
    [35, 30, 25, 20, 15, 10, 5, 0].map(digit).into_iter().collect()
}

/// Base64 (RFC 4648) of a multiple of three bytes.
fn base64(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut text = String::new();
    for group in bytes.chunks_exact(3) {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        text.extend([18, 12, 6, 0].map(|shift| char::from(alphabet[bits >> shift & 63])));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<&'static str> {
        let secret: Vec<u8> = (0..32).map(|i| 0x9f_u8.wrapping_mul(i + 3)).collect();
        spelling_of(&secret, text)
    }

    #[test]
    fn every_spelling_is_found() {
        let secret: Vec<u8> = (0..32).map(|i| 0x9f_u8.wrapping_mul(i + 3)).collect();
        let hex = join(&secret, "", |byte| format!("{byte:02x}"));
        for text in [
            format!("key {hex}"),
            hex.to_uppercase(),
            join(&secret, " ", |byte| format!("{byte:02x}")),
            join(&secret, ":", |byte| format!("{byte:02X}")),
            join(&secret, ", ", |byte| format!("0x{byte:02x}")),
            format!("{secret:02x?}"),
            format!("{secret:#04x?}"),
        ] {
            assert_eq!(found(&text), Some("hexadecimal"), "{text}");
        }
        assert_eq!(found(&format!("{secret:?}")), Some("numbers"));
        assert_eq!(found(&format!("{:#?}", Some(&secret))), Some("numbers"));
        assert_eq!(found(&join(&secret, " ", |byte| byte.to_string())), Some("numbers"));
        assert_eq!(found(&base64(&secret[1..31], BASE64)), Some("base64"));
        assert_eq!(found(&base32(&secret[2..7])), Some("base32"));
        assert_eq!(found("nothing to see"), None);
        assert_eq!(spelling_of(b"canary12345", "no entry CANARY12345"), Some("text"));
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        assert_eq!(base64(b"foobar", BASE64), "Zm9vYmFy");
        assert_eq!(base32(b"fooba"), "MZXW6YTB");
    }
}
