//! What browsers are told about scripts of other origins.

use crate::support::client::{Answer, Client, Request};
use crate::support::gateway::Gateway;
use crate::support::origin::{Behaviour, Origin, Reply};

const APP: &str = "https://app.example.com";

async fn before(origin: &Origin) -> Gateway {
    let cors = "origins = [\"https://app.example.com\", \"http://localhost:5173\"]\n\
                methods = [\"GET\", \"PUT\"]\nheaders = [\"X-API-Key\", \"Content-Type\"]\n\
                expose = [\"X-Request-Id\", \"RateLimit\"]\ncredentials = true\nmax_age = \"1h\"";
    Gateway::builder()
        .tls_listener("secure")
        .plan("basic", "1000/s")
        .key("alice", "basic")
        .upstream("u", &[origin.address()])
        .route(
            "listed",
            &format!(
                "path = \"/listed/*\"\nmethods = [\"GET\", \"PUT\"]\nauth = \"api_key\"\n\
                 upstream = \"u\"\nmax_body = \"10B\"\n[cors]\n{cors}"
            ),
        )
        .route(
            "any",
            "path = \"/any\"\nauth = \"none\"\nupstream = \"u\"\n[cors]\norigins = [\"*\"]",
        )
        .route(
            "limited",
            &format!(
                "path = \"/limited\"\nauth = \"none\"\nreply = {{ body = \"ok\" }}\n\
                 [limits.one]\nrate = \"1/h\"\nper = \"route\"\n[cors]\n{cors}"
            ),
        )
        .route("closed", "path = \"/closed\"\nauth = \"api_key\"\nupstream = \"u\"")
        .start()
        .await
}

fn preflight<'c>(client: &'c Client, path: &str, origin: &str, method: &str) -> Request<'c> {
    client
        .request("OPTIONS", path)
        .header("origin", origin)
        .header("access-control-request-method", method)
}

/// Every field that speaks to browsers.
fn said(answer: &Answer) -> Vec<String> {
    let mut said: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("access-control-"))
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    said.sort_unstable();
    said
}

#[track_caller]
fn expect_varies(answer: &Answer, on: &str) {
    let vary = answer.headers.get_all("vary").iter().map(|value| value.to_str().unwrap());
    let names: Vec<_> = vary.flat_map(|value| value.split(',')).map(str::trim).collect();
    assert!(names.iter().any(|name| name.eq_ignore_ascii_case(on)), "{on} in {names:?}");
}

