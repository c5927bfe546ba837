//! The end of the process: SIGTERM loses nothing, and takes no longer than what is in flight.

use crate::support::client::Client;
use crate::support::gateway::{Builder, Gateway};
use crate::support::load::{Failure, Load, Running, Summary};
use crate::support::origin::{Behaviour, Origin, Reply};
use crate::support::raw::RawClient;
use crate::support::{Stopwatch, eventually, sized};
use std::collections::BTreeSet;
use std::time::Duration;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// What a busy machine may add to any time.
const SLACK: Duration = Duration::from_secs(2);

fn proxying(origin: &Origin, drain: &str) -> Builder {
    Gateway::builder()
        .toml(&format!("[drain]\n{drain}"))
        .upstream("origin", &[origin.address()])
        .route("all", "path = \"/*\"\nauth = \"none\"\nupstream = \"origin\"")
}

/// Every kind of client at once.
struct Crowd {
    kept: Running,
    fresh: Running,
    http2: Running,
}

impl Crowd {
    fn start(gateway: &Gateway) -> Self {
        let load = || Load::on(gateway.address()).rate(50).expect_body(b"ok");
        let secure = Load::on(gateway.listener("secure")).rate(50).expect_body(b"ok");
        Self {
            kept: load().start(),
            fresh: load().fresh().start(),
            http2: secure.http2(gateway.trust()).start(),
        }
    }

    async fn goes_on(&self, count: usize) {
        for running in [&self.kept, &self.fresh, &self.http2] {
            running.goes_on(count).await;
        }
    }

    async fn stop(self) -> [(&'static str, Summary); 3] {
        [
            ("kept", self.kept.stop().await),
            ("fresh", self.fresh.stop().await),
            ("http2", self.http2.stop().await),
        ]
    }
}

/// Whatever was not answered with 200 found the listener closed already.
#[track_caller]
fn expect_lossless(name: &str, summary: &Summary) -> usize {
    let failures: Vec<_> = summary.failures().into_keys().collect();
    assert!(failures.iter().all(|failure| *failure == Failure::Refused), "{name}: {summary:?}");
    let statuses: Vec<_> = summary.statuses().into_keys().collect();
    assert_eq!(statuses, [200], "{name}: {summary:?}");
    summary.statuses()[&200]
}

async fn end_under_load(announce: &str, signal: &str) {
    let origin = Origin::start().await;
    let drain = format!("announce = \"{announce}\"\ndeadline = \"20s\"");
    let mut gateway = proxying(&origin, &drain).tls_listener("secure").start().await;
    let crowd = Crowd::start(&gateway);
    crowd.goes_on(25).await;
    gateway.process().signal(signal);
    let status = gateway.wait_exit(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0), "{announce}");
    let mut answered = 0;
    for (name, summary) in crowd.stop().await {
        answered += expect_lossless(&format!("{name}, announce {announce}"), &summary);
    }
    // The access log has all of it, and so has the origin.
    assert_eq!(gateway.stdout().all().len(), answered, "{announce}");
    assert_eq!(origin.requests(), answered, "{announce}");
}

#[tokio::test]
async fn sigterm_under_load_loses_nothing() {
    for (announce, signal) in [("1s", "TERM"), ("0s", "TERM"), ("500ms", "INT")] {
        end_under_load(announce, signal).await;
    }
}

#[tokio::test]
async fn soak_the_process_ends_again_and_again_under_load_and_loses_nothing() {
    for round in 0..sized(1, 100) {
        let announce = ["0s", "10ms", "100ms", "1s"][round % 4];
        end_under_load(announce, "TERM").await;
    }
}

