//! What a filter can say of a request.

use super::edits::{self, Protected};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::time::Duration;

/// What becomes of an admitted request.
#[derive(Debug)]
pub enum Flow {
    /// It goes on.
    Continue,
    /// It is answered with this. No further filter sees the request; all see the response.
    Answer(Answer),
}

/// Why a filter refuses a request. The client gets a problem document with the code `filtered`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    word: &'static str,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal with this status, and with a word for the access log, which the client does not see:
    /// its `cause` is `filter/<name>/<word>`. A status that refuses nothing (below 400) becomes 500.
    #[must_use]
    pub const fn new(status: StatusCode, word: &'static str) -> Self {
        Self { status, word, retry_after: None }
    }

    /// Tells the client when to come back. Without it, only a 503 does.
    #[must_use]
    pub const fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The status as it was given.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The word for the access log.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        self.word
    }

    /// The nearest `grpc-status`.
    pub(crate) fn grpc(&self) -> u8 {
        match self.status.as_u16() {
            401 => 16,
            403 => 7,
            404 => 5,
            429 => 8,
            400..=499 => 3,
            502 | 503 => 14,
            504 => 4,
            _ => 13,
        }
    }

    pub(crate) const fn wait(&self) -> Option<Duration> {
        self.retry_after
    }
}

/// A filter that tries to change what is not its own is defective, and its request ends with 500.
impl From<Protected> for Refusal {
    fn from(_: Protected) -> Self {
        // Any status that refuses nothing is answered as a failure.
        Self::new(StatusCode::OK, "protected_header")
    }
}

/// A whole answer of a filter's own.
#[derive(Debug)]
pub struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// An answer without fields and body. A status that ends no request (1xx) becomes 500.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// Adds a header field.
    ///
    /// # Errors
    /// The field is the gateway's own to set.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Result<Self, Protected> {
        edits::check_response(&name)?;
        self.headers.append(name, value);
        Ok(self)
    }

    /// Sets the body. The gateway says its length; `content-type` is for the filter to say.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}
