//! What a raw HTTP/1 head must look like, byte by byte, before Pingora parses it.
//!
//! Pingora's parser is lenient where leniency is an attack: it takes bare line feeds, escapes what
//! is illegal in a target, drops `Content-Length` beside `Transfer-Encoding` before any hook could
//! see it, and has no limit below 1 MiB. Two parties that read one head in two ways are request
//! smuggling, so whatever RFC 9112 leaves open is refused here. So is what Pingora would refuse with
//! an empty 400 that no hook sees: a refusal says why, and is counted.
//!
//! Must stay true: one pass, and no allocation but for a target in absolute-form.

use super::head::MAX_METHOD;
use super::rejection::BadHead;
use crate::config::Http;
use crate::routing::parse_host;

/// Caps on a head; `[http]` in the configuration.
#[derive(Clone, Copy, Debug)]
pub struct HeadCaps {
    /// Bytes in all.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
    /// Bytes of the request target.
    pub target: usize,
}

impl From<&Http> for HeadCaps {
    fn from(http: &Http) -> Self {
        Self { bytes: http.max_head, fields: http.max_headers, target: http.max_target }
    }
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks: how much there is shows when it is read.
    Chunks,
    /// Perhaps another protocol.
    Unknown,
}

/// What the fields say about the framing of the message, and whom it is for.
#[derive(Default)]
struct Framing<'a> {
    host: &'a [u8],
    hosts: usize,
    lengths: usize,
    encodings: usize,
    length: u64,
    upgrade: bool,
}

impl Framing<'_> {
    const fn body(&self) -> Body {
        match (self.encodings, self.upgrade, self.length) {
            (0, false, 0) => Body::None,
            (0, false, length) => Body::Length(length),
            (_, false, _) => Body::Chunks,
            _ => Body::Unknown,
        }
    }
}

/// The length of the head including its empty line, once `buf` has it all.
///
/// `from` is where the last search ended.
#[must_use]
pub fn head_end(buf: &[u8], from: usize) -> Option<usize> {
    let start = from.saturating_sub(3);
    let at = memchr::memmem::find(buf.get(start..)?, b"\r\n\r\n")?;
    Some(start + at + 4)
}

/// Checks a complete head (request line, fields, empty line), and tells what follows it.
///
/// # Errors
/// The first rule that it breaks.
pub fn check(head: &[u8], caps: HeadCaps) -> Result<Body, BadHead> {
    if head.len() > caps.bytes {
        return Err(BadHead::TooLarge);
    }
    let mut lines = Lines(head.strip_suffix(b"\r\n").unwrap_or(head));
    let (target, is_10) = check_request_line(lines.next_line()?, caps.target)?;
    let (mut framing, mut fields) = (Framing::default(), 0);
    while !lines.0.is_empty() {
        fields += 1;
        if fields > caps.fields {
            return Err(BadHead::TooManyFields);
        }
        check_field(lines.next_line()?, &mut framing)?;
    }
    match framing {
        Framing { hosts: 0, .. } if !is_10 => Err(BadHead::Host),
        Framing { hosts: 2.., .. } => Err(BadHead::Host),
        Framing { lengths: 2.., .. } | Framing { encodings: 2.., .. } => Err(BadHead::Framing),
        Framing { lengths: 1, encodings: 1, .. } => Err(BadHead::Framing),
        Framing { encodings: 1, .. } if is_10 => Err(BadHead::Framing),
        framing => {
            check_authority(target, &framing)?;
            Ok(framing.body())
        }
    }
}

/// What is left of the head, line by line.
struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    /// The next line without its CRLF. A line feed alone, or a carriage return inside, is refused.
    fn next_line(&mut self) -> Result<&'a [u8], BadHead> {
        let end = memchr::memchr(b'\n', self.0).ok_or(BadHead::Line)?;
        let (line, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        line.strip_suffix(b"\r").ok_or(BadHead::Line)
    }
}

