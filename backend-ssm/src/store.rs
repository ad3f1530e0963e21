//! [`SsmStore`]: a key store in Parameter Store.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ssm::Client;
use aws_sdk_ssm::config::Builder;
use aws_sdk_ssm::operation::RequestId;
use aws_sdk_ssm::types::{Parameter, ParameterType};
use aws_types::SdkConfig;
use keystead_aws::{
    AwsFailure, AwsIdentity, AwsStore, ClientSettings, Page, StoreBuilder, WritePace, eventual, listing, probe_name,
};
use keystead_core::{
    BoxError, BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Durability, Effect, Erasure, Error,
    ErrorKind, Finality, KeyId, KeyStore, Operation, PutMode, Result, SecretKey, StoreIdentity, StoreInfo,
};
use zeroize::Zeroizing;

use crate::config::SsmConfig;
use crate::error::{SCHEME, SERVICE, advised, corrupt, kind, no_value, retry_rules};
use crate::{batch, describe, format, legacy, name, put};

/// The time that AWS asks to wait before a deleted name is created again.
const RECREATE_PAUSE: Duration = Duration::from_secs(30);

/// The largest number of parameters on a page of a listing (`GetParametersByPath`, `MaxResults`).
const PAGE: i32 = 10;

/// A key store in AWS SSM Parameter Store. Each key is a `SecureString` under the name that the
/// template gives its id.
///
/// Clones are handles on the same store.
#[derive(Clone)]
pub struct SsmStore {
    pub(crate) client: Client,
    pub(crate) config: SsmConfig,
    pub(crate) visibility_bound: Duration,
    pub(crate) identity: AwsIdentity,
    pub(crate) writes: WritePace,
}

/// The result of a put.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// The version that the put has made.
    pub(crate) version: i64,
    /// True if an earlier attempt of the same put may also have made a version.
    pub(crate) is_ambiguous: bool,
}

/// A builder of an [`SsmStore`].
pub type SsmStoreBuilder = StoreBuilder<SsmStore>;

impl AwsStore for SsmStore {
    type Client = Client;
    type Config = SsmConfig;

    const SCHEME: &'static str = SCHEME;
    const SERVICE_ID: &'static str = "SSM";

    fn client_from_config(config: &SdkConfig) -> Client {
        Client::from_conf(Builder::from(config).retry_classifier(retry_rules()).build())
    }

    fn configure_client(client: Client, settings: &ClientSettings) -> Client {
        let timeouts = settings.timeouts(client.config().timeout_config());
        let retries = settings.retries(client.config().retry_config());
        let config = client.config().to_builder().timeout_config(timeouts).retry_config(retries);
        Client::from_conf(config.retry_classifier(retry_rules()).build())
    }

    fn region_of(client: &Client) -> Option<&str> {
        client.config().region().map(AsRef::as_ref)
    }

    fn check_config(config: &SsmConfig) -> Result<(), BoxError> {
        Ok(config.check()?)
    }

    fn location_of(config: &SsmConfig) -> String {
        config.names().to_string()
    }

    fn from_parts(client: Client, config: SsmConfig, visibility_bound: Duration, identity: AwsIdentity) -> Self {
        let writes = WritePace::new(client.config().timeout_config(), client.config().retry_config());
        Self { client, config, visibility_bound, identity, writes }
    }
}

impl SsmStore {
    /// Creates a builder of a store with this configuration.
    pub fn builder(config: SsmConfig) -> SsmStoreBuilder {
        SsmStoreBuilder::new(config)
    }

    pub(crate) fn name(&self, id: &KeyId) -> String {
        self.config.names().name(id)
    }

