//! From headers to callers, against a store that answers on command.

use super::directory::{Directory, KeyRecord};
use super::fake::{CLIENT, FakeSource, Mood, api_keys, at};
use super::*;
use crate::telemetry::Clock;
use http::{HeaderMap, HeaderName, HeaderValue};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const SECRET: &[u8] = b"the secret of the issuer, 32 bytes";

fn secret(secret: &[u8]) -> IssuerKeys {
    let key = Key::secret(None, Algorithm::Hs256, secret).unwrap();
    IssuerKeys::Given(Arc::new(KeySet::new(vec![key])))
}

struct Lab {
    source: Arc<FakeSource>,
    directory: Arc<Directory>,
    tokens: Arc<TokenCache>,
    clock: Clock,
}

impl Lab {
    fn new() -> Self {
        let (source, clock) = (Arc::new(FakeSource::default()), Clock::manual());
        let directory = Arc::new(Directory::new(Arc::<FakeSource>::clone(&source), clock.clone()));
        Self { source, directory, tokens: Arc::new(TokenCache::new(1000)), clock }
    }

    fn authenticator(&self, change: impl FnOnce(&mut JwtIssuer)) -> Authenticator {
        let mut issuer = JwtIssuer {
            name: "default".into(),
            keys: secret(SECRET),
            issuer: None,
            audiences: Vec::new(),
            types: Vec::new(),
            leeway: Duration::from_secs(10),
            consumer_claim: "sub".into(),
            scopes_claim: "scope".into(),
            plan_claim: None,
            default_plan: None,
            headers: Vec::new(),
        };
        change(&mut issuer);
        Authenticator::new(
            api_keys(),
            vec![Arc::new(issuer)],
            Arc::clone(&self.directory),
            Arc::clone(&self.tokens),
            &RemoteKeySets::new(self.clock.clone()),
            self.clock.clone(),
        )
    }

    fn token(&self, subject: &str, lifetime: u64, scope: &str) -> String {
        let exp = self.clock.unix_time().as_secs() + lifetime;
        let claims = json!({ "sub": subject, "exp": exp, "scope": scope });
        let key = EncodingKey::from_secret(SECRET);
        jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
    }
}

fn required(methods: &[Method], scopes: &[&str]) -> Requirement {
    Requirement::Required {
        methods: methods.to_vec(),
        scopes: scopes.iter().map(|scope| Arc::from(*scope)).collect(),
    }
}

fn both() -> Requirement {
    required(&[Method::ApiKey, Method::Jwt], &[])
}

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    map
}

fn bearer(token: &str) -> HeaderMap {
    headers(&[("authorization", &format!("Bearer {token}"))])
}

/// The username, or the reason.
async fn identify(
    authenticator: &Authenticator,
    requirement: &Requirement,
    headers: &HeaderMap,
) -> Result<String, &'static str> {
    match authenticator.identify(requirement, headers, CLIENT).await {
        Ok(None) => Ok("anyone".to_owned()),
        Ok(Some(caller)) => Ok(caller.consumer.username.to_string()),
        Err(denied) => Err(denied.reason()),
    }
}

