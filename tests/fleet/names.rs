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

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_refused_or_stored_as_they_are() {
    let fleet = Fleet::builder().tasks(2).redis().start().await;
    fleet.consumer(0, "acme", "free").await;
    let key = fleet.key(0, "acme").await;
    fleet.expect_all(200, &key, "/").await;
    let before = untouched(&fleet);
    let (mut refused, mut stored) = (0, 0);
    for name in HOSTILE {
        for (path, body) in [
            ("/v1/consumers", json!({ "username": name, "plan": "free" })),
            (
                "/v1/denials",
                json!({ "issuer": "default", "jti": name, "until": "2999-01-01T00:00:00Z" }),
            ),
            (
                "/v1/denials",
                json!({ "issuer": name, "subject": name, "until": "2999-01-01T00:00:00Z" }),
            ),
        ] {
            let answer = fleet.api(0, "POST", path, Some(&body)).await;
            expect_sane(path, name, &answer);
            if answer.status == 201 {
                stored += 1;
                // It comes back letter by letter, and by its own address.
                let place = answer.header("location").unwrap().to_owned();
                let shown = answer.json();
                let field = if path == "/v1/consumers" { "username" } else { "issuer" };
                let said = shown[field].as_str().unwrap();
                assert!(said == *name || said == "default", "{shown}");
                if path == "/v1/consumers" {
                    let again = fleet.api(1, "GET", &place, None).await;
                    assert_eq!(again.expect_status(200).json()["username"], *name, "{place}");
                }
                let gone = fleet.api(1, "DELETE", &place, None).await;
                assert_eq!(gone.status, 204, "{place}: {}", gone.text());
            } else {
                refused += 1;
            }
        }
        let plan = json!({ "limits": { *name: { "rate": "1/s" } } });
        for (method, path, body) in [
            ("PUT", format!("/v1/plans/{}", percent(name)), Some(plan)),
            ("DELETE", format!("/v1/plans/{}", percent(name)), None),
            ("PUT", format!("/v1/policies/{}", percent(name)), Some(json!({ "plans": [name] }))),
            ("DELETE", format!("/v1/policies/{}", percent(name)), None),
            ("GET", format!("/v1/consumers/{}", percent(name)), None),
            ("GET", format!("/v1/keys/{}", percent(name)), None),
            ("DELETE", format!("/v1/denials/{}", percent(name)), None),
            ("POST", format!("/v1/keys/{}/revoke", percent(name)), Some(json!({}))),
            ("GET", format!("/v1/usage?consumer={}", percent(name)), None),
            ("GET", format!("/v1/consumers?cursor={}", percent(name)), None),
            ("PATCH", "/v1/consumers/acme".to_owned(), Some(json!({ "plan": name }))),
        ] {
            // A list answers to what follows an empty name.
            if name.is_empty() && method != "PATCH" {
                continue;
            }
            let answer = fleet.api(0, method, &path, body.as_ref()).await;
            expect_sane(&format!("{method} {path}"), name, &answer);
        }
        fleet.write(0, "PATCH", "/v1/consumers/acme", &json!({ "plan": "free" })).await;
        for task in &fleet.tasks {
            let answer = Caller::token(name, name).ask(task, "/").send().await;
            assert_eq!(answer.status, 401, "{name:?}: {}", answer.text());
        }
        for line in [
            vec!["consumers", "add", "--plan", "free", "--", name],
            vec!["consumers", "remove", "--yes", "--", name],
            vec!["keys", "revoke", "--", name],
            vec!["tokens", "deny", "--issuer=default", "--for=1h", &format!("--jti={name}")],
            vec!["plans", "remove", "--yes", "--", name],
        ] {
            // No argument of a process has a NUL in it.
            if name.contains('\0') {
                continue;
            }
            let output = fleet.operator.cli(&line);
            let err = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(matches!(output.status.code(), Some(0 | 1 | 2)), "{line:?}: {err}");
            assert!(!err.contains("panicked") && !err.contains("SQLSTATE"), "{line:?}: {err}");
        }
        assert_eq!(untouched(&fleet), before, "after {name:?}");
    }
    println!(
        "{} hostile names: {refused} writes refused, {stored} stored as they are",
        HOSTILE.len()
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
