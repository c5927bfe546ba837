//! API keys in a running gateway: what the command line changes takes effect within a second, and
//! a client learns nothing from a refusal that it should not.

use crate::support::client::{Answer, Client};
use crate::support::credential::{id_of, invented, with_another_secret};
use crate::support::gateway::{Builder, Gateway, succeed};
use crate::support::load::{Load, Running};
use crate::support::{eventually, eventually_async};
use crate::support::{secret, sized};
use datahub_gateway::auth::ApiKeys;
use datahub_gateway::auth::api_key::KeyForm;
use datahub_gateway::auth::registry::{Actor, NewKey, Registry as _};
use datahub_gateway::stores::Embedded;
use datahub_gateway::telemetry::Clock;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
const PEPPER: &str = "a pepper for tests, long enough to be one";

/// One route that answers `ok` to callers with a key or a token.
fn described() -> Builder {
    Gateway::builder()
        .route(
            "all",
            "path = \"/*\"\nauth = [\"api_key\", \"jwt\"]\nreply = { status = 200, body = \"ok\" }",
        )
        .toml("[auth.jwt.default]\n")
        .plan("big", "100000/s")
        .plan("small", "1/h")
}

fn load(gateway: &Gateway, header: &str, value: &str) -> Load {
    Load::on(gateway.address()).header(header, value).rate(200).connections(4)
}

/// Runs a command beside `running` and waits until requests are answered with `status`; how long
/// after the command's end the last one was sent that got another answer.
async fn takes_effect(
    gateway: &Gateway,
    running: &Running,
    line: &[&str],
    status: u16,
) -> Duration {
    succeed(&gateway.cli(line));
    let done = running.elapsed();
    let last = || {
        let outcomes = running.so_far().outcomes;
        let other = outcomes.iter().filter(|outcome| outcome.result != Ok(status));
        other.map(|outcome| outcome.at).max().unwrap_or_default()
    };
    // Several in a row, so that no old answer is still on its way.
    let mut settled = 0;
    while settled < 100 {
        let before = (running.ended(), last());
        running.goes_on(20).await;
        settled = if last() == before.1 { settled + 20 } else { 0 };
        assert!(running.elapsed() < done + crate::support::PATIENCE, "{:?}", running.so_far());
    }
    last().saturating_sub(done)
}

#[tokio::test]
async fn a_revoked_key_stops_working_within_a_second_of_the_command() {
    let gateway = described().key("other", "big").start().await;
    let other = load(&gateway, "x-api-key", &gateway.key("other")).start();
    let mut changes = 0.0;
    for round in 0..sized(3, 50) {
        let key = gateway.issue_key("acme", "big", &[]);
        eventually_async("the new key", async || {
            (gateway.get("/").key(&key).send().await.status == 200).then_some(())
        })
        .await;
        // The consumer is added with its first key.
        changes += if round == 0 { 2.0 } else { 1.0 };
        gateway.metric_is("revocation_delay_seconds_count", &[], changes).await;
        let running = load(&gateway, "x-api-key", &key).start();
        running.goes_on(40).await;
        let delay = takes_effect(&gateway, &running, &["keys", "revoke", &id_of(&key)], 401).await;
        assert!(delay < SECOND, "round {round}: {delay:?} after the command");
        let summary = running.stop().await;
        assert!(summary.failures().is_empty(), "{summary:?}");
        changes += 1.0;
        gateway.metric_is("revocation_delay_seconds_count", &[], changes).await;
    }
    let metrics = gateway.metrics().await;
    let within = metrics.sum("revocation_delay_seconds_bucket", &[("le", "1")]);
    assert_eq!(within, metrics.sum("revocation_delay_seconds_count", &[]), "{metrics:?}");
    other.stop().await.expect_only(200);
}

