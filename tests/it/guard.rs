//! The address guard: what one address may do before anybody knows who calls, and that others do not
//! pay for it. And what is said of everything that is only watched.

use crate::support::client::{Answer, Request};
use crate::support::credential::{invented, with_another_secret};
use crate::support::eventually_async;
use crate::support::gateway::{Builder, Gateway};
use crate::support::origin::Origin;
use crate::support::websocket::{WebSocket, echo_server};
use serde_json::json;

const GUESSER: &str = "203.0.113.9";
const NEIGHBOUR: &str = "203.0.113.10";

/// Clients come from 127.0.0.1, which speaks for others.
fn described(guard: &str) -> Builder {
    Gateway::builder()
        .toml("[http]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[auth.jwt.default]\n")
        .toml(&format!("[address_guard]\n{guard}\n"))
        .plan("basic", "100000/s")
        .route(
            "all",
            "path = \"/*\"\nauth = [\"api_key\", \"jwt\"]\nreply = { status = 200, body = \"ok\" }",
        )
        .route("open", "path = \"/open\"\nauth = \"none\"\nreply = { body = \"ok\" }")
}

fn from<'c>(request: Request<'c>, address: &str) -> Request<'c> {
    request.header("x-forwarded-for", address)
}

/// Checks what a client is told of its address.
#[track_caller]
fn expect_limited(answer: &Answer) {
    answer.expect_status(429).expect_code("address_limited");
    let kind = "https://iana.org/assignments/http-problem-types#abnormal-usage-detected";
    assert_eq!(answer.json()["type"], kind);
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=120).contains(&wait), "{wait}");
    answer.expect_no_header("ratelimit").expect_no_header("ratelimit-policy");
    answer.expect_no_header("www-authenticate");
}

#[tokio::test]
async fn who_guesses_is_stopped_and_nobody_else_pays_for_it() {
    let gateway = described("failed_tries = \"20/min\"").key("known", "basic").start().await;
    let known = gateway.key("known");
    let keys = |_| gateway.issue_key("new", "basic", &[]);
    let (new, newer): (Vec<_>, Vec<_>) = ((0..3).map(keys).collect(), (0..3).map(keys).collect());
    let tokens = (0..3).map(|id| {
        let claims = json!({ "sub": "known", "exp": 4_000_000_000_u64, "jti": id.to_string() });
        format!("Bearer {}", gateway.sign_jwt(&claims))
    });
    let tokens = tokens.collect();
    from(gateway.get("/").key("known"), GUESSER).send().await.expect_status(200);
    let mut statuses = Vec::new();
    let wrong = with_another_secret(&known);
    let checksum = format!("{}x", &known[..known.len() - 1]);
    for round in 0..60 {
        // Not in the store, one that is known to be wrong, and one that can be told without either.
        let key = match round % 3 {
            0 => invented(),
            1 => wrong.clone(),
            _ => checksum.clone(),
        };
        let answer = from(gateway.get("/").key(&key), GUESSER).send().await;
        statuses.push(answer.status);
        if answer.status == 429 {
            expect_limited(&answer);
            let line = gateway.line_of(&answer).await;
            assert_eq!(line["reason"], json!("address_limited"));
            assert_eq!(line["cause"], json!("guard/address/failed_tries"));
            assert_eq!(line["consumer"], json!(null));
        }
    }
    // The last of them is the first that is not told of its key; a slow machine forgets a few.
    let told = statuses.iter().filter(|status| **status == 401).count();
    assert!((20..50).contains(&told), "{statuses:?}");
    assert!(statuses[..20].iter().all(|status| *status == 401), "{statuses:?}");
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");

    // Behind the same address: what is known to be good, and what asks for no credential.
    from(gateway.get("/").key("known"), GUESSER).send().await.expect_status(200);
    from(gateway.get("/open"), GUESSER).send().await.expect_status(200);
    let none = from(gateway.get("/"), GUESSER).send().await;
    none.expect_status(401).expect_code("no_credential");
    expect_unheard(&gateway, "x-api-key", new).await;
    expect_unheard(&gateway, "authorization", tokens).await;
    // A reload forgets nothing.
    gateway.write_conf("more.toml", "[plans.more]\n");
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    expect_unheard(&gateway, "x-api-key", newer).await;
    let counted = [("rule", "guard/address/failed_tries"), ("mode", "enforce")];
    let refused = gateway.metrics().await.sum("limit_refusals_total", &counted);
    assert!(refused >= 20.0, "{refused}");
}

