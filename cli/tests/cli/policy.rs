//! The settings in the configuration file, which apply to a store however it is named.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::fixture::{Fixture, KEY, Ran};

/// A store `live` with tombstones in a store `tombs`.
struct Policy {
    fixture: Fixture,
}

impl Policy {
    fn new() -> Self {
        let fixture = Fixture::new();
        let tombstones =
            format!("file://{0}/tombs.db?root_secret_file={0}/tombs.secret", fixture.directory().display());
        fixture.run(&["--store", &tombstones, "init"]).done();
        let policy = Self { fixture };
        policy.write(&format!(
            "[stores.live]\nurl = \"{}\"\ntombstones = \"tombs\"\n[stores.tombs]\nurl = \"{tombstones}\"\n",
            policy.fixture.url()
        ));
        policy
    }

    fn write(&self, text: &str) {
        fs::create_dir_all(self.fixture.path("config/keystead")).unwrap();
        fs::write(self.fixture.path("config/keystead/config.toml"), text).unwrap();
    }

    fn add(&self, text: &str) {
        let path = self.fixture.path("config/keystead/config.toml");
        self.write(&(fs::read_to_string(path).unwrap() + text));
    }

    /// Runs the program with the store `live`.
    fn run(&self, args: &[&str]) -> Ran {
        self.fixture.run_storeless(&[&["--store", "live"], args].concat())
    }

    fn with_key(self, id: &str) -> Self {
        self.run(&["generate", id]).done();
        self
    }
}

#[test]
fn every_command_keeps_an_erased_user_erased_without_a_flag() {
    let policy = Policy::new().with_key("alice").with_key("bob");
    let receipt = policy.run(&["--json", "erase", "alice", "--yes"]).json();
    assert_eq!(receipt["receipt"]["verified"], true, "{receipt}");
    for args in
        [&["generate", "alice"][..], &["put", "alice", "--key-file", "key"], &["create", "alice", "--key-file", "key"]]
    {
        fs::write(policy.fixture.path("key"), KEY).unwrap();
        assert!(policy.run(args).failed(4).contains("erased"));
        // The same store, named by its URL.
        assert!(policy.fixture.run(args).failed(4).contains("erased"));
        let other = format!(
            "FILE:{}/keys.db?root_secret_file={}",
            policy.fixture.directory().display(),
            policy.fixture.path("root.secret").display()
        );
        assert!(policy.fixture.run_storeless(&[&["--store", &other], args].concat()).failed(4).contains("erased"));
    }
    // The key comes back, as from a backup.
    policy.run(&["generate", "alice", "--no-tombstones"]).done();
    assert_eq!(policy.run(&["--no-tombstones", "list"]).done().lines().count(), 2);
    assert_eq!(policy.run(&["list"]).done(), "bob\n");
    assert!(policy.run(&["get", "alice"]).failed(4).contains("erased"));
    assert_eq!(policy.run(&["exists", "bob"]).done(), "yes\n");
    let told = policy.run(&["--json", "exists", "alice"]);
    assert_eq!((told.code, told.json()), (3, serde_json::json!({ "exists": false, "erased": true })));
}

#[test]
fn copies_do_not_bring_erased_users_back() {
    let policy = Policy::new().with_key("alice").with_key("bob");
    let other = format!("file://{0}/other.db?root_secret_file={0}/other.secret", policy.fixture.directory().display());
    policy.fixture.run(&["--store", &other, "init"]).done();
    policy.run(&["copy", "--to", &other]).done();
    policy.run(&["erase", "alice", "--yes"]).done();

    // The other store, now the source, still has a key of a user who is erased in the target.
    let ran = policy.fixture.run_storeless(&["--store", &other, "copy", "--to", "live"]);
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("NOT complete"), "{ran:?}");
    assert_eq!(policy.run(&["--no-tombstones", "list"]).done(), "bob\n");
}

