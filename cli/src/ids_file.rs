//! [`read`]: the ids of many users from a file with one id per line.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use keystead::KeyId;

use crate::exit::{CommandError, Outcome};
use crate::input;

/// The length in bytes of the longest line: the longest id and the longest line break.
const MAX_LINE_LEN: usize = KeyId::MAX_LEN + 2;

/// A user with the line of the id. Messages name the line instead of the id.
#[derive(Clone, Debug)]
pub(crate) struct User {
    /// The number of the line, from 1.
    pub(crate) line: u64,
    pub(crate) id: KeyId,
}

/// The users of a file.
#[derive(Debug, Default)]
pub(crate) struct Users {
    /// Each user once, in the order of their first lines.
    pub(crate) distinct: Vec<User>,
    /// The number of lines that repeat the id of an earlier line.
    pub(crate) repeated: u64,
    /// The number of the first line whose id begins or ends with a blank.
    pub(crate) blank_at_end: Option<u64>,
}

/// Reads and checks all ids of the file, or of standard input if the path is `-`.
pub(crate) async fn read(file: &Path) -> Outcome<Users> {
    let path = file.to_owned();
    let users = input::waiting(move || -> Outcome<Users> {
        if path.as_os_str() == "-" { parse(io::stdin().lock()) } else { parse(BufReader::new(open(&path)?)) }
    });
    let users = users.await??;
    if users.distinct.is_empty() {
        return Err(CommandError::usage("the file of --ids-file contains no id: give a file with one id per line"));
    }
    Ok(users)
}

fn open(path: &Path) -> Outcome<File> {
    File::open(path).map_err(unreadable)
}

fn unreadable(e: io::Error) -> CommandError {
    CommandError::usage("cannot read the file of --ids-file").because(e)
}

/// Parses one id per line. Empty lines are skipped. Blanks at the beginning or the end of a line
/// are part of its id.
fn parse(mut lines: impl BufRead) -> Outcome<Users> {
    let mut users = Users::default();
    let mut seen = HashSet::new();
    let mut bytes = Vec::with_capacity(MAX_LINE_LEN + 1);
    for line in 1.. {
        bytes.clear();
        let read = (&mut lines).take(MAX_LINE_LEN as u64 + 1).read_until(b'\n', &mut bytes).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        let wrong = |why: &str| {
            CommandError::usage(format!("nothing was done: line {line} of the ids is not valid")).because(why)
        };
        let text =
            std::str::from_utf8(&bytes).map_err(|_| wrong("it is not UTF-8, or it is longer than an id can be"))?;
        let text = input::without_line_break(text);
        if text.is_empty() {
            continue;
        }
        if line == 1 && text.starts_with('\u{feff}') {
            return Err(wrong("it begins with a byte order mark: write the file without one"));
        }
        if text.trim().is_empty() {
            return Err(wrong("it contains only blanks: remove it, or use --id-file to erase a user with such an id"));
        }
        let id = KeyId::new(text).map_err(|e| wrong(&e.to_string()))?;
        if text.trim() != text {
            users.blank_at_end.get_or_insert(line);
        }
        if seen.insert(id.clone()) {
            users.distinct.push(User { line, id });
        } else {
            users.repeated += 1;
        }
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(u64, String)> {
        let users = parse(text.as_bytes()).unwrap().distinct;
        users.into_iter().map(|User { line, id }| (line, id.as_str().to_owned())).collect()
    }

    #[test]
    fn each_id_is_taken_once_with_its_line() {
        let expected = [(1, "alice"), (4, " bob"), (6, "carol")].map(|(line, id)| (line, id.to_owned()));
        assert_eq!(lines("alice\n\nalice\n bob\r\nalice\ncarol"), expected);
        let users = parse(&b"alice\n\nalice\n bob\n"[..]).unwrap();
        assert_eq!((users.repeated, users.blank_at_end), (1, Some(4)));
        let longest = "x".repeat(KeyId::MAX_LEN);
        assert_eq!(lines(&format!("{longest}\r\n{longest}")).len(), 1);
    }

    #[test]
    fn a_line_that_is_no_id_is_named_by_its_number() {
        let longer = "x".repeat(KeyId::MAX_LEN + 1);
        let endless = "x".repeat(10_000);
        for text in ["canary\n \n", "canary\nca\u{7}nary\n", &format!("ok\n{longer}\n"), &format!("ok\n{endless}")] {
            let refusal = parse(text.as_bytes()).unwrap_err().lines().join(" ");
            assert!(refusal.contains("line 2 of the ids") && !refusal.contains("canary"), "{refusal}");
        }
        assert!(parse(&b"\xef\xbb\xbfalice\n"[..]).unwrap_err().lines().join(" ").contains("byte order mark"));
        assert!(parse(&b"\xff\n"[..]).unwrap_err().lines().join(" ").contains("line 1 of the ids"));
    }
}
