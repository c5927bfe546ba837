//! Limits over HTTP: exact whoever asks and however many at once, told in the words of the draft,
//! and charged to nobody who was not let through.

use crate::support::client::{Answer, Request};
use crate::support::gateway::{Builder, Gateway};
use crate::support::load::Load;
use crate::support::origin::Origin;
use crate::support::raw::RawClient;
use crate::support::sized;
use serde_json::json;
use std::time::{Duration, Instant};

/// `[routes.name]` that answers `ok` itself, with more in its table.
fn reply(path: &str, auth: &str, more: &str) -> String {
    format!("path = {path:?}\nauth = {auth}\nreply = {{ status = 200, body = \"ok\" }}\n{more}\n")
}

const KEYED: &str = "[\"api_key\", \"jwt\"]";

/// Every path answers `ok` to callers with a key or a token; strangers with tokens have `trial`.
fn described() -> Builder {
    Gateway::builder()
        .route("all", &reply("/*", KEYED, ""))
        .toml("[auth.jwt.default]\ndefault_plan = \"trial\"\n")
        .plan("trial", "3/h")
        .plan("free", "100000/s")
}

/// What a header of limits says: each item's name and numbers, as a client reads them.
#[track_caller]
fn items(answer: &Answer, header: &str) -> Vec<(String, Vec<(String, i64)>)> {
    let value = answer.header(header).unwrap_or_else(|| panic!("no {header}: {answer:?}"));
    let list: sfv::List = sfv::Parser::new(value).parse().unwrap();
    let read = |entry: &sfv::ListEntry| {
        let sfv::ListEntry::Item(item) = entry else { panic!("{entry:?} is no item") };
        let numbers = item
            .params
            .iter()
            .map(|(key, value)| (key.as_str().to_owned(), i64::from(value.as_integer().unwrap())));
        (item.bare_item.as_string().unwrap().as_str().to_owned(), numbers.collect())
    };
    list.iter().map(read).collect()
}

