//! Tests of the journal: its contents, the journals that are refused, and torn journals.

use std::fs;
use std::path::Path;

use futures_util::FutureExt;
use hmac::{Hmac, KeyInit, Mac};
use keystead_copy::{CopyOptions, copy_keys};
use keystead_core::{Effect, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, SecretKey};
use keystead_memory::MemoryStore;
use sha2::Sha256;

use crate::rigged::Rigged;
use crate::{assert_equal, copy, fill, id, key, with_journal};

const RECORD_LEN: usize = 41;

/// Returns the length of the header, from the lengths that it contains.
fn header_len(journal: &[u8]) -> usize {
    let length = |at: usize| usize::from(u16::from_le_bytes([journal[at], journal[at + 1]]));
    73 + length(52) + length(54)
}

/// Writes a journal as a power failure could have left it.
fn put(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// Copies five keys, and returns the stores and the journal.
async fn copied() -> (MemoryStore, MemoryStore, Vec<u8>) {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    let (_directory, path) = crate::journal();
    fill(&source, 0..5).await;
    assert!(copy(&source, &target, with_journal(&path)).await.is_complete());
    let bytes = fs::read(&path).unwrap();
    // Two records for each key, and the end.
    assert_eq!(bytes.len(), header_len(&bytes) + 11 * RECORD_LEN);
    (source, target, bytes)
}

async fn refusal(path: &Path) -> (ErrorKind, String) {
    let source = Rigged::new(&MemoryStore::new());
    let target = Rigged::new(&MemoryStore::new());
    let error = copy_keys(&source, &target, CopyOptions::default().journal(path)).await.unwrap_err();
    assert_eq!((error.operation(), error.effect()), (Operation::Copy, Effect::NotApplied));
    assert!(source.all_calls().is_empty() && target.all_calls().is_empty());
    (error.kind(), std::error::Error::source(&error).unwrap().to_string())
}

#[tokio::test]
async fn it_holds_neither_ids_nor_keys() {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    let (_directory, path) = crate::journal();
    let id = "canary-id-in-the-mine";
    let key = *b"canary-key-in-the-mine";
    source.put_key(&KeyId::new(id).unwrap(), &SecretKey::new(key).unwrap()).await.unwrap();
    assert!(copy(&source, &target, with_journal(&path).delete_source(true)).await.is_complete());
    let bytes = fs::read(&path).unwrap();
    for canary in [id.as_bytes(), &key] {
        assert!(!bytes.windows(8).any(|window| canary.windows(8).any(|part| part == window)));
    }
}

#[cfg(unix)]
#[tokio::test]
async fn it_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let (_directory, path) = crate::journal();
    copy(&MemoryStore::new(), &MemoryStore::new(), with_journal(&path)).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let (kind, text) = refusal(&path).await;
    assert!(kind == ErrorKind::Config && text.contains("chmod 600"), "{text}");
}

#[tokio::test]
async fn what_is_no_journal_is_refused_and_left() {
    let (_directory, path) = crate::journal();
    for foreign in [&b"notes"[..], &[b'x'; 500], b"keystead-notes"] {
        put(&path, foreign);
        let (kind, text) = refusal(&path).await;
        assert!(kind == ErrorKind::Config && text.contains("not a journal"), "{text}");
        assert_eq!(fs::read(&path).unwrap(), foreign);
    }
}

