//! Who may call, what a refused caller is told, and what upstreams learn of a caller.

use crate::support::client::Answer;
use crate::support::eventually_async;
use crate::support::gateway::{Builder, Gateway, JWT_SECRET, succeed};
use crate::support::origin::Origin;
use serde_json::json;

/// Routes for every way of asking; all lead to `u`.
fn routes(builder: Builder) -> Builder {
    let route = |auth: &str, more: &str| format!("{auth}\nupstream = \"u\"\n{more}");
    [
        ("open", "none", ""),
        ("key", "api_key", ""),
        ("token", "jwt", ""),
        ("either", "both", ""),
        ("scoped", "both", "scopes = [\"orders:read\", \"orders:write\"]"),
        ("scoped_key", "api_key", "scopes = [\"orders:read\"]"),
        ("passed", "both", "forward_credential = true"),
    ]
    .into_iter()
    .fold(
        builder.plan("basic", "1000/s").plan("other", "1000/s"),
        |builder, (name, auth, more)| {
            let auth = match auth {
                "both" => "auth = [\"api_key\", \"jwt\"]".to_owned(),
                one => format!("auth = {one:?}"),
            };
            builder.route(name, &format!("path = \"/{name}/*\"\n{}", route(&auth, more)))
        },
    )
}

async fn before(origin: &Origin) -> Gateway {
    routes(Gateway::builder().tls_listener("secure").upstream("u", &[origin.address()]))
        .toml("[auth.jwt.default]\ndefault_plan = \"other\"")
        .key("alice", "basic")
        .start()
        .await
}

fn challenges(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("www-authenticate").iter().map(|v| v.to_str().unwrap()).collect()
}

const KEY: &str = "ApiKey realm=\"datahub\"";
const TOKEN: &str = "Bearer realm=\"datahub\"";
const BAD_TOKEN: &str = "Bearer realm=\"datahub\", error=\"invalid_token\"";

#[tokio::test]
async fn a_key_opens_the_routes_that_take_keys() {
    let origin = Origin::start().await;
    let gateway = before(&origin).await;
    for client in [gateway.client(), gateway.http2_client("secure")] {
        for path in ["/key/x", "/either/x", "/open/x"] {
            client.get(path).key("alice").send().await.expect_status(200);
        }
        let before = origin.requests();
        client.get("/token/x").key("alice").send().await.expect_status(401);
        client.get("/scoped/x").key("alice").send().await.expect_status(403);
        assert_eq!(origin.requests(), before);
    }
}

#[tokio::test]
async fn a_token_opens_the_routes_that_take_tokens() {
    let origin = Origin::start().await;
    let gateway = before(&origin).await;
    let token = gateway.token("alice");
    for client in [gateway.client(), gateway.http2_client("secure")] {
        for path in ["/token/x", "/either/x", "/open/x"] {
            client.get(path).bearer(&token).send().await.expect_status(200);
            let lower = client.get(path).header("authorization", &format!("bearer  {token}"));
            lower.send().await.expect_status(200);
        }
        let before = origin.requests();
        client.get("/key/x").bearer(&token).send().await.expect_status(401);
        client.get("/scoped/x").bearer(&token).send().await.expect_status(403);
        assert_eq!(origin.requests(), before);
    }
}

#[tokio::test]
async fn nobody_is_told_how_to_say_who_they_are() {
    let origin = Origin::start().await;
    let gateway = before(&origin).await;
    for (path, expected) in
        [("/key/x", &[KEY][..]), ("/token/x", &[TOKEN]), ("/either/x", &[KEY, TOKEN])]
    {
        for (name, value) in [
            ("x-nothing", ""),
            // Neither of these is a credential of ours.
            ("authorization", "Basic YTpi"),
            ("x_api_key", &gateway.key("alice")),
            ("cookie", &format!("x-api-key={}", gateway.key("alice"))),
        ] {
            let refused = gateway.get(path).header(name, value).send().await;
            refused.expect_status(401).expect_code("no_credential");
            assert_eq!(challenges(&refused), expected, "{path} {name}");
            refused.expect_header("cache-control", "no-store");
        }
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn credentials_in_the_query_are_not_read() {
    let origin = Origin::start().await;
    let gateway = before(&origin).await;
    let (key, token) = (gateway.key("alice"), gateway.token("alice"));
    for name in ["api_key", "apikey", "x-api-key", "key"] {
        let refused = gateway.get(&format!("/either/x?{name}={key}")).send().await;
        refused.expect_status(401).expect_code("no_credential");
    }
    for name in ["access_token", "jwt", "token"] {
        let refused = gateway.get(&format!("/either/x?{name}={token}")).send().await;
        refused.expect_status(401).expect_code("no_credential");
    }
    assert_eq!(origin.requests(), 0);
}

/// Everything of a refusal but what differs by request.
fn shape(answer: &Answer) -> (u16, Vec<String>, String) {
    let id = answer.header("x-request-id").unwrap();
    let mut fields: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "x-request-id" | "date"))
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    fields.sort_unstable();
    (answer.status, fields, answer.text().replace(id, "ID"))
}

