//! `man`: the manual pages, and files of others in the same directory.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::fixture::Fixture;

#[test]
fn each_command_has_a_page_with_its_options_and_examples() {
    let fixture = Fixture::empty();
    fs::create_dir(fixture.path("man1")).unwrap();
    let text = fixture.run_storeless(&["man", "man1"]).done();
    assert!(text.starts_with("wrote ") && text.contains("man man1/keystead.1"), "{text}");
    let page = |name: &str| fs::read_to_string(fixture.path("man1").join(name)).unwrap();
    assert!(page("keystead.1").contains("keystead\\-copy(1)"), "{}", page("keystead.1"));
    let copy = page("keystead-copy.1");
    assert!(
        copy.contains(".TH keystead-copy 1") && copy.contains("\\-\\-journal") && copy.contains(".SH EXAMPLES"),
        "{copy}"
    );
    let help = fixture.run_storeless(&["--help"]).done();
    let commands = crate::help::commands_in(&help);
    assert_eq!(fs::read_dir(fixture.path("man1")).unwrap().count(), commands.len() + 1);
    for command in commands {
        assert!(page(&format!("keystead-{command}.1")).contains(".SH EXAMPLES"), "{command}");
    }
    // A second run writes the same pages.
    let told = fixture.run_storeless(&["--json", "man", "man1"]).json();
    assert_eq!(told["files"][0], json!("man1/keystead.1"));
    assert_eq!(page("keystead-copy.1"), copy);
}

#[test]
fn a_file_that_is_no_page_of_ours_is_left_and_then_no_page_is_written() {
    let fixture = Fixture::empty();
    fs::create_dir(fixture.path("man1")).unwrap();
    fs::write(fixture.path("precious"), "precious").unwrap();
    let foreign = fixture.path("man1/keystead-verify.1");
    fs::write(&foreign, ".TH keystead-verify 1\n").unwrap();
    assert!(fixture.run_storeless(&["man", "man1"]).failed(4).contains("man1/keystead-verify.1 exists"));
    fs::remove_file(&foreign).unwrap();
    symlink(fixture.path("precious"), &foreign).unwrap();
    fixture.run_storeless(&["man", "man1"]).failed(4);
    assert_eq!(fs::read(fixture.path("precious")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(fixture.path("man1")).unwrap().count(), 1);
    assert!(fixture.run_storeless(&["man", "nowhere"]).failed(2).contains("no directory nowhere"));
}
