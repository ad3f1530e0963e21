//! [`AwsIdentity`]: the identity of an AWS store's data.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_sdk_sts::Client;
use aws_sdk_sts::config::Builder;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use keystead_core::{Operation, Result, StoreIdentity, StoreInfo};

use crate::account::is_account_id;
use crate::call::AwsCall;
use crate::failure::Service;
use crate::session::Session;

/// The time limit for one attempt of a call to STS, and half of the limit for the call. Many
/// networks reach only the store's service, and no caller should wait long for information that the
/// store does not need.
const STS_TIMEOUT: Duration = Duration::from_secs(3);

/// The identity of an AWS store's data: the partition, the region, the endpoint if one is set, and
/// the account as soon as a call has told it.
///
/// Clones share what has been learned. Reading and learning take no lock.
#[derive(Clone)]
pub struct AwsIdentity {
    /// The identity without the account.
    known: StoreInfo,
    account: Arc<OnceLock<String>>,
    /// True if two answers named different accounts. Neither of them identifies the store then.
    is_contradicted: Arc<AtomicBool>,
    sts: Sts,
    /// The credentials of the store's calls, unless its client was given ready-made and keeps them.
    session: Option<Session>,
}

/// The means of asking STS for the account.
#[derive(Clone)]
pub(crate) enum Sts {
    /// STS cannot be asked: a ready client does not expose its credentials, and an endpoint may
    /// serve one service only.
    Unknown,
    /// STS is reached with this configuration.
    Configured(Arc<SdkConfig>),
    /// STS may be reached with this configuration. Its endpoint is on the loopback interface:
    /// either an emulator that serves all services, or a tunnel to the store's service alone.
    Guessed(Arc<SdkConfig>),
}

impl AwsIdentity {
    pub(crate) fn new(info: StoreInfo, region: Option<&str>, endpoint: Option<&str>, sts: Sts) -> Self {
        let mut known = info.with_account(None::<String>);
        if let Some(region) = region {
            known = known.with_partition(partition_of(region)).with_region(region);
        }
        if let Some(url) = endpoint {
            known = known.with_endpoint(url);
        }
        Self { known, account: Arc::default(), is_contradicted: Arc::default(), sts, session: None }
    }

    /// Sets the session that loads the credentials of the store's calls.
    pub(crate) fn with_session(mut self, session: Option<Session>) -> Self {
        self.session = session;
        self
    }

    /// Creates a call with the store's credentials. They are loaded before its first attempt and
    /// within a time limit of their own, so that the timeouts of the call do not interrupt the
    /// loading.
    ///
    /// If the store's client was given ready-made, the SDK loads its credentials within the
    /// attempts.
    pub fn call(&self) -> AwsCall {
        AwsCall::of(self.session.clone())
    }

    /// Returns the store's description, with the account if it is known. It is unknown if the
    /// handle has reached two different accounts.
    pub fn info(&self) -> StoreInfo {
        match self.account.get().filter(|_| !self.is_contradicted.load(Ordering::Relaxed)) {
            Some(account) => self.known.clone().with_account(Some(account)),
            None => self.known.clone(),
        }
    }

    /// Learns the account from the ARN of one of the store's entries, as answers contain it. If it
    /// differs from what was learned before, because the credentials have changed, the account is
    /// unknown from then on.
    pub fn learn_from_arn(&self, arn: Option<&str>) {
        let identity = self.known.identity();
        if let Some(account) = arn.and_then(|arn| account_in(arn, identity.scheme(), identity.region())) {
            self.learn(account);
        }
    }

    fn learn(&self, account: &str) {
        if self.account.get_or_init(|| account.to_owned()) != account {
            self.is_contradicted.store(true, Ordering::Relaxed);
        }
    }

    /// Implements [`KeyStore::identify`](keystead_core::KeyStore::identify). If the account is not
    /// known, it asks AWS STS (`GetCallerIdentity`, which needs no permission).
    ///
    /// STS is not asked if the store's client was given ready-made, or if an endpoint is set that
    /// is not on the loopback interface. The identity then contains what is known, and the account
    /// is learned from the first answer that contains an ARN.
    ///
    /// # Errors
    /// The errors that are common to all methods of a store, if STS does not answer.
    pub async fn identify(&self) -> Result<StoreIdentity> {
        let config = match &self.sts {
            Sts::Configured(config) | Sts::Guessed(config) if self.account.get().is_none() => config,
            _ => return Ok(self.info().identity().clone()),
        };
        let service = Service { scheme: self.known.scheme(), name: "AWS STS", error_name: "AWSSecurityTokenService" };
        let call = self.call();
        let timeouts =
            TimeoutConfig::builder().operation_attempt_timeout(STS_TIMEOUT).operation_timeout(2 * STS_TIMEOUT).build();
        let client = Client::from_conf(Builder::from(config.as_ref()).timeout_config(timeouts).build());
        let request = client.get_caller_identity();
        match call.run(service, |_| None, request.customize().interceptor(call.attempts()).send()).await {
            Ok(answer) => {
                if let Some(account) = answer.account().filter(|account| is_account_id(account)) {
                    self.learn(account);
                }
            }
            Err(_) if matches!(self.sts, Sts::Guessed(_)) => {}
            Err(e) => return Err(e.during(Operation::Check, &[])),
        }
        Ok(self.info().identity().clone())
    }
}

