//! Generates docs/guarantees.md from the stores' capabilities and the cases of the conformance suite.
#![cfg(all(feature = "memory", feature = "file", feature = "ssm", feature = "secretsmanager", feature = "layers"))]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::SdkConfig;
use keystead::file::{FileStore, RootSecret};
use keystead::layers::{Cached, Fenced, Limit, Limited, Observed, ReadOnly, Resilient};
use keystead::memory::MemoryStore;
use keystead::secretsmanager::{SecretsManagerConfig, SecretsManagerStore};
use keystead::ssm::{SsmConfig, SsmStore};
use keystead::{Capabilities, Consistency, DeletionGrade, Durability, KeyStore};
use keystead_conformance::{Case, Need, cases};

const INTRODUCTION: &str = "\
# What each store guarantees

Generated from `capabilities()` and from the conformance suite:
`KEYSTEAD_BLESS=1 cargo test --all-features --test guarantees` writes it again.

Every store keeps the nine promises in the documentation of `KeyStore`. The stores differ in what `capabilities()`
declares. For each declared property this page names the cases of the suite that check it. It also lists the cases that
do not apply to a store, with the reason. All other cases of [CASES.md](../conformance-tests/CASES.md) apply.

No case ends a process or cuts the power. Of the durability, the suite checks only that a client that is opened later
finds what was written before.
";

/// A store of this project as its own harness tests it.
struct Subject {
    title: &'static str,
    store: Arc<dyn KeyStore>,
    /// The needs of cases that the harness of this store does not meet.
    lacking: &'static [Need],
    /// A note on the tests of this store.
    note: &'static str,
}

const NO_FAULTS: &[Need] = &[Need::ForeignEntries, Need::EntriesWithoutValue, Need::Faults, Need::HeldNames];

const OVER_AN_EMULATOR: &str = "\
This section is about the default bounds. The suite runs over an emulator that does not lag, with bounds of 200 ms, or
over an AWS account if you ask for it ([CONTRIBUTING.md](../CONTRIBUTING.md)). Over an account, the cases that need a
harness which makes the engine fail do not apply, and neither do those about entries that only the emulator can be told
to make.";

async fn subjects(directory: &Path) -> Vec<Subject> {
    // Building a store makes no call, so nobody sees these credentials.
    let credentials = Credentials::new("AKIDTEST", "secret", None, None, "test");
    let aws = SdkConfig::builder().credentials_provider(SharedCredentialsProvider::new(credentials)).build();
    let ssm = SsmConfig::new("alias/app", "/app/user-keys/%s").unwrap();
    let ssm = SsmStore::builder(ssm).sdk_config(&aws).region("us-east-1").build().unwrap();
    let forced = SecretsManagerConfig::new("alias/app", "/app/user-keys/%s").unwrap();
    let recoverable = forced.clone().recovery_window(30);
    let secrets = |config| {
        let store = SecretsManagerStore::builder(config).sdk_config(&aws).region("us-east-1");
        Arc::new(store.build().unwrap())
    };
    vec![
        Subject {
            title: "Memory",
            store: Arc::new(MemoryStore::new()),
            lacking: NO_FAULTS,
            note: "The suite runs over the store itself.",
        },
        Subject {
            title: "File",
            store: Arc::new(file_store(directory).await),
            lacking: NO_FAULTS,
            note: "The suite runs over the store itself. In addition, the tests of `backend-file` check that no
acknowledged write is lost when a process is killed, that damage is reported as damage, and that no deleted byte is left
in the store's files.",
        },
        Subject {
            title: "Parameter Store",
            store: Arc::new(ssm),
            lacking: &[Need::EntriesWithoutValue, Need::HeldNames],
            note: OVER_AN_EMULATOR,
        },
        Subject { title: "Secrets Manager", store: secrets(forced), lacking: &[], note: OVER_AN_EMULATOR },
        Subject {
            title: "Secrets Manager with a recovery window of 30 days",
            store: secrets(recoverable),
            lacking: &[],
            note: OVER_AN_EMULATOR,
        },
    ]
}

async fn file_store(directory: &Path) -> FileStore {
    FileStore::create(directory.join("store").join("keys.db"), RootSecret::from_bytes([7; 32])).await.unwrap()
}

