//! Keys that an issuer publishes at a URL: fetched over TLS beside requests, and never a way to slow the
//! gateway down, to lead it astray, or to lose a request when they change.

use crate::support::client::{Answer, Request};
use crate::support::credential::{base64url, now};
use crate::support::gateway::{Builder, Gateway};
use crate::support::origin::{Behaviour, Origin, Reply, Then};
use crate::support::tls::Authority;
use crate::support::{Stopwatch, eventually, eventually_async};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Value, json};
use std::time::Duration;

/// An identity provider: a server with TLS, and the authority that vouches for it.
struct Provider {
    server: Origin,
    authority: Authority,
}

/// A key that it signs with.
struct Signer {
    kid: String,
    pair: KeyPair,
}

impl Signer {
    fn new(kid: &str) -> Self {
        Self { kid: kid.to_owned(), pair: KeyPair::generate().unwrap() }
    }

    fn jwk(&self) -> Value {
        let spki = self.pair.subject_public_key_info();
        let (x, y) = spki[spki.len() - 64..].split_at(32);
        let (x, y) = (base64url(x), base64url(y));
        json!({ "kty": "EC", "crv": "P-256", "kid": self.kid, "use": "sig", "x": x, "y": y })
    }

    /// A token of `iss` for `acme` that is good for an hour, and `more`.
    fn token_of(&self, iss: &str, more: Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.kid.clone());
        let mut claims = json!({ "iss": iss, "aud": "api", "sub": "acme", "exp": now() + 3600 });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let key = EncodingKey::from_ec_pem(self.pair.serialize_pem().as_bytes()).unwrap();
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }

    fn token(&self) -> String {
        self.token_of("https://id", json!({}))
    }
}

fn set(keys: &[&Signer]) -> Vec<u8> {
    let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
    json!({ "keys": keys }).to_string().into_bytes()
}

impl Provider {
    async fn start(keys: &[&Signer]) -> Self {
        let authority = Authority::new();
        let server = Origin::tls(&authority, &["localhost"]).await;
        let provider = Self { server, authority };
        provider.publish(keys);
        provider
    }

    fn publish(&self, keys: &[&Signer]) {
        let version = keys.iter().map(|key| &*key.kid).collect::<Vec<_>>().join("+");
        let reply = Reply::new(200).header("etag", &format!("\"{version}\"")).body(set(keys));
        self.server.on("/keys", Behaviour::Answer(reply));
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.server.address().port())
    }

    /// A gateway that believes it, in front of `origin`.
    fn gateway(&self, origin: &Origin, more: &str) -> Builder {
        let issuer = self.issuer("idp", "https://id", "/keys");
        before(origin).file("ca.pem", &self.authority.pem()).toml(&format!("{issuer}{more}\n"))
    }

    fn issuer(&self, name: &str, iss: &str, path: &str) -> String {
        format!(
            "[auth.jwt.{name}]\njwks_url = \"{}\"\nissuer = \"{iss}\"\naudiences = [\"api\"]\n\
             ca = \"ca.pem\"\nallow_private = true\ndefault_plan = \"free\"\n",
            self.url(path)
        )
    }
}

fn before(origin: &Origin) -> Builder {
    Gateway::builder()
        .upstream("o", &[origin.address()])
        .route("all", "path = \"/*\"\nauth = [\"jwt\"]\nupstream = \"o\"")
        .route("open", "path = \"/open\"\nauth = \"none\"\nupstream = \"o\"")
        .plan("free", "100000/s")
        .plan("gold", "100000/s")
}

async fn ask(gateway: &Gateway, token: &str) -> Answer {
    gateway.get("/").bearer(token).send().await
}

#[track_caller]
fn expect_unavailable(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 503, "{what}: {}", answer.text());
    answer.expect_code("directory_unavailable");
    assert!(answer.header("retry-after").is_some(), "{what}");
    assert_eq!(answer.header("www-authenticate"), None, "{what}: nobody said that it is not good");
}