#[tokio::test]
async fn a_preflight_is_answered_before_anyone_is_asked_who_they_are() {
    let origin = Origin::start().await;
    let gateway = before(&origin).await;
    for client in [gateway.client(), gateway.http2_client("secure")] {
        for from in [APP, "http://localhost:5173"] {
            let request = preflight(&client, "/listed/x", from, "PUT");
            let request =
                request.header("access-control-request-headers", "x-api-key,content-type");
            let answer = request.send().await;
            answer.expect_status(204).expect_body("").expect_no_header("content-length");
            assert_eq!(
                said(&answer),
                [
                    "access-control-allow-credentials: true".to_owned(),
                    "access-control-allow-headers: x-api-key, content-type".to_owned(),
                    "access-control-allow-methods: GET, PUT".to_owned(),
                    format!("access-control-allow-origin: {from}"),
                    "access-control-max-age: 3600".to_owned(),
                ]
            );
            expect_varies(&answer, "origin");
            expect_varies(&answer, "access-control-request-method");
            expect_varies(&answer, "access-control-request-headers");
        }
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_preflight_for_what_is_not_allowed_gets_no_permission() {
    let origin = Origin::start().await;
    let gateway = before(&origin).await;
    let client = gateway.client();
    for from in [
        "https://evil.example.com",
        "http://app.example.com",
        "https://app.example.com:444",
        "https://app.example.com.evil.com",
        "null",
        "",
        "https://APP.example.com",
    ] {
        let answer = preflight(&client, "/listed/x", from, "GET").send().await;
        assert_eq!(said(&answer), [""; 0], "{from}");
        expect_varies(&answer, "origin");
    }
    let denied = preflight(&client, "/listed/x", APP, "GET")
        .header("access-control-request-headers", "x-api-key, x-other");
    assert_eq!(said(&denied.send().await), [""; 0], "a field that is not listed");
    // The route does not take it, so no route would answer the request itself.
    let answer = preflight(&client, "/listed/x", APP, "DELETE").send().await;
    answer.expect_status(405);
    assert_eq!(said(&answer), [""; 0]);
    // Routes without a policy have no preflight: OPTIONS is a method like another.
    preflight(&client, "/closed", APP, "GET").send().await.expect_status(401);
    preflight(&client, "/none", APP, "GET").send().await.expect_status(404);
    // Without the fields of one, this is no preflight.
    client.request("OPTIONS", "/listed/x").header("origin", APP).send().await.expect_status(405);
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_response_says_who_may_read_it_whatever_the_upstream_says() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Answer(
        Reply::text("ok")
            .header("access-control-allow-origin", "*")
            .header("access-control-allow-credentials", "true")
            .header("access-control-expose-headers", "x-secret")
            .header("vary", "accept-encoding"),
    ));
    let gateway = before(&origin).await;
    for client in [gateway.client(), gateway.http2_client("secure")] {
        let answer = client.get("/listed/x").header("origin", APP).key("alice").send().await;
        answer.expect_status(200);
        assert_eq!(
            said(&answer),
            [
                "access-control-allow-credentials: true".to_owned(),
                format!("access-control-allow-origin: {APP}"),
                "access-control-expose-headers: x-request-id, ratelimit".to_owned(),
            ]
        );
        expect_varies(&answer, "origin");
        expect_varies(&answer, "accept-encoding");
        // A request that the policy does not allow is the browser's to refuse.
        for from in [Some("https://evil.example.com"), None] {
            let request = client.get("/listed/x").key("alice");
            let request = from.into_iter().fold(request, |r, from| r.header("origin", from));
            let answer = request.send().await;
            answer.expect_status(200);
            assert_eq!(said(&answer), [""; 0], "{from:?}");
            expect_varies(&answer, "origin");
        }
        let answer = client.get("/any").header("origin", "https://any.example.com").send().await;
        assert_eq!(said(&answer), ["access-control-allow-origin: *"]);
        // Without a policy, the upstream speaks for itself.
        let answer = client.get("/closed").header("origin", APP).key("alice").send().await;
        answer.expect_header("access-control-expose-headers", "x-secret");
    }
}

#[tokio::test]
async fn scripts_can_read_why_they_were_refused() {
    let origin = Origin::start().await;
    origin.on("/listed/broken", Behaviour::Reset);
    let gateway = before(&origin).await;
    let client = gateway.client();
    client.get("/limited").send().await.expect_status(200);
    for (request, status) in [
        (client.get("/listed/x"), 401),
        (client.get("/listed/x").key("nonsense"), 401),
        (client.request("PUT", "/listed/x").body("01234567890"), 413),
        (client.get("/limited"), 429),
        (client.get("/listed/broken").key("alice"), 502),
    ] {
        let answer = request.header("origin", APP).send().await;
        answer.expect_status(status);
        answer.expect_header("access-control-allow-origin", APP);
        answer.expect_header("access-control-allow-credentials", "true");
        answer.expect_header("access-control-expose-headers", "x-request-id, ratelimit");
        expect_varies(&answer, "origin");
    }
}

#[tokio::test]
async fn a_preflight_is_charged_to_no_limit_and_recorded_for_its_route() {
    let origin = Origin::start().await;
    let gateway = before(&origin).await;
    let client = gateway.client();
    for _ in 0..5 {
        let answer = preflight(&client, "/limited", APP, "GET").send().await;
        answer.expect_status(204).expect_no_header("ratelimit");
    }
    client.get("/limited").send().await.expect_status(200);
    client.get("/limited").send().await.expect_status(429);
    preflight(&client, "/limited", APP, "GET").send().await.expect_status(204);
    let logged = gateway.access_log(8).await;
    let seen =
        |line: &serde_json::Value| (line["route"] == "limited", line["status"].as_u64().unwrap());
    let seen: Vec<_> = logged.iter().map(seen).collect();
    assert_eq!(seen[0], (true, 204));
    assert_eq!(seen[5..], [(true, 200), (true, 429), (true, 204)]);
}
