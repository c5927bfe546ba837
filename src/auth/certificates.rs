//! From the certificate of a connection to the caller of a request.
//!
//! The certificate was verified in the handshake. Each request asks again what may have changed since:
//! whether its authority is still believed at its listener, whether it has ended, whether it is taken
//! back, and who its consumer is now.
//!
//! Must stay true: a known caller costs no allocation, no wait and no signature.

use super::certificate::{ClientCertificate, SubjectPart};
use super::client_trust::ClientTrust;
use super::denied::{Denied, InvalidReason};
use super::directory::{Directory, Lookup};
use super::identity::{Caller, Consumer, Credential, Fields, Method};
use super::shelf::Entry;
use crate::telemetry::Clock;
use arc_swap::ArcSwapOption;
use std::sync::Arc;

/// Whose name the deny list knows certificates by: no issuer of tokens can have it.
pub const CERTIFICATES: &str = "mtls";

/// What is read from certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateRules {
    /// What names the consumer.
    pub subject: SubjectPart,
    /// Plan of subjects that the store does not know; without it they are refused.
    pub default_plan: Option<Arc<str>>,
}

/// Identifies by certificates under one configuration.
#[derive(Debug, Default)]
pub struct Certificates {
    rules: CertificateRules,
    /// By the listener's name.
    trusts: Vec<(Arc<str>, Arc<ClientTrust>)>,
}

type Identified = Result<Arc<Caller>, Denied>;
type Found = Lookup<Arc<Entry<Arc<Consumer>>>>;

impl Certificates {
    /// Believes what the `trusts` of the listeners verify.
    #[must_use]
    pub const fn new(rules: CertificateRules, trusts: Vec<(Arc<str>, Arc<ClientTrust>)>) -> Self {
        Self { rules, trusts }
    }

    /// Who this is.
    pub(super) async fn identify(
        &self,
        certificate: &ClientCertificate,
        directory: &Directory,
        clock: &Clock,
    ) -> Identified {
        let subject = self.subject(certificate, directory, clock)?;
        self.caller(certificate, subject, directory.find_consumer(subject).await)
    }

    /// The same from what is at hand; `None` if the store has to be asked.
    pub(super) fn identify_cached(
        &self,
        certificate: &ClientCertificate,
        directory: &Directory,
        clock: &Clock,
    ) -> Option<Identified> {
        let subject = match self.subject(certificate, directory, clock) {
            Ok(subject) => subject,
            Err(denied) => return Some(Err(denied)),
        };
        let found = directory.glance_consumer(subject)?;
        Some(self.caller(certificate, subject, found))
    }

    /// Whom the certificate names, after every check of the certificate itself.
    fn subject<'c>(
        &self,
        certificate: &'c ClientCertificate,
        directory: &Directory,
        clock: &Clock,
    ) -> Result<&'c Arc<str>, Denied> {
        let content = certificate.content.as_ref().map_err(|reason| invalid(*reason))?;
        let now = i64::try_from(clock.unix_time().as_secs()).unwrap_or(i64::MAX);
        if now > content.ends_at {
            return Err(invalid(InvalidReason::Expired));
        }
        if now < content.begins_at {
            return Err(invalid(InvalidReason::NotYet));
        }
        let trust = self.trusts.iter().find(|(listener, _)| *listener == certificate.listener);
        if !trust.is_some_and(|(_, trust)| certificate.is_believed(trust, clock)) {
            return Err(invalid(InvalidReason::Issuer));
        }
        let subject = content.name(self.rules.subject).map_err(invalid)?;
        let fingerprint = &certificate.fingerprint;
        match directory.denies_certificate(fingerprint, subject, content.begins_at) {
            true => Err(invalid(InvalidReason::Revoked)),
            false => Ok(subject),
        }
    }

    fn caller(
        &self,
        certificate: &ClientCertificate,
        subject: &Arc<str>,
        found: Found,
    ) -> Identified {
        match found {
            Lookup::Known(entry) if !entry.value.enabled => Err(invalid(InvalidReason::Disabled)),
            Lookup::Known(entry) => {
                let same = |caller: &Caller| {
                    Arc::ptr_eq(&caller.consumer, &entry.value) && names(caller, subject)
                };
                let make = || caller(certificate, subject, Arc::clone(&entry.value));
                Ok(kept(&certificate.caller, same, make))
            }
            Lookup::Unavailable(outage) => Err(Denied::Unavailable(outage)),
            Lookup::Unknown => {
                let Some(plan) = &self.rules.default_plan else {
                    return Err(invalid(InvalidReason::Unknown));
                };
                let same = |caller: &Caller| caller.plan == *plan && names(caller, subject);
                let make = || caller(certificate, subject, stranger(subject, plan));
                Ok(kept(&certificate.stranger, same, make))
            }
        }
    }
}

/// The caller that is kept with a certificate, made anew where it is not the same any more.
fn kept(
    place: &ArcSwapOption<Caller>,
    same: impl FnOnce(&Caller) -> bool,
    make: impl FnOnce() -> Caller,
) -> Arc<Caller> {
    if let Some(caller) = place.load().as_ref().filter(|caller| same(caller)) {
        return Arc::clone(caller);
    }
    let caller = Arc::new(make());
    place.store(Some(Arc::clone(&caller)));
    caller
}

/// Whether the caller was made for this name of its certificate.
fn names(caller: &Caller, subject: &str) -> bool {
    matches!(&caller.credential, Credential::Certificate { subject: named, .. } if **named == *subject)
}

fn caller(certificate: &ClientCertificate, subject: &Arc<str>, consumer: Arc<Consumer>) -> Caller {
    Caller {
        plan: Arc::clone(&consumer.plan),
        consumer,
        credential: Credential::Certificate {
            subject: Arc::clone(subject),
            fingerprint: Arc::clone(&certificate.fingerprint),
        },
        scopes: Arc::default(),
        claims: Arc::default(),
        fields: Fields::default(),
    }
}

/// A consumer that the store does not know.
fn stranger(subject: &Arc<str>, plan: &Arc<str>) -> Arc<Consumer> {
    Arc::new(Consumer {
        // No id of the store has a colon, and tokens of strangers begin otherwise.
        id: format!("{CERTIFICATES}:{subject}").into(),
        username: Arc::clone(subject),
        custom_id: None,
        plan: Arc::clone(plan),
        policies: Arc::default(),
        enabled: true,
    })
}

const fn invalid(reason: InvalidReason) -> Denied {
    Denied::Invalid { method: Method::Certificate, reason }
}