/// What is tried, on which route, with which headers, and how it ends.
type Attempt<'a> = (&'a str, &'a Requirement, &'a [(&'a str, &'a str)], Result<&'a str, &'a str>);

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn a_credential_is_found_where_the_route_looks_for_it() {
    let lab = Lab::new();
    let authenticator = lab.authenticator(|_| {});
    let (plain, _) = lab.source.add_key("alice", |_| {});
    lab.source.add_consumer("bob", |_| {});
    let (key, token) = (plain.reveal(), lab.token("bob", 60, ""));
    let with = |scheme: &str| format!("{scheme}{token}");
    let (bearer, small, wide) = (with("Bearer "), with("bearer "), with("BEARER   "));
    let (glued, odd, twice) = (with("Bearer"), with("Bearers "), format!("Bearer {token} {token}"));
    let (keys, jwt) = (required(&[Method::ApiKey], &[]), required(&[Method::Jwt], &[]));
    let twin = ("x_api_key", "whatever");
    let table: &[Attempt<'_>] = &[
        ("an open route", &Requirement::Open, &[], Ok("anyone")),
        ("an open route, bad key", &Requirement::Open, &[("x-api-key", "bad")], Ok("anyone")),
        ("nothing", &both(), &[], Err("no_credential")),
        ("a key", &both(), &[("x-api-key", key)], Ok("alice")),
        ("a key by another spelling", &both(), &[("X-API-Key", key)], Ok("alice")),
        ("a token", &both(), &[("authorization", &bearer)], Ok("bob")),
        ("a scheme in small letters", &both(), &[("authorization", &small)], Ok("bob")),
        ("more spaces", &both(), &[("authorization", &wide)], Ok("bob")),
        ("both", &both(), &[("x-api-key", key), ("authorization", &bearer)], Err("key_and_token")),
        (
            "both, the token broken",
            &both(),
            &[("x-api-key", key), ("authorization", "Bearer x")],
            Err("key_and_token"),
        ),
        (
            "a key beside Basic",
            &both(),
            &[("x-api-key", key), ("authorization", "Basic eA==")],
            Ok("alice"),
        ),
        ("two keys", &both(), &[("x-api-key", key), ("x-api-key", key)], Err("repeated_header")),
        (
            "two tokens",
            &both(),
            &[("authorization", &bearer), ("authorization", &bearer)],
            Err("repeated_header"),
        ),
        (
            "a token and Basic",
            &jwt,
            &[("authorization", "Basic eA=="), ("authorization", &bearer)],
            Err("repeated_header"),
        ),
        ("Basic", &jwt, &[("authorization", "Basic eA==")], Err("no_credential")),
        ("a longer scheme", &jwt, &[("authorization", &odd)], Err("no_credential")),
        ("a scheme without a space", &jwt, &[("authorization", &glued)], Err("no_credential")),
        ("a scheme alone", &jwt, &[("authorization", "Bearer")], Err("malformed")),
        ("two tokens in one", &jwt, &[("authorization", &twice)], Err("malformed")),
        ("a key as token", &jwt, &[("authorization", &format!("Bearer {key}"))], Err("malformed")),
        ("a token as key", &keys, &[("x-api-key", &token)], Err("malformed")),
        ("a key where tokens are asked", &jwt, &[("x-api-key", key)], Err("no_credential")),
        (
            "a token where keys are asked",
            &keys,
            &[("authorization", &bearer)],
            Err("no_credential"),
        ),
        (
            "a key, and the upstream's own token",
            &keys,
            &[("x-api-key", key), ("authorization", "Bearer of-the-upstream")],
            Ok("alice"),
        ),
        ("only the twin", &keys, &[("x_api_key", key)], Err("no_credential")),
        ("a key and its twin", &keys, &[("x-api-key", key), twin], Err("underscore_twin")),
        ("a half twin", &keys, &[("x-api-key", key), ("x-api_key", key)], Err("underscore_twin")),
        (
            "a twin in capitals",
            &keys,
            &[("x-api-key", key), ("X_API_KEY", key)],
            Err("underscore_twin"),
        ),
        ("an empty key", &keys, &[("x-api-key", "")], Err("malformed")),
    ];
    for (name, requirement, fields, expected) in table {
        let found = identify(&authenticator, requirement, &headers(fields)).await;
        assert_eq!(found.as_deref(), expected.as_ref().copied(), "{name}");
    }
}

/// What is wrong with a key, how it got so, and what the log says.
type Flaw = (&'static str, Box<dyn FnOnce(&mut KeyRecord)>, &'static str);

#[tokio::test]
async fn a_bad_key_is_refused_and_only_the_log_knows_why() {
    let lab = Lab::new();
    let authenticator = lab.authenticator(|_| {});
    let now = lab.clock.unix_time().as_secs();
    let disabled = |key: &mut KeyRecord| {
        let consumer = Consumer { enabled: false, ..(*key.consumer).clone() };
        key.consumer = Arc::new(consumer);
    };
    let table: Vec<Flaw> = vec![
        ("revoked", Box::new(move |key| key.revoked_at = at(now)), "revoked"),
        ("revoked, later", Box::new(move |key| key.revoked_at = at(now + 9)), "revoked"),
        ("at its end", Box::new(move |key| key.expires_at = at(now)), "expired"),
        ("before its begin", Box::new(move |key| key.not_before = at(now + 1)), "not_yet_valid"),
        ("of a disabled consumer", Box::new(disabled), "consumer_disabled"),
        (
            "with another digest",
            Box::new(|key| key.digest = api_key::KeyDigest::from_bytes([7; 32])),
            "wrong_secret",
        ),
        (
            "revoked, with another digest",
            Box::new(move |key| {
                key.digest = api_key::KeyDigest::from_bytes([7; 32]);
                key.revoked_at = at(now);
            }),
            "wrong_secret",
        ),
        (
            "of another pepper",
            Box::new(|key| {
                key.digest = api_key::KeyDigest::from_bytes([7; 32]);
                key.pepper = api_key::PepperVersion::from_u32(1);
            }),
            "other_pepper",
        ),
    ];
    for (name, change, reason) in table {
        let (plain, _) = lab.source.add_key("alice", change);
        let fields = headers(&[("x-api-key", plain.reveal())]);
        for _ in 0..2 {
            let denied = authenticator.identify(&both(), &fields, CLIENT).await.unwrap_err();
            assert_eq!(denied.reason(), reason, "{name}");
            assert_eq!(denied.to_string(), "the credential is not valid", "{name}");
        }
    }
    let (plain, id) = lab.source.add_key("alice", |_| {});
    lab.source.keys.lock().remove(&id);
    let fields = headers(&[("x-api-key", plain.reveal())]);
    assert_eq!(identify(&authenticator, &both(), &fields).await, Err("unknown"));
}

