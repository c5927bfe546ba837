//! Targets that two servers could read in two ways: what is refused, and what the origin gets of
//! the rest, byte for byte.

use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::raw::RawClient;

/// A target as a client sends it, and the one that the origin gets; `None` where it gets nothing
/// and the client 400.
#[rustfmt::skip]
const TARGETS: &[(&str, Option<&str>)] = &[
    // Left as they are.
    ("/", Some("/")),
    ("/a/b/", Some("/a/b/")),
    ("/a?", Some("/a?")),
    ("/a?b=/../c//d%2F%00;\\|?e", Some("/a?b=/../c//d%2F%00;\\|?e")),
    ("/a%20b%C3%A4", Some("/a%20b%C3%A4")),
    ("/a+b:c@d=e,f!g$h&i'j(k)l*m~n", Some("/a+b:c@d=e,f!g$h&i'j(k)l*m~n")),
    ("/a%3Bb%3Fc%23d%25e", Some("/a%3Bb%3Fc%23d%25e")),
    ("/...", Some("/...")),
    ("/.well-known/x", Some("/.well-known/x")),
    // Dot segments, also escaped, go.
    ("/a/./b", Some("/a/b")),
    ("/a/../b", Some("/b")),
    ("/a/b/..", Some("/a/")),
    ("/a/.", Some("/a/")),
    ("/a/%2e/b", Some("/a/b")),
    ("/a/%2E%2e/b", Some("/b")),
    ("/a/.%2e/b", Some("/b")),
    ("/a/b/../../c", Some("/c")),
    // So do empty segments.
    ("//a", Some("/a")),
    ("/a//b///c//", Some("/a/b/c/")),
    ("/a/..//b", Some("/b")),
    ("//evil.example.com/x", Some("/evil.example.com/x")),
    // Escapes are in one spelling.
    ("/%61%7E%2d", Some("/a~-")),
    ("/a%c3%a4", Some("/a%C3%A4")),
    ("/a[b]{c}|^", Some("/a%5Bb%5D%7Bc%7D%7C%5E")),
    ("/a?[b]{c}|^`", Some("/a?[b]{c}|^`")),
    // Above the root.
    ("/..", None),
    ("/../a", None),
    ("/a/../../b", None),
    ("/%2e%2e/a", None),
    // Slashes to some servers.
    ("/a\\b", None),
    ("/a%5Cb", None),
    ("/..\\a", None),
    ("/a%2Fb", None),
    ("/a%2fb", None),
    ("/%2e%2e%2fa", None),
    ("/a/..%2Fb", None),
    ("/a%c0%afb", None),
    ("/a%e0%80%afb", None),
    // Cut off by some servers.
    ("/a%00b", None),
    ("/a%0Ab", None),
    ("/a%0d%0aX:1", None),
    ("/a%7fb", None),
    ("/a;b", None),
    ("/a/..;/b", None),
    ("/a#b", None),
    ("/a?b#c", None),
    // No escapes.
    ("/a%", None),
    ("/a%2", None),
    ("/a%zz", None),
    ("/a%u002f", None),
    // No targets.
    ("a", None),
    ("?a", None),
    ("*", None),
    ("../a", None),
    ("ftp://a.test/", None),
    ("http:///a", None),
    ("http://", None),
    ("http://user@a.test/", None),
    ("http://a.test:0/", None),
    ("a.test:443", None),
];

const OPEN: &str = "path = \"/*\"\nauth = \"none\"\nupstream = \"u\"";