    /// Writes a parameter in one call. A new parameter gets its tags and its description only
    /// without `overwrite`, because Parameter Store does not accept tags together with it.
    pub(crate) async fn write(&self, name: &str, value: &str, overwrite: bool) -> Result<Written, AwsFailure> {
        let call = self.identity.call();
        let put = || {
            let mut request = self
                .client
                .put_parameter()
                .name(name)
                .value(value)
                .r#type(ParameterType::SecureString)
                .overwrite(overwrite)
                .set_key_id(self.config.kms_key().map(str::to_owned))
                .set_tier(self.config.parameter_tier());
            if !overwrite {
                request = request.set_tags(put::sdk_tags(self.config.tags()));
                request = request.set_description(self.config.description_text().map(str::to_owned));
            }
            call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send())
        };
        match self.writes.run(SERVICE, put).await {
            Ok(answer) => {
                let is_ambiguous = call.attempts().earlier_attempt_may_have_applied();
                Ok(Written { version: answer.version, is_ambiguous })
            }
            Err(e) if overwrite && e.code() == Some("ValidationException") => {
                Err(e.with_kind(ErrorKind::Config, self.config.advice_for_invalid_put()))
            }
            Err(e) => Err(e),
        }
    }

    /// Settles a create that was refused although an earlier attempt of it may have been applied,
    /// by reading the key that exists.
    async fn settled_create(&self, id: &KeyId, key: &SecretKey, refusal: AwsFailure) -> Result<()> {
        let unsettled = |e: Error, text: &'static str| e.with_effect(Effect::Unknown).with_source(text);
        let name = self.name(id);
        match eventual::visible_within(self, id, self.visibility_bound).await {
            Ok(Some(standing)) if standing == *key => Ok(()),
            Ok(Some(_)) => Err(unsettled(
                refusal.during(Operation::Create, &[id.as_str(), &name]),
                "another key exists; ours may have existed for a moment, because the answer to the first attempt was \
                 lost: read the key",
            )),
            // The key that exists may be ours. The reason why it cannot be read is the error.
            Err(e) => Err(e.with_operation(Operation::Create).with_effect(Effect::Unknown)),
            Ok(None) => Err(unsettled(
                refusal.with_kind(ErrorKind::Conflict, "try again").during(Operation::Create, &[id.as_str(), &name]),
                "the answer to the first attempt was lost, and no key is readable yet: read before trying again",
            )
            .with_retry_after(RECREATE_PAUSE)),
        }
    }

    /// Returns one page of the listing.
    async fn page(&self, token: Option<String>) -> Result<Page> {
        let call = self.identity.call();
        let (path, deeper) = name::listed_path(self.config.names());
        let request = self
            .client
            .get_parameters_by_path()
            .path(path)
            .recursive(deeper)
            .with_decryption(false)
            .max_results(PAGE)
            .set_next_token(token);
        let answer = request.customize().interceptor(call.attempts()).send();
        let answer = call.run(SERVICE, kind, answer).await.map_err(|e| e.during(Operation::List, &[path]))?;
        self.identity.learn_from_arn(answer.parameters().iter().find_map(Parameter::arn));
        let ids = answer.parameters().iter().filter_map(Parameter::name);
        let ids = ids.filter_map(|name| self.config.names().id(name)).collect();
        let request_id = answer.request_id().map(str::to_owned);
        Ok(Page { entries: ids, next: answer.next_token, request_id })
    }
}

#[async_trait]
impl KeyStore for SsmStore {
    fn info(&self) -> StoreInfo {
        self.identity.info()
    }

