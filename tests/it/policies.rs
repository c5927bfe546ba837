//! Policies of routes: conditions that refuse with a stable code, and limits that count together
//! wherever they are named.

use crate::support::gateway::{Builder, Gateway, succeed};
use serde_json::json;

/// `[routes.name]` that answers `ok` itself, with more in its table.
fn reply(path: &str, auth: &str, more: &str) -> String {
    format!("path = {path:?}\nauth = {auth}\nreply = {{ status = 200, body = \"ok\" }}\n{more}\n")
}

const KEYED: &str = "[\"api_key\", \"jwt\"]";

/// The gateway's clients come from 127.0.0.1, which speaks for others.
fn described() -> Builder {
    Gateway::builder()
        .toml("[http]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[auth.jwt.default]\n")
        .plan("basic", "100000/s")
        .plan("gold", "100000/s")
        .key("acme", "basic")
        .key("zoe", "gold")
}

#[tokio::test]
async fn a_condition_that_is_not_met_is_refused_with_a_code_and_the_log_names_the_policy() {
    let gateway = described()
        .route("inside", &reply("/inside", KEYED, "policies = [\"inside\"]"))
        .route("gold", &reply("/gold", KEYED, "policies = [\"gold-only\"]"))
        .route("named", &reply("/named", KEYED, "policies = [\"zoe-only\"]"))
        .toml(
            "[policies.inside]\naddresses = [\"10.0.0.0/8\", \"2001:db8::/32\"]\n\
             deny_addresses = [\"10.9.0.0/16\"]\n\
             [policies.gold-only]\nplans = [\"gold\"]\n\
             [policies.zoe-only]\nconsumers = [\"zoe\"]\n",
        )
        .start()
        .await;
    for (path, key, from, cause) in [
        ("/inside", "acme", "10.1.2.3", None),
        ("/inside", "acme", "2001:db8::7", None),
        ("/inside", "acme", "192.0.2.1", Some("policy/inside/addresses")),
        ("/inside", "acme", "10.9.2.3", Some("policy/inside/addresses")),
        ("/gold", "zoe", "192.0.2.1", None),
        ("/gold", "acme", "192.0.2.1", Some("policy/gold-only/plans")),
        ("/named", "zoe", "192.0.2.1", None),
        ("/named", "acme", "192.0.2.1", Some("policy/zoe-only/consumers")),
    ] {
        let answer = gateway.get(path).key(key).header("x-forwarded-for", from).send().await;
        let Some(cause) = cause else {
            answer.expect_status(200);
            continue;
        };
        answer.expect_status(403).expect_code("policy_denied");
        answer.expect_no_header("www-authenticate").expect_no_header("ratelimit");
        let line = gateway.line_of(&answer).await;
        assert_eq!((&line["reason"], &line["cause"]), (&json!("policy_denied"), &json!(cause)));
    }
    let counted = [("route", "inside"), ("code", "policy_denied")];
    gateway.metric_is("rejections_total", &counted, 2.0).await;
    // Whoever is not let in by the route's own terms is not told of its policies.
    gateway.get("/gold").send().await.expect_status(401).expect_code("no_credential");
}

#[tokio::test]
async fn scopes_of_a_policy_add_to_those_of_the_route() {
    let gateway = described()
        .route(
            "both",
            &reply("/both", KEYED, "scopes = [\"read\"]\npolicies = [\"writers\", \"admins\"]"),
        )
        .route("keys", &reply("/keys", "\"api_key\"", "policies = [\"writers\"]"))
        .toml("[policies.writers]\nscopes = [\"write\"]\n[policies.admins]\nscopes = [\"admin\"]\n")
        .start()
        .await;
    let token = |scope: &str| {
        gateway.sign_jwt(&json!({ "sub": "acme", "exp": 4_000_000_000_u64, "scope": scope }))
    };
    gateway.get("/both").bearer(&token("admin write read")).send().await.expect_status(200);
    for (scopes, lacking) in [("write", "read"), ("read", "write"), ("read write", "admin")] {
        let answer = gateway.get("/both").bearer(&token(scopes)).send().await;
        answer.expect_status(403).expect_code("insufficient_scope").expect_header(
            "www-authenticate",
            &format!("Bearer realm=\"datahub\", error=\"insufficient_scope\", scope=\"{lacking}\""),
        );
    }
    let answer = gateway.get("/keys").key("acme").send().await;
    answer.expect_status(403).expect_code("insufficient_scope");
    answer.expect_no_header("www-authenticate");
    let line = gateway.line_of(&answer).await;
    assert_eq!(line["cause"], json!("policy/writers/scopes"));
}

