//! A request target, read once.
//!
//! Origin-form, absolute-form (a server must take it, RFC 9112 3.2.2) and `*`. Nothing after this
//! sees the client's own spelling of the path.
//!
//! A `;` in the path is refused: some servers cut `;x` off a segment before they look at it
//! (`/admin;x` is `/admin` to them, `/..;/` a climb) and others do not. A client that means the
//! character writes `%3B`, which every server takes as data.
//!
//! Must stay true: a target whose path is canonical already is parsed without allocating.

use super::canonical::{Canonical, canonicalise};
use super::host::parse_host;
use std::borrow::Cow;

/// A request target whose path is canonical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    path: Cow<'a, str>,
    query: Option<&'a str>,
    authority: Option<&'a str>,
    encoded_slash: bool,
}

/// Why a request target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// `/../x`
    #[error("the path climbs above its root")]
    AboveRoot,
    /// An absolute-form target without a usable host.
    #[error("the authority of the target is malformed")]
    Authority,
    /// `\` or `%5C`, a slash to some servers.
    #[error("a backslash in the path")]
    Backslash,
    /// Raw or escaped.
    #[error("a control character or a space in the target")]
    Control,
    /// `%` without two hex digits in the path.
    #[error("an invalid percent-escape in the path")]
    Escape,
    /// Neither `/path`, nor `http://host/path`, nor `*`.
    #[error("not a form of target that is served")]
    Form,
    /// `#` never reaches a server.
    #[error("a fragment in the target")]
    Fragment,
    /// `..%2F`, a climb to servers that take `%2F` for a slash.
    #[error("a dot segment beside an encoded slash")]
    HiddenDots,
    /// Must be escaped.
    #[error("a raw non-ASCII byte in the target")]
    NonAscii,
    /// `%C0%AF`: a character with more bytes than it needs.
    #[error("an overlong UTF-8 sequence in the path")]
    Overlong,
    /// `;`, cut off by some servers.
    #[error("a `;` in the path")]
    Parameter,
}

impl<'a> Target<'a> {
    /// Parses what stands between method and version. For `*` the caller checks that the method is
    /// OPTIONS. `http://host` without a path asks for `/`.
    ///
    /// # Errors
    /// What is malformed, or can be read in two ways.
    pub fn parse(raw: &'a str) -> Result<Self, BadTarget> {
        if raw == "*" {
            return Ok(Self {
                path: Cow::Borrowed("*"),
                query: None,
                authority: None,
                encoded_slash: false,
            });
        }
        if raw.starts_with('/') {
            return Self::parse_origin(raw, None);
        }
        let rest = strip_scheme(raw).ok_or(BadTarget::Form)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, origin) = rest.split_at(end);
        parse_host(authority).map_err(|_| BadTarget::Authority)?;
        Self::parse_origin(origin, Some(authority))
    }

    fn parse_origin(origin: &'a str, authority: Option<&'a str>) -> Result<Self, BadTarget> {
        let (path, query) = match origin.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (origin, None),
        };
        check_query(query.unwrap_or_default())?;
        let path = if path.is_empty() { "/" } else { path };
        if !path.starts_with('/') {
            return Err(BadTarget::Fragment);
        }
        let Canonical { path, encoded_slash } = canonicalise(path)?;
        Ok(Self { path, query, authority, encoded_slash })
    }

    /// The canonical path; `*` for a question about the server itself.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What follows the `?`, as the client wrote it; visible ASCII only.
    #[must_use]
    pub const fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// The authority of an absolute-form target; it takes the place of `Host`.
    #[must_use]
    pub const fn authority(&self) -> Option<&'a str> {
        self.authority
    }

    /// Whether the path has a `%2F`.
    #[must_use]
    pub const fn has_encoded_slash(&self) -> bool {
        self.encoded_slash
    }
}

fn strip_scheme(raw: &str) -> Option<&str> {
    let (scheme, rest) = raw.split_once("://")?;
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    known.then_some(rest)
}

/// A query is data: nothing in it is changed, so nothing in it may need a change.
fn check_query(query: &str) -> Result<(), BadTarget> {
    for byte in query.bytes() {
        match byte {
            b'#' => return Err(BadTarget::Fragment),
            b'!'..=b'~' => {}
            0x80.. => return Err(BadTarget::NonAscii),
            _ => return Err(BadTarget::Control),
        }
    }
    Ok(())
}
