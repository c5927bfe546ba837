//! The API over a socket, against a store in memory.

use super::fake::{FAILURE, FakeStore, MOST_DENIALS, Mood};
use super::schema::Description;
use super::{ApiState, Fault, Origin, Tokens, auth};
use crate::admin::{AdminState, serve};
use crate::auth::ApiKeys;
use crate::auth::api_key::KeyForm;
use crate::telemetry::{Clock, Metrics};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const TOKEN: &str = "the token of the operators";
/// Plans and policies of the files.
const IN_FILES: [&str; 2] = ["free", "pro"];

/// A gateway's operator's listener.
pub(super) struct Desk {
    address: SocketAddr,
    pub(super) clock: Clock,
    pub(super) store: Arc<FakeStore>,
    description: Description,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(super) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    fn pointers(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect()
    }
}

pub(super) fn start() -> Desk {
    start_with(vec![("ops".to_owned(), TOKEN.as_bytes().to_vec())])
}

#[expect(clippy::disallowed_methods, reason = "the test ends with its tasks")]
fn start_with(tokens: Vec<(String, Vec<u8>)>) -> Desk {
    let clock = Clock::manual();
    let store = FakeStore::new(clock.clone());
    let form = KeyForm::new(&ApiKeys {
        environment: "test".into(),
        header: http::HeaderName::from_static("x-api-key"),
        pepper: vec![7; 32],
        previous_peppers: Vec::new(),
    });
    let (rows, at) = (Arc::clone(&store), clock.clone());
    let api = Tokens::new(tokens, clock.clone()).map(|tokens| ApiState {
        ports: rows.ports(),
        tokens,
        clock: at,
        key_form: Arc::new(move || form.clone()),
        check_document: Arc::new(|_, name, body| match body.get("limits") {
            Some(_) if name != "refused" => Ok(()),
            _ => Err(vec![
                Fault { pointer: "/limits".into(), message: "is missing".into() },
                Fault { pointer: "/limit".into(), message: "is no key of a plan".into() },
            ]),
        }),
        in_force: Arc::new(|_| {
            let files = IN_FILES.iter().map(|name| (Arc::from(*name), Origin::File));
            files.chain([(Arc::from("gold"), Origin::Row)]).collect()
        }),
        issuers: Arc::new(|| vec!["idp".into(), "mtls".into(), "partner".into()]),
    });
    let state = AdminState {
        metrics: Metrics::new(),
        ready: Arc::new(|| Ok(())),
        before_scrape: Arc::new(|_| {}),
        detail: Arc::new(|| Value::Null),
        api,
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, state, std::future::pending()));
    Desk { address, clock, store, description: Description::load() }
}

impl Desk {
    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, Some(body)).await
    }

    /// Sends a request with the token. Whatever comes back must be as the description says.
    pub(super) async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let mut fields = format!("Authorization: Bearer {TOKEN}\r\n");
        if body.is_some() {
            fields.push_str("Content-Type: application/json\r\n");
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.raw(method, path, &fields, body.as_bytes()).await
    }

    pub(super) async fn raw(&self, method: &str, path: &str, fields: &str, body: &[u8]) -> Answer {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {}\r\n{fields}\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        let answer = self.bytes(&request).await;
        self.check(method, path, &answer);
        answer
    }

    async fn bytes(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The other end may answer before it has read everything.
        drop(stream.write_all(request).await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap() };
        Answer { status: head[9..12].parse().unwrap(), head: head.to_owned(), body }
    }

    fn check(&self, method: &str, path: &str, answer: &Answer) {
        let place = format!("{method} {path}: {} {}", answer.status, answer.body);
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{place}");
        assert!(!answer.head.to_lowercase().contains("access-control"), "{place}");
        let template = self.description.template_of(path);
        let operation =
            template.and_then(|it| self.description.root()["paths"][it].get(method.to_lowercase()));
        let problem = json!({ "$ref": "#/components/schemas/Problem" });
        let schema = match operation {
            Some(operation) => {
                let told = &operation["responses"][answer.status.to_string()];
                assert!(!told.is_null(), "not described: {place}");
                let told = self.description.resolve(told);
                for (name, _) in told["headers"].as_object().into_iter().flatten() {
                    assert!(answer.header(name).is_some(), "{name} is promised: {place}");
                }
                let Some(kinds) = told["content"].as_object() else {
                    assert_eq!(answer.body, Value::Null, "{place}");
                    return;
                };
                assert_eq!(answer.header("content-type"), kinds.keys().next().map(String::as_str));
                &kinds.values().next().unwrap()["schema"]
            }
            None => {
                assert!(answer.status >= 400, "not described: {place}");
                assert_eq!(answer.header("content-type"), Some("application/problem+json"));
                &problem
            }
        };
        let wrong = self.description.check(schema, &answer.body);
        assert!(wrong.is_empty(), "{place}\n{wrong:#?}");
        if answer.status >= 400 {
            assert_eq!(answer.body["status"], answer.status, "{place}");
            let id = answer.header("x-request-id").unwrap_or("-");
            assert_eq!(answer.body["request_id"], id, "{place}");
        }
    }
}

