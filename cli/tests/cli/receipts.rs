//! `receipt` and the logs of `--receipts`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use crate::fixture::{Fixture, Ran};

/// A store with the keys of some users, and a store of tombstones.
pub(crate) struct Fenced {
    pub(crate) fixture: Fixture,
    pub(crate) tombstones: String,
}

impl Fenced {
    pub(crate) fn with_users(count: usize) -> Self {
        let fixture = Fixture::new();
        let directory = fixture.directory().display();
        let tombstones = format!("file://{directory}/tombstones.db?root_secret_file={directory}/tombstones.secret");
        fixture.run(&["--store", &tombstones, "init"]).done();
        fixture.fill((0..count).map(|number| format!("user-{number}")));
        Self { fixture, tombstones }
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.fixture.run(&[args, &["--tombstones", &self.tombstones]].concat())
    }

    /// Erases this user, and adds the receipt to the log `log`.
    pub(crate) fn erase(&self, user: usize, more: &[&str]) -> Ran {
        self.run(&[&["erase", &format!("user-{user}"), "--yes", "--receipts", "log"], more].concat())
    }

    /// Creates a fixture with a log that contains the receipts of this many users.
    fn with_receipts(users: usize) -> Self {
        let fenced = Self::with_users(users);
        for user in 0..users {
            fenced.erase(user, &[]).done();
        }
        fenced
    }

    /// Creates a fixture with a signed log that contains the receipts of this many users.
    fn with_signed_receipts(users: usize) -> Self {
        let fenced = Self::with_users(users);
        let public_key = fenced.fixture.run(&["receipt", "keygen", "key.pem"]).done();
        fs::write(fenced.fixture.path("public.pem"), public_key).unwrap();
        for user in 0..users {
            fenced.erase(user, &["--signing-key", "key.pem"]).done();
        }
        fenced
    }

    fn log(&self) -> Vec<u8> {
        fs::read(self.fixture.path("log")).unwrap()
    }

