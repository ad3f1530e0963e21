//! What names a KMS key.

/// No key id, ARN or alias is longer (`PutParameter`, `KeyId`).
const LONGEST: usize = 256;

/// Whether this can be a key id, a key's ARN, or `alias/...`; whether there is such a key only AWS can tell.
pub fn is_kms_key(text: &str) -> bool {
    let literal = |byte: u8| byte.is_ascii_alphanumeric() || b":/_-".contains(&byte);
    !text.is_empty() && text.len() <= LONGEST && text.bytes().all(literal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_by_id_arn_and_alias_are_accepted() {
        let arn = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        for key in ["1234abcd-12ab-34cd-56ef-1234567890ab", "mrk-1234abcd12ab34cd56ef1234567890ab", arn, "alias/app"] {
            assert!(is_kms_key(key), "{key}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for key in ["", " ", "alias/a b", "alias/\u{e9}", &"k".repeat(257)] {
            assert!(!is_kms_key(key), "{key}");
        }
    }
}
