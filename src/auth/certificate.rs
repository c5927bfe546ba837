//! The certificate that a client showed in its TLS handshake, read once per connection.
//!
//! Must stay true: what becomes a name is printable ASCII of a bounded length, and a certificate that
//! could be read in two ways names nobody.

use super::claims;
use super::client_trust::{ClientTrust, TrustId};
use super::denied::InvalidReason;
use super::identity::Caller;
use crate::telemetry::{Clock, Moment};
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rustls::HandshakeKind;
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

/// How long a chain is believed without being verified again: an authority in its middle may end
/// meanwhile.
const BELIEVED_FOR: Duration = Duration::from_secs(300);

/// Which part of a certificate names the consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubjectPart {
    /// The common name of the subject; there must be one only.
    #[default]
    CommonName,
    /// The first DNS name of the alternative names.
    Dns,
    /// The first URI of the alternative names.
    Uri,
    /// The first mail address of the alternative names.
    Email,
}

/// A client's certificate, with its chain; it was verified when the connection began.
pub struct ClientCertificate {
    /// The listener that the client came in at.
    pub(super) listener: Arc<str>,
    /// SHA-256 of the certificate, in hex.
    pub(super) fingerprint: Arc<str>,
    /// What is in it.
    pub(super) content: Result<Content, InvalidReason>,
    /// Leaf first.
    chain: Vec<CertificateDer<'static>>,
    /// The trust that it was last verified under.
    verdict: Mutex<Verdict>,
    /// Of the consumer as the directory last gave it.
    pub(super) caller: ArcSwapOption<Caller>,
    /// Of a consumer that the store does not know.
    pub(super) stranger: ArcSwapOption<Caller>,
}

#[derive(Clone, Copy)]
struct Verdict {
    trust: TrustId,
    good: bool,
    until: Moment,
}

/// What a certificate says.
#[derive(Debug)]
pub(super) struct Content {
    names: [Result<Arc<str>, InvalidReason>; 4],
    /// Seconds since 1970.
    pub(super) begins_at: i64,
    /// The last second at which it is valid.
    pub(super) ends_at: i64,
}

impl ClientCertificate {
    /// Reads the chain of a handshake at `listener` under `trust`; `None` without a certificate. Only
    /// a full handshake verifies it: one that takes a session up again renews no belief.
    #[must_use]
    pub fn read(
        listener: &Arc<str>,
        chain: &[CertificateDer<'static>],
        handshake: Option<HandshakeKind>,
        trust: &ClientTrust,
        clock: &Clock,
    ) -> Option<Self> {
        let leaf = chain.first()?;
        let until = match handshake {
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) => {
                clock.now() + BELIEVED_FOR
            }
            Some(HandshakeKind::Resumed) | None => clock.now(),
        };
        Some(Self {
            listener: Arc::clone(listener),
            fingerprint: fingerprint(leaf),
            content: Content::read(leaf),
            chain: chain.to_vec(),
            verdict: Mutex::new(Verdict { trust: trust.id(), good: true, until }),
            caller: ArcSwapOption::empty(),
            stranger: ArcSwapOption::empty(),
        })
    }

    /// Whether `trust`, which is in force now, believes it still.
    pub(super) fn is_believed(&self, trust: &ClientTrust, clock: &Clock) -> bool {
        let now = clock.now();
        let verdict = *self.verdict.lock();
        if verdict.trust == trust.id() && now < verdict.until {
            return verdict.good;
        }
        let good = trust.verifies(&self.chain, clock.unix_time());
        *self.verdict.lock() = Verdict { trust: trust.id(), good, until: now + BELIEVED_FOR };
        good
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl Content {
    fn read(der: &[u8]) -> Result<Self, InvalidReason> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| InvalidReason::Malformed)?;
        if !rest.is_empty() {
            return Err(InvalidReason::Malformed);
        }
        let validity = certificate.validity();
        let alternative = |part| alternative_name(&certificate, part);
        Ok(Self {
            names: [
                common_name(&certificate),
                alternative(SubjectPart::Dns),
                alternative(SubjectPart::Uri),
                alternative(SubjectPart::Email),
            ],
            begins_at: validity.not_before.timestamp(),
            ends_at: validity.not_after.timestamp(),
        })
    }

    /// The name that this part gives.
    pub(super) fn name(&self, part: SubjectPart) -> Result<&Arc<str>, InvalidReason> {
        let [common, dns, uri, email] = &self.names;
        let name = match part {
            SubjectPart::CommonName => common,
            SubjectPart::Dns => dns,
            SubjectPart::Uri => uri,
            SubjectPart::Email => email,
        };
        name.as_ref().map_err(|reason| *reason)
    }
}

/// The common name. Of several, parties could take different ones.
fn common_name(certificate: &X509Certificate<'_>) -> Result<Arc<str>, InvalidReason> {
    let mut names = certificate.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => usable(name.as_str().map_err(|_| InvalidReason::Subject)?),
        _ => Err(InvalidReason::Subject),
    }
}

/// The first alternative name of a kind.
fn alternative_name(
    certificate: &X509Certificate<'_>,
    part: SubjectPart,
) -> Result<Arc<str>, InvalidReason> {
    let names = certificate.subject_alternative_name().map_err(|_| InvalidReason::Subject)?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let first = names.iter().find_map(|name| match (part, name) {
        (SubjectPart::Dns, GeneralName::DNSName(text))
        | (SubjectPart::Uri, GeneralName::URI(text))
        | (SubjectPart::Email, GeneralName::RFC822Name(text)) => Some(*text),
        _ => None,
    });
    usable(first.ok_or(InvalidReason::Subject)?)
}

fn usable(name: &str) -> Result<Arc<str>, InvalidReason> {
    match claims::is_printable(name, claims::MAX_NAME) {
        true => Ok(name.into()),
        false => Err(InvalidReason::Subject),
    }
}

fn fingerprint(certificate: &[u8]) -> Arc<str> {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(certificate) {
        // A string takes all that is written.
        if write!(hex, "{byte:02x}").is_err() {
            break;
        }
    }
    hex.into()
}
