//! Certificates and keys as PEM files, read and checked when the configuration is loaded, so that
//! a listener never starts, and a reload never passes, with a pair that does not fit. Authorities and
//! their lists of revoked certificates are read the same way.

use super::secret::Secret;
use super::value::Invalid;
use crate::auth::ClientTrust;
use rustls::server::VerifierBuilderError;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// Bytes of a file with certificates.
const LARGEST: u64 = 1024 * 1024;

/// A chain with the private key that belongs to it.
#[derive(Clone)]
pub struct Certificate(Arc<CertifiedKey>);

impl Certificate {
    /// As rustls wants it.
    #[must_use]
    pub fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.0
    }
}

impl PartialEq for Certificate {
    /// By the chain; the key belongs to its first certificate.
    fn eq(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate(chain of {})", self.0.cert.len())
    }
}

/// Why a pair cannot be used: which of the two files is to blame.
pub(crate) enum Unusable {
    /// The chain.
    Chain(Invalid),
    /// The key.
    Key(Invalid),
}

/// Puts a chain and its key together.
pub(crate) fn pair(chain: &Path, key: &Secret) -> Result<Certificate, Unusable> {
    let certificates = read_chain(chain).map_err(Unusable::Chain)?;
    let key = PrivateKeyDer::from_pem_slice(&key.0).map_err(|_| {
        Unusable::Key(Invalid::new(
            "there is no private key in it",
            "the file must be PEM, with `BEGIN PRIVATE KEY` or the like",
        ))
    })?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    match CertifiedKey::from_der(certificates, key, &provider) {
        Ok(pair) => Ok(Certificate(Arc::new(pair))),
        Err(rustls::Error::InconsistentKeys(_)) => Err(Unusable::Key(Invalid::new(
            "the key does not belong to the certificate",
            "the first certificate of the chain must be the one made for this key",
        ))),
        Err(rustls::Error::InvalidCertificate(error)) => Err(Unusable::Chain(Invalid::new(
            format!("the certificate cannot be used: {error}"),
            "the first certificate must be an X.509 v3 certificate",
        ))),
        Err(error) => Err(Unusable::Key(Invalid::new(
            format!("the key cannot be used: {error}"),
            "use RSA with at least 2048 bits, ECDSA P-256 or P-384, or Ed25519",
        ))),
    }
}

/// Certificates to trust; each of them can be an anchor.
pub(crate) fn roots(path: &Path) -> Result<Arc<[CertificateDer<'static>]>, Invalid> {
    let certificates = read_chain(path)?;
    check_roots(path, &certificates)?;
    Ok(certificates.into())
}

/// Why clients cannot be believed: which of the two files is to blame.
pub(crate) enum Unbelievable {
    /// The authorities.
    Authorities(Invalid),
    /// One of them is none.
    NoAuthority(Invalid),
    /// The lists of what they have revoked.
    Lists(Invalid),
}

/// Whose client certificates are believed.
pub(crate) fn client_trust(
    authorities: &Path,
    lists: Option<&Path>,
    required: bool,
) -> Result<ClientTrust, Unbelievable> {
    let roots = roots(authorities).map_err(Unbelievable::Authorities)?;
    check_authorities(&roots)?;
    let lists = lists.map_or_else(|| Ok(Vec::new()), revoked).map_err(Unbelievable::Lists)?;
    ClientTrust::new(&roots, &lists, required).map_err(|error| match error {
        VerifierBuilderError::InvalidCrl(error) => Unbelievable::Lists(Invalid::new(
            format!("a list in it cannot be used: {error:?}"),
            "the file must be PEM with whole lists (RFC 5280 5), no deltas",
        )),
        error => Unbelievable::Authorities(Invalid::new(
            format!("no client can be believed: {error}"),
            "name the file with the certificates of the authority",
        )),
    })
}

/// Anything can be an anchor to rustls: a client's certificate would make its key an authority.
fn check_authorities(roots: &[CertificateDer<'static>]) -> Result<(), Unbelievable> {
    for root in roots {
        let label = match is_authority(root) {
            Some(true) => continue,
            Some(false) => "it has no CA:TRUE",
            None => "it does not say that it is one",
        };
        return Err(Unbelievable::NoAuthority(Invalid::new(
            label,
            "name the authority that signed the clients' certificates, not one of them",
        )));
    }
    Ok(())
}

/// What the basic constraints say (RFC 5280 4.2.1.9), if there are any.
fn is_authority(certificate: &CertificateDer<'_>) -> Option<bool> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let constraints = certificate.basic_constraints().ok()??;
    Some(constraints.value.ca)
}

/// Lists of revoked certificates; at least one.
fn revoked(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, Invalid> {
    let bytes = read(path)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    match lists {
        Ok(lists) if !lists.is_empty() => Ok(lists),
        _ => Err(Invalid::new(
            format!("there is no list of revoked certificates in `{}`", path.display()),
            "the file must be PEM, with `BEGIN X509 CRL`",
        )),
    }
}

/// The same as PEM, for those who read it themselves.
pub(crate) fn authority(path: &Path) -> Result<Arc<[u8]>, Invalid> {
    let bytes = read(path)?;
    check_roots(path, &chain_of(path, &bytes)?)?;
    Ok(bytes.into())
}

fn check_roots(path: &Path, certificates: &[CertificateDer<'static>]) -> Result<(), Invalid> {
    let mut store = rustls::RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate.clone()).map_err(|error| {
            Invalid::new(
                format!("`{}` has a certificate that cannot be trusted: {error}", path.display()),
                "name the file with the certificates of the authority",
            )
        })?;
    }
    Ok(())
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Invalid> {
    chain_of(path, &read(path)?)
}

fn chain_of(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Invalid> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match certificates {
        Ok(list) if !list.is_empty() => Ok(list),
        _ => Err(Invalid::new(
            format!("there is no certificate in `{}`", path.display()),
            "the file must be PEM, with `BEGIN CERTIFICATE`",
        )),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Invalid> {
    let shown = path.display();
    let failed = |error: std::io::Error| {
        Invalid::new(
            format!("`{shown}` cannot be read: {error}"),
            "paths start at the folder of the configuration",
        )
    };
    let about = std::fs::metadata(path).map_err(failed)?;
    if !about.is_file() || about.len() > LARGEST {
        return Err(Invalid::new(
            format!("`{shown}` is not a file of at most 1 MiB"),
            "name a file with certificates as PEM",
        ));
    }
    std::fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    #[test]
    fn an_authority_is_told_from_a_certificate() {
        for (is_ca, expected) in [
            (IsCa::Ca(BasicConstraints::Unconstrained), Some(true)),
            (IsCa::Ca(BasicConstraints::Constrained(0)), Some(true)),
            (IsCa::ExplicitNoCa, Some(false)),
            (IsCa::NoCa, None),
        ] {
            let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
            params.is_ca = is_ca;
            let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            assert_eq!(is_authority(made.der()), expected);
            let checked = check_authorities(&[made.der().clone()]);
            assert_eq!(checked.is_ok(), expected == Some(true));
        }
    }
}
