//! How many series there can be, and the list of them that alarms and dashboards are checked against.

use crate::fleet::Fleet;
use crate::sink::Sink;
use crate::support::eventually;
use datahub_gateway::telemetry::cloudwatch::{Metric, OTHER};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

/// `UPDATE_GOLDEN=1` writes it anew.
#[test]
fn the_list_of_metrics_is_current() {
    let metrics: Vec<_> = Metric::all()
        .map(|metric| {
            let third = metric.third();
            let mut dimensions = vec!["Service", "Environment"];
            dimensions.extend(third.map(|third| third.name()));
            json!({
                "name": metric.name(),
                "unit": metric.unit().as_str(),
                "dimensions": dimensions,
                "values": third.and_then(|third| third.values()),
            })
        })
        .collect();
    let list = json!({ "namespace": "DataHub/Gateway", "metrics": metrics });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("infra/metrics.json");
    let current = format!("{list:#}\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &current).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap() == current, "run with UPDATE_GOLDEN=1");
}

/// Ten upstreams, each with a route, and nothing listens behind them.
fn upstreams(names: std::ops::Range<u32>) -> String {
    let one = |n: u32| {
        let address: SocketAddr = ([127, 0, 0, 1], 9).into();
        format!(
            "[upstreams.u{n:02}]\nendpoints = ['{address}']\n\
             [routes.r{n:02}]\npath = '/u{n:02}'\nauth = 'none'\nupstream = 'u{n:02}'\n"
        )
    };
    names.map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_35_series_whatever_the_configuration_and_its_reloads() {
    let sink = Sink::start().await;
    let address = sink.address;
    let fleet = Fleet::builder()
        .tasks(1)
        .replica()
        .redis()
        .describe(move |builder| {
            Sink::at(address, builder).file("upstreams.toml", &upstreams(0..10))
        })
        .start()
        .await;
    let gateway = &fleet.tasks[0];
    let ask = async |names: std::ops::Range<u32>| {
        for n in names {
            gateway.get(&format!("/u{n:02}")).send().await;
        }
    };
    ask(0..10).await;
    sink.sum_is("UpstreamRequests", Some("u05"), 1.0).await;
    for first in [5, 10, 20] {
        gateway.write_conf("upstreams.toml", &upstreams(first..first + 10));
        assert_eq!(gateway.reload_and_wait().await.result, "success");
        ask(first..first + 10).await;
    }
    fleet.consumer(0, "acme", "free").await;
    let key = fleet.key(0, "acme").await;
    fleet.revoke(0, &key).await;
    let all = 4.0 * 10.0;
    eventually("all tries", || {
        let named: f64 =
            (0..6).map(|n| sink.sum("UpstreamRequests", Some(&format!("u{n:02}")))).sum();
        (named + sink.sum("UpstreamRequests", Some(OTHER)) >= all).then_some(())
    })
    .await;
    eventually("a revocation", || {
        (!sink.of_metric("RevocationDelay", None).is_empty()).then_some(())
    })
    .await;

    let series = sink.series();
    let names: BTreeSet<&str> = series.iter().map(|(name, _)| name.as_str()).collect();
    let known: BTreeSet<&str> = Metric::all().map(Metric::name).collect();
    assert_eq!(names, known, "each metric was told");
    for datum in sink.taken() {
        let metric = Metric::all().find(|metric| metric.name() == datum.name).unwrap();
        assert_eq!(datum.unit, metric.unit().as_str(), "{}", datum.name);
    }
    assert_eq!(series.len(), 35, "{series:#?}");
}
