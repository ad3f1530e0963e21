//! A forged keyring that asks for all memory.

use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use futures_executor::block_on;
use keystead_file::{FileStore, RootSecret};
use rusqlite::Connection;

use crate::child::{Worker, chain};

/// Far below what the least of the forged parameters asks for, in KiB.
const ENOUGH_KIB: u64 = 48 * 1024;

/// Memory in KiB, passes and lanes, of which one is out of bounds.
const FORGED: [[u32; 3]; 5] =
    [[u32::MAX, 1, 1], [(1 << 20) + 1, 3, 4], [1 << 20, 17, 4], [1 << 20, 3, 17], [1 << 20, 0, 4]];

pub(crate) fn refused_before_it_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    block_on(async {
        FileStore::create(&path, RootSecret::passphrase("correct horse")).await.unwrap().close().await.unwrap();
    });
    for forged in FORGED {
        forge(&path, forged);
        let told = Worker::start("open_and_tell", &[path.to_str().unwrap()]).finish();
        let [kind, text, peak] = told.as_slice() else { panic!("a worker tells kind, text and memory") };
        assert_eq!(kind, "Corrupt", "{text}");
        assert!(text.contains("1 GiB, 16 passes or 16 lanes"), "{text}");
        let peak: u64 = peak.parse().unwrap();
        assert!(peak < ENOUGH_KIB, "{forged:?} took {peak} KiB");
    }
}

/// Bytes 12 to 23 of the sealed keyring, and the checksum that anybody can make.
fn forge(path: &Path, cost: [u32; 3]) {
    let tool = Connection::open(path).unwrap();
    let mut sealed: Vec<u8> =
        tool.query_row("SELECT bytes FROM keyring WHERE number = 1", [], |row| row.get(0)).unwrap();
    sealed[12..24].copy_from_slice(&cost.map(u32::to_be_bytes).concat());
    let end = sealed.len() - 32;
    let checksum = digest(&SHA256, &sealed[..end]);
    sealed[end..].copy_from_slice(checksum.as_ref());
    tool.execute("UPDATE keyring SET bytes = ?1 WHERE number = 1", [sealed]).unwrap();
}

/// `PATH`: fails to open a store with a passphrase, and tells the kind and the text of the error,
/// and the most memory in KiB that this process ever had.
pub(crate) fn open_and_tell(arguments: &[String]) {
    let [path] = arguments else { panic!("PATH") };
    let error = block_on(FileStore::open(path, RootSecret::passphrase("correct horse"))).unwrap_err();
    println!("{:?}\n{}\n{}", error.kind(), chain(&error), peak_kib());
}

#[cfg(target_os = "linux")]
pub(crate) fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Only Linux tells.
#[cfg(not(target_os = "linux"))]
pub(crate) fn peak_kib() -> u64 {
    0
}
