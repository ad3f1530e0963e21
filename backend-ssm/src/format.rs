//! The value of a parameter: a key in standard base64 (RFC 4648, section 4), as the Clojure library
//! secret-storage.aws-ssm-ps writes and reads it.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use keystead_core::SecretKey;
use zeroize::Zeroizing;

/// Writes padding. Reads whatever Java's basic decoder reads, so padding may be missing and
/// trailing bits need not be zero.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Returns a key in base64: at most 4096 bytes, because the longest key has 3072.
pub(crate) fn encoded(key: &SecretKey) -> Zeroizing<String> {
    Zeroizing::new(BASE64.encode(key.expose_secret()))
}

/// Returns the key in a value; `None` if the value is not base64 of 1 to 3072 bytes.
pub(crate) fn decoded(value: &str) -> Option<SecretKey> {
    // Padding may be missing completely. Java's decoder refuses incomplete padding.
    if value.contains('=') && !value.len().is_multiple_of(4) {
        return None;
    }
    // The capacity is sufficient, so the buffer never grows and leaves no copy behind. It is wiped
    // if the value is not a key.
    let mut bytes = Zeroizing::new(Vec::with_capacity(value.len()));
    BASE64.decode_vec(value, &mut bytes).ok()?;
    SecretKey::new(std::mem::take(&mut *bytes)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(value: &str) -> Option<Vec<u8>> {
        decoded(value).map(|key| key.expose_secret().to_vec())
    }

    #[test]
    fn what_is_written_is_standard_padded_and_on_one_line() {
        assert_eq!(*encoded(&SecretKey::new([0xfb, 0xff, 0xfe, 0x01]).unwrap()), "+//+AQ==");
        let longest = encoded(&SecretKey::new([0xa5; 3072]).unwrap());
        assert_eq!((longest.len(), longest.lines().count()), (4096, 1));
    }

    #[test]
    fn what_javas_decoder_accepts_is_read() {
        assert_eq!(bytes("+//+AQ=="), Some(vec![0xfb, 0xff, 0xfe, 0x01]));
        assert_eq!(bytes("+//+AQ"), Some(vec![0xfb, 0xff, 0xfe, 0x01]));
        assert_eq!(bytes("QQ=="), Some(vec![b'A']));
        assert_eq!(bytes("QR=="), Some(vec![b'A']));
        assert_eq!(bytes("QUJ"), Some(vec![b'A', b'B']));
    }

    #[test]
    fn what_javas_decoder_refuses_is_no_key() {
        for value in [
            "",
            "=",
            "Q",
            "QQ=",
            "QUI==",
            "QQ===",
            "-_-_",
            " QUJD",
            "QUJD ",
            "QU JD",
            "QUJD\n",
            "QU\r\nJD",
            "Q=Q=",
            "QQ==QQ==",
            "\u{e9}QUJ",
        ] {
            assert_eq!(bytes(value), None, "{value:?}");
        }
    }

    #[test]
    fn a_value_of_more_than_3072_bytes_is_no_key() {
        assert!(bytes(&"A".repeat(4096)).is_some());
        assert!(bytes(&"A".repeat(4100)).is_none());
    }
}