/// The seconds of `Retry-After`, which every 429 has, beside fields that say the same.
#[track_caller]
fn wait_of(refused: &Answer) -> u64 {
    refused.expect_status(429).expect_code("rate_limited");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    let limit = items(refused, "ratelimit");
    let [(name, numbers)] = &limit[..] else { panic!("{limit:?}") };
    assert_eq!(numbers[0], ("r".to_owned(), 0));
    assert_eq!(numbers[1], ("t".to_owned(), i64::try_from(wait).unwrap()));
    let policies = items(refused, "ratelimit-policy");
    assert!(policies.iter().any(|(policy, _)| policy == name), "{policies:?}");
    let body = refused.json();
    assert_eq!(body["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!((&body["status"], &body["code"]), (&json!(429), &json!("rate_limited")));
    assert!(body["violated-policies"].as_array().unwrap().contains(&json!(name)), "{body}");
    assert_eq!(Some(body["request_id"].as_str().unwrap()), refused.header("x-request-id"));
    refused.expect_header("cache-control", "no-store");
    wait
}

#[tokio::test]
async fn a_key_over_its_plan_is_refused_and_told_when_to_return() {
    let origin = Origin::start().await;
    let gateway = Gateway::builder()
        .upstream("orders", &[origin.address()])
        .route("orders", "path = \"/orders\"\nauth = [\"api_key\"]\nupstream = \"orders\"")
        .plan("basic", "2/min")
        .key("k1", "basic")
        .key("k2", "basic")
        .start()
        .await;
    for left in [1, 0] {
        let answer = gateway.get("/orders").key("k1").send().await;
        answer.expect_status(200).expect_header("ratelimit-policy", "\"requests\";q=2;w=60");
        answer.expect_no_header("retry-after");
        let limit = items(&answer, "ratelimit");
        let [(name, numbers)] = &limit[..] else { panic!("{limit:?}") };
        assert_eq!((name.as_str(), &numbers[0]), ("requests", &("r".to_owned(), left)));
        // 30 s, less what this machine has needed so far.
        assert!(numbers[1].0 == "t" && (20..=30).contains(&numbers[1].1), "{limit:?}");
    }
    let refused = gateway.get("/orders").key("k1").send().await;
    assert!((20..=30).contains(&wait_of(&refused)), "{refused:?}");
    refused.expect_header("ratelimit-policy", "\"requests\";q=2;w=60");
    assert_eq!(origin.requests(), 2);
    gateway.get("/orders").key("k2").send().await.expect_status(200);

    gateway
        .metric_is(
            "limit_refusals_total",
            &[("rule", "plan/basic/requests"), ("mode", "enforce")],
            1.0,
        )
        .await;
    let line = &gateway.access_log(4).await[2];
    assert_eq!(line["reason"], "rate_limited");
    assert_eq!(line["cause"], "plan/basic/requests");
    assert_eq!((&line["plan"], &line["status"]), (&json!("basic"), &json!(429)));
}

#[tokio::test]
async fn who_comes_back_when_told_to_is_let_in() {
    let gateway = described()
        .plan_with("brisk", "[limits.requests]\nrate = \"1/s\"\nburst = 2")
        .key("acme", "brisk")
        .start()
        .await;
    let get = || gateway.get("/").key("acme").send();
    for _ in 0..2 {
        let refused = loop {
            let answer = get().await;
            if answer.status != 200 {
                break answer;
            }
        };
        let wait = wait_of(&refused);
        assert_eq!(wait, 1);
        tokio::time::sleep(Duration::from_secs(wait)).await;
        get().await.expect_status(200);
    }
}

#[tokio::test]
async fn of_many_at_once_exactly_the_burst_is_let_through() {
    let gateway = described()
        .plan_with("trial", "[limits.requests]\nrate = \"1/h\"\nburst = 20")
        .start()
        .await;
    for round in 0..sized(5, 100) {
        let token = gateway.token(&format!("stranger-{round}"));
        let request = format!(
            "GET / HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\
             connection: close\r\n\r\n"
        );
        let mut clients = Vec::new();
        for _ in 0..64 {
            clients.push(RawClient::connect(gateway.address()).await);
        }
        for client in &mut clients {
            client.send(&request).await;
        }
        let mut statuses = Vec::new();
        for client in &mut clients {
            statuses.push(client.response().await.status());
        }
        let count = |status| statuses.iter().filter(|&&one| one == status).count();
        assert_eq!((count(200), count(429)), (20, 44), "round {round}");
    }
}

#[tokio::test]
async fn a_steady_crowd_gets_the_burst_and_not_one_more_however_it_connects() {
    let gateway = described()
        .tls_listener("secure")
        .plan_with("trial", "[limits.requests]\nrate = \"1/h\"\nburst = 300")
        .start()
        .await;
    let plain = || Load::on(gateway.address());
    let secure = || Load::on(gateway.listener("secure"));
    for (who, load) in
        [("kept", plain()), ("fresh", plain().fresh()), ("http2", secure().http2(gateway.trust()))]
    {
        let token = format!("Bearer {}", gateway.token(who));
        let load = load.header("authorization", &token).connections(64).rate(1000);
        let running = load.start();
        for _ in 0..sized(1, 20) {
            running.goes_on(600).await;
        }
        let summary = running.stop().await;
        assert!(summary.failures().is_empty(), "{who}: {summary:?}");
        assert_eq!(summary.statuses()[&200], 300, "{who}: {summary:?}");
    }
}

#[tokio::test]
async fn requests_are_counted_together_by_whom_the_rule_counts() {
    // What differs from the first request: another key of the consumer, another client address,
    // another consumer, a token of the consumer, another path; whether it is counted with it.
    let table = [
        ("consumer", [true, true, false, true, true]),
        ("key", [false, true, false, false, true]),
        ("address", [true, false, true, true, true]),
        ("route", [true, true, true, true, true]),
    ];
    for place in ["plans.free", "routes.all"] {
        for (per, together) in table {
            let rule = format!("[{place}.limits.once]\nrate = \"1/h\"\nper = {per:?}\n");
            let folder = behind_a_proxy(described().toml(&rule)).key("a", "free").key("b", "free");
            let folder = folder.folder();
            let another = folder.issue_key("a", "free", &[]);
            let gateway = folder.start().await;
            let (get, home) = (|| gateway.get("/"), "192.0.2.1");
            from(get().key("a"), home).send().await.expect_status(200);
            let others = [
                from(get().key(&another), home),
                from(get().key("a"), "192.0.2.2"),
                from(get().key("b"), home),
                from(get().bearer(&gateway.token("a")), home),
                from(gateway.get("/elsewhere").key("a"), home),
            ];
            for (n, (request, together)) in others.into_iter().zip(together).enumerate() {
                let status = request.send().await.status;
                assert_eq!(status == 429, together, "{place} per {per}, {n}: {status}");
            }
        }
    }
}

fn from<'c>(request: Request<'c>, address: &str) -> Request<'c> {
    request.header("x-forwarded-for", address)
}

/// Whoever asks speaks for the clients that it names.
fn behind_a_proxy(builder: Builder) -> Builder {
    builder.toml("[http]\ntrusted_proxies = [\"127.0.0.0/8\"]")
}

