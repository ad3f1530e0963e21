//! [`Session`]: the credentials of a store's calls.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as ProvideCredentialsFuture;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::{Instant, timeout};

use crate::call::quietly;
use crate::credentials::CredentialsFailure;

/// The time before their expiry at which credentials are loaded again. It covers a call with all
/// its attempts, and the last 10 s, in which the SDK's own cache no longer uses them.
const MARGIN: Duration = Duration::from_secs(30);

/// The time after which credentials without an expiry are loaded again, as in the SDK's own cache.
const RELOAD: Duration = Duration::from_secs(15 * 60);

/// The credentials of a store's calls, with a time limit of their own.
///
/// The SDK loads credentials within an attempt, whose timeout can interrupt the loading. An
/// [`AwsCall`](crate::AwsCall) loads them before its first attempt instead, and the attempt finds
/// them here. One load serves all calls that wait for it. It runs as a task of its own, so it goes
/// on if the waiting calls are dropped.
#[derive(Clone)]
pub(crate) struct Session(Arc<Inner>);

struct Inner {
    provider: SharedCredentialsProvider,
    timeout: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    loaded: Option<Loaded>,
    load: Option<Load>,
    /// The last failure that told its reason.
    reason: Option<CredentialsFailure>,
}

struct Loaded {
    credentials: Credentials,
    since: Instant,
}

type Outcome = Result<Credentials, CredentialsFailure>;
type Load = Shared<BoxFuture<'static, Outcome>>;

impl Session {
    pub(crate) fn new(provider: SharedCredentialsProvider, timeout: Duration) -> Self {
        Self(Arc::new(Inner { provider, timeout, state: Mutex::default() }))
    }

    /// Returns credentials that are valid for the whole of a call.
    ///
    /// # Errors
    /// A failure of the kind [`ErrorKind::Timeout`](keystead_core::ErrorKind::Timeout) if they are
    /// not provided in time, otherwise the provider's.
    pub(crate) async fn credentials(&self) -> Outcome {
        self.credentials_for(MARGIN).await
    }

    /// Returns credentials that are valid for at least this long, if the provider has such
    /// credentials.
    async fn credentials_for(&self, margin: Duration) -> Outcome {
        let load = {
            let mut state = self.state();
            if let Some(loaded) = state.loaded.as_ref().filter(|loaded| loaded.is_fresh(margin)) {
                return Ok(loaded.credentials.clone());
            }
            state.load.get_or_insert_with(|| self.start()).clone()
        };
        let outcome = load.clone().await;
        // A load that ended together with its runtime is still registered.
        let mut state = self.state();
        if state.load.as_ref().is_some_and(|current| current.ptr_eq(&load)) {
            state.load = None;
        }
        outcome
    }

    /// Starts a load as a task.
    fn start(&self) -> Load {
        let session = self.clone();
        let task = tokio::spawn(quietly(async move {
            let outcome = session.loaded().await;
            session.finish(outcome)
        }));
        task.map(|ended| ended.unwrap_or_else(|_| Err(CredentialsFailure::interrupted()))).boxed().shared()
    }

    async fn loaded(&self) -> Outcome {
        let Inner { provider, timeout: limit, .. } = &*self.0;
        match timeout(*limit, provider.provide_credentials()).await {
            Ok(Ok(credentials)) => Ok(credentials),
            Ok(Err(e)) => Err(CredentialsFailure::of(&e)),
            Err(_) => provider.fallback_on_interrupt().ok_or_else(|| CredentialsFailure::timed_out(*limit)),
        }
    }

    /// Stores the outcome of a load for later calls.
    fn finish(&self, outcome: Outcome) -> Outcome {
        let mut state = self.state();
        state.load = None;
        match outcome {
            Ok(credentials) => {
                state.loaded = Some(Loaded { credentials: credentials.clone(), since: Instant::now() });
                Ok(credentials)
            }
            Err(e) if e.was_told_before => Err(state.reason.clone().unwrap_or(e)),
            Err(e) => {
                state.reason = Some(e.clone());
                Err(e)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loaded {
    fn is_fresh(&self, margin: Duration) -> bool {
        match self.credentials.expiry() {
            Some(end) => SystemTime::now() + margin < end,
            None => self.since.elapsed() < RELOAD,
        }
    }
}

impl ProvideCredentials for Session {
    fn provide_credentials<'a>(&'a self) -> ProvideCredentialsFuture<'a>
    where
        Self: 'a,
    {
        ProvideCredentialsFuture::new(async {
            let outcome = self.credentials_for(Duration::ZERO).await;
            outcome.map_err(CredentialsError::provider_error)
        })
    }
}

/// Written by hand, so that neither the provider nor the credentials are shown.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("timeout", &self.0.timeout).finish_non_exhaustive()
    }
}
