//! From a verified certificate to a caller, against a store that answers on command.

use super::directory::Directory;
use super::fake::{CLIENT, FakeSource, Mood, api_keys};
use super::*;
use crate::telemetry::Clock;
use http::HeaderMap;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::HandshakeKind;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;

type Chain = Vec<CertificateDer<'static>>;

/// An authority, and what stands above its certificates.
struct Authority(Issuer<'static, KeyPair>, Chain);

impl Authority {
    fn new() -> Self {
        let (params, key) = (Self::params("authority"), KeyPair::generate().unwrap());
        let own = params.self_signed(&key).unwrap().der().clone();
        Self(Issuer::new(params, key), vec![own])
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    /// A second authority, that ends so long after a manual clock's beginning.
    fn intermediate(&self, lifetime: Duration) -> Self {
        let (mut params, key) = (Self::params("second"), KeyPair::generate().unwrap());
        params.not_after = beginning() + lifetime;
        let own = params.signed_by(&key, &self.0).unwrap().der().clone();
        Self(Issuer::new(params, key), vec![own])
    }

    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "alice");
        change(&mut params);
        params.signed_by(&KeyPair::generate().unwrap(), &self.0).unwrap().der().clone()
    }

    fn trust(&self) -> Arc<ClientTrust> {
        Arc::new(ClientTrust::new(&self.1, &[], false).unwrap())
    }
}

fn beginning() -> OffsetDateTime {
    let now = i64::try_from(Clock::manual().unix_time().as_secs()).unwrap();
    OffsetDateTime::from_unix_timestamp(now).unwrap()
}

struct Lab {
    source: Arc<FakeSource>,
    directory: Arc<Directory>,
    clock: Clock,
    authority: Authority,
}

impl Lab {
    fn new() -> Self {
        let (source, clock) = (Arc::new(FakeSource::default()), Clock::manual());
        let directory = Arc::new(Directory::new(Arc::<FakeSource>::clone(&source), clock.clone()));
        Self { source, directory, clock, authority: Authority::new() }
    }

    fn authenticator(&self, rules: CertificateRules, trust: &Arc<ClientTrust>) -> Authenticator {
        let remote = RemoteKeySets::new(self.clock.clone());
        let (directory, tokens) = (Arc::clone(&self.directory), Arc::new(TokenCache::new(10)));
        let clock = self.clock.clone();
        Authenticator::new(api_keys(), Vec::new(), directory, tokens, &remote, clock)
            .with_certificates(Certificates::new(
                rules,
                vec![
                    ("other".into(), Authority::new().trust()),
                    ("secure".into(), Arc::clone(trust)),
                ],
            ))
    }

