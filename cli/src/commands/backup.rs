//! `backup`: copies a file store.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::exit::{Code, CommandError, Outcome};
use crate::session::Session;
use crate::{output, stores, verbose};

pub(crate) async fn run(session: &Session, target: PathBuf) -> Outcome {
    let store = stores::open_file(session, &stores::asked(session)?).await?;
    if fs::symlink_metadata(&target).is_ok() {
        let shown = target.display();
        return Err(CommandError::refused(format!("{shown} already exists and was left unchanged: give another path")));
    }
    session.remove_if_interrupted(&target);
    verbose::step(format!("copying the store to {}", target.display()));
    store.backup(&target).await?;
    let file = target.display().to_string();
    session.output.result(format!("copied to {file}"), json!({ "file": file }))?;
    output::note(
        "the copy opens with the same root secret; it keeps every key that it contains until that root secret is \
         destroyed",
    );
    Ok(Code::Done)
}
