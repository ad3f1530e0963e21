//! The fixed texts in the errors of the SDK's credentials providers, and their meaning.

use keystead_core::ErrorKind;

/// The SDK's answer to every call but the first that needs an unusable profile.
pub(crate) const TOLD_BEFORE: &str = "profile file credentials provider initialization error already taken";

/// The text before the reason why a profile is unusable.
const NOT_BUILT: &str = "ProfileFile provider could not be built: ";

/// The longest name of a provider or a profile that is shown.
const LONGEST_NAME: usize = 64;

/// The known beginnings of texts, each with the kind of the failure and our sentence for it.
const KNOWN: [(&str, ErrorKind, &str); 28] = [
    (
        "the SSO token has expired",
        ErrorKind::Unauthenticated,
        "no AWS credentials: the session of the profile has expired: run aws sso login",
    ),
    (
        "failed to load the cached SSO token",
        ErrorKind::Unauthenticated,
        "no AWS credentials: the profile has no session here: run aws sso login",
    ),
    (
        "invalid JSON in cached SSO token file",
        ErrorKind::Unauthenticated,
        "no AWS credentials: the saved session of the profile is damaged: run aws sso login",
    ),
    (
        "cached Login token is expired",
        ErrorKind::Unauthenticated,
        "no AWS credentials: the session of the profile has expired: run aws login",
    ),
    (
        "failed to refresh cached Login token",
        ErrorKind::Unauthenticated,
        "no AWS credentials: the session of the profile could not be renewed: run aws login",
    ),
    (
        "failed to load cached Login token",
        ErrorKind::Unauthenticated,
        "no AWS credentials: the profile has no session here: run aws login",
    ),
    (
        "invalid JSON in cached Login token file",
        ErrorKind::Unauthenticated,
        "no AWS credentials: the saved session of the profile is damaged: run aws login",
    ),
    (
        "failed to read `",
        ErrorKind::Unauthenticated,
        "no AWS credentials: the profile's saved session cannot be read: run aws sso login or aws login",
    ),
    (
        "missing field `",
        ErrorKind::Unauthenticated,
        "no AWS credentials: the profile's saved session lacks a field: run aws sso login or aws login",
    ),
    (
        "Error retrieving credentials from external process, could not parse response",
        ErrorKind::Unauthenticated,
        "no AWS credentials: what credential_process prints is not the JSON that AWS defines: correct its command",
    ),
    (
        "Error retrieving credentials from external process",
        ErrorKind::Unauthenticated,
        "no AWS credentials: credential_process cannot be run: correct its command",
    ),
    (
        "Error retrieving credentials: external process",
        ErrorKind::Unauthenticated,
        "no AWS credentials: credential_process was ended by a signal: run its command by hand",
    ),
    (
        "failed to load credentials [",
        ErrorKind::Unauthenticated,
        "no AWS credentials: the container's credentials endpoint refused: check the role of the task",
    ),
    (
        "Error retrieving credentials from IMDS",
        ErrorKind::Unauthenticated,
        "no AWS credentials: the instance metadata service refused: check the role of the instance",
    ),
    (
        "Incorrect IMDS/IAM configuration",
        ErrorKind::Config,
        "no AWS credentials: the role of the instance cannot be assumed: let its trust policy name EC2",
    ),
    (
        "failed to build IMDS client",
        ErrorKind::Config,
        "AWS_EC2_METADATA_SERVICE_ENDPOINT or its _MODE is not valid: correct it, or unset it",
    ),
    (
        "invalid relative URI for ECS provider",
        ErrorKind::Config,
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is not a path: correct it",
    ),
    (
        "invalid full URI for ECS provider",
        ErrorKind::Config,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI is not allowed: use HTTPS, or an address of this machine, ECS or EKS",
    ),
    (
        "the auth token could not be used as an HTTP header value",
        ErrorKind::Config,
        "AWS_CONTAINER_AUTHORIZATION_TOKEN or its file is not the value of a header: remove the line breaks from it",
    ),
    (
        "WebIdentityToken was not valid UTF-8",
        ErrorKind::Config,
        "the file that AWS_WEB_IDENTITY_TOKEN_FILE names is not a token: correct its path",
    ),
    (
        "invalid profile: ",
        ErrorKind::Config,
        "the AWS profile files cannot be parsed: correct ~/.aws/config and ~/.aws/credentials, or the files that \
         AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name",
    ),
    ("profile formed an infinite loop", ErrorKind::Config, "the AWS profile is its own source: correct source_profile"),
    (
        "invalid credential source in ",
        ErrorKind::Config,
        "the AWS profile has no usable source of credentials: correct source_profile, credential_source and the keys",
    ),
    (
        "missing credential source in ",
        ErrorKind::Config,
        "the AWS profile has no source of credentials: set source_profile or credential_source",
    ),
    (
        "profile referenced `",
        ErrorKind::Config,
        "the AWS profile has an unknown credential_source: use Environment, Ec2InstanceMetadata or EcsContainer",
    ),
    (
        "sso-session named `",
        ErrorKind::Config,
        "the AWS profile names an sso_session that is not in the file: add that section, or correct the name",
    ),
    ("request has timed out", ErrorKind::Timeout, "no AWS credentials: their provider did not answer: try again"),
    (
        "response error",
        ErrorKind::Unavailable,
        "no AWS credentials: their provider gave an answer that cannot be read: try again",
    ),
];