const PER_ADDRESS: &str = "limits.each = { rate = \"1/h\", per = \"address\" }";

#[tokio::test]
async fn a_client_cannot_choose_the_address_it_is_counted_by() {
    let open = reply("/*", "\"none\"", PER_ADDRESS);
    let gateway = Gateway::builder().route("open", &open).start().await;
    gateway.get("/").send().await.expect_status(200);
    for header in ["x-forwarded-for", "forwarded", "x-real-ip", "x-client-ip"] {
        let answer = gateway.get("/").header(header, "192.0.2.7").send().await;
        assert!(wait_of(&answer) > 0, "{header}");
    }

    let gateway = behind_a_proxy(Gateway::builder().route("open", &open)).start().await;
    for (list, status) in [
        ("192.0.2.1", 200),
        ("192.0.2.1", 429),
        ("192.0.2.9, 192.0.2.1", 429),
        ("::ffff:192.0.2.1", 429),
        ("192.0.2.9", 200),
        ("2001:db8::1", 200),
        ("2001:db8::ffff:1:2:3", 429),
        ("2001:db8:0:1::1", 200),
        // What cannot be read is the proxy's own.
        ("unknown", 200),
        ("_hidden", 429),
    ] {
        let answer = gateway.get("/").header("x-forwarded-for", list).send().await;
        assert_eq!(answer.status, status, "{list}");
    }
}

#[tokio::test]
async fn the_strictest_rule_answers_and_the_others_give_back_what_they_gave() {
    let gateway = described()
        .route(
            "narrow",
            &reply("/narrow", KEYED, "limits.total = { rate = \"4/h\", per = \"route\" }"),
        )
        .plan("two", "2/h")
        .plan("five", "5/d")
        .key("two", "two")
        .key("five", "five")
        .start()
        .await;
    let narrow = |key: &'static str| gateway.get("/narrow").key(key).times(4);
    // The plan is the strictest; the two that it refuses cost the route nothing.
    let answers = narrow("two").await;
    assert_eq!((answers.count(200), answers.count(429)), (2, 2));
    assert_eq!(items(&answers.0[0], "ratelimit")[0].0, "requests");
    let policy = "\"requests\";q=2;w=3600, \"total\";q=4;w=3600";
    for answer in &answers.0 {
        answer.expect_header("ratelimit-policy", policy);
    }
    assert_eq!(answers.0[3].json()["violated-policies"], json!(["requests"]));
    // Now the route is the strictest; the two that it refuses cost the plan nothing.
    let answers = narrow("five").await;
    assert_eq!((answers.count(200), answers.count(429)), (2, 2));
    assert_eq!(answers.0[3].json()["violated-policies"], json!(["total"]));
    assert!(wait_of(&answers.0[3]) <= 900);
    let answers = gateway.get("/").key("five").times(4).await;
    assert_eq!((answers.count(200), answers.count(429)), (3, 1));
    // Both refuse: the longer wait is told, and both are named.
    let answer = gateway.get("/narrow").key("five").send().await;
    assert_eq!(answer.json()["violated-policies"], json!(["requests", "total"]));
    assert!(wait_of(&answer) > 900, "{answer:?}");
    let causes: Vec<_> =
        gateway.access_log(13).await.iter().map(|line| line["cause"].clone()).collect();
    assert_eq!(
        (&causes[3], &causes[7]),
        (&json!("plan/two/requests"), &json!("route/narrow/total"))
    );
    assert_eq!(causes[12], json!("plan/five/requests"));
}

#[tokio::test]
async fn what_is_refused_before_the_limits_is_charged_to_nobody() {
    let gateway = described()
        .route("all", "path = \"/\"")
        .route("scoped", &reply("/scoped", KEYED, "scopes = [\"admin\"]"))
        .route("posted", &reply("/posted", KEYED, "methods = [\"POST\"]\nmax_body = \"1B\""))
        .plan("three", "3/h")
        .key("acme", "three")
        .start()
        .await;
    let key = gateway.key("acme");
    let wrong = crate::support::credential::with_another_secret(&key);
    let refused = [
        (401, gateway.get("/").key(&wrong)),
        (401, gateway.get("/").key(&key).key(&key)),
        (401, gateway.get("/")),
        (403, gateway.get("/scoped").key(&key)),
        (405, gateway.get("/posted").key(&key)),
        (404, gateway.get("/missing").key(&key)),
        (400, gateway.get("/%zz").key(&key)),
        (413, gateway.post("/posted", "too much").key(&key)),
    ];
    for (status, request) in refused {
        for answer in request.times(4).await.0 {
            answer.expect_status(status).expect_no_header("ratelimit");
            answer.expect_no_header("ratelimit-policy").expect_no_header("retry-after");
        }
    }
    let answers = gateway.get("/").key(&key).times(4).await;
    assert_eq!((answers.count(200), answers.count(429)), (3, 1));
}

