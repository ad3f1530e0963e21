//! [`Config`]: what the operator sets, and the stack of layers that it describes.

use std::net::SocketAddr;
use std::time::Duration;

use keystead::layers::Stack;
use keystead::{BoxError, Durability, KeyStore};

const DEFAULT_LISTEN: &str = "127.0.0.1:3000";

/// The configuration of the service.
pub struct Config {
    /// The URL of the store that holds the keys, see [`keystead::open`].
    pub keys_url: String,
    /// The URL of the store that remembers which users were erased. It is a second store, at least
    /// as durable as the keys, and is not restored from a backup together with them.
    pub tombstones_url: String,
    /// The address at which the service listens.
    pub listen: SocketAddr,
    /// The settings of the layers around the two stores.
    pub stack: StackConfig,
}

/// The settings of the layers around the two stores.
#[derive(Clone, Copy, Debug)]
pub struct StackConfig {
    /// The time for which keys are cached; `None` for no cache.
    pub cache_ttl: Option<Duration>,
    /// The number of calls per second that read from the store of the keys.
    pub read_rate: f64,
    /// The number of calls per second that write to the store of the keys.
    pub write_rate: f64,
    /// The longest time that a call to one of the two stores may take, with all its attempts.
    pub deadline: Duration,
}

impl Default for StackConfig {
    /// Returns rates that suit Parameter Store, whose quota is 40 reads and 3 writes per second.
    fn default() -> Self {
        Self {
            cache_ttl: Some(Duration::from_secs(300)),
            read_rate: 35.0,
            write_rate: 3.0,
            deadline: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Reads the configuration from variables: `KEYS_URL`, `TOMBSTONES_URL`, and optionally
    /// `LISTEN` and `CACHE_TTL_SECONDS`, where 0 means no cache.
    ///
    /// # Errors
    /// If a variable is missing or malformed. The error names the variable, not its value.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, BoxError> {
        let required = |name| variable(name).ok_or_else(|| format!("{name} is not set: set it to the URL of a store"));
        let listen = variable("LISTEN").unwrap_or_else(|| DEFAULT_LISTEN.to_owned());
        let listen = listen.parse().map_err(|_| format!("LISTEN is not an address: write {DEFAULT_LISTEN}, say"))?;
        let mut stack = StackConfig::default();
        if let Some(seconds) = variable("CACHE_TTL_SECONDS") {
            let seconds = seconds.parse().map_err(|_| "CACHE_TTL_SECONDS is not a number: write whole seconds")?;
            stack.cache_ttl = (seconds > 0).then(|| Duration::from_secs(seconds));
        }
        Ok(Self { keys_url: required("KEYS_URL")?, tombstones_url: required("TOMBSTONES_URL")?, listen, stack })
    }

    /// Opens both stores and builds the stack around them.
    ///
    /// # Errors
    /// Those of [`keystead::open`] and [`StackConfig::build`].
    pub async fn open_stack(&self) -> keystead::Result<Stack> {
        let keys = keystead::open(&self.keys_url).await?;
        let tombstones = keystead::open(&self.tombstones_url).await?;
        self.stack.build(keys, tombstones)
    }
}

impl StackConfig {
    /// Builds the stack of layers around two open stores.
    ///
    /// # Errors
    /// [`Config`](keystead::ErrorKind::Config) if the settings or the two stores do not fit
    /// together.
    pub fn build(&self, keys: impl KeyStore, tombstones: impl KeyStore) -> keystead::Result<Stack> {
        let mut builder = Stack::builder(keys)
            .tombstones(tombstones)
            // For keys in AWS. If the disk with the tombstones is lost, erased users can be created
            // again.
            .accept_tombstone_durability(Durability::Host)
            .read_rate(self.read_rate)
            .write_rate(self.write_rate)
            .deadline(self.deadline);
        if let Some(ttl) = self.cache_ttl {
            builder = builder.cache_ttl(ttl);
        }
        builder.build()
    }
}
