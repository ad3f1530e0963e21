//! A server on this machine that answers as Secrets Manager would: for its caching client, which
//! can talk to nothing else.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::{BehaviorVersion, Credentials, Region};
use keystead_core::BoxError;

const ANSWER: &str = r#"{"ARN":"arn:aws:secretsmanager:eu-west-1:123456789012:secret:user-AbCdEf","CreatedDate":1700000000,"Name":"user","SecretString":"0123456789abcdef0123456789abcdef","VersionId":"01234567890123456789012345678901","VersionStages":["AWSCURRENT"]}"#;

/// Runs until the program ends.
pub(crate) struct Server {
    url: String,
}

pub(crate) fn start() -> Result<Server, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection ends when the client has gone.
            thread::spawn(move || drop(serve(&stream)));
        }
    });
    Ok(Server { url })
}

impl Server {
    pub(crate) fn client(&self) -> Client {
        let config = aws_sdk_secretsmanager::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .credentials_provider(Credentials::new("benchmark", "benchmark", None, None, "benchmark"))
            .endpoint_url(&self.url);
        Client::from_conf(config.build())
    }
}

/// One request after the other, each answered alike.
fn serve(stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut body = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end().to_ascii_lowercase().split_once(": ") {
                Some(("content-length", length)) => body = length.parse().unwrap_or(0),
                Some(_) => {}
                None if line.trim_end().is_empty() => break,
                None => {}
            }
        }
        std::io::copy(&mut reader.by_ref().take(body), &mut std::io::sink())?;
        let length = ANSWER.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {length}\r\n\r\n");
        writer.write_all(format!("{head}{ANSWER}").as_bytes())?;
    }
}
