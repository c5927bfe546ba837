//! Names that only the gateway may say: no spelling, no trailer and no trick with `Connection` lets a
//! client say them to an upstream, or unsay them.

use crate::support::gateway::{Builder, Gateway};
use crate::support::http2::Http2;
use crate::support::origin::Origin;
use crate::support::raw::RawClient;
use crate::support::soon;
use crate::support::wire::Head;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::sync::mpsc;

/// Fields that are ours: who calls, how, from where, and which request it is.
const OURS: [&str; 15] = [
    "x-consumer-id",
    "x-consumer-username",
    "x-consumer-custom-id",
    "x-consumer-plan",
    "x-consumer-groups",
    "x-credential-identifier",
    "x-anonymous-consumer",
    "x-authenticated-userid",
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-real-ip",
    "forwarded",
    "x-api-key",
    "x-tenant",
];

/// Each of them as it is, and with every choice of `-` and `_` that fits into a few.
fn spellings() -> Vec<String> {
    OURS.iter()
        .flat_map(|name| {
            let last = name.rfind('-').map(|at| format!("{}_{}", &name[..at], &name[at + 1..]));
            [(*name).to_owned(), name.replace('-', "_"), name.replacen('-', "_", 1)]
                .into_iter()
                .chain(last)
        })
        .collect()
}

fn before(upstream: SocketAddr, more: &str) -> Builder {
    Gateway::builder()
        .toml("[auth.jwt.default]\nheaders = { x-tenant = 'tenant' }")
        .tls_listener("secure")
        .plan("basic", "1000/s")
        .key("alice", "basic")
        .upstream_with("u", &[upstream], more)
        .route("open", "path = '/open'\nauth = 'none'\nupstream = 'u'")
        .route("keyed", "path = '/keyed'\nauth = ['api_key', 'jwt']\nupstream = 'u'")
}

#[track_caller]
fn expect_clean(head: &Head, what: &str) {
    let text = head.text();
    assert!(!text.contains("forged"), "{what}: {text}");
    for name in OURS {
        let twins = head
            .fields()
            .into_iter()
            .filter(|(field, _)| field.to_ascii_lowercase().replace('_', "-") == name);
        assert!(twins.count() <= 1, "{what}: {name} in {text}");
    }
}

#[tokio::test]
async fn no_spelling_in_a_head_passes() {
    let origin = Origin::start().await;
    let gateway = before(origin.address(), "").start().await;
    let key = gateway.key("alice");
    let mut http2 = Http2::connect(gateway.listener("secure"), &gateway.trust()).await;
    for name in spellings() {
        // Beside the credential it is another one, which is refused.
        let credential = name.replace('_', "-") == "x-api-key";
        let mut client = RawClient::connect(gateway.address()).await;
        let shown = name.to_ascii_uppercase();
        let request = format!("GET /open HTTP/1.1\r\nHost: a\r\n{shown}: forged\r\n\r\n");
        assert_eq!(client.exchange(request).await.status(), 200, "{name}");
        expect_clean(&origin.last().head, &name);
        if credential {
            continue;
        }
        let request = format!(
            "GET /keyed HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n{shown}: forged\r\n\r\n"
        );
        assert_eq!(client.exchange(request).await.status(), 200, "{name}");
        expect_clean(&origin.last().head, &name);
        assert_eq!(origin.last().head.headers("x-consumer-username"), ["alice"]);
        assert_eq!(
            http2.get("/keyed", &[("x-api-key", &key), (&name, "forged")]).await.status,
            200
        );
        expect_clean(&origin.last().head, &name);
    }
}

#[tokio::test]
async fn what_a_route_sets_or_removes_has_no_twin() {
    let origin = Origin::start().await;
    let route = "path = '/set'\nauth = 'none'\nupstream = 'u'\n\
                 [request_headers]\nremove = ['X-Internal-Id']\n\
                 set = { x-tenant-id = 'ours', x-zone = 'z' }";
    let gateway = before(origin.address(), "").route("set", route).start().await;
    let set = ["x-tenant-id", "x_tenant_id", "x-tenant_id", "x_tenant-id", "x_zone", "X_ZONE"];
    let removed = ["x-internal-id", "x_internal_id", "X-Internal_Id", "x_internal-id"];
    for name in set.into_iter().chain(removed) {
        gateway.get("/set").header(name, "forged").send().await.expect_status(200);
        let head = origin.last().head;
        assert!(!head.text().contains("forged"), "{name}: {}", head.text());
        assert_eq!(head.headers("x-tenant-id"), ["ours"]);
    }
    // Other names with an underscore are nobody's business.
    gateway.get("/set").header("x_other", "mine").send().await.expect_status(200);
    assert_eq!(origin.last().head.headers("x_other"), ["mine"]);
}

