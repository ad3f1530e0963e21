//! `conformance`: the suite over a store of the kind that a URL names, where it meets nobody's keys.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use clap::Args;
use futures_util::TryStreamExt;
use keystead::file::{FileStore, FileUrl, RootSecret};
use keystead::memory::MemoryStore;
use keystead::{BoxError, KeyId, KeyStore};
use keystead_conformance::{Harness, Namespace, Options, Report, cases};

use crate::exit::{Code, Failure, Outcome};
use crate::session::Session;
use crate::{output, stores};

#[derive(Args, Debug)]
pub(crate) struct ConformanceArgs {
    /// Runs the cases whose id contains one of these texts; all if there are none
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Multiplies sizes and rounds by this
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    scale: f64,
    /// How many cases run at once; as many as there are processors if it is not given
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<usize>,
    /// Writes a report in JUnit's XML to this file, too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

pub(crate) async fn run(session: &Session, args: ConformanceArgs) -> Outcome {
    let asked = stores::asked(session)?.writable()?;
    let scratch = Scratch::of(session, &asked.url).await?;
    if !(args.scale > 0.0 && args.scale <= 1e3) {
        return Err(Failure::usage("this scale will not do: give a number above 0 and up to 1000, such as 0.5"));
    }
    let selected = |id: &str| args.filter.is_empty() || args.filter.iter().any(|text| id.contains(text));
    let count = cases().iter().filter(|case| selected(case.id())).count();
    if count == 0 {
        return Err(Failure::usage("no case has such an id: give a part of one, as in CASES.md, or nothing for all"));
    }
    output::note(format!("{count} cases over {}, in {}", scratch.name(), scratch.place()));
    let jobs = args.jobs.unwrap_or(Options::default().jobs);
    let report = keystead_conformance::run(scratch, Options { filter: args.filter, scale: args.scale, jobs }).await;
    if let Some(file) = args.junit {
        let shown = file.display();
        std::fs::write(&file, report.to_junit())
            .map_err(|e| Failure::other(format!("writing the file {shown} failed")).because(e))?;
    }
    write(session, &report)?;
    Ok(if report.failed().is_empty() { Code::Done } else { Code::Other })
}

fn write(session: &Session, report: &Report) -> Outcome<()> {
    let text = if session.output.json { report.to_json() } else { report.to_string() };
    // The suite's own way to run a case again is that of a test target.
    let text = text.replace("cargo test --test conformance -- --exact", "keystead conformance");
    session.output.text(text.trim_end())
}

/// Where the suite may write, a place a namespace.
enum Scratch {
    Memory(Mutex<HashMap<Namespace, MemoryStore>>),
    File { directory: PathBuf, root: RootSecret },
    Aws { scheme: String, parameters: String },
}

impl Scratch {
    async fn of(session: &Session, url: &str) -> Outcome<Self> {
        if stores::scheme(url).eq_ignore_ascii_case("file") {
            return Self::beside(session, &FileUrl::parse(url)?);
        }
        // Refuses what will not do; neither of these stores makes a call when it is opened.
        keystead::open(url).await?;
        let scheme = stores::scheme(url).to_ascii_lowercase();
        if scheme == "memory" {
            return Ok(Self::Memory(Mutex::default()));
        }
        let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters).to_owned();
        Ok(Self::Aws { scheme, parameters })
    }

    /// On the same disk as the store.
    fn beside(session: &Session, url: &FileUrl) -> Outcome<Self> {
        let beside = url.path().parent().unwrap_or(url.path());
        let scratch = tempfile::Builder::new().prefix("keystead-conformance-").tempdir_in(beside).map_err(|e| {
            Failure::other("making a directory beside the store failed, where the suite would run").because(e)
        })?;
        let directory = scratch.path().to_owned();
        session.remove_later(scratch);
        Ok(Self::File { directory, root: RootSecret::generate() })
    }

    fn place(&self) -> String {
        match self {
            Self::Memory(_) => "the process's memory".to_owned(),
            Self::File { directory, .. } => directory.display().to_string(),
            Self::Aws { .. } => "/keystead-conformance".to_owned(),
        }
    }

    /// A new client over the data of this namespace.
    async fn client(&self, ns: &Namespace, is_new: bool) -> Result<Arc<dyn KeyStore>, BoxError> {
        Ok(match self {
            Self::Memory(stores) => {
                Arc::new(stores.lock().unwrap_or_else(PoisonError::into_inner).entry(ns.clone()).or_default().clone())
            }
            Self::File { directory, root } => {
                let path = directory.join(ns.as_str()).join("keys.db");
                Arc::new(match is_new {
                    true => FileStore::create(path, root.clone()).await?,
                    false => FileStore::open(path, root.clone()).await?,
                })
            }
            Self::Aws { scheme, parameters } => {
                keystead::open(&format!("{scheme}:///keystead-conformance/{ns}/%s?{parameters}")).await?
            }
        })
    }
}

#[async_trait]
impl Harness for Scratch {
    fn name(&self) -> &str {
        match self {
            Self::Memory(_) => "memory",
            Self::File { .. } => "file",
            Self::Aws { scheme, .. } => scheme,
        }
    }

    async fn open(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        self.client(ns, true).await
    }

    async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        self.client(ns, false).await
    }

    /// What a case leaves in an account would cost money; the rest ends with this program.
    async fn close(&self, ns: &Namespace) -> Result<(), BoxError> {
        if let Self::Aws { .. } = self {
            let store = self.client(ns, false).await?;
            let ids: Vec<KeyId> = store.list_keys().try_collect().await?;
            store.delete_keys(&ids).await;
        }
        Ok(())
    }
}
