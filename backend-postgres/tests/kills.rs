//! Writers and rotators that are killed at random moments lose nothing.
//!
//! The program runs itself again as a worker, kills it, and compares the store with what the workers
//! said was done. `KEYSTEAD_KILLS` sets the number of kills.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use keystead_core::{BoxError, Effect, ErrorKind, KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_postgres::{PostgresConfig, PostgresStore, RootSecret};
use keystead_postgres_testbed::Cluster;
use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

const KILLS: u64 = 40;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, worker, job, url, number] = arguments.as_slice()
        && worker == "worker"
    {
        let number = number.parse().expect("the number of the worker");
        return match runtime().block_on(work(job, url, number)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                drop(writeln!(std::io::stderr(), "a worker failed: {e:?}"));
                ExitCode::FAILURE
            }
        };
    }
    let kills = Trial::test("killed_writers_and_rotators_lose_nothing", || {
        runtime().block_on(kill_workers()).map_err(Into::into)
    });
    libtest_mimic::run(&Arguments::from_args(), vec![kills]).exit_code()
}

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime can be made")
}

async fn open(url: &str) -> keystead_core::Result<PostgresStore> {
    let config = PostgresConfig::new(url).expect("the URL of the test's server");
    let builder = PostgresStore::builder(config).root_secret(RootSecret::from_bytes([7; 32]));
    builder.lease(Duration::from_millis(50)).create_if_missing(true).connect().await
}

fn id(worker: u64, index: u64) -> KeyId {
    KeyId::new(format!("worker {worker}, user {index}")).expect("a valid id")
}

fn key(worker: u64, version: u64) -> SecretKey {
    SecretKey::new([worker.to_be_bytes(), version.to_be_bytes()].concat()).expect("a valid key")
}

/// In the worker: rotates, or writes the keys of its own users and says what it has done.
async fn work(job: &str, url: &str, worker: u64) -> Result<(), BoxError> {
    let store = open(url).await?;
    if job == "rotate" {
        loop {
            match store.rotate(None, |_| {}).await {
                Ok(()) => say("rotated")?,
                Err(e) if e.kind() == ErrorKind::Conflict => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    for version in 0.. {
        let index = version % 20;
        let text = match version % 7 {
            6 => match store.delete_key(&id(worker, index)).await {
                Ok(_) => format!("deleted {index}"),
                Err(e) if e.kind() == ErrorKind::NotFound => format!("deleted {index}"),
                Err(e) => return Err(e.into()),
            },
            _ => {
                say(&format!("putting {index} {version}"))?;
                match store.put_key(&id(worker, index), &key(worker, version)).await {
                    Ok(()) => format!("put {index} {version}"),
                    Err(e) if e.effect() == Effect::Unknown => continue,
                    Err(e) => return Err(e.into()),
                }
            }
        };
        say(&text)?;
    }
    Ok(())
}

/// A whole line at once: half a line of a killed worker counts for nothing.
fn say(text: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout();
    output.write_all(format!("{text}\n").as_bytes())?;
    output.flush()
}

fn start(job: &str, url: &str, worker: u64) -> Result<Child, BoxError> {
    let program = std::env::current_exe()?;
    let number = worker.to_string();
    Ok(Command::new(program).args(["worker", job, url, &number]).stdout(Stdio::piped()).spawn()?)
}

/// The versions that a user's key may have, or none.
type Possible = HashMap<u64, Vec<Option<u64>>>;

async fn kill_workers() -> Result<(), BoxError> {
    let kills = std::env::var("KEYSTEAD_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let cluster = Cluster::start()?;
    let url = cluster.url("postgres");
    let store = open(&url).await?;
    let mut rotations = 0;
    let mut writes: u64 = 0;
    for round in 0..kills {
        let mut writer = start("write", &url, round)?;
        let mut rotator = start("rotate", &url, round)?;
        // A spread of moments: 40 to 640 ms.
        let pause = 40 + round.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 600;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        for child in [&mut rotator, &mut writer] {
            child.kill()?;
            child.wait()?;
        }
        rotations += lines(&mut rotator)?.len();
        let said = lines(&mut writer)?;
        writes += said.len() as u64;
        let possible = possible(&said);
        let report = store.verify(|_| {}).await?;
        assert!(report.is_intact(), "round {round}: {} records open no more", report.damaged.len());
        for (index, versions) in possible {
            let found = match store.get_key(&id(round, index)).await {
                Ok(found) => versions.iter().any(|version| version.is_some_and(|version| key(round, version) == found)),
                Err(e) if e.kind() == ErrorKind::NotFound => versions.contains(&None),
                Err(e) => return Err(e.into()),
            };
            assert!(found, "round {round}, user {index}: not one of the versions {versions:?}");
        }
    }
    store.rotate(None, |_| {}).await?;
    assert!(!store.verify(|_| {}).await?.in_rotation);
    assert!(writes > kills, "the writers must have written, not only {writes} times");
    assert!(rotations > 0, "a rotation must have ended");
    Ok(())
}

fn lines(child: &mut Child) -> Result<Vec<String>, BoxError> {
    let output = child.stdout.take().ok_or("a worker without output")?;
    let text: Vec<String> = BufReader::new(output).lines().map_while(Result::ok).collect();
    Ok(text)
}

/// The keys that each user may have after these lines, of which the last write may be cut off.
fn possible(said: &[String]) -> Possible {
    let mut possible = Possible::new();
    let mut is_deleting = None;
    for line in said {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["putting", index, version] => {
                let (Ok(index), Ok(version)) = (index.parse(), version.parse()) else { continue };
                possible.entry(index).or_insert_with(|| vec![None]).push(Some(version));
                is_deleting = Some(version + 1);
            }
            ["put", index, version] => {
                let (Ok(index), Ok(version)) = (index.parse(), version.parse::<u64>()) else { continue };
                possible.insert(index, vec![Some(version)]);
                is_deleting = Some(version + 1);
            }
            ["deleted", index] => {
                let Ok(index) = index.parse() else { continue };
                possible.insert(index, vec![None]);
                is_deleting = None;
            }
            _ => {}
        }
    }
    // A delete that was under way when the worker was killed has said nothing before.
    if let Some(version) = is_deleting.filter(|version| version % 7 == 6) {
        possible.entry(version % 20).or_default().push(None);
    }
    possible
}
