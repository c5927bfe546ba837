//! The one spelling of a path that every decision reads and the upstream gets.
//!
//! Escapes of unreserved characters are resolved (RFC 3986 6.2.2.2), the others are upper case;
//! visible characters that a path cannot carry as they are become escapes; slashes are merged and
//! then dot segments removed, escaped ones too. What two servers could read in two ways is refused,
//! not repaired: see [`BadTarget`]. `%2F` stays an escape: whether it is data, a route decides.
//!
//! Escapes of reserved characters (`%40` for `@`) stay as the client wrote them, because a server
//! may tell them apart; but most do not, so routes compare segments by their [`meaning`].
//!
//! Must stay true: a canonical path is its own canonical form, and is borrowed.

use super::target::BadTarget;
use std::borrow::Cow;

/// The longest literal segment that is found under every spelling; `conf/` takes no longer path.
const LONGEST_LITERAL: usize = 2048;

/// A canonical path and what a route must know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Canonical<'a> {
    pub(super) path: Cow<'a, str>,
    pub(super) encoded_slash: bool,
}

/// Makes the path of an origin-form target canonical; `raw` starts with `/`.
pub(super) fn canonicalise(raw: &str) -> Result<Canonical<'_>, BadTarget> {
    let found = inspect(raw)?;
    let path = if found.canonical { Cow::Borrowed(raw) } else { Cow::Owned(rebuild(raw)?) };
    if found.encoded_slash && hides_dots(&path) {
        return Err(BadTarget::HiddenDots);
    }
    Ok(Canonical { path, encoded_slash: found.encoded_slash })
}

/// The bytes of a canonical segment with the escapes of reserved characters resolved.
pub(super) fn meaning(segment: &str) -> impl Iterator<Item = u8> {
    unescaped(segment, is_reserved)
}

/// The same as a key of a map.
pub(super) fn key(literal: &str) -> Box<str> {
    let bytes: Vec<u8> = meaning(literal).collect();
    String::from_utf8_lossy(&bytes).into()
}

/// Asks `look` for a segment's meaning, without allocating.
pub(super) fn find_by_meaning<'n, R>(
    segment: &str,
    look: impl FnOnce(&str) -> Option<&'n R>,
) -> Option<&'n R> {
    if segment.contains('%') { find_unescaped(segment, look) } else { look(segment) }
}

/// Kept out of line: its buffer must not be in the frames of a recursive caller.
#[inline(never)]
fn find_unescaped<'n, R>(segment: &str, look: impl FnOnce(&str) -> Option<&'n R>) -> Option<&'n R> {
    let mut buffer = [0; LONGEST_LITERAL];
    let mut length = 0;
    for byte in meaning(segment) {
        *buffer.get_mut(length)? = byte;
        length += 1;
    }
    look(std::str::from_utf8(buffer.get(..length)?).ok()?)
}

/// The bytes of `text` with those escapes resolved whose value `which` names. What is no escape
/// stays as it is.
pub(super) fn unescaped(text: &str, which: impl Fn(u8) -> bool) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (&byte, tail) = rest.split_first()?;
        rest = tail;
        if byte == b'%'
            && let [high, low, after @ ..] = tail
            && let Ok(escape) = Escape::parse(Some(*high), Some(*low))
            && which(escape.value)
        {
            rest = after;
            return Some(escape.value);
        }
        Some(byte)
    })
}

/// What a byte of a raw path is.
enum Class {
    /// Stands as it is.
    Plain,
    /// Visible, but only as an escape.
    Foreign,
    /// `%`
    Escape,
    /// Never.
    Refused(BadTarget),
}

impl Class {
    const fn of(byte: u8) -> Self {
        match byte {
            b'%' => Self::Escape,
            b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => Self::Foreign,
            b'#' => Self::Refused(BadTarget::Fragment),
            b';' => Self::Refused(BadTarget::Parameter),
            b'\\' => Self::Refused(BadTarget::Backslash),
            // The query was cut off at the first one.
            b'?' => Self::Refused(BadTarget::Form),
            0..=b' ' | 0x7f => Self::Refused(BadTarget::Control),
            0x80.. => Self::Refused(BadTarget::NonAscii),
            _ => Self::Plain,
        }
    }
}

/// `%XX`
struct Escape {
    value: u8,
    upper_case: bool,
}

impl Escape {
    fn parse(high: Option<u8>, low: Option<u8>) -> Result<Self, BadTarget> {
        let (Some(high), Some(low)) = (high, low) else { return Err(BadTarget::Escape) };
        Ok(Self {
            value: hex(high)? << 4 | hex(low)?,
            upper_case: !high.is_ascii_lowercase() && !low.is_ascii_lowercase(),
        })
    }

