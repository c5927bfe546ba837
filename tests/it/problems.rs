//! Refusals: a document that programs can read, for every stage that can refuse.

use crate::support::client::Answer;
use crate::support::gateway::Gateway;
use crate::support::origin::{Behaviour, Origin, Then};
use crate::support::raw::RawClient;
use std::net::{Ipv4Addr, SocketAddr};

/// Where nobody listens: the port was the kernel's choice a moment ago.
fn deaf() -> SocketAddr {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// Checks what every refusal promises, and gives its code.
#[track_caller]
fn check(answer: &Answer) -> String {
    answer.expect_header("content-type", "application/problem+json");
    answer.expect_header("cache-control", "no-store");
    let document = answer.json();
    let members = document.as_object().unwrap();
    assert_eq!(members["status"], answer.status, "{document}");
    assert_eq!(members["request_id"], answer.header("x-request-id").unwrap(), "{document}");
    let kind = members["type"].as_str().unwrap();
    assert!(kind == "about:blank" || kind.starts_with("https://iana.org/assignments/"), "{kind}");
    let title = members["title"].as_str().unwrap();
    assert!(!title.is_empty() && !title.ends_with('.'), "{title}");
    let length = answer.header("content-length").map(|length| length.parse().unwrap());
    assert!(length.is_none_or(|length: usize| length == answer.body.len()));
    if answer.status == 503 || answer.status == 429 {
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=3600).contains(&wait), "{wait}");
    } else {
        answer.expect_no_header("retry-after");
    }
    members["code"].as_str().unwrap().to_owned()
}

/// A gateway on which everything can go wrong.
async fn before(origin: &Origin, gone: SocketAddr) -> Gateway {
    let proxied = |path: &str, more: &str| {
        format!("path = {path:?}\nauth = \"none\"\nupstream = \"u\"\n{more}")
    };
    Gateway::builder()
        .tls_listener("secure")
        .plan("basic", "1000/s")
        .key("alice", "basic")
        .upstream("u", &[origin.address()])
        .upstream("gone", &[gone])
        .route("open", &proxied("/open/*", "methods = [\"GET\", \"POST\"]\nmax_body = \"10B\""))
        .route("length", &proxied("/length", "require_length = true"))
        .route("slow", &proxied("/slow", "[timeouts]\nper_try = \"200ms\""))
        .route("limited", &proxied("/limited", "[limits.one]\nrate = \"1/h\"\nper = \"route\""))
        .route("gone", "path = \"/gone\"\nauth = \"none\"\nupstream = \"gone\"")
        .route(
            "key",
            "path = \"/key\"\nauth = \"api_key\"\nscopes = [\"a\"]\nreply = { body = \"ok\" }",
        )
        .route("token", "path = \"/token\"\nauth = \"jwt\"\nreply = { body = \"ok\" }")
        .start()
        .await
}

#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    let gone = deaf();
    let origin = Origin::start().await;
    origin
        .on("/slow", Behaviour::Freeze)
        .on("/open/reset", Behaviour::Reset)
        .on("/open/raw", Behaviour::Raw(b"SSH-2.0-x\r\n\r\n".to_vec(), Then::Close));
    let gateway = before(&origin, gone).await;
    gateway.get("/limited").send().await.expect_status(200);
    for client in [gateway.client(), gateway.http2_client("secure")] {
        for (request, status, code) in [
            (client.get("/none"), 404, "no_route"),
            (client.request("PUT", "/open/x"), 405, "method_not_allowed"),
            (client.request("TRACE", "/open/x"), 501, "bad_method"),
            (client.get("/open/%2e%2e/%2e%2e/x"), 400, "bad_target"),
            (client.get("/open/%2F"), 400, "bad_target"),
            (client.get("/open/x").host("a..b"), 400, "bad_host"),
            (client.get("/key"), 401, "no_credential"),
            (client.get("/key").key("nonsense"), 401, "invalid_key"),
            (client.get("/token").bearer("nonsense"), 401, "invalid_token"),
            (
                client.get("/key").key("alice").header("x-api-key", "b"),
                401,
                "ambiguous_credentials",
            ),
            (client.get("/key").key("alice"), 403, "insufficient_scope"),
            (client.get("/limited"), 429, "rate_limited"),
            (client.post("/open/x", "12345678901"), 413, "body_too_large"),
            (client.get("/open/reset"), 502, "upstream_broken"),
            (client.get("/open/raw"), 502, "upstream_broken"),
            (client.get("/gone"), 502, "upstream_unreachable"),
            (client.get("/slow"), 504, "upstream_timeout"),
        ] {
            let answer = request.send().await;
            assert_eq!((answer.status, &*check(&answer)), (status, code), "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_refusal_says_nothing_of_the_inside() {
    let gone = deaf();
    let origin = Origin::start().await;
    origin.on("/open/reset", Behaviour::Reset);
    let gateway = before(&origin, gone).await;
    for target in ["/gone", "/open/reset"] {
        let answer = gateway.get(target).send().await;
        let whole = format!("{:?} {}", answer.headers, answer.text()).to_lowercase();
        for inside in ["127.0.0.1", "pingora", "rust", &gone.port().to_string(), "os error"] {
            assert!(!whole.contains(inside), "{inside} in {whole}");
        }
    }
}

#[tokio::test]
async fn a_refused_head_is_a_problem_document_too() {
    let gateway = Gateway::builder()
        .toml("[http]\nmax_head = \"2KiB\"\nmax_headers = 8\nmax_target = \"256B\"")
        .route("open", "path = \"/*\"\nauth = \"none\"\nreply = { body = \"ok\" }")
        .start()
        .await;
    let fields = |count: usize, length: usize| -> String {
        (0..count).map(|n| format!("X-{n}: {}\r\n", "v".repeat(length))).collect()
    };
    let table = [
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(256)), 414, "target_too_long"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(1, 2048)), 431, "head_too_large"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(8, 1)), 431, "too_many_fields"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "bad_host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400, "bad_host"),
        ("GET / HTTP/3\r\nHost: a\r\n\r\n".to_owned(), 505, "bad_version"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_owned(), 501, "bad_method"),
        ("nonsense\r\n\r\n".to_owned(), 400, "malformed_request_line"),
        ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n".to_owned(), 400, "malformed_field"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_owned(),
            400,
            "ambiguous_framing",
        ),
    ];
    for (request, status, code) in &table {
        let mut client = RawClient::connect(gateway.address()).await;
        let response = client.exchange(request).await;
        let document: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(
            (response.status(), &document["code"]),
            (*status, &(*code).into()),
            "{document}"
        );
        assert_eq!(document["status"], *status);
        let field = |name: &str| response.head.header(name).unwrap_or_default();
        assert_eq!(field("content-type"), "application/problem+json");
        assert_eq!(field("cache-control"), "no-store");
        assert_eq!(document["request_id"], field("x-request-id"), "{document}");
        assert_eq!(field("x-request-id").len(), 36);
        client.expect_closed().await;
    }
    // Just below each cap is well.
    for request in [
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(255)),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(7, 200)),
    ] {
        let mut client = RawClient::connect(gateway.address()).await;
        assert_eq!(client.exchange(request).await.status(), 200);
    }
    let metrics = gateway.metrics().await;
    for (_, _, code) in &table {
        let count = metrics.sum("heads_refused_total", &[("code", code)]);
        let sent = table.iter().filter(|(_, _, other)| other == code).count();
        assert_eq!(count, f64::from(u32::try_from(sent).unwrap()), "{code}");
    }
}