#[tokio::test]
async fn a_consumer_is_added_changed_and_removed() {
    let desk = start();
    let acme = json!({
        "username": "acme", "plan": "free", "custom_id": "C-1", "policies": ["pro"],
    });
    let added = desk.post("/v1/consumers", acme.clone()).await;
    assert_eq!(added.status, 201);
    assert_eq!(added.header("location"), Some("/v1/consumers/acme"));
    assert_eq!(added.body["enabled"], true);
    assert_eq!(added.body["created_at"], "2027-01-15T08:00:00Z");

    let taken = desk.post("/v1/consumers", acme).await;
    assert_eq!((taken.status, taken.code()), (409, "taken"));

    let change = json!({ "plan": "gold", "policies": [], "enabled": false });
    let changed = desk.send("PATCH", "/v1/consumers/acme", Some(change)).await;
    assert_eq!(changed.status, 200);
    assert_eq!(changed.body["plan"], "gold");
    assert_eq!(changed.body["policies"], json!([]));
    assert_eq!(changed.body["enabled"], false);
    let id = added.body["id"].as_str().unwrap();
    let found = desk.get(&format!("/v1/consumers/{id}")).await;
    assert_eq!(found.body, changed.body, "an id names it as well");

    assert_eq!(desk.send("DELETE", "/v1/consumers/acme", None).await.status, 204);
    for method in ["GET", "DELETE"] {
        let gone = desk.send(method, "/v1/consumers/acme", None).await;
        assert_eq!((gone.status, gone.code()), (404, "unknown_consumer"));
    }
}

#[tokio::test]
async fn a_name_with_signs_is_found_by_its_location() {
    let desk = start();
    for username in ["a/b?c#d%2F", "..", "a+b", "{name}", "\"'<>&;="] {
        let added =
            desk.post("/v1/consumers", json!({ "username": username, "plan": "free" })).await;
        assert_eq!(added.status, 201, "{username}");
        let found = desk.get(added.header("location").unwrap()).await;
        assert_eq!((found.status, &found.body["username"]), (200, &json!(username)));
    }
    let broken = desk.get("/v1/consumers/%ff").await;
    assert_eq!((broken.status, broken.code()), (400, "bad_path"));
}

#[tokio::test]
async fn every_mistake_of_a_body_is_told_at_once() {
    let desk = start();
    let table = [
        ("/v1/consumers", json!({}), vec!["/username", "/plan"]),
        (
            "/v1/consumers",
            json!({
                "username": "a b", "plan": 5, "custom_id": null, "policies": ["x", "x"],
                "Enabled": true, "a/b~c": 1,
            }),
            vec!["/username", "/plan", "/custom_id", "/policies", "/Enabled", "/a~1b~0c"],
        ),
        ("/v1/consumers", json!([]), vec![""]),
        (
            "/v1/consumers/x/keys",
            json!({ "expires_at": "soon", "expires_in": "1y", "scopes": "all", "key": "dh_" }),
            vec!["/scopes", "/expires_at", "/expires_in", "/key"],
        ),
        (
            "/v1/denials",
            json!({ "jti": "a", "subject": "b", "until": 5 }),
            vec!["/issuer", "/until", "/subject"],
        ),
        ("/v1/denials", json!({ "issuer": "idp" }), vec!["/until", "/jti"]),
    ];
    for (path, body, expected) in table {
        let told = desk.post(path, body.clone()).await;
        assert_eq!((told.status, told.code()), (422, "invalid"), "{body}");
        assert_eq!(told.pointers(), expected, "{body}");
    }
    let empty = desk.send("PATCH", "/v1/consumers/x", Some(json!({}))).await;
    assert_eq!((empty.status, empty.pointers()), (422, vec![""]));
    assert_eq!(desk.get("/v1/audit").await.body["items"], json!([]), "nothing was written");
}

