//! One row of a table: bytes, and what they must lead to.

/// What an attacker sends and what comes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// Exactly what is sent; [`FOLLOWER`] is sent behind it, in the same write.
    pub(crate) raw: &'static [u8],
    /// The status of the answer; 0 where the connection is closed without one.
    pub(crate) status: u16,
    /// The code in the answer's problem document; empty where the upstream answers.
    pub(crate) code: &'static str,
    /// Whether the follower is answered, and as itself.
    pub(crate) stays: bool,
    /// The client says that it sends no more.
    pub(crate) ends: bool,
    /// The follower is sent once the answer is there.
    pub(crate) waits: bool,
    /// What the upstream saw of it.
    pub(crate) seen: Option<Seen>,
}

/// A message at the upstream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) line: &'static str,
    /// Its fields without those that the gateway says, in lower case and sorted; `host: a` is left
    /// out.
    pub(crate) fields: &'static [&'static str],
    pub(crate) body: &'static [u8],
    /// It never became complete.
    pub(crate) cut: bool,
}

/// The next request on the same connection.
pub(crate) const FOLLOWER: &[u8] = b"GET /canary HTTP/1.1\r\nHost: canary\r\n\r\n";

/// Refused with the connection's end; nothing is passed on.
pub(crate) const fn refused(raw: &'static [u8], status: u16, code: &'static str) -> Case {
    Case { raw, status, code, stays: false, ends: false, waits: false, seen: None }
}

/// Refused, and the connection carries on.
pub(crate) const fn kept(raw: &'static [u8], status: u16, code: &'static str) -> Case {
    Case { stays: true, ..refused(raw, status, code) }
}

/// Passed on as this; the connection carries on.
pub(crate) const fn passed(
    raw: &'static [u8],
    line: &'static str,
    fields: &'static [&'static str],
    body: &'static [u8],
) -> Case {
    let seen = Some(Seen { line, fields, body, cut: false });
    Case { raw, status: 200, code: "", stays: true, ends: false, waits: false, seen }
}

/// Passed on as far as it was good, and then cut off: no upstream takes it for a message.
pub(crate) const fn cut(
    raw: &'static [u8],
    status: u16,
    code: &'static str,
    line: &'static str,
    fields: &'static [&'static str],
    body: &'static [u8],
) -> Case {
    let seen = Some(Seen { line, fields, body, cut: true });
    Case { seen, ..refused(raw, status, code) }
}

impl Case {
    /// The connection ends after the answer.
    pub(crate) const fn closes(self) -> Self {
        Self { stays: false, ..self }
    }

    /// The follower is sent once the answer is there, and is answered.
    pub(crate) const fn waits(self) -> Self {
        Self { stays: true, waits: true, ..self }
    }

    /// No follower: the client ends its side of the connection.
    pub(crate) const fn ends(self) -> Self {
        Self { stays: false, ends: true, ..self }
    }

    /// The bytes for a failure's text.
    pub(crate) fn text(&self) -> String {
        let text = self.raw.escape_ascii().to_string();
        if text.len() > 400 {
            format!("{} … ({} bytes)", &text[..400], self.raw.len())
        } else {
            text
        }
    }
}

/// A GET for `/a` with these lines, each with its CRLF.
macro_rules! get {
    ($($line:expr),* $(,)?) => {
        concat!("GET /a HTTP/1.1\r\nHost: a\r\n", $($line, "\r\n",)* "\r\n").as_bytes()
    };
}
pub(crate) use get;

/// A POST to `/a` with one line more and what follows the head.
macro_rules! post {
    ($line:expr, $body:expr) => {
        concat!("POST /a HTTP/1.1\r\nHost: a\r\n", $line, "\r\n\r\n", $body).as_bytes()
    };
}
pub(crate) use post;

/// A GET for a target.
macro_rules! target {
    ($target:expr) => {
        concat!("GET ", $target, " HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()
    };
}
pub(crate) use target;

/// A GET for `/a` with this `Host`.
macro_rules! host {
    ($host:expr) => {
        concat!("GET /a HTTP/1.1\r\nHost:", $host, "\r\n\r\n").as_bytes()
    };
}
pub(crate) use host;
