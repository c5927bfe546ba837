//! Request lines and fields that are none, and heads that are too much.

use crate::case::{Case, get, kept, passed, refused};

const GET: &str = "GET /a HTTP/1.1";
const FIELD: &str = "malformed_field";
const LINE: &str = "malformed_line";
const METHOD: &str = "bad_method";
const TARGET: &str = "bad_target";
const REQUEST_LINE: &str = "malformed_request_line";

pub(crate) fn rows() -> Vec<Case> {
    [request_lines(), methods(), fields(), high_bytes(), sizes()].concat()
}

fn request_lines() -> Vec<Case> {
    macro_rules! line {
        ($line:expr) => {
            concat!($line, "\r\nHost: a\r\n\r\n").as_bytes()
        };
    }
    vec![
        // Empty lines before a request are to be skipped.
        passed(line!("\r\nGET /a HTTP/1.1"), GET, &[], b""),
        passed(line!("\r\n\r\n\r\nGET /a HTTP/1.1"), GET, &[], b""),
        refused(line!("\nGET /a HTTP/1.1"), 400, LINE),
        refused(line!("\r\rGET /a HTTP/1.1"), 501, METHOD),
        refused(line!(" GET /a HTTP/1.1"), 501, METHOD),
        refused(line!("\tGET /a HTTP/1.1"), 501, METHOD),
        refused(line!("GET  /a HTTP/1.1"), 400, TARGET),
        refused(line!("GET /a  HTTP/1.1"), 400, TARGET),
        refused(line!("GET /a HTTP/1.1 "), 400, TARGET),
        refused(line!("GET\t/a HTTP/1.1"), 400, REQUEST_LINE),
        refused(line!("GET /a\tHTTP/1.1"), 400, REQUEST_LINE),
        refused(line!("GET /a HTTP/1.1\t"), 505, "bad_version"),
        refused(line!("GET\x0b/a HTTP/1.1"), 400, REQUEST_LINE),
        refused(line!("GET /a\x0bHTTP/1.1"), 400, REQUEST_LINE),
        refused(line!("GET /a b HTTP/1.1"), 400, TARGET),
        refused(line!("GET /a HTTP/1.1 HTTP/1.1"), 400, TARGET),
        refused(line!("GET /a"), 400, REQUEST_LINE),
        refused(line!("GET "), 400, REQUEST_LINE),
        refused(line!("GET"), 400, REQUEST_LINE),
        refused(line!("/a HTTP/1.1"), 400, REQUEST_LINE),
        refused(b"GET /a\r\n\r\n", 400, REQUEST_LINE),
        refused(line!("GET /a HTTP/0.9"), 505, "bad_version"),
        refused(line!("GET /a HTTP/1.2"), 505, "bad_version"),
        refused(line!("GET /a HTTP/2.0"), 505, "bad_version"),
        refused(line!("GET /a HTTP/2"), 505, "bad_version"),
        refused(line!("GET /a HTTP/3.0"), 505, "bad_version"),
        refused(line!("GET /a HTTP/1"), 505, "bad_version"),
        refused(line!("GET /a HTTP/1.10"), 505, "bad_version"),
        refused(line!("GET /a HTTP/01.1"), 505, "bad_version"),
        refused(line!("GET /a HTTP/1,1"), 505, "bad_version"),
        refused(line!("GET /a HTTP/ 1.1"), 400, TARGET),
        refused(line!("GET /a http/1.1"), 400, REQUEST_LINE),
        refused(line!("GET /a Http/1.1"), 400, REQUEST_LINE),
        refused(line!("GET /a HTTPS/1.1"), 400, REQUEST_LINE),
        refused(line!("GET /a ICAP/1.0"), 400, REQUEST_LINE),
        refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "bad_version"),
        refused(b"GET /a HTTP/1.1\nHost: a\n\n\r\n\r\n", 400, LINE),
        refused(b"GET /a HTTP/1.1\r\nHost: a\n\r\n\r\n", 400, LINE),
        refused(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 /a HTTP/1.1\r\n\r\n", 501, METHOD),
        passed(b"GET /a HTTP/1.0\r\nHost: a\r\n\r\n", GET, &[], b"").closes(),
        passed(b"GET /a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", GET, &[], b""),
    ]
}

