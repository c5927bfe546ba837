//! Limits of requests in flight: exact, told in their unit, and a place is free once its request is
//! over, however it ends.

use crate::support::client::Answer;
use crate::support::eventually_async;
use crate::support::gateway::{Builder, Gateway};
use crate::support::origin::{Behaviour, Origin, Reply};
use crate::support::raw::RawClient;
use crate::support::websocket::{self, Error, WebSocket};
use serde_json::json;

/// `/held` is never answered, `/quick` at once; `acme` has a plan with these limits.
async fn gateway(origin: &Origin, limits: &str) -> Gateway {
    origin.answer(Behaviour::Answer(Reply::text("ok")));
    origin.on("/held", Behaviour::Silent);
    origin.on("/broken", Behaviour::Reset);
    builder(origin.address()).file("plan.toml", limits).key("acme", "few").start().await
}

fn builder(origin: std::net::SocketAddr) -> Builder {
    Gateway::builder()
        .upstream("origin", &[origin])
        .route("all", "path = \"/*\"\nauth = [\"api_key\", \"jwt\"]\nupstream = \"origin\"")
        .route("reply", "path = \"/reply\"\nauth = [\"api_key\"]\nreply = { status = 200 }")
}

fn few(concurrency: u32) -> String {
    format!("[plans.few.limits.parallel]\nconcurrency = {concurrency}\n")
}

/// A request that is on its way until this is dropped.
async fn hold(gateway: &Gateway, origin: &Origin) -> RawClient {
    let before = origin.requests();
    let mut client = RawClient::connect(gateway.address()).await;
    let key = gateway.key("acme");
    client.send(format!("GET /held HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n\r\n")).await;
    origin.reached(before + 1).await;
    client
}

/// Until a place is free: a gateway hears of the end of a request a moment after its client.
async fn let_in(gateway: &Gateway) -> Answer {
    eventually_async("a free place", async || {
        let answer = gateway.get("/quick").key("acme").send().await;
        (answer.status == 200).then_some(answer)
    })
    .await
}

/// What a list of strings says, with parameters as text.
#[track_caller]
fn items(answer: &Answer, header: &str) -> Vec<(String, Vec<(String, String)>)> {
    let value = answer.header(header).unwrap_or_else(|| panic!("no {header}: {answer:?}"));
    let list: sfv::List = sfv::Parser::new(value).parse().unwrap();
    let read = |entry: &sfv::ListEntry| {
        let sfv::ListEntry::Item(item) = entry else { panic!("{entry:?} is no item") };
        let param = |(key, value): (&sfv::Key, &sfv::BareItem)| {
            let value = match value.as_string() {
                Some(text) => format!("{:?}", text.as_str()),
                None => i64::from(value.as_integer().unwrap()).to_string(),
            };
            (key.as_str().to_owned(), value)
        };
        let name = item.bare_item.as_string().unwrap().as_str().to_owned();
        (name, item.params.iter().map(param).collect())
    };
    list.iter().map(read).collect()
}

fn item(name: &str, params: &[(&str, &str)]) -> (String, Vec<(String, String)>) {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    (name.to_owned(), params.iter().map(own).collect())
}

/// A policy of so many requests in flight.
fn policy(most: &str) -> (String, Vec<(String, String)>) {
    item("parallel", &[("q", most), ("qu", "\"concurrent-requests\"")])
}

