//! `init`, `verify`, `rotate`, `scrub`, `backup`, `restore`, `doctor` over a file store.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::room::{KEY, Ran, Room};

fn with_store(room: &Room, url: &str, args: &[&str]) -> Ran {
    room.command(args).env("KEYSTEAD_STORE", url).output().unwrap().into()
}

/// The URL of a store in this room, with these parameters.
fn url(room: &Room, name: &str, parameters: &str) -> String {
    format!("file://{}{parameters}", room.path(name).display())
}

#[test]
fn init_makes_a_store_and_its_root_secret_and_overwrites_neither() {
    let room = Room::empty();
    let ran = room.run(&["init"]);
    assert!(ran.stdout.starts_with("created file:") && ran.stderr.contains("if it is lost, all keys are"), "{ran:?}");
    assert_eq!(ran.code, 0);
    for name in ["keys.db", "root.secret"] {
        assert_eq!(fs::metadata(room.path(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let root = fs::read(room.path("root.secret")).unwrap();
    assert_eq!(root.len(), 64);

    assert!(room.run(&["init"]).failed(4).contains("left alone"));
    let refusal = room.run(&["init", "--existing-root-secret"]).failed(4);
    assert!(refusal.contains("left alone") && refusal.contains("doctor") && !refusal.contains("id"), "{refusal}");
    fs::remove_file(room.path("keys.db")).unwrap();
    fs::remove_file(room.path("keys.db.id")).unwrap();
    let refusal = room.run(&["init"]).failed(4);
    assert!(refusal.contains("root.secret") && refusal.contains("--existing-root-secret"), "{refusal}");
    room.run(&["init", "--existing-root-secret"]).done();
    assert_eq!(fs::read(room.path("root.secret")).unwrap(), root);
    room.run(&["count"]).done();
}

#[test]
fn an_init_that_fails_leaves_no_root_secret_behind() {
    let room = Room::new();
    let other = url(&room, "keys.db", &format!("?root_secret_file={}", room.path("other.secret").display()));
    with_store(&room, &other, &["init"]).failed(4);
    assert!(!room.path("other.secret").exists());
}

#[test]
fn init_takes_a_root_secret_that_is_there_and_a_passphrase_from_a_file() {
    let room = Room::empty();
    room.write_secret("root.secret", &"5a".repeat(32));
    room.run(&["init", "--existing-root-secret"]).done();
    room.run(&["count"]).done();

    room.write_secret("phrase", "correct horse\n");
    let bare = url(&room, "phrase.db", "");
    with_store(&room, &bare, &["init", "--passphrase-file", "phrase"]).done();
    assert_eq!(with_store(&room, &bare, &["count", "--passphrase-file", "phrase"]).done(), "0\n");
    let named = url(&room, "phrase.db", &format!("?passphrase_file={}", room.path("phrase").display()));
    assert_eq!(with_store(&room, &named, &["count"]).done(), "0\n");
    with_store(&room, &named, &["count", "--passphrase-file", "phrase"]).failed(2);

    room.write_secret("wrong", "correct house\n");
    let text = with_store(&room, &bare, &["count", "--passphrase-file", "wrong"]).failed(5);
    assert!(text.contains("encryption key unavailable"), "{text}");
    assert!(with_store(&room, &bare, &["count"]).failed(4).contains("no terminal"));
    room.write_secret("empty", "\n");
    with_store(&room, &url(&room, "e.db", ""), &["init", "--passphrase-file", "empty"]).failed(2);
}

#[test]
fn a_secret_beside_its_store_is_warned_of_and_one_elsewhere_is_not() {
    let room = Room::empty();
    let warning = "the store and its secret are in the same directory";
    assert!(room.run(&["init"]).stderr.contains(warning));
    assert!(!room.run(&["count"]).stderr.contains(warning));
    assert!(room.run(&["rotate", "--new-root-secret-file", "new.secret"]).stderr.contains(warning));

    room.write_secret("phrase", "correct horse");
    let bare = url(&room, "phrase.db", "");
    assert!(with_store(&room, &bare, &["init", "--passphrase-file", "phrase"]).stderr.contains(warning));

    fs::create_dir(room.path("secrets")).unwrap();
    let parameters = format!("?root_secret_file={}", room.path("secrets/root.secret").display());
    let apart = url(&room, "apart.db", &parameters);
    let ran = with_store(&room, &apart, &["init"]);
    assert!(ran.code == 0 && !ran.stderr.contains("warning"), "{ran:?}");
    let ran = with_store(&room, &apart, &["rotate", "--new-root-secret-file", "secrets/new.secret"]);
    assert!(ran.code == 0 && !ran.stderr.contains("warning"), "{ran:?}");
}

#[test]
fn a_passphrase_file_follows_the_rules_of_secret_files() {
    let room = Room::empty();
    let bare = url(&room, "phrase.db", "");
    let init = ["init", "--passphrase-file", "phrase"];
    room.write_secret("phrase", "\u{feff}correct horse");
    let text = with_store(&room, &bare, &init).failed(2);
    assert!(text.contains("--passphrase-file") && text.contains("byte order mark"), "{text}");

    room.write_secret("phrase", "correct horse");
    fs::set_permissions(room.path("phrase"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(with_store(&room, &bare, &init).failed(2).contains("run chmod 600 'phrase'"));
    fs::set_permissions(room.path("phrase"), fs::Permissions::from_mode(0o622)).unwrap();
    assert!(with_store(&room, &bare, &init).failed(2).contains("others may write"));
    fs::set_permissions(room.path("phrase"), fs::Permissions::from_mode(0o400)).unwrap();
    with_store(&room, &bare, &init).done();

    let new = ["rotate", "--passphrase-file", "phrase", "--new-passphrase-file", "new"];
    fs::write(room.path("new"), "other horse").unwrap();
    fs::set_permissions(room.path("new"), fs::Permissions::from_mode(0o604)).unwrap();
    let text = with_store(&room, &bare, &new).failed(2);
    assert!(text.contains("--new-passphrase-file") && text.contains("run chmod 600 'new'"), "{text}");

    // A secret in the place of the path is not shown.
    let text = with_store(&room, &bare, &["count", "--passphrase-file", "hunter2"]).failed(2);
    assert!(text.contains("cannot be read") && !text.contains("hunter2"), "{text}");
}

#[test]
fn doctor_reports_a_secret_that_others_may_read() {
    let room = Room::new();
    let shown = room.path("root.secret").display().to_string();
    let told = |room: &Room| room.run(&["--json", "doctor"]).json()["secret_file"].clone();
    assert!(room.run(&["doctor"]).done().contains(&format!("secret file  only its owner may read {shown}\n")));
    assert_eq!(told(&room), json!({ "file": shown, "readable_by_others": false }));

    fs::set_permissions(room.path("root.secret"), fs::Permissions::from_mode(0o444)).unwrap();
    assert!(room.run(&["doctor"]).failed(2).contains("run chmod 600"));
    if let Err(e) = chown(room.path("root.secret"), Some(4242), None) {
        println!("skipped: only root can give a file to another user ({e})");
        return;
    }
    let text = room.run(&["doctor"]).done();
    assert!(text.contains(&format!("secret file  others may read {shown}; this user cannot change that\n")), "{text}");
    assert_eq!(told(&room), json!({ "file": shown, "readable_by_others": true }));
    let memory = room.run(&["--json", "--store", "memory:", "doctor"]).json();
    assert!(memory["secret_file"].is_null() && memory.get("secret_file").is_some(), "{memory}");
}

#[test]
fn verify_reads_every_record() {
    let room = Room::new();
    room.fill((0..10).map(|number| number.to_string()));
    assert_eq!(
        room.run(&["verify"]).done(),
        "records: 10 intact, 0 damaged; stretches that cannot be read: 0; structural faults: 0\n"
    );
    room.damage("keys.db");
    let ran = room.run(&["verify"]);
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(ran.stdout.starts_with("records: 9 intact, 1 damaged"), "{ran:?}");
    assert!(ran.stderr.contains("with keystead restore"), "{ran:?}");
}

#[test]
fn rotate_gives_a_new_root_secret_and_the_old_one_opens_the_copies_only() {
    let room = Room::new();
    room.run_with(&["put", "alice"], KEY).done();
    room.run(&["backup", "copy.db"]).done();

    let old = fs::read(room.path("root.secret")).unwrap();
    let ran = room.run(&["rotate", "--new-root-secret-file", "new.secret"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.starts_with("rotated: file:") && ran.stderr.contains("destroy the old root secret"), "{ran:?}");
    assert_eq!(fs::read(room.path("root.secret")).unwrap(), old);
    assert_eq!(fs::metadata(room.path("new.secret")).unwrap().permissions().mode() & 0o777, 0o600);

    room.run(&["get", "alice"]).failed(5);
    let new = url(&room, "keys.db", &format!("?root_secret_file={}", room.path("new.secret").display()));
    assert_eq!(with_store(&room, &new, &["get", "alice"]).done(), format!("{KEY}\n"));
    let copy = |secret: &str| url(&room, "copy.db", &format!("?root_secret_file={}", room.path(secret).display()));
    assert_eq!(with_store(&room, &copy("root.secret"), &["get", "alice"]).done(), format!("{KEY}\n"));
    with_store(&room, &copy("new.secret"), &["get", "alice"]).failed(5);

    assert!(
        with_store(&room, &new, &["rotate", "--new-root-secret-file", "root.secret"]).failed(4).contains("left alone")
    );
    let refusal = with_store(&room, &new, &["rotate", "--resume"]).failed(4);
    assert!(refusal.contains("none to resume") && !refusal.contains("destroy"), "{refusal}");
    assert_eq!(with_store(&room, &new, &["get", "alice"]).done(), format!("{KEY}\n"));
    room.run(&["rotate"]).failed(2);
    room.write_secret("phrase", "correct horse");
    with_store(&room, &new, &["rotate", "--new-passphrase-file", "phrase"]).done();
    let bare = url(&room, "keys.db", "");
    assert_eq!(with_store(&room, &bare, &["get", "alice", "--passphrase-file", "phrase"]).done(), format!("{KEY}\n"));
    let same = ["rotate", "--passphrase-file", "phrase", "--new-passphrase-file", "phrase"];
    let ran = with_store(&room, &bare, &same);
    assert!(ran.code == 0 && ran.stderr.contains("same as before") && !ran.stderr.contains("destroy"), "{ran:?}");
}

#[test]
fn a_rotation_that_does_not_begin_leaves_no_root_secret_behind() {
    let room = Room::new();
    room.run(&["rotate", "--new-root-secret-file", "no/such/folder"]).failed(1);
    let wrong = url(&room, "keys.db", &format!("?root_secret_file={}", room.path("wrong").display()));
    room.write_secret("wrong", &"5a".repeat(32));
    with_store(&room, &wrong, &["rotate", "--new-root-secret-file", "new.secret"]).failed(5);
    assert!(!room.path("new.secret").exists());
}

#[test]
fn a_backup_is_a_store_and_overwrites_nothing() {
    let room = Room::new();
    room.run_with(&["put", "alice"], KEY).done();
    let ran = room.run(&["backup", "copies/copy.db"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "copied to copies/copy.db\n"), "{ran:?}");
    assert!(ran.stderr.contains("same root secret"), "{ran:?}");
    assert!(room.run(&["backup", "copies/copy.db"]).failed(4).contains("left alone"));

    let copy = url(&room, "copies/copy.db", &format!("?root_secret_file={}", room.path("root.secret").display()));
    assert_eq!(
        with_store(&room, &copy, &["verify"]).done(),
        "records: 1 intact, 0 damaged; stretches that cannot be read: 0; structural faults: 0\n"
    );
}

/// The store that `restore` has kept, by what it says.
fn kept(ran: &Ran) -> PathBuf {
    let mut names = ran.stdout.lines().filter_map(|line| line.strip_prefix("the replaced store is kept as "));
    PathBuf::from(names.next().unwrap_or_else(|| panic!("{ran:?}")))
}

#[test]
fn restore_puts_a_backup_in_the_place_of_a_store_and_keeps_that() {
    let room = Room::new();
    room.run_with(&["put", "alice"], KEY).done();
    room.run(&["backup", "copies/monday.db"]).done();
    room.run(&["erase", "alice", "--yes"]).done();
    room.run(&["generate", "bob"]).done();

    let ran = room.run(&["restore", "copies/monday.db", "--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.starts_with("restored file:"), "{ran:?}");
    assert!(ran.stderr.contains("keystead reconcile") && ran.stderr.contains("remove the replaced store"), "{ran:?}");
    assert_eq!(room.run(&["list"]).done(), "alice\n");
    assert_eq!(room.run(&["get", "alice"]).done(), format!("{KEY}\n"));

    let replaced = url(&room, "old.db", &format!("?root_secret_file={}", room.path("root.secret").display()));
    fs::rename(kept(&ran), room.path("old.db")).unwrap();
    assert_eq!(with_store(&room, &replaced, &["list"]).done(), "bob\n");
    // The backup was only read, and restores again.
    assert_eq!(fs::read_dir(room.path("copies")).unwrap().count(), 1);
    room.run(&["restore", "copies/monday.db", "--yes"]).done();
}

#[test]
fn restore_needs_no_store_and_replaces_none_then() {
    let room = Room::new();
    room.run_with(&["put", "alice"], KEY).done();
    room.run(&["backup", "copy.db"]).done();
    let elsewhere = url(&room, "new/keys.db", &format!("?root_secret_file={}", room.path("root.secret").display()));
    let ran = with_store(&room, &elsewhere, &["restore", "copy.db", "--yes"]);
    assert!(ran.code == 0 && !ran.stdout.contains("kept as") && !ran.stderr.contains("replaced"), "{ran:?}");
    assert_eq!(with_store(&room, &elsewhere, &["list"]).done(), "alice\n");
}

#[test]
fn a_lost_store_is_told_from_none_and_restored() {
    let room = Room::new();
    room.run_with(&["put", "alice"], KEY).done();
    room.run(&["backup", "copy.db"]).done();
    fs::remove_file(room.path("keys.db")).unwrap();
    assert!(room.run(&["count"]).failed(7).contains("is gone"));
    assert!(room.run(&["init", "--existing-root-secret"]).failed(7).contains("restore a backup"));
    room.run(&["restore", "copy.db", "--yes"]).done();
    assert_eq!(room.run(&["list"]).done(), "alice\n");
}

#[test]
fn a_restore_that_is_refused_changes_nothing() {
    let room = Room::new();
    room.run_with(&["put", "alice"], KEY).done();
    room.run(&["backup", "copy.db"]).done();
    room.run(&["generate", "bob"]).done();

    assert!(room.run(&["restore", "copy.db"]).failed(4).contains("say --yes"));
    assert!(room.run(&["restore", "nothing.db", "--yes"]).failed(2).contains("there is no backup"));
    assert!(room.run(&["restore", "root.secret", "--yes"]).failed(2).contains("not a keystead store"));
    let other = url(&room, "other.db", &format!("?root_secret_file={}", room.path("other.secret").display()));
    with_store(&room, &other, &["init"]).done();
    room.run(&["restore", "other.db", "--yes"]).failed(5);

    fs::copy(room.path("copy.db"), room.path("damaged.db")).unwrap();
    room.damage("damaged.db");
    let text = room.run(&["restore", "damaged.db", "--yes"]).failed(7);
    assert!(text.contains("damaged") && text.contains("restore another one"), "{text}");

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let open = runtime.block_on(keystead::open(&room.url())).unwrap();
    let text = room.run(&["restore", "copy.db", "--yes"]).failed(4);
    assert!(text.contains("a process has") && text.contains("end it, then restore"), "{text}");
    drop(open);

    assert_eq!(room.run(&["count"]).done(), "2\n");
    assert!(fs::read_dir(room.directory()).unwrap().all(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        !name.contains(".replaced-") && !name.contains(".new") && !name.contains(".restoring")
    }));
}

/// Copies keys into the store of this room, and kills the program when some of them are in the log only.
fn write_and_kill(room: &Room) {
    let source = url(room, "source.db", &format!("?root_secret_file={}", room.path("source.secret").display()));
    with_store(room, &source, &["init"]).done();
    for number in 0..10 {
        with_store(room, &source, &["generate", &format!("user-{number}")]).done();
    }
    let target = room.url();
    let mut command = room.command(&["--store", &source, "copy", "--to", &target, "--rate", "4"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let log_len = || fs::metadata(room.path("keys.db-wal")).map_or(0, |log| log.len());
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
    let room = Room::new();
    room.run_with(&["put", "alice"], KEY).done();
    room.run(&["backup", "monday.db"]).done();
    write_and_kill(&room);

    fs::copy(room.path("monday.db"), room.path("keys.db")).unwrap();
    for args in [&["count"][..], &["get", "alice"], &["verify"], &["doctor"]] {
        let text = room.run(args).failed(7);
        assert!(text.contains("keys.db-wal is not the log of"), "{text}");
        assert!(text.contains("restore it from there with keystead restore, which keeps the log"), "{text}");
    }
    let ran = room.run(&["restore", "monday.db", "--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(room.run(&["list"]).done(), "alice\n");
    assert!(room.run(&["verify"]).done().starts_with("records: 1 intact, 0 damaged"));
    let mut log = kept(&ran).into_os_string();
    log.push("-wal");
    assert!(fs::metadata(log).unwrap().len() > 0, "the log was not kept");
}

#[test]
fn restore_leaves_no_journal_of_a_creation_that_was_cut_off() {
    let room = Room::new();
    room.run_with(&["put", "alice"], KEY).done();
    room.run(&["backup", "copy.db"]).done();
    // What such a creation leaves: a part of a file, and the journal that makes it empty again.
    let half = rusqlite::Connection::open(room.path("half.db")).unwrap();
    half.execute_batch("PRAGMA cache_size = 1; BEGIN; CREATE TABLE half (bytes BLOB)").unwrap();
    for _ in 0..200 {
        half.execute("INSERT INTO half VALUES (randomblob(3000))", []).unwrap();
    }
    for (from, to) in [("half.db", "keys.db"), ("half.db-journal", "keys.db-journal")] {
        fs::copy(room.path(from), room.path(to)).unwrap();
        fs::set_permissions(room.path(to), fs::Permissions::from_mode(0o600)).unwrap();
    }

    room.run(&["restore", "copy.db", "--yes"]).done();
    assert_eq!(room.run(&["list"]).done(), "alice\n");
}

#[test]
fn group_access_lets_the_group_use_a_store() {
    let room = Room::empty();
    let secret = room.path("root.secret");
    let shared = url(&room, "keys.db", &format!("?root_secret_file={}&group_access=true", secret.display()));
    with_store(&room, &shared, &["init"]).done();
    assert_eq!(fs::metadata(room.path("keys.db")).unwrap().permissions().mode() & 0o777, 0o660);
    with_store(&room, &shared, &["generate", "alice"]).done();
    with_store(&room, &shared, &["backup", "copy.db"]).done();
    with_store(&room, &shared, &["restore", "copy.db", "--yes"]).done();
    assert_eq!(fs::metadata(room.path("keys.db")).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(with_store(&room, &shared, &["count"]).done(), "1\n");
    assert!(room.run(&["count"]).failed(2).contains("others may read or write"));
}

#[test]
fn scrub_says_whether_the_files_are_clean() {
    let room = Room::new();
    assert_eq!(room.run(&["scrub"]).done(), "clean: nothing is left of deleted and overwritten keys\n");
}

#[test]
fn what_only_a_file_store_can_do_is_refused_elsewhere() {
    let room = Room::empty();
    for args in [&["init"][..], &["verify"], &["scrub"], &["backup", "x"], &["restore", "x"], &["rotate", "--resume"]] {
        assert!(with_store(&room, "memory:", args).failed(2).contains("only a file store"), "{args:?}");
    }
}

#[test]
fn doctor_looks_at_the_rights_one_by_one_and_reckons_the_costs() {
    let room = Room::new();
    room.fill((0..3).map(|number| number.to_string()));
    let text = room.run(&["doctor", "--users", "10000"]).done();
    for line in [
        "durability   host",
        "consistency  strong",
        "reach        ok: the store answers, and knows who asks",
        "read         ok: a key can be read",
        "list         ok: the ids can be listed",
        "structure    ok: the pages of the file fit together",
        "keys         3",
        "  ssm, standard tier             1.90",
        "  secretsmanager              4003.40",
    ] {
        assert!(text.lines().any(|got| got == line), "{line:?} is not in\n{text}");
    }
    assert!(room.run(&["doctor", "--users", "10001"]).done().contains("not possible"));
    let text = room.run(&["doctor", "--write"]).done();
    assert!(text.contains("create       ok: ") && text.contains("delete       ok: "), "{text}");
    assert_eq!(room.run(&["count"]).done(), "3\n");
}

#[test]
fn what_keeps_a_store_from_opening_is_told_with_what_to_do() {
    let room = Room::new();
    fs::set_permissions(room.path("keys.db"), fs::Permissions::from_mode(0o644)).unwrap();
    let text = room.run(&["doctor"]).failed(2);
    assert!(text.contains("because others may read or write") && text.contains("run chmod 600"), "{text}");
    fs::set_permissions(room.path("keys.db"), fs::Permissions::from_mode(0o600)).unwrap();

    fs::remove_file(room.path("root.secret")).unwrap();
    assert!(room.run(&["doctor"]).failed(2).contains("cannot be read"));
    assert!(room.run_storeless(&["count"]).failed(2).contains("--store URL"));
    assert!(with_store(&room, "redis://x", &["count"]).failed(2).contains("unknown scheme"));
}