#[tokio::test]
async fn keys_rotate_without_a_lost_request_and_a_dropped_one_ends_its_tokens() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let (origin, provider) = (Origin::start().await, Provider::start(&[&old]).await);
    let gateway = provider.gateway(&origin, "refresh = \"10s\"").start().await;
    assert_eq!(provider.server.requests(), 1, "fetched before anybody asked");
    ask(&gateway, &old.token()).await.expect_status(200);

    provider.publish(&[&old, &new]);
    let (fresh, known) = (new.token(), old.token());
    let client = gateway.client();
    let both = (0..40).map(|turn| {
        let token = if turn % 2 == 0 { &fresh } else { &known };
        client.get("/").bearer(token).send()
    });
    for answer in futures_util::future::join_all(both).await {
        answer.expect_status(200);
    }
    assert_eq!(provider.server.requests(), 2, "all waited for one answer");
    let asked = provider.server.last().head;
    assert_eq!(asked.header("if-none-match").as_deref(), Some("\"old\""));
    assert_eq!(asked.header("host"), Some(provider.url("").replace("https://", "")));

    provider.publish(&[&new]);
    eventually_async("the old key to be gone", async || {
        ask(&gateway, &fresh).await.expect_status(200);
        (ask(&gateway, &known).await.status == 401).then_some(())
    })
    .await;
    ask(&gateway, &known).await.expect_code("invalid_token");
    ask(&gateway, &fresh).await.expect_status(200);
}

#[tokio::test]
async fn a_flood_of_unknown_kids_makes_the_gateway_ask_once() {
    let (good, stranger) = (Signer::new("good"), Signer::new("stranger"));
    let (origin, provider) = (Origin::start().await, Provider::start(&[&good]).await);
    let gateway = provider.gateway(&origin, "").start().await;
    let client = gateway.client();
    let flood = (0..300).map(|number| {
        let token = Signer { kid: format!("k{number}"), pair: stranger_pair(&stranger) }.token();
        let client = &client;
        async move { client.get("/").bearer(&token).send().await }
    });
    for answer in futures_util::future::join_all(flood).await {
        answer.expect_status(401).expect_code("invalid_token");
    }
    ask(&gateway, &good.token()).await.expect_status(200);
    assert_eq!(provider.server.requests(), 2, "at the start, and once for all of them");
    assert_eq!(gateway.metrics().await.sum("jwks_fetches_total", &[("result", "set")]), 2.0);
}

fn stranger_pair(signer: &Signer) -> KeyPair {
    KeyPair::from_pem(&signer.pair.serialize_pem()).unwrap()
}

#[tokio::test]
async fn a_provider_that_is_down_costs_its_own_tokens_503_and_nothing_else() {
    let signer = Signer::new("a");
    let (origin, provider) = (Origin::start().await, Provider::start(&[&signer]).await);
    provider.server.kill().await;
    let gateway = provider.gateway(&origin, "").toml("[auth.jwt.default]\ndefault_plan = \"free\"");
    let gateway = gateway.start().await;
    expect_unavailable(&ask(&gateway, &signer.token()).await, "no keys yet");
    ask(&gateway, &gateway.token("acme")).await.expect_status(200);
    gateway.metric_is("jwks_urls", &[("state", "missing")], 1.0).await;

    provider.server.revive().await;
    eventually_async("the keys to come", async || {
        let answer = ask(&gateway, &signer.token()).await;
        if answer.status != 200 {
            expect_unavailable(&answer, "not yet");
        }
        (answer.status == 200).then_some(())
    })
    .await;

    provider.server.kill().await;
    let unknown = Signer::new("b").token();
    eventually_async("a failed question", async || {
        ask(&gateway, &unknown).await;
        let failed = gateway.metrics().await.sum("jwks_urls", &[("state", "stale")]);
        (failed > 0.0).then_some(())
    })
    .await;
    ask(&gateway, &signer.token()).await.expect_status(200);
    expect_unavailable(&ask(&gateway, &unknown).await, "it may be a new key's");
    let told =
        |text: &str| gateway.stderr().all().iter().filter(|line| line.contains(text)).count();
    let (without, with) = ("its tokens get 503 until they are", "those known go on being used");
    eventually("the log to say so", || (told(with) > 0).then_some(())).await;
    assert_eq!((told(without), told(with)), (1, 1), "once, however often it is tried");
}

