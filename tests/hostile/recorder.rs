//! An upstream that writes down every message as it was sent to it, and reads by the letter of
//! RFC 9112: what it cannot read so is noted as unclean.

use crate::support::Stopwatch;
use crate::support::wire::{Framing, Head, Reader};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

/// How long a message may take that is under way; only a failing row waits it out.
const PATIENCE: Duration = Duration::from_secs(3);

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Still being sent.
    Open,
    /// It was complete.
    Whole,
    /// The gateway closed in the middle.
    Cut,
    /// It cannot be read.
    Unclean,
}

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) end: End,
}

/// What came in so far.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    messages: Arc<Mutex<Vec<Message>>>,
}

impl Recorder {
    /// Listens at a port of its own; ends with the test's runtime.
    pub(crate) async fn start() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let recorder = Self::default();
        let shared = recorder.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move { shared.serve(stream).await });
            }
        });
        (recorder, address)
    }

    pub(crate) fn count(&self) -> usize {
        self.messages.lock().unwrap().len()
    }

    /// The messages from `from` on, as soon as they are `count` and none of them is open; or what
    /// there is of them after a while.
    pub(crate) async fn since(&self, from: usize, count: usize) -> Vec<Message> {
        let began = Stopwatch::start();
        loop {
            let new = self.messages.lock().unwrap().get(from..).unwrap_or_default().to_vec();
            let settled = new.len() >= count && new.iter().all(|one| one.end != End::Open);
            if settled || began.elapsed() > PATIENCE {
                return new;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut reader = Reader::new(stream);
        loop {
            // What is closed before a message begins is a connection that was not needed.
            let Ok(Some(head)) = reader.head().await else { return };
            let index = {
                let mut all = self.messages.lock().unwrap();
                all.push(Message { head: head.clone(), body: Vec::new(), end: End::Open });
                all.len() - 1
            };
            let mut body = Vec::new();
            let read = read_body(&mut reader, &head, &mut body).await;
            let switches = read.is_ok() && head.header("upgrade").is_some();
            {
                let mut all = self.messages.lock().unwrap();
                let one = &mut all[index];
                one.body = body;
                one.end = match &read {
                    Ok(()) if switches => End::Open,
                    Ok(()) => End::Whole,
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => End::Unclean,
                    Err(_) => End::Cut,
                };
            }
            if read.is_err() {
                return;
            }
            let target = head.target();
            if switches && target.starts_with("/socket") {
                let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                              Upgrade: websocket\r\n\r\nafter";
                drop(reader.stream.write_all(answer.as_bytes()).await);
                let mut rest: Vec<u8> = Vec::new();
                while let Ok(more @ [_, ..]) = reader.some().await.as_deref() {
                    rest.extend(more);
                }
                let mut all = self.messages.lock().unwrap();
                all[index].body.extend(rest);
                all[index].end = End::Whole;
                return;
            }
            if switches {
                self.messages.lock().unwrap()[index].end = End::Whole;
            }
            let text = target.trim_start_matches('/');
            let text = if head.method() == "HEAD" { "" } else { text };
            let length = target.trim_start_matches('/').len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}");
            if reader.stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// Reads a body as RFC 9112 has it; of two framings, or one that is written oddly, nothing is read.
async fn read_body(
    reader: &mut Reader<TcpStream>,
    head: &Head,
    body: &mut Vec<u8>,
) -> io::Result<()> {
    let lengths = head.headers("content-length");
    let encodings = head.headers("transfer-encoding");
    match (&lengths[..], &encodings[..]) {
        ([], []) => Ok(()),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            exactly(reader, length.parse().map_err(unclean)?, body).await
        }
        ([], [encoding]) if encoding == "chunked" => chunks(reader, body).await,
        _ => Err(unclean("the framing")),
    }
}

async fn chunks(reader: &mut Reader<TcpStream>, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = line(reader).await?;
        let digits = !line.is_empty() && line.iter().all(u8::is_ascii_hexdigit);
        if !digits || line.len() > 8 {
            return Err(unclean("a chunk's size"));
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        let size = usize::from_str_radix(&text, 16).map_err(unclean)?;
        exactly(reader, size, body).await?;
        // No trailer is passed on.
        let mut end = Vec::new();
        exactly(reader, 2, &mut end).await?;
        if end != b"\r\n" {
            return Err(unclean("the end of a chunk"));
        }
        if size == 0 {
            return Ok(());
        }
    }
}

async fn line(reader: &mut Reader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        exactly(reader, 1, &mut line).await?;
    }
    line.truncate(line.len() - 2);
    Ok(line)
}

async fn exactly(
    reader: &mut Reader<TcpStream>,
    count: usize,
    into: &mut Vec<u8>,
) -> io::Result<()> {
    // Byte by byte, so that a body that is cut shows as far as it came.
    for _ in 0..count {
        into.extend(reader.body(Framing::Length(1)).await?);
    }
    Ok(())
}

fn unclean(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}
