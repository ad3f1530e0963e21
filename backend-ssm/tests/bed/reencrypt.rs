//! Keys that move to another KMS key or tier while others write.

use std::sync::Arc;
use std::time::Duration;

use keystead_aws::{ReencryptOptions, ReencryptReport, reencrypt};
use keystead_aws_testbed::FOREIGN_KMS_KEY_ARN;
use keystead_conformance::{Fault, Faults};
use keystead_core::{Effect, ErrorKind, KeyStore, KeyStoreExt, Operation};
use keystead_ssm::{SsmConfig, SsmStore, Tier};
use serde_json::json;

use crate::{Fixture, id, key};

/// The value of the old key: "ABC" in base64.
const OLD: &str = "QUJD";

fn store(fixture: &Fixture, config: SsmConfig) -> SsmStore {
    let builder = SsmStore::builder(config).sdk_config(&fixture.bed.sdk_config());
    builder.visibility_bound(Duration::from_millis(200)).build().unwrap()
}

/// Returns a store of the same keys under another KMS key.
fn moved(fixture: &Fixture) -> SsmStore {
    store(fixture, SsmConfig::new(FOREIGN_KMS_KEY_ARN, fixture.path()).unwrap())
}

async fn run(store: &SsmStore) -> ReencryptReport {
    reencrypt(store, ReencryptOptions::new().exclusive().rate(1e6), |_| {}).await.unwrap()
}

/// Makes the next read of alice's key return the old value with this version, as if somebody else
/// wrote after that read.
fn read_before(fixture: &Fixture, version: i64) {
    let name = fixture.path().replace("%s", "alice");
    let parameter =
        json!({"Name": name, "Type": "SecureString", "Value": OLD, "Version": version, "LastModifiedDate": 1});
    fixture.answer("GetParameter", 1, 200, json!({"Parameter": parameter}));
}

/// Makes the listing show alice's key under the old KMS key.
fn list_alice(fixture: &Fixture) {
    let alice = json!({"Name": fixture.path().replace("%s", "alice"), "KeyId": "alias/old", "Tier": "Standard"});
    fixture.answer("DescribeParameters", 1, 200, json!({"Parameters": [alice]}));
}

#[tokio::test]
async fn every_key_is_put_under_the_new_kms_key_and_a_second_run_only_lists() {
    let fixture = Fixture::new();
    for index in 0..60 {
        fixture.store().create_key(&id(&format!("user-{index}")), &key([index; 32])).await.unwrap();
    }
    let store = moved(&fixture);
    let report = run(&store).await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((report.current, report.reencrypted), (0, 60));
    for index in 0..60 {
        assert_eq!(store.get_key(&id(&format!("user-{index}"))).await.unwrap(), key([index; 32]));
    }
    let begun = fixture.calls().len();
    let report = run(&store).await;
    assert_eq!((report.current, report.reencrypted, report.failed), (60, 0, 0));
    assert!(fixture.operations()[begun..].iter().all(|operation| operation == "DescribeParameters"));
}

#[tokio::test]
async fn a_run_that_was_cut_off_goes_on_where_it_was() {
    let fixture = Fixture::new();
    for name in ["alice", "bob", "carol"] {
        fixture.store().create_key(&id(name), &key([1; 32])).await.unwrap();
    }
    let store = moved(&fixture);
    fixture.answer("PutParameter", 9, 400, json!({"__type": "AccessDeniedException", "message": "no"}));
    let report = run(&store).await;
    assert_eq!((report.failed, report.failures.len()), (3, 3));
    assert!(
        report
            .failures
            .iter()
            .all(|(_, e)| e.kind() == ErrorKind::PermissionDenied && e.effect() == Effect::NotApplied)
    );
    fixture.bed.faults(Duration::from_secs(5)).clear(&fixture.ns).await.unwrap();
    store.put_key(&id("bob"), &key([2; 32])).await.unwrap();
    let report = run(&store).await;
    assert_eq!((report.current, report.reencrypted, report.failed), (1, 2, 0));
    assert_eq!(store.get_key(&id("bob")).await.unwrap(), key([2; 32]));
}

#[tokio::test]
async fn keys_are_moved_to_another_tier_and_not_back() {
    let fixture = Fixture::new();
    fixture.store().create_key(&id("alice"), &key([1; 32])).await.unwrap();
    let report = run(&store(&fixture, fixture.config().tier(Tier::Advanced))).await;
    assert_eq!((report.current, report.reencrypted), (0, 1));
    assert_eq!(run(&store(&fixture, fixture.config().tier(Tier::AccountDefault))).await.current, 1);
    let report = run(&fixture.store()).await;
    let (_, error) = &report.failures[0];
    let cause = std::error::Error::source(error).unwrap().to_string();
    assert!(report.failed == 1 && cause.contains("set tier to advanced"), "{report:?}");
}

