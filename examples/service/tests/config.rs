//! The configuration of the service.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::HashMap;
use std::time::Duration;

use keystead::KeyStore;
use keystead_example_service::Config;

fn config(variables: &[(&str, &str)]) -> Result<Config, String> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    Config::from_variables(|name| variables.get(name).map(|&value| value.to_owned())).map_err(|e| e.to_string())
}

#[tokio::test]
async fn two_urls_are_enough() {
    let config = config(&[("KEYS_URL", "memory:"), ("TOMBSTONES_URL", "memory:")]).unwrap();
    assert!(config.listen.ip().is_loopback());
    let stack = config.open_stack().await.unwrap();
    stack.check().await.unwrap();
    assert!(stack.capabilities().fenced && stack.capabilities().cached);
}

#[tokio::test]
async fn a_file_store_with_tombstones_in_memory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    std::fs::write(&root, "07".repeat(32)).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let keys = directory.path().join("keys").join("keys.db");
    let url = format!("file://{}?root_secret_file={}&create=true", keys.display(), root.display());

    let config = config(&[("KEYS_URL", &url), ("TOMBSTONES_URL", "memory:")]).unwrap();
    let e = config.open_stack().await.unwrap_err();
    assert_eq!(e.kind(), keystead::ErrorKind::Config);
}

#[test]
fn a_time_to_live_of_zero_means_no_cache() {
    let urls = [("KEYS_URL", "memory:"), ("TOMBSTONES_URL", "memory:")];
    let ttl =
        |seconds| config(&[urls[0], urls[1], ("CACHE_TTL_SECONDS", seconds)]).map(|config| config.stack.cache_ttl);
    assert_eq!(ttl("0"), Ok(None));
    assert_eq!(ttl("60"), Ok(Some(Duration::from_secs(60))));
    assert!(ttl("a minute").is_err());
}

#[test]
fn an_error_names_the_variable_and_not_its_value() {
    let missing = config(&[("KEYS_URL", "memory:")]).err().unwrap();
    assert!(missing.contains("TOMBSTONES_URL"), "{missing}");
    let urls = [("KEYS_URL", "memory:"), ("TOMBSTONES_URL", "memory:")];
    let malformed = config(&[urls[0], urls[1], ("LISTEN", "everywhere")]).err().unwrap();
    assert!(malformed.contains("LISTEN") && !malformed.contains("everywhere"), "{malformed}");
}
