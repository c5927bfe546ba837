//! Whom a request is counted for, and the key that a rule's counter is kept under.
//!
//! A subject is 128 bits of SipHash-1-3 under a secret that all tasks of a fleet share: the same on
//! every one of them, and nobody outside can look for two subjects that share a counter, or read a
//! name out of Redis. A counter's key is the subject's hash and the rule's, one added to the other
//! without carry; both are hashes under the secret, so sums meet as seldom as hashes do.
//!
//! Must stay true: what is hashed can be read back in only one way, on every machine. Each part is
//! preceded by its kind and its length.

use super::facts::Facts;
use super::rule::Subject;
use siphasher::sip128::{Hasher128 as _, SipHasher13};
use std::fmt;
use std::hash::Hasher as _;
use std::net::IpAddr;

/// Whom a request can be counted for.
#[derive(Clone, Copy)]
pub struct Subjects<'a> {
    /// The resolved client address. IPv6 counts by /64, since a client has at least that many.
    pub address: IpAddr,
    /// The consumer's id, if the caller is known.
    pub consumer: Option<&'a str>,
    /// The credential, if there was one.
    pub key: Option<KeySubject<'a>>,
    /// What else can be asked about the request.
    pub facts: &'a dyn Facts,
}

impl fmt::Debug for Subjects<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subjects")
            .field("address", &self.address)
            .field("consumer", &self.consumer)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// A single credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeySubject<'a> {
    /// An API key's id.
    ApiKey(&'a str),
    /// A token's subject, at its issuer.
    Jwt {
        /// Who vouches for the subject.
        issuer: &'a str,
        /// `sub`.
        subject: &'a str,
    },
    /// Whom a client certificate names: a renewed one counts on.
    Certificate(&'a str),
}

/// What tells a route's subject, an overflow counter and a rule from other things that are hashed.
const ROUTE: u8 = 0;
const CONSUMER: u8 = 1;
const API_KEY: u8 = 2;
const JWT: u8 = 3;
const IPV4: u8 = 4;
const IPV6: u8 = 5;
const OVERFLOW: u8 = 6;
const RULE: u8 = 7;
const CLAIM: u8 = 8;
const HEADER: u8 = 9;
const EXPRESSION: u8 = 10;
const CERTIFICATE: u8 = 32;

/// Makes the keys of counters.
pub(super) struct Keyring(SipHasher13);

impl Keyring {
    pub(super) fn new(secret: &[u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(secret))
    }

    /// What all keys of a rule have in common.
    pub(super) fn rule(&self, id: &str) -> RuleKey {
        RuleKey(self.hash(RULE, &[id.as_bytes()]))
    }

    /// Whom a rule counts that counts a subject with this hash.
    pub(super) fn known(&self, rule: &str, subject: u128) -> Counted {
        Counted { subject, key: subject ^ self.rule(rule).0 }
    }

    /// The key of the counter for the subjects that have none.
    pub(super) fn overflow(&self, rule: RuleKey) -> u128 {
        self.hash(OVERFLOW, &[&rule.0.to_le_bytes()])
    }

    /// The hash of the one that `subject` picks for this request.
    ///
    /// A caller without a consumer or a credential, on an open route, is counted by address, and one
    /// without the claim or the header by consumer: a limit never lapses because there is nobody to
    /// name. A rule that counts all requests together is a subject of its own, so that such rules are
    /// spread over the shards of a Redis Cluster. What two issuers claim is never the same.
    fn subject(&self, subject: &Subject, subjects: &Subjects<'_>, rule: RuleKey) -> u128 {
        match (subject, subjects.consumer, subjects.key) {
            (Subject::Route, ..) => self.hash(ROUTE, &[&rule.0.to_le_bytes()]),
            (Subject::Claim(name), _, Some(KeySubject::Jwt { issuer, .. })) => {
                match subjects.facts.claim(name) {
                    Some(value) => {
                        let parts = [issuer.as_bytes(), name.as_bytes(), value.as_bytes()];
                        self.hash(CLAIM, &parts)
                    }
                    None => self.subject(&Subject::Consumer, subjects, rule),
                }
            }
            (Subject::Claim(_), ..) => self.subject(&Subject::Consumer, subjects, rule),
            (Subject::Header(name), ..) => match subjects.facts.header(name) {
                Some(value) => self.hash(HEADER, &[name.as_str().as_bytes(), &value]),
                None => self.subject(&Subject::Consumer, subjects, rule),
            },
            (Subject::Expression(expression), _, key) => {
                match subjects.facts.known().and_then(|known| expression.text(known)) {
                    Some(value) => {
                        let issuer = match key {
                            Some(KeySubject::Jwt { issuer, .. }) => issuer.as_bytes(),
                            _ => &[],
                        };
                        let claims = expression.claims().next().is_some();
                        let issuer = if claims { issuer } else { &[] };
                        self.hash(EXPRESSION, &[issuer, value.as_bytes()])
                    }
                    None => self.subject(&Subject::Consumer, subjects, rule),
                }
            }
            (Subject::Consumer, Some(consumer), _) => self.hash(CONSUMER, &[consumer.as_bytes()]),
            (Subject::Key, _, Some(KeySubject::ApiKey(id))) => self.hash(API_KEY, &[id.as_bytes()]),
            (Subject::Key, _, Some(KeySubject::Jwt { issuer, subject })) => {
                self.hash(JWT, &[issuer.as_bytes(), subject.as_bytes()])
            }
            (Subject::Key, _, Some(KeySubject::Certificate(subject))) => {
                self.hash(CERTIFICATE, &[subject.as_bytes()])
            }
            (Subject::Address | Subject::Consumer | Subject::Key, ..) => {
                match subjects.address.to_canonical() {
                    IpAddr::V4(address) => self.hash(IPV4, &[&address.octets()]),
                    IpAddr::V6(address) => {
                        self.hash(IPV6, &[&(address.to_bits() >> 64).to_be_bytes()])
                    }
                }
            }
        }
    }

    fn hash(&self, kind: u8, parts: &[&[u8]]) -> u128 {
        let mut hasher = self.0;
        for part in parts {
            hasher.write(&((part.len() as u64) << 8 | u64::from(kind)).to_le_bytes());
            hasher.write(part);
        }
        hasher.finish128().as_u128()
    }
}

/// The hash of a rule's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RuleKey(u128);

/// Whom one rule counts one request for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    /// The subject's hash: all that is kept of one subject in Redis is kept together.
    pub(super) subject: u128,
    /// The key of the rule's counter for it.
    pub(super) key: u128,
}

