//! `erase` and `delete` in AWS stores, against the test bed: exit codes, many users, receipts.

use std::fs;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::aws::Aws;
use crate::fixture::Ran;

fn denied() -> String {
    json!({ "__type": "AccessDeniedException", "message": "User is not authorized" }).to_string()
}

impl Aws {
    /// Creates a store with keys of this many users, which are written directly to the emulator, and a
    /// file with their ids.
    fn with_users(count: usize) -> Self {
        let aws = Self::new("ssm");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        for user in 0..count {
            let name = format!("/{}/user-keys/user-{user}", aws.namespace);
            let parameter = json!({ "Name": name, "Type": "SecureString", "Value": "QUJD" });
            runtime.block_on(aws.bed.ask_emulator("AmazonSSM.PutParameter", parameter)).unwrap();
        }
        let ids: String = (0..count).map(|user| format!("user-{user}\n")).collect();
        fs::write(aws.fixture.path("ids"), ids).unwrap();
        aws
    }

    /// Creates a file store for tombstones and returns the options that name it.
    fn tombstones(&self) -> [String; 4] {
        let directory = self.fixture.directory().display();
        let url = format!("file://{directory}/tombstones.db?root_secret_file={directory}/tombstones.secret");
        self.fixture.run(&["--store", &url, "init"]).done();
        ["--tombstones".to_owned(), url, "--accept-tombstone-durability".to_owned(), "host".to_owned()]
    }

    /// Makes the emulator deny the next call of this operation for this user.
    fn deny(&self, operation: &str, user: &str) {
        self.bed.answer(operation, &format!("{}/user-keys/{user}\"", self.namespace), 1, 400, denied());
    }

    fn spawn(&self, args: &[&str]) -> Child {
        self.spawn_with_stdout(args, Stdio::piped())
    }

    fn spawn_with_stdout(&self, args: &[&str], stdout: Stdio) -> Child {
        self.command(args).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs a command that erases, and removes its log while it waits for the proof that the first
    /// `deletions` keys of this test are gone.
    fn run_without_log(&self, args: &[&str], stdout: Stdio, deletions: usize) -> Ran {
        let child = self.spawn_with_stdout(args, stdout);
        self.wait_for_calls("DeleteParameter", deletions);
        fs::remove_file(self.fixture.path("log")).unwrap();
        ended(child)
    }

    fn wait_for_calls(&self, operation: &str, count: usize) {
        let start = Instant::now();
        let calls =
            || self.bed.calls(self.namespace.as_str()).iter().filter(|call| call.operation == operation).count();
        while calls() < count {
            assert!(start.elapsed() < Duration::from_secs(60), "{} calls of {operation}", calls());
            sleep(Duration::from_millis(20));
        }
    }
}

fn strs(options: &[String; 4]) -> [&str; 4] {
    [&options[0], &options[1], &options[2], &options[3]]
}

fn ended(child: Child) -> Ran {
    child.wait_with_output().unwrap().into()
}

#[test]
fn a_hundred_users_are_erased_in_parameter_store() {
    let aws = Aws::with_users(100);
    let tombstones = aws.tombstones();
    let args = [&["erase", "--ids-file", "ids", "--yes", "--receipts", "log"][..], &strs(&tombstones)].concat();
    let ran = aws.run(&args);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.stdout, "complete: 100 of 100 users' keys were erased and verified\n");
    assert!(ran.stderr.contains("CloudTrail"), "{ran:?}");
    assert_eq!(aws.run(&["count"]).done(), "0\n");
    let text = aws.run(&[&["receipt", "check", "log"][..], &strs(&tombstones)].concat()).done();
    assert!(text.contains("proved: 100 of 100 receipts"), "{text}");
    let text = aws.run(&[&args[..], &["--resume"]].concat()).done();
    assert!(text.contains("receipts in the log: 100"), "{text}");
}