#[tokio::test]
async fn what_is_no_good_answer_is_none() {
    let signer = Signer::new("a");
    let (origin, provider) = (Origin::start().await, Provider::start(&[&signer]).await);
    let plain = Origin::start().await;
    let huge = format!("{}{}", " ".repeat(256 * 1024), String::from_utf8(set(&[&signer])).unwrap());
    let chunks = vec![b" ".repeat(16 * 1024); 20];
    let redirect = Reply::new(302).header("location", &provider.url("/keys"));
    let cases: Vec<(&str, Behaviour, &str)> = vec![
        ("huge", Behaviour::Answer(Reply::new(200).body(huge)), "larger than 256 KiB"),
        ("chunked", Behaviour::Chunked { chunks, pause: Duration::ZERO }, "larger than 256 KiB"),
        ("redirect", Behaviour::Answer(redirect), "redirect (302 Found)"),
        ("gone", Behaviour::Answer(Reply::new(404).body(set(&[&signer]))), "answers 404"),
        ("broken", Behaviour::Answer(Reply::new(500).body(set(&[&signer]))), "answers 500"),
        ("garbage", Behaviour::Answer(Reply::text("<html>")), "not a JSON object"),
        ("twice", Behaviour::Answer(Reply::text("{\"keys\":[],\"keys\":[]}")), "not a JSON object"),
        ("empty", Behaviour::Answer(Reply::text("{\"keys\":[]}")), "no key of the set can be used"),
        ("half", Behaviour::Half { promised: 1000, sent: 10 }, "breaks off"),
        ("noise", Behaviour::Raw(b"\x16\x03\x01 noise\r\n\r\n".to_vec(), Then::Close), "not HTTP"),
        ("silent", Behaviour::Silent, "no answer within 3 s"),
        ("unasked", Behaviour::Answer(Reply::new(304)), "answers 304"),
    ];
    let mut issuers = String::new();
    for (name, behaviour, _) in &cases {
        provider.server.on(&format!("/{name}"), behaviour.clone());
        issuers += &provider.issuer(name, name, &format!("/{name}"));
    }
    // Others than the authority's, and no TLS at all.
    let trust = provider.issuer("trust", "trust", "/keys").replace("ca = \"ca.pem\"\n", "");
    let port = plain.address().port();
    let plain_text = provider.issuer("plain", "plain", "/keys");
    let plain_text = plain_text.replace(&provider.url(""), &format!("https://localhost:{port}"));

    let clock = Stopwatch::start();
    let gateway = before(&origin)
        .file("ca.pem", &provider.authority.pem())
        .toml(&format!("{issuers}{trust}{plain_text}"))
        .start()
        .await;
    assert!(clock.elapsed() < Duration::from_secs(15), "a start does not wait for everyone");
    let others = [("trust", "no TLS"), ("plain", "no TLS")];
    for (name, reason) in cases.iter().map(|(name, _, reason)| (*name, *reason)).chain(others) {
        expect_unavailable(&ask(&gateway, &signer.token_of(name, json!({}))).await, name);
        let url = if name == "trust" || name == "plain" { "/keys" } else { name };
        let line = eventually(&format!("a line about {name}: {reason}"), || {
            let lines = gateway.stderr().all();
            lines.into_iter().find(|line| line.contains(url) && line.contains(reason))
        })
        .await;
        assert!(line.contains("its tokens get 503 until they are"), "{line}");
    }
    assert!(provider.server.seen().iter().all(|seen| seen.head.target() != "/keys"));
}