#[tokio::test]
async fn it_is_refused_before_any_call_unless_nobody_else_writes() {
    let fixture = Fixture::new();
    let refusal = reencrypt(&moved(&fixture), ReencryptOptions::new(), |_| {}).await.unwrap_err();
    assert_eq!((refusal.kind(), refusal.effect()), (ErrorKind::Unsupported, Effect::NotApplied));
    for rate in [0.0, -1.0, f64::NAN] {
        let options = ReencryptOptions::new().exclusive().rate(rate);
        assert_eq!(reencrypt(&moved(&fixture), options, |_| {}).await.unwrap_err().kind(), ErrorKind::Config);
    }
    assert!(fixture.calls().is_empty());
}

#[tokio::test]
async fn a_legacy_path_is_not_written_to() {
    let fixture = Fixture::new();
    list_alice(&fixture);
    let config = SsmConfig::legacy(fixture.path()).unwrap();
    let report = run(&store(&fixture, config)).await;
    assert_eq!(report.failures[0].1.kind(), ErrorKind::Unsupported);
    assert_eq!(fixture.operations(), ["DescribeParameters"]);
}

/// Somebody else puts between the read and the put.
#[tokio::test]
async fn a_newer_key_is_put_back_and_reported() {
    let fixture = Fixture::new();
    let store = moved(&fixture);
    store.put_key(&id("alice"), &key(*b"ABC")).await.unwrap();
    store.put_key(&id("alice"), &key(*b"newer")).await.unwrap();
    list_alice(&fixture);
    read_before(&fixture, 1);
    let report = run(&store).await;
    assert_eq!(report.newer_restored, [id("alice")]);
    assert!(!report.is_complete() && report.failed == 0, "{report:?}");
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(*b"newer"));
}

/// Somebody else deletes and creates the key between the read and the put, so the number of the
/// version alone tells nothing.
#[tokio::test]
async fn a_key_that_was_created_anew_is_put_back_although_the_version_is_the_next_one() {
    let fixture = Fixture::new();
    let store = moved(&fixture);
    store.create_key(&id("alice"), &key(*b"newer")).await.unwrap();
    list_alice(&fixture);
    read_before(&fixture, 1);
    let report = run(&store).await;
    assert_eq!(report.newer_restored, [id("alice")]);
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(*b"newer"));
}