#[tokio::test]
async fn a_flood_of_invented_keys_does_not_keep_a_revocation_out() {
    // All come from one address here.
    let guard = "[address_guard]\nfailed_tries = \"off\"\n";
    let gateway = described().toml(guard).key("acme", "big").start().await;
    let running = load(&gateway, "x-api-key", &gateway.key("acme")).start();
    running.goes_on(20).await;
    let (address, over) = (gateway.address(), Arc::new(AtomicBool::new(false)));
    let flood = {
        let over = Arc::clone(&over);
        let one = move || {
            let client = Client::new(address);
            let over = Arc::clone(&over);
            async move {
                let mut statuses = BTreeSet::new();
                while !over.load(Ordering::Relaxed) {
                    statuses.insert(client.get("/").key(&invented()).send().await.status);
                }
                statuses
            }
        };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let crowd = futures_util::future::join_all((0..32).map(|_| one()));
            runtime.unwrap().block_on(crowd)
        })
    };
    running.goes_on(100).await;
    let line = ["keys", "revoke", &id_of(&gateway.key("acme"))];
    let delay = takes_effect(&gateway, &running, &line, 401).await;
    over.store(true, Ordering::Relaxed);
    assert!(delay < SECOND, "{delay:?} after the command");
    let statuses: BTreeSet<_> = flood.join().unwrap().into_iter().flatten().collect();
    // Where too many ask at once, nobody can say: that is not the key's fault.
    assert!(statuses.contains(&401) && statuses.iter().all(|one| [401, 503].contains(one)));
    assert!(running.stop().await.failures().is_empty());
}

#[tokio::test]
async fn a_disabled_consumer_is_refused_within_a_second_with_keys_and_tokens() {
    let unguarded = "[address_guard]\nfailed_tries = \"off\"";
    let gateway = described().toml(unguarded).key("acme", "big").start().await;
    let token = format!("Bearer {}", gateway.token("acme"));
    let keyed = load(&gateway, "x-api-key", &gateway.key("acme")).start();
    let borne = load(&gateway, "authorization", &token).start();
    for (command, status) in [("disable", 401), ("enable", 200), ("disable", 401)] {
        for (running, other) in [(&keyed, &borne), (&borne, &keyed)] {
            running.goes_on(20).await;
            // The second time it changes nothing, and the other kind has caught up already.
            let line = ["consumers", command, "acme"];
            let delay = takes_effect(&gateway, running, &line, status).await;
            assert!(delay < SECOND, "{command}: {delay:?} after the command");
            let ended = other.ended();
            other.goes_on(20).await;
            let rest = &other.so_far().outcomes[ended + 8..];
            assert!(rest.iter().all(|outcome| outcome.result == Ok(status)), "{rest:?}");
        }
    }
    for running in [keyed, borne] {
        let summary = running.stop().await;
        assert!(summary.failures().is_empty(), "{summary:?}");
    }
}

#[tokio::test]
async fn a_removed_consumer_is_refused_within_a_second_with_keys_and_tokens() {
    let gateway = described().key("acme", "big").start().await;
    let token = gateway.token("acme");
    gateway.get("/").bearer(&token).send().await.expect_status(200);
    let running = load(&gateway, "x-api-key", &gateway.key("acme")).start();
    running.goes_on(20).await;
    let line = ["consumers", "remove", "acme", "--yes"];
    let delay = takes_effect(&gateway, &running, &line, 401).await;
    assert!(delay < SECOND, "{delay:?} after the command");
    gateway.get("/").bearer(&token).send().await.expect_status(401);
    assert!(running.stop().await.failures().is_empty());
    let line = gateway.stdout().containing("invalid_token").await;
    assert!(line.contains("\"cause\":\"unknown\""), "{line}");
}

#[tokio::test]
async fn a_new_key_works_within_a_second_though_it_was_asked_for_before_it_was_issued() {
    let gateway = described().env("API_KEY_PEPPER", PEPPER).key("acme", "big").start().await;
    // As another process of the gateway would issue it, but known to the test before.
    let store = Embedded::open(&gateway.folder().join("data/gateway.db"), Clock::system()).unwrap();
    let form = KeyForm::new(&ApiKeys {
        environment: "live".into(),
        header: http::HeaderName::from_static("x-api-key"),
        pepper: PEPPER.into(),
        previous_peppers: Vec::new(),
    });
    for _ in 0..3 {
        let (plain, proof) = form.generate().unwrap();
        let running = load(&gateway, "x-api-key", plain.reveal()).start();
        running.goes_on(40).await;
        running.so_far().expect_only(401);
        let new = NewKey {
            proof,
            consumer: "acme".to_owned(),
            name: None,
            plan: None,
            scopes: Vec::new(),
            addresses: Vec::new(),
            not_before: None,
            expires_at: None,
        };
        store.issue_key(&Actor::named("test"), new).await.unwrap();
        let issued = running.elapsed();
        eventually_async("the new key to work", async || {
            (gateway.get("/").key(plain.reveal()).send().await.status == 200).then_some(())
        })
        .await;
        let delay = running.elapsed().saturating_sub(issued);
        assert!(delay < SECOND, "{delay:?}");
        let worked = running.elapsed();
        running.goes_on(40).await;
        running.stop().await.between(worked, Duration::MAX).expect_only(200);
    }
}