#[tokio::test]
async fn a_slow_provider_holds_a_request_for_a_second_and_the_others_not_at_all() {
    let (known, new) = (Signer::new("known"), Signer::new("new"));
    let (origin, provider) = (Origin::start().await, Provider::start(&[&known]).await);
    let gateway = provider.gateway(&origin, "").start().await;
    provider.server.on("/keys", Behaviour::Silent);
    let clock = Stopwatch::start();
    let (new, known) = (new.token(), known.token());
    let (client, other) = (gateway.client(), gateway.client());
    let (slow, fast) = tokio::join!(client.get("/").bearer(&new).send(), async {
        other.get("/").bearer(&known).send().await.expect_status(200);
        clock.elapsed()
    });
    expect_unavailable(&slow, "asked, and not answered");
    let waited = clock.elapsed();
    assert!(waited >= Duration::from_millis(900) && waited < Duration::from_secs(3), "{waited:?}");
    assert!(fast < Duration::from_millis(800), "{fast:?}");
}

/// As a client that would like to be somebody else.
fn forged(request: Request<'_>) -> Request<'_> {
    request.header("x-tenant", "evil").header("X_Tenant", "evil").header("x-level", "9")
}

#[tokio::test]
async fn claims_go_where_the_file_says_and_clients_cannot_say_them() {
    let signer = Signer::new("a");
    let (origin, provider) = (Origin::start().await, Provider::start(&[&signer]).await);
    let more = "plan_claim = \"tier\"\ntypes = [\"JWT\"]\n\
                headers = { \"X-Tenant\" = \"tenant\", \"X-Level\" = \"level\" }";
    let gateway = provider.gateway(&origin, more).start().await;
    let token = |more: Value| signer.token_of("https://id", more);
    let bearer = token(json!({ "tenant": "north", "tier": "gold", "level": 3 }));
    forged(gateway.get("/").bearer(&bearer)).send().await.expect_status(200);
    let head = origin.last().head;
    assert_eq!(head.header("x-tenant").as_deref(), Some("north"));
    assert_eq!(head.header("x-level").as_deref(), Some("3"));
    assert_eq!(head.header("x_tenant"), None);
    assert_eq!(head.header("x-consumer-plan").as_deref(), Some("gold"));

    let plain = token(json!({}));
    forged(gateway.get("/").bearer(&plain)).send().await.expect_status(200);
    let head = origin.last().head;
    assert_eq!((head.header("x-tenant"), head.header("x-level")), (None, None), "not claimed");
    assert_eq!(head.header("x-consumer-plan").as_deref(), Some("free"));

    forged(gateway.get("/open")).send().await.expect_status(200);
    let head = origin.last().head;
    assert_eq!((head.header("x-tenant"), head.header("x_tenant")), (None, None), "on every route");

    for bad in
        [json!("a\r\nX-Admin: 1"), json!("J\u{fc}rgen"), json!(["a"]), json!(null), json!("")]
    {
        let token = token(json!({ "tenant": bad }));
        ask(&gateway, &token).await.expect_status(401).expect_code("invalid_token");
    }
    let token = token(json!({ "tier": "nowhere" }));
    ask(&gateway, &token).await.expect_status(403).expect_code("plan_unknown");
}

#[tokio::test]
async fn keys_survive_a_reload_and_come_with_a_new_issuer() {
    let (first, second) = (Signer::new("first"), Signer::new("second"));
    let (origin, provider) = (Origin::start().await, Provider::start(&[&first]).await);
    let gateway = provider.gateway(&origin, "").start().await;
    ask(&gateway, &first.token()).await.expect_status(200);
    let mut other = first.jwk();
    other["use"] = json!("enc");
    let both = json!({ "keys": [second.jwk(), other] }).to_string();
    provider.server.on("/second", Behaviour::Answer(Reply::text(&both)));
    let asked = provider.server.requests();
    gateway.write_conf("more.toml", &provider.issuer("second", "https://second", "/second"));
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    // The first request waits for the keys, if it has to.
    let token = second.token_of("https://second", json!({}));
    ask(&gateway, &token).await.expect_status(200);
    ask(&gateway, &first.token()).await.expect_status(200);
    let told = eventually("a line about the other key", || {
        let lines = gateway.stderr().all();
        lines.into_iter().find(|line| line.contains("some keys of an issuer are not used"))
    })
    .await;
    assert!(told.contains("key 2 (`first`): its `use` is not `sig`"), "{told}");
    let again = provider.server.seen().into_iter().skip(asked);
    assert!(again.into_iter().all(|seen| seen.head.target() == "/second"), "the first are kept");
}

#[tokio::test]
async fn secrets_rotate_by_name_and_a_removed_one_ends_its_tokens() {
    let origin = Origin::start().await;
    let [old, new] = ["old-secret", "new-secret"].map(|name| name.repeat(4));
    let table = |secrets: &str| {
        format!("[auth.jwt.own]\nissuer = \"own\"\ndefault_plan = \"free\"\nsecrets = {secrets}\n")
    };
    let gateway = before(&origin)
        .env("OLD", &old)
        .env("NEW", &new)
        .file("own.toml", &table("{ old = \"env:OLD\" }"))
        .start()
        .await;
    let token = |kid: Option<&str>, secret: &str| {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = kid.map(str::to_owned);
        let claims = json!({ "iss": "own", "sub": "acme", "exp": now() + 3600 });
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret.as_bytes()))
            .unwrap()
    };
    let tokens = [token(Some("old"), &old), token(Some("new"), &new), token(None, &new)];
    let statuses = async || {
        let mut statuses = Vec::new();
        for token in &tokens {
            statuses.push(ask(&gateway, token).await.status);
        }
        statuses
    };
    assert_eq!(statuses().await, [200, 401, 401]);
    for (secrets, expected) in [
        ("{ old = \"env:OLD\", new = \"env:NEW\" }", [200, 200, 200]),
        ("{ new = \"env:NEW\" }", [401, 200, 200]),
    ] {
        gateway.write_conf("own.toml", &table(secrets));
        assert_eq!(gateway.reload_and_wait().await.result, "success");
        assert_eq!(statuses().await, expected, "{secrets}");
    }
}

