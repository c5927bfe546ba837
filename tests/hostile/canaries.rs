//! Secrets, each with a mark of its own, sent through every path: none comes out where it should not.

use crate::support::client::Client;
use crate::support::credential::{forged, now, with_another_secret};
use crate::support::gateway::{Builder, Gateway};
use crate::support::origin::{Behaviour, Origin};
use crate::support::raw::RawClient;
use serde_json::json;
use std::time::Duration;

const PEPPER: &str = "CANARY-pepper-CANARY-pepper-CANARY-pepper";
const SIGNING: &str = "CANARY-signing-CANARY-signing-CANARY-signing";
const ADMIN: &str = "CANARY-admin-CANARY-admin-CANARY-admin-CANARY";
/// `user:CANARY-password`
const BASIC: &str = "dXNlcjpDQU5BUlktcGFzc3dvcmQ=";

/// What stands in no log, metric or answer, whatever was sent.
struct Secrets(Vec<String>);

impl Secrets {
    #[track_caller]
    fn are_not_in(&self, place: &str, text: &str) {
        for secret in &self.0 {
            let at = text.find(secret.as_str());
            assert!(
                at.is_none(),
                "{secret} in {place}: {}",
                text.get(at.unwrap_or(0)..).unwrap_or(text)
            );
        }
    }
}

async fn described(origin: &Origin) -> Builder {
    origin.on("/late", Behaviour::Silent);
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let secret = "request_headers = { set = { x-upstream-secret = \"CANARY-upstream\" } }";
    let open = |path: &str, more: &str| {
        format!("path = \"{path}\"\nauth = \"none\"\nupstream = \"u\"\n{secret}\n{more}")
    };
    let both = "auth = [\"api_key\", \"jwt\"]\nupstream = \"u\"";
    Gateway::builder()
        .toml("[http]\nbody_timeout = \"500ms\"\n[auth.jwt.default]\ndefault_plan = \"basic\"")
        .toml("[admin.tokens.test]\ntoken = \"env:ADMIN_TOKEN\"")
        .env("API_KEY_PEPPER", PEPPER)
        .env("JWT_SECRET", SIGNING)
        .env("ADMIN_TOKEN", ADMIN)
        .tls_listener("secure")
        .upstream("u", &[origin.address()])
        .upstream("nobody", &[nobody])
        .upstream_with(
            "ill",
            &[nobody],
            "[health]\ntype = \"tcp\"\ninterval = \"50ms\"\ntimeout = \"50ms\"\nunhealthy_after = 1",
        )
        .route("open", &open("/*", "methods = [\"GET\", \"POST\"]"))
        .route("small", &open("/small", "max_body = \"5B\""))
        .route("late", &open("/late", "timeouts = { connect = \"200ms\", total = \"200ms\", per_try = \"200ms\" }"))
        .route("nobody", "path = \"/nobody\"\nauth = \"none\"\nupstream = \"nobody\"")
        .route("ill", "path = \"/ill\"\nauth = \"none\"\nupstream = \"ill\"")
        .route("both", &format!("path = \"/both/*\"\n{both}"))
        .route("scoped", &format!("path = \"/scoped/*\"\n{both}\nscopes = [\"never\"]"))
        .route(
            "once",
            "path = \"/once\"\nauth = \"none\"\nupstream = \"u\"\n\
             [limits.few]\nrate = \"1/h\"\nper = \"route\"",
        )
        .plan("basic", "1000/s")
        .key("alice", "basic")
}

