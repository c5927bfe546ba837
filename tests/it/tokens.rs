//! Tokens: believed for what their issuer signed and for no longer than it says, and never able to
//! say more to an upstream than a name.

use crate::support::client::Answer;
use crate::support::credential::{base64url, forged, now, token};
use crate::support::gateway::{Builder, Gateway, JWT_SECRET, succeed};
use crate::support::load::Load;
use crate::support::origin::Origin;
use crate::support::{eventually, eventually_async, sized};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use std::time::Duration;

/// Everything goes to `origin` with a token; what the issuer's table says besides its name.
fn described(origin: &Origin, issuer: &str) -> Builder {
    Gateway::builder()
        .upstream("o", &[origin.address()])
        .route("all", "path = \"/*\"\nauth = [\"jwt\"]\nupstream = \"o\"")
        .plan("free", "100000/s")
        .plan("trial", "100000/s")
        .toml(&format!("[auth.jwt.default]\n{issuer}\n"))
}

/// Claims of `acme` that are good for an hour, and `more`.
fn claims(more: Value) -> Value {
    let mut claims = json!({ "sub": "acme", "exp": now() + 3600 });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

/// HS256 under the secret in force.
fn signed(claims: &Value) -> String {
    token(claims, Algorithm::HS256, JWT_SECRET.as_bytes())
}

/// What the access log says of each refusal so far, in order.
async fn causes(gateway: &Gateway, lines: usize) -> Vec<String> {
    let log = gateway.access_log(lines).await;
    log.iter().filter_map(|line| Some(line["cause"].as_str()?.to_owned())).collect()
}

#[track_caller]
fn expect_invalid(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 401, "{what}: {}", answer.text());
    answer.expect_code("invalid_token");
    answer.expect_header("www-authenticate", "Bearer realm=\"datahub\", error=\"invalid_token\"");
}

#[tokio::test]
async fn a_token_of_the_issuer_is_believed_and_tells_the_upstream_who_calls() {
    let origin = Origin::start().await;
    let gateway = described(&origin, "").start().await;
    let added = gateway.cli(&["consumers", "add", "acme", "--plan", "free", "--json"]);
    let added: Value = serde_json::from_str(&succeed(&added)).unwrap();
    let token = signed(&claims(json!({ "scope": "a b" })));
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let answer = gateway.get("/").header("authorization", &format!("{scheme} {token}"));
        answer.send().await.expect_status(200);
        let head = origin.last().head;
        assert_eq!(head.header("x-consumer-id").unwrap(), added["id"]);
        assert_eq!(head.header("x-consumer-username").as_deref(), Some("acme"));
        assert_eq!(head.header("x-consumer-plan").as_deref(), Some("free"));
        assert_eq!(head.header("x-credential-identifier").as_deref(), Some("acme"));
        assert_eq!(head.header("authorization"), None, "the token stays here");
    }
    let line = gateway.access_log(3).await.pop().unwrap();
    assert_eq!(
        (&line["credential"], &line["consumer"]),
        (&json!("jwt:default/acme"), &added["id"])
    );
}