/// A good credential that would have to be looked up or verified is not, from where somebody guesses,
/// while it is at once from elsewhere; then it is known for all. At the very moment at which a try is
/// forgotten one gets through, so there are several credentials.
async fn expect_unheard(gateway: &Gateway, field: &str, credentials: Vec<String>) {
    for credential in credentials {
        let ask = |address| from(gateway.get("/").header(field, &credential), address).send();
        guess_on(gateway).await;
        let answer = ask(GUESSER).await;
        if answer.status == 200 {
            continue;
        }
        expect_limited(&answer);
        ask(NEIGHBOUR).await.expect_status(200);
        ask(GUESSER).await.expect_status(200);
        return;
    }
    panic!("nobody is kept out");
}

/// Guesses until there is no room for another try.
async fn guess_on(gateway: &Gateway) {
    for _ in 0..100 {
        if from(gateway.get("/").key("nonsense"), GUESSER).send().await.status == 429 {
            return;
        }
    }
    panic!("the guesser is not stopped");
}

#[tokio::test]
async fn an_address_that_asks_too_fast_is_refused_and_health_and_preflights_are_not() {
    let gateway = described("rate = \"20/min\"\nexempt = [\"198.51.100.0/24\"]")
        .route(
            "cors",
            "path = \"/cors\"\nauth = \"api_key\"\nreply = { body = \"ok\" }\n\
             [cors]\norigins = [\"https://app.example.com\"]",
        )
        .start()
        .await;
    let mut good = 0;
    loop {
        let answer = from(gateway.get("/open"), GUESSER).send().await;
        if answer.status == 429 {
            expect_limited(&answer);
            let line = gateway.line_of(&answer).await;
            assert_eq!(line["cause"], json!("guard/address/rate"));
            break;
        }
        answer.expect_status(200);
        good += 1;
        assert!(good < 60, "nothing is refused");
    }
    assert!(good >= 20, "{good}");
    // Before the credential is looked at, and not told whether it is good.
    let mut refused = 0;
    for _ in 0..10 {
        let answer = from(gateway.get("/").key("nonsense"), GUESSER).send().await;
        refused += usize::from(answer.status == 429);
    }
    assert!(refused >= 5, "{refused}");
    for address in [NEIGHBOUR, "2001:db8::1"] {
        from(gateway.get("/open"), address).send().await.expect_status(200);
    }
    from(gateway.get("/open"), "198.51.100.7").times(30).await.expect_status(200);
    for _ in 0..30 {
        from(gateway.get("/health"), GUESSER).send().await.expect_status(200);
        let preflight = from(gateway.request("OPTIONS", "/cors"), GUESSER)
            .header("origin", "https://app.example.com")
            .header("access-control-request-method", "GET");
        preflight.send().await.expect_status(204);
    }
}

