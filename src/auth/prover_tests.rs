//! What a key proves, from where, and under which pepper.

use super::api_key::{KeyForm, PlainKey};
use super::directory::Directory;
use super::fake::{CLIENT, FakeSource, api_keys};
use super::uses::{KeyUse, Redigest};
use super::*;
use crate::telemetry::Clock;
use http::{HeaderMap, HeaderValue};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Lab {
    source: Arc<FakeSource>,
    directory: Arc<Directory>,
    clock: Clock,
}

impl Lab {
    fn new() -> Self {
        let (source, clock) = (Arc::new(FakeSource::default()), Clock::manual());
        let directory = Arc::new(Directory::new(Arc::<FakeSource>::clone(&source), clock.clone()));
        Self { source, directory, clock }
    }

    fn authenticator(&self, keys: ApiKeys) -> Authenticator {
        Authenticator::new(
            keys,
            Vec::new(),
            Arc::clone(&self.directory),
            Arc::new(TokenCache::new(1)),
            &RemoteKeySets::new(self.clock.clone()),
            self.clock.clone(),
        )
    }

    /// What the task does with the notes; how many keys were digested anew.
    fn store(&self, uses: &[KeyUse]) -> usize {
        let mut keys = self.source.keys.lock();
        let mut redigested = 0;
        for KeyUse { id, redigest, .. } in uses {
            let (Some(key), Some(Redigest { old, new, pepper })) = (keys.get_mut(id), redigest)
            else {
                continue;
            };
            if key.digest.matches(old) {
                (key.digest, key.pepper) = (*new, *pepper);
                redigested += 1;
            }
        }
        redigested
    }
}

fn required() -> Requirement {
    Requirement::Required { methods: vec![Method::ApiKey], scopes: Vec::new() }
}

fn with(key: &PlainKey) -> HeaderMap {
    let value = HeaderValue::from_str(key.reveal()).unwrap();
    HeaderMap::from_iter([(http::HeaderName::from_static("x-api-key"), value)])
}

async fn told(authenticator: &Authenticator, key: &PlainKey, client: IpAddr) -> &'static str {
    match authenticator.identify(&required(), &with(key), client).await {
        Ok(_) => "welcome",
        Err(denied) => denied.reason(),
    }
}

/// The keys of tests, under another pepper, with those before it.
fn rotated(pepper: &[u8], previous: &[&[u8]]) -> ApiKeys {
    let previous_peppers = previous.iter().map(|pepper| pepper.to_vec()).collect();
    ApiKeys { pepper: pepper.to_vec(), previous_peppers, ..api_keys() }
}

#[tokio::test]
async fn a_key_works_from_its_networks_only() {
    let lab = Lab::new();
    let authenticator = lab.authenticator(api_keys());
    let nets = ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"];
    let nets: Arc<[_]> = nets.iter().map(|net| parse_network(net).unwrap()).collect();
    let (bound, _) = lab.source.add_key("alice", |key| key.addresses = nets);
    let (free, _) = lab.source.add_key("alice", |_| {});
    for (client, expected) in [
        ("10.1.2.3", "welcome"),
        ("192.0.2.7", "welcome"),
        ("2001:db8:1::9", "welcome"),
        ("11.0.0.1", "address_not_allowed"),
        ("192.0.2.8", "address_not_allowed"),
        ("2001:db9::1", "address_not_allowed"),
        ("::1", "address_not_allowed"),
    ] {
        let client = client.parse().unwrap();
        assert_eq!(told(&authenticator, &bound, client).await, expected, "{client}");
        assert_eq!(told(&authenticator, &free, client).await, "welcome", "{client}");
    }
    let client = "11.0.0.1".parse().unwrap();
    let denied = authenticator.identify(&required(), &with(&bound), client).await.unwrap_err();
    let unknown = Denied::Invalid { method: Method::ApiKey, reason: InvalidReason::Unknown };
    assert_eq!(denied.to_string(), unknown.to_string(), "the client is told the same");
}

#[tokio::test]
async fn a_key_from_elsewhere_is_not_noted_as_used() {
    let lab = Lab::new();
    let authenticator = lab.authenticator(api_keys());
    let nets: Arc<[_]> = Arc::new([parse_network("10.0.0.0/8").unwrap()]);
    let (bound, _) = lab.source.add_key("alice", |key| key.addresses = nets);
    assert_eq!(told(&authenticator, &bound, CLIENT).await, "address_not_allowed");
    assert!(lab.directory.drain_uses().is_empty());
}

#[tokio::test]
async fn all_live_keys_of_a_consumer_work_beside_each_other() {
    let lab = Lab::new();
    let authenticator = lab.authenticator(api_keys());
    let keys: Vec<_> = (0..20).map(|_| lab.source.add_key("alice", |_| {})).collect();
    for round in 0..2 {
        for (key, id) in &keys {
            let caller = authenticator.identify(&required(), &with(key), CLIENT).await;
            let caller = caller.unwrap().unwrap();
            assert_eq!(&*caller.consumer.username, "alice", "round {round}");
            assert_eq!(caller.credential, Credential::ApiKey(id.as_str().into()));
        }
    }
}

