//! Keys at a URL: when they are asked for, what becomes of them, and what a token gets meanwhile.

use super::algorithm::{Algorithm, Family};
use super::directory::Directory;
use super::fake::{CLIENT, FakeSource, api_keys};
use super::remote_keys::{COOL_DOWN, Fetched, RemoteKeySets, Settled};
use super::signing::Signer;
use super::*;
use crate::telemetry::{Clock, Moment};
use http::{HeaderMap, HeaderValue};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const REFRESH: Duration = Duration::from_secs(300);

struct Lab {
    sets: Arc<RemoteKeySets>,
    authenticator: Arc<Authenticator>,
    tokens: Arc<TokenCache>,
    clock: Clock,
}

fn source(host: &str) -> Arc<JwksSource> {
    let url = JwksUrl { tls: true, host: host.into(), port: 443, target: "/keys".into() };
    Arc::new(JwksSource { url, ca: None, allow_private: false, of_rsa: Algorithm::Rs256 })
}

impl Lab {
    fn new() -> Self {
        let clock = Clock::manual();
        let (store, sets) =
            (Arc::new(FakeSource::default()), Arc::new(RemoteKeySets::new(clock.clone())));
        store.add_consumer("acme", |_| {});
        let directory = Arc::new(Directory::new(store, clock.clone()));
        let tokens = Arc::new(TokenCache::new(10));
        let issuer = JwtIssuer {
            name: "idp".into(),
            keys: IssuerKeys::Fetched { source: source("id"), refresh: REFRESH },
            issuer: None,
            audiences: Vec::new(),
            types: Vec::new(),
            leeway: Duration::ZERO,
            consumer_claim: "sub".into(),
            scopes_claim: "scope".into(),
            plan_claim: None,
            default_plan: None,
            headers: Vec::new(),
        };
        let authenticator = Arc::new(Authenticator::new(
            api_keys(),
            vec![Arc::new(issuer)],
            directory,
            Arc::clone(&tokens),
            &sets,
            clock.clone(),
        ));
        Self { sets, authenticator, tokens, clock }
    }

    fn keys(&self) -> Arc<RemoteKeys> {
        let [keys] = &self.sets.in_use()[..] else { panic!("one issuer, one URL") };
        Arc::clone(keys)
    }

    /// Answers as the URL would.
    fn publish(&self, keys: &[(&str, &Signer)]) -> Settled {
        self.keys().begin();
        self.keys().settle(Some(set(keys, None)), 1.0)
    }

    fn fail(&self) -> Settled {
        self.keys().begin();
        self.keys().settle(None, 1.0)
    }

    async fn ask(&self, token: &str) -> Result<(), &'static str> {
        ask(&self.authenticator, token).await
    }

    /// Seconds until the URL is asked next.
    fn pause(&self) -> u64 {
        self.keys().due().unwrap().since(self.clock.now()).as_secs()
    }
}

fn set(keys: &[(&str, &Signer)], max_age: Option<u64>) -> Fetched {
    let keys: Vec<_> =
        keys.iter().map(|(kid, signer)| signer.jwk_with(&json!({ "kid": kid }))).collect();
    let jwks = Jwks::parse(json!({ "keys": keys }).to_string().as_bytes(), Algorithm::Rs256);
    let max_age = max_age.map(Duration::from_secs);
    Fetched::Set { jwks: jwks.unwrap(), etag: Some("\"1\"".to_owned()), max_age }
}

fn token(kid: &str, signer: &Signer) -> String {
    let header = json!({ "alg": "ES256", "kid": kid }).to_string();
    signer.token(Algorithm::Es256, &header, r#"{"sub":"acme","exp":1900000000}"#)
}

fn bearer(token: &str) -> HeaderMap {
    let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
    HeaderMap::from_iter([(http::header::AUTHORIZATION, value)])
}

fn required() -> Requirement {
    Requirement::Required { methods: vec![Method::Jwt], scopes: Vec::new() }
}

async fn ask(authenticator: &Authenticator, token: &str) -> Result<(), &'static str> {
    let identified = authenticator.identify(&required(), &bearer(token), CLIENT).await;
    identified.map(drop).map_err(|denied| denied.reason())
}

/// Lets everything that can go on go on, until `done`.
async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn before_the_first_keys_nobody_can_say_whether_a_token_is_good() {
    let (lab, signer) = (Lab::new(), Signer::new(Family::P256));
    let token = token("a", &signer);
    // Waits, since it may be answered in a moment; and is told so.
    assert_eq!(lab.ask(&token).await, Err("issuer_keys_unavailable"));
    assert_eq!(lab.fail(), Settled::BeginsToFail);
    assert_eq!(lab.ask(&token).await, Err("issuer_keys_unavailable"));
    assert_eq!(lab.fail(), Settled::Quiet, "the log hears of it once");
    assert_eq!(lab.publish(&[("a", &signer)]), Settled::NewKeys);
    assert_eq!(lab.ask(&token).await, Ok(()));
}

#[tokio::test]
async fn an_unknown_kid_asks_once_in_a_while_and_all_who_have_it_wait_for_one_answer() {
    let (lab, old, new) = (Lab::new(), Signer::new(Family::P256), Signer::new(Family::P256));
    lab.publish(&[("old", &old)]);
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let (authenticator, token) = (Arc::clone(&lab.authenticator), token("new", &new));
            async move { ask(&authenticator, &token).await }
        })
        .collect();
    let answer = async {
        until(|| lab.keys().due() == Some(Moment::default())).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        lab.publish(&[("old", &old), ("new", &new)]);
        assert_ne!(lab.keys().due(), Some(Moment::default()), "one question was enough");
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(waiting), answer);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");

    // Nothing is asked for and nothing waits until it has cooled down.
    for _ in 0..1000 {
        assert_eq!(lab.ask(&token("other", &new)).await, Err("unknown_kid"));
    }
    assert_ne!(lab.keys().due(), Some(Moment::default()));
    lab.clock.advance(COOL_DOWN);
    assert_eq!(lab.ask(&token("other", &new)).await, Err("issuer_keys_unavailable"));
    assert_eq!(lab.keys().due(), Some(Moment::default()));
}

