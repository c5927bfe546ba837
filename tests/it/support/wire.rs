//! HTTP/1.1 as bytes: no library between a test and what was really sent.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// A connection, plain or TLS.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// Any connection.
pub(crate) type Stream = Box<dyn Duplex>;

/// Request line or status line and fields, through the empty line, exactly as received.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Head(pub(crate) Vec<u8>);

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Chunked,
    Length(usize),
    UntilClose,
}

impl Head {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    pub(crate) fn first_line(&self) -> String {
        self.text().lines().next().unwrap_or_default().to_owned()
    }

    /// The second word of a status line.
    pub(crate) fn status(&self) -> u16 {
        let line = self.first_line();
        line.split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("no status in `{line}`"))
    }

    pub(crate) fn method(&self) -> String {
        self.first_line().split(' ').next().unwrap_or_default().to_owned()
    }

    pub(crate) fn target(&self) -> String {
        self.first_line().split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// Every value of a field, in order.
    pub(crate) fn headers(&self, name: &str) -> Vec<String> {
        self.fields()
            .into_iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    /// The first value of a field.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.headers(name).into_iter().next()
    }

    /// Every field as it was written.
    pub(crate) fn fields(&self) -> Vec<(String, String)> {
        self.text()
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect()
    }

    /// Whether the connection may carry another message after this one.
    pub(crate) fn keeps_alive(&self) -> bool {
        let closes = |value: &String| value.to_ascii_lowercase().contains("close");
        !self.headers("connection").iter().any(closes) && !self.first_line().contains("HTTP/1.0")
    }

    pub(crate) fn request_framing(&self) -> Framing {
        self.declared_framing().unwrap_or(Framing::Length(0))
    }

    /// The framing of the response to a request with `method`.
    pub(crate) fn response_framing(&self, method: &str) -> Framing {
        let status = self.status();
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Framing::Length(0);
        }
        self.declared_framing().unwrap_or(Framing::UntilClose)
    }

    fn declared_framing(&self) -> Option<Framing> {
        if self.headers("transfer-encoding").iter().any(|value| value.contains("chunked")) {
            return Some(Framing::Chunked);
        }
        self.header("content-length").map(|length| Framing::Length(length.parse().unwrap()))
    }
}

/// Reads messages from a connection.
pub(crate) struct Reader<S> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// The next head; `None` if the other side closed before its first byte.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                return Ok(Some(Head(self.take(end + 4))));
            }
            if self.fill().await? == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// A whole body, decoded.
    pub(crate) async fn body(&mut self, framing: Framing) -> io::Result<Vec<u8>> {
        match framing {
            Framing::Chunked => self.chunked().await,
            Framing::Length(length) => self.exactly(length).await,
            Framing::UntilClose => {
                while self.fill().await? > 0 {}
                Ok(std::mem::take(&mut self.buffer))
            }
        }
    }

    /// Whatever comes next, at least one byte; empty when the other side has closed.
    pub(crate) async fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.take(length))
    }

    async fn chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(size).await?);
            self.exactly(2).await?;
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line = self.take(end + 2);
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.buffer).await
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