#[tokio::test]
async fn a_key_ends_on_time_though_it_is_cached() {
    let lab = Lab::new();
    let authenticator = lab.authenticator(|_| {});
    let now = lab.clock.unix_time().as_secs();
    let (plain, _) = lab.source.add_key("alice", |key| {
        key.not_before = at(now + 1);
        key.expires_at = at(now + 3);
    });
    let fields = headers(&[("x-api-key", plain.reveal())]);
    for expected in
        [Err("not_yet_valid"), Ok("alice".to_owned()), Ok("alice".to_owned()), Err("expired")]
    {
        assert_eq!(identify(&authenticator, &both(), &fields).await, expected);
        lab.clock.advance(Duration::from_secs(1));
    }
}

#[tokio::test]
async fn malformed_credentials_never_reach_the_store() {
    let lab = Lab::new();
    let authenticator = lab.authenticator(|_| {});
    let (plain, _) = lab.source.add_key("alice", |_| {});
    let typo = plain.reveal().replace("dh_test", "dh_tset");
    for value in ["", "x", "dh_test_0_0", typo.as_str()] {
        let fields = headers(&[("x-api-key", value)]);
        assert!(authenticator.identify_cached(&both(), &fields, CLIENT).unwrap().is_err());
    }
    assert!(authenticator.identify(&both(), &bearer("a.b.c"), CLIENT).await.is_err());
    assert_eq!(lab.source.asked(), 0);
}

#[tokio::test]
async fn the_second_request_is_answered_from_what_is_at_hand() {
    let lab = Lab::new();
    let authenticator = lab.authenticator(|_| {});
    let (plain, _) = lab.source.add_key("alice", |_| {});
    lab.source.add_consumer("bob", |_| {});
    let sent = [headers(&[("x-api-key", plain.reveal())]), bearer(&lab.token("bob", 60, ""))];
    for fields in sent {
        assert!(authenticator.identify_cached(&both(), &fields, CLIENT).is_none());
        let first = authenticator.identify(&both(), &fields, CLIENT).await.unwrap().unwrap();
        let again =
            authenticator.identify_cached(&both(), &fields, CLIENT).unwrap().unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &again), "the very same caller");
    }
    assert_eq!(lab.source.asked(), 2);
}

#[tokio::test]
async fn an_outage_is_503_for_strangers_and_nothing_for_friends() {
    let lab = Lab::new();
    let authenticator = lab.authenticator(|_| {});
    let (known, _) = lab.source.add_key("alice", |_| {});
    let (unknown, _) = lab.source.add_key("bob", |_| {});
    let token = lab.token("alice", 3600, "");
    let (known, unknown) =
        (headers(&[("x-api-key", known.reveal())]), headers(&[("x-api-key", unknown.reveal())]));
    for fields in [&known, &bearer(&token)] {
        assert_eq!(identify(&authenticator, &both(), fields).await.unwrap(), "alice");
    }
    lab.source.set_mood(Mood::Fails);
    lab.clock.advance(Duration::from_secs(60));
    for fields in [&known, &bearer(&token)] {
        assert_eq!(identify(&authenticator, &both(), fields).await.unwrap(), "alice");
    }
    for fields in [&unknown, &bearer(&lab.token("bob", 60, ""))] {
        let denied = authenticator.identify(&both(), fields, CLIENT).await.unwrap_err();
        assert!(matches!(denied, Denied::Unavailable(Outage::Failed)), "{denied:?}");
    }
}

