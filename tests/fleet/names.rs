//! Names that somebody would like to be commands: they are refused, or stored as what they are, and
//! nothing else happens.

use crate::fleet::{Caller, Fleet};
use crate::support::client::Answer;
use serde_json::{Value, json};

const HOSTILE: &[&str] = &[
    "'",
    "''; DROP TABLE keys; --",
    "\"; DELETE FROM consumers; --",
    "x'); UPDATE revision SET n = 0; --",
    "$1",
    "$$; DROP TABLE audit; $$",
    "%",
    "%s%n%d",
    "a%27%3B--",
    "_",
    "\\",
    "\\'; --",
    "E'\\\\000'",
    "a\0b",
    "a\u{1}b",
    "a\r\nSET x y\r\n",
    "*1\r\n$8\r\nFLUSHALL\r\n",
    "{tasks}",
    "{}",
    "dh:{tasks}:alive",
    "return redis.call('flushall')",
    "../../v1/keys",
    "a/b",
    "?limit=1",
    "#x",
    " ",
    "",
    "é",
    "\u{202e}evil",
    "ｆｕｌｌ",
    "🦀",
    "null",
    "true",
    "-1",
    "--help",
    "-v",
];

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Refused with a reason, or done; never an error of ours.
#[track_caller]
fn expect_sane(what: &str, name: &str, answer: &Answer) {
    let status = answer.status;
    assert!((200..500).contains(&status), "{what} `{name:?}`: {status} {}", answer.text());
    if status >= 400 {
        let problem = answer.json();
        assert!(problem["code"].is_string(), "{what} `{name:?}`: {problem}");
    }
}

/// What stands in the tables that nobody may touch by a name.
fn untouched(fleet: &Fleet) -> String {
    let sql = "SELECT (SELECT count(*) FROM keys), \
               (SELECT string_agg(username, ',') FROM consumers WHERE username = 'acme'), \
               (SELECT count(*) FROM pg_tables WHERE schemaname = 'public'), \
               (SELECT count(*) FROM keys WHERE revoked_at IS NOT NULL)";
    fleet.primary.sql(&fleet.database, sql)
}

/// Names in bodies of the admin API; how many of the four writes were done.
async fn in_bodies(fleet: &Fleet, name: &str) -> usize {
    let until = "2999-01-01T00:00:00Z";
    let mut stored = 0;
    for (path, field, body) in [
        ("/v1/consumers", "username", json!({ "username": name, "plan": "free" })),
        (
            "/v1/denials",
            "jti",
            json!({ "issuer": "default", "jti": name, "until": until, "reason": name }),
        ),
        ("/v1/denials", "subject", json!({ "issuer": "default", "subject": name, "until": until })),
        // Refused: nobody issues tokens under such a name.
        ("/v1/denials", "issuer", json!({ "issuer": name, "jti": "any", "until": until })),
    ] {
        let answer = fleet.api(0, "POST", path, Some(&body)).await;
        expect_sane(path, name, &answer);
        if answer.status != 201 {
            continue;
        }
        stored += 1;
        // It comes back letter by letter, and by its own address.
        let place = answer.header("location").unwrap().to_owned();
        assert_eq!(answer.json()[field], *name, "{path}");
        if path == "/v1/consumers" {
            let again = fleet.api(1, "GET", &place, None).await;
            assert_eq!(again.expect_status(200).json()["username"], *name, "{place}");
        }
        let gone = fleet.api(1, "DELETE", &place, None).await;
        assert_eq!(gone.status, 204, "{place}: {}", gone.text());
    }
    stored
}

/// Names in paths and queries of the admin API, and in documents.
async fn in_paths(fleet: &Fleet, name: &str) {
    let escaped = percent(name);
    let of = |place: &str| format!("/v1/{place}/{escaped}");
    let plan = json!({ "limits": { name: { "rate": "1/s" } } });
    for (method, path, body) in [
        ("PUT", of("plans"), Some(plan)),
        ("DELETE", of("plans"), None),
        ("PUT", of("policies"), Some(json!({ "plans": [name] }))),
        ("DELETE", of("policies"), None),
        ("GET", of("consumers"), None),
        ("GET", of("keys"), None),
        ("DELETE", of("denials"), None),
        ("POST", format!("/v1/keys/{escaped}/revoke"), Some(json!({}))),
        ("GET", format!("/v1/usage?consumer={escaped}"), None),
        ("GET", format!("/v1/consumers?cursor={escaped}"), None),
        ("PATCH", "/v1/consumers/acme".to_owned(), Some(json!({ "plan": name }))),
    ] {
        // A list answers to what follows an empty name.
        if name.is_empty() && method != "PATCH" {
            continue;
        }
        let answer = fleet.api(0, method, &path, body.as_ref()).await;
        expect_sane(&format!("{method} {path}"), name, &answer);
    }
}

/// Names on the command line.
fn in_arguments(fleet: &Fleet, name: &str) {
    // No argument of a process has a NUL in it.
    if name.contains('\0') {
        return;
    }
    for line in [
        vec!["consumers", "add", "--plan", "free", "--", name],
        vec!["consumers", "remove", "--yes", "--", name],
        vec!["keys", "revoke", "--", name],
        vec!["tokens", "deny", "--issuer=default", "--for=1h", &format!("--jti={name}")],
        vec!["plans", "remove", "--yes", "--", name],
    ] {
        let output = fleet.operator.cli(&line);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(0..=2)), "{line:?}: {err}");
        assert!(!err.contains("panicked") && !err.contains("SQLSTATE"), "{line:?}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_refused_or_stored_as_they_are() {
    let fleet = Fleet::builder().tasks(2).redis().start().await;
    fleet.consumer(0, "acme", "free").await;
    let key = fleet.key(0, "acme").await;
    fleet.expect_all(200, &key, "/").await;
    let before = untouched(&fleet);
    let mut stored = 0;
    for name in HOSTILE {
        stored += in_bodies(&fleet, name).await;
        in_paths(&fleet, name).await;
        fleet.write(0, "PATCH", "/v1/consumers/acme", &json!({ "plan": "free" })).await;
        for task in &fleet.tasks {
            let answer = Caller::token(name, name).ask(task, "/").send().await;
            assert_eq!(answer.status, 401, "{name:?}: {}", answer.text());
        }
        in_arguments(&fleet, name);
        assert_eq!(untouched(&fleet), before, "after {name:?}");
    }
    let (names, writes) = (HOSTILE.len(), 4 * HOSTILE.len());
    println!(
        "{names} hostile names: of {writes} writes {stored} are stored as they are, the others refused"
    );
    fleet.expect_all(200, &key, "/").await;
    for task in &fleet.tasks {
        let metrics = task.metrics().await;
        assert_eq!(metrics.sum("gateway_redis_up", &[]), 1.0);
        let log = task.stderr().text();
        assert!(!log.contains("panicked"), "{log}");
    }
    let listed: Value = fleet.api(0, "GET", "/v1/consumers", None).await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
}
