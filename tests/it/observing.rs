//! What operators see of requests: one line each, counts, and never a secret.

use crate::support::client::Client;
use crate::support::gateway::{Builder, Gateway};
use crate::support::load::Load;
use crate::support::metrics::Metrics;
use crate::support::origin::{Behaviour, Origin, Reply};
use crate::support::raw::RawClient;
use crate::support::websocket::{self, Message, WebSocket};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

fn before(origin: &Origin) -> Builder {
    let route = |path: &str, auth: &str| {
        format!("path = {path:?}\nauth = {auth}\nupstream = \"u\"\nmax_body = \"1KiB\"")
    };
    Gateway::builder()
        .tls_listener("secure")
        .plan("basic", "100000/s")
        .plan("few", "1/h")
        .key("alice", "basic")
        .key("bob", "few")
        .upstream("u", &[origin.address()])
        .route("open", &route("/open/*", "\"none\""))
        .route("key", &route("/key/{id}", "\"api_key\""))
        .route("token", &route("/token", "\"jwt\""))
        .route("either", &route("/either", "[\"api_key\", \"jwt\"]"))
}

#[tokio::test]
async fn a_request_is_one_line_that_says_what_happened() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Answer(Reply::text("hello")));
    let gateway = before(&origin).start().await;
    let key = gateway.key("alice");
    let id = key.split('_').nth(2).unwrap();
    let answer = gateway
        .request("POST", "/key/7?secret=1")
        .host("api.example.com:8080")
        .header("user-agent", "it/1.0")
        .key("alice")
        .body("12345678")
        .send()
        .await;
    answer.expect_status(200);
    let line = gateway.line_of(&answer).await;
    let line = line.as_object().unwrap();
    for (name, expected) in [
        ("method", json!("POST")),
        ("host", json!("api.example.com:8080")),
        ("path", json!("/key/7")),
        ("version", json!("1.1")),
        ("tls", json!(false)),
        ("client", json!("127.0.0.1")),
        ("user_agent", json!("it/1.0")),
        ("request_bytes", json!(8)),
        ("status", json!(200)),
        ("response_bytes", json!(5)),
        ("route", json!("key")),
        ("plan", json!("basic")),
        ("credential", json!(format!("key:{id}"))),
        ("upstream", json!("u")),
        ("endpoint", json!(origin.address().to_string())),
        ("tries", json!(1)),
        ("request_id", json!(answer.header("x-request-id").unwrap())),
    ] {
        assert_eq!(line[name], expected, "{name} of {line:?}");
    }
    let head = origin.seen()[0].head.clone();
    assert_eq!(line["consumer"], json!(head.header("x-consumer-id").unwrap()));
    assert_eq!(head.header("traceparent").unwrap()[3..35], *line["trace_id"].as_str().unwrap());
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line:?}");
    let (whole, upstream) =
        (line["duration_ms"].as_f64().unwrap(), line["upstream_ms"].as_f64().unwrap());
    assert!(0.0 < upstream && upstream <= whole, "{line:?}");
    for absent in ["reason", "cause", "end", "would_refuse", "amzn_trace_id"] {
        assert!(!line.contains_key(absent), "{absent} of {line:?}");
    }
}

#[tokio::test]
async fn the_line_of_an_http2_request_with_a_token_says_that_it_was_one() {
    let origin = Origin::start().await;
    let gateway = before(&origin).start().await;
    let client = gateway.http2_client("secure");
    let answer = client.request("HEAD", "/token").bearer(&gateway.token("bob")).send().await;
    let line = gateway.line_of(answer.expect_status(200)).await;
    for (name, expected) in [
        ("method", json!("HEAD")),
        ("host", json!(format!("localhost:{}", gateway.listener("secure").port()))),
        ("version", json!("2")),
        ("tls", json!(true)),
        ("response_bytes", json!(0)),
        ("credential", json!("jwt:default/bob")),
        ("plan", json!("few")),
    ] {
        assert_eq!(line[name], expected, "{name} of {line:?}");
    }
}

