//! TLS to endpoints: whom the gateway believes, and what it does when it does not.

use crate::support::gateway::{Builder, Gateway};
use crate::support::http2_origin::Http2Origin;
use crate::support::origin::{Behaviour, Origin};
use crate::support::tls::{self, Authority};
use std::net::SocketAddr;

/// A gateway with an upstream of this TLS table for each name, reached by `/name`.
fn before(at: SocketAddr, more: &str, tables: &[(&str, &str)]) -> Builder {
    let mut builder = Gateway::builder();
    for (name, table) in tables {
        let route = format!("path = '/{name}'\nauth = 'none'\nupstream = '{name}'");
        builder = builder
            .upstream_with(name, &[at], &format!("{more}\n[tls]\n{table}"))
            .route(name, &route);
    }
    builder
}

#[tokio::test]
async fn an_endpoint_is_believed_only_with_the_right_name_under_the_right_authority() {
    let (ours, other) = (Authority::new(), Authority::new());
    let origin = Origin::tls(&ours, &["orders.test", "127.0.0.1"]).await;
    let gateway = before(
        origin.address(),
        "",
        &[
            ("good", "server_name = 'orders.test'\nca = 'ours.pem'"),
            ("both", "server_name = 'orders.test'\nca = 'both.pem'"),
            ("other", "server_name = 'orders.test'\nca = 'other.pem'"),
            ("system", "server_name = 'orders.test'"),
            ("name", "server_name = 'billing.test'\nca = 'ours.pem'"),
            ("blind", "server_name = 'billing.test'\nverify = 'off-insecure'"),
        ],
    )
    .file("ours.pem", &ours.pem())
    .file("other.pem", &other.pem())
    .file("both.pem", &format!("{}{}", other.pem(), ours.pem()))
    .toml("workers = 1")
    .start()
    .await;
    // Twice, since a connection that one upstream has made must not serve another.
    for _ in 0..2 {
        for (name, status) in [
            ("good", 200),
            ("both", 200),
            ("blind", 200),
            ("other", 502),
            ("system", 502),
            ("name", 502),
        ] {
            for method in ["GET", "POST"] {
                let answer = gateway.request(method, &format!("/{name}")).send().await;
                assert_eq!((name, answer.status), (name, status), "{}", answer.text());
                if status == 502 {
                    answer.expect_code("upstream_unreachable");
                }
            }
        }
    }
    let seen: Vec<_> = origin.seen().iter().map(|seen| seen.head.target()).collect();
    assert_eq!(seen.len(), 2 * 3 * 2, "{seen:?}");
    for refused in ["/other", "/system", "/name"] {
        assert!(!seen.iter().any(|target| target == refused), "forwarded: {refused}");
    }
    // One kept connection for each trust, and one for each refusal.
    let used: std::collections::BTreeSet<_> =
        origin.seen().iter().map(|seen| (seen.connection, seen.head.target())).collect();
    assert_eq!(used.len(), 3, "a connection was shared: {used:?}");
}

#[tokio::test]
async fn a_plain_endpoint_is_not_taken_for_a_secure_one_nor_the_reverse() {
    let authority = Authority::new();
    let plain = Origin::start().await;
    let secure = Origin::tls(&authority, &[tls::NAME]).await;
    let gateway = Gateway::builder()
        .upstream_with(
            "tls-to-plain",
            &[plain.address()],
            "[timeouts]\nconnect = '300ms'\n[tls]\nserver_name = 'localhost'\nca = 'ca.pem'",
        )
        .upstream("plain-to-tls", &[secure.address()])
        .route("one", "path = '/one'\nauth = 'none'\nupstream = 'tls-to-plain'")
        .route("two", "path = '/two'\nauth = 'none'\nupstream = 'plain-to-tls'")
        .file("ca.pem", &authority.pem())
        .start()
        .await;
    // It waits for the rest of what it takes for a request, so the handshake does not end.
    gateway.get("/one").send().await.expect_status(504);
    gateway.get("/two").send().await.expect_status(502);
    assert_eq!((plain.requests(), secure.requests()), (0, 0));
}