#[tokio::test]
async fn an_ambiguous_target_is_refused_or_reaches_the_origin_in_one_spelling() {
    let origin = Origin::start().await;
    let gateway =
        Gateway::builder().upstream("u", &[origin.address()]).route("open", OPEN).start().await;
    let mut wrong = Vec::new();
    for (target, expected) in TARGETS {
        let before = origin.requests();
        let mut client = RawClient::connect(gateway.address()).await;
        let request = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let response = client.exchange(request).await;
        let seen = origin.seen().get(before).map(|seen| seen.head.target());
        let fits = match response.status() {
            200 => seen.is_some(),
            400 => response.text().contains("\"bad_target\""),
            _ => false,
        };
        if !fits || seen.as_deref() != *expected {
            wrong.push(format!("{target}: {seen:?}, {}", response.text()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn every_visible_character_is_passed_on_escaped_or_refused_by_us() {
    let origin = Origin::start().await;
    let gateway =
        Gateway::builder().upstream("u", &[origin.address()]).route("open", OPEN).start().await;
    let mut wrong = Vec::new();
    for byte in b'!'..=b'~' {
        let symbol = char::from(byte);
        for (front, target) in [("/a", format!("/a{symbol}b")), ("/a?", format!("/a?{symbol}b"))] {
            let mut client = RawClient::connect(gateway.address()).await;
            let request = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
            let response = client.exchange(request).await;
            let fits = match response.status() {
                200 => {
                    let seen = origin.last().head.target();
                    seen == target
                        || seen == format!("{front}%{byte:02X}b")
                        || (symbol, &*seen) == ('/', "/a/b")
                }
                400 => response.text().contains("\"bad_target\""),
                _ => false,
            };
            if !fits {
                let seen = origin.seen().last().map(|seen| seen.head.target());
                wrong.push((target, response.status(), seen, response.text()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn bytes_that_no_target_has_are_refused() {
    let origin = Origin::start().await;
    let gateway =
        Gateway::builder().upstream("u", &[origin.address()]).route("open", OPEN).start().await;
    for target in [&b"/a\tb"[..], b"/a\x01", b"/a\x7f", b"/\xc3\xa4", b"/a?\xff", b"/a b", b""] {
        let mut client = RawClient::connect(gateway.address()).await;
        client.send([b"GET ", target, b" HTTP/1.1\r\nHost: a.test\r\n\r\n"].concat()).await;
        let response = client.response().await;
        assert_eq!(response.status(), 400, "{}", String::from_utf8_lossy(target));
        client.expect_closed().await;
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn an_encoded_slash_is_data_only_where_a_route_says_so() {
    let origin = Origin::start().await;
    let gateway = Gateway::builder()
        .upstream("u", &[origin.address()])
        .route("open", OPEN)
        .route(
            "files",
            "path = \"/files/{name}\"\nauth = \"none\"\nupstream = \"u\"\nencoded_slash = \"keep\"",
        )
        .start()
        .await;
    gateway.get("/other/a%2Fb").send().await.expect_status(400).expect_code("bad_target");
    gateway.get("/files/a%2f..%2Fb").send().await.expect_status(400).expect_code("bad_target");
    assert_eq!(origin.requests(), 0);
    gateway.get("/files/a%2fb%2F?x=%2f").send().await.expect_status(200);
    assert_eq!(origin.last().head.target(), "/files/a%2Fb%2F?x=%2f");
}

#[tokio::test]
async fn an_absolute_target_is_taken_if_host_says_the_same() {
    let origin = Origin::start().await;
    let upstream = "auth = \"none\"\nupstream = \"u\"\nhosts";
    let gateway = Gateway::builder()
        .upstream("u", &[origin.address()])
        .route("a", &format!("path = \"/*\"\n{upstream} = [\"a.test\"]"))
        .route("b", &format!("path = \"/x/*\"\nstrip_prefix = \"/x\"\n{upstream} = [\"b.test\"]"))
        .start()
        .await;
    for (target, sent, seen) in [
        ("http://a.test/x?y", "/x?y", "a.test"),
        ("HTTP://A.test:81/x", "/x", "A.test:81"),
        ("http://a.test", "/", "a.test"),
        ("https://a.test?q", "/?q", "a.test"),
        ("http://b.test/x/y", "/y", "b.test"),
        ("http://a.test/b/%2e%2e/x", "/x", "a.test"),
    ] {
        let mut client = RawClient::connect(gateway.address()).await;
        let request = format!("GET {target} HTTP/1.1\r\nHost: {{host}}\r\n\r\n");
        let response = client.exchange(request.replace("{host}", seen)).await;
        assert_eq!(response.status(), 200, "{target}");
        let last = origin.last();
        assert_eq!(
            (last.head.target(), last.head.headers("host")),
            (sent.into(), vec![seen.into()])
        );
        assert_eq!(last.head.headers("x-forwarded-host"), [seen], "{target}");

        // A different one is no mistake that a client makes.
        let mut client = RawClient::connect(gateway.address()).await;
        let response = client.exchange(request.replace("{host}", "c.test")).await;
        assert_eq!(response.status(), 400, "{target}");
        assert!(response.text().contains("\"bad_host\""), "{target}");
    }
    assert_eq!(origin.requests(), 6);
}

#[tokio::test]
async fn a_question_about_the_server_itself_finds_no_route() {
    let origin = Origin::start().await;
    let gateway =
        Gateway::builder().upstream("u", &[origin.address()]).route("open", OPEN).start().await;
    let mut client = RawClient::connect(gateway.address()).await;
    let response = client.exchange("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(response.status(), 404);
    assert!(response.head.keeps_alive());
    assert_eq!(client.exchange("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.status(), 200);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_host_that_is_no_host_is_refused() {
    let origin = Origin::start().await;
    let gateway =
        Gateway::builder().upstream("u", &[origin.address()]).route("open", OPEN).start().await;
    for host in ["", ":80", "a,b", "a b", "a@b", "a/b", "a..b", "a:b", "a:99999", "[::1", "a\\b"] {
        let mut client = RawClient::connect(gateway.address()).await;
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let response = client.exchange(request).await;
        assert_eq!(response.status(), 400, "{host}");
        assert!(response.text().contains("\"bad_host\""), "{host}");
    }
    assert_eq!(origin.requests(), 0);
    // HTTP/1.0 knows no Host; a route for every host takes it.
    let mut client = RawClient::connect(gateway.address()).await;
    assert_eq!(client.exchange("GET /old HTTP/1.0\r\n\r\n").await.status(), 200);
    client.expect_closed().await;
    assert_eq!(origin.last().head.target(), "/old");
}
