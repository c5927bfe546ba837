//! Whom limits count beside consumers, keys and addresses: tenants that a token or a header names. And
//! what a request costs.

use crate::support::client::Answer;
use crate::support::gateway::{Builder, Gateway};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

const ROUTE: &str = "path = \"/*\"\nauth = [\"api_key\", \"jwt\"]\nreply = { status = 200 }\n";

fn described(limit: &str) -> Builder {
    Gateway::builder()
        .route("all", ROUTE)
        .toml("[auth.jwt.default]\ndefault_plan = \"basic\"\n")
        .file("plan.toml", &format!("[plans.basic.limits.each]\n{limit}\n"))
}

fn token(gateway: &Gateway, subject: &str, tenant: &serde_json::Value) -> String {
    let ends = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3600;
    gateway.sign_jwt(&json!({ "sub": subject, "exp": ends, "tenant": tenant }))
}

/// How many of `count` requests are let through.
async fn through(gateway: &Gateway, token: &str, count: usize) -> usize {
    let answers = gateway.get("/").bearer(token).times(count).await;
    assert_eq!(answers.count(200) + answers.count(429), count);
    answers.count(200)
}

#[tokio::test]
async fn callers_of_a_tenant_share_what_a_claim_of_their_tokens_names() {
    let limit = "rate = \"1/h\"\nburst = 4\nper = { claim = \"tenant\" }";
    let gateway = described(limit).key("acme", "basic").start().await;
    let of = |subject: &str, tenant| token(&gateway, subject, &tenant);
    assert_eq!(through(&gateway, &of("a", json!("blue")), 3).await, 3);
    assert_eq!(through(&gateway, &of("b", json!("blue")), 3).await, 1);
    assert_eq!(through(&gateway, &of("b", json!("red")), 5).await, 4);
    assert_eq!(through(&gateway, &of("c", json!(7)), 5).await, 4);
    assert_eq!(through(&gateway, &of("d", json!(7)), 5).await, 0);
    // No single value, or none: the consumer is counted, so that no limit lapses.
    let long = json!("x".repeat(1025));
    for (subject, tenant) in
        [("e", json!(null)), ("f", json!(["blue"])), ("g", json!("")), ("h", long)]
    {
        assert_eq!(through(&gateway, &of(subject, tenant), 5).await, 4, "{subject}");
    }
    let by_key = gateway.get("/").key("acme").times(5).await;
    assert_eq!((by_key.count(200), by_key.count(429)), (4, 1));
}

#[tokio::test]
async fn a_claim_that_a_reload_counts_by_is_read_of_tokens_seen_before() {
    let gateway = described("rate = \"1000/s\"").start().await;
    let [one, two] = ["a", "b"].map(|subject| token(&gateway, subject, &json!("blue")));
    assert_eq!(through(&gateway, &one, 2).await + through(&gateway, &two, 2).await, 4);
    let limit = "rate = \"1/h\"\nburst = 4\nper = { claim = \"tenant\" }";
    gateway.write_conf("plan.toml", &format!("[plans.basic.limits.tenant]\n{limit}\n"));
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    assert_eq!(through(&gateway, &one, 3).await, 3);
    assert_eq!(through(&gateway, &two, 3).await, 1);
}

#[tokio::test]
async fn a_header_groups_by_all_of_its_values_and_by_no_other_spelling() {
    let limit = "rate = \"1/h\"\nburst = 2\nper = { header = \"X-Tenant\" }";
    let gateway = described(limit).key("acme", "basic").key("other", "basic").start().await;
    let get = async |key: &str, fields: &[(&str, &str)]| {
        let request = gateway.get("/").key(key);
        let request = fields.iter().fold(request, |it, (name, value)| it.header(name, value));
        request.send().await.status
    };
    for (key, fields, expected) in [
        ("acme", &[("x-tenant", "blue")][..], 200),
        ("other", &[("X-Tenant", "blue")], 200),
        ("acme", &[("x-tenant", "blue")], 429),
        ("acme", &[("x-tenant", "red")], 200),
        ("acme", &[("x-tenant", "blue"), ("x-tenant", "red")], 200),
        ("acme", &[("x-tenant", "blue, red")], 200),
        ("other", &[("x-tenant", "blue"), ("x-tenant", "red")], 429),
        // Without it, each consumer has its own.
        ("acme", &[], 200),
        ("acme", &[("x_tenant", "green")], 200),
        ("acme", &[], 429),
        ("other", &[], 200),
    ] {
        assert_eq!(get(key, fields).await, expected, "{key} {fields:?}");
    }
}

#[tokio::test]
async fn a_request_is_let_through_only_if_all_of_its_cost_is_there() {
    let old = "[http]\nlegacy_rate_limit_headers = true\n";
    let limit = "rate = \"1/h\"\nburst = 12\ncost = 5";
    let gateway = described(limit).toml(old).key("acme", "basic").start().await;
    let told = |answer: &Answer| {
        ["limit", "remaining"].map(|part| {
            let value = answer.header(&format!("x-ratelimit-{part}"));
            value.unwrap().parse::<u32>().unwrap()
        })
    };
    for left in [7, 2] {
        let answer = gateway.get("/").key("acme").send().await;
        answer.expect_status(200).expect_header("ratelimit-policy", "\"each\";q=12;w=43200");
        assert!(answer.header("ratelimit").unwrap().starts_with(&format!("\"each\";r={left};t=")));
        assert_eq!(told(&answer), [12, left]);
    }
    let refused = gateway.get("/").key("acme").send().await;
    refused.expect_status(429);
    // Three more, one each hour.
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((10_740..=10_800).contains(&wait), "{wait}");
    assert_eq!(refused.header("x-ratelimit-reset"), refused.header("retry-after"));
    assert_eq!(told(&refused), [12, 0]);

    gateway.write_conf("plan.toml", "[plans.basic.limits.each]\nrate = \"1/h\"\nburst = 12\n");
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    let answers = gateway.get("/").key("acme").times(3).await;
    assert_eq!((answers.count(200), answers.count(429)), (2, 1), "nothing was lost");
}
