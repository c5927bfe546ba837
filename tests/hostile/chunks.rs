//! Chunks that are none. What is passed on is framed anew, so a row says what was taken for the body.

use crate::case::{Case, passed, refused};
use crate::recorder::{End, Recorder};
use crate::support::raw::RawClient;
use crate::table;

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

/// Refused before anything of it goes on: what is wrong came with the head.
const fn broken(raw: &'static [u8]) -> Case {
    refused(raw, 400, "ambiguous_framing")
}

pub(crate) fn rows() -> Vec<Case> {
    [sizes(), extensions(), ends(), trailers(), taken_by_others()].concat()
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
        broken(chunks!("0x5\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("x\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("5h\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("-5\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("+5\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("-0\r\n\r\n")),
        broken(chunks!("5 5\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("5,5\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!(" 5\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("\t5\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("\x005\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("5\x00\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("\u{665}\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("1_0\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("5.0\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("10000000000000005\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("fffffffffffffffff\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("00000000000000005\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("5\r\nhello\r\n0x0\r\n\r\n")),
        broken(chunks!("5\r\nhello\r\n-1\r\n\r\n")),
    ]
}

fn extensions() -> Vec<Case> {
    vec![
        whole(chunks!("5;x\r\nhello\r\n0\r\n\r\n"), b"hello"),
        whole(chunks!("5;x=y\r\nhello\r\n0;z\r\n\r\n"), b"hello"),
        whole(chunks!("5;x=\"y z\"\r\nhello\r\n0\r\n\r\n"), b"hello"),
        broken(chunks!("5;x\nhello\r\n0\r\n\r\n")),
        broken(chunks!("5;x\r\rhello\r\n0\r\n\r\n")),
        broken(chunks!("5;x\rhello\r\n0\r\n\r\n")),
        broken(chunks!("5;\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n0\r\n\r\n")),
    ]
}

fn ends() -> Vec<Case> {
    vec![
        broken(chunks!("5\nhello\r\n0\r\n\r\n")),
        broken(chunks!("5\rhello\r\n0\r\n\r\n")),
        broken(chunks!("5\r\nhello\n0\r\n\r\n")),
        broken(chunks!("5\r\nhello\r0\r\n\r\n")),
        broken(chunks!("5\r\nhello0\r\n\r\n")),
        broken(chunks!("5\r\nhelloworld\r\n0\r\n\r\n")),
        broken(chunks!("4\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("6\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("5\r\nhello\r\n0\n\r\n")),
        broken(chunks!("5\r\nhello\r\n0\r\n\n")),
        broken(chunks!("5\r\nhello\r\n0\r\r\n")),
        broken(chunks!("5\r\nhello\r\n0\n\n")),
        broken(chunks!("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")),
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
        broken(chunks!("5\r\nhello\r\n0\r\nX: y\nZ: a\r\n\r\n")),
        broken(chunks!("5\r\nhello\r\n0\r\nX: y\rZ: a\r\n\r\n")),
        broken(chunks!("5\r\nhello\r\n0\r\nX: y\n\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")),
    ]
}

/// Pingora's own reader of chunks would take these.
fn taken_by_others() -> Vec<Case> {
    vec![
        broken(chunks!(" \r\n\r\n")),
        broken(chunks!("5 \r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("5;x\x00\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!("5\r\nhello\r\n0\r\nX: \x00\r\n\r\n")),
        broken(chunks!("5;\n\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!(
            "2;\nxx\r\n45\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n0\r\n\r\n"
        )),
        broken(chunks!("5\r\nhello\r\n\r\n0\r\n\r\n")),
        broken(chunks!("\r\n5\r\nhello\r\n0\r\n\r\n")),
        broken(chunks!(";\r\n\r\n")),
    ]
}

#[tokio::test]
async fn a_chunk_that_is_none_is_refused_however_late_it_comes() {
    let (recorder, address) = Recorder::start().await;
    let gateway = table::describe(address).start().await;
    for chunk in
        ["\r\n", ";\r\n", "5 \r\nhello", "5;\n\r\nhello", "5\nhello", "x", "0\r\nX: y\n\r\n"]
    {
        let before = recorder.count();
        let mut client = RawClient::connect(gateway.address()).await;
        client.send(chunks!("2\r\nhi\r\n")).await;
        crate::support::eventually("its beginning at the upstream", || {
            (recorder.count() > before).then_some(())
        })
        .await;
        client.send(chunk).await;
        let response = client.response().await;
        assert_eq!(response.status(), 400, "{chunk:?}");
        assert!(response.text().contains("\"malformed_body\""), "{}", response.text());
        client.expect_closed().await;
        let seen = recorder.since(before, 1).await;
        assert_eq!((seen.len(), seen[0].end), (1, End::Cut), "{chunk:?}");
        assert!(b"hi".starts_with(&seen[0].body), "{chunk:?}: {seen:?}");
    }
}
