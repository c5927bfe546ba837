//! Where a message ends: `Content-Length` and `Transfer-Encoding` in every disguise.

use crate::case::{Case, cut, passed, post, refused};

const CHUNKED: &[&str] = &["transfer-encoding: chunked"];
const FIVE: &[&str] = &["content-length: 5"];
const POST: &str = "POST /a HTTP/1.1";
const AMBIGUOUS: &str = "ambiguous_framing";
const FIELD: &str = "malformed_field";

pub(crate) fn rows() -> Vec<Case> {
    [both(), encodings(), lengths(), ends()].concat()
}

/// One that says both hopes that two parties choose differently.
#[expect(clippy::too_many_lines, reason = "a table")]
fn both() -> Vec<Case> {
    vec![
        refused(
            post!("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
            400,
            AMBIGUOUS,
        ),
        refused(
            post!(
                "Transfer-Encoding: chunked\r\nContent-Length: 4",
                "5c\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n0\r\n\r\n"
            ),
            400,
            AMBIGUOUS,
        ),
        refused(
            post!("Content-Length: 0\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
            400,
            AMBIGUOUS,
        ),
        refused(
            post!("Content-Length: 6\r\ntransfer-encoding: Chunked", "0\r\n\r\nG"),
            400,
            AMBIGUOUS,
        ),
        refused(
            post!("Content-Length: 6\r\nTransfer-Encoding : chunked", "0\r\n\r\nG"),
            400,
            FIELD,
        ),
        refused(
            post!("Content-Length: 6\r\n Transfer-Encoding: chunked", "0\r\n\r\nG"),
            400,
            FIELD,
        ),
        refused(
            post!("Content-Length: 6\r\nX: y\nTransfer-Encoding: chunked", "0\r\n\r\nG"),
            400,
            "malformed_line",
        ),
        refused(
            post!("Content-Length: 6\r\nX: y\rTransfer-Encoding: chunked", "0\r\n\r\nG"),
            400,
            FIELD,
        ),
        // What only some read as the framing is not passed on.
        passed(
            post!("Content-Length: 5\r\nTransfer_Encoding: chunked", "hello"),
            POST,
            FIVE,
            b"hello",
        ),
        passed(
            post!("Transfer-Encoding: chunked\r\nContent_Length: 3", "5\r\nhello\r\n0\r\n\r\n"),
            POST,
            CHUNKED,
            b"hello",
        )
        .closes(),
        passed(
            post!("Content-Length: 5\r\nTransfer-Encodin: chunked", "hello"),
            POST,
            &["content-length: 5", "transfer-encodin: chunked"],
            b"hello",
        ),
    ]
}

fn encodings() -> Vec<Case> {
    macro_rules! encoding {
        ($value:expr) => {
            post!(concat!("Transfer-Encoding:", $value), "5\r\nhello\r\n0\r\n\r\n")
        };
    }
    let good = [encoding!(" chunked"), encoding!("chunked"), encoding!("\tCHUNKED \t")]
        .map(|raw| passed(raw, POST, CHUNKED, b"hello").closes());
    let bad = [
        encoding!(""),
        encoding!("\r\n chunked"),
        encoding!(" \r\n\tchunked"),
        encoding!(" "),
        encoding!(" identity"),
        encoding!(" chunked, identity"),
        encoding!(" identity, chunked"),
        encoding!(" gzip, chunked"),
        encoding!(" chunked, chunked"),
        encoding!(" chunked,"),
        encoding!(" , chunked"),
        encoding!(" xchunked"),
        encoding!(" chunkedx"),
        encoding!(" chunked;q=1"),
        encoding!(" \"chunked\""),
        encoding!(" 'chunked'"),
        encoding!(" chunk"),
        encoding!(" ch\u{fc}nked"),
        encoding!(" chunked\r\nTransfer-Encoding: chunked"),
        encoding!(" chunked\r\nTransfer-Encoding: identity"),
        encoding!(" identity\r\nTransfer-Encoding: chunked"),
        encoding!(" chunked\r\nTransfer-encoding: cow"),
    ]
    .map(|raw| refused(raw, 400, AMBIGUOUS));
    let torn = [
        encoding!("\x0bchunked"),
        encoding!("\x0cchunked"),
        encoding!("\x00chunked"),
        encoding!(" chunked\x00"),
        encoding!(" chun\x08ked"),
        encoding!(" chunked\r\n\t, identity"),
    ]
    .map(|raw| refused(raw, 400, FIELD));
    let old = [
        &b"POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"[..],
        b"POST /a HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ]
    .map(|raw| refused(raw, 400, AMBIGUOUS));
    [&good[..], &bad, &torn, &old].concat()
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn lengths() -> Vec<Case> {
    macro_rules! length {
        ($value:expr) => {
            post!(concat!("Content-Length:", $value), "hello")
        };
    }
    let good = [length!(" 5"), length!("5"), length!("  5\t")]
        .map(|raw| passed(raw, POST, FIVE, b"hello"));
    let bad = [
        length!(""),
        length!("\r\n 5"),
        length!(" "),
        length!(" +5"),
        length!(" -5"),
        length!(" 5, 5"),
        length!(" 5,5"),
        length!(" 5, 6"),
        length!(" 5,"),
        length!(" 5 5"),
        length!(" 0x5"),
        length!(" 5h"),
        length!(" 5.0"),
        length!(" 5e0"),
        length!(" five"),
        length!(" 5;x"),
        length!(" \"5\""),
        length!(" 1_0"),
        length!(" \u{665}"),
        length!(" 9223372036854775808"),
        length!(" 18446744073709551621"),
        length!(" 99999999999999999999999999999999"),
        length!(" 5\r\nContent-Length: 5"),
        length!(" 5\r\nContent-Length: 6"),
        length!(" 6\r\ncontent-length: 5"),
        length!(" 5\r\nX: y\r\nCONTENT-LENGTH: 0"),
    ]
    .map(|raw| refused(raw, 400, AMBIGUOUS));
    let torn = [
        length!("\x0b5"),
        length!(" 5\x00"),
        length!(" 5\r\n 5"),
        length!(" 5\r\nContent-Length : 5"),
        length!(" 5\r\nContent-Length\t: 5"),
        length!(" 5\r\nContent Length: 5"),
    ]
    .map(|raw| refused(raw, 400, FIELD));
    let more = vec![
        passed(length!(" 00005"), POST, &["content-length: 00005"], b"hello"),
        passed(post!("Content-Length: 0", ""), POST, &["content-length: 0"], b""),
        // Bytes behind a body are the next request, or nothing that is taken for one.
        passed(post!("Content-Length: 3", "hel"), POST, &["content-length: 3"], b"hel"),
        // The 'o' left over is the beginning of a method.
        Case {
            stays: false,
            ..passed(post!("Content-Length: 4", "hello "), POST, &["content-length: 4"], b"hell")
        },
        refused(post!("Content-Length: 65537", ""), 413, "body_too_large"),
        refused(post!("Content-Length: 999999999999999999", ""), 413, "body_too_large"),
        // GET may have a body; it is the body of this message and of no other.
        passed(
            b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 23\r\n\r\nGET /smuggled HTTP/1.1\n",
            "GET /a HTTP/1.1",
            &["content-length: 23"],
            b"GET /smuggled HTTP/1.1\n",
        ),
        passed(
            b"DELETE /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            "DELETE /a HTTP/1.1",
            CHUNKED,
            b"hi",
        )
        .closes(),
        passed(
            b"HEAD /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            "HEAD /a HTTP/1.1",
            FIVE,
            b"hello",
        ),
        // A body for who does not want it.
        refused(
            b"POST /gets HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            401,
            "no_credential",
        ),
        refused(
            b"POST /denied/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            401,
            "no_credential",
        ),
        refused(
            b"POST /denied/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            401,
            "no_credential",
        ),
    ];
    [&good[..], &bad, &torn, &more].concat()
}

/// The client ends its side where the message does not.
fn ends() -> Vec<Case> {
    vec![
        cut(post!("Content-Length: 10", "hello"), 0, "", POST, &["content-length: 10"], b"hello")
            .ends(),
        cut(post!("Transfer-Encoding: chunked", "5\r\nhello\r\n"), 0, "", POST, CHUNKED, b"hello")
            .ends(),
        cut(post!("Transfer-Encoding: chunked", "5\r\nhel"), 0, "", POST, CHUNKED, b"hel").ends(),
        cut(
            post!("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n"),
            0,
            "",
            POST,
            CHUNKED,
            b"hello",
        )
        .ends(),
        refused(b"", 0, "").ends(),
        refused(b"G", 0, "").ends(),
        refused(b"GET /a HTTP/1.1\r\nHost: a\r\n", 0, "").ends(),
        refused(b"\r\n\r\n", 0, "").ends(),
        // Waits for the rest until the body's time is over.
        cut(
            post!("Content-Length: 999", "hello"),
            408,
            "body_timeout",
            POST,
            &["content-length: 999"],
            b"helloGET /canary HTTP/1.1\r\nHost: canary\r\n\r\n",
        ),
    ]
}
