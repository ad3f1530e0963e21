//! [`SecretsManagerStore`]: the contract on Secrets Manager.

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
    AwsIdentity, AwsStore, ClientSettings, Failure, Page, StoreBuilder, Tags, WritePace, eventual, listing,
};
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Durability, Erasure, Error, ErrorKind, Finality,
    KeyId, KeyStore, Operation, PutMode, Result, SecretKey, StoreIdentity, StoreInfo,
};
use zeroize::Zeroizing;

use crate::config::SecretsManagerConfig;
use crate::description::{RECREATE_PAUSE, SecretDescription, moment, refine_absence, refine_error, refine_exists};
use crate::error::{INVALID_PARAMETER, SCHEME, SERVICE, corrupt, kind, retry_rules};
use crate::{batch, replica};

/// The largest number of secrets on a page of a listing (`ListSecrets`, `MaxResults`).
const PAGE: i32 = 100;

/// The number of times a put looks for a secret to overwrite and else creates one, where others
/// create and delete it meanwhile.
const PUT_ROUNDS: u32 = 3;

const CONTENDED: &str = "the name is taken, but no secret can be written under it: it is being \
                         created, deleted or released after a forced delete; try again after the \
                         pause";

const WITHOUT_REPLICAS: &str = "the secret's replicas in other regions were removed, but the key was not \
                                deleted: delete \
                                it again";

/// Keys in Secrets Manager, each the binary value of a secret under the name that the template
/// gives its id. Clones are handles on the same store.
#[derive(Clone)]
pub struct SecretsManagerStore {
    pub(crate) client: Client,
    pub(crate) config: SecretsManagerConfig,
    pub(crate) visibility_bound: Duration,
    pub(crate) identity: AwsIdentity,
    pub(crate) writes: WritePace,
}

