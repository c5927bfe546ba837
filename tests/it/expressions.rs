//! Expressions of operators: conditions of routes and policies, and header values, looked at from
//! outside.

use crate::support::eventually_async;
use crate::support::gateway::{Builder, Gateway, succeed};
use crate::support::http2::Http2;
use crate::support::origin::Origin;
use crate::support::raw::RawClient;
use serde_json::json;

fn reply(path: &str, auth: &str, body: &str, more: &str) -> String {
    format!(
        "path = {path:?}\nauth = {auth:?}\nreply = {{ status = 200, body = {body:?} }}\n{more}\n"
    )
}

fn described() -> Builder {
    Gateway::builder()
        .toml("[http]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[auth.jwt.default]\n")
        .plan("basic", "100000/s")
        .plan("gold", "100000/s")
        .key("acme", "basic")
        .key("zoe", "gold")
}

#[tokio::test]
async fn a_condition_of_a_route_takes_requests_from_the_route_beside_it() {
    let canary = "when = \"request.headers['x-canary'] == '1' || request.query.beta == '1'\"";
    let inside = "when = \"inNetwork(request.address, '10.0.0.0/8') && request.scheme == 'http'\"";
    let gateway = described()
        .route("all", &reply("/a", "none", "all", ""))
        .route("canary", &reply("/a", "none", "canary", canary))
        .route("inside", &reply("/inside", "none", "inside", inside))
        .start()
        .await;
    for (path, header, from, expected) in [
        ("/a", "", "192.0.2.1", "all"),
        ("/a", "0", "192.0.2.1", "all"),
        ("/a", "1", "192.0.2.1", "canary"),
        ("/a?beta=1", "", "192.0.2.1", "canary"),
        ("/a?beta=%31", "0", "192.0.2.1", "canary"),
        ("/inside", "", "10.1.2.3", "inside"),
    ] {
        let mut request = gateway.get(path).header("x-forwarded-for", from);
        if !header.is_empty() {
            request = request.header("x-canary", header);
        }
        let answer = request.send().await;
        answer.expect_status(200);
        assert_eq!(answer.text(), expected, "{path} {header}");
    }
    let outside = gateway.get("/inside").header("x-forwarded-for", "192.0.2.1").send().await;
    outside.expect_status(404).expect_code("no_route");
}

#[tokio::test]
async fn a_condition_of_a_policy_is_refused_where_it_is_not_met_and_where_it_cannot_be_told() {
    let gateway = described()
        .route("small", &reply("/small", "api_key", "ok", "policies = [\"small\"]"))
        .route("gold", &reply("/gold", "api_key", "ok", "policies = [\"gold\"]"))
        .route("broken", &reply("/broken", "api_key", "ok", "policies = [\"broken\"]"))
        .toml(
            "[policies.small]\nwhen = \"request.size <= 10 && request.method == 'POST'\"\n\
             [policies.gold]\nwhen = \"caller.plan == 'gold' && route.name == 'gold' && caller.method == 'api_key'\"\n\
             [policies.broken]\nwhen = \"100 / int(request.query.n) > 0\"\n",
        )
        .start()
        .await;
    for (key, body, status) in [("acme", "0123456789", 200), ("acme", "0123456789a", 403)] {
        gateway.post("/small", body).key(key).send().await.expect_status(status);
    }
    for (path, key, met) in [
        ("/gold", "zoe", true),
        ("/gold", "acme", false),
        ("/broken?n=5", "acme", true),
        ("/broken?n=0", "acme", false),
        ("/broken?n=x", "acme", false),
        ("/broken", "acme", false),
    ] {
        let answer = gateway.get(path).key(key).send().await;
        if met {
            answer.expect_status(200);
            continue;
        }
        answer.expect_status(403).expect_code("policy_denied");
        let line = gateway.line_of(&answer).await;
        let policy = path.trim_start_matches('/').split('?').next().unwrap();
        assert_eq!(line["cause"], json!(format!("policy/{policy}/when")));
    }
    // What was not sent is no failure.
    let failures = [("expression", "policy/broken/when")];
    gateway.metric_is("expression_errors_total", &failures, 2.0).await;
}