    fn capabilities(&self) -> Capabilities {
        let consistency = Consistency::Eventual { within: self.visibility_bound };
        Capabilities::new(Durability::Replicated, consistency, DeletionGrade::Immediate, Some(consistency))
            .with_batch_size(batch::NAMES)
            .with_list_page_size(PAGE as usize)
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        legacy::refuse_reserved(self, id)?;
        let call = self.identity.call();
        let name = self.name(id);
        let request = self.client.get_parameter().name(&name).with_decryption(true);
        let answer = request.customize().interceptor(call.attempts()).send();
        match call.run(SERVICE, kind, answer).await {
            Ok(mut answer) => {
                self.identity.learn_from_arn(answer.parameter().and_then(Parameter::arn));
                key_of(answer.parameter.take(), answer.request_id())
            }
            Err(e) => Err(e.during(Operation::Get, &[id.as_str(), &name])),
        }
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let operation = match mode {
            PutMode::Overwrite => Operation::Put,
            PutMode::Create => Operation::Create,
            _ => return Err(Error::new(ErrorKind::Unsupported, Operation::Put, SCHEME)),
        };
        legacy::refuse_write(self, operation)?;
        let name = self.name(id);
        let value = format::encoded(key);
        let written = match mode {
            PutMode::Overwrite if self.config.has_creation_settings() => {
                put::create_or_overwrite(self, &name, &value).await
            }
            mode => self.write(&name, &value, mode == PutMode::Overwrite).await.map(drop),
        };
        match written {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == ErrorKind::AlreadyExists && e.is_ambiguous() => self.settled_create(id, key, e).await,
            Err(e) => Err(advised(e).during(operation, &[id.as_str(), &name, &value])),
        }
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        legacy::refuse_write(self, Operation::Delete)?;
        let call = self.identity.call();
        let name = self.name(id);
        let delete = || {
            let request = self.client.delete_parameter().name(&name);
            call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send())
        };
        match self.writes.run(SERVICE, delete).await {
            Ok(_) => {
                let unsettled = call.attempts().earlier_attempt_may_have_applied();
                Ok(Deletion::new(Finality::Immediate).with_unsettled(unsettled))
            }
            // An earlier attempt may have deleted the key. Whether it existed can no longer be
            // found out.
            Err(e) if e.kind() == ErrorKind::NotFound && e.is_ambiguous() => {
                Ok(Deletion::new(Finality::Immediate).with_unsettled(true))
            }
            Err(e) => Err(e.during(Operation::Delete, &[id.as_str(), &name])),
        }
    }

    /// Lists the ids. It needs `ssm:GetParametersByPath` on the path above the ids, and no
    /// permission on the KMS key. A legacy path needs `ssm:DescribeParameters` instead.
    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        match self.config.is_legacy() {
            true => listing(SERVICE, |token| Box::pin(describe::ids(self, token))),
            false => listing(SERVICE, |token| Box::pin(self.page(token))),
        }
    }

    /// Reads a parameter that belongs to no id, which proves that Parameter Store is reachable and
    /// that reading is allowed.
    async fn check(&self) -> Result<()> {
        let call = self.identity.call();
        let request = self.client.get_parameter().name(probe_name(self.config.names())).with_decryption(true);
        let answer = request.customize().interceptor(call.attempts()).send();
        match call.run(SERVICE, kind, answer).await {
            Ok(answer) => {
                // Wiped, because this is somebody else's value.
                drop(answer.parameter.and_then(|parameter| parameter.value).map(Zeroizing::new));
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e.during(Operation::Check, &[])),
        }
    }

    /// Asks AWS STS for the account, unless an answer has already told it. That needs no
    /// permission.
    async fn identify(&self) -> Result<StoreIdentity> {
        self.identity.identify().await
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        batch::get(self, ids).await
    }

    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        batch::delete(self, ids).await
    }

    /// Waits, for at most the visibility bound, for the key of another creator that is not visible
    /// yet. After that it fails with `Conflict` and a pause of 30 s, which is what AWS asks for
    /// between a delete and a create of the same name.
    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        eventual::get_or_create(self, id, candidate, self.visibility_bound, RECREATE_PAUSE).await
    }

    /// Takes as long as the visibility bound, because the read that verifies the erasure must not
    /// be stale.
    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        eventual::erase_key(self, id).await
    }
}

/// Returns the key in a parameter. `request_id` is the request id of the answer.
pub(crate) fn key_of(parameter: Option<Parameter>, request_id: Option<&str>) -> Result<SecretKey> {
    let Some(parameter) = parameter else { return Err(no_value(request_id)) };
    let is_ours = parameter.r#type == Some(ParameterType::SecureString);
    match parameter.value.map(Zeroizing::new) {
        None => Err(no_value(request_id)),
        Some(_) if !is_ours => Err(corrupt("the parameter is not a SecureString", request_id)),
        Some(value) => format::decoded(&value)
            .ok_or_else(|| corrupt("the parameter's value is not base64 of 1 to 3072 bytes", request_id)),
    }
}

impl fmt::Debug for SsmStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SsmStore").field("names", &self.config.names().to_string()).finish_non_exhaustive()
    }
}
