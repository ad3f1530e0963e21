//! [`RootSecret`]: the secret that opens a store's keyring.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use keystead_core::{BoxError, SecretKey};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::bytes::{Key32, SETUP_STACK_LEN, fill_random, wiping_stack};
use crate::error::KeyringError;

/// The length in bytes of the longest reference that a [`RootProvider`] may return.
pub(crate) const REFERENCE_LEN: usize = 512;

pub(crate) const SALT_LEN: usize = 16;

/// The parameters of Argon2id for new stores: 64 MiB, 3 passes, 4 lanes (RFC 9106, the second
/// recommended option).
const ARGON2: Argon2Cost = Argon2Cost { memory_kib: 64 * 1024, passes: 3, lanes: 4 };

/// The secret that opens a store. Anyone who has both the secret and the store's file can read all
/// keys. Without the secret, nobody can read any of them.
///
/// There are three kinds:
/// - 32 random bytes, which are the best choice.
/// - A passphrase. It is stretched with Argon2id (RFC 9106: 64 MiB, 3 passes, 4 lanes), which takes
///   about 0.2 s for each open in a release build. It is used byte for byte, without Unicode
///   normalization.
/// - A [`RootProvider`], which fetches the secret from elsewhere.
///
/// Clones share the secret, which is wiped when the last clone is dropped. `Debug` shows the kind
/// only.
#[derive(Clone)]
pub struct RootSecret(Kind);

#[derive(Clone)]
enum Kind {
    Bytes(Arc<Key32>),
    Passphrase(Arc<Zeroizing<String>>),
    Provider(Arc<dyn RootProvider>),
}

/// A source of root secrets, such as a key management service or a hardware token.
pub trait RootProvider: fmt::Debug + Send + Sync + 'static {
    /// Creates the root secret of a new store. May block.
    ///
    /// Returns 32 bytes, and a reference by which [`recover`](Self::recover) finds them again: for
    /// example the same bytes, encrypted by a key management service. The reference has at most 512
    /// bytes and is stored unencrypted in the store.
    ///
    /// # Errors
    /// Any error. The store is then not created.
    fn create(&self) -> Result<(SecretKey, Vec<u8>), BoxError>;

    /// Returns the 32 bytes that [`create`](Self::create) returned with this reference. May block.
    ///
    /// # Errors
    /// Any error. The store is then not opened.
    fn recover(&self, reference: &[u8]) -> Result<SecretKey, BoxError>;
}

