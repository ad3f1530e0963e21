//! Credentials that are slow or fail. They have a time limit of their own, and nothing is sent
//! without them.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as ProvideCredentialsFuture;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_ssm::config::{Region, RuntimeComponents};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use aws_types::SdkConfig;
use keystead_aws_testbed::KMS_KEY;
use keystead_core::{Effect, Error, ErrorKind, KeyStore, KeyStoreExt};
use keystead_ssm::{SsmConfig, SsmStore, SsmStoreBuilder};
use tokio::time::{Instant, sleep, timeout};

use crate::{id, key};

/// A secret that no error may show.
const CANARY: &str = "wJalrCanary";

/// A function that returns the answer of a provider.
type Says = fn() -> provider::Result;

/// A credentials provider that takes this long and then gives this answer.
#[derive(Clone)]
struct Provider {
    takes: Duration,
    says: Says,
    asked: Arc<AtomicU32>,
}

impl Provider {
    fn new(takes: Duration, says: Says) -> Self {
        Self { takes, says, asked: Arc::default() }
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(CANARY)
    }
}

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> ProvideCredentialsFuture<'a>
    where
        Self: 'a,
    {
        ProvideCredentialsFuture::new(async {
            self.asked.fetch_add(1, Ordering::SeqCst);
            // In two steps, like a provider that asks two services.
            sleep(self.takes / 2).await;
            sleep(self.takes / 2).await;
            (self.says)()
        })
    }
}

fn good() -> provider::Result {
    Ok(Credentials::new("AKIDTEST", CANARY, Some(CANARY.to_owned()), None, "test"))
}

/// A Parameter Store that accepts each put, and an STS that answers after a delay.
#[derive(Clone, Debug, Default)]
struct Server {
    puts: Arc<AtomicU32>,
    assumed: Arc<AtomicU32>,
    sts_takes: Duration,
    /// The hosts that received a request.
    hosts: Arc<Mutex<BTreeSet<String>>>,
}

impl HttpConnector for Server {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = |body| Ok(HttpResponse::new(200.try_into().expect("it is a status"), SdkBody::from(body)));
        let host = request.uri().split('/').nth(2).unwrap_or_default();
        self.hosts.lock().expect("no test panics here").insert(host.to_owned());
        let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
        if !body.contains("Action=AssumeRole") {
            self.puts.fetch_add(1, Ordering::SeqCst);
            return HttpConnectorFuture::ready(answer(r#"{"Version": 1}"#));
        }
        self.assumed.fetch_add(1, Ordering::SeqCst);
        let takes = self.sts_takes;
        HttpConnectorFuture::new(async move {
            sleep(takes).await;
            answer(ASSUMED)
        })
    }
}

/// STS's answer to `AssumeRole`.
const ASSUMED: &str = "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
     <Credentials>\
     <AccessKeyId>ASIATEST</AccessKeyId><SecretAccessKey>wJalrCanary</SecretAccessKey>\
     <SessionToken>wJalrCanary</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration>\
     </Credentials></AssumeRoleResult></AssumeRoleResponse>";

const ROLE: &str = "arn:aws:iam::123456789012:role/app";

impl Server {
    fn puts(&self) -> u32 {
        self.puts.load(Ordering::SeqCst)
    }

    fn hosts(&self) -> Vec<String> {
        self.hosts.lock().expect("no test panics here").iter().cloned().collect()
    }

    fn config(&self, provider: &Provider) -> SdkConfig {
        let server = self.clone();
        SdkConfig::builder()
            .behavior_version(aws_sdk_ssm::config::BehaviorVersion::v2026_01_12())
            .region(Region::new("us-east-1"))
            .sleep_impl(aws_sdk_ssm::config::SharedAsyncSleep::new(TokioSleep))
            .credentials_provider(SharedCredentialsProvider::new(provider.clone()))
            .http_client(http_client_fn(move |_, _: &RuntimeComponents| SharedHttpConnector::new(server.clone())))
            .build()
    }

