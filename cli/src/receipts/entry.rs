//! [`Entry`]: a line of a receipt log. FORMAT.md describes the format.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use keystead::layers::ErasureReceipt;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::keys::{PublicKey, SIGNATURE_LEN, Signer};
use crate::encoding::hex;

/// The version of the format.
const VERSION: u32 = 1;

/// The length in bytes of the longest line, without its line break.
pub(crate) const MAX_LINE_LEN: usize = 64 * 1024;

/// The text before the digits of a signature, which the signature does not cover.
const BEFORE_SIGNATURE: &str = ",\"signature\":\"";

/// A SHA-256 hash, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Hash([u8; 32]);

impl Hash {
    /// The hash in the first line, which has no line before it.
    pub(crate) const NONE: Self = Self([0; 32]);

    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::from_digest(digest(&SHA256, bytes).as_ref())
    }

    /// Returns the hash with the bytes of a finished digest.
    pub(crate) fn from_digest(digest: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest);
        Self(hash)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for Hash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        from_hex(text).map(Self).ok_or("this is not a hash: give 64 lower-case hexadecimal digits")
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for Hash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        text.parse()
    }
}

/// The bytes that a writer left when it was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Torn {
    /// The number of bytes.
    pub(crate) bytes: u64,
    /// The hash of these bytes.
    pub(crate) sha256: Hash,
}

impl Torn {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, sha256: Hash::of(bytes) }
    }
}

/// The contents of a line. `R` is `ErasureReceipt` when a line is written. When a line is read it
/// is a JSON value, so that a line with a receipt of a later version is still a whole line.
#[derive(Debug)]
pub(crate) enum Body<R> {
    /// The first line.
    Begin {
        log: String,
    },
    Receipt(R),
    Torn(Torn),
}

/// A line as it was read.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    pub(crate) prev: Hash,
    pub(crate) body: Body<Value>,
    /// The hash of this line.
    pub(crate) hash: Hash,
    pub(crate) signature: Option<Signature>,
}

/// A signature and the key that is said to have made it.
#[derive(Clone, Copy)]
pub(crate) struct Signature {
    pub(crate) public_key: PublicKey,
    bytes: [u8; SIGNATURE_LEN],
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", self.public_key)
    }
}

impl Signature {
    /// Reports whether this is a valid signature of the line.
    pub(crate) fn is_of(&self, line: &[u8]) -> bool {
        let signed_len = line.len().saturating_sub(signature_text(&self.bytes).len());
        line.get(..signed_len).is_some_and(|signed| self.public_key.has_signed(signed, &self.bytes))
    }
}

/// The position of a line in its log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) seq: u64,
    pub(crate) prev: Hash,
    /// The time at which the line is written, in seconds since 1970.
    pub(crate) at: u64,
}

/// The fields of a line, in their order.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<R> {
    #[serde(skip_serializing_if = "Option::is_none")]
    keystead_receipts: Option<u32>,
    seq: u64,
    prev: Hash,
    at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<R>,
    #[serde(skip_serializing_if = "Option::is_none")]
    torn: Option<Torn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
}

/// Returns the bytes of a new line, without a line break; signed if there is a signer.
///
/// # Errors
/// The reason, if the line would be too long or cannot be signed.
pub(crate) fn line(place: Place, body: Body<ErasureReceipt>, signer: Option<&Signer>) -> Result<Vec<u8>, &'static str> {
    let mut fields = Fields {
        keystead_receipts: None,
        seq: place.seq,
        prev: place.prev,
        at: place.at,
        log: None,
        receipt: None,
        torn: None,
        public_key: signer.map(|signer| signer.public_key().to_string()),
        signature: None,
    };
    match body {
        Body::Begin { log } => {
            fields.keystead_receipts = Some(VERSION);
            fields.log = Some(log);
        }
        Body::Receipt(receipt) => fields.receipt = Some(receipt),
        Body::Torn(torn) => fields.torn = Some(torn),
    }
    let mut line = serde_json::to_vec(&fields).map_err(|_| "it cannot be written as JSON")?;
    if let Some(signer) = signer {
        // The signature is inserted before the closing brace.
        line.pop();
        let signature = signer.sign(&line)?;
        line.extend_from_slice(signature_text(&signature).as_bytes());
    }
    if line.len() > MAX_LINE_LEN {
        return Err("it would be longer than a line can be");
    }
    Ok(line)
}

impl Entry {
    /// Parses a line, given without its line break. Returns `None` if it does not have this format.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        if line.len() > MAX_LINE_LEN {
            return None;
        }
        let fields: Fields<Value> = serde_json::from_slice(line).ok()?;
        let signature = match (&fields.public_key, &fields.signature) {
            (None, None) => None,
            (Some(public_key), Some(signature)) => {
                let signature = Signature { public_key: public_key.parse().ok()?, bytes: from_hex(signature)? };
                line.ends_with(signature_text(&signature.bytes).as_bytes()).then_some(Some(signature))?
            }
            _ => return None,
        };
        let body = match (fields.keystead_receipts, fields.log, fields.receipt, fields.torn) {
            (Some(VERSION), Some(log), None, None) if from_hex::<16>(&log).is_some() => Body::Begin { log },
            (None, None, Some(receipt), None) if receipt.is_object() => Body::Receipt(receipt),
            (None, None, None, Some(torn)) => Body::Torn(torn),
            _ => return None,
        };
        Some(Self { seq: fields.seq, prev: fields.prev, body, hash: Hash::of(line), signature })
    }
}

/// Returns the format version of the log that begins with this line; `None` if it is not the first
/// line of a receipt log.
pub(crate) fn version_of(first_line: &[u8]) -> Option<u64> {
    let value: Value = serde_json::from_slice(first_line).ok()?;
    value.get("keystead_receipts")?.as_u64()
}

/// Reports whether this program supports this format version.
pub(crate) fn is_known(version: u64) -> bool {
    version == u64::from(VERSION)
}

fn signature_text(signature: &[u8; SIGNATURE_LEN]) -> String {
    format!("{BEFORE_SIGNATURE}{}\"}}", hex(signature))
}

/// Decodes lower-case hexadecimal digits; returns `None` for any other text.
pub(crate) fn from_hex<const LEN: usize>(digits: &str) -> Option<[u8; LEN]> {
    let mut bytes = [0; LEN];
    if digits.len() != 2 * LEN || !digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