#[tokio::test]
async fn a_cached_token_still_ends_and_is_void_under_other_issuers() {
    let lab = Lab::new();
    lab.source.add_consumer("bob", |_| {});
    let authenticator = lab.authenticator(|_| {});
    let token = lab.token("bob", 20, "");
    assert_eq!(identify(&authenticator, &both(), &bearer(&token)).await.unwrap(), "bob");
    assert_eq!(lab.tokens.len(), 1);

    let same = lab.authenticator(|_| {});
    assert!(same.identify_cached(&both(), &bearer(&token), CLIENT).is_some(), "nothing changed");
    let rotated = lab.authenticator(|issuer| issuer.keys = secret(b"another secret"));
    assert_eq!(identify(&rotated, &both(), &bearer(&token)).await, Err("bad_signature"));
    let strict = lab.authenticator(|issuer| issuer.audiences = vec!["api".to_owned()]);
    assert_eq!(identify(&strict, &both(), &bearer(&token)).await, Err("wrong_audience"));

    lab.clock.advance(Duration::from_secs(29));
    assert_eq!(identify(&authenticator, &both(), &bearer(&token)).await.unwrap(), "bob");
    lab.clock.advance(Duration::from_secs(1));
    assert_eq!(identify(&authenticator, &both(), &bearer(&token)).await, Err("expired"));
}

#[tokio::test]
async fn who_bears_a_token_is_asked_each_time() {
    let lab = Lab::new();
    let strict = lab.authenticator(|_| {});
    let lenient = lab.authenticator(|issuer| issuer.default_plan = Some("trial".into()));
    let token = bearer(&lab.token("bob", 3600, "read"));
    let change = |revision| {
        let changed = changes::Change {
            revision,
            kind: changes::ChangeKind::Consumer,
            id: "id-of-bob".into(),
            committed_at: Duration::ZERO,
        };
        lab.source.set_revision(revision);
        lab.directory.apply(revision, &[changed], lab.clock.now());
    };
    assert_eq!(identify(&strict, &both(), &token).await, Err("unknown"));
    let stranger = lenient.identify(&both(), &token, CLIENT).await.unwrap().unwrap();
    assert_eq!((&*stranger.consumer.username, &*stranger.plan), ("bob", "trial"));
    assert_eq!(&*stranger.consumer.id, "jwt:default:bob");
    let again = lenient.identify_cached(&both(), &token, CLIENT).unwrap().unwrap().unwrap();
    assert!(Arc::ptr_eq(&stranger, &again));

    lab.source.add_consumer("bob", |consumer| consumer.plan = "pro".into());
    change(1);
    let known = lenient.identify(&both(), &token, CLIENT).await.unwrap().unwrap();
    assert_eq!((&*known.consumer.id, &*known.plan), ("id-of-bob", "pro"));
    assert_eq!(
        known.credential,
        Credential::Jwt { issuer: "default".into(), subject: "bob".into() }
    );

    lab.source.add_consumer("bob", |consumer| consumer.enabled = false);
    change(2);
    assert_eq!(identify(&lenient, &both(), &token).await, Err("consumer_disabled"));
}