#[tokio::test]
async fn no_secret_comes_out_on_any_path() {
    let origin = Origin::start().await;
    let mut gateway = described(&origin).await.start().await;
    gateway.metric_is("upstream_endpoint_up", &[("upstream", "ill")], 0.0).await;
    let key = gateway.key("alice");
    let wrong = with_another_secret(&key);
    let claims = json!({ "sub": "alice", "exp": now() + 3600, "x": "CANARY-claim" }).to_string();
    let token = forged("{\"alg\":\"HS256\"}", &claims, SIGNING.as_bytes());
    let expired = json!({ "sub": "CANARY-subject", "exp": 1 }).to_string();
    let expired = forged("{\"alg\":\"HS256\"}", &expired, SIGNING.as_bytes());
    let alien = forged("{\"alg\":\"none\"}", &claims, b"other");
    let last = |text: &str, at: char| text.rsplit(at).next().unwrap().to_owned();
    let secrets = Secrets(vec![
        "CANARY".to_owned(),
        token.split('.').nth(1).unwrap().to_owned(),
        expired.split('.').nth(1).unwrap().to_owned(),
        BASIC.trim_end_matches('=').to_owned(),
        last(&key, '_'),
        last(&wrong, '_'),
        last(&token, '.'),
        last(&expired, '.'),
        last(&alien, '.'),
    ]);

    let bearer = |token: &str| ("authorization", format!("Bearer {token}"));
    let carried: [Vec<(&str, String)>; 8] = [
        vec![],
        vec![("x-api-key", key.clone())],
        vec![("x-api-key", wrong.clone())],
        vec![("x-api-key", "CANARY-nonsense".to_owned())],
        vec![bearer(&token)],
        vec![bearer(&expired)],
        vec![bearer(&alien), ("x-api-key", key.clone())],
        vec![("authorization", format!("Basic {BASIC}"))],
    ];
    let asked = ask(&gateway, &secrets, &carried).await;
    ask_wrongly(&gateway, &secrets).await;
    administrate(&gateway, &secrets).await;
    reload(&gateway, &secrets).await;
    gateway.access_log(asked).await;
    let scrape = Client::new(gateway.admin()).get("/metrics").send().await;
    secrets.are_not_in("the metrics", &scrape.text());
    gateway.stop(Duration::from_secs(20)).await;
    secrets.are_not_in("the access log", &gateway.stdout().text());
    secrets.are_not_in("the log", &gateway.stderr().text());
    // The upstream had what is its own: the credential stays here, the rest is the client's business.
    for seen in origin.seen() {
        let text = seen.head.text();
        for credential in [&key, &wrong, &token] {
            let forwarded = text.contains(credential.as_str());
            assert!(!forwarded || !text.contains("/both/"), "{text}");
        }
    }
}

/// Sends every set of fields to every path, over both protocols; how many requests that were.
async fn ask(gateway: &Gateway, secrets: &Secrets, carried: &[Vec<(&str, String)>]) -> usize {
    let (mut statuses, mut asked) = (Vec::new(), 0);
    let paths = [
        "/a",
        "/small",
        "/late",
        "/nobody",
        "/ill",
        "/both/x",
        "/scoped/x",
        "/once",
        "/%2F",
        "/health",
    ];
    for client in [gateway.client(), gateway.http2_client("secure")] {
        for path in paths {
            for fields in carried {
                let target = format!("{path}?key=CANARY-query");
                let request = client.post(&target, "CANARY-body");
                let request = if path == "/health" { client.get(&target) } else { request };
                let request =
                    fields.iter().fold(request, |all, (name, value)| all.header(name, value));
                let answer = request
                    .header("cookie", "session=CANARY-cookie")
                    .header("referer", "http://a/?CANARY-referer")
                    .header("proxy-authorization", &format!("Basic {BASIC}"))
                    .send()
                    .await;
                statuses.push(answer.status);
                asked += 1;
                let head = format!("{:?}", answer.headers);
                if answer.status != 200 {
                    secrets.are_not_in(&format!("the answer for {path}"), &answer.text());
                }
                secrets.are_not_in(&format!("the head of the answer for {path}"), &head);
            }
        }
        client.request("PUT", "/a?CANARY-query").send().await;
        asked += 1;
    }
    statuses.sort_unstable();
    statuses.dedup();
    assert_eq!(statuses, [200, 400, 401, 403, 413, 429, 502, 503, 504]);
    asked
}

/// Sends heads that are refused before anything is decided.
async fn ask_wrongly(gateway: &Gateway, secrets: &Secrets) {
    for raw in [
        "GET /a?CANARY HTTP/1.1\r\nHost: a\r\nX-API-Key : CANARY\r\n\r\n",
        "GET /a?CANARY HTTP/1.1\r\nHost: CANARY@a\r\nAuthorization: Bearer CANARY\r\n\r\n",
        "GET /a?CANARY#CANARY HTTP/1.1\r\nHost: a\r\n\r\n",
        "CANARY\r\n\r\n",
        "GET http://user:CANARY@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a?CANARY HTTP/9.9\r\nHost: a\r\n\r\n",
        "POST /a?CANARY HTTP/1.1\r\nHost: a\r\nContent-Length: CANARY\r\n\r\n",
        "POST /a?CANARY HTTP/1.1\r\nHost: a\r\nCookie: CANARY\r\nTransfer-Encoding: chunked\r\n\r\nCANARY\r\n",
    ] {
        let mut client = RawClient::connect(gateway.address()).await;
        let answer = client.exchange(raw).await;
        assert!(answer.status() >= 400);
        secrets.are_not_in("the answer to a bad head", &answer.text());
    }
}

