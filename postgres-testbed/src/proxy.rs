//! [`Proxy`]: a Unix socket in front of a server, on which calls fail on demand.
//!
//! It reads the frontend/backend protocol
//! (<https://www.postgresql.org/docs/current/protocol-message-formats.html>) as far as it needs to: a
//! statement whose text begins with a comment such as `/* get */` is a call of that name.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex as AsyncMutex, oneshot};

/// The name of a server's socket in its directory.
const SOCKET: &str = ".s.PGSQL.5432";

const SYNC: u8 = b'S';
const PARSE: u8 = b'P';
const BIND: u8 = b'B';
const READY: u8 = b'Z';

/// The pause before each byte of a slow answer.
const SLOW: Duration = Duration::from_millis(2);

/// A way in which a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// The server refuses it with this SQLSTATE, and goes on.
    Refuse(&'static str),
    /// The connection ends before the call reaches the server.
    ResetBefore,
    /// The connection ends after the server has done it.
    ResetAfter,
    /// The server does it, and the answer means nothing.
    Garbage,
    /// The server does it, and the answer ends half-way.
    Truncate,
    /// Nothing ever answers.
    Silence,
    /// The answer comes a byte at a time.
    Slow,
}

/// A socket in front of a server. It ends with this value.
#[derive(Debug)]
pub struct Proxy {
    directory: PathBuf,
    breaks: Breaks,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Debug, Default)]
struct Breaks(Arc<Mutex<Vec<Pending>>>);

#[derive(Debug)]
struct Pending {
    /// `None` for every call.
    call: Option<String>,
    how: Break,
    left: u32,
}

impl Breaks {
    fn lock(&self) -> MutexGuard<'_, Vec<Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, call: &str) -> Option<Break> {
        let mut pending = self.lock();
        let meets = |pending: &&mut Pending| pending.left > 0 && pending.call.as_deref().is_none_or(|of| of == call);
        let found = pending.iter_mut().find(meets)?;
        found.left -= 1;
        Some(found.how)
    }
}