#[tokio::test]
async fn during_the_announcement_everybody_is_served_and_told_to_go() {
    let origin = Origin::start().await;
    let drain = "announce = \"2s\"\ndeadline = \"20s\"";
    let mut gateway = proxying(&origin, drain).tls_listener("secure").start().await;
    let admin = Client::new(gateway.admin());
    let mut kept = RawClient::connect(gateway.address()).await;
    assert!(kept.exchange(GET).await.head.keeps_alive());
    let http2 = gateway.http2_client("secure");
    http2.get("/").send().await.expect_status(200);
    let took = Stopwatch::start();
    gateway.sigterm();
    gateway.stderr().containing("draining").await;
    admin.get("/livez").send().await.expect_status(200);
    admin.get("/readyz").send().await.expect_status(503).expect_body("draining\n");
    let health = gateway.client().get("/health").send().await;
    health.expect_status(503).expect_header("connection", "close");
    let url = format!("http://{}/health", gateway.address());
    let container = gateway.cli(&["healthcheck", "--url", &url]);
    assert_eq!(container.status.code(), Some(1));
    for round in 0..5 {
        let answer = gateway.client().get("/").send().await;
        answer.expect_status(200).expect_header("connection", "close");
        // A new connection each, and each must hear its first request.
        let fresh = gateway.http2_client("secure").get("/").send().await;
        assert_eq!(fresh.status, 200, "round {round}");
    }
    let response = kept.exchange(GET).await;
    assert_eq!(response.status(), 200);
    assert!(!response.head.keeps_alive());
    kept.expect_closed().await;
    http2.get("/").send().await.expect_status(200);
    assert!(took.elapsed() < Duration::from_secs(2), "too slow to be inside of the announcement");
    let status = gateway.wait_exit(Duration::from_secs(2) + SLACK).await;
    assert_eq!(status.code(), Some(0));
    assert!(took.elapsed() >= Duration::from_secs(2), "{:?}", took.elapsed());
}

#[tokio::test]
async fn the_process_ends_with_its_last_request_and_not_before() {
    let origin = Origin::start().await;
    let slow = Duration::from_secs(3);
    origin.on("/slow", Behaviour::After(slow, Reply::text("all of it")));
    let mut gateway = proxying(&origin, "announce = \"0s\"\ndeadline = \"20s\"")
        .tls_listener("secure")
        .start()
        .await;
    let http1 = gateway.client();
    let http2 = gateway.http2_client("secure");
    let took = Stopwatch::start();
    let requests = async { tokio::join!(http1.get("/slow").send(), http2.get("/slow").send()) };
    let end = async {
        origin.reached(2).await;
        gateway.stop(slow + SLACK).await.0
    };
    let ((first, second), status) = tokio::join!(requests, end);
    first.expect_status(200).expect_body("all of it").expect_header("connection", "close");
    second.expect_status(200).expect_body("all of it");
    assert_eq!(status.code(), Some(0));
    assert!(took.elapsed() >= slow);
    gateway.stderr().containing("\"drained\"").await;
    assert_eq!(gateway.stdout().all().len(), 2);
}

#[tokio::test]
async fn an_idle_process_ends_at_once() {
    let origin = Origin::start().await;
    let mut gateway = proxying(&origin, "announce = \"0s\"").start().await;
    let (status, took) = gateway.stop(SLACK).await;
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn the_deadline_ends_what_would_never_end() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Freeze);
    let every = Duration::from_millis(50);
    origin.on("/events", Behaviour::Ticks { count: 1_000_000, every });
    let mut gateway = proxying(&origin, "announce = \"0s\"\ndeadline = \"1500ms\"")
        .tls_listener("secure")
        .start()
        .await;
    let mut client = RawClient::connect(gateway.address()).await;
    client.send(GET).await;
    let http2 = gateway.http2_client("secure");
    let mut events = http2.get("/events").open().await;
    assert!(events.next().await.is_some());
    origin.reached(2).await;
    let (status, took) = gateway.stop(Duration::from_millis(1500) + SLACK).await;
    assert_eq!(status.code(), Some(0));
    assert!(took >= Duration::from_millis(1500), "{took:?}");
    let said = gateway.stderr().containing("deadline").await;
    assert!(said.contains("\"requests\":2"), "{said}");
    client.expect_closed().await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        for drain in ["announce = \"20s\"", "announce = \"0s\""] {
            let origin = Origin::start().await;
            origin.answer(Behaviour::Freeze);
            let drain = format!("{drain}\ndeadline = \"30s\"");
            let mut gateway = proxying(&origin, &drain).start().await;
            let mut client = RawClient::connect(gateway.address()).await;
            client.send(GET).await;
            origin.reached(1).await;
            gateway.process().signal(first);
            gateway.stderr().containing("draining").await;
            gateway.process().signal(second);
            let status = gateway.wait_exit(SLACK).await;
            assert_eq!(status.code(), Some(1), "{first} {second} {drain}");
            gateway.stderr().containing("second signal").await;
        }
    }
}

