//! Connections to endpoints are kept, and closed by endpoints as they like.

use crate::support::gateway::Gateway;
use crate::support::load::Load;
use crate::support::origin::{Behaviour, Origin, Reply, Then};
use crate::support::{eventually, tls};
use std::time::Duration;

#[tokio::test]
async fn connections_to_endpoints_are_used_again() {
    let origin = Origin::start().await;
    let authority = tls::Authority::new();
    let secure = Origin::tls(&authority, &[tls::NAME]).await;
    let gateway = Gateway::before(&[origin.address()], "")
        .upstream_with(
            "secure",
            &[secure.address()],
            "tls.server_name = 'localhost'\ntls.ca = 'ca.pem'",
        )
        .route("secure", "path = '/secure'\nauth = 'none'\nupstream = 'secure'")
        .file("ca.pem", &authority.pem())
        .start()
        .await;
    for (path, origin) in [("/", &origin), ("/secure", &secure)] {
        let load = Load::on(gateway.address()).get(path).connections(4).rate(200);
        let kept = load.clone().run(Duration::from_millis(700)).await;
        kept.expect_only(200);
        load.post(path, b"body").fresh().run(Duration::from_millis(700)).await.expect_only(200);
        let requests = origin.requests();
        // One for each request at the same time, in each of two workers.
        assert!(
            requests > 100 && origin.connections() <= 8,
            "{} for {requests}",
            origin.connections()
        );
    }
}

#[tokio::test]
async fn an_endpoint_that_closes_kept_connections_costs_no_get() {
    let origins = [Origin::start().await, Origin::start().await];
    let gateway = Gateway::before(&origins.each_ref().map(Origin::address), "").start().await;
    for answers in [1, 2, 5] {
        for origin in &origins {
            origin.close_after(answers);
        }
        let load = Load::on(gateway.address()).connections(8).rate(400);
        load.run(Duration::from_secs(1)).await.expect_only(200);
    }
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("upstream_endpoint_up", &[]), 2.0, "closing is no fault");
}

#[tokio::test]
async fn a_get_is_answered_though_every_kept_connection_is_dead() {
    let origins = [Origin::start().await, Origin::start().await];
    let addresses = origins.each_ref().map(Origin::address);
    for endpoints in [&addresses[..1], &addresses] {
        let conf = "[ejection]\nfailures = 1";
        let gateway = Gateway::before(endpoints, conf).toml("workers = 1").start().await;
        // Many at the same time, so that many connections are kept.
        for origin in &origins {
            origin.answer(Behaviour::After(Duration::from_millis(150), Reply::text("ok")));
        }
        let load = Load::on(gateway.address()).connections(16).rate(160);
        load.run(Duration::from_millis(400)).await.expect_only(200);
        for origin in &origins {
            origin.answer(Behaviour::Answer(Reply::text("ok"))).end_when_used_again();
        }
        gateway.get("/").times(40).await.expect_status(200);
        let metrics = gateway.metrics().await;
        assert!(metrics.sum("upstream_retries_total", &[]) > 4.0, "nothing was dead");
        assert_eq!(
            metrics.sum("upstream_endpoint_up", &[("endpoint", &origins[0].authority())]),
            1.0
        );
    }
}

#[tokio::test]
async fn a_post_goes_out_on_a_new_connection_when_the_kept_one_was_closed() {
    let origin = Origin::start().await;
    origin.close_after(1);
    let gateway = Gateway::before(&[origin.address()], "").toml("workers = 1").start().await;
    for count in 1..=20 {
        gateway.post("/", "once").send().await.expect_status(200);
        // Until the close is visible: both sides are gone.
        origin.has_open(0).await;
        assert_eq!((origin.requests(), origin.connections()), (count, count));
    }
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_end_a_kept_connection() {
    let origin = Origin::start().await;
    let poisoned = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let gateway = Gateway::before(&[origin.address()], "").toml("workers = 1").start().await;
    for (bytes, pause) in [(&poisoned[..], false), (&poisoned[..], true)] {
        let behaviour = if pause {
            let (answer, rest) = bytes.split_at(40);
            assert!(answer.ends_with(b"ok"));
            let later = (Duration::from_millis(50), rest.to_vec());
            Behaviour::Steps(vec![(Duration::ZERO, answer.to_vec()), later], Then::Keep)
        } else {
            Behaviour::Raw(bytes.to_vec(), Then::Keep)
        };
        origin.on("/poison", behaviour);
        gateway.get("/poison").send().await.expect_status(200).expect_body("ok");
        eventually("the connection to end", || (origin.open() == 0).then_some(())).await;
        gateway.get("/").send().await.expect_body("ok");
    }
}