#[tokio::test]
async fn endpoints_that_speak_http2_are_reached_with_prior_knowledge_and_over_tls() {
    let authority = Authority::new();
    let plain = Http2Origin::plain().await;
    let secure = Http2Origin::tls(&authority, &["orders.test"]).await;
    let gateway = before(
        secure.address(),
        "protocol = 'http2'",
        &[
            ("secure", "server_name = 'orders.test'\nca = 'ca.pem'"),
            ("name", "server_name = 'billing.test'\nca = 'ca.pem'"),
            ("system", "server_name = 'orders.test'"),
        ],
    )
    .upstream_with("plain", &[plain.address()], "protocol = 'http2'")
    .route("plain", "path = '/plain'\nauth = 'none'\nupstream = 'plain'")
    .file("ca.pem", &authority.pem())
    .toml("workers = 1")
    .start()
    .await;
    for (path, origin) in [("/plain", &plain), ("/secure", &secure)] {
        for _ in 0..10 {
            gateway.post(path, "there and back").send().await.expect_body("there and back");
        }
        assert_eq!((origin.requests(), origin.connections()), (10, 1), "{path}");
    }
    for path in ["/name", "/system"] {
        gateway.get(path).send().await.expect_status(502).expect_code("upstream_unreachable");
    }
    assert_eq!(secure.requests(), 10);
}

#[tokio::test]
async fn an_endpoint_that_speaks_only_http1_is_502_where_http2_is_asked_for() {
    let authority = Authority::new();
    let secure = Origin::tls(&authority, &["orders.test"]).await;
    let plain = Origin::start().await;
    let table = [("secure", "server_name = 'orders.test'\nca = 'ca.pem'")];
    let gateway = before(secure.address(), "protocol = 'http2'", &table)
        .upstream_with(
            "plain",
            &[plain.address()],
            "protocol = 'http2'\n[timeouts]\nper_try = '1s'",
        )
        .route("plain", "path = '/plain'\nauth = 'none'\nupstream = 'plain'")
        .file("ca.pem", &authority.pem())
        .start()
        .await;
    for path in ["/secure", "/plain"] {
        let answer = gateway.get(path).send().await;
        assert_eq!((path, answer.status), (path, 502), "{}", answer.text());
    }
    assert!(!secure.seen().iter().any(|seen| seen.head.target() == "/secure"));
}

#[tokio::test]
async fn http2_endpoints_that_die_freeze_or_break_off_cost_what_others_do() {
    let (bad, good) = (Http2Origin::plain().await, Http2Origin::plain().await);
    let conf = "protocol = 'http2'\n[timeouts]\nper_try = '300ms'\n[ejection]\nfailures = 1000";
    let gateway = Gateway::before(&[bad.address(), good.address()], conf).start().await;
    // Reset streams, and silence: a GET is tried elsewhere, a POST is not.
    for (path, status) in [("/reset", 502), ("/freeze", 504), ("/close", 502)] {
        bad.misbehave(true);
        for method in ["GET", "POST"] {
            let mut statuses = Vec::new();
            for _ in 0..2 {
                statuses.push(gateway.request(method, path).send().await.status);
            }
            statuses.sort_unstable();
            let expected = if method == "GET" { [200, 200] } else { [200, status] };
            assert_eq!(statuses, expected, "{method} {path}");
        }
        bad.misbehave(false);
        gateway.get(path).times(4).await.expect_status(200);
    }
    bad.misbehave(true);
    let mut cut = 0;
    for _ in 0..2 {
        let mut opened = gateway.get("/half").open().await;
        assert_eq!(opened.status, 200);
        loop {
            match opened.try_next().await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    cut += 1;
                    break;
                }
            }
        }
    }
    assert_eq!(cut, 1, "one of two went to the endpoint that breaks off");
}

#[tokio::test]
async fn a_certificate_is_checked_on_every_new_connection() {
    let (ours, other) = (Authority::new(), Authority::new());
    let origin = Origin::tls(&ours, &["orders.test"]).await;
    let table = [("orders", "server_name = 'orders.test'\nca = 'ca.pem'")];
    let gateway = before(origin.address(), "", &table).file("ca.pem", &ours.pem()).start().await;
    gateway.get("/orders").times(4).await.expect_status(200);
    // Another authority is trusted from now on; what is kept under the old one must not serve.
    gateway.write_conf("ca.pem", &other.pem());
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    let before = origin.requests();
    for _ in 0..4 {
        gateway.get("/orders").send().await.expect_status(502);
    }
    assert_eq!(origin.requests(), before);
    gateway.write_conf("ca.pem", &ours.pem());
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    gateway.get("/orders").send().await.expect_status(200);
    origin.answer(Behaviour::Echo);
    gateway.post("/orders", "still").send().await.expect_body("still");
}