#[tokio::test]
async fn scopes_are_required_all_of_them() {
    let lab = Lab::new();
    let authenticator = lab.authenticator(|_| {});
    lab.source.add_consumer("bob", |_| {});
    let (plain, _) = lab.source.add_key("alice", |key| key.scopes = Arc::new(["read".into()]));
    let key = headers(&[("x-api-key", plain.reveal())]);
    let token = bearer(&lab.token("bob", 60, "read write"));
    let methods = [Method::ApiKey, Method::Jwt];
    for (scopes, by_key, by_token) in [
        (&[][..], Ok("alice"), Ok("bob")),
        (&["read"], Ok("alice"), Ok("bob")),
        (&["read", "write"], Err("missing_scope"), Ok("bob")),
        (&["Read"], Err("missing_scope"), Err("missing_scope")),
        (&["rea"], Err("missing_scope"), Err("missing_scope")),
    ] {
        let requirement = required(&methods, scopes);
        for (fields, expected) in [(&key, by_key), (&token, by_token)] {
            let found = identify(&authenticator, &requirement, fields).await;
            assert_eq!(found.as_deref().map_err(|reason| *reason), expected, "{scopes:?}");
        }
    }
    let denied =
        authenticator.identify(&required(&methods, &["a", "b"]), &key, CLIENT).await.unwrap_err();
    let Denied::Scope { caller, required } = denied else { panic!("{denied:?}") };
    assert_eq!(&*caller.consumer.username, "alice");
    assert_eq!(required.iter().map(|scope| &**scope).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn a_key_may_have_a_plan_of_its_own() {
    let lab = Lab::new();
    let authenticator = lab.authenticator(|_| {});
    let (plain, id) = lab.source.add_key("alice", |key| key.plan = Some("pro".into()));
    let fields = headers(&[("x-api-key", plain.reveal())]);
    let caller = authenticator.identify(&both(), &fields, CLIENT).await.unwrap().unwrap();
    assert_eq!((&*caller.plan, &*caller.consumer.plan), ("pro", "free"));
    assert_eq!(caller.credential, Credential::ApiKey(id.as_str().into()));
}

#[test]
fn every_header_that_may_carry_a_credential_is_known() {
    let authenticator = Lab::new().authenticator(|_| {});
    let names = |list: &[HeaderName]| {
        let mut names: Vec<_> = list.iter().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        names
    };
    let keys = ["x-api-key", "x-api_key", "x_api-key", "x_api_key"];
    assert_eq!(names(authenticator.credential_headers())[1..], keys);
    assert_eq!(names(authenticator.credential_headers())[0], "authorization");
    assert_eq!(names(authenticator.credential_headers_of(&Requirement::Open)), keys);
    let only_keys = required(&[Method::ApiKey], &[]);
    assert_eq!(names(authenticator.credential_headers_of(&only_keys)), keys);
    assert_eq!(authenticator.credential_headers_of(&both()).len(), 5);
}

#[tokio::test]
async fn nothing_that_is_printed_holds_a_secret() {
    let lab = Lab::new();
    let authenticator = lab.authenticator(|_| {});
    let (plain, _) = lab.source.add_key("alice", |_| {});
    let key = headers(&[("x-api-key", plain.reveal())]);
    let token = lab.token("alice", 60, "");
    let mut shown = format!("{authenticator:?} {:?} {:?}", lab.directory, lab.tokens);
    for fields in [&key, &bearer(&token), &bearer(&token[1..]), &headers(&[("x-api-key", "oops")])]
    {
        shown.push_str(&format!("{:?}", authenticator.identify(&both(), fields, CLIENT).await));
    }
    shown.push_str(&format!(
        "{:?}",
        authenticator.identify(&required(&[Method::ApiKey], &["x"]), &key, CLIENT).await
    ));
    let secret = plain.reveal().rsplit('_').next().unwrap();
    let signature = token.rsplit('.').next().unwrap();
    for hidden in [secret, signature, "pepper that", "secret of the issuer", "oops"] {
        assert!(!shown.contains(hidden), "{hidden}: {shown}");
    }
}

#[tokio::test]
async fn the_token_cache_is_bounded() {
    let lab = Lab::new();
    let authenticator = lab.authenticator(|issuer| issuer.default_plan = Some("free".into()));
    for number in 0..3000 {
        let token = lab.token(&format!("subject-{number}"), 60, &"scope ".repeat(20));
        identify(&authenticator, &both(), &bearer(&token)).await.unwrap();
    }
    assert!(lab.tokens.len() <= 1100, "{}", lab.tokens.len());
}

#[tokio::test]
async fn what_was_good_not_long_ago_is_no_guess_when_it_has_to_be_asked_for_again() {
    let lab = Lab::new();
    let authenticator = lab.authenticator(|_| {});
    let (key, _) = lab.source.add_key("alice", |_| {});
    let (wrong, _) = lab.source.add_key("alice", |_| {});
    let [key, wrong] = [&key, &wrong].map(|plain| headers(&[("x-api-key", plain.reveal())]));
    let token = bearer(&lab.token("alice", 3600, ""));
    let remembers =
        |headers: &HeaderMap| authenticator.remembers(&both(), Sent::from(headers), CLIENT);
    assert!(!remembers(&key) && !remembers(&token), "nobody has asked");
    for good in [&key, &token] {
        assert_eq!(identify(&authenticator, &both(), good).await, Ok("alice".to_owned()));
    }
    // Both are due to be asked for again, and neither is a guess.
    lab.clock.advance(Duration::from_secs(400));
    for good in [&key, &token] {
        assert!(authenticator.identify_cached(&both(), good, CLIENT).is_none());
        assert!(remembers(good));
    }
    assert!(!remembers(&wrong) && !remembers(&HeaderMap::new()));
    // As long as a row is believed.
    lab.clock.advance(Duration::from_secs(400));
    assert!(!remembers(&key));
    lab.clock.advance(Duration::from_secs(3600));
    assert!(!remembers(&token), "it has ended");
}
