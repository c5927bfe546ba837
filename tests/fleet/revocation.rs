//! What is taken back stops working on every task, soon, and stays so.
//!
//! Times begin before the write is sent, so they hold the write as well.

use crate::fleet::{Caller, Figures, Fleet, PEPPER};
use crate::postgres_lab::Server;
use crate::redis_lab::fault::Mode;
use crate::support::gateway::succeed;
use crate::support::sized;
use datahub_gateway::auth::ApiKeys;
use datahub_gateway::auth::api_key::KeyForm;
use datahub_gateway::auth::registry::{Actor, NewKey, Registry as _};
use datahub_gateway::stores::postgres::{Bounds, Settings};
use datahub_gateway::stores::{Postgres, Reactor};
use datahub_gateway::telemetry::Clock;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Tries so many times: what `arrange` gives is accepted by every task, then `act` takes it back, and
/// every task answers `status` from then on. Measures until the last of them does.
async fn measure(
    fleet: &Fleet,
    trials: usize,
    (path, status): (&str, u16),
    arrange: impl AsyncFn(usize) -> Caller,
    act: impl AsyncFn(usize, &Caller),
) -> Figures {
    let mut took = Vec::new();
    let mut ended = Vec::new();
    for trial in 0..trials {
        let credential = arrange(trial).await;
        fleet.until_all(Instant::now(), 200, &credential, path).await;
        let began = Instant::now();
        act(trial, &credential).await;
        let times = fleet.until_all(began, status, &credential, path).await;
        took.extend(times.into_iter().max());
        ended.push(credential);
    }
    for credential in &ended {
        fleet.expect_all(status, credential, path).await;
    }
    Figures::of(took)
}

const SECOND: Duration = Duration::from_secs(1);