impl RootSecret {
    /// Creates a root secret from 32 bytes, which must be random.
    ///
    /// The caller must wipe its own copies of them.
    pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
        let key = Key32::copy_of(&bytes);
        bytes.zeroize();
        Self(Kind::Bytes(Arc::new(key)))
    }

    /// Creates a root secret from a passphrase.
    ///
    /// An empty passphrase is refused when a store is created or opened with it.
    pub fn passphrase(passphrase: impl Into<String>) -> Self {
        Self(Kind::Passphrase(Arc::new(Zeroizing::new(passphrase.into()))))
    }

    /// Creates a root secret from 32 bytes of the operating system's random generator.
    ///
    /// Save it, for example with [`to_hex`](Self::to_hex), before you use it: without it, the keys
    /// of its store are lost.
    ///
    /// # Panics
    /// If the operating system's random generator fails.
    pub fn generate() -> Self {
        Self(Kind::Bytes(Arc::new(Key32::random())))
    }

    /// Creates a root secret that a provider fetches from elsewhere.
    pub fn provider(provider: Arc<dyn RootProvider>) -> Self {
        Self(Kind::Provider(provider))
    }

    /// Parses the contents of a file or an environment variable: 32 raw bytes, or 64 hexadecimal
    /// digits with at most one line break after them.
    ///
    /// 32 raw bytes that are all printable are refused, because they are a typed passphrase or
    /// truncated hexadecimal digits. One in 10^14 random secrets looks like this; generate another
    /// one then. To parse a passphrase, use [`parse_passphrase`](Self::parse_passphrase).
    ///
    /// # Errors
    /// [`InvalidRootSecret`] if the contents have neither form, are 32 printable bytes, or begin
    /// with a byte order mark.
    pub fn parse(contents: &[u8]) -> Result<Self, InvalidRootSecret> {
        let invalid = |reason| InvalidRootSecret { reason };
        if let Ok(raw) = <&[u8; 32]>::try_from(contents) {
            // Raw bytes may begin like a byte order mark by chance, but printable text is not
            // random.
            if raw.strip_prefix(UTF8_MARK).is_some_and(is_printable_line) {
                return Err(invalid(Reason::ByteOrderMark));
            }
            if is_printable_line(raw) {
                return Err(invalid(Reason::Printable));
            }
            return Ok(Self(Kind::Bytes(Arc::new(Key32::copy_of(raw)))));
        }
        if begins_with_mark(contents) {
            return Err(invalid(Reason::ByteOrderMark));
        }
        let neither = invalid(Reason::Neither { len: contents.len() });
        let digits = <&[u8; 64]>::try_from(without_line_break(contents)).map_err(|_| neither)?;
        let mut key = Key32::zero();
        for (byte, pair) in key.expose_mut().iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair.iter().try_fold(0, |value, digit| Some(value << 4 | hex_digit(*digit)?)).ok_or(neither)?;
        }
        Ok(Self(Kind::Bytes(Arc::new(key))))
    }

    /// Parses a passphrase from the contents of a file or an environment variable: UTF-8 text. A
    /// line break at its end is removed.
    ///
    /// # Errors
    /// [`InvalidRootSecret`] if the text is empty, is not UTF-8, or begins with a byte order mark.
    pub fn parse_passphrase(contents: &[u8]) -> Result<Self, InvalidRootSecret> {
        let invalid = |reason| InvalidRootSecret { reason };
        if begins_with_mark(contents) {
            return Err(invalid(Reason::ByteOrderMark));
        }
        let text = std::str::from_utf8(without_line_break(contents)).map_err(|_| invalid(Reason::NotUtf8))?;
        if text.is_empty() {
            return Err(invalid(Reason::EmptyPassphrase));
        }
        Ok(Self::passphrase(text))
    }

    /// Returns the 64 hexadecimal digits that [`parse`](Self::parse) reads; `None` for a passphrase
    /// or a provider.
    pub fn to_hex(&self) -> Option<Zeroizing<String>> {
        let Kind::Bytes(key) = &self.0 else { return None };
        let mut digits = Zeroizing::new(String::with_capacity(64));
        for byte in key.expose() {
            write!(digits, "{byte:02x}").expect("writing to a string does not fail");
        }
        Some(digits)
    }

    /// Returns a key for sealing a keyring under this root secret.
    ///
    /// With a passphrase, this takes the time and memory of Argon2id. With a provider, it creates a
    /// new secret there.
    ///
    /// # Errors
    /// [`KeyringError`] if the passphrase is empty or too long, if memory runs out or if the
    /// provider fails.
    pub fn new_key(&self) -> Result<RootKey, KeyringError> {
        let (key, hint) = match &self.0 {
            Kind::Bytes(key) => ((**key).clone(), RootHint::Bytes),
            Kind::Passphrase(passphrase) => {
                let mut salt = [0; SALT_LEN];
                fill_random(&mut salt);
                (stretch(passphrase, ARGON2, &salt)?, RootHint::Passphrase { cost: ARGON2, salt })
            }
            Kind::Provider(provider) => {
                let (secret, reference) = provider.create().map_err(KeyringError::Provider)?;
                if reference.len() > REFERENCE_LEN {
                    return Err(KeyringError::Provider("the provider's reference has more than 512 bytes".into()));
                }
                (key_of_provider(&secret)?, RootHint::Provider { reference })
            }
        };
        Ok(RootKey { key, hint })
    }

    /// Returns the key for opening a keyring that was sealed with this hint.
    pub(crate) fn key_for(&self, hint: RootHint) -> Result<RootKey, KeyringError> {
        let key = match (&self.0, &hint) {
            (Kind::Bytes(key), RootHint::Bytes) => (**key).clone(),
            (Kind::Passphrase(passphrase), RootHint::Passphrase { cost, salt }) => stretch(passphrase, *cost, salt)?,
            (Kind::Provider(provider), RootHint::Provider { reference }) => {
                key_of_provider(&provider.recover(reference).map_err(KeyringError::Provider)?)?
            }
            (_, hint) => return Err(KeyringError::OtherKindOfRoot { needed: hint.name() }),
        };
        Ok(RootKey { key, hint })
    }
}

impl fmt::Debug for RootSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Bytes(_) => "RootSecret(32 bytes)",
            Kind::Passphrase(_) => "RootSecret(passphrase)",
            Kind::Provider(_) => "RootSecret(provider)",
        })
    }
}