#[tokio::test]
async fn keys_in_files_are_read_anew_when_they_change() {
    let (first, second) = (Signer::new("first"), Signer::new("second"));
    let origin = Origin::start().await;
    let text = |signer: &Signer| String::from_utf8(set(&[signer])).unwrap();
    let table = |name: &str, key: &str| {
        format!(
            "[auth.jwt.{name}]\n{key}\nissuer = \"{name}\"\naudiences = [\"api\"]\n\
             default_plan = \"free\"\n"
        )
    };
    let gateway = before(&origin)
        .file("keys.json", &text(&first))
        .file("id.pem", &first.pair.public_key_pem())
        .toml(&table("set", "jwks = \"file:keys.json\""))
        .toml(&table("pem", "public_key = \"file:id.pem\""))
        .start()
        .await;
    for issuer in ["set", "pem"] {
        ask(&gateway, &first.token_of(issuer, json!({}))).await.expect_status(200);
        ask(&gateway, &second.token_of(issuer, json!({}))).await.expect_status(401);
    }
    let before = gateway.metrics().await;
    gateway.write_conf("keys.json", &text(&second));
    gateway.reloaded_since(&before).await;
    ask(&gateway, &first.token_of("set", json!({}))).await.expect_status(401);
    ask(&gateway, &second.token_of("set", json!({}))).await.expect_status(200);
    ask(&gateway, &first.token_of("pem", json!({}))).await.expect_status(200);
}