#[tokio::test]
async fn nothing_of_ours_can_be_named_away() {
    let origin = Origin::start().await;
    let gateway = before(origin.address(), "").start().await;
    let key = gateway.key("alice");
    let named = [
        "x-consumer-id",
        "x-consumer-username, x-consumer-plan",
        "X-Credential-Identifier",
        "x-request-id, traceparent",
        "x-forwarded-port",
        "keep-alive, authorization",
    ];
    for names in named {
        let mut client = RawClient::connect(gateway.address()).await;
        let request = format!(
            "GET /keyed HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nConnection: {names}\r\n\r\n"
        );
        assert_eq!(client.exchange(request).await.status(), 200, "{names}");
        let head = origin.last().head;
        for name in ["x-consumer-id", "x-consumer-plan", "x-credential-identifier", "x-request-id"]
        {
            assert_eq!(head.headers(name).len(), 1, "{names}: {}", head.text());
        }
        assert_eq!(head.headers("x-consumer-username"), ["alice"]);
        assert_eq!(head.headers("x-forwarded-for"), ["127.0.0.1"]);
        assert!(
            head.headers("x-forwarded-port").len() == 1 && head.headers("traceparent").len() == 1
        );
        assert_eq!(head.header("connection"), None, "{}", head.text());
    }
    // A credential that is named away was not sent.
    for names in ["x-api-key", "close, X-API-Key"] {
        let mut client = RawClient::connect(gateway.address()).await;
        let request = format!(
            "GET /keyed HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nConnection: {names}\r\n\r\n"
        );
        assert_eq!(client.exchange(request).await.status(), 401, "{names}");
    }
}

#[tokio::test]
async fn what_may_not_be_named_is_the_clients_mistake() {
    let origin = Origin::start().await;
    let gateway = before(origin.address(), "[ejection]\nfailures = 1").start().await;
    let many = (0..40).map(|n| format!("x-{n}")).collect::<Vec<_>>().join(", ");
    for names in
        ["host", "X-Forwarded-For", "x-forwarded-proto", ":authority", "\"x\"", "a b", &many]
    {
        let mut client = RawClient::connect(gateway.address()).await;
        let request = format!("GET /open HTTP/1.1\r\nHost: a\r\nConnection: {names}\r\n\r\n");
        let refused = client.exchange(request).await;
        assert_eq!(refused.status(), 400, "{names}: {}", refused.text());
        assert!(refused.text().contains("\"malformed_field\""), "{names}: {}", refused.text());
    }
    assert_eq!(origin.requests(), 0);
    let metrics = gateway.metrics().await;
    for name in ["upstream_failures_total", "upstream_errors_total"] {
        assert_eq!(metrics.sum(name, &[]), 0.0, "{name}");
    }
    assert_eq!(metrics.sum("requests_total", &[("status_class", "5xx")]), 0.0);
    gateway.get("/open").send().await.expect_status(200);
}

#[tokio::test]
async fn fields_of_the_connection_end_here() {
    let origin = Origin::start().await;
    let gateway = before(origin.address(), "").start().await;
    let mut client = RawClient::connect(gateway.address()).await;
    let request = "GET /open HTTP/1.1\r\nHost: a\r\nConnection: x-mine, keep-alive\r\nX-Mine: 1\r\n\
                   Keep-Alive: timeout=9\r\nProxy-Connection: keep-alive\r\nTE: trailers, gzip\r\n\
                   Trailer: x-consumer-id\r\nProxy-Authorization: Basic eA==\r\n\
                   HTTP2-Settings: AA\r\nX-Left: 1\r\n\r\n";
    assert_eq!(client.exchange(request).await.status(), 200);
    let head = origin.last().head;
    for name in [
        "connection",
        "x-mine",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "proxy-authorization",
        "http2-settings",
    ] {
        assert_eq!(head.header(name), None, "{}", head.text());
    }
    assert_eq!(head.headers("x-left"), ["1"]);
}