#[tokio::test]
async fn what_is_under_way_counts_until_it_ends_a_websocket_too() {
    let echo = echo_server().await;
    let gateway = described("in_flight = 10\nfailed_tries = \"off\"")
        .upstream("echo", &[echo])
        .route("ws", "path = \"/ws\"\nauth = \"none\"\nupstream = \"echo\"\nstream = true")
        .start()
        .await;
    let mut open = Vec::new();
    let forwarded = [("x-forwarded-for", GUESSER)];
    for _ in 0..10 {
        open.push(WebSocket::open(gateway.address(), "/ws", &forwarded).await.unwrap());
    }
    let answer = from(gateway.get("/open"), GUESSER).send().await;
    expect_limited(&answer);
    assert_eq!(gateway.line_of(&answer).await["cause"], json!("guard/address/in_flight"));
    assert!(WebSocket::open(gateway.address(), "/ws", &forwarded).await.is_err());
    from(gateway.get("/open"), NEIGHBOUR).send().await.expect_status(200);
    // One says goodbye, one is gone without.
    open.pop().unwrap().close().await;
    drop(open.pop());
    let mut again = Vec::new();
    for _ in 0..2 {
        let opened = eventually_async("a place for another", async || {
            WebSocket::open(gateway.address(), "/ws", &forwarded).await.ok()
        });
        again.push(opened.await);
    }
    expect_limited(&from(gateway.get("/open"), GUESSER).send().await);
    drop((open, again));
    eventually_async("all places to be free", async || {
        let answer = from(gateway.get("/open"), GUESSER).send().await;
        (answer.status == 200).then_some(())
    })
    .await;
    from(gateway.get("/open"), GUESSER).times(50).await.expect_status(200);
}

#[tokio::test]
async fn one_field_lists_all_that_would_have_been_refused() {
    let echo = echo_server().await;
    let gateway = described("in_flight = 10\nmode = \"shadow\"")
        .key("acme", "basic")
        .upstream("echo", &[echo])
        .route("ws", "path = \"/ws\"\nauth = \"none\"\nupstream = \"echo\"\nstream = true")
        .route(
            "watched",
            "path = \"/watched\"\nauth = \"api_key\"\npolicies = [\"inside\", \"gold\"]\n\
             reply = { body = \"ok\" }\n[limits.few]\nrate = \"1/d\"\nmode = \"shadow\"",
        )
        .toml(
            "[policies.inside]\nmode = \"shadow\"\naddresses = [\"10.0.0.0/8\"]\n\
             [policies.inside.limits.each]\nrate = \"1/d\"\n\
             [policies.gold]\nmode = \"off\"\nplans = [\"gold\"]\n\
             [policies.gold.limits.none]\nrate = \"1/d\"\n",
        )
        .start()
        .await;
    let first = from(gateway.get("/watched").key("acme"), "10.1.1.1").send().await;
    first.expect_status(200).expect_header("ratelimit-policy", "\"requests\";q=100000;w=1");
    assert_eq!(gateway.line_of(&first).await.get("would_refuse"), None);
    let mut open = Vec::new();
    for _ in 0..10 {
        let forwarded = [("x-forwarded-for", GUESSER)];
        open.push(WebSocket::open(gateway.address(), "/ws", &forwarded).await.unwrap());
    }
    let last = from(gateway.get("/watched").key("acme"), GUESSER).send().await;
    last.expect_status(200);
    let line = gateway.line_of(&last).await;
    assert_eq!(
        line["would_refuse"],
        json!([
            "guard/address/in_flight",
            "policy/inside/addresses",
            "route/watched/few",
            "policy/inside/each"
        ])
    );
    for rule in line["would_refuse"].as_array().unwrap() {
        let labels = [("rule", rule.as_str().unwrap()), ("mode", "shadow")];
        gateway.metric_is("limit_refusals_total", &labels, 1.0).await;
    }
    assert_eq!(gateway.metrics().await.sum("rejections_total", &[]), 0.0);
}

#[tokio::test]
async fn a_row_can_be_in_the_shadow_and_what_is_nowhere_refuses() {
    let gateway = described("mode = \"off\"").key("acme", "basic").start().await;
    let row = gateway.folder().join("row.toml");
    std::fs::write(&row, "mode = \"shadow\"\naddresses = [\"10.0.0.0/8\"]\n").unwrap();
    let out = gateway.cli(&["policies", "put", "rowed", row.to_str().unwrap()]);
    crate::support::gateway::succeed(&out);
    let out = gateway.cli(&["consumers", "set-policies", "acme", "rowed"]);
    crate::support::gateway::succeed(&out);
    eventually_async("the row to be in force", async || {
        let answer = from(gateway.get("/").key("acme"), GUESSER).send().await;
        let line = gateway.line_of(&answer).await;
        let listed = line["would_refuse"].as_array().cloned().unwrap_or_default();
        (answer.status == 200 && listed.contains(&json!("policy/rowed/addresses"))).then_some(())
    })
    .await;
    let out = gateway.cli(&["consumers", "set-policies", "acme", "nowhere"]);
    crate::support::gateway::succeed(&out);
    eventually_async("the policy that is nowhere to refuse", async || {
        let answer = from(gateway.get("/").key("acme"), GUESSER).send().await;
        (answer.status == 403).then(|| answer.expect_code("policy_unknown").status)
    })
    .await;
}

