//! `man`: writes the manual pages, which are generated from the help texts.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use serde_json::json;

use crate::exit::{Code, CommandError, Outcome};
use crate::session::Session;
use crate::{args, examples};

/// The first line of each page. Only files that begin with it are replaced.
const MARK: &[u8] = b".\\\" Written by keystead man, which replaces this file when it is run again.\n";

/// The program and its version, for the foot of each page.
const SOURCE: &str = concat!("keystead ", env!("CARGO_PKG_VERSION"));

/// A page and the file to write it to.
struct Page {
    file: PathBuf,
    contents: Vec<u8>,
}

pub(crate) fn run(session: &Session, directory: &Path) -> Outcome {
    let shown = directory.display();
    if !directory.is_dir() {
        return Err(CommandError::usage(format!("there is no directory {shown}: create it first, with mkdir -p")));
    }
    let pages = pages(directory).map_err(|e| CommandError::other("cannot create the pages").because(e))?;
    for page in &pages {
        check(&page.file)?;
    }
    for Page { file, contents } in &pages {
        fs::write(file, contents)
            .map_err(|e| CommandError::other(format!("cannot write the page {}", file.display())).because(e))?;
    }
    let files: Vec<String> = pages.iter().map(|page| page.file.display().to_string()).collect();
    let text = format!("wrote {} pages to {shown}: read the first one with man {shown}/keystead.1", files.len());
    session.output.result(text, json!({ "files": files }))?;
    Ok(Code::Done)
}

/// Refuses to replace a file that `keystead man` did not write.
fn check(file: &Path) -> Outcome<()> {
    let shown = file.display();
    match is_page(file) {
        Ok(true) => Ok(()),
        Ok(false) => Err(CommandError::refused(format!(
            "no page was written: {shown} exists and was not written by keystead man; move it away, or give another \
             directory"
        ))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(CommandError::usage(format!("cannot read {shown}, where a page would be written")).because(e)),
    }
}

fn is_page(file: &Path) -> io::Result<bool> {
    if !fs::symlink_metadata(file)?.is_file() {
        return Ok(false);
    }
    let mut beginning = Vec::with_capacity(MARK.len());
    File::open(file)?.take(MARK.len() as u64).read_to_end(&mut beginning)?;
    Ok(beginning == MARK)
}

fn pages(directory: &Path) -> io::Result<Vec<Page>> {
    let mut program = args::command().disable_help_subcommand(true);
    program.build();
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
    let page = |command: &Command| {
        let name = command.get_name().to_owned();
        // The examples have a section of their own.
        let man = Man::new(command.clone().after_help(None)).source(SOURCE).manual("keystead");
        let file = directory.join(man.get_filename());
        Ok(Page { file, contents: contents(&man, command, &name)? })
    };
    std::iter::once(&program).chain(commands).map(page).collect()
}

fn contents(man: &Man, command: &Command, name: &str) -> io::Result<Vec<u8>> {
    let mut contents = MARK.to_vec();
    man.render_title(&mut contents)?;
    man.render_name_section(&mut contents)?;
    man.render_synopsis_section(&mut contents)?;
    man.render_description_section(&mut contents)?;
    man.render_options_section(&mut contents)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut contents)?;
    }
    write_examples(&mut contents, name)?;
    Ok(contents)
}

fn write_examples(page: &mut impl Write, name: &str) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", ["EXAMPLES"]);
    for (what, lines) in examples::of(name) {
        if !what.is_empty() {
            roff.control("PP", []);
            roff.text([roman(*what)]);
        }
        roff.control("RS", []);
        roff.control("nf", []);
        for line in *lines {
            roff.text([roman(*line)]);
        }
        roff.control("fi", []);
        roff.control("RE", []);
    }
    roff.to_writer(page)
}
