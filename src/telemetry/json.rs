//! JSON objects, written straight into a buffer.
//!
//! The access log writes one per request. `serde_json` would do, but it does not cap fields and
//! takes only valid UTF-8, and header values are neither short nor valid by themselves.
//!
//! Must stay true: whatever the input, an object is one line of valid JSON and no string in it is
//! longer than [`MAX_TEXT`] bytes plus the mark of the cut; nothing is allocated but the buffer.

use std::fmt::{self, Display, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use time::OffsetDateTime;

/// Bytes of a string, as written.
pub(super) const MAX_TEXT: usize = 1024;

/// Room for a usual field, asked for once.
const FIELD: usize = 128;

/// Bytes of an address of any kind.
const MAX_ADDRESS: usize = 64;

/// Stands at the end of a string that was cut.
const CUT: &str = "…";

/// An object in the making. Keys come from the source and are written as they are.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    pub(super) fn end_line(self) {
        self.out.extend_from_slice(b"}\n");
    }

    fn key(&mut self, key: &str) {
        let start: &[u8] = if self.empty { b"\"" } else { b",\"" };
        self.empty = false;
        self.out.reserve(FIELD);
        self.out.extend_from_slice(start);
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// A key that does not come from the source.
    pub(super) fn foreign_key(&mut self, key: &str) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        string(self.out, MAX_TEXT, |text| text.push_str(key));
        self.out.push(b':');
    }

    pub(super) fn text(&mut self, key: &str, value: &[u8]) {
        self.key(key);
        string(self.out, MAX_TEXT, |text| text.push(value));
    }

    /// Several parts as one string.
    pub(super) fn parts(&mut self, key: &str, parts: &[&str]) {
        self.key(key);
        string(self.out, MAX_TEXT, |text| parts.iter().for_each(|part| text.push_str(part)));
    }

    /// A text that is known to be short and to need no escape.
    pub(super) fn token(&mut self, key: &str, value: &str) {
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'"');
    }

    /// An address, with its port if it has one.
    pub(super) fn address(&mut self, key: &str, ip: IpAddr, port: Option<u16>) {
        let IpAddr::V4(ip) = ip else {
            return match port {
                Some(port) => self.display(key, MAX_ADDRESS, SocketAddr::new(ip, port)),
                None => self.display(key, MAX_ADDRESS, ip),
            };
        };
        // The usual kind, without the detour over the formatting traits.
        self.key(key);
        let [a, b, c, d] = ip.octets();
        self.out.push(b'"');
        number(self.out, a);
        for octet in [b, c, d] {
            self.out.push(b'.');
            number(self.out, octet);
        }
        if let Some(port) = port {
            self.out.push(b':');
            number(self.out, port);
        }
        self.out.push(b'"');
    }

    pub(super) fn display(&mut self, key: &str, max: usize, value: impl Display) {
        self.key(key);
        display(self.out, max, value);
    }

    pub(super) fn texts<T: AsRef<str>>(&mut self, key: &str, values: impl Iterator<Item = T>) {
        self.key(key);
        self.out.push(b'[');
        for (index, value) in values.enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            string(self.out, MAX_TEXT, |text| text.push_str(value.as_ref()));
        }
        self.out.push(b']');
    }

    pub(super) fn number(&mut self, key: &str, value: impl itoa::Integer) {
        self.key(key);
        number(self.out, value);
    }

    pub(super) fn truth(&mut self, key: &str, value: bool) {
        self.key(key);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Milliseconds, to the microsecond.
    pub(super) fn milliseconds(&mut self, key: &str, value: Duration) {
        self.key(key);
        let micros = value.as_micros();
        number(self.out, u64::try_from(micros / 1000).unwrap_or(u64::MAX));
        self.out.push(b'.');
        digits::<3>(self.out, u32::try_from(micros % 1000).unwrap_or(0));
    }

    /// RFC 3339, to the millisecond.
    pub(super) fn timestamp(&mut self, key: &str, since_epoch: Duration) {
        self.key(key);
        self.out.push(b'"');
        timestamp(self.out, since_epoch);
        self.out.push(b'"');
    }

    /// The buffer, to write the value of a [`Object::foreign_key`].
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        self.out
    }
}

