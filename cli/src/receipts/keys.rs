//! [`Signer`] and [`PublicKey`]: the Ed25519 keys (RFC 8032) of a signed receipt log. Their files
//! are PEM (RFC 7468) of PKCS #8 and SubjectPublicKeyInfo (RFC 8410), as OpenSSL writes them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keystead::file::SecretFile;
use zeroize::Zeroizing;

use super::entry::from_hex;
use crate::encoding::hex;
use crate::exit::{CommandError, Outcome};
use crate::{files, input};

/// The length in bytes of a signature.
pub(super) const SIGNATURE_LEN: usize = 64;

/// The length in bytes of a public key.
const PUBLIC_KEY_LEN: usize = 32;

/// The bytes before the public key in a SubjectPublicKeyInfo.
const PUBLIC_KEY_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The PEM labels of the two kinds of file.
const PRIVATE: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";

/// The length in bytes of the longest public key file.
const MAX_PUBLIC_FILE_LEN: usize = 4096;

/// A private key that signs the lines of a log.
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
    public_key: PublicKey,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.public_key)
    }
}

impl Signer {
    /// Generates a key and writes it to a new file of mode 0600.
    pub(crate) fn create(path: &Path) -> Outcome<Self> {
        let failed = || CommandError::other("cannot generate a signing key");
        let signer = Self::of(Ed25519KeyPair::generate().map_err(|e| failed().because(e))?)
            .ok_or_else(|| failed().because("its public key has an unexpected length"))?;
        // Version 1 of the format, which OpenSSL reads.
        let document = signer.pair.to_pkcs8v1().map_err(|e| failed().because(e))?;
        files::create_private(path, to_pem(PRIVATE, document.as_ref()).as_bytes())?;
        Ok(signer)
    }

    /// Reads a private key from a file.
    pub(crate) async fn load(path: &Path) -> Outcome<Self> {
        let path = path.to_owned();
        let read = input::waiting(move || SecretFile::open(path)?.read_with(Self::from_pem)).await?;
        let signer = read.map_err(|e| CommandError::usage("cannot read the file of --signing-key").because(e))?;
        signer.ok_or_else(|| {
            CommandError::usage("the file of --signing-key contains no Ed25519 private key in PEM")
                .advise("create one with keystead receipt keygen, or with openssl genpkey -algorithm ed25519")
        })
    }

    pub(super) fn from_pem(pem: &[u8]) -> Option<Self> {
        Self::of(Ed25519KeyPair::from_pkcs8(&from_pem(PRIVATE, pem)?).ok()?)
    }

    fn of(pair: Ed25519KeyPair) -> Option<Self> {
        let public_key = PublicKey(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pair, public_key })
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// # Errors
    /// The reason, if there is no signature.
    pub(super) fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_LEN], &'static str> {
        let failed = "it cannot be signed";
        let signature = self.pair.try_sign(message).map_err(|_| failed)?;
        signature.as_ref().try_into().map_err(|_| failed)
    }
}

/// A public key, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PublicKey([u8; PUBLIC_KEY_LEN]);

impl PublicKey {
    /// Reads a public key from a PEM file.
    pub(crate) async fn load(path: PathBuf) -> Outcome<Self> {
        let contents = input::read(Some(&path), "the file of --public-key", MAX_PUBLIC_FILE_LEN).await?;
        Self::from_pem(&contents).ok_or_else(|| {
            CommandError::usage("the file of --public-key contains no Ed25519 public key in PEM")
                .advise("give the public key that keystead receipt keygen or openssl pkey -pubout printed")
        })
    }

    pub(super) fn from_pem(pem: &[u8]) -> Option<Self> {
        let der = from_pem(PUBLIC, pem)?;
        der.strip_prefix(&PUBLIC_KEY_PREFIX[..])?.try_into().ok().map(Self)
    }

    /// Returns the key in PEM, with a line break at the end.
    pub(crate) fn to_pem(self) -> String {
        to_pem(PUBLIC, &[&PUBLIC_KEY_PREFIX[..], &self.0[..]].concat()).to_string()
    }

    /// Reports whether this is a valid signature of the message by this key.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for PublicKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        from_hex(text).map(Self).ok_or("this is not a public key: give 64 lower-case hexadecimal digits")
    }
}

/// Returns a block of PEM. Keys of both kinds fit in one line of base64.
fn to_pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(STANDARD.encode(der));
    Zeroizing::new(format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", base64.as_str()))
}

/// Returns the bytes of the only block in a PEM file; `None` if it is not exactly one block with
/// this label.
fn from_pem(label: &str, pem: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let text = std::str::from_utf8(pem).ok()?.trim_ascii();
    let base64 = text.strip_prefix(&format!("-----BEGIN {label}-----"))?;
    let base64 = base64.strip_suffix(&format!("-----END {label}-----"))?;
    // Large enough, so that the buffer never grows and leaves a copy behind.
    let mut digits = Zeroizing::new(Vec::with_capacity(base64.len()));
    digits.extend(base64.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let mut der = Zeroizing::new(Vec::with_capacity(base64.len()));
    STANDARD.decode_vec(&*digits, &mut der).ok()?;
    Some(der)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410, section 10.3 and 10.1.
    const PRIVATE_PEM: &str = include_str!("../../tests/golden/receipts/private.pem");
    const PUBLIC_PEM: &str = include_str!("../../tests/golden/receipts/public.pem");

    #[test]
    fn keys_are_written_and_read_as_rfc_8410_has_them() {
        let signer = Signer::from_pem(PRIVATE_PEM.as_bytes()).unwrap();
        assert_eq!(signer.public_key().to_pem(), PUBLIC_PEM);
        assert_eq!(PublicKey::from_pem(PUBLIC_PEM.as_bytes()), Some(signer.public_key()));
        let written = to_pem(PRIVATE, signer.pair.to_pkcs8v1().unwrap().as_ref());
        assert_eq!(*written, PRIVATE_PEM);
        let crlf = PRIVATE_PEM.replace('\n', "\r\n");
        assert_eq!(Signer::from_pem(crlf.as_bytes()).unwrap().public_key(), signer.public_key());
    }

    #[test]
    fn a_file_with_anything_else_gives_no_key() {
        for pem in ["", PUBLIC_PEM, "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n", &PRIVATE_PEM[1..]] {
            assert!(Signer::from_pem(pem.as_bytes()).is_none(), "{pem}");
        }
        for pem in ["", PRIVATE_PEM, &[PUBLIC_PEM, PUBLIC_PEM].concat(), &PUBLIC_PEM.replace("MCow", "MCow*")] {
            assert!(PublicKey::from_pem(pem.as_bytes()).is_none(), "{pem}");
        }
    }

    #[test]
    fn a_signature_is_of_one_message_by_one_key() {
        // RFC 8032, section 7.1, test 2.
        let pair = Ed25519KeyPair::from_seed_unchecked(
            &from_hex::<32>("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap(),
        );
        let signer = Signer::of(pair.unwrap()).unwrap();
        let public_key = signer.public_key().to_string();
        assert_eq!(public_key, "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        let signature = signer.sign(&[0x72]).unwrap();
        assert!(hex(&signature).starts_with("92a009a9f0d4cab8720e820b5f642540"));
        assert!(signer.public_key().has_signed(&[0x72], &signature));
        assert!(!signer.public_key().has_signed(&[0x73], &signature));
        let other = Signer::from_pem(PRIVATE_PEM.as_bytes()).unwrap();
        assert!(!other.public_key().has_signed(&[0x72], &signature));
    }
}