#[tokio::test]
async fn a_refused_request_says_why_in_its_line() {
    let origin = Origin::start().await;
    origin.on("/open/reset", Behaviour::Reset);
    let gateway = before(&origin).start().await;
    let client = gateway.client();
    let expected = [
        // Nobody else is there to ask, so what the one did is the cause.
        (client.get("/open/reset"), 502, "upstream_broken", Some("broken"), Some("open")),
        (client.get("/none"), 404, "no_route", None, None),
        (client.request("PUT", "/open/%2F"), 400, "bad_target", None, None),
        (client.get("/key/1"), 401, "no_credential", Some("no_credential"), Some("key")),
        (client.get("/key/1").key("dh_x"), 401, "invalid_key", Some("malformed"), Some("key")),
        (client.get("/token").bearer("x"), 401, "invalid_token", Some("malformed"), Some("token")),
        (client.post("/open/x", vec![b'x'; 1025]), 413, "body_too_large", None, Some("open")),
    ];
    for (request, status, reason, cause, route) in expected {
        let line = gateway.line_of(request.send().await.expect_status(status)).await;
        assert_eq!((&line["status"], &line["reason"]), (&json!(status), &json!(reason)), "{line}");
        assert_eq!((&line["route"], &line["cause"]), (&json!(route), &json!(cause)), "{line}");
    }
    // Who was refused by a limit is known.
    client.get("/key/1").key("bob").send().await.expect_status(200);
    let refused = client.get("/key/1").key("bob").send().await;
    let line = gateway.line_of(refused.expect_status(429)).await;
    assert_eq!(
        (&line["reason"], &line["cause"]),
        (&json!("rate_limited"), &json!("plan/few/requests"))
    );
    assert_eq!((&line["plan"], &line["tries"]), (&json!("few"), &Value::Null));
}

#[tokio::test]
async fn whatever_a_client_sends_a_line_stays_a_line() {
    let origin = Origin::start().await;
    let gateway = before(&origin).start().await;
    let agents: [&[u8]; 6] = [
        b"\"quoted\" \\ back",
        b"\xff\xfe not UTF-8 \xc3",
        "\u{202e}\u{1f600} \u{2028}".as_bytes(),
        b"\",\"status\":200,\"x\":\"",
        b"tab\tbed",
        &[b'a'; 6_000],
    ];
    for agent in agents {
        let mut client = RawClient::connect(gateway.address()).await;
        let parts =
            [&b"GET /open/%22%0a HTTP/1.1\r\nHost: a\r\nUser-Agent: "[..], agent, b"\r\n\r\n"];
        client.send(parts.concat()).await;
        assert_eq!(client.response().await.status(), 400);
        let parts = [&b"GET /open/%22 HTTP/1.1\r\nHost: a\r\nUser-Agent: "[..], agent, b"\r\n\r\n"];
        let mut client = RawClient::connect(gateway.address()).await;
        client.send(parts.concat()).await;
        assert_eq!(client.response().await.status(), 200);
    }
    let lines = gateway.access_log(2 * agents.len()).await;
    assert_eq!(lines.len(), 2 * agents.len());
    let quoted = |line: &&Value| line["user_agent"] == "\"quoted\" \\ back";
    assert_eq!(lines.iter().filter(quoted).count(), 2);
    assert!(
        lines.iter().all(|line| line["user_agent"].as_str().unwrap().len() <= 1024 + "…".len())
    );
}

