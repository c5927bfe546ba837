//! Where a chunked body ends, and whether it is one (RFC 9112 7.1).
//!
//! Pingora's reader takes a line without a size for the last chunk, and any byte at all in an
//! extension. What it passes on is framed anew, but who is before us may read the same bytes in another
//! way, and take for a body what is a request here. So what is not by the letter ends the message.
//!
//! Must stay true: each byte is looked at once, and data is skipped.

/// What bytes of a body are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All of this message, and not its end.
    More,
    /// The message ends behind so many of them.
    End(usize),
    /// The one at this place may not stand there.
    Bad(usize),
}

/// What is expected next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The first digit of a size.
    #[default]
    Size,
    /// More digits; so many were there, and this is the size so far.
    Digits(u8, u64),
    /// White space before an extension.
    Blank(u64),
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// A trailer, or the empty line behind the last.
    Line,
    Trailer,
    TrailerEnd,
    LastLf,
    Done,
    /// Nothing may follow.
    Broken,
}

/// Reads along with a chunked body.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chunks(State);

impl Chunks {
    /// Takes the next bytes.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Step {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let State::Data(left) = self.0 {
                let here = u64::try_from(bytes.len() - at).unwrap_or(u64::MAX).min(left);
                at += usize::try_from(here).unwrap_or(usize::MAX);
                self.0 = if here == left { State::DataCr } else { State::Data(left - here) };
                continue;
            }
            let Some(next) = self.0.after(byte) else {
                self.0 = State::Broken;
                return Step::Bad(at);
            };
            self.0 = next;
            at += 1;
            if next == State::Done {
                return Step::End(at);
            }
        }
        Step::More
    }
}

impl State {
    fn after(self, byte: u8) -> Option<Self> {
        let begin = |size| if size == 0 { Self::Line } else { Self::Data(size) };
        Some(match (self, byte) {
            (Self::Size, _) => Self::Digits(1, digit(byte)?),
            (Self::Digits(_, size), b'\r') => Self::SizeEnd(size),
            (Self::Digits(_, size) | Self::Blank(size), b';') => Self::Extension(size),
            (Self::Digits(_, size) | Self::Blank(size), b' ' | b'\t') => Self::Blank(size),
            (Self::Digits(count @ ..=15, size), _) => {
                Self::Digits(count + 1, size << 4 | digit(byte)?)
            }
            (Self::Extension(size), b'\r') => Self::SizeEnd(size),
            (Self::Extension(size), _) if is_text(byte) => Self::Extension(size),
            (Self::SizeEnd(size), b'\n') => begin(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size,
            (Self::Line, b'\r') => Self::LastLf,
            (Self::Trailer, b'\r') => Self::TrailerEnd,
            (Self::Line | Self::Trailer, _) if is_text(byte) => Self::Trailer,
            (Self::TrailerEnd, b'\n') => Self::Line,
            (Self::LastLf, b'\n') => Self::Done,
            _ => return None,
        })
    }
}

fn digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

/// What may stand in a line: visible characters, space, tab and obs-text.
const fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], piece: usize) -> Step {
        let (mut chunks, mut before) = (Chunks::default(), 0);
        for part in bytes.chunks(piece) {
            match chunks.read(part) {
                Step::More => before += part.len(),
                Step::End(at) => return Step::End(before + at),
                Step::Bad(at) => return Step::Bad(before + at),
            }
        }
        Step::More
    }

    #[test]
    fn a_body_ends_where_it_ends_however_it_comes() {
        let table: &[(&[u8], Step)] = &[
            (b"0\r\n\r\nGET", Step::End(5)),
            (b"5\r\nhello\r\n0\r\n\r\nGET", Step::End(15)),
            (b"5;x=\"y z\"\r\nhello\r\n000;z\r\n\r\n", Step::End(27)),
            (b"5 ;x\r\nhello\r\n0\r\n\r\n", Step::End(18)),
            (b"A\r\n0123456789\r\n0\r\nX: y\r\nZ: a\r\n\r\nG", Step::End(32)),
            (b"5\r\nhel", Step::More),
            (b"5\r\nhello\r\n0\r\n", Step::More),
            (b"\r\n5\r\nhello\r\n0\r\n\r\n", Step::Bad(0)),
            (b";\r\n\r\n", Step::Bad(0)),
            (b" \r\n\r\n", Step::Bad(0)),
            (b"5 \r\nhello\r\n", Step::Bad(2)),
            (b"5;\n\r\nhello\r\n", Step::Bad(2)),
            (b"5;x\0\r\nhello\r\n", Step::Bad(3)),
            (b"5;x\rhello", Step::Bad(4)),
            (b"5\nhello", Step::Bad(1)),
            (b"5\r\nhelloX", Step::Bad(8)),
            (b"5\r\nhello\r\n\r\n0\r\n\r\n", Step::Bad(10)),
            (b"-1\r\n", Step::Bad(0)),
            (b"0x5\r\n", Step::Bad(1)),
            (b"ffffffffffffffff\r\n", Step::More),
            (b"00000000000000005\r\n", Step::Bad(16)),
            (b"0\r\nX: y\nZ: a\r\n\r\n", Step::Bad(7)),
            (b"0\r\nX: y\rZ", Step::Bad(8)),
            (b"0\r\n\r\r\n", Step::Bad(4)),
        ];
        for (bytes, expected) in table {
            for piece in 1..=bytes.len() {
                assert_eq!(read(bytes, piece), *expected, "{} by {piece}", bytes.escape_ascii());
            }
        }
    }
}