#[tokio::test]
async fn a_consumer_that_is_added_later_is_let_in_with_the_token_it_tried_before() {
    let gateway = described().start().await;
    let token = gateway.token("late");
    gateway.get("/").bearer(&token).times(3).await.expect_status(401);
    succeed(&gateway.cli(&["consumers", "add", "late", "--plan", "big"]));
    let added = Instant::now();
    eventually_async("the consumer to be known", async || {
        (gateway.get("/").bearer(&token).send().await.status == 200).then_some(())
    })
    .await;
    assert!(added.elapsed() < SECOND, "{:?}", added.elapsed());
}

#[tokio::test]
async fn during_a_rotation_both_keys_work_and_then_only_the_new_one() {
    let gateway = described().key("acme", "big").start().await;
    let old = gateway.key("acme");
    gateway.get("/").key(&old).send().await.expect_status(200);
    let rotated = gateway.cli(&["keys", "rotate", &id_of(&old), "--overlap", "2s", "--json"]);
    let rotated: serde_json::Value = serde_json::from_str(&succeed(&rotated)).unwrap();
    let new = rotated["key"].as_str().unwrap();
    let running = load(&gateway, "x-api-key", &old).start();
    let began = Instant::now();
    eventually_async("the new key", async || {
        (gateway.get("/").key(new).send().await.status == 200).then_some(())
    })
    .await;
    eventually_async("the end of the old key", async || {
        gateway.get("/").key(new).send().await.expect_status(200);
        (gateway.get("/").key(&old).send().await.status == 401).then_some(())
    })
    .await;
    // The end is a whole second, so an overlap may seem up to one second shorter.
    let overlap = began.elapsed();
    assert!(overlap > Duration::from_millis(500) && overlap < 3 * SECOND, "{overlap:?}");
    let ended = running.elapsed();
    running.goes_on(40).await;
    let summary = running.stop().await;
    summary.between(ended, Duration::MAX).expect_only(401);
    assert!(summary.statuses()[&200] > 40, "{summary:?}");
    gateway.get("/").key(new).send().await.expect_status(200);
}

#[tokio::test]
async fn a_key_begins_and_ends_when_it_was_said_to() {
    let gateway = described().key("acme", "big").start().await;
    let brief = gateway.issue_key("acme", "big", &["--expires-in", "2s"]);
    let later = gateway.issue_key("acme", "big", &["--not-before", "2100-01-01T00:00:00Z"]);
    let mut worked = 0;
    eventually_async("the end of the key", async || {
        match gateway.get("/").key(&brief).send().await.status {
            200 => worked += 1,
            401 if worked > 0 => return Some(()),
            // Not known yet.
            status => assert_eq!(status, 401),
        }
        None
    })
    .await;
    gateway.get("/").key(&later).send().await.expect_status(401);
    let log = gateway.access_log(worked + 2).await;
    let causes: Vec<_> = log.iter().rev().take(2).map(|line| &line["cause"]).collect();
    assert_eq!(causes, ["not_yet_valid", "expired"]);
}

#[tokio::test]
async fn a_new_plan_takes_effect_within_a_second_where_the_key_has_none_of_its_own() {
    let gateway = described().key("acme", "small").start().await;
    let own = gateway.key("acme");
    let issued = gateway.cli(&["keys", "issue", "acme", "--json"]);
    let issued: serde_json::Value = serde_json::from_str(&succeed(&issued)).unwrap();
    let key = issued["key"].as_str().unwrap();
    eventually_async("the key to be known", async || {
        (gateway.get("/").key(key).send().await.status != 401).then_some(())
    })
    .await;
    let running = load(&gateway, "x-api-key", key).start();
    running.goes_on(20).await;
    running.so_far().expect_only(429);
    for (plan, status) in [("big", 200), ("small", 429), ("big", 200)] {
        let line = ["consumers", "set-plan", "acme", plan];
        let delay = takes_effect(&gateway, &running, &line, status).await;
        assert!(delay < SECOND, "{plan}: {delay:?} after the command");
    }
    gateway.get("/").key(&own).send().await.expect_status(429);
    gateway.get("/").bearer(&gateway.token("acme")).send().await.expect_status(200);
    assert!(running.stop().await.failures().is_empty());
}