/// An upstream that tells of each request: its fields, and its trailers.
async fn teller(
    http2: bool,
) -> (SocketAddr, mpsc::UnboundedReceiver<(HeaderMap, Option<HeaderMap>)>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, (tell, told)) = (listener.local_addr().unwrap(), mpsc::unbounded_channel());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tell = tell.clone();
            let service = service_fn(move |request: http::Request<Incoming>| {
                let tell = tell.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let trailers = body.collect().await.ok().and_then(|it| it.trailers().cloned());
                    tell.send((head.headers, trailers)).unwrap();
                    Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"ok"))))
                }
            });
            let io = TokioIo::new(stream);
            tokio::spawn(async move {
                if http2 {
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    drop(server.serve_connection(io, service).await);
                } else {
                    let server = hyper::server::conn::http1::Builder::new();
                    drop(server.serve_connection(io, service).await);
                }
            });
        }
    });
    (address, told)
}

#[tokio::test]
async fn trailers_of_a_request_reach_no_upstream() {
    for http2 in [false, true] {
        let (upstream, mut told) = teller(http2).await;
        let more = if http2 { "protocol = 'http2'" } else { "" };
        let gateway = before(upstream, more).start().await;
        let key = gateway.key("alice");
        let trailers = || spellings().into_iter().chain(["x-other".to_owned()]);
        let mut client = RawClient::connect(gateway.address()).await;
        let lines = trailers().map(|name| format!("{name}: forged\r\n")).collect::<String>();
        let request = format!(
            "POST /keyed HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nTE: trailers\r\n\
             Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n{lines}\r\n"
        );
        assert_eq!(client.exchange(request).await.status(), 200);
        let mut ask = Http2::connect(gateway.listener("secure"), &gateway.trust()).await;
        let fields = [("x-api-key", key.as_str()), ("te", "trailers")];
        let mut exchange = ask.begin("POST", "/keyed", &fields, false).await;
        exchange.body.send_data(Bytes::from_static(b"body"), false).unwrap();
        let sent: HeaderMap = trailers()
            .map(|name| (HeaderName::try_from(name).unwrap(), HeaderValue::from_static("forged")))
            .collect();
        exchange.body.send_trailers(sent).unwrap();
        assert_eq!(exchange.finish().await.unwrap().status, 200);
        for _ in 0..2 {
            let (fields, trailers) = soon("a request", told.recv()).await.unwrap();
            assert_eq!(trailers.unwrap_or_default(), HeaderMap::new(), "HTTP/2: {http2}");
            assert!(fields.values().all(|value| value != "forged"), "{fields:?}");
            assert_eq!(fields["x-consumer-username"], "alice");
        }
        // The connection is at a message's beginning again, or closed.
        assert_eq!(ask.get("/open", &[]).await.status, 200);
    }
}

#[tokio::test]
async fn trailers_that_do_not_end_are_the_clients_mistake() {
    let origin = Origin::start().await;
    let gateway = before(origin.address(), "[ejection]\nfailures = 1").start().await;
    let head =
        "POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n";
    let mut client = RawClient::connect(gateway.address()).await;
    client.send(head).await;
    let line = format!("x: {}\r\n", "y".repeat(1000));
    // The answer may come before all is sent.
    for _ in 0..100 {
        if client.try_send(&line).await.is_err() {
            break;
        }
    }
    assert_eq!(client.response().await.status(), 400);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("upstream_failures_total", &[]), 0.0);
    gateway.get("/open").send().await.expect_status(200);
}

#[tokio::test]
async fn every_request_can_get_an_id_of_our_own() {
    let origin = Origin::start().await;
    let trusting = "[http]\ntrusted_proxies = ['127.0.0.0/8']\nrequest_ids = 'own'";
    let gateway = before(origin.address(), "").toml(trusting).start().await;
    for target in ["/open", "/health", "/nowhere"] {
        let request = gateway.get(target).header("x-request-id", "chosen-by-a-client");
        let answer = request.send().await;
        let id = answer.header("x-request-id").unwrap();
        assert_eq!(id.len(), 36, "{id}");
        if target == "/open" {
            assert_eq!(origin.last().head.headers("x-request-id"), [id]);
        }
    }
    // The rest of a trusted proxy's words is believed as ever.
    gateway.get("/open").header("x-forwarded-for", "203.0.113.9").send().await;
    assert_eq!(origin.last().head.headers("x-forwarded-for"), ["203.0.113.9, 127.0.0.1"]);
}