/// The key that a root secret has for one keyring.
///
/// With it, the keyring can be sealed and opened again without another run of Argon2id or call of
/// the provider. It is wiped when dropped. `Debug` shows the kind only.
#[derive(Clone)]
pub struct RootKey {
    pub(crate) key: Key32,
    pub(crate) hint: RootHint,
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootKey({})", self.hint.name())
    }
}

/// The data about a root secret that a keyring stores unencrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RootHint {
    Bytes,
    Passphrase { cost: Argon2Cost, salt: [u8; SALT_LEN] },
    Provider { reference: Vec<u8> },
}

impl RootHint {
    fn name(&self) -> &'static str {
        match self {
            Self::Bytes => "a root secret of 32 bytes",
            Self::Passphrase { .. } => "a passphrase",
            Self::Provider { .. } => "a root secret from a provider",
        }
    }
}

/// The cost parameters of Argon2id. They have upper bounds, so that a forged store cannot use up
/// the memory or run for hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Argon2Cost {
    pub(crate) memory_kib: u32,
    pub(crate) passes: u32,
    pub(crate) lanes: u32,
}

impl Argon2Cost {
    pub(crate) fn is_within_bounds(&self) -> bool {
        let lanes = (1..=16).contains(&self.lanes);
        lanes && (8 * self.lanes..=1024 * 1024).contains(&self.memory_kib) && (1..=16).contains(&self.passes)
    }
}

fn stretch(passphrase: &str, cost: Argon2Cost, salt: &[u8; SALT_LEN]) -> Result<Key32, KeyringError> {
    if passphrase.is_empty() {
        return Err(KeyringError::EmptyPassphrase);
    }
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(|_| KeyringError::Damaged)?;
    let mut blocks = Vec::new();
    blocks.try_reserve_exact(params.block_count()).map_err(|_| KeyringError::OutOfMemory)?;
    blocks.resize(params.block_count(), Block::new());
    let mut key = Key32::zero();
    // Argon2 leaves the passphrase and the key on the stack.
    let stretched = wiping_stack::<SETUP_STACK_LEN, _>(|| {
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into_with_memory(
            passphrase.as_bytes(),
            salt,
            key.expose_mut(),
            &mut blocks,
        )
    });
    blocks.zeroize();
    stretched.map_err(|_| KeyringError::PassphraseTooLong)?;
    Ok(key)
}