#[tokio::test]
async fn unknown_malformed_and_revoked_keys_look_alike() {
    let origin = Origin::start().await;
    let gateway = before(&origin).await;
    let good = gateway.key("alice");
    let revoked = gateway.issue_key("alice", "basic", &[]);
    let id = revoked.split('_').nth(2).unwrap().to_owned();
    succeed(&gateway.cli(&["keys", "revoke", &id]));
    let disabled = gateway.issue_key("dora", "basic", &[]);
    succeed(&gateway.cli(&["consumers", "disable", "dora"]));
    let expired = gateway.issue_key("alice", "basic", &["--expires-in", "1s"]);
    let mut asked = 0;
    eventually_async("the key to expire", async || {
        asked += 1;
        let answer = gateway.get("/key/expiring").key(&expired).send().await;
        (answer.status == 401).then_some(())
    })
    .await;
    let reached = origin.requests();
    let elsewhere = routes(Gateway::builder().upstream("u", &[origin.address()]))
        .key("alice", "basic")
        .start()
        .await
        .key("alice");
    let mut typo = good.clone().into_bytes();
    typo[20] = if typo[20] == b'a' { b'b' } else { b'a' };
    let typo = String::from_utf8(typo).unwrap();
    let keys = [
        ("revoked", &*revoked, "revoked"),
        ("disabled", &disabled, "consumer_disabled"),
        ("expired", &expired, "expired"),
        ("unknown", &elsewhere, "unknown"),
        ("typo", &typo, "bad_checksum"),
        ("nonsense", "nonsense", "malformed"),
        ("empty", "", "malformed"),
        ("short", &good[..good.len() - 1], "malformed"),
        ("long", &format!("{good}a"), "malformed"),
    ];
    let mut shapes = Vec::new();
    for (name, key, _) in keys {
        let refused = gateway.get("/either/x").key(key).send().await;
        refused.expect_status(401).expect_code("invalid_key");
        assert!(!refused.text().contains(key) || key.is_empty(), "{name}");
        shapes.push((name, shape(&refused)));
    }
    for (name, shape) in &shapes {
        assert_eq!(shape, &shapes[0].1, "{name}");
    }
    assert_eq!(origin.requests(), reached);
    // The operator sees the difference.
    let logged = gateway.access_log(asked + keys.len()).await;
    for ((name, _, cause), line) in keys.iter().zip(&logged[asked..]) {
        assert_eq!(
            (&line["reason"], &line["cause"]),
            (&json!("invalid_key"), &json!(cause)),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_bad_token_is_told_only_that_it_is_bad() {
    let origin = Origin::start().await;
    let gateway = before(&origin).await;
    let good = gateway.token("alice");
    let (front, _) = good.rsplit_once('.').unwrap();
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.";
    let tokens = [
        gateway.sign_jwt(&json!({ "sub": "alice", "exp": 1_000_000_000 })),
        gateway.sign_jwt(&json!({ "sub": "alice" })),
        gateway.sign_jwt(
            &json!({ "sub": "alice", "exp": 9_999_999_999_u64, "nbf": 9_999_999_998_u64 }),
        ),
        gateway.sign_jwt(&json!({ "sub": "a\nb", "exp": 9_999_999_999_u64 })),
        format!("{front}.{}", "A".repeat(43)),
        unsigned.to_owned(),
        "nonsense".to_owned(),
        String::new(),
    ];
    let mut shapes = Vec::new();
    for token in &tokens {
        let refused = gateway.get("/either/x").bearer(token).send().await;
        refused.expect_status(401).expect_code("invalid_token");
        assert_eq!(challenges(&refused), [BAD_TOKEN], "{token}");
        shapes.push(shape(&refused));
    }
    shapes.dedup();
    assert_eq!(shapes.len(), 1, "{shapes:?}");
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn more_than_one_credential_is_refused() {
    let origin = Origin::start().await;
    let gateway = before(&origin).await;
    let (key, token) = (gateway.key("alice"), gateway.token("alice"));
    let bearer = format!("Bearer {token}");
    let cases: [(&str, &[(&str, &str)]); 6] = [
        ("/either/x", &[("x-api-key", &key), ("authorization", &bearer)]),
        ("/either/x", &[("x-api-key", &key), ("x-api-key", &key)]),
        ("/either/x", &[("authorization", &bearer), ("authorization", &bearer)]),
        ("/key/x", &[("x-api-key", &key), ("x-api-key", "other")]),
        ("/key/x", &[("x-api-key", &key), ("x_api_key", "other")]),
        ("/token/x", &[("authorization", "Basic YTpi"), ("authorization", &bearer)]),
    ];
    for client in [gateway.client(), gateway.http2_client("secure")] {
        for (path, headers) in cases {
            let request = client.get(path);
            let request = headers.iter().fold(request, |r, (name, value)| r.header(name, value));
            let refused = request.send().await;
            refused.expect_status(401).expect_code("ambiguous_credentials");
        }
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_credential_without_the_scopes_of_the_route_is_forbidden() {
    let origin = Origin::start().await;
    let gateway = before(&origin).await;
    let wanted = "Bearer realm=\"datahub\", error=\"insufficient_scope\", \
                  scope=\"orders:read orders:write\"";
    let exp = 9_999_999_999_u64;
    let token = |scope| gateway.sign_jwt(&json!({ "sub": "alice", "exp": exp, "scope": scope }));
    for scope in [json!("orders:read"), json!("orders:readorders:write"), json!([]), json!(null)] {
        if scope.is_null() {
            continue;
        }
        let refused = gateway.get("/scoped/x").bearer(&token(scope)).send().await;
        refused.expect_status(403).expect_code("insufficient_scope");
        assert_eq!(challenges(&refused), [wanted]);
    }
    let reader = gateway.issue_key("alice", "basic", &["--scope", "orders:read"]);
    gateway.get("/scoped/x").key(&reader).send().await.expect_status(403);
    let refused = gateway.get("/scoped_key/x").key("alice").send().await;
    refused.expect_status(403).expect_code("insufficient_scope");
    assert_eq!(challenges(&refused), [""; 0], "no scheme for keys has words for scopes");
    assert_eq!(origin.requests(), 0);

    gateway.get("/scoped_key/x").key(&reader).send().await.expect_status(200);
    for scope in [json!("orders:write x orders:read"), json!(["orders:read", "orders:write"])] {
        gateway.get("/scoped/x").bearer(&token(scope)).send().await.expect_status(200);
    }
    let args = ["--scope", "orders:read", "--scope", "orders:write"];
    let writer = gateway.issue_key("alice", "basic", &args);
    gateway.get("/scoped/x").key(&writer).send().await.expect_status(200);
}

#[tokio::test]
async fn credentials_stop_at_the_gateway_unless_a_route_passes_them_on() {
    let origin = Origin::start().await;
    let gateway = before(&origin).await;
    let (key, token) = (gateway.key("alice"), gateway.token("alice"));
    let bearer = format!("Bearer {token}");
    for client in [gateway.client(), gateway.http2_client("secure")] {
        for path in ["/key/x", "/either/x", "/open/x"] {
            client.get(path).key("alice").send().await.expect_status(200);
            assert!(!origin.last().head.text().contains(&key), "{path}");
        }
        for path in ["/token/x", "/either/x"] {
            client.get(path).bearer(&token).send().await.expect_status(200);
            assert!(!origin.last().head.text().contains(&token), "{path}");
        }
        // A key that the route does not ask for is still nobody's business but ours.
        let both = client.get("/token/x").bearer(&token).key("alice");
        both.header("x_api_key", &key).send().await.expect_status(200);
        assert!(!origin.last().head.text().contains(&key));
        // Without tokens on the route, this belongs to the upstream.
        let own = client.get("/key/x").key("alice").header("authorization", "Basic YTpi");
        own.send().await.expect_status(200);
        assert_eq!(origin.last().head.headers("authorization"), ["Basic YTpi"]);

        client.get("/passed/x").key("alice").send().await.expect_status(200);
        assert_eq!(origin.last().head.headers("x-api-key"), [&*key]);
        client.get("/passed/x").bearer(&token).send().await.expect_status(200);
        assert_eq!(origin.last().head.headers("authorization"), [&*bearer]);
    }
}

/// What a client might claim to be.
const FORGED: [(&str, &str); 12] = [
    ("x-consumer-id", "forged"),
    ("x-consumer-username", "forged"),
    ("x-consumer-custom-id", "forged"),
    ("x-consumer-plan", "forged"),
    ("x-credential-identifier", "forged"),
    ("x-anonymous-consumer", "forged"),
    ("x_consumer_id", "forged"),
    ("x-consumer_username", "forged"),
    ("x_consumer-plan", "forged"),
    ("x_credential_identifier", "forged"),
    ("x_anonymous_consumer", "forged"),
    ("x_consumer_custom_id", "forged"),
];

#[tokio::test]
async fn upstreams_learn_who_calls_from_the_gateway_alone() {
    let origin = Origin::start().await;
    let gateway = before(&origin).await;
    succeed(&gateway.cli(&["consumers", "add", "bob", "--plan", "basic", "--custom-id", "crm-7"]));
    let key = gateway.issue_key("alice", "other", &[]);
    let id = key.split('_').nth(2).unwrap();
    let bob = gateway.token("bob");
    let stranger = gateway.token("stranger");
    for client in [gateway.client(), gateway.http2_client("secure")] {
        for forged in [&FORGED[..], &[]] {
            let ask = |path: &str| {
                forged.iter().fold(client.get(path), |r, (name, value)| r.header(name, value))
            };
            ask("/key/x").key(&key).send().await.expect_status(200);
            let head = origin.last().head;
            assert!(!head.text().contains("forged"), "{}", head.text());
            assert_eq!(head.headers("x-consumer-username"), ["alice"]);
            assert_eq!(head.headers("x-consumer-plan"), ["other"], "the key's own");
            assert_eq!(head.headers("x-credential-identifier"), [id]);
            assert_eq!(head.headers("x-consumer-id").len(), 1);
            assert_eq!(head.header("x-consumer-custom-id"), None);
            assert_eq!(head.header("x-anonymous-consumer"), None);

            ask("/token/x").bearer(&bob).send().await.expect_status(200);
            let head = origin.last().head;
            assert!(!head.text().contains("forged"), "{}", head.text());
            assert_eq!(head.headers("x-consumer-username"), ["bob"]);
            assert_eq!(head.headers("x-consumer-custom-id"), ["crm-7"]);
            assert_eq!(head.headers("x-consumer-plan"), ["basic"]);
            assert_eq!(head.headers("x-credential-identifier"), ["bob"]);

            ask("/token/x").bearer(&stranger).send().await.expect_status(200);
            let head = origin.last().head;
            assert!(!head.text().contains("forged"), "{}", head.text());
            assert_eq!(head.headers("x-consumer-id"), ["jwt:default:stranger"]);
            assert_eq!(head.headers("x-consumer-username"), ["stranger"]);
            assert_eq!(head.headers("x-consumer-plan"), ["other"]);

            // Nobody is asked here, whatever they send.
            ask("/open/x").bearer(&bob).send().await.expect_status(200);
            let head = origin.last().head;
            assert!(!head.text().contains("forged"), "{}", head.text());
            assert_eq!(head.headers("x-anonymous-consumer"), ["true"]);
            assert_eq!(head.header("x-consumer-id"), None);
        }
    }
}

#[tokio::test]
async fn tokens_are_signed_with_the_secret_of_the_environment_or_of_the_generated_file() {
    let origin = Origin::start().await;
    let before = || {
        routes(Gateway::builder().upstream("u", &[origin.address()]))
            .toml("[auth.jwt.default]\ndefault_plan = \"other\"")
    };
    let claims = json!({ "sub": "alice", "exp": 9_999_999_999_u64 });
    let sign = |secret: &[u8]| {
        let key = jsonwebtoken::EncodingKey::from_secret(secret);
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    };
    let gateway = before().start().await;
    gateway.get("/token/x").bearer(&sign(JWT_SECRET.as_bytes())).send().await.expect_status(200);
    assert!(!gateway.folder().join("data/jwt.secret").exists());

    let gateway = before().without_env("JWT_SECRET").start().await;
    let generated = std::fs::read(gateway.folder().join("data/jwt.secret")).unwrap();
    let secret = generated.trim_ascii();
    gateway.get("/token/x").bearer(&sign(secret)).send().await.expect_status(200);
    gateway.get("/token/x").bearer(&sign(JWT_SECRET.as_bytes())).send().await.expect_status(401);
    let said = gateway.stderr().text() + &gateway.stdout().text();
    assert!(!said.contains(std::str::from_utf8(secret).unwrap()));
}