#[tokio::test]
async fn routes_that_name_one_policy_share_its_limits_and_the_strictest_answer_wins() {
    let gateway = described()
        .plan("basic", "4/h")
        .route("a", &reply("/a", KEYED, "policies = [\"few\", \"more\"]"))
        .route("b", &reply("/b", KEYED, "policies = [\"few\"]"))
        .route("free", &reply("/free", KEYED, ""))
        .toml(
            "[policies.few.limits.together]\nrate = \"3/h\"\n\
             [policies.few.limits.shadow]\nrate = \"1/h\"\nmode = \"shadow\"\n\
             [policies.more.limits.each]\nrate = \"2/h\"\nper = \"consumer\"\n",
        )
        .start()
        .await;
    gateway.get("/a").key("acme").send().await.expect_status(200);
    gateway.get("/b").key("zoe").send().await.expect_status(200);
    gateway.get("/a").key("zoe").send().await.expect_status(200);
    // `together` has none left for anyone, wherever; `each` would have one for either.
    for (path, key) in [("/a", "acme"), ("/b", "acme"), ("/b", "zoe")] {
        let refused = gateway.get(path).key(key).send().await;
        refused.expect_status(429).expect_code("rate_limited");
        assert_eq!(refused.json()["violated-policies"], json!(["together"]));
        let policies = refused.header("ratelimit-policy").unwrap();
        assert!(policies.contains("\"together\";q=3;w=3600"), "{policies}");
        assert_eq!(policies.contains("\"each\";q=2;w=3600"), path == "/a", "{policies}");
        let line = gateway.line_of(&refused).await;
        assert_eq!(line["cause"], json!("policy/few/together"));
    }
    // A request that was refused has cost nothing of the plan.
    gateway.get("/free").key("acme").times(3).await.expect_status(200);
    gateway.get("/free").key("acme").send().await.expect_status(429);
    let rule = [("rule", "policy/few/together"), ("mode", "enforce")];
    gateway.metric_is("limit_refusals_total", &rule, 3.0).await;
    let shadow = [("rule", "policy/few/shadow"), ("mode", "shadow")];
    gateway.metric_is("limit_refusals_total", &shadow, 2.0).await;
}

#[tokio::test]
async fn an_open_route_takes_a_policy_that_asks_for_no_caller() {
    let open = |name: &str| {
        described()
            .route("open", &reply("/open", "\"none\"", &format!("policies = [\"{name}\"]")))
            .toml(
                "[policies.inside]\naddresses = [\"10.0.0.0/8\"]\n\
                 [policies.inside.limits.each]\nrate = \"1/h\"\nper = \"address\"\n\
                 [policies.zoe-only]\nconsumers = [\"zoe\"]\n",
            )
    };
    let gateway = open("inside").start().await;
    for (from, status) in
        [("10.0.0.1", 200), ("10.0.0.1", 429), ("10.0.0.2", 200), ("9.0.0.1", 403)]
    {
        let answer = gateway.get("/open").header("x-forwarded-for", from).send().await;
        answer.expect_status(status);
    }
    let checked = open("zoe-only").check();
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(!checked.status.success(), "{told}");
    assert!(told.contains("route `open` has a policy that asks for a caller"), "{told}");
}

#[tokio::test]
async fn a_reload_changes_policies_and_one_that_routes_need_cannot_be_taken_away() {
    let gateway = described()
        .route("all", &reply("/*", KEYED, "policies = [\"gate\"]"))
        .file("gate.toml", "[policies.gate]\n")
        .start()
        .await;
    gateway.get("/").key("acme").send().await.expect_status(200);
    gateway.write_conf("gate.toml", "[policies.gate]\nplans = [\"gold\"]\n");
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    gateway.get("/").key("acme").send().await.expect_status(403).expect_code("policy_denied");
    gateway.get("/").key("zoe").send().await.expect_status(200);

    gateway.write_conf("gate.toml", "[policies.gte]\n");
    assert_eq!(gateway.reload_and_wait().await.result, "failure");
    let checked = gateway.cli(&["check"]);
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(!checked.status.success() && told.contains("did you mean `gte`"), "{told}");
    gateway.get("/").key("acme").send().await.expect_status(403);

    gateway.write_conf("gate.toml", "[policies.gate]\n");
    assert!(succeed(&gateway.cli(&["check"])).contains("2 plans (basic, gold)"));
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    gateway.get("/").key("acme").send().await.expect_status(200);
}