/// Builds a [`SecretsManagerStore`].
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
    /// Begins to build a store.
    pub fn builder(config: SecretsManagerConfig) -> SecretsManagerStoreBuilder {
        SecretsManagerStoreBuilder::new(config)
    }

    pub(crate) fn name(&self, id: &KeyId) -> String {
        self.config.names().name(id)
    }

    /// Writes a new version of a secret that is there.
    async fn put_value(&self, name: &str, key: &SecretKey) -> Result<(), Failure> {
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

    /// Creates a secret. The request token tells whether a secret that exists is the work of an
    /// earlier attempt.
    async fn create(&self, name: &str, key: &SecretKey) -> Result<(), Failure> {
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

    /// Writes a new version where a secret is, else a new secret.
    async fn overwrite(&self, name: &str, key: &SecretKey) -> Result<(), Failure> {
        let mut refusal = None;
        // Each call forgets what an attempt of the one before may have done.
        let mut may_have_applied = false;
        let mut failed = |e: Failure| {
            may_have_applied |= e.may_have_landed();
            if may_have_applied { e.partly_applied() } else { e }
        };
        for round in 0..PUT_ROUNDS {
            if round > 0 {
                // What was just created is not visible yet, or what was just deleted still is.
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
    async fn read(&self, name: &str) -> Result<GetSecretValueOutput, Failure> {
        let call = self.identity.call();
        let request = self.client.get_secret_value().secret_id(name);
        let answer = call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send()).await?;
        self.identity.learn_from_arn(answer.arn());
        Ok(answer)
    }

    /// Reads the value of a secret, and proves the absence of one that is not found.
    async fn read_or_prove_absence(&self, name: &str) -> Result<GetSecretValueOutput, Failure> {
        match self.read(name).await {
            Err(e) if e.kind() == ErrorKind::NotFound => match refine_absence(self, name, e).await {
                Some(e) => Err(e),
                None => self.read(name).await,
            },
            answer => answer,
        }
    }

    /// One page of the listing, and the token of the next one.
    async fn page(&self, token: Option<String>) -> Result<Page> {
        let secrets = self.secrets(token).await?;
        Ok(secrets.filter_map(|secret| self.config.names().id(secret.name()?)))
    }

    /// Returns one page of the secrets whose names begin as the store's do. Others may be among them.
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

    /// The finality of a deletion that answered with this date. The date cannot shorten the window
    /// that was asked for: AWS's documents disagree on whether it is that of the deletion or of the
    /// request.
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

    /// One call for a key that is there. One that is not found is looked for again with
    /// `DescribeSecret`, because Secrets Manager answers the same for a secret that exists without
    /// a value.
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
            // As it is sent, and as AWS might quote it.
            let value = Zeroizing::new(STANDARD.encode(key.expose_secret()));
            e.during(operation, &[id.as_str(), &name, &value])
        })
    }

    /// Looks first: a forced delete succeeds for a secret that is not there, too. If the store has
    /// replica regions, the replicas of the secret are removed before it is deleted.
    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        let name = self.name(id);
        let failed = |e: Failure| e.during(Operation::Delete, &[id.as_str(), &name]);
        let description = SecretDescription::of(self, &name).await.map_err(failed)?;
        let details = SERVICE.details_of_answer(description.request_id.as_deref());
        if let Some(remaining) = description.remaining {
            return Err(Error::new(ErrorKind::PendingDeletion, Operation::Delete, SCHEME)
                .with_retry_after(remaining)
                .with_details(details)
                .with_source("the secret is scheduled for deletion already: wait, or restore it"));
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
            // An earlier attempt has deleted it: it was there when we looked.
            ErrorKind::NotFound if refusal.is_ambiguous() => {
                Ok(Deletion::new(self.finality(None)).with_unsettled(true))
            }
            // An earlier attempt has scheduled it: the date was seen.
            ErrorKind::PendingDeletion if refusal.is_ambiguous() && days.is_some() => {
                let until = refusal.retry_after().and_then(|remaining| SystemTime::now().checked_add(remaining));
                Ok(Deletion::new(self.finality(until)))
            }
            // The replicas are gone, the secret is not.
            kind if is_replicated => Err(failed(refusal.with_kind(kind, WITHOUT_REPLICAS).partly_applied())),
            _ => Err(failed(refusal)),
        }
    }

    /// Needs `secretsmanager:ListSecrets`, which is granted for all secrets or none. May lag by
    /// five minutes.
    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        listing(SERVICE, |token| Box::pin(self.page(token)))
    }

    /// Asks for a secret that no id has: reaching Secrets Manager and being allowed to read there
    /// is enough.
    async fn check(&self) -> Result<()> {
        let names = self.config.names();
        let probe_name = format!("{}--{}", names.prefix(), names.suffix());
        let refusal = match self.read(&probe_name).await {
            Ok(answer) => {
                // Somebody else's, and none of our business.
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

    /// Asks AWS STS for the account if no answer has told it yet; needs no permission.
    async fn identify(&self) -> Result<StoreIdentity> {
        self.identity.identify().await
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        batch::get(self, ids).await
    }

    /// Waits up to the visibility bound for a winner that is not visible yet; then `Conflict`, to
    /// be tried again after 30 s.
    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        eventual::get_or_create(self, id, candidate, self.visibility_bound, RECREATE_PAUSE).await
    }

    /// Takes as long as the visibility bound: the read that verifies must not be a stale one.
    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        eventual::erase_key(self, id).await
    }
}

/// Returns the key in a secret that was read, by the answer with this request id. Either text is
/// wiped.
pub(crate) fn key_of(binary: Option<Blob>, text: Option<String>, request_id: Option<&str>) -> Result<SecretKey> {
    drop(text.map(Zeroizing::new));
    let bytes = binary.ok_or_else(|| corrupt("the secret has no binary value", request_id))?;
    let mut bytes = Zeroizing::new(bytes.into_inner());
    SecretKey::new(std::mem::take(&mut *bytes))
        .map_err(|_| corrupt("the secret's value has not 1 to 3072 bytes", request_id))
}

/// Reports whether a create was refused because of what stands under the name, and was not applied.
fn is_taken(e: &Failure) -> bool {
    use ErrorKind::{AlreadyExists, Conflict, Corrupt};
    !e.may_have_landed() && matches!(e.kind(), AlreadyExists | Conflict | Corrupt)
}

/// Returns the tags as the SDK takes them; `None` if there are none.
fn sdk_tags(tags: &Tags) -> Option<Vec<Tag>> {
    (!tags.is_empty()).then(|| tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect())
}

fn blob(key: &SecretKey) -> Blob {
    Blob::new(key.expose_secret())
}

/// A token that becomes the id of the version which is written: 32 random characters.
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