#[tokio::test]
async fn answers_of_the_gateway_itself_are_limited_and_a_preflight_is_not() {
    let cors = "cors = { origins = [\"https://app.example.com\"], methods = [\"GET\"] }";
    let redirect = "path = \"/old\"\nauth = \"none\"\n\
                    redirect = { status = 308, location = \"https://example.com/\" }\n";
    let gateway = Gateway::builder()
        .route("open", &reply("/open", "\"none\"", &format!("{PER_ADDRESS}\n{cors}")))
        .route("old", &format!("{redirect}{PER_ADDRESS}"))
        .start()
        .await;
    let preflight = || {
        let request =
            gateway.request("OPTIONS", "/open").header("origin", "https://app.example.com");
        request.header("access-control-request-method", "GET")
    };
    for answer in preflight().times(3).await.0 {
        answer.expect_status(204).expect_no_header("ratelimit");
    }
    for (path, status) in [("/open", 200), ("/old", 308)] {
        let answer = gateway.get(path).send().await;
        answer.expect_status(status).expect_header("ratelimit-policy", "\"each\";q=1;w=3600");
        assert!(wait_of(&gateway.get(path).send().await) > 0);
    }
    preflight().send().await.expect_status(204);
    // A browser may read why it was refused.
    let answer = gateway.get("/open").header("origin", "https://app.example.com").send().await;
    answer.expect_status(429);
    answer.expect_header("access-control-allow-origin", "https://app.example.com");
    // The load balancer's question is nobody's request.
    gateway.get("/health").times(5).await.expect_status(200);
}

#[tokio::test]
async fn those_who_speak_grpc_or_ask_for_heads_are_told_in_their_way() {
    let gateway =
        Gateway::builder().route("open", &reply("/*", "\"none\"", PER_ADDRESS)).start().await;
    gateway.get("/").send().await.expect_status(200);
    let grpc = gateway.post("/a.B/C", "").header("content-type", "application/grpc").send().await;
    grpc.expect_status(200).expect_header("grpc-status", "8").expect_body("");
    grpc.expect_header("ratelimit-policy", "\"each\";q=1;w=3600");
    assert!(grpc.header("retry-after").unwrap().parse::<u64>().unwrap() > 3000);
    let head = gateway.request("HEAD", "/").send().await;
    head.expect_status(429).expect_body("");
    assert!(head.header("retry-after").is_some() && head.header("ratelimit").is_some());
}

#[tokio::test]
async fn a_rule_in_shadow_never_refuses_and_is_counted_and_logged() {
    let rules = |mode: &str| {
        format!(
            "[plans.tried.limits.requests]\nrate = \"100000/s\"\n\
             [plans.tried.limits.trial]\nrate = \"2/h\"\nmode = {mode:?}\n\
             [routes.tried]\n{}\n\
             [routes.tried.limits.total]\nrate = \"3/h\"\nper = \"route\"\nmode = {mode:?}\n\
             [routes.tried.limits.none]\nrate = \"1/h\"\nmode = \"off\"\n",
            reply("/tried", KEYED, "")
        )
    };
    let gateway =
        described().file("rules.toml", &rules("shadow")).key("acme", "tried").start().await;
    for answer in gateway.get("/tried").key("acme").times(5).await.0 {
        answer.expect_status(200).expect_no_header("retry-after");
        answer.expect_header("ratelimit-policy", "\"requests\";q=100000;w=1");
    }
    let log = gateway.access_log(5).await;
    let refused: Vec<_> = log.iter().map(|line| &line["would_refuse"]).collect();
    let (nothing, plan) = (serde_json::Value::Null, json!(["plan/tried/trial"]));
    let both = json!(["plan/tried/trial", "route/tried/total"]);
    assert_eq!(refused, [&nothing, &nothing, &plan, &both, &both]);
    let counted = |rule: &'static str| vec![("rule", rule), ("mode", "shadow")];
    gateway.metric_is("limit_refusals_total", &counted("plan/tried/trial"), 3.0).await;
    gateway.metric_is("limit_refusals_total", &counted("route/tried/total"), 2.0).await;
    gateway.metric_is("limit_refusals_total", &[("mode", "enforce")], 0.0).await;
    gateway.metric_is("limit_refusals_total", &[("rule", "route/tried/none")], 0.0).await;

    // Once it is enforced, what was counted in the shadow counts.
    gateway.write_conf("rules.toml", &rules("enforce"));
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    let refused = gateway.get("/tried").key("acme").send().await;
    assert!(wait_of(&refused) > 1000);
    assert_eq!(refused.json()["violated-policies"], json!(["trial", "total"]));

    gateway.write_conf("rules.toml", &rules("off"));
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    gateway.get("/tried").key("acme").times(5).await.expect_status(200);
}