/// The cases that check what a store declares about its consistency, its deletions and its listing.
const CONSISTENCY: &[&str] = &[
    "race.linearizable",
    "two_handles.see_each_other",
    "delete.visible_to_other_handle",
    "eventual.reads_settle",
    "eventual.invisible_winner_is_a_conflict",
    "eventual.verified_erasure_has_waited",
];
const DELETION: &[&str] = &[
    "delete.removes",
    "delete.grade_matches_capability",
    "erase.receipt_is_true",
    "recoverable.calls_agree",
    "recoverable.erase_admits_it",
];
const LISTING: &[&str] = &[
    "list.all_once",
    "list.deleted_absent",
    "list.stable_ids_during_writes",
    "eventual.listing_settles",
    "list.unsupported_is_said",
];
const DURABILITY: &[&str] = &["reopen.sees_everything", "delete.survives_reopen"];

fn page(subjects: &[Subject], layers: &str) -> String {
    let mut page = INTRODUCTION.to_owned();
    for subject in subjects {
        section(&mut page, subject);
    }
    page.push_str(layers);
    page.push_str("\n## The cases named above\n\n| case | what a store promises |\n|---|---|\n");
    for id in [DURABILITY, CONSISTENCY, DELETION, LISTING].concat() {
        writeln!(page, "| `{id}` | {} |", case(id).sentence()).unwrap();
    }
    page
}

fn section(page: &mut String, subject: &Subject) {
    let Subject { title, store, lacking, note } = subject;
    let capabilities = store.capabilities();
    let scheme = store.info().scheme();
    write!(page, "\n## {title}\n\nScheme `{scheme}`. {note}\n\n").unwrap();
    page.push_str("| property | declared | meaning | checked by |\n|---|---|---|---|\n");
    let Capabilities { durability, consistency, deletion, listing, .. } = capabilities;
    let rows = [
        ("durability", shown(durability), durability_meaning(durability), DURABILITY),
        ("consistency", consistency_shown(consistency), consistency_meaning(consistency, "read"), CONSISTENCY),
        ("deletion", deletion_shown(deletion), deletion_meaning(deletion), DELETION),
        (
            "listing",
            listing.map_or("`None`".to_owned(), consistency_shown),
            listing.map_or("the store cannot list its ids".to_owned(), |bound| consistency_meaning(bound, "listing")),
            LISTING,
        ),
    ];
    for (property, declared, meaning, ids) in rows {
        let applies = |id: &&&str| case(id).excluded_by(&capabilities, lacking).is_none();
        let ids: Vec<String> = ids.iter().filter(applies).map(|id| format!("`{id}`")).collect();
        writeln!(page, "| {property} | {declared} | {meaning} | {} |", ids.join(", ")).unwrap();
    }

    let ignored: Vec<(&str, &str)> =
        cases().iter().filter_map(|case| Some((case.id(), case.excluded_by(&capabilities, lacking)?))).collect();
    let count = cases().len() - ignored.len();
    write!(page, "\n{count} of {} cases apply. The others are not checked:\n\n", cases().len()).unwrap();
    page.push_str("| case | why it does not apply |\n|---|---|\n");
    let mut reasons: Vec<&str> = Vec::new();
    for (_, reason) in &ignored {
        if !reasons.contains(reason) {
            reasons.push(reason);
        }
    }
    for reason in reasons {
        let ids = ignored.iter().filter(|(_, of)| *of == reason).map(|(id, _)| format!("`{id}`"));
        writeln!(page, "| {} | {reason} |", ids.collect::<Vec<_>>().join(", ")).unwrap();
    }
}

fn case(id: &str) -> &'static Case {
    cases().iter().find(|case| case.id() == id).unwrap_or_else(|| panic!("there is no case {id}"))
}

fn shown(value: impl std::fmt::Debug) -> String {
    format!("`{value:?}`")
}

fn consistency_shown(consistency: Consistency) -> String {
    match consistency {
        Consistency::Eventual { within } => format!("`Eventual`, {}", duration(within)),
        strong => shown(strong),
    }
}

fn deletion_shown(grade: DeletionGrade) -> String {
    match grade {
        DeletionGrade::Eventual { .. } => "`Eventual`".to_owned(),
        DeletionGrade::Recoverable { window } => format!("`Recoverable`, {}", duration(window)),
        grade => shown(grade),
    }
}