#[tokio::test]
async fn what_keeps_a_consumer_or_key_from_working_is_said() {
    let desk = start();
    let consumer = json!({ "username": "acme", "plan": "gone", "policies": ["pro", "geo"] });
    let added = desk.post("/v1/consumers", consumer).await;
    let warnings = added.body["warnings"].as_array().unwrap();
    assert!(warnings[0].as_str().unwrap().starts_with("no plan called `gone` is in force"));
    assert!(warnings[1].as_str().unwrap().starts_with("no policy called `geo` is in force"));

    let change = Some(json!({ "enabled": false, "plan": "pro", "policies": [] }));
    let changed = desk.send("PATCH", "/v1/consumers/acme", change).await;
    assert!(changed.body.get("warnings").is_none());
    let issued = desk.post("/v1/consumers/acme/keys", json!({})).await;
    let warning = issued.body["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("`acme` is disabled"), "{warning}");
}

#[tokio::test]
async fn a_key_is_shown_once_and_ends_as_told() {
    let desk = start();
    desk.post("/v1/consumers", json!({ "username": "acme", "plan": "free" })).await;
    let wanted = json!({
        "name": "billing", "plan": "pro", "scopes": ["read", "write"],
        "addresses": ["10.0.0.0/8", "2001:db8::7"],
        "not_before": "2027-02-01T00:00:00Z", "expires_in": "1d",
    });
    let issued = desk.post("/v1/consumers/acme/keys", wanted).await;
    assert_eq!(issued.status, 201);
    assert_eq!(issued.body["addresses"], json!(["10.0.0.0/8", "2001:db8::7/128"]));
    assert_eq!(
        (&issued.body["pepper"], &issued.body["last_used_at"]),
        (&json!("current"), &json!(null))
    );
    let wrong = json!({ "addresses": ["10.0.0.0/8", "10.1.0.0/8"] });
    let wrong = desk.post("/v1/consumers/acme/keys", wrong).await;
    assert_eq!((wrong.status, wrong.pointers()), (422, vec!["/addresses"]));
    assert!(wrong.body.to_string().contains("did you mean `10.0.0.0/8`?"), "{}", wrong.body);
    let (id, key) = (issued.body["id"].as_str().unwrap(), issued.body["key"].as_str().unwrap());
    assert!(key.contains(id));
    let path = format!("/v1/keys/{id}");
    assert_eq!(issued.header("location"), Some(path.as_str()));
    assert_eq!(issued.body["state"], "not_yet");
    assert_eq!(issued.body["expires_at"], "2027-02-02T00:00:00Z", "from its beginning on");

    for path in [&path, "/v1/keys", "/v1/consumers/acme/keys", "/v1/audit", "/v1/consumers"] {
        let answer = desk.get(path).await;
        assert!(!answer.body.to_string().contains(key), "{path}");
    }
    desk.clock.advance(Duration::from_secs(17 * 86_400));
    assert_eq!(desk.get(&path).await.body["state"], "live");
    desk.clock.advance(Duration::from_secs(86_400));
    assert_eq!(desk.get(&path).await.body["state"], "expired");
    let late = desk.post(&format!("{path}/rotate"), json!({})).await;
    assert_eq!((late.status, late.code()), (409, "key_not_live"));
}

#[tokio::test]
async fn a_key_hands_over_with_an_overlap_and_is_revoked_for_good() {
    let desk = start();
    desk.post("/v1/consumers", json!({ "username": "acme", "plan": "free" })).await;
    let issued = desk.send("POST", "/v1/consumers/acme/keys", None).await;
    assert_eq!((issued.status, &issued.body["expires_at"]), (201, &Value::Null));
    let old = format!("/v1/keys/{}", issued.body["id"].as_str().unwrap());

    let overlap = json!({ "overlap": 3600, "expires_at": "2028-01-01T00:00:00Z" });
    let rotated = desk.post(&format!("{old}/rotate"), overlap).await;
    assert_eq!(rotated.status, 201);
    assert_ne!(rotated.body["key"], issued.body["key"]);
    assert_eq!(rotated.body["replaces"]["id"], issued.body["id"]);
    assert_eq!(rotated.body["replaces"]["expires_at"], "2027-01-15T09:00:00Z");
    assert_eq!(rotated.body["expires_at"], "2028-01-01T00:00:00Z");
    let new = format!("/v1/keys/{}", rotated.body["id"].as_str().unwrap());

    // Without a word, the old key has a day, and the new one lives as long as the old one was meant to.
    let again = desk.send("POST", &format!("{new}/rotate"), None).await;
    assert_eq!(again.body["replaces"]["expires_at"], "2027-01-16T08:00:00Z");
    assert_eq!(again.body["expires_at"], "2028-01-01T00:00:00Z");

    for _ in 0..2 {
        let revoked = desk.send("POST", &format!("{new}/revoke"), None).await;
        assert_eq!((revoked.status, &revoked.body["state"]), (200, &json!("revoked")));
        assert_eq!(revoked.body["revoked_at"], "2027-01-15T08:00:00Z");
    }
    assert_eq!(desk.get(&new).await.body["state"], "revoked", "it can still be seen");
    assert_eq!(desk.send("DELETE", &new, None).await.status, 405);
    let surplus = desk.post(&format!("{new}/revoke"), json!({ "overlap": "1h" })).await;
    assert_eq!((surplus.status, surplus.pointers()), (422, vec!["/overlap"]));
}

#[tokio::test]
async fn a_plain_key_in_a_path_is_refused_and_not_repeated() {
    let desk = start();
    desk.post("/v1/consumers", json!({ "username": "acme", "plan": "free" })).await;
    let issued = desk.post("/v1/consumers/acme/keys", json!({})).await;
    let key = issued.body["key"].as_str().unwrap();
    let refused = desk.get(&format!("/v1/keys/{key}")).await;
    assert_eq!((refused.status, refused.code()), (400, "bad_path"));
    assert!(!refused.body.to_string().contains(key));
    let unknown = desk.get("/v1/keys/0123456789abcdef").await;
    assert_eq!((unknown.status, unknown.code()), (404, "unknown_key"));
}

#[tokio::test]
async fn a_list_comes_in_pages_that_lose_and_repeat_nothing() {
    let desk = start();
    let names: Vec<_> = (0..7).map(|number| format!("c{number}")).collect();
    for name in &names {
        let added = desk.post("/v1/consumers", json!({ "username": name, "plan": "free" })).await;
        assert_eq!(added.status, 201);
        desk.post(&format!("/v1/consumers/{name}/keys"), json!({})).await;
        desk.store.use_up(20_833, name, "default", 1);
    }
    for list in ["consumers", "keys", "audit", "usage"] {
        let whole = desk.get(&format!("/v1/{list}")).await.body["items"].clone();
        for limit in [1, 2, 3, 7, 14] {
            let (mut seen, mut query) = (Vec::new(), format!("?limit={limit}"));
            loop {
                let page = desk.get(&format!("/v1/{list}{query}")).await;
                assert_eq!(page.status, 200, "{list}{query}: {}", page.body);
                let items = page.body["items"].as_array().unwrap();
                assert!(items.len() <= limit);
                seen.extend(items.clone());
                match page.body["next_cursor"].as_str() {
                    Some(cursor) => query = format!("?limit={limit}&cursor={cursor}"),
                    None => break,
                }
            }
            assert_eq!(json!(seen), whole, "{list} by {limit}");
        }
    }
    let cursor = desk.get("/v1/keys?limit=1").await.body["next_cursor"].clone();
    let cursor = cursor.as_str().unwrap();
    for path in ["/v1/consumers", "/v1/consumers/c1/keys", "/v1/usage", "/v1/plans"] {
        let mixed = desk.get(&format!("{path}?cursor={cursor}")).await;
        assert_eq!((mixed.status, mixed.code()), (400, "bad_cursor"), "{path}");
    }
    for path in ["/v1/consumers/c1?limit=1", "/v1/consumers/c1?dry_run=1", "/v1/consumers?x"] {
        let refused = desk.send("DELETE", path, None).await;
        assert!(matches!(refused.status, 400 | 405), "{path}");
        assert_eq!(desk.get(path).await.code(), "bad_query", "{path}");
    }
    for query in ["limit=0", "limit=501", "limits=1", "limit=1&limit=1", "cursor"] {
        assert_eq!(desk.get(&format!("/v1/consumers?{query}")).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn a_list_of_plans_has_those_of_the_files_and_those_of_the_store() {
    let desk = start();
    for name in ["aaa", "gold", "pro", "zzz"] {
        let body = json!({ "limits": { "all": { "rate": "1/s" } } });
        let put = desk.send("PUT", &format!("/v1/plans/{name}"), Some(body)).await;
        assert_eq!((put.status, &put.body["name"]), (200, &json!(name)));
    }
    let list = desk.get("/v1/plans").await;
    let shown = list.body["items"].as_array().unwrap().iter().map(|item| {
        let stored = !item["document"].is_null();
        (item["name"].as_str().unwrap(), item["in_force"].as_str().unwrap(), stored)
    });
    let shown: Vec<_> = shown.collect();
    let expected = [
        ("aaa", "none", true),
        ("free", "file", false),
        ("gold", "row", true),
        ("pro", "file", true),
        ("zzz", "none", true),
    ];
    assert_eq!(shown, expected);
    let mut names = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let page = desk.get(&format!("/v1/plans{query}")).await;
        let items = page.body["items"].as_array().unwrap();
        names.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        let Some(cursor) = page.body["next_cursor"].as_str() else { break };
        query = format!("?limit=2&cursor={cursor}");
    }
    assert_eq!(names, expected.map(|(name, ..)| name));
    assert_eq!(desk.get("/v1/policies").await.body["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_page_of_large_rows_is_short() {
    let desk = start();
    for number in 0..101 {
        let path = format!("/v1/policies/p{number:03}");
        desk.send("PUT", &path, Some(json!({ "limits": {} }))).await;
    }
    for list in ["policies", "audit"] {
        let page = desk.get(&format!("/v1/{list}?limit=500")).await;
        assert_eq!(page.body["items"].as_array().unwrap().len(), 100, "{list}");
        assert!(page.body["next_cursor"].is_string(), "{list}");
    }
}

#[tokio::test]
async fn a_plan_is_compiled_before_it_is_written() {
    let desk = start();
    for body in [json!({ "limit": {} }), json!({})] {
        let refused = desk.send("PUT", "/v1/plans/gold", Some(body)).await;
        assert_eq!((refused.status, refused.code()), (422, "invalid"));
        assert_eq!(refused.pointers(), ["/limits", "/limit"]);
    }
    let gone = desk.get("/v1/plans/other").await;
    assert_eq!((gone.status, gone.code()), (404, "unknown_document"));
    let strange = desk.send("PUT", "/v1/plans/a%20b", Some(json!({ "limits": {} }))).await;
    assert_eq!((strange.status, strange.code()), (400, "bad_path"));
    let list = desk.send("PUT", "/v1/plans/gold", Some(json!([1]))).await;
    assert_eq!((list.status, list.pointers()), (422, vec![""]));
}

#[tokio::test]
async fn a_row_is_removed_and_a_file_is_not() {
    let desk = start();
    let put = desk.send("PUT", "/v1/policies/pro", Some(json!({ "limits": {} }))).await;
    assert_eq!(put.body["updated_at"], "2027-01-15T08:00:00Z");
    assert_eq!(desk.send("DELETE", "/v1/policies/pro", None).await.status, 204);
    let one = desk.get("/v1/policies/pro").await;
    assert_eq!((one.status, &one.body["in_force"]), (200, &json!("file")));
    let refused = desk.send("DELETE", "/v1/policies/pro", None).await;
    assert_eq!(refused.status, 404);
    assert!(refused.body["detail"].as_str().unwrap().contains("stands in a file"));
    let unknown = desk.send("DELETE", "/v1/policies/none", None).await;
    assert!(!unknown.body["detail"].as_str().unwrap().contains("file"));
}

#[tokio::test]
async fn tokens_are_taken_back_by_id_or_by_subject() {
    let desk = start();
    let by_id = json!({ "issuer": "idp", "jti": "t-1", "until": "2027-01-16T00:00:00Z" });
    let entry = desk.post("/v1/denials", by_id.clone()).await;
    assert_eq!((entry.status, &entry.body["jti"]), (201, &json!("t-1")));
    let by_subject = json!({
        "issuer": "idp", "subject": "bob", "until": "2027-01-16T00:00:00Z", "reason": "left us",
    });
    let entry = desk.post("/v1/denials", by_subject).await;
    assert_eq!(entry.body["issued_before"], "2027-01-15T08:00:01Z", "those of this second too");
    let listed = desk.get("/v1/denials").await;
    assert_eq!(listed.body["items"][1], entry.body);

    let past = json!({ "issuer": "idp", "jti": "t-2", "until": "2027-01-15T08:00:00Z" });
    let refused = desk.post("/v1/denials", past).await;
    assert_eq!((refused.status, refused.pointers()), (422, vec!["/until"]));
    let misplaced = json!({
        "issuer": "idp", "jti": "t-2", "issued_before": "2027-01-01T00:00:00Z",
        "until": "2027-01-16T00:00:00Z",
    });
    assert_eq!(desk.post("/v1/denials", misplaced).await.pointers(), ["/issued_before"]);
    let mistyped = json!({ "issuer": "ipd", "jti": "t-2", "until": "2027-01-16T00:00:00Z" });
    let refused = desk.post("/v1/denials", mistyped).await;
    assert_eq!((refused.status, refused.pointers()), (422, vec!["/issuer"]));
    let message = refused.body["errors"][0]["message"].as_str().unwrap();
    assert!(message.ends_with("there are `idp`, `mtls`, `partner`"), "{message}");

    for _ in 2..MOST_DENIALS {
        desk.post("/v1/denials", by_id.clone()).await;
    }
    let full = desk.post("/v1/denials", by_id).await;
    assert_eq!((full.status, full.code()), (409, "too_many"));
    let path = entry.header("location").unwrap();
    assert_eq!(desk.send("DELETE", path, None).await.status, 204);
    let gone = desk.send("DELETE", path, None).await;
    assert_eq!((gone.status, gone.code()), (404, "unknown_denial"));
}

#[tokio::test]
async fn a_certificate_is_denied_by_its_fingerprint_however_that_is_spelled() {
    let desk = start();
    let deny = async |jti: &str| {
        let body = json!({ "issuer": "mtls", "jti": jti, "until": "2027-01-16T00:00:00Z" });
        desk.post("/v1/denials", body).await
    };
    let stored = "4a".repeat(32);
    let printed = ["4A"; 32].join(":");
    for spelled in [&stored, &printed, &stored.to_uppercase()] {
        let entry = deny(spelled).await;
        assert_eq!((entry.status, &entry.body["jti"]), (201, &json!(stored)), "{spelled}");
    }
    let (short, letters) = (&printed[..59], "4g".repeat(32));
    for other in ["t-1", short, &letters, &format!("{stored}4a"), ":"] {
        let refused = deny(other).await;
        assert_eq!((refused.status, refused.pointers()), (422, vec!["/jti"]), "{other}");
    }
}

#[tokio::test]
async fn usage_is_told_by_day_consumer_and_class() {
    let desk = start();
    // Today is 2027-01-15, day 20833.
    for (day, consumer, class, admitted) in [
        (20_833, "acme", "reads", 5),
        (20_833, "acme", "writes", 3),
        (20_804, "acme", "reads", 2),
        (20_803, "acme", "reads", 1),
        (20_833, "zeta", "reads", 9),
    ] {
        desk.store.use_up(day, consumer, class, admitted);
    }
    let counts = async |query: &str| {
        let answer = desk.get(&format!("/v1/usage{query}")).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
        let items = answer.body["items"].as_array().unwrap().iter();
        items.map(|item| item["admitted"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(counts("").await, [2, 5, 3, 9], "thirty days");
    assert_eq!(counts("?consumer=zeta").await, [9]);
    assert_eq!(counts("?consumer=id-of-acme&from=2027-01-15").await, [5, 3]);
    assert_eq!(counts("?from=2026-12-16&to=2026-12-17").await, [1, 2]);
    assert_eq!(counts("?consumer=nobody").await, [0; 0]);
    for query in ["?from=yesterday", "?from=2027-01-16", "?to=2027-02-30", "?day=2027-01-15"] {
        assert_eq!(desk.get(&format!("/v1/usage{query}")).await.code(), "bad_query", "{query}");
    }
}

#[tokio::test]
async fn the_audit_says_who_changed_what() {
    let desk = start();
    desk.post("/v1/consumers", json!({ "username": "acme", "plan": "free" })).await;
    desk.send("PATCH", "/v1/consumers/acme", Some(json!({ "enabled": true }))).await;
    desk.send("DELETE", "/v1/consumers/acme", None).await;
    let audit = desk.get("/v1/audit").await;
    let told = |item: &Value| {
        format!("{} {} {}", item["actor"], item["action"], item["subject"]).replace('"', "")
    };
    let told: Vec<_> = audit.body["items"].as_array().unwrap().iter().map(told).collect();
    let expected = [
        "admin:ops consumer.remove acme",
        "admin:ops consumer.enable id-of-acme",
        "admin:ops consumer.add acme",
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn nobody_gets_in_without_a_token() {
    let desk = start();
    for path in ["/v1/consumers", "/v1/openapi.json", "/v1/nothing", "/v1"] {
        let refused = desk.raw("GET", path, "", b"").await;
        assert_eq!((refused.status, refused.code()), (401, "no_token"), "{path}");
        let challenge = refused.header("www-authenticate");
        assert_eq!(challenge, Some("Bearer realm=\"datahub-admin\""));
    }
    let wrong = "Authorization: Bearer guess\r\n";
    for _ in 4..auth::FAILURES {
        let refused = desk.raw("DELETE", "/v1/consumers/x", wrong, b"").await;
        assert_eq!((refused.status, refused.code()), (401, "wrong_token"));
        assert!(refused.header("www-authenticate").unwrap().ends_with("error=\"invalid_token\""));
    }
    let slower = desk.raw("GET", "/v1/consumers", wrong, b"").await;
    assert_eq!((slower.status, slower.header("retry-after")), (429, Some("1")));
    assert_eq!(desk.get("/v1/consumers").await.status, 200, "a right one is answered meanwhile");
    let open = desk.bytes(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(open.await.status, 200);
}

#[tokio::test]
async fn a_page_in_a_browser_cannot_use_a_name_of_its_own() {
    let desk = start();
    let request = format!(
        "GET /v1/consumers HTTP/1.1\r\nHost: rebound.example\r\nConnection: close\r\n\
         Authorization: Bearer {TOKEN}\r\n\r\n"
    );
    assert_eq!(desk.bytes(request.as_bytes()).await.status, 421);
}

#[tokio::test]
async fn without_tokens_the_api_is_off_and_says_how_to_turn_it_on() {
    let desk = start_with(Vec::new());
    for path in ["/v1", "/v1/consumers", "/v1/keys/x/revoke"] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: Bearer {TOKEN}\r\n\r\n"
        );
        let off = desk.bytes(request.as_bytes()).await;
        assert_eq!((off.status, off.code()), (404, "api_off"), "{path}");
        assert!(off.body["detail"].as_str().unwrap().contains("[admin.tokens.NAME]"));
    }
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_problems_too() {
    let desk = start();
    for path in ["/v1", "/v1/nothing", "/v1/consumers/", "/v1/consumers/a/b"] {
        let absent = desk.get(path).await;
        assert_eq!((absent.status, absent.code()), (404, "not_found"), "{path}");
    }
    let refused = desk.send("PUT", "/v1/consumers", Some(json!({}))).await;
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET,HEAD,POST")));
    let options = desk.send("OPTIONS", "/v1/keys/x", None).await;
    assert_eq!((options.status, options.header("allow")), (405, Some("GET,HEAD")));
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused() {
    let desk = start();
    let json_kind = "Content-Type: application/json\r\n";
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let good = br#"{"username":"a","plan":"free"}"#;
    let table: [(&str, &[u8], u16, &str); 11] = [
        ("", good, 415, "unsupported_media_type"),
        ("Content-Type: text/plain\r\n", good, 415, "unsupported_media_type"),
        ("Content-Type: application/jsonx\r\n", good, 415, "unsupported_media_type"),
        ("Content-Type: application/json; charset=latin1\r\n", good, 415, "unsupported_media_type"),
        (
            "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
            good,
            415,
            "unsupported_media_type",
        ),
        (json_kind, b"", 400, "body_missing"),
        (json_kind, b"{", 400, "malformed_body"),
        (json_kind, br#"{"username":"a","username":"b","plan":"free"}"#, 400, "malformed_body"),
        (json_kind, b"{\"username\":\"\xff\"}", 400, "malformed_body"),
        (json_kind, b"null", 422, "invalid"),
        ("content-type: Application/JSON; charset=UTF-8\r\n", good, 201, ""),
    ];
    for (fields, body, status, code) in table {
        let fields = format!("{token}{fields}");
        let told = desk.raw("POST", "/v1/consumers", &fields, body).await;
        assert_eq!((told.status, told.code()), (status, code), "{fields}");
    }
}

#[tokio::test]
async fn a_body_has_64_kib_at_most() {
    let desk = start();
    let of_size = |size: usize| {
        let mut body = br#"{"limits":{},"note":""#.to_vec();
        body.resize(size - 2, b'x');
        body.extend_from_slice(b"\"}");
        body
    };
    let fields = format!("Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n");
    let fits = desk.raw("PUT", "/v1/plans/big", &fields, &of_size(super::MAX_BODY)).await;
    assert_eq!(fits.status, 200);
    for over in [1, 4096, 20_000] {
        let body = of_size(super::MAX_BODY + over);
        let refused = desk.raw("PUT", "/v1/plans/big", &fields, &body).await;
        assert_eq!((refused.status, refused.code()), (413, "body_too_large"), "{over}");
        // The same, without saying how long it is.
        let mut request = format!(
            "PUT /v1/plans/big HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\
             Transfer-Encoding: chunked\r\n\r\n{:x}\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(&body);
        request.extend_from_slice(b"\r\n0\r\n\r\n");
        assert_eq!(desk.bytes(&request).await.status, 413, "{over}, chunked");
    }
}

#[tokio::test]
async fn a_store_that_is_away_is_503_and_what_it_says_stays_in_the_log() {
    let desk = start();
    desk.store.set_mood(Mood::Fails);
    for path in ["/v1/consumers", "/v1/keys", "/v1/plans", "/v1/denials", "/v1/usage", "/v1/audit"]
    {
        let away = desk.get(path).await;
        assert_eq!((away.status, away.code()), (503, "store_unavailable"), "{path}");
        assert_eq!(away.header("retry-after"), Some("1"));
        assert!(!away.body.to_string().contains(FAILURE), "{path}");
    }
    let away = desk.post("/v1/consumers/a/keys", json!({})).await;
    assert_eq!(away.status, 503);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_silent_is_given_up_before_the_connection_is() {
    let desk = start();
    desk.store.set_mood(Mood::Hangs);
    let late = desk.get("/v1/consumers").await;
    assert_eq!((late.status, late.code()), (503, "store_timeout"));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let desk = start();
    let request = format!(
        "POST /v1/consumers HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{{"
    );
    let late = desk.bytes(request.as_bytes()).await;
    assert_eq!((late.status, late.code()), (408, "body_timeout"));
}