    fn builder(&self, provider: &Provider) -> SsmStoreBuilder {
        SsmStore::builder(config()).sdk_config(&self.config(provider))
    }
}

/// The SDK's clock, so that a test can pause it.
#[derive(Debug)]
struct TokioSleep;

impl aws_sdk_ssm::config::AsyncSleep for TokioSleep {
    fn sleep(&self, duration: Duration) -> aws_sdk_ssm::config::Sleep {
        aws_sdk_ssm::config::Sleep::new(sleep(duration))
    }
}

fn config() -> SsmConfig {
    SsmConfig::new(KMS_KEY, "/app/%s").unwrap()
}

async fn put(store: &SsmStore) -> Result<(), Error> {
    store.put_key(&id("alice"), &key([1; 32])).await
}

/// Returns everything that an error shows.
fn shown(error: &Error) -> String {
    let source = error.source().map(ToString::to_string).unwrap_or_default();
    let all = format!("{error} {source} {error:?} {:?}", error.details());
    assert!(!all.contains(CANARY), "{all}");
    all
}

#[tokio::test(start_paused = true)]
async fn credentials_have_a_time_limit_of_their_own() {
    // Longer than an attempt, and longer than a call.
    for seconds in [6, 16, 29] {
        let server = Server::default();
        let provider = Provider::new(Duration::from_secs(seconds), good);
        let store = server.builder(&provider).build().unwrap();
        put(&store).await.unwrap();
        put(&store).await.unwrap();
        assert_eq!((server.puts(), provider.asked()), (2, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_sts_is_waited_for() {
    for seconds in [6, 16, 29] {
        let server = Server { sts_takes: Duration::from_secs(seconds), ..Server::default() };
        let provider = Provider::new(Duration::ZERO, good);
        let store = server.builder(&provider).role_arn(ROLE).build().unwrap();
        put(&store).await.unwrap();
        put(&store).await.unwrap();
        assert_eq!((server.puts(), server.assumed.load(Ordering::SeqCst)), (2, 1));
    }
    let server = Server { sts_takes: Duration::from_secs(600), ..Server::default() };
    let provider = Provider::new(Duration::ZERO, good);
    let store = server.builder(&provider).role_arn(ROLE).build().unwrap();
    let error = put(&store).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::NotApplied));
    assert_eq!(server.puts(), 0);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_take_too_long_are_a_timeout_and_nothing_was_applied() {
    let server = Server::default();
    let provider = Provider::new(Duration::from_secs(31), good);
    let store = server.builder(&provider).build().unwrap();
    let begin = Instant::now();
    let error = put(&store).await.unwrap_err();
    assert_eq!((error.kind(), error.effect(), error.is_retryable()), (ErrorKind::Timeout, Effect::NotApplied, true));
    assert!(shown(&error).contains("no AWS credentials were provided within 30s"), "{error:?}");
    assert_eq!(begin.elapsed().as_secs(), 30);

    let store = server.builder(&provider).credentials_timeout(Duration::from_secs(2)).build().unwrap();
    let begin = Instant::now();
    assert_eq!(put(&store).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!((begin.elapsed().as_secs(), server.puts()), (2, 0));
    let refused = server.builder(&provider).credentials_timeout(Duration::ZERO).build().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_does_not_end_the_loading() {
    let server = Server::default();
    let provider = Provider::new(Duration::from_secs(6), good);
    let store = server.builder(&provider).build().unwrap();
    // A layer that limits the time of each attempt does the same.
    for _ in 0..2 {
        timeout(Duration::from_secs(1), put(&store)).await.unwrap_err();
    }
    sleep(Duration::from_secs(4)).await;
    timeout(Duration::from_secs(1), put(&store)).await.unwrap().unwrap();
    assert_eq!((server.puts(), provider.asked()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn calls_at_the_same_time_load_credentials_once() {
    let server = Server::default();
    let provider = Provider::new(Duration::from_secs(6), good);
    let store = server.builder(&provider).build().unwrap();
    let (a, b, c) = tokio::join!(put(&store), put(&store), put(&store));
    a.and(b).and(c).unwrap();
    assert_eq!((server.puts(), provider.asked()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn credentials_without_an_end_are_loaded_again_after_a_quarter_of_an_hour() {
    let server = Server::default();
    let provider = Provider::new(Duration::ZERO, good);
    let store = server.builder(&provider).build().unwrap();
    put(&store).await.unwrap();
    sleep(Duration::from_secs(14 * 60)).await;
    put(&store).await.unwrap();
    assert_eq!(provider.asked(), 1);
    sleep(Duration::from_secs(2 * 60)).await;
    put(&store).await.unwrap();
    assert_eq!(provider.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_end_soon_are_loaded_before_the_next_call() {
    fn short() -> provider::Result {
        let end = std::time::SystemTime::now() + Duration::from_secs(20);
        Ok(Credentials::new("AKIDTEST", CANARY, None, Some(end), "test"))
    }
    let server = Server::default();
    let provider = Provider::new(Duration::ZERO, short);
    let store = server.builder(&provider).build().unwrap();
    put(&store).await.unwrap();
    put(&store).await.unwrap();
    assert_eq!((server.puts(), provider.asked()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_ready_client_loads_within_an_attempt_and_says_that_nothing_was_sent() {
    let server = Server::default();
    let provider = Provider::new(Duration::from_secs(600), good);
    let client = aws_sdk_ssm::Client::new(&server.config(&provider));
    let store = SsmStore::builder(config()).client(client).build().unwrap();
    let error = put(&store).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::NotApplied));
    assert!(shown(&error).contains("AWS credentials were not loaded in time"), "{error:?}");
    assert_eq!(server.puts(), 0);
}

#[tokio::test]
async fn the_variants_of_a_providers_error_are_distinguished() {
    let cases: [(Says, ErrorKind, bool); 5] = [
        (|| Err(CredentialsError::not_loaded(CANARY)), ErrorKind::Unauthenticated, false),
        (|| Err(CredentialsError::provider_timed_out(Duration::from_secs(7))), ErrorKind::Timeout, true),
        (|| Err(CredentialsError::invalid_configuration(CANARY)), ErrorKind::Config, false),
        (|| Err(CredentialsError::provider_error(CANARY)), ErrorKind::Unauthenticated, false),
        (|| Err(CredentialsError::unhandled(CANARY)), ErrorKind::Unauthenticated, false),
    ];
    let mut texts = Vec::new();
    for (says, kind, is_retryable) in cases {
        let server = Server::default();
        let provider = Provider::new(Duration::ZERO, says);
        let loaded_before = server.builder(&provider).build().unwrap();
        let client = aws_sdk_ssm::Client::new(&server.config(&provider));
        let loaded_within = SsmStore::builder(config()).client(client).build().unwrap();
        for store in [loaded_before, loaded_within] {
            let error = put(&store).await.unwrap_err();
            let got = (error.kind(), error.effect(), error.is_retryable());
            assert_eq!(got, (kind, Effect::NotApplied, is_retryable), "{error:?}");
            texts.push(shown(&error));
        }
        assert_eq!(server.puts(), 0);
    }
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), 5, "{texts:?}");
}

#[tokio::test]
async fn settings_that_the_source_does_not_accept_are_refused() {
    let server = Server::default();
    let provider = Provider::new(Duration::ZERO, good);
    let client = || aws_sdk_ssm::Client::new(&server.config(&provider));
    let with_client = || SsmStore::builder(config()).client(client());
    for (builder, word) in [
        (server.builder(&provider).profile("keys"), "profile"),
        (with_client().profile("keys"), "profile"),
        (with_client().role_arn(ROLE), "role_arn"),
        (with_client().fips(true), "fips"),
        (with_client().dualstack(true), "dualstack"),
        (server.builder(&provider).region("eu_west_1"), "region"),
        (server.builder(&provider).endpoint_url(""), "endpoint_url"),
        (server.builder(&provider).sdk_attempts(0), "sdk_attempts"),
        (server.builder(&provider).attempt_timeout(Duration::ZERO), "attempt_timeout"),
        (server.builder(&provider).operation_timeout(Duration::ZERO), "operation_timeout"),
        (server.builder(&provider).role_arn("role/a"), "role_arn"),
        (server.builder(&provider).external_id("tenant"), "external_id"),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.source().unwrap().to_string().contains(word), "{word}: {error:?}");
    }
    let config_with = |change: fn(aws_types::sdk_config::Builder) -> aws_types::sdk_config::Builder| {
        SsmStore::builder(config()).sdk_config(&change(server.config(&provider).into_builder()).build()).build()
    };
    config_with(|config| config.region(Region::new(""))).unwrap_err();
    config_with(|config| config.region(Region::new("eu_west_1"))).unwrap_err();
    config_with(|config| config.endpoint_url("")).unwrap_err();
    config_with(|config| config.endpoint_url("http://localhost").use_fips(true)).unwrap_err();
    config_with(|config| config.use_fips(true)).unwrap();
    let odd = server.config(&provider).into_builder().region(Region::new("eu_west_1")).build();
    SsmStore::builder(config()).client(aws_sdk_ssm::Client::new(&odd)).build().unwrap_err();
}

#[tokio::test]
async fn fips_and_dual_stack_endpoints_are_of_the_same_store() {
    let server = Server::default();
    let provider = Provider::new(Duration::ZERO, good);
    let plain = server.builder(&provider).build().unwrap();
    for (store, host) in [
        (server.builder(&provider).fips(true), "ssm-fips.us-east-1.amazonaws.com"),
        (server.builder(&provider).dualstack(true), "ssm.us-east-1.api.aws"),
    ] {
        let store = store.build().unwrap();
        assert_eq!(plain.info().identity(), store.info().identity());
        assert_eq!(store.info().identity().endpoint(), None);
        put(&store).await.unwrap();
        assert!(server.hosts().contains(&host.to_owned()), "{:?}", server.hosts());
    }
}

#[tokio::test]
async fn an_endpoint_of_one_service_is_not_asked_for_the_role() {
    let server = Server::default();
    let provider = Provider::new(Duration::ZERO, good);
    let link = "vpce-1.ssm.us-east-1.vpce.amazonaws.com";
    let builder = server.builder(&provider).endpoint_url(format!("https://{link}"));
    put(&builder.role_arn(ROLE).build().unwrap()).await.unwrap();
    assert_eq!(server.hosts(), ["sts.us-east-1.amazonaws.com", link]);
}

#[tokio::test]
async fn a_batch_without_credentials_asks_the_provider_once_for_ten_keys() {
    let says = || Err(CredentialsError::invalid_configuration(CANARY));
    let server = Server::default();
    let provider = Provider::new(Duration::ZERO, says);
    let store = server.builder(&provider).build().unwrap();
    let ids: Vec<_> = (0..10).map(|number| id(&format!("user-{number}"))).collect();
    let answers = store.get_keys(&ids).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap_err().kind() == ErrorKind::Config));
    assert_eq!((server.puts(), provider.asked()), (0, 1));
}
