//! What a route changes on the way: path, host and fields, in both directions.

use crate::support::gateway::Gateway;
use crate::support::origin::{Behaviour, Origin, Reply};
use crate::support::raw::RawClient;

#[tokio::test]
async fn a_prefix_is_stripped_or_replaced_by_whole_segments() {
    let origin = Origin::start().await;
    let gateway = Gateway::builder()
        .upstream("u", &[origin.address()])
        .route("kept", "path = \"/kept/*\"\nauth = \"none\"\nupstream = \"u\"")
        .route(
            "stripped",
            "path = \"/v1/*\"\nauth = \"none\"\nupstream = \"u\"\nstrip_prefix = \"/v1\"",
        )
        .route(
            "stripped_deep",
            "path = \"/v3/a/{id}\"\nauth = \"none\"\nupstream = \"u\"\nstrip_prefix = \"/v3/a\"",
        )
        .route(
            "replaced",
            "path = \"/v2/*\"\nauth = \"none\"\nupstream = \"u\"\n\
             replace_prefix = { from = \"/v2\", to = \"/api/new\" }",
        )
        .start()
        .await;
    for (target, seen) in [
        ("/kept/a?b", "/kept/a?b"),
        ("/v1", "/"),
        ("/v1/", "/"),
        ("/v1?x=/v1", "/?x=/v1"),
        ("/v1/v1/orders", "/v1/orders"),
        ("/%761/orders/%20?q=%2F", "/orders/%20?q=%2F"),
        ("/v1//orders", "/orders"),
        ("/x/../v1/./orders", "/orders"),
        ("/v3/a/7", "/7"),
        ("/v2", "/api/new"),
        ("/v2/", "/api/new/"),
        ("/v2/orders?x", "/api/new/orders?x"),
    ] {
        gateway.get(target).send().await.expect_status(200);
        assert_eq!(origin.last().head.target(), seen, "{target}");
    }
}

#[tokio::test]
async fn the_host_is_the_clients_unless_the_route_has_one() {
    let origin = Origin::start().await;
    let gateway = Gateway::builder()
        .tls_listener("secure")
        .upstream("u", &[origin.address()])
        .route("same", "path = \"/same\"\nauth = \"none\"\nupstream = \"u\"")
        .route(
            "other",
            "path = \"/other\"\nauth = \"none\"\nupstream = \"u\"\nhost = \"orders.internal:81\"",
        )
        .start()
        .await;
    for client in [gateway.client(), gateway.http2_client("secure")] {
        for (path, seen) in [("/same", "api.example.com:8080"), ("/other", "orders.internal:81")] {
            client.get(path).host("api.example.com:8080").send().await.expect_status(200);
            let head = origin.last().head;
            assert_eq!(head.headers("host"), [seen], "{path}");
            assert_eq!(head.headers("x-forwarded-host"), ["api.example.com:8080"], "{path}");
        }
    }
    let mut client = RawClient::connect(gateway.address()).await;
    let target = "http://a.test/other";
    let request = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.exchange(request).await.status(), 200);
    assert_eq!(origin.last().head.target(), "/other");
    assert_eq!(origin.last().head.headers("host"), ["orders.internal:81"]);
}

#[tokio::test]
async fn fields_are_removed_then_set_then_added_in_both_directions() {
    let origin = Origin::start().await;
    let reply = Reply::text("ok")
        .header("server", "origin/1")
        .header("x-set", "theirs")
        .header("x-set", "theirs too")
        .header("x-add", "theirs")
        .header("x-left", "alone");
    origin.answer(Behaviour::Answer(reply));
    let edits = "remove = [\"X-Gone\", \"Server\"], \
                 set = { \"X-Set\" = \"ours\", \"X-Both\" = \"set\" }, \
                 add = { \"X-Add\" = \"ours\", \"X-Both\" = \"added\" }";
    let gateway = Gateway::builder()
        .tls_listener("secure")
        .upstream("u", &[origin.address()])
        .route(
            "edited",
            &format!(
                "path = \"/*\"\nauth = \"none\"\nupstream = \"u\"\n\
                 request_headers = {{ {edits} }}\nresponse_headers = {{ {edits} }}"
            ),
        )
        .route(
            "fixed",
            &format!(
                "path = \"/fixed\"\nauth = \"none\"\nreply = {{ body = \"ok\" }}\n\
                 response_headers = {{ {edits} }}"
            ),
        )
        .start()
        .await;
    for client in [gateway.client(), gateway.http2_client("secure")] {
        let mut request = client.get("/");
        for (name, value) in [
            ("x-gone", "1"),
            ("x-set", "1"),
            ("x-set", "2"),
            ("x-add", "theirs"),
            ("x-both", "theirs"),
            ("x-left", "alone"),
        ] {
            request = request.header(name, value);
        }
        let answer = request.send().await;
        let head = origin.last().head;
        let values = |name: &str| -> Vec<String> {
            let values = answer.headers.get_all(name).iter();
            values.map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        for (name, expected) in [
            ("x-gone", &[][..]),
            ("server", &[]),
            ("x-set", &["ours"]),
            ("x-add", &["theirs", "ours"]),
            ("x-both", &["set", "added"]),
            ("x-left", &["alone"]),
        ] {
            assert_eq!(head.headers(name), expected, "{name} to the upstream");
            assert_eq!(values(name), expected, "{name} to the client");
        }
        let fixed = client.get("/fixed").send().await;
        fixed.expect_header("x-set", "ours").expect_header("x-add", "ours").expect_body("ok");
    }
}

#[tokio::test]
async fn fields_of_the_connection_end_at_the_gateway() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Answer(
        Reply::text("ok")
            .header("connection", "x-private")
            .header("x-private", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-connection", "keep-alive")
            .header("upgrade", "h2c"),
    ));
    let gateway = Gateway::builder()
        .upstream("u", &[origin.address()])
        .route("open", "path = \"/*\"\nauth = \"none\"\nupstream = \"u\"")
        .start()
        .await;
    let mut client = RawClient::connect(gateway.address()).await;
    let response = client
        .exchange(
            "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, X-Mine, x-request-id\r\n\
             X-Mine: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nProxy-Connection: close\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nProxy-Authorization: Basic eDp5\r\n\r\n",
        )
        .await;
    assert_eq!((response.status(), response.text().as_str()), (200, "ok"));
    let head = origin.last().head;
    for name in [
        "x-mine",
        "keep-alive",
        "te",
        "proxy-connection",
        "upgrade",
        "http2-settings",
        "proxy-authorization",
    ] {
        assert_eq!(head.header(name), None, "{name} to the upstream");
    }
    assert_eq!(head.headers("x-request-id").len(), 1, "ours cannot be nominated away");
    for name in ["x-private", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(response.head.header(name), None, "{name} to the client");
    }
}
