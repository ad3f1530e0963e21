//! [`SecretsManagerStore`]: the contract on Secrets Manager.

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::Builder;
use aws_sdk_secretsmanager::primitives::Blob;
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType, SecretListEntry};
use aws_types::SdkConfig;
use keystead_aws::{AwsStore, Call, ClientSettings, Failure, Page, StoreBuilder, eventual, listing};
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Durability, Erasure, Error, ErrorKind, Finality,
    KeyId, KeyStore, Operation, PutMode, Result, SecretKey, StoreInfo,
};
use zeroize::Zeroizing;

use crate::batch;
use crate::config::SecretsManagerConfig;
use crate::error::{SCHEME, SERVICE, corrupt, kind, retry_rules};
use crate::look::{Look, closer, moment};

/// After a forced delete, which ends some time after its answer, a name can be taken for a while.
const RECREATE_PAUSE: Duration = Duration::from_secs(30);

/// How many secrets a page of a listing has at most (`ListSecrets`, `MaxResults`).
const PAGE: i32 = 100;

/// How often a put starts again where a key is created or deleted under it.
const PUT_ROUNDS: u32 = 4;

/// Keys in Secrets Manager, each the binary value of a secret under the name that the template gives its id. Clones are
/// handles on the same store.
#[derive(Clone)]
pub struct SecretsManagerStore {
    pub(crate) client: Client,
    pub(crate) config: SecretsManagerConfig,
    visibility_bound: Duration,
}

/// Builds a [`SecretsManagerStore`].
pub type SecretsManagerStoreBuilder = StoreBuilder<SecretsManagerStore>;

impl AwsStore for SecretsManagerStore {
    type Client = Client;
    type Config = SecretsManagerConfig;

    const SCHEME: &'static str = SCHEME;

    fn client_of(config: &SdkConfig) -> Client {
        Client::from_conf(Builder::from(config).retry_classifier(retry_rules()).build())
    }

    fn tuned(client: Client, settings: &ClientSettings) -> Client {
        let timeouts = settings.timeouts(client.config().timeout_config());
        let retries = settings.retries(client.config().retry_config());
        let config = client.config().to_builder().timeout_config(timeouts).retry_config(retries);
        Client::from_conf(config.retry_classifier(retry_rules()).build())
    }

    fn assembled(client: Client, config: SecretsManagerConfig, visibility_bound: Duration) -> Self {
        Self { client, config, visibility_bound }
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
        let call = Call::new();
        let request = self
            .client
            .put_secret_value()
            .secret_id(name)
            .secret_binary(blob(key))
            .client_request_token(request_token());
        call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send()).await.map(drop)
    }

    /// Creates a secret. A refusal of our own create, which the SDK has repeated, is told by the request token.
    async fn create(&self, name: &str, key: &SecretKey) -> Result<(), Failure> {
        let (call, token) = (Call::new(), request_token());
        let request = self
            .client
            .create_secret()
            .name(name)
            .secret_binary(blob(key))
            .kms_key_id(self.config.kms_key())
            .client_request_token(&token);
        match call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send()).await {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == ErrorKind::AlreadyExists && e.is_ambiguous() => {
                match Look::at(self, name).await {
                    Ok(look) if look.has_version(&token) => Ok(()),
                    // Somebody else's: ours was never applied.
                    Ok(_) => Err(e.settled()),
                    Err(_) => Err(e),
                }
            }
            Err(e) => Err(e),
        }
    }

    /// A new version where a secret is, else a new secret.
    async fn overwrite(&self, name: &str, key: &SecretKey) -> Result<(), Failure> {
        let mut last = self.put_value(name, key).await;
        for round in 1..PUT_ROUNDS {
            let kind = last.as_ref().err().map(Failure::kind);
            if round > 1 && matches!(kind, Some(ErrorKind::NotFound | ErrorKind::AlreadyExists)) {
                // What was just created is not visible yet, or what was just deleted still is.
                tokio::time::sleep(self.visibility_bound / PUT_ROUNDS).await;
            }
            last = match kind {
                Some(ErrorKind::NotFound) => self.create(name, key).await,
                Some(ErrorKind::AlreadyExists) => self.put_value(name, key).await,
                _ => return last,
            };
        }
        last.map_err(|e| match e.kind() {
            ErrorKind::NotFound | ErrorKind::AlreadyExists => {
                e.with_kind(ErrorKind::Conflict, "the key is being created or deleted by others: try again")
            }
            _ => e,
        })
    }

    /// One page of the listing, and the token of the next one.
    async fn page(&self, token: Option<String>) -> Result<Page> {
        let call = Call::new();
        let prefix = self.config.names().prefix();
        let filter = Filter::builder().key(FilterNameStringType::Name).values(prefix).build();
        let request = self.client.list_secrets().filters(filter).max_results(PAGE).set_next_token(token);
        let answer = request.customize().interceptor(call.attempts()).send();
        let answer = call.run(SERVICE, kind, answer).await.map_err(|e| e.during(Operation::List, &[prefix]))?;
        let ids = answer.secret_list().iter().filter_map(SecretListEntry::name);
        let ids = ids.filter_map(|name| self.config.names().id(name)).collect();
        Ok((ids, answer.next_token))
    }

    /// The usual finality of a deletion that answered with this date.
    fn finality(&self, until: Option<SystemTime>) -> Finality {
        match self.config.window() {
            Some(window) => Finality::RecoverableUntil(until.unwrap_or_else(|| SystemTime::now() + window)),
            None => Finality::Eventual { within: None },
        }
    }
}