/// `method SP target SP HTTP/1.x`; gives the target, and whether it is HTTP/1.0.
fn check_request_line(line: &[u8], max_target: usize) -> Result<(&[u8], bool), BadHead> {
    let first = memchr::memchr(b' ', line).ok_or(BadHead::RequestLine)?;
    let last = memchr::memrchr(b' ', line).ok_or(BadHead::RequestLine)?;
    let method = line.get(..first).unwrap_or_default();
    if first == last {
        return Err(BadHead::RequestLine);
    }
    let target = line.get(first + 1..last).unwrap_or_default();
    let version = line.get(last + 1..).unwrap_or_default();
    let is_method =
        !method.is_empty() && method.len() <= MAX_METHOD && method.iter().copied().all(is_token);
    // Pingora would answer CONNECT itself, before any hook could count it.
    if !is_method || method == b"CONNECT" {
        return Err(BadHead::Method);
    }
    if target.len() > max_target {
        return Err(BadHead::TargetTooLong);
    }
    if !is_target(target) {
        return Err(BadHead::Target);
    }
    match version {
        b"HTTP/1.1" => Ok((target, false)),
        b"HTTP/1.0" => Ok((target, true)),
        _ if version.starts_with(b"HTTP/") => Err(BadHead::Version),
        _ => Err(BadHead::RequestLine),
    }
}

/// Visible characters without those that Pingora cuts off (`#`) or cannot hold. Browsers escape
/// these, but in a query the grave accent.
fn is_target(target: &[u8]) -> bool {
    let mut query = false;
    let mut fits = |&byte: &u8| {
        query |= byte == b'?';
        match byte {
            b'"' | b'#' | b'<' | b'>' => false,
            b'`' => query,
            _ => (0x21..=0x7e).contains(&byte),
        }
    };
    !target.is_empty() && target.iter().all(&mut fits)
}

/// One host, wherever it stands. RFC 9112 3.2.2 lets a target in absolute-form overrule `Host`; who
/// sends two different ones hopes that somebody reads the other.
fn check_authority(target: &[u8], framing: &Framing<'_>) -> Result<(), BadHead> {
    if framing.host.contains(&b'@') {
        return Err(BadHead::Host);
    }
    if target.starts_with(b"/") || target == b"*" {
        return Ok(());
    }
    let rest = strip_scheme(target).ok_or(BadHead::Target)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let authority = rest.get(..end).unwrap_or_default();
    let text = std::str::from_utf8(authority).map_err(|_| BadHead::Target)?;
    parse_host(text).map_err(|_| BadHead::Target)?;
    if framing.hosts > 0 && framing.host != authority { Err(BadHead::Host) } else { Ok(()) }
}

fn strip_scheme(target: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memchr(b':', target)?;
    let (scheme, rest) = target.split_at(colon);
    let known = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
    rest.strip_prefix(b"://").filter(|_| known)
}

fn check_field<'a>(line: &'a [u8], framing: &mut Framing<'a>) -> Result<(), BadHead> {
    let colon = memchr::memchr(b':', line).ok_or(BadHead::Field)?;
    let (name, rest) = line.split_at(colon);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(BadHead::Field);
    }
    let value = rest.get(1..).unwrap_or_default();
    // RFC 9110 5.5: visible characters, space, tab and obs-text.
    // Without branches, so that the compiler can look at many bytes at once.
    let control = |byte: u8| (byte < 0x20 && byte != b'\t') | (byte == 0x7f);
    if value.iter().fold(false, |found, &byte| found | control(byte)) {
        return Err(BadHead::Field);
    }
    match name.len() {
        4 if name.eq_ignore_ascii_case(b"host") => {
            framing.hosts += 1;
            framing.host = value.trim_ascii();
        }
        14 if name.eq_ignore_ascii_case(b"content-length") => {
            framing.lengths += 1;
            let digits = value.trim_ascii();
            if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
                return Err(BadHead::Framing);
            }
            // 18 digits fit.
            framing.length =
                digits.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0'));
        }
        7 if name.eq_ignore_ascii_case(b"upgrade") => framing.upgrade = true,
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
            framing.encodings += 1;
            if !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(BadHead::Framing);
            }
        }
        _ => {}
    }
    Ok(())
}

/// RFC 9110 5.6.2 `tchar`.
fn is_token(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).is_some_and(|&is| is)
}