fn key_of_provider(secret: &SecretKey) -> Result<Key32, KeyringError> {
    let bytes = <&[u8; 32]>::try_from(secret.expose_secret())
        .map_err(|_| KeyringError::Provider("the provider's secret does not have 32 bytes".into()))?;
    Ok(Key32::copy_of(bytes))
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The byte order mark of UTF-8, which some editors insert at the beginning of a file.
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reports whether the contents begin with the byte order mark of UTF-8 or UTF-16.
fn begins_with_mark(contents: &[u8]) -> bool {
    [UTF8_MARK, b"\xff\xfe", b"\xfe\xff"].iter().any(|mark| contents.starts_with(mark))
}

/// Reports whether these bytes are printable ASCII, with at most one line break after them.
fn is_printable_line(contents: &[u8]) -> bool {
    without_line_break(contents).iter().all(|byte| matches!(byte, b' '..=b'~'))
}

fn without_line_break(contents: &[u8]) -> &[u8] {
    let line = contents.strip_suffix(b"\n").unwrap_or(contents);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The error for contents that are not a root secret or not a passphrase. It never quotes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct InvalidRootSecret {
    reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
enum Reason {
    /// Neither 32 raw bytes nor 64 hexadecimal digits.
    #[error("the root secret is neither 32 raw bytes nor 64 hexadecimal digits ({len} bytes): give one of these")]
    Neither { len: usize },
    /// 32 bytes that somebody typed.
    #[error(
        "the root secret is 32 printable characters, not 32 random bytes: give 64 hexadecimal digits, or give a \
         passphrase as such (passphrase_file in a URL)"
    )]
    Printable,
    #[error("the secret begins with a byte order mark, which an editor has inserted: save it as UTF-8 without one")]
    ByteOrderMark,
    #[error("the passphrase is not UTF-8: give one that is")]
    NotUtf8,
    #[error("the passphrase is empty: give one that is not")]
    EmptyPassphrase,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_bytes_and_hexadecimal_digits_are_read() {
        let root = RootSecret::generate();
        let digits = root.to_hex().unwrap();
        for contents in [digits.to_string(), format!("{}\n", *digits), format!("{}\r\n", digits.to_uppercase())] {
            assert_eq!(RootSecret::parse(contents.as_bytes()).unwrap().to_hex().unwrap(), digits);
        }
        let raw = hex::decode(digits.as_str()).unwrap();
        assert_eq!(RootSecret::parse(&raw).unwrap().to_hex().unwrap(), digits);
    }

    #[test]
    fn other_contents_are_refused() {
        for contents in
            ["", "secret", &"0".repeat(63), &"g".repeat(64), &"0".repeat(65), &format!("{}\n\n", "0".repeat(64))]
        {
            assert!(RootSecret::parse(contents.as_bytes()).is_err(), "{contents:?}");
        }
    }

    #[test]
    fn printable_characters_are_not_raw_bytes() {
        for contents in [
            "correct horse battery staple 123".to_owned(),
            format!("{}\n", "p".repeat(31)),
            format!("{}\r\n", "p".repeat(30)),
            // A row of hexadecimal digits that was cut in half.
            "5a".repeat(16),
        ] {
            assert_eq!(contents.len(), 32);
            let text = RootSecret::parse(contents.as_bytes()).unwrap_err().to_string();
            assert!(text.contains("32 printable characters") && text.contains("passphrase_file"), "{text}");
            assert!(!text.contains(contents.trim_end()), "{text}");
        }
        for unprintable in [0x00, 0x1f, b'\t', 0x7f, 0x80, 0xff] {
            let mut raw = [b'p'; 32];
            raw[17] = unprintable;
            assert!(RootSecret::parse(&raw).is_ok(), "{unprintable:#x}");
        }
        let mut inner_line_break = [b'p'; 32];
        inner_line_break[17] = b'\n';
        assert!(RootSecret::parse(&inner_line_break).is_ok());
    }

    #[test]
    fn a_byte_order_mark_is_refused() {
        let digits = "5a".repeat(32);
        let utf16: Vec<u8> = format!("\u{feff}{digits}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        let marked = format!("\u{feff}{digits}\r\n");
        let short = format!("\u{feff}{}", "p".repeat(29));
        for contents in [marked.as_bytes(), short.as_bytes(), &utf16] {
            for parsed in [RootSecret::parse(contents), RootSecret::parse_passphrase(contents)] {
                let text = parsed.unwrap_err().to_string();
                assert!(text.contains("byte order mark") && text.contains("without one"), "{text}");
            }
        }
        let mut random = [0x91; 32];
        random[..3].copy_from_slice(UTF8_MARK);
        assert!(RootSecret::parse(&random).is_ok());
    }

    #[test]
    fn a_passphrase_is_read_without_the_line_break_at_its_end() {
        for contents in ["correct horse", "correct horse\n", "correct horse\r\n"] {
            let RootSecret(Kind::Passphrase(text)) = RootSecret::parse_passphrase(contents.as_bytes()).unwrap() else {
                panic!("{contents:?} is no passphrase")
            };
            assert_eq!(text.as_str(), "correct horse");
        }
        for (contents, reason) in [(&b""[..], "is empty"), (b"\r\n", "is empty"), (b"caf\xe9", "is not UTF-8")] {
            let text = RootSecret::parse_passphrase(contents).unwrap_err().to_string();
            assert!(text.contains(reason), "{text}");
        }
    }

    #[test]
    fn debug_shows_the_kind_only() {
        assert_eq!(format!("{:?}", RootSecret::from_bytes([7; 32])), "RootSecret(32 bytes)");
        assert_eq!(format!("{:?}", RootSecret::passphrase("hunter2")), "RootSecret(passphrase)");
    }

    #[test]
    fn costs_out_of_bounds_are_seen() {
        assert!(ARGON2.is_within_bounds());
        for cost in [
            Argon2Cost { memory_kib: 1024 * 1024 + 1, ..ARGON2 },
            Argon2Cost { memory_kib: 31, ..ARGON2 },
            Argon2Cost { passes: 0, ..ARGON2 },
            Argon2Cost { passes: 17, ..ARGON2 },
            Argon2Cost { lanes: 0, ..ARGON2 },
            Argon2Cost { lanes: u32::MAX, ..ARGON2 },
        ] {
            assert!(!cost.is_within_bounds(), "{cost:?}");
        }
    }
}
