//! Who gets how much.

use super::rebuild;
use crate::support::gateway::{Builder, Gateway};
use crate::support::load::Load;
use crate::support::origin::{Behaviour, Origin, Reply};
use std::fmt::Write as _;
use std::time::Duration;

async fn three() -> [Origin; 3] {
    [Origin::named("a").await, Origin::named("b").await, Origin::named("c").await]
}

fn weighted(origins: &[Origin; 3], weights: [u32; 3], more: &str) -> Builder {
    let mut endpoints = String::new();
    for (origin, weight) in origins.iter().zip(weights) {
        let address = origin.authority();
        write!(endpoints, "{{ address = '{address}', weight = {weight} }}, ").unwrap();
    }
    Gateway::before(&[], &format!("endpoints = [{endpoints}]\n{more}"))
}

#[tokio::test]
async fn requests_are_shared_by_weight() {
    let origins = three().await;
    let gateway = weighted(&origins, [5, 2, 1], "").start().await;
    gateway.get("/").times(80).await.expect_status(200);
    assert_eq!(origins.each_ref().map(Origin::requests), [50, 20, 10]);
}

#[tokio::test]
async fn the_shares_hold_under_load_while_the_configuration_is_reloaded() {
    let origins = three().await;
    let gateway = weighted(&origins, [5, 2, 1], "").start().await;
    let loads = [
        Load::on(gateway.address()).connections(4).rate(200).start(),
        Load::on(gateway.address()).connections(2).rate(50).fresh().start(),
    ];
    for round in 0..10 {
        loads[0].goes_on(20).await;
        rebuild(&gateway, round).await;
    }
    assert!(gateway.metrics().await.sum("config_revision", &[]) > 10.0, "nothing was built");
    let mut total = 0;
    for load in loads {
        total += load.stop().await.expect_only(200).total();
    }
    // One turn may be taken by each worker and round in the old and the new snapshot's order.
    let share = |parts: usize| (total * parts / 8).saturating_sub(8)..=total * parts / 8 + 8;
    let seen = origins.each_ref().map(Origin::requests);
    for (requests, parts) in seen.into_iter().zip([5, 2, 1]) {
        assert!(share(parts).contains(&requests), "{seen:?} of {total}");
    }
}

#[tokio::test]
async fn least_requests_avoids_a_slow_endpoint_and_remembers_it_over_a_reload() {
    let origins = three().await;
    origins[0].answer(Behaviour::After(Duration::from_millis(400), Reply::text("slow")));
    let gateway = weighted(&origins, [1, 1, 1], "balance = 'least_requests'").start().await;
    let load = Load::on(gateway.address()).connections(30).rate(120).start();
    for round in 0..4 {
        load.goes_on(60).await;
        rebuild(&gateway, round).await;
    }
    load.stop().await.expect_only(200);
    let [slow, one, other] = origins.each_ref().map(Origin::requests);
    // Round robin would give it a third.
    assert!(slow * 5 < one + other, "{slow}, {one}, {other}");
    assert!(slow > 0 && one * 3 > other && other * 3 > one, "{slow}, {one}, {other}");
}

#[tokio::test]
async fn an_endpoint_that_is_added_or_removed_by_a_reload_gets_its_share_or_nothing() {
    let origins = three().await;
    let [a, b, c] = origins.each_ref().map(Origin::authority);
    let gateway = Gateway::before(&[origins[0].address(), origins[1].address()], "").start().await;
    let load = Load::on(gateway.address()).connections(4).rate(150).start();
    load.goes_on(60).await;
    let conf = gateway.read_conf("gateway.toml");
    let changed = conf.replace(&format!("\"{a}\", \"{b}\""), &format!("\"{b}\", \"{c}\""));
    assert_ne!(conf, changed);
    let before = gateway.metrics().await;
    gateway.write_conf("gateway.toml", &changed);
    assert_eq!(gateway.reloaded_since(&before).await.result, "success");
    load.goes_on(8).await;
    let at = origins.each_ref().map(Origin::requests);
    load.goes_on(60).await;
    load.stop().await.expect_only(200);
    let after = origins.each_ref().map(Origin::requests);
    assert_eq!(after[0], at[0], "removed");
    let (old, new) = (after[1] - at[1], after[2] - at[2]);
    assert!(old.abs_diff(new) <= 2, "{old}, {new}");
}