#[tokio::test]
async fn what_the_issuer_did_not_sign_is_refused() {
    let origin = Origin::start().await;
    let gateway = described(&origin, "default_plan = \"trial\"").start().await;
    let secret = JWT_SECRET.as_bytes();
    let (header, body) = (r#"{"alg":"HS256"}"#, claims(json!({})).to_string());
    let good = forged(header, &body, secret);
    gateway.get("/").bearer(&good).send().await.expect_status(200);

    let part = |text: &str| base64url(text.as_bytes());
    let unsigned = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&body));
    let signature = good.rsplit_once('.').unwrap().1;
    let admin = body.replace("acme", "admin");
    let cases: &[(&str, &str, String)] = &[
        ("no algorithm", "wrong_algorithm", unsigned.clone()),
        ("no algorithm, signed", "wrong_algorithm", format!("{unsigned}{signature}")),
        ("None", "wrong_algorithm", forged(r#"{"alg":"None"}"#, &body, secret)),
        ("another hash", "wrong_algorithm", token(&claims(json!({})), Algorithm::HS512, secret)),
        ("a public key's name", "wrong_algorithm", forged(r#"{"alg":"RS256"}"#, &body, secret)),
        ("no alg", "wrong_algorithm", forged(r#"{"typ":"JWT"}"#, &body, secret)),
        ("two algs", "malformed", forged(r#"{"alg":"HS256","alg":"none"}"#, &body, secret)),
        ("crit", "unsupported_header", forged(r#"{"alg":"HS256","crit":["x"]}"#, &body, secret)),
        ("other claims", "bad_signature", format!("{}.{}.{signature}", part(header), part(&admin))),
        ("no signature", "bad_signature", format!("{}.{}.", part(header), part(&body))),
        ("another secret", "bad_signature", forged(header, &body, &[b'x'; 44])),
        ("the empty secret", "bad_signature", forged(header, &body, b"")),
        ("padding", "malformed", format!("{good}=")),
        ("four parts", "malformed", format!("{good}.{signature}")),
        ("no parts", "malformed", "token".to_owned()),
        ("nothing", "malformed", String::new()),
        ("too long", "too_long", format!("{good}{}", "A".repeat(9000))),
    ];
    for (what, _, token) in cases {
        expect_invalid(&gateway.get("/").bearer(token).send().await, what);
    }
    let expected: Vec<_> = cases.iter().map(|(_, cause, _)| *cause).collect();
    assert_eq!(causes(&gateway, cases.len() + 1).await, expected);
    assert_eq!(origin.requests(), 1);
    gateway.get("/").bearer(&good).send().await.expect_status(200);
}

#[tokio::test]
async fn what_the_issuer_signed_for_others_or_for_another_time_is_refused() {
    let origin = Origin::start().await;
    let issuer = "issuer = \"https://id.example.com\"\naudiences = [\"api\", \"web\"]\n\
                  leeway = \"5s\"\ndefault_plan = \"trial\"";
    let gateway = described(&origin, issuer).start().await;
    let ours = |more: Value| {
        let mut all = claims(json!({ "iss": "https://id.example.com", "aud": "api" }));
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        signed(&all)
    };
    let without = |name: &str| {
        let mut all = claims(json!({ "iss": "https://id.example.com", "aud": "api" }));
        all.as_object_mut().unwrap().remove(name);
        signed(&all)
    };
    let t = now();
    for good in [
        json!({}),
        json!({ "aud": ["other", "web"] }),
        json!({ "exp": t - 1, "nbf": t + 3 }),
        json!({ "exp": t + 3600, "iat": t - 5 }),
    ] {
        let answer = gateway.get("/").bearer(&ours(good.clone())).send().await;
        assert_eq!(answer.status, 200, "{good}");
    }
    let cases = [
        ("expired", ours(json!({ "exp": t - 6 }))),
        ("expired", ours(json!({ "exp": 0 }))),
        ("no_expiry", without("exp")),
        ("not_yet_valid", ours(json!({ "nbf": t + 60 }))),
        ("wrong_issuer", ours(json!({ "iss": "https://evil.example.com" }))),
        ("wrong_issuer", without("iss")),
        ("wrong_audience", ours(json!({ "aud": "admin" }))),
        ("wrong_audience", ours(json!({ "aud": [] }))),
        ("wrong_audience", without("aud")),
        ("no_consumer_claim", without("sub")),
        ("malformed", ours(json!({ "exp": "soon" }))),
    ];
    for (cause, token) in &cases {
        expect_invalid(&gateway.get("/").bearer(token).send().await, cause);
    }
    let expected: Vec<_> = cases.iter().map(|(cause, _)| *cause).collect();
    assert_eq!(causes(&gateway, 4 + cases.len()).await, expected);
}

#[tokio::test]
async fn strangers_are_let_in_on_the_default_plan_only_and_are_known_by_their_claim() {
    let origin = Origin::start().await;
    let issuer = "consumer_claim = \"client_id\"\nscopes_claim = \"scp\"";
    let gateway = described(&origin, issuer)
        .route(
            "orders",
            "path = \"/orders\"\nauth = [\"jwt\"]\nscopes = [\"read\"]\nupstream = \"o\"",
        )
        .key("shop", "free")
        .start()
        .await;
    let of = |id: &str, scopes: Value| {
        signed(&claims(json!({ "client_id": id, "scp": scopes, "scope": "read" })))
    };
    gateway.get("/").bearer(&of("shop", json!([]))).send().await.expect_status(200);
    let head = origin.last().head;
    assert_eq!(head.header("x-consumer-username").as_deref(), Some("shop"));
    assert_eq!(head.header("x-credential-identifier").as_deref(), Some("acme"), "the subject");
    expect_invalid(&gateway.get("/").bearer(&of("stranger", json!([]))).send().await, "stranger");
    for (scopes, status) in [
        (json!(["read", "write"]), 200),
        (json!("write read"), 200),
        (json!("reader"), 403),
        (json!([]), 403),
    ] {
        let answer = gateway.get("/orders").bearer(&of("shop", scopes.clone())).send().await;
        answer.expect_status(status);
        if status == 403 {
            answer.expect_code("insufficient_scope").expect_header(
                "www-authenticate",
                "Bearer realm=\"datahub\", error=\"insufficient_scope\", scope=\"read\"",
            );
        }
    }

    let conf = gateway.read_conf("gateway.toml");
    let open =
        conf.replace("[auth.jwt.default]\n", "[auth.jwt.default]\ndefault_plan = \"trial\"\n");
    gateway.write_conf("gateway.toml", &open);
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    gateway.get("/").bearer(&of("stranger", json!([]))).send().await.expect_status(200);
    let head = origin.last().head;
    assert_eq!(head.header("x-consumer-id").as_deref(), Some("jwt:default:stranger"));
    assert_eq!(head.header("x-consumer-plan").as_deref(), Some("trial"));
    // Known consumers keep their own plan, and disabled ones are not strangers.
    gateway.get("/").bearer(&of("shop", json!([]))).send().await.expect_status(200);
    assert_eq!(origin.last().head.header("x-consumer-plan").as_deref(), Some("free"));
    succeed(&gateway.cli(&["consumers", "disable", "shop"]));
    eventually_async("the consumer to be refused", async || {
        (gateway.get("/").bearer(&of("shop", json!([]))).send().await.status == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_token_that_was_believed_ends_when_it_says() {
    let origin = Origin::start().await;
    let gateway = described(&origin, "default_plan = \"trial\"\nleeway = \"0s\"").start().await;
    let end = now() + 2;
    let brief = signed(&json!({ "sub": "acme", "exp": end }));
    let running = Load::on(gateway.address())
        .header("authorization", &format!("Bearer {brief}"))
        .rate(200)
        .start();
    eventually("the token to end", || running.so_far().statuses().contains_key(&401).then_some(()))
        .await;
    let ended = now();
    assert!(ended >= end, "{ended} is before {end}");
    assert!(ended <= end + 2, "{ended} is long after {end}");
    let at = running.elapsed();
    running.goes_on(40).await;
    let summary = running.stop().await;
    summary.between(at, Duration::MAX).expect_only(401);
    assert!(summary.statuses()[&200] > 20, "{summary:?}");
    let cause = gateway.access_log(summary.total()).await.pop().unwrap()["cause"].clone();
    assert_eq!(cause, "expired");
}

#[tokio::test]
async fn a_reload_that_changes_the_secret_ends_what_was_signed_with_the_old_one() {
    let origin = Origin::start().await;
    let folder = described(&origin, "default_plan = \"trial\"\nsecret = \"file:../own.secret\"");
    let folder = folder.folder();
    let path = folder.path().join("own.secret");
    let secrets = [[b'a'; 44], [b'b'; 44]];
    crate::support::secret::write(&path, &secrets[0]);
    let gateway = folder.start().await;
    let tokens = secrets.map(|secret| token(&claims(json!({})), Algorithm::HS256, &secret));
    let statuses = async || {
        let mut statuses = Vec::new();
        for token in &tokens {
            statuses.push(gateway.get("/").bearer(token).send().await.status);
        }
        statuses
    };
    for _ in 0..sized(2, 20) {
        for (secret, expected) in [(0, [200, 401]), (1, [401, 200])] {
            // The file is watched: nobody has to say that it changed.
            crate::support::secret::write(&path, &secrets[secret]);
            eventually_async("the secret to be taken", async || {
                (statuses().await == expected).then_some(())
            })
            .await;
            for _ in 0..5 {
                assert_eq!(statuses().await, expected);
            }
        }
    }
    // What the new issuer says takes effect on what was believed under the old one.
    let conf = gateway.read_conf("gateway.toml");
    let strict =
        conf.replace("[auth.jwt.default]\n", "[auth.jwt.default]\naudiences = [\"api\"]\n");
    gateway.write_conf("gateway.toml", &strict);
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    assert_eq!(statuses().await, [401, 401]);
}

#[tokio::test]
async fn a_claim_cannot_say_more_to_an_upstream_than_a_name() {
    let origin = Origin::start().await;
    let gateway = described(&origin, "default_plan = \"trial\"").start().await;
    let http2 = described(&origin, "default_plan = \"trial\"").tls_listener("secure").start().await;
    let long = "a".repeat(256);
    let names = [
        ("a\r\nx-admin: 1", 401),
        ("a\nx-admin: 1", 401),
        ("a\rx-admin: 1", 401),
        ("a\r\n\r\nGET /admin HTTP/1.1\r\nhost: o\r\n\r\n", 401),
        ("a\u{0}b", 401),
        ("a\u{7f}b", 401),
        ("a\u{85}b", 401),
        ("a\u{2028}b", 401),
        ("a\tb", 401),
        ("", 401),
        (" a", 401),
        ("a ", 401),
        (&*(long.clone() + "a"), 401),
        ("J\u{fc}rgen", 401),
        ("\u{416}\u{416}", 401),
        ("\u{202e}nimda", 401),
        (&long, 200),
        ("a b", 200),
        ("auth0|5f7c8ec7c33c6c004bbafe82", 200),
        ("a,b; c=\"d\" %0d%0a \\r\\n", 200),
    ];
    for (name, status) in names {
        let token = signed(&json!({ "sub": name, "exp": now() + 3600 }));
        let (before, secure) = (origin.requests(), http2.http2_client("secure"));
        for request in [gateway.get("/").bearer(&token), secure.get("/").bearer(&token)] {
            let answer = request.send().await;
            assert_eq!(answer.status, status, "{name:?}: {}", answer.text());
        }
        assert_eq!(origin.requests() - before, if status == 200 { 2 } else { 0 }, "{name:?}");
        if status == 200 {
            let head = origin.last().head;
            assert_eq!(head.headers("x-consumer-username"), [name]);
            assert_eq!(head.headers("x-credential-identifier"), [name]);
            assert_eq!(head.header("x-admin"), None);
        }
    }
    assert!(origin.seen().iter().all(|seen| seen.head.target() == "/"));
    // Each line of the log is still one line of JSON.
    let log = gateway.access_log(names.len()).await;
    assert!(log.iter().all(|line| line["status"].is_u64()));
}

#[tokio::test]
async fn a_subject_beside_the_consumers_name_is_held_to_the_same() {
    let origin = Origin::start().await;
    let issuer = "consumer_claim = \"client_id\"\ndefault_plan = \"trial\"";
    let gateway = described(&origin, issuer).start().await;
    for (subject, status) in [
        (json!("a\r\nx-admin: 1"), 401),
        (json!("J\u{fc}rgen"), 401),
        (json!(7), 401),
        (json!("a"), 200),
    ] {
        let token = signed(&json!({ "sub": subject, "client_id": "shop", "exp": now() + 3600 }));
        let answer = gateway.get("/").bearer(&token).send().await;
        assert_eq!(answer.status, status, "{subject}: {}", answer.text());
    }
    // Without a subject, the consumer is its own.
    let token = signed(&json!({ "client_id": "shop", "exp": now() + 3600 }));
    gateway.get("/").bearer(&token).send().await.expect_status(200);
    assert_eq!(origin.last().head.header("x-credential-identifier").as_deref(), Some("shop"));
}