#[tokio::test]
async fn the_journal_of_another_pair_is_refused() {
    let (_, _, bytes) = copied().await;
    let (_directory, path) = crate::journal();
    put(&path, &bytes);
    let (kind, text) = refusal(&path).await;
    assert!(kind == ErrorKind::Config && text.contains("other stores"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[tokio::test]
async fn the_way_back_needs_a_journal_of_its_own() {
    let source = MemoryStore::new();
    let target = Rigged::new(&MemoryStore::new());
    let (_directory, path) = crate::journal();
    copy(&source, &target, with_journal(&path)).await;
    assert_eq!(copy_keys(&target, &source, with_journal(&path)).await.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn a_second_run_with_the_same_journal_is_refused() {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    let (_directory, path) = crate::journal();
    fill(&source, 0..5).await;
    let slow = Rigged::new(&source);
    let mut first = Box::pin(copy_keys(&slow, &target, with_journal(&path)));
    // At its first wait it has asked for an identity, at its second it has locked the journal.
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut first).now_or_never().is_none());
    let error = copy_keys(&source, &target, with_journal(&path)).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Conflict, Operation::Copy));
    drop(first);
    assert!(copy(&slow, &target, with_journal(&path)).await.is_complete());
}

#[tokio::test]
async fn a_newer_version_and_a_damaged_header_are_refused() {
    let (source, target, bytes) = copied().await;
    let (_directory, path) = crate::journal();
    for at in 0..header_len(&bytes) - 1 {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        put(&path, &damaged);
        let error = copy_keys(&source, &target, with_journal(&path)).await.unwrap_err();
        let expected = match at {
            0..16 => ErrorKind::Config,
            16..20 => ErrorKind::Unsupported,
            _ => ErrorKind::Corrupt,
        };
        assert_eq!(error.kind(), expected, "byte {at}");
        assert_eq!(fs::read(&path).unwrap(), damaged);
    }
}

#[tokio::test]
async fn a_journal_that_is_torn_anywhere_is_gone_on_with() {
    let (source, target, bytes) = copied().await;
    let (_directory, path) = crate::journal();
    for len in 0..bytes.len() {
        put(&path, &bytes[..len]);
        let report = copy(&source, &target, with_journal(&path)).await;
        assert!(report.is_complete(), "{len} bytes: {report:?}");
        let records = len.saturating_sub(header_len(&bytes)) / RECORD_LEN;
        let intended = records.min(5) as u64;
        let written = records.saturating_sub(5).min(5) as u64;
        let expected = (written, intended - written, 5 - intended);
        assert_eq!((report.done_before, report.copied, report.already_there), expected, "{len} bytes");
        assert_equal(&source, &target).await;
        // That run has repaired the torn journal.
        let again = copy(&source, &target, with_journal(&path)).await;
        assert!(again.is_complete() && again.was_complete && again.done_before == 5, "{len} bytes: {again:?}");
    }
}

/// A journal without its end names keys that the copy wrote and that the source no longer has,
/// because the copy itself deleted them.
#[tokio::test]
async fn no_loss_of_records_lets_a_move_remove_what_it_moved() {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    let (_directory, path) = crate::journal();
    fill(&source, 0..5).await;
    let all = MemoryStore::new();
    fill(&all, 0..5).await;
    assert!(copy(&source, &target, with_journal(&path).delete_source(true)).await.is_complete());
    let bytes = fs::read(&path).unwrap();
    for len in 0..bytes.len() {
        put(&path, &bytes[..len]);
        let report = copy(&source, &target, with_journal(&path).delete_source(len % 2 == 0)).await;
        assert!(report.is_complete() && report.removed_at_target.is_empty(), "{len} bytes");
        assert_equal(&all, &target).await;
    }
}

#[tokio::test]
async fn a_damaged_record_is_gone_on_from() {
    let (source, target, bytes) = copied().await;
    let (_directory, path) = crate::journal();
    for at in header_len(&bytes)..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        put(&path, &damaged);
        let report = copy(&source, &target, with_journal(&path)).await;
        assert!(report.is_complete() && !report.was_complete, "byte {at}");
        assert_equal(&source, &target).await;
    }
}