/// Returns the partition of a region (AWS General Reference, partitions): `aws`, unless the
/// region's prefix belongs to another one.
fn partition_of(region: &str) -> &'static str {
    const PARTITIONS: [(&str, &str); 7] = [
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("us-iso-", "aws-iso"),
        ("us-isob-", "aws-iso-b"),
        ("eu-isoe-", "aws-iso-e"),
        ("us-isof-", "aws-iso-f"),
        ("eusc-", "aws-eusc"),
    ];
    let special = PARTITIONS.iter().find(|(prefix, _)| region.starts_with(prefix));
    special.map_or("aws", |(_, partition)| partition)
}

/// Returns the account in `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`, if the ARN is of this
/// service and, if a region is given, of this region.
fn account_in<'a>(arn: &'a str, service: &str, region: Option<&str>) -> Option<&'a str> {
    let mut parts = arn.splitn(6, ':');
    let is_arn = parts.next() == Some("arn") && parts.next().is_some_and(|partition| partition.starts_with("aws"));
    let is_of_service = parts.next() == Some(service);
    let arn_region = parts.next()?;
    let account = parts.next().filter(|account| is_account_id(account))?;
    let has_resource = parts.next().is_some_and(|resource| !resource.is_empty());
    let is_of_region = region.is_none_or(|region| region == arn_region);
    (is_arn && is_of_service && is_of_region && has_resource).then_some(account)
}

/// Written by hand, because an `SdkConfig` contains the provider of credentials.
impl fmt::Debug for AwsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsIdentity").field("info", &self.info()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> AwsIdentity {
        let info = StoreInfo::new("ssm", "/app/%s");
        AwsIdentity::new(info, Some("eu-west-1"), Some("https://me:secret@vpce.example/x"), Sts::Unknown)
    }

    #[test]
    fn the_partition_follows_from_the_region() {
        for (region, partition) in [
            ("us-east-1", "aws"),
            ("eu-west-1", "aws"),
            ("cn-north-1", "aws-cn"),
            ("us-gov-west-1", "aws-us-gov"),
            ("us-iso-east-1", "aws-iso"),
            ("us-isob-east-1", "aws-iso-b"),
            ("eu-isoe-west-1", "aws-iso-e"),
            ("us-isof-south-1", "aws-iso-f"),
            ("eusc-de-east-1", "aws-eusc"),
        ] {
            assert_eq!(partition_of(region), partition, "{region}");
        }
    }

    #[test]
    fn an_account_is_taken_from_a_strict_arn_only() {
        let account = |arn| account_in(arn, "ssm", Some("eu-west-1"));
        assert_eq!(account("arn:aws:ssm:eu-west-1:123456789012:parameter/a:b"), Some("123456789012"));
        assert_eq!(account_in("arn:aws-cn:ssm:cn-north-1:123456789012:parameter/a", "ssm", None), Some("123456789012"));
        for wrong in [
            "",
            "parameter/a",
            "arn:aws:ssm:eu-west-1:123456789012",
            "arn:aws:ssm:eu-west-1:123456789012:",
            "arn:aws:ssm:eu-west-1:12345678901:parameter/a",
            "arn:aws:ssm:eu-west-1:1234567890123:parameter/a",
            "arn:aws:ssm:eu-west-1:12345678901x:parameter/a",
            "arn:aws:ssm:eu-west-1::parameter/123456789012",
            "arn:aws:ssm:us-east-1:123456789012:parameter/a",
            "arn:aws:kms:eu-west-1:123456789012:key/a",
            "arn:other:ssm:eu-west-1:123456789012:parameter/a",
            "urn:aws:ssm:eu-west-1:123456789012:parameter/a",
        ] {
            assert_eq!(account(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn clones_share_the_account_and_a_second_one_makes_it_unknown() {
        let identity = identity();
        let clone = identity.clone();
        assert!(!clone.info().identity().is_fully_known());
        identity.learn_from_arn(None);
        identity.learn_from_arn(Some("no ARN"));
        identity.learn_from_arn(Some("arn:aws:ssm:eu-west-1:111111111111:parameter/app/a"));
        identity.learn_from_arn(Some("arn:aws:ssm:eu-west-1:111111111111:parameter/app/b"));
        assert_eq!(clone.info().identity().account(), Some("111111111111"));
        identity.learn_from_arn(Some("arn:aws:ssm:eu-west-1:222222222222:parameter/app/a"));
        assert_eq!(clone.info().identity().account(), None);
        identity.learn_from_arn(Some("arn:aws:ssm:eu-west-1:111111111111:parameter/app/a"));
        assert!(!clone.info().identity().is_fully_known());
    }

    #[test]
    fn the_info_says_where_the_data_is_without_a_secret() {
        let identity = identity();
        identity.learn_from_arn(Some("arn:aws:ssm:eu-west-1:111111111111:parameter/app/a"));
        let text = "ssm:/app/%s (region eu-west-1, endpoint https://vpce.example, account 111111111111)";
        assert_eq!(identity.info().to_string(), text);
        assert!(!format!("{identity:?}").contains("secret"));
    }
}
