//! `init`, `verify`, `rotate`, `scrub`, `backup`, `restore` and `doctor` on a file store.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::fixture::{Fixture, KEY, Ran};

fn with_store(fixture: &Fixture, url: &str, args: &[&str]) -> Ran {
    fixture.command(args).env("KEYSTEAD_STORE", url).output().unwrap().into()
}

/// Returns the URL of a store in this fixture, with these parameters.
fn url(fixture: &Fixture, name: &str, parameters: &str) -> String {
    format!("file://{}{parameters}", fixture.path(name).display())
}

#[test]
fn init_makes_a_store_and_its_root_secret_and_overwrites_neither() {
    let fixture = Fixture::empty();
    let ran = fixture.run(&["init"]);
    assert!(
        ran.stdout.starts_with("created file:") && ran.stderr.contains("if the secret is lost, so are all keys"),
        "{ran:?}"
    );
    assert_eq!(ran.code, 0);
    for name in ["keys.db", "root.secret"] {
        assert_eq!(fs::metadata(fixture.path(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let root = fs::read(fixture.path("root.secret")).unwrap();
    assert_eq!(root.len(), 64);

    assert!(fixture.run(&["init"]).failed(4).contains("left unchanged"));
    let refusal = fixture.run(&["init", "--existing-root-secret"]).failed(4);
    assert!(refusal.contains("left unchanged") && refusal.contains("doctor") && !refusal.contains("id"), "{refusal}");
    fs::remove_file(fixture.path("keys.db")).unwrap();
    fs::remove_file(fixture.path("keys.db.id")).unwrap();
    let refusal = fixture.run(&["init"]).failed(4);
    assert!(refusal.contains("root.secret") && refusal.contains("--existing-root-secret"), "{refusal}");
    fixture.run(&["init", "--existing-root-secret"]).done();
    assert_eq!(fs::read(fixture.path("root.secret")).unwrap(), root);
    fixture.run(&["count"]).done();
}

#[test]
fn an_init_that_fails_leaves_no_root_secret_behind() {
    let fixture = Fixture::new();
    let other = url(&fixture, "keys.db", &format!("?root_secret_file={}", fixture.path("other.secret").display()));
    with_store(&fixture, &other, &["init"]).failed(4);
    assert!(!fixture.path("other.secret").exists());
}

#[test]
fn init_takes_a_root_secret_that_is_there_and_a_passphrase_from_a_file() {
    let fixture = Fixture::empty();
    fixture.write_secret("root.secret", &"5a".repeat(32));
    fixture.run(&["init", "--existing-root-secret"]).done();
    fixture.run(&["count"]).done();

    fixture.write_secret("phrase", "correct horse\n");
    let bare = url(&fixture, "phrase.db", "");
    with_store(&fixture, &bare, &["init", "--passphrase-file", "phrase"]).done();
    assert_eq!(with_store(&fixture, &bare, &["count", "--passphrase-file", "phrase"]).done(), "0\n");
    let named = url(&fixture, "phrase.db", &format!("?passphrase_file={}", fixture.path("phrase").display()));
    assert_eq!(with_store(&fixture, &named, &["count"]).done(), "0\n");
    with_store(&fixture, &named, &["count", "--passphrase-file", "phrase"]).failed(2);

    fixture.write_secret("wrong", "correct house\n");
    let text = with_store(&fixture, &bare, &["count", "--passphrase-file", "wrong"]).failed(5);
    assert!(text.contains("encryption key unavailable"), "{text}");
    assert!(with_store(&fixture, &bare, &["count"]).failed(4).contains("no terminal"));
    fixture.write_secret("empty", "\n");
    with_store(&fixture, &url(&fixture, "e.db", ""), &["init", "--passphrase-file", "empty"]).failed(2);
}

#[test]
fn a_secret_beside_its_store_is_warned_of_and_one_elsewhere_is_not() {
    let fixture = Fixture::empty();
    let warning = "the store and its secret are in the same directory";
    assert!(fixture.run(&["init"]).stderr.contains(warning));
    assert!(!fixture.run(&["count"]).stderr.contains(warning));
    assert!(fixture.run(&["rotate", "--new-root-secret-file", "new.secret"]).stderr.contains(warning));

    fixture.write_secret("phrase", "correct horse");
    let bare = url(&fixture, "phrase.db", "");
    assert!(with_store(&fixture, &bare, &["init", "--passphrase-file", "phrase"]).stderr.contains(warning));

    fs::create_dir(fixture.path("secrets")).unwrap();
    let parameters = format!("?root_secret_file={}", fixture.path("secrets/root.secret").display());
    let apart = url(&fixture, "apart.db", &parameters);
    let ran = with_store(&fixture, &apart, &["init"]);
    assert!(ran.code == 0 && !ran.stderr.contains("warning"), "{ran:?}");
    let ran = with_store(&fixture, &apart, &["rotate", "--new-root-secret-file", "secrets/new.secret"]);
    assert!(ran.code == 0 && !ran.stderr.contains("warning"), "{ran:?}");
}

#[test]
fn a_passphrase_file_follows_the_rules_of_secret_files() {
    let fixture = Fixture::empty();
    let bare = url(&fixture, "phrase.db", "");
    let init = ["init", "--passphrase-file", "phrase"];
    fixture.write_secret("phrase", "\u{feff}correct horse");
    let text = with_store(&fixture, &bare, &init).failed(2);
    assert!(text.contains("--passphrase-file") && text.contains("byte order mark"), "{text}");

    fixture.write_secret("phrase", "correct horse");
    fs::set_permissions(fixture.path("phrase"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(with_store(&fixture, &bare, &init).failed(2).contains("run chmod 600 'phrase'"));
    fs::set_permissions(fixture.path("phrase"), fs::Permissions::from_mode(0o622)).unwrap();
    assert!(with_store(&fixture, &bare, &init).failed(2).contains("others may write"));
    fs::set_permissions(fixture.path("phrase"), fs::Permissions::from_mode(0o400)).unwrap();
    with_store(&fixture, &bare, &init).done();

    let new = ["rotate", "--passphrase-file", "phrase", "--new-passphrase-file", "new"];
    fs::write(fixture.path("new"), "other horse").unwrap();
    fs::set_permissions(fixture.path("new"), fs::Permissions::from_mode(0o604)).unwrap();
    let text = with_store(&fixture, &bare, &new).failed(2);
    assert!(text.contains("--new-passphrase-file") && text.contains("run chmod 600 'new'"), "{text}");

    // A secret that is given instead of the path is not shown.
    let text = with_store(&fixture, &bare, &["count", "--passphrase-file", "hunter2"]).failed(2);
    assert!(text.contains("cannot be read") && !text.contains("hunter2"), "{text}");
}

#[test]
fn doctor_reports_a_secret_that_others_may_read() {
    let fixture = Fixture::new();
    let shown = fixture.path("root.secret").display().to_string();
    let told = |fixture: &Fixture| fixture.run(&["--json", "doctor"]).json()["secret_file"].clone();
    assert!(fixture.run(&["doctor"]).done().contains(&format!("secret file  only its owner can read {shown}\n")));
    assert_eq!(told(&fixture), json!({ "file": shown, "readable_by_others": false }));

    fs::set_permissions(fixture.path("root.secret"), fs::Permissions::from_mode(0o444)).unwrap();
    assert!(fixture.run(&["doctor"]).failed(2).contains("run chmod 600"));
    if let Err(e) = chown(fixture.path("root.secret"), Some(4242), None) {
        println!("skipped: only root can give a file to another user ({e})");
        return;
    }
    let text = fixture.run(&["doctor"]).done();
    assert!(
        text.contains(&format!("secret file  others can read {shown}, and this user cannot change that\n")),
        "{text}"
    );
    assert_eq!(told(&fixture), json!({ "file": shown, "readable_by_others": true }));
    let memory = fixture.run(&["--json", "--store", "memory:", "doctor"]).json();
    assert!(memory["secret_file"].is_null() && memory.get("secret_file").is_some(), "{memory}");
}

#[test]
fn verify_reads_every_record() {
    let fixture = Fixture::new();
    fixture.fill((0..10).map(|number| number.to_string()));
    assert_eq!(
        fixture.run(&["verify"]).done(),
        "records: 10 intact, 0 damaged; unreadable parts of the file: 0; structural faults: 0\n"
    );
    fixture.damage("keys.db");
    let ran = fixture.run(&["verify"]);
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(ran.stdout.starts_with("records: 9 intact, 1 damaged"), "{ran:?}");
    assert!(ran.stderr.contains("run keystead restore"), "{ran:?}");
}

#[test]
fn rotate_gives_a_new_root_secret_and_the_old_one_opens_the_copies_only() {
    let fixture = Fixture::new();
    fixture.run_with(&["put", "alice"], KEY).done();
    fixture.run(&["backup", "copy.db"]).done();

    let old = fs::read(fixture.path("root.secret")).unwrap();
    let ran = fixture.run(&["rotate", "--new-root-secret-file", "new.secret"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.starts_with("rotated: file:") && ran.stderr.contains("destroy the old root secret"), "{ran:?}");
    assert_eq!(fs::read(fixture.path("root.secret")).unwrap(), old);
    assert_eq!(fs::metadata(fixture.path("new.secret")).unwrap().permissions().mode() & 0o777, 0o600);

    fixture.run(&["get", "alice"]).failed(5);
    let new = url(&fixture, "keys.db", &format!("?root_secret_file={}", fixture.path("new.secret").display()));
    assert_eq!(with_store(&fixture, &new, &["get", "alice"]).done(), format!("{KEY}\n"));
    let copy =
        |secret: &str| url(&fixture, "copy.db", &format!("?root_secret_file={}", fixture.path(secret).display()));
    assert_eq!(with_store(&fixture, &copy("root.secret"), &["get", "alice"]).done(), format!("{KEY}\n"));
    with_store(&fixture, &copy("new.secret"), &["get", "alice"]).failed(5);

    assert!(
        with_store(&fixture, &new, &["rotate", "--new-root-secret-file", "root.secret"])
            .failed(4)
            .contains("left unchanged")
    );
    let refusal = with_store(&fixture, &new, &["rotate", "--resume"]).failed(4);
    assert!(refusal.contains("none to resume") && !refusal.contains("destroy"), "{refusal}");
    assert_eq!(with_store(&fixture, &new, &["get", "alice"]).done(), format!("{KEY}\n"));
    fixture.run(&["rotate"]).failed(2);
    fixture.write_secret("phrase", "correct horse");
    with_store(&fixture, &new, &["rotate", "--new-passphrase-file", "phrase"]).done();
    let bare = url(&fixture, "keys.db", "");
    assert_eq!(
        with_store(&fixture, &bare, &["get", "alice", "--passphrase-file", "phrase"]).done(),
        format!("{KEY}\n")
    );
    let same = ["rotate", "--passphrase-file", "phrase", "--new-passphrase-file", "phrase"];
    let ran = with_store(&fixture, &bare, &same);
    assert!(ran.code == 0 && ran.stderr.contains("same as the old one") && !ran.stderr.contains("destroy"), "{ran:?}");
}

#[test]
fn a_rotation_that_does_not_begin_leaves_no_root_secret_behind() {
    let fixture = Fixture::new();
    fixture.run(&["rotate", "--new-root-secret-file", "no/such/folder"]).failed(1);
    let wrong = url(&fixture, "keys.db", &format!("?root_secret_file={}", fixture.path("wrong").display()));
    fixture.write_secret("wrong", &"5a".repeat(32));
    with_store(&fixture, &wrong, &["rotate", "--new-root-secret-file", "new.secret"]).failed(5);
    assert!(!fixture.path("new.secret").exists());
}

#[test]
fn a_backup_is_a_store_and_overwrites_nothing() {
    let fixture = Fixture::new();
    fixture.run_with(&["put", "alice"], KEY).done();
    let ran = fixture.run(&["backup", "copies/copy.db"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "copied to copies/copy.db\n"), "{ran:?}");
    assert!(ran.stderr.contains("same root secret"), "{ran:?}");
    assert!(fixture.run(&["backup", "copies/copy.db"]).failed(4).contains("left unchanged"));

    let copy = url(&fixture, "copies/copy.db", &format!("?root_secret_file={}", fixture.path("root.secret").display()));
    assert_eq!(
        with_store(&fixture, &copy, &["verify"]).done(),
        "records: 1 intact, 0 damaged; unreadable parts of the file: 0; structural faults: 0\n"
    );
}

/// Returns the path of the store that `restore` replaced and kept, from its output.
fn kept(ran: &Ran) -> PathBuf {
    let mut names = ran.stdout.lines().filter_map(|line| line.strip_prefix("the replaced store is kept as "));
    PathBuf::from(names.next().unwrap_or_else(|| panic!("{ran:?}")))
}

#[test]
fn restore_puts_a_backup_in_the_place_of_a_store_and_keeps_that() {
    let fixture = Fixture::new();
    fixture.run_with(&["put", "alice"], KEY).done();
    fixture.run(&["backup", "copies/monday.db"]).done();
    fixture.run(&["erase", "alice", "--yes"]).done();
    fixture.run(&["generate", "bob"]).done();

    let ran = fixture.run(&["restore", "copies/monday.db", "--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.starts_with("restored file:"), "{ran:?}");
    assert!(ran.stderr.contains("keystead reconcile") && ran.stderr.contains("remove the replaced store"), "{ran:?}");
    assert_eq!(fixture.run(&["list"]).done(), "alice\n");
    assert_eq!(fixture.run(&["get", "alice"]).done(), format!("{KEY}\n"));

    let replaced = url(&fixture, "old.db", &format!("?root_secret_file={}", fixture.path("root.secret").display()));
    fs::rename(kept(&ran), fixture.path("old.db")).unwrap();
    assert_eq!(with_store(&fixture, &replaced, &["list"]).done(), "bob\n");
    // The backup was only read, and can be restored again.
    assert_eq!(fs::read_dir(fixture.path("copies")).unwrap().count(), 1);
    fixture.run(&["restore", "copies/monday.db", "--yes"]).done();
}

#[test]
fn restore_needs_no_store_and_replaces_none_then() {
    let fixture = Fixture::new();
    fixture.run_with(&["put", "alice"], KEY).done();
    fixture.run(&["backup", "copy.db"]).done();
    let elsewhere =
        url(&fixture, "new/keys.db", &format!("?root_secret_file={}", fixture.path("root.secret").display()));
    let ran = with_store(&fixture, &elsewhere, &["restore", "copy.db", "--yes"]);
    assert!(ran.code == 0 && !ran.stdout.contains("kept as") && !ran.stderr.contains("replaced"), "{ran:?}");
    assert_eq!(with_store(&fixture, &elsewhere, &["list"]).done(), "alice\n");
}

#[test]
fn a_lost_store_is_told_from_none_and_restored() {
    let fixture = Fixture::new();
    fixture.run_with(&["put", "alice"], KEY).done();
    fixture.run(&["backup", "copy.db"]).done();
    fs::remove_file(fixture.path("keys.db")).unwrap();
    assert!(fixture.run(&["count"]).failed(7).contains("is gone"));
    assert!(fixture.run(&["init", "--existing-root-secret"]).failed(7).contains("restore a backup"));
    fixture.run(&["restore", "copy.db", "--yes"]).done();
    assert_eq!(fixture.run(&["list"]).done(), "alice\n");
}

#[test]
fn a_restore_that_is_refused_changes_nothing() {
    let fixture = Fixture::new();
    fixture.run_with(&["put", "alice"], KEY).done();
    fixture.run(&["backup", "copy.db"]).done();
    fixture.run(&["generate", "bob"]).done();

    assert!(fixture.run(&["restore", "copy.db"]).failed(4).contains("give --yes"));
    assert!(fixture.run(&["restore", "nothing.db", "--yes"]).failed(2).contains("there is no backup"));
    assert!(fixture.run(&["restore", "root.secret", "--yes"]).failed(2).contains("not a keystead store"));
    let other = url(&fixture, "other.db", &format!("?root_secret_file={}", fixture.path("other.secret").display()));
    with_store(&fixture, &other, &["init"]).done();
    fixture.run(&["restore", "other.db", "--yes"]).failed(5);

    fs::copy(fixture.path("copy.db"), fixture.path("damaged.db")).unwrap();
    fixture.damage("damaged.db");
    let text = fixture.run(&["restore", "damaged.db", "--yes"]).failed(7);
    assert!(text.contains("damaged") && text.contains("restore another one"), "{text}");

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let open = runtime.block_on(keystead::open(&fixture.url())).unwrap();
    let text = fixture.run(&["restore", "copy.db", "--yes"]).failed(4);
    assert!(text.contains("a process has") && text.contains("end it, then restore"), "{text}");
    drop(open);

    assert_eq!(fixture.run(&["count"]).done(), "2\n");
    assert!(fs::read_dir(fixture.directory()).unwrap().all(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        !name.contains(".replaced-") && !name.contains(".new") && !name.contains(".restoring")
    }));
}

/// Copies keys to the store of this fixture, and kills the program when some keys are only in the log.
fn write_and_kill(fixture: &Fixture) {
    let source = url(fixture, "source.db", &format!("?root_secret_file={}", fixture.path("source.secret").display()));
    with_store(fixture, &source, &["init"]).done();
    for number in 0..10 {
        with_store(fixture, &source, &["generate", &format!("user-{number}")]).done();
    }
    let target = fixture.url();
    let mut command = fixture.command(&["--store", &source, "copy", "--to", &target, "--rate", "4"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let log_len = || fs::metadata(fixture.path("keys.db-wal")).map_or(0, |log| log.len());
    let start = Instant::now();
    while log_len() == 0 {
        assert!(start.elapsed() < Duration::from_secs(30), "nothing is copied");
        sleep(Duration::from_millis(1));
    }
    // The transaction may be half written.
    sleep(Duration::from_millis(200));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(log_len() > 0, "the log was emptied");
}

#[test]
fn a_backup_that_was_copied_over_the_store_of_a_killed_process_is_refused_and_restore_mends_it() {
    let fixture = Fixture::new();
    fixture.run_with(&["put", "alice"], KEY).done();
    fixture.run(&["backup", "monday.db"]).done();
    write_and_kill(&fixture);

    fs::copy(fixture.path("monday.db"), fixture.path("keys.db")).unwrap();
    for args in [&["count"][..], &["get", "alice"], &["verify"], &["doctor"]] {
        let text = fixture.run(args).failed(7);
        assert!(text.contains("keys.db-wal is not the log of"), "{text}");
        assert!(text.contains("restore it from there with keystead restore, which keeps the log"), "{text}");
    }
    let ran = fixture.run(&["restore", "monday.db", "--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(fixture.run(&["list"]).done(), "alice\n");
    assert!(fixture.run(&["verify"]).done().starts_with("records: 1 intact, 0 damaged"));
    let mut log = kept(&ran).into_os_string();
    log.push("-wal");
    assert!(fs::metadata(log).unwrap().len() > 0, "the log was not kept");
}

#[test]
fn restore_leaves_no_journal_of_a_creation_that_was_cut_off() {
    let fixture = Fixture::new();
    fixture.run_with(&["put", "alice"], KEY).done();
    fixture.run(&["backup", "copy.db"]).done();
    // An interrupted creation leaves a part of a file, and the journal that would make it empty again.
    let half = rusqlite::Connection::open(fixture.path("half.db")).unwrap();
    half.execute_batch("PRAGMA cache_size = 1; BEGIN; CREATE TABLE half (bytes BLOB)").unwrap();
    for _ in 0..200 {
        half.execute("INSERT INTO half VALUES (randomblob(3000))", []).unwrap();
    }
    for (from, to) in [("half.db", "keys.db"), ("half.db-journal", "keys.db-journal")] {
        fs::copy(fixture.path(from), fixture.path(to)).unwrap();
        fs::set_permissions(fixture.path(to), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fixture.run(&["restore", "copy.db", "--yes"]).done();
    assert_eq!(fixture.run(&["list"]).done(), "alice\n");
}

#[test]
fn group_access_lets_the_group_use_a_store() {
    let fixture = Fixture::empty();
    let secret = fixture.path("root.secret");
    let shared = url(&fixture, "keys.db", &format!("?root_secret_file={}&group_access=true", secret.display()));
    with_store(&fixture, &shared, &["init"]).done();
    assert_eq!(fs::metadata(fixture.path("keys.db")).unwrap().permissions().mode() & 0o777, 0o660);
    with_store(&fixture, &shared, &["generate", "alice"]).done();
    with_store(&fixture, &shared, &["backup", "copy.db"]).done();
    with_store(&fixture, &shared, &["restore", "copy.db", "--yes"]).done();
    assert_eq!(fs::metadata(fixture.path("keys.db")).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(with_store(&fixture, &shared, &["count"]).done(), "1\n");
    assert!(fixture.run(&["count"]).failed(2).contains("others may read or write"));
}

#[test]
fn scrub_says_whether_the_files_are_clean() {
    let fixture = Fixture::new();
    assert_eq!(fixture.run(&["scrub"]).done(), "clean: nothing remains of deleted and overwritten keys\n");
}

#[test]
fn what_only_a_file_store_can_do_is_refused_elsewhere() {
    let fixture = Fixture::empty();
    for args in [&["init"][..], &["verify"], &["scrub"], &["backup", "x"], &["restore", "x"], &["rotate", "--resume"]] {
        assert!(with_store(&fixture, "memory:", args).failed(2).contains("only on file stores"), "{args:?}");
    }
}

#[test]
fn doctor_looks_at_the_rights_one_by_one_and_reckons_the_costs() {
    let fixture = Fixture::new();
    fixture.fill((0..3).map(|number| number.to_string()));
    let text = fixture.run(&["doctor", "--users", "10000"]).done();
    for line in [
        "durability   host",
        "consistency  strong",
        "reach        ok: the store answers and accepts the credentials",
        "read         ok: a key can be read",
        "list         ok: the ids can be listed",
        "structure    ok: the pages of the file fit together",
        "keys         3",
        "  ssm, standard tier             1.90",
        "  secretsmanager              4003.40",
    ] {
        assert!(text.lines().any(|got| got == line), "{line:?} is not in\n{text}");
    }
    assert!(fixture.run(&["doctor", "--users", "10001"]).done().contains("not possible"));
    let text = fixture.run(&["doctor", "--write"]).done();
    assert!(text.contains("create       ok: ") && text.contains("delete       ok: "), "{text}");
    assert_eq!(fixture.run(&["count"]).done(), "3\n");
}

#[test]
fn what_keeps_a_store_from_opening_is_told_with_what_to_do() {
    let fixture = Fixture::new();
    fs::set_permissions(fixture.path("keys.db"), fs::Permissions::from_mode(0o644)).unwrap();
    let text = fixture.run(&["doctor"]).failed(2);
    assert!(text.contains("because others may read or write") && text.contains("run chmod 600"), "{text}");
    fs::set_permissions(fixture.path("keys.db"), fs::Permissions::from_mode(0o600)).unwrap();

    fs::remove_file(fixture.path("root.secret")).unwrap();
    assert!(fixture.run(&["doctor"]).failed(2).contains("cannot be read"));
    assert!(fixture.run_storeless(&["count"]).failed(2).contains("--store URL"));
    assert!(with_store(&fixture, "redis://x", &["count"]).failed(2).contains("unknown scheme"));
}
