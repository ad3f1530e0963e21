//! [`SecretsManagerStore`]: a key store in Secrets Manager.

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::Builder;
use aws_sdk_secretsmanager::operation::RequestId;
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueOutput;
use aws_sdk_secretsmanager::primitives::Blob;
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType, SecretListEntry, Tag};
use aws_types::SdkConfig;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keystead_aws::{
    AwsFailure, AwsIdentity, AwsStore, ClientSettings, Page, StoreBuilder, Tags, WritePace, eventual, listing,
    probe_name,
};
use keystead_core::{
    BoxError, BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Durability, Erasure, Error, ErrorKind,
    Finality, KeyId, KeyStore, Operation, PutMode, Result, SecretKey, StoreIdentity, StoreInfo,
};
use zeroize::Zeroizing;

use crate::config::SecretsManagerConfig;
use crate::description::{RECREATE_PAUSE, SecretDescription, moment, refine_absence, refine_error, refine_exists};
use crate::error::{INVALID_PARAMETER, SCHEME, SERVICE, corrupt, kind, retry_rules};
use crate::{batch, replica};

/// The largest number of secrets on a page of a listing (`ListSecrets`, `MaxResults`).
const PAGE: i32 = 100;

/// The number of times that a put tries to overwrite a secret and then to create one, if others
/// create and delete it at the same time.
const PUT_ROUNDS: u32 = 3;

const CONTENDED: &str = "the name is taken, but no secret can be written under it: it is being created, deleted, or \
                         released after a forced delete; try again after the pause";

const WITHOUT_REPLICAS: &str = "the secret's replicas in other regions were removed, but the key was not deleted: \
                                delete it again";

/// A key store in AWS Secrets Manager. Each key is the binary value of a secret under the name that
/// the template gives its id.
///
/// Clones are handles on the same store.
#[derive(Clone)]
pub struct SecretsManagerStore {
    pub(crate) client: Client,
    pub(crate) config: SecretsManagerConfig,
    pub(crate) visibility_bound: Duration,
    pub(crate) identity: AwsIdentity,
    pub(crate) writes: WritePace,
}

/// A builder of a [`SecretsManagerStore`].
pub type SecretsManagerStoreBuilder = StoreBuilder<SecretsManagerStore>;

impl AwsStore for SecretsManagerStore {
    type Client = Client;
    type Config = SecretsManagerConfig;

    const SCHEME: &'static str = SCHEME;
    const SERVICE_ID: &'static str = "Secrets Manager";

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

    fn check_config(config: &SecretsManagerConfig) -> Result<(), BoxError> {
        Ok(config.check()?)
    }

    fn location_of(config: &SecretsManagerConfig) -> String {
        config.names().to_string()
    }

    fn from_parts(
        client: Client,
        config: SecretsManagerConfig,
        visibility_bound: Duration,
        identity: AwsIdentity,
    ) -> Self {
        let writes = WritePace::new(client.config().timeout_config(), client.config().retry_config());
        Self { client, config, visibility_bound, identity, writes }
    }
}

impl SecretsManagerStore {
    /// Creates a builder of a store with this configuration.
    pub fn builder(config: SecretsManagerConfig) -> SecretsManagerStoreBuilder {
        SecretsManagerStoreBuilder::new(config)
    }

    pub(crate) fn name(&self, id: &KeyId) -> String {
        self.config.names().name(id)
    }

