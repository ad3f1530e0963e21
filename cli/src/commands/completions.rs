//! `completions`: writes the completion script of a shell.

use clap_complete::Shell;
use serde_json::json;

use crate::args;
use crate::exit::{Code, CommandError, Outcome};
use crate::session::Session;

pub(crate) fn run(session: &Session, shell: Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "keystead", &mut script);
    let script =
        String::from_utf8(script).map_err(|e| CommandError::other("cannot write the completions").because(e))?;
    let value = json!({ "shell": shell.to_string(), "script": script });
    session.output.result(script.trim_end(), value)?;
    Ok(Code::Done)
}