#[test]
fn a_restore_erases_again_who_was_erased_since() {
    let policy = Policy::new().with_key("alice").with_key("bob");
    policy.run(&["backup", "monday.db"]).done();
    policy.run(&["erase", "alice", "--yes"]).done();
    let ran = policy.run(&["restore", "monday.db", "--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("erased again: 1"), "{ran:?}");
    assert_eq!(policy.run(&["--no-tombstones", "list"]).done(), "bob\n");
    let ran = policy.run(&["restore", "monday.db", "--yes", "--no-tombstones"]);
    assert!(ran.code == 0 && ran.stderr.contains("keystead reconcile"), "{ran:?}");
    assert_eq!(policy.run(&["--no-tombstones", "list"]).done().lines().count(), 2);
}

#[test]
fn tombstones_that_cannot_be_opened_keep_everything_else_from_being_done() {
    let policy = Policy::new().with_key("alice");
    policy.run(&["backup", "monday.db"]).done();
    fs::rename(policy.fixture.path("tombs.secret"), policy.fixture.path("gone")).unwrap();
    for args in [
        &["generate", "bob"][..],
        &["erase", "alice", "--yes"],
        &["delete", "alice", "--yes"],
        &["restore", "monday.db", "--yes"],
    ] {
        policy.run(args).failed(2);
    }
    assert_eq!(policy.run(&["--no-tombstones", "list"]).done(), "alice\n");
    assert!(!policy.run(&["doctor"]).stdout.contains("tombstones   ok"));
}

#[test]
fn what_the_file_says_is_not_replaced_by_a_flag_and_a_variable_is_a_default() {
    let policy = Policy::new();
    let directory = policy.fixture.directory().display().to_string();
    let other = format!("file://{directory}/other.db?root_secret_file={directory}/other.secret");
    policy.fixture.run(&["--store", &other, "init"]).done();
    assert!(policy.run(&["generate", "alice", "--tombstones", &other]).failed(2).contains("other tombstones"));
    policy.run(&["generate", "alice", "--tombstones", "tombs"]).done();
    policy.run(&["generate", "bob", "--tombstones", "tombs", "--no-tombstones"]).failed(2);

    policy.write("");
    let with_variable = |args: &[&str]| -> Ran {
        policy.fixture.command(args).env("KEYSTEAD_TOMBSTONES", &other).output().unwrap().into()
    };
    with_variable(&["erase", "alice", "--yes"]).done();
    with_variable(&["generate", "alice"]).failed(4);
    with_variable(&["generate", "alice", "--no-tombstones"]).done();
    assert!(policy.fixture.run(&["reconcile", "--yes"]).failed(2).contains("--tombstones"));
}

#[test]
fn an_erased_user_is_allowed_back() {
    let policy = Policy::new().with_key("alice");
    assert_eq!(policy.run(&["allow", "alice"]).done(), "this user is not erased and can get a key\n");
    policy.run(&["erase", "alice", "--yes"]).done();
    policy.run(&["generate", "alice"]).failed(4);
    let allowed = policy.run(&["allow", "alice"]);
    // Not refused: the file store is strongly consistent, and no cache was ever used.
    assert!(allowed.code == 0 && allowed.stdout.starts_with("allowed: "), "{allowed:?}");
    policy.run(&["generate", "alice"]).done();
    let told = policy.run(&["--json", "allow", "alice"]).json();
    assert_eq!(told, serde_json::json!({ "allowed": true, "was_erased": false }));
    policy.fixture.run(&["allow", "alice", "--config", "/dev/null"]).failed(2);
}

#[test]
fn a_store_to_be_read_only_is_only_read() {
    let policy = Policy::new().with_key("alice").with_key("erased");
    policy.run(&["backup", "monday.db"]).done();
    let directory = policy.fixture.directory().display().to_string();
    policy.add(&format!(
        "[stores.reports]\nurl = \"file://{directory}/monday.db?root_secret_file={directory}/root.secret\"\n\
         read_only = true\n"
    ));
    let run = |args: &[&str]| policy.fixture.run_storeless(&[&["--store", "reports"], args].concat());
    fs::write(policy.fixture.path("key"), KEY).unwrap();
    let before = fs::read(policy.fixture.path("monday.db")).unwrap();
    for args in [
        &["generate", "bob"][..],
        &["put", "bob", "--key-file", "key"],
        &["put", "alice", "--key-file", "key", "--overwrite"],
        &["create", "bob", "--key-file", "key"],
        &["delete", "alice", "--yes"],
        &["erase", "alice", "--yes"],
        &["allow", "alice", "--tombstones", "tombs"],
        &["reconcile", "--yes", "--tombstones", "tombs"],
        &["rotate", "--new-root-secret-file", "new.secret"],
        &["restore", "keys.db", "--yes"],
        &["scrub"],
        &["init"],
        &["doctor", "--write"],
        &["conformance", "put.overwrites"],
        &["copy", "--to", "live", "--delete-source", "--yes"],
    ] {
        let refusal = run(args).failed(4);
        assert!(refusal.contains("read_only"), "{args:?}: {refusal}");
    }
    let refusal = policy.run(&["copy", "--to", "reports"]).failed(4);
    assert!(refusal.contains("read_only"), "{refusal}");
    assert!(!policy.fixture.path("new.secret").exists());

    assert_eq!(run(&["count"]).done(), "2\n");
    run(&["get", "alice"]).done();
    run(&["verify"]).done();
    run(&["doctor"]).done();
    run(&["backup", "tuesday.db"]).done();
    run(&["copy", "--to", "live"]).done();
    // Reading behind a fence deletes nothing from this store.
    policy.run(&["erase", "erased", "--yes"]).done();
    assert_eq!(run(&["list", "--tombstones", "tombs"]).done(), "alice\n");
    assert_eq!(run(&["count"]).done(), "2\n");
    assert_eq!(fs::read(policy.fixture.path("monday.db")).unwrap(), before);
}

#[test]
fn a_passphrase_has_a_file_for_each_store() {
    let fixture = Fixture::new();
    let directory = fixture.directory().display().to_string();
    fixture.write_secret("one", "correct horse");
    fixture.write_secret("two", "battery staple");
    let policy = Policy { fixture };
    policy.write(&format!(
        "[stores.one]\nurl = \"file://{directory}/one.db\"\npassphrase_file = \"{directory}/one\"\n\
         [stores.two]\nurl = \"file://{directory}/two.db\"\npassphrase_file = \"{directory}/two\"\n\
         [stores.three]\nurl = \"file://{directory}/three.db\"\npassphrase_file = \"three\"\n"
    ));
    assert!(policy.fixture.run_storeless(&["--store", "one", "init"]).failed(2).contains("a relative path"));
    let text = fs::read_to_string(policy.fixture.path("config/keystead/config.toml")).unwrap();
    policy.write(text.split("[stores.three]").next().unwrap());
    for store in ["one", "two"] {
        policy.fixture.run_storeless(&["--store", store, "init"]).done();
    }
    policy.fixture.run_storeless(&["--store", "one", "generate", "alice"]).done();
    policy.fixture.run_storeless(&["--store", "one", "copy", "--to", "two"]).done();
    assert_eq!(policy.fixture.run_storeless(&["--store", "two", "count"]).done(), "1\n");
}

#[test]
fn no_spelling_of_a_store_escapes_its_policy() {
    let policy = Policy::new().with_key("alice").with_key("bob");
    policy.run(&["erase", "alice", "--yes"]).done();
    policy.run(&["generate", "alice", "--no-tombstones"]).done();
    let directory = policy.fixture.directory().display().to_string();
    std::os::unix::fs::symlink(&directory, policy.fixture.path("link")).unwrap();
    let secret = format!("root_secret_file={directory}/root.secret");
    for path in ["keys.db", "./keys.db", "link/keys.db", "link/../link/keys.db", "keys%2Edb", "/keys.db"] {
        for scheme in ["file://", "file:", "FILE:///"] {
            let url = format!("{scheme}{directory}/{path}?{secret}");
            let ran = policy.fixture.run_storeless(&["--store", &url, "get", "alice"]);
            assert!(ran.code != 0 && ran.stdout.is_empty(), "{url}: {ran:?}");
            let ran = policy.fixture.run_storeless(&["--store", &url, "generate", "alice"]);
            assert!(ran.code != 0, "{url}: {ran:?}");
        }
    }
}

#[test]
fn commands_that_change_nothing_delete_no_key_that_came_back() {
    let policy = Policy::new().with_key("alice").with_key("bob");
    policy.run(&["erase", "alice", "--yes"]).done();
    policy.run(&["generate", "alice", "--no-tombstones"]).done();
    let other = format!("file://{0}/other.db?root_secret_file={0}/other.secret", policy.fixture.directory().display());
    policy.fixture.run(&["--store", &other, "init"]).done();
    policy.run(&["copy", "--to", &other, "--dry-run"]).done();
    policy.run(&["list"]).done();
    policy.run(&["verify", "--against", &other]);
    policy.run(&["get", "alice"]).failed(4);
    assert_eq!(policy.run(&["--no-tombstones", "list"]).done().lines().count(), 2);
}

#[test]
fn a_backup_that_differs_by_an_erased_user_is_not_equal_and_not_unreadable() {
    let policy = Policy::new().with_key("alice").with_key("bob");
    policy.run(&["backup", "monday.db"]).done();
    policy.run(&["erase", "alice", "--yes"]).done();
    let directory = policy.fixture.directory().display().to_string();
    let backup = format!("file://{directory}/monday.db?root_secret_file={directory}/root.secret");
    let ran = policy.run(&["--json", "verify", "--against", &backup]);
    let told = ran.json();
    assert_eq!((ran.code, &told["is_equal"], &told["unreadable"]["total"]), (1, &false.into(), &0.into()), "{ran:?}");
    assert_eq!(told["extra"]["total"], 1, "{ran:?}");
}

#[test]
fn the_store_of_the_tombstones_is_not_written_to_as_one_of_keys() {
    let policy = Policy::new().with_key("alice");
    policy.run(&["backup", "monday.db"]).done();
    policy.run(&["erase", "alice", "--yes"]).done();
    let tombs = |args: &[&str]| policy.fixture.run_storeless(&[&["--store", "tombs"], args].concat());
    let records = tombs(&["list"]).done();
    fs::write(policy.fixture.path("key"), KEY).unwrap();
    for id in records.lines() {
        tombs(&["delete", id, "--yes"]).failed(4);
    }
    for args in [&["generate", "bob"][..], &["put", "bob", "--key-file", "key"], &["erase", "bob", "--yes"]] {
        assert!(tombs(args).failed(4).contains("one of tombstones"));
    }
    let other = format!("file://{0}/other.db?root_secret_file={0}/other.secret", policy.fixture.directory().display());
    policy.fixture.run(&["--store", &other, "init"]).done();
    tombs(&["copy", "--to", &other, "--delete-source", "--yes"]).failed(4);
    policy.fixture.run_storeless(&["--store", &other, "copy", "--to", "tombs"]).failed(4);
    assert_eq!(tombs(&["list"]).done().lines().count(), records.lines().count());
    tombs(&["backup", "tombs-monday.db"]).done();
}

#[test]
fn a_restore_with_tombstones_that_nobody_used_is_refused_before_it_begins() {
    let policy = Policy::new();
    let bare = |args: &[&str]| policy.run(&[&["--no-tombstones"], args].concat());
    bare(&["generate", "alice"]).done();
    bare(&["backup", "monday.db"]).done();
    bare(&["delete", "alice", "--yes"]).done();
    let refusal = policy.run(&["--json", "restore", "monday.db", "--yes"]).failed(4);
    assert!(refusal.contains("holds no tombstones"), "{refusal}");
    assert!(refusal.contains("if nobody was ever erased"), "the advice is in JSON, too: {refusal}");
    assert_eq!(bare(&["count"]).done(), "0\n");
}

#[test]
fn a_copy_removes_who_was_erased_behind_the_fence_of_the_source() {
    let policy = Policy::new();
    policy.fixture.fill((0..30).map(|number| format!("user-{number}")));
    let other = format!("file://{0}/other.db?root_secret_file={0}/other.secret", policy.fixture.directory().display());
    policy.fixture.run(&["--store", &other, "init"]).done();
    let copy = ["copy", "--to", &other, "--journal", "j", "--rate", "10", "--concurrency", "1"];
    let cut = policy.run(&[&copy[..], &["--timeout", "2"]].concat());
    assert_eq!(cut.code, 6, "{cut:?}");
    let copied = policy.fixture.run_storeless(&["--store", &other, "list"]).done();
    let erased = copied.lines().next().unwrap().to_owned();
    policy.run(&["erase", &erased, "--yes"]).done();
    let ran = policy.run(&["copy", "--to", &other, "--journal", "j", "--resume"]);
    assert!(ran.code == 0 && ran.stdout.contains("removed at the target: 1"), "{ran:?}");
    assert!(!policy.fixture.run_storeless(&["--store", &other, "list"]).done().lines().any(|id| id == erased));
}

#[test]
fn two_policies_for_one_place_are_not_chosen_from() {
    let policy = Policy::new();
    policy.add(&format!(
        "[stores.loose]\nurl = \"{}\"\n",
        policy.fixture.url().replace("root_secret_file", "create=true&root_secret_file")
    ));
    let url = format!("{}&create=false", policy.fixture.url());
    let refusal = policy.fixture.run_storeless(&["--store", &url, "count"]).failed(2);
    assert!(refusal.contains("live, loose"), "{refusal}");
    for args in [["--store", "loose"], ["--store", "live"]] {
        let refusal = policy.fixture.run_storeless(&[&args[..], &["count"]].concat()).failed(2);
        assert!(refusal.contains("live, loose"), "{refusal}");
    }
    let file = policy.fixture.path("config/keystead/config.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let refusal = policy.fixture.run(&["generate", "alice"]).failed(2);
    assert!(refusal.contains("chmod o-w"), "{refusal}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    // An invalid file is an error, not ignored.
    policy.write("[stores.live]\nurl = 5\n");
    assert!(policy.fixture.run(&["generate", "alice"]).failed(2).contains("line 2"));
}

#[test]
fn a_region_and_a_profile_go_with_an_aws_url_that_names_none() {
    let fixture = Fixture::new();
    let refusal = fixture.run(&["count", "--region", "eu-central-1"]).failed(2);
    assert!(refusal.contains("only to stores in AWS"), "{refusal}");
    #[cfg(feature = "ssm")]
    {
        let ssm = "ssm:///app/%s?region=eu-central-1";
        let refusal = fixture.run_storeless(&["--store", ssm, "count", "--region", "us-east-1"]).failed(2);
        assert!(refusal.contains("given twice"), "{refusal}");
        let refusal = fixture
            .run_storeless(&["--store", "ssm:///app/%s?kms_key=alias/app", "count", "--region", "a&tier=advanced"])
            .failed(2);
        assert!(refusal.contains("characters"), "{refusal}");
        let refusal = fixture.run_storeless(&[
            "--store",
            "ssm:///app/%s?kms_key=alias/app",
            "count",
            "--region",
            "eu-central-1",
            "--profile",
            "nobody",
        ]);
        assert!(refusal.code != 0 && refusal.stderr.contains("nobody"), "{refusal:?}");
    }
}

#[test]
fn a_command_ends_when_its_time_is_up() {
    let fixture = Fixture::new();
    let mut child = fixture.spawn(&["--timeout", "1", "put", "alice"]);
    let stdin = child.stdin.take();
    let ran = Ran::from(child.wait_with_output().unwrap());
    drop(stdin);
    assert!(
        ran.code == 6 && ran.stderr.contains("--timeout is up") && ran.stderr.contains("check with exists"),
        "{ran:?}"
    );
    assert_eq!(fixture.run(&["count", "--timeout", "60"]).done(), "0\n");
    fixture.run(&["count", "--timeout", "0"]).failed(2);
}
