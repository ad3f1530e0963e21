//! Standard output that nobody reads, or that cannot be written.

use std::io::Read;
use std::process::Stdio;

use crate::fixture::{Fixture, KEY};

#[test]
fn a_reader_that_goes_ends_a_listing_quietly() {
    let fixture = Fixture::new();
    fixture.fill((0..4_000).map(|number| format!("user-{number:030}")));
    let mut child = fixture.spawn(&["list"]);
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first[..5], b"user-");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(141), &b""[..]), "{output:?}");
}

#[test]
fn a_standard_output_that_cannot_be_written_is_an_error() {
    let fixture = Fixture::new();
    fixture.run_with(&["put", "alice"], KEY).done();
    for args in [&["get", "alice"][..], &["list"], &["count"], &["--help"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = fixture.command(args).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert!(text.starts_with("error: cannot write to standard output"), "{text}");
    }
}
