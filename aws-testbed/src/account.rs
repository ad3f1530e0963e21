//! [`Account`]: a real AWS account for the conformance suite, used only if it is asked for.

use keystead_core::BoxError;

const ON: &str = "KEYSTEAD_TEST_AWS";
const PREFIX: &str = "KEYSTEAD_TEST_AWS_PREFIX";
const KMS_KEY: &str = "KEYSTEAD_TEST_AWS_KMS_KEY";

/// The place in a real AWS account where the suite may write. The region and the credentials come
/// from the SDK's default chains.
#[derive(Clone, Debug)]
pub struct Account {
    /// The prefix of all names, such as `/keystead-test`.
    pub prefix: String,
    /// The KMS key under which keys are encrypted.
    pub kms_key: String,
}

impl Account {
    /// Returns the account that the variables `KEYSTEAD_TEST_AWS=1`, `KEYSTEAD_TEST_AWS_PREFIX` and
    /// `KEYSTEAD_TEST_AWS_KMS_KEY` describe; `None` if the first of them is not set.
    ///
    /// # Errors
    /// A text that says which variable is missing or wrong.
    pub fn from_environment() -> Result<Option<Self>, BoxError> {
        match std::env::var_os(ON) {
            None => return Ok(None),
            Some(value) if value == "1" => {}
            Some(_) => return Err(format!("{ON} is set, but not to 1: set it to 1 to use a real account").into()),
        }
        let needed = |name: &str| {
            let value = std::env::var(name).ok().filter(|value| !value.is_empty());
            value.ok_or_else(|| format!("{ON}=1 needs {name}: set it, or unset {ON}"))
        };
        let account = Self { prefix: needed(PREFIX)?, kms_key: needed(KMS_KEY)? };
        match account.prefix.starts_with('/') && !account.prefix.ends_with('/') {
            true => Ok(Some(account)),
            false => {
                Err(format!("{PREFIX} does not begin with a slash, or ends with one: set one such as /keystead-test")
                    .into())
            }
        }
    }
}
