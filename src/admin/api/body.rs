//! Reading the body of a request: bounded, in time, JSON only, and every mistake at once.
//!
//! A member that is not known is a mistake like any other. It is most likely a typing error, and
//! whoever made it wants something that would silently not happen.

use super::json;
use super::problem::{Code, Fault, Problem};
use crate::auth::{parse_network, registry};
use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, Request};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use ipnet::IpNet;
use serde_json::{Map, Value};
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

/// The largest body.
pub(in crate::admin) const MAX_BODY: usize = 64 * 1024;
/// From the end of the head to the end of the body.
const DEADLINE: Duration = Duration::from_secs(5);

/// The members of a JSON object; each is taken once, and what is left over is a mistake.
#[derive(Debug)]
pub(super) struct Members {
    left: Map<String, Value>,
    known: Vec<&'static str>,
    faults: Vec<Fault>,
}

impl<S: Send + Sync> FromRequest<S> for Members {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        match read(request).await? {
            Some(value) => Self::of(value),
            None => Err(missing()),
        }
    }
}

/// A body that may be left out.
pub(super) struct Optional(pub(super) Members);

impl<S: Send + Sync> FromRequest<S> for Optional {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let value = read(request).await?.unwrap_or_else(|| Value::Object(Map::new()));
        Members::of(value).map(Self)
    }
}

/// A whole JSON object, as it is.
pub(super) struct Whole(pub(super) Value);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let value = read(request).await?.ok_or_else(missing)?;
        if value.is_object() { Ok(Self(value)) } else { Err(not_an_object()) }
    }
}

impl Members {
    /// The members of `value`.
    pub(super) fn of(value: Value) -> Result<Self, Problem> {
        let Value::Object(left) = value else {
            return Err(not_an_object());
        };
        Ok(Self { left, known: Vec::new(), faults: Vec::new() })
    }

    /// Reads a member that may be left out.
    pub(super) fn take<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        self.known.push(name);
        let value = self.left.remove(name)?;
        match read(&value) {
            Ok(value) => Some(value),
            Err(message) => {
                self.fault(name, message);
                None
            }
        }
    }

    /// Reads a member that must be there.
    pub(super) fn need<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        if !self.left.contains_key(name) {
            self.fault(name, "is required");
        }
        self.take(name, read)
    }

    /// Notes a mistake in a member.
    pub(super) fn fault(&mut self, name: &str, message: impl Into<String>) {
        let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        self.faults.push(Fault { pointer, message: message.into() });
    }

    /// Notes a mistake in the object as a whole.
    pub(super) fn fault_of_all(&mut self, message: impl Into<String>) {
        self.faults.push(Fault { pointer: String::new(), message: message.into() });
    }

    /// Everything, if there was no mistake. `all` is `None` only after one.
    ///
    /// # Errors
    /// All mistakes.
    pub(super) fn finish<T>(mut self, all: Option<T>) -> Result<T, Problem> {
        let known = self.known.join("`, `");
        let left: Vec<String> = self.left.keys().cloned().collect();
        for name in left {
            self.fault(&name, format!("is not known here; the members are `{known}`"));
        }
        match all {
            Some(all) if self.faults.is_empty() => Ok(all),
            _ => Err(Problem::invalid(self.faults)),
        }
    }
}

/// `true` or `false`.
pub(super) fn flag(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| expected("`true` or `false`", value))
}

/// A text.
pub(super) fn text(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| expected("a text", value))
}

/// A name that the store takes.
pub(super) fn name(value: &Value) -> Result<String, String> {
    let name = text(value)?;
    match registry::check_name("the name", &name) {
        Ok(()) => Ok(name),
        Err(registry::RegistryError::Invalid { problem, .. }) => Err(problem),
        Err(other) => Err(other.to_string()),
    }
}

/// A list of names.
pub(super) fn names(value: &Value) -> Result<Vec<String>, String> {
    let items = value.as_array().ok_or_else(|| expected("a list", value))?;
    items.iter().map(name).collect()
}

/// A list of networks.
pub(super) fn networks(value: &Value) -> Result<Vec<IpNet>, String> {
    let items = value.as_array().ok_or_else(|| expected("a list", value))?;
    let network = |item| parse_network(&text(item)?).map_err(|error| format!("{error}"));
    items.iter().map(network).collect()
}

/// What is wrong with a value of another type.
pub(super) fn expected(what: &str, value: &Value) -> String {
    let found = match value {
        Value::Array(_) => "a list",
        Value::Bool(_) => "`true` or `false`",
        Value::Null => "`null`; leave it out instead",
        Value::Number(_) => "a number",
        Value::Object(_) => "an object",
        Value::String(_) => "a text",
    };
    format!("must be {what}, this is {found}")
}

/// The body; `None` if there is none.
async fn read(request: Request) -> Result<Option<Value>, Problem> {
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return Ok(None);
    }
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    let bytes = tokio::time::timeout(DEADLINE, collect(body))
        .await
        .map_err(|_| Problem::new(Code::BodyTimeout, "send the whole body at once"))??;
    if bytes.is_empty() {
        return Ok(None);
    }
    check_kind(&parts.headers)?;
    let parsed = json::parse(&bytes);
    parsed.map(Some).map_err(|error| Problem::new(Code::MalformedBody, error.to_string()))
}

async fn collect(mut body: Body) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|_| {
            let detail = "the body ends before its end, or its framing is broken";
            Problem::new(Code::MalformedBody, detail)
        })?;
        // What is not data are trailers, which say nothing here.
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > MAX_BODY {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn check_kind(headers: &HeaderMap) -> Result<(), Problem> {
    let is_json = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_some_and(|it| {
        let (kind, parameters) = it.split_once(';').unwrap_or((it, ""));
        let parameters = parameters.trim();
        kind.trim().eq_ignore_ascii_case("application/json")
            && (parameters.is_empty() || parameters.eq_ignore_ascii_case("charset=utf-8"))
    });
    if is_json && !headers.contains_key(CONTENT_ENCODING) {
        return Ok(());
    }
    let detail = "send JSON, uncompressed, with `Content-Type: application/json`";
    Err(Problem::new(Code::UnsupportedMediaType, detail))
}

fn missing() -> Problem {
    Problem::new(Code::BodyMissing, "send a JSON object with `Content-Type: application/json`")
}

fn not_an_object() -> Problem {
    let message = "must be an object".to_owned();
    Problem::invalid(vec![Fault { pointer: String::new(), message }])
}

fn too_large() -> Problem {
    Problem::new(Code::BodyTooLarge, format!("a body has at most {MAX_BODY} bytes"))
}