    /// Writes a new version of an existing secret.
    async fn put_value(&self, name: &str, key: &SecretKey) -> Result<(), AwsFailure> {
        let call = self.identity.call();
        let token = request_token();
        let put = || {
            let request =
                self.client.put_secret_value().secret_id(name).secret_binary(blob(key)).client_request_token(&token);
            call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send())
        };
        let answer = self.writes.run(SERVICE, put).await?;
        self.identity.learn_from_arn(answer.arn());
        Ok(())
    }

    /// Creates a secret. If the secret exists, the request token tells whether an earlier attempt
    /// created it.
    async fn create(&self, name: &str, key: &SecretKey) -> Result<(), AwsFailure> {
        let call = self.identity.call();
        let token = request_token();
        let create = || {
            let request = self
                .client
                .create_secret()
                .name(name)
                .secret_binary(blob(key))
                .kms_key_id(self.config.kms_key())
                .set_tags(sdk_tags(self.config.tags()))
                .set_description(self.config.description_text().map(str::to_owned))
                .set_add_replica_regions(replica::to_sdk(self.config.replicas()))
                .client_request_token(&token);
            call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send())
        };
        match self.writes.run(SERVICE, create).await {
            Ok(answer) => {
                self.identity.learn_from_arn(answer.arn());
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists => refine_exists(self, name, &token, e).await,
            Err(e) => Err(refine_error(self, name, e, Operation::Create).await),
        }
    }

    /// Writes a new version of the secret if it exists, and otherwise creates it.
    async fn overwrite(&self, name: &str, key: &SecretKey) -> Result<(), AwsFailure> {
        let mut refusal = None;
        // A call does not know whether an earlier call of this put may have been applied.
        let mut may_have_applied = false;
        let mut failed = |e: AwsFailure| {
            may_have_applied |= e.may_have_applied();
            if may_have_applied { e.partly_applied() } else { e }
        };
        for round in 0..PUT_ROUNDS {
            if round > 0 {
                // A secret that was just created may not be visible yet, or one that was just
                // deleted still is.
                tokio::time::sleep(self.visibility_bound / PUT_ROUNDS).await;
            }
            match self.put_value(name, key).await.map_err(&mut failed) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(refine_error(self, name, e, Operation::Put).await),
            }
            match self.create(name, key).await.map_err(&mut failed) {
                Ok(()) => return Ok(()),
                Err(e) if is_taken(&e) => refusal = Some(e),
                Err(e) => return Err(e),
            }
        }
        let refusal = refusal.expect("there is a round, and each one returns or is refused");
        Err(refusal.with_kind(ErrorKind::Conflict, CONTENDED).with_retry_after(RECREATE_PAUSE))
    }

    /// Reads the value of a secret.
    async fn read(&self, name: &str) -> Result<GetSecretValueOutput, AwsFailure> {
        let call = self.identity.call();
        let request = self.client.get_secret_value().secret_id(name);
        let answer = call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send()).await?;
        self.identity.learn_from_arn(answer.arn());
        Ok(answer)
    }

    /// Reads the value of a secret. If it is not found, proves that it does not exist.
    async fn read_or_prove_absence(&self, name: &str) -> Result<GetSecretValueOutput, AwsFailure> {
        match self.read(name).await {
            Err(e) if e.kind() == ErrorKind::NotFound => match refine_absence(self, name, e).await {
                Some(e) => Err(e),
                None => self.read(name).await,
            },
            answer => answer,
        }
    }

    /// Returns one page of the listing.
    async fn page(&self, token: Option<String>) -> Result<Page> {
        let secrets = self.secrets(token).await?;
        Ok(secrets.filter_map(|secret| self.config.names().id(secret.name()?)))
    }

    /// Returns one page of the secrets whose names begin with the store's prefix. Secrets that are
    /// not the store's may be among them.
    pub(crate) async fn secrets(&self, token: Option<String>) -> Result<Page<SecretListEntry>> {
        let call = self.identity.call();
        let prefix = self.config.names().prefix();
        let filter = Filter::builder().key(FilterNameStringType::Name).values(prefix).build();
        let request = self.client.list_secrets().filters(filter).max_results(PAGE).set_next_token(token);
        let answer = request.customize().interceptor(call.attempts()).send();
        let answer = call.run(SERVICE, kind, answer).await.map_err(|e| e.during(Operation::List, &[prefix]))?;
        self.identity.learn_from_arn(answer.secret_list().iter().find_map(SecretListEntry::arn));
        let request_id = answer.request_id().map(str::to_owned);
        Ok(Page { entries: answer.secret_list.unwrap_or_default(), next: answer.next_token, request_id })
    }

    /// Returns the finality of a deletion that was answered with this date. The date cannot shorten
    /// the configured window, because AWS's documents disagree on whether it is that of the
    /// deletion or of the request.
    fn finality(&self, until: Option<SystemTime>) -> Finality {
        match self.config.window() {
            Some(window) => {
                let asked_for = SystemTime::now() + window;
                Finality::RecoverableUntil(until.map_or(asked_for, |until| until.max(asked_for)))
            }
            None => Finality::Eventual { within: None },
        }
    }
}

