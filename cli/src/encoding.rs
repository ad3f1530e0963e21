//! [`Format`]: the text forms of keys. All buffers are wiped, and none grows, because that would
//! leave a copy behind.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use keystead::SecretKey;
use zeroize::Zeroizing;

use crate::exit::{CommandError, Outcome};

/// The length in bytes of the longest key in any format, with a line break.
pub(crate) const MAX_WRITTEN_LEN: usize = 2 * SecretKey::MAX_LEN + 2;

/// The form in which a key is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Hexadecimal digits and a line break
    Hex,
    /// Standard base64 with padding, and a line break
    Base64,
    /// The bytes themselves
    Raw,
}

impl Format {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hex => "hex",
            Self::Base64 => "base64",
            Self::Raw => "raw",
        }
    }

    /// Returns the key in this format, without a line break.
    pub(crate) fn encode(self, key: &SecretKey) -> Zeroizing<Vec<u8>> {
        let bytes = key.expose_secret();
        let mut written = Zeroizing::new(Vec::with_capacity(MAX_WRITTEN_LEN));
        match self {
            Self::Raw => written.extend_from_slice(bytes),
            Self::Hex => written.extend(hex_digits(bytes)),
            Self::Base64 => {
                written.resize(bytes.len().div_ceil(3) * 4, 0);
                let len = STANDARD.encode_slice(bytes, &mut written).unwrap_or(0);
                written.truncate(len);
            }
        }
        written
    }

    /// Parses a key in this format. One line break at the end is ignored, unless the bytes are raw.
    pub(crate) fn decode(self, written: &[u8]) -> Outcome<SecretKey> {
        let line = written.strip_suffix(b"\n").unwrap_or(written);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_WRITTEN_LEN));
        let decoded = match self {
            Self::Raw => {
                bytes.extend_from_slice(written);
                Some(())
            }
            Self::Hex => from_hex(line, &mut bytes),
            Self::Base64 => STANDARD.decode_vec(line, &mut bytes).ok(),
        };
        let name = self.name();
        decoded.ok_or_else(|| {
            CommandError::usage(format!("the key is not valid {name}: name its format with --format"))
        })?;
        // The buffer is moved, so that there is only one copy.
        SecretKey::new(std::mem::take(&mut *bytes))
            .map_err(|e| CommandError::usage(format!("the key is not valid: {e}")))
    }
}

/// Returns the hexadecimal digits of bytes that are not secret.
pub(crate) fn hex(bytes: &[u8]) -> String {
    hex_digits(bytes).map(char::from).collect()
}

fn hex_digits(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
    bytes.iter().flat_map(move |byte| [digit(byte >> 4), digit(byte & 15)])
}

fn from_hex(digits: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
    let (pairs, rest) = digits.as_chunks::<2>();
    for [high, low] in pairs {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        bytes.push(u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?);
    }
    rest.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_reads_what_it_has_written() {
        for len in [1, 2, 3, 32, 3072] {
            let key = SecretKey::generate(len).unwrap();
            for format in [Format::Hex, Format::Base64, Format::Raw] {
                let written = format.encode(&key);
                assert_eq!(format.decode(&written).unwrap(), key);
                assert!(written.len() <= MAX_WRITTEN_LEN);
            }
        }
    }

    #[test]
    fn known_values_are_written_as_everybody_writes_them() {
        let key = SecretKey::new([0, 0x5a, 0xff, 9]).unwrap();
        assert_eq!(&Format::Hex.encode(&key)[..], b"005aff09");
        assert_eq!(&Format::Base64.encode(&key)[..], b"AFr/CQ==");
        for line in ["005AFF09\n", "005aff09\r\n"] {
            assert_eq!(Format::Hex.decode(line.as_bytes()).unwrap(), key);
        }
    }

    #[test]
    fn what_is_not_written_so_is_refused() {
        for (format, text) in [
            (Format::Hex, "0"),
            (Format::Hex, "zz"),
            (Format::Hex, "+1"),
            (Format::Hex, "00\n\n"),
            (Format::Base64, "AFr_CQ=="),
            (Format::Base64, "A"),
            (Format::Hex, ""),
            (Format::Raw, ""),
        ] {
            assert!(format.decode(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