    fn shown(&self, chain: &[CertificateDer<'static>]) -> ClientCertificate {
        self.shown_in(HandshakeKind::Full, chain)
    }

    fn shown_in(
        &self,
        kind: HandshakeKind,
        chain: &[CertificateDer<'static>],
    ) -> ClientCertificate {
        let (listener, trust) = ("secure".into(), self.authority.trust());
        ClientCertificate::read(&listener, chain, Some(kind), &trust, &self.clock).unwrap()
    }
}

fn takes_certificates(scopes: &[&str]) -> Requirement {
    let scopes = scopes.iter().map(|scope| Arc::from(*scope)).collect();
    Requirement::Required { methods: vec![Method::ApiKey, Method::Certificate], scopes }
}

/// The caller, or the reason.
async fn identify(
    authenticator: &Authenticator,
    shown: &ClientCertificate,
) -> Result<Arc<Caller>, &'static str> {
    let headers = HeaderMap::new();
    let sent = Sent { headers: &headers, certificate: Some(shown) };
    match authenticator.identify(&takes_certificates(&[]), sent, CLIENT).await {
        Ok(caller) => Ok(caller.expect("a caller")),
        Err(denied) => Err(denied.reason()),
    }
}

fn reason(identified: Result<Arc<Caller>, &'static str>) -> &'static str {
    identified.map_or_else(|reason| reason, |_| "a caller")
}

#[tokio::test]
async fn a_known_caller_is_at_hand_without_a_question_or_an_allocation() {
    let lab = Lab::new();
    lab.source.add_consumer("alice", |_| {});
    let authenticator = lab.authenticator(CertificateRules::default(), &lab.authority.trust());
    let shown = lab.shown(&[lab.authority.issue(|_| {})]);
    let headers = HeaderMap::new();
    let sent = Sent { headers: &headers, certificate: Some(&shown) };
    assert!(authenticator.identify_cached(&takes_certificates(&[]), sent, CLIENT).is_none());
    let first = identify(&authenticator, &shown).await.unwrap();
    assert_eq!(&*first.consumer.username, "alice");
    let requirement = takes_certificates(&[]);
    let mut again = None;
    let counted = allocation_counter::measure(|| {
        again = authenticator.identify_cached(&requirement, sent, CLIENT);
    });
    assert_eq!(counted.count_total, 0);
    assert!(Arc::ptr_eq(&first, &again.unwrap().unwrap().unwrap()));
    assert_eq!(lab.source.asked(), 1);
    let denied =
        authenticator.identify(&takes_certificates(&["x"]), sent, CLIENT).await.unwrap_err();
    assert_eq!(denied.reason(), "missing_scope", "certificates carry no scopes");
    let only_keys = Requirement::Required { methods: vec![Method::ApiKey], scopes: Vec::new() };
    let denied = authenticator.identify(&only_keys, sent, CLIENT).await.unwrap_err();
    assert_eq!(denied.reason(), "no_credential");
}

#[tokio::test]
async fn the_store_decides_who_a_subject_is() {
    let lab = Lab::new();
    let rules = |plan: Option<&str>| CertificateRules {
        default_plan: plan.map(Arc::from),
        ..CertificateRules::default()
    };
    let trust = lab.authority.trust();
    let strict = lab.authenticator(rules(None), &trust);
    let lenient = lab.authenticator(rules(Some("guest")), &trust);
    let generous = lab.authenticator(rules(Some("gold")), &trust);
    let shown = lab.shown(&[lab.authority.issue(|_| {})]);
    assert_eq!(reason(identify(&strict, &shown).await), "unknown");
    let stranger = identify(&lenient, &shown).await.unwrap();
    assert_eq!((&*stranger.consumer.id, &*stranger.plan), ("mtls:alice", "guest"));
    assert!(Arc::ptr_eq(&stranger, &identify(&lenient, &shown).await.unwrap()));
    assert_eq!(&*identify(&generous, &shown).await.unwrap().plan, "gold");
    for (mood, reason_of) in [(Mood::Fails, "store_failed"), (Mood::Hangs, "store_timeout")] {
        let lab = Lab::new();
        let lenient = lab.authenticator(rules(Some("guest")), &lab.authority.trust());
        lab.source.set_mood(mood);
        let shown = lab.shown(&[lab.authority.issue(|_| {})]);
        assert_eq!(reason(identify(&lenient, &shown).await), reason_of, "an outage is no stranger");
    }
    let lab = Lab::new();
    lab.source.add_consumer("alice", |consumer| consumer.enabled = false);
    let lenient = lab.authenticator(rules(Some("guest")), &lab.authority.trust());
    let shown = lab.shown(&[lab.authority.issue(|_| {})]);
    assert_eq!(reason(identify(&lenient, &shown).await), "consumer_disabled");
}

#[tokio::test]
async fn a_certificate_counts_from_its_first_second_to_its_last() {
    let lab = Lab::new();
    lab.source.add_consumer("alice", |_| {});
    let authenticator = lab.authenticator(CertificateRules::default(), &lab.authority.trust());
    let shown = lab.shown(&[lab.authority.issue(|params| {
        params.not_before = beginning() + Duration::from_secs(10);
        params.not_after = beginning() + Duration::from_secs(20);
    })]);
    for (second, expected) in
        [(9, "not_yet_valid"), (10, "a caller"), (20, "a caller"), (21, "expired")]
    {
        let passed = lab.clock.unix_time() - Clock::manual().unix_time();
        lab.clock.advance(Duration::from_secs(second) - passed);
        assert_eq!(reason(identify(&authenticator, &shown).await), expected, "{second}");
    }
}

#[tokio::test]
async fn a_chain_is_verified_again_when_the_trust_changes_and_every_five_minutes() {
    let lab = Lab::new();
    lab.source.add_consumer("alice", |_| {});
    let second = lab.authority.intermediate(Duration::from_secs(400));
    let chain = [second.issue(|_| {}), second.1[0].clone()];
    let shown = lab.shown(&chain);
    let rules = CertificateRules::default;
    let ours = lab.authenticator(rules(), &lab.authority.trust());
    let theirs = lab.authenticator(rules(), &Authority::new().trust());
    for (authenticator, expected) in [
        (&ours, "a caller"),
        (&theirs, "wrong_issuer"),
        (&theirs, "wrong_issuer"),
        (&ours, "a caller"),
    ] {
        assert_eq!(reason(identify(authenticator, &shown).await), expected);
    }
    // The same authorities read again are the same trust.
    let again = lab.authenticator(rules(), &lab.authority.trust());
    assert_eq!(reason(identify(&again, &shown).await), "a caller");
    // The authority in the middle ends before the certificate does.
    for (seconds, expected) in [(301, "a caller"), (301, "wrong_issuer")] {
        lab.clock.advance(Duration::from_secs(seconds));
        assert_eq!(reason(identify(&ours, &shown).await), expected);
    }
    // A listener that asks for none any more believes none.
    let nobody = Lab::new();
    nobody.source.add_consumer("alice", |_| {});
    let elsewhere: Arc<str> = "elsewhere".into();
    let trust = nobody.authority.trust();
    let chain = [nobody.authority.issue(|_| {})];
    let full = Some(HandshakeKind::Full);
    let stray = ClientCertificate::read(&elsewhere, &chain, full, &trust, &nobody.clock).unwrap();
    let authenticator = nobody.authenticator(rules(), &trust);
    assert_eq!(reason(identify(&authenticator, &stray).await), "wrong_issuer");
}

#[tokio::test]
async fn a_session_that_is_taken_up_again_is_believed_once_its_chain_is_verified_again() {
    let lab = Lab::new();
    lab.source.add_consumer("alice", |_| {});
    let second = lab.authority.intermediate(Duration::from_secs(400));
    let chain = [second.issue(|_| {}), second.1[0].clone()];
    let authenticator = lab.authenticator(CertificateRules::default(), &lab.authority.trust());
    let resumed = HandshakeKind::Resumed;
    let early = lab.shown_in(resumed, &chain);
    assert_eq!(reason(identify(&authenticator, &early).await), "a caller");
    // The authority in the middle has ended; the session has not.
    lab.clock.advance(Duration::from_secs(401));
    for (kind, expected) in [(resumed, "wrong_issuer"), (HandshakeKind::Full, "a caller")] {
        let late = lab.shown_in(kind, &chain);
        assert_eq!(reason(identify(&authenticator, &late).await), expected, "{kind:?}");
    }
}

#[tokio::test]
async fn a_reload_can_read_another_name_from_the_same_certificate() {
    let lab = Lab::new();
    for name in ["alice", "alice.example.com"] {
        lab.source.add_consumer(name, |_| {});
    }
    let trust = lab.authority.trust();
    let shown = lab.shown(&[lab.authority.issue(|params| {
        params.subject_alt_names.push(SanType::DnsName("alice.example.com".try_into().unwrap()));
    })]);
    for (subject, name) in [
        (SubjectPart::CommonName, "alice"),
        (SubjectPart::Dns, "alice.example.com"),
        (SubjectPart::CommonName, "alice"),
    ] {
        let rules = CertificateRules { subject, default_plan: None };
        let caller = identify(&lab.authenticator(rules, &trust), &shown).await.unwrap();
        assert_eq!(&*caller.consumer.username, name);
        let Credential::Certificate { subject, fingerprint } = &caller.credential else {
            panic!("{caller:?}")
        };
        assert_eq!((&**subject, fingerprint.len()), (name, 64));
    }
    let rules = CertificateRules { subject: SubjectPart::Email, default_plan: None };
    let authenticator = lab.authenticator(rules, &trust);
    assert_eq!(reason(identify(&authenticator, &shown).await), "no_usable_subject");
}

#[test]
fn what_cannot_be_read_and_what_is_too_long_names_nobody() {
    let lab = Lab::new();
    for bytes in [&b""[..], b"no certificate", &[0x30, 0x80]] {
        let shown = lab.shown(&[CertificateDer::from(bytes.to_vec())]);
        assert!(shown.content.is_err(), "{bytes:?}");
    }
    let good = lab.authority.issue(|_| {});
    let padded = CertificateDer::from([good.as_ref(), b"more"].concat());
    assert!(lab.shown(&[padded]).content.is_err());
    let verifier = lab.authority.trust().verifier();
    let now = rustls_pki_types::UnixTime::since_unix_epoch(lab.clock.unix_time());
    let junk = |bytes: usize| [CertificateDer::from(vec![0x30; bytes])];
    assert!(verifier.verify_client_cert(&good, &junk(1000), now).is_ok());
    assert!(verifier.verify_client_cert(&good, &junk(16 * 1024), now).is_err());
}

#[test]
fn clients_are_told_the_names_of_authorities_only_if_they_are_few() {
    let authorities: Vec<Authority> = (0..3).map(|_| Authority::new()).collect();
    let hints = |copies: usize| {
        let own = authorities.iter().flat_map(|authority| authority.1.clone());
        let many: Chain = std::iter::repeat_n(own, copies).flatten().collect();
        let trust = ClientTrust::new(&many, &[], true).unwrap();
        trust.verifier().root_hint_subjects().len()
    };
    assert_eq!((hints(1), hints(300)), (3, 0));
    assert!(ClientTrust::new(&[], &[], true).is_err(), "nobody to believe");
}
