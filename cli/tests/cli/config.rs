//! Stores that are named in the configuration file.

use std::fs;

use crate::fixture::{Fixture, Ran};

fn write(fixture: &Fixture, name: &str, text: &str) {
    fs::create_dir_all(fixture.path("config/keystead")).unwrap();
    fs::write(fixture.path(name), text).unwrap();
}

fn count(fixture: &Fixture, args: &[&str]) -> Ran {
    fixture.run_storeless(&[&["count"], args].concat())
}

#[test]
fn a_store_is_found_by_its_name_in_the_users_file_or_the_one_given() {
    let fixture = Fixture::new();
    fixture.run(&["generate", "alice"]).done();
    let text = format!("[stores.live]\nurl = \"{}\"\n[stores.none]\nurl = \"memory:\"\n", fixture.url());
    write(&fixture, "config/keystead/config.toml", &text);
    assert_eq!(count(&fixture, &["--store", "live"]).done(), "1\n");
    assert_eq!(count(&fixture, &["--store", "none"]).done(), "0\n");
    assert_eq!(fixture.command(&["count"]).env("KEYSTEAD_STORE", "live").output().unwrap().stdout, b"1\n");

    write(&fixture, "other.toml", "[stores.live]\nurl = \"memory:\"\n");
    assert_eq!(count(&fixture, &["--store", "live", "--config", "other.toml"]).done(), "0\n");
}

#[test]
fn a_name_that_is_not_there_is_refused_with_those_that_are() {
    let fixture = Fixture::empty();
    assert!(count(&fixture, &["--store", "live"]).failed(2).contains("cannot read the configuration file"));
    write(&fixture, "config/keystead/config.toml", "");
    assert!(count(&fixture, &["--store", "live"]).failed(2).contains("it contains no stores"));
    write(&fixture, "config/keystead/config.toml", "[stores.a]\nurl = \"memory:\"\n[stores.b]\nurl = \"memory:\"\n");
    let text = count(&fixture, &["--store", "hunter2"]).failed(2);
    assert!(text.contains("its stores are a, b") && !text.contains("hunter2"), "{text}");
}

#[test]
fn a_file_with_anything_else_in_it_is_refused_and_not_quoted() {
    let fixture = Fixture::empty();
    for text in [
        "[stores.live]\nurl = \"memory:\"\npassphrase = \"hunter2\"\n",
        "[stores.live]\nurl = \"memory:\"\n[hunter2]\nx = 1\n",
        "[stores.live]\nurl = \"memory:\"\nhunter2",
        "hunter2 = \"hunter2\"\n[stores.live]\nurl = \"memory:\"\n",
    ] {
        write(&fixture, "config/keystead/config.toml", text);
        let refusal = count(&fixture, &["--store", "live"]).failed(2);
        assert!(refusal.contains("line ") && refusal.contains("may contain only"), "{refusal}");
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
}
