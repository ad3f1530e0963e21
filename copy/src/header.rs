//! [`Header`]: the first part of a journal, which names its stores. FORMAT.md describes its bytes.

use keystead_core::StoreIdentity;

use crate::digest::{DIGEST_KEY_LEN, Digester};
use crate::identity::Identities;
use crate::journal::CHECKSUM_LEN;

const MAGIC: &[u8; 16] = b"keystead-journal";
const VERSION: u32 = 2;

/// The length of the magic, the version, the digest key and two lengths.
const PREAMBLE_LEN: usize = MAGIC.len() + size_of::<u32>() + DIGEST_KEY_LEN + 2 * size_of::<u16>();
/// The length of the part that has the same size in every header: the preamble and its checksum.
const FIXED_LEN: usize = PREAMBLE_LEN + CHECKSUM_LEN;

/// The length of the longest header.
pub(crate) const LONGEST: usize = FIXED_LEN + 2 * u16::MAX as usize + CHECKSUM_LEN + 1;

/// The facts in a journal's header.
pub(crate) struct Header {
    pub(crate) digester: Digester,
    pub(crate) identities: Identities,
    /// True if a run has begun to delete the source's keys. This is the header's last byte, so it
    /// stays if records are lost.
    pub(crate) deletes_source: bool,
    /// The length of the header in bytes, which is the offset of the first record.
    pub(crate) len: u64,
}

/// The result of reading the first bytes of a file.
pub(crate) enum Reading {
    /// The header is whole.
    Whole(Box<Header>),
    /// The file ends within a header: the process that created it was cut off.
    CutOff,
    /// The file is not a journal.
    Foreign,
    /// The journal has format version 1, which has no identities.
    Version1,
    /// A later version of keystead wrote the journal.
    Later,
    /// A checksum is wrong.
    Damaged,
}

/// Reads a header from the first [`LONGEST`] bytes of a file, or from all if there are fewer.
pub(crate) fn read(bytes: &[u8]) -> Reading {
    let (magic, rest) = bytes.split_at(MAGIC.len().min(bytes.len()));
    if !MAGIC.starts_with(magic) {
        return Reading::Foreign;
    }
    let version = &rest[..size_of::<u32>().min(rest.len())];
    if !VERSION.to_le_bytes().starts_with(version) {
        return if 1_u32.to_le_bytes().starts_with(version) { Reading::Version1 } else { Reading::Later };
    }
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED_LEN) else { return Reading::CutOff };
    let (preamble, checksum) = fixed.split_at(PREAMBLE_LEN);
    let (key, lengths) = preamble[MAGIC.len() + size_of::<u32>()..].split_at(DIGEST_KEY_LEN);
    let digester = Digester::new(key.try_into().expect("the slice was split to this length"));
    if digester.checksum(0, preamble) != *checksum {
        return Reading::Damaged;
    }
    let (source_len, target_len) = lengths.split_at(size_of::<u16>());
    let length =
        |bytes: &[u8]| usize::from(u16::from_le_bytes(bytes.try_into().expect("the slice was split to this length")));
    let source_len = length(source_len);
    let texts_len = source_len + length(target_len);
    let Some((texts, rest)) = rest.split_at_checked(texts_len) else { return Reading::CutOff };
    let Some((checksum, rest)) = rest.split_at_checked(CHECKSUM_LEN) else { return Reading::CutOff };
    let Some(deletes_source) = rest.first() else { return Reading::CutOff };
    if digester.checksum(FIXED_LEN as u64, texts) != *checksum {
        return Reading::Damaged;
    }
    let (source, target) = texts.split_at(source_len);
    // An identity that was written whole but cannot be parsed has an attribute that this version
    // does not know.
    let (Some(source), Some(target)) = (identity(source), identity(target)) else { return Reading::Later };
    let len = (FIXED_LEN + texts_len + CHECKSUM_LEN + 1) as u64;
    let identities = Identities { source, target };
    Reading::Whole(Box::new(Header { digester, identities, deletes_source: *deletes_source != 0, len }))
}

/// Returns the bytes of a new header and the header, or `None` if an identity is too long for it.
pub(crate) fn write(key: &[u8; DIGEST_KEY_LEN], identities: &Identities) -> Option<(Vec<u8>, Header)> {
    let digester = Digester::new(key);
    let source = identities.source.to_string();
    let target = identities.target.to_string();
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(key);
    for text in [&source, &target] {
        bytes.extend(u16::try_from(text.len()).ok()?.to_le_bytes());
    }
    bytes.extend(digester.checksum(0, &bytes));
    let texts = [source, target].concat();
    bytes.extend(texts.as_bytes());
    bytes.extend(digester.checksum(FIXED_LEN as u64, texts.as_bytes()));
    bytes.push(0);
    let len = bytes.len() as u64;
    Some((bytes, Header { digester, identities: identities.clone(), deletes_source: false, len }))
}

fn identity(text: &[u8]) -> Option<StoreIdentity> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
