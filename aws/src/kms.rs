//! The forms in which a KMS key can be named.

use crate::account::is_account_id;

/// The longest key id, ARN or alias (`PutParameter`, `KeyId`).
const LONGEST: usize = 256;

/// Reports whether this has the form of a key id, of `alias/...`, or of the ARN of a key or an
/// alias. Only AWS knows whether such a key exists.
///
/// Key ids and aliases are looked up in the caller's account. A key of another account is named by
/// its ARN.
pub fn is_kms_key(text: &str) -> bool {
    let literal = |byte: u8| byte.is_ascii_alphanumeric() || b":/_-".contains(&byte);
    let is_literal = !text.is_empty() && text.len() <= LONGEST && text.bytes().all(literal);
    is_literal && (!is_arn(text) || kms_key_region(text).is_some())
}

/// Reports whether this is the ARN of any resource.
pub fn is_arn(text: &str) -> bool {
    text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("arn:"))
}

/// Returns the region in the ARN of a KMS key or alias; `None` if this is not such an ARN.
pub fn kms_key_region(text: &str) -> Option<&str> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let &[arn, _, service, region, account, resource] = parts.as_slice() else { return None };
    let name = resource.strip_prefix("key/").or_else(|| resource.strip_prefix("alias/"))?;
    let is_named = !name.is_empty() && !name.contains(':');
    (arn == "arn" && service == "kms" && !region.is_empty() && is_account_id(account) && is_named).then_some(region)
}

/// Reports whether two names certainly refer to the same KMS key, from the point of view of a
/// resource with this ARN: a bare key id or alias belongs to the resource's region and account.
///
/// An alias and a key id are never the same here, although they may refer to the same key.
pub fn is_same_kms_key(one: &str, other: &str, resource_arn: Option<&str>) -> bool {
    one == other || full_name(one, resource_arn).is_some_and(|one| Some(one) == full_name(other, resource_arn))
}

/// Returns the region, the account, and `key/...` or `alias/...` of a KMS key.
fn full_name(key: &str, resource_arn: Option<&str>) -> Option<(String, String, String)> {
    if is_arn(key) {
        let mut parts = key.splitn(6, ':').skip(3).map(str::to_owned);
        return Some((parts.next()?, parts.next()?, parts.next()?));
    }
    let mut parts = resource_arn?.splitn(6, ':').skip(3).map(str::to_owned);
    let resource = if key.starts_with("alias/") { key.to_owned() } else { format!("key/{key}") };
    Some((parts.next()?, parts.next()?, resource))
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
    fn keys_of_another_account_are_accepted_by_the_arn_of_the_key_or_of_its_alias() {
        for key in [
            "arn:aws:kms:eu-west-1:999999999999:key/mrk-1234abcd12ab34cd56ef1234567890ab",
            "arn:aws:kms:eu-west-1:999999999999:alias/shared/app",
            "arn:aws-us-gov:kms:us-gov-west-1:999999999999:alias/app",
        ] {
            assert!(is_kms_key(key), "{key}");
        }
        assert_eq!(kms_key_region("arn:aws:kms:eu-west-1:999999999999:alias/app"), Some("eu-west-1"));
        assert_eq!(kms_key_region("alias/app"), None);
    }

    #[test]
    fn texts_that_do_not_name_a_kms_key_are_refused() {
        for key in [
            "",
            " ",
            "alias/a b",
            "alias/\u{e9}",
            &"k".repeat(257),
            "arn:aws:iam::123456789012:role/app",
            "arn:aws:kms:eu-west-1:12345:key/k",
            "arn:aws:kms:eu-west-1:123456789012:key/",
            "arn:aws:kms:eu-west-1:123456789012:app",
            "arn:aws:kms::123456789012:alias/app",
        ] {
            assert!(!is_kms_key(key), "{key}");
        }
    }

    #[test]
    fn a_key_is_known_by_its_short_name_only_in_the_account_of_the_resource() {
        let resource = Some("arn:aws:ssm:eu-west-1:123456789012:parameter/app/x");
        let own = "arn:aws:kms:eu-west-1:123456789012:";
        let foreign = "arn:aws:kms:eu-west-1:999999999999:";
        for (one, other, expected) in [
            ("alias/app", "alias/app", true),
            ("alias/app", &format!("{own}alias/app"), true),
            (&format!("{own}key/1"), "1", true),
            ("alias/app", &format!("{foreign}alias/app"), false),
            (&format!("{own}key/1"), &format!("{foreign}key/1"), false),
            ("alias/app", "1", false),
            ("alias/app", "alias/other", false),
        ] {
            assert_eq!(is_same_kms_key(one, other, resource), expected, "{one} {other}");
        }
        assert!(!is_same_kms_key("alias/app", &format!("{own}alias/app"), None));
    }
}