/// Returns the kind and our sentence for a text of the SDK, if the text is known.
pub(crate) fn known(text: &str) -> Option<(ErrorKind, String)> {
    let text = text.strip_prefix(NOT_BUILT).unwrap_or(text);
    if let Some(profile) = reason(text).filter(|reason| reason.is_about_a_profile) {
        let sentence = format!("no AWS credentials: {}: correct AWS_PROFILE, or the profile", profile.text);
        return Some((ErrorKind::Unauthenticated, sentence));
    }
    if text.starts_with("profile `") && text.contains("` has invalid SSO config") {
        let sentence = "the sso settings of the AWS profile do not fit together: set sso_session, sso_account_id and \
                        sso_role_name in it, and the rest in the section of the session";
        return Some((ErrorKind::Config, sentence.to_owned()));
    }
    let known = KNOWN.iter().find(|(beginning, ..)| text.starts_with(beginning));
    known.map(|(_, kind, sentence)| (*kind, (*sentence).to_owned()))
}

/// The reason why a provider has no credentials.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    pub(crate) text: String,
    pub(crate) is_about_a_profile: bool,
}

/// Returns the reason that a text of the SDK gives, in our words.
pub(crate) fn reason(text: &str) -> Option<Reason> {
    let known = match text {
        "environment variable not set" | "ECS provider not configured" | "$AWS_WEB_IDENTITY_TOKEN_FILE was not set" => {
            "not set up"
        }
        "AWS_ROLE_ARN environment variable must be set" => "AWS_WEB_IDENTITY_TOKEN_FILE is set, but not AWS_ROLE_ARN",
        "received 404 from IMDS" => "no role is attached to this instance",
        "could not communicate with IMDS" => "not reached",
        _ if text.starts_with("IMDS disabled by ") => "switched off",
        _ => return of_profile(text),
    };
    Some(Reason { text: known.to_owned(), is_about_a_profile: false })
}

/// Returns the reason if it is about a profile that is missing or lacks a setting.
fn of_profile(text: &str) -> Option<Reason> {
    let about = |text: String| Some(Reason { text, is_about_a_profile: true });
    if text.starts_with("selected profile will resolve an access token") {
        return about("the profile lacks sso_account_id and sso_role_name".to_owned());
    }
    let (name, rest) = text.strip_prefix("profile `")?.split_once("` was not defined: ")?;
    let name = if is_plain_name(name) { name } else { "with that name" };
    match rest.strip_prefix('`').and_then(|rest| rest.strip_suffix("` was missing")) {
        Some(field) if is_plain_name(field) => about(format!("the profile {name} lacks {field}")),
        _ => about(format!("there is no profile {name}")),
    }
}

/// Reports whether this reads like the name of a provider, a profile or a setting: letters, digits
/// and a few other characters.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.@-".contains(&byte);
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_plain)
}

/// Returns the status that a container's endpoint answered.
pub(crate) fn status_of_the_container(text: &str) -> Option<u16> {
    let rest = text.strip_prefix("Non-success status from HTTP credential provider: ")?;
    number_in(rest.strip_prefix("StatusCode(").unwrap_or(rest))
}

/// Returns the exit status of `credential_process`.
pub(crate) fn exit_status(text: &str) -> Option<u16> {
    let rest = text.strip_prefix("Error retrieving credentials: external process exited with code ")?;
    number_in(rest.strip_prefix("exit status: ").or_else(|| rest.strip_prefix("exit code: "))?)
}

/// Returns the Cargo feature that a profile needs and that this build lacks.
pub(crate) fn missing_feature(text: &str) -> Option<&'static str> {
    let text = text.strip_prefix(NOT_BUILT).unwrap_or(text);
    let rest = text.strip_prefix("This behavior requires following cargo feature(s) enabled: ")?;
    let features = ["sso", "credentials-process", "credentials-login"];
    features.into_iter().find(|feature| rest.strip_prefix(feature).is_some_and(|rest| rest.starts_with('.')))
}

fn number_in(text: &str) -> Option<u16> {
    text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