/// What the tasks have measured of changes since `before`: it agrees with what was seen outside.
async fn expect_measured(fleet: &Fleet, at_least: usize, within: &str) {
    for (number, task) in fleet.tasks.iter().enumerate() {
        let metrics = task.metrics().await;
        let of = |name: &str, labels: &[(&str, &str)]| {
            metrics.sum(&format!("gateway_revocation_delay_seconds_{name}"), labels)
        };
        let (count, soon) = (of("count", &[]), of("bucket", &[("le", within)]));
        let mean = of("sum", &[]) / count.max(1.0) * 1000.0;
        println!(
            "  task {number} says: {count} changes, mean {mean:.1} ms, {soon} within {within} s"
        );
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let least = at_least as f64;
        assert!(count >= least && soon >= count * 0.99, "task {number}: {soon} of {count}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_revoked_through_one_task_is_refused_by_all_within_a_second() {
    let fleet = Fleet::builder().replica().redis().start().await;
    fleet.consumer(0, "acme", "free").await;
    let trials = sized(40, 200);
    let figures = measure(
        &fleet,
        trials,
        ("/", 401),
        async |trial| fleet.key(trial % 5, "acme").await,
        async |trial, credential| {
            if trial % 10 == 9 {
                let line = format!("keys revoke {}", credential.plain());
                succeed(&fleet.cli(&line));
            } else {
                fleet.revoke((trial + 1) % 5, credential).await;
            }
        },
    )
    .await;
    figures.tell("a revoked key, refused by all of 5 tasks").within(SECOND, 2 * SECOND);
    // The first one or two may fall into a task's first look.
    expect_measured(&fleet, 2 * trials - 2, "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_far_behind_brings_no_revoked_key_back() {
    let mut fleet = Fleet::builder().replica().redis().start().await;
    fleet.consumer(0, "acme", "free").await;
    let trials = sized(20, 100);
    let mut keys = Vec::new();
    for trial in 0..trials {
        keys.push(fleet.key(trial % 5, "acme").await);
    }
    fleet.caught_up().await;
    fleet.follower().pause_replay();
    tokio::time::sleep(Duration::from_secs(sized(3, 30))).await;
    let figures = measure(
        &fleet,
        trials,
        ("/", 401),
        async |trial| Caller::Key(keys[trial].plain().to_owned()),
        async |trial, credential| fleet.revoke(trial % 5, credential).await,
    )
    .await;
    figures.tell("the same, with the replica held behind").within(SECOND, 2 * SECOND);
    // One that starts now knows nothing but what the stores say, and the replica says they are good.
    let late = fleet.join().await;
    for key in &keys {
        key.ask(late, "/").send().await.expect_status(401);
    }
    let revoked = "SELECT count(*) FROM keys WHERE revoked_at IS NOT NULL";
    assert_eq!(fleet.follower().sql(&fleet.database, revoked), "0", "it was held behind");
    fleet.follower().resume_replay();
    fleet.caught_up().await;
    for key in &keys {
        fleet.expect_all(401, key, "/").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_notifications_cut_or_lost_a_revoked_key_is_refused_within_two_seconds() {
    let mut fleet = Fleet::builder().redis().prepare().await;
    // Writes call this one instead, and nobody is told.
    fleet.primary.sql(
        &fleet.database,
        "CREATE FUNCTION public.pg_notify(text, text) RETURNS void LANGUAGE sql AS ''",
    );
    let database = fleet.database.clone();
    let lost = format!("ALTER DATABASE {database} SET search_path = public, pg_catalog");
    fleet.primary.sql("postgres", &lost);
    fleet.open().await;
    fleet.consumer(0, "acme", "free").await;
    let trials = sized(15, 60);
    let trial = async |what: &str| {
        let figures = measure(
            &fleet,
            trials,
            ("/", 401),
            async |trial| fleet.key(trial % 5, "acme").await,
            async |trial, credential| fleet.revoke((trial + 1) % 5, credential).await,
        );
        figures.await.tell(what).within(2 * SECOND, 2 * SECOND);
    };
    trial("a revoked key, with every notification lost").await;
    let listeners = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{database}' \
         AND (query LIKE 'SELECT substr(pg_walfile%' OR query LIKE 'LISTEN%')"
    );
    let (cut, ended) = (AtomicBool::new(true), &fleet.primary);
    let cutter = |server: &Server| {
        let mut ended = 0;
        while cut.load(Ordering::SeqCst) {
            ended += server.sql("postgres", &listeners).parse::<usize>().unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        ended
    };
    let cuts = std::thread::scope(|scope| {
        let cutting = scope.spawn(|| cutter(ended));
        let handle = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            handle.block_on(trial("a revoked key, with the listeners cut off all the time"));
        });
        cut.store(false, Ordering::SeqCst);
        cutting.join().unwrap()
    });
    assert!(cuts > trials, "{cuts}");
    println!("  {cuts} connections of listeners were ended");
    expect_measured(&fleet, 2 * trials, "2.5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_does_not_need_redis() {
    let fleet = Fleet::builder().tasks(3).redis().start().await;
    fleet.consumer(0, "acme", "free").await;
    fleet.redis().fault_all(Mode::Blackhole);
    let figures = measure(
        &fleet,
        sized(10, 60),
        ("/", 401),
        async |trial| fleet.key(trial % 3, "acme").await,
        async |trial, credential| fleet.revoke((trial + 1) % 3, credential).await,
    );
    figures.await.tell("a revoked key, with Redis black-holed").within(SECOND, 2 * SECOND);
}

/// Everything else that can be taken back or changed.
#[tokio::test(flavor = "multi_thread")]
async fn consumers_tokens_plans_and_policies_change_everywhere_within_a_second() {
    let fleet = Fleet::builder().replica().redis().describe(|task| {
        let gated = crate::fleet::answering("/gated", "policies = [\"gate\"]");
        task.route("gated", &gated).toml("[policies.gate]\n[policies.nobody]\nconsumers = [\"x\"]")
    });
    let fleet = fleet.start().await;
    let trials = sized(6, 40);
    let say = async |what: &str, figures: Figures| {
        figures.tell(what).within(SECOND, 2 * SECOND);
    };
    for trial in 0..trials {
        for kind in ["off", "gone", "plan", "gate", "held", "sub"] {
            fleet.consumer(trial % 5, &format!("{kind}{trial}"), "free").await;
        }
    }
    let key_of =
        async |kind: &str, trial: usize| fleet.key(trial % 5, &format!("{kind}{trial}")).await;
    let path = |kind: &str, trial: usize| format!("/v1/consumers/{kind}{trial}");
    let change = async |trial: usize, method: &str, path: &str, body: Value| {
        fleet.write((trial + 1) % 5, method, path, &body).await;
    };

    let figures = measure(
        &fleet,
        trials,
        ("/", 401),
        async |n| key_of("off", n).await,
        async |n, _| {
            change(n, "PATCH", &path("off", n), json!({ "enabled": false })).await;
        },
    );
    say("a disabled consumer", figures.await).await;
    let figures = measure(
        &fleet,
        trials,
        ("/", 401),
        async |n| key_of("gone", n).await,
        async |n, _| {
            let answer = fleet.api(n % 5, "DELETE", &path("gone", n), None).await;
            assert_eq!(answer.status, 204, "{}", answer.text());
        },
    );
    say("a removed consumer", figures.await).await;
    tokens(&fleet, trials, &say).await;
    rows(&fleet, trials, &say).await;
    expect_measured(&fleet, 4 * trials, "1").await;
}

/// Tokens that are denied.
async fn tokens(fleet: &Fleet, trials: usize, say: &impl AsyncFn(&str, Figures)) {
    let deny = async |n: usize, body: Value| {
        fleet.write((n + 1) % 5, "POST", "/v1/denials", &body).await;
    };
    let until = "2999-01-01T00:00:00Z";
    let figures = measure(
        fleet,
        trials,
        ("/", 401),
        async |n| Caller::token("sub0", &format!("t{n}")),
        async |n, _| {
            let body = json!({ "issuer": "default", "jti": format!("t{n}"), "until": until });
            deny(n, body).await;
        },
    );
    say("a token denied by its id", figures.await).await;
    let figures = measure(
        fleet,
        trials,
        ("/", 401),
        async |n| Caller::token(&format!("sub{n}"), "any"),
        async |n, _| {
            if n % 3 == 2 {
                let line = format!("tokens deny --issuer default --subject sub{n} --for 24h");
                succeed(&fleet.cli(&line));
            } else {
                let subject = format!("sub{n}");
                let body = json!({ "issuer": "default", "subject": subject, "until": until });
                deny(n, body).await;
            }
        },
    );
    say("the tokens of a subject denied", figures.await).await;
}

/// Plans and policies that are rows.
async fn rows(fleet: &Fleet, trials: usize, say: &impl AsyncFn(&str, Figures)) {
    let plan = |rate: &str| json!({ "limits": { "all": { "rate": rate } } });
    let put = async |n: usize, path: &str, body: &Value| {
        fleet.write((n + 1) % 5, "PUT", path, body).await;
    };
    let key_of = async |kind: &str, n: usize| fleet.key(n % 5, &format!("{kind}{n}")).await;
    let figures = measure(
        fleet,
        trials,
        ("/", 429),
        async |n| {
            let name = format!("plan{n}");
            put(n, &format!("/v1/plans/{name}"), &plan("10000/s")).await;
            let path = format!("/v1/consumers/{name}");
            fleet.write(n % 5, "PATCH", &path, &json!({ "plan": name })).await;
            key_of("plan", n).await
        },
        async |n, _| put(n, &format!("/v1/plans/plan{n}"), &plan("1/d")).await,
    );
    say("a plan's limit lowered", figures.await).await;
    let gate = |consumers: Value| json!({ "consumers": consumers });
    let figures = measure(
        fleet,
        trials,
        ("/gated", 403),
        async |n| {
            put(n, "/v1/policies/gate", &gate(json!([format!("gate{n}")]))).await;
            key_of("gate", n).await
        },
        async |n, _| put(n, "/v1/policies/gate", &gate(json!(["nobody"]))).await,
    );
    say("a policy of a route changed", figures.await).await;
    let figures = measure(
        fleet,
        trials,
        ("/", 403),
        async |n| key_of("held", n).await,
        async |n, _| {
            let path = format!("/v1/consumers/held{n}");
            fleet.write(n % 5, "PATCH", &path, &json!({ "policies": ["nobody"] })).await;
        },
    );
    say("a consumer's policies changed", figures.await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_or_a_consumer_made_after_it_was_asked_for_works_everywhere_within_two_seconds() {
    let fleet = Fleet::builder().replica().redis().start().await;
    fleet.consumer(0, "acme", "free").await;
    let form = KeyForm::new(&ApiKeys {
        environment: "live".into(),
        header: http::HeaderName::from_static("x-api-key"),
        pepper: PEPPER.as_bytes().to_vec(),
        previous_peppers: Vec::new(),
    });
    let url = fleet.primary.url(&fleet.database);
    let settings = Settings::parse(&url, None, None, Bounds::default()).unwrap();
    let store = Postgres::connect(settings, Reactor::start().unwrap(), Clock::system());
    let (mut keys, mut consumers) = (Vec::new(), Vec::new());
    for trial in 0..sized(10, 60) {
        // Whoever issues keys makes them at random, so only here can one be asked for too early.
        let (plain, proof) = form.generate().unwrap();
        let key = Caller::Key(plain.reveal().to_owned());
        fleet.expect_all(401, &key, "/").await;
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
        let began = Instant::now();
        store.issue_key(&Actor::named("test"), new).await.unwrap();
        let times = fleet.until_all(began, 200, &key, "/").await;
        keys.extend(times.into_iter().max());

        let name = format!("late{trial}");
        let bearer = Caller::token(&name, "any");
        for task in &fleet.tasks {
            assert_ne!(bearer.ask(task, "/").send().await.status, 200);
        }
        let began = Instant::now();
        fleet.consumer(trial % 5, &name, "free").await;
        let times = fleet.until_all(began, 200, &bearer, "/").await;
        consumers.extend(times.into_iter().max());
    }
    let most = 2 * SECOND;
    Figures::of(keys)
        .tell("a key made after it was asked for, works everywhere")
        .within(most, most);
    let what = "a consumer made after its token was sent, works everywhere";
    Figures::of(consumers).tell(what).within(most, most);
}