#[async_trait]
impl KeyStore for SecretsManagerStore {
    fn info(&self) -> StoreInfo {
        StoreInfo::new(SCHEME, self.config.names().to_string())
    }

    fn capabilities(&self) -> Capabilities {
        let deletion = match self.config.window() {
            Some(window) => DeletionGrade::Recoverable { window },
            None => DeletionGrade::Eventual { within: None },
        };
        let consistency = Consistency::Eventual { within: self.visibility_bound };
        let listing = Consistency::Eventual { within: self.config.lists_within() };
        Capabilities::new(Durability::Replicated, consistency, deletion, Some(listing))
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let (call, name) = (Call::new(), self.name(id));
        let request = self.client.get_secret_value().secret_id(&name);
        match call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send()).await {
            Ok(answer) => key_of(answer.secret_binary, answer.secret_string),
            Err(e) => Err(closer(self, &name, e).await.during(Operation::Get, &[id.as_str(), &name])),
        }
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let name = self.name(id);
        let (answer, operation) = match mode {
            PutMode::Overwrite => (self.overwrite(&name, key).await, Operation::Put),
            PutMode::Create => (self.create(&name, key).await, Operation::Create),
            _ => return Err(Error::new(ErrorKind::Unsupported, Operation::Put, SCHEME)),
        };
        match answer {
            Ok(()) => Ok(()),
            Err(e) => Err(closer(self, &name, e).await.during(operation, &[id.as_str(), &name])),
        }
    }

    /// Looks first: a forced delete succeeds for a secret that is not there, too.
    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        let name = self.name(id);
        let failed = |e: Failure| e.during(Operation::Delete, &[id.as_str(), &name]);
        let look = Look::at(self, &name).await.map_err(failed)?;
        if let Some(remaining) = look.remaining() {
            return Err(Error::new(ErrorKind::PendingDeletion, Operation::Delete, SCHEME)
                .with_retry_after(remaining)
                .with_source("the secret is scheduled for deletion already: wait, or restore it"));
        }
        if look.has_replicas {
            return Err(Error::new(ErrorKind::Unsupported, Operation::Delete, SCHEME)
                .with_source("the secret has replicas in other regions, which keep the key: remove these first"));
        }
        let call = Call::new();
        let days = self.config.window_days();
        let request = self
            .client
            .delete_secret()
            .secret_id(&name)
            .set_recovery_window_in_days(days.map(i64::from))
            .set_force_delete_without_recovery(days.is_none().then_some(true));
        match call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send()).await {
            Ok(answer) => Ok(Deletion::new(self.finality(answer.deletion_date().and_then(moment)))),
            // An earlier attempt has deleted it, or scheduled that: it was there when we looked.
            Err(e) if e.is_ambiguous() && matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PendingDeletion) => {
                Ok(Deletion::new(self.finality(None)))
            }
            Err(e) => Err(failed(closer(self, &name, e).await)),
        }
    }

    /// Needs `secretsmanager:ListSecrets`, which is granted for all secrets or none. May lag by five minutes.
    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        listing(SERVICE, |token| Box::pin(self.page(token)))
    }

    /// Asks for a secret that no id has: reaching Secrets Manager and being allowed to read there is enough.
    async fn check(&self) -> Result<()> {
        let call = Call::new();
        let names = self.config.names();
        let request = self.client.get_secret_value().secret_id(format!("{}--{}", names.prefix(), names.suffix()));
        match call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send()).await {
            Ok(answer) => {
                // Somebody else's, and none of our business.
                drop(key_of(answer.secret_binary, answer.secret_string));
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PendingDeletion) => Ok(()),
            Err(e) => Err(e.during(Operation::Check, &[])),
        }
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        batch::get(self, ids).await
    }

    /// Waits up to the visibility bound for a winner that is not visible yet; then `Conflict`, to be tried again after 30 s.
    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        eventual::get_or_create(self, id, candidate, self.visibility_bound, RECREATE_PAUSE).await
    }

    /// Takes as long as the visibility bound: the read that verifies must not be a stale one.
    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        eventual::erase_key(self, id).await
    }
}

/// The key in a secret that was read; either text is wiped.
pub(crate) fn key_of(binary: Option<Blob>, text: Option<String>) -> Result<SecretKey> {
    drop(text.map(Zeroizing::new));
    let bytes = binary.ok_or_else(|| corrupt("the secret has no binary value"))?;
    let mut bytes = Zeroizing::new(bytes.into_inner());
    SecretKey::new(std::mem::take(&mut *bytes)).map_err(|_| corrupt("the secret's value has not 1 to 3072 bytes"))
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