    const fn is_canonical(&self) -> bool {
        self.upper_case && !is_unreserved(self.value)
    }

    /// Refuses what no upstream should have to decode; `lead` is the escape just before, or 0.
    const fn check(&self, lead: u8) -> Result<(), BadTarget> {
        match (lead, self.value) {
            (_, 0..=0x1f | 0x7f) => Err(BadTarget::Control),
            (_, b'\\') => Err(BadTarget::Backslash),
            // A character spelled with more bytes than it needs: `%C0%AF` is a slash to some.
            (0xc0 | 0xc1, 0x80..=0xbf) | (0xe0, 0x80..=0x9f) | (0xf0, 0x80..=0x8f) => {
                Err(BadTarget::Overlong)
            }
            _ => Ok(()),
        }
    }
}

struct Found {
    canonical: bool,
    encoded_slash: bool,
}

/// Refuses what is refused by its bytes, and says whether the rest is canonical already.
fn inspect(path: &str) -> Result<Found, BadTarget> {
    let mut found = Found { canonical: true, encoded_slash: false };
    let mut bytes = path.bytes();
    let mut lead = 0;
    while let Some(byte) = bytes.next() {
        match Class::of(byte) {
            Class::Plain => lead = 0,
            Class::Foreign => {
                lead = 0;
                found.canonical = false;
            }
            Class::Refused(reason) => return Err(reason),
            Class::Escape => {
                let escape = Escape::parse(bytes.next(), bytes.next())?;
                escape.check(lead)?;
                lead = escape.value;
                found.canonical &= escape.is_canonical();
                found.encoded_slash |= escape.value == b'/';
            }
        }
    }
    found.canonical &= !has_gaps_or_dots(path);
    Ok(found)
}

/// Whether a segment is empty (only the last may be) or a dot segment.
fn has_gaps_or_dots(path: &str) -> bool {
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/');
    let last = segments.next_back();
    segments.any(|segment| matches!(segment, "" | "." | "..")) || matches!(last, Some("." | ".."))
}

/// Whether a server that takes `%2F` for a slash would find a dot segment.
fn hides_dots(path: &str) -> bool {
    path.split('/').any(|segment| {
        segment.contains("%2F") && segment.split("%2F").any(|part| matches!(part, "." | ".."))
    })
}

/// Writes the canonical form of a path that passed [`inspect`].
fn rebuild(path: &str) -> Result<String, BadTarget> {
    let mut out = String::with_capacity(path.len() + 8);
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        let start = out.len();
        out.push('/');
        push_segment(&mut out, segment)?;
        match out.get(start..).unwrap_or_default() {
            "/" if !last => out.truncate(start),
            "/." => out.truncate(start),
            "/.." => {
                out.truncate(start);
                pop_segment(&mut out)?;
            }
            _ => continue,
        }
        if last {
            out.push('/');
        }
    }
    Ok(out)
}

/// Takes off the last segment, which must be one segment to every server.
fn pop_segment(out: &mut String) -> Result<(), BadTarget> {
    let parent = out.rfind('/').ok_or(BadTarget::AboveRoot)?;
    if out.get(parent..).is_some_and(|segment| segment.contains("%2F")) {
        return Err(BadTarget::HiddenDots);
    }
    out.truncate(parent);
    Ok(())
}

fn push_segment(out: &mut String, segment: &str) -> Result<(), BadTarget> {
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        match Class::of(byte) {
            Class::Plain => out.push(char::from(byte)),
            Class::Foreign => push_escape(out, byte),
            Class::Refused(reason) => return Err(reason),
            Class::Escape => {
                let value = Escape::parse(bytes.next(), bytes.next())?.value;
                if is_unreserved(value) {
                    out.push(char::from(value));
                } else {
                    push_escape(out, value);
                }
            }
        }
    }
    Ok(())
}

fn push_escape(out: &mut String, value: u8) {
    out.push('%');
    for digit in [value >> 4, value & 0xf] {
        out.push(char::from(if digit < 10 { b'0' + digit } else { b'A' + digit - 10 }));
    }
}

const fn hex(digit: u8) -> Result<u8, BadTarget> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(BadTarget::Escape),
    }
}

/// RFC 3986 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What a segment can carry both as it is and as an escape (RFC 3986 3.3, pchar).
const fn is_reserved(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
    )
}