#[async_trait]
impl KeyStore for SecretsManagerStore {
    fn info(&self) -> StoreInfo {
        self.identity.info()
    }

    fn capabilities(&self) -> Capabilities {
        let deletion = match self.config.window() {
            Some(window) => DeletionGrade::Recoverable { window },
            None => DeletionGrade::Eventual { within: None },
        };
        let consistency = Consistency::Eventual { within: self.visibility_bound };
        let listing = Consistency::Eventual { within: self.config.lists_within() };
        let capabilities = Capabilities::new(Durability::Replicated, consistency, deletion, Some(listing));
        // There is no batch call for deletes.
        capabilities.with_batch_size(batch::NAMES).with_delete_batch_size(1).with_list_page_size(PAGE as usize)
    }

    /// Reads a key in one call if it exists. If it is not found, `DescribeSecret` is called as
    /// well, because Secrets Manager gives the same answer for a secret that exists without a
    /// value.
    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let name = self.name(id);
        match self.read_or_prove_absence(&name).await {
            Ok(mut answer) => key_of(answer.secret_binary.take(), answer.secret_string.take(), answer.request_id()),
            Err(e) => {
                let e = refine_error(self, &name, e, Operation::Get).await;
                Err(e.during(Operation::Get, &[id.as_str(), &name]))
            }
        }
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let name = self.name(id);
        let (answer, operation) = match mode {
            PutMode::Overwrite => (self.overwrite(&name, key).await, Operation::Put),
            PutMode::Create => (self.create(&name, key).await, Operation::Create),
            _ => return Err(Error::new(ErrorKind::Unsupported, Operation::Put, SCHEME)),
        };
        answer.map_err(|e| {
            // The value as it is sent, which AWS might quote.
            let value = Zeroizing::new(STANDARD.encode(key.expose_secret()));
            e.during(operation, &[id.as_str(), &name, &value])
        })
    }

    /// Deletes a key. It looks for the secret first, because a forced delete succeeds even if the
    /// secret does not exist. If the store has replica regions, the secret's replicas are removed
    /// before it is deleted.
    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        let name = self.name(id);
        let failed = |e: AwsFailure| e.during(Operation::Delete, &[id.as_str(), &name]);
        let description = SecretDescription::of(self, &name).await.map_err(failed)?;
        let details = SERVICE.details_of_answer(description.request_id.as_deref());
        if let Some(remaining) = description.remaining {
            return Err(Error::new(ErrorKind::PendingDeletion, Operation::Delete, SCHEME)
                .with_retry_after(remaining)
                .with_details(details)
                .with_source("the secret is already scheduled for deletion: wait until it is gone, or restore it"));
        }
        let is_replicated = replica::remove_before_delete(self, &name, description, failed).await?;
        let call = self.identity.call();
        let days = self.config.window_days();
        let delete = || {
            let request = self
                .client
                .delete_secret()
                .secret_id(&name)
                .set_recovery_window_in_days(days.map(i64::from))
                .set_force_delete_without_recovery(days.is_none().then_some(true));
            call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send())
        };
        let refusal = match self.writes.run(SERVICE, delete).await {
            Ok(answer) => {
                let finality = self.finality(answer.deletion_date().and_then(moment));
                let unsettled = call.attempts().earlier_attempt_may_have_applied();
                return Ok(Deletion::new(finality).with_unsettled(unsettled));
            }
            Err(e) if e.code() == Some(INVALID_PARAMETER) => replica::explain_refusal(e, self),
            Err(e) => refine_error(self, &name, e, Operation::Delete).await,
        };
        match refusal.kind() {
            // An earlier attempt has deleted it: the description has shown that it existed.
            ErrorKind::NotFound if refusal.is_ambiguous() => {
                Ok(Deletion::new(self.finality(None)).with_unsettled(true))
            }
            // An earlier attempt has scheduled the deletion: the description shows its date.
            ErrorKind::PendingDeletion if refusal.is_ambiguous() && days.is_some() => {
                let until = refusal.retry_after().and_then(|remaining| SystemTime::now().checked_add(remaining));
                Ok(Deletion::new(self.finality(until)))
            }
            // The replicas are removed, but the secret still exists.
            kind if is_replicated => Err(failed(refusal.with_kind(kind, WITHOUT_REPLICAS).partly_applied())),
            _ => Err(failed(refusal)),
        }
    }

    /// Lists the ids. It needs `secretsmanager:ListSecrets`, which AWS grants for all secrets or
    /// for none, and may lag by five minutes.
    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        listing(SERVICE, |token| Box::pin(self.page(token)))
    }

    /// Reads a secret that belongs to no id, which proves that Secrets Manager is reachable and
    /// that reading is allowed.
    async fn check(&self) -> Result<()> {
        let probe_name = probe_name(self.config.names());
        let refusal = match self.read(&probe_name).await {
            Ok(answer) => {
                // Wiped, because this is somebody else's value.
                drop(key_of(answer.secret_binary, answer.secret_string, None));
                return Ok(());
            }
            Err(e) => refine_error(self, &probe_name, e, Operation::Check).await,
        };
        match refusal.kind() {
            ErrorKind::NotFound | ErrorKind::PendingDeletion => Ok(()),
            _ => Err(refusal.during(Operation::Check, &[])),
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

    /// Waits, for at most the visibility bound, for the key of another creator that is not visible
    /// yet. After that it fails with `Conflict` and a pause of 30 s.
    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        eventual::get_or_create(self, id, candidate, self.visibility_bound, RECREATE_PAUSE).await
    }

    /// Takes as long as the visibility bound, because the read that verifies the erasure must not
    /// be stale.
    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        eventual::erase_key(self, id).await
    }
}