/// A number.
pub(super) fn number(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// What `value` displays, as a string.
pub(super) fn display(out: &mut Vec<u8>, max: usize, value: impl Display) {
    string(out, max, |text| {
        if write!(text, "{value}").is_err() && !text.cut {
            text.push_str("(cannot be displayed)");
        }
    });
}

fn string(out: &mut Vec<u8>, max: usize, write: impl FnOnce(&mut Text<'_>)) {
    out.push(b'"');
    let mut text = Text { out, left: max, cut: false };
    write(&mut text);
    let cut = text.cut;
    if cut {
        out.extend_from_slice(CUT.as_bytes());
    }
    out.push(b'"');
}

/// The inside of a string.
struct Text<'a> {
    out: &'a mut Vec<u8>,
    left: usize,
    cut: bool,
}

impl Text<'_> {
    fn push(&mut self, bytes: &[u8]) {
        if !self.cut && bytes.len() <= self.left && is_plain(bytes) {
            self.left -= bytes.len();
            self.out.extend_from_slice(bytes);
            return;
        }
        // Nothing is written shorter than it came, so what is behind this is cut in any case.
        let bytes = bytes.get(..self.left + 4).unwrap_or(bytes);
        if let Ok(text) = std::str::from_utf8(bytes) {
            return self.push_str(text);
        }
        for chunk in bytes.utf8_chunks() {
            self.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                self.push_str("\u{fffd}");
            }
        }
    }

    fn push_str(&mut self, text: &str) {
        if !self.cut && text.len() <= self.left && is_plain(text.as_bytes()) {
            self.left -= text.len();
            self.out.extend_from_slice(text.as_bytes());
            return;
        }
        self.push_slowly(text);
    }

    fn push_slowly(&mut self, mut text: &str) {
        while !self.cut {
            let (head, tail) = text.split_at(clean_length(text.as_bytes()));
            self.push_clean(head);
            let Some(special) = tail.bytes().next() else { return };
            self.push_escaped(special);
            text = tail.get(1..).unwrap_or_default();
        }
    }

    fn push_clean(&mut self, text: &str) {
        if self.cut {
            return;
        }
        let fits = text.floor_char_boundary(self.left);
        self.cut = fits < text.len();
        self.left -= fits;
        self.out.extend_from_slice(text.get(..fits).unwrap_or_default().as_bytes());
    }

    fn push_escaped(&mut self, byte: u8) {
        const HEX: [u8; 16] = *b"0123456789abcdef";
        let hex = |digit: u8| HEX.get(usize::from(digit)).copied().unwrap_or(b'0');
        let long = [b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)];
        let escaped: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            _ => &long,
        };
        self.cut |= escaped.len() > self.left;
        if !self.cut {
            self.left -= escaped.len();
            self.out.extend_from_slice(escaped);
        }
    }
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_str(text);
        // A cut text ends the formatting early.
        if self.cut { Err(fmt::Error) } else { Ok(()) }
    }
}

/// Whether all of it is visible ASCII that needs no escape: nearly always. It has no branches, so
/// that the compiler can look at many bytes at once.
fn is_plain(bytes: &[u8]) -> bool {
    !bytes.iter().fold(false, |found, &byte| found | needs_escape(byte) | (byte >= 0x80))
}

/// How many bytes from the front need no escape, sixteen at a time: nearly always it is all.
fn clean_length(bytes: &[u8]) -> usize {
    let blocks = bytes.chunks(16);
    let clean = blocks.take_while(|block| !block.iter().fold(false, |a, b| a | needs_escape(*b)));
    let length = bytes.len().min(clean.count() * 16);
    let rest = bytes.get(length..).unwrap_or_default();
    length + rest.iter().position(|byte| needs_escape(*byte)).unwrap_or(rest.len())
}

/// All bytes that are looked for are ASCII, so they stand at character boundaries. Delete is no
/// trouble for JSON, but for terminals.
const fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, b'"' | b'\\' | 0x7f)
}

