//! Whom a request is counted for, and the key that a rule's counter is kept under.
//!
//! A key is 128 bits of SipHash under keys drawn when the process starts: nobody outside can look
//! for two subjects that share a counter, and none are expected to by chance.
//!
//! Must stay true: what is hashed can be read back in only one way. Each part is preceded by its
//! kind and its length.

use super::rule::Subject;
use std::hash::{BuildHasher as _, DefaultHasher, Hasher as _, RandomState};
use std::net::IpAddr;

/// Whom a request can be counted for.
#[derive(Clone, Copy, Debug)]
pub struct Subjects<'a> {
    /// The resolved client address. IPv6 counts by /64, since a client has at least that many.
    pub address: IpAddr,
    /// The consumer's id, if the caller is known.
    pub consumer: Option<&'a str>,
    /// The credential, if there was one.
    pub key: Option<KeySubject<'a>>,
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
}

/// Draws keys for a process's counters.
pub(super) struct Keyring([RandomState; 2]);

impl Keyring {
    pub(super) fn new() -> Self {
        Self([RandomState::new(), RandomState::new()])
    }

    /// What all keys of a rule have in common.
    pub(super) fn rule(&self, id: &str) -> RuleKey {
        RuleKey(self.0.each_ref().map(|keys| {
            let mut half = keys.build_hasher();
            half.write_u64(keys.hash_one(id));
            half
        }))
    }
}

/// The hash so far, with only the subject missing. What is fed to it is a whole number of words
/// up to the last text, which SipHash takes in fastest.
#[derive(Clone)]
pub(super) struct RuleKey([DefaultHasher; 2]);

impl RuleKey {
    /// The key of the counter that `subject` picks for this request.
    ///
    /// A caller without a consumer or a credential, on an open route, is counted by address: a
    /// limit never lapses because there is nobody to name.
    pub(super) fn of(&self, subject: &Subject, subjects: &Subjects<'_>) -> u128 {
        let mut key = self.clone();
        match (subject, subjects.consumer, subjects.key) {
            (Subject::Route, ..) => key.bytes(0, &[]),
            (Subject::Consumer, Some(consumer), _) => key.bytes(1, consumer.as_bytes()),
            (Subject::Key, _, Some(KeySubject::ApiKey(id))) => key.bytes(2, id.as_bytes()),
            (Subject::Key, _, Some(KeySubject::Jwt { issuer, subject })) => {
                key.bytes(3, issuer.as_bytes());
                key.bytes(3, subject.as_bytes());
            }
            (Subject::Address | Subject::Consumer | Subject::Key, ..) => {
                match subjects.address.to_canonical() {
                    IpAddr::V4(address) => key.bytes(4, &address.octets()),
                    IpAddr::V6(address) => key.bytes(5, &(address.to_bits() >> 64).to_be_bytes()),
                }
            }
        }
        key.finish()
    }

    /// The key of the counter for the subjects that have none.
    pub(super) fn overflow(&self) -> u128 {
        let mut key = self.clone();
        key.bytes(6, &[]);
        key.finish()
    }

    fn bytes(&mut self, kind: u8, bytes: &[u8]) {
        for half in &mut self.0 {
            half.write_u64((bytes.len() as u64) << 8 | u64::from(kind));
            half.write(bytes);
        }
    }

    fn finish(&self) -> u128 {
        self.0.iter().fold(0, |key, half| (key << 64) | u128::from(half.finish()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn subjects<'a>(
        address: &str,
        consumer: Option<&'a str>,
        key: Option<KeySubject<'a>>,
    ) -> Subjects<'a> {
        Subjects { address: address.parse().unwrap(), consumer, key }
    }

    #[test]
    fn subjects_that_differ_never_share_a_key() {
        use KeySubject::{ApiKey, Jwt};
        let ring = Keyring::new();
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
            (Subject::Key, subjects("192.0.2.1", Some("ab"), jwt("ab", ""))),
            (Subject::Key, subjects("192.0.2.1", Some("ab"), jwt("", "ab"))),
            (Subject::Key, subjects("192.0.2.1", Some("ab"), jwt("a", "b"))),
        ];
        let mut seen = HashMap::new();
        for rule in ["plan/a/b", "plan/a/bc"] {
            let key = ring.rule(rule);
            for (subject, subjects) in &table {
                let hit = seen.insert(key.of(subject, subjects), (rule, subject, subjects));
                assert!(hit.is_none(), "{hit:?} and {rule} {subject:?} {subjects:?}");
            }
            assert!(seen.insert(key.overflow(), (rule, &table[0].0, &table[0].1)).is_none());
        }
    }

    #[test]
    fn who_is_the_same_to_a_rule_has_the_same_key() {
        let key = Keyring::new().rule("route/a/b");
        let of = |subject, address, consumer| key.of(&subject, &subjects(address, consumer, None));
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
    fn another_process_has_other_keys() {
        let route = |ring: Keyring| {
            ring.rule("route/a/b").of(&Subject::Route, &subjects("192.0.2.1", None, None))
        };
        assert_ne!(route(Keyring::new()), route(Keyring::new()));
    }
}