/// `X-Forwarded-For`, line by line, and whether the client is then inside.
const CLAIMS: &[(&[&str], bool)] = &[
    (&["192.0.2.7"], true),
    (&["192.0.2.7:443"], true),
    (&["[2001:db8::7]:443"], true),
    (&["[2001:db8::7]"], true),
    (&["2001:DB8:0:0::7"], true),
    (&["::ffff:192.0.2.7"], true),
    (&["203.0.113.9, 192.0.2.7, 10.99.1.1"], true),
    (&["203.0.113.9", "192.0.2.7", "10.99.1.1, fd00::1"], true),
    (&["nonsense, \"quoted\", 192.0.2.7"], true),
    // What stands left of the first address that nobody vouches for.
    (&["192.0.2.7, 203.0.113.9"], false),
    (&["192.0.2.7", "203.0.113.9"], false),
    (&["192.0.2.7", "203.0.113.9, 10.99.1.1"], false),
    (&["192.0.2.66"], false),
    (&["::ffff:192.0.2.66"], false),
    (&["[::ffff:192.0.2.66]:80"], false),
    // What cannot be read makes the peer the client.
    (&["192.0.2.7,"], false),
    (&["192.0.2.7", ""], false),
    (&["192.0.2.7, , "], false),
    (&["192.0.2.7, unknown"], false),
    (&["192.0.2.7, _hidden"], false),
    (&["for=192.0.2.7"], false),
    (&["192.0.2.7;203.0.113.9"], false),
    (&["192.0.2.7 203.0.113.9"], false),
    (&["192.0.2.007"], false),
    (&["192.0.2.7/24"], false),
    (&["2001:db8::7%eth0"], false),
    (&["[2001:db8::7"], false),
    (&["192.0.2.7:99999"], false),
    (&["0xc0000207"], false),
    (&[], false),
];

#[tokio::test]
async fn no_spelling_of_a_claim_changes_who_a_client_is() {
    let origin = Origin::start().await;
    let gateway = described("failed_tries = \"off\"")
        .toml("[http]\ntrusted_proxies = [\"127.0.0.0/8\", \"10.99.0.0/16\", \"fd00::/8\"]\n")
        .upstream("o", &[origin.address()])
        .route(
            "inside",
            "path = \"/inside\"\nauth = \"none\"\nupstream = \"o\"\npolicies = [\"inside\"]",
        )
        .toml(
            "[policies.inside]\naddresses = [\"192.0.2.0/24\", \"2001:db8::/32\"]\n\
             deny_addresses = [\"192.0.2.66\"]\n",
        )
        .start()
        .await;
    for (lines, let_in) in CLAIMS {
        let mut request = gateway.get("/inside");
        for line in *lines {
            request = request.header("x-forwarded-for", line);
        }
        // In other names it is no claim at all, and goes no further.
        for name in ["x_forwarded_for", "x-forwarded_for", "x-real-ip", "x-client-ip"] {
            request = request.header(name, "192.0.2.7");
        }
        let answer = request.header("forwarded", "for=192.0.2.7").send().await;
        assert_eq!(answer.status, if *let_in { 200 } else { 403 }, "{lines:?}");
        if *let_in {
            let head = origin.last().head;
            for name in ["x_forwarded_for", "x-forwarded_for"] {
                assert_eq!(head.header(name), None, "{name}");
            }
        }
    }
}
