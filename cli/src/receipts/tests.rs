//! Logs that are changed at every byte or cut off at many places.

use std::fs;
use std::path::{Path, PathBuf};

use keystead::layers::ErasureReceipt;

use super::chain::{Broken, Demands, Kept, Summary, read, read_lines};
use super::keys::{PublicKey, Signer};
use super::log::ReceiptLog;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/receipts").join(name)
}

fn read_bytes(log: &[u8], demands: &Demands) -> Result<Summary, Broken> {
    read_lines(log, demands, |_, _| {}).unwrap()
}

/// Checks that a change, a removal and an insertion of each byte are noticed.
#[track_caller]
fn expect_each_change_noticed(log: &[u8], demands: &Demands) {
    assert_eq!(read_bytes(log, demands).unwrap().receipts, 5);
    for at in 0..log.len() {
        let before = &log[..at];
        let after = &log[at + 1..];
        for changed in [&[log[at] ^ 1][..], b"", &[log[at], b'\n']] {
            let changed = [before, changed, after].concat();
            assert!(changed == log || read_bytes(&changed, demands).is_err(), "a change at {at} was not noticed");
        }
    }
}

#[test]
fn no_byte_of_a_signed_log_can_be_changed() {
    let public_key = PublicKey::from_pem(&fs::read(golden("public.pem")).unwrap()).unwrap();
    let demands = Demands { public_keys: vec![public_key], kept: None };
    expect_each_change_noticed(&fs::read(golden("signed.log")).unwrap(), &demands);
}

#[test]
fn no_byte_of_an_unsigned_log_can_be_changed_if_its_head_was_kept() {
    let log = fs::read(golden("unsigned.log")).unwrap();
    let Summary { count, head, .. } = read_bytes(&log, &Demands::default()).unwrap();
    expect_each_change_noticed(&log, &Demands { public_keys: Vec::new(), kept: Some(Kept { count, head }) });
}

#[test]
fn a_log_that_is_cut_off_anywhere_in_its_last_lines_can_be_added_to() {
    let whole = fs::read(golden("signed.log")).unwrap();
    let mut receipts = Vec::<ErasureReceipt>::new();
    read(&golden("signed.log"), &Demands::default(), |_, receipt| receipts.push(receipt)).unwrap().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    // From the beginning of the receipt before the last marker on.
    let ends: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] == b'\n').collect();
    let first = ends[ends.len() - 4] + 1;
    for cut in (first..=whole.len()).step_by(17).chain(ends[ends.len() - 3..].iter().flat_map(|end| [*end, end + 1])) {
        fs::write(&path, &whole[..cut]).unwrap();
        let signer = Signer::from_pem(&fs::read(golden("private.pem")).unwrap());
        let before = read(&path, &Demands::default(), |_, _| {}).unwrap().map(|summary| summary.receipts);
        let mut log = ReceiptLog::open(&path, signer).unwrap();
        log.append(&receipts[0]).unwrap();
        assert!(fs::read(&path).unwrap().starts_with(&whole[..cut]), "cut off at {cut}, the log was changed");
        let after = read(&path, &Demands::default(), |_, _| {}).unwrap();
        let after = after.unwrap_or_else(|broken| panic!("cut off at {cut}: {broken:?}")).receipts;
        match before {
            Ok(before) => assert_eq!(after, before + 1, "cut off at {cut}"),
            Err(_) => assert!((4..=6).contains(&after), "cut off at {cut}"),
        }
    }
}
