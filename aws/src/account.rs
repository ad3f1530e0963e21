//! [`is_account_id`]: the form of an AWS account id.

/// The number of digits of an account id (AWS Account Management, account identifiers).
const DIGITS: usize = 12;

/// Reports whether this has the form of an AWS account id: 12 digits.
pub(crate) fn is_account_id(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())
}
