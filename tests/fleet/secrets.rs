//! Where no secret may stand: Redis, PostgreSQL, logs and metrics.

use crate::fleet::{ADMIN_TOKEN, Caller, Fleet, PEPPER, answering, api};
use crate::support::credential::{base64url, id_of, invented, with_another_secret};
use crate::support::gateway::{JWT_SECRET, succeed};
use serde_json::json;
use std::fmt::Write as _;
use std::time::Instant;

/// Every name and every value in Redis, as the client prints them, and raw.
fn all_of_redis(fleet: &Fleet) -> String {
    let redis = fleet.redis();
    let mut all = String::new();
    let mut names = 0;
    for node in redis.masters() {
        for name in redis.cli(node, &["--scan"]).lines().filter(|name| !name.is_empty()) {
            names += 1;
            let kind = redis.cli(node, &["type", name]);
            let value = match kind.trim() {
                "hash" => redis.cli(node, &["hgetall", name]),
                "list" => redis.cli(node, &["lrange", name, "0", "-1"]),
                "set" => redis.cli(node, &["smembers", name]),
                "string" => redis.cli(node, &["get", name]),
                "zset" => redis.cli(node, &["zrange", name, "0", "-1", "withscores"]),
                other => format!("a {other}"),
            };
            writeln!(all, "{name}\n{value}").unwrap();
        }
    }
    assert!(names > 3, "the tasks have used it: {all}");
    println!("{names} names in Redis");
    all
}

/// Every row of every table.
fn all_of_postgres(fleet: &Fleet) -> String {
    let tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1";
    let mut all = String::new();
    for table in fleet.primary.sql(&fleet.database, tables).lines() {
        let rows = fleet.primary.sql(&fleet.database, &format!("SELECT t::text FROM {table} t"));
        writeln!(all, "{table}\n{rows}").unwrap();
    }
    assert!(all.contains("acme"), "{all}");
    all
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A text as somebody could have written it down, wherever it begins in a longer one.
fn spellings(secret: &str) -> Vec<String> {
    let mut all = vec![secret.to_owned(), hex(secret.as_bytes())];
    // Base64 of a text depends on its place in the whole, but for whole groups of three.
    for skip in 0..3 {
        let rest = &secret.as_bytes()[skip..];
        let whole = &rest[..rest.len() / 3 * 3];
        let url = base64url(whole);
        all.push(url.replace('-', "+").replace('_', "/"));
        all.push(url);
    }
    all
}

/// What must not be found: all that proves something, but not the id, which is public.
fn secret_part(plain: &str) -> &str {
    if plain.starts_with("dh_") {
        return plain.rsplit('_').next().unwrap();
    }
    // Of a token its signature; and all of it is looked for as well.
    plain.rsplit('.').next().unwrap()
}

/// Every caller asks for everything, and leaves its secret where it does not belong.
async fn ask_everywhere(fleet: &Fleet, callers: &[Caller]) {
    for caller in callers {
        for path in ["/", "/scoped", "/../%2e%2e/x"] {
            for task in &fleet.tasks {
                for _ in 0..3 {
                    caller.ask(task, path).send().await;
                }
            }
        }
        // Where they do not belong.
        let plain = caller.plain();
        fleet.tasks[0].get("/").header("x-api-key", plain).bearer(plain).send().await;
        fleet.tasks[1].get("/").header("authorization", plain).send().await;
        fleet.api(0, "GET", &format!("/v1/keys/{plain}"), None).await;
        fleet.api(1, "DELETE", &format!("/v1/consumers/{plain}"), None).await;
        fleet.api(1, "POST", &format!("/v1/keys/{plain}/revoke"), Some(&json!({}))).await;
    }
}

/// Wherever a secret could have been written to.
async fn places(fleet: &Fleet) -> Vec<(&'static str, String)> {
    let mut places = vec![
        ("Redis", all_of_redis(fleet)),
        ("PostgreSQL", all_of_postgres(fleet)),
        ("the audit", succeed(&fleet.cli("audit --json"))),
    ];
    for task in &fleet.tasks {
        let metrics = crate::support::client::Client::new(task.admin());
        places.push(("metrics", metrics.get("/metrics").send().await.text()));
        places.push(("the access log", task.stdout().text()));
        places.push(("the log", task.stderr().text()));
    }
    places
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_stands_in_redis_postgres_logs_or_metrics() {
    let described = Fleet::builder().tasks(2).replica().redis().describe(|task| {
        task.route("scoped", &answering("/scoped", "scopes = [\"admin\"]"))
            .plan_with("few", "[limits.a]\nrate = \"3/h\"\nprecision = \"exact\"\nper = \"key\"")
            .plan_with("leased", "[limits.a]\nrate = \"100/s\"\n[limits.q]\nquota = \"9/day\"")
    });
    let fleet = described.start().await;
    let mut callers = Vec::new();
    for plan in ["free", "few", "leased"] {
        let name = if plan == "free" { "acme" } else { plan };
        fleet.consumer(0, name, plan).await;
        callers.push(fleet.key(0, name).await);
        callers.push(Caller::token(name, &format!("jti-of-{plan}")));
    }
    let by_cli = succeed(&fleet.cli("keys issue acme"));
    let by_cli = by_cli.split_whitespace().find(|word| word.starts_with("dh_")).unwrap();
    callers.push(Caller::Key(by_cli.to_owned()));
    callers.push(Caller::Key(invented()));
    callers.push(Caller::Key(with_another_secret(by_cli)));
    callers.push(Caller::token("stranger", "any"));
    let rotated = format!("/v1/keys/{}/rotate", id_of(by_cli));
    let rotated = fleet.write(1, "POST", &rotated, &json!({})).await;
    callers.push(Caller::Key(rotated["key"].as_str().unwrap().to_owned()));
    ask_everywhere(&fleet, &callers).await;
    for wrong in ["not-the-token-not-the-token-not-the-token", PEPPER] {
        let client = crate::support::client::Client::new(fleet.tasks[0].admin());
        client.get("/v1/keys").bearer(wrong).send().await.expect_status(401);
    }
    fleet.revoke(0, &callers[0]).await;
    fleet.until_all(Instant::now(), 401, &callers[0], "/").await;
    api(&fleet.tasks[0], "GET", "/v1/audit", None).await.expect_status(200);

    let places = places(&fleet).await;
    let mut secrets = vec![ADMIN_TOKEN, PEPPER, JWT_SECRET];
    for caller in &callers {
        secrets.extend([caller.plain(), secret_part(caller.plain())]);
    }
    for secret in &secrets {
        for spelling in spellings(secret) {
            for (place, text) in &places {
                let at = text.find(&spelling);
                let around = at.map(|at| &text[at.saturating_sub(200)..(at + 60).min(text.len())]);
                assert!(at.is_none(), "{place} has `{spelling}` of `{secret}`: {around:?}");
            }
        }
    }
    let size: usize = places.iter().map(|(_, text)| text.len()).sum();
    println!("{} secrets in 8 spellings are nowhere in {size} bytes", secrets.len());
}
