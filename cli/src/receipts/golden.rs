//! Checks that logs are still written as in tests/golden/receipts, where format 1 is frozen.
//! `KEYSTEAD_BLESS=1` writes these files again, for a new version of the format.

use std::fs;
use std::path::{Path, PathBuf};

use keystead::layers::ErasureReceipt;
use serde_json::json;

use super::entry::{Body, Hash, Place, Torn, line};
use super::keys::{PublicKey, Signer};
use super::{Demands, Position, read};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/receipts").join(name)
}

fn receipt(user: u8, finality: &str, bound: Option<(&str, u64)>) -> ErasureReceipt {
    let mut receipt = json!({
        "store": "ssm:/app/user-keys/%s; partition=aws; region=eu-central-1; account=123456789012",
        "tombstone": format!("{user:02x}").repeat(32),
        "erased_at": 1_796_000_000,
        "finished_at": 1_796_000_000 + u64::from(user),
        "existed": user != 2,
        "verified": finality != "recoverable",
        "finality": finality,
    });
    if let Some((name, seconds)) = bound {
        receipt[name] = json!(seconds);
    }
    serde_json::from_value(receipt).unwrap()
}

/// Returns a log with every kind of line.
fn log(signer: Option<&Signer>) -> Vec<u8> {
    let torn = b"{\"seq\":4,\"prev\":\"ab\0\0\0";
    let bodies = [
        Body::Begin { log: "0123456789abcdef0123456789abcdef".to_owned() },
        Body::Receipt(receipt(1, "immediate", None)),
        Body::Receipt(receipt(2, "eventual", None)),
        Body::Receipt(receipt(3, "eventual", Some(("within", 60)))),
        Body::Torn(Torn::of(torn)),
        Body::Receipt(receipt(4, "recoverable", Some(("recoverable_until", 1_798_592_004)))),
        Body::Torn(Torn::of(b"")),
        Body::Receipt(receipt(5, "immediate", None)),
    ];
    let mut log = Vec::new();
    let mut prev = Hash::NONE;
    for (body, seq) in bodies.into_iter().zip(0..) {
        if seq == 4 {
            log.extend_from_slice(torn);
            log.push(b'\n');
        }
        let line = line(Place { seq, prev, at: 1_796_000_001 + seq }, body, signer).unwrap();
        prev = Hash::of(&line);
        log.extend_from_slice(&line);
        log.push(b'\n');
    }
    log
}

#[test]
fn the_golden_logs_are_written_as_they_were() {
    let signer = Signer::from_pem(&fs::read(golden("private.pem")).unwrap()).unwrap();
    for (name, signer) in [("unsigned.log", None), ("signed.log", Some(&signer))] {
        let log = log(signer);
        if std::env::var_os("KEYSTEAD_BLESS").is_some() {
            fs::write(golden(name), &log).unwrap();
        }
        assert_eq!(String::from_utf8(log).unwrap(), fs::read_to_string(golden(name)).unwrap(), "{name}");
    }
}

#[test]
fn the_golden_logs_are_read() {
    let public_key = PublicKey::from_pem(&fs::read(golden("public.pem")).unwrap()).unwrap();
    for (name, public_keys) in [("unsigned.log", vec![]), ("signed.log", vec![public_key])] {
        let mut found = Vec::new();
        let demands = Demands { public_keys, kept: None };
        let summary =
            read(&golden(name), &demands, |position, receipt| found.push((position, receipt))).unwrap().unwrap();
        assert_eq!((summary.count, summary.receipts, summary.markers), (7, 5, 2), "{name}");
        let expected = [
            (Position { entry: 1, line: 2 }, receipt(1, "immediate", None)),
            (Position { entry: 2, line: 3 }, receipt(2, "eventual", None)),
            (Position { entry: 3, line: 4 }, receipt(3, "eventual", Some(("within", 60)))),
            (Position { entry: 5, line: 7 }, receipt(4, "recoverable", Some(("recoverable_until", 1_798_592_004)))),
            (Position { entry: 7, line: 9 }, receipt(5, "immediate", None)),
        ];
        assert_eq!(found, expected, "{name}");
    }
}
