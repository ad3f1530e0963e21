//! Ids and keys for the cases, among them those that stores get wrong.

use keystead_core::{KeyId, SecretKey};

pub(crate) fn id(text: impl Into<String>) -> KeyId {
    KeyId::new(text).expect("the suite's ids are valid")
}

pub(crate) fn key(bytes: impl Into<Vec<u8>>) -> SecretKey {
    SecretKey::new(bytes).expect("the suite's keys are valid")
}

/// Returns a key of `len` random bytes, which no other key of the run has.
pub(crate) fn random_key(len: usize) -> SecretKey {
    SecretKey::generate(len).expect("the suite's keys have valid lengths")
}

/// Returns `count` random keys of 32 bytes.
pub(crate) fn random_keys(count: usize) -> Vec<SecretKey> {
    (0..count).map(|_| random_key(32)).collect()
}

/// Returns `count` ordinary ids.
pub(crate) fn ids(count: usize) -> Vec<KeyId> {
    (0..count).map(|number| id(format!("user-{number:05}"))).collect()
}

/// Returns keys of awkward contents, followed by keys of awkward lengths.
pub(crate) fn awkward_keys() -> Vec<SecretKey> {
    let contents: [&[u8]; 53] = [
        b"secret\n",
        b"\0\0secret\0\0",
        b"\xff\xfe\x80\xc3\x28",
        b" secret ",
        b"{{ssm:x}}",
        b"aGVsbG8=",
        b"\0",
        b"\n",
        b" ",
        b"secret\r\n",
        b"\nsecret",
        b"\tsecret\t",
        b"\xef\xbb\xbfsecret",
        b"aGVsbG8gd29ybGQ",
        b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        b"deadbeef",
        b"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        b"00112233-4455-6677-8899-aabbccddeeff",
        b"0",
        b"null",
        b"true",
        b"\"secret\"",
        b"{\"k\":\"v\"}",
        b"file:///x",
        b"$HOME",
        b"'); DROP TABLE keys;--",
        b"%00%0a",
        b"\\0\\n",
        b"\x01secret",
        b"\x00\x01\x02secret",
        b"secret\x01",
        b"secret\x02\x02",
        b"secret\x10\x10\x10\x10\x10\x10\x10\x10\x10\x10\x10\x10\x10\x10\x10\x10",
        b"secret\x80\0\0",
        b"\x1f\x8b\x08\x00secret",
        "\u{e9}e\u{301}\u{1F511}".as_bytes(),
        b"007",
        b"1e3",
        b"+7",
        b"-",
        b"#secret",
        b"secret\rsecret",
        b"${x}secret",
        b"a&amp;b",
        b"0x736563726574",
        b"base64:c2VjcmV0",
        b"deleted",
        b"-----BEGIN KEY-----\nc2VjcmV0\n-----END KEY-----\n",
        &[7; 300],
        &[7; 3072],
        &[0xff; 8],
        &[0; 32],
        &[0xff; 32],
    ];
    let lengths = [
        3072, 1, 31, 33, 255, 256, 2, 3, 15, 16, 24, 32, 48, 63, 64, 65, 127, 128, 129, 257, 511, 512, 513, 1023, 1024,
        2047, 2048, 2049, 3000, 3071,
    ];
    let every_byte: Vec<u8> = (0..=255).collect();
    let every_byte_backwards: Vec<u8> = (0..=255).rev().collect();
    let mut keys: Vec<SecretKey> = vec![key(every_byte), key(every_byte_backwards)];
    keys.extend(contents.map(key));
    keys.extend(lengths.map(random_key));
    keys
}

/// Returns ids that are easily mistaken for each other or for something else.
pub(crate) fn hostile_ids() -> Vec<KeyId> {
    let texts = [
        "67e55044-10b1-426f-9247-bb680e5fe0c8",
        "67E55044-10B1-426F-9247-BB680E5FE0C8",
        "67e5504410b1426f9247bb680e5fe0c8",
        "ab",
        "abc",
        "b",
        "x",
        "a.1",
        "name.label",
        "auth0-5f7c8e",
        "a?b",
        "a&amp;b",
        "\\\\",
        "alice+x@example.com",
        "alice@Example.com",
        "kelvin",
        "\u{212a}elvin",
        "masse",
        "ma\u{17f}se",
        "\u{3c2}",
        "\u{3c3}",
        "\u{212b}",
        "\u{c5}",
        "\u{1112}\u{1161}\u{11ab}",
        "\u{d55c}",
        "\u{1100}\u{1161}",
        "\u{ac00}",
        "\u{ff41}",
        "\u{2764}",
        "\u{2764}\u{fe0f}",
        "Aa",
        "BB",
        "plumless",
        "buckeroo",
        "a_c",
        "a%c",
        "%b",
        "_",
        "a",
        "A",
        "aa",
        "aA",
        ".",
        "..",
        "...",
        "../x",
        "a/../b",
        "a/./b",
        "a/b",
        "a//b",
        "/a",
        "a/",
        "/",
        "\\",
        "C:\\x",
        "CON",
        "con",
        "nul.txt",
        " ",
        " a",
        "a ",
        "a b",
        "a  b",
        "a+b",
        "a:1",
        "name:label",
        "%s",
        "%",
        "%2e%2e",
        "%2E%2E",
        "-",
        "--",
        "--a",
        "---2Da",
        "-40",
        "a-40b",
        "a@b",
        "--a-40b",
        "a-b",
        "a_b",
        "a.b",
        "alice@example.com",
        "Alice@example.com",
        "alice@example.com ",
        "--alice-40example.com",
        "auth0|5f7c8e",
        "google-oauth2|1234567890",
        "user-123456",
        "user",
        "aws-x",
        "AWSx",
        "SSMx",
        "ssm",
        "*",
        "?",
        "a*",
        "[a]",
        "'",
        "\"",
        "'; DROP TABLE keys;--",
        "$HOME",
        "${x}",
        "{{ssm:x}}",
        "<a>",
        "a&b",
        "a=b",
        "a#b",
        "~",
        "0",
        "00",
        "1",
        "01",
        "null",
        "NULL",
        "true",
        "\u{e9}",
        "e\u{301}",
        "\u{c9}",
        "\u{df}",
        "ss",
        "\u{fb01}",
        "fi",
        "\u{130}",
        "i",
        "I",
        "\u{131}",
        "\u{410}",
        "\u{1F511}",
        "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}",
        "\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
        "\u{202e}abc",
        "a\u{200b}b",
        "\u{feff}a",
        "\u{a0}a",
        "\u{2028}",
        "\u{10ffff}",
        "a%2Fb",
        "a%20b",
        "a%23b",
        "a.",
        "a,b",
        "a\\nb",
        "a&lt;b",
        "a<b",
        "anb",
        "a\u{ad}b",
        "~/a",
        "#a",
        "x.tmp",
        "x.bak",
        "x.lock",
        "x.key",
        "\u{1F44D}",
        "\u{1F44D}\u{1F3FD}",
    ];
    let mut ids: Vec<KeyId> = texts.map(id).into();
    ids.extend([
        id("a".repeat(128)),
        id("a".repeat(127)),
        id(format!("{}b", "a".repeat(127))),
        id(format!("{}B", "a".repeat(127))),
        id("\u{1F511}".repeat(32)),
        id(format!("{}\u{1F512}", "\u{1F511}".repeat(31))),
        id("/".repeat(128)),
        id("-".repeat(128)),
        id("@".repeat(128)),
    ]);
    ids
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_hostile_ids_are_distinct() {
        let ids = hostile_ids();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    }
}
