//! Whom a request is for, said twice or not at all.

use crate::case::{Case, host, kept, passed, refused};

const BAD: &str = "bad_host";
const GET: &str = "GET /a HTTP/1.1";

#[expect(clippy::too_many_lines, reason = "a table")]
pub(crate) fn rows() -> Vec<Case> {
    let bad = [
        b"GET /a HTTP/1.1\r\n\r\n",
        host!(" a\r\nHost: a"),
        host!(" a\r\nHost: inner.test"),
        host!(" a\r\nX: y\r\nhOST: b"),
        host!(" user@a"),
        host!(" user:password@a"),
        host!(" inner.test@a"),
        host!(" a@inner.test"),
        host!(" a:80@inner.test"),
    ]
    .map(|raw| refused(raw, 400, BAD));
    let odd = [
        host!(""),
        host!(" "),
        host!(" ,"),
        host!(" a, inner.test"),
        host!(" a,inner.test"),
        host!(" a inner.test"),
        host!(" a\tinner.test"),
        host!(" a/inner.test"),
        host!(" a/../inner.test"),
        host!(" a\\inner.test"),
        host!(" a?inner.test"),
        host!(" a#inner.test"),
        host!(" http://a"),
        host!(" a:"),
        host!(" a:0"),
        host!(" a:65536"),
        host!(" a:-1"),
        host!(" a:+80"),
        host!(" a:8o"),
        host!(" a:80:80"),
        host!(" :80"),
        host!(" ."),
        host!(" .."),
        host!(" .a"),
        host!(" a..b"),
        host!(" a.."),
        host!(" %61"),
        host!(" inner%2etest"),
        host!(" *"),
        host!(" *.test"),
        host!(" [::1"),
        host!(" [::1]x"),
        host!(" [::1]:x"),
        host!(" [::g]"),
        host!(" [127.0.0.1]"),
        host!(" [fe80::1%25lo]"),
        host!(" ::1"),
        host!(" inner.test\u{3002}"),
        host!(" \u{ff49}nner.test"),
    ];
    // An empty port is the scheme's own.
    let odd = odd.into_iter().filter(|raw| *raw != host!(" a:")).map(|raw| kept(raw, 400, BAD));
    let more = [
        // The closed host in other spellings is the closed host.
        kept(host!(" inner.test"), 401, "no_credential"),
        kept(host!("inner.test"), 401, "no_credential"),
        kept(host!(" INNER.test"), 401, "no_credential"),
        kept(host!(" inner.test."), 401, "no_credential"),
        kept(host!(" inner.test:80"), 401, "no_credential"),
        kept(host!(" Inner.Test.:65535"), 401, "no_credential"),
        kept(host!(" inner.test:"), 401, "no_credential"),
        refused(host!("\r\n inner.test"), 400, "malformed_field"),
        refused(host!(" a\r\n inner.test"), 400, "malformed_field"),
        refused(host!(" a\x00"), 400, "malformed_field"),
        refused(host!(" a\x0b"), 400, "malformed_field"),
        // Nothing else names it.
        passed(host!(" a\r\nX-Host: inner.test"), GET, &["x-host: inner.test"], b""),
        passed(host!(" a\r\nX-Forwarded-Host: inner.test"), GET, &[], b""),
        passed(
            host!(" a\r\nX-Original-Host: inner.test"),
            GET,
            &["x-original-host: inner.test"],
            b"",
        ),
        passed(host!(" a\r\nForwarded: host=inner.test"), GET, &[], b""),
        passed(host!(" a\r\nHost_: inner.test"), GET, &["host_: inner.test"], b""),
        refused(host!(" a\r\nHost : inner.test"), 400, "malformed_field"),
        passed(host!(" b:8080"), GET, &["host: b:8080"], b""),
        passed(host!(" A"), GET, &["host: A"], b""),
        passed(host!(" a."), GET, &["host: a."], b""),
        passed(host!(" [::1]:80"), GET, &["host: [::1]:80"], b""),
        passed(host!(" 127.0.0.1"), GET, &["host: 127.0.0.1"], b""),
        passed(host!(" 2130706433"), GET, &["host: 2130706433"], b""),
        passed(b"GET http://b/a HTTP/1.1\r\nHost: b\r\n\r\n", GET, &["host: b"], b""),
        passed(b"GET http://b/a HTTP/1.0\r\n\r\n", GET, &["host: b"], b"").closes(),
        refused(b"GET http://b/a HTTP/1.1\r\n\r\n", 400, BAD),
        refused(b"GET http://b/a HTTP/1.1\r\nHost: a\r\n\r\n", 400, BAD),
        refused(b"GET http://a/a HTTP/1.1\r\nHost: inner.test\r\n\r\n", 400, BAD),
        refused(b"GET http://inner.test/a HTTP/1.1\r\nHost: a\r\n\r\n", 400, BAD),
        refused(b"GET http://inner.test/a HTTP/1.1\r\nHost: inner.test:80\r\n\r\n", 400, BAD),
        refused(b"GET http://a/a HTTP/1.1\r\nHost:\r\n\r\n", 400, BAD),
        kept(b"GET http://inner.test/a HTTP/1.1\r\nHost: inner.test\r\n\r\n", 401, "no_credential"),
        kept(
            b"GET HTTP://INNER.TEST:80/a HTTP/1.1\r\nHost: INNER.TEST:80\r\n\r\n",
            401,
            "no_credential",
        ),
    ];
    bad.into_iter().chain(odd).chain(more).collect()
}