#[tokio::test]
async fn a_row_of_the_store_brings_a_condition_and_a_wrong_one_is_refused_with_its_place() {
    let gateway = described()
        .route("all", &reply("/*", "api_key", "ok", "policies = [\"gate\"]"))
        .toml("[policies.gate]\n")
        .start()
        .await;
    gateway.get("/").key("acme").send().await.expect_status(200);
    let put = |text: &str| {
        let file = gateway.folder().join("row.toml");
        std::fs::write(&file, text).unwrap();
        gateway.cli(&["policies", "put", "gate", file.to_str().unwrap()])
    };
    let wrong = put("when = \"caller.pln == 'gold'\"\n");
    let told = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && told.contains("did you mean `plan`"), "{told}");
    succeed(&put("when = \"caller.plan == 'gold'\"\n"));
    eventually_async("the row in force", async || {
        (gateway.get("/").key("acme").send().await.status == 403).then_some(())
    })
    .await;
    gateway.get("/").key("zoe").send().await.expect_status(200);
}

#[tokio::test]
async fn headers_are_computed_and_one_that_cannot_be_is_left_out() {
    let origin = Origin::start().await;
    let gateway = described()
        .upstream("origin", &[origin.address()])
        .route(
            "all",
            "path = \"/*\"\nauth = \"api_key\"\nupstream = \"origin\"\n\
             response_headers.add.X-Route = { expr = \"route.name + ' of ' + caller.consumer\" }\n\
             request_headers.set.X-Plan = { expr = \"caller.plan + ':' + request.method\" }\n\
             request_headers.set.X-Custom = { expr = \"caller.custom_id\" }\n\
             request_headers.set.X-Echo = { expr = \"request.query.echo\" }\n\
             request_headers.set.X-Fixed = \"as it stands\"\n",
        )
        .start()
        .await;
    let answer = gateway
        .get("/x?echo=a%20b")
        .key("zoe")
        .header("x-plan", "forged")
        .header("x-custom", "forged")
        .send()
        .await;
    answer.expect_status(200).expect_header("x-route", "all of zoe");
    let seen = origin.last();
    assert_eq!(seen.head.header("x-plan").as_deref(), Some("gold:GET"));
    assert_eq!(seen.head.header("x-custom"), None);
    assert_eq!(seen.head.header("x-echo").as_deref(), Some("a b"));
    assert_eq!(seen.head.header("x-fixed").as_deref(), Some("as it stands"));
    let long = format!("/x?echo={}", "a".repeat(1025));
    for path in ["/x?echo=a%0d%0ax-forged:%201", "/x?echo=a%00", &long] {
        gateway.get(path).key("zoe").send().await.expect_status(200);
        let seen = origin.last();
        assert_eq!(
            (seen.head.header("x-echo"), seen.head.header("x-forged")),
            (None, None),
            "{path}"
        );
    }
    let failures = [("expression", "route/all/request_headers/set/X-Echo")];
    gateway.metric_is("expression_errors_total", &failures, 3.0).await;
}

#[tokio::test]
async fn a_limit_counts_whom_an_expression_names_and_takes_what_it_says() {
    let gateway = described()
        .route(
            "tenants",
            &reply(
                "/tenants",
                "jwt",
                "ok",
                "limits.each = { rate = \"2/h\", per = { expr = \"claims.tenant + ':' + request.method\" } }",
            ),
        )
        .route(
            "sizes",
            &reply(
                "/sizes",
                "none",
                "ok",
                "limits.units = { rate = \"10/h\", cost = { expr = \"request.size / 100 + 1\" } }",
            ),
        )
        .start()
        .await;
    let token = |subject: &str, tenant: &str| {
        let claims = json!({ "sub": subject, "exp": 4_000_000_000_u64, "tenant": tenant });
        gateway.sign_jwt(&claims)
    };
    for (method, subject, tenant, status) in [
        ("GET", "acme", "north", 200),
        ("GET", "zoe", "north", 200),
        ("GET", "acme", "north", 429),
        ("GET", "zoe", "north", 429),
        ("POST", "acme", "north", 200),
        ("GET", "acme", "south", 200),
    ] {
        let request = gateway.request(method, "/tenants").bearer(&token(subject, tenant));
        request.send().await.expect_status(status);
    }
    // Ten units: one, four, and five; then none is left.
    for (size, status) in [(0, 200), (399, 200), (500, 429), (400, 200), (0, 429)] {
        gateway.post("/sizes", vec![b'x'; size]).send().await.expect_status(status);
    }
}