/// Returns the key in the value of a secret, and wipes the value. `request_id` is the request id of
/// the answer.
pub(crate) fn key_of(binary: Option<Blob>, text: Option<String>, request_id: Option<&str>) -> Result<SecretKey> {
    drop(text.map(Zeroizing::new));
    let bytes = binary.ok_or_else(|| corrupt("the secret has no binary value", request_id))?;
    let mut bytes = Zeroizing::new(bytes.into_inner());
    SecretKey::new(std::mem::take(&mut *bytes))
        .map_err(|_| corrupt("the secret's value does not have 1 to 3072 bytes", request_id))
}

/// Reports whether a create was refused because the name is taken, and was not applied.
fn is_taken(e: &AwsFailure) -> bool {
    use ErrorKind::{AlreadyExists, Conflict, Corrupt};
    !e.may_have_applied() && matches!(e.kind(), AlreadyExists | Conflict | Corrupt)
}

/// Converts the tags for the SDK; `None` if there are none.
fn sdk_tags(tags: &Tags) -> Option<Vec<Tag>> {
    (!tags.is_empty()).then(|| tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect())
}

fn blob(key: &SecretKey) -> Blob {
    Blob::new(key.expose_secret())
}

/// Returns a random token of 32 characters, which becomes the id of the version that is written.
fn request_token() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has a working random generator");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Debug for SecretsManagerStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.config.names().to_string();
        f.debug_struct("SecretsManagerStore").field("names", &names).finish_non_exhaustive()
    }
}