#[tokio::test]
async fn a_complete_journal_makes_the_next_run_read_each_key_once_on_both_sides() {
    let memory = MemoryStore::new();
    let target = MemoryStore::new();
    let (_directory, path) = crate::journal();
    fill(&memory, 0..25).await;
    let from = Rigged::new(&memory);
    let to = Rigged::new(&target);
    assert!(!copy(&from, &to, with_journal(&path)).await.was_complete);
    let before = fs::read(&path).unwrap();
    let from = Rigged::new(&memory);
    let to = Rigged::new(&target);
    let report = copy(&from, &to, with_journal(&path)).await;
    assert!(report.is_complete() && report.was_complete && report.done_before == 25);
    assert_eq!(report.to_string(), "complete: every key of the source was read back at the target");
    // Two listings of three pages; one batch on each side.
    assert_eq!((from.calls(Operation::List).len(), from.all_calls().len(), to.all_calls().len()), (6, 7, 1));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn without_the_recheck_a_run_lists_once_reads_nothing_and_is_not_called_complete() {
    let memory = MemoryStore::new();
    let target = MemoryStore::new();
    let (_directory, path) = crate::journal();
    fill(&memory, 0..25).await;
    let from = Rigged::new(&memory);
    let to = Rigged::new(&target);
    copy(&from, &to, with_journal(&path)).await;
    let before = fs::read(&path).unwrap();
    let from = Rigged::new(&memory);
    let to = Rigged::new(&target);
    let report = copy(&from, &to, with_journal(&path).recheck(false)).await;
    assert_eq!((report.done_before, report.not_rechecked), (25, 25));
    assert!(report.has_nothing_open() && !report.is_complete());
    let sentence = report.to_string();
    assert!(!sentence.contains("complete") && !sentence.contains("every key of"), "{sentence}");
    assert!(sentence.contains("25 that earlier runs copied were not read again"), "{sentence}");
    assert_eq!((from.calls(Operation::List).len(), from.all_calls().len(), to.all_calls().len()), (3, 3, 0));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_conflict_that_was_settled_by_hand_is_done_by_the_next_run() {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    let (_directory, path) = crate::journal();
    fill(&source, 0..5).await;
    target.put_key(&id(2), &key(2, 1)).await.unwrap();
    let report = copy(&source, &target, with_journal(&path)).await;
    assert_eq!((report.copied, report.conflicts.total), (4, 1));
    let options = with_journal(&path).on_conflict(keystead_copy::ConflictPolicy::Overwrite);
    let report = copy(&source, &target, options).await;
    assert!(report.is_complete() && !report.was_complete);
    assert_eq!((report.done_before, report.overwritten), (4, 1));
    assert_equal(&source, &target).await;
}

/// Returns a digest as FORMAT.md describes it.
fn digest(key: &[u8], purpose: u8, data: &[&[u8]]) -> [u8; 16] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(&[purpose]);
    data.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes()[..16].try_into().unwrap()
}

/// Returns the checksum of these bytes, which begin at this offset of the file.
fn checksum(digest_key: &[u8], at: usize, bytes: &[u8]) -> [u8; 8] {
    digest(digest_key, 5, &[&(at as u64).to_le_bytes(), bytes])[..8].try_into().unwrap()
}

/// Returns a record with its checksum.
fn record(digest_key: &[u8], at: usize, body: &[u8]) -> Vec<u8> {
    [body, &checksum(digest_key, at, body)].concat()
}

/// Returns a header as FORMAT.md describes it.
fn header(digest_key: &[u8; 32], source: &str, target: &str) -> Vec<u8> {
    let mut header = b"keystead-journal".to_vec();
    header.extend(2u32.to_le_bytes());
    header.extend(digest_key);
    header.extend((source.len() as u16).to_le_bytes());
    header.extend((target.len() as u16).to_le_bytes());
    assert_eq!(header.len(), 56);
    header.extend(checksum(digest_key, 0, &header));
    let texts = [source, target].concat();
    header.extend(texts.as_bytes());
    header.extend(checksum(digest_key, 64, texts.as_bytes()));
    header.push(0);
    header
}

#[tokio::test]
async fn a_journal_that_is_written_after_the_documentation_is_understood() {
    let source = MemoryStore::new();
    let target = Rigged::new(&MemoryStore::new());
    let (_directory, path) = crate::journal();
    fill(&source, 0..3).await;
    fill(&target.memory, 0..2).await;
    let digest_key = [9; 32];
    let identity = |store: &dyn KeyStore| store.info().identity().to_string();
    let mut journal = header(&digest_key, &identity(&source), &identity(&target));
    assert_eq!(journal.len(), header_len(&journal));
    // Id 0 was found, id 1 was written.
    for (step, number) in [(3, 0), (1, 1), (2, 1)] {
        let id = digest(&digest_key, 1, &[id(number).as_str().as_bytes()]);
        let key = digest(&digest_key, 2, &[&id, key(number, 0).expose_secret()]);
        journal.extend(record(&digest_key, journal.len(), &[&[step][..], &id, &key].concat()));
    }
    put(&path, &journal);
    let report = copy(&source, &target, with_journal(&path)).await;
    assert_eq!((report.done_before, report.copied), (2, 1));
    assert_eq!(target.calls(Operation::Create).len(), 1);
    // The run has added exactly these records.
    let written = fs::read(&path).unwrap();
    let id = digest(&digest_key, 1, &[id(2).as_str().as_bytes()]);
    let key = digest(&digest_key, 2, &[&id, key(2, 0).expose_secret()]);
    for body in [[&[1][..], &id, &key].concat(), [&[2][..], &id, &key].concat(), [&[5][..], &[0; 32]].concat()] {
        journal.extend(record(&digest_key, journal.len(), &body));
    }
    assert!(written == journal);
}

#[tokio::test]
async fn a_journal_of_version_1_is_refused_with_what_to_do() {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&source, 0..3).await;
    let (_directory, path) = crate::journal();
    let digest_key = [9; 32];
    let mut version_1 = b"keystead-journal".to_vec();
    version_1.extend(1u32.to_le_bytes());
    version_1.extend(digest_key);
    version_1.extend(digest(&digest_key, 3, &[source.info().to_string().as_bytes()]));
    version_1.extend(digest(&digest_key, 4, &[target.info().to_string().as_bytes()]));
    version_1.extend(checksum(&digest_key, 0, &version_1));
    version_1.push(0);
    for len in [17, 20, 60, version_1.len()] {
        put(&path, &version_1[..len]);
        let error = copy_keys(&source, &target, with_journal(&path)).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unsupported, Effect::NotApplied));
        let text = std::error::Error::source(&error).unwrap().to_string();
        for part in ["version 1", "the version of keystead that began it", "start a new journal", "compared again"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(fs::read(&path).unwrap(), &version_1[..len]);
        assert!(crate::ids(&target).await.is_empty());
    }
    put(&path, &[&b"keystead-journal"[..], &3u32.to_le_bytes(), &[0; 200]].concat());
    let (kind, text) = refusal(&path).await;
    assert!(kind == ErrorKind::Unsupported && text.contains("later version"), "{text}");
}

/// Compares the numbers in FORMAT.md with those of the code.
#[test]
fn the_format_is_documented_with_the_numbers_of_the_code() {
    let format = include_str!("../../src/FORMAT.md");
    for line in [
        "# The format of the copy journal, version 2",
        "followed by records of 41 bytes each",
        "| 0 | 16 | `keystead-journal` |",
        "| 16 | 4 | format version: 2 |",
        "| 56 | 8 | checksum of the 56 bytes before |",
        "| 64 | S | identity of the source, UTF-8 |",
        "The records begin at offset 73 + S + T.",
        "| 33 | 8 | checksum of the 33 bytes before |",
    ] {
        assert!(format.contains(line), "{line}");
    }
    for (step, name) in [(1, "intended"), (2, "written"), (3, "found"), (4, "removed"), (5, "ended")] {
        assert!(format.contains(&format!("| {step} | {name} |")), "{name}");
    }
}
