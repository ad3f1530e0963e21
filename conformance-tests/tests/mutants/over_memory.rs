//! The parts that every store over the memory store shares: the methods that it does not change,
//! and a harness.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use keystead_conformance::{Harness, Namespace, Options, Report, async_trait, run};
use keystead_core::{BoxError, KeyStore};
use keystead_memory::MemoryStore;

/// A store over the memory store.
pub(crate) trait OverMemory: KeyStore + Sized {
    /// True if all namespaces are one.
    const ONE_NAMESPACE: bool = false;

    /// The entry that the harness can plant, which is not a key and appears in the listing of the
    /// memory store below; `None` if it can plant none.
    const PLANTS: Option<&str> = None;

    /// The factor by which sizes and rounds are multiplied.
    const SCALE: f64 = 1.0;

    /// The first handle.
    fn over(memory: MemoryStore) -> Self;

    /// A further handle; it shares the memory store and nothing else, unless that is what a store is about.
    fn reopened(&self) -> Self;
}

impl OverMemory for MemoryStore {
    fn over(memory: MemoryStore) -> Self {
        memory
    }

    fn reopened(&self) -> Self {
        self.clone()
    }
}

/// Defines a store with nothing but the memory store in it, or another store over the memory store.
macro_rules! over_memory {
    ($name:ident) => {
        over_memory!($name, MemoryStore);
    };
    ($name:ident, $below:ty) => {
        #[derive(Debug)]
        pub(crate) struct $name {
            memory: $below,
        }

        impl OverMemory for $name {
            fn over(memory: MemoryStore) -> Self {
                Self { memory: OverMemory::over(memory) }
            }

            fn reopened(&self) -> Self {
                Self { memory: self.memory.reopened() }
            }
        }
    };
}
pub(crate) use over_memory;

/// Keeps these methods as the memory store has them.
macro_rules! keep {
    ($($method:ident),*) => {
        $(keep!(@$method);)*
    };
    (@info) => {
        fn info(&self) -> StoreInfo {
            self.memory.info()
        }
    };
    (@capabilities) => {
        fn capabilities(&self) -> Capabilities {
            self.memory.capabilities()
        }
    };
    (@get_key) => {
        fn get_key<'s, 'i, 'f>(&'s self, id: &'i KeyId) -> BoxFuture<'f, Result<SecretKey>>
        where
            's: 'f,
            'i: 'f,
            Self: 'f,
        {
            self.memory.get_key(id)
        }
    };
    (@put_key_with) => {
        fn put_key_with<'s, 'i, 'k, 'f>(
            &'s self,
            id: &'i KeyId,
            key: &'k SecretKey,
            mode: PutMode,
        ) -> BoxFuture<'f, Result<()>>
        where
            's: 'f,
            'i: 'f,
            'k: 'f,
            Self: 'f,
        {
            self.memory.put_key_with(id, key, mode)
        }
    };
    (@delete_key) => {
        fn delete_key<'s, 'i, 'f>(&'s self, id: &'i KeyId) -> BoxFuture<'f, Result<Deletion>>
        where
            's: 'f,
            'i: 'f,
            Self: 'f,
        {
            self.memory.delete_key(id)
        }
    };
    (@list_keys) => {
        fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
            self.memory.list_keys()
        }
    };
    (@check) => {
        fn check<'s, 'f>(&'s self) -> BoxFuture<'f, Result<()>>
        where
            's: 'f,
            Self: 'f,
        {
            self.memory.check()
        }
    };
}
pub(crate) use keep;

struct Memories<S> {
    stores: Mutex<HashMap<String, Arc<S>>>,
    kind: PhantomData<S>,
}

impl<S: OverMemory> Memories<S> {
    fn first(&self, ns: &Namespace) -> Arc<S> {
        let space = if S::ONE_NAMESPACE { "all".to_owned() } else { ns.to_string() };
        let mut stores = self.stores.lock().expect("no harness call panics");
        stores.entry(space).or_insert_with(|| Arc::new(S::over(MemoryStore::new()))).clone()
    }
}

#[async_trait]
impl<S: OverMemory> Harness for Memories<S> {
    fn name(&self) -> &str {
        std::any::type_name::<S>()
    }

    async fn open(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        Ok(self.first(ns))
    }

    async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        Ok(Arc::new(self.first(ns).reopened()))
    }

    async fn plant_foreign(&self, ns: &Namespace) -> Result<bool, BoxError> {
        use keystead_core::{KeyId, KeyStoreExt, SecretKey};
        let Some(name) = S::PLANTS else { return Ok(false) };
        self.first(ns).put_key(&KeyId::new(name)?, &SecretKey::generate(32)?).await?;
        Ok(true)
    }
}

/// Runs the whole suite over a store.
pub(crate) fn suite_over<S: OverMemory>() -> Report {
    let harness = Memories::<S> { stores: Mutex::default(), kind: PhantomData };
    let options = Options { scale: S::SCALE, ..Options::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(8).enable_all().build();
    let runtime = runtime.expect("the system gives the threads of a runtime");
    let report = runtime.block_on(run(harness, options));
    // Some mutants leave a thread blocked.
    runtime.shutdown_background();
    report
}
