//! [`Role`]: a role to assume.

use std::fmt;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as ProvideCredentialsFuture;
use aws_credential_types::provider::{self, ProvideCredentials};
use aws_sdk_sts::Client;
use aws_sdk_sts::config::Builder;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;

use crate::account::is_account_id;
use crate::settings::{CONNECT_TIMEOUT, ClientSettings};

/// The default name of a session.
const SESSION_NAME: &str = "keystead";

/// The lengths of the ARN, the external id and the session name (AWS STS, `AssumeRole`).
const ARN_LENGTHS: std::ops::RangeInclusive<usize> = 20..=2048;
const EXTERNAL_ID_LENGTHS: std::ops::RangeInclusive<usize> = 2..=1224;
const SESSION_NAME_LENGTHS: std::ops::RangeInclusive<usize> = 2..=64;

/// A role to assume, as the user sets it.
#[derive(Clone, Default)]
pub(crate) struct Role {
    pub(crate) arn: Option<String>,
    pub(crate) external_id: Option<String>,
    pub(crate) session_name: Option<String>,
}

impl Role {
    /// Returns what is wrong with these settings and what to do, if something is.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let Some(arn) = &self.arn else {
            let is_alone = self.external_id.is_some() || self.session_name.is_some();
            return is_alone.then_some("external_id or session_name is set without a role: set role_arn, too");
        };
        let lies_in = |text: &str, lengths: std::ops::RangeInclusive<usize>, signs: &[u8]| {
            lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || signs.contains(&b))
        };
        if !is_role_arn(arn) || !ARN_LENGTHS.contains(&arn.len()) {
            return Some("role_arn is not the ARN of a role: write arn:aws:iam::ACCOUNT:role/NAME");
        }
        if self.external_id.as_ref().is_some_and(|id| !lies_in(id, EXTERNAL_ID_LENGTHS, b"_+=,.@:/-")) {
            return Some("external_id is not valid: write 2 to 1224 letters, digits and signs of _+=,.@:/-");
        }
        if self.session_name.as_ref().is_some_and(|name| !lies_in(name, SESSION_NAME_LENGTHS, b"_+=,.@-")) {
            return Some("session_name is not valid: write 2 to 64 letters, digits and signs of _+=,.@-");
        }
        None
    }

    /// Returns the provider of the role's credentials, if a role is set. `config` leads to AWS STS
    /// and has the credentials that assume the role.
    pub(crate) fn provider(self, config: &SdkConfig) -> Option<RoleProvider> {
        let arn = self.arn?;
        // The time limit for loading credentials covers these calls. Timeouts that are not disabled
        // here would be those of the store.
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .disable_operation_attempt_timeout()
            .disable_operation_timeout()
            .build();
        let retries = ClientSettings::new().retries(None);
        let client = Client::from_conf(Builder::from(config).timeout_config(timeouts).retry_config(retries).build());
        let session_name = self.session_name.unwrap_or_else(|| SESSION_NAME.to_owned());
        Some(RoleProvider { client, arn, external_id: self.external_id, session_name })
    }
}

/// Reports whether this is `arn:PARTITION:iam::ACCOUNT:role/NAME`.
fn is_role_arn(arn: &str) -> bool {
    let mut parts = arn.splitn(6, ':');
    let is_partition = |partition: &str| partition.starts_with("aws");
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    parts.next() == Some("arn")
        && parts.next().is_some_and(is_partition)
        && parts.next() == Some("iam")
        && parts.next() == Some("")
        && parts.next().is_some_and(is_account_id)
        && parts.next().and_then(|resource| resource.strip_prefix("role/")).is_some_and(is_name)
}

/// The provider of a role's credentials.
pub(crate) struct RoleProvider {
    client: Client,
    arn: String,
    external_id: Option<String>,
    session_name: String,
}

impl RoleProvider {
    async fn assume(&self) -> provider::Result {
        let request = self
            .client
            .assume_role()
            .role_arn(&self.arn)
            .role_session_name(&self.session_name)
            .set_external_id(self.external_id.clone());
        let answer = request.send().await.map_err(CredentialsError::provider_error)?;
        let incomplete = || CredentialsError::unhandled("response error");
        let given = answer.credentials.ok_or_else(incomplete)?;
        let end = SystemTime::try_from(given.expiration).map_err(|_| incomplete())?;
        let credentials = Credentials::builder()
            .access_key_id(given.access_key_id)
            .secret_access_key(given.secret_access_key)
            .session_token(given.session_token)
            .expiry(end)
            .provider_name("keystead");
        Ok(credentials.build())
    }
}

impl ProvideCredentials for RoleProvider {
    fn provide_credentials<'a>(&'a self) -> ProvideCredentialsFuture<'a>
    where
        Self: 'a,
    {
        ProvideCredentialsFuture::new(self.assume())
    }
}

/// Written by hand, because the client contains a provider of credentials.
impl fmt::Debug for RoleProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RoleProvider")
    }
}