fn timestamp(out: &mut Vec<u8>, since_epoch: Duration) {
    let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX);
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    digits::<4>(out, u32::try_from(at.year()).unwrap_or(0));
    for (mark, value) in [
        (b'-', u8::from(at.month())),
        (b'-', at.day()),
        (b'T', at.hour()),
        (b':', at.minute()),
        (b':', at.second()),
    ] {
        out.push(mark);
        digits::<2>(out, u32::from(value));
    }
    out.push(b'.');
    digits::<3>(out, since_epoch.subsec_millis());
    out.push(b'Z');
}

/// The last `N` digits of `value`, with leading zeros.
fn digits<const N: usize>(out: &mut Vec<u8>, mut value: u32) {
    let mut text = [b'0'; N];
    for digit in text.iter_mut().rev() {
        *digit += u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn object(write: impl FnOnce(&mut Object<'_>)) -> (Vec<u8>, Value) {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        write(&mut object);
        object.end_line();
        let value = serde_json::from_slice(&out).expect("valid JSON");
        (out, value)
    }

    #[test]
    fn hostile_bytes_stay_inside_their_string_and_line() {
        for (bytes, expected) in [
            (&b"plain"[..], "plain"),
            (b"\",\"admin\":\"true", "\",\"admin\":\"true"),
            (b"a\r\nb\tc\\", "a\r\nb\tc\\"),
            (b"\x00\x1b[31m\x7f", "\x00\x1b[31m\x7f"),
            (b"\xff\xc3(\xe2\x82", "\u{fffd}\u{fffd}(\u{fffd}"),
            ("gr\u{fc}n \u{1f600}\u{2028}".as_bytes(), "gr\u{fc}n \u{1f600}\u{2028}"),
        ] {
            let (line, value) = object(|object| object.text("x", bytes));
            assert_eq!(value["x"], expected);
            assert!(line.iter().take(line.len() - 1).all(|&byte| byte >= 0x20 && byte != 0x7f));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_make_valid_json_of_bounded_length(
            bytes in prop::collection::vec(any::<u8>(), 0..3000),
            filler in prop::sample::select(vec!["", "\"", "\u{1}", "\u{20ac}", "a"]),
        ) {
            let bytes = [bytes, filler.repeat(1000).into_bytes()].concat();
            let (line, value) = object(|object| object.text("x", &bytes));
            let frame = r#"{"x":""}"#.len() + 1;
            prop_assert!(line.len() <= frame + MAX_TEXT + CUT.len());
            let text = value["x"].as_str().unwrap();
            let whole = String::from_utf8_lossy(&bytes);
            match text.strip_suffix(CUT) {
                Some(part) => prop_assert!(whole.starts_with(part)),
                None => prop_assert_eq!(text, whole),
            }
        }
    }

    #[test]
    fn a_cut_never_splits_a_character_or_an_escape() {
        for unit in ["\u{20ac}", "\u{1}", "\"", "\u{1f600}"] {
            for shift in 0..8 {
                let text = "a".repeat(shift) + &unit.repeat(MAX_TEXT);
                let (_, value) = object(|object| object.text("x", text.as_bytes()));
                let kept = value["x"].as_str().unwrap().strip_suffix(CUT).unwrap().to_owned();
                assert!(text.starts_with(&kept));
            }
        }
    }

    #[test]
    fn what_displays_too_much_is_cut_as_well() {
        let (line, value) = object(|object| object.display("x", 16, "0123456789".repeat(9)));
        assert_eq!(value["x"], format!("0123456789012345{CUT}"));
        assert!(line.len() < 40);
    }

    #[test]
    fn times_are_written_as_rfc_3339_and_as_milliseconds() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_007, "2000-02-29T00:00:00.007Z"),
            (1_800_000_000_123, "2027-01-15T08:00:00.123Z"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
        ] {
            let (_, value) = object(|object| object.timestamp("x", Duration::from_millis(millis)));
            assert_eq!(value["x"], expected);
        }
        let (line, _) = object(|object| object.milliseconds("x", Duration::from_micros(12_034)));
        assert_eq!(line, b"{\"x\":12.034}\n");
    }

    #[test]
    fn a_time_beyond_the_calendar_is_still_valid_json() {
        let (_, value) = object(|object| object.timestamp("x", Duration::MAX));
        assert!(value["x"].as_str().unwrap().ends_with('Z'));
    }
}
