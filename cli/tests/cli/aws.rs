//! Commands on stores in AWS, against the test bed.

use std::process::Command;

use serde_json::{Value, json};

use keystead_aws_testbed::{FOREIGN_KMS_KEY_ARN, KMS_KEY, TestBed};
use keystead_conformance::Namespace;

use crate::fixture::{Fixture, KEY, Ran};

/// A store in the emulator, and the program with credentials for it.
pub(crate) struct Aws {
    pub(crate) fixture: Fixture,
    pub(crate) bed: &'static TestBed,
    pub(crate) namespace: Namespace,
    pub(crate) url: String,
}

impl Aws {
    pub(crate) fn new(scheme: &str) -> Self {
        let bed = TestBed::shared().unwrap();
        let namespace = Namespace::random();
        let at = format!("kms_key={KMS_KEY}&region=us-east-1&endpoint_url={}", bed.url());
        let url = format!("{scheme}:///{namespace}/user-keys/%s?{at}");
        Self { fixture: Fixture::empty(), bed, namespace, url }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.fixture.command(args);
        command
            .env("KEYSTEAD_STORE", &self.url)
            .env("AWS_ACCESS_KEY_ID", "AKIDTEST")
            .env("AWS_SECRET_ACCESS_KEY", "secret");
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, "")
    }

    fn run_with(&self, args: &[&str], stdin: &str) -> Ran {
        let mut command = self.command(args);
        if stdin.is_empty() {
            return command.output().unwrap().into();
        }
        std::fs::write(self.fixture.path("stdin"), stdin).unwrap();
        command.stdin(std::fs::File::open(self.fixture.path("stdin")).unwrap()).output().unwrap().into()
    }
}

#[test]
fn keys_are_kept_in_parameter_store() {
    let aws = Aws::new("ssm");
    aws.run_with(&["put", "alice@example.com"], KEY).done();
    aws.run(&["generate", "bob"]).done();
    assert_eq!(aws.run(&["get", "alice@example.com"]).done(), format!("{KEY}\n"));
    let listed = aws.run(&["list"]).done();
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, ["alice@example.com", "bob"]);
    assert_eq!(aws.run(&["count"]).done(), "2\n");

    let text = aws.run(&["doctor"]).done();
    for line in ["reach        ok", "read         ok", "list         ok", "keys         2 of the 10000 that"] {
        assert!(text.lines().any(|got| got.starts_with(line)), "{line:?} is not in\n{text}");
    }
    let told = aws.run(&["--json", "doctor", "--users", "20000"]).json();
    assert_eq!((&told["tier"], &told["keys"]), (&json!("standard"), &json!({ "count": 2, "limit": 10_000 })));
    assert_eq!(told["costs"]["backends"][1]["monthly"], Value::Null);

    aws.run(&["delete", "bob", "--yes"]).done();
    aws.run(&["get", "bob"]).failed(3);
}

#[test]
fn doctor_counts_with_a_call_of_its_own_where_that_is_allowed_and_lists_elsewhere() {
    let aws = Aws::new("ssm");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for number in 0..12 {
        let name = format!("/{}/user-keys/user-{number}", aws.namespace);
        let parameter = json!({ "Name": name, "Type": "SecureString", "Value": "QUJD" });
        runtime.block_on(aws.bed.ask_emulator("AmazonSSM.PutParameter", parameter)).unwrap();
    }
    let calls = |name: &str| {
        let calls = aws.bed.calls(aws.namespace.as_str());
        calls.iter().filter(|call| call.operation == name).count()
    };
    let doctor = || {
        let told = aws.run(&["--json", "doctor"]).json();
        assert!(told["checks"].as_array().unwrap().iter().all(|check| check["ok"] == true), "{told}");
        assert_eq!(told["keys"]["count"], 12);
        (calls("DescribeParameters"), calls("GetParametersByPath"))
    };
    // A page of the emulator has at most ten entries.
    assert_eq!(doctor(), (2, 1));
    let denied = json!({ "__type": "AccessDeniedException", "message": "User is not authorized" }).to_string();
    aws.bed.answer("DescribeParameters", aws.namespace.as_str(), 1, 400, denied);
    assert_eq!(doctor(), (3, 3));
}

