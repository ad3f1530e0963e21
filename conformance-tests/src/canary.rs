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

/// The spelling in which a part of the secret stands in a text, if any does.
fn spelling_of(secret: &[u8], text: &str) -> Option<&'static str> {
    let haystack = text.as_bytes();
    let contains = |needle: &[u8]| haystack.windows(needle.len()).any(|window| window == needle);
    let spells = |spell: fn(&[u8]) -> String| secret.windows(WINDOW).any(|part| contains(spell(part).as_bytes()));
    if secret.windows(WINDOW).any(contains) {
        return Some("raw bytes");
    }
    // Base64 spells a run of bytes in one of three ways, by where it starts.
    let base64 = |alphabet: &[u8; 64]| secret.windows(9).any(|part| contains(base64(part, alphabet).as_bytes()));
    match () {
        () if spells(|part| part.escape_ascii().to_string()) => Some("escaped bytes"),
        () if spells(|part| join(part, "", |byte| format!("{byte:02x}"))) => Some("lower-case hexadecimal"),
        () if spells(|part| join(part, "", |byte| format!("{byte:02X}"))) => Some("upper-case hexadecimal"),
        () if spells(|part| join(part, ", ", |byte| byte.to_string())) => Some("a list of numbers"),
        () if spells(|part| join(part, ",", |byte| byte.to_string())) => Some("a list of numbers"),
        () if spells(|part| join(part, ",\n", |byte| format!("    {byte}"))) => Some("a list of numbers"),
        () if spells(|part| join(part, " ", |byte| format!("{byte:02x}"))) => Some("a hex dump"),
        () if spells(|part| join(part, ", ", |byte| format!("0x{byte:02x}"))) => Some("a list of hex numbers"),
        () if base64(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") => Some("base64"),
        () if base64(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") => Some("base64url"),
        () => None,
    }
}

fn join(bytes: &[u8], separator: &str, spell: fn(u8) -> String) -> String {
    bytes.iter().map(|byte| spell(*byte)).collect::<Vec<_>>().join(separator)
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
        assert_eq!(found(&format!("key {hex}")), Some("lower-case hexadecimal"));
        assert_eq!(found(&hex.to_uppercase()), Some("upper-case hexadecimal"));
        assert_eq!(found(&format!("{secret:?}")), Some("a list of numbers"));
        assert_eq!(found(&format!("{secret:#?}")), Some("a list of numbers"));
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        assert_eq!(found(&base64(&secret[1..31], alphabet)), Some("base64"));
        assert_eq!(found("nothing to see"), None);
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        assert_eq!(base64(b"foobar", alphabet), "Zm9vYmFy");
    }
}
