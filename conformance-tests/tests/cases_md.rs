//! CASES.md is generated from the suite.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::Path;

use keystead_conformance::{Need, cases};

fn generated() -> String {
    let mut text = String::from(
        "# The cases\n\nGenerated from the suite: `KEYSTEAD_BLESS=1 cargo test -p keystead-conformance --test cases_md` \
         writes it again.\nIds are permanent.\n\n| case | what a store promises | applies to |\n|---|---|---|\n",
    );
    for case in cases() {
        let needs: Vec<String> = case.needs().iter().map(ToString::to_string).collect();
        let needs = if needs.is_empty() { "every store".to_owned() } else { needs.join(", ") };
        writeln!(text, "| `{}` | {} | {needs} |", case.id(), case.sentence())
            .expect("writing to a string does not fail");
    }
    text
}

#[test]
fn it_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("CASES.md");
    if std::env::var_os("KEYSTEAD_BLESS").is_some() {
        std::fs::write(&path, generated()).expect("CASES.md can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == generated(), "CASES.md is not current: its first lines say how to write it again");
}

#[test]
fn ids_are_dotted_words_and_distinct() {
    let ids: HashSet<&str> = cases().iter().map(|case| case.id()).collect();
    assert_eq!(ids.len(), cases().len());
    for id in ids {
        let (subject, name) = id.split_once('.').expect("an id has a dot");
        let words = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit());
        assert!(words(subject) && words(name), "{id}");
    }
}

#[test]
fn as_many_cases_need_faults_as_the_documentation_says() {
    let count = cases().iter().filter(|case| case.needs().contains(&Need::Faults)).count();
    assert_eq!(count, 15, "update the number in Harness::faults and in CONTRIBUTING.md");
}