#[track_caller]
fn expect_refused(refused: &Answer) {
    refused
        .expect_status(429)
        .expect_code("rate_limited")
        .expect_header("cache-control", "no-store");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=4).contains(&wait), "{wait}");
    assert_eq!(items(refused, "ratelimit"), [item("parallel", &[("r", "0")])]);
    let body = refused.json();
    assert_eq!(body["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(body["violated-policies"], json!(["parallel"]));
}

#[tokio::test]
async fn no_more_are_in_flight_than_allowed_and_an_abort_makes_room() {
    let origin = Origin::start().await;
    let gateway = gateway(&origin, &few(2)).await;
    let first = gateway.get("/quick").key("acme").send().await;
    first.expect_status(200).expect_no_header("retry-after");
    assert_eq!(items(&first, "ratelimit-policy"), [policy("2")]);
    assert_eq!(items(&first, "ratelimit"), [item("parallel", &[("r", "1")])]);

    let (one, two) = (hold(&gateway, &origin).await, hold(&gateway, &origin).await);
    let before = origin.requests();
    for answer in gateway.get("/quick").key("acme").times(3).await.0 {
        expect_refused(&answer);
        assert_eq!(items(&answer, "ratelimit-policy"), [policy("2")]);
    }
    assert_eq!(origin.requests(), before, "nothing of it went on");
    gateway
        .metric_is(
            "limit_refusals_total",
            &[("rule", "plan/few/parallel"), ("mode", "enforce")],
            3.0,
        )
        .await;
    one.reset();
    let_in(&gateway).await;
    drop(two);
    let_in(&gateway).await;
}

#[tokio::test]
async fn a_request_that_fails_or_is_answered_here_leaves_no_place_taken() {
    let origin = Origin::start().await;
    let gateway = gateway(&origin, &few(1)).await;
    for (path, status) in [("/broken", 502), ("/reply", 200), ("/reply", 200), ("/quick", 200)] {
        eventually_async("a free place", async || {
            let answer = gateway.get(path).key("acme").send().await;
            (answer.status == status).then_some(())
        })
        .await;
    }
    let_in(&gateway).await;
}

#[tokio::test]
async fn a_websocket_is_in_flight_until_it_ends() {
    let echo = websocket::echo_server().await;
    let gateway = builder(echo).file("plan.toml", &few(1)).key("acme", "few").start().await;
    let key = gateway.key("acme");
    let key = [("x-api-key", key.as_str())];
    let socket = WebSocket::open(gateway.address(), "/socket", &key).await.unwrap();
    let refused = WebSocket::open(gateway.address(), "/socket", &key).await;
    let Err(Error::Http(response)) = refused.map(|_| ()) else { panic!("upgraded") };
    assert_eq!(response.status(), 429);
    socket.close().await;
    eventually_async("a free place", async || {
        WebSocket::open(gateway.address(), "/socket", &key).await.ok()
    })
    .await;
}

#[tokio::test]
async fn places_that_are_taken_stay_taken_over_reloads() {
    let origin = Origin::start().await;
    let gateway = gateway(&origin, &few(2)).await;
    let held = [hold(&gateway, &origin).await, hold(&gateway, &origin).await];
    let reload = async |text: &str| {
        gateway.write_conf("plan.toml", text);
        assert_eq!(gateway.reload_and_wait().await.result, "success");
    };
    reload(&(few(2) + "[plans.new]\n")).await;
    expect_refused(&gateway.get("/quick").key("acme").send().await);
    reload(&few(1)).await;
    expect_refused(&gateway.get("/quick").key("acme").send().await);
    reload(&few(3)).await;
    let_in(&gateway).await;
    reload(&few(1)).await;
    drop(held);
    let_in(&gateway).await;
}

#[tokio::test]
async fn in_the_shadow_they_are_counted_and_never_refused() {
    let origin = Origin::start().await;
    let limits = |mode: &str| format!("{}mode = {mode:?}\n", few(1));
    let gateway = gateway(&origin, &limits("shadow")).await;
    let _held = hold(&gateway, &origin).await;
    let answer = gateway.get("/quick").key("acme").send().await;
    answer.expect_status(200).expect_no_header("ratelimit").expect_no_header("ratelimit-policy");
    assert_eq!(gateway.line_of(&answer).await["would_refuse"], json!(["plan/few/parallel"]));
    let counted = [("rule", "plan/few/parallel"), ("mode", "shadow")];
    gateway.metric_is("limit_refusals_total", &counted, 1.0).await;
    gateway.write_conf("plan.toml", &limits("off"));
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    let answer = gateway.get("/quick").key("acme").send().await;
    assert_eq!(gateway.line_of(&answer).await["would_refuse"], serde_json::Value::Null);
}

#[tokio::test]
async fn all_kinds_hold_together_and_what_is_refused_by_one_is_charged_to_none() {
    let origin = Origin::start().await;
    let limits = few(1)
        + "[plans.few.limits.flow]\nrate = \"1/h\"\nburst = 8\ncost = 2\n\
           [plans.few.limits.day]\nquota = \"9/day\"\ncost = 3\n";
    let gateway = gateway(&origin, &limits).await;
    let held = hold(&gateway, &origin).await;
    for _ in 0..5 {
        let refused = gateway.get("/quick").key("acme").send().await;
        expect_refused(&refused);
        let policies = items(&refused, "ratelimit-policy");
        let names: Vec<_> = policies.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["day", "flow", "parallel"]);
        assert_eq!(policies[0], item("day", &[("q", "9"), ("w", "86400")]));
        assert_eq!(policies[1], item("flow", &[("q", "8"), ("w", "28800")]));
        assert_eq!(policies[2], policy("1"));
    }
    drop(held);
    // Of nine, three times three: one went with the request that was held.
    let answer = let_in(&gateway).await;
    assert_eq!(items(&answer, "ratelimit"), [item("parallel", &[("r", "0")])]);
    let_in(&gateway).await;
    let refused = eventually_async("the quota to be what refuses", async || {
        let answer = gateway.get("/quick").key("acme").send().await;
        assert_eq!(answer.status, 429);
        (answer.json()["violated-policies"] == json!(["day"])).then_some(answer)
    })
    .await;
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    let [(name, params)] = &items(&refused, "ratelimit")[..] else { panic!("{refused:?}") };
    assert_eq!((name.as_str(), &params[0].1), ("day", &"0".to_owned()));
    assert!(params[1].0 == "t" && params[1].1.parse::<u64>().unwrap() <= wait);
    // A refusal by the quota left no place taken, and cost the flow nothing.
    gateway.write_conf("plan.toml", &limits.replace("9/day", "100/day"));
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    let_in(&gateway).await;
    eventually_async("the flow to be what refuses", async || {
        let answer = gateway.get("/quick").key("acme").send().await;
        assert_eq!(answer.status, 429);
        (answer.json()["violated-policies"] == json!(["flow"])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn of_a_crowd_exactly_as_many_as_allowed_are_in_flight() {
    let origin = Origin::start().await;
    let gateway = gateway(&origin, &few(3)).await;
    let key = gateway.key("acme");
    let mut clients = Vec::new();
    for _ in 0..24 {
        clients.push(RawClient::connect(gateway.address()).await);
    }
    let held = [hold(&gateway, &origin).await, hold(&gateway, &origin).await];
    let before = origin.requests();
    let request = format!("GET /held HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n\r\n");
    for client in &mut clients {
        client.send(&request).await;
    }
    // One is held too; each of the others is told.
    let mut refused = 0;
    let mut waiting: Vec<_> =
        clients.iter_mut().map(|client| Box::pin(client.response())).collect();
    while refused < 23 {
        let (response, index, _) =
            futures_util::future::select_all(waiting.iter_mut().map(|it| it.as_mut())).await;
        assert_eq!(response.status(), 429);
        refused += 1;
        drop(waiting.swap_remove(index));
    }
    origin.reached(before + 1).await;
    assert_eq!(origin.requests(), before + 1);
    drop(held);
}
