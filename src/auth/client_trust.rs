//! Whose client certificates a listener believes.
//!
//! Must stay true: two values with the same [`TrustId`] verify the same certificates, so that what one
//! has verified need not be verified by the other.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a chain: both it and what it becomes stay in memory as long as its connection.
const MAX_CHAIN: usize = 16 * 1024;
/// Bytes of the names of authorities that clients are told; above, they are told none, and show what
/// they have.
const MAX_HINTS: usize = 16 * 1024;

/// Stands for the authorities and lists of revoked certificates of a [`ClientTrust`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct TrustId([u8; 32]);

/// Authorities whose client certificates are believed, and what they have taken back.
#[derive(Clone)]
pub struct ClientTrust {
    id: TrustId,
    required: bool,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientTrust {
    /// Believes certificates of `authorities` that no list of `revoked` names; with a list, only those
    /// whose authorities all have one. `required` says whether there must be a certificate.
    ///
    /// # Errors
    /// A list that cannot be read, or no authority at all.
    pub fn new(
        authorities: &[CertificateDer<'static>],
        revoked: &[CertificateRevocationListDer<'static>],
        required: bool,
    ) -> Result<Self, VerifierBuilderError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.iter().cloned());
        let hints: usize = roots.subjects().iter().map(|name| name.as_ref().len() + 2).sum();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = builder.with_crls(revoked.iter().cloned());
        let builder = if hints > MAX_HINTS { builder.clear_root_hint_subjects() } else { builder };
        let builder = if required { builder } else { builder.allow_unauthenticated() };
        let mut digest = Sha256::new();
        let lists = revoked.iter().map(AsRef::as_ref);
        for part in authorities.iter().map(AsRef::as_ref).chain([&[][..]]).chain(lists) {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        let id = TrustId(digest.finalize().into());
        Ok(Self { id, required, verifier: Arc::new(Bounded(builder.build()?)) })
    }

    /// What asks for certificates and verifies them during a handshake.
    #[must_use]
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    pub(super) const fn id(&self) -> TrustId {
        self.id
    }

    /// Whether a chain, leaf first, is believed at `now` since 1970.
    pub(super) fn verifies(&self, chain: &[CertificateDer<'static>], now: Duration) -> bool {
        let Some((leaf, others)) = chain.split_first() else { return false };
        let now = UnixTime::since_unix_epoch(now);
        self.verifier.verify_client_cert(leaf, others, now).is_ok()
    }
}

impl PartialEq for ClientTrust {
    fn eq(&self, other: &Self) -> bool {
        (self.id, self.required) == (other.id, other.required)
    }
}

impl fmt::Debug for ClientTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTrust").field("required", &self.required).finish_non_exhaustive()
    }
}

/// A verifier that looks at no chain beyond [`MAX_CHAIN`].
#[derive(Debug)]
struct Bounded(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Bounded {
    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let length: usize = others.iter().chain([leaf]).map(|one| one.as_ref().len()).sum();
        if length > MAX_CHAIN {
            return Err(rustls::Error::General("the client's chain is too long".to_owned()));
        }
        self.0.verify_client_cert(leaf, others, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