#[tokio::test]
async fn a_refused_key_says_nothing_of_why() {
    let gateway = described().key("acme", "big").key("gone", "big").key("off", "big").start().await;
    let acme = gateway.key("acme");
    succeed(&gateway.cli(&["keys", "revoke", &id_of(&gateway.key("gone"))]));
    succeed(&gateway.cli(&["consumers", "disable", "off"]));
    let expired = gateway.issue_key("acme", "big", &["--expires-in", "1s"]);
    gateway.metric_is("revocation_delay_seconds_count", &[], 3.0).await;
    eventually_async("the key to end", async || {
        let answer = gateway.get("/expired").key(&expired).send().await;
        (answer.status == 401 && gateway.stdout().text().contains("\"expired\"")).then_some(())
    })
    .await;
    let elsewhere_only = gateway.issue_key("acme", "big", &["--address", "203.0.113.0/24"]);
    eventually_async("the key for elsewhere", async || {
        let answer = gateway.get("/bound").key(&elsewhere_only).send().await;
        let told = gateway.stdout().text().contains("\"address_not_allowed\"");
        (answer.status == 401 && told).then_some(())
    })
    .await;
    let scrambled = format!("{}x", &acme[..acme.len() - 1]);
    let elsewhere = acme.replace("dh_live_", "dh_test_");
    let cases = [
        ("bad_checksum", scrambled.as_str()),
        ("bad_checksum", &elsewhere),
        ("malformed", "hello"),
        ("malformed", ""),
        ("unknown", &invented()),
        ("wrong_secret", &with_another_secret(&acme)),
        ("revoked", &gateway.key("gone")),
        ("consumer_disabled", &gateway.key("off")),
        ("expired", &expired),
        ("address_not_allowed", &elsewhere_only),
    ];
    let mut told: Option<(String, Vec<String>)> = None;
    for (cause, key) in cases {
        let answer = gateway.get("/").header("x-api-key", key).send().await;
        answer.expect_status(401).expect_code("invalid_key");
        let this = without_ids(&answer);
        assert_eq!(told.get_or_insert_with(|| this.clone()), &this, "{cause}");
    }
    let causes = eventually("the access log", || {
        let lines = gateway.stdout().all();
        let of = lines.iter().filter(|line| line.contains("\"path\":\"/\""));
        let causes: Vec<_> = of.map(|line| parse(line)["cause"].clone()).collect();
        (causes.len() == cases.len()).then_some(causes)
    })
    .await;
    assert_eq!(causes, cases.map(|(cause, _)| cause));
    gateway.get("/").key(&acme).send().await.expect_status(200);
}