/// What the operator's listener says, to who has a token and to who has none.
async fn administrate(gateway: &Gateway, secrets: &Secrets) {
    let admin = Client::new(gateway.admin());
    let pages = [
        "/livez",
        "/readyz",
        "/healthz",
        "/v1/audit",
        "/v1/consumers",
        "/v1/consumers/alice",
        "/v1/consumers/alice/keys",
        "/v1/denials",
        "/v1/keys",
        "/v1/plans",
        "/v1/policies",
        "/v1/usage",
        "/v1/nothing",
        "/nothing?CANARY",
    ];
    for token in [ADMIN, "CANARY-no-such-token-CANARY-no-such-token"] {
        for page in pages {
            let answer = admin.get(page).bearer(token).send().await;
            secrets.are_not_in(&format!("{page}: {}", answer.status), &answer.text());
        }
        let wrong = admin.post("/v1/consumers", "{\"id\": CANARY").bearer(token).send().await;
        secrets.are_not_in("a refusal of what is no JSON", &wrong.text());
    }
}

/// What an operator is told of files that are wrong, and of those that are right.
async fn reload(gateway: &Gateway, secrets: &Secrets) {
    for text in [
        "[auth.jwt.other]\nsecret = \"CANARY-written-into-the-file-itself\"",
        "[auth.jwt.other]\nsecrt = \"CANARY-written-into-the-file-itself\"",
        "[auth.jwt.other]\nsecret = \"env:NOBODY_KNOWS\"\nissuer = \"x\"\n[auth.api_key]\npepper = \"CANARY\"",
        "[auth.api_key]\npepper = \"CANARY\"\n\"\"\"",
        "[admin.tokens.other]\ntoken = \"CANARY-CANARY-CANARY-CANARY-CANARY\"",
        "[store.postgres]\nurl = \"postgres://user:CANARY@nowhere/x?y=z\"",
        "[redis]\nurl = \"rediss://user:CANARY@nowhere:0/x\"",
        "[routes.x]\npath = \"/x\"\nauth = \"none\"\nupstraem = \"u\"\n\
         request_headers = { set = { authorization = \"CANARY\", \"no name\" = \"x\" } }",
    ] {
        gateway.write_conf("more.toml", text);
        let output = gateway.cli(&["check"]);
        assert!(!output.status.success(), "{text}");
        let said = [&output.stdout[..], &output.stderr].concat();
        secrets.are_not_in("what `check` says", &String::from_utf8_lossy(&said));
        assert_eq!(gateway.reload_and_wait().await.result, "failure", "{text}");
    }
    gateway.remove_conf("more.toml");
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    let output = gateway.cli(&["check"]);
    secrets.are_not_in("what `check` says", &String::from_utf8_lossy(&output.stdout));
    for args in [&["keys", "list"][..], &["consumers", "list"], &["audit"], &["plans", "list"]] {
        let output = gateway.cli(args);
        let said = [&output.stdout[..], &output.stderr].concat();
        secrets.are_not_in(&format!("what {args:?} says"), &String::from_utf8_lossy(&said));
    }
}

#[test]
fn a_store_that_cannot_be_reached_keeps_its_password() {
    let builder = Gateway::builder()
        .route("all", "path = \"/*\"\nauth = \"api_key\"\nreply = { body = \"x\" }")
        .env("API_KEY_PEPPER", PEPPER)
        .env("DATABASE_URL", "postgres://user:CANARY-database@127.0.0.1:1/gateway")
        .env("REDIS_URL", "redis://:CANARY-redis@127.0.0.1:1");
    let folder = builder.folder();
    for args in [&["check"][..], &["keys", "list"]] {
        let output = folder.cli(args);
        let said = [&output.stdout[..], &output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!said.contains("CANARY"), "{args:?}: {said}");
    }
}
