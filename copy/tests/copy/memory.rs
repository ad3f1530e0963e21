//! Tests of the memory that a copy takes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use keystead_copy::{CopyOptions, copy_keys};
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Durability, Error, ErrorKind, KeyId, KeyStore,
    Operation, PutMode, Result, SecretKey, StoreInfo, async_trait,
};

const KEYS: usize = 50_000;

/// A store that computes its fifty thousand keys, so that none is in memory. Of the keys that are
/// created, it accepts every other one and says that the others exist.
struct Computed;

impl fmt::Debug for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Computed")
    }
}

#[async_trait]
impl KeyStore for Computed {
    fn info(&self) -> StoreInfo {
        StoreInfo::new("computed", "")
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Durability::Process, Consistency::Strong, DeletionGrade::Immediate, Some(Consistency::Strong))
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        Ok(SecretKey::new(id.as_str()).unwrap())
    }

    async fn put_key_with(&self, id: &KeyId, _: &SecretKey, _: PutMode) -> Result<()> {
        match ["0@", "2@", "4@", "6@", "8@"].iter().any(|even| id.as_str().contains(even)) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::AlreadyExists, Operation::Create, "computed")),
        }
    }

    async fn delete_key(&self, _: &KeyId) -> Result<Deletion> {
        Err(Error::new(ErrorKind::Unsupported, Operation::Delete, "computed"))
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        futures_util::stream::iter((0..KEYS).map(|number| Ok(crate::id(number)))).boxed()
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// Returns the anonymous memory of this process, in bytes, without its program.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// The test runs in a separate process, whose memory no other test uses.
#[test]
fn a_copy_takes_about_fifty_bytes_a_key() {
    const CHILD: &str = "KEYSTEAD_TEST_COPY_MEMORY";
    if std::env::var_os(CHILD).is_none() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "memory::a_copy_takes_about_fifty_bytes_a_key", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&child.stdout).into_owned();
        print!("{shown}");
        assert!(child.status.success(), "{shown}{}", String::from_utf8_lossy(&child.stderr));
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (_directory, path) = crate::journal();
    let before = resident();
    let most = Arc::new(AtomicUsize::new(0));
    let seen = most.clone();
    let options = CopyOptions::default().journal(path).on_progress(move |_| {
        seen.fetch_max(resident(), Ordering::Relaxed);
    });
    let report = runtime.block_on(copy_keys(&Computed, &Computed, options)).unwrap();
    assert!(report.is_complete());
    assert_eq!((report.copied, report.already_there), (KEYS as u64 / 2, KEYS as u64 / 2));
    let each = (most.load(Ordering::Relaxed) - before) as f64 / KEYS as f64;
    println!("{each:.0} bytes a key");
    assert!(each < 56.0, "{each} bytes a key");
}
