//! W3C Trace Context: which trace a request belongs to, and which span of it is ours.
//!
//! Ids are kept as the hex digits that they are on the wire, since that is all they are used for.

use http::HeaderValue;
use rand::RngCore as _;

/// `00-<trace>-<span>-<flags>`.
const LENGTH: usize = 55;

const SAMPLED: u8 = 0x01;
/// Level 2: the trace id was drawn at random.
const RANDOM: u8 = 0x02;

const HEX: [u8; 16] = *b"0123456789abcdef";

/// The gateway's span of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: [u8; 32],
    parent: Option<[u8; 16]>,
    span: [u8; 16],
    flags: u8,
}

impl TraceContext {
    /// A new trace.
    #[must_use]
    pub fn start(sampled: bool) -> Self {
        let flags = RANDOM | if sampled { SAMPLED } else { 0 };
        Self { trace: draw(), parent: None, span: draw(), flags }
    }

    /// A new span of the trace that a `traceparent` names; none if the value is not valid, and
    /// then a `tracestate` beside it means nothing and is to be dropped.
    #[must_use]
    pub fn resume(traceparent: &[u8]) -> Option<Self> {
        let (known, rest) = traceparent.split_at_checked(LENGTH)?;
        let known: &[u8; LENGTH] = known.try_into().ok()?;
        let [v1, v2, b'-', tail @ ..] = known else { return None };
        let version = hex_pair(*v1, *v2)?;
        // Version 255 is forbidden. Later ones may append fields, the first one may not.
        if version == 0xff || !(rest.is_empty() || version > 0 && rest.starts_with(b"-")) {
            return None;
        }
        let (trace, tail) = tail.split_first_chunk::<32>()?;
        let (parent, tail) = tail.strip_prefix(b"-")?.split_first_chunk::<16>()?;
        let &[b'-', f1, f2] = tail else { return None };
        let flags = hex_pair(f1, f2)? & (SAMPLED | RANDOM);
        (is_id(trace) && is_id(parent)).then(|| Self {
            trace: *trace,
            parent: Some(*parent),
            span: draw(),
            flags,
        })
    }

    /// A new span below this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { parent: Some(self.span), span: draw(), ..*self }
    }

    /// The `traceparent` for whoever is called on behalf of this span.
    #[must_use]
    #[expect(clippy::expect_used, reason = "hex digits and hyphens")]
    pub fn header_value(&self) -> HeaderValue {
        let hex = |digit: u8| HEX.get(usize::from(digit & 15)).copied().unwrap_or(b'0');
        let flags = [hex(self.flags >> 4), hex(self.flags)];
        let mut text = [b'-'; LENGTH];
        for (at, part) in [(0, &b"00"[..]), (3, &self.trace), (36, &self.span), (53, &flags)] {
            if let Some(place) = text.get_mut(at..at + part.len()) {
                place.copy_from_slice(part);
            }
        }
        HeaderValue::from_bytes(&text).expect("hex digits and hyphens are a header value")
    }

    /// 32 hex digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        text(&self.trace)
    }

    /// 16 hex digits.
    #[must_use]
    pub fn span_id(&self) -> &str {
        text(&self.span)
    }

    /// The span above, if it is known.
    #[must_use]
    pub fn parent_id(&self) -> Option<&str> {
        self.parent.as_ref().map(|id| text(id))
    }

    /// Whether the caller records this trace.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// Random hex digits that are not all zero.
fn draw<const N: usize>() -> [u8; N] {
    let mut rng = rand::rng();
    let mut digits = [b'0'; N];
    for chunk in digits.chunks_mut(16) {
        let mut random = rng.next_u64().max(1);
        for digit in chunk {
            *digit = HEX.get(usize::from(random.to_le_bytes()[0] & 15)).copied().unwrap_or(b'0');
            random >>= 4;
        }
    }
    digits
}

fn is_id(digits: &[u8]) -> bool {
    digits.iter().all(|byte| nibble(*byte).is_some()) && digits.iter().any(|byte| *byte != b'0')
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    Some(nibble(high)? << 4 | nibble(low)?)
}

/// Lower case only, as the standard says.
const fn nibble(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

fn text(digits: &[u8]) -> &str {
    // Always: only hex digits get into a context.
    std::str::from_utf8(digits).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn a_valid_parent_is_continued_with_a_span_of_our_own() {
        for (value, flags) in [
            (format!("00-{TRACE}-{PARENT}-01"), "01"),
            (format!("00-{TRACE}-{PARENT}-00"), "00"),
            (format!("00-{TRACE}-{PARENT}-03"), "03"),
            (format!("00-{TRACE}-{PARENT}-ff"), "03"),
            (format!("cc-{TRACE}-{PARENT}-01"), "01"),
            (format!("cc-{TRACE}-{PARENT}-01-what-the-future-brings"), "01"),
        ] {
            let context = TraceContext::resume(value.as_bytes()).expect(&value);
            assert_eq!(context.trace_id(), TRACE);
            assert_eq!(context.parent_id(), Some(PARENT));
            assert_ne!(context.span_id(), PARENT);
            assert_eq!(context.is_sampled(), flags != "00");
            let sent = context.header_value();
            assert_eq!(sent, format!("00-{TRACE}-{}-{flags}", context.span_id()));
        }
    }

    #[test]
    fn an_invalid_parent_is_not_continued() {
        let zeros = "0".repeat(32);
        for value in [
            String::new(),
            format!("00-{TRACE}-{PARENT}"),
            format!("00-{TRACE}-{PARENT}-0"),
            format!("00-{TRACE}-{PARENT}-01-"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("cc-{TRACE}-{PARENT}-01.more"),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("0-{TRACE}-{PARENT}-001"),
            format!("00-{zeros}-{PARENT}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{PARENT}-0G"),
            format!("00-{TRACE}-{PARENT}-0A"),
            format!("00_{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}_{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}_01"),
            format!(" 00-{TRACE}-{PARENT}-01"),
            format!("00-{}g-{PARENT}-01", &TRACE[1..]),
        ] {
            assert_eq!(TraceContext::resume(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_new_trace_is_valid_and_says_whether_it_is_sampled() {
        for sampled in [true, false] {
            let context = TraceContext::start(sampled);
            let again = TraceContext::resume(context.header_value().as_bytes()).unwrap();
            assert_eq!(again.trace_id(), context.trace_id());
            assert_eq!(again.parent_id(), Some(context.span_id()));
            assert_eq!(again.is_sampled(), sampled);
            assert_eq!(context.parent_id(), None);
        }
        assert_ne!(TraceContext::start(true).trace_id(), TraceContext::start(true).trace_id());
    }

    #[test]
    fn a_child_hangs_below_its_parent_in_the_same_trace() {
        let parent = TraceContext::start(true);
        let child = parent.child();
        assert_eq!(child.trace_id(), parent.trace_id());
        assert_eq!(child.parent_id(), Some(parent.span_id()));
        assert_ne!(child.span_id(), parent.span_id());
        assert!(child.is_sampled());
    }
}
