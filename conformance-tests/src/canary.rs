//! [`Canary`], a key and an id that must not appear in any text, and the search for them in every usual
//! encoding.

use std::collections::HashSet;
use std::error::Error as StdError;

use keystead_core::{Error, KeyId, SecretKey};

use crate::context::{Outcome, ensure};
use crate::harness::random_text;
use crate::sample;

/// The number of consecutive bytes of a key that count as a leak. By chance, one of 2^48 positions
/// of a text has them.
const WINDOW: usize = 6;

/// A random key, and an id with a random part that escaping does not change.
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

    /// Creates a canary whose key consists of ASCII letters and digits, so that it would show as text.
    pub(crate) fn of_text() -> Self {
        Self { key: sample::key(random_text(32).into_bytes()), ..Self::new() }
    }

    /// Expects neither the key nor the id in this text.
    pub(crate) fn not_in(&self, what: &str, text: &str) -> Outcome {
        self.key_not_in(what, text)?;
        let found = encoding_of(self.id_text.as_bytes(), text);
        ensure(found.is_none(), what, "a text without the id", format!("the id as {}", found.unwrap_or_default()))
    }

    /// Expects neither the key nor the id in the `Display` and `Debug` output of this error and of its
    /// causes.
    pub(crate) fn not_in_error(&self, error: &Error) -> Outcome {
        let of = format!("the error {:?} of {}", error.kind(), error.operation());
        self.not_in(&format!("Debug and Display of {of}"), &format!("{error} {error:?} {error:#?}"))?;
        self.not_in(&format!("Debug of the details of {of}"), &format!("{:?}", error.details()))?;
        let mut cause = error.source();
        while let Some(e) = cause {
            self.not_in(&format!("Debug and Display of a cause of {of}"), &format!("{e} {e:?} {e:#?}"))?;
            cause = e.source();
        }
        Ok(())
    }

    /// Expects the key not to be in this text.
    pub(crate) fn key_not_in(&self, what: &str, text: &str) -> Outcome {
        let found = encoding_of(self.key.expose_secret(), text);
        ensure(found.is_none(), what, "a text without key bytes", format!("key bytes as {}", found.unwrap_or_default()))
    }
}

/// Returns the encoding in which a part of the secret appears in a text, if it does. Separators and
/// letter case do not hide it.
///
/// Each encoding takes one pass over the text, which may be long.
fn encoding_of(secret: &[u8], text: &str) -> Option<&'static str> {
    let holds = |bytes: &[u8]| has(bytes, windows::<WINDOW>(secret));
    let lower = text.to_lowercase();
    let digits = lower.replace("0x", "").into_bytes();
    let digits: Vec<u8> = digits.into_iter().filter(u8::is_ascii_hexdigit).collect();
    let base64_of = |alphabet| windows::<9>(secret).map(move |part| base64(&part, alphabet));
    match () {
        () if holds(text.as_bytes()) => Some("raw bytes"),
        () if secret.is_ascii() && has(lower.as_bytes(), windows::<WINDOW>(&secret.to_ascii_lowercase())) => {
            Some("text")
        }
        () if holds(&unescaped(text)) => Some("escaped bytes"),
        () if (0..2).any(|start| holds(&from_hex(digits.get(start..).unwrap_or_default()))) => Some("hexadecimal"),
        () if numbers(text).iter().any(|run| holds(run)) => Some("numbers"),
        () if has(text.as_bytes(), base64_of(BASE64)) => Some("base64"),
        () if has(text.as_bytes(), base64_of(BASE64_URL)) => Some("base64url"),
        () if has(text.as_bytes(), windows::<5>(secret).map(|part| base32(&part))) => Some("base32"),
        () => None,
    }
}

/// Reports whether the text contains one of these sequences of bytes.
fn has<const N: usize>(text: &[u8], runs: impl Iterator<Item = [u8; N]>) -> bool {
    let runs: HashSet<[u8; N]> = runs.collect();
    windows::<N>(text).any(|window| runs.contains(&window))
}

fn windows<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.windows(N).filter_map(|window| window.first_chunk().copied())
}

/// Returns the bytes that pairs of hexadecimal digits stand for.
fn from_hex(digits: &[u8]) -> Vec<u8> {
    let digit =
        |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()).unwrap_or_default();
    digits.chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// Returns the runs of decimal numbers that fit in a byte, whatever separates them.
fn numbers(text: &str) -> Vec<Vec<u8>> {
    let mut runs = vec![Vec::new()];
    for number in text.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty()) {
        match (number.parse(), runs.last_mut()) {
            (Ok(byte), Some(run)) => run.push(byte),
            _ => runs.push(Vec::new()),
        }
    }
    runs
}

/// Returns the bytes that a text in Rust's escapes (`\\n`, `\\xff`, ...) stands for.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => return bytes,
            [b'\\', b'x', high, low, rest @ ..] => {
                bytes.extend(from_hex(&[*high, *low]));
                rest
            }
            [b'\\', escape, rest @ ..] => {
                bytes.push(match escape {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'0' => 0,
                    other => *other,
                });
                rest
            }
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Returns the Base32 encoding (RFC 4648) of five bytes.
fn base32(bytes: &[u8; 5]) -> [u8; 8] {
    let bits = bytes.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
    [35, 30, 25, 20, 15, 10, 5, 0].map(|shift| b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[bits >> shift & 31])
}

/// Returns the Base64 encoding (RFC 4648) of nine bytes.
fn base64(bytes: &[u8; 9], alphabet: &[u8; 64]) -> [u8; 12] {
    let mut text = [0; 12];
    for (group, digits) in bytes.chunks_exact(3).zip(text.chunks_exact_mut(4)) {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        digits.copy_from_slice(&[18, 12, 6, 0].map(|shift| alphabet[bits >> shift & 63]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<&'static str> {
        let secret: Vec<u8> = (0..32).map(|i| 0x9f_u8.wrapping_mul(i + 3)).collect();
        encoding_of(&secret, text)
    }

    fn join(bytes: &[u8], separator: &str, spell: fn(u8) -> String) -> String {
        bytes.iter().map(|byte| spell(*byte)).collect::<Vec<_>>().join(separator)
    }

    #[test]
    fn every_encoding_is_found() {
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
        assert_eq!(found(&format!("300 {:#?}", Some(&secret))), Some("numbers"));
        assert_eq!(found(&join(&secret, " ", |byte| byte.to_string())), Some("numbers"));
        assert_eq!(found(&format!("key {}", secret.escape_ascii())), Some("escaped bytes"));
        let nine = secret.first_chunk().expect("there are nine");
        assert_eq!(found(&String::from_utf8_lossy(&base64(nine, BASE64))), Some("base64"));
        let five = secret.last_chunk().expect("there are five");
        assert_eq!(found(&String::from_utf8_lossy(&base32(five))), Some("base32"));
        assert_eq!(found("nothing to see"), None);
        assert_eq!(encoding_of(b"canary12345", "no entry CANARY12345"), Some("text"));
    }

    #[test]
    fn the_encodings_are_those_of_the_rfc() {
        assert_eq!(&base64(b"foobarfoo", BASE64), b"Zm9vYmFyZm9v");
        assert_eq!(&base32(b"fooba"), b"MZXW6YTB");
    }
}