#[tokio::test]
async fn connections_that_the_kernel_has_accepted_are_served() {
    let origin = Origin::start().await;
    let mut gateway = proxying(&origin, "announce = \"0s\"").tls_listener("secure").start().await;
    gateway.process().signal("STOP");
    let mut clients = Vec::new();
    for _ in 0..40 {
        let mut client = RawClient::connect(gateway.address()).await;
        client.send(GET).await;
        clients.push(client);
    }
    gateway.process().signal("TERM");
    gateway.process().signal("CONT");
    for mut client in clients {
        let response = client.response().await;
        assert_eq!(response.status(), 200);
        assert!(!response.head.keeps_alive());
    }
    assert_eq!(gateway.wait_exit(SLACK).await.code(), Some(0));
    assert_eq!(origin.requests(), 40);
}

#[tokio::test]
async fn an_idle_connection_has_one_more_second() {
    let origin = Origin::start().await;
    let mut gateway = proxying(&origin, "announce = \"0s\"").tls_listener("secure").start().await;
    let mut idle = RawClient::connect(gateway.address()).await;
    idle.exchange(GET).await;
    let mut late = RawClient::connect(gateway.address()).await;
    late.exchange(GET).await;
    let mut silent = RawClient::connect(gateway.address()).await;
    let http2 = gateway.http2_client("secure");
    http2.get("/").send().await.expect_status(200);
    gateway.metric_is("connections_open", &[], 4.0).await;
    let took = Stopwatch::start();
    gateway.sigterm();
    gateway.stderr().containing("draining").await;
    assert!(idle.is_quiet_for(Duration::from_millis(500)).await);
    let response = late.exchange(GET).await;
    assert_eq!(response.status(), 200);
    assert!(!response.head.keeps_alive());
    idle.expect_closed().await;
    silent.expect_closed().await;
    assert_eq!(gateway.wait_exit(SLACK).await.code(), Some(0));
    assert!(took.elapsed() >= Duration::from_secs(1), "{:?}", took.elapsed());
    assert!(took.elapsed() < Duration::from_secs(1) + SLACK, "{:?}", took.elapsed());
}

#[tokio::test]
async fn half_a_head_or_half_a_handshake_does_not_hold_the_end_up() {
    let origin = Origin::start().await;
    let mut gateway = proxying(&origin, "announce = \"0s\"\ndeadline = \"20s\"")
        .tls_listener("secure")
        .start()
        .await;
    let mut head = RawClient::connect(gateway.address()).await;
    head.send("GET / HTTP/1.1\r\nHo").await;
    let secure = gateway.listener("secure");
    let mut handshake = RawClient::connect(secure).await;
    handshake.send([0x16, 0x03, 0x01, 0x02, 0x00]).await;
    // Nothing is said after the agreement on HTTP/2.
    let preface = RawClient::connect_tls(secure, &gateway.trust(), &["h2"]).await;
    // Or nothing but the preface and empty settings, and GOAWAY is not heard.
    let mut deaf = RawClient::connect_tls(secure, &gateway.trust(), &["h2"]).await;
    deaf.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    gateway.metric_is("connections_open", &[], 4.0).await;
    let (status, took) = gateway.stop(Duration::from_secs(1) + SLACK).await;
    assert_eq!(status.code(), Some(0));
    assert!(took >= Duration::from_secs(1), "{took:?}");
    drop((preface, deaf));
}

#[tokio::test]
async fn a_signal_during_the_start_is_not_lost() {
    let origin = Origin::start().await;
    let mut gateway = proxying(&origin, "announce = \"0s\"").start().await;
    gateway.sighup();
    gateway.sigterm();
    assert_eq!(gateway.wait_exit(SLACK).await.code(), Some(0));
}

#[tokio::test]
async fn every_answered_request_is_in_the_access_log_after_the_end() {
    let origin = Origin::start().await;
    let mut gateway = proxying(&origin, "announce = \"0s\"").start().await;
    let load = Load::on(gateway.address()).connections(8).rate(400).start();
    load.goes_on(200).await;
    gateway.sigterm();
    assert_eq!(gateway.wait_exit(Duration::from_secs(1) + SLACK).await.code(), Some(0));
    let summary = load.stop().await;
    let answered = expect_lossless("kept", &summary);
    let lines = gateway.access_log(answered).await;
    let ids: BTreeSet<_> = lines.iter().map(|line| line["request_id"].to_string()).collect();
    assert_eq!((lines.len(), ids.len()), (answered, answered));
    eventually("every request at the origin", || (origin.requests() == answered).then_some(()))
        .await;
}
