//! Targets that two parties could read in two ways.

use crate::case::{Case, kept, passed, refused, target};

const BAD: &str = "bad_target";

#[expect(clippy::too_many_lines, reason = "a table")]
pub(crate) fn rows() -> Vec<Case> {
    // Refused as bytes, before anything is decided.
    let bytes = [
        target!(""),
        target!("a"),
        target!("?a"),
        target!("#a"),
        target!("a/b"),
        target!("../a"),
        target!("**"),
        target!("*?x"),
        target!("*a"),
        target!("/a#b"),
        target!("/a?b#c"),
        target!("/a\x00"),
        target!("/a\x01"),
        target!("/a\tb"),
        target!("/a\x0bb"),
        target!("/a\x7f"),
        target!("/a?\x00"),
        target!("/\u{e4}"),
        target!("/a?\u{e4}"),
        target!("/\"a\""),
        target!("/<a>"),
        target!("/`a`"),
        target!("a:443"),
        target!("inner.test:443"),
        target!("ftp://a/a"),
        target!("file:///etc/passwd"),
        target!("javascript:alert(1)"),
        target!("http:/a"),
        target!("http:a"),
        target!("http//a/a"),
        target!("http://"),
        target!("http:///a"),
        target!("http://?a"),
        target!("http://user@a/a"),
        target!("http://user:password@a/a"),
        target!("http://a@inner.test/a"),
        target!("http://a:0/a"),
        target!("http://a:x/a"),
        target!("http://a\\@inner.test/a"),
        target!("http://a,inner.test/a"),
        target!("http://[::1/a"),
        target!("//inner.test:80\x00/a"),
    ]
    .map(|raw| refused(raw, 400, BAD));
    // Refused for what they mean.
    let meaning = [
        target!("*"),
        target!("/.."),
        target!("/../../etc/passwd"),
        target!("/%2e%2e/etc/passwd"),
        target!("/a/..%2f..%2fetc"),
        target!("/a%2fb"),
        target!("/a%5cb"),
        target!("/a\\b"),
        target!("/a%00.html"),
        target!("/a%0d%0aX:y"),
        target!("/a%0a"),
        target!("/a%09"),
        target!("/a%7f"),
        target!("/%"),
        target!("/%4"),
        target!("/%zz"),
        target!("/%u0061"),
        target!("/a;b"),
        target!("/a;jsessionid=1"),
        target!("/..;/a"),
        target!("/%c0%ae%c0%ae/"),
        target!("/%e0%80%af"),
        target!("/%f0%80%80%af"),
        target!("http://a/.."),
        target!("http://a/a;b"),
    ]
    .map(|raw| kept(raw, 400, BAD));
    let passes = [
        (target!("//inner.test/a"), "GET /inner.test/a HTTP/1.1"),
        (target!("/http://inner.test/a"), "GET /http:/inner.test/a HTTP/1.1"),
        (target!("/@inner.test/a"), "GET /@inner.test/a HTTP/1.1"),
        (target!("/%2561"), "GET /%2561 HTTP/1.1"),
        (target!("/%252e%252e/a"), "GET /%252e%252e/a HTTP/1.1"),
        (target!("/a%20HTTP/1.1"), "GET /a%20HTTP/1.1 HTTP/1.1"),
        (target!("/a?b=/../c//d%2F%00;\\"), "GET /a?b=/../c//d%2F%00;\\ HTTP/1.1"),
        (target!("/a?%0d%0aX:y"), "GET /a?%0d%0aX:y HTTP/1.1"),
        (target!("/a??"), "GET /a?? HTTP/1.1"),
        (target!("/a[b]|{c}^"), "GET /a%5Bb%5D%7C%7Bc%7D%5E HTTP/1.1"),
        (target!("/a/./b/../c"), "GET /a/c HTTP/1.1"),
        (target!("http://a"), "GET / HTTP/1.1"),
        (target!("http://a?b"), "GET /?b HTTP/1.1"),
        (target!("HTTPS://a/a//b"), "GET /a/b HTTP/1.1"),
    ]
    .map(|(raw, line)| passed(raw, line, &[], b""));
    let asterisk = [
        kept(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 404, "no_route"),
        kept(b"POST * HTTP/1.1\r\nHost: a\r\n\r\n", 400, BAD),
        passed(b"OPTIONS /* HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS /* HTTP/1.1", &[], b""),
    ];
    [&bytes[..], &meaning, &passes, &asterisk].concat()
}