#[tokio::test]
async fn under_load_every_request_has_its_line() {
    let origin = Origin::start().await;
    let gateway = before(&origin).start().await;
    let load = Load::on(gateway.address()).get("/open/x").connections(4).rate(500);
    let summary = load.run(Duration::from_millis(600)).await;
    summary.expect_only(200);
    let lines = gateway.access_log(summary.total()).await;
    assert_eq!(lines.len(), summary.total());
    let ids: BTreeSet<_> = lines.iter().map(|line| line["request_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), lines.len());
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("access_log_dropped_total", &[]), 0.0);
}

#[tokio::test]
async fn the_access_log_can_be_switched_off_and_on() {
    let origin = Origin::start().await;
    let gateway = before(&origin).toml("[access_log]\noutput = \"off\"").start().await;
    gateway.get("/open/x").send().await.expect_status(200);
    let conf = gateway.read_conf("gateway.toml").replace("\"off\"", "\"stdout\"");
    gateway.write_conf("gateway.toml", &conf);
    gateway.reload_and_wait().await;
    gateway.get("/open/y").send().await.expect_status(200);
    let lines = gateway.access_log(1).await;
    assert_eq!((lines.len(), &lines[0]["path"]), (1, &json!("/open/y")));
}

/// Series that count requests of `route` by class.
fn classes(metrics: &Metrics, route: &str) -> Vec<f64> {
    let class = |class| metrics.sum("requests_total", &[("route", route), ("status_class", class)]);
    ["2xx", "3xx", "4xx", "5xx"].map(class).into()
}

#[tokio::test]
async fn requests_are_counted_by_route_and_by_what_became_of_them() {
    let origin = Origin::start().await;
    origin
        .on("/open/moved", Behaviour::Answer(Reply::new(302).header("location", "/")))
        .on("/open/error", Behaviour::Answer(Reply::new(500)))
        .on("/open/reset", Behaviour::Reset);
    let gateway = before(&origin).start().await;
    gateway.get("/open/x").times(3).await.expect_status(200);
    for (path, status) in
        [("/open/moved", 302), ("/open/error", 500), ("/open/reset", 502), ("/none", 404)]
    {
        gateway.get(path).send().await.expect_status(status);
    }
    gateway.get("/key/1").key("bob").send().await.expect_status(200);
    gateway.get("/key/1").key("bob").times(2).await.expect_status(429);
    gateway.get("/key/1").send().await.expect_status(401);
    gateway.get("/open/x").host("a..b").send().await.expect_status(400);
    gateway.metric_is("requests_total", &[("route", "open")], 6.0).await;
    gateway.metric_is("heads_refused_total", &[], 2.0).await;

    let metrics = gateway.metrics().await;
    assert_eq!(classes(&metrics, "open"), [3.0, 1.0, 0.0, 2.0]);
    assert_eq!(classes(&metrics, "key"), [1.0, 0.0, 3.0, 0.0]);
    for (name, labels, expected) in [
        ("request_duration_seconds_count", &[("route", "open")][..], 6.0),
        ("rejections_total", &[("route", "open"), ("code", "upstream_broken")], 1.0),
        ("rejections_total", &[("route", "key"), ("code", "rate_limited")], 2.0),
        ("rejections_total", &[("route", "key"), ("code", "no_credential")], 1.0),
        ("limit_refusals_total", &[("rule", "plan/few/requests"), ("mode", "enforce")], 2.0),
        ("heads_refused_total", &[("code", "no_route")], 1.0),
        ("heads_refused_total", &[("code", "bad_host")], 1.0),
        // On a kept connection, and on a new one.
        ("upstream_failures_total", &[("upstream", "u"), ("kind", "broken")], 2.0),
        ("upstream_duration_seconds_count", &[("upstream", "u")], 6.0),
        ("requests_in_flight", &[], 0.0),
    ] {
        assert_eq!(metrics.sum(name, labels), expected, "{name} {labels:?}");
    }
}

#[tokio::test]
async fn no_client_can_make_a_series() {
    let origin = Origin::start().await;
    let gateway = before(&origin).start().await;
    let ask = async |round: usize| {
        let client = gateway.client();
        for number in 0..40 {
            let name = format!("mallory{round}x{number}");
            let target = format!("/open/{name}?{name}");
            let method = if number % 2 == 0 { "GET" } else { name.as_str() };
            let request = client.request(method, &target).host(&format!("{name}.test"));
            request.header("user-agent", &name).send().await.expect_status(200);
            client.get(&format!("/{name}")).send().await.expect_status(404);
            client.get("/key/1").key(&name).send().await.expect_status(401);
            client.get("/token").bearer(&name).send().await.expect_status(401);
        }
        gateway.access_log((round + 1) * 160).await;
        gateway.metrics().await
    };
    let first = ask(0).await;
    let second = ask(1).await;
    assert_eq!(first.series(), second.series());
    let values = second.samples.iter().flat_map(|sample| sample.labels.values());
    for value in values {
        assert!(!value.contains("mallory"), "{value}");
    }
}

/// Where nobody listens: the port was the kernel's choice a moment ago.
fn deaf() -> SocketAddr {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// A word that stands in everything secret that is sent.
const CANARY: &str = "c4n4ryc4n4ryc4n4ry";

/// What comes back to a client where it must not bring a secret.
async fn show_secrets(gateway: &Gateway, secrets: &[String]) -> Vec<String> {
    let mut told = Vec::new();
    let fields = [
        ("x-api-key", "{}"),
        ("x_api_key", "{}"),
        ("authorization", "Bearer {}"),
        ("authorization", "bearer{}"),
        ("authorization", "Basic {}"),
        ("proxy-authorization", "Basic {}"),
        ("cookie", "session={}"),
        ("x-request-id", "{}"),
        ("traceparent", "{}"),
    ];
    let targets = ["/key/1", "/token", "/either", "/open/x", "/gone", "/none", "/open/%2F"];
    for client in [gateway.client(), gateway.http2_client("secure")] {
        for secret in secrets {
            for target in targets {
                for (name, pattern) in fields {
                    let value = pattern.replace("{}", secret);
                    let request = client.get(target).header(name, &value);
                    let answer = request.send().await;
                    told.push(format!("{:?} {}", answer.headers, answer.text()));
                }
                let query = format!("{target}?access_token={secret}&api_key={secret}#");
                let answer = client.post(query.trim_end_matches('#'), secret.clone()).send().await;
                told.push(format!("{:?} {}", answer.headers, answer.text()));
            }
            let twice = client.get("/either").key(secret).bearer(secret);
            told.push(twice.send().await.text());
        }
    }
    // Heads that are refused or never end, and bodies that break.
    let secret = secrets.concat();
    for request in [
        format!("GET /?{secret} HTTP/9\r\nHost: a\r\nX-API-Key: {secret}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nX-API-Key: {secret}\r\n{secret}\r\n\r\n"),
        format!(
            "POST /open/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{secret}\r\n"
        ),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: {secret}\r\nHost: {secret}\r\n\r\n"),
    ] {
        let mut client = RawClient::connect(gateway.address()).await;
        client.send(request).await;
        told.push(String::from_utf8_lossy(&client.some().await).into_owned());
    }
    let mut client = RawClient::connect(gateway.address()).await;
    client.send(format!("GET / HTTP/1.1\r\nX-API-Key: {secret}")).await;
    client.reset();
    told
}

#[tokio::test]
async fn no_secret_is_ever_shown() {
    let origin = Origin::start().await;
    let set = format!("session={CANARY}; HttpOnly");
    origin.answer(Behaviour::Answer(Reply::text(CANARY).header("set-cookie", &set)));
    let echo = websocket::echo_server().await;
    let secret = format!("{CANARY}-signs-the-tokens-of-this-test");
    let gateway = before(&origin)
        .env("JWT_SECRET", &secret)
        .env("API_KEY_PEPPER", &format!("{CANARY}-pepper-of-this-test-and-no-other"))
        .upstream("gone", &[deaf()])
        .upstream("echo", &[echo])
        .route("gone", "path = \"/gone\"\nauth = \"none\"\nupstream = \"gone\"")
        .route("echo", "path = \"/echo\"\nauth = \"api_key\"\nupstream = \"echo\"")
        .start()
        .await;
    let sign = |subject: &str| {
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        let claims = json!({ "sub": subject, "exp": 9_999_999_999_u64, "canary": CANARY });
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    };
    let key = gateway.key("alice");
    let plain = key.split('_').nth(3).unwrap().to_owned();
    let (good, unknown) = (sign("alice"), sign("nobody"));
    let secrets =
        [key.clone(), good.clone(), unknown, CANARY.to_owned(), format!("dh_live_{CANARY}")];
    let told = show_secrets(&gateway, &secrets).await;
    let mut socket =
        WebSocket::open(gateway.address(), "/echo", &[("x-api-key", &key)]).await.unwrap();
    socket.send(Message::text(CANARY)).await;
    assert_eq!(socket.next().await, Some(Message::text(CANARY)));
    socket.close().await;
    // A reload and a broken one speak as well.
    gateway.reload_and_wait().await;
    gateway.write_conf("more.toml", "[auth.jwt.other]\nsecret = \"c4n4ryc4n4ryc4n4ry\"");
    assert_eq!(gateway.reload_and_wait().await.result, "failure");

    let lines = 2 * secrets.len() * (7 * 10 + 1) + 1;
    gateway.access_log(lines).await;
    let admin = Client::new(gateway.admin());
    let metrics = admin.get("/metrics").send().await.text();
    let health = admin.get("/healthz").send().await.text();
    let refusals = told.into_iter().filter(|told| !told.contains("\"set-cookie\""));
    let shown = [
        ("stdout", gateway.stdout().text()),
        ("stderr", gateway.stderr().text()),
        ("metrics", metrics),
        ("health", health),
        ("refusals", refusals.collect::<Vec<_>>().join("\n")),
    ];
    let signatures = secrets.iter().filter_map(|secret| secret.rsplit('.').next());
    let needles: Vec<_> = [CANARY, &plain, &key].into_iter().chain(signatures).collect();
    for (place, text) in &shown {
        for needle in &needles {
            let found = text.lines().find(|line| line.contains(needle));
            assert_eq!(found, None, "a secret in {place}");
        }
    }
}
