//! Probes: who is left out, who comes back, and what a reload forgets.

use super::rebuild;
use crate::support::gateway::Gateway;
use crate::support::load::Load;
use crate::support::origin::{Behaviour, Origin, Reply};
use std::time::{Duration, Instant};

const RULES: &str = "interval = '100ms'\ntimeout = '100ms'\nhealthy_after = 2\nunhealthy_after = 2";

fn http() -> String {
    format!("[health]\ntype = 'http'\npath = '/health'\nhost = 'probe.test'\n{RULES}")
}

async fn pair() -> [Origin; 2] {
    [Origin::named("a").await, Origin::named("b").await]
}

async fn is_up(gateway: &Gateway, origin: &Origin, up: bool) {
    let labels = [("upstream", "orders"), ("endpoint", &origin.authority())];
    gateway.metric_is("gateway_upstream_endpoint_up", &labels, f64::from(u8::from(up))).await;
}

/// Requests of clients, not of probes.
fn served(origin: &Origin) -> usize {
    origin.seen().iter().filter(|seen| seen.head.target() == "/").count()
}

fn probes(origin: &Origin) -> usize {
    origin.seen().iter().filter(|seen| seen.head.target() == "/health").count()
}

#[tokio::test]
async fn an_endpoint_whose_probes_fail_is_left_out_until_they_succeed_again() {
    let [a, b] = pair().await;
    let gateway = Gateway::before(&[a.address(), b.address()], &http()).start().await;
    let load = Load::on(gateway.address()).rate(100).start();
    is_up(&gateway, &a, true).await;
    for round in 0..2 {
        a.on("/health", Behaviour::Answer(Reply::new(503)));
        let began = Instant::now();
        is_up(&gateway, &a, false).await;
        // Two probes, a tenth of an interval more each, and what a busy machine takes.
        assert!(began.elapsed() < Duration::from_millis(1200), "{:?}", began.elapsed());
        load.goes_on(10).await;
        let before = served(&a);
        load.goes_on(40).await;
        assert_eq!(served(&a), before, "left out, round {round}");
        a.on("/health", Behaviour::Answer(Reply::new(204)));
        is_up(&gateway, &a, true).await;
        load.goes_on(40).await;
        assert!(served(&a) > before + 5, "back, round {round}");
    }
    load.stop().await.expect_only(200);
    let probe = a.seen().into_iter().find(|seen| seen.head.target() == "/health").unwrap();
    assert_eq!(probe.head.method(), "GET");
    assert_eq!(probe.head.header("host").as_deref(), Some("probe.test"));
}

#[tokio::test]
async fn a_probe_that_only_opens_connections_finds_a_dead_endpoint_and_its_return() {
    let [a, b] = pair().await;
    let conf = format!("[health]\ntype = 'tcp'\n{RULES}");
    let gateway = Gateway::before(&[a.address(), b.address()], &conf).start().await;
    let load = Load::on(gateway.address()).rate(100).start();
    load.goes_on(20).await;
    a.kill().await;
    is_up(&gateway, &a, false).await;
    gateway.stderr().containing("endpoint is unhealthy").await;
    load.goes_on(20).await;
    a.revive().await;
    is_up(&gateway, &a, true).await;
    gateway.stderr().containing("endpoint is healthy").await;
    a.reached(a.requests() + 10).await;
    load.stop().await.expect_only(200);
}

#[tokio::test]
async fn a_reload_neither_forgets_that_an_endpoint_is_down_nor_asks_twice_as_often() {
    let [a, b] = pair().await;
    a.on("/health", Behaviour::Answer(Reply::new(500)));
    let gateway = Gateway::before(&[a.address(), b.address()], &http()).start().await;
    is_up(&gateway, &a, false).await;
    let load = Load::on(gateway.address()).rate(200).start();
    load.goes_on(10).await;
    let before = served(&a);
    let (began, asked) = (Instant::now(), probes(&a));
    for round in 0..10 {
        rebuild(&gateway, round).await;
        let up = gateway.metrics().await.sum("upstream_endpoint_up", &[]);
        assert_eq!(up, 1.0, "right after the reload");
        load.goes_on(10).await;
    }
    assert_eq!(served(&a), before, "a request went to an endpoint that is down");
    let intervals = began.elapsed().as_millis() / 90 + 2;
    let asked = probes(&a) - asked;
    assert!(u128::try_from(asked).unwrap() <= intervals, "{asked} probes in {intervals} intervals");
    load.stop().await.expect_only(200);
    a.on("/health", Behaviour::Answer(Reply::new(200)));
    is_up(&gateway, &a, true).await;
}

#[tokio::test]
async fn an_endpoint_that_is_probed_no_longer_is_used_again() {
    let [a, b] = pair().await;
    a.on("/health", Behaviour::Answer(Reply::new(500)));
    let gateway = Gateway::before(&[a.address(), b.address()], &http()).start().await;
    is_up(&gateway, &a, false).await;
    let conf = gateway.read_conf("gateway.toml");
    let (rest, health) = conf.split_once("[upstreams.orders.health]").unwrap();
    let after = health.split_once("\n[").map_or(String::new(), |(_, after)| format!("[{after}"));
    let before = gateway.metrics().await;
    gateway.write_conf("gateway.toml", &format!("{rest}{after}"));
    assert_eq!(gateway.reloaded_since(&before).await.result, "success");
    is_up(&gateway, &a, true).await;
    gateway.get("/").times(4).await.expect_status(200);
    assert_eq!(served(&a), 2);
}