#[tokio::test]
async fn a_question_that_was_under_way_when_a_key_came_is_followed_by_one_more() {
    let (lab, old, new) = (Lab::new(), Signer::new(Family::P256), Signer::new(Family::P256));
    lab.publish(&[("old", &old)]);
    lab.keys().begin();
    let answers = async {
        tokio::task::yield_now().await;
        // What was asked before the key was published.
        lab.keys().settle(Some(set(&[("old", &old)], None)), 1.0);
        until(|| lab.keys().due() == Some(Moment::default())).await;
        lab.publish(&[("old", &old), ("new", &new)]);
    };
    let token = token("new", &new);
    assert_eq!(tokio::join!(lab.ask(&token), answers).0, Ok(()));
}

#[tokio::test]
async fn keys_that_were_good_stay_when_a_question_fails() {
    let (lab, signer) = (Lab::new(), Signer::new(Family::P256));
    lab.publish(&[("a", &signer)]);
    assert_eq!(lab.fail(), Settled::BeginsToFail);
    assert_eq!(lab.ask(&token("a", &signer)).await, Ok(()));
    let stranger = token("b", &signer);
    assert_eq!(lab.ask(&stranger).await, Err("issuer_keys_unavailable"), "it may be a new key's");
    assert_eq!((lab.sets.vitals().stale, lab.sets.vitals().failed), (1, 1));
    lab.keys().begin();
    let again = lab.keys().settle(Some(Fetched::Unchanged { max_age: None }), 1.0);
    assert_eq!(again, Settled::Recovered);
    assert_eq!(lab.ask(&stranger).await, Err("unknown_kid"));
    assert_eq!((lab.sets.vitals().fresh, lab.sets.vitals().unchanged), (1, 1));
}

#[tokio::test]
async fn a_key_that_is_not_published_any_more_takes_only_its_own_tokens_along() {
    let (lab, one, other) = (Lab::new(), Signer::new(Family::P256), Signer::new(Family::P256));
    lab.publish(&[("one", &one), ("other", &other)]);
    for (kid, signer) in [("one", &one), ("other", &other)] {
        assert_eq!(lab.ask(&token(kid, signer)).await, Ok(()));
    }
    assert_eq!(lab.tokens.len(), 2);
    assert_eq!(lab.publish(&[("other", &other)]), Settled::NewKeys);
    assert_eq!(lab.ask(&token("other", &other)).await, Ok(()));
    assert!(lab.ask(&token("one", &one)).await.is_err(), "although it was cached");
}

#[tokio::test]
async fn a_token_that_was_verified_a_moment_ago_costs_no_allocation() {
    let (lab, signer) = (Lab::new(), Signer::new(Family::P256));
    lab.publish(&[("a", &signer)]);
    let token = token("a", &signer);
    // The directory's first answer makes the caller; the second finds it.
    for _ in 0..2 {
        assert_eq!(lab.ask(&token).await, Ok(()));
    }
    let (headers, required) = (bearer(&token), required());
    let mut found = None;
    let allocations = allocation_counter::measure(|| {
        found = lab.authenticator.identify_cached(&required, &headers, CLIENT);
    });
    assert!(matches!(found, Some(Ok(Some(_)))), "{found:?}");
    assert_eq!(allocations.count_total, 0);
}

#[test]
fn the_next_question_is_when_the_file_or_the_server_says() {
    let (lab, signer) = (Lab::new(), Signer::new(Family::P256));
    assert_eq!(lab.keys().due(), Some(Moment::default()), "at once");
    for (max_age, pause) in
        [(None, 300), (Some(120), 120), (Some(5), 60), (Some(0), 60), (Some(86_400), 300)]
    {
        assert_eq!(lab.keys().begin().is_some(), max_age.is_some(), "the version that is here");
        assert_eq!(lab.keys().due(), None, "one at a time");
        lab.keys().settle(Some(set(&[("a", &signer)], max_age)), 1.0);
        assert_eq!(lab.pause(), pause, "{max_age:?}");
        if max_age.is_none() {
            lab.keys().begin();
            lab.keys().settle(Some(set(&[("a", &signer)], Some(300))), 1.0);
        }
    }
    let mut pauses = Vec::new();
    for _ in 0..9 {
        lab.fail();
        pauses.push(lab.pause());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
}

#[test]
fn keys_outlive_a_configuration_but_not_the_last_that_uses_them() {
    let sets = RemoteKeySets::new(Clock::manual());
    let first = sets.find_or_add(&source("id"), REFRESH);
    let next = sets.find_or_add(&source("id"), Duration::from_secs(60));
    assert!(Arc::ptr_eq(&first, &next));
    let other = sets.find_or_add(&source("other"), REFRESH);
    assert_eq!(sets.in_use().len(), 2);
    drop((first, other));
    assert_eq!(sets.in_use().len(), 1);
    drop(next);
    assert!(sets.in_use().is_empty());
}

#[tokio::test]
async fn a_start_waits_for_the_first_answers_but_not_for_long() {
    let lab = Lab::new();
    lab.sets.first_look(Duration::from_millis(1)).await;
    lab.fail();
    // A failure is an answer: this would take an hour otherwise.
    lab.sets.first_look(Duration::from_secs(3600)).await;
}