/// Somebody else deletes the key between the read and the put.
#[tokio::test]
async fn a_key_that_comes_back_is_deleted_again_and_reported() {
    for version in [1, 7] {
        let fixture = Fixture::new();
        let store = moved(&fixture);
        list_alice(&fixture);
        read_before(&fixture, version);
        let report = run(&store).await;
        assert_eq!(report.deleted_again, [id("alice")]);
        assert_eq!(store.find_key(&id("alice")).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_key_that_was_deleted_since_it_was_listed_is_left() {
    let fixture = Fixture::new();
    list_alice(&fixture);
    let report = run(&moved(&fixture)).await;
    assert_eq!((report.gone, report.failed), (1, 0));
    let operations = fixture.operations();
    assert!(operations.len() > 2 && operations[1..].iter().all(|operation| operation == "GetParameter"));
}

#[tokio::test]
async fn a_key_that_is_not_visible_at_first_is_not_gone() {
    let fixture = Fixture::new();
    fixture.store().create_key(&id("alice"), &key(*b"ABC")).await.unwrap();
    fixture.answer("GetParameter", 1, 400, json!({"__type": "ParameterNotFound"}));
    let report = run(&moved(&fixture)).await;
    assert_eq!((report.reencrypted, report.gone), (1, 0), "{report:?}");
}

/// Somebody else deletes a key and brings the same value back, as from a backup.
#[tokio::test]
async fn a_key_that_was_restored_with_the_same_value_stays() {
    let fixture = Fixture::new();
    let store = moved(&fixture);
    store.create_key(&id("alice"), &key(*b"ABC")).await.unwrap();
    list_alice(&fixture);
    read_before(&fixture, 3);
    let report = run(&store).await;
    assert_eq!((report.newer_restored.len(), report.deleted_again.len()), (1, 0), "{report:?}");
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(*b"ABC"));
    assert!(!fixture.operations().contains(&"DeleteParameter".to_owned()));
}

/// Somebody else deletes a key, and then, after our put, deletes and creates it once more.
#[tokio::test]
async fn a_key_that_comes_back_is_not_deleted_if_it_has_another_value() {
    let fixture = Fixture::new();
    let store = moved(&fixture);
    list_alice(&fixture);
    read_before(&fixture, 1);
    answer_read(
        &fixture,
        "",
        json!({"Type": "SecureString", "Value": "bmV3ZXI=", "Version": 1, "LastModifiedDate": 9}),
    );
    let report = run(&store).await;
    assert_eq!(report.needs_attention, [id("alice")], "{report:?}");
    assert!(cause(&report).contains("has come back"), "{report:?}");
    assert!(!fixture.operations().contains(&"DeleteParameter".to_owned()));
}

/// Makes all further reads of alice's key, or of one version such as `:1`, return this parameter.
fn answer_read(fixture: &Fixture, selector: &str, parameter: serde_json::Value) {
    let name = format!("\"{}{selector}\"", fixture.path().replace("%s", "alice"));
    fixture.bed.answer("GetParameter", &name, u32::MAX, 200, json!({"Parameter": parameter}).to_string());
}

/// Returns the cause of the first failure.
fn cause(report: &ReencryptReport) -> String {
    std::error::Error::source(&report.failures[0].1).unwrap().to_string()
}

#[tokio::test]
async fn a_newer_key_that_cannot_be_put_back_is_reported_with_its_version() {
    let fixture = Fixture::new();
    let store = moved(&fixture);
    store.put_key(&id("alice"), &key(*b"ABC")).await.unwrap();
    store.put_key(&id("alice"), &key(*b"newer-and-refused")).await.unwrap();
    list_alice(&fixture);
    read_before(&fixture, 1);
    let denied = json!({"__type": "AccessDeniedException", "message": "no"}).to_string();
    fixture.bed.answer("PutParameter", "bmV3ZXItYW5kLXJlZnVzZWQ=", u32::MAX, 400, denied);
    let report = run(&store).await;
    assert_eq!((report.needs_attention.len(), report.failed), (1, 1), "{report:?}");
    let error = &report.failures[0].1;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::Unknown));
    let cause = cause(&report);
    assert!(cause.contains("version 2 of the parameter's history holds it") && !cause.contains("alice"), "{cause}");
}

#[tokio::test]
async fn a_newer_key_is_put_back_although_that_is_refused_for_a_while() {
    let fixture = Fixture::new();
    let store = moved(&fixture);
    store.put_key(&id("alice"), &key(*b"ABC")).await.unwrap();
    store.put_key(&id("alice"), &key(*b"newer-and-delayed")).await.unwrap();
    list_alice(&fixture);
    read_before(&fixture, 1);
    let failed = json!({"__type": "InternalServerError", "message": "no"}).to_string();
    // All attempts of one call fail.
    fixture.bed.answer("PutParameter", "bmV3ZXItYW5kLWRlbGF5ZWQ=", 3, 500, failed);
    let report = run(&store).await;
    assert_eq!(report.newer_restored, [id("alice")], "{report:?}");
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(*b"newer-and-delayed"));
}

/// After the put, a read returns nothing or an older version.
#[tokio::test]
async fn a_key_that_is_not_read_back_is_not_done() {
    let parameter = |version| json!({"Type": "SecureString", "Value": OLD, "Version": version, "LastModifiedDate": 1});
    for is_gone in [true, false] {
        let fixture = Fixture::new();
        let store = moved(&fixture);
        store.put_key(&id("alice"), &key(*b"ABC")).await.unwrap();
        list_alice(&fixture);
        read_before(&fixture, 1);
        answer_read(&fixture, ":1", parameter(1));
        if is_gone {
            let name = format!("\"{}\"", fixture.path().replace("%s", "alice"));
            let absent = json!({"__type": "ParameterNotFound"}).to_string();
            fixture.bed.answer("GetParameter", &name, u32::MAX, 400, absent);
        } else {
            answer_read(&fixture, "", parameter(1));
        }
        let report = run(&store).await;
        let needs_attention = report.needs_attention.len();
        assert_eq!((report.reencrypted, report.gone), (0, u64::from(is_gone)), "{report:?}");
        assert_eq!(needs_attention, usize::from(!is_gone), "{report:?}");
    }
}

