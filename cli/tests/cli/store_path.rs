//! A path that is given as a store is answered with the URL that was meant.

use std::fs;

use crate::room::{KEY, Ran, Room};

fn count(room: &Room, store: &str) -> Ran {
    room.run_storeless(&["--store", store, "count"])
}

#[test]
fn a_path_is_answered_with_the_url_that_was_meant_and_that_url_opens_the_store() {
    let room = Room::new();
    room.run(&["generate", "alice"]).done();
    let directory = room.directory().display().to_string();
    let absolute = format!("{directory}/keys.db");
    for store in ["keys.db", "./keys.db", absolute.as_str(), "~/keys.db"] {
        let text = count(&room, store).failed(2);
        let url = format!("file://{directory}/keys.db");
        assert!(text.contains(&format!("give '{url}?root_secret_file=FILE', or '{url}' if")), "{store}: {text}");
    }
    let url = format!("file://{directory}/keys.db?root_secret_file={directory}/root.secret");
    assert_eq!(count(&room, &url).done(), "1\n");
}

#[test]
fn a_file_of_any_name_is_a_path_and_what_a_url_cannot_hold_is_encoded() {
    let room = Room::empty();
    fs::create_dir(room.path("my keys")).unwrap();
    fs::write(room.path("my keys/store"), "").unwrap();
    fs::write(room.path("store"), "").unwrap();
    assert!(count(&room, "my keys/store").failed(2).contains("/my%20keys/store?root_secret_file=FILE'"));
    assert!(count(&room, "store").failed(2).contains("/store?root_secret_file=FILE'"));
    assert!(count(&room, "my keys/new").failed(2).contains("/my%20keys/new?root_secret_file=FILE'"));
}

#[test]
fn every_option_that_takes_a_store_gives_the_answer() {
    let room = Room::new();
    for args in [&["copy", "--to", "other.db"][..], &["verify", "--against", "other.db"]] {
        assert!(room.run(args).failed(2).contains("/other.db?root_secret_file=FILE'"), "{args:?}");
    }
}

#[test]
fn a_path_of_windows_is_none_of_a_url() {
    let text = count(&Room::empty(), r"C:\keys\keys.db").failed(2);
    assert!(
        text.contains("a path is given") && text.contains("'file:///ABSOLUTE/PATH?root_secret_file=FILE'"),
        "{text}"
    );
}

#[test]
fn a_name_of_the_configuration_comes_first() {
    let room = Room::empty();
    fs::write(room.path("config.toml"), "[stores.'keys.db']\nurl = \"memory:\"\n[stores.store]\nurl = \"memory:\"\n")
        .unwrap();
    fs::write(room.path("store"), "").unwrap();
    for name in ["keys.db", "store"] {
        assert_eq!(room.run_storeless(&["--config", "config.toml", "--store", name, "count"]).done(), "0\n");
    }
}

#[test]
fn a_secret_that_looks_like_a_path_is_not_repeated() {
    let room = Room::empty();
    for secret in ["ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=", "/BEiM0RVZneImaq7zN3u+wARIjNEVWZ3iJmqu8zd7v8="] {
        let text = count(&room, secret).failed(2);
        assert!(text.contains("'file:///ABSOLUTE/PATH?") && !text.contains("IjNEVWZ3"), "{text}");
    }
    assert!(!count(&room, KEY).failed(2).contains(KEY));
}