impl Proxy {
    /// Begins to accept connections to the server whose socket is in `server`, on a socket in
    /// `directory`. Must be called within a runtime.
    ///
    /// # Errors
    /// What the system reports about the directory or the socket.
    pub fn start(server: &Path, directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let listener = UnixListener::bind(directory.join(SOCKET))?;
        let server = server.join(SOCKET);
        let breaks = Breaks::default();
        let of_accepting = breaks.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = server.clone();
                let breaks = of_accepting.clone();
                tokio::spawn(async move {
                    // A connection that fails is what a test may be about.
                    let _ = serve(client, &server, breaks).await;
                });
            }
        });
        Ok(Self { directory: directory.to_owned(), breaks, accepting })
    }

    /// Returns the directory of the socket.
    pub fn socket(&self) -> &Path {
        &self.directory
    }

    /// Makes the next calls of this name, or of any, fail.
    pub fn inject(&self, call: Option<String>, how: Break, count: u32) {
        self.breaks.lock().push(Pending { call, how, left: count });
    }

    /// Ends all failures that were not met yet.
    pub fn clear(&self) {
        self.breaks.lock().clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

/// The answer of one call, held back: where it goes when it is complete.
type Held = Arc<Mutex<Option<oneshot::Sender<Vec<u8>>>>>;

type Client = Arc<AsyncMutex<OwnedWriteHalf>>;

async fn serve(client: UnixStream, server: &Path, breaks: Breaks) -> io::Result<()> {
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = UnixStream::connect(server).await?.into_split();
    let to_client: Client = Arc::new(AsyncMutex::new(to_client));
    let held = Held::default();
    let answers = tokio::spawn(pass_answers(from_server, to_client.clone(), held.clone()));
    let done = pass_calls(&mut from_client, &mut to_server, &to_client, &held, &breaks).await;
    // Both directions end together.
    answers.abort();
    done
}

/// Passes the server's messages on, except those of an answer that is held back.
async fn pass_answers(mut from_server: OwnedReadHalf, to_client: Client, held: Held) -> io::Result<()> {
    let mut answer = Vec::new();
    loop {
        let message = read_message(&mut from_server).await?;
        let is_held = held.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if !is_held {
            to_client.lock().await.write_all(&message).await?;
            continue;
        }
        let is_last = message.first() == Some(&READY);
        answer.extend(message);
        if is_last {
            let sender = held.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(sender) = sender {
                drop(sender.send(std::mem::take(&mut answer)));
            }
        }
    }
}

async fn pass_calls(
    from_client: &mut OwnedReadHalf,
    to_server: &mut OwnedWriteHalf,
    to_client: &Client,
    held: &Held,
    breaks: &Breaks,
) -> io::Result<()> {
    // The start has no type: its length, and what it says.
    let mut len = [0; 4];
    from_client.read_exact(&mut len).await?;
    let mut start = len.to_vec();
    start.resize(length(len)?, 0);
    from_client.read_exact(&mut start[4..]).await?;
    to_server.write_all(&start).await?;

    let mut calls: HashMap<Vec<u8>, String> = HashMap::new();
    loop {
        let message = read_message(from_client).await?;
        let body = message.get(5..).unwrap_or_default();
        let mut texts = body.split(|byte| *byte == 0);
        match message.first() {
            Some(&PARSE) => {
                let name = texts.next().unwrap_or_default().to_vec();
                if let Some(call) = call_of(texts.next().unwrap_or_default()) {
                    calls.insert(name, call);
                }
            }
            Some(&BIND) => {
                let call = texts.nth(1).and_then(|name| calls.get(name));
                if let Some(how) = call.and_then(|call| breaks.next(call)) {
                    fail(message, how, from_client, to_server, to_client, held).await?;
                    continue;
                }
            }
            _ => {}
        }
        to_server.write_all(&message).await?;
    }
}

/// Meets a call, of which `bind` is the first message, with a failure. An error ends the connection.
async fn fail(
    bind: Vec<u8>,
    how: Break,
    from_client: &mut OwnedReadHalf,
    to_server: &mut OwnedWriteHalf,
    to_client: &Client,
    held: &Held,
) -> io::Result<()> {
    let mut call = bind;
    loop {
        let message = read_message(from_client).await?;
        let is_last = message.first() == Some(&SYNC);
        call.extend(message);
        if is_last {
            break;
        }
    }
    let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
    match how {
        Break::Refuse(code) => return to_client.lock().await.write_all(&refusal(code)).await,
        Break::ResetBefore => return Err(reset()),
        Break::Silence => std::future::pending::<()>().await,
        Break::ResetAfter | Break::Garbage | Break::Truncate | Break::Slow => {}
    }
    let (sender, answer) = oneshot::channel();
    *held.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    to_server.write_all(&call).await?;
    let answer = answer.await.map_err(|_| reset())?;
    let mut client = to_client.lock().await;
    match how {
        Break::Garbage => client.write_all(&[0xff; 64]).await?,
        Break::Truncate => client.write_all(answer.get(..answer.len() / 2).unwrap_or_default()).await?,
        Break::Slow => {
            for byte in answer {
                tokio::time::sleep(SLOW).await;
                client.write_all(&[byte]).await?;
            }
            return Ok(());
        }
        _ => {}
    }
    Err(reset())
}

/// An ErrorResponse, and a ReadyForQuery outside of a transaction.
fn refusal(code: &str) -> Vec<u8> {
    let fields = format!("SERROR\0VERROR\0C{code}\0Mrefused by the test\0\0");
    let len = u32::try_from(fields.len() + 4).unwrap_or_default();
    let mut message = vec![b'E'];
    message.extend(len.to_be_bytes());
    message.extend(fields.as_bytes());
    message.extend([READY, 0, 0, 0, 5, b'I']);
    message
}

/// Reads a message: its type, its length and its body.
async fn read_message(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut head = [0; 5];
    from.read_exact(&mut head).await?;
    let [_, len @ ..] = head;
    let mut message = head.to_vec();
    message.resize(1 + length(len)?, 0);
    from.read_exact(&mut message[5..]).await?;
    Ok(message)
}

fn length(bytes: [u8; 4]) -> io::Result<usize> {
    let len = usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX);
    if (4..=1 << 24).contains(&len) { Ok(len) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// The name in the comment at the beginning of a statement.
fn call_of(statement: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(statement).ok()?.strip_prefix("/* ")?;
    Some(text.split_once(" */")?.0.to_owned())
}