/// The subjects of one request, each hashed at most once.
pub(super) struct Named<'a> {
    keyring: &'a Keyring,
    subjects: &'a Subjects<'a>,
    known: [Option<u128>; 3],
}

impl<'a> Named<'a> {
    pub(super) const fn new(keyring: &'a Keyring, subjects: &'a Subjects<'a>) -> Self {
        Self { keyring, subjects, known: [None; 3] }
    }

    /// Whom `rule` counts this request for.
    pub(super) fn counted(&mut self, subject: &Subject, rule: RuleKey) -> Counted {
        let hash = || self.keyring.subject(subject, self.subjects, rule);
        let known = match subject {
            Subject::Claim(_) | Subject::Expression(_) | Subject::Header(_) | Subject::Route => {
                None
            }
            Subject::Address => self.known.first_mut(),
            Subject::Consumer => self.known.get_mut(1),
            Subject::Key => self.known.get_mut(2),
        };
        let subject = known.map_or_else(hash, |known| *known.get_or_insert_with(hash));
        Counted { subject, key: subject ^ rule.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::NoFacts;
    use super::*;
    use std::collections::HashMap;

    fn subjects<'a>(
        address: &str,
        consumer: Option<&'a str>,
        key: Option<KeySubject<'a>>,
    ) -> Subjects<'a> {
        Subjects { address: address.parse().unwrap(), consumer, key, facts: &NoFacts }
    }

