//! Files of several names, each of which would have a log of its own.

use std::fs;
use std::process::Command;

use futures_executor::block_on;
use keystead_core::{ErrorKind, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::FileStore;
use libtest_mimic::{Completion, Trial};

use crate::child::{Worker, chain, id, open, root};
use crate::fixture::{Fixture, close, keys, keys_at};

pub(crate) fn hard_links() {
    let fixture = Fixture::new();
    let link = fixture.directory.path().join("own/link");
    fs::hard_link(fixture.path(), &link).unwrap();
    let text = fixture.expect_closed_to_all(ErrorKind::Config);
    assert!(text.contains("2 names (hard links)") && text.contains("find -samefile"), "{text}");
    let error = block_on(FileStore::open(&link, root())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{}", chain(&error));
    fs::remove_file(&link).unwrap();

    // A program that makes backups may link the file of a store that is open.
    let store = open(fixture.path());
    fs::hard_link(fixture.path(), &link).unwrap();
    block_on(store.put_key(&id("new"), &SecretKey::generate(32).unwrap())).unwrap();
    assert!(block_on(store.erase_key(&id("new"))).unwrap().verified);
    assert!(block_on(store.scrub()).unwrap());
    assert_eq!(keys(&store), fixture.at_kill);
    close(&store);
    fs::remove_file(&link).unwrap();
    assert_eq!(keys_at(&fixture.path()), fixture.at_kill);
}

/// Shows as ignored where this user may mount nothing.
pub(crate) fn mounted_file() -> Trial {
    Trial::ignorable_test("a_store_that_is_mounted_as_a_single_file_is_refused", || {
        let fixture = Fixture::new();
        let mounted = fixture.directory.path().join("mounted/keys.db");
        fs::create_dir(mounted.parent().unwrap()).unwrap();
        fs::write(&mounted, "").unwrap();
        let mount = r#"mount --bind "$3" "$4" && exec "$0" "$1" "$2" "$4""#;
        let ways: [&[&str]; 2] = [&["--user", "--map-root-user"], &[]];
        for options in ways {
            let mut command = Command::new("unshare");
            command.args(options).args(["--mount", "sh", "-c", mount]);
            let mut worker =
                Worker::start_by(command, "tell_opening", &[&fixture.text_path(), mounted.to_str().unwrap()]);
            let Some(kind) = worker.line() else { continue };
            let text = worker.line().unwrap();
            assert_eq!(kind, "Config", "{text}");
            assert!(text.contains("mounted as a single file") && text.contains("mount its directory"), "{text}");
            assert_eq!(keys_at(&fixture.path()), fixture.at_kill);
            return Ok(Completion::Completed);
        }
        Ok(Completion::ignored_with("this user can mount no file, with or without a user namespace"))
    })
}

/// `PATH`: opens a store and tells the error.
pub(crate) fn tell_opening(arguments: &[String]) {
    let [path] = arguments else { panic!("PATH") };
    match block_on(FileStore::open(path, root())) {
        Ok(_) => println!("opened\n"),
        Err(error) => println!("{:?}\n{}", error.kind(), chain(&error)),
    }
}