    fn verify(&self, more: &[&str]) -> Value {
        let ran = self.fixture.run(&[&["--json", "receipt", "verify", "log"], more].concat());
        let told = ran.json();
        assert_eq!(ran.code == 0, told["whole"] == true, "{ran:?}");
        told
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/receipts").join(name)
}

/// Checks a log with the independent program, and returns its output.
fn check_independently(files: &[&Path]) -> String {
    let python = keystead_aws_testbed::python().unwrap();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/receipts.py");
    let output = Command::new(python).arg(program).args(files).output().unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Checks a log with both programs, which must agree, and returns the result of `receipt verify`.
fn check_with_both(log: &Path, directory: &Fixture) -> Value {
    let ran = directory.run_storeless(&["--json", "receipt", "verify", log.to_str().unwrap()]);
    let told = ran.json();
    let expected = match told["whole"].as_bool().unwrap() {
        true => {
            format!("{} {} {} {}\n", told["count"], told["head"].as_str().unwrap(), told["receipts"], told["markers"])
        }
        false => format!("line {}\n", told["broken_line"]),
    };
    assert_eq!(check_independently(&[log]), expected, "{ran:?}");
    told
}

#[test]
fn each_erasure_adds_a_line_that_proves_those_before() {
    let fenced = Fenced::with_users(3);
    let ran = fenced.erase(0, &[]);
    assert!(ran.stderr.contains("created the receipt log log"), "{ran:?}");
    assert!(ran.done().contains("\nreceipt    entry 1 of the log\n"));
    let first = fenced.log();
    fenced.erase(1, &["--json"]).done();
    fenced.erase(2, &[]).done();
    let log = fenced.log();
    assert!(log.starts_with(&first));
    assert_eq!(fs::metadata(fenced.fixture.path("log")).unwrap().permissions().mode() & 0o777, 0o600);
    let text = String::from_utf8(log).unwrap();
    assert!(!text.contains("user-"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    let receipt = &lines[3]["receipt"];
    assert!(receipt["store"].as_str().unwrap().starts_with("file:/"), "{receipt}");
    assert_eq!((&receipt["finality"], &receipt["verified"]), (&json!("immediate"), &json!(true)), "{receipt}");
    let told = check_with_both(&fenced.fixture.path("log"), &fenced.fixture);
    assert_eq!((&told["count"], &told["receipts"], &told["markers"]), (&json!(3), &json!(3), &json!(0)), "{told}");
}

#[test]
fn the_frozen_logs_are_read_by_both_programs() {
    let fixture = Fixture::empty();
    for (name, head) in [
        ("unsigned.log", "6a38c855070ce6377c73d5933c2238857f514d60a6bab2816fb59e45a936c9d0"),
        ("signed.log", "268ef2f0d2722bd391190384c69d8c028cc37edb64befd4167b81bb0a7169061"),
    ] {
        let told = check_with_both(&golden(name), &fixture);
        assert_eq!((&told["count"], &told["head"], &told["markers"]), (&json!(7), &json!(head), &json!(2)), "{told}");
    }
    let public = golden("public.pem");
    let signed = golden("signed.log");
    let args = ["receipt", "verify", signed.to_str().unwrap(), "--public-key", public.to_str().unwrap()];
    assert!(fixture.run_storeless(&args).done().starts_with("whole: "));
    assert!(check_independently(&[&signed, &public]).starts_with("7 268ef2f0"));
    assert_eq!(check_independently(&[&golden("unsigned.log"), &public]), "line 1\n");
}

#[test]
fn what_a_chain_cannot_prove_is_said() {
    let fenced = Fenced::with_signed_receipts(1);
    let text = fenced.fixture.run(&["receipt", "verify", "log"]).done();
    assert!(text.contains("give --public-key") && text.contains("without --head and --count"), "{text}");
    let text = fenced.fixture.run(&["receipt", "verify", "log", "--public-key", "public.pem"]).done();
    assert!(!text.contains("give --public-key") && text.contains("signed    by "), "{text}");
    let unsigned = Fenced::with_receipts(1);
    let text = unsigned.fixture.run(&["receipt", "verify", "log"]).done();
    assert!(text.contains("proves the order of the receipts, not who wrote them"), "{text}");
}

#[test]
fn the_first_line_that_is_wrong_is_named() {
    let fenced = Fenced::with_receipts(4);
    let whole = String::from_utf8(fenced.log()).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let flipped = lines[2].replace("\"verified\":true", "\"verified\":false");
    let renumbered = lines[3].replace("\"seq\":3", "\"seq\":2");
    // The lines of the log, and the number of the first wrong one.
    let cases: [(&[&str], u64); 8] = [
        (&[lines[0], lines[1], &flipped, lines[3], lines[4]], 4),
        (&[lines[0], lines[1], lines[3], lines[4]], 3),
        (&[lines[0], lines[1], &renumbered, lines[4]], 3),
        (&[lines[0], lines[2], lines[1], lines[3], lines[4]], 2),
        (&[lines[0], lines[1], lines[1], lines[2]], 3),
        (&[lines[0], lines[1], "", lines[2]], 3),
        (&[lines[1], lines[2]], 1),
        (&[lines[0], lines[0], lines[1]], 2),
    ];
    for (changed, wrong) in cases {
        fs::write(fenced.fixture.path("changed"), format!("{}\n", changed.join("\n"))).unwrap();
        let told = check_with_both(&fenced.fixture.path("changed"), &fenced.fixture);
        assert_eq!(told["broken_line"], json!(wrong), "{changed:?}: {told}");
        let ran = fenced.fixture.run(&["receipt", "verify", "changed"]);
        assert!(ran.code == 7 && ran.stdout.starts_with(&format!("NOT whole: line {wrong} ")), "{ran:?}");
    }
    fs::write(fenced.fixture.path("changed"), "").unwrap();
    assert_eq!(check_with_both(&fenced.fixture.path("changed"), &fenced.fixture)["broken_line"], 1);
}

#[test]
fn what_is_cut_off_at_the_end_is_noticed_by_the_head_that_was_kept() {
    let fenced = Fenced::with_receipts(2);
    let kept = fenced.verify(&[]);
    let head = kept["head"].as_str().unwrap();
    let count = kept["count"].to_string();
    let kept = ["--head", head, "--count", &count];
    // The log has grown, and still contains that line.
    fenced.erase(0, &[]).done();
    assert_eq!(fenced.verify(&kept)["proves_no_truncation"], true);

    let log = String::from_utf8(fenced.log()).unwrap();
    let cut: Vec<&str> = log.lines().take(2).collect();
    fs::write(fenced.fixture.path("log"), format!("{}\n", cut.join("\n"))).unwrap();
    assert_eq!(fenced.verify(&[])["whole"], true);
    let told = fenced.verify(&kept);
    assert_eq!((&told["whole"], &told["broken_line"]), (&json!(false), &json!(3)), "{told}");
    // With another entry in that place, the log has another hash there.
    fenced.erase(0, &[]).done();
    let told = fenced.verify(&kept);
    assert!(told["why"].as_str().is_some_and(|why| why.contains("another hash")), "{told}");
    fenced.fixture.run(&["receipt", "verify", "log", "--head", head]).failed(2);
    fenced.fixture.run(&["receipt", "verify", "log", "--head", "canary", "--count", "1"]).failed(2);
}

#[test]
fn a_signature_is_of_one_line_by_one_key() {
    let fenced = Fenced::with_signed_receipts(2);
    let log = String::from_utf8(fenced.log()).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let told = fenced.verify(&["--public-key", "public.pem"]);
    assert_eq!((&told["receipts"], &told["proves_authorship"]), (&json!(2), &json!(true)), "{told}");
    fenced.fixture.run(&["receipt", "keygen", "other.pem"]).done();
    let other = golden("public.pem");
    let told = fenced.verify(&["--public-key", other.to_str().unwrap()]);
    assert_eq!(told["broken_line"], 1, "{told}");
    // One of several keys is enough, as after a change of keys.
    fenced.verify(&["--public-key", other.to_str().unwrap(), "--public-key", "public.pem"]);

    let flipped = lines[2].replace("\"existed\":true", "\"existed\":false");
    let (body, _) = lines[2].split_once(",\"public_key\"").unwrap();
    let unsigned = format!("{body}}}");
    for changed in [&flipped, &unsigned] {
        fs::write(fenced.fixture.path("changed"), format!("{}\n{}\n{changed}\n", lines[0], lines[1])).unwrap();
        assert_eq!(check_with_both(&fenced.fixture.path("changed"), &fenced.fixture)["broken_line"], 3, "{changed}");
    }
}

#[test]
fn what_a_writer_has_left_that_was_cut_off_stays_and_is_closed_by_a_marker() {
    for left in [&b"{\"seq\":2,\"prev"[..], b"\0\0\0\0", b"\0\0\0torn\"}\n", b"one\ntwo\n", b"\n"] {
        let fenced = Fenced::with_receipts(2);
        let torn = [&fenced.log(), left].concat();
        fs::write(fenced.fixture.path("log"), &torn).unwrap();
        let told = check_with_both(&fenced.fixture.path("log"), &fenced.fixture);
        assert_eq!(told["broken_line"], 4, "{told}");
        let ran = fenced.erase(0, &[]);
        assert!(ran.code == 0 && ran.stderr.contains("a writer was cut off"), "{ran:?}");
        assert!(fenced.log().starts_with(&torn), "{left:?} was changed");
        let told = check_with_both(&fenced.fixture.path("log"), &fenced.fixture);
        assert_eq!((&told["receipts"], &told["markers"]), (&json!(3), &json!(1)), "{left:?}: {told}");
        assert!(!fenced.erase(0, &[]).stderr.contains("cut off"));
    }
}

#[test]
fn a_line_that_lacks_its_line_break_counts_and_is_closed_by_a_marker() {
    let fenced = Fenced::with_signed_receipts(2);
    let mut log = fenced.log();
    log.pop();
    fs::write(fenced.fixture.path("log"), &log).unwrap();
    assert_eq!(check_with_both(&fenced.fixture.path("log"), &fenced.fixture)["broken_line"], 3);
    fenced.erase(0, &["--signing-key", "key.pem"]).done();
    let told = check_with_both(&fenced.fixture.path("log"), &fenced.fixture);
    assert_eq!((&told["receipts"], &told["markers"], &told["count"]), (&json!(3), &json!(1), &json!(4)), "{told}");
    // A marker that is cut off is also repaired.
    let mut log = fenced.log();
    log.truncate(log.len() - 1);
    log.extend_from_slice(b"\n{\"seq\":5,\"prev\"");
    fs::write(fenced.fixture.path("log"), &log).unwrap();
    fenced.erase(0, &["--signing-key", "key.pem"]).done();
    let told = check_with_both(&fenced.fixture.path("log"), &fenced.fixture);
    assert_eq!((&told["receipts"], &told["markers"]), (&json!(4), &json!(2)), "{told}");
}

#[test]
fn bytes_that_no_marker_accounts_for_break_the_log() {
    let fenced = Fenced::with_receipts(1);
    let mut log = fenced.log();
    log.extend_from_slice(b"torn");
    fs::write(fenced.fixture.path("log"), &log).unwrap();
    fenced.erase(0, &[]).done();
    let whole = String::from_utf8(fenced.log()).unwrap();
    for (old, new) in [("torn\n", "t0rn\n"), ("torn\n", ""), ("torn\n", "torn\ntorn\n")] {
        fs::write(fenced.fixture.path("changed"), whole.replacen(old, new, 1)).unwrap();
        let told = check_with_both(&fenced.fixture.path("changed"), &fenced.fixture);
        assert_eq!(told["broken_line"], 3, "{new:?}: {told}");
    }
}

#[test]
fn many_erasers_share_a_log() {
    let fenced = Fenced::with_users(24);
    thread::scope(|scope| {
        for eraser in 0..8 {
            let fenced = &fenced;
            scope.spawn(move || {
                for user in 3 * eraser..3 * eraser + 3 {
                    fenced.erase(user, &[]).done();
                }
            });
        }
    });
    let told = check_with_both(&fenced.fixture.path("log"), &fenced.fixture);
    assert_eq!((&told["receipts"], &told["count"]), (&json!(24), &json!(24)), "{told}");
}

#[test]
fn an_eraser_waits_for_the_lock_of_its_log_and_not_for_ever() {
    let fenced = Fenced::with_receipts(1);
    fenced.fixture.run(&["generate", "alice"]).done();
    let lock = fs::File::open(fenced.fixture.path("log")).unwrap();
    lock.lock().unwrap();
    let before = fenced.log();
    let start = std::time::Instant::now();
    let args = ["erase", "alice", "--yes", "--receipts", "log"];
    let refusal = fenced.run(&args).failed(6);
    assert!(refusal.contains("another program has held the lock of the receipt log log for 30 s"), "{refusal}");
    assert!(start.elapsed() < std::time::Duration::from_secs(60));
    assert_eq!(fenced.fixture.run(&["exists", "alice"]).done(), "yes\n");
    assert_eq!(fenced.log(), before);

    let waiting = fenced.fixture.spawn(&[&args[..], &["--tombstones", &fenced.tombstones]].concat());
    thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(fenced.fixture.run(&["exists", "alice"]).done(), "yes\n");
    lock.unlock().unwrap();
    assert_eq!(waiting.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(check_with_both(&fenced.fixture.path("log"), &fenced.fixture)["receipts"], 2);
}

#[test]
fn a_log_that_cannot_be_added_to_is_refused_before_anything_is_erased() {
    let fenced = Fenced::with_users(1);
    let fixture = &fenced.fixture;
    let write = |name: &str, contents: &str| fs::write(fixture.path(name), contents).unwrap();
    fixture.run(&["receipt", "keygen", "key.pem"]).done();
    let begun = fs::read_to_string(golden("unsigned.log")).unwrap();
    let signed = fs::read_to_string(golden("signed.log")).unwrap();
    write("empty", "");
    write("ids", "alice\nbob\n");
    write("json", "{\"log\":\"x\"}\n");
    write("later", &begun.replacen("\"keystead_receipts\":1", "\"keystead_receipts\":2", 1));
    write("torn-from-the-start", &begun[..40]);
    write("unsigned", &begun);
    write("signed", &signed);
    write("damaged", &format!("{}{}\n", begun, "x".repeat(70_000)));
    write("open", &begun);
    write("not-a-key", "hunter2\n");
    fs::set_permissions(fixture.path("open"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(fixture.path("not-a-key"), fs::Permissions::from_mode(0o600)).unwrap();
    // Not the pipe, to which nobody writes.
    let contents = |names: &[&str]| -> Vec<Option<Vec<u8>>> {
        let read = |name: &&str| fixture.path(name).is_file().then(|| fs::read(fixture.path(name)).unwrap());
        names.iter().map(read).collect()
    };
    fs::create_dir(fixture.path("directory")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, fixture.path("pipe"), 0o600.into()).unwrap();
    for (args, code, why) in [
        (&["--receipts", "empty"][..], 2, "is not a receipt log"),
        (&["--receipts", "ids"], 2, "is not a receipt log"),
        (&["--receipts", "json"], 2, "is not a receipt log"),
        (&["--receipts", "later"], 2, "a later version"),
        (&["--receipts", "torn-from-the-start"], 2, "is not a receipt log"),
        (&["--receipts", "signed"], 2, "give --signing-key"),
        (&["--receipts", "unsigned", "--signing-key", "key.pem"], 2, "leave out --signing-key"),
        (&["--receipts", "damaged"], 7, "is damaged"),
        (&["--receipts", "open"], 2, "chmod o-w"),
        (&["--receipts", "directory"], 2, "not a regular file"),
        (&["--receipts", "pipe"], 2, "not a regular file"),
        (&["--receipts", "missing/log"], 2, "cannot create the receipt log"),
        (&["--receipts", "new", "--signing-key", "not-a-key"], 2, "contains no Ed25519 private key"),
        (&["--receipts", "new", "--signing-key", "missing"], 2, "cannot read the file of --signing-key"),
        (&["--signing-key", "key.pem"], 2, "--receipts"),
    ] {
        let before = contents(args);
        let refusal = fenced.run(&[&["erase", "user-0", "--yes"], args].concat()).failed(code);
        assert!(refusal.contains(why) && !refusal.contains("hunter2"), "{args:?}: {refusal}");
        assert_eq!(before, contents(args), "{args:?}");
    }
    assert!(!fixture.path("new").exists());
    let refusal = fixture.run(&["erase", "user-0", "--yes", "--receipts", "new"]).failed(2);
    assert!(refusal.contains("without tombstones there are no receipts"), "{refusal}");
    assert_eq!(fixture.run(&["exists", "user-0"]).done(), "yes\n");
}

#[test]
fn a_key_is_made_once_and_is_for_its_owner_only() {
    let fixture = Fixture::empty();
    let ran = fixture.run_storeless(&["receipt", "keygen", "key.pem"]);
    assert!(ran.stdout.starts_with("-----BEGIN PUBLIC KEY-----\n") && ran.stderr.contains("key.pem"), "{ran:?}");
    let private = fs::read_to_string(fixture.path("key.pem")).unwrap();
    assert!(private.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert_eq!(fs::metadata(fixture.path("key.pem")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fixture.run_storeless(&["receipt", "keygen", "key.pem"]).failed(4).contains("left unchanged"));
    assert_eq!(fs::read_to_string(fixture.path("key.pem")).unwrap(), private);
    let told = fixture.run_storeless(&["--json", "receipt", "keygen", "other.pem"]).json();
    assert_eq!(told["private_key_file"], "other.pem");
    assert_ne!(told["public_key"].as_str().unwrap().trim_end(), ran.stdout.trim_end());
}

#[test]
fn receipts_are_checked_against_the_stores() {
    let fenced = Fenced::with_receipts(2);
    let fixture = &fenced.fixture;
    let text = fenced.run(&["receipt", "check", "log"]).done();
    assert!(text.contains("entry 1: proved: of this store; erased 20"), "{text}");
    assert!(text.contains("\nproved: 2 of 2 receipts, by file:"), "{text}");
    assert!(!text.contains("user-"), "{text}");

    // One or several receipts, as `erase` prints them.
    let erased = fenced.run(&["--json", "erase", "user-0", "--yes"]).done();
    fs::write(fixture.path("one"), &erased).unwrap();
    let told = fenced.run(&["--json", "receipt", "check", "one"]).done();
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&told[0]["proved"], &told[0]["store"]), (&json!(true), &json!("same")), "{told:?}");
    assert_eq!((&told[1]["proved_all"], &told[1]["receipts"]), (&json!(true), &json!(1)), "{told:?}");
    let receipt = serde_json::from_str::<Value>(&erased).unwrap()["receipt"].clone();
    fs::write(fixture.path("bare"), format!("{receipt:#}\n{erased}{{\"complete\":true}}")).unwrap();
    let text = fenced.run(&["receipt", "check", "bare"]).done();
    assert!(text.contains("proved: 2 of 2 receipts") && text.contains("JSON values without a receipt: 1"), "{text}");

    // The receipts about one user.
    let text = fenced.run(&["receipt", "check", "log", "user-1"]).done();
    assert!(text.contains("proved: 1 of 1 receipts") && text.contains("about other users, not checked: 1"), "{text}");
    let ran = fenced.run(&["receipt", "check", "log", "user-canary"]);
    assert!(ran.code == 1 && ran.stdout.contains("none of the receipts is about this user"), "{ran:?}");
    assert!(!ran.stdout.contains("canary"), "{ran:?}");
}

#[test]
fn a_receipt_that_the_stores_do_not_prove_is_not_proved() {
    let fenced = Fenced::with_users(2);
    let fixture = &fenced.fixture;
    let erased = fenced.run(&["--json", "erase", "user-0", "--yes"]).json();
    let receipt = &erased["receipt"];
    let mut expected = Vec::new();
    let mut forge = |name: &str, field: &str, value: Value, why: &'static str| {
        let mut forged = receipt.clone();
        forged[field] = value;
        fs::write(fixture.path(name), forged.to_string()).unwrap();
        expected.push((name.to_owned(), why));
    };
    forge("tombstone", "tombstone", json!("ab".repeat(32)), "there is no such tombstone");
    forge("moment", "erased_at", json!(receipt["erased_at"].as_u64().unwrap() - 60), "the tombstone has another time");
    forge("store", "store", json!("file:/x; store=00"), "of another store");
    let unknown = receipt["store"].as_str().unwrap().replace("/keys.db", "/copy.db");
    forge("unknown", "store", json!(unknown), "perhaps of another store");
    for (name, why) in &expected {
        let ran = fenced.run(&["receipt", "check", name]);
        assert!(ran.code == 1 && ran.stdout.contains("NOT proved: ") && ran.stdout.contains(why), "{name}: {ran:?}");
    }

    fs::write(fixture.path("not-a-receipt"), "{\"receipt\":{\"store\":1}}").unwrap();
    fs::write(fixture.path("text"), "alice").unwrap();
    fs::write(fixture.path("nothing"), "").unwrap();
    fenced.run(&["receipt", "check", "not-a-receipt"]).failed(2);
    fenced.run(&["receipt", "check", "text"]).failed(2);
    fenced.run(&["receipt", "check", "missing"]).failed(2);
    let ran = fenced.run(&["receipt", "check", "nothing"]);
    assert!(ran.code == 1 && ran.stdout.contains("there is no receipt"), "{ran:?}");
    fs::write(fixture.path("good"), receipt.to_string()).unwrap();
    assert!(fixture.run(&["receipt", "check", "good"]).failed(2).contains("--tombstones"));
}

#[test]
fn a_log_that_is_not_whole_proves_nothing_behind_the_first_wrong_line() {
    let fenced = Fenced::with_receipts(3);
    let log = String::from_utf8(fenced.log()).unwrap();
    let changed = log.replacen("\"existed\":true", "\"existed\":null", 1);
    fs::write(fenced.fixture.path("log"), changed).unwrap();
    let ran = fenced.run(&["receipt", "check", "log"]);
    assert!(ran.code == 7 && ran.stdout.contains("NOT whole: line 2 "), "{ran:?}");
    assert!(ran.stdout.contains("proved: 0 of 0 receipts"), "{ran:?}");
}

#[test]
fn a_check_writes_nothing() {
    let fenced = Fenced::with_receipts(1);
    let directory = fenced.fixture.directory().display();
    let empty = format!("file://{directory}/empty.db?root_secret_file={directory}/empty.secret");
    fenced.fixture.run(&["--store", &empty, "init"]).done();
    let preview = ["reconcile", "--dry-run", "--tombstones", &empty];
    assert!(fenced.fixture.run(&preview).failed(4).contains("holds no tombstones"));
    for more in [&[][..], &["user-0"]] {
        let args = [&["receipt", "check", "log", "--tombstones", &empty], more].concat();
        assert!(fenced.fixture.run(&args).failed(2).contains("contains no tombstones"));
    }
    assert_eq!(fenced.fixture.run(&["--store", &empty, "count"]).done(), "0\n");
}

#[test]
fn reconcile_keeps_receipts_too() {
    let fenced = Fenced::with_users(3);
    let fixture = &fenced.fixture;
    fixture.run(&["backup", "copy.db"]).done();
    fenced.erase(0, &[]).done();
    fenced.erase(1, &[]).done();
    fixture.run(&["restore", "copy.db", "--yes"]).done();
    let text = fenced.run(&["reconcile", "--yes", "--receipts", "log"]).done();
    assert!(text.contains("erased again: 2"), "{text}");
    assert_eq!(check_with_both(&fixture.path("log"), fixture)["receipts"], 4);
    fenced.run(&["receipt", "check", "log"]).done();
    let refusal = fenced.run(&["reconcile", "--yes", "--receipts", "copy.db"]).failed(2);
    assert!(refusal.contains("is not a receipt log"), "{refusal}");
}

#[test]
fn nothing_is_erased_when_a_line_of_the_log_was_changed() {
    let fenced = Fenced::with_receipts(3);
    let whole = String::from_utf8(fenced.log()).unwrap();
    for line in 1..4 {
        let changed: Vec<String> = whole
            .lines()
            .enumerate()
            .map(|(index, text)| if index == line { text.replace("immediate", "eventual") } else { text.to_owned() })
            .collect();
        assert_ne!(changed.join("\n") + "\n", whole, "{line}");
        fs::write(fenced.fixture.path("log"), changed.join("\n") + "\n").unwrap();
        fenced.fixture.fill(["new".to_owned()]);
        let ran = fenced.run(&["erase", "new", "--yes", "--receipts", "log"]);
        match line {
            // No line follows the last one, so only a signature would reveal the change.
            3 => {
                assert_eq!(ran.code, 0, "{ran:?}");
            }
            _ => {
                assert!(ran.failed(7).contains("nothing was erased: line "));
                assert_eq!(fenced.run(&["exists", "new"]).done(), "yes\n");
            }
        }
    }
    let fenced = Fenced::with_signed_receipts(2);
    let signed = String::from_utf8(fenced.log()).unwrap();
    fs::write(fenced.fixture.path("log"), signed.replace("immediate", "eventual")).unwrap();
    fenced.erase(1, &["--signing-key", "key.pem"]).failed(7);
    fs::write(fenced.fixture.path("log"), &signed).unwrap();
    fenced.fixture.run(&["receipt", "keygen", "other.pem"]).done();
    let refusal = fenced.erase(1, &["--signing-key", "other.pem"]).failed(2);
    assert!(refusal.contains("signed with another key"), "{refusal}");
    assert_eq!(fenced.log(), signed.as_bytes());
}