#[tokio::test]
async fn a_cost_that_cannot_be_told_is_all_there_can_be_and_none_is_more() {
    let more = "limits.units = { rate = \"5/h\", cost = { expr = \"int(request.query.n)\" }, per = { header = \"x-who\" } }";
    let gateway = described().route("all", &reply("/*", "none", "ok", more)).start().await;
    // Each counts for itself: what the first request takes shows in whether the second may pass.
    for (who, first, second) in [
        ("absent", "/", 429),
        ("failed", "/?n=x", 429),
        ("negative", "/?n=-7", 200),
        ("nothing", "/?n=0", 200),
        ("one", "/?n=1", 200),
        ("all", "/?n=5", 429),
        ("more", "/?n=9223372036854775807", 429),
    ] {
        let ask = |target| gateway.get(target).header("x-who", who).send();
        ask(first).await.expect_status(200);
        ask("/?n=4").await.expect_status(second);
    }
    let failures = [("expression", "route/all/limits/units/cost")];
    gateway.metric_is("expression_errors_total", &failures, 1.0).await;
}

/// What a client could do about a condition that keeps it from something: make it fail, or keep from it what it
/// reads.
#[tokio::test]
async fn a_condition_cannot_be_got_around_by_making_it_fail_or_hiding_what_it_reads() {
    let blocked = "when = \"request.headers['user-agent'].contains('evil')\"";
    let gateway = described()
        .tls_listener("secure")
        .route("blocked", &reply("/*", "none", "blocked", blocked))
        .route("open", &reply("/*", "none", "open", ""))
        .route("small", &reply("/small", "none", "ok", "policies = [\"small\"]"))
        .toml("[policies.small]\nwhen = \"request.size <= 10\"\n")
        .start()
        .await;
    let long = format!("evil{}", "x".repeat(17_000));
    for (agent, status, body) in [
        (&b"good"[..], 200, Some("open")),
        (b"evil", 200, Some("blocked")),
        (b"evil\xff", 400, None),
        (long.as_bytes(), 400, None),
    ] {
        let mut client = RawClient::connect(gateway.address()).await;
        let head = [b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: ", agent, b"\r\n\r\n"].concat();
        let answer = client.exchange(head).await;
        assert_eq!(answer.status(), status, "{}", answer.text());
        match body {
            Some(body) => assert_eq!(answer.text(), body),
            None => assert!(answer.text().contains("unclear_condition"), "{}", answer.text()),
        }
    }
    // Fifty bytes, whose length the head tells or not.
    let body = vec![b'x'; 50];
    gateway.post("/small", vec![b'x'; 10]).send().await.expect_status(200);
    gateway.post("/small", body.clone()).send().await.expect_status(403);
    let mut client = RawClient::connect(gateway.address()).await;
    let head = "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = [head.as_bytes(), b"32\r\n", &body, b"\r\n0\r\n\r\n"].concat();
    assert_eq!(client.exchange(chunk).await.status(), 403);
    let mut http2 = Http2::connect(gateway.listener("secure"), &gateway.trust()).await;
    assert_eq!(http2.get("/small", &[]).await.status, 200);
    let open = http2.begin("POST", "/small", &[], false).await;
    assert_eq!(open.finish().await.unwrap().status, 403);
}