fn parse(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// Body and headers, but for the request's id and the date.
fn without_ids(answer: &Answer) -> (String, Vec<String>) {
    let id = answer.header("x-request-id").unwrap();
    let headers =
        answer.headers.iter().filter(|(name, _)| *name != "x-request-id" && *name != "date");
    let headers = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
    (answer.text().replace(id, "ID"), headers.collect())
}

#[tokio::test]
async fn what_could_be_read_as_two_credentials_is_refused() {
    let gateway = described().key("acme", "big").start().await;
    let (key, token) = (gateway.key("acme"), gateway.token("acme"));
    let get = || gateway.get("/");
    let cases = [
        ("key_and_token", get().key(&key).bearer(&token)),
        ("repeated_header", get().key(&key).key(&key)),
        ("repeated_header", get().bearer(&token).bearer(&token)),
        ("underscore_twin", get().key(&key).header("x_api_key", &key)),
        ("no_credential", get()),
        ("no_credential", get().header("x_api_key", &key)),
        ("no_credential", get().header("authorization", &format!("Basic {token}"))),
    ];
    let wanted: Vec<_> = cases.iter().map(|(cause, _)| *cause).collect();
    for (cause, request) in cases {
        let answer = request.send().await;
        answer.expect_status(401);
        let challenges: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
        assert_eq!(
            challenges,
            ["ApiKey realm=\"datahub\"", "Bearer realm=\"datahub\""],
            "{cause}: RFC 6750 3.1 wants no error code here"
        );
    }
    let log = gateway.access_log(wanted.len()).await;
    let causes: Vec<_> = log.iter().map(|line| line["cause"].as_str().unwrap()).collect();
    assert_eq!(causes, wanted);
}

#[tokio::test]
async fn a_reload_changes_where_keys_are_read_and_which_are_ours() {
    let gateway = described().key("acme", "big").start().await;
    let key = gateway.key("acme");
    let with = |header: &str| gateway.get("/").header(header, &key).send();
    with("x-api-key").await.expect_status(200);
    gateway.write_conf("keys.toml", "[auth.api_key]\nheader = \"Orders-Key\"\n");
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    with("x-api-key").await.expect_status(401);
    with("orders-key").await.expect_status(200);
    gateway.write_conf("keys.toml", "[auth.api_key]\nenvironment = \"staging\"\n");
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    with("x-api-key").await.expect_status(401);
    gateway.stdout().containing("\"cause\":\"wrong_environment\"").await;
    let staged = gateway.issue_key("acme", "big", &[]);
    assert!(staged.starts_with("dh_staging_"), "{staged}");
    eventually_async("the key to be known", async || {
        (gateway.get("/").key(&staged).send().await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_key_without_the_scope_is_refused_by_name_and_the_key_of_a_scope_is_not() {
    let gateway = described()
        .route(
            "orders",
            "path = \"/orders\"\nauth = [\"api_key\"]\nscopes = [\"orders:read\", \"pii\"]\n\
             reply = { status = 200, body = \"ok\" }",
        )
        .key("acme", "big")
        .start()
        .await;
    let some = gateway.issue_key("acme", "big", &["--scope", "orders:read"]);
    let all = gateway.issue_key("acme", "big", &["--scope", "pii", "--scope", "orders:read"]);
    eventually_async("the keys to be known", async || {
        (gateway.get("/orders").key(&all).send().await.status == 200).then_some(())
    })
    .await;
    for key in [&some, &gateway.key("acme")] {
        let answer = gateway.get("/orders").key(key).send().await;
        answer.expect_status(403).expect_code("insufficient_scope");
        gateway.get("/").key(key).send().await.expect_status(200);
    }
    let log = gateway.access_log(5).await;
    let refused: Vec<_> = log.iter().filter(|line| line["status"] == 403).collect();
    assert_eq!(refused[0]["cause"], "missing_scope");
    assert_eq!(refused[0]["credential"], format!("key:{}", id_of(&some)), "who it was is logged");
}

#[tokio::test]
async fn a_key_works_from_its_networks_only_also_behind_a_proxy_and_after_a_rotation() {
    let gateway = described()
        .toml("[http]\ntrusted_proxies = [\"127.0.0.0/8\"]")
        .key("acme", "big")
        .start()
        .await;
    let bound = ["--address", "10.0.0.0/8", "--address", "2001:db8::7"];
    let key = gateway.issue_key("acme", "big", &bound);
    eventually_async("the key to be known", async || {
        let answer = gateway.get("/").key(&key).header("x-forwarded-for", "10.1.2.3").send().await;
        (answer.status == 200).then_some(())
    })
    .await;
    let rotated = gateway.cli(&["keys", "rotate", &id_of(&key), "--json"]);
    let rotated: serde_json::Value = serde_json::from_str(&succeed(&rotated)).unwrap();
    assert_eq!(rotated["addresses"], serde_json::json!(["10.0.0.0/8", "2001:db8::7/128"]));
    let successor = rotated["key"].as_str().unwrap();
    eventually_async("the successor to be known", async || {
        let answer =
            gateway.get("/").key(successor).header("x-forwarded-for", "10.1.2.3").send().await;
        (answer.status == 200).then_some(())
    })
    .await;
    for key in [&key, successor] {
        for (from, status) in [
            ("10.255.0.1", 200),
            ("::ffff:10.0.0.1", 200),
            ("2001:db8::7", 200),
            ("11.0.0.1", 401),
            ("2001:db8::8", 401),
            // Whoever stands further left only says so.
            ("10.1.2.3, 11.0.0.1", 401),
        ] {
            let answer = gateway.get("/").key(key).header("x-forwarded-for", from).send().await;
            assert_eq!(answer.status, status, "{from}");
        }
        gateway.get("/").key(key).send().await.expect_status(401);
    }
    let listed = succeed(&gateway.cli(&["keys", "list", "acme"]));
    assert!(listed.contains("10.0.0.0/8 2001:db8::7/128"), "{listed}");
}

/// What `gateway keys … --json` prints.
fn json(gateway: &Gateway, line: &[&str]) -> serde_json::Value {
    serde_json::from_str(&succeed(&gateway.cli(&[line, &["--json"]].concat()))).unwrap()
}

#[tokio::test]
async fn a_pepper_is_replaced_while_every_key_goes_on_working() {
    let peppers = |now: &str, previous: &str| {
        format!("[auth.api_key]\npepper = \"file:../{now}\"\nprevious_peppers = [{previous}]\n")
    };
    let folder = described().folder();
    let conf = folder.path().join("conf/peppers.toml");
    for name in ["old", "new"] {
        secret::write(&folder.path().join(name), name.repeat(20).as_bytes());
    }
    std::fs::write(&conf, peppers("old", "")).unwrap();
    let keys: Vec<_> = (0..4).map(|_| folder.issue_key("acme", "big", &[])).collect();
    let gateway = folder.start().await;
    for key in &keys {
        gateway.get("/").key(key).send().await.expect_status(200);
    }
    let running = load(&gateway, "x-api-key", &keys[0]).start();

    gateway.write_conf("peppers.toml", &peppers("new", "\"file:../old\""));
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    let counts = json(&gateway, &["keys", "peppers"]);
    assert_eq!((&counts[1]["pepper"], &counts[1]["keys"]), (&"previous".into(), &4.into()));
    for key in &keys[..3] {
        gateway.get("/").key(key).send().await.expect_status(200);
    }
    let needing_the_old = || json(&gateway, &["keys", "peppers"])[1]["keys"].clone();
    eventually_async("the keys in use to be digested anew", async || {
        (needing_the_old() == 1).then_some(())
    })
    .await;
    let listed = json(&gateway, &["keys", "list"]);
    let left = listed.as_array().unwrap().iter().find(|key| key["pepper"] == "previous").unwrap();
    assert_eq!((&left["id"], &left["state"]), (&id_of(&keys[3]).into(), &"live".into()));
    gateway.get("/").key(&keys[3]).send().await.expect_status(200);
    eventually_async("the last key", async || (needing_the_old() == 0).then_some(())).await;
    // What is cached here was asked for again by now, or is by the next request.
    for key in &keys {
        gateway.get("/").key(key).send().await.expect_status(200);
    }

    gateway.write_conf("peppers.toml", &peppers("new", ""));
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    for key in &keys {
        gateway.get("/").key(key).send().await.expect_status(200);
    }
    running.goes_on(20).await;
    running.stop().await.expect_only(200);
}

#[tokio::test]
async fn the_last_use_of_a_key_is_noted_to_the_hour_and_is_no_change() {
    let gateway = described().key("acme", "big").key("idle", "big").start().await;
    let hour = || Clock::system().unix_time().as_secs() / 3600 * 3600;
    let before = hour();
    gateway.get("/").key(&gateway.key("acme")).times(3).await.expect_status(200);
    let audited = succeed(&gateway.cli(&["audit"]));
    let shown = eventually_async("the use of the key", async || {
        let listed = json(&gateway, &["keys", "list", "acme"]);
        listed[0]["last_used_at"].as_str().map(str::to_owned)
    })
    .await;
    let shown = time::OffsetDateTime::parse(&shown, &time::format_description::well_known::Rfc3339);
    let shown = u64::try_from(shown.unwrap().unix_timestamp()).unwrap();
    assert!(shown == before || shown == hour(), "{shown}");
    assert!(json(&gateway, &["keys", "list", "idle"])[0]["last_used_at"].is_null());
    assert_eq!(succeed(&gateway.cli(&["audit"])), audited);
}