    #[test]
    fn subjects_that_differ_never_share_a_key() {
        use KeySubject::{ApiKey, Certificate, Jwt};
        let ring = Keyring::new(&[7; 16]);
        let jwt = |issuer, subject| Some(Jwt { issuer, subject });
        let table = [
            (Subject::Route, subjects("192.0.2.1", None, None)),
            (Subject::Address, subjects("192.0.2.1", None, None)),
            (Subject::Address, subjects("192.0.2.2", None, None)),
            (Subject::Address, subjects("2001:db8::1", None, None)),
            (Subject::Address, subjects("2001:db8:0:1::1", None, None)),
            (Subject::Address, subjects("c000:201::", None, None)),
            (Subject::Consumer, subjects("192.0.2.1", Some("ab"), None)),
            (Subject::Consumer, subjects("192.0.2.1", Some("abc"), None)),
            (Subject::Key, subjects("192.0.2.1", Some("ab"), Some(ApiKey("ab")))),
            (Subject::Key, subjects("192.0.2.1", Some("ab"), Some(Certificate("ab")))),
            (Subject::Key, subjects("192.0.2.1", Some("ab"), jwt("ab", ""))),
            (Subject::Key, subjects("192.0.2.1", Some("ab"), jwt("", "ab"))),
            (Subject::Key, subjects("192.0.2.1", Some("ab"), jwt("a", "b"))),
        ];
        let mut seen = HashMap::new();
        for rule in ["plan/a/b", "plan/a/bc"] {
            let key = ring.rule(rule);
            for (subject, subjects) in &table {
                let counted = Named::new(&ring, subjects).counted(subject, key);
                let hit = seen.insert(counted.key, (rule, subject, subjects));
                assert!(hit.is_none(), "{hit:?} and {rule} {subject:?} {subjects:?}");
            }
            let overflow = ring.overflow(key);
            assert!(seen.insert(overflow, (rule, &table[0].0, &table[0].1)).is_none());
        }
    }

    #[test]
    fn who_is_the_same_to_a_rule_has_the_same_key() {
        let ring = Keyring::new(&[7; 16]);
        let of = |subject, address, consumer| {
            let subjects = subjects(address, consumer, None);
            Named::new(&ring, &subjects).counted(&subject, ring.rule("route/a/b"))
        };
        let table = [
            // One client has a /64 of IPv6, and two ways of writing an IPv4 address.
            (Subject::Address, "2001:db8::1", "2001:db8::ffff:1:2:3"),
            (Subject::Address, "192.0.2.1", "::ffff:192.0.2.1"),
            (Subject::Consumer, "192.0.2.1", "192.0.2.2"),
            (Subject::Route, "192.0.2.1", "2001:db8::1"),
        ];
        for (subject, left, right) in table {
            let (left, right) = (
                of(subject.clone(), left, Some("carol")),
                of(subject.clone(), right, Some("carol")),
            );
            assert_eq!(left, right, "{subject:?}");
        }
        let nobody = of(Subject::Consumer, "192.0.2.1", None);
        assert_eq!(nobody, of(Subject::Address, "192.0.2.1", None));
        assert_eq!(nobody, of(Subject::Key, "192.0.2.1", None));
    }

    #[test]
    fn subjects_are_the_same_on_every_task_and_told_apart_by_the_secret() {
        let subjects = subjects("192.0.2.1", Some("carol"), None);
        let hash = |secret: u8, rule, subject| {
            let ring = Keyring::new(&[secret; 16]);
            Named::new(&ring, &subjects).counted(&subject, ring.rule(rule)).subject
        };
        assert_eq!(hash(1, "plan/a/b", Subject::Consumer), hash(1, "plan/a/c", Subject::Consumer));
        assert_ne!(hash(1, "plan/a/b", Subject::Consumer), hash(2, "plan/a/b", Subject::Consumer));
        assert_ne!(hash(1, "plan/a/b", Subject::Route), hash(1, "plan/a/c", Subject::Route));
        // What other builds and machines must make of it, too.
        assert_eq!(
            format!("{:032x}", hash(1, "plan/a/b", Subject::Consumer)),
            "4eb78b3a2e6c2b504f5eb77955e37a27"
        );
    }
}