#[tokio::test]
async fn counters_survive_reloads_and_follow_what_a_reload_changes() {
    let plan = |rule: &str| format!("[plans.grown.limits.requests]\n{rule}\n");
    let gateway = described()
        .file("grown.toml", &plan("rate = \"1/h\"\nburst = 5"))
        .key("acme", "grown")
        .start()
        .await;
    let left = async |expected: usize| {
        let answers = gateway.get("/").key("acme").times(expected + 1).await;
        assert_eq!((answers.count(200), answers.count(429)), (expected, 1));
    };
    let reload = async |text: &str| {
        gateway.write_conf("grown.toml", text);
        let reloaded = gateway.reload_and_wait().await;
        assert_eq!(reloaded.result, "success");
    };
    gateway.get("/").key("acme").times(3).await.expect_status(200);
    reload(&(plan("rate = \"1/h\"\nburst = 5") + "[plans.new]")).await;
    left(2).await;
    // A larger burst gives what is more, and a smaller one takes away nothing that was used.
    reload(&plan("rate = \"1/h\"\nburst = 9")).await;
    left(4).await;
    reload(&plan("rate = \"1/h\"\nburst = 3")).await;
    left(0).await;
    reload(&plan("rate = \"1/h\"\nburst = 9")).await;
    left(6).await;
    // A plan that was gone for a while is not new when it comes back.
    reload("").await;
    gateway.get("/").key("acme").send().await.expect_status(403);
    reload(&plan("rate = \"1/h\"\nburst = 9")).await;
    left(0).await;
    // A higher rate counts from now on.
    reload(&plan("rate = \"100/s\"\nburst = 9")).await;
    crate::support::eventually_async("the limit to have room again", async || {
        (gateway.get("/").key("acme").send().await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn counters_survive_reloads_under_load_to_the_last_request() {
    let gateway = described()
        .plan_with("trial", "[limits.requests]\nrate = \"1/h\"\nburst = 300")
        .start()
        .await;
    let token = format!("Bearer {}", gateway.token("crowd"));
    let running = Load::on(gateway.address())
        .header("authorization", &token)
        .connections(16)
        .rate(400)
        .start();
    let began = Instant::now();
    let reloads = sized(10, 100);
    for round in 0..reloads {
        running.goes_on(60).await;
        gateway.write_conf("round.toml", &format!("[plans.round-{round}]\n"));
        assert_eq!(gateway.reload_and_wait().await.result, "success");
    }
    running.goes_on(60).await;
    let summary = running.stop().await;
    assert!(summary.failures().is_empty(), "{summary:?}");
    assert_eq!(summary.statuses()[&200], 300, "{reloads} in {:?}: {summary:?}", began.elapsed());
}

#[tokio::test]
async fn every_rule_in_force_is_announced() {
    let gateway = described()
        .plan_with(
            "free",
            "[limits.burst]\nrate = \"100/s\"\nburst = 150\n[limits.daily]\nrate = \"10000/d\"\n\
             [limits.requests]\nrate = \"600/min\"\nburst = 20\n\
             [limits.hidden]\nrate = \"1/h\"\nmode = \"shadow\"",
        )
        .route("all", "limits.total = { rate = \"7/h\", burst = 9, per = \"route\" }")
        .key("acme", "free")
        .start()
        .await;
    let answer = gateway.get("/").key("acme").send().await;
    answer.expect_status(200).expect_header(
        "ratelimit-policy",
        "\"burst\";q=150;w=2, \"daily\";q=10000;w=86400, \"requests\";q=20;w=2, \
         \"total\";q=9;w=4629",
    );
    let policies = items(&answer, "ratelimit-policy");
    assert!(policies.iter().all(|(_, numbers)| numbers.iter().all(|(_, number)| *number > 0)));
    // The one nearest to its end, and when it has one more.
    assert_eq!(
        items(&answer, "ratelimit"),
        [("total".to_owned(), vec![("r".to_owned(), 8), ("t".to_owned(), 515)])]
    );
}
