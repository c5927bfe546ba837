//! Plans that nobody has defined: whoever has one is refused and counted, and nothing else is.

use crate::support::gateway::{Builder, Gateway, succeed};
use crate::support::load::Load;
use crate::support::{eventually_async, sized};

fn described() -> Builder {
    let route = "path = \"/*\"\nauth = [\"api_key\", \"jwt\"]\n\
                 reply = { status = 200, body = \"ok\" }";
    Gateway::builder().route("all", route).toml("[auth.jwt.default]\n").plan("basic", "100000/s")
}

const GOLD: &str = "[plans.gold.limits.requests]\nrate = \"100000/s\"\n";

#[tokio::test]
async fn a_consumer_of_an_unknown_plan_is_refused_and_counted_until_a_reload_brings_the_plan() {
    let gateway = described().key("acme", "gold").key("other", "basic").start().await;
    let token = gateway.token("acme");
    for request in [gateway.get("/").key("acme"), gateway.get("/").bearer(&token)] {
        let answer = request.send().await;
        answer.expect_status(403).expect_code("plan_unknown");
        answer.expect_no_header("ratelimit").expect_no_header("www-authenticate");
    }
    gateway.get("/").key("other").send().await.expect_status(200);
    let counted = [("route", "all"), ("code", "plan_unknown")];
    gateway.metric_is("rejections_total", &counted, 2.0).await;
    let log = gateway.access_log(3).await;
    assert_eq!((&log[0]["reason"], &log[0]["plan"]), (&"plan_unknown".into(), &"gold".into()));

    gateway.write_conf("gold.toml", GOLD);
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    for request in [gateway.get("/").key("acme"), gateway.get("/").bearer(&token)] {
        request.send().await.expect_status(200);
    }
}

#[tokio::test]
async fn a_reload_that_takes_away_a_plan_in_use_takes_effect_and_costs_nobody_else_a_request() {
    let gateway =
        described().file("gold.toml", GOLD).key("acme", "gold").key("other", "basic").start().await;
    let load = |name: &str| {
        Load::on(gateway.address()).header("x-api-key", &gateway.key(name)).rate(200).start()
    };
    let (acme, other) = (load("acme"), load("other"));
    for _ in 0..sized(3, 50) {
        acme.goes_on(20).await;
        gateway.write_conf("gold.toml", "");
        let without = gateway.reload_and_wait().await;
        assert_eq!(without.result, "success");
        gateway.get("/").key("acme").send().await.expect_status(403);
        gateway.write_conf("gold.toml", GOLD);
        let again = gateway.reload_and_wait().await;
        assert!(again.result == "success" && again.revision > without.revision, "{again:?}");
        gateway.get("/").key("acme").send().await.expect_status(200);
    }
    other.stop().await.expect_only(200);
    let summary = acme.stop().await;
    assert!(summary.failures().is_empty(), "{summary:?}");
    assert!(summary.statuses().keys().all(|status| [200, 403].contains(status)), "{summary:?}");
}

#[tokio::test]
async fn an_unknown_plan_in_the_store_does_not_keep_a_gateway_from_starting() {
    let folder = described().key("acme", "gold").folder();
    let checked = folder.cli(&["check"]);
    assert!(succeed(&checked).starts_with("ok: "), "the store is not the configuration's affair");
    let gateway = folder.start().await;
    gateway.get("/").key("acme").send().await.expect_status(403);
    // It heals by a command as well.
    succeed(&gateway.cli(&["keys", "issue", "acme", "--plan", "basic"]));
    let key = gateway.issue_key("acme", "basic", &[]);
    eventually_async("the key on another plan", async || {
        (gateway.get("/").key(&key).send().await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_plan_of_strangers_must_exist_in_the_files() {
    let builder = described().toml("[auth.jwt.default]\ndefault_plan = \"trail\"");
    let failed = builder.plan("trial", "1/h").try_start().await.err().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(failed.stderr.contains("did you mean `trial`"), "{}", failed.stderr);

    // A reload cannot take it away either: the file itself would be wrong.
    let gateway = described()
        .toml("[auth.jwt.default]\ndefault_plan = \"trial\"")
        .file("trial.toml", "[plans.trial]\n")
        .start()
        .await;
    let token = gateway.token("stranger");
    gateway.get("/").bearer(&token).send().await.expect_status(200);
    gateway.write_conf("trial.toml", "");
    assert_eq!(gateway.reload_and_wait().await.result, "failure");
    gateway.get("/").bearer(&token).send().await.expect_status(200);
}
