//! What the log is told of the API, and what it must never be told.

use super::fake::{FAILURE, Mood};
use super::tests::{Desk, start};
use parking_lot::Mutex;
use serde_json::json;
use std::fmt::Write as _;
use std::sync::LazyLock;

/// The log of the test process. Other tests write into it as well, so a line is found by its id.
static LOG: LazyLock<&'static Lines> = LazyLock::new(|| {
    let lines: &'static Lines = Box::leak(Box::default());
    log::set_logger(lines).expect("nobody else listens");
    log::set_max_level(log::LevelFilter::Trace);
    lines
});

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl log::Log for Lines {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("datahub_gateway::admin")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let mut line = format!("{} {}", record.level(), record.args());
            record.key_values().visit(&mut Fields(&mut line)).unwrap();
            self.0.lock().push(line);
        }
    }

    fn flush(&self) {}
}

struct Fields<'a>(&'a mut String);

impl<'kvs> log::kv::VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(
        &mut self,
        key: log::kv::Key<'kvs>,
        value: log::kv::Value<'kvs>,
    ) -> Result<(), log::kv::Error> {
        write!(self.0, " {key}={value}").unwrap();
        Ok(())
    }
}

fn lines_of(id: &str) -> Vec<String> {
    LOG.0.lock().iter().filter(|line| line.contains(id)).cloned().collect()
}

async fn told(desk: &Desk, method: &str, path: &str) -> Vec<String> {
    let answer = desk.send(method, path, None).await;
    let id = answer.header("x-request-id").unwrap().to_owned();
    lines_of(&id).into_iter().map(|line| line.replace(&id, "ID")).collect()
}

#[tokio::test]
async fn a_request_is_one_line_with_who_what_and_how_it_ended() {
    LazyLock::force(&LOG);
    let desk = start();
    desk.post("/v1/consumers", json!({ "username": "acme", "plan": "free" })).await;
    let table = [
        ("GET", "/v1/consumers/acme", "method=GET path=/v1/consumers/{name} status=200 code=-"),
        ("GET", "/v1/usage?consumer=secret", "method=GET path=/v1/usage status=200 code=-"),
        ("GET", "/v1/secret", "method=GET path=- status=404 code=not_found"),
        (
            "DELETE",
            "/v1/consumers/secret",
            "method=DELETE path=/v1/consumers/{name} status=404 code=unknown_consumer",
        ),
    ];
    for (method, path, expected) in table {
        let lines = told(&desk, method, path).await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        let (begin, end) = lines[0].split_once(" peer=127.0.0.1:").unwrap();
        assert_eq!(begin, "INFO the admin API was used request_id=ID actor=admin:ops");
        let (_, end) = end.split_once(' ').unwrap();
        assert_eq!(end, expected);
    }
}

#[tokio::test]
async fn what_a_store_says_is_in_the_log_under_the_id_of_the_request() {
    LazyLock::force(&LOG);
    let desk = start();
    desk.store.set_mood(Mood::Fails);
    let lines = told(&desk, "GET", "/v1/consumers").await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("ERROR ") && lines[0].contains(FAILURE), "{lines:?}");
}

#[tokio::test]
async fn no_key_and_no_token_is_in_the_log() {
    LazyLock::force(&LOG);
    let desk = start();
    desk.post("/v1/consumers", json!({ "username": "acme", "plan": "free" })).await;
    let issued = desk.post("/v1/consumers/acme/keys", json!({})).await;
    let key = issued.body["key"].as_str().unwrap().to_owned();
    desk.get(&format!("/v1/keys/{key}")).await;
    desk.get(&format!("/v1/usage?consumer={key}")).await;
    desk.post("/v1/consumers", json!({ "username": key, "plan": "x y", "more": key })).await;
    let guess = "a guess that nobody else makes";
    let fields = format!("Authorization: Bearer {guess}\r\n");
    let refused = desk.raw("GET", &format!("/v1/keys/{key}"), &fields, b"").await;
    let warned = lines_of(refused.header("x-request-id").unwrap());
    assert!(warned[0].starts_with("WARN the admin API was asked without a token"), "{warned:?}");
    assert!(warned[0].ends_with("path=/v1/keys/{id} status=401 code=wrong_token"), "{warned:?}");
    let lines = LOG.0.lock();
    for secret in [&key, guess, "the token of the operators"] {
        assert!(lines.iter().all(|line| !line.contains(secret)), "{secret}");
    }
}