#[test]
fn users_whose_deletes_are_throttled_wait_for_their_turn() {
    let aws = Aws::with_users(24);
    aws.bed.limit_writes(aws.namespace.as_str(), 3.0);
    let ran = aws.run(&["erase", "--ids-file", "ids", "--yes"]);
    assert_eq!(ran.stdout, "complete: 24 of 24 users' keys were erased and verified\n", "{ran:?}");
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn one_user_who_cannot_be_erased_does_not_stop_the_others() {
    let aws = Aws::with_users(5);
    let refuse = || aws.deny("DeleteParameter", "user-2");
    refuse();
    let ran = aws.run(&["erase", "--ids-file", "ids", "--yes"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.stdout.starts_with("NOT complete: 4 of 5 users' keys") && ran.stdout.contains("failed"), "{ran:?}");
    let note = ran.stderr.lines().find(|line| line.starts_with("not erased: line 3: "));
    assert!(note.is_some_and(|note| note.contains("permission denied")) && !ran.stderr.contains("user-2"), "{ran:?}");
    refuse();
    let ran = aws.run(&["--json", "erase", "--ids-file", "ids", "--yes"]);
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let failure = lines.iter().find(|value| value["line"] == 3).unwrap();
    assert_eq!(failure["error"]["kind"], "permission_denied", "{failure}");
    assert_eq!((ran.code, &lines[5]["failed"], &lines[5]["no_key"]), (5, &json!(1), &json!(4)), "{ran:?}");
    // Repeating the command erases the remaining user.
    assert_eq!(aws.run(&["count"]).done(), "1\n");
    aws.run(&["erase", "--ids-file", "ids", "--yes"]).done();
    assert_eq!(aws.run(&["count"]).done(), "0\n");
}

#[test]
fn an_erasure_that_no_read_has_proved_has_a_code_of_its_own() {
    let aws = Aws::with_users(2);
    aws.deny("GetParameter", "user-0");
    let ran = aws.run(&["erase", "user-0", "--yes"]);
    assert!(ran.code == 8 && ran.stdout.starts_with("erased; not verified by a read"), "{ran:?}");
    assert!(ran.stderr.contains("erase again"), "{ran:?}");
    aws.run(&["erase", "user-0", "--yes"]).done();
    aws.deny("GetParameter", "user-1");
    let ran = aws.run(&["erase", "--ids-file", "ids", "--yes"]);
    assert!(ran.code == 8 && ran.stdout.contains("not verified by a read; run erase again: 1"), "{ran:?}");
    // A failure takes precedence.
    aws.run(&["generate", "user-1"]).done();
    aws.deny("GetParameter", "user-1");
    aws.deny("DeleteParameter", "user-0");
    let ran = aws.run(&["erase", "--ids-file", "ids", "--yes"]);
    assert_eq!(ran.code, 5, "{ran:?}");
}

#[test]
fn a_key_that_can_be_brought_back_is_not_gone() {
    let mut aws = Aws::new("secretsmanager");
    let forced = aws.url.clone();
    aws.url.push_str("&recovery_window_days=7");
    for id in ["alice", "bob", "carol", "dave", "erin"] {
        aws.run(&["generate", id]).done();
    }
    let ran = aws.run(&["erase", "alice", "--yes"]);
    assert!(ran.code == 9 && ran.stdout.contains("an operator can bring it back until"), "{ran:?}");
    assert!(ran.stderr.contains("--accept-recoverable"), "{ran:?}");
    let text = aws.run(&["erase", "alice", "--yes", "--accept-recoverable"]).done();
    assert!(text.contains("an operator can bring it back until"), "{text}");
    aws.run(&["erase", "alice", "--yes", "--accept-recoverable", "--require-final"]).failed(2);
    assert_eq!(aws.run(&["erase", "alice", "--yes", "--require-final"]).code, 9);

    fs::write(aws.fixture.path("ids"), "bob\nnobody\n").unwrap();
    let ran = aws.run(&["erase", "--ids-file", "ids", "--yes"]);
    assert!(ran.code == 9 && ran.stdout.contains("can still bring the key back: 1"), "{ran:?}");
    aws.run(&["erase", "--ids-file", "ids", "--yes", "--accept-recoverable"]).done();

    let ran = aws.run(&["delete", "carol", "--yes"]);
    assert!(ran.code == 9 && ran.stdout.starts_with("deleted: an operator can bring it back"), "{ran:?}");
    aws.run(&["delete", "dave", "--yes", "--accept-recoverable"]).done();

    // A forced deletion has no known bound.
    aws.url = forced;
    aws.run(&["erase", "erin", "--yes"]).done();
    assert_eq!(aws.run(&["erase", "erin", "--yes", "--require-final"]).code, 9);
    fs::write(aws.fixture.path("ids"), "erin\n").unwrap();
    assert_eq!(aws.run(&["erase", "--ids-file", "ids", "--yes", "--require-final"]).code, 9);
    aws.run(&["erase", "--ids-file", "ids", "--yes"]).done();
}

/// Removes the log while the erasure waits for its proof.
#[test]
fn a_receipt_that_cannot_be_kept_is_printed_and_has_a_code_of_its_own() {
    let aws = Aws::with_users(40);
    let tombstones = aws.tombstones();
    let one = [&["erase", "user-0", "--yes", "--receipts", "log"][..], &strs(&tombstones)].concat();
    let ran = aws.run_without_log(&one, Stdio::piped(), 1);
    assert_eq!(ran.code, 10, "{ran:?}");
    assert!(ran.stderr.contains("the user was erased, but the receipt could not be added to log"), "{ran:?}");
    assert!(ran.stderr.contains("the receipt log log was removed"), "{ran:?}");
    let receipt = ran.stdout.lines().last().unwrap();
    fs::write(aws.fixture.path("receipt"), receipt).unwrap();
    let check = [&["receipt", "check", "receipt", "user-0"][..], &strs(&tombstones)].concat();
    assert!(aws.run(&check).done().contains("proved: 1 of 1"));

    let args =
        [&["--json", "erase", "--ids-file", "ids", "--yes", "--receipts", "log"][..], &strs(&tombstones)].concat();
    let ran = aws.run_without_log(&args, Stdio::piped(), 33);
    assert_eq!(ran.code, 10, "{ran:?}");
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (summary, users) = lines.split_last().unwrap();
    // Erasures that are under way are finished, and no other begins.
    assert_eq!((&summary["receipts_not_kept"], &summary["not_begun"]), (&json!(32), &json!(8)), "{summary}");
    assert!(users.len() == 32 && users.iter().all(|user| user["receipt"]["verified"] == true), "{users:?}");
    assert_eq!(aws.run(&["count"]).done(), "8\n");
}

/// Returns a standard output to which nothing can be written.
fn full() -> Stdio {
    fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

/// Returns a standard output that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_receipt_that_is_neither_kept_nor_printed_has_the_code_of_one_that_is_not_kept() {
    let aws = Aws::with_users(4);
    let tombstones = aws.tombstones();
    let with_log = |args: &[&'static str]| {
        let options = strs(&tombstones);
        [args, &["--yes", "--receipts", "log"], &options].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = |args: &[&'static str], stdout: Stdio, deletions: usize| {
        let args = with_log(args);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        aws.run_without_log(&args, stdout, deletions)
    };
    for (user, stdout, deletions) in [("user-0", full(), 1), ("user-1", unread(), 2)] {
        let ran = run(&["erase", user], stdout, deletions);
        assert_eq!(ran.code, 10, "{ran:?}");
        assert!(ran.stderr.contains("could neither be added to log nor be printed"), "{ran:?}");
        assert!(!ran.stderr.contains("is on standard output"), "{ran:?}");
    }

    fs::write(aws.fixture.path("ids"), "user-2\nuser-3\n").unwrap();
    for (stdout, deletions) in [(full(), 4), (unread(), 6)] {
        let ran = run(&["erase", "--ids-file", "ids"], stdout, deletions);
        assert_eq!(ran.code, 10, "{ran:?}");
        assert!(ran.stderr.contains("receipts of erased users could not be added to the log: 2"), "{ran:?}");
    }

    let bare = [&["generate", "user-0"][..], &["--no-tombstones"]].concat();
    for (stdout, deletions) in [(full(), 7), (unread(), 8)] {
        aws.run(&bare).done();
        let ran = run(&["reconcile"], stdout, deletions);
        assert_eq!(ran.code, 10, "{ran:?}");
        assert!(ran.stderr.contains("could neither be added to log nor be printed"), "{ran:?}");
    }
}

/// The log is kept, so the code is that of the output.
#[test]
fn a_receipt_that_is_kept_but_not_printed_has_the_code_of_the_output() {
    let aws = Aws::with_users(2);
    let tombstones = aws.tombstones();
    for (user, stdout, code) in [("user-0", full(), 1), ("user-1", unread(), 141)] {
        let args = [&["erase", user, "--yes", "--receipts", "log"][..], &strs(&tombstones)].concat();
        let ran = ended(aws.spawn_with_stdout(&args, stdout));
        assert_eq!(ran.code, code, "{ran:?}");
    }
    assert!(aws.run(&["receipt", "verify", "log"]).done().contains("receipts  2\n"));
}

#[test]
fn an_interruption_says_how_many_users_are_erased() {
    let aws = Aws::with_users(40);
    let tombstones = aws.tombstones();
    let args = [&["erase", "--ids-file", "ids", "--yes", "--receipts", "log"][..], &strs(&tombstones)].concat();
    let child = aws.spawn(&args);
    aws.wait_for_calls("DeleteParameter", 32);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ran = ended(child);
    assert_eq!(ran.code, 130, "{ran:?}");
    let expected =
        "of 40 users, 0 were finished, 32 were under way, whose keys may be erased or not, and 8 were not begun";
    assert!(ran.stderr.contains(expected) && ran.stderr.contains("--resume"), "{ran:?}");
    let text = aws.run(&args).done();
    assert!(text.starts_with("complete: ") && text.contains("40 users"), "{text}");
    assert_eq!(aws.run(&["count"]).done(), "0\n");
    assert!(aws.run(&["receipt", "verify", "log"]).done().contains("receipts  40\n"));
}
