//! Which route answers, and what is said when none does.

use crate::support::client::{Client, Request};
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;

/// Name and matcher. Every route answers with its name, so a request tells who won.
const ROUTES: &[(&str, &str)] = &[
    ("all", r#"path = "/*""#),
    ("root", r#"path = "/""#),
    ("orders", r#"path = "/orders""#),
    ("orders_slash", r#"path = "/orders/""#),
    ("below_orders", r#"path = "/orders/*""#),
    ("order", r#"path = "/orders/{id}""#),
    ("latest", r#"path = "/orders/latest""#),
    ("items", r#"path = "/orders/{id}/items""#),
    ("two_paths", r#"path = ["/one", "/two/*"]"#),
    (
        "exact_host",
        r#"path = "/*"
        hosts = ["api.example.com"]"#,
    ),
    (
        "wildcard",
        r#"path = "/*"
        hosts = ["*.example.com"]"#,
    ),
    (
        "longer_wildcard",
        r#"path = "/*"
        hosts = ["*.eu.example.com"]"#,
    ),
    ("any_method", r#"path = "/method""#),
    (
        "post",
        r#"path = "/method"
        methods = ["POST"]"#,
    ),
    (
        "any_version",
        r#"path = "/header"
        headers = { "X-Version" = "*" }"#,
    ),
    (
        "version_2",
        r#"path = "/header"
        headers = { "X-Version" = "2" }"#,
    ),
    (
        "version_2_beta",
        r#"path = "/header"
        headers = { "X-Version" = "2", "X-Beta" = "*" }"#,
    ),
    ("no_version", r#"path = "/header""#),
    (
        "beta",
        r#"path = "/query"
        query = { "beta" = "1" }"#,
    ),
    (
        "beta_any",
        r#"path = "/query"
        query = { "beta" = "*" }"#,
    ),
    ("no_beta", r#"path = "/query""#),
];

fn file<'r>(routes: impl Iterator<Item = &'r (&'static str, &'static str)>) -> String {
    let table = |(name, matcher): &(&str, &str)| {
        format!("[routes.{name}]\n{matcher}\nauth = \"none\"\nreply = {{ body = \"{name}\" }}\n")
    };
    routes.map(table).collect()
}

/// A client's request, and who is to answer.
type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str);

#[rustfmt::skip]
const CASES: &[Case] = &[
    // method and target, host, headers, route
    ("GET /", "a.test", &[], "root"),
    ("GET /orders", "a.test", &[], "orders"),
    ("GET /orders?x=1", "a.test", &[], "orders"),
    ("GET /orders/", "a.test", &[], "orders_slash"),
    ("GET /orders/7", "a.test", &[], "order"),
    ("GET /orders/latest", "a.test", &[], "latest"),
    ("GET /%6Frders/l%61test", "a.test", &[], "latest"),
    ("GET /x/../orders/./latest", "a.test", &[], "latest"),
    ("GET /orders/7/items", "a.test", &[], "items"),
    ("GET /orders/7/other", "a.test", &[], "below_orders"),
    ("GET /orders/7/items/1", "a.test", &[], "below_orders"),
    ("GET /ordersx", "a.test", &[], "all"),
    ("GET /Orders", "a.test", &[], "all"),
    ("GET /one", "a.test", &[], "two_paths"),
    ("GET /one/1", "a.test", &[], "all"),
    ("GET /two", "a.test", &[], "two_paths"),
    ("GET /two/2/3", "a.test", &[], "two_paths"),
    ("GET /orders", "api.example.com", &[], "exact_host"),
    ("GET /orders", "API.Example.com:8080", &[], "exact_host"),
    ("GET /orders", "api.example.com.", &[], "exact_host"),
    ("GET /orders", "other.example.com", &[], "wildcard"),
    ("GET /orders", "a.b.example.com", &[], "wildcard"),
    ("GET /orders", "api.eu.example.com", &[], "longer_wildcard"),
    ("GET /orders", "eu.example.com", &[], "wildcard"),
    ("GET /orders", "example.com", &[], "orders"),
    ("GET /orders", "notexample.com", &[], "orders"),
    ("GET /orders", "[::1]:8080", &[], "orders"),
    ("POST /method", "a.test", &[], "post"),
    ("PUT /method", "a.test", &[], "any_method"),
    ("GET /header", "a.test", &[], "no_version"),
    ("GET /header", "a.test", &[("x-version", "1")], "any_version"),
    ("GET /header", "a.test", &[("x-version", "2")], "version_2"),
    ("GET /header", "a.test", &[("x-version", "2"), ("x-beta", "")], "version_2_beta"),
    ("GET /query", "a.test", &[], "no_beta"),
    ("GET /query?beta", "a.test", &[], "beta_any"),
    ("GET /query?beta=0&beta=1", "a.test", &[], "beta"),
    ("GET /query?%62eta=%31", "a.test", &[], "beta"),
    ("GET /query?alpha=beta", "a.test", &[], "no_beta"),
];

#[tokio::test]
async fn the_most_specific_route_answers_whatever_the_order_in_the_file() {
    let forwards = file(ROUTES.iter());
    let backwards = file(ROUTES.iter().rev());
    for (order, text) in [("forwards", forwards), ("backwards", backwards)] {
        let gateway = Gateway::builder().file("routes.toml", &text).start().await;
        for (line, host, headers, expected) in CASES {
            let answer = request(&gateway, line, headers).host(host).send().await;
            assert_eq!(
                (answer.status, &*answer.text()),
                (200, *expected),
                "{order}: {line} {host}"
            );
        }
    }
}

fn request<'g>(gateway: &'g Gateway, line: &str, headers: &[(&str, &str)]) -> Request<'g> {
    let (method, target) = line.split_once(' ').unwrap();
    headers
        .iter()
        .fold(gateway.request(method, target), |request, (name, value)| request.header(name, value))
}

#[tokio::test]
async fn http2_requests_are_routed_by_their_authority() {
    let gateway = Gateway::builder()
        .tls_listener("secure")
        .route(
            "a",
            r#"path = "/*"
            hosts = ["a.test"]
            auth = "none"
            reply = { body = "a" }"#,
        )
        .route(
            "b",
            r#"path = "/*"
            hosts = ["*.b.test"]
            auth = "none"
            reply = { body = "b" }"#,
        )
        .start()
        .await;
    let client = gateway.http2_client("secure");
    client.get("/x").host("A.test").send().await.expect_body("a");
    client.get("/x").host("x.b.test:9").send().await.expect_body("b");
    client.get("/x").host("c.test").send().await.expect_status(404).expect_code("no_route");
}

#[tokio::test]
async fn a_request_that_no_route_takes_is_told_why() {
    let origin = Origin::start().await;
    let gateway = Gateway::builder()
        .upstream("u", &[origin.address()])
        .route(
            "read",
            r#"path = "/things/*"
            methods = ["GET", "DELETE"]
            auth = "none"
            upstream = "u""#,
        )
        .route(
            "write",
            r#"path = "/things/{id}"
            methods = ["PUT"]
            auth = "none"
            upstream = "u""#,
        )
        .route(
            "versioned",
            r#"path = "/versioned"
            headers = { "X-Version" = "2" }
            methods = ["POST"]
            auth = "none"
            upstream = "u""#,
        )
        .start()
        .await;

    gateway.get("/other").send().await.expect_status(404).expect_code("no_route");
    gateway.get("/thingsx").send().await.expect_status(404);
    let refused = gateway.post("/things/1", "").send().await;
    refused.expect_status(405).expect_code("method_not_allowed");
    refused.expect_header("allow", "DELETE, GET, HEAD, PUT");
    let refused = gateway.request("PUT", "/things/1/2").send().await;
    refused.expect_status(405).expect_header("allow", "DELETE, GET, HEAD");
    // Another method would not help where the header is missing as well.
    gateway.get("/versioned").send().await.expect_status(404);
    let refused = gateway.get("/versioned").header("x-version", "2").send().await;
    refused.expect_status(405).expect_header("allow", "POST");
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn methods_that_no_proxy_should_pass_on_are_refused() {
    let gateway = Gateway::builder()
        .route(
            "all",
            r#"path = "/*"
            auth = "none"
            reply = { body = "ok" }"#,
        )
        .start()
        .await;
    gateway.request("TRACE", "/").send().await.expect_status(501).expect_code("bad_method");
    gateway.request("OPTIONS", "/").send().await.expect_status(200);
    gateway.request("PROPFIND", "/").send().await.expect_status(200);
}

#[tokio::test]
async fn a_route_for_get_answers_head_without_a_body() {
    let origin = Origin::start().await;
    let gateway = Gateway::builder()
        .upstream("u", &[origin.address()])
        .route(
            "proxied",
            r#"path = "/proxied"
            methods = ["GET"]
            auth = "none"
            upstream = "u""#,
        )
        .route(
            "fixed",
            r#"path = "/fixed"
            methods = ["GET"]
            auth = "none"
            reply = { body = "fixed" }"#,
        )
        .start()
        .await;
    // On one connection: a body where none is expected would break the next answer.
    let client = gateway.client();
    for _ in 0..2 {
        let answer = client.request("HEAD", "/proxied").send().await;
        answer.expect_status(200).expect_header("content-length", "2").expect_body("");
        let answer = client.request("HEAD", "/fixed").send().await;
        answer.expect_status(200).expect_header("content-length", "5").expect_body("");
        client.get("/fixed").send().await.expect_body("fixed");
        let refused = client.request("HEAD", "/none").send().await;
        refused.expect_status(404).expect_body("");
    }
    assert_eq!(origin.last().head.method(), "HEAD");
}

#[tokio::test]
async fn a_redirect_carries_path_and_query_over() {
    let gateway = Gateway::builder()
        .route(
            "moved",
            r#"path = "/old/*"
            auth = "none"
            redirect = { status = 301, location = "https://new.example.com{path}{query}" }"#,
        )
        .route(
            "asked",
            r#"path = "/asked/*"
            auth = "none"
            redirect = { location = "/find?from=gateway{query}" }"#,
        )
        .start()
        .await;
    let cases = [
        ("/old/a/b?x=1&y=%20", 301, "https://new.example.com/old/a/b?x=1&y=%20"),
        ("/old/a", 301, "https://new.example.com/old/a"),
        ("/old/./%61//b", 301, "https://new.example.com/old/a/b"),
        ("/asked/1", 308, "/find?from=gateway"),
        ("/asked/1?x", 308, "/find?from=gateway&x"),
    ];
    for (target, status, location) in cases {
        let answer = gateway.get(target).send().await;
        answer.expect_status(status).expect_header("location", location).expect_body("");
    }
    // The path cannot become a host: `//` is merged before it is used.
    let answer = gateway.get("/old//evil.example.com/%2e%2e").send().await;
    answer.expect_header("location", "https://new.example.com/old/");
}

#[tokio::test]
async fn a_fixed_reply_is_sent_as_it_is_written() {
    let gateway = Gateway::builder()
        .route(
            "json",
            r#"path = "/json"
            auth = "none"
            reply = { status = 418, content_type = "application/json", body = '{"a":1}' }"#,
        )
        .route(
            "empty",
            r#"path = "/empty"
            auth = "none"
            reply = { status = 204 }"#,
        )
        .route(
            "unchanged",
            r#"path = "/unchanged"
            auth = "none"
            reply = { status = 304 }"#,
        )
        .start()
        .await;
    let client = gateway.client();
    for _ in 0..2 {
        let answer = client.get("/json").send().await;
        answer.expect_status(418).expect_header("content-type", "application/json");
        answer.expect_header("content-length", "7").expect_body(r#"{"a":1}"#);
        // RFC 9110 8.6: these have no content, so they say nothing of its length.
        for (path, status) in [("/empty", 204), ("/unchanged", 304)] {
            let answer = client.get(path).send().await;
            answer.expect_status(status).expect_no_header("content-length").expect_body("");
        }
    }
}

#[tokio::test]
async fn the_load_balancers_question_is_answered_before_any_route() {
    let gateway = Gateway::builder()
        .tls_listener("secure")
        .route(
            "all",
            r#"path = "/*"
            auth = "api_key"
            reply = { body = "all" }"#,
        )
        .start()
        .await;
    for client in [Client::new(gateway.address()), gateway.http2_client("secure")] {
        let answer = client.get("/health").host("10.0.0.1").send().await;
        answer.expect_status(200).expect_body("ok\n").expect_header("cache-control", "no-store");
        client.request("HEAD", "/health").send().await.expect_status(200).expect_body("");
        client.get("/health/deep").send().await.expect_status(401);
        client.post("/health", "").send().await.expect_status(401);
    }
}
