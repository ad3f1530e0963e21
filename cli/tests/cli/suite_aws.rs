//! `conformance` against the test bed: everything that a run writes in an account is deleted.

use serde_json::{Value, json};

use keystead_aws_testbed::{KMS_KEY, TestBed};
use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::{Fixture, Ran};
use crate::suite::namespace_of_running;

struct Account {
    fixture: Fixture,
    bed: &'static TestBed,
    runtime: tokio::runtime::Runtime,
}

impl Account {
    fn new() -> Self {
        let bed = TestBed::shared().unwrap();
        let fixture = Fixture::empty();
        Self { fixture, bed, runtime: tokio::runtime::Runtime::new().unwrap() }
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let at = format!("kms_key={KMS_KEY}&region=us-east-1&endpoint_url={}", self.bed.url());
        let mut command = self.fixture.command(args);
        command
            .env("KEYSTEAD_STORE", format!("ssm:///never-used/%s?{at}"))
            .env("AWS_ACCESS_KEY_ID", "AKIDTEST")
            .env("AWS_SECRET_ACCESS_KEY", "secret");
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// Returns the number of parameters that a run left, up to ten.
    fn left(&self, namespace: &str) -> usize {
        let request = json!({ "Path": format!("/keystead-conformance/{namespace}"), "Recursive": true });
        let answer: Value =
            self.runtime.block_on(self.bed.ask_emulator("AmazonSSM.GetParametersByPath", request)).unwrap();
        answer["Parameters"].as_array().unwrap().len()
    }
}

fn namespace_in(text: &str) -> &str {
    text.split_once("--clean-up ").unwrap().1.split([' ', '\n']).next().unwrap()
}

/// This is one test, because the answers that the test bed is told to give apply to the common path of
/// all runs.
#[test]
fn what_the_suite_writes_in_an_account_is_deleted_or_told() {
    let account = Account::new();
    let list_many = ["conformance", "list.", "--jobs", "2"];

    let ran = account.run(&["conformance", "--scale", "0.1", "put."]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(account.left(namespace_in(&ran.stderr)), 0);

    let wait_for_parameters = |namespace: &str| {
        let start = std::time::Instant::now();
        while account.left(namespace) == 0 {
            assert!(start.elapsed().as_secs() < 60, "the suite writes nothing");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    let spawn = || {
        let piped = std::process::Stdio::piped;
        account.command(&list_many).stdout(piped()).stderr(piped()).spawn().unwrap()
    };
    let mut child = spawn();
    let namespace = namespace_of_running(&mut child);
    wait_for_parameters(&namespace);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(account.left(&namespace), 0);

    let mut child = spawn();
    let namespace = namespace_of_running(&mut child);
    wait_for_parameters(&namespace);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_ne!(account.left(&namespace), 0);
    let text = account.run(&["conformance", "--clean-up", &namespace]).done();
    assert!(text.starts_with("deleted what ks"), "{text}");
    assert_eq!(account.left(&namespace), 0);
    assert!(account.run(&["conformance", "--clean-up", &namespace]).done().starts_with("nothing is left"));

    // Denied when the case ends, and again at the end of the run.
    let denied = json!({ "__type": "AccessDeniedException", "message": "User is not authorized" }).to_string();
    account.bed.answer("DeleteParameters", "keystead-conformance", 2, 400, denied);
    let ran = account.run(&["conformance", "--scale", "0.1", "put.idempotent_same_value"]);
    assert_eq!(ran.code, 11, "{ran:?}");
    assert!(ran.stdout.contains(" 0 failed"), "the result is shown: {ran:?}");
    let namespace = namespace_in(&ran.stderr);
    let text = format!("cannot delete what the suite wrote in /keystead-conformance/{namespace}: run keystead");
    assert!(ran.stderr.contains(&text) && ran.stderr.contains("permission denied"), "{ran:?}");
    assert_ne!(account.left(namespace), 0);
    account.run(&["conformance", "--clean-up", namespace]).done();
    assert_eq!(account.left(namespace), 0);
}
