//! Chunks that are none. What is passed on is framed anew, so a row says what was taken for the body.

use crate::case::{Case, cut, passed};

const CHUNKED: &[&str] = &["transfer-encoding: chunked"];
const POST: &str = "POST /a HTTP/1.1";

macro_rules! chunks {
    ($chunks:expr) => {
        crate::case::post!("Transfer-Encoding: chunked", $chunks)
    };
}

/// Taken, and this is the body. What was sent behind it is not answered: the connection ends.
const fn whole(raw: &'static [u8], body: &'static [u8]) -> Case {
    passed(raw, POST, CHUNKED, body).closes()
}

/// Refused; the upstream has this much of it, and sees it cut off.
const fn broken(raw: &'static [u8], body: &'static [u8]) -> Case {
    cut(raw, 400, "malformed_body", POST, CHUNKED, body)
}

pub(crate) fn rows() -> Vec<Case> {
    [sizes(), extensions(), ends(), trailers(), laxer()].concat()
}

fn sizes() -> Vec<Case> {
    vec![
        whole(chunks!("5\r\nhello\r\n0\r\n\r\n"), b"hello"),
        whole(chunks!("3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"), b"hello"),
        whole(chunks!("0\r\n\r\n"), b""),
        whole(chunks!("5\r\nhello\r\n0\r\n\r\n"), b"hello").waits(),
        whole(chunks!("0\r\n\r\n"), b"").waits(),
        whole(chunks!("5;x=y\r\nhello\r\n0\r\nX: y\r\n\r\n"), b"hello").waits(),
        whole(chunks!("0000\r\n\r\n"), b""),
        whole(chunks!("0005\r\nhello\r\n000\r\n\r\n"), b"hello"),
        whole(chunks!("a\r\n0123456789\r\n0\r\n\r\n"), b"0123456789"),
        whole(chunks!("A\r\n0123456789\r\n0\r\n\r\n"), b"0123456789"),
        broken(chunks!("0x5\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("x\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("5h\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("-5\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("+5\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("-0\r\n\r\n"), b""),
        broken(chunks!("5 5\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("5,5\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!(" 5\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("\t5\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("\x005\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("5\x00\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("\u{665}\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("1_0\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("5.0\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("10000000000000005\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("fffffffffffffffff\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("00000000000000005\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("5\r\nhello\r\n0x0\r\n\r\n"), b"hello"),
        broken(chunks!("5\r\nhello\r\n-1\r\n\r\n"), b"hello"),
    ]
}

fn extensions() -> Vec<Case> {
    vec![
        whole(chunks!("5;x\r\nhello\r\n0\r\n\r\n"), b"hello"),
        whole(chunks!("5;x=y\r\nhello\r\n0;z\r\n\r\n"), b"hello"),
        whole(chunks!("5;x=\"y z\"\r\nhello\r\n0\r\n\r\n"), b"hello"),
        broken(chunks!("5;x\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("5;x\r\rhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("5;x\rhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("5;\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n0\r\n\r\n"), b""),
    ]
}

fn ends() -> Vec<Case> {
    vec![
        broken(chunks!("5\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("5\rhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("5\r\nhello\n0\r\n\r\n"), b""),
        broken(chunks!("5\r\nhello\r0\r\n\r\n"), b""),
        broken(chunks!("5\r\nhello0\r\n\r\n"), b""),
        broken(chunks!("5\r\nhelloworld\r\n0\r\n\r\n"), b""),
        broken(chunks!("4\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("6\r\nhello\r\n0\r\n\r\n"), b""),
        broken(chunks!("5\r\nhello\r\n0\n\r\n"), b"hello"),
        broken(chunks!("5\r\nhello\r\n0\r\n\n"), b"hello"),
        broken(chunks!("5\r\nhello\r\n0\r\r\n"), b"hello"),
        broken(chunks!("5\r\nhello\r\n0\n\n"), b"hello"),
        broken(chunks!("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"), b""),
    ]
}

/// None is passed on, whatever it names.
fn trailers() -> Vec<Case> {
    vec![
        whole(chunks!("5\r\nhello\r\n0\r\nX: y\r\n\r\n"), b"hello"),
        whole(chunks!("5\r\nhello\r\n0\r\nX-Consumer-Id: admin\r\nX: y\r\n\r\n"), b"hello"),
        whole(chunks!("5\r\nhello\r\n0\r\nX_Consumer_Id: admin\r\n\r\n"), b"hello"),
        whole(chunks!("5\r\nhello\r\n0\r\nContent-Length: 99\r\n\r\n"), b"hello"),
        whole(chunks!("5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"), b"hello"),
        whole(chunks!("5\r\nhello\r\n0\r\nHost: inner.test\r\n\r\n"), b"hello"),
        whole(chunks!("5\r\nhello\r\n0\r\nAuthorization: Bearer x\r\n\r\n"), b"hello"),
        whole(
            chunks!("5\r\nhello\r\n0\r\nX-API-Key: x\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"),
            b"hello",
        ),
        broken(chunks!("5\r\nhello\r\n0\r\nX: y\nZ: a\r\n\r\n"), b"hello"),
        broken(chunks!("5\r\nhello\r\n0\r\nX: y\rZ: a\r\n\r\n"), b"hello"),
        broken(
            chunks!("5\r\nhello\r\n0\r\nX: y\n\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
            b"hello",
        ),
    ]
}

/// Pingora's reader of chunks is laxer than RFC 9112 here, and what is passed on is clean.
fn laxer() -> Vec<Case> {
    vec![
        whole(chunks!("5;\n\r\nhello\r\n0\r\n\r\n"), b"hello"),
        whole(
            chunks!("2;\nxx\r\n45\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n0\r\n\r\n"),
            b"45",
        ),
        whole(chunks!("5\r\nhello\r\n\r\n0\r\n\r\n"), b"hello"),
        whole(chunks!("\r\n5\r\nhello\r\n0\r\n\r\n"), b""),
        whole(chunks!(";\r\n\r\n"), b""),
    ]
}
