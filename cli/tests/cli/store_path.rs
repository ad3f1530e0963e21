//! The error for a path that is given instead of a store, with the URL that was probably meant.

use std::fs;

use crate::fixture::{Fixture, KEY, Ran};

fn count(fixture: &Fixture, store: &str) -> Ran {
    fixture.run_storeless(&["--store", store, "count"])
}

#[test]
fn a_path_is_answered_with_the_url_that_was_meant_and_that_url_opens_the_store() {
    let fixture = Fixture::new();
    fixture.run(&["generate", "alice"]).done();
    let directory = fixture.directory().display().to_string();
    let absolute = format!("{directory}/keys.db");
    for store in ["keys.db", "./keys.db", absolute.as_str(), "~/keys.db"] {
        let text = count(&fixture, store).failed(2);
        let url = format!("file://{directory}/keys.db");
        assert!(text.contains(&format!("give '{url}?root_secret_file=FILE', or '{url}' if")), "{store}: {text}");
    }
    let url = format!("file://{directory}/keys.db?root_secret_file={directory}/root.secret");
    assert_eq!(count(&fixture, &url).done(), "1\n");
}

#[test]
fn a_file_of_any_name_is_a_path_and_what_a_url_cannot_hold_is_encoded() {
    let fixture = Fixture::empty();
    fs::create_dir(fixture.path("my keys")).unwrap();
    fs::write(fixture.path("my keys/store"), "").unwrap();
    fs::write(fixture.path("store"), "").unwrap();
    assert!(count(&fixture, "my keys/store").failed(2).contains("/my%20keys/store?root_secret_file=FILE'"));
    assert!(count(&fixture, "store").failed(2).contains("/store?root_secret_file=FILE'"));
    assert!(count(&fixture, "my keys/new").failed(2).contains("/my%20keys/new?root_secret_file=FILE'"));
}

#[test]
fn every_option_that_takes_a_store_gives_the_answer() {
    let fixture = Fixture::new();
    for args in [&["copy", "--to", "other.db"][..], &["verify", "--against", "other.db"]] {
        assert!(fixture.run(args).failed(2).contains("/other.db?root_secret_file=FILE'"), "{args:?}");
    }
}

#[test]
fn a_path_of_windows_is_none_of_a_url() {
    let text = count(&Fixture::empty(), r"C:\keys\keys.db").failed(2);
    assert!(
        text.contains("a path is given") && text.contains("'file:///ABSOLUTE/PATH?root_secret_file=FILE'"),
        "{text}"
    );
}

#[test]
fn a_name_of_the_configuration_comes_first() {
    let fixture = Fixture::empty();
    fs::write(
        fixture.path("config.toml"),
        "[stores.'keys.db']\nurl = \"memory:\"\n[stores.store]\nurl = \"memory:\"\n",
    )
    .unwrap();
    fs::write(fixture.path("store"), "").unwrap();
    for name in ["keys.db", "store"] {
        assert_eq!(fixture.run_storeless(&["--config", "config.toml", "--store", name, "count"]).done(), "0\n");
    }
}

#[test]
fn a_secret_that_looks_like_a_path_is_not_repeated() {
    let fixture = Fixture::empty();
    for secret in ["ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=", "/BEiM0RVZneImaq7zN3u+wARIjNEVWZ3iJmqu8zd7v8="] {
        let text = count(&fixture, secret).failed(2);
        assert!(text.contains("'file:///ABSOLUTE/PATH?") && !text.contains("IjNEVWZ3"), "{text}");
    }
    assert!(!count(&fixture, KEY).failed(2).contains(KEY));
}