/// [`is_token`] for every byte.
#[expect(clippy::indexing_slicing, reason = "the compiler evaluates it, and would stop at a panic")]
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let c = byte as u8;
        table[byte] = c.is_ascii_alphanumeric()
            || matches!(c, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: HeadCaps = HeadCaps { bytes: 512, fields: 4, target: 64 };

    fn get(target: &str, host: &str) -> Result<Body, BadHead> {
        check(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), CAPS)
    }

    #[test]
    fn what_pingora_would_refuse_without_a_word_is_refused_with_one() {
        for (target, host) in [
            ("/a?b`c", "a.test"),
            ("/{a}|b^[c]\\", "a.test"),
            ("*", "a.test"),
            ("http://a.test/x", "a.test"),
            ("HTTPS://A.test:81", "A.test:81"),
            ("http://[::1]:81?x", "[::1]:81"),
        ] {
            assert_eq!(get(target, host), Ok(Body::None), "{target} {host}");
        }
        for (target, host, expected) in [
            ("/a#b", "a", BadHead::Target),
            ("/a?b#c", "a", BadHead::Target),
            ("/a`b?c", "a", BadHead::Target),
            ("/\"", "a", BadHead::Target),
            ("/?<", "a", BadHead::Target),
            ("/?>", "a", BadHead::Target),
            ("a", "a", BadHead::Target),
            ("?a", "a", BadHead::Target),
            ("a:81", "a:81", BadHead::Target),
            ("ftp://a/", "a", BadHead::Target),
            ("http:/a/", "a", BadHead::Target),
            ("http:///a", "", BadHead::Target),
            ("http://a\\b/", "a\\b", BadHead::Target),
            ("http://u@a/", "a", BadHead::Target),
            ("http://a/", "b", BadHead::Host),
            ("http://a/", "A", BadHead::Host),
            ("http://a:80/", "a", BadHead::Host),
            ("/", "u@a", BadHead::Host),
        ] {
            assert_eq!(get(target, host), Err(expected), "{target} {host}");
        }
        assert_eq!(check(b"GET http://a/x HTTP/1.0\r\n\r\n", CAPS), Ok(Body::None));
    }

    #[test]
    fn a_plain_head_passes_and_tells_what_follows() {
        for (head, body) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Body::None),
            ("GET / HTTP/1.0\r\n\r\n", Body::None),
            ("POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n", Body::None),
            (
                "POST /x?y=%20 HTTP/1.1\r\nHost: a\r\nContent-Length: 012 \r\nX-A:\r\n\r\n",
                Body::Length(12),
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999999999\r\n\r\n",
                Body::Length(999_999_999_999_999_999),
            ),
            ("POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", Body::Chunks),
            ("GET / HTTP/1.1\r\nHost: a\r\nupgrade: websocket\r\n\r\n", Body::Unknown),
        ] {
            assert_eq!(check(head.as_bytes(), CAPS), Ok(body), "{head:?}");
        }
    }

    #[test]
    fn what_two_parties_could_read_in_two_ways_is_refused() {
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70));
        let table: &[(&str, BadHead)] = &[
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", BadHead::Line),
            ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", BadHead::Line),
            ("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", BadHead::Field),
            ("GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", BadHead::Field),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n", BadHead::Field),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", BadHead::Field),
            ("GET / HTTP/1.1\r\n: a\r\n\r\n", BadHead::Field),
            ("GET / HTTP/1.1\r\nnocolon\r\n\r\n", BadHead::Field),
            ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", BadHead::Target),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BadHead::Target),
            ("GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n", BadHead::Target),
            ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", BadHead::Method),
            ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", BadHead::Method),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", BadHead::Version),
            ("GET /\r\nHost: a\r\n\r\n", BadHead::RequestLine),
            ("GET / HTTP/1.1\r\n\r\n", BadHead::Host),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", BadHead::Host),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", BadHead::Framing),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", BadHead::Framing),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                BadHead::Framing,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                BadHead::Framing,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                BadHead::Framing,
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", BadHead::Framing),
            ("GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", BadHead::Framing),
            (
                "GET / HTTP/1.1\r\nHost: a\r\na:1\r\nb:1\r\nc:1\r\nd:1\r\n\r\n",
                BadHead::TooManyFields,
            ),
            (&long, BadHead::TargetTooLong),
        ];
        for (head, expected) in table {
            assert_eq!(check(head.as_bytes(), CAPS), Err(*expected), "{head:?}");
        }
    }

    #[test]
    fn the_end_of_a_head_is_found_across_reads() {
        let head = b"GET / HTTP/1.1\r\n\r\nrest";
        assert_eq!(head_end(head, 0), Some(18));
        for seen in 0..18 {
            assert_eq!(head_end(head, seen), Some(18), "searched {seen} bytes before");
        }
        assert_eq!(head_end(&head[..17], 0), None);
    }
}
