//! A server on this machine that gives AWS's answers, always the same ones, so that only the client
//! is measured.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use keystead_core::BoxError;

/// The answer to each call, by its target. The key is always the same 32 bytes.
const ANSWERS: &[(&str, &str)] = &[
    (
        "secretsmanager.getsecretvalue",
        r#"{"ARN":"arn:aws:secretsmanager:us-east-1:123456789012:secret:user-AbCdEf","CreatedDate":1700000000,"Name":"user","SecretBinary":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=","VersionId":"01234567890123456789012345678901","VersionStages":["AWSCURRENT"]}"#,
    ),
    (
        "secretsmanager.putsecretvalue",
        r#"{"ARN":"arn:aws:secretsmanager:us-east-1:123456789012:secret:user-AbCdEf","Name":"user","VersionId":"01234567890123456789012345678901","VersionStages":["AWSCURRENT"]}"#,
    ),
    (
        "amazonssm.getparameter",
        r#"{"Parameter":{"ARN":"arn:aws:ssm:us-east-1:123456789012:parameter/user","DataType":"text","LastModifiedDate":1700000000,"Name":"/user","Type":"SecureString","Value":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=","Version":1}}"#,
    ),
    ("amazonssm.putparameter", r#"{"Tier":"Standard","Version":2}"#),
];

/// Starts the server, which runs until the program ends, and returns its URL.
pub(crate) fn start() -> Result<String, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that the client has closed may be an error, which does not matter.
            thread::spawn(move || drop(serve(&stream)));
        }
    });
    Ok(url)
}

/// Answers one request after the other.
fn serve(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some(target) = read_request(&mut reader)? {
        let answer = ANSWERS.iter().find(|(name, _)| *name == target).map(|(_, answer)| *answer);
        let (status, body) = answer.map_or((400, r#"{"__type":"UnknownOperationException"}"#), |body| (200, body));
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status} -\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {length}\r\n");
        writer.write_all(format!("{head}\r\n{body}").as_bytes())?;
    }
    Ok(())
}

/// Reads a whole request and returns its target in lower case, or `None` if the client has closed
/// the connection.
fn read_request(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<String>> {
    let mut target = String::new();
    let mut body = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end().to_ascii_lowercase();
        match line.split_once(": ") {
            Some(("content-length", length)) => body = length.parse().unwrap_or(0),
            Some(("x-amz-target", asked)) => target = asked.to_owned(),
            _ if line.is_empty() => break,
            _ => {}
        }
    }
    io::copy(&mut reader.by_ref().take(body), &mut io::sink())?;
    Ok(Some(target))
}
