//! No copy of a store's keys is left in memory, in any form that is as good as the key.
//!
//! A worker process uses a keyring and pauses at each stage. Its parent, which knows the root
//! secret, opens the sealed keyring by FORMAT.md, computes each key and its forms, and searches the
//! memory of the worker for them.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a test program")]

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

#[cfg(target_os = "linux")]
mod keys;
#[cfg(target_os = "linux")]
mod search;
#[cfg(target_os = "linux")]
mod worker;

const KEYRING_TEST: &str = "keys_are_held_once_and_wiped_when_dropped";
const PASSPHRASE_TEST: &str = "a_passphrase_leaves_no_key_behind";

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, role] = arguments.as_slice() {
        if command == "worker" {
            worker::run(role);
            return ExitCode::SUCCESS;
        }
    }
    let trials = vec![
        Trial::ignorable_test(KEYRING_TEST, stages::a_keyring),
        Trial::ignorable_test(PASSPHRASE_TEST, stages::a_passphrase),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    let reason = "only Linux lets a process read the memory of another one as a file";
    let ignored = |name| Trial::ignorable_test(name, move || Ok(libtest_mimic::Completion::ignored_with(reason)));
    let trials = [KEYRING_TEST, PASSPHRASE_TEST].map(ignored).into();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

#[cfg(target_os = "linux")]
mod stages {
    use libtest_mimic::{Completion, Failed};

    use crate::keys::{OpenedKeyring, OpenedRecord, root_bytes, stretched_root};
    use crate::search::{Held, Search, Unreadable};
    use crate::worker::{PASSPHRASE, Worker};

    pub(crate) fn a_keyring() -> Result<Completion, Failed> {
        let root = root_bytes().try_into().unwrap();
        let mut worker = Worker::start("keyring");
        let mut search = match Search::of(worker.id()) {
            Ok(search) => search,
            Err(Unreadable(reason)) => return Ok(Completion::ignored_with(reason)),
        };

        let [sealed] = worker.stage("made");
        let made = OpenedKeyring::new(&root, &sealed);
        search.expect_key("root secret", &root, Held { keys: 1, states: 0 });
        search.expect_keyring(&made, |_| 1);
        search.run("made");

        let [row, record] = worker.stage("used");
        let record = OpenedRecord::new(&made, &row, &record);
        search.expect_key("root secret", &root, Held { keys: 1, states: 0 });
        search.expect_keyring(&made, |_| 1);
        search.expect_bytes("message key of a record", &record.message_key, 0);
        search.expect_bytes("user key", &record.user_key, 0);
        search.run("used");

        let [sealed] = worker.stage("rotated");
        let rotated = OpenedKeyring::new(&root, &sealed);
        search.expect_key("root secret", &root, Held { keys: 1, states: 0 });
        search.expect_keyring(&rotated, |_| 1);
        search.run("rotated");

        let [sealed] = worker.stage("opened");
        let opened = OpenedKeyring::new(&root, &sealed);
        search.expect_key("root secret", &root, Held { keys: 2, states: 0 });
        search.expect_bytes("digits of the root secret", hex::encode(root).as_bytes(), 0);
        search.expect_keyring(&opened, |_| 2);
        search.run("opened");

        let [] = worker.stage("without old epochs");
        let latest = rotated.epochs.last().unwrap().0;
        search.expect_key("root secret", &root, Held { keys: 1, states: 0 });
        search.expect_keyring(&rotated, |epoch| usize::from(epoch == latest));
        search.run("without old epochs");

        let [] = worker.stage("dropped");
        search.expect_key("root secret", &root, Held { keys: 0, states: 0 });
        search.expect_no_keyring(&rotated);
        for keyring in [&made, &rotated, &opened] {
            search.expect_bytes("message key of a keyring", &keyring.message_key, 0);
        }
        search.expect_bytes("message key of a record", &record.message_key, 0);
        search.run("dropped");
        search.finish()
    }

    pub(crate) fn a_passphrase() -> Result<Completion, Failed> {
        let mut worker = Worker::start("passphrase");
        let mut search = match Search::of(worker.id()) {
            Ok(search) => search,
            Err(Unreadable(reason)) => return Ok(Completion::ignored_with(reason)),
        };

        let [sealed] = worker.stage("made");
        let root = stretched_root(PASSPHRASE.as_bytes(), &sealed);
        let keyring = OpenedKeyring::new(&root, &sealed);
        search.expect_bytes("passphrase", PASSPHRASE.as_bytes(), 1);
        search.expect_key("key of the passphrase", &root, Held { keys: 0, states: 0 });
        search.expect_keyring(&keyring, |_| 1);
        search.run("made");

        let [] = worker.stage("opened");
        search.expect_bytes("passphrase", PASSPHRASE.as_bytes(), 1);
        search.expect_key("key of the passphrase", &root, Held { keys: 1, states: 0 });
        search.expect_keyring(&keyring, |_| 1);
        search.run("opened");

        let [] = worker.stage("dropped");
        search.expect_bytes("passphrase", PASSPHRASE.as_bytes(), 0);
        search.expect_key("key of the passphrase", &root, Held { keys: 0, states: 0 });
        search.expect_no_keyring(&keyring);
        search.expect_bytes("message key of a keyring", &keyring.message_key, 0);
        search.run("dropped");
        search.finish()
    }
}