fn durability_meaning(durability: Durability) -> String {
    let meaning = match durability {
        Durability::Process => "the keys end with the process",
        Durability::Host => "an acknowledged write survives a crash and a loss of power, not the loss of the disk",
        Durability::Replicated => "an acknowledged write survives the loss of a machine",
        other => panic!("describe {other:?} here"),
    };
    meaning.to_owned()
}

fn consistency_meaning(consistency: Consistency, reader: &str) -> String {
    match consistency {
        Consistency::Strong => format!("every {reader} that begins after a write sees it"),
        Consistency::Eventual { within } => {
            format!("every {reader} that begins {} after a write sees it", duration(within))
        }
        other => panic!("describe {other:?} here"),
    }
}

fn deletion_meaning(grade: DeletionGrade) -> String {
    match grade {
        DeletionGrade::Immediate => "the engine itself cannot recover the bytes when the call returns".to_owned(),
        DeletionGrade::Eventual { within: None } => {
            "the engine removes the bytes by itself, without a known bound".to_owned()
        }
        DeletionGrade::Eventual { within: Some(within) } => {
            format!("the engine removes the bytes by itself within {}", duration(within))
        }
        DeletionGrade::Recoverable { window } => format!("an operator can restore the key for {}", duration(window)),
        other => panic!("describe {other:?} here"),
    }
}

fn duration(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 86_400 && seconds % 86_400 == 0 => format!("{} days", seconds / 86_400),
        seconds if seconds >= 60 && seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

/// Compares the capabilities of each layer around a file store with those of the store alone.
async fn layers(directory: &Path) -> String {
    let file = file_store(directory).await;
    let limit = || Limit::builder().rate(35.0).build().unwrap();
    let layers: [(&str, Arc<dyn KeyStore>); 6] = [
        ("`Cached` with a ttl of 5 min", {
            Arc::new(Cached::builder(file.clone()).ttl(Duration::from_secs(300)).build().unwrap())
        }),
        (
            "`Fenced`",
            Arc::new(Fenced::builder(file.clone(), file_store(&directory.join("tombstones")).await).build().unwrap()),
        ),
        ("`Resilient`", Arc::new(Resilient::builder(file.clone()).build().unwrap())),
        ("`Limited`", Arc::new(Limited::new(file.clone(), limit()))),
        ("`Observed`", Arc::new(Observed::new(file.clone()))),
        ("`ReadOnly`", Arc::new(ReadOnly::new(file.clone()))),
    ];
    let mut text = String::from(
        "\n## What a layer changes\n\nEach layer is compared with the file store that it is put around. `ReadOnly`\n\
         refuses every write, so the suite does not run over it.\n\n\
         | layer | changed properties | additional cases that apply |\n|---|---|---|\n",
    );
    let before = file.capabilities();
    for (name, layer) in layers {
        let after = layer.capabilities();
        let mut changed = Vec::new();
        if after.consistency != before.consistency {
            changed.push(format!("consistency: {}", consistency_shown(after.consistency)));
        }
        for (property, before, after) in
            [("fenced", before.fenced, after.fenced), ("cached", before.cached, after.cached)]
        {
            if before != after {
                changed.push(format!("{property}: `{after}`"));
            }
        }
        assert_eq!(
            (after.durability, after.deletion, after.listing),
            (before.durability, before.deletion, before.listing)
        );
        let changed = if changed.is_empty() { "none".to_owned() } else { changed.join(", ") };
        let applies = |case: &&Case| {
            case.excluded_by(&before, NO_FAULTS).is_some() && case.excluded_by(&after, NO_FAULTS).is_none()
        };
        let besides: Vec<String> = cases().iter().filter(applies).map(|case| format!("`{}`", case.id())).collect();
        let besides = if besides.is_empty() { "none".to_owned() } else { besides.join(", ") };
        writeln!(text, "| {name} | {changed} | {besides} |").unwrap();
    }
    text
}

#[test]
fn the_page_is_current() {
    let directory = tempfile::tempdir().unwrap();
    let generated = futures_executor::block_on(async {
        let layers = layers(&directory.path().join("layers")).await;
        page(&subjects(directory.path()).await, &layers)
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join("guarantees.md");
    if std::env::var_os("KEYSTEAD_BLESS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == generated, "docs/guarantees.md is not current: its first lines say how to write it again");
}
