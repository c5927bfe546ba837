//! A closed path in every spelling: refused as itself, refused as no path, or another path that no
//! server takes for it.

use crate::case::{Case, kept, passed, refused, target};

#[expect(clippy::too_many_lines, reason = "a table")]
pub(crate) fn rows() -> Vec<Case> {
    let closed = [
        target!("/denied/x"),
        target!("/%64enied/x"),
        target!("/%64%65%6e%69%65%64/%78"),
        target!("/denied/%78"),
        target!("//denied/x"),
        target!("///denied///x"),
        target!("/denied//x"),
        target!("/./denied/x"),
        target!("/denied/./x"),
        target!("/%2e/denied/x"),
        target!("/a/../denied/x"),
        target!("/a/%2e%2e/denied/x"),
        target!("/a/.%2E/denied/x"),
        target!("/a/b/../../denied/x"),
        target!("/a//../denied/x"),
        target!("/denied/../denied/x"),
        target!("/denied/a/../x"),
        target!("/denied/"),
        target!("/denied/x?"),
        target!("/denied/x?/../a"),
        target!("/denied/x%20"),
        target!("http://a/denied/x"),
        target!("http://a//denied/x"),
        target!("http://a/a/../denied/x"),
        target!("HTTP://a/%64enied/x"),
        b"HEAD /denied/x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    ]
    .map(|raw| kept(raw, 401, if raw.starts_with(b"HEAD") { "" } else { "no_credential" }));
    let refusals = [
        target!("/denied%2fx"),
        target!("/denied%2Fx"),
        target!("/%2fdenied/x"),
        target!("/%2Fdenied%2Fx"),
        target!("/a/..%2fdenied/x"),
        target!("/a%2f../denied/x"),
        target!("/..%2fdenied/x"),
        target!("/../denied/x"),
        target!("/%2e%2e/denied/x"),
        target!("/denied;/x"),
        target!("/denied;a=b/x"),
        target!("/;/denied/x"),
        target!("/a;/../denied/x"),
        target!("/a/..;/denied/x"),
        target!("/denied\\x"),
        target!("/\\denied/x"),
        target!("/denied%5cx"),
        target!("/a\\..\\denied/x"),
        target!("/denied%00/x"),
        target!("/denied/x%00"),
        target!("/.%00./denied/x"),
        target!("/denied%09/x"),
        target!("/denied%0a/x"),
        target!("/denied%0d/x"),
        target!("/%c0%afdenied/x"),
        target!("/denied%c0%afx"),
        target!("/%e0%80%afdenied/x"),
        target!("/%u0064enied/x"),
        target!("/denied%u002fx"),
        target!("/%%36%34enied/x"),
        target!("/%6/denied/x"),
    ]
    .map(|raw| kept(raw, 400, "bad_target"));
    let torn = [
        target!("/denied/x#"),
        target!("/a#/../denied/x"),
        target!("/denied/x "),
        target!("/denied\t/x"),
        target!("\\denied\\x"),
        target!("denied/x"),
        target!("/denied\x00/x"),
        target!("/\u{ff0f}denied/x"),
    ]
    .map(|raw| refused(raw, 400, "bad_target"));
    let others = [
        (target!("/DENIED/x"), "GET /DENIED/x HTTP/1.1"),
        (target!("/Denied/x"), "GET /Denied/x HTTP/1.1"),
        (target!("/denied.html"), "GET /denied.html HTTP/1.1"),
        (target!("/denied./x"), "GET /denied./x HTTP/1.1"),
        (target!("/denied%20/x"), "GET /denied%20/x HTTP/1.1"),
        (target!("/denied%3b/x"), "GET /denied%3B/x HTTP/1.1"),
        (target!("/denied%3fx"), "GET /denied%3Fx HTTP/1.1"),
        (target!("/denied%23x"), "GET /denied%23x HTTP/1.1"),
        (target!("/%2564enied/x"), "GET /%2564enied/x HTTP/1.1"),
        (target!("/%25%36%34enied/x"), "GET /%2564enied/x HTTP/1.1"),
        (target!("/denied%252fx"), "GET /denied%252fx HTTP/1.1"),
        (target!("/%252e%252e/denied/x"), "GET /%252e%252e/denied/x HTTP/1.1"),
        (target!("/%ef%bc%8fdenied/x"), "GET /%EF%BC%8Fdenied/x HTTP/1.1"),
        (target!("/a?/denied/x"), "GET /a?/denied/x HTTP/1.1"),
        (target!("/.../denied/x"), "GET /.../denied/x HTTP/1.1"),
        (target!("/denied/../a"), "GET /a HTTP/1.1"),
        (target!("/denied/%2e%2e/a"), "GET /a HTTP/1.1"),
    ]
    .map(|(raw, line)| passed(raw, line, &[], b""));
    // Fields that some frameworks read a path from are not read here.
    let fields = [
        kept(
            b"GET /denied/x HTTP/1.1\r\nHost: a\r\nX-Original-URL: /a\r\nX-Rewrite-URL: /a\r\n\r\n",
            401,
            "no_credential",
        ),
        kept(
            b"GET /denied/x HTTP/1.1\r\nHost: a\r\nX-Consumer-Id: alice\r\n\r\n",
            401,
            "no_credential",
        ),
        // What is named there is the connection's: it was not sent to the route.
        kept(
            b"GET /denied/x HTTP/1.1\r\nHost: a\r\nConnection: X-API-Key\r\nX-API-Key: x\r\n\r\n",
            401,
            "no_credential",
        ),
        kept(
            b"OPTIONS /denied/x HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\n\
              Access-Control-Request-Method: GET\r\n\r\n",
            401,
            "no_credential",
        ),
    ];
    [&closed[..], &refusals, &torn, &others, &fields].concat()
}