/// A failed check after the put is distinguished from a failed put, because the next run takes the
/// key for done.
#[tokio::test]
async fn a_put_that_cannot_be_checked_needs_attention() {
    let fixture = Fixture::new();
    let store = moved(&fixture);
    store.put_key(&id("alice"), &key(*b"ABC")).await.unwrap();
    list_alice(&fixture);
    let selected = format!("\"{}:1\"", fixture.path().replace("%s", "alice"));
    let denied = json!({"__type": "AccessDeniedException", "message": "no"}).to_string();
    fixture.bed.answer("GetParameter", &selected, u32::MAX, 400, denied);
    let report = run(&store).await;
    assert_eq!(report.needs_attention, [id("alice")], "{report:?}");
    assert!(cause(&report).contains("could not be checked"), "{report:?}");
}

/// The answers to all attempts of the put are lost. The current version tells whether it was
/// applied.
#[tokio::test]
async fn a_put_whose_answers_are_lost_is_settled() {
    for deleted in [false, true] {
        let fixture = Fixture::new();
        let store = moved(&fixture);
        if deleted {
            list_alice(&fixture);
            read_before(&fixture, 1);
        } else {
            fixture.store().create_key(&id("alice"), &key(*b"ABC")).await.unwrap();
        }
        let faults = fixture.bed.faults(Duration::from_secs(5));
        faults.inject(&fixture.ns, Some(Operation::Put), Fault::ResetAfterApply, 3).await.unwrap();
        let report = run(&store).await;
        assert_eq!(
            (report.reencrypted, report.deleted_again.len(), report.failed),
            (u64::from(!deleted), usize::from(deleted), 0),
            "{report:?}"
        );
        assert_eq!(store.find_key(&id("alice")).await.unwrap().is_none(), deleted);
    }
}

/// Our own earlier attempts, whose answers were lost, do not hide the version before them.
#[tokio::test]
async fn a_newer_key_before_a_lost_attempt_is_put_back() {
    let fixture = Fixture::new();
    let store = moved(&fixture);
    store.create_key(&id("alice"), &key(*b"newer")).await.unwrap();
    list_alice(&fixture);
    read_before(&fixture, 1);
    let faults = fixture.bed.faults(Duration::from_secs(5));
    faults.inject(&fixture.ns, Some(Operation::Put), Fault::ResetAfterApply, 2).await.unwrap();
    let report = run(&store).await;
    assert_eq!(report.newer_restored, [id("alice")], "{report:?}");
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(*b"newer"));
}

/// Waits until a request for this user's key has reached the proxy.
async fn until_called(fixture: &Fixture, operation: &str, segment: &str) {
    let name = format!("\"{}\"", fixture.path().replace("%s", segment));
    while !fixture.bed.calls(&name).iter().any(|call| call.operation == operation) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Somebody else writes or deletes each user's key once while it is re-encrypted: as soon as it is
/// read, or as soon as it is put.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_race_a_newer_key_stays_and_a_deleted_one_stays_deleted() {
    let fixture = Arc::new(Fixture::new());
    let users: Vec<_> = (0..8).map(|index| format!("user-{index}")).collect();
    for user in &users {
        plant(&fixture, user).await;
    }
    let rival = |(index, user): (usize, &String)| {
        let fixture = fixture.clone();
        let user = user.clone();
        tokio::spawn(async move {
            let store = fixture.store();
            until_called(&fixture, if index % 4 < 2 { "GetParameter" } else { "PutParameter" }, &user).await;
            match index % 2 {
                0 => store.put_key(&id(&user), &key(*b"newer")).await.unwrap(),
                // The key existed, so the delete finds it, whatever happens at the same time.
                _ => drop(store.delete_key(&id(&user)).await.unwrap()),
            }
        })
    };
    let rivals: Vec<_> = users.iter().enumerate().map(rival).collect();
    let store = moved(&fixture);
    let report = run(&store).await;
    for rival in rivals {
        rival.await.unwrap();
    }
    assert_eq!(report.failed, 0, "{report:?}");
    for (index, user) in users.iter().enumerate() {
        let expected = (index % 2 == 0).then(|| key(*b"newer"));
        assert_eq!(store.find_key(&id(user)).await.unwrap(), expected, "{user}: {report:?}");
    }
}

/// Writes a user's key past the proxy, under another KMS key.
async fn plant(fixture: &Fixture, segment: &str) {
    let name = fixture.path().replace("%s", segment);
    let parameter = json!({"Name": name, "Type": "SecureString", "KeyId": "alias/old", "Value": OLD});
    fixture.bed.ask_emulator("AmazonSSM.PutParameter", parameter).await.unwrap();
}
