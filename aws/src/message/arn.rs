//! The ARNs that operators need and that identify no user: those of principals and KMS keys.

use super::{REDACTED, contains_word};
use crate::account::is_account_id;

/// The words that occur in every such ARN. An id that is one of them does not hide the ARN.
const VOCABULARY: [&str; 14] = [
    "alias",
    "arn",
    "assumed",
    "assumed-role",
    "aws",
    "federated-user",
    "iam",
    "key",
    "kms",
    "policy",
    "redacted",
    "role",
    "sts",
    "user",
];

/// Returns the part that may be shown of a word that is the ARN of a principal, a policy or a KMS
/// key, or the alias of a KMS key. Returns `None` for any other word.
///
/// The name of a session is chosen by whoever assumes the role and may be a user's, so it is
/// replaced. So is the name of a federated user.
pub(super) fn shown(word: &str) -> Option<String> {
    if let Some(name) = word.strip_prefix("alias/") {
        return is_name(name).then(|| word.to_owned());
    }
    let mut parts = word.splitn(6, ':');
    let is_arn = parts.next() == Some("arn") && parts.next().is_some_and(is_partition);
    let service = parts.next()?;
    let is_region = parts.next().is_some_and(is_region);
    let is_account = parts.next().is_some_and(is_account);
    let resource = parts.next()?;
    if !(is_arn && is_region && is_account) {
        return None;
    }
    let (kind, name) = resource.split_once('/').unwrap_or((resource, ""));
    match (service, kind) {
        ("iam", "user" | "role" | "policy") | ("kms", "key" | "alias") => is_name(name).then(|| word.to_owned()),
        ("iam", "root") => name.is_empty().then(|| word.to_owned()),
        ("sts", "assumed-role") => {
            let (role, session) = name.split_once('/')?;
            let up_to_session = word.strip_suffix(session)?;
            (is_name(role) && is_session(session)).then(|| format!("{up_to_session}{REDACTED}"))
        }
        ("sts", "federated-user") if is_session(name) => Some(format!("{}{REDACTED}", word.strip_suffix(name)?)),
        _ => None,
    }
}

/// Reports whether a sensitive text occurs in the shown part of an ARN: as a name, or as any other
/// part that is not the same in all ARNs.
pub(super) fn contains(shown: &str, text: &str) -> bool {
    if !VOCABULARY.contains(&text) {
        return contains_word(shown, text);
    }
    shown.split_once('/').is_some_and(|(_, name)| contains_word(name.strip_suffix(REDACTED).unwrap_or(name), text))
}

fn is_partition(text: &str) -> bool {
    text.starts_with("aws") && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

/// Reports whether this is a region, or empty as in the ARN of a principal.
fn is_region(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Reports whether this is an account id, or `aws`, which the ARNs of AWS's own policies have in
/// its place.
fn is_account(text: &str) -> bool {
    text == "aws" || is_account_id(text)
}

/// Reports whether this consists of the characters of IAM's and KMS's names (IAM and STS quotas;
/// KMS, `CreateAlias`), with a letter or digit in each part between slashes.
fn is_name(text: &str) -> bool {
    let is_literal = |byte| is_literal(byte) || byte == b'/';
    text.bytes().all(is_literal) && text.split('/').all(|part| part.contains(|c: char| c.is_ascii_alphanumeric()))
}

/// Reports whether this can be the name of a session (STS, `AssumeRole`), or has already replaced
/// one. Its last characters may be missing, if they were taken for punctuation.
fn is_session(text: &str) -> bool {
    text == REDACTED || text.bytes().all(is_literal)
}

fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::super::redacted;
    use super::*;

    #[test]
    fn principals_and_kms_keys_are_shown() {
        for arn in [
            "arn:aws:iam::123456789012:user/division/deploy",
            "arn:aws:iam::123456789012:user/ops@example.com",
            "arn:aws-cn:iam::123456789012:role/app",
            "arn:aws:iam::aws:policy/ReadOnlyAccess",
            "arn:aws:iam::123456789012:root",
            "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:kms:us-east-1:123456789012:alias/app/keys",
            "alias/app",
        ] {
            assert_eq!(shown(arn).as_deref(), Some(arn));
        }
    }

    #[test]
    fn sessions_are_not_shown() {
        for (arn, expected) in [
            (
                "arn:aws:sts::123456789012:assumed-role/app/alice",
                "arn:aws:sts::123456789012:assumed-role/app/<redacted>",
            ),
            ("arn:aws:sts::123456789012:federated-user/alice", "arn:aws:sts::123456789012:federated-user/<redacted>"),
        ] {
            assert_eq!(shown(arn).as_deref(), Some(expected));
        }
    }

    #[test]
    fn nothing_else_is_shown() {
        for word in [
            "arn:aws:ssm:us-east-1:123456789012:parameter/app/alice",
            "arn:aws:secretsmanager:us-east-1:123456789012:secret:app/alice-a1b2c3",
            "arn:aws:iam::123456789012:user/",
            "arn:aws:iam::123456789012:user/.",
            "arn:aws:iam::123456789012:user/a:b",
            "arn:aws:iam::12345678901:user/app",
            "arn:aws:iam::alice:user/app",
            "arn:aws:sts::123456789012:assumed-role/app",
            "arn:aws:sts::123456789012:assumed-role/app/alice/session",
            "arn:aws:sts::123456789012:assumed-role//alice",
            "arn:Alice:iam::123456789012:user/app",
            "alias/",
            "alias",
            "",
        ] {
            assert_eq!(shown(word), None, "{word}");
        }
    }

    #[test]
    fn an_arn_that_names_the_user_is_replaced() {
        for (arn, id) in [
            ("arn:aws:iam::123456789012:user/alice", "alice"),
            ("arn:aws:iam::123456789012:user/alice-dev", "alice"),
            ("arn:aws:iam::123456789012:user/alice@example.com", "alice@example.com"),
            ("arn:aws:iam::123456789012:user/user", "user"),
            ("arn:aws:iam::123456789012:user/app", "user/app"),
            ("arn:aws:sts::123456789012:assumed-role/alice/session", "alice"),
            ("arn:aws:kms:us-east-1:123456789012:alias/alice", "alice"),
            ("alias/alice", "alice"),
            ("alias/alice", "alias/alice"),
            ("arn:aws:iam::123456789012:root", "123456789012"),
            ("arn:aws:iam::123456789012:root", "arn:aws:iam::123456789012:root"),
        ] {
            assert_eq!(redacted(&format!("User: {arn} is denied"), &[id]), "User: <redacted> is denied", "{arn} {id}");
        }
    }

    #[test]
    fn an_id_that_occurs_in_every_arn_hides_none() {
        let message = "User: arn:aws:sts::123456789012:assumed-role/app/<redacted> is denied";
        for id in ["arn", "aws", "sts", "role", "assumed-role", "redacted"] {
            assert_eq!(redacted(message, &[id]), message, "{id}");
        }
    }
}