fn methods() -> Vec<Case> {
    macro_rules! method {
        ($method:expr) => {
            concat!($method, " /a HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()
        };
    }
    let bad = [
        method!("G\x00ET"),
        method!("G(ET"),
        method!("GET,"),
        method!("G\u{c9}T"),
        method!("\"GET\""),
        method!("GET:"),
        method!("GET/"),
        method!("CONNECT"),
        method!("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456"),
    ]
    .map(|raw| refused(raw, 501, METHOD));
    let more = vec![
        refused(b"CONNECT inner.test:443 HTTP/1.1\r\nHost: inner.test:443\r\n\r\n", 501, METHOD),
        kept(method!("TRACE"), 501, METHOD),
        // Not ours to know; no method is another in disguise.
        passed(method!("get"), "get /a HTTP/1.1", &[], b""),
        passed(method!("PURGE"), "PURGE /a HTTP/1.1", &[], b""),
        passed(method!("TRACK"), "TRACK /a HTTP/1.1", &[], b""),
        passed(method!("connect"), "connect /a HTTP/1.1", &[], b""),
        passed(method!("trace"), "trace /a HTTP/1.1", &[], b""),
        passed(method!("PRI"), "PRI /a HTTP/1.1", &[], b""),
        kept(b"post /gets HTTP/1.1\r\nHost: a\r\n\r\n", 401, "no_credential"),
        kept(b"gEt /gets HTTP/1.1\r\nHost: a\r\n\r\n", 401, "no_credential"),
        // A field is no method.
        kept(
            b"DELETE /gets HTTP/1.1\r\nHost: a\r\nX-HTTP-Method-Override: GET\r\n\r\n",
            401,
            "no_credential",
        ),
        passed(
            b"GET /gets HTTP/1.1\r\nHost: a\r\nX-HTTP-Method-Override: DELETE\r\n\r\n",
            "GET /gets HTTP/1.1",
            &["x-http-method-override: DELETE"],
            b"",
        ),
        passed(
            b"GET /gets?_method=DELETE HTTP/1.1\r\nHost: a\r\nX-Method-Override: DELETE\r\n\r\n",
            "GET /gets?_method=DELETE HTTP/1.1",
            &["x-method-override: DELETE"],
            b"",
        ),
    ];
    [&bad[..], &more].concat()
}

fn fields() -> Vec<Case> {
    let bad = [
        get!("X : y"),
        get!("X\t: y"),
        get!(" X: y"),
        get!("\tX: y"),
        get!("X: y", " folded"),
        get!("X: y", "\tfolded"),
        get!("X: y", " "),
        get!(": y"),
        get!(":"),
        get!("nothing"),
        get!("X y: z"),
        get!("X\x00: y"),
        get!("X\x0b: y"),
        get!("(X): y"),
        get!("X@: y"),
        get!("X/: y"),
        get!("[X]: y"),
        get!("X\u{e4}: y"),
        get!("X\u{2d}\u{200b}: y"),
        get!("X: y\x00z"),
        get!("X: \x01"),
        get!("X: y\x07z"),
        get!("X: y\x0bz"),
        get!("X: y\x1b[31mz"),
        get!("X: y\x7fz"),
        get!("X: y\rZ: a"),
        get!("X: y\r"),
        get!("X: \r\r"),
    ]
    .map(|raw| refused(raw, 400, FIELD));
    let torn = [get!("X: y\nZ: a"), get!("X: y\n Z: a"), get!("X: y\n"), get!("X\n: y")]
        .map(|raw| refused(raw, 400, LINE));
    let good = vec![
        passed(get!("X:"), GET, &["x: "], b""),
        passed(get!("X: \t y \t "), GET, &["x: y"], b""),
        passed(get!("X: a\tb"), GET, &["x: a\tb"], b""),
        passed(get!("X: y: z"), GET, &["x: y: z"], b""),
        passed(get!("X: GET /smuggled HTTP/1.1"), GET, &["x: GET /smuggled HTTP/1.1"], b""),
        passed(get!("x_y: z"), GET, &["x_y: z"], b""),
        passed(get!("X.Y~!#$%&'*+^`|: z"), GET, &["x.y~!#$%&'*+^`|: z"], b""),
        passed(get!("X: 1", "X: 2", "x: 3"), GET, &["x: 1", "x: 2", "x: 3"], b""),
        passed(get!("Range: bytes=0-,0-,0-,0-,0-"), GET, &["range: bytes=0-,0-,0-,0-,0-"], b""),
        passed(get!("Cookie: a=b", "Cookie: c=d"), GET, &["cookie: a=b; c=d"], b""),
        passed(get!("Cookie: a=b; a=c;;"), GET, &["cookie: a=b; a=c;;"], b""),
    ];
    [&bad[..], &torn, &good].concat()
}

fn high_bytes() -> Vec<Case> {
    vec![
        passed(
            b"GET /a HTTP/1.1\r\nHost: a\r\nX: \xff\xfe\r\n\r\n",
            GET,
            &["x: \u{fffd}\u{fffd}"],
            b"",
        ),
        passed(b"GET /a HTTP/1.1\r\nHost: a\r\nX: \xc3\xa4\r\n\r\n", GET, &["x: \u{e4}"], b""),
        refused(b"GET /a HTTP/1.1\r\nHost: a\r\n\xffX: y\r\n\r\n", 400, FIELD),
        kept(b"GET /a HTTP/1.1\r\nHost: a\xff\r\n\r\n", 400, "bad_host"),
        refused(b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400, TARGET),
        refused(b"GET /a HTTP/1.1\r\nHost: a\r\nX\xc4\xb1: y\r\n\r\n", 400, FIELD),
    ]
}

fn sizes() -> Vec<Case> {
    let leak = |text: String| -> &'static [u8] { text.into_bytes().leak() };
    let lines = |count: usize, line: &str| -> &'static [u8] {
        leak(format!("GET /a HTTP/1.1\r\nHost: a\r\n{}\r\n", format!("{line}\r\n").repeat(count)))
    };
    let target = |length: usize| -> &'static [u8] {
        leak(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length - 1)))
    };
    vec![
        refused(lines(100, "X: y"), 431, "too_many_fields"),
        refused(lines(5000, "X:"), 431, "too_many_fields"),
        refused(lines(1, &format!("X: {}", "y".repeat(33_000))), 431, "head_too_large"),
        refused(lines(1, &format!("{}: y", "X".repeat(33_000))), 431, "head_too_large"),
        refused(leak("G".repeat(40_000)), 431, "head_too_large"),
        passed(
            leak(format!("{}GET /a HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n".repeat(40_000))),
            GET,
            &[],
            b"",
        ),
        refused(target(8193), 414, "target_too_long"),
        refused(target(30_000), 414, "target_too_long"),
        kept(
            leak(format!("GET /a HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(256))),
            400,
            "bad_host",
        ),
        refused(leak(format!("{} /a HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(8192))), 501, METHOD),
    ]
}
