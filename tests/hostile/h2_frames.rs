//! Frames of HTTP/2 out of place, out of shape or out of order.

use crate::h2_heads::{get, open_post, post, with};
use crate::h2_table::Case;
use crate::h2_wire::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PREFACE,
    PRIORITISED, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WHOLE, WINDOW_UPDATE, block, frame,
};

const FIELDS: &[(&str, &[u8])] =
    &[(":method", b"GET"), (":scheme", b"https"), (":path", b"/a"), (":authority", b"a")];

fn head() -> Vec<u8> {
    block(FIELDS)
}

pub(crate) fn rows() -> Vec<Case> {
    [places(), shapes(), heads(), settings(), windows(), openings()].into_iter().flatten().collect()
}

fn places() -> Vec<Case> {
    vec![
        Case::gone("DATA before a head", frame(DATA, END_STREAM, 1, "hello")),
        Case::gone("DATA on stream 0", frame(DATA, 0, 0, "hello")),
        Case::gone("HEADERS on stream 0", frame(HEADERS, WHOLE, 0, head())),
        Case::gone("HEADERS on a stream of ours", frame(HEADERS, WHOLE, 2, head())),
        Case::gone(
            "PUSH_PROMISE",
            [
                open_post(&[]),
                frame(PUSH_PROMISE, END_HEADERS, 1, [&[0, 0, 0, 2][..], &head()].concat()),
            ]
            .concat(),
        ),
        Case::gone("SETTINGS on a stream", frame(SETTINGS, 0, 1, [])),
        Case::gone("PING on a stream", frame(PING, 0, 1, [0; 8])),
        Case::gone("GOAWAY on a stream", frame(GOAWAY, 0, 1, [0; 8])),
        Case::gone("RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, [0; 4])),
        Case::gone("RST_STREAM of an idle stream", frame(RST_STREAM, 0, 1, [0, 0, 0, 8])),
        Case::gone("WINDOW_UPDATE of an idle stream", frame(WINDOW_UPDATE, 0, 1, [0, 0, 0, 1])),
        Case::gone("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, head())),
        Case::passed(
            "an unknown frame",
            [frame(99, 0, 1, "what"), frame(98, 0xff, 0, "ever"), with(&[])].concat(),
            get(&[]),
        ),
        Case::passed(
            "a PRIORITY before",
            [frame(PRIORITY, 0, 1, [0, 0, 0, 3, 1]), with(&[])].concat(),
            get(&[]),
        ),
    ]
}

fn shapes() -> Vec<Case> {
    let padded = |pad: u8, block: &[u8], padding: usize| {
        let payload = [&[pad][..], block, &vec![0; padding]].concat();
        frame(HEADERS, WHOLE | PADDED, 1, payload)
    };
    let weighed = |stream: u8| {
        frame(HEADERS, WHOLE | PRIORITISED, 1, [&[0, 0, 0, stream, 16][..], &head()].concat())
    };
    vec![
        Case::passed("padding of no length", padded(0, &head(), 0), get(&[])),
        Case::passed("padding", padded(9, &head(), 9), get(&[])),
        Case::gone("more padding than frame", padded(255, &head(), 9)),
        Case::gone("padding without its length", frame(HEADERS, WHOLE | PADDED, 1, [])),
        Case::passed("a weight", weighed(0), get(&[])),
        Case::reset("a stream that depends on itself", weighed(1)),
        Case::gone("a PRIORITY of four bytes", frame(PRIORITY, 0, 1, [0; 4])),
        Case::gone(
            "a RST_STREAM of three bytes",
            [open_post(&[]), frame(RST_STREAM, 0, 1, [0; 3])].concat(),
        ),
        Case::gone("a PING of seven bytes", frame(PING, 0, 0, [0; 7])),
        Case::gone("a GOAWAY of four bytes", frame(GOAWAY, 0, 0, [0; 4])),
        Case::gone("a WINDOW_UPDATE of three bytes", frame(WINDOW_UPDATE, 0, 0, [0; 3])),
        Case::gone("a frame above the size", frame(HEADERS, WHOLE, 1, vec![0; 16_385])),
        Case::gone(
            "DATA with more padding than frame",
            [open_post(&[]), frame(DATA, PADDED, 1, [9, 0])].concat(),
        ),
    ]
}

fn heads() -> Vec<Case> {
    let (first, rest) = (head()[..9].to_vec(), head()[9..].to_vec());
    let begun = frame(HEADERS, END_STREAM, 1, &first);
    let bad = |name: &str, block: &[u8]| {
        Case::gone(&format!("HPACK: {name}"), frame(HEADERS, WHOLE, 1, [&head(), block].concat()))
    };
    vec![
        Case::passed(
            "a head in two frames",
            [begun.clone(), frame(CONTINUATION, END_HEADERS, 1, &rest)].concat(),
            get(&[]),
        ),
        Case::passed(
            "a head in two frames, one empty",
            [
                begun.clone(),
                frame(CONTINUATION, 0, 1, []),
                frame(CONTINUATION, END_HEADERS, 1, &rest),
            ]
            .concat(),
            get(&[]),
        ),
        Case::gone("a PING inside a head", [begun.clone(), frame(PING, 0, 0, [0; 8])].concat()),
        Case::gone("DATA inside a head", [begun.clone(), frame(DATA, 0, 1, "x")].concat()),
        Case::gone(
            "another stream inside a head",
            [begun.clone(), frame(HEADERS, WHOLE, 3, head())].concat(),
        ),
        Case::gone(
            "another stream's CONTINUATION",
            [begun, frame(CONTINUATION, END_HEADERS, 3, &rest)].concat(),
        ),
        bad("index 0", &[0x80]),
        bad("an index that is not there", &[0xff, 0x7f]),
        bad("a table above the size", &[0x3f, 0xff, 0xff, 0x7f]),
        bad(
            "a number without end",
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ),
        bad("a text that is cut off", &[0x00, 0x7f, b'x']),
        bad("an end inside Huffman", &[0x00, 0x01, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]),
        Case::gone("a head after the end", [with(&[]), with(&[])].concat()),
    ]
}

fn settings() -> Vec<Case> {
    let set = |name: &str, id: u8, value: u32| {
        let payload = [&[0, id][..], &value.to_be_bytes()].concat();
        Case::gone(&format!("SETTINGS: {name}"), frame(SETTINGS, 0, 0, payload))
    };
    let harmless = frame(SETTINGS, 0, 0, [&[0, 99, 0, 0, 0, 1][..], &[0, 1, 0, 0, 0, 0]].concat());
    vec![
        set("push of two", 2, 2),
        set("a window above the size", 4, 1 << 31),
        set("frames too small", 5, 16_383),
        set("frames too large", 5, 1 << 24),
        Case::gone("SETTINGS: five bytes", frame(SETTINGS, 0, 0, [0; 5])),
        Case::gone("SETTINGS: acknowledged with more", frame(SETTINGS, 1, 0, [0; 6])),
        Case::passed("SETTINGS: unknown ones", [harmless, with(&[])].concat(), get(&[])),
    ]
}

fn windows() -> Vec<Case> {
    let most = (i32::MAX).to_be_bytes();
    let chunked = &["transfer-encoding: chunked"];
    let update = |stream: u32, by: &[u8]| frame(WINDOW_UPDATE, 0, stream, by);
    vec![
        Case::gone("a window by nothing", update(0, &[0; 4])),
        Case::gone("a window over its end", update(0, &most)),
        Case::gone("a stream\'s window by nothing", [open_post(&[]), update(1, &[0; 4])].concat()),
        Case::reset("a stream's window over its end", [open_post(&[]), update(1, &most)].concat())
            .cut(post(chunked, b"")),
    ]
}

/// `!` stands for an opening that is not HTTP/2's.
fn openings() -> Vec<Case> {
    let raw = |text: &[u8]| [b"!", text].concat();
    let half = PREFACE[..20].to_vec();
    vec![
        Case::gone(
            "HTTP/1.1 where HTTP/2 was agreed on",
            raw(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"),
        ),
        Case::gone("a preface of another version", raw(b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n")),
        Case::gone("half a preface", raw(&[half, with(&[])].concat())),
        Case::gone("frames without a preface", raw(&with(&[]))),
        Case::passed("no SETTINGS", raw(&[PREFACE, &with(&[])].concat()), get(&[])),
    ]
}