#[tokio::test]
async fn grpc_callers_read_refusals_in_their_own_way() {
    let gone = deaf();
    let origin = Origin::start().await;
    origin.on("/slow", Behaviour::Freeze);
    let gateway = before(&origin, gone).await;
    gateway.get("/limited").send().await.expect_status(200);
    let client = gateway.http2_client("secure");
    for (path, key, status) in [
        ("/none", None, "12"),
        ("/key", None, "16"),
        ("/key", Some("nonsense"), "16"),
        ("/key", Some("alice"), "7"),
        ("/limited", None, "8"),
        ("/gone", None, "14"),
        ("/slow", None, "4"),
    ] {
        for content_type in ["application/grpc", "application/grpc+proto"] {
            let request = client.post(path, "").header("content-type", content_type);
            let request = key.into_iter().fold(request, |request, key| request.key(key));
            // The frame with the status must end the stream, or clients do not look for it there.
            assert!(request.clone().open().await.ended(), "{path}");
            let answer = request.send().await;
            answer.expect_status(200).expect_header("content-type", "application/grpc");
            answer.expect_header("grpc-status", status).expect_body("");
            assert!(answer.header("grpc-message").is_some_and(|message| !message.is_empty()));
            assert_eq!(answer.header("x-request-id").map(str::len), Some(36));
            assert_eq!(answer.header("retry-after").is_some(), path == "/limited");
        }
        // gRPC-Web and JSON read HTTP.
        let request = client.post(path, "").header("content-type", "application/grpc-web");
        let request = key.into_iter().fold(request, |request, key| request.key(key));
        let answer = request.send().await;
        answer.expect_header("content-type", "application/problem+json");
    }
}

#[tokio::test]
async fn a_refusal_keeps_the_connection_of_a_client_that_was_heard_out() {
    let gone = deaf();
    let origin = Origin::start().await;
    let gateway = before(&origin, gone).await;
    gateway.get("/limited").send().await.expect_status(200);
    let mut client = RawClient::connect(gateway.address()).await;
    for (target, status) in
        [("/none", 404), ("/key", 401), ("/limited", 429), ("/open/%2F", 400), ("/open/x", 200)]
    {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.exchange(request).await;
        assert_eq!(response.status(), status);
        assert!(response.head.keeps_alive(), "{target}");
        assert_eq!(response.head.headers("connection"), ["keep-alive"], "{target}");
    }
    // A body that nobody reads cannot be told from the next request.
    let mut client = RawClient::connect(gateway.address()).await;
    let request = "POST /key HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    let response = client.exchange(request).await;
    assert_eq!(response.status(), 401);
    assert_eq!(response.head.headers("connection"), ["close"]);
    client.expect_closed().await;
}

#[tokio::test]
async fn a_head_request_is_refused_without_a_body() {
    let origin = Origin::start().await;
    let gateway = before(&origin, deaf()).await;
    for client in [gateway.client(), gateway.http2_client("secure")] {
        for (path, status) in [("/key", 401), ("/gone", 502), ("/key", 401)] {
            let refused = client.request("HEAD", path).send().await;
            refused.expect_status(status).expect_body("");
            refused.expect_header("content-type", "application/problem+json");
        }
    }
}