#[test]
fn what_aws_refuses_is_told_with_the_request_and_its_own_exit_code() {
    let aws = Aws::new("ssm");
    let denied = json!({ "__type": "AccessDeniedException", "message": "User is not authorized" }).to_string();
    let answer = |operation: &str| aws.bed.answer(operation, aws.namespace.as_str(), 1, 400, denied.clone());
    answer("GetParameter");
    let text = aws.run(&["get", "alice-canary"]).failed(5);
    assert!(
        text.starts_with("error: get on ssm failed: permission denied\n  because Parameter Store answered"),
        "{text}"
    );
    assert!(!text.contains("canary") && !text.contains(aws.namespace.as_str()), "{text}");

    answer("GetParametersByPath");
    let ran = aws.run(&["doctor"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.stdout.contains("list         FAILED") && ran.stdout.contains("read         ok"), "{ran:?}");

    answer("PutParameter");
    let ran = aws.run(&["doctor", "--write"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.stdout.contains("create       FAILED") && ran.stdout.contains("delete       ok"), "{ran:?}");

    aws.run(&["get", "alice"]).failed(3);
    let text = aws.run(&["--json", "get", "alice"]).failed(3);
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["error"]["aws"]["error-code"], "ParameterNotFound");
    assert!(told["error"]["aws"]["request-id"].as_str().is_some_and(|id| !id.is_empty()), "{told}");
    assert!(aws.run(&["get", "alice"]).stderr.contains("request"), "the request is named");
}

#[test]
fn verbose_tells_each_attempt_and_neither_an_id_nor_a_key() {
    let aws = Aws::new("ssm");
    aws.run_with(&["put", "canaryid7x5q"], KEY).done();
    let throttled = json!({ "__type": "ThrottlingException", "message": "Rate exceeded" }).to_string();
    for args in [&["get", "canaryid7x5q", "--verbose", "--verbose"][..], &["-vv", "get", "canaryid7x5q"]] {
        aws.bed.answer("GetParameter", aws.namespace.as_str(), 1, 400, throttled.clone());
        let ran = aws.run(args);
        assert_eq!((ran.code, ran.stdout.trim_end()), (0, KEY), "{ran:?}");
        let lines: Vec<&str> = ran.stderr.lines().filter(|line| line.contains("GetParameter")).collect();
        assert_eq!(lines.len(), 2, "{ran:?}");
        for (line, texts) in
            lines.iter().zip([["attempt=1 status=400 ", "code=\"ThrottlingException\""], ["attempt=2 ", "status=200"]])
        {
            assert!(line.contains("DEBUG keystead_aws: ") && texts.iter().all(|text| line.contains(text)), "{line}");
            assert!(line.contains("operation=\"GetParameter\"") && line.contains("request_id="), "{line}");
        }
        for canary in ["canary", &KEY[..16], "AKIDTEST"] {
            assert!(!ran.stderr.contains(canary), "{ran:?}");
        }
        let events: Vec<&str> = ran.stderr.lines().filter(|line| line.contains("DEBUG")).collect();
        assert!(!events.join("\n").contains(aws.namespace.as_str()), "{ran:?}");
    }
    // Given once: the steps, with region and account, but no event.
    let ran = aws.run(&["-v", "get", "canaryid7x5q"]);
    let store = format!("keystead: opened ssm:/{}/user-keys/%s (", aws.namespace);
    let line = ran.stderr.lines().find(|line| line.starts_with(&store)).unwrap_or_else(|| panic!("{ran:?}"));
    assert!(line.contains("region us-east-1") && line.contains("account 123456789012"), "{line}");
    assert!(!ran.stderr.contains("DEBUG") && !ran.stderr.contains("canary"), "{ran:?}");
    assert_eq!(aws.run(&["get", "canaryid7x5q"]).stderr, "");
}

#[test]
fn the_tier_of_the_account_is_told_without_a_limit() {
    let mut aws = Aws::new("ssm");
    aws.url.push_str("&tier=account-default");
    let told = aws.run(&["--json", "doctor"]).json();
    assert_eq!((&told["tier"], &told["keys"]["limit"]), (&json!("account-default"), &Value::Null), "{told}");
}

#[test]
fn keys_are_encrypted_anew_under_another_kms_key() {
    for (scheme, exclusive) in [("ssm", true), ("secretsmanager", false)] {
        let mut aws = Aws::new(scheme);
        for id in ["alice-canary", "bob"] {
            aws.run(&["generate", id]).done();
        }
        let alice = aws.run(&["get", "alice-canary"]).done();
        aws.url = aws.url.replace(KMS_KEY, FOREIGN_KMS_KEY_ARN);
        let mut args = vec!["reencrypt", "--rate", "100"];
        if exclusive {
            assert!(aws.run(&args).failed(2).contains("somebody else writes"));
            args.push("--exclusive");
        }
        let text = aws.run(&args).done();
        assert_eq!(text, "complete: 2 keys were re-encrypted, 0 were already as the URL says\n");
        let told = aws.run(&["--json"].iter().chain(&args).copied().collect::<Vec<_>>()).json();
        assert_eq!((&told["complete"], &told["current"]), (&json!(true), &json!(2)), "{told}");
        assert_eq!(aws.run(&["get", "alice-canary"]).done(), alice);

        aws.url = aws.url.replace(FOREIGN_KMS_KEY_ARN, KMS_KEY);
        let denied = json!({ "__type": "AccessDeniedException", "message": "no" }).to_string();
        let operation = if exclusive { "PutParameter" } else { "UpdateSecret" };
        aws.bed.answer(operation, aws.namespace.as_str(), 1, 400, denied);
        let ran = aws.run(&args);
        assert!(
            ran.code == 5 && ran.stdout.starts_with("NOT complete: 1 keys") && !ran.stdout.contains("canary"),
            "{ran:?}"
        );
    }
}

/// A newer key is overwritten, restoring it is denied, and then the listing fails.
#[test]
fn a_key_that_needs_attention_is_told_though_the_listing_fails() {
    let mut aws = Aws::new("ssm");
    aws.url = aws.url.replace(KMS_KEY, FOREIGN_KMS_KEY_ARN);
    let name = format!("/{}/user-keys/alice-canary", aws.namespace);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let newer = "bmV3ZXItYW5kLWNhbmFyeQ==";
    let parameter = json!({ "Name": name, "Type": "SecureString", "Value": newer });
    runtime.block_on(aws.bed.ask_emulator("AmazonSSM.PutParameter", parameter)).unwrap();
    let denied = json!({ "__type": "AccessDeniedException", "message": "no" }).to_string();
    for json in [false, true] {
        let answer = |operation, status, body: String| {
            aws.bed.answer(operation, aws.namespace.as_str(), 1, status, body);
        };
        let listed = json!({ "Name": name, "KeyId": "alias/old", "Tier": "Standard" });
        answer("DescribeParameters", 200, json!({ "Parameters": [listed], "NextToken": "more" }).to_string());
        answer("DescribeParameters", 400, json!({ "__type": "ValidationException" }).to_string());
        let old = json!({ "Name": name, "Type": "SecureString", "Value": "QUJD", "Version": 7, "LastModifiedDate": 1 });
        answer("GetParameter", 200, json!({ "Parameter": old }).to_string());
        aws.bed.answer("PutParameter", newer, 1, 400, denied.clone());
        if json {
            let ran = aws.run(&["--json", "reencrypt", "--exclusive", "--show-ids"]);
            let told: Value = serde_json::from_str(&ran.stdout).unwrap();
            assert_eq!(told["needs_attention"], json!({ "total": 1, "ids": ["alice-canary"] }), "{told}");
            assert_eq!((&told["complete"], &told["failed"]["total"]), (&json!(false), &json!(1)));
            assert_eq!(told["listing_error"]["exit_code"], 2, "{told}");
            let error = &told["failed"]["first"][0]["error"];
            assert_eq!((&error["retryable"], &error["advice"]), (&json!(false), &json!([])), "{told}");
            continue;
        }
        let ran = aws.run(&["reencrypt", "--exclusive"]);
        assert_eq!(ran.code, 5, "{ran:?}");
        let text = &ran.stdout;
        for expected in ["NOT complete", "need attention: 1", "version 1 of the parameter's history", "listing failed"]
        {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        let key = text.lines().find(|line| line.contains("history")).unwrap();
        assert!(!key.contains("again") && !text.contains("  failed: ") && !text.contains("canary"), "{text}");
        // Puts the overwritten key back for the second round.
        let parameter = json!({ "Name": name, "Type": "SecureString", "Value": newer, "Overwrite": true });
        runtime.block_on(aws.bed.ask_emulator("AmazonSSM.PutParameter", parameter)).unwrap();
    }
}

#[test]
fn a_file_store_has_no_kms_key() {
    let fixture = Fixture::empty();
    let text = fixture.run(&["--store", "file:///keys.db?root_secret_env=X", "reencrypt"]).failed(2);
    assert!(text.contains("use rotate"), "{text}");
}

#[test]
fn keys_move_from_parameter_store_to_secrets_manager() {
    let aws = Aws::new("ssm");
    for id in ["alice@example.com", "bob", "carol"] {
        aws.run(&["generate", id]).done();
    }
    let target = aws.url.replace("ssm:", "secretsmanager:");
    let text = aws.run(&["copy", "--to", &target, "--journal", "journal", "--rate", "100"]).done();
    assert!(text.starts_with("complete: ") && text.contains("copied: 3"), "{text}");
    assert_eq!(aws.run(&["verify", "--against", &target]).done(), "equal: 3 keys are the same in both\n");
}

#[test]
fn a_store_that_cannot_be_reached_is_its_own_exit_code() {
    let fixture = Fixture::empty();
    let url = format!("ssm:///x/%s?kms_key={KMS_KEY}&region=us-east-1&endpoint_url=http://127.0.0.1:1");
    let output = fixture
        .command(&["--store", &url, "get", "alice"])
        .env("AWS_ACCESS_KEY_ID", "AKIDTEST")
        .env("AWS_SECRET_ACCESS_KEY", "x")
        .output();
    let text = Ran::from(output.unwrap()).failed(6);
    assert!(text.contains("could not be reached"), "{text}");
    let text = fixture.run(&["--store", &url, "get", "alice"]).failed(5);
    assert!(text.contains("credentials"), "{text}");
}

#[test]
fn the_suite_runs_over_secrets_manager_in_a_scratch_namespace() {
    let aws = Aws::new("secretsmanager");
    let told = aws.run(&["--json", "conformance", "get.", "--scale", "0.1"]).json();
    assert_eq!((&told["store"], &told["failed"]), (&json!("secretsmanager"), &json!(0)), "{told}");
    assert!(aws.bed.calls(aws.namespace.as_str()).is_empty());
    assert!(!aws.bed.calls("keystead-conformance").is_empty());
}