#[tokio::test]
async fn a_key_of_a_previous_pepper_works_and_is_digested_anew_once() {
    const OLD: &[u8] = b"a pepper that only tests have seen";
    const NEW: &[u8] = b"the pepper that comes after it";
    let lab = Lab::new();
    let (key, id) = lab.source.add_key("alice", |_| {});
    let before = lab.authenticator(api_keys());
    assert_eq!(told(&before, &key, CLIENT).await, "welcome");
    assert!(lab.directory.drain_uses().iter().all(|used| used.redigest.is_none()));

    // In the same hour, with the key in the cache.
    let during = lab.authenticator(rotated(NEW, &[b"another one, older still", OLD]));
    for _ in 0..5 {
        assert_eq!(told(&during, &key, CLIENT).await, "welcome");
    }
    let uses = lab.directory.drain_uses();
    assert_eq!(uses.len(), 1, "{uses:?}");
    assert_eq!(lab.store(&uses), 1);
    assert_eq!(lab.store(&uses), 0, "what stands there now is not the old digest");
    let version = KeyForm::new(&rotated(NEW, &[])).pepper();
    assert_eq!(lab.source.keys.lock()[&id].pepper, version);
    assert_eq!(told(&during, &key, CLIENT).await, "welcome", "what is cached proves it still");

    let after = lab.authenticator(rotated(NEW, &[]));
    assert_eq!(told(&after, &key, CLIENT).await, "other_pepper", "the row is cached as it was");
    lab.directory.ask_again(&id);
    assert_eq!(told(&after, &key, CLIENT).await, "welcome");
    assert_eq!(told(&during, &key, CLIENT).await, "welcome");
    assert!(lab.directory.drain_uses().iter().all(|used| used.redigest.is_none()));
    assert_eq!(told(&before, &key, CLIENT).await, "other_pepper");
}

#[tokio::test]
async fn a_wrong_secret_under_a_previous_pepper_is_a_wrong_secret_and_not_noted() {
    let lab = Lab::new();
    let (guess, _) = lab.source.add_key("alice", |key| {
        key.digest = api_key::KeyDigest::from_bytes([7; 32]);
    });
    let during = lab.authenticator(rotated(b"new", &[&api_keys().pepper]));
    assert_eq!(told(&during, &guess, CLIENT).await, "wrong_secret");
    assert!(lab.directory.drain_uses().is_empty());
}

#[tokio::test]
async fn a_known_key_is_proved_without_allocating_in_any_hour_and_under_any_pepper() {
    let lab = Lab::new();
    let nets: Arc<[_]> = Arc::new([parse_network("192.0.2.0/24").unwrap()]);
    let (key, _) = lab.source.add_key("alice", |key| key.addresses = nets);
    let (required, headers) = (required(), with(&key));
    for keys in [api_keys(), rotated(b"new", &[b"older", &api_keys().pepper])] {
        let authenticator = lab.authenticator(keys);
        assert_eq!(told(&authenticator, &key, CLIENT).await, "welcome");
        for secs in [0, 1, 3600] {
            lab.clock.advance(Duration::from_secs(secs));
            assert_eq!(told(&authenticator, &key, CLIENT).await, "welcome");
            drop(lab.directory.drain_uses());
            let mut found = None;
            let allocations = allocation_counter::measure(|| {
                found = authenticator.identify_cached(&required, &headers, CLIENT);
            });
            assert!(matches!(found, Some(Ok(Some(_)))));
            assert_eq!(allocations.count_total, 0, "{secs} s later");
        }
    }
}

#[tokio::test]
async fn noting_a_use_does_not_allocate_either() {
    let lab = Lab::new();
    let (key, _) = lab.source.add_key("alice", |_| {});
    let (required, headers) = (required(), with(&key));
    let before = lab.authenticator(api_keys());
    assert_eq!(told(&before, &key, CLIENT).await, "welcome");
    let during = lab.authenticator(rotated(b"new", &[&api_keys().pepper]));
    drop(lab.directory.drain_uses());
    let allocations = allocation_counter::measure(|| {
        assert!(during.identify_cached(&required, &headers, CLIENT).is_some());
    });
    assert_eq!(allocations.count_total, 0);
    assert_eq!(lab.directory.drain_uses().len(), 1);
}

/// Keys are refused in about the same time, whatever is wrong with them: it is one digest each.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "it is about real time")]
async fn an_unknown_key_a_wrong_secret_and_an_unknown_pepper_cost_the_same() {
    let lab = Lab::new();
    let authenticator = lab.authenticator(api_keys());
    let wrong = |key: &mut directory::KeyRecord| {
        key.digest = api_key::KeyDigest::from_bytes([7; 32]);
    };
    let (secret, _) = lab.source.add_key("alice", wrong);
    let (pepper, _) = lab.source.add_key("alice", |key| {
        key.pepper = api_key::PepperVersion::from_u32(1);
    });
    let (unknown, id) = lab.source.add_key("alice", |_| {});
    lab.source.keys.lock().remove(&id);
    let cases = [("wrong_secret", &secret), ("other_pepper", &pepper), ("unknown", &unknown)];
    for (reason, key) in cases {
        assert_eq!(told(&authenticator, key, CLIENT).await, reason);
    }
    let (required, cases) = (required(), cases.map(|(_, key)| with(key)));
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..500 {
        for (headers, times) in cases.iter().zip(&mut times) {
            let began = Instant::now();
            assert!(authenticator.identify_cached(&required, headers, CLIENT).unwrap().is_err());
            times.push(began.elapsed());
        }
    }
    let medians = times.map(|mut times| {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    });
    let (least, most) = (medians.iter().copied().fold(f64::MAX, f64::min), medians);
    let most = most.iter().copied().fold(0.0, f64::max);
    assert!(most / least < 2.0, "{medians:?}");
}
