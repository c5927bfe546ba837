//! TLS to both stores, under authorities that only a file names, and passwords.

use crate::fleet::{Fleet, POSTGRES_CA, REDIS_CA};
use crate::postgres_lab::Authority;
use crate::support::eventually_async;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn gateways_work_over_tls_with_passwords_and_believe_no_other_authority() {
    let described = Fleet::builder().tasks(2).redis().secure().describe(|task| {
        task.plan_with("five", "[limits.all]\nrate = \"5/h\"\nprecision = \"exact\"")
    });
    let fleet = described.start().await;
    fleet.consumer(0, "acme", "five").await;
    let key = fleet.key(1, "acme").await;
    for task in &fleet.tasks {
        task.metric_is("gateway_redis_up", &[], 1.0).await;
    }
    let mut admitted = 0;
    for _ in 0..10 {
        for task in &fleet.tasks {
            admitted += usize::from(key.ask(task, "/").send().await.status == 200);
        }
    }
    assert_eq!(admitted, 5, "counted by Redis for both");
    fleet.revoke(0, &key).await;
    fleet.until_all(Instant::now(), 401, &key, "/").await;
    let encrypted = "SELECT bool_and(ssl) AND count(*) > 1 FROM pg_stat_ssl \
                     JOIN pg_stat_activity USING (pid) WHERE usename = 'gw'";
    assert_eq!(fleet.primary.sql(&fleet.database, encrypted), "t");

    let trusted = fleet.trusted.as_ref().unwrap().path();
    let redis_ca = std::fs::read(trusted.join(REDIS_CA)).unwrap();
    std::fs::write(trusted.join(REDIS_CA), Authority::new().pem()).unwrap();
    let wary = fleet.folder().start().await;
    let warned = wary.stderr().containing("Redis").await;
    println!("Redis under another authority: {warned}");
    assert!(warned.contains("certificate") || warned.contains("UnknownIssuer"), "{warned}");
    eventually_async("Redis to be away", async || {
        (wary.metrics().await.sum("gateway_redis_up", &[]) == 0.0).then_some(())
    })
    .await;
    drop(wary);
    std::fs::write(trusted.join(REDIS_CA), redis_ca).unwrap();
    std::fs::write(trusted.join(POSTGRES_CA), Authority::new().pem()).unwrap();
    let began = Instant::now();
    let failed = fleet.folder().try_start().await.err().expect("it is another server");
    println!("PostgreSQL under another authority, after {:?}: {}", began.elapsed(), failed.stderr);
    assert!(failed.stderr.contains("certificate"), "{}", failed.stderr);
    let all = fleet.tasks.iter().map(|task| task.stderr().text()).collect::<String>();
    for text in [&failed.stderr, &warned, &all] {
        assert!(!text.contains("w0rd") && !text.contains("p@ss"), "{text}");
    }
}
