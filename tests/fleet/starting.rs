//! How a fleet comes up: the tables first, by whoever is first, and no store needs to be there before
//! the gateways are.

use crate::fleet::Fleet;
use crate::support::eventually;
use crate::support::gateway::succeed;
use serde_json::Value;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn ten_at_once_migrate_and_one_of_them_does_it() {
    let fleet = Fleet::builder().tasks(1).servers().await;
    let planned = fleet.cli("migrate --dry-run --json");
    let planned: Value = serde_json::from_str(&succeed(&planned)).unwrap();
    let wanted = planned["migrations"].as_array().unwrap().len();
    assert!(wanted >= 3, "{planned}");
    let running: Vec<_> = (0..10)
        .map(|_| {
            let mut command = fleet.operator.command();
            command.args(["migrate", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let mut applied = Vec::new();
    for one in running {
        let output = one.wait_with_output().unwrap();
        let said: Value = serde_json::from_str(&succeed(&output)).unwrap();
        applied.push(said["migrations"].as_array().unwrap().len());
    }
    applied.sort_unstable();
    // One may do a part, and another the rest.
    assert_eq!(applied.iter().sum::<usize>(), wanted, "{applied:?}");
    let rows = fleet.primary.sql(&fleet.database, "SELECT count(*) FROM schema_migrations");
    assert_eq!(rows, wanted.to_string());
    assert!(succeed(&fleet.cli("migrate")).contains("nothing to do"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_does_not_start_before_migrate_and_says_so() {
    let fleet = Fleet::builder().tasks(1).servers().await;
    let began = Instant::now();
    let failed = fleet.folder().try_start().await.err().expect("there are no tables");
    assert!(failed.stderr.contains("gateway migrate"), "{}", failed.stderr);
    assert!(began.elapsed() < Duration::from_secs(5), "waiting does not help");
    let refused = fleet.cli("consumers add acme --plan free");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("gateway migrate"), "{said}");
    succeed(&fleet.cli("migrate"));
    fleet.folder().start().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_waits_for_a_database_that_comes_up_later() {
    let mut fleet = Fleet::builder().tasks(1).prepare().await;
    fleet.primary.kill();
    let folder = fleet.folder();
    let starting = tokio::spawn(folder.start());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!starting.is_finished(), "nobody can say who may come in");
    fleet.primary.start_again();
    let back = Instant::now();
    let gateway = starting.await.unwrap();
    let took = back.elapsed();
    println!("a gateway that waited is ready {} ms after PostgreSQL is", took.as_millis());
    assert!(took < Duration::from_secs(3), "{took:?}");
    let waited = eventually("a line that says so", || {
        let lines = gateway.stderr().all();
        lines.into_iter().find(|line| line.contains("waiting for the store"))
    })
    .await;
    assert!(!waited.contains("password"), "{waited}");
    gateway.get("/").send().await.expect_status(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_starts_without_redis_and_lets_its_share_through() {
    let described = Fleet::builder().tasks(2).redis().describe(|task| {
        task.plan_with("ten", "[limits.all]\nrate = \"10/h\"\nprecision = \"exact\"")
    });
    let mut fleet = described.prepare().await;
    for node in 0..fleet.redis().len() {
        fleet.redis_mut().kill(node);
    }
    let began = Instant::now();
    fleet.open().await;
    println!("two gateways start without Redis in {} ms", began.elapsed().as_millis());
    fleet.consumer(0, "acme", "ten").await;
    let key = fleet.key(0, "acme").await;
    for task in &fleet.tasks {
        let mut admitted = 0;
        for _ in 0..20 {
            let answer = key.ask(task, "/").send().await;
            assert!(matches!(answer.status, 200 | 429), "{answer:?}");
            admitted += usize::from(answer.status == 200);
        }
        assert_eq!(admitted, 5, "half of the limit for each of two");
        let metrics = task.metrics().await;
        assert_eq!(metrics.sum("gateway_redis_up", &[]), 0.0);
        assert_eq!(metrics.sum("gateway_limits_degraded", &[]), 1.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_says_once_why_redis_is_of_no_use_and_once_that_it_is_again() {
    const AWAY: &str = "Redis is not of use";
    let mut fleet = Fleet::builder().tasks(1).redis().prepare().await;
    let memory = |fleet: &Fleet, most: &str| {
        for node in 0..fleet.redis().len() {
            fleet.redis().cli(node, &["config", "set", "maxmemory", most]);
        }
    };
    memory(&fleet, "1");
    fleet.open().await;
    let lines = |fleet: &Fleet, with: &str| {
        let all = fleet.tasks[0].stderr().all().into_iter();
        all.filter(|line| line.contains(with)).collect::<Vec<_>>()
    };
    let line = eventually("a reason", || lines(&fleet, AWAY).pop()).await;
    assert!(line.contains("OOM") && line.contains("16384 of 16384"), "{line}");
    memory(&fleet, "0");
    eventually("an end of it", || lines(&fleet, "Redis answers for every key").pop()).await;

    let gone = fleet.redis().masters()[0];
    fleet.redis_mut().kill(gone);
    let line = eventually("the next one", || lines(&fleet, AWAY).into_iter().nth(1)).await;
    assert!(line.contains("reason") && line.contains("of 16384"), "{line}");
    assert!(!line.contains("16384 of"), "the others serve theirs: {line}");
    assert_eq!(lines(&fleet, AWAY).len(), 2);
}
